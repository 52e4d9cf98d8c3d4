"""
The certificate chain of an SEV platform (PEK, OCA and CEK) as bytes.

The firmware of real hardware exports the CEK without AMD's signature.  The
owner of the platform downloads the signed CEK from AMD and puts it into the
chain.

SPDX-License-Identifier: GPL-2.0-or-later
"""

CERT = 2084                 # bytes of each certificate
CEK_USAGE = 0x1004

# SEV API, appendix C.1: byte offsets in a certificate
_USAGE = slice(8, 12)
_POINT = slice(20, 164)


class Mismatch(ValueError):
    """Certificates that do not belong together."""


def _check_cek(cert, what):
    if len(cert) != CERT:
        raise Mismatch(f'{what}: {len(cert)} bytes, a certificate has {CERT}')
    usage = int.from_bytes(cert[_USAGE], 'little')
    if usage != CEK_USAGE:
        raise Mismatch(f'{what}: a certificate of usage {usage:#x}, '
                       f'not a CEK ({CEK_USAGE:#x})')


def cek(chain):
    """Return the CEK of @chain."""
    return chain[2 * CERT:3 * CERT]


def splice(chain, signed):
    """
    Return @chain with its CEK replaced by @signed, the CEK that AMD has signed.

    Raises Mismatch if @signed or the last certificate of @chain is not a CEK,
    or if the two are certificates of different keys.
    """
    exported = cek(chain)
    _check_cek(exported, 'the chain')
    _check_cek(signed, 'the signed CEK')
    if exported[_POINT] != signed[_POINT]:
        raise Mismatch('the signed CEK belongs to another chip than the chain')
    return chain[:2 * CERT] + signed
