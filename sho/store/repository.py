"""Subscriptions, orders and hand-overs in the database. Functions of a connection; each runs inside one unit of work.

What changes them together, allocation and receipts, is in `handovers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from mcim.vocabulary import Container, McimPolicy, Operation, Suite
from sho.store.tables import handovers, orders, subscription_updates, subscriptions, tres
from sho.subscriptions import SealedCredential

# A subscription's way:
FREE: Final = "free"
PREPARED: Final = "prepared"  # inside an object made in advance for one TRE
ALLOCATED: Final = "allocated"  # in a package under way
ARMED: Final = "armed"  # the AuC lets it in; in no other state
SUSPENDED: Final = "suspended"
FELL_BACK: Final = "fell-back"  # on the device, which went back to the MCIM before
CLOSED: Final = "closed"  # deleted on the device: its keys have been elsewhere and serve nobody else

# A hand-over's way (with ALLOCATED and FELL_BACK):
PACKAGED: Final = "packaged"
SUPERSEDED: Final = "superseded"
CONFIRMED: Final = "confirmed"
FAILED: Final = "failed"

GOING_ON: Final = ("requested", "open", "handed-over")  # orders of which nothing is known to be over


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRow:
    """One subscription; its credential stays sealed."""

    id: int
    sealed: SealedCredential = field(repr=False)
    imsi_mask: str
    amf: bytes
    sqn: int
    state: str
    m2me_id: str | None
    mcim_id: str | None
    available_from: datetime | None
    attached_at: datetime | None
    tre_id: str | None
    policy: McimPolicy | None  # None: the setting's
    barred_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverRow:
    """One hand-over as stored."""

    id: int
    m2me_id: str
    req_id: str
    order_id: str
    dpf_id: str
    tre_id: str
    platform_key_id: bytes
    attest_key_id: bytes
    nonce: bytes = field(repr=False)
    suite: Suite
    subscription_id: int
    mcim_id: str
    transaction_id: str
    sequence: int
    not_before: datetime
    not_after: datetime
    ticket_digest: str
    sqn_init: int
    package_sealed: bytes | None = field(repr=False)
    package_hash: bytes | None
    state: str
    result: int | None
    receipt: bytes | None = field(repr=False)
    operation: Operation
    container: Container
    revision: int
    token_ref: str | None
    update_id: int | None
    prepared_id: int | None


# --- subscriptions ----------------------------------------------------------------------------------


def add_subscription(
    connection: Connection, sealed: SealedCredential, *, imsi_mask: str, amf: bytes, now: datetime
) -> bool:
    """Add a free subscription; False when that IMSI is there already, or is to become another's."""
    if imsi_taken(connection, sealed.imsi_index):
        return False
    connection.execute(
        insert(subscriptions).values(
            **sealed_columns(sealed),
            imsi_mask=imsi_mask,
            amf=amf,
            sqn=0,
            state=FREE,
            created_at=naive(now),
        )
    )
    return True


def imsi_taken(connection: Connection, imsi_index: bytes, *, but_of: int | None = None) -> bool:
    """Whether an IMSI is some subscription's, was before its last update, or is to be after the next."""
    own = select(subscriptions.c.id).where(subscriptions.c.imsi_index == imsi_index)
    other = select(subscription_updates.c.subscription_id).where(subscription_updates.c.imsi_index == imsi_index)
    return bool({row[0] for row in connection.execute(own.union(other))} - {but_of})


def find_subscription(connection: Connection, imsi_index: bytes, *, for_update: bool = False) -> SubscriptionRow | None:
    """The subscription with that keyed index; `for_update` keeps other writers from it until the unit ends."""
    query = select(subscriptions).where(subscriptions.c.imsi_index == imsi_index)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    return subscription_of(row) if row is not None else None


def get_subscription(connection: Connection, subscription_id: int, *, for_update: bool = False) -> SubscriptionRow:
    """The subscription with that id, which must exist; `for_update` as in `find_subscription`."""
    query = select(subscriptions).where(subscriptions.c.id == subscription_id)
    return subscription_of(connection.execute(query.with_for_update() if for_update else query).one())


def find_subscription_by_id(connection: Connection, subscription_id: int) -> SubscriptionRow | None:
    """The subscription with that id."""
    row = connection.execute(select(subscriptions).where(subscriptions.c.id == subscription_id)).one_or_none()
    return subscription_of(row) if row is not None else None


