"The site: what a page shows of a notebook, the checker of links, and a small site in a browser."
import base64
import functools
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest

from browser import CHROMIUM, FLAGS, PICTURES, needs_browser

DOCS = Path(__file__).parents[1]/'.ci'/'docs'
if not DOCS.exists(): pytest.skip('only in a checkout', allow_module_level=True)
for needed in ('sphinx', 'myst_nb', 'furo', 'latex2mathml'): pytest.importorskip(needed)
sys.path.append(str(DOCS))                                # at the end: `build` is a package as well
from check_links import check  # noqa: E402


@pytest.fixture(scope='module')
def builder():
    spec = importlib.util.spec_from_file_location('site_builder', DOCS/'build.py'); module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module); return module


def site(folder, body, **more):
    "Two pages, a style sheet and a sound; `body` goes into the first page."
    texts = {'index.html': f'<link rel="stylesheet" href="a/s.css"><h1 id="top">x</h1>{body}',
             'a/two.html': '<a href="../index.html#top">up</a><p id="b c">', 'a/s.css': 'p {background: url(../x.png)}', 'x.png': ''} | more
    for name,text in texts.items(): (folder/name).parent.mkdir(parents=True, exist_ok=True); (folder/name).write_text(text)
    return check(folder)


def test_a_good_site(tmp_path):
    good = site(tmp_path, '<a href="a/two.html#b%20c"></a><a href="#top"></a><a href="#"></a><a href="a/two.html?q=1#b c"></a>'
                          '<img src="x.png"><audio src="data:audio/mpeg;base64,AAAA"></audio>'
                          '<a href="https://arxiv.org/abs/2209.03143"></a><a href="mailto:a@b.org"></a>')
    assert not good.wrong and good.outside=={'https://arxiv.org/abs/2209.03143'}
    assert (good.pages, good.links, good.sounds, good.plots)==(2, 11, 1, 1)


@pytest.mark.parametrize('link,why', {
    '<a href="three.html">': 'is not there', '<img src="y.png">': 'is not there', '<a href="a">': 'is not there',
    '<img srcset="x.png 1x, y.png 2x">': 'is not there',
    '<a href="a/two.html#c">': 'no such place', '<a href="#c">': 'no such place', '<a href="../other.html">': 'leaves the site',
    '<a href="/index.html">': 'absolute path', '<a href="file:///etc/passwd">': 'scheme file',
    '<a href="javascript:f()">': 'scheme javascript',
    '<script src="https://cdn.org/x.js">': 'another host', '<link href="//cdn.org/x.css">': 'another host',
    '<p style="background:url(https://cdn.org/x.png)">': 'another host',
    '<a href="https://nowhere">': 'no address', '<a href="https://a b.org/">': 'no address', '<a href="//a.org/">': 'no address'}.items())
def test_a_broken_link(tmp_path, link, why):
    wrong, = site(tmp_path, link).wrong
    assert wrong.startswith('index.html') and why in wrong


def test_a_style_sheet_that_asks_elsewhere(tmp_path):
    assert len(site(tmp_path, '', **{'a/s.css': '@font-face {src: url("https://fonts.org/x.woff")} p {background: url(y.png)}'}).wrong)==2


def notebook(path, *cells):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f'# {path.stem}'), *map(nbformat.v4.new_code_cell, cells)])
    nb.cells[-1].outputs = [nbformat.v4.new_output('stream', text='heard')]
    path.parent.mkdir(parents=True, exist_ok=True); nbformat.write(nb, path); return path


def test_what_a_page_shows(builder, tmp_path):
    "No directives, no hidden cells; outputs; where an exported name is explained."
    cells = '#| default_exp vq', '#| export\ndef nearest(): pass', '#| hide\nassert secret', 'print("heard")'
    path = notebook(tmp_path/'03_tiny.ipynb', *cells)
    book = builder.Notebook(path); links = builder.Links([book])
    shown = builder.prepared(book, links).cells; text = '\n'.join(c.source for c in shown)
    assert '#|' not in text and 'secret' not in text and 'default_exp' not in text
    assert shown[-1].outputs[0].text and 'py:obj}`nearest <audiolm_edu.vq.nearest>' in text
    assert [c.metadata.get('tags') for c in shown if c.cell_type=='code']==[['export'], None]
    assert links('`kmeans`, `k`, notebooks 03 and 99 ```notebook 03```', 'audiolm_edu.vq')== \
        '{py:obj}`kmeans <audiolm_edu.vq.kmeans>`, `k`, notebooks {doc}`03 </nbs/03_tiny>` and 99 ```notebook 03```'


