# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor of a QEMU that a test of streams has started."""
import logging
import time

from qemu.qmp import ConnectError, QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

TIMEOUT = 60            # seconds that no answer may take

# The caller reports it if a QEMU ends that should not
logging.getLogger('qemu.qmp').setLevel(logging.CRITICAL)


class Qmp(QEMUMonitorProtocol):
    """@proc, a QEMU, listens or will listen at @path."""

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
        """Hang up; QEMU may have done so before."""
        try:
            super().close()
        except (QMPError, EOFError, OSError):
            pass

    def give(self, fd, name):
        """It has @fd as fd:@name from now on, until that is used."""
        self.send_fd_scm(fd)
        self.cmd('getfd', fdname=name)

    def event(self, name):
        """Wait for the next event @name; its data."""
        while (event := self.pull_event(wait=True))['event'] != name:
            pass
        return event['data']
