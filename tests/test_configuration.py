"The Configuration payload and the pool: what is refused, what is ignored, and who gets what."
import contextlib
import random
import tracemalloc
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.wire.configuration import (
    ADDRESS, CP, DNS, MAX_ATTRIBUTES, MAX_DNS, Assigned, Attribute, Misfit, Pool, Range, assigned,
    cfg_request, inner, selectors_for)
from ike_lit.wire.const import (
    CfgAttribute, CfgType, FailedCpRequired, IkeError, InternalAddressFailure, InvalidSyntax, Type)
from ike_lit.wire.header import Reader, dissect
from ike_lit.wire.payload import pack_chain, parse_chain
from ike_lit.wire.ts import TrafficSelector, check_narrowed, narrow

ANY4, ANY6 = IPv4Address(0), IPv6Address(0)
V4, V6, BOTH = cfg_request([ANY4]), cfg_request([ANY6]), cfg_request([ANY4, ANY6])


def attribute(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, 'big') + len(value).to_bytes(2, 'big') + value


def reply(*attributes: Attribute) -> CP: return CP(CfgType.CFG_REPLY, attributes)


def dns(text: str) -> Attribute:
    a = ip_address(text)
    return Attribute(DNS[a.version], a.packed)


# The table of RFC 7296 §3.15.1, typed from the RFC and not from the code.
LENGTHS = {1: {0, 4}, 2: {0, 4}, 3: {0, 4}, 4: {0, 4}, 6: {0, 4}, 7: set(range(41)),
           8: {0, 17}, 10: {0, 16}, 12: {0, 16}, 13: {0, 8}, 14: set(range(0, 41, 2)), 15: {17}}


@pytest.mark.parametrize('kind', LENGTHS)
def test_the_table_of_lengths(kind: int) -> None:
    for size in range(41):
        data = b'\1\0\0\0' + attribute(kind, bytes(size))
        if size in LENGTHS[kind]: Attribute(CfgAttribute(kind), bytes(size))
        else:
            with pytest.raises(InvalidSyntax): Attribute(CfgAttribute(kind), bytes(size))
        cp = CP.parse(Reader(data))
        assert bytes(cp) == data and cp == CP.parse(Reader(bytes(cp)))
        misfit = type(cp.attributes[0]) is Misfit
        assert misfit == (size not in LENGTHS[kind])
        if misfit: assert cp.attributes[0].address is None and f'{size} octets' in str(cp.attributes[0])


@pytest.mark.parametrize('kind', [8, 15])
def test_a_prefix_has_128_bits_at_most(kind: int) -> None:
    Attribute(CfgAttribute(kind), bytes(16) + b'\x80')
    for bits in 129, 255:
        with pytest.raises(InvalidSyntax): Attribute(CfgAttribute(kind), bytes(16) + bytes([bits]))
        cp = CP.parse(Reader(b'\1\0\0\0' + attribute(kind, bytes(16) + bytes([bits]))))
        assert type(cp.attributes[0]) is Misfit


@pytest.mark.parametrize('kind', [0, 5, 9, 11, 16, 19, 25, 99, 0x5ba0, 0x7fff])
def test_unknown_attributes_are_carried_and_ignored(kind: int) -> None:
    for size in 0, 1, 4, 5, 300:
        odd = attribute(kind, bytes(size))
        data = b'\1\0\0\0' + odd + attribute(1, b'') + odd
        request = CP.parse(Reader(data))
        assert bytes(request) == data
        answer = Pool(['10.3.0.0/24']).answer(request, 'alice')
        assert answer == reply(inner(IPv4Address('10.3.0.1')))
        with_odd = CP.parse(Reader(b'\2\0\0\0' + odd + bytes(answer)[4:] + odd))
        assert assigned(V4, with_odd) == Assigned((IPv4Address('10.3.0.1'),))


def test_reserved_bits_are_ignored_and_sent_as_zero() -> None:
    good = reply(inner(IPv4Address('10.3.0.1')), dns('10.3.0.53'))
    data = bytes(good)
    for at, mask in [(1, 0xff), (2, 0xff), (3, 0xff), (4, 0x80), (12, 0x80)]:
        assert not data[at] & mask
        changed = data[:at] + bytes([data[at] | mask]) + data[at + 1:]
        assert CP.parse(Reader(changed)) == good
        assert bytes(CP.parse(Reader(changed))) == data


