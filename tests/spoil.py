"Edits that spoil a message: what a net, a fault or an attacker does to octets."
from ike_lit.wire.header import HEADER

EDITS = ('flip', 'set', 'length', 'zeros', 'cut', 'end', 'double', 'insert')
Edit = tuple[str, int, int, int]  # what, where, a value, how many octets


def edited(data: bytearray, how: str, at: int, value: int, size: int) -> None:
    "Do one of them; a place beyond the end is another one."
    at %= len(data) + 1
    there = len(data[at:at + size])
    match how:
        case 'flip': data[at:at + 1] = bytes(octet ^ (1 << value % 8) for octet in data[at:at + 1])
        case 'set': data[at:at + 1] = bytes([value])
        case 'length': data[at:at + 2] = (257 * size + value & 0xffff).to_bytes(2, 'big')
        case 'zeros': data[at:at + size] = bytes(there)
        case 'cut': del data[at:at + size]
        case 'end': del data[at:]
        case 'double': data[at:at] = data[at:at + size]
        case 'insert': data[at:at] = bytes([value]) * size


def honest(data: bytes) -> bytes:
    "A message whose header tells the truth about its number of octets."
    return data[:24] + len(data).to_bytes(4, 'big') + data[28:] if len(data) >= HEADER.size else data


def spoiled(data: bytes, changes: list[Edit], mend: bool = False) -> bytes:
    out = bytearray(data)
    for how, at, value, size in changes: edited(out, how, at, value, size)
    return honest(bytes(out)) if mend else bytes(out)
