"""An explainer is shown what was forged, what it has no algorithm for, and keys that do not fit:
nothing of it ends the story, is believed, or makes an honest end look wrong.
"""
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from authority import authority, issue, key
from canonical import public_key
from explaining import (
    GCM_ESP, PUBLIC, Recorded, every, flipped, kinds, numbered, plain, record, remarks, seen, story)
from ike_lit.capture.keylog import KeyTable, parse_keylog
from ike_lit.capture.observer import TrustAnchors, ObservedSA
from ike_lit.capture.pcap import Captured
from ike_lit.capture.show import Story
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.auth import AUTH, IDi, IDr, Identity, SharedKey
from ike_lit.wire.const import (
    AuthenticationType, Encryption, ExchangeType, Group, Integrity, MessageType, Prf, ProtocolID,
    TransformType, Type)
from ike_lit.wire.fragment import SKF
from ike_lit.wire.header import Header
from ike_lit.wire.ke import KE
from ike_lit.wire.keys import ike_keys, skeyseed
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.payload import GENERIC, Delete, Notify, Packet, Payload, Vendor, pack_chain
from ike_lit.wire.proposal import NO_ESN, NO_INTEG, SA, Proposal, Transform, parse_proposals
from ike_lit.wire.sk import directions
from ike_lit.wire.ts import TSi, TSr, TrafficSelector

T = TransformType
NI, NR = Nonce(b'\xa0' * 16), Nonce(b'\xe0' * 16)
TS = tuple(cls((TrafficSelector.from_text('10.0.0.0/8'),)) for cls in (TSi, TSr))


@pytest.fixture(scope='module')
def r() -> Recorded: return record(seed=51)


def esp(spi: bytes, words: str = GCM_ESP, number: int = 1) -> Proposal:
    return replace(parse_proposals(words, ProtocolID.ESP)[0], spi=spi, number=number)


def right(found: Story) -> int: return sum('AUTH is right' in text for text in every(found))


# One broken thing does not end the story

GCM_NAME, CBC_NAME = 'AES-GCM-128 with 16 octet ICV [RFC5282]', 'AES-CBC-128 [RFC3602]'
NONE, SHA, ANY = ('NONE [RFC4306]', 'HMAC_SHA2_256_128 [RFC4868]',
                  'ANY 96-bits of Authentication [No Checking]')
UNFIT = [(0, GCM_NAME, 0, NONE), (3, GCM_NAME, 0, NONE), (21, GCM_NAME, 0, NONE), (20, GCM_NAME, 0, ANY),
         (16, CBC_NAME, 0, NONE), (17, CBC_NAME, 32, SHA), (0, CBC_NAME, 0, ANY),
         (5, '3DES [RFC2451]', 0, ANY), (3, 'AES-CTR-128 [RFC5930]', 32, SHA), (20, GCM_NAME, 32, SHA),
         (16, CBC_NAME, 1, SHA),
         (3, 'AES-CCM-128 with 8 octet ICV [RFC5282]', 0, NONE), (8, 'CHACHA20_POLY1305', 0, NONE)]


@pytest.mark.parametrize('e, encr, a, integ', UNFIT)
@pytest.mark.parametrize('ike', ['aes128gcm16-prfsha256-x25519', 'aes128-sha256-x25519'])
def test_a_row_whose_keys_do_not_fit(e: int, encr: str, a: int, integ: str, ike: str) -> None:
    "Of another size than the cipher's, or algorithms that do not go together: another conversation is told."
    bad, good = record(ike, seed=52), record(seed=53, left=Endpoint('192.0.2.77', 500))
    sa = bad.sas[0]
    row = (f'{sa.spi_i.hex()},{sa.spi_r.hex()},{"e1" * e},{"e2" * e},"{encr}",{"a1" * a},{"a2" * a},'
           f'"{integ}"\n')
    try: table = parse_keylog(row + good.lines)
    except ValueError as error:
        assert str(error).startswith('line 1: ')
        return  # it may as well be refused, with its line
    found = story(numbered([*bad.seen, *good.seen]), table)
    assert len(found.told) == 8 and right(found) == 2
    for told in found.told[2:4]: assert not kinds(told)[1:] and told.remarks


