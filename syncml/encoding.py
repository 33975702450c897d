"""The two encodings of a SyncML message."""

from __future__ import annotations

from enum import Enum

from syncml.codes import MediaType


class Encoding(Enum):
    """Encodings of a SyncML message. A server answers in the encoding of the request."""

    XML = MediaType.DM_XML
    WBXML = MediaType.DM_WBXML

    @property
    def media_type(self) -> str:
        """Content-Type of a body in this encoding."""
        return self.value


def encoding_of(content_type: str) -> Encoding | None:
    """Encoding of a Content-Type, parameters and case ignored; None when it is no OMA DM message."""
    bare = content_type.partition(";")[0].strip().lower()
    return next((encoding for encoding in Encoding if encoding.value == bare), None)