def test_no_solutions_on_the_site(builder, tmp_path):
    path = notebook(tmp_path/'assignments'/'a9_tiny.ipynb', '#| export\ndef check(): answer', '# wrong f: no\ndef f(): answer',
                    '# question: f\ndef f():\n    # BEGIN SOLUTION\n    answer\n    # END SOLUTION')
    assert 'answer' not in '\n'.join(c.source for c in builder.Notebook(path).nb.cells if c.cell_type=='code')


def built(checkout, out):
    return subprocess.run([sys.executable, str(DOCS/'build.py'), str(out), str(checkout)], capture_output=True, text=True)


def test_what_is_missing_fails(tmp_path):
    (tmp_path/'README.md').write_text('# small\n\n[nobody](nothing.md)\n')
    done = built(tmp_path, tmp_path/'site'); assert done.returncode and "'nothing.md'" in done.stderr
    done = built(tmp_path, tmp_path/'site'); assert done.returncode and 'is there already' in done.stderr


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "The site of a checkout with two notebooks, and a README with a picture and a link to a file."
    root = tmp_path_factory.mktemp('docs'); checkout, out = root/'checkout', root/'site'
    for name in ('nbs/03_vq.ipynb', 'nbs/assignments/a1_listen_and_quantize.ipynb', 'audiolm_edu/clips/ATTRIBUTION.md', 'LICENSE'):
        (checkout/name).parent.mkdir(parents=True, exist_ok=True); shutil.copy(DOCS.parents[1]/name, checkout/name)
    (checkout/'.ci').mkdir(); (checkout/'.ci'/'dot.png').write_bytes(base64.b64decode(
        'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=='))
    (checkout/'README.md').write_text('# small\n\n![a dot](.ci/dot.png) <img src=".ci/dot.png" width="9">\n\n'
                                      '[who](audiolm_edu/clips/ATTRIBUTION.md), [how](LICENSE)\n\n'
                                      '| notebook | |\n|---|---|\n| 03 vectors | in 03 s |\n\n[the first](nbs/03_vq.ipynb)\n')
    done = built(checkout, out); assert done.returncode==0, done.stdout+done.stderr
    return out


def test_what_is_built(small):
    read = lambda name: (small/name).read_text()
    assert read('index.html').count('nbs/03_vq.html"')>=3 and 'ATTRIBUTION.html' in read('index.html')
    page = read('api/audiolm_edu.vq.html'); assert 'number of centres' in page and 'id="audiolm_edu.vq.ResidualVQ.encode"' in page
    assert '03_vq.html#' in page and 'audiolm_edu.vq.html#audiolm_edu.vq.kmeans' in read('nbs/03_vq.html')
    page = read('nbs/assignments/a1_listen_and_quantize.html')
    assert '<math' in page and 'NotImplementedError' in page and 'SOLUTION' not in page


def test_in_a_browser(small):
    "Sounds load, the search finds, nothing is asked of any other host, nothing fails."
    needs_browser()
    from playwright.sync_api import sync_playwright
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *a): pass
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=small)) as server, sync_playwright() as p:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url, outside, errors = f'http://127.0.0.1:{server.server_port}', [], []
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS); page = browser.new_page(viewport=dict(width=390, height=844))
        page.on('request', lambda r: r.url.startswith((url, 'data:', 'blob:')) or outside.append(r.url))
        page.on('pageerror', lambda e: errors.append(str(e))); page.on('console', lambda m: m.type=='error' and errors.append(m.text))
        for name in ('index', 'nbs/03_vq', 'api/audiolm_edu.vq', 'nbs/assignments/a1_listen_and_quantize'):
            page.goto(f'{url}/{name}.html'); PICTURES.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=PICTURES/f'site_{Path(name).name}.png')
            assert page.evaluate('document.documentElement.scrollWidth <= innerWidth'), f'{name} is wider than a telephone'
        assert page.locator('audio').count() > 3
        page.wait_for_function("() => [...document.querySelectorAll('audio')].every(a => a.duration > 0)", timeout=20000)
        page.goto(f'{url}/search.html?q=commitment')
        page.locator('#search-results li a', has_text='Vector quantization').first.wait_for(timeout=20000)
        page.wait_for_load_state('networkidle'); browser.close(); server.shutdown()
    assert not outside and not errors
