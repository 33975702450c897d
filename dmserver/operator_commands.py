"""What an operator asks of a device: requests of one or several commands, as values, and their JSON form.

A request waits in the queue of its device, is sent as one package, and ends with a Status for each command. Operators
write commands in the form of `parse_request`; the queue keeps them in that of `dump_command`.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

from actor_runtime.errors import ActorError
from syncml.codes import AlertCode, Format, MediaType
from syncml.model import Add, Alert, Atomic, Copy, Delete, Exec, Get, Item, Meta, Replace, Sequence
from syncml.xml_document import is_xml_text

MAX_COMMANDS: Final = 64  # of one request
MAX_ITEMS: Final = 64  # of one command
MAX_URI: Final = 2048  # characters
MAX_NAME: Final = 255  # characters of a type or correlator
MAX_VALUE: Final = 512 * 1024  # octets of one value
MAX_TEXT: Final = 4096  # characters shown to a user
MAX_LIFETIME_S: Final = 90 * 24 * 3600
DEFAULT_LIFETIME_S: Final = 7 * 24 * 3600

OperatorCommand: TypeAlias = Add | Replace | Delete | Get | Copy | Exec | Alert
_CLASSES: Final[dict[str, type[OperatorCommand]]] = {
    each.__name__.lower(): each for each in (Add, Replace, Delete, Get, Copy, Exec, Alert)
}


class CommandRejected(ActorError):
    """The request cannot be queued; `code` tells a program why."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class RequestState(StrEnum):
    """Where a request is."""

    QUEUED = "queued"
    SENT = "sent"  # on its way, or answered by nobody yet
    WAITING = "waiting"  # a 202 to an Exec is to be followed by a generic alert
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


OVER: Final = frozenset({RequestState.DONE, RequestState.FAILED, RequestState.CANCELLED, RequestState.EXPIRED})


