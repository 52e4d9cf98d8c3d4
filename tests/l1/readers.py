#!/usr/bin/env python3
#
# QEMU itself accesses a guest's memory for monitor commands, for gdb, for
# emulated devices, and for the dump after an error of KVM.  QEMU cannot read
# private pages of in-place memory.  These tests check that QEMU and the guest
# continue to run after QEMU has tried.  The tests run in the emulated SEV host
# and print TAP on stdout and the progress on stderr:
#
#   scripts/l1 [--kernel module|stock] -- tests/l1/readers.py [TEST...]
#
# The parts of QEMU that access the memory are the readers.
# docs/devel/migration-cases.rst lists the readers and their tests.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import re
import socket
import time

import bare
from bare import PATIENCE
from sevmig import BUILD, flipper, flow, guest, tap, vm
from sevmig.tap import note

# The constants of tests/guest/bare/flip.c
AREA, PAGES = 4 << 20, 1024
# Address of the guest's program, whose pages are always private
PROGRAM = 1 << 20
WARNING = re.compile(r'QEMU has accessed a private page')


class Gdb:
    """A client of QEMU's gdbstub."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.text = ''

    def ask(self, request):
        checksum = sum(request.encode()) & 0xff
        self.sock.sendall(f'${request}#{checksum:02x}'.encode())
        while True:
            found = re.search(r'\$([^#]*)#..', self.text)
            if found:
                self.text = self.text[found.end():]
                self.sock.sendall(b'+')
                return found[1]
            self.text += self.sock.recv(4096).decode('latin1')

    def close(self):
        self.sock.close()


class Readers(bare.Bare):
    """Monitor commands that read the guest's memory."""
    # The output of "xp" for zeros
    ZEROS = r'(?:[0-9a-f]+:(?: 0x0{16})+\s*)+'
    # What the readers get from private pages of in-place memory: zeros or an
    # error.  The guest's page tables are private, too, and QEMU reads zeros
    # instead of them.  Readers of virtual addresses therefore find no mapping.
    # gdb's write to a physical address gets the answer OK, but does not change
    # the page.
    IN_PLACE = {
        'dump': 'error: .*Bad address',
        'dump, paging': 'error: .*Bad address',
        'dump, kdump': r'\{\}',
        'pmemsave': 'zeros',
        'memsave': 'error: Invalid addr .*',
        'x': '.*Cannot access memory',
        'xp': ZEROS,
        'sum': '00000',
        'info mem': '',
        'info tlb': '',
        'gva2gpa': 'Unmapped',
        'gdb': re.escape(str(['E14', 'E14', 'E22', 'E22', 'OK', '0' * 32, 'OK',
                              'OK', 'OK'])),
    }
    # Control: ordinary memory has ciphertext in these pages
    ORDINARY = {
        'pmemsave': 'ciphertext',
        'xp': rf'(?!{ZEROS}\Z).*',
    }

    def hmp_line(self, line):
        return lambda v: self.hmp(v, line)

    def qmp(self, command, **args):
        return lambda v: v.cmd(command, **args)

    def sampling(self, v):
        v.cmd('calc-dirty-rate', **{'calc-time': 1, 'mode': 'page-sampling',
                                    'sample-pages': 512})
        v.wait_for('dirty rate', lambda: v.cmd('query-dirty-rate')['status']
                   == 'measured', PATIENCE)
        return v.cmd('query-dirty-rate')

    def gdb(self, v):
        path = f'{self.work}/{v.name}.gdb'
        self.hmp(v, f'gdbserver unix:{path},server=on,wait=off')
        g = Gdb(path)
        requests = [f'm{PROGRAM:x},10', f'M{AREA:x},1:00',
                    # a breakpoint in memory
                    f'Z0,{PROGRAM:x},1', f'z0,{PROGRAM:x},1',
                    'Qqemu.PhyMemMode:1', f'm{PROGRAM:x},10']
        if v.config.backend == vm.IN_PLACE:
            requests.append(f'M{PROGRAM:x},1:cc')
        requests += ['Qqemu.PhyMemMode:0', 'D']
        try:
            note(g.ask('?'))
            answers = [g.ask(r) for r in requests]
        finally:
            g.close()
        self.hmp(v, 'gdbserver none')
        return answers

    def pmemsave(self, v):
        path = f'{self.work}/saved'
        v.cmd('pmemsave', val=0, size=8 << 20, filename=path)
        with open(path, 'rb') as f:
            f.seek(PROGRAM)
            return 'ciphertext' if any(f.read(4096)) else 'zeros'

    def save_many(self, v):
        """Read pages while the guest converts them."""
        for _ in range(5):
            v.cmd('pmemsave', val=AREA, size=PAGES * 4096,
                  filename=f'{self.work}/saved')

    def readers(self):
        to = f'file:{self.work}/dump'
        return {
            'dump': self.qmp('dump-guest-memory', paging=False, protocol=to),
            'dump, paging': self.qmp('dump-guest-memory', paging=True,
                                     protocol=to),
            'dump, kdump': self.qmp('dump-guest-memory', paging=False,
                                    protocol=to, format='kdump-zlib'),
            'pmemsave': self.pmemsave,
            'memsave': self.qmp('memsave', val=PROGRAM, size=65536,
                                filename=f'{self.work}/saved'),
            'x': self.hmp_line(f'x /4gx {PROGRAM:#x}'),
            'x, instructions': self.hmp_line('x /4i $eip'),
            'xp': self.hmp_line(f'xp /4gx {PROGRAM:#x}'),
            'sum': self.hmp_line(f'sum {PROGRAM:#x} 65536'),
            'info mem': self.hmp_line('info mem'),
            'info tlb': self.hmp_line('info tlb'),
            'gva2gpa': self.hmp_line(f'gva2gpa {PROGRAM:#x}'),
            'gpa2hva': self.hmp_line(f'gpa2hva {PROGRAM:#x}'),
            'info registers': self.hmp_line('info registers'),
            'info mtree': self.hmp_line('info mtree -f'),
            'page sampling': self.sampling,
            'gdb': self.gdb,
            'pages that are converted': self.save_many,
        }

    def reads(self, config, results):
        """
        Let all readers read from a guest with @config, which must continue to
        run.  @results has the answers of some readers as regular expressions.
        Returns the VM.
        """
        v = self.boot(config)
        for name, read in self.readers().items():
            try:
                answer = str(read(v))
            except flow.ExecuteError as e:
                answer = f'error: {e}'
            note(f'{name}: {answer[:100]!r}')
            if name in results:
                self.assertRegex(answer.rstrip(),
                                 rf'(?s)\A(?:{results[name]})\Z', name)
            # The files are in a tmpfs and take as much memory as the guest
            for path in ('dump', 'saved'):
                if os.path.exists(f'{self.work}/{path}'):
                    os.unlink(f'{self.work}/{path}')
            self.assertTrue(v.is_running(), name)
            self.assertEqual(v.cmd('query-status')['status'], 'running', name)
            flipper.wait_more(v, 1, PATIENCE)
        return v

    def test_in_place(self):
        config = flipper.config(self.work)
        if config.backend != vm.IN_PLACE:
            self.skipTest('this kernel has no in-place memory')
        v = self.reads(config, self.IN_PLACE)
        self.good(v)
        self.assertEqual(len(WARNING.findall(v.log())), 1, v.complaints())
        # QEMU has read zeros instead of the private pages.  The migration must
        # still send their contents, which the firmware reads.
        destination, _ = self.move(v)
        self.good(v, destination)

    def test_ordinary_memory(self):
        """
        Control: QEMU can read all pages of ordinary memory.  gdb must not write
        here, because that would destroy a private page.
        """
        v = self.reads(flipper.config(self.work).change(backend=vm.ORDINARY),
                       self.ORDINARY)
        self.assertEqual(WARNING.findall(v.log()), [])


