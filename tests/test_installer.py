"""What an installer does to a kernel, against one that is a table: what that holds, also when a line has
failed. The same against Linux' own is in test_kernel_faults.py, in the VM."""
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ike_lit.cli.diagnosis import remedied
from ike_lit.engine.model import ChildEstablished, ChildSA
from ike_lit.kernel import dialects, entries, install
from ike_lit.kernel.dialects import SETKEY, XFRM, InstallError, Lack, SadDialect
from ike_lit.kernel.entries import RIGHT, Entry
from ike_lit.kernel.install import (
    GRACE_SECONDS, SWITCH_SECONDS, Installer, Tunnel, changes, may_query, prepare, prepare_kernel,
    query_status, setkey_can_carry, user_of)
from ike_lit.wire.auth import Identity
from ike_lit.wire.const import ProtocolID
from ike_lit.wire.proposal import parse_proposals
from test_setkey import child

BOB, CAROL = map(Identity.from_text, ('bob.example.org', 'carol.example.org'))


def made(n: int = 2, near: str = '10.1.0.0/24', far: str = '10.2.0.0/24',
         esp: str = 'aes256-sha256') -> ChildSA:
    "Return the Child SA that has this last octet in its SPIs."
    one = child('192.0.2.1', '192.0.2.2', near, far, esp)
    return replace(one, inbound=replace(one.inbound, spi=bytes([0x5a, 0, 0, n])),
                   outbound=replace(one.outbound, spi=bytes([0x5b, 0, 0, n])))


class Kernel:
    """Does what lines for `ip -batch -` say, as far as one that `fails`. What it holds: the lines that take
    SAs out, and what policies match, each with its reqid, and the policies with what they do."""

    def __init__(self) -> None:
        self.sas: dict[str, int] = {}
        self.policies: dict[str, tuple[int, str]] = {}
        self.fails: Callable[[str], bool] = lambda line: False
        self.lines: list[str] = []

    def run(self, command: tuple[str, ...], script: str = '', keep: object = ()) -> str:
        for line in script.splitlines():
            if self.fails(line): raise InstallError('ip: no')
            self.do(line)
            self.lines.append(line)
        return ''

    def do(self, line: str) -> None:
        _, what, verb, rest = line.split(' ', 3)
        reqid = int(rest.partition('reqid ')[2].partition(' ')[0] or 0)
        held = self.sas if what == 'state' else self.policies
        if what == 'state':
            key = f'xfrm state delete {rest.partition(" reqid")[0]}'
            there, new = key in held, reqid
        else:
            way, mark, does = rest.partition(' priority')
            if way.startswith('index '): way = list(held)[int(way.split()[1])]
            key, new = way, (reqid, mark + does)
            there = key in held
        if there == (verb == 'add') and verb != 'update': raise InstallError(f'ip: {line}: no')
        if verb == 'delete': del held[key]
        else: held[key] = new

    def entries(self, language: SadDialect) -> list[Entry]:
        return [*(Entry(reqid, f'xfrm policy delete {way}', policy=True)
                  for way, (reqid, _) in self.policies.items()),
                *(Entry(reqid, line) for line, reqid in self.sas.items())]

    @property
    def spis(self) -> list[str]: return sorted(line[-8:] for line in self.sas)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    one = Kernel()
    for module in install, entries:
        monkeypatch.setattr(module, 'run_setkey', one.run)
        monkeypatch.setattr(module, 'entries', one.entries)
    return one


class Ours(Installer):
    "An installer whose alarms go off when they are told to."

    def __init__(self, program: int = 3) -> None:
        super().__init__(XFRM, program)
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.later = lambda seconds, do: self.alarms.append((seconds, do))

    def put(self, one: ChildSA, replaces: ChildSA | None = None, ours: bool = True,
            peer: Identity = BOB) -> int:
        return self.add(ChildEstablished(one, replaces, ours), peer).reqid

    @property
    def only(self) -> Tunnel:
        tunnel, = self.tunnels.values()
        return tunnel

    def wait(self, seconds: float) -> int:
        "Let the alarms of one kind go off; how many there were."
        due = [do for when, do in self.alarms if when == seconds]
        self.alarms = [alarm for alarm in self.alarms if alarm[0] != seconds]
        for do in due: do()
        return len(due)


