"""Keys and certificates of a control plane that lives for minutes."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

KEY_BITS = 2048
LIFE = timedelta(days=2)


def write_certs(folder: Path) -> None:
    """Write ``ca.crt``, ``serving.crt`` + ``.key``, and ``accounts.key`` + ``.pub``.

    The serving certificate is what the plane's programs show each other, both ways.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, serving, accounts = make_key(), make_key(), make_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pytest-pd")])
    root = certificate(name, authority, name, authority, is_authority=True)
    host = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    leaf = certificate(host, serving, name, authority, is_authority=False)
    write(folder / "ca.crt", pem(root))
    write(folder / "serving.crt", pem(leaf))
    write(folder / "serving.key", private(serving))
    write(folder / "accounts.key", private(accounts))
    write(folder / "accounts.pub", public(accounts))


def make_key() -> rsa.RSAPrivateKey:
    """Return a new key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)


def certificate(
    subject: x509.Name,
    key: rsa.RSAPrivateKey,
    issuer: x509.Name,
    signer: rsa.RSAPrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    """Return a certificate for this machine's loopback address."""
    now = datetime.now(UTC)
    names = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("localhost"),
        x509.DNSName("kubernetes.default.svc"),
    ]
    limits = x509.BasicConstraints(ca=is_authority, path_length=None)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFE)
        .add_extension(limits, critical=True)
        .add_extension(usage(is_authority=is_authority), critical=True)
        .add_extension(own, critical=False)
        .add_extension(issued_by, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )


def usage(*, is_authority: bool) -> x509.KeyUsage:
    """Return what a key is for: to sign certificates, or to prove who one is."""
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_encipherment=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(found: x509.Certificate) -> bytes:
    """Return a certificate as text."""
    return found.public_bytes(serialization.Encoding.PEM)


def private(key: rsa.RSAPrivateKey) -> bytes:
    """Return a private key as text."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def public(key: rsa.RSAPrivateKey) -> bytes:
    """Return the public half of a key as text."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def write(path: Path, data: bytes) -> None:
    """Write a file that its owner alone may read."""
    path.touch(mode=0o600)
    path.write_bytes(data)
