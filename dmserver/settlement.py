"""The report of an order's outcome to its home operator (step 15), in a session of the device or without one."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from dmserver.asks import Outcome, PartnerSaidNo, ReportAcknowledged, TellSho
from dmserver.audit import Entry, check, moved, note
from dmserver.orders import Order, OrderEvent, advance
from mcim.vocabulary import ResultCode


def tell_sho(order: Order, receipt: bytes | None, result: int) -> TellSho:
    """The report on an order: with the TRE's receipt, or without one when it never got that far."""
    return TellSho(
        key=f"{order.req_id or order.order_id}:report:{result}",
        sho_id=order.sho_id,
        order_id=order.order_id,
        req_id=order.req_id or "",
        receipt=receipt,
        attest_cert=order.attest_cert if receipt is not None else None,
        chain=order.cert_chain if receipt is not None else (),
        result=result,
    )


def settle_report(order: Order, outcome: Outcome, now: datetime) -> tuple[Order, tuple[Entry, ...]]:
    """The order after the home operator answered, or did not answer, a report with the receipt in it (REQ-67)."""
    result = order.result or ResultCode.REFUSED
    success = result in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE)
    if isinstance(outcome, ReportAcknowledged):
        entries = [check("report-acknowledged", True, req=("REQ-67",), step="15", detail=outcome.subscription)]
        event, detail = (
            (OrderEvent.REPORT_ACKNOWLEDGED, "") if success else (OrderEvent.REFUSE, f"device: result {result}")
        )
    elif isinstance(outcome, PartnerSaidNo):
        entries = [check("report-acknowledged", False, req=("REQ-67",), step="15", detail=outcome.code)]
        event, detail = OrderEvent.REFUSE, f"{'' if success else f'device: result {result}; '}sho: {outcome.code}"
    else:
        waiting = note("the home operator gives no answer to the report; it is repeated", step="15")
        return dataclasses.replace(order, detail=waiting.text, updated_at=now), (waiting,)
    after = advance(order, event, now, detail=detail)
    return after, (*entries, moved(order.state, after.state, step="15", detail=detail))