def both(*numbers: int) -> list[str]: return sorted(f'{way}00000{n}' for way in ('5a', '5b') for n in numbers)


# Policies

def test_policies_change_without_a_gap() -> None:
    "What is new first, then what has changed, what is gone last; and what is as it was is left alone."
    old = {'same': 'a', 'other': 'b', 'gone': 'c'}
    assert changes(XFRM, old, {'same': 'a', 'other': 'B', 'new': 'd'}) == [
        'xfrm policy add new d', 'xfrm policy update other B', 'xfrm policy delete gone']
    assert changes(XFRM, old, old) == changes(XFRM, {}, {}) == []


# What is put in

def test_a_first_child_sa_is_there_at_once(kernel: Kernel) -> None:
    ours = Ours()
    reqid = ours.put(made())
    assert kernel.spis == both(2) and not ours.alarms
    assert set(kernel.sas.values()) == {reqid} == {reqid for reqid, _ in kernel.policies.values()}
    assert len(kernel.policies) == 3 and len(ours.tunnels) == 1


@pytest.mark.parametrize('ours_', [True, False])
def test_what_we_rekey_sends_at_once_and_what_the_peer_rekeys_later(kernel: Kernel, ours_: bool) -> None:
    ours, old, new = Ours(), made(2), made(3)
    reqid = ours.put(old)
    assert ours.put(new, old, ours_) == reqid
    assert kernel.spis == (both(2, 3) if ours_ else sorted([*both(2), '5a000003']))
    assert len(ours.tunnels) == 1
    assert ours.wait(SWITCH_SECONDS) == (not ours_)
    assert kernel.spis == both(2, 3)
    before = list(kernel.lines)
    ours.switch(ours.only)  # again, there is nothing to do: no program is run
    assert kernel.lines == before


def test_a_rekeying_with_other_traffic_does_not_wait(kernel: Kernel) -> None:
    "The old policies would lead packets to it that it may not carry, or none."
    ours, old = Ours(), made(2)
    ours.put(old)
    ours.put(made(3, near='10.1.0.0/25'), old, False)
    assert kernel.spis == both(2, 3) and not ours.alarms
    assert {way.partition(' dst')[0] for way in kernel.policies if 'dir out' in way} == {'src 10.1.0.0/25'}


def test_a_child_sa_that_replaces_nothing_does_not_wait(kernel: Kernel) -> None:
    "A peer that has lost its memory, and begins anew, has the tunnel that it had."
    ours = Ours()
    reqid = ours.put(made(2))
    assert ours.put(made(3), None, False) == reqid and len(ours.tunnels) == 1
    assert kernel.spis == both(2, 3) and not ours.alarms


@pytest.mark.parametrize('change', [{'peer': CAROL}, {'one': made(3, far='10.3.0.0/24')}])
def test_another_peer_or_other_traffic_is_another_tunnel(kernel: Kernel, change: dict) -> None:
    ours = Ours()
    reqid = ours.put(made(2, near='10.4.0.0/24'))
    kernel.policies.clear()  # of the same traffic, the kernel holds a policy but once
    assert ours.put(**{'one': made(3, near='10.4.0.0/24'), **change}) != reqid and len(ours.tunnels) == 2


def test_what_replaces_a_child_sa_has_its_tunnel_and_no_other(kernel: Kernel) -> None:
    ours, first, second = Ours(), made(2), made(3, near='10.8.0.0/24')
    one, other = ours.put(first), ours.put(second)
    assert one != other and ours.put(made(4, near='10.8.0.0/25'), second) == other
    assert ours.put(made(5, near='10.1.0.0/25'), first, peer=CAROL) == one


