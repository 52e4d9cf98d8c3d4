#!/usr/bin/env python3
#
# Live migration of an encrypted Linux guest, and migrations that must be refused.
# Runs in the emulated SEV host; TAP on stdout, progress on stderr:
#
#   scripts/l1 [--kernel module|stock] -- tests/l1/migration.py [TEST...]
#
# A guest takes half a minute to boot, so all tests of class Booted use the same
# guest.  Migrations that must be refused come first; the guest must still run
# after them.  Then come migrations that succeed, and last a control that
# destroys the guest.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from sevmig import flash, flow, guest, psp, scan, tap, vm
from sevmig.guest import BOOT, MIGRATION, TICKS
from sevmig.tap import note
from sevmigrate import relay, stream

OLD_QEMU = os.environ.get('OLD_QEMU', '/usr/bin/qemu-system-x86_64')
ANALYZE = [sys.executable, '-m', 'sevmig.analyze']


class Base(unittest.TestCase):
    """
    Base of tests that launch VMs.  Each class has a work directory.  When the
    tests of a class end, the class removes the directory and stops all VMs.
    """
    workload = None
    config = None
    vms = []
    serial = 0
    history = ''        # the consoles of the QEMUs that the guest has left

    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp(prefix='sev-test.', dir='/run')
        cls.vms = []
        cls.addClassCleanup(cls.clean_up)

    @classmethod
    def clean_up(cls):
        for v in cls.vms:
            v.stop()
        shutil.rmtree(cls.work)

    source = None

    def setUp(self):
        note(self.id())
        if self.source and not self.source.is_running():
            self.fail('the guest is gone since an earlier test')

    @classmethod
    def launch(cls, name, config, incoming=False):
        v = vm.VM(name, config, incoming)
        cls.vms.append(v)
        v.launch()
        return v

    @classmethod
    def another(cls, config):
        """Launch a new destination."""
        Base.serial += 1
        return cls.launch(f'dst{Base.serial}', config, incoming=True)

    @staticmethod
    def attempt(source, destination, link):
        """
        Migrate with flow.try_to_migrate() and close @link; return the Outcome.
        The migration need not succeed.
        """
        try:
            return flow.try_to_migrate(source, link, MIGRATION)
        finally:
            link.close()
            # Wait until a destination that fails has printed its error
            for _ in range(20):
                if not destination.is_running():
                    break
                time.sleep(0.1)

    def assert_runs(self, v, ticks=3):
        """
        Check that @v runs its guest, that the guest prints @ticks more ticks,
        and that its console shows no problem.
        """
        self.assertEqual(v.cmd('query-status')['status'], 'running')
        v.wait_ticks(len(v.ticks()) + ticks, TICKS)
        self.assertEqual(self.workload.problems(self.history + v.console()),
                         [])

    def assert_said(self, texts, words):
        """
        Check that one of @texts contains all of @words.  The case of letters
        does not matter.
        """
        for text in texts:
            if all(w.lower() in text.lower() for w in words):
                note(f'said: {text}')
                return
        self.fail(f'nobody said {words}, but: {texts}')

    @staticmethod
    def hmp(v, line):
        return v.cmd('human-monitor-command', {'command-line': line})

    def seen(self, source, destination, outcome, of, tally):
        """
        Check that QEMU's statistics, events and HMP agree with the recorded
        stream.
        """
        s = outcome.encrypted
        note(str({k: v for k, v in s.items() if k != 'recent-rounds'}))
        for key, value in {
                'private-pages': tally.total('private'),
                'unallocated-pages': tally.total('unallocated'),
                'private-bytes': tally.bytes['private'] +
                tally.bytes['unallocated'],
                'batches': tally.records['private'],
                'converted-pages': tally.converted,
                'shared-pages': tally.of_confidential(of) -
                tally.total('private') -
                tally.total('unallocated')}.items():
            self.assertEqual(s[key], value, key)
        self.assertLessEqual(s['platform-calls'], s['private-pages'] +
                             s['again-pages'] + 1)
        self.assertGreater(s['platform-time'], 0)
        self.assertLess(s['platform-time'], outcome.total_ms)
        self.assertEqual(s['remaining-private-pages'], 0)
        rounds = s['recent-rounds']
        self.assertEqual([r['round'] for r in rounds],
                         list(range(max(1, s['rounds'] - 15),
                                    s['rounds'] + 1)))
        if s['rounds'] == len(rounds):
            for key in rounds[0]:
                if key in s:
                    self.assertEqual(sum(r[key] for r in rounds), s[key], key)
        sent = s['private-pages']
        self.assertEqual(flow.session_events(source, False),
                         [('opened', 0), ('finished', sent)])
        self.assertEqual(flow.session_events(destination, True),
                         [('opened', 0), ('finished', sent)])
        text = self.hmp(source, 'info migrate')
        for line in text.splitlines():
            note(line)
        self.assertIn(f'private ram: {sent} pages', text)
        text = self.hmp(source, 'info sev')
        self.assertIn('migration: SEV: the guest has been sent', text)
        self.assertEqual(source.cmd('query-sev')['state'], 'sent')
        self.assertIn('migration: possible',
                      self.hmp(destination, 'info sev'))

    def with_channels(self, source, destination, **parameters):
        """Migrate with multifd; private and shared pages use the channels."""
        flow.prepare(source, destination, multifd=True)
        for v in (source, destination):
            v.cmd('migrate-set-parameters', **parameters)
        source.get_qmp_events()
        outcome = flow.migrate(source, destination, flow.direct(destination),
                               MIGRATION)
        note(f'{outcome.total_ms} ms, downtime {outcome.downtime_ms} ms, '
             f'{outcome.rounds} rounds, {outcome.ram}')
        sent = outcome.encrypted['private-pages']
        self.assertGreater(outcome.encrypted['shared-pages'], 0)
        self.assertGreater(outcome.ram['multifd-bytes'],
                           outcome.encrypted['private-bytes'])
        self.assertEqual(flow.session_events(destination, True),
                         [('opened', 0), ('finished', sent)])
        return outcome

    def assert_batched(self, source, destination):
        """
        Check how many pages QEMU passes to the kernel with one ioctl: many with
        the module, one with the stock kernel.
        """
        for v, way in ((source, 'send'), (destination, 'receive')):
            pages, calls = v.firmware_calls(way)
            note(f'{way}: {pages} pages in {calls} calls')
            if self.config.backend == vm.IN_PLACE:
                self.assertGreater(pages, 8 * calls)
            else:
                self.assertGreaterEqual(calls, pages)


