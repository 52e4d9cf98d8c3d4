#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of "sev-migrate check", "estimate" and "vars", and of the connection to a
monitor.
"""

import datetime
import json
import os
import resource
import socket
import subprocess
import tempfile
import threading
from unittest import mock

import fakes
from fakes import Qemu
from sevmig import tap, tls
from sevmig.fixture import ToolCase
from sevmigrate import (
    domain, estimate, firmware, guestcheck, hostcheck, monitor, varstore)
from sevmigrate.errors import Refused, Stop

BUILD = os.environ.get('BUILD', '/b')
QEMU = f'{BUILD}/bin/qemu-system-x86_64'
GIB = 1 << 30


class HostCase(ToolCase):
    """Tests that replace the files of the host by files below self.top."""

    def setUp(self):
        super().setUp()
        self.system = hostcheck.System(self.top)
        self.write('/dev/sev', '')
        self.write('/sys/module/kvm_amd/parameters/sev', 'Y')
        self.write('/proc/sys/kernel/osrelease', '7.3.4')
        self.write('/sys/fs/cgroup/misc.capacity', 'sev 8\nsev_es 4')
        self.write('/sys/fs/cgroup/misc.current', 'sev 3\nsev_es 4')
        self.status = firmware.Status((1, 55), 21, 2, False, True, 3)
        patch = mock.patch('sevmigrate.firmware.platform_status',
                           side_effect=lambda: self.status)
        patch.start()
        self.addCleanup(patch.stop)

    def write(self, path, text):
        path = self.top + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='ascii') as f:
            f.write(text + '\n')

    def remove(self, path):
        os.unlink(self.top + path)

    def item(self, name, status, words='', **kw):
        """
        Check that the Item @name has @status and that its text has @words.
        """
        found = hostcheck.firmware_items(self.system, **kw) + \
            hostcheck.host_items(self.system)
        i, = [i for i in found if i.name == name]
        self.assertEqual(i.status, status, i)
        self.assertIn(words, i.text)
        # Each Item that is not good advises the user what to do
        self.assertEqual(bool(i.advice), status != hostcheck.GOOD, i)


class Host(HostCase):
    def test_good(self):
        self.item('/dev/sev', 'ok')
        self.item('firmware', 'ok', '1.55 build 21')
        self.item('KVM', 'ok', "7.3.4, the kernel's own module")
        self.item('ASIDs', 'ok', '5 of 8')

    def test_device(self):
        self.remove('/dev/sev')
        self.item('/dev/sev', 'bad', 'does not exist')
        self.write('/dev/sev', '')
        with mock.patch('os.access', return_value=False):
            self.item('/dev/sev', 'bad', 'cannot read')

    def test_firmware(self):
        self.status.state = 0
        self.item('firmware', 'bad', 'not initialised')
        self.status.state = 1
        self.item('firmware', 'ok', 'initialised')
        self.item('firmware', 'bad', 'too old', min_api=(1, 56))
        self.item('firmware', 'bad', 'too old', min_build=22)
        self.item('firmware', 'ok', min_api=(1, 55), min_build=21)
        with mock.patch('sevmigrate.firmware.platform_status',
                        side_effect=OSError('no answer')):
            self.item('firmware', 'bad', 'no answer')

    def test_kvm(self):
        self.write('/sys/module/kvm/version', 'kvm-page-enc-0.1')
        self.item('KVM', 'ok', 'module kvm-page-enc-0.1')
        self.write('/sys/module/kvm_amd/parameters/sev', 'N')
        self.item('KVM', 'bad', 'does not support')
        self.remove('/sys/module/kvm_amd/parameters/sev')
        self.item('KVM', 'bad', 'not loaded')

    def test_asids(self):
        self.write('/sys/fs/cgroup/misc.current', 'sev 8')
        self.item('ASIDs', 'bad', 'all 8 are used')
        self.write('/sys/fs/cgroup/misc.current', 'garbage')
        self.item('ASIDs', 'warn', 'not known')
        self.remove('/sys/fs/cgroup/misc.current')
        self.item('ASIDs', 'warn', 'not known')

    def test_apparmor(self):
        """Debian 13's profile has no rule for /dev/sev.  The rule can be in
        the profile or in the file for local additions."""
        self.write('/sys/module/apparmor/parameters/enabled', 'Y')
        main, local = hostcheck.APPARMOR
        self.write(main, '  /dev/kvm rw,\n  # /dev/sev rw,')
        self.item('AppArmor', 'warn', 'denies')
        self.write(local, hostcheck.APPARMOR_RULE)
        self.item('AppArmor', 'ok')
        self.remove(local)
        self.write(main, '  /dev/sev rw,')
        self.item('AppArmor', 'ok')
        self.write('/sys/module/apparmor/parameters/enabled', 'N')
        self.assertNotIn('AppArmor', [
            i.name for i in hostcheck.firmware_items(self.system)])

    def test_qemu(self):
        i, = hostcheck.qemu_items('/nowhere/qemu')
        self.assertEqual(i.status, 'bad')
        for properties, status, words in (
                ('  migration=<OnOffAuto>', 'ok', '10.0.13'),
                ('  migration=<x>\n  migration-helper=<y>', 'ok', 'helper'),
                ('  policy=<x>', 'bad', 'cannot migrate')):
            with mock.patch('sevmigrate.hostcheck._ask_qemu',
                            side_effect=['QEMU emulator version 10.0.13 (D)\n',
                                         properties]):
                i, = hostcheck.qemu_items('qemu')
                self.assertEqual(i.status, status)
                self.assertIn(words, i.text)

    def test_real_qemu(self):
        i, = hostcheck.qemu_items(QEMU)
        self.assertEqual(i.status, 'ok', i)

    def test_memlock(self):
        for limit, status in ((GIB, 'bad'), (2 * GIB, 'bad'),
                              (2 * GIB + hostcheck.PINNED_MORE, 'ok'),
                              (resource.RLIM_INFINITY, 'ok')):
            self.assertEqual(hostcheck.memlock_item(
                limit, 2 * GIB, 'QEMU').status, status)

    def test_tls(self):
        tls.make(self.top, 'host-b')
        self.assertEqual([i.status for i in hostcheck.tls_items(self.top)],
                         ['ok', 'ok'])
        other = tempfile.TemporaryDirectory()
        self.addCleanup(other.cleanup)
        tls.make(other.name, 'host-b')

        def wrong(name, data, words, ends):
            path = os.path.join(self.top, name)
            with open(path, 'rb') as f:
                right = f.read()
            with open(path, 'wb') as f:
                f.write(data)
            found = hostcheck.tls_items(self.top)
            self.assertEqual([i.status for i in found],
                             ['ok' if e else 'bad' for e in ends], found)
            self.assertIn(words, ''.join(i.text for i in found))
            with open(path, 'wb') as f:
                f.write(right)

        def of_other(name):
            with open(os.path.join(other.name, name), 'rb') as f:
                return f.read()

        wrong('ca-cert.pem', of_other('ca-cert.pem'), 'has not signed',
              (False, False))
        wrong('server-key.pem', of_other('server-key.pem'), 'is not the key',
              (True, False))
        wrong('client-cert.pem', b'garbage', 'cannot send', (False, True))
        wrong('client-key.pem', b'', 'cannot send', (False, True))
        later = datetime.datetime.now(datetime.timezone.utc) + \
            datetime.timedelta(days=9)
        with mock.patch('sevmigrate.hostcheck.datetime.datetime') as clock:
            clock.now.return_value = later
            self.assertIn('is valid from',
                          hostcheck.tls_items(self.top)[0].text)
        self.assertIn('No such file',
                      hostcheck.tls_items('/nowhere')[0].text)

    def test_sizes(self):
        for text, want in (('2G', 2 * GIB), ('512m', 512 << 20),
                           ('1TiB', 1 << 40), ('4096', 4096),
                           ('64KB', 64 << 10)):
            self.assertEqual(hostcheck.size(text), want)
        for text in ('', '0', '-1G', 'G', '1.5G', '2X', '9' * 20):
            with self.assertRaises(Exception):
                hostcheck.size(text)


class Guest(HostCase):
    """The Items of a guest, and the output of "sev-migrate check"."""

    def setUp(self):
        super().setUp()
        self.qemu = Qemu(None)

    def line(self, name, status, words=''):
        i, = [i for i in guestcheck.items(self.qemu) if i.name == name]
        self.assertEqual(i.status, status, i)
        self.assertIn(words, i.text)

    def test_good(self):
        self.line('guest', 'ok', 'running')
        self.line('consent', 'ok')
        self.line('blocked', 'ok')
        self.line('memory', 'ok', '1000 private and 50 shared')
        self.line('policy', 'warn', 'checks no certificate')
        self.line('TLS', 'warn')
        self.qemu.parameters['tls-creds'] = 'tls0'
        self.line('TLS', 'ok', 'tls0')

    def test_policies(self):
        sev = self.qemu.cmd('query-sev')
        for policy, status, words in (
                (0x21, 'ok', 'checks the destination'),
                (0x31, 'ok', 'same owner'), (0x09, 'bad', 'NOSEND'),
                (0x05, 'bad', 'ES')):
            self.qemu.answers['query-sev'] = {**sev, 'policy': policy}
            self.line('policy', status, words)

    def test_destination(self):
        self.qemu.state = 'inmigrate'
        self.line('guest', 'ok', 'can arrive')
        self.assertEqual(len(guestcheck.items(self.qemu)), 3)

    def test_memlock_of_qemu(self):
        self.qemu.pid = 42
        self.qemu.answers['query-memdev'] = [{'id': 'ram', 'size': 2 * GIB}]

        def lines(limit, capabilities='0000000000000000'):
            self.write('/proc/42/limits', 'Limit  Soft  Hard\nMax locked '
                       f'memory         {limit}    {limit}    bytes')
            self.write('/proc/42/status', f'CapEff:\t{capabilities}')
            return [i.status for i in
                    guestcheck.memlock_items(self.qemu, self.system)]

        self.assertEqual(lines(65536), ['warn'])
        self.assertEqual(lines(3 * GIB), ['ok'])
        self.assertEqual(lines('unlimited'), ['ok'])
        self.assertEqual(lines(65536, '0000000000004000'), ['ok'])
        self.qemu.answers['qom-get'] = 'on'
        self.assertEqual(lines(65536), [])
        self.qemu.pid = None
        self.assertEqual(lines(65536), [])

    def test_command(self):
        with mock.patch('sevmigrate.guest.Monitor', return_value=self.qemu), \
                mock.patch('sevmigrate.hostcheck.System',
                           return_value=self.system):
            args = 'check', '--guest', '/qmp', '--qemu', QEMU
            _, out, _ = self.tool(*args, '--json', status=0)
            answer = json.loads(out)
            self.assertTrue(answer['ready'])
            self.assertEqual({'ok', 'warn'},
                             {c['status'] for c in answer['checks']})
            self.qemu.answers['query-sev'] = {
                **self.qemu.cmd('query-sev'),
                'migration': {**fakes.READY, 'ready': False}}
            _, out, _ = self.tool(*args, status=1)
            self.assertIn('bad   consent', out)
            self.assertIn('-> ', out)
            self.qemu.answers['query-sev'] = {'enabled': False}
            self.tool(*args, status=1)
        self.fails(['no size'], 'check', '--memory', '2X', status=2)


class Estimate(ToolCase):
    def test_forecast(self):
        """Forecasts for guests that write no pages, few pages, or too many."""
        idle = estimate.Load(1000, 0, 0, 100, 1e9)
        found = estimate.forecast(idle, 0.3)
        self.assertTrue(found.converges)
        self.assertAlmostEqual(found.total, 10, 1)
        self.assertEqual((len(found.rounds), found.downtime), (1, 0))
        # While QEMU sends the pages of a round, the guest dirties half as many
        found = estimate.forecast(
            estimate.Load(1000, 0, 50, 100, 1e12), 0.3)
        self.assertTrue(found.converges)
        self.assertAlmostEqual(found.rounds[1][0], 5, 1)
        self.assertLessEqual(found.downtime, 0.3)
        self.assertAlmostEqual(found.total, 20, 0)
        found = estimate.forecast(
            estimate.Load(1000, 0, 200, 100, 1e12), 0.3)
        self.assertFalse(found.converges)
        self.assertAlmostEqual(found.downtime, 10, 1)
        # All memory can be sent within the downtime limit, without a round
        found = estimate.forecast(
            estimate.Load(10, 10, 1e9, 1000, 1e9), 0.3)
        self.assertEqual((found.converges, found.rounds), (True, []))

    def test_shared_pages_need_only_the_network(self):
        load = estimate.Load(0, 1000, 0, 1, 4096 * 1000)
        self.assertAlmostEqual(estimate.forecast(load, 0.1).total, 1, 2)

    def command(self, *args, status, dirty=1, **answers):
        qemu = Qemu(None, calc_dirty_rate={}, query_dirty_rate={
            'status': 'measured', 'dirty-rate': dirty}, **answers)
        with mock.patch('sevmigrate.guest.Monitor', return_value=qemu), \
                mock.patch.object(estimate, 'STEP', 0):
            got = self.tool('estimate', '--guest', '/qmp', *args,
                            status=status)
        return qemu, got[1], got[2]

    def test_command(self):
        qemu, out, _ = self.command('--json', status=1, dirty=2)
        answer = json.loads(out)
        self.assertEqual(answer['dirty-pages-per-second'], 512)
        self.assertEqual(answer['private-pages-per-second'], 260)
        self.assertIn('ASSUMED', ''.join(answer['notes']))
        self.assertTrue(answer['advice'])
        self.assertEqual(qemu.arguments('calc-dirty-rate'),
                         {'calc-time': 2, 'mode': 'dirty-bitmap'})
        _, out, _ = self.command('--pages-per-second', '20000', '--bandwidth',
                                 '1G', status=0)
        self.assertIn('It converges', out)
        _, out, _ = self.command(status=1, dirty=1000)
        self.assertIn('does NOT converge', out)
        self.assertIn('--on-limit stop', out)
        # "estimate" uses the rate of the last migration and QEMU's limit of the
        # bandwidth
        _, out, _ = self.command(status=0, dirty=0, query_migrate={
            'status': 'cancelled',
            'encrypted-ram': {'private-pages-per-second': 5000}},
            query_migrate_parameters={'max-bandwidth': 10**6,
                                      'downtime-limit': 100})
        self.assertIn('5000 private pages/s in the last migration', out)
        self.assertIn('max-bandwidth', out)

    def test_dirty_ring(self):
        """A QEMU with dirty rings refuses the mode dirty-bitmap."""
        def calc(mode, **_):
            return Refused('ring') if mode == 'dirty-bitmap' else {}
        qemu = Qemu(None, calc_dirty_rate=calc, query_dirty_rate={
            'status': 'measured', 'dirty-rate': 2})
        self.assertEqual(estimate.dirty_pages(qemu, 1), 512)

    def test_refusals(self):
        _, _, err = self.command(status=3, query_sev={'enabled': False})
        self.assertIn('not encrypted', err)
        _, _, err = self.command(status=3, query_migrate={'status': 'active'})
        self.assertIn('is active', err)
        qemu = Qemu(None, calc_dirty_rate=Refused('busy'))
        with self.assertRaisesRegex(Stop, 'busy'):
            estimate.dirty_pages(qemu, 1)
        for args in (['--seconds', '0'], ['--downtime', '-1'],
                     ['--pages-per-second', 'many'], ['--bandwidth', '1,5G']):
            self.command(*args, status=2)
        self.tool('estimate', status=2)
        self.tool('estimate', '--guest', '/x', '--domain', 'y', status=2)


class Monitors(ToolCase):
    """Connections to monitors, and to sockets that are not monitors."""

    def test_addresses(self):
        for text, want in (('/run/x.qmp', '/run/x.qmp'), ('x.qmp', 'x.qmp'),
                           ('unix:/x', '/x'), ('host:4444', ('host', 4444)),
                           ('tcp:host:1', ('host', 1)),
                           ('[fe80::1]:5', ('fe80::1', 5)),
                           (':4444', ('localhost', 4444)),
                           ('./a:b', './a:b')):
            self.assertEqual(monitor.parse(text), want)
        for text in ('host:', 'host:x', 'host:0', 'host:65536', 'tcp:host',
                     'tcp:/x'):
            with self.assertRaises(Stop):
                monitor.parse(text)

    def serve(self, data):
        """Return the path of a socket whose server sends @data to a client."""
        path = self.path('socket')
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(1)
        kept = []

        def answer():
            client, _ = server.accept()
            kept.append(client)
            if data is None:
                return
            client.sendall(data)
            client.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        self.addCleanup(server.close)
        self.addCleanup(lambda: [c.close() for c in kept])
        self.addCleanup(os.unlink, path)
        return path

    def test_no_monitor(self):
        for data in (b'', b'SSH-2.0\r\n', b'{}\n', b'[1]\n', b'{"QMP": 1}\n'):
            with self.case(data), self.assertRaisesRegex(Stop, 'monitor'):
                monitor.Monitor(self.serve(data))
            self.doCleanups()
            super().setUp()
        with mock.patch.object(monitor, 'TIMEOUT', 0.2), \
                self.assertRaisesRegex(Stop, 'another one may use it'):
            monitor.Monitor(self.serve(None))
        for address in '/nowhere/qmp', 'localhost:1', self.path('file', 'x'):
            with self.assertRaisesRegex(Stop, 'no QMP monitor'):
                monitor.Monitor(address)

    def test_real_qemu(self):
        """
        A real QEMU without SEV, which ends while the tool is connected.
        """
        path = self.path('qmp')
        with subprocess.Popen([
                QEMU, '-machine', 'none', '-display', 'none', '-qmp',
                f'unix:{path},server=on,wait=off', '-daemonize', '-pidfile',
                self.path('pid')]) as starter:
            self.assertEqual(starter.wait(), 0)
        with open(self.path('pid'), encoding='ascii') as f:
            pid = int(f.read())
        with monitor.Monitor(path) as qemu:
            self.assertEqual(qemu.pid, pid)
            self.assertIsNone(qemu.host)
            self.assertEqual(qemu.cmd('query-status')['status'], 'running')
            with self.assertRaisesRegex(Refused, 'not been found'):
                qemu.cmd('no-such-command')
        self.fails(['not encrypted'], 'estimate', '--guest', path)
        with monitor.Monitor(path) as qemu:
            try:
                qemu.cmd('quit')
                while True:
                    qemu.cmd('query-status')
            except Stop as e:
                self.assertIn('connection was lost', str(e))


class Vars(ToolCase):
    def test_variable(self):
        template = '/usr/share/OVMF/OVMF_VARS_4M.fd'
        out = self.path('vars.fd')
        self.tool('vars', template, out, status=0)
        self.assertEqual(os.path.getsize(out), os.path.getsize(template))
        said = subprocess.run(['virt-fw-vars', '-i', out, '--print'],
                              check=True, stdout=subprocess.PIPE, text=True)
        self.assertIn(varstore.NAME, said.stdout)
        # The tool must accept one file as both the template and the output, and
        # a template that already contains the variable
        self.tool('vars', out, out, status=0)
        self.assertEqual(os.listdir(self.top), ['vars.fd'])

    def test_wrong_templates(self):
        out = self.path('vars.fd')
        for name, data in (('empty', b''), ('zeroes', bytes(540672)),
                           ('text', b'no store')):
            with self.case(name):
                self.fails(['is this a variable store'], 'vars', self.path(name, data), out)
        self.fails(['no file'], 'vars', '/nowhere', out)
        with open('/usr/share/OVMF/OVMF_VARS_4M.fd', 'rb') as f:
            half = self.path('half', f.read()[:100000])
        self.fails(['changed the size'], 'vars', half, out)
        with mock.patch.object(varstore, 'TOOL', '/nowhere/tool'):
            self.fails(['python3-virt-firmware'], 'vars',
                       self.path('text'), out)
        self.assertFalse(os.path.exists(out))


class Libvirt(ToolCase):
    """Tests of sev-migrate's support of libvirt that need no libvirt."""

    def test_no_python3_libvirt(self):
        with mock.patch.object(domain, 'libvirt', None):
            self.fails(['python3-libvirt'], 'check', '--domain', 'x')


if __name__ == '__main__':
    tap.run()