def test_registered_as_a_payload_and_its_octets() -> None:
    asks = bytes.fromhex('01000000 00010000 00080000 00030000 000a0000')
    assert bytes(BOTH) == asks
    first, chain = pack_chain([BOTH])
    assert (first, chain) == (Type.CP, b'\0\0\0\x18' + asks)
    assert parse_chain(Type.CP, Reader(chain)) == (BOTH,)


def test_what_is_asked_for() -> None:
    before = [IPv6Address('2001:db8::5'), IPv4Address('10.3.0.5')]
    request = cfg_request(before)
    assert [a.address for a in request.all(ADDRESS[4])] == [before[1]]
    assert request.all(ADDRESS[6])[0].value == before[0].packed + b'\x80'
    assert not any(a.value for v in (4, 6) for a in request.all(DNS[v]))
    assert not V4.all(ADDRESS[6]) and not V4.all(DNS[6])
    for bad in [], [ANY4, ANY4], [ANY6, before[0]]:
        with pytest.raises(ValueError, match='one inner address'): cfg_request(bad)


# What the requester believes.


def test_only_what_was_asked_for_is_kept() -> None:
    first, second = IPv4Address('10.3.0.1'), IPv4Address('10.3.0.2')
    sixth = IPv6Address('2001:db8::1')
    answer = reply(inner(sixth), dns('2001:db8::53'), inner(first), inner(second),
                   Attribute(CfgAttribute.INTERNAL_IP4_NETMASK, b'\xff\xff\xff\0'), dns('10.3.0.53'))
    assert assigned(V4, answer) == Assigned((first,), (ip_address('10.3.0.53'),))
    assert assigned(V6, answer) == Assigned((sixth,), (ip_address('2001:db8::53'),))
    assert assigned(BOTH, answer).addresses == (first, sixth)
    no_dns = CP(CfgType.CFG_REQUEST, (Attribute(ADDRESS[4]),))
    assert assigned(no_dns, answer) == Assigned((first,))
    two = CP(CfgType.CFG_REQUEST, (Attribute(ADDRESS[4]),) * 2)
    assert assigned(two, answer).addresses == (first, second)
    assert assigned(two, reply(inner(first), inner(first))).addresses == (first,)


def test_one_of_two_families_is_enough_and_none_is_a_failure() -> None:
    four, six = reply(inner(IPv4Address('10.3.0.1'))), reply(inner(IPv6Address('2001:db8::1')))
    assert assigned(BOTH, four).addresses == (IPv4Address('10.3.0.1'),)
    assert assigned(BOTH, six).addresses == (IPv6Address('2001:db8::1'),)
    for request, answer in [(V4, six), (V6, four), (V4, reply()), (V4, reply(dns('10.3.0.53'))),
                            (BOTH, reply(Attribute(ADDRESS[4]), Attribute(ADDRESS[6])))]:
        with pytest.raises(InternalAddressFailure): assigned(request, answer)


@pytest.mark.parametrize('cfg_type', [0, 1, 3, 4, 5, 255])
def test_only_a_reply_answers_a_request(cfg_type: int) -> None:
    address = (inner(IPv4Address('10.3.0.1')),)
    with pytest.raises(InvalidSyntax): assigned(V4, CP(CfgType(cfg_type), address))
    if cfg_type == CfgType.CFG_REQUEST: return
    with pytest.raises(InvalidSyntax):
        Pool(['10.3.0.0/24']).answer(CP(CfgType(cfg_type), address), 'alice')


@pytest.mark.parametrize('text', [
    '0.0.0.0', '127.0.0.1', '224.0.0.1', '240.0.0.1', '255.255.255.255',  # noqa: S104
    '::', '::1', 'ff02::1', '::ffff:127.0.0.1', '::ffff:10.3.0.1'])
def test_addresses_that_no_host_has(text: str) -> None:
    "As an inner address they count as none; as a name server they are left out."
    with pytest.raises(InternalAddressFailure): assigned(BOTH, reply(inner(ip_address(text))))
    good = inner(IPv4Address('10.3.0.1'))
    assert assigned(BOTH, reply(inner(ip_address(text)), dns(text), good)).dns == ()
    assert assigned(BOTH, reply(inner(ip_address(text)), good)).addresses == (good.address,)


