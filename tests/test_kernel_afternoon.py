"""The initiator of the chapter "An initiator in an afternoon" and real daemons with their own defaults.
Its two keys are then put into the kernel by hand, and a ping comes back through both kernels.

Needs a kernel with ESP, as test_kernel.py.
"""
import json
import sys
from pathlib import Path

import pytest
from afternoon import configured, script
from defaults import SECRET
from kernel import sas
from peers.strongswan import LEFT, RIGHT
from test_kernel_defaults import PEERS, ping, started

TELL = '''import json
print(json.dumps({name: value.hex() for name, value in globals().items()
                  if name in ('spi_in', 'spi_out', 'key_in', 'key_out')}))'''
BY_HAND = '''xfrm state add src {LEFT} dst {RIGHT} proto esp spi 0x{spi_out} reqid 9 mode tunnel \
aead rfc4106(gcm(aes)) 0x{key_out} 128
xfrm state add src {RIGHT} dst {LEFT} proto esp spi 0x{spi_in} reqid 9 mode tunnel \
aead rfc4106(gcm(aes)) 0x{key_in} 128
xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 dir out \
tmpl src {LEFT} dst {RIGHT} proto esp reqid 9 mode tunnel
xfrm policy add src 10.2.0.0/24 dst 10.1.0.0/24 dir in \
tmpl src {RIGHT} dst {LEFT} proto esp reqid 9 mode tunnel
'''


@pytest.mark.parametrize('name', PEERS)
def test_it_shakes_hands_with_a_real_daemon(request: pytest.FixtureRequest, keys: Path, name: str) -> None:
    with started(name, request, keys) as (lab, peer):
        program = script(configured(RIGHT, 500, secret=SECRET)) + TELL
        done = lab.run([sys.executable, '-c', program], timeout=90)
        assert done.returncode == 0, done.stderr + peer.log()
        known = json.loads(done.stdout)
        there = sas(lab.right)
        for way in 'in', 'out':
            assert known[f'key_{way}'] in ' '.join(there[known[f'spi_{way}']].algorithms)
        try:
            batch = lab.run(['ip', '-batch', '-'], input=BY_HAND.format(LEFT=LEFT, RIGHT=RIGHT, **known))
            assert batch.returncode == 0, batch.stderr
            ping(lab)
        finally:
            for what in 'state', 'policy': lab.run(['ip', 'xfrm', what, 'flush'])  # in a namespace of ours
