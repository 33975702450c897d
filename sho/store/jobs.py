"""Packages that come later: what is still to be made, approved or delivered (REQ-26)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, update

from mcim.vocabulary import Operation
from sho.store.repository import naive
from sho.store.tables import handovers, jobs

APPROVAL: Final = "approval"  # a person of the operator decides
WAITING: Final = "waiting"  # to be made when it is due
MADE: Final = "made"  # to be delivered
DELIVERED: Final = "delivered"
REFUSED: Final = "refused"
OVER: Final = "over"  # the order is past it


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as stored."""

    id: str
    handover_id: int
    dpf_id: str
    certificates: tuple[str, ...]  # of the platform, leaf first, Base64 of DER
    state: str
    code: str | None  # why it was refused
    attempts: int  # of delivery
    due_at: datetime


def add(
    connection: Connection,
    *,
    handover_id: int,
    dpf_id: str,
    certificates: Sequence[str],
    state: str,
    due_at: datetime,
    now: datetime,
) -> None:
    """Record a job in the transaction of its hand-over."""
    connection.execute(
        insert(jobs).values(
            id=str(uuid.uuid4()),
            handover_id=handover_id,
            dpf_id=dpf_id,
            certificates=json.dumps(list(certificates)),
            state=state,
            attempts=0,
            due_at=naive(due_at),
            created_at=naive(now),
        )
    )


def find(connection: Connection, job_id: str) -> JobRow | None:
    """The job with that id."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    return _job(row) if row is not None else None


def find_for_handover(connection: Connection, handover_id: int) -> JobRow | None:
    """The job of a hand-over; None when it is answered at once."""
    row = connection.execute(select(jobs).where(jobs.c.handover_id == handover_id)).one_or_none()
    return _job(row) if row is not None else None


def due(connection: Connection, now: datetime, *, limit: int = 64) -> list[JobRow]:
    """Jobs with something to be done now, the most urgent first."""
    query = (
        select(jobs)
        .where(jobs.c.state.in_((WAITING, MADE)), jobs.c.due_at <= naive(now))
        .order_by(jobs.c.due_at)
        .limit(limit)
    )
    return [_job(row) for row in connection.execute(query)]


def next_due(connection: Connection) -> datetime | None:
    """When the next job is due."""
    moment = connection.execute(
        select(func.min(jobs.c.due_at)).where(jobs.c.state.in_((WAITING, MADE)))
    ).scalar_one_or_none()
    return moment.replace(tzinfo=UTC) if moment is not None else None


def move(
    connection: Connection, job_id: str, *, expected: tuple[str, ...], state: str, code: str | None = None
) -> bool:
    """Move a job on; False when it is in none of the states expected."""
    done = connection.execute(
        update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(expected)).values(state=state, code=code)
    )
    return done.rowcount == 1


def postpone(connection: Connection, job_id: str, *, due_at: datetime, attempts: int) -> None:
    """Try again later."""
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(due_at=naive(due_at), attempts=attempts))


def list_jobs(connection: Connection, *, limit: int) -> list[dict[str, object]]:
    """Jobs as lists show them, newest first."""
    query = (
        select(jobs, handovers.c.order_id, handovers.c.m2me_id, handovers.c.operation)
        .join(handovers, handovers.c.id == jobs.c.handover_id)
        .order_by(jobs.c.created_at.desc())
        .limit(limit)
    )
    return [
        {
            "job": row.id,
            "state": row.state,
            "orderId": row.order_id,
            "m2meId": row.m2me_id,
            "operation": Operation(row.operation).label,
            "attempts": row.attempts,
            "due": row.due_at.isoformat(timespec="seconds") + "Z",
            "code": row.code,
        }
        for row in connection.execute(query)
    ]


def _job(row: Row[Any]) -> JobRow:
    return JobRow(
        id=row.id,
        handover_id=row.handover_id,
        dpf_id=row.dpf_id,
        certificates=tuple(json.loads(row.certificates)),
        state=row.state,
        code=row.code,
        attempts=row.attempts,
        due_at=row.due_at.replace(tzinfo=UTC),
    )
