"""The SHO's signing identity and what it trusts, loaded once at the start: reading a private key is slow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from actor_runtime.pem_files import read_chain, read_signing_key
from mcim.certificates import TrustAnchors


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
    """Anchors by purpose (REQ-43), and where the revocation lists of the moment are."""

    manufacturers: TrustAnchors
    pvas: TrustAnchors
    pva_id: str | None
    crl_source: Callable[[], tuple[x509.CertificateRevocationList, ...]]
    crl_required: bool = False

    @property
    def crls(self) -> tuple[x509.CertificateRevocationList, ...]:
        """The lists at hand now: they change while the SHO runs."""
        return self.crl_source()


def load_identity(sho_id: str, cert: Path, key: Path) -> ShoIdentity:
    """Read the signing certificate chain and key.

    Raises:
        ConfigError: unreadable, not EC on P-256, or they do not belong together.
    """
    chain = read_chain(cert, "signing certificate")
    return ShoIdentity(sho_id=sho_id, chain=chain, signing_key=read_signing_key(key, chain[0]))


def _extension(
    certificate: x509.Certificate, kind: type[x509.AuthorityKeyIdentifier]
) -> x509.AuthorityKeyIdentifier | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
