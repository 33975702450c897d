"""What the enumerations of node addresses have in common."""

from __future__ import annotations

from enum import StrEnum


class RelativePath(StrEnum):
    """Base of enumerations of node addresses relative to the root of an object; names need no escapes."""

    @property
    def segments(self) -> tuple[str, ...]:
        """Node names from the root of the object to the node."""
        return tuple(self.split("/"))
