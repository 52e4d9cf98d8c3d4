#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of sev-migrate with domains of libvirt.  Fake modules replace
python3-libvirt.  The tests check the calls of libvirt and each possible outcome
of a migration.
"""

import base64
import json
import time
import types
from unittest import mock

import fakes
from fakes import Qemu
from sevmig import tap
from sevmig.fixture import Platform, ToolCase
from sevmigrate import domain, domainmigration, errors
from sevmigrate.errors import Refused

RUNNING, PAUSED, SHUTOFF = 1, 3, 5


class LibvirtError(Exception):
    pass


class FakeDomain:
    """
    A domain whose QEMU is @qemu.  Its migration takes @takes seconds.
    """

    def __init__(self, qemu, takes=0.05, fails=None, state=RUNNING):
        self.qemu, self.takes, self.fails = qemu, takes, fails
        self.now = state
        self.calls = []
        self.aborted = False

    def isActive(self):
        return True

    def monitor(self, text):
        request = json.loads(text)
        try:
            answer = {'return': self.qemu.cmd(
                request['execute'], **request.get('arguments', {}))}
        except Refused as e:
            answer = {'error': {'class': 'GenericError', 'desc': str(e)}}
        return json.dumps(answer)

    def migrate3(self, destination, parameters, flags):
        self.calls.append(('migrate', parameters, flags))
        self.qemu.status = 'active'
        end = time.monotonic() + self.takes
        while time.monotonic() < end:
            time.sleep(0.005)
            if self.aborted:
                self.qemu.status = 'none'
                raise LibvirtError('operation aborted')
        self.qemu.status = 'none'
        if self.fails:
            self.now = self.fails[1]
            raise LibvirtError(self.fails[0])
        return destination.moved

    def abortJob(self):
        self.aborted = True

    def suspend(self):
        self.calls.append('suspend')

    def resume(self):
        self.calls.append('resume')

    def migrateSetMaxDowntime(self, milliseconds):
        self.calls.append(('downtime', milliseconds))

    def state(self):
        return self.now, 0


class Domains(ToolCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = Platform()

    def setUp(self):
        super().setUp()
        self.qemu = Qemu(None, steps=['active'] * 100000)
        self.domain = FakeDomain(self.qemu)
        self.moved = mock.Mock()
        self.here = mock.Mock()
        self.here.lookupByName.return_value = self.domain
        self.there = mock.Mock(moved=self.moved)
        self.there.getSEVInfo.return_value = {
            'pdh': base64.b64encode(self.platform.pdh).decode()}
        connections = {'qemu:///system': self.here,
                       'qemu+ssh://b/system': self.there}

        def connect(uri):
            if uri not in connections:
                raise LibvirtError(f'cannot connect to {uri}')
            return connections[uri]

        libvirt = types.SimpleNamespace(
            libvirtError=LibvirtError, open=connect,
            registerErrorHandler=lambda *_: None,
            VIR_MIGRATE_LIVE=1, VIR_MIGRATE_TLS=1 << 16,
            VIR_MIGRATE_PARALLEL=1 << 17, VIR_MIGRATE_AUTO_CONVERGE=1 << 13,
            VIR_MIGRATE_POSTCOPY=1 << 15,
            VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS='parallel.connections',
            VIR_MIGRATE_PARAM_BANDWIDTH='bandwidth',
            VIR_MIGRATE_PARAM_TLS_DESTINATION='tls.destination',
            VIR_DOMAIN_RUNNING=RUNNING, VIR_DOMAIN_PAUSED=PAUSED)
        qemu = types.SimpleNamespace(
            VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT=0,
            qemuMonitorCommand=lambda d, text, _: d.monitor(text))
        for target, name, value in (
                (domain, 'libvirt', libvirt), (domain, 'libvirt_qemu', qemu),
                (domainmigration, 'POLL', 0.01)):
            patch = mock.patch.object(target, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.host = self.path('host', self.platform.hostfile().to_json())
        self.ark = self.path('ark', self.platform.ark)

    def run_tool(self, *args, status=0, destination='qemu+ssh://b/system'):
        _, out, err = self.tool(
            'run', '--domain', 'guest', '--destination', destination,
            '--host', self.host, '--ark', self.ark, '--json', *args,
            status=status)
        return json.loads(out) if out else err

    def test_completes(self):
        answer = self.run_tool(
            '--tls', '--multifd', '3', '--auto-converge', '--downtime', '900',
            '--bandwidth', '100M', '--tls-hostname', 'b')
        self.assertIn('runs at the destination', answer['text'])
        self.assertEqual(self.domain.calls, [
            ('downtime', 900),
            ('migrate', {'parallel.connections': 3, 'bandwidth': 100,
                         'tls.destination': 'b'},
             1 | 1 << 16 | 1 << 17 | 1 << 13)])
        self.assertEqual(
            base64.b64decode(self.qemu.arguments('migrate-set-sev-info')
                             ['pdh']), self.platform.pdh)
        # sev-migrate leaves capabilities and parameters to libvirt
        self.assertEqual(self.qemu.names(), ['migrate-set-sev-info'])

    def test_fails(self):
        self.domain.fails = 'destination: no ASID is free', RUNNING
        answer = self.run_tool(status=errors.FAILED)
        self.assertIn('no ASID is free', answer['text'])
        self.domain.fails = 'connection lost', SHUTOFF
        self.run_tool(status=errors.UNCERTAIN)

    def test_interrupted(self):
        self.domain.takes = 30
        with mock.patch.object(domainmigration.DomainMigration, '_show',
                               side_effect=fakes.interrupt):
            answer = self.run_tool(status=errors.CANCELLED)
        self.assertIn('aborted', answer['text'])

    def test_time_limit(self):
        self.domain.takes = 30
        self.run_tool('--time-limit', '1', status=errors.TIME_LIMIT)
        self.assertTrue(self.domain.aborted)

    def test_time_limit_stops_the_guest(self):
        self.domain.takes = 1.2
        self.run_tool('--time-limit', '1', '--on-limit', 'stop')
        self.assertIn('suspend', self.domain.calls)
        self.moved.resume.assert_called_once()
        self.domain.fails = 'x', PAUSED
        self.run_tool('--time-limit', '1', '--on-limit', 'stop',
                      status=errors.TIME_LIMIT)
        self.assertEqual(self.domain.calls[-1], 'resume')

    def test_refusals(self):
        def refused(words, *args, status=errors.PROBLEM, **kw):
            self.assertIn(words, self.run_tool(*args, status=status, **kw))
            self.assertNotIn('migrate', [c[0] for c in self.domain.calls])

        refused('cannot connect', destination='qemu+ssh://c/system')
        refused('--quit', '--quit', status=errors.USAGE)
        refused('--listen', '--listen', 'b', status=errors.USAGE)
        refused('cannot connect', '--connect', 'xen:///', status=3)
        self.there.getSEVInfo.return_value = {'pdh': 'other'}
        refused('export it again there')
        self.qemu.answers['query-sev'] = {
            **self.qemu.cmd('query-sev'), 'policy': 8}
        refused('NOSEND')
        self.domain.isActive = lambda: False
        refused('does not run', status=3)

    def test_monitor(self):
        """domain.Domain returns the answers and errors of QMP commands."""
        with domain.Domain('qemu:///system', 'guest') as d:
            self.assertEqual(d.cmd('query-status')['status'], 'running')
            with self.assertRaisesRegex(Refused, 'not been found'):
                d.cmd('no-such-command')
            self.domain.monitor = lambda text: 'x'
            with self.assertRaisesRegex(errors.Stop, 'no JSON'):
                d.cmd('query-status')
        self.here.close.assert_called_once()


if __name__ == '__main__':
    tap.run()
