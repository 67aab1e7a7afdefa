"""From a section of RFC 7296 to the chapters that speak of it: found by reading them, for the index."""
import json
import re
from collections import Counter
from pathlib import Path

from IPython.display import Markdown

BOOK = Path(__file__).resolve().parent
TITLES = {
    '1.1': 'Usage Scenarios', '1.2': 'The Initial Exchanges', '1.3': 'The CREATE_CHILD_SA Exchange',
    '1.4': 'The INFORMATIONAL Exchange', '1.5': 'Informational Messages outside of an IKE SA',
    '1.7': 'Differences between RFC 4306 and RFC 5996', '1.8': 'Differences between RFC 5996 and RFC 7296',
    '2.1': 'Use of Retransmission Timers', '2.2': 'Sequence Numbers for Message ID', '2.3': 'Window Size',
    '2.4': 'State Synchronization and Connection Timeouts',
    '2.5': 'Version Numbers and Forward Compatibility',
    '2.6': 'IKE SA SPIs and Cookies', '2.7': 'Cryptographic Algorithm Negotiation', '2.8': 'Rekeying',
    '2.9': 'Traffic Selector Negotiation', '2.10': 'Nonces', '2.11': 'Address and Port Agility',
    '2.12': 'Reuse of Diffie-Hellman Exponentials', '2.13': 'Generating Keying Material',
    '2.14': 'Keying Material for the IKE SA', '2.15': 'Authentication of the IKE SA',
    '2.16': 'Extensible Authentication Protocol Methods', '2.17': 'Keying Material for Child SAs',
    '2.18': 'Rekeying IKE SAs', '2.19': 'Requesting an Internal Address',
    '2.20': "Requesting the Peer's Version",
    '2.21': 'Error Handling', '2.22': 'IPComp', '2.23': 'NAT Traversal',
    '2.24': 'Explicit Congestion Notification',
    '2.25': 'Exchange Collisions', '3.1': 'The IKE Header', '3.2': 'Generic Payload Header',
    '3.3': 'Security Association Payload', '3.4': 'Key Exchange Payload', '3.5': 'Identification Payloads',
    '3.6': 'Certificate Payload', '3.7': 'Certificate Request Payload', '3.8': 'Authentication Payload',
    '3.9': 'Nonce Payload', '3.10': 'Notify Payload', '3.11': 'Delete Payload', '3.12': 'Vendor ID Payload',
    '3.13': 'Traffic Selector Payload', '3.14': 'Encrypted Payload', '3.15': 'Configuration Payload',
    '3.16': 'EAP Payload', '4': 'Conformance Requirements', '5': 'Security Considerations',
    '6': 'IANA Considerations'}
NOT_HERE = {'1.1': 'who uses it, and for what', '2.16': 'EAP is not part of this book',
            '2.20': 'nobody needs to know', '2.22': 'compression is never offered',
            '2.24': 'it is the kernel that carries the packets', '3.16': 'EAP is not part of this book'}


def mentioned(text: str) -> list[str]:
    "Return the sections of RFC 7296 that a text names, by their first two numbers."
    found = []
    for line in text.splitlines():
        rfc = '7296'
        for other, section in re.findall(r'RFC (\d+)|§(\d+(?:\.\d+)?)', line):
            if other: rfc = other
            elif rfc == '7296': found.append(section)
    return found


def places() -> dict[str, Counter[str]]:
    "Return how often each chapter names each section."
    found: dict[str, Counter[str]] = {section: Counter() for section in TITLES}
    for path in sorted(BOOK.glob('[0-9][0-9]_*.ipynb')):
        for cell in json.loads(path.read_text())['cells']:
            for section in mentioned(''.join(cell['source'])):
                if section in found: found[section][path.stem] += 1
    return found


def table(most: int = 4) -> Markdown:
    "Return the map: the chapters that speak most of a section come first."
    lines = ['| RFC 7296 | | chapters |', '|---|---|---|']
    for section, chapters in places().items():
        first = sorted(chapters, key=lambda stem: (-chapters[stem], stem))[:most]
        links = ', '.join(f'[{stem.replace("_", " ", 1)}]({stem}.ipynb)' for stem in first)
        url = f'https://www.rfc-editor.org/rfc/rfc7296#section-{section}'
        lines.append(f'| [§{section}]({url}) | {TITLES[section]} | {links or NOT_HERE.get(section, "")} |')
    return Markdown('\n'.join(lines))
