"""What an MCIM says: the TLVs inside `data`, and the rules a TRE applies to them after decryption."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

from mcim import tlv
from mcim.errors import InvalidArgument, PackageRefused
from mcim.milenage import MilenageConstants
from mcim.network_keys import NetworkKeys
from mcim.tuak import TuakParameters
from mcim.vocabulary import AlgorithmId, BindMode, McimPolicy, Operation, ResultCode, Tag

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
OP: Final = 0x8024
TOPC: Final = 0x8025
TOP: Final = 0x8026
MIL_CONST: Final = 0x8027
TUAK_PARAM: Final = 0x8028
SQN_INIT: Final = 0x8029
AMF: Final = 0x802A
SQN_POLICY: Final = 0x002B
ACCESS_FILES: Final = range(0x0030, 0x0038)  # MSISDN, PLMN lists, access class, APN, … (coded as in TS 31.102)
CODE_FORMAT: Final = 0x8040
CODE_PART: Final = 0x8041
CODE_SHA256: Final = 0x8042
INITIAL_STATE: Final = 0x0050
REPLACES: Final = 0x8051
RELEASE_TOKEN: Final = 0x8052
POLICY: Final = 0x0053

_BOUND: Final = frozenset(
    (MCIM_ID, SHO_ID, TRE_ID, REG_NONCE, SEQUENCE, NOT_BEFORE, NOT_AFTER, TRANSACTION_ID, OPERATION, BIND_MODE,
     AUTH_TOKEN)
)  # fmt: skip
_OF_KEYS: Final = frozenset((K, ALG_ID, OPC, TOPC, MIL_CONST, TUAK_PARAM))
_CRITICAL_OF: Final = {
    Tag.MCIM: _BOUND | _OF_KEYS | {IMSI, SQN_INIT, AMF, REPLACES, RELEASE_TOKEN},
    Tag.UPDATE: _BOUND | _OF_KEYS | {IMSI, SQN_INIT, AMF},
    Tag.ALGORITHM: _BOUND | {ALG_ID, MIL_CONST, TUAK_PARAM, CODE_FORMAT, CODE_PART, CODE_SHA256},
}
"""Critical TLVs that mean something with a tag: any other one would go unheeded, which its bit 15 forbids."""
_OPERATIONS_OF: Final = {
    Tag.MCIM: (Operation.INSTALL, Operation.REPLACE),
    Tag.UPDATE: (Operation.UPDATE,),
    Tag.ALGORITHM: (Operation.UPDATE,),
    Tag.COMMAND: (Operation.ACTIVATE, Operation.SUSPEND, Operation.DELETE),
}


_OPC_TYPE: Final = {AlgorithmId.MILENAGE: OPC, AlgorithmId.TUAK: TOPC}
_CONSTANTS_TYPE: Final = {AlgorithmId.MILENAGE: MIL_CONST, AlgorithmId.TUAK: TUAK_PARAM}
_K_LENGTHS: Final = {AlgorithmId.MILENAGE: (16,), AlgorithmId.TUAK: (16, 32)}
_OPC_LENGTH: Final = {OPC: 16, TOPC: 32}
_OPTIONAL: Final = frozenset((SQN_POLICY, *ACCESS_FILES))
_SQN_POLICY_LENGTH: Final = 13  # octets: IND bits (1), delta (6), L (6)
MAX_CODE: Final = 128 * 1024  # octets of algorithm code, all parts together
EPS_AMF: Final = b"\x80\x00"  # separation bit set (TS 33.401)


class CodeFormat(IntEnum):
    """Form of downloadable algorithm code (TLV 8040)."""

    JAVA = 1
    STIP = 2
    NATIVE = 3

    @property
    def label(self) -> str:
        """Name as M2MMobj/TRE/CodeFormats lists it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundContent:
    """What every object says inside: for which TRE, from which SHO, in which place of their history (REQ-57)."""

    mcim_id: UUID
    sho_id: str  # FQDN
    tre_id: str  # URN
    registration_nonce: bytes | None = field(repr=False)  # None: prepared before there was one
    sequence: int
    not_before: datetime  # UTC, whole seconds
    not_after: datetime
    transaction_id: UUID | None  # None: as the nonce
    operation: Operation = Operation.INSTALL
    bind_mode: BindMode = BindMode.NONCE
    auth_token: bytes | None = field(default=None, repr=False)  # device token (REQ-61)

    def _bound_fields(self) -> list[tuple[int, bytes]]:
        fields = [
            (MCIM_ID, self.mcim_id.bytes),
            (SHO_ID, self.sho_id.encode("ascii")),
            (TRE_ID, self.tre_id.encode("ascii")),
            (SEQUENCE, self.sequence.to_bytes(8, "big")),
            (NOT_BEFORE, int(self.not_before.timestamp()).to_bytes(8, "big")),
            (NOT_AFTER, int(self.not_after.timestamp()).to_bytes(8, "big")),
            (OPERATION, bytes((self.operation,))),
        ]
        if self.bind_mode is BindMode.PREPARED:
            fields.append((BIND_MODE, bytes((self.bind_mode,))))
        if self.registration_nonce is not None:
            fields.append((REG_NONCE, self.registration_nonce))
        if self.transaction_id is not None:
            fields.append((TRANSACTION_ID, self.transaction_id.bytes))
        if self.auth_token is not None:
            fields.append((AUTH_TOKEN, self.auth_token))
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class McimContent(BoundContent):
    """A complete MCIM (tag 01). Secrets and the subscriber identity stay out of the repr."""

    imsi: str = field(repr=False)
    k: bytes = field(repr=False)
    algorithm: AlgorithmId = AlgorithmId.MILENAGE
    opc: bytes = field(repr=False)  # OPc; TOPc with TUAK
    constants: bytes = b""  # value of MIL_CONST or TUAK_PARAM
    sqn_init: int = 0  # 48 bits
    amf: bytes = EPS_AMF
    initial_state: int = 30
    policy: McimPolicy = McimPolicy.SIGNED_LIFECYCLE  # so without the TLV, too: nobody leaves protection out by mistake
    replaces: UUID | None = None  # the MCIM given up after success (operation replace)
    release_token: bytes | None = field(default=None, repr=False)  # of the home operator of that MCIM
    optional: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)  # SQN_POLICY, ACCESS_FILES: carried, unread

    @property
    def keys(self) -> NetworkKeys:
        """What it authenticates with."""
        return NetworkKeys(algorithm=self.algorithm, k=self.k, opc=self.opc, constants=self.constants)

    def to_payload(self) -> bytes:
        """Encode as the payload of `data`."""
        fields = [
            *self._bound_fields(),
            (IMSI, self.imsi.encode("ascii")),
            (K, self.k),
            (ALG_ID, bytes((self.algorithm,))),
            (_OPC_TYPE[self.algorithm], self.opc),
            (SQN_INIT, self.sqn_init.to_bytes(6, "big")),
            (AMF, self.amf),
            (INITIAL_STATE, bytes((self.initial_state,))),
            *self.optional,
        ]
        if self.constants:
            fields.append((_CONSTANTS_TYPE[self.algorithm], self.constants))
        if self.policy != McimPolicy.SIGNED_LIFECYCLE:
            fields.append((POLICY, bytes((self.policy,))))
        if self.replaces is not None:
            fields.append((REPLACES, self.replaces.bytes))
        if self.release_token is not None:
            fields.append((RELEASE_TOKEN, self.release_token))
        return tlv.encode(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateContent(BoundContent):
    """Changes to an installed MCIM (tag 03): what is None stays. K and OPc change together, and with a new SQN."""

    operation: Operation = Operation.UPDATE
    imsi: str | None = field(default=None, repr=False)
    keys: NetworkKeys | None = field(default=None, repr=False)
    sqn_init: int | None = None  # 48 bits
    amf: bytes | None = None
    policy: McimPolicy | None = None

    def to_payload(self) -> bytes:
        """Encode as the payload of `data`."""
        fields = self._bound_fields()
        if self.imsi is not None:
            fields.append((IMSI, self.imsi.encode("ascii")))
        if self.keys is not None:
            fields += [
                (K, self.keys.k),
                (ALG_ID, bytes((self.keys.algorithm,))),
                (_OPC_TYPE[self.keys.algorithm], self.keys.opc),
            ]
            if self.keys.constants:
                fields.append((_CONSTANTS_TYPE[self.keys.algorithm], self.keys.constants))
        if self.sqn_init is not None:
            fields.append((SQN_INIT, self.sqn_init.to_bytes(6, "big")))
        if self.amf is not None:
            fields.append((AMF, self.amf))
        if self.policy is not None:
            fields.append((POLICY, bytes((self.policy,))))
        return tlv.encode(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmCode:
    """Code of an authentication algorithm. It is data here and stays data: nothing in this project runs it (T15)."""

    format: CodeFormat
    octets: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256, which the payload names as well."""
        return hashlib.sha256(self.octets).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmContent(BoundContent):
    """Another algorithm for an installed MCIM (tag 02): its constants, or code; keys and sequence numbers stay.

    `algorithm` says of which the constants are. CODE comes with code and without constants.
    """

    operation: Operation = Operation.UPDATE
    algorithm: AlgorithmId
    constants: bytes = b""  # value of MIL_CONST or TUAK_PARAM
    code: AlgorithmCode | None = None

    def applied_to(self, keys: NetworkKeys) -> NetworkKeys:
        """The keys of the MCIM with the new constants.

        Raises:
            PackageRefused: CONTENT_INVALID when the MCIM has another algorithm; ALGORITHM_UNSUPPORTED when code
                would have to run (T15).
        """
        if self.code is not None or self.algorithm is AlgorithmId.CODE:
            raise PackageRefused(ResultCode.ALGORITHM_UNSUPPORTED, "there is nothing here that runs code")
        if keys.algorithm is not self.algorithm:
            raise PackageRefused(ResultCode.CONTENT_INVALID, f"constants of {self.algorithm.name} for another one")
        return replace(keys, constants=self.constants)

    def to_payload(self) -> bytes:
        """Encode as the payload of `data`; code goes in parts of 65 535 octets."""
        fields = [*self._bound_fields(), (ALG_ID, bytes((self.algorithm,)))]
        if self.constants:
            fields.append((_CONSTANTS_TYPE[self.algorithm], self.constants))
        if self.code is not None:
            octets = self.code.octets
            fields.append((CODE_FORMAT, bytes((self.code.format,))))
            fields += [(CODE_PART, octets[at : at + 0xFFFF]) for at in range(0, len(octets), 0xFFFF)]
            fields.append((CODE_SHA256, self.code.digest))
        return tlv.encode(fields, repeatable=_REPEATABLE)


_REPEATABLE: Final = frozenset((CODE_PART,))
Content: TypeAlias = McimContent | UpdateContent | AlgorithmContent


def parse_content(tag: Tag, payload: bytes) -> Content:
    """Decode and check a payload (REQ-30, REQ-34): tag 01 an MCIM, 02 an algorithm, 03 an update.

    Raises:
        PackageRefused: CONTENT_INVALID for whatever is missing, repeated, out of range or does not fit the tag,
            ALGORITHM_UNSUPPORTED for an algorithm other than MILENAGE and TUAK (tags 01 and 03).
    """
    if tag not in _CRITICAL_OF:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"tag {tag.name} is not handled here")
    fields = _decode(tag, payload)
    bound = _bound(tag, fields)
    if tag is Tag.UPDATE:
        return _update(bound, fields)
    if tag is Tag.ALGORITHM:
        return _algorithm(bound, fields)
    content = McimContent(
        **bound,
        imsi=_text(fields, IMSI),
        **_keys(fields),
        sqn_init=_sqn(fields) if SQN_INIT in fields else 0,
        amf=_sized(fields, AMF, 2) if AMF in fields else EPS_AMF,
        initial_state=_octet(fields, INITIAL_STATE) if INITIAL_STATE in fields else 30,
        policy=_policy(fields) if POLICY in fields else McimPolicy.SIGNED_LIFECYCLE,
        replaces=UUID(bytes=_sized(fields, REPLACES, 16)) if REPLACES in fields else None,
        release_token=_ranged(fields, RELEASE_TOKEN, 1, 0xFFFF) if RELEASE_TOKEN in fields else None,
        optional=tuple((kind, fields[kind]) for kind in sorted(_OPTIONAL & fields.keys())),
    )
    _check(content)
    return content


def _bound(tag: Tag, fields: dict[int, bytes]) -> dict[str, Any]:
    operation = _enumerated(Operation, _octet(fields, OPERATION), "operation")
    if operation not in _OPERATIONS_OF[tag]:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"operation {operation.label} does not fit tag {tag.name}")
    mode = _enumerated(BindMode, _octet(fields, BIND_MODE), "bind mode") if BIND_MODE in fields else BindMode.NONCE
    prepared = mode is BindMode.PREPARED
    if prepared and (REG_NONCE in fields or TRANSACTION_ID in fields):
        raise PackageRefused(ResultCode.CONTENT_INVALID, "a prepared object names a nonce or a transaction")
    bound: dict[str, Any] = {
        "mcim_id": UUID(bytes=_sized(fields, MCIM_ID, 16)),
        "sho_id": _text(fields, SHO_ID),
        "tre_id": _text(fields, TRE_ID),
        "registration_nonce": None if prepared else _ranged(fields, REG_NONCE, 16, 64),
        "sequence": int.from_bytes(_sized(fields, SEQUENCE, 8), "big"),
        "not_before": _time(fields, NOT_BEFORE),
        "not_after": _time(fields, NOT_AFTER),
        "transaction_id": None if prepared else UUID(bytes=_sized(fields, TRANSACTION_ID, 16)),
        "operation": operation,
        "bind_mode": mode,
        "auth_token": _ranged(fields, AUTH_TOKEN, 1, 64) if AUTH_TOKEN in fields else None,
    }
    if bound["not_before"] >= bound["not_after"]:
        raise PackageRefused(ResultCode.CONTENT_INVALID, "validity ends before it begins")
    return bound


def _keys(fields: dict[int, bytes]) -> dict[str, Any]:
    algorithm = _enumerated(AlgorithmId, _octet(fields, ALG_ID), "algorithm")
    if algorithm not in _OPC_TYPE:
        raise PackageRefused(ResultCode.ALGORITHM_UNSUPPORTED, f"algorithm {algorithm.name} is not supported")
    opc, constants = _OPC_TYPE[algorithm], _CONSTANTS_TYPE[algorithm]
    foreign = (set(_OPC_TYPE.values()) | set(_CONSTANTS_TYPE.values())) - {opc, constants}
    if foreign & fields.keys():
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"parameters of another algorithm than {algorithm.name}")
    k = _ranged(fields, K, 16, 32)
    if len(k) not in _K_LENGTHS[algorithm]:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"K does not fit {algorithm.name}")
    keys: dict[str, Any] = {
        "algorithm": algorithm,
        "k": k,
        "opc": _sized(fields, opc, _OPC_LENGTH[opc]),
        "constants": _ranged(fields, constants, 1, 0xFFFF) if constants in fields else b"",
    }
    try:
        NetworkKeys(**keys).functions()  # constants that no network could use are refused here, not at the attach
    except InvalidArgument as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, str(exc)) from exc
    return keys


def _algorithm(bound: dict[str, Any], fields: dict[int, bytes]) -> AlgorithmContent:
    algorithm = _enumerated(AlgorithmId, _octet(fields, ALG_ID), "algorithm")
    code = _code(fields) if {CODE_FORMAT, CODE_PART, CODE_SHA256} & fields.keys() else None
    wanted = _CONSTANTS_TYPE.get(algorithm)
    if algorithm is not AlgorithmId.CODE and wanted is None:
        raise PackageRefused(ResultCode.ALGORITHM_UNSUPPORTED, f"algorithm {algorithm.name} is not supported")
    if {MIL_CONST, TUAK_PARAM} & fields.keys() != ({wanted} if wanted else set()):
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"not the constants of {algorithm.name}")
    if algorithm is AlgorithmId.CODE and code is None:
        raise PackageRefused(ResultCode.CONTENT_INVALID, "no code")
    constants = fields[wanted] if wanted else b""
    try:
        if wanted == MIL_CONST:
            MilenageConstants.parse(constants)
        elif wanted == TUAK_PARAM:
            TuakParameters.parse(constants)
    except InvalidArgument as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, str(exc)) from exc
    return AlgorithmContent(**bound, algorithm=algorithm, constants=constants, code=code)


def _code(fields: dict[int, bytes]) -> AlgorithmCode:
    code = AlgorithmCode(
        format=_enumerated(CodeFormat, _octet(fields, CODE_FORMAT), "code format"),
        octets=_ranged(fields, CODE_PART, 1, MAX_CODE),
    )
    if not hmac.compare_digest(code.digest, _sized(fields, CODE_SHA256, 32)):
        raise PackageRefused(ResultCode.CONTENT_INVALID, "the code has another digest")
    return code


def _update(bound: dict[str, Any], fields: dict[int, bytes]) -> UpdateContent:
    keys = NetworkKeys(**_keys(fields)) if _OF_KEYS & fields.keys() else None
    if keys is not None and SQN_INIT not in fields:
        raise PackageRefused(ResultCode.CONTENT_INVALID, "new keys without a new sequence number")
    content = UpdateContent(
        **bound,
        imsi=_text(fields, IMSI) if IMSI in fields else None,
        keys=keys,
        sqn_init=_sqn(fields) if SQN_INIT in fields else None,
        amf=_sized(fields, AMF, 2) if AMF in fields else None,
        policy=_policy(fields) if POLICY in fields else None,
    )
    _refuse_faults(
        {
            **({} if content.imsi is None else _imsi_faults(content.imsi)),
            **({} if keys is None else _key_faults(keys.k, keys.opc)),
        }
    )
    return content


def _policy(fields: dict[int, bytes]) -> McimPolicy:
    value = _octet(fields, POLICY)
    if value > sum(McimPolicy):
        raise PackageRefused(ResultCode.CONTENT_INVALID, "the policy has unknown flags")
    return McimPolicy(value)


def _sqn(fields: dict[int, bytes]) -> int:
    return int.from_bytes(_sized(fields, SQN_INIT, 6), "big")


def _check(content: McimContent) -> None:
    _refuse_faults(
        {
            **_imsi_faults(content.imsi),
            **_key_faults(content.k, content.opc),
            "initial state is neither provisioned nor activated": content.initial_state not in (30, 40),
            "only an MCIM that replaces one names it": (content.operation is Operation.REPLACE)
            is not (content.replaces is not None),
            "it replaces itself": content.replaces == content.mcim_id,
            "a release token without anything released": content.release_token is not None and content.replaces is None,
        }
    )


def _imsi_faults(imsi: str) -> dict[str, bool]:
    return {
        "IMSI is not 6 to 15 digits": re.fullmatch("[0-9]{6,15}", imsi) is None,
        "MCC out of range": not "001" <= imsi[:3] <= "999",
    }


def _key_faults(k: bytes, opc: bytes) -> dict[str, bool]:
    return {
        "K or OPc is all zeroes or all ones": any(not v.strip(b"\x00") or not v.strip(b"\xff") for v in (k, opc)),
        "OPc equals K": opc == k,
    }


def _refuse_faults(faults: dict[str, bool]) -> None:
    for fault, present in faults.items():
        if present:
            raise PackageRefused(ResultCode.CONTENT_INVALID, fault)


def _decode(tag: Tag, payload: bytes) -> dict[int, bytes]:
    try:
        decoded = tlv.decode(payload, repeatable=_REPEATABLE)
    except tlv.TlvError as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, str(exc)) from exc
    fields = dict(decoded)
    if CODE_PART in fields:
        fields[CODE_PART] = b"".join(value for kind, value in decoded if kind == CODE_PART)
    if {OP, TOP} & fields.keys():
        # One OP or TOP serves all subscribers of an operator: in one device broken open it would endanger the others.
        raise PackageRefused(ResultCode.CONTENT_INVALID, "OP or TOP is sent where only OPc or TOPc may be")
    for kind in fields:
        if kind & tlv.CRITICAL and kind not in _CRITICAL_OF[tag]:
            raise PackageRefused(ResultCode.CONTENT_INVALID, f"critical TLV {kind:04X} is not for tag {tag.name}")
    if len(fields.get(SQN_POLICY, bytes(_SQN_POLICY_LENGTH))) != _SQN_POLICY_LENGTH:
        raise PackageRefused(ResultCode.CONTENT_INVALID, "SQN_POLICY has a wrong length")
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


_E = TypeVar("_E", Operation, AlgorithmId, BindMode, CodeFormat)


def _enumerated(kind: type[_E], value: int, name: str) -> _E:
    try:
        return kind(value)
    except ValueError as exc:
        raise PackageRefused(ResultCode.CONTENT_INVALID, f"{name} {value} is unknown") from exc
