"""What operators do to orders: stop one for a while, let it go on, end it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from dmserver.orders import IllegalTransition, Order, OrderEvent, OrderState, advance
from dmserver.store.orders import find_order, write_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """An order that was moved, and the state it was in."""

    before: OrderState
    order: Order


class NotPossible(ActorError):
    """There is no such order, or it is past what was wanted."""


def suspend(connection: Connection, order_id: str, now: datetime) -> Moved:
    """Stop an order of which nothing is at the device; its device is turned away meanwhile.

    Raises:
        NotPossible, OrderConflict
    """
    return _move(connection, order_id, OrderEvent.SUSPEND, now, detail="suspended by an operator")


def resume(connection: Connection, order_id: str, now: datetime) -> Moved:
    """Let a suspended order go on, from the first contact; a package that is still good is not asked for again.

    Raises:
        NotPossible, OrderConflict
    """
    return _move(connection, order_id, OrderEvent.RESUME, now, detail="")


def cancel(connection: Connection, order_id: str, now: datetime) -> Moved:
    """End an order of which nothing is at the device, or whose device is given up for lost.

    Its home operator is told until it acknowledges.

    Raises:
        NotPossible, OrderConflict
    """
    return _move(connection, order_id, OrderEvent.CANCEL, now, detail="cancelled by an operator")


def _move(connection: Connection, order_id: str, event: OrderEvent, now: datetime, *, detail: str) -> Moved:
    order = find_order(connection, order_id)
    if order is None:
        raise NotPossible(f"no order {order_id}", hint="dmserver order list")
    try:
        after = advance(order, event, now, detail=detail)
    except IllegalTransition as exc:
        raise NotPossible(
            f"the order is {order.state}", hint="what may be at a device is settled with the device"
        ) from exc
    cancelled = event is OrderEvent.CANCEL
    due = now if event is OrderEvent.RESUME and order.may_reopen else None
    after = dataclasses.replace(after, report_owed=cancelled, job=None, job_at=None, call_at=due, calls=0)
    return Moved(before=order.state, order=write_order(connection, after))
