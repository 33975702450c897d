"""Commands with Items, groups and their results, as the session engine gets them."""

from __future__ import annotations

import pytest

from dmclient.objects.m2msim import MAX_CONTAINERS
from syncml.client_session import CommandResult
from syncml.model import Add, Alert, Atomic, Copy, Delete, Exec, Get, Item, Meta, Replace, Sequence, UnknownCommand
from tests.support_dmclient import DPF, FREE, DeviceTree, device_tree
from tests.support_executor import Commands

TEXT = Meta(format="chr", type="text/plain")


def item(target: str | None, data: str | bytes | None = None, *, meta: Meta | None = TEXT, source: str | None = None):
    return Item(target=target, data=data, meta=meta, source=source)


def add(number: int, name: str, data: str = "v") -> Add:
    return Add(cmd_id=str(number), items=(item(f"./Test/{name}", data),))


def get(number: int, *uris: str) -> Get:
    return Get(cmd_id=str(number), items=tuple(Item(target=uri) for uri in uris))


def codes(results: list[CommandResult]) -> list[tuple[str, int, str | None]]:
    return [(result.cmd_id, result.code, result.target) for result in results]


@pytest.fixture
def device() -> DeviceTree:
    return device_tree()


@pytest.fixture
def executor(device) -> Commands:
    executor = Commands(device.tree, DPF)
    assert executor.execute(add(1, "leaf"))[0].code == 200
    return executor


def test_each_item_has_its_status_and_results_only_when_found(executor):
    """XC-011: one Get, one Item missing."""
    first, second, third = executor.execute(get(5, "./Test/leaf", "./Test/none", "./Test"))
    assert codes([first, second, third]) == [("5", 200, "./Test/leaf"), ("5", 404, "./Test/none"), ("5", 200, "./Test")]
    assert first.item == Item(source="./Test/leaf", meta=TEXT, data="v")
    assert second.item is None
    assert third.item == Item(source="./Test", meta=Meta(format="node", type="text/plain"), data="leaf")


def test_null_leaf_has_results_without_data(executor):
    """A null node has no Data."""
    executor.execute(Add(cmd_id="2", items=(item("./Test/null", meta=Meta(format="null")),)))
    (result,) = executor.execute(get(3, "./Test/null"))
    assert (result.code, result.item.data, result.item.meta.format) == (200, None, "null")


def test_binary_values_come_back_as_octets(executor):
    """XC-061: b64 of a binary type becomes `bin`; the codec turns octets into text again."""
    meta = Meta(format="b64", type="application/octet-stream")
    executor.execute(Add(cmd_id="2", items=(item("./Test/blob", "AAEC", meta=meta),)))
    (result,) = executor.execute(get(3, "./Test/blob"))
    assert (result.item.data, result.item.meta.format) == (b"\0\1\2", "bin")


def test_meta_of_the_command_counts_for_its_items(executor):
    """OMA-TS-DM_RepPro-V1_2 §6: Meta of a command is inherited element by element."""
    command = Add(
        cmd_id="2",
        meta=Meta(format="int", type="text/plain"),
        items=(item("./Test/a", "1", meta=None), item("./Test/b", "x", meta=Meta(format="chr"))),
    )
    assert [result.code for result in executor.execute(command)] == [200, 200]
    assert executor.execute(get(3, "./Test/a?prop=Format"))[0].item.data == "int"
    assert executor.execute(get(3, "./Test/b?prop=Format"))[0].item.data == "chr"


