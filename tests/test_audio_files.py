"Files in: everything usable is used; everything else is one sentence, status 2, and no output file."
import os
import struct

import numpy as np
import pytest
import soundfile as sf
import torch

from audiolm_edu.audio import AudioError, level, load_audio, log_mel, mel_filterbank, save_audio
from audiolm_edu.cli import main
from audiolm_edu.corpus import held_out, read_folder

GOOD = [('wav','PCM_16'), ('wav','PCM_24'), ('wav','PCM_U8'), ('wav','FLOAT'), ('wav','DOUBLE'), ('flac','PCM_16'), ('ogg','VORBIS'), ('mp3','MPEG_LAYER_III')]


@pytest.mark.parametrize('suffix,subtype', GOOD)
@pytest.mark.parametrize('channels', (1,2))
@pytest.mark.parametrize('sr', (8000, 16000, 44100, 48000, 96000))
def test_formats(tmp_path, voice, prompt, suffix, subtype, channels, sr):
    if suffix=='mp3' and sr>48000: pytest.skip('MP3 ends at 48 kHz')
    f = tmp_path/f'x.{suffix}'
    sf.write(f, voice(sr, channels), sr, subtype=subtype)
    x = load_audio(f)
    assert x.ndim==1 and x.dtype==torch.float32
    assert abs(len(x)-32000) < (2500 if suffix=='mp3' else 20)   # MP3 pads its frames
    assert abs(level(x)-level(prompt[:32000])) < 1.5             # as loud as the original


def test_stereo_is_averaged(tmp_path):
    sf.write(tmp_path/'x.wav', np.stack([np.full(1600,.5), np.full(1600,-.1)], 1), 16000, subtype='FLOAT')
    assert torch.allclose(load_audio(tmp_path/'x.wav'), torch.tensor(.2))


def bad_files(d, voice):
    x = voice()
    def write(name, data, sr=16000, **k): sf.write(d/name, data, sr, **k); return d/name
    def cut(name, share=.6):
        f = write(name, x); f.write_bytes(f.read_bytes()[:int(f.stat().st_size*share)]); return f
    (d/'empty.wav').touch(); (d/'text.wav').write_text('dear diary\n'*50); (d/'folder.wav').mkdir()
    nan = x.copy(); nan[500] = np.nan
    inf = x.copy(); inf[7] = np.inf
    return {
        d/'missing.wav': 'no such file', d/'empty.wav': 'empty', d/'text.wav': 'cannot be read as audio', d/'folder.wav': 'folder',
        cut('cut.wav'): 'cut short', cut('cut.ogg'): 'cut short', cut('cut.flac'): '',
        cut('header.wav', .001): '', cut('header.flac', .001): '',
        write('nan.wav', nan, subtype='FLOAT'): 'not numbers', write('inf.wav', inf, subtype='FLOAT'): 'not numbers',
        write('short.wav', x[:1600]): '0.10 s', write('nothing.wav', x[:0]): '0.00 s',
        write('long.flac', np.zeros(3*3600*8000, dtype=np.int16), 8000): '10800 s'}


def test_bad_files(tmp_path, voice, capsys):
    for f, reason in bad_files(tmp_path, voice).items():
        out = tmp_path/'out.wav'
        assert main(['continue', str(f), '-o', str(out)]) == 2, f
        said = capsys.readouterr().err.strip()
        assert f.name in said and reason in said and len(said.splitlines())==1, said
        assert not out.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]   # no half-written file stays


@pytest.mark.parametrize('out,reason', [('x.docx','suffix'), ('nowhere/x.wav','does not exist'), ('x','suffix')])
def test_bad_output(tmp_path, capsys, out, reason):
    assert main(['continue', '-o', str(tmp_path/out)]) == 2
    assert reason in capsys.readouterr().err


def test_prompt_is_not_overwritten(tmp_path, voice, capsys):
    f = tmp_path/'me.wav'; sf.write(f, voice(), 16000); before = f.read_bytes()
    assert main(['continue', str(f), '-o', str(f)]) == 2 and f.read_bytes()==before


@pytest.mark.parametrize('suffix', ('wav','flac','ogg','mp3'))
def test_save(tmp_path, prompt, suffix):
    f = save_audio(tmp_path/f'x.{suffix}', prompt, comment='a note')
    assert abs(len(load_audio(f))-len(prompt)) < 2500
    with pytest.raises(AudioError): save_audio(tmp_path/'no'/'x.wav', prompt)
    assert [p.name for p in tmp_path.iterdir()]==[f.name]


def test_a_pipe_of_sox_is_no_cut_file(tmp_path, voice):
    "SoX writes 0x7ffff000 where it cannot know the length; a file of two gigabytes that is cut is found by its samples."
    f = tmp_path/'x.wav'; sf.write(f, voice(), 16000); whole, raw = load_audio(f), bytearray(f.read_bytes())
    raw[4:8], raw[40:44] = struct.pack('<I', 0x7ffff024), struct.pack('<I', 0x7ffff000); f.write_bytes(raw)
    assert torch.equal(load_audio(f), whole)


def test_names_and_lengths_at_the_edge(tmp_path, voice):
    f = tmp_path/'x.wav'; sf.write(f, voice(), 16000); latin = os.fsencode(tmp_path)+b'/caf\xe9.wav'; os.link(f, latin)
    with pytest.raises(AudioError, match='not UTF-8') as e: load_audio(os.fsdecode(latin))
    str(e.value).encode()                                                            # can be printed
    assert sorted(c.seconds > 0 for c in read_folder(tmp_path))==[False, True]       # one name does not end the reading of a corpus
    assert isinstance(held_out(os.fsdecode(b'caf\xe9')), bool) and held_out('Jos\u00e9')==held_out('Jose\u0301')
    with pytest.raises(AudioError, match='cannot be read'): load_audio(tmp_path/('a'*300))
    (tmp_path/'x.raw').write_bytes(bytes(4000))
    with pytest.raises(AudioError, match='cannot be read as audio'): load_audio(tmp_path/'x.raw')
    with pytest.raises(AudioError, match='unknown suffix'): save_audio(tmp_path/'y.raw', torch.zeros(9))
    sf.write(tmp_path/'one.wav', [.5], 48000)
    with pytest.raises(AudioError, match='less than one sample'): load_audio(tmp_path/'one.wav')


def test_a_loss_after_generating():
    "What is kept from a first use without gradients serves those who need them."
    mel_filterbank.cache_clear(); x = torch.randn(1, 4000, requires_grad=True)
    with torch.inference_mode(): log_mel(torch.randn(1, 4000))
    log_mel(x).sum().backward(); assert x.grad.abs().sum() > 0


def test_where_nothing_can_be_written(tmp_path, capsys):
    (tmp_path/'dir.wav').mkdir(); (tmp_path/'file').touch()
    assert main(['continue', '-o', str(tmp_path/'dir.wav')])==2 and 'is a folder' in capsys.readouterr().err
    assert main(['notebooks', str(tmp_path/'file')])==2 and 'file' in capsys.readouterr().err
    for argv in (['tokenize', 'x', '-o', 'y', '--workers', '0'], ['tokenize', 'x', '-o', 'y', '--speeds', 'nan'], ['decode', 'x', '-o', 'y', '--levels', '0']):
        with pytest.raises(SystemExit) as e: main(argv)
        assert e.value.code==2 and 'is not above 0' in capsys.readouterr().err
