"""Certificate roles and path validation (RFC 5280), judged for one role at a time.

`cryptography` walks the path; what it does not look at (key type and size, revocation, identity) is checked here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import NameOID, ObjectIdentifier
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from mcim.errors import CertificateRefused
from mcim.key_id import key_id_of

ROLE_ARC: Final = "1.3.6.1.4.1.99999.1"  # placeholder: registered by nobody
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096
MIN_RSA_EXPONENT: Final = 65537
MAX_CHAIN_DEPTH: Final = 2  # intermediates
CRL_SKEW: Final = timedelta(minutes=5)  # the clock of who makes a list may be that far ahead of ours

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # what `cryptography` raises, lazily, for parts that it cannot read; not all of them are ValueErrors


class Role(Enum):
    """What a certificate is for; the value is the last arc of its extended key usage (REQ-46)."""

    PLATFORM = 1
    SHO = 2
    PVA = 3
    DPF = 4
    ATTEST = 5
    SUPPLIER = 6

    @property
    def eku(self) -> ObjectIdentifier:
        """Extended key usage of the role."""
        return ObjectIdentifier(f"{ROLE_ARC}.{self.value}")


_ROLE_EKUS: Final = frozenset(role.eku for role in Role)
_PURPOSE: Final = {
    Role.PLATFORM: "manufacturer",
    Role.ATTEST: "manufacturer",
    Role.SUPPLIER: "manufacturer",
    Role.SHO: "sho",
    Role.PVA: "pva",
}  # whose roots may vouch for the role; a DPF is known by its TLS certificate


class Reason(StrEnum):
    """Why a certificate is refused."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNKNOWN_CA = "unknown-ca"
    WRONG_USAGE = "wrong-usage"
    WRONG_IDENTITY = "wrong-identity"
    WEAK_KEY = "weak-key"
    REVOKED = "revoked"
    REVOCATION_UNKNOWN = "revocation-unknown"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """Roots for one purpose ("manufacturer", "sho", "pva"): a root for another purpose is simply not in it (REQ-43)."""

    certificates: tuple[x509.Certificate, ...]
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedCertificate:
    """What a certificate says after it was validated for a role."""

    role: Role
    subject_id: str  # the URI or DNS name in the SAN
    m2me_id: str | None  # serialNumber of the subject, for platform and attest
    public_key: PublicKeyTypes
    key_id: bytes
    certificate: x509.Certificate


def load_der(octets: bytes) -> x509.Certificate:
    """Load one certificate.

    Raises:
        CertificateRefused: MALFORMED.
    """
    try:
        return x509.load_der_x509_certificate(octets)
    except (ValueError, x509.InvalidVersion) as exc:
        raise CertificateRefused(Reason.MALFORMED, "no DER certificate") from exc


