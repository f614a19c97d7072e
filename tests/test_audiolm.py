"AudioLM: a take in a batch is that take alone, a stream is the whole, and every option reaches every stage."
import numpy as np
import pytest
import torch
from torch import nn

from audiolm_edu.audio import SR, AudioError, log_mel
from audiolm_edu.audiolm import AudioLM
from audiolm_edu.cli import main
from audiolm_edu.coarse_stage import COARSE, coarse_config
from audiolm_edu.fine_stage import CHUNK, LEVELS, fine_config
from audiolm_edu.semantic_stage import semantic_config
from audiolm_edu.transformer import Decoder, TokenLM

SIZES = dict(width=32, layers=2, heads=2)


@pytest.fixture(scope='module')
def tiny(lm):
    "The package's tokenizers, stages that were never trained, and windows of 2 s: many windows in little time."
    torch.manual_seed(0); K, N = lm.semantic.config.clusters, lm.codec.config.codes
    configs = semantic_config(K, **SIZES), coarse_config(K, N, **SIZES), fine_config(LEVELS, N, **SIZES)
    tiny = AudioLM(lm.codec, lm.semantic, [TokenLM(c).eval() for c in configs]); tiny.window, tiny.context = 50, 20
    for s in tiny.stages: nn.init.normal_(s.bias.weight)
    return tiny


