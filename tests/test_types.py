"Are the hints true? mypy reads the modules, each `@patch` function moved to where it can see it: into the class it patches."
import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
KINDS = {'patch': '', 'patch(as_prop=True)': '@property', 'patch(cls_method=True)': '@classmethod'}


def unpatched(text):
    "A module with its `@patch` functions at the ends of their classes."
    body, lines = ast.parse(text).body, text.splitlines()
    ends = {c.name: c.end_lineno-1 for c in body if isinstance(c, ast.ClassDef)}
    for f in body:
        patch = next((d for d in getattr(f, 'decorator_list', ()) if ast.unparse(d).startswith('patch')), None)
        if not patch: continue
        lines[patch.lineno-1] = KINDS[ast.unparse(patch)]
        lines[f.lineno-1] = re.sub(r'\(cls:\w+', '(cls', lines[f.lineno-1])
        whole = range(patch.lineno-1, f.end_lineno)
        lines[ends[f.args.args[0].annotation.id]] += ''.join('\n    '+lines[i] for i in whole)
        for i in whole: lines[i] = ''
    return '\n'.join(lines)+'\n'


def checked(folder):
    "mypy's status and what it says of the modules in a folder, with the settings of the repository."
    done = subprocess.run([sys.executable, '-m', 'mypy', '--config-file', ROOT/'pyproject.toml', '--cache-dir', folder/'cache',
                           '--pretty', '.'], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout+done.stderr


def test_hints_hold(tmp_path):
    for source in (ROOT/'audiolm_edu').rglob('*.py'):
        copy = tmp_path/source.relative_to(ROOT); copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(unpatched(source.read_text(encoding='utf-8')), encoding='utf-8')
    status, said = checked(tmp_path)
    assert status==0, said


TALLY = '''
from fastcore.basics import patch

class Tally:
    def __init__(self, right:int): self.right = right

@patch
def more(self:Tally, n:int) -> int: return self.right+n
@patch(as_prop=True)
def half(self:Tally) -> float: return self.right/2
@patch(cls_method=True)
def none(cls:Tally) -> Tally: return cls(0)

{}
'''
FALSE = {"Tally(1).more('2')": 'arg-type', 'a:str = Tally(1).more(2)': 'assignment', 'Tally(1).halves': 'attr-defined',
         'Tally(1).half()': 'operator', 'Tally.none(0)': 'call-arg'}


def test_false_hints_are_found(tmp_path):
    (tmp_path/'tally.py').write_text(unpatched(TALLY.format('Tally.none().half+Tally(1).more(2)')))
    assert checked(tmp_path)[0]==0
    (tmp_path/'tally.py').write_text(unpatched(TALLY.format('\n'.join(FALSE))))
    status, said = checked(tmp_path)
    assert status==1 and re.findall(r'\[([a-z-]+)\]\n', said)==[*FALSE.values()], said
