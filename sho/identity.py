"""The SHO's signing identity and what it trusts, loaded once at the start: reading a private key is slow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from actor_runtime.errors import ConfigError
from mcim.certificates import TrustAnchors, load_pem_chain
from mcim.errors import MCIMError


@dataclass(frozen=True, slots=True, kw_only=True)
class ShoIdentity:
    """Who signs packages."""

    sho_id: str
    chain: tuple[x509.Certificate, ...]  # leaf first
    signing_key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def issuer_key_ids(self) -> frozenset[str]:
        """Hex SubjectKeyIdentifiers of the CAs above the leaf: those in the chain and the issuer of the last one."""
        found: set[bytes] = set()
        for certificate in self.chain:
            issuer = _extension(certificate, x509.AuthorityKeyIdentifier)
            if issuer is not None and issuer.key_identifier is not None:
                found.add(issuer.key_identifier)
        return frozenset(octets.hex() for octets in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustStore:
    """Anchors by purpose (REQ-43), and the revocation lists at hand."""

    manufacturers: TrustAnchors
    pvas: TrustAnchors
    pva_id: str | None
    crls: Sequence[x509.CertificateRevocationList]


def load_identity(sho_id: str, cert: Path, key: Path) -> ShoIdentity:
    """Read the signing certificate chain and key.

    Raises:
        ConfigError: unreadable, not EC on P-256, or they do not belong together.
    """
    chain = read_chain(cert)
    try:
        private_key = load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as exc:
        raise ConfigError(f"{key}: no PEM private key") from exc
    if not isinstance(private_key, ec.EllipticCurvePrivateKey) or private_key.public_key() != chain[0].public_key():
        raise ConfigError(f"{key}: not the EC key of {cert}")
    return ShoIdentity(sho_id=sho_id, chain=chain, signing_key=private_key)


def read_chain(path: Path) -> tuple[x509.Certificate, ...]:
    """PEM certificates of a file.

    Raises:
        ConfigError: none in it.
    """
    try:
        return load_pem_chain(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except MCIMError as exc:
        raise ConfigError(f"{path}: no PEM certificates") from exc


def read_crls(paths: Iterable[Path]) -> tuple[x509.CertificateRevocationList, ...]:
    """CRLs of files, PEM or DER.

    Raises:
        ConfigError: unreadable.
    """
    found = []
    for path in paths:
        try:
            octets = path.read_bytes()
            pem = octets.lstrip().startswith(b"-----BEGIN")
            found.append(x509.load_pem_x509_crl(octets) if pem else x509.load_der_x509_crl(octets))
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{path}: no certificate revocation list") from exc
    return tuple(found)


def _extension(
    certificate: x509.Certificate, kind: type[x509.AuthorityKeyIdentifier]
) -> x509.AuthorityKeyIdentifier | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
