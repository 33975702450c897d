"""What a device answered to one package, by node: the only view the provisioning policy has of SyncML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from syncml.codes import Format
from syncml.errors import RemoteProtocolError
from syncml.model import Atomic, Command, Item, Meta, walk
from syncml.model import Sequence as SequenceCommand
from syncml.session import CommandAnswered
from syncml.values import item_value


def node_key(uri: str) -> str:
    """Key of a node: './A/B' and 'A/B' are the same node, percent escapes are taken off, a query stays.

    Devices repeat a URI as they like (OMA-TS-DM_TND-V1_2 §6.1 has both forms), so nothing is compared by raw text.
    """
    path, mark, query = uri.partition("?")
    path = unquote(path.strip()).removeprefix("./").strip("/") or "."
    return path + mark + query


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeValue:
    """What a Get gave for one node."""

    value: str | bytes = field(repr=False)
    format: str = "chr"
    type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Codes and values, keyed by `node_key`."""

    codes: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, NodeValue] = field(default_factory=dict, repr=False)

    def code(self, uri: str) -> int:
        """Status of the last command on `uri`; 0 when the device gave none."""
        return self.codes.get(node_key(uri), 0)

    def ok(self, uri: str) -> bool:
        """Whether the last command on `uri` is done (200; 201 is what some devices say to an Add)."""
        return self.code(uri) in (200, 201)

    def node(self, uri: str) -> NodeValue | None:
        """What a Get of `uri` gave; None when it gave nothing."""
        return self.nodes.get(node_key(uri))

    def text(self, uri: str) -> str | None:
        """Value of a leaf as text without surrounding blanks; None when there is none or it is no text."""
        node = self.node(uri)
        if node is None:
            return None
        if isinstance(node.value, str):
            return node.value.strip()
        try:
            return node.value.decode("utf-8").strip()
        except UnicodeDecodeError:
            return None

    def octets(self, uri: str) -> bytes | None:
        """Value of a binary leaf; None when there is none or it did not come as octets."""
        node = self.node(uri)
        return node.value if node is not None and isinstance(node.value, bytes) else None

    def number(self, uri: str) -> int | None:
        """Value of an int leaf (32 bits in DM, accepted up to 64); None when there is none or it is no number."""
        text = self.text(uri)
        if text is None or len(text) > 20:
            return None
        try:
            return int(text)
        except ValueError:
            return None

    def children(self, uri: str) -> tuple[str, ...] | None:
        """Child names of an interior node; None when the device did not list any node there.

        Names come separated by '/' (OMA-TS-DM_RepPro-V1_2, Get on an interior node) and are URI-encoded.
        """
        node = self.node(uri)
        if node is None or node.format != "node":
            return None
        text = self.text(uri) or ""
        return tuple(name for name in text.split("/") if name)


def read_answers(answered: Iterable[CommandAnswered]) -> Answers:
    """Codes and values out of what the session engine says of our commands.

    A Status names its nodes in TargetRef, or none when it is for the whole command; a device may leave TargetRef out
    for the children of a Sequence too, which are then told apart by their names. Base64 that is none gives no value.
    """
    codes: dict[str, int] = {}
    nodes: dict[str, NodeValue] = {}
    for event in answered:
        leaves = [each for each in walk((event.command,)) if not isinstance(each, Atomic | SequenceCommand)]
        targets = {leaf.name: [node_key(uri) for uri in _targets(leaf)] for leaf in leaves}
        everything = [key for leaf in leaves for key in map(node_key, _targets(leaf))]
        if not event.statuses:
            codes.update(dict.fromkeys(everything, event.code))
        named = [status for status in event.statuses if status.target_refs]
        for status in event.statuses:
            if not status.target_refs:
                codes.update(
                    dict.fromkeys(targets.get(status.cmd, everything if len(leaves) == 1 else ()), status.code)
                )
        for status in named:
            codes.update(dict.fromkeys(map(node_key, status.target_refs), status.code))
        for results in event.results:
            for item in results.items:
                uri = item.source or item.target or results.source_ref or results.target_ref
                node = _node(item, results.meta) if uri is not None else None
                if uri is not None and node is not None:
                    nodes[node_key(uri)] = node
                    if codes.get(node_key(uri), 0) < 400:
                        codes[node_key(uri)] = 200
    return Answers(codes=codes, nodes=nodes)


def _targets(command: Command) -> list[str]:
    items: tuple[Item, ...] = getattr(command, "items", ())
    return [item.target for item in items if item.target is not None]


def _node(item: Item, command_meta: Meta | None) -> NodeValue | None:
    meta = (command_meta or Meta()).inherited_by(item.meta)
    try:
        value = item_value(item, command_meta)
    except RemoteProtocolError:
        return None
    return NodeValue(value=value, format=meta.format or Format.CHR, type=meta.type)
