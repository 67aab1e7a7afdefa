"""Exchange scenarios, as a mature daemon tests them: each message of both ends is carried by hand,
and may be held back, lost, or come late (RFC 7296 §1.3, §1.4.1, §2.8, §2.25; RFC 6023).
The stage, and how a ladder is written down, is chapter 51.
"""
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from ike_lit.engine.create_child_sa import create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.informational import delete_child, delete_ike_sa, liveness
from ike_lit.engine.model import (
    ChildClosed, ChildEstablished, ChildFailed, Closed, Established, Lifetime, Postponed, Timing)
from ike_lit.engine.protocol import IKE
from ike_lit.engine.state import Begin, Conversation, Exchange, State
from ike_lit.wire.const import IkeError, NoAnswer, ProtocolID
from ike_lit.wire.header import Header, Reader
from ike_lit.wire.payload import Delete, Packet
from ike_lit.wire.proposal import parse_proposals
from canonical import ends
from ike_lit.testing.stage import NEVER, PATIENT, End, lose, pair, play, run, sas, spi, talk_through, wait

HOUR = 3600


# What is to be seen in the end

def secrets(end: End, mirrored: bool = False) -> set[tuple]:
    "Return the keys, SPIs and traffic of all SAs of an end, or those that its peer should have."
    children = [(c.inbound, c.outbound, c.local_ts, c.remote_ts)
                for ike in end.host.established for c in ike.children.values()]
    if mirrored: children = [(out, into, right, left) for into, out, left, right in children]
    return {*children, *(tuple(vars(ike.keys).values()) for ike in end.host.established)}


def reported(end: End, kind: type) -> list[str]:
    return sorted(pair(e.child.inbound.spi, e.child.outbound.spi) for e in end.events(kind))


def settled(ike: IKE) -> bool:
    "True if nothing is under way and nothing is expected."
    return ike.state == State.CLOSED or not (
        ike.lineage.successor or ike.lineage.may_replace or ike.lineage.granted
        or ike.busy or ike.exchange != Exchange() or ike.replaced)


def at_rest(a: End, expected: str, failed: bool = False) -> None:
    """Both ends have the SAs that are expected, and have told of each of them once;
    nothing is left over, and in the next hour nothing happens."""
    b = a.peer
    assert [s.text for s in (*a.way, *b.way, *a.held, *b.held)] == []
    for end in a, b: assert sas(end) == expected, end.name
    assert run(a, HOUR) == []
    for end in a, b:
        assert sas(end) == expected, end.name
        assert end.host.next_timer() is None
        assert all(settled(ike) for named in end.host.sas.values() for ike in named)
        opened, closed = reported(end, ChildEstablished), reported(end, ChildClosed)
        here = [child for child in expected.partition(': ')[2].split(', ') if child]
        assert sorted(closed + here) == opened and len(set(opened)) == len(opened)
        over = [ike for ike, event in end.told if isinstance(event, Closed)]
        assert len(set(map(id, over))) == len(over)
        assert failed or not [*end.events(ChildFailed), *(
            e for e in end.events(Closed) if e.error)]
    assert secrets(a) == secrets(b, mirrored=True)
    for end in (a, b) if expected else ():
        end.begins(liveness)
        assert talk_through(a) == [f'{end.name} -> alive?', f'{end.peer.name} -> nothing']


def postponed(end: End) -> float:
    "Return when an end is about to try again: about `Timing.retry` later."
    told, = end.events(Postponed)
    assert PATIENT.retry / 2 <= told.seconds <= 2 * PATIENT.retry
    return told.seconds


# Who moves, who loses

either_side = pytest.mark.parametrize('mover', ['initiator', 'responder'])
# RFC 7296 §2.8.1: the lowest of the four nonces, Ni ('asks') or Nr ('grants') of either end
each_nonce = pytest.mark.parametrize('lowest', ['a asks', 'b grants', 'b asks', 'a grants'])
either_loses = pytest.mark.parametrize('loser', ['a', 'b'])


def draw(a: End, lowest: str) -> str:
    "Let one of four nonces be the lowest; return who loses by that."
    name, what = lowest.split()
    (a if name == a.name else a.peer).low = what
    return 'a' if lowest in ('a asks', 'b grants') else 'b'


def rekey(name: str) -> Begin: return partial(rekey_child, spi=spi(name))


def delete(name: str) -> Begin: return partial(delete_child, spi=spi(name))


# Two that prefer different groups: each declines the first group of the other
ONE = 'aes256-sha256-modp3072,camellia256-sha256-modp2048,aes128-sha256-modp3072'
OTHER = 'camellia128-sha256-modp2048,aes128-sha256-modp3072,camellia256-sha256-modp2048'


# New child

@either_side
def test_new_child_an_identical_child_sa_is_not_begun(mover: str) -> None:
    a, b = ends(mover)
    for end in a, b: end.begins(create_child)
    at_rest(a, 'A1 B1: a1 b1')


@either_side
def test_new_child_the_same_wish_twice_makes_one_child_sa(mover: str) -> None:
    a, _ = ends(mover, childless='force')
    for _ in range(2): a.begins(create_child)
    play(a, '''
        a -> create
        b -> grant b1''')
    at_rest(a, 'A1 B1: a1 b1')


