"""What can be read is read, and what matters is refused where it matters: a body that does not add up
spoils only itself, an odd value is a value, and both are remarked on; what we write is never odd.
"""
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

import pytest
from canonical import configs, two_ends
from explaining import tiled
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.capture.examine import about_octets
from ike_lit.cli.probe import response_for
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.ike_sa import announced_hashes, ike_sa_init
from ike_lit.engine.model import AddressAssigned, ChildEstablished, Established
from ike_lit.engine.state import State
from ike_lit.testing.network import events, handshake
from ike_lit.wire.auth import AUTH, IDi
from ike_lit.wire.certificate import CERT, CERTREQ
from ike_lit.wire.configuration import CP, Attribute, Misfit, Pool, assigned, cfg_request, inner
from ike_lit.wire.const import (
    CfgAttribute, CfgType, Discard, ExchangeType, InternalAddressFailure, InvalidMajorVersion, InvalidSyntax,
    MessageType, Type, UnsupportedCriticalPayload)
from ike_lit.wire.header import HEADER, Header, Reader, dissect
from ike_lit.wire.ke import KE
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import (
    Delete, Notify, Opaque, Packet, Unreadable, Vendor, get_by_type, pack_chain, parse_chain)
from ike_lit.wire.proposal import SA
from ike_lit.wire.ts import TSi, TSr, TrafficSelector
from spoil import spoiled
from strategies import MESSAGES, edits

h = bytes.fromhex
KINDS = sorted(kind for kind in range(33, 54) if get_by_type(Type(kind)))


def message(*bodies: tuple[int, bytes], after: bytes = b'',
            exchange: ExchangeType = ExchangeType.INFORMATIONAL) -> bytes:
    "A message in the clear of payloads with these bodies, and what comes after the last of them."
    first, chain = pack_chain([Opaque(Type(kind), body) for kind, body in bodies])
    return bytes(Header(b'initiate', b'responds', first, exchange, False, True, 7,
                        HEADER.size + len(chain) + len(after))) + chain + after


def read(data: bytes) -> Packet: return Packet.parse(Reader(data))


@dataclass(frozen=True)
class Row:
    "A body, and what is made of it: a payload that is odd or not, or one that can't be read."
    kind: type
    body: str
    odd: str = ''  # what the dissection and chapter 36 say of it
    readable: bool = True


