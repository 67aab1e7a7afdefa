"What every algorithm is called elsewhere: by the Linux kernel, by setkey, by Wireshark."
import os
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from shutil import which

import pytest
from canonical import configs, two_ends
from ike_lit.capture.keylog import keylog_row
from ike_lit.cli.report import script_lines
from ike_lit.engine.create_child_sa import RESPONDERS, create_child, rekey_child, rekey_ike_sa
from ike_lit.engine.host import Host
from ike_lit.engine.informational import delete_ike_sa, liveness
from ike_lit.engine.model import ChildSA, Datagram, EspSA, Lifetime, Message, Timing
from ike_lit.engine.protocol import IKE
from ike_lit.kernel.dialects import SETKEY, XFRM, setkey_script, xfrm_script
from ike_lit.testing.network import ALICE, BOB, Network, handshake
from ike_lit.wire.const import ExchangeType, ProtocolID, TransformType, Type
from ike_lit.wire.keys import Keys
from ike_lit.wire.proposal import ALGORITHMS, Proposal, parse_proposals
from ike_lit.wire.ts import TrafficSelector
from peers.strongswan import PACKAGES, execute
from scapy.layers.inet import IP, UDP
from scapy.utils import wrpcap

# Octets of key, with the salt; then what include/uapi and crypto/ of Linux say,
# and what setkey(8) of FreeBSD and NetBSD say, if they have a word.
CBC = {'aes128': 16, 'aes192': 24, 'aes256': 32}
CAMELLIA = {'camellia128': 16, 'camellia192': 24, 'camellia256': 32}
CTR = {'aes128ctr': 20, 'aes192ctr': 28, 'aes256ctr': 36}
CLASSIC = {
    **dict.fromkeys(CBC, ('cbc(aes)', 'rijndael-cbc')),
    **dict.fromkeys(CAMELLIA, ('cbc(camellia)', 'camellia-cbc')),
    **dict.fromkeys(CTR, ('rfc3686(ctr(aes))', 'aes-ctr'))}
AEAD = {  # octets of key, the kernel's name, bits of checksum, setkey's name
    'aes128gcm8': (20, 'rfc4106(gcm(aes))', 64, ''),
    'aes192gcm8': (28, 'rfc4106(gcm(aes))', 64, ''),
    'aes256gcm8': (36, 'rfc4106(gcm(aes))', 64, ''),
    'aes128gcm12': (20, 'rfc4106(gcm(aes))', 96, ''),
    'aes192gcm12': (28, 'rfc4106(gcm(aes))', 96, ''),
    'aes256gcm12': (36, 'rfc4106(gcm(aes))', 96, ''),
    'aes128gcm16': (20, 'rfc4106(gcm(aes))', 128, 'aes-gcm-16'),
    'aes192gcm16': (28, 'rfc4106(gcm(aes))', 128, 'aes-gcm-16'),
    'aes256gcm16': (36, 'rfc4106(gcm(aes))', 128, 'aes-gcm-16'),
    'aes128ccm8': (19, 'rfc4309(ccm(aes))', 64, ''),
    'aes192ccm8': (27, 'rfc4309(ccm(aes))', 64, ''),
    'aes256ccm8': (35, 'rfc4309(ccm(aes))', 64, ''),
    'aes128ccm12': (19, 'rfc4309(ccm(aes))', 96, ''),
    'aes192ccm12': (27, 'rfc4309(ccm(aes))', 96, ''),
    'aes256ccm12': (35, 'rfc4309(ccm(aes))', 96, ''),
    'aes128ccm16': (19, 'rfc4309(ccm(aes))', 128, ''),
    'aes192ccm16': (27, 'rfc4309(ccm(aes))', 128, ''),
    'aes256ccm16': (35, 'rfc4309(ccm(aes))', 128, ''),
    'chacha20poly1305': (36, 'rfc7539esp(chacha20,poly1305)', 128, 'chacha20-poly1305')}