@pytest.mark.parametrize('first', ['a', 'b'])
@either_side
def test_new_child_against_an_ike_rekey_both_are_refused_and_retry(mover: str, first: str) -> None:
    a, b = ends(mover, childless='force')
    a.begins(create_child)
    b.begins(rekey_ike_sa)
    play(a, '''
        a -> create
        b -> rekey A1 B1''')
    answers = ['a -> TEMPORARY_FAILURE', 'b -> TEMPORARY_FAILURE']
    for answer in answers if first == 'b' else answers[::-1]:
        play(a, answer)
        wait(a, 0.5)
    assert sas(a) == sas(b) == 'A1 B1:' and not a.way and not b.way
    assert run(a, min(map(postponed, (a, b))) - 1.1) == []  # not immediately
    run(a, 60)
    at_rest(a, 'A2 B3: a2 b1')


@either_side
def test_new_child_and_ike_rekey_refused_in_the_same_moment_do_not_collide_for_ever(
        mover: str) -> None:
    a, b = ends(mover, childless='force')
    a.begins(create_child)
    b.begins(rekey_ike_sa)
    run(a, 170)
    assert len(a.events(ChildEstablished)) == 1
    run(a, 60)
    assert len(a.events(ChildEstablished)) == 1
    at_rest(a, sas(a))


# Delete child

@either_side
def test_delete_child_by_either_side(mover: str) -> None:
    a, _ = ends(mover)
    a.begins(delete('a1'))
    play(a, '''
        a -> delete a1
        b -> deleted b1''')
    at_rest(a, 'A1 B1:')


@either_side
def test_delete_child_both_at_once(mover: str) -> None:
    a, b = ends(mover)
    a.begins(delete('a1'))
    b.begins(delete('b1'))
    play(a, '''
        a -> delete a1
        b -> delete b1
        a -> nothing
        b -> nothing''')
    at_rest(a, 'A1 B1:')


@pytest.mark.parametrize('fate', ['lost', 'late'])
@either_side
def test_delete_child_both_at_once_with_one_delete_lost_or_late(mover: str, fate: str) -> None:
    a, b = ends(mover)
    a.begins(delete('a1'))
    b.begins(delete('b1'))
    play(a, f'''
        a {'-x' if fate == 'lost' else '-|'} delete a1
        b -> delete b1
        a -> nothing''')
    if fate == 'lost': wait(a, 1)
    play(a, f'''
        a {'->' if fate == 'lost' else '~>'} delete a1
        b -> nothing''')
    at_rest(a, 'A1 B1:')


@either_side
def test_delete_child_against_an_ike_rekey_which_is_refused(mover: str) -> None:
    a, b = ends(mover)
    a.begins(delete('a1'))
    b.begins(rekey_ike_sa)
    play(a, '''
        a -> delete a1
        b -> rekey A1 B1
        a -> TEMPORARY_FAILURE
        b -> deleted b1''')
    assert sas(a) == sas(b) == 'A1 B1:'
    assert run(a, postponed(b) - 0.1) == []
    run(a, 20)
    at_rest(a, 'A2 B3:')


@either_side
def test_delete_child_against_an_ike_rekey_that_comes_late(mover: str) -> None:
    a, b = ends(mover)
    a.begins(delete('a1'))
    b.begins(rekey_ike_sa)
    play(a, '''
        b -| rekey A1 B1
        a -> delete a1
        b -> deleted b1
        b ~> rekey A1 B1
        a -> grant A2
        b -> delete A1 B1
        a -> nothing''')
    at_rest(a, 'A2 B2:')


@either_side
def test_delete_child_against_an_ike_delete_which_wins(mover: str) -> None:
    a, b = ends(mover)
    a.begins(delete('a1'))
    b.begins(delete_ike_sa)
    play(a, '''
        a -> delete a1
        b -> delete A1 B1
        a -> nothing
        b -> deleted b1''')
    at_rest(a, '')


@either_side
def test_delete_child_comes_after_the_ike_delete(mover: str) -> None:
    a, b = ends(mover)
    a.begins(delete('a1'))
    b.begins(delete_ike_sa)
    play(a, '''
        a -| delete a1
        b -> delete A1 B1
        a -> nothing
        a ~> delete a1''')
    at_rest(a, '')


# Rekey child, regular

@either_side
def test_rekey_child_by_either_side(mover: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -> grant b2
        a -> delete a1
        b -> deleted b1''')
    for end in a, b:
        old, new = (e for e in end.events(ChildEstablished))
        assert old.replaces is None and new.replaces == old.child
        assert new.child.local_ts == old.child.local_ts
    at_rest(a, 'A1 B1: a2 b2')


@either_side
def test_rekey_child_again_with_the_group_that_the_peer_wants(mover: str) -> None:
    a, _ = ends(mover, ours={'esp': 'aes256-sha256-ecp256-x25519'},
                theirs={'esp': 'aes256-sha256-ecp256'})
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -> INVALID_KE_PAYLOAD
        a -> rekey a1
        b -> grant b2
        a -> delete a1
        b -> deleted b1''')
    at_rest(a, 'A1 B1: a2 b2')


