"The benchmark: metrics that move the right way, bits that are counted right, and what happens where something is missing."
import json
import math
import subprocess
import sys

import pytest
import soundfile as sf
import torch

from audiolm_edu import bench
from audiolm_edu.audio import SR, AudioError, save_audio
from audiolm_edu.codec import CODEC_PRESETS, Codec, CodecConfig
from audiolm_edu.corpus import Clip, clips, held_out

UP, DOWN = ('ViSQOL','STOI','PESQ-WB','SI-SDR'), ('mel',)
RANDOM = [n for n in map(str, range(200)) if held_out(n)]    # speakers' names that the rule holds out


@pytest.fixture(scope='module')
def speech(): return clips('speech')[0].audio()[SR:4*SR]


@pytest.fixture(scope='module')
def codec():
    torch.manual_seed(0)
    return Codec(CODEC_PRESETS['tiny']).eval()


@pytest.fixture
def light(monkeypatch):
    "Only the two metrics without packages, and no EnCodec: fast, and the same in every environment."
    monkeypatch.setattr(bench, 'METRICS', {k: bench.METRICS[k] for k in ('SI-SDR','mel')})
    monkeypatch.setitem(sys.modules, 'transformers', None)


def noisy(x, db): return x+torch.randn(len(x), generator=torch.Generator().manual_seed(0))*x.std()*10**(-db/20)


@pytest.mark.parametrize('name', UP+DOWN)
def test_metrics_get_worse_with_noise(speech, name):
    measure = bench.load_metrics([n for n in bench.METRICS if n!=name])[0][name]
    if measure is None: pytest.skip('not installed')
    same, little, much = measure(speech, speech), measure(speech, noisy(speech, 25)), measure(speech, noisy(speech, 0))
    assert same > little > much if name in UP else same < little < much
    perfect = {'ViSQOL': (4.2,5), 'STOI': (.999,1.001), 'PESQ-WB': (4.6,4.7), 'SI-SDR': (100,200), 'mel': (0,1e-6)}[name]
    assert perfect[0] <= same <= perfect[1]


@pytest.mark.filterwarnings('ignore:invalid value')
def test_pesq_without_speech():
    if not (measure := bench.load_metrics()[0]['PESQ-WB']): pytest.skip('not installed')
    assert math.isnan(measure(torch.zeros(2*SR), torch.zeros(2*SR)))


@pytest.mark.parametrize('levels,codes,expected', [(12,256,[5,10,12]), (24,1024,[4,8,12,16,24]), (8,256,[5,8]), (1,2,[1])])
def test_levels(levels, codes, expected):
    assert bench.levels_for(CodecConfig(levels=levels, codes=codes))==expected


@pytest.mark.parametrize('q', (1,3,8))
def test_our_bits(codec, speech, q):
    s = bench.our_system(codec, q); x = speech[:SR]
    y = s.encode(x)
    assert s.bits(y)==25*q*8 and s.decode(y).shape==x.shape
    assert torch.equal(s.decode(y), codec.roundtrip(x, q))                          # what notebook 04 makes of it
    row = bench.quality(s, [x, x], {})
    assert row['kbit/s']==pytest.approx(.2*q)


def test_opus_packets_by_hand():
    "Pages with a header packet each, then packets of 3, 255 and 300 bytes, the last across two pages."
    page = lambda lacing: b'OggS'+bytes(22)+bytes([len(lacing), *lacing])+b'x'*sum(lacing)
    assert bench.opus_packets(page([19])+page([9])+page([3,255,0,255])+page([45]))==[3,255,300]


def test_opus_rates(speech):
    measured = [bench.quality(bench.opus_system(k), [speech], {'mel': bench.METRICS['mel'][0]()}) for k in (6,9,12,16,32)]
    for k, row in zip((6,9,12,16,32), measured): assert abs(row['kbit/s']/k-1) < .2, (k, row)    # the encoder varies its rate
    assert measured[-1]['mel'] < measured[0]['mel']
    ogg = bench.opus_system(9).encode(speech)
    assert sum(bench.opus_packets(ogg)) < len(ogg) and bench.opus_system(9).decode(ogg).shape==speech.shape


