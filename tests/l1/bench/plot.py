#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plot the ratios of bench.py over the size of the guest's memory, with gnuplot.

  plot.py BENCH.JSON PLOT.SVG
"""
import collections
import json
import subprocess
import sys

MiB = 1 << 20
PANELS = {
    'attributes': 'Attributes: all of the memory, or a page',
    'bitmap': 'Encryption bitmap',
}


def curves(results, panel):
    """
    Return a list of points (MiB, ratio) for each comparison with several
    points.
    """
    of = collections.defaultdict(list)
    for r in results:
        kind, _, what = r['title'].partition(': ')
        if kind == panel:
            of[what, r['why']].append((r['size'] / MiB, r['ratio']))
    return {k: sorted(v) for k, v in of.items() if len(v) > 1}


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def script(results, out):
    yield f'set terminal svg size 1100,{560 * len(PANELS)} background "white"'
    yield f'set output {quoted(out)}'
    yield f'set multiplot layout {len(PANELS)},1'
    yield 'set key outside right top Left reverse noenhanced font ",10"'
    yield 'set logscale x 4'
    yield 'set logscale y'
    yield 'set grid'
    yield "set xlabel 'guest memory, MiB'"
    for panel, title in PANELS.items():
        found = curves(results, panel)
        if not found:
            sys.exit(f'plot: nothing of {panel} for two sizes of memory')
        yield f'set title {quoted(title)}'
        yield "set ylabel 'time, as a multiple'"
        plots = ["1 with lines dashtype 2 linecolor 'black' notitle"]
        for n, ((what, why), points) in enumerate(found.items()):
            yield f'$curve{n} << END'
            yield from (f'{x} {y}' for x, y in points)
            yield 'END'
            plots.append(f'$curve{n} with linespoints title '
                         + quoted(f'{what} / {why}'))
        yield 'plot ' + ', '.join(plots)


def main():
    name, out = sys.argv[1:]
    with open(name, encoding='utf-8') as f:
        results = json.load(f)['results']
    subprocess.run(['gnuplot'], input='\n'.join(script(results, out)),
                   text=True, check=True)


if __name__ == '__main__':
    main()
