"""Packages that come between two sessions: the home operator took its time (REQ-25, REQ-26).

It delivers them itself, or is asked for them; either way one transaction takes a package, checked like one that is
given at once, and makes the order ready and its device due to be called.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from dmserver.asks import AskJob, Outcome, PackageGiven, PackageLater, PartnerSaidNo
from dmserver.audit import Entry, check, moved, note
from dmserver.orders import Order, OrderEvent, OrderState, advance
from dmserver.reception import PackageFacts, check_package, keep_package
from dmserver.store.orders import find_order, last_snapshot, put_package, write_order

STEP: Final = "12"
POLL_PAUSE: Final = timedelta(minutes=1)  # after a question that got no answer
_HAS_IT: Final = frozenset(
    {
        OrderState.PACKAGE_READY,
        OrderState.DELIVERING,
        OrderState.DELIVERED,
        OrderState.MISSING,
        OrderState.REPORTED,
        OrderState.CLOSED,
    }
)


class PackageNotTaken(Exception):
    """The package changes nothing; `code` tells the home operator why, `order` is the order now, if there is one."""

    def __init__(self, code: str, detail: str = "", *, order: Order | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.order = code, detail, order


@dataclass(frozen=True, slots=True, kw_only=True)
class LatePackage:
    """A package for an order, as it came."""

    order_id: str
    req_id: str
    sho_id: str  # as TLS knows the caller
    given: PackageGiven


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The order after a late package or news of one, and what goes on the trail."""

    order: Order
    entries: tuple[Entry, ...] = ()
    refused: str = ""  # the check that the package did not pass


def take_late_package(connection: Connection, late: LatePackage, *, dpf_id: str, now: datetime) -> Taken:
    """Take a package that its home operator delivers; a repeated delivery changes nothing.

    A package that does not pass the checks ends the order, as it does within a session.

    Raises:
        PackageNotTaken: no such order of this operator, or it does not wait for this package.
        OrderConflict: somebody moved the order at the same time.
    """
    order = find_order(connection, late.order_id)
    if order is None or order.sho_id != late.sho_id:
        raise PackageNotTaken("order-unknown")
    if _is_kept(order, late):
        return Taken(order=order)
    if order.state is not OrderState.HANDED_OVER or order.expires_at <= now:
        raise PackageNotTaken("order-not-waiting", f"the order is {order.state}", order=order)
    if order.req_id is None or late.req_id.lower() != order.req_id.lower():
        raise PackageNotTaken("order-not-waiting", "the device has a newer registration", order=order)
    return _take(connection, order, late.given, dpf_id=dpf_id, now=now)


def _is_kept(order: Order, late: LatePackage) -> bool:
    digest = hashlib.sha256(late.given.package).hexdigest()
    return order.state in _HAS_IT and order.package_hash == digest and order.req_id == late.req_id.lower()


def _take(connection: Connection, order: Order, given: PackageGiven, *, dpf_id: str, now: datetime) -> Taken:
    document = last_snapshot(connection, order.order_id)
    if document is None:
        raise PackageNotTaken("order-not-waiting", "nothing is known of the device", order=order)
    entries = check_package(given, order, PackageFacts.of_record(document), dpf_id=dpf_id, now=now)
    failed = next((entry for entry in entries if entry.passed is False), None)
    if failed is not None:
        refused = _refuse(order, f"sho: {failed.text}", now)
        entries.append(moved(order.state, refused.state, step=STEP, detail=refused.detail))
        return Taken(order=write_order(connection, refused), entries=tuple(entries), refused=failed.text)
    ready = advance(keep_package(order, given), OrderEvent.PACKAGE_KEPT, now)
    ready = dataclasses.replace(ready, call_at=now, calls=0)
    written = write_order(connection, ready)
    put_package(connection, order.order_id, given.package)
    entries.append(moved(order.state, ready.state, step=STEP, detail="the home operator delivered the package"))
    return Taken(order=written, entries=tuple(entries))


def _refuse(order: Order, why: str, now: datetime) -> Order:
    after = advance(order, OrderEvent.REFUSE, now, detail=why)
    return dataclasses.replace(after, report_owed=True, job=None, job_at=None, call_at=None)


def ask_for(order: Order) -> AskJob:
    """The question about the job of an order."""
    return AskJob(sho_id=order.sho_id, order_id=order.order_id, job=order.job or "")


def settle_job(connection: Connection, order: Order, outcome: Outcome, *, dpf_id: str, now: datetime) -> Taken:
    """What follows from the answer about a job: the package is taken, the order refused, or asked for again later.

    Raises:
        OrderConflict: the order was moved since it was read, by its device or by the delivery of the package.
    """
    if isinstance(outcome, PackageGiven):
        return _take(connection, order, outcome, dpf_id=dpf_id, now=now)
    if isinstance(outcome, PartnerSaidNo):
        entry = check("package-job", False, req=("REQ-26",), step=STEP, detail=outcome.code)
        refused = _refuse(order, f"sho: {outcome.code}", now)
        states = moved(order.state, refused.state, step=STEP, detail=refused.detail)
        return Taken(order=write_order(connection, refused), entries=(entry, states))
    pause = timedelta(seconds=outcome.retry_after_s) if isinstance(outcome, PackageLater) else POLL_PAUSE
    later = dataclasses.replace(order, job_at=now + pause, updated_at=now)
    return Taken(
        order=write_order(connection, later), entries=(note("the home operator is not done with it", step=STEP),)
    )
