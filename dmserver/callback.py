"""Calls devices back when something waits for them: package 0, repeated with growing pauses until they come (REQ-25).

What is called for is in the database, so that a server that dies between two calls goes on with the next one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from sqlalchemy import Connection

from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from dmserver.notification import Call, NotificationNotAllowed, PreparedNotification, prepare_notification
from dmserver.orders import Order
from dmserver.policy import call_pause
from dmserver.push import Destination, PushFailed, push_address, send
from dmserver.store.accounts import note_notification, notifications_since, push_of
from dmserver.store.orders import OrderConflict, orders_to_call_for, write_order
from syncml.wap_push import WapPush

STEP = "13"
LIMIT_PAUSE = timedelta(minutes=10)  # before the next try for a device that had its share of calls
_log = structlog.get_logger(__name__)


class Send(Protocol):
    """Hands a push to the next hop."""

    async def __call__(self, push: WapPush, destination: Destination) -> int:
        """Octets sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    order: Order
    destination: Destination
    prepared: PreparedNotification


class CallBack:
    """Sends package 0 for every order that is due."""

    def __init__(
        self,
        *,
        store: Store,
        seal_key: SealingKey,
        trail: Trail,
        server_id: str,
        per_hour: int,
        send: Send = send,
    ) -> None:
        self._store = store
        self._seal_key = seal_key
        self._trail = trail
        self._server_id = server_id
        self._per_hour = per_hour
        self._send = send

    async def call_due(self, now: Callable[[], datetime]) -> int:
        """Call every device that is due; how many were called. One that cannot be called holds up no other."""
        called = 0
        for order in await self._store.read(lambda connection: orders_to_call_for(connection, now())):
            called += await self._call(order, now())
        return called

    async def _call(self, order: Order, now: datetime) -> bool:
        try:
            due = await self._store.write(lambda connection: self._prepare(connection, order, now))
        except OrderConflict:
            return False  # the device is here, or the order is over
        except NotificationNotAllowed as exc:
            _log.info("callback.not_possible", order=order.order_id, reason=str(exc))
            await self._later(order, now)
            return False
        if due is None:
            return False
        try:
            octets = await self._send(due.prepared.push, due.destination)
        except PushFailed as exc:
            self._trail.note(f"package 0 could not be sent: {exc}", step=STEP, order=order.order_id)
            return False
        self._trail.message(
            step=STEP,
            direction="DPF→M2ME",
            summary=f"package 0: SessionID {due.prepared.session_id:X}, call {due.order.calls}",
            octets=octets,
            order=order.order_id,
        )
        return True

    def _prepare(self, connection: Connection, order: Order, now: datetime) -> _Due | None:
        """Count the call and make the package in one transaction, before it is sent."""
        address = push_of(connection, order.device_id)
        if address is None:
            return None
        sent = notifications_since(connection, order.device_id, now - timedelta(hours=1))
        if sent >= self._per_hour:
            write_order(connection, dataclasses.replace(order, call_at=now + LIMIT_PAUSE))
            return None
        counted = dataclasses.replace(order, calls=order.calls + 1, call_at=now + call_pause(order.calls))
        prepared = prepare_notification(connection, self._seal_key, order.device_id, Call(), server_id=self._server_id)
        note_notification(connection, order.device_id, now)
        return _Due(order=write_order(connection, counted), destination=push_address(address), prepared=prepared)

    async def _later(self, order: Order, now: datetime) -> None:
        """A device without an account is bootstrapped first; until then it cannot be called."""
        after = dataclasses.replace(order, call_at=now + call_pause(order.calls), calls=order.calls + 1)
        try:
            await self._store.write(lambda connection: write_order(connection, after))
        except OrderConflict:
            return