@pytest.mark.parametrize('integ', [None, NO_INTEG, Transform(T.INTEG, Integrity.NONE, 5)], ids=str)
@pytest.mark.parametrize('encr', [
    Transform(T.ENCR, Encryption.AES_CBC, 128), Transform(T.ENCR, Encryption.AES_CTR, 256),
    Transform(T.ENCR, Encryption.NULL), Transform(T.ENCR, Encryption.CAMELLIA_CBC, 128)], ids=str)
def test_a_suite_that_can_not_be(encr: Transform, integ: Transform | None) -> None:
    "Chosen by somebody who seals without a checksum, while g^ir is in the key log."
    suite = SA((Proposal(1, ProtocolID.IKE, b'', tuple(filter(None, (
        encr, integ, Transform(T.PRF, Prf.PRF_HMAC_SHA2_256), Transform(T.DH, Group.CURVE_25519))))),))
    box = bytes(Header(b'i' * 8, b'r' * 8, Type.SK, ExchangeType.IKE_AUTH, False, True, 1, 28 + 4 + 64))
    found = story(seen(plain(suite, NI), plain(suite, NR, response=True, spi_r=b'r' * 8),
                       box + GENERIC.pack(35, 0, 68) + bytes(64)), KeyTable(secrets={NI.data: b'secret'}))
    assert found.told[2].remarks and not found.told[2].inside


CURVE, OTHER_CURVE = (bytes.fromhex(f'06082a8648ce3d0301{n}') for n in ('07', '7f'))


def test_a_certificate_with_a_key_of_an_unknown_kind(r: Recorded) -> None:
    "As those of tomorrow's algorithms: it is no key to check with."
    holder = issue('CN=a', key(5), authority('CN=ca', key(1)))
    assert CURVE in holder.der
    shown = replace(holder.payload, data=holder.der.replace(CURVE, OTHER_CURVE))
    data = r.sealed(IDi.of(Identity.from_text('a.example')), shown, AUTH(AuthenticationType(14), b'\1xx'),
                    exchange=ExchangeType.IKE_AUTH)
    told = story(r.then(data), r.lines, TrustAnchors()).told[-1]
    assert kinds(told) == [35, 37, 39] and not any('AUTH is right' in text for text in remarks(told))


def test_a_long_line_of_renewals() -> None:
    "An IKE SA that was replaced two thousand times still knows where it began."
    first = ike = ObservedSA(b'first---')
    for n in range(2000): ike = ObservedSA(n.to_bytes(8, 'big'), parent=ike)
    assert ike.root is first


# What was forged is not believed

def unsealed(r: Recorded, *payloads: object, response: bool = False, message_id: int = 1,
             exchange: ExchangeType = ExchangeType.IKE_AUTH) -> bytes:
    return plain(*payloads, exchange=exchange, spi_i=r.sas[0].spi_i, spi_r=r.sas[0].spi_r,
                 response=response, message_id=message_id)


def test_a_name_that_is_not_sealed_is_nobodys_name(r: Recorded) -> None:
    "RFC 7296 §2.21.4: what is not protected proves nothing; the outcome names who has proven it."
    mallory = Identity.from_text('mallory.example.org')
    forged = [unsealed(r, IDi.of(mallory)), unsealed(r, IDr.of(mallory), response=True)]
    for messages in ([*r.seen, *seen(*forged)], [*r.seen[:2], *seen(*forged), *r.seen[2:]],
                     [*r.seen[:2], *seen(*forged)]):
        found = story(numbered(messages), r.lines)
        assert 'mallory' not in ''.join(found.observer.sas[0].names.values())


