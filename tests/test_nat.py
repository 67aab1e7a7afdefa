"NAT detection, octet by octet: which notifications count, and what is said of an end."
import pytest
from canonical import ALICE, BOB
from ike_lit.const import ExchangeType, MessageType
from ike_lit.nat import Endpoint, Nat, detect, fingerprint, nat_detection
from ike_lit.payload import Notify, Packet

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
    cookie = Notify(MessageType.COOKIE, fingerprint(*SPIS, ALICE))
    assert seen(ELSEWHERE, cookie, DESTINATION) == Nat(True, there=True)
    assert seen(cookie, DESTINATION) == Nat(False)


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert str(Endpoint('192.0.2.1', 500)) == '192.0.2.1:500'
    assert str(Endpoint('2001:db8::1', 4500, natt=True)) == '[2001:db8::1]:4500'
