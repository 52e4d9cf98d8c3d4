#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test scripts/analyze-encrypted-ram with a stream of QEMU and with wrong streams.

Output: TAP.
"""
import importlib.util
import os
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
TOOL = os.path.join(os.path.dirname(os.path.dirname(HERE)),
                    'scripts/analyze-encrypted-ram')
spec = importlib.util.spec_from_file_location(
    'mutate', os.path.join(HERE, 'mutate-stream.py'))
mutate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutate)
stream = mutate.stream

number = bad = 0


def check(ok, what):
    global number, bad
    number += 1
    bad += not ok
    print(f'{"ok" if ok else "not ok"} {number} - {what}', flush=True)


def analyze(data, *options):
    """Exit code and output lines of the tool for a stream"""
    with tempfile.NamedTemporaryFile() as f:
        f.write(data)
        f.flush()
        p = subprocess.run([TOOL, *options, f.name], stdout=subprocess.PIPE,
                           text=True, check=False)
    return p.returncode, p.stdout.splitlines()


def as_sev(records):
    """The same records with the payloads of SEV"""
    for r in records:
        raw = bytearray(r.raw)
        if r.kind == 'session':
            size, = struct.unpack_from('>I', raw, 24)
            data = struct.pack('>HHIII', 51, 1, 0x20, 3, 7) + b'PDHsession'
            raw[len(raw) - size:] = data
            raw[24:28] = struct.pack('>I', len(data))
        elif r.kind == 'private':
            # A packet of one page, then packets of the maximum size
            raw[32:] = b''.join(
                struct.pack('>HH', 52, 4096 * n) + bytes(52 + 4096 * n)
                for n in [1] + [4] * ((r.count - 1) // 4) + [(r.count - 1) % 4]
                if n)
        elif r.kind == 'final':
            raw[16:] = struct.pack('>IQ', 1, 1)
        if r.kind in ('session', 'private', 'final'):
            raw[12:16] = struct.pack('>I', len(raw) - 16)
        yield r.kind, raw


def main():
    with tempfile.TemporaryDirectory() as work:
        mutate.write_bios(work)
        good = mutate.capture(work)
        with open(f'{work}/stream', 'wb') as f:
            f.write(good)
        with open(f'{work}/stream', 'rb') as f:
            records = list(stream.Stream(f).records())
    kinds = {}
    for r in records:
        kinds[r.kind] = kinds.get(r.kind, 0) + 1

    code, said = analyze(good)
    check(code == 0, 'a stream of QEMU: nothing is wrong')
    for kind in ('session', 'private', 'unallocated', 'state', 'final'):
        lines = sum(line.split()[:1] != ['round'] and
                    line.split()[1:2] == [kind] for line in said)
        check(0 < lines == kinds[kind], f'{lines} lines of {kind} records')
    code, quiet = analyze(good, '--quiet')
    check(code == 0 and quiet == said[-len(quiet):], '--quiet: the sums only')
    check(analyze(good, '--sev')[0] == 1, 'nothing of SEV is in it: --sev says so')

    sev = list(as_sev(records))
    code, said = analyze(b''.join(r for _, r in sev), '--sev')
    check(code == 0 and
          any('C-bit 51, policy 0x20, PDH 3' in line for line in said) and
          any('packets of 52+4096' in line for line in said) and
          any('52+16384' in line for line in said) and
          any(line.endswith('READY') for line in said), 'one of SEV')
    for kind, at, what in (('session', -10 - 14, 'its version'),
                           ('session', -10 - 4, "the session's length"),
                           ('private', 32, "a header's length"),
                           ('private', 34, "a packet's length"),
                           ('final', -1, 'READY')):
        changed = [bytearray(r) for _, r in sev]
        next(r for (k, _), r in zip(sev, changed) if k == kind)[at] ^= 1
        check(analyze(b''.join(changed), '--sev')[0] == 1,
              f'control: {what} changed')

    code, said = analyze(good[:len(good) // 2])
    check(code == 1 and 'the stream ends at byte' in said[-1],
          'control: half of it')
    changed = [bytearray(r.raw) for r in records]
    next(r for k, r in zip(records, changed) if k.kind == 'state')[-1] ^= 1
    code, said = analyze(b''.join(changed))
    check(code == 1 and said[-1].startswith('1 pages'),
          'control: another state of a page')
    print(f'1..{number}')
    return 1 if bad else 0


sys.exit(main())
