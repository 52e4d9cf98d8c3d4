#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of "sev-migrate run": each possible outcome of a migration, and each
reason to refuse one.
"""

import base64
import io
import json
import unittest
from unittest import mock

import fakes
from fakes import Qemu
from sevmig import tap
from sevmig.fixture import Platform, ToolCase
from sevmigrate import errors, migration, progress
from sevmigrate.errors import Refused, Stop


class Run(ToolCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = Platform()

    def setUp(self):
        super().setUp()
        for name, value in ('POLL', 0.001), ('ARRIVAL', 0.05), \
                ('CANCEL', 0.05):
            patch = mock.patch.object(migration, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.source = Qemu(None)
        self.destination = Qemu(self.platform, state='inmigrate')
        # The guest arrives just before the source reports "completed"
        self.source.steps[-1:] = [self.arrive, 'completed']
        self.write_host()

    def write_host(self, **kw):
        self.host = self.path('host', self.platform.hostfile(**kw).to_json())
        self.ark = self.path('ark', self.platform.ark)

    def arrive(self, state='running'):
        self.destination.state = state
        self.destination.objects.pop('listens', None)

    def run_tool(self, *args, status=0, destination='/dst', ark=True,
                 listen=True):
        """
        Run the tool; return its JSON output as a dict, or else its stderr.
        """
        monitors = {'/src': self.source, '/dst': self.destination,
                    'host-b:4444': self.destination}
        if ark:
            args += '--ark', self.ark
        if listen:
            args += '--listen', 'host-b'
        with mock.patch('sevmigrate.run.Monitor',
                        side_effect=lambda a: monitors[a]):
            _, out, err = self.tool(
                'run', '--source', '/src', '--destination', destination,
                '--host', self.host, '--json', *args, status=status)
        return json.loads(out) if out else err

    def refused(self, words, *args, status=errors.PROBLEM, **kw):
        """
        Check that the tool refuses to migrate with @words, starts no migration,
        and leaves the settings of both QEMUs as they were.
        """
        before = [(dict(q.capabilities), dict(q.parameters))
                  for q in (self.source, self.destination)]
        said = self.run_tool(*args, status=status, **kw)
        self.assertIn(words, said)
        self.assertNotIn('Traceback', said)
        self.assertEqual(before, [(q.capabilities, q.parameters)
                                  for q in (self.source, self.destination)])
        self.assertEqual(self.source.status, 'none')
        self.assertEqual(self.source.state, 'running')
        return said

    # Migrations that complete

    def test_completes(self):
        answer = self.run_tool('--downtime', '2000', '--bandwidth', '100M')
        self.assertTrue(answer['verified'])
        self.assertEqual(answer['query-migrate']['downtime'], 56)
        self.assertIn('runs at the destination', answer['text'])
        self.assertEqual(self.source.names(), [
            'migrate-set-capabilities', 'migrate-set-parameters',
            'migrate-set-sev-info', 'migrate'])
        self.assertEqual(self.source.arguments('migrate'),
                         {'uri': 'tcp:host-b:4711'})
        self.assertEqual(self.source.arguments('migrate-set-parameters'), {
            'downtime-limit': 2000, 'max-bandwidth': 100 << 20})
        self.assertEqual(
            base64.b64decode(self.source.arguments('migrate-set-sev-info')
                             ['amd-cert']), self.platform.amd())
        self.assertTrue(self.source.capabilities['return-path'])
        self.assertEqual(self.destination.names(), [
            'migrate-set-capabilities', 'migrate-incoming'])

    def test_all_options(self):
        self.run_tool('--tls', '/etc/pki', '--tls-hostname', 'b', '--multifd',
                      '4', '--auto-converge', '--quit')
        for qemu, endpoint in ((self.source, 'client'),
                               (self.destination, 'server')):
            self.assertTrue(qemu.capabilities['multifd'])
            self.assertTrue(qemu.capabilities['auto-converge'])
            self.assertEqual(qemu.parameters['multifd-channels'], 4)
            tls = qemu.objects[qemu.parameters['tls-creds']]
            self.assertEqual((tls['dir'], tls['endpoint']),
                             ('/etc/pki', endpoint))
        self.assertEqual(self.source.parameters['tls-hostname'], 'b')
        self.assertEqual(self.destination.parameters['tls-hostname'], '')
        self.assertEqual(self.source.names()[-1], 'quit')

    def test_existing_credentials(self):
        self.run_tool('--tls-creds', 'tls0')
        self.assertEqual(self.source.parameters['tls-creds'], 'tls0')
        self.assertNotIn('object-add', self.source.names())

    def test_multifd_of_an_earlier_migration_is_off(self):
        self.source.capabilities['multifd'] = True
        self.run_tool()
        self.assertFalse(self.source.capabilities['multifd'])

    def test_destination_with_S(self):
        self.source.steps = [lambda: self.arrive('paused'), 'completed']
        self.run_tool()
        self.assertEqual(self.destination.state, 'running')

    def test_paused_guest_stays_paused(self):
        self.source.state = 'paused'
        self.source.steps = [lambda: self.arrive('paused'), 'completed']
        answer = self.run_tool()
        self.assertIn('paused as before', answer['text'])
        self.assertNotIn('cont', self.destination.names())

    def test_listens(self):
        """Without --listen, the destination listens at its monitor's host."""
        self.destination.host = 'host-b'
        self.run_tool(destination='host-b:4444', listen=False)
        self.assertEqual(self.source.arguments('migrate')['uri'],
                         'tcp:host-b:4711')

    def test_listen_address(self):
        for listen, incoming, uri in (
                ('10.0.0.2', 'tcp:10.0.0.2:0', 'tcp:10.0.0.2:4711'),
                ('[fe80::2]', 'tcp:[fe80::2]:0', 'tcp:[fe80::2]:4711'),
                ('[fe80::2]:49', 'tcp:[fe80::2]:49', 'tcp:[fe80::2]:4711'),
                ('b:4711', 'tcp:b:4711', 'tcp:b:4711'),
                ('unix:/run/m', 'unix:/run/m', 'unix:/run/m')):
            with self.case(listen):
                self.setUp()
                self.run_tool('--listen', listen, listen=False)
                self.assertEqual(
                    self.destination.arguments('migrate-incoming')['uri'],
                    incoming)
                self.assertEqual(self.source.arguments('migrate')['uri'], uri)

    def test_uri(self):
        """--destination is a URI, so the tool uses no monitor there."""
        answer = self.run_tool(destination='tcp:10.0.0.2:49', listen=False)
        self.assertIn('the destination has the guest', answer['text'])
        self.assertEqual(self.source.arguments('migrate')['uri'],
                         'tcp:10.0.0.2:49')
        self.assertEqual(self.destination.calls, [])

    def test_time_limit_stops_the_guest(self):
        self.source.steps = [*['active'] * 2000,
                             lambda: self.arrive('paused'), 'completed']
        answer = self.run_tool('--time-limit', '1', '--on-limit', 'stop')
        self.assertIn('stop', self.source.names())
        self.assertEqual(answer['status'], 0)
        self.assertEqual(self.destination.state, 'running')

    # Migrations that do not complete

    def ends(self, status, words, *args):
        """
        Check that the migration ends with the exit status @status and a text
        that has @words, and that the settings of the source are as before.
        """
        before = dict(self.source.parameters), dict(self.source.capabilities)
        answer = self.run_tool(*args, status=status)
        self.assertIn(words, answer['text'])
        self.assertEqual(
            (self.source.parameters, self.source.capabilities), before)
        return answer

    def test_fails(self):
        self.source.steps = ['active', 'failed']
        self.ends(errors.FAILED, 'no ASID is free', '--downtime', '9', '--tls',
                  '/x', '--multifd', '2')
        self.assertEqual(self.source.objects, {})
        self.assertEqual(self.source.state, 'running')

    def test_interrupted(self):
        self.source.steps = ['active', fakes.interrupt, *['active'] * 1000]
        self.ends(errors.CANCELLED, 'cancelled by you')
        self.assertEqual(self.source.names().count('migrate_cancel'), 1)

    def test_interrupted_too_late(self):
        """The migration completes before QEMU executes migrate_cancel."""
        self.source.answers['migrate_cancel'] = {}
        self.source.steps = [fakes.interrupt, 'device', self.arrive,
                             'completed']
        self.assertEqual(self.run_tool()['status'], 0)

    def test_cancel_hangs(self):
        self.source.answers['migrate_cancel'] = {}
        self.source.steps = [fakes.interrupt, *['active'] * 100000]
        answer = self.run_tool(status=errors.UNCERTAIN)
        self.assertIn('after migrate_cancel', answer['text'])

    def test_cancelled_by_somebody(self):
        self.source.steps = ['active', 'cancelled']
        self.ends(errors.FAILED, 'by somebody else')

    def test_time_limit(self):
        self.source.steps = ['active'] * 100000
        self.ends(errors.TIME_LIMIT, 'at the time limit', '--time-limit', '1')

    def test_stopped_guest_runs_again(self):
        """
        The tool stops the guest at the time limit.  Then the migration fails,
        and the tool lets the guest run again.
        """
        self.source.steps = [*['active'] * 2000, 'failed']
        self.ends(errors.FAILED, 'the guest is running at the source',
                  '--time-limit', '1', '--on-limit', 'stop')
        self.assertEqual(self.source.names().count('cont'), 1)

    def test_does_not_arrive(self):
        self.source.steps = ['completed']
        answer = self.run_tool('--quit', status=errors.UNCERTAIN)
        self.assertIn('"cont" at the source takes the guest back',
                      answer['text'])
        self.assertNotIn('quit', self.source.names())

    def test_destination_is_lost(self):
        self.source.steps = [lambda: self.destination.answers.update(
            {'query-status': Stop('connection lost')}), 'completed']
        answer = self.run_tool(status=errors.UNCERTAIN)
        self.assertIn('connection lost', answer['text'])

    def test_source_is_lost(self):
        self.source.steps = ['active', lambda: self.source.answers.update(
            {'query-migrate': Stop('connection lost')}), 'active', 'active']
        answer = self.run_tool(status=errors.UNCERTAIN)
        self.assertIn('exactly one of them', answer['text'])

    # Refusals

    def test_broken_chain(self):
        self.write_host(plat_cert=self.platform.chain(
            self.platform.unsigned_cek))
        self.refused('ASK signs CEK: MISSING')
        answer = self.run_tool('--unverified')
        self.assertFalse(answer['verified'])

    def test_unknown_root(self):
        self.refused('no product line', ark=False)

    def test_no_amd_certificates(self):
        self.write_host(amd_cert=b'')
        self.refused('ASK and ARK: MISSING')
        self.refused('no ASK and ARK', '--unverified', status=errors.UNUSABLE)

    def test_guest_that_cannot_leave(self):
        sev = self.source.cmd('query-sev')
        for change, words in (
                ({'policy': 8}, 'NOSEND'), ({'policy': 4}, 'ES'),
                ({'migration': {**fakes.READY, 'ready': False}},
                 'has not agreed'),
                ({'migration': {**fakes.READY, 'ready': False,
                                'offered': False}}, 'does not offer'),
                ({'migration': {**fakes.READY, 'blocked': 'a page is stuck'}},
                 'a page is stuck')):
            with self.case(words):
                self.source.answers['query-sev'] = {**sev, **change}
                self.refused(words)
        for answer, words in (
                ({'enabled': False}, 'not encrypted'),
                ({**sev, 'sev-type': 'sev-snp'}, 'SEV-SNP'),
                ({'enabled': True, 'policy': 1}, 'cannot migrate SEV guests')):
            self.source.answers['query-sev'] = answer
            self.refused(words, status=errors.UNUSABLE)

    def test_wrong_states(self):
        self.source.answers['query-migrate'] = {'status': 'active'}
        self.refused('is active already')
        self.source.answers['query-migrate'] = {
            'blocked-reasons': ['device x']}
        self.refused('device x')
        del self.source.answers['query-migrate']
        self.source.answers['query-status'] = {'status': 'postmigrate'}
        self.refused('has left')
        del self.source.answers['query-status']
        self.destination.state = 'running'
        self.refused('-incoming defer')

    def test_wrong_destination(self):
        sev = self.destination.cmd('query-sev')
        self.destination.answers['query-sev'] = {**sev, 'policy': 0x21}
        self.refused('policy 0x1')
        del self.destination.answers['query-sev']
        self.destination.platform = Platform()
        self.refused('export it again there')

    def test_helper(self):
        """
        The tool refuses --helper unless the guest has a migration helper, and
        says why the guest has none.
        """
        self.source.answers['qom-list'] = lambda path: [
            {'name': 'sev0', 'type': 'child<sev-guest>'}] \
            if path == '/objects' else [{'name': 'policy'}]
        self.refused('no property migration-helper', '--helper')
        self.source.answers['qom-list'] = lambda path: [
            {'name': 'sev0', 'type': 'child<sev-guest>'}] \
            if path == '/objects' else [{'name': 'migration-helper'}]
        self.refused('launched without', '--helper')
        sev = self.source.cmd('query-sev')
        sev['migration']['helper'] = {'present': False, 'unused': 'no AES-NI'}
        self.source.answers['query-sev'] = sev
        self.refused('no AES-NI', '--helper')
        self.source.answers['qom-list'] = lambda path: []
        self.refused('no sev-guest', '--helper')

    def test_helper_is_there(self):
        self.source.answers['qom-list'] = lambda path: [
            {'name': 'sev0', 'type': 'child<sev-guest>'}] \
            if path == '/objects' else [{'name': 'migration-helper'}]
        sev = self.source.cmd('query-sev')
        sev['migration']['helper'] = {'present': True}
        self.source.answers['query-sev'] = sev
        self.run_tool('--helper')

    def test_qemu_refuses(self):
        """If QEMU refuses a command, the tool restores the settings."""
        for name in ('migrate-set-capabilities', 'migrate-set-parameters',
                     'migrate-set-sev-info', 'migrate'):
            with self.case(name):
                self.setUp()
                # The first call of the command fails.  The second call, which
                # restores the settings, succeeds.
                real = getattr(self.source, '_' + name.replace('-', '_'))
                answers = iter([Refused('not with a confidential guest')])
                self.source.answers[name] = lambda n=answers, f=real, **kw: \
                    next(n, None) or f(**kw)
                self.refused('not with a confidential guest', '--postcopy',
                             '--downtime', '5')
        self.setUp()
        self.destination.answers['object-add'] = Refused('no such directory')
        self.refused('no such directory', '--tls', '/x')
        self.setUp()
        self.destination.answers['migrate-incoming'] = Refused('in use')
        self.refused('in use')

    def test_old_qemu(self):
        del self.source.capabilities['auto-converge']
        self.refused('no capability auto-converge', '--auto-converge')

    def test_usage(self):
        for args, words in (
                (['--multifd', '0'], 'from 1 to 255'),
                (['--multifd', 'x'], 'from 1 to 255'),
                (['--downtime', '-5'], 'positive'),
                (['--time-limit', '0'], 'positive'),
                (['--bandwidth', 'fast'], 'size'),
                (['--on-limit', 'wait'], 'invalid choice'),
                (['--tls', '/x', '--tls-creds', 'y'], 'not allowed'),
                (['--mult', '2'], 'unrecognized')):
            with self.case(args):
                self.refused(words, *args, status=errors.USAGE)
        self.refused('--listen is needed', listen=False, status=errors.USAGE)
        self.refused('--listen is for', destination='tcp:b:1',
                     status=errors.USAGE)
        self.fails(['required'], 'run', '--source', '/x', status=2)
        self.fails(['libvirt'], 'run', '--domain', 'x', '--destination', '/y',
                   '--host', self.host, status=2)


