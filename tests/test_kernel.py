"""ESP in a real kernel, with three real peers: established, pinged, rekeyed under the ping, deleted.

What each end has in its kernel is compared with what the other has, and nothing but IKE and ESP
may be on the wire.
These tests need a kernel with ESP: `make vm` runs them in one (see tests/vm/run).
"""
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ike_lit.kernel.dialects import XFRM
from interop import HASTE, Program, command, responder, running, start
from kernel import (
    NAT_PEER, another_mapping, behind_nat, counted, holds, pinging, policies, route_inner_networks,
    sas, three_of_three, watching, xfrm)
from peers.libreswan import Libreswan
from peers.openiked import OpenIKED
from peers.strongswan import LEFT, RIGHT, Lab
from test_house import ROOT
from test_setkey import CASES as TUNNEL

# we rekey both SAs by ourselves, soon and more than once
BUSY = ['--install', 'xfrm', '--child-lifetime', '3,60', '--ike-lifetime', '7,60']
HERE, THERE = '10.1.0.1', '10.2.0.1'
PATIENCE = 90  # seconds; Python alone may take 20 to start in there


@dataclass(frozen=True)
class Case:
    "A row of the table: who the peer is, who calls, what is negotiated, and who says goodbye."
    peer: str
    role: str  # ours
    ike: str  # as we write it
    esp: str
    mode: str = 'tunnel'
    goodbye: str = 'ours'
    nat: bool = False
    v6: bool = False

    def __str__(self) -> str:
        where = ' IPv6' * self.v6 + ' NAT' * self.nat
        cipher = self.ike.partition('-')[0]
        return (f'{self.peer} {self.role} {self.esp} {self.mode}{where}'
                + f' in {cipher}' * (not self.esp.startswith(cipher)))

    @property
    def selectors(self) -> tuple[str, str]:
        "The traffic on our side, and on the peer's."
        if self.mode == 'transport': return self.ends
        return ('fd01::/64', 'fd02::/64') if self.v6 else ('10.1.0.0/24', '10.2.0.0/24')

    @property
    def ends(self) -> tuple[str, str]:
        "Our address, and the peer's."
        if self.nat: return '10.8.0.1', NAT_PEER
        return ('fd09::1', 'fd09::2') if self.v6 else (LEFT, RIGHT)

    @property
    def pinged(self) -> tuple[str, str]:
        "Which address is pinged, and from where."
        if self.mode == 'transport': return self.ends[::-1]
        return ('fd02::1', 'fd01::1') if self.v6 else (THERE, HERE)


CAMELLIA = 'camellia256-sha256-modp2048', 'camellia256-sha256'
GCM = 'aes256gcm16-prfsha256-x25519', 'aes256gcm16'
SHA512 = 'aes256-sha512-modp2048', 'aes256-sha512'


def with_group(suite: tuple[str, str]) -> tuple[str, str]:
    "The same with a group for rekeying, or none, as our default has it: the peer decides."
    return suite[0], f'{suite[1]}-{suite[0].rpartition("-")[2]}-modpnone'


CASES = [
    Case('strongSwan', 'initiator', *CAMELLIA),
    Case('strongSwan', 'initiator', *GCM, goodbye='theirs'),
    Case('strongSwan', 'initiator', *SHA512),
    Case('strongSwan', 'initiator', *CAMELLIA, nat=True),
    Case('strongSwan', 'initiator', *GCM, v6=True, goodbye='theirs'),
    Case('strongSwan', 'initiator', *GCM, mode='transport'),
    Case('strongSwan', 'initiator', *SHA512, mode='transport', v6=True),
    Case('strongSwan', 'responder', *CAMELLIA, goodbye='theirs'),
    Case('strongSwan', 'responder', *GCM, v6=True),
    Case('strongSwan', 'responder', *SHA512, mode='transport', goodbye='theirs'),
    Case('libreswan', 'initiator', *with_group(CAMELLIA), goodbye='theirs'),
    Case('libreswan', 'initiator', *with_group(GCM)),
    Case('libreswan', 'initiator', *with_group(SHA512), nat=True),
    Case('libreswan', 'initiator', *with_group(GCM), mode='transport', goodbye='theirs'),
    Case('libreswan', 'initiator', *with_group(GCM), v6=True),
    Case('libreswan', 'responder', *with_group(CAMELLIA)),
    Case('libreswan', 'responder', *with_group(GCM), goodbye='theirs'),
    Case('OpenIKED', 'initiator', 'aes256-sha256-modp2048', 'aes256-sha512'),
    Case('OpenIKED', 'initiator', 'aes256gcm16-prfsha256-x25519', 'aes256-sha512', goodbye='theirs'),
]


@pytest.fixture(scope='module', autouse=True)
def _routes(lab: Lab) -> None: route_inner_networks(lab)


