"Words that people type, and what two ends make of each other's offers, with AEADs among them."
from dataclasses import replace

import pytest
from canonical import configs, two_ends
from hypothesis import given, settings
from hypothesis import strategies as st
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.engine.model import Dropped
from ike_lit.engine.protocol import IKE as Sa
from ike_lit.engine.state import State
from ike_lit.testing.network import ALICE, BOB, deliver, events, family, talk
from ike_lit.wire.const import (
    Encryption, Esn, ExchangeType, Group, Integrity, InvalidSyntax, MessageType, NoProposalChosen,
    OtherTransform, Prf, ProtocolID, TransformType)
from ike_lit.wire.header import Reader
from ike_lit.wire.payload import Packet, Payload
from ike_lit.wire.proposal import (
    ALGORITHMS, ALIASES, DEFAULT_ESP, DEFAULT_IKE, NOT_UNDERSTOOD, NO_INTEG, SA, Proposal, Transform,
    additional, check_choice, choose, common, groups, parse_proposals)

IKE, ESP = ProtocolID.IKE, ProtocolID.ESP
ENCR, PRF, INTEG, DH = (TransformType(n) for n in (1, 2, 3, 4))
WEAK = ['3des', 'sha1', 'sha', 'prfsha1', 'modp1024', 'modp1536', 'SHA1', 'MODP1024']


# Words

@pytest.mark.parametrize('alias, keyword', [
    ('aes', 'aes128'), ('camellia', 'camellia128'), ('sha2_256', 'sha256'),
    ('sha2_384', 'sha384'), ('sha2_512', 'sha512'), ('curve25519', 'x25519'),
    ('curve448', 'x448'), ('aes256gcm', 'aes256gcm16'), ('aes192gcm', 'aes192gcm16'),
    ('aes128gcm', 'aes128gcm16'), ('aes256gcm128', 'aes256gcm16'), ('aes128gcm96', 'aes128gcm12'),
    ('aes256gcm64', 'aes256gcm8'), ('aes128ccm', 'aes128ccm16'), ('aes192ccm128', 'aes192ccm16'),
    ('aes256ccm96', 'aes256ccm12'), ('aes128ccm64', 'aes128ccm8'), ('AES256GCM', 'aes256gcm16'),
    ('Curve25519', 'x25519')])
def test_aliases_that_strongswan_has_too(alias: str, keyword: str) -> None:
    around = 'chacha20poly1305-{}' if 'cm' in keyword else 'aes256-sha512-{}'
    assert (parse_proposals(around.format(alias), ESP)
            == parse_proposals(around.format(keyword), ESP))
    assert ALGORITHMS[keyword].transform in parse_proposals(around.format(alias), ESP)[0].transforms


def test_every_alias_stands_for_a_word() -> None:
    assert set(ALIASES.values()) <= set(ALGORITHMS) and not set(ALIASES) & set(ALGORITHMS)
    assert {alias for alias, word in ALIASES.items() if ALGORITHMS[word].weak} == {'sha', 'dh2', 'dh5'}


@pytest.mark.parametrize('typo, meant', [
    ('aes265', 'aes256'), ('aes2566', 'aes256'), ('ase256', 'aes256'),
    ('camelia256', 'camellia256'), ('camellia265', 'camellia256'),
    ('sha265', 'sha256'), ('sha25', 'sha256'), ('sha383', 'sha384'),
    ('sha521', 'sha512'), ('modp2084', 'modp2048'), ('modp204', 'modp2048'),
    ('mopd3072', 'modp3072'), ('ecp265', 'ecp256'), ('ecp256b', 'ecp256bp'), ('x25518', 'x25519'),
    ('curve2519', 'curve25519'), ('chacha20poly1304', 'chacha20poly1305'),
    ('chacha20', 'chacha20poly1305'), ('aes256gmc16', 'aes256gcm16'), ('prfsha265', 'prfsha256'),
    ('aescmca', 'aescmac'), ('aesxcb', 'aesxcbc'), ('aes128cntr', 'aes128ctr'), ('x449', 'x448')])
