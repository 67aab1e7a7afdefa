"""What the tests in a kernel with ESP share (see tests/vm/run):
what a namespace holds, pings, a NAT, and what has passed the wire.
"""
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers.strongswan import HERE, Lab, execute, poll

CAPTURE, IN = HERE / 'capture.py', [shutil.which('ip') or 'ip', 'netns', 'exec']


def xfrm(namespace: str, what: str) -> str:
    "What `ip xfrm` shows of a namespace: 'state', or 'policy list nosock'."
    done = execute(['ip', '-n', namespace, 'xfrm', *what.split()])
    assert done.returncode == 0, done.stderr
    return done.stdout


def holds(namespace: str) -> str:
    "All that a namespace holds: SAs, with keys, and policies."
    return xfrm(namespace, 'state') + xfrm(namespace, 'policy list nosock')


@dataclass(frozen=True)
class Sa:
    "An SA as the kernel has it, without what each end may choose for itself."
    source: str
    destination: str
    spi: str
    mode: str
    algorithms: tuple[str, ...]  # names, keys, bits

    def __repr__(self) -> str: return f'<{self.source} {self.destination} {self.spi} {self.mode}>'


def sas(namespace: str) -> dict[str, Sa]:
    "The SAs of a namespace by SPI; a state that only asks for one (by an acquire) has the SPI 0."
    found = {}
    for text in re.split(r'\n(?=src)', xfrm(namespace, 'state').strip()):
        if not text: continue
        source, destination, spi, mode = re.match(
            r'src (\S+) dst (\S+)\s+proto esp spi 0x(\w+) reqid \d+ mode (\w+)', text).groups()
        lines = re.findall(r'^\t((?:enc|auth-trunc|aead) .*)$', text, re.MULTILINE)
        found[spi] = Sa(source, destination, spi, mode, tuple(sorted(lines)))
    return found


def policies(namespace: str) -> set[tuple[str, str, str]]:
    "The policies of a namespace that want ESP: source, destination with protocol and ports, direction."
    found = set()
    for text in re.split(r'\n(?=src)', xfrm(namespace, 'policy list nosock')):
        if match := re.match(r'src (\S+) dst (\S+(?: proto .*\S)?) *\n\tdir (\w+).*\n\ttmpl', text):
            found.add(match.groups())
    return found


def counted(namespace: str, error: str) -> int:
    "How often the kernel has met an error of IPsec, such as XfrmInNoStates (see /proc/net/xfrm_stat)."
    done = execute(['ip', 'netns', 'exec', namespace, 'cat', '/proc/net/xfrm_stat'])
    return int(re.search(rf'^{error}\s+(\d+)$', done.stdout, re.MULTILINE)[1])


IN_FLIGHT = 3  # pings whose answer may be on its way when we end


@dataclass
class Ping:
    "A running ping, and what has become of its requests when it has ended."
    process: subprocess.Popen[str]
    output: Path
    may_miss: int = 0
    sent: int = 0  # and either answered or followed by one that was
    received: int = 0

    def _answered(self) -> set[int]:
        return {int(n) for n in re.findall(r'icmp_seq=(\d+)', self.output.read_text())}

    def flows(self) -> None:
        "Wait until a few more are answered: what has just been lost is then seen to be."
        enough = max(self._answered(), default=0) + IN_FLIGHT
        assert poll(lambda: max(self._answered(), default=0) > enough, 30), 'no ping is answered any more'

    def end(self) -> None:
        "End it in order, and read what it has said."
        if self.process.poll() is not None: return
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        said, answered = self.output.read_text(), self._answered()
        self.sent, self.received = max(answered, default=0), len(answered)
        total = int(re.search(r'(\d+) packets transmitted', said)[1])
        assert total - self.sent <= IN_FLIGHT, f'{total} sent, but {self.sent} was the last to be answered'


@contextmanager
def pinging(lab: Lab, there: str, here: str, interval: float = 0.05) -> Iterator[Ping]:
    "Ping from the left side while something else happens; then no reply may be missing."
    output = lab.home.parent / 'ping.txt'
    with output.open('w') as file:
        process = lab.popen(['ping', '-n', '-i', str(interval), '-I', here, there], stdout=file)
    ping = Ping(process, output)
    try:
        yield ping
    finally:
        ping.end()
    missed = ping.sent - ping.received
    assert ping.received and 0 <= missed <= ping.may_miss, f'{ping.sent} sent, {ping.received} received'


def three_of_three(lab: Lab, there: str, here: str) -> str:
    "Three pings from the left side, as a fraction."
    done = lab.run(['ping', '-n', '-c', '3', '-i', '0.2', '-W', '3', '-I', here, there])
    return '/'.join(reversed(re.search(r'(\d+) packets transmitted, (\d+) received', done.stdout).groups()))


def route_inner_networks(lab: Lab) -> None:
    "Packets for the other side's inner network leave by the veth; the policies do the rest."
    for side, here, there in (lab.left, 1, 2), (lab.right, 2, 1):
        for net, via, source in ((f'10.{there}.0.0/24', f'10.9.0.{there}', f'10.{here}.0.1'),
                                 (f'fd0{there}::/64', f'fd09::{there}', f'fd0{here}::1')):
            lab._ip('-n', side, 'route', 'replace', net, 'via', via, 'dev', 'veth', 'src', source,
                    'metric', '10')


