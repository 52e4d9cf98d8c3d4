"""
Reader of the stream of a migration, for the picture of the guest's memory.

The source connects to a relay in this process.  The relay forwards the stream
to the destination and writes a copy of it to a pipe, from which a thread reads
it.  If this thread does not understand the stream, the relay still forwards it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import shutil
import tempfile
import threading

from . import picture, progress, stream
from .errors import PROBLEM, Stop
from .relay import Relay

CHUNK = 1 << 16


def target_of(uri):
    """Return the argument @target of Relay for the URI of a destination."""
    if uri.startswith('unix:'):
        return uri[5:]
    if uri.startswith('tcp:'):
        host, colon, port = uri[4:].rpartition(':')
        if colon and port.isdigit():
            return host.strip('[]'), int(port)
    raise Stop(f'--picture: the destination must listen at tcp:HOST:PORT or '
               f'unix:PATH, not at {uri}', PROBLEM)


class Recorder:
    """
    Reader of one stream.

    @pid: process ID of the source's QEMU, which will connect to the relay
    """

    def __init__(self, pid):
        if not pid:
            raise Stop('--picture: the QEMU of the source must be on this '
                       'host, and its monitor a unix socket', PROBLEM)
        self.tally = stream.Tally()
        self.why = ''               # why there is no picture
        self._pid = pid
        self._stream = None
        self._relay = None
        self._directory = tempfile.mkdtemp(prefix='sev-migrate.')

    def start(self, uri):
        """Start the relay to @uri; return the URI for the source."""
        path = os.path.join(self._directory, 'stream')
        reader, writer = os.pipe()
        self._source = os.fdopen(reader, 'rb')
        self._writer = writer
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._relay = Relay(path, target_of(uri), record=f'/dev/fd/{writer}')
        try:
            # Only QEMU's user may connect
            user = os.stat(f'/proc/{self._pid}').st_uid
            if user != os.geteuid():
                os.chown(path, user, -1)
                os.chown(self._directory, user, -1)
        except OSError as e:
            raise Stop('--picture: the user of QEMU cannot connect to this '
                       f'program: {e.strerror}', PROBLEM) from None
        return f'unix:{path}'

    def _read(self):
        self._stream = stream.Stream(self._source)
        try:
            for record in self._stream.records():
                self.tally.add(self._stream, record)
        except (stream.Malformed, EOFError, KeyError) as e:
            self.why = str(e)
        # Empty the pipe until the stream ends.  Otherwise, the relay would
        # block when the pipe is full, and the migration would not continue.
        while self._source.read(CHUNK):
            pass

    def close(self):
        """End the relay, whether or not there was a migration."""
        if self._relay:
            self._relay.close(drain=True)
            os.close(self._writer)
            self._thread.join(60)
            self._source.close()
            self._relay = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def write(self, path, info):
        """
        Write the picture of a migration to @path.

        @info: the last answer of query-migrate
        Returns what is wrong, or an empty string.
        """
        blocks = [name for name, _ in self._stream.private_blocks
                  if name in self.tally.last]
        if self.why or not blocks:
            return self.why or 'no private memory has been sent'
        if path.lower().endswith('.png'):
            data = picture.blocks_png(self.tally, blocks)
        else:
            stats = info.get('encrypted-ram', {})
            rounds = stats.get('recent-rounds', [])
            data = picture.svg(self.tally, blocks,
                               'Memory of the guest by the path of its pages',
                               progress.summary(info), rounds,
                               stats.get('helper-pages', 0) > 0).encode()
        try:
            with open(path, 'wb') as f:
                f.write(data)
        except OSError as e:
            return f'{path}: {e.strerror}'
        return ''
