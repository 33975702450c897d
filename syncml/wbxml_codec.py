"""SyncML DM messages as WBXML (OMA-TS-SyncML_RepPro-V1_2 §8): version 1.2, public identifier 1201, UTF-8, no table.

Any version 1.x is read, with the identifier as a number, spelled out, unknown or of an older SyncML.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from syncml.document import Limits
from syncml.encoding import Encoding
from syncml.errors import MessageTooLarge
from syncml.message_reader import MAX_DEPTH, MAX_ELEMENTS, MAX_MESSAGE_SIZE, read_message
from syncml.message_writer import write_message
from syncml.model import Message
from syncml.wbxml import WBXML_1_2, read_document, write_document
from syncml.wbxml.syncml_pages import SYNCML_1_2

_LIMITS: Final = Limits(max_size=MAX_MESSAGE_SIZE, max_depth=MAX_DEPTH, max_items=3 * MAX_ELEMENTS)


def encode_wbxml(message: Message) -> bytes:
    """Encode as WBXML.

    Raises:
        LocalProtocolError: a text with NUL, or a command without CmdID.
    """
    return write_document(write_message(message, Encoding.WBXML), SYNCML_1_2, version=WBXML_1_2)


def decode_wbxml(body: bytes, *, max_size: int = MAX_MESSAGE_SIZE) -> Message:
    """Decode one message.

    Raises:
        MessageTooLarge: more than `max_size` octets.
        MalformedMessage: no WBXML, over a limit, or not a SyncML message.
    """
    if len(body) > max_size:
        raise MessageTooLarge(f"{len(body)} octets, {max_size} are taken")
    return read_message(read_document(body, SYNCML_1_2, replace(_LIMITS, max_size=max_size)))
