"Performances, the sampled piano, and measures of music; models of two stages."
import shutil

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings, strategies as st

from audiolm_edu.audio import SR, AudioError, load_audio
from audiolm_edu.audiolm import AudioLM
from audiolm_edu.coarse_stage import coarse_config
from audiolm_edu.codec import CODEC_PRESETS, Codec
from audiolm_edu.events import EVENTS, PASS, UP, continue_events, from_events, moved, to_events
from audiolm_edu.hub import ModelError, locate, save_model
from audiolm_edu import cli, piano_recipes
from audiolm_edu.corpus import Clip, clips, held_out, prompt_path
from audiolm_edu.piano import (HELD, NAMES, Note, Piano, apart, between, key_of, n_grams, note_f1, pedalled, performance, pitch_classes,
                               played, quoted, read_midi, read_sfz, recording_of, render_corpus, repeated, skyline, write_midi)
from audiolm_edu.piano_models import PIANO_MANNER, Alone, keys, touched
from audiolm_edu.semantic import SEMANTIC_PRESETS, SemanticTokenizer
from audiolm_edu.semantic_stage import semantic_config
from audiolm_edu.transformer import LMConfig, TokenLM

a_note = st.builds(lambda t, n, k, v: Note(t/50, (t+n)/50, k, v), st.integers(0, 500), st.integers(1, 100), st.integers(21, 108), st.integers(1, 127))
some_notes = st.lists(a_note, min_size=1, max_size=30)


def apart_in_time(notes):
    "A key cannot be struck while it sounds: of two such notes, the first ends."
    return pedalled(notes, [])


@settings(deadline=None, max_examples=60)
@given(some_notes)
def test_midi_and_back(tmp_path_factory, notes):
    path = tmp_path_factory.mktemp('midi')/'n.mid'; by_key = lambda notes: sorted(notes, key=lambda n: (n.pitch, n.start))
    notes = by_key(apart_in_time(notes)); write_midi(notes, path); back = by_key(read_midi(path))
    assert [n[2:] for n in back]==[n[2:] for n in notes]
    assert np.allclose([n[:2] for n in back], [n[:2] for n in notes], atol=2e-3)


@settings(deadline=None, max_examples=60)
@given(some_notes, st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=4))
def test_the_pedal_only_lengthens_and_never_over_the_next_strike(notes, presses):
    spans, end = [], -1.
    for a,n in sorted(presses):                                       # presses that do not overlap
        if a/50 > end: end = (a+n)/50; spans.append((a/50, end))
    before, after = apart_in_time(notes), pedalled(notes, spans)
    assert [(n.start, n.pitch) for n in before]==[(n.start, n.pitch) for n in after]
    for b,a in zip(before, after):
        assert a.end >= b.end
        later = [n.start for n in notes if n.pitch==a.pitch and n.start > a.start]
        assert not later or a.end <= min(later)
        if a.end > b.end: assert any(down <= b.end < up for down,up in spans)


def test_an_sfz_file_is_read_with_its_definitions_includes_and_groups(tmp_path):
    (tmp_path/'Data').mkdir(); (tmp_path/'S').mkdir(); sf.write(tmp_path/'S'/'a b.wav', np.sin(2*np.pi*440*np.arange(SR)/SR)*.5, SR)
    (tmp_path/'Data'/'Loud.txt').write_text('<region> lokey=60 hikey=72 pitch_keycenter=69 sample=a b.$EXT // one\n')
    (tmp_path/'p.sfz').write_text('#define $EXT wav\n<control>\ndefault_path=S/\n<group>\nlovel=1\nhivel=127\n#define $D Loud\n#include "Data/$D.txt"\n'
                                  '<group>\nlocc64=65 lovel=1 hivel=127\n#include "Data/$D.txt"\n')
    assert len(read_sfz(tmp_path/'p.sfz'))==2; piano = Piano(tmp_path/'p.sfz'); assert len(piano.regions)==1
    for pitch in (64, 69, 71):                                        # played faster or slower, the pitch is right to a hundredth of a semitone
        y = piano.play([Note(0, .9, pitch, 100)], .9); f = torch.fft.rfft(y*torch.hann_window(len(y)), 2**18).abs().argmax().item()*SR/2**18
        assert abs(12*np.log2(f/440)+69-pitch) < .01
    assert piano.play([Note(0, 1, 50, 90)], 1.).abs().max()==0        # no sample for it


