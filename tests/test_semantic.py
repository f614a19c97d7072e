"Semantic tokens: the interface, what must not change them, the losses against second implementations, the yardstick."
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from audiolm_edu import adaptors
from audiolm_edu.audio import SR, log_mel
from audiolm_edu.corpus import Crops, clips, pack
from audiolm_edu.evaluate import abx, yardstick
from audiolm_edu.hub import ModelError, load_model, locate, save_model
from audiolm_edu.semantic import SEMANTIC_PRESETS, SemanticEncoder, SemanticTokenizer, Tokenizer, cepstra, mfcc, pad_to_token, standardised
from audiolm_edu.semantic_training import (LabelledCrops, MaskedPrediction, Mixture, Quantizer, RandomProjection, W2vBert, contrastive,
                                           disguise, diversity, largest, likeliest_tract, soft_cross_entropy, span_mask, speaker_free, stacked, warp)
from audiolm_edu.training import Trainer
from audiolm_edu.vq import nearest


@pytest.fixture(scope='module')
def semantic(): return SemanticTokenizer.from_pretrained('speech')


@pytest.fixture(scope='module')
def ruler(): return yardstick()


# the tokenizer

@pytest.mark.parametrize('samples', [1, 639, 640, 641, 12_345, 48_000])
def test_one_token_for_640_samples(semantic, prompt, samples):
    x = prompt[None,:samples]; T = math.ceil(samples/640); z = semantic.encode(x)
    assert z.shape==(1,T) and z.dtype==torch.int64 and 0 <= z.min() and z.max() < len(semantic.centroids)
    assert semantic.features(x).shape==(1,T,semantic.centroids.shape[1])


def test_a_token_is_the_nearest_centre(semantic, prompt):
    f = semantic.features(prompt[None])
    assert torch.equal(torch.cdist(f.double(), semantic.centroids.double()).argmin(-1), semantic.encode(prompt[None]))


def test_rows_do_not_depend_on_neighbours(semantic, prompt):
    x = prompt[:46_720].reshape(2,-1)
    assert torch.allclose(semantic.features(x), torch.cat([semantic.features(r[None]) for r in x]), atol=1e-3)


def test_loudness_hardly_matters(semantic, prompt):
    x = prompt[None]; assert (semantic.encode(x)==semantic.encode(.3*x)).float().mean() > .7
    z = semantic.encode(torch.zeros(1,3*SR)); assert (z==z.mode().values).float().mean() > .7   # silence: nearly one token


def test_clusters_are_saved_with_the_model(tmp_path):
    torch.manual_seed(0); t = SemanticTokenizer(SEMANTIC_PRESETS['tiny']).eval(); x = clips('speech')[0].audio()[None]
    t.fit_clusters([x], iters=3); save_model(t, tmp_path, 'semantic')
    f = Tokenizer.scaled(t, t.raw(x))[0]; assert f.mean(0).abs().max() < 1e-3 and (f.std(0)-1).abs().max() < 1e-3
    again = load_model(SemanticTokenizer, tmp_path, 'semantic')          # weights are stored as float16
    assert (again.encode(x)==t.encode(x)).float().mean() > .95


def test_a_tokenizer_must_say_what_it_hears():
    with pytest.raises(NotImplementedError, match='raw'): Tokenizer(4, 2).encode(torch.zeros(1,640))


def test_weights_fit(): assert (locate('speech')/'semantic.safetensors').stat().st_size < 12e6


# the yardstick, and the claim

def test_yardstick_is_consistent(ruler):
    sounds, phones = ruler; by = {p: [q for q in phones if q.path==p] for p in sounds}
    for path, ps in by.items():
        assert ps[0].start==0 and abs(ps[-1].end-len(sounds[path])/SR) < .002 and ps[0].phone==ps[-1].phone=='SIL'
        assert all(a.end==b.start for a,b in zip(ps, ps[1:])) and all((p.phone=='SIL')==(not p.word) for p in ps)
    said = {}
    for path, ps in by.items(): said.setdefault(path[-7:], set()).add(tuple(p.phone for p in ps))
    assert len(said)==15 and all(len(s)==1 for s in said.values())       # all voices say the same


