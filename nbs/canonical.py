"""The two ends of the canonical handshake, for the chapters and the tests:
Alice begins, Bob responds.

Nothing here is part of IKE, and nothing here is secret:
the keys are in keys/, and "random" octets come from a list.
"""
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ike_lit.capture.keylog import KeyTable
from ike_lit.capture.observer import TrustAnchors
from ike_lit.capture.pcap import Capture, Captured
from ike_lit.capture.show import Story, analyse
from ike_lit.cli.credential import load_private_key, load_public_key
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.model import Config
from ike_lit.engine.protocol import IKE
from ike_lit.testing import network, stage
from ike_lit.wire.auth import Identity
from ike_lit.wire.certificate import Signer
from ike_lit.wire.const import ProtocolID
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.proposal import parse_proposals
from ike_lit.wire.ts import TrafficSelector

KEYS = Path(__file__).resolve().parent.parent / 'keys'


IKE_SUITE, ESP_SUITE = 'aes256gcm16-prfsha256-x25519', 'aes256gcm16'
ED25519, RSA = ('alice', 'bob'), ('initiator', 'responder')  # the two ends' files
HERITAGE = {'ike': 'camellia256-sha256-modp2048', 'esp': 'camellia256-sha256',
            'keys': RSA}  # as the package `ike` had them

private_key, public_key = cache(load_private_key), cache(load_public_key)  # asked for a thousand times


def counting(first: int, size: int) -> bytes:
    return bytes((first + n) % 256 for n in range(size))


def rehearsed(spi: int, exponent: int, nonce: int, esp_spi: bytes,
              iv: int) -> Callable[[int], bytes]:
    """Return a source of octets that count from the given values:
    an SPI c1 c2 c3 ..., a nonce a0 a1 a2 ..."""
    drawn = Counter[int]()  # how often a size was asked for
    steps = {8: (spi,), 32: (exponent, nonce), 16: (iv,)}

    def random(size: int) -> bytes:
        times, drawn[size] = drawn[size], drawn[size] + 1
        if size == 2: return b'\x80\0'  # half, where a time is jittered
        if size == 4: return (int.from_bytes(esp_spi, 'big') + times).to_bytes(4, 'big')
        if size == 16: return counting(iv + times, 16)
        if size not in steps: return counting(exponent + times, size)
        round_, which = divmod(times, len(steps[size]))
        return counting(steps[size][which] + round_, size)
    return random


def configs(ike: str = IKE_SUITE, esp: str = ESP_SUITE, keys: tuple[str, str] = ED25519,
            **changes: object) -> tuple[Config, Config]:
    "Return what Alice's and Bob's operators have decided; `changes` are for both."
    (key, pub), (its_key, its_pub) = [
        (private_key(KEYS / f'{name}.key'), public_key(KEYS / f'{name}.pub')) for name in keys]
    alice, bob = Identity.from_text('alice.example.org'), Identity.from_text('bob.example.org')
    left = (TrafficSelector.from_text('10.1.0.0/24'),)
    right = (TrafficSelector.from_text('10.2.0.0/24'),)
    common = {'ike': parse_proposals(ike, ProtocolID.IKE), 'transcript': False,  # as in RFC 7296
              'esp': parse_proposals(esp, ProtocolID.ESP), **changes}
    return (Config(alice, bob, Signer(key), its_pub, local_ts=left, remote_ts=right, **common),
            Config(bob, alice, Signer(its_key), pub, local_ts=right, remote_ts=left, **common))


def two_ends(responders: dict, alice: Config | None = None,
             bob: Config | None = None) -> tuple[IKE, IKE]:
    "Return Alice's and Bob's ends of an IKE SA that is about to begin."
    default = configs() if alice is None or bob is None else (alice, bob)
    return network.two_ends(
        alice or default[0], bob or default[1], responders,
        random=(rehearsed(0xc1, 0x10, 0xa0, bytes.fromhex('5a000001'), 0x70),
                rehearsed(0xd1, 0x30, 0xe0, bytes.fromhex('5b000002'), 0x80)))


def recorded(alice: IKE, bob: IKE) -> tuple[IKE, list[tuple[bytes, Endpoint, Endpoint]]]:
    """Let two ends have their first four messages. Return the IKE SA that has come of Alice's attempt,
    and the messages, each with its source and its destination."""
    wire = []
    alice.start(ike_sa_init, now=0)
    for _ in range(2):
        wire += [(data, network.ALICE, network.BOB) for data in network.deliver(alice, bob)]
        wire += [(data, network.BOB, network.ALICE) for data in network.deliver(bob, alice)]
    return network.family(alice)[-1], wire


def observed(name: str, book: str = '', ike: str = IKE_SUITE, esp: str = ESP_SUITE,
             keys: tuple[str, str] = ED25519) -> Story:
    "Return what an observer who is given all keys tells of a handshake."
    table = KeyTable()
    _, wire = recorded(*two_ends(RESPONDERS, *configs(ike, esp, keys, keylog=table.learn)))
    messages = tuple(Captured(n, n / 100, *ends, data) for n, (data, *ends) in enumerate(wire, 1))
    believed = TrustAnchors(tuple(public_key(KEYS / f'{end}.pub') for end in keys))
    return analyse(Capture(messages, len(messages), Counter()), table, believed,
                   name, book)


def roles(mover: str, ours: dict | None = None, theirs: dict | None = None,
          **both: object) -> tuple[Config, Config]:
    "Return the initiator's and the responder's decisions; `ours` are changes for the mover alone."
    mine, its = (configs(**{'timing': stage.PATIENT, **both, **(changes or {})})
                 for changes in (ours, theirs))
    return (mine[0], its[1]) if mover == 'initiator' else (its[0], mine[1])


def strangers(mover: str, **changes: object) -> tuple[stage.End, stage.End]:
    "Return the mover and the other end on a stage, before they have met."
    return stage.strangers(*roles(mover, **changes), mover)


def ends(mover: str, **changes: object) -> tuple[stage.End, stage.End]:
    "Return the mover and the other end, which have had their first four messages."
    return stage.ends(*roles(mover, **changes), mover)
