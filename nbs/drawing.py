"""Pictures for the chapters, drawn from their own values: coloured text, which JupyterLab shows even in
a notebook that it does not trust, legible in light and dark, and as narrow as a telephone.
"""
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from chapters import WINGS
from ike_lit.capture.show import Page
from ike_lit.wire.const import Type
from ike_lit.wire.header import HEADER, Reader
from ike_lit.wire.payload import Encrypted, Notify, Payload, parse, parse_chain, short
from ike_lit.wire.proposal import SA
from ike_lit.wire.ts import TrafficSelector
from IPython.display import HTML, Markdown

COLOURS = {'header': '#cfe8ff', 'clear': '#ffe2b8', 'sealed': '#d5f0c8', 'seal': '#f6d0e4'}
ROOM = 42  # characters for the name of a box


@dataclass(frozen=True)
class Box:
    "Octets of a message that belong together."
    name: str
    size: int  # octets
    kind: str  # of COLOURS


class Boxes:
    "A message as a pile of boxes, the first octet on top."

    def __init__(self, boxes: Sequence[Box]): self.boxes = tuple(boxes)

    def rows(self) -> list[tuple[int, Box]]:
        "Return each box with the offset at which it begins."
        starts = [sum(box.size for box in self.boxes[:n]) for n in range(len(self.boxes))]
        return list(zip(starts, self.boxes, strict=True))

    def __repr__(self) -> str:
        return '\n'.join(f'{at:4} {"|" if box.kind == "sealed" else " "} {box.name:{ROOM}}{box.size:4}'
                         for at, box in self.rows())

    def _repr_html_(self) -> str:
        lines = []
        for at, box in self.rows():
            inside = '  ' if box.kind == 'sealed' else ''
            name = f' {box.name}'.ljust(ROOM - len(inside))
            lines.append(f'{at:4} {inside}{painted(name, box.kind)}{box.size:4}')
        return preformatted(lines)


def painted(text: str, kind: str) -> str:
    return f'<span style="color:#111111;background-color:{COLOURS[kind]}">{escape(text)}</span>'


def preformatted(lines: list[str]) -> str:
    return '<pre style="line-height:1.6">' + '\n'.join(lines) + '</pre>'


def payload_boxes(payloads: Sequence[Payload], kind: str) -> list[Box]:
    "Return a box for each payload, its generic header included."
    return [Box(label(p), 4 + len(bytes(p)), kind) for p in payloads]


def label(payload: Payload) -> str:
    "Say what a payload is in so many words as fit into a box."
    if isinstance(payload, SA): return f'SA({", ".join(p.words for p in payload.proposals)})'
    return short(payload) if isinstance(payload, Notify) else str(payload)


def drawn(message: bytes, plain: bytes = b'', icv_size: int = 16) -> Boxes:
    """Return the picture of a message; `plain` is what is in its Encrypted payload, if it has one,
    padding included."""
    packet, boxes = parse(message), [Box('IKE header', HEADER.size, 'header')]
    last = packet.payloads[-1]
    if not isinstance(last, Encrypted):
        return Boxes([*boxes, *payload_boxes(packet.payloads, 'clear')])
    iv_size, padding = len(last.data) - len(plain) - icv_size, plain[-1] + 1
    inside = parse_chain(Type(last.first), Reader(plain[:-padding]))
    return Boxes([*boxes, Box('SK: generic header', 4, 'clear'),
                  Box('Initialization Vector', iv_size, 'clear'), *payload_boxes(inside, 'sealed'),
                  Box('Padding, Pad Length', padding, 'sealed'),
                  Box('Integrity Checksum', icv_size, 'seal')])


def unfolding(*pages: Page) -> HTML:
    "Return messages of a story, each as a line that unfolds to its octets."
    return HTML('\n'.join(
        f'<details><summary>Message {page.told.seen.number}, {page.told.title}: '
        f'{len(page.told.seen.data)} octets</summary>{page._repr_html_()}</details>' for page in pages))


class Ranges:
    "Traffic selectors as bars, each over its addresses, from the lowest of all to the highest."

    def __init__(self, rows: Mapping[str, Iterable[TrafficSelector]]):
        self.rows = [('' if n else title, ts) for title, many in rows.items()
                     for n, ts in enumerate(many)]

    def bars(self) -> Iterator[tuple[str, int, int, str]]:
        "Yield for each bar its title, the columns before it and of it, and what it stands for."
        low = min(int(ts.start) for _, ts in self.rows)
        size = max(int(ts.end) for _, ts in self.rows) + 1 - low
        for title, ts in self.rows:
            at = (int(ts.start) - low) * ROOM // size
            yield title, at, max(1, -(-(int(ts.end) + 1 - low) * ROOM // size) - at), str(ts)

    def __repr__(self) -> str:
        return '\n'.join(f'{title:8} {" " * at}{"#" * columns}{" " * (ROOM - at - columns)} {name}'
                         for title, at, columns, name in self.bars())

    def _repr_html_(self) -> str:
        return preformatted([
            f'{title:8} {" " * at}{painted(" " * columns, "sealed")}{" " * (ROOM - at - columns)} '
            f'{escape(name)}' for title, at, columns, name in self.bars()])


def wings() -> Markdown:
    "Return the wings as a picture: an arrow leads from each to those that it imports."
    arrows = [f'    {wing}["ike_lit.{wing}"] --> {other}' for wing in WINGS for other in WINGS[wing]]
    return Markdown('\n'.join(['```mermaid', 'flowchart BT', '    wire["ike_lit.wire"]', *arrows, '```']))