def test_a_mistake_is_named_with_the_nearest_word(typo: str, meant: str) -> None:
    for protocol in IKE, ESP:
        for line in f'aes256-sha256-{typo}', f'{typo}-aes256', typo:
            with pytest.raises(ValueError) as raised: parse_proposals(line, protocol)
            assert str(raised.value) == (
                f"{typo!r} in {line!r} is no algorithm that I know; did you mean {meant!r}?")


@pytest.mark.parametrize('typo', [
    'md5', 'des', 'sha3', 'sha11', 'sha1_96', '3des1', 'modp1025', 'modp1526', 'prfsha11',
    'modp1024s', 'dh140'])
def test_no_word_is_suggested_that_would_be_refused(typo: str) -> None:
    with pytest.raises(ValueError, match=f'{typo}.* is no algorithm that I know') as raised:
        parse_proposals(f'aes256-sha256-{typo}', ESP)
    _, _, hint = str(raised.value).partition('did you mean ')
    word = hint.strip("'?")
    assert not word or not ALGORITHMS[ALIASES.get(word, word)].weak, str(raised.value)


@pytest.mark.parametrize('line, protocol, why', [
    ('aes256gcm16-aes256-sha256', ESP, 'aes256gcm16 and aes256 need proposals of their own; '
                                       'put a comma between them'),
    ('aes256-aes256gcm16-sha256', ESP, 'aes256gcm16 and aes256 need proposals of their own'),
    ('aes128ctr-chacha20poly1305-sha256-x25519', IKE,
     'chacha20poly1305 and aes128ctr need proposals of their own'),
    ('camellia256-aes128ccm8', ESP, 'aes128ccm8 and camellia256 need proposals of their own'),
    ('aes256gcm16-sha256', ESP, 'aes256gcm16 protects integrity itself; leave out sha256'),
    ('sha512-chacha20poly1305', ESP,
     'chacha20poly1305 protects integrity itself; leave out sha512'),
    ('aes256gcm16-sha256-prfsha256-x25519', IKE, 'protects integrity itself; leave out sha256'),
    ('aes256gcm16-x25519', IKE,
     'has no PRF algorithm, which IKE needs; name one, such as prfsha256'),
    ('chacha20poly1305-modp2048', IKE, 'no PRF algorithm, which IKE needs; name one'),
    ('aes256-prfsha256-x25519', IKE, 'has no INTEG algorithm, which IKE needs$'),
    ('aes256gcm16-prfsha256', IKE, 'has no DH algorithm, which IKE needs$'),
    ('sha256-x25519', IKE, 'has no ENCR algorithm, which IKE needs$'),
    ('prfsha256-aes256gcm16', ESP, 'prfsha256 has no place in an ESP proposal'),
    ('aes256gcm16-prfsha256-x25519-noesn', IKE, 'noesn has no place in an IKE proposal'),
    ('aes256ctr', ESP, 'has no INTEG algorithm, which ESP needs$')])
def test_lines_that_do_not_fit_together(line: str, protocol: ProtocolID, why: str) -> None:
    good = {IKE: 'chacha20poly1305-prfsha256-x448', ESP: 'aes128gcm'}[protocol]
    for text in line, f'{good},{line}':
        with pytest.raises(ValueError, match=why): parse_proposals(text, protocol)


@pytest.mark.parametrize('line, printed', [
    ('aes256gcm16-sha384-x25519', 'AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519'),
    ('aes128ccm8-aesxcbc-aescmac-ecp256', 'AES_CCM_8_128/PRF_AES128_XCBC/PRF_AES128_CMAC/ECP_256'),
    ('x448-prfsha512-chacha20poly1305', 'CHACHA20_POLY1305/PRF_HMAC_SHA2_512/CURVE_448'),
    ('aes128-sha256-prfaescmac-x448',
     'AES_CBC_128/HMAC_SHA2_256_128/PRF_AES128_CMAC/CURVE_448'),
    ('aes128ctr-sha512-sha256-modp3072', 'AES_CTR_128/HMAC_SHA2_512_256/HMAC_SHA2_256_128/'
                                         'PRF_HMAC_SHA2_512/PRF_HMAC_SHA2_256/MODP_3072')])
def test_beside_an_aead_a_hash_means_the_prf(line: str, printed: str) -> None:
    proposal, = parse_proposals(line, IKE)
    assert str(proposal) == f'IKE:{printed}'


