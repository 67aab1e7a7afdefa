"""What the explainer says is true: it is compared with the secrets that strongSwan has logged,
with what tshark makes of the same octets, and with what the two ends themselves have.
"""
import json
import re
from ipaddress import ip_address
from pathlib import Path

import pytest
from explaining import (
    BELIEVED, LIVE, Field, Frame, Recorded, certified, every, flipped, kinds, needs_tshark, numbered,
    pcap, record, remarks, said, story, tiled, tshark, wireshark)
from ike_lit.capture.keylog import KeyTable, secret_line
from ike_lit.capture.observer import TrustAnchors
from ike_lit.capture.pcap import read_capture
from ike_lit.capture.show import Story
from ike_lit.engine.create_child_sa import create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.informational import delete_child, delete_ike_sa, liveness
from ike_lit.testing.network import ALICE, BOB
from ike_lit.wire.auth import SharedKey
from ike_lit.wire.configuration import Pool
from ike_lit.wire.header import Dissection
from ike_lit.wire.ke import KE
from ike_lit.wire.nat import Endpoint
from ike_lit.wire.nonce import Nonce
from ike_lit.wire.ts import TrafficSelector

h = bytes.fromhex


# strongSwan: four sessions with a rekeyed Child SA and a rekeyed IKE SA, and all their secrets

NAMES = {  # what Wireshark calls their ciphers
    'aes128_sha256_modp2048': ('AES-CBC-128 [RFC3602]', 'HMAC_SHA2_256_128 [RFC4868]'),
    'aes128ccm12_prfsha256_ecp256': ('AES-CCM-128 with 12 octet ICV [RFC5282]', 'NONE [RFC4306]'),
    'aes128gcm8_prfaesxcbc_ecp256': ('AES-GCM-128 with 8 octet ICV [RFC5282]', 'NONE [RFC4306]'),
    'aes256gcm16_prfsha384_ecp521': ('AES-GCM-256 with 16 octet ICV [RFC5282]', 'NONE [RFC4306]')}


class Session:
    "A captured session, and key logs that are made of what strongSwan has logged."

    def __init__(self, path: Path):
        self.path, self.log = path, json.loads((path / 'keys.json').read_text())
        with (path / 'capture.pcap').open('rb') as file: self.seen = read_capture(file).messages
        spis = [(m.data[:8], m.data[8:16]) for m in self.seen if any(m.data[8:16])]
        self.spis = list(dict.fromkeys(spis))  # of the two IKE SAs
        self.rows = ''.join(map(self.row, self.spis, self.log['ike_sas']))
        opened = story(self.seen, self.rows)  # for the nonces that were sealed; no secret fits another
        asked = [t.packet.one(Nonce).data for t in opened.told
                 if not t.header.response and t.packet and t.packet.all(KE)]
        pfs = self.blocks('DH secret')  # of the Child SA, whose rekeying comes between
        first, last = (h(sa['shared']) for sa in self.log['ike_sas'])
        self.secrets = dict(zip(asked, [first, *pfs, last], strict=True))
        self.lines = ''.join(secret_line(*item) for item in self.secrets.items())
        self.psk = TrustAnchors(shared=SharedKey(self.log['psk_ascii'].encode()))

    def row(self, spis: tuple[bytes, bytes], sa: dict) -> str:
        encr, integ = NAMES[self.path.name]
        k = [sa.get(name, '') for name in ('Sk_ei', 'Sk_er', 'Sk_ai', 'Sk_ar')]
        return f'{spis[0].hex()},{spis[1].hex()},{k[0]},{k[1]},"{encr}",{k[2]},{k[3]},"{integ}"\n'

    def blocks(self, name: str) -> list[bytes]:
        return [h(b['hex']) for b in self.log['log_blocks'] if b['name'] == name]


@pytest.fixture(scope='module', params=LIVE, ids=lambda path: path.name)
def live(request: pytest.FixtureRequest) -> Session: return Session(request.param)


def test_strongswans_messages_open_by_rows_alone(live: Session) -> None:
    "Exchange, flags, Message ID and the payloads inside are strongSwan's; keys of ESP take SK_d."
    found = story(live.seen, live.rows, live.psk)
    for told, expected in zip(found.told[2:], live.log['messages'], strict=True):
        assert (told.header.exchange_type, told.header.message_id) == (expected['exchange'], expected['mid'])
        assert told.header.response == bool(expected['flags'] & 0x20)
        assert told.header.initiator == bool(expected['flags'] & 0x08)
        assert kinds(told) == expected['inner_payloads']
        assert told.sealed and told.inside
    assert not every(found, 'odd', 'wrong')
    assert sum('AUTH can not be checked' in text for text in every(found)) == 2
    assert all(child.keys is None for ike in found.observer.sas for child in ike.children)


