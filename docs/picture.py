"""The README's pictures: the canonical handshake as `explain` shows it, in Chromium, light and dark.

    .venv/bin/python docs/picture.py
"""
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / 'nbs'))
from canonical import KEYS, configs, public_key, two_ends
from ike_lit.capture.keylog import KeyTable
from ike_lit.capture.observer import TrustAnchors
from ike_lit.capture.pcap import Capture, Captured
from ike_lit.engine.create_child_sa import RESPONDERS
from ike_lit.engine.ike_sa import ike_sa_init
from ike_lit.explain import Story, analyse, story_html
from ike_lit.testing.network import ALICE, BOB, deliver

SIZE = 1000, 1150
CHROMIUM = ['chromium', '--headless', '--no-sandbox', '--hide-scrollbars',
            f'--window-size={SIZE[0]},{SIZE[1]}']


def handshake() -> Story:
    "The four messages, as an observer with the keys tells them."
    secrets: dict[bytes, bytes] = {}
    alice, bob = two_ends(RESPONDERS, *configs(keylog=secrets.__setitem__))
    alice.start(ike_sa_init, now=0)
    seen: list[Captured] = []
    for n in range(1, 5):
        sender, receiver = (alice, bob) if n % 2 else (bob, alice)
        data, = deliver(sender, receiver)
        seen.append(Captured(n, n / 100, *((ALICE, BOB) if n % 2 else (BOB, ALICE)), data))
        if n == 2: alice, = alice.lineage.new_sas
    keys = tuple(public_key(KEYS / f'{end}.pub') for end in ('initiator', 'responder'))
    capture = Capture(tuple(seen), 4, Counter())
    return analyse(capture, KeyTable(secrets=secrets), TrustAnchors(keys), 'handshake.pcap')


def main() -> None:
    page = story_html(handshake())
    # of the messages only the third, and of that only what was sealed
    page = re.sub(r'<details open id="m[124]".*?</details>', '', page, flags=re.DOTALL)
    page = re.sub(r'(id="m3".*?)<pre.*?</pre>', r'\1', page, count=1, flags=re.DOTALL)
    with TemporaryDirectory() as folder:
        html = Path(folder, 'page.html')
        html.write_text(page)
        for scheme, number in ('light', 1), ('dark', 0):
            subprocess.run([*CHROMIUM, f'--blink-settings=preferredColorScheme={number}',  # noqa: S603
                            f'--screenshot={DOCS / f"handshake-{scheme}.png"}', html.as_uri()],
                           check=True, timeout=60, capture_output=True)


if __name__ == '__main__': main()