class Grouping(StrEnum):
    """Whether the commands go out one by one, or inside one command."""

    NONE = "none"
    SEQUENCE = "sequence"
    ATOMIC = "atomic"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCode:
    """Status of one Item; `uri` is empty for a command without node, such as a user interaction."""

    uri: str
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultValue:
    """A value the device gave: of a Get, of a user, of a generic alert."""

    uri: str
    format: str = Format.CHR
    type: str = MediaType.TEXT
    value: str | bytes = field(default="", repr=False)
    truncated: bool = False  # it was longer than what is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a device answered to one command."""

    code: int
    items: tuple[ItemCode, ...] = ()
    results: tuple[ResultValue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRecord:
    """One command of a request and what became of it."""

    command: OperatorCommand
    outcome: Outcome | None = None
    alert: tuple[ResultValue, ...] = ()  # Items of the generic alert that ended an asynchronous Exec


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRequest:
    """A request in the queue of a device."""

    request_id: str
    device_id: str
    number: int = 0  # place in the queue of the device; 0 until queued
    state: RequestState = RequestState.QUEUED
    grouping: Grouping = Grouping.NONE
    idempotent: bool = False  # the operator says that doing it twice does no harm
    attempt: int = 0  # how often it was sent
    created_at: datetime
    expires_at: datetime
    code: int | None = None  # of the group, else of the command that failed
    detail: str = ""
    commands: tuple[CommandRecord, ...]

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again although nobody knows what became of it: reading changes nothing."""
        return self.idempotent or all(isinstance(record.command, Get) for record in self.commands)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOrder:
    """What an operator hands in."""

    commands: tuple[OperatorCommand, ...]
    grouping: Grouping = Grouping.NONE
    idempotent: bool = False
    expires_in_s: int = DEFAULT_LIFETIME_S


def to_wire(request: OperatorRequest) -> tuple[OperatorCommand | Sequence | Atomic, ...]:
    """The commands of the package that carries the request."""
    commands = tuple(record.command for record in request.commands)
    match request.grouping:
        case Grouping.SEQUENCE:
            return (Sequence(commands=commands),)
        case Grouping.ATOMIC:
            return (Atomic(commands=commands),)
        case _:
            return commands


# --- what operators write ---------------------------------------------------------------------------------------------


def parse_request(document: object) -> RequestOrder:
    """A request out of JSON or TOML: `commands`, `grouping`, `idempotent`, `expiresIn` (seconds).

    Raises:
        CommandRejected: with the place of what is wrong, never the value.
    """
    if not isinstance(document, Mapping):
        raise CommandRejected("malformed-request", "a request is an object")
    _only(document, {"commands", "grouping", "idempotent", "expiresIn"}, "request")
    entries = document.get("commands")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_COMMANDS:
        raise CommandRejected("malformed-request", f"commands: a list of 1 to {MAX_COMMANDS}")
    try:
        grouping = Grouping(document.get("grouping", Grouping.NONE))
    except ValueError:
        raise CommandRejected("malformed-request", f"grouping: one of {', '.join(Grouping)}") from None
    idempotent = document.get("idempotent", False)
    if not isinstance(idempotent, bool):
        raise CommandRejected("malformed-request", "idempotent: true or false")
    lifetime = document.get("expiresIn", DEFAULT_LIFETIME_S)
    if isinstance(lifetime, bool) or not isinstance(lifetime, int) or not 1 <= lifetime <= MAX_LIFETIME_S:
        raise CommandRejected("lifetime-out-of-range", f"expiresIn: 1 to {MAX_LIFETIME_S} seconds")
    return RequestOrder(
        commands=tuple(parse_command(entry, f"commands.{index}") for index, entry in enumerate(entries)),
        grouping=grouping,
        idempotent=idempotent,
        expires_in_s=lifetime,
    )


def parse_command(entry: object, place: str) -> OperatorCommand:
    """One command of a request. `place` names it in the error.

    Raises:
        CommandRejected
    """
    if not isinstance(entry, Mapping):
        raise CommandRejected("malformed-request", f"{place}: a command is an object")
    match entry.get("command"):
        case "get" | "delete" as verb:
            _only(entry, {"command", "uris"}, place)
            items = tuple(Item(target=uri) for uri in _uris(entry.get("uris"), place))
            return Get(items=items) if verb == "get" else Delete(items=items)
        case "add" | "replace" as verb:
            _only(entry, {"command", "uri", "value", "valueBase64", "format", "type", "node"}, place)
            item = _value_item(entry, place)
            return Add(items=(item,)) if verb == "add" else Replace(items=(item,))
        case "exec":
            _only(entry, {"command", "uri", "value", "valueBase64", "format", "type", "correlator"}, place)
            return _exec(entry, place)
        case "copy":
            _only(entry, {"command", "source", "target"}, place)
            source, target = (_uri(entry.get(name), f"{place}.{name}") for name in ("source", "target"))
            return Copy(items=(Item(target=target, source=source),))
        case "alert":
            return _alert(entry, place)
        case _:
            raise CommandRejected("malformed-request", f"{place}.command: one of {', '.join(sorted(_CLASSES))}")


def _only(entry: Mapping[str, Any], known: set[str], place: str) -> None:
    unknown = sorted(str(name)[:32] for name in entry if name not in known)
    if unknown:
        raise CommandRejected("malformed-request", f"{place}: unknown members {', '.join(unknown)}")


def _uri(value: object, place: str) -> str:
    # Whether it is a good URI is for the device to say: testing its answer to a bad one is a use of this.
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_URI or not value.isprintable():
        raise CommandRejected("malformed-request", f"{place}: a node URI of 1 to {MAX_URI} printable characters")
    return value


def _uris(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_ITEMS:
        raise CommandRejected("malformed-request", f"{place}.uris: a list of 1 to {MAX_ITEMS} node URIs")
    return tuple(_uri(uri, f"{place}.uris") for uri in value)


def _name(value: object, place: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or not value.isprintable():
        raise CommandRejected("malformed-request", f"{place}: 1 to {MAX_NAME} printable characters")
    return value


def _value(entry: Mapping[str, Any], place: str) -> str | bytes | None:
    text, encoded = entry.get("value"), entry.get("valueBase64")
    if text is not None and encoded is not None:
        raise CommandRejected("malformed-request", f"{place}: either value or valueBase64")
    if encoded is not None:
        try:
            octets = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise CommandRejected("malformed-request", f"{place}.valueBase64: no Base64") from None
        if len(octets) > MAX_VALUE:
            raise CommandRejected("value-too-large", f"{place}: {MAX_VALUE} octets at the most")
        return octets
    if isinstance(text, bool):
        text = "true" if text else "false"
    elif isinstance(text, int | float):
        text = str(text)
    if text is not None and not isinstance(text, str):
        raise CommandRejected("malformed-request", f"{place}.value: text, number or boolean")
    if text is not None and len(text.encode(errors="replace")) > MAX_VALUE:
        raise CommandRejected("value-too-large", f"{place}: {MAX_VALUE} octets of UTF-8 at the most")
    return text


def _carried(text: str, place: str) -> str:
    """A text that every session can carry, in XML or WBXML: no lone surrogate, which JSON can spell, no control."""
    if not is_xml_text(text):
        raise CommandRejected(
            "malformed-request",
            f"{place}: a character that XML cannot carry",
            hint="as octets: valueBase64 with format bin, or --value-file",
        )
    return text


def _format(entry: Mapping[str, Any], default: Format, place: str) -> Format:
    try:
        return Format(entry.get("format", default))
    except ValueError:
        raise CommandRejected("malformed-request", f"{place}.format: one of {', '.join(Format)}") from None


def _value_item(entry: Mapping[str, Any], place: str) -> Item:
    uri = _uri(entry.get("uri"), f"{place}.uri")
    value = _value(entry, place)
    kind = None if entry.get("type") is None else _name(entry["type"], f"{place}.type")
    if entry.get("node", False) is True:
        if value is not None:
            raise CommandRejected("malformed-request", f"{place}: an interior node has no value")
        return Item(target=uri, meta=Meta(format=Format.NODE, type=kind))
    binary = isinstance(value, bytes)
    default = (Format.BIN if binary else Format.CHR) if value is not None else Format.NULL
    format_ = _format(entry, default, place)
    if isinstance(value, str):
        value = _carried(value, f"{place}.value")
        if format_ in (Format.BIN, Format.B64):
            value = value.encode()
    fallback = "application/octet-stream" if isinstance(value, bytes) else MediaType.TEXT
    return Item(target=uri, meta=Meta(format=format_, type=kind or fallback), data=value)


def _exec(entry: Mapping[str, Any], place: str) -> Exec:
    """`correlator` "auto" makes one; without any, an asynchronous result is matched by the node that raises it."""
    correlator = None if entry.get("correlator") is None else _name(entry["correlator"], f"{place}.correlator")
    if correlator == "auto":
        correlator = f"op-{secrets.token_hex(8)}"
    item = _value_item(entry, place)
    return Exec(items=(item if item.data is not None else Item(target=item.target),), correlator=correlator)


# --- user interaction (OMA-TS-DM_Protocol-V1_2 §10) -------------------------------------------------------------------

_KINDS: Final = {
    "display": AlertCode.DISPLAY,
    "confirm": AlertCode.CONFIRM_OR_REJECT,
    "input": AlertCode.TEXT_INPUT,
    "choice": AlertCode.SINGLE_CHOICE,
    "multichoice": AlertCode.MULTIPLE_CHOICE,
}
_OPTIONS: Final = {
    "minDisplay": "MINDT",  # seconds
    "maxDisplay": "MAXDT",  # seconds
    "default": "DR",
    "maxLength": "MAXLEN",  # characters
    "inputType": "IT",  # A, N, D, T, P, I
    "echo": "ET",  # T text, P password
}


def _alert(entry: Mapping[str, Any], place: str) -> Alert:
    """A user interaction: the options as one URL-encoded Item, the text, the choices; the options Item is always there.

    Some devices refuse an alert with fewer than two Items (412), so an empty options Item is sent as well.
    """
    _only(entry, {"command", "kind", "text", "choices", "options"}, place)
    kind = entry.get("kind")
    code = _KINDS.get(kind) if isinstance(kind, str) else None
    if code is None:
        raise CommandRejected("malformed-request", f"{place}.kind: one of {', '.join(_KINDS)}")
    text, choices, options = entry.get("text"), entry.get("choices", []), entry.get("options", {})
    texts = [text, *choices] if isinstance(choices, list) else [None]
    if len(texts) > MAX_ITEMS or not all(
        isinstance(each, str) and 1 <= len(each) <= MAX_TEXT and is_xml_text(each) for each in texts
    ):
        raise CommandRejected(
            "malformed-request",
            f"{place}: text and choices are 1 to {MAX_TEXT} characters that XML can carry, {MAX_ITEMS} at the most",
        )
    if bool(choices) is not (code in (AlertCode.SINGLE_CHOICE, AlertCode.MULTIPLE_CHOICE)):
        raise CommandRejected("malformed-request", f"{place}.choices: for choice and multichoice, and for them alone")
    if not isinstance(options, Mapping):
        raise CommandRejected("malformed-request", f"{place}.options: an object")
    _only(options, set(_OPTIONS), f"{place}.options")
    pairs = [(_OPTIONS[name], _option(value, f"{place}.options.{name}")) for name, value in options.items()]
    return Alert(code=code, items=tuple(Item(data=each) for each in (urlencode(pairs), *texts)))


def _option(value: object, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or len(str(value)) > MAX_NAME:
        raise CommandRejected("malformed-request", f"{place}: text or a number")
    return _carried(str(value), place)


def hides_input(command: OperatorCommand) -> bool:
    """Whether the user types something that is not to be shown (ET=P)."""
    return isinstance(command, Alert) and bool(command.items) and "ET=P" in str(command.items[0].data).split("&")


# --- how the queue keeps them -----------------------------------------------------------------------------------------


def dump_command(command: OperatorCommand) -> dict[str, Any]:
    """A command as JSON values."""
    document: dict[str, Any] = {"command": command.name.lower(), "items": [_dump_item(item) for item in command.items]}
    if isinstance(command, Exec | Alert) and command.correlator is not None:
        document["correlator"] = command.correlator
    if isinstance(command, Alert):
        document["code"] = command.code
    return document


def load_command(document: Mapping[str, Any]) -> OperatorCommand:
    """The command `dump_command` was given."""
    items = tuple(_load_item(item) for item in document["items"])
    match _CLASSES[document["command"]]:
        case kind if kind is Alert:
            return Alert(code=document["code"], items=items, correlator=document.get("correlator"))
        case kind if kind is Exec:
            return Exec(items=items, correlator=document.get("correlator"))
        case kind:
            return kind(items=items)  # type: ignore[call-arg]  # the two that take more are above


def dump_value(value: str | bytes | None, name: str = "value") -> dict[str, str]:
    """A value as a member of a JSON object: text, or octets as Base64."""
    if value is None:
        return {}
    if isinstance(value, bytes):
        return {f"{name}Base64": base64.b64encode(value).decode("ascii")}
    return {name: value}


def load_value(document: Mapping[str, Any], name: str = "value") -> str | bytes | None:
    """The value `dump_value` was given."""
    if f"{name}Base64" in document:
        return base64.b64decode(document[f"{name}Base64"])
    return document.get(name)


def _dump_item(item: Item) -> dict[str, Any]:
    meta = item.meta or Meta()
    given = {"target": item.target, "source": item.source, "format": meta.format, "type": meta.type}
    return {name: value for name, value in given.items() if value is not None} | dump_value(item.data)


def _load_item(document: Mapping[str, Any]) -> Item:
    meta = Meta(format=document.get("format"), type=document.get("type"))
    return Item(
        target=document.get("target"),
        source=document.get("source"),
        meta=None if meta == Meta() else meta,
        data=load_value(document),
    )
