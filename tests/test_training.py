"Runs that are killed lose nothing."
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from audiolm_edu.audio import AudioError
from audiolm_edu.hub import ModelError, load_model, save_model
from audiolm_edu.semantic import SEMANTIC_PRESETS, SemanticTokenizer
from audiolm_edu.codec import CODEC_PRESETS, Codec
from audiolm_edu.corpus import clips, pack
from audiolm_edu.tokens import TokenStore, tokenize_corpus
from audiolm_edu.training import Trainer

RUN = """
import sys, torch; from torch import nn; from audiolm_edu.training import Trainer
torch.set_num_threads(1); torch.manual_seed(0); m = nn.Sequential(nn.Linear(8,64), nn.Dropout(.5), nn.Linear(64,1))
batch = lambda i: torch.randn(16, 8, generator=torch.Generator().manual_seed(i))
def loss(x): e = (m(x)[:,0]-x.sum(1)).pow(2).mean(); return e, dict(loss=e.item())
Trainer(dict(m=(m, loss)), batch, sys.argv[1], steps=int(sys.argv[2]), every=20).fit(progress=False)
"""


def test_kill_and_resume(tmp_path):
    "`kill -9` at arbitrary moments: every checkpoint loads, and the end is that of an undisturbed run."
    run = lambda folder: subprocess.Popen([sys.executable, '-c', RUN, str(folder), '2000'])
    assert run(tmp_path/'whole').wait(120)==0
    for wait in (4., 4.7, 5.3):
        p = run(tmp_path/'killed'); time.sleep(wait); p.send_signal(signal.SIGKILL); p.wait()
    assert run(tmp_path/'killed').wait(120)==0
    a, b = (load_file(tmp_path/f'{n}/checkpoint.safetensors') for n in ('whole','killed'))
    assert a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert [f.name for f in (tmp_path/'whole').iterdir()]==['checkpoint.safetensors']


def test_nan_is_said(tmp_path):
    m = nn.Linear(1,1)
    t = Trainer(dict(m=(m, lambda x: (m(x).sum()*float('nan'), {}))), lambda i: torch.ones(1,1), tmp_path, 10)
    with pytest.raises(ModelError, match='step 0'): t.fit(progress=False)


def test_best_keeps_the_best(tmp_path):
    m, figures = nn.Linear(1,1), iter([3., 1., 2., 5.]); kept = []
    def valid(): kept.append(m.weight.detach().clone()); return dict(v=next(figures))
    t = Trainer(dict(m=(m, lambda x: ((m(x)-3).pow(2).mean(), {}))), lambda i: torch.ones(4,1), tmp_path, 40, valid=valid, every=10, best='v', ema=.5)
    t.fit(progress=False)
    assert torch.equal(load_file(tmp_path/'best.safetensors')['m/weight'], kept[1])


def test_weights_are_not_executable(tmp_path):
    import pickle
    codec = Codec(CODEC_PRESETS['tiny']); save_model(codec, tmp_path, 'codec')
    flag = tmp_path/'executed'
    class Evil:
        def __reduce__(self): return os.system, (f'touch {flag}',)
    (tmp_path/'codec.safetensors').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match='does not fit'): load_model(Codec, tmp_path, 'codec')
    assert not flag.exists()


def test_wrong_weights_are_said(tmp_path):
    save_model(Codec(CODEC_PRESETS['tiny']), tmp_path, 'codec')
    (tmp_path/'semantic.json').write_bytes((tmp_path/'codec.json').read_bytes())
    (tmp_path/'semantic.safetensors').write_bytes((tmp_path/'codec.safetensors').read_bytes())
    with pytest.raises(ModelError, match='SemanticTokenizer'): load_model(SemanticTokenizer, tmp_path, 'semantic')


def test_tokenizing_resumes(tmp_path):
    waves = pack(clips('speech')[:5], tmp_path/'w')
    codec, semantic = Codec(CODEC_PRESETS['tiny']).eval(), SemanticTokenizer(SEMANTIC_PRESETS['tiny']).eval()
    whole = tokenize_corpus(waves, codec, semantic, tmp_path/'t', per_shard=2)
    (tmp_path/'t'/'shard-00001.json').unlink()                       # as if killed inside shard 1
    again = tokenize_corpus(waves, codec, semantic, tmp_path/'t', per_shard=2)
    assert all(torch.equal(a[1], b[1]) for a,b in zip(whole, again))
    f = tmp_path/'t'/'shard-00000.i16'; f.write_bytes(f.read_bytes()[:-2])
    with pytest.raises(AudioError, match='does not fit its index'): TokenStore(tmp_path/'t')
