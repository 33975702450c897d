"""Names and numbers of the provisioning scheme that every party may know. No secrets pass through here."""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from typing import Final

MCIM_NAMESPACE: Final = "urn:example:m2m:mcim:1"
"""XML namespace of M2MSIMPackage: a placeholder until somebody registers one."""

PACKAGE_MEDIA_TYPE: Final = "application/vnd.m2m.mcim+xml"
CMS_MEDIA_TYPE: Final = "application/pkcs7-mime"
OBJECT_MEDIA_TYPE: Final = "application/vnd.m2m.mcim"

MAX_PACKAGE_SIZE: Final = 256 * 1024  # octets, checked before parsing


class Suite(IntEnum):
    """Protection suites of the MCIM object; the seed names AES-CBC with HMAC-SHA1 (suite 1) as an example."""

    LEGACY_1 = 1
    RSA_CBC_256 = 2
    RSA_GCM_256 = 3
    EC_CBC_256 = 4
    EC_GCM_256 = 5

    @property
    def label(self) -> str:
        """Name as M2MMobj/TRE/Suites and the package header carry it."""
        return _SUITE_LABELS[self]

    @classmethod
    def from_label(cls, label: str) -> Suite | None:
        """The suite of that name, None when unknown: a peer may offer suites that we do not have."""
        return _SUITES_BY_LABEL.get(label)


_SUITE_LABELS: Final = {
    Suite.LEGACY_1: "MCIM-LEGACY-1",
    Suite.RSA_CBC_256: "MCIM-RSA-CBC-256",
    Suite.RSA_GCM_256: "MCIM-RSA-GCM-256",
    Suite.EC_CBC_256: "MCIM-EC-CBC-256",
    Suite.EC_GCM_256: "MCIM-EC-GCM-256",
}
_SUITES_BY_LABEL: Final = {label: suite for suite, label in _SUITE_LABELS.items()}


class Container(StrEnum):
    """How an MCIM object is wrapped for the way; the values are those of M2MMobj/TRE/Containers."""

    XML = "xml"  # XML Encryption 1.1 (OAEP with SHA-256, or ECDH-ES) in XML Signature
    XML_MGF1P = "xml-mgf1p"  # the same with rsa-oaep-mgf1p (SHA-1), for tokens and tools that know no other OAEP
    CMS = "cms"  # EnvelopedData in SignedData (RFC 5652)

    @property
    def media_type(self) -> str:
        """What the container's ContentType leaf says."""
        return CMS_MEDIA_TYPE if self is Container.CMS else PACKAGE_MEDIA_TYPE


class Tag(IntEnum):
    """Kind of information in `data` (seed: algorithm, update, or MCIM)."""

    MCIM = 0x01
    ALGORITHM = 0x02
    UPDATE = 0x03
    COMMAND = 0x04
    RELEASE = 0x05


class Operation(IntEnum):
    """What a package asks the TRE to do."""

    INSTALL = 1
    UPDATE = 2
    ACTIVATE = 3
    SUSPEND = 4
    DELETE = 5
    REPLACE = 6
    RELEASE = 7  # of an old home operator: lets a new one take the device over; never an action of its own

    @property
    def label(self) -> str:
        """Lower-case name, as the package header carries it."""
        return self.name.lower()

    @property
    def carries_object(self) -> bool:
        """Whether an MCIM object belongs to it; the others are signed headers alone."""
        return self in (Operation.INSTALL, Operation.UPDATE, Operation.REPLACE)


class AlgorithmId(IntEnum):
    """Network-authentication algorithm of an MCIM."""

    MILENAGE = 1
    TUAK = 2
    XOR_TEST = 3
    CODE = 0x80


class BindMode(IntEnum):
    """What ties an MCIM object to one registration."""

    NONCE = 0  # the registration nonce stands inside
    PREPARED = 1  # made before there was a nonce: the signed header alone carries it


