"""Ours and Debian's strongSwan, in turns, in two network namespaces.

As initiators: how long from the start of the process until the Child SA is there, by the same responder.
As responders: what a handshake costs a processor, and how long one takes when many come at once; the load is
the same. Ours gives its SAs to no kernel (--install none), strongSwan's initiators use theirs in user space;
as responders neither makes any. What lacks its rival is left out, by name: strongSwan comes with the packages
that the tests need, charon-cmd with one of its own.
"""
import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from measure import Table
from peers.certificates import Office
from peers.strongswan import (
    CRYPTO, ENV, LIBIPSEC, PATH, RIGHT, STRONGSWAN_CONF, Lab, end, in_user_namespace, missing, poll,
    settings)

ALICE, BOB = 'alice.example.org', 'bob.example.org'
ANY = '0.0.0.0'  # noqa: S104 - an address to ask for
SUITE, ESP = 'camellia256-sha256-modp2048', 'camellia256-sha256'
# its kind of key, and the suite
LOADS = {'camellia256-sha256-modp2048, RSA': ('rsa', 'camellia256-sha256-modp2048'),
         'aes256gcm16-prfsha256-x25519, ECDSA P-256': ('p256', 'aes256gcm16-prfsha256-x25519')}
CROWDS = 1, 10  # handshakes at once; all are of one address, of which no more are served together


def office(folder: Path) -> Office:
    "Keys and certificates of both ends."
    made = Office(folder)
    made.authority('root', 'rsa')
    for end_, fqdn in ('alice', ALICE), ('bob', BOB):
        for kind in 'rsa', 'p256':
            made.key(f'{end_}-{kind}', kind)
            made.certificate(f'{end_}-{kind}', f'{end_}-{kind}', 'root', [fqdn])
    return made


def ours(folder: Path, side: str, kind: str, module: str, *options: str) -> list[str]:
    "The command of one of our programs, as alice or as bob."
    names = {'alice': (ALICE, '0.0.0.0/0'), 'bob': (BOB, '10.2.0.0/24')}
    other = 'bob' if side == 'alice' else 'alice'
    return [sys.executable, '-m', f'ike_lit.{module}', '--json', '--install', 'none',
            '--local-id', names[side][0], '--remote-id', names[other][0],
            '--local-ts', names[side][1], '--remote-ts', names[other][1],
            '--private-key', str(folder / f'{side}-{kind}.key'), *options]


# The responders

def charon(lab: Lab, folder: Path, kind: str, ike: str, **more: object) -> None:
    """Start strongSwan as responder, with bob's key and alice's. Its protection against floods is off,
    for the many who come from one address are no attackers."""
    lab.start(left_pub=folder / f'alice-{kind}.pub', right_pub=folder / f'bob-{kind}.pub',
              right_key=folder / f'bob-{kind}.key', ike=ike, connection={'unique': 'never'},
              extra='dos_protection = no', **more)


def certified(lab: Lab, folder: Path) -> None:
    "Start it so that bob shows a certificate, wants one of alice, and gives her an address."
    files = {'x509ca/root.crt': 'root.crt', 'x509/alice.crt': 'alice-rsa.crt', 'x509/bob.crt': 'bob-rsa.crt'}
    charon(lab, folder, 'rsa', SUITE, files={name: folder / file for name, file in files.items()})
    child = {'local_ts': '10.2.0.0/24', 'esp_proposals': ESP}
    conf = {'pools': {'inner': {'addrs': '10.3.0.0/16'}}, 'connections': {'lab': {
        'version': 2, 'proposals': SUITE, 'unique': 'never', 'pools': 'inner', 'children': {'net': child},
        'local': {'auth': 'pubkey', 'certs': 'bob.crt', 'id': BOB},
        'remote': {'auth': 'pubkey', 'certs': 'alice.crt', 'id': ALICE}}}}
    (lab.home / 'swanctl.conf').write_text(settings(conf))
    lab.swanctl('--load-all', '--clear', '--noprompt')


# Initiators

