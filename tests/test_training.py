"Runs that are killed lose nothing."
import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from audiolm_edu.audio import AudioError
from audiolm_edu.hub import ModelError, load_model, save_model
from audiolm_edu.semantic import SEMANTIC_PRESETS, SemanticTokenizer
from audiolm_edu.codec import CODEC_PRESETS, Codec
from audiolm_edu.corpus import Waveforms, clips, pack
from audiolm_edu.tokens import TokenStore, tokenize_corpus
from audiolm_edu.training import Trainer, count_rows

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
    assert [f.name for f in (tmp_path/'whole').iterdir() if f.name!='.lock']==['checkpoint.safetensors']


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


def left(path):
    "What a run left half-written that was killed two hours ago."
    path.write_bytes(b'{'); then = time.time()-7200; os.utime(path, (then, then))


def test_two_workers_write_the_same_shards(tmp_path):
    waves = pack(clips('speech')[:7], tmp_path/'w')
    codec, semantic = Codec(CODEC_PRESETS['tiny']).eval(), SemanticTokenizer(SEMANTIC_PRESETS['tiny']).eval()
    tokenize = lambda name, **more: tokenize_corpus(waves, codec, semantic, tmp_path/name, per_shard=2, **more)
    files = lambda name: {p.name: p.read_bytes() for p in (tmp_path/name).iterdir() if p.name!='.lock'}
    tokenize('one'); assert len(tokenize('two', workers=2))==7 and files('two')==files('one')
    (tmp_path/'two/shard-00001.json').unlink(); left(tmp_path/'two/.shard-00001.json.123')    # as if killed
    tokenize('two', workers=2); assert files('two')==files('one')


TOKENIZE = """
import sys, torch; from audiolm_edu.codec import *; from audiolm_edu.semantic import *; from audiolm_edu.corpus import *; from audiolm_edu.tokens import *
torch.manual_seed(0); codec, semantic = Codec(CODEC_PRESETS['tiny']).eval(), SemanticTokenizer(SEMANTIC_PRESETS['tiny']).eval()
if __name__=='__main__': tokenize_corpus(Waveforms(sys.argv[1]), codec, semantic, sys.argv[2], per_shard=1, workers=int(sys.argv[3]))
"""


def test_killed_tokenizing_leaves_whole_shards(tmp_path):
    pack(clips('speech')[:24], tmp_path/'w')
    run = lambda name, workers: subprocess.Popen([sys.executable, '-c', TOKENIZE, tmp_path/'w', tmp_path/name, str(workers)], start_new_session=True)
    files = lambda name: {p.name: p.read_bytes() for p in (tmp_path/name).glob('*')}
    assert run('whole', 1).wait(200)==0
    for n in (3, 9):
        p = run('killed', 2)
        while len([*(tmp_path/'killed').glob('shard*.json')]) < n and p.poll() is None: time.sleep(.005)
        os.killpg(p.pid, signal.SIGKILL); p.wait()
        some = [f for f in (tmp_path/'killed').glob('shard*.json')]
        assert len(TokenStore(tmp_path/'killed'))==len(some) and all(f.read_bytes()==(tmp_path/'whole'/f.name).read_bytes() for f in some)
    assert run('killed', 2).wait(200)==0 and files('killed')==files('whole')


def test_a_worker_that_fails_is_said(tmp_path):
    codec, semantic = Codec(CODEC_PRESETS['tiny']).eval(), SemanticTokenizer(SEMANTIC_PRESETS['tiny']).eval()
    waves = [torch.zeros(8000)]*4      # a list has no `.clips`
    with pytest.raises(AudioError, match='a worker stopped .*; whole shards are kept'):
        tokenize_corpus(waves, codec, semantic, tmp_path/'t', per_shard=2, workers=2)


