"""The management tree of the device (OMA-TS-DM_TND-V1_2): places, live nodes, and what survives a restart.

What commands may do to it stands in `dmclient.tree_transaction`, and only there. This module knows which
management objects are mounted where, asks live nodes for their values, and turns the tree into plain data and back.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from dmclient.nodes import ALL_ACCESS, ROOT, Node, NodeMap, Path, Value
from syncml.codes import Format
from syncml.tree import AccessType, Acl, Scope, UriLimits

if TYPE_CHECKING:
    from mo_definitions import Ddf, DdfNode

WILDCARD: Final = "*"
ROOT_ACL: Final = "Add=*&Get=*"  # the default the specification recommends (OMA-TS-DM_TND-V1_2 §7.7.1.2)


DEFAULT_LIMITS: Final = UriLimits(max_depth=16, max_total_length=255, max_segment_length=64)
"""What this device can address; also readable below DevDetail/URI."""

MAX_NODES: Final = 4096  # nodes in the whole tree, so that a server cannot fill the device
MAX_STORED: Final = 16 * 1024 * 1024  # characters and octets of all values, for the same reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """An Exec on its way to the node's own code."""

    path: Path
    server_id: str
    correlator: str | None
    argument: Value | None = field(default=None, repr=False)


class UndoFailed(Exception):
    """What a command did outside the tree cannot be taken back."""


class TreeChanged(Exception):
    """The device changed its tree while a transaction was open, which therefore cannot become the tree any more."""


