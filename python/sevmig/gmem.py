"""
The guest_memfd of a QEMU with in-place memory, which the test maps, too.  The
test can thus find out the host's pages, hold references to them, and report
memory errors in them.  It never reads or writes the guest's memory.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import ctypes
import errno
import mmap
import os
import re
import struct

from .guest import PAGE

# A system call number and values of madvise() that Python does not define
SYS_PIDFD_GETFD = 438
MADV_DONTNEED, MADV_POPULATE_READ = 4, 22
# Bits of an entry of /proc/PID/pagemap
PRESENT, PFN = 1 << 63, (1 << 55) - 1
# A flag in /proc/kpageflags
KPF_HWPOISON = 1 << 19
OFFLINE = '/sys/devices/system/memory/hard_offline_page'

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LIBC.vmsplice.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong,
                          ctypes.c_uint]
LIBC.vmsplice.restype = ctypes.c_ssize_t


def find(pid, size):
    """
    Return the number of the guest_memfd of @size bytes of process @pid, None if
    it has none.
    """
    for name in os.listdir(f'/proc/{pid}/fd'):
        path = f'/proc/{pid}/fd/{name}'
        try:
            if re.search('gmem|guest_memfd', os.readlink(path)) and \
                    os.stat(path).st_size == size:
                return int(name)
        except FileNotFoundError:
            pass        # the process has closed this file
    return None


class GuestMemory:
    """
    The guest_memfd with the RAM of a VM.  A page is its number in the file.
    The VM remains in KVM and in the firmware until close().
    """

    def __init__(self, v):
        pid = v.get_pid()
        number = find(pid, v.config.mem)
        if number is None:
            raise OSError(f'process {pid} has no guest_memfd of '
                          f'{v.config.mem} bytes')
        pidfd = os.pidfd_open(pid)
        try:
            self._fd = LIBC.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)
        finally:
            os.close(pidfd)
        if self._fd < 0:
            err = ctypes.get_errno()
            raise OSError(err, os.strerror(err), 'pidfd_getfd')
        self._map = mmap.mmap(self._fd, v.config.mem)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def close(self):
        self._map.close()
        os.close(self._fd)

    def shared(self, first, count):
        """
        Return page -> page frame number of the host, for those of the @count
        pages from @first on that are shared.
        """
        for page in range(first, first + count):
            # This fails for a private page
            LIBC.madvise(self._address + page * PAGE, PAGE, MADV_POPULATE_READ)
        with open('/proc/self/pagemap', 'rb', buffering=0) as f:
            f.seek((self._address // PAGE + first) * 8)
            entries = struct.unpack(f'<{count}Q', f.read(count * 8))
        return {first + i: entry & PFN for i, entry in enumerate(entries)
                if entry & PRESENT}

    def unmap(self, first, count):
        """Remove @count pages from the test's page tables."""
        if LIBC.madvise(self._address + first * PAGE, count * PAGE,
                        MADV_DONTNEED):
            err = ctypes.get_errno()
            raise OSError(err, os.strerror(err), 'MADV_DONTNEED')

    def hold(self, page):
        """
        Hold a reference to @page, as direct I/O and assigned devices do.
        Returns the pipe with the reference as (file descriptor, file
        descriptor); to drop the reference, close both.  Returns None if the
        page is private.
        """
        pipe = os.pipe()
        iov = (ctypes.c_size_t * 2)(self._address + page * PAGE, 1)
        if LIBC.vmsplice(pipe[1], iov, 1, 0) == 1:
            return pipe
        for fd in pipe:
            os.close(fd)
        return None


def poison(pfn):
    """
    Report an error of the host's memory in page @pfn to the kernel, which does
    not use the page any more until the host restarts.
    """
    try:
        # Without a buffer, because Python would write the buffer again when it
        # closes the file after an error
        with open(OFFLINE, 'wb', buffering=0) as f:
            f.write(f'{pfn * PAGE:#x}'.encode())
    except OSError as e:
        # EBUSY is expected: the kernel has marked the page as bad, but has not
        # removed the page from the guest_memfd
        if e.errno != errno.EBUSY:
            raise
    with open('/proc/kpageflags', 'rb', buffering=0) as f:
        f.seek(pfn * 8)
        flags, = struct.unpack('<Q', f.read(8))
    if not flags & KPF_HWPOISON:
        raise OSError(f'the kernel has not marked page {pfn:#x} as bad')
