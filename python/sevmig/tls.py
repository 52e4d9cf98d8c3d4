"""
X.509 certificates for migrations over TLS.  The files have the names and
formats that QEMU's object tls-creds-x509 expects.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import base64
import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# The prime of the group ffdhe2048 of RFC 7919; its generator is 2
FFDHE2048 = int(
    'FFFFFFFFFFFFFFFFADF85458A2BB4A9AAFDC5620273D3CF1D8B9C583CE2D3695'
    'A9E13641146433FBCC939DCE249B3EF97D2FE363630C75D8F681B202AEC4617A'
    'D3DF1ED5D5FD65612433F51F5F066ED0856365553DED1AF3B557135E7F57C935'
    '984F0C70E0E68B77E2A689DAF3EFE8721DF158A136ADE73530ACCA4F483A797A'
    'BC0AB182B324FB61D108A94BB2C8E3FBB96ADAB760D7F4681D4F42A3DE394DF4'
    'AE56EDE76372BB190B07A7C8EE0A6D709E02FCE1CDF7E2ECC03404CD28342F61'
    '9172FE9CE98583FF8E4F1232EEF28183C3FE3B1B4C6FAD733BB5FCBC2EC22005'
    'C58EF1837D1683B2C6F34A26C1B2EFFA886B423861285C97FFFFFFFFFFFFFFFF', 16)
DAYS = datetime.timedelta(days=2)


def _write(top, name, data):
    with open(os.path.join(top, name), 'wb') as f:
        f.write(data)


def _dh_params():
    """
    Return the group in the format of PKCS #3, the only one that gnutls reads.
    This function makes the format itself, because OpenSSL, which
    python3-cryptography uses, writes well-known groups in another format.
    """
    prime = FFDHE2048.to_bytes(257, 'big')
    numbers = (b'\x02\x82' + len(prime).to_bytes(2, 'big') + prime +
               b'\x02\x01\x02')
    der = b'\x30\x82' + len(numbers).to_bytes(2, 'big') + numbers
    return (b'-----BEGIN DH PARAMETERS-----\n' + base64.encodebytes(der) +
            b'-----END DH PARAMETERS-----\n')


def _certificate(name, key, signer_name, signer_key, is_ca, hosts=()):
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = dict.fromkeys((
        'digital_signature', 'content_commitment', 'key_encipherment',
        'data_encipherment', 'key_agreement', 'key_cert_sign', 'crl_sign',
        'encipher_only', 'decipher_only'), False)
    usage['key_cert_sign' if is_ca else 'digital_signature'] = True
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(
        signer_name).public_key(key.public_key()).serial_number(
            x509.random_serial_number()).not_valid_before(
                now - DAYS).not_valid_after(now + DAYS).add_extension(
                    x509.BasicConstraints(is_ca, None), True).add_extension(
                        x509.KeyUsage(**usage), True)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(
            [x509.DNSName(host) for host in hosts]), False)
    return builder.sign(signer_key, hashes.SHA256())


def make(top, *hosts):
    """
    Write a CA, a certificate for the servers called @hosts and a certificate
    for their client to the directory @top.  Also write dh-params.pem: without it, the
    server would generate a Diffie-Hellman group, which takes long in the
    emulated host.
    """
    _write(top, 'dh-params.pem', _dh_params())
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'test CA')])
    ca = _certificate(ca_name, ca_key, ca_name, ca_key, True)
    _write(top, 'ca-cert.pem', ca.public_bytes(serialization.Encoding.PEM))
    for end, names in ('server', hosts), ('client', ['source']):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        cert = _certificate(name, key, ca_name, ca_key, False, names)
        _write(top, f'{end}-cert.pem',
               cert.public_bytes(serialization.Encoding.PEM))
        _write(top, f'{end}-key.pem', key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption()))
