# ruff: noqa: E501  # a row of a table stays on one line
"""Parts of the tree in one command: `?list=`, serialised sub-trees in Add and Replace, objects through the Inbox."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from dmclient.dm_account import DM_ACC, mount_accounts
from dmclient.executor import Surroundings
from dmclient.management_tree import MAX_NODES
from dmclient.nodes import TreeRefusal
from dmclient.tree_tnds import apply_tnds, read_tnds
from dmclient.tree_transaction import Transaction
from mo_definitions import DM_ACCOUNT, DM_ACCOUNT_BEFORE
from syncml.codec import Encoding
from syncml.codes import Format, MediaType
from syncml.model import Add, Atomic, Delete, Get, Item, Meta
from syncml.model import Replace as ReplaceCommand
from syncml.tnds import MAX_TNDS_SIZE, Tnds, TndsNode, decode_tnds, encode_tnds
from syncml.tree import Acl, Scope
from tests.support_dmclient import DPF, OTHER, DeviceTree, device_tree
from tests.support_executor import Commands

T = ("Test",)


def leaf(name: str, value: str | bytes = "v", **more: object) -> TndsNode:
    node_format = Format.BIN if isinstance(value, bytes) else Format.CHR
    properties = {"format": node_format, "type": "text/plain", "value": value, **more}
    return TndsNode(name, **properties)


def node(name: str, *children: TndsNode, **more: object) -> TndsNode:
    return TndsNode(name, format=Format.NODE, children=children, **more)


def document(*nodes: TndsNode) -> str | bytes:
    return encode_tnds(Tnds(nodes), Encoding.XML)


@pytest.fixture
def device() -> DeviceTree:
    """./Test with `A`: C is an empty node, D has E (G, H) and F, as in the example of the specification."""
    made = device_tree()
    executor = Commands(made.tree, DPF)
    tree = node(
        "A",
        node("C"),
        node(
            "D",
            node("E", leaf("G", "text"), leaf("H", b"\x00\x01", format=Format.B64)),
            leaf("F", "<a/>", format=Format.XML),
        ),
        object_type="org.example/1.0/Sample",
    )
    assert add(executor, "./Test", document(tree)) == 200
    return made


def send(command: type, executor: Commands, uri: str, data: str | bytes | None, **meta: object) -> int:
    described = Meta(**{"format": "xml", "type": MediaType.TNDS_XML.value, **meta})
    (result,) = executor.execute(command(cmd_id="1", items=(Item(target=uri, meta=described, data=data),)))
    return result.code


def add(executor: Commands, uri: str, data: str | bytes | None, **meta: object) -> int:
    return send(Add, executor, uri, data, **meta)


def replaced(executor: Commands, uri: str, data: str | bytes | None, **meta: object) -> int:
    return send(ReplaceCommand, executor, uri, data, **meta)


def get(device: DeviceTree, uri: str, *, server: str = DPF, encoding: Encoding = Encoding.XML) -> tuple[Item, ...]:
    executor = Commands(device.tree, server, Surroundings(encoding=encoding))
    (result,) = executor.execute(Get(cmd_id="1", items=(Item(target=uri),)))
    if result.item is None:
        raise TreeRefusal(result.code, "no Results")
    return (result.item, *result.more_items)


# -- ?list= ----------------------------------------------------------------------------------------------------------


def test_struct(device):
    """XC-063, XI-10: one Item per node with its full URI, parents first; Meta only where it is not the default."""
    items = get(device, "./Test/A?list=Struct")
    assert {item.data for item in items} == {None}
    assert [(item.source, item.meta) for item in items] == [
        ("./Test/A", Meta(format="node", type="org.example/1.0/Sample")),
        ("./Test/A/C", Meta(format="node")),
        ("./Test/A/D", Meta(format="node")),
        ("./Test/A/D/E", Meta(format="node")),
        ("./Test/A/D/E/G", None),
        ("./Test/A/D/E/H", Meta(format="b64")),
        ("./Test/A/D/F", Meta(format="xml")),
    ]


def test_struct_data(device):
    """XC-063, XI-10: the same with the values of the leaves."""
    items = get(device, "./Test/A?list=StructData")
    assert {item.source: item.data for item in items if item.data is not None} == {
        "./Test/A/D/E/G": "text",
        "./Test/A/D/E/H": b"\x00\x01",
        "./Test/A/D/F": "<a/>",
    }


@pytest.mark.parametrize("encoding", Encoding)
def test_tnds_in_the_encoding_of_the_session(device, encoding):
    """XC-063, XI-10: one Item; the document is written in the encoding of the session, and holds the properties."""
    device.tree.nodes.change((*T, "A", "D"), acl=Acl.parse("Get=*"), title="Title of D")
    (item,) = get(device, "./Test/A?list=TNDS", encoding=encoding)
    expected = {
        Encoding.XML: (str, Meta(format="xml", type="application/vnd.syncml.dmtnds+xml")),
        Encoding.WBXML: (bytes, Meta(format="bin", type="application/vnd.syncml.dmtnds+wbxml")),
    }[encoding]
    assert (item.source, type(item.data), item.meta) == ("./Test/A", *expected)
    (top,) = decode_tnds(item.data).nodes
    assert (top.name, top.object_type, [each.name for each in top.children]) == (
        "A",
        "org.example/1.0/Sample",
        ["C", "D"],
    )
    below = top.children[1]
    assert (str(below.acl), below.title, below.ver_no, below.t_stamp, below.size) == (
        "Get=*", "Title of D", "1", "20261124T120000Z", None,
    )  # fmt: skip
    g, h = below.children[0].children
    assert (g.value, g.format, g.type, g.size) == ("text", Format.CHR, "text/plain", "4")
    assert (h.value, h.format, h.size) == (b"\x00\x01", Format.B64, "2")


SELECTIONS = {
    "TNDS": {"acl", "format", "type", "size", "title", "t_stamp", "ver_no", "value"},
    "TNDS+Value+ACL": {"acl", "value"},
    "TNDS%2BFormat%2BType": {"format", "type"},
    "TNDS-Format": {"acl", "type", "size", "title", "t_stamp", "ver_no", "value"},
    "TNDS-Format-Value-ACL": {"type", "size", "title", "t_stamp", "ver_no"},
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_tnds_with_the_properties_asked_for(device, selection):
    """XC-063: `+` takes only those, `-` all but those."""
    device.tree.nodes.change((*T, "A", "D", "F"), acl=Acl.parse("Get=*"), title="t")
    (item,) = get(device, f"./Test/A/D/F?list={selection}")
    (found,) = decode_tnds(item.data).nodes
    names = ("acl", "format", "type", "size", "title", "t_stamp", "ver_no", "value")
    assert {name for name in names if getattr(found, name) not in (None, "")} == SELECTIONS[selection]


# fmt: off
REFUSED_LISTS = {
    "nobody defined it": (DPF, "./Test?list=Everything", 406),
    "unknown property": (DPF, "./Test?list=TNDS+Colour", 406),
    "signs mixed": (DPF, "./Test?list=TNDS+ACL-Value", 406),
    "missing": (DPF, "./Test/none?list=Struct", 404),
    "XC-062 Inbox": (DPF, "./Inbox?list=Struct", 405),
    "no right on the first node": (OTHER, "./M2MSIMMobj?list=TNDS", 425),
    "write-only": (DPF, "./M2MMobj/Registration/Renew?list=TNDS", 405),
}
# fmt: on


@pytest.mark.parametrize(("server", "uri", "code"), REFUSED_LISTS.values(), ids=REFUSED_LISTS)
def test_lists_that_are_refused(device, server, uri, code):
    """XC-063: 404, 405, 406 and 425."""
    with pytest.raises(TreeRefusal) as caught:
        get(device, uri, server=server)
    assert caught.value.code == code


@pytest.mark.parametrize("command", [Add, Delete, ReplaceCommand])
def test_list_is_for_get_alone(device, command):
    """XC-063: any other command with `?list=` is 406."""
    (result,) = Commands(device.tree, DPF).execute(
        command(cmd_id="1", items=(Item(target="./Test?list=Struct", data=""),))
    )
    assert result.code == 406


@pytest.mark.parametrize("what", ["Struct", "StructData", "TNDS"])
def test_a_server_sees_what_it_may_get(device, what):
    """XC-063, XC-053: nodes without Get right stay out, whatever is asked; secrets have no value."""
    device.tree.nodes.change((*T, "A", "D", "E"), acl=Acl.parse(f"Get={DPF}"))
    shown = get(device, f"./Test?list={what}", server=OTHER)
    text = repr([(item.source, item.data) for item in shown])
    assert "./Test/A/D" in text or "NodeName" in text
    if what == "TNDS":
        names = [each.name for each in decode_tnds(shown[0].data).walk()]
        assert names == ["Test", "A", "C", "D", "F"]
    else:
        assert [item.source for item in shown][-2:] == ["./Test/A/D", "./Test/A/D/F"]
    assert "text" not in text.replace("text/plain", "")


@pytest.mark.parametrize("what", ["StructData", "TNDS"])
def test_secrets_are_listed_and_not_told(what):
    """XC-063: AAuthSecret and AAuthData have no Get; neither value nor Size leaves the device."""
    device = accounts()
    transaction = Transaction(device.tree, None)
    apply_tnds(transaction, "./Inbox", Tnds((account("srv"),)))
    transaction.commit()
    device.tree.nodes.change(DM_ACC, acl=Acl.parse("Get=*"))
    device.tree.nodes.change((*DM_ACC, "srv"), acl=None)
    items = get(device, f"./DMAcc?list={what}")
    assert "top-secret" not in repr([item.data for item in items])
    if what == "TNDS":
        nodes = {each.name: each for each in decode_tnds(items[0].data).walk()}
        assert (nodes["AAuthSecret"].value, nodes["AAuthSecret"].size) == (None, None)
        assert nodes["AAuthName"].value == "me"


def test_the_root_and_live_values(device):
    """XC-063: the list of everything follows live nodes; the Inbox is not in it."""
    items = get(device, ".?list=StructData")
    shown = {item.source: item.data for item in items}
    assert shown["./M2MMobj/TRE/State"] == "ok"
    assert shown["./M2MMobj/Registration/Renew"] is None
    assert not any(source.startswith("./Inbox") for source in shown)
    assert "./M2MMobj/Status/Receipt" not in shown
    assert items[0].source == "."


def test_a_list_of_a_full_tree_is_quick(device):
    """One pass over the tree, however many nodes there are."""
    for number in range(MAX_NODES - len(device.tree.nodes.nodes)):
        device.tree.nodes.create((*T, "A", "C", str(number)), device.tree.nodes[(*T, "A", "D", "F")])
    assert len(get(device, "./Test?list=Struct")) > MAX_NODES - 100


# -- Add ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("embedded", ["as it is", "b64"])
def test_what_was_read_can_be_added_elsewhere(device, encoding, embedded):
    """XI-10: a sub-tree read in one encoding and added again is the same, but for automatic properties."""
    (item,) = get(device, "./Test/A?list=TNDS-ACL", encoding=encoding)
    (top,) = decode_tnds(item.data).nodes
    copy = encode_tnds(Tnds((replace(top, name="B"),)), encoding)
    meta = {"format": item.meta.format, "type": item.meta.type}
    if embedded == "b64":
        copy, meta["format"] = base64.b64encode(copy if isinstance(copy, bytes) else copy.encode()).decode(), "b64"
    assert add(Commands(device.tree, DPF), "./Test/B", copy, **meta) == 200

    def contents(root: str) -> list[tuple[str, object, object]]:
        found = get(device, f"./Test/{root}?list=StructData")
        return [(each.source.replace(f"/{root}", "/A", 1), each.data, each.meta) for each in found]

    assert contents("B") == contents("A")


# fmt: off
PLACES = {
    "no name: the target itself": ("./Test/X", (node("", leaf("L")),), {"X", "X/L"}),
    "the target's name: the target itself": ("./Test/X", (node("X", leaf("L")),), {"X", "X/L"}),
    "another name: below the target": ("./Test", (node("X", leaf("L")),), {"X", "X/L"}),
    "Path": ("./Test", (leaf("L", path="X/Y"),), {"X", "X/Y", "X/Y/L"}),
    "Path of the target": ("./Test", (leaf("L", path="."),), {"L"}),
    "several": ("./Test", (leaf("L"), node("X")), {"L", "X"}),
    "a leaf is the target": ("./Test/L", (leaf(""),), {"L"}),
    "missing ancestors": ("./Test/X/Y", (node("", leaf("L")),), {"X", "X/Y", "X/Y/L"}),
}
# fmt: on


@pytest.mark.parametrize(("uri", "nodes", "there"), PLACES.values(), ids=PLACES)
def test_where_nodes_go(uri, nodes, there):
    """XI-10: names and Paths are relative to the target of the command."""
    device = device_tree()
    assert add(Commands(device.tree, DPF), uri, document(*nodes)) == 200
    assert {"/".join(path[1:]) for path in device.tree.nodes.subtree(T) if path != T} == there


def test_properties_are_honoured(device):
    """XI-10: Format, Type, Title and ACL are those of the document; VerNo and TStamp are the device's."""
    tree = node(
        "",
        leaf("L", "5", format=Format.INT, title="Five", acl=Acl.parse("Get=*"), ver_no="77", t_stamp="x"),
        title="Top",
    )
    assert add(Commands(device.tree, DPF), "./Test/X", document(tree)) == 200
    made = device.tree.nodes[(*T, "X", "L")]
    assert (made.format, made.type, made.title, str(made.acl), made.ver_no) == (
        Format.INT,
        "text/plain",
        "Five",
        "Get=*",
        0,
    )
    assert (device.tree.nodes[(*T, "X")].title, device.tree.nodes[(*T, "X")].acl) == ("Top", None)


