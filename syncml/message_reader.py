"""A SyncML document as a Message: tolerant (OMA-TS-SyncML_RepPro-V1_2 §5, §6; OMA-TS-DM_RepPro-V1_2 §6).

Real peers send children in any order, Meta with or without MetInf, on the command or in the Item, missing or older
namespaces, foreign elements and attributes, white space around codes, a bare path in Target. User data is never
touched: only where WBXML leaves open whether octets are text does the Format decide.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Final

from syncml.document import DDF, UNKNOWN_NAME, Element
from syncml.document_text import is_base64, plain_text, user_data
from syncml.errors import MalformedMessage
from syncml.model import (
    MAX_GROUP_DEPTH,
    Add,
    Alert,
    Atomic,
    Chal,
    Command,
    Copy,
    Cred,
    Delete,
    Exec,
    Get,
    Item,
    Message,
    Meta,
    Replace,
    Results,
    Sequence,
    Status,
    SyncHdr,
    UnknownCommand,
)
from syncml.nonces import decode_nonce

MAX_MESSAGE_SIZE: Final = 1024 * 1024  # octets; several times what devices announce as MaxMsgSize
MAX_ELEMENTS: Final = 20_000
MAX_ID: Final = 64  # characters of SessionID and MsgID, which are kept for the length of a session; ours
MAX_DEPTH: Final = 64  # elements inside each other; a message needs about ten, a document inside Data some more

ROOT: Final = "SyncML"
VERBATIM: Final = frozenset({"Data"})  # elements that hold text even when XML shows elements in them

_NUMBER: Final = re.compile("[0-9]{1,10}")
_ITEM_COMMANDS: Final[dict[str, type[Add | Replace | Delete | Get | Copy]]] = {
    "Add": Add,
    "Replace": Replace,
    "Delete": Delete,
    "Get": Get,
    "Copy": Copy,
}
_NO_COMMANDS: Final = frozenset({UNKNOWN_NAME, "Final", "CmdID", "NoResp", "Meta"})  # beside the commands of a group


def read_message(root: Element) -> Message:
    """The message that a document is.

    Raises:
        MalformedMessage: no SyncML message, or an element missing without which nothing can be answered.
    """
    header, body = root.child("SyncHdr"), root.child("SyncBody")
    if header is None or body is None:
        raise MalformedMessage("SyncHdr or SyncBody is missing")
    return Message(header=_header(header), commands=tuple(_commands(body, 0)), final=body.child("Final") is not None)


# -- texts and numbers -------------------------------------------------------------------------------------------


def _text(parent: Element | None, name: str) -> str | None:
    """Text of a child without the white space around it, None when there is no such child."""
    child = None if parent is None else parent.child(name)
    return None if child is None else plain_text(child.content).strip()


def _texts(parent: Element, name: str) -> tuple[str, ...]:
    return tuple(plain_text(child.content).strip() for child in parent.children(name))


def _number(parent: Element, name: str) -> int | None:
    value = _text(parent, name)
    return int(value) if value is not None and _NUMBER.fullmatch(value) else None


def _location(parent: Element, name: str) -> str | None:
    """LocURI of a Target or Source; the bare path that examples of the specification put there counts as well."""
    child = parent.child(name)
    if child is None:
        return None
    uri = _text(child, "LocURI")
    return plain_text(child.content).strip() or None if uri is None else uri


# -- header and Meta ---------------------------------------------------------------------------------------------


def _header(header: Element) -> SyncHdr:
    session_id, msg_id = _text(header, "SessionID"), _text(header, "MsgID")
    source = _location(header, "Source")
    if session_id is None or msg_id is None or source is None:
        raise MalformedMessage("SessionID, MsgID or Source is missing")
    if max(len(session_id), len(msg_id)) > MAX_ID:
        raise MalformedMessage(f"SessionID or MsgID of more than {MAX_ID} characters")
    return SyncHdr(
        ver_dtd=_text(header, "VerDTD") or "",
        ver_proto=_text(header, "VerProto") or "",
        session_id=session_id,
        msg_id=msg_id,
        target=_location(header, "Target") or "",
        target_name=_text(header.child("Target"), "LocName"),
        source=source,
        source_name=_text(header.child("Source"), "LocName"),
        resp_uri=_text(header, "RespURI"),
        no_resp=header.child("NoResp") is not None,
        cred=_cred(header.child("Cred")),
        meta=_meta(header),
    )


def _cred(cred: Element | None) -> Cred | None:
    if cred is None:
        return None
    meta = _meta(cred) or Meta()
    data = cred.child("Data")
    content = () if data is None else data.content
    if len(content) == 1 and isinstance(content[0], bytes) and not is_base64(content[0]):
        text = base64.b64encode(content[0]).decode()  # the raw digest as an opaque
    else:
        text = plain_text(content).strip()
    # Type is mandatory; auth-basic is what a peer that leaves it out means (RepPro §6.4).
    return Cred(type=meta.type or "syncml:auth-basic", format=meta.format, data=text)


def _meta(parent: Element) -> Meta | None:
    element = parent.child("Meta")
    if element is None:
        return None
    element = element.child("MetInf") or element
    return Meta(
        format=_text(element, "Format"),
        type=_text(element, "Type"),
        mark=_text(element, "Mark"),
        size=_number(element, "Size"),
        next_nonce=_nonce(element.child("NextNonce")),
        max_msg_size=_number(element, "MaxMsgSize"),
        max_obj_size=_number(element, "MaxObjSize"),
        emi=_texts(element, "EMI"),
    )


def _nonce(element: Element | None) -> bytes | None:
    if element is None:
        return None
    content = element.content
    if len(content) == 1 and isinstance(content[0], bytes):
        return decode_nonce(content[0])
    return decode_nonce(plain_text(content).strip())


# -- Items -------------------------------------------------------------------------------------------------------


def _items(command: Element, meta: Meta | None = None) -> tuple[Item, ...]:
    return tuple(_item(child, meta) for child in command.children("Item"))


def _item(element: Element, command_meta: Meta | None) -> Item:
    meta = _meta(element)
    effective = (command_meta or Meta()).inherited_by(meta)
    data = element.child("Data")
    return Item(
        target=_location(element, "Target"),
        source=_location(element, "Source"),
        meta=meta,
        data=None if data is None else user_data(data.content, effective.format, effective.type),
        more_data=element.child("MoreData") is not None,
    )


# -- commands ----------------------------------------------------------------------------------------------------


def _commands(group: Element, depth: int) -> Iterator[Command]:
    for child in group.content:
        # `Add` and its kin are names of the DDF page too, and no commands there.
        if isinstance(child, Element) and child.name not in _NO_COMMANDS and child.page != DDF:
            yield _command(child, depth)


def _command(element: Element, depth: int) -> Command:
    name, cmd_id = element.name, _text(element, "CmdID") or ""
    if cmd_id == "0":
        raise MalformedMessage("CmdID 0 names the SyncHdr")
    no_resp = element.child("NoResp") is not None
    if name in ("Atomic", "Sequence"):
        if depth >= MAX_GROUP_DEPTH:
            raise MalformedMessage("Atomic and Sequence nested too deep")
        group = Atomic if name == "Atomic" else Sequence
        return group(cmd_id=cmd_id, no_resp=no_resp, commands=tuple(_commands(element, depth + 1)))
    meta = _meta(element)
    items = _items(element, meta)
    if name in _ITEM_COMMANDS:
        return _ITEM_COMMANDS[name](cmd_id=cmd_id, no_resp=no_resp, meta=meta, items=items)
    match name:
        case "Exec":
            return Exec(cmd_id=cmd_id, no_resp=no_resp, meta=meta, items=items, correlator=_text(element, "Correlator"))
        case "Alert":
            return Alert(
                cmd_id=cmd_id,
                no_resp=no_resp,
                code=_number(element, "Data"),
                items=items,
                correlator=_text(element, "Correlator"),
            )
        case "Results":
            return Results(
                cmd_id=cmd_id,
                no_resp=no_resp,
                msg_ref=_text(element, "MsgRef") or "1",
                cmd_ref=_text(element, "CmdRef") or "1",
                target_ref=_text(element, "TargetRef"),
                source_ref=_text(element, "SourceRef"),
                meta=meta,
                items=items,
            )
        case "Status":
            return _status(element, cmd_id, no_resp, items)
    return UnknownCommand(cmd_id=cmd_id, no_resp=no_resp, element=name)


def _status(element: Element, cmd_id: str, no_resp: bool, items: tuple[Item, ...]) -> Status:
    code = _number(element, "Data")
    if code is None:
        raise MalformedMessage("a Status without a code")
    name, cmd_ref = _text(element, "Cmd") or "", _text(element, "CmdRef")
    if cmd_ref is None:
        cmd_ref = "0" if name == "SyncHdr" else ""
    chal = None
    if (challenge := element.child("Chal")) is not None:
        meta = _meta(challenge) or Meta()
        chal = Chal(type=meta.type or "", format=meta.format, next_nonce=meta.next_nonce)
    return Status(
        cmd_id=cmd_id,
        no_resp=no_resp,
        msg_ref=_text(element, "MsgRef") or "",
        cmd_ref=cmd_ref,
        cmd=name,
        code=code,
        target_refs=_texts(element, "TargetRef"),
        source_refs=_texts(element, "SourceRef"),
        chal=chal,
        items=items,
    )
