"""A postquantum preshared key with libreswan 5, which mixes it in early, in IKE_INTERMEDIATE (RFC 9867), or
late, in IKE_AUTH (RFC 8784), as it is told; in both roles, with a ping through both kernels. Needs a kernel
with ESP."""
from pathlib import Path

import pytest
from defaults import NETS, PATIENCE, SECONDS, SECRET, ours, rekeyings, untroubled
from kernel import route_inner_networks
from peers.libreswan import NEW, Libreswan
from peers.strongswan import LEFT, RIGHT, Lab
from test_kernel_defaults import ping

PPK = 'thirty-two octets of randomness!'
# libreswan 5.2 is older than RFC 9867, and has numbers for private use in place of 16445 and 16446
DRAFT = '''
from types import SimpleNamespace
from ike_lit.wire import ppk
numbers = {'USE_PPK_INT': ppk.MessageType(50209), 'PPK_IDENTITY_KEY': ppk.MessageType(50208)}
ppk.MessageType = SimpleNamespace(**{m.name: m for m in ppk.MessageType} | numbers)
'''


@pytest.mark.parametrize('early', [True, False], ids=['IKE_INTERMEDIATE', 'IKE_AUTH'])
@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_libreswan_has_it_too(lab: Lab, tmp_path: Path, role: str, early: bool) -> None:
    route_inner_networks(lab)
    file = tmp_path / 'ppk'
    file.touch(mode=0o600)
    file.write_text(PPK)
    pluto = Libreswan(lab, NEW)
    try:
        pluto.start(SECRET, ends=(LEFT, RIGHT), leftsubnet=NETS[0], rightsubnet=NETS[1], ppk='insist',
                    ppk_secrets=f': PPKS "winter" "{PPK}"\n', intermediate='yes' if early else 'no')
        options = '--ppk-file', str(file), '--ppk-id', 'winter'
        with ours(lab, role, pluto.initiate, *SECONDS, *options, before=DRAFT * early) as program:
            program.position = 0
            program.wait('Installed', PATIENCE)
            ping(lab)
            for _ in rekeyings(program, None, 'Installed', times=1): ping(lab)
            untroubled(program)
            assert [e['proof'][-9:] for e in program.all('Established')] == ['and a PPK']
            said = {e['exchange'] for e in program.all('Message') if 'N(PPK_IDENTITY)' in e['payloads']}
            assert said == {'IKE_INTERMEDIATE' if early else 'IKE_AUTH'}
    finally:
        print(pluto.log()[-6000:])
        pluto.stop()
