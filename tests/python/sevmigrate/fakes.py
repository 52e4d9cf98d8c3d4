"""
A fake monitor, which answers QMP commands as a QEMU would.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import base64
import os
import signal

from sevmigrate.errors import Refused, Stop

READY = {'offered': True, 'ready': True, 'private-pages': 1000,
         'shared-pages': 50}


class Qemu:
    """
    The fake monitor of the source or the destination of a migration.

    @platform: the sevmig.fixture.Platform of its host
    @steps: what happens at each query-migrate after "migrate": either a status,
            which is the answer, or a function, which is called first
    @answers: command -> answer, an exception to raise, or a function that is
              called with the command's arguments
    """

    def __init__(self, platform, steps=('active', 'completed'), state='running',
                 **answers):
        self.address, self.host, self.pid = '/qmp', None, None
        self.platform = platform
        self.steps = list(steps)
        self.state = state
        self.status = 'none'
        self.calls = []
        self.capabilities = dict.fromkeys(
            ('return-path', 'events', 'multifd', 'auto-converge',
             'postcopy-ram'), False)
        self.parameters = {'downtime-limit': 300, 'max-bandwidth': 0,
                           'multifd-channels': 2, 'tls-creds': '',
                           'tls-hostname': ''}
        self.objects = {}
        self.answers = {name.replace('_', '-'): a
                        for name, a in answers.items()}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass

    def names(self):
        """Return the names of the commands that change something."""
        return [name for name, _ in self.calls
                if not name.startswith(('query', 'qom'))]

    def arguments(self, name):
        """Return the arguments of the last command @name."""
        return [a for n, a in self.calls if n == name][-1]

    def cmd(self, name, **arguments):
        self.calls.append((name, arguments))
        answer = self.answers.get(name)
        if callable(answer):
            answer = answer(**arguments)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        method = getattr(self, '_' + name.replace('-', '_'), None)
        if method is None:
            raise Refused(f'The command {name} has not been found')
        return method(**arguments)

    def _query_version(self):
        return {'qemu': {'major': 10, 'minor': 0, 'micro': 13}, 'package': ''}

    def _query_status(self):
        return {'status': self.state, 'running': self.state == 'running'}

    def _query_sev(self):
        return {'enabled': True, 'sev-type': 'sev', 'policy': 1,
                'build-id': 21, 'migration': dict(READY)}

    def _query_sev_capabilities(self):
        p = self.platform
        return {'pdh': base64.b64encode(p.pdh).decode(),
                'cert-chain': base64.b64encode(p.chain()).decode(),
                'cpu0-id': ''}

    def _query_migrate_capabilities(self):
        return [{'capability': c, 'state': s}
                for c, s in self.capabilities.items()]

    def _query_migrate_parameters(self):
        return dict(self.parameters)

    def _migrate_set_capabilities(self, capabilities):
        for c in capabilities:
            assert c['capability'] in self.capabilities
            self.capabilities[c['capability']] = c['state']

    def _migrate_set_parameters(self, **parameters):
        self.parameters.update(parameters)

    def _migrate_set_sev_info(self, **_):
        pass

    def _migrate_incoming(self, uri):
        self.objects['listens'] = uri

    def _object_add(self, **properties):
        self.objects[properties['id']] = properties

    def _object_del(self, **properties):
        del self.objects[properties['id']]

    def _migrate(self, uri):
        assert uri
        self.status = 'setup'

    def _migrate_cancel(self):
        self.steps = ['cancelling', 'cancelled']

    def _stop(self):
        self.state = 'paused'

    def _cont(self):
        self.state = 'running'

    def _quit(self):
        raise Stop('the connection was lost')

    def _query_migrate(self):
        if 'listens' in self.objects:
            return {'status': 'setup', 'socket-address': [
                {'type': 'inet', 'host': '0.0.0.0', 'port': '4711'}]}
        if self.status == 'none':
            return {}
        while self.steps and callable(self.steps[0]):
            self.steps.pop(0)()
        if self.steps:
            self.status = self.steps.pop(0)
        if self.status == 'completed':
            self.state = 'postmigrate'
        return {'status': self.status, 'total-time': 1234, 'downtime': 56,
                'ram': {'dirty-sync-count': 3, 'remaining': 40960,
                        'total': 4096000, 'transferred': 1 << 20,
                        'mbps': 100.0},
                'encrypted-ram': {
                    'private-pages': 900, 'platform-time': 2000,
                    'unallocated-pages': 100, 'shared-pages': 50,
                    'remaining-private-pages': 5,
                    'private-pages-per-second': 400},
                **({'error-desc': 'destination: no ASID is free'}
                   if self.status == 'failed' else {})}


def interrupt():
    """Send SIGINT to this process, as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)
