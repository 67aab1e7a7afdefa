"""Names: how they are read and shown, when two are the same, and that junk in place of one harms nobody."""
import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ike_lit.wire.auth import Identity, IDi
from ike_lit.wire.const import IDType, InvalidSyntax
from ike_lit.wire.header import Reader, dissect

DN = IDType.DER_ASN1_DN
CN, ORGANIZATION, COUNTRY = '2.5.4.3', '2.5.4.10', '2.5.4.6'
UTF8, PRINTABLE, TELETEX = _ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.T61String
SAMPLE = Identity.from_text('C=CH, O=Example, CN=gw')


def name(*attributes: tuple[str, str], kind: _ASN1Type | None = None) -> Identity:
    "A distinguished name of (OID, value), one after the other, in a string type."
    made = x509.Name([x509.NameAttribute(x509.ObjectIdentifier(oid), value, kind, _validate=False)
                      for oid, value in attributes])
    return Identity(DN, made.public_bytes())


def bit_string_name() -> Identity:
    "CN=alice, but as a BIT STRING, which no name has."
    return Identity(DN, Identity.from_text('CN=alice').data.replace(b'\x0c\x05', b'\x03\x05'))


# As people write them

@pytest.mark.parametrize('text, type_, data', [
    ('10.0.0.1', IDType.IPV4_ADDR, bytes([10, 0, 0, 1])),
    ('2001:db8::1', IDType.IPV6_ADDR, bytes.fromhex('20010db8' + '0' * 23 + '1')),
    ('gw.example.org', IDType.FQDN, b'gw.example.org'), ('@gw', IDType.FQDN, b'gw'),
    ('user@example.org', IDType.RFC822_ADDR, b'user@example.org'),
    ('@#c0FFee', IDType.KEY_ID, b'\xc0\xff\xee'), ('10.0.0.256', IDType.FQDN, b'10.0.0.256'),
    ('CN=a', DN, bytes.fromhex('300c310a300806035504030c0161')),
    ('C=CH, CN=a', DN, bytes.fromhex('3019310b3009060355040613024348310a300806035504030c0161'))])
def test_each_type_is_written_in_its_own_way(text: str, type_: IDType, data: bytes) -> None:
    assert Identity.from_text(text) == Identity(type_, data)


@pytest.mark.parametrize('text', [
    '', ' ', 'two words', 'tab\tted', 'line\n', 'nul\0', 'z\u00fcrich.ch', 'x' * 256, '@#xyz', '@#0',
    '=', 'CN=', '=gw', 'C=Switzerland', 'CN=a,', 'CN=a, b', 'user=x@example.org', 'CN=' + 'x' * 65,
    'CN=a+CN=a', 'NOSUCH=a', 'CN=\0', '1.2=x, gw', '@', '@@'])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match='identity|distinguished name') as caught:
        Identity.from_text(text)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize('text', [
    'C=CH, O=Example, CN=gw', 'O=Example\\, Inc., CN=gw', 'CN=a\\=b', 'CN=\\#hash', 'CN=a\\+b+O=c',
    'CN=a\\"b\\;c', 'DC=org, DC=example, UID=me', 'CN=gw, E=me@example.org', '1.2.3.4=value',
    'CN=Z\u00fcrich', 'O=one, O=two', 'CN=back\\\\slash', 'O=\\ spaces\\ , CN=a', 'CN=\\<a\\>',
    'O=ends with a backslash\\\\, CN=a'])
def test_a_distinguished_name_is_shown_as_it_is_written(text: str) -> None:
    identity = Identity.from_text(text)
    again = Identity.from_text(str(identity))
    assert again == identity and identity.matches(again)


attributes = st.tuples(st.sampled_from([CN, ORGANIZATION, '2.5.4.11', '1.2.3.4', '2.5.4.7']),
                       st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1,
                               max_size=20))


