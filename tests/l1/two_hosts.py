#!/usr/bin/env python3
#
# Live migration of encrypted guests over a network between two emulated hosts,
# each with its own PSP and its own KVM.  Prints TAP on stdout and its progress
# on stderr:
#
#   scripts/l1-pair --lead [--kernel KERNEL,KERNEL] -- tests/l1/two_hosts.py [TEST...]
#
# Without names of tests, the program runs all classes except these:
#   Strangers            it needs hosts that are started with --strangers
#   BackAndForth         it takes long
#   Helper, HelperLinux  make check-helper runs them
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import signal
import subprocess
import sys
import threading
import time
import unittest

import migration
from sevmig import flipper, flow, guest, hosts, tap, tls, vm
from sevmig.guest import BOOT, MIGRATION
from sevmig.tap import note

PATIENCE = 300
MULTIFD = {'multifd': True}
# The host's memory must hold not only the guests' RAM but also the files in
# /run, so the guests are small
MEM = 192 * vm.MIB


class TwoHosts(migration.Base):
    """Tests with two hosts: @a, on which this program runs, and @b."""
    a = b = None
    DOWNTIME_MS = 2000
    text = ''           # the guest's consoles of the QEMUs that it has left

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # One pair of hosts serves all classes
        if not TwoHosts.a:
            TwoHosts.a, TwoHosts.b = hosts.pair()
            for h in TwoHosts.a, TwoHosts.b:
                note(f'{h.name}: {h.address}, Linux {h.release}, '
                     f'{h.kernel} KVM')

    @classmethod
    def launch_in(cls, host, config, incoming=False):
        """Launch a QEMU on @host; it is a destination if @incoming is true."""
        migration.Base.serial += 1
        v = host.launch(f'{"dst" if incoming else "src"}{cls.serial}',
                        config, incoming)
        cls.vms.append(v)
        return v

    def ready(self, source, host, info=None, config=None, downtime_ms=None,
              **capabilities):
        """
        Launch a destination on @host and prepare both sides; return the
        destination and the link to it.

        @info: the data of a platform that the source is given instead of those
               of the destination
        """
        destination = self.launch_in(host, config or source.config, True)
        flow.give_session_info(source, info or flow.info_for(source, destination))
        for v in source, destination:
            flow.set_up(v, downtime_ms=downtime_ms or self.DOWNTIME_MS,
                        **capabilities)
        source.get_qmp_events()
        return destination, flow.direct(destination)

    def refused(self, words, source, host, **kw):
        """
        Check that the migration of @source to @host fails, and that an error of
        one side contains all of @words.  The caller must check that the source
        continues to run the guest.
        """
        destination, link = self.ready(source, host, **kw)
        try:
            outcome = self.attempt(source, destination, link)
            note(f'{outcome.status}: {outcome.error}')
            self.assertFalse(outcome.completed)
            self.assert_said([outcome.error, *source.complaints(),
                              *destination.complaints()], words)
        finally:
            destination.stop()

    def complete(self, source, destination, link):
        """Migrate, and end the source QEMU."""
        began = time.monotonic()
        rounds = [0]

        def progress(info):
            ram = info.get('ram', {})
            if ram.get('dirty-sync-count', 0) != rounds[0]:
                rounds[0] = ram['dirty-sync-count']
                note(f'round {rounds[0]}: {ram["remaining"] >> 10} KiB remain, '
                     f'expected downtime {info.get("expected-downtime")} ms')

        flow.start(source, link)
        outcome = flow.finish(source, destination, MIGRATION, progress)
        note(f'moved in {time.monotonic() - began:.1f} s, downtime '
             f'{outcome.downtime_ms} ms, {outcome.rounds} rounds, '
             f'{outcome.encrypted["private-pages"]} private and '
             f'{outcome.encrypted["shared-pages"]} shared pages')
        self.assertGreater(outcome.encrypted['private-pages'], 0)
        self.assertGreater(outcome.encrypted['shared-pages'], 0)
        self.assertEqual(outcome.encrypted['helper-pages'],
                         outcome.encrypted['private-pages']
                         if source.config.helper else 0)
        return outcome

    def started(self, source, link, rounds=1):
        """Start a migration and wait until round @rounds has begun."""
        flow.start(source, link)
        source.wait_for('rounds', lambda: source.cmd('query-migrate').get(
            'ram', {}).get('dirty-sync-count', 0) >= rounds, PATIENCE, 0.05)


