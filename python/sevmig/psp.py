"""
Functions that count the commands of the host's kernel to the PSP, and that make
the PSP generate a new PDH.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import re

from sevmigrate import firmware

from . import host

# include/linux/psp-sev.h, enum sev_cmd
COMMANDS = {
    0x01: 'INIT', 0x02: 'SHUTDOWN', 0x04: 'PLATFORM_STATUS',
    0x06: 'PEK_CSR', 0x07: 'PEK_CERT_IMPORT',
    0x08: 'PDH_CERT_EXPORT', 0x09: 'PDH_GEN', 0x0a: 'DF_FLUSH',
    0x0b: 'DOWNLOAD_FIRMWARE', 0x0c: 'GET_ID', 0x0d: 'INIT_EX',
    0x0f: 'RING_BUFFER',
    0x20: 'DECOMMISSION', 0x21: 'ACTIVATE', 0x22: 'DEACTIVATE',
    0x23: 'GUEST_STATUS', 0x30: 'LAUNCH_START', 0x31: 'LAUNCH_UPDATE_DATA',
    0x33: 'LAUNCH_MEASURE', 0x34: 'LAUNCH_SECRET', 0x35: 'LAUNCH_FINISH',
    0x36: 'ATTESTATION_REPORT', 0x40: 'SEND_START', 0x41: 'SEND_UPDATE_DATA',
    0x43: 'SEND_FINISH', 0x44: 'SEND_CANCEL', 0x50: 'RECEIVE_START',
    0x51: 'RECEIVE_UPDATE_DATA', 0x53: 'RECEIVE_FINISH', 0x60: 'DBG_DECRYPT',
    0x61: 'DBG_ENCRYPT',
}

# include/uapi/linux/psp-sev.h
PEK_GEN = 2

TRACING = '/sys/kernel/tracing'
EVENTS = f'{TRACING}/events/sevmig'


class Counter:
    """
    Counter of PSP commands.  The object sets a kprobe on __sev_do_cmd_locked(),
    through which ccp submits every single command.  If this project's ccp is
    loaded, the object sets another kprobe on sev_issue_cmds_external_user(),
    which submits groups of commands.  If the kernel refuses a kprobe, @why is
    the reason.
    """

    def __init__(self):
        self.why = ''
        try:
            if not os.path.exists(f'{TRACING}/kprobe_events'):
                host.mount('tracefs', TRACING)
            self._write(f'{TRACING}/kprobe_events',
                        'p:sevmig/psp __sev_do_cmd_locked cmd=$arg1:u32')
            self._write(f'{EVENTS}/psp/trigger', 'hist:keys=cmd.hex')
        except OSError as e:
            self.why = f'the kernel does not let its PSP driver be probed: {e}'
            return
        if os.path.exists('/sys/module/ccp/parameters/sev_ring'):
            self._write(f'{TRACING}/kprobe_events',
                        'r:sevmig/ring sev_issue_cmds_external_user '
                        'cmd=$arg2:u32 n=$arg5:u32 ret=$retval:s32')
            self._write(f'{EVENTS}/ring/trigger',
                        'hist:keys=cmd.hex:vals=n if ret==0')

    @staticmethod
    def _write(path, text):
        # open(path, 'a') of Python would seek, and these files cannot seek
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, text.encode() + b'\n')
        finally:
            os.close(fd)

    def read(self):
        """
        Return command name -> number of calls since this Counter was created.
        """
        if self.why:
            return {}
        counts = {}
        for event, value in ('psp', 'hitcount'), ('ring', 'n'):
            if not os.path.exists(f'{EVENTS}/{event}'):
                continue
            with open(f'{EVENTS}/{event}/hist', encoding='ascii') as f:
                found = re.findall(r'cmd:\s*([0-9a-f]+) \}.*\b' + value +
                                   r':\s*(\d+)', f.read())
            for c, n in found:
                name = COMMANDS.get(int(c, 16), f'{int(c, 16):#x}')
                counts[name] = counts.get(name, 0) + int(n)
        return counts

    def since(self, before):
        """Return the counts since a read() that returned @before."""
        return {c: n - before.get(c, 0) for c, n in self.read().items()
                if n > before.get(c, 0)}


def new_owner():
    """
    Make the platform generate another OCA, and with it another PEK and PDH.
    The platform must have no guest.
    """
    if firmware.issue(PEK_GEN):
        raise OSError('PEK_GEN failed')


def new_identity():
    """Make the platform generate another PDH key pair."""
    if firmware.issue(firmware.PDH_GEN):
        raise OSError('PDH_GEN failed')