@either_side
def test_rekey_child_soft_lifetime_ignored_while_the_delete_is_awaited(mover: str) -> None:
    a, b = ends(mover, timing=Timing(child=Lifetime(100), ike=NEVER, liveness=0))
    wait(a, 89)
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -> grant b2''')
    wait(a, 12)  # the soft lifetimes of a1 and b1 are over
    assert {said.text for said in a.way} == {'delete a1'} and not b.way
    lose(a)
    assert run(a, 4) == ['a -> delete a1', 'b -> deleted b1']
    assert sas(a) == sas(b) == 'A1 B1: a2 b2'
    for end in a, b: assert reported(end, ChildClosed) == ['a1 b1']


@either_side
def test_rekey_child_by_hand_is_not_begun_while_the_delete_is_awaited(mover: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -> grant b2
        a -| delete a1''')
    a.begins(rekey('a1'))
    b.begins(rekey('b1'))
    assert not a.way and not b.way
    play(a, '''
        a ~> delete a1
        b -> deleted b1''')
    at_rest(a, 'A1 B1: a2 b2')


@either_side
def test_rekey_child_hard_lifetime_while_the_delete_is_awaited(mover: str) -> None:
    a, b = ends(mover, timing=Timing(child=Lifetime(0, 100), ike=NEVER, liveness=0))
    wait(a, 90)
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -> grant b2
        a -| delete a1''')
    wait(a, 10)
    assert sas(a) == sas(b) == 'A1 B1: a2 b2'
    lose(a)
    play(a, '''
        b -> delete b1
        a -> nothing
        a ~> delete a1
        b -> nothing''')
    for end in a, b: assert reported(end, ChildClosed) == ['a1 b1']
    assert run(a, 89) == [] and sas(a) == sas(b) == 'A1 B1: a2 b2'
    run(a, 2)  # those have had their time, too
    at_rest(a, 'A1 B1:')


@pytest.mark.parametrize('first', ['old', 'new'])
@either_side
def test_rekey_child_the_new_sa_is_deleted_while_the_delete_is_awaited(
        mover: str, first: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -> grant b2''')
    b.begins(delete('b2'))
    play(a, '''
        b -| delete b2
        a -> delete a1
        b -> deleted b1
        b ~> delete b2
        a -> deleted a2''' if first == 'old' else '''
        a -| delete a1
        b -> delete b2
        a -> deleted a2
        a ~> delete a1
        b -> deleted b1''')
    at_rest(a, 'A1 B1:')


@either_side
def test_rekey_child_that_the_peer_has_lost_makes_a_new_one(mover: str) -> None:
    a, b = ends(mover)
    b.ike.forget(spi('b1'))
    b.collect()
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -> CHILD_SA_NOT_FOUND a1
        a -> create
        b -> grant b2''')
    at_rest(a, 'A1 B1: a3 b2')


@pytest.mark.parametrize('when', ['before the response', 'after the response'])
@either_side
def test_rekey_child_the_peer_wrongly_deletes_the_old_sa_early(mover: str, when: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    play(a, 'a -> rekey a1')
    b.begins(delete('b1'))
    if when == 'before the response':
        play(a, '''
            b -| grant b2
            b -> delete b1
            a -> deleted a1
            b ~> grant b2''')
    else:
        play(a, '''
            b -> grant b2
            a -> delete a1
            b -> delete b1
            a -> nothing
            b -> nothing''')
    at_rest(a, 'A1 B1: a2 b2')


@either_side
def test_rekey_child_a_delete_that_times_out_reports_the_end_only_once(mover: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -> grant b2''')
    for _ in range(100):
        wait(a, 1)
        lose(a, b)
    for end in a, b:
        assert reported(end, ChildClosed) == ['a1 b1', 'a2 b2']
        closed, = end.events(Closed)
        assert isinstance(closed.error, NoAnswer)
    at_rest(a, '', failed=True)


# Rekey child, collisions

def both_rekey(a: End) -> None:
    a.begins(rekey('a1'))
    a.peer.begins(rekey('b1'))


def settle_child(a: End, loser: str) -> None:
    "Carry the last four messages of the first ladder in RFC 7296 §2.8.1."
    play(a, '''
        a -> delete a2
        b -> delete b1
        b -> deleted b3
        a -> deleted a1''' if loser == 'a' else '''
        a -> delete a1
        b -> delete b2
        b -> deleted b1
        a -> deleted a3''')
    at_rest(a, 'A1 B1: a3 b2' if loser == 'a' else 'A1 B1: a2 b3')


@each_nonce
@either_side
def test_rekey_child_collision_nonces_decide(mover: str, lowest: str) -> None:
    a, b = ends(mover)
    loser = draw(a, lowest)
    both_rekey(a)
    play(a, '''
        a -> rekey a1
        b -> rekey b1
        a -> grant a3
        b -> grant b3''')
    for end in a, b: assert sas(end) == 'A1 B1: a1 b1, a2 b3, a3 b2'
    settle_child(a, loser)


