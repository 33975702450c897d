"""Byte-level targets for a coverage-guided fuzzer: each takes any octets and raises for a fault of ours only.

A target calls a decoder and passes over its typed errors. What was read is written and read again; it has to be the
same, as far as a strict writer can say what a tolerant reader took.
"""

from __future__ import annotations

from collections.abc import Callable

from mo_definitions import DdfError, parse_ddfs
from syncml.codec import Encoding, decode, encode
from syncml.errors import LocalProtocolError, RemoteProtocolError
from syncml.model import Message
from syncml.tnds import MalformedTnds, decode_tnds, encode_tnds


def _message(octets: bytes, encoding: Encoding) -> None:
    try:
        message = decode(octets, encoding)
    except RemoteProtocolError:
        return
    for other in Encoding:
        _again(message, other)


def _again(message: Message, encoding: Encoding) -> None:
    """Written once, a message has its strict form, which must not change any more."""
    try:
        written = encode(message, encoding)
    except LocalProtocolError:
        return  # commands of nobody, without CmdID, or characters that the encoding cannot carry
    strict = decode(written, encoding)
    assert strict.header.source == message.header.source
    assert [each.name for each in strict.commands] == [each.name for each in message.commands]
    assert strict.final == message.final
    rewritten = encode(strict, encoding)
    assert decode(rewritten, encoding) == strict


def xml(octets: bytes) -> None:
    """A message in XML."""
    _message(octets, Encoding.XML)


def wbxml(octets: bytes) -> None:
    """A message in WBXML."""
    _message(octets, Encoding.WBXML)


def tnds(octets: bytes) -> None:
    """A serialised tree in either encoding."""
    try:
        tree = decode_tnds(octets)
    except MalformedTnds:
        return
    for encoding in Encoding:
        try:
            written = encode_tnds(tree, encoding)
        except LocalProtocolError:
            continue  # a character that the encoding cannot carry
        strict = decode_tnds(written)
        assert [node.name for node in strict.walk()] == [node.name for node in tree.walk()]
        assert decode_tnds(encode_tnds(strict, encoding)) == strict


def ddf(octets: bytes) -> None:
    """A vendor's device description."""
    try:
        parse_ddfs(octets)
    except DdfError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {"xml": xml, "wbxml": wbxml, "tnds": tnds, "ddf": ddf}
