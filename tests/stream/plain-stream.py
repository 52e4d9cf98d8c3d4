#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The stream of a plain guest is identical to that of the unpatched QEMU.

The unpatched QEMU is the distribution's qemu-system-x86_64 of the same version.
The guests do not run, their RAM is filled from a file, and the clock is fixed.  A
program therefore makes the same stream each time, with one exception: QEMU ends a
RAM section after 50 ms and begins another one.  This is rare with little RAM.  If
two streams differ, the test makes them again, a few times, and fails if they
differ each time.  Output: TAP.
"""
import filecmp
import os
import random
import subprocess
import sys
import tempfile
import time

from monitor import Qmp

OURS, THEIRS = '/b/qemu/qemu-system-x86_64', '/usr/bin/qemu-system-x86_64'
TRIES = 8
FIRMWARE = ['-L', '/usr/share/seabios', '-L', '/usr/share/qemu']


def stream(qemu, machine, capabilities, ram, out):
    """Migrate a stopped guest whose RAM holds the file @ram to the file @out"""
    with tempfile.TemporaryDirectory() as d:
        with subprocess.Popen(
                [qemu, *FIRMWARE, '-nodefaults', '-no-user-config',
                 '-display', 'none', '-S', '-accel', 'tcg', '-machine', machine,
                 '-cpu', 'qemu64', '-m', '16', '-rtc',
                 'base=2026-01-01T00:00:00,clock=vm',
                 '-device', f'loader,file={ram},addr=0x400000,force-raw=on',
                 '-qmp', f'unix:{d}/qmp,server=on,wait=off'],
                stdin=subprocess.DEVNULL) as proc:
            try:
                with Qmp(f'{d}/qmp', proc) as q:
                    q.cmd('migrate-set-capabilities', capabilities=[
                        {'capability': c, 'state': True} for c in capabilities])
                    q.cmd('migrate', uri=f'file:{out}')
                    while True:
                        info = q.cmd('query-migrate')
                        if info['status'] == 'completed':
                            break
                        if info['status'] == 'failed':
                            raise RuntimeError(info.get('error-desc'))
                        time.sleep(0.05)
                    q.cmd('quit')
            finally:
                proc.kill()


def main():
    version = [subprocess.run([q, '--version'], capture_output=True, text=True,
                              check=True).stdout.split()[3] for q in (OURS, THEIRS)]
    if version[0] != version[1]:
        print(f'1..0 # SKIP ours is QEMU {version[0]}, the '
              f'distribution\'s is {version[1]}: not the same to compare')
        return 0
    cases = [(m, c) for m in ('pc-q35-10.0', 'pc-i440fx-10.0')
             for c in ([], ['multifd'], ['mapped-ram'], ['xbzrle'])
             # A file supports multifd only together with mapped-ram
             if c != ['multifd']]
    cases.append(('pc-q35-10.0', ['mapped-ram', 'multifd']))
    print(f'1..{len(cases) + 2}')
    bad = 0
    number = 0

    def check(ok, what):
        nonlocal bad, number
        number += 1
        bad += not ok
        print(f'{"ok" if ok else "not ok"} {number} - {what}', flush=True)

    with tempfile.TemporaryDirectory() as d:
        content = random.Random(1).randbytes(4 << 20) + bytes(1 << 20)
        for name, data in (('ram', content), ('ram2', b'x' + content[1:])):
            with open(f'{d}/{name}', 'wb') as f:
                f.write(data)
        for machine, caps in cases:
            for _ in range(TRIES):
                stream(OURS, machine, caps, f'{d}/ram', f'{d}/ours')
                stream(THEIRS, machine, caps, f'{d}/ram', f'{d}/theirs')
                same = filecmp.cmp(f'{d}/ours', f'{d}/theirs', shallow=False)
                if same:
                    break
            check(same, f'{machine} {"+".join(caps) or "plain"}: same stream')
            os.remove(f'{d}/theirs')
        stream(OURS, 'pc-q35-10.0', [], f'{d}/ram', f'{d}/ours')
        check(os.path.getsize(f'{d}/ours') > 4 << 20, 'the stream has the RAM')
        same = False
        for _ in range(TRIES):
            stream(OURS, 'pc-q35-10.0', [], f'{d}/ram2', f'{d}/theirs')
            same |= filecmp.cmp(f'{d}/ours', f'{d}/theirs', shallow=False)
        check(not same, 'control: one other byte of RAM, another stream')
    return 1 if bad else 0


sys.exit(main())
