"""Evidence: what a TRE says of itself to the PVA (RFC 9334 §4.2), signed by its attestation key.

Two forms: a signed statement, and a TPM's quote over its registers with the digest of the claims as qualifying data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec

from mcim import statements, tlv
from mcim.errors import StatementInvalid
from mcim.statements import Sign
from mcim.tpm_quote import TpmQuote, verify_quote
from mcim.vocabulary import ValidationMode

PREFIX: Final = b"M2M-EVID/1\0"
QUOTED_PREFIX: Final = b"M2M-TPMQ/1\0"
_CLAIMS, _ATTEST, _SIGNATURE = 1, 2, 3  # TLVs of the quoted form

Quote = Callable[[bytes], tuple[bytes, bytes]]
"""Has a TPM quote its registers over the given qualifying data: TPMS_ATTEST, and r and s in 64 octets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything the PVA's decision rests on."""

    mode: ValidationMode
    m2me_id: str
    tre_id: str
    tre_type: str
    tre_version: str
    tre_state: str
    platform_key_id: bytes  # of PK_D: proof that the same TRE holds both keys
    challenge: bytes  # the PVA's
    nonce: bytes = field(repr=False)  # registration nonce
    req_id: UUID
    counter: int  # monotonic in the TRE
    capabilities: bytes = b""  # `capabilities_digest` of what the TRE offers; empty: not told
    log_digest: bytes = b""  # SHA-256 of the measurement log sent beside it (remote mode); empty: none
    quote: TpmQuote | None = None  # what the TPM said of its registers; None: evidence without a TPM


def capabilities_digest(*, suites: Iterable[str], containers: Iterable[str], algorithms: Iterable[str]) -> bytes:
    """SHA-256 over what M2MMobj/TRE offers, in its order: whoever edits the offer on the way is found out (T16)."""
    lists = (suites, containers, algorithms)
    return hashlib.sha256("\n".join(" ".join(each) for each in lists).encode("ascii", "replace")).digest()


def sign_evidence(evidence: Evidence, signer: Sign) -> bytes:
    """Encode and sign: the form of TREs without registers."""
    return statements.sign(PREFIX, _fields(evidence), signer)


def quote_evidence(evidence: Evidence, quote: Quote) -> bytes:
    """Encode and have quoted: the form of TREs with a TPM.

    The claims reach the signature as the quote's qualifying data, so one signature covers them and the registers.
    """
    claims = tlv.encode(_fields(evidence))
    attest, signature = quote(_qualifying_data(claims))
    return QUOTED_PREFIX + tlv.encode([(_CLAIMS, claims), (_ATTEST, attest), (_SIGNATURE, signature)])


def verify_evidence(octets: bytes, public_key: ec.EllipticCurvePublicKey) -> Evidence:
    """Verify the signature of either form and decode; what the fields must equal is the caller's check.

    Raises:
        StatementInvalid: not evidence, not signed by this key, or a field is missing.
    """
    if octets.startswith(QUOTED_PREFIX):
        return _verify_quoted(octets, public_key)
    return _evidence(statements.verify(PREFIX, octets, public_key), None)


def _verify_quoted(octets: bytes, public_key: ec.EllipticCurvePublicKey) -> Evidence:
    if len(octets) > statements.MAX_STATEMENT:
        raise StatementInvalid("the evidence is too long")
    try:
        parts = dict(tlv.decode(octets[len(QUOTED_PREFIX) :]))
        claims, attest, signature = (parts.pop(kind) for kind in (_CLAIMS, _ATTEST, _SIGNATURE))
        fields = dict(tlv.decode(claims))
    except (KeyError, tlv.TlvError) as exc:
        raise StatementInvalid("the encoding is wrong") from exc
    if parts:  # outside the signature: nobody may put anything there
        raise StatementInvalid("unknown parts beside the quote")
    quote = verify_quote(attest, signature, public_key, qualifying_data=_qualifying_data(claims))
    return _evidence(fields, quote)


def _qualifying_data(claims: bytes) -> bytes:
    return hashlib.sha256(QUOTED_PREFIX + claims).digest()


def _fields(evidence: Evidence) -> list[tuple[int, bytes]]:
    fields = [
        (1, evidence.mode.value.encode()),
        (2, evidence.m2me_id.encode()),
        (3, evidence.tre_id.encode()),
        (4, evidence.tre_type.encode()),
        (5, evidence.tre_version.encode()),
        (6, evidence.tre_state.encode()),
        (7, evidence.platform_key_id),
        (8, evidence.challenge),
        (9, evidence.nonce),
        (10, evidence.req_id.bytes),
        (11, evidence.counter.to_bytes(8, "big")),
    ]
    optional = [(12, evidence.capabilities), (13, evidence.log_digest)]
    return [*fields, *(each for each in optional if each[1])]


def _evidence(fields: dict[int, bytes], quote: TpmQuote | None) -> Evidence:
    try:
        return Evidence(
            mode=ValidationMode(statements.text(fields[1])),
            m2me_id=statements.text(fields[2]),
            tre_id=statements.text(fields[3]),
            tre_type=statements.text(fields[4]),
            tre_version=statements.text(fields[5]),
            tre_state=statements.text(fields[6]),
            platform_key_id=fields[7],
            challenge=fields[8],
            nonce=fields[9],
            req_id=UUID(bytes=fields[10]),
            counter=statements.number(fields[11]),
            capabilities=fields.get(12, b""),
            log_digest=fields.get(13, b""),
            quote=quote,
        )
    except (KeyError, ValueError) as exc:
        raise StatementInvalid("a field is missing or broken") from exc
