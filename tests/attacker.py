"""Mallory, who sits between two ends: she sees every datagram, and decides what arrives.

All she does follows from a seed. She remembers what she has seen, knows earlier runs between the
same ends, and of those also the secrets that were theirs alone: their exponents and their keys.
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random

from ike_lit.engine.model import Datagram
from ike_lit.wire.auth import AUTH, IDi, IDr, Identity
from ike_lit.wire.const import (
    AuthenticationType, ExchangeType, Group, IkeError, MessageType, Prf, ProtocolID, TransformType, Type)
from ike_lit.wire.header import HEADER, Reader
from ike_lit.wire.ke import GROUPS, KE, KeyExchange
from ike_lit.wire.keys import ike_keys, skeyseed
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import Delete, Notify, Opaque, Packet, Payload, Vendor
from ike_lit.wire.proposal import SA, Proposal
from ike_lit.wire.sk import SK, directions
from ike_lit.wire.ts import TSi, TSr, TrafficSelector

MALLORY = Endpoint('192.0.2.66', 500)
EARLY, ON_TIME, LATE = 0.01, 0.02, 0.03  # seconds on the way
Sent = list[tuple[float, Datagram]]  # what arrives, and after how long


@dataclass(frozen=True)
class Past:
    "An earlier run between the same ends, with its secrets."
    datagrams: tuple[Datagram, ...]
    first: tuple[Packet, Packet]  # IKE_SA_INIT, as it was sent
    exponents: tuple[KeyExchange, KeyExchange]  # the initiator's, the responder's
    proofs: tuple[tuple[Payload, ...], tuple[Payload, ...]]  # what was in the boxes of IKE_AUTH


# What is to be seen of a datagram

def is_response(data: bytes) -> bool: return len(data) > 19 and bool(data[19] & 0x20)


def in_the_clear(data: bytes) -> Packet | None:
    "Return a message of IKE_SA_INIT, None if it is anything else."
    if data[18:19] != bytes([ExchangeType.IKE_SA_INIT]): return None
    try: return Packet.parse(Reader(data))
    except IkeError: return None


def encoded(packet: Packet, payloads: tuple[Payload, ...], spi_i: bytes = b'',
            spi_r: bytes = b'') -> bytes:
    "Return a message in the clear with the header of another, but for what is given."
    h = packet.header
    return Packet(packet.exchange_type, payloads).encode(
        spi_i or h.spi_i, spi_r or h.spi_r, response=h.response, initiator=h.initiator,
        message_id=h.message_id)


def sized(data: bytes) -> bytes:
    "Return a message whose header gives its true length."
    return data[:24] + len(data).to_bytes(4, 'big') + data[28:] if len(data) >= 28 else data


def locks(suite: Proposal, secret: bytes, ni: bytes, nr: bytes, spi_i: bytes,
          spi_r: bytes) -> tuple[SK, SK]:
    "Return what opens the initiator's messages, and the responder's."
    seed = skeyseed(Prf(suite.single(TransformType.PRF).id), ni, nr, secret)
    return directions(suite, ike_keys(suite, seed, ni, nr, spi_i, spi_r))


@dataclass
class Attacker:
    "What Mallory knows and intends; `touch` is what she does to a datagram."
    chance: Random
    past: tuple[Past, ...]
    kinds: tuple[str, ...]
    beside: bool  # does the true datagram arrive as well, untouched and in time?
    strength: float  # the share of datagrams that she meddles with
    budget: int = 40  # datagrams of her own, at most
    active: bool = True
    seen: list[Datagram] = field(default_factory=list)
    forged: int = 0
    _roles: list['Between | Impostor | Mirror | Translator'] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._roles = [ROLES[kind](self) for kind in self.kinds if kind in ROLES]
        self.moves = [kind for kind in self.kinds if kind in MOVES]

    def touch(self, d: Datagram) -> Sent:
        "Return what arrives instead of a datagram, and when."
        if not self.active: return [(ON_TIME, d)]
        self.seen.append(d)
        if MALLORY.host == d.destination.host:  # what was meant for her, she may hand on
            there = next((s.source for s in self.seen if s.source.host not in
                          (d.source.host, MALLORY.host)), None)
            return [(ON_TIME, replace(d, destination=there))] if there and self.coin() else []
        out: Sent = [(ON_TIME, d)]
        for role in self._roles:
            out = [(at, found) for at, sent in out for at, found in role.touch(at, sent)]
        if not self.moves or self.budget <= 0 or self.chance.random() > self.strength: return out
        made = MOVES[self.chance.choice(self.moves)](self, d)
        self.spend(len(made))
        if not self.beside: out = []
        return out + [(self.when() if self.may_race(f) else LATE, f) for f in made]

    def may_race(self, forged: Datagram) -> bool:
        """False if she would be quicker than the responder with an answer under an SPI of his own.

        The initiator can't have two of them; and who can always do that can as well lose his."""
        answer = self.beside and is_response(forged.data) and forged.data[18] == ExchangeType.IKE_SA_INIT
        return not (answer and any(forged.data[8:16]) and any(
            is_response(d.data) and d.data[:16] == forged.data[:16] for d in self.seen))

    def spend(self, count: int) -> None:
        self.budget -= count
        self.forged += count

    def when(self) -> float:
        "Before the true one, in its place, after it, or much later."
        return self.chance.choice((EARLY, EARLY, ON_TIME, LATE, 4 * self.chance.random()))

    def coin(self) -> bool: return self.chance.random() < 0.5

    def octets(self, size: int) -> bytes: return self.chance.randbytes(size)

    def known(self, d: Datagram | None = None) -> Datagram:
        "Return any datagram of this run, of its other IKE SA, or of an earlier run."
        if d is None or self.coin(): return self.chance.choice(self.seen)
        return self.chance.choice(self.chance.choice(self.past).datagrams)

    def clear(self, like: Packet) -> Packet:
        "Return a message of IKE_SA_INIT that she knows, of the same direction if there is one."
        datagrams = [*self.seen, *(d for past in self.past for d in past.datagrams[:2])]
        found = [p for d in datagrams if (p := in_the_clear(d.data))]
        same = [p for p in found if p.header.response == like.header.response]
        return self.chance.choice(same or found)


