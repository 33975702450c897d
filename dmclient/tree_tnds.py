"""Serialised sub-trees in Add and Replace, and objects that come through `./Inbox` (OMA-TS-DM_TNDS-V1_2).

All of a document becomes part of the transaction or nothing: a refusal leaves the work half done, and the caller rolls
back, as for every other command.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dmclient.nodes import Node, Path, TreeRefusal
from dmclient.objects.device import INBOX
from dmclient.tree_transaction import MAX_TITLE, Transaction
from dmclient.value_rules import Content
from syncml.codes import Format, StatusCode
from syncml.errors import MalformedUri
from syncml.tnds import MalformedTnds, Tnds, TndsNode, decode_tnds
from syncml.tree import AccessType, NodeUri, Scope

_EMPTY: dict[Format, str | bytes] = {
    Format.CHR: "",
    Format.XML: "",
    Format.BIN: b"",
    Format.B64: b"",
}  # values of a leaf whose document has none


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTnds:
    """What became of a document."""

    placed: tuple[Path, ...]  # the topmost nodes, where they are now
    skipped: tuple[str, ...] = ()  # identifiers of objects this device has no place for


def read_tnds(data: str | bytes | None) -> Tnds:
    """The document in an Item's Data.

    Raises:
        TreeRefusal: 412 there is none, 400 malformed, 413 too large, 415 of another version.
    """
    if not data:
        raise TreeRefusal(StatusCode.INCOMPLETE_COMMAND, "no serialised tree")
    try:
        return decode_tnds(data)
    except MalformedTnds as error:
        raise TreeRefusal(error.code, "the serialised tree does not decode") from error


def apply_tnds(transaction: Transaction, uri: str, tnds: Tnds, *, replacing: bool = False) -> AppliedTnds:
    """Create the nodes of a document below `uri`, or make the sub-tree at `uri` what the document says.

    A single top-level node without Path, and with no name or that of the target, is the target itself; all others
    stand below it. Into `./Inbox` goes what the device then puts where it keeps objects of that identifier.

    Raises:
        TreeRefusal: one of the nodes cannot be; the transaction is to be rolled back.
    """
    target = transaction.node_path(uri)
    if target[:1] == INBOX:
        if replacing:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "the Inbox takes objects by Add")
        return _into_inbox(transaction, target, tnds)
    nodes = dict(_placed(target, tnds))
    if replacing:
        _replace_subtree(transaction, target, nodes)
    else:
        _add_all(transaction, nodes)
    tops = tuple(path for path in nodes if path[:-1] not in nodes)
    return AppliedTnds(placed=tops)


def _placed(target: Path, tnds: Tnds) -> Iterator[tuple[Path, TndsNode]]:
    """Every node with its address, parents first."""
    alone = len(tnds.nodes) == 1
    for top in tnds.nodes:
        if alone and not top.path and target and top.name in ("", target[-1]):
            yield from _below(target, top)
            continue
        if not top.name:
            raise TreeRefusal(StatusCode.BAD_REQUEST, "a node without a name")
        yield from _below((*target, *_relative(top.path), top.name), top)


def _relative(path: str | None) -> Path:
    if not path or path in (".", "./"):
        return ()
    try:
        return NodeUri.parse(path).segments
    except MalformedUri as error:
        raise TreeRefusal(error.code, "malformed Path") from error


def _below(path: Path, node: TndsNode) -> Iterator[tuple[Path, TndsNode]]:
    yield path, node
    for child in node.children:
        if not child.name:
            raise TreeRefusal(StatusCode.BAD_REQUEST, "a node without a name")
        yield from _below((*path, child.name), child)


def _content(node: TndsNode) -> Content:
    if node.is_interior:
        return Content(format=Format.NODE.value, type=node.object_type or None)
    value = node.value if node.value is not None else _EMPTY.get(node.format or Format.CHR)
    return Content(
        format=None if node.format is None else node.format.value,
        type=node.type or None,
        value=None if node.format is Format.NULL else value,
    )


# -- Add ---------------------------------------------------------------------------------------------------------


def _add_all(transaction: Transaction, nodes: dict[Path, TndsNode]) -> None:
    for path, node in nodes.items():
        _create(transaction, path, node)
    _grant(transaction, nodes)


def _create(transaction: Transaction, path: Path, node: TndsNode) -> None:
    transaction.create(path, _content(node))
    if node.title is not None:
        if len(node.title.encode()) > MAX_TITLE:
            raise TreeRefusal(StatusCode.REQUEST_ENTITY_TOO_LARGE, "Title is limited to 255 octets")
        _set(transaction, path, replace(transaction.nodes[path], title=node.title))


def _grant(transaction: Transaction, nodes: dict[Path, TndsNode]) -> None:
    """ACLs, deepest first: a list that shuts its own author out must not keep what is below it from being made."""
    for path, node in reversed(nodes.items()):
        if node.acl is not None:
            transaction.require_acl_right(path)
            transaction.require_acl_size(str(node.acl))
            _set(transaction, path, replace(transaction.nodes[path], acl=node.acl or None))


def _set(transaction: Transaction, path: Path, node: Node) -> None:
    """Properties a node is born with: no change to be counted."""
    transaction.nodes.nodes[path] = node


# -- Replace -----------------------------------------------------------------------------------------------------


def _replace_subtree(transaction: Transaction, target: Path, nodes: dict[Path, TndsNode]) -> None:
    """Afterwards the sub-tree is the document: what is not in it goes, the rest is made or overwritten.

    Each step needs the right that the single command would need. Permanent nodes stay, so a document without them
    cannot become the sub-tree (405).
    """
    root = transaction.existing(target)
    transaction.require_access(root, AccessType.REPLACE)
    transaction.require_right(target, AccessType.REPLACE)
    wanted = {path[:length] for path in nodes for length in range(len(target), len(path) + 1)}
    _discard_others(transaction, target, wanted, nodes)
    for path, node in nodes.items():
        present = transaction.nodes.get(path)
        if present is None:
            _create(transaction, path, node)
        else:
            _overwrite(transaction, path, present, node, is_target=path == target)
    _grant(transaction, nodes)


def _discard_others(transaction: Transaction, target: Path, wanted: set[Path], nodes: dict[Path, TndsNode]) -> None:
    going: list[Path] = []
    for path in transaction.nodes.subtree(target):
        other_kind = path in nodes and path != target and nodes[path].is_interior != transaction.nodes[path].is_interior
        if path in wanted and not other_kind:
            continue
        if transaction.nodes[path].scope is Scope.PERMANENT:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "a permanent node")
        if not going or path[: len(going[-1])] != going[-1]:
            transaction.require_right(path, AccessType.DELETE)
            going.append(path)
    for path in going:
        if path in transaction.nodes:
            transaction.discard(path)


def _overwrite(transaction: Transaction, path: Path, present: Node, node: TndsNode, *, is_target: bool) -> None:
    content = _content(node)
    if node.is_interior != present.is_interior:
        raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "a leaf does not become an interior node, nor back")
    if node.is_interior:
        place = transaction.tree.place(path)
        fixed = place is None or bool(place.object_type)
        if node.object_type and node.object_type != present.type:
            if fixed:
                raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "another object belongs here")
            transaction.nodes.change(path, type=node.object_type)
    elif (node.value, node.format or present.format, node.type or present.type) != (
        present.value if present.format is not Format.NULL else None,
        present.format,
        present.type,
    ):
        transaction.overwrite(path, content)
    if node.title is not None and node.title != present.title:
        transaction.require_right(path, AccessType.REPLACE)
        transaction.replace_title(path, node.title)
    if not is_target and node.acl is None and present.acl is not None:
        transaction.require_acl_right(path)  # a node made anew inherits
        transaction.nodes.change(path, acl=None)


# -- the Inbox ---------------------------------------------------------------------------------------------------


def _into_inbox(transaction: Transaction, target: Path, tnds: Tnds) -> AppliedTnds:
    """Objects found by their identifier (OMA-TS-DM_StdObj-V1_2 §5.3.6); unknown ones are passed over.

    The device chooses names that are free, and corrects references between the objects of one document. Of one object
    in several versions the newest that the device knows is taken (OMA-TS-DM_Bootstrap-V1_2 §5.4).
    """
    if len(target) > 2:
        raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "objects stand directly in the Inbox")
    transaction.require_right(INBOX, AccessType.ADD)
    known = [top for top in tnds.nodes if transaction.tree.home_of(top.object_type) is not None]
    newest: dict[str, tuple[int, ...]] = {}
    for top in known:
        name, version = _version(top.object_type)
        newest[name] = max(newest.get(name, ()), version)
    taken = [top for top in known if _version(top.object_type)[1] == newest[_version(top.object_type)[0]]]
    if not taken:
        raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "no object that this device has a place for")
    roots: list[tuple[Path, TndsNode]] = []
    moved: dict[str, str] = {}
    for top in taken:
        wanted = top.name or (target[1] if len(target) == 2 else "")
        path = _free_place(transaction, top, wanted, [each for each, _ in roots])
        place = transaction.tree.place(path)
        # The device knows the object by that identifier, its own description may have a newer one.
        own_type = place.object_type if place is not None and place.object_type else top.object_type
        roots.append((path, replace(top, object_type=own_type)))
        if wanted:
            moved[str(NodeUri((*INBOX, wanted)))] = str(NodeUri(path))
    nodes = {path: _relinked(node, moved) for root, top in roots for path, node in _below(root, top)}
    _add_all(transaction, nodes)
    skipped = tuple(top.object_type for top in tnds.nodes if top not in taken)
    return AppliedTnds(placed=tuple(path for path, _ in roots), skipped=skipped)


def _version(object_type: str) -> tuple[str, tuple[int, ...]]:
    """An identifier without its version, and the version: `urn:oma:mo:oma-fumo:1.0` is version 1.0 of FUMO."""
    name, _, version = object_type.rpartition(":")
    parts = version.split(".")
    if not name or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        return object_type, ()
    return name, tuple(map(int, parts))


def _free_place(transaction: Transaction, top: TndsNode, wanted: str, taken: list[Path]) -> Path:
    home = transaction.tree.home_of(top.object_type) or ()
    name, number = wanted or "1", 1
    while (*home, name) in transaction.nodes or (*home, name) in taken:
        number += 1
        name = f"{wanted}{number}"
    return (*home, name)


def _relinked(node: TndsNode, moved: dict[str, str]) -> TndsNode:
    """References `./Inbox/<object>…` of one object to another name its real place."""
    if not isinstance(node.value, str):
        return node
    for old, new in moved.items():
        if node.value == old or node.value.startswith(old + "/"):
            return replace(node, value=new + node.value[len(old) :])
    return node
