"The language model: no leak, a cache that changes nothing, rows that do not touch, and equality with PyTorch and transformers."
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from audiolm_edu.coarse_stage import coarse_batch, coarse_config
from audiolm_edu.fine_stage import fine_batch, fine_config
from audiolm_edu.sampling import Sampler, generate, row_noise, write_frames
from audiolm_edu.semantic_stage import semantic_batch, semantic_config
from audiolm_edu.tokens import IGNORE, pad_left
from audiolm_edu.transformer import PAPER, Decoder, Layer, LMConfig, TokenLM, bucket

SIZES = dict(width=32, layers=3, heads=4)
K, N, LEVELS = 11, 7, 12


def matter(lm):
    "Biases that make a difference."
    for p in (lm.bias.weight, lm.cross):
        if p is not None: nn.init.normal_(p)


def model(config):
    torch.manual_seed(0); lm = TokenLM(config).eval(); matter(lm)
    return lm


def crops(seed=0, lengths=(9,5,2)):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randint(0,K,(n,),generator=g), torch.randint(0,N,(n,LEVELS),generator=g)) for n in lengths]


STAGES = dict(semantic=(semantic_config(K, **SIZES), semantic_batch),
              coarse=(coarse_config(K, N, **SIZES), coarse_batch),
              tied=(coarse_config(K, N, tied=True, **SIZES), coarse_batch),
              fine=(fine_config(LEVELS, N, **SIZES), lambda c: fine_batch(c, N)))


@pytest.fixture(params=STAGES)
def stage(request):
    config, batch = STAGES[request.param]; return model(config), batch(crops())


def rows_of(lm, batch):
    "Positions (B,n), padding, and which positions are real."
    condition, pads, target = batch; ids = lm.sequence(condition, target)
    there = torch.arange(ids.shape[1]) >= (pads[:,None] if pads is not None else 0)
    return ids, pads, there.expand(ids.shape)


@torch.no_grad()
def test_cached_equals_uncached_at_every_position(stage):
    lm, batch = stage; ids, pads, real = rows_of(lm, batch); full = lm(ids, pads)
    cache = lm.new_cache(*ids.shape)
    steps = torch.cat([lm(ids[:,i:i+1], pads, cache) for i in range(ids.shape[1])], 1)
    assert (steps-full)[real].abs().max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize('more', [0, 3, 7])
def test_decoder_equals_uncached_at_every_position(stage, more):
    lm, batch = stage; ids, pads, real = rows_of(lm, batch); full = lm(ids, pads)
    first = min(ids.shape[1]-batch[2].shape[1]*lm.config.levels+more, ids.shape[1])   # START, and a part of the target
    d = Decoder(lm, ids[:,:first], ids.shape[1]-first, pads); states = [d.state]
    for i in range(first, ids.shape[1]): d.read(ids[:,i]); states.append(d.state)
    ok = real[:,first-1:]; assert (torch.stack(states, 1)-full[:,first-1:])[ok].abs().max() < 1e-4
    for q in range(lm.config.levels): assert torch.allclose(d.logits(q), d.state@lm.predicting()[q].T, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0,12), min_size=1, max_size=4), st.integers(1,6), st.integers(1,4), st.integers(0,99), st.sampled_from([0.,.7,2.,4.]))
def test_decoder_equals_uncached_for_any_shape(lengths, T, levels, seed, pace):
    torch.manual_seed(seed); lm = TokenLM(LMConfig(condition=9, levels=levels, codes=8, width=16, layers=2, heads=2, pace=pace)).eval()
    matter(lm)
    condition, pads = pad_left([torch.randint(0,9,(n,)) for n in lengths])
    ids = lm.sequence(condition, torch.randint(0,8,(len(lengths),T,levels))); first = condition.shape[1]+1
    with torch.no_grad():
        full, d = lm(ids, pads), Decoder(lm, ids[:,:first], ids.shape[1]-first, pads)
        assert (d.state-full[:,first-1]).abs().max() < 1e-4
        for i in range(first, ids.shape[1]): d.read(ids[:,i]); assert (d.state-full[:,i]).abs().max() < 1e-4