class Cases:
    """
    The tests that each kind of guest undergoes.  The guest starts on host @a.
    self.guest is the QEMU that runs it, and self.host is the host of this QEMU.
    unittest runs the tests in the order of their names.
    """

    def other(self):
        return self.b if self.host is self.a else self.a

    def move(self, **kw):
        """Migrate the guest to the other host."""
        source = self.guest
        destination, link = self.ready(source, self.other(), **kw)
        outcome = self.complete(source, destination, link)
        type(self).text += source.console()
        type(self).guest, type(self).host = destination, self.other()
        self.assert_good()
        source.stop()
        return outcome

    def test_10_pdh_of_another_platform(self):
        """
        The source is given the PDH of its own platform as the destination's.
        """
        info = flow.info_for(self.guest, self.guest)
        destination = self.launch_in(self.other(), self.guest.config, True)
        self.assertNotEqual(flow.session_info(destination)['pdh'], info['pdh'])
        destination.stop()
        self.refused(['RECEIVE_START'], self.guest, self.other(), info=info)
        self.assert_good()

    def test_11_other_memory(self):
        """The destination refuses the guest, because it has less memory."""
        config = self.guest.config
        self.refused([], self.guest, self.other(),
                     config=config.change(mem=config.mem // 2))
        self.assert_good()

    def test_12_destination_is_killed(self):
        destination, link = self.ready(self.guest, self.other(), downtime_ms=1)
        self.started(self.guest, link)
        destination.stop()
        outcome = flow.wait(self.guest, PATIENCE)
        note(f'{outcome.status}: {outcome.error}')
        self.assertEqual(outcome.status, 'failed')
        self.assert_good()

    def test_13_cancel(self):
        for capabilities in {}, MULTIFD:
            destination, link = self.ready(self.guest, self.other(),
                                           downtime_ms=1, **capabilities)
            self.started(self.guest, link)
            self.guest.cmd('migrate_cancel')
            outcome = flow.wait(self.guest, PATIENCE)
            destination.stop()
            self.assertEqual(outcome.status, 'cancelled')
            self.assertEqual([e[0] for e in flow.session_events(
                self.guest, False)], ['opened', 'cancelled'])
            self.assert_good()

    def test_20_moves(self):
        self.move()

    def test_21_moves_back(self):
        self.move()

    def test_30_moves_with_multifd(self):
        self.move(**MULTIFD)

    def test_31_moves_back_with_multifd(self):
        self.move(**MULTIFD)


class Bare(Cases, TwoHosts):
    """A guest of a few KiB, which converts its pages all the time."""
    POLICY = 0
    HELPER = ''

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Each derived class launches its own guest.  Without these assignments,
        # it would inherit from its base class the console output (text) and
        # the host of the base class's guest.
        cls.text = ''
        cls.host = cls.a
        cls.guest = cls.launch_in(cls.a, flipper.config(
            cls.a.work, policy=cls.POLICY).change(helper=cls.HELPER))
        flipper.wait_passes(cls.guest, 2, PATIENCE)

    def assert_good(self):
        """
        Check that the guest runs, and that each page that it has checked had
        the contents that it had written.
        """
        self.assertEqual(self.guest.cmd('query-status')['status'], 'running')
        flipper.wait_more(self.guest, 2, PATIENCE)
        text = self.text + self.guest.console()
        seen = flipper.passes(text)
        self.assertEqual([p.number for p in seen], list(range(len(seen))))
        self.assertEqual({p.bad for p in seen}, {0})


class Policy(Bare):
    """
    The tests of Bare with policy SEV, for which the firmware checks the
    certificates of the destination.
    """
    POLICY = vm.POLICY_SEV


class Helper(Bare):
    """The same tests with the migration helper."""
    HELPER = 'on'
    # The emulated processor executes the helper's AES instructions slowly,
    # while the emulated firmware runs natively.  The helper therefore needs
    # more time for the last pages than the firmware.
    DOWNTIME_MS = 60000


class Linux(Cases, TwoHosts):
    """A guest with Debian's kernel and the workload of tests/guest."""
    HELPER = ''

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # A derived class would otherwise inherit the console output (text) of
        # the guest of its base class
        cls.text = ''
        cls.workload = guest.Workload('2b057', static_kib=4096,
                                      dynamic_kib=128, churn=True)
        cls.host = cls.a
        cls.guest = cls.launch_in(cls.a, vm.Config.from_env(
            cls.workload, cls.a.work, mem=MEM).change(helper=cls.HELPER))
        cls.guest.wait_ticks(3, BOOT)
        note(f'the guest has booted: {cls.guest.ticks()[-1]}')

    def assert_good(self):
        self.assertEqual(self.guest.cmd('query-status')['status'], 'running')
        self.guest.wait_ticks(len(self.guest.ticks()) + 3, PATIENCE)
        self.assertEqual(self.workload.problems(
            self.text + self.guest.console()), [])


class HelperLinux(Linux):
    """The same tests with the migration helper."""
    HELPER = 'on'
    DOWNTIME_MS = Helper.DOWNTIME_MS


class BackAndForth(Linux):
    """One guest migrates MOVES times between the two hosts."""
    MOVES = int(os.environ.get('MOVES', '10'))

    test_10_pdh_of_another_platform = test_11_other_memory = None
    test_12_destination_is_killed = test_13_cancel = None
    test_20_moves = test_21_moves_back = None
    test_30_moves_with_multifd = test_31_moves_back_with_multifd = None

    def test_moves(self):
        for n in range(self.MOVES):
            note(f'move {n + 1} of {self.MOVES}')
            self.move(**(MULTIFD if n % 4 > 1 else {}))


class Strangers(TwoHosts):
    """
    Tests for hosts that scripts/l1-pair --strangers has started: the PSP of
    host @a does not know the ARK of host @b.
    """

    def tearDown(self):
        # The next test needs the disk image, which only one QEMU can use
        for v in self.vms:
            v.stop()
        self.vms.clear()

    def test_control(self):
        """
        Control: a guest with policy 0 migrates, because the firmware checks no
        certificate.
        """
        source = self.launch_in(self.a, flipper.config(self.a.work))
        flipper.wait_passes(source, 2, PATIENCE)
        destination, link = self.ready(source, self.b)
        self.complete(source, destination, link)
        flipper.wait_more(destination, 2, PATIENCE)
        self.assertEqual({p.bad for p in flipper.passes(
            source.console() + destination.console())}, {0})

    def test_policy_sev(self):
        """The firmware of host @a does not send a guest with policy SEV."""
        source = self.launch_in(self.a, flipper.config(
            self.a.work, policy=vm.POLICY_SEV))
        flipper.wait_passes(source, 2, PATIENCE)
        destination = self.launch_in(self.b, source.config, True)
        self.assertNotEqual(source.amd_cert(), destination.amd_cert())
        destination.stop()
        self.refused(['SEND_START', 'INVALID_CERTIFICATE'], source, self.b)
        self.assertEqual(source.cmd('query-status')['status'], 'running')
        flipper.wait_more(source, 2, PATIENCE)
        self.assertEqual(flipper.last(source).bad, 0)


class Tool(TwoHosts):
    """
    sev-migrate migrates a guest with policy SEV.  The tests execute each step
    of an operator, from the host files to the end of the source's QEMU.
    """
    AMD = '--amd', '$SEV_AMD_CERT', '--cek', '$SEV_AMD_CEK'
    PORT = 4444

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        shared = cls.a.disks
        cls.ark = '--ark', '$SEV_AMD_CERT'
        cls.files = {h.name: os.path.join(shared, f'{h.name}.json')
                     for h in (cls.a, cls.b)}
        cls.tls = os.path.join(shared, 'tls')
        os.makedirs(cls.tls)
        tls.make(cls.tls, 'host-b')
        cls.qmp = os.path.join(cls.a.work, 'tool.qmp')
        cls.source = cls.launch_in(cls.a, flipper.config(
            cls.a.work, policy=vm.POLICY_SEV,
            extra=['-qmp', f'unix:{cls.qmp},server=on,wait=off']))
        flipper.wait_passes(cls.source, 2, PATIENCE)

    def tool(self, host, want, *args):
        """
        Run sev-migrate on @host; check that its exit status is @want; return
        its output.
        """
        began = time.monotonic()
        status, out, err = host.sev_migrate(*args)
        note(f'{host.name}: sev-migrate {args[0]}: status {status}, '
             f'{time.monotonic() - began:.1f} s')
        self.assertEqual(status, want, out + err)
        return json.loads(out) if '--json' in args else out

    def arrival(self):
        """
        Launch a destination; return it and the arguments with which sev-migrate
        migrates the guest to it.
        """
        type(self).PORT += 1
        address = f'{self.b.address}:{self.PORT}'
        config = self.source.config.change(
            extra=['-qmp', f'tcp:{address},server=on,wait=off'])
        return self.launch_in(self.b, config, True), [
            'run', '--source', self.qmp, '--destination', address, *self.ark,
            '--json', '--host', self.files['host-b']]

    def good(self, v):
        flipper.wait_more(v, 2, PATIENCE)
        self.assertEqual({p.bad for p in flipper.passes(v.console())}, {0})

    def interrupt_migration(self):
        """Press Ctrl-C when the migration is under way."""
        self.source.wait_for('migration', lambda: self.source.cmd(
            'query-migrate').get('status') == 'active', PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)

    def test_1_files(self):
        for host in self.a, self.b:
            self.tool(host, 0, 'export', self.files[host.name], *self.AMD)
        # Each host verifies the other's file
        for host, other in (self.a, self.b), (self.b, self.a):
            self.tool(host, 0, 'verify', self.files[other.name], *self.ark)

    def test_2_check(self):
        answer = self.tool(self.a, 0, 'check', '--guest', self.qmp, '--tls',
                           self.tls, '--json')
        status = {c['check']: c['status'] for c in answer['checks']}
        self.assertEqual({status[n] for n in (
            '/dev/sev', 'firmware', 'KVM', 'QEMU', 'guest', 'policy',
            'consent', 'blocked', 'TLS client')}, {'ok'}, answer)
        # KVM locks no in-place memory, so the limit does not apply to it
        self.assertEqual(status.get('memlock'),
                         None if self.a.kernel == 'module' else 'ok', answer)

    def test_3_estimate(self):
        answer = self.tool(
            self.a, 0, 'estimate', '--guest', self.qmp, '--seconds', '1',
            '--pages-per-second', '10000', '--downtime', '20000', '--json')
        # This guest writes pages all the time
        self.assertGreater(answer['dirty-pages-per-second'], 0)
        # The sum can be larger than the guest's RAM, because QEMU also counts
        # the pages of other RAMBlocks, such as that of the guest's firmware
        self.assertGreaterEqual(
            answer['private-pages'] + answer['shared-pages'],
            self.source.config.mem // guest.PAGE)

    def test_4_refused_and_cancelled(self):
        destination, args = self.arrival()
        wrong = [self.files['host-a'] if a == self.files['host-b'] else a
                 for a in args]
        _, _, said = self.a.sev_migrate(*wrong)
        self.assertIn('export it again there', said)
        interrupts = threading.Thread(target=self.interrupt_migration)
        interrupts.start()
        # With these limits the migration cannot converge
        answer = self.tool(self.a, 5, *args, '--downtime', '1', '--bandwidth',
                           '200K')
        interrupts.join()
        self.assertIn('running at the source', answer['text'])
        destination.stop()
        self.good(self.source)

    def test_5_run(self):
        destination, args = self.arrival()
        answer = self.tool(
            self.a, 0, *args, '--tls', self.tls, '--tls-hostname', 'host-b',
            '--multifd', '2', '--downtime', '2000', '--time-limit', '200',
            '--on-limit', 'stop', '--quit')
        self.assertTrue(answer['verified'])
        moved = answer['query-migrate']
        note(f'moved in {moved["total-time"]} ms, setup '
             f'{moved["setup-time"]} ms, downtime {moved["downtime"]} ms, '
             f'{moved["ram"]["dirty-sync-count"]} rounds')
        self.assertGreater(moved['encrypted-ram']['private-pages'], 0)
        self.assertGreater(moved['ram']['multifd-bytes'], 0)
        self.assertNotIn('warning', moved['encrypted-ram'])
        self.source.wait_for_end(PATIENCE)
        self.good(destination)


class Root(unittest.TestCase):
    """
    The file tree of the emulated host is the root of its mount namespace, not a
    chroot.
    """

    @staticmethod
    def root_of(*command):
        return subprocess.run([*command, 'stat', '-c', '%d:%i', '/'],
                              check=True, text=True,
                              stdout=subprocess.PIPE).stdout

    def test_setns(self):
        """
        A process that enters a mount namespace with setns() has this root.
        """
        here = self.root_of()
        self.assertEqual(self.root_of('nsenter', '--mount=/proc/1/ns/mnt'),
                         here)
        self.assertEqual(self.root_of('unshare', '--mount', 'nsenter',
                                      '--mount=/proc/1/ns/mnt'), here)

    def test_private_dev(self):
        """A mount namespace can have a /dev of its own, as libvirt makes it."""
        subprocess.run(['unshare', '--mount', 'sh', '-ec', '''
            mount -t tmpfs dev /mnt
            mknod /mnt/null c 1 3
            mount --move /mnt /dev
            test "$(ls /dev)" = null
            nsenter --mount=/proc/1/ns/mnt test -c /dev/sev'''], check=True)


def main():
    if 'L1_PEER' not in os.environ:
        tap.main('needs two hosts: run it with scripts/l1-pair --lead')
    if hosts.is_second():
        hosts.serve()
        return
    if len(sys.argv) == 1:
        sys.argv += ['Root', 'Bare', 'Policy', 'Tool', 'Linux']
    tap.main()


if __name__ == '__main__':
    main()
