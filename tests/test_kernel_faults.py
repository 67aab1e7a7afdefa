"""What can go wrong between us and a real kernel's SAD and SPD:
whatever happens, it is said in a line, and what others have put there is as it was.
"""
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import ike_lit.initiator
import ike_lit.cli.program
import ike_lit.responder
import pytest
from ike_lit.engine.model import ChildEstablished, ChildSA
from ike_lit.kernel.dialects import XFRM, InstallError
from ike_lit.kernel.entries import RIGHT, claim, cleanup, entries, socket_name
from ike_lit.kernel.install import GRACE_SECONDS, SWITCH_SECONDS, XFRM_POLICY, Installer
from ike_lit.setkey import main
from ike_lit.wire.auth import Identity
from netspace import (
    IP, LIMIT, NEW_MOUNTS, NEW_NETWORK, Policy, Process, held_by_kernel, home, ip, nobody, policies,
    sas, stand_in, unshare)
from test_setkey import child

SUITES = ('--ike', 'aes256gcm16-prfsha256-curve25519', '--esp', 'aes256-sha256')
CAP_NET_ADMIN = 12
Start = Callable[..., Process]
LOCAL = 'local 192.0.2.2 dev lo table local proto kernel scope host src 192.0.2.1'
MODULES = ('esp4', 'esp6', 'ah4', 'ipcomp', 'xfrm_user', 'cbc', 'authenc', 'echainiv', 'deflate',
           'sha256_ssse3', 'gcm', 'seqiv', 'af_key', 'veth')
KEYS = 'enc cbc(aes) 0x3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e auth-trunc hmac(sha256) ' \
       '0x3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a 128'
ENDS = 'src 192.0.2.1 dst 192.0.2.2'
FOREIGN = f"""\
link set lo up
address add 192.0.2.1/32 dev lo
address add 192.0.2.2/32 dev lo
route replace {LOCAL}
xfrm state add {ENDS} proto esp spi 0x101 reqid {0x48ffffff} mode tunnel {KEYS}
xfrm state add {ENDS} proto esp spi 0x102 reqid {0x4a000000} mode tunnel {KEYS}
xfrm state add {ENDS} proto esp spi 0x103 reqid {0x490001} mode tunnel {KEYS} sel src 10.0.0.0/8
xfrm state add {ENDS} proto esp spi 0x104 mode transport {KEYS}
xfrm state add src 192.0.2.9 dst 192.0.2.8 proto esp spi 0x5b000002 reqid 1 mode tunnel {KEYS}
xfrm state add {ENDS} proto esp spi 0x105 reqid 3 mode tunnel mark 9 mask 255 if_id 3 {KEYS} \
encap espinudp 4500 4500 0.0.0.0
xfrm state add {ENDS} proto ah spi 0x106 reqid 4 mode tunnel auth hmac(sha256) 0x{'3a' * 32}
xfrm state add src 2001:db8::1 dst 2001:db8::2 proto hao mode ro coa 2001:db8::5
xfrm state add src 2001:db8::1 dst 2001:db8::2 proto route2 mode ro coa 2001:db8::5
xfrm state add src 2001:db8::1 dst 2001:db8::2 proto esp spi 0x107 reqid {0x4900} mode beet {KEYS}
xfrm policy add src 10.2.0.0/24 dst 10.1.0.0/24 dir out priority 1808 tmpl {ENDS} proto esp \
reqid {0x48ffffff} mode tunnel
xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 dir in priority 1808 tmpl {ENDS} proto esp \
reqid {0x4a000000} mode tunnel
xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 dir fwd priority 1808 tmpl {ENDS} proto esp \
reqid {0x490001} mode tunnel
xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out tmpl {ENDS} proto esp mode tunnel
xfrm policy add src 10.1.0.0/24 dst 10.9.0.0/24 dir out action block
xfrm policy add src 10.1.0.0/24 dst 10.9.0.0/24 dir in action allow
xfrm policy add src 10.1.0.0/24 dst 10.8.0.0/24 dir out mark 5 mask 255 tmpl {ENDS} proto esp \
reqid 5 mode tunnel
xfrm policy add src 10.1.0.0/24 dst 10.7.0.0/24 dir out if_id 7 tmpl {ENDS} proto esp \
reqid 6 mode tunnel
xfrm policy add src 10.1.0.0/24 dst 10.6.0.0/24 dir out tmpl {ENDS} proto comp reqid 7 \
mode tunnel tmpl proto esp reqid 8 mode transport
xfrm policy add src fd01::/64 dst fd02::/64 dir out tmpl src 2001:db8::1 dst 2001:db8::2 \
proto esp spi 0x107 reqid {0x4900} mode tunnel
"""
BOB, CAROL = map(Identity.from_text, ('bob.example.org', 'carol.example.org'))


@pytest.fixture(scope='module', autouse=True)
def machine() -> Iterator[None]:
    subprocess.run(['/usr/sbin/modprobe', '-a', '-q', *MODULES], check=False)
    with home(): yield


@pytest.fixture
def before(machine: None) -> Iterator[list]:
    "A network of our own; yields what others have put into its kernel."
    unshare(NEW_NETWORK)
    ip(FOREIGN)
    return held_by_kernel()


