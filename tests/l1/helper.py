#!/usr/bin/env python3
#
# Live migration by the migration helper.  Runs in the emulated SEV host; TAP on
# stdout, progress on stderr:
#
#   scripts/l1 [--kernel module|stock] -- tests/l1/helper.py [TEST...]
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

import bare
import migration
from sevmig import BUILD, flipper, flow, tap, vm
from sevmig.tap import note

# The helper's file.  If the property migration-helper is "on", QEMU searches
# its firmware directories for a file of this name.
FILE = f'{BUILD}/helper/sev-migration-helper.bin'
HELPER = 'on'
# Pages of the helper's private memory, which the firmware packs
OWN_PAGES = 16
HARDWARE = bare.HARDWARE
MULTIFD = {'multifd': True}
# Number of migrations in a row in class Hidden
MOVES = int(os.environ.get('MOVES', '3'))


class Helper(bare.Bare):
    """A guest of a few KiB, which converts its pages all the time."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(cls.work).change(helper=HELPER)
        # The helper may read a page of the source while the guest converts the
        # page, and while cache lines that the guest has written with the new
        # C-bit are not flushed.  This read does no harm, because the page is
        # dirty and is sent again.  But the emulated hardware does not know that
        # the helper's vCPU only reads, and detects a missing flush.  Therefore
        # tell the emulated hardware to count missing flushes and not to end the
        # host.  In test_12_flushed the guest is stopped, so there each missing
        # flush is an error and ends the host.
        if HARDWARE.why:
            raise unittest.SkipTest(HARDWARE.why)
        HARDWARE.cache_check('count')
        cls.addClassCleanup(HARDWARE.cache_check, 'fatal')

    def by_helper(self, source, destination, **kw):
        """
        Migrate @source to @destination, and check that the firmware packed
        only the helper.
        """
        before = HARDWARE.counts()
        flow.prepare(source, destination, downtime_ms=60000, **kw)
        flow.start(source, flow.direct(destination))
        outcome = flow.finish(source, destination, bare.PATIENCE)
        s = outcome.encrypted
        note(f'{outcome.total_ms} ms, downtime {outcome.downtime_ms} ms, '
             f'{s["private-pages"]} private pages, {s["helper-pages"]} by the '
             f'helper, {s["platform-calls"]} calls to the platform')
        self.assertIsNone(s.get('helper-unused'))
        self.assertGreater(s['helper-pages'], 0)
        self.assertEqual(s['helper-pages'], s['private-pages'])
        self.assertEqual(
            destination.cmd('query-sev')['migration']['helper']['pages'],
            s['helper-pages'])
        after = HARDWARE.counts()
        for way in 'SEND', 'RECEIVE':
            name = f'{way}_UPDATE_DATA'
            packed = after.get(name, 0) - before.get(name, 0)
            note(f'{packed} commands {name}')
            # Up to 4 further commands pack or unpack no page: the source asks
            # for the length of a packet header, and the destination finds the
            # firmware's packet limit
            self.assertLessEqual(packed, OWN_PAGES + 4)
        return outcome

    def test_10_moves(self):
        """Also onwards from the host where the guest has arrived."""
        source = self.boot(self.config)
        destination = self.another(self.config)
        self.by_helper(source, destination)
        self.good(source, destination)
        self.assertTrue(destination.cmd('query-sev')['migration']['helper'][
            'present'])
        self.assertIn('migration helper: ready', self.hmp(source, 'info sev'))
        self.assertIn('by the migration helper',
                      self.hmp(source, 'info migrate'))
        source.stop()
        third = self.another(self.config)
        self.by_helper(destination, third)
        self.good(source, destination, third)

    def test_11_multifd(self):
        source = self.boot(self.config)
        destination = self.another(self.config)
        self.by_helper(source, destination, **MULTIFD)
        self.good(source, destination)

    def test_12_flushed(self):
        """
        The destination flushes pages that arrived shared before its helper makes
        them private: here each miss ends the host.
        """
        source = self.boot(self.config)
        destination = self.started(source)
        source.cmd('stop')
        HARDWARE.cache_check('fatal')
        self.addCleanup(HARDWARE.cache_check, 'count')
        source.cmd('migrate-set-parameters', **{'downtime-limit': 60000})
        outcome = flow.complete(source, destination, bare.PATIENCE)
        self.assertGreater(outcome.encrypted['helper-pages'], 0)
        # Pages that have changed their state since they were first sent
        self.assertGreater(outcome.encrypted['converted-pages'], 0)
        destination.wait_for('arrival', lambda: destination.cmd(
            'query-status')['status'] == 'paused', bare.PATIENCE)
        destination.cmd('cont')
        self.good(source, destination)

    def started(self, source, **kw):
        """Begin a migration that does not end; return the destination."""
        destination = self.another(self.config)
        flow.prepare(source, destination, downtime_ms=1, **kw)
        flow.start(source, flow.direct(destination))
        self.under_way(source)
        return destination

    def test_20_cancel(self):
        """Cancel, kill the destination, and then complete."""
        source = self.boot(self.config)
        for multifd in False, True:
            destination = self.started(source, multifd=multifd)
            source.cmd('migrate_cancel')
            outcome = flow.wait(source, bare.PATIENCE)
            self.assertEqual(outcome.status, 'cancelled')
            self.assertGreater(outcome.encrypted['helper-pages'], 0)
            destination.stop()
            self.good(source)
        destination = self.started(source)
        destination.stop()
        outcome = flow.wait(source, bare.PATIENCE)
        self.assertEqual(outcome.status, 'failed')
        self.good(source)
        destination = self.another(self.config)
        self.by_helper(source, destination)
        self.good(source, destination)

    def test_21_taken_back(self):
        """The source takes the guest back, and it leaves again."""
        source = self.boot(self.config)
        destination = self.another(self.config.change(extra=['-S']))
        flow.prepare(source, destination, downtime_ms=60000)
        flow.start(source, flow.direct(destination))
        outcome = flow.complete(source, destination, bare.PATIENCE)
        self.assertGreater(outcome.encrypted['helper-pages'], 0)
        destination.stop()
        source.cmd('cont')
        self.good(source)
        destination = self.another(self.config)
        self.by_helper(source, destination)
        self.good(source, destination)

    def test_22_reset(self):
        source = self.boot(self.config)
        self.reset(source)
        destination = self.another(self.config)
        self.by_helper(source, destination)
        self.good(source, destination)

    def test_30_destination_without_helper(self):
        """The firmware packs all pages, and QEMU says why."""
        source = self.boot(self.config)
        destination, link = self.ready(source, self.config.change(helper=''),
                                       downtime_ms=60000)
        flow.start(source, link)
        outcome = self.finish(source, destination, link)
        self.assertEqual(outcome.encrypted['helper-pages'], 0)
        self.assert_said([outcome.encrypted['helper-unused']],
                         ['destination has no migration helper'])
        self.assert_said(source.complaints(),
                         ['destination has no migration helper'])
        self.good(source, destination)

    def test_31_too_many_channels(self):
        """The firmware packs all pages."""
        source = self.boot(self.config)
        destination = self.another(self.config)
        flow.prepare(source, destination, downtime_ms=60000, **MULTIFD)
        for v in source, destination:
            v.cmd('migrate-set-parameters', **{'multifd-channels': 16})
        flow.start(source, flow.direct(destination))
        outcome = flow.finish(source, destination, bare.PATIENCE)
        self.assertEqual(outcome.encrypted['helper-pages'], 0)
        self.assert_said([outcome.encrypted['helper-unused']],
                         ['15 channels'])
        self.good(source, destination)

    def test_32_helper_that_hangs(self):
        """
        QEMU stops a vCPU whose helper never ends a command.  The firmware packs
        all pages, and QEMU stays responsive.
        """
        with open(FILE, 'rb') as f:
            image = bytearray(f.read())
        entry = int.from_bytes(image[12:16], 'little')
        image[entry:entry + 2] = b'\xeb\xfe'    # jmp to itself
        path = os.path.join(self.work, 'hangs')
        with open(path, 'wb') as f:
            f.write(image)
        config = self.config.change(helper=path)
        source = self.boot(config)
        destination, link = self.ready(source, config, downtime_ms=60000)
        flow.start(source, link)
        outcome = self.finish(source, destination, link)
        self.assertEqual(outcome.encrypted['helper-pages'], 0)
        self.assert_said([outcome.encrypted['helper-unused']],
                         ['has not ended a command'])
        self.assert_said(source.complaints(), ['has not ended a command'])
        self.good(source, destination)

    def test_40_changed(self):
        """A page that is changed on its way is refused."""
        source = self.boot(self.config)
        outcome = self.attempt_changed(source, bare.last_bit_changed)
        self.assertFalse(outcome.completed)
        self.assert_said([outcome.error], ['migration helper', 'changed'])
        self.good(source, more=3)

    def test_41_replayed(self):
        """A record that is sent twice is refused; the firmware takes it."""
        source = self.boot(self.config)
        outcome = self.attempt_changed(source, lambda raw: raw + raw)
        self.assertFalse(outcome.completed)
        self.assert_said([outcome.error], ['opened before'])
        self.good(source)

    def test_42_other_key(self):
        """A record of an earlier migration is refused."""
        source = self.boot(self.config)
        old, done = [], []

        def record_it(record):
            if record.kind == 'private' and not old:
                old.append(record.raw)
            return record.raw

        def replace(record):
            if record.kind != 'private' or done:
                return record.raw
            done.append(record.offset)
            return old[0] + record.raw

        destination, link = self.ready(source, downtime_ms=1, tamper=record_it)
        flow.start(source, link)
        self.under_way(source)
        source.cmd('migrate_cancel')
        flow.wait(source, bare.PATIENCE)
        link.close()
        destination.stop()
        destination, link = self.ready(source, tamper=replace)
        outcome = self.attempt(source, destination, link)
        self.assertFalse(outcome.completed)
        self.assert_said([outcome.error], ['migration helper', 'other key'])
        destination.stop()
        self.good(source)


class Hidden(Helper):
    """Pages that PAM registers hide most of the time."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(cls.work, where='pam2').change(
            helper=HELPER)

    # Do not repeat these tests of class Helper here: this guest differs only in
    # the addresses of the pages that it converts, and the results of these
    # tests do not depend on the addresses
    test_12_flushed = None
    test_20_cancel = test_21_taken_back = test_22_reset = None
    test_30_destination_without_helper = test_31_too_many_channels = None
    test_32_helper_that_hangs = None
    test_40_changed = test_41_replayed = test_42_other_key = None

    def test_10_moves(self):
        """
        Also pages at the address of the firmware's alias below 1 MiB.  The guest
        converts at random, so migrate several times.
        """
        v = self.boot(self.config)
        for _ in range(MOVES):
            destination = self.another(self.config)
            self.by_helper(v, destination)
            self.good(v, destination)
            v.stop()
            v = destination


