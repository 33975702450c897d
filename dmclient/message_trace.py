"""Messages for the trail: a line that says what is in them, and their text without what must not be told."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from actor_runtime.traced import loose_text
from syncml.codes import Format
from syncml.errors import SyncMLError
from syncml.model import Alert, Atomic, Command, Item, Message, Meta, Results, Sequence, Status, UnknownCommand
from syncml.xml_codec import encode_xml

HIDDEN: Final = "[redacted]"
SECRET_LEAVES: Final = ("/AAuthSecret", "/AAuthData", "/PCID", "/Nonce", "/NonceEcho")
MAX_VALUE: Final = 120  # characters of a value shown
MAX_SUMMARY: Final = 400  # characters


def summary(message: Message) -> str:
    """Commands of a message in one line, e.g. `#2 Status 212 SyncHdr; Get ./DevInfo; final`."""
    parts = [_describe(command) for command in message.commands]
    line = f"#{message.header.msg_id} " + "; ".join(parts + (["final"] if message.final else []))
    return line if len(line) <= MAX_SUMMARY else line[: MAX_SUMMARY - 1] + "…"


def redacted(message: Message) -> str:
    """The message as XML without credentials, nonces and long values; one that we would not write as it was read."""
    header = message.header
    if header.cred is not None:
        header = replace(header, cred=replace(header.cred, data=HIDDEN))
    shown = replace(message, header=header, commands=tuple(_redact(each) for each in message.commands))
    try:
        return encode_xml(shown).decode()
    except SyncMLError as error:
        return loose_text(shown, why=str(error))


def _describe(command: Command) -> str:
    match command:
        case Status():
            return f"Status {command.code} {command.cmd}"
        case Alert():
            types = [item.meta.type for item in command.items if item.meta is not None and item.meta.type]
            return " ".join([f"Alert {command.code}", *(each.rsplit(":", 1)[-1] for each in types)])
        case Sequence() | Atomic():
            return f"{command.name}{{" + "; ".join(_describe(each) for each in command.commands) + "}"
        case UnknownCommand():
            return command.element
    targets = [item.target or item.source or "" for item in command.items]
    more = f" +{len(targets) - 1}" if len(targets) > 1 else ""
    chunk = " …" if any(item.more_data for item in command.items) else ""
    return f"{command.name} {targets[0] if targets else ''}{more}{chunk}"


def _redact(command: Command) -> Command:
    match command:
        case Status() if command.chal is not None and command.chal.next_nonce is not None:
            return replace(command, chal=replace(command.chal, next_nonce=HIDDEN.encode()))
        case Sequence() | Atomic():
            return replace(command, commands=tuple(_redact(each) for each in command.commands))
        case Status() | UnknownCommand():
            return command
        case Alert():
            return replace(command, items=tuple(_redact_item(each, None) for each in command.items))
        case Results():
            refs = (command.source_ref, command.target_ref)
            return replace(command, items=tuple(_redact_item(each, command.meta, *refs) for each in command.items))
    return replace(command, items=tuple(_redact_item(each, command.meta) for each in command.items))


def _redact_item(item: Item, meta: Meta | None, *more: str | None) -> Item:
    if item.data is None:
        return item
    effective = (meta or Meta()).inherited_by(item.meta)
    uris = [uri.split("?", 1)[0] for uri in (item.target, item.source, *more) if uri is not None]
    if any(uri.endswith(SECRET_LEAVES) for uri in uris):
        return replace(item, data=HIDDEN)
    binary = isinstance(item.data, bytes) or effective.format in (Format.B64, Format.BIN)
    if binary or len(item.data) > MAX_VALUE:
        return replace(item, data=f"[{len(item.data)} octets]")
    return item
