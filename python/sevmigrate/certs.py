"""
The certificates of SEV platforms.  This module verifies them with
python3-cryptography, so it is independent of QEMU's implementation.

The formats are those of the SEV API 0.24: appendix B for ARK and ASK, appendix
C for all other certificates.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import hashlib
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import \
    encode_dss_signature

from .chain import CERT

__all__ = ('AMD_CERT', 'ARK', 'ASK', 'AmdCert', 'BODY', 'CEK', 'CERT', 'CURVE',
           'Cert', 'ECDH_SHA256', 'ECDSA_SHA256', 'ECDSA_SHA384',
           'InvalidSignature',
           'Malformed', 'NAMES', 'NONE', 'OCA', 'PDH', 'PEK', 'RSA_SHA256',
           'RSA_SHA384', 'links', 'product', 'read_amd', 'read_ark',
           'read_chain')

# AMD_CERT: length of an AMD certificate in bytes, by the length of its key in
# bits.  BODY: length of the signed part of a platform certificate in bytes.
AMD_CERT, BODY = {2048: 832, 4096: 1600}, 0x414
SIGNATURES = (BODY, 0x61c)
AMD_HEAD = 64
NONE, OCA, PEK, PDH, CEK = range(0x1000, 0x1005)
ARK, ASK = 0, 0x13
NAMES = {OCA: 'OCA', PEK: 'PEK', PDH: 'PDH', CEK: 'CEK', ARK: 'ARK',
         ASK: 'ASK', NONE: 'none'}
RSA_SHA256, ECDSA_SHA256, ECDH_SHA256 = 1, 2, 3
RSA_SHA384, ECDSA_SHA384 = 0x101, 0x102
ECDSA = {ECDSA_SHA256: hashes.SHA256(), ECDSA_SHA384: hashes.SHA384()}
P384 = 2
CURVE = ec.SECP384R1()

# Product lines by the SHA-256 of the ARK's modulus, from the files that AMD
# publishes as ask_ark_LINE.cert
PRODUCTS = {
    '9914e78ad0a8260245244d2580195e044a1bc1c9ef83d6bbc0c86d9b563abca0':
        'Naples',
    '063b4e93150fbe63e054a10fd0958e4948cff5af02e7acd5923fa23ce1395df3':
        'Rome',
    '87dbd40540237df39c072efc2ba91ec23a0ee57e2af074dde844a4614dc4577b':
        'Milan',
    'a18c064225a3d841a7c14a2b4835687972879ebebf468a890480faf1690e3152':
        'Genoa',
    'c9233c3de0a0cb2d48b2c6fefd4fd901413fcd0cd886cf91e03e2dbd06fa9266':
        'Turin',
}


class Malformed(ValueError):
    """Data that is no certificate of the expected kind."""


def number(data):
    return int.from_bytes(data, 'little')


def name(usage):
    return NAMES.get(usage, f'a certificate of usage {usage:#x}')


class Cert:
    """
    A platform certificate, which has a P-384 key.

    @usage: the usage that the certificate must have; None accepts every usage
    """
    def __init__(self, data, usage=None):
        self.data = bytes(data)
        if len(self.data) != CERT:
            raise Malformed(f'{len(self.data)} bytes, a certificate of the '
                            f'platform has {CERT}')
        (self.version, self.major, self.minor, self.usage, self.algo,
         self.curve) = struct.unpack_from('<IBBxxIII', self.data)
        if usage is not None and (self.version, self.usage) != (1, usage):
            raise Malformed(f'version {self.version} and usage '
                            f'{self.usage:#x} ({name(self.usage)}), expected '
                            f'1 and {usage:#x} ({name(usage)})')
        self.x, self.y = (number(self.data[at:at + 72]) for at in (20, 92))
        self.signatures = []
        for at in SIGNATURES:
            by, algo = struct.unpack_from('<II', self.data, at)
            self.signatures.append((by, algo, self.data[at + 8:at + 8 + 512]))

    def key(self):
        """Return the public key.  Raises Malformed unless it is a P-384 key."""
        if self.curve != P384:
            raise Malformed(f'a key of curve {self.curve}, expected {P384} '
                            '(P-384)')
        try:
            return ec.EllipticCurvePublicNumbers(self.x, self.y,
                                                 CURVE).public_key()
        except ValueError:
            raise Malformed('the key is no point of P-384') from None

    def signature_of(self, usage, algos):
        """
        Return (algorithm, signature) of the only signature that is by a signer
        with @usage and uses one of @algos.  Raises Malformed if there is no
        such signature or more than one.
        """
        found = [(a, d) for u, a, d in self.signatures
                 if u == usage and a in algos]
        if len(found) != 1:
            raise Malformed(f'{len(found) or "no"} signatures of the '
                            f'{name(usage)}')
        return found[0]

    def verify(self, parent):
        """
        Check that @parent, a Cert or an AmdCert, has signed this certificate.
        Raises InvalidSignature if the signature is wrong, and Malformed if
        there is no signature to check.
        """
        body = self.data[:BODY]
        if isinstance(parent, AmdCert):
            _, sig = self.signature_of(parent.usage, (parent.algo,))
            parent.verify_data(body, sig[:parent.size])
            return
        algo, sig = self.signature_of(parent.usage, ECDSA)
        parent.key().verify(
            encode_dss_signature(number(sig[:72]), number(sig[72:144])),
            body, ec.ECDSA(ECDSA[algo]))


class AmdCert:
    """
    AMD's certificate of an ASK or ARK, which has an RSA key.  The key has 2048
    bits and signs with SHA-256 (Naples), or it has 4096 bits and signs with
    SHA-384 (all later product lines).
    """
    def __init__(self, data, usage=None):
        self.data = bytes(data)
        if len(self.data) < AMD_HEAD:
            raise Malformed(f'{len(self.data)} bytes are no certificate of '
                            'AMD')
        (self.version, self.id, self.by, self.usage, self.exponent_bits,
         self.modulus_bits) = struct.unpack_from('<I16s16sI16xII', self.data)
        if self.version != 1 or self.exponent_bits != self.modulus_bits or \
           self.modulus_bits not in AMD_CERT:
            raise Malformed('not in AMD\'s binary format: version '
                            f'{self.version}, a key of {self.exponent_bits} '
                            f'and {self.modulus_bits} bits')
        if len(self.data) != AMD_CERT[self.modulus_bits]:
            raise Malformed(f'{len(self.data)} bytes, a certificate with a key '
                            f'of {self.modulus_bits} bits has '
                            f'{AMD_CERT[self.modulus_bits]}')
        if usage is not None and self.usage != usage:
            raise Malformed(f'usage {self.usage:#x} ({name(self.usage)}), '
                            f'expected {usage:#x} ({name(usage)})')
        size = self.size = self.modulus_bits // 8
        self.exponent = number(self.data[AMD_HEAD:AMD_HEAD + size])
        self.modulus = number(self.data[AMD_HEAD + size:AMD_HEAD + 2 * size])
        self.algo, self._hash = {
            2048: (RSA_SHA256, hashes.SHA256()),
            4096: (RSA_SHA384, hashes.SHA384())}[self.modulus_bits]

    def verify_data(self, data, signature):
        try:
            key = rsa.RSAPublicNumbers(self.exponent, self.modulus)
            key = key.public_key()
        except ValueError as e:
            raise Malformed(f'no RSA key: {e}') from None
        key.verify(signature[::-1], data, padding.PSS(
            padding.MGF1(self._hash), self._hash.digest_size), self._hash)

    def verify(self, parent):
        """
        Check that @parent has signed this certificate.  Raises the same errors
        as Cert.verify().
        """
        body = AMD_HEAD + 2 * self.size
        if self.by != parent.id:
            raise Malformed('it names another signer than the '
                            f'{name(parent.usage)}')
        # In each product line, the ASK and the ARK have keys of the same size
        if self.size != parent.size:
            raise Malformed('its signature is not of the size of the '
                            f"{name(parent.usage)}'s key")
        parent.verify_data(self.data[:body], self.data[body:])


def product(ark):
    """Return the product line of @ark, or None if AMD publishes no such key."""
    start = AMD_HEAD + ark.size
    return PRODUCTS.get(hashlib.sha256(
        ark.data[start:start + ark.size]).hexdigest())


def read_chain(data):
    """Return PEK, OCA and CEK of a platform's chain."""
    if len(data) != 3 * CERT:
        raise Malformed(f'{len(data)} bytes, a chain of PEK, OCA and CEK has '
                        f'{3 * CERT}')
    return [Cert(data[i * CERT:(i + 1) * CERT], usage)
            for i, usage in enumerate((PEK, OCA, CEK))]