class McimPolicy(IntFlag):
    """What the home operator demands for the life of an MCIM (TLV 0053)."""

    NONE = 0
    SIGNED_LIFECYCLE = 1  # activate, suspend and delete by its signed command alone
    RELEASE_REQUIRED = 2  # another home operator may replace it with a release token only
    TWO_PHASE_UPDATE = 4  # what an update replaces is kept until the new values have proved good


class ContainerState(IntEnum):
    """States of one M2MSIMMobj container."""

    EMPTY = 0
    RECEIVING = 10
    RECEIVED = 20
    PROVISIONING = 25
    PROVISIONED = 30
    ACTIVATED = 40
    SUSPENDED = 50
    DELETED = 60
    FAILED = 70


class RegistrationState(IntEnum):
    """States of M2MMobj/Registration on the device."""

    IDLE = 0
    REQUESTED = 1
    PACKAGE_RECEIVED = 2
    PROVISIONED = 3
    FAILED = 4
    EXPIRED = 5


class ValidationMode(StrEnum):
    """How a platform is validated (TR 33.812 §5.1.2; RFC 9334 calls the parties attester and verifier)."""

    AUTONOMOUS = "autonomous"
    SEMI_AUTONOMOUS = "semi-autonomous"
    REMOTE = "remote"


class ResultCode(IntEnum):
    """Result of a provisioning action: leaf `Result`, alert `Data` and receipt. Four digits, unlike a Status."""

    INITIAL = 0
    SUCCESS = 1200
    ALREADY_DONE = 1201
    RUNNING = 1202
    REFUSED = 1400
    NO_REGISTRATION = 1404
    WRONG_STATE = 1405
    ABORTED = 1408
    REPLAY = 1409
    MALFORMED = 1410
    SIGNATURE_INVALID = 1411
    SIGNER_NOT_ACCEPTABLE = 1412
    WRONG_RECIPIENT = 1413
    CRYPTO_FAILURE = 1414  # one code for every cause: subdividing it outside the TRE makes an oracle (REQ-60)
    UNSUPPORTED_SUITE = 1415
    CONTENT_INVALID = 1416
    TOKEN_WRONG = 1417
    TOKEN_LOCKED = 1418
    REVISION_TOO_LOW = 1419
    TRE_FULL = 1420
    ALGORITHM_UNSUPPORTED = 1421
    OUTSIDE_VALIDITY = 1422
    TRE_STATE_NOT_OK = 1423
    TRE_BUSY = 1424
    CERTIFICATE_REVOKED = 1425
    FELL_BACK = 1426  # the network did not take the new MCIM; the one before is in use again
    INTERNAL_ERROR = 1500
    STORAGE_FAILURE = 1501

    @property
    def sync_status(self) -> int:
        """SyncML Status of the Exec that ended so at once."""
        return _SYNC_STATUS.get(self, 500)


_SYNC_STATUS: Final = {
    ResultCode.SUCCESS: 200,
    ResultCode.ALREADY_DONE: 200,
    ResultCode.RUNNING: 202,
    ResultCode.NO_REGISTRATION: 404,
    ResultCode.WRONG_STATE: 405,
    ResultCode.ABORTED: 408,
    ResultCode.REPLAY: 409,
    ResultCode.MALFORMED: 400,
    ResultCode.SIGNER_NOT_ACCEPTABLE: 403,
    ResultCode.WRONG_RECIPIENT: 403,
    ResultCode.UNSUPPORTED_SUITE: 415,
    ResultCode.CONTENT_INVALID: 400,
    ResultCode.TOKEN_WRONG: 401,
    ResultCode.TOKEN_LOCKED: 403,
    ResultCode.REVISION_TOO_LOW: 409,
    ResultCode.TRE_FULL: 420,
    ResultCode.ALGORITHM_UNSUPPORTED: 415,
    ResultCode.OUTSIDE_VALIDITY: 403,
    ResultCode.TRE_STATE_NOT_OK: 403,
    ResultCode.TRE_BUSY: 409,
    ResultCode.CERTIFICATE_REVOKED: 403,
    ResultCode.FELL_BACK: 500,
}
