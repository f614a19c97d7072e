"Judgements: likelihood by hand, a toy language, the interval, and the pairs of the package."
import math
from collections import Counter

import pytest
import torch

from audiolm_edu.judgements import (accuracy, bootstrap, count_tables, log_likelihood, pairs, prefers_the_real,
                                    table_likelihood)
from audiolm_edu.semantic_stage import semantic_batch, semantic_config
from audiolm_edu.transformer import TokenLM

VOICES = {'kal16', 'awb', 'rms', 'slt'}


def tiny(codes=7, **sizes):
    torch.manual_seed(0)
    lm = TokenLM(semantic_config(codes, width=16, layers=2, heads=2, **sizes))
    with torch.no_grad(): lm.head.normal_()                  # far from uniform
    return lm.eval()


def random_rows(n, codes=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(codes, (int(torch.randint(1, 30, (1,), generator=g)),), generator=g) for _ in range(n)]


# --- likelihood

def test_by_hand():
    "Each token after START and those before it, one call of the model for each."
    lm, z = tiny(), torch.tensor([4,4,0,6,1])
    total = 0.
    for t in range(len(z)):
        ids = lm.sequence(None, z[None,:t,None])             # START and t tokens
        total += math.log((lm(ids)[0,-1]@lm.head[0].T).softmax(-1)[z[t]].item())
    assert log_likelihood(lm, [z]).item()==pytest.approx(total/5, abs=1e-5)
    assert log_likelihood(lm, [z], per_token=False).item()==pytest.approx(total, abs=1e-4)


def test_all_sequences_sum_to_one():
    lm = tiny(3)
    rows = [torch.tensor([a,b,c]) for a in range(3) for b in range(3) for c in range(3)]
    assert log_likelihood(lm, rows, per_token=False).exp().sum().item()==pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('batch', (1, 3, 64))
def test_batch_equals_alone(batch):
    lm, rows = tiny(), random_rows(20)
    alone = torch.stack([log_likelihood(lm, [z])[0] for z in rows])
    assert alone.std() > .05                                 # rows differ, so an exchange of two would be seen
    assert torch.allclose(log_likelihood(lm, rows, batch=batch), alone, atol=1e-5)


@pytest.mark.parametrize('rows', ([], [torch.tensor([1]), torch.zeros(0).long()]))
def test_nothing_to_judge(rows):
    with pytest.raises(ValueError, match='at least a token'): log_likelihood(tiny(), rows)


def test_ties_are_half():
    assert prefers_the_real(torch.tensor([1.,2,3]), torch.tensor([3.,2,1])).tolist()==[0,.5,1]


def test_a_toy_language_is_learned():
    "Words of four tokens; the other side has two of them exchanged. Untrained it guesses, trained it knows."
    torch.manual_seed(0)
    words = [torch.randperm(30)[:4] for _ in range(40)]
    sides = words, [w[[0,2,1,3]] for w in words]
    lm = TokenLM(semantic_config(30, width=32, layers=2, heads=2, dropout=0.))
    judge = lambda: prefers_the_real(*(log_likelihood(lm.eval(), s) for s in sides)).mean().item()
    before = judge()
    said = lambda: torch.cat([words[i] for i in torch.randint(40, (8,))])
    optimizer = torch.optim.AdamW(lm.parameters(), 5e-3)
    for _ in range(150):
        optimizer.zero_grad(); lm.train().loss(semantic_batch([(said(), None) for _ in range(16)]))[0].backward(); optimizer.step()
    assert before < .8 < .95 <= judge()


# --- counting

def test_tables_are_probabilities():
    t = count_tables(random_rows(20), 7)
    for table in t.values():
        assert table.shape==(8,7) and torch.allclose(table.exp().sum(1), torch.ones(8), atol=1e-5)
    assert torch.equal(t['unigram'][0], t['unigram'][7]) and torch.allclose(t['bigram'][7], t['unigram'][7])


