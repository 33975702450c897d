"""The management objects of the device: what the tree shows, and what the device does by itself at its nodes."""

from __future__ import annotations

from functools import cache

from mo_definitions import Ddf, load


@cache
def description(name: str) -> Ddf:
    """A shipped DDF, read once: a simulator may hold many devices in one process."""
    return load(name)
