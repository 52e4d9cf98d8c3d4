# SPDX-License-Identifier: GPL-2.0-or-later
"""Record the stream of a migration, change it, and send it to a new QEMU.

The recorded guest has hw/misc/confidential-guest-testdev, which needs no platform.
To add a mutation, add a function to MUTATIONS.
"""
import io
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from sevmigrate import stream
from sevmigrate.errors import Refused, Stop

from monitor import Qmp

QEMU = '/b/bin/qemu-system-x86_64'
RAM_MIB = 4
# Half of the 1024 pages have contents
MACHINE = {'machine': 'pc', 'ram_mib': RAM_MIB,
           'device': 'confidential-guest-testdev,lazy=on,begin-touched=512'}
HANG = 60               # seconds after which a destination counts as hanging
ODD = (0, 1, 2, 3, 63, 64, 65, 255, 256, 4096, 335888, (1 << 20) + 64,
       0x7fffffff, 0xffffffff, 1 << 32, 1 << 52, (1 << 63) - 1, (1 << 64) - 1)


# The kinds of encrypted records
ENCRYPTED = set(stream.TYPE_NAMES.values())


class Guest:
    """A QEMU whose guest has private pages and does not run."""

    def __init__(self, work, name, incoming=False, qemu=QEMU, machine=None):
        machine = machine or MACHINE
        self.qmp_path = f'{work}/{name}.qmp'
        self.socket_path = f'{work}/{name}.sock'
        args = [qemu, '-machine', machine['machine'], '-accel', 'qtest', '-nodefaults',
                '-display', 'none', '-no-user-config', '-S',
                '-global', 'apic-common.vapic=off', '-bios', f'{work}/bios',
                '-m', str(machine['ram_mib']), '-device', machine['device']]
        if incoming:
            args += ['-incoming', f'unix:{self.socket_path}']
        # The test asks by QMP whether the load has succeeded
        args += ['-qmp', f'unix:{self.qmp_path},server=on,wait=off']
        self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL,
                                     stderr=subprocess.PIPE, text=True,
                                     errors='replace')

    def qmp(self):
        return Qmp(self.qmp_path, self.proc)

    def connect(self):
        s = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + HANG
        while True:
            try:
                s.connect(self.socket_path)
                return s
            except OSError:
                if self.proc.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def end(self):
        self.proc.kill()
        return self.proc.communicate()[1]


def pump(source, sink, record=None):
    """
    Forward data from @source to @sink until one of the two is closed.  If @sink
    is None, only read the data.  Also append the data to @record, if given.
    """
    try:
        while data := source.recv(1 << 16):
            if record is not None:
                record += data
            if sink:
                sink.sendall(data)
        if sink:
            sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def records(data):
    """Return the records of a whole stream, as stream.Record."""
    return list(stream.Stream(io.BytesIO(data)).records())


def write_bios(work):
    """Write a file with the firmware of all guests, which is never executed"""
    with open(f'{work}/bios', 'wb') as f:
        f.write(bytes(1 << 16))


class Case(unittest.TestCase):
    """Base of tests that run guests; their files are in the directory work."""

    @classmethod
    def setUpClass(cls):
        work = tempfile.TemporaryDirectory()
        cls.addClassCleanup(work.cleanup)
        cls.work = work.name
        write_bios(cls.work)


def capture(work, machine=None):
    """Record the stream of a complete migration; return its bytes."""
    destination = Guest(work, 'capture-to', incoming=True, machine=machine)
    source = Guest(work, 'capture-from', machine=machine)
    recorded = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f'{work}/capture')
            server.listen(1)
            q = source.qmp()
            q.cmd('migrate-set-capabilities', capabilities=[
                {'capability': 'return-path', 'state': True}])
            q.cmd('migrate', uri=f'unix:{work}/capture')
            left, _ = server.accept()
            right = destination.connect()
            threading.Thread(target=pump, args=(right, left),
                             daemon=True).start()
            pump(left, right, recorded)
        while (info := q.cmd('query-migrate'))['status'] != 'completed':
            if info['status'] == 'failed':
                raise RuntimeError(info.get('error-desc'))
            time.sleep(0.02)
        q.close()
    finally:
        for guest in (source, destination):
            guest.end()
    return bytes(recorded)


def outcome(work, name, data, qemu=QEMU, machine=None):
    """
    Send the stream @data to a destination.  Returns 'loaded', 'refused' or a
    description of another result, and the destination's messages.
    """
    guest = Guest(work, name, incoming=True, qemu=qemu, machine=machine)
    try:
        s = guest.connect()
    except OSError:
        return 'did not listen', guest.end()
    threading.Thread(target=pump, args=(s, None), daemon=True).start()

    def send():
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass            # the destination refused the rest of the stream

    threading.Thread(target=send, daemon=True).start()
    status = None
    try:
        with guest.qmp() as q:
            end = time.monotonic() + HANG
            while (status not in ('completed', 'failed') and
                   time.monotonic() < end):
                status = q.cmd('query-migrate').get('status')
                time.sleep(0.02)
            if status == 'completed':
                # The destination must still answer
                q.cmd('query-status')
                q.cmd('quit')
    except (Refused, Stop, OSError, RuntimeError):
        pass                # QEMU has ended meanwhile
    try:
        said = guest.proc.communicate(timeout=HANG)[1]
    except subprocess.TimeoutExpired:
        return 'hangs', guest.end()
    finally:
        s.close()
    code = guest.proc.returncode
    if code < 0:
        return f'ended by {signal.Signals(-code).name}', said
    if code == 0 and status == 'completed':
        return 'loaded', said
    if code != 1:
        return f'exit code {code}', said
    if not said.strip():
        return 'ended without a reason', said
    return 'refused', said