Undo: TypeAlias = Callable[[], None]
"""Takes an effect back; raises `UndoFailed` when that is not possible any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the device does by itself at a node. All may raise `TreeRefusal`; what they raise undoes the command.

    `added`, `replaced` and `deleting` work on the tree of the transaction under way, so that an Atomic that fails
    takes their changes back too. `effect` acts on the world after an Add or Replace and says how to take that back.
    `execute` acts on the world and cannot be taken back; no Atomic can hold it.
    """

    read: Callable[[], Value | None] | None = None  # value now; None: there is no such node at the moment
    added: Callable[[NodeMap, Path], None] | None = None
    replaced: Callable[[NodeMap, Path], None] | None = None
    deleting: Callable[[NodeMap, Path], None] | None = None
    effect: Callable[[NodeMap, Path], Undo] | None = None
    execute: Callable[[NodeMap, ExecRequest], int] | None = None  # returns the Status code


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the device description says about an address; a node need not be there."""

    access: frozenset[AccessType] = ALL_ACCESS
    format: Format | None = None  # None: any
    types: tuple[str, ...] = ()  # media types of a leaf; empty: any
    object_type: str = ""  # management object identifier of an interior node
    scope: Scope = Scope.DYNAMIC
    named: bool = False  # the description fixes the name: such a node cannot be renamed
    maximum: int | None = None  # nodes of this kind below one parent; None: no limit


FREE_PLACE: Final = Place()
NO_HOOKS: Final = Hooks()


class ManagementTree:
    """The device's tree. One transaction at a time; the device's own changes go through `nodes`."""

    def __init__(self, *, now: Callable[[], datetime], limits: UriLimits = DEFAULT_LIMITS) -> None:
        self.now = now
        self.limits = limits
        self.nodes = NodeMap(now)
        self.nodes.create(
            ROOT,
            Node(
                format=Format.NODE,
                acl=Acl.parse(ROOT_ACL),
                access=frozenset({AccessType.GET, AccessType.ADD}),
                scope=Scope.PERMANENT,
                built_in=True,
            ),
        )
        self._mounts: dict[Path, Ddf] = {}
        self._free: list[Path] = []
        self._hooks: dict[Path, Hooks] = {}
        self._base: tuple[NodeMap, int] | None = None  # what the open transaction began with
        self._homes: dict[str, Path] = {}

    # -- set-up ---------------------------------------------------------------------------------------------------

    def mount(self, path: Path, ddf: Ddf) -> None:
        """Say that a management object of this description lives at `path`."""
        self._mounts[path] = ddf

    def mounted(self, path: Path) -> Ddf | None:
        """The description of the object that lives at `path`."""
        return self._mounts.get(path)

    def keep_objects(self, object_type: str, parent: Path) -> None:
        """Say where the device puts objects of that identifier that come through `./Inbox`."""
        self._homes[object_type] = parent

    def home_of(self, object_type: str) -> Path | None:
        """Parent of the objects of that identifier; None: this device has no place for them."""
        return self._homes.get(object_type)

    def free_area(self, path: Path) -> None:
        """Make an interior node below which a server may create whatever it wants."""
        self._free.append(path)
        self.nodes.create(
            path,
            Node(
                format=Format.NODE,
                access=frozenset({AccessType.GET, AccessType.ADD, AccessType.REPLACE}),
                scope=Scope.PERMANENT,
                built_in=True,
            ),
        )

    def hook(self, pattern: Path, hooks: Hooks) -> None:
        """Attach the device's own code to the nodes of that address; a segment `*` stands for any name."""
        self._hooks[pattern] = hooks

    def place(self, path: Path) -> Place | None:
        """What the device description says of an address; None: nothing of that name can be there."""
        for area in self._free:
            if len(path) > len(area) and path[: len(area)] == area:
                return FREE_PLACE
        for length in range(len(path), -1, -1):
            ddf = self._mounts.get(path[:length])
            if ddf is not None:
                definition = ddf.node_for(path[length:])
                return None if definition is None else _place_of(definition)
        return None

    def built_in(self, path: Path, value: Value = "", *, stored: bool = False) -> None:
        """Create a node that the device itself brings along, as its description says.

        `stored` says that what the node held last comes back at the next start.
        """
        self.nodes.create(path, replace(self.described(path), value=value, built_in=True, stored=stored))

    def described(self, path: Path) -> Node:
        """An empty node as the description has it there, for the device's own use.

        Raises:
            KeyError: the description has no such node; that is a mistake in this package.
        """
        place = self.place(path)
        if place is None or place.format is None:
            raise KeyError("/".join(path))
        leaf_type = place.types[0] if place.types else "text/plain"
        return Node(
            format=place.format,
            type=place.object_type if place.format is Format.NODE else leaf_type,
            value=b"" if place.format is Format.BIN else "",
            access=place.access,
            scope=place.scope,
        )

    # -- reading --------------------------------------------------------------------------------------------------

    def hooks_of(self, path: Path) -> Hooks:
        """The device's code at an address."""
        exact = self._hooks.get(path)
        if exact is not None:
            return exact
        for pattern, hooks in self._hooks.items():
            if len(pattern) == len(path) and all(
                want in (WILDCARD, got) for want, got in zip(pattern, path, strict=True)
            ):
                return hooks
        return NO_HOOKS

    def current(self, nodes: NodeMap, path: Path) -> Node | None:
        """The node with its value of now; None when there is none, or a live node has nothing to show.

        A live value that is not the one last seen counts as a change by the device: VerNo and TStamp follow.
        """
        node = nodes.get(path)
        if node is None:
            return None
        read = self.hooks_of(path).read
        if read is None:
            return node
        value = read()
        if value is None:
            return None
        if value != node.value:
            nodes.change(path, value=value)
        return nodes[path]

    def child_names(self, nodes: NodeMap, path: Path) -> list[str]:
        """Names of the children that are there now."""
        return [name for name in nodes.children(path) if self.current(nodes, (*path, name)) is not None]

    # -- transactions ---------------------------------------------------------------------------------------------

    def check_out(self) -> NodeMap:
        """A copy to work on; `check_in` ends what this begins.

        Raises:
            RuntimeError: another copy is still out; that is a mistake in this package.
        """
        if self._base is not None:
            raise RuntimeError("a transaction is open already")
        self._base = (self.nodes, self.nodes.revision)
        return self.nodes.copy()

    def check_in(self, nodes: NodeMap | None) -> None:
        """End a transaction: `nodes` is the tree from now on, None leaves everything as it was.

        Raises:
            TreeChanged: an account came in by bootstrap, say, while a user was being asked; `nodes` is dropped.
        """
        base, self._base = self._base, None
        if nodes is None:
            return
        if base is not None and (self.nodes is not base[0] or self.nodes.revision != base[1]):
            raise TreeChanged
        self.nodes = nodes

    # -- accounts and persistence ----------------------------------------------------------------------------------

    def forget_server(self, server_id: str, nodes: NodeMap | None = None) -> None:
        """Take a server that lost its account out of every ACL (OMA-TS-DM_TND-V1_2 §7.7.1.4), of the tree itself or of
        the `nodes` of a transaction."""
        nodes = self.nodes if nodes is None else nodes
        for path in nodes.subtree(ROOT):
            acl = nodes[path].acl
            if acl is None:
                continue
            left = acl.without(server_id)
            if left != acl:
                keep = left if left else (Acl.parse(ROOT_ACL) if path == ROOT else None)
                nodes.change(path, acl=keep)

    def dump(self) -> list[dict[str, Any]]:
        """The tree as plain JSON data; values that the device knows anyway at its next start are left out."""
        return [_dump_node(path, node) for path, node in self.nodes.nodes.items()]

    def restore(self, entries: list[dict[str, Any]]) -> None:
        """Lay what `dump` gave over the built-in nodes.

        Built-in nodes take their properties back and keep the value the device gave them at start; others are
        created, as long as their place still exists in the description.

        Raises:
            ValueError: the data are not what `dump` writes.
        """
        for entry in entries:
            try:
                path, node = _load_node(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError("not a dumped tree") from error
            present = self.nodes.get(path)
            if present is not None:
                self.nodes.nodes[path] = replace(
                    present,
                    acl=node.acl,
                    title=node.title,
                    t_stamp=node.t_stamp,
                    ver_no=node.ver_no,
                    value=node.value if present.stored else present.value,
                )
            elif not entry["builtIn"] and path[:-1] in self.nodes:
                place = self.place(path)
                if place is not None:
                    self.nodes.create(path, replace(node, access=place.access, scope=place.scope))

    def facts(self, mount: Path) -> Mapping[Path, Node]:
        """The nodes of one management object by address relative to its root, live ones with their value of now."""
        found: dict[Path, Node] = {}
        for path in self.nodes.subtree(mount):
            node = self.current(self.nodes, path)
            if node is not None:
                found[path[len(mount) :]] = node
        return found


def _place_of(definition: DdfNode) -> Place:
    return Place(
        access=definition.access,
        format=definition.format,
        types=definition.types,
        object_type=definition.object_type,
        scope=definition.scope,
        named=bool(definition.name),
        maximum=definition.occurrence.maximum,
    )


def _dump_node(path: Path, node: Node) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "path": list(path),
        "format": node.format.value,
        "type": node.type,
        "acl": None if node.acl is None else str(node.acl),
        "title": node.title,
        "tStamp": None if node.t_stamp is None else node.t_stamp.isoformat(),
        "verNo": node.ver_no,
        "builtIn": node.built_in,
    }
    if node.stored or not node.built_in:
        if isinstance(node.value, bytes):
            entry["octets"] = base64.b64encode(node.value).decode()
        else:
            entry["text"] = node.value
    return entry


def _load_node(entry: dict[str, Any]) -> tuple[Path, Node]:
    value: Value = base64.b64decode(entry["octets"]) if "octets" in entry else entry.get("text", "")
    stamp = entry["tStamp"]
    acl = entry["acl"]
    node = Node(
        format=Format(entry["format"]),
        type=entry["type"],
        value=value,
        acl=None if acl is None else Acl.parse(acl),
        title=entry["title"],
        t_stamp=None if stamp is None else datetime.fromisoformat(stamp).astimezone(UTC),
        ver_no=entry["verNo"],
        built_in=entry["builtIn"],
    )
    return tuple(entry["path"]), node
