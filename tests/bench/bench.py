"""What ike_lit costs, as ratios of two things measured side by side in one run: `make bench`.

Each pair is timed in turns, so that whatever else the machine does hits both alike.
The median of many counts.
"""
import hmac
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'nbs'))
warnings.simplefilter('ignore')

from canonical import ALICE, BOB, configs, deliver, two_ends  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import dh, padding  # noqa: E402
from cryptography.hazmat.primitives.hashes import SHA256  # noqa: E402
from ike_lit.const import Encryption, Group  # noqa: E402
from ike_lit.header import Reader  # noqa: E402
from ike_lit.ike_sa import INITIAL_EXCHANGES, ike_sa_init  # noqa: E402
from ike_lit.ke import GENERATOR, GROUPS, Modp  # noqa: E402
from ike_lit.payload import Packet  # noqa: E402
from ike_lit.interface import State  # noqa: E402
from ike_lit.protocol import IKE  # noqa: E402
from ike_lit.sk import decrypt, encrypt  # noqa: E402


def timed(work: Callable[[], object], calls: int) -> float:
    "Return the seconds of one call, of several in a row."
    began = time.perf_counter()
    for _ in range(calls): work()
    return (time.perf_counter() - began) / calls


def side_by_side(name: str, ours: Callable, base: Callable, rounds: int, calls: int,
                 aim: str) -> None:
    "Time two things in turns and print both medians, their spread, and the ratio."
    for work in ours, base: work()
    pairs = [(timed(ours, calls), timed(base, calls)) for _ in range(rounds)]
    a, b = (sorted(column) for column in zip(*pairs, strict=True))

    def shown(times: list[float]) -> str:
        low, middle, high = times[len(times) // 10], median(times), times[-len(times) // 10]
        return f'{middle * 1e6:9.1f} us ({low * 1e6:.1f} to {high * 1e6:.1f})'
    print(f'{name}\n  ours {shown(a)}\n  base {shown(b)}\n'
          f'  ratio {median(a) / median(b):.2f}, base/ours {median(b) / median(a):.1f}   aim: {aim}'
          f'   ({rounds} rounds of {calls})\n')


def whole_handshake() -> Callable[[], None]:
    "Both ends, canonical suite, keys loaded, real randomness."
    left, right = configs()

    def run() -> None:
        alice = IKE(left, ALICE, BOB, initiator=True, responders=INITIAL_EXCHANGES)
        bob = IKE(right, BOB, ALICE, initiator=False, responders=INITIAL_EXCHANGES)
        alice.start(ike_sa_init(alice), now=0)
        while deliver(alice, bob) or deliver(bob, alice): continue
        if alice.heirs[0].state != State.ESTABLISHED: raise RuntimeError('no handshake')
    return run


def bare_primitives() -> Callable[[], None]:
    """What any implementation must compute for that, and the randomness for it.

    4 exponentiations with 256-bit exponents, 2 signatures, 2 verifications, 2 messages sealed and opened.
    """
    left, right = configs()
    group = GROUPS[Group.MODP_2048]
    assert isinstance(group, Modp)
    numbers = dh.DHParameterNumbers(group.prime, GENERATOR)
    two = dh.DHPublicNumbers(GENERATOR, numbers)
    octets, key, plain = bytes(510), bytes(32), bytes(448)

    def power(base: int, exponent: int) -> bytes:
        private = dh.DHPrivateNumbers(exponent, two).private_key()
        return private.exchange(dh.DHPublicNumbers(base, numbers).public_key())

    def run() -> None:
        exponents = [int.from_bytes(os.urandom(32), 'big') for _ in range(2)]
        publics = [int.from_bytes(power(2, exponent), 'big') for exponent in exponents]
        for exponent, public in zip(exponents, reversed(publics), strict=True):
            secret = power(public, exponent)
            for _ in range(13): hmac.digest(key, secret, 'sha256')  # SKEYSEED, keys, KEYMAT, names
        for config, peer in (left, right), (right, left):
            signature = config.credential.key.sign(octets, padding.PKCS1v15(), SHA256())
            peer.trust.verify(signature, octets, padding.PKCS1v15(), SHA256())
            sealed = encrypt(Encryption.CAMELLIA_CBC, key, bytes(16), plain)
            decrypt(Encryption.CAMELLIA_CBC, key, bytes(16), sealed)
            for _ in range(2): hmac.digest(key, sealed, 'sha256')
    return run


def main() -> None:
    side_by_side('a whole handshake, both ends, against the bare primitives',
                 whole_handshake(), bare_primitives(), 60, 10, 'at most 1.5')
    from scapy.contrib.ikev2 import IKEv2
    alice, bob = two_ends(INITIAL_EXCHANGES)
    alice.start(ike_sa_init(alice), now=0)
    message, = deliver(alice, bob)
    side_by_side(f'parsing one IKE_SA_INIT request of {len(message)} octets, against scapy',
                 lambda: Packet.parse(Reader(message)), lambda: IKEv2(message), 60, 100,
                 'at least 15 times faster')

    def process(*arguments: str) -> Callable[[], object]:
        command = [sys.executable, *arguments]
        return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    side_by_side('process start: ike_lit.initiator --help, against python -c pass',
                 process('-m', 'ike_lit.initiator', '--help'), process('-c', 'pass'), 25, 1, 'at most 8')


if __name__ == '__main__': main()
