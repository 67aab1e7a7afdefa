"""An end in each state in which a datagram may find it, either role, with what it has heard before
and what it waits for. The other end is there, and is played by hand.
"""
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from canonical import configs
from ike_lit.engine.create_child_sa import create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.informational import delete_child, delete_ike_sa, liveness
from ike_lit.engine.model import Datagram
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import Begin
from ike_lit.testing.network import ALICE, BOB
from ike_lit.testing.stage import PATIENT, End, Underway, talk_through
from ike_lit.wire.auth import SharedKey
from ike_lit.wire.const import ExchangeType
from ike_lit.wire.fragment import split
from ike_lit.wire.payload import Packet, Vendor
from ike_lit.wire.ppk import Ppk
from snapshot import Tree, tree

SUITE, ESP = 'aes128gcm16-prfsha256-x25519', 'aes128gcm16-x25519'  # quick
SECRET = SharedKey(b'a key that both ends have')
MORE = '-ke1_mlkem768-ke2_ecp256'
ROLES = 'initiator', 'responder'

# What may change although nobody vouches for a datagram: the clock, what is told to people and
# what is about to be sent (both are looked at by whoever compares), how often strangers were
# answered lately and the secret of the cookies for them, and the tests' own source of chance.
TOLD = r'\.(now|_?events|_?outbox|random|serial|answered\.times|answered\.elsewhere)(?=[.\[]|$)'
STRANGERS = r'^\.(replies|cookies)(?=[.\[]|$)'


class Witness(End):
    "An end that remembers what it was told."

    def __init__(self, *how: object):
        super().__init__(*how)  # type: ignore[arg-type]
        self.heard: list[Datagram] = []

    def hears(self, said: Underway) -> None:
        self.heard.append(said.datagram)
        super().hears(said)


def strangers(role: str, more: str = '', **changes: object) -> tuple[Witness, Witness]:
    "Return an end that is to have a role, and the other end; with `more` key exchanges."
    both = configs(SUITE + more, ESP + more, **{'timing': PATIENT, **changes})
    mine, its = (replace(c, credential=SECRET, trust=SECRET) for c in both)
    ladder: list[str] = []
    alice, bob = Witness('a', ALICE, mine, ladder), Witness('b', BOB, its, ladder)
    alice.peer, bob.peer = bob, alice
    return (alice, bob) if role == 'initiator' else (bob, alice)


@dataclass
class Scene:
    "An end in some state."
    name: str
    end: Witness
    peer: Witness
    past: list[Datagram] = field(default_factory=list)  # that it has heard
    coming: list[Datagram] = field(default_factory=list)  # that are on their way to it
    own: list[Datagram] = field(default_factory=list)  # that it has sent

    @property
    def host(self) -> Host: return self.end.host

    @property
    def sas(self) -> list[IKE]: return [ike for named in self.host.sas.values() for ike in named]

    def counterpart(self, ours: IKE) -> IKE | None:
        "What the other end has of an IKE SA."
        theirs = (ike for named in self.peer.host.sas.values() for ike in named)
        return next((ike for ike in theirs if (ike.spi_i, ike.spi_r) == (ours.spi_i, ours.spi_r)), None)

    def hear(self, data: bytes, now: float | None = None) -> None:
        "Let a datagram arrive from where the other end is."
        self.host.receive_datagram(data, self.peer.address, self.end.now if now is None else now,
                                   self.end.address)

    def known(self, leave_out: str = f'{TOLD}|{STRANGERS}') -> Tree: return tree(self.host, '', leave_out)

    def said(self) -> list[Datagram]:
        "What the end has to say, which is forgotten, like what it has told."
        while self.host.next_event(): continue
        return self.host.datagrams_to_send()


def met(role: str, before: Begin | None = None, more: str = '') -> tuple[Witness, Witness]:
    "Both ends after their initial exchanges; if a Child SA is to be created `before` there is one."
    end, peer = strangers(role, more, **{'childless': 'force'} if before is create_child else {})
    (end if role == 'initiator' else peer).calls()
    talk_through(end)
    return end, peer


def step(end: Witness) -> None:
    "Let the oldest message of an end arrive."
    end.peer.hears(end.way.popleft())


# The scenes

def nothing(role: str) -> tuple[Witness, Witness]:
    "A responder that nobody has called; a call is on its way."
    end, peer = strangers(role)
    peer.calls()
    return end, peer


def calling(role: str) -> tuple[Witness, Witness]:
    "An initiator that has called; the answer is on its way."
    end, peer = strangers(role)
    end.calls()
    step(end)
    return end, peer


def proving(role: str) -> tuple[Witness, Witness]:
    "Keys are agreed, and the proof of the other end is on its way."
    end, peer = (calling if role == 'initiator' else nothing)(role)
    step(peer), step(end)
    return end, peer


def at_rest(role: str) -> tuple[Witness, Witness]: return met(role)


def busy(conversation: Begin, role: str) -> tuple[Witness, Witness]:
    "A request of the end was answered, and the answer is on its way."
    end, peer = met(role, conversation)
    _begin(end, conversation)
    step(end)
    return end, peer


