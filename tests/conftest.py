"""What several files of tests use: the keys and the lab of those with a real strongSwan.

In CI nothing may be skipped: everything that a test needs is there.
What a test records as 'negotiated' or 'kernel' is printed at the end, as a table.
"""
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat, PublicFormat)
from peers.strongswan import NEWER, Lab, no_newer


TABLES = {'negotiated': 'negotiated with strongSwan', 'kernel': 'ESP in the kernel', 'flood': 'in a flood',
          'fuzzed': 'fuzzing, time of the processor'}
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # "make test &" in a script; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
collect_ignore_glob = [] if os.environ.get('KERNEL_TESTS') else ['test_kernel*.py']  # see tests/vm/run


@pytest.fixture(scope='session')
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Key pairs of both ends, and of a stranger."
    folder = tmp_path_factory.mktemp('keys')
    for name in 'left', 'right', 'stranger':
        key = generate_private_key(65537, 2048)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f'{name}.key').touch(mode=0o600)
        (folder / f'{name}.key').write_bytes(private)
        (folder / f'{name}.pub').write_bytes(public)
    return folder


@pytest.fixture(scope='module')
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp('lab')) as made: yield made


@pytest.fixture(scope='module')
def newer_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    "The same with strongSwan 6, which is fetched for it; without a network it can't be."
    if why := no_newer(): pytest.skip(why)
    with Lab(tmp_path_factory.mktemp('newer'), NEWER) as made: yield made


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin('terminalreporter')
    if os.environ.get('CI') and reporter and reporter.stats.get('skipped') and not exitstatus:
        reporter.write_line('\nCI is set, and tests were skipped: that is a failure')
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if reporter and (place := os.environ.get('LEFT_OUT')):  # see tests/whole
        reasons = Counter(str(report.longrepr[-1]) for report in reporter.stats.get('skipped', ()))
        with Path(place).open('a') as file:
            for reason, count in reasons.items():
                file.write(f"{count} test{'s' * (count > 1)}\t{reason.removeprefix('Skipped: ')}\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    "Print the tables that tests have recorded: each time a row, a column, a cell."
    for name, title in TABLES.items(): table(terminalreporter, name, title)


def table(terminalreporter: pytest.TerminalReporter, table: str, title: str) -> None:
    "Print what tests have recorded under a name."
    rows: dict[str, dict[str, str]] = {}
    for report in (r for kind in ('passed', 'failed') for r in terminalreporter.getreports(kind)):
        for row, column, cell in (v for name, v in report.user_properties if name == table):
            rows.setdefault(row, {})[column] = cell
    if not rows: return
    columns, width = dict.fromkeys(c for cells in rows.values() for c in cells), max(map(len, rows))
    terminalreporter.section(title, sep='-')
    for row, cells in {'': dict(zip(columns, columns, strict=True)), **rows}.items():
        line = ''.join(f'{cells.get(c, ""):>10}' for c in columns)
        terminalreporter.write_line(f'{row:{width}}{line}'.rstrip())
    if os.environ.get('KEEP') == table:  # for chapter 55
        from bench.measure import keep
        lines = [[row, *(cells.get(c, '') for c in columns)] for row, cells in rows.items()]
        keep(table, {'title': title.capitalize(), 'columns': ['', *columns], 'rows': lines},
             f'tests/test_{table}.py')
