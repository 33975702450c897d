"""A Message as a SyncML document: strict, in the order of the DTD (OMA-TS-SyncML_RepPro-V1_2 §5, §6)."""

from __future__ import annotations

from collections.abc import Iterable

from syncml.document import METINF, Element
from syncml.encoding import Encoding
from syncml.errors import LocalProtocolError
from syncml.model import (
    MAX_GROUP_DEPTH,
    Alert,
    Atomic,
    Command,
    Exec,
    Item,
    Message,
    Meta,
    Results,
    Sequence,
    Status,
    SyncHdr,
    UnknownCommand,
)
from syncml.nonces import encode_nonce
from syncml.values import as_transmitted

_Elements = list[Element]


def write_message(message: Message, encoding: Encoding) -> Element:
    """The document for a message. `encoding` decides how octets of Items travel.

    Raises:
        LocalProtocolError: a command without CmdID, one that is not ours to send, or groups nested too deep.
    """
    body = [_command(command, encoding, 0) for command in message.commands]
    if message.final:
        body.append(Element(name="Final"))
    return _group("SyncML", [_header(message.header), _group("SyncBody", body)])


def _group(name: str, children: Iterable[Element]) -> Element:
    return Element(name=name, content=tuple(children))


def _leaf(name: str, value: str | int) -> Element:
    text = str(value)
    return Element(name=name, content=(text,) if text else ())


def _given(*fields: tuple[str, str | int | None]) -> _Elements:
    """An element for each value that is not None."""
    return [_leaf(name, value) for name, value in fields if value is not None]


def _location(name: str, uri: str | None, loc_name: str | None = None) -> _Elements:
    return [] if uri is None else [_group(name, _given(("LocURI", uri), ("LocName", loc_name)))]


def _flag(name: str, present: bool) -> _Elements:
    return [Element(name=name)] if present else []


def _header(header: SyncHdr) -> Element:
    cred: _Elements = []
    if header.cred is not None:
        meta = _meta(Meta(format=header.cred.format, type=header.cred.type))
        cred = [_group("Cred", [*meta, _leaf("Data", header.cred.data)])]
    return _group(
        "SyncHdr",
        [
            _leaf("VerDTD", header.ver_dtd),
            _leaf("VerProto", header.ver_proto),
            _leaf("SessionID", header.session_id),
            _leaf("MsgID", header.msg_id),
            *_location("Target", header.target, header.target_name),
            *_location("Source", header.source, header.source_name),
            *_given(("RespURI", header.resp_uri)),
            *_flag("NoResp", header.no_resp),
            *cred,
            *_meta(header.meta),
        ],
    )


def _meta(meta: Meta | None) -> _Elements:
    if meta is None:
        return []
    fields: tuple[tuple[str, str | int | None], ...] = (
        ("Format", meta.format),
        ("Type", meta.type),
        ("Mark", meta.mark),
        ("Size", meta.size),
        ("NextNonce", None if meta.next_nonce is None else encode_nonce(meta.next_nonce)),
        ("MaxMsgSize", meta.max_msg_size),
        ("MaxObjSize", meta.max_obj_size),
        *(("EMI", emi) for emi in meta.emi),
    )
    inner = [
        Element(name=name, page=METINF, content=(str(value),) if value != "" else ())
        for name, value in fields
        if value is not None
    ]
    return [_group("Meta", inner)] if inner else []


def _items(items: tuple[Item, ...], encoding: Encoding) -> _Elements:
    return [_item(as_transmitted(item, encoding)) for item in items]


def _item(item: Item) -> Element:
    data: _Elements = []
    if isinstance(item.data, bytes):
        data = [Element(name="Data", content=(item.data,))]
    elif item.data is not None:
        data = [_leaf("Data", item.data)]
    return _group(
        "Item",
        [
            *_location("Target", item.target),
            *_location("Source", item.source),
            *_meta(item.meta),
            *data,
            *_flag("MoreData", item.more_data),
        ],
    )


def _command(command: Command, encoding: Encoding, depth: int) -> Element:
    if not command.cmd_id:
        raise LocalProtocolError(f"{command.name} has no CmdID")
    inner = [_leaf("CmdID", command.cmd_id), *_flag("NoResp", command.no_resp)]
    match command:
        case Status():
            inner += _status(command, encoding)
        case Results():
            inner += _given(("MsgRef", command.msg_ref), ("CmdRef", command.cmd_ref))
            inner += _meta(command.meta)
            inner += _given(("TargetRef", command.target_ref), ("SourceRef", command.source_ref))
            inner += _items(command.items, encoding)
        case Alert():
            inner += _given(("Data", command.code), ("Correlator", command.correlator))
            inner += _items(command.items, encoding)
        case Exec():
            inner += _meta(command.meta)
            inner += _given(("Correlator", command.correlator))
            inner += _items(command.items, encoding)
        case Atomic() | Sequence():
            if depth >= MAX_GROUP_DEPTH:
                raise LocalProtocolError("Atomic and Sequence nested too deep")
            inner += [_command(child, encoding, depth + 1) for child in command.commands]
        case UnknownCommand():
            raise LocalProtocolError(f"{command.element} is no command of ours")
        case _:
            inner += _meta(command.meta)
            inner += _items(command.items, encoding)
    return _group(command.name, inner)


def _status(status: Status, encoding: Encoding) -> _Elements:
    chal: _Elements = []
    if status.chal is not None:
        meta = Meta(format=status.chal.format, type=status.chal.type, next_nonce=status.chal.next_nonce)
        chal = [_group("Chal", _meta(meta))]
    return [
        *_given(("MsgRef", status.msg_ref), ("CmdRef", status.cmd_ref), ("Cmd", status.cmd)),
        *(_leaf("TargetRef", ref) for ref in status.target_refs),
        *(_leaf("SourceRef", ref) for ref in status.source_refs),
        *chal,
        _leaf("Data", status.code),
        *_items(status.items, encoding),
    ]