def test_a_bigram_by_hand():
    rows = [torch.tensor([0,1,0,1,1]), torch.tensor([1,0])]       # no pair runs from one row into the next
    p1 = (4+1)/(7+2)
    t = count_tables(rows, 2, weight=3)['bigram']
    assert t[0,1].exp().item()==pytest.approx((2+3*p1)/(2+3)) and t[1,1].exp().item()==pytest.approx((1+3*p1)/(3+3))
    assert t[2,1].exp().item()==pytest.approx(p1)
    z = torch.tensor([1,1,0])
    expected = (t[2,1]+t[1,1]+t[1,0]).item()
    assert table_likelihood(t, [z], per_token=False).item()==pytest.approx(expected)
    assert table_likelihood(t, [z]).item()==pytest.approx(expected/3)


# --- interval

def test_interval():
    g = torch.Generator().manual_seed(0)
    coins, voices = (torch.rand(1600, generator=g) < .7).float(), ['a','b','c','d']*400
    width = []
    for n in (100, 400, 1600):
        low, high = bootstrap(coins[:n], voices[:n])
        assert 0 <= low < coins[:n].mean() < high <= 1
        width.append(high-low)
    assert width[0] > 1.4*width[1] > 1.4**2*width[2]
    assert bootstrap(coins, voices)==bootstrap(coins, voices)!=bootstrap(coins, voices, seed=1)


def test_voices_are_drawn():
    "The same answers, but each voice is either always right or always wrong."
    right = torch.tensor([1.,1,0,0]*100)
    low, high = bootstrap(right, ['a','b','c','d']*100)
    assert low < .1 and high > .9
    low, high = bootstrap(right, ['a','b','b','a']*100)
    assert low > .4 and high < .6


# --- the pairs of the package

def test_enough_and_balanced():
    every = pairs()
    counts = Counter(p.kind for p in every)
    assert counts['word'] >= 500 and counts['grammar'] >= 500 and counts['domain'] >= 100
    assert [p.id for p in every]==[f'{i:04}' for i in range(len(every))]
    assert {p.voice for p in every}==VOICES
    for group in {(p.kind, p.paradigm, p.kind=='word' and p.heard > 0) for p in every}:
        said = Counter(p.voice for p in every if (p.kind, p.paradigm, p.kind=='word' and p.heard > 0)==group)
        assert set(said)==VOICES and len(set(said.values()))==1, (group, said)
    sizes = Counter(p.paradigm for p in every if p.kind!='word')
    assert len(set(sizes.values()))==1 and len(sizes) >= 10
    heard = [p.heard > 0 for p in pairs('word')]
    assert sum(heard)*2==len(heard)


def test_reading_again_gives_the_same():
    for a,b in zip(pairs(), pairs(), strict=True):
        assert (a.id, a.real, a.other)==(b.id, b.real, b.other) and torch.equal(a.z_real, b.z_real)


def test_tokens():
    for p in pairs():
        for z in (p.z_real, p.z_other):
            assert z.dtype==torch.int64 and 5 < len(z) < 250 and 0 <= z.min() and z.max() < 1024
        assert not torch.equal(p.z_real, p.z_other)


def test_non_words():
    "As many phones, not all of them new, and never the phones of a word."
    every = pairs('word')
    plain = lambda phones: tuple(q.rstrip('01') for q in phones.split())
    words = {plain(p.phones) for p in every}
    assert len({p.real for p in every})==len(every)
    for p in every:
        a, b = plain(p.phones), plain(p.other)
        assert b not in words and len(a)==len(b)==int(p.paradigm.split()[0])
        assert any(x==y for x,y in zip(a, b)), p
        vowels = lambda phones: [q[-1] if q[-1] in '01' else '' for q in phones.split()]
        assert vowels(p.phones)==vowels(p.other), p          # the same shape and stress


def test_sentences():
    said = [p for p in pairs() if p.kind!='word']
    reals = {p.real for p in said}
    for p in said:
        assert p.real!=p.other and p.other not in reals and not p.phones, p
        if 'shuffled' in p.paradigm: assert Counter(p.real.split())==Counter(p.other.split()), p
    balanced = [p for p in said if p.paradigm=='this and these']
    assert sum('this' in p.real.split() for p in balanced)*2==len(balanced)


def test_accuracy():
    said = pairs('domain')
    a = accuracy(torch.ones(len(said)), said)
    assert (a.mean, a.low, a.high, a.n)==(1, 1, 1, len(said)) and '100.0%' in str(a)
