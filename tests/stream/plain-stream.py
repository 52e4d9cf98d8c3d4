#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test that a plain guest's stream is identical to that of the unpatched QEMU.

Both QEMUs must produce the same bytes.  The unpatched QEMU is the
distribution's qemu-system-x86_64 of the same version.  The guests do not run,
their RAM is filled from a file, and the clock is fixed.  A QEMU therefore
produces the same stream each time, with one exception: if it has spent 50 ms in
a RAM section, it begins another one.  This is rare with little RAM.  If two
streams differ, the test records them again, a few times, and fails if they
differ each time.  The program prints TAP.
"""
import filecmp
import os
import random
import subprocess
import tempfile
import time
import unittest

from sevmig import tap

from monitor import Qmp

OURS, THEIRS = '/b/qemu/qemu-system-x86_64', '/usr/bin/qemu-system-x86_64'
TRIES = 8
Q35, I440FX = 'pc-q35-10.0', 'pc-i440fx-10.0'
FIRMWARE = ['-L', '/usr/share/seabios', '-L', '/usr/share/qemu']


def stream(qemu, machine, capabilities, ram, out):
    """Migrate a stopped guest whose RAM holds the file @ram to the file @out"""
    with tempfile.TemporaryDirectory() as d:
        with subprocess.Popen(
                [qemu, *FIRMWARE, '-nodefaults', '-no-user-config',
                 '-display', 'none', '-S', '-accel', 'tcg', '-machine', machine,
                 '-cpu', 'qemu64', '-m', '16', '-rtc',
                 'base=2026-01-01T00:00:00,clock=vm',
                 '-device', f'loader,file={ram},addr=0x400000,force-raw=on',
                 '-qmp', f'unix:{d}/qmp,server=on,wait=off'],
                stdin=subprocess.DEVNULL) as proc:
            try:
                with Qmp(f'{d}/qmp', proc) as q:
                    q.cmd('migrate-set-capabilities', capabilities=[
                        {'capability': c, 'state': True} for c in capabilities])
                    q.cmd('migrate', uri=f'file:{out}')
                    while True:
                        info = q.cmd('query-migrate')
                        if info['status'] == 'completed':
                            break
                        if info['status'] == 'failed':
                            raise RuntimeError(info.get('error-desc'))
                        time.sleep(0.05)
                    q.cmd('quit')
            finally:
                proc.kill()


class PlainStream(unittest.TestCase):
    """Compare streams that both QEMUs have written."""

    @classmethod
    def setUpClass(cls):
        ours, theirs = (
            subprocess.run([q, '--version'], capture_output=True, text=True,
                           check=True).stdout.split()[3]
            for q in (OURS, THEIRS))
        if ours != theirs:
            raise unittest.SkipTest(f"our QEMU is {ours}, the distribution's "
                                    f'is {theirs}')
        work = tempfile.TemporaryDirectory()
        cls.addClassCleanup(work.cleanup)
        cls.work = work.name
        content = random.Random(1).randbytes(4 << 20) + bytes(1 << 20)
        for name, data in ('ram', content), ('other-ram', b'x' + content[1:]):
            with open(f'{cls.work}/{name}', 'wb') as f:
                f.write(data)

    def make(self, qemu, machine, capabilities, ram='ram'):
        """Write a new stream to a file.  Returns the path of the file."""
        path = f'{self.work}/{"ours" if qemu == OURS else "theirs"}'
        stream(qemu, machine, capabilities, f'{self.work}/{ram}', path)
        return path

    def assert_same(self, machine, *capabilities):
        for _ in range(TRIES):
            if filecmp.cmp(self.make(OURS, machine, capabilities),
                           self.make(THEIRS, machine, capabilities),
                           shallow=False):
                return
        self.fail(f'the streams of {TRIES} tries differ')

    def test_q35(self):
        self.assert_same(Q35)

    def test_q35_mapped_ram(self):
        self.assert_same(Q35, 'mapped-ram')

    def test_q35_mapped_ram_multifd(self):
        # QEMU supports multifd to a file only with mapped-ram
        self.assert_same(Q35, 'mapped-ram', 'multifd')

    def test_q35_xbzrle(self):
        self.assert_same(Q35, 'xbzrle')

    def test_i440fx(self):
        self.assert_same(I440FX)

    def test_i440fx_mapped_ram(self):
        self.assert_same(I440FX, 'mapped-ram')

    def test_i440fx_xbzrle(self):
        self.assert_same(I440FX, 'xbzrle')

    def test_control_other_ram(self):
        """If one byte of the RAM differs, the streams differ, too."""
        ours = self.make(OURS, Q35, [])
        self.assertGreater(os.path.getsize(ours), 4 << 20)
        for _ in range(TRIES):
            other = self.make(THEIRS, Q35, [], 'other-ram')
            self.assertFalse(filecmp.cmp(ours, other, shallow=False))


if __name__ == '__main__':
    tap.run()
