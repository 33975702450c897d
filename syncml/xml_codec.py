"""SyncML DM messages as XML: strict writer, tolerant reader (OMA-TS-SyncML_RepPro-V1_2 §5, §6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from syncml.document import Limits
from syncml.encoding import Encoding
from syncml.message_reader import MAX_DEPTH, MAX_ELEMENTS, MAX_MESSAGE_SIZE, ROOT, VERBATIM, read_message
from syncml.message_writer import write_message
from syncml.model import Message
from syncml.xml_document import read_xml, write_xml

_LIMITS: Final = Limits(max_size=MAX_MESSAGE_SIZE, max_depth=MAX_DEPTH, max_items=MAX_ELEMENTS)


def encode_xml(message: Message) -> bytes:
    """Encode as UTF-8 XML.

    Raises:
        LocalProtocolError: a text that XML cannot carry, or a command without CmdID.
    """
    return write_xml(write_message(message, Encoding.XML))


def decode_xml(body: bytes, *, max_size: int = MAX_MESSAGE_SIZE) -> Message:
    """Decode one message.

    Raises:
        MessageTooLarge: more than `max_size` octets.
        MalformedMessage: not well-formed, a document type with declarations, over a limit, or not a SyncML message.
    """
    return read_message(read_xml(body, ROOT, replace(_LIMITS, max_size=max_size), verbatim=VERBATIM))