@pytest.mark.parametrize('word', WEAK)
@pytest.mark.parametrize('protocol, line', [(IKE, DEFAULT_IKE), (ESP, DEFAULT_ESP)])
def test_weak_words_are_refused_in_any_place(word: str, protocol: ProtocolID, line: str) -> None:
    _, first, second = (text.split('-') for text in line.split(','))
    for at in range(len(first) + 1):
        with pytest.raises(ValueError, match=f'{word.lower()!r} in .* is too weak to be used'):
            parse_proposals('-'.join([*first[:at], word, *first[at:]]), protocol)
    for at in range(len(second) + 1):
        text = '-'.join(first) + ',' + '-'.join([*second[:at], word, *second[at:]])
        with pytest.raises(ValueError, match=f'{word.lower()!r} in .* is too weak to be used'):
            parse_proposals(text, protocol)
    with pytest.raises(ValueError): parse_proposals(word, protocol)


@pytest.mark.parametrize('word', [
    'md5', 'des', 'null', 'modp768', 'esn', 'ecp192', 'prfmd5', 'aes64', 'modp2048s256',
    'camellia256ctr', 'aes256gcm4', 'chacha20poly1305compat'])
def test_what_we_do_not_have_is_no_word(word: str) -> None:
    with pytest.raises(ValueError, match='is no algorithm that I know'): parse_proposals(word, ESP)


def test_the_defaults_are_strong_and_have_their_aeads_apart() -> None:
    for line, protocol in (DEFAULT_IKE, IKE), (DEFAULT_ESP, ESP):
        hybrid, aeads, classic = parse_proposals(line, protocol)
        for p in hybrid, aeads: assert all(t.aead for t in p.of_type(ENCR)) and not p.of_type(INTEG)
        assert not any(t.aead for t in classic.transforms) and classic.of_type(INTEG)
        assert (hybrid.number, aeads.number, classic.number) == (1, 2, 3)
        assert additional(hybrid) == (Group.ML_KEM_768,) and not additional(aeads) + additional(classic)
        assert groups([hybrid]) == groups([aeads])[:1]  # so that who takes the second costs no round trip


# Offers and answers (RFC 7296 §2.7, §3.3, §3.3.6; RFC 5282 §8)

T = {word: row.transform for word, row in ALGORITHMS.items()}
GCM, CBC, CHACHA = T['aes256gcm16'], T['aes256'], T['chacha20poly1305']
SHA, HMAC, X25519 = T['prfsha256'], T['sha256'], T['x25519']
REST = SHA, X25519
OURS = parse_proposals('aes256gcm16-chacha20poly1305-prfsha256-x25519,aes256-sha256-x25519', IKE)
ALSO = Transform(TransformType(9), OtherTransform(1))
ODD = {  # transforms that nobody should choose
    'without its key length': Transform(ENCR, Encryption.AES_GCM_16),
    'of another key length': Transform(ENCR, Encryption.AES_GCM_16, 512),
    'chacha with a key length': Transform(ENCR, Encryption.CHACHA20_POLY1305, 256),
    'with an attribute nobody knows': replace(GCM, key_length=NOT_UNDERSTOOD),
    'chacha with such an attribute': replace(CHACHA, key_length=NOT_UNDERSTOOD),
    'of another checksum': T['aes256gcm8'], 'ccm': T['aes256ccm16'], 'triple des': T['3des'],
    'null': Transform(ENCR, Encryption.NULL), 'from the future': Transform(ENCR, Encryption(4711)),
}


def offer(*transforms: Transform, number: int = 1, protocol: ProtocolID = IKE) -> Proposal:
    return Proposal(number, protocol, b'' if protocol == IKE else b'\1\2\3\4', transforms)


def journey(*proposals: Proposal) -> SA:
    "An SA payload as it arrives; what we could not have written stays as it is."
    sa = SA(proposals)
    if any(t.key_length < 0 for p in proposals for t in p.transforms): return sa
    return SA.parse(Reader(bytes(sa)))


