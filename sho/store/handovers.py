"""Hand-overs in the database: who gets which subscription and sequence number, once, and what its package was."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, func, insert, select, update

from mcim.aka import MAX_SQN
from mcim.vocabulary import Container, Operation, Suite
from sho.store import prepared, repository, updates
from sho.store.repository import (
    ALLOCATED,
    ARMED,
    CONFIRMED,
    FELL_BACK,
    FREE,
    PACKAGED,
    SUPERSEDED,
    SUSPENDED,
    HandoverRow,
    SubscriptionRow,
    find_handover,
    naive,
    set_order_state,
    subscription_of,
)
from sho.store.tables import handovers, orders, subscriptions, tres

STATES_FOR = {
    Operation.UPDATE: (ARMED, SUSPENDED, FELL_BACK),
    Operation.ACTIVATE: (ARMED, SUSPENDED, FELL_BACK),
    Operation.SUSPEND: (ARMED, SUSPENDED),
    Operation.DELETE: (ARMED, SUSPENDED, FELL_BACK),
}
"""In which states of its subscription an MCIM may be the target of an operation. Repeating one is allowed: the TRE
answers 1201, and a receipt that got lost is made up for."""


WITHDRAWING: Final = frozenset({Operation.SUSPEND, Operation.DELETE})
"""What may still be done to an MCIM whose subscription is barred."""

MAX_SEQUENCE: Final = 2**63 - 1  # what the database holds
MAX_SEQUENCE_STEP: Final = 2**32
"""How far the sequence number that a DPF names may be above our last one. Nobody signs it, and without a bound one lie
would use up all the numbers of a TRE (T12). Only a database that was lost leaves a gap at all."""
MAX_REVISION: Final = 0xFFFF


class NotPossible(Exception):
    """The database does not allow what is asked. `code` is for the partner, the text for the trail."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHandover:
    """What an accepted hand-over asks to be recorded."""

    m2me_id: str
    req_id: str
    order_id: str
    dpf_id: str
    tre_id: str
    platform_key_id: bytes
    attest_key_id: bytes
    nonce: bytes = field(repr=False)
    suite: Suite
    next_sequence: int  # lowest the TRE will take
    mcim_id: str  # a new one for install and replace, the target of the others
    transaction_id: str
    not_before: datetime
    not_after: datetime
    ticket_digest: str
    operation: Operation = Operation.INSTALL
    container: Container = Container.XML
    algorithms: tuple[str, ...] = ("milenage",)  # of the TRE
    prepared_suites: frozenset[Suite] | None = None  # of a prepared object that would do; None: make one on demand

    @property
    def makes_mcim(self) -> bool:
        """Whether the package brings an MCIM of its own."""
        return self.operation in (Operation.INSTALL, Operation.REPLACE)


def allocate(connection: Connection, new: NewHandover, *, sqn_ahead: int, now: datetime) -> HandoverRow | None:
    """Give a subscription and a sequence number to a request, once; None when no subscription is free.

    A request that has them already gets the same. A device that asks again under a new request before it confirmed
    the last one keeps its subscription, and the older hand-over is superseded; so does one that failed to install.

    Raises:
        NotPossible: the MCIM that the operation is about is not there, not this device's, or in another state; or a
            subscription of the device is barred.
    """
    known = find_handover(connection, new.m2me_id, new.req_id)
    if known is not None:
        if is_barred(connection, known):
            raise NotPossible("subscription-barred", "barred by the operator")
        return known
    if not new.makes_mcim:
        return _allocate_target(connection, new, sqn_ahead=sqn_ahead, now=now)
    if repository.has_barred(connection, new.m2me_id, new.tre_id):
        raise NotPossible("subscription-barred", "the device has a barred subscription, and gets no other")
    ready = prepared.usable(connection, new, now=now) if new.prepared_suites is not None else None
    if ready is not None:
        return _record(
            connection, new, ready.subscription_id, now,
            mcim_id=ready.mcim_id, sequence=ready.sequence, suite=int(ready.suite), sqn_init=ready.sqn_init,
            not_before=naive(ready.not_before), not_after=naive(ready.not_after), prepared_id=ready.id,
            token_ref=ready.token_ref,
        )  # fmt: skip
    prepared.drop_for_device(connection, new.m2me_id, new.tre_id)  # its subscription is the one chosen now
    chosen = _choose_subscription(connection, new, now)
    if chosen is None:
        return None
    return _record(connection, new, chosen.id, now, sqn_init=chosen.sqn + sqn_ahead)


