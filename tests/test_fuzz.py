"""Sixteen thousand malformed inputs at every door: none ends the process, is taken for something else than bad input,
writes where it should not, or is kept in memory."""
import json
import os
import random
import resource
import shutil
import string
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile as sf
import torch
import traitlets
from safetensors.torch import save_file

from audiolm_edu import cli
from audiolm_edu.audio import AudioError, load_audio, save_audio
from audiolm_edu.audiolm import about
from audiolm_edu.cards import told_origin
from audiolm_edu.codec import CODEC_PRESETS, Codec
from audiolm_edu.corpus import Clip, read_folder
from audiolm_edu.course import cells_of, graded_cells, written
from audiolm_edu.hub import ModelError, load_model, save_model, seal, verify
from audiolm_edu.piano import Note, read_midi, write_midi
from audiolm_edu.studio import Recorder
from audiolm_edu.tokens import TokenStore, write_shard
from audiolm_edu.transformer import LMConfig, TokenLM
from audiolm_edu.widgets import ABPlayer, LevelPlayer, Listen, TokenStrip

EXPECTED = AudioError, ModelError


def mutated(raw:bytes, rng:random.Random) -> bytes:
    "Bits flipped, bytes lost, doubled or exchanged, numbers made large, or nothing but noise."
    b = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 3, 10))):
        at, n = rng.randrange(len(b)+1), rng.choice((1, 2, 4, 40))
        kind = rng.randrange(8)
        if kind==0 and b: b[at%len(b)] ^= 1<<rng.randrange(8)
        elif kind==1: del b[at:at+n]
        elif kind==2: b[at:at] = rng.randbytes(n)
        elif kind==3: b[at:at+n] = rng.choice((b'\xff', b'\0', b'9'))*n
        elif kind==4: b = b[:at]
        elif kind==5: b[at:at] = b[at:at+n]
        elif kind==6: b[at:at+n] = rng.choice((b'null', b'-1', b'1e999', b'[]', b'""', b'{', b'"', b'NaN', b'0', b'99999999', b'true'))
        elif rng.random() < .1: b = bytearray(rng.randbytes(n*9))
    return bytes(b)


def knock(door, seeds:dict, folder:Path, n:int, seed:int=0) -> Counter:
    "`door(path)` on `n` mutations of files; only a sentence may come of it, and nothing else be left in the folder."
    rng, found = random.Random(seed), Counter()
    for i in range(n):
        name = rng.choice(sorted(seeds)); path = folder/name; path.write_bytes(mutated(seeds[name], rng)); before = set(os.listdir(folder))
        try: door(path); found['taken'] += 1
        except EXPECTED as e: found['refused'] += 1; assert '\n' not in str(e).strip() and len(str(e)) < 1000, e
        except Exception as e: raise AssertionError(f'{name}, mutation {i}: {type(e).__name__}: {e}') from e
        assert set(os.listdir(folder))==before; path.write_bytes(seeds[name])
    return found


@pytest.fixture(autouse=True)
def memory_is_given_back():
    "Resident memory grows by less than 150 MB over all inputs of a door."
    held = lambda: int(Path('/proc/self/statm').read_text().split()[1])*resource.getpagesize()
    before = held(); yield; assert held()-before < 150e6


def test_audio_files(tmp_path):
    x, seeds = np.sin(np.arange(3000)/9).astype(np.float32)*.3, {}
    for name,more in {'a.wav': {}, 'b.wav': dict(subtype='FLOAT'), 'c.wav': dict(subtype='PCM_24'), 'd.flac': {}, 'e.ogg': {}, 'f.mp3': {}, 'g.aiff': {}}.items():
        sf.write(tmp_path/name, x, 22050, **more); seeds[name] = (tmp_path/name).read_bytes()
    def door(p): y = load_audio(p, max_seconds=60); assert y.ndim==1 and bool(y.isfinite().all()) and 0 < len(y) <= 60*16000
    found = knock(door, seeds, tmp_path, 4000); assert min(found['taken'], found['refused']) > 500, found


def test_origins_and_hashes(tmp_path):
    line, x = 'decoded, audiolm-edu 0.1.0, seed 1', torch.zeros(3000); (tmp_path/'m').mkdir()
    for n in ('a.wav', 'b.flac', 'c.ogg', 'd.mp3'): save_audio(tmp_path/n, x, comment=line)
    (tmp_path/'e.json').write_text(f'{{"origin": "{line}"}}'); (tmp_path/'f.html').write_text(f'<meta name="generator" content="{line}">')
    save_file(dict(a=torch.ones(3)), tmp_path/'g.safetensors', dict(origin=line))
    plt.figure(figsize=(1,1)).savefig(tmp_path/'h.png', metadata=dict(Description=line)); plt.close()
    seeds = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    found = knock(told_origin, seeds, tmp_path, 1200); assert min(found['taken'], found['refused']) > 150, found
    (tmp_path/'m'/'a.json').write_text('{}'); seal(tmp_path/'m'); seeds = {'hashes.json': (tmp_path/'m'/'hashes.json').read_bytes()}
    found = knock(lambda p: verify(p.parent), seeds, tmp_path/'m', 300); assert found['refused'] > 200, found