def test_strongswans_keys_follow_from_g_ir(live: Session) -> None:
    "All seven keys of both IKE SAs, and of both pairs of ESP SAs, with and without PFS."
    found = story(live.seen, live.lines, live.psk)
    first, second = found.observer.sas
    names = ('Sk_d', 'Sk_ai', 'Sk_ar', 'Sk_ei', 'Sk_er', 'Sk_pi', 'Sk_pr')
    for ike, logged, spis in zip((first, second), live.log['ike_sas'], live.spis, strict=True):
        assert tuple(vars(ike.keys).values()) == tuple(h(logged.get(name, '')) for name in names)
        assert (ike.spi_i, ike.spi_r) == spis
    assert second.parent is first and len(first.children) == 2
    logged = [live.blocks(f'{what} {whose} key') for whose in ('initiator', 'responder')
              for what in ('encryption', 'integrity')]
    for n, child in enumerate(first.children):
        assert list(vars(child.keys).values()) == [keys[n] if keys else b'' for keys in logged]
    assert not every(found, 'odd', 'wrong') and all(kinds(t) is not None for t in found.told)
    texts = every(found)
    for section in '2.14', '2.18':  # the first IKE SA, and the one that grew out of it
        assert texts.count(f'SKEYSEED and all keys computed from g^ir (RFC 7296 §{section})') == 1
    own = sum('computed from SK_d and a g^ir of its own' in text for text in texts)
    assert own == len(live.blocks('DH secret')) == ('521' in live.path.name)


def test_strongswans_proofs(live: Session) -> None:
    "Its own shared key fits both AUTH payloads, another one fits neither; names are those of its log."
    right = story(live.seen, live.lines, live.psk)
    assert sum('AUTH is right: method 2, shared key' in text for text in every(right)) == 2
    wrong = story(live.seen, live.lines, TrustAnchors(shared=SharedKey(b'correct horse')))
    assert every(wrong, 'wrong') == 2 * ['AUTH does not fit the shared key (RFC 7296 §2.15)']
    unknown = story(live.seen, live.lines, BELIEVED)
    assert sum('AUTH by a shared key, which was not given' in text for text in every(unknown)) == 2
    for found in right, wrong:
        names = found.observer.sas[0].names
        assert names == {True: f'RFC822_ADDR {live.log["initiator"]["id"]}',
                         False: f'FQDN {live.log["responder"]["id"]}'}


def test_strongswans_choices(live: Session) -> None:
    "What was selected, as its log has it, in the outcome and in the responses."
    found = story(live.seen, live.lines, live.psk)
    first, second = found.observer.sas
    suites = [first.suite, *(child.suite for child in first.children), second.suite]
    said_so = [f'selected proposal: {suite}'.replace('/NO_ESN/ECP_521', '/ECP_521/NO_EXT_SEQ')
               .replace('NO_ESN', 'NO_EXT_SEQ') for suite in suites]
    assert said_so == live.log['selected']
    conversation, = found.conversations()
    text = '\n'.join(found.outcome(conversation))
    for suite in suites: assert str(suite) in text
    assert sum(t.startswith('chooses ') for t in every(found)) == len(suites)


def test_strongswans_addresses(live: Session) -> None:
    "What it hashed for NAT detection: its own source not at all (it wants UDP), the other's address truly."
    found = story(live.seen, live.lines, live.psk)
    assert live.blocks('natd_chunk')[1][-6:] == ip_address('10.9.0.2').packed + h('01f4')
    for told in found.told[:2]:
        about = [text for text in remarks(told) if '§2.23' in text]
        assert about == [f'a NAT has changed the source {told.seen.source}, or the sender says so '
                         'to have ESP in UDP (RFC 7296 §2.23)']


