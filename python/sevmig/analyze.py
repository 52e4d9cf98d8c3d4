# SPDX-License-Identifier: GPL-2.0-or-later
"""Print the contents of the migration stream of a confidential guest.

  scripts/in-root python3 -m sevmig.analyze [--sev] [--quiet] FILE

FILE contains the bytes that the source sent to the destination.  The program
prints one line for each record of private pages, and one line for each run of
plain pages.  A line has the position in the stream, the kind, the block, the
offset, the number of pages and the number of bytes.
--sev also decodes the contents of the records that SEV defines (packets and
session data).  --quiet prints only the sums.

The exit status is 1 if the stream differs from the format in
docs/specs/encrypted-ram-migration.rst and
docs/specs/sev-migration-payload.rst.  It is also 1 if the last copy of a page
was sent by a path that does not match the page's final state.  This program
shares no code with QEMU.
"""
import argparse
import struct
import sys

from sevmigrate import stream

BODY = 16                       # offset of the body in an encrypted record
CERT_MAX = SESSION_MAX = 16384
HEADER_MAX, PACKET_MAX = 256, 4 * stream.PAGE


def need(true, what):
    if not true:
        raise stream.Malformed(what)


def sev_session(of, data):
    """Check SEV's session data; return its fields and lengths."""
    need(len(data) >= 24, f'session data of {len(data)} bytes')
    cbit, version, policy, pdh, session, below_4g = struct.unpack_from(
        '>HHIIIQ', data)
    need(version == 1, f'session data of version {version}')
    need(1 <= pdh <= CERT_MAX and 1 <= session <= SESSION_MAX and
         24 + pdh + session == len(data),
         f'a PDH of {pdh} and a session of {session} in {len(data)} bytes')
    return (f'C-bit {cbit}, policy {policy:#x}, PDH {pdh} bytes, '
            f'session {session} bytes, {below_4g >> 20} MiB below 4 GiB, '
            f'{len(of.private_blocks)} blocks')


def sev_pages(record, data):
    """Check the packets of a record of pages; return their lengths."""
    at, pages, heads = 0, 0, set()
    while pages < record.count:
        need(at + 4 <= len(data), f'the packet of page {pages} is missing')
        head, size = struct.unpack_from('>HH', data, at)
        need(1 <= head <= HEADER_MAX and 1 <= size <= PACKET_MAX and
             (size <= stream.PAGE or size % stream.PAGE == 0),
             f'page {pages}: a header of {head} and data of {size} bytes')
        heads.add((head, size))
        at += 4 + head + size
        pages += -(-size // stream.PAGE)
    need(pages == record.count and at == len(data),
         f'{pages} of {record.count} pages in {at} of {len(data)} bytes')
    large = any(size > stream.PAGE for _, size in heads)
    need(not large or len({head for head, _ in heads}) == 1 and
         not any(size % stream.PAGE for _, size in heads),
         'packets of several pages, and others that are not alike')
    return 'packets of ' + ', '.join(f'{h}+{s}' for h, s in sorted(heads))


def sev_final(data):
    need(len(data) == 12, f'final data of {len(data)} bytes')
    version, control = struct.unpack('>IQ', data)
    need(version == 1, f'final data of version {version}')
    need(control == 1, f'MSR_KVM_MIGRATION_CONTROL {control}')
    return 'READY'


def sev(of, record):
    body = record.raw[BODY:]
    if record.kind == 'session':
        size, = struct.unpack_from('>I', body, 8)
        return sev_session(of, body[len(body) - size:])
    if record.kind == 'private':
        return sev_pages(record, body[BODY:])
    if record.kind == 'final':
        return sev_final(body)
    return ''


class Printer:
    """Print one line for each record, or for each run of plain pages."""

    def __init__(self, quiet):
        self.quiet = quiet
        self.run = None

    def put(self, position, kind, block='', offset=None, count=0, size=0,
            more=''):
        if self.quiet:
            return
        where = '' if offset is None else f'{offset:#x}'
        print(f'{position:>12}  {kind:<11} {block:<20} {where:>14} '
              f'{count or "":>7} {size:>9}  {more}'.rstrip())

    def flush(self):
        if self.run:
            self.put(*self.run)
        self.run = None

    def add(self, record, more):
        line = [record.position, record.kind, record.block, record.offset,
                record.count, len(record.raw)]
        if record.kind in ('plain', 'zero'):
            r = self.run
            if (r and r[1:3] == line[1:3] and
                    r[3] + r[4] * stream.PAGE == record.offset):
                r[4] += record.count
                r[5] += len(record.raw)
                return
            self.flush()
            self.run = line
            return
        self.flush()
        if record.kind in ('frame', 'rest'):
            return
        if record.kind in ('session', 'final', 'blocks'):
            line[3] = None
        self.put(*line, more)


def main():
    p = argparse.ArgumentParser(
        prog='sevmig.analyze',
        description='What is in the migration stream of a confidential guest')
    p.add_argument('--sev', action='store_true')
    p.add_argument('--quiet', action='store_true')
    p.add_argument('file')
    a = p.parse_args()
    tally = stream.Tally()
    out = Printer(a.quiet)
    with open(a.file, 'rb', buffering=1 << 20) as f:
        of = stream.Stream(f)
        position = 0
        try:
            for record in of.records():
                position = record.position
                tally.add(of, record)
                out.add(record, sev(of, record) if a.sev else '')
            out.flush()
        except (EOFError, stream.Malformed) as e:
            out.flush()
            print(f'after byte {position}: {e}')
            return 1
    print('round   ' + ''.join(f'{r:>13}' for r in tally.PATHS))
    for i, r in enumerate(tally.rounds, 1):
        print(f'{i:>5}   ' + ''.join(f'{r[path]:>13}' for path in tally.PATHS))
    print('pages   ' + ''.join(f'{tally.total(r):>13}' for r in tally.PATHS))
    print('bytes   ' + ''.join(f'{tally.bytes[r]:>13}' for r in tally.PATHS))
    if not of.state:
        print('no private memory')
        return 0
    wrong = tally.disagreements(of)
    for name, page in wrong[:10]:
        print(f'{name}, offset {page * stream.PAGE:#x}: its last path is not '
              'that of its state')
    print(f'{len(wrong)} pages whose last path is not that of their state')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
