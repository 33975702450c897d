"""Bodies of devices that are no message: in the trace file alone, for whoever tests a device.

Anybody can send them, so their number is bounded and the database has none of them. What they hold cannot be told
apart from credentials, so their octets are shown only where a setting says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from actor_runtime.traced import octets_text
from actor_runtime.trail import Trail

MAX_TRACED: Final = 1000  # bodies within the window
WINDOW_S: Final = 3600.0
MAX_TYPE: Final = 128  # characters of a Content-Type

_log = structlog.get_logger(__name__)


class UnreadableTrace:
    """Notes what could not be read. `octets`: with the beginning of the body, whatever it holds."""

    def __init__(self, trail: Trail, *, octets: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._trail = trail
        self._octets = octets
        self._clock = clock
        self._began, self._count = clock(), 0

    def note(self, body: bytes, content_type: str, why: str) -> None:
        """A body came that is no message, for that reason."""
        if self._clock() - self._began > WINDOW_S:
            self._began, self._count = self._clock(), 0
        self._count += 1
        if self._count > MAX_TRACED:
            return
        _log.info("dm.unreadable", reason=why, octets=len(body), content_type=content_type[:MAX_TYPE])
        self._trail.unreadable(
            step="7",
            direction="M2ME→DPF",
            summary=why,
            octets=len(body),
            content_type=content_type[:MAX_TYPE],
            received=octets_text(body) if self._octets else None,
        )
