"Training by one command: every part of a tiny model from a folder, resumed, interrupted, and with other parts from the package."
import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from audiolm_edu import cli, recipes
from audiolm_edu.audio import SR, AudioError, load_audio, save_audio
from audiolm_edu.audiolm import AudioLM
from audiolm_edu.corpus import clips, held_out, prompt_path
from audiolm_edu.recipes import SIZES, Job, expected, fit, following
from audiolm_edu.training import Trainer


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "Six clips of three speakers, one of them held out."
    root = tmp_path_factory.mktemp('data'); names = list(map(str, range(99)))
    three = [next(n for n in names if held_out(n)), *[n for n in names if not held_out(n)][:2]]
    for i,c in enumerate(clips('speech')[:6]):
        (root/three[i%3]).mkdir(exist_ok=True); save_audio(root/three[i%3]/f'{i}.flac', c.audio()[:6*SR])
    return root


def train(part, data, out, *more): return cli.main(['train', part, '--data', str(data), '--out', str(out), '--preset', 'tiny', '--share', '.0005', *more])


def test_all_parts_from_a_folder(data, tmp_path):
    assert set(cli.PARTS)==set(recipes.PARTS)
    for part in cli.PARTS: assert train(part, data, tmp_path/'m')==0
    lm = AudioLM.from_pretrained(tmp_path/'m')
    assert lm.stages[1].config.width==SIZES['tiny']['stage2']['width'] and lm.stages[1].config.pace > .5 and lm.stages[2].config.pace==4
    take = lm.continue_from(prompt_path(), 1, seed=1); assert take.seconds==4 and take.audio.isfinite().all()
    assert cli.main(['continue', '--model', str(tmp_path/'m'), '--seconds', '1', '-o', str(tmp_path/'c.wav')])==0 and len(load_audio(tmp_path/'c.wav'))==4*SR
    notes = json.loads((tmp_path/'m'/'stage2.json').read_text())['notes']; assert any('valid' in h for h in notes['history'])


def test_one_stage_on_the_package_s_tokens(data, tmp_path):
    assert train('stage3', data, tmp_path)==0
    assert Job([data], tmp_path).part(type(AudioLM.from_pretrained('speech').codec), 'codec').config.codes==1024
    assert not (tmp_path/'codec.json').exists()


def test_held_out_speakers_are_needed(data, tmp_path, capsys):
    only = tmp_path/'data'/'0'; only.mkdir(parents=True); save_audio(only/'a.flac', clips('speech')[0].audio()[:3*SR])
    assert train('codec', tmp_path/'data', tmp_path/'m')==2 and 'another to judge by' in capsys.readouterr().err
    assert train('codec', tmp_path/'nowhere', tmp_path/'m')==2 and not (tmp_path/'m'/'codec.json').exists()


def test_an_interrupted_run_saves_no_model_and_goes_on(data, tmp_path):
    args = [sys.executable, '-c', 'import sys; from audiolm_edu.cli import main; sys.exit(main())', 'train', 'stage3', '--data', data, '--out', tmp_path, '--preset', 'tiny', '--share', '.05']
    p = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while p.poll() is None and not (tmp_path/'work'/'tokens'/'1.11'/'shard-00000.json').exists(): time.sleep(.1)
    time.sleep(3); p.send_signal(signal.SIGINT); out, _ = p.communicate(timeout=60)
    if p.returncode==130: assert 'goes on from here' in out and not (tmp_path/'stage3.json').exists()
    assert subprocess.run(args, capture_output=True).returncode==0 and (tmp_path/'stage3.json').exists()


def test_patience(tmp_path):
    m, values = torch.nn.Linear(1, 1), iter([3., 2., 2.5, 2.2, 2.1, 0.])
    t = Trainer(dict(m=(m, lambda x: (m(x).pow(2).mean(), {}))), lambda i: torch.ones(4,1), tmp_path, 60, valid=lambda: dict(v=next(values)), every=10, best='v', patience=3)
    t.fit(progress=False); assert t.step==50 and t.stale()         # 2.0 at step 20, then three that were worse
    fit(t)                                                         # that is an end, not an interruption


def test_histories(): assert [h['step'] for h in following([dict(step=50), dict(step=100)], [dict(step=50)])]==[50,100,150]


def test_expected_curves():
    for part in set(cli.PARTS)-{'semantic_residual'}: assert expected(part)[-1]['step'] > 100
