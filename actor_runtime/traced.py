"""What a peer sent, for the trace file, where it is no message, or one that no strict writer takes."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from typing import Final

MAX_TEXT: Final = 32 * 1024  # characters of a message that is shown loosely
MAX_OCTETS: Final = 4096  # octets of a body that is no message
PRINTABLE_SHARE: Final = 0.9  # of a body: from there on it is shown as text, else as hexadecimal digits


def loose_text(message: object, *, why: str) -> str:
    """A message as its reader understood it, in JSON. Nothing is blanked here: the caller did that.

    Args:
        message: dataclasses in dataclasses; what is None, False or empty is left out.
        why: what keeps it from being written as XML.
    """
    text = json.dumps(_bare(message), separators=(",", ":"))
    cut = "" if len(text) <= MAX_TEXT else f"… {len(text) - MAX_TEXT} characters more"
    return f"[not to be written as XML: {why}] {text[:MAX_TEXT]}{cut}"


def octets_text(body: bytes) -> str:
    """The beginning of a body, as text with everything unprintable escaped, or as hexadecimal digits."""
    shown = body[:MAX_OCTETS]
    text = shown.decode("utf-8", "backslashreplace")
    printable = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    good = sum(each in b"\t\n\r" or 0x20 <= each < 0x7F or each >= 0x80 for each in shown)
    is_text = b"\0" not in shown and good >= PRINTABLE_SHARE * len(shown)
    cut = "" if len(body) <= MAX_OCTETS else f"… {len(body) - MAX_OCTETS} octets more"
    return f"{printable if is_text else shown.hex(' ')}{cut}"


def _bare(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        given = {name: _bare(part) for name, part in parts.items() if part not in (None, False, ())}
        return {type(value).__name__: given}
    if isinstance(value, tuple):
        return [_bare(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("ascii", "backslashreplace")
    return value.value if isinstance(value, Enum) else value
