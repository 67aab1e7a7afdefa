"Traffic selectors: as text, and as sets of packets that can be counted out."
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.wire.const import InvalidSyntax, SinglePairRequired, TsUnacceptable
from ike_lit.wire.header import Reader
from ike_lit.wire.ts import (
    ANY_PORTS, MAX_SELECTORS, OPAQUE, TrafficSelector, check_narrowed, covers, encode, intersection, minimal,
    more_possible, narrow, parse_selector, single_pair, within)

ts = TrafficSelector.from_text
NET = '10.1.0.0/24'


def many(*texts: str) -> tuple[TrafficSelector, ...]: return tuple(map(ts, texts))


# Text

@pytest.mark.parametrize('what, printed, protocol, ports', [
    ('[icmp]', '[icmp]', 1, ANY_PORTS),
    ('[icmp/8]', '[icmp/8]', 1, (0x0800, 0x08ff)),
    ('[1/8]', '[icmp/8]', 1, (0x0800, 0x08ff)),
    ('[icmp/8(0)]', '[icmp/8(0)]', 1, (0x0800, 0x0800)),
    ('[icmp/0]', '[icmp/0]', 1, (0, 255)),
    ('[icmp/0(0)]', '[icmp/0(0)]', 1, (0, 0)),
    ('[icmp/3-11]', '[icmp/3-11]', 1, (0x0300, 0x0bff)),
    ('[icmp/3(0)-3(4)]', '[icmp/3(0)-3(4)]', 1, (0x0300, 0x0304)),
    ('[icmp/3-3(4)]', '[icmp/3(0)-3(4)]', 1, (0x0300, 0x0304)),
    ('[icmp/3(0)-3(255)]', '[icmp/3]', 1, (0x0300, 0x03ff)),
    ('[icmp/255(255)]', '[icmp/255(255)]', 1, (65535, 65535)),
    ('[icmp/0-255]', '[icmp]', 1, ANY_PORTS),
    ('[ipv6-icmp/128]', '[ipv6-icmp/128]', 58, (0x8000, 0x80ff)),
    ('[icmpv6/128]', '[ipv6-icmp/128]', 58, (0x8000, 0x80ff)),
    ('[ICMP6/128(0)]', '[ipv6-icmp/128(0)]', 58, (0x8000, 0x8000)),
    ('[tcp/opaque]', '[tcp/opaque]', 6, OPAQUE),
    ('[udp/OPAQUE]', '[udp/opaque]', 17, OPAQUE),
    ('[icmp/opaque]', '[icmp/opaque]', 1, OPAQUE),
    ('[any/opaque]', '[any/opaque]', 0, OPAQUE),
    ('[tcp/any]', '[tcp]', 6, ANY_PORTS),
    ('[6/80]', '[tcp/80]', 6, (80, 80)),
    ('[17/500-600]', '[udp/500-600]', 17, (500, 600)),
    ('[132/65535]', '[sctp/65535]', 132, (65535, 65535)),
    ('[any/80]', '[any/80]', 0, (80, 80)),
    ('[0]', '', 0, ANY_PORTS), ('[any]', '', 0, ANY_PORTS), ('', '', 0, ANY_PORTS),
    ('[50]', '[50]', 50, ANY_PORTS), ('[255/7]', '[255/7]', 255, (7, 7))])
def test_text(what: str, printed: str, protocol: int, ports: tuple[int, int]) -> None:
    selector = ts(NET + what)
    assert (selector.protocol, selector.ports, str(selector)) == (protocol, ports, NET + printed)
    assert ts(str(selector)) == selector