# Each mutation changes the list of Pieces and returns a description of the
# change

class Piece:
    """A copy of a record that mutations can change."""

    def __init__(self, record):
        self.kind = record.kind
        self.raw = bytearray(record.raw)

    def copy(self):
        other = object.__new__(Piece)
        other.kind, other.raw = self.kind, bytearray(self.raw)
        return other

    def fields(self):
        """Return (offset, size) in bytes of each number in the record."""
        if self.kind in ENCRYPTED:
            out = [(0, 8), (8, 1), (9, 1), (10, 2), (12, 4)]
            out += {'session': [(16, 4), (20, 4), (24, 4), (28, 4), (32, 1)],
                    'private': [(16, 4), (20, 4), (24, 8), (32, 8)],
                    'state': [(16, 4), (20, 4), (24, 8), (32, 8), (40, 8)],
                    'unallocated': [(16, 4), (20, 4), (24, 8), (32, 8)],
                    'final': [(16, 1)]}[self.kind]
        elif self.kind == 'blocks':
            out, at = [(0, 8)], 8
            while at < len(self.raw):
                n = self.raw[at]
                out += [(at, 1), (at + 1 + n, 8)]
                at += 1 + n + 8
        else:
            out = [(0, 8), (8, 1)]
        return [(at, n) for at, n in out if at + n <= len(self.raw)]


def any_of(rnd, pieces, devices=False):
    """
    Return the index of a random record.  Each kind of record has the same
    probability, although records of pages are more frequent.
    """
    kinds = sorted({p.kind for p in pieces if devices or p.kind != 'rest'})
    kind = rnd.choice(kinds)
    return rnd.choice([i for i, p in enumerate(pieces) if p.kind == kind])


def change_field(rnd, pieces, devices):
    i = any_of(rnd, pieces, devices)
    fields = pieces[i].fields()
    if not fields:
        return change_byte(rnd, pieces, devices)
    at, n = rnd.choice(fields)
    old = int.from_bytes(pieces[i].raw[at:at + n], 'big')
    new = rnd.choice([old + 1, old - 1, old ^ 1 << rnd.randrange(8 * n),
                      rnd.choice(ODD), rnd.choice(ODD) * 4096])
    new %= 1 << 8 * n
    pieces[i].raw[at:at + n] = new.to_bytes(n, 'big')
    return f'{pieces[i].kind} record {i}: field at {at}: {old:#x} -> {new:#x}'


def change_byte(rnd, pieces, devices):
    i = any_of(rnd, pieces, devices)
    at = rnd.randrange(min(len(pieces[i].raw), rnd.choice([64, 1 << 20])))
    pieces[i].raw[at] ^= rnd.randrange(1, 256)
    return f'{pieces[i].kind} record {i}: byte {at}'


def drop(rnd, pieces, devices):
    i = any_of(rnd, pieces, devices)
    return f'{pieces.pop(i).kind} record {i}: dropped'


def twice(rnd, pieces, devices):
    i = any_of(rnd, pieces, devices)
    pieces.insert(i, pieces[i].copy())
    return f'{pieces[i].kind} record {i}: sent twice'


def move(rnd, pieces, devices):
    i = any_of(rnd, pieces, devices)
    piece = pieces.pop(i)
    j = any_of(rnd, pieces, devices)
    pieces.insert(j, piece)
    return f'{piece.kind} record {i}: moved to {j}'


def cut(rnd, pieces, devices):
    i = any_of(rnd, pieces, devices)
    at = rnd.randrange(len(pieces[i].raw))
    del pieces[i].raw[at:], pieces[i + 1:]
    return f'{pieces[i].kind} record {i}: the stream ends at its byte {at}'


def length(rnd, pieces, devices):
    """
    Change the length of a record's body, and also the length in its header.
    """
    i = any_of(rnd, pieces, devices)
    p = pieces[i]
    if p.kind not in ENCRYPTED:
        return change_field(rnd, pieces, devices)
    if rnd.randrange(2):
        del p.raw[rnd.randrange(16, len(p.raw)):]
    else:
        p.raw += rnd.randbytes(rnd.choice([1, 8, 4096]))
    p.raw[12:16] = (len(p.raw) - 16).to_bytes(4, 'big')
    return f'{p.kind} record {i}: body of {len(p.raw) - 16} bytes'


def plain_page(rnd, pieces, devices):
    """Insert a plain page of the RAMBlock with private pages."""
    i = any_of(rnd, pieces, devices)
    page = rnd.choice([0, 1, rnd.randrange(RAM_MIB * 256), RAM_MIB * 256])
    flag = rnd.choice([stream.ZERO, stream.PLAIN, 0x40])
    raw = (page * 4096 | flag).to_bytes(8, 'big') + b'\6pc.ram'
    raw += bytes(4096 if flag == stream.PLAIN else 1)
    piece = pieces[i].copy()
    piece.kind, piece.raw = 'plain', bytearray(raw)
    pieces.insert(i, piece)
    return f'a plain page {page}, flag {flag:#x}, before record {i}'


MUTATIONS = (change_field, change_field, change_field, change_byte, drop,
             twice, move, cut, length, plain_page)


def mutate(rnd, originals, devices):
    pieces = [Piece(r) for r in originals]
    said = [rnd.choice(MUTATIONS)(rnd, pieces, devices)
            for _ in range(rnd.choice([1, 1, 1, 2, 3]))]
    return b''.join(p.raw for p in pieces), '; '.join(said)
