"""The book as a site: `make docs` builds it, tests/test_site.py looks at each page in a browser.

The pages are made here, before Sphinx looks for any: the chapters from nbs/, the reference from
the docstrings and comments of ike_lit, the requirements from tests/conformance.tsv.
They go to the source folder of the build.
"""
import ast
import builtins
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tokenize
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.errors import ConfigError
from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'nbs'))
from chapters import AFTERNOON, BOOK, CHAPTERS, MODULES, PAGES, TOUR, WRITTEN
from conformance import Requirement, counts, requirements
from reading import PARTS, title

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
MERMAID = '11.16.1'  # the one that JupyterLab has, so that a diagram looks the same in both
INTEGRITY = ('sha512-TQsq6u22fAn3rek5VOubrhKPo1g5hwC3FXUN9hiyupTckcYiGuuKGkNQrKYwGJkXUxZdojwRG46gsSCFZMDp4g=='
             )  # npm view mermaid@11.16.1 dist.integrity


KEPT = ROOT / 'docs' / '_build' / f'mermaid-{MERMAID}.min.js'


def fetch() -> None:
    "Take Mermaid out of its npm package, once, and only if it is the one we know."
    if KEPT.exists(): return
    if not (npm := shutil.which('npm')): raise ConfigError('the diagrams need npm, once: apt-get install npm')
    with TemporaryDirectory() as folder:
        try: subprocess.run([npm, 'pack', '--silent', f'mermaid@{MERMAID}'],  # noqa: S603
                            cwd=folder, stdout=subprocess.DEVNULL, check=True, timeout=300)
        except subprocess.SubprocessError as error: raise ConfigError(f'no Mermaid: {error}') from None
        package, = Path(folder).glob('*.tgz')
        found = f'sha512-{b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()}'
        if found != INTEGRITY: raise ConfigError(f'mermaid {MERMAID} from npm is {found}, not {INTEGRITY}')
        with tarfile.open(package) as tar:
            script = tar.extractfile('package/dist/mermaid.min.js').read()
    KEPT.parent.mkdir(exist_ok=True)
    new = KEPT.with_suffix('.new')
    new.write_bytes(script)
    new.replace(KEPT)


project = html_title = 'ike-lit'
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.linkcode']
html_theme = 'furo'
html_static_path = ['site.css', 'diagrams.js', str(KEPT)]
html_css_files = ['site.css']
html_favicon = 'icon.svg'
pygments_dark_style = 'github-dark'
html_copy_source = False
nb_execution_mode = 'off'
nb_render_markdown_format = 'myst'
nb_code_prompt_show = 'What this chapter imports'
nb_code_prompt_hide = nb_code_prompt_show
myst_fence_as_directive = ['mermaid']
myst_heading_anchors = 3
add_module_names = False
autodoc_typehints_format = 'short'
toc_object_entries = False  # a third of the time, and each page of the reference begins with them
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(?!ike_lit\.).*')]  # of other people's pages there are none here


# -- chapters -------------------------------------------------------------------------------

def source(cell: dict) -> str: return ''.join(cell['source'])


def prose(text: str) -> dict:
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    return {'cell_type': 'markdown', 'id': name, 'metadata': {}, 'source': text}


def defined(code: str) -> Iterator[str]:
    "Yield the names that code defines at its top."
    for node in ast.parse(code).body:
        if isinstance(node, FUNCTION | ast.ClassDef): yield node.name
        for target in getattr(node, 'targets', [getattr(node, 'target', None)]):
            for name in ast.walk(target) if target else ():
                if isinstance(name, ast.Name): yield name.id


def chapter(path: Path) -> str:
    "Return a chapter with its number, a link to its reference, and places that others can point to."
    text = re.sub(r'href=\\"(\w+)\.ipynb', r'href=\"\1.html', path.read_text())  # in outputs that are HTML
    text = text.replace('](../docs/', '](')
    book, cells, places = json.loads(text), [], set()
    for cell in book['cells']:
        text = source(cell)
        if cell['cell_type'] == 'markdown': cells.append(cell)
        elif text.startswith('#| default_exp'): continue
        elif text.startswith('#| hide') or imports_alone(text):
            cells.append({**cell, 'metadata': {'tags': ['hide-cell']}})
        else:
            names = set(defined(text)) - places if text.startswith('#| export') else set()
            if names: cells.append(prose('\n'.join(f'<div id="def-{name}"></div>' for name in sorted(names))))
            places |= names
            cells.append(cell)
    if path in CHAPTERS:
        number = path.stem[:2]
        title, quote, rest = source(cells[0]).split('\n\n', 2)
        link = [f'Module: [ike_lit.{MODULES[module]}](reference/{module}.rst)'
                for module, written in WRITTEN.items() if written == path]
        cells[0] = prose('\n\n'.join([title.replace('# ', f'# {number} ', 1), quote, *link, rest]))
    elif path == TOUR: cells.append(prose(contents()))
    return json.dumps({**book, 'cells': cells})


