"One thread a process, and small helpers."
import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('MPLBACKEND', 'agg')


import numpy as np
import pytest
import torch

from audiolm_edu.audiolm import AudioLM
from audiolm_edu.audio import load_audio
from audiolm_edu.corpus import prompt_path

torch.set_num_threads(1)

# minutes each; first, so that no process waits for another's last test
SLOW = ('test_runs[19_scale]', 'test_runs[15b_', 'test_runs[07b_', 'test_runs[16_', 'test_tiny_settings', 'test_runs[06', 'test_runs[12_',
        'test_what_a_newcomer_sees', 'test_thirty_submissions')


def pytest_collection_modifyitems(items): items.sort(key=lambda i: not any(s in i.nodeid for s in SLOW))


@pytest.fixture(scope='session')
def lm(): return AudioLM.from_pretrained('speech')


@pytest.fixture(scope='session')
def prompt(): return load_audio(prompt_path())


@pytest.fixture
def voice(prompt):
    "The package's prompt at any rate and number of channels, as float64 (S,channels)."
    from audiolm_edu.audio import resample
    def make(sr=16000, channels=1, seconds=2.):
        x = resample(prompt[:int(16000*seconds)], 16000, sr).double().numpy()
        return np.stack([x]*channels, 1)
    return make
