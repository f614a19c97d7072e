"Weights in and out: sealed folders, the Hub's protocol on this machine, cards, and what files say of themselves."
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from hub_server import serve

from audiolm_edu import cli
from audiolm_edu.audio import AudioError, load_audio, save_audio
from audiolm_edu.cards import card, push, told_origin
from audiolm_edu.hub import ModelError, load_model, locate, pull, save_model, seal, verify, weights_hash

pytest.importorskip('huggingface_hub')


@pytest.fixture(scope='module')
def hub(tmp_path_factory):
    "A hub on this machine, for this process and those it starts."
    from huggingface_hub import constants
    server, mp = serve(), pytest.MonkeyPatch()
    for k,v in dict(HF_ENDPOINT=server.address, HF_HOME=str(tmp_path_factory.mktemp('hf')), HF_TOKEN='hf_stand_in', HF_HUB_DISABLE_XET='1').items(): mp.setenv(k, v)
    mp.setattr(constants, 'ENDPOINT', server.address); mp.setattr(constants, 'HF_HUB_DISABLE_XET', True)
    mp.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', server.address+'/{repo_id}/resolve/{revision}/{filename}')
    mp.setattr(constants, 'HF_HUB_CACHE', os.environ['HF_HOME']+'/hub')
    yield server
    server.shutdown(); mp.undo()


@pytest.fixture(scope='module')
def sent(hub): return push('speech', 'ann/voice', licence='apache-2.0')


def changed(hub, repo, file, change):
    "The same repository with one file changed, under another name."
    files = dict(list(hub.repos['ann/voice'].values())[-1]); files[file] = change(files[file])
    hub.repos[repo] = {'0'*40: files}


def test_push_is_one_commit_with_card_and_hashes(hub, sent):
    commits, files = list(hub.repos['ann/voice']), list(hub.repos['ann/voice'].values())[-1]
    assert len(commits)==1 and commits[0] in sent and set(hub.tokens)=={'Bearer hf_stand_in'}
    assert {'README.md','hashes.json','stage1.safetensors','stage1.json'} <= files.keys()
    text = files['README.md'].decode()
    assert text.startswith('---\nlibrary_name: audiolm-edu\nlicense: apache-2.0') and "from_pretrained('ann/voice')" in text
    assert weights_hash('speech') in text and 'LibriSpeech' in text and '## Limits' in text and 'ABX within' in text


def test_what_comes_back_is_what_was_sent(hub, sent, tmp_path, capsys):
    folder = pull('ann/voice', weights_hash('speech'))
    assert weights_hash(folder)==weights_hash('speech') and not list(folder.glob('README*'))
    assert pull(f'ann/voice@{next(iter(hub.repos["ann/voice"]))}')==folder==locate('ann/voice')
    run = lambda model, out: cli.main(['continue', '--model', model, '--seconds', '.5', '--seed', '1', '-o', str(tmp_path/out)])
    assert run('ann/voice', 'a.wav')==run('speech', 'b.wav')==0
    assert torch.equal(load_audio(tmp_path/'a.wav'), load_audio(tmp_path/'b.wav'))
    assert cli.main(['pull', 'ann/voice'])==0 and 'all as they were' in capsys.readouterr().out


@pytest.mark.parametrize('file,change,word', [
    ('stage1.safetensors', lambda b: b[:-1]+bytes([b[-1]^1]), 'is not what it was'),
    ('codec.json', lambda b: b+b' ', 'is not what it was'),
    ('hashes.json', lambda b: b'{}', 'is no list of hashes'),
    ('hashes.json', lambda b: json.dumps({k: v for k,v in json.loads(b).items() if k!='stage2.json'}).encode(), 'is not in hashes.json'),
    ('hashes.json', lambda b: json.dumps({**json.loads(b), 'stage9.safetensors': '0'}).encode(), 'is missing')])
def test_one_changed_byte_is_found(hub, sent, file, change, word, request):
    repo = f'eve/{abs(hash(request.node.name))}'; changed(hub, repo, file, change)
    with pytest.raises(ModelError, match=word): pull(repo)
    with pytest.raises(ModelError, match=word): locate(repo)