def test_a_child_sa_that_is_not_sealed_is_none(r: Recorded) -> None:
    exchange = ExchangeType.CREATE_CHILD_SA
    forged = [unsealed(r, SA((esp(b'evil'),)), n, *TS, exchange=exchange, response=n is NR, message_id=9)
              for n in (NI, NR)]
    found = story(r.then(*forged), r.lines)
    assert len(found.observer.sas[0].children) == 1
    assert not any('ESP keys computed' in text for told in found.told[4:] for text in remarks(told))


@pytest.mark.parametrize('junk', ['not sealed', 'does not open'])
def test_junk_does_not_stand_for_a_request(junk: str, r: Recorded) -> None:
    "Between a request and its response somebody sends another with its Message ID."
    data = unsealed(r, Vendor(b'x')) if junk == 'not sealed' else flipped(r.seen[2].data, -1)
    found = story(numbered([*r.seen[:3], *seen(data), r.seen[3]]), r.lines)
    assert found.told[4].request is found.told[2] and len(found.observer.sas[0].children) == 1


@pytest.mark.parametrize('after', [2, 3, 4])
def test_a_second_answer_does_not_take_the_keys_away(after: int, r: Recorded) -> None:
    "A forged IKE_SA_INIT response with the same SPIs: what was opened before it is opened after it."
    suite = parse_proposals('aes256gcm16-prfsha384-ecp256', ProtocolID.IKE)[0]
    forged = plain(SA((suite,)), KE(Group.ECP_256, bytes(64)), NR, response=True, spi_i=r.sas[0].spi_i,
                   spi_r=r.sas[0].spi_r)
    found = story(numbered([*r.seen[:after], *seen(forged), *r.seen[after:]]), r.lines)
    ours = [t for t in found.told if t.seen.data != forged]
    assert [kinds(t) for t in ours] == [kinds(t) for t in story(r.seen, r.lines).told]
    assert right(found) == 2


def test_a_first_request_from_somewhere_else_is_not_the_one_that_was_signed(r: Recorded) -> None:
    "With the SPI of Alice's: the response goes to her address, not to theirs."
    forged = plain(SA(parse_proposals('aes128gcm16-prfsha256-x25519', ProtocolID.IKE)), NI,
                   spi_i=r.sas[0].spi_i)
    stranger = Captured(0, 0.0, Endpoint('203.0.113.9', 500), BOB, forged)
    assert right(story(numbered([r.seen[0], stranger, *r.seen[1:]]), r.lines)) == 2


def test_what_was_opened_without_a_check_is_said_to_be_so() -> None:
    "By a row without keys for checksums: one flipped bit of the checksum, and nobody would know."
    r = record('aes128-aescmac-prfsha256-x25519', seed=54)
    bad = r.seen[2]._replace(data=flipped(r.seen[2].data, -1))
    told = story([*r.seen[:2], bad], r.rows).told[2]
    assert told.inside and any('check' in text and 'AUTH' not in text for text in remarks(told))
    assert not any('check' in t and 'AUTH' not in t for t in every(story(r.seen, r.lines)))


# What is told is so

def test_what_is_sent_again_is_shown_as_what_it_is_a_copy_of(r: Recorded) -> None:
    "Sealed payloads in braces, in the ladder and in JSON."
    found = story(numbered([*r.seen, *r.seen[2:]]), r.lines)
    lines = [line.partition('IKE_AUTH')[2] for line in found.lines() if ' s  ' in line]
    assert lines[4:] == lines[2:4] and all('{ID' in line for line in lines[2:])
    assert [t.sealed for t in found.told[4:]] == [True, True]


def test_the_spi_of_a_child_sa_is_that_of_the_chosen_proposal(r: Recorded) -> None:
    "RFC 7296 §3.3.1: each proposal has an SPI of its own."
    offer = SA((esp(b'one-', 'aes256gcm16'), esp(b'two-', number=2)))
    messages = [r.sealed(offer, NI, *TS), r.sealed(SA((esp(b'resp', number=2),)), NR, *TS, response=True)]
    child = story(r.then(*messages), r.lines).observer.sas[0].children[-1]
    assert (child.spi_i, child.spi_r) == (b'two-', b'resp')