@pytest.mark.parametrize('spoil', [lambda j, i: j.write_text('{"levels": 12, "cl'), lambda j, i: i.unlink(), lambda j, i: i.write_bytes(b''),
                                   lambda j, i: i.write_bytes(i.read_bytes()[:-1]), lambda j, i: j.write_text('[]'), lambda j, i: j.write_bytes(b'\xff\xfe')])
def test_spoiled_shards_are_said(tmp_path, spoil):
    waves = pack(clips('speech')[:2], tmp_path/'w')
    tokenize_corpus(waves, Codec(CODEC_PRESETS['tiny']).eval(), SemanticTokenizer(SEMANTIC_PRESETS['tiny']).eval(), tmp_path/'t')
    spoil(tmp_path/'t/shard-00000.json', tmp_path/'t/shard-00000.i16')
    with pytest.raises(AudioError, match=r'shard-00000.i16: the shard does not fit its index \(.*\); delete both and tokenize again'): TokenStore(tmp_path/'t')


def line(folder, batch=None, every=10, **more):
    torch.manual_seed(0); m = nn.Sequential(nn.Linear(4,8), nn.Dropout(.5), nn.Linear(8,1))
    def loss(x): e = (m(x)-1).pow(2).mean(); return e, dict(loss=e.item())
    batch = batch or (lambda i: torch.randn(16, 4, generator=torch.Generator().manual_seed(i)))
    return Trainer(dict(m=(m, loss)), batch, folder, 130, every=every, **more)


def test_ctrl_c_loses_nothing(tmp_path):
    "In the middle of a step; curve and weights are those of an undisturbed run, though 50 is no multiple of `every`."
    whole = line(tmp_path/'whole', every=30).fit(progress=False)
    def pressed(i):
        if i in stops: stops.remove(i); signal.raise_signal(signal.SIGINT)
        return whole.batch(i)
    stops = [37, 99]
    for step in (38, 100, 130): assert line(tmp_path/'cut', pressed, every=30).fit(progress=False).step==step
    a, b = (load_file(tmp_path/f'{n}/checkpoint.safetensors') for n in ('whole','cut'))
    assert all(torch.equal(a[k], b[k]) for k in a)
    again = line(tmp_path/'cut'); again.resume(); assert again.history==whole.history


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError('I/O error: No space left on device')])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, error):
    t = line(tmp_path); t.fit(progress=False); before = (tmp_path/'checkpoint.safetensors').read_bytes()
    def full(tensors, path, notes=None): path.write_bytes(b'half of it'); raise error
    monkeypatch.setattr('audiolm_edu.training.save_file', full)
    with pytest.raises(ModelError, match=r'checkpoint.safetensors: step 130 could not be written \(.*No space left .*untouched. Make room and run again'): t.save()
    assert (tmp_path/'checkpoint.safetensors').read_bytes()==before and {p.name for p in tmp_path.iterdir()}-{'.lock'}=={'checkpoint.safetensors'}
    monkeypatch.undo(); assert line(tmp_path).resume()


def test_a_real_full_disk(tmp_path):
    "The file system itself refuses: a limit on the size of files stands for a full disk."
    code = RUN.replace('import sys', 'import sys, resource, signal').replace('Trainer(dict', 't = Trainer(dict').replace('.fit(', '; t.save()\n'
        'signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\nt.fit(')
    p = subprocess.run([sys.executable, '-c', code, tmp_path, '40'], capture_output=True, text=True)
    assert p.returncode==1 and 'ModelError' in p.stderr and 'step 20 could not be written' in p.stderr, p.stderr
    assert [f.name for f in tmp_path.iterdir() if f.name!='.lock']==['checkpoint.safetensors'] and load_file(tmp_path/'checkpoint.safetensors')


@pytest.mark.parametrize('keep', [0, 4, 100, -1])
def test_a_cut_checkpoint_is_said(tmp_path, keep):
    t = line(tmp_path); t.save(); f = tmp_path/'checkpoint.safetensors'; f.write_bytes(f.read_bytes()[:keep])
    with pytest.raises(ModelError, match='checkpoint.safetensors: not a whole checkpoint .*put back a copy, or delete it'): t.fit(progress=False)


