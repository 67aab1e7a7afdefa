"""The book as a site: it builds without a warning, its links lead somewhere, and a browser shows each page
without a word from anybody else, with its diagrams, by day, by night, and on a telephone."""
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from browser import Browser, chromium, needs_chromium
from conformance import requirements
from selenium.webdriver.common.by import By
from chapters import MODULES, PAGES, WRITTEN
from test_house import ROOT, cells, source

pytestmark = pytest.mark.skipif(
    not shutil.which('npm') and not list((ROOT / 'docs' / '_build').glob('mermaid-*.js')),
    reason='no npm, for the diagrams: apt-get install npm')
DRAWN = """return [...document.querySelectorAll('pre.mermaid')].every(
    place => place.dataset.drawn === arguments[0])"""
SIZES = """return [...document.querySelectorAll('pre.mermaid svg')].map(
    svg => Math.min(svg.getBoundingClientRect().width, svg.getBoundingClientRect().height))"""
WIDTH = """return Math.max(...[document.scrollingElement, ...document.querySelectorAll('.content')].map(
    part => part.scrollWidth))"""
# what runs off the page, or has to be scrolled sideways to be read
OFF = """return [...document.querySelectorAll('.content :is(pre, table, svg)')].filter(part =>
    part.getBoundingClientRect().right > innerWidth || part.tagName === 'PRE' &&
    part.offsetParent && part.scrollWidth > part.clientWidth + 1).map(part => part.outerHTML.slice(0, 80))"""
# numbers in tables that a narrow column breaks in two
BROKEN = """return [...document.querySelectorAll('.content td')].filter(
        cell => /^[0-9]+$/.test(cell.innerText.trim()))
    .map(cell => document.createTreeWalker(cell, NodeFilter.SHOW_TEXT)).flatMap(walk => {
        const range = document.createRange();
        range.selectNodeContents(walk.nextNode());
        return range.getClientRects().length > 1 ? ['a number in pieces: ' + range] : [] })"""
# how readable coloured octets are, by WCAG: the lowest contrast of a text and what is behind it
CONTRAST = """
const light = rgb => rgb.map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [.2126, .7152, .0722][n], 0);
const parse = text => text.match(/[\\d.]+/g).map(Number);
const behind = node => {
  const colour = node ? parse(getComputedStyle(node).backgroundColor) : [255, 255, 255];
  return colour.length === 4 && !colour[3] ? behind(node.parentElement) : colour;
};
const contrast = node => {
  const [a, b] = [parse(getComputedStyle(node).color), behind(node)].map(c => light(c.slice(0, 3)));
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
};
return [...document.querySelectorAll(arguments[0])].filter(node => node.textContent.trim()).map(contrast)"""


@pytest.fixture(scope='session')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The site as `make docs` makes it: a warning is an error."
    folder = tmp_path_factory.mktemp('site')
    (folder / 'source').mkdir()
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-qW', '--keep-going', '-c', ROOT / 'docs',
                           folder / 'source', folder / 'html'],
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder / 'html'


@pytest.fixture(scope='session')
def home(site: Path) -> Iterator[str]:
    "The address of a server that has the site and nothing else."
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: pass

    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp('browser')) as found: yield found


class Page(HTMLParser):
    "What a page can be pointed at by, and what it points to."

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.loads = [], [], []
        self.captions, self.in_caption = [], False  # of the parts of the book, at the side
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if 'id' in found: self.ids.append(found['id'])
        if tag == 'a' and 'href' in found: self.links.append(found['href'])
        elif 'href' in found: self.loads.append(found['href'])
        if 'src' in found: self.loads.append(found['src'])
        self.in_caption = found.get('class') == 'caption-text'

    def handle_data(self, data: str) -> None:
        if self.in_caption: self.captions.append(data)
        self.in_caption = False


@pytest.fixture(scope='session')
def pages(site: Path) -> dict[str, Page]:
    return {str(path.relative_to(site)): Page(path) for path in sorted(site.rglob('*.html'))}


def test_every_chapter_module_and_requirement_has_its_place(pages: dict[str, Page]) -> None:
    names = [*(path.stem for path in PAGES), *(f'reference/{module}' for module in MODULES), 'conformance']
    assert {f'{name}.html' for name in names} <= set(pages)
    assert pages['index.html'].captions[:2] == ['Begin here', 'The words']
    assert max(map(len, pages['index.html'].captions)) < 30
    for row in requirements(): assert row.id in pages['conformance.html'].ids
    for module, path in WRITTEN.items():
        assert f'reference/{module}.html' in pages[f'{path.stem}.html'].links
        assert f'../{path.stem}.html' in pages[f'reference/{module}.html'].links


