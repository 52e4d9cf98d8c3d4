#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU's part of a migration costs, natively: no guest runs.

  bench-stream.py [--rounds N] [--memory MIB] [--json FILE]

Compared in turns, within one run: a plain guest of our QEMU and of the
distribution's, built alike (scripts/build-bare-qemu); memory of a confidential
guest whose encryption costs nothing (hw/misc/confidential-guest-testdev.c)
against plain memory; the sync of a large bitmap against copying it.  Ratios of
medians; goals that are missed are listed, and fail nothing.
"""
import argparse
import collections
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from monitor import Qmp

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))), 'l1/bench'))
# pylint: disable=wrong-import-position
from table import table     # noqa: E402

OURS, BARE = '/b/qemu/qemu-system-x86_64', '/b/qemu-bare/qemu-system-x86_64'
SYNC = '/b/qemu/tests/bench/encbitmap-bench'
TESTDEV = ['-device', 'confidential-guest-testdev']
MIB = 1 << 20


class Guest:
    """A stopped guest with @memory MiB that are not zeros."""

    def __init__(self, work, name, qemu, memory, extra=(), incoming=None):
        args = [qemu, '-L', '/usr/share/seabios', '-L', '/usr/share/qemu',
                '-nodefaults', '-no-user-config', '-display', 'none', '-S',
                '-accel', 'qtest', '-machine', 'pc', '-m', str(memory),
                '-global', 'apic-common.vapic=off', '-bios', f'{work}/bios',
                '-qmp', f'unix:{work}/{name}.qmp,server=on,wait=off',
                '-qtest', f'unix:{work}/{name}.qtest,server=on,wait=off',
                '-qtest-log', 'none', *extra]
        if incoming:
            args += ['-incoming', incoming]
        self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL)
        self.qmp = Qmp(f'{work}/{name}.qmp', self.proc)
        if not incoming:
            self.fill(f'{work}/{name}.qtest', memory)

    @staticmethod
    def fill(path, memory):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
            with s.makefile('rw') as f:
                f.write(f'memset 0x100000 {(memory - 1) * MIB:#x} 0x5a\n')
                f.flush()
                if f.readline().strip() != 'OK':
                    raise RuntimeError('qtest: memset')

    def end(self):
        self.proc.kill()
        self.proc.wait()


def migrate(qemu, memory, extra=()):
    """Nanoseconds for RAM, from one process to another, and query-migrate."""
    with tempfile.TemporaryDirectory() as work:
        with open(f'{work}/bios', 'wb') as f:
            f.write(bytes(64 << 10))
        uri = f'unix:{work}/socket'
        src = dst = None
        try:
            dst = Guest(work, 'dst', qemu, memory, extra, uri)
            src = Guest(work, 'src', qemu, memory, extra)
            src.qmp.cmd('migrate-set-capabilities', capabilities=[
                {'capability': 'return-path', 'state': True}])
            src.qmp.cmd('migrate-set-parameters', **{'max-bandwidth': 1 << 40})
            src.qmp.cmd('migrate', uri=uri)
            while True:
                info = src.qmp.cmd('query-migrate')
                if info['status'] == 'completed':
                    # What comes before and after is not ours
                    ms = info['total-time'] - info['setup-time']
                    return ms * 1e6, info
                if info['status'] in ('failed', 'cancelled'):
                    raise RuntimeError(info.get('error-desc', info['status']))
                time.sleep(0.02)
        finally:
            for guest in (src, dst):
                if guest:
                    guest.end()


# Times in ns, medians; @least: the ratio of the least, which other work on the
# machine hits less
Line = collections.namedtuple('Line',
                              'what ours against theirs ratio least goal')


def line(what, ours, against, theirs, goal=None, inverse=False):
    """Of samples.  @inverse: the ratio of speeds, not of times."""
    def ratio(f):
        return f(theirs) / f(ours) if inverse else f(ours) / f(theirs)

    return Line(what, statistics.median(ours), against,
                statistics.median(theirs), ratio(statistics.median),
                ratio(min), goal)


def roads(rounds, memory, samples):
    """A plain guest of both QEMUs, and a confidential one of ours."""
    records = 0
    for i in range(rounds):
        # Who comes first differs
        order = [('ours', OURS, ()), ('bare', BARE, ()),
                 ('private', OURS, TESTDEV), ('bare again', BARE, ())]
        for name, qemu, extra in order[i % 4:] + order[:i % 4]:
            ns, info = migrate(qemu, memory, extra)
            samples['migrate', name].append(ns)
            if extra:
                records = info['encrypted-ram']['batches']
    m = {k[1]: v for k, v in samples.items() if k[0] == 'migrate'}
    rate = records / min(m['private']) * 1e9
    yield line(f'plain guest of {memory} MiB', m['ours'], 'unpatched QEMU',
               m['bare'], ('>=', 0.99), inverse=True)
    yield line('unpatched QEMU', m['bare again'], 'itself: noise', m['bare'],
               inverse=True)
    yield line(f'private memory, crypto taken out, {rate:.0f} records/s',
               m['private'], 'plain memory', m['ours'], inverse=True)


def syncs(rounds, samples):
    p = subprocess.run([SYNC, '1024', str(rounds)], stdout=subprocess.PIPE,
                       text=True, check=True)
    for said in p.stdout.splitlines():
        s = json.loads(said)
        samples['sync: ' + s['what'], s['with']].append(s['ns'])
    for what, with_ in list(samples):
        if with_ == 'update':
            yield line(f'{what}, of 1 TiB', samples[what, 'update'],
                       'memcpy of the bitmap', samples[what, 'memcpy'],
                       ('<=', 1.5))


def met(l):
    if not l.goal:
        return None
    sign, goal = l.goal
    return l.ratio >= goal if sign == '>=' else l.ratio <= goal


def show(lines):
    rows = [('what', 'ms', 'against', 'ms', 'ratio', 'of least', 'goal', '')]
    for l in lines:
        rows.append((l.what, f'{l.ours / 1e6:.1f}', l.against,
                     f'{l.theirs / 1e6:.1f}', f'{l.ratio:.3f}',
                     f'{l.least:.3f}',
                     f'{l.goal[0]} {l.goal[1]}' if l.goal else '-',
                     {None: '', True: 'met', False: 'MISSED'}[met(l)]))
    print(table(rows), end='')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=9)
    p.add_argument('--memory', type=int, default=1024)
    p.add_argument('--json')
    a = p.parse_args()
    samples = collections.defaultdict(list)
    lines = list(roads(a.rounds, a.memory, samples))
    lines += syncs(a.rounds, samples)
    show(lines)
    goals = [l for l in lines if l.goal]
    print(f'{sum(map(met, goals))} of {len(goals)} goals met')
    if a.json:
        with open(a.json, 'w', encoding='utf-8') as f:
            json.dump({'results': [dict(l._asdict(), met=met(l))
                                   for l in lines],
                       'samples': [{'what': k[0], 'with': k[1], 'ns': v}
                                   for k, v in samples.items()]}, f, indent=1)
            f.write('\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
