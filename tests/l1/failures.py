#!/usr/bin/env python3
#
# Migrations of an encrypted guest that fail: a firmware command fails, the
# connection breaks, the operator cancels, or one QEMU is killed.  Afterwards
# exactly one QEMU must run the guest, and the next migration must succeed.
# Runs in the emulated SEV host; TAP on stdout, progress on stderr:
#
#   scripts/l1 --qmp [--kernel module|stock] -- tests/l1/failures.py [TEST...]
#
# KILL_POINTS=200: class Kill kills each side at 200 points of the migration.
# HELPER=on: the migration helper packs the private pages, and the firmware
# packs only the helper.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import collections
import contextlib
import logging
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

from sevmig import counter, flash, flow, guest, hardware, tap, vm
from sevmig.tap import note
from sevmigrate import relay, stream

# Timeouts in seconds, long enough for a busy machine
STEP, MIGRATION = 120, 600
NARROW = 16384      # bytes in the buffer of a socket, see narrow_sockets()
KILL_POINTS = int(os.environ.get('KILL_POINTS', '4'))
HARDWARE = hardware.Hardware()
# PAGE: words that the error message contains if the firmware cannot pack or
# unpack a page.
# LATER: tests let the LATER-th SEND_UPDATE_DATA or RECEIVE_UPDATE_DATA command
# of a migration fail.  The firmware handles other pages before and after it.
if os.environ.get('HELPER'):
    PAGE, LATER = 'migration helper', 10
else:
    PAGE, LATER = 'block', 25


