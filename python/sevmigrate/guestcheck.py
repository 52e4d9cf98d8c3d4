"""
Checks of a guest that shall be migrated from this host.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import re
import resource

from . import guest, hostcheck
from .errors import Refused, Stop
from .hostcheck import BAD, GOOD, WARN, Item

NODBG, NOKS, ES, NOSEND, DOMAIN, SEV = (1 << n for n in range(6))
CAP_IPC_LOCK = 14


def policy_item(policy):
    """Return the Item for the policy of a guest."""
    text = f'{policy:#x}'
    if policy & NOSEND:
        return Item('policy', BAD, f'{text} has NOSEND: the owner forbids '
                    'migration', 'only a new launch with another policy helps')
    if policy & ES:
        return Item('policy', BAD, f'{text} has ES: kernels cannot send the '
                    'registers', 'only a new launch without SEV-ES helps')
    if not policy & SEV:
        return Item('policy', WARN, f'{text} lacks SEV (0x20): the firmware '
                    'checks no certificate of the destination',
                    'sev-migrate verify checks them; a guest that does not '
                    'trust the administrator of its host needs 0x20')
    return Item('policy', GOOD, f'{text}: the firmware checks the '
                'destination' + (', which must have the same owner'
                                 if policy & DOMAIN else ''))


def _consent(migration):
    if migration['ready']:
        return Item('consent', GOOD, 'the guest agrees to be migrated')
    if not migration['offered']:
        return Item('consent', BAD, 'QEMU does not offer migration to the '
                    'guest', 'start it with machine type 10.0 or newer and '
                    'without migration=off')
    return Item('consent', BAD, 'the guest has not agreed (READY is not set)',
                'wait until it has booted; it needs the UEFI variable '
                'SevLiveMigrationEnabled, which "sev-migrate vars" puts into '
                'a variable store')


def _blocked(monitor, migration):
    reasons = [migration['blocked']] if migration.get('blocked') else []
    reasons += monitor.cmd('query-migrate').get('blocked-reasons', [])
    if not reasons:
        return Item('blocked', GOOD, 'nothing prevents the migration')
    return Item('blocked', BAD, '; '.join(dict.fromkeys(reasons)),
                '"Error messages" in the manual says what to do')


def _channel(monitor):
    parameters = monitor.cmd('query-migrate-parameters')
    creds = parameters.get('tls-creds')
    if creds:
        return Item('TLS', GOOD, f'the parameter tls-creds is {creds}')
    return Item('TLS', WARN, 'the parameter tls-creds is not set: the network '
                'can read shared memory, and exchange and drop private pages',
                'sev-migrate run --tls, or tls-creds at both sides')


def _state(monitor):
    status = monitor.cmd('query-status')['status']
    if status in ('running', 'paused', 'suspended'):
        return Item('guest', GOOD, f'is {status}')
    if status == 'postmigrate':
        return Item('guest', BAD, 'has left to another host already',
                    '"cont" takes it back if it does not run there')
    return Item('guest', BAD, f'has the state {status}',
                'it must be running or paused')


def backends(monitor):
    """Return the answer of query-memdev, [] if QEMU refuses the command."""
    try:
        return monitor.cmd('query-memdev')
    except Refused:
        return []


def in_place(monitor):
    """
    Return whether all memory backends are in-place memory.  Returns None if
    QEMU does not tell: if there are no backends, if one has no name, or if
    guest-memfd=auto leaves open whether the memory is in place.
    """
    found = []
    for memdev in backends(monitor):
        if 'id' not in memdev:
            return None
        try:
            value = monitor.cmd('qom-get', path=f'/objects/{memdev["id"]}',
                                property='guest-memfd')
        except Refused:
            value = 'off'
        if value == 'auto':
            return None
        found.append(value in ('on', True))
    return all(found) if found else None


def items(monitor):
    """Return the Items of the guest of @monitor."""
    try:
        sev = guest.sev(monitor)
    except Stop as e:
        return [Item('guest', BAD, str(e))]
    version = monitor.cmd('query-version')
    number = '.'.join(str(version['qemu'][n])
                      for n in ('major', 'minor', 'micro'))
    out = [Item("guest's QEMU", GOOD, f'{number} {version["package"]}'.strip())]
    if monitor.cmd('query-status')['status'] == 'inmigrate':
        return out + [Item('guest', GOOD, 'a guest can arrive here'),
                      policy_item(sev['policy'])]
    out = [*out, _state(monitor), policy_item(sev['policy']),
           _consent(sev['migration']), _blocked(monitor, sev['migration']),
           _channel(monitor)]
    pages = sev['migration']
    out.append(Item('memory', GOOD, f'{pages["private-pages"]} private and '
                    f'{pages["shared-pages"]} shared pages'))
    return out


def memlock_items(monitor, system):
    """
    Return the Item for the limit of locked memory of the guest's QEMU.  Returns
    [] if the limit does not apply, or if QEMU is not on this host.
    """
    if not monitor.pid or in_place(monitor):
        return []
    limits = system.read(f'/proc/{monitor.pid}/limits')
    status = system.read(f'/proc/{monitor.pid}/status')
    if limits is None or status is None:
        return []
    capabilities = re.search(r'^CapEff:\s*([0-9a-f]+)$', status, re.M)
    if capabilities and int(capabilities[1], 16) >> CAP_IPC_LOCK & 1:
        return [Item('memlock', GOOD, 'QEMU has CAP_IPC_LOCK and no limit')]
    limit = re.search(r'^Max locked memory\s+(\S+)', limits, re.M)
    if not limit:
        return []
    ram = sum(m['size'] for m in backends(monitor)) or monitor.cmd(
        'query-memory-size-summary')['base-memory']
    item = hostcheck.memlock_item(
        resource.RLIM_INFINITY if limit[1] == 'unlimited' else int(limit[1]),
        ram, 'QEMU')
    if item.status == BAD:
        # Only warn: with guest-memfd=auto, the RAM may be in-place memory,
        # which KVM does not count as locked memory.
        item.status = WARN
    return [item]
