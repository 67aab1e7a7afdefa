"""The story of a session with a postquantum preshared key: with a key log, with the PPK, and with neither;
and the logs of daemons as key logs."""
from collections.abc import Iterator
from dataclasses import replace

import pytest
from explaining import Recorded, every, record, remarks, story
from ike_lit.capture.keylog import MOST_SEEDS, parse_keylog, parse_log, secret_line
from ike_lit.capture.show import Story, story_json
from ike_lit.engine import additional, ike_sa
from ike_lit.engine.create_child_sa import rekey_child, rekey_ike_sa
from ike_lit.wire.const import ExchangeType, MessageType
from ike_lit.wire.payload import Notify
from ike_lit.wire.ppk import LOGGED, Ppk

WINTER, SPRING = Ppk(b'winter', b'x' * 32), Ppk(b'spring', b'y' * 32)
SUITES = {'one': {}, 'two': {'ike': 'aes256gcm16-prfsha384-x25519-ke1_mlkem768',
                             'esp': 'aes256gcm16-x25519-ke1_mlkem768'},
          'three': {'ike': 'aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_ecp256'}}
LATE, EARLY = MessageType.USE_PPK, MessageType.USE_PPK_INT
MISSING = 'a postquantum preshared key goes into them, which was not given'


@pytest.fixture(params=SUITES)
def suite(request: pytest.FixtureRequest) -> dict: return SUITES[request.param]


@pytest.fixture(params=[LATE, EARLY], ids=['IKE_AUTH', 'IKE_INTERMEDIATE'])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MessageType:
    monkeypatch.setattr(ike_sa, 'use_ppk', lambda ppk: (Notify(request.param),) if ppk else ())
    return request.param


@pytest.fixture
def recorded(suite: dict, way: MessageType) -> Recorded:
    found = record(**suite, ppk=WINTER)
    found.go_on('alice', rekey_child, found.alice.established[0].child.inbound.spi)
    found.go_on('bob', rekey_ike_sa)
    return found


def opened(found: Story) -> Iterator[bool]:
    for told in found.told:
        if told.sealed: yield told.content is not None


def keys_of(found: Story, sa: int = 0) -> list:
    return [child.keys for child in found.observer.sas[sa].children]


def right(recorded: Recorded, found: Story) -> bool:
    "All ESP keys are those of the ends."
    for ike in found.observer.sas:
        for child in ike.children:
            made = (child.keys.encr_i, child.keys.integ_i), (child.keys.encr_r, child.keys.integ_r)
            if (recorded.children[child.spi_r], recorded.children[child.spi_i]) != made: return False
    return True


def test_a_key_log_opens_all_of_it(recorded: Recorded, way: MessageType) -> None:
    found = story(recorded.seen, recorded.table)
    assert all(opened(found)) and not every(found, 'wrong') and right(recorded, found)
    assert [len(ike.children) for ike in found.observer.sas] == [2, 0]
    proofs = [text for text in every(found) if text.startswith('AUTH')]
    if way == EARLY: assert all(text.startswith('AUTH is right') for text in proofs)
    else: assert {text.partition(' (')[0] for text in proofs} == {f'AUTH can not be checked: {MISSING}'}


def test_the_lines_of_the_log_say_the_same(recorded: Recorded) -> None:
    roots = recorded.table.mixed.items()
    lines = recorded.lines + ''.join(secret_line(ni, root, LOGGED) for ni, root in roots)
    found = story(recorded.seen, lines)
    assert all(opened(found)) and right(recorded, found)
    assert WINTER.secret.hex() not in lines and ',PPK,' in lines


def test_the_ppk_itself_checks_the_proofs_too(recorded: Recorded) -> None:
    table = replace(recorded.table, mixed={}, ppk=WINTER.secret)
    found = story(recorded.seen, table)
    assert all(opened(found)) and not every(found, 'wrong') and right(recorded, found)
    proofs = [text for text in every(found) if text.startswith('AUTH')]
    assert len(proofs) == 2 and all(text.startswith('AUTH is right') for text in proofs)