def test_rendering_is_a_sum_and_keeps_time():
    piano = Piano(); a, b = Note(.2, .6, 60, 70), Note(.5, 1., 67, 90)
    raw = lambda notes: (y := piano.play(notes, 2.))/y.abs().max()
    one, two, both = raw([a]), raw([b]), piano.play([a, b], 2.)
    A = torch.stack([one, two], 1); fit = torch.linalg.lstsq(A, both[:,None]).solution; assert (A@fit-both[:,None]).abs().max() < 1e-4
    assert one[:round(.2*SR)].abs().max()==0 and one[round(.2*SR):round(.23*SR)].abs().max() > .05
    assert abs(both.abs().max()-.6) < 1e-5 and piano.play([], 1.).abs().max()==0


def test_clips_of_a_performance_are_its_pieces():
    notes = performance(); piano = Piano(); whole = piano.play(notes); parts = list(played(notes, piano, seconds=20))
    joined = torch.cat([x for x,_ in parts]); assert torch.allclose(joined, whole[:len(joined)])
    assert sum(len(n) for _,n in parts)==len(between(notes, 0, 20*len(parts)))
    assert list(played([Note(0, 1, 30, 60)], piano, shift=-12))==[]   # below the keyboard


@settings(deadline=None, max_examples=40)
@given(some_notes, st.integers(-11, 11))
def test_keys_move_with_the_music_and_n_grams_do_not(notes, k):
    up = [n._replace(pitch=n.pitch+k) for n in notes]
    assert np.allclose(np.roll(pitch_classes(notes), k), pitch_classes(up)) and n_grams(notes, 3)==n_grams(up, 3)
    a, b = key_of(notes)[1], key_of(up)[1]; assert abs(a-b) < 1e-9    # as clear a key
    assert apart(pitch_classes(notes), pitch_classes(notes))==0 and 0 <= apart(pitch_classes(notes), pitch_classes(up)) <= 1


def test_a_melody_over_chords_is_heard_as_its_top():
    melody = [60,62,64,65,67]
    notes = [n for i,p in enumerate(melody) for n in (Note(i+.01, i+.9, p, 80), Note(i, i+.9, p-12, 60), Note(i+.02, i+.9, p-5, 60))]
    assert skyline(notes)==melody and repeated(notes+[n._replace(start=n.start+9, end=n.end+9) for n in notes], 3) > .2
    assert quoted(notes, set(n_grams(notes, 4)), 4)==1 and quoted(notes, set(), 4)==0 and quoted([], set(), 4)==0
    for i,name in enumerate(NAMES):
        chord = [Note(0, 1, 60+i+s, 60) for s in (0,0,4,7)]; assert key_of(chord)[0]==f'{name} major'


def test_note_f1_counts_a_note_once_and_forgives_50_ms():
    true = [Note(0, 1, 60, 60), Note(1, 2, 62, 60)]
    assert note_f1(true, true+[Note(0, 1, 60, 60)])==pytest.approx(.8) and note_f1(true, [n._replace(start=n.start+.06) for n in true])==0


def test_recordings_are_told_apart_by_their_name():
    same = {recording_of(f'x/Schubert_Fantasie_lR43Ti4w5MM_cut_mov_{i}.mid') for i in range(1, 5)}; assert same=={'lR43Ti4w5MM'}
    assert recording_of('Liszt, Franz, Hungarian Rhapsody No.2, S.244_2, LdH1hSWGFGU.mid')=='LdH1hSWGFGU' and recording_of('a.mid')=='a'


