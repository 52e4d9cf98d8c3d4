#!/usr/bin/env python3
#
# Debian's libvirt migrates encrypted guests between two emulated hosts, with
# AppArmor in enforce mode and with QEMUs that are not root's.  Prints TAP on
# stdout and its progress on stderr:
#
#   scripts/in-root --root tests/run libvirt KERNEL[,KERNEL] [TEST...]
#
# Without names of tests, the program runs all classes except Helper, which needs
# L1_CACHE_CHECK=count.  "make check-libvirt" runs all tests.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from sevmig import BUILD, REPO, counter, domain, flash, guest, hosts, tap, tls, virthost
from sevmig.tap import note
from sevmig.virthost import SHARED, uri
from sevmigrate import chain, hostcheck
from sevmigrate.domain import Domain
from sevmigrate.errors import Refused, Stop

# Timeouts in seconds, long enough for a busy machine
STEP, MIGRATION = 120, 600
COUNTER = f'{SHARED}/counter.fd'
POLICY_SEV = 0x21
DOWNTIME_MS = 5000
# AppArmor's profile of a guest has the name of the domain's UUID
CONFINED = re.compile(r'libvirt-[0-9a-f-]{36} \(enforce\)')


def virsh(host, *args, timeout=MIGRATION):
    """Run virsh with the libvirt of @host; return (exit status, output)."""
    began = time.monotonic()
    p = subprocess.run(['virsh', '--connect', uri(host), *args], text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=timeout, check=False)
    note(f'{host.name}: virsh {" ".join(args)}: status {p.returncode}, '
         f'{time.monotonic() - began:.1f} s'
         + (f': {p.stdout.strip()}' if p.returncode else ''))
    return p.returncode, p.stdout