@either_loses
@either_side
def test_rekey_child_collision_the_response_arrives_after_the_delete(
        mover: str, loser: str) -> None:
    a, _ = ends(mover)
    draw(a, f'{loser} asks')
    both_rekey(a)
    play(a, '''
        a -> rekey a1
        b -> rekey b1
        a -> grant a3
        b -| grant b3''')
    if loser == 'a':
        play(a, '''
            b -> delete b1
            a -> deleted a1
            b ~> grant b3
            a -> delete a2
            b -> deleted b3''')
        at_rest(a, 'A1 B1: a3 b2')
    else:
        play(a, '''
            b -> delete b2
            a -> deleted a3
            b ~> grant b3
            a -> delete a1
            b -> deleted b1''')
        at_rest(a, 'A1 B1: a2 b3')


@either_loses
@either_side
def test_rekey_child_collision_the_response_arrives_after_the_new_sa_is_deleted_too(
        mover: str, loser: str) -> None:
    a, b = ends(mover)
    draw(a, f'{loser} asks')
    both_rekey(a)
    play(a, '''
        a -> rekey a1
        b -> rekey b1
        a -> grant a3
        b -| grant b3''')
    if loser == 'a':
        b.begins(delete('b2'))
        play(a, '''
            b -> delete b1
            a -> deleted a1
            b -> delete b2
            a -> deleted a3
            b ~> grant b3
            a -> delete a2
            b -> deleted b3''')
    else:
        b.begins(delete('b3'))
        play(a, '''
            b -> delete b2
            a -> deleted a3
            b -> delete b3
            a -> nothing
            b ~> grant b3''')
        run(a, 60)  # one of the two deletes the old one
    at_rest(a, 'A1 B1:')


@pytest.mark.parametrize('last', ['refusal', 'Delete'])
@either_loses
@either_side
def test_rekey_child_collision_that_one_side_never_saw(mover: str, loser: str, last: str) -> None:
    a, _ = ends(mover)
    draw(a, f'{loser} asks')
    both_rekey(a)
    play(a, '''
        a -| rekey a1
        b -> rekey b1
        a -> grant a3
        a ~> rekey a1''')
    never_saw(a, last)


def never_saw(a: End, last: str) -> None:
    "Let `b`, which is deleting b1, refuse to have it rekeyed."
    play(a, '''
        b -> delete b1
        a -> deleted a1
        b -> TEMPORARY_FAILURE''' if last == 'refusal' else '''
        b -| delete b1
        b -> TEMPORARY_FAILURE
        b ~> delete b1
        a -> deleted a1''')
    assert not a.events(Postponed)
    at_rest(a, 'A1 B1: a3 b2')


@either_loses
@either_side
def test_rekey_child_collision_that_one_side_sees_later_still(mover: str, loser: str) -> None:
    a, _ = ends(mover)
    draw(a, f'{loser} asks')
    both_rekey(a)
    play(a, '''
        a -| rekey a1
        b -> rekey b1
        a -> grant a3
        b -> delete b1
        a -> deleted a1
        a ~> rekey a1
        b -> CHILD_SA_NOT_FOUND a1''')
    at_rest(a, 'A1 B1: a3 b2')


@either_side
def test_rekey_child_collision_seen_after_the_new_sa_is_deleted_too(mover: str) -> None:
    a, b = ends(mover)
    both_rekey(a)
    play(a, '''
        a -| rekey a1
        b -> rekey b1
        a -> grant a3
        b -> delete b1
        a -> deleted a1''')
    b.begins(delete('b2'))
    play(a, '''
        b -> delete b2
        a -> deleted a3
        a ~> rekey a1
        b -> CHILD_SA_NOT_FOUND a1''')
    at_rest(a, 'A1 B1:')


def both_want_another_group(a: End) -> None:
    both_rekey(a)
    play(a, '''
        a -> rekey a1
        b -> rekey b1
        a -> INVALID_KE_PAYLOAD
        b -> INVALID_KE_PAYLOAD''')


@either_loses
@either_side
def test_rekey_child_collision_with_different_groups(mover: str, loser: str) -> None:
    a, _ = ends(mover, ours={'esp': ONE}, theirs={'esp': OTHER})
    draw(a, f'{loser} asks')
    both_want_another_group(a)
    play(a, '''
        a -> rekey a1
        b -> rekey b1
        a -> grant a3
        b -> grant b3''')
    settle_child(a, loser)


@pytest.mark.parametrize('last', ['refusal', 'Delete'])
@either_side
def test_rekey_child_collision_with_different_groups_and_one_retry_late(
        mover: str, last: str) -> None:
    a, _ = ends(mover, ours={'esp': ONE}, theirs={'esp': OTHER})
    both_want_another_group(a)
    play(a, '''
        a -| rekey a1
        b -> rekey b1
        a -> grant a3
        a ~> rekey a1''')
    never_saw(a, last)


@either_side
def test_rekey_child_collision_with_different_groups_and_one_retry_later_still(mover: str) -> None:
    a, _ = ends(mover, ours={'esp': ONE}, theirs={'esp': OTHER})
    both_want_another_group(a)
    play(a, '''
        a -| rekey a1
        b -> rekey b1
        a -> grant a3
        b -> delete b1
        a -> deleted a1
        a ~> rekey a1
        b -> CHILD_SA_NOT_FOUND a1''')
    at_rest(a, 'A1 B1: a3 b2')


