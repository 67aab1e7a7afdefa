"`import ike_lit`: its names, what they load, and that what is read does not depend on it."
import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ike_lit
import pytest
from ike_lit.wire.const import Type
from ike_lit.wire.payload import CLASSES, UNDERSTOOD, get_by_type

ROOT = Path(__file__).resolve().parent.parent
CAPTURE = ROOT / 'tests' / 'vectors' / 'live' / 'aes256gcm16_prfsha384_ecp521' / 'capture.pcap'


def python(code: str) -> str:
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60,
                          check=True)
    return done.stdout


@pytest.mark.parametrize('name', sorted(ike_lit.PUBLIC))
def test_each_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(ike_lit, name).__doc__ and name in dir(ike_lit)
    assert getattr(ike_lit, name).__module__.startswith(f'ike_lit.{ike_lit.PUBLIC[name]}')


def test_those_who_read_types_see_the_same_names() -> None:
    tree = ast.parse((ROOT / 'ike_lit' / '__init__.py').read_text())
    block, = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == ike_lit.PUBLIC


def test_another_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'ike_lit' has no attribute 'nonsense'"):
        _ = ike_lit.nonsense


def test_an_import_by_itself_loads_nothing() -> None:
    code = 'import sys, ike_lit; print([m for m in sys.modules if m.startswith("ike_lit.")])'
    assert python(code) == '[]\n'


@pytest.mark.parametrize('before', ['', 'import ike_lit.wire.payload', 'import ike_lit.capture.story',
                                    'import ike_lit.engine.host'])
def test_what_is_read_does_not_depend_on_what_was_imported(before: str) -> None:
    "Not one payload of a whole message is carried unread because nobody has loaded its class."
    code = f'''
{before}
import ike_lit
from ike_lit.capture.pcap import open_capture, read_capture
with open_capture({str(CAPTURE)!r}) as file: print(ike_lit.parse(read_capture(file).messages[0].data))
'''
    said = python(code)
    assert said.startswith('IKE_SA_INIT(SA(') and 'not read' not in said


def test_each_class_of_the_table_reads_its_type() -> None:
    for kind, name in CLASSES.items():
        found = get_by_type(kind)
        assert found and found.kind == kind
        assert f'{found.__module__}.{found.__name__}' == f'ike_lit.wire.{name}'
    assert {*CLASSES, Type.SK, Type.SKF, Type.EAP} == UNDERSTOOD


@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview])
def test_octets_of_any_kind_are_read(kind: type) -> None:
    data = bytes.fromhex('c1c2c3c4c5c6c7c8 0000000000000000 00 20 22 08 00000000 0000001c')
    assert repr(ike_lit.parse(kind(data))) == 'IKE_SA_INIT()'
    with pytest.raises(ike_lit.IkeError): ike_lit.parse(kind(data[:-1]))


@pytest.mark.parametrize('change, error, text', [
    ({'local_id': 'alice'}, TypeError, 'local_id is a str'), ({'esp': ()}, ValueError, 'at least one'),
    ({'credential': b'secret'}, TypeError, 'credential'), ({'ike': 'aes'}, TypeError, 'ike is a str'),
    ({'trust': None}, TypeError, 'trust is a NoneType'), ({'datagram': 100}, ValueError, 'datagram 100'),
    ({'remote_ts': ('10.0.0.0/8',)}, TypeError, 'remote_ts has a str'),
    ({'mode': 'tunel'}, ValueError, "mode 'tunel'"),
    ({'childless': 'maybe'}, ValueError, "childless 'maybe'")])
def test_a_configuration_that_can_not_work_is_refused(
        change: dict, error: type[Exception], text: str) -> None:
    good = ike_lit.Config.psk('alice.example.org', 'bob.example.org', b'correct horse battery')
    with pytest.raises(error, match=text) as caught: replace(good, **change)
    assert 'secret' not in str(caught.value)


def test_configurations_from_text() -> None:
    c = ike_lit.Config.psk('alice.example.org', 'bob.example.org', b'ours', peer=b'theirs',
                           local_ts='10.1.0.0/24,10.2.0.0/24', esp='aes256gcm16', mode='transport')
    assert (c.credential.secret, c.trust.secret) == (b'ours', b'theirs')
    assert (len(c.local_ts), c.remote_ts, len(c.esp), c.mode) == (2, (), 1, 'transport')
    with pytest.raises(ValueError, match='ROT13'):
        ike_lit.Config.psk('a.org', 'b.org', b'x', ike='ROT13-sha256')
    with pytest.raises(ValueError): ike_lit.Config.psk('a.org', 'b.org', b'x', local_ts='10.1.0.0/99')
    with pytest.raises(TypeError): ike_lit.Config.psk('a.org', 'b.org', b'x', nonsense=1)
