"""Nodes of the device's management tree as values, and the map that holds them.

A node's address is a `Path`: the decoded segments below the root, `()` being the root itself. Values are kept the
way properties describe them: text for every textual format (an `int` is its decimal text), octets for `bin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeAlias

from syncml.codes import Format
from syncml.tree import AccessType, Acl, Scope

Path: TypeAlias = tuple[str, ...]
Value: TypeAlias = str | bytes

ROOT: Final[Path] = ()
VER_NO_MODULUS: Final = 0x10000  # VerNo is 16 bit: FFFF is followed by 0000 (OMA-TS-DM_TND-V1_2 §7.7.8)
ALL_ACCESS: Final = frozenset(AccessType)


class TreeRefusal(Exception):
    """The tree does not do what a command asks; `code` is the Status of that command or item.

    `ancestor` names the interior node whose implicit creation failed, None when the target itself is meant.
    """

    def __init__(self, code: int, reason: str, *, ancestor: Path | None = None) -> None:
        super().__init__(reason)
        self.code = int(code)
        self.ancestor = ancestor


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node with its run-time properties (OMA-TS-DM_TND-V1_2 §7.7); its Name is the last path segment."""

    format: Format
    type: str = ""  # leaf: media type; interior: MO identifier or empty
    value: Value = field(default="", repr=False)  # may be a secret; empty for interior and null nodes
    acl: Acl | None = None  # None: inherits
    title: str = ""
    t_stamp: datetime | None = None  # UTC
    ver_no: int = 0
    access: frozenset[AccessType] = ALL_ACCESS
    scope: Scope = Scope.DYNAMIC
    built_in: bool = False  # made by the device at every start
    stored: bool = False  # built in, but its value comes back from the state file all the same

    @property
    def is_interior(self) -> bool:
        """Whether the node can have children."""
        return self.format is Format.NODE

    @property
    def size(self) -> int:
        """Octets of the decoded value (property Size)."""
        return len(self.value) if isinstance(self.value, bytes) else len(self.value.encode())


class NodeMap:
    """The nodes of one tree state. Copies are cheap (the nodes are shared), which makes transactions simple.

    The methods here are the device's own way to change its tree: no rights are asked, properties are kept.
    """

    def __init__(self, now: Callable[[], datetime], nodes: dict[Path, Node] | None = None) -> None:
        self._now = now
        self.nodes: dict[Path, Node] = {} if nodes is None else nodes
        self.revision = 0  # changes made to this map so far

    def copy(self) -> NodeMap:
        """An independent map with the same nodes."""
        return NodeMap(self._now, dict(self.nodes))

    def __contains__(self, path: Path) -> bool:
        return path in self.nodes

    def __getitem__(self, path: Path) -> Node:
        return self.nodes[path]

    def get(self, path: Path) -> Node | None:
        """The node there, None when there is none."""
        return self.nodes.get(path)

    def value(self, path: Path) -> Value | None:
        """The value of the leaf there, None when there is no node."""
        node = self.nodes.get(path)
        return None if node is None else node.value

    def text(self, path: Path) -> str:
        """The text of the leaf there, empty when there is no node or no text."""
        value = self.value(path)
        return value if isinstance(value, str) else ""

    def children(self, path: Path) -> list[str]:
        """Names of the nodes directly below, in the order of their creation."""
        depth = len(path)
        return [each[-1] for each in self.nodes if len(each) == depth + 1 and each[:depth] == path]

    def subtree(self, path: Path) -> Iterator[Path]:
        """The node and everything below it."""
        depth = len(path)
        return (each for each in list(self.nodes) if each[:depth] == path)

    def create(self, path: Path, node: Node) -> None:
        """Put a node at a free place."""
        self.revision += 1
        self.nodes[path] = node if node.t_stamp is not None else replace(node, t_stamp=self._now())

    def change(self, path: Path, **properties: object) -> None:
        """Change properties or the value of a node; VerNo and TStamp follow (OMA-TS-DM_TND-V1_2 §7.7.7, §7.7.8)."""
        self.revision += 1
        node = self.nodes[path]
        changed = replace(node, **properties)  # type: ignore[arg-type]  # keys are field names of Node
        self.nodes[path] = replace(changed, t_stamp=self._now(), ver_no=(node.ver_no + 1) % VER_NO_MODULUS)

    def put(self, path: Path, value: Value, *, like: Node) -> None:
        """Set the value of a leaf, creating it `like` the node given when it is not there."""
        present = self.nodes.get(path)
        if present is None:
            self.create(path, replace(like, value=value))
        elif present.value != value:
            self.change(path, value=value)

    def remove(self, path: Path) -> None:
        """Take a node and everything below it away; nothing happens when there is none."""
        self.revision += 1
        for each in self.subtree(path):
            del self.nodes[each]

    def move(self, old: Path, new: Path) -> None:
        """Give a sub-tree another address."""
        self.revision += 1
        moved: dict[Path, Node] = {}
        for path, node in self.nodes.items():
            moved[new + path[len(old) :] if path[: len(old)] == old else path] = node
        self.nodes = moved
