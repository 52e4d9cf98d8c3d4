#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test that QEMU still loads the streams of earlier versions.

    scripts/in-root tests/stream/recorded.py            load all of them
    scripts/in-root tests/stream/recorded.py --record   record one of this version

tests/stream/recorded/ has two files for each version: VERSION.json, the machine
that has made the stream, and VERSION.stream.xz.  docs/devel/testing-migration.rst
says when to record a stream.  Output: TAP.
"""
import argparse
import glob
import json
import lzma
import os
import sys
import tempfile

import mutate

HERE = os.path.dirname(os.path.realpath(__file__))
RECORDED = os.path.join(HERE, 'recorded')
MOST = 64 << 10         # maximum average size of a compressed stream in bytes

# A versioned machine type, so that later builds of QEMU have the same devices
MACHINE = {'machine': 'pc-i440fx-10.0', 'ram_mib': 4,
           'device': 'confidential-guest-testdev,lazy=on,begin-touched=288,'
                     'shared-mib=1'}


def record(version):
    """Record a stream of this build"""
    with tempfile.TemporaryDirectory() as work:
        mutate.write_bios(work)
        data = mutate.capture(work, MACHINE)
    os.makedirs(RECORDED, exist_ok=True)
    packed = lzma.compress(data, preset=9)
    with open(f'{RECORDED}/{version}.stream.xz', 'wb') as f:
        f.write(packed)
    with open(f'{RECORDED}/{version}.json', 'w', encoding='ascii') as f:
        json.dump(MACHINE, f, indent=4)
        f.write('\n')
    print(f'{len(data)} bytes, compressed {len(packed)}')


def records(work, data):
    """Return the records of the stream @data"""
    with open(f'{work}/stream', 'wb') as f:
        f.write(data)
    with open(f'{work}/stream', 'rb') as f:
        return list(mutate.stream.Stream(f).records())


def main():
    """See the top of this file"""
    parser = argparse.ArgumentParser()
    parser.add_argument('--record', action='store_true')
    with open(os.path.join(HERE, '../../VERSION'), encoding='ascii') as f:
        version = f.read().strip()
    if parser.parse_args().record:
        record(version)
        return 0

    versions = sorted(os.path.basename(path)[:-len('.json')]
                      for path in glob.glob(f'{RECORDED}/*.json'))
    print(f'1..{2 * len(versions) + 3}')
    number = bad = 0

    def check(ok, what, why=''):
        nonlocal number, bad
        number += 1
        bad += not ok
        print(f'{"ok" if ok else "not ok"} {number} - {what}', flush=True)
        if not ok and why:
            print('# ' + why.strip().replace('\n', '\n# '))

    check(version in versions, f'there is a stream of this version, {version}')
    size = sum(os.path.getsize(path) for path in glob.glob(f'{RECORDED}/*.xz'))
    check(size <= MOST * max(1, len(versions)), f'the streams take {size} bytes')
    refused = []
    with tempfile.TemporaryDirectory() as work:
        mutate.write_bios(work)
        for name in versions:
            with open(f'{RECORDED}/{name}.json', encoding='ascii') as f:
                machine = json.load(f)
            with lzma.open(f'{RECORDED}/{name}.stream.xz') as f:
                data = f.read()
            result, said = mutate.outcome(work, name, data, machine=machine)
            check(result == 'loaded', f'{name}: {len(data)} bytes are loaded',
                  f'{result}: {said}')
            found = records(work, data)
            kinds = {r.kind for r in found}
            # The test device's vendor code has no migration helper, so it sends
            # no platform records
            want = mutate.ENCRYPTED - {'platform'} | {'plain'}
            check(want <= kinds, f'{name}: it has every kind of record',
                  f'lacks {", ".join(sorted(want - kinds))}')
            # Change one bit of the last state record
            changed = [bytearray(r.raw) for r in found]
            next(raw for r, raw in zip(reversed(found), reversed(changed))
                 if r.kind == 'state')[-1] ^= 1
            refused.append(mutate.outcome(work, name + '-changed',
                                          b''.join(changed), machine=machine)[0])
    check(refused and set(refused) == {'refused'},
          'control: with one bit changed each is refused', f'{refused}')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
