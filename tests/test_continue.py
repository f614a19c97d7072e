"The main job: what `audiolm-edu continue` promises."
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from audiolm_edu.audio import SR, level, load_audio, log_mel
from audiolm_edu.cli import main


@pytest.fixture(scope='module')
def take(lm, prompt): return lm.continue_from(prompt, seconds=4, seed=1)


def same_spectrum(a, b):
    a, b = (log_mel(x[None])[0][:-20].flatten() for x in (a, b))
    return torch.corrcoef(torch.stack([a, b]))[0,1].item()


def test_begins_with_the_prompt(lm, take, prompt):
    n = len(prompt)
    assert same_spectrum(prompt, take.audio[:n]) > .8
    assert same_spectrum(prompt, take.audio[-n:]) < .6            # the measure can tell
    assert torch.equal(take.acoustic[:take.prompt_frames], lm.codec.encode(prompt[None])[0,:,:12])


def test_lasts_what_was_asked(lm, prompt):
    for seconds in (.5, 1.37): assert abs(lm.continue_from(prompt, seconds, seed=0).seconds-3-seconds) <= .04


def test_is_a_sound(take, prompt):
    x = take.audio; new = x[len(prompt):]
    frames = level(new[:len(new)//640*640].view(-1,640))
    assert x.dtype==torch.float32 and x.isfinite().all() and x.abs().max() <= 1
    assert level(new) > -45                                       # not silence
    assert frames.std() > 4                                       # not noise, whose level hardly moves
    mel = log_mel(new[None])[0]
    assert mel.mean(0).std() > .8                                 # nor a flat spectrum


def test_seed(lm, prompt):
    a, b, c = (lm.continue_from(prompt, 1, seed=s).acoustic for s in (5,5,6))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_longer_than_a_window(lm, prompt):
    take = lm.continue_from(prompt[:SR], 11, seed=0)              # 12 s: two windows of stage 2
    assert abs(take.seconds-12) <= .04 and take.acoustic.shape==(300, 12)


def test_modes(lm, prompt):
    assert abs(lm.generate(1.5, seed=0).seconds-1.5) <= .04
    other = lm.resynthesise(prompt, seed=0)
    assert abs(other.seconds-3) <= .04 and other.prompt_frames==0


def test_no_network(tmp_path, monkeypatch, capsys):
    def denied(*a, **k): raise AssertionError('something asked for the network')
    for name in ('socket', 'create_connection', 'getaddrinfo'): monkeypatch.setattr(socket, name, denied)
    assert main(['continue', '-o', str(tmp_path/'c.wav'), '--seconds', '.4', '--seed', '3']) == 0
    said = capsys.readouterr().out
    for word in ('c.wav', '3.40 s', 'real-time factor', 'seed 3', 'weights '): assert word in said
    assert len(load_audio(tmp_path/'c.wav'))==int(3.4*SR)


def test_interrupt_leaves_nothing(tmp_path):
    command = [sys.executable, '-c', 'import sys; from audiolm_edu.cli import main; sys.exit(main())']
    p = subprocess.Popen([*command, 'continue', '-o', 'c.wav', '--seconds', '300'], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))   # a shell's background jobs ignore it
    seen = ''
    while 'token' not in seen: seen += p.stderr.read(1)   # the progress bar: it is writing
    time.sleep(1); p.send_signal(signal.SIGINT)
    assert 'interrupted' in p.communicate(timeout=60)[1] and p.returncode==130 and not list(tmp_path.iterdir())


def test_tokenize_a_folder(tmp_path, capsys):
    "One command: every recording at two speeds; the second run has nothing left to do."
    from audiolm_edu.audio import resample, save_audio
    from audiolm_edu.codec import Codec
    from audiolm_edu.corpus import clips
    from audiolm_edu.tokens import TokenStore
    folder = tmp_path/'speech'/'me'; folder.mkdir(parents=True)
    for i,c in enumerate(clips('speech')[:3]): save_audio(folder/f'{i}.flac', c.audio()[:2*SR])
    run = lambda: main(['tokenize', str(tmp_path/'speech'), '-o', str(tmp_path/'out'), '--speeds', '1', '1.25'])
    assert run()==0; store = TokenStore(tmp_path/'out'/'tokens'); assert sorted(store.frames.tolist())==[40]*3+[50]*3
    fast = TokenStore(tmp_path/'out'/'tokens'/'1.25'); x = resample(load_audio(folder/'2.flac'), 20_000, SR)
    assert torch.equal(fast[2][1], Codec.from_pretrained('speech').encode(x[None])[0])
    before = {p: p.stat().st_mtime_ns for p in (tmp_path/'out').rglob('*.*')}
    assert run()==0 and before=={p: p.stat().st_mtime_ns for p in (tmp_path/'out').rglob('*.*')}
    assert main(['tokenize', str(tmp_path/'nowhere'), '-o', str(tmp_path/'x')])==2 and 'nowhere' in capsys.readouterr().err