@pytest.mark.parametrize('offered, chosen', [
    ((GCM, *REST), (GCM, *REST)),
    ((GCM, NO_INTEG, *REST), (GCM, NO_INTEG, *REST)),  # NONE spelled out: answered so
    ((CHACHA, GCM, *REST), (CHACHA, *REST)), ((CBC, HMAC, *REST), (CBC, HMAC, *REST)),
    # a checksum beside an AEAD is not allowed, and NONE beside a plain cipher protects nothing
    ((GCM, HMAC, *REST), None), ((CBC, *REST), None), ((CBC, NO_INTEG, *REST), None),
    ((GCM, HMAC, NO_INTEG, *REST), (GCM, NO_INTEG, *REST)),
    ((CBC, HMAC, NO_INTEG, *REST), (CBC, HMAC, *REST)),
    # both kinds in one proposal: what is chosen is never without its own integrity
    ((GCM, CBC, HMAC, *REST), (CBC, HMAC, *REST)), ((CBC, GCM, HMAC, *REST), (CBC, HMAC, *REST)),
    ((GCM, CBC, *REST), (GCM, *REST)), ((CBC, GCM, *REST), (GCM, *REST)),
    ((CBC, GCM, NO_INTEG, *REST), (GCM, NO_INTEG, *REST)),
    ((CBC, GCM, HMAC, NO_INTEG, *REST), (GCM, NO_INTEG, *REST)),
    # a mandatory type is missing, or there is one that we do not know
    ((GCM, X25519), None), ((GCM, SHA), None), ((SHA, X25519), None), ((GCM,), None), ((), None),
    ((GCM, *REST, ALSO), None), ((GCM, *REST, T['noesn']), None),
    ((GCM, SHA, T['modpnone']), None), ((GCM, Transform(PRF, Prf.PRF_HMAC_MD5), X25519), None),
    ((GCM, replace(SHA, key_length=256), X25519), None),
    ((GCM, SHA, replace(X25519, key_length=256)), None),
    ((GCM, replace(NO_INTEG, key_length=8), *REST), None),
    *(((odd, *REST), None) for odd in ODD.values()),
    *(((odd, NO_INTEG, *REST), None) for odd in ODD.values()),
    *(((odd, HMAC, *REST), None) for odd in ODD.values()),
    # "other transforms with the same Transform Type are processed as usual"
    *(((odd, GCM, *REST), (GCM, *REST)) for odd in ODD.values()),
    *(((odd, CBC, HMAC, *REST), (CBC, HMAC, *REST)) for odd in ODD.values()),
    ((GCM, T['prfsha1'], *REST), (GCM, *REST)), ((GCM, SHA, T['modp1024'], X25519), (GCM, *REST)),
    ((CBC, T['sha1'], HMAC, *REST), (CBC, HMAC, *REST)), ((CBC, T['sha1'], *REST), None),
    ((GCM, SHA, T['modp1024']), None), ((GCM, SHA, T['modp1536']), None),
    ((GCM, T['prfsha1'], X25519), None),
    ((T['3des'], T['sha1'], T['prfsha1'], T['modp1024']), None)])
def test_the_responders_choice(offered: tuple, chosen: tuple | None) -> None:
    sa = journey(offer(*offered)) if offered else SA((offer(),))
    if chosen is None:
        with pytest.raises(NoProposalChosen): choose(sa, OURS)
        better = SA((*sa.proposals, offer(CHACHA, *REST, number=2)))
        assert choose(better, OURS) == offer(CHACHA, *REST, number=2)  # others are still processed
        return
    suite = choose(sa, OURS)
    assert sorted(suite.transforms, key=repr) == sorted(chosen, key=repr)
    assert check_choice(sa.proposals, SA((suite,))) == suite
    for kind in ENCR, PRF, INTEG, DH: assert suite.single(kind) in (*chosen, NO_INTEG)
    assert suite.single(ENCR).aead == (suite.single(INTEG) == NO_INTEG)


