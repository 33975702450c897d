"""Messages and trees against libwbxml's tools (Debian package libwbxml2-utils), both ways.

Where libwbxml says something else than we do, one test names the difference:

- it writes a tree that stands as elements in `Data` as a nested document and its media type as `…+wbxml`;
- it changes the media type even where the tree is escaped text and stays text;
- it has no Base64 for `bin`: octets of an opaque stand raw in its XML, which only goes for octets that are text;
- it puts line ends between elements, never into user data, and writes CDATA as an opaque and opaques as CDATA;
- it reads an opaque NextNonce as raw octets and shows them as Base64.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from syncml.codec import Encoding, decode, encode
from syncml.codes import Format, MediaType
from syncml.document import METINF, Element
from syncml.message_writer import write_message
from syncml.model import Add, Item, Message, Meta, SyncHdr
from syncml.tnds import Tnds, decode_tnds, encode_tnds
from syncml.values import item_value, leaf_item
from syncml.wbxml import write_document
from syncml.wbxml.syncml_pages import SYNCML_1_2
from tests.fuzz.message_seeds import MESSAGES, TREE

pytestmark = pytest.mark.skipif(
    shutil.which("xml2wbxml") is None or shutil.which("wbxml2xml") is None,
    reason="xml2wbxml and wbxml2xml are not installed (apt-get install libwbxml2-utils)",
)

DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>'
MESSAGE_TYPE = (
    b'<!DOCTYPE SyncML PUBLIC "-//SYNCML//DTD SyncML 1.2//EN" '
    b'"http://www.openmobilealliance.org/tech/DTD/OMA-TS-SyncML_RepPro_DTD-V1_2.dtd">'
)
TREE_TYPE = (
    b'<!DOCTYPE MgmtTree PUBLIC "-//OMA//DTD-DM-DDF 1.2//EN" '
    b'"http://www.openmobilealliance.org/tech/DTD/DM_DDF-V1_2.dtd">'
)
OPTIONS = {"table": [], "no table": ["-n"], "1.1": ["-v", "1.1"], "1.2": ["-v", "1.2"], "anonymous": ["-a"]}
HEADER = SyncHdr(session_id="1", msg_id="1", target="t", source="s")


def run(tool: str, arguments: Sequence[str], octets: bytes, directory: Path) -> bytes:
    source, target = directory / "in", directory / "out"
    source.write_bytes(octets)
    subprocess.run([tool, *arguments, "-o", str(target), str(source)], check=True, capture_output=True, timeout=20)
    return target.read_bytes()


def to_wbxml(xml: bytes, directory: Path, options: Sequence[str] = (), document_type: bytes = MESSAGE_TYPE) -> bytes:
    return run("xml2wbxml", options, DECLARATION + document_type + xml.removeprefix(DECLARATION), directory)


def to_xml(wbxml: bytes, directory: Path) -> bytes:
    return run("wbxml2xml", [], wbxml, directory)


def of(item: Item) -> Message:
    return Message(header=HEADER, commands=(Add(cmd_id="1", items=(item,)),), final=True)


def item_of(message: Message) -> Item:
    (command,) = message.commands
    assert isinstance(command, Add)
    return command.items[0]


# A tree for the inbox is the business of the tests below; octets become text before libwbxml sees them as opaques.
PLAIN = {name: message for name, message in MESSAGES.items() if name != "a tree for the inbox"}
TEXTS = {
    "characters to escape": "1 < 2 & 3 > 2 \"'",
    "not ASCII": "Übernehmen? 確認 😀",
    "white space inside": "a  b\tc",
    "white space around": " v ",
    "XML": '<a b="c">&amp;</a>',
    "empty": "",
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", PLAIN)
def test_we_read_what_libwbxml_makes_of_our_xml(name: str, options: list[str], tmp_path: Path) -> None:
    """XS-027, XI-1: the same message."""
    xml = encode(PLAIN[name], Encoding.XML)
    assert decode(to_wbxml(xml, tmp_path, options), Encoding.WBXML) == decode(xml, Encoding.XML)


@pytest.mark.parametrize("name", PLAIN)
def test_libwbxml_reads_our_wbxml(name: str, tmp_path: Path) -> None:
    """XS-027, XI-1: through its XML, the same message; octets as letters, for its XML shows them raw."""
    message = PLAIN[name]
    octets = encode(message, Encoding.WBXML).replace(b"\xc3\x02\x00\xff", b"\xc3\x02ab")
    ours = decode(octets, Encoding.WBXML)

    def shown(item: Item) -> Item:
        return replace(item, data=item.data.decode()) if isinstance(item.data, bytes) else item

    commands = tuple(
        replace(each, items=tuple(shown(item) for item in each.items)) if isinstance(each, Add) else each
        for each in ours.commands
    )
    assert decode(to_xml(octets, tmp_path), Encoding.XML) == replace(ours, commands=commands)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_user_data_survives(text: str, tmp_path: Path) -> None:
    """Interop: what libwbxml drops as white space is never user data with anything else in it."""
    message = of(leaf_item("./A", text))
    assert decode(to_wbxml(encode(message, Encoding.XML), tmp_path, ["-k"]), Encoding.WBXML) == message
    assert decode(to_xml(encode(message, Encoding.WBXML), tmp_path), Encoding.XML) == message


def test_cdata_is_an_opaque(tmp_path: Path) -> None:
    """RepPro §8: text all the same, for every Format but bin."""
    for text_format in (Format.CHR, Format.XML):
        message = of(leaf_item("./A", "<a>&</a>", format=text_format))
        xml = encode(message, Encoding.XML).replace(b"&lt;a&gt;&amp;&lt;/a&gt;", b"<![CDATA[<a>&</a>]]>")
        wbxml = to_wbxml(xml, tmp_path)
        assert b"\xc3\x08<a>&</a>" in wbxml
        assert decode(wbxml, Encoding.WBXML) == message


def test_an_opaque_is_cdata(tmp_path: Path) -> None:
    """XC-061: libwbxml shows octets of `bin` raw in CDATA, where Base64 should stand."""
    message = of(leaf_item("./A", b"text", format=Format.BIN))
    xml = to_xml(encode(message, Encoding.WBXML), tmp_path)
    assert b"<![CDATA[text]]>" in xml
    read = item_of(decode(xml, Encoding.XML))
    assert (read.data, read.meta and read.meta.format) == ("text", "bin")


def test_base64_stays_text(tmp_path: Path) -> None:
    """XC-061: `b64` is the same text on both sides."""
    message = of(leaf_item("./A", "AP8=", format=Format.B64))
    read = decode(to_wbxml(encode(message, Encoding.XML), tmp_path), Encoding.WBXML)
    assert read == message
    assert item_value(item_of(read)) == b"\x00\xff"
    assert decode(to_xml(encode(message, Encoding.WBXML), tmp_path), Encoding.XML) == message


def test_an_opaque_nonce_is_raw_to_both(tmp_path: Path) -> None:
    """Interop: S60 devices write it so; libwbxml makes Base64 of it."""
    message = Message(header=replace(HEADER, meta=Meta(next_nonce=b"abcdefghijklmnop")))
    header, body = write_message(message, Encoding.WBXML).elements
    nonce = Element(name="NextNonce", page=METINF, content=(b"abcdefghijklmnop",))
    opaque = replace(header, content=(*header.content[:-1], Element(name="Meta", content=(nonce,))))
    octets = write_document(Element(name="SyncML", content=(opaque, body)), SYNCML_1_2)
    assert decode(octets, Encoding.WBXML) == message
    assert decode(to_xml(octets, tmp_path), Encoding.XML) == message


# -- trees ---------------------------------------------------------------------------------------------------------

XML_TREE = str(encode_tnds(TREE, Encoding.XML)).encode()
TEXT_TREE = Tnds((replace(TREE.nodes[0], children=TREE.nodes[0].children[1:]),), "Acme", "T1")  # without the octets


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_we_read_libwbxmls_tree(options: list[str], tmp_path: Path) -> None:
    """XI-10: `bin` as Base64 text, which we read as octets."""
    octets = to_wbxml(XML_TREE, tmp_path, options, TREE_TYPE)
    assert decode_tnds(octets) == TREE


def test_libwbxml_reads_our_tree(tmp_path: Path) -> None:
    """XI-10."""
    octets = encode_tnds(TEXT_TREE, Encoding.WBXML)
    assert isinstance(octets, bytes)
    assert decode_tnds(to_xml(octets, tmp_path)) == TEXT_TREE


def test_octets_of_a_tree_stand_raw_in_libwbxmls_xml(tmp_path: Path) -> None:
    """XI-10: no XML document any more when they are no text; our own XML has Base64."""
    octets = encode_tnds(TREE, Encoding.WBXML)
    assert isinstance(octets, bytes)
    assert b"<Value>\x00\xff</Value>" in to_xml(octets, tmp_path)


def test_a_tree_as_elements_becomes_a_nested_document(tmp_path: Path) -> None:
    """XI-10, interop: with its media type changed; the Format stays."""
    item = leaf_item("./Inbox", "@", format=Format.XML, type=MediaType.TNDS_XML)
    xml = encode(of(item), Encoding.XML).replace(b"@", XML_TREE)
    read = item_of(decode(to_wbxml(xml, tmp_path), Encoding.WBXML))
    assert read.meta == Meta(format="xml", type=MediaType.TNDS_WBXML)
    assert isinstance(read.data, bytes)
    assert decode_tnds(read.data) == TREE


def test_a_tree_as_text_stays_text_under_another_media_type(tmp_path: Path) -> None:
    """XI-10, interop: so the data itself says what it is, not its media type."""
    item = leaf_item("./Inbox", XML_TREE.decode(), format=Format.XML, type=MediaType.TNDS_XML)
    read = item_of(decode(to_wbxml(encode(of(item), Encoding.XML), tmp_path), Encoding.WBXML))
    assert read.meta == Meta(format="xml", type=MediaType.TNDS_WBXML)
    assert read.data == item.data
    assert decode_tnds(read.data or "") == TREE


def test_our_nested_document_becomes_elements(tmp_path: Path) -> None:
    """XI-10: libwbxml unpacks it, and its elements in Data are read as the tree."""
    item = leaf_item("./Inbox", encode_tnds(TEXT_TREE, Encoding.WBXML), format=Format.XML, type=MediaType.TNDS_WBXML)
    read = item_of(decode(to_xml(encode(of(item), Encoding.WBXML), tmp_path), Encoding.XML))
    assert read.meta == Meta(format="xml", type=MediaType.TNDS_XML)
    assert isinstance(read.data, str)
    assert decode_tnds(read.data) == TEXT_TREE
