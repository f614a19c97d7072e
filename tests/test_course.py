"Assignments: right answers pass, wrong ones are caught for the right reason, and hostile ones cost only themselves."
import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from audiolm_edu import cli
from audiolm_edu.audio import AudioError
from audiolm_edu.course import Assignment, Broken, assignment, cells_of, first_line, graded_cells, graded_code, masters, recall, released, wrong_answers
from audiolm_edu.grade import Mark, Submission, grade, mark, write_marks
from audiolm_edu.worker import pack, receive, send

NAMES = sorted(masters())


def functions(code):
    names = {}; exec(compile(code, 'answers', 'exec'), names); return names


@pytest.mark.parametrize('name', NAMES)
def test_the_solution_passes_and_the_blank_fails_only_as_unwritten(name):
    cells, checks = cells_of(masters()[name]), assignment(name).of(hidden=True)
    right, blank = functions(graded_code(cells)), functions(graded_code(released(cells)))
    for c in checks:
        for seed in (0, 1, 77): o = c.run(right[c.question], seed, [right[q] for q in c.also]); assert o.passed, (str(c), o.text)
        o = c.run(blank[c.question], 0, [blank[q] for q in c.also]); assert o.kind=='blank', (str(c), o.text)
        assert c.hidden or c.hints, f'{c}: no hint'
        assert c.about.endswith('.') and c.points > 0
    assert any(c.hidden for c in checks)


@pytest.mark.parametrize('name', NAMES)
def test_wrong_answers_are_caught_with_the_intended_message(name):
    cells, given = cells_of(masters()[name]), assignment(name); wrong = wrong_answers(cells)
    for q in given.questions: assert sum(w[0]==q for w in wrong) >= 2, f'{q}: two wrong answers are wanted'
    for q,message,code in wrong:
        names = functions(graded_code(cells)+'\n\n'+code)
        for seed in (0, 5):
            failed = [o for o in (c.run(names[q], seed, [names[k] for k in c.also]) for c in given.of(q)) if not o.passed]; assert failed, (q, message)
            assert any(message in o.check.about or message in o.text for o in failed) and all(o.kind=='differs' for o in failed), (q, message, failed)


@pytest.mark.parametrize('name', NAMES)
def test_a_release_has_no_answers(name, tmp_path):
    cells = cells_of(masters()[name]); assert cli.main(['release', name, str(tmp_path)])==0
    given = nbformat.read(tmp_path/masters()[name].name, 4); nbformat.validate(given); assert not any(c.get('outputs') for c in given.cells)
    texts = {p.name: p.read_text() for p in tmp_path.iterdir()}; assert {f'{name}.py', f'test_{name}.py'} < texts.keys()
    hidden, inside = [], None
    for c in cells:
        for line in c.source.splitlines():
            if line.strip() in ('# BEGIN SOLUTION', '# BEGIN HIDDEN'): inside = True
            elif line.strip() in ('# END SOLUTION', '# END HIDDEN'): inside = None
            elif inside and len(line.strip()) > 24: hidden.append(line.strip())
        if first_line(c.source, 'wrong'): hidden += [c.source.splitlines()[0]]
    assert len(hidden) > 10
    for text in texts.values():
        for line in hidden: assert line not in text, line
        assert 'SOLUTION' not in text and 'HIDDEN' not in text
    assert cli.main(['release', name, str(tmp_path)])==2                   # nobody's work is lost
    assert cli.main(['check', str(tmp_path/f'{name}.py')])==1


HOSTILE = dict(
    spawner="import subprocess; return [subprocess.Popen(['sleep', '300']) for _ in range(200)]",
    forker="import os\n    for _ in range(200):\n        if not os.fork():\n            import time; time.sleep(300)",
    endless='while True: pass', hungry='x = []\n    while True: x.append(bytearray(2**28))',
    vandal='import os\n    for d,_,fs in os.walk(BESIDE):\n        for f in fs: os.remove(os.path.join(d, f))\n    return 6000.',
    writer="open(BESIDE+'/new', 'w').write('x')\n    return 6000.",
    caller="import socket; return socket.create_connection(('127.0.0.1', 9))", reader='import audiolm_edu.vq; return 6000.',
    quitter='import os; os._exit(0)', killer='import os; os.kill(os.getppid(), 9)', pickled='return lambda: 1',
    liar="import sys; sys.stdout.write('{}'*9999); sys.stdout.flush(); return 0.", thrower='raise SystemExit(0)',
    babbler="import os\n    for fd in range(3, 40):\n        try: os.write(fd, bytes(16)+b'x'*99)\n        except OSError: pass\n    return 0.")