@pytest.fixture(scope='module')
def prompts(prompt): return [prompt, prompt[:int(.6*SR)], prompt[SR//2:2*SR]]


def same(a, b):
    assert a.seed==b.seed and a.prompt_frames==b.prompt_frames and torch.equal(a.plan, b.plan)
    assert torch.equal(a.acoustic, b.acoustic) and torch.equal(a.semantic, b.semantic)
    assert torch.allclose(a.audio, b.audio, atol=1e-4)


def collect(stream):
    pieces = []
    while True:
        try: pieces.append(next(stream))
        except StopIteration as end: return pieces, end.value


def test_batch_is_each_alone(tiny, prompts):
    "Prompts of three lengths, so windows of different lengths."
    for t,p,s in zip(tiny.continue_from(prompts, 5, seed=7), prompts, (7,8,9)): same(t, tiny.continue_from(p, 5, seed=s))
    for t,p,s in zip(tiny.resynthesise(prompts, seed=[3,1,2]), prompts, (3,1,2)): same(t, tiny.resynthesise(p, seed=s))
    for t,s in zip(tiny.generate(3, seed=[5,1]), (5,1)): same(t, tiny.generate(3, seed=s))
    for t,s in zip(tiny.continue_from(prompts[0], 1, seed=(4,2)), (4,2)): same(t, tiny.continue_from(prompts[0], 1, seed=s))


def test_batch_is_each_alone_with_the_trained_stages(lm, prompts):
    for t,p,s in zip(lm.continue_from(prompts, 2, seed=0), prompts, range(3)): same(t, lm.continue_from(p, 2, seed=s))


def test_batches_of_one_and_none(tiny, prompts):
    take, = tiny.continue_from(prompts[:1], .4, seed=3); same(take, tiny.continue_from(prompts[0], .4, seed=3))
    assert tiny.continue_from([], 1)==[]
    same(tiny.continue_from(prompts[0], .4, seed=3), tiny.continue_from(prompts[0], .4, seed=np.int64(3)))      # whatever holds the number
    with pytest.raises(AudioError, match='a whole number'): tiny.continue_from(prompts[0], .4, seed=.5)
    a, b = tiny.continue_from(prompts[:2], .4); assert b.seed==a.seed+1        # a drawn seed is kept


@pytest.mark.parametrize('seconds', [.04, 2.96, 3, 3.04, 9])
@pytest.mark.parametrize('n', [0,1])
def test_stream_is_the_whole(tiny, prompts, seconds, n):
    "Same tokens, same length; the measure for the joints: largest difference of the log-mel spectrograms (1 dB is .23)."
    whole = tiny.continue_from(prompts[n], seconds, seed=2); new = whole.audio[whole.prompt_frames*640:]
    pieces, take = collect(tiny.stream(prompts[n], seconds, seed=2)); sound = torch.cat(pieces)
    same(take, whole); assert sound.shape==new.shape and len(pieces)==-(-len(new)//(CHUNK*640))
    assert sound.dtype==torch.float32 and sound.abs().max() <= 1
    assert (log_mel(sound[None])-log_mel(new[None])).abs().max() < .01


def test_the_measure_hears_a_joint(tiny, prompts):
    "Pieces decoded without what stands around them do not pass."
    y = tiny.continue_from(prompts[0], 6, seed=2).acoustic[None]; whole = tiny.codec.decode(y)
    cut = torch.cat([tiny.codec.decode(p) for p in y.split(CHUNK, 1)], 1)
    assert (log_mel(cut)-log_mel(whole)).abs().max() > .23


def test_stream_comes_before_the_end(lm, prompt, monkeypatch):
    "The first piece is there before half of the tokens are; the last needs them all."
    written, read = [], Decoder.read
    monkeypatch.setattr(Decoder, 'read', lambda self, ids: (written.append(1), read(self, ids))[1])
    stream, at, sound = lm.stream(prompt, 7, seed=1), [], []
    for piece in stream: at.append(len(written)); sound.append(len(piece)/SR)
    assert at[0] < .5*at[-1] and sound[0] > 2 and at[-1]==7*25*(LEVELS+1)


def test_limits_reach_every_stage(tiny, prompt):
    "Whatever allows one token only makes a stage deaf to the seed; the stages without it still hear it."
    def pair(**how): return [tiny.continue_from(prompt, .8, seed=s, drawn=LEVELS, **how) for s in (1,2)]
    for how,free in ((dict(temperature=0), .7), (dict(top_k=1), None), (dict(top_p=1e-9), None)):
        (name, one), = how.items()
        if name!='temperature': how = dict(temperature=.7)
        a, b = pair(**how | {name: (one,free,free)})
        assert torch.equal(a.plan, b.plan) and not torch.equal(a.acoustic, b.acoustic)
        a, b = pair(**how | {name: (one,one,free)})
        assert torch.equal(a.acoustic[:,:COARSE], b.acoustic[:,:COARSE]) and not torch.equal(a.acoustic, b.acoustic)
        a, b = pair(**how | {name: (free,one,one)}); assert not torch.equal(a.plan, b.plan)
        for value in (one, (one,one,one)):
            a, b = pair(**how | {name: value}); assert torch.equal(a.acoustic, b.acoustic)


def test_what_is_not_drawn_does_not_hear_the_seed(tiny, prompt):
    plan = dict(temperature=(0,1.,1.))
    for drawn in (0, 2, COARSE, 7, LEVELS):
        a, b = (tiny.continue_from(prompt, .8, seed=s, drawn=drawn, **plan) for s in (1,2))
        assert a.drawn==drawn and torch.equal(a.acoustic, b.acoustic)==(drawn==0)
        first = a.acoustic[75] != b.acoustic[75]                                 # the first new frame
        if drawn in (0, COARSE): assert first[:drawn].any()==(drawn > 0)
        if drawn==COARSE:
            books = [l.book for l in tiny.codec.rvq.levels[COARSE:LEVELS]]
            from audiolm_edu.fine_stage import refine
            from audiolm_edu.sampling import LeastRisk
            fine, = refine(tiny.stages[2], [a.acoustic[75:,:COARSE]], LeastRisk(books)); assert torch.equal(fine, a.acoustic[75:,COARSE:])


def test_least_risk_has_the_least_risk():
    "Of all codes, none has a smaller expected squared distance to a code drawn from the distribution."
    from audiolm_edu.sampling import LeastRisk
    g = torch.Generator().manual_seed(0); book, logits = torch.randn(40, 6, generator=g), 2*torch.randn(30, 40, generator=g)
    risk = logits.softmax(-1)@torch.cdist(book, book).square()                   # (30,40): of taking each code
    assert torch.equal(LeastRisk([book])(logits, 0), risk.argmin(-1))


def test_words_in_another_voice(tiny, prompt):
    voice = prompt.flip(0)[:2*SR]; take = tiny.resynthesise(prompt, seed=1, voice=voice)
    assert take.prompt_frames==50 and torch.equal(take.acoustic[:50], tiny.tokens(voice)[0]) and take.acoustic.shape==(125,LEVELS)
    assert not torch.equal(take.acoustic[50:], tiny.resynthesise(prompt, seed=1).acoustic)


@pytest.mark.parametrize('how', [dict(temperature=0), dict(top_k=1), dict(top_p=1e-9)])
def test_limits_reach_every_mode(tiny, prompt, how):
    modes = dict(generate=lambda s: tiny.generate(.8, s, **how), resynthesise=lambda s: tiny.resynthesise(prompt[:SR], s, **how),
                 stream=lambda s: collect(tiny.stream(prompt, .8, s, **how))[1])
    for mode in modes.values():
        a, b = mode(1), mode(2); assert torch.equal(a.acoustic, b.acoustic)
        (name, value), = how.items(); assert getattr(a, name)==(value,)*3


def test_a_take_can_be_made_again(tiny, prompt):
    a = tiny.continue_from(prompt, 1, temperature=(.5,.9,.7), top_k=(None,50,9), top_p=.95)
    assert (a.temperature, a.top_k, a.top_p, a.weights, a.sr)==((.5,.9,.7), (None,50,9), (.95,)*3, 'random', SR)
    same(a, tiny.continue_from(prompt, 1, seed=a.seed, temperature=a.temperature, top_k=a.top_k, top_p=a.top_p))


def test_shapes(tiny, prompt):
    for take,T in ((tiny.continue_from(prompt, 1), 100), (tiny.generate(1), 25), (tiny.resynthesise(prompt), 75)):
        assert take.semantic.shape==(T,) and take.acoustic.shape==(T,LEVELS) and take.audio.shape==(T*640,)
        assert take.audio.dtype==torch.float32 and take.audio.abs().max() <= 1


def test_resynthesis_keeps_the_words(tiny, prompt):
    z = tiny.semantic.encode(prompt[None])[0]
    assert torch.equal(tiny.resynthesise(prompt, seed=0).plan, z)


@pytest.mark.parametrize('how,words', [
    (dict(seed=-1), 'seed is -1'), (dict(seed=[0,2**63]), 'from 0 to 2\\^63-1'), (dict(seconds=0), 'above 0 and at most 600'),
    (dict(temperature=(.6,.8)), 'one number or three'), (dict(temperature=-.1), 'none below 0'), (dict(top_k=-3), 'top_k is -3'),
    (dict(top_p=(.9,.9,float('nan'))), 'top_p is')])
def test_bad_options_are_one_sentence(tiny, prompt, how, words):
    with pytest.raises(AudioError, match=words): tiny.continue_from(prompt, **how)
    if how.get('seed')!=[0,2**63]:
        with pytest.raises(AudioError, match=words): next(tiny.stream(prompt, **how))


def test_bad_batches_are_one_sentence(tiny, prompt):
    with pytest.raises(AudioError, match='3 seeds for 2 prompts'): tiny.continue_from([prompt]*2, seed=[1,2,3])
    with pytest.raises(AudioError, match='lasts 0.01 s'): tiny.continue_from([prompt, prompt[:160]])


def test_command_line_passes_the_limits(tmp_path, capsys):
    for seed in '12': assert main(['continue', '-o', str(tmp_path/f'{seed}.wav'), '--seconds', '.4', '--seed', seed, '--top-k', '1'])==0
    assert (tmp_path/'1.wav').stat().st_size==(tmp_path/'2.wav').stat().st_size
    from audiolm_edu.audio import load_audio
    assert torch.equal(load_audio(tmp_path/'1.wav'), load_audio(tmp_path/'2.wav'))
    assert main(['generate', '-o', str(tmp_path/'3.wav'), '--top-p', '-1'])==2
    assert 'top_p is -1.0' in capsys.readouterr().err and not (tmp_path/'3.wav').exists()
