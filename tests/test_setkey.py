"""The scripts that hand a Child SA to the kernel,
compared with golden files that were read by a person.
"""
import shutil
import subprocess
from pathlib import Path

import pytest
from ike_lit.cli.diagnosis import remedied
from ike_lit.engine.model import ChildSA, EspSA
from ike_lit.kernel.dialects import InstallError, setkey_script, xfrm_script
from ike_lit.kernel.entries import run_setkey
from ike_lit.wire.const import ProtocolID
from ike_lit.wire.proposal import parse_proposals
from ike_lit.wire.ts import TrafficSelector

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
    ('10.1.0.0/24[50/7]', '10.2.0.0/24', 'fit no policy'),
    ('10.1.0.0/24[135/1280]', '10.2.0.0/24', 'fit no policy'),  # a type of the mobility header
    ('10.1.0.0/24[tcp/opaque]', '10.2.0.0/24', 'opaque ports fit no policy'),
    ('10.1.0.0/24', '10.2.0.0/24[icmp/opaque]', 'opaque ports fit no policy'),
    ('10.1.0.0/24[icmp/3-4]', '10.2.0.0/24', 'one type of ICMP, with one code or all'),
    ('10.1.0.0/24', '10.2.0.0/24[icmp/3(0)-3(4)]', 'one type of ICMP'),
    ('fd01::/64[ipv6-icmp/1(0)-1(254)]', 'fd02::/64', 'one type of ICMP'),
    ('fd01::/64[ipv6-icmp/1(1)-1(255)]', 'fd02::/64', 'one type of ICMP'),
    ('10.1.0.0/24[icmp/8]', '10.2.0.0/24[ipv6-icmp/128]', 'no packet can match'),
    ('10.1.0.0/24', 'fd02::/64', 'no packet can match'),
    ('10.1.0.0/24[6]', '10.2.0.0/24[17]', 'no packet can match'),
    (','.join(f'0.0.0.{n}-255.255.255.254' for n in range(1, 30)),
     ','.join(f'0.0.0.{n}-255.255.255.254' for n in range(1, 30)), 'more than 256')])