class Base(unittest.TestCase):
    """
    Base of tests with the counting guest of sevmig.counter.

    @source: the QEMU that runs the guest
    @consoles: the consoles of the QEMUs that have run the guest before, in
      order

    A test ends with a successful migration.  If it does not, @clean remains
    false and the next test launches a new guest.
    """
    serial = 0
    source = None
    consoles = []
    vms = []
    # Whether the next test can use @source.  It is false after a failed test.
    clean = False

    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp(prefix='sev-fail.', dir='/run')
        cls.vms = []
        cls.addClassCleanup(cls.clean_up)
        path = os.path.join(cls.work, 'counter.fd')
        flash.write(path, counter.CODE)
        cls.config = vm.Config.from_env(guest.Workload('counter'), cls.work,
                                        mem=4 * vm.MIB).change(
            ovmf_code=path, kernel='')

    @classmethod
    def clean_up(cls):
        HARDWARE.faults()
        for v in cls.vms:
            v.stop()
        shutil.rmtree(cls.work)
        cls.source = None

    def launch(self, incoming=True, **config):
        Base.serial += 1
        v = vm.VM(f'{"dst" if incoming else "src"}{Base.serial}',
                  self.config.change(**config), incoming)
        self.vms.append(v)
        v.launch()
        return v

    def end(self, *vms):
        for v in vms:
            v.stop()
            if v in self.vms:
                self.vms.remove(v)

    def setUp(self):
        note(self.id())
        self.have_source()

    def have_source(self):
        HARDWARE.faults()
        if self.source and not (self.clean and self.source.is_running()):
            self.end(self.source)
            type(self).source = None
        if not self.source:
            source = self.launch(incoming=False)
            flow.wait_agreed(source, STEP)
            self.moved(source, [])

    def moved(self, to, consoles):
        type(self).source = to
        type(self).consoles = consoles
        type(self).clean = True

    # Checks

    @staticmethod
    def counts(v, lines=3):
        """
        Wait until the guest has printed @lines more numbers on @v's console.
        """
        now = counter.size(v.console_path)
        v.wait_for('counting guest', lambda: counter.size(v.console_path) >
                   now + 9 * lines, STEP)

    def is_right(self, *after):
        """
        Check that the guest's count has no gap on the consoles of all QEMUs
        that have run it, followed by those of the QEMUs @after.
        """
        consoles = self.consoles + [v.console() for v in after]
        try:
            return counter.counted(consoles)
        except ValueError as e:
            return self.fail(f'the guest is not right: {e}')

    def firmware_has(self, *states):
        """Wait until the firmware has guests in @states and no others."""
        end = time.monotonic() + STEP
        while True:
            have = sorted(s for s, _ in HARDWARE.guests().values())
            if have == sorted(states) or time.monotonic() > end:
                break
            time.sleep(0.1)
        self.assertEqual(have, sorted(states), 'contexts in the firmware')

    def source_runs_on(self):
        """
        Check that the source runs the guest, and that the failed migration has
        left no session at the source and no guest in the firmware.
        """
        self.assertEqual(self.source.cmd('query-status')['status'], 'running')
        self.assertEqual(self.source.cmd('query-sev')['state'], 'running')
        self.counts(self.source)
        self.is_right(self.source)
        self.firmware_has('running')
        type(self).clean = True

    def said(self, texts, *words):
        for text in texts:
            if all(w in text for w in words):
                note(f'said: {text}')
                return
        self.fail(f'nobody said {words}, but: {texts}')

    def never_ran(self, destination):
        self.assertEqual(destination.console(), '', 'it has run the guest')

    def gave_up(self, destination):
        """
        Check that @destination ended with an error and has never run the
        guest.
        """
        destination.wait_for_end(STEP)
        self.assertNotEqual(destination.exitcode(), 0)
        self.assertNotEqual(destination.complaints(), [])
        self.never_ran(destination)

    def source_runs_on_beside(self, destination):
        destination.wait_for('loaded guest', lambda: destination.cmd(
            'query-status')['status'] == 'paused', STEP)
        self.counts(self.source)
        self.never_ran(destination)
        self.end(destination)
        self.source_runs_on()

    # Actions

    def prepare(self, destination, **link):
        type(self).clean = False
        flow.prepare(self.source, destination)
        return flow.connect(self.source, destination, **link)

    def attempt(self, link):
        return flow.try_to_migrate(self.source, link, MIGRATION)

    def migrates(self, **link):
        """
        Check that a migration succeeds.  Its destination becomes self.source.
        Returns the number of bytes in the stream and the Outcome.
        """
        destination = self.launch()
        link = self.prepare(destination, **link)
        outcome = flow.migrate(self.source, destination, link, MIGRATION)
        link.close()
        self.arrived(destination)
        return link.forwarded, outcome

    def arrived(self, destination):
        """
        Check that the guest has arrived at @destination and runs only there;
        end the source.
        """
        self.counts(destination)
        self.is_right(self.source, destination)
        self.assertNotEqual(self.source.cmd('query-status')['status'],
                            'running')
        source, console = self.source, self.source.console()
        # The source issues SEND_FINISH when it quits
        finished = HARDWARE.counts().get('SEND_FINISH', 0)
        source.shutdown(timeout=STEP)
        self.assertEqual(HARDWARE.counts().get('SEND_FINISH', 0) - finished, 1)
        self.end(source)
        self.moved(destination, self.consoles + [console])
        self.firmware_has('running')

    def fails(self, meanwhile=None, destination=None, **link):
        """
        Check that a migration does not complete.  Calls @meanwhile after the
        start.  Returns the Outcome and the destination, which may still be
        running.
        """
        destination = destination or self.launch()
        link = self.prepare(destination, **link)
        if meanwhile:
            flow.start(self.source, link)
            meanwhile()
            outcome = flow.wait(self.source, MIGRATION, poll=0.1)
        else:
            outcome = self.attempt(link)
        # Forward everything that the source sent before it gave up
        link.close(drain=True)
        note(f'{outcome.status}: {outcome.error}')
        self.assertFalse(outcome.completed)
        return outcome, destination


def fault(command, kind='status', **kw):
    f = {'kind': kind, 'command': command, **kw}
    if kind == 'status':
        f.setdefault('status', hardware.HWERROR_PLATFORM)
    return f