def test_yardstick_times_fit_the_sound(ruler):
    "The spectrum changes most where a phone is said to begin, not 30 ms before or after."
    sounds, phones = ruler; vowels, stops = {'AE','AA','IH','IY','EH','EY','OW','UW'}, {'T','K','P','B','D','G'}
    change = {}
    for p in phones:
        x = sounds[p.path]; change.setdefault(p.path, (lambda m: (m[1:]-m[:-1]).abs().mean(1))(log_mel(x[None])[0]))
    at = lambda shift: np.mean([change[p.path][i].item() for p in phones if p.start > .1 and (i := round((p.start+shift)*100-.5)) < len(change[p.path])])
    assert at(0) > 1.1*at(-.03) and at(0) > 1.1*at(.03)
    loud = lambda names: np.mean([sounds[p.path][int(p.start*SR):int(p.end*SR)].square().mean().add(1e-9).log().item() for p in phones if p.phone in names])
    assert loud(vowels) > loud(stops)+1 > loud({'SIL'})+1


def test_no_synthetic_voice_among_the_clips_for_training(): assert not [c for c in clips('speech') if 'flite' in c.speaker]


def test_better_than_mfcc_on_voices_never_heard(semantic, ruler):
    sounds, phones = ruler; score = lambda f: abx({p: f(x[None])[0] for p,x in sounds.items()}, phones)['across']
    tokens = score(lambda x: semantic.centroids[semantic.encode(x)])
    assert score(semantic.features) < .6*score(mfcc) and tokens < .8*score(mfcc)


def test_the_card_holds_the_figures_on_people():
    people = json.loads((locate('speech')/'semantic.json').read_text())['notes']['people']
    ours, old = people['abx']['learned, 1024 tokens'], people['abx']['MFCC, 1024 tokens']
    assert ours[0] < .8*old[0] and ours[1] < .8*old[1]
    assert people['probe']['semantic'] < people['probe']['acoustic']


# training

def test_cepstra_are_scipys():
    from scipy.fft import dct
    m = torch.randn(1,7,64); c = cepstra(m, slopes=0)[0]
    assert np.allclose(c.numpy(), dct(m[0].numpy(), type=2)[:,:13]/2, atol=1e-4)


def test_mixture_equals_scikit_learn():
    from sklearn.mixture import GaussianMixture
    rng = np.random.default_rng(0); x = np.concatenate([rng.normal(m, s, (300,3)) for m,s in ((0,1),(3,.5),(-2,2))]).astype('float32')
    m = Mixture.fit(torch.from_numpy(x), 4, iters=5)
    ref = GaussianMixture(4, reg_covar=.03, max_iter=5, tol=0, random_state=0, init_params='k-means++').fit(x)
    assert np.allclose(m(torch.from_numpy(x)).numpy(), ref.predict_proba(x), atol=1e-3)
    p, soft = m(torch.from_numpy(x)), m(torch.from_numpy(x), .3)
    assert torch.allclose(soft, p.pow(.3)/p.pow(.3).sum(-1, keepdim=True), atol=1e-3)


