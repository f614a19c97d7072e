"Two processes on one machine do what one does: gradients, curves, checkpoints; killed at any moment, they lose nothing."
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from audiolm_edu.hub import ModelError
from audiolm_edu.training import Trainer, count_rows, share

SCRIPT = """
import os, sys, torch
from torch import nn
from audiolm_edu.coarse_stage import coarse_batch, coarse_config
from audiolm_edu.tokens import IGNORE
from audiolm_edu.training import Trainer
from audiolm_edu.transformer import Layer, TokenLM

kind, folder, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(int(os.environ.get('RANK', 0))); torch.set_num_threads(1)    # the second process starts elsewhere

class Kept(Trainer):
    "Keeps the first gradient."
    def _average(self, name, module):
        from audiolm_edu.training import _whole
        if self.step==0:
            for k,p in module.named_parameters(): first[f'{name}/{k}'] = _whole(p.grad).clone()
        super()._average(name, module)

def tokens():
    lm = TokenLM(coarse_config(8, 16, width=32, layers=2, heads=2, dropout=0.))
    def batch(i):
        g = torch.Generator().manual_seed(i); draw = lambda *s: torch.randint(0, 8, s, generator=g)
        return coarse_batch([(draw(n), draw(n,24)) for n in draw(5).add(3).tolist()])
    valid = lambda: dict(valid=lm.loss(batch(10**6))[0].item())
    return dict(lm=(lm, lm.loss)), batch, dict(count=lambda b: (b[2]!=IGNORE).sum().item(), valid=valid, best='valid')

def game():
    maker, critic, pair = nn.Linear(4,4), nn.Sequential(nn.Linear(4,8), nn.ReLU(), nn.Linear(8,1)), []
    maker.register_buffer('seen', torch.zeros(()))
    def make(x):
        y = maker(x); pair[:] = [x, y.detach()]; maker.seen += len(x); loss = (y-x.flip(1)).pow(2).mean()-.1*critic(y).mean()
        return loss, dict(made=loss.item())
    def judge(x): loss = (critic(pair[1])-critic(pair[0])).mean()+critic(x).pow(2).mean(); return loss, dict(judged=loss.item())
    batch = lambda i: dict(x=torch.randn(7, 4, generator=torch.Generator().manual_seed(i)), name='noise')
    return dict(maker=(maker, lambda b: make(b['x'])), critic=(critic, lambda b: judge(b['x']))), batch, {}

def few():
    m = nn.Linear(4,1)
    batch = lambda i: torch.randn(1, 4, generator=torch.Generator().manual_seed(i))
    return dict(m=(m, lambda x: ((m(x)-1).pow(2).mean(), {}))), batch, {}

first, sharded = {}, kind.endswith('+shard')
players, batch, more = globals()[kind.removesuffix('+shard')]()
t = Kept(players, batch, folder, 60, lr=3e-3, warmup=10, every=10, bf16=False, shard=Layer if sharded else None, **more)
def until(i):
    if i==steps: sys.exit()    # as if killed
    return batch(i)
t.batch = until
t.fit(progress=False)
if sharded: assert all(hasattr(p, 'full_tensor') for m,_ in players.values() for p in m.parameters())
if t.rank==0 and first: torch.save(first, f'{folder}/first.pt')
"""
ENV = os.environ | dict(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='PASSIVE', ACCELERATE_USE_CPU='1')


@pytest.fixture
def launch(tmp_path):
    (tmp_path/'train.py').write_text(SCRIPT)
    def start(kind, folder, processes, steps=60, **more):
        torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}'] if processes > 1 else []
        args = [sys.executable, *torchrun, tmp_path/'train.py', kind, tmp_path/folder, str(steps)]
        return subprocess.Popen([str(a) for a in args], env=ENV, start_new_session=True, **more)
    def run(*args, **more):
        assert start(*args, **more).wait(200)==0
        return tmp_path/args[1]
    run.start = start
    return run


def notes(folder):
    with safe_open(folder/'checkpoint.safetensors', 'pt') as f: return f.metadata()


def assert_same_run(a, b, tolerance=1e-4):
    "Weights, averages and optimizers agree, and so do the curves."
    x, y = (load_file(f/'checkpoint.safetensors') for f in (a,b))
    assert x.keys()==y.keys()
    for k in x:
        if not k.endswith('seen'): torch.testing.assert_close(x[k], y[k], atol=tolerance, rtol=1e-3, msg=k)
    for p,q in zip(*(json.loads(notes(f)['history']) for f in (a,b)), strict=True): assert p==pytest.approx(q, abs=3e-4)


def assert_same_gradient(a, b):
    x, y = (torch.load(f/'first.pt') for f in (a,b))
    assert x.keys()==y.keys() and sum(v.abs().sum() for v in x.values()) > .1
    for k in x: torch.testing.assert_close(x[k], y[k], atol=1e-6, rtol=1e-4, msg=k)


@pytest.mark.parametrize('kind', ['tokens', 'tokens+shard', 'game', 'few'])
def test_two_processes_are_one(launch, kind):
    "The same gradients, the same end; rows with different numbers of tokens, a game of two, fewer rows than processes."
    one, two = launch(kind.removesuffix('+shard'), 'one', 1), launch(kind, 'two', 2)
    assert_same_gradient(one, two); assert_same_run(one, two)
    if 'tokens' in kind: assert load_file(one/'best.safetensors').keys()==load_file(two/'best.safetensors').keys()


@pytest.mark.parametrize('kind', ['tokens', 'tokens+shard'])
def test_processes_may_change_on_the_way(launch, kind):
    whole = launch('tokens', 'whole', 1)
    launch('tokens', 'up', 1, 30); assert int(notes(whole.parent/'up')['step'])==30
    assert_same_run(whole, launch(kind, 'up', 2))
    launch(kind, 'down', 2, 30)
    assert_same_run(whole, launch('tokens', 'down', 1))


def test_kill_two(launch, tmp_path):
    "`kill -9` of both at random moments; what is left resumes, to the bits of an undisturbed run of two."
    whole = launch('game', 'whole', 2)
    for _ in range(2):
        p = launch.start('game', 'killed', 2)
        while not (tmp_path/'killed/checkpoint.safetensors').exists() and p.poll() is None: time.sleep(.01)
        time.sleep(random.random()*.2); os.killpg(p.pid, signal.SIGKILL); p.wait()
    killed = launch('game', 'killed', 2)
    a, b = (load_file(f/'checkpoint.safetensors') for f in (whole, killed))
    assert all(torch.equal(a[k], b[k]) for k in a) and notes(whole)==notes(killed)
    assert [f.name for f in killed.iterdir() if f.name.startswith('.') and f.name!='.lock']==[]    # nothing half-written


def test_a_game_is_not_sharded(launch):
    p = launch.start('game+shard', 'no', 2, stderr=subprocess.PIPE, text=True)
    assert 'train a game of several with DDP' in p.communicate(timeout=200)[1] and p.returncode


def test_shares_are_the_batch():
    x = torch.arange(7)
    parts = [share((x, dict(a=[*range(7)], b=3)), r, 3) for r in range(3)]
    assert sorted(torch.cat([p[0] for p in parts]).tolist())==sorted(sum((p[1]['a'] for p in parts), []))==[*range(7)]
    assert [count_rows(p) for p in parts]==[3,2,2] and parts[1][1]['b']==3
    assert share(x[:1], 2, 3).tolist()==[0]