@pytest.mark.parametrize('what, why', [
    ('[icmp/256]', 'no ICMP type'), ('[icmp/8(256)]', 'no ICMP code'), ('[icmp/8()]', 'no ICMP code'),
    ('[icmp/8(0]', 'no closing bracket'), ('[icmp/8(0)-]', 'no ICMP type'), ('[icmp/(0)]', 'no ICMP type'),
    ('[icmp/8(0)(1)]', 'no ICMP code'), ('[icmp/-8]', 'no ICMP type'), ('[icmp/11-3]', 'backwards'),
    ('[icmp/3(4)-3(0)]', 'backwards'), ('[icmp/2048]', 'no ICMP type'), ('[tcp/8(0)]', 'no port'),
    ('[tcp/65536]', 'no port'), ('[tcp/-80]', 'no port'), ('[tcp/80-]', 'no port'),
    ('[tcp/80-70]', 'backwards'),
    ('[tcp/65535-0]', 'backwards'), ('[tcp/1_0]', 'no port'), ('[tcp/+8]', 'no port'),
    ('[tcp/ 8]', 'no port'),
    ('[tcp/\u0668]', 'no port'), ('[tcp/opaque-opaque]', 'no port'), ('[tcp/' + '9' * 5000 + ']', 'no port'),
    ('[256]', 'no protocol'), ('[-1]', 'no protocol'), ('[tpc/80]', 'no protocol'), ('[tcp]]', 'no protocol'),
    ('[tcp', 'no closing bracket'), ('[tcp][udp]', 'no protocol'), ('[[tcp]', 'no protocol'),
    ('-10.1.0.1', '10.1.0.0/24'), ('/1', '10.1.0.0/24/1')])
def test_text_that_is_wrong(what: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught: ts(NET + what)
    assert repr(NET + what) in str(caught.value)


@pytest.mark.parametrize('text', ['', '10.1.0.9-10.1.0.5', '10.1.0.1-::1', '0.0.0.1-::2', '10.1.0.1-',
                                  '-10.1.0.1', '10.1.0.1/24', '10.1.0.256', 'example.org', '[tcp/80]'])
def test_addresses_that_are_wrong(text: str) -> None:
    with pytest.raises(ValueError, match='is no traffic selector') as caught: ts(text)
    assert repr(text) in str(caught.value)


ordered = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda p: (min(p), max(p)))
numbers = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(sorted)


@given(numbers, st.sampled_from([IPv4Address, IPv6Address]),
       st.sampled_from([0, 1, 6, 17, 58, 132]) | st.integers(0, 255),
       ordered | st.sampled_from([OPAQUE, ANY_PORTS, (0, 255), (0x0300, 0x0bff)]))
def test_every_selector_can_be_read_again(ends: list[int], family: type, protocol: int,
                                          ports: tuple[int, int]) -> None:
    selector = TrafficSelector(family(ends[0]), family(ends[1]), protocol, *ports)
    assert ts(str(selector)) == selector
    assert parse_selector(Reader(encode(selector))) == selector


@pytest.mark.parametrize('ports', ['0001 0000', 'ffff 0001', 'fffe 0000', '0900 0800'])
def test_ports_run_backwards_in_one_case_only(ports: str) -> None:
    octets = encode(ts(f'{NET}[icmp/8]'))
    with pytest.raises(InvalidSyntax, match='a traffic selector from'):
        parse_selector(Reader(octets[:4] + bytes.fromhex(ports) + octets[8:]))


# Sets. A selector is the set of these packets that it matches;
# the protocol 99 and the port 65535 are in no range, None is a port that can't be seen.

PACKETS = [(address, protocol, port) for address in range(8) for protocol in (6, 17, 99)
           for port in (0, 1, 2, 3, 4, 5, 65535, None)]


def matches(selector: TrafficSelector, address: int, protocol: int, port: int | None) -> bool:
    if selector.ports == ANY_PORTS: seen = True
    elif selector.ports == OPAQUE: seen = port is None
    else: seen = port is not None and selector.start_port <= port <= selector.end_port
    return (seen and int(selector.start) <= address <= int(selector.end)
            and selector.protocol in (0, protocol))


def packets(selectors: object) -> set[tuple[int, int, int | None]]:
    selectors = tuple(selectors)
    return {p for p in PACKETS if any(matches(selector, *p) for selector in selectors)}


spans = st.tuples(st.integers(0, 7), st.integers(0, 7)).map(sorted)
some_ports = (st.tuples(st.integers(0, 5), st.integers(0, 5)).map(lambda p: (min(p), max(p)))
              | st.sampled_from([ANY_PORTS, OPAQUE]))
selectors = st.builds(lambda a, protocol, ports: TrafficSelector(
    IPv4Address(a[0]), IPv4Address(a[1]), protocol, *ports), spans, st.sampled_from([0, 6, 17]), some_ports)