def test_five_tracts_are_distributions_that_admit_doubt():
    torch.manual_seed(0); x = clips('speech')[0].audio()[None]; x = x[:,:x.shape[1]//640*640]
    frames = standardised(cepstra(log_mel(x), slopes=2))[0]; m = Mixture.fit(frames, 16)
    five, one = speaker_free(m, x), speaker_free(m, x, tracts=(1.,))
    assert torch.allclose(five.sum(-1), torch.ones(five.shape[:2]), atol=1e-4)
    entropy = lambda p: torch.special.entr(p).sum(-1).mean()
    assert entropy(five) > entropy(one)


def test_likeliest_tract_finds_the_warp_that_a_mixture_was_fitted_to():
    x = clips('speech')[0].audio()[None]; mel = log_mel(pad_to_token(x))
    for f in (.89, 1., 1.12): assert likeliest_tract(Mixture.fit(standardised(cepstra(warp(mel, f), slopes=2))[0], 16), [x])==f


def test_contrastive_equals_a_loop():
    torch.manual_seed(0); B, T, D = 3, 9, 5
    c, q, ids, mask = torch.randn(B,T,D), torch.randn(B,T,D), torch.randint(0,4,(B,T)), torch.rand(B,T) < .6
    losses, hits = [], []
    for b in range(B):
        for t in mask[b].nonzero()[:,0].tolist():
            others = [u for u in range(T) if u==t or (mask[b,u] and ids[b,u]!=ids[b,t])]
            s = torch.tensor([F.cosine_similarity(c[b,t], q[b,u], 0).item()/.1 for u in others])
            losses.append((s.logsumexp(0)-s[others.index(t)]).item()); hits.append(others[int(s.argmax())]==t)
    loss, hit = contrastive(c, q, ids, mask)
    assert abs(loss.item()-np.mean(losses)) < 1e-4 and abs(hit.item()-np.mean(hits)) < 1e-6


def test_soft_cross_entropy_is_torchs():
    torch.manual_seed(0); logits, p = torch.randn(6,5), torch.rand(6,5).softmax(-1)
    assert torch.allclose(soft_cross_entropy(logits, p), F.cross_entropy(logits, p))


def test_quantizer():
    torch.manual_seed(0); q = Quantizer(8, 16, 4); rows, ids, used = q(torch.randn(2,50,8))
    assert torch.allclose(rows, q.book[ids], atol=1e-5) and 1/16 <= used <= 1
    used.backward(); assert q.score.weight.grad.abs().sum() > 0           # diversity can be rewarded
    assert diversity(torch.full((1,3,4), .25)).item()==pytest.approx(1)


def test_both_modules_learn_and_the_target_does_not_see_the_disguise():
    torch.manual_seed(0); model = W2vBert(SemanticEncoder(SEMANTIC_PRESETS['tiny']), 256, codes=32, low=1, anchor=0.)
    x = torch.randn(2, 40*640)*.1
    loss, figures = model.loss((x, stacked(log_mel(x)))); loss.backward()
    for name,p in model.named_parameters():
        if not name.startswith('name.'): assert p.grad is not None and p.grad.abs().sum() > 0, name
    assert set(figures)=={'contrastive','hit','used','guess'}


def test_only_hidden_frames_are_guessed():
    "With everything hidden the encoder must not see the sound at all."
    torch.manual_seed(0); e = SemanticEncoder(SEMANTIC_PRESETS['tiny']).eval(); mask = torch.ones(1,10, dtype=torch.bool)
    a, b = (e(torch.randn(1,40,64), mask)[-1] for _ in range(2))
    assert torch.allclose(a, b, atol=1e-5)


def test_warp_and_disguise():
    m = torch.zeros(1,4,64); m[:,:,30] = 5.
    assert warp(m, 1.15)[0,0].argmax() > 30 > warp(m, .85)[0,0].argmax()
    torch.manual_seed(0); d = disguise(torch.randn(2,40,64)); assert d.isfinite().all() and d.shape==(2,40,64)
    torch.manual_seed(0); assert torch.equal(d, disguise(torch.randn(2,40,64)))      # all chance from torch's generator


@pytest.mark.parametrize('share', [.2, .5])
def test_span_mask(share):
    torch.manual_seed(0); m = span_mask(500, 200, share)
    assert abs(m[:,10:].float().mean()-share) < .02
    runs = [len(r) for row in m[:50].int().tolist() for r in ''.join(map(str, row)).split('0') if r]
    assert np.mean([r >= 6 for r in runs]) > .9                            # only a span that runs off an edge is shorter


def test_random_projection_never_changes():
    a, b = RandomProjection(8, seed=3), RandomProjection(8, seed=3); x = torch.randn(1,5,8)
    assert torch.equal(a(x), b(x)) and not list(a.parameters())
    cos = F.normalize(x@a.matrix, dim=-1)@a.book.T; assert torch.equal(cos.argmax(-1), a(x))


def test_labelled_crops(tmp_path):
    store = pack(clips('speech')[:3], tmp_path/'packed'); T = -(-store.lengths//640)
    p = [F.one_hot(torch.arange(t)%7, 7).float() for t in T]; shares, which = map(torch.cat, zip(*(largest(q, 2) for q in p)))
    crops = LabelledCrops(store, shares, which, 7, size=5, frames=50, seed=1)
    x, y = crops(4); x2, y2 = crops(4)
    assert x.shape==(5, 50*640) and y.shape==(5,50,7) and torch.equal(x, x2) and torch.equal(y, y2) and not torch.equal(x, crops(5)[0])
    for row, labels in zip(x, y):                                          # each stretch carries the labels of its own place
        first = labels[0].argmax().item()
        at = [(c,a) for c in range(3) for a in range(T[c]) if torch.equal(pad_to_token(store[c][None])[0,a*640:a*640+640], row[:640])]
        assert any(a%7==first for _,a in at)
    long = LabelledCrops(store, shares, which, 7, size=2, frames=int(T.max())+30)(0)   # longer than any clip: it repeats
    assert long[0].shape[1]==(T.max()+30)*640 and torch.allclose(long[1].sum(-1), torch.ones(long[1].shape[:2]), atol=1e-3)


def test_training_resumes(tmp_path):
    store = pack(clips('speech')[:3], tmp_path/'packed'); labels = RandomProjection(256, 16)
    crops = Crops(store, 2, 20*640)
    def batch(i): x = crops(i); return x, F.one_hot(labels(stacked(log_mel(x))), 16).float()
    def run(folder, *stops):
        for steps in stops:
            torch.manual_seed(0); m = MaskedPrediction(SemanticEncoder(SEMANTIC_PRESETS['tiny']), 16)
            t = Trainer(dict(m=(m, m.loss)), batch, tmp_path/folder, 6, every=2)
            t.resume()
            while t.step < steps: t.train_step()
            t.save()
        return m.state_dict()
    whole, parts = run('a', 6), run('b', 2, 4, 6)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


# other people's models behind the same interface

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


@pytest.fixture(scope='module', params=['hubert', 'w2v-bert'])
def other(request):
    pytest.importorskip('transformers'); torch.manual_seed(0)
    if request.param=='hubert': return adaptors.HubertTokenizer.random(**SMALL, conv_dim=(16,)*7, clusters=8)
    return adaptors.W2vBert2Tokenizer.random(**SMALL, output_hidden_size=32, clusters=8)


@pytest.mark.parametrize('samples', [640, 641, 9_999, 40_000])
def test_adaptors_give_25_tokens_a_second(other, prompt, samples):
    x = torch.stack([prompt[:samples], prompt[-samples:]])
    assert other.encode(x).shape==(2, math.ceil(samples/640)) and other.features(x).isfinite().all()


def test_adaptors_take_the_named_layer(other, prompt):
    x = pad_to_token(prompt[None,:16_000])
    with torch.no_grad(): h = other.model(**other.inputs(x), output_hidden_states=True).hidden_states[other.layer]
    assert torch.allclose(other.raw(x), (h[:,::2]+h[:,1::2])/2, atol=1e-6)


def test_adaptors_load_saved_weights(other, prompt, tmp_path):
    other.model.save_pretrained(tmp_path)
    again = type(other).from_pretrained(str(tmp_path), layer=2, clusters=8)
    assert torch.allclose(again.raw(prompt[None,:8000]), other.raw(prompt[None,:8000]), atol=1e-5)


def test_adaptors_refuse_in_one_sentence(other, tmp_path):
    with pytest.raises(ModelError, match='no weights'): type(other).from_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match='layer is 9'): type(other)(other.model, 9)