@contextmanager
def until(lab: Lab, words: str, argv: Sequence[str | Path], **place: object) -> Iterator[float]:
    "Start a program on the left side; yield the seconds until it prints the words."
    ours, theirs = pty.openpty()  # or it would keep what it has to say
    began, said = time.perf_counter(), ''
    with lab._popen(lab.left, argv, stdout=theirs, stderr=theirs, start_new_session=True, **place) as process:
        os.close(theirs)
        try:
            while words not in said:
                try: said += os.read(ours, 4096).decode()
                except OSError: raise SystemExit(f'{argv[0]} has ended, and said:\n{said}') from None
            yield time.perf_counter() - began
        finally:
            end(process)
            os.close(ours)


def starts(lab: Lab, folder: Path) -> dict[str, Callable[[], float]]:
    "Return what starts each of the initiators and ends it again."
    home = lab.home.parent / 'initiator'
    for name in 'x509', 'x509ca', 'private': (home / name).mkdir(parents=True)
    for name, path in {'x509/alice.crt': 'alice-rsa.crt', 'private/alice.key': 'alice-rsa.key',
                       'x509ca/root.crt': 'root.crt', 'x509/bob.crt': 'bob-rsa.crt'}.items():
        shutil.copy(folder / path, home / name)
    for name in 'charon-systemd', 'swanctl', 'charon-cmd':
        if program := shutil.which(name, path=PATH): shutil.copy(program, home)
    crypto = ' '.join(x for x in CRYPTO.split() if LIBIPSEC.with_name(f'libstrongswan-{x}.so').exists())
    kernel = 'kernel-libipsec kernel-netlink'
    conf = STRONGSWAN_CONF.substitute(crypto=crypto, extra='', plugins='', kernel=kernel)
    command = f'charon-cmd {{\nload = {crypto} {kernel} socket-default\n}}\n'
    (home / 'strongswan.conf').write_text(conf + command)
    (home / 'swanctl.conf').write_text(settings({'connections': {'lab': {
        'version': 2, 'proposals': SUITE, 'remote_addrs': RIGHT, 'vips': ANY,
        'local': {'auth': 'pubkey', 'certs': 'alice.crt', 'id': ALICE},
        'remote': {'auth': 'pubkey', 'certs': 'bob.crt', 'id': BOB},
        'children': {'net': {'remote_ts': '10.2.0.0/24', 'esp_proposals': ESP}}}}}))
    place = {'cwd': home, 'env': {**ENV, 'STRONGSWAN_CONF': 'strongswan.conf', 'SWANCTL_DIR': str(home)}}
    script = ('./charon-systemd & trap "kill $!; wait" EXIT; trap exit TERM; '
              'until ./swanctl --stats >/dev/null 2>&1; do :; done; '
              './swanctl --load-all --noprompt >/dev/null 2>&1; ./swanctl --initiate --child net')
    commands: dict[str, tuple[str, list[str]]] = {
        'ours': ('"event": "ChildEstablished"', ours(
            folder, 'alice', 'rsa', 'initiator', '--cert', str(folder / 'alice-rsa.crt'), '--ca',
            str(folder / 'root.crt'), '--ike', SUITE, '--esp', ESP, '--request-address', ANY, RIGHT)),
        'charon-cmd': ('CHILD_SA cmd{1} established', [
            './charon-cmd', '--host', RIGHT, '--identity', ALICE, '--remote-identity', BOB,
            '--profile', 'ikev2-pub', '--cert', 'x509/alice.crt', '--cert', 'x509ca/root.crt',
            '--rsa', 'private/alice.key', '--ike-proposal', SUITE, '--esp-proposal', ESP,
            '--remote-ts', '10.2.0.0/24']),
        'charon-systemd and swanctl': ('CHILD_SA net{1} established', ['sh', '-c', script])}

    if not (home / 'charon-cmd').exists():
        del commands['charon-cmd']
        print('\nLeft out: our initiator beside charon-cmd; no charon-cmd: apt-get install charon-cmd')

    def starting(words: str, argv: list[str]) -> Callable[[], float]:
        def run() -> float:
            with until(lab, words, argv, **place) as took: return took
        return run
    return {name: starting(*how) for name, how in commands.items()}


