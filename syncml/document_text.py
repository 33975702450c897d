"""What the content of an element means: plain text, or user data that is text, octets or XML.

XML knows text only. WBXML has strings and opaques, peers put either into opaques, and a tree may stand in user data as
elements; here it is decided once what all that is.
"""

from __future__ import annotations

import base64
import binascii

from syncml.document import DDF, UNKNOWN_NAME, Content, Element
from syncml.errors import MalformedMessage
from syncml.xml_document import is_xml_text, xml_text


def plain_text(content: tuple[Content, ...]) -> str:
    """The text of an element that holds nothing else; an opaque may carry it as well.

    Raises:
        MalformedMessage: an opaque that is no UTF-8, or a character that the document could not have as XML. What we
            repeat of it, and keep, can be written in either encoding.
    """
    texts = [each for each in content if not isinstance(each, Element)]
    try:
        text = "".join(each if isinstance(each, str) else each.rstrip(b"\0").decode() for each in texts)
    except UnicodeDecodeError as exc:
        raise MalformedMessage("an opaque that should be text is no UTF-8") from exc
    if not is_xml_text(text):
        raise MalformedMessage("a character that XML has not")
    return text


def user_data(content: tuple[Content, ...], data_format: str | None, media_type: str | None) -> str | bytes:
    """User data as it is: text, octets, or elements that stand in it as XML text.

    An opaque stays octets for the Format `bin`, as a nested WBXML document and where it is no text; else it is text.
    What XML could not carry is no text, in an opaque or in a string of WBXML.

    Raises:
        MalformedMessage: an opaque beside elements that is no UTF-8.
    """
    if len(content) == 1 and isinstance(content[0], str) and is_xml_text(content[0]):
        return content[0]
    if any(isinstance(each, Element) for each in content):
        return "".join(_inline(each) for each in content)
    if not content:
        return ""
    octets = b"".join(_octets(each) for each in content)
    if data_format == "bin" or (media_type or "").endswith("wbxml"):
        return octets
    text = _as_text(octets)
    if text is None or (data_format == "b64" and not is_base64(octets.rstrip(b"\0"))):
        return octets
    return text


def is_base64(octets: bytes) -> bool:
    """Whether octets are Base64 text, in lines or not."""
    try:
        base64.b64decode(b"".join(octets.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _octets(piece: Content) -> bytes:
    return piece if isinstance(piece, bytes) else str(piece).encode("utf-8", "replace")


def _as_text(octets: bytes) -> str | None:
    """UTF-8 text, without NUL at its end; None for anything else."""
    try:
        text = octets.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return None
    return text if is_xml_text(text) else None


def _inline(piece: Content) -> str:
    """A tree as elements (pages change inside one WBXML document); pages of other vocabularies are passed over."""
    if not isinstance(piece, Element):
        return plain_text((piece,))
    if piece.name == UNKNOWN_NAME or (piece.page == DDF and piece.name != "MgmtTree"):
        return ""
    return xml_text(_text_only(piece))


def _text_only(element: Element) -> Element:
    """The element as XML can show it: an opaque that is no text becomes Base64, as XML has binary values."""

    def shown(piece: Content) -> Content:
        if isinstance(piece, Element):
            return _text_only(piece)
        text = _as_text(_octets(piece))
        return base64.b64encode(_octets(piece)).decode() if text is None else text

    return Element(name=element.name, page=element.page, content=tuple(shown(each) for each in element.content))
