"""Names that are the same although their octets differ, wherever names are compared: RFC 5280 §7."""
import pytest
from authority import authority, dn_of, issue, key, names, trusting
from canonical import configs, two_ends
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from dataclasses import replace
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.ike_sa import find_config
from ike_lit.engine.state import State
from ike_lit.testing.network import handshake
from ike_lit.wire.auth import IDi, IDr, Identity, comparable, folded, rdns
from ike_lit.wire.configuration import CP, Attribute, Pool
from ike_lit.wire.const import AuthenticationFailed, CfgAttribute, CfgType, IDType
from test_certificate import MIDDLE, ROOT, believed, constrained, refused, sent
from test_certificate_payload import revocations

DN = IDType.DER_ASN1_DN
ALIKE = [
    ('gw.example.org', 'GW.Example.ORG'), ('me@example.org', 'me@EXAMPLE.org'),
    ('a@b@example.org', 'a@b@Example.org'),
    ('C=CH, O=Example, CN=gw', 'C=ch, O=EXAMPLE, CN=Gw'), ('DC=org, DC=example', 'DC=ORG, DC=Example'),
    ('CN=gw, E=me@example.org', 'CN=gw, E=ME@Example.org'), ('O=Two Words', 'O=two   words'),
    ('O=\\ Example\\ ', 'O=Example'), ('CN=Z\u00fcrich', 'CN=Z\u00dcRICH'),
    ('CN=Z\u00fcrich', 'CN=Zu\u0308rich'),
    ('CN=stra\u00dfe', 'CN=STRASSE'), ('CN=\uff27\uff37', 'CN=gw'), ('CN=a+O=b', 'O=B+CN=A')]
DIFFERENT = [
    ('gw.example.org', 'gw.example.com'), ('gw.example.org', 'gw.example.org.'),
    ('Me@example.org', 'me@example.org'),
    ('A@b@example.org', 'a@b@example.org'), ('@#4757', '@#6777'), ('gw', 'CN=gw'), ('CN=gw', 'O=gw'),
    ('O=Exam ple', 'O=Example'), ('CN=gw', 'CN=\u200bgw'), ('CN=\u200bGW', 'CN=\u200bgw'),
    ('CN=gw', 'CN=g\u0432'),
    ('C=CH, CN=gw', 'CN=gw, C=CH'), ('CN=a, O=b', 'CN=a+O=b'), ('CN=a', 'CN=a, CN=a'), ('CN=i', 'CN=\u0131')]


def of(*texts: str) -> list[Identity]: return list(map(Identity.from_text, texts))


@pytest.mark.parametrize('texts', ALIKE, ids=' is '.join)
def test_names_that_are_the_same(texts: tuple[str, str]) -> None:
    "Also as keys of a dictionary, which is how leases and connections are found."
    one, other = of(*texts)
    assert one.data != other.data or '\\ ' in texts[0]
    assert one == other and one.matches(other) and hash(one) == hash(other)
    assert {one: 1}[other] == 1 and {(one, 4): 1}[other, 4] == 1 and {other, one} == {one}
    assert bytes(one.data) != bytes(other.data)  # each keeps its own octets


@pytest.mark.parametrize('texts', DIFFERENT, ids=' is not '.join)
def test_names_that_are_not_the_same(texts: tuple[str, str]) -> None:
    one, other = of(*texts)
    assert one != other and not one.matches(other) and {one, other} == {other, one} and len({one, other}) == 2
    assert one != texts[0]  # a text is no identity


def test_only_letters_of_ascii_lose_their_case_in_host_names() -> None:
    for octet in range(256):
        for kind in IDType.FQDN, IDType.KEY_ID, IDType.IPV4_ADDR, IDType(200):
            one, other = Identity(kind, bytes([octet])), Identity(kind, bytes([octet ^ 0x20]))
            assert (one == other) == (kind == IDType.FQDN and chr(octet).isascii() and chr(octet).isalpha())
    assert Identity(IDType.RFC822_ADDR, b'Nobody') != Identity(IDType.RFC822_ADDR, b'nobody')  # no host


def test_the_string_type_does_not_count_and_a_bit_string_is_no_text() -> None:
    def made(kind: _ASN1Type, value: str) -> Identity:
        attribute = x509.NameAttribute(x509.ObjectIdentifier('2.5.4.3'), value, kind, _validate=False)
        return Identity(DN, x509.Name([attribute]).public_bytes())
    kinds = [made(kind, value) for kind in (_ASN1Type.UTF8String, _ASN1Type.PrintableString,
                                            _ASN1Type.IA5String) for value in ('Gw', 'gW')]
    assert len({i.data for i in kinds}) == 6 and len(set(kinds)) == 1
    bits = Identity(DN, Identity.from_text('CN=alice').data.replace(b'\x0c\x05', b'\x03\x05'))
    assert bits not in of('CN=alice', 'CN=616c696365') and bits == Identity(DN, bits.data)


