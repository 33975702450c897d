"""What the provisioning policy asks of partners, and what may come back. Values: who does the asking is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from mcim.vocabulary import Container, Operation, ValidationMode


@dataclass(frozen=True, slots=True, kw_only=True)
class AskChallenge:
    """Ask the PVA for a challenge for the TRE."""

    key: str  # idempotency key
    order_id: str
    req_id: str
    tre_id: str
    mode: ValidationMode


@dataclass(frozen=True, slots=True, kw_only=True)
class AskTicket:
    """Ask the PVA to validate the platform. Certificates are DER."""

    key: str
    order_id: str
    req_id: str
    m2me_id: str
    tre_id: str
    platform_cert: bytes = field(repr=False)
    attest_cert: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)
    tre_type: str
    tre_version: str
    evidence: bytes = field(repr=False)  # empty in autonomous mode
    log: bytes = field(default=b"", repr=False)  # measurement log, in remote mode
    nonce: bytes = field(repr=False)
    challenge: bytes = field(repr=False)  # empty in autonomous mode
    mode: ValidationMode
    audience: tuple[str, ...]  # DPF id, SHO id


@dataclass(frozen=True, slots=True, kw_only=True)
class AskPackage:
    """Hand the platform credential over to the home operator, which answers with the package (REQ-24)."""

    key: str
    sho_id: str
    req_id: str
    order_id: str
    m2me_id: str
    tre_id: str
    tre_type: str
    tre_version: str
    operation: Operation
    mcim_id: str | None  # what the operation is about; None: a new MCIM
    suites: tuple[str, ...]
    containers: tuple[str, ...]
    algorithms: tuple[str, ...]
    trust_anchors: tuple[str, ...]
    platform_cert: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)
    nonce: bytes = field(repr=False)
    next_sequence: int
    ticket: str = field(repr=False)
    dpf_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskJob:
    """Ask the home operator whether the package is made that it takes its time for (REQ-26)."""

    sho_id: str
    order_id: str
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TellSho:
    """Tell the home operator how it ended: with the TRE's receipt, or without one when nothing reached the TRE."""

    key: str
    sho_id: str
    order_id: str
    req_id: str
    receipt: bytes | None = field(repr=False)
    attest_cert: bytes | None = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)
    result: int


Ask: TypeAlias = AskChallenge | AskTicket | AskPackage | AskJob | TellSho


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeGiven:
    """The PVA's challenge."""

    challenge: bytes = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketGiven:
    """What the PVA says is a ticket; not verified yet."""

    ticket: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageGiven:
    """The home operator's package, opaque, and what the operator says about it."""

    package: bytes = field(repr=False)
    mcim_id: str
    sequence: int
    package_hash: str  # hex SHA-256
    container: str = Container.XML.value
    operation: str = Operation.INSTALL.label
    token_ref: str | None = None  # name of the device token inside; no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageLater:
    """The home operator takes its time."""

    job: str
    retry_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAcknowledged:
    """The home operator has the report."""

    subscription: str  # "armed" after success


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerDown:
    """No usable answer: the order waits, nothing is assumed (REQ-17)."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerSaidNo:
    """A negative answer."""

    code: str
    detail: str = ""


Outcome: TypeAlias = (
    ChallengeGiven | TicketGiven | PackageGiven | PackageLater | ReportAcknowledged | PartnerDown | PartnerSaidNo
)
