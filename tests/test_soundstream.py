"The paper's codec: its size, its causality, and that packets give what the whole gives."
import pytest
import torch
import torch.nn.functional as F

from audiolm_edu.hub import save_model
from audiolm_edu.soundstream import (SOUNDSTREAM_PRESETS, CausalConv, CausalUpsample, SoundStream, SoundStreamConfig,
                                     receptive_field, streaming)

TINY = SOUNDSTREAM_PRESETS['tiny']


@pytest.fixture(scope='module')
def codec(): torch.manual_seed(0); return SoundStream(TINY).eval()


@pytest.fixture(scope='module')
def x(): return .1*torch.randn(2, 30*320, generator=torch.manual_seed(1))


def packets(f, x, sizes):
    with torch.no_grad(), streaming(f): return torch.cat([f(p) for p in x.split(sizes, 1)], 1)


@pytest.mark.parametrize('channels, millions', [(32,8.4), (16,2.4)])
def test_parameters_are_the_papers(channels, millions):
    c = SoundStream(SoundStreamConfig(channels, codes=2))
    assert round(sum(p.numel() for p in c.parameters())/1e6, 1)==millions     # codebooks are buffers


def test_papers_rates():
    c = SOUNDSTREAM_PRESETS['paper']
    assert (c.channels, c.levels, c.codes, c.samples, c.frame_rate) == (32, 12, 1024, 320, 50)
    assert c.bits_per_second==pytest.approx(6000)


@pytest.mark.parametrize('kernel, stride, dilation', [(7,1,1), (7,1,9), (4,2,1), (16,8,1), (1,1,1)])
def test_causal_conv_is_torchs(kernel, stride, dilation):
    conv, x = CausalConv(3, 5, kernel, stride, dilation), torch.randn(2,3,80)
    left = (kernel-1)*dilation-(stride-1)
    y = F.conv1d(F.pad(x, (left,0)), conv.weight, conv.bias, stride, dilation=dilation)
    assert y.shape==conv(x).shape==(2,5,80//stride) and torch.allclose(conv(x), y, atol=1e-6)


@pytest.mark.parametrize('stride', [2, 5, 8])
def test_causal_upsample_is_torchs(stride):
    up, x = CausalUpsample(4, 2, stride), torch.randn(2,4,20)
    torch.nn.init.normal_(up.bias)
    y = F.conv_transpose1d(x, up.weight, up.bias, stride)[...,:-stride]
    assert y.shape==up(x).shape==(2,2,20*stride) and torch.allclose(up(x), y, atol=1e-5)


@pytest.mark.parametrize('sizes', [320, 960, 4*320, [320,3200,640,320,10*320,9*320-960]])
def test_encoder_streams(codec, x, sizes):
    with torch.no_grad(): whole = codec.encoder(x)
    assert (packets(codec.encoder, x, sizes)-whole).abs().max() < 1e-5
    with streaming(codec): tokens = torch.cat([codec.encode(p) for p in x.split(sizes, 1)], 1)
    assert torch.equal(tokens, codec.encode(x))


@pytest.mark.parametrize('frames', [1, 3, 7, [1,10,2,1,16]])
def test_decoder_streams(codec, frames):
    z = torch.randn(2, 30, TINY.latent)
    with torch.no_grad(): whole = codec.decoder(z)
    assert (packets(codec.decoder, z, frames)-whole).abs().max() < 1e-5


def test_long_packets():
    "However `Codec` arranges a long recording, a packet goes to the parts as it is."
    torch.manual_seed(0); codec = SoundStream(SoundStreamConfig(4, latent=8, levels=2, codes=16)).eval()
    x = .1*torch.randn(1, 900*320)
    with torch.no_grad(): z = codec.encoder(x); tokens = codec.rvq.encode(z); y = codec.decoder(codec.rvq.decode(tokens))
    with streaming(codec):
        parts = [codec.encode(p) for p in x.split([320, 899*320], 1)]
        sound = [codec.decode(p) for p in parts]
    assert torch.equal(torch.cat(parts, 1), tokens) and (torch.cat(sound, 1)-y).abs().max() < 1e-5


def test_memory_ends_with_the_context(codec, x):
    "A second stream starts from silence, also after an error; outside there is no memory."
    first = packets(codec.encoder, x, 320)
    with pytest.raises(RuntimeError, match='cut'), streaming(codec):
        codec.encode(x); raise RuntimeError('cut')
    assert torch.equal(packets(codec.encoder, x, 320), first)
    assert torch.equal(codec.encode(x), codec.encode(x))
    assert not any('past' in k for k in codec.state_dict())


def test_without_memory_packets_differ(codec, x):
    with torch.no_grad(): apart = torch.cat([codec.encoder(p) for p in x.split(320, 1)], 1)
    assert (apart-codec.encoder(x)).abs().max() > .01


@pytest.mark.parametrize('token', [1, 12, 29])
def test_the_future_changes_nothing(codec, x, token):
    other = x.clone(); other[:,token*320:] += .1*torch.randn_like(x[:,token*320:])
    with torch.no_grad(): z, w = codec.encoder(x), codec.encoder(other)
    assert torch.equal(z[:,:token], w[:,:token]) and (z[:,token]-w[:,token]).abs().max() > 1e-4
    y, v = codec.decoder(z), codec.decoder(torch.cat([z[:,:token], w[:,token:]], 1))
    assert torch.allclose(y[:,:token*320], v[:,:token*320], atol=1e-6)
    assert (y-v)[:,token*320:].abs().max() > 1e-4


def test_receptive_field_is_where_the_gradient_is():
    torch.manual_seed(0); codec = SoundStream(SoundStreamConfig(channels=4, latent=8, codes=4)).double()
    x = torch.randn(1, 20*320, dtype=torch.float64, requires_grad=True)
    codec.encoder(x)[:,18].sum().backward()
    used = x.grad[0].nonzero()[:,0]
    assert used.max()==19*320-1 and used.max()-used.min()+1==receptive_field(codec.encoder)==5314


def test_gradient_reaches_every_weight():
    torch.manual_seed(0); codec = SoundStream(TINY)
    y, tokens, commit = codec(.1*torch.randn(2, 3200))
    (y.abs().mean()+commit).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in codec.parameters())


