"""How far the counter of each TRE is, as evidence showed it (T3): one row for each TRE, moved with the decision alone.

The counter belongs to the identity of the TRE, not to its attestation key: new keys in the same TRE go on counting, and
evidence of an old copy, by the old key, does not get past what the new one showed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from pva.store.repository import Decision, add_decision, find_decision, naive
from pva.store.tables import evidence_counters

REFUSED: Final = "evidence-counter"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCounter:
    """What a piece of evidence shows, its signature verified."""

    tre_id: str
    counter: int  # at most `mcim.statements.MAX_NUMBER`
    attest_key_id: bytes  # 16 octets


def add_counted_decision(connection: Connection, decision: Decision, shown: ShownCounter) -> Decision:
    """Store a positive decision and the counter it rests on, in one; or what was decided on the same request first.

    Evidence that is not newer than all that was accepted of this TRE makes it a refusal: somebody runs an old copy of
    the TRE, or a second one with its key.
    """
    before = _find(connection, shown.tre_id, for_update=True)  # first: who decides on the same at once waits here
    known = find_decision(connection, decision.request_digest)
    if known is not None:
        return known
    if not _take(connection, shown, decision.decided_at):
        accepted = "another" if before is None else str(before)
        detail = f"{shown.counter}, after {accepted} was accepted"
        decision = dataclasses.replace(decision, trusted=False, ticket=None, reason=REFUSED, detail=detail)
    return add_decision(connection, decision)


def list_counters(connection: Connection, *, limit: int, tre_id: str | None = None) -> list[dict[str, object]]:
    """Counters, the newest first."""
    query = select(evidence_counters).order_by(evidence_counters.c.accepted_at.desc()).limit(limit)
    if tre_id is not None:
        query = query.where(evidence_counters.c.tre_id == tre_id)
    return [
        {
            "treId": row.tre_id,
            "counter": int.from_bytes(row.counter, "big"),
            "attestKeyId": row.attest_key_id.hex(),
            "accepted": row.accepted_at.replace(tzinfo=UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        for row in connection.execute(query)
    ]


def forget_counter(connection: Connection, tre_id: str) -> int | None:
    """Let the next evidence of a TRE begin anew; the counter it had, None: there was none."""
    before = _find(connection, tre_id)
    connection.execute(delete(evidence_counters).where(evidence_counters.c.tre_id == tre_id))
    return before


def _find(connection: Connection, tre_id: str, *, for_update: bool = False) -> int | None:
    query = select(evidence_counters.c.counter).where(evidence_counters.c.tre_id == tre_id)
    counter = connection.execute(query.with_for_update() if for_update else query).scalar_one_or_none()
    return None if counter is None else int.from_bytes(counter, "big")


def _take(connection: Connection, shown: ShownCounter, now: datetime) -> bool:
    octets = shown.counter.to_bytes(8, "big")
    values = {"counter": octets, "attest_key_id": shown.attest_key_id, "accepted_at": naive(now)}
    rose = connection.execute(
        update(evidence_counters)
        .where(evidence_counters.c.tre_id == shown.tre_id, evidence_counters.c.counter < octets)
        .values(**values)
    )
    if rose.rowcount == 1:
        return True
    if _find(connection, shown.tre_id) is not None:
        return False
    connection.execute(insert(evidence_counters).values(tre_id=shown.tre_id, **values))
    return True
