"""WBXML reader: any octets give a document or `MalformedWbxml` (WAP-192-WBXML 1.3 §5).

Versions 1.1 to 1.3 differ in nothing that matters here; 1.0 lacks the character set.
"""

from __future__ import annotations

from typing import Final, NoReturn

from syncml.document import UNKNOWN_NAME, Content, Element, Limits
from syncml.wbxml.code_pages import UNKNOWN_PUBLIC_ID, CodePages
from syncml.wbxml.errors import MalformedWbxml

SWITCH_PAGE: Final = 0x00
END: Final = 0x01
ENTITY: Final = 0x02
STR_I: Final = 0x03
LITERAL: Final = 0x04
PI: Final = 0x43
STR_T: Final = 0x83
OPAQUE: Final = 0xC3
_EXTENSIONS: Final = frozenset({0x40, 0x41, 0x42, 0x80, 0x81, 0x82, 0xC0, 0xC1, 0xC2})

HAS_CONTENT: Final = 0x40
HAS_ATTRIBUTES: Final = 0x80
_TOKEN: Final = 0x3F

MAX_MB_OCTETS: Final = 5  # octets of a 32-bit number, 7 bits each
_CHARSETS: Final = {0: "utf-8", 3: "ascii", 4: "latin-1", 106: "utf-8"}  # IANA MIBenum; 0 is unknown


def read_document(octets: bytes, pages: CodePages, limits: Limits | None = None) -> Element:
    """The document element of a complete WBXML document of that type.

    Tolerated: a public identifier that is unknown (the document element decides), of an older version of the document
    type, or spelled out in the string table with or without its final NUL; elements and attributes with unknown tokens
    and attributes named outside the string table, which get the name `UNKNOWN_NAME`.

    Raises:
        MalformedWbxml: truncated, too large, too deep, trailing octets, a token that cannot stand where it does, an
            index outside the string table, text that is not in its character set, or a document of another type.
    """
    return _Reader(octets, pages, limits if limits is not None else Limits()).document()