class Visible(Hidden):
    """The same pages, which the guest never hides."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(cls.work, where='pam1').change(
            helper=HELPER)


class Measured(migration.Base):
    """The helper is part of the launch measurement."""

    def digest(self, **kw):
        config = flipper.config(self.work).change(extra=['-S'], **kw)
        migration.Base.serial += 1
        v = self.launch(f'measured{migration.Base.serial}', config)
        value = v.cmd('query-sev-launch-measure')['data']
        v.stop()
        return value

    def refused(self, name, data=None, words=(), more=''):
        """QEMU does not start with the helper in file @name with @data."""
        path = os.path.join(self.work, name)
        if data is not None:
            with open(path, 'wb') as f:
                f.write(data)
        config = flipper.config(self.work).change(helper=path + more)
        migration.Base.serial += 1
        v = vm.VM(f'refused{migration.Base.serial}', config)
        self.vms.append(v)
        with self.assertRaises(Exception):
            v.launch()
            v.cmd('query-status')
        self.assert_said(v.complaints(), ['helper', *words])

    def test_files(self):
        """A file that is no helper is refused, with the reason."""
        with open(FILE, 'rb') as f:
            good = f.read()
        self.refused('none', words=['no such file'])
        self.refused('.', words=['directory'])
        self.refused('empty', b'', words=['0 bytes'])
        self.refused('large', good.ljust(0xc001, b'\0'), words=['49153 bytes'])
        self.refused('text', b'x' * 8192, words=['is not a migration helper'])
        self.refused('version', good[:8] + b'\x02' + good[9:],
                     words=['version 1'])
        self.refused('header', good[:12] + b'\xff' * 4 + good[16:],
                     words=['header'])
        self.refused('off', good, words=['cannot be migrated'],
                     more=',migration=off')

    def test_measured(self):
        self.assertNotEqual(self.digest(), self.digest(helper=HELPER))


if __name__ == '__main__':
    tap.main()
