"""The chapters in their parts, in the order in which to read them: the conversation comes before
what the world adds to it. With each, the question that it answers; and how long a page takes.
"""
import json
from pathlib import Path

from chapters import BOOK
from IPython.display import Markdown

PARTS = {
    'The words': {
        '00_const': 'what do the numbers mean, and what is an error?',
        '01_header': 'how does a message begin, and how do octets get their names?',
        '02_payload': 'how is a message put together?',
    },
    'The parts': {
        '03_algorithm': 'what do we know about an algorithm?',
        '04_proposal': 'which algorithms?',
        '05_ke': 'how do strangers agree on a secret?',
        '06_nonce': 'what makes each handshake new?',
        '07_keys': 'how does one secret become seven keys?',
        '08_sk': 'how is a message sealed?',
        '09_auth': 'who are you?',
        '10_ts': 'which traffic?',
    },
    'The conversation': {
        '16_model': 'what do people decide, and what comes of it?',
        '18_state': 'what must an end remember between two datagrams?',
        '19_protocol': 'what if a datagram is lost, repeated, or forged?',
        '20_child_sa': 'how is a pair of ESP SAs agreed on?',
        '21_ike_sa': 'the handshake, from both sides',
        '22_informational': 'are you there? and how do we say goodbye?',
        '23_create_child_sa': 'what if keys wear out, and both ends notice at once?',
        '24_host': 'whose message is this, and how do we answer strangers?',
    },
    'What the world adds': {
        '11_certificate': 'who vouches for a key?',
        '12_credential': 'what does each end keep in files?',
        '13_nat': 'is a NAT rewriting our addresses?',
        '14_fragment': 'what if a message is too large for a datagram?',
        '15_configuration': 'which address do I get in the network behind the gateway?',
    },
    'The kernel': {
        '17_setkey': 'what does the kernel need to know?',
    },
    'Appendix A: what people read': {
        '25_diagnosis': 'why did it fail?',
        '26_report': 'what does a person want to read?',
    },
    'Appendix B: the observer': {
        '27_keylog': 'which secrets decrypt a recorded handshake?',
        '28_pcap': 'what did a sniffer write down?',
        '29_observer': 'what can be decrypted from outside?',
        '30_examine': 'what is odd about a message?',
        '31_story': 'which messages belong together, and what do they tell us?',
        '32_show': 'how is it shown?',
        '33_explain': 'which program shows it?',
    },
    'Appendix C: the programs': {
        '34_selftest': 'does each algorithm give the right answer?',
        '35_options': 'what can an operator set?',
        '36_entries': 'which kernel entries are ours?',
        '37_install': 'when does the kernel get which command?',
        '38_probe': 'what does a peer accept?',
        '39_driver': 'how does a host meet a real network?',
        '40_connection': 'how does a program of mine get an IKE SA?',
        '41_program': 'what do both programs share?',
        '42_initiator': 'how does one begin?',
        '43_responder': 'and on the other side?',
        '44_cleanup': 'what does a killed program leave behind?',
        '45_library': 'which names does a program of mine need?',
    },
    'Appendix D: for tests': {
        '46_network': 'what do both ends agree on in the end, however bad the network is?',
        '47_stage': 'what if this very message is lost, or late?',
        '48_scripted': 'what does a daemon answer to a peer that breaks the rules?',
    },
    'Afterwards': {
        '49_attack': 'what breaks if a check is left out?',
        '50_revision': 'what has changed since RFC 5996?',
        '51_measured': 'what does it cost, and what does it withstand?',
        '52_heritage': 'where does this book come from?',
    },
}
# through the whole in two hours, without the exported cells
PATH = {'index', 'afternoon', '06_nonce', '07_keys', '08_sk', '13_nat', '18_state', '21_ike_sa',
        '22_informational', '23_create_child_sa'}
WORDS, LINES = 220, 40  # that are read in a minute


def title(path: Path) -> str:
    "Return the title of a chapter."
    return ''.join(json.loads(path.read_text())['cells'][0]['source']).partition('\n')[0].removeprefix('# ')


def minutes(path: Path, passed_over: tuple[str, ...] = ('#| hide',)) -> float:
    "Return how long a chapter takes: its words, and the lines of its cells but for those passed over."
    words = lines = 0
    for cell in json.loads(path.read_text())['cells']:
        text = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown': words += len(text.split())
        elif not text.startswith(passed_over): lines += sum(bool(line.strip()) for line in text.splitlines())
    return words / WORDS + lines / LINES


def fives(time: float) -> int:
    "Return minutes in fives, and at least five."
    return 5 * max(1, round(time / 5))


def row(stem: str, number: str, question: str) -> str:
    path = BOOK / f'{stem}.ipynb'
    mark = ' ●' if stem in PATH else ''
    return f'| {number} | [{title(path)}]({path.name}) | {fives(minutes(path))}{mark} | {question} |'


def contents() -> Markdown:
    "Return the table of contents."
    lines = ['| | chapter | minutes | the question it answers |', '|--:|---|--:|---|',
             row('index', '', 'what happens?'), row('afternoon', '', 'can I write one myself?')]
    for part, chapters in PARTS.items():
        lines.append(f'| | **{part}** | | |')
        lines += [row(stem, stem[:2], question) for stem, question in chapters.items()]
    lines.append(row('glossary', '', 'what does a word mean?'))
    return Markdown('\n'.join(lines))
