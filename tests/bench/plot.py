"""Draw nbs/measured/ratios.svg from what the other programs of `make bench` have kept beside it."""
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

KEPT = Path(__file__).resolve().parents[2] / 'nbs' / 'measured'
NAMES = 'handshake', 'responders', 'latency', 'initiators', 'octets', 'message', 'start'
GREY, OURS = '#808080', '#3b82c4'  # to be read on white and on black


def main() -> None:
    mpl.rcParams |= {'svg.hashsalt': 'ike-lit', 'font.size': 9, 'text.color': GREY, 'axes.edgecolor': GREY,
                     'axes.labelcolor': GREY, 'xtick.color': GREY, 'ytick.color': GREY}
    files = [KEPT / f'{name}.json' for name in NAMES]
    found = [json.loads(file.read_text()) for file in files if file.exists()]
    heights = [len(table['rows']) + 1.5 for table in found]
    figure, axes = plt.subplots(len(found), 1, figsize=(9, sum(heights) * 0.24), sharex=True,
                                height_ratios=heights, layout='constrained')
    for axis, table in zip(axes, found, strict=True):
        axis.set_title(f'{table["title"]}: ours / {table["base"]}', fontsize=9, loc='left', color=GREY)
        rows = table['rows'][::-1]
        for y, row in enumerate(rows):
            middle, low, high = row['ratio']
            axis.plot([low, high], [y, y], color=OURS, linewidth=4, alpha=.35, solid_capstyle='butt')
            axis.plot(middle, y, 'o', color=OURS, markersize=5)
            axis.annotate(f'{middle:.2g}', (high, y), (6, 0), textcoords='offset points',
                          va='center', fontsize=8)
        axis.set_yticks(range(len(rows)), [row['what'] for row in rows])
        axis.set_ylim(-.7, len(rows) - .3)
        axis.axvline(1, color=GREY, linewidth=.8)
        axis.set_xscale('log')
        axis.spines[['top', 'right']].set_visible(False)
        axis.xaxis.set_major_formatter(lambda x, _: f'{x:g}')
    figure.savefig(KEPT / 'ratios.svg', transparent=True, metadata={'Date': None})


if __name__ == '__main__': main()
