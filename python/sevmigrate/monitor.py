"""
Synchronous access to QMP monitors; it uses the asynchronous qemu.qmp.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import asyncio
import socket
import struct

from qemu.qmp import ExecuteError, QMPClient, QMPError

from .errors import Refused, Stop

TIMEOUT = 20            # seconds until a monitor must have sent its greeting
# Seconds until QEMU must have answered a command.  The longest is object-add of
# tls-creds-x509, in which a server may generate a Diffie-Hellman group.
COMMAND_TIMEOUT = 120


def parse(address):
    """
    Return the path of a unix socket, or (host, port).  @address has one of the
    forms PATH, unix:PATH, HOST:PORT, tcp:HOST:PORT and [IPv6]:PORT.
    """
    if address.startswith('unix:'):
        return address[5:]
    host, colon, port = address.removeprefix('tcp:').rpartition(':')
    if not colon or '/' in address:
        if address.startswith('tcp:'):
            raise Stop(f'{address}: no HOST:PORT')
        return address
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Stop(f'{address}: "{port}" is no port')
    return host.strip('[]') or 'localhost', int(port)


def _connect(address):
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(TIMEOUT)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock
    return socket.create_connection(address, TIMEOUT)


class Monitor:
    """
    The QMP monitor of a running QEMU.

    @address: one of the forms that parse() accepts
    @pid: the ID of QEMU's process if the monitor is a unix socket, else None
    @host: the address of QEMU's host if the monitor is a TCP socket, else None
    """

    def __init__(self, address):
        self.address = address
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient('sev-migrate')
        parsed = parse(address)
        self.host = None if isinstance(parsed, str) else parsed[0]
        self.pid = None
        try:
            sock = _connect(parsed)
            if self.host is None:
                self.pid = struct.unpack('3i', sock.getsockopt(
                    socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0] or None
            self._wait(self._client.connect(sock), TIMEOUT)
        except asyncio.TimeoutError:
            self.close()
            raise Stop(f'{address}: the monitor does not answer; it serves one '
                       'client at a time, and another one may use it') \
                from None
        except OSError as e:
            self._loop.close()
            raise Stop(f'{address}: no QMP monitor: '
                       f'{e.strerror or e}') from None
        except QMPError as e:
            self.close()
            raise Stop(f'{address}: this is no QMP monitor: {e}') from None

    def _wait(self, what, timeout):
        return self._loop.run_until_complete(
            asyncio.wait_for(what, timeout))

    def cmd(self, command, **arguments):
        """
        Execute a command and return its answer.  Raises Refused if QEMU answers
        with an error, and Stop if QEMU does not answer.
        """
        try:
            return self._wait(self._client.execute(command, arguments),
                              COMMAND_TIMEOUT)
        except ExecuteError as e:
            raise Refused(str(e)) from None
        except asyncio.TimeoutError:
            raise Stop(f'{self.address}: no answer to {command} in '
                       f'{COMMAND_TIMEOUT} seconds') from None
        except (QMPError, OSError, EOFError) as e:
            raise Stop(f'{self.address}: the connection was lost at {command}: '
                       f'{e or type(e).__name__}') from None

    def close(self):
        try:
            self._wait(self._client.disconnect(), TIMEOUT)
        except (QMPError, OSError, EOFError, asyncio.TimeoutError):
            pass            # QEMU has ended or has closed the connection
        if not self._loop.is_closed():
            self._loop.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