class StrongSwan:
    "charon with the kernel's ESP."

    def __init__(self, lab: Lab, keys: Path, case: Case):
        self.lab = lab
        ours, theirs = case.selectors
        start(lab, keys, ike=case.ike, esp=case.esp, local_ts=theirs, remote_ts=ours, extra=HASTE,
              connection={'remote_addrs': f'{case.ends[0]}, %any', 'local_addrs': case.ends[1]},
              child={'mode': case.mode}, kernel='kernel-netlink')

    def initiate(self) -> None: self.lab.swanctl('--initiate', '--child', 'net', timeout=PATIENCE)

    def rekey_child(self) -> None: self.lab.swanctl('--rekey', '--child', 'net')

    def rekey_ike(self) -> None: self.lab.swanctl('--rekey', '--ike', 'lab')

    def terminate(self) -> None: self.lab.swanctl('--terminate', '--ike', 'lab', timeout=PATIENCE)

    def log(self) -> str: return self.lab.log()

    def stop(self) -> None: self.lab.stop()


LIBRESWAN = {'camellia256-sha256-modp2048': ('camellia256-sha2_256-modp2048', 'camellia256-sha2_256'),
             'aes256gcm16-prfsha256-x25519': ('aes_gcm256-sha2_256-dh31', 'aes_gcm256'),
             'aes256-sha512-modp2048': ('aes256-sha2_512-modp2048', 'aes256-sha2_512')}


def libreswan(lab: Lab, keys: Path, case: Case) -> Libreswan:
    "pluto with the configuration for a case."
    pluto = Libreswan(lab)
    ike, esp = LIBRESWAN[case.ike]
    ours, theirs = case.selectors
    more = {'leftsubnet': ours, 'rightsubnet': theirs} if case.mode == 'tunnel' else {}
    ends = ('%any' if case.nat else case.ends[0]), case.ends[1]
    pluto.start(keys, ike=ike, esp=esp, ends=ends, type=case.mode, **more)
    return pluto


def openiked(lab: Lab, keys: Path, case: Case) -> OpenIKED:
    "iked with the configuration for a case."
    iked = OpenIKED(lab)
    ike = ('enc aes-256 prf hmac-sha2-256 auth hmac-sha2-256 group modp2048' if 'modp' in case.ike
           else 'enc aes-256-gcm prf hmac-sha2-256 group curve25519')
    ours, theirs = case.selectors
    iked.start(keys, ike=ike, esp='enc aes-256 auth hmac-sha2-512', flows=f'from {theirs} to {ours}',
               ends=case.ends)
    return iked


PEERS = {'strongSwan': StrongSwan, 'libreswan': libreswan, 'OpenIKED': openiked}


@contextmanager
def up(lab: Lab, keys: Path, case: Case, peer: object) -> Iterator[Program]:
    "Our program, with an SA of the case's; at the end it leaves in order."
    ours, theirs = case.selectors
    more = {'selectors': ['--local-ts', ours, '--remote-ts', theirs]}
    options = ['--ike', case.ike, '--esp', case.esp, '--mode', case.mode, *BUSY]
    if case.role == 'initiator':
        with running(lab, command(keys, *options, peer=case.ends[1], **more)) as program: yield program
    else:
        with responder(lab, keys, *options, peer=case.ends[0], **more) as program:
            peer.initiate()
            yield program


def agree(lab: Lab, case: Case) -> None:
    "Both kernels have the same pair of SAs, with the same keys, and policies that mirror each other."
    ours, theirs = sas(lab.left), sas(lab.right)
    assert len(ours) == 2 and ours.keys() == theirs.keys(), f'{ours} {theirs}'
    for spi in ours:
        assert (ours[spi].algorithms, ours[spi].mode) == (theirs[spi].algorithms, theirs[spi].mode)
        assert case.nat or ours[spi] == theirs[spi]
    mirrored = {(s, d, {'in': 'out', 'out': 'in'}[way]) for s, d, way in policies(lab.right) if way != 'fwd'}
    assert mirrored == {p for p in policies(lab.left) if p[2] != 'fwd'}


# When we rekey, these send by the new SA as soon as they have answered, which RFC 7296 §2.8 allows
# ("could result in packets unnecessarily being dropped"): until we have read the answer we can't receive.
# And OpenIKED answers before its own kernel can receive, which it forbids.
HASTY = 'libreswan', 'OpenIKED'


def strays(lab: Lab) -> int:
    "How many packets either kernel has got for an SA that it did not have yet, or no longer."
    return counted(lab.left, 'XfrmInNoStates') + counted(lab.right, 'XfrmInNoStates')


@contextmanager
def under_ping(lab: Lab, case: Case, record: Callable[[str, str], None], column: str) -> Iterator[None]:
    "No ping may be lost, but for those to or from a hasty peer which the kernels have counted as strays."
    unknown = strays(lab)
    with pinging(lab, *case.pinged) as ping:
        yield
        ping.flows()
        ping.end()  # and then count: a stray may come in the meantime
        if case.peer in HASTY: ping.may_miss = strays(lab) - unknown
    missed = ping.sent - ping.received
    record(column, f'{ping.received}{f"+{missed}" * bool(missed)}/{ping.sent}')


