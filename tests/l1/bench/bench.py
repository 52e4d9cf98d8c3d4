#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks of the KVM module and of guests, in the emulated host.

  bench.py [OPTION...] [--json FILE]    run all benchmarks, show a table
  bench.py [OPTION...] --here           used in the emulated host: print samples,
                                        one JSON object per line

  --memory MIB        guest memory; can be given several times
  --repetitions N     number of samples that are taken in a row
  --rounds N          number of times that the modules are exchanged
  --quick             use little memory and take few samples
  --only calls|guests|packets   measure only calls of the kernel, whole guests,
                      or packets of the firmware

Samples that are compared are taken in turns, in one boot of one emulated host.
Only their ratio is meaningful, because the host is emulated and other work runs
on the machine.
"""
import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import time

from sevmig.table import table

BUILD = os.environ.get('BUILD', '/b')
HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
PROGRAMS = f'{BUILD}/meson/tests/l1/bench'
MODULES = f'{BUILD}/l1/modules'

MiB, GiB = 1 << 20, 1 << 30
PACKETS = 256 * 4096            # bytes that bench-packets sends
SIZES = [MiB, 16 * MiB, 128 * MiB, GiB, 8 * GiB]
# Kinds of memory (see faults.c), and the sets of modules that support each
FAULTS = {
    'anonymous': ['stock', 'bare', 'module'],
    'gmem': ['stock', 'bare', 'module'],
    'sev': ['stock', 'bare', 'module'],
    'private': ['bare', 'module'],
    'in-place': ['module'],
    'sev-gmem': ['module'],
}
# Measurements of whole guests: title and goal.  An SEV guest on the emulated
# platform must boot at 0.8 times the speed of a plain guest, that is, in 1.25
# times the time.  A boot of an SEV guest with a guest_memfd has no goal: a
# guest_memfd has only small pages, so the ratio shows not only the cost of the
# emulated platform, but also the cost of small pages.
GUESTS = {
    ('boot', 'sev, ram'): ('boot, memory-backend-ram', 1.25),
    ('boot', 'sev'): ('boot, guest_memfd', None),
    ('downtime', 'sev'): ('downtime', 2.0),
}
# A firmware command of one page takes about 2.5 ms on hardware.  Nobody has
# measured whether the doorbell or the execution of the command takes most of
# this time, so there is a model for each case.  A model is the nanoseconds for
# a doorbell, for a command, and for a KiB.
MODELS = {
    'slow doorbell': (2450000, 10000, 10000),
    'slow command': (10000, 2450000, 10000),
}
# In the emulated host, the medians of two runs of the same modules differ by up
# to this fraction.  The control lines of the table, which compare modules with
# themselves, show that.
NOISE = 0.15


# Functions that run in the emulated host

def load(modules):
    """Replace kvm.ko and kvm-amd.ko by those in MODULES/@modules"""
    for m in ('kvm_amd', 'kvm'):
        if os.path.isdir(f'/sys/module/{m}'):
            subprocess.run(['busybox', 'rmmod', m], check=True)
    for m in ('kvm', 'kvm-amd'):
        subprocess.run(['busybox', 'insmod', f'{MODULES}/{modules}/{m}.ko'],
                       check=True)
    for _ in range(100):
        if os.path.exists('/dev/kvm'):
            return
        time.sleep(0.05)
    sys.exit('bench: no /dev/kvm')


def program(*args):
    subprocess.run([f'{PROGRAMS}/bench-{args[0]}', *map(str, args[1:])],
                   check=True)


def here(sizes, repetitions, rounds):
    load('module')
    for size in sizes:
        print(f'# attributes and bitmap of {size_name(size)}', flush=True)
        program('attributes', size, repetitions)
        program('bitmap', size, repetitions)
    for i in range(rounds):
        print(f'# faults, round {i + 1} of {rounds}', flush=True)
        sets = ['stock', 'bare', 'module']
        # Measure each of the three sets of modules once, beginning with a
        # different set in each iteration.  Then measure the stock modules
        # again: this second measurement is the control.
        for name in sets[i % 3:] + sets[:i % 3] + ['stock']:
            load(name)
            control = name == 'stock' and name in here.seen
            for kind, of in FAULTS.items():
                if name in of:
                    program('faults', 'control' if control else name, kind, 3)
            here.seen.add(name)
        here.seen.clear()


here.seen = set()


# Functions that run outside of the emulated host

Line = collections.namedtuple('Line', 'title size ours other goal why')


class Median(float):
    """The median of samples; @least is the smallest sample"""
    least = 0.0

    @classmethod
    def of(cls, samples):
        m = cls(statistics.median(samples))
        m.least = min(samples)
        return m


def size_name(n):
    for unit, name in ((GiB, 'GiB'), (MiB, 'MiB')):
        if n >= unit:
            return f'{n // unit} {name}'
    return f'{n // 1024} KiB'


def attribute_lines(medians, memory):
    for kind in ('unallocated', 'allocated', 'mapped'):
        for way in ('to private', 'to shared'):
            what = f'all {way}, {kind}'
            for size in memory:
                m = medians.get(('attributes', what, size), {})
                goal = 0.05 if size == GiB else None
                if 'file' in m:
                    yield Line(f'attributes: {what}', size, m['file'], m['vm'],
                               goal, 'KVM_SET_MEMORY_ATTRIBUTES')
                if 'file' in m and kind != 'unallocated':
                    yield Line(f'attributes: {what}', size, m['file'],
                               m['vm+discard'], None,
                               'the same and giving the other copy back')
                if 'unmap' in m:
                    yield Line(f'attributes: {what}', size, m['file'],
                               m['unmap'], None, 'taking them from the host alone')
    for way in ('to private', 'to shared'):
        for size in memory:
            m = medians.get(('attributes', f'a page {way}', size), {})
            if m:
                yield Line(f'attributes: a page {way}', size, m['file'],
                           m['vm'], None, 'KVM_SET_MEMORY_ATTRIBUTES')


def bitmap_lines(medians, memory):
    for mix in (0, 1, 50, 100):
        for size in memory:
            m = medians.get(('bitmap', f'{mix} % private', size), {})
            if not m:
                continue
            title = f'bitmap: {mix} % private'
            yield Line(title, size, m['bitmap'], m['log'], 1.0,
                       'KVM_GET_DIRTY_LOG, nothing dirty')
            if 'log, dirty' in m:
                yield Line(title, size, m['bitmap'], m['log, dirty'], 1.0,
                           'KVM_GET_DIRTY_LOG, all pages dirty')
            yield Line(title, size, m['bitmap'], m['log, manual'], None,
                       'KVM_GET_DIRTY_LOG, manual protect')
    first = None
    for size in memory:
        m = medians.get(('bitmap', '50 % private', size), {})
        if m:
            first = first or m['unchanged']
            # The time must not depend on the size, so compare with the smallest
            # size.  The goal allows for the noise of the emulator.
            yield Line('bitmap: unchanged', size, m['unchanged'], first, 2.0,
                       f'that of {size_name(memory[0])}')


def fault_lines(medians):
    for kind, of in FAULTS.items():
        for size in {k[2] for k in medians if k[:2] == ('faults', kind)}:
            m = medians.get(('faults', kind, size))
            title = f'fault: {kind}'
            other = {'in-place': ('private', 'bare'),
                     'sev-gmem': ('sev', 'stock')}.get(kind)
            if other:
                ref = medians.get(('faults', other[0], size), {}).get(other[1])
                if ref:
                    yield Line(title, size, m['module'], ref, None,
                               f'fault: {other[0]}, {other[1]} modules')
                continue
            for name in of:
                if name != 'module' and name in m:
                    yield Line(title, size, m['module'], m[name],
                               1 + NOISE, f'{name} modules')
            if 'control' in m:
                yield Line(title + ', stock', size, m['control'], m['stock'],
                           None, 'stock modules again: noise')


def packet_lines(medians):
    for way in ('send', 'receive'):
        for model in MODELS:
            m = medians.get(('packets', f'{way}, {model}', PACKETS))
            if not m:
                continue
            title = f'private page, {model}: {way}, '
            yield Line(title + 'batch', PACKETS, m['batch'], m['page'], None,
                       'a page a call')
            yield Line(title + 'large packets', PACKETS, m['large'], m['page'],
                       None, 'a page a call')
            yield Line(title + 'large packets', PACKETS, m['large'],
                       m['threads'], None, 'by two threads')
            # If the doorbell is slow, a batch with the ring must be 20 times
            # as fast as one call per page.  If each command is slow, one
            # doorbell for many commands saves no time, so there is no goal.
            yield Line(title + 'ring', PACKETS, m['ring'], m['page'],
                       0.05 if model == 'slow doorbell' else None,
                       'a page a call')
            # A batch with the ring must not be slower than a batch without it
            yield Line(title + 'ring', PACKETS, m['ring'], m['large'],
                       1 + NOISE, 'large packets without')


def guest_lines(medians):
    for (what, kind), (title, goal) in GUESTS.items():
        for size in {k[2] for k in medians if k[:2] == ('guests', what)}:
            m = medians.get(('guests', what, size))
            yield Line(f'guest: {title}', size, m[kind], m['plain'], goal,
                       'the same guest without SEV')


def lines(medians):
    """Yield the lines of the table, with the project's goals"""
    memory = sorted({k[2] for k in medians if k[0] == 'bitmap'})

    yield from attribute_lines(medians, memory)
    yield from bitmap_lines(medians, memory)
    yield from fault_lines(medians)
    yield from packet_lines(medians)
    yield from guest_lines(medians)


