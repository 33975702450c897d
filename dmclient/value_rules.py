"""What a node may hold: Format, Type and value of an Add or Replace, held against the place they are meant for.

Sources: OMA-TS-DM_TND-V1_2 §7.7.2 (formats), OMA-TS-DM_RepPro-V1_2 §7 (values on the wire).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, time
from typing import Final

from dmclient.management_tree import Place
from dmclient.nodes import Node, TreeRefusal, Value
from syncml.codes import Format, MediaType, StatusCode

INT_PATTERN: Final = re.compile(r"[+-]?[0-9]{1,10}")
FLOAT_PATTERN: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|-?INF|NaN")
_ISO_8601: Final[dict[Format, Callable[[str], object]]] = {
    Format.DATE: date.fromisoformat,  # basic and extended form alike: 20261128, 2026-11-28
    Format.TIME: time.fromisoformat,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an Add or Replace brings; None stands for an element that was absent."""

    format: str | None = None
    type: str | None = None
    value: Value | None = field(default=None, repr=False)  # may be a secret; Base64 is decoded


def node_from(place: Place, content: Content) -> Node:
    """The node an Add or Replace describes, checked against its place (412, 415)."""
    declared = _format_of(content.format, place)
    media_type = content.type.strip() if content.type is not None else None
    if declared is Format.NODE:
        if content.value:
            raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "an interior node has no value")
        if place.object_type and media_type and media_type != place.object_type:
            raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "another management object belongs here")
        object_type = media_type or place.object_type
        return Node(format=declared, type=object_type, access=place.access, scope=place.scope)
    if not media_type:
        media_type = place.types[0] if place.types else MediaType.TEXT.value
    if place.types and media_type.lower() not in {each.lower() for each in place.types}:
        raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "wrong Type for this node")
    if declared is Format.B64 and place.format is None and not media_type.lower().startswith("text/"):
        declared = Format.BIN  # a binary that came over XML is a binary (OMA-TS-DM_RepPro-V1_2 §7)
    return Node(
        format=declared,
        type=media_type,
        value=_checked_value(declared, content.value),
        access=place.access,
        scope=place.scope,
    )


def _format_of(text: str | None, place: Place) -> Format:
    if text is None or not text.strip():
        return place.format if place.format is not None else Format.CHR
    try:
        declared = Format(text.strip().lower())
    except ValueError:
        raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "unknown Format") from None
    if place.format is None or declared is place.format:
        return declared
    if {declared, place.format} == {Format.B64, Format.BIN}:
        return place.format
    raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "wrong Format for this node")


def _checked_value(declared: Format, value: Value | None) -> Value:
    if declared is Format.NULL:
        if value:
            raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "a null node has no value")
        return ""
    if value is None:
        raise TreeRefusal(StatusCode.INCOMPLETE_COMMAND, "Data is missing")
    binary = declared in (Format.BIN, Format.B64)
    if binary and value == "":
        return b""
    if binary is not isinstance(value, bytes):
        raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, "Data do not have the Format declared")
    if isinstance(value, str) and not _well_formed(declared, value):
        raise TreeRefusal(StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT, f"not a value of Format {declared.value}")
    return value


def _well_formed(declared: Format, text: str) -> bool:
    if declared is Format.INT:
        return INT_PATTERN.fullmatch(text) is not None and -(2**31) <= int(text) < 2**31
    if declared is Format.BOOL:
        return text in ("true", "false")
    if declared is Format.FLOAT:
        return FLOAT_PATTERN.fullmatch(text) is not None
    reader = _ISO_8601.get(declared)
    if reader is None:
        return True
    try:
        reader(text)
    except ValueError:
        return False
    return True
