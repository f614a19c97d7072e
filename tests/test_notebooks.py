"Every notebook runs top to bottom, as it is read."
from pathlib import Path

import nbclient
import nbformat
import pytest

NBS = Path(__file__).parent.parent/'nbs'
BOOKS = sorted([*NBS.glob('*.ipynb'), *NBS.glob('assignments/*.ipynb')])


@pytest.mark.parametrize('path', BOOKS, ids=lambda p: p.stem)
def test_runs(path):
    nb = nbformat.read(path, 4)
    nbclient.NotebookClient(nb, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(NBS)}}).execute()


@pytest.mark.parametrize('path', BOOKS, ids=lambda p: p.stem)
def test_is_readable(path):
    "Stored with outputs, without live widgets or errors, in cells a page can hold."
    nb = nbformat.read(path, 4); code = [c for c in nb.cells if c.cell_type=='code']
    outputs = [o for c in code for o in c.outputs]
    assert path.stat().st_size < 600_000
    assert path.stem=='index' or outputs, 'no stored output'
    assert not any(o.output_type=='error' for o in outputs)
    assert not any('application/vnd.jupyter.widget-view+json' in o.get('data', {}) for o in outputs)
    for c in code:
        lines = [l for l in c.source.splitlines() if l.strip() and not l.strip().startswith('#|')]
        assert len(lines) <= 20 and all(len(l) <= 140 for l in lines), c.source
