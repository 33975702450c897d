# ruff: noqa: E501  # a row of a table stays on one line
"""Vendors' device descriptions: what is tolerated and told, what is refused with its line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mo_definitions import DdfError, parse_ddf, parse_ddfs, read_ddf_file, shipped
from mo_definitions.vendor_ddf import MAX_NOTES, MAX_VENDOR_SIZE
from syncml.codes import Format
from syncml.document import Limits
from syncml.tree import AccessType, Scope
from syncml.wbxml import write_document
from syncml.wbxml.syncml_pages import TNDS_1_2
from syncml.xml_document import read_xml

VECTORS = Path(__file__).parents[1] / "vectors" / "ddf"
SHIPPED = Path(__file__).parents[2] / "mo_definitions" / "ddf"


def document(*parts: str, version: str = "<VerDTD>1.2</VerDTD>") -> bytes:
    return f"<MgmtTree>{version}{''.join(parts)}</MgmtTree>".encode()


def leaf(properties: str, *, before: str = "", after: str = "", name: str = "<NodeName>A</NodeName>") -> str:
    return f"<Node>{name}{before}<DFProperties>{properties}</DFProperties>{after}</Node>"


GET = "<AccessType><Get/></AccessType>"
CHR = "<DFFormat><chr/></DFFormat>"
MIME = "<DFType><MIME>text/plain</MIME></DFType>"
BOOL = f"{GET}<DefaultValue>%s</DefaultValue><DFFormat><bool/></DFFormat>{MIME}"


@pytest.mark.parametrize("name", shipped())
def test_what_is_right_needs_no_tolerance(name):
    """A file as the specification has it is read the same by both readers, without a note."""
    octets = (SHIPPED / f"{name}.xml").read_bytes()
    assert parse_ddfs(octets) == (parse_ddf(octets),)


def as_wbxml(octets: bytes) -> bytes:
    octets = octets.replace(b"<MgmtTree>", b'<MgmtTree xmlns="syncml:dmddf1.2">')
    limits = Limits(max_size=len(octets), max_depth=64, max_items=100_000)
    return write_document(read_xml(octets, "MgmtTree", limits), TNDS_1_2)


@pytest.mark.parametrize("name", shipped())
def test_wbxml_is_the_xml_it_stands_for(name, tmp_path):
    """OMA-TS-DM_TND-V1_2 §12: a description may come as application/vnd.syncml.dmddf+wbxml."""
    octets = (SHIPPED / f"{name}.xml").read_bytes()
    (tmp_path / "ddf.wbxml").write_bytes(as_wbxml(octets))
    assert read_ddf_file(tmp_path / "ddf.wbxml") == parse_ddfs(octets)


WBXML_FAULTS = {
    "truncated": as_wbxml(document(leaf(f"{GET}{CHR}{MIME}")))[:-1],
    "another type of document": bytes.fromhex("02a4016a006d01"),
    "too deep": bytes.fromhex("02010000 0002 60") + b"\x64" * 300 + b"\x01" * 301,
    "a character that XML has not": as_wbxml(document(leaf(f"{GET}{CHR}{MIME}"))).replace(
        b"text/plain", b"text/\x01lain"
    ),
    "against the content model": as_wbxml(document(leaf(f"{GET}{CHR}{MIME}<Scope><Get/></Scope>"))),
    "version 1.0": bytes.fromhex("0001 00"),
}


@pytest.mark.parametrize("octets", WBXML_FAULTS.values(), ids=WBXML_FAULTS)
def test_wbxml_that_is_refused(octets):
    """Whatever is wrong with a file is one typed error."""
    with pytest.raises(DdfError):
        parse_ddfs(octets)


def test_configuration_service_provider_style():
    """Windows CSP manner: namespace of the vendor, empty MIME, DDFName at leaves, several objects, DOCTYPE with a PI."""
    gadget, info = read_ddf_file(VECTORS / "csp-style-gadget.xml")
    assert (gadget.path, info.path, info.root.format, info.root.default) == ("./Device/Vendor/Example",) * 2 + (
        Format.CHR,
        "v1",
    )
    assert gadget.root.description == "Root of <all> gadget settings & more."
    enabled, level, reset, profiles = gadget.root.children
    assert (enabled.default, enabled.types, enabled.scope) == ("true", ("text/plain",), Scope.PERMANENT)
    assert (level.default, level.types) == (None, ("text/plain",))
    assert (reset.format, reset.access) == (Format.NULL, {AccessType.EXEC})
    profile = profiles.children[0]
    assert (profile.object_type, profile.occurrence.maximum) == ("org.example/1.0/Profile", 2)
    assert profile.children[0].types == ("application/octet-stream",)
    with pytest.raises(DdfError):
        parse_ddf((VECTORS / "csp-style-gadget.xml").read_bytes())


def test_handset_style():
    """DDF 1.1.2 manner: hardly any DFProperties, order as it came, Format and Type as text."""
    (browser,) = read_ddf_file(VECTORS / "handset-style-1.1.2.xml")
    assert (browser.manufacturer, browser.model, browser.path) == ("Example", "Handy 7", None)
    page, marks = browser.root.children
    assert (browser.root.format, browser.root.access) == (Format.NODE, {AccessType.GET})
    assert (page.default, page.access) == ("http://example.org/", {AccessType.GET, AccessType.REPLACE})
    assert (marks.format, marks.occurrence.maximum, marks.default) == (Format.NODE, 1, None)


# fmt: off
TOLERANCES = {
    "foreign element": (document('<x:Y xmlns:x="urn:x"/>', leaf(f"{GET}{CHR}{MIME}")), "Y of urn:x passed over"),
    "foreign attribute": (document('<Node xmlns:x="urn:x" x:y="1"><NodeName>A</NodeName></Node>'), "attribute y passed over"),
    "plain attribute": (document('<Node id="1"><NodeName>A</NodeName></Node>'), "attribute id passed over"),
    "VerDTD missing": (document(leaf(f"{GET}{CHR}{MIME}"), version=""), "no VerDTD, taken as 1.2"),
    "VerDTD 1.1.2": (document(leaf(f"{GET}{CHR}{MIME}"), version="<VerDTD>1.1.2</VerDTD>"), "VerDTD 1.1.2"),
    "order of DFProperties": (document(leaf(f"{MIME}{CHR}{GET}")), "children of DFProperties in another order"),
    "order of AccessType": (document(leaf(f"<AccessType><Replace/><Get/></AccessType>{CHR}{MIME}")), "children of AccessType in another order"),
    "a property twice": (document(leaf(f"{GET}{CHR}{CHR}{MIME}")), "DFFormat once more, the first counts"),
    "NodeName missing": (document(leaf(f"{GET}{CHR}{MIME}", name="")), "no NodeName, taken as unnamed"),
    "DFProperties missing": (document("<Node><NodeName>A</NodeName></Node>"), "no DFProperties, taken as readable"),
    "AccessType missing": (document(leaf(f"{CHR}{MIME}")), "no AccessType, taken as Get"),
    "DFFormat missing": (document(leaf(f"{GET}{MIME}")), "no DFFormat, taken as chr"),
    "DFFormat as text": (document(leaf(f"{GET}<DFFormat>INT</DFFormat>{MIME}")), "DFFormat int in another spelling"),
    "DFType missing": (document(leaf(f"{GET}{CHR}")), "no DFType"),
    "DFType empty": (document(leaf(f"{GET}{CHR}<DFType><MIME/></DFType>")), "DFType taken as text/plain"),
    "DFType as text": (document(leaf(f"{GET}{CHR}<DFType>text/xml</DFType>")), "DFType taken as text/xml"),
    "DFType with both": (document(leaf(f"{GET}{CHR}<DFType><MIME>a/b</MIME><DDFName/></DFType>")), "DFType taken as a/b"),
    "DDFName at a leaf": (document(leaf(f"{GET}{CHR}<DFType><DDFName>x</DDFName></DFType>")), "DFType taken as text/plain"),
    "MIME at an interior node": (document(leaf(f"{GET}<DFFormat><node/></DFFormat>{MIME}")), "DFType taken as unnamed"),
    "leaf with children": (document(leaf(f"{GET}{CHR}{MIME}", after="<Node><NodeName>B</NodeName></Node>")), "a node of format chr with child nodes, taken as interior"),
    "default of an interior node": (document(leaf(f"{GET}<DefaultValue>x</DefaultValue><DFFormat><node/></DFFormat><DFType><DDFName/></DFType>")), "DefaultValue of an interior node passed over"),
    "default in another spelling": (document(leaf(BOOL % "1")), "DefaultValue in another spelling"),
    "default that does not fit": (document(leaf(BOOL % "maybe")), "DefaultValue that is no bool passed over"),
    "Occurrence empty": (document(leaf(f"{GET}{CHR}<Occurrence/>{MIME}")), "Occurrence without a choice passed over"),
    "Occurrence of a named node": (document(leaf(f"{GET}{CHR}<Occurrence><ZeroOrMore/></Occurrence>{MIME}")), "Occurrence ZeroOrMore of a node that has a name"),
    "RTProperties": (document(leaf(f"{GET}{CHR}{MIME}", before="<RTProperties><ACL/></RTProperties>")), "RTProperties passed over: RTProperties without Type"),
    "Path with a slash": (document(leaf(f"{GET}{CHR}{MIME}", before="<Path>./X/</Path>")), "Path is empty or ends with a slash"),
}
# fmt: on


@pytest.mark.parametrize(("octets", "note"), TOLERANCES.values(), ids=TOLERANCES)
def test_each_tolerance_is_told(octets, note):
    """The file is read and says what was tolerated, with the line; the strict reader refuses all of them."""
    (found,) = parse_ddfs(octets)
    assert [each.partition(": ")[2] for each in found.tolerated].count(note) == 1
    assert all(each.startswith("line ") for each in found.tolerated)
    with pytest.raises(DdfError):
        parse_ddf(octets)


# fmt: off
REFUSED = {
    "entity in the DOCTYPE": ((VECTORS / "nonconformant-entity-in-doctype.xml").read_bytes(), 4, "declaration"),
    "two children of one name": ((VECTORS / "nonconformant-leaf-named-twice.xml").read_bytes(), 3, "two children"),
    "unknown element": ((VECTORS / "nonconformant-unknown-element.xml").read_bytes(), 5, "Colour"),
    "not well-formed": (b"<MgmtTree>\n<Node>", 2, "not well-formed"),
    "another document": (b"<html/>", 1, "not MgmtTree"),
    "foreign document": (b'<MgmtTree xmlns="urn:x"/>', 1, "foreign"),
    "no node": (document(), 1, "Node"),
    "another version": (document(leaf(f"{GET}{CHR}{MIME}"), version="<VerDTD>2.0</VerDTD>"), 1, "VerDTD"),
    "unknown format": (document(leaf(f"{GET}<DFFormat><blob/></DFFormat>{MIME}")), 1, "DFFormat"),
    "unknown access": (document(leaf(f"<AccessType><Fly/></AccessType>{CHR}{MIME}")), 1, "Fly"),
    "unknown scope": (document(leaf(f"{GET}{CHR}<Scope><Local/></Scope>{MIME}")), 1, "Scope"),
    "text among elements": (document("loose", leaf(f"{GET}{CHR}{MIME}")), 1, "text inside"),
    "malformed Path": (document(leaf(f"{GET}{CHR}{MIME}", before="<Path>/a</Path>")), 1, "Path"),
    "DOCTYPE without end": (b"<!DOCTYPE MgmtTree [<!-- -->] ", 1, "DOCTYPE"),
    "comment without end": (b"<!-- <MgmtTree/>", 1, "comment"),
    "too large": (b"<" + b" " * MAX_VENDOR_SIZE, 0, "octets"),
    "too deep": (document("<Node><NodeName>A</NodeName>" * 60 + "</Node>" * 60), 1, "levels"),
}
# fmt: on


@pytest.mark.parametrize(("octets", "line", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_with_line_and_reason(octets, line, reason):
    with pytest.raises(DdfError, match=reason) as caught:
        parse_ddfs(octets)
    assert caught.value.line == line


def test_the_number_of_nodes_is_bounded(monkeypatch):
    monkeypatch.setattr("mo_definitions.vendor_ddf.MAX_VENDOR_NODES", 10)
    nodes = [f"<Node><NodeName>n{number}</NodeName></Node>" for number in range(11)]
    assert len(parse_ddfs(document(*nodes[:10]))) == 10
    with pytest.raises(DdfError, match="more nodes"):
        parse_ddfs(document(*nodes))


def test_notes_are_bounded():
    """A file cannot make the list of its own faults endless."""
    many = document("".join(f"<Node><NodeName>n{n}</NodeName></Node>" for n in range(MAX_NOTES)))
    notes = parse_ddfs(many)[0].tolerated
    assert len(notes) == MAX_NOTES + 1
    assert notes[-1].endswith(" more")


@settings(max_examples=60)
@given(st.data())
def test_any_octets_give_objects_or_a_typed_error(data):
    """Changed samples and noise: a description or a `DdfError`, nothing else."""
    sample = (VECTORS / data.draw(st.sampled_from(["csp-style-gadget.xml", "handset-style-1.1.2.xml"]))).read_bytes()
    start = data.draw(st.integers(0, len(sample)))
    octets = sample[:start] + data.draw(st.binary(max_size=8)) + sample[start + data.draw(st.integers(0, 40)) :]
    with contextlib.suppress(DdfError):
        parse_ddfs(octets)
