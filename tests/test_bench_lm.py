"The benchmark of the language model: equal work on both sides, honest clocks, and what is said where the peer is missing."
import sys

import pytest
import torch

from audiolm_edu import bench, bench_lm
from audiolm_edu.audio import AudioError
from audiolm_edu.transformer import Decoder

SMALL = dict(width=32, layers=2, heads=2, codes=16, semantic=8)


@pytest.mark.parametrize('stage', ['semantic','coarse','fine','fine, 6 s'])
def test_writing_writes_all(stage, monkeypatch):
    w, seen = bench_lm.works(**SMALL)[stage], []
    real = bench_lm.generate
    monkeypatch.setattr(bench_lm, 'generate', lambda *a: seen.append(real(*a)) or seen[-1])
    bench_lm.our_writing(w)()
    assert seen[0].shape==(1+('6' in stage), w.write, w.config.levels)


def test_bare_products_are_those_of_the_model():
    "Product by product, the shapes that `Decoder` multiplies when it writes the same tokens."
    w = bench_lm.works(**SMALL)['coarse']; aten = torch.ops.aten
    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, f, types, args=(), kwargs=None):
            if f is aten.mm.default: seen.append(tuple(args[1].shape))
            elif f is aten.addmm.default: seen.append(tuple(args[2].shape))
            elif f is aten.bmm.default: seen.append(tuple(args[1].shape[1:]))
            return f(*args, **(kwargs or {}))
    seen = []; work = bench_lm.bare_products(w)
    with Watch(): work()
    bare, seen = seen, []
    lm, c = bench_lm.TokenLM(w.config).eval(), w.config
    with torch.no_grad(): d = Decoder(lm, torch.cat([torch.zeros(1, w.given).long(), torch.tensor([[c.condition]])], 1), w.write*c.levels)
    with torch.no_grad(), Watch():
        for t in range(3*c.levels): d.logits(t%c.levels); d.read(torch.tensor([c.condition+1]))
    weights = [s for s in bare if s[0]>=c.width and s[1]>=c.width or s==(c.width, c.codes)]
    assert sorted(seen)==sorted(s for s in weights[:len(seen)])               # attention is one fused call in ours
    attention = [s for s in bare if s not in set(weights)]
    assert len(attention)==2*c.layers*w.write*c.levels and attention[:2]==[(c.width//c.heads, w.given+1), (w.given+1, c.width//c.heads)]


@pytest.mark.parametrize('stage', ['semantic','coarse','fine'])
def test_training_step_learns_on_the_tokens_that_are_counted(stage):
    torch.manual_seed(0); w = bench_lm.works(**SMALL)[stage]; seen = []
    def loss(self, batch): seen.append(batch); return real(self, batch)
    real = bench_lm.TokenLM.loss; bench_lm.TokenLM.loss = loss
    try:
        step = bench_lm.our_training(w); step(); step()
    finally: bench_lm.TokenLM.loss = real
    z, _, y = seen[0]
    assert bench_lm.sequence_tokens(w)==y.numel()+(z.numel() if z is not None else 0) and len(seen)==2


def test_clock(monkeypatch):
    now = iter([0., 4., 10., 11., 20., 25., 30., 32.]); monkeypatch.setattr(bench.time, 'process_time', lambda: next(now))
    assert bench_lm.tokens_a_second(lambda: None, 30)==30/2     # 4 does not count; the median of 1, 5, 2
    now = iter([0., 4.]); monkeypatch.setattr(bench_lm.time, 'process_time', lambda: next(now))
    assert bench_lm.tokens_a_second(lambda: None, 30, 0)==30/4


def test_ratios():
    r = bench_lm.ratios(dict(stage='fine', ours=40., bare=80., training=30., peer=10., **{'peer training': 10.}))
    assert r=={'of bare': .5, 'writing': 4., 'training': 3., 'training, bf16': None}
    report = bench_lm.lm_report(dict(rows=[dict(stage='a', ours=1., bare=2.), dict(stage='b', ours=1., bare=4., training=3.)],
                                     command=dict(seconds=7, process=.5, generation=.25, memory=.5)))
    assert '0.25' in report and report.count('\n') > 8


def test_missing_peer(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'audiolm_pytorch', None)
    before = {n: sys.modules.get(n) for n in ('fairseq', 'wandb', 'torchaudio')}
    with pytest.raises(AudioError, match='leave out --peer'): bench_lm.import_peer()
    assert bench.main(['lm', '--peer'])==2 and capsys.readouterr().err.count('\n')==1
    assert all(sys.modules.get(n) is m for n,m in before.items() if m or n!='torchaudio')   # no stand-in stays


def test_json_file_is_checked_first(monkeypatch, capsys):
    monkeypatch.setattr(bench_lm, 'lm_bench', lambda *a: pytest.fail('measured before the file was checked'))
    assert bench.main(['lm', '--json', 'nowhere/x.json'])==2 and 'nowhere' in capsys.readouterr().err


def test_peer_is_as_large_as_ours():
    "Where audiolm-pytorch is installed: the same widths, and it writes what it is asked for."
    try: peer = bench_lm.import_peer()
    except AudioError: pytest.skip('audiolm-pytorch is not installed')
    for stage,w in bench_lm.works(width=64, layers=2, heads=2, codes=16, semantic=8).items():
        w = bench_lm.replace(w, given=w.given//25, write=w.write//25)
        out = bench_lm.peer_writing(peer, stage, w)()
        assert out.numel() >= w.chunks*w.write*w.config.levels
        if w.chunks==1: bench_lm.peer_training(peer, stage, bench_lm.replace(w, train=8))()