def confused(right: Callable[[IKE], Conversation], wrong: str) -> Callable[[IKE], Conversation]:
    "Return a conversation that deletes the wrong Child SA in the end."
    def conversation(ike: IKE) -> Conversation:
        inner = right(ike)
        request = next(inner)
        while not request.all(Delete): request = inner.send((yield request))
        response = yield Packet(request.exchange_type, (Delete(ProtocolID.ESP, (spi(wrong),)),))
        with pytest.raises(StopIteration): inner.send(response)
    return conversation


@either_side
def test_rekey_child_collision_the_loser_wrongly_deletes_the_old_sa(mover: str) -> None:
    a, b = ends(mover)
    draw(a, 'a asks')
    a.begins(confused(rekey('a1'), wrong='a1'))
    b.begins(rekey('b1'))
    play(a, '''
        a -> rekey a1
        b -> rekey b1
        a -> grant a3
        b -> grant b3
        a -> delete a1
        b -> delete b1
        b -> nothing
        a -> deleted a1''')
    assert sas(b) == 'A1 B1: a2 b3, a3 b2'  # the one that should have gone
    assert run(a, PATIENT.timeout) == ['b -> delete b3', 'a -> nothing']
    at_rest(a, 'A1 B1: a3 b2')


# Rekey child against others