def test_a_checkpoint_of_another_model_is_said(tmp_path):
    line(tmp_path).save()
    for m in (nn.Linear(4,1), nn.Sequential(nn.Linear(4,9), nn.Dropout(.5), nn.Linear(9,1))):
        t = Trainer(dict(m=(m, None)), None, tmp_path, 10)
        with pytest.raises(ModelError, match='is of another model .*use another folder'): t.resume()
    save_file(dict(a=torch.ones(1)), tmp_path/'checkpoint.safetensors')      # somebody else's, without notes
    with pytest.raises(ModelError, match='is of another model'): line(tmp_path).resume()


def test_checkpoints_of_earlier_versions_load(tmp_path):
    t = line(tmp_path); t.fit(progress=False); f = tmp_path/'checkpoint.safetensors'
    with safe_open(f, 'pt') as s: notes = s.metadata()
    del notes['recent']; save_file(load_file(f), f, notes)
    assert line(tmp_path).resume()


def test_leftovers_of_killed_runs_go(tmp_path):
    line(tmp_path).save(); left(tmp_path/'.checkpoint.safetensors.4711'); (tmp_path/'mine').write_text('stays')
    (tmp_path/'.checkpoint.safetensors.4712').write_bytes(b'half')    # young: by a run that is still writing it
    line(tmp_path).resume(); assert {f.name for f in tmp_path.iterdir()}=={'checkpoint.safetensors', 'mine', '.checkpoint.safetensors.4712'}


def test_tokens_of_others_are_not_taken(tmp_path):
    "Shards that are there were made by these tokenizers, of these recordings, in this order; or it is said."
    waves, semantic = pack(clips('speech')[:4], tmp_path/'w'), SemanticTokenizer(SEMANTIC_PRESETS['tiny']).eval()
    one, other = (Codec(CODEC_PRESETS['tiny']).eval() for _ in range(2))
    tokenize_corpus(waves, one, semantic, tmp_path/'t', per_shard=2); assert len(tokenize_corpus(waves, one, semantic, tmp_path/'t', per_shard=2))==4
    with pytest.raises(AudioError, match='other tokenizers'): tokenize_corpus(waves, other, semantic, tmp_path/'t', per_shard=2)
    with pytest.raises(AudioError, match='other recordings'): tokenize_corpus(waves, one, semantic, tmp_path/'t', per_shard=1)
    with pytest.raises(AudioError, match='other recordings'): tokenize_corpus(pack(clips('speech')[4:6], tmp_path/'v'), one, semantic, tmp_path/'t', per_shard=2)


@pytest.mark.parametrize('spoil', [lambda w: (w/'samples.i16').write_bytes((w/'samples.i16').read_bytes()[:9000]), lambda w: (w/'index.json').write_text('{'),
                                   lambda w: (w/'samples.i16').unlink(), lambda w: (w/'index.json').write_text('[]')])
def test_spoiled_recordings_are_said(tmp_path, spoil):
    pack(clips('speech')[:2], tmp_path/'w'); spoil(tmp_path/'w')
    with pytest.raises(AudioError, match='do not fit their index'): Waveforms(tmp_path/'w')


def test_what_a_trainer_may_be_given(tmp_path):
    "Batches that begin with nothing, as those of stage 1, count their rows; weights may lie in memory as they like."
    assert count_rows((None, None, torch.zeros(3, 5)))==3 and count_rows(dict(z=None, y=[1, 2]))==2
    m = nn.Linear(4, 3); m.weight = nn.Parameter(torch.randn(4, 3).T)
    t = Trainer(dict(m=(m, lambda x: (m(x).pow(2).mean(), {}))), lambda i: torch.randn(2, 4), tmp_path, 2, bf16=False).fit(progress=False)
    assert torch.equal(load_file(tmp_path/'checkpoint.safetensors')['m/model/weight'], m.weight) and not m.weight.is_contiguous() and t.step==2
