"A real Chromium that drives a real JupyterLab; for tests of what people click."
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

CHROMIUM = next((p for n in ('chromium', 'chromium-browser', 'google-chrome') if (p := shutil.which(n))), None)
FLAGS = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update '
         '--disable-sync --autoplay-policy=no-user-gesture-required --disable-dev-shm-usage '
         '--use-fake-device-for-media-stream --use-fake-ui-for-media-stream').split()   # a microphone that beeps
PICTURES = Path(os.environ.get('AUDIOLM_EDU_PICTURES', 'build/pictures'))


def needs_browser():
    "In CI a missing browser is a failure; on a learner's machine the tests skip."
    try: import playwright.sync_api
    except ImportError: missing = 'playwright is missing (pip install playwright)'
    else: missing = None if CHROMIUM else 'there is no Chromium (apt-get install chromium)'
    if missing and os.environ.get('CI'): pytest.fail(missing)
    if missing: pytest.skip(missing)


def free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]


@contextlib.contextmanager
def lab_server(root:Path):
    "JupyterLab on a free port, with settings of its own."
    port, token, home = free_port(), secrets.token_hex(8), root/'.home'
    env = dict(os.environ, JUPYTER_CONFIG_DIR=str(home/'config'), JUPYTER_DATA_DIR=str(home/'data'), JUPYTER_RUNTIME_DIR=str(home/'run'), IPYTHONDIR=str(home/'ipython'))
    for plugin,own in {'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False), 'notebook-extension/tracker': dict(autoStartDefaultKernel=True)}.items():
        f = home/'config'/'lab'/'user-settings'/'@jupyterlab'/f'{plugin}.jupyterlab-settings'; f.parent.mkdir(parents=True, exist_ok=True); f.write_text(json.dumps(own))
    args = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--ServerApp.port={port}', '--ServerApp.ip=127.0.0.1', f'--ServerApp.root_dir={root}',
            f'--IdentityProvider.token={token}', '--LabApp.expose_app_in_browser=True', '--LabApp.news_url=', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
    with (root/'server.log').open('w') as log: server = subprocess.Popen(args, env=env, stdout=log, stderr=log)
    try:
        for _ in range(600):
            if server.poll() is not None: raise RuntimeError((root/'server.log').read_text()[-2000:])
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1): break
            time.sleep(.1)
        yield f'http://127.0.0.1:{port}', token
    finally: server.terminate(); server.wait(20)


class Lab:
    "One browser page, and all that went wrong in it."
    def __init__(self, page, url, token, root):
        self.page, self.url, self.token, self.root, self.outside, self.errors = page, url, token, root, [], []
        page.on('request', lambda r: r.url.startswith((url, url.replace('http', 'ws'), 'data:', 'blob:')) or self.outside.append(r.url))
        page.on('pageerror', lambda e: self.errors.append(str(e)))
        page.on('console', lambda m: m.type=='error' and self.errors.append(m.text))

    def open(self, name, seconds=120):
        "A notebook, run to its end."
        self.page.goto(f'{self.url}/lab/tree/{name}?token={self.token}&reset')
        self.ready()
        self.page.evaluate("() => { window.ran = false; window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ran = true) }")
        self.page.wait_for_function('() => window.ran', timeout=1000*seconds)

    def ready(self):
        "Wait for the kernel; without it, running cells would ask which one."
        self.page.wait_for_function("() => { const s = window.jupyterapp?.shell?.currentWidget?.sessionContext; "
                                    "return s?.isReady && s?.session?.kernel?.status === 'idle' }", timeout=60000)

    def run(self, name, *cells):
        "A new notebook of these cells, opened and run; `tell(widget)` keeps a widget's traits where `told` reads them."
        tell = ("import json, os; from pathlib import Path\n"
                "def tell(w, *names):\n"
                "    def write(_=None): p = Path('told.tmp'); p.write_text(json.dumps({n: getattr(w, n) for n in names})); os.replace(p, 'told.json')\n"
                "    w.observe(write, list(names)); write()")
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (tell, *cells)])
        nb.metadata['kernelspec'] = dict(name='python3', display_name='python3', language='python')
        nbformat.write(nb, self.root/name); self.open(name)

    def told(self): return json.loads((self.root/'told.json').read_text())

    def until(self, f, seconds=30):
        "Wait until `f(traits)` holds, and return the traits."
        end = time.monotonic()+seconds
        while time.monotonic() < end:
            if f(t := self.told()): return t
            self.page.wait_for_timeout(50)
        raise AssertionError(f'never came true; the traits are {self.told()}')

    def picture(self, name, where=None):
        PICTURES.mkdir(parents=True, exist_ok=True); (where or self.page).screenshot(path=PICTURES/f'{name}.png')


@contextlib.contextmanager
def a_lab(root:Path):
    from playwright.sync_api import sync_playwright
    with lab_server(root) as (url, token), sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=dict(width=1280, height=1000))
        lab = Lab(page, url, token, root)
        try: yield lab
        finally: browser.close()
