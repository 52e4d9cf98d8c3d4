#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test sevmig.analyze with a right stream and with wrong streams.

Output: TAP.
"""
import collections
import struct
import subprocess
import sys
import tempfile
import unittest

from sevmig import tap

import mutate

TOOL = [sys.executable, '-m', 'sevmig.analyze']


def analyze(data, *options):
    """Run the tool on a stream.  Returns its exit code and its lines of output."""
    with tempfile.NamedTemporaryFile() as f:
        f.write(data)
        f.flush()
        p = subprocess.run([*TOOL, *options, f.name], stdout=subprocess.PIPE,
                           text=True, check=False)
    return p.returncode, p.stdout.splitlines()


def as_sev(records):
    """Yield the records with their payloads replaced by payloads of SEV"""
    for r in records:
        raw = bytearray(r.raw)
        if r.kind == 'session':
            size, = struct.unpack_from('>I', raw, 24)
            data = struct.pack('>HHIIIQ', 51, 1, 0x20, 3, 7, 2 << 30) + \
                b'PDHsession'
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


class Analyze(unittest.TestCase):
    """Analyze one stream that QEMU has written, unchanged and changed."""

    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as work:
            mutate.write_bios(work)
            cls.good = mutate.capture(work)
        cls.records = mutate.records(cls.good)
        cls.sev = list(as_sev(cls.records))

    def test_good(self):
        """The tool finds no error, and prints a line for each record."""
        code, said = analyze(self.good)
        self.assertEqual(code, 0, said)
        kinds = collections.Counter(r.kind for r in self.records)
        lines = collections.Counter(
            line.split()[1] for line in said
            if len(line.split()) > 1 and line.split()[0] != 'round')
        for kind in 'session', 'private', 'unallocated', 'state', 'final':
            self.assertGreater(kinds[kind], 0, kind)
            self.assertEqual(lines[kind], kinds[kind], kind)

    def test_quiet(self):
        """--quiet prints only the sums."""
        said = analyze(self.good)[1]
        code, quiet = analyze(self.good, '--quiet')
        self.assertEqual(code, 0, quiet)
        self.assertEqual(quiet, said[-len(quiet):])

    def test_no_sev(self):
        """--sev fails for a stream without payloads of SEV."""
        self.assertEqual(analyze(self.good, '--sev')[0], 1)

    def test_sev(self):
        code, said = analyze(b''.join(r for _, r in self.sev), '--sev')
        text = '\n'.join(said)
        self.assertEqual(code, 0, text)
        for words in ('C-bit 51, policy 0x20, PDH 3', 'packets of 52+4096',
                      '52+16384'):
            self.assertIn(words, text)
        self.assertRegex(text, r'READY(\n|$)')

    def test_sev_changed(self):
        """The tool checks each field of SEV's payloads."""
        for kind, at, what in (('session', -10 - 22, 'its version'),
                               ('session', -10 - 12, "the session's length"),
                               ('private', 32, "a header's length"),
                               ('private', 34, "a packet's length"),
                               ('final', -1, 'READY')):
            changed = [bytearray(r) for _, r in self.sev]
            next(r for (k, _), r in zip(self.sev, changed)
                 if k == kind)[at] ^= 1
            self.assertEqual(analyze(b''.join(changed), '--sev')[0], 1, what)

    def test_half(self):
        code, said = analyze(self.good[:len(self.good) // 2])
        self.assertEqual(code, 1)
        self.assertIn('the stream ends at byte', said[-1])

    def test_other_state(self):
        """The tool finds a page whose last record contradicts the state record."""
        changed = [bytearray(r.raw) for r in self.records]
        next(r for k, r in zip(self.records, changed)
             if k.kind == 'state')[-1] ^= 1
        code, said = analyze(b''.join(changed))
        self.assertEqual(code, 1)
        self.assertTrue(said[-1].startswith('1 pages'), said[-1])


if __name__ == '__main__':
    tap.run()
