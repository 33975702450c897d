"""What the device may ask of its trusted environment (TR 33.812 §5.1.2), whatever kind of TRE it is.

Nothing here returns a private key, a K or an OPc (REQ-42, REQ-55): keys are used inside, results come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol
from uuid import UUID

from mcim.aka import Accepted, MacFailure, SyncFailure
from mcim.measurement_log import Measurement
from mcim.vocabulary import (
    ContainerState,
    McimPolicy,
    Operation,
    RegistrationState,
    ResultCode,
    Suite,
    ValidationMode,
)

NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)  # expiry of a nonce that does not exist


class TreError(Exception):
    """The TRE does not do what it was asked; `code` says why in the words of the result codes."""

    def __init__(self, code: ResultCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class TreFacts:
    """Public facts, as M2MMobj/TRE shows them."""

    m2me_id: str
    tre_id: str
    tre_type: str
    version: str
    vendor: str
    state: str  # ok, locked, tampered, updating
    suites: tuple[Suite, ...]  # in order of preference; also the minimum: nothing else is accepted
    containers: tuple[str, ...]
    algorithms: tuple[str, ...]
    code_formats: tuple[str, ...]
    max_mcim: int
    max_package: int  # octets
    free_space: int  # octets
    trust_anchor_ids: tuple[str, ...]  # hex SubjectKeyIdentifier of each SHO root
    platform_cert: bytes | None  # DER
    attest_cert: bytes | None  # DER
    cert_chain: tuple[bytes, ...]  # DER, leaf-most first
    platform_key_id: bytes  # 16 octets


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The provisioning request now open (M2MMobj/Registration)."""

    req_id: str  # UUID, empty while idle
    nonce: bytes = field(repr=False)  # 32 octets while open, else empty
    nonce_expiry: datetime
    state: RegistrationState
    reason: str
    sho_id: str | None
    next_sequence: int  # lowest sequence number accepted from that SHO


@dataclass(frozen=True, slots=True, kw_only=True)
class McimInfo:
    """An installed MCIM without its secrets."""

    mcim_id: UUID
    sho_id: str
    state: ContainerState
    revision: int
    sequence: int
    not_after: datetime
    imsi_mask: str
    policy: McimPolicy = McimPolicy.SIGNED_LIFECYCLE
    confirmed: bool = True  # False: something is kept to fall back to until an attach with it succeeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """Clear leaves of the container. They only ever refuse; the signed copies decide. None: not there."""

    mcim_id: str | None = None
    sho_id: str | None = None
    req_id: str | None = None
    nonce: bytes | None = field(default=None, repr=False)
    content_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRecord:
    """One check of a package, for the trail: no secrets, and nothing that divides 1414 (REQ-60, REQ-71)."""

    name: str
    passed: bool
    req: tuple[str, ...]
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of one package, command or fall-back."""

    code: ResultCode
    receipt: bytes
    mcim: McimInfo | None  # as it is now; None: refused, or deleted
    checks: tuple[CheckRecord, ...]


def unsigned_command(operation: Operation, mcim_id: UUID | str) -> bytes:
    """What stands for the octets of a command without signature, where a digest is told."""
    return f"{operation.label} {mcim_id}".encode()


class TrustedEnvironment(Protocol):
    """A TRE back-end."""

    def facts(self) -> TreFacts:
        """What M2MMobj shows."""

    def registration(self, now: datetime) -> Registration:
        """The request now open; its nonce expires here when it is due."""

    def renew_registration(self, *, reason: str, sho_id: str | None, now: datetime) -> Registration:
        """Open a new request with a new nonce; the old nonce is worthless from then on.

        Raises:
            TreError: it cannot be stored.
        """

    def generate_evidence(self, challenge: bytes, mode: ValidationMode, now: datetime) -> bytes:
        """Signed statement on the platform over the verifier's challenge (REQ-18).

        Raises:
            TreError: no request is open, the challenge is not 16 to 64 octets, or the TRE is not in order.
        """

    def provision(self, package: bytes, hints: Hints, now: datetime) -> Outcome:
        """Check, decrypt and install, update or replace; a failure is an Outcome with a receipt, nothing is raised."""

    def command(self, operation: Operation, command: bytes, hints: Hints, now: datetime) -> Outcome:
        """Activate, suspend or delete by a signed command (REQ-70); `operation` is what the Exec asked for.

        Every failure is an Outcome with a receipt, nothing is raised.
        """

    def local_command(self, operation: Operation, mcim_id: UUID, now: datetime) -> Outcome:
        """The same without a signature: refused with 1412 when the MCIM's policy wants signed commands (REQ-70)."""

    def confirm_attach(self, mcim_id: UUID, now: datetime) -> None:
        """The network took this MCIM: what it replaced or updated is not needed to fall back to any more.

        Raises:
            TreError: that cannot be stored.
        """

    def fall_back(self, mcim_id: UUID, now: datetime) -> Outcome | None:
        """The network did not take this MCIM: the values or the MCIM before are active again.

        The receipt is that of the package which brought it, with result 1426. None: there is nothing to go back to.

        Raises:
            TreError: that cannot be stored.
        """

    def last_outcome(self) -> tuple[bytes, Outcome] | None:
        """SHA-256 of the last package or command and what became of it, for a device that lost its note of it."""

    def supplier_command(self, octets: bytes, now: datetime) -> ResultCode:
        """A command signed by the equipment's supplier: other roots for home operators, token unlocked (REQ-44)."""

    def take_measurements(self, measurements: tuple[Measurement, ...]) -> None:
        """What was loaded at this start, once, before anything else."""

    def measurement_log(self) -> bytes:
        """The log of them (`mcim.measurement_log`); empty when nothing was measured."""

    def mcims(self) -> tuple[McimInfo, ...]:
        """What is installed."""

    def receipt(self) -> bytes | None:
        """Receipt of the last action, None before the first."""

    def attach_identity(self, mcim_id: UUID) -> str:
        """The IMSI of the activated MCIM, for the network alone.

        Raises:
            TreError: no such MCIM, or it is not activated.
        """

    def authenticate(self, mcim_id: UUID, rand: bytes, autn: bytes) -> Accepted | SyncFailure | MacFailure:
        """Run AKA; the sequence number is stored before RES is returned.

        Raises:
            TreError: no such MCIM, it is not activated, or the sequence number cannot be stored.
        """