@torch.no_grad()
def test_nothing_leaks_from_the_future(stage):
    lm, batch = stage; condition, pads, target = batch; whole = lm.logits(condition, pads, target)
    for t in range(min(3, target.shape[1])):
        for q in range(target.shape[2]):
            other = target.clone(); other[0,t,q] = (other[0,t,q]+1)%lm.config.codes
            changed = (lm.logits(condition, pads, other)-whole).abs().amax(-1)[0].flatten(); at = t*target.shape[2]+q
            assert changed[:at+1].max() < 1e-5 and (at+1==len(changed) or changed[at+1] > 1e-5)


def test_a_lone_query_sees_the_whole_past():
    "The mask bug of `is_causal=True` with a cache: the last query must depend on every key."
    lm = model(LMConfig(codes=8, width=16, layers=1, heads=2)); ids = torch.randint(1, 9, (1,6))
    def last(ids):
        d = Decoder(lm, ids[:,:5], 1); d.read(ids[:,5]); return d.state
    with torch.no_grad():
        for i in range(5):
            other = ids.clone(); other[0,i] = other[0,i]%8+1
            assert (last(ids)-last(other)).abs().max() > 1e-6, f'key {i} is not seen'


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(stage):
    lm, batch = stage; condition, pads, target = batch; whole = lm.logits(condition, pads, target)
    for b in range(len(target)):
        T = int((target[b,:,0]!=IGNORE).sum())
        mine = None if condition is None else condition[b:b+1,int(pads[b]):]
        assert (lm.logits(mine, None, target[b:b+1,:T])-whole[b:b+1,:T]).abs().max() < 1e-4


def test_loss_is_only_on_the_stage_s_own_tokens(stage):
    "The embedding of a condition's token gets its gradient through attention alone; no logit of it exists."
    lm, batch = stage; condition, pads, target = batch; c = lm.config
    assert lm.predicting().shape==(c.levels, c.codes, c.width)
    with torch.no_grad():
        logits = lm.logits(condition, pads, target); p = logits.log_softmax(-1)
        kept = target!=IGNORE; by_hand = -p.gather(-1, target.clamp(min=0)[...,None])[...,0][kept].mean()
        assert torch.allclose(lm.loss(batch)[0], by_hand, atol=1e-5)


def test_stages_hide_what_they_must():
    a, b = crops(0), crops(1)
    mixed = [(z, y) for (z,_),(_,y) in zip(b, a)]                     # other semantic tokens, same sound
    for x,y in zip(fine_batch(a, N), fine_batch(mixed, N)): assert torch.equal(x, y)      # stage 3 is blind to z
    assert coarse_batch(a)[2].shape[2]==4
    z = torch.tensor([3,3,3,5]); condition, _, _ = coarse_batch([(z, torch.zeros(4,LEVELS).long())])
    assert condition.tolist()==[[3,3,3,5]]                            # stage 2 reads z frame by frame


def test_bias_is_t5s():
    t5 = pytest.importorskip('transformers'); from audiolm_edu.adaptors import torchaudio_without_extension
    torchaudio_without_extension()
    from transformers.models.t5.modeling_t5 import T5Attention
    back = torch.arange(0, 3000)
    for buckets, far in ((32,128), (64,1024)):
        theirs = T5Attention._relative_position_bucket(-back, bidirectional=False, num_buckets=buckets, max_distance=far)
        assert torch.equal(bucket(back, buckets, far), theirs)


@torch.no_grad()
def test_layer_is_pytorchs():
    torch.manual_seed(0); ours = Layer(LMConfig(width=32, heads=4)).eval()
    ref = nn.TransformerEncoderLayer(32, 4, 128, activation='gelu', batch_first=True, norm_first=True).eval()
    ref.self_attn.in_proj_weight.copy_(ours.qkv.weight); ref.self_attn.in_proj_bias.zero_()
    ref.self_attn.out_proj.weight.copy_(ours.proj.weight); ref.self_attn.out_proj.bias.zero_()
    for a,b in ((ref.norm1,ours.norm1), (ref.norm2,ours.norm2), (ref.linear1,ours.up), (ref.linear2,ours.down)): a.load_state_dict(b.state_dict())
    ref.train().requires_grad_(True)                                  # its fast path takes no mask of numbers
    for m in (ref.dropout, ref.dropout1, ref.dropout2): m.p = 0.
    ref.self_attn.dropout = 0.; x, bias = torch.randn(2,9,32), torch.randn(4,9,9)
    causal = bias.masked_fill(torch.ones(9,9).triu(1).bool(), -torch.inf)
    assert torch.allclose(ours(x, causal[None]), ref(x, src_mask=causal.repeat(2,1,1)), atol=1e-5)