def test_acl_that_shuts_its_author_out(device):
    """XC-065, XC-053: the ACL counts from the end of the command on, so the children can still be made."""
    tree = node("", node("Y", leaf("L"), acl=Acl.parse(f"Get={OTHER}")), acl=Acl.parse(f"Get={OTHER}"))
    assert add(Commands(device.tree, DPF), "./Test/X", document(tree)) == 200
    assert add(Commands(device.tree, DPF), "./Test/X/Z", document(leaf(""))) == 425


def test_who_may_only_add_keeps_what_it_made(device):
    """XC-054: a sub-tree added without Replace on the parent belongs to its maker, as with a single Add."""
    device.tree.nodes.change(T, acl=Acl.parse("Add=*&Get=*"))
    assert add(Commands(device.tree, OTHER), "./Test/X", document(node("", leaf("L")))) == 200
    assert str(device.tree.nodes[(*T, "X")].acl) == f"Add={OTHER}&Delete={OTHER}&Replace={OTHER}"


ESCAPED = "&lt;MgmtTree&gt;&lt;VerDTD&gt;1.2&lt;/VerDTD&gt;&lt;Node&gt;&lt;NodeName&gt;X&lt;/NodeName&gt;&lt;/Node&gt;&lt;/MgmtTree&gt;"
# fmt: off
ADDS = {
    "XC-065 one value that does not fit": ("./Test/X", document(node("", leaf("a"), leaf("b", "five", format=Format.INT))), 415),
    "XC-065 one place that is none": ("./M2MSIMMobj", document(node("c1", leaf("MCIMId"), leaf("Unknown"))), 405),
    "XC-065 one node too deep": ("./Test", document(leaf("L", path="/".join("d" * 15))), 414),
    "XC-065 one name too long": ("./Test", document(node("X", leaf("n" * 65))), 414),
    "XC-065 existing": ("./Test", document(node("X"), node("A")), 418),
    "XC-065 Title too long": ("./Test", document(leaf("L", title="t" * 256)), 413),
    "XC-065 below a leaf": ("./Test/A/D/F", document(leaf("L")), 405),
    "property": ("./Test?prop=Title", document(leaf("L")), 405),
    "root": (".", document(leaf("")), 400),
    "a child without a name": ("./Test", "<MgmtTree><VerDTD>1.2</VerDTD><Node><NodeName>X</NodeName><Node><NodeName/></Node></Node></MgmtTree>", 400),
    "malformed Path": ("./Test", document(leaf("L", path="/X")), 404),
    "not XML": ("./Test", "<MgmtTree>", 400),
    "other version": ("./Test", "<MgmtTree><VerDTD>1.3</VerDTD><Node><NodeName>X</NodeName></Node></MgmtTree>", 415),
    "unknown Format": ("./Test", "<MgmtTree><VerDTD>1.2</VerDTD><Node><NodeName>X</NodeName><RTProperties><Format><blob/></Format></RTProperties></Node></MgmtTree>", 415),
    "DOCTYPE with an entity": ("./Test", '<!DOCTYPE MgmtTree [<!ENTITY a "b">]><MgmtTree><VerDTD>1.2</VerDTD></MgmtTree>', 400),
    "too large": ("./Test", "<" + " " * MAX_TNDS_SIZE, 413),
    "no Data": ("./Test", None, 412),
    "leaf without value": ("./Test", document(TndsNode("L", format=Format.INT, type="text/plain")), 412),
    "empty text": ("./Test", document(TndsNode("L", format=Format.CHR, type="text/plain")), 200),
    "null": ("./Test", document(TndsNode("L", format=Format.NULL)), 200),
    "Format from the description": ("./M2MSIMMobj/c1", document(node("", TndsNode("SHOId", type="text/plain", value="x"))), 200),
    "escaped once more": ("./Test", ESCAPED, 200),
}
# fmt: on