INTEG = {  # octets of key, the kernel's name, bits of checksum, setkey's name
    'sha256': (32, 'hmac(sha256)', 128, 'hmac-sha2-256'),
    'sha384': (48, 'hmac(sha384)', 192, 'hmac-sha2-384'),
    'sha512': (64, 'hmac(sha512)', 256, 'hmac-sha2-512'),
    'aesxcbc': (16, 'xcbc(aes)', 96, 'aes-xcbc-mac'), 'aescmac': (16, 'cmac(aes)', 96, '')}
PAIRS = [(cipher, integ) for cipher in CLASSIC for integ in INTEG]


def child(esp: str) -> ChildSA:
    "A Child SA with keys that are easily told apart: what is sent is e1 and a1."
    suite, = parse_proposals(esp, ProtocolID.ESP)
    encr, integ = suite.single(TransformType.ENCR), suite.single(TransformType.INTEG)
    e, a = ALGORITHMS[esp.partition('-')[0]].key_size, INTEG.get(esp.partition('-')[2], (0,))[0]
    network, other = (TrafficSelector.from_text(f'10.{n}.0.0/24') for n in (1, 2))
    here, there = '192.0.2.1', '192.0.2.2'
    return ChildSA(
        EspSA(there, here, b'\x5a\0\0\1', encr, b'\xe2' * e, integ, b'\xa2' * a),
        EspSA(here, there, b'\x5b\0\0\2', encr, b'\xe1' * e, integ, b'\xa1' * a),
        (network,), (other,))


def test_every_algorithm_for_esp_has_a_row_here() -> None:
    of = {kind: {word for word, row in ALGORITHMS.items()
                 if row.transform.type == kind and not row.weak} for kind in TransformType}
    assert set(CLASSIC) | set(AEAD) == of[TransformType.ENCR]
    assert set(INTEG) == of[TransformType.INTEG]


# The kernel

def states(esp: str, **options: bool) -> list[str]:
    return [line for line in xfrm_script(child(esp), **options).splitlines() if ' state ' in line]


HEAD = ('xfrm state add src {} dst {} proto esp spi 0x{} reqid 337 mode tunnel '
        'replay-window 32 flag af-unspec ')
WAYS = [('192.0.2.2', '192.0.2.1', '5a000001', '2'), ('192.0.2.1', '192.0.2.2', '5b000002', '1')]


@pytest.mark.parametrize('word', AEAD)
def test_the_kernels_names_of_aeads(word: str) -> None:
    size, name, bits, _ = AEAD[word]
    lines = states(word, show_keys=True)
    for line, (*ends, n) in zip(lines, WAYS, strict=True):
        assert re.sub('reqid [0-9]+', 'reqid 337', line) == (
            HEAD.format(*ends) + f'aead {name} 0x{f"e{n}" * size} {bits}')
    hidden = '\n'.join(states(word))
    assert 'e1e1' not in hidden and hidden.count(f'<{size} octets>') == 2


@pytest.mark.parametrize('cipher, integ', PAIRS)
def test_the_kernels_names_of_ciphers_and_checksums(cipher: str, integ: str) -> None:
    size, (name, _) = {**CBC, **CAMELLIA, **CTR}[cipher], CLASSIC[cipher]
    octets, hash_name, bits, _ = INTEG[integ]
    lines = states(f'{cipher}-{integ}', show_keys=True)
    for line, (*ends, n) in zip(lines, WAYS, strict=True):
        assert re.sub('reqid [0-9]+', 'reqid 337', line) == (
            HEAD.format(*ends) + f'enc {name} 0x{f"e{n}" * size} '
                                 f'auth-trunc {hash_name} 0x{f"a{n}" * octets} {bits}')
    hidden = '\n'.join(states(f'{cipher}-{integ}'))
    assert 'e1e1' not in hidden and 'a1a1' not in hidden


@pytest.mark.parametrize('word', AEAD)
def test_a_nat_and_transport_mode_change_nothing_about_it(word: str) -> None:
    moved = replace(child(word), mode='transport', encap=(4500, 61000))
    line = next(line for line in xfrm_script(moved).splitlines() if '5b000002' in line)
    size, name, bits, _ = AEAD[word]
    assert ' mode transport ' in line and line.endswith(
        f' aead {name} <{size} octets> {bits} encap espinudp 4500 61000 0.0.0.0')


