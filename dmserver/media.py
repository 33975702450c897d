"""What a request carries, by its Content-Type and, where that says nothing, by its first octets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from syncml.codec import Encoding
from syncml.codes import MediaType

_TYPES: Final = {
    MediaType.DM_XML.value: Encoding.XML,
    MediaType.DM_WBXML.value: Encoding.WBXML,
    # Of Data Synchronization, which some devices put on DM messages (palm webOS); answered in kind.
    "application/vnd.syncml+xml": Encoding.XML,
    "application/vnd.syncml+wbxml": Encoding.WBXML,
}
_SAYS_NOTHING: Final = frozenset({"", "application/octet-stream"})

_XML_STARTS: Final = (b"<", b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")
_WBXML_STARTS: Final = (
    b"\xa4\x01",  # public id of SyncML 1.2, mb_u_int32 of 0x1201
    b"\x9f\x53",  # of SyncML 1.1: 0x0FD3
    b"\x00\x00",  # by name, at index 0 of the string table
)  # after the version octet

CONTENT_CODINGS: Final = frozenset({"gzip", "deflate"})
"""What the HTTP server takes off, within the limit of a body."""

_NO_CODINGS: Final = frozenset(
    # Real devices send these, and mean that nothing was done to the body.
    {"", "identity", "none", "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "binary", "8bit", "7bit"}
)


@dataclass(frozen=True, slots=True)
class Media:
    """How the body is encoded, and the media type the answer gets."""

    encoding: Encoding
    answer_type: str


def media_of(content_type: str, body: bytes) -> Media | None:
    """Encoding of a request; None when it is no DM message. Parameters (charset, verproto) and case do not matter.

    Octets are looked at only when the type is absent or says nothing: a wrong type is not corrected.
    """
    bare = content_type.partition(";")[0].strip().lower()
    if bare in _SAYS_NOTHING:
        encoding = _sniff(body)
        return None if encoding is None else Media(encoding, encoding.media_type)
    encoding = _TYPES.get(bare)
    return None if encoding is None else Media(encoding, bare)


def _sniff(body: bytes) -> Encoding | None:
    if body.lstrip(b" \t\r\n").startswith(_XML_STARTS):
        return Encoding.XML
    if body[:1] in (b"\x01", b"\x02", b"\x03") and body[1:3] in _WBXML_STARTS:
        return Encoding.WBXML
    return None


def coding_refused(content_encoding: str) -> bool:
    """Whether a Content-Encoding is one we cannot take off."""
    coding = content_encoding.strip().lower()
    return coding not in CONTENT_CODINGS and coding not in _NO_CODINGS
