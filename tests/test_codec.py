"What the codec promises: a working start, causality, chunks that join, quiet silence, phases that fit."
import math
import os
import subprocess
import sys

import pytest
import torch

from audiolm_edu.audio import SR, si_sdr, stft
from audiolm_edu.vq import ResidualVQ
from audiolm_edu.codec import SEGMENT, CODEC_PRESETS, FLOOR, Codec, CodecConfig, amplitudes, fold, griffin_lim, istft, klt, mel_logs, overlap_add, unfold
from audiolm_edu.codec_training import (CodecGame, Critics, DecoderGame, SpectrumDiscriminator, SpectrumGame, STFTDiscriminator,
                                        WaveDiscriminator, mel_loss, soundstream_mel_loss, spectral_loss)
from audiolm_edu.corpus import clips
from audiolm_edu.vq import perplexity


@pytest.fixture(scope='module')
def codec(): return Codec.from_pretrained('speech')


@pytest.fixture(scope='module')
def voices(): return {c.speaker: c.audio()[None] for c in clips('speech')}


def test_klt_equals_sklearn():
    from sklearn.decomposition import PCA
    torch.manual_seed(0)
    x = torch.randn(400, 12)@torch.randn(12, 12)+3
    V, mean = klt(x, 5); p = PCA(5).fit(x.numpy())
    torch.testing.assert_close(V.T@V, torch.eye(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(((x-mean)@V).abs(), torch.tensor(p.transform(x.numpy())).abs().float(), atol=2e-3, rtol=1e-3)


def test_stft_equals_torch():
    x = torch.randn(2, 3200)
    ours = amplitudes(x)
    theirs = torch.stft(torch.nn.functional.pad(x, (480,0)), 640, 160, window=torch.hann_window(640), center=False, return_complex=True)
    torch.testing.assert_close(ours, theirs.abs().mT*(4/640), atol=1e-5, rtol=1e-4)


def test_istft_equals_torch():
    x = torch.randn(1, 16000); w = torch.hann_window(640)
    X = torch.stft(x, 640, 160, window=w, return_complex=True)
    theirs = torch.istft(X, 640, 160, window=w, length=16000)
    ours = istft(X.mT, 160)   # frame t is centred in [160t, 160t+160), torch's on 160t: 80 samples apart
    torch.testing.assert_close(ours[:,80:16000], theirs[:,:15920], atol=1e-4, rtol=0)


@pytest.mark.parametrize('rounds,worst', [(16,.2), (32,.15)])
def test_griffin_lim_is_level_with_librosa(voices, rounds, worst):
    "As near to the wanted magnitudes after as many rounds with the same momentum, from other random phases."
    import librosa
    x = voices['asterisk_en'][:,:2*SR]; X = stft(torch.nn.functional.pad(x, (240,240)), 640, 160).abs()
    miss = lambda y: ((stft(torch.nn.functional.pad(y, (240,240)), 640, 160).abs()-X).norm()/X.norm()).item()
    ours = miss(griffin_lim(X, iterations=rounds))
    theirs = librosa.griffinlim(X[0].T.numpy(), n_iter=rounds, hop_length=160, n_fft=640, center=False, momentum=.99, random_state=0)
    theirs = miss(torch.tensor(theirs)[None,240:240+x.shape[1]])
    assert ours < worst and ours < 1.1*theirs, (ours, theirs)


def test_untrained_codec_already_works(voices):
    "Transform and codebooks from three voices, nothing trained; the fourth comes back."
    torch.manual_seed(0); c = Codec(CODEC_PRESETS['tiny']).eval()
    known = torch.cat([x[:,:20*SR] for v,x in voices.items() if v!='asterisk_it'], 1)
    known = known[:,:known.shape[1]//64000*64000].reshape(-1, 64000)
    x = voices['asterisk_it'][:,:4*SR]; silence = mel_loss(x, 0*x)
    assert mel_loss(x, c.fit_codebooks(known).eval().roundtrip(x)) > .5*silence     # random transform
    assert mel_loss(x, c.fit_transform(known).fit_codebooks(known).eval().roundtrip(x)) < .25*silence


def test_every_level_helps(codec, voices):
    for x in voices.values():
        x = x[:,:4*SR]
        z, A = codec.encoder(x[:,:x.shape[1]//640*640]), amplitudes(x[:,:x.shape[1]//640*640])
        with torch.no_grad():
            lost = [spectral_loss(A, codec.decoder.log_amplitudes(codec.rvq.decode(codec.rvq.encode(z)[...,:q]))).item() for q in (1,2,4,8,16,24)]
        assert all(b < .98*a for a,b in zip(lost, lost[1:])), lost


def test_codes_are_used(codec):
    y = torch.cat([codec.encode(c.audio()[None])[0] for c in clips('speech')]); N = codec.config.codes
    chance = 1-(1-1/N)**len(y)   # share seen if all codes were equally likely
    for q in range(codec.config.levels):
        assert len(y[:,q].unique()) > .6*chance*N and perplexity(y[:,q], N) > .2*N, q


@pytest.mark.parametrize('at', [640, 16000, 31999])
def test_tokens_know_no_future(codec, voices, at):
    x = voices['asterisk_en'][:,:3*SR].clone(); y = codec.encode(x); x[:,at:] = torch.randn(x[:,at:].shape)*.3
    z = codec.encode(x)
    assert torch.equal(y[:,:at//640], z[:,:at//640]) and not torch.equal(y, z)


def test_chunks_join(codec):
    x = torch.cat([c.audio() for c in clips('speech')])[None,:(2*SEGMENT+100)*640]
    assert x.shape[1] > 2*SEGMENT*640
    with torch.no_grad():
        y = codec.rvq.encode(codec.encoder(x)); whole = codec.decoder(codec.rvq.decode(y))
    assert (codec.encode(x)==y).float().mean() > .9999    # rounding may decide a tie otherwise
    assert (codec.decode(y)-whole).abs().max() < 1e-4


def test_ten_minutes_in_bounded_memory():
    "Ten minutes need hardly more memory than one: a fresh process for each, its peak as the system counts it."
    code = ('import resource, sys, torch; torch.set_num_threads(1)\n'
            'from audiolm_edu.codec import Codec\n'
            'c = Codec.from_pretrained("speech"); x = .05*torch.randn(1, int(sys.argv[1])*16000, generator=torch.Generator().manual_seed(0))\n'
            'y = c.roundtrip(x); assert y.shape==x.shape and y.isfinite().all()\n'
            'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)')
    peak = lambda s: float(subprocess.run([sys.executable, '-c', code, str(s)], capture_output=True, text=True, check=True, env=os.environ).stdout)
    assert peak(600) < peak(60)+350   # MB; the sound itself is 38, its copies a few times that


@pytest.mark.parametrize('n', [1, 639, 640, 641, 3*SR+17])
def test_any_length(codec, n):
    x = .1*torch.randn(2, n); y = codec.encode(x)
    assert y.shape==(2, math.ceil(n/640), 24) and codec.roundtrip(x).shape==x.shape and codec.roundtrip(x[0]).shape==(n,)


def test_nothing_at_all(codec):
    y = codec.encode(torch.zeros(1, 0))
    assert y.shape==(1,0,24) and codec.decode(y).shape==(1,0)
    assert codec.roundtrip(torch.zeros(0)).shape==(0,) and codec.roundtrip(torch.zeros(1, 0)).shape==(1,0)


def test_silence_and_shouting(codec, voices):
    silent = codec.roundtrip(torch.zeros(1, 2*SR))
    assert 20*math.log10(silent.pow(2).mean().sqrt()+1e-9) < -60
    x = (50*voices['asterisk_en'][:,:3*SR]).clamp(-1, 1); y = codec.roundtrip(x)
    assert y.isfinite().all() and .5 < y.std()/x.std() < 1.5 and y.abs().max() < 4


def test_fold():
    x = torch.randn(2, 12, 5)
    for n in (2,4): assert torch.equal(unfold(fold(x, n), n), x)
    assert torch.equal(fold(x)[0,0], x[0,:2].flatten())


def test_overlap_add_by_hand():
    f = torch.ones(1, 3, 4)   # hop 2: frames at 0..3, 2..5, 4..7, the middle of each kept
    assert overlap_add(f, 2).tolist()==[[1,2,2,2,2,1]]


def test_losses_are_zero_for_equals_and_see_both_sides(voices):
    x = voices['asterisk_en'][:,:SR]; A = amplitudes(x)
    assert spectral_loss(A, (A+FLOOR).log()) < 1e-6 and soundstream_mel_loss(x, x)==0
    for gain in (.5, 2.): assert spectral_loss(A, (gain*A+FLOOR).log()) > 1 and soundstream_mel_loss(x, gain*x) > 1


def test_soundstream_mel_loss_by_hand():
    "Two sounds whose bands differ by a factor e everywhere: the log term alone is sqrt(s/2), averaged over windows."
    torch.manual_seed(0); x = torch.randn(1, 8192)*.1
    log_term = sum((2**i/2)**.5 for i in range(6,12))/6
    for gain in (math.e, 1/math.e): assert abs(soundstream_mel_loss(x, gain*x)/log_term-1) < .01


def test_decoder_game_moves_no_token(voices):
    torch.manual_seed(0); c = Codec(CODEC_PRESETS['tiny']); x = voices['asterisk_en'][:,:16640].reshape(2, -1)[:,:7680]
    c.fit_transform(x).fit_codebooks(x)
    game = DecoderGame(c, Critics(SpectrumDiscriminator(1, 4), SpectrumDiscriminator(2, 4)))
    assert list(game.players)==['codec','critics'] and game.players['codec'][0] is c.decoder
    game.codec_loss(x)[0].backward()
    assert all(p.grad is None for p in c.encoder.parameters())
    assert any(p.grad is not None and p.grad.abs().sum()>0 for p in c.decoder.parameters())
    assert 0 < game.critics_loss(x)[0].item() < 4


def test_waveform_game_trains_soundstream(voices):
    "SoundStream with all its critics: every player gets a gradient, critics none from the codec's turn."
    from audiolm_edu.soundstream import SOUNDSTREAM_PRESETS, SoundStream
    torch.manual_seed(0); c = SoundStream(SOUNDSTREAM_PRESETS['tiny']).train(); x = voices['asterisk_en'][:,:16000].reshape(2, -1)
    critics = Critics(STFTDiscriminator(1024, 4), *[WaveDiscriminator(s, 4) for s in (1,2,4)]); game = CodecGame(c, critics)
    loss, figures = game.codec_loss(x); loss.backward()
    assert set(figures)=={'distance','adversarial','matching'} and loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*c.encoder.parameters(), *c.decoder.parameters()])
    critics.zero_grad(); game.critics_loss(x)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critics.parameters())
    assert not game.pair[1].requires_grad   # the critics' turn does not reach the codec


def test_spectrum_game_reaches_every_part(voices):
    torch.manual_seed(0); c = Codec(CODEC_PRESETS['tiny']).train(); x = voices['asterisk_en'][:,:25600].reshape(2, -1)
    c.fit_transform(x).fit_codebooks(x)
    SpectrumGame(c).codec_loss(x)[0].backward()
    for part in (c.encoder.klt, c.encoder.out[1], c.decoder.klt, c.decoder.up, c.decoder.out[1]):
        assert part.weight.grad.abs().sum() > 0


def test_quality(codec):
    "The figures of the README, by their order of magnitude, on the four voices of the package."
    pystoi = pytest.importorskip('pystoi')
    some = {c.speaker: c.audio()[:5*SR] for c in clips('speech') if c.seconds > 4}
    scores = {q: [pystoi.stoi(x.numpy(), codec.roundtrip(x, q).numpy(), SR) for x in some.values()] for q in (8,24)}
    assert sum(scores[8])/len(some) > .85 and sum(scores[24])/len(some) > .91, scores


@pytest.fixture(scope='module')
def remembering():
    "A small codec that names what changes, fitted and not trained."
    from dataclasses import replace
    c = Codec(replace(CODEC_PRESETS['tiny'], levels=3, codes=128, memory=.8)); x = torch.cat([k.audio()[:3*SR][None] for k in clips('speech') if k.seconds > 3])
    return c.fit_transform(x).fit_codebooks(x).eval()


def test_a_memory_goes_on_across_segments(remembering, monkeypatch):
    "Segments of 2.6 s, the whole at once, and a prompt of it: the same tokens and sound."
    from audiolm_edu import codec as module
    x = torch.cat([c.audio() for c in clips('speech')])[None,:250*640]; y = remembering.encode(x); sound = remembering.decode(y)
    monkeypatch.setattr(module, 'SEGMENT', 64)
    assert (remembering.encode(x)==y).float().mean() > .999 and (remembering.decode(y)-sound).abs().max() < 1e-3
    assert torch.equal(remembering.encode(x[:,:100*640]), y[:,:100])


def test_a_slow_walk_needs_fewer_bits_with_a_memory():
    "Three levels of 32 rows for a walk in 8 dimensions that keeps 95 % of where it was: the error is less than half of that without."
    def walk(n):
        x = [torch.randn(n, 8)]
        for _ in range(99): x.append(.95*x[-1]+.0975**.5*torch.randn(n, 8))
        return torch.stack(x, 1)
    left = {}
    for memory in (0., .9):
        torch.manual_seed(0); rvq = ResidualVQ(3, 32, 8, memory).train()
        for _ in range(60): rvq(walk(8))
        z = walk(20); left[memory] = (rvq.eval()(z)[0]-z)[:,10:].pow(2).mean().item()
    assert left[.9] < .5*left[0.], left


def test_sizes():
    c = CodecConfig()
    assert c.bits_per_second==6000 and c.samples==640 and Codec(c).rvq.levels[0].book.shape==(1024, 96)


def test_fitting_changes_no_shared_filterbank():
    "`mel_filterbank` is cached; whoever changes what it returns changes everybody's."
    from audiolm_edu.audio import mel_filterbank
    before = mel_filterbank(640, 80).clone()
    Codec(CODEC_PRESETS['tiny']).fit_transform(torch.randn(2, 64000))
    assert torch.equal(mel_filterbank(640, 80), before)


def test_bad_use_is_said(codec):
    with pytest.raises(ValueError, match='multiple of 640'): codec.encoder(torch.zeros(1, 1000))
    with pytest.raises(ValueError, match='0 levels'): codec.roundtrip(torch.zeros(1, 1000), 0)


def test_fitting_leaves_the_mode():
    c = Codec(CODEC_PRESETS['tiny']).eval().fit_codebooks(torch.randn(2, 64000))
    assert not c.rvq.training and torch.equal(c.encode(torch.ones(1, 6400)), c.encode(torch.ones(1, 6400)))