# Moves: each returns what arrives instead of a datagram, or beside it

def flip(m: Attacker, d: Datagram) -> list[Datagram]:
    "Some octets are changed, often of the header."
    data = bytearray(d.data)
    for _ in range(m.chance.choice((1, 1, 1, 2, 4))):
        at = m.chance.randrange(min(len(data), 28) if m.chance.random() < 0.3 else len(data))
        data[at] ^= 1 << m.chance.randrange(8) if m.coin() else m.chance.randrange(1, 256)
    return [replace(d, data=bytes(data))]


def truncate(m: Attacker, d: Datagram) -> list[Datagram]:
    "The end is missing; the Length may know."
    data = d.data[:m.chance.randrange(len(d.data))]
    return [replace(d, data=sized(data) if m.coin() else data)]


def extend(m: Attacker, d: Datagram) -> list[Datagram]:
    "There is more: noise, payloads, or another message."
    more = m.chance.choice((m.octets(m.chance.randrange(1, 40)), m.known(d).data, bytes(4),
                            Packet(ExchangeType.IKE_SA_INIT, (Vendor(b'x'),)).encode(
                                bytes(8), bytes(8), response=False, initiator=True, message_id=0)[28:]))
    data = d.data + more
    return [replace(d, data=sized(data) if m.coin() else data)]


def swap(m: Attacker, d: Datagram) -> list[Datagram]:
    "The header of one message and the body of another, or one in place of another."
    other = m.known(d)
    data = m.chance.choice((d.data[:28] + other.data[28:], other.data[:28] + d.data[28:], other.data,
                            other.data[:16] + d.data[16:], d.data[:16] + other.data[16:],
                            d.data[:16] + other.data[16:20] + d.data[20:24] + other.data[24:]))
    return [replace(d, data=sized(data) if m.coin() else data)]


def replay(m: Attacker, d: Datagram) -> list[Datagram]:
    "What was said before is said again, of this IKE SA, the other one, or an earlier run's."
    said = [m.known(d) for _ in range(m.chance.choice((1, 1, 1, 3)))]
    alike = [old for old in m.seen if old.data[18:20] == d.data[18:20]]  # of that exchange
    if m.chance.random() < 0.3: said = [m.chance.choice(alike)]
    if m.chance.random() < 0.3: said = [d]
    return [replace(old, destination=d.destination, source=d.source) if m.coin() else old
            for old in said]