def test_thirty_submissions_in_five_minutes(tmp_path):
    "The first question of a1 answered by everybody; the others' marks do not change because of those who mean harm."
    cells = cells_of(masters()['a1']); right = graded_code(cells); subs = tmp_path/'subs'; subs.mkdir(); (tmp_path/'beside').mkdir()
    (tmp_path/'beside'/'thesis.txt').write_text('three years'); most = sum(c.points for c in assignment('a1').of(hidden=True)); wanted = {}
    def hand_in(who, code): (subs/f'{who}_a1.py').write_text(code)
    for i in range(5): hand_in(f'right{i}', right); wanted[f'right{i}'] = most
    for who,body in HOSTILE.items():
        hand_in(who, right+f'\n\n# question: bits_a_second\nBESIDE = {str(tmp_path/"beside")!r}\ndef bits_a_second(frames, sizes):\n    {body}\n'); wanted[who] = most-3
    for i,(q,_,code) in enumerate(wrong_answers(cells)): hand_in(f'wrong{i}', right+f'\n\n# question: {q}\n{code}\n')
    hand_in('blank', graded_code(released(cells))); wanted['blank'] = 0.
    first = [q for q,_ in graded_cells(cells)].index('uniform'); hand_in('torn', '\n\n'.join(s for _,s in graded_cells(cells)[:first+1])+'\n((')
    wanted['torn'] = sum(c.points for c in assignment('a1').of('bits_a_second', hidden=True))     # a torn cell costs its own question, and what is missing
    assert len(list(subs.iterdir())) >= 30
    start = time.monotonic(); marks = {m.who: m for m in grade(subs, 'a secret', seconds=40)}; took = time.monotonic()-start
    got = {w: m.points for w,m in marks.items()}
    assert {w: got[w] for w in wanted}==wanted and all(0 < m.points < most for w,m in marks.items() if w.startswith('wrong'))
    assert [p.name for p in (tmp_path/'beside').iterdir()]==['thesis.txt'] and took < 300
    for who in HOSTILE: assert marks[who].note or who=='liar', who
    assert not [p for p in Path('/proc').glob('[0-9]*') if b'sleep\x00300' in _read(p/'cmdline')]


def _read(p):
    try: return p.read_bytes()
    except OSError: return b''


RESULTS = dict(type='object', required=['tests'], additionalProperties=False, properties=dict(   # as Gradescope documents results.json
    score=dict(type='number'), output=dict(type='string'), visibility=dict(enum=['hidden', 'after_due_date', 'after_published', 'visible']),
    stdout_visibility=dict(enum=['hidden', 'after_due_date', 'after_published', 'visible']),
    tests=dict(type='array', items=dict(type='object', additionalProperties=False, properties=dict(
        score=dict(type='number'), max_score=dict(type='number'), status=dict(enum=['passed', 'failed']), name=dict(type='string'), number=dict(type='string'),
        output=dict(type='string'), visibility=dict(enum=['hidden', 'after_due_date', 'after_published', 'visible']))))))


def test_marks_on_the_command_line(tmp_path, capsys):
    subs, seed = tmp_path/'subs', tmp_path/'seed'; (subs/'bob').mkdir(parents=True); seed.write_text('mine\n')
    (subs/'bob'/'a1.py').write_text(graded_code(released(cells_of(masters()['a1'])))); run = lambda *a: cli.main(['grade', str(subs), '--seed-file', *map(str, a)])
    assert run(seed, '--format', 'gradescope', '-o', tmp_path/'g')==0
    result = json.loads((tmp_path/'g'/'bob'/'a1'/'results.json').read_text()); jsonschema.validate(result, RESULTS)
    assert result['score']==0 and {t['visibility'] for t in result['tests']}=={'visible', 'after_published'}
    capsys.readouterr(); assert run(tmp_path/'none')==2 and 'secret' in capsys.readouterr().err
    assert cli.main(['grade', str(tmp_path/'g'), '--seed-file', str(seed)])==2 and 'alice/a1' in capsys.readouterr().err
    assert cli.main(['release', 'a99', str(tmp_path/'r')])==2 and 'there are a0' in capsys.readouterr().err


def test_nbgrader_takes_the_gradebook(tmp_path, monkeypatch):
    "Marks go into a gradebook that nbgrader exports; a second time they are replaced, and what else is in it stays."
    subs = tmp_path/'subs'; subs.mkdir(); right = graded_code(cells_of(masters()['a1'])); monkeypatch.chdir(tmp_path)
    (subs/'ann_a1.py').write_text(right); (subs/'bob_a1.py').write_text(graded_code(released(cells_of(masters()['a1']))))
    marks = grade(subs, 'a secret'); write_marks(marks, 'nbgrader'); marks[1].outcomes[0].kind = 'passed'; write_marks(marks[1:], 'nbgrader')
    subprocess.run([sys.executable, '-m', 'nbgrader', 'export', '--to', 'grades.csv'], check=True, capture_output=True)
    got = {r['student_id']: (float(r['score']), float(r['max_score'])) for r in csv.DictReader((tmp_path/'grades.csv').open())}
    assert got=={'ann': (marks[0].most, marks[0].most), 'bob': (marks[1].outcomes[0].check.points, marks[0].most)} and not list(tmp_path.glob('.gradebook*'))


