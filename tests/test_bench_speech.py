"The benchmark of the trained model, with listeners whose answers are known."
import numpy as np
import pytest
import torch

from audiolm_edu import bench, bench_speech
from audiolm_edu.audio import SR, AudioError, save_audio
from audiolm_edu.corpus import Clip, held_out

UNSEEN = [n for n in map(str, range(300)) if held_out(n)]
SEEN = [n for n in map(str, range(300)) if not held_out(n)]


class Models:
    "An `AudioLM` whose continuations are known: the prompt's last sample, held."
    class codec:
        @staticmethod
        def roundtrip(x, levels=None): return x

    class Take:
        def __init__(self, audio): self.audio = audio

    def continue_from(self, prompts, seconds, seeds):
        return [self.Take(torch.cat([p, p[-1:].repeat(round(seconds*SR))])) for p in prompts]

    def resynthesise(self, prompts, seeds): return [self.Take(torch.zeros(len(p))) for p in prompts]


@pytest.fixture
def folder(tmp_path):
    "Six speakers, two to train on; every sound is a constant of its own."
    for n,(speaker,level) in enumerate(zip(UNSEEN[:4]+SEEN[:2], np.linspace(.1, .6, 6))):
        d = tmp_path/speaker; d.mkdir(); save_audio(d/'a.wav', torch.full((6*SR,), float(level)))
    return tmp_path


def test_words():
    wer = bench_speech.word_errors
    assert wer(['a b c d'], ['a b c d'])==0 and wer(['a b c d'], ['a b d'])==.25 and wer(['a b c d'], [''])==1
    assert wer(['a b', 'c d e f'], ['a b', 'x d e f'])==1/6                    # long clips count more


def test_voice_follows_the_prompt(folder):
    level = lambda x: np.array([np.cos(float(x.mean())), np.sin(float(x.mean()))])  # a unit vector for each level
    clips = bench_speech.usable(folder); r = bench_speech.voice_rows(Models(), clips, level, lambda x: float(x.mean()))
    assert r['speakers']==4                                                   # those to train on are left out
    assert r['real']['own_wins']==r['continued']['own_wins']==1. and r['unprompted']['own_wins']==0.
    assert r['real']['mos']==pytest.approx(np.linspace(.1, .6, 6)[:4].mean(), abs=1e-3) and r['unprompted']['mos']==0


def test_words_are_of_held_out_clips(monkeypatch):
    class Said(Clip):
        def audio(self): return torch.full((int(self.seconds*SR),), .5)
    clip = lambda speaker, seconds, text: Said('x', speaker, seconds, text, 'speech')
    clips = [clip(UNSEEN[0], 4, 'red cat'), clip(SEEN[0], 4, 'red cat'), clip(UNSEEN[1], 40, 'red cat'), clip(UNSEEN[1], 4, '')]
    r = bench_speech.word_rows(Models(), clips, lambda x: 'red cat' if x.any() else 'red')
    assert r==dict(clips=1, original=0., codec=0., generated=.5)


def test_domain():
    known = bench_speech.vocabulary(['i want a latte']*5+['i want a train']*4)
    assert known=={'i','want','a','latte'}
    share = [bench_speech.in_domain(t, known) for t in ('I want a latte.', 'i want a train', 'latte', '', ' '.join(['a']*9+['train']))]
    assert share==[True, False, False, False, True]


def test_spread(): assert bench_speech.spread([1,2,3], 5)==[1,2,3] and bench_speech.spread(list(range(10)), 3)==[0,3,6]


def test_errors(folder, monkeypatch, capsys):
    assert bench.main(['speech', 'nowhere'])==2 and 'nowhere' in capsys.readouterr().err
    for s in UNSEEN[1:4]: (folder/s/'a.wav').unlink()
    with pytest.raises(AudioError, match='two held-out speakers'): bench_speech.usable(folder)
    def gone(): raise ImportError('no listener')
    monkeypatch.setattr(bench_speech, 'recogniser', gone)
    with pytest.raises(AudioError, match='install the listeners'): bench_speech.listeners()