@pytest.mark.parametrize('way', ['inbound', 'outbound'])
def test_an_spi_is_used_but_once(kernel: Kernel, way: str) -> None:
    ours = Ours()
    ours.put(made(2))
    before = list(kernel.lines)
    same = replace(made(3, near='10.9.0.0/24'), **{way: getattr(made(2), way)})
    with pytest.raises(InstallError, match='another Child SA of ours has one of these SPIs'): ours.put(same)
    assert kernel.lines == before


def test_tunnels_that_can_be_told_apart_are_all_there_can_be(kernel: Kernel) -> None:
    ours = Installer(replace(XFRM, marks=dialects.ReqidSpace(ord('I'), 256, 2)), 3)
    nets = [made(n, near=f'10.{n}.0.0/24') for n in (2, 3, 4)]
    for one in nets[:2]: ours.add(ChildEstablished(one), BOB)
    assert len(ours.tunnels) == 2
    with pytest.raises(InstallError, match='2 tunnels are all that we can tell apart'):
        ours.add(ChildEstablished(nets[2]), BOB)
    ours.close(nets[0])
    left, = ours.tunnels
    assert ours.add(ChildEstablished(nets[2]), BOB).reqid != left and len(ours.tunnels) == 2


def test_what_no_policy_can_hold_is_refused_in_a_line(kernel: Kernel) -> None:
    with pytest.raises(InstallError, match=r'^[^\n]+$'):
        Ours().put(made(near='10.1.0.0/24[tcp/80-90]'))
    assert not kernel.lines


@pytest.mark.parametrize('system, language, passes', [
    ('linux', SETKEY, False), ('linux', XFRM, True), ('freebsd13', SETKEY, True)])
def test_pf_key_of_linux_is_not_given_what_it_cuts(
        monkeypatch: pytest.MonkeyPatch, system: str, language: SadDialect, passes: bool) -> None:
    ran: list[str] = []
    monkeypatch.setattr(sys, 'platform', system)
    monkeypatch.setattr(install, 'run_setkey', lambda command, script='', keep=(): ran.append(script) or '')
    one = Installer(language, 3)
    if passes: one.add(ChildEstablished(made()), BOB)
    else:
        with pytest.raises(InstallError, match='no packet would pass: ') as caught:
            one.add(ChildEstablished(made()), BOB)
        assert remedied(caught.value).endswith('; take --install xfrm, or another --esp')
    one.add(ChildEstablished(made(3, near='10.8.0.0/24', esp='aes256-sha512')), BOB)  # which nothing cuts
    assert len(ran) == 1 + passes


# A line fails

def failing(part: str) -> Callable[[str], bool]: return lambda line: part in line and ' add ' in line


@pytest.mark.parametrize('part', ['spi 0x5a', 'spi 0x5b', 'dir out', 'dir in', 'dir fwd'])
def test_a_first_child_sa_that_fails_leaves_nothing(kernel: Kernel, part: str) -> None:
    kernel.sas['xfrm state delete of somebody'] = 7
    ours, kernel.fails = Ours(), failing(part)
    with pytest.raises(InstallError) as error: ours.put(made())
    assert list(kernel.sas.values()) == [7] and not kernel.policies and not ours.tunnels
    assert str(error.value).startswith('ip: no; at xfrm ')
    assert part in str(error.value).partition('; at ')[2]


@pytest.mark.parametrize('part', ['spi 0x5a000003', 'spi 0x5b000003', 'dir out', 'dir in', 'dir fwd'])
@pytest.mark.parametrize('ours_', [True, False])
def test_a_rekeying_that_fails_leaves_what_was_there(kernel: Kernel, part: str, ours_: bool) -> None:
    "The old SAs, and the policies that they had, whatever was changed before."
    ours, old, new = Ours(), made(2), made(3, near='10.1.0.0/24,10.8.0.0/24')
    ours.put(old)
    policies = dict(kernel.policies)
    kernel.fails = failing(part)
    with pytest.raises(InstallError): ours.put(new, old, ours_)
    assert kernel.spis == both(2) and kernel.policies == policies
    assert ours.only.children.keys() == {old.inbound.spi}
    kernel.fails = lambda line: False
    ours.put(new, old, ours_)
    assert kernel.spis == both(2, 3) and len(kernel.policies) == 6