def test_layouts(tmp_path):
    (tmp_path/'wavs').mkdir(); save_audio(tmp_path/'wavs'/'LJ001-0001.wav', torch.zeros(500))
    knock(lambda p: read_folder(p.parent), {'metadata.csv': b'LJ001-0001|He said|He said 1\n'}, tmp_path, 300)
    (tmp_path/'metadata.csv').unlink(); table = b'canonical_composer,canonical_title,split,audio_filename,duration\nBach,Fugue,test,a.wav,25.0\n'
    found = knock(lambda p: read_folder(p.parent), {'maestro-v3.csv': table}, tmp_path, 300); assert min(found.values()) > 30, found


def test_checkpoints(tmp_path):
    torch.manual_seed(0); lm = TokenLM(LMConfig(condition=3, levels=2, codes=5, width=16, layers=2, heads=2)); save_model(lm, tmp_path, 'stage1', licence='none')
    seeds = {n: (tmp_path/n).read_bytes() for n in ('stage1.json', 'stage1.safetensors')}
    def door(p): assert isinstance(load_model(TokenLM, tmp_path, 'stage1'), TokenLM)
    found = knock(door, seeds, tmp_path, 2000); assert min(found['taken'], found['refused']) > 200, found


@pytest.mark.parametrize('big', ['width', 'layers', 'codes', 'condition', 'levels', 'heads'])
def test_a_configuration_asks_for_no_more_than_its_file_holds(tmp_path, big):
    save_model(TokenLM(LMConfig(condition=3, levels=2, codes=5, width=16, layers=2, heads=2)), tmp_path, 'stage1'); card = json.loads((tmp_path/'stage1.json').read_text())
    for n in (2**20, 10**12, -1, 1.5, '9', None):
        (tmp_path/'stage1.json').write_text(json.dumps(card|dict(config=card['config']|{big: n})))
        with pytest.raises(ModelError, match='does not fit'): load_model(TokenLM, tmp_path, 'stage1')


def test_nothing_that_is_loaded_can_execute(tmp_path):
    class Trap:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'sprung'),)
    save_model(TokenLM(LMConfig(condition=3, levels=2, codes=5, width=16, layers=2, heads=2)), tmp_path, 'stage1')
    torch.save(Trap(), tmp_path/'stage1.safetensors')
    with pytest.raises(ModelError, match='stage1.safetensors'): load_model(TokenLM, tmp_path, 'stage1')
    torch.save(Trap(), tmp_path/'take.npz'); assert cli.main(['decode', str(tmp_path/'take.npz'), '-o', str(tmp_path/'out.wav')])==2
    assert not (tmp_path/'sprung').exists() and not (tmp_path/'out.wav').exists()


def test_token_shards(tmp_path):
    write_shard(tmp_path/'shard-00000', [np.ones((7,13), np.int16), np.ones((5,13), np.int16)], [Clip(Path('a.wav'), 'ann', 1.), Clip(Path('b.wav'), 'bob', 1.)])
    seeds = {n: (tmp_path/n).read_bytes() for n in ('shard-00000.json', 'shard-00000.i16')}
    def door(p):
        store = TokenStore(tmp_path); z, y = store[0]; assert len(z)==len(y) and len(store.frames)==len(store)
        store.only(lambda c: c['speaker']=='ann')
    found = knock(door, seeds, tmp_path, 1500); assert min(found['taken'], found['refused']) > 100, found


def test_settings_and_tables(tmp_path):
    (tmp_path/'m').mkdir(); (tmp_path/'m'/'x.safetensors').write_bytes(b''); seeds = {'audiolm.json': json.dumps(dict(stages=2, window=350, context=100, hold=5., temperature=[1, .7, .7])).encode()}
    def settings(p): assert isinstance(about(tmp_path/'m'), dict)
    found = knock(settings, seeds, tmp_path/'m', 800); assert found['refused'] > 100, found
    (tmp_path/'c').mkdir(); seeds = {'clips.csv': 'path,speaker,seconds,kind\na.wav,ann,1.5,speech\nb.wav,b\u00f6b,2,speech\n'.encode()}
    def table(p): assert all(isinstance(c.seconds, float) for c in read_folder(tmp_path/'c'))
    found = knock(table, seeds, tmp_path/'c', 800); assert min(found['taken'], found['refused']) > 100, found