@pytest.mark.parametrize(("uri", "data", "code"), ADDS.values(), ids=ADDS)
def test_add_as_a_whole(device, uri, data, code):
    """XC-064, XC-065: one Status for all, and of a document that fails nothing remains."""
    before = dict(device.tree.nodes.nodes)
    assert add(Commands(device.tree, DPF), uri, data) == code
    assert (device.tree.nodes.nodes == before) is (code != 200)


def test_a_document_cannot_fill_the_device(device):
    """XC-065: the bound on nodes counts here too."""
    many = node("", *(leaf(f"n{number}") for number in range(MAX_NODES - 200)))
    assert add(Commands(device.tree, DPF), "./Test/X", document(many)) == 200
    assert add(Commands(device.tree, DPF), "./Test/Y", document(node("", *(leaf(f"n{n}") for n in range(300))))) == 420
    assert (*T, "Y") not in device.tree.nodes


def test_sub_trees_inside_an_atomic(device):
    """XC-056, XC-065: rolled back with the rest."""
    meta = Meta(format="xml", type=MediaType.TNDS_XML)
    good = Add(cmd_id="2", items=(Item(target="./Test/X", meta=meta, data=document(node("", leaf("L")))),))
    bad = ReplaceCommand(cmd_id="3", items=(Item(target="./Test/none", meta=meta, data=document(node(""))),))
    before = dict(device.tree.nodes.nodes)
    results = Commands(device.tree, DPF).execute(Atomic(cmd_id="1", commands=(good, bad)))
    assert [each.code for each in results] == [507, 216, 404]
    assert device.tree.nodes.nodes == before