def wait_for(what, condition, timeout=STEP, poll=0.2):
    """Wait until @condition() is true, and return its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f'no {what} in {timeout} s')
        time.sleep(poll)


class Guest:
    """
    A domain on one of two hosts.

    @host, @other: the host that runs the guest, and the other host
    @left: what the guest has printed on the hosts that it has left
    """

    def __init__(self, host, other, config):
        self.host, self.other = host, other
        self.config, self.name = config, config.name
        self.left = []
        self._began = len(host.console(self.name))
        self._next = 0
        self._monitor = None

    def consoles(self):
        """Return all that the guest has printed, as a list of texts."""
        return [*self.left, self.host.console(self.name)[self._began:]]

    def state(self, host=None):
        """Return the state of the domain on @host, '' if it has none."""
        status, out = virsh(host or self.host, 'domstate', self.name)
        return '' if status else out.strip()

    def cmd(self, command, **arguments):
        """Execute a QMP command of the QEMU that runs the guest."""
        if not self._monitor:
            self._monitor = Domain(uri(self.host), self.name)
        return self._monitor.cmd(command, **arguments)

    def hang_up(self):
        if self._monitor:
            self._monitor.close()
        self._monitor = None

    def session_info(self):
        """Return the arguments of migrate-set-sev-info for the other host."""
        status, out = virsh(self.other, 'nodesevinfo')
        if status:
            raise AssertionError(f'nodesevinfo: {out}')
        info = dict(re.findall(r'^(\S+)\s*: (\S+)$', out, re.M))
        exported = base64.b64decode(info['cert-chain'])
        if self.config.policy & 0x20:
            exported = chain.splice(exported, self.other.amd_cek())
        return {'pdh': info['pdh'],
                'plat-cert': base64.b64encode(exported).decode(),
                'amd-cert': base64.b64encode(self.other.amd_cert()).decode()}

    def set_downtime(self, milliseconds):
        status, out = virsh(self.host, 'migrate-setmaxdowntime', self.name,
                            str(milliseconds))
        if status:
            raise AssertionError(out)

    def prepare_arrival(self):
        """
        Find out what the console of the other host already has from an earlier
        stay.
        """
        self._next = len(self.other.console(self.name))

    def _command(self, *options):
        self.prepare_arrival()
        return ['migrate', '--live', *options, self.name, uri(self.other)]

    def migrate(self, *options, downtime_ms=DOWNTIME_MS):
        """
        Let virsh migrate the guest; return its (exit status, output).  If the
        migration has succeeded, the caller must call arrived().
        """
        self.cmd('migrate-set-sev-info', **self.session_info())
        self.set_downtime(downtime_ms)
        self.hang_up()
        return virsh(self.host, *self._command(*options))

    def start_migration(self, *options):
        """
        Start a migration that cannot complete until its downtime limit is
        raised.  Returns the process of virsh, which the caller waits for.
        """
        self.cmd('migrate-set-sev-info', **self.session_info())
        self.set_downtime(1)
        # With the smallest bandwidth, 1 MiB/s, the two private pages that the
        # guest writes all the time take longer than the downtime limit
        process = subprocess.Popen(
            ['virsh', '--connect', uri(self.host),
             *self._command('--bandwidth', '1', *options)],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            wait_for('private pages on their way', lambda: self.migration().get(
                'encrypted-ram', {}).get('private-pages', 0) > 0 or
                process.poll() is not None)
            if process.poll() is not None:
                raise AssertionError(process.communicate()[0])
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return process

    def migration(self):
        """Return the answer of query-migrate; {} if QEMU does not answer."""
        try:
            return self.cmd('query-migrate')
        except (Refused, Stop):
            return {}

    def arrived(self):
        """The guest now runs on the other host."""
        self.hang_up()
        wait_for('end of the source', lambda: self.host.pid(self.name) is None)
        # virtlogd may still write what QEMU has printed last
        text, before = self.host.console(self.name), None
        while text != before:
            time.sleep(0.5)
            text, before = self.host.console(self.name), text
        self.left.append(text[self._began:])
        self.host, self.other = self.other, self.host
        self._began = self._next

    def end(self):
        """Remove the domain from both hosts."""
        self.hang_up()
        for host in self.host, self.other:
            virsh(host, 'destroy', self.name)
            virsh(host, 'undefine', self.name, '--nvram')


class Base(unittest.TestCase):
    """Base of the tests with the hosts @a and @b."""
    a = b = None
    # Name of a host -> number of AppArmor's denials that have been reported
    denied = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # One pair of hosts serves all classes
        if Base.a:
            return
        Base.a, Base.b = hosts.pair(virthost.VirtHost)
        flash.write(COUNTER, counter.CODE)
        for host in cls.a, cls.b:
            wait_for(f'libvirt of {host.name}', lambda h=host: not virsh(
                h, 'version')[0], MIGRATION, 2)
            note(f'{host.name}: {host.address}, Linux {host.release}, '
                 f'{host.kernel} KVM')

    def setUp(self):
        note(self.id())

    def tearDown(self):
        for host in self.a, self.b:
            for line in self.new_denials(host):
                note(f'{host.name}: {line}')

    def new_denials(self, host):
        """Return what AppArmor has denied on @host since the last call."""
        found = host.denials()
        before = self.denied.get(host.name, 0)
        self.denied[host.name] = len(found)
        return found[before:]

    def virsh(self, host, *args):
        """Run virsh, which must succeed; return its output."""
        status, out = virsh(host, *args)
        self.assertEqual(status, 0, out)
        return out

    def assert_said(self, text, words):
        for word in words:
            self.assertIn(word.lower(), text.lower())

    # The domain

    def start(self, config, host=None):
        """Define and start a domain on @host (default: @a)."""
        host = host or self.a
        path = f'{SHARED}/{config.name}.xml'
        with open(path, 'w', encoding='utf-8') as f:
            f.write(domain.describe(config))
        g = Guest(host, self.b if host is self.a else self.a, config)
        self.virsh(host, 'define', path)
        status, out = virsh(host, 'start', config.name)
        self.assertEqual(status, 0, out + host.log(config.name)[-2000:])
        return g

    def counter(self, name, **kw):
        """Start the counting guest on host @a."""
        kw.setdefault('in_place', self.a.kernel == 'module')
        g = self.start(domain.Config(name, loader=COUNTER, **kw))
        self.assert_good(g)
        return g

    def assert_good(self, g, lines=3):
        """
        Check that the guest prints @lines more numbers, and that its numbers
        have no gap and no repetition.
        """
        self.assertEqual(g.state(), 'running', g.host.log(g.name)[-2000:])
        before = len(g.consoles()[-1])
        wait_for('counting guest', lambda: len(g.consoles()[-1]) >
                 before + 9 * lines)
        try:
            note(f'{counter.counted(g.consoles())} numbers')
        except ValueError as e:
            self.fail(f'the guest is not right: {e}')

    def assert_only_here(self, g):
        """
        Check that only the host of @g has the guest: in libvirt, as a process
        and in the firmware.
        """
        self.assertEqual(g.state(), 'running')
        self.assertIn(g.state(g.other), ('', 'shut off'))
        self.assertIsNone(g.other.pid(g.name))
        wait_for('end of the firmware context',
                 lambda: g.other.firmware_guests() == 0)
        self.assertEqual(g.host.firmware_guests(), 1)

    def assert_confined(self, g):
        """QEMU has a profile of its own and is not root's."""
        profile, user = g.host.confinement(g.name)
        note(f'{g.host.name}: QEMU is {user}, AppArmor: {profile}')
        self.assertRegex(profile, CONFINED)
        self.assertEqual(user, 'libvirt-qemu')

    def move(self, g, *options, **kw):
        """Migrate @g to the other host, and check all."""
        status, out = g.migrate(*options, **kw)
        self.assertEqual(status, 0, out + g.other.log(g.name)[-2000:])
        g.arrived()
        self.assert_only_here(g)
        self.assert_confined(g)
        self.assert_good(g)

    def stays(self, g):
        """Check that the guest still runs where it was."""
        self.assert_only_here(g)
        self.assert_good(g)