lists = st.lists(selectors, max_size=8)
examples = settings(max_examples=500, deadline=None)


@examples
@given(selectors, selectors)
def test_two_selectors_as_sets(a: TrafficSelector, b: TrafficSelector) -> None:
    both = intersection(a, b)
    assert packets([both] if both else []) == packets([a]) & packets([b])
    assert intersection(b, a) == both
    assert within(a, b) == (both == a) == (packets([a]) <= packets([b]))


@examples
@given(lists, lists)
def test_covers_as_sets(wide: list[TrafficSelector], inner: list[TrafficSelector]) -> None:
    assert covers(wide, inner) == (packets(inner) <= packets(wide))


@examples
@given(lists)
def test_minimal_as_sets(some: list[TrafficSelector]) -> None:
    found = minimal(some)
    assert packets(found) == packets(some) and set(found) <= set(some)
    assert not [(a, b) for a in found for b in found if a is not b and within(a, b)]
    assert not some or within(some[0], found[0])


@examples
@given(lists, lists)
def test_narrow_as_sets(offered: list[TrafficSelector], policy: list[TrafficSelector]) -> None:
    common = packets(offered) & packets(policy)
    if not common:
        with pytest.raises(TsUnacceptable): narrow(offered, policy)
        return
    answer = narrow(offered, policy)
    assert packets(answer) == common and check_narrowed(offered, answer) == answer
    if packets(offered) <= packets(policy): assert answer == minimal(offered)
    if packets(offered[:1]) <= packets(policy):
        assert packets(offered[:1]) & packets(answer[:1])
    assert not more_possible(offered, policy, answer)
    assert more_possible(offered, policy, answer[1:]) == (packets(answer[1:]) != common)


def test_families_are_apart_though_their_numbers_are_not() -> None:
    for a, b in (ts('0.0.0.1'), ts('::/0')), (ts('::1'), ts('0.0.0.0/0')):
        assert not within(a, b) and intersection(a, b) is None and minimal([a, b]) == (a, b)


def test_covers_what_is_no_rectangle_and_not_what_has_a_hole() -> None:
    frame = many('10.0.0.0-10.0.0.9[tcp/0-9]', '10.0.0.20-10.0.0.29[tcp/0-29]',
                 '10.0.0.10-10.0.0.19[tcp/0-9]', '10.0.0.0-10.0.0.19[tcp/20-29]',
                 '10.0.0.0-10.0.0.9[tcp/5-25]')
    whole = many('10.0.0.0-10.0.0.29[tcp/0-29]')
    assert not covers(frame, whole)
    assert not covers((*frame, ts('10.0.0.10-10.0.0.18[tcp/10-19]')), whole)
    assert not covers((*frame, ts('10.0.0.10-10.0.0.19[udp/10-19]')), whole)
    assert covers((*frame, ts('10.0.0.10-10.0.0.19[tcp/10-19]')), whole)


@pytest.mark.parametrize('wide, inner, expected', [
    (['10.0.0.0/25', '10.0.0.128/25'], ['10.0.0.0/24'], True),
    (['10.0.0.0/25', '10.0.0.128/25[tcp]'], ['10.0.0.0/24[tcp/80]'], True),
    (['10.0.0.0/25', '10.0.0.128/25[tcp]'], ['10.0.0.0/24'], False),
    (['10.0.0.0/25', '10.0.0.129-10.0.0.255'], ['10.0.0.0/24'], False),
    (['10.0.0.0/24[tcp/0-1023]', '10.0.0.0/24[tcp/1024-65535]'], ['10.0.0.0/24[tcp/1-65535]'], True),
    (['10.0.0.0/24[tcp/0-1023]', '10.0.0.0/24[tcp/1024-65535]'], ['10.0.0.0/24[tcp]'], False),
    (['10.0.0.0/24[tcp/0-1023]', '10.0.0.0/24[tcp/1024-65535]'], ['10.0.0.0/24[tcp/opaque]'], False),
    (['10.0.0.0/25', '10.0.0.128/25[tcp/opaque]'], ['10.0.0.0/24[tcp/opaque]'], True),
    (['0.0.0.0-255.255.255.255'], ['::/0'], False), (['::/0'], ['0.0.0.0/0'], False),
    ([f'{NET}[icmp/3(0)-3(9)]', f'{NET}[icmp/3(10)-4]'], [f'{NET}[icmp/3-4]'], True),
    ([f'{NET}[icmp/8]'], [f'{NET}[ipv6-icmp/8]'], False),
    ([], [], True), ([NET], [], True), ([], [NET], False)])
