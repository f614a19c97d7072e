"One seed, one take: with one thread or two, alone or in company. Across devices tokens may part where two are as likely to the last bit."
import pytest
import torch

from audiolm_edu.audiolm import AudioLM
from audiolm_edu.corpus import prompt_path


@pytest.mark.parametrize('name', ['speech', 'piano'])
def test_threads_and_company_do_not_matter(name):
    lm, path = AudioLM.from_pretrained(name), prompt_path(name); before = torch.get_num_threads(); takes = {}
    try:
        for n in (1, 2): torch.set_num_threads(n); takes[n] = [lm.continue_from(path, 2, seed=s) for s in (3, 4)]
        together = lm.continue_from(path, 2, seed=[4, 3])[::-1]
    finally: torch.set_num_threads(before)
    for a,b,c in zip(takes[1], takes[2], together):
        assert torch.equal(a.acoustic, b.acoustic) and torch.equal(a.plan, b.plan) and torch.allclose(a.audio, b.audio, atol=1e-3)
        assert torch.equal(a.acoustic, c.acoustic) and torch.equal(a.plan, c.plan)
    assert not torch.equal(takes[1][0].acoustic, takes[1][1].acoustic)