def test_rows_and_g_ir_of_strongswan_agree_or_the_story_says_so(live: Session) -> None:
    same = 'the keys in the row of the key log are the same'
    both = story(live.seen, live.rows + live.lines, live.psk)
    assert every(both).count(same) == 2 and not every(both, 'wrong')
    spoilt = live.rows.replace(live.log['ike_sas'][1]['Sk_er'], 'ab' * (len(
        live.log['ike_sas'][1]['Sk_er']) // 2))
    other = story(live.seen, spoilt + live.lines, live.psk)
    assert every(other).count(same) == 1
    assert every(other, 'wrong') == ['the row of the key log has other keys']
    assert [kinds(t) for t in other.told] == [kinds(t) for t in both.told]


def test_other_keys_open_nothing(live: Session) -> None:
    "Of another session's rows under these SPIs, and of a g^ir with one bit changed."
    wrong_line = {ni: flipped(secret, -1) for ni, secret in live.secrets.items()}
    swapped = live.rows.splitlines()
    swapped = ''.join(','.join([*a.split(',')[:2], *b.split(',')[2:]]) + '\n'
                      for a, b in zip(swapped, swapped[::-1], strict=True))
    for keys in KeyTable(secrets=wrong_line), swapped:
        found = story(live.seen, keys, live.psk)
        assert not any(t.inside for t in found.told)
        assert not any('AUTH is right' in text for text in every(found))
        sealed = [t for t in found.told if t.sealed and t.ike.locks]
        assert len(sealed) >= 10
        for told in sealed: assert any('does not open' in text for text in remarks(told, 'wrong'))


@pytest.mark.parametrize('cut', [1, 2, 3, 9, 13])
def test_a_capture_that_begins_in_the_middle(live: Session, cut: int) -> None:
    """What is there is read with rows; without the first two messages no proof is said to be right,
    and g^ir, whose nonce was not seen, opens nothing of the first IKE SA."""
    found = story(live.seen[cut:], live.rows, live.psk)
    assert len(found.observer.sas) == len({m.data[:16] for m in live.seen[cut:]})
    inside = [m['inner_payloads'] for m in live.log['messages']]
    assert [kinds(t) for t in found.told if t.sealed] == inside[max(0, cut - 2):]
    assert not every(found, 'wrong')
    by_number = story(live.seen[cut:], live.lines, live.psk)
    assert not any('AUTH is right' in text for text in every(by_number))
    assert not any(t.inside for t in by_number.told) and not every(by_number, 'wrong')
    assert [t.header for t in by_number.told] == [t.header for t in found.told]


# Wireshark

WORDS = {  # what tshark calls a field, and what we do
    'nextpayload': 'Next Payload|Last Substruc', 'exchangetype': 'Exchange Type',
    'messageid': 'Message ID', 'length': 'Length', 'flag_i': 'I', 'flag_r': 'R',
    'mjver': 'MjVer', 'mnver': 'MnVer', 'criticalpayload': 'C',
    'payloadlength': 'Payload Length|Proposal Length|Transform Length',
    'prop.number': 'Proposal Num', 'prop.protoid': 'Protocol ID', 'notify.protoid': 'Protocol ID',
    'delete.protoid': 'Protocol ID', 'spisize': 'SPI Size', 'prop.transforms': 'Num Transforms',
    'tf.type': 'Transform Type', 'tf.id.encr': 'Transform ID', 'tf.id.prf': 'Transform ID',
    'tf.id.integ': 'Transform ID', 'tf.id.dh': 'Transform ID', 'tf.id.esn': 'Transform ID',
    'ike2.attr.key_length': 'Value or Length', 'key_exchange.dh_group': 'Diffie-Hellman Group Num',
    'notify.msgtype': 'Notify Message Type', 'id.type': 'ID Type', 'auth.method': 'Auth Method',
    'ts.number': 'Number of TSs', 'ts.type': 'TS Type', 'ts.protoid': 'IP Protocol ID',
    'ts.selector_length': 'Selector Length', 'ts.start_port': 'Start Port',
    'ts.end_port': 'End Port', 'frag.number': 'Fragment Number', 'frag.total': 'Total Fragments',
    'delete.numspi': 'Num of SPIs', 'cfg.type': 'CFG Type', 'cert.encoding': 'Cert Encoding',
    'certreq.type': 'Cert Encoding', 'auth.data.sig.asn1.len': 'ASN.1 Length',
    'enc.pad_length': 'Pad Length'}
BOXES = 46, 53
DEEPER = ('isakmp.notify.data.', 'isakmp.certreq.', 'isakmp.cert.', 'isakmp.cfg.attr')


def agree(fields: list[Field], dissection: Dissection) -> int:
    "Compare a dissection with tshark's: the same borders, octets and numbers. How many numbers."
    texts, numbers = said(dissection), 0
    theirs = {(f.at, f.size): f.octets for f in fields}
    for span in dissection.spans:
        assert (span.at, len(span.octets)) in theirs, (span.at, texts[span.at])
        octets = theirs[span.at, len(span.octets)]
        assert octets in (None, span.octets)
    begins = {span.at for span in dissection.spans}
    for f in fields:
        name = f.name.removeprefix('isakmp.')
        if not f.name.startswith(DEEPER): assert f.at in begins, f
        if name not in WORDS: continue
        words, number = WORDS[name], int(f.show, 0)
        shape = rf'(^|  )({words}) = {number}( |$)'
        if name in ('auth.data.sig.asn1.len', 'enc.pad_length'): shape = rf'^{words}  \({number} octets'
        assert any(re.search(shape, text) for text in texts[f.at]), (f, texts[f.at])
        numbers += 1
    return numbers


def compared(messages: list, keys: str, path: Path, folder: Path) -> tuple[Story, list[Frame]]:
    "Compare a story with what tshark tells, octet by octet."
    found = story(messages, keys) if messages else story(read_capture(path.open('rb')).messages, keys)
    if messages: path.write_bytes(pcap(messages))
    frames = tshark(path, keys, folder)
    assert [f.number for f in frames] == [t.seen.number for t in found.told]
    for frame, told in zip(frames, found.told, strict=True):
        assert agree(frame.outside, told.outside) >= 9  # the header
        pieces = any(re.match(r'fragment \d', text) for text in remarks(told))
        if frame.inside and told.inside and not (pieces and not told.packet.sizes):
            assert agree(frame.inside, told.inside) or kinds(told) == []
        assert bool(frame.inside) == bool(told.inside)
        if not pieces or told.packet.sizes:  # else a part of a message that is not complete yet
            assert [n for n in frame.payloads if n not in BOXES] == [n for n in kinds(told) if n not in BOXES]
    return found, frames


@needs_tshark
def test_tshark_reads_strongswans_messages_alike(tmp_path: Path) -> None:
    "Four conversations in one file, with strongSwan's keys: each border, each number, each octet."
    sessions = [Session(path) for path in LIVE]
    merged = tmp_path / 'all.pcap'
    wireshark('mergecap', '-F', 'pcap', '-a', '-w', merged, *(s.path / 'capture.pcap' for s in sessions))
    rows = ''.join(s.rows for s in sessions)
    found, frames = compared([], rows, merged, tmp_path)
    assert len(frames) == 4 * 14 and sum(bool(f.inside) for f in frames) >= 4 * 12 - 8
    by_number = story([t.seen for t in found.told], ''.join(s.lines for s in sessions))
    assert [kinds(t) for t in by_number.told] == [kinds(t) for t in found.told]
    for told in found, by_number: assert [len(c.messages) for c in told.conversations()] == 4 * [14]


def lives() -> list[Recorded]:
    "Conversations of ours that have between them each payload, and each detour."
    fast = record(esp='aes128gcm16-x25519', seed=11)
    fast.go_on('alice', rekey_child, fast.alice.established[0].child.inbound.spi)
    fast.go_on('bob', rekey_child, fast.bob.established[0].child.inbound.spi)
    fast.go_on('bob', rekey_ike_sa)
    fast.go_on('alice', create_child)
    fast.go_on('alice', liveness)
    fast.go_on('alice', delete_child, next(iter(fast.alice.established[0].children)))
    fast.go_on('alice', rekey_ike_sa)
    fast.go_on('bob', delete_ike_sa)
    six = Endpoint('2001:db8::1', 500), Endpoint('2001:db8::2', 500)
    pool = Pool(['10.3.0.0/24', '2001:db8:3::/112'], ['10.3.0.53'])
    every_ts = tuple(map(TrafficSelector.from_text, ('0.0.0.0/0', '::/0')))
    asked = tuple(map(ip_address, ('0.0.0.0', '::')))  # noqa: S104  # any that there is
    natt = tuple(Endpoint(end.host, 4500, True) for end in (ALICE, BOB))
    return [
        fast, record('aes256-sha384-modp2048', 'aes256-sha512', seed=12, left=six[0], right=six[1],
                     mode='transport', alices=certified('initiator'), bobs=certified('responder')),
        record('aes256ctr-sha512-ecp384', seed=13, datagram=400, cookies=0),
        record('aes128ccm16-prfsha256-x25519-ecp256', bobs_ike='aes128ccm16-prfsha256-ecp256', seed=14,
               cookies=0, left=natt[0], right=natt[1]),
        record(seed=15, alices={'request': asked, 'local_ts': every_ts, 'remote_ts': every_ts},
               bobs={'pool': pool, 'local_ts': every_ts, 'remote_ts': every_ts})]


@needs_tshark
def test_tshark_reads_our_messages_alike(tmp_path: Path) -> None:
    "With our key log in Wireshark's place; its reading does not depend on the lines with g^ir."
    recorded = lives()
    messages = numbered(m for r in recorded for m in r.seen)
    keys = ''.join(r.lines + r.rows for r in recorded)
    found, frames = compared(messages, keys, tmp_path / 'all.pcap', tmp_path)
    opened = [f for f in frames if f.inside]
    assert len(opened) >= len(frames) - 6 * len(recorded)
    assert {n for frame in frames for n in frame.payloads} == {
        33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 44, 45, 46, 47, 53}
    assert not every(found, 'odd', 'wrong')
    for frame, told in zip(frames, found.told, strict=True):
        assert tiled(told.outside) == told.seen.data
        whole = next((f.octets for f in frame.inside if f.name == 'isakmp.enc.contained'), b'')
        if told.inside and not told.packet.sizes: assert tiled(told.inside).startswith(whole or b'')

