#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of "sev-migrate measure" with known answers of other implementations, and
with wrong input.
"""

import base64
import hashlib
import json
import struct
import unittest

from sevmig import tap
from sevmig.fixture import ToolCase, flash
from sevmigrate import launch

TIK = bytes.fromhex('0102030405060708090a0b0c0d0e0f10')
NONCE = base64.b64decode('wxP6tRHCFrFQWxsuqZA8QA==')
# VMSA is EAX of CPUID function 1 of a vCPU.  VMSA_0 is the SHA-256 of the VMSA of
# the first vCPU with this EAX, and VMSA_1 that of each other vCPU.  All three
# values come from the tests of sevctl (virtee), an independent implementation.
VMSA = 0xa00f11
VMSA_0 = 'f8b52f775502472e5797d2674d9de21f6abc05dc05e9bc49cbb7b6a13688d5e7'
VMSA_1 = 'bcee5cb289f72882da17abd8dca5e8a7e9f8e2033e7ad96b4db0ab1a383a6487'

# A migration helper with one byte of code, and the SHA-256 of the memory that
# mh_image_prepare() makes of it.  A C program has computed this digest.
HELPER = launch.HELPER_HEAD.pack(b'SEVMHLP1', 1, 0x40, 0x3000, 0x6000, 4, 16,
                                 0, 0, 0, 0) + b'\x90'
HELPER_DIGEST = \
    '083e5fa3359c5a3bfc3d428b162a6fba3cfbc9a53c5d4738d5b93b6cb71dfb1e'
HASH_AREA = launch.HASH_TABLE_AREA, struct.pack('<II', 0x80cc00, 1024)
RESET = launch.ES_RESET_BLOCK, struct.pack('<I', 0x80b004)
FULL = flash([HASH_AREA, RESET])


class KnownAnswers(unittest.TestCase):
    def test_measurement(self):
        """launch.measurement() implements AMD's formula."""
        # The measurement of a guest without any launched memory, from AMD's
        # tool
        self.assertEqual(launch.measurement(
            bytes.fromhex('66320db73158a35a255d051758e95ed4'), (0, 18), 15, 0,
            launch.digest([]),
            bytes.fromhex('4fbe0bedbad6c86ae8f68971d103e554')).hex(),
            '6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea')

    def test_vmsa(self):
        """launch.vmsa() makes the VMSAs whose digests sevctl knows."""
        for first, want in ((True, VMSA_0), (False, VMSA_1)):
            page = launch.vmsa(first, VMSA, FULL)
            self.assertEqual(len(page), 4096)
            self.assertEqual(hashlib.sha256(page).hexdigest(), want)

    def test_hash_table(self):
        """launch.hash_table() hashes a kernel, an initrd and a command line."""
        table = launch.hash_table(b'vmlinuz', b'initrd', 'quiet')
        self.assertEqual(len(table), 176)
        self.assertEqual(table[:16], launch.HASHES.bytes_le)
        self.assertEqual(struct.unpack_from('<H', table, 16)[0], 168)
        for at, guid, data in ((18, launch.CMDLINE, b'quiet\0'),
                               (68, launch.INITRD, b'initrd'),
                               (118, launch.KERNEL, b'vmlinuz')):
            self.assertEqual(table[at:at + 16], guid.bytes_le)
            self.assertEqual(table[at + 18:at + 50],
                             hashlib.sha256(data).digest())
        self.assertEqual(table[168:], bytes(8))

    def test_helper(self):
        """launch.helper_memory() agrees with mh_image_prepare()."""
        self.assertEqual(len(HELPER), 65)
        self.assertEqual(hashlib.sha256(launch.helper_memory(
            HELPER, 0x8001000000, 51)).hexdigest(), HELPER_DIGEST)

    def test_wrong_helper(self):
        for file, address in (
                (b'', 1 << 32), (HELPER[:64], 1 << 32),
                (HELPER.ljust(0xc001), 1 << 32), (b'x' + HELPER[1:], 1 << 32),
                (HELPER[:8] + b'\2' + HELPER[9:], 1 << 32),
                (HELPER, (1 << 32) + 1), (HELPER, 4096)):
            with self.assertRaises(launch.Malformed, msg=(len(file), address)):
                launch.helper_memory(file, address, 51)

    def test_guid_table(self):
        self.assertEqual(launch.guid_table(FULL), dict([HASH_AREA, RESET]))
        self.assertTrue(launch.has_hash_area(FULL))
        self.assertEqual(launch.guid_table(bytes(4096)), {})
        self.assertFalse(launch.has_hash_area(bytes(4096)))
        # Debian's OVMF has an entry for the area of the kernel hashes, but the
        # address in this entry is 0
        self.assertFalse(launch.has_hash_area(flash(
            [(launch.HASH_TABLE_AREA, bytes(8))])))
        self.assertFalse(launch.has_hash_area(flash(
            [(launch.HASH_TABLE_AREA, b'')])))
        self.assertFalse(launch.has_hash_area(flash(
            [(launch.HASH_TABLE_AREA, struct.pack('<II', 4096, 175))])))

    def test_wrong_guid_table(self):
        """The lengths of the table or of an entry do not fit."""
        end = len(FULL) - launch.TABLE_END
        for at, size in ((end - 18, 5000), (end - 18, 0), (end - 18, 17),
                         (end - 36, 0), (end - 36, 5000), (end - 36, 17)):
            bad = bytearray(FULL)
            struct.pack_into('<H', bad, at, size)
            with self.assertRaises(launch.Malformed, msg=(at, size)):
                launch.guid_table(bytes(bad))


