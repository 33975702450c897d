"""`aiohttp` and `aiohttp.web`, imported when something of them is first used.

The import takes a tenth of a second, a fifth of what most commands take at all: they share modules with the servers,
and have nothing to do with HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp as aiohttp
    from aiohttp import web as web
else:
    import importlib

    class _Later:
        """Stands for a module. Modules that use it must not need it while they are imported themselves."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> object:
            return getattr(importlib.import_module(self._name), name)

    aiohttp, web = _Later("aiohttp"), _Later("aiohttp.web")
