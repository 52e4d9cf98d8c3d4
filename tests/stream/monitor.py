# SPDX-License-Identifier: GPL-2.0-or-later
"""A small QMP client for the tests of streams."""
import json
import socket
import time

TIMEOUT = 60            # seconds to wait for an answer


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
        self.events = []        # received, but not returned by event() yet
        self.file.readline()
        self.cmd('qmp_capabilities')

    def give(self, fd, name):
        """Pass the file descriptor @fd to QEMU under @name (getfd)"""
        self._send('getfd', {'fdname': name}, fd)
        self._answer('getfd')

    def cmd(self, name, **args):
        self._send(name, args)
        return self._answer(name)

    def _send(self, name, args, *fds):
        request = json.dumps({'execute': name, 'arguments': args}).encode()
        # The descriptors travel with the first byte
        if fds:
            socket.send_fds(self.sock, [request[:1]], fds)
            request = request[1:]
        self.sock.sendall(request)

    def _answer(self, name):
        while True:
            answer = json.loads(self.file.readline())
            if 'event' in answer:
                self.events.append(answer)
            if 'error' in answer:
                raise RuntimeError(f'{name}: {answer["error"]["desc"]}')
            if 'return' in answer:
                return answer['return']

    def event(self, name):
        """Wait for the next event @name and return its data"""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event['event'] == name:
                    return event['data']
            self.events.append(json.loads(self.file.readline()))
