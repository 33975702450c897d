"""Package 0: calls a device to a session (OMA-TS-DM_Notification-V1_2).

A notification is made and recorded in one transaction, and sent afterwards: an id that was not sent is only lost, one
that was sent and not recorded could be sent for a second session.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from dmserver.push import Destination, send
from dmserver.store.accounts import Account, find_account, set_notified
from syncml.auth import SPECIAL_NONCES
from syncml.codes import MediaType
from syncml.notification import (
    MAX_SESSION_ID,
    Initiator,
    Notification,
    UiMode,
    build_notification,
)
from syncml.wap_push import APPLICATION_SYNCML_DM, WapPush

RESYNC_NONCE: Final = SPECIAL_NONCES[0]
"""The special nonce as we send it: four zero octets."""


class NotificationNotAllowed(ActorError):
    """The device has no account, or there is nothing to repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a device is to be called."""

    ui_mode: UiMode = UiMode.BACKGROUND
    initiator: Initiator = Initiator.SERVER
    session_id: int | None = None  # None: the next one that this device has not seen
    repeat: bool = False  # the last id once more, for a session that never came
    resync: bool = False  # under the special nonce, when the device seems to have lost the server's
    vendor: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedNotification:
    """A notification that is recorded and ready to be sent."""

    session_id: int
    octets: bytes = field(repr=False)

    @property
    def push(self) -> WapPush:
        """The push that carries it."""
        return WapPush(
            transaction_id=self.session_id & 0xFF,
            content_type=MediaType.NOTIFICATION,
            application_id=APPLICATION_SYNCML_DM,
            body=self.octets,
        )


def prepare_notification(
    connection: Connection, key: SealingKey, device_id: str, call: Call, *, server_id: str
) -> PreparedNotification:
    """Make a notification under the account's server nonce, and record its session id.

    The nonce changes only within a session (§5.2.1), so several notifications may go out under one.

    Raises:
        NotificationNotAllowed: there is no account, or nothing to repeat.
        LocalProtocolError: a session id out of range, or too much vendor data.
    """
    account = find_account(connection, key, device_id)
    if account is None:
        raise NotificationNotAllowed(f"{device_id} has no account", hint="dmserver bootstrap")
    session_id = _session_id(account, call)
    notification = Notification(
        session_id=session_id,
        server_id=server_id,
        ui_mode=call.ui_mode,
        initiator=call.initiator,
        vendor=call.vendor,
    )
    octets = build_notification(
        notification,
        secret=account.server_secret,
        nonce=RESYNC_NONCE if call.resync else account.server_nonce,
    )
    set_notified(connection, device_id, session_id, resync=call.resync)
    return PreparedNotification(session_id=session_id, octets=octets)


def _session_id(account: Account, call: Call) -> int:
    if call.repeat:
        if not account.notified:
            raise NotificationNotAllowed(f"{account.device_id} was never notified", hint="leave out --repeat")
        return account.notified
    if call.session_id is None:
        return account.notified % MAX_SESSION_ID + 1
    if call.session_id == account.notified:
        raise NotificationNotAllowed(
            f"session id {call.session_id:X} was used for the last notification", hint="--repeat if it is meant"
        )
    return call.session_id


async def notify(
    store: Store, key: SealingKey, device_id: str, destination: Destination, *, server_id: str, call: Call | None = None
) -> PreparedNotification:
    """Call a device: make the notification, record it, send it. Whether the device comes is not known from this.

    Raises:
        NotificationNotAllowed, LocalProtocolError: see `prepare_notification`; nothing was sent.
        PushFailed: recorded, and not delivered to the next hop.
    """
    wanted = call or Call()
    prepared = await store.write(
        lambda connection: prepare_notification(connection, key, device_id, wanted, server_id=server_id)
    )
    await send(prepared.push, destination)
    return prepared