# -- Replace ---------------------------------------------------------------------------------------------------------


def test_replace_makes_the_sub_tree_what_the_document_says(device):
    """XC-065, XI-10: old nodes go, missing ones come, the others take their values; one Status."""
    tree = node(
        "A",
        leaf("New", "n"),
        node("D", leaf("F", "<b/>", format=Format.XML, type="text/plain"), node("E", leaf("G", "other"))),
    )
    assert replaced(Commands(device.tree, DPF), "./Test/A", document(tree)) == 200
    assert {"/".join(path[1:]): device.tree.nodes[path].value for path in device.tree.nodes.subtree((*T, "A"))} == {
        "A": "", "A/D": "", "A/D/F": "<b/>", "A/D/E": "", "A/D/E/G": "other", "A/New": "n",
    }  # fmt: skip
    assert device.tree.nodes[(*T, "A", "D", "E", "G")].ver_no == 1


def test_replace_with_what_is_there_changes_nothing(device):
    """XI-10: reading a sub-tree and writing it back is no change, not even of VerNo."""
    (item,) = get(device, "./Test/A?list=TNDS")
    before = dict(device.tree.nodes.nodes)
    assert replaced(Commands(device.tree, DPF), "./Test/A", item.data) == 200
    assert device.tree.nodes.nodes == before