class Progress(unittest.TestCase):
    """The progress that the user sees."""

    def test_line(self):
        info = {'status': 'active', 'ram': {
            'remaining': 300 * 4096, 'total': 1000 * 4096, 'mbps': 8.192,
            'dirty-sync-count': 2}, 'encrypted-ram': {
                'remaining-private-pages': 200,
                'private-pages-per-second': 20}}
        now = progress.left(info)
        self.assertEqual((now.private, now.shared), (200, 100))
        self.assertAlmostEqual(now.seconds(), 10.4)
        text = progress.line(now)
        for word in ('round 2', ' 70%', '200 private, 100 shared', '10 s',
                     '#' * 16 + '.' * 8):
            self.assertIn(word, text)

    def test_nothing_known(self):
        for info in ({}, {'status': 'setup'}, {'status': 'active', 'ram': {}}):
            progress.line(progress.left(info))
        now = progress.left({'ram': {'remaining': 4096, 'total': 8192},
                             'encrypted-ram': {'remaining-private-pages': 1}})
        self.assertIsNone(now.seconds())
        self.assertIn('unknown', progress.line(now))

    def test_display(self):
        """
        On a terminal, the Display updates one line.  Elsewhere, it prints
        lines.
        """
        now = progress.left({'status': 'active'})
        for terminal, lines in (True, 0), (False, 1):
            stream = io.StringIO()
            stream.isatty = lambda t=terminal: t
            display = progress.Display(False, stream)
            display.show(now)
            display.show(now)
            self.assertEqual(stream.getvalue().count('\n'), lines)
            self.assertEqual(stream.getvalue().count('\r'), 0 if lines else 2)
            display.say('text')
            display.end()
            self.assertTrue(stream.getvalue().endswith('\ntext\n'))
        stream = io.StringIO()
        quiet = progress.Display(True, stream)
        quiet.show(now)
        quiet.say('x')
        self.assertEqual(stream.getvalue(), '')


if __name__ == '__main__':
    tap.run()
