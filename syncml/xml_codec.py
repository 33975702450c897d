"""SyncML DM messages as XML: strict writer, tolerant reader (OMA-TS-SyncML_RepPro-V1_2 §5, §6).

The writer emits the order of the DTD and declares `syncml:metinf` on each child of Meta. The reader takes what real
peers send: any order of children, Meta with or without MetInf, missing or older namespaces, foreign elements and
attributes, white space around codes. A document type may be named, as the specification allows in a prolog, but
declare nothing; it is cut off unread. No entity is taken, and nothing over the limits.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape

from lxml import etree

from syncml.codes import NS_METINF, NS_SYNCML
from syncml.errors import LocalProtocolError, MalformedMessage, MessageTooLarge
from syncml.model import (
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

MAX_MESSAGE_SIZE: Final = 1024 * 1024  # octets; several times what devices announce as MaxMsgSize
MAX_ELEMENTS: Final = 20_000
MAX_DEPTH: Final = 64  # elements inside each other; a message needs about ten, a document inside Data some more
MAX_GROUP_DEPTH: Final = 8  # Atomic and Sequence inside each other

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PROLOG = re.compile(
    r"""\s*+ (?: <\?xml \s (?P<declaration> [^>]*+ ) > )?
        (?: \s++ | <!-- .*? --> | <\?(?!xml\s) .*? \?> )*+
        (?P<doctype> <!DOCTYPE \s++ SyncML
            (?: \s++ (?: PUBLIC \s++ (?: "[^"]*+" | '[^']*+' ) | SYSTEM )
                \s++ (?: "[^"]*+" | '[^']*+' ) )? \s*+ > )?""",
    re.VERBOSE | re.DOTALL,
)
_ENCODING = re.compile(r"""\bencoding \s* = \s* ["'] ([^"']*) ["']""", re.VERBOSE)
_ENCODINGS: Final = {"utf-8", "utf8", "us-ascii", "ascii", "utf-16"}  # all that an XML reader must know, and ASCII
_OURS: Final = {"", "syncml:syncml1.2", "syncml:syncml1.1", "syncml:syncml1.0", "syncml:metinf"}  # in lower case
_ITEM_COMMANDS: Final[dict[str, type[Add | Replace | Delete | Get | Copy]]] = {
    "Add": Add,
    "Replace": Replace,
    "Delete": Delete,
    "Get": Get,
    "Copy": Copy,
}


# -- writer ------------------------------------------------------------------------------------------------------


def encode_xml(message: Message) -> bytes:
    """Encode as UTF-8 XML.

    Raises:
        LocalProtocolError: a text that XML cannot carry, or a command without CmdID.
    """
    final = "<Final/>" if message.final else ""
    body = "".join(_command(command) for command in message.commands)
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><SyncML xmlns="{NS_SYNCML}">'
        f"{_header(message.header)}<SyncBody>{body}{final}</SyncBody></SyncML>"
    )
    if fault := _FORBIDDEN.search(text):
        raise LocalProtocolError(f"XML cannot carry U+{ord(fault.group()):04X}: send it as bin")
    return text.encode()


def _escape(value: str | int) -> str:
    return escape(str(value), {"\r": "&#13;"})  # a bare carriage return would be read as a line feed


def _element(name: str, value: str | int | None) -> str:
    return "" if value is None else f"<{name}>{_escape(value)}</{name}>"


def _location(name: str, uri: str | None, loc_name: str | None = None) -> str:
    return "" if uri is None else f"<{name}>{_element('LocURI', uri)}{_element('LocName', loc_name)}</{name}>"


def _header(header: SyncHdr) -> str:
    cred = ""
    if header.cred is not None:
        meta = _meta(Meta(format=header.cred.format, type=header.cred.type))
        cred = f"<Cred>{meta}{_element('Data', header.cred.data)}</Cred>"
    return (
        "<SyncHdr>"
        + _element("VerDTD", header.ver_dtd)
        + _element("VerProto", header.ver_proto)
        + _element("SessionID", header.session_id)
        + _element("MsgID", header.msg_id)
        + _location("Target", header.target, header.target_name)
        + _location("Source", header.source, header.source_name)
        + _element("RespURI", header.resp_uri)
        + ("<NoResp/>" if header.no_resp else "")
        + cred
        + _meta(header.meta)
        + "</SyncHdr>"
    )


def _meta(meta: Meta | None) -> str:
    if meta is None:
        return ""
    nonce = None if meta.next_nonce is None else base64.b64encode(meta.next_nonce).decode()
    fields: tuple[tuple[str, str | int | None], ...] = (
        ("Format", meta.format),
        ("Type", meta.type),
        ("Mark", meta.mark),
        ("Size", meta.size),
        ("NextNonce", nonce),
        ("MaxMsgSize", meta.max_msg_size),
        ("MaxObjSize", meta.max_obj_size),
        *(("EMI", emi) for emi in meta.emi),
    )
    inner = "".join(
        f'<{name} xmlns="{NS_METINF}">{_escape(value)}</{name}>' for name, value in fields if value is not None
    )
    return f"<Meta>{inner}</Meta>" if inner else ""


def _item(item: Item) -> str:
    meta, data = item.meta, item.data
    if isinstance(data, bytes):  # binary travels as Base64 in XML (OMA-TS-DM_RepPro-V1_2 §7)
        meta = (meta or Meta()).inherited_by(Meta(format="b64"))
        data = base64.b64encode(data).decode()
    return (
        "<Item>"
        + _location("Target", item.target)
        + _location("Source", item.source)
        + _meta(meta)
        + _element("Data", data)
        + ("<MoreData/>" if item.more_data else "")
        + "</Item>"
    )


def _command(command: Command) -> str:
    if not command.cmd_id:
        raise LocalProtocolError(f"{command.name} has no CmdID")
    start = _element("CmdID", command.cmd_id) + ("<NoResp/>" if command.no_resp else "")
    match command:
        case Status():
            inner = _status(command)
        case Results():
            inner = (
                _element("MsgRef", command.msg_ref)
                + _element("CmdRef", command.cmd_ref)
                + _meta(command.meta)
                + _element("TargetRef", command.target_ref)
                + _element("SourceRef", command.source_ref)
                + _items(command.items)
            )
        case Alert():
            inner = _element("Data", command.code) + _element("Correlator", command.correlator) + _items(command.items)
        case Exec():
            inner = _meta(command.meta) + _element("Correlator", command.correlator) + _items(command.items)
        case Atomic() | Sequence():
            inner = "".join(_command(child) for child in command.commands)
        case UnknownCommand():
            raise LocalProtocolError(f"{command.element} is no command of ours")
        case _:
            inner = _meta(command.meta) + _items(command.items)
    return f"<{command.name}>{start}{inner}</{command.name}>"


def _items(items: Iterable[Item]) -> str:
    return "".join(_item(item) for item in items)


def _status(status: Status) -> str:
    chal = ""
    if status.chal is not None:
        meta = Meta(format=status.chal.format, type=status.chal.type, next_nonce=status.chal.next_nonce)
        chal = f"<Chal>{_meta(meta)}</Chal>"
    return (
        _element("MsgRef", status.msg_ref)
        + _element("CmdRef", status.cmd_ref)
        + _element("Cmd", status.cmd)
        + "".join(_element("TargetRef", ref) for ref in status.target_refs)
        + "".join(_element("SourceRef", ref) for ref in status.source_refs)
        + chal
        + _element("Data", status.code)
        + _items(status.items)
    )


# -- reader ------------------------------------------------------------------------------------------------------


def parser() -> etree.XMLParser:
    """The one XML parser of this library: no DTD, no entities, no network, no huge trees."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )


def decode_xml(body: bytes, *, max_size: int = MAX_MESSAGE_SIZE) -> Message:
    """Decode one message.

    Raises:
        MessageTooLarge: more than `max_size` octets.
        MalformedMessage: not well-formed, a document type with declarations, over a limit, or not a SyncML message.
    """
    if len(body) > max_size:
        raise MessageTooLarge(f"{len(body)} octets, {max_size} are taken")
    try:
        root = etree.fromstring(_without_prolog(body), parser())
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise MalformedMessage(f"not well-formed: {exc}") from exc
    if root.getroottree().docinfo.internalDTD is not None:
        raise MalformedMessage("a document type other than the plain one of SyncML")
    _check_limits(root)
    if _name(root) != "SyncML":
        raise MalformedMessage(f"the root is {_name(root)}")
    header, sync_body = _child(root, "SyncHdr"), _child(root, "SyncBody")
    if header is None or sync_body is None:
        raise MalformedMessage("SyncHdr or SyncBody is missing")
    commands = tuple(_read_command(child, 0) for child in sync_body if _name(child) not in ("", "Final"))
    return Message(header=_read_header(header), commands=commands, final=_child(sync_body, "Final") is not None)


def _without_prolog(body: bytes) -> bytes:
    """The document as UTF-8, without XML declaration and without a document type that only names the DTD.

    Raises:
        MalformedMessage: another character encoding, or a document type with an internal subset. The parser would
            refuse to expand what it declares; it does not even get to read it.
    """
    wide = body.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = body.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as exc:
        raise MalformedMessage("neither UTF-8 nor UTF-16") from exc
    prolog = _PROLOG.match(text)
    rest = text if prolog is None else text[prolog.end() :]
    named = None if prolog is None else _ENCODING.search(prolog["declaration"] or "")
    if named is not None and named[1].lower() not in _ENCODINGS:
        raise MalformedMessage("a character encoding that is not supported")
    if rest.startswith("<!DOCTYPE"):
        raise MalformedMessage("a document type other than the plain one of SyncML")
    return rest.encode("utf-8", "replace")


def _check_limits(root: etree._Element) -> None:
    depth = elements = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if event == "end":
            depth -= 1
            continue
        depth, elements = depth + 1, elements + 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            raise MalformedMessage(f"more than {MAX_ELEMENTS} elements, or {MAX_DEPTH} inside each other")
        if not isinstance(element.tag, str):
            raise MalformedMessage("an entity reference")


def _name(element: etree._Element) -> str:
    """Local name; empty for an element of a foreign namespace, which nothing here asks for."""
    name = etree.QName(element)
    return name.localname if (name.namespace or "").lower() in _OURS else ""


def _child(element: etree._Element | None, name: str) -> etree._Element | None:
    if element is None:
        return None
    return next((child for child in element if _name(child) == name), None)


def _raw(element: etree._Element | None) -> str | None:
    """Text as it is; child elements (a TNDS document as elements) come as serialised XML."""
    if element is None:
        return None
    inner = "".join(etree.tostring(child, encoding="unicode") for child in element)
    return (element.text or "") + inner


def _text(element: etree._Element | None, name: str) -> str | None:
    value = _raw(_child(element, name))
    return None if value is None else value.strip()


def _number(element: etree._Element | None, name: str) -> int | None:
    value = _text(element, name)
    if value is None:
        return None
    return int(value) if re.fullmatch("[0-9]{1,10}", value) else None


def _read_header(header: etree._Element) -> SyncHdr:
    session_id, msg_id = _text(header, "SessionID"), _text(header, "MsgID")
    target, source = _child(header, "Target"), _child(header, "Source")
    target_uri, source_uri = _text(target, "LocURI"), _text(source, "LocURI")
    if session_id is None or msg_id is None or source_uri is None:
        raise MalformedMessage("SessionID, MsgID or Source is missing")
    cred = None
    if (element := _child(header, "Cred")) is not None:
        meta = _read_meta(element) or Meta()
        # Type is mandatory; auth-basic is what a peer that leaves it out means (RepPro §6.4).
        cred = Cred(type=meta.type or "syncml:auth-basic", format=meta.format, data=_text(element, "Data") or "")
    return SyncHdr(
        ver_dtd=_text(header, "VerDTD") or "",
        ver_proto=_text(header, "VerProto") or "",
        session_id=session_id,
        msg_id=msg_id,
        target=target_uri or "",
        target_name=_text(target, "LocName"),
        source=source_uri,
        source_name=_text(source, "LocName"),
        resp_uri=_text(header, "RespURI"),
        no_resp=_child(header, "NoResp") is not None,
        cred=cred,
        meta=_read_meta(header),
    )


def _read_meta(parent: etree._Element) -> Meta | None:
    element = _child(parent, "Meta")
    if element is None:
        return None
    inner = _child(element, "MetInf")
    element = inner if inner is not None else element
    nonce = _text(element, "NextNonce")
    return Meta(
        format=_text(element, "Format"),
        type=_text(element, "Type"),
        mark=_text(element, "Mark"),
        size=_number(element, "Size"),
        next_nonce=None if nonce is None else decode_nonce(nonce),
        max_msg_size=_number(element, "MaxMsgSize"),
        max_obj_size=_number(element, "MaxObjSize"),
        emi=tuple((_raw(child) or "").strip() for child in element if _name(child) == "EMI"),
    )


def decode_nonce(text: str) -> bytes:
    """Raw octets of a NextNonce; what is no Base64 counts as the octets themselves, as some peers send it."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text.encode()


def _read_item(element: etree._Element) -> Item:
    return Item(
        target=_text(_child(element, "Target"), "LocURI"),
        source=_text(_child(element, "Source"), "LocURI"),
        meta=_read_meta(element),
        data=_raw(_child(element, "Data")),
        more_data=_child(element, "MoreData") is not None,
    )


def _read_items(element: etree._Element) -> tuple[Item, ...]:
    return tuple(_read_item(child) for child in element if _name(child) == "Item")


def _read_command(element: etree._Element, depth: int) -> Command:
    name, cmd_id = _name(element), _text(element, "CmdID") or ""
    if cmd_id == "0":
        raise MalformedMessage("CmdID 0 names the SyncHdr")
    no_resp = _child(element, "NoResp") is not None
    if name in _ITEM_COMMANDS:
        return _ITEM_COMMANDS[name](
            cmd_id=cmd_id, no_resp=no_resp, meta=_read_meta(element), items=_read_items(element)
        )
    match name:
        case "Exec":
            return Exec(
                cmd_id=cmd_id,
                no_resp=no_resp,
                meta=_read_meta(element),
                items=_read_items(element),
                correlator=_text(element, "Correlator"),
            )
        case "Alert":
            return Alert(
                cmd_id=cmd_id,
                no_resp=no_resp,
                code=_number(element, "Data"),
                items=_read_items(element),
                correlator=_text(element, "Correlator"),
            )
        case "Atomic" | "Sequence":
            if depth >= MAX_GROUP_DEPTH:
                raise MalformedMessage("Atomic and Sequence nested too deep")
            children = tuple(
                _read_command(child, depth + 1)
                for child in element
                if _name(child) not in ("", "CmdID", "NoResp", "Meta")
            )
            group = Atomic if name == "Atomic" else Sequence
            return group(cmd_id=cmd_id, no_resp=no_resp, commands=children)
        case "Results":
            return Results(
                cmd_id=cmd_id,
                msg_ref=_text(element, "MsgRef") or "1",
                cmd_ref=_text(element, "CmdRef") or "1",
                target_ref=_text(element, "TargetRef"),
                source_ref=_text(element, "SourceRef"),
                meta=_read_meta(element),
                items=_read_items(element),
            )
        case "Status":
            return _read_status(element, cmd_id)
    return UnknownCommand(cmd_id=cmd_id, no_resp=no_resp, element=name)


def _read_status(element: etree._Element, cmd_id: str) -> Status:
    code = _number(element, "Data")
    if code is None:
        raise MalformedMessage("a Status without a code")
    name, cmd_ref = _text(element, "Cmd") or "", _text(element, "CmdRef")
    if cmd_ref is None:
        cmd_ref = "0" if name == "SyncHdr" else ""
    chal = None
    if (challenge := _child(element, "Chal")) is not None:
        meta = _read_meta(challenge) or Meta()
        chal = Chal(type=meta.type or "", format=meta.format, next_nonce=meta.next_nonce)
    return Status(
        cmd_id=cmd_id,
        msg_ref=_text(element, "MsgRef") or "",
        cmd_ref=cmd_ref,
        cmd=name,
        code=code,
        target_refs=tuple((_raw(child) or "").strip() for child in element if _name(child) == "TargetRef"),
        source_refs=tuple((_raw(child) or "").strip() for child in element if _name(child) == "SourceRef"),
        chal=chal,
        items=_read_items(element),
    )