def test_a_policy_that_was_changed_is_changed_back(kernel: Kernel) -> None:
    "The peer has moved, so the same traffic leads elsewhere; the last line of the script fails."
    ours, old = Ours(), made(2)
    new = child('192.0.2.1', '192.0.2.9', '10.1.0.0/24,10.8.0.0/24', '10.2.0.0/24', 'aes256-sha256')
    ours.put(old)
    policies = dict(kernel.policies)
    kernel.fails = lambda line: 'update' in line and 'dir fwd' in line and '192.0.2.9' in line
    with pytest.raises(InstallError): ours.put(new, old)
    assert kernel.policies == policies and kernel.spis == both(2)


def test_what_cannot_be_taken_back_is_told_with_what_was_wrong_first(kernel: Kernel) -> None:
    ours = Ours()
    kernel.fails = lambda line: 'dir out' in line or 'delete' in line
    with pytest.raises(InstallError, match='^ip: no; to take it back: ip: no'): ours.put(made())


# What is taken out

def test_the_old_one_receives_for_a_while(kernel: Kernel) -> None:
    ours, old, new = Ours(), made(2), made(3)
    ours.put(old)
    ours.put(new, old)
    ours.close(old)
    assert kernel.spis == sorted([*both(3), '5a000002'])
    assert ours.wait(GRACE_SECONDS) == 1 and kernel.spis == both(3) and len(kernel.policies) == 3


def test_the_end_of_the_old_one_is_the_time_to_switch(kernel: Kernel) -> None:
    "The peer deletes the old one as soon as it has the new one, before the alarm."
    ours, old, new = Ours(), made(2), made(3)
    ours.put(old)
    ours.put(new, old, False)
    ours.close(old)
    assert kernel.spis == sorted([*both(3), '5a000002'])
    assert ours.wait(GRACE_SECONDS) == 1 and kernel.spis == both(3)
    assert ours.wait(SWITCH_SECONDS) == 1 and kernel.spis == both(3)


def test_one_that_never_sent_takes_no_sa_of_others_with_it(kernel: Kernel) -> None:
    "It goes while it waits: its outbound SA was never there, and nobody is asked to take it out."
    ours, old, new = Ours(), made(2), made(3)
    ours.put(old)
    ours.put(new, old, False)
    tried: list[str] = []
    kernel.fails = lambda line: tried.append(line) or False
    ours.close(new)
    assert not [line for line in tried if '5b000003' in line]
    assert ours.wait(GRACE_SECONDS) == 1 and kernel.spis == both(2)
    assert ours.wait(SWITCH_SECONDS) == 1 and kernel.spis == both(2)


def test_the_last_takes_its_tunnel_with_it_and_no_other(kernel: Kernel) -> None:
    ours, one, other = Ours(), made(2), made(3, near='10.8.0.0/24')
    ours.put(one)
    ours.put(other, peer=CAROL)
    ours.close(one)
    assert kernel.spis == both(3) and len(kernel.policies) == 3 and len(ours.tunnels) == 1
    ours.close(one)  # which we no longer know: nothing happens
    ours.close(made(9))
    assert kernel.spis == both(3)
    tunnel = ours.only
    ours.close(other)
    assert not kernel.sas and not kernel.policies and not ours.tunnels
    ours.switch(tunnel)  # an alarm that comes late
    assert not kernel.sas


def test_traffic_that_a_tunnel_has_no_longer_does_not_lead_to_it(kernel: Kernel) -> None:
    ours, old = Ours(), made(2)
    reqid = ours.put(old)
    assert ours.put(made(3, near='10.1.0.0/25'), old) == reqid
    assert ours.put(made(4)) != reqid and ours.put(made(5, near='10.1.0.0/25')) == reqid


def test_of_what_is_gone_nothing_is_kept(kernel: Kernel) -> None:
    ours, old, new = Ours(), made(2), made(3, near='10.1.0.0/25')
    ours.put(old)
    ours.put(new, old)
    for one in old, new: ours.close(one)
    assert not (ours.tunnels or ours.by_spi or ours.by_traffic or ours.names)


