"""New values for a subscription: kept beside the old ones until the TRE's receipt, and the old ones after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from mcim.vocabulary import McimPolicy
from sho.store.repository import (
    ALLOCATED,
    CLOSED,
    FREE,
    PACKAGED,
    SubscriptionRow,
    imsi_taken,
    naive,
    sealed_columns,
    sealed_of,
)
from sho.store.tables import handovers, subscription_updates, subscriptions
from sho.subscriptions import SealedCredential

PENDING: Final = "pending"
APPLIED: Final = "applied"
DROPPED: Final = "dropped"
SWAPPED: Final = (
    "imsi_index", "imsi_sealed", "k_sealed", "opc_sealed", "constants_sealed", "algorithm", "imsi_mask", "amf",
    "policy",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NewValues:
    """What a subscription is to have after an update, the unchanged included."""

    sealed: SealedCredential = field(repr=False)
    imsi_mask: str
    amf: bytes
    policy: McimPolicy | None
    changes: frozenset[str]  # of imsi, keys, amf, policy


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRow(NewValues):
    """An update as stored."""

    id: int
    state: str


def plan(connection: Connection, subscription: SubscriptionRow, new: NewValues, *, now: datetime) -> str:
    """Take new values in; returns the state of the subscription's values: "pending" or, without a device, "applied".

    A subscription that no device has gets them at once; a closed one, with a new K, is free for another device then.

    Raises:
        LookupError: the reason, in words for the operator.
    """
    if imsi_taken(connection, new.sealed.imsi_index, but_of=subscription.id):
        raise LookupError("another subscription has that IMSI")
    if subscription.state in (FREE, CLOSED):
        if subscription.state == CLOSED and "keys" not in new.changes:
            raise LookupError("its keys have been on a device: only new ones open it again")
        fresh = subscription.state == CLOSED
        connection.execute(
            update(subscriptions)
            .where(subscriptions.c.id == subscription.id)
            .values(
                **_columns(new),
                state=FREE,
                **({"m2me_id": None, "tre_id": None, "mcim_id": None, "sqn": 0} if fresh else {}),
            )
        )
        _drop(connection, subscription.id)
        return APPLIED
    under_way = connection.execute(
        select(handovers.c.id).where(
            and_(
                handovers.c.subscription_id == subscription.id,
                handovers.c.state.in_((ALLOCATED, PACKAGED)),
            )
        )
    ).first()
    if under_way is not None or subscription.state not in ("armed", "suspended", "fell-back"):
        raise LookupError(f"a package with it is under way (state {subscription.state})")
    _drop(connection, subscription.id)
    connection.execute(
        insert(subscription_updates).values(
            subscription_id=subscription.id,
            **_columns(new),
            changes=" ".join(sorted(new.changes)),
            state=PENDING,
            created_at=naive(now),
        )
    )
    return PENDING


def pending(connection: Connection, subscription_id: int) -> UpdateRow | None:
    """The update that waits for a package."""
    row = connection.execute(
        select(subscription_updates).where(
            subscription_updates.c.subscription_id == subscription_id, subscription_updates.c.state == PENDING
        )
    ).one_or_none()
    return _update(row) if row is not None else None


def get_update(connection: Connection, update_id: int) -> UpdateRow:
    """The update with that id, which must exist."""
    return _update(connection.execute(select(subscription_updates).where(subscription_updates.c.id == update_id)).one())


def apply(connection: Connection, update_id: int) -> bool:
    """Let the new values be those of the subscription, and keep the old ones; False when that was done before."""
    return _swap(connection, update_id, (PENDING, DROPPED), APPLIED)


def take_back(connection: Connection, update_id: int) -> bool:
    """Let the old values be those of the subscription again; False when the new ones are not."""
    return _swap(connection, update_id, (APPLIED,), DROPPED)


def _swap(connection: Connection, update_id: int, expected: tuple[str, ...], after: str) -> bool:
    row = connection.execute(select(subscription_updates).where(subscription_updates.c.id == update_id)).one_or_none()
    if row is None or row.state not in expected:
        return False
    old = connection.execute(select(subscriptions).where(subscriptions.c.id == row.subscription_id)).one()
    connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == old.id)
        .values(**{name: getattr(row, name) for name in SWAPPED})
    )
    connection.execute(
        update(subscription_updates)
        .where(subscription_updates.c.id == update_id)
        .values(**{name: getattr(old, name) for name in SWAPPED}, state=after)
    )
    return True


def _drop(connection: Connection, subscription_id: int) -> None:
    """What was planned and never sent, and what was there before the last update, is of no more use.

    What was sent stays: a receipt may still come that says it is what the device has.
    """
    own = subscription_updates.c.subscription_id == subscription_id
    sent = select(handovers.c.update_id).where(handovers.c.update_id.is_not(None))
    connection.execute(
        delete(subscription_updates).where(
            own, or_(subscription_updates.c.state == APPLIED, subscription_updates.c.id.not_in(sent))
        )
    )
    connection.execute(update(subscription_updates).where(own).values(state=DROPPED))


def _columns(new: NewValues) -> dict[str, object]:
    return {
        **sealed_columns(new.sealed),
        "imsi_mask": new.imsi_mask,
        "amf": new.amf,
        "policy": int(new.policy) if new.policy is not None else None,
    }


def _update(row: Row[Any]) -> UpdateRow:
    return UpdateRow(
        id=row.id,
        state=row.state,
        sealed=sealed_of(row),
        imsi_mask=row.imsi_mask,
        amf=row.amf,
        policy=McimPolicy(row.policy) if row.policy is not None else None,
        changes=frozenset(row.changes.split()),
    )