def verdict(line):
    if line.goal is None:
        return ''
    return 'met' if line.ours / line.other <= line.goal else 'MISSED'


def microseconds(ns):
    us = ns / 1000
    return f'{us:.1f}' if us < 100 else f'{us:.0f}'


def present(found):
    rows = [('what', 'memory', 'us', 'against', 'us', 'ratio',
             'of least', 'goal', '')]
    for l in found:
        rows.append((l.title, size_name(l.size), microseconds(l.ours), l.why,
                     microseconds(l.other), f'{l.ours / l.other:.3f}',
                     f'{l.ours.least / l.other.least:.3f}',
                     '-' if l.goal is None else f'{l.goal:.2f}', verdict(l)))
    return table(rows)


def run(samples, command, env=None):
    """Run @command in the emulated host, collect samples, print other output"""
    p = subprocess.Popen(
        [f'{REPO}/scripts/l1', '--kernel', 'module', '--timeout', '3000', '--']
        + command, stdout=subprocess.PIPE, text=True, env=env)
    for line in p.stdout:
        if not line.startswith('{'):
            print(line, end='', flush=True)
            continue
        s = json.loads(line)
        samples[s['bench'], s['what'], s['size']][s['with']].append(s['ns'])
    if p.wait():
        sys.exit('bench: the measurement failed')


