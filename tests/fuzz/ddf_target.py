"""Fuzz target for device descriptions of vendors, and where its seeds are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mo_definitions import DdfError, parse_ddfs

_VECTORS: Final = Path(__file__).parents[1] / "vectors" / "ddf"
_SHIPPED: Final = Path(__file__).parents[2] / "mo_definitions" / "ddf"


def ddf(octets: bytes) -> None:
    """A vendor's device description."""
    try:
        parse_ddfs(octets)
    except DdfError:
        return


DDF_SEEDS: Final[list[bytes]] = [path.read_bytes() for folder in (_VECTORS, _SHIPPED) for path in folder.glob("*.xml")]
