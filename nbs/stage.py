"""A stage for two ends: each message is carried by hand, and may be held back, lost, or come late.

`a` is the end that moves first, `b` the other; either may have begun the IKE SA. SPIs are called
as in the ladders of RFC 7296 §2.8.1: a1 is the first under which `a` receives, A1 the first of its
IKE SPIs. A ladder that was played can be drawn, so pictures show what really happened.
"""
from collections import Counter, deque
from dataclasses import dataclass
from random import Random

from canonical import configs
from ike_lit.engine.host import Host
from ike_lit.engine.model import Closed, Config, Datagram, Event, Lifetime, Message, Timing
from ike_lit.engine.protocol import IKE, Begin
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.const import ExchangeType, MessageType, ProtocolID
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.payload import Delete, Notify, Packet
from ike_lit.wire.proposal import SA
from IPython.display import Markdown

NEVER = Lifetime()
PATIENT = Timing(child=NEVER, ike=NEVER, liveness=0)


# SPIs and their names

def spi(name: str) -> bytes:
    "Return the SPI of an ESP SA, for example of 'a1'."
    return name[:1].encode() + int(name[1:]).to_bytes(3, 'big')


def called(octets: bytes) -> str: return f'{octets[:1].decode()}{int.from_bytes(octets[1:], "big")}'


def pair(*spis: bytes) -> str: return ' '.join(sorted(map(called, spis)))


class Chance:
    "The random octets of an end: SPIs that count, and nonces that are low when they are to lose."

    def __init__(self, name: str):
        self.name, self.drawn, self.low = name, Counter[int](), False
        self.octets = Random(name).randbytes  # noqa: S311  # the same in every run is the point

    def __call__(self, size: int) -> bytes:
        self.drawn[size] += 1
        number, octets = self.drawn[size].to_bytes(size, 'big')[1:], self.octets(size)
        match size:
            case 4: return self.name.encode() + number
            case 8: return self.name.upper().encode() + number
            case 32: return bytes([0 if self.low else 0xff]) + octets[1:]
            case _: return octets


# The stage

@dataclass(frozen=True)
class Said:
    "A message under way, and what it says in short."
    text: str
    datagram: Datagram


class End:
    "One end: its SAs, what it has sent that is still under way, and what it has told."

    def __init__(self, name: str, address: Endpoint, config: Config, ladder: list[str]):
        self.name, self.address, self.config, self.chance = name, address, config, Chance(name)
        self.host, self.ladder = Host((config,), random=self.chance), ladder
        self.peer, self.now, self.low = self, 0.0, ''
        self.way, self.held = deque[Said](), list[Said]()
        self.told: list[tuple[IKE | None, Event]] = []
        self.words: dict[tuple, str] = {}

    @property
    def ike(self) -> IKE: return self.host.established[0]

    def calls(self) -> None:
        "Begin the IKE SA."
        self.host.connect(self.config, self.address, self.peer.address, self.now)
        self.collect()

    def begins(self, conversation: Begin, *args: object) -> None:
        "Begin a conversation."
        self.chance.low = self.low == 'asks'
        self.host.start(self.ike, conversation, *args, now=self.now)
        self.collect()

    def hears(self, said: Said) -> None:
        "Take a message of the other end."
        d, self.chance.low = said.datagram, self.low == 'grants'
        self.host.receive_datagram(d.data, d.source, self.now, d.destination)
        self.collect()

    def collect(self) -> None:
        "Put what this end has to say under way, with a few words about what it is."
        while found := self.host.next_event():
            ike, event = found
            self.told.append(found)
            if isinstance(event, Message) and event.sent:
                key = ike.spi_i, ike.spi_r, event.message_id, event.response
                self.words[key] = summary(event.packet, event.response, ike)
        for d in self.host.datagrams_to_send():
            header = Header.parse(Reader(d.data))
            key = header.spi_i, header.spi_r, header.message_id, header.response
            self.way.append(Said(self.words.get(key) or initial(Packet.parse(Reader(d.data))), d))

    def events(self, *kinds: type[Event]) -> list[Event]:
        return [event for _, event in self.told if isinstance(event, kinds)]


def summary(packet: Packet, response: bool, ike: IKE) -> str:
    "Say in a few words what a message says."
    if error := packet.error():
        return f'{error.message_type} {called(error.spi) if error.spi else ""}'.strip()
    sas, this = packet.all(SA), pair(ike.spi_i, ike.spi_r)
    match packet.exchange_type:
        case ExchangeType.INFORMATIONAL:
            if not packet.payloads: return 'nothing' if response else 'alive?'
            spis = [called(s) for d in packet.all(Delete) for s in d.spis]
            return ' '.join(['deleted' if response else 'delete', *(spis or [this])])
        case ExchangeType.CREATE_CHILD_SA:
            if response: return f'grant {called(sas[0].proposals[0].spi)}'
            if which := packet.notify(MessageType.REKEY_SA): return f'rekey {called(which.spi)}'
            return f'rekey {this}' if sas[0].proposals[0].protocol == ProtocolID.IKE else 'create'
        case _: return initial(packet)


