#!/usr/bin/env python3
#
# The certificates of the emulated platform, through Linux's own driver, and
# as an implementation sees them that is not ours (python3-cryptography).
# Runs in the emulated SEV host; TAP on stdout:
#
#   scripts/l1 -- tests/l1/sev-certs.py
#
# Formats: SEV API, appendix B for ARK and ASK, appendix C for the others.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import ctypes
import os
import struct
import sys
import unittest

import pycotap
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature, encode_dss_signature)

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
# pylint: disable=wrong-import-position
from sevmig import psp  # noqa: E402

# enum of include/uapi/linux/psp-sev.h
FACTORY_RESET, STATUS, PEK_GEN, PEK_CSR, PDH_GEN, EXPORT, IMPORT = range(7)
INVALID_CERTIFICATE, ALREADY_OWNED = 6, 5
CERT, AMD_CERT, BODY, AMD_BODY = 2084, 1600, 0x414, 64 + 1024
NONE, OCA, PEK, PDH, CEK = range(0x1000, 0x1005)
ARK, ASK = 0, 0x13
ECDSA_SHA256, ECDH_SHA256, RSA_SHA384 = 2, 3, 0x101
CURVE = ec.SECP384R1()


def number(data):
    return int.from_bytes(data, 'little')


class Cert:
    """Of a P-384 key."""
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
        # Checks that it is a point of the curve
        return ec.EllipticCurvePublicNumbers(self.x, self.y,
                                             CURVE).public_key()

    def signature_of(self, usage, algo):
        found = [d for u, a, d in self.signatures if (u, a) == (usage, algo)]
        assert len(found) == 1, f'{len(found)} signatures of {usage:#x}'
        return found[0]

    def verify(self, parent):
        """By the key in @parent, a Cert or an AmdCert."""
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
    """Of an RSA key of 4096 bits."""
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


def command(cmd, layout, *values):
    """Give a command; its status and its arguments after that."""
    arg = ctypes.create_string_buffer(struct.pack(layout, *values))
    status = psp.issue(cmd, ctypes.addressof(arg))
    return status, struct.unpack(layout, arg.raw[:struct.calcsize(layout)])


def export():
    """PDH, PEK, OCA, CEK."""
    pdh = ctypes.create_string_buffer(CERT)
    chain = ctypes.create_string_buffer(3 * CERT)
    status, _ = command(EXPORT, '<QIQI', ctypes.addressof(pdh), CERT,
                        ctypes.addressof(chain), 3 * CERT)
    assert not status, status
    return [Cert(pdh.raw)] + [Cert(chain.raw[i:i + CERT])
                              for i in range(0, 3 * CERT, CERT)]


def published():
    """ASK, ARK."""
    with open(os.environ['SEV_AMD_CERT'], 'rb') as f:
        data = f.read()
    return AmdCert(data[:AMD_CERT]), AmdCert(data[AMD_CERT:])


def owned():
    status, values = command(STATUS, '<BBBIBI', *[0] * 6)
    assert not status, status
    return values[3] & 1


def make_cert(usage, key, minor=0):
    """The body of a certificate."""
    q = key.public_key().public_numbers()
    body = struct.pack('<IBBxxIII', 1, 0, minor, usage, ECDSA_SHA256, 2)
    body += q.x.to_bytes(72, 'little') + q.y.to_bytes(72, 'little')
    return body.ljust(BODY, b'\0')


def sign(body, usage, key):
    """The certificate, with one signature."""
    r, s = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA256())))
    sig = struct.pack('<II', usage, ECDSA_SHA256)
    sig += r.to_bytes(72, 'little') + s.to_bytes(72, 'little')
    none = struct.pack('<II', NONE, 0)
    return body + sig.ljust(520, b'\0') + none.ljust(520, b'\0')


def take(pek, oca):
    """PEK_CERT_IMPORT"""
    a, b = (ctypes.create_string_buffer(c, CERT) for c in (pek, oca))
    return command(IMPORT, '<QIQI', ctypes.addressof(a), CERT,
                   ctypes.addressof(b), CERT)[0]


