"""Device descriptions: what ships, what the reader accepts and what it refuses (REQ-01, REQ-06)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mo_definitions import (
    DEV_DETAIL,
    DEV_INFO,
    DM_ACCOUNT,
    INBOX,
    M2M_OBJECT,
    M2MSIM_OBJECT,
    WILDCARD,
    Ddf,
    DdfError,
    Occurrence,
    load,
    parse_ddf,
    shipped,
)
from mo_definitions.ddf import MAX_DEPTH, MAX_NODES, MAX_SIZE
from mo_definitions.m2m import ContainerNode, M2MNode
from mo_definitions.paths import RelativePath
from mo_definitions.standard import AccountNode, AddressNode, CredentialNode, DevDetailNode, DevInfoNode
from syncml.codes import Format
from syncml.tree import AccessType, Scope

X = "any name"


def test_what_ships() -> None:
    """REQ-06: the descriptions of all objects are part of the product."""
    assert shipped() == ("DMAcc", "DevDetail", "DevInfo", "Inbox", "M2MMobj", "M2MSIMMobj")


@pytest.mark.parametrize("name", shipped())
def test_everything_that_ships_is_valid_and_described(name: str) -> None:
    ddf = load(name)
    assert ddf.root.name == name
    assert ddf.path == "."
    for path, node in ddf.walk():
        assert node.description, path
        assert node.access, path


@pytest.mark.parametrize("name", ["nobody", "../ddf/DevInfo", "M2MMobj.xml", ""])
def test_no_other_name_loads(name: str) -> None:
    with pytest.raises(KeyError):
        load(name)


IDENTIFIERS = {
    "M2MMobj": ((), M2M_OBJECT),
    "M2MSIMMobj": ((), M2MSIM_OBJECT),
    "DevInfo": ((), DEV_INFO),
    "DevDetail": ((), DEV_DETAIL),
    "DMAcc": ((X,), DM_ACCOUNT),
    "Inbox": ((), INBOX),
}


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_the_identifier_stands_at_the_root_of_the_object(name: str) -> None:
    """REQ-01: a server finds the objects by these."""
    path, identifier = IDENTIFIERS[name]
    node = load(name).node_for(path)
    assert node is not None
    assert node.object_type == identifier


def names_below(ddf: Ddf, parent: tuple[str, ...]) -> Iterator[str]:
    """Addresses of all named nodes below one, without those under an unnamed node."""
    for path, _ in ddf.walk():
        if len(path) > len(parent) and path[: len(parent)] == parent and WILDCARD not in path[len(parent) :]:
            yield "/".join(path[len(parent) :])


VIEWS = {
    "M2MMobj": ("M2MMobj", (), M2MNode),
    "container": ("M2MSIMMobj", (WILDCARD,), ContainerNode),
    "DevInfo": ("DevInfo", (), DevInfoNode),
    "DevDetail": ("DevDetail", (), DevDetailNode),
    "account": ("DMAcc", (WILDCARD,), AccountNode),
    "address": ("DMAcc", (WILDCARD, "AppAddr", WILDCARD), AddressNode),
    "credentials": ("DMAcc", (WILDCARD, "AppAuth", WILDCARD), CredentialNode),
}


@pytest.mark.parametrize(("name", "parent", "view"), VIEWS.values(), ids=VIEWS)
def test_the_names_in_code_are_those_of_the_file(name: str, parent: tuple[str, ...], view: type[RelativePath]) -> None:
    assert {each.value for each in view} == set(names_below(load(name), parent))


def test_segments_of_a_name() -> None:
    assert M2MNode.TRE_PLATFORM_CERT.segments == ("TRE", "PlatformCert")


G, A, R, D, E = AccessType.GET, AccessType.ADD, AccessType.REPLACE, AccessType.DELETE, AccessType.EXEC
RULES = {
    ("M2MMobj", ("TRE", "PlatformCert")): ({G}, Format.BIN, Scope.PERMANENT),
    ("M2MMobj", ("TRE", "CertChain", "0")): ({G}, Format.BIN, Scope.DYNAMIC),
    ("M2MMobj", ("Registration", "SHO")): ({G, R}, Format.CHR, Scope.PERMANENT),
    ("M2MMobj", ("Registration", "Renew")): ({E}, Format.NULL, Scope.PERMANENT),
    ("M2MMobj", ("Attestation", "Challenge")): ({G, R}, Format.BIN, Scope.PERMANENT),
    ("M2MSIMMobj", ()): ({A, G}, Format.NODE, Scope.PERMANENT),
    ("M2MSIMMobj", ("c1",)): ({A, D, G}, Format.NODE, Scope.DYNAMIC),
    ("M2MSIMMobj", ("c1", "Package")): ({A, R}, Format.BIN, Scope.DYNAMIC),
    ("M2MSIMMobj", ("c1", "AutoProvision")): ({A, G, R}, Format.BOOL, Scope.DYNAMIC),
    ("M2MSIMMobj", ("c1", "Operations", "Provision")): ({E}, Format.NULL, Scope.DYNAMIC),
    ("DMAcc", ("1",)): ({D, G, R}, Format.NODE, Scope.DYNAMIC),
    ("DMAcc", ("1", "AppAuth", "2", "AAuthSecret")): ({R}, Format.CHR, Scope.DYNAMIC),
    ("DMAcc", ("1", "AppAuth", "2", "AAuthData")): ({R}, Format.BIN, Scope.DYNAMIC),
    ("DevInfo", ("DevId",)): ({G}, Format.CHR, Scope.PERMANENT),
    ("DevDetail", ("LrgObj",)): ({G}, Format.BOOL, Scope.PERMANENT),
}  # fmt: skip


@pytest.mark.parametrize(("name", "path"), RULES)
def test_rules_of_single_nodes(name: str, path: tuple[str, ...]) -> None:
    """REQ-01; no secret is readable: Package, Command and the credentials of an account have no Get."""
    access, node_format, scope = RULES[name, path]
    node = load(name).node_for(path)
    assert node is not None
    assert (set(node.access), node.format, node.scope) == (access, node_format, scope)


@pytest.mark.parametrize(
    ("name", "path"),
    [("M2MMobj", ("Nobody",)), ("M2MMobj", ("TRE", "Id", "x")), ("M2MMobj", ("Nobody", "x")), ("DevInfo", ("devid",))],
)
def test_nodes_that_are_not_described(name: str, path: tuple[str, ...]) -> None:
    assert load(name).node_for(path) is None


def test_open_nodes() -> None:
    ddf = load("M2MMobj")
    assert {path for path, node in ddf.walk() if node.is_open} == {("Ext",)}


# -- the reader -------------------------------------------------------------------------------------------------------

CHR = "<DFFormat><chr/></DFFormat>"
NODE = "<DFFormat><node/></DFFormat>"
MIME = "<DFType><MIME>text/plain</MIME></DFType>"
NO_NAME = "<DFType><DDFName/></DFType>"
LEAF_PROPERTIES = f"<DFProperties><AccessType><Get/></AccessType>{CHR}{MIME}</DFProperties>"
NODE_PROPERTIES = f"<DFProperties><AccessType><Get/></AccessType>{NODE}{NO_NAME}</DFProperties>"
LEAF = f"<Node><NodeName>a</NodeName>{LEAF_PROPERTIES}</Node>"


def leaf(properties: str, name: str = "a", after: str = "") -> str:
    return f"<Node><NodeName>{name}</NodeName><DFProperties>{properties}</DFProperties>{after}</Node>"


def root(*inside: str, properties: str = NODE_PROPERTIES) -> str:
    return f"<Node><NodeName>r</NodeName>{properties}{''.join(inside)}</Node>"


def document(*inside: str, version: str = "1.2", prologue: str = "", namespace: str = "") -> bytes:
    return f"{prologue}<MgmtTree{namespace}>\n<VerDTD>{version}</VerDTD>{''.join(inside)}</MgmtTree>".encode()


ACCESS = "<AccessType/>"
DOCTYPE = '<!DOCTYPE MgmtTree PUBLIC "-//OMA//DTD-DM-DDF 1.2//EN" "http://www.openmobilealliance.org/tech/DTD/DM_DDF-V1_2.dtd"'

ACCEPTED = {
    "least": document(root()),
    "namespace": document(root(), namespace=' xmlns="syncml:dmddf1.2"'),
    "prefix": (
        b'<d:MgmtTree xmlns:d="syncml:dmddf1.2">'
        + document(root()).replace(b"<", b"<d:").replace(b"<d:/", b"</d:").removeprefix(b"<d:MgmtTree>")
    ),
    "XML declaration": document(root(), prologue='<?xml version="1.0" encoding="UTF-8"?>\n'),
    "byte order mark": b"\xef\xbb\xbf" + document(root(), prologue='<?xml version="1.0"?>'),
    "leading white space": b"\n " + document(root()),
    "DOCTYPE": document(root(), prologue=DOCTYPE + ">"),
    "DOCTYPE with the version instruction": document(
        root(), prologue=DOCTYPE + '[<?oma-dm-ddf-ver supported-versions="1.2"?>]>'
    ),
    "comments and instructions": document(f"<!-- a --><?b c?>{root('<!-- d -->', LEAF)}"),
    "CDATA": document("<Man><![CDATA[<&]]></Man>", root()),
    "everything": document(
        "<Man>m</Man><Mod>n</Mod>",
        "<Node><NodeName>r</NodeName><Path>./x</Path><RTProperties><ACL/><Format><node/></Format><Name/><Size/><Title/>"
        "<TStamp/><Type><DDFName>q</DDFName></Type><VerNo/></RTProperties><DFProperties><AccessType><Add/><Copy/><Delete/>"
        "<Exec/><Get/><Replace/></AccessType><Description>d</Description><DFFormat><node/></DFFormat><Occurrence><One/>"
        "</Occurrence><Scope><Permanent/></Scope><DFTitle>t</DFTitle><DFType><DDFName>q</DDFName></DFType><CaseSense><CIS/>"
        "</CaseSense></DFProperties></Node>",
    ),
}  # fmt: skip


@pytest.mark.parametrize("octets", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(octets: bytes) -> None:
    assert parse_ddf(octets).root.name == "r"


def test_every_element_has_its_place_in_the_value() -> None:
    ddf = parse_ddf(ACCEPTED["everything"])
    assert (ddf.manufacturer, ddf.model, ddf.path) == ("m", "n", "./x")
    assert (ddf.root.title, ddf.root.description, ddf.root.object_type, ddf.root.case_sensitive) == (
        "t",
        "d",
        "q",
        False,
    )
    assert ddf.root.access == frozenset(AccessType)


def only_leaf(properties: str, after: str = "") -> bytes:
    return document(root(leaf(properties, after=after)))


OCCURRENCES = {
    "": Occurrence(1, 1),
    "<One/>": Occurrence(1, 1),
    "<ZeroOrOne/>": Occurrence(0, 1),
    "<ZeroOrMore/>": Occurrence(0, None),
    "<OneOrMore/>": Occurrence(1, None),
    "<ZeroOrN>2</ZeroOrN>": Occurrence(0, 2),
    "<OneOrN>65536</OneOrN>": Occurrence(1, 65536),
}


@pytest.mark.parametrize("choice", OCCURRENCES)
def test_occurrence(choice: str) -> None:
    element = f"<Occurrence>{choice}</Occurrence>" if choice else ""
    ddf = parse_ddf(document(root(leaf(f"{ACCESS}{CHR}{element}{MIME}", name=""))))
    assert ddf.root.children[0].occurrence == OCCURRENCES[choice]


def test_defaults_of_what_is_left_out() -> None:
    node = parse_ddf(only_leaf(ACCESS + CHR + MIME)).root.children[0]
    assert (node.scope, node.default, node.access, node.case_sensitive) == (Scope.DYNAMIC, None, frozenset(), True)
    assert node.types == ("text/plain",)


def test_value_wins_over_default_value() -> None:
    octets = only_leaf(f"{ACCESS}<DefaultValue>a</DefaultValue>{CHR}{MIME}", after="<Value>b</Value>")
    assert parse_ddf(octets).root.children[0].default == "b"


def test_case_sense_reaches_descendants() -> None:
    properties = f"<DFProperties>{ACCESS}{NODE}{NO_NAME}<CaseSense><CIS/></CaseSense></DFProperties>"
    assert not parse_ddf(document(root(LEAF, properties=properties))).root.children[0].case_sensitive


def typed(node_format: str, default: str, media: str = MIME) -> bytes:
    return only_leaf(f"{ACCESS}<DefaultValue>{default}</DefaultValue><DFFormat><{node_format}/></DFFormat>{media}")


@pytest.mark.parametrize(
    ("node_format", "default"),
    [
        ("int", "-2147483648"),
        ("int", "2147483647"),
        ("bool", "false"),
        ("float", "-1.5E3"),
        ("chr", " x "),
        ("null", ""),
        ("bin", "AA=="),
        ("date", "2026-01-01"),
    ],
)
def test_defaults_that_fit(node_format: str, default: str) -> None:
    assert parse_ddf(typed(node_format, default)).root.children[0].default == default


MANY = "".join(f"<Node><NodeName>n{each}</NodeName>{LEAF_PROPERTIES}</Node>" for each in range(MAX_NODES))
DEEP = f"<Node><NodeName>d</NodeName>{NODE_PROPERTIES}" * (MAX_DEPTH + 1) + "</Node>" * (MAX_DEPTH + 1)

REFUSED = {
    "nothing": (b"", 0),
    "text": (b"hello", 0),
    "not well-formed": (document(root())[:-1], None),
    "another document element": (b"<SyncML/>", 1),
    "another namespace": (document(root(), namespace=' xmlns="urn:x"'), 1),
    "a foreign element inside": (document(root('<x xmlns="urn:x"/>')), 2),
    "another version": (document(root(), version="1.1"), 2),
    "no version": (b"<MgmtTree>" + root().encode() + b"</MgmtTree>", 1),
    "no node": (document(), 1),
    "two top-level nodes": (document(root(), "\n", root()), 3),
    "unknown element": (document(root("<Nodes/>")), 2),
    "unknown element in an empty one": (only_leaf(f"<AccessType><Get><x/></Get></AccessType>{CHR}{MIME}"), 2),
    "wrong order": (document(root(), "<Man/>"), 2),
    "element twice": (document("<Man/>", "<Man/>", root()), 2),
    "attribute": (document(root(LEAF.replace("<NodeName>", '<NodeName a="b">'))), 2),
    "text where elements belong": (document("x", root()), 1),
    "text after an element": (document(root(LEAF, "x")), 2),
    "element in a text": (document("<Man><b/></Man>", root()), 2),
    "text in an empty element": (only_leaf(f"<AccessType><Get>x</Get></AccessType>{CHR}{MIME}"), 2),
    "no DFProperties": (document(root("<Node><NodeName>a</NodeName></Node>")), 2),
    "no NodeName": (document(root(f"<Node>{LEAF_PROPERTIES}</Node>")), 2),
    "no AccessType": (only_leaf(CHR + MIME), 2),
    "no DFFormat": (only_leaf(ACCESS + MIME), 2),
    "no DFType": (only_leaf(ACCESS + CHR), 2),
    "two formats": (only_leaf(f"{ACCESS}<DFFormat><chr/><int/></DFFormat>{MIME}"), 2),
    "unknown format": (only_leaf(f"{ACCESS}<DFFormat><text/></DFFormat>{MIME}"), 2),
    "empty format": (only_leaf(f"{ACCESS}<DFFormat/>{MIME}"), 2),
    "unknown scope": (only_leaf(f"{ACCESS}{CHR}<Scope><Static/></Scope>{MIME}"), 2),
    "unknown command": (only_leaf(f"<AccessType><Move/></AccessType>{CHR}{MIME}"), 2),
    "DFType of both kinds": (only_leaf(f"{ACCESS}{CHR}<DFType><MIME>a/b</MIME><DDFName/></DFType>"), 2),
    "empty DFType": (only_leaf(f"{ACCESS}{CHR}<DFType/>"), 2),
    "Type with two media types": (
        document(root(LEAF.replace("<DFP", f"<RTProperties><Type>{'<MIME>a/b</MIME>' * 2}</Type></RTProperties><DFP"))),
        2,
    ),
    "leaf with a DDFName": (only_leaf(ACCESS + CHR + NO_NAME), 2),
    "interior node with a media type": (only_leaf(ACCESS + NODE + MIME), 2),
    "no media type": (only_leaf(f"{ACCESS}{CHR}<DFType><MIME>text</MIME></DFType>"), 2),
    "leaf with children": (only_leaf(ACCESS + CHR + MIME, after=LEAF), 2),
    "interior node with a default": (
        only_leaf(f"{ACCESS}<DefaultValue/>{NODE}{NO_NAME}"), 2),
    "interior node with a value": (only_leaf(ACCESS + NODE + NO_NAME, after="<Value/>"), 2),
    "children and value": (document(root(LEAF, "<Value/>")), 2),
    "two children of one name": (document(root(LEAF, LEAF)), 2),
    "two unnamed children": (document(root(*[leaf(ACCESS + CHR + MIME, name="")] * 2)), 2),
    "names that differ in case where case does not matter": (
        document(root(LEAF, LEAF.replace(">a<", ">A<"),
                      properties=NODE_PROPERTIES.replace("</DFP", "<CaseSense><CIS/></CaseSense></DFP"))), 2),
    "named node more than once": (only_leaf(f"{ACCESS}{CHR}<Occurrence><OneOrMore/></Occurrence>{MIME}"), 2),
    "name with a slash": (document(root(leaf(ACCESS + CHR + MIME, name="a/b"))), 2),
    "name of dots": (document(root(leaf(ACCESS + CHR + MIME, name=".."))), 2),
    "path that is no address": (document(root().replace("</NodeName>", "</NodeName><Path>/x</Path>")), 2),
    "int that is none": (typed("int", "1x"), 2),
    "int of 33 bits": (typed("int", "2147483648"), 2),
    "bool that is none": (typed("bool", "True"), 2),
    "float that is none": (typed("float", "e"), 2),
    "value of a null node": (typed("null", "x", NO_NAME), 2),
    "value that does not fit": (
        only_leaf(f"{ACCESS}<DFFormat><int/></DFFormat>{MIME}", after="<Value>x</Value>"), 2),
    "too large": (b"<" + bytes(MAX_SIZE), 0),
    "too many nodes": (document(root(MANY)), None),
    "too deep": (document(root(DEEP)), None),
    "much too deep": (document(root(f"<Node><NodeName>d</NodeName>{NODE_PROPERTIES}" * 100 + "</Node>" * 100)), None),
}  # fmt: skip
REFUSED |= {
    f"N of {n or 'nothing'}": (
        document(root(leaf(f"{ACCESS}{CHR}<Occurrence><ZeroOrN>{n}</ZeroOrN></Occurrence>{MIME}", name=""))),
        2,
    )
    for n in ("", "1", "0", "-2", "65537", "x", "²")
}
HOSTILE = {
    "entity": document(root(), prologue='<!DOCTYPE MgmtTree [<!ENTITY a "b">]>\n'),
    "external entity": document("<Man>&a;</Man>", root(), prologue='<!DOCTYPE MgmtTree [\n<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
    "parameter entity": document(root(), prologue='<!DOCTYPE MgmtTree [<!ENTITY % a SYSTEM "http://a/"> %a;]>'),
    "parameter entity reference alone": document("<Man>&a;</Man>", root(), prologue="<!DOCTYPE MgmtTree [%a;]>"),
    "default attribute": document(root(), prologue='<!DOCTYPE MgmtTree [<!ATTLIST Node a CDATA "b">]>'),
    "undeclared entity": document("<Man>&a;</Man>", root()),
    "undeclared entity with an external DTD": document("<Man>&a;</Man>", root(), prologue=DOCTYPE + ">"),
    "undeclared entity among elements": document(root("&a;"), prologue=DOCTYPE + ">"),
    "UTF-16": document(root()).decode().encode("utf-16"),
    "UTF-16 without a mark": document(root()).decode().encode("utf-16-be"),
    "UTF-7": document(root(), prologue='<?xml version="1.0" encoding="UTF-7"?>'),
    "EBCDIC": document(root()).decode().encode("cp037"),
}  # fmt: skip
REFUSED |= {name: (octets, None) for name, octets in HOSTILE.items()}


@pytest.mark.parametrize(("octets", "line"), REFUSED.values(), ids=REFUSED)
def test_refused(octets: bytes, line: int | None) -> None:
    with pytest.raises(DdfError) as caught:
        parse_ddf(octets)
    if line is not None:
        assert caught.value.line == line
    assert str(caught.value) == (f"line {caught.value.line}: " if caught.value.line else "") + caught.value.reason


PIECES = st.sampled_from(
    [
        "<Node>",
        "</Node>",
        "<NodeName>a</NodeName>",
        LEAF_PROPERTIES,
        NODE_PROPERTIES,
        LEAF,
        "<Value/>",
        "<Path>.</Path>",
        "x",
        "&a;",
    ]
)


@given(st.binary(max_size=200) | st.lists(PIECES, max_size=12).map(lambda each: document(root(*each))))
def test_any_octets_give_a_description_or_a_typed_error(octets: bytes) -> None:
    try:
        ddf = parse_ddf(octets)
    except DdfError:
        return
    assert ddf.root.is_interior
