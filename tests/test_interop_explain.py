"""A session with strongSwan, old and new, is opened by nothing but what charon has logged; in both roles,
with rekeyings of each kind and forward secrecy."""
from functools import partial
from pathlib import Path

import pytest
from defaults import CONNECTIONS, SECRETS, hybrid_connections, ours, rekeyings
from ike_lit.capture.show import story_json
from ike_lit.explain import read_story
from interop import end_all, inside, needs_strongswan, start

pytestmark = needs_strongswan
VERBOSE = 'filelog { lab {\n  ike = 4\n  chd = 4\n} }'


def connections(which: str) -> dict:
    "With a key exchange for each Child SA, one or two."
    if which == 'newer_lab': return hybrid_connections()
    net = {**CONNECTIONS['lab']['children']['net'], 'esp_proposals': 'aes128gcm16-x25519'}
    return {'lab': {**CONNECTIONS['lab'], 'children': {'net': net}}}


@inside
@pytest.mark.parametrize('role', ['initiator', 'responder'])
@pytest.mark.parametrize('which', ['lab', 'newer_lab'])
def test_charons_log_opens_it(request: pytest.FixtureRequest, keys: Path, tmp_path: Path, which: str,
                              role: str) -> None:
    peer = request.getfixturevalue(which)
    start(peer, keys, extra=VERBOSE)
    peer.load(connections(which), SECRETS)
    rekey, pcap, log = partial(peer.swanctl, '--rekey'), tmp_path / 'session.pcap', tmp_path / 'charon.log'
    call = partial(peer.swanctl, '--initiate', '--child', 'net')
    with ours(peer, role, call, '--install', 'none', '--pcap', str(pcap)) as program:
        ask = partial(rekey, '--child', 'net'), partial(rekey, '--ike', 'lab')
        assert all(rekeyings(program, ask, times=2))
    end_all(peer)
    log.write_text(peer.log())
    told = story_json(read_story(str(pcap), str(log)))
    assert [m['number'] for m in told['messages'] if m['sealed'] and not m['opened']] == []
    assert not [r for m in told['messages'] for r in m['remarks'] if r['grade'] == 'wrong']
    assert len(told['ike_sas']) == 3 and all(ike['keys'] for ike in told['ike_sas'])
    children = [child for ike in told['ike_sas'] for child in ike['children']]
    assert len(children) == 3 and all(child['keys'] for child in children)