def rekeyed(program: Program, what: str, do: Callable[[], None] | None = None) -> None:
    "Wait until an SA was replaced after this was asked for, or without being asked."
    program.position = len(program.events)
    if do: do()
    program.wait(what, PATIENCE)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_a_tunnel_from_the_first_message_to_the_last(
        lab: Lab, keys: Path, case: Case, tmp_path: Path,
        record_property: Callable[[str, object], None]) -> None:
    def record(column: str, cell: str) -> None: record_property('kernel', (str(case), column, cell))
    with network(lab, case):
        peer = PEERS[case.peer](lab, keys, case)
        try: whole_life(lab, keys, case, peer, tmp_path, record)
        finally:
            print(peer.log()[-3000:])  # shown if it fails
            peer.stop()


@contextmanager
def network(lab: Lab, case: Case) -> Iterator[None]:
    "The network that a case needs; what an earlier one may have left in the kernel is gone."
    for side in lab.left, lab.right:
        for what in 'state', 'policy': lab._ip('-n', side, 'xfrm', what, 'flush')
    if case.nat:
        with behind_nat(lab): yield
    else: yield


def whole_life(lab: Lab, keys: Path, case: Case, peer: object, folder: Path,
               record: Callable[[str, str], None]) -> None:
    "Establish, ping, rekey under the ping from both sides, delete, and look at what is left."
    before = holds(lab.left)
    wires = [(lab.left, 'lan'), (lab.right, 'wan')] if case.nat else [(lab.left, 'veth'), (lab.right, 'veth')]
    with watching(folder, *wires) as wire:
        with up(lab, keys, case, peer) as program:
            program.wait('Installed', PATIENCE)
            agree(lab, case)
            record('ping', three_of_three(lab, *case.pinged))
            with under_ping(lab, case, record, 'we rekey'):
                rekeyed(program, 'Installed')
                rekeyed(program, 'Rekeyed')
            if hasattr(peer, 'rekey_child'):
                with under_ping(lab, case, record, 'it too'):
                    rekeyed(program, 'Installed', peer.rekey_child)
                    rekeyed(program, 'Rekeyed', peer.rekey_ike)
            if case.goodbye == 'theirs':
                peer.terminate()
                program.wait('Closed', PATIENCE, replaced=False)
                if case.role == 'initiator': program.end(None, PATIENCE, status=8)  # not by our wish
        record('cleanup', 'clean' if holds(lab.left) == before else 'dirty')
    assert holds(lab.left) == before
    seen = {name for name, count in wire.items() if count}
    assert seen <= {'IKE', 'ESP in UDP' if case.nat else 'ESP', 'ND', 'keepalive', 'unreachable'}, wire
    assert {'IKE', 'ESP in UDP' if case.nat else 'ESP'} <= seen, wire


def test_a_nat_takes_another_port(lab: Lab, keys: Path) -> None:
    """RFC 7296 §2.23: our responder follows a peer whose NAT was restarted, and so does ESP: the Child SA is
    rekeyed to lead to the new port, and the old one goes. Both ends are ours, the NAT is nftables'."""
    as_bob = ['--local-id', 'bob.example.org', '--remote-id', 'alice.example.org',
              '--private-key', str(keys / 'right.key'), '--peer-key', str(keys / 'left.pub'),
              '--local-ts', '10.2.0.0/24', '--remote-ts', '10.1.0.0/24', '--install', 'xfrm']
    there = command(keys, *as_bob, module='responder', peer=NAT_PEER)
    with behind_nat(lab) as box, running(lab, there, lab.right) as far:
        far.wait('Listening', PATIENCE)
        with running(lab, command(keys, '--install', 'xfrm', '--liveness', '1', peer=NAT_PEER)) as near:
            near.wait('Installed', PATIENCE)
            assert three_of_three(lab, THERE, HERE) == '3/3'
            another_mapping(box)
            moved = far.wait('Moved', PATIENCE)
            assert ':41' in moved['after'] and ':40' in moved['before']
            far.wait('Installed', PATIENCE)
            near.wait('Installed', PATIENCE)
            assert three_of_three(lab, THERE, HERE) == '3/3'
            ports = {int(p) for p in re.findall(r'sport 4500 dport (\d+)', xfrm(lab.right, 'state'))}
            assert ports and all(41000 <= p < 42000 for p in ports)
    assert not sas(lab.left) and not sas(lab.right)


def test_chapter_10_shows_what_the_kernel_shows(lab: Lab) -> None:
    "The listings of the canonical handshake's Child SA that the chapter stores, against this kernel's."
    cells = json.loads((ROOT / 'nbs' / '19_setkey.ipynb').read_text())['cells']
    stored: dict[str, str] = {}
    listing, = (''.join(cell['source']) for cell in cells if 'state = """' in ''.join(cell['source']))
    exec(listing, stored)  # noqa: S102
    script = '\n'.join(XFRM.lines(TUNNEL['tunnel'], XFRM.marks.reqid(0, 1)))
    alone = f'{lab.left}-chapter'
    lab._ip('netns', 'add', alone)
    try:
        lab._ip('-n', alone, '-batch', '-', input=f'{script}\n')
        assert xfrm(alone, 'state') == stored['state']
        assert xfrm(alone, 'policy') == stored['policy']
    finally:
        lab._ip('netns', 'del', alone)