class _Reader:
    """A position in the octets, the two independent code page states, and what is left of the limits."""

    def __init__(self, octets: bytes, pages: CodePages, limits: Limits) -> None:
        self._octets = octets
        self._pages = pages
        self._limits = limits
        self._at = 0
        self._tag_page = 0
        self._attribute_page = 0
        self._items = 0
        self._text = 0
        self._charset = "utf-8"
        self._strings = b""

    def _fail(self, reason: str) -> NoReturn:
        raise MalformedWbxml(f"{self._pages.name}: {reason} at octet {self._at}")

    # -- octets, numbers, strings ---------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        taken = self._octets[self._at : self._at + count]
        if len(taken) < count:
            self._fail("document ends too early")
        self._at += count
        return taken

    def _octet(self) -> int:
        return self._take(1)[0]

    def _number(self) -> int:
        """mb_u_int32 (§5.1)."""
        number = 0
        start = self._at
        while (octet := self._octet()) & 0x80:
            if self._at - start == MAX_MB_OCTETS:
                self._fail("number of more than five octets")
            number = number << 7 | octet & 0x7F
        number = number << 7 | octet
        if number > 0xFFFFFFFF:
            self._fail("number of more than 32 bits")
        return number

    def _decode(self, raw: bytes) -> str:
        self._text += len(raw)
        if self._text > self._limits.max_text:
            self._fail("too much text")
        try:
            return raw.decode(self._charset)
        except UnicodeError:
            self._fail(f"text is not {self._charset}")

    def _inline_string(self) -> str:
        end = self._octets.find(b"\0", self._at)
        if end < 0:
            self._fail("string without an end")
        raw = self._take(end - self._at)
        self._at += 1
        return self._decode(raw)

    def _table_string(self, index: int) -> str:
        """String at an offset; the last one of a table may lack its NUL, as some stacks write it."""
        if index >= len(self._strings):
            self._fail("index outside the string table")
        end = self._strings.find(b"\0", index)
        return self._decode(self._strings[index:] if end < 0 else self._strings[index:end])

    def _entity(self) -> str:
        code_point = self._number()
        if code_point == 0 or code_point > 0x10FFFF or 0xD800 <= code_point <= 0xDFFF:
            self._fail("entity is no character")
        self._text += 1
        return chr(code_point)

    def _count_item(self) -> None:
        self._items += 1
        if self._items > self._limits.max_items:
            self._fail("too many elements")

    # -- document -------------------------------------------------------------------------------------------------

    def document(self) -> Element:
        if len(self._octets) > self._limits.max_size:
            self._fail(f"more than {self._limits.max_size} octets")
        version = self._octet()
        if version >> 4:
            self._fail("not WBXML 1.x")
        public_id = self._number()
        formal_index = self._number() if public_id == 0 else None
        if version:  # 1.0 has no character set
            charset = self._number()
            if charset not in _CHARSETS:
                self._fail(f"character set {charset}")
            self._charset = _CHARSETS[charset]
        self._strings = self._take(self._number())
        if formal_index is not None:
            formal_id = self._table_string(formal_index)
            if formal_id != self._pages.formal_id and formal_id not in self._pages.older_formal_ids:
                self._fail("another document type")
        elif public_id not in (UNKNOWN_PUBLIC_ID, self._pages.public_id, *self._pages.older_public_ids):
            self._fail("another document type")
        self._instructions()
        root = self._element(self._tag_octet(), depth=1)
        if root.name != self._pages.root:
            self._fail(f"document element is not {self._pages.root}")
        self._instructions()
        if self._at != len(self._octets):
            self._fail("octets after the document")
        return root

    def _instructions(self) -> None:
        """Processing instructions around the document element: read over."""
        while self._at < len(self._octets) and self._octets[self._at] == PI:
            self._at += 1
            self._attributes()

    def _tag_octet(self) -> int:
        while (octet := self._octet()) == SWITCH_PAGE:
            self._tag_page = self._octet()
        return octet

    def _element(self, octet: int, *, depth: int) -> Element:
        if depth > self._limits.max_depth:
            self._fail("elements too deep")
        self._count_item()
        token, page = octet & _TOKEN, self._tag_page
        if token == LITERAL:
            name = self._table_string(self._number())
        elif token > LITERAL:
            name = self._pages.tags.get(page, {}).get(token, UNKNOWN_NAME)
        else:
            self._fail(f"token {octet:02X} where an element should start")
        attributes = self._attributes() if octet & HAS_ATTRIBUTES else ()
        content = self._content(depth) if octet & HAS_CONTENT else ()
        return Element(name=name, page=page, attributes=attributes, content=content)

    def _content(self, depth: int) -> tuple[Content, ...]:
        content: list[Content] = []
        texts: list[str] = []
        while True:
            octet = self._tag_octet()
            text = self._text_of(octet)
            if text is not None:
                self._count_item()
                texts.append(text)
                continue
            if texts:
                content.append("".join(texts))
                texts = []
            if octet == END:
                return tuple(content)
            if octet == OPAQUE:
                self._count_item()
                raw = self._take(self._number())
                self._text += len(raw)
                content.append(raw)
            elif octet == PI:
                self._attributes()
            elif octet in _EXTENSIONS:
                self._fail("extension token")
            else:
                content.append(self._element(octet, depth=depth + 1))

    def _text_of(self, octet: int) -> str | None:
        """Text that a string or entity token stands for, None for other tokens."""
        if octet == STR_I:
            return self._inline_string()
        if octet == STR_T:
            return self._table_string(self._number())
        if octet == ENTITY:
            return self._entity()
        return None

    def _attributes(self) -> tuple[tuple[str, str], ...]:
        """Attributes up to and including their END; those of a processing instruction have the same form."""
        attributes: list[tuple[str, str]] = []
        name: str | None = None
        values: list[str] = []
        while True:
            octet = self._octet()
            if octet == SWITCH_PAGE:
                self._attribute_page = self._octet()
                continue
            text = self._value_text(octet)
            if text is not None:
                if name is None:
                    self._fail("attribute value without an attribute")
                self._count_item()
                values.append(text)
                continue
            if name is not None:
                attributes.append((name, "".join(values)))
            if octet == END:
                return tuple(attributes)
            self._count_item()
            name, prefix = self._attribute_start(octet)
            values = [prefix]

    def _attribute_start(self, octet: int) -> tuple[str, str]:
        if octet == LITERAL:
            # Nokia devices name `xmlns` so, with an empty string table: an attribute nobody can name is skipped.
            index = self._number()
            return (self._table_string(index) if index < len(self._strings) else UNKNOWN_NAME), ""
        if octet < LITERAL or octet in _EXTENSIONS or octet & 0x80 or octet in (PI, HAS_CONTENT | LITERAL):
            self._fail(f"token {octet:02X} where an attribute should start")
        return self._pages.attribute_starts.get(self._attribute_page, {}).get(octet, (UNKNOWN_NAME, ""))

    def _value_text(self, octet: int) -> str | None:
        """Text that a token adds to an attribute value, None for tokens that start something else."""
        if octet == OPAQUE:
            return self._decode(self._take(self._number()))
        text = self._text_of(octet)
        if text is not None or not octet & 0x80:
            return text
        value = self._pages.attribute_values.get(self._attribute_page, {}).get(octet)
        if value is None:  # skipping it would silently change the value
            self._fail(f"unknown attribute value token {octet:02X}")
        self._text += len(value)
        return value
