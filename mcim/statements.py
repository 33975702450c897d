"""What evidence and receipt have in common: a prefix, TLVs, and a raw ECDSA P-256 signature over both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from mcim import tlv
from mcim.errors import StatementInvalid

SIGNATURE_LENGTH: Final = 64  # octets: r and s, 32 each
MAX_STATEMENT: Final = 8192  # octets
MAX_NUMBER: Final = (1 << 63) - 1  # what databases hold: a counter may not be more

Sign = Callable[[bytes], bytes]
"""Signs octets with the attestation key: ECDSA P-256 with SHA-256, r and s in 64 octets."""


def raw_signature(private_key: ec.EllipticCurvePrivateKey, octets: bytes) -> bytes:
    """ECDSA P-256 with SHA-256 as r and s, 64 octets."""
    r, s = decode_dss_signature(private_key.sign(octets, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def sign(prefix: bytes, fields: list[tuple[int, bytes]], signer: Sign) -> bytes:
    """The signed statement."""
    body = prefix + tlv.encode(fields)
    return body + signer(body)


def verify(prefix: bytes, octets: bytes, public_key: ec.EllipticCurvePublicKey) -> dict[int, bytes]:
    """Fields of a statement whose signature is right.

    Raises:
        StatementInvalid: another kind of statement, a wrong signature, or broken TLVs.
    """
    if not octets.startswith(prefix) or not len(prefix) + SIGNATURE_LENGTH <= len(octets) <= MAX_STATEMENT:
        raise StatementInvalid("not a statement of this kind")
    body, signature = octets[:-SIGNATURE_LENGTH], octets[-SIGNATURE_LENGTH:]
    verify_raw(public_key, signature, body)
    try:
        return dict(tlv.decode(body[len(prefix) :]))
    except tlv.TlvError as exc:
        raise StatementInvalid("the encoding is wrong") from exc


def verify_raw(public_key: ec.EllipticCurvePublicKey, signature: bytes, octets: bytes) -> None:
    """Check a signature as `raw_signature` makes it.

    Raises:
        StatementInvalid: wrong, or not 64 octets.
    """
    if len(signature) != SIGNATURE_LENGTH:
        raise StatementInvalid("not a signature")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public_key.verify(encode_dss_signature(r, s), octets, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as exc:
        raise StatementInvalid("the signature is wrong") from exc


def number(value: bytes, width: int = 8, *, most: int = MAX_NUMBER) -> int:
    """A field as a number of `width` octets.

    Raises:
        StatementInvalid: another width, or more than `most`.
    """
    found = int.from_bytes(value, "big")
    if len(value) != width or found > most:
        raise StatementInvalid("a number has another width or is out of range")
    return found


def text(value: bytes) -> str:
    """A field as text.

    Raises:
        StatementInvalid: no printable ASCII.
    """
    if not value.isascii() or not value.decode("ascii").isprintable():
        raise StatementInvalid("a name is not printable ASCII")
    return value.decode("ascii")
