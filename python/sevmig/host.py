"""
Resources of the emulated host.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import ctypes
import gc
import glob
import os
import re

CGROUP = '/run/sevmig-cgroup'


def mount(kind, where):
    # The minimal file tree of the emulated host has no mount(8)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None):
        err = ctypes.get_errno()
        raise OSError(err, os.strerror(err), where)


def asids():
    """Return the number of ASIDs that KVM has assigned to SEV guests."""
    if not os.path.ismount(CGROUP):
        os.makedirs(CGROUP, exist_ok=True)
        mount('cgroup2', CGROUP)
    with open(f'{CGROUP}/misc.current', encoding='ascii') as f:
        return int(re.search(r'^sev (\d+)$', f.read(), re.M)[1])


def _kib(path, names):
    with open(path, encoding='ascii', errors='replace') as f:
        found = dict(re.findall(r'^(\w+):\s+(\d+) kB$', f.read(), re.M))
    return [int(found[n]) for n in names]


def _write(path, text):
    with open(path, 'w', encoding='ascii') as f:
        f.write(text)


def used_kib():
    """
    Return (memory in use, the part of it in the kernel's slabs) in KiB after
    all caches have been dropped.  The memory of this process does not count.
    """
    gc.collect()
    os.sync()
    _write('/proc/sys/vm/drop_caches', '3')
    for path in glob.glob('/sys/kernel/slab/*/shrink'):
        _write(path, '1')
    total, free, slabs = _kib('/proc/meminfo',
                              ['MemTotal', 'MemFree', 'SUnreclaim'])
    own, = _kib('/proc/self/status', ['RssAnon'])
    # The free pages in the per-CPU lists are not part of MemFree
    with open('/proc/zoneinfo', encoding='ascii') as f:
        kept = sum(map(int, re.findall(r'^ +count: +(\d+)$', f.read(), re.M)))
    return total - free - kept * 4 - own, slabs
