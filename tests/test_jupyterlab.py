"""The chapters in JupyterLab, as a reader has them: opened untrusted, run by Run All, saved, and the same
as before. That of the initiator awaits a handshake over the loopback interface."""
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser import Browser, chromium, needs_chromium, poll
from chapters import PAGES
from test_house import ROOT

pytestmark = needs_chromium
OPTIONS = ['--no-browser', '--allow-root', '--ServerApp.ip=127.0.0.1', '--ServerApp.port=0',
           '--LabApp.expose_app_in_browser=True', '--LabApp.extension_manager=readonly',
           '--LabApp.news_url=None', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate']
# what the functions below have at hand in the page
HERE = """
const app = window.jupyterapp, panel = app.shell.currentWidget;
const cells = () => [...panel.content.model.cells].filter(cell => cell.type === 'code');
const shown = cell => Array.from({length: cell.outputs.length}, (_, n) => cell.outputs.get(n).toJSON());
const failed = () => cells().flatMap(shown).filter(output => output.output_type === 'error');
const kernel = () => panel.sessionContext.session?.kernel;
"""
IDLE = HERE + "return kernel()?.status === 'idle'"
DONE = HERE + """
return failed().length || kernel()?.status === 'idle'
    && cells().every(cell => cell.executionCount !== null && cell.executionState === 'idle')"""
DRAWN = HERE + """
const found = [...panel.content.widgets[arguments[0]].node.querySelectorAll('.jp-RenderedMermaid img')];
return found.length === arguments[1] && found.every(img => img.complete && img.naturalWidth > 50)"""


@pytest.fixture(scope='module')
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The chapters, with what they read."
    folder = tmp_path_factory.mktemp('book')
    leave = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for name in 'nbs', 'keys', 'tests/vectors': shutil.copytree(ROOT / name, folder / name, ignore=leave)
    for name in 'conformance.tsv', 'security.tsv': shutil.copy(ROOT / 'tests' / name, folder / 'tests')
    return folder


@pytest.fixture(scope='module')
def server(book: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    "The address of a JupyterLab that knows nobody and has never seen these notebooks."
    home = tmp_path_factory.mktemp('home')
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(('JUPYTER', 'IPYTHON', 'XDG_'))}
    env |= {'HOME': str(home), 'PYTHONPATH': str(ROOT)}
    with (home / 'log').open('w') as log, subprocess.Popen(
            [sys.executable, '-m', 'jupyterlab', *OPTIONS, f'--ServerApp.root_dir={book}'],
            cwd=home, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as lab:
        try:
            def address() -> str | None:
                assert lab.poll() is None, (home / 'log').read_text()
                found = re.search(r'http://127\.0\.0\.1:\d+/lab\?token=\w+', (home / 'log').read_text())
                return found and found[0]
            yield poll(address, 60, (home / 'log').read_text)
        finally:
            lab.terminate()
            try: lab.wait(20)
            except subprocess.TimeoutExpired: lab.kill()


@pytest.fixture(scope='module')
def browser(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp('browser')) as found:
        found.width(1280)
        found.get(server)
        found.until('return window.jupyterapp && document.querySelector(".jp-Launcher")', timeout=60)
        yield found


def opened(browser: Browser, path: str) -> None:
    "Open a notebook as a click in the file browser does."
    browser.js(HERE + """
        return app.commands.execute('docmanager:open', {path: arguments[0], factory: 'Notebook'})
            .then(found => Promise.all([found.context.ready, found.revealed])).then(() => null)""", path)
    browser.until(HERE + 'return panel.context?.path === arguments[0]', path)


def closed(browser: Browser) -> None:
    "End the kernel and close the notebook in front."
    browser.js(HERE + 'return panel.sessionContext.shutdown().then(() => panel.dispose())')


def outputs(path: Path) -> dict[str, dict[str, str | list]]:
    "What each code cell shows, as nbval compares it: a stream as a whole, other things in their order."
    found: dict[str, dict[str, str | list]] = {}
    for cell in (cell for cell in nbformat.read(path, 4).cells if cell.cell_type == 'code'):
        here = found[cell.id] = {}
        for output in cell.outputs:
            if output.output_type == 'stream': here[output.name] = here.get(output.name, '') + output.text
            elif output.output_type == 'error': here.setdefault('error', []).append(output.evalue)
            else:
                for kind, data in output.data.items(): here.setdefault(kind, []).append(data)
    return found


def see_diagrams(browser: Browser, path: Path) -> None:
    "All diagrams of each cell are drawn, those of its prose and those of its outputs."
    for n, cell in enumerate(nbformat.read(path, 4).cells):
        texts = [output.get('data', {}).get('text/markdown', '') for output in cell.get('outputs', [])]
        if cell.cell_type == 'markdown': texts.append(cell.source)
        count = len(re.findall('^```mermaid', '\n'.join(texts), re.MULTILINE))
        if not count: continue
        browser.js(HERE + 'panel.content.renderCellOutputs(arguments[0])', n)  # now, not some time
        browser.until(DRAWN, n, count, timeout=120)


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_a_chapter_is_opened_run_and_saved(path: Path, book: Path, server: str, browser: Browser) -> None:
    opened(browser, f'nbs/{path.name}')
    try:
        see_diagrams(browser, path)  # nobody has trusted it yet
        browser.until(IDLE)
        browser.js(HERE + "app.commands.execute('runmenu:restart-and-run-all')")
        browser.until("return document.querySelector('.jp-Dialog button.jp-mod-accept')").click()
        browser.until(DONE, timeout=120)
        assert not browser.js(HERE + 'return failed()')
        see_diagrams(browser, path)
        browser.js(HERE + "return app.commands.execute('docmanager:save')")
        browser.until(HERE + 'return !panel.context.model.dirty')
        assert outputs(book / 'nbs' / path.name) == outputs(path)
        assert not browser.strangers(server)
    finally: closed(browser)
