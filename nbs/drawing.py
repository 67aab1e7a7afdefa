"""Pictures for the chapters, drawn from their own values: legible in light and dark, on a telephone
too. In a terminal each is a few lines of text.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ike_lit.wire.const import Type
from ike_lit.wire.header import HEADER, Reader
from ike_lit.wire.payload import Encrypted, Payload, parse, parse_chain
from ike_lit.wire.proposal import SA

COLOURS = {'header': '#cfe8ff', 'clear': '#ffe2b8', 'sealed': '#d5f0c8', 'seal': '#f6d0e4'}  # behind #111
WIDTH, LINE, INDENT = 460, 24, 14  # of a picture, of a row in it, of what is inside something


@dataclass(frozen=True)
class Box:
    "Octets of a message that belong together."
    name: str
    size: int  # octets
    kind: str  # of COLOURS


class Boxes:
    "A message as a pile of boxes, the first octet on top."

    def __init__(self, boxes: Sequence[Box]): self.boxes = tuple(boxes)

    @property
    def size(self) -> int: return sum(box.size for box in self.boxes)

    def rows(self) -> list[tuple[int, Box]]:
        "Return each box with the offset at which it begins."
        starts = [sum(box.size for box in self.boxes[:n]) for n in range(len(self.boxes))]
        return list(zip(starts, self.boxes, strict=True))

    def __repr__(self) -> str:
        lines = [f'{at:5}  {"|" if box.kind == "sealed" else " "} {box.name:54}{box.size:5}'
                 for at, box in self.rows()]
        return '\n'.join([*lines, f'{self.size:5}'])

    def _repr_html_(self) -> str:
        parts = []
        for n, (at, box) in enumerate(self.rows()):
            y, x = n * LINE, 46 + INDENT * (box.kind == 'sealed')
            parts += [text(40, y, str(at), 'end'),
                      f'<rect x="{x}" y="{y + 1}" width="{WIDTH - 40 - x}" '
                      f'height="{LINE - 2}" rx="3" fill="{COLOURS[box.kind]}"/>',
                      text(x + 8, y, box.name, fill='#111'), text(WIDTH, y, str(box.size), 'end')]
        return svg(parts, LINE * len(self.boxes))


def text(x: float, y: float, words: str, anchor: str = 'start', fill: str = 'currentColor') -> str:
    "Return words in a row whose upper edge is `y`."
    return f'<text x="{x}" y="{y + 16}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'


def svg(parts: Sequence[str], height: float) -> str:
    "Return a picture of these parts."
    return (f'<svg viewBox="0 0 {WIDTH} {height}" style="width:{WIDTH}px;max-width:100%" role="img" '
            f'font-family="sans-serif" font-size="13">{"".join(parts)}</svg>')


def payload_boxes(payloads: Sequence[Payload], kind: str) -> list[Box]:
    "Return a box for each payload, its generic header included."
    return [Box(label(p), 4 + len(bytes(p)), kind) for p in payloads]


def label(payload: Payload) -> str:
    "Say what a payload is in so many words as fit into a box."
    if isinstance(payload, SA): return f'SA({", ".join(p.words for p in payload.proposals)})'
    return str(payload)


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
