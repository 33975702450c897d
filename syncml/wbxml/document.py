"""WBXML documents as small trees of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from syncml.errors import MalformedMessage

UNKNOWN_NAME: Final = "?"
"""Name of an element or attribute whose token is in no table: to be skipped, with what is in it."""


class MalformedWbxml(MalformedMessage):
    """Octets that are no WBXML document of the expected type, or that exceed a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """An element. Text is `str`, an opaque is `bytes`; neighbouring texts are one."""

    name: str
    page: int = 0  # tag code page, which stands for the namespace: DM has `Format` on two of them
    attributes: tuple[tuple[str, str], ...] = ()  # in document order; a repeated name is not yet an error here
    content: tuple[Content, ...] = ()

    @property
    def elements(self) -> tuple[Element, ...]:
        """Child elements."""
        return tuple(each for each in self.content if isinstance(each, Element))


Content: TypeAlias = Element | str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that a received document must keep; ours, the specification has none."""

    max_size: int = 512 * 1024  # octets of the document
    max_depth: int = 32  # elements inside each other
    max_items: int = 20_000  # elements, attributes and pieces of content
    max_text: int = 1024 * 1024  # octets of all text; one string table entry may be referred to many times
