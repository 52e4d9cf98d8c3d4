#!/usr/bin/env python3
#
# Live migration of a guest of a few KiB, whose only work is to convert pages
# and to check them.  A test takes seconds.  This program runs in the emulated
# SEV host.  It prints TAP on stdout and its progress on stderr:
#
#   scripts/l1 --qmp [--kernel module|stock] -- tests/l1/bare.py [TEST...]
#
# Without names of tests, the program runs all classes in the order of this
# file, except that Hugetlb is first.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import base64
import glob
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import time
import unittest

import migration
from sevmig import flipper, flow, gmem, hardware, host, psp, tap, tls, vm
from sevmig.tap import note
from sevmigrate import firmware, stream

PATIENCE = 180
HARDWARE = hardware.Hardware()


def last_bit_changed(raw):
    return raw[:-1] + bytes([raw[-1] ^ 1])


class Bare(migration.Base):
    """Migrations of guests that convert pages."""

    def tearDown(self):
        for v in self.vms:
            v.stop()
        self.vms.clear()

    def boot(self, config):
        source = self.launch(f'src{Bare.next()}', config)
        flipper.wait_passes(source, 2, PATIENCE)
        return source

    @staticmethod
    def next():
        migration.Base.serial += 1
        return migration.Base.serial

    def need_in_place(self):
        """Skip the test if the host does not support in-place memory."""
        if os.environ.get('IN_L1') != 'module':
            self.skipTest('this kernel has no guest_memfd for SEV guests')

    def attempt_changed(self, source, change):
        """
        Attempt to migrate @source to a new destination, which is stopped
        afterwards.  On the way, @change(bytes) replaces the first record of
        private pages.  Returns the Outcome.
        """
        done = []

        def tamper(record):
            if record.kind != 'private' or done:
                return record.raw
            done.append(record.offset)
            return change(record.raw)

        destination, link = self.ready(source, tamper=tamper)
        outcome = self.attempt(source, destination, link)
        destination.stop()
        return outcome

    def ready(self, source, config=None, downtime_ms=2000, tamper=None, **kw):
        """
        Launch a destination and prepare both sides; return the destination and
        the link to it.  @kw is passed to flow.set_up().
        """
        destination = self.another(config or source.config)
        flow.prepare(source, destination, downtime_ms=downtime_ms, **kw)
        return destination, flow.connect(source, destination, tamper=tamper)

    def finish(self, source, destination, link):
        outcome = flow.finish(source, destination, PATIENCE)
        link.close()
        note(f'{outcome.total_ms} ms, downtime {outcome.downtime_ms} ms, '
             f'{outcome.rounds} rounds, '
             f'{outcome.encrypted["private-pages"]} private pages, '
             f'{outcome.encrypted["converted-pages"]} sent by another path '
             'than before')
        return outcome

    def move(self, source, config=None):
        """
        Migrate; return the destination, which runs the guest, and the Outcome.
        """
        destination, link = self.ready(source, config, downtime_ms=60000)
        flow.start(source, link)
        outcome = self.finish(source, destination, link)
        return destination, outcome

    def good(self, *vms, more=2):
        """
        Check that the guest runs in the last of @vms and that it has found no
        wrong page since its last reset.  @vms are the QEMUs that have run the
        guest since then, in this order.
        """
        flipper.wait_more(vms[-1], more, PATIENCE)
        text = ''.join(v.console() for v in vms)
        seen = flipper.passes(text[max(text.rfind('flip 0 '), 0):])
        self.assertEqual([p.number for p in seen], list(range(
            seen[0].number, seen[0].number + len(seen))))
        self.assertEqual({p.bad for p in seen}, {0})
        return seen

    def under_way(self, source, rounds=4):
        """Wait until the migration has sent @rounds rounds."""
        source.wait_for('rounds', lambda: source.cmd('query-migrate').get(
            'ram', {}).get('dirty-sync-count', 0) > rounds, PATIENCE, 0.05)

    def flips(self, config):
        """Migrate in several rounds while the guest converts pages."""
        source = self.boot(config)
        note(f'{flipper.rate(source, 2):.0f} pages a second converted')
        # The migration cannot end with a downtime limit of 1 ms.  This method
        # raises the limit when it has measured the guest during the migration.
        destination, link = self.ready(source, downtime_ms=1)
        before, waits = flipper.last(source), len(flipper.waits(source))
        began = time.monotonic()
        flow.start(source, link)
        self.under_way(source)
        seconds = time.monotonic() - began
        during = flipper.last(source)
        waits = flipper.waits(source)[waits:]
        converted = during.converted - before.converted
        note(f'while it migrates: {converted} pages in '
             f'{during.calls - before.calls} calls in {seconds:.1f} s, '
             f'{during.retries - before.retries} retries')
        note('a conversion waits for the sender: median '
             f'{statistics.median(waits):.0f} us, 99 of 100 '
             f'{statistics.quantiles(waits, n=100)[98]:.0f} us, '
             f'most {max(waits):.0f} us, of {len(waits)}, '
             f'{sum(w > 1000 for w in waits)} longer than 1 ms')
        source.cmd('migrate-set-parameters', **{'downtime-limit': 60000})
        outcome = self.finish(source, destination, link)
        self.good(source, destination, more=3)
        self.assertGreater(converted, 1000)
        self.assertGreater(outcome.encrypted['converted-pages'], 100)
        return source, destination, outcome

    @staticmethod
    def only_count_flushes(add_cleanup):
        """
        Let the emulated host only count missing flushes.  @add_cleanup, which is
        addCleanup or addClassCleanup, restores cache-check=fatal.

        A test that resets its guest needs this, because some pages are shared at the
        reset.  The guest then accesses these pages as private without a flush of the
        shared data.  With cache-check=fatal, such an access ends the emulated host.
        """
        HARDWARE.cache_check('count')
        add_cleanup(HARDWARE.cache_check, 'fatal')

    @staticmethod
    def reset(v):
        """Reset the guest, which boots and agrees again to be migrated."""
        v.cmd('set-action', reboot='reset')
        began = len(v.console())
        v.cmd('system_reset')
        v.wait_for('another boot', lambda: len(flipper.passes(
            v.console()[began:].partition('flip 0 ')[2])) >= 2, PATIENCE)


