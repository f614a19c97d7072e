"Detector and watermark: what they promise, on sounds they were not trained on, and how they fail."
import json
import random

import numpy as np
import pytest
import soundfile as sf
import torch

from audiolm_edu import attacks as went_through
from audiolm_edu.attacks import AUDIOSEAL, DRAWS, attacks, coded, loudness
from audiolm_edu.audio import SR, AudioError, load_audio, save_audio, si_sdr
from audiolm_edu.bench_marks import bits_right, overlap, rates
from audiolm_edu.cli import main
from audiolm_edu.corpus import clips, prompt_path
from audiolm_edu.detector import Detector, calibrated
from audiolm_edu.fine_stage import LEVELS
from audiolm_edu.hub import locate, weights_hash
from audiolm_edu.watermark import Watermark, frames_of, seen, spectrum


@pytest.fixture(scope='module')
def pair(): return Watermark.from_pretrained()


@pytest.fixture(scope='module')
def det(): return Detector.from_pretrained()


@pytest.fixture(scope='module')
def voices(lm):
    "Four seconds of each synthesizer of the yardstick: no weights were trained on them; through the codec."
    said = {}
    for c in clips('synthetic-speech'): said.setdefault(c.speaker, []).append(c.audio())
    x = torch.stack([torch.cat(xs)[a:a+4*SR] for xs in said.values() for a in (0, 4*SR)])
    x = lm.codec.roundtrip(x/loudness(x)*.1, LEVELS)
    return x/loudness(x)*.1


# ---- attacks

@pytest.mark.parametrize('name', DRAWS)
def test_draws_are_finite_on_anything(name):
    for x in (torch.zeros(2, SR), torch.ones(2, SR), torch.randn(2, SR).clamp(-1, 1)):
        y = DRAWS[name](x, random.Random(0))
        assert y.isfinite().all() and len(y)==2 and (name=='speed' or y.shape==x.shape)


def test_speed_moves_everything():
    t = torch.arange(SR)/SR; x = torch.sin(2*np.pi*400*t)[None]
    y = went_through.speed(x, .8)
    assert y.shape==(1, 20000) and torch.fft.rfft(y).abs().argmax()*SR/20000==320


