"What is declared, what is shipped, and what a newcomer runs."
import configparser
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import audiolm_edu
from audiolm_edu.cli import main, parser

ROOT = Path(__file__).parent.parent


def settings():
    c = configparser.ConfigParser(delimiters=['=']); c.read(ROOT/'settings.ini'); return c['DEFAULT']


def test_declarations_agree():
    tomllib = pytest.importorskip('tomllib')    # Python 3.11
    project = tomllib.loads((ROOT/'pyproject.toml').read_text())
    assert project['project']['name']==settings()['lib_name']
    assert project['tool']['nbdev']['lib_path']==settings()['lib_name'].replace('-','_')
    assert not {'dependencies','version','description'} & project['project'].keys()     # no fact twice
    assert {'train','hub','eval','course','dev'} <= {k.removesuffix('_requirements') for k in settings() if k.endswith('_requirements')}
    assert re.fullmatch(r'\d+\.\d+\.\d+', audiolm_edu.__version__)
    assert audiolm_edu.__version__ in (ROOT/'CHANGELOG.md').read_text()


def test_readme_commands_exist():
    text, known = (ROOT/'README.md').read_text(), parser()._subparsers._group_actions[0].choices
    used = set(re.findall(r'audiolm-edu ([a-z]+)\b', text))
    assert 'continue' in used and used <= known.keys(), used
    run = (ROOT/'.ci/run').read_text()
    for command in ("pip install -e '.[dev]' && audiolm-edu continue", "pip install -e '.[dev]' && pytest"): assert command in text
    assert "pip install -e '.[dev]' && pytest" in run


def test_readme_is_the_index_notebook():
    import json, runpy
    made = runpy.run_path(str(ROOT/'.ci/readme.py'))['readme'](json.loads((ROOT/'nbs/index.ipynb').read_text())['cells'])
    assert made==((ROOT/'README.md').read_text(), (ROOT/'nbs/continuation.png').read_bytes()), 'run python .ci/readme.py'
    assert len(made[0].splitlines()) < 120
    address = settings()['repository'].removeprefix('https://github.com/')
    assert f'https://colab.research.google.com/github/{address}/blob/main/nbs/00_tour.ipynb' in made[0]


def test_colab_installs_and_others_do_not():
    "One guarded cell, in the notebook that the badge opens."
    import json
    cells = [''.join(c['source']) for p in (ROOT/'nbs').glob('*.ipynb') for c in json.loads(p.read_text())['cells'] if c['cell_type']=='code']
    guard, = [s for s in cells if 'google.colab' in s]
    class Shell:
        def __init__(self): self.calls = []
        def run_line_magic(self, *a): self.calls.append(a)
    for modules,wanted in (({'google.colab': None}, [('pip', 'install -q audiolm-edu')]), ({}, [])):
        shell = Shell(); exec(guard.replace('import sys', ''), dict(get_ipython=lambda: shell, sys=type('sys', (), dict(modules=modules))))
        assert shell.calls==wanted


def test_no_file_names_a_path_of_one_machine():
    files = subprocess.check_output(['git', 'ls-files', '-z'], cwd=ROOT, text=True).split('\0')[:-1]
    own = re.compile(rb'(?<![\w.])(/work/|/root/|/home/(?!user|me\b|you\b)\w|/Users/\w|/tmp/\w|/var/folders/|[A-Z]:\\\\Users)')
    found = {f: m[0] for f in files if not f.endswith(('.safetensors', '.flac', '.npz', '.png', '.npy')) and 'test_package' not in f for m in [own.search((ROOT/f).read_bytes())] if m}
    assert not found, found


def test_import_is_light():
    code = "import time; t=time.time(); import torch; a=time.time(); import audiolm_edu; b=time.time(); print(b-a)"
    assert float(subprocess.check_output([sys.executable, '-c', code])) < 1.


def test_every_clip_is_attributed():
    from audiolm_edu.corpus import clips
    from audiolm_edu.audio import SR
    folder = ROOT/'audiolm_edu/clips'; text = (folder/'ATTRIBUTION.md').read_text()
    assert sum(f.stat().st_size for f in folder.rglob('*')) < 10e6
    listed = {c.path for c in clips()}
    assert listed==set(folder.rglob('*.flac'))
    for c in clips():
        assert c.path.name.split('_')[0]+'_' in text or c.path.stem in text or str(c.path.relative_to(folder)) in text, c.path
        x = c.audio(); assert x.isfinite().all() and .01 < x.abs().max() < 1 and abs(len(x)/SR-c.seconds) < .01


def test_weights_fit_the_wheel():
    megabytes = lambda *names: sum((ROOT/f'audiolm_edu/weights/speech/{n}.safetensors').stat().st_size for n in names)/1e6
    assert megabytes('codec') < 12 and megabytes('semantic') < 12 and megabytes('stage1','stage2','stage3') < 30


def test_notebooks_are_copied_and_signed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('JUPYTER_DATA_DIR', str(tmp_path/'jupyter'))
    import nbformat; from nbformat.sign import NotebookNotary
    assert main(['notebooks', str(tmp_path)])==0
    books = sorted((tmp_path/'audiolm-edu').glob('*.ipynb'))
    assert {b.name for b in books}=={b.name for b in (ROOT/'nbs').glob('*.ipynb')}
    notary = NotebookNotary()
    assert all(notary.check_signature(nbformat.read(b, 4)) for b in books)
    books[0].write_text(books[0].read_text().replace('hear it first', 'my notes')); mine = books[0].read_text()
    assert main(['notebooks', str(tmp_path)])==0 and books[0].read_text()==mine and 'kept' in capsys.readouterr().out


def test_doctor(capsys):
    assert main(['doctor'])==0
    assert 'MEND' not in capsys.readouterr().out


def test_wheel_works_without_checkout(tmp_path):
    "Build sdist and wheel, install the wheel into an empty environment, and continue from there."
    subprocess.run([sys.executable, '-m', 'build', '-o', tmp_path/'dist', ROOT], check=True, capture_output=True)
    wheel, = (tmp_path/'dist').glob('*.whl'); sdist, = (tmp_path/'dist').glob('*.tar.gz')
    assert wheel.stat().st_size < 100e6 and sdist.stat().st_size < 100e6
    names = zipfile.ZipFile(wheel).namelist()
    for part in ('clips/ATTRIBUTION.md', 'weights/speech/stage3.safetensors', 'steinway/bach.mid', 'notebooks/00_tour.ipynb'): assert f'audiolm_edu/{part}' in names
    assert 'audiolm_edu/weights/piano/stage2.safetensors' in names and not [n for n in names if n.startswith(('tests','nbs')) or 'baselines' in n]
    venv.create(tmp_path/'env', with_pip=True)
    python = tmp_path/'env/bin/python'
    site = subprocess.check_output([python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'], text=True).strip()
    import numpy
    subprocess.run([python, '-m', 'pip', 'install', '-q', '--no-deps', wheel], check=True)
    (Path(site)/'dependencies.pth').write_text(str(Path(numpy.__file__).parent.parent))    # what pip has downloaded already
    out = subprocess.check_output([tmp_path/'env/bin/audiolm-edu', 'continue', '--seconds', '1'], cwd=tmp_path, text=True)
    assert 'continuation.wav' in out and (tmp_path/'continuation.wav').exists()
    where = subprocess.check_output([python, '-c', 'import audiolm_edu; print(audiolm_edu.__file__)'], cwd=tmp_path, text=True)
    assert str(tmp_path) in where
