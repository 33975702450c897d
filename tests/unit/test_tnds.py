"""Serialised trees: strict out, tolerant in, bounded, in XML and in WBXML; and what `?list=` asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncml.codec import Encoding, decode, encode
from syncml.codes import Format, MediaType
from syncml.document import DDF, Element, Limits
from syncml.errors import LocalProtocolError, RemoteProtocolError
from syncml.list_query import ListKind, ListProperty, ListQuery, UnsupportedList
from syncml.model import Add, Item, Message, SyncHdr
from syncml.tnds import (
    MAX_TNDS_DEPTH,
    MAX_TNDS_NODES,
    MAX_TNDS_SIZE,
    MalformedTnds,
    Tnds,
    TndsNode,
    TndsTooLarge,
    UnsupportedTnds,
    decode_tnds,
    encode_tnds,
)
from syncml.tree import Acl, split_query
from syncml.values import leaf_item
from syncml.wbxml import WBXML_1_2, write_document
from syncml.wbxml.syncml_pages import TNDS_1_2
from syncml.xml_document import read_xml

LEAF = TndsNode("B", format=Format.CHR, type="text/plain", value="v")
EVERYTHING = Tnds(
    nodes=(
        TndsNode(
            "Operator X",
            path="./Inbox",
            format=Format.NODE,
            object_type="urn:oma:mo:x:1.0",
            acl=Acl.parse("Add=srv&Get=*"),
            title="A < B & C",
            t_stamp="20260101T000000Z",
            ver_no="3",
            children=(
                TndsNode(
                    "bin", format=Format.BIN, type="application/octet-stream", value=b"\x00\xff<", size="3", acl=Acl()
                ),
                TndsNode("b64", format=Format.B64, type="application/octet-stream", value=b"text"),
                TndsNode("nothing", format=Format.BIN, type="application/octet-stream", value=b""),
                TndsNode("empty", format=Format.CHR, type="text/plain", value=""),
                TndsNode("null", format=Format.NULL, type="text/plain"),
                TndsNode("xml", format=Format.XML, type="text/xml", value='<a b="c">\n &lt;]]&gt; </a>'),
                TndsNode("white space", format=Format.CHR, type="text/plain", value=" \t v \n"),
                TndsNode("int", format=Format.INT, type="text/plain", value="-7"),
                TndsNode("bool", format=Format.BOOL, type="text/plain", value="true"),
                TndsNode("float", format=Format.FLOAT, type="text/plain", value="1e3"),
                TndsNode("date", format=Format.DATE, type="text/plain", value="20260101"),
                TndsNode("time", format=Format.TIME, type="text/plain", value="000000Z"),
                TndsNode("structure only", format=Format.CHR, type="text/plain"),
                TndsNode("deep", format=Format.NODE, children=(TndsNode("ä", format=Format.NODE, children=(LEAF,)),)),
            ),
        ),
        TndsNode("", format=Format.NODE, object_type="urn:oma:mo:oma-dm-dmacc:1.0"),
    ),
    manufacturer="Acme",
    model="T1",
)
# The nested document of an Add to ./Inbox, made by hand and read by libwbxml's wbxml2xml.
SAMPLE = bytes.fromhex(
    "0200006a1b2d2f2f4f4d412f2f4454442d444d2d44444620312e322f2f454e00"
    "0002607703312e320001 64660341 0001 6f5c25017551 0375726e3a6f6d613a6d6f3a783a312e30 0001010101 01"
)
SAMPLE_TREE = Tnds((TndsNode("A", format=Format.NODE, object_type="urn:oma:mo:x:1.0"),))


@pytest.mark.parametrize("encoding", Encoding)
def test_round_trip_of_every_property(encoding: Encoding) -> None:
    """XI-10, OMA-TS-DM_TNDS-V1_2: what is written is read again."""
    assert decode_tnds(encode_tnds(EVERYTHING, encoding)) == EVERYTHING


def test_byte_sample() -> None:
    """XI-10: octet for octet, with the identifier in the string table."""
    assert decode_tnds(SAMPLE) == SAMPLE_TREE
    assert encode_tnds(SAMPLE_TREE, Encoding.WBXML) == SAMPLE


def test_the_form_in_xml() -> None:
    """OMA-TS-DM_TNDS-V1_2: the order of the DTD, one namespace, octets as Base64."""
    node = TndsNode(
        "A",
        path=".",
        format=Format.BIN,
        type="t",
        value=b"\xff",
        acl=Acl.parse("Get=*"),
        size="1",
        title="T",
        t_stamp="s",
        ver_no="2",
    )
    assert encode_tnds(Tnds((node,), manufacturer="M", model="O"), Encoding.XML) == (
        '<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD><Man>M</Man><Mod>O</Mod><Node><NodeName>A</NodeName>'
        "<Path>.</Path><RTProperties><ACL>Get=*</ACL><Format><bin/></Format><Size>1</Size><Title>T</Title>"
        "<TStamp>s</TStamp><Type><MIME>t</MIME></Type><VerNo>2</VerNo></RTProperties><Value>/w==</Value></Node>"
        "</MgmtTree>"
    )


def document(*nodes: str, head: str = "<VerDTD>1.2</VerDTD>", root: str = ' xmlns="syncml:dmddf1.2"') -> str:
    return f"<MgmtTree{root}>{head}{''.join(nodes)}</MgmtTree>"


def node(inner: str = "", *, name: str = "A", properties: str = "<Type><MIME>text/plain</MIME></Type>") -> str:
    return f"<Node><NodeName>{name}</NodeName><RTProperties>{properties}</RTProperties>{inner}</Node>"


def of(**changes: object) -> Tnds:
    return Tnds((TndsNode(**({"name": "A", "type": "text/plain", "value": "v"} | changes)),))


CHR = "<Format><chr/></Format><Type><MIME>text/plain</MIME></Type>"
TOLERATED: dict[str, tuple[str, Tnds]] = {
    "no namespace": (document(node("<Value>v</Value>"), root=""), of()),
    "namespace of messages, for want of one of its own": (
        document(node("<Value>v</Value>"), root=' xmlns="SYNCML:SYNCML1.2"'),
        of(),
    ),
    "declaration and document type": (
        '<?xml version="1.0"?>\n<!DOCTYPE MgmtTree PUBLIC "-//OMA//DTD-DM-DDF 1.2//EN" "http://x.invalid/d.dtd">\n'
        + document(node("<Value>v</Value>")),
        of(),
    ),
    "white space in front": ("\n\t " + document(node("<Value>v</Value>")), of()),
    "escaped once more": (document(node("<Value>v</Value>")).replace("<", "&lt;").replace(">", "&gt;"), of()),
    "pretty printed": (
        "<MgmtTree>\n <VerDTD> 1.2 </VerDTD>\n <Node>\n  <NodeName>\n A </NodeName>\n  <RTProperties>\n <Format>\n "
        "<chr/>\n </Format> <Type>\n <MIME> text/plain </MIME> </Type>\n </RTProperties>\n <Value>v</Value> </Node>\n"
        "</MgmtTree>\n",
        of(format=Format.CHR),
    ),
    "children of Node in another order": (
        document(
            "<Node><Value>v</Value><Path>./X</Path><RTProperties><Type><MIME>text/plain</MIME></Type></RTProperties>"
            "<NodeName>A</NodeName></Node>"
        ),
        of(path="./X"),
    ),
    "properties in another order": (
        document(
            node(
                "<Value>v</Value>",
                properties="<VerNo>1</VerNo><Type><MIME>t</MIME></Type><ACL>Get=*</ACL><Size>1</Size>",
            )
        ),
        of(ver_no="1", type="t", acl=Acl.parse("Get=*"), size="1"),
    ),
    "interior node without properties": (
        document("<Node><NodeName>A</NodeName>" + node("<Value>v</Value>", name="B") + "</Node>"),
        Tnds((TndsNode("A", children=(TndsNode("B", type="text/plain", value="v"),)),)),
    ),
    "leaf without properties": (
        document("<Node><NodeName>A</NodeName><Value>v</Value></Node>"),
        of(type=""),
    ),
    "Type as bare text of a leaf": (document(node("<Value>v</Value>", properties="<Type>a/b</Type>")), of(type="a/b")),
    "Type as bare text of an interior node": (
        document(node(properties="<Format><node/></Format><Type>urn:x</Type>")),
        of(format=Format.NODE, type="", object_type="urn:x", value=None),
    ),
    "Format as bare text": (
        document(node("<Value>v</Value>", properties="<Format> chr </Format>")),
        of(format=Format.CHR, type=""),
    ),
    "the property Name instead of NodeName": (
        document("<Node><RTProperties><Name>A</Name></RTProperties><Value>v</Value></Node>"),
        of(type=""),
    ),
    "no name at all": (document("<Node><Value>v</Value></Node>"), of(name="", type="")),
    "unnamed nodes side by side": (
        document("<Node/>", "<Node><NodeName/></Node>"),
        Tnds((TndsNode(""), TndsNode(""))),
    ),
    "one name under two paths": (
        document("<Node><NodeName>A</NodeName><Path>./X</Path></Node><Node><NodeName>A</NodeName></Node>"),
        Tnds((TndsNode("A", path="./X"), TndsNode("A"))),
    ),
    "unknown elements": (
        document(node('<x xmlns="urn:x"><Node/></x><Value>v</Value>'), head="<VerDTD>1.2</VerDTD><Future>1</Future>"),
        of(),
    ),
    "empty value of an interior node": (
        document(node("<Value> </Value>", properties="<Format><node/></Format>")),
        of(format=Format.NODE, type="", value=None),
    ),
    "empty value of null": (
        document(node("<Value/>", properties="<Format><null/></Format>")),
        of(format=Format.NULL, type="", value=None),
    ),
    "value in CDATA": (
        document(node("<Value><![CDATA[<a>&</a>]]></Value>", properties=CHR)),
        of(format=Format.CHR, value="<a>&</a>"),
    ),
    "value as elements": (
        document(node('<Value><a xmlns="urn:a"><b/></a></Value>', properties="<Format><xml/></Format>")),
        of(format=Format.XML, type="", value='<a xmlns="urn:a"><b/></a>'),
    ),
    "Base64 in lines": (
        document(node("<Value>\n QUJD\n REVG </Value>", properties="<Format><bin/></Format>")),
        of(format=Format.BIN, type="", value=b"ABCDEF"),
    ),
    "NUL at the end of a value": (document(node("<Value>v\0</Value>")), of()),
}


@pytest.mark.parametrize(("text", "tree"), TOLERATED.values(), ids=TOLERATED)
def test_tolerated(text: str, tree: Tnds) -> None:
    """XC-095, XI-10: what examples of the specification and peers write is read, as text and as octets."""
    assert decode_tnds(text) == tree
    assert decode_tnds(text.encode()) == tree


def test_utf_16() -> None:
    assert decode_tnds(document(node("<Value>v</Value>")).encode("utf-16")) == of()


@pytest.mark.parametrize("name", [name for name in TOLERATED if "elements" not in name and "escaped" not in name])
def test_tolerated_in_wbxml(name: str) -> None:
    """XI-10: the same documents element by element in WBXML."""
    text, tree = TOLERATED[name]

    def on_page_2(element: Element) -> Element:
        content = tuple(on_page_2(each) if isinstance(each, Element) else each for each in element.content)
        return Element(name=element.name, page=DDF, content=content)

    root = on_page_2(read_xml(text.encode(), "MgmtTree", Limits()))
    assert decode_tnds(write_document(root, TNDS_1_2, version=WBXML_1_2)) == tree


def wbxml_value(data_format: str | None, value: str | bytes) -> bytes:
    def group(name: str, *content: Element | str | bytes) -> Element:
        return Element(name=name, page=DDF, content=content)

    properties = () if data_format is None else (group("RTProperties", group("Format", group(data_format))),)
    inner = group("Node", group("NodeName", "A"), *properties, group("Value", value))
    return write_document(group("MgmtTree", group("VerDTD", "1.2"), inner), TNDS_1_2, version=WBXML_1_2)


VALUES: dict[str, tuple[str | None, str | bytes, str | bytes]] = {
    "bin as an opaque": ("bin", b"\x00\xff", b"\x00\xff"),
    "bin as an opaque of letters": ("bin", b"QUJD", b"QUJD"),
    "bin as Base64 text": ("bin", "QUJD", b"ABC"),
    "b64 as Base64 text": ("b64", "QUJD", b"ABC"),
    "b64 as an opaque of Base64 text": ("b64", b"QUJD", b"ABC"),
    "b64 as raw octets": ("b64", b"\x00\xff", b"\x00\xff"),
    "chr as an opaque": ("chr", b"v\0", "v"),
    "xml as an opaque": ("xml", b"<a/>", "<a/>"),
    "no Format and text": (None, b"v", "v"),
    "no Format and octets": (None, b"\xff", b"\xff"),
}


@pytest.mark.parametrize(("data_format", "sent", "read"), VALUES.values(), ids=VALUES)
def test_values_in_wbxml(data_format: str | None, sent: str | bytes, read: str | bytes) -> None:
    """XC-061: octets as an opaque or as Base64 text."""
    assert decode_tnds(wbxml_value(data_format, sent)).nodes[0].value == read


REFUSED: dict[str, tuple[str | bytes, type[MalformedTnds], int, int]] = {
    "nothing": ("", MalformedTnds, 400, 0),
    "no XML": ("x", MalformedTnds, 400, 0),
    "not well-formed": ("<MgmtTree>\n\n<a>", MalformedTnds, 400, 3),
    "another document": ("<SyncML/>", MalformedTnds, 400, 1),
    "another document type": (f"<!DOCTYPE SyncML>{document(node())}", MalformedTnds, 400, 0),
    "an entity": (f'<!DOCTYPE MgmtTree [<!ENTITY x "y">]>{document(node())}', MalformedTnds, 400, 0),
    "no VerDTD": (document(node(), head=""), MalformedTnds, 400, 1),
    "VerDTD 1.1": ("\n" + document(node(), head="<VerDTD>1.1</VerDTD>"), UnsupportedTnds, 415, 2),
    "no node": (document(), MalformedTnds, 400, 1),
    "unknown Format": (document(node(properties="<Format><uuid/></Format>")), UnsupportedTnds, 415, 1),
    "value beside children": (document("\n", node("<Value>v</Value><Node/>")), MalformedTnds, 400, 2),
    "value of an interior node": (
        document(node("<Value>v</Value>", properties="<Format><node/></Format>")),
        MalformedTnds,
        400,
        1,
    ),
    "value of null": (document(node("<Value>v</Value>", properties="<Format><null/></Format>")), MalformedTnds, 400, 1),
    "children of a leaf": (document(node("<Node/>", properties=CHR)), MalformedTnds, 400, 1),
    "no Base64": (document(node("\n<Value>*</Value>", properties="<Format><bin/></Format>")), MalformedTnds, 400, 2),
    "an ACL outside the grammar": (document(node(properties="\n<ACL>x</ACL>")), MalformedTnds, 400, 1),
    "a name with a slash": (document(node(name="a/b")), MalformedTnds, 400, 1),
    "a name that leads upwards": (document(node(name="..")), MalformedTnds, 400, 1),
    "two of one name": (document(node(), "\n", node()), MalformedTnds, 400, 2),
    "escaped, and no UTF-8": (b"&lt;\xff", MalformedTnds, 400, 0),
    "too large": ("<" * (MAX_TNDS_SIZE + 1), TndsTooLarge, 413, 0),
    "too many nodes": (document("<Node/>" * (MAX_TNDS_NODES + 1)), TndsTooLarge, 413, 1),
    "too many nodes at many depths": (
        document("<Node><Node/><Node/><Node/></Node>" * (MAX_TNDS_NODES // 4 + 1)),
        TndsTooLarge,
        413,
        1,
    ),
    "too deep": (
        document("<Node>" * (MAX_TNDS_DEPTH + 1) + "</Node>" * (MAX_TNDS_DEPTH + 1)),
        MalformedTnds,
        400,
        1,
    ),
    "far too deep": (document("<Node>" * 5000 + "</Node>" * 5000), MalformedTnds, 400, 1),
    "an opaque where text has to be": (wbxml_value("chr", b"\xff"), MalformedTnds, 400, 0),
    "WBXML cut off": (SAMPLE[:-1], MalformedTnds, 400, 0),
    "WBXML of a message": (bytes.fromhex("02a4016a006d01"), MalformedTnds, 400, 0),
}


@pytest.mark.parametrize(("data", "error", "code", "line"), REFUSED.values(), ids=REFUSED)
def test_refused(data: str | bytes, error: type[MalformedTnds], code: int, line: int) -> None:
    """XC-065: one typed error with a Status and, in XML, a line."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_tnds(data)
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.line) == (code, line)
    assert str(caught.value) == (f"line {line}: " if line else "") + caught.value.reason