class Commands(Base):
    """A firmware command fails."""

    def at_source(self, *faults, words=()):
        HARDWARE.faults(*faults)
        outcome, destination = self.fails()
        self.assertEqual(HARDWARE.faults_left(), [])
        self.said([outcome.error], 'SEV:', faults[0]['command'],
                  'HWERROR_PLATFORM', *words)
        self.end(destination)
        self.never_ran(destination)
        self.source_runs_on()
        self.migrates()

    def at_destination(self, *faults, command=None, words=()):
        """Return the Outcome of the migration that has failed."""
        HARDWARE.faults(*faults)
        outcome, destination = self.fails()
        self.assertEqual(HARDWARE.faults_left(), [])
        self.gave_up(destination)
        self.said(destination.complaints(), 'SEV:',
                  command or faults[0]['command'], *words or
                  ['HWERROR_PLATFORM'])
        self.source_runs_on()
        self.migrates()
        return outcome

    def test_send_start_length(self):
        self.at_source(fault('SEND_START'))

    def test_send_start(self):
        self.at_source(fault('SEND_START', nth=2))

    def test_send_update_data_length(self):
        self.at_source(fault('SEND_UPDATE_DATA'))

    def test_send_update_data_first(self):
        self.at_source(fault('SEND_UPDATE_DATA', nth=2), words=[PAGE])

    def test_send_update_data_later(self):
        self.at_source(fault('SEND_UPDATE_DATA', nth=LATER), words=[PAGE])

    def test_send_cancel(self):
        """
        SEND_CANCEL fails after a failed migration.  The next migration issues
        SEND_CANCEL again, so that it can begin a new session.
        """
        HARDWARE.faults(fault('SEND_UPDATE_DATA', nth=LATER),
                        fault('SEND_CANCEL'))
        outcome, destination = self.fails()
        self.assertEqual(HARDWARE.faults_left(), [])
        self.said([outcome.error], 'SEND_UPDATE_DATA', 'HWERROR_PLATFORM')
        self.said(self.source.complaints(), 'SEND_CANCEL', 'HWERROR_PLATFORM')
        self.end(destination)
        self.counts(self.source)
        self.firmware_has('supdate')
        self.migrates()

    def test_send_finish(self):
        """
        SEND_FINISH fails.  The source still quits, and the end of its VM
        removes the guest from the firmware.
        """
        HARDWARE.faults(fault('SEND_FINISH'))
        source = self.source
        self.migrates()
        self.assertEqual(HARDWARE.faults_left(), [])
        self.said(source.complaints(), 'SEND_FINISH', 'HWERROR_PLATFORM')

    def test_receive_start(self):
        self.at_destination(fault('RECEIVE_START'))

    def test_receive_start_refused(self):
        """
        The destination's firmware refuses the guest.  The source reports the
        firmware's answer and what the operator can do.
        """
        for status, *words in (
                (hardware.POLICY_FAILURE, 'POLICY_FAILURE',
                 'policy does not allow this platform'),
                (hardware.RESOURCE_LIMIT, 'RESOURCE_LIMIT',
                 'no room for another guest: end one')):
            outcome = self.at_destination(
                fault('RECEIVE_START', status=status), words=words)
            self.assertTrue(outcome.error.startswith('destination: '),
                            outcome.error)
            self.said([outcome.error], 'RECEIVE_START', *words)

    def test_activate(self):
        self.at_destination(fault('ACTIVATE'), command='RECEIVE_START')

    def probes(self):
        """
        Return how many RECEIVE_UPDATE_DATA commands the destination issues in
        order to find out the firmware's packet limit.
        """
        return 1 if self.config.backend == vm.IN_PLACE else 0

    def test_receive_update_data_first(self):
        self.at_destination(fault('RECEIVE_UPDATE_DATA', nth=1 + self.probes()),
                            words=[PAGE, 'HWERROR_PLATFORM'])

    def test_receive_probe(self):
        """
        If the destination cannot find out the packet limit, it tells the source
        to send single pages, and the migration succeeds.
        """
        if not self.probes():
            self.skipTest('this kernel unpacks one page at a time')
        HARDWARE.faults(fault('RECEIVE_UPDATE_DATA'))
        self.migrates()
        self.assertEqual(HARDWARE.faults_left(), [])

    def test_receive_update_data_later(self):
        self.at_destination(fault('RECEIVE_UPDATE_DATA', nth=LATER),
                            words=[PAGE, 'HWERROR_PLATFORM'])

    def test_receive_finish(self):
        self.at_destination(fault('RECEIVE_FINISH'))

    def test_packed_data_corrupt(self):
        self.at_destination(fault('SEND_UPDATE_DATA', 'corrupt', nth=15,
                                  offset=1000),
                            command='RECEIVE_UPDATE_DATA',
                            words=['BAD_MEASUREMENT'])

    def test_header_corrupt(self):
        # The firmware's output is the data, followed by the header.  Limit
        # packets to one page, so that the offset below is in the header.
        HARDWARE.packet_limits(receive=stream.PAGE)
        self.addCleanup(HARDWARE.packet_limits)
        self.at_destination(fault('SEND_UPDATE_DATA', 'corrupt', nth=15,
                                  offset=4096 + 30),
                            command='RECEIVE_UPDATE_DATA',
                            words=['BAD_MEASUREMENT'])

    def test_late(self):
        """Commands that take long do not make the migration fail."""
        HARDWARE.faults(*(fault(c, 'late', nth=n, **{'delay-us': 300000})
                          for c, n in (('SEND_START', 2),
                                       ('SEND_UPDATE_DATA', 15),
                                       ('RECEIVE_START', 1),
                                       ('RECEIVE_UPDATE_DATA', 12),
                                       ('RECEIVE_FINISH', 1),
                                       ('SEND_FINISH', 1))))
        self.migrates()
        self.assertEqual(HARDWARE.faults_left(), [])