class Devices(bare.Bare):
    """Accesses by emulated devices, and for the dump after an error of KVM."""

    def test_access(self):
        config = vm.Config.from_env(guest.Workload('bare'), self.work,
                                    mem=16 * vm.MIB)
        if config.backend != vm.IN_PLACE:
            self.skipTest('this kernel has no in-place memory')
        v = self.launch('access', config.change(
            ovmf_code=f'{BUILD}/guest/access.fd'))
        v.wait_for('last step', lambda: 'trap' in v.console(), PATIENCE)
        end = time.monotonic() + 60
        while (v.cmd('query-status')['status'] == 'running' and
               time.monotonic() < end):
            time.sleep(0.1)
        note(repr(v.console()))
        self.assertEqual(v.console().splitlines(), [
            'private descriptor: ok', 'private target: ok',
            'shared target: ok', 'trap'])
        self.assertEqual(v.cmd('query-status')['status'], 'internal-error')
        self.assertIn('Code=', v.log())
        self.assertEqual(len(WARNING.findall(v.log())), 1, v.complaints())


class Plain(bare.Bare):
    """Guests that are not confidential, under KVM."""

    def test_queries(self):
        v = self.launch('plain', flipper.config(self.work).change(
            sev=False, extra=['-S']))
        for command in ('query-migrate', 'query-migrate-parameters',
                        'query-sev', 'query-sev-capabilities',
                        'query-sev-launch-measure', 'query-sev-platform'):
            try:
                note(f'{command}: {str(v.cmd(command))[:80]}')
            except flow.ExecuteError as e:
                note(f'{command}: {e}')
        for line in ('info migrate', 'info migrate_parameters', 'info sev',
                     'info sev-platform'):
            note(f'{line}: {self.hmp(v, line)[:80]!r}')
        answer = v.cmd('query-sev')
        self.assertFalse(answer['enabled'])
        self.assertNotIn('migration', answer)


if __name__ == '__main__':
    tap.main()