# Sizes.


def test_hostile_sizes() -> None:
    "A payload is as long as it may be: nothing is kept of it but what was asked for."
    many = MAX_ATTRIBUTES
    asks = CP.parse(Reader(b'\1\0\0\0' + attribute(1, b'') * many))
    assert len(asks.attributes) == many
    assert len(repr(asks)) < 500 and repr(asks).endswith(f', {many - 8} more)')
    assert len(Pool(['10.3.0.0/24']).answer(asks, 'alice').attributes) == 1
    servers = b''.join(attribute(3, (0x0a000001 + n).to_bytes(4, 'big')) for n in range(MAX_ATTRIBUTES // 2))
    lots = CP.parse(Reader(b'\2\0\0\0' + servers + servers.replace(b'\0\3\0\4', b'\0\1\0\4')))
    given_ = assigned(V4, lots)
    assert (len(given_.addresses), len(given_.dns)) == (1, MAX_DNS)
    for length in 1, 5, 0x7fff, 0xffff:
        with pytest.raises(InvalidSyntax):
            CP.parse(Reader(b'\1\0\0\0\x7f\0' + length.to_bytes(2, 'big')))
    assert len(repr(Attribute(CfgAttribute.APPLICATION_VERSION, b'\x1b' * 65535))) < 100


def test_every_truncation() -> None:
    data = bytes(reply(inner(IPv4Address('10.3.0.1')), inner(IPv6Address('2001:db8::1'))))
    whole = {4, 12}  # between two attributes
    for size in range(len(data)):
        if size in whole: CP.parse(Reader(data[:size]))
        else:
            with pytest.raises(InvalidSyntax): CP.parse(Reader(data[:size]))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=120), st.lists(
    st.tuples(st.sampled_from([*CfgAttribute, 0x8001, 0x8008, 99]), st.sampled_from(
        [0, 1, 2, 4, 8, 16, 17]), st.binary(min_size=17, max_size=17)), max_size=8))
def test_any_octets(tail: bytes, parts: list[tuple[int, int, bytes]]) -> None:
    "An `IkeError` or a payload that survives its own octets; and whatever it is, both ends cope."
    structured = b''.join(attribute(kind, value[:size]) for kind, size, value in parts)
    for head in b'\1\0\0\0', b'\2\0\0\0', b'':
        for data in head + tail, head + structured:
            repr(dissect(CP.parse, data))
            try: cp = CP.parse(Reader(data))
            except InvalidSyntax: continue
            assert CP.parse(Reader(bytes(cp))) == cp
            repr(cp)
            pool = Pool(['10.3.0.0/30', '2001:db8::/64'], ['10.3.0.53'])
            for call in (lambda cp=cp: assigned(BOTH, cp),
                         lambda cp=cp, pool=pool: pool.answer(cp, 'alice')):
                with contextlib.suppress(IkeError): call()
            assert len(pool.leases) <= 2


# What the assigner gives.


def test_an_owner_keeps_its_address_and_a_wish_is_granted_if_it_can_be() -> None:
    pool = Pool(['10.3.0.0/24'], ['10.3.0.53', '2001:db8::53'])
    wish = cfg_request([IPv4Address('10.3.0.77')])
    assert pool.answer(V4, 'alice') == reply(inner(IPv4Address('10.3.0.1')), dns('10.3.0.53'))
    assert pool.answer(wish, 'alice') == pool.answer(V4, 'alice')
    assert assigned(wish, pool.answer(wish, 'bob')).addresses == (IPv4Address('10.3.0.77'),)
    assert assigned(wish, pool.answer(wish, 'carol')).addresses == (IPv4Address('10.3.0.2'),)
    no_dns = CP(CfgType.CFG_REQUEST, (Attribute(ADDRESS[4]),))
    assert pool.answer(no_dns, 'alice') == reply(inner(IPv4Address('10.3.0.1')))
    assert len(pool.leases) == 3
    for text in '10.3.0.0', '10.3.0.255', '10.4.0.1':
        elsewhere = cfg_request([IPv4Address(text)])
        found, = assigned(elsewhere, pool.answer(elsewhere, text)).addresses
        assert found not in map(ip_address, (text, '10.3.0.0', '10.3.0.255'))