@pytest.mark.parametrize('last', ['refusal', 'Delete'])
@either_side
def test_rekey_child_against_its_delete(mover: str, last: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    b.begins(delete('b1'))
    play(a, 'a -> rekey a1')
    play(a, '''
        b -> delete b1
        a -> deleted a1
        b -> TEMPORARY_FAILURE''' if last == 'refusal' else '''
        b -| delete b1
        b -> TEMPORARY_FAILURE
        b ~> delete b1
        a -> deleted a1''')
    at_rest(a, 'A1 B1:')


@either_side
def test_rekey_child_against_its_delete_which_is_lost(mover: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    b.begins(delete('b1'))
    play(a, '''
        b -x delete b1
        a -> rekey a1
        b -> TEMPORARY_FAILURE''')
    assert postponed(a) > 1
    wait(a, 1)
    play(a, '''
        b -> delete b1
        a -> deleted a1''')
    at_rest(a, 'A1 B1:')


@either_side
def test_rekey_child_against_its_delete_which_comes_after_a_new_try(mover: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    b.begins(delete('b1'))
    play(a, '''
        b -| delete b1
        a -> rekey a1
        b -> TEMPORARY_FAILURE''')
    wait(a, postponed(a))
    lose(b)
    play(a, '''
        a -> rekey a1
        b -> TEMPORARY_FAILURE
        b ~> delete b1
        a -> deleted a1''')
    at_rest(a, 'A1 B1:')


@either_side
def test_rekey_child_against_its_delete_with_the_rekey_request_lost(mover: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    b.begins(delete('b1'))
    play(a, '''
        a -x rekey a1
        b -> delete b1
        a -> deleted a1''')
    wait(a, 1)
    play(a, '''
        a -> rekey a1
        b -> CHILD_SA_NOT_FOUND a1''')
    at_rest(a, 'A1 B1:')


@either_side
def test_rekey_child_and_a_delete_for_an_sa_not_known_yet(mover: str) -> None:
    "The new SA is gone before it is known; the old one goes too, and the IKE SA stands."
    a, b = ends(mover)
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey a1
        b -| grant b2''')
    b.begins(delete('b2'))
    play(a, '''
        b -> delete b2
        a -> nothing
        b ~> grant b2''')
    run(a, 60)
    at_rest(a, 'A1 B1:', failed=True)


@either_side
def test_new_child_and_a_delete_for_an_sa_not_known_yet(mover: str) -> None:
    a, b = ends(mover, childless='force')
    a.begins(create_child)
    play(a, '''
        a -> create
        b -| grant b1''')
    b.begins(delete('b1'))
    play(a, '''
        b -> delete b1
        a -> nothing
        b ~> grant b1''')
    run(a, 60)
    assert [e.child.outbound.spi for e in b.events(ChildClosed)] == [spi('a1')]
    assert not a.events(ChildEstablished)
    assert sas(a) == sas(b) == 'A1 B1:'


@pytest.mark.parametrize('first', ['a', 'b'])
@either_side
def test_rekey_child_against_an_ike_rekey_both_are_refused_and_retry(
        mover: str, first: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    b.begins(rekey_ike_sa)
    play(a, '''
        a -> rekey a1
        b -> rekey A1 B1''')
    answers = ['a -> TEMPORARY_FAILURE', 'b -> TEMPORARY_FAILURE']
    for answer in answers if first == 'b' else answers[::-1]:
        play(a, answer)
        wait(a, 0.5)
    assert run(a, min(map(postponed, (a, b))) - 1.1) == []
    run(a, 60)
    at_rest(a, 'A2 B3: a3 b2')


@either_side
def test_rekey_child_and_ike_rekey_refused_in_the_same_moment_do_not_collide_for_ever(
        mover: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    b.begins(rekey_ike_sa)
    run(a, 240)
    for end in a, b:
        assert not [e for e in end.events(Closed) if e.error]
        assert sas(end).startswith('A2 ') and reported(end, ChildClosed) == ['a1 b1']
    at_rest(a, sas(a))


@pytest.mark.parametrize('last', ['refusal', 'Delete'])
@either_side
def test_rekey_child_against_an_ike_delete_which_wins(mover: str, last: str) -> None:
    a, b = ends(mover)
    a.begins(rekey('a1'))
    b.begins(delete_ike_sa)
    play(a, 'a -> rekey a1')
    play(a, '''
        b -> delete A1 B1
        a -> nothing
        b -> TEMPORARY_FAILURE''' if last == 'refusal' else '''
        b -| delete A1 B1
        b -> TEMPORARY_FAILURE
        b ~> delete A1 B1
        a -> nothing''')
    at_rest(a, '')


# Childless

@either_side
def test_childless_ike_auth_and_then_a_child_sa(mover: str) -> None:
    a, b = ends(mover, childless='force')
    spoken = [text for end in (a, b) for text in end.words.values()]
    assert 'IKE_AUTH IDi IDr AUTH' in spoken and 'IKE_AUTH IDr AUTH' in spoken
    assert not a.events(ChildFailed) and not b.events(ChildFailed)
    a.begins(create_child)
    play(a, '''
        a -> create
        b -> grant b1''')
    at_rest(a, 'A1 B1: a1 b1')


@either_side
def test_childless_a_child_sa_is_created_only_on_request(mover: str) -> None:
    a, _ = ends(mover, childless='force')
    at_rest(a, 'A1 B1:')
    a.begins(create_child)
    assert talk_through(a) == ['a -> create', 'b -> grant b1']
    at_rest(a, 'A1 B1: a1 b1')


def why(end: End) -> IkeError:
    closed, = end.events(Closed)
    return closed.error


def test_childless_the_initiator_stops_when_the_responder_can_not() -> None:
    a, b = ends('initiator', ours={'childless': 'force'}, theirs={'childless': 'never'})
    run(a, 60)
    assert 'RFC 6023' in str(why(a)) and not a.events(Established)
    assert not [text for text in (*a.words.values(), *b.words.values()) if 'IKE_AUTH' in text]
    at_rest(a, '', failed=True)


def test_childless_the_responder_stops_when_the_initiator_does_not() -> None:
    a, b = ends('initiator', ours={'childless': 'never'}, theirs={'childless': 'force'})
    run(a, 60)
    assert 'we want none there' in str(why(b)) and why(a)
    for end in a, b: assert not end.events(Established) and not end.events(ChildEstablished)
    at_rest(a, '', failed=True)


# Delete IKE

@either_side
def test_delete_ike_by_either_side(mover: str) -> None:
    a, b = ends(mover)
    a.begins(delete_ike_sa)
    play(a, '''
        a -> delete A1 B1
        b -> nothing''')
    for end in a, b: assert why(end) is None
    at_rest(a, '')


@either_side
def test_delete_ike_both_at_once(mover: str) -> None:
    a, b = ends(mover)
    a.begins(delete_ike_sa)
    b.begins(delete_ike_sa)
    play(a, '''
        a -> delete A1 B1
        b -> delete A1 B1
        a -> nothing
        b -> nothing''')
    for end in a, b: assert why(end) is None
    at_rest(a, '')


@either_side
def test_delete_ike_both_at_once_with_one_delete_lost(mover: str) -> None:
    a, b = ends(mover)
    a.begins(delete_ike_sa)
    b.begins(delete_ike_sa)
    play(a, '''
        a -x delete A1 B1
        b -> delete A1 B1
        a -> nothing''')
    for end in a, b: assert why(end) is None
    at_rest(a, '')


# Rekey IKE

@either_side
def test_rekey_ike_by_either_side(mover: str) -> None:
    a, b = ends(mover)
    old = a.ike
    a.begins(rekey_ike_sa)
    play(a, '''
        a -> rekey A1 B1
        b -> grant B2
        a -> delete A1 B1
        b -> nothing''')
    assert a.ike.initiator and not b.ike.initiator
    assert old.keys is None and old.state == State.CLOSED and not old.children
    a.begins(liveness)
    assert Header.parse(Reader(a.way[0].datagram.data)).message_id == 0
    play(a, '''
        a -> alive?
        b -> nothing''')
    at_rest(a, 'A2 B2: a1 b1')


@either_side
def test_rekey_ike_again_with_the_group_that_the_peer_wants(mover: str) -> None:
    a, b = ends(mover, ours={'ike': 'aes256-sha256-modp3072-modp2048'},
                theirs={'ike': 'aes256-sha256-modp2048'})
    b.ike.config = replace(b.ike.config, ike=parse_proposals('aes256-sha256-modp3072', ProtocolID.IKE))
    a.begins(rekey_ike_sa)
    play(a, '''
        a -> rekey A1 B1
        b -> INVALID_KE_PAYLOAD
        a -> rekey A1 B1
        b -> grant B2
        a -> delete A1 B1
        b -> nothing''')
    at_rest(a, 'A2 B2: a1 b1')


def both_rekey_ike(a: End) -> None:
    for end in a, a.peer: end.begins(rekey_ike_sa)


def settle_ike(a: End, loser: str) -> None:
    "Carry the last four messages: the loser deletes its own new IKE SA, the winner the old one."
    play(a, f'''
        a -> delete {'A2 B3' if loser == 'a' else 'A1 B1'}
        b -> delete {'A3 B2' if loser == 'b' else 'A1 B1'}
        a -> nothing
        b -> nothing''')
    at_rest(a, 'A3 B2: a1 b1' if loser == 'a' else 'A2 B3: a1 b1')


@each_nonce
@either_side
def test_rekey_ike_collision_nonces_decide(mover: str, lowest: str) -> None:
    a, _ = ends(mover)
    loser = draw(a, lowest)
    both_rekey_ike(a)
    play(a, '''
        a -> rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        b -> grant B3''')
    settle_ike(a, loser)


def both_want_another_group_for_ike(a: End) -> None:
    both_rekey_ike(a)
    play(a, '''
        a -> rekey A1 B1
        b -> rekey A1 B1
        a -> INVALID_KE_PAYLOAD
        b -> INVALID_KE_PAYLOAD''')


@either_loses
@either_side
def test_rekey_ike_collision_with_different_groups(mover: str, loser: str) -> None:
    a, _ = ends(mover, ours={'ike': ONE}, theirs={'ike': OTHER})
    draw(a, f'{loser} asks')
    both_want_another_group_for_ike(a)
    play(a, '''
        a -> rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        b -> grant B3''')
    settle_ike(a, loser)


def never_saw_ike(a: End, last: str) -> None:
    "Let `b`, which is deleting the old IKE SA, refuse to have it rekeyed."
    play(a, '''
        b -> delete A1 B1
        a -> nothing
        b -> TEMPORARY_FAILURE''' if last == 'refusal' else '''
        b -| delete A1 B1
        b -> TEMPORARY_FAILURE''')
    assert sas(a) == sas(a.peer) == 'A3 B2: a1 b1' and not a.events(Postponed)
    if last == 'Delete':
        play(a, '''
            b ~> delete A1 B1
            a -> nothing''')
    at_rest(a, 'A3 B2: a1 b1')


@pytest.mark.parametrize('last', ['refusal', 'Delete'])
@either_side
def test_rekey_ike_collision_with_different_groups_and_one_retry_late(
        mover: str, last: str) -> None:
    a, _ = ends(mover, ours={'ike': ONE}, theirs={'ike': OTHER})
    both_want_another_group_for_ike(a)
    play(a, '''
        a -| rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        a ~> rekey A1 B1''')
    never_saw_ike(a, last)


@either_loses
@either_side
def test_rekey_ike_collision_the_response_arrives_after_the_delete(mover: str, loser: str) -> None:
    a, b = ends(mover)
    draw(a, f'{loser} asks')
    both_rekey_ike(a)
    play(a, '''
        a -> rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        b -| grant B3''')
    if loser == 'a':
        play(a, '''
            b -> delete A1 B1
            a -> nothing
            b ~> grant B3''')
        assert sas(a) == 'A3 B2: a1 b1'
        run(a, 60)  # b waits for the end of A2 B3, of which a has never heard
        at_rest(a, 'A3 B2: a1 b1')
    else:
        play(a, '''
            b -> delete A3 B2
            a -> nothing
            b ~> grant B3
            a -> delete A1 B1
            b -> nothing''')
        at_rest(a, 'A2 B3: a1 b1')


@either_loses
@either_side
def test_rekey_ike_collision_with_one_request_lost(mover: str, loser: str) -> None:
    a, _ = ends(mover)
    draw(a, f'{loser} asks')
    both_rekey_ike(a)
    play(a, '''
        a -x rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        b -> delete A1 B1
        a -> nothing''')
    at_rest(a, 'A3 B2: a1 b1')


@either_loses
@either_side
def test_rekey_ike_collision_with_one_request_late(mover: str, loser: str) -> None:
    a, _ = ends(mover)
    draw(a, f'{loser} asks')
    both_rekey_ike(a)
    play(a, '''
        a -| rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        a ~> rekey A1 B1''')
    never_saw_ike(a, last='refusal')


@either_loses
@either_side
def test_rekey_ike_collision_the_delete_comes_after_the_refusal(mover: str, loser: str) -> None:
    a, _ = ends(mover)
    draw(a, f'{loser} asks')
    both_rekey_ike(a)
    play(a, '''
        a -| rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        a ~> rekey A1 B1''')
    never_saw_ike(a, last='Delete')


@pytest.mark.parametrize('last', ['refusal', 'Delete'])
@either_side
def test_rekey_ike_against_its_delete_which_wins(mover: str, last: str) -> None:
    a, b = ends(mover)
    a.begins(rekey_ike_sa)
    b.begins(delete_ike_sa)
    play(a, 'a -> rekey A1 B1')
    play(a, '''
        b -> delete A1 B1
        a -> nothing
        b -> TEMPORARY_FAILURE''' if last == 'refusal' else '''
        b -| delete A1 B1
        b -> TEMPORARY_FAILURE
        b ~> delete A1 B1
        a -> nothing''')
    at_rest(a, '')


@either_side
def test_rekey_ike_against_its_delete_which_is_late_and_a_new_try(mover: str) -> None:
    a, b = ends(mover, timing=Timing(child=NEVER, ike=NEVER, liveness=0, delete_timeout=25))
    a.begins(rekey_ike_sa)
    b.begins(delete_ike_sa)
    play(a, '''
        b -| delete A1 B1
        a -> rekey A1 B1
        b -> TEMPORARY_FAILURE''')
    wait(a, postponed(a))
    lose(b)
    play(a, '''
        a -> rekey A1 B1
        b -> TEMPORARY_FAILURE
        b ~> delete A1 B1
        a -> nothing''')
    at_rest(a, '')


@either_side
def test_rekey_ike_whose_delete_is_lost_for_good(mover: str) -> None:
    a, b = ends(mover)
    a.begins(rekey_ike_sa)
    play(a, '''
        a -> rekey A1 B1
        b -> grant B2''')
    for _ in range(60):
        lose(a, b)
        wait(a, 1)
    for end in a, b: assert why(end) is None
    at_rest(a, 'A2 B2: a1 b1')


@either_side
def test_rekey_ike_collision_and_the_new_ike_sa_is_deleted_before_the_old_one(mover: str) -> None:
    a, b = ends(mover)
    both_rekey_ike(a)
    play(a, '''
        a -x rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        b -| delete A1 B1''')
    b.begins(delete_ike_sa)
    play(a, '''
        b -> delete A3 B2
        a -> nothing
        b ~> delete A1 B1
        a -> nothing''')
    at_rest(a, '')


@either_side
def test_rekey_ike_collision_and_a_child_sa_is_deleted_before_it_is_inherited(mover: str) -> None:
    a, b = ends(mover)
    both_rekey_ike(a)
    play(a, '''
        a -x rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        b -| delete A1 B1''')
    b.begins(delete('b1'))
    play(a, 'b -> delete b1')
    a.held += a.way  # what it answers to that does not matter here
    a.way.clear()
    play(a, f'''
        a ~> {a.held[0].text}
        b ~> delete A1 B1
        a -> nothing''')
    at_rest(a, 'A3 B2:')


# What waits for its turn while the IKE SA is rekeyed (RFC 7296 §1.4: "or its successor")

def rekey_ike_and_then(a: End, conversation: Callable[[IKE], Conversation]) -> list[str]:
    "Let one end begin something else while it rekeys the IKE SA; return what follows."
    for make in rekey_ike_sa, conversation: a.begins(make)
    play(a, '''
        a -> rekey A1 B1
        b -> grant B2''')
    said = run(a, 60)
    for line in 'a -> delete A1 B1', 'b -> nothing': said.remove(line)
    return said


@either_side
def test_a_child_rekey_waits_for_the_new_ike_sa(mover: str) -> None:
    a, _ = ends(mover)
    assert rekey_ike_and_then(a, rekey('a1')) == [
        'a -> rekey a1', 'b -> grant b2', 'a -> delete a1', 'b -> deleted b1']
    at_rest(a, 'A2 B2: a2 b2')


@either_side
def test_a_new_child_waits_for_the_new_ike_sa(mover: str) -> None:
    a, _ = ends(mover, childless='force')
    assert rekey_ike_and_then(a, create_child) == ['a -> create', 'b -> grant b1']
    at_rest(a, 'A2 B2: a1 b1')


@either_side
def test_a_child_delete_waits_for_the_new_ike_sa(mover: str) -> None:
    a, _ = ends(mover)
    assert rekey_ike_and_then(a, delete('a1')) == ['a -> delete a1', 'b -> deleted b1']
    at_rest(a, 'A2 B2:')


@either_side
def test_an_ike_delete_waits_for_the_new_ike_sa(mover: str) -> None:
    a, _ = ends(mover)
    assert rekey_ike_and_then(a, delete_ike_sa) == ['a -> delete A2 B2', 'b -> nothing']
    at_rest(a, '')


@either_side
def test_what_waits_behind_a_lost_request_moves_to_the_ike_sa_that_the_peer_has_made(
        mover: str) -> None:
    a, b = ends(mover)
    for make in liveness, rekey('b1'): b.begins(make)
    a.begins(rekey_ike_sa)
    play(a, '''
        b -x alive?
        a -> rekey A1 B1
        b -> grant B2
        a -> delete A1 B1
        b -> nothing''')
    run(a, 60)
    at_rest(a, 'A2 B2: a2 b2')


@either_side
def test_a_child_rekey_waits_for_the_new_ike_sa_of_the_winner(mover: str) -> None:
    a, _ = ends(mover)
    draw(a, 'a asks')
    both_rekey_ike(a)
    a.begins(rekey('a1'))
    play(a, '''
        a -> rekey A1 B1
        b -> rekey A1 B1
        a -> grant A3
        b -> grant B3''')
    assert 'a -> rekey a1' in run(a, 1)
    run(a, 60)
    at_rest(a, 'A3 B2: a2 b2')