def reflect(m: Attacker, d: Datagram) -> list[Datagram]:
    "A message comes back to its sender, as it is or as if it were an answer."
    d, data = m.chance.choice((d, m.known(d))), bytearray(d.data)
    if m.coin() and len(data) > 19: data[19] ^= m.chance.choice((0x08, 0x20, 0x28))
    if m.coin() and not any(data[8:16]): data[8:16] = m.chance.choice((data[:8], m.octets(8)))
    elif m.chance.random() < 0.2: data[:16] = data[8:16] + data[:8]
    return [Datagram(bytes(data), d.destination, d.source)]


def inject(m: Attacker, d: Datagram) -> list[Datagram]:
    "Messages that nobody has sent, in the clear or as noise under the right names."
    back = m.coin()
    response = m.coin() if back else is_response(d.data)
    source, destination = (d.destination, d.source) if back else (d.source, d.destination)
    spi_i, spi_r = d.data[:8], d.data[8:16]
    if not any(spi_r) and m.coin(): spi_r = m.octets(8)
    kind = m.chance.choice((ExchangeType.IKE_SA_INIT, ExchangeType.IKE_SA_INIT, *ExchangeType))
    initiator = (not d.data[19] & 8) if back else bool(d.data[19] & 8)
    message_id = int.from_bytes(d.data[20:24], 'big') + m.chance.choice((0, 0, 0, 1, -1))
    if m.chance.random() < 0.2:
        data = bytearray(d.data[:28] + m.octets(len(d.data) - 28))
        if back: data[19] ^= 0x28
        return [Datagram(bytes(data), source, destination)]
    clear = in_the_clear(d.data)
    payloads = m.chance.choice((refusal, refusal, news, acceptance))(m, clear)
    data = Packet(kind, payloads).encode(spi_i, spi_r, response=response, initiator=initiator,
                                         message_id=message_id % 2 ** 32)
    return [Datagram(data, source, destination)]


def refusal(m: Attacker, clear: Packet | None) -> tuple[Payload, ...]:
    "Errors, and detours."
    group = m.chance.choice((*GROUPS, Group(1))).to_bytes(2, 'big')
    return (m.chance.choice((
        Notify(MessageType.NO_PROPOSAL_CHOSEN), Notify(MessageType.INVALID_KE_PAYLOAD, group),
        Notify(MessageType.COOKIE, m.octets(m.chance.choice((1, 8, 17, 64, 65)))),
        Notify(MessageType.AUTHENTICATION_FAILED), Notify(MessageType.INVALID_SYNTAX),
        Notify(MessageType.INVALID_IKE_SPI), Notify(MessageType.INVALID_MAJOR_VERSION, b'\2'),
        Notify(MessageType.TEMPORARY_FAILURE), Notify(MessageType.NO_ADDITIONAL_SAS),
        Notify(MessageType.CHILD_SA_NOT_FOUND, protocol=ProtocolID.ESP, spi=m.octets(4)))),)


def news(m: Attacker, clear: Packet | None) -> tuple[Payload, ...]:
    "What an end says to an end that knows it."
    return m.chance.choice((
        (), (Delete(ProtocolID.IKE),), (Delete(ProtocolID.ESP, (m.octets(4),)),),
        (Notify(MessageType.INITIAL_CONTACT),), (Vendor(m.octets(16)),), (Opaque(Type.SK, m.octets(60)),),
        (IDr.of(Identity.from_text('bob.example.org')), AUTH(AuthenticationType.SHARED_KEY, m.octets(32)))))


def acceptance(m: Attacker, clear: Packet | None) -> tuple[Payload, ...]:
    "An offer or an answer of her own, with a public value of hers."
    if clear is None or not clear.all(SA): return (Vendor(m.octets(8)),)
    offer, ke = clear.one(SA).proposals[0], clear.all(KE)
    group = ke[0].group if ke and ke[0].group in GROUPS else Group.CURVE_25519
    one = {t.type: t for t in reversed(offer.transforms)}
    one |= {t.type: t for t in offer.of_type(TransformType.DH) if t.id == group}
    suite = replace(offer, transforms=tuple(one[kind] for kind in sorted(one)))
    return (SA((suite,)), KE(group, KeyExchange(group, m.octets).public), Nonce(m.octets(32)),
            *(n for n in clear.all(Notify) if n.message_type == MessageType.SIGNATURE_HASH_ALGORITHMS))


