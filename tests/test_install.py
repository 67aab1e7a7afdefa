"""When the kernel is told of a Child SA, and when the peer: both programs, with notes taken
in place of a kernel and a network.
"""
import io
from types import SimpleNamespace

import pytest
from canonical import configs
from ike_lit.cli.options import InitiatorOptions
from ike_lit.engine.create_child_sa import rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.model import ChildEstablished, ChildSA, Datagram, Installed, Lifetime, Timing
from ike_lit.initiator import Session
from ike_lit.kernel.dialects import InstallError
from ike_lit.responder import Server
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.nat import Endpoint

ARGS = InitiatorOptions(json=True, install='xfrm')


class Kernel:
    "Takes note of what an Installer would do; with `full`, it can't."

    def __init__(self, notes: list[str], full: bool = False):
        self.notes, self.full, self.tunnels = notes, full, []

    def add(self, event: ChildEstablished, peer: object, lifetime: float) -> Installed:
        self.notes.append(f'add {"ours" if event.ours else "theirs"} {lifetime:g}')
        if self.full: raise InstallError('the kernel is full')
        return Installed(event.child, 'notes', 1, 3, event.replaces)

    def close(self, child: ChildSA) -> None: self.notes.append('close')


class Ends:
    "Both programs, and the datagrams between them, one at a time."

    def __init__(self, full: bool = False, **changes: object):
        left, right = configs(timing=Timing(child=Lifetime(0, 77), ike=Lifetime(), liveness=0), **changes)
        self.notes: dict[Endpoint, list[str]] = {ALICE: [], BOB: []}
        self.waiting: list[Datagram] = []
        alice = Session(left, ARGS, io.StringIO(), None, Kernel(self.notes[ALICE], full))
        bob = Server(Host((right,)), ARGS, io.StringIO(), None, Kernel(self.notes[BOB], full))
        self.programs = {ALICE: alice, BOB: bob}
        for here, program in self.programs.items():
            program.ports = {here: SimpleNamespace(send=lambda d, here=here: self.send(here, d))}
            program.loop = SimpleNamespace(time=lambda: 1.0, call_soon=lambda do: None,
                                           call_at=lambda *_: SimpleNamespace(cancel=lambda: None))
            program.end = self.notes[here].append
        alice.attempt = alice.host.connect(left, ALICE, BOB, 1.0)
        alice.pump()

    def send(self, here: Endpoint, d: Datagram) -> None:
        self.notes[here].append('send')
        self.waiting.append(d)

    def run(self) -> None:
        "Deliver until nobody has anything to say."
        for _ in range(50):
            if not self.waiting: return
            d = self.waiting.pop(0)
            self.programs[d.destination].received(d.data, d.source, d.destination)
        pytest.fail('they talk for ever')

    def start(self, who: Endpoint, conversation: object, *args: object) -> None:
        program = self.programs[who]
        for notes in self.notes.values(): notes.clear()
        program.host.start(program.host.established[0], conversation, *args, now=1.0)
        program.pump()
        self.run()


def test_the_kernel_receives_before_the_answer_leaves() -> None:
    "RFC 7296 §2.8: 'MUST be prepared to accept messages on an SA before sending its response'."
    ends = Ends()
    ends.run()
    assert ends.notes[BOB] == ['send', 'add theirs 77', 'send']
    assert ends.notes[ALICE] == ['send', 'send', 'add ours 77']


@pytest.mark.parametrize('who, other', [(ALICE, BOB), (BOB, ALICE)])
def test_a_rekeyed_child_sa(who: Endpoint, other: Endpoint) -> None:
    "The one who asks sends its Delete when the kernel has the new SAs; the other one's kernel has to wait."
    ends = Ends()
    ends.run()
    child = next(iter(ends.programs[who].host.established[0].children))
    ends.start(who, rekey_child, child)
    assert ends.notes[who] == ['send', 'add ours 77', 'send', 'close']
    assert ends.notes[other] == ['add theirs 77', 'send', 'close', 'send']


def test_a_rekeyed_ike_sa_is_nothing_to_the_kernel() -> None:
    ends = Ends()
    ends.run()
    ends.start(ALICE, rekey_ike_sa)
    assert {*ends.notes[ALICE], *ends.notes[BOB]} == {'send'}


def test_what_the_kernel_does_not_take_is_deleted() -> None:
    "The initiator leaves, and the responder waits for others; neither keeps an SA that it could not use."
    ends = Ends(full=True)
    ends.run()
    assert ends.notes[ALICE][-1] == 7
    alice, bob = ends.programs.values()
    assert not alice.host.established and not bob.host.established
    assert '"NotInstalled"' in alice.printer.out.getvalue()
    assert 'the kernel is full' in bob.printer.out.getvalue()
    assert 7 not in ends.notes[BOB]
