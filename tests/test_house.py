"The house rules: the package is the export, floors look down, chapters are clean and have outputs."
import ast
import builtins
import json
import keyword
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chapters import CHAPTERS, MODULES, PAGES, WINGS, WRITTEN
from reading import PARTS, PATH, fives, minutes

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {'kernel': {'socket', 'subprocess'}, 'testing': {'socket', 'random'}}  # besides what all may import
by_name = pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)


def cells(path: Path, kind: str = 'code') -> list[dict]:
    return [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == kind]


def source(cell: dict) -> str: return ''.join(cell['source'])


def file_of(name: str) -> Path: return ROOT / 'ike_lit' / f'{MODULES[name].replace(".", "/")}.py'


def module_tree(name: str) -> ast.Module: return ast.parse(file_of(name).read_text())


def test_the_package_is_what_the_chapters_export(tmp_path: Path) -> None:
    "Export into an empty folder and compare: nothing was written by hand, nothing is left over."
    files = ['pyproject.toml', 'settings.ini', 'setup.py', 'README.md', 'LICENSE']
    for name in files: (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / 'nbs').mkdir()
    for path in PAGES: (tmp_path / 'nbs' / path.name).write_bytes(path.read_bytes())
    done = subprocess.run([Path(sys.executable).with_name('nbdev-export')], cwd=tmp_path,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    here, there = ({str(path.relative_to(package)): path.read_text() for path in package.rglob('*.py')}
                   for package in (ROOT / 'ike_lit', tmp_path / 'ike_lit'))
    made = {str(file_of(name).relative_to(ROOT / 'ike_lit')) for name in MODULES}
    assert set(here) == {'__init__.py', '_modidx.py', *(f'{wing}/__init__.py' for wing in WINGS), *made}
    for name in made: assert here[name] == there[name], f'run make export: {name}'


def test_the_wheel_has_every_module(tmp_path: Path) -> None:
    subprocess.run([sys.executable, 'setup.py', '-q', 'build_py', '-d', tmp_path], cwd=ROOT,
                   capture_output=True, timeout=120, check=True)
    there, here = ({path.relative_to(folder) for path in folder.rglob('*.py')}
                   for folder in (tmp_path / 'ike_lit', ROOT / 'ike_lit'))
    assert there == here


def imports(name: str) -> Iterator[str]:
    "Yield what a module imports from the package, by its dotted name there."
    inside = MODULES[name].split('.')[:-1]
    for node in ast.walk(module_tree(name)):
        if isinstance(node, ast.ImportFrom): assert not (node.module or '').startswith('ike_lit')
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = inside[:len(inside) - node.level + 1]
            yield '.'.join([*folder, node.module or ''])


def test_floors_look_down() -> None:
    "A chapter imports only lower ones: the number of a chapter is its floor."
    floors, seen = list(MODULES.values()), 0
    for floor, name in enumerate(MODULES):
        for other in imports(name):
            assert other in floors[:floor], f'{name} imports {other}'
            seen += 1
    assert seen > 50


def test_a_wing_imports_what_it_may() -> None:
    for name, dotted in MODULES.items():
        wing = dotted.rpartition('.')[0]
        if not wing: continue  # a program that people run may import all
        for other in imports(name):
            assert other.partition('.')[0] in (wing, *WINGS[wing]), f'{name} imports {other}'


@pytest.mark.parametrize(('wing', 'never'), [
    ('wire', ('engine', 'kernel', 'capture', 'cli', 'testing')),
    ('capture', ('engine', 'kernel', 'cli', 'testing')),
    ('engine', ('kernel', 'capture', 'cli', 'testing')), ('testing', ('kernel', 'capture', 'cli'))])
def test_a_wing_by_itself_loads_no_other(wing: str, never: tuple[str, ...]) -> None:
    mine = [f'ike_lit.{dotted}' for dotted in MODULES.values() if dotted.startswith(f'{wing}.')]
    done = subprocess.run([sys.executable, '-c', f'import sys, {", ".join(mine)}\nprint(*sys.modules)'],
                          capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.split('.')[1] for name in done.stdout.split() if name.startswith('ike_lit.')}
    assert wing in loaded and not loaded & set(never)


def test_no_io_below_the_programs() -> None:
    """Sockets and processes belong to the programs, and to what feeds the kernel; clocks to the programs.

    What helps tests has chance from a seed."""
    forbidden = {'socket', 'asyncio', 'time', 'subprocess', 'select', 'threading', 'secrets',
                 'random', 'logging'}
    programs = {'probe', 'driver', 'connection', 'program', 'initiator', 'responder'}
    for name in (m for m in MODULES if m not in programs):
        for node in ast.walk(module_tree(name)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            allowed = ALLOWED.get(MODULES[name].partition('.')[0], set())
            assert not (forbidden - allowed) & {n.split('.')[0] for n in names}, f'{name} imports {names}'


@by_name
def test_chapters_are_clean(path: Path) -> None:
    "No execution counts, no foreign metadata, no stored errors, an id for each cell."
    book = json.loads(path.read_text())
    assert set(book['metadata']) <= {'kernelspec', 'language_info'}
    ids = [cell['id'] for cell in book['cells']]
    assert len(ids) == len(set(ids))
    for cell in book['cells']:
        assert set(cell['metadata']) <= {'tags'}
        if cell['cell_type'] == 'markdown': continue
        assert cell['execution_count'] is None
        assert not [o for o in cell['outputs'] if o['output_type'] == 'error']


@by_name
def test_chapters_store_what_their_cells_show(path: Path) -> None:
    "A cell that ends in an expression, or prints, has its output in the file."
    for cell in cells(path):
        lines = source(cell)
        if '#| export' in lines or '#| hide' in lines: continue
        last = ast.parse(lines).body[-1] if ast.parse(lines).body else None
        shows = isinstance(last, ast.Expr) and not re.match(r'test_eq|print|wire', ast.unparse(last))
        assert cell['outputs'] or not (shows or re.search(r'^print\(', lines, re.MULTILINE)), lines


@by_name
def test_no_cell_shows_a_bare_tuple(path: Path) -> None:
    "What is shown has a label each: `labelled`, a table, a picture."
    for cell in cells(path):
        body = ast.parse(source(cell)).body
        shown = isinstance(body[-1], ast.Expr) and body[-1].value if body else None
        assert not isinstance(shown, ast.Tuple), source(cell)


@by_name
def test_links_lead_somewhere(path: Path) -> None:
    for cell in cells(path, 'markdown'):
        for target in re.findall(r'\]\(([^)]+)\)', source(cell)):
            if not target.startswith('https://'): assert (path.parent / target).exists(), target


NUMBERED = re.compile(r'\[(?:[Cc]hapter )?(\d\d)\]\([^)]*?(\d\d)_\w+\.ipynb')


@by_name
def test_a_link_says_the_number_of_its_chapter(path: Path) -> None:
    for cell in cells(path, 'markdown'):
        for said, meant in NUMBERED.findall(source(cell)): assert said == meant, source(cell)


def test_the_sections_that_the_tour_names_are_where_it_says() -> None:
    tour = next(path for path in PAGES if path.stem == 'index')
    named = [found for cell in cells(tour, 'markdown')
             for found in re.findall(r'\*([^*]+)\* \((\d\d)\)', source(cell))]
    assert len(named) == 6
    for section, number in named:
        chapter = next(path for path in CHAPTERS if path.stem.startswith(number))
        titles = [line.lstrip('# ') for cell in cells(chapter, 'markdown')
                  for line in source(cell).splitlines() if line.startswith('#')]
        assert section in titles, f'{section} is not in {chapter.name}'


@pytest.mark.parametrize('name', ['README.md', 'SECURITY.md', 'docs/operating.md', 'docs/verified.md'])
def test_what_is_no_notebook_leads_somewhere_too(name: str) -> None:
    for target in re.findall(r'\]\(([^)]+)\)', (ROOT / name).read_text()):
        if not target.startswith('https://'):
            assert (ROOT / name).parent.joinpath(target.partition('#')[0]).exists(), target
    for said, meant in NUMBERED.findall((ROOT / name).read_text()): assert said == meant


def test_every_package_is_named() -> None:
    packages = ' '.join((ROOT / '.ci' / 'packages').read_text().split())
    assert packages in (ROOT / 'docs' / 'verified.md').read_text()


def test_the_tour_leads_to_every_chapter_and_through_all_in_two_hours() -> None:
    assert sorted(stem for part in PARTS.values() for stem in part) == [path.stem for path in CHAPTERS]
    times = {path.stem: minutes(path) for path in PAGES}
    path = [minutes(path, ('#| hide', '#| export')) for path in PAGES if path.stem in PATH]
    assert len(path) == len(PATH) and sum(path) <= 120
    assert round(sum(map(fives, times.values())) / 60) == 13  # as it says


def test_modules_are_small_and_exported_cells_short() -> None:
    for name in MODULES: assert len(file_of(name).read_text().splitlines()) <= 500
    for path in CHAPTERS:
        for cell in cells(path):
            for line in source(cell).splitlines(): assert len(line) <= 100, f'{path.name}: {line}'
        opening = source(cells(path, 'markdown')[0])
        assert re.match(r'# .+\n\n> .+', opening), f'{path.name} needs a title and a sentence'


MOST_LINES, MOST_OF_A_CLASS = 25, 60  # of an exported cell; neither blank ones nor directives count


def length(text: str) -> int:
    return sum(bool(line.strip()) and not line.startswith('#|') for line in text.splitlines())


def kind_of(node: ast.stmt) -> str:
    "Say what a definition is: a table of names and values, a class of data, another class, a function."
    if not isinstance(node, ast.ClassDef): return 'function'
    said = ' '.join(map(ast.unparse, (*node.decorator_list, *node.bases)))
    if 'Registry' in said or 'Enum' in said: return 'table'
    return 'data' if 'dataclass' in said or 'NamedTuple' in said else 'class'


def oversized(cell: str) -> Iterator[str]:
    "Yield what is too long: a class, or a cell that is no table, no data and not a single class."
    found = [node for node in ast.parse(cell).body
             if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    kinds = list(map(kind_of, found))
    for kind, node in zip(kinds, found, strict=True):
        size = length(ast.get_source_segment(cell, node) or '')
        methods = any(isinstance(part, ast.FunctionDef) for part in node.body)
        held_to_it = kind == 'class' or kind == 'data' and methods
        if held_to_it and size > MOST_OF_A_CLASS: yield f'{node.name}: {size} lines'
    if length(cell) > MOST_LINES and kinds != ['class'] and not set(kinds) <= {'data', 'table'}:
        yield f'{", ".join(node.name for node in found)}: {length(cell)} lines'


BIG = '    a = 1\n' * (MOST_LINES + 1)
CLASS = f'class A:\n{BIG}'


@pytest.mark.parametrize(('large', 'fine'), [
    (f'def f():\n{BIG}', BIG.replace('    ', '')),
    (f'{CLASS}def f(): pass', f'{CLASS}    def f(self): pass\nB = 1'),
    (f'{CLASS}    def f(self): pass\nclass B: pass', f'@dataclass\n{CLASS}    def f(self): pass'),
    (f'{CLASS}{BIG}{BIG}', f'{CLASS}{BIG}')])
def test_what_is_too_long_is_noticed(large: str, fine: str) -> None:
    assert list(oversized(large))
    assert not list(oversized(fine))


def test_a_cell_has_one_idea() -> None:
    for path in WRITTEN.values():
        for cell in filter(lambda text: '#| export' in text, map(source, cells(path))):
            found = list(oversized(cell))
            assert not found, f'{path.name}: {found}'


def test_everything_public_says_what_it_is() -> None:
    for name in MODULES:
        for node in module_tree(name).body:
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            if isinstance(node, kinds) and not node.name.startswith('_'):
                assert ast.get_docstring(node), f'{name}.{node.name} has no docstring'


FOREIGN = {'_replace', '_asdict', '_name_', '_value_', '_repr_html_'}  # of Python's and IPython's own


def test_what_is_private_stays_in_its_module() -> None:
    "Nobody reaches into an object of another module's; its functions may, beside the class."
    for name in MODULES:
        tree = module_tree(name)
        private = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                   and re.match('_[^_]', node.attr) and node.attr not in FOREIGN]
        own = {node.attr for node in private if ast.unparse(node.value) in ('self', 'cls')}
        assert not {node.attr for node in private} - own, name


PROGRAMS = {'main', 'build_parser'}  # which what people run with -m has each


def test_no_public_name_has_two_meanings() -> None:
    "Whoever reads a name finds one thing, in one module."
    where: dict[str, list[str]] = {}
    for name in MODULES:
        for node in module_tree(name).body:
            for made in names_made(node): where.setdefault(made, []).append(name)
    twice = {made: names for made, names in where.items()
             if len(names) > 1 and not made.startswith('_') and made not in PROGRAMS}
    assert not twice, twice


def names_made(node: ast.stmt) -> Iterator[str]:
    "Yield the names that a statement of a module defines."
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef): yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign): targets = [node.target]
    for target in targets:
        yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def test_no_assert_and_no_shell_in_the_package() -> None:
    "Both would be decided by input or by -O."
    for name in MODULES:
        for node in ast.walk(module_tree(name)):
            assert not isinstance(node, ast.Assert), name
            assert not (isinstance(node, ast.keyword) and node.arg == 'shell'), name