# setkey

NO_WORD = '^setkey has no word for [A-Z_0-9/]+; ip xfrm has one$'


@pytest.mark.parametrize('word', AEAD)
def test_setkeys_names_of_aeads(word: str) -> None:
    size, _, _, name = AEAD[word]
    if not name:
        with pytest.raises(ValueError, match=NO_WORD): setkey_script(child(word))
        for language in XFRM, SETKEY:
            shown = list(script_lines(child(word), language, show_keys=True))
            assert (len(shown) == 1) == (language is SETKEY)
        assert shown[0].startswith('no script: setkey has no word') and '\n' not in shown[0]
        return
    outbound = setkey_script(child(word), show_keys=True).splitlines()[1]
    assert re.sub('-u [0-9]+', '-u 337', outbound) == (
        'add 192.0.2.1 192.0.2.2 esp 0x5b000002 -m tunnel -u 337 -r 32 '
        f'-E {name} 0x{"e1" * size};')
    assert 'e1e1' not in setkey_script(child(word))


@pytest.mark.parametrize('cipher, integ', PAIRS)
def test_setkeys_names_of_ciphers_and_checksums(cipher: str, integ: str) -> None:
    size, (_, name) = {**CBC, **CAMELLIA, **CTR}[cipher], CLASSIC[cipher]
    octets, _, _, hash_name = INTEG[integ]
    made = child(f'{cipher}-{integ}')
    if not hash_name:
        with pytest.raises(ValueError, match=NO_WORD): setkey_script(made)
        return
    outbound = setkey_script(made, show_keys=True).splitlines()[1]
    assert re.sub('-u [0-9]+', '-u 337', outbound) == (
        'add 192.0.2.1 192.0.2.2 esp 0x5b000002 -m tunnel -u 337 -r 32 '
        f'-E {name} 0x{"e1" * size} -A {hash_name} 0x{"a1" * octets};')


@pytest.mark.parametrize('esp, cut', [
    ('aes256-sha256', True), ('camellia128-sha256', True), ('aes256-sha384', False),
    ('aes256-sha512', False), ('aes128-aesxcbc', False), ('aes256gcm16', False),
    ('chacha20poly1305', False)])
def test_the_warning_about_hmac_sha2_256_is_given_where_there_is_one(esp: str, cut: bool) -> None:
    "Linux's PF_KEY cuts SHA2-256 to 96 bits, as an old draft had it, and no other."
    warned = any('PF_KEY cuts HMAC-SHA2-256' in line for line in script_lines(child(esp), SETKEY))
    assert warned == cut
    for line in script_lines(child(esp), SETKEY, on_linux=False): assert 'PF_KEY' not in line


def test_a_weak_algorithm_is_refused_by_both() -> None:
    "3DES and SHA-1 can't be negotiated; if they were here, nobody would trip over them."
    weak = tuple(ALGORITHMS[word].transform for word in ('3des', 'sha1'))
    for encr, integ in (weak[0], child('aes128-sha256').inbound.integ), (
            child('aes128-sha256').inbound.encr, weak[1]):
        good = child('aes128-sha256')
        old = replace(good, inbound=replace(good.inbound, encr=encr, integ=integ),
                      outbound=replace(good.outbound, encr=encr, integ=integ))
        for render in xfrm_script, setkey_script:
            with pytest.raises(ValueError): render(old)


# Wireshark