def find_subscription_of_mcim(
    connection: Connection, mcim_id: str, *, for_update: bool = False
) -> SubscriptionRow | None:
    """The subscription that an MCIM carries; `for_update` as in `find_subscription`."""
    query = select(subscriptions).where(subscriptions.c.mcim_id == mcim_id)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    return subscription_of(row) if row is not None else None


def count_subscriptions(connection: Connection) -> int:
    """How many there are in all."""
    return int(connection.execute(select(func.count()).select_from(subscriptions)).scalar_one())


def list_subscriptions(connection: Connection, *, state: str | None, limit: int) -> list[dict[str, object]]:
    """Subscriptions as lists show them: masks only."""
    query = select(subscriptions).order_by(subscriptions.c.id).limit(limit)
    if state is not None:
        query = query.where(subscriptions.c.state == state)
    return [
        {
            "id": row.id,
            "imsi": row.imsi_mask,
            "algorithm": row.algorithm,
            "state": row.state,
            "m2meId": row.m2me_id,
            "mcimId": row.mcim_id,
            "attached": _text(row.attached_at),
            "barred": _text(row.barred_at),
        }
        for row in connection.execute(query)
    ]


def set_sqn(connection: Connection, subscription_id: int, sqn: int) -> None:
    """Store SQN_HE. It is committed before a vector made with it leaves (TS 33.102 §6.3.2)."""
    connection.execute(update(subscriptions).where(subscriptions.c.id == subscription_id).values(sqn=sqn))


def set_attached(connection: Connection, subscription_id: int, now: datetime) -> None:
    """Remember a successful authentication."""
    connection.execute(
        update(subscriptions).where(subscriptions.c.id == subscription_id).values(attached_at=naive(now))
    )


def set_barred(connection: Connection, subscription_id: int, barred_at: datetime | None) -> bool:
    """Bar a subscription, or with None let it be used again; False when that was so already."""
    barred = subscriptions.c.barred_at
    changes = barred.is_not(None) if barred_at is None else barred.is_(None)
    done = connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == subscription_id, changes)
        .values(barred_at=naive(barred_at) if barred_at is not None else None)
    )
    return done.rowcount == 1


def has_barred(connection: Connection, m2me_id: str, tre_id: str) -> bool:
    """Whether a barred subscription is on that device, or on the way to it."""
    table = subscriptions.c
    query = select(table.id).where(
        table.m2me_id == m2me_id, table.tre_id == tre_id, table.barred_at.is_not(None), table.state != FREE
    )
    return connection.execute(query.limit(1)).first() is not None