def test_another_ppk_proves_nothing(recorded: Recorded, way: MessageType) -> None:
    found = story(recorded.seen, replace(recorded.table, mixed={}, ppk=SPRING.secret))
    wrong = ' '.join(every(found, 'wrong'))
    assert 'does not open' in wrong if way == EARLY else 'AUTH fits none of' in wrong


def test_without_it_what_follows_stays_closed_and_why_is_said(recorded: Recorded, way: MessageType) -> None:
    found = story(recorded.seen, replace(recorded.table, mixed={}))
    told = every(found)
    assert any(MISSING in text for text in told)
    by_kind = {kind: [told.content is not None for told in found.told if told.sealed and told.header
                      and told.header.exchange_type == kind and told.ike is found.observer.sas[0]]
               for kind in (ExchangeType.IKE_AUTH, ExchangeType.CREATE_CHILD_SA)}
    assert set(by_kind[ExchangeType.IKE_AUTH]) == {way == LATE}
    if way == LATE:  # the names and all of the first IKE SA, but no key of a Child SA, nor the next IKE SA
        assert set(by_kind[ExchangeType.CREATE_CHILD_SA]) == {True} and keys_of(found) == [None, None]
        assert found.observer.sas[1].keys is None
    assert not every(found, 'wrong')


def test_what_a_recording_is_worth_depends_on_it(recorded: Recorded, suite: dict, way: MessageType) -> None:
    worth = next(text for text in every(story(recorded.seen)) if 'a recording' in text)
    if suite: assert 'stays closed to' in worth
    elif way == EARLY: assert 'stays closed, if a PPK is agreed on before IKE_AUTH, to' in worth
    else: assert 'shows names, and if a PPK is agreed on nothing more, to' in worth


def test_the_json_names_the_key_exchanges(recorded: Recorded, suite: dict, way: MessageType) -> None:
    first, second = story_json(story(recorded.seen, recorded.table))['ike_sas']
    names = {'one': ['CURVE_25519'], 'two': ['CURVE_25519', 'ML_KEM_768'],
             'three': ['CURVE_25519', 'ML_KEM_768', 'ECP_256']}
    name = next(name for name, each in SUITES.items() if each is suite)
    assert first['key_exchanges'] == second['key_exchanges'] == names[name]
    exchanges = max(len(names[name]) - 1, way == EARLY)
    assert (first['intermediate'], second['intermediate']) == (exchanges, 0)
    assert [c['key_exchanges'] for c in first['children']] == [[], names['two'] if name == 'two' else []]


@pytest.mark.parametrize('who', ['alice', 'bob'])
def test_a_fresh_one_in_create_child_sa(suite: dict, who: str) -> None:
    found = record(**suite, fresh_ppks=lambda: [SPRING])
    found.go_on(who, rekey_child, getattr(found, who).established[0].child.inbound.spi)
    found.go_on(who, rekey_ike_sa)
    found.go_on(who, rekey_child, getattr(found, who).established[-1].child.inbound.spi)
    told = story(found.seen, found.table)
    assert all(opened(told)) and right(found, told) and not every(told, 'wrong')
    assert any('with a PPK in it' in text for text in every(told))
    without = story(found.seen, replace(found.table, mixed={}))
    assert any(MISSING in text for text in every(without)) and not every(without, 'wrong')
    assert keys_of(without)[1] is None and without.observer.sas[1].keys is None


def test_an_exchange_that_means_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    "A PPK that is not taken: IKE_INTERMEDIATE has come to pass, and no key has changed."
    mine, yours = replace(WINTER, mandatory=False), Ppk(b'winter', b'z' * 32, mandatory=False)
    found = record(alices={'ppk': mine}, bobs={'ppk': yours})
    told = story(found.seen, found.table)
    assert all(opened(told)) and right(found, told) and not every(told, 'wrong')
    middle = [t for t in told.told if t.header.exchange_type == ExchangeType.IKE_INTERMEDIATE]
    assert remarks(middle[1])[-1].startswith('both ends sign what it says (')
    assert sum('AUTH is right' in text for text in every(told)) == 2


