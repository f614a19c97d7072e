"Runs side by side in one folder, runs that are interrupted, and sounds that last for hours."
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile as sf
import torch

from audiolm_edu.audio import SR, load_audio, save_audio
from audiolm_edu.cards import told_origin
from audiolm_edu.codec import SEGMENT
from audiolm_edu.corpus import Waveforms, clips
from audiolm_edu.hub import ModelError
from audiolm_edu.semantic import AROUND, PIECE, with_neighbours
from audiolm_edu.tokens import TokenStore
from audiolm_edu.training import Trainer


def start(folder, code):
    return subprocess.Popen([sys.executable, '-c', code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(folder, line): return start(folder, f'import sys; from audiolm_edu.cli import main; sys.exit(main({line.split()!r}))')


def ended(*runs): return [(r.returncode, out, err) for r in runs for out,err in [r.communicate(timeout=500)]]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    for i,c in enumerate(clips('speech')[:6]):
        (root/'abc'[i%3]).mkdir(exist_ok=True); save_audio(root/'abc'[i%3]/f'{i}.flac', c.audio()[:4*SR])
    return root


def test_two_continuations_into_one_file(tmp_path):
    found = ended(*(command(tmp_path, f'continue -o out.wav --seconds 1 --seed {i}') for i in (1,2)))
    assert [s for s,_,_ in found]==[0,0] and [p.name for p in tmp_path.iterdir()]==['out.wav']
    assert len(load_audio(tmp_path/'out.wav'))==4*SR and ('seed 1,' in told_origin(tmp_path/'out.wav') or 'seed 2,' in told_origin(tmp_path/'out.wav'))


def test_two_packers_and_two_tokenizers(data, tmp_path):
    found = ended(*(command(tmp_path, f'tokenize {data} -o both') for _ in range(2)), *[command(tmp_path, f'tokenize {data} -o alone')])
    assert [s for s,_,_ in found]==[0,0,0], found
    both, alone = TokenStore(tmp_path/'both'/'tokens'/'1'), TokenStore(tmp_path/'alone'/'tokens'/'1')
    assert len(both)==len(alone)==6 and all(torch.equal(a, b) for i in range(6) for a,b in zip(both[i], alone[i]))
    assert not [p for p in tmp_path.rglob('.*')] and len(Waveforms(tmp_path/'both'/'packed'))==6


def test_two_parts_of_a_model_at_once(data, tmp_path):
    "Each packs and tokenizes the recordings, if it must."
    found = ended(*(command(tmp_path, f'train {p} --data {data} --out m --preset tiny --share .0005') for p in ('stage1','stage3')))
    assert [s for s,_,_ in found]==[0,0], found
    assert {'stage1.json','stage3.json'} <= {p.name for p in (tmp_path/'m').iterdir()} and not [*tmp_path.rglob('.packed*')]


def test_a_killed_run_leaves_its_folder_free(tmp_path):
    code = ('import os, torch; from audiolm_edu.training import Trainer; m = torch.nn.Linear(1, 1)\n'
            'def batch(i):\n    if i==3: print("x", flush=True); import time; time.sleep(60)\n    return torch.ones(4, 1)\n'
            f'Trainer(dict(m=(m, lambda x: (m(x).pow(2).mean(), {{}}))), batch, {str(tmp_path/"t")!r}, 9).fit(progress=False)')
    run = start(tmp_path, code); assert run.stdout.readline()=='x\n'
    m = torch.nn.Linear(1, 1); t = Trainer(dict(m=(m, lambda x: (m(x).pow(2).mean(), {}))), lambda i: torch.ones(4, 1), tmp_path/'t', 2)
    with pytest.raises(ModelError, match='another run'): t.fit(progress=False)
    run.kill(); run.wait(); assert t.fit(progress=False).step==2


@pytest.mark.parametrize('line', ['generate -o out.mp3 --seconds 30', 'tokens long.wav -o out.safetensors', 'decode long.safetensors -o out.wav',
                                  'tokenize data -o out', 'watermark embed long.wav -o out.flac', 'pull ann/voice'])
def test_an_interrupted_command_leaves_nothing(line, tmp_path, data):
    from safetensors.torch import save_file
    sf.write(tmp_path/'long.wav', .1*np.random.default_rng(0).standard_normal(240*SR), SR); (tmp_path/'data').symlink_to(data)
    save_file(dict(acoustic=torch.zeros(60_000, 24, dtype=torch.long)), tmp_path/'long.safetensors'); before = set(tmp_path.iterdir())
    ready = ('import sys, builtins, audiolm_edu.cli as cli\nfrom audiolm_edu import hub, codec, corpus, watermark, audiolm, semantic\n'
             'def slow(f):\n    def g(*a, **k):\n        print("x", flush=True); return f(*a, **k)\n    return g\n'
             'for m,n in ((hub,"locate"),(corpus,"load_audio"),(cli,"pull")): setattr(m, n, slow(getattr(m, n)))\n'
             'def slept(*_):\n    import time; print("x", flush=True); time.sleep(60)\n'
             f'if "pull" in {line!r}: cli.pull = slept\nsys.exit(cli.main({line.split()!r}))')
    run = start(tmp_path, ready); assert run.stdout.readline()=='x\n'; time.sleep(.5); run.send_signal(signal.SIGINT)
    (status, _, err), = ended(run)
    assert status==130 and 'nothing was written' in err and 'Traceback' not in err
    assert set(tmp_path.iterdir())-before <= {tmp_path/'out'} and not [*(tmp_path/'out').rglob('.*')]
    if (tmp_path/'out'/'packed').exists(): assert len(Waveforms(tmp_path/'out'/'packed'))==6          # whole, and used the next time


def test_pieces_are_the_whole(lm):
    x = torch.cat([c.audio() for c in clips('speech')])[:round(2.3*PIECE*640)]
    y = torch.cat([*lm.codec.encode_stream(x[None].split(SEGMENT*640, 1))], 1); assert torch.equal(y, lm.codec.encode(x[None]))
    assert torch.equal(torch.cat([*lm.codec.decode_stream(y[:,:1700])], 1), lm.codec.decode(y[:,:1700]))
    z = torch.cat([*lm.semantic.encode_stream(x[None].split(PIECE*640, 1))], 1); assert torch.equal(z, lm.semantic.encode(x[None])) and z.shape[1]==y.shape[1]
    shifted = lm.semantic.encode(x[None, 300*640:])[0]                       # other joints, mostly the same tokens
    assert (shifted==z[0,300:]).float().mean() > .85


def test_neighbours():
    parts = [torch.full((1,n), float(i)) for i,n in enumerate((4,4,1))]
    assert [tuple(len(p[0]) for p in t) for t in with_neighbours(iter(parts))]==[(0,4,4),(4,4,1),(4,1,0)] and [*with_neighbours([])]==[] and AROUND < PIECE


def peak(code, *args): # MB, of a fresh process
    code = 'import resource, sys, torch; torch.set_num_threads(1)\n'+code+'\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)'
    return float(subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True, check=True, env=os.environ).stdout.split()[-1])


def test_three_hours_are_read_in_bounded_memory(tmp_path):
    with sf.SoundFile(tmp_path/'long.flac', 'w', 22050, 1) as f:
        minute = np.tile((.1*np.random.default_rng(0).standard_normal(2205)).astype(np.float32), 600)
        for _ in range(180): f.write(minute)
    code = ('from audiolm_edu.audio import SR, stream_audio\nn = 0\nfor i,x in enumerate(stream_audio(sys.argv[1], 60*SR)):\n'
            '    n += len(x)\n    if i==int(sys.argv[2]): break\nassert i < 179 or n==3*3600*SR')
    assert peak(code, tmp_path/'long.flac', 500) < peak(code, tmp_path/'long.flac', 2)+40          # as floats it is 950 MB


def test_tokens_of_a_long_sound_in_bounded_memory(tmp_path):
    code = ('from audiolm_edu.cli import main\nassert main(["tokens", sys.argv[1], "-o", sys.argv[1]+".safetensors"])==0\n'
            'assert main(["decode", sys.argv[1]+".safetensors", "-o", sys.argv[1]+".flac"])==0')
    x = torch.cat([c.audio() for c in clips('speech')]).numpy()
    for name,n in (('short', 2), ('long', 8)): sf.write(tmp_path/f'{name}.wav', np.resize(x, n*60*SR), SR)
    assert peak(code, tmp_path/'long.wav') < peak(code, tmp_path/'short.wav')+120                  # six minutes as floats are 23 MB, attention over them would be gigabytes
    assert sf.info(tmp_path/'long.wav.flac').frames==8*60*SR