def load_pem_chain(octets: bytes) -> tuple[x509.Certificate, ...]:
    """Load all certificates of a PEM file.

    Raises:
        CertificateRefused: MALFORMED.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(octets))
    except (ValueError, x509.InvalidVersion) as exc:
        raise CertificateRefused(Reason.MALFORMED, "no PEM certificates") from exc


def validate(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: TrustAnchors,
    role: Role,
    now: datetime,
    *,
    identity: str | None = None,
    crls: Sequence[x509.CertificateRevocationList] = (),
    require_crl: bool = False,
) -> ValidatedCertificate:
    """Judge `leaf` for `role` (REQ-20, REQ-46).

    Args:
        leaf: the certificate.
        intermediates: what the peer sent along; only hints for the path.
        anchors: roots for this purpose.
        role: what it must be good for.
        now: UTC.
        identity: the SAN it must carry; None takes the one it has.
        crls: signed lists; those that an issuer on the path signed count, and one of them must be complete and fresh.
        require_crl: whether every issuer on the path must have such a list.

    Raises:
        CertificateRefused: with the reason; UNKNOWN_CA also when the anchors are for another purpose (REQ-43).
    """
    if _PURPOSE.get(role, anchors.purpose) != anchors.purpose:
        raise CertificateRefused(Reason.UNKNOWN_CA, f"{anchors.purpose} roots do not vouch for a {role.name}")
    try:
        _check_own(leaf, role, now)
        path = _walk(leaf, intermediates, anchors, role, now)
        _check_revocation(path, crls, now, required=require_crl)
        subject_id = _identity(leaf, role, identity)
        serials = leaf.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
        public_key = leaf.public_key()
    except UNREADABLE as exc:
        raise CertificateRefused(Reason.MALFORMED, str(exc)) from exc
    if len(serials) > 1:
        raise CertificateRefused(Reason.WRONG_IDENTITY, "it names several devices")
    return ValidatedCertificate(
        role=role,
        subject_id=subject_id,
        m2me_id=str(serials[0].value) if serials else None,
        public_key=public_key,
        key_id=key_id_of(public_key),
        certificate=leaf,
    )


def _check_own(leaf: x509.Certificate, role: Role, now: datetime) -> None:
    if now < leaf.not_valid_before_utc:
        raise CertificateRefused(Reason.NOT_YET_VALID, f"valid from {leaf.not_valid_before_utc}")
    if now > leaf.not_valid_after_utc:
        raise CertificateRefused(Reason.EXPIRED, f"valid until {leaf.not_valid_after_utc}")
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS or key.public_numbers().e < MIN_RSA_EXPONENT:
            raise CertificateRefused(Reason.WEAK_KEY, f"RSA with {key.key_size} bits")
        if role is not Role.PLATFORM:
            raise CertificateRefused(Reason.WEAK_KEY, f"{role.name} keys are EC")
    elif not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        raise CertificateRefused(Reason.WEAK_KEY, "neither RSA nor P-256")
    ekus = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    # A certificate for two roles is good for neither (REQ-45, REQ-46).
    if _ROLE_EKUS & set(ekus) != {role.eku} or not _usage_fits(usage, key, role):
        raise CertificateRefused(Reason.WRONG_USAGE, f"not a {role.name} certificate")
    if leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise CertificateRefused(Reason.WRONG_USAGE, "a CA certificate")


def _usage_fits(usage: x509.KeyUsage, key: PublicKeyTypes, role: Role) -> bool:
    """PK_D decrypts or agrees and never signs; all other roles sign (REQ-45)."""
    if role is not Role.PLATFORM:
        return usage.digital_signature and not usage.key_encipherment and not usage.key_agreement
    fits = usage.key_encipherment if isinstance(key, rsa.RSAPublicKey) else usage.key_agreement
    return fits and not usage.digital_signature


def _walk(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: TrustAnchors,
    role: Role,
    now: datetime,
) -> list[x509.Certificate]:
    if not anchors.certificates:
        raise CertificateRefused(Reason.UNKNOWN_CA, f"no {anchors.purpose} root is configured")

    def wanted(policy: Policy, certificate: x509.Certificate, extension: x509.ExtendedKeyUsage) -> None:
        if role.eku not in extension:
            raise ValueError("another role")

    ee_policy = ExtensionPolicy.permit_all().require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, wanted)
    verifier = (
        PolicyBuilder()
        .store(Store(list(anchors.certificates)))
        .time(now.astimezone(UTC))
        .max_chain_depth(MAX_CHAIN_DEPTH)
        .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ee_policy)
        .build_client_verifier()
    )
    try:
        return list(verifier.verify(leaf, list(intermediates)).chain)
    except VerificationError as exc:
        raise CertificateRefused(Reason.UNKNOWN_CA, f"no path to a {anchors.purpose} root: {exc}") from exc


def _check_revocation(
    path: Sequence[x509.Certificate], crls: Sequence[x509.CertificateRevocationList], now: datetime, *, required: bool
) -> None:
    """RFC 5280 §6.3: an entry in any list of the issuer revokes, whatever its reason says (removeFromCRL has no place
    in a complete list, §5.3.1); only a complete and fresh list clears.
    """
    for certificate, issuer in itertools.pairwise(path):
        lists = [crl for crl in crls if _is_signed_by(crl, issuer)]
        for crl in lists:
            if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                raise CertificateRefused(Reason.REVOKED, f"serial {certificate.serial_number:x}")
        faults = [_fault_of(crl, issuer, now) for crl in lists]
        if lists and all(faults):
            raise CertificateRefused(Reason.REVOCATION_UNKNOWN, f"the revocation list {faults[0]}")
        if required and not lists:
            raise CertificateRefused(Reason.REVOCATION_UNKNOWN, f"no list of {issuer.subject.rfc4514_string()}")


def _is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """A list that is not even readable is a stranger's: it proves nothing, and must not lock anybody out."""
    try:
        return crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # a CA key of the validated path
    except UNREADABLE:
        return False


def _fault_of(crl: x509.CertificateRevocationList, issuer: x509.Certificate, now: datetime) -> str:
    """Why a list of this issuer clears nobody; empty when it does."""
    if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
        return "is signed by a CA that may sign none"
    if now + CRL_SKEW < crl.last_update_utc:
        return "is not valid yet"
    if crl.next_update_utc is None or now > crl.next_update_utc:
        return "is out of date"
    for extension in crl.extensions:
        # Delta and indirect lists, and those for some certificates or reasons alone, tell it in critical extensions
        # (RFC 5280 §5.2.4, §5.2.5); one that is not marked so is none the better.
        if extension.critical or isinstance(extension.value, x509.DeltaCRLIndicator | x509.IssuingDistributionPoint):
            return f"is not complete or has a critical extension ({extension.oid.dotted_string})"
    return ""


def _identity(leaf: x509.Certificate, role: Role, wanted: str | None) -> str:
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names: list[str] = list(
        san.get_values_for_type(x509.DNSName)
        if role in (Role.SHO, Role.DPF)
        else san.get_values_for_type(x509.UniformResourceIdentifier)
    )
    if wanted is not None and wanted in names:
        return wanted
    if wanted is not None or len(names) != 1:
        raise CertificateRefused(Reason.WRONG_IDENTITY, f"the SAN is not {wanted or 'one name'}")
    return names[0]
