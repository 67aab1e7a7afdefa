"""The two ends of the canonical handshake, for the chapters and the tests:
Alice begins, Bob responds.

Nothing here is part of IKE, and nothing here is secret:
the keys are in keys/, and "random" octets come from a list.
"""
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ike_lit.auth import Identity, load_private_key, load_public_key
from ike_lit.const import ProtocolID
from ike_lit.nat import Endpoint
from ike_lit.protocol import IKE, Config, Event
from ike_lit.proposal import parse_proposals
from ike_lit.ts import TrafficSelector

KEYS = Path(__file__).resolve().parent.parent / 'keys'
ALICE, BOB = Endpoint('192.0.2.1', 500), Endpoint('192.0.2.2', 500)


def counting(first: int, size: int) -> bytes:
    return bytes((first + n) % 256 for n in range(size))


def rehearsed(spi: int, exponent: int, nonce: int, esp_spi: bytes,
              iv: int) -> Callable[[int], bytes]:
    """Return a source of octets that count from the given values:
    an SPI c1 c2 c3 ..., a nonce a0 a1 a2 ..."""
    supply = {8: deque([counting(spi, 8)]),
              32: deque([counting(exponent, 32), counting(nonce, 32)]),
              4: deque([esp_spi])}
    ivs = iter(range(iv, 256))

    def random(size: int) -> bytes:
        return counting(next(ivs), 16) if size == 16 else supply[size].popleft()
    return random


def configs(ike: str = 'camellia256-sha256-modp2048', esp: str = 'camellia256-sha256',
            **changes: object) -> tuple[Config, Config]:
    "Return what Alice's and Bob's operators have decided; `changes` are for both."
    alice, bob = Identity.from_text('alice.example.org'), Identity.from_text('bob.example.org')
    left = (TrafficSelector.from_text('10.1.0.0/24'),)
    right = (TrafficSelector.from_text('10.2.0.0/24'),)
    common = {'ike': parse_proposals(ike, ProtocolID.IKE),
              'esp': parse_proposals(esp, ProtocolID.ESP), **changes}
    return (Config(alice, bob, load_private_key(KEYS / 'initiator.key'),
                   load_public_key(KEYS / 'responder.pub'),
                   local_ts=left, remote_ts=right, **common),
            Config(bob, alice, load_private_key(KEYS / 'responder.key'),
                   load_public_key(KEYS / 'initiator.pub'),
                   local_ts=right, remote_ts=left, **common))


def two_ends(responders: dict, alice: Config | None = None,
             bob: Config | None = None) -> tuple[IKE, IKE]:
    "Return Alice's and Bob's ends of an IKE SA that is about to begin."
    default = configs() if alice is None or bob is None else (alice, bob)
    i = IKE(alice or default[0], ALICE, BOB, initiator=True, responders=responders,
            random=rehearsed(0xc1, 0x10, 0xa0, bytes.fromhex('5a000001'), 0x70))
    r = IKE(bob or default[1], BOB, ALICE, initiator=False, responders=responders,
            random=rehearsed(0xd1, 0x30, 0xe0, bytes.fromhex('5b000002'), 0x80))
    return i, r


def deliver(sender: IKE, receiver: IKE, now: float = 0) -> list[bytes]:
    "Carry what one end has to say to the other, and return it."
    sent = sender.datagrams_to_send(now)
    for d in sent: receiver.receive_datagram(d.data, d.source, now, local=d.destination)
    return [d.data for d in sent]


def talk(one: IKE, other: IKE, now: float = 0) -> None:
    "Carry messages both ways until neither end has anything to say."
    while deliver(one, other, now) or deliver(other, one, now): continue


def events(ike: IKE) -> list[Event]:
    "Return the events of an end so far, and forget them."
    found = []
    while event := ike.next_event(): found.append(event)
    return found
