"""Type-length-value lists: type (2 octets), length (2 octets), value; big-endian, strictly ascending types."""

from __future__ import annotations

from collections.abc import Iterable

from mcim.errors import InvalidArgument

CRITICAL = 0x8000
"""Bit of a type that says: refuse the whole list if you do not know me."""


class TlvError(ValueError):
    """Octets that are no canonical TLV list; callers turn it into the error of their own layer."""


def encode(fields: Iterable[tuple[int, bytes]], *, repeatable: frozenset[int] = frozenset()) -> bytes:
    """Encode `(type, value)` pairs, sorted by type; several values of a repeatable type keep their order.

    Raises:
        InvalidArgument: a type twice, or a type or value that does not fit its width.
    """
    out = bytearray()
    previous = -1
    for kind, value in sorted(fields, key=lambda field: field[0]):
        if kind == previous and kind not in repeatable:
            raise InvalidArgument(f"TLV {kind:04X} twice")
        if not 0 <= kind <= 0xFFFF or len(value) > 0xFFFF:
            raise InvalidArgument(f"TLV {kind:X} with {len(value)} octets does not fit")
        out += kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
        previous = kind
    return bytes(out)


def decode(octets: bytes, *, repeatable: frozenset[int] = frozenset()) -> list[tuple[int, bytes]]:
    """Decode a list that must fill `octets` exactly.

    Raises:
        TlvError: truncated, trailing octets, or types not strictly ascending.
    """
    fields: list[tuple[int, bytes]] = []
    offset, previous = 0, -1
    while offset < len(octets):
        if offset + 4 > len(octets):
            raise TlvError("truncated type or length")
        kind = int.from_bytes(octets[offset : offset + 2], "big")
        length = int.from_bytes(octets[offset + 2 : offset + 4], "big")
        offset += 4
        if offset + length > len(octets):
            raise TlvError(f"TLV {kind:04X} runs over the end")
        if kind < previous or (kind == previous and kind not in repeatable):
            raise TlvError(f"TLV {kind:04X} out of order or repeated")
        fields.append((kind, octets[offset : offset + length]))
        offset += length
        previous = kind
    return fields