def test_a_card_is_written_once(hub, sent):
    text = card('ann/voice'); assert text.startswith('---') and text.count('library_name')==text.count('## Parts')==1 and '# ann/voice' in text


def test_the_licence_must_be_said(hub, tmp_path, capsys):
    mine = shutil.copytree(locate('watermark'), tmp_path/'mine')
    assert cli.main(['push', str(mine), 'ann/mine'])==2 and 'say under which licence' in capsys.readouterr().err and 'ann/mine' not in hub.repos
    assert cli.main(['push', str(mine), 'ann/mine', '--licence', 'cc-by-4.0'])==0 and b'license: cc-by-4.0' in list(hub.repos['ann/mine'].values())[-1]['README.md']
    assert cli.main(['card', 'speech'])==0 and 'license: apache-2.0' in capsys.readouterr().out and 'license: other' in card(mine)


def test_another_fingerprint_is_refused(hub, sent):
    with pytest.raises(ModelError, match='has the weights .* not 0123456789ab'): pull('ann/voice', '0123456789ab')


@pytest.mark.parametrize('argv,word', [(['pull', 'ann/nothing'], 'ann/nothing: is no folder here'), (['pull', 'ann/voice@v7'], 'ann/voice@v7'),
                                       (['push', 'speech', 'locked/voice'], 'locked/voice: cannot be written'), (['push', 'nowhere', 'ann/x'], 'nowhere: no such weights'),
                                       (['pull', 'a/b/c'], 'a/b/c'), (['push', 'speech', 'no name'], 'no name')])
def test_what_cannot_be_had_is_one_sentence(hub, argv, word, capsys):
    assert cli.main(argv)==2
    said = capsys.readouterr().err.strip(); assert word in said and '\n' not in said and 'Traceback' not in said


def test_without_a_network_and_without_the_library(tmp_path):
    code = 'import sys; from audiolm_edu.cli import main; sys.exit(main(["continue", "--model", "ann/voice"]))'
    env = {**os.environ, 'HF_ENDPOINT': 'http://127.0.0.1:9', 'HF_HOME': str(tmp_path), 'HF_HUB_DISABLE_XET': '1'}
    run = lambda before='': subprocess.run([sys.executable, '-c', before+code], env=env, cwd=tmp_path, capture_output=True, text=True)
    r = run(); assert r.returncode==2 and 'cannot be fetched from the Hub' in r.stderr and 'Traceback' not in r.stderr
    r = run('import sys; sys.modules["huggingface_hub"] = None\n'); assert r.returncode==2 and "audiolm-edu[hub]" in r.stderr


def test_the_package_s_weights_are_as_they_were(tmp_path, capsys):
    for name in (p.name for p in locate('speech').parent.iterdir()): assert verify(locate(name)) > 2
    mine = shutil.copytree(locate('watermark'), tmp_path/'mine')
    assert cli.main(['doctor', str(mine)])==0
    (mine/'watermark.safetensors').open('ab').write(b'x')
    assert cli.main(['doctor', str(mine)])==2 and 'is not what it was' in capsys.readouterr().err
    seal(mine); assert cli.main(['doctor', str(mine)])==0
    (mine/'hashes.json').unlink(); assert cli.main(['doctor', str(mine)])==2 and 'has no hashes.json' in capsys.readouterr().err


def test_a_card_has_no_figures_of_other_weights(tmp_path):
    mine = shutil.copytree(locate('speech'), tmp_path/'mine')
    assert 'ABX within' in card(mine)
    shutil.copy(locate('piano')/'stage1.safetensors', mine/'stage1.safetensors')
    assert 'ABX within' not in card(mine) and 'of other weights' in card(mine)


