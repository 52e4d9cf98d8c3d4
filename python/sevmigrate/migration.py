"""
Migration between two QEMUs, which this module controls by QMP.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import signal
import time
from dataclasses import dataclass, field

from . import errors, guest, guestcheck, progress, recorder
from .errors import Refused, Stop

POLL = 0.25             # seconds
ARRIVAL = 60            # seconds until the destination must have the guest
CANCEL = 120            # seconds until a migration must be cancelled
TLS_ID = 'sev-migrate-tls'


@dataclass
class Options:
    """The options of the command line; see run.add()."""
    listen: str = ''
    tls_dir: str = ''
    tls_creds: str = ''
    tls_hostname: str = ''
    multifd: int = 0
    auto_converge: bool = False
    postcopy: bool = False
    helper: bool = False
    downtime_ms: int = 0
    bandwidth: int = 0
    time_limit: int = 0
    stop_at_limit: bool = False
    quit_source: bool = False
    picture: str = ''


@dataclass
class Outcome:
    """
    How a migration ended: the exit status, a sentence, and QEMU's last answer
    to query-migrate.
    """
    status: int
    text: str
    info: dict = field(default_factory=dict)


class Interrupts:
    """
    Counts Ctrl-C (and SIGTERM) instead of ending the program.  The third signal
    ends the program.
    """

    def __init__(self):
        self.count = 0
        self._old = {}

    def _caught(self, *_):
        self.count += 1
        if self.count > 2:
            raise KeyboardInterrupt

    def __enter__(self):
        for number in signal.SIGINT, signal.SIGTERM:
            self._old[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_):
        for number, old in self._old.items():
            signal.signal(number, old)


class Settings:
    """
    Sets capabilities and parameters of one QEMU.  restore() sets them back to
    the values that they had when this object was made.
    """

    def __init__(self, monitor):
        self.monitor = monitor
        self._capabilities = {
            c['capability']: c['state']
            for c in monitor.cmd('query-migrate-capabilities')}
        self._parameters = monitor.cmd('query-migrate-parameters')
        self._changed = [], []
        self._object = False

    def add_tls(self, directory, endpoint):
        """
        Create an object tls-creds-x509 with the credentials in @directory, a
        path on the host of this QEMU.
        """
        self.monitor.cmd('object-add', **{
            'qom-type': 'tls-creds-x509', 'id': TLS_ID, 'dir': directory,
            'endpoint': endpoint, 'verify-peer': True})
        self._object = True

    def set(self, capabilities, parameters):
        missing = [c for c, on in capabilities.items()
                   if on and c not in self._capabilities]
        if missing:
            raise Stop(f'{self.monitor.address}: this QEMU has no capability '
                       + ', '.join(missing), errors.PROBLEM)
        # Switch capabilities off before others are switched on, because QEMU
        # refuses some combinations.
        for wanted in False, True:
            change = [{'capability': c, 'state': on}
                      for c, on in capabilities.items()
                      if on == wanted and
                      self._capabilities.get(c, False) != on]
            if change:
                self._changed[0].extend(c['capability'] for c in change)
                self.monitor.cmd('migrate-set-capabilities',
                                 capabilities=change)
        if parameters:
            self._changed[1].extend(parameters)
            self.monitor.cmd('migrate-set-parameters', **parameters)

    def restore(self):
        """Set everything back.  Ignores errors, because QEMU may have ended."""
        capabilities, parameters = self._changed
        old = {name: self._parameters.get(name, '') for name in parameters
               if name in self._parameters or name.startswith('tls-')}
        commands = [('migrate-set-parameters', old)] if old else []
        if capabilities:
            commands.append(('migrate-set-capabilities', {'capabilities': [
                {'capability': c, 'state': self._capabilities[c]}
                for c in capabilities]}))
        if self._object:
            commands.append(('object-del', {'id': TLS_ID}))
        for name, arguments in commands:
            try:
                self.monitor.cmd(name, **arguments)
            except (Refused, Stop):
                pass


def refuse(text):
    """Return the error for a migration that was not started."""
    return Stop(text, errors.PROBLEM)


def check_helper(source):
    """Refuse unless the guest of @source has the migration helper."""
    for memdev in source.cmd('qom-list', path='/objects'):
        if memdev['type'] != 'child<sev-guest>':
            continue
        path = f'/objects/{memdev["name"]}'
        names = {p['name'] for p in source.cmd('qom-list', path=path)}
        if 'migration-helper' not in names:
            raise refuse('--helper: this QEMU has no migration helper '
                         '(sev-guest has no property migration-helper); '
                         'without --helper the firmware sends private pages')
        helper = guest.sev(source)['migration'].get('helper')
        if not helper:
            raise refuse('--helper: the guest was launched without the '
                         'migration helper; its owner must launch it with '
                         'migration-helper=on')
        if not helper['present']:
            raise refuse('--helper: the memory of the guest has lost the '
                         'migration helper, because an earlier migration did '
                         'not use it: ' + helper.get('unused', 'no reason'))
        return
    raise refuse('--helper: the source has no sev-guest object')


def check_source(source):
    """
    Refuse unless the guest can be migrated.  Returns the answer of query-sev
    and the run state.
    """
    sev = guest.sev(source)
    state = source.cmd('query-status')['status']
    status = guest.migrating(source)
    if status:
        raise refuse(f'a migration of the guest is {status} already')
    bad = guestcheck.items(source)
    bad = [i for i in bad if i.status == guestcheck.BAD]
    if bad:
        raise refuse('; '.join(f'{i.name}: {i.text} ({i.advice})'
                               for i in bad))
    return sev, state


def check_destination(destination, host, sev):
    """
    Refuse unless @destination waits for a guest with the policy of @sev, on the
    platform that @host describes.
    """
    state = destination.cmd('query-status')['status']
    if state != 'inmigrate':
        raise refuse(f'{destination.address}: the destination is {state}; '
                     'start it with "-incoming defer"')
    there = guest.sev(destination)
    if there['policy'] != sev['policy']:
        raise refuse(f'the guest has policy {sev["policy"]:#x}, the '
                     f'destination was started with {there["policy"]:#x}')
    pdh = destination.cmd('query-sev-capabilities')['pdh']
    if pdh != host.info()['pdh']:
        raise refuse('the host file is not that of the destination, or its '
                     'PDH has changed since: export it again there')


class Migration:
    """
    One migration.

    @source: monitor.Monitor of the source
    @destination: monitor.Monitor of the destination; None if it already listens
                  at @uri
    @uri: URI at which the destination listens; '' if start() makes it listen
    @host: hostfile.HostFile of the destination, which the caller has verified
    """

    def __init__(self, source, destination, uri, host, options, display):
        self.source, self.destination, self.uri = source, destination, uri
        self.host, self.options, self.display = host, options, display
        self.settings = []
        self.stopped = False            # _at_limit() has stopped the guest
        self.was_running = True
        self.limit_reached = False
        self.recorder = None

    def _capabilities(self):
        o = self.options
        return {'return-path': True, 'events': True,
                'multifd': bool(o.multifd), 'auto-converge': o.auto_converge,
                'postcopy-ram': o.postcopy}

    def _parameters(self, of_source):
        o = self.options
        out = {}
        if o.multifd:
            out['multifd-channels'] = o.multifd
        if o.tls_dir or o.tls_creds:
            out['tls-creds'] = o.tls_creds or TLS_ID
        if of_source:
            if o.tls_hostname:
                out['tls-hostname'] = o.tls_hostname
            if o.downtime_ms:
                out['downtime-limit'] = o.downtime_ms
            if o.bandwidth:
                out['max-bandwidth'] = o.bandwidth
        return out

    def _prepare(self, monitor, endpoint):
        settings = Settings(monitor)
        self.settings.append(settings)
        if self.options.tls_dir:
            settings.add_tls(self.options.tls_dir, endpoint)
        settings.set(self._capabilities(),
                     self._parameters(monitor is self.source))

    def _listen(self):
        """Let the destination listen; return the URI for the source."""
        listen = self.options.listen
        if listen.startswith('unix:'):
            self.destination.cmd('migrate-incoming', uri=listen)
            return listen
        address, colon, port = listen.rpartition(':')
        if not colon or listen.endswith(']'):
            address, port = listen, '0'
        self.destination.cmd('migrate-incoming', uri=f'tcp:{address}:{port}')
        at, = self.destination.cmd('query-migrate')['socket-address']
        return f'tcp:{address}:{at["port"]}'

    def _record(self):
        """If the user wants a picture, send the stream through a Recorder."""
        if self.options.picture:
            self.recorder = recorder.Recorder(self.source.pid)
            self.uri = self.recorder.start(self.uri)

    def _close_recorder(self):
        if self.recorder:
            self.recorder.close()

    def _draw(self, outcome):
        """
        If the user wants a picture and the migration has succeeded, write the
        picture.  Returns @outcome, which then mentions the picture.
        """
        self._close_recorder()
        if self.recorder and outcome.status == errors.OK:
            wrong = self.recorder.write(self.options.picture, outcome.info)
            outcome.text += '; ' + (
                f'there is no picture: {wrong}' if wrong else
                f'the picture is {self.options.picture}')
        return outcome

    def start(self):
        """
        Prepare both sides and start the migration.  Raises Stop if a check
        fails or a QEMU refuses a command.
        """
        sev, state = check_source(self.source)
        self.was_running = state == 'running'
        if self.options.helper:
            check_helper(self.source)
        if self.destination:
            check_destination(self.destination, self.host, sev)
        try:
            if self.destination:
                self._prepare(self.destination, 'server')
            self._prepare(self.source, 'client')
            self.source.cmd('migrate-set-sev-info', **self.host.info())
            if self.destination:
                self.uri = self._listen()
            self._record()
            self.source.cmd('migrate', uri=self.uri)
        except (Refused, Stop) as e:
            self._close_recorder()
            self.restore()
            raise refuse(str(e)) from None

    def restore(self):
        """
        Set capabilities and parameters of both sides back after a migration
        that did not succeed.
        """
        for settings in self.settings:
            settings.restore()

    def _at_limit(self):
        """
        Stop the guest or cancel the migration, as the option --on-limit says.
        """
        self.limit_reached = True
        if self.options.stop_at_limit and self.was_running:
            self.display.say('The time limit is reached: the guest is '
                             'stopped.')
            self.stopped = True
            self.source.cmd('stop')
            return
        self.display.say('The time limit is reached: the migration is '
                         'cancelled.')
        self.source.cmd('migrate_cancel')

    def _poll(self):
        info = self.source.cmd('query-migrate')
        self.display.show(progress.left(info))
        return info

    def _follow(self, interrupts):
        """
        Wait until the migration has ended; return QEMU's last answer to
        query-migrate.
        """
        began = time.monotonic()
        cancelled = None
        postcopy = not self.options.postcopy
        while True:
            info = self._poll()
            status = info.get('status')
            if status in guest.ENDED:
                return info
            now = time.monotonic()
            if interrupts.count and cancelled is None:
                self.display.say('Interrupted: the migration is cancelled.')
                self.source.cmd('migrate_cancel')
                cancelled = now
            if cancelled is not None and now > cancelled + CANCEL:
                raise Stop(f'the migration is still {status} {CANCEL} seconds '
                           'after migrate_cancel', errors.UNCERTAIN)
            if self.options.time_limit and not self.limit_reached and \
               cancelled is None and now - began >= self.options.time_limit:
                self._at_limit()
                if not self.stopped:
                    cancelled = now
            if not postcopy and info.get('ram', {}).get(
                    'dirty-sync-count', 0) > 1:
                postcopy = True
                self.source.cmd('migrate-start-postcopy')
            time.sleep(POLL)

    def _arrived(self):
        """Wait until the destination has the guest, and let it run."""
        end = time.monotonic() + ARRIVAL
        asked = False
        while True:
            state = self.destination.cmd('query-status')['status']
            if state == 'running' or (not self.was_running and
                                      state in ('paused', 'suspended')):
                return
            if state in ('paused', 'prelaunch', 'suspended') and not asked:
                # The destination was started with -S, or _at_limit() has
                # stopped the guest
                self.destination.cmd('cont')
                asked = True
            if time.monotonic() > end:
                raise Stop(f'the destination is {state}')
            time.sleep(POLL)

    def _completed(self, info):
        if self.destination:
            try:
                self._arrived()
            except (Refused, Stop) as e:
                return Outcome(errors.UNCERTAIN, (
                    f'the guest has left the source, but {e}.  If the '
                    'destination does not run it: end the destination, then '
                    '"cont" at the source takes the guest back'), info)
        text = 'the guest runs at the destination'
        if not self.was_running:
            text = 'the guest is at the destination, and paused as before'
        elif not self.destination:
            text = 'the destination has the guest'
            if self.stopped:
                text += '; it is paused, use "cont" there'
        if self.options.quit_source:
            try:
                self.source.cmd('quit')
            except (Refused, Stop):
                pass            # QEMU may end before it answers
            text += '; the QEMU of the source has ended'
        else:
            text += '; the QEMU of the source waits for "quit"'
        return Outcome(errors.OK, text, info)

    def _not_completed(self, info, interrupted):
        self.restore()
        if self.stopped:
            self.source.cmd('cont')
        state = self.source.cmd('query-status')['status']
        if info['status'] == 'failed':
            return Outcome(errors.FAILED, (
                f'the migration failed: {info.get("error-desc", "no reason")}'
                f'; the guest is {state} at the source'), info)
        reason, status = 'by somebody else', errors.FAILED
        if interrupted:
            reason, status = 'by you', errors.CANCELLED
        elif self.limit_reached:
            reason, status = 'at the time limit', errors.TIME_LIMIT
        return Outcome(status, f'the migration was cancelled {reason}; the '
                       f'guest is {state} at the source', info)

    def run(self):
        """Migrate; return the Outcome.  Raises Stop if it was not started."""
        with Interrupts() as interrupts:
            self.start()
            try:
                info = self._follow(interrupts)
                self.display.end()
                if info['status'] == 'completed':
                    return self._draw(self._completed(info))
                return self._draw(self._not_completed(
                    info, bool(interrupts.count)))
            except (Refused, Stop) as e:
                self.display.end()
                self._close_recorder()
                return Outcome(errors.UNCERTAIN, (
                    f'{e}.  Look at both sides with query-status and '
                    'query-migrate: exactly one of them may run the guest'))
