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
        '18_model': 'what do people decide, and what comes of it?',
        '20_state': 'what must an end remember between two datagrams?',
        '21_protocol': 'what if a datagram is lost, repeated, or forged?',
        '23_child_sa': 'how is a pair of ESP SAs agreed on?',
        '24_proof': 'who are you, in this very conversation?',
        '25_ike_sa': 'the handshake, from both sides',
        '26_informational': 'are you there? and how do we say goodbye?',
        '27_create_child_sa': 'what if keys wear out, and both ends notice at once?',
        '28_host': 'whose message is this, and how do we answer strangers?',
    },
    'After the quantum computer': {
        '16_intermediate': 'what may come before the proof, and how is it proven?',
        '22_additional': 'what if one key exchange is broken one day?',
        '17_ppk': 'and if the two ends share a secret already?',
    },
    'What the world adds': {
        '11_certificate': 'who vouches for a key?',
        '12_credential': 'what does each end keep in files?',
        '13_nat': 'is a NAT rewriting our addresses?',
        '14_fragment': 'what if a message is too large for a datagram?',
        '15_configuration': 'which address do I get in the network behind the gateway?',
    },
    'The kernel': {
        '19_setkey': 'what does the kernel need to know?',
    },
    'Appendix A: what people read': {
        '29_diagnosis': 'why did it fail?',
        '30_report': 'what does a person want to read?',
    },
    'Appendix B: the observer': {
        '31_keylog': 'which secrets decrypt a recorded handshake?',
        '32_pcap': 'what did a sniffer write down?',
        '33_observer': 'what can be decrypted from outside?',
        '34_examine': 'what is odd about a message?',
        '35_story': 'which messages belong together, and what do they tell us?',
        '36_show': 'how is it shown?',
        '37_explain': 'which program shows it?',
    },
    'Appendix C: the programs': {
        '38_selftest': 'does each algorithm give the right answer?',
        '39_options': 'what can an operator set?',
        '40_entries': 'which kernel entries are ours?',
        '41_install': 'when does the kernel get which command?',
        '42_probe': 'what does a peer accept?',
        '43_driver': 'how does a host meet a real network?',
        '44_connection': 'how does a program of mine get an IKE SA?',
        '45_program': 'what do both programs share?',
        '46_initiator': 'how does one begin?',
        '47_responder': 'and on the other side?',
        '48_cleanup': 'what does a killed program leave behind?',
        '49_library': 'which names does a program of mine need?',
    },
    'Appendix D: for tests': {
        '50_network': 'what do both ends agree on in the end, however bad the network is?',
        '51_stage': 'what if this very message is lost, or late?',
        '52_scripted': 'what does a daemon answer to a peer that breaks the rules?',
    },
    'Afterwards': {
        '53_attack': 'what breaks if a check is left out?',
        '54_revision': 'what has changed since RFC 5996?',
        '55_measured': 'what does it cost, and what does it withstand?',
        '56_heritage': 'where does this book come from?',
    },
}
# through the whole in two hours, without the exported cells
PATH = {'index', 'afternoon', '06_nonce', '07_keys', '08_sk', '13_nat', '20_state', '25_ike_sa',
        '26_informational', '27_create_child_sa'}
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
