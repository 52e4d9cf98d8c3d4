"""
Migration of a domain of libvirt.

libvirt migrates the guest.  libvirt has no interface for the certificates of
the destination, so this module passes them to QEMU with a QMP command, which
libvirt forwards (virDomainQemuMonitorCommand).

SPDX-License-Identifier: GPL-2.0-or-later
"""

import threading
import time

from . import domain as domains
from . import errors, migration, progress
from .errors import Refused, Stop

POLL = 0.5


class DomainMigration:
    """
    One migration of a domain.

    @source: the domain.Domain to migrate
    @uri: URI of the destination's libvirt
    The arguments @host, @options and @display are those of migration.Migration.
    """

    def __init__(self, source, uri, host, options, display):
        self.source, self.uri = source, uri
        self.host, self.options, self.display = host, options, display
        self.error = None
        self.moved = None           # the domain at the destination
        self.stopped = False
        self.limit_reached = False

    def _unsupported(self):
        """Raise Stop for an option whose value libvirt chooses itself."""
        o = self.options
        if o.listen or o.tls_creds or o.quit_source:
            raise Stop('--listen, --tls-creds and --quit are for QEMUs without '
                       'libvirt', errors.USAGE)

    def _flags(self):
        o = self.options
        flags = domains.libvirt.VIR_MIGRATE_LIVE
        for wanted, flag in (
                (o.tls_dir, domains.libvirt.VIR_MIGRATE_TLS),
                (o.multifd, domains.libvirt.VIR_MIGRATE_PARALLEL),
                (o.auto_converge, domains.libvirt.VIR_MIGRATE_AUTO_CONVERGE),
                (o.postcopy, domains.libvirt.VIR_MIGRATE_POSTCOPY)):
            flags |= flag if wanted else 0
        return flags

    def _parameters(self):
        o = self.options
        out = {}
        if o.multifd:
            out[domains.libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = o.multifd
        if o.bandwidth:         # libvirt wants MiB per second
            out[domains.libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(
                1, o.bandwidth >> 20)
        if o.tls_hostname:
            out[domains.libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] = o.tls_hostname
        return out

    def _migrate(self, destination):
        try:
            self.moved = self.source.domain.migrate3(
                destination, self._parameters(), self._flags())
        except domains.libvirt.libvirtError as e:
            self.error = e

    def _show(self):
        """
        Show the progress; return QEMU's answer to query-migrate, or {} if QEMU
        does not answer.
        """
        try:
            info = self.source.cmd('query-migrate')
        except (Refused, Stop):
            return {}           # libvirt has ended this QEMU
        if info.get('status'):
            self.display.show(progress.left(info))
        return info

    def _at_limit(self):
        self.limit_reached = True
        if self.options.stop_at_limit:
            self.display.say('The time limit is reached: the guest is '
                             'stopped.')
            self.stopped = True
            self.source.domain.suspend()
        else:
            self._abort('The time limit is reached')

    def _abort(self, why):
        self.display.say(f'{why}: the migration is cancelled.')
        try:
            self.source.domain.abortJob()
        except domains.libvirt.libvirtError as e:
            # The migration has ended, or libvirt cannot cancel it any more
            self.display.say(f'libvirt: {e}')

    def _follow(self, thread, interrupts):
        began, last, aborted = time.monotonic(), {}, False
        while thread.is_alive():
            last = self._show() or last
            if interrupts.count and not aborted:
                self._abort('Interrupted')
                aborted = True
            if self.options.time_limit and not self.limit_reached and \
               not aborted and \
               time.monotonic() - began >= self.options.time_limit:
                self._at_limit()
            thread.join(POLL)
        self.display.end()
        return last

    def _start(self):
        """Check and prepare the guest; return the destination's libvirt."""
        self._unsupported()
        migration.check_source(self.source)
        if self.options.helper:
            migration.check_helper(self.source)
        try:
            destination = domains.libvirt.open(self.uri)
        except domains.libvirt.libvirtError as e:
            raise migration.refuse(f'{self.uri}: {e}') from None
        pdh = destination.getSEVInfo().get('pdh')
        if pdh != self.host.info()['pdh']:
            destination.close()
            raise migration.refuse('the host file is not that of the '
                                   'destination, or its PDH has changed since: '
                                   'export it again there')
        self.source.cmd('migrate-set-sev-info', **self.host.info())
        if self.options.downtime_ms:
            self.source.domain.migrateSetMaxDowntime(self.options.downtime_ms)
        return destination

    def _outcome(self, info, interrupted):
        if not self.error:
            if self.stopped:
                self.moved.resume()
            return migration.Outcome(
                errors.OK, 'the domain runs at the destination', info)
        if self.stopped:
            self.source.domain.resume()
        status = errors.FAILED
        if interrupted:
            status = errors.CANCELLED
        elif self.limit_reached:
            status = errors.TIME_LIMIT
        state, _ = self.source.domain.state()
        if state not in (domains.libvirt.VIR_DOMAIN_RUNNING,
                         domains.libvirt.VIR_DOMAIN_PAUSED):
            status = errors.UNCERTAIN
        return migration.Outcome(status, f'libvirt: {self.error}', info)

    def run(self):
        """Migrate; return the Outcome.  Raises Stop if it was not started."""
        with migration.Interrupts() as interrupts:
            try:
                destination = self._start()
            except (domains.libvirt.libvirtError, Refused) as e:
                raise migration.refuse(str(e)) from None
            try:
                thread = threading.Thread(target=self._migrate,
                                          args=(destination,))
                thread.start()
                info = self._follow(thread, interrupts)
                return self._outcome(info, bool(interrupts.count))
            except domains.libvirt.libvirtError as e:
                return migration.Outcome(errors.UNCERTAIN, (
                    f'{e}.  Look at both hosts with "virsh domstate"'))
            finally:
                destination.close()
