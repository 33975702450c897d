"""Attach sessions: AKA with a device (TS 33.102 §6.3), one resynchronisation at most (REQ-69).

This stands for the visited network, its signalling and the authentication centre in one: the device speaks to it
directly.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from actor_runtime.trail import Trail
from mcim.aka import AuthVector, generate_vector, resynchronise
from mcim.network_keys import AuthenticationFunctions

MAX_REFUSALS: Final = 60  # of unknown identities, on record in a minute: anybody may ask, and a trail is never cut
MAX_PER_IDENTITY: Final = 4  # sessions; whoever knows one identity shall not use up everybody's


class AttachRefused(Exception):
    """The device is not let in. The text is for the log: every cause looks the same outside."""


class AttachBusy(Exception):
    """Too many attaches are under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """One identity with the sequence number that its next vector uses up."""

    functions: AuthenticationFunctions = field(repr=False)
    amf: bytes
    sqn: int
    order: str | None = None  # what the trail files it under


class SubscriberStore(Protocol):
    """Where the identities of a home network are. Every call is one transaction of its own."""

    @property
    def step(self) -> str:
        """Step of TR 33.812 §5.1.3.7.1 that an attach to this network is."""

    @property
    def eligible(self) -> tuple[str, str, str]:
        """Name, requirement and step of the check that an identity may attach at all."""

    def index(self, imsi: str) -> bytes:
        """Keyed index under which an identity is found."""

    async def use_next_sqn(self, index: bytes, *, after: int | None) -> Subscriber:
        """Use up the next SQN, after `after` when the device told its own; committed before this returns.

        Raises:
            AttachRefused: no such identity, or it may not attach now.
        """

    async def functions(self, index: bytes) -> AuthenticationFunctions:
        """The authentication functions alone, to read an AUTS.

        Raises:
            AttachRefused: as `use_next_sqn`.
        """

    async def mark_attached(self, index: bytes, now: datetime) -> str:
        """Keep that the identity proved itself; returns its mask.

        Raises:
            AttachRefused: it may not attach any more.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What the device gets."""

    session: str
    rand: bytes
    autn: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """The device proved that it holds K."""

    imsi_mask: str
    index: bytes = field(repr=False)
    context: Mapping[str, str] = field(default_factory=dict)  # what `start` was given


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    index: bytes = field(repr=False)
    vector: AuthVector
    order: str | None
    resynchronised: bool
    expires: float  # monotonic seconds
    context: Mapping[str, str]


