"""Opening orders: by a home operator over HTTP, or by an operator at the command line (step 8)."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from dmserver.orders import Order
from dmserver.store.accounts import is_known
from dmserver.store.orders import OrderOngoing, open_order

PURPOSES: Final = frozenset({"initial", "change-of-sho", "update", "recovery"})
MAX_LIFETIME_S: Final = 90 * 24 * 3600


class OrderRejected(ActorError):
    """The order is not opened; `code` tells a program why."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


def register_order(
    connection: Connection,
    *,
    device_id: str,
    sho_id: str,
    purpose: str,
    lifetime_s: int,
    now: datetime,
    idempotency_key: str | None = None,
) -> Order:
    """Open an order for a known device that has none.

    Raises:
        OrderRejected
    """
    if purpose not in PURPOSES:
        raise OrderRejected("reason-unknown", f"reason is none of {', '.join(sorted(PURPOSES))}")
    if not 1 <= lifetime_s <= MAX_LIFETIME_S:
        raise OrderRejected("lifetime-out-of-range", f"an order lives 1 to {MAX_LIFETIME_S} seconds")
    if not is_known(connection, device_id):
        raise OrderRejected("device-unknown", f"{device_id} is not known", hint="dmserver devices add")
    order = Order(
        order_id=str(uuid.uuid4()),
        device_id=device_id,
        sho_id=sho_id,
        purpose=purpose,
        created_at=now,
        updated_at=now,
        expires_at=now + timedelta(seconds=lifetime_s),
    )
    try:
        return open_order(connection, order, idempotency_key=idempotency_key)
    except OrderOngoing as exc:
        raise OrderRejected("order-ongoing", f"{device_id} has an ongoing order: {exc}") from exc
