# SPDX-License-Identifier: GPL-2.0-or-later
"""Connection to the monitor of a QEMU that a test has started."""
import logging
import time

from qemu.qmp import ConnectError, QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

TIMEOUT = 60            # seconds that an answer of QEMU may take at most

# Do not log errors of connections; the caller reports a QEMU that has ended
logging.getLogger('qemu.qmp').setLevel(logging.CRITICAL)


class Qmp(QEMUMonitorProtocol):
    """Connects to the QEMU process @proc, which may not listen at @path yet."""

    def __init__(self, path, proc):
        super().__init__(path)
        self.settimeout(TIMEOUT)
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                self.connect()
                return
            except ConnectError:
                if proc.poll() is not None:
                    raise RuntimeError(
                        f'QEMU ended with {proc.returncode}') from None
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def close(self):
        """Close the connection, which QEMU may have closed before."""
        try:
            super().close()
        except (QMPError, EOFError, OSError):
            pass

    def give(self, fd, name):
        """Pass @fd to QEMU, where "fd:@name" can be used once."""
        self.send_fd_scm(fd)
        self.cmd('getfd', fdname=name)

    def event(self, name):
        """Wait for the next event @name.  Returns the event's data."""
        while (event := self.pull_event(wait=True))['event'] != name:
            pass
        return event['data']