class Hosts(Base):
    """The two hosts, without a guest."""

    def test_10_libvirtd(self):
        """libvirtd is confined, and confines its guests."""
        for host in self.a, self.b:
            profile, user = host.confinement()
            self.assertEqual((profile, user), ('libvirtd (enforce)', 'root'))
            caps = self.virsh(host, 'capabilities')
            self.assertIn('<model>apparmor</model>', caps)
            version = self.virsh(host, 'version')
            note(version.replace('\n', '; '))

    def test_20_domcapabilities(self):
        for host in self.a, self.b:
            caps = self.virsh(host, 'domcapabilities')
            sev = re.search(r"<sev supported='yes'>.*?</sev>", caps, re.S)
            self.assertIsNotNone(sev, caps)
            self.assertIn(f'<cbitpos>{os.environ["SEV_CBITPOS"]}</cbitpos>',
                          sev[0])
            self.assertIn('<reducedPhysBits>1</reducedPhysBits>', sev[0])

    def test_21_nodesevinfo(self):
        """Each host has the certificates of its own platform."""
        seen = set()
        for host in self.a, self.b:
            info = dict(re.findall(r'^(\S+)\s*: (\S+)$', self.virsh(
                host, 'nodesevinfo'), re.M))
            self.assertEqual(info['cbitpos'], os.environ['SEV_CBITPOS'])
            self.assertEqual(info['reduced-phys-bits'], '1')
            self.assertEqual(len(base64.b64decode(info['pdh'])), chain.CERT)
            self.assertEqual(len(base64.b64decode(info['cert-chain'])),
                             3 * chain.CERT)
            seen |= {info['pdh'], info['cert-chain']}
        self.assertEqual(len(seen), 4)

    def test_30_check(self):
        """sev-migrate finds the rule for AppArmor that the manual requires."""
        for host in self.a, self.b:
            _, out, err = host.sev_migrate('check', '--json')
            status = {c['check']: c['status'] for c in json.loads(out)['checks']}
            self.assertEqual(status.get('AppArmor'), 'ok', out + err)


