"What `make test` does before and after the tests: tests/bring, and the list of what was left out."
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_house import ROOT

PACKAGES = (ROOT / '.ci' / 'packages').read_text().split()
STAND_INS = {  # what they are asked is written down; $HAVE, $USER_ID and $REFUSES say what they answer
    'dpkg-query': 'for name; do :; done; case " $HAVE " in *" $name "*) printf installed;; *) exit 1;; esac',
    'apt-get': 'echo "apt-get $*" >> "$NOTES"; case "$*" in *install*) [ -z "$REFUSES" ];; esac',
    'id': 'echo "$USER_ID"', 'sudo': 'echo "a password is needed" >&2; exit 1'}
Bring = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    "Run tests/bring among stand-ins: its exit status, what it says, and what apt-get was asked."
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
        (tmp_path / name).chmod(0o755)
    notes = tmp_path / 'notes'
    (tmp_path / 'vm' / 'openiked').mkdir(parents=True)

    def run(*words: str, have: list[str] = PACKAGES, user: int = 0,
            **more: str) -> tuple[int, str, list[str]]:
        notes.write_text('')
        env = {'PATH': f'{tmp_path}:/usr/bin:/bin', 'HAVE': ' '.join(have), 'USER_ID': str(user),
               'REFUSES': '', 'NOTES': str(notes), 'IKE_LIT_VM': str(tmp_path / 'vm'), **more}
        done = subprocess.run([ROOT / 'tests' / 'bring', *words], env=env, capture_output=True, text=True,
                              timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr, notes.read_text().splitlines()
    return run


def lacking(*names: str) -> list[str]: return [name for name in PACKAGES if name not in names]


def test_where_nothing_is_lacking_nothing_is_done(bring: Bring) -> None:
    assert bring() == bring('--say') == (0, '', [])


def test_what_is_missing_is_installed_and_named(bring: Bring) -> None:
    status, said, asked = bring('git', have=lacking('tshark', 'cpio'))
    assert status == 0 and said == 'tests/bring: installing what the tests need: tshark cpio git\n'
    assert [line.split()[-1] for line in asked] == ['update', 'git']
    assert '--no-remove tshark cpio git' in asked[1]


def test_who_may_not_install_is_told_one_command(bring: Bring) -> None:
    have = lacking('tshark', 'cpio')
    assert bring(have=have, user=1000) == (0, '', [])
    command = 'sudo apt-get install --no-install-recommends tshark cpio\n'
    assert bring('--say', have=have, user=1000) == (0, command, [])
    assert bring('--say', have=have) == (0, command.removeprefix('sudo '), [])


def test_what_fails_is_a_failure_in_ci_alone(bring: Bring) -> None:
    have = lacking('tshark')
    for ci in '', 'true':
        status, said, asked = bring(have=have, REFUSES='yes', CI=ci)
        assert (status, len(asked)) == (1 if ci else 0, 2) and 'that has failed' in said
        assert bring(have=have, user=1000, CI=ci) == (1 if ci else 0, '', [])


def test_any_npm_will_do(bring: Bring, tmp_path: Path) -> None:
    (tmp_path / 'npm').touch(mode=0o755)
    assert bring('--say', have=lacking('npm')) == (0, '', [])


SKIPS = """
import pytest
@pytest.mark.skipif(True, reason='no ip: apt-get install iproute2')
@pytest.mark.parametrize('n', range(3))
def test_marked(n): pass
def test_by_itself(): pytest.skip('no chromium')
def test_that_passes(): pass
"""


@pytest.mark.parametrize('ci', ['', 'true'])
def test_reasons_are_listed_with_their_numbers_and_fail_in_ci(tmp_path: Path, ci: str) -> None:
    (tmp_path / 'test_some.py').write_text(SKIPS)
    place = tmp_path / 'left-out'
    env = {**os.environ, 'PYTHONPATH': str(ROOT / 'tests'), 'LEFT_OUT': str(place), 'CI': ci}
    done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'conftest', '-p', 'no:cacheprovider',
                           '--rootdir', tmp_path, tmp_path / 'test_some.py'], env=env, cwd=tmp_path,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == bool(ci), done.stdout + done.stderr
    assert place.read_text() == '3 tests\tno ip: apt-get install iproute2\n1 test\tno chromium\n'
