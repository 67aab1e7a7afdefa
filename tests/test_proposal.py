"Proposals with groups for Child SAs: read, stripped, chosen from, and checked."
from dataclasses import replace

import pytest
from ike_lit.wire.const import (
    Encryption, Group, Integrity, InvalidSyntax, NoProposalChosen, OtherTransform, ProtocolID, TransformType)
from ike_lit.wire.header import Reader
from ike_lit.wire.proposal import (
    NEEDED, NOT_UNDERSTOOD, NO_GROUP, SA, Proposal, Transform, check_choice, choose, common, groups,
    parse_proposal, parse_proposals, without_dh)

IKE, ESP, AH = ProtocolID.IKE, ProtocolID.ESP, ProtocolID.AH
DH = TransformType.DH
MODP, ECP = Transform(DH, Group.MODP_2048), Transform(DH, Group.ECP_256)
PREFIX = 'AES_CBC_256/HMAC_SHA2_256_128'


def esp(*dh: Transform, number: int = 1, bits: int = 256, spi: bytes = bytes(4)) -> Proposal:
    "A proposal for ESP with these groups."
    bare, = parse_proposals(f'aes{bits}-sha256', ESP)
    return replace(bare, number=number, spi=spi, transforms=(*bare.transforms, *dh))


# Words

@pytest.mark.parametrize('words, printed', [
    ('aes256-sha256', f'ESP:{PREFIX}/NO_ESN'),
    ('aes256-sha256-modp2048', f'ESP:{PREFIX}/NO_ESN/MODP_2048'),
    ('modp2048-sha256-aes256', f'ESP:{PREFIX}/NO_ESN/MODP_2048'),
    ('aes256-sha256-noesn-modp2048', f'ESP:{PREFIX}/NO_ESN/MODP_2048'),
    ('aes256-sha256-modpnone', f'ESP:{PREFIX}/NO_ESN/DH_NONE'),
    ('aes256-sha256-modp2048-modpnone', f'ESP:{PREFIX}/NO_ESN/MODP_2048/DH_NONE'),
    ('AES256-SHA256-MODPNONE-MODP2048', f'ESP:{PREFIX}/NO_ESN/DH_NONE/MODP_2048'),
    ('aes256-sha256-modp2048-modp2048', f'ESP:{PREFIX}/NO_ESN/MODP_2048'),
    ('aes256-aes128-sha256-modp2048', 'ESP:AES_CBC_256/AES_CBC_128/HMAC_SHA2_256_128/NO_ESN/MODP_2048')])
def test_words_for_esp(words: str, printed: str) -> None:
    proposal, = parse_proposals(words, ESP)
    assert str(proposal) == printed
    named = replace(proposal, spi=bytes(4))
    assert SA.parse(Reader(bytes(SA((named,))))) == SA((named,))


@pytest.mark.parametrize('words, protocol, why', [
    ('aes256-sha256-modpnone', IKE, 'modpnone has no place in an IKE proposal'),
    ('aes256-sha256-modp2048-modpnone', IKE, 'modpnone has no place in an IKE proposal'),
    ('aes256-sha256', IKE, 'has no DH algorithm'),
    ('aes256-modp2048', ESP, 'has no INTEG algorithm'), ('modp2048', ESP, 'has no ENCR algorithm'),
    ('aes256-sha256-prfsha256-modp2048', ESP, 'prfsha256 has no place in an ESP proposal'),
    ('aes256-sha256-noesn-modp2048', IKE, 'noesn has no place in an IKE proposal'),
    ('aes256-sha256-modp-none', ESP, "'modp' in .*did you mean 'modp"),
    ('aes256-sha256-', ESP, "'' in"), ('aes256-sha256-modp2048,', ESP, "'' in")])
def test_words_that_are_wrong(words: str, protocol: ProtocolID, why: str) -> None:
    with pytest.raises(ValueError, match=why): parse_proposals(words, protocol)


def test_what_is_needed_has_not_grown() -> None:
    assert NEEDED[ESP] == (TransformType.ENCR, TransformType.INTEG, TransformType.ESN)
    assert DH in NEEDED[IKE]


# The SPI (RFC 7296 §3.3.1)

@pytest.mark.parametrize('protocol, size, good', [
    (IKE, 0, True), (IKE, 8, True), (IKE, 4, False), (IKE, 7, False), (IKE, 16, False),
    (ESP, 4, True), (ESP, 0, False), (ESP, 8, False), (AH, 4, True), (AH, 8, False)])
