"""Objects that a simulated device has because a device description (DDF) says so.

Nodes of the description that must be there are made with their defaults; a server may do to them what AccessType and
ACL allow. Permanent nodes come back at every start with the value they had last, dynamic ones live in the state file
alone, so that one a server deleted stays deleted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from dmclient.management_tree import MAX_NODES, ExecRequest, Hooks, ManagementTree
from dmclient.nodes import ROOT, Node, NodeMap, Path, Value
from mo_definitions import Ddf, DdfNode, Occurrence
from syncml.codes import Format, StatusCode
from syncml.tree import AccessType, Acl, NodeUri, Scope

EVERYBODY: Final = "Add=*&Delete=*&Exec=*&Get=*&Replace=*"
"""Default ACL of a described object: a device for tests hides nothing."""

_EMPTY: Final[dict[Format, Value]] = {
    Format.BIN: b"",
    Format.B64: b"",
    Format.BOOL: "false",
    Format.INT: "0",
    Format.FLOAT: "0",
    Format.DATE: "19700101",
    Format.TIME: "000000",
}


class DescriptionConflict(Exception):
    """Two descriptions of one address, or more nodes than the device holds."""


class DescribedObjects:
    """Mounts descriptions in a tree."""

    def __init__(self, tree: ManagementTree, ddfs: Iterable[Ddf], *, acl: str = EVERYBODY) -> None:
        self._tree = tree
        self._acl = Acl.parse(acl)
        self._new: list[tuple[Path, DdfNode]] = []  # dynamic nodes of a device that was never switched on
        self.passed_over: list[str] = []  # addresses that the device describes itself
        self.roots: list[str] = []
        self.known: list[str] = []  # roots whose dynamic nodes were made in an earlier run
        for ddf in ddfs:
            self._mount(ddf)

    def _mount(self, ddf: Ddf) -> None:
        parent = NodeUri.parse(ddf.path or ".").segments
        path = (*parent, ddf.root.name) if ddf.root.name else parent
        if self._tree.mounted(path) is not None or path == ROOT:
            if str(NodeUri(path)) in self.roots or path == ROOT:
                raise DescriptionConflict(f"two objects at {NodeUri(path)}")
            self.passed_over.append(str(NodeUri(path)))
            return
        for length in range(1, len(parent) + 1):
            self._interior(parent[:length])
        if ddf.root.name:
            self._tree.mount(path, ddf)
        else:
            self._tree.mount(path, replace(ddf, root=_parent_of(path[-1], ddf.root)))
        self.roots.append(str(NodeUri(path)))
        if ddf.root.object_type and not ddf.root.name:
            self._tree.keep_objects(ddf.root.object_type, parent)
        if ddf.root.name:
            self._build(path, ddf.root)
        else:
            self._tree.nodes.nodes[path] = replace(self._tree.nodes[path], acl=self._acl, access=_READ_AND_ADD)
        self._hook_executables(path, ddf)

    def _interior(self, path: Path) -> None:
        """A node above an object that no description speaks of."""
        if path not in self._tree.nodes:
            self._create(path, Node(format=Format.NODE, access=_READ_AND_ADD, scope=Scope.PERMANENT, built_in=True))

    def _build(self, path: Path, definition: DdfNode) -> None:
        """A node and what must be below it."""
        permanent = definition.scope is Scope.PERMANENT
        if not (permanent or definition.occurrence.minimum):
            return
        if permanent and path[:-1] in self._tree.nodes:
            node = replace(_initial(definition), built_in=True, stored=True)
            self._create(path, node)
        else:
            self._new.append((path, definition))
        if str(NodeUri(path)) in self.roots and path in self._tree.nodes:
            self._tree.nodes.nodes[path] = replace(self._tree.nodes[path], acl=self._acl)
        for child in definition.children:
            if child.name:
                self._build((*path, child.name), child)

    def _create(self, path: Path, node: Node) -> None:
        if len(self._tree.nodes.nodes) >= MAX_NODES:
            raise DescriptionConflict(f"more than {MAX_NODES} nodes")
        self._tree.nodes.create(path, node)

    def _hook_executables(self, path: Path, ddf: Ddf) -> None:
        for below, definition in ddf.walk():
            if AccessType.EXEC in definition.access:
                unnamed = tuple(name or "*" for name in (below if ddf.root.name else ("", *below)))
                self._tree.hook((*path, *unnamed), Hooks(execute=_nothing_to_do))

    def complete(self) -> None:
        """After the state was restored: make the dynamic nodes of objects that this device did not have before."""
        for path, definition in self._new:
            root = next(root for root in self.roots if NodeUri(path).is_below(NodeUri.parse(root)))
            if root in self.known or path in self._tree.nodes or path[:-1] not in self._tree.nodes:
                continue
            self._create(path, _initial(definition))
            if str(NodeUri(path)) == root:
                self._tree.nodes.nodes[path] = replace(self._tree.nodes[path], acl=self._acl)
        self.known = sorted({*self.known, *self.roots})


_READ_AND_ADD: Final = frozenset({AccessType.GET, AccessType.ADD})


def _parent_of(name: str, root: DdfNode) -> DdfNode:
    """The description of an object without a name of its own, as the child of the node it stands below."""
    return DdfNode(
        name=name,
        access=_READ_AND_ADD,
        format=Format.NODE,
        scope=Scope.PERMANENT,
        occurrence=Occurrence(),
        children=(root,),
    )


def _initial(definition: DdfNode) -> Node:
    leaf_type = definition.types[0] if definition.types else "text/plain"
    value: Value = "" if definition.is_interior else _EMPTY.get(definition.format, "")
    if definition.default is not None:
        value = definition.default
        if definition.format in (Format.BIN, Format.B64):
            value = _octets(definition.default)
    return Node(
        format=definition.format,
        type=definition.object_type if definition.is_interior else leaf_type,
        value=value,
        access=definition.access,
        scope=definition.scope,
        title=definition.title if len(definition.title.encode()) <= 255 else "",
    )


def _octets(text: str) -> bytes:
    """A default of a binary leaf: Base64, as values in XML are, or else the text itself."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return text.encode()


def _nothing_to_do(nodes: NodeMap, request: ExecRequest) -> int:
    """A simulated device has nothing behind its nodes: an Exec is done at once, unless the behaviour file says more."""
    return StatusCode.OK
