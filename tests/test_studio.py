"The studio in a real browser: prompts, takes, what goes wrong, and what Python hears of it."
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import soundfile as sf

from audiolm_edu.corpus import prompt_path
from browser import a_lab, free_port, needs_browser

STUDIO = """import hashlib, traitlets
from audiolm_edu.studio import Studio
class Watched(Studio): tokens, spot = traitlets.List(), traitlets.Float()
s = Watched(); s.knobs['seconds'].value = 5
same = lambda v: hashlib.sha256(v.acoustic.numpy().tobytes()).hexdigest()
s.observe(lambda _: setattr(s, 'tokens', [same(v) for v in s.takes.values()]), 'shelf')
s.deck.observe(lambda c: s.busy and setattr(s, 'spot', max(s.spot, c.new)), 'ready')
tell(s, 'status', 'busy', 'shelf', 'prompt_name', 'tokens', 'spot')
s"""


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    needs_browser()
    with a_lab(tmp_path_factory.mktemp('lab')) as lab: yield lab


def button(lab, name): return lab.page.get_by_role('button', name=name, exact=True)


def written(lab, n): return lab.until(lambda t: len(t['shelf'])==n and not t['busy'], 90)


def test_takes_from_the_package_and_from_a_file(lab, tmp_path):
    lab.run('studio.ipynb', STUDIO); deck = lab.page.locator('.ae-deck').first; deck.wait_for()
    for name in ('prompt, s', 'guide', 'top-p', 'what, T1'): lab.page.get_by_role('slider', name=name).wait_for()     # for screen readers
    button(lab, 'continue').click(); lab.until(lambda t: t['busy'])
    lab.page.wait_for_function("() => { const d = document.querySelector('.ae-deck').deck; return d.playing && d.ready > 0 }", timeout=30000)   # before the end
    told = written(lab, 1); assert told['spot'] > 5 and 'seed 1' in told['status']
    button(lab, 'continue').click(); told = written(lab, 2); assert told['tokens'][0]==told['tokens'][1]
    with lab.page.expect_download() as d: deck.get_by_role('button', name='download').click()
    got = sf.SoundFile(d.value.path()); assert got.frames==8*16000 and 'seed 1' in got.comment and d.value.suggested_filename=='take-2.flac'
    x, _ = sf.read(prompt_path(), dtype='float32'); sf.write(tmp_path/'me.wav', x[8000:40000], 16000); (tmp_path/'broken.wav').write_bytes(b'RIFF and no more')
    def upload(name):
        with lab.page.expect_file_chooser() as chooser: lab.page.locator('.widget-upload').click()
        chooser.value.set_files(tmp_path/name)
    upload('broken.wav'); told = lab.until(lambda t: t['status'].startswith('broken.wav: ')); assert told['prompt_name']=='our own'
    deck.locator('.ae-note').get_by_text('broken.wav').wait_for()
    upload('me.wav'); lab.until(lambda t: t['prompt_name']=='me.wav')
    button(lab, 'continue').click(); told = written(lab, 3); assert told['tokens'][2]!=told['tokens'][0]
    button(lab, 'compare').click(); lab.page.get_by_text('after the prompt, the plan').wait_for(); lab.picture('studio')
    button(lab, 'swap').click(); told = written(lab, 4); assert told['shelf'][3]=='4: words of 2, voice of 3'
    model = lab.page.get_by_placeholder('a name or a folder'); model.fill('nowhere'); model.press('Enter')
    button(lab, 'continue').click(); told = lab.until(lambda t: 'no such weights' in t['status'] and not t['busy']); assert len(told['shelf'])==4
    model.fill('speech'); model.press('Enter'); button(lab, 'continue').click(); lab.until(lambda t: t['status'].startswith('writing')); button(lab, 'stop').click()
    lab.until(lambda t: t['status']=='stopped' and not t['busy'])
    assert not lab.outside and not lab.errors


def test_the_piano_brings_its_manner(lab):
    lab.outside.clear(); lab.errors.clear(); lab.run('music.ipynb', STUDIO)
    slider = lambda name: lab.page.get_by_role('slider', name=name); slider('grain, T3').wait_for()
    model = lab.page.get_by_placeholder('a name or a folder'); model.fill('piano'); model.press('Enter'); slider('grain, T3').wait_for(state='hidden')
    assert [float(slider(n).get_attribute('aria-valuenow')) for n in ('what, T1', 'how, T2', 'guide', 'hold', 'prompt, s')]==[1, .7, 2, 5, 4]
    button(lab, 'continue').click(); told = written(lab, 1); assert told['shelf']==['1: our own, piano, seed 1'] and '9.0 s' in told['status']
    lab.page.evaluate("async () => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'}) }")
    lab.page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'"); lab.page.locator('#jupyterlab-splash').wait_for(state='detached'); lab.picture('studio_dark')
    lab.page.evaluate("async () => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'}) }")
    assert not lab.outside and not lab.errors


def test_the_microphone(lab):
    lab.outside.clear(); lab.errors.clear(); lab.run('mic.ipynb', STUDIO); record = lab.page.locator('.ae-record'); record.click()
    lab.page.wait_for_timeout(1500); assert record.get_attribute('aria-pressed')=='true'; record.click()
    told = lab.until(lambda t: t['prompt_name']=='recording 1'); assert 1 < float(told['status'].split(': ')[1].split()[0]) < 3
    assert not lab.outside and not lab.errors


def test_the_command_opens_the_studio(lab, tmp_path):
    "`audiolm-edu studio`: a signed page, one cell to run, and a take at a click."
    env = dict(os.environ, **{f'JUPYTER_{k}_DIR': str(tmp_path/k) for k in ('CONFIG', 'DATA', 'RUNTIME')})
    log = tmp_path/'log'; lab.errors.clear()
    args = ['studio', str(tmp_path), '--no-browser', '--port', str(free_port())]
    with log.open('w') as out: server = subprocess.Popen([sys.executable, '-c', f'from audiolm_edu.cli import main; main({args})'], stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        end = time.monotonic()+60
        while not (found := re.search(r'http://127\.0\.0\.1:\d+/lab\S*token=\w+', log.read_text())):
            assert server.poll() is None and time.monotonic() < end, log.read_text(); time.sleep(.2)
        page = lab.page; page.goto(found[0]); assert '81_studio.ipynb' in found[0]; page.locator('.jp-Notebook audio').first.wait_for(timeout=60000)   # trusted: stored sounds are there
        page.wait_for_function("() => document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'", timeout=60000)
        page.locator('.jp-CodeCell .cm-content').first.click(); page.keyboard.press('Shift+Enter')
        button(lab, 'continue').click(timeout=60000); page.get_by_text('seed 1, weights').wait_for(timeout=60000); lab.picture('studio_page')
    finally:
        if server.poll() is None: os.killpg(server.pid, signal.SIGTERM); server.wait(30)