def test_sizes_of_an_spi(protocol: ProtocolID, size: int, good: bool) -> None:
    proposal = replace(esp(MODP), protocol=protocol, spi=bytes(range(1, size + 1)))
    octets = proposal.encode(last=True)
    if good: assert parse_proposal(Reader(octets)) == (proposal, True)
    else:
        with pytest.raises(InvalidSyntax, match=f'SPI of {size} octets'): parse_proposal(Reader(octets))


def test_an_answer_repeats_the_size_of_the_spi() -> None:
    rekey = tuple(replace(p, spi=bytes(8)) for p in parse_proposals('aes256-sha256-modp2048', IKE))
    answer = replace(choose(SA(rekey), rekey), spi=b'\x01' * 8)
    assert check_choice(rekey, SA((answer,))).spi == b'\x01' * 8
    with pytest.raises(NoProposalChosen, match='SPI of 0 octets'):
        check_choice(rekey, SA((replace(answer, spi=b''),)))


# Without groups, for IKE_AUTH (RFC 7296 §1.2)

@pytest.mark.parametrize('before, after', [
    ([esp()], [esp()]), ([esp(MODP)], [esp()]), ([esp(NO_GROUP)], [esp()]),
    ([esp(MODP, ECP, NO_GROUP)], [esp()]),
    ([esp(MODP), esp(number=2), esp(bits=128, number=3)], [esp(), esp(bits=128, number=2)]),
    ([esp(bits=128), esp(MODP, number=2), esp(ECP, number=3)], [esp(bits=128), esp(number=2)]),
    ([esp(MODP, number=7)], [esp()]),
    ([esp(MODP), esp(ECP, number=2, spi=b'\1\2\3\4')], [esp(), esp(number=2, spi=b'\1\2\3\4')]),
    ([], [])])
def test_without_dh(before: list[Proposal], after: list[Proposal]) -> None:
    assert without_dh(before) == tuple(after) == without_dh(iter(after))
    assert groups(without_dh(before)) == ()


@pytest.mark.parametrize('proposals, found', [
    ([esp()], ()), ([esp(NO_GROUP)], ()), ([], ()),
    ([esp(MODP)], (Group.MODP_2048,)), ([esp(NO_GROUP, MODP)], (Group.MODP_2048,)),
    ([esp(ECP, MODP), esp(MODP)], (Group.ECP_256, Group.MODP_2048)),
    ([esp(MODP), esp(ECP, MODP)], (Group.MODP_2048, Group.ECP_256)),
    ([esp(Transform(DH, Group(4711)))], (Group(4711),)),
    # an attribute that is not understood, a length that no group has, another type's number
    ([esp(replace(MODP, key_length=NOT_UNDERSTOOD), ECP)], (Group.ECP_256,)),
    ([esp(replace(MODP, key_length=2048))], ()),
    ([esp(Transform(TransformType.INTEG, Integrity.HMAC_SHA2_384_192))], ())])
def test_groups(proposals: list[Proposal], found: tuple[Group, ...]) -> None:
    assert groups(proposals) == found and all(type(g) is Group for g in groups(proposals))


# The responder's choice

@pytest.mark.parametrize('offered, ours, answer', [
    ((), (), ()), ((MODP,), (MODP,), (MODP,)), ((MODP, ECP), (ECP, MODP), (MODP,)),
    ((ECP, MODP), (MODP,), (MODP,)),
    # we want a group, and none is offered
    ((), (MODP,), None), ((NO_GROUP,), (MODP,), None), ((ECP,), (MODP,), None),
    ((ECP, NO_GROUP), (MODP,), None),
    # or we can do without
    ((), (MODP, NO_GROUP), ()), ((), (NO_GROUP,), ()), ((NO_GROUP,), (MODP, NO_GROUP), (NO_GROUP,)),
    # one is offered, and we have none
    ((MODP,), (), None), ((MODP,), (NO_GROUP,), None),
    ((MODP, NO_GROUP), (), (NO_GROUP,)), ((NO_GROUP,), (), (NO_GROUP,)),
    # the order is the offer's
    ((MODP, NO_GROUP), (NO_GROUP, MODP), (MODP,)), ((NO_GROUP, MODP), (MODP, NO_GROUP), (NO_GROUP,)),
    # not understood, so not acceptable (§3.3.6)
    ((replace(NO_GROUP, key_length=NOT_UNDERSTOOD),), (), None),
    ((replace(MODP, key_length=NOT_UNDERSTOOD),), (MODP,), None),
    ((Transform(TransformType(90), OtherTransform(0)),), (), None)])
