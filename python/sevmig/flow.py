"""
The steps of a migration over QMP.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import base64
import os
import time
from dataclasses import dataclass, field

from sevmigrate import chain, relay

from .vm import POLICY_SEV, ExecuteError, Timeout

__all__ = ('Direct', 'ExecuteError', 'FINAL', 'NotCompleted',
           'Outcome', 'arrived',
           'complete', 'connect', 'direct', 'finish', 'give_session_info',
           'info_for', 'migrate', 'prepare', 'session_events',
           'session_info', 'set_up', 'start', 'try_to_migrate', 'wait',
           'wait_agreed')

SESSION_FINAL = ('finished', 'cancelled')

FINAL = ('completed', 'failed', 'cancelled')


@dataclass
class Outcome:
    status: str
    error: str = ''             # the source's error-desc
    # from `migrate` to the end, as this program measures it
    seconds: float = 0.0
    total_ms: int = 0           # QEMU's own figures
    downtime_ms: int = 0
    rounds: int = 0
    ram: dict = field(default_factory=dict)
    encrypted: dict = field(default_factory=dict)   # encrypted-ram
    # Every round that wait() has found in recent-rounds
    seen_rounds: list = field(default_factory=list)

    @property
    def completed(self):
        return self.status == 'completed'


def session_info(destination, signed=False):
    """
    Return the arguments of migrate-set-sev-info for this destination.

    @signed: whether the chain contains the CEK with AMD's signature, which
             SEND_START needs if the bit SEV is set in the guest's policy.
             Otherwise the chain is as the firmware exports it.
    """
    cap = destination.cmd('query-sev-capabilities')
    exported = base64.b64decode(cap['cert-chain'])
    if signed:
        exported = chain.splice(exported, destination.amd_cek())
    return {'pdh': cap['pdh'],
            'plat-cert': base64.b64encode(exported).decode(),
            'amd-cert': base64.b64encode(destination.amd_cert()).decode()}


def give_session_info(source, info):
    source.cmd('migrate-set-sev-info', **info)


def info_for(source, destination):
    """Return the session_info() that the policy of @source's guest needs."""
    return session_info(destination,
                        bool(source.config.policy & POLICY_SEV))


def set_up(vm, downtime_ms=2000, bandwidth=10**10, **capabilities):
    """
    Set capabilities and parameters of @vm.  The caller uses the same values for
    the source and the destination.
    """
    # If the guest arrived here with multifd, the capability is still on in this
    # QEMU, which is now the source.  Without an explicit "off", this QEMU would
    # wait forever for its multifd channels, because a destination without
    # multifd does not accept them.
    wanted = {'events': True, 'return-path': True, 'multifd': False,
              **capabilities}
    vm.cmd('migrate-set-capabilities', capabilities=[
        {'capability': k, 'state': v} for k, v in wanted.items()])
    # QEMU's default downtime limit is 300 ms, in which the slow emulated host
    # sends only a few hundred pages.
    vm.cmd('migrate-set-parameters', **{'downtime-limit': downtime_ms,
                                        'max-bandwidth': bandwidth})


def prepare(source, destination, **kw):
    """Prepare both sides for the connection; @kw is for set_up()."""
    give_session_info(source, info_for(source, destination))
    for vm in (source, destination):
        set_up(vm, **kw)


def wait_agreed(vm, timeout):
    """Wait until the guest has agreed to be migrated."""
    vm.wait_for('consent', lambda: 'blocked' not in
                vm.cmd('query-sev')['migration'], timeout)


def listen_on_network(destination):
    """
    Let the destination listen at its host's address; return (address, port).
    """
    destination.cmd('migrate-incoming', uri=f'tcp:{destination.address}:0')
    at, = destination.cmd('query-migrate')['socket-address']
    return destination.address, int(at['port'])


def connect(source, destination, **kw):
    """
    Let the destination listen, and start a relay between source and destination
    on the source's host.
    """
    if destination.address:
        listen = os.path.join(source.config.workdir, f'{source.name}.mig')
        return relay.Relay(listen, listen_on_network(destination), **kw)
    base = destination.config.workdir
    target = os.path.join(base, f'{destination.name}.mig')
    if os.path.exists(target):
        os.unlink(target)
    destination.cmd('migrate-incoming', uri=f'unix:{target}')
    return relay.Relay(os.path.join(base, f'{source.name}.mig'), target, **kw)