def test_replace_of_children(device):
    """XI-10: nodes of another name than the target's stand below it; all others go."""
    assert replaced(Commands(device.tree, DPF), "./Test/A", document(leaf("X"), node("C"))) == 200
    assert device.tree.nodes.children((*T, "A")) == ["C", "X"]


def test_replace_may_change_the_kind_of_a_node(device):
    """XI-10: what is deleted and added anew may be a leaf where a node was."""
    assert replaced(Commands(device.tree, DPF), "./Test/A", document(node("A", leaf("D"), node("C")))) == 200
    assert not device.tree.nodes[(*T, "A", "D")].is_interior


def test_replace_drops_acls_that_the_document_has_not(device):
    """XI-10: a node made anew inherits; the target keeps its own."""
    for path in ((*T, "A"), (*T, "A", "C")):
        device.tree.nodes.change(path, acl=Acl.parse("Add=*&Delete=*&Get=*&Replace=*"))
    assert replaced(Commands(device.tree, DPF), "./Test/A", document(node("A", node("C", title="t")))) == 200
    assert device.tree.nodes[(*T, "A", "C")].acl is None
    assert device.tree.nodes[(*T, "A")].acl is not None
    assert device.tree.nodes[(*T, "A", "C")].title == "t"


def permanent(device: DeviceTree) -> None:
    device.tree.nodes.change((*T, "A", "C"), scope=Scope.PERMANENT)


