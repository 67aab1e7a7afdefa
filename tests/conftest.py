"""What several files of tests use: the keys and the lab of those with a real strongSwan.

In CI nothing may be skipped: everything that a test needs is there.
"""
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding, NoEncryption, PrivateFormat, PublicFormat)
from peers.strongswan import Lab


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


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin('terminalreporter')
    if os.environ.get('CI') and reporter and reporter.stats.get('skipped') and not exitstatus:
        reporter.write_line('\nCI is set, and tests were skipped: that is a failure')
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