@pytest.mark.parametrize('render', [xfrm_script, setkey_script])
def test_what_no_policy_can_say(render: object, local: str, remote: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        render(child('192.0.2.1', '192.0.2.2', local, remote))


def test_no_policy_stands_twice() -> None:
    "A peer may repeat itself; a kernel would refuse the second one and stop there."
    repeated = child('192.0.2.1', '192.0.2.2', '10.1.0.0/24,10.1.0.0-10.1.1.127', '10.2.0.0/24')
    lines = xfrm_script(repeated).splitlines()
    assert len(lines) == len(set(lines)) == 2 + 3 * 2


# What each direction's policy says of ICMP (RFC 4301 §4.4.1.3): a side's types are those it may send.
ICMP = {
    ('10.1.0.0/24[icmp/8(0)]', '10.2.0.0/24[icmp/0]'): ('proto 1 type 8 code 0', 'proto 1 type 0'),
    ('10.1.0.0/24[icmp/0(0)]', '10.2.0.0/24[icmp/0(0)]'): ('proto 1 type 0 code 0', 'proto 1 type 0 code 0'),
    ('10.1.0.0/24[icmp/8]', '10.2.0.0/24'): ('proto 1 type 8', 'proto 1'),
    ('10.1.0.0/24', '10.2.0.0/24[icmp/3(13)]'): ('proto 1', 'proto 1 type 3 code 13'),
    ('10.1.0.0/24[icmp]', '10.2.0.0/24[icmp]'): ('proto 1', 'proto 1'),
    ('fd01::/64[ipv6-icmp/128(0)]', 'fd02::/64[ipv6-icmp/129]'): (
        'proto 58 type 128 code 0', 'proto 58 type 129'),
    ('10.1.0.0/24[icmp/255(255)]', '10.2.0.0/24[icmp/255]'): (
        'proto 1 type 255 code 255', 'proto 1 type 255'),
}


def policies(script: str) -> list[str]:
    return [line for line in script.splitlines() if line.startswith('xfrm policy')]


@pytest.mark.parametrize('local, remote', ICMP)
def test_types_and_codes_in_xfrm(local: str, remote: str) -> None:
    sent, received = ICMP[local, remote]
    here, there = local.partition('[')[0], remote.partition('[')[0]
    out, *back = policies(xfrm_script(child('192.0.2.1', '192.0.2.2', local, remote)))
    assert f' src {here} dst {there} {sent} dir out ' in out
    assert [f' src {there} dst {here} {received} dir {way} ' in line
            for way, line in zip(('in', 'fwd'), back, strict=True)] == [True, True]


@pytest.mark.parametrize('local', ['10.1.0.0/24[icmp/8(0)]', '10.1.0.0/24[icmp/8]'])
def test_types_and_codes_are_refused_in_setkey(local: str) -> None:
    for ours, theirs in (local, '10.2.0.0/24'), ('10.2.0.0/24', local):
        with pytest.raises(ValueError, match='type 8 of ICMP fits no policy of setkey'):
            setkey_script(child('192.0.2.1', '192.0.2.2', ours, theirs))


def test_two_pairs_of_types_with_one_direction_in_common() -> None:
    lines = policies(xfrm_script(child('192.0.2.1', '192.0.2.2', '10.1.0.0/24[icmp/8]',
                                       '10.2.0.0/24[icmp/0],10.2.0.0/24[icmp/3]')))
    assert len(lines) == len(set(lines)) == 1 + 2 * 2


def test_the_kernel_reads_types_and_codes_as_we_mean_them() -> None:
    "In a network of its own: `ip` takes the policies, and shows them with the same types and codes."
    ip, unshare = shutil.which('ip', path='/usr/sbin:/sbin:/usr/bin:/bin'), shutil.which('unshare')
    alone = [unshare, '--user', '--map-root-user', '--net']
    if not ip or not unshare or subprocess.run([*alone, ip, 'xfrm', 'policy'], check=False,
                                               capture_output=True, timeout=10).returncode:
        pytest.skip('no ip, or no namespaces: apt-get install iproute2, allow user namespaces')
    for (local, remote), (sent, received) in ICMP.items():
        script = '\n'.join(policies(xfrm_script(child('192.0.2.1', '192.0.2.2', local, remote))))
        done = subprocess.run([*alone, 'sh', '-c', f'{ip} -batch - && {ip} -N xfrm policy'], check=False,
                              input=script, capture_output=True, text=True, timeout=10)
        assert done.returncode == 0, done.stderr
        shown = [line.partition(' proto ')[2].strip() for line in done.stdout.splitlines()
                 if line.startswith('src ')]
        names = {'icmp': '1', 'ipv6-icmp': '58'}
        shown = [' '.join(names.get(word, word) for word in line.split()) for line in shown]
        assert sorted(f'proto {line}' for line in shown) == sorted([sent, received, received])


@pytest.mark.parametrize('said, advice', [
    ('Error: Requested AEAD algorithm not found.', 'modprobe esp4'),
    ('Error: Requested type not found.', '--esp'),
    ('RTNETLINK answers: Operation not permitted', 'CAP_NET_ADMIN'),
    ('RTNETLINK answers: File exists', None)])
def test_what_the_kernel_refuses_comes_with_advice(said: str, advice: str | None) -> None:
    with pytest.raises(InstallError) as raised:
        run_setkey(('sh', '-c', f'cat >/dev/null; echo "{said}" >&2; exit 2'), 'a line\n')
    assert str(raised.value).startswith(f'sh: {said}')
    if advice: assert advice in remedied(raised.value)
    else: assert remedied(raised.value) == f'sh: {said}'