class Command(ToolCase):
    def setUp(self):
        super().setUp()
        self.firmware = self.path('flash', FULL)

    def measure(self, *args):
        _, out, _ = self.tool('measure', '--firmware', self.firmware, *args,
                              '--json', status=0)
        return json.loads(out)

    def test_parts(self):
        """
        The parts are in the order in which QEMU passes them to the firmware.
        """
        kernel = b'kernel'
        got = self.measure(
            '--helper', self.path('helper', HELPER), '--helper-address',
            '0x8001000000', '--cbit', '51',
            '--kernel', self.path('kernel', kernel), '--append', 'x',
            '--policy', '5', '--cpus', '3', '--signature', '0xa00f11')
        self.assertEqual([p['part'] for p in got['parts']],
                         ['migration helper', 'firmware', 'kernel hashes',
                          'VMSA of vCPU 0', 'VMSA of vCPU 1',
                          'VMSA of vCPU 2'])
        other = launch.vmsa(False, VMSA, FULL)
        self.assertEqual(got['digest'], hashlib.sha256(
            launch.helper_memory(HELPER, 0x8001000000, 51) + FULL +
            launch.hash_table(kernel, b'', 'x') +
            launch.vmsa(True, VMSA, FULL) + other + other).hexdigest())

    def test_compare(self):
        digest = launch.digest([FULL])
        blob = launch.measurement(TIK, (1, 40), 40, 3, digest, NONCE) + NONCE
        args = ['measure', '--firmware', self.firmware, '--tik',
                self.path('tik', TIK), '--api', '1.40', '--build', '40',
                '--expect', base64.b64encode(blob).decode(), '--policy']
        _, out, _ = self.tool(*args, '3', status=0)
        self.assertIn('the expected one', out)
        # With another policy or another firmware, the tool computes another
        # measurement than the expected one
        self.fails(['ANOTHER'], *args, '1', status=1)
        self.path('flash', FULL[:-1] + b'\1')
        self.fails(['ANOTHER'], *args, '3', status=1)

    def test_wrong_input(self):
        def fails(words, *args, data=FULL, status=3):
            self.fails([words], 'measure', '--firmware',
                       self.path('flash', data), *args, status=status)

        file = self.path('file', b'x')
        page = self.path('page', bytes(4096))
        fails('0 bytes', data=b'')
        fails('whole pages', data=FULL[1:])
        fails('more than', data=bytes(launch.FLASH_MAX + 4096))
        self.fails(['No such file'], 'measure', '--firmware', '/nowhere')
        fails('needed together', '--helper', file)
        fails('needed together', '--cbit', '51')
        place = '--helper-address', '0x8001000000', '--cbit', '51'
        fails('no migration helper', '--helper', file, *place)
        fails('no migration helper', '--helper', self.firmware, *place)
        fails('more than', '--helper', self.path('long', bytes(1 << 17)),
              *place)
        fails('only with --kernel', '--append', 'x')
        fails('only with --kernel', '--initrd', file)
        fails('no place for the hashes', '--kernel', file, data=bytes(4096))
        fails('--signature', '--policy', '5')
        fails('no reset block', '--policy', '5', '--signature', '1', '--cpus',
              '2', data=bytes(4096))
        fails('together', '--tik', page)
        fails('together', '--expect', 'AA==')
        pair = '--api', '1.1', '--build', '1', '--expect', 'AA=='
        fails('16', '--tik', page, *pair)
        tik = self.path('tik', TIK)
        fails('48', '--tik', tik, *pair)
        fails('base64', '--tik', tik, *pair[:-1], '***')
        for args in (['--policy', '-1'], ['--policy', str(1 << 32)],
                     ['--policy', 'x'], ['--cpus', '0'], ['--cpus', '9999'],
                     ['--signature', 'EPYC'], ['--api', '1'],
                     ['--build', '999'], ['--cbit', '63'], ['--cbit', '5'],
                     ['--helper-address', '-1'], ['--firm', 'x']):
            with self.case(args):
                fails('usage', *args, status=2)


if __name__ == '__main__':
    tap.run()
