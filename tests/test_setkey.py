"""The scripts that hand a Child SA to the kernel,
compared with golden files that were read by a person.
"""
from pathlib import Path

import pytest
from ike_lit.const import ProtocolID
from ike_lit.proposal import parse_proposals
from ike_lit.setkey import ChildSA, EspSA, setkey_script, xfrm_script
from ike_lit.ts import TrafficSelector

GOLDEN = Path(__file__).parent / 'golden'


def child(ours: str, theirs: str, local: str, remote: str, esp: str = 'camellia256-sha256',
          **more: object) -> ChildSA:
    (encr, integ, _), = (p.transforms for p in parse_proposals(esp, ProtocolID.ESP))
    size = encr.key_length // 8
    inbound = EspSA(theirs, ours, bytes.fromhex('5a000001'),
                    encr, b'\x2e' * size, integ, b'\x2a' * 32)
    outbound = EspSA(ours, theirs, bytes.fromhex('5b000002'),
                     encr, b'\x1e' * size, integ, b'\x1a' * 32)
    local_ts, remote_ts = (tuple(map(TrafficSelector.from_text, t.split(',')))
                           for t in (local, remote))
    return ChildSA(inbound, outbound, local_ts, remote_ts, **more)


CASES = {
    'tunnel': child('192.0.2.1', '192.0.2.2', '10.1.0.0/24', '10.2.0.0/24'),
    'tunnel-nat': child('192.0.2.1', '192.0.2.2', '10.1.0.0/24', '10.2.0.0/24',
                        encap=(4500, 61000)),
    'tunnel-ipv6': child('2001:db8::1', '2001:db8::2', 'fd01::/64', 'fd02::/64', 'aes256-sha256'),
    'tunnel-6in4': child('192.0.2.1', '192.0.2.2', 'fd01::/64', 'fd02::/64,10.2.0.0/24'),
    'tunnel-ranges': child('192.0.2.1', '192.0.2.2', '10.1.0.1-10.1.0.2[tcp/80]', '10.2.0.0/24',
                           'aes128-sha256'),
    'transport': child('192.0.2.1', '192.0.2.2', '192.0.2.1', '192.0.2.2', mode='transport'),
    'transport-ipv6': child('2001:db8::1', '2001:db8::2',
                            '2001:db8::1[udp/1701]', '2001:db8::2[udp/1701]', mode='transport'),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('render', [xfrm_script, setkey_script])
def test_golden(case: str, render: object) -> None:
    golden = GOLDEN / f'{case}.{render.__name__.removesuffix("_script")}'
    assert render(CASES[case], show_keys=True) == golden.read_text()


@pytest.mark.parametrize('render', [xfrm_script, setkey_script])
def test_keys_are_shown_only_on_request(render: object) -> None:
    hidden = render(CASES['tunnel'])
    assert '1e1e' not in hidden and '2a2a' not in hidden and '<32 octets>' in hidden
    assert '1e1e' not in repr(CASES['tunnel'])


@pytest.mark.parametrize('render', [xfrm_script, setkey_script])
def test_a_range_of_ports_is_refused(render: object) -> None:
    with pytest.raises(ValueError, match='one port or all, not 80 to 90'):
        render(child('192.0.2.1', '192.0.2.2', '10.1.0.0/24[tcp/80-90]', '10.2.0.0/24'))


def test_the_outbound_sa_has_the_peers_spi_and_leaves_from_us() -> None:
    lines = xfrm_script(CASES['tunnel'], show_keys=True).splitlines()
    outbound = next(line for line in lines if '0x5b000002' in line)
    assert 'src 192.0.2.1 dst 192.0.2.2' in outbound and '0x1e1e' in outbound
    assert 'auth-trunc hmac(sha256)' in outbound and outbound.endswith(' 128')


@pytest.mark.parametrize('local, remote, why', [
    ('10.1.0.0/24[1/2048]', '10.2.0.0/24', 'fit no policy'),  # ICMP type 8
    ('10.1.0.0/24[50/7]', '10.2.0.0/24', 'fit no policy'),
    ('10.1.0.0/24', 'fd02::/64', 'no packet can match'),
    ('10.1.0.0/24[6]', '10.2.0.0/24[17]', 'no packet can match'),
    (','.join(f'0.0.0.{n}-255.255.255.254' for n in range(1, 30)),
     ','.join(f'0.0.0.{n}-255.255.255.254' for n in range(1, 30)), 'more than 1000')])
@pytest.mark.parametrize('render', [xfrm_script, setkey_script])
def test_what_no_policy_can_say(render: object, local: str, remote: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        render(child('192.0.2.1', '192.0.2.2', local, remote))


def test_no_policy_stands_twice() -> None:
    "A peer may repeat itself; a kernel would refuse the second one and stop there."
    repeated = child('192.0.2.1', '192.0.2.2', '10.1.0.0/24,10.1.0.0-10.1.1.127', '10.2.0.0/24')
    lines = xfrm_script(repeated).splitlines()
    assert len(lines) == len(set(lines)) == 2 + 3 * 2