class Held:
    """
    A tamper function that holds record @number of @kind, and everything after
    it, until release() is called.

    @before: the pages of counter.PAGES that were forwarded before that record
    @pages: the pages of counter.PAGES that have been forwarded up to now
    """

    def __init__(self, kind, number=1):
        self.kind = kind
        self.before = self.pages = frozenset()
        self._left = number
        self._there = threading.Event()
        self._go = threading.Event()

    def __call__(self, record):
        self._left -= record.kind == self.kind
        if self._left <= 0 and not self._there.is_set():
            self.before = self.pages
            self._there.set()
            self._go.wait(MIGRATION)
        if record.kind == 'private' and record.block == vm.RAM:
            first = record.offset // stream.PAGE
            self.pages |= counter.PAGES & frozenset(
                range(first, first + record.count))
        return record.raw

    def release(self):
        self._go.set()

    def wait(self, source):
        end = time.monotonic() + MIGRATION
        while not self._there.wait(0.5):
            info = source.cmd('query-migrate')
            if info['status'] in flow.FINAL or time.monotonic() > end:
                raise vm.Timeout(f'no {self.kind} record in the stream: '
                                 f'{info["status"]}, '
                                 f'{info.get("error-desc", "no error")}')


class Counted:
    """A tamper function that counts the bytes of records of @kind."""

    def __init__(self, kind):
        self.kind = kind
        self.bytes = 0

    def __call__(self, record):
        self.bytes += len(record.raw) if record.kind == self.kind else 0
        return record.raw