def imports_alone(code: str) -> bool:
    "True for a cell that does nothing but import."
    return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(code).body)


def page(path: Path) -> str:
    "Return a page that is no notebook; what it says of files that the site does not have is no link."
    text = path.read_text().replace('](../nbs/', '](')
    return re.sub(r'\[([^]]+)\]\(\.\./[^)]+\)', r'`\1`', text)


def contents() -> str:
    "Return the table of contents, for the navigation."
    toc = [['Begin here', f'{title(AFTERNOON)} <{AFTERNOON.stem}>']]
    for part, chapters in PARTS.items():
        toc.append([part, *(f'{stem[:2]} {title(BOOK / f"{stem}.ipynb")} <{stem}>' for stem in chapters)])
    toc.append(['Looking things up', 'glossary', 'operating', 'verified',
                'What the RFC demands <conformance>', 'Reference <reference/index>'])
    return '\n\n'.join('```{toctree}\n:hidden:\n:caption: ' + '\n'.join([caption, '', *lines, '```'])
                       for caption, *lines in toc)


# -- the reference --------------------------------------------------------------------------

@cache
def module(name: str) -> SimpleNamespace:
    """Return what autodoc does not see of a module: the `names` that it exports, in order,
    and the `comments` beside its constants, fields and arguments."""
    text = (ROOT / 'ike_lit' / f'{MODULES[name].replace(".", "/")}.py').read_text()
    tree, lines, beside, comments = ast.parse(text), text.splitlines(), {}, {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line, column = token.start
        if token.type == tokenize.COMMENT and lines[line - 1][:column].strip():
            beside[line] = re.sub(r'^#:? *|(noqa|type: ignore).*', '', token.string)

    def note(name: str, line: int) -> None:
        if beside.get(line): comments[name] = beside[line]

    def visit(body: list[ast.stmt], prefix: str = '') -> None:
        for node in body:
            match node:
                case ast.ClassDef(): visit(node.body, f'{prefix}{node.name}.')
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    for arg in [*node.args.args, *node.args.kwonlyargs]:
                        if arg.lineno > node.lineno: note(f'{prefix}{node.name}.{arg.arg}', arg.lineno)
                case ast.Assign() | ast.AnnAssign():
                    if node.lineno == node.end_lineno:
                        for name in defined(ast.unparse(node)): note(prefix + name, node.lineno)

    visit(tree.body)
    exported = next(ast.literal_eval(node.value) for node in tree.body
                    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__')
    kinds = {node.name: 'function' if isinstance(node, FUNCTION) else 'class'
             for node in tree.body if isinstance(node, FUNCTION | ast.ClassDef)}
    names = [found for found in dict.fromkeys(defined(text)) if found in exported]
    heirs = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.bases}
    return SimpleNamespace(names=names, kinds=kinds, heirs=heirs, comments=comments,
                           says=ast.get_docstring(tree))


def reference(name: str) -> str:
    "Return the page of a module."
    title, found, stem = f'ike_lit.{MODULES[name]}', module(name), WRITTEN[name].stem
    lines = [title, '=' * len(title), '', found.says, '',
             f':doc:`Chapter {stem[:2]} </{stem}>` explains it; '
             'each *[source]* leads to the cell.', '',
             ' '.join(f':py:obj:`~{title}.{what}`' for what in found.names), '',
             f'.. py:module:: {title}', '']
    for what in found.names:
        kind = found.kinds.get(what, 'data')
        options = {'class': ['members:', 'undoc-members:', 'member-order: bysource'],
                   'data': ['no-value:']}.get(kind, [])
        if what in found.heirs: options.append('show-inheritance:')
        lines += [f'.. auto{kind}:: {title}.{what}', *(f'   :{option}' for option in options), '']
    return '\n'.join(lines)


def references() -> str:
    "Return the page that leads to all modules."
    toctree = '\n'.join(['```{toctree}', ':hidden:', '', *MODULES, '```'])
    rows = [f'| [{path.stem[:2]}](../{path.stem}.ipynb) | [{MODULES[name]}]({name}.rst) '
            f'| {module(name).says} |'
            for name, path in WRITTEN.items()]
    return '\n'.join(['# Reference', '', 'The package `ike_lit`: what each chapter exports.', '',
                      '| chapter | module | |', '|---|---|---|', *rows, '', toctree, ''])


def linked(text: str, here: str) -> str:
    "Return text with links where it names what some module exports."
    def link(name: str) -> str:
        for where in (here, *MODULES):
            if name in module(where).names: return f':py:obj:`~ike_lit.{MODULES[where]}.{name}`'
        return f'``{name}``'
    parts = re.split('`([^`]+)`', text)
    parts[::2] = [re.sub(r'([*|\\]|_\b)', r'\\\1', part) for part in parts[::2]]
    parts[1::2] = [link(part) for part in parts[1::2]]
    return ''.join(parts)


def remark(name: str) -> None:
    "Tell autodoc what the comments of a module say about its constants and fields."
    analyzer = ModuleAnalyzer.for_module(f'ike_lit.{MODULES[name]}')
    analyzer.analyze()
    for key, text in module(name).comments.items():
        owner, _, local = key.rpartition('.')
        analyzer.attr_docs[owner, local] = [text, '']


def describe(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    "Put links into what autodoc has found, and add what the comments say about arguments."
    here = next(where for where in MODULES if name.startswith(f'ike_lit.{MODULES[where]}.'))
    local = name.removeprefix(f'ike_lit.{MODULES[here]}.')
    comments = module(here).comments
    if what == 'data' and local not in comments: lines.clear()  # or it would be about the type
    if what in ('function', 'method'):
        lines += [f':param {arg}: {text}' for (owner, _, arg), text in
                  ((key.rpartition('.'), text) for key, text in comments.items()) if owner == local]
    lines[:] = linked('\n'.join(lines), here).split('\n')


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    "Return the cell that defines something."
    module, name = info['module'].rpartition('.')[2], info['fullname']
    return None if '.' in name else f'../{WRITTEN[module].stem}.html#def-{name}'


# -- the requirements -----------------------------------------------------------------------

def conformance() -> str:
    "Return the page of the requirements."
    lines = ['# What the RFC demands', '',
             f'{counts()}. Each row is a demand on an initiator (I) or a responder (R), with the places '
             'where it is met and the tests in `tests/` that fail when it is not, '
             'or with the reason why it is not met.', '']
    for part, rows in groupby(requirements(), lambda row: re.split('[.-]', row.id)[0]):
        lines += [f'## RFC {part}' if len(part) > 1 else f'## RFC 7296 §{part}', '',
                  '| | the demand, where it is met, and the tests |', '|---|---|', *map(row_of, rows), '']
    return '\n'.join(lines)


def row_of(row: Requirement) -> str:
    places = [f'<a href="{WRITTEN[where].stem}.html#def-{what}">{where}.{what}</a>'
              for where, _, what in (name.partition('.') for name in row.chapter.split())]
    tests = [f'`{name}`' for name in row.tests.split()]
    rfc, section = re.match(r'(?:RFC(\d+) ?)?([\d.]*)', row.section).groups()
    url = f'https://www.rfc-editor.org/rfc/rfc{rfc or 7296}' + (f'#section-{section}' if section else '')
    left = f'<a id="{row.id}" href="#{row.id}">{row.id}</a>', f'[{"" if rfc else "§"}{row.section}]({url})'
    right = row.requirement, row.note, ' '.join(places), ' '.join(tests)
    return f'| {"<br>".join([*left, row.level, row.role])} | {"<br>".join(filter(None, right))} |'


# -- what is done when ----------------------------------------------------------------------

def plain(app: Sphinx, doctree: nodes.document) -> None:
    "Let no type of Python's own lead to a field of ours that has its name."
    for found in list(doctree.findall(pending_xref)):
        if hasattr(builtins, found['reftarget']): found.replace_self(found.children)


class Diagram(Directive):
    "A fence with Mermaid source, which diagrams.js draws."
    has_content = True

    def run(self) -> list[nodes.Node]:
        text = escape('\n'.join(self.content))
        return [nodes.raw('', f'<pre class="mermaid">{text}</pre>\n', format='html')]


def add_scripts(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    "Give the pages that have diagrams, and only those, what draws them."
    if '<pre class="mermaid">' in context.get('body', ''):
        app.add_js_file(KEPT.name)
        app.add_js_file('diagrams.js', defer='defer')


def setup(app: Sphinx) -> None:
    "Write the pages, those that have changed, and tell Sphinx about the rest."
    fetch()
    pages = {f'{path.stem}.ipynb': chapter(path) for path in PAGES}
    pages |= {f'reference/{name}.rst': reference(name) for name in MODULES}
    pages |= {'reference/index.md': references(), 'conformance.md': conformance()}
    pages |= {name: page(ROOT / 'docs' / name) for name in ('operating.md', 'verified.md')}
    pages |= {f'measured/{path.name}': path.read_text() for path in (ROOT / 'nbs' / 'measured').glob('*.svg')}
    folder = Path(app.srcdir)
    for name in 'reference', 'measured': (folder / name).mkdir(exist_ok=True)
    for path in folder.rglob('*.*'):
        if str(path.relative_to(folder)) not in pages: path.unlink()
    for path, text in ((folder / name, text) for name, text in pages.items()):
        if not path.exists() or path.read_text() != text: path.write_text(text)
    for name in MODULES: remark(name)
    app.add_directive('mermaid', Diagram)
    app.connect('autodoc-process-docstring', describe)
    app.connect('doctree-read', plain)
    app.connect('html-page-context', add_scripts)