def others(device: DeviceTree) -> None:
    device.tree.nodes.change((*T, "A", "D"), acl=Acl.parse(f"Get=*&Replace={OTHER}&Delete={OTHER}"))


def nobodys(device: DeviceTree) -> None:
    device.tree.nodes.change((*T, "A"), acl=Acl.parse(f"Get=*&Add=*&Replace={OTHER}"))


FULL = node(
    "A",
    node("C"),
    node(
        "D",
        node("E", leaf("G", "text"), leaf("H", b"\x00\x01", format=Format.B64)),
        leaf("F", "<a/>", format=Format.XML),
    ),
)
# fmt: off
REPLACES = {
    "missing": (None, "./Test/none", document(node("")), 404),
    "Inbox": (None, "./Inbox", document(node("x")), 405),
    "property": (None, "./Test?prop=Title", document(node("x")), 405),
    "one value that does not fit": (None, "./Test/A", document(node("A", leaf("X", "a", format=Format.INT))), 415),
    "one value that does not fit, of a node that is there": (None, "./M2MMobj/Registration", document(node("", leaf("SHO", b"x"))), 405),
    "target of another kind": (None, "./Test/A", document(leaf("A")), 405),
    "permanent node not in it": (permanent, "./Test/A", document(node("A")), 405),
    "permanent node in it": (permanent, "./Test/A", document(node("A", node("C"))), 200),
    "permanent node becomes a leaf": (permanent, "./Test/A", document(node("A", leaf("C"))), 405),
    "no right to delete a child": (others, "./Test/A", document(node("A")), 425),
    "no right to write a child": (others, "./Test/A", document(node("A", node("D", node("E", leaf("G", "x"))))), 425),
    "no right to take an ACL away": (others, "./Test/A", document(FULL), 200),
    "no right on the target": (nobodys, "./Test/A", document(node("A")), 425),
    "read-only object": (None, "./DevInfo", document(node("")), 405),
    "another object": (None, "./Test/A", document(node("A", object_type="org.example/1.0/Other")), 200),
    "not XML": (None, "./Test/A", "<", 400),
}
# fmt: on