TABLE = {
    'Notify of a protocol without an SPI': Row(Notify, '03 00 4009'),
    'Notify with an SPI of 1 octet': Row(Notify, '03 01 4009 11'),
    'Notify with data where there is none': Row(Notify, '00 00 4000 01020304'),
    'Delete of no SPIs': Row(Delete, '03 04 0000'),
    'Delete of no SPIs of no octets': Row(Delete, '03 00 0000', '0 ESP SPIs of 0 octets'),
    'Delete that counts what has no octets': Row(Delete, '01 00 ffff', '65535 IKE SPIs of 0 octets'),
    'Delete of an IKE SA by its SPI': Row(Delete, '01 08 0001' + '11' * 8, '1 IKE SPIs of 8 octets'),
    'Delete of SPIs of 8 octets': Row(Delete, '03 08 0001' + '11' * 8, '1 ESP SPIs of 8 octets'),
    'Delete of protocol 9': Row(Delete, '09 02 0001 1111', '1 9 SPIs of 2 octets'),
    'Delete of fewer SPIs than it counts': Row(Delete, '03 04 0002 11111111', 'needs 4 octets', False),
    'Delete of more SPIs than it counts': Row(Delete, '03 04 0000 11111111', '4 octets too many', False),
    'Vendor ID of no octets': Row(Vendor, ''),
    'address of 5 octets': Row(IDi, '01 000000 0a00000109', '0a00000109'),
    'address of no octets': Row(IDi, '01 000000', 'RESERVED: '),
    'address of IPv6 of 4 octets': Row(IDi, '05 000000 0a000001', '0a000001'),
    'host name of no octets': Row(IDi, '02 000000'), 'DN that is none': Row(IDi, '09 000000 ff'),
    'name of type 200': Row(IDi, 'c8 000000 61'), 'ID of 3 octets': Row(IDi, '02 0000', 'needs 4', False),
    'AUTH of no octets': Row(AUTH, '02 000000'), 'AUTH of method 200': Row(AUTH, 'c8 000000 00'),
    'AUTH with an algorithm beyond its end': Row(AUTH, '0e 000000 ff 30'),
    'AUTH of 3 octets': Row(AUTH, '02 0000', 'needs 4', False),
    'CERT of no octets': Row(CERT, '04'), 'CERT of encoding 200': Row(CERT, 'c8 00'),
    'CERT without an encoding': Row(CERT, '', 'needs 1', False),
    'CERTREQ of half a hash': Row(CERTREQ, '04' + '11' * 10), 'CERTREQ for anybody': Row(CERTREQ, '04'),
    'KE of no octets': Row(KE, '001f 0000'), 'KE of group 999': Row(KE, '03e7 0000 11'),
    'KE of another size': Row(KE, '001f 0000' + '11' * 31), 'KE of 3': Row(KE, '001f 00', 'needs 4', False),
    'nonce of 15 octets': Row(Nonce, '11' * 15, 'a nonce of 15 octets', False),
    'nonce of 257 octets': Row(Nonce, '11' * 257, 'a nonce of 257 octets', False),
    'empty INTERNAL_IP6_SUBNET': Row(CP, '01 000000 000f 0000', 'with a value of 0 octets'),
    'prefix of 129 bits': Row(CP, '01 000000 0008 0011' + '20' * 16 + '81', 'prefix of 129 bits'),
    'address of 3': Row(CP, '02 000000 0001 0003 0a0300', 'with a value of 3 octets'),
    'half a SUPPORTED_ATTRIBUTES': Row(CP, '01 000000 000e 0003 000100', 'with a value of 3 octets'),
    'attribute that nobody knows': Row(CP, '01 000000 7fff 0003 000100'),
    'CP of type 200, empty': Row(CP, 'c8 000000'),
    'attribute beyond the payload': Row(CP, '01 000000 0001 0004 0a0300', 'claims 4 octets', False),
    'selector of a type that nobody knows': Row(TSi, '01 000000 0900 0008 0000 0000'),
    'selectors of which one is missing': Row(
        TSr, '02 000000 0700 0010 0000 ffff 0a000000 0a0000ff', 'needs 8', False),
    'no selectors': Row(TSi, '00 000000', 'without a traffic selector', False),
    'no proposals': Row(SA, '', 'needs 8 octets', False),
}


@pytest.mark.parametrize('what', TABLE)
def test_what_is_read_and_what_is_refused_and_where(what: str) -> None:
    "The payloads around it are read in each case, and its octets go back on the wire."
    row, body = TABLE[what], h(TABLE[what].body)
    data = message((Type.Vendor, b'before'), (row.kind.kind, body), (Type.Vendor, b'behind'))
    packet = read(data)
    assert packet.all(Vendor)[0].data == b'before' and packet.all(Vendor)[-1].data == b'behind'
    found = packet.payloads[1]
    assert isinstance(found, row.kind if row.readable else Unreadable)
    if not row.readable:
        for ask in packet.all, packet.one:
            with pytest.raises(InvalidSyntax, match=row.odd): ask(row.kind)
    shown = dissect(Packet.parse, data)
    assert shown.error is None and tiled(shown) == data
    said = [remark.text for remark in about_octets(shown, False)]
    if row.odd and what != 'address of no octets': assert len(said) == 1 and row.odd in said[0]
    elif not row.odd: assert said == []
    assert bytes(replace(packet, data=b'')) == data


def test_each_class_of_payload_is_in_the_table() -> None:
    assert {row.kind for row in TABLE.values()} >= {
        get_by_type(Type(kind)) for kind in KINDS} - {get_by_type(Type.IDr), TSi, TSr} | {TSi}


