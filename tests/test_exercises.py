"Every exercise with a check stands in one notebook, as a stub with the parameters of the answer in a0."
import ast
import re

import nbformat
import pytest

from audiolm_edu.cli import notebooks_dir
from audiolm_edu.course import assignment, cells_of, graded_cells, masters

STUB = re.compile(r"assignment\('a0'\)\.check\('(\w+)', (\w+)\)")


def parameters(code, name):
    f, = [n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef) and n.name==name]; given = [ast.unparse(d) for d in f.args.defaults]
    assert not (f.args.vararg or f.args.kwarg or f.args.kwonlyargs or f.args.posonlyargs)
    return [a.arg for a in f.args.args], given


def tried(): # question, notebook, its cell
    books = sorted(notebooks_dir().glob('*.ipynb'))
    return [(q, p.stem, c.source) for p in books for c in cells_of(p) if c.kind=='code' for q in re.findall(r"assignment\('a0'\)\.check\('(\w+)'", c.source)]


def test_every_question_stands_in_one_notebook_and_every_stub_is_a_question():
    assert sorted(q for q,_,_ in tried())==sorted(assignment('a0').questions)


def test_headings_name_the_notebook():
    heads = [m.groups() for c in cells_of(masters()['a0']) if c.kind=='markdown' for m in re.finditer(r'(?m)^## (\w+) · (\w+)$', c.source)]
    assert heads==[(book.split('_')[0], q) for q in assignment('a0').questions for name,book,_ in tried() if name==q]


@pytest.mark.parametrize('question, book, cell', tried(), ids=lambda v: v if v.isidentifier() else '')
def test_a_stub_is_the_answer_without_its_body(question, book, cell):
    assert STUB.findall(cell)==[(question, question)] and 'raise NotImplementedError' in cell, book
    answer, = [code for q,code in graded_cells(cells_of(masters()['a0'])) if q==question]
    assert parameters(cell, question)==parameters(answer, question), book
    names = {}; exec(compile(cell.rsplit('\n', 1)[0], book, 'exec'), names)                # needs nothing of its notebook
    assert all(o.kind=='blank' for o in (c.run(names[question]) for c in assignment('a0').of(question, hidden=True)))


@pytest.mark.parametrize('path', sorted(notebooks_dir().glob('*.ipynb')), ids=lambda p: p.stem)
def test_what_is_stored_under_a_stub_is_what_it_says(path):
    for c in nbformat.read(path, 4).cells:
        if not (found := STUB.findall(c.source)): continue
        def blank(*_): raise NotImplementedError
        (question, _), = found; output, = c.outputs; assert output.data['text/plain']==str(assignment('a0').check(question, blank)), question
