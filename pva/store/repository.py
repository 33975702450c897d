"""What the PVA asks of its database. Functions of a connection; each runs inside one unit of work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from pva.store.tables import challenges, decisions, reference_values


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeRow:
    """A challenge given out. What it is bound to never changes."""

    challenge: bytes
    req_id: str
    tre_id: str
    mode: str
    client: str  # DNS name of the DPF
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision about a platform; no decision is ever changed."""

    request_digest: bytes  # SHA-256
    req_id: str
    m2me_id: str
    tre_id: str
    mode: str
    client: str
    trusted: bool
    reason: str  # of a refusal
    ticket: str | None
    decided_at: datetime


def add_challenge(connection: Connection, row: ChallengeRow, *, now: datetime, limit: int) -> bool:
    """Store a challenge before it leaves; False when `limit` are outstanding. Expired ones are dropped on the way."""
    connection.execute(delete(challenges).where(challenges.c.expires_at <= naive(now)))
    outstanding = connection.execute(select(func.count()).select_from(challenges)).scalar_one()
    if outstanding >= limit:
        return False
    connection.execute(
        insert(challenges).values(
            challenge=row.challenge,
            req_id=row.req_id,
            tre_id=row.tre_id,
            mode=row.mode,
            client=row.client,
            expires_at=naive(row.expires_at),
        )
    )
    return True


def use_challenge(connection: Connection, challenge: bytes, request_digest: bytes) -> ChallengeRow | None:
    """Take a challenge for one request, for good; None when it is unknown or another request has it (REQ-18)."""
    taken = connection.execute(
        update(challenges)
        .where(
            challenges.c.challenge == challenge,
            or_(challenges.c.used_by.is_(None), challenges.c.used_by == request_digest),
        )
        .values(used_by=request_digest)
    )
    if taken.rowcount != 1:
        return None
    row = connection.execute(select(challenges).where(challenges.c.challenge == challenge)).one()
    return ChallengeRow(
        challenge=row.challenge,
        req_id=row.req_id,
        tre_id=row.tre_id,
        mode=row.mode,
        client=row.client,
        expires_at=row.expires_at.replace(tzinfo=UTC),
    )


def is_reference(connection: Connection, tre_type: str, version: str) -> bool:
    """Whether a TRE of that type and version is known good."""
    found = connection.execute(
        select(func.count())
        .select_from(reference_values)
        .where(reference_values.c.tre_type == tre_type, reference_values.c.version == version)
    )
    return int(found.scalar_one()) > 0


def add_reference(connection: Connection, *, tre_type: str, version: str, now: datetime) -> bool:
    """Declare a type and version good; False when it was already."""
    if is_reference(connection, tre_type, version):
        return False
    connection.execute(insert(reference_values).values(tre_type=tre_type, version=version, added_at=naive(now)))
    return True


def remove_reference(connection: Connection, *, tre_type: str, version: str) -> bool:
    """Withdraw a type and version; False when it was not there."""
    done = connection.execute(
        delete(reference_values).where(reference_values.c.tre_type == tre_type, reference_values.c.version == version)
    )
    return done.rowcount == 1


def list_references(connection: Connection) -> list[dict[str, object]]:
    """All known-good types and versions."""
    query = select(reference_values).order_by(reference_values.c.tre_type, reference_values.c.version)
    return [
        {"treType": row.tre_type, "version": row.version, "added": _text(row.added_at)}
        for row in connection.execute(query)
    ]


def find_decision(connection: Connection, request_digest: bytes) -> Decision | None:
    """The decision on exactly that request."""
    row = connection.execute(select(decisions).where(decisions.c.request_digest == request_digest)).one_or_none()
    if row is None:
        return None
    values = row._asdict()
    del values["id"]
    return Decision(**values | {"decided_at": row.decided_at.replace(tzinfo=UTC)})


def add_decision(connection: Connection, decision: Decision) -> Decision:
    """Store a decision, or return the one that was made on the same request first."""
    known = find_decision(connection, decision.request_digest)
    if known is not None:
        return known
    connection.execute(
        insert(decisions).values(
            request_digest=decision.request_digest,
            req_id=decision.req_id,
            m2me_id=decision.m2me_id,
            tre_id=decision.tre_id,
            mode=decision.mode,
            client=decision.client,
            trusted=decision.trusted,
            reason=decision.reason,
            ticket=decision.ticket,
            decided_at=naive(decision.decided_at),
        )
    )
    return decision


def list_decisions(connection: Connection, *, limit: int) -> list[dict[str, object]]:
    """Decisions, newest first, without the tickets."""
    query = select(decisions).order_by(decisions.c.id.desc()).limit(limit)
    return [
        {
            "time": _text(row.decided_at),
            "reqId": row.req_id,
            "m2meId": row.m2me_id,
            "treId": row.tre_id,
            "mode": row.mode,
            "client": row.client,
            "trusted": row.trusted,
            "reason": row.reason,
        }
        for row in connection.execute(query)
    ]


def naive(moment: datetime) -> datetime:
    """UTC without zone, as the tables have it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds") + "Z"
