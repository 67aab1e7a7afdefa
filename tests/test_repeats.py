"An answered request that comes again: how often it is answered again, and which messages are such a one."
import pytest
from ike_lit.wire.const import Discard, ExchangeType
from ike_lit.wire.fragment import ELSEWHERE, REPEAT_SECONDS, REPEATS, Answered, cut_anew
from ike_lit.wire.header import Header, Reader
from test_fragment import OTHERS, OURS, big, cut, made

AT = 1000.0


def answered(**changes: int) -> Answered:
    return Answered(b'request', (1, ExchangeType.IKE_AUTH), (b'response',), AT, **changes)


@pytest.mark.parametrize('at_home, most', [(True, REPEATS), (False, ELSEWHERE)])
def test_an_answer_is_repeated_so_often_and_no_more(at_home: bool, most: int) -> None:
    "What went to other addresses does not count against the peer's own, nor the reverse."
    response = answered(times=0 if at_home else REPEATS, elsewhere=ELSEWHERE if at_home else 0)
    other = response.elsewhere if at_home else response.times
    for n in range(most):
        response.again(AT, at_home)
        assert (response.times, response.elsewhere) == ((n + 1, other) if at_home else (other, n + 1))
    before = repr(response)
    with pytest.raises(Discard, match='given often enough'): response.again(AT, at_home)
    assert repr(response) == before


def test_an_answer_is_repeated_so_long_and_no_longer() -> None:
    response = answered()
    response.again(AT + REPEAT_SECONDS, True)
    with pytest.raises(Discard): response.again(AT + REPEAT_SECONDS + 0.1, True)


def again(data: bytes, sk: object = OURS) -> bool: return cut_anew(sk, Header.parse(Reader(data)), data)


def test_only_the_first_fragment_asks_for_the_answer_again() -> None:
    "RFC 7383 §2.6.1; the others of the same message would bring it once more each."
    assert [again(made(n, 3)) for n in (1, 2, 3)] == [True, False, False]
    whole, = cut(big(), 1000)
    assert not again(whole)


def test_a_fragment_that_is_not_authentic_asks_for_nothing() -> None:
    with pytest.raises(Discard): again(made(1, 3), OTHERS)