def reorder(m: Attacker, d: Datagram) -> list[Datagram]:
    "A datagram is late, and others overtake it."
    return [d]


def lose(m: Attacker, d: Datagram) -> list[Datagram]:
    "Nothing arrives, or not this."
    return []


def elsewhere(m: Attacker, d: Datagram) -> list[Datagram]:
    "A datagram comes from another address or port."
    host = m.chance.choice((MALLORY.host, d.source.host))
    return [replace(d, source=d.source._replace(
        host=host, port=m.chance.choice((d.source.port, 4711)) if host == MALLORY.host else 4711))]


def edit(m: Attacker, d: Datagram) -> list[Datagram]:
    "What is in the clear says something else, and is well formed."
    packet = in_the_clear(d.data)
    if packet is None: return [replace(d, data=other_header(m, d.data))]
    payloads, spi_i, spi_r = list(packet.payloads), packet.header.spi_i, packet.header.spi_r
    for _ in range(m.chance.choice((1, 1, 2))):
        payloads = m.chance.choice(EDITS)(m, packet, payloads)
    if m.chance.random() < 0.1: spi_i = m.octets(8)
    if m.chance.random() < 0.1: spi_r = m.chance.choice((m.octets(8), spi_i, bytes(8)))
    data = encoded(packet, tuple(payloads), spi_i, spi_r)
    if m.chance.random() < 0.1: data = other_header(m, data)
    return [replace(d, data=data)]


def other_header(m: Attacker, data: bytes) -> bytes:
    "Return a message with one other field in its header."
    known = m.known().data.ljust(HEADER.size, b'\0')
    at, value = m.chance.choice((
        (0, m.octets(8)), (8, m.octets(8)), (0, known[:8]), (8, known[8:16]), (0, known[:16]),
        (16, bytes([m.chance.choice(list(Type))])), (17, b'\x30'),
        (18, bytes([m.chance.choice(list(ExchangeType))])),
        (19, bytes([data[19] ^ m.chance.choice((0x08, 0x20, 0x28, 0x10))])),
        (20, m.chance.choice((0, 1, 2, 3, 2 ** 32 - 1)).to_bytes(4, 'big'))))
    return data[:at] + value + data[at + len(value):]


# Edits of a message of IKE_SA_INIT

Edit = Callable[[Attacker, Packet, list[Payload]], list[Payload]]


def exchanged(payloads: list[Payload], cls: type, change: Callable) -> list[Payload]:
    return [change(p) if type(p) is cls else p for p in payloads]


def other_nonce(m: Attacker, packet: Packet, payloads: list[Payload]) -> list[Payload]:
    new = m.chance.choice((m.octets(32), m.octets(16), m.octets(256),
                           *(n.data for n in m.clear(packet).all(Nonce))))
    return exchanged(payloads, Nonce, lambda nonce: m.chance.choice(
        (Nonce(new), Nonce(nonce.data[:-1] + bytes([nonce.data[-1] ^ 1])), Nonce(nonce.data + b'\0'))))


def other_ke(m: Attacker, packet: Packet, payloads: list[Payload]) -> list[Payload]:
    "Another public value: hers, somebody else's, one without secrets, one of another group."
    def change(ke: KE) -> KE:
        size = len(ke.public)
        group = m.chance.choice((Group.CURVE_25519, Group.ECP_256))
        options = [KE(ke.group, m.octets(size)), KE(ke.group, bytes(size)), KE(group, ke.public),
                   KE(ke.group, bytes(size - 1) + b'\1' if size > 64 else b'\1' + bytes(size - 1)),
                   KE(group, KeyExchange(group, m.octets).public), *m.clear(packet).all(KE)]
        if ke.group in GROUPS: options.append(KE(ke.group, KeyExchange(ke.group, m.octets).public))
        return m.chance.choice(options)
    return exchanged(payloads, KE, change)