def is_barred(connection: Connection, handover: HandoverRow) -> bool:
    """Whether nothing is handed over because the operator barred the subscription meanwhile."""
    barred = repository.get_subscription(connection, handover.subscription_id).barred_at is not None
    return barred and handover.operation not in WITHDRAWING


def keep_package(
    connection: Connection, handover_id: int, *, sealed: bytes, digest: bytes, token_ref: str | None = None
) -> HandoverRow:
    """Store the package of a hand-over unless there is one; return what is stored now. The first one stays."""
    connection.execute(
        update(handovers)
        .where(handovers.c.id == handover_id, handovers.c.package_sealed.is_(None))
        .values(package_sealed=sealed, package_hash=digest, token_ref=token_ref)
    )
    connection.execute(
        update(handovers).where(handovers.c.id == handover_id, handovers.c.state == ALLOCATED).values(state=PACKAGED)
    )
    return repository.get_handover(connection, handover_id)


def take_receipt_counter(connection: Connection, tre_id: str, counter: int) -> bool:
    """Raise the TRE's receipt counter; False when it would not rise: then the receipt is an old one."""
    done = connection.execute(
        update(tres).where(tres.c.tre_id == tre_id, tres.c.receipt_counter < counter).values(receipt_counter=counter)
    )
    return done.rowcount == 1


def set_outcome(connection: Connection, handover: HandoverRow, *, state: str, result: int, receipt: bytes) -> None:
    """Record a verified receipt."""
    connection.execute(
        update(handovers).where(handovers.c.id == handover.id).values(state=state, result=result, receipt=receipt)
    )


def set_state(connection: Connection, handover_id: int, state: str) -> None:
    """Move a hand-over that no receipt is about."""
    connection.execute(update(handovers).where(handovers.c.id == handover_id).values(state=state))


