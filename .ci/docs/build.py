"The site: the notebooks as they are stored, a reference from the library they build, one search. `python .ci/docs/build.py OUT [CHECKOUT]`"
import ast
import inspect
import re
import shutil
import sys
import tempfile
import time
from bisect import bisect_right
from functools import cached_property
from importlib import import_module
from pathlib import Path

from fastcore.docments import docments
from fastcore.nbio import mk_cell, write_nb
from nbdev.process import NBProcessor
from nbdev.showdoc import showdoc_nm
from sphinx.cmd.build import build_main
from sphinx.util.inspect import object_description
from sphinx.util.typing import stringify_annotation

from audiolm_edu.course import as_notebook, cells_of, first_line, for_students, released
from check_links import check

HERE = Path(__file__).resolve().parent
GROUPS = {'00': 'Hear it', '01': 'Sound and tokens', '08': 'Three stages', '15': 'Judging', '15f': 'Detector and watermark', '18': 'Piano',
          '19': 'Scale and ablations', '80': 'Toolbox', '90': 'The course', 'a0': 'Assignments'}   # by the number of the first notebook
NUMBER = r'(?<![\w\[/-])(\d\d[a-z]?|a\d)\b'
empty = inspect.Parameter.empty


class Notebook:
    "What is shown of a notebook, and what it exports. Of an assignment: what students get."
    def __init__(self, path:Path):
        self.path, self.number, self.master = path, path.stem.split('_')[0], path.parent.name=='assignments'
        self.page = f"/nbs/{'assignments/' if self.master else ''}{path.stem}"
        self.nb = NBProcessor(path).nb                   # takes the lines `#| ...` out
        self.title = re.search(r'^# (.+)', self.nb.cells[0].source)[1]
        found = [c.directives_['default_exp'] for c in self.nb.cells if 'default_exp' in c.directives_]
        self.module = f'audiolm_edu.{found[0]}' if found and not self.master else ''
        self.nb.cells = [c for c in map(self.shown, self.nb.cells) if c]
        self.cells = {name: c for c in self.nb.cells if 'export' in c.directives_ for name in defined(c.source)}

    def shown(self, cell):
        "A cell as it is shown, or nothing."
        if self.master and cell.cell_type=='code':
            if 'export' in cell.directives_ or first_line(cell.source, 'wrong'): return
            cell.source = for_students(cell.source)
        return cell if 'hide' not in cell.directives_ and (cell.source.strip() or cell.get('outputs')) else None

    @cached_property
    def exported(self): return import_module(self.module)

    @cached_property
    def names(self): return list(self.exported.__all__) if self.module else []

    def label(self, name): return f'{self.path.stem}-{self.cells[name].id}'

    def explained(self, cell):
        "Names that a cell defines and the reference lists, with what they are called there."
        for name in (n for n,c in self.cells.items() if c is cell):
            owner, _, method = name.rpartition('.')
            if name in self.names: yield name, f'{self.module}.{name}'
            elif owner and method[0]!='_': yield name, f'{getattr(self.exported, owner).__module__}.{name}'