OPTION = re.compile(r'(?<![\w-])--[a-z][\w-]*')


def docstrings(tree: ast.Module) -> dict[int, str]:
    "Return the docstrings of a module and of what is in it, by the identity of the node."
    found = {}
    for node in ast.walk(tree):
        match node:
            case (ast.Module(body=[ast.Expr(ast.Constant(value=str(text)) as doc), *_])
                  | ast.ClassDef(body=[ast.Expr(ast.Constant(value=str(text)) as doc), *_])
                  | ast.FunctionDef(body=[ast.Expr(ast.Constant(value=str(text)) as doc), *_])
                  | ast.AsyncFunctionDef(body=[ast.Expr(ast.Constant(value=str(text)) as doc), *_])):
                found[id(doc)] = text
    return found


def options_named(tree: ast.Module) -> Iterator[str]:
    "Yield the options of programs that strings name; a docstring may name them."
    docs = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield from OPTION.findall(node.value)


@pytest.mark.parametrize(('source', 'named'), [
    ("raise ValueError('take --mode tunnel')", ['--mode']),
    ("where = f'--local {local}; or --ca, --pool'", ['--local', '--ca', '--pool']),
    ('def f():\n    "What --mode says."', []), ("print('a -- b', 'x--y', '---')", [])])
def test_an_option_is_noticed(source: str, named: list[str]) -> None:
    assert list(options_named(ast.parse(source))) == named