@settings(max_examples=300, deadline=None)
@given(given_=st.lists(attributes, min_size=1, max_size=4))
@example(given_=[(ORGANIZATION, 'x\\'), (CN, 'y')])
@example(given_=[(ORGANIZATION, ',  ,'), (CN, ' y ')])
@example(given_=[(CN, '\\,\\ ')])
def test_any_printable_distinguished_name_can_be_read_again(given_: list) -> None:
    identity = name(*given_, kind=UTF8)
    assert Identity.from_text(str(identity)).matches(identity)


def test_spaces_after_a_comma_are_free() -> None:
    for text in 'C=CH,O=Example,CN=gw', 'C=CH,   O=Example, CN=gw':
        assert Identity.from_text(text) == SAMPLE


def test_the_order_of_a_distinguished_name_is_that_of_its_octets() -> None:
    assert str(name((COUNTRY, 'CH'), (ORGANIZATION, 'Example'), (CN, 'gw'))) == str(SAMPLE)
    assert SAMPLE.data.index(b'CH') < SAMPLE.data.index(b'Example') < SAMPLE.data.index(b'gw')


# Which are the same

def test_string_types_do_not_matter() -> None:
    values = (ORGANIZATION, 'Example'), (CN, 'gw')
    forms = [name(*values, kind=kind) for kind in (UTF8, PRINTABLE, _ASN1Type.IA5String,
                                                   _ASN1Type.BMPString, TELETEX)]
    assert len({form.data for form in forms}) == 5
    for one in forms:
        for other in forms[:3]:
            assert one.matches(one)
            if one in forms[:3]: assert one.matches(other) and other.matches(one)


@pytest.mark.parametrize('other', [
    'O=Example, C=CH, CN=gw', 'CN=gw, O=Example, C=CH', 'C=CH, O=Example',
    'C=CH, O=Example, CN=g\\ w', 'C=CH, O=Example, CN=gw, CN=gw', 'C=CH, O=Example, OU=gw', 'CN=gw',
    'C=CH, O=Example, OU=x, CN=gw', 'C=CH, O=Example+CN=gw', 'C=CH, O=Exam ple, CN=gw',
    'O=Example, CN=gw', 'C=CH, O=Example, CN=*',
    'C=CH, O=Example, CN=gw+E=x'])
def test_other_attributes_or_another_order_are_another_name(other: str) -> None:
    stranger = Identity.from_text(other)
    assert not SAMPLE.matches(stranger) and not stranger.matches(SAMPLE)


def test_the_attributes_of_one_rdn_are_a_set() -> None:
    assert Identity.from_text('CN=a+O=b').matches(Identity.from_text('O=b+CN=a'))
    assert not Identity.from_text('CN=a+O=b').matches(Identity.from_text('CN=a, O=b'))


def test_other_types_with_the_same_octets_are_other_names() -> None:
    for data in (b'gw.example.org', bytes(4), bytes(16), SAMPLE.data, b''):
        for one in range(256):
            identity = Identity(IDType(one), data)
            assert [n for n in range(256) if identity.matches(Identity(IDType(n), data))] == [one]


@pytest.mark.parametrize('one, other', [
    (b'gw.example.org', b'gw.example.org.'),
    (b'gw.example.org', b'gw.example.org\0'), (b'gw.example.org', b'gw.example.or'),
    (b'gw.example.org', b'*.example.org'), (b'gw.example.org', b' gw.example.org'), (b'gw', b'')])
def test_host_names_are_compared_whole(one: bytes, other: bytes) -> None:
    for kind in IDType.FQDN, IDType.RFC822_ADDR, IDType.KEY_ID:
        assert not Identity(kind, one).matches(Identity(kind, other))
        assert not Identity(kind, other).matches(Identity(kind, one))


def test_broken_names_match_themselves_only() -> None:
    for data in (b'', b'0', b'0\x80\0\0', b'junk', SAMPLE.data + b'\0', SAMPLE.data[:-1]):
        broken = Identity(DN, data)
        assert broken.matches(Identity(DN, data))
        assert not broken.matches(SAMPLE) and not SAMPLE.matches(broken)


# Junk