@pytest.mark.parametrize('body', ['', '030440', '0304400911', '03ff4009 11111111'])
def test_a_notification_that_can_not_be_read_spoils_the_message(body: str) -> None:
    "It may say that all the rest is void, or means something else."
    with pytest.raises(InvalidSyntax): read(message((Type.Vendor, b''), (Type.Notify, h(body))))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('length', [0, 1, 3, 200, 0xffff])
def test_a_length_that_leaves_the_chain_spoils_the_message(kind: int, length: int) -> None:
    "Below 4 nothing would be taken, for ever; beyond the message are other people's octets."
    data = bytearray(message((kind, bytes(60)), (Type.Vendor, b'behind')))
    data[HEADER.size + 2:HEADER.size + 4] = length.to_bytes(2, 'big')
    with pytest.raises(InvalidSyntax): read(bytes(data))


@pytest.mark.parametrize('kind', range(1, 256))
def test_only_what_we_understand_may_be_critical(kind: int) -> None:
    "A name in the registry is not enough: those of later RFCs ask for things that we do not do."
    data = bytearray(message((kind, bytes(60))))
    data[HEADER.size + 1] = 0x80
    if 33 <= kind <= 48 or kind == 53:
        try: assert read(bytes(data)).payloads[0].kind == kind
        except InvalidSyntax: assert kind == Type.Notify  # of 60 zero octets, it can be read
    else:
        with pytest.raises(UnsupportedCriticalPayload) as caught: read(bytes(data))
        assert caught.value.data == bytes([kind])


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.one_of(*MESSAGES.values()), edits)
def test_what_was_read_goes_back_as_it_came(m: Packet, how: list) -> None:
    "But for what is ignored on receipt: reserved bits, the critical flag, octets after the last payload."
    try: packet = read(spoiled(m.data, how, True))
    except (InvalidSyntax, UnsupportedCriticalPayload, Discard, InvalidMajorVersion): return
    for payload in packet.payloads:
        first, chain = pack_chain([payload])
        assert parse_chain(first, Reader(chain)) == (payload,)
        if isinstance(payload, Unreadable): assert payload.data in packet.data


@pytest.mark.parametrize('size', [1, 2, 3, 4, 100])
def test_octets_after_the_last_payload_are_shown_and_remarked(size: int) -> None:
    data = message((Type.Vendor, b'last'), after=bytes(size))
    packet, shown = read(data), dissect(Packet.parse, data)
    assert packet.payloads == (Vendor(b'last'),) and packet.data == data and tiled(shown) == data
    assert 'After the last payload  (no payload)' in repr(shown)
    remark, = about_octets(shown, False)
    assert remark.grade == 'odd' and 'After the last payload' in remark.text
    nothing = read(message(after=bytes(size)))
    assert nothing.payloads == () and nothing.remainder == bytes(size)


# In a handshake

ANDROID = CP(CfgType.CFG_REQUEST, (
    Attribute(CfgAttribute.INTERNAL_IP4_ADDRESS), Misfit(CfgAttribute.INTERNAL_IP6_SUBNET),
    Attribute(CfgAttribute.INTERNAL_IP4_DNS)))


def test_a_request_with_an_attribute_that_does_not_fit_is_served() -> None:
    "Android asks with an INTERNAL_IP6_SUBNET that is empty."
    answer = Pool(['10.3.0.0/24'], ['10.3.0.53']).answer(CP.parse(Reader(bytes(ANDROID))), 'a phone')
    assert answer == CP(CfgType.CFG_REPLY, (
        inner(IPv4Address('10.3.0.1')), Attribute(CfgAttribute.INTERNAL_IP4_DNS, h('0a030035'))))


