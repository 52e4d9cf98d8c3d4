"""
The options with which the user names a guest, and the connection to this guest.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from .errors import Stop
from .monitor import Monitor

# The values of status in query-migrate that mean that the migration has ended
ENDED = ('completed', 'failed', 'cancelled')


def add_arguments(parser, required):
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument('--guest', metavar='QMP', help='QMP monitor of the '
                       "guest's QEMU: path of a unix socket, or HOST:PORT")
    group.add_argument('--domain', metavar='NAME', help="libvirt's domain")
    parser.add_argument('--connect', metavar='URI', default='qemu:///system',
                        help='libvirt (default: %(default)s)')


def connect(args):
    """Return the connection to the guest of @args, None if they name none."""
    if args.guest:
        return Monitor(args.guest)
    if args.domain:
        # python3-libvirt is optional
        from .domain import Domain  # pylint: disable=import-outside-toplevel
        return Domain(args.connect, args.domain)
    return None


def migrating(monitor):
    """Return the status of a migration that is under way, or ''."""
    status = monitor.cmd('query-migrate').get('status', 'none')
    return '' if status in ('none', *ENDED) else status


def sev(monitor):
    """
    Return the answer of query-sev.  Raises Stop if the guest is not an SEV
    guest that this QEMU can migrate.
    """
    answer = monitor.cmd('query-sev')
    if not answer.get('enabled'):
        raise Stop('this guest is not encrypted with SEV: migrate it as any '
                   'other guest')
    if answer.get('sev-type', 'sev') != 'sev':
        raise Stop('this guest uses SEV-SNP, which QEMU cannot migrate')
    if 'migration' not in answer:
        raise Stop('the QEMU of this guest cannot migrate SEV guests: its '
                   'query-sev has no member "migration"')
    return answer