class Unbooted(Base):
    """
    QEMU must refuse these migrations before the guest runs, so that the guest
    need not boot.
    """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.workload = guest.Workload('unbooted')
        cls.config = vm.Config.from_env(cls.workload, cls.work)

    def refused(self, name, words, **kw):
        """
        Check that the migration of a guest is refused, and that query-migrate
        reports the reason before, as libvirt expects.
        """
        source = self.launch(name, self.config.change(**kw))
        try:
            self.assert_said(source.cmd('query-migrate').get(
                'blocked-reasons', []), words)
            flow.give_session_info(source, flow.session_info(source))
            destination = self.another(self.config)
            try:
                for v in (source, destination):
                    flow.set_up(v)
                link = flow.connect(source, destination)
                outcome = self.attempt(source, destination, link)
                self.assertFalse(outcome.completed)
                self.assert_said([outcome.error, *source.complaints()], words)
                self.assertEqual(source.cmd('query-status')['status'],
                                 'running')
            finally:
                destination.stop()
        finally:
            source.stop()

    def test_policy_nosend(self):
        self.refused('nosend', ['NOSEND'], policy=vm.POLICY_NOSEND)

    def test_policy_es(self):
        """The register state of an SEV-ES guest cannot be sent."""
        with open('/sys/module/kvm_amd/parameters/sev_es',
                  encoding='ascii') as f:
            if f.read().strip() != 'Y':
                self.skipTest('the host has no SEV-ES')
        self.refused('es', ['register state of SEV-ES guests'],
                     policy=vm.POLICY_ES)

    def test_guest_has_not_agreed(self):
        self.refused('early', ['READY', 'SevLiveMigrationEnabled'])

    def test_switched_off(self):
        # With migration=off, QEMU refuses in-place memory, so this guest has
        # ordinary memory
        self.refused('off', ['migration=off'], backend=vm.ORDINARY,
                     helper='off,migration=off')


