"""Vocabulary of the management tree: node addresses, properties, access types, ACLs (OMA-TS-DM_TND-V1_2 §6, §7).

Values and rules only. The tree itself, inheritance of ACLs included, belongs to the device.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self
from urllib.parse import quote, unquote_to_bytes

from syncml.codes import StatusCode
from syncml.errors import LocalProtocolError, MalformedAcl, MalformedUri

MAX_URI_LENGTH: Final = 4096
"""Characters of a received URI before it is even split; ours, a device's own limits are far below it."""

_UNESCAPED: Final = "!$&'()*+,;=:@~-._"  # besides letters and digits; what RFC 2396 allows in a path segment
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ACL_ID: Final = re.compile(r"\*|[^\s=&*+\x00-\x1f\x7f]+")


class UriTooLong(MalformedUri):
    """A URI beyond a length or depth limit."""

    code = StatusCode.URI_TOO_LONG


class AccessType(StrEnum):
    """Commands a node may support (OMA-TS-DM_TND-V1_2 §10.2); all but Copy are also the commands of an ACL."""

    ADD = "Add"
    COPY = "Copy"
    DELETE = "Delete"
    EXEC = "Exec"
    GET = "Get"
    REPLACE = "Replace"


class Scope(StrEnum):
    """Permanent nodes come with the device and cannot be added, deleted or renamed by a server (§7.5)."""

    PERMANENT = "Permanent"
    DYNAMIC = "Dynamic"


class PropertyName(StrEnum):
    """Run-time properties of a node (§7.7)."""

    ACL = "ACL"
    FORMAT = "Format"
    NAME = "Name"
    SIZE = "Size"
    TITLE = "Title"
    T_STAMP = "TStamp"
    TYPE = "Type"
    VER_NO = "VerNo"


def _segment_fault(segment: str) -> str | None:
    """What is wrong with a decoded node name, None when nothing is."""
    if not segment:
        return "empty segment"
    if segment in (".", ".."):
        return "relative segment"
    if "/" in segment:
        return "slash inside a name"
    if _CONTROL.search(segment):
        return "control character in a name"
    try:
        segment.encode()
    except UnicodeEncodeError:
        return "lone surrogate in a name"
    return None


def _unescape(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise MalformedUri("percent sign without two hexadecimal digits")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError as error:
        raise MalformedUri("escaped octets are no UTF-8") from error


@dataclass(frozen=True, slots=True)
class NodeUri:
    """Address of a node: its decoded segments below the root, none for the root itself (§6).

    `./A/B` and `A/B` are the same address; so are two spellings that differ in escapes only. Names compare case
    by case, as the specification allows.

    Raises:
        LocalProtocolError: a segment that no node can have as its name.
    """

    segments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for segment in self.segments:
            fault = _segment_fault(segment)
            if fault is not None:
                raise LocalProtocolError(fault)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that a received URI without query names.

        Raises:
            MalformedUri: `/` in front or at the end, `.` or `..` beyond the start, an empty name, a bad escape,
                or a query.
            UriTooLong: more than `MAX_URI_LENGTH` characters.
        """
        if len(text) > MAX_URI_LENGTH:
            raise UriTooLong(f"URI of {len(text)} characters")
        if text == ".":
            return cls()
        if "?" in text or "#" in text:
            raise MalformedUri("query or fragment in a node address")
        segments = tuple(_unescape(raw) for raw in text.removeprefix("./").split("/"))
        for segment in segments:
            fault = _segment_fault(segment)
            if fault is not None:
                raise MalformedUri(fault)
        return cls(segments)

    def __str__(self) -> str:
        """Canonical form: `.` or `./A/B`, everything outside RFC 2396's path characters escaped."""
        return "/".join((".", *(quote(segment, safe=_UNESCAPED) for segment in self.segments)))

    @property
    def name(self) -> str:
        """Last segment, empty for the root."""
        return self.segments[-1] if self.segments else ""

    @property
    def parent(self) -> NodeUri | None:
        """Address one level up, None for the root."""
        return NodeUri(self.segments[:-1]) if self.segments else None

    def child(self, *names: str) -> NodeUri:
        """The address below this one along plain, unescaped names."""
        return NodeUri((*self.segments, *names))

    def is_below(self, ancestor: NodeUri) -> bool:
        """Whether `ancestor` is this node or above it."""
        return self.segments[: len(ancestor.segments)] == ancestor.segments


@dataclass(frozen=True, slots=True, kw_only=True)
class UriLimits:
    """Limits a device announces below DevDetail/URI (OMA-TS-DM_StdObj-V1_2 §5.3.3); 0 means unlimited."""

    max_depth: int = 0  # segments
    max_total_length: int = 0  # characters of the whole URI, without the leading "./"
    max_segment_length: int = 0  # characters of one decoded name

    def check(self, uri: NodeUri) -> None:
        """Hold an address against the limits.

        Raises:
            UriTooLong: one of them is exceeded.
        """
        if 0 < self.max_depth < len(uri.segments):
            raise UriTooLong(f"{len(uri.segments)} segments")
        length = sum(map(len, uri.segments)) + max(len(uri.segments) - 1, 0)
        if 0 < self.max_total_length < length:
            raise UriTooLong(f"{length} characters")
        if self.max_segment_length > 0 and any(len(segment) > self.max_segment_length for segment in uri.segments):
            raise UriTooLong("a segment is too long")


class QueryKind(StrEnum):
    """What the query of a URI asks for (§6, §7.7, RepPro §6.6.7)."""

    PROP = "prop"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Query:
    """`?prop=<property>` or `?list=<what>`; the value may name something nobody knows, which is the tree's 406."""

    kind: QueryKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}={self.value}"


