#!/usr/bin/env python3
#
# Migrations of an encrypted guest that fail: in the firmware, on the link, by
# the operator, by the death of either side.  The guest must go on, in one
# place, and the next try must succeed.  Runs in the emulated SEV host; TAP on
# stdout, progress on stderr:
#
#   scripts/l1 --qmp [--kernel module|stock] -- tests/l1/failures.py [TEST...]
#
# KILL_POINTS=200 makes class Kill kill each side at so many points.
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

from sevmig import (counter, flash, flow, guest, hardware,
                    relay, stream, tap, vm)
from sevmig.tap import note

# Nothing in here depends on how fast the machine is but these
STEP, MIGRATION = 120, 600
NARROW = 16384      # bytes that a socket takes, where it matters
KILL_POINTS = int(os.environ.get('KILL_POINTS', '4'))
HARDWARE = hardware.Hardware()


class Base(unittest.TestCase):
    """
    A guest that counts, on @source; @consoles are those of the hosts where it
    was before.  After each test it is somewhere, once, and has been migrated.
    """
    serial = 0
    source = None
    consoles = []
    vms = []
    # After a test that failed, nobody knows what is left of the source
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

    # What must be so

    @staticmethod
    def counts(v, lines=3):
        """The guest on @v counts on, and so it runs there."""
        now = counter.size(v.console_path)
        v.wait_for('counting guest', lambda: counter.size(v.console_path) >
                   now + 9 * lines, STEP)

    def is_right(self, *after):
        """One count, on all hosts up to now and then on those @after."""
        consoles = self.consoles + [v.console() for v in after]
        try:
            return counter.counted(consoles)
        except ValueError as e:
            return self.fail(f'the guest is not right: {e}')

    def firmware_has(self, *states):
        """The contexts of dead QEMUs go soon; these @states must stay."""
        end = time.monotonic() + STEP
        while True:
            have = sorted(s for s, _ in HARDWARE.guests().values())
            if have == sorted(states) or time.monotonic() > end:
                break
            time.sleep(0.1)
        self.assertEqual(have, sorted(states), 'contexts in the firmware')

    def source_runs_on(self):
        """And nothing of the attempt is left."""
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
        """It ended with a reason, and has never run the guest."""
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

    # What is done

    large = True        # packets, if the destination takes them

    def prepare(self, destination, **link):
        type(self).clean = False
        flow.prepare(self.source, destination)
        if not self.large:
            self.source.cmd('migrate-set-parameters',
                            **{f'sev-{flow.LARGE}': False})
        return flow.connect(self.source, destination, **link)

    def attempt(self, link):
        return flow.try_to_migrate(self.source, link, MIGRATION)

    def migrates(self, **link):
        """
        The guest can be migrated; @source is then where it is.  How many
        bytes it took, and the Outcome.
        """
        destination = self.launch()
        link = self.prepare(destination, **link)
        outcome = flow.migrate(self.source, destination, link, MIGRATION)
        link.close()
        self.arrived(destination)
        return link.forwarded, outcome

    def arrived(self, destination):
        """The guest is at @destination, and only there."""
        self.counts(destination)
        self.is_right(self.source, destination)
        self.assertNotEqual(self.source.cmd('query-status')['status'],
                            'running')
        source, console = self.source, self.source.console()
        # It ends in an orderly way, and finishes its session
        finished = HARDWARE.counts().get('SEND_FINISH', 0)
        source.shutdown(timeout=STEP)
        self.assertEqual(HARDWARE.counts().get('SEND_FINISH', 0) - finished, 1)
        self.end(source)
        self.moved(destination, self.consoles + [console])
        self.firmware_has('running')

    def fails(self, meanwhile=None, destination=None, **link):
        """
        A migration that must fail and leave the guest here.  @meanwhile is
        called after its start.  Returns the outcome and the destination,
        whose process may be there still.
        """
        destination = destination or self.launch()
        link = self.prepare(destination, **link)
        if meanwhile:
            flow.start(self.source, link)
            meanwhile()
            outcome = flow.wait(self.source, MIGRATION, poll=0.1)
        else:
            outcome = self.attempt(link)
        # What the source has sent before it gave up arrives all the same
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
    """Every command of the firmware fails."""

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
        HARDWARE.faults(*faults)
        _, destination = self.fails()
        self.assertEqual(HARDWARE.faults_left(), [])
        self.gave_up(destination)
        self.said(destination.complaints(), 'SEV:',
                  command or faults[0]['command'], *words or
                  ['HWERROR_PLATFORM'])
        self.source_runs_on()
        self.migrates()

    def test_send_start_length(self):
        self.at_source(fault('SEND_START'))

    def test_send_start(self):
        self.at_source(fault('SEND_START', nth=2))

    def test_send_update_data_length(self):
        self.at_source(fault('SEND_UPDATE_DATA'))

    def test_send_update_data_first(self):
        self.at_source(fault('SEND_UPDATE_DATA', nth=2), words=['block'])

    def test_send_update_data_later(self):
        self.at_source(fault('SEND_UPDATE_DATA', nth=25), words=['block'])

    def test_send_cancel(self):
        """The session that was not closed is closed by the next try."""
        HARDWARE.faults(fault('SEND_UPDATE_DATA', nth=25),
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
        """The source ends all the same, and the guest's key here with it."""
        HARDWARE.faults(fault('SEND_FINISH'))
        source = self.source
        self.migrates()
        self.assertEqual(HARDWARE.faults_left(), [])
        self.said(source.complaints(), 'SEND_FINISH', 'HWERROR_PLATFORM')

    def test_receive_start(self):
        self.at_destination(fault('RECEIVE_START'))

    def test_activate(self):
        self.at_destination(fault('ACTIVATE'), command='RECEIVE_START')

    def test_receive_update_data_first(self):
        self.at_destination(fault('RECEIVE_UPDATE_DATA'),
                            words=['block', 'HWERROR_PLATFORM'])

    def test_receive_update_data_later(self):
        self.at_destination(fault('RECEIVE_UPDATE_DATA', nth=25),
                            words=['block', 'HWERROR_PLATFORM'])

    def test_receive_finish(self):
        self.at_destination(fault('RECEIVE_FINISH'))

    def test_packed_data_corrupt(self):
        self.at_destination(fault('SEND_UPDATE_DATA', 'corrupt', nth=15,
                                  offset=1000),
                            command='RECEIVE_UPDATE_DATA',
                            words=['BAD_MEASUREMENT'])

    def test_header_corrupt(self):
        # After the page, which is all that the packet has then
        self.large = False
        self.at_destination(fault('SEND_UPDATE_DATA', 'corrupt', nth=15,
                                  offset=4096 + 30),
                            command='RECEIVE_UPDATE_DATA',
                            words=['BAD_MEASUREMENT'])

    def test_late(self):
        """Slow is not wrong."""
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
    A tamper function that stops the stream before record @number of @kind
    until release().  Before that, @before has those of counter.PAGES that were
    forwarded; in the end @pages has all that the source has sent.
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
    A tamper function that cuts the connection at @point, (kind of record or
    '' for any, bytes, seconds after them), and calls @then() before.  Its
    .reached says whether the stream was so long.
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
    Sockets that begin to exist now take a few KiB, not hundreds, before who
    writes has to wait.
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
    """migrate_cancel at every stage."""

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
        # It may have heard nothing of it
        self.end(destination)
        self.never_ran(destination)
        self.source_runs_on()
        self.migrates()

    def at(self, kind, number=1):
        """
        The stream is held before a record.  It takes the source no further than
        what a socket and the relay hold, which is less than what it has to
        send: it has not even packed all private pages when it is cancelled.
        Returns how many pages were forwarded before, and what the destination
        has had its firmware unpack.
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
        The guest is stopped, its stream complete and on the way: it arrives,
        and the source runs on.  That the destination does not run it too is
        for its -S, and its manager.
        """
        destination = self.launch(extra=['-S'])
        destination = self.cancelled(Held('rest'), destination)
        self.source_runs_on_beside(destination)
        self.migrates()


class Link(Base):
    """The connection ends, and both ends live on."""

    def cut(self, point):
        _, destination = self.fails(tamper=cut_at(point))
        self.gave_up(destination)
        self.source_runs_on()

    def test_cut(self):
        rest = Counted('rest')
        total, _ = self.migrates(tamper=rest)
        # In what comes before RAM, all over RAM, and among the devices
        for point in ([('', n, 0) for n in (1, 20, 100)] +
                      [('', total * n // 8, 0) for n in range(1, 8)] +
                      [('rest', 1 + (rest.bytes // 2) * n // 4, 0)
                       for n in range(5)]):
            note(f'cut at {point}')
            self.cut(point)
        self.migrates()

    def test_answer_lost(self):
        """
        All has arrived, but the source does not hear of it: it runs on.  That
        the destination does not, is for its -S, and its manager.
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
    The destination has loaded the guest and is killed before it runs it, when
    the source has said that the migration has completed.  So does a management
    layer fail that starts destinations with -S, as libvirt does.
    """
    # The guest without its call of the MSR, which plain guests do not have
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
        # The session is kept
        self.assertEqual(self.source.cmd('query-sev')['state'], 'sent')
        self.firmware_has('running', 'supdate')
        self.kill(destination)
        cancelled = HARDWARE.counts().get('SEND_CANCEL', 0)
        self.source.cmd('cont')
        self.assertEqual(HARDWARE.counts()['SEND_CANCEL'] - cancelled, 1)
        self.source_runs_on()
        self.migrates()

    def test_reset_and_leave(self):
        """The guest is reset where it has left: it is the source's again."""
        destination = self.launch(extra=['-S'])
        link = self.prepare(destination)
        self.dies_paused(self.source, destination, link)
        self.kill(destination)
        self.source.cmd('set-action', reboot='reset')
        self.source.cmd('system_reset')
        self.source.wait_for('reset guest', lambda: self.source.cmd(
            'query-status')['status'] == 'prelaunch', STEP)
        # It begins to count again
        before = self.source.console()
        self.source.cmd('cont')
        self.firmware_has('running')
        flow.wait_agreed(self.source, STEP)
        self.counts(self.source)
        lines = self.source.console()[len(before):].split('\n')
        self.assertIn('a' * 8, lines)
        type(self).clean = False

    def test_control_plain_guest(self):
        """The same becomes of a guest without SEV."""
        path = os.path.join(self.work, 'plain.fd')
        flash.write(path, self.PLAIN)
        # A disk of its own: the other guest's source has that one
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
    Where to kill: @count points as cut_at() takes them.  Half of them in the
    whole stream of @total bytes, a quarter in the @rest of devices after RAM,
    a quarter in the seconds after its last byte, most of them at once.  In an
    order, always the same, in which a part of them is spread as they all are.
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
    kill -9 of either side.  The guest has one owner: the source, until the
    destination runs it.  It dies with its owner only, and nobody else runs
    it.
    """

    def try_to_kill(self, point, who, destination):
        """The Outcome; 'gone' if the source is."""
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
            # No two streams are alike, this one has ended before the point
            kill()
        who.wait_for_end(STEP)
        link.close()
        return outcome

    def kill_destination(self, point):
        destination = self.launch()
        outcome = self.try_to_kill(point, destination, destination)
        self.end(destination)
        if outcome.completed:
            # It had said that it has the guest, and has run it
            self.assertNotEqual(self.source.cmd('query-status')['status'],
                                'running')
            self.is_right(self.source, destination)
            self.firmware_has('supdate')
            self.end(self.source)
            self.firmware_has()
            return 'after'
        self.assertEqual(outcome.status, 'failed')
        self.source_runs_on()
        # It starts the guest, and then says so: the moment between is short
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
        # And one that no stream reaches
        for number, point in enumerate(
                points(KILL_POINTS, total, rest.bytes) + [('', 2 * total, 0)]):
            # A count that is long takes long to look at
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
    """Into a file, with room or without: a file does not answer."""

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


class Stuck(Base):
    """
    A command does not end: Linux gives the PSP up, until the host is started
    again.  The guest runs on, but nobody can come or go.  The last class,
    because nothing works after it.
    """
    TIMEOUT = '/sys/module/ccp/parameters/psp_cmd_timeout'

    def test_send_update_data(self):
        with open(self.TIMEOUT, 'w', encoding='ascii') as f:
            f.write('5')
        self.migrates()     # it is taken over when a command has ended
        waiting = self.launch()
        info = flow.session_info(waiting)
        HARDWARE.faults(fault('SEND_UPDATE_DATA', 'hang', nth=25))
        outcome, destination = self.fails()
        self.said([outcome.error], 'SEND_UPDATE_DATA', 'timed out')
        self.end(destination)
        self.never_ran(destination)
        self.said(self.source.complaints(), 'SEND_CANCEL', 'busy')
        self.counts(self.source)
        self.is_right(self.source)
        # Nobody could tell the firmware that the destination has gone
        states = [s for s, _ in HARDWARE.guests().values()]
        self.assertEqual(sorted(states), ['rupdate', 'supdate'])

        # The next try fails before it begins
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
    # That a QEMU was killed is no news
    logging.getLogger('qemu').setLevel(logging.ERROR)
    tap.main(HARDWARE.why)