class Define(Base):
    """Domains of each kind start and end."""

    def defined(self, name, backend, **kw):
        g = self.counter(name, **kw)
        try:
            self.assert_confined(g)
            self.assert_only_here(g)
            memory, = (m for m in g.cmd('query-memdev')
                       if m.get('id') == 'pc.ram')
            note(str(memory))
            kind = g.cmd('qom-get', path='/objects/pc.ram', property='type')
            self.assertEqual(kind, backend)
            # With the stock kernel, memory-backend-memfd is ordinary memory
            self.assertEqual(
                g.host.has_in_place_memory(name, memory['size']),
                g.config.in_place and g.host.kernel == 'module')
            sev = g.cmd('query-sev')
            self.assertEqual(sev['state'], 'running')
            return sev
        finally:
            g.end()
            wait_for('end of the firmware context',
                     lambda: self.a.firmware_guests() == 0)

    def test_10_ordinary_memory(self):
        self.defined('ordinary', 'memory-backend-ram', in_place=False)

    def test_11_in_place_memory(self):
        self.defined('in-place', 'memory-backend-memfd', in_place=True)

    def test_20_helper(self):
        sev = self.defined('helped', 'memory-backend-ram', in_place=False,
                           helper=True)
        self.assertIn('helper', sev['migration'])

    def test_21_helper_in_place(self):
        sev = self.defined('helped-in-place', 'memory-backend-memfd',
                           in_place=True, helper=True)
        self.assertIn('helper', sev['migration'])

    def test_30_example(self):
        """
        For the example of sev-migration-tools, libvirt selects the firmware
        with the variable store in which Linux agrees to be migrated.
        """
        self.virsh(self.a, 'define', self.copy_of_example())
        try:
            xml = self.virsh(self.a, 'dumpxml', '--inactive', 'sev-guest')
            self.assertIn('/usr/share/sev-migrate/OVMF_VARS_4M.sev.fd', xml)
            self.assertIn('/usr/share/OVMF/OVMF_CODE_4M.fd', xml)
        finally:
            self.virsh(self.a, 'undefine', 'sev-guest', '--nvram')

    def test_40_control_rule(self):
        """
        Control: AppArmor confines QEMU, so without the rule that the manual
        requires no guest starts.
        """
        rules = hostcheck.APPARMOR[1]
        self.a.write(rules, b'')
        self.addCleanup(self.a.write, rules,
                        f'{hostcheck.APPARMOR_RULE}\n'.encode())
        self.new_denials(self.a)
        path = f'{SHARED}/no-rule.xml'
        with open(path, 'w', encoding='utf-8') as f:
            f.write(domain.describe(domain.Config('no-rule', loader=COUNTER)))
        self.virsh(self.a, 'define', path)
        self.addCleanup(self.virsh, self.a, 'undefine', 'no-rule', '--nvram')
        status, out = virsh(self.a, 'start', 'no-rule')
        self.assertNotEqual(status, 0, out)
        self.assertIn('name="/dev/sev"', '\n'.join(self.new_denials(self.a)))

    @staticmethod
    def copy_of_example():
        return shutil.copy(domain.EXAMPLE, f'{SHARED}/example.xml')


class WithGuest(Base):
    """
    Base of tests with one guest.  Each test ends with a check that the guest is
    right.  If it does not get there, @clean remains false, and the next test
    starts a new guest.
    """
    KIND = {}
    guest = None
    clean = False

    def setUp(self):
        super().setUp()
        g = type(self).guest
        if g and not self.clean:
            g.end()
            g = None
        if not g:
            g = self.counter(type(self).__name__.lower(), **self.KIND)
        type(self).guest, type(self).clean = g, False

    def assert_good(self, g, lines=3):
        super().assert_good(g, lines)
        type(self).clean = True

    @classmethod
    def tearDownClass(cls):
        if cls.guest:
            cls.guest.end()
        cls.guest = None
        super().tearDownClass()


class Moves(WithGuest):
    """Migrations that succeed, each from the host that the last one reached."""

    def test_10_native(self):
        self.move(self.guest)

    def test_11_native_back(self):
        self.move(self.guest)

    def test_20_p2p(self):
        self.move(self.guest, '--p2p')

    def test_30_parallel(self):
        self.move(self.guest, '--parallel', '--parallel-connections', '2')

    def test_40_tls(self):
        top = f'{SHARED}/tls'
        os.makedirs(top, exist_ok=True)
        tls.make(top, self.a.name, self.b.name)
        for host in self.a, self.b:
            host.install_tls(top)
        self.move(self.guest, '--tls')
        self.move(self.guest, '--tls', '--parallel')

    def test_50_undefine_source(self):
        self.move(self.guest, '--persistent', '--undefinesource')
        self.assertEqual(self.guest.state(self.guest.other), '')