NAT_PEER = '10.7.0.2'  # the right side's address beyond the NAT
MASQUERADE = 'add table ip nat; add chain ip nat out { type nat hook postrouting priority 100 ; }; ' \
             'add rule ip nat out oifname "wan" meta l4proto udp masquerade to :%s; ' \
             'add rule ip nat out oifname "wan" masquerade'


@contextmanager
def behind_nat(lab: Lab) -> Iterator[str]:
    """Put the left side behind a NAT of nftables, with a namespace of its own, whose name this is:
    left 10.8.0.1 -- 10.8.0.254 NAT 10.7.0.1 -- 10.7.0.2 right. The inner networks are routed that way."""
    box = f'{lab.left}-nat'
    ip = lab._ip
    ip('netns', 'add', box)
    try:
        for side, inside, outside, here, there in ((lab.left, 'lan', 'lan', '10.8.0.1', '10.8.0.254'),
                                                   (lab.right, 'wan', 'wan', NAT_PEER, '10.7.0.1')):
            ip('link', 'add', inside, 'netns', side, 'type', 'veth', 'peer', 'name', outside, 'netns', box)
            ip('-n', side, 'addr', 'add', f'{here}/24', 'dev', inside)
            ip('-n', box, 'addr', 'add', f'{there}/24', 'dev', outside)
            for namespace, name in (side, inside), (box, outside):
                ip('-n', namespace, 'link', 'set', name, 'up')
        for side, net, via, device, source in (
                (lab.left, '10.2.0.0/24', '10.8.0.254', 'lan', '10.1.0.1'),
                (lab.right, '10.1.0.0/24', '10.7.0.1', 'wan', '10.2.0.1')):
            ip('-n', side, 'route', 'add', net, 'via', via, 'dev', device, 'src', source, 'metric', '0')
        ip('-n', lab.left, 'route', 'add', '10.7.0.0/24', 'via', '10.8.0.254', 'dev', 'lan')
        forward = 'echo 1 > /proc/sys/net/ipv4/ip_forward'
        for words in ['sh', '-c', forward], ['nft', MASQUERADE % '40000-40999']:
            done = execute([*IN, box, *words])
            assert done.returncode == 0, done.stderr
        yield box
    finally:
        ip('netns', 'del', box)


def another_mapping(box: str) -> None:
    """Let the NAT forget what it knows, as if it had been restarted, and take other ports; the rules in one
    transaction, for between two a packet would get through as it is."""
    for words in ['nft', f"flush ruleset; {MASQUERADE % '41000-41999'}"], ['conntrack', '-F']:
        done = execute([*IN, box, *words])
        assert done.returncode == 0, done.stderr


UDP, ESP, ICMP, ICMPV6 = 17, 50, 1, 58
NAMES = {ICMP: 'ICMP', ICMPV6: 'ICMPv6', ESP: 'ESP', 6: 'TCP'}


def on_the_wire(pcap: Path) -> Counter[str]:
    "Count the packets of a capture by what they are; neighbour discovery is 'ND', ARP does not count."
    found: Counter[str] = Counter()
    data = pcap.read_bytes()
    order = '<' if data[:4] in (b'\xd4\xc3\xb2\xa1', b'\x4d\x3c\xb2\xa1') else '>'
    at = 24
    while at < len(data):
        size, = struct.unpack_from(f'{order}I', data, at + 8)
        frame, at = data[at + 16:at + 16 + size], at + 16 + size
        kind = int.from_bytes(frame[12:14], 'big')
        if kind == 0x0800: protocol, rest = frame[23], frame[14 + (frame[14] & 15) * 4:]
        elif kind == 0x86dd: protocol, rest = frame[20], frame[54:]
        else: continue
        if protocol == UDP: found[udp(rest)] += 1
        elif protocol == ICMP and rest[0] == 3: found['unreachable'] += 1  # our port, after our end
        # hop-by-hop options: a listener's report of the multicast groups that discovery needs
        elif protocol == 0 or protocol == ICMPV6 and 133 <= rest[0] <= 137: found['ND'] += 1
        else: found[NAMES.get(protocol, str(protocol))] += 1
    return found


@contextmanager
def watching(folder: Path, *places: tuple[str, str]) -> Iterator[Counter[str]]:
    "Count what leaves the interfaces of some namespaces; the counter is filled after the context."
    found: Counter[str] = Counter()
    with ExitStack() as ends:
        for namespace, interface in places:
            pcap = folder / f'{namespace}-{interface}.pcap'
            process = ends.enter_context(subprocess.Popen(  # noqa: S603
                [*IN, namespace, sys.executable, CAPTURE, interface, pcap, 'outgoing'],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True))
            assert process.stdout.readline() == 'listening\n'
            ends.callback(lambda pcap=pcap: found.update(on_the_wire(pcap)))
            ends.callback(process.wait, 20)
            ends.callback(process.stdin.close)
        yield found


def udp(datagram: bytes) -> str:
    "Name what a UDP datagram carries."
    ports = set(struct.unpack_from('>HH', datagram))
    content = datagram[8:]
    if 500 in ports: return 'IKE'
    if 4500 not in ports: return 'UDP'
    if content == b'\xff': return 'keepalive'
    return 'IKE' if content[:4] == bytes(4) else 'ESP in UDP'
