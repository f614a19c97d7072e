"The network that names voices, and the table that is made with it."
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from audiolm_edu import speakers
from audiolm_edu.audio import SR, AudioError, save_audio
from audiolm_edu.corpus import Clip, Waveforms, held_out, pack, read_folder
from audiolm_edu.hub import load_model, save_model
from audiolm_edu.speakers import CropCNN, CropConfig, divide, windows


def cnn(*names, width=4):
    torch.manual_seed(0)
    m = CropCNN(CropConfig(names or ('a','b','c'), width))
    with torch.no_grad():            # batch norms that have heard something: now it minds what it hears
        for _ in range(30): m(torch.cat([torch.randn(4, SR), torch.randn(4, SR).cumsum(-1)]))
    m.name.weight.data *= 20
    return m.eval()


class Codec:
    "Halves its sound: what went through it can be told."
    def roundtrip(self, x, levels=None): return x/2


def noise(speaker, seconds, seed):
    "A voice: noise with a colour of its own."
    x = torch.randn(int(seconds*SR), generator=torch.Generator().manual_seed(seed))
    return .1*(x[1:]-x[:-1] if speaker=='bright' else x[1:]+x[:-1])


@pytest.fixture(scope='module')
def voices(tmp_path_factory):
    "Two speakers of coloured noise, three recordings each."
    root = tmp_path_factory.mktemp('voices')
    for s in ('bright', 'dark'):
        (root/s).mkdir()
        for i in range(3): save_audio(root/s/f'{i}.wav', noise(s, 5+i, i+10*(s=='dark')))
    return read_folder(root)


# the network

def test_is_the_paper_s():
    m = CropCNN(CropConfig(tuple(range(291))))
    convs = [l for l in m.blocks if isinstance(l, nn.Conv2d)]
    assert [c.kernel_size for c in convs]==[(3,1),(1,3)]*6
    assert [c.out_channels for c in convs]==[c for c in (64,128,256,256,512,512) for _ in '12']
    kinds = [type(l).__name__ for l in m.blocks]
    assert kinds.count('ReLU')==kinds.count('BatchNorm2d')==12
    after = [sum(k=='Conv2d' for k in kinds[:i]) for i,k in enumerate(kinds) if k=='MaxPool2d']
    assert after==[2,4,8]                                    # before blocks 2, 3 and 5
    C = (64,128,256,256,512,512)
    assert sum(p.numel() for p in m.parameters())==sum(3*a*c+3*c*c+6*c for a,c in zip((1,*C), C))+513*291


def test_shapes():
    m = cnn()
    assert m(torch.randn(2, SR)).shape==(2,3)
    assert m.blocks(torch.randn(2,1,100,64)).shape==(2,32,12,8)
    assert speakers.picture(torch.randn(2, SR)).shape==(2,100,64)


def test_level_is_nothing():
    m, x = cnn(), torch.randn(1, SR)
    assert torch.allclose(speakers.picture(x), speakers.picture(x/1000), atol=1e-4)
    assert torch.allclose(m(x).softmax(-1), m(x/1000).softmax(-1), atol=1e-2)
    assert m(torch.zeros(1, SR)).isfinite().all()


def test_first_block_sees_three_by_three():
    m = cnn(); first = m.blocks[:6]
    x = torch.randn(1,1,20,20); y = x.clone(); y[0,0,10,10] += 5
    changed = (first(x)!=first(y)).any(1)[0].nonzero()
    assert changed.min(0).values.tolist()==[9,9] and changed.max(0).values.tolist()==[11,11]


def test_survives_a_file(tmp_path):
    m, x = cnn(), torch.randn(2*SR)
    save_model(m, tmp_path, 'speakers'); again = load_model(CropCNN, tmp_path, 'speakers')
    assert tuple(again.config.classes)==m.config.classes
    assert torch.allclose(m.probabilities(x), again.probabilities(x), atol=.05)


# windows