def installed_for_release(connection: Connection, m2me_id: str, tre_id: str, mcim_id: str) -> HandoverRow | None:
    """The confirmed replacement by which this SHO may delete the MCIM of another: it had that one's release token."""
    found = connection.execute(
        select(handovers.c.id)
        .join(orders, orders.c.order_id == handovers.c.order_id)
        .where(
            handovers.c.m2me_id == m2me_id,
            handovers.c.tre_id == tre_id,
            handovers.c.operation == int(Operation.REPLACE),
            handovers.c.state == CONFIRMED,
            orders.c.replaces == mcim_id,
            orders.c.release_token.is_not(None),
        )
        .order_by(handovers.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return repository.get_handover(connection, found) if found is not None else None


def _allocate_target(connection: Connection, new: NewHandover, *, sqn_ahead: int, now: datetime) -> HandoverRow:
    subscription = repository.find_subscription_of_mcim(connection, new.mcim_id, for_update=True)
    if subscription is None and new.operation is Operation.DELETE:
        replacement = installed_for_release(connection, new.m2me_id, new.tre_id, new.mcim_id)
        if replacement is not None:
            return _record(connection, new, replacement.subscription_id, now, revision=0, sqn_init=0)
    if subscription is None:
        raise NotPossible("mcim-unknown", "no subscription of ours is in this MCIM")
    if (subscription.m2me_id, subscription.tre_id) != (new.m2me_id, new.tre_id):
        raise NotPossible("mcim-elsewhere", "the MCIM is on another device or TRE")
    if subscription.barred_at is not None and new.operation not in WITHDRAWING:
        raise NotPossible("subscription-barred", f"{new.operation.label} while it is barred")
    if subscription.state not in STATES_FOR[new.operation]:
        raise NotPossible("mcim-state", f"{new.operation.label} while {subscription.state}")
    last = connection.execute(
        select(func.max(handovers.c.revision)).where(handovers.c.mcim_id == new.mcim_id)
    ).scalar_one_or_none()
    if new.operation is not Operation.UPDATE:
        return _record(connection, new, subscription.id, now, revision=last or 1, sqn_init=0)
    change = updates.pending(connection, subscription.id)
    if change is None:
        raise NotPossible("no-update", "nothing is to be changed")
    of_algorithm = {updates.KEYS, updates.CONSTANTS} & change.changes
    if of_algorithm and change.sealed.algorithm not in new.algorithms:
        raise NotPossible("algorithm-not-acceptable", f"the TRE does not list {change.sealed.algorithm}")
    return _record(
        connection, new, subscription.id, now,
        revision=(last or 1) + 1, sqn_init=subscription.sqn + sqn_ahead, update_id=change.id,
    )  # fmt: skip


def _record(
    connection: Connection, new: NewHandover, subscription_id: int, now: datetime, **own: object
) -> HandoverRow:
    connection.execute(
        update(handovers)
        .where(
            handovers.c.m2me_id == new.m2me_id,
            handovers.c.subscription_id == subscription_id,
            handovers.c.state.in_((ALLOCATED, PACKAGED)),
        )
        .values(state=SUPERSEDED)
    )
    values: dict[str, Any] = {
        "m2me_id": new.m2me_id,
        "req_id": new.req_id,
        "order_id": new.order_id,
        "dpf_id": new.dpf_id,
        "tre_id": new.tre_id,
        "platform_key_id": new.platform_key_id,
        "attest_key_id": new.attest_key_id,
        "nonce": new.nonce,
        "suite": int(new.suite),
        "subscription_id": subscription_id,
        "mcim_id": new.mcim_id,
        "transaction_id": new.transaction_id,
        "not_before": naive(new.not_before),
        "not_after": naive(new.not_after),
        "ticket_digest": new.ticket_digest,
        "state": ALLOCATED,
        "created_at": naive(now),
        "operation": int(new.operation),
        "container": new.container.value,
        **own,
    }
    if "sequence" not in own:
        values["sequence"] = _next_sequence(connection, new)
    if values.get("revision", 0) > MAX_REVISION:
        raise NotPossible("revision-used-up", "the MCIM had as many revisions as there are")
    if values["sqn_init"] > MAX_SQN:
        raise NotPossible("sqn-used-up", "the subscription needs a new K")
    if new.makes_mcim:
        connection.execute(
            update(subscriptions)
            .where(subscriptions.c.id == subscription_id)
            .values(
                state=ALLOCATED, m2me_id=new.m2me_id, tre_id=new.tre_id, mcim_id=values["mcim_id"], available_from=None
            )
        )
    connection.execute(insert(handovers).values(**values))
    set_order_state(connection, new.order_id, "handed-over")
    recorded = find_handover(connection, new.m2me_id, new.req_id)
    if recorded is None:
        raise LookupError("the hand-over is gone")
    return recorded


def _next_sequence(connection: Connection, new: NewHandover) -> int:
    last = repository.last_sequence(connection, new.tre_id)
    if new.next_sequence > last + MAX_SEQUENCE_STEP or last >= MAX_SEQUENCE:
        raise NotPossible("sequence-out-of-range", f"{new.next_sequence} after {last}")
    return repository.next_sequence(connection, new.tre_id, new.next_sequence)


def _choose_subscription(connection: Connection, new: NewHandover, now: datetime) -> SubscriptionRow | None:
    table = subscriptions.c
    own = connection.execute(
        select(subscriptions)
        .where(
            table.m2me_id == new.m2me_id,
            table.tre_id == new.tre_id,
            table.state.in_((ALLOCATED, FREE)),
            table.barred_at.is_(None),
            table.algorithm.in_(new.algorithms),
        )
        .order_by(table.id)
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if own is not None and _went_to_same_key(connection, own.id, new):
        return subscription_of(own)
    return repository.choose_free(connection, new.algorithms, now)


def _went_to_same_key(connection: Connection, subscription_id: int, new: NewHandover) -> bool:
    """Only a TRE with the same platform key gets the same credential again: nobody else can have opened it."""
    others = connection.execute(
        select(func.count())
        .select_from(handovers)
        .where(
            and_(
                handovers.c.subscription_id == subscription_id,
                handovers.c.m2me_id == new.m2me_id,
                handovers.c.platform_key_id != new.platform_key_id,
            )
        )
    ).scalar_one()
    return int(others) == 0
