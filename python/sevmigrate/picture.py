"""
A picture of a guest's memory.  The colour of a page shows the path that it
took.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import base64
import struct
import zlib
from xml.sax.saxutils import escape

WIDTH = 256     # pages in a row
SCALE = 2

# COLOURS has the colours of pages that were sent at most once, AGAIN those of
# pages that were sent more often.  The first colour is for pages that were not
# sent, the others are for the paths in stream.Tally.PATHS, in the same order.
COLOURS = ((0x30, 0x30, 0x30), (0x2b, 0x5c, 0x9e), (0x5a, 0x4a, 0x6a),
           (0xe6, 0x9f, 0x00), (0xc8, 0xc8, 0xc8))
AGAIN = ((0x30, 0x30, 0x30), (0x56, 0xb4, 0xe9), (0x7a, 0x6a, 0x8a),
         (0xf5, 0xd5, 0x6e), (0xf0, 0xf0, 0xf0))
LEGEND = ('not sent', 'private, by the {}',
          'private, never accessed: without contents', 'shared, as it is',
          'shared, all zeroes')


def png(width, height, indices):
    """
    Return a PNG.

    @indices: one byte per pixel, an index of the palette COLOURS + AGAIN
    """
    def chunk(kind, data):
        return (struct.pack('>I', len(data)) + kind + data +
                struct.pack('>I', zlib.crc32(kind + data)))

    palette = b''.join(bytes(c) for c in COLOURS + AGAIN)
    rows = b''.join(b'\0' + indices[y * width:(y + 1) * width]
                    for y in range(height))
    return (b'\x89PNG\r\n\x1a\n' +
            chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 3, 0, 0,
                                       0)) +
            chunk(b'PLTE', palette) + chunk(b'IDAT', zlib.compress(rows, 9)) +
            chunk(b'IEND', b''))


def hexcolour(c):
    return '#%02x%02x%02x' % c


def block_pixels(last, times):
    """
    Return one byte for each page of a block, padded to whole rows.  The byte is
    an index of the palette COLOURS + AGAIN.

    @last, @times: the members of stream.Tally for this block
    """
    pixels = bytes(r + (len(COLOURS) if n > 1 else 0)
                   for r, n in zip(last, times))
    return pixels + bytes(-len(pixels) % WIDTH)


def block_png(last, times):
    """Return a PNG of one block with one pixel per page, and its height."""
    pixels = block_pixels(last, times)
    height = len(pixels) // WIDTH
    return png(WIDTH, height, pixels), height


def blocks_png(tally, blocks):
    """Return one PNG with all @blocks (names), one below the other."""
    pixels = bytearray()
    for name in blocks:
        pixels += block_pixels(tally.last[name], tally.times[name])
    return png(WIDTH, len(pixels) // WIDTH, bytes(pixels))


def timeline(rounds, left, y, width):
    """
    Draw a bar for each round, from its start to its end on the time axis.  The
    bar is divided in the ratio of the private and shared pages of the round.

    @rounds: recent-rounds of query-migrate's encrypted-ram
    @left, @y, @width: place of the drawing
    Returns (SVG elements, the y coordinate below them).
    """
    private, shared = hexcolour(COLOURS[1]), hexcolour(COLOURS[3])
    end = max(r['start'] + r['duration'] for r in rounds) or 1
    bars = width - 440      # the numbers are beside the bars
    out = [f'<text x="{left}" y="{y}">rounds over time, {end / 1000:.1f} s: '
           'how many pages took which path</text>']
    y += 12
    for r in rounds:
        x = left + bars * r['start'] / end
        w = max(bars * r['duration'] / end, 2)
        pages = r['private-pages'] + r['shared-pages']
        part = w * r['private-pages'] / pages if pages else 0
        out.append(f'<rect x="{x:.1f}" y="{y}" width="{w:.1f}" height="14" '
                   'fill="#ddd"/>')
        for at, size, colour in ((x, part, private),
                                 (x + part, w - part if pages else 0, shared)):
            if size:
                out.append(f'<rect x="{at:.1f}" y="{y}" width="{size:.1f}" '
                           f'height="14" fill="{colour}"/>')
        text = (f'{r["round"]:>3}: {r["private-pages"]:>6} private '
                f'{r["shared-pages"]:>6} shared')
        if r['converted-pages']:
            text += f' {r["converted-pages"]} converted'
        out.append(f'<text x="{left + bars + 12}" y="{y + 12}" '
                   f'xml:space="preserve">{text}</text>')
        y += 18
    return out, y


def svg(tally, blocks, title, lines, rounds, helper=False):
    """
    Return an SVG that shows the pages of some blocks.

    @tally: stream.Tally with the paths of the pages
    @blocks: names of the blocks
    @lines: lines of text below the legend
    @rounds: rounds for timeline(), which is below the blocks; may be empty
    @helper: whether the migration helper packed the private pages
    """
    packer = 'migration helper' if helper else 'firmware'
    out, y, left = [], 50, 20
    for name in blocks:
        image, height = block_png(tally.last[name], tally.times[name])
        height *= SCALE
        out.append(f'<text x="{left}" y="{y}">{escape(name)}, '
                   f'{len(tally.last[name]) * 4} KiB</text>')
        out.append(f'<image x="{left}" y="{y + 8}" width="{WIDTH * SCALE}" '
                   f'height="{height}" preserveAspectRatio="none" '
                   'style="image-rendering:pixelated" '
                   'href="data:image/png;base64,'
                   f'{base64.b64encode(image).decode()}"/>')
        y += height + 36
    x, ty = left + WIDTH * SCALE + 30, 62
    for colour, again, text in zip(COLOURS, AGAIN, LEGEND):
        out.append(f'<rect x="{x}" y="{ty}" width="16" height="16" '
                   f'fill="{hexcolour(colour)}"/>')
        if colour != again:
            out.append(f'<rect x="{x + 20}" y="{ty}" width="16" height="16" '
                       f'fill="{hexcolour(again)}"/>')
        out.append(f'<text x="{x + 44}" y="{ty + 13}">'
                   f'{text.format(packer)}</text>')
        ty += 26
    out.append(f'<text x="{x}" y="{ty + 6}" fill="#666">dark: sent once, '
               'light: more often</text>')
    ty += 36
    for line in lines:
        out.append(f'<text x="{x}" y="{ty}" xml:space="preserve">'
                   f'{escape(line)}</text>')
        ty += 18
    # A character is at most 8 pixels wide if the font size is 13, and at most
    # 11 pixels if it is 17
    width = max(x + 8 * max(map(len, [*lines, ' ' * 46])),
                left + 11 * len(title)) + left
    height = max(y, ty) + 10
    if rounds:
        bars, height = timeline(rounds, left, height + 16, width - left)
        out += bars
        height += 10
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="monospace" font-size="13">\n'
            f'<rect width="{width}" height="{height}" fill="#fff"/>\n'
            f'<text x="{left}" y="28" font-size="17">{escape(title)}</text>\n'
            + '\n'.join(out) + '\n</svg>\n')
