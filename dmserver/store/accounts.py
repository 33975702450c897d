"""Devices and their DM accounts. Secrets go in and out sealed, each bound to its row and column."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update

from actor_runtime.sealing import SealingKey
from dmserver.store.actions import note_action
from dmserver.store.tables import (
    accounts,
    bootstrap_pulls,
    bootstrap_requests,
    bootstraps,
    devices,
    notifications,
    operator_commands,
    operator_requests,
    orders,
    sightings,
)
from syncml.codes import AuthType
from syncml.peer_profile import DEFAULT_PROFILE, PROFILES, PeerProfile

MAX_DEV_INFO: Final = 255  # characters of a URI or value of DevInfo that are kept
MAX_DEV_INFO_NODES: Final = 32


class DeviceExists(Exception):
    """A device with this id is already known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """DM credentials of one device, both directions. Nonces are raw octets."""

    device_id: str
    profile: int
    client_name: str
    client_secret: str = field(repr=False)
    client_nonce: bytes = field(repr=False)
    client_nonce_before: bytes = field(default=b"", repr=False)  # good once more: an answer may have been lost
    client_auth: AuthType = AuthType.MD5
    per_message: bool = False
    server_name: str
    server_secret: str = field(repr=False)
    server_nonce: bytes = field(repr=False)
    server_auth: AuthType = AuthType.MD5
    notified: int = 0  # session id of the last package 0; 0: none yet
    resync: bool = False  # the last package 0 used the special nonce
    peer: PeerProfile = DEFAULT_PROFILE


def naive(moment: datetime) -> datetime:
    """UTC without zone, as the tables hold it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def aware(moment: datetime) -> datetime:
    """Back from the tables."""
    return moment.replace(tzinfo=UTC)


def _place(table: str, column: str, device_id: str) -> bytes:
    return f"dmserver|{table}|{column}|{device_id}".encode()


def add_device(
    connection: Connection,
    key: SealingKey,
    device_id: str,
    secret: bytes | None,
    now: datetime,
    *,
    managed: bool = False,
    peer_profile: str = DEFAULT_PROFILE.name,
    push: str | None = None,
) -> None:
    """Make a device known, with the secret its supplier shares with us; without one it gets its account by hand.

    Raises:
        DeviceExists
    """
    if connection.execute(select(devices.c.device_id).where(devices.c.device_id == device_id)).first() is not None:
        raise DeviceExists(device_id)
    connection.execute(
        insert(devices).values(
            device_id=device_id,
            bootstrap_secret=key.seal(secret, _place("devices", "bootstrap_secret", device_id)) if secret else b"",
            managed=managed,
            peer_profile=peer_profile,
            push=push,
            created_at=naive(now),
        )
    )
    how = f"{'' if secret else 'without a secret, '}{'' if managed else 'not '}managed, profile {peer_profile}"
    note_action(connection, f"added device {device_id}, {how}")


def bootstrap_secret(connection: Connection, key: SealingKey, device_id: str) -> bytes | None:
    """The supplier's secret of a device; None for a device we do not know, or that came without one."""
    sealed = connection.execute(
        select(devices.c.bootstrap_secret).where(devices.c.device_id == device_id)
    ).scalar_one_or_none()
    return key.open(sealed, _place("devices", "bootstrap_secret", device_id)) if sealed else None


def is_known(connection: Connection, device_id: str) -> bool:
    """Whether the device was added."""
    return connection.execute(select(devices.c.device_id).where(devices.c.device_id == device_id)).first() is not None


def is_managed(connection: Connection, device_id: str) -> bool:
    """Whether the device may have sessions without an order."""
    return bool(
        connection.execute(select(devices.c.managed).where(devices.c.device_id == device_id)).scalar_one_or_none()
    )


def change_device(
    connection: Connection,
    device_id: str,
    *,
    managed: bool | None = None,
    peer_profile: str | None = None,
    push: str | None = None,
) -> bool:
    """Change what is not None; whether there is such a device. `push` is its push address, udp:HOST:PORT."""
    changes = {"managed": managed, "peer_profile": peer_profile, "push": push}
    values = {name: value for name, value in changes.items() if value is not None}
    if not is_known(connection, device_id):
        return False
    if values:
        connection.execute(update(devices).where(devices.c.device_id == device_id).values(values))
        told = ", ".join(f"{name} {value}" for name, value in values.items())
        note_action(connection, f"changed device {device_id}: {told}")
    return True


class DeviceHasOrders(Exception):
    """Orders are kept for good, and the device with them."""