class Ordinary(Moves):
    """The same with ordinary memory, where the host can have in-place memory."""
    KIND = {'in_place': False}


class Policy(Moves):
    """The same with a policy for which the firmware checks the certificates."""
    KIND = {'policy': POLICY_SEV}


class Helper(WithGuest):
    """The migration helper packs the private pages."""
    KIND = {'helper': True}

    def test_10_there_and_back(self):
        for _ in range(2):
            self.move(self.guest, downtime_ms=60000)
            moved = self.guest.cmd('query-sev')['migration']['helper']
            note(str(moved))
            self.assertGreater(moved['pages'], 0)

    def test_20_parallel(self):
        self.move(self.guest, '--parallel', downtime_ms=60000)


class Storage(Base):
    """The hosts share no storage: libvirt copies the disk."""
    SIZE = 4 << 20

    def test_copy(self):
        path = f'{virthost.IMAGES}/storage.raw'
        data = os.urandom(self.SIZE)
        self.a.write(path, data)
        self.b.write(path, bytes(self.SIZE))
        self.assertNotEqual(self.a.digest(path), self.b.digest(path))
        g = self.counter('storage', disk=path)
        self.addCleanup(g.end)
        self.move(g, '--copy-storage-all')
        self.assertEqual(self.b.digest(path), self.a.digest(path))
        self.a.write(path, bytes(self.SIZE))
        self.move(g, '--copy-storage-all')
        self.assertEqual(self.b.digest(path), self.a.digest(path))


class Job(WithGuest):
    """Commands of virsh for the migration job."""

    def test_10_domjobinfo(self):
        g = self.guest
        process = g.start_migration()
        info = self.virsh(g.host, 'domjobinfo', g.name)
        note(re.sub(r'\s+', ' ', info))
        self.assertRegex(info, r'Operation:\s+Outgoing migration')
        self.assertRegex(info, r'Data remaining:\s+\d')
        g.set_downtime(DOWNTIME_MS)
        out, _ = process.communicate(timeout=MIGRATION)
        self.assertEqual(process.returncode, 0, out)
        g.arrived()
        self.assert_only_here(g)
        self.assert_good(g)
        info = self.virsh(g.host, 'domjobinfo', g.name, '--completed')
        self.assertRegex(info, r'Job type:\s+Completed')
        self.assertRegex(info, r'Total downtime:\s+\d')

    def test_20_domjobabort(self):
        """The second try succeeds."""
        g = self.guest
        process = g.start_migration()
        self.virsh(g.host, 'domjobabort', g.name)
        out, _ = process.communicate(timeout=MIGRATION)
        self.assertNotEqual(process.returncode, 0)
        note(out.strip())
        self.stays(g)
        self.move(g)


class Refusals(WithGuest):
    """What cannot work fails with a sentence on which a user of virsh can act."""

    def refused(self, words, *command):
        status, out = virsh(self.guest.host, *command)
        self.assertNotEqual(status, 0, out)
        self.assert_said(out, words)
        self.stays(self.guest)

    def test_10_save(self):
        self.refused(['virsh migrate --live'], 'save', self.guest.name,
                     '/var/lib/libvirt/qemu/x.save')

    def test_11_managedsave(self):
        self.refused(['virsh migrate --live'], 'managedsave', self.guest.name)

    def test_12_dump(self):
        self.refused(['virsh migrate --live'], 'dump', self.guest.name,
                     '/var/lib/libvirt/qemu/x.dump')

    def try_migrate(self, words, *options):
        status, out = self.guest.migrate(*options)
        self.assertNotEqual(status, 0, out)
        self.assert_said(out, words)
        self.stays(self.guest)

    def test_20_tunnelled(self):
        self.try_migrate(['virsh migrate --live', 'without --tunnelled'],
                         '--p2p', '--tunnelled')

    def test_30_postcopy(self):
        self.try_migrate(['postcopy', 'without'], '--postcopy')

    def test_40_no_certificates(self):
        """Without certificates; the sentence names the command that sets them."""
        # This QEMU has started and has not migrated, so it has none
        g = self.guest
        g.end()
        type(self).guest = g = self.counter('refusals')
        status, out = virsh(g.host, 'migrate', '--live', g.name, uri(g.other))
        self.assertNotEqual(status, 0, out)
        self.assert_said(out, ['migrate-set-sev-info'])
        self.stays(g)

    def test_90_moves_then(self):
        self.move(self.guest)


