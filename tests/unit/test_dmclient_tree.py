# ruff: noqa: E501  # a row of a table stays on one line
"""What commands may do to the device's tree: tables of command, node and right against the Status code.

`XC-nnn` numbers the statements of the DM 1.2 specifications on clients in our own checklist.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmclient.management_tree import MAX_NODES, ManagementTree, Place
from dmclient.nodes import Node, TreeRefusal
from dmclient.objects.m2m import M2M
from dmclient.objects.m2msim import M2MSIM
from dmclient.tree_transaction import Transaction
from dmclient.value_rules import Content
from mo_definitions import check_tree, load
from syncml.codes import Format
from syncml.tree import AccessType, Acl, Scope
from tests.support_dmclient import DPF, FREE, OTHER, Clock, DeviceTree, device_tree

CONTAINER = "./M2MSIMMobj/c1"
TEXT = Content(format="chr", type="text/plain", value="v")
NODE = Content(format="node")
EMPTY = Content()


def run(device: DeviceTree, server: str, operation: str, uri: str, content: Content = EMPTY, *, commit: bool = True):
    """One command in one transaction; returns its answer."""
    transaction = Transaction(device.tree, server)
    try:
        match operation:
            case "add":
                answer = transaction.add(uri, content)
            case "replace":
                answer = transaction.replace(uri, content)
            case "delete":
                answer = transaction.delete(uri)
            case "get":
                answer = transaction.get(uri)
            case "copy":
                answer = transaction.copy(str(content.value), uri)
            case _:
                answer = transaction.execute(uri, correlator=None, argument=None)
    except TreeRefusal:
        transaction.rollback()
        raise
    if commit:
        transaction.commit()
    else:
        transaction.rollback()
    return answer


def code_of(device: DeviceTree, server: str, operation: str, uri: str, content: Content = EMPTY) -> int:
    """The Status code of one command."""
    try:
        answer = run(device, server, operation, uri, content)
    except TreeRefusal as refusal:
        return refusal.code
    return answer if isinstance(answer, int) else 200


@pytest.fixture
def device() -> DeviceTree:
    """A tree with one container of the DPF and two leaves below ./Test."""
    made = device_tree()
    for uri, content in {
        CONTAINER: NODE,
        f"{CONTAINER}/MCIMId": TEXT,
        f"{CONTAINER}/Package": Content(format="b64", type="application/vnd.m2m.mcim+xml", value=b"good"),
        "./Test/leaf": TEXT,
        "./Test/other": Content(format="int", type="text/plain", value="5"),
        "./Test/dir": NODE,
        "./Test/dir/below": TEXT,
    }.items():
        run(made, DPF, "add", uri, content)
    return made


# fmt: off
TABLE = {
    # Add
    "XC-040 leaf":                        (DPF, "add", "./Test/new", TEXT, 200),
    "XC-041 interior node":               (DPF, "add", "./Test/new", NODE, 200),
    "XC-042 existing":                    (DPF, "add", "./Test/leaf", TEXT, 418),
    "XC-043 below a leaf":                (DPF, "add", "./Test/leaf/x", TEXT, 405),
    "XC-043 far below a leaf":            (DPF, "add", "./Test/leaf/x/y", TEXT, 405),
    "XC-044 missing ancestors":           (DPF, "add", "./Test/a/b/c", TEXT, 200),
    "XC-044 ancestor not possible":       (DPF, "add", "./M2MSIMMobj/c2/Operations/New", TEXT, 405),
    "XC-045 too deep":                    (DPF, "add", "./Test" + "/d" * 16, TEXT, 414),
    "XC-045 segment too long":            (DPF, "add", "./Test/" + "n" * 65, TEXT, 414),
    "XC-045 too long":                    (DPF, "add", "./Test" + ("/" + "n" * 60) * 5, TEXT, 414),
    "XC-052 property":                    (DPF, "add", "./Test/leaf?prop=Title", TEXT, 405),
    "root":                               (DPF, "add", ".", NODE, 405),
    "REQ-01 unknown object":              (DPF, "add", "./Unknown", NODE, 405),
    "REQ-01 unknown node in an object":   (DPF, "add", f"{CONTAINER}/Unknown", TEXT, 405),
    "REQ-03 node of M2MMobj":             (DPF, "add", "./M2MMobj/TRE/Extra", TEXT, 405),
    "device's own leaf":                  (DPF, "add", f"{CONTAINER}/Receipt", TEXT, 405),
    "REQ-05 container of another server": (OTHER, "add", "./M2MSIMMobj/c2", NODE, 425),
    "REQ-05 leaf by another server":      (OTHER, "add", f"{CONTAINER}/SHOId", TEXT, 425),
    "REQ-05 existing, another server":    (OTHER, "add", CONTAINER, NODE, 425),
    "no Data":                            (DPF, "add", "./Test/new", Content(format="chr"), 412),
    "interior node with Data":            (DPF, "add", "./Test/new", Content(format="node", value="x"), 415),
    "unknown Format":                     (DPF, "add", "./Test/new", Content(format="blob", value="x"), 415),
    "int that is none":                   (DPF, "add", "./Test/new", Content(format="int", value="five"), 415),
    "int out of range":                   (DPF, "add", "./Test/new", Content(format="int", value="4294967296"), 415),
    "bool that is none":                  (DPF, "add", "./Test/new", Content(format="bool", value="yes"), 415),
    "float":                              (DPF, "add", "./Test/new", Content(format="float", value="1e3"), 200),
    "float that is none":                 (DPF, "add", "./Test/new", Content(format="float", value="1,5"), 415),
    "date that is none":                  (DPF, "add", "./Test/new", Content(format="date", value=""), 415),
    "null":                               (DPF, "add", "./Test/new", Content(format="null"), 200),
    "null with Data":                     (DPF, "add", "./Test/new", Content(format="null", value="x"), 415),
    "empty binary":                       (DPF, "add", "./Test/new", Content(format="bin", value=""), 200),
    "text for a binary node":             (DPF, "add", f"{CONTAINER}/NonceEcho", TEXT, 415),
    "binary for a text node":             (DPF, "add", f"{CONTAINER}/SHOId", Content(format="b64", value=b"x"), 415),
    "wrong media type":                   (DPF, "add", f"{CONTAINER}/Command", Content(format="b64", type="text/plain", value=b"x"), 415),
    "Format and Type from the DDF":       (DPF, "add", f"{CONTAINER}/NonceEcho", Content(value=b"x"), 200),
    # Replace
    "XC-046 leaf":                        (DPF, "replace", "./Test/leaf", TEXT, 200),
    "XC-046 missing":                     (DPF, "replace", "./Test/none", TEXT, 404),
    "interior":                           (DPF, "replace", "./Test/dir", TEXT, 405),
    "root value":                         (DPF, "replace", ".", TEXT, 405),
    "REQ-03 TRE identity":                (DPF, "replace", "./M2MMobj/TRE/Id", TEXT, 405),
    "REQ-03 TRE identity, another":       (OTHER, "replace", "./M2MMobj/TRE/Id", TEXT, 405),
    "device's State":                     (DPF, "replace", f"{CONTAINER}/State", Content(format="int", value="40"), 405),
    "SHO by the DPF":                     (DPF, "replace", "./M2MMobj/Registration/SHO", TEXT, 200),
    "REQ-05 SHO by another server":       (OTHER, "replace", "./M2MMobj/Registration/SHO", TEXT, 425),
    "TNDS over a leaf":                   (DPF, "replace", "./Test/leaf", Content(type="application/vnd.syncml.dmtnds+wbxml", value=b"x"), 415),
    "wrong Format":                       (DPF, "replace", f"{CONTAINER}/MCIMId", Content(format="int", value="1"), 405),
    "challenge too short":                (DPF, "replace", "./M2MMobj/Attestation/Challenge", Content(format="b64", value=b"x"), 500),
    "challenge":                          (DPF, "replace", "./M2MMobj/Attestation/Challenge", Content(format="b64", value=b"x" * 32), 200),
    "package larger than MaxPackage":     (DPF, "replace", f"{CONTAINER}/Package", Content(format="b64", value=b"x" * 65537), 413),
    # properties
    "XC-047 rename":                      (DPF, "replace", "./Test/leaf?prop=Name", Content(value="renamed"), 200),
    "XC-047 rename to itself":            (DPF, "replace", "./Test/leaf?prop=Name", Content(value="leaf"), 200),
    "XC-047 sibling's name":              (DPF, "replace", "./Test/leaf?prop=Name", Content(value="other"), 418),
    "XC-047 permanent":                   (DPF, "replace", "./M2MMobj/TRE?prop=Name", Content(value="x"), 405),
    "XC-047 root":                        (DPF, "replace", ".?prop=Name", Content(value="x"), 405),
    "name fixed by the DDF":              (DPF, "replace", f"{CONTAINER}/MCIMId?prop=Name", Content(value="x"), 405),
    "container":                          (DPF, "replace", f"{CONTAINER}?prop=Name", Content(value="c9"), 200),
    "name with a slash":                  (DPF, "replace", "./Test/leaf?prop=Name", Content(value="a/b"), 400),
    "empty name":                         (DPF, "replace", "./Test/leaf?prop=Name", Content(value=""), 400),
    "name too long":                      (DPF, "replace", "./Test/leaf?prop=Name", Content(value="n" * 65), 414),
    "XC-051 ACL of a leaf":               (DPF, "replace", "./Test/leaf?prop=ACL", Content(value="Get=*"), 200),
    "XC-051 ACL, no right on the parent": (OTHER, "replace", f"{CONTAINER}/MCIMId?prop=ACL", Content(value="Get=*"), 425),
    "malformed ACL":                      (DPF, "replace", "./Test/leaf?prop=ACL", Content(value="Get="), 400),
    "ACL of the root without right":      (DPF, "replace", ".?prop=ACL", Content(value="Add=*&Get=*"), 425),
    "Title":                              (DPF, "replace", "./Test/leaf?prop=Title", Content(value="t"), 200),
    "Title too long":                     (DPF, "replace", "./Test/leaf?prop=Title", Content(value="t" * 256), 413),
    "Title as octets":                    (DPF, "replace", "./Test/leaf?prop=Title", Content(value=b"t"), 415),
    "Title of another's node":            (OTHER, "replace", f"{CONTAINER}?prop=Title", Content(value="t"), 425),
    "XC-052 Format":                      (DPF, "replace", "./Test/leaf?prop=Format", Content(value="int"), 405),
    "XC-052 Size":                        (DPF, "replace", "./Test/leaf?prop=Size", Content(value="1"), 405),
    "XC-052 delete a property":           (DPF, "delete", "./Test/leaf?prop=Title", EMPTY, 405),
    "XC-052 execute a property":          (DPF, "execute", "./Test/leaf?prop=Title", EMPTY, 405),
    "XC-052 copy a property":             (DPF, "copy", "./Test/leaf?prop=Title", Content(value="./Test/other"), 405),
    # Delete
    "XC-048 leaf":                        (DPF, "delete", "./Test/leaf", EMPTY, 200),
    "XC-048 sub-tree":                    (DPF, "delete", "./Test/dir", EMPTY, 200),
    "XC-048 permanent":                   (DPF, "delete", "./DevInfo/Man", EMPTY, 405),
    "XC-048 root":                        (DPF, "delete", ".", EMPTY, 405),
    "missing":                            (DPF, "delete", "./Test/none", EMPTY, 404),
    "without Delete access":              (DPF, "delete", f"{CONTAINER}/MCIMId", EMPTY, 405),
    "own container":                      (DPF, "delete", CONTAINER, EMPTY, 200),
    "REQ-05 container, another server":   (OTHER, "delete", CONTAINER, EMPTY, 425),
    # Get
    "XC-049 leaf":                        (DPF, "get", "./DevInfo/DevId", EMPTY, 200),
    "XC-049 interior":                    (DPF, "get", "./DevInfo", EMPTY, 200),
    "XC-049 missing":                     (DPF, "get", "./DevInfo/None", EMPTY, 404),
    "root listing":                       (OTHER, "get", ".", EMPTY, 200),
    "without ./":                         (DPF, "get", "DevInfo/DevId", EMPTY, 200),
    "slash at the end":                   (DPF, "get", "./DevInfo/", EMPTY, 404),
    "slash in front":                     (DPF, "get", "/DevInfo", EMPTY, 404),
    "dots":                               (DPF, "get", "./DevInfo/../DevInfo", EMPTY, 404),
    "empty":                              (DPF, "get", "", EMPTY, 404),
    "far too long":                       (DPF, "get", "./" + "a" * 5000, EMPTY, 414),
    "REQ-04 package":                     (DPF, "get", f"{CONTAINER}/Package", EMPTY, 405),
    "REQ-04 package, another server":     (OTHER, "get", f"{CONTAINER}/Package", EMPTY, 405),
    "REQ-05 container list, another":     (OTHER, "get", "./M2MSIMMobj", EMPTY, 425),
    "M2MMobj is open to readers":         (OTHER, "get", "./M2MMobj/TRE/Id", EMPTY, 200),
    "XC-062 Inbox":                       (DPF, "get", "./Inbox", EMPTY, 405),
    "XC-062 below the Inbox":             (DPF, "get", "./Inbox/x", EMPTY, 405),
    "XC-063 list":                        (DPF, "get", "./DevInfo?list=Struct", EMPTY, 406),
    "XC-050 unknown property":            (DPF, "get", "./DevInfo?prop=Colour", EMPTY, 406),
    "property of a missing node":         (DPF, "get", "./DevInfo/None?prop=ACL", EMPTY, 404),
    "XC-050 Size of an interior node":    (DPF, "get", "./DevInfo?prop=Size", EMPTY, 406),
    "REQ-04 Size of the package":         (DPF, "get", f"{CONTAINER}/Package?prop=Size", EMPTY, 405),
    "property without Get right":         (OTHER, "get", f"{CONTAINER}?prop=Name", EMPTY, 425),
    # Copy
    "XC-059 onto a leaf":                 (DPF, "copy", "./Test/other", Content(value="./Test/leaf"), 200),
    "XC-059 to a new leaf":               (DPF, "copy", "./Test/third", Content(value="./Test/leaf"), 200),
    "XC-059 interior source":             (DPF, "copy", "./Test/leaf", Content(value="./Test/dir"), 403),
    "XC-059 interior destination":        (DPF, "copy", "./Test/dir", Content(value="./Test/leaf"), 403),
    "XC-059 missing source":              (DPF, "copy", "./Test/leaf", Content(value="./Test/none"), 404),
    "REQ-04 copy of the package":         (DPF, "copy", "./Test/leaf", Content(value=f"{CONTAINER}/Package"), 403),
    "onto a device's leaf":               (DPF, "copy", f"{CONTAINER}/State", Content(value="./Test/other"), 403),
    "from another's node":                (OTHER, "copy", "./Test/leaf", Content(value=f"{CONTAINER}/MCIMId"), 425),
    # Exec
    "XC-060 nothing to run":              (DPF, "execute", "./Test/leaf", EMPTY, 405),
    "not executable":                     (DPF, "execute", "./M2MMobj/TRE/Id", EMPTY, 405),
    "missing Exec target":                (DPF, "execute", "./Test/none", EMPTY, 404),
    "Generate without challenge":         (DPF, "execute", "./M2MMobj/Attestation/Generate", EMPTY, 405),
    "REQ-05 Exec, another server":        (OTHER, "execute", "./M2MMobj/Registration/Renew", EMPTY, 425),
    "Provision":                          (DPF, "execute", f"{CONTAINER}/Operations/Provision", EMPTY, 202),
    "Activate too early":                 (DPF, "execute", f"{CONTAINER}/Operations/Activate", EMPTY, 405),
}
# fmt: on


@pytest.mark.parametrize(("server", "operation", "uri", "content", "code"), TABLE.values(), ids=TABLE)
def test_command_against_node_and_right(device, server, operation, uri, content, code):
    """Every row: one server, one command, one node, one Status code."""
    assert code_of(device, server, operation, uri, content) == code


@pytest.mark.parametrize(("server", "operation", "uri", "content", "code"), TABLE.values(), ids=TABLE)
def test_a_refused_command_changes_nothing(device, server, operation, uri, content, code):
    """Whatever is not 2xx leaves the tree as it was (values aside that the device notes at an Exec)."""
    before = dict(device.tree.nodes.nodes)
    if code_of(device, server, operation, uri, content) >= 300 and operation != "execute":
        assert {path: node.value for path, node in device.tree.nodes.nodes.items()} == {
            path: node.value for path, node in before.items()
        }


def test_properties_of_a_new_leaf(device):
    """XC-040, XC-061: Format, Type and Name as given, ACL empty; a binary that came as b64 is `bin`."""
    run(device, DPF, "add", "./Test/blob", Content(format="b64", type="application/octet-stream", value=b"\0\1\2"))
    read = {
        name: run(device, DPF, "get", f"./Test/blob?prop={name}").value
        for name in ("ACL", "Format", "Name", "Size", "Title", "TStamp", "Type", "VerNo")
    }
    assert read == {
        "ACL": "",
        "Format": "bin",
        "Name": "blob",
        "Size": "3",
        "Title": "",
        "TStamp": "20261124T120000Z",
        "Type": "application/octet-stream",
        "VerNo": "0",
    }


def test_changes_are_counted(device):
    """XC-050: VerNo goes up with each change and starts again after FFFF; TStamp follows the clock."""
    device.clock.advance(60)
    run(device, DPF, "replace", "./Test/leaf", TEXT)
    assert run(device, DPF, "get", "./Test/leaf?prop=VerNo").value == "1"
    assert run(device, DPF, "get", "./Test/leaf?prop=TStamp").value == "20261124T120100Z"
    device.tree.nodes.nodes[(*FREE, "leaf")] = Node(format=Format.CHR, value="v", ver_no=0xFFFF)
    run(device, DPF, "replace", "./Test/leaf", TEXT)
    assert run(device, DPF, "get", "./Test/leaf?prop=VerNo").value == "0"


def test_interior_nodes_list_their_children(device):
    """XC-049: names joined by `/`, escaped; Format `node`; empty when there are none; absent live nodes are not."""
    run(device, DPF, "add", "./Test/dir/a%2Fb".replace("%2F", "%20"), TEXT)
    listing = run(device, DPF, "get", "./Test/dir")
    assert (listing.format, listing.type, listing.value) == (Format.NODE, "text/plain", "below/a%20b")
    run(device, DPF, "add", "./Test/empty", NODE)
    assert run(device, DPF, "get", "./Test/empty").value == ""
    names = run(device, DPF, "get", "./M2MMobj").value.split("/")
    assert "PCID" in names
    assert "PCIDExpiry" not in names


def test_values_of_a_copy_are_independent(device):
    """XC-059: a later change of the source does not reach the copy."""
    run(device, DPF, "copy", "./Test/third", Content(value="./Test/leaf"))
    run(device, DPF, "replace", "./Test/leaf", Content(value="changed"))
    assert run(device, DPF, "get", "./Test/third").value == "v"


def test_a_server_keeps_what_it_made_where_it_may_only_add(device):
    """XC-054: no Replace right on the parent gives the new interior node an ACL for its maker, a leaf none."""
    device.tree.nodes.change(FREE, acl=Acl.parse("Add=*&Get=*"))
    run(device, OTHER, "add", "./Test/mine/inner/leaf", TEXT)
    assert run(device, DPF, "get", "./Test?prop=ACL").value == "Add=*&Get=*"
    nodes = device.tree.nodes
    assert str(nodes[(*FREE, "mine")].acl) == f"Add={OTHER}&Delete={OTHER}&Replace={OTHER}"
    assert nodes[(*FREE, "mine", "inner")].acl is None
    assert code_of(device, DPF, "delete", "./Test/mine") == 425
    assert code_of(device, OTHER, "delete", "./Test/mine") == 200


# The worked example of OMA-TS-DM_TND-V1_2 §7.7.1: node, ACL.
EXAMPLE = {
    ("NodeA",): "Get=ServerC&Replace=ServerC",
    ("NodeA", "Node1"): "Get=*",
    ("NodeB",): "Get=ServerA&Replace=ServerA",
    ("NodeB", "Node2"): "",
    ("NodeB", "Node3"): "Get=ServerB&Replace=ServerB&Delete=ServerB",
    ("NodeB", "Node3", "Node4"): "",
    ("NodeB", "Node3", "Node5"): "Get=ServerA&Replace=ServerA&Get=ServerB",
    ("NodeC",): "Get=ServerA&Replace=ServerA",
}
LEAVES = {("NodeA", "Node1"), ("NodeB", "Node2"), ("NodeB", "Node3", "Node4"), ("NodeB", "Node3", "Node5")}
EXAMPLE_CASES = {
    "anyone reads Node1": ("ServerX", "get", "./T/NodeA/Node1", EMPTY, 200),
    "nobody replaces Node1": ("ServerC", "replace", "./T/NodeA/Node1", TEXT, 425),
    "nobody deletes Node1": ("ServerC", "delete", "./T/NodeA/Node1", EMPTY, 425),
    "ServerC changes its ACL": ("ServerC", "replace", "./T/NodeA/Node1?prop=ACL", Content(value="Get=*"), 200),
    "ServerA does not": ("ServerA", "replace", "./T/NodeA/Node1?prop=ACL", Content(value="Get=*"), 425),
    "Node4 inherits from Node3": ("ServerB", "get", "./T/NodeB/Node3/Node4", EMPTY, 200),
    "and as a whole": ("ServerA", "get", "./T/NodeB/Node3/Node4", EMPTY, 425),
    "ServerA writes Node5": ("ServerA", "replace", "./T/NodeB/Node3/Node5", TEXT, 200),
    "both entries of Node5 count": ("ServerB", "get", "./T/NodeB/Node3/Node5", EMPTY, 200),
    "parent's owner takes Node3 over": ("ServerA", "replace", "./T/NodeB/Node3?prop=ACL", Content(value=""), 200),
    "an interior node's own right": ("ServerB", "replace", "./T/NodeB/Node3?prop=ACL", Content(value=""), 200),
}


@pytest.mark.parametrize(("server", "operation", "uri", "content", "code"), EXAMPLE_CASES.values(), ids=EXAMPLE_CASES)
def test_acl_example_of_the_specification(server, operation, uri, content, code):
    """XC-053: inheritance, takeover through the parent, union of repeated entries."""
    device = device_tree()
    device.tree.free_area(("T",))
    for path, acl in EXAMPLE.items():
        node = Node(format=Format.CHR if path in LEAVES else Format.NODE, type="text/plain" if path in LEAVES else "")
        device.tree.nodes.create(("T", *path), node)
        if acl:
            device.tree.nodes.change(("T", *path), acl=Acl.parse(acl))
    assert code_of(device, server, operation, uri, content) == code


def test_reading_an_acl_gives_the_own_one_only(device):
    """XC-050: a node that inherits has an empty ACL."""
    assert run(device, DPF, "get", "./DevInfo/Man?prop=ACL").value == ""
    assert run(device, DPF, "get", ".?prop=ACL").value == "Add=*&Get=*"


def test_the_root_keeps_its_add_entry(device):
    """The root's ACL may be changed by who has Replace there, but not so that nobody can add."""
    device.tree.nodes.change((), acl=Acl.parse(f"Add=*&Get=*&Replace={DPF}"))
    assert code_of(device, DPF, "replace", ".?prop=ACL", Content(value="Get=*")) == 405
    assert code_of(device, DPF, "replace", ".?prop=ACL", Content(value="")) == 405
    assert code_of(device, DPF, "replace", ".?prop=ACL", Content(value=f"Add=*&Get=*&Replace={DPF}")) == 200


