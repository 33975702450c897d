"""Device descriptions of vendors: read with tolerance, and told what was tolerated.

A file is first brought into the form of the specification, with a note for each liberty it took; then the strict
reader judges it. What no rule here names stays an error. Habits: Windows CSP descriptions (elements of the `MSFT`
namespace, empty `MIME`, DDFName at leaves, several top-level nodes), files of DDF 1.1.2, and properties in any order.
WBXML (`application/vnd.syncml.dmddf+wbxml`) is read as the XML it stands for, in which all is on line 1.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

from lxml import etree

from mo_definitions.ddf import (
    CHOICES,
    COUNTED,
    SEQUENCES,
    VALUE_RULES,
    Ddf,
    DdfError,
    elements,
    find,
    line_of,
    local_name,
    objects_of,
    text_of,
    validate,
)
from syncml.codes import NS_DDF, VER_DTD, Format
from syncml.document import Limits
from syncml.errors import LocalProtocolError
from syncml.wbxml import MalformedWbxml, read_document
from syncml.wbxml.syncml_pages import TNDS_1_2
from syncml.xml_document import xml_text

MAX_VENDOR_SIZE: Final = 8 * 1024 * 1024  # octets; the largest that Windows publishes have several millions
MAX_VENDOR_NODES: Final = 32768
MAX_NOTES: Final = 200  # tolerances told one by one
MAX_DEPTH: Final = 200  # elements inside each other

_WBXML: Final = (b"\x01", b"\x02", b"\x03")  # versions 1.1 to 1.3; no XML document begins so
_LIMITS: Final = Limits(
    max_size=MAX_VENDOR_SIZE, max_depth=MAX_DEPTH, max_items=64 * MAX_VENDOR_NODES, max_text=MAX_VENDOR_SIZE
)

_KNOWN_VERSIONS: Final = re.compile(r"1\.[0-3](\.[0-9])?")
_MEDIA_TYPE: Final = re.compile(r"[^\s/;]+/[^\s/;]+.*")
_FORMATS: Final = frozenset(each.value for each in Format)
_TRUTHS: Final = {"1": "true", "0": "false", "true": "true", "false": "false"}
_OPTIONAL_CHOICES: Final = ("Occurrence", "Scope", "CaseSense")


def parse_ddfs(octets: bytes) -> tuple[Ddf, ...]:
    """All objects that a vendor's file describes; `Ddf.tolerated` says what is not as the specification has it.

    Raises:
        DdfError: not well-formed, a declaration in the DOCTYPE, or against a rule that nobody may break.
    """
    if octets.startswith(_WBXML):
        octets = _as_xml(octets)
    tree = elements(octets, max_size=MAX_VENDOR_SIZE)
    notes = _Normaliser().run(tree)
    return tuple(replace(each, tolerated=notes) for each in objects_of(tree, max_nodes=MAX_VENDOR_NODES))


def read_ddf_file(path: Path) -> tuple[Ddf, ...]:
    """`parse_ddfs` of a file; no more is read of it than is taken.

    Raises:
        OSError: it cannot be read.
        DdfError: see `parse_ddfs`.
    """
    with path.open("rb") as file:
        return parse_ddfs(file.read(MAX_VENDOR_SIZE + 1))


def _as_xml(octets: bytes) -> bytes:
    try:
        return xml_text(read_document(octets, TNDS_1_2, _LIMITS)).encode()
    except (MalformedWbxml, LocalProtocolError) as error:
        raise DdfError(f"WBXML: {error}") from error


class _Normaliser:
    """Changes a parsed document into what the strict reader expects."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._more = 0

    def run(self, root: etree._Element) -> tuple[str, ...]:
        """Normalise; returns the notes."""
        self._drop_foreign(root, 0)
        if local_name(root) != "MgmtTree":
            raise DdfError("the document element is not MgmtTree", line_of(root))
        self._version(root)
        for node in _children(root, "Node"):
            self._top_path(node)
            self._node(node)
        self._order(root)
        if self._more:
            self._notes.append(f"and {self._more} more")
        return tuple(self._notes)

    def _note(self, element: etree._Element, what: str) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes.append(f"line {line_of(element)}: {what}")
        else:
            self._more += 1

    # -- the document as a whole --------------------------------------------------------------------------------------

    def _drop_foreign(self, element: etree._Element, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise DdfError("elements too deep", line_of(element))
        for name in list(element.attrib):
            self._note(element, f"attribute {etree.QName(name).localname} passed over")
            del element.attrib[name]
        for child in list(element):
            if not isinstance(child.tag, str):
                raise DdfError("entity reference", line_of(child))
            namespace = etree.QName(child).namespace
            if namespace not in (None, NS_DDF):
                self._note(child, f"{etree.QName(child).localname} of {namespace} passed over")
                _remove(child)
            else:
                self._drop_foreign(child, depth + 1)

    def _version(self, root: etree._Element) -> None:
        version = find(root, "VerDTD")
        if version is None:
            self._note(root, "no VerDTD, taken as 1.2")
            root.insert(0, _made("VerDTD", VER_DTD))
        elif text_of(version) != VER_DTD and _KNOWN_VERSIONS.fullmatch(text_of(version)):
            self._note(version, f"VerDTD {text_of(version)}")
            version.text = VER_DTD

    def _top_path(self, node: etree._Element) -> None:
        path = find(node, "Path")
        if path is None:
            return
        text = text_of(path)
        if not text or (text != "./" and text.endswith("/") and text != "/"):
            self._note(path, "Path is empty or ends with a slash")
            path.text = text.rstrip("/") or "."
        elif text == "./":
            self._note(path, "Path is ./")
            path.text = "."

    def _order(self, element: etree._Element) -> None:
        """Children in the order of the content model; those without a place there are left for the strict reader."""
        order = {name: index for index, (name, _) in enumerate(SEQUENCES[local_name(element)])}
        ranked = sorted(element, key=lambda child: order.get(local_name(child), len(order)))
        if ranked != list(element):
            self._note(element, f"children of {local_name(element)} in another order")
            element[:] = ranked

    def _once(self, element: etree._Element) -> None:
        seen: Counter[str] = Counter()
        for child in list(element):
            seen[local_name(child)] += 1
            if seen[local_name(child)] > 1:
                self._note(child, f"{local_name(child)} once more, the first counts")
                _remove(child)

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _node(self, node: etree._Element) -> None:
        if find(node, "NodeName") is None:
            self._note(node, "no NodeName, taken as unnamed")
            node.insert(0, _made("NodeName"))
        self._runtime_properties(node)
        children = _children(node, "Node")
        properties = find(node, "DFProperties")
        if properties is None:
            self._note(node, "no DFProperties, taken as readable")
            properties = _made("DFProperties")
            node.append(properties)
        self._properties(node, properties, has_children=bool(children))
        for child in children:
            self._node(child)
        self._order(node)

    def _runtime_properties(self, node: etree._Element) -> None:
        """They say which properties are supported, which is the device's own matter; broken ones do no harm."""
        properties = find(node, "RTProperties")
        if properties is None:
            return
        try:
            validate(properties)
        except DdfError as error:
            self._note(properties, f"RTProperties passed over: {error.reason}")
            _remove(properties)

    def _properties(self, node: etree._Element, properties: etree._Element, *, has_children: bool) -> None:
        self._once(properties)
        access = find(properties, "AccessType")
        if access is None:
            self._note(properties, "no AccessType, taken as Get")
            access = _made("AccessType")
            access.append(_made("Get"))
            properties.append(access)
        self._once(access)
        self._order(access)
        for name in _OPTIONAL_CHOICES:
            choice = find(properties, name)
            if choice is not None and len(choice) == 0 and not text_of(choice):
                self._note(choice, f"{name} without a choice passed over")
                _remove(choice)
        node_format = self._format(properties, has_children=has_children)
        self._types(properties, node_format)
        self._occurrence(node, properties)
        for parent, name in ((properties, "DefaultValue"), (node, "Value")):
            value = find(parent, name)
            if value is not None:
                self._default(value, node_format)
        self._order(properties)

    def _format(self, properties: etree._Element, *, has_children: bool) -> Format:
        element = find(properties, "DFFormat")
        wanted = _format_name(element)
        types = find(properties, "DFType")
        looks_interior = has_children or (wanted is None and types is not None and find(types, "DDFName") is not None)
        if wanted is None and element is not None and len(element):
            raise DdfError(f"DFFormat holds exactly one of {', '.join(sorted(CHOICES['DFFormat']))}", line_of(element))
        chosen = wanted if wanted is not None else ("node" if looks_interior else "chr")
        if has_children and chosen != "node":
            self._note(properties, f"a node of format {chosen} with child nodes, taken as interior")
            chosen = "node"
        if element is None or len(element) != 1 or local_name(element[0]) != chosen:
            if wanted != chosen or element is None:
                self._note(properties, f"no DFFormat, taken as {chosen}")
            else:
                self._note(properties, f"DFFormat {chosen} in another spelling")
            if element is None:
                element = _made("DFFormat")
                properties.append(element)
            element.text = None
            element[:] = [_made(chosen)]
        return Format(chosen)

    def _types(self, properties: etree._Element, node_format: Format) -> None:
        element = find(properties, "DFType")
        if element is None:
            self._note(properties, "no DFType")
            element = _made("DFType")
            properties.append(element)
        bare = text_of(element)
        media_types = [text_of(each) for each in _children(element, "MIME")] + ([bare] if "/" in bare else [])
        named = [text_of(each) for each in _children(element, "DDFName")]
        if len(media_types) + len(named) - bool(bare) != len(element):
            return  # something else is in it; the strict reader says what
        if node_format is Format.NODE:
            wanted = [_made("DDFName", next((each for each in named if each), ""))]
        elif node_format is Format.NULL and named and not media_types:
            return
        else:
            usual = "application/octet-stream" if node_format is Format.BIN else "text/plain"
            wanted = [_made("MIME", each) for each in media_types if _MEDIA_TYPE.fullmatch(each)] or [
                _made("MIME", usual)
            ]
        shape = [(local_name(each), text_of(each)) for each in wanted]
        if bare or [(local_name(each), text_of(each)) for each in element] != shape:
            self._note(element, "DFType taken as " + (", ".join(text for _, text in shape if text) or "unnamed"))
            element.text = None
            element[:] = wanted

    def _occurrence(self, node: etree._Element, properties: etree._Element) -> None:
        """A node with a name occurs once under one parent, whatever its description hopes for."""
        element = find(properties, "Occurrence")
        if element is None or len(element) != 1 or not text_of(find(node, "NodeName")):
            return
        choice = local_name(element[0])
        known = choice in CHOICES["Occurrence"]
        if not known or (choice in COUNTED and COUNTED[choice].maximum == 1):
            return
        self._note(element, f"Occurrence {choice} of a node that has a name")
        element[:] = [_made("One" if choice.startswith("One") else "ZeroOrOne")]

    def _default(self, value: etree._Element, node_format: Format) -> None:
        text = value.text or ""
        if node_format is Format.NODE:
            self._note(value, f"{local_name(value)} of an interior node passed over")
            _remove(value)
            return
        rule = VALUE_RULES.get(node_format)
        if len(value) or rule is None or rule(text):
            return
        repaired = _TRUTHS.get(text.strip().lower(), "") if node_format is Format.BOOL else text.strip()
        if rule(repaired):
            self._note(value, f"{local_name(value)} in another spelling")
            value.text = repaired
        else:
            self._note(value, f"{local_name(value)} that is no {node_format.value} passed over")
            _remove(value)


def _format_name(element: etree._Element | None) -> str | None:
    """The format an element names, as a child or as text, in any case; None when it names none."""
    if element is None or len(element) > 1:
        return None
    name = (local_name(element[0]) if len(element) else text_of(element)).lower()
    return name if name in _FORMATS else None


def _children(element: etree._Element, name: str) -> list[etree._Element]:
    return [child for child in element if local_name(child) == name]


def _made(name: str, text: str = "") -> etree._Element:
    element = etree.Element(f"{{{NS_DDF}}}{name}")
    element.text = text or None
    return element


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        element.tail = None  # white space of the layout goes with it; other text would have been told below
        parent.remove(element)