def test_a_library_names_no_options() -> None:
    "Whoever imports it has none: an error states a fact, and chapter 29 says which option would help."
    for name, dotted in MODULES.items():
        if dotted.partition('.')[0] in ('wire', 'engine', 'kernel'):
            assert not list(options_named(module_tree(name))), name


NOT_YET = {'engine'}  # the wing that is not held to this so far
COMPREHENSION = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def is_series(node: ast.expr) -> bool:
    "True for what can be repeated: a text, octets, a list or a tuple, as they stand in the source."
    if isinstance(node, ast.Constant): return isinstance(node.value, str | bytes)
    return isinstance(node, ast.JoinedStr | ast.List | ast.Tuple)


def is_truth(node: ast.expr) -> bool:
    "True for what is seen to be true or false, and no number."
    if isinstance(node, ast.UnaryOp): return isinstance(node.op, ast.Not)
    if isinstance(node, ast.Call): return ast.unparse(node.func) in ('bool', 'isinstance')
    return isinstance(node, ast.Compare | ast.BoolOp)


def golfed(tree: ast.Module) -> Iterator[str]:
    "Yield the lines that are shorter than they are clear, and why."
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left, ast.Mult(), right):
                if is_series(left) and is_truth(right) or is_truth(left) and is_series(right):
                    yield f'{node.lineno}: repeated as often as something is true'
            case ast.Try(body=[first, *_]) if first.lineno == node.lineno:
                yield f'{node.lineno}: a statement in the line of its try'
            case ast.While(body=[ast.Continue() as only]) if only.lineno == node.test.end_lineno:
                yield f'{node.lineno}: a loop whose condition does the work'
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                parts = list(ast.walk(node))
                if len(node.generators) > 1: yield f'{node.lineno}: a comprehension with two loops'
                if sum(isinstance(part, COMPREHENSION) for part in parts) > 1:
                    yield f'{node.lineno}: a comprehension in a comprehension'
                if sum(isinstance(part, ast.NamedExpr) for part in parts) > 1:
                    yield f'{node.lineno}: a comprehension with two names of its own'


