"""What the SHO asks of its database. Functions of a connection; each runs inside one unit of work."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from mcim.vocabulary import Suite
from sho.store.tables import handovers, orders, subscriptions, tres
from sho.subscriptions import SealedCredential

FREE: Final = "free"
ALLOCATED: Final = "allocated"
ARMED: Final = "armed"

PACKAGED: Final = "packaged"
SUPERSEDED: Final = "superseded"
CONFIRMED: Final = "confirmed"
FAILED: Final = "failed"


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
    mcim_id: str
    transaction_id: str
    not_before: datetime
    not_after: datetime
    ticket_digest: str


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


# --- subscriptions ----------------------------------------------------------------------------------


def add_subscription(
    connection: Connection, sealed: SealedCredential, *, imsi_mask: str, amf: bytes, now: datetime
) -> bool:
    """Add a free subscription; False when that IMSI is there already."""
    if find_subscription(connection, sealed.imsi_index) is not None:
        return False
    connection.execute(
        insert(subscriptions).values(
            imsi_index=sealed.imsi_index,
            imsi_sealed=sealed.imsi_sealed,
            k_sealed=sealed.k_sealed,
            opc_sealed=sealed.opc_sealed,
            imsi_mask=imsi_mask,
            amf=amf,
            sqn=0,
            state=FREE,
            created_at=naive(now),
        )
    )
    return True


def find_subscription(connection: Connection, imsi_index: bytes) -> SubscriptionRow | None:
    """The subscription with that keyed index."""
    row = connection.execute(select(subscriptions).where(subscriptions.c.imsi_index == imsi_index)).one_or_none()
    return _subscription(row) if row is not None else None


def get_subscription(connection: Connection, subscription_id: int) -> SubscriptionRow:
    """The subscription with that id, which must exist."""
    return _subscription(connection.execute(select(subscriptions).where(subscriptions.c.id == subscription_id)).one())


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
            "state": row.state,
            "m2meId": row.m2me_id,
            "mcimId": row.mcim_id,
            "attached": _text(row.attached_at),
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


def arm(connection: Connection, handover: HandoverRow) -> bool:
    """Arm the subscription of a hand-over for this device (REQ-68); False when it went to another meanwhile."""
    done = connection.execute(
        update(subscriptions)
        .where(
            subscriptions.c.id == handover.subscription_id,
            subscriptions.c.m2me_id == handover.m2me_id,
            subscriptions.c.tre_id == handover.tre_id,
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


# --- orders -----------------------------------------------------------------------------------------


def add_order(connection: Connection, *, id: str, m2me_id: str, dpf_url: str, reason: str, now: datetime) -> None:
    """Record an order before the DPF is asked to open it."""
    connection.execute(
        insert(orders).values(
            id=id, m2me_id=m2me_id, dpf_url=dpf_url, reason=reason, state="requested", created_at=naive(now)
        )
    )


def set_order_opened(connection: Connection, id: str, order_id: str) -> None:
    """The DPF opened it under its own id."""
    connection.execute(update(orders).where(orders.c.id == id).values(order_id=order_id, state="open"))


def set_order_refused(connection: Connection, id: str) -> None:
    """The DPF would not open it."""
    connection.execute(update(orders).where(orders.c.id == id).values(state="refused"))


def set_order_state(connection: Connection, order_id: str, state: str) -> None:
    """What became of an order; orders that others opened at the DPF are not ours and stay unknown."""
    connection.execute(update(orders).where(orders.c.order_id == order_id).values(state=state))


def refuse_order(connection: Connection, order_id: str) -> bool:
    """End an order that the DPF refused; False when it is none that is still going on."""
    going_on = orders.c.state.in_(("open", "handed-over"))
    done = connection.execute(update(orders).where(orders.c.order_id == order_id, going_on).values(state="refused"))
    return done.rowcount == 1


def find_order(connection: Connection, any_id: str) -> dict[str, object] | None:
    """An order by our id or the DPF's."""
    row = connection.execute(
        select(orders).where(or_(orders.c.id == any_id, orders.c.order_id == any_id))
    ).one_or_none()
    return _order(row) if row is not None else None


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


def find_handover(connection: Connection, m2me_id: str, req_id: str) -> HandoverRow | None:
    """The hand-over of one request of one device."""
    return _one_handover(connection, handovers.c.m2me_id == m2me_id, handovers.c.req_id == req_id)


def find_reported_handover(connection: Connection, order_id: str, req_id: str) -> HandoverRow | None:
    """The hand-over that a report is about."""
    return _one_handover(connection, handovers.c.order_id == order_id, handovers.c.req_id == req_id)


def find_handover_of_mcim(connection: Connection, mcim_id: str) -> HandoverRow | None:
    """The hand-over that made an MCIM."""
    return _one_handover(connection, handovers.c.mcim_id == mcim_id)