@pytest.mark.parametrize('network, hosts', [
    ('10.3.0.0/29', 6), ('10.3.0.0/30', 2), ('10.3.0.0/31', 2), ('10.3.0.7/32', 1),
    ('2001:db8::/125', 7), ('2001:db8::/126', 3), ('2001:db8::/127', 2), ('2001:db8::7/128', 1)])
def test_exhaustion_and_release(network: str, hosts: int) -> None:
    pool, net = Pool([network]), ip_network(network)
    request = V4 if net.version == 4 else V6
    given_ = [assigned(request, pool.answer(request, n)).addresses[0] for n in range(hosts)]
    assert given_ == list(net.hosts())
    for _ in range(3):
        with pytest.raises(InternalAddressFailure): pool.answer(request, 'late')
    assert assigned(request, pool.answer(request, 0)).addresses[0] == given_[0]
    pool.release('late')
    pool.release(hosts - 1)
    pool.release(hosts - 1)
    assert assigned(request, pool.answer(request, 'late')).addresses[0] == given_[-1]
    with pytest.raises(InternalAddressFailure): pool.answer(request, hosts - 1)
    assert len(pool.leases) == hosts


def test_families() -> None:
    "One that is not served, or used up, is passed over; with none at all it is a failure."
    pool = Pool(['10.3.0.0/24', '2001:db8::7/128'], ['10.3.0.53', '2001:db8::53'])
    assert assigned(BOTH, pool.answer(BOTH, 'alice')) == Assigned(
        (IPv4Address('10.3.0.1'), IPv6Address('2001:db8::7')),
        (ip_address('10.3.0.53'), ip_address('2001:db8::53')))
    answer = pool.answer(BOTH, 'bob')
    assert answer == reply(inner(IPv4Address('10.3.0.2')), dns('10.3.0.53'))
    with pytest.raises(InternalAddressFailure): pool.answer(V6, 'bob')
    pool.release('alice')
    assert len(pool.leases) == 1
    assert assigned(V6, pool.answer(V6, 'bob')).addresses == (IPv6Address('2001:db8::7'),)
    with pytest.raises(InternalAddressFailure): Pool(['10.3.0.0/24']).answer(V6, 'alice')
    with pytest.raises(InternalAddressFailure): Pool([]).answer(BOTH, 'alice')


def test_a_request_without_an_address() -> None:
    pool = Pool(['10.3.0.0/24'])
    for attributes in (), (Attribute(DNS[4]),), (Attribute(CfgAttribute.APPLICATION_VERSION),):
        with pytest.raises(FailedCpRequired):
            pool.answer(CP(CfgType.CFG_REQUEST, attributes), 'alice')
    assert not pool.leases


def test_two_owners_never_share_an_address() -> None:
    "A /29 and a /126, ten owners, all in random order, and the truth kept beside it."
    chance = random.Random(7296)  # noqa: S311
    pool = Pool(['10.3.0.0/29', '2001:db8::/126'])
    free = {4: 6, 6: 3}
    owns: dict[tuple[int, int], object] = {}
    refused = granted = 0
    for _ in range(20_000):
        owner = chance.randrange(10)
        if chance.random() < 0.4:
            pool.release(owner)
            for version in 4, 6: owns.pop((owner, version), None)
            continue
        four = ANY4 if chance.random() < 0.5 else IPv4Address(f'10.3.0.{chance.randrange(9)}')
        six = ANY6 if chance.random() < 0.5 else IPv6Address(f'2001:db8::{chance.randrange(5)}')
        wish = cfg_request(chance.choice([[four], [six], [four, six]]))
        asked = {v for v in (4, 6) if wish.all(ADDRESS[v])}
        try: got = {a.version: a for a in assigned(wish, pool.answer(wish, owner)).addresses}
        except InternalAddressFailure: got = {}
        for version in asked:
            held = [a for (who, v), a in owns.items() if v == version and who != owner]
            before = owns.get((owner, version))
            if version not in got:  # refused: only when all are out
                assert len(held) == free[version] and before is None
                refused += 1
                continue
            granted += 1
            address = got[version]
            assert address not in held
            assert address in list(ip_network({4: '10.3.0.0/29', 6: '2001:db8::/126'}[version]).hosts())
            assert before in (None, address)
            wanted = four if version == 4 else six
            if before is None and wanted not in held and address != wanted:
                assert wanted in (ANY4, ANY6) or str(wanted) in (
                    '10.3.0.0', '10.3.0.7', '10.3.0.8', '2001:db8::', '2001:db8::4')
            owns[owner, version] = address
        assert len(pool.leases) == len(owns)
    assert refused > 500 and granted > 5000