def test_quality_uses_the_originals_length():
    seen = []
    for extra in (-100, 100):
        s = bench.System('', lambda x: x, lambda x: torch.ones(len(x)+extra), lambda x: 1)
        bench.quality(s, [torch.ones(SR)], {'m': lambda x, y: seen.append((len(x), len(y), y.sum().item())) or 0.})
    assert seen==[(SR,SR,SR-100), (SR,SR,SR)]


def test_code_use():
    assert bench.even_use(1, 4)==.25 and bench.even_use(10**6, 4)==pytest.approx(1)
    class Two:                    # level 1 says 0 and 1 in turn, level 2 always 3
        config = CodecConfig(levels=2, codes=4)
        def encode(self, x): return torch.stack([torch.arange(x.shape[-1])%2, torch.full((x.shape[-1],), 3)], -1)[None]
    a, b = bench.code_use(Two(), [torch.zeros(4), torch.zeros(6)])
    assert (a['level'], a['used'], b['used'])==(1, .5, .25)
    assert a['perplexity']==pytest.approx(.5) and b['perplexity']==pytest.approx(.25)
    assert a['even']==bench.even_use(10, 4)


def test_speed_is_cpu_time_and_leaves_threads_alone():
    before, busy, seen = torch.get_num_threads(), [], []
    def work(x):
        seen.append((torch.get_num_threads(), len(x)))
        busy.append(bench.time.process_time())
        while bench.time.process_time()-busy[-1] < .02: pass
        return x
    torch.set_num_threads(2)
    try: fast = bench.speed(bench.System('', work, lambda x: bench.time.sleep(.05), lambda x: 0, sr=8000), torch.zeros(SR))
    finally: after = torch.get_num_threads(); torch.set_num_threads(before)
    assert after==2 and set(seen)=={(1,8000)}
    assert 25 < fast['encode'] <= 51                     # one second in 0.02 s
    assert fast['decode'] > 100                          # sleeping costs no CPU time


def test_first_call_does_not_count(monkeypatch):
    ticks = iter([0,50, 50,51, 51,60, 60,62])
    monkeypatch.setattr(bench.time, 'process_time', lambda: next(ticks))
    assert bench.cpu_seconds(lambda: None)==2


def test_missing_packages(monkeypatch):
    for module in ('visqol','pystoi','pesq','transformers'): monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sf, 'available_subtypes', lambda fmt: {})
    ready, notes = bench.load_metrics()
    assert ready['STOI'] is None and ready['mel'] and [n.split(':')[0] for n in notes]==['ViSQOL','STOI','PESQ-WB']
    assert all('not installed; pip install' in n for n in notes) and "'visqol-python[lattice]'" in notes[0]
    systems, absent = bench.neighbours()
    assert not systems and [n.split(':')[0] for n in absent]==['Opus','EnCodec']
    assert 'STOI' not in bench.load_metrics(without=('STOI',))[0]


def test_bench_table(light, codec, speech, tmp_path):
    save_audio(tmp_path/'a.flac', speech[:SR])
    chosen = [Clip(tmp_path/'a.flac', RANDOM[0], 1.)]
    result = bench.codec_bench(codec, chosen)
    names = [r['system'] for r in result['rows']]
    assert names==['ours, 5 of 12 levels', 'ours, 10 of 12 levels', 'ours, 12 of 12 levels', 'Opus 6', 'Opus 9', 'Opus 12', 'Opus 16']
    assert result['clips']=='1 clips, 1 s, 1 speakers (held out)' and result['files']==['a.flac']
    first, opus = result['rows'][0], result['rows'][-1]
    assert first['used']==pytest.approx(sum(c['used'] for c in result['codes'][:5])/5) and opus['used'] is None
    text = bench.report(result)
    assert all(n in text for n in names) and 'EnCodec: not installed; pip install transformers' in text
    lines = bench.table(result['rows']).splitlines()
    assert lines[0].split()==['system','kbit/s','SI-SDR','mel','used','perplexity','encode','decode'] and len({*map(len, lines)})==1
    timed = ('encode','decode')
    steady = lambda rows: [{k: v for k,v in r.items() if k not in timed} for r in rows]
    assert steady(result['rows'])==steady(bench.codec_bench(codec, chosen)['rows'])
    assert json.loads(json.dumps(result, allow_nan=False))==result