def test_the_spi_of_a_new_ike_sa_is_that_of_the_chosen_proposal(r: Recorded) -> None:
    words = ('aes256gcm16-prfsha256-x25519', 'aes128gcm16-prfsha256-x25519')
    offer = [replace(parse_proposals(w, ProtocolID.IKE)[0], number=n, spi=bytes([n]) * 8)
             for n, w in enumerate(words, 1)]
    value = KE(Group.CURVE_25519, bytes(32))
    messages = [r.sealed(SA(tuple(offer)), NI, value),
                r.sealed(SA((replace(offer[1], spi=b'r' * 8),)), NR, value, response=True)]
    heir = story(r.then(*messages), r.lines).observer.sas[-1]
    assert (heir.spi_i, heir.spi_r) == (bytes([2]) * 8, b'r' * 8)


SHA256 = Transform(T.INTEG, Integrity.HMAC_SHA2_256_128)
HONEST = {  # that we have no keys for
    'ESP without encryption (RFC 2410)': (ProtocolID.ESP, Transform(T.ENCR, Encryption.NULL)),
    'Camellia in counter mode (RFC 5529)': (ProtocolID.ESP, Transform(T.ENCR, Encryption.CAMELLIA_CTR, 128)),
    'a cipher of tomorrow': (ProtocolID.ESP, Transform(T.ENCR, Encryption(999))),
    'AH (RFC 4302)': (ProtocolID.AH,)}


@pytest.mark.parametrize('what', HONEST)
def test_what_we_can_not_compute_is_nobodys_fault(what: str, r: Recorded) -> None:
    "wrong is what an end had to refuse; these ends agree."
    protocol, *encr = HONEST[what]
    transforms = (*encr, SHA256, NO_ESN.transform)
    messages = [r.sealed(SA((Proposal(1, protocol, spi, transforms),)), n, *TS, response=n is NR)
                for spi, n in ((b'aaaa', NI), (b'bbbb', NR))]
    found = story(r.then(*messages), r.lines)
    assert not every(found, 'wrong') and found.observer.sas[0].children[-1].keys is None


@pytest.mark.parametrize('method', [12, 13, 200])
def test_a_proof_of_a_kind_that_we_do_not_know_is_not_wrong(method: int, r: Recorded) -> None:
    "A secure password (RFC 6467), the NULL method (RFC 7619) and one of tomorrow are no signatures."
    data = r.sealed(IDi.of(Identity.from_text('a.example')), AUTH(AuthenticationType(method), b'proof' * 7),
                    exchange=ExchangeType.IKE_AUTH)
    for believed in (TrustAnchors((public_key(PUBLIC[0]),)), TrustAnchors(shared=SharedKey(b'x')),
                     TrustAnchors()):
        told = story(r.then(data), r.lines, believed).told[-1]
        assert not remarks(told, 'wrong') and not any('signature' in text for text in remarks(told))


def by_hand(*transforms: Transform, notify: tuple[Notify, ...] = ()) -> tuple[list[bytes], Callable]:
    "IKE_SA_INIT of an IKE SA whose g^ir is known, and what seals its messages."
    suite = parse_proposals('aes128gcm16-prfsha256-x25519', ProtocolID.IKE)[0]
    suite = replace(suite, transforms=(*suite.transforms, *transforms))
    spis = b'i' * 8, b'r' * 8
    seed = skeyseed(Prf.PRF_HMAC_SHA2_256, NI.data, NR.data, b'secret')
    locks = directions(suite, ike_keys(suite, seed, NI.data, NR.data, *spis))
    init = [plain(SA((suite,)), NI, *notify), plain(SA((suite,)), NR, *notify, response=True, spi_r=spis[1])]

    def sealed(*payloads: Payload, response: bool, exchange: int = 35, message_id: int = 1) -> bytes:
        return locks[response].seal(Packet(ExchangeType(exchange), payloads), *spis, response=response,
                                    initiator=not response, message_id=message_id, random=bytes)
    return init, sealed


