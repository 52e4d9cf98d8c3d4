"""
Functions that search the readable memory of a process, or a file, for byte
strings.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
from dataclasses import dataclass, field

CHUNK = 1 << 20
PAGE = 4096
ZEROES = bytes(CHUNK)


@dataclass
class Result:
    hits: dict = field(default_factory=dict)    # name -> count
    readable: int = 0                           # bytes that could be read
    unreadable: int = 0                         # bytes that could not


def regions(pid):
    """
    Generate (start, end) of every mapping that process @pid may read, except
    those of the kernel (vvar and vsyscall).
    """
    with open(f'/proc/{pid}/maps', encoding='utf-8') as f:
        for line in f:
            fields = line.split()
            if 'r' in fields[1] and fields[-1] not in ('[vvar]', '[vsyscall]',
                                                       '[vvar_vclock]'):
                start, end = (int(x, 16) for x in fields[0].split('-'))
                yield start, end


def count(data, patterns, hits):
    # Most memory is zero.  Comparing it with zeroes is faster than searching
    # it.
    if data == ZEROES[:len(data)]:
        return
    for name, pattern in patterns.items():
        hits[name] += data.count(pattern)


def process(pid, patterns):
    """
    Count each of @patterns (name -> bytes, all of one length) in the memory
    of process @pid.
    """
    out = Result({name: 0 for name in patterns})
    overlap = max(len(p) for p in patterns.values()) - 1
    fd = os.open(f'/proc/{pid}/mem', os.O_RDONLY)
    try:
        for start, end in regions(pid):
            pos, tail = start, b''
            while pos < end:
                try:
                    got = os.pread(fd, min(CHUNK, end - pos), pos)
                except OSError:
                    got = b''
                if not got:
                    # Skip the page: it cannot be read, because it is private or
                    # is memory of a device
                    step = PAGE - pos % PAGE
                    pos += step
                    out.unreadable += step
                    tail = b''
                    continue
                count(tail + got, patterns, out.hits)
                # The tail is shorter than a pattern, so a pattern that ends in
                # this chunk is not counted again with the next chunk.
                tail = got[-overlap:]
                pos += len(got)
                out.readable += len(got)
    finally:
        os.close(fd)
    return out


def file(path, patterns):
    """Count each of @patterns (name -> bytes, all of one length) in a file."""
    out = Result({name: 0 for name in patterns})
    overlap = max(len(p) for p in patterns.values()) - 1
    tail = b''
    with open(path, 'rb') as f:
        while True:
            got = f.read(CHUNK)
            if not got:
                return out
            count(tail + got, patterns, out.hits)
            tail = got[-overlap:]
            out.readable += len(got)
