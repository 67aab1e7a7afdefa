"Debian's Chromium without a window, for the tests that look at pages as a reader sees them."
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PROGRAMS = 'chromium', 'chromedriver'
FLAGS = ('--headless=new', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
         '--disable-sync', '--disable-background-networking', '--disable-component-update')


def missing() -> str | None:
    "What there is no browser for, if so."
    lacking = [name for name in PROGRAMS if not shutil.which(name)]
    if lacking: return f'no {" ".join(lacking)}: apt-get install chromium chromium-driver'
    try: socket.gethostbyname('localhost')  # where the driver is called
    except OSError: return 'nobody knows localhost: add it to /etc/hosts'
    return None


needs_chromium = pytest.mark.skipif(bool(missing()), reason=missing() or '')


class Browser(Chrome):
    "A browser that remembers what it asked for, and from whom."

    def asked(self) -> list[str]:
        "The URLs that were asked for since the last time, those that need a network."
        events = [json.loads(entry['message'])['message'] for entry in self.get_log('performance')]
        urls = [e['params']['request']['url'] for e in events if e['method'] == 'Network.requestWillBeSent']
        urls += [e['params']['url'] for e in events if e['method'] == 'Network.webSocketCreated']
        return [url for url in urls if urlsplit(url).scheme in ('http', 'https', 'ws', 'wss')]

    def strangers(self, home: str) -> list[str]:
        "The URLs that were asked for since the last time, elsewhere than at home."
        return [url for url in self.asked() if urlsplit(url).netloc != urlsplit(home).netloc]

    def complaints(self) -> list[str]:
        "What was written to the console since the last time, as a warning or worse."
        return [e['message'] for e in self.get_log('browser') if e['level'] in ('WARNING', 'SEVERE')]

    def js(self, code: str, *args: object) -> Any:
        "What a function body returns in the page; a promise is waited for."
        return self.execute_script(code, *args)

    def until(self, code: str, *args: object, timeout: float = 30) -> Any:
        "Wait until a function body returns something that is true in the page; return it."
        return poll(lambda: self.js(code, *args), timeout, lambda: f'{code} {args} {self.complaints()}')

    def width(self, pixels: int) -> None:
        "Be as wide as this, whatever a window must be."
        self.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                             {'width': pixels, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False})

    def prefer(self, scheme: str) -> None:
        "Be the browser of somebody who likes it light, or dark."
        self.execute_cdp_cmd('Emulation.setEmulatedMedia',
                             {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})


def poll(ready: Callable[[], Any], timeout: float, what: Callable[[], object]) -> Any:
    "Wait until something is true; return it."
    deadline = time.monotonic() + timeout
    while not (found := ready()):
        if time.monotonic() > deadline: pytest.fail(f'not within {timeout} s: {what()}')
        time.sleep(0.05)
    return found


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    "A browser that keeps what it must keep in a folder."
    options = ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for flag in [*FLAGS, f'--user-data-dir={folder / "profile"}', *['--no-sandbox'] * (os.geteuid() == 0)]:
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    browser = Browser(options, Service(shutil.which('chromedriver'), env={**os.environ, 'HOME': str(folder)}))
    try:
        browser.set_script_timeout(60)
        browser.set_page_load_timeout(60)
        yield browser
    finally: browser.quit()