UNWRITABLE = {
    "no node": lambda: encode_tnds(Tnds(()), Encoding.XML),
    "too many nodes": lambda: encode_tnds(Tnds((TndsNode("A"),) * (MAX_TNDS_NODES + 1)), Encoding.XML),
    "too deep": lambda: encode_tnds(Tnds((deep(MAX_TNDS_DEPTH + 1),)), Encoding.WBXML),
    "a control character": lambda: encode_tnds(of(value="\x01"), Encoding.XML),
    "NUL": lambda: encode_tnds(of(value="\0"), Encoding.WBXML),
    "text for bin": lambda: of(format=Format.BIN),
    "octets for chr": lambda: of(format=Format.CHR, value=b""),
    "a value and children": lambda: of(children=(LEAF,)),
    "children of chr": lambda: of(format=Format.CHR, value=None, children=(LEAF,)),
    "a value of node": lambda: of(format=Format.NODE),
    "a value of null": lambda: of(format=Format.NULL),
    "a name with a slash": lambda: of(name="a/b"),
}


def deep(levels: int) -> TndsNode:
    tree = LEAF
    for _ in range(levels - 1):
        tree = TndsNode("A", format=Format.NODE, children=(tree,))
    return tree


@pytest.mark.parametrize("attempt", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_cannot_be_written(attempt: object) -> None:
    with pytest.raises(LocalProtocolError):
        attempt()


@pytest.mark.parametrize("encoding", Encoding)
def test_the_limit_of_depth_is_inclusive(encoding: Encoding) -> None:
    tree = Tnds((deep(MAX_TNDS_DEPTH),))
    assert decode_tnds(encode_tnds(tree, encoding)) == tree


@pytest.mark.parametrize(
    ("format", "type", "value", "children", "interior"),
    [
        (Format.NODE, "", None, (), True),
        (Format.CHR, "", None, (), False),
        (None, "text/plain", None, (), False),
        (None, "", "v", (), False),
        (None, "", None, (LEAF,), True),
        (None, "", None, (), True),
    ],
)
def test_interior_or_leaf(format: Format | None, type: str, value: str, children: tuple[TndsNode], interior: bool):
    assert TndsNode("A", format=format, type=type, value=value, children=children).is_interior is interior


def test_walk_goes_parents_first() -> None:
    names = [each.name for each in EVERYTHING.walk()]
    assert names[:2] == ["Operator X", "bin"]
    assert names[-4:] == ["deep", "ä", "B", ""]


def test_no_value_in_the_repr() -> None:
    assert "s3cret" not in repr(of(value="s3cret"))


CARRIED = {
    "XML as text in XML": (Encoding.XML, Encoding.XML, MediaType.TNDS_XML),
    "WBXML in WBXML": (Encoding.WBXML, Encoding.WBXML, MediaType.TNDS_WBXML),
    "XML as text in WBXML": (Encoding.XML, Encoding.WBXML, MediaType.TNDS_XML),
}


@pytest.mark.parametrize(("inner", "outer", "media_type"), CARRIED.values(), ids=CARRIED)
def test_carried_by_a_message(inner: Encoding, outer: Encoding, media_type: MediaType) -> None:
    """XI-10: a tree inside Data."""
    item = leaf_item("./Inbox", encode_tnds(EVERYTHING, inner), format=Format.XML, type=media_type)
    header = SyncHdr(session_id="1", msg_id="1", target="t", source="s")
    message = Message(header=header, commands=(Add(cmd_id="1", items=(item,)),))
    (read,) = decode(encode(message, outer), outer).commands
    assert isinstance(read, Add)
    assert read.items[0].meta == item.meta
    assert decode_tnds(read.items[0].data or "") == EVERYTHING


def test_a_tree_as_elements_of_a_message() -> None:
    """OMA-TS-DM_TNDS-V1_2, its example: child elements of Data."""
    text = str(encode_tnds(EVERYTHING, Encoding.XML))
    header = SyncHdr(session_id="1", msg_id="1", target="t", source="s")
    message = Message(header=header, commands=(Add(cmd_id="1", items=(Item(target="./Inbox", data="@"),)),))
    (read,) = decode(encode(message, Encoding.XML).replace(b"@", text.encode()), Encoding.XML).commands
    assert isinstance(read, Add)
    assert decode_tnds(read.items[0].data or "") == EVERYTHING


# -- ?list= --------------------------------------------------------------------------------------------------------

ALL = frozenset(ListProperty)
LISTS = {
    "Struct": ListQuery(ListKind.STRUCT),
    "StructData": ListQuery(ListKind.STRUCT_DATA),
    "TNDS": ListQuery(ListKind.TNDS),
    "TNDS+Value+ACL": ListQuery(ListKind.TNDS, frozenset({ListProperty.VALUE, ListProperty.ACL})),
    "TNDS%2BValue%2bACL": ListQuery(ListKind.TNDS, frozenset({ListProperty.VALUE, ListProperty.ACL})),
    "TNDS+Value+Value": ListQuery(ListKind.TNDS, frozenset({ListProperty.VALUE})),
    "TNDS-Format-Title": ListQuery(ListKind.TNDS, ALL - {ListProperty.FORMAT, ListProperty.TITLE}),
    "TNDS%2DFormat": ListQuery(ListKind.TNDS, ALL - {ListProperty.FORMAT}),
}
NO_LISTS = [
    "",
    "struct",
    "Struct+ACL",
    "TNDS+",
    "TNDS-",
    "TNDS+Colour",
    "TNDS+ACL-Value",
    "TNDS Value",
    "TNDSX",
    "+ACL",
]


@pytest.mark.parametrize(("value", "query"), LISTS.items())
def test_lists(value: str, query: ListQuery) -> None:
    """XC-063."""
    assert ListQuery.parse(value) == query


@pytest.mark.parametrize("value", NO_LISTS)
def test_no_lists(value: str) -> None:
    """XC-063: 406."""
    with pytest.raises(UnsupportedList) as caught:
        ListQuery.parse(value)
    assert caught.value.code == 406


@pytest.mark.parametrize("query", [*LISTS.values(), ListQuery(ListKind.TNDS, frozenset())], ids=str)
def test_a_list_survives_its_text(query: ListQuery) -> None:
    assert ListQuery.parse(str(query)) == query
    _, read = split_query(f"./A?list={query}")
    assert read is not None
    assert ListQuery.parse(read.value) == query


def test_a_change_of_a_node_is_checked_as_well() -> None:
    with pytest.raises(LocalProtocolError):
        replace(LEAF, value=b"")


def test_an_element_spelled_out_on_a_page_of_nobody_is_passed_over() -> None:
    """XS-037: found by fuzzing: a literal tag inside a value, after a switch to a code page that no vocabulary has."""
    formal = b"-//OMA//DTD-DM-DDF 1.2//EN\0"
    names = formal + b"x\0"
    leaf = bytes.fromhex("6466034100017603760000 3a 04 1b 01 01".replace(" ", ""))
    document = bytes.fromhex("0200006a") + bytes((len(names),)) + names + bytes.fromhex("00026077 03312e320001") + leaf
    tree = decode_tnds(document + b"\x01")
    assert [(node.name, node.value) for node in tree.nodes] == [("A", "v")]
