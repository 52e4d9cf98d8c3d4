"""
Checks of what tests/guest/workload.c, the workload in the guest, prints.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import hashlib
import re
from dataclasses import dataclass

CHAIN_SIZE = 16
MARKER_SIZE = 64
MARKED_PAGES = 64
IO_SIZE = 64 * 1024
PAGE = 4096

# Timeouts in seconds: for the boot of the guest, for a migration, and for a few
# ticks of a guest that has booted.  They are long enough for a busy machine.
BOOT, MIGRATION, TICKS = 900, 1200, 300

TICK = re.compile(
    r'^tick (\d+) chain ([0-9a-f]{32}) static ([0-9a-f]{16}) bad (\d+) '
    r'marks (\d+) io (\d+) cpus ([0-9a-f]+) mono (\d+\.\d{3}) '
    r'real (\d+\.\d{3})\r?$', re.M)
CHURN = re.compile(r'^churn (\d+) bad (\d+)\r?$', re.M)


def derive(label, data, size):
    return hashlib.shake_128(label + data).digest(size)


@dataclass
class Tick:
    number: int
    chain: str
    static: str
    bad: int
    marks: int
    io_bad: int
    cpus: int       # one bit for each vCPU that has written
    mono: float
    real: float


def ticks(console):
    """Return the complete ticks in the text of a console."""
    return [Tick(int(m[1]), m[2], m[3], int(m[4]), int(m[5]), int(m[6]),
                 int(m[7], 16), float(m[8]), float(m[9]))
            for m in TICK.finditer(console)]


class Workload:
    """The workload of one seed."""

    def __init__(self, seed, dynamic_kib=256, static_kib=16384, period_ms=200,
                 churn=False, cpus=1):
        self.seed = seed.encode()
        self.dynamic_kib = dynamic_kib
        self.static_kib = static_kib
        self.period_ms = period_ms
        self.churn = churn
        self.cpus = cpus
        self.private_marker = derive(b'private marker', self.seed, MARKER_SIZE)
        self.shared_marker = derive(b'shared marker', self.seed, MARKER_SIZE)
        self._chain = [derive(b'chain', self.seed, CHAIN_SIZE)]

    def cmdline(self):
        return (f'workload.seed={self.seed.decode()} '
                f'workload.dynamic={self.dynamic_kib} '
                f'workload.static={self.static_kib} '
                f'workload.cpus={self.cpus} '
                f'workload.period={self.period_ms} '
                f'workload.churn={int(self.churn)}')

    def chain(self, number):
        """Return the digest that tick @number must print."""
        while len(self._chain) <= number:
            c = self._chain[-1]
            io = bytearray(derive(b'io', c, IO_SIZE))
            for at in range(0, IO_SIZE, PAGE):
                io[at:at + MARKER_SIZE] = self.shared_marker
            h = hashlib.shake_128(b'next' + c)
            part_size = self.dynamic_kib * 1024 // self.cpus
            for part in range(self.cpus):
                h.update(derive(b'dyn', bytes([part]) + c, part_size))
            h.update(io)
            self._chain.append(h.digest(CHAIN_SIZE))
        return self._chain[number].hex()

    def problems(self, console):
        """
        Return the errors in @console as a list of sentences.

        @console: what the guest has printed since its boot: the texts of the
                  consoles of all QEMUs that ran it, joined
        """
        out = []
        seen = ticks(console)
        raw = len(re.findall(r'^tick ', console, re.M))
        # If the last line has no newline, the guest may still be printing it.
        # ticks() then does not return it, so allow one incomplete tick.
        if raw > len(seen) + (not console.endswith('\n')):
            out.append(f'{raw} ticks on the console, {len(seen)} readable')
        if not seen:
            return out + ['no tick at all']
        for want, t in enumerate(seen):
            if t.number != want:
                out.append(f'tick {t.number} where {want} was expected')
                break
            if t.chain != self.chain(t.number):
                out.append(f'tick {t.number}: digest {t.chain}, '
                           f'expected {self.chain(t.number)}')
                break
            if t.static != seen[0].static or t.bad:
                out.append(f'tick {t.number}: the unchanging memory changed')
            if t.marks != MARKED_PAGES:
                out.append(f'tick {t.number}: {t.marks} of {MARKED_PAGES} '
                           'marked pages')
            if t.io_bad:
                out.append(f'tick {t.number}: {t.io_bad} bad disk accesses')
            if t.cpus != (1 << self.cpus) - 1:
                out.append(f'tick {t.number}: CPUs {t.cpus:#b} have written, '
                           f'expected {self.cpus}')
            if want and t.mono <= seen[want - 1].mono:
                out.append(f'tick {t.number}: the clock went from '
                           f'{seen[want - 1].mono} to {t.mono}')
        for m in CHURN.finditer(console):
            if int(m[2]):
                out.append(f'churn {m[1]}: {m[2]} bad')
        for bad in ('Kernel panic', 'BUG:', 'Oops', 'general protection',
                    'inconsistent', 'I/O error'):
            if bad in console:
                line = next(x for x in console.splitlines() if bad in x)
                out.append(f'the guest says: {line.strip()}')
        return out