class Conversions(Bare):
    """Guests that convert pages while the source sends them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(cls.work, trace=['encbitmap_convert_wait'])

    def test_flips(self):
        self.flips(self.config)

    def test_flips_control(self):
        """
        Control: if the second copies of private pages are lost, the guest finds
        wrong pages.
        """
        source = self.boot(self.config)
        sent, dropped = set(), [0]

        def tamper(record):
            if record.kind != 'private':
                return record.raw
            pages = {(record.block, record.offset + i * 4096)
                     for i in range(record.count)}
            if pages <= sent:
                dropped[0] += record.count
                return b''
            sent.update(pages)
            return record.raw

        destination, link = self.ready(source, downtime_ms=1, tamper=tamper)
        flow.start(source, link)
        self.under_way(source)
        source.cmd('migrate-set-parameters', **{'downtime-limit': 60000})
        outcome = flow.wait(source, PATIENCE, poll=0.1)
        note(f'{dropped[0]} pages lost: {outcome.status} {outcome.error}')
        self.assertGreater(dropped[0], 0)
        if outcome.completed:
            flow.arrived(destination)
            flipper.wait_more(destination, 2, PATIENCE)
            self.assertGreater(flipper.last(destination).bad, 0)
        link.close()


class Groups(Bare):
    """ccp submits several packets with one doorbell (parameter sev_ring)."""
    RING = '/sys/module/ccp/parameters/sev_ring'

    def set_ring(self, value):
        with open(self.RING, 'w', encoding='ascii') as f:
            f.write(value)

    def setUp(self):
        super().setUp()
        if HARDWARE.why:
            self.skipTest(HARDWARE.why)
        if not os.path.exists(self.RING):
            self.skipTest('the distribution\'s ccp has no ring buffer')
        self.set_ring('1')
        self.addCleanup(self.set_ring, '0')
        HARDWARE.costs(*({'command': f'{way}_UPDATE_DATA',
                          'doorbell-ns': 2450000}
                         for way in ('SEND', 'RECEIVE')))
        self.addCleanup(HARDWARE.costs)

    def test_flips(self):
        before = HARDWARE.counts()
        self.flips(flipper.config(self.work, trace=['encbitmap_convert_wait']))
        after = HARDWARE.counts()
        note('commands: ' + ', '.join(
            f'{n - before.get(c, 0)} {c}' for c, n in after.items()
            if c.endswith('_UPDATE_DATA') or c == 'RING_BUFFER'))
        self.assertGreater(after.get('RING_BUFFER', 0),
                           before.get('RING_BUFFER', 0))


class DirtyRing(Bare):
    """KVM logs writes of vCPUs in dirty rings, and conversions in bitmaps."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(
            cls.work, trace=['encbitmap_convert_wait']).change(
                accel='kvm,dirty-ring-size=4096')

    def test_flips(self):
        self.flips(self.config)