def split_query(text: str) -> tuple[NodeUri, Query | None]:
    """Address and query of a received target URI.

    Raises:
        MalformedUri: a malformed address, or a query that is neither `prop=` nor `list=`.
    """
    if len(text) > MAX_URI_LENGTH:
        raise UriTooLong(f"URI of {len(text)} characters")
    address, mark, query = text.partition("?")
    uri = NodeUri.parse(address)
    if not mark:
        return uri, None
    key, _, value = query.partition("=")
    decoded = _unescape(value)
    if key not in tuple(QueryKind) or not decoded:
        raise MalformedUri("query is neither prop= nor list=")
    return uri, Query(QueryKind(key), decoded)


def property_uri(uri: NodeUri, name: PropertyName) -> str:
    """Target URI of a property."""
    return f"{uri}?prop={name}"


@dataclass(frozen=True, slots=True)
class Acl:
    """Access control list of one node (OMA-TS-DM_TND-V1_2 §7.7.1): who may use which command.

    `entries` keeps the order received, each command once; an empty list means that the node inherits, which is
    the tree's business. `*` stands for every server.
    """

    entries: tuple[tuple[AccessType, tuple[str, ...]], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an ACL value, e.g. `Add=srv1&Get=*`. A command that occurs twice means the union of both entries.

        Raises:
            MalformedAcl: an unknown command, an entry without identifiers, or a character no identifier may have.
        """
        if not text:
            return cls()
        entries: dict[AccessType, dict[str, None]] = {}
        for entry in text.split("&"):
            name, _, identifiers = entry.partition("=")
            if name not in tuple(AccessType) or name == AccessType.COPY:
                raise MalformedAcl("unknown command in an ACL")
            ids = identifiers.split("+")
            if not all(_ACL_ID.fullmatch(each) for each in ids):
                raise MalformedAcl(f"no server identifier after {name}=")
            entries.setdefault(AccessType(name), {}).update(dict.fromkeys(ids))
        return cls(tuple((command, tuple(each)) for command, each in entries.items()))

    @classmethod
    def granting(cls, server_id: str, commands: Collection[AccessType]) -> Self:
        """An ACL that gives one server those commands, in the order of the specification.

        Raises:
            LocalProtocolError: an identifier that would change the meaning of the ACL, or Copy, which has no entry.
        """
        if not is_acl_identifier(server_id):
            raise LocalProtocolError("server identifier cannot stand in an ACL")
        if AccessType.COPY in commands:
            raise LocalProtocolError("an ACL has no entry for Copy")
        return cls(tuple((command, (server_id,)) for command in AccessType if command in commands))

    def __str__(self) -> str:
        """The value as a Get of `?prop=ACL` returns it."""
        return "&".join(f"{command}={'+'.join(ids)}" for command, ids in self.entries)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def identifiers(self, command: AccessType) -> tuple[str, ...]:
        """Servers of one command's entry, empty when there is none."""
        return next((ids for each, ids in self.entries if each is command), ())

    def allows(self, command: AccessType, server_id: str) -> bool:
        """Whether this very list lets that server use the command; it never grants Copy, which is Get and Replace."""
        ids = self.identifiers(command)
        return "*" in ids or server_id in ids

    def without(self, server_id: str) -> Acl:
        """The list after that server's account is gone (§7.7.1.4); entries that become empty vanish."""
        left = ((command, tuple(each for each in ids if each != server_id)) for command, ids in self.entries)
        return Acl(tuple((command, ids) for command, ids in left if ids))


def is_acl_identifier(server_id: str) -> bool:
    """Whether that text can be one server's identifier in an ACL (`*` means all of them and is none)."""
    return server_id != "*" and _ACL_ID.fullmatch(server_id) is not None
