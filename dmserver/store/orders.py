"""Orders in the database: one row each, written with its version so that two writers never both win (REQ-15)."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from dmserver.orders import ENDED, EXPIRABLE, ONGOING, Order, OrderEvent, OrderState, advance
from dmserver.store.accounts import aware, naive
from dmserver.store.actions import note_move
from dmserver.store.tables import devices, orders, packages, requests, sightings, snapshots
from mcim.vocabulary import Container, Operation, ResultCode

_TIMES: Final = ("created_at", "updated_at", "expires_at", "challenge_exp", "ticket_exp", "job_at", "call_at")
_OPERATIONS: Final = {operation.label: operation for operation in Operation}
MAX_ROUND: Final = 100  # orders taken up in one round of tidying; the others come in the next


class OrderConflict(Exception):
    """Somebody else moved the order since it was read; nothing was written."""


class KeyOfAnotherOrder(Exception):
    """The idempotency key made an order for something else; the text is its id."""


class OrderOngoing(Exception):
    """The device has an ongoing order already; the text is its id."""


class TooManyOrders(Exception):
    """The device had its share of orders for one day; the text is their number."""


def open_order(
    connection: Connection, order: Order, *, idempotency_key: str | None = None, per_day: int | None = None
) -> Order:
    """Write a new order; a repeated idempotency key of the same home operator gives the order it made.

    An order that only waits to hear of an attach gives way: nothing of it is at stake any more.

    Raises:
        KeyOfAnotherOrder: the key is used for another device or operation now.
        OrderOngoing: one order per device at a time.
        TooManyOrders: more than `per_day` within the last 24 hours (T12).
    """
    if idempotency_key is not None:
        row = connection.execute(
            select(orders).where(orders.c.sho_id == order.sho_id, orders.c.idempotency_key == idempotency_key)
        ).first()
        if row is not None:
            return _made_by_key(_order(row), order)
    for before, expired in expire_orders(connection, order.created_at):
        note_move(connection, before, expired)
    row = connection.execute(
        select(orders).where(
            orders.c.device_id == order.device_id, orders.c.state.not_in([state.value for state in ENDED])
        )
    ).first()
    ongoing = None if row is None else _order(row)
    waits = ongoing is not None and ongoing.state is OrderState.REPORTED and not fell_back(ongoing)
    if ongoing is not None and not waits:
        raise OrderOngoing(ongoing.order_id)
    since = naive(order.created_at - timedelta(days=1))
    made = connection.execute(
        select(func.count())
        .select_from(orders)
        .where(orders.c.device_id == order.device_id, orders.c.created_at > since)
    ).scalar_one()
    if per_day is not None and made >= per_day:
        raise TooManyOrders(str(made))
    if ongoing is not None:
        detail = "another order took its place before an attach was heard of"
        superseded = advance(ongoing, OrderEvent.SUPERSEDE, order.created_at, detail=detail)
        note_move(connection, ongoing.state, write_order(connection, superseded))
    connection.execute(insert(orders).values(idempotency_key=idempotency_key, **_row(order)))
    return order


def _made_by_key(made: Order, order: Order) -> Order:
    target = made.mcim_id if order.has_target else None  # a package brings the id of a new MCIM
    same = (made.device_id, made.purpose, made.operation, target)
    if same != (order.device_id, order.purpose, order.operation, order.mcim_id):
        raise KeyOfAnotherOrder(made.order_id)
    return made


def find_order(connection: Connection, order_id: str) -> Order | None:
    """The order of that id."""
    row = connection.execute(select(orders).where(orders.c.order_id == order_id)).first()
    return None if row is None else _order(row)


def list_orders(connection: Connection) -> list[Order]:
    """All orders, oldest first."""
    return [_order(row) for row in connection.execute(select(orders).order_by(orders.c.created_at))]


def ongoing_order(connection: Connection, device_id: str, now: datetime) -> Order | None:
    """The order that is served for a device, None without one; an expired order is none (REQ-13)."""
    row = connection.execute(
        select(orders).where(orders.c.device_id == device_id, orders.c.state.in_([state.value for state in ONGOING]))
    ).first()
    if row is None:
        return None
    order = _order(row)
    return None if order.state in EXPIRABLE and order.expires_at <= now else order


def expire_orders(connection: Connection, now: datetime) -> list[tuple[OrderState, Order]]:
    """Move every order whose time is over; return the state each was in, and the order now."""
    rows = connection.execute(
        select(orders).where(
            orders.c.expires_at <= naive(now), orders.c.state.in_([state.value for state in EXPIRABLE])
        )
    ).all()
    return [(OrderState(row.state), write_order(connection, _expired(_order(row), now))) for row in rows]


def _expired(order: Order, now: datetime) -> Order:
    """A home operator that was asked for a package keeps a subscription for the device until it is told."""
    owed = order.state in (OrderState.HANDED_OVER, OrderState.PACKAGE_READY)
    after = advance(order, OrderEvent.EXPIRE, now, detail="its time was over")
    return dataclasses.replace(after, report_owed=owed, job=None, job_at=None, call_at=None)


def miss_devices(connection: Connection, now: datetime, silence: timedelta) -> list[tuple[OrderState, Order]]:
    """Move every order whose device may have the package and was not here for so long; its home operator is owed word.

    Returns the state each was in, and the order now. With a receipt it is the home operator that is waited for.
    """
    since = naive(now - silence)
    rows = connection.execute(
        select(orders)
        .outerjoin(sightings, sightings.c.device_id == orders.c.device_id)
        .where(
            orders.c.state.in_([OrderState.DELIVERING.value, OrderState.DELIVERED.value]),
            orders.c.receipt.is_(None),
            orders.c.updated_at <= since,
            or_(sightings.c.seen_at.is_(None), sightings.c.seen_at <= since),
        )
        .order_by(orders.c.updated_at)
        .limit(MAX_ROUND)
    ).all()
    missed = []
    for row in rows:
        order = _order(row)
        detail = f"the device has not come since {order.updated_at:%Y-%m-%dT%H:%M:%SZ}"
        after = advance(order, OrderEvent.STAY_AWAY, now, detail=detail)
        after = dataclasses.replace(after, report_owed=True, calls=0, call_at=now)
        missed.append((order.state, write_order(connection, after)))
    return missed


def fell_back(order: Order) -> bool:
    """Whether the device went back to the MCIM before, by a receipt its home operator has not acknowledged."""
    return order.state is OrderState.REPORTED and order.result == ResultCode.FELL_BACK


def unreported_orders(connection: Connection) -> list[Order]:
    """Orders whose outcome the home operator has not acknowledged: a verified receipt, or a refusal without one.

    A share of each home operator, so that one which does not answer keeps nobody else from hearing.
    """
    has_receipt = (orders.c.state == OrderState.DELIVERED.value) & orders.c.receipt.is_not(None)
    fallen = (orders.c.state == OrderState.REPORTED.value) & (orders.c.result == int(ResultCode.FELL_BACK))
    unreported = or_(has_receipt, fallen, orders.c.report_owed.is_(True))
    found: list[Order] = []
    for sho_id in connection.execute(select(orders.c.sho_id).where(unreported).distinct()).scalars().all():
        of_one = select(orders).where(unreported, orders.c.sho_id == sho_id).order_by(orders.c.updated_at)
        found += [_order(row) for row in connection.execute(of_one.limit(MAX_ROUND))]
    return found


def orders_with_jobs(connection: Connection, now: datetime) -> list[Order]:
    """Orders whose package the home operator makes in its own time, and that are to be asked for now."""
    rows = connection.execute(
        select(orders)
        .where(orders.c.state == OrderState.HANDED_OVER.value, orders.c.job.is_not(None), orders.c.job_at <= naive(now))
        .order_by(orders.c.job_at)
        .limit(MAX_ROUND)
    )
    return [_order(row) for row in rows]


def orders_to_call_for(connection: Connection, now: datetime) -> list[Order]:
    """Ongoing orders whose device is to be called now, and where it can be reached is known."""
    rows = connection.execute(
        select(orders)
        .join(devices, devices.c.device_id == orders.c.device_id)
        .where(
            devices.c.push.is_not(None),
            orders.c.state.in_([state.value for state in ONGOING]),
            orders.c.call_at <= naive(now),
            orders.c.expires_at > naive(now),
        )
        .order_by(orders.c.call_at)
        .limit(MAX_ROUND)
    )
    return [_order(row) for row in rows]


def order_that_brought(connection: Connection, device_id: str, sho_id: str | None, mcim_id: str) -> Order | None:
    """The newest order by which this home operator, or any (None), brought that MCIM to the device."""
    row = connection.execute(
        select(orders)
        .where(
            orders.c.device_id == device_id,
            *(() if sho_id is None else (orders.c.sho_id == sho_id,)),
            orders.c.mcim_id == mcim_id,
            orders.c.operation.in_([Operation.INSTALL.label, Operation.REPLACE.label]),
            orders.c.state.in_([OrderState.REPORTED.value, OrderState.CLOSED.value]),
        )
        .order_by(orders.c.created_at.desc())
    ).first()
    return None if row is None else _order(row)


def write_order(connection: Connection, order: Order) -> Order:
    """Write an order that was read at `order.version`, and keep the history of its requests.

    Raises:
        OrderConflict
    """
    written = dataclasses.replace(order, version=order.version + 1)
    values = {name: value for name, value in _row(written).items() if name != "order_id"}
    result = connection.execute(
        update(orders).where(orders.c.order_id == order.order_id, orders.c.version == order.version).values(**values)
    )
    if result.rowcount != 1:
        raise OrderConflict(order.order_id)
    if order.req_id is not None:
        _note_request(connection, order.order_id, order.req_id, order.updated_at)
    if order.state in ENDED:
        connection.execute(delete(packages).where(packages.c.order_id == order.order_id))
    return written


def former_requests(connection: Connection, order_id: str) -> frozenset[str]:
    """Request ids of an order that another one has replaced."""
    return frozenset(
        connection.execute(
            select(requests.c.req_id).where(requests.c.order_id == order_id, requests.c.closed.is_(True))
        ).scalars()
    )


def put_snapshot(connection: Connection, order_id: str, document: str, now: datetime) -> None:
    """Keep what was read of M2MMobj."""
    connection.execute(insert(snapshots).values(order_id=order_id, taken_at=naive(now), document=document))


def last_snapshot(connection: Connection, order_id: str) -> str | None:
    """What was read of M2MMobj last."""
    return connection.execute(
        select(snapshots.c.document).where(snapshots.c.order_id == order_id).order_by(snapshots.c.id.desc()).limit(1)
    ).scalar_one_or_none()


def put_package(connection: Connection, order_id: str, package: bytes) -> None:
    """Keep a package until the order ends; a new one takes the place of the old."""
    connection.execute(delete(packages).where(packages.c.order_id == order_id))
    connection.execute(insert(packages).values(order_id=order_id, package=package))


def find_package(connection: Connection, order_id: str) -> bytes | None:
    """The package kept for an order."""
    return connection.execute(select(packages.c.package).where(packages.c.order_id == order_id)).scalar_one_or_none()


def _note_request(connection: Connection, order_id: str, req_id: str, now: datetime) -> None:
    connection.execute(
        update(requests).where(requests.c.order_id == order_id, requests.c.req_id != req_id).values(closed=True)
    )
    known = connection.execute(
        select(requests.c.req_id).where(requests.c.order_id == order_id, requests.c.req_id == req_id)
    ).first()
    if known is None:
        connection.execute(
            insert(requests).values(order_id=order_id, req_id=req_id, opened_at=naive(now), closed=False)
        )


def _row(order: Order) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(order, name) for name in Order.__slots__}
    values["state"] = order.state.value
    values["operation"] = order.operation.label
    values["packaging"] = order.packaging.value
    values["cert_chain"] = json.dumps([base64.b64encode(cert).decode() for cert in order.cert_chain])
    for name in _TIMES:
        values[name] = None if values[name] is None else naive(values[name])
    return values


def _order(row: Row[Any]) -> Order:
    values = {name: getattr(row, name) for name in Order.__slots__}
    values["state"] = OrderState(row.state)
    values["operation"] = _OPERATIONS[row.operation]
    values["packaging"] = Container(row.packaging)
    values["cert_chain"] = tuple(base64.b64decode(cert) for cert in json.loads(row.cert_chain))
    for name in _TIMES:
        values[name] = None if values[name] is None else aware(values[name])
    return Order(**values)
