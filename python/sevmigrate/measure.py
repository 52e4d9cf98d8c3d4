"""
Compute the launch digest that the owner of a guest must expect.

The firmware of the platform hashes what QEMU encrypts before the guest starts:
the migration helper, the flash with the firmware of the guest, the hashes of
kernel, initrd and command line, and with SEV-ES the VMSA of each vCPU.  With
the owner's TIK and the result of query-sev-launch-measure, the command also
compares the guest's measurement with the expected one.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import argparse
import base64
import binascii
import json

from . import launch
from .arguments import api_version, build_number, integer
from .errors import OK, PROBLEM, Stop
from .hostfile import read_file

HELP = 'compute the launch digest of a guest'
KERNEL_MAX = 1 << 30
MEASUREMENT, NONCE, TIK = 32, 16, 16


def number(text, bits=63):
    """Parse a number, decimal or with 0x."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << bits:
        raise argparse.ArgumentTypeError(f'{text!r} is no number of {bits} '
                                         'bits')
    return value


def word(text):
    return number(text, 32)


def add(parser):
    parser.add_argument('--firmware', metavar='FILE', required=True,
                        help='the firmware in flash unit 0, or of -bios')
    parser.add_argument('--helper', metavar='FILE',
                        help='the file of the migration helper')
    parser.add_argument('--helper-address', metavar='N', type=number,
                        help='address of the private memory of the helper: '
                        'private-address of query-sev')
    parser.add_argument('--cbit', metavar='N',
                        type=integer(32, 62, 'position of a C-bit'),
                        help='position of the C-bit, with --helper')
    parser.add_argument('--kernel', metavar='FILE',
                        help='the kernel of -kernel, if kernel-hashes=on')
    parser.add_argument('--initrd', metavar='FILE',
                        help='the initrd of -initrd')
    parser.add_argument('--append', metavar='TEXT', default='',
                        help='the command line of -append')
    parser.add_argument('--policy', metavar='N', type=word, default=1,
                        help='policy of the guest (default: 1)')
    parser.add_argument('--cpus', metavar='N', default=1,
                        type=integer(1, 4096, 'number of vCPUs'),
                        help='number of vCPUs, if the policy has ES (0x4)')
    parser.add_argument('--signature', metavar='N', type=word,
                        help='EAX of CPUID function 1 in the guest, if the '
                        'policy has ES')
    parser.add_argument('--init2', action='store_true',
                        help='the guest has legacy-vm-type=off (ES only)')
    parser.add_argument('--tik', metavar='FILE',
                        help="the owner's integrity key, 16 bytes")
    parser.add_argument('--expect', metavar='BASE64',
                        help='"data" of query-sev-launch-measure')
    parser.add_argument('--api', metavar='MAJOR.MINOR', type=api_version,
                        help="the firmware's API version, with --tik")
    parser.add_argument('--build', metavar='N', type=build_number,
                        help="the firmware's build, with --tik")
    parser.add_argument('--json', action='store_true',
                        help='print the result as JSON')


def _helper_part(args):
    wanted = args.helper, args.helper_address, args.cbit
    if all(x is None for x in wanted):
        return []
    if any(x is None for x in wanted):
        raise Stop('--helper, --helper-address and --cbit are needed together')
    try:
        return [('migration helper', launch.helper_memory(
            read_file(args.helper, launch.HELPER_PRIVATE),
            args.helper_address, args.cbit))]
    except launch.Malformed as e:
        raise Stop(f'{args.helper}: {e}') from None


def _kernel_part(args, flash):
    if not args.kernel:
        if args.initrd or args.append:
            raise Stop('--initrd and --append are measured only with --kernel')
        return []
    if not launch.has_hash_area(flash):
        raise Stop(f'{args.firmware}: it has no place for the hashes of the '
                   'kernel, so QEMU refuses kernel-hashes=on with it')
    return [('kernel hashes', launch.hash_table(
        read_file(args.kernel, KERNEL_MAX),
        read_file(args.initrd, KERNEL_MAX) if args.initrd else b'',
        args.append))]


def _vmsa_parts(args, flash):
    if not args.policy & launch.POLICY_ES:
        return []
    if args.signature is None:
        raise Stop('the policy has ES: --signature is needed')
    return [(f'VMSA of vCPU {n}',
             launch.vmsa(n == 0, args.signature, flash, args.init2))
            for n in range(args.cpus)]


def parts(args):
    """
    Return (name, bytes) of everything that the firmware measures, in the order
    in which the firmware measures it.
    """
    flash = read_file(args.firmware, launch.FLASH_MAX)
    if not flash or len(flash) % launch.PAGE:
        raise Stop(f'{args.firmware}: {len(flash)} bytes are no flash; QEMU '
                   'wants whole pages')
    try:
        return [*_helper_part(args), ('firmware', flash),
                *_kernel_part(args, flash), *_vmsa_parts(args, flash)]
    except launch.Malformed as e:
        raise Stop(f'{args.firmware}: {e}') from None


def _expected(args):
    """Return measurement and nonce of --expect."""
    try:
        data = base64.b64decode(args.expect, validate=True)
    except (binascii.Error, ValueError):
        raise Stop('--expect is not encoded with base64') from None
    if len(data) != MEASUREMENT + NONCE:
        raise Stop(f'--expect has {len(data)} bytes; a measurement and its '
                   f'nonce have {MEASUREMENT + NONCE}')
    return data[:MEASUREMENT], data[MEASUREMENT:]


def matches(args, digest):
    """
    Return whether the measurement in @args matches @digest; None if @args have
    no measurement.
    """
    wanted = args.tik, args.expect, args.api, args.build
    if all(x is None for x in wanted):
        return None
    if any(x is None for x in wanted):
        raise Stop('--tik, --expect, --api and --build are needed together')
    tik = read_file(args.tik)
    if len(tik) != TIK:
        raise Stop(f'{args.tik}: {len(tik)} bytes, a TIK has {TIK}')
    measured, nonce = _expected(args)
    return measured == launch.measurement(tik, args.api, args.build,
                                          args.policy, digest, nonce)


def run(args):
    found = parts(args)
    digest = launch.digest(data for _, data in found)
    good = matches(args, digest)
    if args.json:
        print(json.dumps({
            'digest': digest.hex(), 'policy': args.policy,
            'parts': [{'part': name, 'bytes': len(data)}
                      for name, data in found],
            **({} if good is None else {'matches': good})}))
    else:
        for name, data in found:
            print(f'{name}: {len(data)} bytes')
        print(f'launch digest: {digest.hex()}')
        print(f'policy: {args.policy:#x}')
        if good is not None:
            print('The measurement is ' + (
                'the expected one.' if good else
                'ANOTHER one: this guest was launched with something else.'))
    return PROBLEM if good is False else OK