INCOMPLETE = {
    "no items": (Get(cmd_id="1"), 412),
    "no Target": (Get(cmd_id="1", items=(Item(),)), 412),
    "Copy without Source": (Copy(cmd_id="1", items=(item("./Test/x"),)), 412),
    "Exec with two Items": (Exec(cmd_id="1", items=(item("./Test/a"), item("./Test/b"))), 412),
    "Base64 that is none": (
        Replace(cmd_id="1", items=(item("./Test/leaf", "*", meta=Meta(format="b64", type="a/b")),)),
        415,
    ),
    "XC-070 UI alert": (Alert(cmd_id="1", code=1101, items=(item(None, ""), item(None, "?"))), 406),
    "not DM": (UnknownCommand(cmd_id="1", element="Put"), 406),
    "XC-064 no TNDS": (
        Add(cmd_id="1", items=(item("./Test/t", "<a/>", meta=Meta(type="application/vnd.syncml.dmtnds+xml")),)),
        400,
    ),
    "XC-064 no Data for a TNDS": (
        Add(cmd_id="1", items=(item("./Test/t", "", meta=Meta(type="application/vnd.syncml.dmtnds+xml")),)),
        412,
    ),
}


@pytest.mark.parametrize(("command", "code"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_incomplete_or_unsupported(executor, command, code):
    """Broken commands get their Status and do nothing."""
    assert [result.code for result in executor.execute(command)] == [code]


def test_sequence_goes_on_after_a_failure(device, executor):
    """XC-055: 200 for the Sequence itself, order kept, individual codes."""
    sequence = Sequence(cmd_id="1", commands=(add(2, "leaf"), add(3, "new"), get(4, "./Test/new")))
    assert codes(executor.execute(sequence)) == [
        ("1", 200, None),
        ("2", 418, "./Test/leaf"),
        ("3", 200, "./Test/new"),
        ("4", 200, "./Test/new"),
    ]


def test_challenge_and_evidence_in_one_sequence(device, executor):
    """REQ-18: Replace of the challenge, Exec of Generate, then the evidence can be read; a new challenge removes it."""
    challenge = Replace(
        cmd_id="2",
        items=(item("./M2MMobj/Attestation/Challenge", b"c" * 32, meta=Meta(format="b64")),),
    )
    generate = Exec(cmd_id="3", items=(Item(target="./M2MMobj/Attestation/Generate"),))
    assert [r.code for r in executor.execute(Sequence(cmd_id="1", commands=(challenge, generate)))] == [200, 200, 200]
    (evidence,) = executor.execute(get(4, "./M2MMobj/Attestation/Evidence"))
    assert evidence.item.data == b"evidence over " + b"c" * 32
    executor.execute(challenge)
    assert executor.execute(get(5, "./M2MMobj/Attestation/Evidence"))[0].code == 404
    device.tre.condition = "locked"
    assert executor.execute(generate)[0].code == 403


ATOMIC = {
    "XC-056 all well": ((add(2, "a"), add(3, "b")), [("1", 200), ("2", 200), ("3", 200)]),
    "XC-056 one fails": (
        (add(2, "a"), Replace(cmd_id="3", items=(item("./Test/none", "x"),)), Delete(cmd_id="4", items=(item("./T"),))),
        [("1", 507), ("2", 216), ("3", 404), ("4", 215)],
    ),
    "XC-056 an Item fails": (
        (Add(cmd_id="2", items=(item("./Test/a", "x"), item("./Test/leaf", "x"), item("./Test/b", "x"))),),
        [("1", 507), ("2", 216), ("2", 418), ("2", 215)],
    ),
    "XC-057 Get inside": ((add(2, "a"), get(3, "./Test/leaf")), [("1", 507), ("2", 216), ("3", 500)]),
    "XC-057 nested": (
        (Atomic(cmd_id="2", commands=(add(3, "a"),)), Sequence(cmd_id="4", commands=(add(5, "b"),))),
        [("1", 507), ("2", 500), ("3", 215), ("4", 215), ("5", 215)],
    ),
    "Exec inside": (
        (Exec(cmd_id="2", items=(item("./M2MMobj/Registration/Renew"),)),),
        [("1", 507), ("2", 500)],
    ),
    "UI alert inside": ((Alert(cmd_id="2", code=1101),), [("1", 507), ("2", 406)]),
    "no Items": ((Add(cmd_id="2"),), [("1", 507), ("2", 412)]),
}


@pytest.mark.parametrize(("children", "expected"), ATOMIC.values(), ids=ATOMIC)
def test_atomic_is_all_or_nothing(device, executor, children, expected):
    """XC-056, XC-057: the tree afterwards is either all or what it was, object for object."""
    before = dict(device.tree.nodes.nodes)
    results = executor.execute(Atomic(cmd_id="1", commands=children))
    assert [(result.cmd_id, result.code) for result in results] == expected
    if expected[0][1] != 200:
        assert device.tree.nodes.nodes == before
    else:
        assert {"a", "b"} <= set(device.tree.nodes.children(FREE))


def test_atomic_with_a_container_and_its_package_rolls_back(device, executor):
    """XC-056: what the device adds to a container by itself goes as well."""
    node = Meta(format="node")
    children = (
        Add(cmd_id="2", items=(item("./M2MSIMMobj/c1", meta=node),)),
        Add(cmd_id="3", items=(item("./M2MSIMMobj/c1/Package", b"good", meta=Meta(format="b64")),)),
        Replace(cmd_id="4", items=(item("./M2MSIMMobj/c1/State", "40", meta=Meta(format="int")),)),
    )
    before = dict(device.tree.nodes.nodes)
    results = executor.execute(Atomic(cmd_id="1", commands=children))
    assert [result.code for result in results] == [507, 216, 216, 405]
    assert device.tree.nodes.nodes == before


@pytest.mark.parametrize("group", [Sequence, Atomic])
@pytest.mark.parametrize("inner", [Add, Replace])
def test_a_chunk_inside_a_group_is_no_value(device, executor, group, inner):
    """OMA-TS-DM_Protocol-V1_2 §7: a group never spans messages, so a large object in one is incomplete (412)."""
    chunk = Item(target="./Test/new" if inner is Add else "./Test/leaf", meta=TEXT, data="half of it", more_data=True)
    before = dict(device.tree.nodes.nodes)
    results = executor.execute(group(cmd_id="1", commands=(inner(cmd_id="2", items=(chunk,)), add(3, "after"))))
    sequence = group is Sequence
    assert [each.code for each in results] == ([200, 412, 200] if sequence else [507, 412, 215])
    device.tree.nodes.remove((*FREE, "after"))
    assert device.tree.nodes.nodes == before


def test_copy_status_names_both_ends(executor):
    """XC-059: TargetRef and SourceRef of a Copy."""
    (result,) = executor.execute(Copy(cmd_id="2", items=(item("./Test/copy", source="./Test/leaf", meta=None),)))
    assert (result.code, result.target, result.source) == (200, "./Test/copy", "./Test/leaf")


def test_failed_ancestor_is_the_detail(device, executor):
    """XC-044: Status/Item names the interior node that could not be made."""
    for number in range(MAX_CONTAINERS):
        added = executor.execute(Add(cmd_id="2", items=(item(f"./M2MSIMMobj/c{number}/MCIMId", "v"),)))
        assert added[0].code == 200
    before = dict(device.tree.nodes.nodes)
    (result,) = executor.execute(Add(cmd_id="2", items=(item("./M2MSIMMobj/more/MCIMId", "v"),)))
    assert (result.code, result.detail) == (420, (Item(target="./M2MSIMMobj/more"),))
    assert device.tree.nodes.nodes == before


def test_no_transaction_stays_open_when_the_device_itself_fails(device, executor, monkeypatch):
    """A fault of ours is not swallowed, and does not block the next command."""

    def explode(*_args: object, **_kwargs: object) -> bytes:
        raise RuntimeError("broken")

    monkeypatch.setattr(type(device.tre), "generate_evidence", explode)
    challenge = Replace(
        cmd_id="2", items=(item("./M2MMobj/Attestation/Challenge", b"c" * 32, meta=Meta(format="b64")),)
    )
    executor.execute(challenge)
    with pytest.raises(RuntimeError, match="broken"):
        executor.execute(Exec(cmd_id="3", items=(Item(target="./M2MMobj/Attestation/Generate"),)))
    assert executor.execute(get(4, "./Test/leaf"))[0].code == 200