def test_a_server_without_account_is_forgotten(device):
    """OMA-TS-DM_TND-V1_2 §7.7.1.4: its identifier leaves all ACLs, the root falls back to its default."""
    device.tree.nodes.change((), acl=Acl.parse(f"Add={DPF}&Get={DPF}"))
    device.tree.forget_server(DPF)
    assert str(device.tree.nodes[()].acl) == "Add=*&Get=*"
    assert device.tree.nodes[M2MSIM].acl is None
    assert str(device.tree.nodes[M2M].acl) == "Get=*"


def test_a_server_cannot_fill_the_device(device):
    """The number of nodes is bounded: 420."""
    for index in range(MAX_NODES - len(device.tree.nodes.nodes)):
        device.tree.nodes.nodes[(*FREE, f"n{index}")] = Node(format=Format.CHR)
    assert code_of(device, DPF, "add", "./Test/last", TEXT) == 420


def test_values_cannot_fill_the_device_either(device, monkeypatch):
    """OMA-TS-DM_RepPro-V1_2 §10: 420 for what goes beyond the room for values, by Add, Replace or Copy; what shrinks
    always fits."""
    used = sum(len(node.value) + len(node.type) for node in device.tree.nodes.nodes.values())
    monkeypatch.setattr("dmclient.tree_transaction.MAX_STORED", used + 100)
    long = Content(format="chr", type="text/plain", value="v" * 60)
    assert code_of(device, DPF, "add", "./Test/a", long) == 200
    assert code_of(device, DPF, "add", "./Test/b", long) == 420
    assert code_of(device, DPF, "add", "./Test/b", TEXT) == 200
    assert code_of(device, DPF, "replace", "./Test/b", long) == 420
    assert code_of(device, DPF, "copy", "./Test/b", Content(value="./Test/a")) == 420
    assert code_of(device, DPF, "replace", "./Test/a", TEXT) == 200
    assert code_of(device, DPF, "replace", "./Test/b", long) == 200


