"""WAP Binary XML, bounded and driven by token tables (WAP-192-WBXML)."""

from __future__ import annotations

from syncml.document import UNKNOWN_NAME, Content, Element, Limits
from syncml.wbxml.code_pages import CodePages
from syncml.wbxml.errors import MalformedWbxml
from syncml.wbxml.reader import read_document
from syncml.wbxml.writer import WBXML_1_2, WBXML_1_3, write_document

__all__ = [
    "UNKNOWN_NAME",
    "WBXML_1_2",
    "WBXML_1_3",
    "CodePages",
    "Content",
    "Element",
    "Limits",
    "MalformedWbxml",
    "read_document",
    "write_document",
]