def other_offer(m: Attacker, packet: Packet, payloads: list[Payload]) -> list[Payload]:
    "Fewer algorithms, others, shorter keys; another order, another number."
    def change(sa: SA) -> SA:
        proposals = list(sa.proposals)
        at = m.chance.randrange(len(proposals))
        transforms = list(proposals[at].transforms)
        match m.chance.randrange(7):
            case 0 if len(proposals) > 1: del proposals[at]
            case 1: m.chance.shuffle(proposals)
            case 2: m.chance.shuffle(transforms)
            case 3:
                t = m.chance.choice(transforms)
                transforms = [replace(t, key_length=m.chance.choice((128, 192, 0)))
                              if t.key_length and o is t else o for o in transforms]
            case 4:
                t = m.chance.choice(transforms)
                others = [o for o in transforms if o.type == t.type]
                transforms = [o for o in transforms if o is not t] if len(others) > 1 else transforms
            case 5:
                kind = m.chance.choice(transforms).type  # only the last, which is liked least
                last = [o for o in transforms if o.type == kind][-1]
                transforms = [o for o in transforms if o.type != kind or o is last]
            case _: return next(iter(m.clear(packet).all(SA)), sa)
        if at < len(proposals): proposals[at] = replace(proposals[at], transforms=tuple(transforms))
        first = m.chance.choice((1, 1, 1, 2))
        return SA(tuple(replace(p, number=n) for n, p in enumerate(proposals, first)))
    return exchanged(payloads, SA, change)


def other_notifications(m: Attacker, packet: Packet, payloads: list[Payload]) -> list[Payload]:
    "One is missing, twice there, different, or new."
    at = [n for n, p in enumerate(payloads) if isinstance(p, Notify)]
    where = m.chance.choice(at) if at else None
    known = MessageType.IKEV2_FRAGMENTATION_SUPPORTED, MessageType.CHILDLESS_IKEV2_SUPPORTED
    new = m.chance.choice((refusal(m, None)[0], Notify(MessageType.COOKIE, m.octets(17)),
                           Notify(m.chance.choice(known)), Notify(MessageType(40000), b'?')))
    if where is None or m.coin(): return [new, *payloads] if m.coin() else [*payloads, new]
    old = payloads[where]
    changed = replace(old, data=m.chance.choice((old.data[:-2], m.octets(len(old.data)), b'')))
    instead = m.chance.choice(([], [], [old, old], [changed], [changed, old]))
    return [*payloads[:where], *instead, *payloads[where + 1:]]


def other_order(m: Attacker, packet: Packet, payloads: list[Payload]) -> list[Payload]:
    return m.chance.sample(payloads, len(payloads))


def other_payloads(m: Attacker, packet: Packet, payloads: list[Payload]) -> list[Payload]:
    "One of another message, in addition or instead; one less; one that nobody knows."
    pool = [*m.clear(packet).payloads, Vendor(m.octets(8)), Opaque(Type(200), m.octets(8)),
            *news(m, None)[:1]]
    pool = [p for p in pool if p.kind not in (Type.SK, Type.SKF)] or payloads
    if not payloads: return pool[:1]
    new, at = m.chance.choice(pool), m.chance.randrange(len(payloads))
    return m.chance.choice((
        [*payloads, new], [new, *payloads], [*payloads[:at], *payloads[at + 1:]],
        [new if p.kind == new.kind else p for p in payloads]))


EDITS: tuple[Edit, ...] = (other_nonce, other_ke, other_offer, other_offer, other_notifications, other_order,
                           other_payloads)


# Parts that she plays for a whole handshake

