"Codecs of others behind our interface: what they name and speak is what `transformers` itself names and speaks."
import pytest
import torch

from audiolm_edu.adaptors import DacCodec, EncodecCodec, MimiCodec
from audiolm_edu.audio import SR
from audiolm_edu.hub import ModelError

t = pytest.importorskip('transformers')
CLASSES = dict(encodec=EncodecCodec, dac=DacCodec, mimi=MimiCodec)


def small(name):
    torch.manual_seed(0)
    if name=='encodec': m = t.EncodecModel(t.EncodecConfig(sampling_rate=SR, num_filters=4, hidden_size=16, codebook_size=64, codebook_dim=16, num_lstm_layers=1, target_bandwidths=[1.5, 3.]))
    elif name=='dac': m = t.DacModel(t.DacConfig(encoder_hidden_size=8, decoder_hidden_size=64, codebook_size=64, n_codebooks=5, sampling_rate=SR))
    else: m = t.MimiModel(t.MimiConfig(sampling_rate=SR, num_filters=4, hidden_size=32, codebook_size=64, codebook_dim=16, num_quantizers=6, num_hidden_layers=1, num_attention_heads=2,
                                       num_key_value_heads=2, head_dim=16, intermediate_size=32, vector_quantization_hidden_dimension=16, upsample_groups=32))
    for k,b in m.named_buffers():                                          # untrained books are all zeros
        if k.endswith(('codebook.embed', 'codebook.embed_sum')): b.normal_()
    return m.eval()


@pytest.fixture(scope='module', params=CLASSES)
def codec(request): return CLASSES[request.param](small(request.param))


def test_tokens_are_those_of_the_model(codec, prompt):
    hop = codec.hop; x = prompt[None,:30*hop]
    with torch.no_grad():
        theirs = codec.model.encode(x[:,None], **(dict(bandwidth=3.) if isinstance(codec, EncodecCodec) else {})).audio_codes
        theirs = theirs[0] if theirs.ndim==4 else theirs
        sound = (codec.model.decode(theirs[None], [None]) if isinstance(codec, EncodecCodec) else codec.model.decode(audio_codes=theirs)).audio_values
    y = codec.encode(x); assert torch.equal(y, theirs.mT) and y.shape[2]==codec.levels and len(y.unique()) > 8 and y.max() < codec.codes
    assert torch.allclose(codec.decode(y), sound.flatten(1), atol=1e-6)


@pytest.mark.parametrize('samples', [4000, 9_999, 16_001])
def test_any_length_any_levels(codec, prompt, samples):
    x = torch.stack([prompt[:samples], prompt[-samples:]]); hop = codec.hop; y = codec.encode(x)
    assert y.shape==(2, -(-samples//hop), codec.levels) and codec.roundtrip(x).shape==x.shape and codec.roundtrip(x[0]).shape==x[0].shape
    assert codec.decode(y[...,:2]).isfinite().all() and torch.equal(y[1:], codec.encode(x[1:]))
    some = type(codec)(codec.model, 2); assert torch.equal(some.encode(x), y[...,:2]) and some.bits_per_second==codec.bits_per_second*2/codec.levels


def test_at_another_rate(prompt):
    m = t.DacModel(t.DacConfig(encoder_hidden_size=8, decoder_hidden_size=64, codebook_size=64, n_codebooks=3, sampling_rate=24_000)).eval()
    codec = DacCodec(m); x = prompt[None,:SR]; y = codec.encode(x)
    assert y.shape==(1, -(-24_000//512), 3) and codec.roundtrip(x).shape==x.shape


def test_saved_weights(codec, prompt, tmp_path):
    codec.model.save_pretrained(tmp_path); again = type(codec).from_pretrained(str(tmp_path)); x = prompt[None,:8000]
    assert torch.equal(again.encode(x), codec.encode(x))


def test_refusals_are_sentences(codec, tmp_path):
    with pytest.raises(ModelError, match='no weights'): type(codec).from_pretrained(str(tmp_path))
    for n in (99, -1):
        with pytest.raises(ModelError, match=f'levels is {n}'): type(codec)(codec.model, n)
