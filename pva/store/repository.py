"""What the PVA asks of its database. Functions of a connection; each runs inside one unit of work."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from actor_runtime.trail_store import records_of
from mcim.vocabulary import ValidationMode
from pva.references import Reference, ReferenceMeasurement
from pva.store.tables import challenges, decisions, reference_measurements, reference_values, trail


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
    reason: str  # of a refusal: the name of the check
    detail: str  # what that check found
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


def find_reference(connection: Connection, tre_type: str, version: str) -> Reference | None:
    """What is known of a TRE type and version; None: it is not known to be good."""
    row = connection.execute(
        select(reference_values).where(reference_values.c.tre_type == tre_type, reference_values.c.version == version)
    ).one_or_none()
    if row is None:
        return None
    measurements = connection.execute(
        select(reference_measurements)
        .where(reference_measurements.c.tre_type == tre_type, reference_measurements.c.version == version)
        .order_by(reference_measurements.c.name)
    )
    return Reference(
        tre_type=row.tre_type,
        version=row.version,
        minimum_mode=ValidationMode(row.minimum_mode),
        requires_quote=row.requires_quote,
        measurements=tuple(ReferenceMeasurement(each.name, each.digest, each.required) for each in measurements),
    )


def put_reference(connection: Connection, reference: Reference, *, now: datetime) -> str:
    """Declare a type and version good: "added", "changed", or "was there already" when all was the same."""
    known = find_reference(connection, reference.tre_type, reference.version)
    if known == reference:
        return "was there already"
    remove_reference(connection, tre_type=reference.tre_type, version=reference.version)
    connection.execute(
        insert(reference_values).values(
            tre_type=reference.tre_type,
            version=reference.version,
            added_at=naive(now),
            minimum_mode=reference.minimum_mode.value,
            requires_quote=reference.requires_quote,
        )
    )
    for each in reference.measurements:
        connection.execute(
            insert(reference_measurements).values(
                tre_type=reference.tre_type,
                version=reference.version,
                name=each.name,
                digest=each.digest,
                required=each.required,
            )
        )
    return "added" if known is None else "changed"


def remove_reference(connection: Connection, *, tre_type: str, version: str) -> bool:
    """Withdraw a type and version with its measurements; False when it was not there."""
    connection.execute(
        delete(reference_measurements).where(
            reference_measurements.c.tre_type == tre_type, reference_measurements.c.version == version
        )
    )
    done = connection.execute(
        delete(reference_values).where(reference_values.c.tre_type == tre_type, reference_values.c.version == version)
    )
    return done.rowcount == 1


def list_references(connection: Connection) -> list[dict[str, object]]:
    """All known-good types and versions."""
    query = select(reference_values).order_by(reference_values.c.tre_type, reference_values.c.version)
    found: list[dict[str, object]] = []
    for row in connection.execute(query):
        reference = find_reference(connection, row.tre_type, row.version)
        measurements = () if reference is None else reference.measurements
        found.append(
            {
                "treType": row.tre_type,
                "version": row.version,
                "added": _text(row.added_at),
                "minimumMode": row.minimum_mode,
                "requiresQuote": row.requires_quote,
                "measurements": {each.name: each.digest.hex() for each in measurements if each.required},
                "optionalMeasurements": {each.name: each.digest.hex() for each in measurements if not each.required},
            }
        )
    return found


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
            detail=decision.detail,
            ticket=decision.ticket,
            decided_at=naive(decision.decided_at),
        )
    )
    return decision


def list_decisions(
    connection: Connection,
    *,
    limit: int,
    tre_id: str | None = None,
    trusted: bool | None = None,
    since: datetime | None = None,
) -> list[dict[str, object]]:
    """Decisions, newest first, without the tickets; all filters together."""
    query = select(decisions).order_by(decisions.c.id.desc()).limit(limit)
    if tre_id is not None:
        query = query.where(decisions.c.tre_id == tre_id)
    if trusted is not None:
        query = query.where(decisions.c.trusted.is_(trusted))
    if since is not None:
        query = query.where(decisions.c.decided_at >= naive(since))
    return [_decision_row(row) for row in connection.execute(query)]


def show_decision(connection: Connection, number: int) -> dict[str, object] | None:
    """One decision with the checks on its request; the ticket, which somebody may still use, by its digest alone."""
    row = connection.execute(select(decisions).where(decisions.c.id == number)).one_or_none()
    if row is None:
        return None
    checks = [record for record in records_of(connection, trail, row.req_id) if record["kind"] == "check"]
    digest = None if row.ticket is None else hashlib.sha256(row.ticket.encode()).hexdigest()
    return _decision_row(row) | {"ticketDigest": digest, "checks": checks}


def _decision_row(row: Row[Any]) -> dict[str, object]:
    return {
        "id": row.id,
        "time": _text(row.decided_at),
        "reqId": row.req_id,
        "m2meId": row.m2me_id,
        "treId": row.tre_id,
        "mode": row.mode,
        "client": row.client,
        "trusted": row.trusted,
        "reason": row.reason,
        "detail": row.detail,
    }


def naive(moment: datetime) -> datetime:
    """UTC without zone, as the tables have it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds") + "Z"
