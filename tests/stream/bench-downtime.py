#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure the downtime of a confidential guest natively, without a running guest.

  bench-downtime.py [--links MB/S,...] [--costs US,...] [--multifd off|on]
                    [--limit MS] [--json FILE]

Two QEMUs with confidential-guest-testdev migrate over a link of a given speed,
with a platform that needs a given time to pack and to unpack a page.  A writer
takes the guest's place: after a part of the private pages is sent, it rewrites
most of the memory, and then less and less of it.  The table shows the downtime that
query-migrate reports for each case, and its ratio to the limit.  The program does
not fail if a goal is missed.
"""
import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from sevmig.table import table

from monitor import Qmp

QEMU = os.environ.get('QEMU', '/b/qemu/qemu-system-x86_64')
MIB = 1 << 20
MEMORY, SHARED = 48, 40     # MiB; the rest is private
GOAL = 1.5                  # times the limit
# The writer begins when QEMU has sent more than BAD_MOMENT private pages.  It
# writes in passes.  In each pass it rewrites SLICES slices of the memory, and
# waits for EVERY seconds after each slice.  After each pass it multiplies the
# size of the slices by SHRINKS.
BAD_MOMENT, SLICES, EVERY, SHRINKS = 300, 50, 0.02, 0.6
TIMEOUT = 300


class Link:
    """Forwards connections to @port, with @rate bytes per second in total."""

    def __init__(self, port, rate):
        self.port, self.rate = port, rate
        self.lock, self.free = threading.Lock(), 0.0
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.uri = f'tcp:127.0.0.1:{self.listener.getsockname()[1]}'
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                src, _ = self.listener.accept()
            except OSError:
                return
            dst = socket.create_connection(('127.0.0.1', self.port))
            for args in (src, dst, True), (dst, src, False):
                threading.Thread(target=self.pump, args=args,
                                 daemon=True).start()

    def carry(self, size):
        with self.lock:
            now = time.monotonic()
            self.free = max(self.free, now) + size / self.rate
            wait = self.free - now
        if wait > 0.001:
            time.sleep(wait)

    def pump(self, src, dst, slow):
        buf = memoryview(bytearray(256 << 10 if self.rate > 50e6 else 16 << 10))
        try:
            while n := src.recv_into(buf):
                if slow:
                    self.carry(n)
                dst.sendall(buf[:n])
        except OSError:
            pass
        for s, how in (src, socket.SHUT_RD), (dst, socket.SHUT_WR):
            try:
                s.shutdown(how)
            except OSError:
                pass

    def end(self):
        self.listener.close()


class Guest:
    def __init__(self, work, name, page_us, incoming=False):
        with open(f'{work}/bios', 'wb') as f:
            f.write(bytes(64 << 10))
        args = [QEMU, '-L', '/usr/share/seabios', '-L', '/usr/share/qemu',
                '-nodefaults', '-no-user-config', '-display', 'none', '-S',
                '-accel', 'qtest', '-machine', 'pc', '-m', str(MEMORY),
                '-global', 'apic-common.vapic=off', '-bios', f'{work}/bios',
                '-device', 'confidential-guest-testdev,'
                f'page-us={page_us},shared-mib={SHARED}',
                '-qmp', f'unix:{work}/{name}.qmp,server=on,wait=off',
                '-qtest', f'unix:{work}/{name}.qtest,server=on,wait=off',
                '-qtest-log', 'none']
        if incoming:
            args += ['-incoming', 'defer']
        with open(f'{work}/{name}.log', 'wb') as log:
            self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL,
                                         stderr=log)
        self.qmp = Qmp(f'{work}/{name}.qmp', self.proc)
        self.memory = socket.socket(socket.AF_UNIX)
        self.memory.connect(f'{work}/{name}.qtest')
        self.answers = self.memory.makefile('r')

    def write(self, first, end, value):
        """Write @value to all bytes from MiB @first to MiB @end."""
        start = int(first * MIB)
        size = int(end * MIB) - start
        if size > 0:
            self.memory.sendall(
                f'memset {start:#x} {size:#x} {value:#x}\n'.encode())
            if self.answers.readline().strip() != 'OK':
                raise RuntimeError('qtest: memset')

    def capabilities(self, multifd):
        for name in ['return-path'] + (['multifd'] if multifd else []):
            self.qmp.cmd('migrate-set-capabilities', capabilities=[
                {'capability': name, 'state': True}])

    def end(self):
        self.proc.kill()
        self.proc.wait()
        self.qmp.close()


def write_less_and_less(src):
    """
    Write to the guest's memory until the migration has ended.  Returns the result
    of query-migrate.
    """
    def write(at, part, value):
        for first, end in (8, SHARED), (SHARED, MEMORY):
            size = (end - first) * part
            src.write(first + size * at, first + size * (at + 1 / SLICES), value)

    part, slices, value = 1, 0, 0x22
    began = time.monotonic()
    while time.monotonic() - began < TIMEOUT:
        info = src.qmp.cmd('query-migrate')
        if info.get('status') in ('completed', 'failed'):
            return info
        sent = info.get('encrypted-ram', {}).get('private-pages', 0)
        if (sent > BAD_MOMENT and
                src.qmp.cmd('query-status')['status'] == 'running'):
            if not slices:
                for i in range(SLICES):     # first all slices at once
                    write(i / SLICES, part, value)
            value = value % 0xff + 1
            write(slices % SLICES / SLICES, part, value)
            slices += 1
            if slices % SLICES == 0:
                part *= SHRINKS
        time.sleep(EVERY)
    raise RuntimeError(f'the migration did not end in {TIMEOUT} s')


def migrate(rate, page_us, multifd, limit):
    """
    Migrate a guest.  Returns the result of query-migrate.  @rate: bytes per second
    of the link, or None for an unlimited link.
    """
    src = dst = link = None
    with tempfile.TemporaryDirectory() as work:
        try:
            dst = Guest(work, 'dst', page_us, incoming=True)
            src = Guest(work, 'src', page_us)
            for guest in (src, dst):
                guest.capabilities(multifd)
                guest.qmp.cmd('migrate-set-parameters', **{
                    'max-bandwidth': 0, 'downtime-limit': limit})
            src.qmp.cmd('cont')
            src.write(1, MEMORY, 0x11)
            dst.qmp.cmd('migrate-incoming', uri='tcp:127.0.0.1:0')
            port = int(dst.qmp.cmd('query-migrate')['socket-address'][0]['port'])
            uri = f'tcp:127.0.0.1:{port}'
            if rate:
                link = Link(port, rate)
                uri = link.uri
            src.qmp.cmd('migrate', uri=uri)
            info = write_less_and_less(src)
            if info['status'] != 'completed':
                raise RuntimeError(info.get('error-desc', info['status']))
            return info
        finally:
            for thing in (src, dst, link):
                if thing:
                    thing.end()


def numbers(text):
    return [None if x == 'unlimited' else float(x) for x in text.split(',')]


def show(results, limit):
    rows = [('link', 'cost of a page', 'multifd', 'downtime', f'of {limit} ms',
             'total', 'rounds', 'goal')]
    for r in results:
        rows.append((f'{r["link"]:g} MB/s' if r['link'] else 'unlimited',
                     f'{r["cost"]:g} us', r['multifd'],
                     f'{r["downtime"]} ms', f'{r["ratio"]:.2f}',
                     f'{r["total"] / 1000:.1f} s', str(r['rounds']),
                     'met' if r['ratio'] <= GOAL else 'MISSED'))
    print(table(rows), end='')
    print(f'{sum(r["ratio"] <= GOAL for r in results)} of {len(results)} goals '
          'met')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--links', type=numbers, default='8,80,800,unlimited')
    p.add_argument('--costs', type=numbers, default='0,250,2500')
    p.add_argument('--multifd', choices=['off', 'on'])
    p.add_argument('--limit', type=int, default=500)
    p.add_argument('--json')
    a = p.parse_args()
    results = []
    for link in a.links:
        for cost in a.costs:
            for multifd in [a.multifd] if a.multifd else ['off', 'on']:
                info = migrate(link and link * 1e6, int(cost),
                               multifd == 'on', a.limit)
                results.append({
                    'link': link, 'cost': cost, 'multifd': multifd,
                    'downtime': info['downtime'],
                    'ratio': info['downtime'] / a.limit,
                    'total': info['total-time'],
                    'rounds': info['encrypted-ram']['rounds'],
                    # the pages that QEMU sent while the guest was stopped
                    'last': {k: info['encrypted-ram']['recent-rounds'][-1][k]
                             for k in ('private-pages', 'shared-pages',
                                       'duration')}})
                print(results[-1], file=sys.stderr, flush=True)
    show(results, a.limit)
    if a.json:
        with open(a.json, 'w', encoding='utf-8') as f:
            json.dump({'limit': a.limit, 'results': results}, f, indent=1)
            f.write('\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
