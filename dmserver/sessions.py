"""DM sessions under way: in memory, bounded in number and time (REQ-11).

A lost session is only lost time: what must survive is the order, and the queue of operator commands.

SessionIDs are opaque and no secret: many devices count from 1, say "1" always, or swap the octets of the id a
notification gave them. So a SessionID names nothing alone. Who has authenticated is known by the token in our RespURI;
a package 1 may always begin another session beside it, and takes its place only when its sender has proved himself.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from dmserver.session_policy import SessionPolicy
from syncml.codec import Encoding
from syncml.codes import AuthType
from syncml.server_session import ServerSession

MAX_RECORDED_FAILURES: Final = 20  # wrong credentials of one device within the window that trail and log show
FAILURE_WINDOW_S: Final = 3600.0
MAX_NEWCOMERS: Final = 4  # sessions of one name whose sender has not authenticated


class RegistryFull(Exception):
    """Every place is taken by an authenticated session."""


@dataclass(slots=True, kw_only=True)
class LiveSession:
    """One session and what the DPF remembers beside the engine."""

    device_id: str
    session_id: str  # opaque text of the device
    engine: ServerSession
    encoding: Encoding  # of package 1, and of everything after it
    known: bool  # there is an account; otherwise the engine works with made-up credentials
    recorded: bool  # what happens in it goes to the audit trail
    authenticated: bool = False
    policy: SessionPolicy | None = None  # None until authenticated, and when nothing is wanted of the device
    begun: bool = False  # the policy made its first move
    continued: bool = False  # a message came after the one that authenticated: our answer had arrived
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one message at a time
    last_seen: float = 0.0  # monotonic seconds
    first_digest: bytes = b""  # SHA-256 of package 1 as received: the same again is a retransmission
    last_digest: bytes = b""  # SHA-256 of the last message taken
    last_msg_id: str = ""  # its MsgID
    token: str = field(default="", repr=False)  # in RespURI: whoever speaks in the authenticated session shows it
    replaced: bool = False  # by a newer session of the device

    @property
    def key(self) -> tuple[str, str]:
        """What the device calls it."""
        return self.device_id, self.session_id

    def takes_without_token(self, msg_id: str, digest: bytes) -> bool:
        """Whether a message may come without the token of our RespURI.

        Only of a peer whose profile says that it loses RespURIs, and whose every message carries credentials: then the
        engine takes nothing of a message that does not prove its sender. The cached answer to a repeated MsgID goes
        out before credentials are looked at, so a repetition is to be the same octets. Without TLS, somebody on the
        network could still end such a session by failing in it, as he could by dropping its messages.
        """
        account = self.engine.account
        proves_itself = account.per_message or account.client_auth is AuthType.MAC
        if account.peer.resp_uri or not proves_itself:
            return False
        return msg_id != self.last_msg_id or hmac.compare_digest(digest, self.last_digest)


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
        self._sessions: dict[tuple[str, str], list[LiveSession]] = {}  # oldest first
        self._failures: dict[str, tuple[float, int]] = {}  # known device, or "" → window began, failures

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def find(self, device_id: str, session_id: str) -> LiveSession | None:
        """The session of that name: the authenticated one, else the newest."""
        found = self._live(device_id, session_id)
        return next((session for session in found if session.authenticated), found[-1] if found else None)

    def route(
        self, device_id: str, session_id: str, *, msg_id: str, token: str, digest: bytes, opens: bool
    ) -> LiveSession | None:
        """The session a message belongs to; None: it begins one if it may, and belongs to nobody if not.

        Args:
            device_id: Source of the message.
            session_id: its SessionID.
            msg_id: its MsgID.
            token: the session parameter of the request, empty without one.
            digest: SHA-256 of the message.
            opens: it has Alert 1200 or 1201.
        """
        found = self._live(device_id, session_id)
        shown = token.encode("utf-8", "surrogatepass")  # anything may stand in a query; texts compare as ASCII alone
        for session in found:
            if hmac.compare_digest(shown, session.token.encode()):
                return session
        for session in reversed(found):
            if digest == session.first_digest:
                return session
        if opens and msg_id == "1":
            return None
        newcomers = [session for session in found if not session.authenticated]
        if newcomers and not (opens and self.is_dead(newcomers[-1])):
            return newcomers[-1]  # challenged, and its sender does not follow RespURI
        if opens:
            return None
        return next((each for each in found if each.authenticated and each.takes_without_token(msg_id, digest)), None)

    def touch(self, session: LiveSession) -> None:
        """A message of the session has come."""
        session.last_seen = self._clock()

    def is_dead(self, session: LiveSession) -> bool:
        """Whether nobody is likely to come back to it: over, or silent for a while."""
        if session.lock.locked():
            return False
        return session.engine.closed or self._clock() - session.last_seen >= self._dead_s

    def put(self, session: LiveSession) -> None:
        """Take in a new session, beside others of the same name; of those without credentials the newest stay.

        Raises:
            RegistryFull
        """
        beside = self._sessions.get(session.key, [])
        newcomers = [each for each in beside if not each.authenticated and not each.lock.locked()]
        for each in newcomers[: max(0, len(newcomers) - MAX_NEWCOMERS + 1)]:
            self._drop(each)
        if len(self) >= self._max:
            self._make_room()
        self.touch(session)
        self._sessions.setdefault(session.key, []).append(session)

    def supersede(self, session: LiveSession) -> None:
        """The device authenticated in `session`: its other sessions are over (REQ-15)."""
        for other in list(self._all()):
            if other.device_id == session.device_id and other is not session and other.authenticated:
                other.replaced = True
                self._drop(other)

    def note_failure(self, device_id: str) -> bool:
        """Count wrong credentials of a known device, or of all strangers; whether they are still worth a line.

        Whoever knows the identity of a device can fail as often as he likes, and must not fill trail and log with it.
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
        for session in list(self._all()):
            over = session.engine.closed or now - session.last_seen > self._idle_s
            if over and not session.lock.locked():
                self._drop(session)
        if len(self) < self._max:
            return
        strangers = [each for each in self._all() if not each.authenticated and not each.lock.locked()]
        if not strangers:
            raise RegistryFull
        self._drop(min(strangers, key=lambda session: session.last_seen))

    def _all(self) -> Iterator[LiveSession]:
        for sessions in self._sessions.values():
            yield from sessions

    def _live(self, device_id: str, session_id: str) -> list[LiveSession]:
        """Sessions of that name; one that was idle for too long is forgotten."""
        for session in list(self._sessions.get((device_id, session_id), ())):
            if self._clock() - session.last_seen > self._idle_s and not session.lock.locked():
                self._drop(session)
        return self._sessions.get((device_id, session_id), [])

    def _drop(self, session: LiveSession) -> None:
        beside = [each for each in self._sessions[session.key] if each is not session]
        if beside:
            self._sessions[session.key] = beside
        else:
            del self._sessions[session.key]