@pytest.fixture
def start() -> Iterator[Start]:
    "Start processes, and see to their end."
    processes: list[Process] = []

    def run(what: Callable[[], int | None], env: dict[str, str] | None = None) -> Process:
        processes.append(Process(what, env))
        return processes[-1]
    yield run
    for process in processes: process.close()


def made(n: int = 2, near: str = '10.1.0.0/24', far: str = '10.2.0.0/24',
         ours: str = '192.0.2.1', **more: object) -> ChildSA:
    "Return the Child SA that has these last octets in its SPIs."
    one = child(ours, '192.0.2.2', near, far, 'aes256-sha256', **more)
    return replace(one, inbound=replace(one.inbound, spi=bytes([0x5a, 0, 0, n])),
                   outbound=replace(one.outbound, spi=bytes([0x5b, 0, 0, n])))


class Watched(Installer):
    "An installer which looks, after each script, whether every packet would find an SA."

    def __init__(self) -> None:
        super().__init__(XFRM, 0)
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.later = lambda seconds, do: self.alarms.append((seconds, do))

    def run(self, lines: list[str]) -> None:
        super().run(lines)
        sends = {(sa.reqid, sa.source, sa.destination) for sa in sas()}
        for policy in our_policies():
            if policy.way == 'out':
                assert (policy.reqids[0], *policy.ends) in sends, f'no SA to send by after {lines}'

    def put(self, one: ChildSA, replaces: ChildSA | None = None, ours: bool = True,
            peer: Identity = BOB) -> None:
        self.add(ChildEstablished(one, replaces, ours), peer)

    def wait(self, seconds: float) -> None:
        "Let the alarms of one kind go off."
        due = [alarm for alarm in self.alarms if alarm[0] == seconds]
        self.alarms = [alarm for alarm in self.alarms if alarm not in due]
        for _, do in due: do()


def spis() -> list[str]:
    "Return the SPIs of ours that the kernel has."
    return sorted(sa.spi for sa in sas() if sa.reqid >> 24 == 0x49)


def shapes() -> list[tuple]:
    "Return what the kernel holds, without the times at which it was made."
    return [found[:-1] for found in held_by_kernel()]


def our_policies() -> list[Policy]:
    return [p for p in policies() if any(reqid >> 24 == 0x49 for reqid in p.reqids)]


def said(error: pytest.ExceptionInfo[InstallError]) -> str:
    "Return what an error says: a line without a key."
    text = str(error.value)
    assert '\n' not in text and not any(octets * 3 in text for octets in ('1a', '1e', '2a', '2e'))
    return text


# What stands in the way

@pytest.mark.parametrize('way', ['inbound', 'outbound'])
def test_a_foreign_sa_with_our_spi(before: list, way: str) -> None:
    sa = getattr(made(), way)
    ip(f'xfrm state add src {sa.source} dst {sa.destination} proto esp spi 0x{sa.spi.hex()} '
       f'reqid 7 mode tunnel {KEYS}\n')
    before = held_by_kernel()
    with pytest.raises(InstallError) as error: Watched().put(made())
    assert held_by_kernel() == before
    assert 'File exists; at xfrm state add' in said(error) and f'spi 0x{sa.spi.hex()}' in said(error)


@pytest.mark.parametrize('way', ['out', 'in', 'fwd'])
def test_a_foreign_policy_with_our_selectors(before: list, way: str) -> None:
    ends = 'src 10.1.0.0/24 dst 10.2.0.0/24' if way == 'out' else 'src 10.2.0.0/24 dst 10.1.0.0/24'
    ip(f'xfrm policy add {ends} dir {way} tmpl {ENDS} proto esp reqid 9 mode tunnel\n')
    before = held_by_kernel()
    with pytest.raises(InstallError) as error: Watched().put(made())
    assert held_by_kernel() == before
    assert f'File exists; at xfrm policy add {ends} dir {way} ' in said(error)


# An `ip` that does not do its work

FAILS = """\
case "$1" in -batch) ;; *) exec $real "$@";; esac
cat > $here/script
grep -q delete $here/script && exec $real -batch $here/script
head -n {done} $here/script | $real -batch -
"""
COMPLAINT = f'echo "Error: 0x{"2e" * 32} is odd\nCommand failed -:3" >&2; exit 1'


