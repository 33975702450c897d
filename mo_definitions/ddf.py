"""Device description files: the values, and a reader that validates (OMA-TS-DM_TND-V1_2 §9 to §11, DM_DDF-V1_2).

The DTD is not consulted: its content model stands here as a table, so that a file needs no network and no entity, and
errors name a line. Rules that a DTD cannot express (interior against leaf, duplicate names, values against formats)
are checked as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, TypeAlias

from lxml import etree

from syncml.codes import NS_DDF, VER_DTD, Format
from syncml.errors import LocalProtocolError, MalformedUri
from syncml.tree import AccessType, NodeUri, Scope

MAX_SIZE: Final = 1024 * 1024  # octets of a file
MAX_NODES: Final = 4096
MAX_DEPTH: Final = 32  # nodes from the root of the object to a leaf
MAX_N: Final = 65536  # largest N of ZeroOrN and OneOrN

Path: TypeAlias = tuple[str, ...]
"""Node names below the root of a management object; `()` is the root itself."""

WILDCARD: Final = ""
"""Name of a node that gets its real name at run time."""


class DdfError(Exception):
    """A device description that breaks its rules; `line` counts from 1, 0 means the file as a whole."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {reason}" if line else reason)
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True)
class Occurrence:
    """How many nodes of a kind one parent may have; `maximum` None means no limit."""

    minimum: int = 1
    maximum: int | None = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DdfNode:
    """Description of one node. `name` is empty when it is chosen at run time."""

    name: str
    access: frozenset[AccessType]
    format: Format
    occurrence: Occurrence = Occurrence()
    scope: Scope = Scope.DYNAMIC
    types: tuple[str, ...] = ()  # media types of a leaf, empty for an interior node
    object_type: str = ""  # management object identifier of an interior node, usually empty
    default: str | None = None
    description: str = ""
    title: str = ""
    case_sensitive: bool = True
    children: tuple[DdfNode, ...] = ()

    @property
    def is_interior(self) -> bool:
        """Whether the node has children instead of a value."""
        return self.format is Format.NODE

    @property
    def is_open(self) -> bool:
        """Whether the description ends here and says nothing about what may be below, as for `Ext`."""
        return self.is_interior and not self.children

    def child(self, name: str) -> DdfNode | None:
        """Description of a child of that run-time name: the one so named, else the unnamed one."""
        unnamed = None
        for each in self.children:
            if each.name == name:
                return each
            if each.name == WILDCARD:
                unnamed = each
        return unnamed


@dataclass(frozen=True, slots=True, kw_only=True)
class Ddf:
    """Description of one management object."""

    root: DdfNode
    path: str | None = None  # URI of the parent of the root as the file gives it
    manufacturer: str = ""
    model: str = ""
    tolerated: tuple[str, ...] = ()  # what the file has otherwise than the rules say, with line numbers

    def node_for(self, segments: Sequence[str]) -> DdfNode | None:
        """Description of the node at that address relative to the root; None when there can be none."""
        node: DdfNode | None = self.root
        for segment in segments:
            if node is None:
                return None
            node = node.child(segment)
        return node

    def walk(self) -> Iterator[tuple[Path, DdfNode]]:
        """Every node with its address relative to the root, parents first; unnamed segments are `WILDCARD`."""
        yield from _walk((), self.root)


def _walk(path: Path, node: DdfNode) -> Iterator[tuple[Path, DdfNode]]:
    yield path, node
    for each in node.children:
        yield from _walk((*path, each.name), each)


# -- content model (DM_DDF-V1_2 DTD): children in their order, "!" once, "?" at most once, "+" and "*" as usual ------

_FORMATS: Final = frozenset(each.value for each in Format)
COUNTED: Final = {
    "One": Occurrence(1, 1),
    "ZeroOrOne": Occurrence(0, 1),
    "ZeroOrMore": Occurrence(0, None),
    "OneOrMore": Occurrence(1, None),
}
N_COUNTED: Final = {"ZeroOrN": 0, "OneOrN": 1}