def initial(packet: Packet) -> str:
    "Say what a message of the initial exchanges consists of, but for what it merely announces."
    announced = (MessageType.NAT_DETECTION_SOURCE_IP, MessageType.NAT_DETECTION_DESTINATION_IP,
                 MessageType.SIGNATURE_HASH_ALGORITHMS, MessageType.CHILDLESS_IKEV2_SUPPORTED,
                 MessageType.IKEV2_FRAGMENTATION_SUPPORTED)
    words = [str(p.message_type) if isinstance(p, Notify) else str(p.kind)
             for p in packet.payloads if getattr(p, 'message_type', None) not in announced]
    return ' '.join([str(packet.exchange_type), *words])


def strangers(mover: str, ours: dict | None = None, theirs: dict | None = None,
              **both: object) -> tuple[End, End]:
    "Return the mover and the other end, before they have met."
    first = mover == 'initiator'
    addresses, ladder = (ALICE, BOB) if first else (BOB, ALICE), list[str]()
    mine, its = (configs(**{'timing': PATIENT, **both, **(changes or {})})
                 for changes in (ours, theirs))
    a = End('a', addresses[0], mine[not first], ladder)
    b = End('b', addresses[1], its[first], ladder)
    a.peer, b.peer = b, a
    return a, b


def ends(mover: str, **changes: object) -> tuple[End, End]:
    "Return the mover and the other end, which have had their first four messages."
    a, b = strangers(mover, **changes)
    (a if mover == 'initiator' else b).calls()
    talk(a)
    for end in (a, b) if a.host.established else ():
        end.chance.drawn[4] = len(end.ike.children)  # an SPI that came to nothing does not count
        end.told = [found for found in end.told if not isinstance(found[1], Closed)]
    a.ladder.clear()
    return a, b


def play(a: End, ladder: str) -> None:
    """Carry messages as a ladder says: each line has an end, an arrow, and what is said.

    '->' the oldest message under way arrives, '-x' it is lost, '-|' it is held back,
    '~>' one that was held back arrives late."""
    for line in filter(None, map(str.strip, ladder.splitlines())):
        name, arrow, text = line.split(maxsplit=2)
        end = a if name == a.name else a.peer
        where = end.held if arrow == '~>' else end.way
        assert where and where[0].text == text, f'{line}: it says {[s.text for s in where]}'
        said = end.held.pop(0) if arrow == '~>' else end.way.popleft()
        a.ladder.append(line)
        if arrow == '-|': end.held.append(said)
        elif arrow in ('->', '~>'): end.peer.hears(said)
        else: assert arrow == '-x', line


def talk(a: End) -> list[str]:
    "Carry messages until nobody has anything to say, and return what was said."
    said = []
    for _ in range(100):  # more would be a quarrel
        waiting = [end for end in (a, a.peer) if end.way]
        if not waiting: return said
        for end in waiting:
            message = end.way.popleft()
            said.append(f'{end.name} -> {message.text}')
            a.ladder.append(said[-1])
            end.peer.hears(message)
    raise AssertionError(f'no end of {said}')


def ring(a: End, until: float) -> bool:
    "Go to the next alarm of either end, if it is not too late, and let it ring."
    times = [at for end in (a, a.peer) if (at := end.host.next_timer()) is not None]
    due = bool(times) and min(times) <= until
    for end in a, a.peer:
        end.now = max(end.now, min(times)) if due else until
        if due: end.host.handle_timer(end.now)
        end.collect()
    return due


def wait(a: End, seconds: float) -> None:
    "Let time pass. What is sent meanwhile is under way."
    until = a.now + seconds
    while ring(a, until): continue


def lose(*those: End) -> None:
    for end in those: end.way.clear()


def run(a: End, seconds: float) -> list[str]:
    "Let time pass; whatever is sent arrives at once. Return what was said."
    until, said = a.now + seconds, talk(a)
    while ring(a, until): said += talk(a)
    return said


# What is to be seen

def sas(end: End) -> str:
    "Return the IKE SAs of an end with their Child SAs, as in 'A1 B1: a1 b1, a2 b2'."
    lines = []
    for ike in end.host.established:
        children = sorted(pair(c.inbound.spi, c.outbound.spi) for c in ike.children.values())
        lines.append(f'{pair(ike.spi_i, ike.spi_r)}: {", ".join(children)}'.strip())
    return '; '.join(sorted(lines))


def drawn(a: End) -> Markdown:
    "Draw the ladder so far, with what both ends have in the end, and begin a new one."
    names = {a.name: a.config.local_id, a.peer.name: a.peer.config.local_id}
    lines = ['```mermaid', 'sequenceDiagram']
    lines += [f'participant {n} as {str(names[n]).partition(".")[0].capitalize()}' for n in 'ab']
    for line in a.ladder:
        name, arrow, text = line.split(maxsplit=2)
        other = 'b' if name == 'a' else 'a'
        lines.append({'->': f'{name}->>{other}: {text}', '-x': f'{name}-x{other}: {text} (lost)',
                      '-|': f'Note over {name}: {text}, which is held back',
                      '~>': f'{name}-){other}: {text} (late)'}[arrow])
    have = [sas(end) or 'nothing' for end in (a, a.peer)]
    lines += [f'Note over a,b: {have[0]}'] if have[0] == have[1] else [
        f'Note over {n}: {h}' for n, h in zip('ab', have, strict=True)]
    a.ladder.clear()
    return Markdown('\n'.join([*lines, '```']))
