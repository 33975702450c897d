"""WBXML writer: strict, with UTF-8 and inline strings; only a formal public identifier uses the string table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from syncml.document import Element
from syncml.errors import LocalProtocolError
from syncml.wbxml.code_pages import CodePages
from syncml.wbxml.reader import END, HAS_ATTRIBUTES, HAS_CONTENT, OPAQUE, STR_I, SWITCH_PAGE

WBXML_1_2: Final = 0x02
WBXML_1_3: Final = 0x03
_UTF_8: Final = 106  # IANA MIBenum

_Meaning = TypeVar("_Meaning")


def write_document(root: Element, pages: CodePages, *, version: int = WBXML_1_3) -> bytes:
    """A complete WBXML document of that type.

    Raises:
        LocalProtocolError: the document element is another one, a name has no token, or text contains NUL.
    """
    if root.name != pages.root:
        raise LocalProtocolError(f"document element is not {pages.root}")
    if pages.public_id is not None:
        head = _number(pages.public_id) + _number(_UTF_8) + _number(0)
    else:
        formal = pages.formal_id.encode() + b"\0"
        head = b"\0" + _number(0) + _number(_UTF_8) + _number(len(formal)) + formal
    writer = _Writer(pages)
    writer.element(root)
    return bytes((version,)) + head + bytes(writer.octets)


def _number(value: int) -> bytes:
    """mb_u_int32 (WBXML 1.3 §5.1)."""
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(value & 0x7F | 0x80)
    return bytes(reversed(octets))


class _Writer:
    """The octets so far and the two code page states."""

    def __init__(self, pages: CodePages) -> None:
        self._pages = pages
        self._tag_page = 0
        self._attribute_page = 0
        self.octets = bytearray()

    def element(self, element: Element) -> None:
        token = self._pages.tokens.get((element.page, element.name))
        if token is None:
            raise LocalProtocolError(f"no token for {element.name} on page {element.page}")
        if element.page != self._tag_page:
            self._tag_page = element.page
            self.octets += bytes((SWITCH_PAGE, element.page))
        flags = (HAS_CONTENT if element.content else 0) | (HAS_ATTRIBUTES if element.attributes else 0)
        self.octets.append(token | flags)
        if element.attributes:
            for name, value in element.attributes:
                self._attribute(name, value)
            self.octets.append(END)
        for each in element.content:
            if isinstance(each, Element):
                self.element(each)
            elif isinstance(each, bytes):
                self.octets += bytes((OPAQUE,)) + _number(len(each)) + each
            else:
                self._string(each)
        if element.content:
            self.octets.append(END)

    def _string(self, text: str) -> None:
        if "\0" in text:
            raise LocalProtocolError("NUL ends a string and cannot be in it")
        try:
            self.octets += bytes((STR_I,)) + text.encode() + b"\0"
        except UnicodeEncodeError as error:
            raise LocalProtocolError("lone surrogate in text") from error

    def _attribute(self, name: str, value: str) -> None:
        """The start that says the whole value, or the bare start and then the value: one token, or a string.

        Tokens are sought on the lowest page that has them, as libwbxml does, not on the page selected now.
        """
        if (whole := _find(self._pages.attribute_starts, (name, value))) is not None:
            self._attribute_token(*whole)
            return
        start = _find(self._pages.attribute_starts, (name, ""))
        if start is None:
            raise LocalProtocolError(f"no token for attribute {name}")
        self._attribute_token(*start)
        token = _find(self._pages.attribute_values, value)
        if token is not None:
            self._attribute_token(*token)
        else:
            self._string(value)

    def _attribute_token(self, page: int, token: int) -> None:
        if page != self._attribute_page:
            self._attribute_page = page
            self.octets += bytes((SWITCH_PAGE, page))
        self.octets.append(token)


def _find(tables: Mapping[int, Mapping[int, _Meaning]], wanted: _Meaning) -> tuple[int, int] | None:
    """Page and token of a meaning, None when there is no token for it."""
    for page, tokens in sorted(tables.items()):
        for token, meaning in tokens.items():
            if meaning == wanted:
                return page, token
    return None