def defined(source:str) -> list: # qualified names
    "What a cell brings into its module, methods added by `@patch` among them."
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): names.append(showdoc_nm(node))
        if isinstance(node, ast.Assign): names += [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return names


class Links:
    "Turns numbers of notebooks and names of the library into links."
    def __init__(self, books):
        self.pages, self.modules = {b.number: b.page for b in books}, [b.module for b in books if b.module]
        self.names = {n: [b.module for b in books if n in b.names] for b in books for n in b.names}
        functions = [f for b in books for n in b.names if inspect.isfunction(f := getattr(b.exported, n))]
        taken = {p for f in functions for p in inspect.signature(f).parameters}
        self.clear = {n for n,found in self.names.items() if len(found)==1 and n not in taken}   # the others mean more than one thing

    def number(self, m): return f'{{doc}}`{m[0]} <{self.pages[m[0]]}>`' if m[0] in self.pages else m[0]

    def column(self, m):
        "A table whose first column names notebooks."
        return re.sub(r'^\|[^|]+', lambda c: re.sub(NUMBER, self.number, c[0]), m[0], flags=re.M)

    def name(self, m, module):
        first = m[1].split('.')[0]
        home = self.names[first][0] if first in self.clear else ''
        if home!=module and re.fullmatch('[a-z]+|[A-Z]+', m[1]): home = ''   # elsewhere a plain word is rarely this name
        target = m[1] if m[1] in self.modules else f'{home}.{m[1]}' if home else ''
        return f'{{py:obj}}`{m[1]} <{target}>`' if target else m[0]

    def __call__(self, text, module=''):
        "Markdown, of a page about a module, with links; code is left alone."
        parts = re.split(r'(```.*?```|\[[^\]]*\]\([^)]*\))', text, flags=re.S)
        for i in range(0, len(parts), 2):
            numbers = r'(?:\b[Nn]otebooks?|\*\*You need\*\*:)\s' + r'(?:(?:\d\d[a-z]?|a\d)(?:, | and | or | to )?)+\b'
            parts[i] = re.sub(numbers, lambda m: re.sub(NUMBER, self.number, m[0]), parts[i])
            parts[i] = re.sub(r'^\| notebooks? .*?(?=\n\n|\Z)', self.column, parts[i], flags=re.S|re.M)
            parts[i] = re.sub(r'(?<![`}])`([A-Za-z]\w*(?:\.\w+)*)`(?!`)', lambda m: self.name(m, module), parts[i])
        return ''.join(parts)


def prepared(book, links):
    "The cells of a page: exported ones are marked, and say where in the reference their names are."
    cells = []
    for i,c in enumerate(book.nb.cells):
        if c.cell_type=='markdown': c.source = links(c.source, book.module)
        if names := dict(book.explained(c)):
            refs = ' '.join(f'{{py:obj}}`{n} <{full}>`' for n,full in names.items())
            cells.append(mk_cell(f'{{#{book.path.stem}-{c.id} .built}}\n{refs}', 'markdown'))
        if 'export' in c.directives_: c.metadata['tags'] = ['export']
        cells.append(c)
        if not i: cells.append(mk_cell(f'{{.about}}\n{about(book)}', 'markdown'))
    book.nb.cells = cells
    return book.nb


def about(book):
    download = f'{{download}}`the notebook </originals/{book.path.name}>`'
    return (f'Cells with a blue edge are {{py:mod}}`{book.module}` · ' if book.module else '') + f'Download {download}'


class Written(str):
    "A text that is its own `repr`: a default in a signature."
    __repr__ = str.__str__


def default_text(value):
    "How a default is written; three dots where that would be long or no Python."
    text = getattr(value, '__name__', None) or object_description(value)
    try: ast.parse(text, mode='eval')
    except SyntaxError: return '...'
    return text if len(text) < 50 else '...'


def signature(obj, bound=False):
    "Names and defaults; types are in the table."
    write = lambda v: v if v is empty else Written(default_text(v))
    found = [p.replace(annotation=empty, default=write(p.default)) for p in inspect.signature(obj).parameters.values()]
    return str(inspect.Signature(found[bound:]))


def safe(text):
    "A comment as Markdown: outside of code, no character has a meaning of its own."
    parts = re.split(r'(`[^`]*`)', text)
    return ''.join(p if i%2 else re.sub(r'([*<$\[\]{}])', r'\\\1', p) for i,p in enumerate(parts))


def table(obj, links):
    "The docments of a function or class."
    rows = []
    for name,d in docments(obj, full=True).items():
        kind = '' if d.anno in (empty, None) else re.sub(r'~?\b(\w+\.)+', '', stringify_annotation(d.anno, 'smart'))
        value = '' if d.default is empty else default_text(d.default)
        comment = links(safe(d.docment or ''))
        if name in ('self', 'cls') or (name=='return' and not kind and not comment): continue
        code = lambda text: f'`{text}`' if text else ''
        rows.append([code(name) if name!='return' else '*returns*', links(code(kind)), code(value), comment])
    if not rows: return ''
    if rows[0][0]=='*returns*': return ' '.join(['Returns', rows[0][1], rows[0][3]])
    keep = [i for i in range(4) if any(r[i] for r in rows)]
    line = lambda cells: '| ' + ' | '.join(cells[i].replace('|', r'\|').replace('\n', ' ') for i in keep) + ' |'
    return '\n'.join([line(['parameter', 'type', 'default', 'meaning']), '|---'*len(keep)+'|', *map(line, rows)])


def entry(kind, head, body, options='', depth=3):
    "A directive of Sphinx's Python domain."
    fence = ':'*depth
    return f'{fence}{{py:{kind}}} {head}\n{options}\n' + '\n\n'.join(b for b in body if b) + f'\n{fence}'


class Reference:
    "The pages that name everything a module exports."
    def __init__(self, books, links):
        self.links, self.books = links, {b.module: b for b in books if b.module}

    def where(self, module, name):
        book = self.books.get(module)
        return f'{{.where}}\n[notebook {book.number}](#{book.label(name)})' if book and name in book.cells else ''

    def doc(self, obj): return self.links(safe(inspect.cleandoc(getattr(obj, '__doc__', None) or '')))

    def member(self, cls, name, raw):
        "A method or property of a class, wherever it was added."
        here = getattr(cls, name)
        f = raw.fget if isinstance(raw, property) else getattr(here, '__func__', here)
        if name[0]=='_' or not inspect.isfunction(f) or not f.__module__.startswith('audiolm_edu'): return ''
        kind = 'property' if isinstance(raw, property) else 'method'
        option = ':staticmethod:\n' if isinstance(raw, staticmethod) else ':classmethod:\n' if inspect.ismethod(here) else ''
        head = name + (signature(f, not isinstance(raw, staticmethod)) if kind=='method' else '')
        return entry(kind, head, [self.where(f.__module__, f'{cls.__name__}.{name}'), self.doc(f), table(f, self.links)], option)

    def named(self, book, name):
        "One public name."
        obj, where = getattr(book.exported, name), self.where(book.module, name)
        if inspect.isclass(obj):
            own = '__init__' in vars(obj)
            members = [self.member(obj, n, raw) for n,raw in vars(obj).items()]
            kind = 'exception' if issubclass(obj, Exception) else 'class'
            body = [where, self.doc(obj), table(obj, self.links) if own else '', *members]
            return entry(kind, name+(signature(obj) if own else ''), body, depth=4)
        if callable(obj): return entry('function', name+signature(obj), [where, self.doc(obj), table(obj, self.links)])
        said = re.search(rf'^{name}\b[^#\n]*#\s*(.+)$', book.cells[name].source, re.M) if name in book.cells else None
        value = object_description(obj)
        return entry('data', name, [where, safe(said[1]) if said else ''], f':value: {value if len(value) < 90 else "..."}\n')

    def page(self, book):
        top = [f'# {book.module}', self.doc(book.exported), f'{{.about}}\nBuilt in {{doc}}`{book.title} <{book.page}>`',
               entry('module', book.module, [], ':no-index-entry:')]
        return '\n\n'.join([*top, *(self.named(book, n) for n in book.names)])+'\n'


    def overview(self):
        rows = [f'| {{py:mod}}`{b.module}` | {self.doc(b.exported)} | {{doc}}`{b.number} <{b.page}>` |' for b in self.books.values()]
        return '\n'.join(['# Modules\n', '| module | | notebook |', '|---|---|---|', *rows, '', toctree('Modules', self.books)])


def toctree(caption, pages): return f'```{{toctree}}\n:caption: {caption}\n:hidden:\n\n' + '\n'.join(pages) + '\n```\n'


def group(book): return list(GROUPS.values())[bisect_right(list(GROUPS), book.number)-1]


def landing(root, src, books, links):
    "The README, with what it points to, and the order of the pages."
    text, cards = (root/'README.md').read_text(encoding='utf-8'), []
    text = re.sub(r'!\[([^\]]*)\]\(https?:[^)]*\)', r'\1', text)   # a badge is a picture on somebody else's server: its words will do
    for name in dict.fromkeys(re.findall(r'(?:\]\(|src=")([^)"#:\s]+)', text)):
        if (root/name).is_file() and not (src/name).exists():
            (src/name).parent.mkdir(parents=True, exist_ok=True); shutil.copy(root/name, src/name)
            if name.endswith('.md'): cards.append(name)
    trees = [toctree(g, [b.page for b in books if group(b)==g]) for g in dict.fromkeys(map(group, books))]
    trees += [toctree('Reference', ['api/index', 'genindex']), toctree('Licences and cards', cards)]
    (src/'index.md').write_text('\n'.join([links(text), *trees]), encoding='utf-8')


def prepare(root, src):
    "Write what Sphinx reads: pages, reference, landing page."
    books = sorted(map(Notebook, [*(root/'nbs').glob('[0-9]*.ipynb'), *(root/'nbs/assignments').glob('*.ipynb')]), key=lambda b: b.number)
    for b in books: b.names                              # imports: classes get the methods that later notebooks add
    links = Links(books); reference = Reference(books, links)
    for folder in ('nbs/assignments', 'originals', 'api'): (src/folder).mkdir(parents=True)
    for b in books:
        if b.master: (src/'originals'/b.path.name).write_text(as_notebook(released(cells_of(b.path))), encoding='utf-8')
        else: shutil.copy(b.path, src/'originals'/b.path.name)
        if b.module: (src/'api'/f'{b.module}.md').write_text(reference.page(b), encoding='utf-8')
        write_nb(prepared(b, links), src/f'{b.page[1:]}.ipynb')
    (src/'api/index.md').write_text(reference.overview(), encoding='utf-8')
    landing(root, src, books, links)


def build(out, root=HERE.parents[1]) -> int: # exit status
    "Build the site of a checkout into a new folder and check its links."
    if Path(out).exists(): sys.exit(f'{out}: is there already; old pages would hide broken links')
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as tmp:
        src = Path(tmp)/'src'; prepare(Path(root), src)
        status = build_main(['-q', '-W', '--keep-going', '-b', 'html', '-c', str(HERE), '-d', f'{tmp}/doctrees', str(src), str(out)])
    report = check(out)
    print(*report.wrong, f'{report}, {time.monotonic()-start:.0f} s', sep='\n')
    return int(bool(status or report.wrong))


if __name__ == '__main__': sys.exit(build(*sys.argv[1:3]))
