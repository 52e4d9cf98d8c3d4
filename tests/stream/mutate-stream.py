#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Send changed migration streams, each to a new QEMU.

    scripts/in-root tests/stream/mutate-stream.py [--runs N] [--seed N]
        [--first N] [--stream FILE] [--keep DIR] [--devices] [--jobs N]
    scripts/in-root tests/stream/mutate-stream.py --send FILE

Each run changes a copy of a recorded stream (mutate.py) and sends it to a
destination.  The destination must load it, or exit with code 1 and an error
message.  It must not crash, hang, or exit without a message.

Two recordings of the same guest differ a little.  --keep DIR saves the recorded
stream, and each changed stream with a wrong result.  --stream FILE uses a saved
recording, so that run N of seed S (--first N --runs 1) is always the same.
--send FILE sends a saved stream unchanged.  --devices also changes the device
state after RAM, which the devices' own code loads.  The program prints TAP.
"""
import argparse
import collections
import concurrent.futures
import os
import random
import sys
import tempfile

from sevmig import tap

import mutate

# Results of mutate.outcome() that are right for a changed stream
GOOD = ('loaded', 'refused')
ARGS = argparse.Namespace()


class Streams(mutate.Case):
    """Tests with changed streams, and controls of the test itself."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if ARGS.stream:
            with open(ARGS.stream, 'rb') as f:
                cls.good = f.read()
        else:
            cls.good = mutate.capture(cls.work)
        cls.keep('stream', cls.good)
        cls.records = mutate.records(cls.good)

    @staticmethod
    def keep(name, data):
        if ARGS.keep:
            with open(os.path.join(ARGS.keep, name), 'wb') as f:
                f.write(data)

    def test_records(self):
        """The recorded stream consists of records and of nothing else."""
        self.assertEqual(b''.join(r.raw for r in self.records), self.good)

    def test_control_unchanged(self):
        """The destination loads the unchanged stream."""
        result, said = mutate.outcome(self.work, 'right', self.good)
        self.assertEqual(result, 'loaded', said)

    def test_control_crash(self):
        """mutate.outcome() reports a destination that crashes."""
        crash = f'{self.work}/crash'
        with open(crash, 'w', encoding='ascii') as f:
            f.write(f'#!/bin/sh\n{mutate.QEMU} "$@"\nkill -SEGV $$\n')
        os.chmod(crash, 0o755)
        result, said = mutate.outcome(self.work, 'crash', self.good[:100],
                                      crash)
        self.assertIn('SIGSEGV', result, said)

    def run_one(self, number):
        data, what = mutate.mutate(random.Random(f'{ARGS.seed}/{number}'),
                                   self.records, ARGS.devices)
        return number, data, what, mutate.outcome(self.work, f'run{number}',
                                                  data)

    def test_changed(self):
        """The destination loads or refuses each stream, and refuses many."""
        tally, bad = collections.Counter(), []
        numbers = range(ARGS.first, ARGS.first + ARGS.runs)
        with concurrent.futures.ThreadPoolExecutor(ARGS.jobs) as pool:
            for number, data, what, (result, said) in pool.map(self.run_one,
                                                               numbers):
                tally[result] += 1
                tap.note(f'{number}: {what}: {result}: '
                         f'{" ".join(said.strip().splitlines()[:1])}')
                if result not in GOOD:
                    self.keep(f'stream-{ARGS.seed}-{number}', data)
                    bad.append(f'seed {ARGS.seed}, run {number}: {what}: '
                               f'{result}: {said}')
        tap.note(f'{ARGS.runs} changed streams: {dict(tally)}')
        self.assertEqual(bad, [])
        # If the destination refuses few streams, the mutations do not work
        if ARGS.runs >= 10:
            self.assertGreater(tally['refused'], ARGS.runs // 4)


def send(path):
    """Send one stream unchanged.  Returns the exit status of this program."""
    with tempfile.TemporaryDirectory() as work:
        mutate.write_bios(work)
        with open(path, 'rb') as f:
            result, said = mutate.outcome(work, 'send', f.read())
    print(f'{result}: {said.strip()}')
    return result not in GOOD


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--runs', type=int, default=20)
    p.add_argument('--first', type=int, default=0)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--keep')
    p.add_argument('--stream')
    p.add_argument('--send')
    p.add_argument('--devices', action='store_true')
    p.parse_args(namespace=ARGS)
    if ARGS.send:
        sys.exit(send(ARGS.send))
    tap.run(sys.argv[:1])


if __name__ == '__main__':
    main()
