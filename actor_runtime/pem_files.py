"""Certificates, keys and revocation lists in files, as settings name them. What is wrong with one names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from actor_runtime.errors import ConfigError
from actor_runtime.sealing import warn_if_exposed

_CRL_MARKER: Final = b"-----BEGIN X509 CRL-----"


def read_file(path: Path, what: str) -> bytes:
    """The octets of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{what} {path}: {exc.strerror}") from exc


def read_chain(path: Path, what: str = "certificates") -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM file, in its order.

    Raises:
        ConfigError: unreadable, or none in it.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(read_file(path, what)))
    except (ValueError, x509.InvalidVersion) as exc:
        raise ConfigError(f"{what} {path}: no PEM certificates") from exc


def read_signing_key(path: Path, leaf: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    """The private key of a signing certificate, PEM without passphrase.

    Raises:
        ConfigError: unreadable, not EC, or not the key of `leaf`.
    """
    try:
        octets = read_file(path, "signing key")
        warn_if_exposed(path)
        key = load_pem_private_key(octets, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ConfigError(f"signing key {path}: no PEM private key") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != leaf.public_key():
        raise ConfigError(f"signing key {path}: not the EC key of the signing certificate")
    return key


def read_crls(path: Path) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists of a file: one as DER, or any number as PEM.

    Raises:
        ConfigError: unreadable, or none in it.
    """
    try:
        return parse_crls(read_file(path, "revocation list"))
    except ValueError as exc:
        raise ConfigError(f"revocation list {path}: neither PEM nor DER") from exc


def parse_crls(octets: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """Revocation lists as DER or PEM.

    Raises:
        ValueError: none of them.
    """
    try:
        if _CRL_MARKER not in octets:
            return (x509.load_der_x509_crl(octets),)
        return tuple(x509.load_pem_x509_crl(_CRL_MARKER + block) for block in octets.split(_CRL_MARKER)[1:])
    except x509.InvalidVersion as exc:  # not a ValueError
        raise ValueError("an unknown version") from exc