def cut_at(point, then=None):
    """
    Return a tamper function that ends the connection at a point of the stream.

    @point: (kind, size, wait): the connection ends when @size bytes of records
            of @kind, or of all records if @kind is '', have been forwarded and
            @wait seconds have passed
    @then: function that is called before the connection ends
    The attribute "reached" of the returned function tells whether the stream
    has reached the point.
    """
    kind, size, wait = point
    seen = [0]

    def end():
        time.sleep(wait)
        if then:
            then()

    def tamper(record):
        if kind and record.kind != kind:
            return record.raw
        seen[0] += len(record.raw)
        if seen[0] < size:
            return record.raw
        tamper.reached = True
        raise relay.Cut(record.raw[:len(record.raw) - (seen[0] - size)], end)

    tamper.reached = False
    return tamper


@contextlib.contextmanager
def narrow_sockets():
    """
    Let sockets that are created within this context have a small buffer, NARROW
    bytes instead of hundreds of KiB.  The source then blocks earlier while the
    relay holds the stream.
    """
    path = '/proc/sys/net/core/wmem_default'
    with open(path, encoding='ascii') as f:
        usual = f.read()
    try:
        with open(path, 'w', encoding='ascii') as f:
            f.write(str(NARROW))
        yield
    finally:
        with open(path, 'w', encoding='ascii') as f:
            f.write(usual)


class Cancel(Base):
    """The operator cancels at each stage of a migration."""

    def cancelled(self, held=None, destination=None, **link):
        def cancel():
            try:
                if held:
                    held.wait(self.source)
                self.source.cmd('migrate_cancel')
            finally:
                if held:
                    held.release()

        outcome, destination = self.fails(cancel, destination, tamper=held,
                                          **link)
        self.assertEqual(outcome.status, 'cancelled')
        return destination

    def test_at_once(self):
        destination = self.cancelled()
        # The source may have cancelled before the destination received
        # anything.  The destination then waits for a migration and reports no
        # error, so do not call gave_up().
        self.end(destination)
        self.never_ran(destination)
        self.source_runs_on()
        self.migrates()

    def at(self, kind, number=1):
        """
        Cancel while the relay holds the stream before a record.  The buffers
        of socket and relay are smaller than the stream, so the source has not
        sent all private pages yet.  Returns the number of pages that were
        forwarded, and the number of RECEIVE_UPDATE_DATA commands.
        """
        held = Held(kind, number)
        before = collections.Counter(HARDWARE.counts())
        with narrow_sockets():
            destination = self.cancelled(held, ahead=NARROW)
        self.gave_up(destination)
        commands = collections.Counter(HARDWARE.counts()) - before
        note(f'of {len(counter.PAGES)} private pages {len(held.before)} were '
             f'forwarded, {len(held.pages)} sent; '
             f'{commands["SEND_UPDATE_DATA"]} commands packed, '
             f'{commands["RECEIVE_UPDATE_DATA"]} unpacked')
        self.assertLess(held.pages, counter.PAGES)
        self.source_runs_on()
        self.migrates()
        return len(held.before), commands['RECEIVE_UPDATE_DATA']

    def test_at_session(self):
        forwarded, _ = self.at('session')
        self.assertEqual(forwarded, 0)

    def test_among_private(self):
        forwarded, unpacked = self.at('private', 2)
        self.assertGreater(forwarded, 0)
        self.assertGreater(unpacked, 0)

    def test_after_all_is_sent(self):
        """
        Cancel when the source has sent the whole stream, but the relay still
        holds the end of the stream.  The source continues to run the guest.
        The destination loads the guest; only its option -S prevents it from
        running the guest, too.
        """
        destination = self.launch(extra=['-S'])
        destination = self.cancelled(Held('rest'), destination)
        self.source_runs_on_beside(destination)
        self.migrates()


