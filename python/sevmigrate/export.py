"""
Write the file that describes this host to other hosts.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import base64
import binascii
import datetime
import json

from . import certs, chain, firmware, guest, hardware, hostfile
from .errors import OK, Refused, Stop

HELP = 'write what other hosts must know of this host'


def add(parser):
    parser.add_argument('file', metavar='FILE', help='file to write')
    parser.add_argument('--cek', metavar='FILE',
                        help='the CEK of this chip with AMD\'s signature')
    parser.add_argument('--amd', metavar='FILE',
                        help='ASK and ARK, as AMD publishes them')
    guest.add_arguments(parser, False)
    parser.add_argument('--json', action='store_true',
                        help='print the result as JSON')


def from_device():
    """Return a HostFile with the answers of the firmware in /dev/sev."""
    try:
        pdh, plat_cert = firmware.export()
        status = firmware.platform_status()
    except OSError as e:
        raise Stop(f'{firmware.DEVICE}: {e.strerror or e}; '
                   '"sev-migrate check" says more') from None
    try:
        chip_id = firmware.identifier()
    except OSError:
        # An old kernel cannot get the identifier.  Continue without it:
        # the identifier is needed only for the URL of the CEK.
        chip_id = b''
    return hostfile.HostFile(pdh, plat_cert, chip_id=chip_id,
                             api=status.api, build=status.build)


def from_capabilities(answer):
    """
    Return a HostFile with the certificates in @answer, the answer of
    query-sev-capabilities or of libvirt's getSEVInfo.
    """
    try:
        data = {name: base64.b64decode(answer.get(name, ''), validate=True)
                for name in ('pdh', 'cert-chain', 'cpu0-id')}
    except (binascii.Error, ValueError):
        raise Stop('query-sev-capabilities: the answer is not encoded with '
                   'base64') from None
    return hostfile.HostFile(data['pdh'], data['cert-chain'],
                             chip_id=data['cpu0-id'])


def from_monitor(monitor):
    """
    Return a HostFile with the answers of a QEMU on the host.  The QEMU need not
    run a guest.
    """
    try:
        host = from_capabilities(monitor.cmd('query-sev-capabilities'))
    except Refused as e:
        raise Stop(f'query-sev-capabilities: {e}') from None
    # The firmware puts its API version into the PDH certificate that it makes.
    # QEMU knows the build of the firmware only while it runs an SEV guest.
    # Otherwise it reports 0, which means "not known" in a HostFile, too.
    host.api = (host.pdh[4], host.pdh[5]) if len(host.pdh) > 5 else (0, 0)
    host.build = monitor.cmd('query-sev').get('build-id', 0)
    return host


def add_amd(host, cek, amd):
    """
    Put the certificates that AMD publishes into @host.  Raises Stop if they do
    not belong to this host.

    @cek: the signed CEK as bytes, or None
    @amd: ASK and ARK as bytes, or None
    """
    try:
        certs.Cert(host.pdh, certs.PDH)
        certs.read_chain(host.plat_cert)
    except certs.Malformed as e:
        raise Stop(f'the firmware\'s certificates are malformed: {e}') from None
    if cek is not None:
        try:
            host.plat_cert = chain.splice(host.plat_cert, cek)
        except chain.Mismatch as e:
            raise Stop(f'--cek: {e}') from None
    if amd is not None:
        try:
            ask, _ = certs.read_amd(amd)
            host.amd_cert = amd
            if cek is not None:
                certs.read_chain(host.plat_cert)[2].verify(ask)
        except certs.Malformed as e:
            raise Stop(f'--amd: {e}') from None
        except certs.InvalidSignature:
            raise Stop('--amd: this ASK has not signed the CEK; it is that of '
                       'another product line') from None


def collect(args):
    """Return the HostFile that describes this host or that of the guest."""
    monitor = guest.connect(args)
    if monitor:
        with monitor:
            host = from_monitor(monitor)
        if monitor.host is not None:
            # QEMU may be on another host, whose processor is not known here
            hardware_line = ''
        else:
            hardware_line = hardware.product()
    else:
        host, hardware_line = from_device(), hardware.product()
    host.name = hardware.name()
    host.product = hardware_line
    host.made = datetime.datetime.now(datetime.timezone.utc).isoformat(
        timespec='seconds')
    add_amd(host, *(None if path is None else hostfile.read_file(path)
                    for path in (args.cek, args.amd)))
    return host


def missing(host, cek):
    """
    Return the certificates that @host lacks, but that a guest needs if the bit
    SEV is set in its policy.
    """
    out = []
    if not cek and not any(by == certs.ASK for by, _, _ in certs.read_chain(
            host.plat_cert)[2].signatures):
        out.append("AMD's signature of the CEK (--cek FILE)")
    if not host.amd_cert:
        out.append('ASK and ARK (--amd FILE)')
    return out


def run(args):
    host = collect(args)
    host.write(args.file)
    lacks = missing(host, args.cek)
    if args.json:
        print(json.dumps({
            'file': args.file, 'host': host.name,
            'chip-id': host.chip_id.hex(), 'product': host.product,
            'firmware': {'api': list(host.api), 'build': host.build},
            'missing': lacks,
            'sources': hardware.sources(host.chip_id, host.product)}))
        return OK
    print(f'{args.file}: host {host.name}, firmware '
          f'{host.api[0]}.{host.api[1]}'
          + (f' build {host.build}' if host.build else '')
          + (f', product line {host.product}' if host.product else ''))
    if lacks:
        print('Not in the file: ' + ', '.join(lacks))
        print('\n'.join(hardware.sources(host.chip_id, host.product)))
        print('Download them and export again with both options.')
    return OK
