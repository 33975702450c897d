"""Receipt: what a TRE says it did with a package, signed by its attestation key (REQ-67).

A refusal is receipted as well; fields the TRE could not read from a broken package are absent then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec

from mcim import statements
from mcim.errors import StatementInvalid
from mcim.header_fields import MAX_SEQUENCE
from mcim.statements import Sign
from mcim.vocabulary import Operation, ResultCode

PREFIX: Final = b"M2M-RCPT/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Outcome of one action of the TRE."""

    tre_id: str
    operation: Operation | None
    mcim_id: UUID | None
    sho_id: str | None
    sequence: int | None
    nonce: bytes | None = field(repr=False)  # the registration nonce of the package
    revision: int | None
    package_hash: bytes  # SHA-256 of the package as received
    result: ResultCode
    counter: int  # monotonic in the TRE: a report cannot be replayed
    time: datetime | None  # UTC, whole seconds, if the TRE has a clock


def sign_receipt(receipt: Receipt, signer: Sign) -> bytes:
    """Encode and sign."""
    fields: list[tuple[int, bytes | None]] = [
        (1, receipt.tre_id.encode()),
        (2, None if receipt.operation is None else bytes((receipt.operation,))),
        (3, None if receipt.mcim_id is None else receipt.mcim_id.bytes),
        (4, None if receipt.sho_id is None else receipt.sho_id.encode()),
        (5, None if receipt.sequence is None else receipt.sequence.to_bytes(8, "big")),
        (6, receipt.nonce),
        (7, None if receipt.revision is None else receipt.revision.to_bytes(2, "big")),
        (8, receipt.package_hash),
        (9, receipt.result.to_bytes(2, "big")),
        (10, receipt.counter.to_bytes(8, "big")),
        (11, None if receipt.time is None else int(receipt.time.timestamp()).to_bytes(8, "big")),
    ]
    return statements.sign(PREFIX, [(kind, value) for kind, value in fields if value is not None], signer)


def verify_receipt(octets: bytes, public_key: ec.EllipticCurvePublicKey) -> Receipt:
    """Verify the signature and decode; what the fields must equal is the caller's check.

    Raises:
        StatementInvalid: not a receipt, not signed by this key, or a field is missing.
    """
    fields = statements.verify(PREFIX, octets, public_key)
    try:
        return Receipt(
            tre_id=statements.text(fields[1]),
            operation=Operation(statements.number(fields[2], 1)) if 2 in fields else None,
            mcim_id=UUID(bytes=fields[3]) if 3 in fields else None,
            sho_id=statements.text(fields[4]) if 4 in fields else None,
            sequence=statements.number(fields[5], most=MAX_SEQUENCE) if 5 in fields else None,
            nonce=fields.get(6),
            revision=statements.number(fields[7], 2) if 7 in fields else None,
            package_hash=fields[8],
            result=ResultCode(statements.number(fields[9], 2)),
            counter=statements.number(fields[10]),
            time=datetime.fromtimestamp(statements.number(fields[11]), UTC) if 11 in fields else None,
        )
    except (KeyError, ValueError, OverflowError, OSError) as exc:
        raise StatementInvalid("a field is missing or broken") from exc
