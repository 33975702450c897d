"""`?list=` of a Get: parts of the tree in one answer (OMA-TS-DM_RepPro-V1_2 §6.6.7, OMA-TS-DM_TNDS-V1_2).

A server sees the nodes that the ACL lets it Get. Where a node's description has no Get (secrets, Exec targets), the
node is listed and its value and Size are not.
"""

from __future__ import annotations

from dataclasses import replace

from dmclient.nodes import Node, Path, TreeRefusal
from dmclient.objects.device import INBOX
from dmclient.tree_transaction import Transaction, property_text
from syncml.codes import Format, MediaType, StatusCode
from syncml.encoding import Encoding
from syncml.errors import LocalProtocolError, MalformedUri
from syncml.list_query import ListKind, ListProperty, ListQuery, UnsupportedList
from syncml.model import Item, Meta
from syncml.tnds import Tnds, TndsNode, encode_tnds
from syncml.tree import AccessType, NodeUri, PropertyName, QueryKind, split_query
from syncml.values import leaf_item

_TNDS_FORMS = {
    Encoding.XML: (Format.XML, MediaType.TNDS_XML),
    Encoding.WBXML: (Format.BIN, MediaType.TNDS_WBXML),
}


def is_list(uri: str) -> bool:
    """Whether a Get of that URI asks for more than one node."""
    try:
        _, query = split_query(uri)
    except MalformedUri:
        return False
    return query is not None and query.kind is QueryKind.LIST


def list_tree(transaction: Transaction, uri: str, encoding: Encoding) -> tuple[Item, ...]:
    """The Items of the Results; a serialised tree is written in the encoding of the session.

    Raises:
        TreeRefusal: 404, 405, 425 for the first node, 406 for a list nobody defined.
    """
    address, _, query = uri.partition("?")
    try:
        asked = ListQuery.parse(query.partition("=")[2])
    except UnsupportedList as error:
        raise TreeRefusal(error.code, "a list nobody defined") from error
    start = transaction.readable(address)
    found = _visible(transaction, start)
    if asked.kind is ListKind.TNDS:
        return (_serialised(transaction, start, found, asked.properties, encoding),)
    return tuple(_item(path, node, data=asked.kind is ListKind.STRUCT_DATA) for path, node in found.items())


def _visible(transaction: Transaction, start: Path) -> dict[Path, Node]:
    """Nodes the server may Get, with their values of now, parents first."""
    found: dict[Path, Node] = {}
    for path in transaction.nodes.subtree(start):
        if path[:1] == INBOX or not transaction.allowed(path, AccessType.GET):
            continue
        node = transaction.tree.current(transaction.nodes, path)
        if node is not None:
            found[path] = node
    return found


def _item(path: Path, node: Node, *, data: bool) -> Item:
    """One node; Meta has what is not the default."""
    uri = str(NodeUri(path))
    if node.is_interior:
        return Item(source=uri, meta=Meta(format=Format.NODE, type=node.type or None))
    value = node.value if data and AccessType.GET in node.access and node.format is not Format.NULL else None
    found = leaf_item(uri, value, format=node.format, type=node.type or MediaType.TEXT)
    meta = Meta(
        format=None if node.format is Format.CHR else node.format,
        type=None if node.type in ("", MediaType.TEXT) else node.type,
    )
    return replace(found, target=None, source=uri, meta=None if meta == Meta() else meta)


def _serialised(
    transaction: Transaction,
    start: Path,
    found: dict[Path, Node],
    properties: frozenset[ListProperty],
    encoding: Encoding,
) -> Item:
    children: dict[Path, list[Path]] = {}
    for path in found:
        if path != start:
            children.setdefault(path[:-1], []).append(path)

    def made(path: Path) -> TndsNode:
        return _tnds_node(path, found[path], properties, tuple(made(each) for each in children.get(path, ())))

    try:
        data = encode_tnds(Tnds((made(start),)), encoding)
    except LocalProtocolError as error:  # a text that this encoding has no way to carry
        raise TreeRefusal(StatusCode.COMMAND_FAILED, "the sub-tree cannot be written") from error
    node_format, media_type = _TNDS_FORMS[encoding]
    return Item(source=str(NodeUri(start)), meta=Meta(format=node_format, type=media_type), data=data)


def _tnds_node(path: Path, node: Node, properties: frozenset[ListProperty], children: tuple[TndsNode, ...]) -> TndsNode:
    readable = AccessType.GET in node.access
    has_value = readable and not node.is_interior and node.format is not Format.NULL

    def text(name: PropertyName) -> str | None:
        return property_text(name, path, node) if name.value in properties else None

    return TndsNode(
        name=path[-1] if path else "",
        format=node.format if ListProperty.FORMAT in properties else None,
        type=node.type if ListProperty.TYPE in properties and not node.is_interior else "",
        object_type=node.type if ListProperty.TYPE in properties and node.is_interior else "",
        value=node.value if ListProperty.VALUE in properties and has_value else None,
        acl=node.acl if ListProperty.ACL in properties else None,
        title=text(PropertyName.TITLE) or None,
        size=text(PropertyName.SIZE) if readable else None,
        t_stamp=text(PropertyName.T_STAMP),
        ver_no=text(PropertyName.VER_NO),
        children=children,
    )