SEQUENCES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "MgmtTree": (("VerDTD", "!"), ("Man", "?"), ("Mod", "?"), ("Node", "+")),
    "Node": (
        ("NodeName", "!"), ("Path", "?"), ("RTProperties", "?"), ("DFProperties", "!"), ("Node", "*"), ("Value", "?"),
    ),
    "RTProperties": (
        ("ACL", "?"), ("Format", "?"), ("Name", "?"), ("Size", "?"), ("Title", "?"), ("TStamp", "?"), ("Type", "!"),
        ("VerNo", "?"),
    ),
    "DFProperties": (
        ("AccessType", "!"), ("DefaultValue", "?"), ("Description", "?"), ("DFFormat", "!"), ("Occurrence", "?"),
        ("Scope", "?"), ("DFTitle", "?"), ("DFType", "!"), ("CaseSense", "?"),
    ),
    "AccessType": tuple((each.value, "?") for each in AccessType),
}  # fmt: skip
CHOICES: Final[dict[str, frozenset[str]]] = {
    "Format": _FORMATS,
    "DFFormat": _FORMATS,
    "Occurrence": frozenset(COUNTED) | frozenset(N_COUNTED),
    "Scope": frozenset(each.value for each in Scope),
    "CaseSense": frozenset({"CS", "CIS"}),
}  # exactly one child, out of these
_TEXT: Final = frozenset({
    "VerDTD", "Man", "Mod", "NodeName", "Path", "Value", "ACL", "Name", "Size", "Title", "TStamp", "VerNo", "MIME",
    "DDFName", "DefaultValue", "Description", "DFTitle", "ZeroOrN", "OneOrN",
})  # fmt: skip  # "Type" and "DFType" have a rule of their own below; what is left is empty
_REPEATS: Final = {"!": (1, 1), "?": (0, 1), "+": (1, None), "*": (0, None)}

_ENCODING: Final = re.compile(rb"""\A<\?xml[^>]*?\bencoding\s*=\s*["']([^"']*)["']""")


def elements(octets: bytes, *, max_size: int = MAX_SIZE) -> etree._Element:
    """Parse with nothing a document could use against us.

    A plain DOCTYPE line is common in published files and harmless: nothing is loaded for it. Declarations inside it
    (entities above all) refuse the file before the parser sees it, which needs an encoding in which they can be seen.
    """
    if len(octets) > max_size:
        raise DdfError(f"more than {max_size} octets")
    text = octets.removeprefix(b"\xef\xbb\xbf")
    if not text.lstrip().startswith(b"<") or b"\0" in text:
        raise DdfError("not XML in UTF-8")
    declared = _ENCODING.match(text)
    if declared is not None and declared[1].upper() not in (b"UTF-8", b"US-ASCII", b"ASCII"):
        raise DdfError("not XML in UTF-8", 1)
    _refuse_declarations(text)
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        encoding="utf-8",
    )
    try:
        return etree.fromstring(text, parser)
    except etree.XMLSyntaxError as error:
        raise DdfError(f"not well-formed: {error.msg}", error.lineno or 0) from None


def _refuse_declarations(text: bytes) -> None:
    """A document type that says more than its name and where it could be found ends the reading here.

    Only comments and processing instructions may stand in its internal subset; nothing else in a document can declare.
    """
    position = _after_misc(text, 0)
    if not text.startswith(b"<!DOCTYPE", position):
        return
    position += len(b"<!DOCTYPE")
    while position < len(text):
        octet = text[position : position + 1]
        if octet in (b'"', b"'"):
            end = text.find(octet, position + 1)
            position = len(text) if end < 0 else end + 1
        elif octet == b"[":
            position = _after_misc(text, position + 1)
            if text[position : position + 1] != b"]":
                raise DdfError("a declaration inside the DOCTYPE", text.count(b"\n", 0, position) + 1)
            position += 1
        elif octet == b">":
            return
        else:
            position += 1
    raise DdfError("not well-formed: a DOCTYPE without end", text.count(b"\n") + 1)


def _after_misc(text: bytes, position: int) -> int:
    """Behind white space, comments and processing instructions."""
    while True:
        while text[position : position + 1].isspace():
            position += 1
        for start, end in ((b"<?", b"?>"), (b"<!--", b"-->")):
            if text.startswith(start, position):
                found = text.find(end, position + len(start))
                if found < 0:
                    raise DdfError("not well-formed: a comment without end", text.count(b"\n", 0, position) + 1)
                position = found + len(end)
                break
        else:
            return position


def line_of(element: etree._Element) -> int:
    line: int | None = element.sourceline  # type: ignore[assignment]  # lxml-stubs leave its type out
    return line or 0


def local_name(element: etree._Element) -> str:
    """Name without its namespace, which is the DDF one or, in older files, none."""
    tag = element.tag
    if not isinstance(tag, str):  # an entity reference, which the parser left alone
        raise DdfError("entity reference", line_of(element))
    name = etree.QName(element)
    if name.namespace not in (None, NS_DDF):
        raise DdfError(f"element of the foreign namespace {name.namespace}", line_of(element))
    return name.localname


