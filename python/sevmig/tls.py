"""
X.509 certificates for migrations over TLS, as tls-creds-x509 looks for them.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS = datetime.timedelta(days=2)


def _write(top, name, data):
    with open(os.path.join(top, name), 'wb') as f:
        f.write(data)


def _certificate(name, key, signer_name, signer_key, is_ca):
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
    if not is_ca:
        host = name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        builder = builder.add_extension(x509.SubjectAlternativeName(
            [x509.DNSName(host)]), False)
    return builder.sign(signer_key, hashes.SHA256())


def make(top, host):
    """
    Make a CA, a certificate for the server called @host and one for its client
    in the directory @top.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'test CA')])
    ca = _certificate(ca_name, ca_key, ca_name, ca_key, True)
    _write(top, 'ca-cert.pem', ca.public_bytes(serialization.Encoding.PEM))
    for end, common in ('server', host), ('client', 'source'):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        cert = _certificate(name, key, ca_name, ca_key, False)
        _write(top, f'{end}-cert.pem',
               cert.public_bytes(serialization.Encoding.PEM))
        _write(top, f'{end}-key.pem', key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption()))
