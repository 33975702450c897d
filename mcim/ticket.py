"""PVA ticket: the attestation result (RFC 9334 §8.4) as JWS ES256, for a DPF and an SHO (REQ-19)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from mcim.certificates import Role, TrustAnchors, load_der, validate
from mcim.errors import CertificateRefused, InvalidArgument, StatementInvalid
from mcim.vocabulary import ValidationMode

TYPE: Final = "m2m-pva-ticket+jwt"
MAX_LIFETIME: Final = timedelta(hours=1)
MAX_TICKET: Final = 16_384  # characters
TRUSTED: Final = "trusted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A positive decision on one platform, for one request. Times are UTC, whole seconds."""

    issuer: str  # URI of the PVA
    audience: tuple[str, ...]  # DPF and SHO
    tre_id: str
    m2me_id: str
    req_id: str
    nonce: bytes = field(repr=False)
    platform_key_id: bytes
    attest_key_id: bytes
    mode: ValidationMode
    tre_type: str
    tre_version: str
    issued_at: datetime
    expires_at: datetime
    ticket_id: str
    capabilities: bytes = b""  # digest of what the TRE attested to offer; empty: it attested none (autonomous mode)

    def check_binding(
        self,
        *,
        tre_id: str,
        req_id: str,
        nonce: bytes,
        platform_key_id: bytes,
        attest_key_id: bytes | None = None,
        mode: ValidationMode | None = None,
    ) -> None:
        """Whether the ticket speaks of this platform and this request.

        Raises:
            StatementInvalid: naming what differs.
        """
        same = {
            "TRE": self.tre_id == tre_id,
            "request": self.req_id == req_id,
            "nonce": hmac.compare_digest(self.nonce, nonce),
            "platform key": self.platform_key_id == platform_key_id,
            "attestation key": attest_key_id is None or self.attest_key_id == attest_key_id,
            "mode": mode is None or self.mode is mode,
        }
        wrong = [name for name, right in same.items() if not right]
        if wrong:
            raise StatementInvalid(f"the ticket is bound to another {', '.join(wrong)}")


def issue_ticket(ticket: Ticket, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> str:
    """Sign a ticket; `chain` is the PVA's certificate and its intermediates.

    Raises:
        InvalidArgument: a lifetime over one hour.
    """
    if not timedelta() < ticket.expires_at - ticket.issued_at <= MAX_LIFETIME:
        raise InvalidArgument("a ticket lives one hour at most")
    claims = {
        "iss": ticket.issuer,
        "aud": list(ticket.audience),
        "sub": ticket.tre_id,
        "m2meId": ticket.m2me_id,
        "reqId": ticket.req_id,
        "nonce": base64.b64encode(ticket.nonce).decode(),
        "pkdKid": ticket.platform_key_id.hex(),
        "attestKid": ticket.attest_key_id.hex(),
        "result": TRUSTED,
        "mode": ticket.mode.value,
        "treType": ticket.tre_type,
        "treVersion": ticket.tre_version,
        "iat": int(ticket.issued_at.timestamp()),
        "exp": int(ticket.expires_at.timestamp()),
        "jti": ticket.ticket_id,
        "capabilities": ticket.capabilities.hex(),
    }
    x5c = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode() for certificate in chain]
    return jwt.encode(claims, key, algorithm="ES256", headers={"typ": TYPE, "x5c": x5c})


def verify_ticket(
    token: str,
    anchors: TrustAnchors,
    now: datetime,
    *,
    audience: str,
    pva_id: str | None = None,
    crls: Sequence[x509.CertificateRevocationList] = (),
    require_crl: bool = False,
) -> Ticket:
    """Verify signature, signer's certificate, times, type and audience; the binding is `Ticket.check_binding`.

    `crls` and `require_crl` are those of `certificates.validate`, for the signer.

    Raises:
        StatementInvalid: for every reason, the signer's certificate included.
    """
    if len(token) > MAX_TICKET:
        raise StatementInvalid("too long for a ticket")
    try:
        header = jwt.get_unverified_header(token)
        # `b64` and `crit` change what a signature is over or demand to be understood (RFC 7515 §4.1.11, RFC 7797): a
        # ticket has neither.
        if header.get("typ") != TYPE or header.get("alg") != "ES256" or not header.keys().isdisjoint(("b64", "crit")):
            raise StatementInvalid("not a ticket")
        chain = [load_der(base64.b64decode(each, validate=True)) for each in header["x5c"]]
        signer = validate(
            chain[0], chain[1:], anchors, Role.PVA, now, identity=pva_id, crls=crls, require_crl=require_crl
        )
        if not isinstance(signer.public_key, ec.EllipticCurvePublicKey):
            raise StatementInvalid("the signer's key is not EC")
        # `now` is an argument here, so the library's own clock must not judge the times.
        claims = jwt.decode(
            token,
            signer.public_key,
            algorithms=["ES256"],
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False},
        )
        ticket = _ticket(claims)
    except CertificateRefused as exc:
        raise StatementInvalid(f"the signer's certificate: {exc}") from exc
    except (jwt.PyJWTError, KeyError, IndexError, TypeError, ValueError, OverflowError, OSError) as exc:
        raise StatementInvalid("the ticket is malformed or its signature is wrong") from exc
    if claims.get("result") != TRUSTED or ticket.issuer != signer.subject_id:
        raise StatementInvalid("not a positive decision of its signer")
    if audience not in ticket.audience:
        raise StatementInvalid("made for another audience")
    if not (ticket.issued_at <= now + timedelta(minutes=1) and now < ticket.expires_at):
        raise StatementInvalid("expired, or from the future")
    if ticket.expires_at - ticket.issued_at > MAX_LIFETIME:
        raise StatementInvalid("lives too long")
    return ticket


def _ticket(claims: dict[str, Any]) -> Ticket:
    if not isinstance(claims["aud"], list):
        raise TypeError("the audience is a list")  # a string would be read letter by letter
    return Ticket(
        issuer=str(claims["iss"]),
        audience=tuple(str(each) for each in claims["aud"]),
        tre_id=str(claims["sub"]),
        m2me_id=str(claims["m2meId"]),
        req_id=str(claims["reqId"]),
        nonce=base64.b64decode(claims["nonce"], validate=True),
        platform_key_id=bytes.fromhex(claims["pkdKid"]),
        attest_key_id=bytes.fromhex(claims["attestKid"]),
        mode=ValidationMode(claims["mode"]),
        tre_type=str(claims["treType"]),
        tre_version=str(claims["treVersion"]),
        issued_at=datetime.fromtimestamp(int(claims["iat"]), UTC),
        expires_at=datetime.fromtimestamp(int(claims["exp"]), UTC),
        ticket_id=str(claims["jti"]),
        capabilities=bytes.fromhex(claims.get("capabilities", "")),
    )


def ticket_digest(token: str) -> str:
    """SHA-256 of a ticket in hex, as the package header carries it."""
    return hashlib.sha256(token.encode()).hexdigest()
