"""Whether a platform may have an MCIM: its order, its certificate, the PVA's ticket (REQ-13, REQ-19, REQ-20, REQ-27).

The SHO takes nothing on the DPF's word: what does not hold here is refused, whatever the DPF found.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mcim.certificates import Reason, Role, ValidatedCertificate, load_der, validate
from mcim.errors import CertificateRefused, StatementInvalid
from mcim.evidence import capabilities_digest
from mcim.platform_key import PlatformPublicKey
from mcim.ticket import Ticket, verify_ticket
from mcim.vocabulary import ValidationMode
from sho.checks import Checks, RequestRefused
from sho.identity import ShoIdentity, TrustStore


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformClaim:
    """What a DPF says of a platform and its request; certificates as DER, leaf first."""

    req_id: str
    m2me_id: str
    tre_id: str
    dpf_id: str
    certificates: tuple[bytes, ...]
    nonce: bytes
    ticket: str
    suites: tuple[str, ...]
    containers: tuple[str, ...]
    algorithms: tuple[str, ...]


class PlatformChecks:
    """Certificate and ticket of one platform, with what this SHO trusts."""

    def __init__(self, identity: ShoIdentity, trust: TrustStore) -> None:
        self._identity, self._trust = identity, trust

    def validate(
        self, certificates: Sequence[bytes], *, tre_id: str | None, m2me_id: str | None, now: datetime
    ) -> ValidatedCertificate:
        """The platform certificate, valid at `now` for this TRE in this device; None: for those that it names.

        Raises:
            CertificateRefused.
        """
        leaf, *chain = [load_der(octets) for octets in certificates]
        platform = validate(
            leaf,
            chain,
            self._trust.manufacturers,
            Role.PLATFORM,
            now,
            identity=tre_id,
            crls=self._trust.crls,
            require_crl=self._trust.crl_required,
        )
        if platform.m2me_id is None or m2me_id not in (None, platform.m2me_id):
            raise CertificateRefused(Reason.WRONG_IDENTITY, "it is of another device")
        return platform

    def check_certificate(self, claim: PlatformClaim, checks: Checks, now: datetime) -> ValidatedCertificate:
        """`validate`, on record.

        Raises:
            RequestRefused: its `__cause__` is the CertificateRefused.
        """
        requirements = ("REQ-14", "REQ-20", "REQ-24", "REQ-27")
        try:
            platform = self.validate(claim.certificates, tre_id=claim.tre_id, m2me_id=claim.m2me_id, now=now)
        except CertificateRefused as exc:
            raise checks.failed(
                "platform-certificate", requirements, code="platform-certificate-refused", detail=str(exc)
            ) from exc
        checks.passed("platform-certificate", requirements, f"PK_D {platform.key_id.hex()}")
        return platform

    def check_ticket(
        self, claim: PlatformClaim, platform: ValidatedCertificate, checks: Checks, now: datetime
    ) -> Ticket:
        """The PVA's decision: its signature, and that it is on this platform, this request and this offer.

        Raises:
            RequestRefused.
        """
        requirements = ("REQ-19", "REQ-24", "REQ-27")
        try:
            ticket = verify_ticket(
                claim.ticket,
                self._trust.pvas,
                now,
                audience=self._identity.sho_id,
                pva_id=self._trust.pva_id,
                crls=self._trust.crls,
                require_crl=self._trust.crl_required,
            )
        except StatementInvalid as exc:
            raise checks.failed("pva-ticket", requirements, code="ticket-refused", detail=str(exc)) from exc
        checks.passed("pva-ticket", requirements, f"by {ticket.issuer}")
        checks.require("pva-ticket-dpf", claim.dpf_id in ticket.audience, requirements, code="ticket-refused")
        try:
            ticket.check_binding(
                tre_id=claim.tre_id, req_id=claim.req_id, nonce=claim.nonce, platform_key_id=platform.key_id
            )
        except StatementInvalid as exc:
            raise checks.failed("pva-ticket-binding", requirements, code="ticket-refused", detail=str(exc)) from exc
        checks.require("pva-ticket-m2me", ticket.m2me_id == claim.m2me_id, requirements, code="ticket-refused")
        checks.passed("pva-ticket-binding", requirements, "TRE, request, nonce and PK_D are those of this hand-over")
        self._check_offer(claim, ticket, checks)
        return ticket

    @staticmethod
    def _check_offer(claim: PlatformClaim, ticket: Ticket, checks: Checks) -> None:
        """What the TRE attested to offer is what the DPF says it offers (T16). Without evidence, in autonomous mode,
        nobody attested anything.
        """
        if not ticket.capabilities:
            checks.require(
                "offer-attested", ticket.mode is ValidationMode.AUTONOMOUS, ("REQ-39",), code="ticket-refused",
                detail=f"no digest of the TRE's offer, mode {ticket.mode.value}",
            )  # fmt: skip
            return
        digest = capabilities_digest(suites=claim.suites, containers=claim.containers, algorithms=claim.algorithms)
        checks.require(
            "offer-attested", hmac.compare_digest(digest, ticket.capabilities), ("REQ-39",), code="offer-altered"
        )


def platform_key(platform: ValidatedCertificate) -> PlatformPublicKey:
    """PK_D of a validated certificate.

    Raises:
        RequestRefused: neither RSA nor EC, which the certificate profile does not let through.
    """
    key = platform.public_key
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise RequestRefused("platform-certificate-refused", "PK_D is neither RSA nor EC")
    return key


def from_base64(certificates: Sequence[str]) -> tuple[bytes, ...]:
    """Certificates as the database keeps them.

    Raises:
        CertificateRefused: not Base64.
    """
    try:
        return tuple(base64.b64decode(each, validate=True) for each in certificates)
    except binascii.Error as exc:
        raise CertificateRefused(Reason.MALFORMED, "not Base64") from exc


def to_base64(certificates: Sequence[bytes]) -> tuple[str, ...]:
    """The reverse of `from_base64`."""
    return tuple(base64.b64encode(each).decode() for each in certificates)
