"""The audit trail in an actor's database: append-only, no code here changes or deletes a record (REQ-71)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Column, Connection, DateTime, Integer, MetaData, Row, String, Table, Text, insert, select

from actor_runtime.trail import TrailRecord

TABLE_NAME = "trail"


def trail_columns() -> tuple[Column[int] | Column[str] | Column[datetime] | Column[str | None], ...]:
    """New column objects, for the table and for the first migration of an actor."""
    return (
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("ts", DateTime, nullable=False),  # UTC
        Column("actor", String(16), nullable=False),
        Column("kind", String(16), nullable=False),
        Column("step", String(8), nullable=False),
        Column("order_id", String(64), nullable=True, index=True),
        Column("fields", Text, nullable=False),  # JSON object
    )


def trail_table(metadata: MetaData) -> Table:
    """The table `trail` in an actor's metadata."""
    return Table(TABLE_NAME, metadata, *trail_columns())


def append_record(connection: Connection, table: Table, record: TrailRecord) -> None:
    """Add one record."""
    connection.execute(
        insert(table).values(
            ts=record.ts.astimezone(UTC).replace(tzinfo=None),
            actor=record.actor,
            kind=record.kind,
            step=record.step,
            order_id=record.order,
            fields=json.dumps(dict(record.fields), ensure_ascii=False),
        )
    )


def records_of(connection: Connection, table: Table, order: str) -> list[Mapping[str, object]]:
    """The records of one order, oldest first, as flat mappings."""
    rows = connection.execute(select(table).where(table.c.order_id == order).order_by(table.c.id))
    return [_flat(row) for row in rows]


def newest_records(
    connection: Connection, table: Table, *, limit: int, without_order: bool = False
) -> list[Mapping[str, object]]:
    """The newest records, at most `limit`, oldest first, whatever they belong to.

    Args:
        without_order: only those that belong to no order, such as what operators did to devices and queues.
    """
    query = select(table).order_by(table.c.id.desc()).limit(limit)
    if without_order:
        query = query.where(table.c.order_id.is_(None))
    return [_flat(row) for row in reversed(connection.execute(query).all())]


def _flat(row: Row[tuple[object, ...]]) -> Mapping[str, object]:
    return {
        "ts": row.ts.isoformat(timespec="milliseconds") + "Z",
        "actor": row.actor,
        "kind": row.kind,
        "step": row.step,
        "order": row.order_id,
        **json.loads(row.fields),
    }
