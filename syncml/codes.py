"""Numbers and names of SyncML DM 1.2 in one place.

Codes a peer may invent stay plain integers: `StatusCode` and `AlertCode` name the ones the specification knows,
and comparisons work with both. Sources: OMA-TS-DM_Protocol-V1_2, OMA-TS-DM_RepPro-V1_2, OMA-TS-SyncML_RepPro-V1_2.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final

VER_DTD: Final = "1.2"
VER_PROTO: Final = "DM/1.2"
NS_SYNCML: Final = "SYNCML:SYNCML1.2"
NS_METINF: Final = "syncml:metinf"
NS_DDF: Final = "syncml:dmddf1.2"


class MediaType(StrEnum):
    """Media types of OMA DM 1.2 bodies and values (OMNA; wap-230-wsp assigned numbers)."""

    DM_XML = "application/vnd.syncml.dm+xml"
    DM_WBXML = "application/vnd.syncml.dm+wbxml"
    TNDS_XML = "application/vnd.syncml.dmtnds+xml"
    TNDS_WBXML = "application/vnd.syncml.dmtnds+wbxml"
    NOTIFICATION = "application/vnd.syncml.notification"
    CONNECTIVITY_WBXML = "application/vnd.wap.connectivity-wbxml"
    CONNECTIVITY_XML = "text/vnd.wap.connectivity-xml"
    TEXT = "text/plain"


class StatusCode(IntEnum):
    """Status codes as OMA DM uses them (OMA-TS-DM_RepPro-V1_2 §10)."""

    IN_PROGRESS = 101
    OK = 200
    ACCEPTED_FOR_PROCESSING = 202
    AUTHENTICATION_ACCEPTED = 212
    CHUNK_ACCEPTED = 213
    OPERATION_CANCELLED = 214
    NOT_EXECUTED = 215
    ATOMIC_ROLL_BACK_OK = 216
    NOT_MODIFIED = 304
    BAD_REQUEST = 400
    INVALID_CREDENTIALS = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    COMMAND_NOT_ALLOWED = 405
    OPTIONAL_FEATURE_NOT_SUPPORTED = 406
    MISSING_CREDENTIALS = 407
    REQUEST_TIMEOUT = 408
    CONFLICT = 409
    INCOMPLETE_COMMAND = 412
    REQUEST_ENTITY_TOO_LARGE = 413
    URI_TOO_LONG = 414
    UNSUPPORTED_MEDIA_TYPE_OR_FORMAT = 415
    REQUESTED_RANGE_NOT_SATISFIABLE = 416
    ALREADY_EXISTS = 418
    DEVICE_FULL = 420
    SIZE_MISMATCH = 424
    PERMISSION_DENIED = 425
    COMMAND_FAILED = 500
    COMMAND_NOT_IMPLEMENTED = 501
    SERVICE_UNAVAILABLE = 503
    DTD_VERSION_NOT_SUPPORTED = 505
    PROCESSING_ERROR = 506
    ATOMIC_FAILED = 507
    DATA_STORE_FAILURE = 510
    SERVER_FAILURE = 511
    PROTOCOL_VERSION_NOT_SUPPORTED = 513
    OPERATION_CANCELLED_FAILURE = 514
    ATOMIC_ROLL_BACK_FAILED = 516
    ATOMIC_RESPONSE_TOO_LARGE = 517


class AlertCode(IntEnum):
    """Alert codes of OMA DM 1.2 (OMA-TS-DM_RepPro-V1_2 §8)."""

    DISPLAY = 1100
    CONFIRM_OR_REJECT = 1101
    TEXT_INPUT = 1102
    SINGLE_CHOICE = 1103
    MULTIPLE_CHOICE = 1104
    SERVER_INITIATED_MGMT = 1200
    CLIENT_INITIATED_MGMT = 1201
    NEXT_MESSAGE = 1222
    SESSION_ABORT = 1223
    CLIENT_EVENT = 1224
    NO_END_OF_DATA = 1225
    GENERIC_ALERT = 1226


class Format(StrEnum):
    """Values of the `Format` property and of `Meta/Format` (OMA-TS-DM_TND-V1_2 §7.7.2)."""

    B64 = "b64"
    BIN = "bin"
    BOOL = "bool"
    CHR = "chr"
    INT = "int"
    NODE = "node"
    NULL = "null"
    XML = "xml"
    DATE = "date"
    TIME = "time"
    FLOAT = "float"


class AuthType(StrEnum):
    """Authentication types in `Meta/Type` of `Cred` and `Chal` (OMA-TS-DM_Security-V1_2 §5.3)."""

    BASIC = "syncml:auth-basic"
    MD5 = "syncml:auth-md5"
    MAC = "syncml:auth-MAC"


def is_success(code: int) -> bool:
    """Whether `code` says the command is done: 200, and 212 for credentials.

    Not every `2xx`: 202 is pending, 213 is half a value, 214 to 216 mean it was not done.
    """
    return code in (StatusCode.OK, StatusCode.AUTHENTICATION_ACCEPTED)