@pytest.fixture(scope='module')
def two_stages(tmp_path_factory):
    torch.manual_seed(0); d = tmp_path_factory.mktemp('two')
    codec = Codec(CODEC_PRESETS['tiny'].__class__(width=32, encoder=(1,1), decoder=(1,1), latent=16, levels=3, codes=32, mels=96, n_fft=1280, floor=4e-4, iterations=4))
    x = performance_sound()[None,:4*SR]; codec.fit_transform(x).fit_codebooks(x); s = SEMANTIC_PRESETS['tiny']
    semantic = SemanticTokenizer(s.__class__(width=32, layers=2, layer=2, mels=96, clusters=16, voice=0, n_fft=1280, relative=False)); semantic.fit_clusters([x])
    sizes = dict(width=32, layers=1, tied=True)
    for name,m in dict(codec=codec, semantic=semantic, stage1=TokenLM(semantic_config(16, **sizes)), stage2=TokenLM(coarse_config(16, 32, levels=3, **sizes))).items():
        save_model(m.eval(), d, name)
    (d/'audiolm.json').write_text('{"stages": 2, "context": 100, "window": 150}'); return d


def performance_sound(): return Piano().play(performance())


def test_two_stages_continue_a_prompt(two_stages):
    lm = AudioLM.from_pretrained(two_stages); x = performance_sound()[:4*SR]; take = lm.continue_from(x, 5, seed=1)
    assert (lm.coarse, lm.fine, lm.window, lm.context)==(3, 0, 150, 100) and take.acoustic.shape==(225, 3) and take.seconds==9
    assert torch.equal(take.acoustic[:100], lm.codec.encode(x[None])[0]) and torch.equal(lm.continue_from(x, 5, seed=1).audio, take.audio)
    parts = list(lm.stream(x, 5, seed=1)); assert abs(sum(map(len, parts))-5*SR) < 1 and lm.generate(2, seed=0).acoustic.shape==(50, 3)
    a, b = lm.continue_from([x, x[:2*SR]], 5, seed=[1,2]); assert torch.equal(a.acoustic, take.acoustic) and len(b.acoustic)==175


def test_a_key_is_not_taken_away(two_stages):
    "Tokens of a stretch do not depend on the level of what surrounds it, as they would if a clip's mean were taken away."
    lm = AudioLM.from_pretrained(two_stages); x = performance_sound()[None,:4*SR]
    alone = lm.semantic.encoder.hear(x); assert lm.semantic.levelled(torch.ones(1,5,32)).shape==(1,5,32)
    with torch.no_grad(): a, b = lm.semantic.encoder(alone)[0], lm.semantic.encoder(alone+1)[0]
    assert (a-b).abs().max() > .01                                    # louder is seen; relative levels would hide it


def test_what_is_wrong_with_music_is_said(tmp_path, two_stages):
    shutil.copytree(two_stages, tmp_path/'m'); (tmp_path/'m'/'audiolm.json').write_text('two stages')
    with pytest.raises(ModelError, match='not JSON'): AudioLM.from_pretrained(tmp_path/'m')
    (tmp_path/'m'/'audiolm.json').write_text('{"stages": 2, "colour": 1}')
    with pytest.raises(ModelError, match='may say context, guide'): AudioLM.from_pretrained(tmp_path/'m')
    for f in (lambda: read_midi(tmp_path/'none.mid'), lambda: Piano(tmp_path/'none.sfz')):
        with pytest.raises(AudioError): f()
    (tmp_path/'empty.sfz').write_text('// nothing\n')
    with pytest.raises(AudioError, match='no regions'): Piano(tmp_path/'empty.sfz')


@settings(deadline=None, max_examples=80)
@given(some_notes, st.integers(-12, 12))
def test_events_and_back(notes, k):
    notes = apart_in_time(notes); line = to_events(notes); back = from_events(line); by_key = lambda notes: sorted((n.pitch, n.start, n.end) for n in notes)
    assert 0 <= int(line.min()) and int(line.max()) < EVENTS and np.allclose(by_key(back), by_key(notes), atol=.0051)
    assert all(abs(a-b) < 4 for a,b in zip(sorted(n.velocity for n in notes), sorted(n.velocity for n in back)))
    higher = moved(line, k); assert torch.equal(higher >= PASS, line >= PASS) and torch.equal(higher < UP, line < UP)
    if all(21 <= n.pitch+k <= 108 for n in notes): assert by_key(from_events(higher))==[(p+k, a, b) for p,a,b in by_key(back)]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, EVENTS-1), max_size=60))