def auth_of(ends: str) -> tuple[tuple[Payload, ...], tuple[Payload, ...]]:
    "Both IKE_AUTH messages, with a proof that takes more than g^ir and a shared key."
    proof = AUTH(AuthenticationType.SHARED_KEY, b'proof' * 6 + b'xx')
    me, you = (Identity.from_text(f'{name}.{ends}') for name in 'ab')
    return (IDi.of(me), proof, SA((esp(b'aaaa'),)), *TS), (IDr.of(you), proof, SA((esp(b'bbbb'),)), *TS)


KNOWN = TrustAnchors(shared=SharedKey(b'known')), KeyTable(secrets={NI.data: b'secret'})


def test_keys_that_a_third_secret_goes_into() -> None:
    "RFC 8784: with a PPK, SK_d and SK_p are others; g^ir is not enough for the proofs, nor for ESP."
    use, which = (Notify(MessageType(n), b'name' * (n == 16436)) for n in (16435, 16436))
    init, sealed = by_hand(notify=(use,))
    asked, got = auth_of('example')
    messages = [*init, sealed(*asked, which, response=False), sealed(*got, which, response=True)]
    found = story(seen(*messages), KNOWN[1], KNOWN[0])
    assert found.told[3].inside and not every(found, 'wrong')
    assert not any('ESP keys computed' in text for text in every(found))


def test_keys_that_another_exchange_goes_into() -> None:
    "RFC 9242, RFC 9370: after IKE_INTERMEDIATE keys are others, and AUTH covers more."
    more = Transform(TransformType(6), Group(36))  # ML-KEM-768
    init, sealed = by_hand(more)
    between = [sealed(KE(Group(36), bytes(99)), response=answer, exchange=43) for answer in (False, True)]
    after = [flipped(sealed(*part, response=n == 1, message_id=2), 60)
             for n, part in enumerate(auth_of('example'))]
    found = story(seen(*init, *between, *after), KNOWN[1], KNOWN[0])
    assert found.told[3].inside and not every(found, 'wrong')


def test_a_key_of_one_end_does_not_make_the_other_wrong(r: Recorded) -> None:
    "Who gives --peer-key for one of two ends has no key of the other."
    for path in PUBLIC:
        found = story(r.seen, r.lines, TrustAnchors((public_key(path),)))
        assert right(found) == 1 and not every(found, 'wrong')


def test_a_proof_after_eap_lacks_no_key(r: Recorded) -> None:
    "RFC 7296 §2.16: AUTH comes later than the name; the reason that is given must be so."
    data = r.sealed(AUTH(AuthenticationType.SHARED_KEY, bytes(32)), exchange=ExchangeType.IKE_AUTH,
                    message_id=5)
    told = story(r.then(data), r.lines).told[-1]
    assert not any('IKE_SA_INIT messages, and g^ir' in text for text in remarks(told))


@pytest.mark.parametrize('field, value', [
    (5, 'ab' * 32), (6, 'ab' * 32), (4, '"CAMELLIA_CBC_128"')])  # SK_ai, SK_ar, the cipher
def test_rows_are_the_same_only_if_all_of_them_is(field: int, value: str) -> None:
    r = record('aes128-sha256-x25519', seed=55)
    fields = r.rows.strip().split(',')
    fields[field] = value
    texts = every(story(r.seen, r.lines + ','.join(fields)))
    assert 'the keys in the row of the key log are the same' not in texts
    assert 'the row of the key log has other keys' in texts