def read_amd(data):
    """Return (ASK, ARK) from @data, a file that contains both."""
    half = len(data) // 2
    if len(data) % 2 or half not in AMD_CERT.values():
        raise Malformed(
            f'{len(data)} bytes; a file with ASK and ARK in AMD\'s binary '
            'format has ' + ' or '.join(str(2 * n) for n in AMD_CERT.values()))
    first, second = AmdCert(data[:half]), AmdCert(data[half:])
    if (first.usage, second.usage) == (ARK, ASK):
        raise Malformed('the ARK comes first; AMD\'s file and the firmware '
                        'have the ASK first')
    return AmdCert(data[:half], ASK), AmdCert(data[half:], ARK)


def read_ark(data):
    """Return the ARK from a file that contains only the ARK, or ASK and ARK."""
    if len(data) in AMD_CERT.values():
        return AmdCert(data, ARK)
    return read_amd(data)[1]


def links(pdh, chain, amd):
    """
    Return (name, certificate, signer's name, signer) of each signature,
    starting at the root key.  If the bit SEV is set in the guest's policy,
    SEND_START checks all of these signatures except those by the OCA.
    """
    pek, oca, cek = chain
    ask, ark = amd
    return [('ARK', ark, 'ARK', ark), ('ASK', ask, 'ARK', ark),
            ('CEK', cek, 'ASK', ask), ('PEK', pek, 'CEK', cek),
            ('OCA', oca, 'OCA', oca), ('PEK', pek, 'OCA', oca),
            ('PDH', pdh, 'PEK', pek)]