class Link(Base):
    """The connection breaks while both QEMUs continue to run."""

    def cut(self, point):
        _, destination = self.fails(tamper=cut_at(point))
        self.gave_up(destination)
        self.source_runs_on()

    def test_cut(self):
        rest = Counted('rest')
        total, _ = self.migrates(tamper=rest)
        # Cut before RAM, at various points in RAM, and in the device state
        for point in ([('', n, 0) for n in (1, 20, 100)] +
                      [('', total * n // 8, 0) for n in range(1, 8)] +
                      [('rest', 1 + (rest.bytes // 2) * n // 4, 0)
                       for n in range(5)]):
            note(f'cut at {point}')
            self.cut(point)
        self.migrates()

    def test_answer_lost(self):
        """
        The whole stream arrives, but the relay drops the destination's answer.
        The source therefore continues to run the guest.  Only the option -S of
        the destination prevents it from running the guest, too.
        """
        def answer(kind, message):
            if kind == relay.SHUT:
                raise relay.Cut
            return message

        outcome, destination = self.fails(
            destination=self.launch(extra=['-S']), answer=answer)
        self.assertEqual(outcome.status, 'failed')
        self.source_runs_on_beside(destination)
        self.migrates()

    def test_nobody_listens(self):
        destination = self.launch()
        self.prepare(destination).close()
        self.end(destination)
        outcome = self.attempt(flow.Direct(f'unix:{self.work}/nobody'))
        self.assertEqual(outcome.status, 'failed')
        self.said([outcome.error], 'No such file')
        self.source_runs_on()
        self.migrates()


class TakenBack(Base):
    """
    The migration has completed, and the destination has loaded the guest.  The
    test kills the destination before the destination runs the guest.  There is
    time for a kill if a management layer starts the destination with -S, as
    libvirt does.
    """
    # The guest's code with NOPs in place of the write to
    # MSR_KVM_MIGRATION_CONTROL, which guests without SEV do not have
    PLAIN = b'\x90' * 17 + counter.CODE[17:]

    def dies_paused(self, source, destination, link):
        flow.start(source, link)
        flow.complete(source, destination, MIGRATION)
        link.close()
        self.assertEqual(source.cmd('query-status')['status'], 'postmigrate')
        destination.wait_for('loaded guest', lambda: destination.cmd(
            'query-status')['status'] == 'paused', STEP)

    def kill(self, destination):
        os.kill(destination.get_pid(), signal.SIGKILL)
        destination.wait_for_end(STEP)
        self.end(destination)
        self.never_ran(destination)

    def test_destination_dies(self):
        destination = self.launch(extra=['-S'])
        link = self.prepare(destination)
        self.dies_paused(self.source, destination, link)
        # The source keeps the session until it runs the guest again or quits
        self.assertEqual(self.source.cmd('query-sev')['state'], 'sent')
        self.firmware_has('running', 'supdate')
        self.kill(destination)
        cancelled = HARDWARE.counts().get('SEND_CANCEL', 0)
        self.source.cmd('cont')
        self.assertEqual(HARDWARE.counts()['SEND_CANCEL'] - cancelled, 1)
        self.source_runs_on()
        # The certificates remained set only until the migration completed, so
        # the next migration needs new ones
        with self.assertRaisesRegex(flow.ExecuteError, 'are not set'):
            self.source.cmd('migrate', uri='unix:/nowhere')
        self.migrates()

    def test_reset_and_leave(self):
        """After a reset at the source, the source owns the guest again."""
        destination = self.launch(extra=['-S'])
        link = self.prepare(destination)
        self.dies_paused(self.source, destination, link)
        self.kill(destination)
        self.source.cmd('set-action', reboot='reset')
        self.source.cmd('system_reset')
        self.source.wait_for('reset guest', lambda: self.source.cmd(
            'query-status')['status'] == 'prelaunch', STEP)
        # After the reset the guest counts from 0 again, so the console's new
        # output must contain the number 0
        before = self.source.console()
        self.source.cmd('cont')
        self.firmware_has('running')
        flow.wait_agreed(self.source, STEP)
        self.counts(self.source)
        lines = self.source.console()[len(before):].split('\n')
        self.assertIn('a' * 8, lines)
        type(self).clean = False

    def test_control_plain_guest(self):
        """A guest without SEV gives the results of the tests above."""
        path = os.path.join(self.work, 'plain.fd')
        flash.write(path, self.PLAIN)
        # This guest needs its own disk: the other guest uses the first disk
        config = {'sev': False, 'ovmf_code': path,
                  'workdir': os.path.join(self.work, 'plain')}
        source = self.launch(incoming=False, **config)
        destination = self.launch(extra=['-S'], **config)
        self.counts(source)
        for v in (source, destination):
            flow.set_up(v)
        self.dies_paused(source, destination,
                         flow.connect(source, destination))
        self.kill(destination)
        source.cmd('cont')
        self.counts(source)
        counter.counted([source.console()])
        self.end(source)


def points(count, total, rest):
    """
    Return @count points for cut_at().  Half of the points are spread over the
    whole stream of @total bytes, a quarter over the @rest bytes of device state
    after RAM.  The last quarter is in the ten seconds after the last byte, most
    of these points in the first second.  The points are shuffled, so that even
    the first few of them are spread over all these ranges.  Each run uses the
    same order.
    """
    whole, devices = count // 2, count // 4
    later = count - whole - devices
    out = ([('', 1 + total * i // whole, 0) for i in range(whole)] +
           [('rest', 1 + rest * i // devices, 0) for i in range(devices)] +
           [('rest', rest, 10 * ((i + 1) / later) ** 4)
            for i in range(later)])
    random.Random(count).shuffle(out)
    return out


class Kill(Base):
    """
    kill -9 ends the source or the destination.  The source owns the guest until
    the destination runs it.  If the owner is killed, the guest ends and the
    other QEMU does not run it.  If the other QEMU is killed, the guest
    survives.
    """

    def try_to_kill(self, point, who, destination):
        """
        Migrate to @destination and kill @who at @point of the stream.  Returns
        the Outcome; its status is 'gone' if the source has ended.
        """
        def kill():
            os.kill(who.get_pid(), signal.SIGKILL)

        cut = cut_at(point, kill)
        link = self.prepare(destination, tamper=cut)
        try:
            flow.start(self.source, link)
            outcome = flow.wait(self.source, MIGRATION, poll=0.1)
        except vm.Gone:
            outcome = flow.Outcome('gone')
        if outcome.completed and not cut.reached:
            # The stream was too short to reach @point, so @cut has not called
            # kill()
            kill()
        who.wait_for_end(STEP)
        link.close()
        return outcome

    def kill_destination(self, point):
        destination = self.launch()
        outcome = self.try_to_kill(point, destination, destination)
        self.end(destination)
        if outcome.completed:
            # The destination has run the guest
            self.assertNotEqual(self.source.cmd('query-status')['status'],
                                'running')
            self.is_right(self.source, destination)
            self.firmware_has('supdate')
            self.end(self.source)
            self.firmware_has()
            return 'after'
        self.assertEqual(outcome.status, 'failed')
        self.source_runs_on()
        # The destination starts the guest before it sends its answer, so it may
        # have run the guest for a short time
        return 'between' if destination.console() else 'before'

    def kill_source(self, point):
        destination = self.launch()
        self.try_to_kill(point, self.source, destination)
        source = self.source
        self.end(source)
        deadline = time.monotonic() + STEP
        while destination.is_running() and time.monotonic() < deadline:
            try:
                if destination.cmd('query-status')['status'] == 'running':
                    self.counts(destination)
                    self.is_right(source, destination)
                    self.firmware_has('running')
                    self.moved(destination, self.consoles + [source.console()])
                    return 'after'
            except vm.Gone:
                break
            time.sleep(0.05)
        self.gave_up(destination)
        self.is_right(source)
        self.firmware_has()
        return 'before'

    def everywhere(self, kill):
        rest = Counted('rest')
        total, _ = self.migrates(tamper=rest)
        note(f'{total} bytes, {rest.bytes} of them after RAM')
        seen = {'before': 0, 'between': 0, 'after': 0}
        # Add a point that no stream reaches: try_to_kill() then kills the QEMU
        # after the migration
        for number, point in enumerate(
                points(KILL_POINTS, total, rest.bytes) + [('', 2 * total, 0)]):
            # Launch a new guest before every 20th point.  is_right() checks all
            # numbers that a guest has counted, which takes longer the longer
            # the guest has run.
            type(self).clean &= number % 20 < 19
            self.have_source()
            when = kill(point)
            note(f'{number + 1}: {point}: {when} the guest had moved')
            seen[when] += 1
        note(f'{kill.__name__}: {seen}')
        self.assertTrue(seen['before'] and seen['after'], seen)

    def test_source(self):
        self.everywhere(self.kill_source)

    def test_destination(self):
        self.everywhere(self.kill_destination)


class File(Base):
    """QEMU refuses to migrate to a file, because a file sends no answer."""

    def refused(self, path):
        destination = self.launch()
        self.prepare(destination).close()
        self.end(destination)
        outcome = self.attempt(flow.Direct(f'file:{path}'))
        note(f'{outcome.status}: {outcome.error}')
        self.assertFalse(outcome.completed)
        self.source_runs_on()
        self.migrates()
        return outcome

    def test_room(self):
        self.refused(f'{self.work}/file')

    def test_full(self):
        small = f'{self.work}/small'
        os.mkdir(small)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'small',
                        small], check=True)
        try:
            self.refused(f'{small}/file')
        finally:
            subprocess.run(['umount', small], check=True)


class Unanswered(Base):
    """
    A firmware command does not end.  Linux then does not use the PSP any more
    until the host reboots.  The guest continues to run, but no guest can be
    sent or received.  Later tests would fail, so this class must be the last
    one in alphabetical order, in which unittest runs the classes.
    """
    TIMEOUT = '/sys/module/ccp/parameters/psp_cmd_timeout'

    def test_send_update_data(self):
        with open(self.TIMEOUT, 'w', encoding='ascii') as f:
            f.write('5')
        # ccp reads the parameter at the end of each command, so the new timeout
        # does not apply to the next command.  Issue commands by a migration.
        self.migrates()
        waiting = self.launch()
        info = flow.session_info(waiting)
        HARDWARE.faults(fault('SEND_UPDATE_DATA', 'hang', nth=LATER))
        outcome, destination = self.fails()
        # Both sides use this host's PSP, so the destination's next command fails
        # at the same time.  Its error may reach the source first.
        self.assertRegex(outcome.error, 'SEND_UPDATE_DATA failed .*timed out|'
                         'destination: .*: RECEIVE_.* failed .*busy')
        self.end(destination)
        self.never_ran(destination)
        self.said(self.source.complaints(), 'SEND_CANCEL', 'busy')
        self.counts(self.source)
        self.is_right(self.source)
        # The firmware keeps the sessions of both sides, although the destination
        # has ended.  It has none of the destination if RECEIVE_START came too late.
        states = [s for s, _ in HARDWARE.guests().values()]
        self.assertIn(sorted(states), (['rupdate', 'supdate'], ['supdate']))

        # After the timeout Linux does not use the PSP any more, so another
        # migration fails at its first firmware command
        flow.give_session_info(self.source, info)
        link = flow.connect(self.source, waiting)
        outcome = self.attempt(link)
        link.close()
        note(f'{outcome.status}: {outcome.error}')
        self.assertFalse(outcome.completed)
        self.said([outcome.error], 'SEV', 'PDH')
        self.end(waiting)
        self.never_ran(waiting)
        self.counts(self.source)
        self.is_right(self.source)


if __name__ == '__main__':
    # The tests kill QEMUs, so a warning about that is not needed
    logging.getLogger('qemu').setLevel(logging.ERROR)
    tap.main(HARDWARE.why)