def test_paper_sizes():
    with torch.device('meta'): lm = TokenLM(LMConfig(codes=1024, **PAPER))
    assert sum(p.numel() for p in lm.layers.parameters())==12*(4*1024**2+2*4*1024**2+5*1024+4*1024)  # 151 M; the paper says 0.3 B


def test_bias_gradient_reaches_the_bias():
    lm = TokenLM(LMConfig(codes=8, width=16, layers=1, heads=2))
    lm.loss((None, None, torch.randint(0,8,(2,9,1))))[0].backward()
    assert lm.bias.weight.grad.abs().sum() > 0


def lines(lm, batch, frames=(3,1,2)):
    "Rows for `generate` from a training batch: conditions without their padding, prompts of different lengths."
    condition, pads, target = batch
    return [(None if condition is None else condition[b,int(pads[b]):], target[b,:frames[b]].clamp(min=0)) for b in range(len(target))]


def test_generation_in_a_batch_is_generation_alone(stage):
    "Conditions and prompts of any lengths, each row with its own noise: a row writes what it would write by itself."
    lm, batch = stage; rows = lines(lm, batch)
    for how in (dict(temperature=0), dict(temperature=.8), dict(temperature=1., top_k=5, top_p=.9)):
        both = generate(lm, rows, 6, Sampler(row_noise([0,1,2]), **how))
        assert both.shape==(3, 6, lm.config.levels) and both.dtype==torch.int64
        for b,row in enumerate(rows): assert torch.equal(generate(lm, [row], 6, Sampler(row_noise([b]), **how))[0], both[b])


@torch.no_grad()
def test_generation_is_greedy_on_the_whole_sequence(stage):
    "Every token written at temperature 0 is the argmax of the model's logits, computed in one go without a cache."
    lm, batch = stage
    for (z,y),new in zip(lines(lm, batch), generate(lm, lines(lm, batch), 5, Sampler(torch.ones, temperature=0))):
        logits = lm.logits(None if z is None else z[None], None, torch.cat([y,new])[None])[0]
        assert torch.equal(logits.argmax(-1)[len(y):], new)


@torch.no_grad()
def test_generation_is_a_function_of_its_noise(stage):
    "With the noise passed in, each token is the Gumbel-max of the model's logits and that noise, nothing else."
    lm, batch = stage; rows, drawn = lines(lm, batch), []
    def noise(shape): drawn.append(torch.rand(shape, generator=g)); return drawn[-1]
    g = torch.Generator().manual_seed(0); new = generate(lm, rows, 4, Sampler(noise, .7)); levels = lm.config.levels
    assert len(drawn)==4*levels
    for b,(z,y) in enumerate(rows):
        logits = lm.logits(None if z is None else z[None], None, torch.cat([y,new[b]])[None])[0,len(y):].flatten(0,1)/.7
        gumbel = -(-torch.stack(drawn)[:,b].log()).log()
        assert torch.equal((logits+gumbel).argmax(-1), new[b].flatten())


def test_frames_come_one_by_one(stage):
    "`write_frames` hands out a frame before it computes the next, and counts its tokens."
    lm, batch = stage; ticks = []
    frames = write_frames(lm, lines(lm, batch), 3, Sampler(torch.ones), lambda: ticks.append(1))
    for n in (1,2,3): assert next(frames).shape==(3, lm.config.levels) and len(ticks)==n*lm.config.levels
    assert generate(lm, lines(lm, batch), 0, Sampler(torch.ones)).shape==(3, 0, lm.config.levels)


def test_row_noise_depends_on_the_name_alone():
    a = row_noise([(1,2,3), (7,0,0)]); b = row_noise([(7,0,0)]); c = row_noise([(7,0,1)])
    for _ in range(3):
        x, y, z = a((2,9)), b((1,9)), c((1,9))
        assert torch.equal(x[1:], y) and not torch.equal(y, z) and not torch.equal(x[:1], y) and 0 <= x.min() and x.max() < 1
