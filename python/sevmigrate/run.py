"""
Migrate a guest.

The command verifies the host file of the destination, checks the guest and the
destination, sets capabilities and parameters at both sides, migrates the
guest, and waits until it runs at the destination.  Ctrl-C cancels the
migration, and the guest stays at the source.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import dataclasses
import json

from . import errors, hostcheck, hostfile, migration, progress, verify
from .arguments import integer
from .errors import Stop
from .monitor import Monitor

HELP = 'migrate a guest'
SCHEMES = 'tcp:', 'unix:', 'vsock:', 'rdma:', 'exec:', 'fd:', 'file:'

positive = integer(1, (1 << 31) - 1, 'positive number')


def add(parser):
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--source', metavar='QMP',
                        help="QMP monitor of the guest's QEMU: path of a unix "
                        'socket, or HOST:PORT')
    source.add_argument('--domain', metavar='NAME', help="libvirt's domain")
    parser.add_argument('--connect', metavar='URI', default='qemu:///system',
                        help='libvirt of the source (default: %(default)s)')
    parser.add_argument('--destination', metavar='QMP|URI', required=True,
                        help='QMP monitor of the destination (PATH or '
                        'HOST:PORT), or the URI at which it listens already '
                        '(tcp:HOST:PORT, unix:PATH), or the libvirt of the '
                        'destination (with --domain)')
    parser.add_argument('--host', metavar='FILE', required=True,
                        help='host file of the destination')
    parser.add_argument('--ark', metavar='FILE',
                        help='trust only the ARK in this file')
    parser.add_argument('--unverified', action='store_true',
                        help='migrate even if the chain of the host file is '
                        'broken; its author may then read the memory of the '
                        'guest')
    parser.add_argument('--listen', metavar='HOST[:PORT]|unix:PATH',
                        help='address at which the destination must listen; '
                        'default: the host of its monitor')
    tls = parser.add_mutually_exclusive_group()
    tls.add_argument('--tls', metavar='DIR', nargs='?', const='/etc/pki/qemu',
                     help='use TLS with the X.509 credentials that both hosts '
                     'have in DIR (default: %(const)s); libvirt uses its own '
                     'directory')
    tls.add_argument('--tls-creds', metavar='ID', help='use TLS with the '
                     'object of this name, which both QEMUs have')
    parser.add_argument('--tls-hostname', metavar='NAME', help="name in the "
                        "destination's certificate, if it differs from the "
                        'host of --listen')
    parser.add_argument('--multifd', metavar='N', type=integer(1, 255),
                        help='use multifd with N channels')
    parser.add_argument('--auto-converge', action='store_true',
                        help='slow the guest down if it writes too fast')
    parser.add_argument('--helper', action='store_true',
                        help='refuse to migrate without the migration helper')
    parser.add_argument('--postcopy', action='store_true',
                        help='let the guest run at the destination before all '
                        'its memory has arrived; refused if QEMU cannot')
    parser.add_argument('--downtime', metavar='MS', type=positive,
                        help='limit of the downtime, in milliseconds')
    parser.add_argument('--bandwidth', metavar='SIZE', type=hostcheck.size,
                        help='limit in bytes per second, e.g. 100M')
    parser.add_argument('--time-limit', metavar='SECONDS', type=positive,
                        help='longest time of the migration')
    parser.add_argument('--on-limit', choices=('cancel', 'stop'),
                        default='cancel', help='what to do after --time-limit: '
                        'cancel the migration, or stop the guest so that the '
                        'migration ends (default: %(default)s)')
    parser.add_argument('--picture', metavar='FILE', help='write a picture of '
                        "the guest's memory that shows the path of each "
                        'page, as SVG or PNG; not with TLS, --multifd or '
                        '--postcopy')
    parser.add_argument('--quit', action='store_true', help='end the QEMU of '
                        'the source when the guest runs at the destination')
    parser.add_argument('--quiet', action='store_true',
                        help='show no progress')
    parser.add_argument('--json', action='store_true',
                        help='print the result as JSON')


def _options(args):
    return migration.Options(
        listen=args.listen or '', tls_dir=args.tls or '',
        tls_creds=args.tls_creds or '', tls_hostname=args.tls_hostname or '',
        multifd=args.multifd or 0, auto_converge=args.auto_converge,
        postcopy=args.postcopy, helper=args.helper,
        downtime_ms=args.downtime or 0, bandwidth=args.bandwidth or 0,
        time_limit=args.time_limit or 0,
        stop_at_limit=args.on_limit == 'stop', quit_source=args.quit,
        picture=args.picture or '')


def trusted_host(args):
    """
    Return the HostFile and what is wrong with its chain, '' if the chain is
    valid.  Raises Stop if it is not valid and @args lack --unverified.
    """
    host = hostfile.read(args.host)
    wrong = verify.broken(verify.results(host, verify.read_root(args.ark)))
    if wrong and not args.unverified:
        raise migration.refuse(f'{args.host}: {wrong}')
    if not host.amd_cert:
        host.info()             # raises Stop, because ASK and ARK are missing
    return host, wrong


def is_uri(text):
    """Return whether @text is a URI for "migrate", not a monitor's address."""
    return text.startswith(SCHEMES)


def _connect(args, options):
    """Return source, destination (or None) and URI (or '')."""
    if is_uri(args.destination):
        if args.listen:
            raise Stop('--listen is for a destination whose monitor is given',
                       errors.USAGE)
        return Monitor(args.source), None, args.destination
    source = Monitor(args.source)
    try:
        destination = Monitor(args.destination)
    except Stop:
        source.close()
        raise
    if not options.listen:
        if destination.host is None:
            source.close()
            destination.close()
            raise Stop('--listen is needed: the monitor of the destination is '
                       'a unix socket and says nothing about its host',
                       errors.USAGE)
        options.listen = destination.host
    return source, destination, ''


def _over_qmp(args, host, options, display):
    source, destination, uri = _connect(args, options)
    try:
        return migration.Migration(source, destination, uri, host, options,
                                   display).run()
    finally:
        source.close()
        if destination:
            destination.close()


def _over_libvirt(args, host, options, display):
    # python3-libvirt is optional
    # pylint: disable=import-outside-toplevel
    from .domain import Domain
    from .domainmigration import DomainMigration
    with Domain(args.connect, args.domain) as source:
        return DomainMigration(source, args.destination, host, options,
                               display).run()


def run(args):
    options = _options(args)
    if args.domain and '://' not in args.destination:
        raise Stop('with --domain, --destination is the URI of a libvirt, as '
                   'qemu+ssh://HOST/system', errors.USAGE)
    if args.picture and any((args.tls, args.tls_creds, args.multifd,
                             args.postcopy, args.domain)):
        raise Stop('--picture: the stream cannot be read with TLS, --multifd, '
                   '--postcopy or --domain', errors.USAGE)
    host, wrong = trusted_host(args)
    display = progress.Display(args.quiet or args.json)
    if wrong:
        display.say(f'WARNING: {args.host} is not verified: {wrong}')
    outcome = (_over_libvirt if args.domain else _over_qmp)(
        args, host, options, display)
    if args.json:
        print(json.dumps({
            'status': outcome.status,
            'meaning': errors.MEANINGS[outcome.status],
            'text': outcome.text, 'host': host.name,
            'verified': not wrong, 'options': dataclasses.asdict(options),
            'query-migrate': outcome.info}))
    else:
        print(outcome.text)
        if outcome.info:
            print('\n'.join(progress.summary(outcome.info)))
    return outcome.status