@pytest.mark.parametrize(("prepare", "uri", "data", "code"), REPLACES.values(), ids=REPLACES)
def test_replace_as_a_whole(device, prepare, uri, data, code):
    """XC-065: one Status, and a document that cannot be leaves the tree as it was."""
    if prepare is not None:
        prepare(device)
    before = dict(device.tree.nodes.nodes)
    assert replaced(Commands(device.tree, DPF), uri, data) == code
    assert (device.tree.nodes.nodes == before) is (code != 200)


# -- the Inbox -------------------------------------------------------------------------------------------------------


def account(name: str, *, object_type: str = DM_ACCOUNT, extra: tuple[TndsNode, ...] = (), **more: object) -> TndsNode:
    return node(
        name,
        leaf("AppID", "w7"),
        leaf("ServerID", "srv"),
        *extra,
        node("AppAddr", node("1", leaf("Addr", "https://dm.example/"), leaf("AddrType", "URI"))),
        node(
            "AppAuth",
            node(
                "1",
                leaf("AAuthLevel", "CLCRED"),
                leaf("AAuthType", "DIGEST"),
                leaf("AAuthName", "me"),
                leaf("AAuthSecret", "top-secret"),
                leaf("AAuthData", b"nonce", type="application/octet-stream"),
            ),
        ),
        object_type=object_type,
        acl=Acl.parse("Get=srv&Replace=srv"),
        **more,
    )


def accounts() -> DeviceTree:
    device = device_tree()
    mount_accounts(device.tree)
    return device


def boot(device: DeviceTree, *nodes: TndsNode, uri: str = "./Inbox"):
    """What a bootstrap does: the device itself applies the document."""
    transaction = Transaction(device.tree, None)
    try:
        applied = apply_tnds(transaction, uri, read_tnds(encode_tnds(Tnds(nodes), Encoding.WBXML)))
    except BaseException:
        transaction.rollback()
        raise
    transaction.commit()
    return applied


@pytest.mark.parametrize("object_type", [DM_ACCOUNT, DM_ACCOUNT_BEFORE])
def test_an_account_goes_where_accounts_are(object_type):
    """XC-095, XI-8: found by its identifier; no ACL is asked of the device itself; the document's own counts."""
    device = accounts()
    applied = boot(device, account("srv", object_type=object_type))
    assert (applied.placed, applied.skipped) == (((*DM_ACC, "srv"),), ())
    assert device.tree.nodes.text((*DM_ACC, "srv", "AppAuth", "1", "AAuthSecret")) == "top-secret"
    assert device.tree.nodes.value((*DM_ACC, "srv", "AppAuth", "1", "AAuthData")) == b"nonce"
    assert str(device.tree.nodes[(*DM_ACC, "srv")].acl) == "Replace=srv&Get=srv" or (
        device.tree.nodes[(*DM_ACC, "srv")].acl == Acl.parse("Get=srv&Replace=srv")
    )


def test_unknown_objects_are_passed_over():
    """XC-096: the rest is applied, and the caller hears what was not."""
    device = accounts()
    applied = boot(device, node("NAP", leaf("x"), object_type="urn:oma:mo:oma-connmo-nap:1.0"), account("srv"))
    assert applied.placed == ((*DM_ACC, "srv"),)
    assert applied.skipped == ("urn:oma:mo:oma-connmo-nap:1.0",)


def test_names_that_are_taken():
    """XC-095: the device renames; without a name it chooses one; the target may name an object without one."""
    device = accounts()
    names = [
        boot(device, account(name), uri=uri).placed[0][-1]
        for name, uri in (("a", "./Inbox"), ("a", "./Inbox"), ("", "./Inbox"), ("", "./Inbox/b"))
    ]
    assert names == ["a", "a2", "1", "b"]