def test_covers(wide: list[str], inner: list[str], expected: bool) -> None:
    assert covers(many(*wide), many(*inner)) is expected


# Narrowing

@pytest.mark.parametrize('offered, policy, answer', [
    # all is allowed: the same values, but for what lies in another one, such as the hint
    (['10.1.0.5[tcp/80]', NET], ['0.0.0.0/0'], [NET]),
    ([NET, NET], [NET], [NET]), ([NET, '10.2.0.0/24'], ['0.0.0.0/0'], [NET, '10.2.0.0/24']),
    (['10.0.0.0/24'], ['10.0.0.0/25', '10.0.0.128/25'], ['10.0.0.0/24']),
    # the first choice is first
    (['10.1.0.5[tcp/80]', '10.0.0.0/8'], ['10.2.0.0/24', NET], [NET, '10.2.0.0/24']),
    (['10.1.0.5[tcp/80]', '10.0.0.0/8'], ['10.2.0.0/24', '10.1.0.5[tcp]'], ['10.1.0.5[tcp]', '10.2.0.0/24']),
    (['192.0.2.1', '10.1.0.5', '10.0.0.0/8'], ['10.2.0.0/24', '10.1.0.0/16'], ['10.1.0.0/16', '10.2.0.0/24']),
    # nothing redundant
    (['10.0.0.0/8', NET], ['10.1.0.0/16[tcp/443]'], ['10.1.0.0/16[tcp/443]']),
    ([NET, '10.0.0.0/8'], ['10.1.0.0/16[tcp/443]'], ['10.1.0.0/16[tcp/443]']),
    # opaque: any policy matches it, and itself, no range
    ([f'{NET}[tcp/opaque]'], [NET], [f'{NET}[tcp/opaque]']),
    ([NET], [f'{NET}[tcp/opaque]'], [f'{NET}[tcp/opaque]']),
    ([f'{NET}[tcp/opaque]'], ['10.0.0.0/8[tcp/opaque]'], [f'{NET}[tcp/opaque]']),
    ([f'{NET}[tcp/opaque]'], [f'{NET}[tcp/1-65535]'], []),
    ([f'{NET}[tcp/opaque]'], [f'{NET}[tcp/0]'], []), ([f'{NET}[tcp/opaque]'], [f'{NET}[tcp/65535]'], []),
    ([f'{NET}[tcp/opaque]'], [f'{NET}[udp/opaque]'], []),
    # types and codes
    ([f'{NET}[icmp/8]'], [f'{NET}[icmp/8(0)]'], [f'{NET}[icmp/8(0)]']),
    ([f'{NET}[icmp/3-11]'], [NET], [f'{NET}[icmp/3-11]']),
    ([f'{NET}[icmp/8]'], [f'{NET}[icmp/0]'], []), ([NET], ['fd00::/64'], []),
    ([], [NET], []), ([NET], [], [])])
def test_narrow(offered: list[str], policy: list[str], answer: list[str]) -> None:
    if answer: assert narrow(many(*offered), many(*policy)) == many(*answer)
    else:
        with pytest.raises(TsUnacceptable): narrow(many(*offered), many(*policy))


def test_a_cut_answer_has_the_first_choice_and_is_not_cut_for_what_is_redundant() -> None:
    tiny = many(*(f'10.0.{n}.1[tcp/{n}]' for n in range(MAX_SELECTORS - 1)))
    policy = many('10.0.0.0/16', '10.0.0.0/8[tcp]', '10.0.0.0/9[tcp]')
    assert narrow((*tiny, ts('0.0.0.0/0')), policy) == many('10.0.0.0/16', '10.0.0.0/8[tcp]')
    policy = many('10.0.0.0/24', '10.0.1.0/24')
    offered = (ts('10.0.1.7'), *(ts(f'10.0.0.0/15[tcp/{n}]') for n in range(255)))
    answer = narrow(offered, policy)
    assert len(answer) == MAX_SELECTORS and answer[0] == ts('10.0.1.7')
    assert more_possible(offered, policy, answer)


