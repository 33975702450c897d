"""Check of live nodes against the description of their object (REQ-06)."""

from __future__ import annotations

import pytest

from mo_definitions import (
    ALERT_ROOT,
    DEV_INFO,
    AlertType,
    Ddf,
    DdfNode,
    Deviation,
    DeviationKind,
    NodeFacts,
    Occurrence,
    check_tree,
    load,
    shipped,
)
from syncml.codes import Format
from syncml.tree import AccessType

NODE = NodeFacts(format="node", is_interior=True)
TEXT = NodeFacts(format="chr", type="text/plain")

DEV_INFO_TREE = {
    (): NodeFacts(format="node", type=DEV_INFO, is_interior=True),
    **{(name,): TEXT for name in ("DevId", "Man", "Mod", "DmV", "Lang")},
}


def complete(ddf: Ddf) -> dict[tuple[str, ...], NodeFacts]:
    """One node for everything the description mentions."""
    return {
        tuple(name or "x1" for name in path): NodeFacts(
            format=node.format, type=node.object_type or "".join(node.types[:1]), is_interior=node.is_interior
        )
        for path, node in ddf.walk()
    }


@pytest.mark.parametrize("name", shipped())
def test_a_complete_tree_conforms(name: str) -> None:
    ddf = load(name)
    assert check_tree(ddf, complete(ddf)) == []


@pytest.mark.parametrize("name", shipped())
def test_every_node_that_must_be_there_is_missed(name: str) -> None:
    ddf = load(name)
    nodes = complete(ddf)
    for path, node in ddf.walk():
        seen = tuple(name or "x1" for name in path)
        left = {each: facts for each, facts in nodes.items() if each[: len(seen)] != seen}
        missing = [each for each in check_tree(ddf, left) if each.kind is DeviationKind.MISSING]
        assert bool(missing) == (node.occurrence.minimum > 0), path


def test_a_bare_dev_info_conforms() -> None:
    assert check_tree(load("DevInfo"), DEV_INFO_TREE) == []


BIN = NodeFacts(format="bin", type="application/octet-stream")
DEVIATIONS = {
    "nothing there": ({}, [((), DeviationKind.MISSING)]),
    "a leaf is missing": ({**DEV_INFO_TREE, ("Man",): None}, [(("Man",), DeviationKind.MISSING)]),
    "an unknown node": ({**DEV_INFO_TREE, ("Nobody",): TEXT}, [(("Nobody",), DeviationKind.UNKNOWN)]),
    "an unknown sub-tree": (
        {**DEV_INFO_TREE, ("Nobody",): NODE, ("Nobody", "x"): TEXT},
        [(("Nobody",), DeviationKind.UNKNOWN)],
    ),
    "another case": ({**DEV_INFO_TREE, ("man",): TEXT}, [(("man",), DeviationKind.UNKNOWN)]),
    "wrong format": (
        {**DEV_INFO_TREE, ("Man",): NodeFacts(format="int", type="text/plain")},
        [(("Man",), DeviationKind.WRONG_FORMAT)],
    ),
    "wrong type": (
        {**DEV_INFO_TREE, ("Man",): NodeFacts(format="chr", type="text/html")},
        [(("Man",), DeviationKind.WRONG_TYPE)],
    ),
    "no type is not compared": ({**DEV_INFO_TREE, ("Man",): NodeFacts(format="chr")}, []),
    "wrong object identifier": ({**DEV_INFO_TREE, (): NODE}, [((), DeviationKind.WRONG_TYPE)]),
    "interior node instead of a leaf": (
        {**DEV_INFO_TREE, ("Man",): NODE, ("Man", "x"): TEXT},
        [(("Man",), DeviationKind.WRONG_KIND)],
    ),
    "leaf instead of an interior node": ({**DEV_INFO_TREE, ("Ext",): TEXT}, [(("Ext",), DeviationKind.WRONG_KIND)]),
    "extensions are the vendor's": (
        {**DEV_INFO_TREE, ("Ext",): NODE, ("Ext", "v"): NODE, ("Ext", "v", "w"): BIN, ("Ext", "v", "y"): NODE},
        [],
    ),
    "a node without its parent": (
        {**DEV_INFO_TREE, ("Ext", "v"): NODE},
        [(("Ext",), DeviationKind.MISSING)],
    ),
}


@pytest.mark.parametrize(("nodes", "expected"), DEVIATIONS.values(), ids=DEVIATIONS)
def test_deviations(nodes, expected) -> None:
    """REQ-06: a live tree that differs from its description is found out, node by node."""
    present = {path: facts for path, facts in nodes.items() if facts is not None}
    assert [(each.path, each.kind) for each in check_tree(load("DevInfo"), present)] == expected


def counted(occurrence: Occurrence) -> Ddf:
    child = DdfNode(
        name="", access=frozenset(AccessType), format=Format.BIN, types=("a/b", "c/d"), occurrence=occurrence
    )
    return Ddf(root=DdfNode(name="r", access=frozenset(AccessType), format=Format.NODE, children=(child,)))


@pytest.mark.parametrize(
    ("occurrence", "count", "kinds"),
    [
        (Occurrence(1, None), 0, [DeviationKind.MISSING]),
        (Occurrence(1, None), 9, []),
        (Occurrence(0, 2), 0, []),
        (Occurrence(0, 2), 2, []),
        (Occurrence(0, 2), 3, [DeviationKind.TOO_MANY]),
    ],
)
def test_occurrence_of_unnamed_nodes(occurrence: Occurrence, count: int, kinds: list[DeviationKind]) -> None:
    nodes = {(): NODE, **{(str(each),): NodeFacts(format="bin", type="c/d") for each in range(count)}}
    found = check_tree(counted(occurrence), nodes)
    assert [each.kind for each in found] == kinds
    assert all(each.path == ("<X>",) for each in found)


def test_b64_counts_as_bin() -> None:
    """XML has no octets: a server adds them with Format b64."""
    ddf = counted(Occurrence(0, None))
    assert check_tree(ddf, {(): NODE, ("x",): NodeFacts(format="b64", type="a/b")}) == []
    assert check_tree(ddf, {(): NODE, ("x",): NodeFacts(format="chr", type="a/b")}) != []


def test_a_deviation_reads_as_text() -> None:
    assert str(Deviation((), DeviationKind.MISSING, "no root node")) == ".: missing (no root node)"
    assert str(Deviation(("a", "b"), DeviationKind.UNKNOWN, "c")) == "a/b: unknown (c)"


def test_alert_types_stand_below_their_root() -> None:
    assert AlertType.PROVISIONING_COMPLETE == "urn:oma:at:ext-3gpp-m2msim:0.1:ProvisioningComplete"
    assert all(each.startswith(ALERT_ROOT + ":") for each in AlertType)
