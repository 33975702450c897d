"""SyncML messages as the trail may show them: what happened, without credentials, nonces, packages and identities."""

from __future__ import annotations

import dataclasses
from typing import Final, TypeVar

from actor_runtime.traced import loose_text
from dmserver.answers import node_key
from dmserver.operator_outcomes import is_secret
from syncml.errors import SyncMLError
from syncml.model import Add, Alert, Atomic, Command, Copy, Delete, Exec, Get, Item, Message, Replace, Results, Status
from syncml.model import Sequence as SequenceCommand
from syncml.xml_codec import encode_xml

SECRET_LEAVES: Final = frozenset(
    {
        *("Package", "Command"),  # opaque, and nobody's business
        *("PCID", "IMSIMask"),  # identities of the subscriber
        *("Nonce", "NonceEcho", "Challenge"),
        *("AAuthSecret", "AAuthData", "AAuthName"),
    }
)
MAX_VALUE: Final = 128  # characters of a value that is shown; certificates and evidence only by their length

ItemCommandT = TypeVar("ItemCommandT", Add, Replace, Delete, Get, Copy, Exec, Results)


def summary(message: Message) -> str:
    """One line: the commands in order, repeated ones counted, with the codes that tell the story."""
    parts: list[str] = []
    counts: list[int] = []
    for command in message.commands:
        text = command.name
        if isinstance(command, Alert):
            text = f"Alert {command.code}" + "".join(f" {_type(item)}" for item in command.items if _type(item))
        elif isinstance(command, Status) and command.cmd == "SyncHdr":
            text = f"Status SyncHdr {command.code}"
        elif isinstance(command, Status):
            text = f"Status {command.code}"
        if parts and parts[-1] == text:
            counts[-1] += 1
        else:
            parts.append(text)
            counts.append(1)
    said = ", ".join(text if count == 1 else f"{text} ×{count}" for text, count in zip(parts, counts, strict=True))
    return (said or "nothing") + ("" if message.final else " (to be continued)")


def redacted_body(message: Message) -> str:
    """The message as XML with everything secret taken out and long values cut.

    One that we read and would not write, such as a command without CmdID, is shown as it was understood.
    """
    header = message.header
    if header.cred is not None:
        header = dataclasses.replace(header, cred=dataclasses.replace(header.cred, data="[redacted]"))
    header = dataclasses.replace(
        header,  # the query of our RespURI is what lets its holder speak in the session
        resp_uri=header.resp_uri.partition("?")[0] if header.resp_uri is not None else None,
        target=header.target.partition("?")[0],
    )
    clean = dataclasses.replace(message, header=header, commands=tuple(_clean(each) for each in message.commands))
    try:
        return encode_xml(clean).decode("utf-8")
    except SyncMLError as exc:
        return loose_text(clean, why=str(exc))


def _type(item: Item) -> str:
    return (item.meta.type or "").rpartition(":")[2] if item.meta is not None else ""


def _clean(command: Command) -> Command:
    if isinstance(command, SequenceCommand | Atomic):
        return dataclasses.replace(command, commands=tuple(_clean(each) for each in command.commands))
    if isinstance(command, Status):
        chal = command.chal
        if chal is not None and chal.next_nonce is not None:
            chal = dataclasses.replace(chal, next_nonce=b"[redacted]")
        refs = (
            command.target_refs if command.cmd_ref != "0" else tuple(r.partition("?")[0] for r in command.target_refs)
        )
        return dataclasses.replace(
            command, chal=chal, target_refs=refs, items=tuple(_clean_detail(item) for item in command.items)
        )
    if isinstance(command, Alert | Add | Replace | Delete | Get | Copy | Exec | Results):
        return dataclasses.replace(command, items=tuple(_clean_item(item) for item in command.items))
    return command


def _clean_item(item: Item) -> Item:
    if item.data is None:
        return item
    uri = item.target or item.source or ""
    leaf = node_key(uri).rpartition("/")[2]
    if leaf in SECRET_LEAVES or is_secret(uri, item.meta.type if item.meta is not None else None, item.data):
        return dataclasses.replace(item, data=f"[redacted, {len(item.data)} characters]")
    if isinstance(item.data, bytes) or len(item.data) > MAX_VALUE:
        return dataclasses.replace(item, data=f"[{len(item.data)} characters]")
    return item


def _clean_detail(item: Item) -> Item:
    """An Item of a Status: what a user typed may be a password."""
    return item if item.data is None else dataclasses.replace(item, data=f"[{len(item.data)} characters]")