@pytest.mark.parametrize(('golf', 'plain'), [
    ("'s' * (n > 1)", "'s' if n > 1 else ''"), ("f' {n}' * bool(n)", "'-' * 8"),
    ('[n] * (not m)', '[n] * m'), ('(n and m) * (1, 2)', 'n * m'),
    ('try: f()\nexcept E: g()', 'try:\n    f()\nexcept E: g()'),
    ('while not (n := f()): continue', 'while not n: n = f()'),
    ('[n for m in ms for n in m]', '[n for n in chain.from_iterable(ms)]'),
    ('{m: [n for n in m] for m in ms}', '{m: list(m) for m in ms}')])
def test_golf_is_noticed(golf: str, plain: str) -> None:
    assert list(golfed(ast.parse(golf)))
    assert not list(golfed(ast.parse(plain)))


def test_nothing_is_golfed() -> None:
    "Code is read: no arithmetic with truth, no second statement in a line of try, one loop at a time."
    for name, dotted in MODULES.items():
        if dotted.partition('.')[0] in NOT_YET: continue
        found = [f'{name}:{line}' for line in golfed(module_tree(name))]
        assert not found, found


# Names of other programs, the kernel, files; keywords of algorithms
ELSEWHERE = {
    'expect_fail', 'tcpdump', 'charon', 'block_threshold', 'trap', 'perf', 'core_pattern', 'BN_mod_exp_mont',
    'SO_REUSEPORT', 'ikev2_decryption_table', 'RealMessage1', 'CPRQ', 'SECURITY', 'example', 'canonical',
    'aes192', 'aes256', 'aes256gcm16', 'aes_gcm256', 'x25519'}
