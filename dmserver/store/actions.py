"""What operators do, on the audit trail (REQ-71): written in the unit of work that does it, whoever asks for it.

Nothing of a value, a secret or a credential is in it. The trace file, which follows one process, does not have it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection

from actor_runtime.trail import Kind, TrailRecord
from actor_runtime.trail_store import append_record
from dmserver.orders import Order, OrderState
from dmserver.store.tables import trail

STEP: Final = "-"  # no step of TR 33.812
ORDER_STEP: Final = "8"


def note_action(connection: Connection, text: str) -> None:
    """Somebody did something to a device or its queue."""
    _append(connection, "note", STEP, None, {"text": f"operator: {text}"})


def note_move(connection: Connection, before: OrderState, order: Order) -> None:
    """An order was moved by the opening of another one."""
    fields: dict[str, object] = {"subject": "order", "old": before, "new": order.state, "detail": order.detail}
    _append(connection, "state", ORDER_STEP, order.order_id, fields)


def _append(connection: Connection, kind: Kind, step: str, order_id: str | None, fields: dict[str, object]) -> None:
    now = datetime.now(UTC)
    record = TrailRecord(ts=now, seq=0, actor="DPF", kind=kind, step=step, order=order_id, fields=fields)
    append_record(connection, trail, record)
