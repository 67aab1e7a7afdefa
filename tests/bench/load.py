"""Many initiators in one process, for the bench: each shakes hands once, without a Child SA.

    python tests/bench/load.py FOLDER KIND SUITE ADDRESS COUNT AT_ONCE

The keys are alice-KIND.key and bob-KIND.pub in FOLDER. Prints the seconds of each handshake, as JSON.
"""
import json
import select
import socket
import sys
import time
from pathlib import Path

from ike_lit.cli.credential import load_private_key, load_public_key
from ike_lit.engine import host as many
from ike_lit.engine.host import Host
from ike_lit.engine.model import Closed, Config, Established, Lifetime, Timing
from ike_lit.wire.auth import Identity
from ike_lit.wire.certificate import Signer
from ike_lit.wire.const import ProtocolID
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.proposal import parse_proposals
from ike_lit.wire.ts import TrafficSelector

PATIENT = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)


def config(folder: Path, kind: str, suite: str) -> Config:
    return Config(
        Identity.from_text('alice.example.org'), Identity.from_text('bob.example.org'),
        Signer(load_private_key(folder / f'alice-{kind}.key')), load_public_key(folder / f'bob-{kind}.pub'),
        parse_proposals(suite, ProtocolID.IKE), parse_proposals('aes128gcm16', ProtocolID.ESP),
        (TrafficSelector.from_text('10.1.0.0/24'),), (TrafficSelector.from_text('10.2.0.0/24'),),
        childless='force', timing=PATIENT)


def shake_hands(config: Config, address: str, count: int, at_once: int) -> list[float]:
    "Keep `at_once` handshakes under way until there were `count`; return the seconds of each."
    many.PEER_LIMIT = count + 1  # one initiator here stands for many
    host, took, begun = Host(), list[float](), dict[bytes, float]()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 500))
        here, there = Endpoint(*sock.getsockname()), Endpoint(address, 500)
        while len(took) < count:
            for _ in range(min(at_once - len(begun), count - len(took) - len(begun))):
                begun[host.connect(config, here, there, time.monotonic()).spi_i] = time.monotonic()
            for d in host.datagrams_to_send(): sock.send(d.data)
            wait = (host.next_timer() or 1e9) - time.monotonic()
            if select.select([sock], [], [], max(0, min(wait, 10)))[0]:
                host.receive_datagram(sock.recv(65536), there, time.monotonic(), here)
            host.handle_timer(time.monotonic())
            while found := host.next_event():
                match found:
                    case ike, Established(): took.append(time.monotonic() - begun.pop(ike.spi_i))
                    case _, Closed(error) if error: raise SystemExit(f'no handshake: {error}')
    return took


if __name__ == '__main__':
    folder, kind, suite, address, count, at_once = sys.argv[1:]
    print(json.dumps(shake_hands(config(Path(folder), kind, suite), address, int(count), int(at_once))))
