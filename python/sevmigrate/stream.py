"""
Reader of a migration stream.  It parses the stream up to the end of the RAM
section, as docs/specs/encrypted-ram-migration.rst specifies it.  It shares no
code with QEMU.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import struct
from dataclasses import dataclass

PAGE = 4096

# migration/savevm.h
MAGIC, VERSION = 0x5145564d, 3
SECTION_START, SECTION_PART, SECTION_END, SECTION_FULL = 1, 2, 3, 4
CONFIGURATION, COMMAND, FOOTER = 7, 8, 0x7e

# migration/ram.c
ZERO, MEM_SIZE, PLAIN, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
ENCRYPTED = 0x100
FLAGS = PAGE - 1

# Types of encrypted records
SESSION, PAGES, STATE, FINAL, UNALLOCATED, PLATFORM = 1, 2, 3, 4, 5, 6
TYPE_NAMES = {SESSION: 'session', PAGES: 'private', STATE: 'state',
              FINAL: 'final', UNALLOCATED: 'unallocated',
              PLATFORM: 'platform'}
LIMIT = {SESSION: 335888, PAGES: 16 + 64 * 4608, STATE: 24 + 128 * 1024,
         FINAL: 64 * 1024, UNALLOCATED: 24, PLATFORM: 128 * 1024}
PAGES_MAX = 64
# The specification defines two of the lower 16 flags of the session record.
# SESSION_FLAGS has these two.  A destination refuses a session record in which
# any other of the lower 16 flags is set.
# 1: the source accepts a reason message, in which the destination says why it
#    failed.
# 2: the source sends private pages through the multifd channels.
# SESSION_OPTIONAL has the flags that a destination ignores if it does not know
# them.  The only known one is 0x10000: the source accepts an answer message.
SESSION_FLAGS = 3
SESSION_OPTIONAL = 0xffff0000
PAGES_HEADER = 16 + 16      # header of the record, and header of its body


class Malformed(Exception):
    """The stream violates the specification."""


@dataclass
class Record:
    """
    A part of the stream.  All parts together, in order, are the whole stream.

    @kind: 'zero', 'plain' or 'private' for pages; 'unallocated' for private
           pages without contents; 'session', 'state', 'final' or
           'platform' for the other encrypted records; 'blocks' for the list
           of blocks; 'rest' for
           everything after RAM; 'frame' for everything else
    @raw: the bytes of this part
    """
    kind: str
    raw: bytes
    position: int           # of its first byte in the stream
    block: str = ''
    offset: int = 0
    count: int = 0          # pages


class Stream:
    """Reader of the stream in @f, a binary file object."""

    def __init__(self, f):
        self._f = f
        self._raw = bytearray()
        self._position = 0
        self._block_now = ''        # block of the last plain or zero page
        self.blocks = {}            # name -> size in bytes, in stream order
        self.private_blocks = []    # (name, pages), from the session record
        self.state = {}             # name -> bytearray, from the state records

    def _read(self, n):
        data = self._f.read(n)
        if data is None or len(data) != n:
            raise EOFError(f'the stream ends at byte '
                           f'{self._position + len(self._raw)}')
        self._raw += data
        return data

    def _unpack(self, fmt):
        fmt = '>' + fmt
        return struct.unpack(fmt, self._read(struct.calcsize(fmt)))

    def _name(self):
        return self._read(self._unpack('B')[0]).decode('ascii')

    def _done(self, kind, **kw):
        raw = bytes(self._raw)
        record = Record(kind, raw, self._position, **kw)
        self._position += len(raw)
        self._raw.clear()
        return record

    def records(self):
        """Generate the Records of the whole stream."""
        if self._unpack('II') != (MAGIC, VERSION):
            raise Malformed('not a migration stream of version 3')
        ram_id = None
        while True:
            kind, = self._unpack('B')
            if kind == CONFIGURATION:
                self._read(self._unpack('I')[0])
            elif kind == COMMAND:
                _, size = self._unpack('HH')
                self._read(size)
                # Yield the command before reading on.  The command may be a
                # ping, and the source may send nothing more until the
                # destination has answered the ping.
                yield self._done('frame')
            elif kind == SECTION_START:
                section, = self._unpack('I')
                name = self._name()
                self._unpack('II')
                if name != 'ram':
                    raise Malformed(f'a live section {name}, expected ram')
                ram_id = section
                yield self._done('frame')
                yield from self._ram()
            elif kind in (SECTION_PART, SECTION_END):
                if self._unpack('I')[0] != ram_id:
                    raise Malformed('a part of an unknown section')
                yield self._done('frame')
                yield from self._ram()
                if kind == SECTION_END:
                    break
            elif kind == FOOTER:
                self._unpack('I')
                yield self._done('frame')
            else:
                raise Malformed(f'section type {kind:#x} at byte '
                                f'{self._position}')
        while True:
            # Do not wait for more data: the other end may wait for an answer
            read = getattr(self._f, 'read1', self._f.read)
            data = read(1 << 16)
            if not data:
                return
            self._raw += data
            yield self._done('rest')

    def _ram(self):
        while True:
            word, = self._unpack('Q')
            flags, offset = word & FLAGS, word & ~FLAGS
            if word == ENCRYPTED:
                yield self._encrypted()
            elif flags & MEM_SIZE:
                left = offset
                while left > 0:
                    name = self._name()
                    size, = self._unpack('Q')
                    self.blocks[name] = size
                    left -= size
                yield self._done('blocks')
            elif flags & (PLAIN | ZERO):
                if not flags & CONTINUE:
                    self._block_now = self._name()
                block = self._block_now
                if offset >= self.blocks.get(block, 0):
                    raise Malformed(f'a page at {offset:#x} of {block}')
                self._read(PAGE if flags & PLAIN else 1)
                yield self._done('plain' if flags & PLAIN else 'zero',
                                 block=block, offset=offset, count=1)
            elif flags == EOS:
                yield self._done('frame')
                return
            else:
                raise Malformed(f'flags {flags:#x} at byte {self._position}')

    def _encrypted(self):
        version, kind, reserved, size = self._unpack('BBHI')
        if version != 1 or kind not in LIMIT or reserved or size > LIMIT[kind]:
            raise Malformed(f'an encrypted record of version {version}, type '
                            f'{kind}, {size} bytes')
        end = len(self._raw) + size
        if (kind == SESSION) == bool(self.private_blocks):
            raise Malformed('the session record is not the first')
        if kind == SESSION:
            page, count, session_size, flags = self._unpack('IIII')
            if page != PAGE or flags & ~(SESSION_FLAGS | SESSION_OPTIONAL):
                raise Malformed(f'pages of {page} bytes, flags {flags:#x}')
            for _ in range(count):
                name = self._name()
                self.private_blocks.append((name, self._unpack('Q')[0]))
                self.state[name] = bytearray()
            self._read(session_size)
            record = {}
        elif kind == PAGES:
            index, count, offset = self._unpack('IIQ')
            name, pages = self._block(index)
            if (not 1 <= count <= PAGES_MAX or offset % PAGE or
                    offset // PAGE + count > pages):
                raise Malformed(f'{count} private pages at {offset:#x} of '
                                f'{name}')
            self._read(end - len(self._raw))
            record = {'block': name, 'offset': offset, 'count': count}
        elif kind == UNALLOCATED:
            index, reserved, first, count = self._unpack('IIQQ')
            name, pages = self._block(index)
            if reserved or not count or first + count > pages:
                raise Malformed(f'{count} unallocated pages from page {first} '
                                f'of {name} on')
            record = {'block': name, 'offset': first * PAGE, 'count': count}
        elif kind == STATE:
            index, _, first, count = self._unpack('IIQQ')
            name, _ = self._block(index)
            if first != len(self.state[name]) * 8:
                raise Malformed(f'the state of {name} goes on at page {first}')
            for word in self._unpack(f'{(count + 63) // 64}Q'):
                self.state[name] += word.to_bytes(8, 'little')
            record = {'block': name, 'count': count}
        else:
            self._read(size)
            record = {}
        if len(self._raw) != end:
            raise Malformed(f'a {TYPE_NAMES[kind]} record of {size} bytes '
                            f'ends after {size + len(self._raw) - end}')
        return self._done(TYPE_NAMES[kind], **record)

    def _block(self, index):
        if index >= len(self.private_blocks):
            raise Malformed(f'block {index} of {len(self.private_blocks)}')
        return self.private_blocks[index]


class Tally:
    """Counts the pages of each path, and keeps the last path of each page."""

    PATHS = ('private', 'unallocated', 'plain', 'zero')
    PRIVATE = (1, 2)        # values in self.last of the private paths

    def __init__(self):
        self.rounds = []        # path -> pages, for each round
        # block -> bytearray: for each page, 0 if it was not sent, otherwise 1
        # plus the index of its last path in PATHS
        self.last = {}
        # block -> bytearray: for each page, how often it was sent (at most 255)
        self.times = {}
        self.bytes = dict.fromkeys(self.PATHS, 0)
        self.records = dict.fromkeys(self.PATHS, 0)
        self.converted = 0      # pages sent in another state than before
        self._at = None
        self._order = {}

    def add(self, of, record):
        if record.kind == 'blocks':
            self._order = {n: i for i, n in enumerate(of.blocks)}
            for name, size in of.blocks.items():
                self.last[name] = bytearray(size // PAGE)
                self.times[name] = bytearray(size // PAGE)
            return
        if record.kind not in self.PATHS:
            return
        # In a round, QEMU visits the blocks in order, and each from its start
        # to its end.  A new round has therefore begun if this record's pages
        # are at a lower position than those of the previous record.
        at = (self._order[record.block], record.offset)
        if self._at is None or at < self._at:
            self.rounds.append(dict.fromkeys(self.PATHS, 0))
        self._at = at
        self.rounds[-1][record.kind] += record.count
        self.bytes[record.kind] += len(record.raw)
        self.records[record.kind] += 1
        path = self.PATHS.index(record.kind) + 1
        last, times = self.last[record.block], self.times[record.block]
        for page in range(record.offset // PAGE,
                          record.offset // PAGE + record.count):
            self.converted += bool(last[page]) and (
                (last[page] in self.PRIVATE) != (path in self.PRIVATE))
            last[page] = path
            times[page] = min(times[page] + 1, 255)

    def total(self, path):
        return sum(r[path] for r in self.rounds)

    def of_confidential(self, of):
        """
        Return how many pages of blocks that can have private pages were sent,
        by any path.  A page counts each time that it was sent.
        """
        return sum(sum(self.times[name]) for name, _ in of.private_blocks)

    def disagreements(self, of):
        """List the pages whose last path does not match the state records."""
        out = []
        for name, bits in of.state.items():
            for page, path in enumerate(self.last.get(name, b'')):
                private = bits[page // 8] >> page % 8 & 1
                # If a page was not sent, path is 0.  The destination then has
                # a page of zeros, so the page's state must be shared.
                if private != (path in self.PRIVATE):
                    out.append((name, page))
        return out


def read_file(path):
    """Return the Stream and the Tally of a recorded file."""
    tally = Tally()
    with open(path, 'rb', buffering=1 << 20) as f:
        stream = Stream(f)
        for record in stream.records():
            tally.add(stream, record)
    return stream, tally
