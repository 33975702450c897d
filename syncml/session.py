"""What both session roles share: phases, events, the table of what is legal when, and fitting commands into messages.

OMA-TS-DM_Protocol-V1_2 §8; large objects: §7; sizes: OMA-TS-SyncML_MetaInfo-V1_2 §5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final, Literal

from syncml.codec import Encoding, encode
from syncml.codes import StatusCode
from syncml.errors import LocalProtocolError, RemoteProtocolError
from syncml.model import Alert, Atomic, Command, Item, Message, Meta, Results, Sequence, Status, SyncHdr, UnknownCommand
from syncml.values import NodeValue, as_text, item_value

MAX_CREDENTIAL_ATTEMPTS: Final = 3  # then 401 without a challenge (OMA-TS-DM_Security-V1_2 §5.3)
MAX_MESSAGES: Final = 1_000  # of one session; a provisioning needs about ten
DEFAULT_PEER_SIZE: Final = 512 * 1024  # octets; used when a peer announces no MaxMsgSize
MIN_PEER_SIZE: Final = 1024  # octets; below it not even the header Statuses fit

BARE_ANSWERS: Final = 2  # Status of the header and of the peer's 1222: what no message of a package can leave out

NewNonce = Callable[[], bytes]


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

    `code` is that of the command, or the worst of its Items. 413 with no Status is our own refusal to send more than
    the device takes.
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
    """The session is over; nothing more is sent."""

    reason: str


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


@dataclass(slots=True, kw_only=True)
class Chunks:
    """A large object on its way out: the command it belongs to and what is left of its data as text."""

    command: Command
    item: Item
    rest: str
    total: int  # octets of the whole text, said once in the first chunk
    begun: bool = False


@dataclass(slots=True, kw_only=True)
class Reassembly:
    """A large object on its way in."""

    limit: int  # octets
    key: tuple[str, str] | None = None  # command name and node URI
    meta: Meta | None = None
    parts: list[str] = field(default_factory=list)
    length: int = 0

    def take(self, name: str, item: Item) -> Item | int:
        """Take one chunk or a whole Item: the Status to answer (213, or the error), or the Item when it is whole."""
        uri = item.target or item.source or ""
        if self.key is None:
            if not item.more_data:
                return item
            announced = item.meta.size if item.meta else None
            if announced is not None and announced > self.limit:
                return StatusCode.REQUEST_ENTITY_TOO_LARGE
            self.key, self.meta = (name, uri), item.meta
        text = item.data.decode("latin-1") if isinstance(item.data, bytes) else item.data or ""
        self.parts.append(text)
        self.length += len(text.encode())
        if self.length > self.limit:
            self.drop()
            return StatusCode.REQUEST_ENTITY_TOO_LARGE
        if item.more_data:
            return StatusCode.CHUNK_ACCEPTED
        meta, data, length = self.meta, "".join(self.parts), self.length
        self.drop()
        if meta is not None and meta.size is not None and meta.size != length:
            return StatusCode.SIZE_MISMATCH
        return replace(item, meta=meta, data=data, more_data=False)

    def interrupted_by(self, name: str, items: tuple[Item, ...]) -> bool:
        """Whether something else comes before the last chunk (Alert 1225)."""
        if self.key is None:
            return False
        uri = (items[0].target or items[0].source or "") if items else ""
        return self.key != (name, uri)

    def drop(self) -> None:
        """Forget what came so far."""
        self.key, self.meta, self.parts, self.length = None, None, [], 0


def with_item(command: Command, item: Item) -> Command:
    """The command with this one Item."""
    if isinstance(command, Status | Atomic | Sequence | UnknownCommand):
        raise LocalProtocolError(f"a {command.name} carries no large object")
    return replace(command, items=(item,))


def items_of(command: Command) -> tuple[Item, ...]:
    """Items of a command, none for a group."""
    return () if isinstance(command, Atomic | Sequence | UnknownCommand) else command.items


class Outbox:
    """Commands waiting to go out, cut into messages that the peer takes. One message at a time is in flight."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self.peer_size = DEFAULT_PEER_SIZE  # octets
        self.peer_object_size: int | None = None  # octets; None: unlimited
        self.queue: list[Command] = []
        self.chunks: Chunks | None = None

    def learn(self, meta: Meta | None) -> None:
        """Take the peer's limits out of a header."""
        if meta is not None and meta.max_msg_size:
            self.peer_size = max(meta.max_msg_size, MIN_PEER_SIZE)
        if meta is not None and meta.max_obj_size:
            self.peer_object_size = meta.max_obj_size

    @property
    def empty(self) -> bool:
        """Nothing waits and no object is half sent."""
        return not self.queue and self.chunks is None

    def fill(
        self, header: SyncHdr, answers: tuple[Command, ...], *, final: bool
    ) -> tuple[Message, list[Command], list[Command]]:
        """One message: the answers, then as much of the queue as the peer's MaxMsgSize allows.

        Args:
            header: of the message.
            answers: Status and Alert elements that must be in it.
            final: whether `Final` may stand when the queue is empty afterwards.

        Returns:
            The message, the queued commands it carries (as queued), and those refused because the peer cannot take
            them in any form.
        """
        placed: list[Command] = list(answers)
        sent: list[Command] = []
        refused: list[Command] = []

        def message(*more: Command, last: bool = True) -> Message:
            numbered = tuple(replace(c, cmd_id=str(n)) for n, c in enumerate((*placed, *more), 1))
            return Message(header=header, commands=_renumber(numbered), final=last)

        def fits(*more: Command) -> bool:
            return len(encode(message(*more), self.encoding)) <= self.peer_size

        if self.chunks is None:
            while self.queue:
                command = self.queue[0]
                if self._too_large(command):
                    refused.append(self.queue.pop(0))
                elif fits(command):
                    placed.append(self.queue.pop(0))
                    sent.append(command)
                elif len(items_of(command)) == 1 and items_of(command)[0].data is not None:
                    item = as_text(items_of(command)[0])
                    text = str(item.data)
                    self.chunks = Chunks(command=self.queue.pop(0), item=item, rest=text, total=len(text.encode()))
                    break
                elif sent or len(answers) > BARE_ANSWERS:
                    break  # a later message has more room
                else:
                    refused.append(self.queue.pop(0))
        if self.chunks is not None and (chunk := self._chunk(fits)) is not None:
            placed.append(chunk)
            sent.append(self.chunks.command)
            if not self.chunks.rest:
                self.chunks = None
        return message(last=final and self.empty), sent, refused

    def _too_large(self, command: Command) -> bool:
        if self.peer_object_size is None:
            return False
        return any(
            len(item.data if isinstance(item.data, bytes) else item.data.encode()) > self.peer_object_size
            for item in items_of(command)
            if item.data is not None
        )

    def _chunk(self, fits: Callable[..., bool]) -> Command | None:
        """The next chunk, as large as fits; None when not even a small one does beside what is already there."""
        chunks = self.chunks
        if chunks is None:
            return None
        meta = replace(chunks.item.meta or Meta(), size=None if chunks.begun else chunks.total)

        def piece(length: int) -> Command:
            more = length < len(chunks.rest)
            item = replace(chunks.item, meta=meta, data=chunks.rest[:length], more_data=more)
            return with_item(chunks.command, item)

        low, high = 0, len(chunks.rest)
        while low < high:  # the longest prefix that fits; escaping makes the size depend on the text itself
            middle = (low + high + 1) // 2
            if fits(piece(middle)):
                low = middle
            else:
                high = middle - 1
        if low == 0:
            return None
        command = piece(low)
        chunks.rest, chunks.begun = chunks.rest[low:], True
        return command


def _renumber(commands: tuple[Command, ...]) -> tuple[Command, ...]:
    """CmdIDs 1, 2, 3 … through groups as well, unique in the message."""
    counter = 0

    def number(command: Command) -> Command:
        nonlocal counter
        counter += 1
        own = str(counter)
        if not isinstance(command, Atomic | Sequence):
            return replace(command, cmd_id=own)
        return replace(command, cmd_id=own, commands=tuple(number(child) for child in command.commands))

    return tuple(number(command) for command in commands)


def check_versions(header: SyncHdr) -> StatusCode | None:
    """505 or 513 when the header speaks another version (OMA-TS-SyncML_RepPro-V1_2 §10)."""
    if header.ver_dtd != "1.2":
        return StatusCode.DTD_VERSION_NOT_SUPPORTED
    if header.ver_proto.upper() != "DM/1.2":
        return StatusCode.PROTOCOL_VERSION_NOT_SUPPORTED
    return None


def worst(codes: list[int]) -> int:
    """The code that stands for several Items: the highest error, else the first."""
    errors = [code for code in codes if code >= 300]
    return max(errors) if errors else codes[0]


class OutOfOrder(RemoteProtocolError):
    """A message that belongs to another session or device."""