def test_of_two_keys_the_one_that_opens_is_used(r: Recorded) -> None:
    "The log contradicts itself: that is wrong, and what can be read is read."
    spoilt = KeyTable(parse_keylog(r.rows).rows, {ni: flipped(secret, 3) for ni, secret in r.secrets.items()})
    found = story(r.seen, spoilt)
    assert [kinds(t) for t in found.told] == [kinds(t) for t in story(r.seen, r.lines).told]
    assert every(found, 'wrong') == ['the row of the key log has other keys'] and not right(found)


def test_fragments_of_a_smaller_size_begin_afresh(r: Recorded) -> None:
    "RFC 7383 §2.5.2, §2.6: with a larger total, what is left of the former ones is forgotten."
    first, octets = pack_chain((Delete(ProtocolID.ESP, (b'one-', b'two-', b'tri-')),))
    sa, lock = r.sas[0], r.locks[0][0]

    def piece(number: int, total: int, content: bytes) -> bytes:
        header = partial(Header, sa.spi_i, sa.spi_r, Type.SKF, ExchangeType.INFORMATIONAL, False, True, 9)
        return lock.protect(header, first if number == 1 else Type.NONE, content, bytes,
                            SKF.pack(number, total))
    old = piece(1, 2, octets[:15])
    new = [piece(n, 3, octets[at:at + 8]) for n, at in ((1, 0), (2, 8), (3, 16))]
    found = story(r.then(old, new[1], new[2], new[0]), r.lines)
    assert not every(found, 'wrong') and kinds(found.told[-1]) == [42]
    lost = story(r.then(old, new[1], new[2]), r.lines)
    assert not every(lost, 'wrong')


def test_esp_packets_of_two_ends_with_the_same_spi() -> None:
    "An SPI is its receiver's: the same may be chosen by the other end, and by a stranger."
    r = record(seed=56)
    spi = r.alice.established[0].child.inbound.spi
    messages = [r.sealed(SA((esp(spi),)), NI, *TS), r.sealed(SA((esp(spi),)), NR, *TS, response=True)]
    found = story(r.then(*messages), r.lines)
    found.observer.sas[0].children.pop(0)
    esp_seen = Counter({(ALICE.host, BOB.host, spi): 3, (BOB.host, ALICE.host, spi): 2,
                        ('1.1.1.1', '2.2.2.2', spi): 9})
    found.capture = replace(found.capture, esp=esp_seen)
    counts = [line.split()[-4] for line in found.lines() if 'ESP packets seen' in line]
    assert sorted(counts) == ['2', '3']


@pytest.mark.parametrize('number', [3, 4])
def test_checksums_that_rfc_8247_forbids(number: int) -> None:
    "§2.3: AUTH_DES_MAC and AUTH_KPDK_MD5, MUST NOT."
    suite = parse_proposals('aes128-sha256-prfsha256-modp2048', ProtocolID.IKE)[0]
    old = replace(suite, transforms=(*suite.transforms, Transform(T.INTEG, Integrity(number))))
    ke = KE(Group.MODP_2048, bytes(256))
    assert len(remarks(story(seen(plain(SA((old,)), ke, NI))).told[0], 'odd')) == 1


def test_zeros_in_an_spi_are_no_marker() -> None:
    "The header's length is that of the datagram: what is wrong is the SPI (RFC 7296 §3.1)."
    told = story(seen(plain(Vendor(b'x'), spi_i=bytes(8)))).told[0]
    assert 'SPI is zero' in remarks(told, 'wrong')[0]


def test_a_child_sa_with_many_selectors_has_short_lines(r: Recorded) -> None:
    many = [cls(tuple(TrafficSelector.from_text(f'2001:db8:{n:x}::1-2001:db8:{n:x}::7777[udp/{n + 1}]')
                      for n in range(255))) for cls in (TSi, TSr)]
    messages = [r.sealed(SA((esp(spi),)), n, *many, response=n is NR)
                for spi, n in ((b'aaaa', NI), (b'bbbb', NR))]
    assert max(map(len, story(r.then(*messages), r.lines).lines())) <= 1000