def collect(options, what, repetitions):
    """
    Run benchmarks.  Returns the medians, by (bench, what, size) and then by
    variant, and all samples.
    """
    samples = collections.defaultdict(lambda: collections.defaultdict(list))
    if what in (None, 'calls'):
        run(samples, [__file__, '--here'] + options)
    if what in (None, 'guests'):
        # A guest takes minutes, so measure at most 3 times
        run(samples, [f'{HERE}/guests.py', str(min(repetitions, 3))])
    for model, costs in MODELS.items():
        if what not in (None, 'packets'):
            break
        hardware = ' '.join(
            f'-global amd-psp.cost-{name}-ns={ns}'
            for name, ns in zip(('doorbell', 'command', 'kib'), costs))
        print(f'# packets, {model}: {hardware}', flush=True)
        run(samples, [f'{PROGRAMS}/bench-packets', str(repetitions), model],
            dict(os.environ, L1_HW=hardware))
    medians = {k: {w: Median.of(ns) for w, ns in v.items()}
               for k, v in samples.items()}
    return medians, samples


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--here', action='store_true')
    p.add_argument('--quick', action='store_true')
    p.add_argument('--memory', type=int, action='append')
    p.add_argument('--repetitions', type=int)
    p.add_argument('--rounds', type=int)
    p.add_argument('--only', choices=('calls', 'packets', 'guests'))
    p.add_argument('--json')
    a = p.parse_args()
    if a.here:
        sizes = [m * MiB for m in a.memory or []]
        return here(sizes or (SIZES[:3] if a.quick else SIZES),
                    a.repetitions or (3 if a.quick else 5),
                    a.rounds or (2 if a.quick else 5))
    began = time.monotonic()
    options = [o for o in sys.argv[1:] if o not in ('--json', a.json)]
    medians, samples = collect(options, a.only,
                               a.repetitions or (2 if a.quick else 5))
    found = list(lines(medians))
    if not found:
        sys.exit('bench: no samples')
    print(present(found))
    missed = [l for l in found if verdict(l) == 'MISSED']
    for l in missed:
        print(f'goal missed: {l.title}, {size_name(l.size)}, against {l.why}: '
              f'{l.ours / l.other:.3f}, not {l.goal:.2f}')
    with_goal = sum(l.goal is not None for l in found)
    print(f'{with_goal - len(missed)} of {with_goal} goals met '
          f'(emulated machine, {time.monotonic() - began:.0f} s)')
    if a.json:
        with open(a.json, 'w', encoding='utf-8') as f:
            json.dump({
                'machine': 'emulated (TCG); only ratios mean something',
                'results': [dict(l._asdict(), ratio=l.ours / l.other,
                                 ratio_of_least=l.ours.least / l.other.least,
                                 met=None if l.goal is None else
                                 verdict(l) == 'met') for l in found],
                'samples': [dict(bench=k[0], what=k[1], size=k[2], ns=v)
                            for k, v in samples.items()],
            }, f, indent=1)
            f.write('\n')
    return 0


sys.exit(main())
