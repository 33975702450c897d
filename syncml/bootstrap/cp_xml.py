"""Provisioning documents as XML text, `text/vnd.wap.connectivity-xml` (OMA-WAP-TS-ProvCont-V1_1 §5).

Pushed documents are WBXML. The text form is for people, for test tools and for documents that are fetched. The document
type may be declared, as the specification writes it, but nothing in it; it is cut off unread.
"""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import quoteattr

from lxml import etree

from syncml.bootstrap.cp import MAX_DEPTH, MAX_DOCUMENT_SIZE, MAX_ITEMS, Characteristic, CpDocument, Parm
from syncml.bootstrap.errors import BootstrapReason, BootstrapRefused
from syncml.errors import LocalProtocolError
from syncml.xml_document import xml_parser

DOCTYPE: Final = (
    '<!DOCTYPE wap-provisioningdoc PUBLIC "-//WAPFORUM//DTD PROV 1.0//EN" "http://www.wapforum.org/DTD/prov.dtd">'
)
MAX_XML_SIZE: Final = 4 * MAX_DOCUMENT_SIZE  # octets; names are spelled out here

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PROLOG = re.compile(
    rb"""(?:\xef\xbb\xbf)? \s*+ (?: <\?xml \s (?P<declaration> [^>]*+ ) > )?
        (?: \s++ | <!-- (?: [^-] | -(?!-) )*+ --> | <\?(?!xml\s) [^?>]*+ \?> )*+
        (?P<doctype> <!DOCTYPE \s++ wap-provisioningdoc
            (?: \s++ (?: PUBLIC \s++ (?: "[^"]*+" | '[^']*+' ) | SYSTEM )
                \s++ (?: "[^"]*+" | '[^']*+' ) )? \s*+ > )?""",
    re.VERBOSE,
)
_ENCODING = re.compile(rb"""\bencoding \s* = \s* ["'] ([^"']*) ["']""", re.VERBOSE)
_ENCODINGS: Final = (b"utf-8", b"utf8", b"us-ascii", b"ascii")


def encode_cp_xml(document: CpDocument) -> bytes:
    """The document as UTF-8 text with XML declaration and document type.

    Raises:
        LocalProtocolError: a value that XML cannot carry, or too large.
    """
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', DOCTYPE]
    lines.append(f"<wap-provisioningdoc version={_quoted(document.version)}>")
    for each in document.characteristics:
        _write(each, lines, "  ")
    lines.append("</wap-provisioningdoc>")
    octets = ("\n".join(lines) + "\n").encode()
    if len(octets) > MAX_XML_SIZE:
        raise LocalProtocolError(f"provisioning document of {len(octets)} octets")
    return octets


def _write(characteristic: Characteristic, lines: list[str], indent: str) -> None:
    start = f"{indent}<characteristic type={_quoted(characteristic.type)}"
    if not characteristic.parms and not characteristic.characteristics:
        lines.append(f"{start}/>")
        return
    lines.append(f"{start}>")
    for parm in characteristic.parms:
        value = "" if parm.value is None else f" value={_quoted(parm.value)}"
        lines.append(f"{indent}  <parm name={_quoted(parm.name)}{value}/>")
    for each in characteristic.characteristics:
        _write(each, lines, f"{indent}  ")
    lines.append(f"{indent}</characteristic>")


def _quoted(value: str) -> str:
    if fault := _FORBIDDEN.search(value):
        raise LocalProtocolError(f"XML cannot carry U+{ord(fault.group()):04X}")
    return quoteattr(value, {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})


def decode_cp_xml(octets: bytes) -> CpDocument:
    """Read a provisioning document in XML.

    Tolerated: byte order mark, any white space, comments, elements and attributes that do not belong there, namespaces.

    Raises:
        BootstrapRefused: OVERSIZED; MALFORMED for text that is no such document, declares entities, is too deep, or
            has a characteristic without type or a parm without name.
    """
    if len(octets) > MAX_XML_SIZE:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, f"document of {len(octets)} octets")
    if b"\0" in octets:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "character set is not UTF-8")
    prolog = _PROLOG.match(octets)
    declaration = _ENCODING.search(prolog["declaration"] or b"") if prolog is not None else None
    if declaration is not None and declaration[1].lower() not in _ENCODINGS:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "character set is not UTF-8")
    if prolog is not None and prolog["doctype"] is not None:
        octets = octets[: prolog.start("doctype")] + octets[prolog.end("doctype") :]
    if b"<!DOCTYPE" in octets or b"<!ENTITY" in octets:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "document type with declarations")
    try:
        root = etree.fromstring(octets.removeprefix(b"\xef\xbb\xbf").strip(), xml_parser())
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "not well-formed") from error
    if _name(root) != "wap-provisioningdoc":
        raise BootstrapRefused(BootstrapReason.MALFORMED, "document element is not wap-provisioningdoc")
    if sum(1 for _ in root.iter()) > MAX_ITEMS:
        raise BootstrapRefused(BootstrapReason.OVERSIZED, "too many elements")
    return CpDocument(
        version=root.get("version") or "1.0",
        characteristics=tuple(_read(each, 2) for each in root if _name(each) == "characteristic"),
    )


def _read(element: etree._Element, depth: int) -> Characteristic:
    if depth > MAX_DEPTH:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "elements too deep")
    characteristic_type = element.get("type")
    if characteristic_type is None:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "characteristic without type")
    return Characteristic(
        type=characteristic_type,
        parms=tuple(_read_parm(each) for each in element if _name(each) == "parm"),
        characteristics=tuple(_read(each, depth + 1) for each in element if _name(each) == "characteristic"),
    )


def _read_parm(element: etree._Element) -> Parm:
    name = element.get("name")
    if name is None:
        raise BootstrapRefused(BootstrapReason.MALFORMED, "parm without name")
    return Parm(name, element.get("value"))


def _name(element: etree._Element) -> str:
    """Local name."""
    return str(element.tag).rpartition("}")[2]  # of an entity it is a function, whose text is no name here
