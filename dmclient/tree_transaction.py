"""What a server's commands may do to the tree: every check of the device stands here.

Order of the checks, the same for all commands (OMA-TS-DM_TND-V1_2 §6 to §8, OMA-TS-DM_RepPro-V1_2 §6):
address (404, 414), property or list request (405, 406), existence (404), device description (405), ACL (425),
contents (412, 413, 415, 418), the node's own code (whatever it says). The description comes before the ACL because
what nobody may do is no matter of rights: a write-only node answers 405 to every server alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from dmclient.management_tree import (
    MAX_NODES,
    MAX_STORED,
    ExecRequest,
    ManagementTree,
    Place,
    TreeChanged,
    Undo,
    UndoFailed,
)
from dmclient.nodes import ROOT, Node, Path, TreeRefusal, Value
from dmclient.objects.device import INBOX
from dmclient.value_rules import Content, node_from
from syncml.codes import Format, MediaType, StatusCode
from syncml.errors import LocalProtocolError, MalformedAcl, MalformedUri
from syncml.tree import AccessType, Acl, NodeUri, PropertyName, QueryKind, Scope, UriTooLong, split_query

MAX_TITLE: Final = 255  # octets (OMA-TS-DM_TND-V1_2 §7.7.6)
MAX_ACL: Final = 4096  # characters; ours
WRITABLE_PROPERTIES: Final = frozenset({PropertyName.ACL, PropertyName.NAME, PropertyName.TITLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a Get found."""

    format: Format
    type: str
    value: Value = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Address:
    path: Path
    prop: PropertyName | None