AEAD_OFFER = offer(GCM, CHACHA, SHA, X25519)
CLASSIC_OFFER = offer(CBC, HMAC, SHA, X25519, number=2)
LIES = [
    (GCM, HMAC, *REST), (GCM, CHACHA, *REST), (GCM, GCM, *REST), (GCM, NO_INTEG, NO_INTEG, *REST),
    (GCM, NO_INTEG, HMAC, *REST), (CBC, HMAC, *REST), (CBC, *REST), (CBC, NO_INTEG, *REST),
    (GCM, CBC, *REST), (GCM, CBC, HMAC, *REST), (GCM, X25519), (GCM, SHA), (SHA, X25519), (),
    (GCM, SHA, SHA, X25519), (GCM, SHA, X25519, X25519), (GCM, SHA, T['modpnone']),
    (GCM, SHA, T['x448']), (GCM, T['prfsha384'], X25519), (GCM, *REST, ALSO),
    (GCM, *REST, T['noesn']), (GCM, replace(SHA, key_length=256), X25519),
    (GCM, SHA, T['modp1024']), (GCM, T['prfsha1'], X25519), (T['3des'], T['sha1'], *REST),
    (GCM, replace(NO_INTEG, key_length=8), *REST), *((odd, *REST) for odd in ODD.values())]


@pytest.mark.parametrize('lie', LIES, ids=repr)
def test_the_initiators_check(lie: tuple) -> None:
    good = offer(GCM, *REST)
    assert check_choice((AEAD_OFFER, CLASSIC_OFFER), SA((good,))) == good
    spelled = offer(CHACHA, NO_INTEG, *REST)
    assert check_choice((AEAD_OFFER, CLASSIC_OFFER), SA((spelled,))).single(INTEG) == NO_INTEG
    with pytest.raises(NoProposalChosen):
        check_choice((AEAD_OFFER, CLASSIC_OFFER), journey(offer(*lie)) if lie else SA((offer(),)))


@pytest.mark.parametrize('lie', [
    (GCM, *REST), (CBC, *REST), (CBC, NO_INTEG, *REST), (GCM, HMAC, *REST), (CBC, GCM, HMAC, *REST),
    (CBC, HMAC, NO_INTEG, *REST)], ids=repr)
def test_the_initiators_check_of_a_classic_answer(lie: tuple) -> None:
    good = offer(CBC, HMAC, *REST, number=2)
    assert check_choice((AEAD_OFFER, CLASSIC_OFFER), SA((good,))) == good
    with pytest.raises(NoProposalChosen):
        check_choice((AEAD_OFFER, CLASSIC_OFFER), SA((offer(*lie, number=2),)))


def test_only_an_aead_does_without_a_checksum() -> None:
    bare = offer(CBC, *REST)
    assert bare.offered(INTEG) == () and offer(GCM, *REST).offered(INTEG) == (NO_INTEG,)
    with pytest.raises(NoProposalChosen, match='0 transforms of type INTEG'): bare.single(INTEG)
    none = offer(CBC, NO_INTEG, *REST)
    for one, other in (bare, none), (none, bare): assert common(one, other) is None
    with pytest.raises(NoProposalChosen): check_choice((bare,), SA((none,)))


@pytest.mark.parametrize('offered, chosen', [
    ('aes256gcm16', 'aes256gcm16'), ('aes256gcm16-modpnone', 'aes256gcm16-modpnone'),
    ('aes256gcm16-x25519', None), ('aes256-sha256', 'aes256-sha256'), ('aes128gcm16', None)])
def test_esp_with_aeads(offered: str, chosen: str | None) -> None:
    ours = parse_proposals('aes256gcm16,aes256-sha256', ESP)
    theirs, = parse_proposals(offered, ESP)
    sa = journey(replace(theirs, spi=b'\1\2\3\4'))
    if chosen is None:
        with pytest.raises(NoProposalChosen): choose(sa, ours)
    else: assert choose(sa, ours).words == chosen
    esn = Transform(TransformType.ESN, Esn.ESN)
    for transforms in ((GCM, HMAC, T['noesn']), (CBC, T['noesn']), (GCM, esn), (GCM,),
                       (CBC, HMAC, esn)):
        assert not any(common(offer(*transforms, protocol=ESP), p) for p in ours)
    both = common(offer(GCM, esn, T['noesn'], protocol=ESP), ours[0])
    assert both.of_type(TransformType.ESN) == (T['noesn'],)