def test_an_acl_has_a_bound(device):
    """An ACL is kept for every node: 413 beyond the device's bound."""
    assert code_of(device, DPF, "add", "./Test/n", NODE) == 200
    servers = "+".join(f"s{number}" for number in range(2000))
    assert code_of(device, DPF, "replace", "./Test/n?prop=ACL", Content(value=f"Get={servers}")) == 413
    assert code_of(device, DPF, "replace", "./Test/n?prop=ACL", Content(value="Get=*")) == 200


def test_what_exists_is_said_to_exist_even_where_no_more_fit(monkeypatch):
    """XC-042: 418 for a node that is there, also when its place takes no more of the kind (405)."""
    tree = ManagementTree(now=Clock())
    tree.free_area(FREE)
    tree.nodes.change(FREE, acl=Acl.parse("Add=*"))
    monkeypatch.setattr("dmclient.management_tree.FREE_PLACE", Place(maximum=1))
    device = DeviceTree(tree=tree, m2m=None, m2msim=None, tre=None, clock=None)
    assert code_of(device, DPF, "add", "./Test/a", TEXT) == 200
    assert code_of(device, DPF, "add", "./Test/a", TEXT) == 418
    assert code_of(device, DPF, "add", "./Test/b", TEXT) == 405


@pytest.mark.parametrize("name", ["M2MMobj", "M2MSIMMobj", "DevInfo", "DevDetail"])
def test_live_tree_follows_its_description(device, name):
    """REQ-06: every node is in the DDF, every node the DDF demands is there."""
    device.m2m.note_result(0)
    for leaf in ("SHOId", "ReqId", "ContentType"):
        run(device, DPF, "add", f"{CONTAINER}/{leaf}", TEXT)
    run(device, DPF, "add", f"{CONTAINER}/NonceEcho", Content(value=b"x"))
    assert check_tree(load(name), device.tree.facts((name,))) == []


