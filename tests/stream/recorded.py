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

from sevmig import tap

import mutate

HERE = os.path.dirname(os.path.realpath(__file__))
RECORDED = os.path.join(HERE, 'recorded')
MOST = 64 << 10         # maximum average size of a compressed stream in bytes

# A versioned machine type, so that later builds of QEMU have the same devices
MACHINE = {'machine': 'pc-i440fx-10.0', 'ram_mib': 4,
           'device': 'confidential-guest-testdev,lazy=on,begin-touched=288,'
                     'shared-mib=1'}


def version():
    """Return the version of this build"""
    with open(os.path.join(HERE, '../../VERSION'), encoding='ascii') as f:
        return f.read().strip()


def record():
    """Record a stream of this build"""
    with tempfile.TemporaryDirectory() as work:
        mutate.write_bios(work)
        data = mutate.capture(work, MACHINE)
    os.makedirs(RECORDED, exist_ok=True)
    packed = lzma.compress(data, preset=9)
    with open(f'{RECORDED}/{version()}.stream.xz', 'wb') as f:
        f.write(packed)
    with open(f'{RECORDED}/{version()}.json', 'w', encoding='ascii') as f:
        json.dump(MACHINE, f, indent=4)
        f.write('\n')
    print(f'{len(data)} bytes, compressed {len(packed)}')


class Recorded(mutate.Case):
    """Load the streams of all versions"""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # name of a version -> (machine, stream)
        cls.streams = {}
        for path in sorted(glob.glob(f'{RECORDED}/*.json')):
            with open(path, encoding='ascii') as f:
                machine = json.load(f)
            with lzma.open(path.removesuffix('.json') + '.stream.xz') as f:
                cls.streams[os.path.basename(path).removesuffix('.json')] = \
                    machine, f.read()

    def test_there_is_a_stream_of_this_version(self):
        self.assertIn(version(), self.streams)

    def test_streams_are_small(self):
        size = sum(os.path.getsize(path) for path in glob.glob(f'{RECORDED}/*.xz'))
        self.assertLessEqual(size, MOST * max(1, len(self.streams)))

    def test_each_stream_is_loaded(self):
        self.assertTrue(self.streams)
        for name, (machine, data) in self.streams.items():
            result, said = mutate.outcome(self.work, name, data, machine=machine)
            self.assertEqual(result, 'loaded', f'{name}: {said}')

    def test_each_stream_has_every_kind_of_record(self):
        # The vendor code of the test device has no send_data(), so the source
        # sends no platform records
        want = mutate.ENCRYPTED - {'platform'} | {'plain'}
        for name, (_, data) in self.streams.items():
            kinds = {r.kind for r in mutate.records(data)}
            self.assertEqual(sorted(want - kinds), [], f'{name} lacks records')

    def test_control_each_stream_with_one_bit_changed_is_refused(self):
        self.assertTrue(self.streams)
        for name, (machine, data) in self.streams.items():
            # Change one bit of the last state record
            found = mutate.records(data)
            changed = [bytearray(r.raw) for r in found]
            next(raw for r, raw in zip(reversed(found), reversed(changed))
                 if r.kind == 'state')[-1] ^= 1
            result, said = mutate.outcome(self.work, name + '-changed',
                                          b''.join(changed), machine=machine)
            self.assertEqual(result, 'refused', f'{name}: {said}')


def main():
    """See the top of this file"""
    parser = argparse.ArgumentParser()
    parser.add_argument('--record', action='store_true')
    if parser.parse_args().record:
        record()
    else:
        tap.run(sys.argv[:1])


if __name__ == '__main__':
    main()
