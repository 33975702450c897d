"""Serialised sub-trees (OMA-TS-DM_TNDS-V1_2): the values, and their form in XML and WBXML.

A document lists nodes with their run-time properties. It shares its elements with device descriptions (DDF) and
nothing of their meaning. Values are octets for the Formats `bin` and `b64`, text for all others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Final
from xml.sax.saxutils import unescape

from syncml.codes import VER_DTD, Format, StatusCode
from syncml.document import DDF, Element, Limits
from syncml.document_text import plain_text, user_data
from syncml.encoding import Encoding
from syncml.errors import LocalProtocolError, MalformedAcl, MalformedMessage, RemoteProtocolError
from syncml.tree import Acl, NodeUri
from syncml.wbxml import WBXML_1_2, read_document, write_document
from syncml.wbxml.syncml_pages import TNDS_1_2
from syncml.xml_document import MalformedXml, read_xml, xml_text

MAX_TNDS_SIZE: Final = 1024 * 1024  # octets
MAX_TNDS_NODES: Final = 4096
MAX_TNDS_DEPTH: Final = 32  # nodes inside each other

_LIMITS: Final = Limits(max_size=MAX_TNDS_SIZE, max_depth=MAX_TNDS_DEPTH + 8, max_items=100_000)
_OCTETS: Final = (Format.BIN, Format.B64)


class MalformedTnds(RemoteProtocolError):
    """A serialised tree that breaks its rules; `line` counts from 1 in XML, 0: not known."""

    code: ClassVar[int] = StatusCode.BAD_REQUEST

    def __init__(self, reason: str, *, line: int = 0, cmd_ref: str = "0") -> None:
        super().__init__(f"line {line}: {reason}" if line else reason, cmd_ref=cmd_ref)
        self.reason = reason
        self.line = line


class UnsupportedTnds(MalformedTnds):
    """A serialised tree of another version, or with a Format nobody knows."""

    code = StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT


class TndsTooLarge(MalformedTnds):
    """A serialised tree over our limits of octets or nodes."""

    code = StatusCode.REQUEST_ENTITY_TOO_LARGE


@dataclass(frozen=True, slots=True)
class TndsNode:
    """A node with those of its properties that were serialised.

    Raises:
        LocalProtocolError: a value and children, a value that the Format cannot have, or a name no node can have.
    """

    name: str  # empty: the last segment of the command's target
    path: str | None = None  # URI of the parent as given, relative to the command's target; None: from the nesting
    format: Format | None = None  # None: not serialised; a leaf then counts as chr
    type: str = ""  # media type of a leaf's value; empty: not serialised, text/plain
    object_type: str = ""  # management object identifier of an interior node, usually empty
    value: str | bytes | None = field(default=None, repr=False)  # may be a secret
    acl: Acl | None = None
    title: str | None = None
    size: str | None = None
    t_stamp: str | None = None
    ver_no: str | None = None
    children: tuple[TndsNode, ...] = ()

    def __post_init__(self) -> None:
        if self.name:
            NodeUri((self.name,))
        if self.value is not None:
            if self.children or self.format in (Format.NODE, Format.NULL):
                raise LocalProtocolError("a value where there can be none")
            octets = isinstance(self.value, bytes)
            if self.format is not None and octets != (self.format in _OCTETS):
                raise LocalProtocolError(f"a value of Format {self.format} has to be {'text' if octets else 'octets'}")
        elif self.children and self.format not in (None, Format.NODE):
            raise LocalProtocolError(f"children below a node of Format {self.format}")

    @property
    def is_interior(self) -> bool:
        """Whether the node has children instead of a value; without Format, Type and value it counts as one."""
        if self.format is not None:
            return self.format is Format.NODE
        return bool(self.children) or (self.value is None and not self.type)


@dataclass(frozen=True, slots=True)
class Tnds:
    """One document (`MgmtTree`)."""

    nodes: tuple[TndsNode, ...]
    manufacturer: str = ""
    model: str = ""

    def walk(self) -> Iterator[TndsNode]:
        """Every node, parents before their children, in document order."""
        waiting = list(reversed(self.nodes))
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


# -- writer ------------------------------------------------------------------------------------------------------


def encode_tnds(tnds: Tnds, encoding: Encoding) -> str | bytes:
    """The document as XML text, or as WBXML with its own header: what `Data` of an Item holds.

    Raises:
        LocalProtocolError: no node, nodes too deep or too many, or a text that the encoding cannot carry.
    """
    if not tnds.nodes:
        raise LocalProtocolError("a tree without a node")
    if sum(1 for _ in tnds.walk()) > MAX_TNDS_NODES:
        raise LocalProtocolError(f"more than {MAX_TNDS_NODES} nodes")
    content = [_leaf("VerDTD", VER_DTD)]
    content += [_leaf(name, text) for name, text in (("Man", tnds.manufacturer), ("Mod", tnds.model)) if text]
    content += [_node(node, encoding, 1) for node in tnds.nodes]
    root = _group("MgmtTree", *content)
    return xml_text(root) if encoding is Encoding.XML else write_document(root, TNDS_1_2, version=WBXML_1_2)


def _group(name: str, *children: Element) -> Element:
    return Element(name=name, page=DDF, content=children)


def _leaf(name: str, text: str) -> Element:
    return Element(name=name, page=DDF, content=(text,) if text else ())


def _node(node: TndsNode, encoding: Encoding, depth: int) -> Element:
    if depth > MAX_TNDS_DEPTH:
        raise LocalProtocolError(f"more than {MAX_TNDS_DEPTH} nodes inside each other")
    content = [_leaf("NodeName", node.name)]
    if node.path is not None:
        content.append(_leaf("Path", node.path))
    content.append(_properties(node))
    content += [_node(child, encoding, depth + 1) for child in node.children]
    if node.value is not None:
        content.append(_value(node, encoding))
    return _group("Node", *content)


def _properties(node: TndsNode) -> Element:
    """In the order of the DTD; `Name` would only repeat NodeName, and `Type` is never left out."""
    kind = _leaf("DDFName", node.object_type) if node.is_interior else _leaf("MIME", node.type)
    texts = (("Size", node.size), ("Title", node.title), ("TStamp", node.t_stamp))
    return _group(
        "RTProperties",
        *([] if node.acl is None else [_leaf("ACL", str(node.acl))]),
        *([] if node.format is None else [_group("Format", _leaf(node.format.value, ""))]),
        *(_leaf(name, text) for name, text in texts if text is not None),
        _group("Type", kind),
        *([] if node.ver_no is None else [_leaf("VerNo", node.ver_no)]),
    )


def _value(node: TndsNode, encoding: Encoding) -> Element:
    value = node.value
    if isinstance(value, bytes) and (encoding is Encoding.XML or node.format is Format.B64):
        value = base64.b64encode(value).decode()
    return Element(name="Value", page=DDF, content=(value,) if value is not None and value != "" else ())


# -- reader ------------------------------------------------------------------------------------------------------


def decode_tnds(data: str | bytes) -> Tnds:
    """Read a serialised tree: XML with or without prolog and namespace, XML escaped once more, or WBXML.

    Tolerated: children of a Node and of RTProperties in any order, RTProperties missing, Type and Format as bare text,
    the property `Name` in place of NodeName, elements nobody knows.

    Raises:
        TndsTooLarge: too many octets or nodes.
        UnsupportedTnds: VerDTD other than 1.2, or an unknown Format.
        MalformedTnds: no such document, too deep, VerDTD missing, a value beside children, a value its Format cannot
            have, a name no node can have, two nodes of one name side by side.
    """
    octets = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if len(octets) > MAX_TNDS_SIZE:
        raise TndsTooLarge(f"{len(octets)} octets, {MAX_TNDS_SIZE} are taken")
    try:
        root = _document(octets)
        ver_dtd = _text(root, "VerDTD")
        if ver_dtd != VER_DTD:
            failure = MalformedTnds if ver_dtd is None else UnsupportedTnds
            raise failure("VerDTD is not 1.2", line=root.line)
        nodes = _read_nodes(root, [0], 1)
        if not nodes:
            raise MalformedTnds("a tree without a node", line=root.line)
        return Tnds(nodes, manufacturer=_text(root, "Man") or "", model=_text(root, "Mod") or "")
    except MalformedXml as exc:
        raise MalformedTnds(exc.reason, line=exc.line) from exc
    except MalformedMessage as exc:
        raise MalformedTnds(str(exc)) from exc


def _document(octets: bytes) -> Element:
    start = octets[:64].lstrip(b" \t\r\n")
    if start.startswith(b"&lt;"):
        try:
            text = octets.decode()
        except UnicodeDecodeError as exc:
            raise MalformedTnds("no UTF-8") from exc
        octets = unescape(text, {"&quot;": '"', "&apos;": "'"}).encode()
    elif not start.startswith((b"<", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return read_document(octets, TNDS_1_2, _LIMITS)
    return read_xml(octets, "MgmtTree", _LIMITS, verbatim=("Value",))


def _text(parent: Element | None, name: str) -> str | None:
    child = None if parent is None else parent.child(name)
    return None if child is None else plain_text(child.content).strip()


def _read_nodes(parent: Element, count: list[int], depth: int) -> tuple[TndsNode, ...]:
    """The nodes directly inside an element; `count` counts them all, through the whole document."""
    nodes: list[TndsNode] = []
    places: set[tuple[str | None, str]] = set()
    for element in parent.children("Node"):
        count[0] += 1
        if depth > MAX_TNDS_DEPTH:
            raise MalformedTnds(f"more than {MAX_TNDS_DEPTH} nodes inside each other", line=element.line)
        if count[0] > MAX_TNDS_NODES:
            raise TndsTooLarge(f"more than {MAX_TNDS_NODES} nodes", line=element.line)
        node = _read_node(element, _read_nodes(element, count, depth + 1))
        if node.name and (node.path, node.name) in places:
            raise MalformedTnds("two nodes of one name side by side", line=element.line)
        places.add((node.path, node.name))
        nodes.append(node)
    return tuple(nodes)


def _read_node(element: Element, children: tuple[TndsNode, ...]) -> TndsNode:
    properties = element.child("RTProperties")
    node_format = _read_format(properties)
    kind = None if properties is None else properties.child("Type")
    media_type = _text(kind, "MIME")
    object_type = _text(kind, "DDFName")
    bare = plain_text(kind.content).strip() if kind is not None and media_type is None and object_type is None else ""
    interior = node_format is Format.NODE or bool(children)
    try:
        return TndsNode(
            name=_text(element, "NodeName") or _text(properties, "Name") or "",
            path=_text(element, "Path"),
            format=node_format,
            type=media_type or ("" if interior else bare),
            object_type=object_type or (bare if interior else ""),
            value=_read_value(element, node_format, media_type or bare, interior),
            acl=_read_acl(properties),
            title=_text(properties, "Title"),
            size=_text(properties, "Size"),
            t_stamp=_text(properties, "TStamp"),
            ver_no=_text(properties, "VerNo"),
            children=children,
        )
    except LocalProtocolError as exc:
        raise MalformedTnds(str(exc), line=element.line) from exc


def _read_format(properties: Element | None) -> Format | None:
    element = None if properties is None else properties.child("Format")
    if element is None:
        return None
    name = next((each.name for each in element.elements), plain_text(element.content).strip())
    try:
        return Format(name)
    except ValueError:
        raise UnsupportedTnds("a Format nobody knows", line=element.line) from None


def _read_acl(properties: Element | None) -> Acl | None:
    text = _text(properties, "ACL")
    try:
        return None if text is None else Acl.parse(text)
    except MalformedAcl as exc:
        raise MalformedTnds(str(exc), line=properties.line if properties is not None else 0) from exc


def _read_value(element: Element, node_format: Format | None, media_type: str, interior: bool) -> str | bytes | None:
    value = element.child("Value")
    if value is None:
        return None
    data = user_data(value.content, node_format, media_type)
    if (interior or node_format is Format.NULL) and not data.strip():
        return None
    if node_format in _OCTETS and isinstance(data, str):
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError) as exc:
            raise MalformedTnds("a binary value that is no Base64", line=value.line) from exc
    return data
