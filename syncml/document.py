"""A document as a small tree of values, the same for XML and WBXML.

What XML says with a namespace, WBXML says with a code page. The pages of SyncML documents stand for both here:
`SYNCML`, `METINF` and `DDF`. Other document types (provisioning documents) number their pages themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

UNKNOWN_NAME: Final = "?"
"""Name of an element or attribute that no table has, or of a foreign namespace: to be skipped, with what is in it."""

SYNCML: Final = 0
METINF: Final = 1
DDF: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """An element. Text is `str`, an opaque is `bytes`; neighbouring texts are one."""

    name: str
    page: int = SYNCML  # tag code page, which stands for the namespace: DM has `Format` on two of them
    attributes: tuple[tuple[str, str], ...] = ()  # in document order; a repeated name is not yet an error here
    content: tuple[Content, ...] = field(default=(), repr=False)  # may be a credential: never in a repr
    line: int = field(default=0, compare=False)  # of an XML document, from 1; 0: not known

    @property
    def elements(self) -> tuple[Element, ...]:
        """Child elements."""
        return tuple(each for each in self.content if isinstance(each, Element))

    def child(self, name: str) -> Element | None:
        """The first child of that name on any page; peers forget namespaces and page switches."""
        return next(self.children(name), None)

    def children(self, name: str) -> Iterator[Element]:
        """All children of that name, in document order."""
        return (each for each in self.content if isinstance(each, Element) and each.name == name)


Content: TypeAlias = Element | str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that a received document must keep; ours, the specification has none."""

    max_size: int = 512 * 1024  # octets of the document
    max_depth: int = 32  # elements inside each other
    max_items: int = 20_000  # elements; in WBXML attributes and pieces of content as well
    max_text: int = 1024 * 1024  # octets of all text in WBXML; one string table entry may be referred to many times
