"""Opening orders: by a home operator over HTTP, or by an operator at the command line (step 8)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from dmserver.orders import ORDERABLE, TARGETED, Order
from dmserver.store.accounts import is_known
from dmserver.store.orders import KeyOfAnotherOrder, OrderOngoing, TooManyOrders, open_order, order_that_brought
from mcim.vocabulary import Operation

PURPOSES: Final = frozenset({"initial", "change-of-sho", "update", "recovery"})
MAX_LIFETIME_S: Final = 90 * 24 * 3600
_OPERATIONS: Final = {operation.label: operation for operation in ORDERABLE}


class OrderRejected(ActorError):
    """The order is not opened; `code` tells a program why."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """What somebody wants done to a device, not looked at yet."""

    device_id: str
    sho_id: str
    purpose: str = "initial"
    operation: str = Operation.INSTALL.label
    mcim_id: str | None = None  # the MCIM that the operation is about


def register_order(
    connection: Connection,
    request: OrderRequest,
    *,
    lifetime_s: int,
    now: datetime,
    idempotency_key: str | None = None,
    per_day: int | None = None,
) -> Order:
    """Open an order for a known device that has none. The device is called for it where its push address is known.

    A device of which nothing is provisioned yet is not called: its first contact is its bootstrap.

    Raises:
        OrderRejected
    """
    device_id, sho_id, purpose = request.device_id, request.sho_id, request.purpose
    operation = _OPERATIONS.get(request.operation)
    if operation is None:
        raise OrderRejected("operation-unknown", f"operation is none of {', '.join(sorted(_OPERATIONS))}")
    if purpose not in PURPOSES:
        raise OrderRejected("reason-unknown", f"reason is none of {', '.join(sorted(PURPOSES))}")
    if not 1 <= lifetime_s <= MAX_LIFETIME_S:
        raise OrderRejected("lifetime-out-of-range", f"an order lives 1 to {MAX_LIFETIME_S} seconds")
    if not is_known(connection, device_id):
        raise OrderRejected("device-unknown", f"{device_id} is not known", hint="dmserver devices add")
    target = _target(operation, request.mcim_id)
    of_sho = None if operation is Operation.DELETE else sho_id  # a released MCIM is another one's to delete
    origin = None if target is None else order_that_brought(connection, device_id, of_sho, target)
    order = Order(
        order_id=str(uuid.uuid4()),
        device_id=device_id,
        sho_id=sho_id,
        purpose=purpose,
        operation=operation,
        mcim_id=target,
        brought_by=None if origin is None else origin.order_id,
        created_at=now,
        updated_at=now,
        expires_at=now + timedelta(seconds=lifetime_s),
    )
    if order.may_reopen:
        order = replace(order, call_at=now)
    try:
        return open_order(connection, order, idempotency_key=idempotency_key, per_day=per_day)
    except KeyOfAnotherOrder as exc:
        raise OrderRejected("key-used-for-another-order", f"the idempotency key made order {exc}") from exc
    except OrderOngoing as exc:
        raise OrderRejected("order-ongoing", f"{device_id} has an ongoing order: {exc}") from exc
    except TooManyOrders as exc:
        raise OrderRejected(
            "too-many-orders", f"{device_id} had {exc} orders within a day", hint="limits.orders_per_day"
        ) from exc


def _target(operation: Operation, mcim_id: str | None) -> str | None:
    if operation not in TARGETED:
        if mcim_id is not None:
            raise OrderRejected("target-not-wanted", f"{operation.label} makes a new MCIM and is about none")
        return None
    try:
        return str(uuid.UUID(mcim_id or ""))
    except ValueError:
        raise OrderRejected("target-missing", f"{operation.label} needs the id of the MCIM it is about") from None
