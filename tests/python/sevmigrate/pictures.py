#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of "sev-migrate run --picture".  They send a recorded stream through the
relay and check the picture of it.
"""

import lzma
import os
import socket
import struct
import threading
from unittest import mock

from sevmig import REPO, tap
from sevmig.fixture import ToolCase
from sevmigrate import recorder
from sevmigrate.errors import Stop

RECORDED = os.path.join(REPO, 'tests/stream/recorded/0.1.stream.xz')
INFO = {'total-time': 1000, 'downtime': 10, 'ram': {'dirty-sync-count': 2}}


class Pictures(ToolCase):
    def through(self, data):
        """
        Send @data through a Recorder; return the Recorder and the bytes that
        arrive.
        """
        target = self.path('target')
        server = socket.socket(socket.AF_UNIX)
        server.bind(target)
        server.listen(1)
        arrived = bytearray()

        def receive():
            peer, _ = server.accept()
            with peer:
                while part := peer.recv(1 << 16):
                    arrived.extend(part)

        thread = threading.Thread(target=receive)
        thread.start()
        of = recorder.Recorder(os.getpid())
        uri = of.start(f'unix:{target}')
        with socket.socket(socket.AF_UNIX) as source:
            source.connect(uri.removeprefix('unix:'))
            source.sendall(data)
            source.shutdown(socket.SHUT_WR)
            thread.join()
        of.close()
        server.close()
        os.unlink(target)
        self.assertFalse(os.path.exists(uri.removeprefix('unix:')))
        return of, bytes(arrived)

    def test_recorded_stream(self):
        with lzma.open(RECORDED) as f:
            data = f.read()
        of, arrived = self.through(data)
        self.assertEqual(arrived, data)
        self.assertEqual(of.why, '')
        self.assertGreater(of.tally.total('private'), 0)
        svg, png = self.path('p.svg'), self.path('p.PNG')
        self.assertEqual(of.write(svg, INFO), '')
        with open(svg, encoding='utf-8') as f:
            self.assertIn('<svg', f.read())
        self.assertEqual(of.write(png, INFO), '')
        with open(png, 'rb') as f:
            head = f.read(24)
        self.assertEqual(head[:8], b'\x89PNG\r\n\x1a\n')
        self.assertEqual(struct.unpack('>I', head[16:20])[0],
                         recorder.picture.WIDTH)
        self.assertIn('No such file', of.write('/nowhere/p.svg', INFO))

    def test_unknown_stream(self):
        """Data that are not a stream arrive unchanged; there is no picture."""
        data = os.urandom(1 << 20)
        of, arrived = self.through(data)
        self.assertEqual(arrived, data)
        self.assertIn('not a migration stream', of.write(self.path('p'), INFO))

    def test_truncated_stream(self):
        with lzma.open(RECORDED) as f:
            data = f.read()
        of, arrived = self.through(data[:len(data) // 2])
        self.assertEqual(len(arrived), len(data) // 2)
        self.assertTrue(of.write(self.path('p'), INFO))

    def test_targets(self):
        self.assertEqual(recorder.target_of('unix:/x'), '/x')
        self.assertEqual(recorder.target_of('tcp:h:1'), ('h', 1))
        self.assertEqual(recorder.target_of('tcp:[fe80::1]:1'), ('fe80::1', 1))
        for uri in 'exec:cat', 'tcp:h', 'tcp:h:x', 'fd:3':
            with self.assertRaises(Stop):
                recorder.target_of(uri)

    def test_refusals(self):
        with self.assertRaisesRegex(Stop, 'on this host'):
            recorder.Recorder(None)
        of = recorder.Recorder(os.getpid())
        with mock.patch('os.stat', side_effect=PermissionError(1, 'no')), \
                self.assertRaisesRegex(Stop, 'user of QEMU'):
            of.start('unix:/x')
        of.close()
        for option in (['--tls'], ['--multifd', '2'], ['--postcopy'],
                       ['--tls-creds', 'x']):
            self.fails(['cannot be read'], 'run', '--source', '/x',
                       '--destination', '/y', '--host', '/z', '--picture', 'p',
                       *option, status=2)


if __name__ == '__main__':
    tap.run()