def test_an_untrained_codec_lets_sound_through(codec, x):
    "The first weights keep the size of what goes through."
    with torch.no_grad(): y = codec.decoder(codec.encoder(x))
    assert .3 < (y[0]-y[1]).std()/(x[0]-x[1]).std() < 10


@pytest.mark.parametrize('samples', [1, 319, 320, 1000])
@pytest.mark.parametrize('levels', [1, 5, 8])
def test_shapes(codec, samples, levels):
    x = torch.randn(2, samples); y = codec.encode(x); T = -(-samples//320)
    assert y.shape==(2,T,8) and y.dtype==torch.int64 and 0 <= y.min() and y.max() < 256
    assert codec.decode(y[...,:levels]).shape==(2, 320*T)
    assert codec.roundtrip(x, levels).shape==x.shape and codec.roundtrip(x[0]).shape==x[0].shape


def test_codebooks_fit():
    torch.manual_seed(0); codec = SoundStream(SoundStreamConfig(8, latent=64, levels=8, codes=16))
    x = .1*torch.randn(4, 32000)
    codec.fit_codebooks(x).eval()
    with torch.no_grad(): z = codec.encoder(x)
    left = lambda q: (z-codec.rvq.decode(codec.encode(x)[...,:q])).pow(2).mean()/z.var()
    assert left(8) < left(3) < left(1) < 1


def test_saved_and_loaded(codec, x, tmp_path):
    save_model(codec, tmp_path, 'codec')
    again = SoundStream.from_pretrained(tmp_path)
    assert again.config.samples==320 and again.encode(x).shape==(2,30,8)


def test_bad_input(codec):
    x = torch.randn(1, 500)
    with pytest.raises(ValueError, match='multiple of 320'): codec(x)
    with pytest.raises(ValueError, match='multiple of 320'), streaming(codec): codec.encode(x)
    with pytest.raises(ValueError, match='levels'): codec.decode(torch.zeros(1,2,9,dtype=torch.long))
    assert codec.encode(x).shape==(1,2,8)      # not streaming: filled up
