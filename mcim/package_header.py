"""The clear, signed header of a package, in whatever container it comes. A DPF may read it; it opens nothing."""

from __future__ import annotations

from typing import Final

from mcim import cms_header, xml_header
from mcim.errors import PackageRefused
from mcim.header_fields import PackageHeader
from mcim.vocabulary import MAX_PACKAGE_SIZE, ResultCode

__all__ = ["PackageHeader", "is_cms", "peek_header"]

_DER_SEQUENCE: Final = b"\x30"  # "0", which no XML document begins with


def is_cms(package: bytes) -> bool:
    """Whether these octets are to be read as CMS; they are XML otherwise. What begins as neither is broken XML.

    Raises:
        PackageRefused: MALFORMED, more octets than any package may have.
    """
    if len(package) > MAX_PACKAGE_SIZE:
        raise PackageRefused(ResultCode.MALFORMED, f"more than {MAX_PACKAGE_SIZE} octets")
    return package.startswith(_DER_SEQUENCE)


def peek_header(package: bytes) -> PackageHeader:
    """The header of a package of which nothing is verified: for hints, never for decisions.

    Raises:
        PackageRefused: the octets are no package, or its header is broken.
    """
    return cms_header.peek(package) if is_cms(package) else xml_header.peek(package)
