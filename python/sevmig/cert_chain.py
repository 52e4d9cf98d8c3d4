# SPDX-License-Identifier: GPL-2.0-or-later
"""Complete and verify the certificates of the destination of an SEV guest.

  scripts/sev-cert-chain splice CHAIN CEK -o OUT
  scripts/sev-cert-chain verify PDH CHAIN AMD

CHAIN: PEK, OCA and CEK, as PDH_CERT_EXPORT gives them (cert-chain of
query-sev-capabilities, decoded).  The firmware of real hardware exports the
CEK without AMD's signature.  CEK: the signed one, from AMD.  AMD: ASK and ARK,
in AMD's binary format.

splice puts the signed CEK in the chain, if it is for the same key.  verify
checks all signatures, as SEND_START does for a guest whose policy has SEV (0x20),
and exits with status 1 if one of them is missing or wrong.
"""
import argparse
import sys

from sevmig import certs, chain


class Wrong(Exception):
    """A file is not what it should be."""


def read(path, size):
    """Return the bytes of @path, which must have @size bytes."""
    with open(path, 'rb') as f:
        data = f.read()
    if len(data) != size:
        raise Wrong(f'{path}: {len(data)} bytes, expected {size}')
    return data


def splice(a):
    """Write the chain with the signed CEK to a file."""
    exported = read(a.chain, 3 * certs.CERT)
    signed = read(a.cek, certs.CERT)
    try:
        spliced = chain.splice(exported, signed)
    except chain.Mismatch as e:
        raise Wrong(f'{a.cek} does not fit {a.chain}: {e}') from None
    with open(a.out, 'wb') as f:
        f.write(spliced)
    return 0


def verdict(cert, signer):
    """Describe the signature of @signer in @cert."""
    try:
        cert.verify(signer)
    except certs.InvalidSignature:
        return 'WRONG'
    except (AssertionError, ValueError) as e:
        return f'not signed ({e})'
    return 'good'


def verify(a):
    """
    Verify all signatures from the PDH to AMD's root, and print the results.
    """
    pdh = certs.Cert(read(a.pdh, certs.CERT))
    exported = certs.read_chain(read(a.chain, 3 * certs.CERT))
    amd = certs.read_amd(read(a.amd, 2 * certs.AMD_CERT))
    bad = 0
    for name, cert, by, signer in certs.links(pdh, exported, amd):
        said = verdict(cert, signer)
        print(f'{by} signs {name}: {said}')
        bad += said != 'good'
    return bad != 0


def main():
    p = argparse.ArgumentParser(
        prog='sev-cert-chain',
        description='The certificates of the destination of an SEV guest')
    sub = p.add_subparsers(required=True)
    s = sub.add_parser('splice')
    s.add_argument('chain')
    s.add_argument('cek')
    s.add_argument('-o', dest='out', required=True)
    s.set_defaults(run=splice)
    s = sub.add_parser('verify')
    s.add_argument('pdh')
    s.add_argument('chain')
    s.add_argument('amd')
    s.set_defaults(run=verify)
    a = p.parse_args()
    try:
        return a.run(a)
    except (OSError, Wrong) as e:
        print(f'sev-cert-chain: {e}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