def harmless(identity: Identity) -> None:
    for text in str(identity), repr(identity):
        assert len(text) <= 300 and (text.isprintable() or not text)
    identity.matches(SAMPLE)
    SAMPLE.matches(identity)
    assert identity.matches(identity)
    body = bytes(4) + identity.data
    IDi.parse(Reader(body))
    dissect(IDi.parse, bytes([identity.type]) + body[1:])


def test_a_name_with_a_bit_string_harms_nobody() -> None:
    harmless(bit_string_name())


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=200), kind=st.integers(0, 255).map(IDType))
@example(data=b'\xff' * 4, kind=IDType.IPV4_ADDR)
@example(data=b'x' * 60000, kind=IDType.FQDN)
@example(data=b'x' * 60000, kind=IDType.KEY_ID)
@example(data=b'evil\r\n\x1b[2J', kind=IDType.FQDN)
@example(data='evil\u202e'.encode(), kind=IDType.RFC822_ADDR)
def test_any_octets_as_a_name(data: bytes, kind: IDType) -> None:
    harmless(Identity(kind, data))


@settings(max_examples=500, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
       text=st.sampled_from(['C=CH, O=Example\\, Inc., CN=gw', 'CN=a+O=b, E=x@y', '2.5.4.45=abc']))
def test_any_changed_distinguished_name(changes: list, text: str) -> None:
    octets = bytearray(Identity.from_text(text).data)
    for at, value in changes: octets[at % len(octets)] = value
    harmless(Identity(DN, bytes(octets)))


@pytest.mark.parametrize('tag', range(256))
def test_any_type_of_string_in_a_distinguished_name(tag: int) -> None:
    at = SAMPLE.data.rindex(b'\x0c\x02gw')
    harmless(Identity(DN, SAMPLE.data[:at] + bytes([tag]) + SAMPLE.data[at + 1:]))


@pytest.mark.parametrize('value', [
    'x\n-> IKE_AUTH', 'x\r', '\x1b[31mred', '\u202egro.elpmaxe', '\u2028', '\x7f', '\ud7ff\ue000'])
def test_control_characters_are_not_shown(value: str) -> None:
    "Such a name is shown as hex: neither the terminal nor the reader is fooled."
    for identity in (name((CN, value), kind=UTF8), Identity(IDType.FQDN, value.encode()),
                     Identity(IDType.RFC822_ADDR, value.encode())):
        harmless(identity)
        assert bytes.fromhex(str(identity)) == identity.data[:64]


def test_a_zero_octet_is_never_shown() -> None:
    assert str(Identity(IDType.FQDN, b'x\0y')) == '780079'
    assert str(name((CN, 'x\0y'), kind=UTF8)) == 'CN=x\\00y'


def test_long_names_are_cut() -> None:
    long = name(*((ORGANIZATION, 'x' * 60) for _ in range(500)))
    assert len(str(long)) == 256 and len(str(Identity(IDType.FQDN, b'y' * 5000))) == 256
    assert len(str(Identity(IDType.KEY_ID, b'z' * 5000))) == 2 + 128


def test_an_address_of_the_wrong_length_is_not_shown_as_one() -> None:
    for kind, size in ((IDType.IPV4_ADDR, 16), (IDType.IPV6_ADDR, 4), (IDType.IPV4_ADDR, 5),
                       (IDType.IPV6_ADDR, 15), (IDType.IPV4_ADDR, 3)):
        assert str(Identity(kind, bytes(size))) == '00' * size, kind


# The payload

def test_the_body_is_kept_as_it_was_sent() -> None:
    "Reserved octets are signed too."
    body = bytes([IDType.FQDN]) + b'\1\2\3' + b'gw'
    parsed = IDi.parse(Reader(body))
    assert bytes(parsed) == body and parsed.identity == Identity.from_text('gw')


@pytest.mark.parametrize('size', range(4))
def test_a_payload_too_short_for_its_fields_is_refused(size: int) -> None:
    with pytest.raises(InvalidSyntax): IDi.parse(Reader(bytes(size)))