class Tiny(Base):
    """
    A guest with a hundred bytes of code in its flash device, which boots at
    once.  It agrees to be migrated and converts the same pages again and again.
    """
    CODE = bytes.fromhex(
        '66b9084d564b'      # mov ecx, MSR_KVM_MIGRATION_CONTROL
        '6631d2'            # xor edx, edx
        '66b801000000'      # mov eax, KVM_MIGRATION_READY
        '0f30'              # wrmsr
        # Convert one page to shared and do not convert it back, so that the
        # stream has a shared page
        '66b80c000000'      # mov eax, KVM_HC_MAP_GPA_RANGE
        '66bb00004000'      # mov ebx, 4 MiB
        '66b901000000'      # mov ecx, 1 page
        '6631d2'            # xor edx, edx
        '0f01d9'            # vmmcall
        '6631f6'            # xor esi, esi
        # again:
        '66b80c000000'      # mov eax, KVM_HC_MAP_GPA_RANGE
        '66bb00002000'      # mov ebx, 2 MiB
        '66b910000000'      # mov ecx, 16 pages
        '6689f2'            # mov edx, esi
        '0f01d9'            # vmmcall
        '6683f610'          # xor esi, KVM_MAP_GPA_RANGE_ENCRYPTED
        '66ff060010'        # inc dword [0x1000]
        '31c9'              # xor cx, cx
        'e2fe'              # loop for 65536 times
        'ebd9')             # jmp again

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        path = os.path.join(cls.work, 'tiny.fd')
        flash.write(path, cls.CODE)
        cls.config = vm.Config.from_env(guest.Workload('tiny'), cls.work,
                                        mem=32 * vm.MIB).change(ovmf_code=path)

    def tearDown(self):
        # The next test needs the disk image, which only one QEMU can use
        for v in self.vms:
            v.stop()

    def tiny(self, name):
        v = self.launch(name, self.config)
        flow.wait_agreed(v, 60)
        v.wait_for('a shared page', lambda: v.cmd('query-sev')['migration'][
            'shared-pages'], 60)
        return v

    def test_multifd(self):
        source = self.tiny('tiny-multifd')
        destination = self.another(self.config)
        with open(os.path.join(self.work, 'keys.psk'), 'w',
                  encoding='ascii') as f:
            f.write('qemu:8a41c07b2f53e6d9905b6e14c7fa2d38\n')
        for v, end in ((source, 'client'), (destination, 'server')):
            v.cmd('object-add', **{'qom-type': 'tls-creds-psk', 'id': 'tls',
                                   'endpoint': end, 'dir': self.work})
        self.with_channels(source, destination,
                           **{'multifd-channels': 3, 'tls-creds': 'tls'})

    def test_other_c_bit(self):
        """The destination refuses a guest whose source has another C-bit."""
        source = self.tiny('tiny-c-bit')
        destination = self.another(self.config)
        flow.give_session_info(source, flow.session_info(destination))

        def tamper(record):
            raw = bytearray(record.raw)
            if record.kind == 'session':
                raw[-int.from_bytes(raw[24:28], 'big') + 1] ^= 1
            return bytes(raw)

        for v in (source, destination):
            flow.set_up(v)
        link = flow.connect(source, destination, tamper=tamper)
        outcome = self.attempt(source, destination, link)
        self.assertFalse(outcome.completed)
        words = ['C-bit of the incoming guest', 'of this host']
        self.assert_said(destination.complaints(), words)
        # The source reports the reason, too
        self.assertTrue(outcome.error.startswith('destination: '),
                        outcome.error)
        self.assert_said([outcome.error], words)
        self.assertEqual(source.cmd('query-status')['status'], 'running')

    def test_seen(self):
        source = self.tiny('tiny')
        self.assertIn('migration: possible', self.hmp(source, 'info sev'))
        self.assertNotIn('blocked-reasons', source.cmd('query-migrate'))
        destination = self.another(self.config)
        # Until the guest has arrived, the destination does not know whether
        # the guest agrees to be migrated, so it must not report that the guest
        # does not agree
        self.assertNotIn('blocked-reasons', destination.cmd('query-migrate'))
        flow.prepare(source, destination)
        recorded = os.path.join(self.work, 'stream')
        link = flow.connect(source, destination, record=recorded)
        outcome = flow.migrate(source, destination, link, MIGRATION)
        link.close()
        self.seen(source, destination, outcome, *stream.read_file(recorded))
        p = subprocess.run([*ANALYZE, '--sev', recorded], text=True, check=False,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(p.returncode, 0, p.stdout)
        self.assertIn('READY', p.stdout)


class Booted(Base):
    """All tests of this class use one booted Linux guest."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # On the stock kernel, use one vCPU, because a guest with two vCPUs has
        # once reported a stuck CPU there.  The cause was not found.  It may be
        # the load: the machine was busy, and the stock kernel must issue a
        # firmware command for each private page.
        cpus = 2 if os.environ.get('IN_L1') == 'module' else 1
        # The workload is small, because there are many migrations
        cls.workload = guest.Workload('5e7d', static_kib=4096, dynamic_kib=128,
                                      churn=True, cpus=cpus)
        cls.config = vm.Config.from_env(cls.workload, cls.work,
                                        mem=192 * vm.MIB, trace=[
                                            'sev_migration_send_final',
                                            'sev_migration_receive_final'],
                                        extra=['-device', 'virtio-balloon-pci,'
                                               'id=balloon,disable-legacy=on,'
                                               'iommu_platform=on'])
        cls.source = cls.launch('src', cls.config)
        cls.source.wait_ticks(3, BOOT)
        note(f'the guest has booted: {cls.source.ticks()[-1]}')

    def refusal(self, words, info=True, config=None, capabilities=None, **kw):
        """
        Check that a migration fails, that an error of one side contains all of
        @words, and that the source continues to run the guest.  @kw is passed
        to the relay.  Returns the destination.
        """
        destination = self.another(config or self.config)
        try:
            if info is True:
                info = flow.session_info(destination)
            try:
                if info:
                    flow.give_session_info(self.source, info)
                for v in (self.source, destination):
                    flow.set_up(v, **(capabilities or {}))
                link = flow.connect(self.source, destination, **kw)
                outcome = self.attempt(self.source, destination, link)
            except flow.ExecuteError as e:
                outcome = flow.Outcome('refused', str(e))
            if capabilities:
                flow.set_up(self.source, **dict.fromkeys(capabilities, False))
            note(f'{outcome.status}: {outcome.error}')
            self.assertFalse(outcome.completed)
            self.assert_said([outcome.error, *self.source.complaints(),
                              *destination.complaints()], words)
            self.assert_runs(self.source)
        finally:
            destination.stop()
        return destination

    # The tests of this class depend on their order.  unittest runs them in the
    # order of their names, so the names have numbers.

    def test_05_seen_before(self):
        """Read query-sev and info sev before the guest is migrated."""
        info = self.source.cmd('query-sev')['migration']
        note(str(info))
        self.assertTrue(info['offered'])
        self.assertTrue(info['ready'])
        self.assertNotIn('blocked', info)
        self.assertGreater(info['private-pages'], 0)
        self.assertGreater(info['shared-pages'], 0)
        self.assertGreaterEqual(
            (info['private-pages'] + info['shared-pages']) * stream.PAGE,
            self.config.mem)
        self.assertIn('migration: possible', self.hmp(self.source, 'info sev'))

    def test_06_balloon(self):
        """
        Linux in an SEV guest does not accept a balloon device: devices of an
        SEV guest must use DMA addresses, but a balloon uses physical addresses.
        """
        path = '/machine/peripheral/balloon/virtio-backend'
        status = self.source.cmd('x-query-virtio-status', path=path)['status']
        self.assertIn('VIRTIO_CONFIG_S_FAILED', str(status))
        self.source.cmd('balloon', value=self.config.mem // 2)
        self.assert_runs(self.source)
        self.assertEqual(self.source.cmd('query-balloon')['actual'],
                         self.config.mem)

    def test_10_no_session_info(self):
        self.refusal(['not set', 'migrate-set-sev-info'], info=None)

    def test_11_info_is_no_certificate(self):
        destination = self.another(self.config)
        info = flow.session_info(destination)
        destination.stop()
        for name, bad, why in (
                ('pdh', 'AAAA', '3 bytes, expected 2084'),
                ('pdh', '!' * 2000, 'base64'),
                ('plat-cert', info['pdh'], '2084 bytes, expected 6252'),
                ('amd-cert', info['pdh'], 'certificate ASK')):
            self.refusal([f"certificate '{name}'", why], info={**info, name: bad})

    def test_12_pdh_of_another_platform(self):
        destination = self.another(self.config)
        info = flow.session_info(destination)
        destination.stop()
        psp.new_identity()
        destination = self.another(self.config)
        self.assertNotEqual(flow.session_info(destination)['pdh'],
                            info['pdh'])
        destination.stop()
        self.refusal(['RECEIVE_START'], info=info)

    def test_13_old_destination(self):
        if not os.path.exists(OLD_QEMU):
            self.skipTest(f'no QEMU without the records at {OLD_QEMU} '
                          '(package qemu-system-x86)')
        machine = self.source.cmd('qom-get', path='/machine', property='type')
        machine = machine.removesuffix('-machine')
        if machine not in subprocess.check_output(
                [OLD_QEMU, '-machine', 'help'], text=True).split():
            self.skipTest(f'{OLD_QEMU} has no machine type {machine}')
        self.refusal(['0x100'], config=self.config.change(
            qemu=OLD_QEMU, backend='ram'))

    def test_14_destination_is_not_encrypted(self):
        destination = self.another(self.config)
        info = flow.session_info(destination)
        destination.stop()
        self.refusal(['confidential guest support'], info=info,
                     config=self.config.change(sev=False))

    def test_16_postcopy(self):
        self.refusal(['postcopy'], capabilities={'postcopy-ram': True})

    def cut(self, kind, number):
        """Cut the connection before record @number of @kind."""
        seen = [0]

        def tamper(record):
            seen[0] += record.kind == kind
            if seen[0] == number:
                raise relay.Cut
            return record.raw

        self.refusal([], tamper=tamper)
        self.assertEqual(seen[0], number, 'the stream was not cut')

    def test_20_cut_before_anything(self):
        self.refusal([], cut_at=100)

    def test_21_cut_at_the_session(self):
        self.cut('session', 1)

    def test_22_cut_among_private_pages(self):
        self.cut('private', 200)

    def test_23_cut_among_shared_pages(self):
        self.cut('plain', 50)

    def test_24_cut_at_the_state(self):
        self.cut('state', 1)

    def test_25_cut_among_devices(self):
        self.cut('rest', 1)

    def tampered(self, change, words, kind='private', number=20):
        """
        Check that a migration fails if the relay changes record @number of
        @kind with the function @change, and that an error of one side contains
        all of @words.  Returns (destination, record).
        """
        seen, changed = [0], []

        def tamper(record):
            seen[0] += record.kind == kind
            if seen[0] != number or changed:
                return record.raw
            changed.append(record)
            raw = bytearray(record.raw)
            change(raw)
            note(f'{kind} record at byte {record.position}, {len(raw)} bytes: '
                 f'{record.raw[8:48].hex()} becomes {raw[8:48].hex()}')
            return bytes(raw)

        destination = self.refusal(words, tamper=tamper)
        self.assertTrue(changed, 'nothing was changed')
        return destination, changed[0]

    def test_30_one_bit_of_a_private_page(self):
        def flip(raw):
            raw[-100] ^= 0x04

        destination, record = self.tampered(
            flip, ['RECEIVE_UPDATE_DATA', 'BAD_MEASUREMENT',
                   'changed on its way'])
        # The bit that flip() has changed is in the last page of the record
        page = record.offset + (record.count - 1) * stream.PAGE
        self.assert_said(destination.complaints(),
                         ['BAD_MEASUREMENT', record.block, f'{page:#x}'])

    def test_31_block_that_is_not(self):
        def block(raw):
            raw[16:20] = b'\0\0\7\7'
        self.tampered(block, ['record for block 1799'])

    def test_32_offset_outside(self):
        def offset(raw):
            raw[24:32] = (1 << 40).to_bytes(8, 'big')
        self.tampered(offset, ['private pages', 'whole ones below'])

    def test_33_count_of_zero(self):
        def count(raw):
            raw[20:24] = bytes(4)
        self.tampered(count, ['record of 0 private pages'])

    def test_34_length_over_the_limit(self):
        def length(raw):
            raw[12:16] = b'\xff' * 4
        self.tampered(length, ['bytes, expected'])

    def test_35_moved_page(self):
        """The relay changes the offset of a private page."""
        def move(raw):
            at = int.from_bytes(raw[24:32], 'big')
            raw[24:32] = (at ^ 0x100000).to_bytes(8, 'big')
        # The MAC does not cover the address of a page, so RECEIVE_UPDATE_DATA
        # succeeds.  The destination detects the error when it reads the state
        # records.
        self.tampered(move, ['block', 'offset'])

    def test_36_state_that_lies(self):
        def lie(raw):
            raw[16 + 24] ^= 0x10
        self.tampered(lie, ['at the source but came as'], kind='state',
                      number=1)

    def test_40_cancel(self):
        destination = self.another(self.config)
        flow.prepare(self.source, destination)
        link = flow.connect(self.source, destination)
        self.source.get_qmp_events()    # drop the events of earlier attempts
        flow.start(self.source, link)
        while self.source.cmd('query-migrate').get('ram', {}).get(
                'transferred', 0) < 20 << 20:
            time.sleep(0.1)
        self.source.cmd('migrate_cancel')
        outcome = flow.wait(self.source, MIGRATION)
        link.close()
        destination.stop()
        self.assertEqual(outcome.status, 'cancelled')
        events = flow.session_events(self.source, False)
        note(str(events))
        self.assertEqual([e[0] for e in events], ['opened', 'cancelled'])
        self.assertEqual(events[0][1], 0)
        self.assertGreater(events[1][1], 0)
        self.assert_runs(self.source)

    def hop(self, **kw):
        """
        Migrate the guest to a new destination.  Returns the former source, the
        destination, the link and the Outcome.
        """
        source, destination = self.source, self.another(self.config)
        flow.prepare(source, destination)
        link = flow.connect(source, destination, **kw)
        source.get_qmp_events()
        outcome = flow.migrate(source, destination, link, MIGRATION)
        note(f'{outcome.total_ms} ms, downtime {outcome.downtime_ms} ms, '
             f'{outcome.rounds} rounds')
        Booted.history += source.console()
        Booted.source = destination
        return source, destination, link, outcome

    def test_50_migrates(self):
        recorded = os.path.join(self.work, 'stream')
        churned = len(guest.CHURN.findall(self.source.console()))
        source, destination, link, outcome = self.hop(record=recorded)
        churned = len(guest.CHURN.findall(self.history)) - churned
        self.assertGreater(churned, 0, 'no conversion while it migrated')
        self.assert_runs(destination, 10)
        self.assert_batched(source, destination)
        link.close()
        marks = {'private': self.workload.private_marker,
                 'shared': self.workload.shared_marker}
        found = {'stream': scan.file(recorded, marks),
                 'source': scan.process(source.get_pid(), marks),
                 'destination': scan.process(destination.get_pid(), marks)}
        note(str(found))
        of, tally = stream.read_file(recorded)
        self.seen(source, destination, outcome, of, tally)
        # Try to make the source run the guest again.  This must not succeed,
        # because the destination has locked the disk image.
        try:
            source.cmd('cont')
        except flow.ExecuteError as e:
            note(f'cont: {e}')
        self.assertNotEqual(source.cmd('query-status')['status'], 'running')
        source.stop()
        for where, result in found.items():
            self.assertEqual(result.hits['private'], 0, where)
            self.assertGreater(result.hits['shared'], 0, where)
        note(f'rounds: {tally.rounds}')
        self.assertTrue(of.state)
        self.assertEqual(tally.disagreements(of), [])
        self.assertGreater(tally.total('private'), 0)
        self.assertGreater(tally.total('plain'), 0)
        self.assert_runs(destination)

    def test_51_migrates_again(self):
        source, destination, link, _ = self.hop()
        self.assert_runs(destination, 5)
        link.close()
        source.stop()

    def test_52_migrates_with_multifd(self):
        source, destination = self.source, self.another(self.config)
        churned = len(guest.CHURN.findall(source.console()))
        self.with_channels(source, destination, **{
            'multifd-channels': 4, 'multifd-compression': 'zlib'})
        # Record where the guest runs, and what it has printed, before the
        # checks: later tests use the guest even if a check fails
        Booted.history += source.console()
        Booted.source = destination
        # Print the number of the guest's rounds of conversions, but do not
        # check it: the four compression threads may leave the guest too little
        # CPU time to finish a round
        note(f'{len(guest.CHURN.findall(source.console())) - churned} rounds '
             'of conversions while it migrated')
        self.assert_runs(destination, 10)
        self.assert_batched(source, destination)
        source.stop()

    def test_60_control_lost_pages(self):
        """
        The relay drops the copies of private pages that the source sends after
        the first one.  The guest's checks must then fail.  If they passed, the
        tests above would prove nothing.
        """
        sent, dropped = set(), [0]

        def tamper(record):
            if record.kind != 'private':
                return record.raw
            pages = {(record.block, record.offset + i * stream.PAGE)
                     for i in range(record.count)}
            if pages <= sent:
                dropped[0] += record.count
                return b''
            sent.update(pages)
            return record.raw

        destination = self.another(self.config)
        flow.prepare(self.source, destination)
        link = flow.connect(self.source, destination, tamper=tamper)
        flow.start(self.source, link)
        outcome = flow.wait(self.source, MIGRATION)
        self.assertGreater(dropped[0], 0, 'no page was dropped')
        note(f'{dropped[0]} pages dropped; {outcome.status} {outcome.error}')
        problems = []
        try:
            if outcome.completed:
                flow.arrived(destination)
                destination.wait_ticks(10, 60)
        except (vm.Timeout, OSError) as e:
            problems = [str(e)]
        problems += self.workload.problems(
            self.history + self.source.console() + destination.console())
        link.close()
        note(f'{len(problems)} problems: {problems[:1]}')
        if outcome.completed:
            self.assertNotEqual(problems, [], 'nobody noticed')


if __name__ == '__main__':
    tap.main()
