"""What an MCIM says: the TLVs inside `data`, and the rules a TRE applies to them after decryption."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID

from mcim import tlv
from mcim.errors import PackageRefused
from mcim.vocabulary import AlgorithmId, Operation, ResultCode, Tag

MCIM_ID: Final = 0x8001
SHO_ID: Final = 0x8002
TRE_ID: Final = 0x8003
REG_NONCE: Final = 0x8004
SEQUENCE: Final = 0x8005
NOT_BEFORE: Final = 0x8006
NOT_AFTER: Final = 0x8007
TRANSACTION_ID: Final = 0x8008
OPERATION: Final = 0x8009
BIND_MODE: Final = 0x800A
AUTH_TOKEN: Final = 0x8010
IMSI: Final = 0x8020
K: Final = 0x8021
ALG_ID: Final = 0x8022
OPC: Final = 0x8023
SQN_INIT: Final = 0x8029
AMF: Final = 0x802A
INITIAL_STATE: Final = 0x0050

_KNOWN: Final = frozenset(
    (MCIM_ID, SHO_ID, TRE_ID, REG_NONCE, SEQUENCE, NOT_BEFORE, NOT_AFTER, TRANSACTION_ID, OPERATION, BIND_MODE,
     AUTH_TOKEN, IMSI, K, ALG_ID, OPC, SQN_INIT, AMF, INITIAL_STATE)
)  # fmt: skip
_OPERATIONS_OF: Final = {
    Tag.MCIM: (Operation.INSTALL, Operation.REPLACE),
    Tag.UPDATE: (Operation.UPDATE,),
    Tag.COMMAND: (Operation.ACTIVATE, Operation.SUSPEND, Operation.DELETE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class McimContent:
    """A complete MCIM (tag 01). Secrets and the subscriber identity stay out of the repr."""

    mcim_id: UUID
    sho_id: str  # FQDN
    tre_id: str  # URN
    registration_nonce: bytes = field(repr=False)
    sequence: int
    not_before: datetime  # UTC, whole seconds
    not_after: datetime
    transaction_id: UUID
    operation: Operation = Operation.INSTALL
    auth_token: bytes | None = field(default=None, repr=False)
    imsi: str = field(repr=False)
    k: bytes = field(repr=False)
    algorithm: AlgorithmId = AlgorithmId.MILENAGE
    opc: bytes = field(repr=False)
    sqn_init: int = 0  # 48 bits
    amf: bytes = b"\x80\x00"
    initial_state: int = 30

    def to_payload(self) -> bytes:
        """Encode as the payload of `data`."""
        fields = [
            (MCIM_ID, self.mcim_id.bytes),
            (SHO_ID, self.sho_id.encode("ascii")),
            (TRE_ID, self.tre_id.encode("ascii")),
            (REG_NONCE, self.registration_nonce),
            (SEQUENCE, self.sequence.to_bytes(8, "big")),
            (NOT_BEFORE, int(self.not_before.timestamp()).to_bytes(8, "big")),
            (NOT_AFTER, int(self.not_after.timestamp()).to_bytes(8, "big")),
            (TRANSACTION_ID, self.transaction_id.bytes),
            (OPERATION, bytes((self.operation,))),
            (IMSI, self.imsi.encode("ascii")),
            (K, self.k),
            (ALG_ID, bytes((self.algorithm,))),
            (OPC, self.opc),
            (SQN_INIT, self.sqn_init.to_bytes(6, "big")),
            (AMF, self.amf),
            (INITIAL_STATE, bytes((self.initial_state,))),
        ]
        if self.auth_token is not None:
            fields.append((AUTH_TOKEN, self.auth_token))
        return tlv.encode(fields)


def parse_content(tag: Tag, payload: bytes) -> McimContent:
    """Decode and check the payload of a complete MCIM with MILENAGE (REQ-30, REQ-34).

    Raises:
        PackageRefused: CONTENT_INVALID for whatever is missing, repeated, out of range or does not fit the tag,
            ALGORITHM_UNSUPPORTED for an algorithm other than MILENAGE.
    """
    if tag is not Tag.MCIM:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"tag {tag.name} is not handled here")
    fields = _decode(payload)
    operation = _enumerated(Operation, _octet(fields, OPERATION), "operation")
    if operation not in _OPERATIONS_OF[tag]:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"operation {operation.label} does not fit tag {tag.name}")
    if BIND_MODE in fields and fields[BIND_MODE] != b"\x00":
        raise PackageRefused(ResultCode.CONTENT_INVALID, "pre-wrapped objects are not accepted")
    algorithm = _enumerated(AlgorithmId, _octet(fields, ALG_ID), "algorithm")
    if algorithm is not AlgorithmId.MILENAGE:
        raise PackageRefused(ResultCode.ALGORITHM_UNSUPPORTED, f"algorithm {algorithm.name} is not supported")
    content = McimContent(
        mcim_id=UUID(bytes=_sized(fields, MCIM_ID, 16)),
        sho_id=_text(fields, SHO_ID),
        tre_id=_text(fields, TRE_ID),
        registration_nonce=_ranged(fields, REG_NONCE, 16, 64),
        sequence=int.from_bytes(_sized(fields, SEQUENCE, 8), "big"),
        not_before=_time(fields, NOT_BEFORE),
        not_after=_time(fields, NOT_AFTER),
        transaction_id=UUID(bytes=_sized(fields, TRANSACTION_ID, 16)),
        operation=operation,
        auth_token=_ranged(fields, AUTH_TOKEN, 1, 64) if AUTH_TOKEN in fields else None,
        imsi=_text(fields, IMSI),
        k=_sized(fields, K, 16),
        algorithm=algorithm,
        opc=_sized(fields, OPC, 16),
        sqn_init=int.from_bytes(_sized(fields, SQN_INIT, 6), "big") if SQN_INIT in fields else 0,
        amf=_sized(fields, AMF, 2) if AMF in fields else b"\x80\x00",
        initial_state=_octet(fields, INITIAL_STATE) if INITIAL_STATE in fields else 30,
    )
    _check(content)
    return content


def _check(content: McimContent) -> None:
    faults = {
        "IMSI is not 6 to 15 digits": re.fullmatch("[0-9]{6,15}", content.imsi) is None,
        "MCC out of range": not "001" <= content.imsi[:3] <= "999",
        "K or OPc is all zeroes or all ones": any(v in (bytes(16), b"\xff" * 16) for v in (content.k, content.opc)),
        "OPc equals K": content.opc == content.k,
        "validity ends before it begins": content.not_before >= content.not_after,
        "initial state is neither provisioned nor activated": content.initial_state not in (30, 40),
    }
    for fault, present in faults.items():
        if present:
            raise PackageRefused(ResultCode.CONTENT_INVALID, fault)


def _decode(payload: bytes) -> dict[int, bytes]:
    try:
        fields = dict(tlv.decode(payload))
    except tlv.TlvError as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, str(exc)) from exc
    for kind in fields:
        if kind & tlv.CRITICAL and kind not in _KNOWN:
            raise PackageRefused(ResultCode.CONTENT_INVALID, f"critical TLV {kind:04X} is unknown")
    return fields


def _ranged(fields: dict[int, bytes], kind: int, low: int, high: int) -> bytes:
    value = fields.get(kind)
    if value is None or not low <= len(value) <= high:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"TLV {kind:04X} is missing or has a wrong length")
    return value


def _sized(fields: dict[int, bytes], kind: int, length: int) -> bytes:
    return _ranged(fields, kind, length, length)


def _octet(fields: dict[int, bytes], kind: int) -> int:
    return _sized(fields, kind, 1)[0]


def _text(fields: dict[int, bytes], kind: int) -> str:
    value = _ranged(fields, kind, 1, 255)
    if not value.isascii() or not value.decode("ascii").isprintable():
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"TLV {kind:04X} is not printable ASCII")
    return value.decode("ascii")


def _time(fields: dict[int, bytes], kind: int) -> datetime:
    try:
        return datetime.fromtimestamp(int.from_bytes(_sized(fields, kind, 8), "big"), UTC)
    except (OverflowError, ValueError, OSError) as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"TLV {kind:04X} is no time") from exc


_E = TypeVar("_E", Operation, AlgorithmId)


def _enumerated(kind: type[_E], value: int, name: str) -> _E:
    try:
        return kind(value)
    except ValueError as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"{name} {value} is unknown") from exc
