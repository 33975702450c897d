"""Objects made in advance: registered platforms, bulk jobs, and what became of each object (REQ-65).

An object is ciphertext for one platform key. Its plaintext never rests anywhere; the subscription inside is kept for
its TRE until the object is used or dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from mcim.vocabulary import Operation, Suite
from sho.store.repository import ALLOCATED, FREE, PREPARED, naive
from sho.store.tables import (
    device_tokens,
    platforms,
    prepare_items,
    prepare_jobs,
    prepared_objects,
    revocations,
    subscriptions,
)

if TYPE_CHECKING:
    from sho.store.handovers import NewHandover

READY: Final = "ready"
USED: Final = "used"
DROPPED: Final = "dropped"

WAITING: Final = "waiting"
DONE: Final = "prepared"
SKIPPED: Final = "skipped"  # there was a good object already
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRow:
    """A platform credential known before its device asks."""

    key_id: bytes
    tre_id: str
    m2me_id: str
    certificates: tuple[str, ...]  # leaf first, Base64 of DER
    suites: tuple[str, ...]
    containers: tuple[str, ...]
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRow:
    """A prepared object as stored."""

    id: int
    platform_key_id: bytes
    tre_id: str
    m2me_id: str
    subscription_id: int
    mcim_id: str
    sequence: int
    suite: Suite
    not_before: datetime
    not_after: datetime
    sqn_init: int
    token_ref: str | None
    object: bytes | None = field(repr=False)
    state: str


# --- platforms --------------------------------------------------------------------------------------


def register(connection: Connection, platform: PlatformRow, *, now: datetime) -> bool:
    """Take a platform in, or take in what it offers now; False when it was there already."""
    known = find_platform(connection, platform.key_id) is not None
    if known:
        connection.execute(delete(platforms).where(platforms.c.key_id == platform.key_id))
    connection.execute(
        insert(platforms).values(
            key_id=platform.key_id,
            tre_id=platform.tre_id,
            m2me_id=platform.m2me_id,
            certificates=json.dumps(platform.certificates),
            suites=" ".join(platform.suites),
            containers=" ".join(platform.containers),
            algorithms=" ".join(platform.algorithms),
            created_at=naive(now),
        )
    )
    return not known


def find_platform(connection: Connection, key_id: bytes) -> PlatformRow | None:
    """The registered platform with that key."""
    row = connection.execute(select(platforms).where(platforms.c.key_id == key_id)).one_or_none()
    return _platform(row) if row is not None else None


def all_platforms(connection: Connection) -> list[PlatformRow]:
    """Every registered platform, in the order of their TREs."""
    return [_platform(row) for row in connection.execute(select(platforms).order_by(platforms.c.tre_id))]


def revoke(connection: Connection, subject: str, *, now: datetime) -> int:
    """Refuse a TRE (its id) or a platform key (its id in hex) from now on; returns how many objects were dropped."""
    known = connection.execute(select(revocations.c.subject).where(revocations.c.subject == subject)).first()
    if known is None:
        connection.execute(insert(revocations).values(subject=subject, created_at=naive(now)))
    rows = connection.execute(
        select(prepared_objects.c.platform_key_id, prepared_objects.c.tre_id)
        .where(prepared_objects.c.state.in_((READY, USED)))
        .distinct()
    ).all()
    keys = {row.platform_key_id for row in rows if subject in (row.tre_id, row.platform_key_id.hex())}
    return sum(drop_for_key(connection, key) for key in keys)


def is_revoked(connection: Connection, tre_id: str, key_id: bytes) -> bool:
    """Whether the operator has revoked this TRE or this key."""
    query = select(revocations.c.subject).where(revocations.c.subject.in_((tre_id, key_id.hex())))
    return connection.execute(query).first() is not None


# --- objects ----------------------------------------------------------------------------------------


def add(connection: Connection, row: PreparedRow, sealed: bytes, *, job_id: str, now: datetime) -> None:
    """Store `sealed`, the object that `row` describes, and keep its subscription for its TRE."""
    connection.execute(
        update(subscriptions)
        .where(subscriptions.c.id == row.subscription_id)
        .values(state=PREPARED, m2me_id=row.m2me_id, tre_id=row.tre_id, mcim_id=row.mcim_id, available_from=None)
    )
    connection.execute(
        insert(prepared_objects).values(
            job_id=job_id,
            platform_key_id=row.platform_key_id,
            tre_id=row.tre_id,
            m2me_id=row.m2me_id,
            subscription_id=row.subscription_id,
            mcim_id=row.mcim_id,
            sequence=row.sequence,
            suite=int(row.suite),
            not_before=naive(row.not_before),
            not_after=naive(row.not_after),
            sqn_init=row.sqn_init,
            token_ref=row.token_ref,
            object=sealed,
            state=READY,
            created_at=naive(now),
        )
    )


def get_object(connection: Connection, prepared_id: int) -> PreparedRow:
    """The object with that id, which must exist."""
    return _prepared(connection.execute(select(prepared_objects).where(prepared_objects.c.id == prepared_id)).one())


def ready_objects(connection: Connection) -> list[PreparedRow]:
    """Objects that wait for their device."""
    query = select(prepared_objects).where(prepared_objects.c.state == READY).order_by(prepared_objects.c.id)
    return [_prepared(row) for row in connection.execute(query)]


def usable(connection: Connection, new: NewHandover, *, now: datetime) -> PreparedRow | None:
    """The object that fits this request, marked as used: of exactly this platform key, its suite and algorithm still
    offered, its sequence number not below what the TRE takes, in force, and with the token the device has now.

    A request whose nonce was renewed gets the same object again, until a receipt moved its subscription on.
    """
    if new.operation is not Operation.INSTALL or new.prepared_suites is None:
        return None
    row = connection.execute(
        select(prepared_objects, subscriptions.c.algorithm)
        .join(subscriptions, subscriptions.c.id == prepared_objects.c.subscription_id)
        .where(
            prepared_objects.c.platform_key_id == new.platform_key_id,
            prepared_objects.c.tre_id == new.tre_id,
            prepared_objects.c.m2me_id == new.m2me_id,
            prepared_objects.c.state.in_((READY, USED)),
            prepared_objects.c.object.is_not(None),
            subscriptions.c.mcim_id == prepared_objects.c.mcim_id,
            subscriptions.c.state.in_((PREPARED, ALLOCATED)),
        )
        .order_by(prepared_objects.c.id.desc())
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return None
    found = _prepared(row)
    token = connection.execute(
        select(device_tokens.c.token_ref).where(device_tokens.c.m2me_id == new.m2me_id)
    ).scalar_one_or_none()
    fits = (
        found.suite in new.prepared_suites
        and row.algorithm in new.algorithms
        and found.sequence >= new.next_sequence
        and found.not_before <= now < found.not_after
        and found.token_ref == token
    )
    if not fits:
        return None
    connection.execute(update(prepared_objects).where(prepared_objects.c.id == found.id).values(state=USED))
    return found


def drop_for_device(connection: Connection, m2me_id: str, tre_id: str) -> int:
    """Drop the objects of a device that gets another package; their subscriptions stay with it."""
    rows = _droppable(connection, prepared_objects.c.m2me_id == m2me_id, prepared_objects.c.tre_id == tre_id)
    return _drop(connection, rows, free_for_all=False)


def drop_for_key(connection: Connection, key_id: bytes) -> int:
    """Drop the objects for a platform key that is good no more (REQ-65). Subscriptions that never left are free for
    others; one that is in a package under way stays with its device.
    """
    return _drop(connection, _droppable(connection, prepared_objects.c.platform_key_id == key_id), free_for_all=True)


def _droppable(connection: Connection, *conditions: Any) -> Sequence[Row[Any]]:  # noqa: ANN401 (SQL expressions)
    return connection.execute(
        select(prepared_objects).where(prepared_objects.c.state.in_((READY, USED)), *conditions)
    ).all()


def _drop(connection: Connection, rows: Sequence[Row[Any]], *, free_for_all: bool) -> int:
    for row in rows:
        connection.execute(
            update(prepared_objects).where(prepared_objects.c.id == row.id).values(state=DROPPED, object=None)
        )
        if row.state == READY:
            nobody = {"m2me_id": None, "tre_id": None} if free_for_all else {}
            connection.execute(
                update(subscriptions)
                .where(
                    subscriptions.c.id == row.subscription_id,
                    subscriptions.c.state == PREPARED,
                    subscriptions.c.mcim_id == row.mcim_id,
                )
                .values(state=FREE, mcim_id=None, **nobody)
            )
    return len(rows)


# --- bulk jobs --------------------------------------------------------------------------------------


def start_job(connection: Connection, job_id: str, key_ids: Iterable[bytes], *, now: datetime) -> int:
    """Record what a bulk job is to prepare; returns the number of items."""
    connection.execute(insert(prepare_jobs).values(id=job_id, created_at=naive(now)))
    items = [
        {"job_id": job_id, "platform_key_id": key_id, "position": position, "state": WAITING}
        for position, key_id in enumerate(key_ids)
    ]
    if items:
        connection.execute(insert(prepare_items), items)
    return len(items)


def job_exists(connection: Connection, job_id: str) -> bool:
    """Whether there is such a bulk job."""
    return connection.execute(select(prepare_jobs.c.id).where(prepare_jobs.c.id == job_id)).first() is not None


def next_item(connection: Connection, job_id: str, *, for_update: bool = False) -> bytes | None:
    """Key id of the next platform to prepare for; None when all are done, or when with `for_update`, which keeps other
    writers from it until the unit ends, another was faster.
    """
    query = (
        select(prepare_items.c.platform_key_id)
        .where(prepare_items.c.job_id == job_id, prepare_items.c.state == WAITING)
        .order_by(prepare_items.c.position)
        .limit(1)
    )
    return connection.execute(query.with_for_update() if for_update else query).scalar_one_or_none()


def end_item(connection: Connection, job_id: str, key_id: bytes, state: str, reason: str | None = None) -> None:
    """Record what became of an item."""
    connection.execute(
        update(prepare_items)
        .where(prepare_items.c.job_id == job_id, prepare_items.c.platform_key_id == key_id)
        .values(state=state, reason=reason)
    )


def has_ready(connection: Connection, key_id: bytes, token_ref: str | None, *, now: datetime) -> bool:
    """Whether a good object for this key waits already."""
    query = select(prepared_objects.c.id).where(
        prepared_objects.c.platform_key_id == key_id,
        prepared_objects.c.state == READY,
        prepared_objects.c.not_after > naive(now),
        prepared_objects.c.token_ref == token_ref,
    )
    return connection.execute(query).first() is not None


def progress(connection: Connection, job_id: str) -> dict[str, int]:
    """Number of items in each state."""
    counts = dict.fromkeys((WAITING, DONE, SKIPPED, FAILED), 0)
    query = (
        select(prepare_items.c.state, func.count())
        .where(prepare_items.c.job_id == job_id)
        .group_by(prepare_items.c.state)
    )
    counts.update({state: int(number) for state, number in connection.execute(query)})
    return counts


def list_jobs(connection: Connection) -> list[dict[str, object]]:
    """Bulk jobs, newest first."""
    query = select(prepare_jobs).order_by(prepare_jobs.c.created_at.desc())
    return [
        {"job": row.id, "created": row.created_at.isoformat(timespec="seconds") + "Z", **progress(connection, row.id)}
        for row in connection.execute(query)
    ]


def failures(connection: Connection, job_id: str) -> list[dict[str, object]]:
    """Platforms of a job that got no object, and why."""
    query = (
        select(prepare_items, platforms.c.tre_id)
        .join(platforms, platforms.c.key_id == prepare_items.c.platform_key_id, isouter=True)
        .where(prepare_items.c.job_id == job_id, prepare_items.c.state == FAILED)
        .order_by(prepare_items.c.position)
    )
    return [
        {"keyId": row.platform_key_id.hex(), "treId": row.tre_id, "reason": row.reason}
        for row in connection.execute(query)
    ]


def _platform(row: Row[Any]) -> PlatformRow:
    return PlatformRow(
        key_id=row.key_id,
        tre_id=row.tre_id,
        m2me_id=row.m2me_id,
        certificates=tuple(json.loads(row.certificates)),
        suites=tuple(row.suites.split()),
        containers=tuple(row.containers.split()),
        algorithms=tuple(row.algorithms.split()),
    )


def _prepared(row: Row[Any]) -> PreparedRow:
    return PreparedRow(
        id=row.id,
        platform_key_id=row.platform_key_id,
        tre_id=row.tre_id,
        m2me_id=row.m2me_id,
        subscription_id=row.subscription_id,
        mcim_id=row.mcim_id,
        sequence=row.sequence,
        suite=Suite(row.suite),
        not_before=row.not_before.replace(tzinfo=UTC),
        not_after=row.not_after.replace(tzinfo=UTC),
        sqn_init=row.sqn_init,
        token_ref=row.token_ref,
        object=row.object,
        state=row.state,
    )