ANY = st.one_of(
    st.sampled_from([row.transform for row in ALGORITHMS.values()]),
    st.sampled_from([NO_INTEG, ALSO, *ODD.values()]),
    st.builds(lambda kind, number, bits: replace(ALSO, type=TransformType(kind), key_length=bits,
                                                 id=OtherTransform(number)),
              st.integers(0, 255), st.integers(0, 65535), st.sampled_from([-1, 0, 128, 65535])))


COMPLETE = [[GCM, *REST], [CBC, *REST], [CBC, HMAC, *REST], [CBC, GCM, HMAC, *REST],
            [GCM, T['noesn']], [CBC, T['noesn']], [CBC, GCM, HMAC, T['noesn']],
            [GCM, NO_INTEG, T['noesn'], X25519], [T['3des'], T['sha1'], *REST]]
OFFERS = st.tuples(st.sampled_from(COMPLETE), st.lists(ANY, max_size=4)).flatmap(
    lambda parts: st.permutations([*parts[0], *parts[1]]))


@settings(max_examples=500, deadline=None)
@given(st.lists(OFFERS, min_size=1, max_size=3), st.sampled_from([
    (IKE, DEFAULT_IKE), (ESP, DEFAULT_ESP), (ESP, 'aes256gcm-x25519-modpnone')]))
def test_whatever_is_offered_no_suite_is_weak_or_without_integrity(
        offered: list[list[Transform]], ours: tuple[ProtocolID, str]) -> None:
    protocol, line = ours
    sa = SA(tuple(offer(*transforms, number=number, protocol=protocol)
                  for number, transforms in enumerate(offered, 1)))
    assert repr(sa) and all(isinstance(p.words, str) for p in sa.proposals)
    try: suite = choose(sa, parse_proposals(line, protocol))
    except NoProposalChosen: return
    assert suite.single(ENCR).aead != (suite.single(INTEG) != NO_INTEG)
    assert len({t.type for t in suite.transforms}) == len(suite.transforms)
    weak = {row.transform for row in ALGORITHMS.values() if row.weak}
    assert not weak & set(suite.transforms) and not set(ODD.values()) & set(suite.transforms)
    assert set(suite.transforms) <= set(offered[suite.number - 1])
    assert check_choice(sa.proposals, SA((suite,))) == suite
    if protocol == IKE: assert suite.single(PRF) and suite.single(DH).id


# Attributes, as octets

@pytest.mark.parametrize('attributes, length', [
    ('800e0100', 256), ('80110001', -1), ('800e010080110001', -1), ('80110001800e0100', -1),
    ('000e000400000100', -1), ('000e00020100', -1), ('0011000461626364', -1), ('800e0000', -1),
    ('000e0000', -1), ('00110000800e0100', -1), ('800effff', 65535)])
def test_attributes(attributes: str, length: int) -> None:
    octets = bytes.fromhex(attributes)
    head = bytes([0, 0, 0, 8 + len(octets), 1, 0, 0, 20]) + octets
    others = offer(CHACHA, *REST).encode(last=True)[8:]
    size = 8 + len(head) + len(others)
    fixed = bytes([0, 0]) + size.to_bytes(2, 'big') + bytes([1, 1, 0, 4])
    found, = SA.parse(Reader(fixed + b'\3' + head[1:] + others)).proposals
    first, *rest = found.transforms
    assert (first.id, first.key_length) == (Encryption.AES_GCM_16, length)
    assert choose(SA((found,)), OURS).transforms == ((GCM if length == 256 else CHACHA), *REST)
    assert tuple(rest) == (CHACHA, *REST) and str(found) and found.words and repr(found)


@pytest.mark.parametrize('attributes', ['800e0100800e0080', '800e', '000e0005ffff', '80', '001100'])
def test_attributes_that_make_no_sense(attributes: str) -> None:
    octets = bytes.fromhex(attributes)
    body = bytes([0, 0, 0, 8 + len(octets), 1, 0, 0, 20]) + octets
    with pytest.raises(InvalidSyntax):
        SA.parse(Reader(bytes([0, 0, 0, 8 + len(body), 1, 1, 0, 1]) + body))


# Datagrams

