"""A TPM's quote: TPMS_ATTEST of type quote (TPM 2.0 library, part 2, §10.12) and its signature.

Whoever checks evidence needs no TPM and no TPM library: the structure is read here, strictly, and the signature is
plain ECDSA. That the structure was made inside a TPM rests on the attestation key being *restricted*: a TPM signs with
it only what it made itself, or a hash of octets that do not start with `GENERATED` (part 1, "restricted signing keys").
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from mcim.errors import StatementInvalid
from mcim.measurement_log import DIGEST, REGISTERS
from mcim.statements import verify_raw

GENERATED: Final = b"\xffTCG"
"""TPM_GENERATED_VALUE: the first octets of every structure that a TPM makes and signs."""

MAX_QUOTE: Final = 512  # octets; a quote over one bank takes about 150
_ST_ATTEST_QUOTE: Final = 0x8018
_ALG_SHA256: Final = 0x000B
_NAME: Final = 2 + DIGEST  # octets of a key's name: algorithm and digest
_MAX_DATA: Final = 64  # octets of qualifying data


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmQuote:
    """What the TPM says; digests are SHA-256."""

    registers: tuple[int, ...]  # PCRs quoted, ascending
    pcr_digest: bytes  # over their values, see `measurement_log.composite_digest`
    qualifying_data: bytes  # the asker's
    qualified_signer: bytes  # name of the attestation key under its parents
    clock: int  # milliseconds that the TPM has been running
    reset_count: int  # resets of the TPM: a higher one means other registers
    restart_count: int
    clock_safe: bool
    firmware_version: int


class _Reader:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._offset = 0

    def take(self, length: int) -> bytes:
        end = self._offset + length
        if end > len(self._octets):
            raise StatementInvalid("the quote is too short")
        self._offset, value = end, self._octets[self._offset : end]
        return value

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def sized(self, most: int) -> bytes:
        length = self.number(2)
        if length > most:
            raise StatementInvalid("a field of the quote is too long")
        return self.take(length)

    def expect(self, width: int, wanted: int, what: str) -> None:
        if self.number(width) != wanted:
            raise StatementInvalid(f"not a quote as it must be: {what}")

    def end(self) -> None:
        if self._offset != len(self._octets):
            raise StatementInvalid("octets behind the quote")


def parse_quote(octets: bytes) -> TpmQuote:
    """Decode a TPMS_ATTEST; nothing in it is true before its signature was verified.

    Raises:
        StatementInvalid: another structure, another bank than SHA-256 alone, or not exactly one structure.
    """
    if len(octets) > MAX_QUOTE:
        raise StatementInvalid("the quote is too long")
    reader = _Reader(octets)
    reader.expect(4, int.from_bytes(GENERATED, "big"), "magic")
    reader.expect(2, _ST_ATTEST_QUOTE, "type")
    signer = reader.sized(_NAME)
    data = reader.sized(_MAX_DATA)
    clock, resets, restarts = reader.number(8), reader.number(4), reader.number(4)
    safe = reader.number(1)
    firmware = reader.number(8)
    reader.expect(4, 1, "number of banks")
    reader.expect(2, _ALG_SHA256, "bank")
    registers = _selection(reader)
    digest = reader.sized(DIGEST)
    reader.end()
    if safe > 1 or len(digest) != DIGEST:
        raise StatementInvalid("a field of the quote is out of range")
    return TpmQuote(
        registers=registers,
        pcr_digest=digest,
        qualifying_data=data,
        qualified_signer=signer,
        clock=clock,
        reset_count=resets,
        restart_count=restarts,
        clock_safe=bool(safe),
        firmware_version=firmware,
    )


def verify_quote(
    octets: bytes, signature: bytes, public_key: ec.EllipticCurvePublicKey, *, qualifying_data: bytes
) -> TpmQuote:
    """Verify and decode a quote.

    Args:
        octets: TPMS_ATTEST as the TPM signed it.
        signature: r and s, 32 octets each.
        public_key: of the attestation key.
        qualifying_data: what the asker gave; a quote over anything else is a replay.

    Raises:
        StatementInvalid: broken, not signed by this key, or made for other qualifying data.
    """
    verify_raw(public_key, signature, octets)
    quote = parse_quote(octets)
    if not hmac.compare_digest(quote.qualifying_data, qualifying_data):
        raise StatementInvalid("the quote was made for something else")
    return quote


def _selection(reader: _Reader) -> tuple[int, ...]:
    bits = reader.take(reader.number(1))
    registers = tuple(8 * index + bit for index, octet in enumerate(bits) for bit in range(8) if octet >> bit & 1)
    if not registers or registers[-1] not in REGISTERS:
        raise StatementInvalid("the quote covers no register, or one that there is not")
    return registers
