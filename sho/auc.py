"""Authentication centre: AKA with a device that attaches (TS 33.102 §6.3), one resynchronisation at most (REQ-69).

This stands for the visited network, its signalling and the AuC in one: the device speaks to it directly.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.aka import AuthVector, generate_vector, next_sqn, resynchronise
from sho.store import repository
from sho.subscriptions import Vault

STEP: Final = "16"
MAX_PER_IDENTITY: Final = 4  # sessions; whoever knows one IMSI shall not use up everybody's


class AttachRefused(Exception):
    """The device is not let in. The text is for the log: every cause looks the same outside."""


class AttachBusy(Exception):
    """Too many attaches are under way."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    imsi_index: bytes = field(repr=False)
    vector: AuthVector
    order: str | None
    resynchronised: bool
    expires: float  # monotonic seconds


class AuthenticationCentre:
    """Attach sessions live in memory, bounded in number and time; SQN lives in the database."""

    def __init__(
        self,
        *,
        store: Store,
        vault: Vault,
        trail: Trail,
        session_ttl_s: float,
        max_sessions: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._vault, self._trail = store, vault, trail
        self._ttl, self._max, self._clock = session_ttl_s, max_sessions, clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # oldest first, so expiry is at the front
        self._by_identity: dict[bytes, deque[str]] = {}

    async def start(self, imsi: str) -> Challenge:
        """Challenge whoever claims `imsi`.

        Raises:
            AttachRefused: no such subscription, or it is not armed (REQ-68).
            AttachBusy: the number of sessions is at its limit.
        """
        self._expire()
        if len(self._sessions) >= self._max:
            raise AttachBusy
        return await self._challenge(self._vault.index(imsi), resynchronised=False, sqn_ms=None)

    async def respond(self, session_id: str, res: bytes, now: datetime) -> Attached:
        """Take RES. The session is over whatever comes of it.

        Raises:
            AttachRefused: unknown or expired session, or a wrong RES.
        """
        session = self._take(session_id)
        passed = hmac.compare_digest(res, session.vector.xres)
        self._trail.check("aka-response", passed, req=("REQ-69",), step=STEP, order=session.order)
        if not passed:
            raise AttachRefused("wrong RES")

        def attach(connection: Connection) -> str:
            row = repository.find_subscription(connection, session.imsi_index)
            if row is None or row.state != repository.ARMED:
                raise AttachRefused("not armed any more")
            repository.set_attached(connection, row.id, now)
            return row.imsi_mask

        mask = await self._store.write(attach)
        self._trail.note(f"{mask} is attached", step=STEP, order=session.order)
        return Attached(imsi_mask=mask)

    async def resynchronise(self, session_id: str, auts: bytes) -> Challenge:
        """Take AUTS, go on from the device's SQN, and challenge again with a new RAND (TS 33.102 §6.3.5).

        Raises:
            AttachRefused: unknown or expired session, a wrong AUTS, or the second one in a row.
        """
        session = self._take(session_id)
        if session.resynchronised:
            self._trail.check("aka-single-resynchronisation", False, req=("REQ-69",), step=STEP, order=session.order)
            raise AttachRefused("a second resynchronisation")
        row = await self._store.read(lambda c: repository.find_subscription(c, session.imsi_index))
        if row is None or row.state != repository.ARMED:
            raise AttachRefused("not armed any more")
        functions = self._vault.open(row.sealed).functions()
        sqn_ms = resynchronise(functions, auts=auts, rand=session.vector.rand)
        self._trail.check("aka-resynchronisation", sqn_ms is not None, req=("REQ-69",), step=STEP, order=session.order)
        if sqn_ms is None:
            raise AttachRefused("wrong AUTS")
        return await self._challenge(session.imsi_index, resynchronised=True, sqn_ms=sqn_ms)

    def fail(self, session_id: str) -> None:
        """The device found the MAC of our AUTN wrong: its K or OPc is not ours.

        Raises:
            AttachRefused: always.
        """
        session = self._take(session_id)
        self._trail.check("aka-network-mac", False, req=("REQ-69",), step=STEP, order=session.order)
        raise AttachRefused("the device reports a MAC failure")

    async def _challenge(self, imsi_index: bytes, *, resynchronised: bool, sqn_ms: int | None) -> Challenge:
        def use_next_sqn(connection: Connection) -> tuple[repository.SubscriptionRow, int, str | None]:
            row = repository.find_subscription(connection, imsi_index)
            if row is None or row.state != repository.ARMED:
                raise AttachRefused("no armed subscription with this identity")
            sqn = next_sqn(row.sqn if sqn_ms is None else sqn_ms)
            repository.set_sqn(connection, row.id, sqn)
            handover = repository.find_handover_of_mcim(connection, row.mcim_id) if row.mcim_id else None
            return row, sqn, handover.order_id if handover else None

        try:
            row, sqn, order = await self._store.write(use_next_sqn)  # on disk before the vector exists
        except AttachRefused:
            self._trail.check("subscription-armed", False, req=("REQ-68",), step=STEP)
            raise
        if not resynchronised:
            self._trail.check("subscription-armed", True, req=("REQ-68",), step=STEP, order=order)
        vector = generate_vector(
            self._vault.open(row.sealed).functions(), sqn=sqn, amf=row.amf, rand=secrets.token_bytes(16)
        )
        self._make_room(imsi_index)
        session_id = secrets.token_urlsafe(18)
        self._sessions[session_id] = _Session(
            imsi_index=imsi_index,
            vector=vector,
            order=order,
            resynchronised=resynchronised,
            expires=self._clock() + self._ttl,
        )
        self._by_identity.setdefault(imsi_index, deque()).append(session_id)
        return Challenge(session=session_id, rand=vector.rand, autn=vector.autn)

    def _make_room(self, imsi_index: bytes) -> None:
        """Drop the oldest session of this identity when it has as many as it may have."""
        own = self._by_identity.get(imsi_index)
        if own is not None and len(own) >= MAX_PER_IDENTITY:
            self._forget(own[0])

    def _forget(self, session_id: str) -> _Session | None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            own = self._by_identity[session.imsi_index]
            own.remove(session_id)
            if not own:
                del self._by_identity[session.imsi_index]
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
