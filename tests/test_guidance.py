"Guidance: what a condition is worth, twice."
import pytest
import torch

from audiolm_edu.sampling import Sampler, row_noise, write_frames
from audiolm_edu.semantic_stage import continue_semantic
from audiolm_edu.transformer import LMConfig, TokenLM


@torch.no_grad()
@pytest.mark.parametrize('guide', [0., 1., 2.5])
def test_guidance_by_hand(guide):
    "Greedy, two rows with plans of unequal length: the same tokens as from two whole forward passes at every step."
    torch.manual_seed(0); c = LMConfig(condition=9, levels=2, codes=8, width=32, layers=2, heads=4, pace=1.)
    lm = TokenLM(c).eval(); lm.head.mul_(8)
    rows = [(torch.tensor([1,2,3,4,5]), torch.tensor([[3,1]])), (torch.tensor([7,8,7]), torch.zeros(0, 2).long())]
    greedy = Sampler(row_noise([0,1]), temperature=0)
    new = torch.stack(list(write_frames(lm, rows, 4, greedy, guide=guide)), 1)
    for (z,y),written in zip(rows, new):
        for t in range(4):
            for level in range(2):
                target = torch.cat([y, written[:t+1]])[None].clone(); target[0,-1,level:] = 0
                told, untold = (lm.logits(v[None], None, target)[0,-1,level] for v in (z, z[:0]))
                assert (untold+guide*(told-untold)).argmax()==written[t,level]
    if guide==0:
        other = [(rows[0][0].flip(0), rows[0][1]), rows[1]]
        assert torch.equal(new, torch.stack(list(write_frames(lm, other, 4, greedy, guide=0.)), 1))


@torch.no_grad()
def test_a_stage_without_a_condition_is_held_to_its_prompt():
    "By hand: what follows the prompt and the new tokens, against what follows the new tokens alone. Rows without a prompt are left as they are."
    torch.manual_seed(1); lm = TokenLM(LMConfig(levels=1, codes=9, width=32, layers=2)).eval(); lm.head.mul_(8)
    prompts, greedy = [torch.tensor([3,1,4,1,5]), torch.tensor([2,7])], Sampler(row_noise([0,1]), temperature=0)
    new = continue_semantic(lm, prompts, [6,6], greedy, hold=3.)
    differ = 0
    for z,written in zip(prompts, new):
        for t in range(6):
            target = torch.cat([z, written[:t+1]])[None,:,None]
            told, untold = (lm.logits(None, None, v)[0,-1,0] for v in (target, target[:,len(z):]))
            assert (untold+3*(told-untold)).argmax()==written[t]; differ += int(told.argmax()!=written[t])
    assert differ
    free = [continue_semantic(lm, [z[:0] for z in prompts], [4,4], greedy, hold=h) for h in (1.,3.)]
    assert all(map(torch.equal, *free))
