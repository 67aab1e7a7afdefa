"""Every algorithm that we offer, negotiated with a real strongSwan, whoever calls.

Debian's strongSwan 5.9.8 lacks none of them: its plugin openssl, of libstrongswan-standard-plugins,
has AES-GCM, the elliptic curves and X448, and what openssl lacks xcbc, cmac and kdf have. Its ESP
in user space takes every cipher, too. Weak algorithms are not tried, for we never offer them, nor
is modpnone, which has no place in IKE_AUTH. A table of what was negotiated, and how long that took,
is printed at the end of the run.

These run by way of test_interop_strongswan.py for those who are not root.
"""
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ike_lit.wire.const import ProtocolID, TransformType
from ike_lit.wire.proposal import ALGORITHMS, NO_ESN, NO_GROUP, parse_proposals
from interop import (
    SHOW_KEYS, Program, both_agree, calling, end_all, inside, needs_strongswan, responder, same_keys, start)
from peers.strongswan import Lab

pytestmark = needs_strongswan


# this strongSwan has no ML-KEM; test_interop_hybrid.py asks a newer one
LEFT_OUT = {NO_GROUP} | {a.transform for a in ALGORITHMS.values() if a.keyword.startswith('mlkem')}


def keywords(kind: TransformType) -> list[str]:
    return [a.keyword for a in ALGORITHMS.values()
            if a.transform.type == kind and not a.weak and a.transform not in LEFT_OUT]


CIPHERS, INTEGRITY = keywords(TransformType.ENCR), keywords(TransformType.INTEG)
PRFS, GROUPS = keywords(TransformType.PRF), keywords(TransformType.DH)
CLASSIC = [name for name in CIPHERS if not ALGORITHMS[name].transform.aead]


def with_integrity(cipher: str, integrity: str) -> str:
    return f'{cipher}-{integrity}' if cipher in CLASSIC else cipher


def pairwise() -> Iterator[tuple[str, str]]:
    """Proposals for IKE and ESP: each cipher for both, then each pair of integrity and PRF,
    with another cipher for ESP. No two have the same PRF and the same group."""
    for n in range(len(CIPHERS) + len(INTEGRITY) * len(PRFS)):
        first = n < len(CIPHERS)
        cipher = CIPHERS[n] if first else CLASSIC[n % len(CLASSIC)]
        integrity, other = (INTEGRITY[k % len(INTEGRITY)] for k in (n // len(PRFS), n))
        prf, group = PRFS[n % len(PRFS)], GROUPS[n % len(GROUPS)]
        esp = cipher if first else CIPHERS[n % len(CIPHERS)]
        yield (f'{with_integrity(cipher, integrity)}-{prf}-{group}', with_integrity(esp, other))


SUITES = dict(pairwise())
EVERY = ['--ike', ','.join(SUITES), '--esp', ','.join(dict.fromkeys(SUITES.values())), '--dry-run']
DAY = 24 * 60 * 60 * 1000  # milliseconds
each = pytest.mark.parametrize('suite', SUITES)


def test_nothing_that_we_offer_is_forgotten() -> None:
    strong = {a.transform for a in ALGORITHMS.values() if not a.weak} - LEFT_OUT - {NO_ESN.transform}
    ike = [parse_proposals(suite, ProtocolID.IKE)[0].transforms for suite in SUITES]
    esp = [parse_proposals(suite, ProtocolID.ESP)[0].transforms for suite in SUITES.values()]
    assert {t for transforms in ike for t in transforms} == strong
    assert {t for transforms in esp for t in transforms} - {NO_ESN.transform} == {
        t for t in strong if t.type in (TransformType.ENCR, TransformType.INTEG)}
    macs = {t[1:3] for t in ike if t[1].type == TransformType.INTEG}
    assert len(macs) == len(INTEGRITY) * len(PRFS) and len({t[-2:] for t in ike}) == len(ike) >= 40


@pytest.fixture(scope='module')
def loaded(lab: Lab, keys: Path) -> Lab:
    "charon with a connection for each suite."
    start(lab, keys, extra=SHOW_KEYS)
    lines = [f'''{ike} : connections.lab {{
        proposals = {ike}
        children {{ net {{ esp_proposals = {esp} }} }} }}''' for ike, esp in SUITES.items()]
    with (lab.home / 'swanctl.conf').open('a') as conf:
        conf.write('\n'.join(['connections {', *lines, '}\n']))
    lab.swanctl('--load-conns')
    return lab


@pytest.fixture(scope='module')
def listening(loaded: Lab, keys: Path) -> Iterator[Program]:
    "Our responder, which accepts them all."
    with responder(loaded, keys, *EVERY) as program: yield program


@pytest.fixture
def charon(loaded: Lab) -> Iterator[Lab]:
    "charon, left without SAs for the next suite, whatever happens with this one."
    yield loaded
    end_all(loaded)


def agreed(charon: Lab, ours: Program) -> int:
    """Check that both ends have the same SAs with the same keys.

    The milliseconds, in charon's log, from our first message to ESTABLISHED."""
    both_agree(charon, ours.wait('Established'), ours.wait('ChildEstablished'))
    ours.wait('Script')
    same_keys(charon, ours)
    found = re.findall(r'^([\d:.]+) .*(?:parsed IKE_SA_INIT|established between)', charon.log(),
                       re.MULTILINE)
    began, done = (datetime.strptime(at, '%H:%M:%S.%f') for at in found[-2:])
    return (done - began) // timedelta(milliseconds=1) % DAY


@pytest.fixture
def cell(suite: str, request: pytest.FixtureRequest, record_property: Callable) -> Callable:
    "Write a cell of the table; what is written later counts."
    row = f'{suite:40}{SUITES[suite]}'
    column = 'we call' if request.function is test_we_call else 'it calls'

    def write(text: str) -> None: record_property('negotiated', (row, column, text))
    write('FAILED')
    return write


@inside
@each
def test_we_call(charon: Lab, keys: Path, suite: str, cell: Callable) -> None:
    "We offer this suite alone; then we delete the SAs."
    options = ['--ike', suite, '--esp', SUITES[suite], '--dry-run', '--timeout', '5']
    with calling(charon, keys, *options) as ours:
        took = agreed(charon, ours)
    assert charon.list_sas() == []
    cell(f'{took} ms')


@inside
@each
def test_it_calls(charon: Lab, listening: Program, suite: str, cell: Callable) -> None:
    "charon offers this suite alone, to a responder that takes all; then it deletes the SAs."
    charon.swanctl('--initiate', '--ike', suite, '--child', 'net', '--timeout', '5')
    took = agreed(charon, listening)
    charon.swanctl('--terminate', '--ike', suite)
    listening.wait('Closed', error=None)
    assert charon.list_sas() == []
    cell(f'{took} ms')