def test_midi(tmp_path):
    write_midi([Note(i/4, i/4+.2, 60+i, 80) for i in range(20)], tmp_path/'a.mid'); seeds = {'a.mid': (tmp_path/'a.mid').read_bytes()}
    def door(p): assert all(n.end >= n.start >= 0 for n in read_midi(p))
    found = knock(door, seeds, tmp_path, 800); assert min(found['taken'], found['refused']) > 100, found


def test_submissions(tmp_path):
    nb = dict(cells=[dict(cell_type='code', source=['# question: f\n', 'def f(): return 1'], metadata={}), dict(cell_type='markdown', source=['<!-- answer: why -->\n', 'So.'], metadata={})])
    seeds = {'ann_a1.ipynb': json.dumps(nb).encode(), 'bob_a1.py': '# setup\nimport math\n# question: f\ndef f(): return "\u00e4"\n'.encode()}
    def door(p): cells = cells_of(p); assert all(isinstance(s, str) for q,s in graded_cells(cells)) and isinstance(written(cells), dict)
    found = knock(door, seeds, tmp_path, 800); assert min(found['taken'], found['refused']) > 100, found


WORDS = ('-o', '--out', '--seed', '--seconds', '--temperature', '--top-k', '--top-p', '--guide', '--hold', '--levels', '--model', '--format', '--plot', '--seed-file',
         '--assignment', '--no-watermark', 'embed', 'detect', 'speech', 'piano', 'a1', 'a99', '0', '-1', '1e99', 'nan', 'inf', '', ' ', '.', '..', '/', '\u00e9\u4e16', '%s', '{}', '*', '--',
         'nothing.wav', 'none/of/it.flac', '/dev/null', 'a.txt')


def test_command_lines(tmp_path, monkeypatch, capsys):
    "No command line raises anything or leaves something; what has to load a model ends there."
    def refuse(*a, **k): raise ModelError('not now')
    for c in ('AudioLM', 'Codec', 'Detector', 'Watermark'): monkeypatch.setattr(f'audiolm_edu.{dict(AudioLM="audiolm").get(c, c.lower())}.{c}.from_pretrained', refuse)
    rng, status = random.Random(4), Counter(); monkeypatch.chdir(tmp_path); (tmp_path/'a.txt').write_text('not a sound'); before = set(os.listdir('.'))
    commands = ('continue', 'generate', 'detect', 'watermark', 'tokens', 'decode', 'release', 'check', 'grade', 'recall', 'train', 'tokenize', rng.randbytes(3).hex())
    for _ in range(2000):
        argv = [rng.choice(commands), *rng.choices(WORDS, k=rng.randrange(6))]
        if rng.random() < .1: argv.append(''.join(rng.choices(string.printable, k=9)))
        try: status[cli.main(argv)] += 1
        except SystemExit as e: status[e.code] += 1
        except Exception as e: raise AssertionError(f'{argv}: {type(e).__name__}: {e}') from e
        for name in set(os.listdir('.'))-before:                           # `release a1 out` may write, and only there
            assert argv[0] in ('release', 'recall'), (argv, name)
            shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
    capsys.readouterr(); assert set(status) <= {0, 1, 2, 3} and status[2] > 1000, status


VALUES = (None, -1, 0, 1, 7, 1e30, -1e30, float('nan'), float('inf'), True, '', 'x'*5000, '../..', [], [1, 2], ['a'], [None], {}, {'row': 9, 'frame': -4, 'token': 'x'}, {'row': 'semantic'},
          {'a': {'b': []}}, [[0, 1], [2]], b'\x01', b'\0'*7)


def test_messages_of_widgets():
    "Whatever a page sends, a trait takes it or says that it will not; nothing else is raised."
    x, y = torch.sin(torch.arange(6400)/20)*.2, torch.cos(torch.arange(6400)/30)*.2
    widgets = [Listen(x), ABPlayer(dict(a=x, b=y)), ABPlayer(dict(a=x, b=y), blind=True), TokenStrip(x, dict(semantic=[1, 2, 1]*3)), Recorder(),
               LevelPlayer(Codec(CODEC_PRESETS['tiny']).eval(), x, y).deck]
    rng, found = random.Random(5), Counter()
    for _ in range(2000):
        w = rng.choice(widgets); state = {k: rng.choice(VALUES) for k in rng.choices(sorted(w.keys), k=rng.randrange(1, 3))}
        try: w.set_state(state); found['taken'] += 1                  # what `_handle_msg` calls, and whose errors it hides
        except traitlets.TraitError: found['refused'] += 1
        except Exception as e: raise AssertionError(f'{type(w).__name__} {state}: {type(e).__name__}: {e}') from e
    assert min(found.values()) > 100, found