def test_any_line_of_events_is_music(line):
    for n in from_events(line): assert 0 <= n.start < n.end and 21 <= n.pitch <= 108 and 1 <= n.velocity <= 127


def test_events_go_on_from_where_the_prompt_ends():
    "A key that is still down at the cut is not written as lifted, and silence before the cut is kept."
    torch.manual_seed(0); lm = TokenLM(LMConfig(condition=0, levels=1, codes=EVENTS, width=32, layers=1)).eval()
    held, short = Note(0., 3., 60, 64), Note(.5, 1., 64, 64)
    assert len(to_events([held, short], open=2.))==len(to_events([held, short]))-3    # no "up 60", no two seconds before it
    for prompt in ([held, short], [short], []):
        new = continue_events(lm, prompt, 2., 1.5, seed=3); kept = [n for n in new if n.start < 1.99]
        assert [(n.start, n.pitch) for n in kept]==[(n.start, n.pitch) for n in sorted(prompt)] and all(n.end <= 3.5 for n in new)


@pytest.mark.parametrize('key', [24, 40, 57, 69, 84, 100])
@pytest.mark.parametrize('level', [.1, .5])
def test_keys_are_where_they_are_struck(key, level):
    sine = level*torch.sin(2*torch.pi*440*2**((key-69)/12)*torch.arange(SR)/SR); k = keys(sine[None,:24*640])[0,12]
    assert k.argmax()==key-21 and -2.2 < k.max()-np.log(level) < .2 and k[[i for i in range(88) if abs(i-key+21) > 6]].max() < k.max()-2


def test_a_touch_changes_levels_and_keeps_silence_finite():
    torch.manual_seed(0); mel = torch.full((64,8,128), -4.); a, b = touched(mel), touched(torch.full((64,8,128), -40.))
    assert a.std(0).min() > .3 and a.mean(dim=(1,2)).std() > .3 and b.isfinite().all() and -14.5 < b.mean() < -7.5


@pytest.fixture(scope='module')
def alone(two_stages):
    torch.manual_seed(0); lm = TokenLM(LMConfig(condition=0, levels=3, codes=32, tied=True, width=32, layers=1))
    save_model(lm.eval(), two_stages, 'alone'); return Alone.from_pretrained(two_stages)


def test_acoustic_tokens_alone_continue_in_a_batch_as_alone(alone):
    x = performance_sound()[:4*SR]; y = alone.continue_from(x, 2, seed=5); assert y.shape==(6*SR,) and y.abs().max() <= 1
    a, b = alone.continue_from([x[:2*SR], x], 2, [1,5]); assert torch.allclose(b, y, atol=1e-4) and a.shape==(4*SR,)


@pytest.fixture(scope='module')
def a_corpus(tmp_path_factory):
    "MIDI files and clips of four recordings, on either side of the split."
    root = tmp_path_factory.mktemp('music'); (root/'midi').mkdir(); names = list(map(str, range(99)))
    some = [n for n in names if held_out(n, HELD)][:1]+[n for n in names if not held_out(n, HELD)][:3]
    for i,n in enumerate(some): write_midi(between(performance(), 10*i, 10*i+10), root/'midi'/f'{n}.mid')
    render_corpus(root/'midi', root/'clips', seconds=14.); return root


