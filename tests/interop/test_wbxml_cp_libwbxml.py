"""Our WBXML against libwbxml's tools (Debian package libwbxml2-utils): provisioning documents and SyncML (REQ-07)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from lxml import etree

from syncml.bootstrap import (
    Characteristic,
    DmBootstrap,
    DmCredentials,
    NapDef,
    Parm,
    decode_cp,
    encode_cp,
    from_document,
    to_document,
)
from syncml.codes import AuthType
from syncml.wbxml import Element, read_document, write_document
from syncml.wbxml.prov_pages import PROV_1_1
from syncml.wbxml.syncml_pages import SYNCML_1_2

pytestmark = pytest.mark.skipif(
    shutil.which("xml2wbxml") is None or shutil.which("wbxml2xml") is None,
    reason="xml2wbxml and wbxml2xml are not installed (apt-get install libwbxml2-utils)",
)

PROLOGUE = (
    '<?xml version="1.0"?><!DOCTYPE wap-provisioningdoc PUBLIC "-//WAPFORUM//DTD PROV 1.0//EN" '
    '"http://www.wapforum.org/DTD/prov.dtd">'
)
MESSAGE_PROLOGUE = (
    '<?xml version="1.0"?><!DOCTYPE SyncML PUBLIC "-//SYNCML//DTD SyncML 1.2//EN" '
    '"http://www.openmobilealliance.org/tech/DTD/OMA-TS-SyncML_RepPro_DTD-V1_2.dtd">'
)

ACCOUNTS = {
    "least": DmBootstrap(server_id="srv", addr="http://a/dm"),
    "w7": DmBootstrap(
        server_id="srv",
        name="DM",
        addr="http://a/dm",
        client=DmCredentials(auth_type=AuthType.MD5, name="u", secret="p", nonce=b"nonce"),
    ),
    "full": DmBootstrap(
        server_id="dpf.example.test",
        name="Ä & <B>",
        addr="https://dpf.example.test/dm",
        port=8443,
        client=DmCredentials(auth_type=AuthType.BASIC, name="m2m-1", secret="MD5", nonce=b"\0\1"),
        server=DmCredentials(auth_type=AuthType.MAC, name="dpf", secret="s", nonce=b""),
        to_napids=("NAP1",),
        napdefs=(
            NapDef(napid="NAP1", bearers=("GSM-GPRS", "PAP"), name="N", address="apn.example", address_type="APN"),
        ),
    ),
}


def run(tool: str, arguments: list[str], octets: bytes, tmp_path: Path) -> bytes:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(octets)
    subprocess.run([tool, *arguments, "-o", str(target), str(source)], check=True, capture_output=True, timeout=20)
    return target.read_bytes()


def xml_of(characteristic: Characteristic) -> str:
    def parm(each: Parm) -> str:
        value = "" if each.value is None else f" value={quoteattr(each.value)}"
        return f"<parm name={quoteattr(each.name)}{value}/>"

    inside = "".join(map(parm, characteristic.parms)) + "".join(map(xml_of, characteristic.characteristics))
    return f"<characteristic type={quoteattr(characteristic.type)}>{inside}</characteristic>"


def shape(element: etree._Element) -> tuple[object, ...]:
    return element.tag, dict(element.attrib), [shape(child) for child in element]


def parse(octets: bytes) -> etree._Element:
    return etree.fromstring(octets, etree.XMLParser(load_dtd=False, no_network=True, resolve_entities=False))


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=ACCOUNTS)
def test_libwbxml_reads_our_document(account: DmBootstrap, tmp_path: Path) -> None:
    document = to_document(account)
    theirs = run("wbxml2xml", [], encode_cp(document), tmp_path)
    inside = "".join(map(xml_of, document.characteristics))
    ours = f'<wap-provisioningdoc version="1.1">{inside}</wap-provisioningdoc>'.encode()
    assert shape(parse(theirs)) == shape(parse(ours))


@pytest.mark.parametrize("options", [[], ["-n"], ["-v", "1.1"], ["-a"]], ids=["table", "no-table", "v1.1", "anonymous"])
@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=ACCOUNTS)
def test_we_read_libwbxmls_document(account: DmBootstrap, options: list[str], tmp_path: Path) -> None:
    inside = "".join(map(xml_of, to_document(account).characteristics))
    xml = f'{PROLOGUE}<wap-provisioningdoc version="1.1">{inside}</wap-provisioningdoc>'
    assert from_document(decode_cp(run("xml2wbxml", options, xml.encode(), tmp_path))) == account


def test_the_same_octets_as_libwbxml(tmp_path: Path) -> None:
    document = to_document(ACCOUNTS["w7"])
    xml = f'{PROLOGUE}<wap-provisioningdoc version="1.1">{xml_of(document.characteristics[0])}</wap-provisioningdoc>'
    assert encode_cp(document) == run("xml2wbxml", ["-n"], xml.encode(), tmp_path)


def test_every_attribute_token_means_the_same_to_libwbxml(tmp_path: Path) -> None:
    """Characteristics of every type, parms of every name, values of every token, from both pages."""
    types = sorted(
        {value for tokens in PROV_1_1.attribute_starts.values() for name, value in tokens.values() if name == "type"}
    )
    names = sorted(
        {value for tokens in PROV_1_1.attribute_starts.values() for name, value in tokens.values() if name == "name"}
    )
    values = sorted({value for tokens in PROV_1_1.attribute_values.values() for value in tokens.values()})
    parms = [(("name", name),) for name in names if name] + [(("name", "NAME"), ("value", value)) for value in values]
    groups = tuple(
        Element(
            name="characteristic",
            attributes=(("type", each),),
            content=tuple(Element(name="parm", attributes=parm) for parm in parms),
        )
        for each in types
        if each
    )
    octets = write_document(Element(name="wap-provisioningdoc", content=groups), PROV_1_1)
    theirs = parse(run("wbxml2xml", [], octets, tmp_path))
    assert [group.get("type") for group in theirs] == [each for each in types if each]
    for group in theirs:
        assert [tuple(parm.attrib.items()) for parm in group] == parms


def syncml_xml(element: Element) -> str:
    inside = "".join(syncml_xml(each) if isinstance(each, Element) else str(each) for each in element.content)
    return f"<{element.name}>{inside}</{element.name}>"


def test_syncml_and_metinf_tokens_mean_the_same_to_libwbxml(tmp_path: Path) -> None:
    """Every tag of pages 0 and 1, in places where libwbxml does not rewrite the content."""
    children = tuple(
        Element(name=name, page=page, content=("x",)) for page in (0, 1) for name in SYNCML_1_2.tags[page].values()
        if name not in ("SyncML", "Data", "NextNonce", "Type", "MetInf")
    )  # fmt: skip
    octets = write_document(Element(name="SyncML", content=children), SYNCML_1_2, version=2)
    theirs = parse(run("wbxml2xml", [], octets, tmp_path))
    assert [(etree.QName(each).localname, each.text) for each in theirs] == [(each.name, "x") for each in children]


def test_we_read_libwbxmls_message(tmp_path: Path) -> None:
    header = Element(
        name="SyncHdr",
        content=(
            Element(name="VerDTD", content=("1.2",)),
            Element(name="VerProto", content=("DM/1.2",)),
            Element(name="Source", content=(Element(name="LocURI", content=("IMEI:1",)),)),
        ),
    )
    root = Element(name="SyncML", content=(header, Element(name="SyncBody", content=(Element(name="Final"),))))
    xml = MESSAGE_PROLOGUE + syncml_xml(root)
    for options in ([], ["-n"], ["-v", "1.2"]):
        assert read_document(run("xml2wbxml", options, xml.encode(), tmp_path), SYNCML_1_2) == root
