#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure how long QEMU itself takes to migrate, natively and without a guest.

  bench-stream.py [--only plain|channels|sync|tcg] [--starts N] [--turns N]
                  [--rounds N] [--memory MIB] [--json FILE]

The script makes these comparisons and measures the two sides alternately:

- the CPU time of migrating a plain guest with our QEMU, and with the
  distribution's QEMU, built with the same options (scripts/build/bare-qemu)
- the elapsed time of migrating private memory and of migrating plain memory,
  with and without multifd.  The private memory is that of
  hw/misc/confidential-guest-testdev.c, which copies pages instead of encrypting
- the time of synchronizing a large bitmap, and of copying it
- the CPU time of booting a plain guest under TCG with our QEMU and with the
  distribution's, because the emulated platform changes TCG for all guests

The script lists the goals that it missed; a missed goal is not a failure.
"""
import argparse
import collections
import ctypes
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from sevmig import BUILD, guest as workload
from sevmig.table import table

from monitor import Qmp

OURS, BARE = '/b/qemu/qemu-system-x86_64', '/b/qemu-bare/qemu-system-x86_64'
SYNC = '/b/qemu/tests/bench/encbitmap-bench'
TESTDEV = ['-device', 'confidential-guest-testdev']
# QEMU's warning if "fd:" refers to /dev/null.  The program uses "fd:", because
# "file:" refuses /dev/null.
DEPRECATED = 'fd: migration to a file is deprecated'
CHANNELS = (0, 1, 2, 4)     # 0: without multifd
MIB = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


def cpu_clock(pid):
    """
    Return the clock that measures the CPU time of all threads of @pid,
    including those that have ended.
    """
    clock = ctypes.c_int()
    error = LIBC.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error))
    return clock.value


class Guest:
    """A QEMU whose guest is stopped and has @memory MiB of non-zero RAM."""

    def __init__(self, work, name, qemu, memory, extra=(), incoming=False):
        with open(f'{work}/bios', 'wb') as f:
            f.write(bytes(64 << 10))
        args = [qemu, '-L', '/usr/share/seabios', '-L', '/usr/share/qemu',
                '-nodefaults', '-no-user-config', '-display', 'none', '-S',
                '-accel', 'qtest', '-machine', 'pc', '-m', str(memory),
                '-global', 'apic-common.vapic=off', '-bios', f'{work}/bios',
                '-qmp', f'unix:{work}/{name}.qmp,server=on,wait=off',
                '-qtest', f'unix:{work}/{name}.qtest,server=on,wait=off',
                '-qtest-log', 'none', *extra]
        if incoming:
            args += ['-incoming', 'defer']
        self.log = f'{work}/{name}.log'
        with open(self.log, 'wb') as log:
            self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL,
                                         stderr=log)
        self.clock = cpu_clock(self.proc.pid)
        self.qmp = Qmp(f'{work}/{name}.qmp', self.proc)
        self.qmp.cmd('migrate-set-parameters', **{'max-bandwidth': 1 << 40})
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

    def capabilities(self, *names):
        self.qmp.cmd('migrate-set-capabilities', capabilities=[
            {'capability': n, 'state': True} for n in names])

    def migrate(self, uri):
        """Migrate and wait until it has completed."""
        self.qmp.cmd('migrate', uri=uri)
        while (status := self.qmp.event('MIGRATION')['status']) != 'completed':
            if status in ('failed', 'cancelled'):
                raise RuntimeError(self.qmp.cmd('query-migrate').get(
                    'error-desc', status))
        # QEMU sends the event "completed" before it enters the state
        # postmigrate.  The next migration must not begin before QEMU has
        # entered this state.
        while self.qmp.cmd('query-status')['status'] != 'postmigrate':
            time.sleep(0.001)

    def migrate_to_nowhere(self):
        """
        Migrate to /dev/null, and let QEMU become ready for another migration.
        Returns the CPU time of the migration in ns.
        """
        began = time.clock_gettime_ns(self.clock)
        with open('/dev/null', 'wb') as f:
            self.qmp.give(f.fileno(), 'nowhere')
        self.migrate('fd:nowhere')
        ns = time.clock_gettime_ns(self.clock) - began
        # QEMU refuses to migrate in the state postmigrate.  "cont" and "stop"
        # change the state to paused.
        self.qmp.cmd('cont')
        self.qmp.cmd('stop')
        return ns

    def end(self):
        self.qmp.close()
        self.proc.kill()
        self.proc.wait()
        with open(self.log, encoding='utf-8', errors='replace') as log:
            for said in log:
                if DEPRECATED not in said:
                    sys.stderr.write(said)


# @ours and @theirs are medians in ns, and @ratio is the median of the ratios.
# @least is the ratio of the shortest times; other work on the machine influences it
# less than the medians.  The benchmark starts the QEMU processes several times;
# @starts is the list of the median ratios, one for each start.  The list is
# empty if the caller of line() does not pass @turns, the number of samples for
# each start.
Line = collections.namedtuple(
    'Line', 'what ours against theirs ratio least starts goal')


def line(what, ours, against, theirs, goal=None, inverse=False, turns=None):
    """
    Return the Line for two lists of samples, @ours and @theirs.  Samples with
    the same index were measured one after the other.  Each start of the
    processes gave @turns samples.  With @inverse, ratios are those of speeds,
    not of times.
    """
    def ratio(o, t):
        return t / o if inverse else o / t

    ratios = [ratio(o, t) for o, t in zip(ours, theirs)]
    starts = [statistics.median(ratios[i:i + turns])
              for i in range(0, len(ratios), turns)] if turns else []
    return Line(what, statistics.median(ours), against,
                statistics.median(theirs), statistics.median(ratios),
                ratio(min(ours), min(theirs)), starts, goal)


def read(path):
    try:
        with open(path, encoding='ascii', errors='replace') as f:
            return f.read()
    except FileNotFoundError:
        return ''


def in_turns(things, i):
    """Return the list @things, rotated by @i elements"""
    i %= len(things)
    return things[i:] + things[:i]


def plain(starts, turns, memory, samples):
    """
    Repeatedly migrate a plain guest of each QEMU to /dev/null.  The measured
    CPU time is only QEMU's own: QEMU waits for no other process, and CPU time
    does not include other work on the machine.  A difference of 1 % is
    therefore visible.
    """
    kinds = [('ours', OURS), ('bare', BARE), ('bare again', BARE)]
    for start in range(starts):
        with tempfile.TemporaryDirectory() as work:
            guests = []
            try:
                for name, qemu in in_turns(kinds, start):
                    guests.append((name, Guest(
                        work, name.replace(' ', '-'), qemu, memory)))
                for _, guest in guests:
                    guest.capabilities('events')
                    guest.migrate_to_nowhere()
                for turn in range(turns):
                    for name, guest in in_turns(guests, turn):
                        samples['plain', name].append(
                            guest.migrate_to_nowhere())
            finally:
                for _, guest in guests:
                    guest.end()
    ours, bare, again = (samples['plain', name] for name, _ in kinds)
    yield line(f'plain guest of {memory} MiB, CPU time', ours,
               'unpatched QEMU', bare, ('>=', 0.99), inverse=True, turns=turns)
    yield line('unpatched QEMU, CPU time', again, 'itself: noise', bare,
               inverse=True, turns=turns)


def between_two(memory, extra, channels):
    """
    Migrate from one process to another.  Returns the time without the setup in
    ns, and the answer of query-migrate.
    """
    with tempfile.TemporaryDirectory() as work:
        uri = f'unix:{work}/socket'
        src = dst = None
        try:
            dst = Guest(work, 'dst', OURS, memory, extra, incoming=True)
            src = Guest(work, 'src', OURS, memory, extra)
            for guest in (src, dst):
                guest.capabilities('return-path', 'events')
                if channels:
                    guest.capabilities('multifd')
                    guest.qmp.cmd('migrate-set-parameters',
                                  **{'multifd-channels': channels})
            dst.qmp.cmd('migrate-incoming', uri=uri)
            src.migrate(uri)
            info = src.qmp.cmd('query-migrate')
            # The setup time does not depend on the kind of memory, so leave it
            # out
            return (info['total-time'] - info['setup-time']) * 1e6, info
        finally:
            for guest in (src, dst):
                if guest:
                    guest.end()


def channels_name(n):
    return {0: 'no multifd', 1: '1 channel'}.get(n, f'{n} channels')


def moves(rounds, memory, samples):
    """Migrate private and plain memory from one process to another."""
    cases = [(kind, extra, n) for n in CHANNELS
             for kind, extra in (('plain', ()), ('private', TESTDEV))]
    records = 0
    for i in range(rounds):
        for kind, extra, n in in_turns(cases, i):
            ns, info = between_two(memory, extra, n)
            samples[kind, channels_name(n)].append(ns)
            if extra:
                records = info['encrypted-ram']['batches']
    names = [channels_name(n) for n in CHANNELS]
    rate = records / min(samples['private', names[0]]) * 1e9
    for name in names:
        what = f', {rate:.0f} records/s' if name == names[0] else ''
        yield line(f'private memory, {name}{what}', samples['private', name],
                   f'plain memory, {name}', samples['plain', name],
                   inverse=True)
    for kind in ('plain', 'private'):
        for name in names[1:]:
            yield line(f'{kind} memory, {name}', samples[kind, name],
                       names[0], samples[kind, names[0]], inverse=True)


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


def boot(qemu):
    """Boot Linux under TCG.  Returns QEMU's CPU time in ns."""
    with tempfile.TemporaryDirectory() as work:
        console = f'{work}/console'
        with open(f'{work}/disk', 'wb') as f:
            f.truncate(4 * MIB)
        with subprocess.Popen([
                qemu, '-L', '/usr/share/seabios', '-L', '/usr/share/qemu',
                '-nodefaults', '-no-user-config', '-display', 'none',
                '-accel', 'tcg', '-cpu', 'max', '-machine', 'q35',
                '-m', '256', '-kernel', f'{BUILD}/guest/vmlinuz',
                '-initrd', f'{BUILD}/guest/initrd.gz', '-append',
                'console=ttyS0 panic=-1 loglevel=3 nowatchdog ' +
                workload.Workload('7c6').cmdline(),
                '-drive', f'if=virtio,format=raw,file={work}/disk',
                '-serial', f'file:{console}']) as proc:
            clock = cpu_clock(proc.pid)
            end = time.monotonic() + workload.BOOT
            while not workload.ticks(read(console)):
                if proc.poll() is not None or time.monotonic() > end:
                    proc.kill()
                    raise RuntimeError('the guest did not boot: ' +
                                       read(console)[-500:])
                time.sleep(0.05)
            ns = time.clock_gettime_ns(clock)
            proc.kill()
            return ns


