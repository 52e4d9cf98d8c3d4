# SPDX-License-Identifier: GPL-2.0-or-later
"""Format results as a table of reStructuredText."""


def table(rows):
    """Return the table of @rows, lists of strings; the first has the titles."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    rule = '  '.join('=' * w for w in widths)
    out = []
    for i, r in enumerate(rows):
        if i < 2:
            out.append(rule)
        out.append('  '.join(c.ljust(w) for c, w in zip(r, widths)).rstrip())
    return '\n'.join(out + [rule]) + '\n'