class Finish(WithGuest):
    """
    The source's QEMU has completed the migration, and the destination does not
    start the guest.  The guest runs on the source, and can be migrated again.
    """
    DISK = f'{SHARED}/finish.raw'
    KIND = {'disk': DISK}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(cls.DISK, 'wb') as f:
            f.truncate(4 << 20)

    @contextlib.contextmanager
    def completed(self):
        """
        Let the source complete a migration while the destination's libvirtd is
        stopped and cannot start the guest.  The body of the with statement then
        causes the failure.
        """
        g = self.guest
        process = g.start_migration()
        try:
            g.other.signal(signal.SIGSTOP)
            g.cmd('migrate-set-parameters', **{'downtime-limit': 20000})
            wait_for('completed migration', lambda: g.migration().get(
                'status') == 'completed', MIGRATION, 0.05)
            yield
            out, _ = process.communicate(timeout=MIGRATION)
            note(out.strip())
            self.assertNotEqual(process.returncode, 0)
        finally:
            process.kill()
            if g.other.pid() is not None:
                g.other.signal(signal.SIGCONT)

    def runs_on_and_moves(self):
        """The source has the guest again; a second try succeeds."""
        g = self.guest
        wait_for('resumed guest', lambda: g.state() == 'running')
        if g.other.pid() is None:
            g.other.start_libvirtd()
            wait_for('libvirt again', lambda: not virsh(g.other, 'version')[0])
        wait_for('end of the destination',
                 lambda: g.other.pid(g.name) is None)
        self.stays(g)
        self.move(g)

    def test_10_qemu_is_killed(self):
        g = self.guest
        with self.completed():
            g.other.signal(signal.SIGKILL, g.name)
            g.other.signal(signal.SIGCONT)
        self.runs_on_and_moves()

    def test_20_libvirtd_is_killed(self):
        with self.completed():
            self.guest.other.signal(signal.SIGKILL)
        self.runs_on_and_moves()

    def test_30_both_are_killed(self):
        g = self.guest
        with self.completed():
            g.other.signal(signal.SIGKILL)
            g.other.signal(signal.SIGKILL, g.name)
        self.runs_on_and_moves()

    def test_40_cont_is_refused(self):
        """The destination's QEMU cannot activate the disk."""
        g = self.guest
        process = g.start_migration()
        g.other.lock(self.DISK)
        try:
            g.set_downtime(20000)
            out, _ = process.communicate(timeout=MIGRATION)
        finally:
            g.other.unlock()
            process.kill()
        note(out.strip())
        self.assertNotEqual(process.returncode, 0)
        self.assert_said(out + g.other.log(g.name), ['lock'])
        self.runs_on_and_moves()


class Linux(Base):
    """Linux with the firmware that libvirt selects for the example."""

    def test_moves(self):
        disk = f'{SHARED}/linux.raw'
        with open(disk, 'wb') as f:
            f.truncate(4 << 20)
        for name in 'vmlinuz', 'initrd.gz':
            shutil.copy(f'{BUILD}/guest/{name}', SHARED)
        work = guest.Workload('virsh', static_kib=4096, dynamic_kib=128)
        g = self.start(domain.Config(
            'linux', mem_mib=192, disk=disk,
            in_place=self.a.kernel == 'module',
            linux=(f'{SHARED}/vmlinuz', f'{SHARED}/initrd.gz',
                   'console=ttyS0 panic=-1 loglevel=3 nowatchdog ' +
                   work.cmdline())))
        self.addCleanup(g.end)

        def good():
            text = ''.join(g.consoles())
            self.assertEqual(work.problems(text), [])

        def more():
            before = len(guest.ticks(g.consoles()[-1]))
            wait_for('ticks', lambda: len(guest.ticks(g.consoles()[-1])) >
                     before + 2, guest.BOOT, 1)
            good()

        more()
        for options in (), ('--p2p',):
            status, out = g.migrate(*options)
            self.assertEqual(status, 0, out + g.other.log(g.name)[-2000:])
            g.arrived()
            self.assert_only_here(g)
            more()


