"""
The SEV firmware of this host, through /dev/sev.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import ctypes
import fcntl
import os
import struct
from dataclasses import dataclass

from . import chain

DEVICE = '/dev/sev'

# include/uapi/linux/psp-sev.h
PLATFORM_STATUS, PDH_GEN, PDH_CERT_EXPORT, GET_ID2 = 1, 4, 5, 8
ISSUE_CMD = 3 << 30 | 16 << 16 | ord('S') << 8
STATES = ('uninitialised', 'initialised', 'working')
FLAG_OWNED, FLAG_ES = 1, 1 << 8
ID_SIZE = 64

# Status codes of the SEV API that the commands of this module can return
STATUSES = {1: 'INVALID_PLATFORM_STATE', 5: 'ALREADY_OWNED',
            6: 'INVALID_CERTIFICATE', 0x12: 'HWERROR_PLATFORM',
            0x13: 'HWERROR_UNSAFE', 0x18: 'SECURE_DATA_INVALID'}


def issue(cmd, address=0):
    """
    Issue a command whose arguments are at @address; return the firmware's
    status, 0 for success.  Raises OSError if the kernel refuses it.
    """
    fd = os.open(DEVICE, os.O_RDWR)
    try:
        arg = bytearray(struct.pack('<IQI', cmd, address, 0))
        try:
            fcntl.ioctl(fd, ISSUE_CMD, arg)
        except OSError as e:
            status = struct.unpack('<IQI', arg)[2]
            if not 0 < status < 0x100:      # not the firmware's error
                raise e
            return status
        return 0
    finally:
        os.close(fd)


def command(cmd, layout, *values):
    """
    Issue a command with the arguments @values, packed in the format @layout.
    Returns its status, and its arguments as the firmware has changed them.
    """
    arg = ctypes.create_string_buffer(struct.pack(layout, *values))
    status = issue(cmd, ctypes.addressof(arg))
    return status, struct.unpack(layout, arg.raw[:struct.calcsize(layout)])


def _succeed(name, status):
    if status:
        raise OSError(f'{name}: the firmware answers {status:#x} '
                      f'({STATUSES.get(status, "see the SEV API")})')


@dataclass
class Status:
    """The state and the version of the platform."""
    api: tuple
    build: int
    state: int
    owned: bool
    es: bool
    guests: int

    @property
    def state_name(self):
        return STATES[self.state] if self.state < len(STATES) else \
            f'unknown state {self.state}'

    def version(self):
        return f'{self.api[0]}.{self.api[1]} build {self.build}'


def platform_status():
    status, (major, minor, state, flags, build, guests) = command(
        PLATFORM_STATUS, '<BBBIBI', *[0] * 6)
    _succeed('PLATFORM_STATUS', status)
    return Status((major, minor), build, state, bool(flags & FLAG_OWNED),
                  bool(flags & FLAG_ES), guests)


def export():
    """
    Return the PDH and the chain of PEK, OCA and CEK.  Hardware exports the CEK
    without AMD's signature.
    """
    pdh = ctypes.create_string_buffer(chain.CERT)
    exported = ctypes.create_string_buffer(3 * chain.CERT)
    status, _ = command(PDH_CERT_EXPORT, '<QIQI', ctypes.addressof(pdh),
                        chain.CERT, ctypes.addressof(exported), 3 * chain.CERT)
    _succeed('PDH_CERT_EXPORT', status)
    return pdh.raw, exported.raw


def identifier():
    """Return the identifier of the chip in the first socket."""
    # On a host with two sockets, GET_ID returns the identifiers of both chips.
    # It fails if the buffer has no room for both.
    buffer = ctypes.create_string_buffer(2 * ID_SIZE)
    status, (_, size) = command(GET_ID2, '<QI', ctypes.addressof(buffer),
                                2 * ID_SIZE)
    _succeed('GET_ID', status)
    return buffer.raw[:min(size, ID_SIZE)]