def test_random_weights_are_measured_for_speed_alone(light, speech):
    blank = bench.System('random', lambda x: x, lambda x: x, lambda x: 1, trained=False)
    row = bench.codec_row(blank, [speech], bench.load_metrics()[0], [])
    assert row['kbit/s'] is row['mel'] is row['used'] is None and row['encode'] > 0
    assert '-' in bench.table([row]).splitlines()[1]


def test_encodec(speech):
    pytest.importorskip('transformers')
    s = bench.encodec_system(6); y = s.encode(torch.zeros(24_000))
    assert s.bits(y)==6000 and s.decode(y).shape==(24_000,)


def test_choice(tmp_path, speech):
    a, b = RANDOM[:2]; heard = next(n for n in map(str, range(200)) if not held_out(n))
    for name in (f'{a}/1.mp3', f'{a}/2.flac', f'{a}/3.flac', f'{b}/1.wav', f'{heard}/1.wav'):
        (tmp_path/name).parent.mkdir(exist_ok=True); save_audio(tmp_path/name, speech)
    save_audio(tmp_path/b/'0.wav', speech[:2*SR])                                 # too short
    chosen = bench.chosen_clips(tmp_path)
    assert [str(c.path.relative_to(tmp_path)) for c in chosen]==sorted([f'{a}/2.flac', f'{b}/1.wav'])
    assert len(bench.chosen_clips(tmp_path, 1))==1
    own = bench.chosen_clips()
    assert len(own) <= 14 and len({c.speaker for c in own})==len({c.speaker for c in clips('speech')})
    assert 'NOT held out' in bench.describe(own) and len(bench.sound(max(own, key=lambda c: c.seconds)))==8*SR
    (tmp_path/'none').mkdir(); (tmp_path/'none'/heard).mkdir(); save_audio(tmp_path/'none'/heard/'x.wav', speech)
    with pytest.raises(AudioError, match='held-out'): bench.chosen_clips(tmp_path/'none')


@pytest.mark.parametrize('args,reason', [
    (['nowhere'], 'no such folder'), (['--clips','0'], 'at least one'), (['--json','nowhere/x.json'], 'no folder'),
    (['--json','.'], 'is a folder'), (['--model','nothing'], 'no such weights')])
def test_bad_arguments(args, reason, capsys):
    assert bench.main(['codec', *args])==2
    said = capsys.readouterr().err.strip()
    assert reason in said and len(said.splitlines())==1


def test_command(light, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, 'neighbours', lambda: ([bench.opus_system(6)], []))
    assert bench.main(['codec', '--clips', '1', '--json', str(tmp_path/'x.json')])==0
    said, kept = capsys.readouterr().out, json.loads((tmp_path/'x.json').read_text())
    assert 'Opus 6' in said and kept['weights'] in said and len(kept['files'])==1
    assert [p.name for p in tmp_path.iterdir()]==['x.json']
    seen = {}
    monkeypatch.setattr(bench, 'codec_bench', lambda codec, chosen, without: seen.update(without=without) or kept)
    assert bench.main(['codec', '--no-visqol'])==0 and seen['without']==('ViSQOL',)


def test_as_a_program():
    p = subprocess.run([sys.executable, '-m', 'audiolm_edu.bench'], capture_output=True, text=True)
    assert p.returncode==2 and p.stderr.startswith('usage: python -m audiolm_edu.bench') and not p.stdout