def test_windows_by_hand():
    w = windows(torch.arange(2.5*SR))
    assert w.shape==(7,SR) and w[:,0].tolist()==[i*SR/4 for i in range(7)]
    assert windows(torch.ones(SR-1)).shape==(1,SR) and windows(torch.ones(SR-1))[0,-1]==0
    assert len(windows(torch.ones(SR)))==len(windows(torch.ones(SR+SR//4-1)))==1


def test_answer_is_the_mean_over_windows():
    m, x = cnn(), torch.cat([torch.randn(SR), torch.randn(SR//2).cumsum(-1)/30])
    each = [m(x[None,a:a+SR]).softmax(-1)[0] for a in (0,4000,8000)]
    assert (each[0]-each[2]).abs().max() > .1           # or the mean would prove nothing
    by_hand = sum(each)/3
    p = m.probabilities(x)
    assert torch.allclose(p, by_hand, atol=1e-4) and p.sum().item()==pytest.approx(1)
    assert m.answer(x)=='abc'[by_hand.argmax()]


# who trains, who is asked

def clip(path, speaker, seconds): return Clip(Path(path), speaker, seconds)


def test_no_second_is_on_both_sides():
    clips = [clip(f'{s}{i}', s, 3+i) for s,n in (('a',5),('b',2),('c',1)) for i in range(n)]
    for tests in (1,2,4):
        train, test = divide(clips, tests)
        spans = lambda side: {(c.path, getattr(c, 'start', 0.), c.seconds) for c in side}
        assert not spans(train)&spans(test)
        whole = {c.path for c in train if not isinstance(c, speakers.Stretch)}
        assert not whole&{c.path for c in test}
        assert {c.speaker for c in train}=={c.speaker for c in test}=={'a','b','c'}
        assert sum(c.seconds for c in train+test)==sum(c.seconds for c in clips)


def test_one_recording_is_halved(tmp_path):
    x = torch.rand(4*SR)-.5
    save_audio(tmp_path/'x.wav', x); (b,), (a,) = divide([clip(tmp_path/'x.wav', 'a', 4.)])
    assert (a.start, b.start)==(0, 2) and torch.equal(torch.cat([a.audio(), b.audio()]), clip(tmp_path/'x.wav', 'a', 4.).audio())


def test_long_speakers_are_thinned_out():
    train, test = divide([clip(f'{i:03d}', 'a', 3.) for i in range(100)], most=20)
    assert len(train)==20 and len(test)==1


def test_batches(voices, tmp_path):
    names = ['dark','bright']; store = pack(voices[:4], tmp_path/'p')         # three bright ones, one dark
    crops = speakers.NamedCrops(store, names, 64)
    (x, y), (x2, y2) = crops(7), speakers.NamedCrops(store, names, 64)(7)
    assert torch.equal(x, x2) and torch.equal(y, y2) and not torch.equal(x, crops(8)[0])
    assert x.shape==(64,SR) and y.shape==(64,)
    bright = (x[:,1:]-x[:,:-1]).pow(2).mean(1) > x.pow(2).mean(1)*2
    assert torch.equal(bright.long(), y)                                      # labels belong to their sounds
    share = torch.cat([crops(i)[1] for i in range(30)]).float().mean()
    assert .45 < share < .55                                                  # not three quarters


# training

def test_learns_and_resumes(voices, tmp_path):
    m = speakers.train_speakers(voices, tmp_path, steps=60, width=4, codec=Codec())
    train, test = divide(voices)
    assert list(m.config.classes)==['bright','dark'] and not m.training
    assert all(m.answer(c.audio())==c.speaker for c in test)
    store = Waveforms(tmp_path/'packed')
    assert {c.path for c in store.clips}=={c.path for c in train} and not {c.path for c in test}&{c.path for c in store.clips}
    assert torch.allclose(store[0], train[0].audio()/2, atol=1e-4)            # through the codec
    again = speakers.train_speakers(voices, tmp_path, steps=60, width=4, codec=None)   # nothing left to do
    assert torch.equal(m.name.weight, again.name.weight)
    again = load_model(CropCNN, tmp_path, 'speakers')
    assert all(again.answer(c.audio())==c.speaker for c in test)


# the table

class LM:
    "Goes on in the prompt's last sample; says what it is given in another voice."
    codec = Codec()

    class Take:
        def __init__(self, audio): self.audio = audio

    def continue_from(self, prompts, seconds, seeds):
        self.prompts, self.seeds = prompts, seeds
        return [self.Take(torch.cat([p, p[-1:].repeat(round(seconds*SR))])) for p in prompts]

    def resynthesise(self, sounds, seeds): return [self.Take(torch.zeros(len(x))) for x in sounds]


class Listener:
    "Knows people by their level."
    config = CropConfig(('0','1','2'))
    def answer(self, x): return f'{int(x.mean().item()*5+.1)}'


class Said(Clip):
    def audio(self): return torch.full((int(self.seconds*SR),), int(self.speaker)/5)


def test_sounds():
    lm, tests = LM(), [Said('x', '1', 6.), Said('x', '2', 3.5), Said('x', '2', 30.)]
    said, sounds = speakers.speaker_sounds(lm, tests, takes=2)
    assert said==['1','1','2','2'] and [len(x)/SR for x in lm.prompts]==[3]*4 and lm.seeds==[0,1,2,3]
    assert [len(x)/SR for x in sounds['codec']]==[3,3,7,7]                    # after the prompt, as long as the continuation
    assert [len(x)/SR for x in sounds['continuation']]==[7]*4
    assert [len(x)/SR for x in sounds['generation']]==[6,6,10,10]
    with pytest.raises(AudioError, match='longer than 4 s'): speakers.speaker_sounds(lm, tests[1:2])


def test_table():
    tests = [Said('x', s, 8.) for s in '012']
    rows = speakers.speaker_table(LM(), Listener(), tests, who=lambda s: True)
    assert [r['row'] for r in rows]==['codec','generation','continuation']
    codec, generation, continuation = rows
    assert continuation['heard']==continuation['said']==['0','1','2'] and continuation['right']==continuation['low']==1
    assert generation['heard']==['0']*3 and generation['right']==pytest.approx(1/3)
    assert codec['heard']==['0','0','1']                                      # halved by its codec: .4 is .2
    assert all(r['chance']==1/3 and r['people']==3 for r in rows)


def test_only_held_out_people_are_asked():
    unseen = next(n for n in map(str, range(300)) if held_out(n))
    seen = next(n for n in map(str, range(300)) if not held_out(n))
    rows = speakers.speaker_table(LM(), Listener(), [Said('x', s, 8.) for s in (seen, unseen)])
    assert all(r['said']==[unseen] and r['people']==1 for r in rows)


def test_interval():
    assert speakers.people_interval(['a','a','a','b'], [1,1,1,0])[0]==.5       # people, not sounds
    mean, low, high = speakers.people_interval([str(i) for i in range(50)], [i<40 for i in range(50)])
    assert mean==.8 and .66 < low < .72 and .88 < high < .93
