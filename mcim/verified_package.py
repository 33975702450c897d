"""What all containers have in common: whose signature counts, and what a verified package is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from cryptography import x509

from mcim.certificates import Reason, Role, TrustAnchors, ValidatedCertificate, load_der, validate
from mcim.errors import CertificateRefused, PackageRefused
from mcim.header_fields import PackageHeader
from mcim.platform_key import PlatformKey
from mcim.vocabulary import Container, ResultCode


class Sealed(Protocol):
    """The encrypted part of a package, in a form that only its container's module understands."""

    def open(self, key: PlatformKey) -> bytes:
        """The MCIM object.

        Raises:
            PackageRefused: CRYPTO_FAILURE for every cause.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPackage:
    """What the signature covered, and nothing else."""

    header: PackageHeader
    container: Container
    signer: ValidatedCertificate
    sealed: Sealed | None = field(repr=False)  # None: the operation carries no object


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerRules:
    """Whose signature counts (REQ-44, REQ-46, REQ-50)."""

    anchors: TrustAnchors  # SHO roots
    now: datetime  # UTC
    expected_sho_id: str  # the SHO selected in this registration
    crls: Sequence[x509.CertificateRevocationList] = ()  # for whoever has some

    def require(self, chain: Iterable[bytes], header: PackageHeader) -> ValidatedCertificate:
        """The signer, by the certificates in the package: leaf first, the rest hints for our own path validation.

        Raises:
            PackageRefused: SIGNER_NOT_ACCEPTABLE or CERTIFICATE_REVOKED.
        """
        try:
            leaf, *others = (load_der(octets) for octets in chain)
            signer = validate(
                leaf, others, self.anchors, Role.SHO, self.now, identity=self.expected_sho_id, crls=self.crls
            )
        except ValueError as exc:  # no Base64, or not even ASCII
            raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "no certificate") from exc
        except CertificateRefused as exc:
            revoked = exc.reason == Reason.REVOKED
            code = ResultCode.CERTIFICATE_REVOKED if revoked else ResultCode.SIGNER_NOT_ACCEPTABLE
            raise PackageRefused(code, str(exc)) from exc
        if header.sho_id != self.expected_sho_id:
            raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "the header names another SHO")
        return signer