class Between:
    "She shakes hands with each end in the other's place, opens their boxes, and closes them again."

    def __init__(self, m: Attacker):
        self.m, self.meddles = m, m.chance.random() < 0.6
        self.asked: dict[bytes, tuple[Packet, KeyExchange]] = {}  # by the initiator's SPI
        self.keys: dict[bytes, tuple[tuple[SK, SK], tuple[SK, SK]]] = {}  # by both
        self.inside: list[tuple[Payload, ...]] = []  # what she has read

    def touch(self, at: float, d: Datagram) -> Iterator[tuple[float, Datagram]]:
        yield at, replace(d, data=self.relayed(d.data))

    def relayed(self, data: bytes) -> bytes:
        "Return a message as it goes on."
        if packet := in_the_clear(data):
            if not packet.all(KE) or packet.one(KE).group not in GROUPS: return data
            return self.answered(packet) if packet.header.response else self.asks(packet)
        if data[:16] not in self.keys: return data
        with_initiator, with_responder = self.keys[data[:16]]
        from_initiator = bool(data[19] & 8)
        mine, its = ((with_initiator[0], with_responder[0]) if from_initiator
                     else (with_responder[1], with_initiator[1]))
        try: packet = mine.open(data)
        except IkeError: return data
        h, payloads = packet.header, packet.payloads
        if self.meddles: payloads = self.meddled(packet)
        self.inside.append(packet.payloads)
        self.m.forged += 1
        return its.seal(Packet(packet.exchange_type, payloads), h.spi_i, h.spi_r, response=h.response,
                        initiator=h.initiator, message_id=h.message_id, random=self.m.octets)

    def asks(self, packet: Packet) -> bytes:
        spi_i, group = packet.header.spi_i, packet.one(KE).group
        if spi_i not in self.asked or self.asked[spi_i][1].group != group:
            self.asked[spi_i] = packet, KeyExchange(group, self.m.octets)
        return self.with_mine(packet, self.asked[spi_i][1])

    def answered(self, packet: Packet) -> bytes:
        h = packet.header
        request, dh = self.asked.get(h.spi_i, (None, None))
        if request is None or not packet.all(SA) or packet.one(KE).group != dh.group: return encoded(
            packet, packet.payloads)
        suite, nonces = packet.one(SA).proposals[0], (request.one(Nonce).data, packet.one(Nonce).data)
        try: self.keys[h.spi_i + h.spi_r] = tuple(
            locks(suite, dh.derive(end.one(KE).public), *nonces, h.spi_i, h.spi_r)
            for end in (request, packet))
        except IkeError: return encoded(packet, packet.payloads)
        return self.with_mine(packet, dh)

    def with_mine(self, packet: Packet, dh: KeyExchange) -> bytes:
        self.m.forged += 1
        return encoded(packet, tuple(KE(dh.group, dh.public) if isinstance(p, KE) else p
                                     for p in packet.payloads))

    def meddled(self, packet: Packet) -> tuple[Payload, ...]:
        "Return what she puts into the box."
        m, payloads = self.m, packet.payloads
        read = [p for inside in self.inside for p in inside if isinstance(p, AUTH)]
        old = [p for past in m.past for proof in past.proofs for p in proof if isinstance(p, AUTH)]
        everything = TrafficSelector.from_text('0.0.0.0/0'),
        match m.chance.randrange(8):
            case 0 if read: return replaced(payloads, m.chance.choice(read))  # an end's own, reflected
            case 1 if old: return replaced(payloads, m.chance.choice(old))
            case 2: return replaced(payloads, AUTH(AuthenticationType.SHARED_KEY, m.octets(32)))
            case 3: return replaced(replaced(payloads, TSi(everything)), TSr(everything))
            case 4: return tuple(p for p in payloads if not isinstance(p, AUTH))
            case 5: return *payloads, m.chance.choice((*refusal(m, None), *news(m, None)[:1], Vendor(b'')))
            case 6:
                names = 'alice.example.org', 'bob.example.org', 'mallory.example.org'
                name = Identity.from_text(m.chance.choice(names))
                return replaced(replaced(payloads, IDi.of(name)), IDr.of(name))
        return payloads


def replaced(payloads: tuple[Payload, ...], new: Payload) -> tuple[Payload, ...]:
    return tuple(new if p.kind == new.kind else p for p in payloads)


