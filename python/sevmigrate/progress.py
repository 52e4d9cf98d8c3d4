"""
Functions that show the answers of query-migrate as text.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import sys
import time
from dataclasses import dataclass

PAGE = 4096
BAR = 24                # characters
INTERVAL = 10           # seconds between two lines if stderr is no terminal


@dataclass
class Left:
    """How many pages a migration still has to send, and how fast it is."""
    status: str
    round: int
    private: int
    shared: int
    total: int
    pages_per_second: int       # private pages; 0 if not known yet
    bytes_per_second: float     # of the whole stream
    downtime_ms: int            # expected by QEMU; 0 if QEMU does not know

    @property
    def done(self):
        """Return the fraction of the pages that QEMU need not send any more."""
        if not self.total:
            return 0.0
        return max(0.0, 1 - (self.private + self.shared) / self.total)

    def seconds(self):
        """Return the estimated time for the pages left; None if unknown."""
        if self.private and not self.pages_per_second:
            return None
        if self.shared and not self.bytes_per_second:
            return None
        out = self.private / self.pages_per_second if self.private else 0
        if self.shared:
            out += self.shared * PAGE / self.bytes_per_second
        return out


def left(info):
    """Return Left for an answer of query-migrate."""
    ram, encrypted = info.get('ram', {}), info.get('encrypted-ram', {})
    private = encrypted.get('remaining-private-pages', 0)
    pages = -(-ram.get('remaining', 0) // PAGE)
    return Left(
        info.get('status', 'none'), ram.get('dirty-sync-count', 0), private,
        max(0, pages - private), ram.get('total', 0) // PAGE,
        encrypted.get('private-pages-per-second', 0),
        ram.get('mbps', 0) * 1e6 / 8, info.get('expected-downtime', 0))


def duration(seconds):
    if seconds is None:
        return 'unknown'
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min'


def line(now):
    """Return the progress line that shows @now, a Left."""
    filled = int(BAR * now.done)
    pace = (f', {now.pages_per_second} private pages/s'
            if now.pages_per_second else '')
    return (f'{now.status}, round {now.round} '
            f'[{"#" * filled}{"." * (BAR - filled)}] {100 * now.done:3.0f}%  '
            f'left: {now.private} private, {now.shared} shared pages{pace}, '
            f'about {duration(now.seconds())}')


class Display:
    """
    Shows the progress on stderr.  On a terminal, the object updates one line.
    In a file or a pipe, it prints a new line every INTERVAL seconds.

    @quiet: whether to show nothing
    @stream: a replacement for stderr
    """

    def __init__(self, quiet, stream=None):
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._last = float('-inf')
        self._width = 0

    def show(self, now):
        if self._quiet:
            return
        text = line(now)
        if self._terminal:
            print('\r' + text.ljust(self._width), end='', file=self._stream,
                  flush=True)
            self._width = len(text)
        elif time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            print(text, file=self._stream, flush=True)

    def say(self, text):
        """Print a message on a line of its own."""
        if self._width:
            print(file=self._stream)
            self._width = 0
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    def end(self):
        if self._width:
            print(file=self._stream)
            self._width = 0


def summary(info):
    """Return lines of text for the last answer of query-migrate."""
    ram, encrypted = info.get('ram', {}), info.get('encrypted-ram', {})
    out = [f'total time {info.get("total-time", 0) / 1000:.1f} s, downtime '
           f'{info.get("downtime", 0)} ms, {ram.get("dirty-sync-count", 0)} '
           f'rounds, {ram.get("transferred", 0) / (1 << 20):.0f} MiB']
    if encrypted:
        out.append(
            f'private pages: {encrypted["private-pages"]} sent in '
            f'{encrypted["platform-time"] / 1000:.1f} s of the platform, '
            f'{encrypted["unallocated-pages"]} never accessed; shared pages: '
            f'{encrypted["shared-pages"]}')
        if 'warning' in encrypted:
            out.append('warning: ' + encrypted['warning'])
    return out
