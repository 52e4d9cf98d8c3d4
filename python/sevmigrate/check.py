"""
Check whether this host can send and receive SEV guests, and whether a guest
can be migrated.

Each line of the output begins with "ok", "warn" or "bad".  A line with "warn"
or "bad" says what to do.  A problem with "warn" does not prevent a migration.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json

from . import guest, guestcheck, hostcheck
from .arguments import add_minimum
from .errors import OK, PROBLEM

HELP = 'check this host, and a guest'


def add(parser):
    guest.add_arguments(parser, False)
    parser.add_argument('--qemu', metavar='PROGRAM',
                        default='qemu-system-x86_64',
                        help='QEMU on this host (default: %(default)s)')
    parser.add_argument('--memory', metavar='SIZE', type=hostcheck.size,
                        help='RAM of a guest that is to run here, e.g. 2G')
    parser.add_argument('--tls', metavar='DIR',
                        help='directory with the TLS credentials of this host')
    add_minimum(parser)
    parser.add_argument('--json', action='store_true',
                        help='print the results as JSON')


def items(args, system):
    """Return the Items of all checks that @args select."""
    out = hostcheck.firmware_items(system, args.min_api, args.min_build)
    out += hostcheck.host_items(system)
    out += hostcheck.qemu_items(args.qemu)
    if args.tls:
        out += hostcheck.tls_items(args.tls)
    monitor = guest.connect(args)
    if not monitor:
        return out + hostcheck.memlock_items(args.memory)
    with monitor:
        out += guestcheck.items(monitor)
        out += guestcheck.memlock_items(monitor, system)
    return out


def run(args):
    found = items(args, hostcheck.System())
    bad = any(i.status == hostcheck.BAD for i in found)
    if args.json:
        print(json.dumps({'ready': not bad, 'checks': [
            {'check': i.name, 'status': i.status, 'text': i.text,
             'advice': i.advice} for i in found]}))
        return PROBLEM if bad else OK
    width = max(len(i.name) for i in found)
    for i in found:
        print(f'{i.status:<5} {i.name:<{width}}  {i.text}')
        if i.advice:
            print(f'      {"":<{width}}  -> {i.advice}')
    return PROBLEM if bad else OK
