#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Tests of "sev-migrate verify" with valid chains, with a fault in each
certificate and signature, and with wrong files.
"""

import base64
import json
import unittest
from unittest import mock

from sevmig import fixture, tap
from sevmig.fixture import Platform, ToolCase, ec_key, rsa_key
from sevmigrate import certs, chain, hostfile


class Chains(ToolCase):
    """Certificates of a platform that the tests sign themselves."""

    @classmethod
    def setUpClass(cls):
        cls.good = Platform()

    def setUp(self):
        super().setUp()
        self.platform = Platform.__new__(Platform)
        self.platform.keys = dict(self.good.keys)
        self.platform.signers = {}
        self.platform.api = 0, 24
        self.platform.make()

    def verify(self, *args, ark=True, status=None, **kw):
        """Verify the host file of the platform; return status and output."""
        path = self.path('host', self.platform.hostfile(**kw).to_json())
        if ark:
            args += '--ark', self.path('ark', self.good.amd())
        return self.tool('verify', path, *args, status=status)

    def broken(self, words, *args, **kw):
        """Check that exactly the checks @words of "sev-migrate verify" fail."""
        _, out, _ = self.verify('--json', *args, status=1, **kw)
        answer = json.loads(out)
        self.assertFalse(answer['valid'])
        bad = [c for c in answer['checks'] if not c['good']]
        self.assertEqual([c['check'] for c in bad], words, bad)

    def test_good(self):
        _, out, _ = self.verify(status=0)
        self.assertEqual(out.count(': good'), 8, out)
        self.assertIn('platform of host-b is genuine', out)
        _, out, _ = self.verify('--json', '--min-api', '0.24', '--min-build',
                                '15', status=0)
        self.assertTrue(json.loads(out)['valid'])

    def test_large_keys(self):
        """
        ARK and ASK have keys of 4096 bits, as in product lines after Naples.
        """
        self.platform.keys.update(ark=rsa_key(4096), ask=rsa_key(4096))
        self.platform.make()
        path = self.path('host', self.platform.hostfile().to_json())
        self.tool('verify', path, '--ark',
                  self.path('ark', self.platform.ark), status=0)

    def test_wrong_signature_at_each_link(self):
        """A key other than the signer's has made the signature."""
        for name, by in (('ask', 'ark'), ('cek', 'ask'), ('pek', 'cek'),
                         ('oca', 'oca'), ('pek', 'oca'), ('pdh', 'pek')):
            with self.case(name, by):
                key = rsa_key() if by in ('ark', 'ask') else ec_key()
                self.platform.signers = {(name, by): key}
                self.platform.make()
                self.broken([f'{by.upper()} signs {name.upper()}'])
        self.platform.signers = {('ark', 'ark'): rsa_key()}
        self.platform.make()
        self.broken(['ARK signs ARK'])

    def test_changed_bit_in_each_certificate(self):
        for name, links in (
                ('ark', ['ARK signs ARK']), ('ask', ['ARK signs ASK']),
                ('cek', ['ASK signs CEK']), ('oca', ['OCA signs OCA']),
                ('pek', ['CEK signs PEK', 'OCA signs PEK']),
                ('pdh', ['PEK signs PDH'])):
            with self.case(name):
                self.platform.make()
                data = bytearray(getattr(self.platform, name))
                # Change a reserved byte, which the signature covers
                data[40 if name in ('ark', 'ask') else 400] ^= 1
                setattr(self.platform, name, bytes(data))
                self.broken(links)

    def test_unsigned_cek(self):
        """The CEK has no signature of AMD, as the firmware exports it."""
        kw = {'plat_cert': self.platform.chain(self.platform.unsigned_cek)}
        self.broken(['ASK signs CEK'], **kw)
        _, out, _ = self.verify(status=1, **kw)
        self.assertIn('--cek', out)

    def test_signature_of_another_kind(self):
        """A valid signature by another kind of signer does not count."""
        bare = self.platform.pdh[:certs.BODY]
        self.platform.pdh = bare + fixture.signature(
            bare, certs.OCA, self.platform.keys['oca']) + fixture.NO_SIGNATURE
        self.broken(['PEK signs PDH'])

    def test_two_signatures_of_one_signer(self):
        bare = self.platform.pdh[:certs.BODY]
        self.platform.pdh = bare + 2 * fixture.signature(
            bare, certs.PEK, self.platform.keys['pek'])
        self.broken(['PEK signs PDH'])

    def test_other_platform(self):
        """The PDH or AMD's certificates are those of another platform."""
        other = Platform()
        self.broken(['PEK signs PDH'], pdh=other.pdh)
        self.broken(['ARK is the trusted one', 'ASK signs CEK'],
                    amd_cert=other.amd())

    def test_no_point_of_the_curve(self):
        pek = bytearray(self.platform.pek)
        pek[20] ^= 1
        self.platform.pek = bytes(pek)
        self.broken(['CEK signs PEK', 'OCA signs PEK', 'PEK signs PDH'])

    def test_unknown_root(self):
        """Without --ark, the tool trusts only the ARKs of AMD."""
        _, out, _ = self.verify(ark=False, status=1)
        self.assertIn('no product line', out)
        self.assertEqual(out.count('NO,'), 1)

    def test_product_lines(self):
        """The ARK is that of a product line.  The option --product names this
        product line or another one."""
        digest = fixture.certs.hashlib.sha256(
            self.platform.ark[64 + 256:64 + 512]).hexdigest()
        with mock.patch.dict(certs.PRODUCTS, {digest: 'Milan'}):
            _, out, _ = self.verify(ark=False, status=0)
            self.assertIn('good (Milan)', out)
            self.verify('--product', 'Milan', ark=False, status=0,
                        product='Milan')
            _, out, _ = self.verify('--product', 'Rome', ark=False, status=1)
            self.assertIn('product line is Rome: NO, the ARK is that of Milan',
                          out)
            _, out, _ = self.verify(ark=False, status=1, product='Genoa')
            self.assertIn('the processor is Genoa', out)
            other = Platform()
            _, out, _ = self.verify('--ark', self.path('other', other.ark),
                                    ark=False, status=1)
            self.assertIn('that of the host Milan', out)

    def test_old_firmware(self):
        self.broken(['firmware API is at least 0.25'], '--min-api', '0.25')
        self.broken(['firmware API is at least 1.0'], '--min-api', '1.0')
        self.broken(['firmware build is at least 16'], '--min-build', '16')
        self.broken(['firmware build is at least 1'], '--min-build', '1',
                    build=0)

    def test_no_amd_certificates(self):
        self.broken(['ASK and ARK'], amd_cert=b'')

    def test_wrong_arguments(self):
        for args in (('--min-api', '24'), ('--min-api', 'x.y'),
                     ('--min-build', '-1'), ('--min-build', '256'),
                     ('--product', 'Vienna'), ('--min', '1')):
            with self.case(args):
                self.verify(*args, status=2)

    def test_wrong_ark_files(self):
        host = self.path('host', self.platform.hostfile().to_json())
        files = {
            'empty': (b'', '0 bytes'),
            'short': (self.good.ark[:-1], '831 bytes'),
            'long': (self.good.ark + b'\0', '833 bytes'),
            'ask': (self.good.ask, 'ASK'),
            'swapped': (self.good.ark + self.good.ask, 'ARK comes first'),
            'twice': (self.good.ark * 2, 'expected 0x13'),
            'zeroes': (bytes(832), 'version 0'),
            'pem': (b'-----BEGIN CERTIFICATE-----\n'.ljust(832), 'binary'),
            'platform': (self.good.cek, 'bytes'),
        }
        for name, (data, words) in files.items():
            with self.case(name):
                self.fails([name, words], 'verify', host, '--ark',
                           self.path(name, data))
        self.fails(['No such file'], 'verify', host, '--ark', '/nowhere')


