"""XML documents of SyncML and back: a hardened reader, and a writer without attributes.

A document type may be named, as the specification allows in a prolog, but declare nothing; it is cut off unread. No
entity is taken, nothing is fetched, and nothing over the limits is read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final, cast
from xml.sax.saxutils import escape

from lxml import etree

from syncml.codes import NS_DDF, NS_METINF, NS_SYNCML
from syncml.document import DDF, METINF, SYNCML, UNKNOWN_NAME, Content, Element, Limits
from syncml.errors import LocalProtocolError, MalformedMessage, MessageTooLarge

_NAMESPACES: Final = {SYNCML: NS_SYNCML, METINF: NS_METINF, DDF: NS_DDF}
_PAGES: Final = {
    "": SYNCML,
    "syncml:syncml1.0": SYNCML,
    "syncml:syncml1.1": SYNCML,
    "syncml:syncml1.2": SYNCML,
    "syncml:metinf": METINF,
    "syncml:dmddf1.2": DDF,
}  # namespaces in lower case, as peers do not agree on it

_FORBIDDEN: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PROLOG: Final = re.compile(
    r"""\s*+ (?: <\?xml \s (?P<declaration> [^>]*+ ) > )?
        (?: \s++ | <!-- .*? --> | <\?(?!xml\s) .*? \?> )*+
        (?P<doctype> <!DOCTYPE \s++ (?P<root> [A-Za-z]++ )
            (?: \s++ (?: PUBLIC \s++ (?: "[^"]*+" | '[^']*+' ) | SYSTEM )
                \s++ (?: "[^"]*+" | '[^']*+' ) )? \s*+ > )?""",
    re.VERBOSE | re.DOTALL,
)
_ENCODING: Final = re.compile(r"""\bencoding \s* = \s* ["'] ([^"']*) ["']""", re.VERBOSE)
_ENCODINGS: Final = {"utf-8", "utf8", "us-ascii", "ascii", "utf-16"}  # all that an XML reader must know, and ASCII
_NUL_AT_THE_END: Final = re.compile(r"(?<!\0)\0++(?=</|\]\]></)")  # of a value; the look-behind keeps it linear


class MalformedXml(MalformedMessage):
    """Octets that are no XML document of the expected type, or that exceed a limit; `line` 0: not known."""

    def __init__(self, reason: str, *, line: int = 0) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.reason = reason
        self.line = line


def xml_parser() -> etree.XMLParser:
    """The one XML parser of this library: no DTD, no entities, no network, no huge trees."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )


def read_xml(octets: bytes, root: str, limits: Limits, *, verbatim: Collection[str] = ()) -> Element:
    """The document element of an XML document.

    Elements of foreign namespaces come empty and nameless, attributes not at all. Elements named in `verbatim` have
    text alone: what stands in them as elements comes as XML text with its namespaces declared. A NUL, which no XML
    document can have, is dropped at the end of a value or of the document, where peers written in C leave it.

    Raises:
        MessageTooLarge: more octets than the limit.
        MalformedXml: not well-formed, a NUL elsewhere, a document type with declarations, another document element,
            or over another limit.
    """
    if len(octets) > limits.max_size:
        raise MessageTooLarge(f"{len(octets)} octets, {limits.max_size} are taken")
    try:
        tree = etree.fromstring(_without_prolog(octets, root), xml_parser())
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise MalformedXml(f"not well-formed: {exc}", line=getattr(exc, "lineno", None) or 0) from exc
    if tree.getroottree().docinfo.internalDTD is not None:
        raise MalformedXml("a document type other than the plain one")
    element = _build(tree, limits, verbatim)
    if element.name != root:
        raise MalformedXml(f"the document element is {etree.QName(tree).localname}, not {root}", line=element.line)
    return element


def _without_prolog(octets: bytes, root: str) -> bytes:
    """The document as UTF-8, without XML declaration and without a document type that only names the DTD.

    Raises:
        MalformedXml: another character encoding, or a document type with an internal subset. The parser would
            refuse to expand what it declares; it does not even get to read it.
    """
    wide = octets.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = octets.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as exc:
        raise MalformedXml("neither UTF-8 nor UTF-16") from exc
    if "\0" in text:
        text = _NUL_AT_THE_END.sub("", text.rstrip("\0 \t\r\n"))
    prolog = cast("re.Match[str]", _PROLOG.match(text))  # each of its parts may be missing
    rest = text[prolog.end() :]
    lines = text.count("\n", 0, prolog.end())
    named = _ENCODING.search(prolog["declaration"] or "")
    if named is not None and named[1].lower() not in _ENCODINGS:
        raise MalformedXml("a character encoding that is not supported")
    if rest.startswith("<!DOCTYPE") or prolog["root"] not in (None, root):
        raise MalformedXml("a document type other than the plain one")
    return ("\n" * lines + rest).encode("utf-8", "replace")  # errors keep their lines


def _build(tree: etree._Element, limits: Limits, verbatim: Collection[str]) -> Element:
    """The values, in one pass without recursion."""
    names: list[tuple[str, int, int]] = []  # name, page and line of the elements that are open
    contents: list[list[Content]] = [[]]
    depth = count = 0
    skipped = 0  # depth of the open element whose content is not wanted as elements; 0: none
    for event, node in etree.iterwalk(tree, events=("start", "end")):
        if event == "start":
            depth, count = depth + 1, count + 1
            if count > limits.max_items or depth > limits.max_depth:
                reason = f"more than {limits.max_items} elements, or {limits.max_depth} inside each other"
                raise MalformedXml(reason, line=node.sourceline or 0)
            if skipped:
                continue
            name, page = _name(node)
            names.append((name, page, node.sourceline or 0))
            contents.append([])
            if name == UNKNOWN_NAME or (name in verbatim and len(node)):
                skipped = depth
                if name != UNKNOWN_NAME:
                    contents[-1].append("".join(_inner(node)))
            elif node.text:
                contents[-1].append(node.text)
            continue
        depth -= 1
        if skipped and depth >= skipped:
            continue
        skipped = 0
        name, page, line = names.pop()
        element = Element(name=name, page=page, content=tuple(contents.pop()), line=line)
        contents[-1].append(element)
        if node.tail:
            contents[-1].append(node.tail)
    return element


def _name(node: etree._Element) -> tuple[str, int]:
    namespace, _, local = node.tag.rpartition("}")
    page = _PAGES.get(namespace[1:].lower())
    return (UNKNOWN_NAME, SYNCML) if page is None else (local, page)


def _inner(node: etree._Element) -> Iterator[str]:
    """Text and child elements of a node as XML text."""
    yield escape(node.text or "")
    for child in node:
        yield etree.tostring(child, encoding="unicode")


# -- writer ------------------------------------------------------------------------------------------------------


def is_xml_text(text: str) -> bool:
    """Whether XML can carry all characters of a text."""
    return _FORBIDDEN.search(text) is None


def xml_text(element: Element) -> str:
    """The element as XML text; a namespace is declared where it begins.

    Raises:
        LocalProtocolError: octets, or a character that XML cannot carry.
    """
    parts: list[str] = []
    _write(element, -1, parts)
    text = "".join(parts)
    if fault := _FORBIDDEN.search(text):
        raise LocalProtocolError(f"XML cannot carry U+{ord(fault.group()):04X}: send it as bin")
    return text


def write_xml(root: Element) -> bytes:
    """A complete document in UTF-8.

    Raises:
        LocalProtocolError: as for `xml_text`.
    """
    return f'<?xml version="1.0" encoding="UTF-8"?>{xml_text(root)}'.encode()


def _write(element: Element, page: int, parts: list[str]) -> None:
    name = element.name
    start = name if element.page == page else f'{name} xmlns="{_NAMESPACES[element.page]}"'
    if not element.content:
        parts.append(f"<{start}/>")
        return
    parts.append(f"<{start}>")
    for each in element.content:
        if isinstance(each, str):
            parts.append(escape(each, {"\r": "&#13;"}))  # a bare carriage return would be read as a line feed
        elif isinstance(each, bytes):
            raise LocalProtocolError("octets in an XML document")
        elif each.name != UNKNOWN_NAME:
            _write(each, element.page, parts)
    parts.append(f"</{name}>")
