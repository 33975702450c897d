"""DM sessions under way: in memory, bounded in number and time (REQ-11), found by (device id, SessionID).

A lost session is only lost time: what must survive is the order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dmserver.provisioning import Provisioning
from syncml.server_session import ServerSession

MAX_RECORDED_FAILURES: Final = 20  # wrong credentials of one device within the window that the trail shows
FAILURE_WINDOW_S: Final = 3600.0


class RegistryFull(Exception):
    """Every place is taken by an authenticated session."""


@dataclass(slots=True, kw_only=True)
class LiveSession:
    """One session and what the DPF remembers beside the engine."""

    device_id: str
    session_id: str  # opaque text of the device
    engine: ServerSession
    known: bool  # there is an account; otherwise the engine works with made-up credentials
    recorded: bool  # what happens in it goes to the audit trail
    authenticated: bool = False
    policy: Provisioning | None = None  # None until authenticated, and without an ongoing order
    begun: bool = False  # the policy made its first move
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one message at a time
    last_seen: float = 0.0  # monotonic seconds
    first_digest: bytes = b""  # SHA-256 of package 1 as received: the same again is a retransmission
    token: str = field(default="", repr=False)  # in RespURI: whoever speaks in the authenticated session shows it
    replaced: bool = False  # by a newer session of the device


class SessionRegistry:
    """All sessions of one process."""

    def __init__(
        self,
        *,
        max_sessions: int,
        idle_s: float,
        dead_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max = max_sessions
        self._idle_s = idle_s
        self._dead_s = dead_s
        self._clock = clock
        self._sessions: dict[tuple[str, str], LiveSession] = {}
        self._failures: dict[str, tuple[float, int]] = {}  # known device → window began, failures in it

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, device_id: str, session_id: str) -> LiveSession | None:
        """The session of that name; one that was idle for too long is forgotten."""
        session = self._sessions.get((device_id, session_id))
        if session is None:
            return None
        if self._clock() - session.last_seen > self._idle_s and not session.lock.locked():
            del self._sessions[device_id, session_id]
            return None
        return session

    def touch(self, session: LiveSession) -> None:
        """A message of the session has come."""
        session.last_seen = self._clock()

    def is_dead(self, session: LiveSession) -> bool:
        """Whether a new package 1 may take its place: over, or silent for a while.

        A session that is alive is not given up for a package 1 that anybody may have sent.
        """
        if session.lock.locked():
            return False
        return session.engine.closed or self._clock() - session.last_seen >= self._dead_s

    def put(self, session: LiveSession) -> None:
        """Take in a new session, in the place of one of the same name.

        Raises:
            RegistryFull
        """
        key = (session.device_id, session.session_id)
        if key not in self._sessions and len(self._sessions) >= self._max:
            self._make_room()
        self.touch(session)
        self._sessions[key] = session

    def supersede(self, session: LiveSession) -> None:
        """The device authenticated in `session`: its other sessions are over (REQ-15)."""
        for key, other in list(self._sessions.items()):
            if other.device_id == session.device_id and other is not session and other.authenticated:
                other.replaced = True
                del self._sessions[key]

    def note_failure(self, device_id: str) -> bool:
        """Count wrong credentials of a known device; whether they are still worth a line of the trail.

        Whoever knows the identity of a device can fail as often as he likes, and must not fill the database with it.
        """
        began, count = self._failures.get(device_id, (self._clock(), 0))
        if self._clock() - began > FAILURE_WINDOW_S:
            began, count = self._clock(), 0
        self._failures[device_id] = (began, count + 1)
        return count < MAX_RECORDED_FAILURES

    def note_success(self, device_id: str) -> None:
        """The device proved itself."""
        self._failures.pop(device_id, None)

    def _make_room(self) -> None:
        now = self._clock()
        for key, session in list(self._sessions.items()):
            over = session.engine.closed or now - session.last_seen > self._idle_s
            if over and not session.lock.locked():
                del self._sessions[key]
        if len(self._sessions) < self._max:
            return
        strangers = [key for key, each in self._sessions.items() if not each.authenticated and not each.lock.locked()]
        if not strangers:
            raise RegistryFull
        del self._sessions[min(strangers, key=lambda key: self._sessions[key].last_seen)]