def challenged(conversation: Begin, role: str) -> tuple[Witness, Witness]:
    "A request of the other end is on its way."
    end, peer = met(role, conversation)
    _begin(peer, conversation)
    return end, peer


def crossing(conversation: Begin, role: str) -> tuple[Witness, Witness]:
    "Both want the same; the end has answered, and waits for its own answer."
    end, peer = met(role)
    for one in peer, end: _begin(one, conversation)
    step(peer), step(end)
    return end, peer


def granted(conversation: Begin, role: str) -> tuple[Witness, Witness]:
    "The end has granted something new, and the old one is about to be deleted."
    end, peer = challenged(conversation, role)
    step(peer), step(end)
    return end, peer


def adding(exchanges: int, role: str) -> tuple[Witness, Witness]:
    "So many exchanges are over; the other end's part of IKE_INTERMEDIATE is on its way."
    end, peer = strangers(role, MORE)
    first, second = (end, peer) if role == 'initiator' else (peer, end)
    first.calls()
    for _ in range(exchanges):
        pass_on(first), pass_on(second)
    if role == 'initiator': pass_on(end)
    return end, peer


def following(conversation: Begin, exchanges: int, role: str) -> tuple[Witness, Witness]:
    "The same of IKE_FOLLOWUP_KE; the end has begun it if it is the initiator."
    end, peer = met(role, conversation, MORE)
    first, second = (end, peer) if role == 'initiator' else (peer, end)
    _begin(first, conversation)
    for _ in range(exchanges):
        pass_on(first), pass_on(second)
    if role == 'initiator': pass_on(end)
    return end, peer


def pass_on(end: Witness) -> None:
    "Let all that an end has said arrive: a message may have fragments."
    for _ in range(len(end.way)): step(end)


def with_a_ppk(role: str) -> tuple[Witness, Witness]:
    "Keys are agreed, and a proof by keys that have a PPK in them is on its way."
    ppk = Ppk(b'winter', bytes(range(32)), mandatory=False)
    end, peer = strangers(role, ppk=ppk)
    (end if role == 'initiator' else peer).calls()
    if role == 'initiator': step(end)
    step(peer), step(end)
    return end, peer


def in_pieces(role: str) -> tuple[Witness, Witness]:
    "Two of three fragments have arrived."
    end, peer = met(role)
    ike = peer.ike
    pieces = split(ike.outgoing, Packet(ExchangeType.INFORMATIONAL, (Vendor(b'v' * 200),)),
                   ike.spi_i, ike.spi_r, response=False, initiator=ike.initiator,
                   message_id=ike.window.next_id, random=peer.chance, room=160)
    said = [Underway('a piece', Datagram(data, peer.address, end.address)) for data in pieces]
    for one in said[:-1]: end.hears(one)
    peer.way.append(said[-1])
    return end, peer


def over(role: str) -> tuple[Witness, Witness]:
    "The IKE SA is closed, and is remembered for a while."
    end, peer = met(role)
    _begin(peer, delete_ike_sa)
    talk_through(peer)
    return end, peer


def _begin(end: Witness, conversation: Begin) -> None:
    if conversation in (rekey_child, delete_child):
        end.begins(conversation, next(iter(end.ike.children)))
    else: end.begins(conversation)


CONVERSATIONS: dict[str, Begin] = {
    'liveness': liveness, 'create': create_child, 'rekey child': rekey_child, 'rekey IKE': rekey_ike_sa,
    'delete child': delete_child, 'delete IKE': delete_ike_sa}
MAKERS: dict[str, Callable[[str], tuple[Witness, Witness]]] = {
    'nothing': nothing, 'calling': calling, 'proving': proving,
    'at rest': at_rest, 'in pieces': in_pieces, 'over': over,
    **{f'asks {name}': partial(busy, begin) for name, begin in CONVERSATIONS.items()},
    **{f'is asked {name}': partial(challenged, begin) for name, begin in CONVERSATIONS.items()},
    **{f'both {name}': partial(crossing, CONVERSATIONS[name])
       for name in ('rekey child', 'rekey IKE', 'delete child')},
    'adds ML-KEM': partial(adding, 1), 'adds P-256': partial(adding, 2), 'mixes': with_a_ppk,
    **{f'follows {name}, {n}': partial(following, CONVERSATIONS[name], n)
       for name in ('create', 'rekey child', 'rekey IKE') for n in (1, 2)},
    **{f'granted {name}': partial(granted, CONVERSATIONS[name]) for name in ('rekey child', 'rekey IKE')}}
OF_ONE_ROLE = {'nothing': 'responder', 'calling': 'initiator'}
NAMES = [f'{role}: {name}' for name in MAKERS for role in ROLES if OF_ONE_ROLE.get(name, role) == role]


def scene(name: str) -> Scene:
    "Set a scene."
    role, _, what = name.partition(': ')
    end, peer = MAKERS[what](role)
    made = Scene(name, end, peer, list(end.heard), [s.datagram for s in peer.way],
                 [*peer.heard, *(s.datagram for s in end.way)])
    end.told.clear()
    return made
