"""
A relay between source and destination, which can record, cut or change the
stream.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import socket
import struct
import threading

from . import stream

CHUNK = 1 << 20


# A message on the return path: type and length, big-endian
MESSAGE = struct.Struct('>HH')
SHUT = 1        # MIG_RP_MSG_SHUT: the destination's result, its last message
# A destination that has stopped reading may still send messages, such as its
# error.  The relay waits for them for at most this number of seconds.
LAST_WORDS = 5


class Cut(Exception):
    """
    A tamper function raises this exception in order to end the connection.
    Before the relay does so, it sends @data and calls @then().
    """

    def __init__(self, data=b'', then=None):
        super().__init__()
        self.data = data
        self.then = then


class Relay:
    """
    A relay for one connection.

    @listen: path of the unix socket at which the relay listens
    @target: path of a unix socket, or (address, port) of another host, to which
             the relay forwards the stream
    @record: path of a file to which the relay writes the bytes of the source
             that it has forwarded; not with @tamper
    @tamper: function that the relay calls with each stream.Record from the
             source; returns the bytes to forward instead, or raises Cut
    @answer: function that the relay calls with (type, message) for each message
             on the return path; returns the bytes to forward instead, or
             raises Cut
    @cut_at: number of bytes after which the relay ends the connection
    @ahead: maximum number of bytes that the relay reads before it has called
            @tamper for them
    """

    def __init__(self, listen, target, record=None, tamper=None, answer=None,
                 cut_at=None, ahead=CHUNK):
        self.uri = f'unix:{listen}'
        self.target = target
        self.forwarded = 0
        self.error = None
        self._record = record
        self._tamper = tamper
        self._answer = answer
        self._cut_at = cut_at
        self._ahead = ahead
        self._ends = []
        self._threads = []
        if os.path.exists(listen):
            os.unlink(listen)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(listen)
        self._server.listen(1)
        self._start(self._serve)

    def _start(self, target):
        t = threading.Thread(target=target, daemon=True)
        self._threads.append(t)
        t.start()
        return t

    @staticmethod
    def _end_writing(to):
        try:
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass            # the connection may be closed already

    def _serve(self):
        try:
            source, _ = self._server.accept()
        except OSError:
            return          # closed before a source connected
        try:
            self._ends = [source]
            if isinstance(self.target, str):
                destination = socket.socket(socket.AF_UNIX)
                self._ends.append(destination)
                destination.connect(self.target)
            else:
                destination = socket.create_connection(self.target)
                self._ends.append(destination)
            back = self._start(lambda: self._back(destination, source))
            try:
                self._forward(source, destination)
            except OSError:
                # Forward the destination's last messages, such as its error
                self._end_writing(destination)
                back.join(LAST_WORDS)
                raise
        except Cut as cut:
            self._end(cut, destination)
        except Exception as e:      # pylint: disable=broad-except
            # One side has closed the connection or has sent something
            # malformed.  The relay ends both connections; close() raises the
            # error.
            self.error = e
            self._hang_up()

    def _forward(self, source, destination):
        record = open(self._record, 'wb') if self._record else None
        try:
            if self._tamper:
                self._forward_records(source, destination)
            else:
                self._forward_bytes(source, destination, record)
            destination.shutdown(socket.SHUT_WR)
        finally:
            if record:
                record.close()

    def _forward_bytes(self, source, destination, record):
        buf = memoryview(bytearray(CHUNK))
        while True:
            n = source.recv_into(buf)
            if not n:
                return
            if self._cut_at is not None:
                n = min(n, self._cut_at - self.forwarded)
            destination.sendall(buf[:n])
            self.forwarded += n
            if record:
                record.write(buf[:n])
            if self.forwarded == self._cut_at:
                raise Cut

    def _forward_records(self, source, destination):
        with source.makefile('rb', buffering=self._ahead) as f:
            for record in stream.Stream(f).records():
                data = self._tamper(record)
                destination.sendall(data)
                self.forwarded += len(data)

    def _end(self, cut, to):
        try:
            to.sendall(cut.data)
        except OSError:
            pass            # the peer may have closed the connection already
        if cut.then:
            cut.then()
        self._hang_up()

    def _back(self, destination, source):
        """Forward the return path."""
        try:
            if self._answer:
                self._back_messages(destination, source)
            else:
                self._back_bytes(destination, source)
            source.shutdown(socket.SHUT_WR)
        except Cut as cut:
            self._end(cut, source)
        except OSError:
            pass            # _serve() reports the end of the connection

    @staticmethod
    def _back_bytes(destination, source):
        while True:
            data = destination.recv(CHUNK)
            if not data:
                return
            source.sendall(data)

    def _back_messages(self, destination, source):
        with destination.makefile('rb') as f:
            while True:
                head = f.read(MESSAGE.size)
                if len(head) < MESSAGE.size:
                    return
                kind, size = MESSAGE.unpack(head)
                source.sendall(self._answer(kind, head + f.read(size)))

    def _hang_up(self):
        for s in self._ends:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self, drain=False):
        """
        End the connection after the migration.  With @drain, first wait until
        the source has closed its side.  Raises the relay's error, unless the
        error is that one side has closed the connection.
        """
        if drain and self._ends:
            self._threads[0].join(60)
        try:
            self._server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._server.close()
        self._hang_up()
        for t in self._threads:
            t.join(10)
        for s in self._ends:
            s.close()
        if self.error and not isinstance(self.error, (OSError, EOFError)):
            raise self.error