class Transaction:
    """A piece of work of one server on the tree: all of it becomes the tree, or nothing.

    Without a server (`server_id` None) it is the device that works, on a bootstrap for instance: no ACL is asked, none
    is made, and nodes may be added where the description lets no server add one.

    Every method raises `TreeRefusal` with the Status code when the command is not to be done; the work done before
    stays in the transaction, so that the caller decides between `commit` and `rollback`.
    """

    def __init__(self, tree: ManagementTree, server_id: str | None) -> None:
        self.tree = tree
        self.server_id = server_id
        self.nodes = tree.check_out()
        self._room: int | None = None  # characters and octets that values may still grow by; None: not counted yet
        self.effects: list[tuple[Path, Undo]] = []  # what was done outside the tree, in the order it was done

    def commit(self) -> None:
        """Make the work the device's tree.

        Raises:
            TreeChanged: the tree is not any more what the work began with; it is dropped, effects are taken back.
        """
        try:
            self.tree.check_in(self.nodes)
        except TreeChanged:
            self._take_back()
            raise

    def rollback(self) -> frozenset[int]:
        """Drop the work: the tree is what it was, except for what cannot be taken back.

        Returns which of `effects` stayed. The tree tells the truth about them: their nodes keep the value that the
        world has taken over.
        """
        self.tree.check_in(None)
        return self._take_back()

    def _take_back(self) -> frozenset[int]:
        stayed = set()
        for index in range(len(self.effects) - 1, -1, -1):
            path, undo = self.effects[index]
            try:
                undo()
            except UndoFailed:
                stayed.add(index)
        for index in sorted(stayed):
            path, _ = self.effects[index]
            node = self.nodes.get(path)
            if node is not None and path[:-1] in self.tree.nodes:
                self.tree.nodes.nodes[path] = node
        return frozenset(stayed)

    # -- commands -------------------------------------------------------------------------------------------------

    def get(self, uri: str) -> Answer:
        """Value of a leaf, child names of an interior node, or a property (OMA-TS-DM_RepPro-V1_2 §6.6.7)."""
        address = self._address(uri)
        if address.prop is not None:
            return self._get_property(address.path, address.prop)
        node = self.nodes[self._readable(address.path)]
        if node.is_interior:
            names = self.tree.child_names(self.nodes, address.path)
            return Answer(format=Format.NODE, type=MediaType.TEXT.value, value="/".join(map(_escaped, names)))
        return Answer(format=node.format, type=node.type or MediaType.TEXT.value, value=node.value)

    def readable(self, uri: str) -> Path:
        """The node of that address, if the server may Get it."""
        return self._readable(self.node_path(uri))

    def _readable(self, path: Path) -> Path:
        self._refuse_inbox(path)
        self.require_access(self.existing(path), AccessType.GET)
        self.require_right(path, AccessType.GET)
        return path

    def _refuse_inbox(self, path: Path) -> None:
        if path[:1] == INBOX:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "the Inbox cannot be read")

    def add(self, uri: str, content: Content) -> None:
        """Create a node, and its missing ancestors (OMA-TS-DM_RepPro-V1_2 §6.6.1; implicit creation is optional)."""
        address = self._address(uri)
        if address.prop is not None:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "properties cannot be added")
        self.create(address.path, content)

    def create(self, path: Path, content: Content) -> None:
        """What `add` does once the address is known."""
        if path == ROOT:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "the root is there already")
        self._require_within_limits(path)
        parent = path[:-1]
        while parent not in self.nodes:
            parent = parent[:-1]
        if not self.nodes[parent].is_interior:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "a leaf has no children")
        place = self._addable(path)
        self.require_right(parent, AccessType.ADD)
        if path in self.nodes:
            raise TreeRefusal(StatusCode.ALREADY_EXISTS, "there is such a node")
        if len(self.nodes.nodes) + len(path) - len(parent) > MAX_NODES:
            raise TreeRefusal(StatusCode.DEVICE_FULL, "too many nodes")
        for length in range(len(parent) + 1, len(path)):
            self._create_ancestor(path[:length])
        self._create(path, place, content)

    def replace(self, uri: str, content: Content) -> None:
        """Overwrite the value of a leaf, or a property (OMA-TS-DM_RepPro-V1_2 §6.6.13)."""
        address = self._address(uri)
        node = self.existing(address.path)
        if address.prop is not None:
            self._replace_property(address.path, node, address.prop, content)
            return
        self.overwrite(address.path, content)

    def overwrite(self, path: Path, content: Content) -> None:
        """Give a leaf another value: what `replace` does once the address is known."""
        node = self.existing(path)
        if node.is_interior:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "an interior node has no value")
        self.require_access(node, AccessType.REPLACE)
        self.require_right(path, AccessType.REPLACE)
        place = Place(format=node.format, types=self._types(path, node))
        if self._is_free(path):
            place = Place()  # Format and Type follow the new value where no description fixes them
            content = replace(content, format=content.format or node.format.value, type=content.type or node.type)
        self._put(path, place, content)

    def delete(self, uri: str) -> None:
        """Remove a node and what is below it, whatever stands in the way further down (§6.6.6)."""
        address = self._address(uri)
        if address.prop is not None:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "properties cannot be deleted")
        node = self.existing(address.path)
        if node.scope is Scope.PERMANENT:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "a permanent node")
        self.require_access(node, AccessType.DELETE)
        self.require_right(address.path, AccessType.DELETE)
        self.discard(address.path)

    def discard(self, path: Path) -> None:
        """Take a node and what is below it away, if its own code agrees; rights are the caller's matter."""
        deleting = self.tree.hooks_of(path).deleting
        if deleting is not None:
            deleting(self.nodes, path)
        self.nodes.remove(path)
        self._room = None

    def copy(self, source_uri: str, target_uri: str) -> None:
        """Copy the value of a leaf to another; needs what the Get and the Replace or Add would need (§6.6.4)."""
        source, target = self._address(source_uri), self._address(target_uri)
        if source.prop is not None or target.prop is not None:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "properties cannot be copied")
        node = self.existing(source.path)
        if node.is_interior:
            raise TreeRefusal(StatusCode.FORBIDDEN, "only leaves can be copied")
        content = Content(format=node.format.value, type=node.type, value=None)
        if node.format is not Format.NULL:
            content = replace(content, value=node.value)
        destination = self.tree.current(self.nodes, target.path)
        if AccessType.GET not in node.access:
            raise TreeRefusal(StatusCode.FORBIDDEN, "the source cannot be read")
        self.require_right(source.path, AccessType.GET)
        if destination is None:
            self.add(target_uri, content)
            return
        if destination.is_interior or AccessType.REPLACE not in destination.access:
            raise TreeRefusal(StatusCode.FORBIDDEN, "the destination cannot be written")
        self.replace(target_uri, content)

    def execute(self, uri: str, *, correlator: str | None, argument: Value | None) -> int:
        """Run a node; returns 200 when it is done and 202 when an alert will tell (§6.6.5)."""
        path = self.executable(uri)
        run = self.tree.hooks_of(path).execute
        if run is None:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "nothing to run here")
        server_id = self.server_id or ""
        return run(self.nodes, ExecRequest(path=path, server_id=server_id, correlator=correlator, argument=argument))

    def executable(self, uri: str) -> Path:
        """The node that an Exec of that address would run, after all checks but that there is something to run."""
        address = self._address(uri)
        if address.prop is not None:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "properties cannot be executed")
        node = self.existing(address.path)
        self.require_access(node, AccessType.EXEC)
        self.require_right(address.path, AccessType.EXEC)
        return address.path

    # -- properties -----------------------------------------------------------------------------------------------

    def _get_property(self, path: Path, name: PropertyName) -> Answer:
        self._refuse_inbox(path)
        node = self.existing(path)
        self.require_right(path, AccessType.GET)
        value = property_text(name, path, node)
        if value is None:
            raise TreeRefusal(StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, "an interior node has no Size")
        if name is PropertyName.SIZE and AccessType.GET not in node.access:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "the length of a secret is part of the secret")
        return Answer(format=Format.CHR, type=MediaType.TEXT.value, value=value)

    def _replace_property(self, path: Path, node: Node, name: PropertyName, content: Content) -> None:
        if name not in WRITABLE_PROPERTIES:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, f"{name} belongs to the device")
        text = content.value if content.value is not None else ""
        if isinstance(text, bytes):
            raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "properties are text")
        if name is PropertyName.ACL:
            self.replace_acl(path, text)
        elif name is PropertyName.NAME:
            self._rename(path, node, text)
        else:
            self.require_right(path, AccessType.REPLACE)
            self.replace_title(path, text)

    def replace_title(self, path: Path, text: str) -> None:
        """Set the property Title; rights are the caller's matter."""
        if len(text.encode()) > MAX_TITLE:
            raise TreeRefusal(StatusCode.REQUEST_ENTITY_TOO_LARGE, "Title is limited to 255 octets")
        self.nodes.change(path, title=text)

    def replace_acl(self, path: Path, text: str) -> None:
        """Set the property ACL; an empty text lets the node inherit."""
        self.require_acl_right(path)
        self.require_acl_size(text)
        try:
            acl = Acl.parse(text) if text else None
        except MalformedAcl as error:
            raise TreeRefusal(StatusCode.BAD_REQUEST, "malformed ACL") from error
        if path == ROOT and (acl is None or not acl.allows(AccessType.ADD, "*")):
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "the root keeps Add=*")
        self.nodes.change(path, acl=acl)

    def require_acl_size(self, text: str) -> None:
        if len(text) > MAX_ACL:
            raise TreeRefusal(StatusCode.REQUEST_ENTITY_TOO_LARGE, f"an ACL of {len(text)} characters")

    def require_acl_right(self, path: Path) -> None:
        """A leaf's ACL belongs to who may Replace the parent; an interior node's also to who may Replace it."""
        on_itself = self.nodes[path].is_interior and self.allowed(path, AccessType.REPLACE)
        on_parent = path != ROOT and self.allowed(path[:-1], AccessType.REPLACE)
        if not (on_itself or on_parent):
            raise TreeRefusal(StatusCode.PERMISSION_DENIED, "no right to change this ACL")

    def _rename(self, path: Path, node: Node, name: str) -> None:
        place = self.tree.place(path)
        if path == ROOT or node.scope is Scope.PERMANENT or place is None or place.named:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "the name of this node is fixed")
        self.require_right(path, AccessType.REPLACE)
        new = (*path[:-1], name)
        for each in self.nodes.subtree(path):
            self._require_within_limits(new + each[len(path) :])
        if new == path:
            return
        if new in self.nodes:
            raise TreeRefusal(StatusCode.ALREADY_EXISTS, "a sibling has this name")
        if self.tree.place(new) != place:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "this name means something else here")
        self.nodes.move(path, new)
        self.nodes.change(new)

    def node_path(self, uri: str) -> Path:
        """The node that an address without query names."""
        address = self._address(uri)
        if address.prop is not None:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "a property has no nodes below it")
        return address.path

    def path_of(self, uri: str) -> Path:
        """The node that an address names, whatever its query asks for."""
        return self._address(uri).path

    # -- rules ----------------------------------------------------------------------------------------------------

    def _address(self, uri: str) -> _Address:
        try:
            node_uri, query = split_query(uri)
            self.tree.limits.check(node_uri)
        except MalformedUri as error:
            raise TreeRefusal(error.code, "malformed or too long") from error
        if query is None:
            return _Address(path=node_uri.segments, prop=None)
        if query.kind is QueryKind.LIST:
            raise TreeRefusal(StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, "?list= is for Get")
        try:
            return _Address(path=node_uri.segments, prop=PropertyName(query.value))
        except ValueError:
            raise TreeRefusal(StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, "unknown property") from None

    def _require_within_limits(self, path: Path) -> None:
        try:
            self.tree.limits.check(NodeUri(path))
        except UriTooLong as error:
            raise TreeRefusal(error.code, "beyond DevDetail/URI") from error
        except LocalProtocolError as error:
            raise TreeRefusal(StatusCode.BAD_REQUEST, "not a node name") from error

    def existing(self, path: Path) -> Node:
        node = self.tree.current(self.nodes, path)
        if node is None:
            raise TreeRefusal(StatusCode.NOT_FOUND, "no such node")
        return node

    def require_access(self, node: Node, access: AccessType) -> None:
        if access not in node.access:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, f"this node does not take {access.value}")

    def allowed(self, path: Path, access: AccessType) -> bool:
        """The nearest ACL counts as a whole; nothing is merged (OMA-TS-DM_TND-V1_2 §7.7.1.3)."""
        if self.server_id is None:
            return True
        while path not in self.nodes or self.nodes[path].acl is None:
            path = path[:-1]
        acl = self.nodes[path].acl
        return acl is not None and acl.allows(access, self.server_id)

    def require_right(self, path: Path, access: AccessType) -> None:
        if not self.allowed(path, access):
            raise TreeRefusal(StatusCode.PERMISSION_DENIED, f"the ACL gives no {access.value}")

    def _addable(self, path: Path, *, ancestor: Path | None = None) -> Place:
        place = self.tree.place(path)
        if place is None or (AccessType.ADD not in place.access and self.server_id is not None):
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "nothing can be added there", ancestor=ancestor)
        if place.maximum is not None and not place.named and path not in self.nodes:  # what is there already gets 418
            alike = [each for each in self.nodes.children(path[:-1]) if self.tree.place((*path[:-1], each)) == place]
            if len(alike) >= place.maximum:
                raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "no more of these", ancestor=ancestor)
        return place

    def _create_ancestor(self, path: Path) -> None:
        place = self._addable(path, ancestor=path)
        try:
            self._create(path, place, Content(format=Format.NODE.value))
        except TreeRefusal as error:
            raise TreeRefusal(error.code, str(error), ancestor=path) from error

    def _create(self, path: Path, place: Place, content: Content) -> None:
        node = node_from(place, content)
        if node.is_interior and self.server_id is not None and not self.allowed(path[:-1], AccessType.REPLACE):
            # Who may add here but not write would lose what it made (OMA-TS-DM_TND-V1_2 §7.7.1.3).
            own = Acl.granting(self.server_id, {AccessType.ADD, AccessType.DELETE, AccessType.REPLACE})
            node = replace(node, acl=own)
        self._require_room(path, node)
        self.nodes.create(path, node)
        added = self.tree.hooks_of(path).added
        if added is not None:
            added(self.nodes, path)
        self._act(path)

    def _put(self, path: Path, place: Place, content: Content) -> None:
        node = node_from(place, content)
        if node.is_interior:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "a leaf does not become an interior node")
        self._require_room(path, node)
        self.nodes.change(path, format=node.format, type=node.type, value=node.value)
        replaced = self.tree.hooks_of(path).replaced
        if replaced is not None:
            replaced(self.nodes, path)
        self._act(path)

    def _require_room(self, path: Path, node: Node) -> None:
        """The device keeps what servers write, so all of it together has a bound (OMA-TS-DM_RepPro-V1_2 §10: 420)."""
        present = self.nodes.get(path)
        growth = _stored(node) - (0 if present is None else _stored(present))
        if self._room is None:
            self._room = MAX_STORED - sum(map(_stored, self.nodes.nodes.values()))
        if growth > max(self._room, 0):
            raise TreeRefusal(StatusCode.DEVICE_FULL, "no room for this value")
        self._room -= growth

    def _act(self, path: Path) -> None:
        effect = self.tree.hooks_of(path).effect
        if effect is not None:
            self.effects.append((path, effect(self.nodes, path)))

    def _is_free(self, path: Path) -> bool:
        place = self.tree.place(path)
        return place is not None and place.format is None

    def _types(self, path: Path, node: Node) -> tuple[str, ...]:
        place = self.tree.place(path)
        return place.types if place is not None and place.types else (node.type,)


def _stored(node: Node) -> int:
    return len(node.value) + len(node.type)


def _escaped(name: str) -> str:
    return str(NodeUri((name,))).removeprefix("./")


def _read_t_stamp(_: Path, node: Node) -> str:
    return "" if node.t_stamp is None else f"{node.t_stamp:%Y%m%dT%H%M%SZ}"


def property_text(name: PropertyName, path: Path, node: Node) -> str | None:
    """A run-time property as its Get returns it; None: the node has no such property."""
    return _READERS[name](path, node)


_READERS: Final[dict[PropertyName, Callable[[Path, Node], str | None]]] = {
    PropertyName.ACL: lambda _, node: "" if node.acl is None else str(node.acl),
    PropertyName.FORMAT: lambda _, node: node.format.value,
    PropertyName.NAME: lambda path, _: path[-1] if path else ".",
    PropertyName.SIZE: lambda _, node: None if node.is_interior else str(node.size),
    PropertyName.TITLE: lambda _, node: node.title,
    PropertyName.T_STAMP: _read_t_stamp,
    PropertyName.TYPE: lambda _, node: node.type,
    PropertyName.VER_NO: lambda _, node: str(node.ver_no),
}