class Certificates(unittest.TestCase):
    def check_chain(self):
        pdh, pek, oca, cek = export()
        ask, ark = published()
        for cert, usage in (pdh, PDH), (pek, PEK), (oca, OCA), (cek, CEK):
            self.assertEqual((cert.version, cert.usage, cert.curve),
                             (1, usage, 2))
            self.assertEqual(cert.algo, ECDH_SHA256 if usage == PDH
                             else ECDSA_SHA256)
            cert.key()
        for cert, usage in (ask, ASK), (ark, ARK):
            self.assertEqual((cert.version, cert.usage, cert.exponent_bits,
                              cert.modulus_bits), (1, usage, 4096, 4096))
            self.assertEqual(cert.exponent, 65537)
            self.assertEqual(cert.modulus.bit_length(), 4096)
            self.assertEqual(cert.by, ark.id)
        links = [(pdh, pek), (pek, oca), (pek, cek), (oca, oca), (cek, ask),
                 (ask, ark), (ark, ark)]
        for cert, parent in links:
            cert.verify(parent)
        return links

    def test_1_chain(self):
        for cert, parent in self.check_chain():
            # And this would see it if it were not so
            bad = type(cert)(bytes([cert.data[0]]) + bytes(
                [cert.data[1] ^ 1]) + cert.data[2:])
            with self.assertRaises(InvalidSignature):
                bad.verify(parent)

    def test_2_new_keys(self):
        old = export()
        self.assertEqual(psp.issue(PDH_GEN), 0)
        new = export()
        self.assertNotEqual(old[0].x, new[0].x)
        self.assertEqual([c.data for c in old[1:]], [c.data for c in new[1:]])
        self.check_chain()
        self.assertEqual(psp.issue(PEK_GEN), 0)
        new = export()
        for i, cert in enumerate(new[:3]):
            self.assertNotEqual(old[i].x, cert.x)
        self.assertEqual(old[3].data, new[3].data)
        self.check_chain()

    def test_3_owner(self):
        """As sevctl and sevtool do it: CSR, signature, import"""
        before = export()
        csr = ctypes.create_string_buffer(CERT)
        status, _ = command(PEK_CSR, '<QI', ctypes.addressof(csr), CERT)
        self.assertEqual(status, 0)
        request = Cert(csr.raw)
        self.assertEqual(request.data[:BODY], before[1].data[:BODY])
        self.assertEqual([s[:2] for s in request.signatures], [(NONE, 0)] * 2)

        key, other = (ec.generate_private_key(CURVE) for _ in range(2))
        oca = sign(make_cert(OCA, key), OCA, key)
        pek = sign(request.data[:BODY], OCA, key)
        self.assertEqual(take(sign(request.data[:BODY], OCA, other), oca),
                         INVALID_CERTIFICATE)
        self.assertEqual(take(pek, sign(make_cert(OCA, key), OCA, other)),
                         INVALID_CERTIFICATE)
        self.assertEqual(take(sign(make_cert(PEK, other, 55), OCA, key), oca),
                         INVALID_CERTIFICATE)
        self.assertEqual(owned(), 0)
        self.assertEqual(take(pek, oca), 0)
        self.assertEqual(owned(), 1)
        self.assertEqual(take(pek, oca), ALREADY_OWNED)
        after = export()
        self.assertEqual(after[2].data, oca)
        self.assertEqual(after[1].x, before[1].x)
        self.assertNotEqual(after[0].x, before[0].x)
        self.check_chain()
        self.assertEqual(psp.issue(PEK_GEN), 0)
        self.assertEqual(owned(), 0)
        self.check_chain()


if __name__ == '__main__':
    suite = unittest.TestLoader().loadTestsFromTestCase(Certificates)
    result = pycotap.TAPTestRunner().run(suite)
    sys.exit(not result.wasSuccessful())
