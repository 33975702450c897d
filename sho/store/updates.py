"""New values for a subscription: kept beside the old ones until the TRE's receipt, and the old ones after it.

A row has all values and says which of them differ. Only those are taken from it, in either direction: between plan and
receipt another update may have changed the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from mcim.vocabulary import McimPolicy
from sho.store import repository
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
from sho.subscriptions import Credential, SealedCredential, Vault

PENDING: Final = "pending"
APPLIED: Final = "applied"
DROPPED: Final = "dropped"
KEYS: Final = "keys"  # K and OPc, algorithm and constants, all together
CONSTANTS: Final = "constants"  # of the same algorithm, under the same keys


@dataclass(frozen=True, slots=True, kw_only=True)
class NewValues:
    """What a subscription is to have after an update, the unchanged included."""

    sealed: SealedCredential = field(repr=False)
    imsi_mask: str
    amf: bytes
    policy: McimPolicy | None
    changes: frozenset[str]  # of imsi, KEYS, amf, policy; or CONSTANTS alone


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
    subscription = repository.get_subscription(connection, subscription.id, for_update=True)
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
                m2me_id=None,  # the device it was last meant for may have the old values
                tre_id=None,
                mcim_id=None,
                **({"sqn": 0} if fresh else {}),
            )
        )
        own = subscription_updates.c.subscription_id == subscription.id
        connection.execute(delete(subscription_updates).where(own))  # no device has any of it, or will get it
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


def apply(connection: Connection, vault: Vault, update_id: int) -> bool:
    """Let the new values be those of the subscription, and keep the old ones; False when that was done before."""
    return _swap(connection, vault, update_id, (PENDING, DROPPED), APPLIED)


def take_back(connection: Connection, vault: Vault, subscription_id: int, *, after: int) -> int:
    """Let the values of the MCIM's revision `after` be those of the subscription again; returns how many updates it
    took back, the newest first.

    There may be several: a TRE that updates in two phases keeps the values of its last attach, however many updates
    came since.
    """
    carried = handovers.c.update_id == subscription_updates.c.id
    first = select(func.min(handovers.c.revision)).where(carried).scalar_subquery()
    later = connection.execute(
        select(subscription_updates.c.id)
        .where(
            subscription_updates.c.subscription_id == subscription_id,
            subscription_updates.c.state == APPLIED,
            first > after,
        )
        .order_by(first.desc())
    ).scalars()
    return sum(_swap(connection, vault, update_id, (APPLIED,), DROPPED) for update_id in later.all())


def _swap(connection: Connection, vault: Vault, update_id: int, expected: tuple[str, ...], after: str) -> bool:
    row = connection.execute(select(subscription_updates).where(subscription_updates.c.id == update_id)).one_or_none()
    if row is None or row.state not in expected:
        return False
    coming, going = _update(row), repository.get_subscription(connection, row.subscription_id, for_update=True)
    credential = _merged(vault.open(going.sealed), vault.open(coming.sealed), coming.changes)
    values = replace(
        coming,
        sealed=vault.seal(credential),
        imsi_mask=credential.imsi_mask,
        amf=coming.amf if "amf" in coming.changes else going.amf,
        policy=coming.policy if "policy" in coming.changes else going.policy,
    )
    before = replace(coming, sealed=going.sealed, imsi_mask=going.imsi_mask, amf=going.amf, policy=going.policy)
    connection.execute(update(subscriptions).where(subscriptions.c.id == going.id).values(**_columns(values)))
    connection.execute(
        update(subscription_updates)
        .where(subscription_updates.c.id == update_id)
        .values(**_columns(before), state=after)
    )
    return True


def _merged(own: Credential, other: Credential, changes: frozenset[str]) -> Credential:
    merged = replace(own, imsi=other.imsi) if "imsi" in changes else own
    if KEYS in changes:
        keys = other.keys
        return replace(merged, algorithm=keys.algorithm, k=keys.k, opc=keys.opc, constants=keys.constants)
    return replace(merged, constants=other.constants) if CONSTANTS in changes else merged


def _drop(connection: Connection, subscription_id: int) -> None:
    """What was planned and never sent is of no more use.

    What was sent stays: a receipt may still come that says it is what the device has, and what was there before it may
    be what the device falls back to. That the device kept an attach in mind is told by no receipt.
    """
    own = subscription_updates.c.subscription_id == subscription_id
    sent = select(handovers.c.update_id).where(handovers.c.update_id.is_not(None))
    connection.execute(delete(subscription_updates).where(own, subscription_updates.c.id.not_in(sent)))
    connection.execute(
        update(subscription_updates).where(own, subscription_updates.c.state == PENDING).values(state=DROPPED)
    )


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