def initiators(lab: Lab, folder: Path, rounds: int = 12) -> Table:
    certified(lab, folder)
    table = Table('initiators', 'From its start to its Child SA (Camellia, MODP-2048, RSA)',
                  "strongSwan's", 'no slower than charon-cmd', 'ms')
    ways = starts(lab, folder)
    first = ways.pop('ours')
    for name, way in ways.items(): table.compare(f'ours and {name}', first, way, rounds)
    return table


# Responders

def pin(pid: int, processor: int) -> None:
    "Keep a process, with all its threads, on one processor."
    for task in Path(f'/proc/{pid}/task').iterdir(): os.sched_setaffinity(int(task.name), {processor})


def spent(pid: int) -> float:
    "Return the seconds that a process has had a processor."
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def served(lab: Lab, folder: Path, pid: int, load: tuple[str, str], count: int,
           crowd: int) -> tuple[float, float]:
    "Let a crowd come; return a processor's seconds for each, and the median of those that they wait."
    pin(pid, 0)
    argv = [sys.executable, HERE / 'load.py', folder, *load, RIGHT, str(count), str(crowd)]
    before = spent(pid)
    done = lab.run(['taskset', '-c', '1', *argv], timeout=120)
    if done.returncode: raise SystemExit(done.stderr)
    return (spent(pid) - before) / count, median(json.loads(done.stdout))


@contextmanager
def our_responder(lab: Lab, folder: Path, load: tuple[str, str]) -> Iterator[int]:
    "Run ours on the right side; yield its process id."
    kind, suite = load
    argv = ours(folder, 'bob', kind, 'responder', '--peer-key', str(folder / f'alice-{kind}.pub'),
                '--ike', suite, '--esp', 'aes128gcm16', '--cookie-threshold', '1000', '--listen', RIGHT)
    said = lab.home.parent / 'responder.txt'
    with said.open('w') as file, lab._popen(lab.right, argv, stdout=file, stderr=file) as process:
        if not poll(lambda: 'Listening' in said.read_text(), 30): raise SystemExit(said.read_text())
        try: yield process.pid
        finally: end(process)


def responders(lab: Lab, folder: Path, count: int = 300, rounds: int = 3) -> list[Table]:
    lab.stop()
    cost = Table('responders', "A processor's time for a handshake, as responder, with so many at once",
                 'charon', 'at most 2', 'ms')
    found: list[tuple[str, int, list[tuple[float, float]], list[tuple[float, float]]]] = []
    for name, load in LOADS.items():
        for crowd in CROWDS:
            one, other = [], []
            for _ in range(rounds):
                with our_responder(lab, folder, load) as pid:
                    served(lab, folder, pid, load, crowd, crowd)
                    one.append(served(lab, folder, pid, load, count, crowd))
                charon(lab, folder, *load)
                served(lab, folder, lab._charon.pid, load, crowd, crowd)
                other.append(served(lab, folder, lab._charon.pid, load, count, crowd))
                lab.stop()
            found.append((name, crowd, one, other))
            cost.add(f'{name}, {crowd}', *([pair[0] * 1e3 for pair in side] for side in (one, other)))
    delay = Table('latency', 'How long an initiator waits, with so many at once', 'charon', 'none', 'ms')
    for name, crowd, one, other in found:
        delay.add(f'{name}, {crowd}', *([pair[1] * 1e3 for pair in side] for side in (one, other)))
    return [cost, delay]


def main() -> None:
    if lacking := missing():
        print(f'\nLeft out: our initiator and our responder beside strongSwan; {lacking}')
        return
    if os.geteuid(): raise SystemExit(subprocess.call(in_user_namespace([sys.executable, *sys.argv])))  # noqa: S603
    with TemporaryDirectory(prefix='ike-lit-bench-') as home, Lab(Path(home)) as lab:
        folder = Path(home) / 'office'
        folder.mkdir()
        office(folder)
        for table in initiators(lab, folder), *responders(lab, folder): table.keep()


if __name__ == '__main__': main()
