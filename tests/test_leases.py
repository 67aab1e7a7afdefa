"Configuration attributes as people read them, and the order in which addresses are lent again."
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from ike_lit.wire.configuration import CP, SHOWN_ATTRIBUTES, Assigned, Attribute, Pool, Range
from ike_lit.wire.const import CfgAttribute as A, CfgType
from ike_lit.wire.header import Reader, dissect
from ike_lit.wire.payload import pack_chain, parse_chain

FOUR, MASK = bytes([10, 3, 0, 1]), bytes([255, 255, 255, 0])
SIX = IPv6Address('2001:db8::1').packed
TEXTS = {
    '': (A.INTERNAL_IP4_ADDRESS, b'', None),
    '10.3.0.1': (A.INTERNAL_IP4_ADDRESS, FOUR, IPv4Address('10.3.0.1')),
    '10.3.0.1/255.255.255.0': (A.INTERNAL_IP4_SUBNET, FOUR + MASK, IPv4Address('10.3.0.1')),
    '2001:db8::1': (A.INTERNAL_IP6_DNS, SIX, IPv6Address('2001:db8::1')),
    '2001:db8::1/64': (A.INTERNAL_IP6_ADDRESS, SIX + b'\x40', IPv6Address('2001:db8::1')),
    '3 octets': (A.APPLICATION_VERSION, b'1.0', None),
}


@pytest.mark.parametrize('text', TEXTS)
def test_an_attribute_reads_as_its_address_and_mask(text: str) -> None:
    kind, value, address = TEXTS[text]
    attribute = Attribute(kind, value)
    assert str(attribute) == text and attribute.address == address
    assert repr(attribute) == f'{kind}({text})'


def test_an_attribute_without_a_value_reads_as_nothing() -> None:
    assert str(Attribute(A.APPLICATION_VERSION)) == str(Attribute(A.INTERNAL_IP6_DNS)) == ''


@pytest.mark.parametrize(('count', 'rest'), [
    (0, ''), (SHOWN_ATTRIBUTES, ''), (SHOWN_ATTRIBUTES + 1, ', 1 more')])
def test_eight_attributes_are_shown_and_the_others_are_counted(count: int, rest: str) -> None:
    one = Attribute(A.INTERNAL_IP4_DNS)
    shown = f', {one!r}' * min(count, SHOWN_ATTRIBUTES)
    assert repr(CP(CfgType.CFG_REQUEST, (one,) * count)) == f'CP({CfgType.CFG_REQUEST}{shown}{rest})'


def test_only_an_attribute_with_a_value_is_explained() -> None:
    payload = CP(CfgType.CFG_REPLY, (Attribute(A.INTERNAL_IP4_ADDRESS, FOUR), Attribute(A.INTERNAL_IP4_DNS)))
    first, chain = pack_chain((payload,))
    shown = dissect(lambda r: parse_chain(first, r), chain)
    said = [row.meaning for span in shown.spans for row in span.rows if row.name in ('Value', 'Length')]
    assert said == ['octets of the value', '10.3.0.1', 'octets of the value']
    assert parse_chain(first, Reader(chain)) == (payload,)  # and it is read without an explanation, too


def test_what_was_assigned_names_the_servers_if_there_are_any() -> None:
    inner, server = ip_address('10.3.0.1'), ip_address('10.3.0.53')
    assert repr(Assigned((inner,))) == 'Assigned(10.3.0.1)'
    assert repr(Assigned((inner,), (server,))) == 'Assigned(10.3.0.1, DNS 10.3.0.53)'


def test_an_address_beyond_the_fresh_ones_is_fresh_again_when_it_comes_back() -> None:
    "Whoever wished for it has not lent it in turn: what was returned longest ago comes first, then this."
    pool = Range(ip_network('10.3.0.0/29'))
    one, two, three = (pool.first + n for n in range(3))
    assert pool.take_any() == one and pool.take(two)
    pool.give_back(two)
    pool.give_back(one)
    assert [pool.take_any() for _ in range(3)] == [one, two, three]


def test_pools_that_lend_the_same_are_one() -> None:
    "Networks and name servers alike; a pool that stands among the others is itself."
    net, server = '10.3.0.0/24', '10.3.0.53'
    pool, same = Pool([net], [server]), Pool([net], [server])
    others = [Pool([net]), Pool(['10.4.0.0/24'], [server]), Pool([net, '10.4.0.0/24'], [server])]
    assert same.same([*others, pool, same]) is pool
    assert pool.same(others) is pool and pool.same([*others, pool, same]) is pool
