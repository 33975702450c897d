"""SyncML DM messages as values (OMA-TS-SyncML_RepPro-V1_2 §6, OMA-TS-DM_RepPro-V1_2 §6).

The body of a message is one ordered tuple of commands. Values hold what is on the wire after XML or WBXML is
taken off: `Item.data` is text as transmitted (Base64 text stays text when `Meta/Format` is `b64`), or octets
when they are to travel, or travelled, as an opaque. `syncml.values` turns node values into Items and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from syncml.errors import LocalProtocolError

UNASSIGNED = ""
"""A `cmd_id` not chosen yet: the session numbers a command when it goes out."""

MAX_GROUP_DEPTH: Final = 8
"""Atomic and Sequence inside each other, read and written; ours, the specification has no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """Meta information (OMA-TS-SyncML_MetaInfo-V1_2 §5); None means the element is absent."""

    format: str | None = None
    type: str | None = None
    mark: str | None = None
    size: int | None = None  # octets of Data as transmitted; for b64 the length of the Base64 text
    next_nonce: bytes | None = field(default=None, repr=False)  # raw octets, not base64
    max_msg_size: int | None = None  # octets
    max_obj_size: int | None = None  # octets
    emi: tuple[str, ...] = ()

    def inherited_by(self, other: Meta | None) -> Meta:
        """Meta of an Item inside a command with this Meta: the Item's elements win, one by one."""
        if other is None:
            return self
        return Meta(
            format=other.format if other.format is not None else self.format,
            type=other.type if other.type is not None else self.type,
            mark=other.mark if other.mark is not None else self.mark,
            size=other.size if other.size is not None else self.size,
            next_nonce=other.next_nonce if other.next_nonce is not None else self.next_nonce,
            max_msg_size=other.max_msg_size if other.max_msg_size is not None else self.max_msg_size,
            max_obj_size=other.max_obj_size if other.max_obj_size is not None else self.max_obj_size,
            emi=other.emi or self.emi,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One `Item`. `data` is None when the element is absent, empty text when it is there and empty."""

    target: str | None = None  # Target/LocURI, as received
    source: str | None = None  # Source/LocURI, as received
    meta: Meta | None = None
    data: str | bytes | None = field(default=None, repr=False)  # may be a credential: never in a repr
    more_data: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cred:
    """Credential in the SyncHdr (auth-basic or auth-md5)."""

    type: str
    data: str = field(repr=False)  # Base64 text
    format: str | None = "b64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chal:
    """Challenge in the Status of a SyncHdr."""

    type: str
    next_nonce: bytes | None = field(default=None, repr=False)  # raw octets, not base64
    format: str | None = "b64"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncHdr:
    """Header of a message. `session_id` and `msg_id` are opaque text that is echoed, never reprinted."""

    session_id: str
    msg_id: str
    target: str  # Target/LocURI
    source: str  # Source/LocURI
    target_name: str | None = None  # Target/LocName
    source_name: str | None = None  # Source/LocName: user id of md5 and MAC credentials
    resp_uri: str | None = None
    no_resp: bool = False
    cred: Cred | None = None
    meta: Meta | None = None
    ver_dtd: str = "1.2"
    ver_proto: str = "DM/1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    cmd_id: str = UNASSIGNED  # opaque token, unique within its message; no arithmetic on it
    no_resp: bool = False

    def __post_init__(self) -> None:
        if self.cmd_id == "0":
            raise LocalProtocolError("CmdID 0 names the SyncHdr and no command")

    @property
    def name(self) -> str:
        """Element name, as `Status/Cmd` repeats it."""
        return type(self).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class _ItemCommand(_Command):
    items: tuple[Item, ...] = ()
    meta: Meta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(_ItemCommand):
    """Create a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace(_ItemCommand):
    """Overwrite a leaf or a property; from the client, DevInfo in package 1 with `source` instead of `target`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(_ItemCommand):
    """Remove a node and what is below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Get(_ItemCommand):
    """Read a value, a child list, a property (`?prop=`) or a sub-tree (`?list=`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(_ItemCommand):
    """Copy one leaf to another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec(_ItemCommand):
    """Run a node; exactly one Item."""

    correlator: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(_Command):
    """An alert; `code` is None when `Data` is missing or no number, which a receiver answers with 412 or 406."""

    code: int | None
    items: tuple[Item, ...] = ()
    correlator: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence(_Command):
    """Commands executed strictly in order."""

    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Atomic(_Command):
    """Commands executed all or not at all."""

    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(_ItemCommand):
    """Answer to a `Get`; `msg_ref` and `cmd_ref` count as "1" when absent (RepPro §6.6)."""

    msg_ref: str = "1"
    cmd_ref: str = "1"
    target_ref: str | None = None
    source_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(_Command):
    """Outcome of one command of an earlier message."""

    msg_ref: str  # MsgID of the message answered
    cmd_ref: str  # CmdID answered; "0" is the SyncHdr
    cmd: str  # element name answered: "SyncHdr", "Get", …
    code: int  # as received: private and future codes survive
    target_refs: tuple[str, ...] = ()  # node URIs, document order
    source_refs: tuple[str, ...] = ()
    chal: Chal | None = None
    items: tuple[Item, ...] = ()  # error detail, or what a user entered


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownCommand(_Command):
    """A command element that DM does not use (Put, Search, Map, …) or that nobody knows; answered with 406."""

    element: str

    @property
    def name(self) -> str:
        """Element name as received."""
        return self.element


Command: TypeAlias = (
    Add | Replace | Delete | Get | Copy | Exec | Alert | Sequence | Atomic | Results | Status | UnknownCommand
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One SyncML message: one HTTP body."""

    header: SyncHdr
    commands: tuple[Command, ...] = ()
    final: bool = False  # the element is there: last message of its package


def walk(commands: tuple[Command, ...]) -> Iterator[Command]:
    """All commands in document order, those inside Sequence and Atomic after their parent."""
    for command in commands:
        yield command
        if isinstance(command, Sequence | Atomic):
            yield from walk(command.commands)