def test_every_part_of_the_piano_from_a_folder(a_corpus, tmp_path, monkeypatch, capsys):
    from dataclasses import replace
    monkeypatch.setattr(piano_recipes, 'PIANO_CODEC', replace(piano_recipes.PIANO_CODEC, width=32, codes=32, encoder=(1,1), decoder=(1,1), latent=16, mels=96))
    monkeypatch.setattr(piano_recipes, 'PIANO_SEMANTIC', replace(piano_recipes.PIANO_SEMANTIC, width=32, layers=3, clusters=16, mels=64))
    def train(part, data): return cli.main(['train', part, '--preset', 'piano', '--data', str(a_corpus/data), '--out', str(tmp_path), '--share', '.001'])
    for part in ('codec', 'semantic', 'stage1', 'stage2', 'alone'): assert train(part, 'clips')==0, part
    assert train('symbolic', 'midi')==0 and train('stage3', 'clips')==2 and 'the piano has' in capsys.readouterr().err
    lm = AudioLM.from_pretrained(tmp_path); assert (lm.coarse, lm.fine, lm.window, lm.context)==(3, 0, 350, 100) and len(lm.semantic.encoder.blocks)==2
    x = performance_sound()[:4*SR]; assert lm.continue_from(x, 1, seed=0).seconds==5 and Alone.from_pretrained(tmp_path).continue_from(x, 1).shape==(5*SR,)
    assert cli.main(['train', 'symbolic', '--preset', 'piano', '--data', str(a_corpus/'clips'), '--out', str(tmp_path/'s')])==2
    assert cli.main(['train', 'alone', '--data', str(a_corpus/'clips'), '--out', str(tmp_path/'s')])==2 and '--preset piano' in capsys.readouterr().err


def profile(x): # (S,) -> (12,)
    "How the pitch classes share the amplitude at the keys."
    level = keys(x[None])[0].exp().sum(0); return torch.stack([level[i::12].sum() for i in range(12)])/level.sum()


@pytest.fixture(scope='module')
def piano(): return AudioLM.from_pretrained('piano')


def test_the_piano_fits_the_wheel_and_the_command_line(tmp_path, capsys):
    folder = locate('piano'); assert sum(f.stat().st_size for f in folder.iterdir()) < 18e6
    out = tmp_path/'on.wav'; assert cli.main(['continue', '--model', 'piano', '-o', str(out), '--seconds', '2', '--seed', '1'])==0
    x, y = load_audio(prompt_path('piano')), load_audio(out); n = len(x)//640*640
    assert len(y)==n+2*SR and apart(profile(y[:n]).numpy(), profile(x[:n]).numpy()) < .15    # through the codec, and then goes on
    assert y[n:].square().mean() > 1e-2*x.square().mean() and 'real-time factor' in capsys.readouterr().out


def test_a_model_brings_its_own_manner(piano):
    x = load_audio(prompt_path('piano'))[:4*SR]; own = piano.continue_from(x, 2, seed=3)
    assert piano.manner==PIANO_MANNER|dict(temperature=[1, .7, .7]) and own.hold==5 and own.temperature==(1, .7, .7)
    assert torch.equal(own.acoustic, piano.continue_from(x, 2, seed=3, temperature=(1.,.7,.7), guide=2., hold=5.).acoustic)
    assert not torch.equal(own.plan, piano.continue_from(x, 2, seed=3, hold=1.).plan)
    with pytest.raises(AudioError, match='hold is 11'): piano.continue_from(x, 2, hold=11)


def test_continuations_keep_to_their_own_prompts(piano):
    "The pitch classes of ten new seconds are nearer to those of their own prompt than to those of another piece, in most pairs."
    prompts = [c.audio()[:4*SR] for c in clips('rendered-piano') if c.seconds > 4]
    new = [profile(t.audio[4*SR:]) for t in piano.continue_from(prompts, 10, seed=list(range(len(prompts))))]
    d = torch.tensor([[apart(a.numpy(), profile(p).numpy()) for p in prompts] for a in new])
    nearer = d.diagonal()[:,None] < d; assert nearer.sum()/(len(d)*(len(d)-1)) > .75


def test_prompts_come_from_all_of_a_clip_and_none_twice(tmp_path):
    from audiolm_edu.bench_piano import cases
    x = torch.arange(43*SR)/(50*SR); sf.write(tmp_path/'x.flac', x.numpy(), SR); clip = Clip(tmp_path/'x.flac', 'a', 43.)
    some, few = [Note(i/4, i/4+.2, 60+i, 64) for i in range(9)], [Note(0, 1, 60, 64)]
    found = cases([clip], lambda y: some, 9); assert sorted(round(50*c.sound[0].item()) for c in found)==[0, 14, 28]
    assert all(len(c.sound)==14*SR and c.prompt.equal(c.sound[:4*SR]) for c in found) and len(cases([clip], lambda y: some, 2))==2
    assert cases([clip], lambda y: few, 9)==[]                               # too few notes to have a key
