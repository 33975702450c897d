"""Carries out what the provisioning policy decides: record, persist, ask partners, and only then let messages leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection

from actor_runtime.store import Store
from actor_runtime.trail import Trail
from dmserver.answers import Answers, read_answers
from dmserver.asks import AskJob, Outcome, PartnerDown, TellSho
from dmserver.audit import Entry, EntryKind
from dmserver.callback import CallBack
from dmserver.late_packages import LatePackage, PackageNotTaken, ask_for, settle_job, take_late_package
from dmserver.orders import Order, OrderState
from dmserver.partners import Partners
from dmserver.policy import DeviceAlert, Move, Rules
from dmserver.provisioning import Provisioning
from dmserver.session_policy import Place
from dmserver.settlement import settle_report, tell_sho
from dmserver.store.operator_commands import expire_requests
from dmserver.store.orders import (
    OrderConflict,
    expire_orders,
    find_order,
    find_package,
    former_requests,
    miss_devices,
    ongoing_order,
    orders_with_jobs,
    put_package,
    put_snapshot,
    unreported_orders,
    write_order,
)
from syncml.policy import Abort, Continue, Decision, Finish
from syncml.session import CommandAnswered

STEP_OF_STATE: Final = {
    OrderState.OPEN: "7",
    OrderState.CONTACTED: "9",
    OrderState.TREE_READ: "9",
    OrderState.CHALLENGED: "10",
    OrderState.VALIDATED: "11",
    OrderState.HANDED_OVER: "12",
    OrderState.PACKAGE_READY: "13",
    OrderState.DELIVERING: "13",
    OrderState.DELIVERED: "14",
    OrderState.MISSING: "14",
    OrderState.REPORTED: "16",
    OrderState.CLOSED: "16",
}
"""Where in TR 33.812 §5.1.3.7.1 a message belongs that is exchanged in this state; "9" for all others."""

DEFAULT_SILENCE: Final = timedelta(days=3)
MAX_STARTS: Final = 3  # tries to begin a session while others move its order

_log = structlog.get_logger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Conductor:
    """The provisioning workflow of all sessions."""

    def __init__(
        self,
        *,
        store: Store,
        trail: Trail,
        partners: Partners,
        rules: Rules | None,
        call_back: CallBack | None = None,
        silence: timedelta = DEFAULT_SILENCE,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._store = store
        self._trail = trail
        self._partners = partners
        self._rules = rules  # None: nobody is provisioned
        self._call_back = call_back  # None: devices come by themselves
        self._silence = silence  # of a device in mid-delivery, before its home operator is told that it stays away
        self._due = asyncio.Event()
        self.now = now

    async def policy_for(self, device_id: str) -> Provisioning | None:
        """The policy for an authenticated device; None when it has no ongoing order (REQ-13), or nobody has one."""
        rules, now = self._rules, self.now()
        if rules is None:
            return None

        def load(connection: Connection) -> Provisioning | None:
            order = ongoing_order(connection, device_id, now)
            if order is None:
                return None
            return Provisioning(
                rules,
                order,
                package=find_package(connection, order.order_id),
                former_requests=former_requests(connection, order.order_id),
                brought_by=_brought_by(connection, order),
            )

        return await self._store.read(load)

    async def begin(
        self, policy: Provisioning, alerts: tuple[DeviceAlert, ...]
    ) -> tuple[Provisioning, Continue | Finish | Abort]:
        """First decision of a session, and the policy that made it.

        Another session of the device may have moved the order since it was read; nothing has been sent yet, so the
        policy then starts anew from what the order is now.
        """
        for _ in range(MAX_STARTS):
            order = policy.order
            self._trail.check(
                "ongoing-order", True, req=("REQ-13",), step="7", detail=f"order is {order.state}", order=order.order_id
            )
            decision = await self._carry_out(policy, policy.begin(alerts, self.now()))
            if not isinstance(decision, Abort):
                break
            again = await self.policy_for(order.device_id)
            if again is None:
                break
            policy = again
        return policy, decision

    async def go_on(
        self, policy: Provisioning, answers: Answers, alerts: tuple[DeviceAlert, ...]
    ) -> Continue | Finish | Abort:
        """Decision after the device answered."""
        return await self._carry_out(policy, policy.answered(answers, alerts, self.now()))

    async def _carry_out(self, policy: Provisioning, move: Move) -> Continue | Finish | Abort:
        while True:
            try:
                policy.stored(await self._persist(move))
            except OrderConflict:
                # Another session of the device, or an operator, was faster: one wins (REQ-15).
                self._trail.check("one-active-session", False, req=("REQ-15",), step="9", order=move.order.order_id)
                return Abort(reason="the order was moved by somebody else")
            if isinstance(move.then, Continue | Finish):
                return move.then
            move = policy.resumed(await self._partners.ask(move.then), self.now())

    async def _persist(self, move: Move) -> Order:
        self.record(move.order.order_id, move.entries)

        def write(connection: Connection) -> Order:
            written = write_order(connection, move.order)
            if move.snapshot is not None:
                put_snapshot(connection, written.order_id, move.snapshot.to_json(), self.now())
            if move.package is not None:
                put_package(connection, written.order_id, move.package)
            return written

        return await self._store.write(write)

    def record(self, order_id: str, entries: tuple[Entry, ...]) -> None:
        """Put entries on the trail."""
        for entry in entries:
            if entry.kind is EntryKind.CHECK:
                self._trail.check(
                    entry.text, bool(entry.passed), req=entry.req, step=entry.step, detail=entry.detail, order=order_id
                )
            elif entry.kind is EntryKind.STATE:
                old, _, new = entry.text.partition(" → ")
                self._trail.state("order", old, new, step=entry.step, order=order_id, detail=entry.detail)
            else:
                self._trail.note(entry.text, step=entry.step, order=order_id)

    async def take_late_package(self, late: LatePackage) -> Order:
        """Take a package that comes between two sessions, and have its device called.

        Raises:
            PackageNotTaken: nothing was changed, or the order was ended by it.
        """
        rules = self._rules
        if rules is None:
            raise PackageNotTaken("order-unknown")
        now = self.now()
        try:
            taken = await self._store.write(
                lambda connection: take_late_package(connection, late, dpf_id=rules.server_id, now=now)
            )
        except OrderConflict as exc:
            raise PackageNotTaken("order-not-waiting", "the device has come meanwhile") from exc
        self.record(taken.order.order_id, taken.entries)
        self.wake()
        if taken.refused:
            raise PackageNotTaken("package-refused", taken.refused, order=taken.order)
        return taken.order

    def wake(self) -> None:
        """Something is due: do not wait for the next round."""
        self._due.set()

    async def tidy(self) -> None:
        """One round of all that is due.

        Expire what is over, miss devices that stay away, ask for packages, repeat reports nobody acknowledged, call.
        """
        now = self.now()
        await self._store.write(lambda connection: expire_requests(connection, now))
        for before, order in await self._store.write(lambda connection: expire_orders(connection, now)):
            self._trail.state("order", before, order.state, step="9", order=order.order_id)
        missed = await self._store.write(lambda connection: miss_devices(connection, now, self._silence))
        for before, order in missed:
            self._trail.state("order", before, order.state, step="14", order=order.order_id, detail=order.detail)
        silent: set[str] = set()  # home operators that gave no answer: one call a round is enough to know
        for order in await self._store.read(lambda connection: orders_with_jobs(connection, now)):
            await self._ask_for_package(order, silent)
        for order, brought_by in await self._store.read(_unreported):
            await self._repeat_report(order, brought_by, silent)
        if self._call_back is not None:
            await self._call_back.call_due(self.now)

    async def _ask_sho(self, ask: AskJob | TellSho, silent: set[str]) -> Outcome:
        if ask.sho_id in silent:
            return PartnerDown(reason="it gave no answer a moment ago")
        outcome = await self._partners.ask(ask)
        if isinstance(outcome, PartnerDown):
            silent.add(ask.sho_id)
        return outcome

    async def _ask_for_package(self, order: Order, silent: set[str]) -> None:
        rules = self._rules
        if rules is None:
            return
        outcome = await self._ask_sho(ask_for(order), silent)
        now = self.now()
        try:
            taken = await self._store.write(
                lambda connection: settle_job(connection, order, outcome, dpf_id=rules.server_id, now=now)
            )
        except OrderConflict:
            return  # it was delivered meanwhile, or the device is here
        except PackageNotTaken as exc:
            _log.warning("job.not_taken", order=order.order_id, reason=str(exc))
            return
        self.record(order.order_id, taken.entries)

    async def _repeat_report(self, order: Order, brought_by: Order | None, silent: set[str]) -> None:
        """Step 15, until acknowledged."""
        outcome = await self._ask_sho(tell_sho(order, brought_by=brought_by), silent)
        after, entries = settle_report(order, outcome, self.now(), brought_by=brought_by)
        if (after.state, after.report_owed) == (order.state, order.report_owed):
            return  # still no answer: the next round comes
        try:
            await self._store.write(lambda connection: write_order(connection, after))
        except OrderConflict:
            return  # a session of the device reported it meanwhile
        self.record(order.order_id, entries)

    async def tidy_for_ever(self, pause_s: float) -> None:
        """`tidy` again and again, at once when something is due; a failure is logged and does not end it."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), pause_s)
            self._due.clear()
            try:
                await self.tidy()
            except Exception:  # the loop of a server outlives any single failure
                _log.exception("tidy.failed")


def _brought_by(connection: Connection, order: Order) -> Order | None:
    return None if order.brought_by is None else find_order(connection, order.brought_by)


def _unreported(connection: Connection) -> list[tuple[Order, Order | None]]:
    return [(order, _brought_by(connection, order)) for order in unreported_orders(connection)]


class ProvisioningRun:
    """The provisioning of one order in one session, as a session policy."""

    def __init__(self, conductor: Conductor, policy: Provisioning) -> None:
        self._conductor = conductor
        self._policy = policy

    @property
    def place(self) -> Place:
        """Step and order."""
        order = self._policy.order
        return Place(STEP_OF_STATE.get(order.state, "9"), order.order_id)

    async def begin(self, alerts: tuple[DeviceAlert, ...]) -> Decision:
        """Take up the order where it is."""
        self._policy, decision = await self._conductor.begin(self._policy, alerts)
        return decision

    async def answered(self, answered: Sequence[CommandAnswered], alerts: tuple[DeviceAlert, ...]) -> Decision:
        """Go on with what the device answered."""
        return await self._conductor.go_on(self._policy, read_answers(answered), alerts)