def choose_free(connection: Connection, algorithms: tuple[str, ...], now: datetime) -> SubscriptionRow | None:
    """A subscription that nobody has, with an algorithm that the TRE lists."""
    table = subscriptions.c
    row = connection.execute(
        select(subscriptions)
        .where(
            table.state == FREE,
            table.barred_at.is_(None),
            or_(table.available_from.is_(None), table.available_from <= naive(now)),
            table.algorithm.in_(algorithms),
        )
        .order_by(table.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    return subscription_of(row) if row is not None else None


# --- orders -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an order is to do to the device's MCIMs."""

    operation: Operation = Operation.INSTALL
    mcim_id: str | None = None  # the target of all but install and replace
    replaces: str | None = None  # the MCIM that a replace gives up
    release_token: bytes | None = field(default=None, repr=False)  # of that MCIM's home operator


def add_order(
    connection: Connection,
    *,
    id: str,
    m2me_id: str,
    dpf_url: str,
    reason: str,
    now: datetime,
    terms: Terms | None = None,
) -> None:
    """Record an order before the DPF is asked to open it."""
    terms = terms or Terms()
    connection.execute(
        insert(orders).values(
            id=id,
            m2me_id=m2me_id,
            dpf_url=dpf_url,
            reason=reason,
            state="requested",
            created_at=naive(now),
            operation=terms.operation.label,
            mcim_id=terms.mcim_id,
            replaces=terms.replaces,
            release_token=terms.release_token,
        )
    )


def terms_of(connection: Connection, order_id: str) -> Terms | None:
    """What the order with the DPF's id is to do; None when it is not ours."""
    row = connection.execute(select(orders).where(orders.c.order_id == order_id)).one_or_none()
    if row is None:
        return None
    return Terms(
        operation=Operation[row.operation.upper()],
        mcim_id=row.mcim_id,
        replaces=row.replaces,
        release_token=row.release_token,
    )


def set_order_opened(connection: Connection, id: str, order_id: str) -> bool:
    """The DPF opened it under its own id; False when that id is another order's. An order that is further on, because
    it was asked for twice at once and the device was quick, stays where it is.
    """
    other = select(orders.c.id).where(orders.c.id != id, or_(orders.c.order_id == order_id, orders.c.id == order_id))
    if connection.execute(other).first() is not None:
        return False
    requested = orders.c.state == "requested"
    connection.execute(update(orders).where(orders.c.id == id, requested).values(order_id=order_id, state="open"))
    return True


def set_order_refused(connection: Connection, id: str) -> None:
    """The DPF would not open it."""
    connection.execute(update(orders).where(orders.c.id == id, orders.c.state == "requested").values(state="refused"))


def set_order_state(connection: Connection, order_id: str, state: str) -> None:
    """What became of an order; orders that others opened at the DPF are not ours and stay unknown."""
    connection.execute(update(orders).where(orders.c.order_id == order_id).values(state=state))


def refuse_order(connection: Connection, order_id: str) -> bool:
    """End an order that the DPF refused; False when it is none that is still going on."""
    going_on = orders.c.state.in_(GOING_ON)
    done = connection.execute(update(orders).where(orders.c.order_id == order_id, going_on).values(state="refused"))
    return done.rowcount == 1


def find_order(connection: Connection, any_id: str) -> dict[str, object] | None:
    """An order by our id or the DPF's."""
    row = connection.execute(
        select(orders).where(or_(orders.c.id == any_id, orders.c.order_id == any_id))
    ).one_or_none()
    return _order(row) if row is not None else None


def order_is_over(connection: Connection, order_id: str) -> bool:
    """Whether an order of ours had its effect, or is to have none; one that failed may be tried again."""
    query = select(orders.c.id).where(orders.c.order_id == order_id, orders.c.state.in_(("fulfilled", "refused")))
    return connection.execute(query).first() is not None


def ongoing_order(connection: Connection, m2me_id: str, *, since: datetime) -> dict[str, object] | None:
    """The newest order of a device that is going on, or that the DPF may have opened; older ones have expired there."""
    row = connection.execute(
        select(orders)
        .where(
            orders.c.m2me_id == m2me_id,
            orders.c.state.in_(("requested", "open", "handed-over")),
            orders.c.created_at > naive(since),
        )
        .order_by(orders.c.created_at.desc())
        .limit(1)
    ).one_or_none()
    return _order(row) if row is not None else None


def list_orders(connection: Connection) -> list[dict[str, object]]:
    """All orders, newest first."""
    return [_order(row) for row in connection.execute(select(orders).order_by(orders.c.created_at.desc()))]


# --- hand-overs -------------------------------------------------------------------------------------


def find_handover(connection: Connection, m2me_id: str, req_id: str, *, for_update: bool = False) -> HandoverRow | None:
    """The hand-over of one request of one device; `for_update` keeps other writers from it until the unit ends."""
    query = select(handovers).where(handovers.c.m2me_id == m2me_id, handovers.c.req_id == req_id)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    return _handover(row) if row is not None else None


def find_reported_handover(
    connection: Connection, order_id: str, req_id: str, dpf_ids: frozenset[str]
) -> HandoverRow | None:
    """The hand-over that a report is about, one by these DPFs before all others."""
    row = connection.execute(
        select(handovers)
        .where(handovers.c.order_id == order_id, handovers.c.req_id == req_id)
        .order_by(handovers.c.dpf_id.in_(dpf_ids).desc(), handovers.c.id.desc())
        .limit(1)
    ).one_or_none()
    return _handover(row) if row is not None else None


def handed_over_by_others(connection: Connection, order_id: str, dpf_ids: frozenset[str]) -> bool:
    """Whether a DPF that is none of these has handed the order over."""
    query = select(handovers.c.id).where(handovers.c.order_id == order_id, handovers.c.dpf_id.not_in(dpf_ids))
    return connection.execute(query).first() is not None


def find_handover_of_mcim(connection: Connection, mcim_id: str) -> HandoverRow | None:
    """The last hand-over about an MCIM."""
    row = connection.execute(
        select(handovers).where(handovers.c.mcim_id == mcim_id).order_by(handovers.c.id.desc()).limit(1)
    ).one_or_none()
    return _handover(row) if row is not None else None


def get_handover(connection: Connection, handover_id: int) -> HandoverRow:
    """The hand-over with that id, which must exist."""
    return _handover(connection.execute(select(handovers).where(handovers.c.id == handover_id)).one())


def list_handovers(connection: Connection, *, limit: int, handover_id: int | None = None) -> list[dict[str, object]]:
    """Packages as lists show them, newest first."""
    query = select(handovers).order_by(handovers.c.id.desc()).limit(limit)
    if handover_id is not None:
        query = query.where(handovers.c.id == handover_id)
    return [
        {
            "id": row.id,
            "orderId": row.order_id,
            "m2meId": row.m2me_id,
            "operation": Operation(row.operation).label,
            "mcimId": row.mcim_id,
            "sequence": row.sequence,
            "suite": Suite(row.suite).label,
            "container": row.container,
            "prepared": row.prepared_id is not None,
            "state": row.state,
            "result": row.result,
        }
        for row in connection.execute(query)
    ]


def last_sequence(connection: Connection, tre_id: str) -> int:
    """The sequence number of the last package made for a TRE, 0 when there was none; other writers wait from here until
    the unit ends."""
    query = select(tres.c.sequence).where(tres.c.tre_id == tre_id).with_for_update()
    last = connection.execute(query).scalar_one_or_none()
    if last is not None:
        return int(last)
    try:
        with connection.begin_nested():
            connection.execute(insert(tres).values(tre_id=tre_id, sequence=0, receipt_counter=-1))
    except IntegrityError:  # another writer was first
        return int(connection.execute(query).scalar_one())
    return 0


def next_sequence(connection: Connection, tre_id: str, lowest: int) -> int:
    """A sequence number for a package to this TRE, never given before."""
    value = max(last_sequence(connection, tre_id) + 1, lowest)
    connection.execute(update(tres).where(tres.c.tre_id == tre_id).values(sequence=value))
    return value


_CONVERTED: Final = frozenset(("created_at", "suite", "operation", "container", "not_before", "not_after"))


def _handover(row: Row[Any]) -> HandoverRow:
    values = row._asdict()
    return HandoverRow(
        **{name: values[name] for name in values if name not in _CONVERTED},
        suite=Suite(row.suite),
        operation=Operation(row.operation),
        container=Container(row.container),
        not_before=row.not_before.replace(tzinfo=UTC),
        not_after=row.not_after.replace(tzinfo=UTC),
    )


def sealed_columns(sealed: SealedCredential) -> dict[str, object]:
    """A sealed credential as column values, of a subscription and of an update."""
    return {
        "imsi_index": sealed.imsi_index,
        "imsi_sealed": sealed.imsi_sealed,
        "k_sealed": sealed.k_sealed,
        "opc_sealed": sealed.opc_sealed,
        "constants_sealed": sealed.constants_sealed,
        "algorithm": sealed.algorithm,
    }


def sealed_of(row: Row[Any]) -> SealedCredential:
    """The sealed credential in a row of a subscription or of an update."""
    return SealedCredential(
        imsi_index=row.imsi_index,
        imsi_sealed=row.imsi_sealed,
        k_sealed=row.k_sealed,
        opc_sealed=row.opc_sealed,
        constants_sealed=row.constants_sealed,
        algorithm=row.algorithm,
    )


def subscription_of(row: Row[Any]) -> SubscriptionRow:
    """One row as a value."""
    return SubscriptionRow(
        id=row.id,
        sealed=sealed_of(row),
        imsi_mask=row.imsi_mask,
        amf=row.amf,
        sqn=row.sqn,
        state=row.state,
        m2me_id=row.m2me_id,
        mcim_id=row.mcim_id,
        available_from=row.available_from.replace(tzinfo=UTC) if row.available_from is not None else None,
        attached_at=row.attached_at.replace(tzinfo=UTC) if row.attached_at is not None else None,
        tre_id=row.tre_id,
        policy=McimPolicy(row.policy) if row.policy is not None else None,
        barred_at=row.barred_at.replace(tzinfo=UTC) if row.barred_at is not None else None,
    )


def _order(row: Row[Any]) -> dict[str, object]:
    return {
        "id": row.id,
        "orderId": row.order_id,
        "m2meId": row.m2me_id,
        "dpf": row.dpf_url,
        "operation": row.operation,
        "mcimId": row.mcim_id,
        "replaces": row.replaces,
        "reason": row.reason,
        "state": row.state,
        "created": _text(row.created_at),
    }


def naive(moment: datetime) -> datetime:
    """UTC without zone, as the tables have it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") + "Z" if moment is not None else None