def test_what_is_no_distinguished_name_is_compared_by_its_octets() -> None:
    for data in (b'', b'0', b'CN=GW', b'0\x80\0\0'):
        assert Identity(DN, data) == Identity(DN, data)
        assert Identity(DN, data) != Identity(DN, data + b'x') and comparable(DN, data) == data
    assert Identity(DN, b'CN=GW') != Identity(DN, b'cn=gw')


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_folding_is_stable_and_leaves_alone_what_can_not_be_printed(one: str, other: str) -> None:
    for text in one, other:
        assert folded(folded(text)) == folded(text)
        if not text.isprintable(): assert folded(text) == text
    if folded(one) == folded(other) and one.isascii() and other.isascii():
        assert one.lower().split() == other.lower().split()


# Where they are compared

@pytest.mark.parametrize('asked, held', [
    ('ALICE.example.org', ['alice.Example.org']), ('me@EXAMPLE.org', ['me@example.ORG']),
    ('O=EXAMPLE, CN=alice', ['O=Example, CN=Alice'])])
def test_a_certificate_is_for_all_spellings_of_its_names(asked: str, held: list[str]) -> None:
    made = issue('CN=x', key(3), MIDDLE, names(*held))
    assert believed(sent(made, MIDDLE), identity=Identity.from_text(asked))
    made = issue('O=Example,  CN=Alice  B', key(3), MIDDLE)
    assert believed(sent(made, MIDDLE), identity=Identity.from_text('O=example, CN=alice b'))
    refused(sent(made, MIDDLE), 'is not for', identity=Identity.from_text('O=example, CN=aliceb'))


@pytest.mark.parametrize('subject, limit', [
    ('O=EVIL, CN=x', 'O=Evil'), ('O=Evil  Corp, CN=x', 'O=evil corp'),
    ('C=ch, O=evil, CN=x', 'C=CH, O=EVIL')])
def test_a_limit_on_names_is_not_evaded_by_spelling(subject: str, limit: str) -> None:
    for excluded in True, False:
        limits = constrained(x509.DirectoryName(dn_of(limit)), excluded=excluded)
        middle = authority('CN=middle', key(2), ROOT, limits)
        made = issue(subject, key(3), middle)
        if excluded: refused(sent(made, middle), 'name constraints', identity=Identity.from_text(subject))
        else: assert believed(sent(made, middle), identity=Identity.from_text(subject))


def test_a_list_of_revoked_certificates_counts_however_its_issuer_is_spelled() -> None:
    made = issue('CN=alice', key(3), MIDDLE, names('alice.example.org'), serial=1234)
    spelled = authority('CN=MIDDLE', key(2), ROOT)
    crl = revocations(spelled, 1234)
    assert crl.issuer != made.certificate.issuer and rdns(crl.issuer) == rdns(made.certificate.issuer)
    assert believed(sent(made, MIDDLE), trusting(ROOT, crls=(revocations(spelled, 1235),)))
    refused(sent(made, MIDDLE), 'was revoked', trusting(ROOT, crls=(crl,)))


def test_a_peer_is_found_and_believed_however_it_spells_its_name() -> None:
    left, right = configs()
    spelled = replace(left, local_id=Identity.from_text(str(left.local_id).upper()),
                      remote_id=Identity.from_text(str(left.remote_id).title()))
    assert (spelled.local_id.data, spelled.remote_id.data) != (left.local_id.data, left.remote_id.data)
    alice, bob = handshake(*two_ends(RESPONDERS, spelled, right))
    assert alice.state == bob.state == State.ESTABLISHED and bob.child
    assert bob.config.remote_id == spelled.local_id
    with pytest.raises(AuthenticationFailed):
        find_config(bob, IDi.of(left.local_id), [IDr.of(Identity.from_text('somebody.else'))])


def test_a_pool_lends_one_address_to_all_spellings_of_an_owner() -> None:
    pool = Pool(['10.3.0.0/24'])
    asks = CP(CfgType.CFG_REQUEST, (Attribute(CfgAttribute.INTERNAL_IP4_ADDRESS),))
    one, other = of('C=CH, CN=Alice', 'C=ch, CN=ALICE')
    assert pool.answer(asks, one) == pool.answer(asks, other) and len(pool.leases) == 1
    pool.release(other)
    assert not pool.leases
