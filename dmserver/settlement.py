"""The report of an order's outcome to its home operator (step 15), in a session of the device or without one."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Final

from dmserver.asks import Outcome, PartnerSaidNo, ReportAcknowledged, TellSho
from dmserver.audit import Entry, check, moved, note
from dmserver.orders import Order, OrderEvent, OrderState, advance
from mcim.receipt import Receipt
from mcim.vocabulary import Operation, ResultCode

NO_REQUEST: Final = "00000000-0000-0000-0000-000000000000"
"""ReqId in the report on an order that ended before any registration of the device was read."""
SUCCESSFUL: Final = frozenset({ResultCode.SUCCESS, ResultCode.ALREADY_DONE})


def is_about(receipt: Receipt, order: Order) -> bool:
    """Whether a receipt, verified already, speaks of the package of this order."""
    return (receipt.package_hash.hex(), receipt.operation) == (order.package_hash, order.operation)


def tell_sho(order: Order, *, brought_by: Order | None = None) -> TellSho:
    """The report on an order: with the TRE's receipt, or without one when it never got that far.

    A TRE that fell back says so with a receipt for the package that brought the MCIM. When another order activated it,
    `brought_by` is the order of that package, and the report is about that one. The home operator whose MCIM another
    one deleted, by its release, is told when that other one was (flows F6): the receipt closes its subscription.
    """
    receipt, result = order.receipt, order.result
    if order.state is OrderState.REFUSED or receipt is None or result is None:
        receipt, result = None, int(ResultCode.REFUSED)
    told = brought_by if result == ResultCode.FELL_BACK and brought_by is not None else order
    own = order.state is not OrderState.CLOSED or brought_by is None
    return TellSho(
        key=f"{told.order_id}:report:{result}" + ("" if own else ":former"),
        sho_id=told.sho_id if own or brought_by is None else brought_by.sho_id,
        order_id=told.order_id,
        req_id=told.req_id or NO_REQUEST,
        receipt=receipt,
        attest_cert=order.attest_cert if receipt is not None else None,
        chain=order.cert_chain if receipt is not None else (),
        result=result,
    )


def settle_report(
    order: Order, outcome: Outcome, now: datetime, *, brought_by: Order | None = None
) -> tuple[Order, tuple[Entry, ...]]:
    """The order after the home operator answered, or did not answer, a report on it (REQ-67).

    The last arrow of an order that needs no attach, or whose attach was heard of earlier, is taken at once.
    """
    if not isinstance(outcome, ReportAcknowledged | PartnerSaidNo):
        waiting = note("the home operator gives no answer to the report; it is repeated", step="15")
        detail = order.detail if order.report_owed else waiting.text
        return dataclasses.replace(order, detail=detail, updated_at=now), (waiting,)
    acknowledged = isinstance(outcome, ReportAcknowledged)
    said = outcome.subscription if isinstance(outcome, ReportAcknowledged) else outcome.code
    entries = [check("report-acknowledged", acknowledged, req=("REQ-67",), step="15", detail=said)]
    if order.report_owed:
        return dataclasses.replace(order, report_owed=False, updated_at=now), tuple(entries)
    event, detail = _event(order, outcome)
    after = advance(order, event, now, detail=detail)
    entries.append(moved(order.state, after.state, step="15", detail=detail))
    if after.state is OrderState.REPORTED:
        after, more = settle_attach(after, now)
        entries.extend(more)
    if after.state is OrderState.CLOSED and _deletes_anothers(after, brought_by):
        after = dataclasses.replace(after, report_owed=True)
    return after, tuple(entries)


def _deletes_anothers(order: Order, brought_by: Order | None) -> bool:
    """Whether the MCIM that is gone was of another home operator."""
    return order.operation is Operation.DELETE and brought_by is not None and brought_by.sho_id != order.sho_id


def _event(order: Order, outcome: ReportAcknowledged | PartnerSaidNo) -> tuple[OrderEvent, str]:
    refused = "" if isinstance(outcome, ReportAcknowledged) else f"sho: {outcome.code}"
    if order.result == ResultCode.FELL_BACK:
        return _ends(order), "; ".join(filter(None, ("attach failed, device fell back", refused)))
    if order.result in SUCCESSFUL:
        return (OrderEvent.REFUSE, refused) if refused else (OrderEvent.REPORT_ACKNOWLEDGED, "")
    return OrderEvent.REFUSE, "; ".join(filter(None, (f"device: result {order.result}", refused)))


def _ends(order: Order) -> OrderEvent:
    return OrderEvent.FALL_BACK if order.state is OrderState.REPORTED else OrderEvent.REFUSE


def settle_attach(order: Order, now: datetime) -> tuple[Order, tuple[Entry, ...]]:
    """Close a reported order whose attach was heard of, or that has no MCIM in use to wait for (REQ-69)."""
    if order.attach == ResultCode.SUCCESS:
        after = advance(order, OrderEvent.ATTACHED, now)
        return after, (moved(order.state, after.state, step="16", detail=OrderEvent.ATTACHED.value),)
    if not order.waits_for_attach:
        after = advance(order, OrderEvent.NOTHING_TO_WAIT_FOR, now)
        return after, (moved(order.state, after.state, step="16", detail=OrderEvent.NOTHING_TO_WAIT_FOR.value),)
    return order, ()