ROWS = {  # its names, from epan/dissectors/packet-isakmp.c
    'aes128': 'AES-CBC-128 [RFC3602]', 'aes192': 'AES-CBC-192 [RFC3602]',
    'aes256': 'AES-CBC-256 [RFC3602]', 'aes128ctr': 'AES-CTR-128 [RFC5930]',
    'aes192ctr': 'AES-CTR-192 [RFC5930]', 'aes256ctr': 'AES-CTR-256 [RFC5930]',
    'aes128gcm8': 'AES-GCM-128 with 8 octet ICV [RFC5282]',
    'aes192gcm8': 'AES-GCM-192 with 8 octet ICV [RFC5282]',
    'aes256gcm8': 'AES-GCM-256 with 8 octet ICV [RFC5282]',
    'aes128gcm12': 'AES-GCM-128 with 12 octet ICV [RFC5282]',
    'aes192gcm12': 'AES-GCM-192 with 12 octet ICV [RFC5282]',
    'aes256gcm12': 'AES-GCM-256 with 12 octet ICV [RFC5282]',
    'aes128gcm16': 'AES-GCM-128 with 16 octet ICV [RFC5282]',
    'aes192gcm16': 'AES-GCM-192 with 16 octet ICV [RFC5282]',
    'aes256gcm16': 'AES-GCM-256 with 16 octet ICV [RFC5282]',
    'aes128ccm8': 'AES-CCM-128 with 8 octet ICV [RFC5282]',
    'aes192ccm8': 'AES-CCM-192 with 8 octet ICV [RFC5282]',
    'aes256ccm8': 'AES-CCM-256 with 8 octet ICV [RFC5282]',
    'aes128ccm12': 'AES-CCM-128 with 12 octet ICV [RFC5282]',
    'aes192ccm12': 'AES-CCM-192 with 12 octet ICV [RFC5282]',
    'aes256ccm12': 'AES-CCM-256 with 12 octet ICV [RFC5282]',
    'aes128ccm16': 'AES-CCM-128 with 16 octet ICV [RFC5282]',
    'aes192ccm16': 'AES-CCM-192 with 16 octet ICV [RFC5282]',
    'aes256ccm16': 'AES-CCM-256 with 16 octet ICV [RFC5282]', '3des': '3DES [RFC2451]'}
CHECKS = {
    'sha256': 'HMAC_SHA2_256_128 [RFC4868]', 'sha384': 'HMAC_SHA2_384_192 [RFC4868]',
    'sha512': 'HMAC_SHA2_512_256 [RFC4868]', 'sha1': 'HMAC_SHA1_96 [RFC2404]',
    'aesxcbc': 'ANY 96-bits of Authentication [No Checking]',
    'aescmac': 'ANY 96-bits of Authentication [No Checking]', '': 'NONE [RFC4306]'}
UNCHECKED = {'aesxcbc', 'aescmac'}
UNKNOWN = {'camellia128', 'camellia192', 'camellia256', 'chacha20poly1305'}
IKE_SUITES = [(cipher, '' if cipher in AEAD else 'sha256') for cipher in (*CLASSIC, *AEAD)] + [
    (cipher, integ) for cipher in ('aes128', 'aes256ctr') for integ in INTEG if integ != 'sha256']


def row_of(ike: IKE) -> str: return keylog_row(ike.spi_i, ike.spi_r, ike.keys, ike.suite)


def line_of(cipher: str, integ: str) -> str:
    return '-'.join(filter(None, (cipher, integ, 'prfsha256', 'x25519')))


@pytest.mark.parametrize('cipher, integ', [*IKE_SUITES, ('3des', 'sha1')])
def test_a_row_of_the_keylog(cipher: str, integ: str) -> None:
    """Where Wireshark checks nothing, it wants no key to check with,
    and reads no further in the table if there is one."""
    alice, _ = handshake(*two_ends(RESPONDERS))
    words = filter(None, (cipher, integ, 'prfsha256', 'x25519'))
    alice.suite = Proposal(1, ProtocolID.IKE, b'', tuple(ALGORITHMS[w].transform for w in words))
    e, a = ALGORITHMS[cipher].key_size, ALGORITHMS[integ].key_size if integ else 0
    alice.keys = Keys(b'd' * 32, b'\xa1' * a, b'\xa2' * a, b'\xe1' * e, b'\xe2' * e, b'p', b'p')
    row = row_of(alice)
    assert row.endswith('\n') and row.count('\n') == 1
    shown = 0 if integ in UNCHECKED else a
    if cipher in UNKNOWN: assert row.startswith('# not known to Wireshark: ')
    else:
        assert row == (f'{alice.spi_i.hex()},{alice.spi_r.hex()},{"e1" * e},{"e2" * e},'
                       f'"{ROWS[cipher]}",{"a1" * shown},{"a2" * shown},"{CHECKS[integ]}"\n')