def test_references_follow_their_object():
    """XC-095: `./Inbox/<object>` in a value becomes the real address (OMA-TS-DM_Bootstrap-V1_2 §5.4)."""
    device = accounts()
    device.tree.keep_objects("org.example/1.0/Link", T)
    link = node("NAP", leaf("self", "./Inbox/NAP/x"), leaf("not", "./Inbox/NAPx"), object_type="org.example/1.0/Link")
    boot(device, account("srv", extra=(leaf("PrefConRef", "./Inbox/NAP"),)), link)
    assert device.tree.nodes.text((*DM_ACC, "srv", "PrefConRef")) == "./Test/NAP"
    assert device.tree.nodes.text((*T, "NAP", "self")) == "./Test/NAP/x"
    assert device.tree.nodes.text((*T, "NAP", "not")) == "./Inbox/NAPx"


def test_the_newest_version_that_is_known():
    """XC-096: of one object in several versions the device takes the newest it knows, others are passed over."""
    device = accounts()
    for version in ("1.0", "1.2", "1.10"):
        device.tree.keep_objects(f"urn:oma:mo:example:{version}", T)
    offered = [node(f"v{n}", object_type=f"urn:oma:mo:example:{n}") for n in ("1.2", "1.10", "1.0", "2.0")]
    applied = boot(device, *offered)
    assert applied.placed == ((*T, "v1.10"),)
    assert applied.skipped == tuple(f"urn:oma:mo:example:{n}" for n in ("1.2", "1.0", "2.0"))


# fmt: off
INBOX_FAULTS = {
    "nothing known": ("./Inbox", (node("x", object_type="urn:oma:mo:nobody:1.0"),), 405),
    "no identifier": ("./Inbox", (node("x"),), 405),
    "too deep": ("./Inbox/a/b", (account("a"),), 405),
    "one bad leaf": ("./Inbox", (account("a", extra=(leaf("Colour"),)),), 405),
}
# fmt: on


@pytest.mark.parametrize(("uri", "nodes", "code"), INBOX_FAULTS.values(), ids=INBOX_FAULTS)
def test_inbox_faults(uri, nodes, code):
    """XC-065, XC-095: all or nothing."""
    device = accounts()
    before = dict(device.tree.nodes.nodes)
    with pytest.raises(TreeRefusal) as caught:
        boot(device, *nodes, uri=uri)
    assert caught.value.code == code
    assert device.tree.nodes.nodes == before


def test_a_server_reaches_through_the_inbox_what_it_could_reach_directly():
    """XC-062, XC-053: rights and descriptions count at the real place; an account can only come by bootstrap."""
    device = accounts()
    device.tree.keep_objects("org.example/1.0/Sample", T)
    sample = document(node("s", leaf("x"), object_type="org.example/1.0/Sample"))
    assert add(Commands(device.tree, OTHER), "./Inbox", sample) == 200
    assert (*T, "s", "x") in device.tree.nodes
    assert add(Commands(device.tree, DPF), "./Inbox", document(account("a"))) == 405
    device.tree.nodes.change(("Inbox",), acl=Acl.parse(f"Add={DPF}"))
    assert add(Commands(device.tree, OTHER), "./Inbox", sample) == 425
    assert add(Commands(device.tree, DPF), "./Inbox", sample) == 200
    (plain,) = Commands(device.tree, DPF).execute(Add(cmd_id="1", items=(Item(target="./Inbox/x", data="v"),)))
    assert plain.code == 405


def test_what_came_by_a_document_survives_a_restart():
    """XC-095: an account from a serialised tree is in the dump like any other."""
    device, restarted = accounts(), accounts()
    boot(device, account("srv", title="Mine"))
    restarted.tree.restore(device.tree.dump())
    assert dict(restarted.tree.nodes.nodes)[(*DM_ACC, "srv")] == device.tree.nodes[(*DM_ACC, "srv")]
