"NAT detection, octet by octet: which notifications count, and what is said of an end."
import pytest
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.const import ExchangeType, MessageType
from ike_lit.wire.nat import (
    KEEPALIVE, NON_ESP_MARKER, Endpoint, Nat, detect, address_hash, nat_detection, unwrap, wrap)
from ike_lit.wire.payload import Notify, Packet

SPIS = b'spi of i', b'spi of r'
SOURCE, DESTINATION = nat_detection(*SPIS, ALICE, BOB)
ELSEWHERE = Notify(MessageType.NAT_DETECTION_SOURCE_IP, bytes(20))


def seen(*notifies: Notify) -> Nat:
    packet = Packet(ExchangeType.IKE_SA_INIT, notifies)
    return detect(packet, *SPIS, source=ALICE, destination=BOB)


@pytest.mark.parametrize('notifies', [(), (SOURCE,), (DESTINATION,), (ELSEWHERE, ELSEWHERE)])
def test_half_of_nat_detection_is_none(notifies: tuple[Notify, ...]) -> None:
    assert seen(*notifies) == Nat(False)


def test_one_true_source_of_several_is_enough() -> None:
    "RFC 7296 §2.23: there may be one for each address that the peer could have."
    assert seen(ELSEWHERE, SOURCE, DESTINATION) == seen(SOURCE, DESTINATION) == Nat(True)
    assert seen(ELSEWHERE, DESTINATION) == Nat(True, there=True)


def test_the_true_hash_in_another_notification_shows_nothing() -> None:
    cookie = Notify(MessageType.COOKIE, address_hash(*SPIS, ALICE))
    assert seen(ELSEWHERE, cookie, DESTINATION) == Nat(True, there=True)
    assert seen(cookie, DESTINATION) == Nat(False)


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert str(Endpoint('192.0.2.1', 500)) == '192.0.2.1:500'
    assert str(Endpoint('2001:db8::1', 4500, natt=True)) == '[2001:db8::1]:4500'


@pytest.mark.parametrize('message', [b'message', bytes(4) + b'message', KEEPALIVE, b''])
def test_the_marker_is_for_the_port_that_ike_shares_with_esp(message: bytes) -> None:
    "RFC 7296 §3.1: elsewhere nothing comes before a message, not even where it begins with zeros."
    shared = ALICE._replace(port=4500, natt=True)
    assert wrap(message, ALICE) == unwrap(message, ALICE) == message
    assert wrap(message, shared) == NON_ESP_MARKER + message
    assert unwrap(NON_ESP_MARKER + message, shared) == message
    esp = b'\x5a\0\0\1' + message
    assert unwrap(esp, shared) is None and unwrap(KEEPALIVE, shared) is None