class Places(Bare):
    """The guest converts pages at various places in its address space."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.high = flipper.config(cls.work, mem=64, where='high')
        cls.small = flipper.config(cls.work, mem=16, where='high')
        cls.memory = {**vm.backend_properties(cls.small.backend),
                      'id': 'more', 'size': 128 << 20}

    def two_places(self):
        """
        Return a Config in which the RAMBlock is mapped at two guest addresses:
        its start below 4 GiB, its end above 4 GiB.
        """
        return self.high.change(extra=['-machine', 'max-ram-below-4g=16M'])

    def moves(self, config):
        source = self.boot(config)
        destination, _ = self.move(source)
        self.good(source, destination)
        return source, destination

    def test_above_4g(self):
        self.moves(self.two_places())

    def dimm(self):
        return self.small.change(extra=[
            '-m', '16M,slots=2,maxmem=1G', '-object', json.dumps(self.memory),
            '-device', 'pc-dimm,memdev=more,id=dimm'])

    def is_in_use(self, v):
        """Check that the dimm contains the pages that the guest converts."""
        found = [d['data'] for d in v.cmd('query-memory-devices')]
        self.assertEqual([(d['addr'], d['size']) for d in found],
                         [(4 << 30, 128 << 20)])

    def test_dimm(self):
        source, _ = self.moves(self.dimm())
        self.is_in_use(source)

    def plugged_later(self, *before):
        """
        Plug the dimm in after the guest's first conversion; its pages are
        private at first.  The options @before may already create the memory
        backend of the dimm.
        """
        source = self.launch(f'src{self.next()}', self.small.change(
            extra=['-m', '16M,slots=2,maxmem=1G', *before]))
        source.wait_for('guest without memory', lambda: 'no memory yet' in
                        source.console(), PATIENCE)
        if not before:
            # A backend that is created and deleted must not affect the dimm
            source.cmd('object-add', **{**self.memory, 'id': 'other'})
            source.cmd('object-del', id='other')
            source.cmd('object-add', **self.memory)
        source.cmd('device_add', driver='pc-dimm', memdev='more', id='dimm')
        flipper.wait_passes(source, 2, PATIENCE)
        self.is_in_use(source)
        destination, _ = self.move(source, self.dimm())
        self.good(source, destination)

    def test_dimm_plugged_later(self):
        self.plugged_later()

    def test_dimm_of_memory_there_was(self):
        self.plugged_later('-object', json.dumps(self.memory))

    def test_first_guest_memfd_later(self):
        """QEMU refuses a guest_memfd if the VM was created without one."""
        source = self.boot(flipper.config(self.work).change(backend='ram'))
        with self.assertRaisesRegex(flow.ExecuteError, 'guest_memfd'):
            source.cmd('object-add', **{
                **self.memory, **vm.backend_properties(vm.IN_PLACE)})
        self.good(source)

    def test_discard(self):
        """QEMU refuses virtio-mem with SEV, because it discards pages."""
        v = vm.VM('discard', flipper.config(self.work).change(extra=[
            '-m', '16M,maxmem=1G',
            '-object', 'memory-backend-ram,id=more,size=128M,reserve=off',
            '-device', 'virtio-mem-pci,memdev=more,id=vm0']))
        self.vms.append(v)
        with self.assertRaises(Exception):
            v.launch()
        self.assert_said(v.complaints(), ['virtio-mem', 'discard'])

    def test_other_machine(self):
        """
        A destination with less memory is refused, and the source runs on.
        """
        source = self.boot(self.two_places())
        destination, link = self.ready(source, self.small)
        outcome = self.attempt(source, destination, link)
        note(f'{outcome.error}; {destination.complaints()}')
        self.assertFalse(outcome.completed)
        self.good(source)


class Hidden(Bare):
    """
    PAM registers hide memory with private and shared pages.  The destination
    has no memory slot for this memory until it has loaded the device state.
    """

    def moves(self, where, *backends):
        """
        Migrate a guest from a QEMU with each of @backends to the next one.
        """
        self.need_in_place()
        config = flipper.config(self.work, where=where)
        vms = [self.boot(config.change(backend=backends[0]))]
        for backend in backends[1:]:
            note(f'to memory-backend-{backend}')
            there, _ = self.move(vms[-1], config.change(backend=backend))
            vms.append(there)
            self.good(*vms)

    def test_visible(self):
        self.moves('pam1', vm.IN_PLACE, vm.IN_PLACE)

    def test_hidden(self):
        self.moves('pam2', vm.IN_PLACE, vm.IN_PLACE)

    def test_visible_in_ordinary_memory(self):
        self.moves('pam1', vm.ORDINARY, vm.IN_PLACE, vm.ORDINARY)

    def test_hidden_in_ordinary_memory(self):
        self.moves('pam2', vm.ORDINARY, vm.IN_PLACE, vm.ORDINARY)


class Flushed(Bare):
    """
    A guest migrates after it has flushed shared pages from the source's caches
    and before it makes them private.  The destination's QEMU has loaded these
    pages through its caches, so it must flush them, too.  With
    cache-check=fatal the emulated host ends if lines of the pages are still in
    a cache when the guest uses the pages.
    """

    def moves(self, backend):
        config = flipper.config(self.work, where='paused').change(
            backend=backend, trace=['sev_migration_flush_shared'])
        vms = [self.boot(config)]
        for _ in range(2):
            there, _ = self.move(vms[-1])
            vms.append(there)
            self.good(*vms)
            self.assertRegex(there.log(),
                             r'sev_migration_flush_shared [1-9]\d* shared')

    def test_ordinary_memory(self):
        self.moves(vm.ORDINARY)

    def test_in_place_memory(self):
        self.need_in_place()
        self.moves(vm.IN_PLACE)


class Features(Bare):
    """
    The CPUID bits for KVM_HC_MAP_GPA_RANGE and for MSR_KVM_MIGRATION_CONTROL
    are features of QEMU's CPU models.
    """
    NAMES = 'kvm-hc-map-gpa-range', 'kvm-migration-control'

    def features(self, **config):
        v = self.launch(f'cpu{Bare.next()}', flipper.config(self.work).change(
            extra=['-S'], **config))
        cpu, = v.cmd('query-cpus-fast')
        found = [v.cmd('qom-get', path=cpu['qom-path'], property=name)
                 for name in self.NAMES]
        v.stop()
        return found

    def test_default(self):
        """In an SEV guest every CPU model has the features by default."""
        self.assertEqual(self.features(), [True, True])
        self.assertEqual(self.features(cpu='qemu64'), [True, True])
        self.assertEqual(self.features(sev=False), [False, False])

    def test_machine_type(self):
        old = 'pc-q35-9.2'
        self.assertEqual(self.features(machine=old), [False, False])
        self.assertEqual(self.features(machine=old, cpu='qemu64'),
                         [False, False])
        on = ''.join(f',{name}=on' for name in self.NAMES)
        self.assertEqual(self.features(machine=old, cpu=f'host{on}'),
                         [True, True])

    def test_off(self):
        self.assertEqual(self.features(cpu=f'host,{self.NAMES[1]}=off'),
                         [True, False])
        self.assertEqual(self.features(cpu=f'qemu64,{self.NAMES[0]}=off'),
                         [False, True])


class Packets(Bare):
    """Packets of several pages, for destinations that can receive them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(cls.work)
        if cls.config.backend != vm.IN_PLACE:
            raise unittest.SkipTest('this kernel packs one page at a time')

    def sizes(self, source, destination):
        """Migrate; return the set of the packet lengths in the stream."""
        recorded = os.path.join(self.work, 'stream')
        flow.prepare(source, destination, downtime_ms=60000)
        link = flow.connect(source, destination, record=recorded)
        flow.start(source, link)
        self.finish(source, destination, link)
        self.good(source, destination)
        p = subprocess.run([*migration.ANALYZE, '--sev', recorded], text=True,
                           check=False, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
        self.assertEqual(p.returncode, 0, p.stdout)
        sizes = {int(n) for n in re.findall(r'\b52\+(\d+)', p.stdout)}
        note(f'packets of {sizes}')
        return sizes

    def failed(self):
        """Return how often the firmware refused each command."""
        failed = HARDWARE.counts('failed')
        return [failed.get(f'{way}_UPDATE_DATA', 0)
                for way in ('SEND', 'RECEIVE')]

    def limit(self, **limits):
        if HARDWARE.why:
            self.skipTest(HARDWARE.why)
        HARDWARE.packet_limits(**limits)
        self.addCleanup(HARDWARE.packet_limits)

    def test_large(self):
        source = self.boot(self.config)
        self.assertEqual(max(self.sizes(source, self.another(self.config))),
                         4 * stream.PAGE)

    def test_ordinary_memory(self):
        """
        The source sends packets of one page to a destination with ordinary
        memory, because pages of ordinary memory need not be contiguous in the
        host's memory.
        """
        source = self.boot(self.config)
        destination = self.another(self.config.change(backend='ram'))
        self.assertEqual(self.sizes(source, destination), {stream.PAGE})

    def test_receiver_takes_less(self):
        """
        The destination's firmware accepts smaller packets than the source's.
        """
        source = self.boot(self.config)
        for npages in 2, 1:
            self.limit(receive=npages * stream.PAGE)
            destination = self.another(self.config)
            self.assertEqual(max(self.sizes(source, destination)),
                             npages * stream.PAGE)
            source = destination

    def test_sender_takes_less(self):
        """
        The source's firmware makes smaller packets than the destination's
        accepts.  The source finds the limit out only once.
        """
        source = self.boot(self.config)
        self.limit(send=2 * stream.PAGE)
        before = self.failed()
        refused = self.another(self.config)
        flow.prepare(source, refused, downtime_ms=1)
        link = flow.connect(source, refused)
        flow.start(source, link)
        self.under_way(source)
        source.cmd('migrate_cancel')
        flow.wait(source, PATIENCE, poll=0.1)
        link.close()
        refused.stop()
        learned = self.failed()
        note(f'SEND, RECEIVE refused: {before}, then {learned}')
        self.assertEqual(max(self.sizes(source, self.another(self.config))),
                         2 * stream.PAGE)
        after = self.failed()
        # In each of the two sessions the firmware refuses the command with
        # which QEMU asks for the length of a packet header.  Only in the first
        # session it also refuses packets of 4 and of 3 pages.
        self.assertEqual([learned[0] - before[0], after[0] - learned[0]],
                         [3, 1])


class Lives(Bare):
    """Successive migrations, with reboots before, during and after them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.only_count_flushes(cls.addClassCleanup)
        cls.config = flipper.config(cls.work)
        # The flash with the variables has random bytes at the source, but not
        # at the destination.  If the destination has these bytes afterwards,
        # the migration has sent them.
        with open(cls.config.ovmf_vars, 'rb') as f:
            cls.variables = f.read()[:-16] + os.urandom(16)
        path = os.path.join(cls.work, 'variables')
        with open(path, 'wb') as f:
            f.write(cls.variables)
        cls.written = cls.config.change(ovmf_vars=path)

    def has_variables(self, v):
        with open(f'{self.work}/{v.name}.vars', 'rb') as f:
            self.assertTrue(f.read() == self.variables)

    def test_there_and_back(self):
        source = self.boot(self.config)
        there, _ = self.move(source)
        source.stop()
        back, _ = self.move(there)
        self.good(source, there, back)

    def test_reset_before(self):
        source = self.boot(self.written)
        self.reset(source)
        destination, _ = self.move(source, self.config)
        self.good(source, destination)
        self.has_variables(destination)

    def test_reset_after(self):
        source = self.boot(self.written)
        destination, _ = self.move(source, self.config)
        self.reset(destination)
        self.good(destination)
        self.has_variables(destination)
        again, _ = self.move(destination)
        self.good(destination, again)
        self.has_variables(again)

    def test_reset_during(self):
        """
        A reset during the migration revokes the guest's consent.  When the
        guest has agreed again, the next migration succeeds.
        """
        source = self.boot(self.written)
        destination, link = self.ready(source, self.config, downtime_ms=1)
        flow.start(source, link)
        self.under_way(source, 2)
        source.cmd('set-action', reboot='reset')
        source.cmd('system_reset')
        outcome = flow.wait(source, PATIENCE, poll=0.1)
        link.close()
        note(f'{outcome.status}: {outcome.error}')
        self.assertFalse(outcome.completed)
        self.assertIn('has not agreed', outcome.error)
        destination.stop()
        self.good(source, more=3)
        again, _ = self.move(source, self.config)
        self.good(source, again)
        self.has_variables(again)


class Pinned(Bare):
    """
    A process holds a reference to a shared page, so the guest cannot make this
    page private.
    """
    FIRST, COUNT = 1024, 1024           # the pages of flip.c

    def hold(self, v):
        """
        Hold a reference to a page that the guest converts.  Returns the pipe
        with the reference.
        """
        memory = gmem.GuestMemory(v)
        self.addCleanup(memory.close)
        for page in range(self.FIRST, self.FIRST + self.COUNT):
            pipe = memory.hold(page)
            if pipe:
                note(f'page {page} is held')
                return pipe
        return self.fail('no page is shared')

    @staticmethod
    def blocked(v):
        return v.cmd('query-migrate').get('blocked-reasons', [])

    def test_conversion_fails(self):
        """
        Until the next reset QEMU does not know the state of the page, so it
        refuses to migrate the guest, which continues to run.
        """
        self.need_in_place()
        self.only_count_flushes(self.addCleanup)
        words = ['could not be converted', 'reset the guest']
        source = self.boot(flipper.config(self.work))
        self.assertEqual(self.blocked(source), [])
        pipe = self.hold(source)
        try:
            source.wait_for('failed conversion', lambda: self.blocked(source),
                            PATIENCE)
        finally:
            for fd in pipe:
                os.close(fd)
        self.assert_said(self.blocked(source), words)
        self.assert_said(source.complaints(), ['pinned for more than a second'])
        # The guest repeats the conversion
        self.good(source)
        destination, link = self.ready(source)
        outcome = self.attempt(source, destination, link)
        destination.stop()
        self.assertFalse(outcome.completed)
        self.assert_said([outcome.error], words)
        self.good(source)
        self.reset(source)
        self.assertEqual(self.blocked(source), [])
        destination, _ = self.move(source)
        self.good(source, destination)


class Row(Bare):
    """
    One guest migrates MOVES times, each time to a new QEMU.  Afterwards the
    host must not have more resources in use than before.
    """
    MOVES = int(os.environ.get('MOVES', '3'))
    # By how many KiB the memory in use may grow during MOVES migrations.  KIB
    # limits the growth of the total and is less than the memory of a guest.
    # The growth of the slabs, which are part of the total, is limited to
    # SLAB_KIB_A_MOVE for each migration, plus SLAB_KIB.
    KIB, SLAB_KIB_A_MOVE, SLAB_KIB = 16384, 4, 256

    def setUp(self):
        super().setUp()
        if HARDWARE.why:
            self.skipTest(HARDWARE.why)

    def has(self, *states):
        """
        Check that the firmware has guests in @states and no others, and that
        KVM has one ASID in use for each of them.
        """
        self.vms[-1].wait_for(
            f'state {states}', lambda: sorted(
                s for s, _ in HARDWARE.guests().values()) == sorted(states),
            PATIENCE, 0.1)
        self.assertEqual(host.asids(), len(states))

    def forget(self, v):
        """End @v and remove its files, which are in a tmpfs and take memory."""
        v.stop()
        self.vms.remove(v)
        for path in glob.glob(f'{self.work}/{v.name}.*'):
            os.unlink(path)

    def row(self, moves):
        """
        Migrate a guest @moves times and end it.  Returns the memory in use
        afterwards and the part of it in slabs, in KiB.
        """
        here = self.boot(flipper.config(self.work))
        asids, downtimes = set(), []
        for n in range(moves):
            note(f'migration {n + 1} of {moves}')
            there, outcome = self.move(here)
            downtimes.append(outcome.downtime_ms)
            self.good(here, there, more=1)
            self.forget(here)
            here = there
            self.has('running')
            asids.update(asid for _, asid in HARDWARE.guests().values())
        note(f'pass {flipper.last(here).number} of the guest; downtime '
             f'{min(downtimes)} to {max(downtimes)} ms; ASIDs {asids}')
        self.forget(here)
        self.assertEqual(host.asids(), 0)
        self.assertEqual(HARDWARE.guests(), {})
        used, slabs = host.used_kib()
        note(f'{used} KiB in use, {slabs} KiB of slabs')
        return used, slabs

    def test_row(self):
        before = self.row(1)
        after = self.row(self.MOVES)
        self.assertLess(after[0] - before[0], self.KIB)
        self.assertLess(after[1] - before[1],
                        self.MOVES * self.SLAB_KIB_A_MOVE + self.SLAB_KIB)


class OddSize(vm.VM):
    """A VM whose RAM does not end at a page boundary."""

    def _machine_args(self):
        args = super()._machine_args()
        at = args.index('-m')
        del args[at:at + 2]
        size = f'size={self.config.mem // vm.MIB}M'
        return [a.replace(size, f'size={self.config.mem + 2048}')
                for a in args]


class Backends(Bare):
    """Memory backends: the values of guest-memfd, and ordinary memory."""
    UNUSED = 512 << 20
    # Assigned devices; the emulated host has none of them
    ASSIGNED = ({'driver': 'vfio-pci', 'host': '0000:00:1f.7'},
                {'driver': 'vhost-vdpa-device-pci',
                 'vhostdev': '/dev/vhost-vdpa-0'})

    def in_place(self, name, *options, **changes):
        """
        Return whether QEMU switches guest-memfd=auto on for a backend memfd
        with @options.
        """
        v = self.launch(name, flipper.config(self.work).change(**{
            'backend': ','.join(['memfd', *options]),
            'trace': ['hostmem_guest_memfd_auto', 'kvm_page_enc_create_memfd'],
            **changes}))
        said = v.log()
        v.shutdown(hard=True)
        modes = re.findall(r'guest-memfd=auto is (\w+)', said)
        self.assertEqual(len(modes), 1, said)
        self.assertEqual('kvm_page_enc_create_memfd' in said,
                         modes[0] == 'on', said)
        return modes[0] == 'on'

    def test_auto(self):
        """
        With guest-memfd=auto, memory is in place wherever that is possible.
        """
        possible = os.environ.get('IN_L1') == 'module'
        self.assertEqual(self.in_place('auto'), possible)
        self.assertFalse(self.in_place('not-shared', 'share=off'))
        self.assertFalse(self.in_place('preallocated', 'prealloc=on'))
        self.assertFalse(self.in_place('plain', sev=False, extra=[
            '-object', 'memory-backend-memfd,id=more,size=16M']))

    def test_auto_of_libvirt(self):
        """
        The memory backend that libvirt configures for a memfd with shared
        access uses guest-memfd=auto.
        """
        config = flipper.config(self.work).change(backend='memfd,share=on')
        source = self.boot(config)
        destination, _ = self.move(source)
        self.good(source, destination)
        self.assertEqual(source.cmd('qom-get', path='/objects/ram',
                                    property='guest-memfd'), 'auto')

    def test_assigned_device(self):
        """
        QEMU refuses assigned devices with in-place memory, also hot-plugged.
        """
        plain = 'plugged', flipper.config(self.work).change(
            backend=vm.ORDINARY), 'hotplugging'
        backends = [plain]
        if os.environ.get('IN_L1') == 'module':
            backends.append(('plugged-in-place', flipper.config(
                self.work).change(backend=vm.IN_PLACE), 'assigned devices'))
        for name, config, words in backends:
            v = self.launch(name, config)
            for device in self.ASSIGNED:
                with self.assertRaisesRegex(flow.ExecuteError, words):
                    v.cmd('device_add', **device)
            v.shutdown(hard=True)

    def test_assigned_device_at_launch(self):
        """
        QEMU does not start if the command line has an assigned device and
        in-place memory.  Control: with ordinary memory it does not start for
        another reason, because there is no such device.
        """
        self.need_in_place()
        for backend in vm.IN_PLACE, vm.ORDINARY:
            for device in self.ASSIGNED:
                options = ','.join(f'{k}={v}' for k, v in device.items())
                v = vm.VM(f'assigned{self.next()}', flipper.config(
                    self.work).change(backend=backend,
                                      extra=['-device', options]))
                self.vms.append(v)
                with self.assertRaises(Exception):
                    v.launch()
                said = '\n'.join(v.complaints())
                self.assertNotEqual(said, '')
                self.assertEqual(f'assigned devices ({device["driver"]})'
                                 in said, backend == vm.IN_PLACE, said)

    def test_unused(self):
        """QEMU allocates no pages for a backend that is not guest RAM."""
        config = flipper.config(self.work)
        source = self.boot(config.change(extra=[
            '-object', f'memory-backend-ram,id=unused,size={self.UNUSED}']))
        with open(f'/proc/{source.get_pid()}/status', encoding='ascii') as f:
            used = int(re.search(r'^RssAnon:\s+(\d+) kB$', f.read(),
                                 re.M)[1]) << 10
        note(f'{used >> 20} MiB in use')
        self.assertLess(used, self.UNUSED // 2)
        info = source.cmd('query-sev')['migration']
        self.assertLess((info['private-pages'] + info['shared-pages']) << 12,
                        self.UNUSED // 2)
        destination, _ = self.move(source, config)
        self.good(source, destination)

    def test_odd_size(self):
        v = OddSize('odd', flipper.config(self.work).change(backend='ram'))
        self.vms.append(v)
        with self.assertRaises(Exception):
            v.launch()
        self.assert_said(v.complaints(),
                         ['backend', f'{(16 << 20) + 2048:#x} bytes'])


class Hugetlb(Bare):
    """Guest RAM in huge pages of 2 MiB, which every kernel supports."""
    MEM = 16
    COUNT = 2 * MEM // 2        # for the source and the destination
    POOL = '/sys/kernel/mm/hugepages/hugepages-2048kB'
    FS = '/run/sevmig-hugetlbfs'

    @classmethod
    def pages(cls, which='nr'):
        """
        Return the number of huge pages of the host.  If @which is 'free', count
        only unused huge pages.
        """
        with open(f'{cls.POOL}/{which}_hugepages', encoding='ascii') as f:
            return int(f.read())

    @classmethod
    def reserve(cls, count):
        with open(f'{cls.POOL}/nr_hugepages', 'w', encoding='ascii') as f:
            f.write(str(count))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addClassCleanup(cls.reserve, 0)
        cls.reserve(cls.COUNT)
        if cls.pages() < cls.COUNT:
            raise OSError(f'the host has {cls.pages()} huge pages, '
                          f'not {cls.COUNT}')

    def moves(self, backend):
        config = flipper.config(self.work, mem=self.MEM, trace=[
            'encbitmap_convert_wait']).change(backend=backend)
        self.flips(config)
        self.assertEqual(self.pages('free'), 0,
                         'the guests are not in huge pages')

    def test_memfd(self):
        self.moves('memfd,hugetlb=on,hugetlbsize=2M')

    def test_file(self):
        if not os.path.ismount(self.FS):
            os.makedirs(self.FS, exist_ok=True)
            host.mount('hugetlbfs', self.FS)
        self.moves(f'file,share=on,mem-path={self.FS}')


class Diskless(vm.VM):
    """
    A VM without disks.  Many VMs can run at once only without disks, because
    QEMU locks a disk image.
    """

    def _disk_args(self):
        return []


class Asids(Bare):
    """The host has fewer ASIDs than guests are launched."""

    def diskless(self, config):
        v = Diskless(f'asid{self.next()}', config)
        self.vms.append(v)
        return v

    def test_used_up(self):
        self.assertEqual(host.asids(), 0)
        with open(f'{host.CGROUP}/misc.capacity', encoding='ascii') as f:
            most = int(re.search(r'^sev (\d+)$', f.read(), re.M)[1])
        note(f'{most} ASIDs')
        config = flipper.config(self.work).change(extra=['-S'])
        for _ in range(most):
            self.diskless(config).launch()
        v = self.diskless(config)
        with self.assertRaises(Exception):
            v.launch()
        self.assert_said(v.complaints(), ['no ASID is free', 'end one'])


class Slowed(Bare):
    """
    Features that slow a guest down if it writes pages faster than the source
    sends them.
    """

    @staticmethod
    def throttles(v):
        return re.findall(r'guest CPU throttled by (\d+)%', v.log())

    def test_auto_converge(self):
        source = self.boot(flipper.config(self.work,
                                          trace=['cpu_throttle_set']))
        # Control: without auto-converge the migration does not end
        destination, link = self.ready(source, downtime_ms=1)
        flow.start(source, link)
        self.under_way(source, 12)
        self.assertEqual(self.throttles(source), [])
        source.cmd('migrate_cancel')
        self.assertEqual(flow.wait(source, PATIENCE, poll=0.1).status,
                         'cancelled')
        link.close()
        destination.stop()
        # With auto-converge, QEMU slows the guest down until the migration
        # converges
        destination, link = self.ready(source, downtime_ms=1,
                                       **{'auto-converge': True})
        source.cmd('migrate-set-parameters', **{'cpu-throttle-initial': 80})
        flow.start(source, link)
        self.finish(source, destination, link)
        note(f'throttled by {self.throttles(source)}')
        self.assertEqual(self.throttles(source)[:1], ['80'])
        self.good(source, destination)

    def test_dirty_limit(self):
        source = self.boot(flipper.config(self.work).change(
            accel='kvm,dirty-ring-size=4096'))
        destination, link = self.ready(source)
        flow.set_up(source, **{'dirty-limit': True})
        with self.assertRaisesRegex(flow.ExecuteError, 'dirty-limit.*25 MB/s'):
            flow.start(source, link)
        link.close()
        self.good(source)
        flow.set_up(source, **{'dirty-limit': False})
        destination.stop()
        self.move(source)


class Tampered(Bare):
    """
    An attacker on the network changes the stream.  The firmware authenticates
    each packet by itself, so it accepts the following changes, and the guest's
    memory is wrong.  Only TLS prevents this (docs/system/i386/sev-migration.rst).
    """
    AREA = range(4 << 20, 8 << 20)      # addresses of the pages of flip.c

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(cls.work)

    @classmethod
    def packets(cls, record):
        """
        Return the packets of a record, one for each page, if the record is in
        AREA; otherwise [].
        """
        if record.kind != 'private' or record.block != vm.RAM or \
                record.offset not in cls.AREA:
            return []
        out, at = [], stream.PAGES_HEADER
        while at < len(record.raw):
            head, data = struct.unpack_from('>HH', record.raw, at)
            out.append(record.raw[at:at + 4 + head + data])
            at += len(out[-1])
        assert len(out) == record.count and at == len(record.raw)
        return out

    def tampered(self, tamper, rounds=0):
        """
        Migrate with one page in each packet, through the function @tamper.
        Stop the guest before the migration, or after @rounds rounds.  Check
        that the destination accepts the stream; return the number of pages that
        the guest finds wrong.
        """
        source = self.boot(self.config)
        destination = self.another(source.config)
        flow.prepare(source, destination, downtime_ms=1 if rounds else 60000)
        HARDWARE.packet_limits(receive=stream.PAGE)
        self.addCleanup(HARDWARE.packet_limits)
        if not rounds:
            source.cmd('stop')
        link = flow.connect(source, destination, tamper=tamper)
        flow.start(source, link)
        if rounds:
            self.under_way(source, rounds)
            source.cmd('stop')
            source.cmd('migrate-set-parameters', **{'downtime-limit': 60000})
        flow.complete(source, destination, PATIENCE)
        destination.cmd('cont')
        flow.arrived(destination)
        link.close()
        flipper.wait_passes(destination, 2, PATIENCE)
        bad = flipper.last(destination).bad
        note(f'{bad} pages are wrong')
        return bad

    def test_control(self):
        """Control: without a change no page is wrong."""
        self.assertEqual(self.tampered(lambda r: r.raw), 0)

    def test_swap(self):
        """The attacker swaps two packets of the session."""
        swapped = 0

        def tamper(record):
            nonlocal swapped
            packets = self.packets(record)
            if len(packets) < 2:
                return record.raw
            swapped += 1
            packets[:2] = packets[1], packets[0]
            return record.raw[:stream.PAGES_HEADER] + b''.join(packets)

        bad = self.tampered(tamper)
        self.assertGreater(swapped, 0)
        self.assertGreater(bad, 0)

    def test_replay(self):
        """
        In later rounds, the attacker replaces the packet of a page by the
        page's first packet.
        """
        first, replayed = {}, 0

        def tamper(record):
            nonlocal replayed
            out = record.raw[:stream.PAGES_HEADER]
            packets = self.packets(record)
            if not packets:
                return record.raw
            for i, packet in enumerate(packets):
                page = record.offset // stream.PAGE + i
                replayed += page in first
                out += first.setdefault(page, packet)
            return out

        bad = self.tampered(tamper, rounds=3)
        self.assertGreater(replayed, 0)
        self.assertGreater(bad, 0)

    def test_drop(self):
        """
        The attacker replaces a record of private pages by a record which says
        that these pages are unallocated.
        """
        dropped = 0

        def tamper(record):
            nonlocal dropped
            if dropped or len(self.packets(record)) == 0:
                return record.raw
            dropped = record.count
            return struct.pack('>QBBHI', stream.ENCRYPTED, 1,
                               stream.UNALLOCATED, 0, 24) + \
                record.raw[16:20] + struct.pack(
                    '>IQQ', 0, record.offset // stream.PAGE, record.count)

        bad = self.tampered(tamper)
        self.assertGreater(dropped, 0)
        self.assertGreater(bad, 0)


class Policies(Bare):
    """Guests whose policies allow or forbid this destination."""

    def moves(self, policy):
        source = self.boot(flipper.config(self.work, policy=policy))
        self.assertEqual(source.cmd('query-sev')['policy'], policy)
        destination, _ = self.move(source)
        self.assertEqual(destination.cmd('query-sev')['policy'], policy)
        self.good(source, destination)
        return destination

    def refused(self, source, info, status):
        """
        Check that the firmware of the source refuses the platform with the
        certificates @info with @status.
        """
        destination, link = self.ready(source)
        flow.give_session_info(source, info)
        outcome = self.attempt(source, destination, link)
        destination.stop()
        self.assertFalse(outcome.completed)
        self.assert_said([outcome.error], ['SEND_START', status])

    def test_sev(self):
        """
        With policy SEV, the firmware of the source requires that AMD has signed
        the destination's certificates.  The source's firmware refuses the
        unsigned CEK that the destination's firmware exports, and changed
        certificates.  With the CEK that AMD has signed, the migration succeeds.
        """
        source = self.boot(flipper.config(self.work, policy=vm.POLICY_SEV))
        good = flow.session_info(source, signed=True)
        wrong = [flow.session_info(source)]
        # Change a bit of the PEK's signature by the CEK, or of the ARK's
        # modulus
        for name, at in ('plat-cert', 0x624), ('amd-cert', 1600 + 600):
            cert = bytearray(base64.b64decode(good[name]))
            cert[at] ^= 1
            wrong.append({**good, name: base64.b64encode(cert).decode()})
        for info in wrong:
            self.refused(source, info, 'INVALID_CERTIFICATE')
        self.good(source)
        destination, _ = self.move(source)
        self.good(source, destination)

    def test_sev_domain_nodbg(self):
        self.moves(0x31)

    def test_domain(self):
        self.moves(0x10)

    def test_domain_of_another_owner(self):
        """
        With policy DOMAIN, the source's firmware refuses a platform with
        another owner.  Here this is the same platform before PEK_GEN.
        """
        pdh, chain = firmware.export()
        psp.new_owner()
        source = self.boot(flipper.config(self.work, policy=0x10))
        self.refused(source, {
            'pdh': base64.b64encode(pdh).decode(),
            'plat-cert': base64.b64encode(chain).decode(),
            'amd-cert': base64.b64encode(source.amd_cert()).decode()},
                     'POLICY_FAILURE')
        self.good(source)
        destination, _ = self.move(source)
        self.good(source, destination)

    def test_noks(self):
        self.moves(0x2)

    def test_api_minimum(self):
        """The policy requires exactly the API version of this firmware."""
        v = self.moves(0x20)
        info = v.cmd('query-sev')
        v.stop()
        self.moves(0x20 | info['api-major'] << 16 | info['api-minor'] << 24)

    def test_api_too_old(self):
        """
        The policy requires a newer API version than the destination's.  Without
        a session of the guest's owner, the firmware launches such a guest.
        """
        major, minor = firmware.platform_status().api
        source = self.boot(flipper.config(
            self.work, policy=0x20 | major << 16 | (minor + 1) << 24))
        self.refused(source, flow.info_for(source, source), 'POLICY_FAILURE')
        self.good(source)


class Refusals(Bare):
    """
    The destination refuses the guest; the source reports the reason that the
    destination has sent.
    """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(cls.work)

    def refused(self, config, words, between=lambda: None):
        source = self.boot(self.config)
        destination = self.another(config)
        flow.prepare(source, destination)
        between()
        outcome = self.attempt(source, destination,
                               flow.connect(source, destination))
        self.assertEqual(outcome.status, 'failed')
        self.assertTrue(outcome.error.startswith('destination: '),
                        outcome.error)
        self.assert_said([outcome.error], words)
        destination.stop()
        self.good(source, more=3)
        return source

    def test_policy(self):
        self.refused(self.config.change(policy=0x1),
                     ['policy 0x0', 'sev-guest 0x1'])

    def test_other_platform(self):
        """
        The destination's platform generates a new PDH after the source was
        given the old one.
        """
        source = self.refused(self.config, ['RECEIVE_START', 'BAD_MEASUREMENT'],
                              psp.new_identity)
        destination, _ = self.move(source)
        self.good(source, destination)

    def test_ram_below_4g(self):
        """Half of the RAM is above 4 GiB, but not at the source."""
        half = self.config.mem // 2
        self.refused(self.config.change(
            machine=f'q35,max-ram-below-4g={half}'),
                     [f'{half * 2} bytes of RAM below 4 GiB',
                      f'has {half}:', 'max-ram-below-4g'])

    def test_less_memory(self):
        self.refused(flipper.config(self.work, mem=32),
                     ['pages at the source', 'here'])

    def test_changed(self):
        """An attacker changes a bit of a packet."""
        source = self.boot(self.config)
        outcome = self.attempt_changed(source, last_bit_changed)
        self.assertTrue(outcome.error.startswith('destination: block'),
                        outcome.error)
        self.assert_said([outcome.error], ['BAD_MEASUREMENT'])
        self.good(source, more=3)


class Tls(Bare):
    """Migrations over TLS, in one channel and with multifd."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.config = flipper.config(cls.work)
        tls.make(cls.work, 'destination')
        with open(os.path.join(cls.work, 'keys.psk'), 'w',
                  encoding='ascii') as f:
            f.write(f'qemu:{os.urandom(16).hex()}\n')

    def moves(self, kind, multifd, **credentials):
        source = self.boot(self.config)
        destination = self.another(source.config)
        flow.prepare(source, destination, multifd=multifd)
        for v, end in (source, 'client'), (destination, 'server'):
            v.cmd('object-add', **{'qom-type': f'tls-creds-{kind}', 'id': 'tls',
                                   'endpoint': end, 'dir': self.work,
                                   **credentials})
            v.cmd('migrate-set-parameters', **{
                'tls-creds': 'tls', 'multifd-channels': 2})
        source.cmd('migrate-set-parameters', **{'tls-hostname': 'destination'})
        link = flow.direct(destination)
        flow.start(source, link)
        outcome = self.finish(source, destination, link)
        self.assertEqual(outcome.ram['multifd-bytes'] > 0, multifd)
        self.assertNotIn('warning', outcome.encrypted)
        self.good(source, destination)

    def test_psk(self):
        self.moves('psk', False)

    def test_psk_multifd(self):
        self.moves('psk', True)

    def test_x509(self):
        self.moves('x509', False, **{'verify-peer': True})

    def test_x509_multifd(self):
        self.moves('x509', True, **{'verify-peer': True})


class Poisoned(Bare):
    """
    The memory of the source's host has an error in a page of the guest.  The
    guest is stopped, because it would get a machine check if it accessed the
    page.  The host loses the pages until it restarts.
    """
    FIRST, COUNT = 1024, 1024           # the pages of flip.c

    def stopped(self):
        """
        Boot a guest and stop it.  Returns its VM, and page -> page frame number
        of the host for its private and for its shared pages.
        """
        source = self.boot(flipper.config(self.work))
        memory = gmem.GuestMemory(source)
        self.addCleanup(memory.close)
        # memory.shared() finds the page frame of a page only while the page is
        # shared.  A page that becomes private keeps its page frame.
        frames = {}

        def found():
            frames.update(memory.shared(self.FIRST, self.COUNT))
            return len(frames) > self.COUNT * 3 // 4

        source.wait_for('page frames', found, PATIENCE)
        source.cmd('stop')
        shared = memory.shared(self.FIRST, self.COUNT)
        private = {page: pfn for page, pfn in frames.items()
                   if page not in shared}
        note(f'{len(private)} private pages, {len(shared)} shared')
        # memory_failure() must not find the page in a page table: the kernel
        # would report the error to QEMU at once
        memory.unmap(self.FIRST, self.COUNT)
        return source, private, shared

    def refused(self, source, frames, *words):
        """
        Poison one of the pages in @frames.  The migration fails with a message
        that names the page and contains @words.
        """
        page = sorted(frames)[len(frames) // 2]
        note(f'poison page {page}, frame {frames[page]:#x}')
        gmem.poison(frames[page])
        destination, link = self.ready(source)
        outcome = self.attempt(source, destination, link)
        destination.stop()
        self.assertEqual(outcome.status, 'failed')
        self.assert_said([outcome.error], [
            f'block {vm.RAM}, offset {page * stream.PAGE:#x}:', *words])
        # The source still has the guest
        self.assertEqual(source.cmd('query-status')['status'], 'paused')
        self.assertEqual(source.cmd('query-sev')['state'], 'running')

    def setUp(self):
        super().setUp()
        self.need_in_place()

    def test_control(self):
        """Control: the same guest migrates if no page is poisoned."""
        source, private, shared = self.stopped()
        self.assertGreater(min(len(private), len(shared)), 0)
        destination, link = self.ready(source, downtime_ms=60000)
        flow.start(source, link)
        flow.complete(source, destination, PATIENCE)
        link.close()
        destination.cmd('cont')
        self.good(source, destination)

    def test_shared(self):
        source, _, shared = self.stopped()
        self.refused(source, shared, "the host's memory is bad")

    def test_private(self):
        source, private, _ = self.stopped()
        self.refused(source, private, 'SEND_UPDATE_DATA')


def main():
    if len(sys.argv) == 1:
        classes = [name for name, value in globals().items()
                   if isinstance(value, type) and issubclass(value, Bare) and
                   value is not Bare]
        # Hugetlb needs large contiguous pieces of free memory, and Poisoned,
        # the last class, loses memory
        sys.argv += sorted(classes, key=lambda name: name != 'Hugetlb')
    tap.main()


if __name__ == '__main__':
    main()