def test_every_command_leaves_its_origin(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path); h = weights_hash('speech')
    for line in ('continue -o a.wav --seconds .5 --seed 7', 'generate -o b.mp3 --seconds 1 --seed 8', 'tokens a.wav -o a.safetensors', 'decode a.safetensors -o d.ogg --levels 4',
                 'watermark embed d.ogg -o w.flac --message 12ab', 'detect a.wav --plot v.png'): assert cli.main(line.split()) in (0, 1, 3)
    told = {f: told_origin(f) for f in ('a.wav', 'b.mp3', 'a.safetensors', 'd.ogg', 'w.flac', 'v.png')}
    assert all('audiolm-edu 0.' in t for t in told.values())
    assert 'seed 7' in told['a.wav'] and h in told['a.wav'] and 'seed 8' in told['b.mp3'] and told['a.safetensors'].endswith('of: '+told['a.wav'])
    assert 'levels 4' in told['d.ogg'] and 'marked' in told['w.flac'] and '12ab' in told['w.flac'] and 'seed 7' in told['w.flac']   # three files later
    assert cli.main('tokens a.wav -o a.tok'.split())==cli.main('decode a.tok -o e.wav'.split())==0 and 'decoded' in told_origin('e.wav')   # any name will do
    capsys.readouterr(); assert cli.main(['doctor', *told])==0
    assert capsys.readouterr().out.splitlines()==[f'{f}: {t}' for f,t in told.items()]


def test_what_says_nothing_says_so(tmp_path, capsys):
    save_audio(tmp_path/'mine.wav', torch.zeros(1000)); assert cli.main(['doctor', str(tmp_path/'mine.wav')])==0 and 'says nothing' in capsys.readouterr().out
    for name,content in (('a.png', b'\x89PNG\r\n\x1a\nxx'), ('a.json', b'{'), ('a.safetensors', b'12345678'), ('a.flac', b''), ('a.html', b'\xff\xfe\xff')):
        (tmp_path/name).write_bytes(content)
        with pytest.raises(AudioError, match=name): told_origin(tmp_path/name)
    assert cli.main(['doctor', str(tmp_path/'none.wav'), str(tmp_path/'mine.wav')])==2
    out = capsys.readouterr(); assert 'no such file' in out.err and 'mine.wav' in out.out
    (tmp_path/'list.json').write_text('[1]'); assert told_origin(tmp_path/'list.json')==''
    (tmp_path/'esc.json').write_text(json.dumps(dict(origin='audiolm-edu\n\x1b[2J'))); assert told_origin(tmp_path/'esc.json')=='audiolm-edu[2J'    # no line of its own, no escapes


def test_training_writes_origins(tmp_path):
    from audiolm_edu.training import Trainer
    m = torch.nn.Linear(1, 1)
    Trainer(dict(m=(m, lambda x: (m(x).pow(2).mean(), {}))), lambda i: torch.ones(4,1), tmp_path, 2).fit(progress=False)
    assert told_origin(tmp_path/'checkpoint.safetensors').startswith('checkpoint, audiolm-edu')


def test_a_folder_is_not_the_package(tmp_path, monkeypatch, capsys):
    "A folder called speech, where one stands, neither hides the package's weights nor has their licence."
    shutil.copytree(locate('speech'), tmp_path/'speech'); shutil.copytree(locate('speech'), tmp_path/'m'); monkeypatch.chdir(tmp_path)
    assert locate('speech').parent.name=='weights' and locate('./speech').resolve()==tmp_path/'speech'
    for name in ('m', './speech'):
        with pytest.raises(ModelError, match='say under which licence'): push(name, 'ann/other')


def test_steps_are_also_a_name(tmp_path):
    "A buffer may be called step, in eight bits as in sixteen."
    class Counts(torch.nn.Linear):
        @dataclass
        class Config: width:int=70
        def __init__(self, config): super().__init__(config.width, 3); self.config = config; self.register_buffer('step', torch.ones(2, 2)*7)
    for bits in (16, 8):
        m = Counts(Counts.Config()); save_model(m, tmp_path, 'counts', bits); again = load_model(Counts, tmp_path, 'counts')
        assert torch.equal(again.step, m.step) and (again.weight-m.weight).abs().max() < .01


def test_pushing_without_a_network(tmp_path):
    code = 'import sys; from audiolm_edu.cli import main; sys.exit(main(["push", "speech", "ann/voice"]))'
    env = {**os.environ, 'HF_ENDPOINT': 'http://127.0.0.1:9', 'HF_HOME': str(tmp_path), 'HF_TOKEN': 'hf_stand_in', 'HF_HUB_DISABLE_XET': '1'}
    r = subprocess.run([sys.executable, '-c', code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode==2 and 'cannot be written on the Hub' in r.stderr and 'Traceback' not in r.stderr