class Impostor:
    """She plays one end with a first message of an earlier run, whose exponent she knows,
    and with the proof that was in its box."""

    def __init__(self, m: Attacker):
        self.m, self.past = m, m.chance.choice(m.past)
        self.calls = m.coin()  # or answers
        self.begun = False
        self.sides: dict[bytes, tuple[SK, SK]] = {}

    def touch(self, at: float, d: Datagram) -> Iterator[tuple[float, Datagram]]:
        packet = in_the_clear(d.data)
        if self.calls: yield from self.calling(d, packet)
        else: yield from self.answering(d, packet)
        if self.m.beside or (packet and not packet.header.response): yield at, d

    def calling(self, d: Datagram, packet: Packet | None) -> Iterator[tuple[float, Datagram]]:
        if not self.begun:
            self.begun = True
            old = self.past.datagrams[0]
            there = d.destination if old.source.host == d.source.host else d.source
            self.m.spend(1)
            yield EARLY, replace(old, destination=there)
            return
        first, dh = self.past.first[0], self.past.exponents[0]
        if not packet or not packet.header.response or packet.header.spi_i != first.header.spi_i: return
        if not packet.all(SA) or not packet.all(KE) or packet.one(KE).group != dh.group: return
        yield from self.proves(d, packet, dh, first.one(Nonce).data, packet.one(Nonce).data,
                               packet.header.spi_i, packet.header.spi_r, 0)

    def answering(self, d: Datagram, packet: Packet | None) -> Iterator[tuple[float, Datagram]]:
        first, dh = self.past.first[1], self.past.exponents[1]
        if packet and not packet.header.response and packet.all(KE) and packet.all(Nonce):
            if packet.one(KE).group != dh.group: return
            spi_i, spi_r = packet.header.spi_i, first.header.spi_r
            try: self.sides[spi_i + spi_r] = locks(
                first.one(SA).proposals[0], dh.derive(packet.one(KE).public), packet.one(Nonce).data,
                first.one(Nonce).data, spi_i, spi_r)
            except IkeError: return
            self.m.spend(1)
            yield EARLY, Datagram(encoded(first, first.payloads, spi_i), d.destination, d.source)
        elif d.data[:16] in self.sides and not is_response(d.data):
            sealed = self.sides[d.data[:16]][1].seal(
                Packet(ExchangeType.IKE_AUTH, self.past.proofs[1]), d.data[:8], d.data[8:16], response=True,
                initiator=False, message_id=1, random=self.m.octets)
            self.m.spend(1)
            yield EARLY, Datagram(sealed, d.destination, d.source)

    def proves(self, d: Datagram, packet: Packet, dh: KeyExchange, ni: bytes, nr: bytes, spi_i: bytes,
               spi_r: bytes, role: int) -> Iterator[tuple[float, Datagram]]:
        try: mine = locks(packet.one(SA).proposals[0], dh.derive(packet.one(KE).public), ni, nr,
                          spi_i, spi_r)[role]
        except IkeError: return
        sealed = mine.seal(Packet(ExchangeType.IKE_AUTH, self.past.proofs[role]), spi_i, spi_r,
                           response=False, initiator=True, message_id=1, random=self.m.octets)
        self.m.spend(1)
        yield EARLY, Datagram(sealed, d.destination, d.source)


class Mirror:
    "Each end talks to itself."

    def __init__(self, m: Attacker): self.m = m

    def touch(self, at: float, d: Datagram) -> Iterator[tuple[float, Datagram]]:
        self.m.forged += 1
        yield at, replace(d, source=d.destination, destination=d.source)


class Translator:
    "An SPI is another one on the other side, in every message, both ways."

    def __init__(self, m: Attacker):
        self.m, self.initiators = m, m.coin()
        self.names: dict[bytes, bytes] = {}  # of either side: what the other one says

    def touch(self, at: float, d: Datagram) -> Iterator[tuple[float, Datagram]]:
        where = 0 if self.initiators else 8
        name = d.data[where:where + 8]
        if not any(name) or len(name) < 8:
            yield at, d
            return
        if name not in self.names:
            new = self.m.octets(8)
            self.names |= {name: new, new: name}
        self.m.forged += 1
        yield at, replace(d, data=d.data[:where] + self.names[name] + d.data[where + 8:])


MOVES: dict[str, Callable[[Attacker, Datagram], list[Datagram]]] = {
    'flip': flip, 'truncate': truncate, 'extend': extend, 'swap': swap, 'replay': replay, 'reflect': reflect,
    'inject': inject, 'reorder': reorder, 'lose': lose, 'edit': edit, 'elsewhere': elsewhere}
ROLES: dict[str, type] = {'between': Between, 'impostor': Impostor, 'mirror': Mirror,
                          'translate': Translator}
KINDS = *MOVES, *ROLES