def validate(element: etree._Element, depth: int = 0) -> None:
    """Hold an element and all below it against the content model."""
    if depth > 2 * MAX_DEPTH:
        raise DdfError("nodes too deep", line_of(element))
    name = local_name(element)
    names = [local_name(child) for child in element]
    if element.attrib:
        raise DdfError(f"{name} has an attribute", line_of(element))
    if name in _TEXT:
        if names:
            raise DdfError(f"{name} holds text and no elements", line_of(element))
        return
    if any((text or "").strip() for text in (element.text, *(child.tail for child in element))):
        raise DdfError(f"text inside {name}", line_of(element))
    if name in SEQUENCES:
        _validate_sequence(element, name, names)
    elif name in CHOICES:
        if len(names) != 1 or names[0] not in CHOICES[name]:
            raise DdfError(f"{name} holds exactly one of {', '.join(sorted(CHOICES[name]))}", line_of(element))
    elif name in ("Type", "DFType"):
        only_mime = bool(names) and set(names) == {"MIME"} and (name == "DFType" or len(names) == 1)
        if not only_mime and names != ["DDFName"]:
            raise DdfError(f"{name} holds media types or one DDFName", line_of(element))
    elif names:
        raise DdfError(f"{name} is empty", line_of(element))
    for child in element:
        validate(child, depth + 1)


def _validate_sequence(element: etree._Element, name: str, names: list[str]) -> None:
    position = 0
    for wanted, repeats in SEQUENCES[name]:
        minimum, maximum = _REPEATS[repeats]
        start = position
        while position < len(names) and names[position] == wanted and (maximum is None or position - start < maximum):
            position += 1
        if position - start < minimum:
            if position < len(names):
                raise DdfError(f"{names[position]} in {name} where {wanted} belongs", line_of(element[position]))
            raise DdfError(f"{name} without {wanted}", line_of(element))
    if position < len(names):
        raise DdfError(f"{names[position]} is not expected here in {name}", line_of(element[position]))


# -- from elements to values ------------------------------------------------------------------------------------------


def find(element: etree._Element, name: str) -> etree._Element | None:
    return next((child for child in element if local_name(child) == name), None)


def _need(element: etree._Element, name: str) -> etree._Element:
    """A child that the content model has already proved to be there."""
    child = find(element, name)
    if child is None:
        raise DdfError(f"{local_name(element)} without {name}", line_of(element))
    return child


def text_of(element: etree._Element | None) -> str:
    return "" if element is None else (element.text or "").strip()


def _occurrence(element: etree._Element | None) -> Occurrence:
    if element is None:
        return Occurrence()
    choice = local_name(element[0])
    if choice in COUNTED:
        return COUNTED[choice]
    digits = text_of(element[0])
    if not re.fullmatch(r"[0-9]{1,5}", digits) or not 2 <= int(digits) <= MAX_N:
        raise DdfError(f"N of {choice} is a number from 2 to {MAX_N}", line_of(element))
    return Occurrence(N_COUNTED[choice], int(digits))


_INT32_MAX: Final = 2**31 - 1
_FLOAT: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|-?INF|NaN")
VALUE_RULES: Final[dict[Format, Callable[[str], bool]]] = {
    Format.INT: lambda text: (
        re.fullmatch(r"[+-]?[0-9]{1,10}", text) is not None and -_INT32_MAX - 1 <= int(text) <= _INT32_MAX
    ),
    Format.BOOL: lambda text: text in ("true", "false"),
    Format.FLOAT: lambda text: _FLOAT.fullmatch(text) is not None,
    Format.NULL: lambda text: not text,
}  # the other formats take any text


def _value(element: etree._Element | None, value_format: Format) -> str | None:
    if element is None:
        return None
    text = element.text or ""
    rule = VALUE_RULES.get(value_format)
    if rule is not None and not rule(text):
        raise DdfError(f"value does not fit format {value_format}", line_of(element))
    return text