def test_common(offered: tuple[Transform, ...], ours: tuple[Transform, ...],
                answer: tuple[Transform, ...] | None) -> None:
    suite = common(esp(*offered, spi=b'\1\2\3\4'), esp(*ours))
    assert suite == (None if answer is None else esp(*answer, spi=b'\1\2\3\4'))
    if suite: assert check_choice([esp(*offered)], SA((suite,))) == suite


def test_the_choice_is_the_first_offer_that_suits() -> None:
    offer = SA((esp(ECP), esp(number=2), esp(MODP, number=3)))
    assert choose(offer, [esp(MODP)]).number == 3
    assert choose(offer, [esp()]).number == 2
    assert choose(offer, [esp(MODP), esp(number=2)]).number == 2
    with pytest.raises(NoProposalChosen, match='offered ESP.*accepted ESP'):
        choose(offer, [esp(Transform(DH, Group.CURVE_25519))])


def test_an_ike_sa_has_a_group() -> None:
    "RFC 7296 §2.18: \"a responder MUST NOT accept such a proposal\""
    ours = parse_proposals('aes256-sha256-modp2048', IKE)
    for dh in (), (NO_GROUP,), (ECP, NO_GROUP):
        weak = replace(ours[0], transforms=(*ours[0].transforms[:-1], *dh))
        with pytest.raises(NoProposalChosen): choose(SA((weak,)), ours)
        with pytest.raises(NoProposalChosen): check_choice(ours, SA((weak,)))
        assert choose(SA((weak, replace(ours[0], number=2))), ours).number == 2
    nothing, none = (replace(ours[0], transforms=(*ours[0].transforms[:-1], *dh)) for dh in ((), (NO_GROUP,)))
    assert nothing.offered(DH) == () and common(nothing, none) is None and common(none, nothing) is None


# The initiator's check: of the groups exactly one, of those that were offered

@pytest.mark.parametrize('offered, answer, why', [
    ((MODP,), (MODP,), ''), ((MODP, ECP), (ECP,), ''), ((MODP, NO_GROUP), (MODP,), ''), ((), (), ''),
    ((MODP, NO_GROUP), (NO_GROUP,), ''), ((MODP, NO_GROUP), (), ''), ((NO_GROUP,), (), ''),
    ((), (NO_GROUP,), ''),
    ((MODP,), (), 'was not offered'), ((MODP,), (NO_GROUP,), 'was not offered'),
    ((MODP,), (ECP,), 'was not offered'), ((), (MODP,), 'was not offered'),
    ((NO_GROUP,), (MODP,), 'was not offered'),
    ((MODP, ECP), (MODP, ECP), '2 transforms of type DH'), ((MODP,), (MODP, MODP), '2 transforms of type DH'),
    ((MODP, NO_GROUP), (MODP, NO_GROUP), '2 transforms of type DH'),
    ((), (NO_GROUP, NO_GROUP), '2 transforms of type DH'),
    ((MODP,), (replace(MODP, key_length=NOT_UNDERSTOOD),), 'was not offered'),
    ((MODP,), (replace(MODP, key_length=128),), 'was not offered'),
    ((NO_GROUP,), (replace(NO_GROUP, key_length=NOT_UNDERSTOOD),), 'was not offered'),
    ((MODP,), (MODP, Transform(TransformType(90), OtherTransform(0))), 'was not offered'),
    ((MODP,), (MODP, Transform(TransformType.ENCR, Encryption.AES_CBC, 128)), '2 transforms of type ENCR')])
def test_check_choice(offered: tuple[Transform, ...], answer: tuple[Transform, ...], why: str) -> None:
    offer, chosen = esp(*offered), esp(*answer, spi=b'\1\2\3\4')
    if not why: assert check_choice([offer], SA((chosen,))) is chosen
    else:
        with pytest.raises(NoProposalChosen, match=why): check_choice([offer], SA((chosen,)))


def test_an_answer_is_not_mixed_from_two_proposals() -> None:
    offer = [esp(MODP), esp(number=2, bits=128)]
    for lie in (esp(number=1), esp(MODP, number=2, bits=128), esp(MODP, bits=128), esp(number=2),
                esp(MODP, number=3)):
        with pytest.raises(NoProposalChosen): check_choice(offer, SA((lie,)))
