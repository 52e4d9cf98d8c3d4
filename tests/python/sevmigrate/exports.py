#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of "sev-migrate export" with answers of a firmware and of QEMU, and with
wrong files.
"""

import base64
import json
import os
from unittest import mock

from sevmig import tap
from sevmig.fixture import Platform, ToolCase
from sevmigrate import firmware, hardware, hostfile

CHIP = bytes(range(64))
STATUS = firmware.Status((1, 55), 21, 2, False, True, 3)


class Export(ToolCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = Platform()

    def setUp(self):
        super().setUp()
        p = self.platform
        for name, value in (
                ('firmware.export', (p.pdh, p.chain(p.unsigned_cek))),
                ('firmware.platform_status', STATUS),
                ('firmware.identifier', CHIP), ('hardware.product', 'Milan')):
            patch = mock.patch(f'sevmigrate.{name}', return_value=value)
            patch.start()
            self.addCleanup(patch.stop)
        self.file = self.path('host')
        self.cek, self.amd = self.path('cek', p.cek), self.path('amd', p.amd())

    def test_where_amd_publishes(self):
        """Without --cek and --amd, the output says where AMD publishes them."""
        _, out, _ = self.tool('export', self.file, status=0)
        self.assertIn(f'https://kdsintf.amd.com/cek/id/{CHIP.hex()}', out)
        self.assertIn('ask_ark_milan.cert', out)
        self.assertNotIn('ask_ark_rome.cert', out)
        host = hostfile.read(self.file)
        self.assertEqual((host.amd_cert, host.chip_id, host.api, host.build),
                         (b'', CHIP, (1, 55), 21))
        # If the tool does not know the processor, its output names the files of
        # all product lines
        with mock.patch('sevmigrate.hardware.product', return_value=''):
            _, out, _ = self.tool('export', self.file, status=0)
        for line in hardware.FILES.values():
            self.assertIn(line, out)

    def test_complete(self):
        _, out, _ = self.tool('export', self.file, '--cek', self.cek, '--amd',
                              self.amd, '--json', status=0)
        self.assertEqual(json.loads(out)['missing'], [])
        host = hostfile.read(self.file)
        self.assertEqual(host.plat_cert, self.platform.chain())
        self.assertEqual(host.amd_cert, self.platform.amd())
        self.tool('verify', self.file, '--ark', self.amd, status=0)
        # The tool has removed its temporary file
        self.assertEqual(sorted(os.listdir(self.top)), ['amd', 'cek', 'host'])

    def test_files_that_do_not_belong(self):
        other = Platform()
        cases = (
            ('another chip', ['--cek', self.path('x', other.cek)]),
            ('not a CEK', ['--cek', self.path('u', other.pek)]),
            ('1 bytes', ['--cek', self.path('y', b'x')]),
            ('has not signed the CEK',
             ['--cek', self.cek, '--amd', self.path('z', other.amd())]),
            ('ARK comes first',
             ['--amd', self.path('w', other.ark + other.ask)]),
            ('bytes', ['--amd', self.path('v', other.ark)]),
            ('No such file', ['--amd', '/nowhere']),
        )
        for words, args in cases:
            with self.case(words):
                self.fails([words], 'export', self.file, *args)
                self.assertFalse(os.path.exists(self.file))

    def test_no_device(self):
        with mock.patch('sevmigrate.firmware.export',
                        side_effect=FileNotFoundError(2, 'No such file')):
            self.fails(['/dev/sev'], 'export', self.file)
        with mock.patch('sevmigrate.firmware.export', side_effect=OSError(
                'PDH_CERT_EXPORT: the firmware answers 0x1')):
            self.fails(['firmware answers 0x1'], 'export', self.file)

    def test_malformed_firmware(self):
        with mock.patch('sevmigrate.firmware.export',
                        return_value=(bytes(2084), bytes(6252))):
            self.fails(['malformed'], 'export', self.file)

    def test_cannot_write(self):
        self.fails(['cannot be written'], 'export', '/nowhere/host')

    def test_over_qmp(self):
        """"export" asks a QEMU on the host."""
        p = self.platform
        answers = {'query-sev-capabilities': {
            'pdh': base64.b64encode(p.pdh).decode(),
            'cert-chain': base64.b64encode(p.chain()).decode(),
            'cpu0-id': base64.b64encode(CHIP).decode(), 'cbitpos': 51,
            'reduced-phys-bits': 1}, 'query-sev': {'enabled': False}}
        monitor = mock.MagicMock(host=None)
        monitor.__enter__.return_value = monitor
        monitor.cmd.side_effect = lambda name, **_: answers[name]
        with mock.patch('sevmigrate.guest.Monitor', return_value=monitor):
            self.tool('export', self.file, '--guest', '/qmp', status=0)
            host = hostfile.read(self.file)
            self.assertEqual((host.pdh, host.chip_id, host.api, host.build),
                             (p.pdh, CHIP, p.api, 0))
            answers['query-sev-capabilities']['pdh'] = '***'
            self.fails(['base64'], 'export', self.file, '--guest', '/qmp')
            answers['query-sev-capabilities']['pdh'] = ''
            self.fails(['malformed'], 'export', self.file, '--guest', '/qmp')

    def test_product_lines(self):
        """hardware.line_of() derives the product line from /proc/cpuinfo."""
        mock.patch.stopall()

        def line(family, model, vendor='AuthenticAMD'):
            return hardware.line_of(
                f'vendor_id\t: {vendor}\ncpu family\t: {family}\n'
                f'model\t\t: {model}\nmodel name\t: x\n')

        for want, family, model in (
                ('Naples', 0x17, 1), ('Rome', 0x17, 0x31), ('Milan', 0x19, 1),
                ('Genoa', 0x19, 0x11), ('Genoa', 0x19, 0xa0),
                ('Turin', 0x1a, 2), ('', 0x19, 0x21), ('', 0x18, 1)):
            self.assertEqual(line(family, model), want)
        self.assertEqual(line(0x19, 1, 'GenuineIntel'), '')
        self.assertEqual(hardware.line_of(''), '')
        self.assertEqual(hardware.line_of('vendor_id : AuthenticAMD\n'), '')


if __name__ == '__main__':
    tap.run()