def test_we_leave_with_what_is_ours(kernel: Kernel) -> None:
    ours, others = Ours(3), Ours(4)
    ours.put(made(2))
    others.put(made(3, near='10.8.0.0/24'))
    kernel.sas['xfrm state delete of somebody'] = 7
    ours.leave()
    assert kernel.spis == sorted([*both(3), 'somebody'])
    assert len(kernel.policies) == 3 and not ours.tunnels


# Before it begins

def test_setkey_of_linux_needs_an_algorithm_that_it_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[SadDialect] = []
    monkeypatch.setattr(install, 'cleanup', lambda language, program: cleaned.append(language))
    cut = parse_proposals('aes256-sha256,aes256gcm16', ProtocolID.ESP)
    whole = parse_proposals('aes256-sha512', ProtocolID.ESP)
    assert not any(map(setkey_can_carry, cut)) and all(map(setkey_can_carry, whole))
    with pytest.raises(InstallError, match='no packet would pass') as caught:
        prepare_kernel(SETKEY, True, 3, cut)
    assert caught.value.lack == Lack.BY_PF_KEY
    assert not cleaned
    for language, on_linux, esp in (
            (SETKEY, True, cut + whole), (SETKEY, True, whole), (SETKEY, False, cut), (XFRM, True, cut)):
        prepare_kernel(language, on_linux, 3, esp)
    assert cleaned == [SETKEY] * 3 + [XFRM]


class Sock(SimpleNamespace):
    "A socket that takes note of what is set, or can't."

    def setsockopt(self, *what: object) -> None:
        if self.error: raise self.error
        self.set.append(what)

    def getsockopt(self, *what: object) -> bytes: return struct.pack('=iII', 1, self.user, 1)


def test_a_socket_is_let_past_the_policies_and_esp_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, natt, count in ('linux', False, 2), ('linux', True, 3), ('freebsd13', True, 0):
        monkeypatch.setattr(sys, 'platform', system)
        sock = Sock(family=socket.AF_INET, set=[], error=None)
        prepare(sock, natt)
        assert len(sock.set) == count
        if natt and count: assert sock.set[-1] == (socket.IPPROTO_UDP, 100, 2)
    monkeypatch.setattr(sys, 'platform', 'linux')
    for error, hint in (PermissionError(1, 'not yours'), RIGHT), (OSError(22, 'not here'), ''):
        with pytest.raises(InstallError) as caught: prepare(Sock(family=socket.AF_INET, error=error), False)
        assert str(caught.value) == f'a policy for our socket: {error.strerror}{hint}'


def test_whom_we_tell_what_we_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    "Root, and who we are ourselves."
    monkeypatch.setattr(install.os, 'geteuid', lambda: 1000)
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert [may_query(Sock(user=user)) for user in (0, 1000, 1001)] == [True, True, False]
    assert user_of(Sock(user=1001)) == 1001
    monkeypatch.setattr(sys, 'platform', 'freebsd13')
    assert may_query(Sock(user=1001)) and user_of(Sock(user=1001)) is None


@pytest.mark.parametrize('endless', [False, True])
def test_an_answer_may_come_in_pieces_and_has_an_end(monkeypatch: pytest.MonkeyPatch, endless: bool) -> None:
    "One that is longer than what is read at a time; the clock stands still, so nothing else ends the wait."
    program, server = entries.claim()
    name = entries.socket_name(program)
    monkeypatch.setattr(install, 'socket_name', lambda n: name if n == program else '\0nobody')
    monkeypatch.setattr(install, 'ANSWER', 200_000)
    told = {'ike': [{'children': ['x' * 1000] * 150}], 'program': 'ours'}

    def answer() -> None:
        with server.accept()[0] as caller, suppress(OSError):
            caller.sendall(json.dumps(told).encode())
            while endless: caller.sendall(bytes(65536))
    with server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert query_status(lambda: 0.0) == ([] if endless else [{**told, 'user': os.geteuid()}])
        thread.join(30)