def test_only_one_transaction_at_a_time(device):
    """A mistake of the caller, not of a peer."""
    Transaction(device.tree, DPF)
    with pytest.raises(RuntimeError):
        Transaction(device.tree, DPF)


def test_description_is_asked_before_anything_is_built_in():
    """A node without description is a mistake in this package."""
    with pytest.raises(KeyError):
        ManagementTree(now=Clock()).built_in(("Nowhere",))


def test_dump_and_restore(device):
    """What servers made survives a restart; what the device knows itself is taken from the device."""
    run(device, DPF, "replace", "./M2MMobj/Registration/SHO", Content(value="sho.example"))
    run(device, DPF, "replace", "./Test?prop=Title", Content(value="mine"))
    saved = device.tree.dump()
    again = device_tree()
    again.tree.restore(saved)
    assert again.tree.nodes.nodes == device.tree.nodes.nodes
    assert again.tree.nodes[(*M2MSIM, "c1", "Package")].access == frozenset({AccessType.ADD, AccessType.REPLACE})
    assert again.tree.nodes[(*M2MSIM, "c1")].scope is Scope.DYNAMIC


@pytest.mark.parametrize("entry", [{}, {"path": 3}, {"path": ["a"], "format": "x"}])
def test_restore_refuses_something_else(entry):
    """A state file that is not ours gives ValueError."""
    with pytest.raises(ValueError, match="not a dumped tree"):
        device_tree().tree.restore([entry])