def remove_device(connection: Connection, device_id: str) -> bool:
    """Forget a device, its account and its queue; whether there was one.

    Raises:
        DeviceHasOrders
    """
    if connection.execute(select(orders.c.order_id).where(orders.c.device_id == device_id).limit(1)).first():
        raise DeviceHasOrders(device_id)
    of_device = select(operator_requests.c.request_id).where(operator_requests.c.device_id == device_id)
    connection.execute(delete(operator_commands).where(operator_commands.c.request_id.in_(of_device)))
    tables = (operator_requests, sightings, bootstrap_pulls, bootstrap_requests, bootstraps, notifications, accounts)
    for table in tables:
        connection.execute(delete(table).where(table.c.device_id == device_id))
    removed = connection.execute(delete(devices).where(devices.c.device_id == device_id)).rowcount == 1
    if removed:
        note_action(connection, f"removed device {device_id}")
    return removed


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """What a list of devices shows."""

    device_id: str
    known_since: datetime
    profile: int  # of the last bootstrap; 0: none yet
    managed: bool
    peer_profile: str
    push: str | None  # where its package 0 goes
    client_auth: str | None  # None: no account yet
    server_auth: str | None
    seen_at: datetime | None  # start of its last session; None: never
    dev_info: dict[str, str]


def list_devices(connection: Connection, *, after: str = "", limit: int | None = None) -> list[DeviceRow]:
    """Devices in the order of their ids, from the one that follows `after`."""
    query = _device_rows().where(devices.c.device_id > after).order_by(devices.c.device_id)
    return [_device_row(row) for row in connection.execute(query if limit is None else query.limit(limit))]


def find_device(connection: Connection, device_id: str) -> DeviceRow | None:
    """One device."""
    row = connection.execute(_device_rows().where(devices.c.device_id == device_id)).first()
    return None if row is None else _device_row(row)


def _device_rows() -> Select[Any]:
    return select(
        devices.c.device_id,
        devices.c.created_at,
        devices.c.managed,
        devices.c.peer_profile,
        devices.c.push,
        accounts.c.profile,
        accounts.c.client_auth,
        accounts.c.server_auth,
        sightings.c.seen_at,
        sightings.c.dev_info,
    ).select_from(
        devices.outerjoin(accounts, devices.c.device_id == accounts.c.device_id).outerjoin(
            sightings, devices.c.device_id == sightings.c.device_id
        )
    )


def _device_row(row: Row[Any]) -> DeviceRow:
    return DeviceRow(
        device_id=row.device_id,
        known_since=aware(row.created_at),
        profile=row.profile or 0,
        managed=row.managed,
        peer_profile=row.peer_profile,
        push=row.push,
        client_auth=row.client_auth,
        server_auth=row.server_auth,
        seen_at=None if row.seen_at is None else aware(row.seen_at),
        dev_info=json.loads(row.dev_info) if row.dev_info else {},
    )


def note_sighting(connection: Connection, device_id: str, dev_info: dict[str, str], now: datetime) -> None:
    """A session of the device began. What it did not say of itself this time is kept from before."""
    former = connection.execute(
        select(sightings.c.dev_info).where(sightings.c.device_id == device_id)
    ).scalar_one_or_none()
    said = {uri[:MAX_DEV_INFO]: value[:MAX_DEV_INFO] for uri, value in list(dev_info.items())[:MAX_DEV_INFO_NODES]}
    if former is None:
        connection.execute(insert(sightings).values(device_id=device_id, seen_at=naive(now), dev_info=json.dumps(said)))
        return
    connection.execute(
        update(sightings)
        .where(sightings.c.device_id == device_id)
        .values(seen_at=naive(now), dev_info=json.dumps(said) if said else former)
    )


def push_of(connection: Connection, device_id: str) -> str | None:
    """Where the package 0 of a device goes; None when that is not known."""
    return connection.execute(select(devices.c.push).where(devices.c.device_id == device_id)).scalar_one_or_none()


def learn_push(connection: Connection, device_id: str, push: str) -> None:
    """Where a push was sent that the device was meant to get; an address that is known already stays."""
    connection.execute(
        update(devices).where(devices.c.device_id == device_id, devices.c.push.is_(None)).values(push=push)
    )


def note_notification(connection: Connection, device_id: str, now: datetime) -> None:
    """Count a package 0. Those of days ago are forgotten."""
    connection.execute(
        delete(notifications).where(
            notifications.c.device_id == device_id, notifications.c.sent_at < naive(now - timedelta(days=1))
        )
    )
    connection.execute(insert(notifications).values(device_id=device_id, sent_at=naive(now)))