class _Reader:
    """Makes values of validated elements, counting the nodes."""

    def __init__(self, max_nodes: int) -> None:
        self._max_nodes = max_nodes
        self._nodes = 0

    def node(self, element: etree._Element, *, depth: int, case_sensitive: bool) -> DdfNode:
        self._nodes += 1
        if self._nodes > self._max_nodes or depth > MAX_DEPTH:
            raise DdfError("more nodes or levels than any object has", line_of(element))
        properties = _need(element, "DFProperties")
        name = self._name(element)
        node_format = Format(local_name(_need(properties, "DFFormat")[0]))
        case_sense = find(properties, "CaseSense")
        if case_sense is not None:
            case_sensitive = local_name(case_sense[0]) == "CS"
        occurrence = _occurrence(find(properties, "Occurrence"))
        if name and occurrence.maximum != 1:
            raise DdfError(f"{name} cannot occur more than once under one parent", line_of(element))
        scope = find(properties, "Scope")
        types, object_type = self._types(_need(properties, "DFType"), node_format)
        default = find(properties, "DefaultValue")
        value = find(element, "Value")
        child_elements = [child for child in element if local_name(child) == "Node"]
        if node_format is Format.NODE and (default is not None or value is not None):
            raise DdfError(f"interior node {name or '<X>'} with a value", line_of(element))
        if node_format is not Format.NODE and child_elements:
            raise DdfError(f"leaf {name or '<X>'} with child nodes", line_of(child_elements[0]))
        children = tuple(self.node(child, depth=depth + 1, case_sensitive=case_sensitive) for child in child_elements)
        self._reject_duplicates(element, children, case_sensitive=case_sensitive)
        default_value = _value(default, node_format)
        return DdfNode(
            name=name,
            access=frozenset(AccessType(local_name(each)) for each in _need(properties, "AccessType")),
            format=node_format,
            occurrence=occurrence,
            scope=Scope.DYNAMIC if scope is None else Scope(local_name(scope[0])),
            types=types,
            object_type=object_type,
            default=_value(value, node_format) if value is not None else default_value,
            description=text_of(find(properties, "Description")),
            title=text_of(find(properties, "DFTitle")),
            case_sensitive=case_sensitive,
            children=children,
        )

    @staticmethod
    def _name(element: etree._Element) -> str:
        name = text_of(_need(element, "NodeName"))
        if name:
            try:
                NodeUri((name,))
            except LocalProtocolError as error:
                raise DdfError(f"NodeName: {error}", line_of(element)) from None
        return name

    @staticmethod
    def _types(element: etree._Element, node_format: Format) -> tuple[tuple[str, ...], str]:
        """Media types and object identifier. An Exec target without a value may have either form."""
        if local_name(element[0]) == "DDFName":
            if node_format not in (Format.NODE, Format.NULL):
                raise DdfError("a leaf has a media type, not a DDFName", line_of(element))
            return (), text_of(element[0])
        if node_format is Format.NODE:
            raise DdfError("an interior node has a DDFName, not a media type", line_of(element))
        types = tuple(text_of(each) for each in element)
        if not all(re.fullmatch(r"[^\s/;]+/[^\s/;]+.*", each) for each in types):
            raise DdfError("not a media type", line_of(element))
        return types, ""

    @staticmethod
    def _reject_duplicates(element: etree._Element, children: tuple[DdfNode, ...], *, case_sensitive: bool) -> None:
        seen: set[str] = set()
        for name in (each.name if case_sensitive else each.name.casefold() for each in children):
            if name in seen:
                raise DdfError(f"two children named {name or '<X>'}", line_of(element))
            seen.add(name)


def parse_ddf(octets: bytes) -> Ddf:
    """Read and validate the description of one management object.

    Raises:
        DdfError: the file is not well-formed, declares entities, or breaks a rule; the error names the line.
    """
    tree = elements(octets)
    objects = objects_of(tree)
    if len(objects) != 1:  # not in the specification: a file of ours describes one object
        second = [each for each in tree if local_name(each) == "Node"][1]
        raise DdfError("more than one top-level node", line_of(second))
    return objects[0]


def objects_of(tree: etree._Element, *, max_nodes: int = MAX_NODES) -> tuple[Ddf, ...]:
    """The objects that a document describes, one for each top-level node.

    Raises:
        DdfError: it breaks a rule.
    """
    if local_name(tree) != "MgmtTree":
        raise DdfError("the document element is not MgmtTree", line_of(tree))
    validate(tree)
    version = _need(tree, "VerDTD")
    if text_of(version) != VER_DTD:
        raise DdfError(f"VerDTD is not {VER_DTD}", line_of(version))
    paths = [each for each in tree.iter() if local_name(each) == "Path"]
    for path in paths:
        try:
            NodeUri.parse(text_of(path))
        except MalformedUri as error:
            raise DdfError(f"Path: {error}", line_of(path)) from None
    reader = _Reader(max_nodes)
    manufacturer, model = text_of(find(tree, "Man")), text_of(find(tree, "Mod"))
    return tuple(
        Ddf(
            root=reader.node(root, depth=0, case_sensitive=True),
            path=None if find(root, "Path") is None else text_of(find(root, "Path")),
            manufacturer=manufacturer,
            model=model,
        )
        for root in tree
        if local_name(root) == "Node"
    )


def load(name: str) -> Ddf:
    """The description that this package ships under that name, e.g. `M2MMobj`.

    Raises:
        KeyError: there is none of that name.
        DdfError: the installed file is damaged.
    """
    if name not in shipped():
        raise KeyError(name)
    return parse_ddf((resources.files("mo_definitions") / "ddf" / f"{name}.xml").read_bytes())


def shipped() -> tuple[str, ...]:
    """Names that `load` knows, sorted."""
    folder = resources.files("mo_definitions") / "ddf"
    return tuple(sorted(each.name.removesuffix(".xml") for each in folder.iterdir() if each.name.endswith(".xml")))
