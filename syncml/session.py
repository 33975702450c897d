"""What both session roles share: phases, events, and the table of what is legal when (OMA-TS-DM_Protocol-V1_2 §8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal

from syncml.codes import VER_DTD, VER_PROTO, StatusCode, is_success
from syncml.errors import CommandOutOfPhase
from syncml.model import Alert, Command, Results, Status, SyncHdr
from syncml.values import NodeValue, item_value

MAX_MESSAGES: Final = 1_000  # of one session; a provisioning needs about ten


class Phase(Enum):
    """Phases of a session (OMA-TS-DM_Protocol-V1_2 §8.1)."""

    SETUP = auto()
    MANAGEMENT = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    """Package 1 is complete and its sender authenticated. `dev_info` maps node URIs to values."""

    alert_code: int
    dev_info: dict[str, str]


@dataclass(frozen=True, slots=True)
class AlertReceived:
    """A client event (1224), a generic alert (1226) or another alert that a policy may judge."""

    alert: Alert


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAnswered:
    """The device's answer to one command of ours; `command` is the object the policy gave.

    `code` is the worst of the command, its Items and, in an Atomic or Sequence, its children, whose Statuses and
    Results are here too. 413 that no Status says is our own refusal, to send more than the device takes or to keep more
    than we do; 500 with no Status means that the device has finished its package without one.
    """

    command: Command
    code: int
    statuses: tuple[Status, ...] = ()
    results: tuple[Results, ...] = ()

    def values(self) -> dict[str, NodeValue]:
        """Values of the Results by the URI of their Source (Target where a peer puts it there)."""
        found: dict[str, NodeValue] = {}
        for result in self.results:
            for item in result.items:
                uri = item.source or item.target or result.source_ref or result.target_ref
                if uri is not None:
                    found[uri] = item_value(item, result.meta)
        return found

    def code_of(self, uri: str) -> int:
        """Status of the Item with that Target, or of the whole command."""
        named = [status.code for status in self.statuses if uri in status.target_refs]
        return named[-1] if named else self.code


@dataclass(frozen=True, slots=True)
class PackageReceived:
    """The device has said all; a decision is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsRefused:
    """The peer did not prove who it is; after the final attempt there is no challenge any more."""

    attempt: int
    final: bool


@dataclass(frozen=True, slots=True)
class ClientAuthenticated:
    """The client proved itself at the DM layer."""


@dataclass(frozen=True, slots=True)
class ServerAuthenticated:
    """The server proved itself, at the DM layer or by TLS alone where that suffices."""


@dataclass(frozen=True, slots=True)
class ServerAccepted:
    """The client accepted our credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NonceChanged:
    """A nonce to store before the reply leaves; `direction` names whose credential it is for."""

    direction: Literal["client", "server"]
    nonce: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionAborted:
    """Alert 1223, or a fault that ends the session."""

    reason: str


@dataclass(frozen=True, slots=True)
class DuplicateMessage:
    """The message came before: the reply is the cached one, octet for octet."""


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A command of an authenticated server; large objects are whole, Atomic and Sequence come with their children."""

    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReceived:
    """The server's answer to one of our alerts."""

    alert: Alert
    code: int


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session is over; nothing more is sent.

    `orderly`: the server had nothing more to ask, or said that it wants no session now. All else is a failure of the
    session, also after both sides are authenticated.
    """

    reason: str
    orderly: bool = False


Event = (
    SessionOpened
    | AlertReceived
    | CommandAnswered
    | PackageReceived
    | CredentialsRefused
    | ClientAuthenticated
    | ServerAuthenticated
    | ServerAccepted
    | NonceChanged
    | SessionAborted
    | DuplicateMessage
    | CommandReceived
    | StatusReceived
    | SessionClosed
)

NEXT: Final[dict[tuple[Phase, type[Event]], Phase]] = {
    (Phase.SETUP, CredentialsRefused): Phase.SETUP,
    (Phase.SETUP, ClientAuthenticated): Phase.SETUP,
    (Phase.SETUP, SessionOpened): Phase.MANAGEMENT,
    (Phase.SETUP, ServerAuthenticated): Phase.MANAGEMENT,
    (Phase.SETUP, SessionAborted): Phase.CLOSED,
    (Phase.SETUP, SessionClosed): Phase.CLOSED,
    (Phase.MANAGEMENT, CredentialsRefused): Phase.MANAGEMENT,
    (Phase.MANAGEMENT, ClientAuthenticated): Phase.MANAGEMENT,
    (Phase.MANAGEMENT, ServerAccepted): Phase.MANAGEMENT,
    (Phase.MANAGEMENT, CommandAnswered): Phase.MANAGEMENT,
    (Phase.MANAGEMENT, CommandReceived): Phase.MANAGEMENT,
    (Phase.MANAGEMENT, PackageReceived): Phase.MANAGEMENT,
    (Phase.MANAGEMENT, SessionAborted): Phase.CLOSED,
    (Phase.MANAGEMENT, SessionClosed): Phase.CLOSED,
}
"""What moves a session on; what is not listed is not legal. Nonces, duplicates and alerts move nothing."""


def next_phase(phase: Phase, event: Event) -> Phase:
    """The phase after `event`.

    Raises:
        CommandOutOfPhase: the table does not list the pair.
    """
    try:
        return NEXT[phase, type(event)]
    except KeyError:
        raise CommandOutOfPhase(f"{type(event).__name__} in phase {phase.name}") from None


def check_versions(header: SyncHdr) -> StatusCode | None:
    """505 or 513 when the header speaks another version (OMA-TS-SyncML_RepPro-V1_2 §10)."""
    if header.ver_dtd != VER_DTD:
        return StatusCode.DTD_VERSION_NOT_SUPPORTED
    if header.ver_proto.upper() != VER_PROTO:
        return StatusCode.PROTOCOL_VERSION_NOT_SUPPORTED
    return None


def worst(codes: list[int]) -> int:
    """The code that stands for several: the highest error, else the first that is no success, else the first."""
    errors = [code for code in codes if code >= 300]
    undone = [code for code in codes if not is_success(code)]
    return max(errors) if errors else (undone or codes)[0]