def end_with(line: str) -> tuple[Sa, Sa]:
    alice, bob = two_ends(RESPONDERS, *configs(ike=line, esp='aes256gcm16'))
    alice.start(ike_sa_init, now=0)
    return alice, bob


@pytest.mark.parametrize('lie', [lie for lie in LIES if not any(t.key_length < 0 for t in lie)],
                         ids=repr)
def test_a_forged_answer_is_refused_before_there_are_keys(lie: tuple) -> None:
    alice, bob = end_with('aes256gcm16-chacha20poly1305-prfsha256-x25519,aes256-sha256-x25519')
    deliver(alice, bob)
    true, = bob.datagrams_to_send()
    _, *rest = Packet.parse(Reader(true.data)).payloads
    forged: tuple[Payload, ...] = (SA((offer(*lie),)), *rest)
    data = Packet(ExchangeType.IKE_SA_INIT, forged).encode(
        alice.spi_i, b'forgery!', response=True, initiator=False, message_id=0)
    events(alice)
    alice.receive_datagram(data, BOB, 0)
    assert not alice.lineage.new_sas and alice.keys is None and not alice.datagrams_to_send()
    assert alice.unauthenticated or isinstance(events(alice)[0], Dropped)
    alice.receive_datagram(true.data, BOB, 0)
    assert alice.lineage.new_sas[0].suite.words == 'aes256gcm16-prfsha256-x25519'


@pytest.mark.parametrize('transforms', [
    (GCM, HMAC, *REST), (CBC, *REST), (CBC, NO_INTEG, *REST), (GCM, X25519),
    (T['3des'], T['sha1'], T['prfsha1'], X25519), (GCM, T['prfsha1'], X25519),
    (ODD['without its key length'], *REST), (ODD['chacha with a key length'], *REST),
    (GCM, *REST, ALSO), (GCM, SHA, T['modpnone'])], ids=repr)
def test_an_offer_that_will_not_do_gets_no_keys(transforms: tuple) -> None:
    alice, bob = end_with('aes256gcm16-chacha20poly1305-prfsha256-x25519,aes256-sha256-x25519')
    first, = alice.datagrams_to_send()
    _, *rest = Packet.parse(Reader(first.data)).payloads
    data = Packet(ExchangeType.IKE_SA_INIT, (SA((offer(*transforms),)), *rest)).encode(
        alice.spi_i, bytes(8), response=False, initiator=True, message_id=0)
    bob.receive_datagram(data, ALICE, 0)
    answer, = bob.datagrams_to_send()
    refusal, = Packet.parse(Reader(answer.data)).payloads
    assert refusal.message_type == MessageType.NO_PROPOSAL_CHOSEN
    assert bob.keys is None and bob.incoming is None and bob.state != State.ESTABLISHED


def test_none_spelled_out_makes_the_same_ike_sa() -> None:
    left, right = configs(ike='aes256gcm16-prfsha256-x25519', esp='aes256gcm16')
    ike, esp = (tuple(replace(p, transforms=(*p.transforms, NO_INTEG)) for p in proposals)
                for proposals in (left.ike, left.esp))
    alice, bob = two_ends(RESPONDERS, replace(left, ike=ike, esp=esp), right)
    alice.start(ike_sa_init, now=0)
    talk(alice, bob)
    alice = family(alice)[-1]
    assert alice.state == bob.state == State.ESTABLISHED and alice.keys == bob.keys
    assert alice.keys.sk_ai == b'' and alice.child.outbound == bob.child.inbound
    assert NO_INTEG in alice.suite.transforms and alice.child.outbound.integ_key == b''
    assert alice.child.outbound.integ == NO_INTEG


def test_the_types_of_ids_are_kept_apart() -> None:
    "12 is AES-CBC, and HMAC-SHA2-256; 5 is the PRF, XCBC, and a group."
    assert Encryption.AES_CBC == Integrity.HMAC_SHA2_256_128 == 12
    assert Prf.PRF_HMAC_SHA2_256 == Integrity.AES_XCBC_96 == Group.MODP_1536 == 5
    swapped = (Transform(ENCR, Encryption(12), 256), Transform(INTEG, Integrity(5)), *REST)
    with pytest.raises(NoProposalChosen): choose(SA((offer(*swapped),)), OURS)