@pytest.mark.parametrize('pool', [False, True])
def test_a_phone_gets_its_tunnel(pool: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    "With a pool and without: the odd attribute, in a payload that is used or not, ends nothing."
    left, right = configs()
    every = TrafficSelector.from_text('0.0.0.0/0'),
    right = replace(right, remote_ts=every, pool=Pool(['10.3.0.0/24']) if pool else None)
    left = replace(left, local_ts=every, request=(IPv4Address(0),))
    monkeypatch.setattr('ike_lit.engine.ike_sa.cfg_request', lambda addresses: ANDROID)
    alice, bob = handshake(*two_ends(RESPONDERS, left, right))
    assert bob.state == State.ESTABLISHED and [e for e in events(bob) if isinstance(e, ChildEstablished)]
    found = [e for e in events(alice) if isinstance(e, AddressAssigned)]
    assert [str(a) for e in found for a in e.assigned.addresses] == ['10.3.0.1'] * pool


def test_an_answer_that_does_not_fit_gives_nothing() -> None:
    "Refused where it matters: an inner address of three octets is none."
    odd = CP(CfgType.CFG_REPLY, (Misfit(CfgAttribute.INTERNAL_IP4_ADDRESS, b'\x0a\3\0'),))
    asks = cfg_request([IPv4Address(0)])
    with pytest.raises(InternalAddressFailure, match='no inner address'): assigned(asks, odd)
    good = CP(CfgType.CFG_REPLY, (*odd.attributes, inner(IPv4Address('10.3.0.1'))))
    assert assigned(asks, good).addresses == (IPv4Address('10.3.0.1'),)


def test_a_faulty_attribute_is_never_made() -> None:
    for octets in b'\x0a', bytes(5), bytes(16):
        with pytest.raises(InvalidSyntax): Attribute(CfgAttribute.INTERNAL_IP4_ADDRESS, octets)
    with pytest.raises(InvalidSyntax): Attribute(CfgAttribute.INTERNAL_IP6_SUBNET)


@pytest.mark.parametrize('data, hashes', [
    ('', ()), ('00', ()), ('05', ()), ('0002 05', (2,)), ('0002 0005', (2, 5))])
def test_half_a_hash_is_no_hash(data: str, hashes: tuple[int, ...]) -> None:
    notify = Notify(MessageType.SIGNATURE_HASH_ALGORITHMS, h(data))
    assert announced_hashes(Packet(ExchangeType.IKE_SA_INIT, (notify,))) == hashes


@pytest.mark.parametrize('body', ['', '0000 0000'], ids=['nothing', 'a length of 0'])
def test_a_probe_takes_an_answer_that_can_not_be_read_for_none(body: str) -> None:
    _, chain = pack_chain([Opaque(Type.SA, h(body))])
    data = bytes(Header(b'initiate', b'responds', Type.SA, ExchangeType.IKE_SA_INIT, True, False, 0,
                        HEADER.size + len(chain))) + chain
    assert response_for(data, b'initiate') is None


def test_a_pool_refuses_lengths_that_do_not_add_up_before_anybody_is_believed() -> None:
    left, right = configs()
    alice, bob = two_ends(RESPONDERS, left, replace(right, pool=Pool(['10.3.0.0/24'])))
    alice.start(ike_sa_init, now=0)
    for one, other in (alice, bob), (bob, alice):
        for d in one.datagrams_to_send(): other.receive_datagram(d.data, d.source, 0, d.destination)
    heir = alice.lineage.new_sas[0]
    request = bob.incoming.open(heir.datagrams_to_send()[0].data)
    spoilt = Packet(request.exchange_type, (*request.payloads, Opaque(Type.CP, h('01000000 0001 0004 0a'))))
    data = heir.outgoing.seal(spoilt, heir.spi_i, heir.spi_r, response=False, initiator=True, message_id=1,
                              random=bytes)
    bob.receive_datagram(data, heir.local, 0)
    answer = heir.incoming.open(bob.datagrams_to_send()[0].data)
    assert answer.payloads == (Notify(MessageType.INVALID_SYNTAX),) and bob.state == State.CLOSED
    assert not [e for e in events(bob) if isinstance(e, Established)]