def test_aac_says_what_is_missing(monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(AudioError, match='pip install av'): coded(torch.zeros(1, 800), 'aac', 64)


# ---- watermark

def test_hidden(pair, voices):
    y = torch.stack([pair.embed(x, i) for i,x in enumerate(voices)])
    assert si_sdr(voices, y).mean() > 24 and not torch.equal(voices, y)


@pytest.mark.parametrize('name', ['none', 'high-pass', 'band-pass', 'boost', 'duck', 'echo', 'MP3 32', 'Opus 24', 'codec', 'speed 1.25'])
def test_found_after(lm, pair, voices, name):
    f = attacks(lm.codec)[name]
    marked = torch.stack([pair.embed(x, 0x35c9) for x in voices])
    torch.manual_seed(0); yes = [pair.detect(x) for x in f(marked)]
    torch.manual_seed(0); no = [pair.detect(x) for x in f(voices)]
    r = rates([a.score for a in yes], [b.score for b in no], pair.config.threshold)
    assert r['right'] >= (.7 if name.startswith('speed') else .85) and r['auc'] > .9
    if name=='none':
        assert r['false']==0 and r['found']==1
        assert np.mean([bits_right(a.message, 0x35c9) for a in yes]) > .9


def test_place(pair, voices):
    long = voices.flatten()[:10*SR]
    found = pair.detect(pair.embed(long, 9, 4.3, 6.1))
    assert overlap(found.spans, [(4.3,6.1)]) > .8


def test_long_sounds_in_parts(pair):
    "What is found does not depend on where a part begins."
    x = torch.cat([c.audio() for c in clips('speech')])[:70*SR]; x = x/loudness(x[None])[0]*.1
    y = pair.embed(x, 77, 31, 33)
    assert torch.equal(y[:31*SR], x[:31*SR]) and torch.equal(y[33*SR:], x[33*SR:])
    assert overlap(pair.detect(y).spans, [(31,33)]) > .7 and not pair.detect(x).marked


def test_nothing_to_mark(pair):
    for x in (torch.zeros(SR), torch.ones(3*SR)*.3, torch.zeros(3)): assert not pair.detect(x).marked
    assert torch.equal(pair.embed(torch.zeros(SR), 5), torch.zeros(SR))
    for bad in (np.full(SR, np.nan), torch.zeros(2, SR), torch.zeros(100)):
        with pytest.raises(AudioError): pair.embed(bad)
    with pytest.raises(AudioError, match='65535'): pair.embed(torch.zeros(SR), 2**16)
    for start,end in ((-1,None), (2,None), (.5,.5), (.6,.2)):
        with pytest.raises(AudioError, match='start is'): pair.embed(torch.zeros(SR), 1, start, end)


def test_edges_do_not_count():
    where = torch.ones(1, SR); where[:, 5000:9000] = 0; where[:, 12000:] = -1
    f = frames_of(where)[0]
    assert f.shape==spectrum(torch.zeros(1, SR))[0].shape[:1] and {-1., 0., 1.}==set(f.tolist())
    assert f[27]==0 and f[5]==1 and (f[48:]==-1).all()


def test_what_is_seen_knows_no_loudness():
    x = torch.randn(1, SR)*.1
    assert torch.allclose(seen(spectrum(x)), seen(spectrum(x/30)), atol=2e-2)


# ---- detector

def test_matched_sides(lm, det, voices):
    "Continuations of voices nobody was trained on, against the voices through the same codec."
    takes = lm.continue_from([x[:3*SR] for x in voices], 4, list(range(len(voices))))
    yes = [det.probability(t.audio[t.prompt_frames*640:]) for t in takes]
    assert np.mean([p > .5 for p in yes]) >= .85


def test_people_of_the_package(lm, det):
    "Recordings of people are not accused, as they are or through the codec."
    xs = [c.audio()[:6*SR] for c in clips('speech') if c.seconds > 2]
    for f in (lambda x: lm.codec.roundtrip(x, LEVELS), lambda x: x):
        assert np.mean([det.probability(f(x)) > .5 for x in xs]) < .1


def test_too_little_to_judge(det, prompt):
    for x in (torch.zeros(SR), prompt[:SR//2], torch.zeros(0), torch.randn(10)):
        v = det.judge(x)
        assert not v.known and v.probability==.5 and 'cannot tell' in str(v)


def test_never_certain(det, prompt):
    v = det.judge(prompt)
    assert det.config.limit <= v.low <= v.probability <= v.high <= 1-det.config.limit
    sharp = Detector(det.config); sharp.load_state_dict(det.state_dict()); sharp.eval()
    with torch.no_grad(): sharp.cnn.name.weight *= 100
    assert det.config.limit <= sharp.probability(prompt) <= 1-det.config.limit


def test_calibration_turns_scores_into_rates(det):
    "With odds that are ten times too sure, the slope shrinks until shares and probabilities agree."
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 400); y = rng.random(400) < 1/(1+np.exp(-true))
    class Sure(Detector):
        def odds(self, x): return torch.full((9,), 10*float(x[0]))
    loud = Sure(det.config)
    c = calibrated(loud, [torch.tensor([t]) for t in true], y.tolist()).config
    assert abs(c.slope-.1) < .02 and abs(c.shift) < .4 and c.limit==3/400


# ---- the reports beside the weights

@pytest.mark.parametrize('name', ['detector', 'watermark'])
def test_report_is_of_these_weights(name):
    assert json.loads((locate(name)/'report.json').read_text())['weights']==weights_hash(name)


def test_six_megabytes():
    assert sum(p.stat().st_size for n in ('detector','watermark') for p in locate(n).glob('*.safetensors')) < 6e6


# ---- command line

def test_continue_marks_what_is_new(tmp_path, capsys, pair, lm):
    for name,extra in (('a',[]), ('b',['--no-watermark'])):
        assert main(['continue', '-o', str(tmp_path/f'{name}.flac'), '--seconds', '2', '--seed', '4', *extra])==0
    said = capsys.readouterr().out; a, b = (load_audio(tmp_path/f'{n}.flac') for n in 'ab')
    message = lm.weights[:4]
    assert f'watermark {message} in the new part, from 3.00 s on' in said and 'watermark none' in said
    with sf.SoundFile(tmp_path/'a.flac') as f: assert f'watermark {message}' in f.comment
    assert torch.equal(a[:3*SR], b[:3*SR]) and not torch.equal(a[3*SR:], b[3*SR:])
    found = pair.detect(a); assert found.marked and overlap(found.spans, [(3,5)]) > .7 and not pair.detect(b).marked
    assert f'{found.message:04x}'==message
    assert main(['watermark', 'detect', str(tmp_path/'a.flac')])==1 and message in capsys.readouterr().out
    assert main(['watermark', 'detect', str(tmp_path/'b.flac')])==0 and 'no mark' in capsys.readouterr().out


def test_detect(tmp_path, capsys):
    person, short = tmp_path/'person.wav', tmp_path/'short.wav'
    save_audio(person, clips('speech')[3].audio()); save_audio(short, clips('speech')[3].audio()[:SR//3])
    assert main(['detect', str(person)])==0 and 's of voice' in capsys.readouterr().out
    assert main(['detect', str(person), str(short)])==3 and 'cannot tell' in capsys.readouterr().out
    (tmp_path/'diary.wav').write_text('dear diary')
    assert main(['detect', str(tmp_path/'diary.wav'), str(person), '--plot', str(tmp_path/'p.png')])==2
    said = capsys.readouterr(); assert 'person.wav: generated with' in said.out and 'diary.wav' in said.err
    assert (tmp_path/'p.png').read_bytes()[1:4]==b'PNG'
    assert main(['detect', str(person), '--plot', str(tmp_path/'p.txt')])==2 and 'png' in capsys.readouterr().err
    assert main(['detect', str(person), '--plot', str(tmp_path/'no'/'p.png')])==2 and 'no folder' in capsys.readouterr().err


def test_embed(tmp_path, capsys):
    out = tmp_path/'m.wav'
    assert main(['watermark', 'embed', str(prompt_path()), '-o', str(out), '--message', 'beef'])==0
    assert main(['watermark', 'detect', str(out)])==1 and 'beef' in capsys.readouterr().out.splitlines()[-1]
    for wrong,word in ((['--message', 'xyz', '-o', str(out)], 'hexadecimal'), (['-o', str(tmp_path/'x.txt')], 'suffix'), ([], '-o'),
                       (['--message', '12345', '-o', str(out)], '65535')):
        assert main(['watermark', 'embed', str(prompt_path()), *wrong])==2 and word in capsys.readouterr().err
