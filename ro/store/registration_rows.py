"""Registrations and routes in the database. Functions of a connection, each inside one unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, delete, insert, select, update

from ro.store.repository import aware, naive
from ro.store.tables import registrations, routes

RouteKind = Literal["m2me", "supplier"]


class State(StrEnum):
    """How far a registration is."""

    PENDING = "pending"  # no home operator is known
    ROUTED = "routed"  # it is; it may have been asked
    AT_SHO = "at-sho"  # it opened its order; the DPF may have been asked
    BOOTSTRAPPED = "bootstrapped"  # the DPF sent the bootstrap
    REFUSED = "refused"  # a partner said no; an operator can route it anew
    DENIED = "denied"  # an operator said no, to this device with this identity; he can route it after all
    SUPERSEDED = "superseded"  # the device registered again, for another reason or with another identity


WAITING: Final = (State.PENDING, State.ROUTED, State.AT_SHO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One device that wants a home operator."""

    id: str
    m2me_id: str
    tre_id: str
    pcid_id: int
    generation: int
    supplier: str | None
    wanted_sho: str | None
    sho_id: str | None = None
    reason: str
    push: str
    state: State = State.PENDING
    detail: str = ""
    order_id: str | None = None
    tries: int = 0
    bootstraps: int = 0
    created_at: datetime
    updated_at: datetime


def put_registration(connection: Connection, registration: Registration) -> None:
    """Write a registration, new or changed."""
    values = dataclasses.asdict(registration)
    for name in ("created_at", "updated_at"):
        values[name] = naive(values[name])
    values["state"] = registration.state.value
    done = connection.execute(update(registrations).where(registrations.c.id == registration.id).values(values))
    if done.rowcount == 0:
        connection.execute(insert(registrations).values(values))


def get_registration(connection: Connection, registration_id: str, *, for_update: bool = False) -> Registration | None:
    """The registration of that id; `for_update` keeps other writers from it until the unit ends."""
    query = select(registrations).where(registrations.c.id == registration_id)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    return _registration(row) if row is not None else None


def current_registrations(connection: Connection, m2me_id: str) -> list[Registration]:
    """Registrations of a device that nothing replaced, newest first."""
    rows = connection.execute(
        select(registrations)
        .where(registrations.c.m2me_id == m2me_id, registrations.c.state != State.SUPERSEDED.value)
        .order_by(registrations.c.created_at.desc(), registrations.c.id)
    )
    return [_registration(row) for row in rows]


def end_registrations(connection: Connection, pcid_id: int, detail: str, now: datetime) -> list[Registration]:
    """Refuse what waits with an identity; returns them as they were."""
    rows = connection.execute(
        select(registrations)
        .where(registrations.c.pcid_id == pcid_id, registrations.c.state.in_([state.value for state in WAITING]))
        .with_for_update()
    )
    waiting = [_registration(row) for row in rows]
    for row in waiting:
        put_registration(connection, dataclasses.replace(row, state=State.REFUSED, detail=detail, updated_at=now))
    return waiting


def waiting_registrations(connection: Connection) -> list[str]:
    """Ids of what is not finished, longest untouched first."""
    states = [state.value for state in WAITING]
    rows = connection.execute(
        select(registrations.c.id).where(registrations.c.state.in_(states)).order_by(registrations.c.updated_at)
    )
    return [str(row.id) for row in rows]


def list_registrations(connection: Connection, *, states: Sequence[State], limit: int) -> list[Registration]:
    """Registrations, newest first; all states without `states`."""
    query = select(registrations).order_by(registrations.c.created_at.desc()).limit(limit)
    if states:
        query = query.where(registrations.c.state.in_([state.value for state in states]))
    return [_registration(row) for row in connection.execute(query)]


def put_route(connection: Connection, kind: RouteKind, value: str, sho_id: str) -> None:
    """Devices of this name or supplier belong to that home operator."""
    remove_route(connection, kind, value)
    connection.execute(insert(routes).values(kind=kind, value=value, sho_id=sho_id))


def remove_route(connection: Connection, kind: RouteKind, value: str) -> bool:
    """Forget a route; False when there was none."""
    done = connection.execute(delete(routes).where(routes.c.kind == kind, routes.c.value == value))
    return done.rowcount == 1


def find_route(connection: Connection, kind: RouteKind, value: str | None) -> str | None:
    """Where a device or a supplier's devices go."""
    if value is None:
        return None
    found = connection.execute(
        select(routes.c.sho_id).where(routes.c.kind == kind, routes.c.value == value)
    ).scalar_one_or_none()
    return str(found) if found is not None else None


def list_routes(connection: Connection) -> list[dict[str, object]]:
    """All routes."""
    return [
        {"kind": row.kind, "value": row.value, "sho": row.sho_id}
        for row in connection.execute(select(routes).order_by(routes.c.kind, routes.c.value))
    ]


def _registration(row: Row[Any]) -> Registration:
    values = row._asdict()
    values |= {
        "state": State(row.state),
        "created_at": aware(row.created_at),
        "updated_at": aware(row.updated_at),
    }
    return Registration(**values)