class AttachSessions:
    """Attach sessions live in memory, bounded in number and time; SQN lives in the database."""

    def __init__(
        self,
        subscribers: SubscriberStore,
        trail: Trail,
        *,
        session_ttl_s: float,
        max_sessions: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._subscribers, self._trail = subscribers, trail
        self._ttl, self._max, self._clock = session_ttl_s, max_sessions, clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # oldest first, so expiry is at the front
        self._by_identity: dict[bytes, deque[str]] = {}
        self._refusals, self._refusals_until = 0, clock()

    async def start(self, imsi: str, context: Mapping[str, str] | None = None) -> Challenge:
        """Challenge whoever claims `imsi`; `context` comes back when the attach succeeds.

        Raises:
            AttachRefused: no such identity, or it may not attach (REQ-68, REQ-72).
            AttachBusy: the number of sessions is at its limit.
        """
        self._expire()
        if len(self._sessions) >= self._max:
            raise AttachBusy
        return await self._challenge(self._subscribers.index(imsi), context or {}, resynchronised=False, sqn_ms=None)

    async def respond(self, session_id: str, res: bytes, now: datetime) -> Attached:
        """Take RES. The session is over whatever comes of it.

        Raises:
            AttachRefused: unknown or expired session, or a wrong RES.
        """
        session = self._take(session_id)
        passed = hmac.compare_digest(res, session.vector.xres)
        self._check("aka-response", passed, session)
        if not passed:
            raise AttachRefused("wrong RES")
        mask = await self._subscribers.mark_attached(session.index, now)
        self._trail.note(f"{mask} is attached", step=self._subscribers.step, order=session.order)
        return Attached(imsi_mask=mask, index=session.index, context=session.context)

    async def resynchronise(self, session_id: str, auts: bytes) -> Challenge:
        """Take AUTS, go on from the device's SQN, and challenge again with a new RAND (TS 33.102 §6.3.5).

        Raises:
            AttachRefused: unknown or expired session, a wrong AUTS, or the second one in a row.
        """
        session = self._take(session_id)
        if session.resynchronised:
            self._check("aka-single-resynchronisation", False, session)
            raise AttachRefused("a second resynchronisation")
        functions = await self._subscribers.functions(session.index)
        sqn_ms = await asyncio.to_thread(resynchronise, functions, auts=auts, rand=session.vector.rand)
        self._check("aka-resynchronisation", sqn_ms is not None, session)
        if sqn_ms is None:
            raise AttachRefused("wrong AUTS")
        return await self._challenge(session.index, session.context, resynchronised=True, sqn_ms=sqn_ms)

    def fail(self, session_id: str) -> None:
        """The device found the MAC of our AUTN wrong: its keys are not ours.

        Raises:
            AttachRefused: always.
        """
        session = self._take(session_id)
        self._check("aka-network-mac", False, session)
        raise AttachRefused("the device reports a MAC failure")

    def context_of(self, session_id: str) -> Mapping[str, str]:
        """What the attach under way was started with; empty without such a session."""
        session = self._sessions.get(session_id)
        return session.context if session is not None else {}

    def _check(self, name: str, passed: bool, session: _Session) -> None:
        self._trail.check(name, passed, req=("REQ-69",), step=self._subscribers.step, order=session.order)

    async def _challenge(
        self, index: bytes, context: Mapping[str, str], *, resynchronised: bool, sqn_ms: int | None
    ) -> Challenge:
        name, requirement, step = self._subscribers.eligible
        try:
            subscriber = await self._subscribers.use_next_sqn(index, after=sqn_ms)  # on disk before the vector exists
        except AttachRefused:
            if self._refusal_is_recorded():
                self._trail.check(name, False, req=(requirement,), step=step)
            raise
        if not resynchronised:
            self._trail.check(name, True, req=(requirement,), step=step, order=subscriber.order)
        # TUAK with 255 iterations takes a second: other devices need not wait for that.
        vector = await asyncio.to_thread(
            generate_vector, subscriber.functions, sqn=subscriber.sqn, amf=subscriber.amf, rand=secrets.token_bytes(16)
        )
        self._make_room(index)
        session_id = secrets.token_urlsafe(18)
        self._sessions[session_id] = _Session(
            index=index,
            vector=vector,
            order=subscriber.order,
            resynchronised=resynchronised,
            expires=self._clock() + self._ttl,
            context=context,
        )
        self._by_identity.setdefault(index, deque()).append(session_id)
        return Challenge(session=session_id, rand=vector.rand, autn=vector.autn)

    def _refusal_is_recorded(self) -> bool:
        now = self._clock()
        if now >= self._refusals_until:
            self._refusals, self._refusals_until = 0, now + 60
        self._refusals += 1
        return self._refusals <= MAX_REFUSALS

    def _make_room(self, index: bytes) -> None:
        """Drop the oldest session of this identity when it has as many as it may have."""
        own = self._by_identity.get(index)
        if own is not None and len(own) >= MAX_PER_IDENTITY:
            self._forget(own[0])

    def _forget(self, session_id: str) -> _Session | None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            own = self._by_identity[session.index]
            own.remove(session_id)
            if not own:
                del self._by_identity[session.index]
        return session

    def _take(self, session_id: str) -> _Session:
        self._expire()
        session = self._forget(session_id)
        if session is None:
            raise AttachRefused("no such session")
        return session

    def _expire(self) -> None:
        now = self._clock()
        while self._sessions:
            session_id, session = next(iter(self._sessions.items()))
            if session.expires > now:
                return
            self._forget(session_id)