def test_a_large_network_costs_what_is_lent() -> None:
    tracemalloc.start()
    pool = Pool(['2001:db8::/64', '10.0.0.0/8'])
    for n in range(1000): pool.answer(BOTH, n)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert len(pool.leases) == 2000
    far = IPv6Address('2001:db8::ffff:ffff:ffff:ffff')
    wish = cfg_request([far])
    assert assigned(wish, pool.answer(wish, 'far')).addresses == (far,)


def test_an_interface_identifier_is_kept_in_another_prefix() -> None:
    pool = Pool(['2001:db8:1::/64', '2001:db8:2::/64'])
    wish = cfg_request([IPv6Address('2001:db8:ffff::abc')])
    seen = [str(assigned(wish, pool.answer(wish, n)).addresses[0]) for n in range(3)]
    assert seen == ['2001:db8:1::abc', '2001:db8:2::abc', '2001:db8:1::1']


def test_coming_and_going_leaves_nothing_behind() -> None:
    "Whatever the order, a range remembers no more addresses than were lent at one time."
    pool = Pool(['2001:db8::/64'])
    for n in range(500):
        pool.answer(V6, n)
        pool.release(n)
    assert remembered(pool.ranges[0]) <= 1
    pool.answer(V6, 'a'), pool.answer(V6, 'b'), pool.release('b')
    for _ in range(500):  # one asks for the next fresh address by name, another takes any
        wish = cfg_request([IPv6Address(pool.ranges[0].fresh)])
        pool.answer(wish, 'c'), pool.answer(V6, 'd')
        pool.release('c'), pool.release('d')
    assert remembered(pool.ranges[0]) <= 4
    pool = Pool(['2001:db8::/64'])
    for n in range(500):  # far away, and back
        wish = cfg_request([IPv6Address('2001:db8::1:0:0') + n])
        pool.answer(wish, n), pool.release(n)
    assert remembered(pool.ranges[0]) == 0 and not pool.leases


def remembered(one: Range) -> int: return len(one.taken) + len(one.returned)


def test_an_address_rests_before_it_is_lent_again() -> None:
    pool = Pool(['10.3.0.0/29'])
    for n in range(6): pool.answer(V4, n)
    for n in 3, 1, 5: pool.release(n)
    again = [str(pool.answer(V4, name).all(ADDRESS[4])[0]) for name in 'abc']
    assert again == ['10.3.0.4', '10.3.0.2', '10.3.0.6']


@pytest.mark.parametrize('networks, dns_', [
    (['10.3.0.1/24'], []), (['nonsense'], []), (['10.3.0.0/24', '10.3.0.128/25'], []),
    (['2001:db8::/32', '2001:db8:1::/64'], []), (['10.3.0.0/24'], ['nonsense'])])
def test_a_pool_that_can_not_be(networks: list[str], dns_: list[str]) -> None:
    with pytest.raises(ValueError): Pool(networks, dns_)
    Pool(['10.3.0.0/25', '10.3.0.128/25', '2001:db8::/64'])  # side by side is fine


# The traffic.


def test_the_selectors_are_the_addresses_alone() -> None:
    given_ = Assigned((IPv4Address('10.3.0.1'), IPv6Address('2001:db8::1')), ())
    ours = selectors_for(given_)
    assert ours == tuple(map(TrafficSelector.from_text, ('10.3.0.1/32', '2001:db8::1/128')))
    offer = [TrafficSelector(ANY4, IPv4Address(2**32 - 1)), TrafficSelector.from_text('::/0')]
    assert narrow(offer, ours) == ours
    assert check_narrowed(offer, ours) == ours
