# SPDX-License-Identifier: GPL-2.0-or-later
"""Connection to the monitor of a QEMU that a test has started."""
import logging
import time

from sevmigrate.errors import Stop
from sevmigrate.monitor import Monitor

TIMEOUT = 60            # seconds until QEMU must have opened its monitor

# If QEMU ends, qemu.qmp logs the lost connection, and Monitor raises an
# exception.  The caller reports the exception, so the log would only repeat it.
logging.getLogger('qemu.qmp').setLevel(logging.CRITICAL)


class Qmp(Monitor):
    """Connects to the QEMU process @proc, which may not listen at @path yet."""

    def __init__(self, path, proc):
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                super().__init__(path)
                return
            except Stop:
                if proc.poll() is not None:
                    raise RuntimeError(
                        f'QEMU ended with {proc.returncode}') from None
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def give(self, fd, name):
        """Pass @fd to QEMU, where "fd:@name" can be used once."""
        self._client.send_fd_scm(fd)
        self.cmd('getfd', fdname=name)

    def event(self, name):
        """Wait for the next event @name.  Returns the event's data."""
        while True:
            event = self._wait(self._client.events.get(), None)
            if event['event'] == name:
                return event['data']
