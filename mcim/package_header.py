"""The clear, signed header of a package, in whatever container it comes. A DPF may read it; it opens nothing."""

from __future__ import annotations

from mcim import xml_header
from mcim.header_fields import PackageHeader

__all__ = ["PackageHeader", "peek_header"]


def peek_header(package: bytes) -> PackageHeader:
    """The header of a package of which nothing is verified: for hints, never for decisions.

    Raises:
        PackageRefused: the octets are no package, or its header is broken.
    """
    return xml_header.peek(package)
