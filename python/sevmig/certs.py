"""
The certificates of SEV platforms, verified with python3-cryptography, which is
independent of QEMU's implementation.

Formats: SEV API, appendix B for ARK and ASK, appendix C for the others.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import \
    encode_dss_signature

from .chain import CERT

__all__ = ('AMD_BODY', 'AMD_CERT', 'ARK', 'ASK', 'AmdCert', 'BODY', 'CEK',
           'CERT', 'CURVE', 'Cert', 'ECDH_SHA256', 'ECDSA_SHA256',
           'InvalidSignature', 'NONE', 'OCA', 'PDH', 'PEK', 'RSA_SHA384',
           'links', 'read_amd', 'read_chain')

AMD_CERT, BODY, AMD_BODY = 1600, 0x414, 64 + 1024
NONE, OCA, PEK, PDH, CEK = range(0x1000, 0x1005)
ARK, ASK = 0, 0x13
ECDSA_SHA256, ECDH_SHA256, RSA_SHA384 = 2, 3, 0x101
CURVE = ec.SECP384R1()


def number(data):
    return int.from_bytes(data, 'little')


class Cert:
    """A certificate of a P-384 key."""
    def __init__(self, data):
        self.data = bytes(data)
        assert len(self.data) == CERT
        (self.version, self.major, self.minor, self.usage, self.algo,
         self.curve) = struct.unpack_from('<IBBxxIII', self.data)
        self.x, self.y = (number(self.data[at:at + 72]) for at in (20, 92))
        self.signatures = []
        for at in (BODY, 0x61c):
            usage, algo = struct.unpack_from('<II', self.data, at)
            self.signatures.append(
                (usage, algo, self.data[at + 8:at + 8 + 512]))

    def key(self):
        # Raises ValueError if this is not a point of the curve
        return ec.EllipticCurvePublicNumbers(self.x, self.y,
                                             CURVE).public_key()

    def signature_of(self, usage, algo):
        found = [d for u, a, d in self.signatures if (u, a) == (usage, algo)]
        assert len(found) == 1, f'{len(found)} signatures of {usage:#x}'
        return found[0]

    def verify(self, parent):
        """Check the signature of @parent, a Cert or an AmdCert."""
        body = self.data[:BODY]
        if isinstance(parent, AmdCert):
            sig = self.signature_of(parent.usage, RSA_SHA384)
            parent.verify_data(body, sig)
            return
        sig = self.signature_of(parent.usage, parent.algo)
        parent.key().verify(
            encode_dss_signature(number(sig[:72]), number(sig[72:144])),
            body, ec.ECDSA(hashes.SHA256()))


class AmdCert:
    """A certificate of an RSA key of 4096 bits."""
    def __init__(self, data):
        self.data = bytes(data)
        assert len(self.data) == AMD_CERT
        (self.version, self.id, self.by, self.usage, self.exponent_bits,
         self.modulus_bits) = struct.unpack_from('<I16s16sI16xII', self.data)
        self.exponent = number(self.data[64:576])
        self.modulus = number(self.data[576:1088])

    def verify_data(self, data, signature):
        rsa.RSAPublicNumbers(self.exponent, self.modulus).public_key().verify(
            signature[::-1], data,
            padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())

    def verify(self, parent):
        parent.verify_data(self.data[:AMD_BODY], self.data[AMD_BODY:])


def read_chain(data):
    """Return PEK, OCA and CEK of a platform's chain."""
    return [Cert(data[i:i + CERT]) for i in range(0, 3 * CERT, CERT)]


def read_amd(data):
    """Return ASK and ARK from one file as AMD publishes them."""
    return AmdCert(data[:AMD_CERT]), AmdCert(data[AMD_CERT:])


def links(pdh, chain, amd):
    """Return (name, certificate, signer's name, signer) of each signature."""
    pek, oca, cek = chain
    ask, ark = amd
    return [('ARK', ark, 'ARK', ark), ('ASK', ask, 'ARK', ark),
            ('CEK', cek, 'ASK', ask), ('PEK', pek, 'CEK', cek),
            ('PEK', pek, 'OCA', oca), ('OCA', oca, 'OCA', oca),
            ('PDH', pdh, 'PEK', pek)]