def test_every_link_leads_somewhere(site: Path, pages: dict[str, Page]) -> None:
    "Each href and src of each page is a file, and its anchor an id in there; only links lead elsewhere."
    wrong = []
    for name, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), f'{name} has an id twice: {sorted(page.ids)}'
        for target in [*page.links, *page.loads]:
            where = urlsplit(urljoin(f'http://site/{name}', target))
            if where.scheme == 'https' and target in page.links: continue
            path, anchor = unquote(where.path).lstrip('/'), unquote(where.fragment)
            ids = pages[path].ids if path in pages else []
            if where.netloc != 'site' or not (site / path).is_file() or anchor and anchor not in ids:
                wrong.append(f'{name}: {target}')
    assert not wrong, '\n'.join(wrong)
    assert sum(len(page.links) for page in pages.values()) > 3000


def diagrams(path: Path) -> int:
    "How many diagrams a chapter has, in its prose and in its outputs."
    texts = [source(cell) for cell in cells(path, 'markdown')]
    texts += [''.join(output.get('data', {}).get('text/markdown', '')) for cell in cells(path)
              for output in cell['outputs']]
    return sum(len(re.findall('^```mermaid', text, re.MULTILINE)) for text in texts)


@needs_chromium
def test_a_browser_shows_every_page(pages: dict[str, Page], home: str, browser: Browser) -> None:
    """No error, and nobody else is asked. All diagrams of the chapter are there.
    On a desk and on a telephone all of a chapter is on the screen, without scrolling sideways."""
    wanted = {f'{path.stem}.html': diagrams(path) for path in PAGES}
    wrong: list[str] = []
    browser.prefer('light')
    for name in pages:
        browser.width(1280)
        browser.get(home + name)
        browser.until(DRAWN, 'default')
        drawn = [size > 40 for size in browser.js(SIZES)]
        off = browser.js(OFF) + browser.js(BROKEN) if name in wanted else []
        browser.width(390)
        off += browser.js(OFF) if name in wanted else []
        wide = browser.js(WIDTH)
        wrong += [f'{name}: {what}' for what in (*browser.complaints(), *browser.strangers(home))]
        wrong += [f'{name} is wider than the page, or a column: {what}' for what in off]
        if wide > 390: wrong.append(f'{name}: {wide} px wide')
        if drawn != [True] * wanted.get(name, 0): wrong.append(f'{name}: {drawn}, not {wanted.get(name)}')
    assert not wrong, '\n'.join(wrong)
    assert sum(wanted.values()) > 30


@needs_chromium
def test_search(home: str, browser: Browser) -> None:
    "Who looks for COOKIE is led to a chapter that says what it is."
    browser.get(f'{home}search.html?q=COOKIE')
    chapter = browser.until("""  // results come one after the other
        return [...document.querySelectorAll('#search-results li a')].map(a => a.href)
            .find(url => /(25_ike_sa|28_host)[.]html/.test(url))""")
    browser.get(chapter)
    assert 'COOKIE' in browser.find_element(By.TAG_NAME, 'article').text
    assert not browser.complaints() and not browser.strangers(home)


@needs_chromium
def test_day_and_night(home: str, browser: Browser) -> None:
    "The page follows the system, and then its own switch; octets stay readable, and diagrams follow."
    browser.width(1280)
    browser.prefer('light')
    browser.get(f'{home}25_ike_sa.html')
    browser.until(DRAWN, 'default')
    by_day = browser.js('return getComputedStyle(document.body).backgroundColor')
    assert min(browser.js(CONTRAST, 'article pre span, article pre b, article p')) > 4.5
    browser.prefer('dark')
    browser.until(DRAWN, 'dark')
    assert browser.js('return getComputedStyle(document.body).backgroundColor') != by_day
    assert min(browser.js(CONTRAST, 'article pre span, article pre b, article p')) > 4.5
    wanted = {'light': 'default', 'dark': 'dark'}
    for _ in range(3):
        browser.js("document.querySelector('.content-icon-container .theme-toggle').click()")
        theme = browser.js('return document.body.dataset.theme')
        browser.until(DRAWN, wanted.get(theme, 'dark'))
    assert not browser.complaints()