def test_keys_from_the_old_spis_are_named(suite: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    "A mistake that daemons have made, at both ends alike, so that nothing seems to be wrong."
    found = record(**suite)
    old = found.alice.established[0]
    spis, real = (old.spi_i, old.spi_r), additional.ike_keys
    monkeypatch.setattr(additional, 'ike_keys', lambda *how: real(*how[:4], *spis))
    found.go_on('alice', rekey_ike_sa)
    found.go_on('bob', rekey_child, found.bob.established[-1].child.inbound.spi)
    wrong = every(story(found.seen, found.table), 'wrong')
    assert len(wrong) >= 2
    assert all('opens only with keys made from the SPIs of the IKE SA before' in text for text in wrong)


# The logs of daemons

def dumped(thread: int, name: str, octets: bytes, group: str = 'IKE') -> str:
    lines = [f'{name} => {len(octets)} bytes @ 0x7fdd0c038b30']
    for at in range(0, len(octets), 16):
        row = octets[at:at + 16]
        text = ''.join(chr(c) if 32 < c < 127 else '.' for c in row)
        lines.append(f'{at:4}: {row.hex(" ").upper():47}  {text}')
    return ''.join(f'12:24:43.301 {thread:02}[{group}] {line}\n' for line in lines)


def test_threads_do_not_disturb_each_other() -> None:
    one, two = (dumped(n, 'key exchange secret', bytes([n]) * 32).splitlines(True) for n in (1, 2))
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    nonces = [dumped(n, 'nonces', bytes([n]) * 32 + bytes([n + 7]) * 32) for n in (2, 1)]
    table = parse_log(''.join((*mixed, *nonces)))
    assert table.secrets == {bytes([n]) * 32: bytes([n]) * 32 for n in (1, 2)}


@pytest.mark.parametrize('size', [16, 20, 64, 256])
def test_a_peers_nonce_may_have_another_size(size: int) -> None:
    "charon's own has 32 octets, whichever end it is."
    ni, nr = b'i' * size, b'r' * 32
    for both, expected in (ni + nr, ni), (nr + ni, nr):
        table = parse_log(dumped(7, 'key exchange secret', b's' * 32) + dumped(7, 'nonces', both))
        assert table.secrets[expected] == b's' * 32


def test_joined_secrets_are_one() -> None:
    table = parse_log(dumped(7, 'key exchange secret', b's' * 32)
                      + dumped(7, 'additional key exchange secret', b'm' * 64)
                      + dumped(7, 'seed', b's' * 32 + b'i' * 32 + b'r' * 32 + b'm' * 64, 'CHD'))
    assert b''.join(table.more[b'i' * 32, n] for n in (1, 2)) == b'm' * 64


@pytest.mark.parametrize('text', [
    '09[IKE] key exchange secret => 4 bytes @ 0x1\n', '09[CHD] seed => 0 bytes\n',
    '09[IKE] nonces => 99999999999999 bytes\n09[IKE]    0: 00\n', '09[IKE]    0: 00 01\n',
    dumped(1, 'key exchange secret', b's' * 32)])
def test_a_log_without_a_secret_says_what_would_bring_it(text: str) -> None:
    with pytest.raises(ValueError, match=r'^a log of charon without a secret; it logs them with ike = 4'):
        parse_log(text)


def test_a_log_of_years_is_bounded() -> None:
    log = ''.join(dumped(1, 'shared Diffie Hellman secret', n.to_bytes(4, 'big') * 8)
                  + dumped(1, 'SKEYSEED', n.to_bytes(4, 'big')) for n in range(MOST_SEEDS + 99))
    assert len(parse_log(log).seeds) == MOST_SEEDS


def test_many_exchanges_of_one_nonce_end() -> None:
    log = ''.join(dumped(1, 'key exchange secret', bytes([n]) * 32) + dumped(1, 'nonces', b'i' * 64)
                  for n in range(1, 30))
    assert parse_log(log).size == LOGGED


def test_other_logs_are_named() -> None:
    with pytest.raises(ValueError, match='pluto keeps its keys in NSS'):
        parse_log('Dec  1 12:23:34: Starting Pluto (Libreswan Version 4.10 IKEv2)')
    line = secret_line(b'n' * 16, b's')
    assert parse_log(line).secrets == parse_keylog(line).secrets == {b'n' * 16: b's'}
