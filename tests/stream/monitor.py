# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU's monitor, as far as the tests of streams need it."""
import json
import socket
import time

TIMEOUT = 60            # seconds that no answer may take


class Qmp:
    def __init__(self, path, proc):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        for _ in range(200):
            try:
                self.sock.connect(path)
                break
            except OSError:
                if proc.poll() is not None:
                    raise RuntimeError(f'QEMU ended with {proc.returncode}')
                time.sleep(0.05)
        self.file = self.sock.makefile('r')
        self.file.readline()
        self.cmd('qmp_capabilities')

    def cmd(self, name, **args):
        self.sock.sendall(json.dumps({'execute': name,
                                      'arguments': args}).encode())
        while True:
            answer = json.loads(self.file.readline())
            if 'error' in answer:
                raise RuntimeError(f'{name}: {answer["error"]["desc"]}')
            if 'return' in answer:
                return answer['return']
