"""
Verify the certificates of another host, from its PDH to AMD's root key.

The firmware of the source checks the same chain in SEND_START if the policy of
the guest has the bit SEV set.  For other guests, only this command checks the
chain.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json
from dataclasses import dataclass

from . import certs, hostfile
from .arguments import add_minimum
from .errors import OK, PROBLEM, Stop

HELP = "verify the chain of another host's certificates"


def add(parser):
    parser.add_argument('file', metavar='FILE',
                        help='host file, which "export" has written')
    parser.add_argument(
        '--ark', metavar='FILE', help='trust only the ARK in this file, which '
        'has the ARK alone, or ASK and ARK (default: trust the root keys of '
        'AMD\'s product lines)')
    parser.add_argument('--product', metavar='LINE',
                        choices=sorted(certs.PRODUCTS.values()),
                        help='the product line that the host must have: '
                        '%(choices)s')
    add_minimum(parser)
    parser.add_argument('--json', action='store_true',
                        help='print the results as JSON')


@dataclass
class Result:
    """
    The result of one check.

    @what: what was checked
    @wrong: what is wrong; '' if nothing
    @note: what the user may want to know if nothing is wrong
    """
    what: str
    wrong: str = ''
    note: str = ''

    def line(self):
        if self.wrong:
            return f'{self.what}: {self.wrong}'
        return f'{self.what}: good' + (f' ({self.note})' if self.note else '')


def _read(host):
    """Return PDH, chain and AMD's certificates.  Raises Stop."""
    what = 'PDH'
    try:
        pdh = certs.Cert(host.pdh, certs.PDH)
        what = 'chain (PEK, OCA, CEK)'
        chain = certs.read_chain(host.plat_cert)
        if not host.amd_cert:
            return pdh, chain, None
        what = 'ASK and ARK'
        return pdh, chain, certs.read_amd(host.amd_cert)
    except certs.Malformed as e:
        raise Stop(f'{what} of the host file: {e}') from None


def _signature(name, cert, by, signer):
    result = Result(f'{by} signs {name}')
    try:
        cert.verify(signer)
    except certs.InvalidSignature:
        result.wrong = f'WRONG, this is not the signature of this {by}'
    except certs.Malformed as e:
        result.wrong = f'MISSING: {e}'
        if (name, by) == ('CEK', 'ASK'):
            result.wrong += ('; the firmware exports the CEK unsigned, export '
                             'again with --cek FILE')
    return result


def _root(ark, trusted):
    """
    Return the Result for the question whether the user trusts @ark.

    @trusted: the only root key to trust; None: those of AMD's product lines
    """
    line = certs.product(ark)
    if trusted is not None:
        result = Result('ARK is the trusted one', note=line or '--ark')
        if (ark.exponent, ark.modulus) != (trusted.exponent, trusted.modulus):
            result.wrong = 'NO, the ARK of --ark is another key'
            other = certs.product(trusted)
            if line or other:
                result.wrong += (f': {other or "of no product line of AMD"}, '
                                 f'and that of the host '
                                 f'{line or "of no product line of AMD"}')
        return result
    result = Result('ARK is one of AMD', note=line or '')
    if not line:
        result.wrong = ('NO, it is of no product line that this program knows; '
                        'an emulated platform has its own (--ark FILE)')
    return result


def _product(ark, wanted, stated):
    line = certs.product(ark) or 'none of AMD'
    out = []
    if wanted:
        out.append(Result(f'product line is {wanted}', '' if line == wanted
                          else f'NO, the ARK is that of {line}'))
    if stated and certs.product(ark) and line != stated:
        out.append(Result(
            'processor and ARK have one product line',
            f'NO, the processor is {stated} and the ARK is that of {line}; '
            'export again with the right --amd FILE'))
    return out


def _firmware(host, pdh, pek, min_api, min_build):
    out = []
    # PDH and PEK contain the API version.  Nobody but the firmware can change
    # it, because the CEK signs the PEK and the PEK signs the PDH.
    if min_api:
        seen = min((pdh.major, pdh.minor), (pek.major, pek.minor))
        out.append(Result(
            f'firmware API is at least {min_api[0]}.{min_api[1]}',
            '' if seen >= min_api else
            f'NO, the signed certificates name {seen[0]}.{seen[1]}',
            f'{seen[0]}.{seen[1]}, signed'))
    if min_build is not None:
        seen, stated = host.build, f'the host states {host.build}, unsigned'
        wrong = '' if seen >= min_build else f'NO, {stated}'
        if not seen:
            wrong = ('NOT KNOWN: the file does not name the build; export it '
                     'from /dev/sev')
        out.append(Result(f'firmware build is at least {min_build}', wrong,
                          stated))
    return out


def results(host, ark=None, product=None, min_api=None, min_build=None):
    """
    Return the Result of each check of the certificates of @host, a HostFile.

    @ark: the only root key to trust, an AmdCert; None: those of AMD
    Raises Stop if the certificates cannot be read.
    """
    pdh, chain, amd = _read(host)
    if amd is None:
        return [Result('ASK and ARK', 'MISSING; export again with --amd FILE')]
    # Check the root key and the product line first, because a wrong product
    # line explains to the user why the signatures below do not match.
    out = [_root(amd[1], ark), *_product(amd[1], product, host.product)]
    out += [_signature(*link) for link in certs.links(pdh, chain, amd)]
    return out + _firmware(host, pdh, chain[0], min_api, min_build)


def broken(found):
    """Return one sentence on what is wrong with @found, or ''."""
    wrong = [r for r in found if r.wrong]
    return '; '.join(r.line() for r in wrong)


def read_root(path):
    """Return the ARK in the file of --ark; None if @path is None."""
    if path is None:
        return None
    try:
        return certs.read_ark(hostfile.read_file(path))
    except certs.Malformed as e:
        raise Stop(f'{path}: not an ARK of AMD: {e}') from None


def run(args):
    host = hostfile.read(args.file)
    found = results(host, read_root(args.ark), args.product, args.min_api,
                    args.min_build)
    bad = broken(found)
    if args.json:
        print(json.dumps({
            'file': args.file, 'host': host.name, 'valid': not bad,
            'checks': [{'check': r.what, 'good': not r.wrong,
                        'detail': r.wrong or r.note} for r in found]}))
    else:
        for r in found:
            print(r.line())
        print(f'{args.file}: ' + ('the chain is BROKEN' if bad else
                                  f'the platform of {host.name or "the host"} '
                                  'is genuine'))
    return PROBLEM if bad else OK
