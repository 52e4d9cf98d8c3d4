"""
Helpers of the tests of sev-migrate: a platform whose certificates the tests
sign themselves, and a base class that runs sev-migrate.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import io
import os
import struct
import tempfile
import unittest

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import \
    decode_dss_signature

from sevmigrate import certs, hostfile, launch
from sevmigrate.__main__ import main


def rsa_key(bits=2048):
    return rsa.generate_private_key(65537, bits)


def ec_key():
    return ec.generate_private_key(certs.CURVE)


def amd_cert(usage, key, own_id, signer, signer_id):
    """
    Return a certificate in AMD's format (ARK or ASK).

    @usage: certs.ARK or certs.ASK
    @key, @own_id: key and ID of the certificate
    @signer, @signer_id: key and ID of its signer
    """
    public = key.public_key().public_numbers()
    bits = key.key_size
    data = struct.pack('<I16s16sI16xII', 1, own_id, signer_id, usage, bits,
                       bits)
    data += public.e.to_bytes(bits // 8, 'little')
    data += public.n.to_bytes(bits // 8, 'little')
    return data + sign_rsa(signer, data)


def sign_rsa(key, data):
    digest = hashes.SHA256() if key.key_size == 2048 else hashes.SHA384()
    return key.sign(data, padding.PSS(padding.MGF1(digest),
                                      digest.digest_size), digest)[::-1]


def body(usage, key, api=(0, 24)):
    """Return the part of a platform certificate that its signatures cover."""
    point = key.public_key().public_numbers()
    algo = certs.ECDH_SHA256 if usage == certs.PDH else certs.ECDSA_SHA256
    data = struct.pack('<IBBxxIII', 1, *api, usage, algo, 2)
    data += point.x.to_bytes(72, 'little') + point.y.to_bytes(72, 'little')
    return data.ljust(certs.BODY, b'\0')


def signature(data, usage, key):
    """
    Return the signature of @data in the format of a platform certificate.

    @usage: usage of the signer's certificate
    @key: key of the signer
    """
    if isinstance(key, rsa.RSAPrivateKey):
        algo = certs.RSA_SHA256 if key.key_size == 2048 else certs.RSA_SHA384
        sig = struct.pack('<II', usage, algo) + sign_rsa(key, data)
    else:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        sig = struct.pack('<II', usage, certs.ECDSA_SHA256)
        sig += r.to_bytes(72, 'little') + s.to_bytes(72, 'little')
    return sig.ljust(520, b'\0')


NO_SIGNATURE = struct.pack('<II', certs.NONE, 0).ljust(520, b'\0')


class Platform:
    """
    The certificates of a platform: @pdh, @pek, @oca, @cek, @ask and @ark.

    @keys: name of a certificate -> its private key.  After a test has replaced
           a key, it calls make() in order to make all certificates anew.
    """

    def __init__(self, bits=2048):
        self.keys = {'ark': rsa_key(bits), 'ask': rsa_key(bits),
                     **{n: ec_key() for n in ('cek', 'oca', 'pek', 'pdh')}}
        # (certificate, signer) -> the key that signs this certificate instead
        # of the signer's own key
        self.signers = {}
        self.api = 0, 24
        self.make()

    def signer(self, name, by):
        """Return the key with which @by signs the certificate @name."""
        return self.signers.get((name, by), self.keys[by])

    def make(self):
        key = self.keys
        ids = b'A' * 16, b'S' * 16
        self.ark = amd_cert(certs.ARK, key['ark'], ids[0],
                            self.signer('ark', 'ark'), ids[0])
        self.ask = amd_cert(certs.ASK, key['ask'], ids[1],
                            self.signer('ask', 'ark'), ids[0])
        cek = body(certs.CEK, key['cek'], self.api)
        self.unsigned_cek = cek + 2 * NO_SIGNATURE
        self.cek = cek + signature(cek, certs.ASK, self.signer('cek', 'ask')) \
            + NO_SIGNATURE
        oca = body(certs.OCA, key['oca'], self.api)
        self.oca = oca + signature(oca, certs.OCA, self.signer('oca', 'oca')) \
            + NO_SIGNATURE
        pek = body(certs.PEK, key['pek'], self.api)
        self.pek = pek + signature(pek, certs.OCA, self.signer('pek', 'oca')) \
            + signature(pek, certs.CEK, self.signer('pek', 'cek'))
        pdh = body(certs.PDH, key['pdh'], self.api)
        self.pdh = pdh + signature(pdh, certs.PEK, self.signer('pdh', 'pek')) \
            + NO_SIGNATURE

    def chain(self, cek=None):
        return self.pek + self.oca + (cek or self.cek)

    def amd(self):
        return self.ask + self.ark

    def hostfile(self, **kw):
        """Return the HostFile of this platform; @kw replaces its members."""
        return hostfile.HostFile(**{
            'pdh': self.pdh, 'plat_cert': self.chain(), 'amd_cert': self.amd(),
            'chip_id': bytes(range(64)), 'name': 'host-b', 'api': self.api,
            'build': 15, **kw})


def flash(entries, size=4096):
    """
    Return a firmware image of @size bytes that contains only a table of GUIDs.

    @entries: list of (GUID, data)
    """
    table = b''.join(data + struct.pack('<H', launch.ENTRY + len(data)) +
                     guid.bytes_le for guid, data in entries)
    table += struct.pack('<H', launch.ENTRY + len(table))
    table += launch.TABLE_FOOTER.bytes_le + bytes(launch.TABLE_END)
    return table.rjust(size, b'\0')


class ToolCase(unittest.TestCase):
    """Base of tests that run sev-migrate, with a temporary directory."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.top = directory.name

    def path(self, name, data=None):
        """
        Return the path of the file @name in the temporary directory.  If @data,
        bytes or text, is given, write it to this file.
        """
        path = os.path.join(self.top, name)
        if data is not None:
            with open(path, 'wb') as f:
                f.write(data.encode() if isinstance(data, str) else data)
        return path

    def tool(self, *args, status=None):
        """
        Run sev-migrate; check its exit status if @status is given.  Returns
        (status, stdout, stderr).
        """
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                got = main(list(args))
            except SystemExit as e:
                got = e.code
        text = out.getvalue(), err.getvalue()
        if status is not None:
            self.assertEqual(got, status, text)
        return got, *text

    @contextlib.contextmanager
    def case(self, *what):
        """
        Add @what to the message of a failed assertion.  This replaces
        subTest(), which pycotap does not report.
        """
        try:
            yield
        except AssertionError as e:
            raise AssertionError(f'{what}: {e}') from e

    def fails(self, words, *args, status=3):
        """Check that the tool fails with a message that has all @words."""
        _, out, err = self.tool(*args, status=status)
        for word in words:
            self.assertIn(word, out + err)
        # The error is a message for the user, not a traceback
        self.assertNotIn('Traceback', err)
