"Every notebook as a newcomer first sees it in JupyterLab, and the tour up to its first sound."
import os
import subprocess
import sys
import time

import pytest

from audiolm_edu.cli import notebooks_dir
from browser import a_lab, needs_browser

NAMES = sorted(p.name for p in notebooks_dir().glob('*.ipynb'))


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "The notebooks as `audiolm-edu notebooks` copies and signs them."
    needs_browser(); root = tmp_path_factory.mktemp('lab')
    env = dict(os.environ, JUPYTER_DATA_DIR=str(root/'.home'/'data'))
    subprocess.run([sys.executable, '-c', f'from audiolm_edu.cli import main; main(["notebooks", {str(root)!r}])'], env=env, check=True)
    with a_lab(root) as lab: yield lab


def test_the_first_sound_of_the_tour(lab):
    "From opening the page to a continuation that plays: less than a minute on two cores, two beside another test."
    lab.outside.clear(); lab.errors.clear(); start = time.monotonic(); page = lab.page
    page.goto(f'{lab.url}/lab/tree/audiolm-edu/00_tour.ipynb?token={lab.token}&reset'); lab.ready()
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    take = page.locator('.ae-deck', has_text='seven of continuation'); take.wait_for(timeout=90000); take.locator('.ae-play').click()
    page.wait_for_function("() => [...document.querySelectorAll('.ae-deck')].some(e => e.deck.playing && e.deck.position > .1)", timeout=20000)
    took = time.monotonic()-start; print(f'{took:.0f} s'); assert took < 120   # another process has one of the cores
    page.wait_for_function("() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'", timeout=120000)
    lab.picture('tour'); assert not lab.outside and not lab.errors


def test_what_a_newcomer_sees(lab):
    "Every page: sounds and pictures that are stored, nothing that asks for the net, nothing that fails."
    page = lab.page; page.goto(f'{lab.url}/lab?token={lab.token}&reset')
    page.wait_for_function('() => window.jupyterapp?.restored', timeout=60000); page.evaluate('async () => { await window.jupyterapp.restored }'); lab.errors.clear()
    wrong = []
    for name in NAMES:
        page.evaluate("async path => { await window.jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'}) }", f'audiolm-edu/{name}')
        shown = page.locator('.jp-NotebookPanel:not(.lm-mod-hidden)'); shown.locator('.jp-MarkdownCell h1').first.wait_for(timeout=60000); lab.ready()
        lab.picture('top_'+name.removesuffix('.ipynb'))
        bad = [*lab.outside, *(e for e in lab.errors if 'Canceled future' not in e)]   # that one: we stop kernels that have just begun
        if bad: wrong.append((name, bad))
        lab.outside.clear(); lab.errors.clear()
        page.evaluate("async () => { const app = window.jupyterapp; app.shell.currentWidget.dispose(); await app.serviceManager.sessions.shutdownAll() }")
    assert not wrong
