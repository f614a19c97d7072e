"Ablations: each trial changes what it says and nothing else; a run from a folder; the stored ones are whole."
import json

import pytest
import torch

from audiolm_edu import ablations, cli
from audiolm_edu.ablations import CODECS, HEARD, TRIALS, Trial, batch_of, level_losses, measured, model_of, stored
from audiolm_edu.audio import SR, AudioError, save_audio
from audiolm_edu.coarse_stage import coarse_batch
from audiolm_edu.corpus import clips, held_out

K, N, Q = 64, 64, 12


@pytest.fixture
def crops():
    g = torch.Generator().manual_seed(0); draw = lambda k, *s: torch.randint(0, k, s, generator=g)
    return [(draw(K, n).repeat_interleave(2)[:n], draw(N, n, Q)) for n in (30,30)]


@pytest.fixture
def books(): return torch.randn(K, 9), [torch.randn(N, 7) for _ in range(Q)]


@pytest.mark.parametrize('name', TRIALS)
def test_every_trial_can_be_trained(name, crops, books):
    t = TRIALS[name]; torch.manual_seed(0)
    lm = model_of(t, *books, pace=.5); batch = batch_of(t, crops)
    loss = lm.loss(batch)[0]; loss.backward(); assert loss.isfinite()
    assert lm.config.levels==t.levels+(t.plan=='written') and (lm.config.condition > 0)==(t.plan in ('whole','short'))
    assert lm.config.pace==(0 if not t.clock or t.plan in ('none','written') else .5 if t.plan=='short' else 1)
    same = lm.config.width, lm.config.layers, lm.config.heads; assert same==(128, 3, 4)
    means = level_losses(lm.eval(), batch)
    if t.plan!='short': assert torch.allclose(means.mean(), lm.loss(batch)[0], atol=1e-4)


def test_the_unchanged_trial_is_stage_2(crops):
    for a,b in zip(batch_of(Trial(), crops), coarse_batch(crops)): assert torch.equal(a, b)
    assert batch_of(Trial(plan='short'), crops)[0].shape[1] <= 16 < batch_of(Trial(), crops)[0].shape[1]


def test_worth_of_a_plan_that_is_everything(books):
    "A model whose level 1 copies its plan: the plan backwards costs much; one without a plan has no such row."
    t = Trial(levels=1); lm = model_of(t, *books, pace=1.).eval()
    class Tables(list):
        clips = [dict(speaker=s) for s in 'ab']; frames = torch.tensor([40,40])
    z = [torch.arange(40)%K for _ in range(2)]; store = Tables((v, v[:,None].repeat(1,Q)) for v in z)
    lm.logits = lambda c, p, y: torch.nn.functional.one_hot(c, N)[:,:,None].float()*20
    rows = {r['measure']: r for r in measured('x', t, lm, store)}
    assert rows['level 1']['value'] < 1e-3 and rows['worth of the plan']['value'] > 15 and rows['level 1']['people']==2


def test_a_run_from_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ablations, 'transcriber', lambda: lambda x: ('what it hears', .5))
    root, names = tmp_path/'data', list(map(str, range(99)))
    two = next(n for n in names if held_out(n)), next(n for n in names if not held_out(n))
    for i,c in enumerate(clips('speech')[:4]): (root/two[i%2]).mkdir(parents=True, exist_ok=True); save_audio(root/two[i%2]/f'{i}.flac', c.audio()[:4*SR])
    (root/'manifest.csv').write_text('path,speaker,seconds,transcript\n'+''.join(f'{two[i%2]}/{i}.flac,{two[i%2]},4,a word or two\n' for i in range(4)))
    for name in ('repeats removed', 'residual, 25 x 4 codes', 'sound alone'):
        assert cli.main(['ablate', name, '--data', str(root), '--out', str(tmp_path/'o'), '--share', '.005'])==0
    rows = stored(tmp_path/'o'); assert {r['name'] for r in rows}=={'repeats removed', 'residual, 25 x 4 codes', 'sound alone'}
    assert all(r['value'] > 0 and r['low'] is None for r in rows if r['measure']!='worth of the plan') and {r.get('steps') for r in rows}=={10, None}
    heard = {r['measure']: r['value'] for r in rows if r['name']=='sound alone'}; assert heard['confidence']==.5 and 'orders' not in heard
    assert cli.main(['ablate', 'no such', '--data', str(root), '--out', str(tmp_path/'o')])==2 and 'there are stage 2' in capsys.readouterr().err


def test_stored_runs():
    rows = stored()
    assert {r['name'] for r in rows}=={*TRIALS, *CODECS, *HEARD} and all(r['low'] <= r['value'] <= r['high'] and r['people'] >= 6 for r in rows)
    trials = [r for r in rows if r['name'] in TRIALS]
    assert len({r['steps'] for r in trials})==1 and len({r['clips'] for r in trials})==1
