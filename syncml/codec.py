"""Messages to octets and back, in either encoding."""

from __future__ import annotations

from syncml.encoding import Encoding, encoding_of
from syncml.message_reader import MAX_MESSAGE_SIZE
from syncml.model import Message
from syncml.wbxml_codec import decode_wbxml, encode_wbxml
from syncml.xml_codec import decode_xml, encode_xml

__all__ = ["MAX_MESSAGE_SIZE", "Encoding", "decode", "encode", "encoding_of"]


def encode(message: Message, encoding: Encoding) -> bytes:
    """Encode a message.

    Raises:
        LocalProtocolError: the message cannot be carried by this encoding.
    """
    return encode_wbxml(message) if encoding is Encoding.WBXML else encode_xml(message)


def decode(body: bytes, encoding: Encoding, *, max_size: int = MAX_MESSAGE_SIZE) -> Message:
    """Decode a body.

    Raises:
        MessageTooLarge: more than `max_size` octets.
        MalformedMessage: octets that are no message in this encoding.
    """
    return (decode_wbxml if encoding is Encoding.WBXML else decode_xml)(body, max_size=max_size)