class HostFiles(ToolCase):
    """The tool refuses files that are not valid host files."""

    @classmethod
    def setUpClass(cls):
        cls.platform = Platform()

    def value(self, **changes):
        value = json.loads(self.platform.hostfile().to_json())
        value.update(changes)
        return json.dumps({k: v for k, v in value.items() if v is not None})

    def test_round_trip(self):
        host = self.platform.hostfile(product='Milan', made='now')
        path = self.path('host')
        host.write(path)
        self.assertEqual(hostfile.read(path), host)

    def test_wrong_files(self):
        pdh = self.platform.pdh

        def b64(data):
            return base64.b64encode(data).decode()

        text = self.value()
        cases = {
            'empty': ('', 'no JSON'),
            'truncated': (text[:-100], 'no JSON'),
            'deep': ('[' * 100000, 'no JSON'),
            'list': ('[]', 'no host file'),
            'other': ('{"kind": "x"}', 'no host file'),
            'binary': (b'\x7fELF\x80\x81', 'no text'),
            'version': (self.value(version=2), 'version 2'),
            'no pdh': (self.value(pdh=None), '"pdh" is missing'),
            'pdh no text': (self.value(pdh=1), '"pdh" is missing'),
            'no base64': (self.value(pdh='*'), 'base64'),
            'short pdh': (self.value(pdh=b64(pdh[:-1])), '2083 bytes'),
            'long pdh': (self.value(pdh=b64(pdh + b'\0')), '2085 bytes'),
            'chain for pdh': (self.value(pdh=b64(self.platform.chain())),
                              '6252 bytes'),
            'pdh for chain': (self.value(**{'plat-cert': b64(pdh)}),
                              '2084 bytes'),
            'short amd': (self.value(**{'amd-cert': b64(self.platform.ark)}),
                          '832 bytes'),
            'pek for pdh': (self.value(pdh=b64(self.platform.pek)), 'PEK'),
            'pdh version': (self.value(pdh=b64(b'\x02' + pdh[1:])),
                            'version 2'),
            'order': (self.value(**{'plat-cert': b64(
                self.platform.oca + self.platform.pek + self.platform.cek)}),
                      'expected 1 and 0x1002'),
            'amd order': (self.value(**{'amd-cert': b64(
                self.platform.ark + self.platform.ask)}), 'ARK comes first'),
            'firmware': (self.value(firmware=[]), '"firmware"'),
            'api': (self.value(firmware={'api': [0, 999], 'build': 1}),
                    'number up to 255'),
            'bool': (self.value(firmware={'api': [0, True], 'build': 1}),
                     'number up to 255'),
            'build': (self.value(firmware={'api': [0, 1], 'build': '1'}),
                      'build'),
            'id': (self.value(**{'chip-id': 'xyz'}), 'hexadecimal'),
            'long id': (self.value(**{'chip-id': '00' * 65}), '65 bytes'),
            'escape': (self.value(host='\x1b[2J'), 'short text'),
            'large': (b'x' * (hostfile.SIZE_MAX + 1), 'more than'),
        }
        for name, (data, words) in cases.items():
            with self.case(name):
                self.fails([words], 'verify', self.path('host', data))
        self.fails(['No such file'], 'verify', self.path('none'))
        self.fails(['Is a directory'], 'verify', self.top)


class Splice(unittest.TestCase):
    """chain.splice() accepts only the CEK of the chip of the chain."""

    def test_splice(self):
        one, other = Platform(), Platform()
        exported = one.chain(one.unsigned_cek)
        self.assertEqual(chain.splice(exported, one.cek), one.chain())
        for wrong, words in ((other.cek, 'another chip'),
                             (one.pek, 'not a CEK'),
                             (one.cek[:-1], '2083 bytes'), (b'', '0 bytes')):
            with self.assertRaisesRegex(chain.Mismatch, words):
                chain.splice(exported, wrong)
        with self.assertRaisesRegex(chain.Mismatch, 'the chain'):
            chain.splice(exported[:-1], one.cek)


if __name__ == '__main__':
    tap.run()
