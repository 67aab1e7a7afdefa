"""The initiator of the chapter "An initiator in an afternoon": it is as short as it says, needs nothing of
ours, and fails as the end of the chapter says. tests/test_kernel_afternoon.py shows it to real daemons.
"""
import ast
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from afternoon import configured, initiator, script
from chapters import AFTERNOON
from ike_lit import parse
from test_house import cells, source

ALICE, BOB, SECRET = 'alice.example.org', 'bob.example.org', 'correct horse battery staple'
TWO_NETWORKS = ['--local-ts', '10.2.0.0/24', '--remote-ts', '10.1.0.0/24']


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / 'psk'
    path.touch(mode=0o600)
    path.write_text(SECRET)
    return path


@contextmanager
def bob(secret: Path, *options: str) -> Iterator[int]:
    "Our responder with these options; the port where it listens."
    argv = [sys.executable, '-m', 'ike_lit.responder', '--listen', '127.0.0.1', '--port', '0',
            '--nat-port', '0', '--install', 'none', '--psk-file', str(secret),
            '--local-id', BOB, '--remote-id', ALICE, *TWO_NETWORKS, *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try: yield int(re.match(r'listening on 127.0.0.1:(\d+)', process.stdout.readline())[1])
        finally: process.terminate()


def alice(port: int, secret: str = SECRET, patience: float = 5) -> str:
    "Run the initiator; how it ends: the name of its error with what it says, or nothing."
    code = script(configured('127.0.0.1', port, secret=secret))
    argv = [sys.executable, '-c', code.replace('settimeout(5)', f'settimeout({patience})')]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr.strip().rpartition('\n')[2]


def test_it_is_as_short_as_it_says_and_needs_nothing_of_ours() -> None:
    code = initiator()
    assert 60 < len([line for line in code.splitlines() if line.strip()]) <= 120
    tree = ast.parse(code)
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): imported |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom): imported.add(node.module.partition('.')[0])
    assert imported == {'hmac', 'os', 'socket', 'struct', 'cryptography'}
    assert max(len(source(cell).splitlines()) for cell in cells(AFTERNOON)) <= 25


def test_it_shakes_hands(secret: Path) -> None:
    with bob(secret) as port: assert alice(port) == ''


ACCIDENTS = {  # options of Bob's, and how the initiator ends
    'another suite is wanted': (['--ike', 'aes256-sha256-modp2048'], 'KeyError: 33'),
    'narrowed': (['--local-ts', '10.2.0.0/25'], 'ValueError: this is not what we asked for'),
    'a cookie is wanted': (['--cookie-threshold', '0'], 'KeyError: 33'),
    'another name is expected': (['--local-id', 'carol.example.org'], 'KeyError: 36'),
}


@pytest.mark.parametrize('what', ACCIDENTS)
def test_what_bob_may_say_instead(secret: Path, what: str) -> None:
    options, end = ACCIDENTS[what]
    with bob(secret, *options) as port: assert alice(port) == end


def test_another_secret_ends_in_a_missing_payload(secret: Path) -> None:
    "As the answer to the exercise says."
    with bob(secret) as port: assert alice(port, SECRET[:-1]) == 'KeyError: 36'


def test_a_lost_datagram_is_the_end() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(('127.0.0.1', 0))
        assert alice(deaf.getsockname()[1], patience=0.3) == 'TimeoutError: timed out'
        deaf.settimeout(5)
        assert len(parse(deaf.recv(4096)).payloads) == 3
        deaf.settimeout(0)
        with pytest.raises(BlockingIOError): deaf.recv(4096)  # sent once


def test_whoever_answers_first_is_believed(secret: Path) -> None:
    "Somebody on the path answers with a public value that is not Bob's, then lets everything pass."
    with bob(secret) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as path:
        path.bind(('127.0.0.1', 0))
        path.settimeout(20)

        def between() -> None:
            message1, here = path.recvfrom(4096)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as beyond:
                beyond.settimeout(20)
                beyond.connect(('127.0.0.1', port))
                beyond.send(message1)
                answer = beyond.recv(4096)
                at = answer.index(b'\0\x1f\0\0') + 4  # KE: group 31
                path.sendto(answer[:at] + os.urandom(32) + answer[at + 32:], here)
                path.sendto(answer, here)
        thread = Thread(target=between, daemon=True)
        thread.start()
        # Bob can't open message 3, so nothing comes but his true message 2, which is no message 4
        assert alice(path.getsockname()[1]) == 'cryptography.exceptions.InvalidTag'
        thread.join(20)


def test_each_fault_leads_to_the_chapter_that_mends_it() -> None:
    listed = re.findall(r'^(\d+)\. \*\*.+\*\* .*\(.*\[\d\d\]\(\d\d_\w+\.ipynb\).*\)$',
                        '\n'.join(source(cell) for cell in cells(AFTERNOON, 'markdown')), re.MULTILINE)
    assert len(listed) == 20