def test_an_answer_of_more_selectors_than_we_take_is_refused() -> None:
    answer = many(*(f'10.1.0.{n}' for n in range(MAX_SELECTORS + 1)))
    assert check_narrowed(many(NET), answer[1:]) == answer[1:]
    with pytest.raises(TsUnacceptable, match='33 traffic selectors; we take up to 32'):
        check_narrowed(many(NET), answer)


# What it costs. A peer writes these lists.

def steps(work: Callable[[], object]) -> int:
    "Return how many lines of Python something takes: the same on every machine, however busy."
    count = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == 'line'
        return line
    before = sys.gettrace()
    sys.settrace(line)
    try: work()
    finally: sys.settrace(before)
    return count


def stripes(count: int, last: int = 65535) -> list[TrafficSelector]:
    "Return what was worst: in each direction many, all of which cross, and cover one another."
    address = IPv4Address
    return [*(TrafficSelector(address(n), address(n), 17, 0, last) for n in range(count // 2)),
            *(TrafficSelector(address(0), address(count), 17, n, n) for n in range(count // 2))]


@pytest.mark.parametrize('crossing', [True, False])
def test_twice_the_selectors_are_covered_in_about_twice_the_steps(crossing: bool) -> None:
    def work(count: int) -> int:
        wide, inner = [*stripes(count), ts('0.0.0.0/8[udp/0-65000]')], stripes(count, 65000)
        if not crossing: inner = inner[:count // 2]
        assert covers(wide, inner)
        return steps(lambda: covers(wide, inner))
    assert work(800) < 2.5 * work(400)


def test_a_selector_that_is_no_network_is_written_without_taking_it_apart() -> None:
    ugly = TrafficSelector(IPv6Address(1), IPv6Address(2**128 - 2))
    assert str(ugly) == '::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe'
    assert steps(lambda: str(ugly)) < 10 * steps(lambda: str(ts('2001:db8::/32')))


@pytest.mark.parametrize('tsi, tsr, found', [
    (['10.1.0.5', NET], ['10.2.0.7[tcp/80]', '10.2.0.0/24'], True),
    (['10.1.0.5[icmp/8]'], ['10.2.0.7[icmp/8]'], True), (['fd00::1'], ['fd00::2'], True),
    ([NET, '10.1.0.5'], ['10.2.0.7'], False), (['10.1.0.5'], ['10.2.0.0/31'], False),
    ([], ['10.2.0.7'], False), (['10.1.0.5'], [], False), ([], [], False)])
def test_single_pair(tsi: list[str], tsr: list[str], found: bool) -> None:
    if found: assert single_pair(many(*tsi), many(*tsr)) == (ts(tsi[0]), ts(tsr[0]))
    else:
        with pytest.raises(SinglePairRequired): single_pair(many(*tsi), many(*tsr))


@pytest.mark.parametrize('offered, answer, good', [
    (['10.0.0.0/25', '10.0.0.128/25'], ['10.0.0.0/24'], True), (['10.0.0.0/8'], [NET], True),
    ([NET], ['10.1.0.0/23'], False), ([NET], ['0.0.0.0/0'], False), ([NET], [NET, '10.2.0.0/32'], False),
    ([f'{NET}[tcp/443]'], [NET], False), ([f'{NET}[tcp/443]'], [f'{NET}[tcp/442-443]'], False),
    ([f'{NET}[tcp/443]'], [f'{NET}[tcp/opaque]'], False), ([f'{NET}[tcp/opaque]'], [f'{NET}[tcp]'], False),
    ([f'{NET}[icmp/8(0)]'], [f'{NET}[icmp/8]'], False), ([f'{NET}[icmp/8]'], [f'{NET}[icmp]'], False),
    ([NET], ['::/0'], False), ([NET], [], False)])
def test_check_narrowed(offered: list[str], answer: list[str], good: bool) -> None:
    if good: assert check_narrowed(many(*offered), many(*answer)) == many(*answer)
    else:
        with pytest.raises(TsUnacceptable): check_narrowed(many(*offered), many(*answer))
