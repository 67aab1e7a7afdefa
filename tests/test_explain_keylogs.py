"""A key log in which something is not understood is still a key log: what is wrong is a remark, and names
its line; what is right is used. And checksums that are not to be checked, of each size that Wireshark has.
"""
import ast
import json
import re
from pathlib import Path

import pytest
from explaining import call, every, kinds, needs_tshark, pcap, plain, record, story, wireshark
from ike_lit.capture.keylog import MOST_REMARKS, UNCHECKED, parse_keylog
from ike_lit.wire.auth import IDi, Identity
from ike_lit.wire.const import ExchangeType, IDType, Type

R = record('aes128-sha256-x25519', seed=95)
BAD = {'a cipher of others': R.rows.replace('AES-CBC-128 [RFC3602]', 'ROT-13'), 'fields': 'a,b,c\n',
       'hex': R.rows.replace(R.rows[:16], 'no hex here 1234'), 'sizes': R.rows.replace(R.rows[34:36], ''),
       'a secret': '# Ni,no,hex\n'}


@pytest.mark.parametrize('what', BAD)
@pytest.mark.parametrize('before', [False, True])
def test_a_row_that_is_not_understood_does_not_spoil_the_others(what: str, before: bool) -> None:
    text = BAD[what] + R.rows if before else R.rows + BAD[what]
    table = parse_keylog(text)
    assert len(table.rows) == 1 and [r.partition(': ')[0] for r in table.remarks] == [f'line {2 - before}']
    found = story(R.seen, text)
    assert found.told[2].inside and found.remarks == [f'key log, {table.remarks[0]}']
    assert f'  key log, {table.remarks[0]}' in list(found.lines())


@pytest.mark.parametrize('what', BAD)
def test_a_file_in_which_nothing_is_understood_is_an_error(what: str) -> None:
    with pytest.raises(ValueError, match='^line 1: '): parse_keylog(BAD[what] * 3)


def test_many_rows_that_are_not_understood_are_counted() -> None:
    table = parse_keylog(R.rows + 'a,b\n' * 500)
    assert len(table.remarks) == MOST_REMARKS + 1
    assert table.remarks[-1] == f'and {500 - MOST_REMARKS} more lines that make no sense'


# The sizes of checksums

SIZES = {size: name for name, size in UNCHECKED.items()}


def without_checking(keys: str, name: str) -> str:
    fields = keys.strip().split(',')
    return ','.join([*fields[:5], '', '', f'"{name}"']) + '\n'


@pytest.mark.parametrize('size', SIZES)
def test_checksums_of_each_size_are_passed_over(size: int) -> None:
    "Also where the beginning, which tells the suite, is not in the capture."
    words = {12: 'aescmac', 16: 'sha256', 24: 'sha384', 32: 'sha512'}
    r = record(f'aes128-{words.get(size, "sha256")}-prfsha256-x25519', seed=96)
    keys = without_checking(r.rows, SIZES[size])
    for seen in r.seen, r.seen[2:]:
        found = story(seen, keys)
        if size not in words: continue  # no algorithm of ours has such a checksum
        assert kinds(found.told[-1])[0] == Type.IDr and found.told[-1].content
        assert 'opened without a check' in ' '.join(every(found, 'odd'))


@needs_tshark
@pytest.mark.parametrize('size', SIZES)
def test_wireshark_knows_each_name(size: int, tmp_path: Path) -> None:
    keys = without_checking(R.rows, SIZES[size])
    (tmp_path / 'ikev2_decryption_table').write_text(keys)
    (tmp_path / 'a').write_bytes(pcap(R.seen))
    out = wireshark('tshark', '-n', '-r', tmp_path / 'a', config=tmp_path)
    assert 'INFORMATIONAL' in out or 'IKE_AUTH' in out
    assert list(parse_keylog(keys).rows.values())[0].icv_size == size


# A notebook

EVIL = ['<img src=x onerror=alert(1)>', '[x](javascript:alert(1))', '![x](http://x.example/y.png)',
        '$\\href{javascript:alert(1)}{x}$', "'); import os; os.system('touch PWNED') #", '!touch PWNED',
        '%%bash', '# x\n!touch PWNED', '`x` ***y***', '"""', '{{x}}', 'http://x.example/']


MARKDOWN = r'# A capture, explained|## \d+: [\w ]+|And \d+ more; `story\[number\]` shows one\.'


@pytest.mark.parametrize('evil', EVIL)
def test_a_notebook_neither_runs_nor_renders_what_others_have_named(evil: str, tmp_path: Path) -> None:
    "A file's name, and a peer's: in no Markdown; in code a literal; in HTML escaped, and no formula."
    name = IDi.of(Identity(IDType.FQDN, evil.encode()))
    data = plain(name, spi_r=b'r' * 8, exchange=ExchangeType.IKE_AUTH, message_id=1)
    path = tmp_path / f'{evil.replace("/", "_")}.pcap'
    path.write_bytes(pcap([*R.seen, R.seen[0]._replace(data=data)]))
    done = call(path, '--notebook', tmp_path / 'out.ipynb')
    assert done.returncode == 0, done.stderr
    for cell in json.loads((tmp_path / 'out.ipynb').read_text())['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            assert re.fullmatch(MARKDOWN, source), source
            continue
        code = r"(from ike_lit.explain import read_story\n\nstory = .+\nstory|story\[\d+\])"
        assert re.fullmatch(code, source), source
        for call_ in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
            assert [arg.value for arg in call_.args] == [str(path)]
        for output in cell['outputs']:
            html = output['data']['text/html']
            assert html.startswith(('<pre>', '<div class="tex2jax_ignore mathjax_ignore">'))
            assert '<img' not in html and 'href="javascript' not in html
