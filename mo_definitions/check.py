"""Comparison of live nodes with the description of their management object (REQ-06)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from mo_definitions.ddf import Ddf, DdfNode, Path
from syncml.codes import Format


class SeenNode(Protocol):
    """What the check needs to know of a node; a device's own node class usually has it already."""

    @property
    def format(self) -> str:
        """Property Format."""

    @property
    def type(self) -> str:
        """Property Type: media type of a leaf, object identifier of an interior node."""

    @property
    def is_interior(self) -> bool:
        """Whether it can have children."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node as a server sees it through its properties."""

    format: str
    type: str = ""
    is_interior: bool = False


class DeviationKind(StrEnum):
    """How a tree can differ from its description."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    WRONG_KIND = "wrong-kind"  # leaf instead of interior node, or the other way round
    WRONG_FORMAT = "wrong-format"
    WRONG_TYPE = "wrong-type"
    TOO_MANY = "too-many"


@dataclass(frozen=True, slots=True)
class Deviation:
    """One difference; `path` is relative to the root of the object."""

    path: Path
    kind: DeviationKind
    detail: str

    def __str__(self) -> str:
        return f"{'/'.join(self.path) or '.'}: {self.kind} ({self.detail})"


_OCTETS: Final = frozenset({Format.BIN.value, Format.B64.value})


def check_tree(ddf: Ddf, nodes: Mapping[Path, SeenNode]) -> list[Deviation]:
    """Differences between the nodes of one object and its description, parents first.

    `bin` and `b64` count as the same format: a server that speaks XML adds octets with the latter. An empty Type of a
    leaf is not compared, and only the topmost unknown node of a sub-tree is reported.
    """
    if () not in nodes:
        return [Deviation((), DeviationKind.MISSING, "no root node")]
    found = []
    names: dict[Path, list[str]] = {}
    for path in nodes:
        if path:
            names.setdefault(path[:-1], []).append(path[-1])
    orphans = [path for path in names if path not in nodes]
    found += [Deviation(path, DeviationKind.MISSING, "its children are there") for path in sorted(orphans)]
    waiting: list[tuple[Path, DdfNode]] = [((), ddf.root)]
    while waiting:
        path, definition = waiting.pop(0)
        found += _check_node(path, definition, nodes[path])
        if definition.is_open or not definition.is_interior:
            continue
        counts: dict[str, int] = {}
        for name in names.get(path, ()):
            child = definition.child(name)
            if child is None:
                found.append(Deviation((*path, name), DeviationKind.UNKNOWN, "not described"))
            else:
                counts[child.name] = counts.get(child.name, 0) + 1
                waiting.append(((*path, name), child))
        found += _check_counts(path, definition, counts)
    return found


def _check_node(path: Path, definition: DdfNode, node: SeenNode) -> list[Deviation]:
    if node.is_interior != definition.is_interior:
        want = "interior node" if definition.is_interior else "leaf"
        return [Deviation(path, DeviationKind.WRONG_KIND, f"described as {want}")]
    found = []
    same_octets = definition.format in _OCTETS and node.format in _OCTETS
    if node.format != definition.format and not same_octets:
        found.append(Deviation(path, DeviationKind.WRONG_FORMAT, f"{node.format}, not {definition.format}"))
    if definition.is_interior:
        if definition.object_type and node.type != definition.object_type:
            found.append(Deviation(path, DeviationKind.WRONG_TYPE, f"not {definition.object_type}"))
    elif node.type and definition.types and node.type not in definition.types:
        found.append(Deviation(path, DeviationKind.WRONG_TYPE, f"{node.type}, not {' or '.join(definition.types)}"))
    return found


def _check_counts(path: Path, definition: DdfNode, counts: Mapping[str, int]) -> list[Deviation]:
    found = []
    for child in definition.children:
        count, occurrence = counts.get(child.name, 0), child.occurrence
        where = (*path, child.name or "<X>")
        if count < occurrence.minimum:
            found.append(Deviation(where, DeviationKind.MISSING, f"{count} of at least {occurrence.minimum}"))
        elif occurrence.maximum is not None and count > occurrence.maximum:
            found.append(Deviation(where, DeviationKind.TOO_MANY, f"{count} of at most {occurrence.maximum}"))
    return found
