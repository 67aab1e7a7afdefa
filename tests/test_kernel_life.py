"""Hours of a tunnel in five minutes: lifetimes of seconds on both sides, a ping and a stream of UDP.

Nothing may be lost, nothing may grow, and of all the SAs one pair is left at the end.
Needs a kernel with ESP, as test_kernel.py.
"""
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from interop import HASTE, Program, calling, start
from kernel import holds, pinging, route_inner_networks
from peers.strongswan import Lab, poll

SECONDS = 270
# strongSwan rekeys the Child SA after 2 s and the IKE SA after 5 s, both a little earlier by chance
THEIRS = {'connection': {'rekey_time': '5s', 'over_time': '60s'},
          'child': {'rekey_time': '2s', 'life_time': '60s'}}
OURS = ['--install', 'xfrm', '--child-lifetime', '2,60', '--ike-lifetime', '6,60']


def memory(pid: int) -> int:
    "What a process has in memory, in KiB."
    return int(Path(f'/proc/{pid}/status').read_text().partition('VmRSS:')[2].split()[0])


def alive(ours: Program) -> bool:
    "Let our program go on for a second. It must not end."
    if ours.read(time.monotonic() + 1) or ours.process.poll() is None: return True
    pytest.fail(f'it has ended: {ours.process.communicate(timeout=10)[1]} {ours.events[-20:]}')


# Beside our program: until it and the kernel name the same SPI, the only one to send under. A rekeying makes
# two of it for a moment, and is never far away here, so whoever compares has to be quick.
AGREE = """
import re, subprocess, time
from ike_lit.kernel.install import query_status

def kernel():
    said = subprocess.run(['ip', 'xfrm', 'state', 'list', 'src', '10.9.0.1'], capture_output=True, text=True)
    return re.findall(r'spi 0x(\\w+)', said.stdout)

until = time.monotonic() + 60
while time.monotonic() < until:
    before = kernel()
    held = [child['spi_out'] for answer in query_status(time.monotonic)
            for ike in answer['ike'] for child in ike['children']]
    if len(before) == 1 and before == held == kernel(): raise SystemExit
raise SystemExit(f'{before} {held}')
"""


def test_hours_in_minutes(lab: Lab, keys: Path, record_property: Callable[[str, object], None]) -> None:
    route_inner_networks(lab)
    start(lab, keys, kernel='kernel-netlink', extra=HASTE, **THEIRS)
    before = holds(lab.left)
    said, sums = (lab.home.parent / f'iperf3.{name}' for name in ('txt', 'json'))
    with calling(lab, keys, *OURS) as ours, said.open('w') as file, sums.open('w') as found, \
            lab._popen(lab.right, ['iperf3', '-s', '-1', '-B', '10.2.0.1', '--forceflush'], stdout=file):
        ours.wait('Installed', 90)
        assert poll(lambda: 'listening' in said.read_text(), 30)
        stream = lab.popen(['iperf3', '-c', '10.2.0.1', '-B', '10.1.0.1', '-J', '-t', str(SECONDS),
                            '-u', '-b', '200K', '-l', '500'], stdout=found)
        with pinging(lab, '10.2.0.1', '10.1.0.1', 0.1) as ping:
            half = time.monotonic() + SECONDS / 2
            end = half + SECONDS
            while time.monotonic() < half and alive(ours): continue
            early = memory(ours.process.pid)
            while stream.poll() is None and time.monotonic() < end and alive(ours): continue
            late = memory(ours.process.pid)
        result = json.loads(sums.read_text())['end']['sum']
        agree = lab.run([sys.executable, '-c', AGREE], timeout=90)
        assert agree.returncode == 0, agree.stderr
        events = ours.events
    rekeys = {name: sum(e['event'] == name for e in events) for name in ('ChildEstablished', 'Rekeyed')}
    for column, cell in {'ping': f'{ping.received}/{ping.sent}', 'UDP lost': result['lost_packets'],
                         'Child SAs': rekeys['ChildEstablished'], 'IKE SAs': rekeys['Rekeyed'],
                         'KiB grown': late - early}.items():
        record_property('kernel', (f'{SECONDS} s of rekeying', column, str(cell)))
    assert result['lost_packets'] == 0 and result['packets'] > SECONDS * 40
    assert rekeys['ChildEstablished'] > 100 and rekeys['Rekeyed'] > 20  # twice as many on a quiet machine
    assert late - early < 1024
    assert holds(lab.left) == before