def boots(rounds, samples):
    """
    Boot a plain Linux guest under TCG with each QEMU until its program has
    printed a line.  The guest has one vCPU, so QEMU uses little CPU time
    outside of TCG.
    """
    kinds = [('ours', OURS), ('bare', BARE), ('bare again', BARE)]
    for i in range(rounds):
        for name, qemu in in_turns(kinds, i):
            samples['tcg', name].append(boot(qemu))
    ours, bare, again = (samples['tcg', name] for name, _ in kinds)
    yield line('boot under TCG, CPU time', ours, 'unpatched QEMU', bare,
               ('<=', 1.02))
    yield line('unpatched QEMU, CPU time', again, 'itself: noise', bare)


def met(l):
    if not l.goal:
        return None
    sign, goal = l.goal
    return l.ratio >= goal if sign == '>=' else l.ratio <= goal


def show(lines):
    rows = [('what', 'ms', 'against', 'ms', 'ratio', 'of least', 'of starts',
             'goal', '')]
    for l in lines:
        rows.append((l.what, f'{l.ours / 1e6:.1f}', l.against,
                     f'{l.theirs / 1e6:.1f}', f'{l.ratio:.3f}',
                     f'{l.least:.3f}',
                     f'{min(l.starts):.3f} to {max(l.starts):.3f}'
                     if l.starts else '-',
                     f'{l.goal[0]} {l.goal[1]}' if l.goal else '-',
                     {None: '', True: 'met', False: 'MISSED'}[met(l)]))
    print(table(rows), end='')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--only', choices=['plain', 'channels', 'sync', 'tcg'])
    p.add_argument('--starts', type=int, default=8)
    p.add_argument('--turns', type=int, default=30)
    p.add_argument('--rounds', type=int, default=9)
    p.add_argument('--memory', type=int, default=1024)
    p.add_argument('--json')
    a = p.parse_args()
    samples = collections.defaultdict(list)
    lines = []
    if a.only in (None, 'plain'):
        lines += plain(a.starts, a.turns, a.memory, samples)
    if a.only in (None, 'channels'):
        lines += moves(a.rounds, a.memory, samples)
    if a.only in (None, 'sync'):
        lines += syncs(a.rounds, samples)
    if a.only in (None, 'tcg'):
        lines += boots(a.rounds, samples)
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
