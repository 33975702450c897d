"""What a receipt of the TRE does to a subscription: one function for each operation and outcome (REQ-68, REQ-70)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, update

from mcim.vocabulary import Operation
from sho.store import repository, updates
from sho.store.repository import (
    ALLOCATED,
    ARMED,
    CLOSED,
    FELL_BACK,
    FREE,
    SUPERSEDED,
    SUSPENDED,
    HandoverRow,
    naive,
    set_order_state,
)
from sho.store.tables import device_tokens, releases, subscriptions
from sho.subscriptions import SubscriptionError, Vault


def arm(connection: Connection, handover: HandoverRow) -> bool:
    """Arm the subscription of a hand-over for this device (REQ-68); False when it went to another meanwhile."""
    done = connection.execute(
        update(subscriptions)
        .where(
            subscriptions.c.id == handover.subscription_id,
            subscriptions.c.m2me_id == handover.m2me_id,
            subscriptions.c.tre_id == handover.tre_id,
            subscriptions.c.state != CLOSED,
        )
        .values(state=ARMED, mcim_id=handover.mcim_id, available_from=None)
    )
    return done.rowcount == 1


def release(connection: Connection, handover: HandoverRow, *, available_from: datetime) -> bool:
    """Free the subscription of a failed hand-over. Until `available_from` only the same device may get it again."""
    done = connection.execute(
        update(subscriptions)
        .where(
            subscriptions.c.id == handover.subscription_id,
            subscriptions.c.state == ALLOCATED,
            subscriptions.c.mcim_id == handover.mcim_id,
        )
        .values(state=FREE, mcim_id=None, available_from=naive(available_from))
    )
    return done.rowcount == 1


def succeed(connection: Connection, vault: Vault, handover: HandoverRow) -> bool:
    """Let the subscription follow what the TRE did; False when it is another device's by now."""
    if handover.operation is Operation.UPDATE:
        if not _has_it(connection, handover):
            return False
        try:
            if handover.update_id is not None:
                updates.apply(connection, vault, handover.update_id)
        except SubscriptionError:  # what the subscription became since does not go together with it
            return False
    elif not _ON_SUCCESS[handover.operation](connection, handover):
        return False
    if handover.token_ref is not None:  # it has served its purpose (REQ-62)
        connection.execute(delete(device_tokens).where(device_tokens.c.token_ref == handover.token_ref))
    set_order_state(connection, handover.order_id, "fulfilled")
    return True


def fail(connection: Connection, handover: HandoverRow, *, available_from: datetime) -> None:
    """The TRE refused: no change for whoever has an MCIM, and a subscription under way is free after a while."""
    if handover.operation in (Operation.INSTALL, Operation.REPLACE):
        if release(connection, handover, available_from=available_from):  # else a newer hand-over has its place
            set_order_state(connection, handover.order_id, "failed")
    elif handover.state != SUPERSEDED:
        set_order_state(connection, handover.order_id, "failed")


def fall_back(connection: Connection, vault: Vault, handover: HandoverRow, *, revision: int | None) -> None:
    """The network did not take what the package brought and the device uses what it had before (result 1426).

    After an update the credential of that `revision` is the AuC's again; without one, that of before this package. A
    new MCIM stays on the device, suspended: its subscription is kept for it, and nobody is let in with it until it was
    activated.
    """
    if handover.operation is Operation.UPDATE:
        if _has_it(connection, handover):
            before = handover.revision - 1
            after = before if revision is None else min(revision, before)
            updates.take_back(connection, vault, handover.subscription_id, after=after)
    else:
        _move(connection, handover, FELL_BACK)
    set_order_state(connection, handover.order_id, "fell-back")


def add_release(
    connection: Connection, *, mcim_id: str, tre_id: str, new_sho_id: str, not_after: datetime, now: datetime
) -> None:
    """Record a release token before it leaves."""
    connection.execute(
        releases.insert().values(
            mcim_id=mcim_id, tre_id=tre_id, new_sho_id=new_sho_id, not_after=naive(not_after), created_at=naive(now)
        )
    )


def close_released(connection: Connection, *, mcim_id: str, tre_id: str, new_sho_id: str) -> bool:
    """Close the subscription of an MCIM that the SHO it was released to has deleted; False without such a release."""
    known = connection.execute(
        releases.select().where(
            releases.c.mcim_id == mcim_id, releases.c.tre_id == tre_id, releases.c.new_sho_id == new_sho_id
        )
    ).first()
    if known is None:
        return False
    connection.execute(
        update(subscriptions)
        .where(subscriptions.c.mcim_id == mcim_id, subscriptions.c.tre_id == tre_id)
        .values(state=CLOSED)
    )
    return True


def _move(connection: Connection, handover: HandoverRow, state: str) -> bool:
    """True as well when there is nothing to move: a delete for the operator whose release token we had."""
    connection.execute(
        update(subscriptions)
        .where(
            subscriptions.c.id == handover.subscription_id,
            subscriptions.c.mcim_id == handover.mcim_id,
            subscriptions.c.m2me_id == handover.m2me_id,
            subscriptions.c.tre_id == handover.tre_id,
            subscriptions.c.state.not_in((CLOSED, FREE)),
        )
        .values(state=state, available_from=None)
    )
    return True


def _has_it(connection: Connection, handover: HandoverRow) -> bool:
    """Whether the subscription is still in the MCIM of the hand-over: the keys of another device are not its TRE's."""
    subscription = repository.get_subscription(connection, handover.subscription_id)
    place = (subscription.mcim_id, subscription.m2me_id, subscription.tre_id)
    return place == (handover.mcim_id, handover.m2me_id, handover.tre_id) and subscription.state != CLOSED


_ON_SUCCESS: Final[dict[Operation, Callable[[Connection, HandoverRow], bool]]] = {
    Operation.INSTALL: arm,
    Operation.REPLACE: arm,
    Operation.ACTIVATE: lambda connection, handover: _move(connection, handover, ARMED),
    Operation.SUSPEND: lambda connection, handover: _move(connection, handover, SUSPENDED),
    Operation.DELETE: lambda connection, handover: _move(connection, handover, CLOSED),
}