def test_written_answers_are_put_side_by_side(tmp_path, monkeypatch):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('<!-- answer: limits -->\nNo mark without a doubt.')])
    nbformat.write(nb, tmp_path/'ann_demo.ipynb'); demo = Assignment('demo', 'Demo', by_hand=dict(limits=6))
    m = mark(tmp_path/'ann_demo.ipynb', 'ann', demo, 's'); assert m.texts==dict(limits='No mark without a doubt.')
    monkeypatch.setattr('audiolm_edu.grade.assignment', lambda name: demo)
    out = write_marks([m, Mark('bob', 'demo', [])], 'csv', tmp_path/'m.csv'); text = out[1].read_text()
    assert 'limits (6 points)' in text and '## ann\n\nNo mark without a doubt.' in text and '## bob\n\n*nothing*' in text


def test_one_question_does_not_see_what_another_may_import():
    cells = [('', 'from audiolm_edu.audio import SR'), ('f', 'from audiolm_edu.vq import nearest\ndef f(): return SR'),
             ('g', 'def g():\n    import audiolm_edu.vq\n    return 1'), ('h', 'def h(:'), ('k', 'import audiolm_edu.vq\ndef k(): return 2')]
    with Submission(cells, {'': ['audio', 'hub'], 'f': ['audio', 'hub', 'vq']}) as s:
        s.start(); assert s.answer('f', 20)()==16000
        for q,what in (('g', 'building it is the question'), ('h', 'SyntaxError'), ('k', 'building it is'), ('l', 'not defined')):
            with pytest.raises(Broken, match=what): s.answer(q, 20)()
        assert s.answer('f', 20)()==16000


def test_who_does_not_listen_is_not_waited_for():
    deaf = """import io, os, sys, time
said = io.BytesIO(); sys.modules['__main__'].send(said, dict(walls=[]))
for fd in range(3, 40):
    try: os.write(fd, said.getvalue())
    except OSError: pass
time.sleep(600)"""
    with Submission([('', deaf)]) as s:
        s.start(); start = time.monotonic()
        with pytest.raises(TimeoutError): s.answer('f', 2)(torch.zeros(5_000_000))
        assert time.monotonic()-start < 20


def test_recall_leaves_headings_and_code(tmp_path):
    path = recall('03', tmp_path); nb = nbformat.read(path, 4); nbformat.validate(nb)
    assert all(l.startswith('#') for c in nb.cells if c.cell_type=='markdown' for l in c.source.splitlines()) and any('kmeans' in c.source for c in nb.cells)
    with pytest.raises(AudioError, match='already'): recall('03', tmp_path)
    with pytest.raises(AudioError, match='no notebook'): recall('77', tmp_path)


flat = st.none()|st.booleans()|st.integers(-2**53, 2**53)|st.floats(allow_nan=False)|st.text(max_size=9)
values = st.recursive(flat, lambda v: st.lists(v, max_size=4)|st.tuples(v, v)|st.dictionaries(st.text(max_size=4), v, max_size=3), max_leaves=9)


@settings(deadline=None, max_examples=80)
@given(st.lists(values, max_size=4))
def test_values_cross_the_pipe(some):
    pipe = io.BytesIO(); send(pipe, dict(call='f'), some); pipe.seek(0); assert receive(pipe)==(dict(call='f'), some)


@pytest.mark.parametrize('t', [torch.arange(6).reshape(2,3), torch.tensor(1.5), torch.zeros(0,3), torch.ones(2, dtype=torch.bool), np.arange(4.)[::2]])
def test_tensors_cross_the_pipe(t):
    pipe = io.BytesIO(); send(pipe, {}, [(t, [t])]); pipe.seek(0); (a, (b,)), = receive(pipe)[1]
    assert type(a) is type(t) and a.dtype==t.dtype and a.shape==t.shape and (a==t).all() and (b==t).all()
    with pytest.raises(TypeError, match='cannot be handed on'): pack([lambda: 0], [])


def test_what_an_answer_changes_is_seen_from_outside():
    code = "def f(x, y, k):\n    x += 1; y[0] = 7.; return 'done'\ndef g(x): return x+1"
    with Submission([('', code)]) as s:
        s.start(); x, y = torch.zeros(3), np.zeros(2); assert s.answer('f', 20)(x, y, 5)=='done'
        assert x.tolist()==[1, 1, 1] and y.tolist()==[7, 0]
        z = torch.zeros(3); assert s.answer('g', 20)(z).tolist()==[1, 1, 1] and z.tolist()==[0, 0, 0]
