"""WBXML reader and writer (WAP-192-WBXML 1.3) with the token tables of SyncML, TNDS and PROV."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncml.errors import LocalProtocolError, RemoteProtocolError
from syncml.wbxml import (
    UNKNOWN_NAME,
    WBXML_1_2,
    CodePages,
    Element,
    Limits,
    MalformedWbxml,
    read_document,
    write_document,
)
from syncml.wbxml.prov_pages import PROV_1_1
from syncml.wbxml.syncml_pages import SYNCML_1_2, TNDS_1_2

# Made by hand from RepPro §8 and read by libwbxml's wbxml2xml: a first message with Alert 1201.
PACKAGE_1 = bytes.fromhex(
    "02a4016a00 6d 6c 7103312e320001 7203444d2f312e320001 6503310001 5b03310001"
    "6e5703687474703a2f2f612f000101 675703494d45493a31000101 5a00014c0335303030000101 01"
    "0000 6b 464b03310001 4f0331323031000101 12 01 01"
)
# The nested document of an Add to ./Inbox, same origin: public identifier in the string table.
TNDS = bytes.fromhex(
    "0200006a1b2d2f2f4f4d412f2f4454442d444d2d44444620312e322f2f454e00"
    "0002607703312e320001 64660341 0001 6f5c25017551 0375726e3a6f6d613a6d6f3a783a312e30 0001010101 01"
)


def element(name: str, *content: Element | str | bytes, page: int = 0) -> Element:
    return Element(name=name, page=page, content=content)


def test_a_syncml_message() -> None:
    message = read_document(PACKAGE_1, SYNCML_1_2)
    header, body = message.elements
    assert [each.name for each in header.elements] == [
        "VerDTD", "VerProto", "SessionID", "MsgID", "Target", "Source", "Meta",
    ]  # fmt: skip
    assert header.elements[-1] == element("Meta", element("MaxMsgSize", "5000", page=1))
    assert body.elements == (element("Alert", element("CmdID", "1"), element("Data", "1201")), element("Final"))


def test_the_writer_makes_the_same_octets_of_a_syncml_message() -> None:
    assert write_document(read_document(PACKAGE_1, SYNCML_1_2), SYNCML_1_2, version=WBXML_1_2) == PACKAGE_1


def test_a_tree_with_its_identifier_in_the_string_table() -> None:
    tree = read_document(TNDS, TNDS_1_2)
    assert tree.elements[0] == element("VerDTD", "1.2", page=2)
    assert tree.elements[1].elements[1].elements[0] == element("Format", element("node", page=2), page=2)
    assert write_document(tree, TNDS_1_2, version=WBXML_1_2) == TNDS


HEAD = "030b6a00"
PROV = "45{}01"  # wap-provisioningdoc with content
ACCEPTED = {
    "empty document element": ("030b6a0005", Element(name="wap-provisioningdoc")),
    "content that is empty": (HEAD + PROV.format(""), element("wap-provisioningdoc")),
    "version 1.0 has no character set": ("000b00" + PROV.format(""), element("wap-provisioningdoc")),
    "a minor version of the future": ("0f0b6a00" + PROV.format(""), element("wap-provisioningdoc")),
    "unknown public identifier": ("03016a00" + PROV.format(""), element("wap-provisioningdoc")),
    "unknown character set counts as UTF-8": (
        "030b0000" + PROV.format("03c3a400"),
        element("wap-provisioningdoc", "ä"),
    ),
    "Latin-1": ("030b0400" + PROV.format("03e400"), element("wap-provisioningdoc", "ä")),
    "identifier in the table": (
        "0300006a1f" + b"-//WAPFORUM//DTD PROV 1.0//EN\0\0".hex() + PROV.format(""),
        element("wap-provisioningdoc"),
    ),
    "identifier in the table without its NUL": (
        "0300006a1d" + b"-//WAPFORUM//DTD PROV 1.0//EN".hex() + PROV.format(""),
        element("wap-provisioningdoc"),
    ),
    "string table reference": ("030b6a03616200" + PROV.format("8301"), element("wap-provisioningdoc", "b")),
    "entity": (HEAD + PROV.format("0281f424"), element("wap-provisioningdoc", "\u7a24")),
    "texts side by side are one": (HEAD + PROV.format("0361000362000243"), element("wap-provisioningdoc", "abC")),
    "opaque": (HEAD + PROV.format("c30200ff"), element("wap-provisioningdoc", b"\0\xff")),
    "text around an opaque": (
        HEAD + PROV.format("036100c30100036200"),
        element("wap-provisioningdoc", "a", b"\0", "b"),
    ),
    "literal tag": ("030b6a027800" + PROV.format("0400"), element("wap-provisioningdoc", Element(name="?"))),
    "literal tag of a known name": (
        "030b6a05" + b"parm\0".hex() + PROV.format("0400"),
        element("wap-provisioningdoc", Element(name="parm")),
    ),
    "unknown tag is kept apart": (
        HEAD + PROV.format("7f03610001"),
        element("wap-provisioningdoc", element(UNKNOWN_NAME, "a")),
    ),
    "unknown tag page": (
        HEAD + PROV.format("000906"),
        element("wap-provisioningdoc", Element(name=UNKNOWN_NAME, page=9)),
    ),
    "tag page 1": (HEAD + PROV.format("000107"), element("wap-provisioningdoc", Element(name="parm", page=1))),
    "unknown attribute": (
        HEAD + PROV.format("877f03610001"),
        element("wap-provisioningdoc", Element(name="parm", attributes=((UNKNOWN_NAME, "a"),))),
    ),
    "literal attribute": (
        "030b6a027800" + PROV.format("87040003610001"),
        element("wap-provisioningdoc", Element(name="parm", attributes=(("x", "a"),))),
    ),
    "attribute without a value": (
        HEAD + PROV.format("870501"),
        element("wap-provisioningdoc", Element(name="parm", attributes=(("name", ""),))),
    ),
    "value tokens joined": (
        HEAD + PROV.format("87000106919301"),
        element("wap-provisioningdoc", Element(name="parm", attributes=(("value", "HTTP-DIGEST"),))),
    ),
    "opaque attribute value": (
        HEAD + PROV.format("8706c3016101"),
        element("wap-provisioningdoc", Element(name="parm", attributes=(("value", "a"),))),
    ),
    "processing instructions": (HEAD + "430501" + PROV.format("430501") + "430501", element("wap-provisioningdoc")),
}


@pytest.mark.parametrize(("octets", "root"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(octets: str, root: Element) -> None:
    assert read_document(bytes.fromhex(octets), PROV_1_1) == root


def test_tag_page_and_attribute_page_are_independent() -> None:
    """A switch inside attributes does not move the tag page, and the attribute page outlives its element."""
    root = read_document(bytes.fromhex(HEAD + PROV.format("8700013601 873501")), PROV_1_1)
    assert [(each.name, each.page, each.attributes) for each in root.elements] == [
        ("parm", 0, (("name", "APPID"),)),
        ("parm", 0, (("name", "ADDRTYPE"),)),
    ]


REFUSED = {
    "nothing": "",
    "version only": "03",
    "major version 2": "130b6a0005",
    "another public identifier": "03a4016a0005",
    "another identifier in the table": "0300006a02780005",
    "identifier outside the table": "0300006a0005",
    "character set UTF-16": "030b87780005",
    "string table longer than the document": "030b6a7f05",
    "no document element": HEAD,
    "END instead of an element": HEAD + "01",
    "string instead of an element": HEAD + "036100",
    "another document element": HEAD + "06",
    "content without END": HEAD + "45",
    "attributes without END": HEAD + "8507",
    "string without NUL": HEAD + "450361",
    "opaque beyond the end": HEAD + "45c3056101",
    "opaque of four gigabytes": HEAD + "45c38fffffff7f01",
    "number of 33 bits": HEAD + "45c39fffffff7f01",
    "number of six octets": HEAD + "45c380808080800001",
    "table index outside": "030b6a026100" + "45830201",
    "text that is not UTF-8": HEAD + "4503ff0001",
    "text that is not ASCII": "030b0300" + "4503c3a40001",
    "entity of NUL": HEAD + "45020001",
    "entity of a surrogate": HEAD + "450283b00001",
    "entity beyond Unicode": HEAD + "4502c4800001",
    "extension token": HEAD + "45c001",
    "inline extension": HEAD + "4540610001",
    "octets after the document": HEAD + "0500",
    "a second document": HEAD + "0505",
    "attribute value before any attribute": HEAD + "85036100" + "01",
    "unknown attribute value": HEAD + "458706fe0101",
    "extension in an attribute": HEAD + "458706400101",
    "end inside a page switch": HEAD + "4500",
}


@pytest.mark.parametrize("octets", REFUSED.values(), ids=REFUSED)
def test_refused(octets: str) -> None:
    with pytest.raises(MalformedWbxml):
        read_document(bytes.fromhex(octets), PROV_1_1)


def nested(depth: int) -> bytes:
    return bytes.fromhex(HEAD + "45" + "46" * (depth - 1) + "01" * depth)


BOMBS = {
    "size": (nested(3), Limits(max_size=8)),
    "depth": (nested(33), Limits()),
    "a very deep document": (nested(100_000), Limits()),
    "elements": (bytes.fromhex(HEAD + "45" + "06" * 50 + "01"), Limits(max_items=50)),
    "attributes": (bytes.fromhex(HEAD + "85" + "05" * 50 + "01"), Limits(max_items=50)),
    "attribute values": (bytes.fromhex(HEAD + "8505" + "85" * 50 + "01"), Limits(max_items=50)),
    "pieces of text": (bytes.fromhex(HEAD + "45" + "036100" * 50 + "01"), Limits(max_items=50)),
    "opaques": (bytes.fromhex(HEAD + "45" + "c300" * 50 + "01"), Limits(max_items=50)),
    "one long table entry referred to again and again": (
        bytes.fromhex("030b6a8800") + b"a" * 1023 + b"\0" + bytes.fromhex("45" + "8300" * 2000 + "01"),
        Limits(),
    ),
}


@pytest.mark.parametrize(("octets", "limits"), BOMBS.values(), ids=BOMBS)
def test_limits(octets: bytes, limits: Limits) -> None:
    with pytest.raises(MalformedWbxml):
        read_document(octets, PROV_1_1, limits)


def test_the_limit_of_depth_is_inclusive() -> None:
    read_document(nested(32), PROV_1_1)


UNWRITABLE = {
    "another document element": element("parm"),
    "no such tag": element("wap-provisioningdoc", element("nobody")),
    "no such page": element("wap-provisioningdoc", element("parm", page=7)),
    "no such attribute": Element(name="wap-provisioningdoc", attributes=(("nobody", ""),)),
    "NUL in text": element("wap-provisioningdoc", "a\0b"),
    "lone surrogate": element("wap-provisioningdoc", "\udc00"),
}


@pytest.mark.parametrize("root", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_the_writer_refuses(root: Element) -> None:
    with pytest.raises(LocalProtocolError):
        write_document(root, PROV_1_1)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def elements(pages: CodePages) -> st.SearchStrategy[Element]:
    """Elements of a document type with every token; neighbouring texts are avoided since a reader joins them."""
    names = st.sampled_from([(page, name) for page, tags in pages.tags.items() for name in tags.values()])
    starts = sorted({name for tokens in pages.attribute_starts.values() for name, _ in tokens.values()})
    values = TEXT | st.sampled_from(
        sorted({v for tokens in pages.attribute_values.values() for v in tokens.values()}) or ["x"]
    )
    attributes = st.lists(st.tuples(st.sampled_from(starts), values), max_size=3) if starts else st.just([])

    def build(children: st.SearchStrategy[Element | None]) -> st.SearchStrategy[Element]:
        content = (
            st.lists(children, max_size=3).map(lambda inside: [each for each in inside if each])
            | st.tuples(TEXT)
            | st.tuples(st.binary(max_size=20))
        )
        return st.builds(
            lambda page_name, attrs, inside: Element(
                page=page_name[0], name=page_name[1], attributes=tuple(attrs), content=tuple(inside)
            ),
            names, attributes, content,
        )  # fmt: skip

    return st.recursive(build(st.none()), build, max_leaves=12)


@pytest.mark.parametrize(
    ("pages", "root_page"), [(SYNCML_1_2, 0), (TNDS_1_2, 2), (PROV_1_1, 0)], ids=["dm", "tnds", "prov"]
)
def test_read_what_was_written(pages: CodePages, root_page: int) -> None:
    @given(st.lists(elements(pages), max_size=3))
    def round_trip(children: list[Element]) -> None:
        root = Element(name=pages.root, page=root_page, content=tuple(children))
        assert read_document(write_document(root, pages), pages) == root

    round_trip()


@pytest.mark.parametrize("pages", [SYNCML_1_2, TNDS_1_2, PROV_1_1], ids=lambda pages: pages.name)
def test_any_octets_give_a_document_or_a_typed_error(pages: CodePages) -> None:
    tokens = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 0x43, 0x45, 0x83, 0x84, 0x87, 0xC3, 0xC6]), max_size=40)

    @given(st.binary(max_size=80) | st.builds(lambda each: bytes((3, 1, 0x6A, 2, 0x61, 0, *each)), tokens))
    def read(octets: bytes) -> None:
        try:
            root = read_document(octets, pages)
        except RemoteProtocolError:
            return
        assert root.name == pages.root

    read()


@pytest.mark.parametrize("octets", [PACKAGE_1, TNDS], ids=["message", "tree"])
def test_every_truncation_is_refused(octets: bytes) -> None:
    pages = SYNCML_1_2 if octets is PACKAGE_1 else TNDS_1_2
    for length in range(len(octets)):
        with pytest.raises(MalformedWbxml):
            read_document(octets[:length], pages)


@pytest.mark.parametrize("pages", [SYNCML_1_2, TNDS_1_2, PROV_1_1], ids=lambda pages: pages.name)
def test_tables_hold_tokens_where_tokens_can_be(pages: CodePages) -> None:
    reserved = {0x40, 0x41, 0x42, 0x43, 0x44}
    for tags in pages.tags.values():
        assert all(0x05 <= token <= 0x3F for token in tags)
        assert len(set(tags.values())) == len(tags)
    for starts in pages.attribute_starts.values():
        assert all(0x05 <= token <= 0x7F for token in starts)
        assert not reserved & set(starts)
        assert len(set(starts.values())) == len(starts)
    for values in pages.attribute_values.values():
        assert all(token >= 0x85 and token not in range(0xC0, 0xC5) for token in values)
