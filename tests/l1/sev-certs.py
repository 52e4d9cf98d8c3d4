#!/usr/bin/env python3
#
# These tests read the certificates of the emulated platform through Linux's
# driver and verify them with an independent implementation
# (python3-cryptography).  They run in the emulated SEV host and print TAP on
# stdout:
#
#   scripts/l1 -- tests/l1/sev-certs.py
#
# The formats are those of the SEV API: appendix B for ARK and ASK, appendix C
# for all other certificates.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import ctypes
import os
import struct
import subprocess
import tempfile
import unittest

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import \
    decode_dss_signature

from sevmig import REPO, tap
from sevmigrate import chain, firmware
from sevmigrate.certs import (
    ARK, ASK, BODY, CEK, CERT, CURVE, Cert, ECDH_SHA256, ECDSA_SHA256,
    InvalidSignature, NONE, OCA, PDH, PEK, read_amd, read_chain)

# enum of include/uapi/linux/psp-sev.h
FACTORY_RESET, STATUS, PEK_GEN, PEK_CSR, PDH_GEN, EXPORT, IMPORT = range(7)
INVALID_CERTIFICATE, ALREADY_OWNED = 6, 5
TOOL = os.path.join(REPO, 'tools/sev-migrate/sev-migrate')


def signed_cek():
    """Return the CEK with AMD's signature."""
    with open(os.environ['SEV_AMD_CEK'], 'rb') as f:
        return f.read()


def export():
    """Return PDH, PEK, OCA, and the CEK that AMD has signed."""
    pdh, exported = firmware.export()
    return [Cert(pdh)] + read_chain(chain.splice(exported, signed_cek()))


def published():
    """Return ASK and ARK."""
    with open(os.environ['SEV_AMD_CERT'], 'rb') as f:
        return read_amd(f.read())


def owned():
    return firmware.platform_status().owned


def make_cert(usage, key, minor=0):
    """Return the signed part of a certificate of @key."""
    q = key.public_key().public_numbers()
    body = struct.pack('<IBBxxIII', 1, 0, minor, usage, ECDSA_SHA256, 2)
    body += q.x.to_bytes(72, 'little') + q.y.to_bytes(72, 'little')
    return body.ljust(BODY, b'\0')


def sign(body, usage, key):
    """
    Return a certificate with one signature, by @key of a signer with @usage.
    """
    r, s = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA256())))
    sig = struct.pack('<II', usage, ECDSA_SHA256)
    sig += r.to_bytes(72, 'little') + s.to_bytes(72, 'little')
    none = struct.pack('<II', NONE, 0)
    return body + sig.ljust(520, b'\0') + none.ljust(520, b'\0')


def take(pek, oca):
    """Issue PEK_CERT_IMPORT; return its status."""
    a, b = (ctypes.create_string_buffer(c, CERT) for c in (pek, oca))
    return firmware.command(IMPORT, '<QIQI', ctypes.addressof(a), CERT,
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
            # Control: the signature of a changed certificate is wrong
            bad = type(cert)(cert.data[:40] + bytes(
                [cert.data[40] ^ 1]) + cert.data[41:])
            with self.assertRaises(InvalidSignature):
                bad.verify(parent)

    def test_2_new_keys(self):
        old = export()
        self.assertEqual(firmware.issue(PDH_GEN), 0)
        new = export()
        self.assertNotEqual(old[0].x, new[0].x)
        self.assertEqual([c.data for c in old[1:]], [c.data for c in new[1:]])
        self.check_chain()
        self.assertEqual(firmware.issue(PEK_GEN), 0)
        new = export()
        for i, cert in enumerate(new[:3]):
            self.assertNotEqual(old[i].x, cert.x)
        self.assertEqual(old[3].data, new[3].data)
        self.check_chain()

    def test_3_owner(self):
        """
        An external owner takes ownership in the steps of sevctl and sevtool:
        export a CSR of the PEK, sign it, import the signed certificate.
        """
        before = export()
        csr = ctypes.create_string_buffer(CERT)
        status, _ = firmware.command(PEK_CSR, '<QI', ctypes.addressof(csr), CERT)
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
        self.assertFalse(owned())
        self.assertEqual(take(pek, oca), 0)
        self.assertTrue(owned())
        self.assertEqual(take(pek, oca), ALREADY_OWNED)
        after = export()
        self.assertEqual(after[2].data, oca)
        self.assertEqual(after[1].x, before[1].x)
        self.assertNotEqual(after[0].x, before[0].x)
        self.check_chain()
        self.assertEqual(firmware.issue(PEK_GEN), 0)
        self.assertFalse(owned())
        self.check_chain()

    def tool(self, want, *args):
        """Check that sev-migrate exits with @want; return its output."""
        p = subprocess.run([TOOL, *args], stdout=subprocess.PIPE, check=False,
                           stderr=subprocess.STDOUT, text=True)
        self.assertEqual(p.returncode, want, p.stdout)
        return p.stdout

    def test_4_tool(self):
        """
        Export a host file with the unsigned CEK that the firmware exports, and
        others with one or both of the files that AMD publishes.  "verify"
        accepts only the host file with both.
        """
        amd, cek = os.environ['SEV_AMD_CERT'], os.environ['SEV_AMD_CEK']
        with tempfile.TemporaryDirectory() as top:
            host = os.path.join(top, 'host')
            said = self.tool(0, 'export', host)
            self.assertIn('kdsintf.amd.com/cek/id/' +
                          firmware.identifier().hex(), said)
            self.assertIn('ASK and ARK: MISSING',
                          self.tool(1, 'verify', host, '--ark', amd))
            self.tool(0, 'export', host, '--amd', amd)
            self.assertIn('ASK signs CEK: MISSING',
                          self.tool(1, 'verify', host, '--ark', amd))
            said = self.tool(3, 'export', os.path.join(top, 'none'), '--cek',
                             amd)
            self.assertIn('bytes', said)
            self.assertEqual(os.listdir(top), ['host'])
            self.tool(0, 'export', host, '--cek', cek, '--amd', amd)
            said = self.tool(0, 'verify', host, '--ark', amd, '--min-api',
                             '1.55')
            self.assertEqual(said.count(': good'), 9, said)
            self.assertIn('no product line', self.tool(1, 'verify', host))


if __name__ == '__main__':
    tap.main()
