"""Which encoding a body has, and the codec for it."""

from __future__ import annotations

from enum import Enum

from syncml import xml_codec
from syncml.codes import MediaType
from syncml.errors import LocalProtocolError, MalformedMessage
from syncml.model import Message


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


def supported(encoding: Encoding) -> bool:
    """Whether this build reads and writes the encoding."""
    return encoding is Encoding.XML


def encode(message: Message, encoding: Encoding) -> bytes:
    """Encode a message.

    Raises:
        LocalProtocolError: the encoding is not supported, or the message cannot be carried by it.
    """
    if encoding is not Encoding.XML:
        raise LocalProtocolError(f"{encoding.name} is not supported")
    return xml_codec.encode_xml(message)


def decode(body: bytes, encoding: Encoding, *, max_size: int = xml_codec.MAX_MESSAGE_SIZE) -> Message:
    """Decode a body.

    Raises:
        MalformedMessage: octets that are no message in this encoding, or more than `max_size` of them.
    """
    if encoding is not Encoding.XML:
        raise MalformedMessage(f"{encoding.name} is not supported")
    return xml_codec.decode_xml(body, max_size=max_size)
