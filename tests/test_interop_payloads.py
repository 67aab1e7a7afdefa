"""Fragments (RFC 7383) and inner addresses (RFC 7296 §2.19), between us and a real strongSwan, either way.

These run by way of test_interop_strongswan.py for those who are not root.
"""
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from interop import both_agree, called, calling, inside, needs_strongswan, start
from peers.strongswan import Lab

pytestmark = needs_strongswan
either_role = pytest.mark.parametrize('session', [calling, called])
either_lock = pytest.mark.parametrize('ike, esp', [
    ('camellia256-sha256-modp2048', 'camellia256-sha256'),
    ('aes256gcm16-prfsha384-ecp384', 'aes256gcm16')])


@inside
@either_role
@either_lock
def test_small_datagrams(lab: Lab, keys: Path, ike: str, esp: str, session: Callable) -> None:
    "Both ends cut IKE_AUTH to fit into 576 octets, and put together what the other one has cut."
    many = ','.join(f'10.1.{n}.0/24' for n in range(0, 40, 2))  # selectors, or all would fit
    start(lab, keys, ike=ike, esp=esp, remote_ts=many, extra='fragment_size = 576')
    ts = ['--local-ts', many, '--remote-ts', '10.2.0.0/24']
    options = ['--ike', ike, '--esp', esp, '--datagram', '576']
    with session(lab, keys, *options, selectors=ts) as ours:
        both_agree(lab, ours.wait('Established'), ours.wait('ChildEstablished'))
        cut = list(ours.all('Message', exchange='IKE_AUTH'))
    assert sorted((m['sent'], m['fragments'] > 1) for m in cut) == [(False, True), (True, True)]
    theirs, mine = ({m['sent']: m for m in cut}[sent] for sent in (False, True))
    split = re.search(r'splitting IKE message \((\d+) bytes\) into (\d+) fragments', lab.log())
    assert split and theirs['fragments'] == int(split[2])
    assert theirs['octets'] > int(split[1])  # each fragment has a header, a vector and a checksum
    joined = re.findall(r'received fragment #(\d+) of (\d+)', lab.log())
    assert {int(total) for _, total in joined} == {mine['fragments']}


@inside
def test_it_gives_us_an_inner_address(lab: Lab, keys: Path) -> None:
    start(lab, keys, remote_ts='dynamic', connection={'pools': 'inner'},
          pools={'inner': {'addrs': '10.77.0.0/24', 'dns': '10.2.0.53'}})
    ts = ['--remote-ts', '10.2.0.0/24']
    with calling(lab, keys, '--request-address', '0.0.0.0', selectors=ts) as ours:  # noqa: S104
        sa, given = ours.wait('Established'), ours.wait('AddressAssigned')
        assert (given['addresses'], given['dns']) == (['10.77.0.1'], ['10.2.0.53'])
        both_agree(lab, sa, child := ours.wait('ChildEstablished'))
        assert child['local_ts'] == ['10.77.0.1/32']
        assert lab.list_sas()[0]['remote-vips'] == ['10.77.0.1']


@inside
def test_we_give_it_an_inner_address(lab: Lab, keys: Path) -> None:
    start(lab, keys, local_ts='dynamic', connection={'vips': '0.0.0.0'})  # noqa: S104
    pool = ['--pool', '10.88.0.0/24', '--dns', '10.1.0.53']
    with called(lab, keys, *pool, selectors=['--local-ts', '10.1.0.0/24']) as ours:
        child = both_agree(lab, ours.wait('Established'), ours.wait('ChildEstablished'))
        assert child['local-ts'] == ['10.88.0.1/32']
        assert lab.list_sas()[0]['local-vips'] == ['10.88.0.1']
    assert 'installing new virtual IP 10.88.0.1' in lab.log()
    # without its `resolve` plugin it asks for no name server, and gets none
    assert re.search(r'parsed IKE_AUTH response 1 \[.*CPRP\(ADDR\)', lab.log())
