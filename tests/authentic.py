"""A peer with a valid credential that says whatever a test wants, in the right boxes.

It shakes hands as the engine does, up to the keys; every message after that is the test's own.
A `Line` is its end of one IKE SA. Nothing here obeys a rule of the RFC unless the test does.
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from random import Random

from ike_lit.engine.child_sa import dh_group
from ike_lit.engine.create_child_sa import RESPONDERS, fresh_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.additional import InitResult
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.proof import make_auth
from ike_lit.engine.model import Config, Event
from ike_lit.engine.protocol import IKE
from ike_lit.wire.auth import IDi, IDr, Identity, SharedKey
from ike_lit.wire.configuration import CP, Attribute
from ike_lit.wire.const import CfgAttribute, CfgType, ExchangeType, Group, MessageType, ProtocolID, Type
from ike_lit.wire.ke import KE, KeyExchange
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.nonce import Nonce, new_esp_spi
from ike_lit.wire.payload import Delete, Notify, Packet, Payload
from ike_lit.wire.proposal import SA, Proposal, parse_proposals
from ike_lit.wire.ts import TSi, TSr, TrafficSelector

DRAW = Random(7296)  # noqa: S311  # the same in every run is the point; a test may seed it anew
GATEWAY = Endpoint('192.0.2.2', 500)
INIT, AUTHENTICATE = ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH
CREATE, INFORM = ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL
IKE_SUITE, ESP_SUITE = 'aes256gcm16-prfsha256-x25519', 'aes256gcm16'


def ts(text: str) -> tuple[TrafficSelector, ...]:
    return tuple(map(TrafficSelector.from_text, text.split(','))) if text else ()


def connection(me: str, you: str, local: str, remote: str, **changes: object) -> Config:
    "Return a configuration with a shared key that only these two names have; '' is no selectors."
    secret = SharedKey('-'.join(sorted((me, you))).encode().ljust(32, b'.'))
    return Config(Identity.from_text(me), Identity.from_text(you), secret, secret,
                  parse_proposals(IKE_SUITE, ProtocolID.IKE), parse_proposals(ESP_SUITE, ProtocolID.ESP),
                  ts(local), ts(remote), **changes)


def esp(spi: bytes = b'') -> Proposal:
    return replace(parse_proposals(ESP_SUITE, ProtocolID.ESP)[0], spi=spi or new_esp_spi(DRAW.randbytes))


def child(tsi: str = '10.1.0.0/24', tsr: str = '10.2.0.0/24', spi: bytes = b'',
          rekeys: bytes = b'') -> tuple[Payload, ...]:
    "Return what asks for a Child SA; `rekeys`: in place of the one that receives here."
    which = (Notify(MessageType.REKEY_SA, protocol=ProtocolID.ESP, spi=rekeys),) if rekeys else ()
    return *which, SA((esp(spi),)), Nonce(DRAW.randbytes(32)), TSi(ts(tsi)), TSr(ts(tsr))


def address(*wanted: str, kind: CfgType = CfgType.CFG_REQUEST) -> CP:
    "Return what asks for these inner addresses; the unspecified one: any."
    family = {4: (CfgAttribute.INTERNAL_IP4_ADDRESS, b''), 6: (CfgAttribute.INTERNAL_IP6_ADDRESS, b'\x80')}
    found = [(a, *family[a.version]) for a in map(ip_address, wanted)]
    return CP(kind, tuple(Attribute(attribute, b'' if a.is_unspecified else a.packed + prefix)
                          for a, attribute, prefix in found))


@dataclass(eq=False)
class Line:
    "The peer's end of one IKE SA."
    peer: 'Peer'
    ike: IKE  # only its keys and SPIs count
    next_id: int = 0  # of our requests
    asked: list[Packet] = field(default_factory=list)  # requests of the other end, not answered yet
    answers: list[Packet] = field(default_factory=list)  # of the other end
    children: dict[bytes, bytes] = field(default_factory=dict)  # our SPI: the other end's
    told: tuple[TrafficSelector, ...] = ()  # the inner addresses that we were given

    def sealed(self, packet: Packet, message_id: int, response: bool = False) -> bytes:
        ike = self.ike
        return ike.outgoing.seal(packet, ike.spi_i, ike.spi_r, response=response, initiator=ike.initiator,
                                 message_id=message_id, random=DRAW.randbytes)

    def ask(self, exchange: ExchangeType, *payloads: Payload) -> Packet | None:
        "Send a request; return the response, if it came at once."
        before = len(self.answers)
        data = self.sealed(Packet(exchange, payloads), self.next_id)
        self.next_id += 1
        self.peer.put(data)
        return self.answers[-1] if len(self.answers) > before else None

    def answer(self, request: Packet, *payloads: Payload) -> None:
        "Answer a request of the other end."
        if request in self.asked: self.asked.remove(request)
        self.peer.put(self.sealed(Packet(request.exchange_type, payloads), request.header.message_id, True))

    def create(self, *payloads: Payload) -> Packet | None:
        "Ask for a Child SA, and note it if there is one."
        response = self.ask(CREATE, *payloads)
        self.note(payloads, response)
        return response

    def note(self, payloads: tuple[Payload, ...], response: Packet | None) -> None:
        "Note the Child SA of a request and its response."
        ours = [p.proposals[0].spi for p in payloads if isinstance(p, SA)]
        if response and ours and response.all(SA): self.children[ours[0]] = response.one(SA).proposals[0].spi

    def delete(self, *spis: bytes) -> Packet | None:
        "Say that we no longer receive under these SPIs; none: the IKE SA is over."
        return self.ask(INFORM, Delete(ProtocolID.ESP, spis) if spis else Delete(ProtocolID.IKE))

    def rekey(self, spi: bytes = b'') -> 'Line | None':
        "Replace the IKE SA; return our end of the new one."
        dh, ni = KeyExchange(Group.CURVE_25519, DRAW.randbytes), Nonce(DRAW.randbytes(32))
        spi = spi or DRAW.randbytes(8)
        offer = replace(parse_proposals(IKE_SUITE, ProtocolID.IKE)[0], spi=spi)
        response = self.ask(CREATE, SA((offer,)), ni, KE(dh.group, dh.public))
        if response is None or not response.all(SA): return None
        suite, secret = response.one(SA).proposals[0], dh.derive(response.one(KE).public)
        return self.heir(InitResult(spi, suite.spi, replace(suite, spi=b''), secret, ni.data,
                                   response.one(Nonce).data), initiator=True)

    def grant_rekey(self, request: Packet, nr: bytes = b'') -> 'Line':
        "Grant a new IKE SA that the other end asks for, with a nonce; return our end of it."
        suite, ke, ni = request.one(SA).proposals[0], request.one(KE), request.one(Nonce).data
        dh, spi_r = KeyExchange(ke.group, DRAW.randbytes), DRAW.randbytes(8)
        nr = nr or DRAW.randbytes(32)
        suite = replace(suite, transforms=tuple({t.type: t for t in reversed(suite.transforms)}.values()))
        line = self.heir(InitResult(suite.spi, spi_r, replace(suite, spi=b''), dh.derive(ke.public), ni, nr),
                         initiator=False)
        self.answer(request, SA((replace(suite, spi=spi_r),)), Nonce(nr), KE(dh.group, dh.public))
        return line

    def heir(self, agreed: InitResult, initiator: bool) -> 'Line':
        line = Line(self.peer, fresh_ike_sa(self.ike, agreed, initiator=initiator), told=self.told)
        line.children = dict(self.children)
        self.peer.lines.append(line)
        return line

    def grant_child(self, request: Packet, tsi: str = '', tsr: str = '', spi: bytes = b'') -> None:
        "Grant a Child SA that the other end asks for, with the selectors of its offer or with others."
        first = request.one(SA).proposals[0]
        spi = spi or new_esp_spi(DRAW.randbytes)
        one = {t.type: t for t in reversed(first.transforms)}
        group = dh_group(first)
        ke = (KE(group, KeyExchange(group, DRAW.randbytes).public),) if group else ()
        self.children[spi] = first.spi
        self.answer(request, SA((replace(first, spi=spi, transforms=tuple(one.values())),)),
                    Nonce(DRAW.randbytes(32)), *ke,
                    TSi(ts(tsi)) if tsi else request.one(TSi), TSr(ts(tsr)) if tsr else request.one(TSr))

    @property
    def other(self) -> IKE | None:
        "The gateway's end, if there is one."
        spis = self.ike.spi_i, self.ike.spi_r
        named = self.peer.host.sas.get(spis[self.ike.initiator], [])
        return next((ike for ike in named if (ike.spi_i, ike.spi_r) == spis), None)


class Peer:
    "Somebody whom the gateway knows."

    def __init__(self, host: Host, config: Config, at: str = '192.0.2.1',
                 now: Callable[[], float] = lambda: 0.0, friends: 'list[Peer] | None' = None):
        self.host, self.config, self.at, self.now = host, config, Endpoint(at, 500), now
        self.friends = [] if friends is None else friends  # who shares the gateway, with us among them
        self.friends.append(self)
        self.lines: list[Line] = []
        self.events: list[tuple[IKE | None, Event]] = []
        self.seen: Callable[[Line, Packet], None] = lambda line, packet: None  # told what the gateway says

    def put(self, data: bytes, source: Endpoint | None = None, here: Endpoint = GATEWAY) -> None:
        "Send a datagram, and take what the gateway has to say."
        self.host.receive_datagram(data, source or self.at, self.now(), here)
        self.take()

    def take(self) -> None:
        "Take what the gateway has to say, to us or to others of the same test."
        for d in self.host.datagrams_to_send():
            for line in self.everybody(): line.peer.read(line, d.data)
        while event := self.host.next_event(): self.events.append(event)

    def read(self, line: Line, data: bytes) -> None:
        "Open a message of the gateway's, if it is for this line."
        if data[:16] != line.ike.spi_i + line.ike.spi_r or data[16] != Type.SK: return  # or in the clear
        packet = line.ike.incoming.open(data)
        (line.answers if packet.header.response else line.asked).append(packet)
        self.seen(line, packet)

    def everybody(self) -> Iterator[Line]:
        for one in self.friends: yield from list(one.lines)

    def begin(self) -> Line:
        "Shake hands up to the keys; return the line that has them."
        root = IKE(self.config, self.at, GATEWAY, initiator=True, responders=RESPONDERS,
                   random=DRAW.randbytes)
        root.start(ike_sa_init, now=self.now())
        for _ in range(3):  # with a cookie, or another group
            for d in root.datagrams_to_send():
                self.host.receive_datagram(d.data, self.at, self.now(), GATEWAY)
            for d in self.host.datagrams_to_send():
                if d.data[:8] == root.spi_i: root.receive_datagram(d.data, d.source, self.now())
                else:
                    for line in self.everybody(): line.peer.read(line, d.data)
            if root.lineage.new_sas: break
        else: raise RuntimeError('the gateway does not answer')
        line = Line(self, root.lineage.new_sas[-1], next_id=1)
        self.lines.append(line)
        return line

    def proof(self, line: Line, *more: Payload) -> tuple[Payload, ...]:
        "Return the payloads of IKE_AUTH."
        idi = IDi.of(self.config.local_id)
        return idi, IDr.of(self.config.remote_id), make_auth(line.ike, self.config, idi), *more

    def call(self, *more: Payload) -> Line:
        "Shake hands, and say `more` beside the proof."
        line = self.begin()
        response = line.ask(AUTHENTICATE, *self.proof(line, *more))
        line.note(more, response)
        for cp in response.all(CP) if response else []:
            line.told += tuple(TrafficSelector(a.address, a.address) for a in cp.attributes if a.type in (
                CfgAttribute.INTERNAL_IP4_ADDRESS, CfgAttribute.INTERNAL_IP6_ADDRESS))
        return line


def said(response: Packet | None) -> MessageType | None:
    "Return the error in a response, None if there is none."
    error = response.error() if response else None
    return error.message_type if error else None
