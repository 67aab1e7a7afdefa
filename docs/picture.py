"""The README's pictures: the canonical handshake as `explain` shows it, in Chromium, light and dark.

    .venv/bin/python docs/picture.py
"""
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / 'nbs'))
from canonical import observed
from ike_lit.explain import story_html

SIZE = 1000, 1150
CHROMIUM = ['chromium', '--headless', '--no-sandbox', '--hide-scrollbars',
            f'--window-size={SIZE[0]},{SIZE[1]}']


def main() -> None:
    page = story_html(observed('handshake.pcap'))
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