NAMES = st.sampled_from(["a", "b", "leaf", "dir"])
URIS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "./Test/" + "/".join(names))
CONTENTS = st.sampled_from([TEXT, NODE, Content(format="int", value="1"), Content(format="null"), EMPTY])
STEPS = st.tuples(
    st.sampled_from(["add", "replace", "delete", "copy", "rename", "acl"]), URIS, URIS, CONTENTS,
    st.sampled_from([DPF, OTHER]),
)  # fmt: skip


def perform(transaction: Transaction, operation: str, uri: str, other: str, content: Content) -> None:
    """One step of a random transaction."""
    match operation:
        case "add":
            transaction.add(uri, content)
        case "replace":
            transaction.replace(uri, content)
        case "delete":
            transaction.delete(uri)
        case "copy":
            transaction.copy(other, uri)
        case "rename":
            transaction.replace(f"{uri}?prop=Name", Content(value=other.rsplit("/", 1)[1]))
        case _:
            transaction.replace(f"{uri}?prop=ACL", Content(value=f"Get=*&Replace={OTHER}"))


@settings(max_examples=60, deadline=None)
@given(first=st.lists(STEPS, max_size=6), second=st.lists(STEPS, max_size=6))
def test_rollback_leaves_the_tree_equal(first, second):
    """XC-056: whatever a transaction did, a rollback leaves the very tree that was there before it."""
    device = device_tree()
    for steps, keep in ((first, True), (second, False)):
        before = dict(device.tree.nodes.nodes)
        transaction = Transaction(device.tree, DPF)
        for operation, uri, other, content, _ in steps:
            try:
                perform(transaction, operation, uri, other, content)
            except TreeRefusal:
                continue
        if keep:
            transaction.commit()
        else:
            transaction.rollback()
            assert device.tree.nodes.nodes == before


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=10))
def test_every_node_keeps_an_interior_parent(steps):
    """Whatever servers do, the tree stays a tree, and can be saved and restored."""
    device = device_tree()
    for operation, uri, other, content, server in steps:
        transaction = Transaction(device.tree, server)
        try:
            perform(transaction, operation, uri, other, content)
        except TreeRefusal:
            transaction.rollback()
        else:
            transaction.commit()
    nodes = device.tree.nodes.nodes
    assert all(nodes[path[:-1]].is_interior for path in nodes if path)
    again = device_tree()
    again.tree.restore(device.tree.dump())
    assert again.tree.nodes.nodes == nodes


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_address_gets_a_status(text):
    """No target URI, however broken, gets anything but an answer or a Status."""
    assert code_of(device_tree(), DPF, "get", text) in (200, 404, 405, 406, 414, 425)