class Tool(Base):
    """sev-migrate migrates a domain, with certificates that it verifies."""

    def test_run(self):
        files = {}
        for host in self.a, self.b:
            files[host.name] = f'{SHARED}/{host.name}.json'
            status, out, err = host.sev_migrate(
                'export', files[host.name], '--amd', '$SEV_AMD_CERT', '--cek',
                '$SEV_AMD_CEK')
            self.assertEqual(status, 0, out + err)
        g = self.counter('tool', policy=POLICY_SEV)
        self.addCleanup(g.end)
        for _ in range(2):
            arguments = ['run', '--domain', g.name, '--connect', uri(g.host),
                         '--destination', uri(g.other), '--host',
                         files[g.other.name], '--ark', '$SEV_AMD_CERT',
                         '--downtime', str(DOWNTIME_MS), '--json']
            g.prepare_arrival()
            g.hang_up()
            status, out, err = self.a.sev_migrate(*arguments)
            self.assertEqual(status, 0, out + err)
            g.arrived()
            self.assert_only_here(g)
            self.assert_good(g)


class Manual(Base):
    """The procedure of the manual's page about libvirt, word by word."""
    PAGE = f'{REPO}/docs/system/i386/sev-libvirt.rst'
    # scripts/build/libvirt prepares the hosts, and Hosts.test_30 runs the check
    DONE = ('apt install', "echo '/dev/sev rw,'", 'sev-migrate check')

    def commands(self):
        """Return (host, command) of all commands of the page that are not DONE."""
        with open(self.PAGE, encoding='utf-8') as f:
            text = f.read()
        marked = [(host, line[5:]) for host, block in re.findall(
            r'^\.\. run on (host-[ab])\n\n\.\. code-block:: console\n\n'
            r'((?:   # .*\n)+)', text, re.M) for line in block.splitlines()]
        self.assertEqual(
            [line for line in re.findall(r'^ +# (.*)', text, re.M)
             if not line.startswith(self.DONE)],
            [line for _, line in marked], 'a command does not name its host')
        return marked

    @staticmethod
    def emulated(command):
        """Return @command as it must be on emulated hosts."""
        if command.startswith(('sev-migrate verify', 'sev-migrate run')):
            command += ' --ark ask_ark_milan.cert'
        # The emulated hosts have no sshd
        return command.replace('qemu+ssh:', 'qemu+tcp:')

    def test_procedure(self):
        work = f'{SHARED}/manual'
        os.makedirs(work)
        config = domain.Config('sev-guest', loader=COUNTER, policy=POLICY_SEV,
                               in_place=self.a.kernel == 'module')
        for name, data in (('guest.xml', domain.describe(config).encode()),
                           ('cek.cert', self.b.amd_cek()),
                           ('ask_ark_milan.cert', self.b.amd_cert())):
            self.a.write(f'{work}/{name}', data)
        g = Guest(self.a, self.b, config)
        self.addCleanup(g.end)
        moves = 0
        for name, command in self.commands():
            if g.host is self.b:
                self.move(g)
            g.prepare_arrival()
            host = self.a if name == self.a.name else self.b
            note(f'{name}: {command}')
            status, out = host.shell(self.emulated(command), work)
            self.assertEqual(status, 0, out)
            if re.match('sev-migrate run|virsh migrate ', command):
                moves += 1
                g.arrived()
                self.assert_only_here(g)
                self.assert_good(g)
        self.assertEqual(moves, 2, 'sev-migrate and virsh')


def main():
    if 'L1_PEER' not in os.environ:
        tap.main('needs two hosts: run it with tests/run libvirt')
    if hosts.is_second():
        hosts.serve(virthost.VirtHost)
        return
    if len(sys.argv) == 1:
        # The classes in the order of this file
        sys.argv += ['Hosts', 'Define', 'Moves', 'Ordinary', 'Policy',
                     'Storage', 'Job', 'Refusals', 'Finish', 'Linux', 'Tool',
                     'Manual']
    tap.main()


if __name__ == '__main__':
    main()