@dataclass
class Direct:
    """
    The destination's own socket.  A Relay accepts one channel only; this socket
    accepts any number of channels.
    """
    uri: str

    def close(self):
        pass


def direct(destination):
    """Let the destination listen, without a relay."""
    if destination.address:
        return Direct('tcp:%s:%d' % listen_on_network(destination))
    path = os.path.join(destination.config.workdir,
                        f'{destination.name}.direct')
    destination.cmd('migrate-incoming', uri=f'unix:{path}')
    return Direct(f'unix:{path}')


def start(source, link):
    source.cmd('migrate', uri=link.uri)


def wait(source, timeout=300, progress=None, poll=0.5):
    """
    Wait until the migration of @source has ended; return the Outcome.
    @progress is called with each answer of query-migrate.
    """
    began = time.monotonic()
    rounds = {}
    while True:
        info = source.cmd('query-migrate')
        ram = info.get('ram', {})
        encrypted = info.get('encrypted-ram', {})
        rounds.update((r['round'], r)
                      for r in encrypted.get('recent-rounds', []))
        if progress:
            progress(info)
        if info.get('status') in FINAL:
            return Outcome(info['status'], info.get('error-desc', ''),
                           time.monotonic() - began,
                           info.get('total-time', 0), info.get('downtime', 0),
                           ram.get('dirty-sync-count', 0), ram, encrypted,
                           [rounds[n] for n in sorted(rounds)])
        if time.monotonic() - began > timeout:
            raise Timeout(f'migration still {info.get("status")} after '
                          f'{timeout} s')
        time.sleep(poll)


class NotCompleted(AssertionError):
    """A migration did not complete although nothing should prevent it."""


def complete(source, destination, timeout=300, progress=None):
    """
    Wait until the migration of @source, which is under way, has completed;
    return the Outcome.  NotCompleted contains the messages of both sides.
    """
    outcome = wait(source, timeout, progress, poll=0.1)
    if not outcome.completed:
        raise NotCompleted(
            f'{outcome.status}: {outcome.error}; source: '
            f'{source.complaints()}, destination: {destination.complaints()}')
    return outcome


def finish(source, destination, timeout=300, progress=None):
    """Call complete(), then wait until the destination runs the guest."""
    outcome = complete(source, destination, timeout, progress)
    arrived(destination)
    return outcome


def migrate(source, destination, link, timeout=300):
    """
    Migrate the guest of @source over @link to @destination, which then runs
    it; return the Outcome.
    """
    start(source, link)
    return finish(source, destination, timeout)


def try_to_migrate(source, link, timeout=300):
    """
    Migrate and return the Outcome, even if the migration does not complete.  If
    the command `migrate` itself fails, the Outcome has the status 'refused' and
    the error of the command.
    """
    try:
        start(source, link)
        return wait(source, timeout, poll=0.1)
    except ExecuteError as e:
        return Outcome('refused', str(e))


def session_events(vm, incoming, timeout=60):
    """
    Wait for the event ENCRYPTED_RAM_SESSION that reports the end of the
    session.  QEMU sends it after the migration has completed or failed.
    Returns (status, private pages) of each such event since the last call.
    """
    out = []

    def ended():
        # Executing a command makes the QMP client read pending events, too
        vm.cmd('query-status')
        for e in vm.get_qmp_events():
            if (e['event'] == 'ENCRYPTED_RAM_SESSION' and
                    e['data']['incoming'] == incoming):
                out.append((e['data']['status'], e['data']['private-pages']))
        return out and out[-1][0] in SESSION_FINAL

    vm.wait_for('end of the session', ended, timeout)
    return out


def arrived(destination, timeout=60):
    """Wait until the destination runs the guest."""
    destination.wait_for(
        'running guest', lambda: destination.cmd('query-status')['status'] ==
        'running', timeout)