def recorded(seed: int, ike: str) -> tuple[list[Datagram], list[Message], list[str]]:
    """What travelled in a whole life, which messages that were,
    and the rows of both IKE SAs that there were."""
    sent: list[Datagram] = []
    never = Timing(child=Lifetime(), ike=Lifetime(), liveness=0)
    left, right = configs(ike, 'aes128gcm16-x25519', timing=never)
    source = Random(seed).randbytes  # noqa: S311  # the same in every run is the point
    alice, bob = Host(random=source), Host((right,), random=source)
    network = Network({ALICE: alice, BOB: bob}, tap=sent.append)
    alice.connect(left, ALICE, BOB, now=0)
    network.run(until=1)
    sas: list[IKE] = list(alice.established)
    rows = [row_of(sas[0])]
    for conversation in liveness, rekey_child, rekey_ike_sa, create_child, delete_ike_sa:
        sa, = alice.established
        if row_of(sa) not in rows: rows.append(row_of(sa))
        names = (sa.child.inbound.spi,) if conversation is rekey_child else ()
        alice.start(sa, conversation, *names, now=network.now)
        network.run(until=network.now + 1)
    assert len(rows) == 2 and not alice.established
    return sent, [e for _, e in network.events(alice) if isinstance(e, Message)], rows


@pytest.mark.parametrize('suites', [
    pytest.param([(c, i) for c, i in IKE_SUITES if i not in UNCHECKED], id='checked'),
    pytest.param([(c, i) for c, i in IKE_SUITES if i in UNCHECKED], id='unchecked')])
def test_wireshark_reads_every_suite_with_our_rows(tmp_path: Path, suites: list) -> None:
    """All suites in one capture, all rows in one table, those that it does not know among them:
    it shows the payloads that we have sent, and the same AUTH data."""
    if not which('tshark'): pytest.skip(f'no tshark: apt-get install {PACKAGES}')
    packets: list[IP] = []
    expected: list[tuple[list[int], str]] = []
    table = ''
    for seed, (cipher, integ) in enumerate(suites):
        datagrams, messages, rows = recorded(seed, line_of(cipher, integ))
        assert len(datagrams) == len(messages) == 16
        table += ''.join(rows)
        packets += [IP(src=d.source.host, dst=d.destination.host)
                    / UDP(sport=d.source.port, dport=d.destination.port) / d.wire
                    for d in datagrams]
        for message in messages:
            payloads = message.packet.payloads
            sealed = message.packet.exchange_type != ExchangeType.IKE_SA_INIT
            if sealed and cipher in UNKNOWN: payloads = ()
            proof = next((p.data.hex() for p in payloads if p.kind == Type.AUTH), '')
            expected.append(([int(p.kind) for p in payloads], proof))
    (tmp_path / 'ikev2_decryption_table').write_text(table)
    wrpcap(str(tmp_path / 'all.pcap'), packets)
    assert tshark_view(tmp_path / 'all.pcap', tmp_path) == expected


def tshark_view(pcap: Path, config: Path) -> list[tuple[list[int], str]]:
    "The payload types of each IKE message and its AUTH data, as tshark shows them."
    done = execute(['tshark', '-n', '-r', pcap, '-Y', 'isakmp', '-T', 'fields',
                    '-e', 'isakmp.typepayload', '-e', 'isakmp.auth.data'],
                   env={**os.environ, 'WIRESHARK_CONFIG_DIR': str(config), 'HOME': str(config)},
                   timeout=120)
    assert done.returncode == 0 and 'Error' not in done.stderr, done.stderr
    lines = [line.split('\t') for line in done.stdout.splitlines()]
    structure = {2, 3, 46}  # proposals, transforms, and the Encrypted payload itself
    return [([n for n in map(int, filter(None, types.split(','))) if n not in structure], auth)
            for types, auth in lines]