SPAN = re.compile(r'(?<!`)`([A-Za-z_][\w.]*)(?:\(.*?\))?`(?!`)')


def names_in_code(tree: ast.Module, everything: bool = True) -> Iterator[str]:
    "Yield what is defined, imported or reached by a dot; with `everything`, what is used or a text as well."
    docs = docstrings(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)): yield name
            case ast.alias(name, other): yield from (*name.split('.'), other or '')
            case ast.Name(id=name) if everything: yield name
            case ast.Constant(value=str(text)) if everything and id(node) not in docs:
                yield from re.findall(r'\w+', text)
            case ast.Module(body=body) | ast.ClassDef(body=body):
                for made in body: yield from names_made(made)


def names_in_prose(text: str) -> set[str]:
    "Return the names between backticks; those of one to three letters may be anything."
    text = re.sub(r'^ *```.*?^ *```|^    .*?$', '', text, flags=re.MULTILINE | re.DOTALL)
    found = {part for name in SPAN.findall(text) for part in name.split('.')}
    return {name for name in found if len(name) > 3}


@pytest.fixture(scope='module')
def known_names() -> set[str]:
    "Names that any chapter may speak of: those of the package, of Python, and from elsewhere."
    known = {'ike_lit', *MODULES, *dir(builtins), *keyword.kwlist, *ELSEWHERE}
    for name, dotted in MODULES.items():
        known.update(dotted.split('.'), names_in_code(module_tree(name), everything=False))
    return known


@by_name
def test_a_name_in_prose_is_there(path: Path, known_names: set[str]) -> None:
    "What stands in backticks is a name of the package, of the chapter's own cells, or of Python."
    trees = [ast.parse(source(cell)) for cell in cells(path)]
    known = known_names.union(*map(names_in_code, trees))
    prose = [source(cell) for cell in cells(path, 'markdown')]
    for tree in trees: prose += docstrings(tree).values()
    for text in prose: assert not names_in_prose(text) - known, f'{path.name}: {text}'


def test_a_name_that_is_gone_is_noticed() -> None:
    code = ast.parse('from a import c as d\nclass E:\n    "old"\n    n: int\n    def f(self): self.it(key=g)')
    made = {'c', 'd', 'E', 'n', 'f', 'self', 'it', 'key'}
    assert set(names_in_code(code, everything=False)) == made
    assert set(names_in_code(code)) == made | {'int', 'g'}
    text = '`gone(now)` and `host.passing`, `a b`, `SPI`\n\n    `code`\n\n```\n`drawn`\n```\n'
    assert names_in_prose(text) == {'gone', 'host', 'passing'}