def notifications_since(connection: Connection, device_id: str, since: datetime) -> int:
    """How many of them the device was sent since then, by us or at an operator's wish."""
    return connection.execute(
        select(func.count())
        .select_from(notifications)
        .where(notifications.c.device_id == device_id, notifications.c.sent_at >= naive(since))
    ).scalar_one()


def bootstraps_since(connection: Connection, device_id: str, since: datetime) -> int:
    """How many bootstraps were made for the device since then."""
    return connection.execute(
        select(func.count())
        .select_from(bootstraps)
        .where(bootstraps.c.device_id == device_id, bootstraps.c.sent_at >= naive(since))
    ).scalar_one()


def profile_of(connection: Connection, device_id: str) -> int:
    """Number of the last bootstrap profile; 0 when there was none."""
    return (
        connection.execute(select(accounts.c.profile).where(accounts.c.device_id == device_id)).scalar_one_or_none()
        or 0
    )


def put_account(
    connection: Connection, key: SealingKey, account: Account, now: datetime, *, bootstrapped: bool = True
) -> None:
    """Replace the account of a device, and count the bootstrap if it comes from one."""
    connection.execute(delete(accounts).where(accounts.c.device_id == account.device_id))
    connection.execute(
        insert(accounts).values(
            device_id=account.device_id,
            profile=account.profile,
            client_name=account.client_name,
            client_secret=key.seal(
                account.client_secret.encode(), _place("accounts", "client_secret", account.device_id)
            ),
            client_auth=account.client_auth.value,
            per_message=account.per_message,
            client_nonce=account.client_nonce,
            client_nonce_before=account.client_nonce_before,
            server_name=account.server_name,
            server_secret=key.seal(
                account.server_secret.encode(), _place("accounts", "server_secret", account.device_id)
            ),
            server_auth=account.server_auth.value,
            server_nonce=account.server_nonce,
            notified=account.notified,
            resync=account.resync,
            created_at=naive(now),
        )
    )
    if bootstrapped:
        connection.execute(insert(bootstraps).values(device_id=account.device_id, sent_at=naive(now)))
    else:
        auth = f"{account.client_auth.value} and {account.server_auth.value}"
        note_action(connection, f"gave device {account.device_id} an account by hand, with {auth}")


def find_account(connection: Connection, key: SealingKey, device_id: str) -> Account | None:
    """The account of a device; None when it has none, known or not."""
    row = connection.execute(
        select(accounts, devices.c.peer_profile)
        .select_from(accounts.join(devices, accounts.c.device_id == devices.c.device_id))
        .where(accounts.c.device_id == device_id)
    ).first()
    if row is None:
        return None
    return Account(
        device_id=device_id,
        profile=row.profile,
        client_name=row.client_name,
        client_secret=key.open(row.client_secret, _place("accounts", "client_secret", device_id)).decode(),
        client_nonce=row.client_nonce,
        client_nonce_before=row.client_nonce_before,
        client_auth=AuthType(row.client_auth),
        per_message=row.per_message,
        server_name=row.server_name,
        server_secret=key.open(row.server_secret, _place("accounts", "server_secret", device_id)).decode(),
        server_nonce=row.server_nonce,
        server_auth=AuthType(row.server_auth),
        notified=row.notified,
        resync=row.resync,
        peer=PROFILES.get(row.peer_profile, DEFAULT_PROFILE),  # a profile may be gone after an update
    )


def forget_nonce_before(connection: Connection, device_id: str) -> None:
    """The device has our last nonce, as it went on after the answer that carried it: the one before is used up."""
    connection.execute(update(accounts).where(accounts.c.device_id == device_id).values(client_nonce_before=b""))


def clear_resync(connection: Connection, device_id: str) -> None:
    """The special nonce was good for one session, which has come (OMA-TS-DM_Security-V1_2 §5.3)."""
    connection.execute(update(accounts).where(accounts.c.device_id == device_id).values(resync=False))


def set_nonce(connection: Connection, device_id: str, direction: Literal["client", "server"], nonce: bytes) -> None:
    """Keep a new nonce: "client" is the one we issued for the device's credentials, "server" the one for ours.

    Of those we issue the last two are kept, since the answer that carried the last one may have been lost.
    """
    values: dict[str, object] = {f"{direction}_nonce": nonce}
    if direction == "client":
        values["client_nonce_before"] = accounts.c.client_nonce
    connection.execute(update(accounts).where(accounts.c.device_id == device_id).values(values))


def set_notified(connection: Connection, device_id: str, session_id: int, *, resync: bool) -> None:
    """Keep the session id of a package 0, and whether the special nonce counts for the session it asks for."""
    connection.execute(
        update(accounts).where(accounts.c.device_id == device_id).values(notified=session_id, resync=resync)
    )