def allocate(connection: Connection, new: NewHandover, *, sqn_ahead: int, now: datetime) -> HandoverRow | None:
    """Give a subscription and a sequence number to a request, once; None when no subscription is free.

    A request that has them already gets the same. A device that asks again under a new request before it confirmed
    the last one keeps its subscription, and the older hand-over is superseded; so does one that failed to install.
    """
    known = find_handover(connection, new.m2me_id, new.req_id)
    if known is not None:
        return known
    chosen = _choose_subscription(connection, new, now)
    if chosen is None:
        return None
    connection.execute(
        update(handovers)
        .where(
            handovers.c.m2me_id == new.m2me_id,
            handovers.c.subscription_id == chosen.id,
            handovers.c.state.in_((ALLOCATED, PACKAGED)),
        )
        .values(state=SUPERSEDED)
    )
    connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == chosen.id)
        .values(state=ALLOCATED, m2me_id=new.m2me_id, tre_id=new.tre_id, mcim_id=new.mcim_id, available_from=None)
    )
    sequence = _next_sequence(connection, new.tre_id, new.next_sequence)
    connection.execute(
        insert(handovers).values(
            m2me_id=new.m2me_id,
            req_id=new.req_id,
            order_id=new.order_id,
            dpf_id=new.dpf_id,
            tre_id=new.tre_id,
            platform_key_id=new.platform_key_id,
            attest_key_id=new.attest_key_id,
            nonce=new.nonce,
            suite=int(new.suite),
            subscription_id=chosen.id,
            mcim_id=new.mcim_id,
            transaction_id=new.transaction_id,
            sequence=sequence,
            not_before=naive(new.not_before),
            not_after=naive(new.not_after),
            ticket_digest=new.ticket_digest,
            sqn_init=chosen.sqn + sqn_ahead,
            state=ALLOCATED,
            created_at=naive(now),
        )
    )
    set_order_state(connection, new.order_id, "handed-over")
    return find_handover(connection, new.m2me_id, new.req_id)


def keep_package(connection: Connection, handover_id: int, *, sealed: bytes, digest: bytes) -> HandoverRow:
    """Store the package of a hand-over unless there is one; return what is stored now. The first one stays."""
    connection.execute(
        update(handovers)
        .where(handovers.c.id == handover_id, handovers.c.package_sealed.is_(None))
        .values(package_sealed=sealed, package_hash=digest, state=PACKAGED)
    )
    stored = _one_handover(connection, handovers.c.id == handover_id)
    if stored is None:
        raise LookupError("the hand-over is gone")
    return stored


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


def _choose_subscription(connection: Connection, new: NewHandover, now: datetime) -> SubscriptionRow | None:
    table = subscriptions.c
    own = connection.execute(
        select(subscriptions)
        .where(table.m2me_id == new.m2me_id, table.tre_id == new.tre_id, table.state.in_((ALLOCATED, FREE)))
        .order_by(table.id)
        .limit(1)
    ).one_or_none()
    if own is not None and _went_to_same_key(connection, own.id, new):
        return _subscription(own)
    row = connection.execute(
        select(subscriptions)
        .where(
            table.state == FREE,
            or_(table.available_from.is_(None), table.available_from <= naive(now)),
        )
        .order_by(table.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    return _subscription(row) if row is not None else None


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


def _next_sequence(connection: Connection, tre_id: str, lowest: int) -> int:
    last = connection.execute(select(tres.c.sequence).where(tres.c.tre_id == tre_id)).scalar_one_or_none()
    value = max((last or 0) + 1, lowest)
    if last is None:
        connection.execute(insert(tres).values(tre_id=tre_id, sequence=value, receipt_counter=-1))
    else:
        connection.execute(update(tres).where(tres.c.tre_id == tre_id).values(sequence=value))
    return value


def _one_handover(connection: Connection, *conditions: Any) -> HandoverRow | None:  # noqa: ANN401 (SQL expressions)
    row = connection.execute(select(handovers).where(*conditions)).one_or_none()
    if row is None:
        return None
    values = row._asdict()
    return HandoverRow(
        **{name: values[name] for name in values if name not in ("created_at", "suite", "not_before", "not_after")},
        suite=Suite(row.suite),
        not_before=row.not_before.replace(tzinfo=UTC),
        not_after=row.not_after.replace(tzinfo=UTC),
    )


def _subscription(row: Row[Any]) -> SubscriptionRow:
    return SubscriptionRow(
        id=row.id,
        sealed=SealedCredential(
            imsi_index=row.imsi_index,
            imsi_sealed=row.imsi_sealed,
            k_sealed=row.k_sealed,
            opc_sealed=row.opc_sealed,
        ),
        imsi_mask=row.imsi_mask,
        amf=row.amf,
        sqn=row.sqn,
        state=row.state,
        m2me_id=row.m2me_id,
        mcim_id=row.mcim_id,
        available_from=row.available_from.replace(tzinfo=UTC) if row.available_from is not None else None,
        attached_at=row.attached_at.replace(tzinfo=UTC) if row.attached_at is not None else None,
    )


def _order(row: Row[Any]) -> dict[str, object]:
    return {
        "id": row.id,
        "orderId": row.order_id,
        "m2meId": row.m2me_id,
        "dpf": row.dpf_url,
        "reason": row.reason,
        "state": row.state,
        "created": _text(row.created_at),
    }


def naive(moment: datetime) -> datetime:
    """UTC without zone, as the tables have it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") + "Z" if moment is not None else None