def test_ip_fails_at_any_line(before: list, tmp_path: Path,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', stand_in(tmp_path, '')['PATH'])
    for done, line in enumerate(XFRM.lines(made(), 0x49000001, show_keys=False)):
        stand_in(tmp_path, FAILS.format(done=done) + COMPLAINT)
        with pytest.raises(InstallError) as error: Watched().put(made())
        assert held_by_kernel() == before, done
        assert 'ip: Error: <a key> is odd Command failed -:3; at ' in said(error)
        assert said(error).endswith(line.replace('<32 octets>', '<a key>')), done


@pytest.mark.parametrize('done', [0, 3, 5])
def test_ip_hangs(before: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                  done: int) -> None:
    os.mkfifo(tmp_path / 'fifo')
    text = FAILS.format(done=done) + 'read never < $here/fifo'
    monkeypatch.setenv('PATH', stand_in(tmp_path, text)['PATH'])
    run = subprocess.run
    monkeypatch.setattr(subprocess, 'run', lambda *args, timeout, **more: run(
        *args, timeout=2 if (tmp_path / 'script').exists() is False else timeout / 2, **more))
    with pytest.raises(InstallError) as error: Watched().put(made())
    assert held_by_kernel() == before
    assert 'ip has not done its work within 10 seconds; at xfrm' in said(error)


@pytest.mark.parametrize('text, words', [
    (f"printf 'caf\\351 0x{'2e' * 32}' >&2; exit 1", 'caf'),
    ('kill -9 $$', 'exit status -9'), ('exit 3', 'exit status 3'),
    (f'echo 0x{"2E" * 32}', '<a key>'), ('echo warning >&2', 'ip: warning')])
def test_ip_ends_strangely(before: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                           text: str, words: str) -> None:
    monkeypatch.setenv('PATH', stand_in(tmp_path, FAILS.format(done=3) + text)['PATH'])
    with pytest.raises(InstallError) as error: Watched().put(made())
    assert held_by_kernel() == before and words in said(error)


def test_ip_fails_for_everything(before: list, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    "What was wrong first is told, and all goes when `ip` is itself again."
    monkeypatch.setenv('PATH', stand_in(
        tmp_path, 'if test -e $here/bad; then echo then >&2; exit 1; fi; touch $here/bad\n'
                  'head -n 3 | $real -batch -; echo at first >&2; exit 1')['PATH'])
    installer = Watched()
    with pytest.raises(InstallError) as error: installer.put(made())
    assert 'at first' in said(error)
    stand_in(tmp_path, 'exec $real "$@"')
    installer.leave()
    assert held_by_kernel() == before


def test_ip_fails_at_removal(before: list, tmp_path: Path,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Watched()
    installer.put(made())
    monkeypatch.setenv('PATH', stand_in(
        tmp_path, FAILS.split('grep')[0] + 'echo not now >&2; exit 1')['PATH'])
    with pytest.raises(InstallError, match='not now'): installer.close(made())
    with pytest.raises(InstallError, match='not now'): installer.leave()
    monkeypatch.undo()
    assert len(held_by_kernel()) == len(before) + 5
    installer.leave()
    assert held_by_kernel() == before


def test_ip_fails_at_any_line_of_a_rekeying(before: list, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    "The Child SA that was to be replaced goes on as it was."
    old, wrong = made(2, '10.1.0.0/24,10.3.0.0/24'), []
    heirs = [made(3, '10.1.0.0/24,10.4.0.0/24'),
             made(4, '10.1.0.0/24,10.3.0.0/24', ours='192.0.2.3')]
    monkeypatch.setenv('PATH', stand_in(tmp_path, 'exec $real "$@"')['PATH'])
    fails = FAILS.replace('grep -q delete $here/script &&',
                          'head -n 1 $here/script | grep -q "state add" ||')
    for heir, lines in zip(heirs, (2 + 3 + 3, 2 + 6), strict=True):
        installer = Watched()
        installer.put(old)
        for done in 0, 2, 3, lines - 1:
            middle = shapes()
            stand_in(tmp_path, fails.format(done=done) + COMPLAINT)
            with pytest.raises(InstallError) as error: installer.put(heir, old)
            stand_in(tmp_path, 'exec $real "$@"')
            if shapes() == middle and said(error): continue
            wrong.append((heir.inbound.spi.hex(), done))
            installer.leave()
            installer.put(old)
        installer.leave()
        assert held_by_kernel() == before
    assert wrong == []


# Child SAs that come and go

def test_we_rekey(before: list) -> None:
    installer = Watched()
    installer.put(made(2))
    mine = policies()
    installer.put(made(3), made(2))
    assert spis() == ['5a000002', '5a000003', '5b000002', '5b000003']
    installer.close(made(2))
    assert spis() == ['5a000002', '5a000003', '5b000003']  # a late packet is still received
    installer.wait(GRACE_SECONDS)
    assert spis() == ['5a000003', '5b000003'] and policies() == mine
    installer.close(made(3))
    assert held_by_kernel() == before and not installer.alarms


@pytest.mark.parametrize('delete_comes', [True, False])
def test_the_peer_rekeys(before: list, delete_comes: bool) -> None:
    installer = Watched()
    installer.put(made(2))
    installer.put(made(3), made(2), ours=False)
    assert spis() == ['5a000002', '5a000003', '5b000002']  # it can't receive before our answer
    if delete_comes: installer.close(made(2))
    else: installer.wait(SWITCH_SECONDS)
    assert '5b000003' in spis()
    installer.wait(SWITCH_SECONDS)
    installer.wait(GRACE_SECONDS)
    if not delete_comes: installer.close(made(2))
    installer.close(made(3))
    installer.wait(GRACE_SECONDS)
    assert held_by_kernel() == before


@pytest.mark.parametrize('order', list(itertools.permutations((2, 3, 4))))
def test_both_rekey_at_once(before: list, order: tuple[int, ...]) -> None:
    "Two successors: whichever goes first, there is an SA to send by as long as there are policies."
    installer = Watched()
    installer.put(made(2))
    installer.put(made(3), made(2))
    installer.put(made(4), made(2), ours=False)
    for n in order[:2]: installer.close(made(n))
    assert f'5b00000{order[2]}' in spis()
    installer.wait(GRACE_SECONDS)
    installer.wait(SWITCH_SECONDS)
    assert spis() == [f'5a00000{order[2]}', f'5b00000{order[2]}']
    installer.close(made(order[2]))
    assert held_by_kernel() == before


@pytest.mark.parametrize('ours', [True, False])
@pytest.mark.parametrize('first', [2, 3])
def test_rekeying_changes_the_selectors(before: list, ours: bool, first: int) -> None:
    installer = Watched()
    old, new = made(2, '10.1.0.0/24,10.3.0.0/24'), made(3, '10.1.0.0/24,10.4.0.0/24')
    installer.put(old)
    installer.put(new, old, ours)
    assert {p.source for p in our_policies() if p.way == 'out'} == {
        '10.1.0.0/24', '10.4.0.0/24'}
    for one in (old, new) if first == 2 else (new, old): installer.close(one)
    assert held_by_kernel() == before


@pytest.mark.parametrize('ours', [True, False])
@pytest.mark.parametrize('first', [2, 3])
def test_rekeying_changes_the_address(before: list, ours: bool, first: int) -> None:
    installer = Watched()
    old, new = made(2), made(3, ours='192.0.2.3')
    installer.put(old)
    installer.put(new, old, ours)
    for one in (old, new) if first == 2 else (new, old): installer.close(one)
    assert held_by_kernel() == before


@pytest.mark.parametrize('first', [2, 3])
@pytest.mark.parametrize('ours', ['192.0.2.1', '192.0.2.3'])
def test_the_same_peer_has_the_same_twice(before: list, first: int, ours: str) -> None:
    installer = Watched()
    both = [made(2), made(3, ours=ours)]
    for one in both: installer.put(one)
    if first == 3: both.reverse()
    installer.close(both[0])
    out, = (p for p in our_policies() if p.way == 'out')
    assert out.ends == (both[1].outbound.source, '192.0.2.2')
    installer.close(both[1])
    installer.wait(GRACE_SECONDS)
    assert held_by_kernel() == before


def test_another_peer_wants_the_same(before: list) -> None:
    installer = Watched()
    installer.put(made(2))
    middle = held_by_kernel()
    with pytest.raises(InstallError) as error: installer.put(made(3), peer=CAROL)
    assert 'File exists' in said(error) and held_by_kernel() == middle
    installer.close(made(3))
    assert held_by_kernel() == middle
    installer.close(made(2))
    assert held_by_kernel() == before


@pytest.mark.parametrize('rekeying', [True, False])
def test_a_peer_gives_an_spi_twice(before: list, rekeying: bool) -> None:
    "What it has already is not taken away for that."
    installer = Watched()
    installer.put(made(2))
    middle = held_by_kernel()
    again = replace(made(3), outbound=made(2).outbound)
    with pytest.raises(InstallError) as error: installer.put(again, made(2) if rekeying else None)
    assert 'has one of these SPIs' in said(error) and held_by_kernel() == middle
    installer.close(made(2))
    assert held_by_kernel() == before


def test_a_peer_gives_an_spi_twice_when_it_rekeys(before: list) -> None:
    installer = Watched()
    installer.put(made(2))
    again = replace(made(3), outbound=made(2).outbound)
    with pytest.raises(InstallError): installer.put(again, made(2), ours=False)
    assert spis() == ['5a000002', '5b000002']
    installer.leave()
    assert held_by_kernel() == before


def test_a_predecessor_that_is_not_in_the_kernel(before: list) -> None:
    installer = Watched()
    installer.put(made(3), made(2), ours=False)
    assert spis() == ['5a000003', '5b000003']
    installer.close(made(3))
    assert held_by_kernel() == before


def test_a_reqid_is_not_given_twice(before: list) -> None:
    "The numbers of a program that runs for long come round again."
    installer = Watched()
    installer.put(made(2))
    installer.count += XFRM.marks.tunnels - 1
    installer.put(made(3, '10.3.0.0/24'))
    installer.close(made(3, '10.3.0.0/24'))
    assert spis() == ['5a000002', '5b000002']
    installer.leave()
    assert held_by_kernel() == before


def test_others_have_removed_it(before: list) -> None:
    installer = Watched()
    for n in 2, 3: installer.put(made(n, f'10.{n}1.0.0/24'))
    sa, out = made(2).outbound, 'src 10.21.0.0/24 dst 10.2.0.0/24 dir out'
    ip(f'xfrm state delete src {sa.source} dst {sa.destination} proto esp spi 0x{sa.spi.hex()}\n'
       f'xfrm policy delete {out}\n')
    for n in 2, 3: installer.close(made(n, f'10.{n}1.0.0/24'))
    assert held_by_kernel() == before


def test_it_vanishes_while_we_remove_it(before: list, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Watched()
    installer.put(made())
    monkeypatch.setenv('PATH', stand_in(
        tmp_path, 'case "$1" in -batch) ;; *) exec $real "$@";; esac\n'
                  'cat > $here/script; test -e $here/seen || sed -n 3p $here/script | $real -batch -\n'
                  'touch $here/seen; exec $real -batch $here/script')['PATH'])
    installer.close(made())
    assert held_by_kernel() == before


# What is ours, among hostile neighbours

def test_only_what_has_our_mark_is_removed(before: list) -> None:
    "Others have nearly our reqids, and our selectors in other directions."
    Installer(XFRM, 7).add(ChildEstablished(made()), BOB)
    assert [e.reqid for e in entries(XFRM) if e.reqid == 0x49070001] == [0x49070001] * 5
    assert cleanup(XFRM) == 5 and held_by_kernel() == before


def test_what_we_never_make_is_not_ours(before: list) -> None:
    "Even with a reqid that looks like ours: it has a mark, an interface, another protocol."
    common = f'tmpl {ENDS} proto esp reqid {0x49000001} mode tunnel\n'
    ip(''.join(f'xfrm policy add src 10.1.0.0/24 dst 10.20{n}.0.0/24 dir out {what} {common}'
               for n, what in enumerate(('mark 5 mask 255', 'if_id 7')))
       + f'xfrm policy add src 10.1.0.0/24 dst 10.202.0.0/24 dir out tmpl {ENDS} proto ah '
         f'reqid {0x49000001} mode tunnel\n'
         f'xfrm state add {ENDS} proto esp spi 0x5b000002 reqid {0x49000001} mode tunnel '
         f'mark 9 mask 255 {KEYS}\n')
    before = held_by_kernel()
    Installer(XFRM, 0).add(ChildEstablished(made(4)), BOB)
    assert cleanup(XFRM) == 5
    assert held_by_kernel() == before


def test_policies_of_sockets_are_nobodys(before: list) -> None:
    "Not even one with a template and a reqid like ours; it goes with its socket, and not before."
    info = struct.pack('=40xH118xBBBB4x', socket.AF_INET, 1, 0, 0, 0)
    template = struct.pack('=16xIB3xH2x16xIBBBxIII', 0, 50, socket.AF_INET, 0x49000001, 0, 0, 0,
                           *[0xffffffff] * 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(*XFRM_POLICY[socket.AF_INET], info + template)
        shown = subprocess.run([IP, 'xfrm', 'policy'], capture_output=True, text=True, check=True)
        assert 'socket out' in shown.stdout and f'reqid {0x49000001}' in shown.stdout
        assert cleanup(XFRM) == 0
    assert held_by_kernel() == before


# Killed, and cleaned up

KILLER = """\
case "$1" in -batch) ;; *) exec $real "$@";; esac
cat > $here/script
grep -q '{word}' $here/script || exec $real -batch $here/script
exec 9> $here/end
head -n {lines} $here/script | $real -batch -
kill -9 $PPID
{then}
"""
REST = 'sed 1,{lines}d $here/script | $real -batch -'


def install(leave: bool = False) -> None:
    "Do what our programs do between the Child SA and their end."
    number, name = claim()
    installer = Installer(XFRM, number, (name.fileno(),))
    installer.add(ChildEstablished(made()), BOB)
    if leave: installer.leave()


def count_cleaned(capsys: pytest.CaptureFixture[str]) -> int:
    "Run the command that cleans up; return how many entries it has removed."
    assert main(['--cleanup']) == 0
    said = capsys.readouterr()
    assert not said.err
    return int(said.out.split()[0])


@pytest.mark.parametrize('word, lines, goes_on, left', [
    ('state add', 0, False, 0), ('state add', 1, False, 1), ('state add', 3, False, 3),
    ('state add', 2, True, 5), ('state add', 5, False, 5),
    ('delete', 0, False, 5), ('delete', 2, False, 3), ('delete', 2, True, 0)])
def test_killed_while_ip_runs(
        before: list, tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str],
        word: str, lines: int, goes_on: bool, left: int) -> None:
    number, name = claim()  # another one of ours, which lives
    with name:
        living = Installer(XFRM, number, (name.fileno(),))
        living.add(ChildEstablished(made(9, '10.9.0.0/24')), BOB)
        middle = held_by_kernel()
        os.mkfifo(tmp_path / 'end')
        env = stand_in(tmp_path, KILLER.format(word=word, lines=lines,
                                               then=REST.format(lines=lines) * goes_on))
        killed = start(lambda: install(leave=word == 'delete'), env)
        (tmp_path / 'end').read_bytes()  # until nobody has it open
        assert killed.wait() == -signal.SIGKILL
        assert len(held_by_kernel()) == len(middle) + left
        assert count_cleaned(capsys) == left
        assert held_by_kernel() == middle
        living.leave()
    assert held_by_kernel() == before


def test_an_orphan_that_still_writes_is_let_alone(
        before: list, tmp_path: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    for fifo in 'end', 'go': os.mkfifo(tmp_path / fifo)
    then = f'read go < $here/go; {REST.format(lines=2)}'
    env = stand_in(tmp_path, KILLER.format(word='state add', lines=2, then=then))
    killed = start(install, env)
    with (tmp_path / 'end').open('rb') as end:
        assert killed.wait() == -signal.SIGKILL
        assert len(held_by_kernel()) == len(before) + 2
        assert count_cleaned(capsys) == 0
        assert len(held_by_kernel()) == len(before) + 2
        (tmp_path / 'go').write_text('\n')
        end.read()
    assert len(held_by_kernel()) == len(before) + 5
    assert count_cleaned(capsys) == 5
    assert held_by_kernel() == before


def test_cleanup_without_ip(before: list, start: Start) -> None:
    cleans = start(lambda: without_ip(lambda: main(['--cleanup'])))
    assert cleans.wait() == 7
    assert cleans.text == "ike_lit.setkey: there is no program 'ip' here\n"


def test_hundreds(before: list, capsys: pytest.CaptureFixture[str]) -> None:
    installer, tunnels = Installer(XFRM, 0), int(os.environ.get('TUNNELS', '100'))
    began = time.monotonic()
    for n in range(tunnels):
        one = made(n % 256, f'10.{n // 200 + 100}.{n % 200}.0/24')
        spi = (0x5c000000 + n).to_bytes(4, 'big')
        installer.add(ChildEstablished(replace(
            one, inbound=replace(one.inbound, spi=spi),
            outbound=replace(one.outbound, spi=spi))), BOB)
    added = time.monotonic()
    assert len(held_by_kernel()) == len(before) + 5 * tunnels
    installer.leave()
    with capsys.disabled():
        print(f'{tunnels} tunnels: {added - began:.1f} s, and out: '
              f'{time.monotonic() - added:.1f} s')
    assert held_by_kernel() == before


# Programs

# where a responder's policies meet no others
INSIDE = ('--local-ts', '10.1.7.0/25')


def without_ip(run: Callable[[], int]) -> int:
    "Run something where `ip` can't be run."
    unshare(NEW_MOUNTS)
    for command in (['--make-rprivate', '/'], ['--bind', '/dev/null', IP]):
        subprocess.run(['/usr/bin/mount', *command], check=True)
    return run()


def initiator(psk: Path, *options: str) -> int:
    return ike_lit.initiator.main([
        '192.0.2.2', '--local-id', 'alice.example.org', '--remote-id', 'bob.example.org',
        '--psk-file', str(psk), '--local-ts', '10.1.0.0/24', '--remote-ts', '10.2.0.0/24',
        *SUITES, '--retry', 'never', *options])


def responder(psk: Path, *options: str) -> int:
    return ike_lit.responder.main([
        '--listen', '192.0.2.2', '--local-id', 'bob.example.org', '--remote-id',
        'alice.example.org', '--psk-file', str(psk), '--local-ts', '10.2.0.0/24',
        '--remote-ts', '10.1.0.0/16', *SUITES, *options])


@pytest.fixture
def psk() -> Iterator[Path]:
    "A shared key that nobody may read, and root."
    with TemporaryDirectory(prefix='ike-lit-') as folder:
        file = Path(folder, 'psk')
        file.touch(mode=0o600)
        file.write_text('a secret of two ends, for tests only\n')
        for path in folder, file: os.chown(path, 65534, 65534)
        yield file


@pytest.fixture
def peer(psk: Path, start: Start) -> Process:
    "A responder that installs nothing."
    process = start(lambda: responder(psk, '--install', 'none'))
    process.until('listening')
    return process


def up(process: Process) -> Process:
    "Wait until a program has put its Child SA into the kernel."
    process.until('installed by ip')
    assert len(spis()) == 2 and len(our_policies()) == 3
    return process


def tells(process: Process) -> str:
    "Return what a program has said: no key, and no traceback."
    assert 'Traceback' not in process.text and not re.search('[0-9a-f]{40}', process.text)
    return process.text


@pytest.mark.parametrize('numbers', [
    [signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGINT]])
def test_an_initiator_is_told_to_leave(before: list, psk: Path, peer: Process, start: Start,
                                       numbers: list[int]) -> None:
    process = up(start(lambda: initiator(psk)))
    for number in numbers: process.send(number)
    assert process.wait() == 0 and 'Delete' in tells(process)
    assert held_by_kernel() == before


def test_the_peer_deletes(before: list, psk: Path, start: Start) -> None:
    "Its Child SA lives for a second and is not replaced."
    other = start(lambda: responder(psk, '--install', 'none', '--child-lifetime', '0,1'))
    other.until('listening')
    process = up(start(lambda: initiator(psk)))
    assert process.wait() == 8 and 'Child SA  closed' in tells(process)
    assert held_by_kernel() == before


@pytest.mark.parametrize('run', [initiator, responder])
def test_an_error_that_nobody_has_foreseen(before: list, psk: Path, start: Start,
                                           monkeypatch: pytest.MonkeyPatch,
                                           run: Callable[..., int]) -> None:
    def failing(ike: object, event: object, *others: object) -> int:
        if type(event).__name__ == 'Installed': raise RuntimeError('oh')
        return 0

    def broken() -> int:
        monkeypatch.setattr(ike_lit.cli.program, 'show', failing)
        return run(psk, *INSIDE * (run is initiator))
    if run is initiator:
        start(lambda: responder(psk, '--install', 'none')).until('listening')
        process = start(broken)
    else:
        process = start(broken)
        process.until('listening')
        start(lambda: initiator(psk, '--install', 'none', *INSIDE))
    assert process.wait() == 1 and 'RuntimeError: oh' in process.text
    assert held_by_kernel() == before


def test_nobody_reads_us_any_longer(before: list, psk: Path, peer: Process, start: Start) -> None:
    process = up(start(lambda: initiator(psk)))
    reader, process.pipe = process.pipe, os.open(os.devnull, os.O_RDONLY)
    os.close(reader)
    process.send(signal.SIGTERM)
    assert process.wait() == 1
    assert held_by_kernel() == before


@pytest.mark.parametrize('change', ['address delete 192.0.2.1/32 dev far', 'link delete far'])
def test_the_network_goes(before: list, psk: Path, start: Start, change: str) -> None:
    ip('link add far type veth peer name near\nlink set far up\nlink set near up\n'
       'address delete 192.0.2.1/32 dev lo\naddress add 192.0.2.1/32 dev far\n'
       f'route replace {LOCAL}\n')
    start(lambda: responder(psk, '--install', 'none')).until('listening')
    process = up(start(lambda: initiator(psk, '--liveness', '1', '--timeout', '5')))
    ip(change + '\n')
    assert process.wait() == 3 and 'failed: ' in tells(process)
    assert held_by_kernel() == before


@pytest.mark.parametrize('run, why', [
    (without_ip, "there is no program 'ip' here"), (lambda run: (nobody(), run())[1], RIGHT)])
def test_what_can_be_known_is_known_before_a_packet(
        before: list, psk: Path, start: Start, run: Callable[[Callable[[], int]], int],
        why: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as watch:
        watch.bind(('192.0.2.2', 500))
        watch.setblocking(False)
        process = start(lambda: run(lambda: initiator(psk)))
        assert process.wait() == 7 and why in tells(process)
        with pytest.raises(BlockingIOError): watch.recv(1)
    assert process.text.count('\n') == 1 and process.text.endswith('--dry-run installs nothing\n')
    assert held_by_kernel() == before
    listens = start(lambda: run(lambda: responder(psk, '--port', '1500', '--nat-port', '4500')))
    assert listens.wait() == 7 and why in tells(listens) and listens.text.count('\n') == 1


def test_one_right_is_enough(before: list, psk: Path, peer: Process, start: Start) -> None:
    process = up(start(lambda: (nobody(CAP_NET_ADMIN), initiator(psk))[1]))
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert held_by_kernel() == before and 'warning' not in tells(process)


def test_ip_fails_when_a_program_removes(
        before: list, psk: Path, peer: Process, start: Start, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    env = stand_in(tmp_path, FAILS.split('grep')[0] + 'grep -q add $here/script && exec $real '
                                                      '-batch $here/script\necho not now; exit 1')
    process = up(start(lambda: initiator(psk), env))
    process.send(signal.SIGTERM)
    status = process.wait()
    assert ('ike-lit: warning: ip: not now. What is left, python -m ike_lit.setkey --cleanup '
            'removes') in tells(process).splitlines()
    assert len(spis()) == 2 and count_cleaned(capsys) == 5
    assert held_by_kernel() == before and status == 7


def test_ip_fails_when_a_responder_removes(
        before: list, psk: Path, start: Start, tmp_path: Path) -> None:
    "It stays up for others, and tries again when it ends."
    env = stand_in(tmp_path, FAILS.split('grep')[0] + 'grep -q add $here/script && exec $real '
                   '-batch $here/script\ntest -e $here/well && exec $real -batch $here/script\n'
                   'echo not now; exit 1')
    process = start(lambda: responder(psk), env)
    process.until('listening')
    assert start(lambda: initiator(psk, '--install', 'none', '--once', *INSIDE)).wait() == 0
    process.until('not now')
    process.until('the peer has closed the IKE SA')
    (tmp_path / 'well').touch()
    other = start(lambda: initiator(psk, '--install', 'none', '--once', '--local-ts', '10.1.8.0/24'))
    assert other.wait() == 0
    process.send(signal.SIGTERM)
    assert process.wait() == 0 and tells(process).count('not now') == 1
    assert held_by_kernel() == before


def test_no_disk(before: list, psk: Path, peer: Process, start: Start) -> None:
    "We keep no state but the kernel's, so there is nothing to write."
    secret = psk.read_text()

    def full() -> int:
        unshare(NEW_MOUNTS)
        mount = partial(subprocess.run, check=True)
        mount(['/usr/bin/mount', '--make-rprivate', '/'])
        ours = Path(__file__), Path(sys.prefix)  # which have to stay in sight
        for where in '/tmp', '/var/tmp', '/run', '/dev/shm':  # noqa: S108
            if any(path.is_relative_to(where) for path in ours): continue
            mount(['/usr/bin/mount', '-t', 'tmpfs', '-o', 'size=8k', 'none', where])
            key, fill = Path(where, 'psk'), Path(where, 'fill')
            key.touch(mode=0o600)
            key.write_text(secret)
            with pytest.raises(OSError, match='No space'), fill.open('wb') as file:
                while True: os.write(file.fileno(), bytes(4096))
        return initiator(Path('/run/psk'))
    process = up(start(full))
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert held_by_kernel() == before and 'warning' not in tells(process)


def test_a_successor_of_the_killed_installs_at_once(
        before: list, psk: Path, peer: Process, start: Start) -> None:
    killed = up(start(lambda: initiator(psk)))
    killed.send(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and len(spis()) == 2
    process = up(start(lambda: initiator(psk)))
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert held_by_kernel() == before


def test_two_programs(before: list, psk: Path, peer: Process, start: Start,
                      capsys: pytest.CaptureFixture[str]) -> None:
    "Each has numbers of its own; both tell root what they hold; one is killed, the other is not."
    one = up(start(lambda: initiator(psk)))
    two = start(lambda: initiator(psk, *INSIDE))
    two.until('installed by ip')
    assert {sa.reqid for sa in sas()} > {0x49010001, 0x49020001}  # the peer is number 0
    assert count_cleaned(capsys) == 0
    assert ike_lit.initiator.main(['--status', '--json']) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [a['pid'] for a in answers] == [peer.pid, one.pid, two.pid]
    assert [[c['reqid'] for i in a['ike'] for c in i['children']] for a in answers] == [
        [None, None], [0x49010001], [0x49020001]]
    for name in [claim_of(1) for _ in range(50)]: name.close()
    with claim_of(1) as hanging:
        assert ike_lit.initiator.main(['--status']) == 0
        text = capsys.readouterr().out
        assert f'initiator, process {one.pid}' in text and 'reqid 0x49020001' in text
        assert not re.search('[0-9a-f]{40}', text)
        stranger = start(lambda: (nobody(), ike_lit.initiator.main(['--status']))[1])
        assert stranger.wait() == 0 and stranger.text == 'no program of ours answers here\n'
        hanging.settimeout(LIMIT)
        assert hanging.recv(1)
    one.send(signal.SIGKILL)
    assert one.wait() == -signal.SIGKILL and count_cleaned(capsys) == 5
    assert {sa.reqid for sa in sas() if sa.reqid >> 24 == 0x49} == {0x49020001}
    two.send(signal.SIGTERM)
    assert two.wait() == 0
    assert held_by_kernel() == before


def claim_of(program: int) -> socket.socket:
    "Call a program."
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(socket_name(program))
    return sock


CHILD = {'encr': 'x', 'integ': None, 'mode': 'tunnel', 'reqid': 'a', 'local_ts': [], 'remote_ts': [],
         'spi_in': '', 'spi_out': ''}
HELD = {'spi_i': '', 'spi_r': '', 'suite': '', 'local': '', 'local_id': '', 'remote': '',
        'remote_id': '', 'children': [CHILD]}


@pytest.mark.parametrize('answer', [
    b'{"program": "\\u001b[2J\\n", "pid": 1, "ike": []}', b'[]', b'{"ike": 3}', b'"' + b'9' * 99,
    b'[' * 100000, json.dumps({'program': 'x', 'pid': 1, 'ike': [HELD]}).encode()],
    ids=['terminal', 'list', 'little', 'half', 'deep', 'reqid'])
def test_a_stranger_poses_as_a_program_of_ours(before: list, start: Start, answer: bytes,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    "Anybody may take a name that is free, and say what he likes; who it was is said as well."
    def pose() -> None:
        nobody()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(socket_name(3))
            sock.listen()
            print('ready', flush=True)
            while True:
                with sock.accept()[0] as caller: caller.sendall(answer)
    start(pose).until('ready')
    for json_ in [], ['--json']:
        assert ike_lit.initiator.main(['--status', *json_]) == 0
        said = capsys.readouterr()
        assert not said.err and '\x1b' not in said.out
        lines = said.out.removeprefix('no program of ours answers here\n').splitlines()
        assert all('65534' in line or line[0] == ' ' for line in lines)


PORTS = ('--local-ts', '10.1.0.0/24[tcp/80-90]')


def test_selectors_that_no_policy_can_hold(before: list, psk: Path, peer: Process,
                                           start: Start) -> None:
    process = start(lambda: initiator(psk, *PORTS))
    assert process.wait() == 7
    line = process.until('not installed: ')
    assert 'a policy holds one port or all, not 80 to 90' in line and 'Delete' in tells(process)
    peer.until('Child SA  closed')
    assert held_by_kernel() == before


def test_a_peer_offers_selectors_that_no_policy_can_hold(before: list, psk: Path,
                                                         start: Start) -> None:
    "The responder takes the Child SA back, and stays up for the next."
    process = start(lambda: responder(psk))
    process.until('listening')
    other = start(lambda: initiator(psk, '--install', 'none', *PORTS))
    assert other.wait() == 8 and 'Child SA  closed' in tells(other)
    assert 'one port or all' in process.until('not installed: ')
    assert held_by_kernel() == before
    other = start(lambda: initiator(psk, '--install', 'none', *INSIDE))
    up(process)
    other.send(signal.SIGTERM)
    assert other.wait() == 0
    process.until('Child SA  closed')
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert held_by_kernel() == before


def test_a_policy_in_the_way_of_a_program(before: list, psk: Path, peer: Process,
                                          start: Start) -> None:
    ip(f'xfrm policy add src 10.2.0.0/24 dst 10.1.0.0/24 dir fwd tmpl {ENDS} proto esp reqid 9 '
       'mode tunnel\n')
    before = held_by_kernel()
    process = start(lambda: initiator(psk))
    assert process.wait() == 7
    assert 'File exists; at xfrm policy add src 10.2.0.0/24' in process.until('not installed: ')
    assert 'the IKE SA is closed' in tells(process) and held_by_kernel() == before
