"""The newest records of the audit trail, whatever they belong to (REQ-71)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, select

from dmserver.store.tables import trail


def newest_records(connection: Connection, *, limit: int, without_order: bool = False) -> list[Mapping[str, object]]:
    """Up to `limit` records, oldest first, in the form of `actor_runtime.trail_store.records_of`.

    Args:
        limit: how many of the newest.
        without_order: only what belongs to no order, such as what operators did to devices and queues.
    """
    query = select(trail).order_by(trail.c.id.desc()).limit(limit)
    if without_order:
        query = query.where(trail.c.order_id.is_(None))
    rows = connection.execute(query).all()
    return [
        {
            "ts": row.ts.isoformat(timespec="milliseconds") + "Z",
            "actor": row.actor,
            "kind": row.kind,
            "step": row.step,
            "order": row.order_id,
            **json.loads(row.fields),
        }
        for row in reversed(rows)
    ]
