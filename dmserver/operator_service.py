"""What operators do, behind command line and API alike: queue requests, look at them, take them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from actor_runtime.sealing import SealingKey
from dmserver.operator_commands import CommandRejected, OperatorRequest, RequestOrder, RequestState
from dmserver.operator_outcomes import show_request
from dmserver.store.accounts import DeviceRow, find_device, is_known
from dmserver.store.actions import note_action
from dmserver.store.operator_commands import add_request, cancel_request, expire_requests, find_request, list_requests

UNKNOWN_DEVICE = "device-unknown"
UNKNOWN_REQUEST = "request-unknown"
NOT_CANCELLABLE = "not-cancellable"

Unit = Callable[[Connection], Any]


def queue_request(
    connection: Connection,
    key: SealingKey,
    device_id: str,
    order: RequestOrder,
    now: datetime,
    *,
    idempotency_key: str | None = None,
) -> tuple[OperatorRequest, bool]:
    """Queue a request; the one that was queued with the same key before, and False, when it is repeated.

    Raises:
        CommandRejected
    """
    if not is_known(connection, device_id):
        raise _unknown_device(device_id)
    expire_requests(connection, now)
    request, new = add_request(connection, key, device_id, order, now, idempotency_key=idempotency_key)
    if new:
        kinds = Counter(type(command).__name__.lower() for command in order.commands)
        told = ", ".join(f"{kind} ×{number}" for kind, number in sorted(kinds.items()))
        note_action(connection, f"queued request {request.request_id} of device {device_id}: {told}")
    return request, new


def request_of(connection: Connection, key: SealingKey, device_id: str, request_id: str) -> OperatorRequest:
    """One request of a device.

    Raises:
        CommandRejected
    """
    request = find_request(connection, key, device_id, request_id)
    if request is None:
        raise _unknown_request(device_id)
    return request


def requests_of(connection: Connection, device_id: str) -> list[dict[str, Any]]:
    """The newest requests of a device, newest first, as JSON without commands.

    Raises:
        CommandRejected
    """
    if not is_known(connection, device_id):
        raise _unknown_device(device_id)
    shown = [show_request(request) for request in list_requests(connection, device_id)]
    return [{name: value for name, value in each.items() if name != "commands"} for each in shown]


def take_back(connection: Connection, device_id: str, request_id: str) -> RequestState:
    """Cancel a request that is not on its way.

    Raises:
        CommandRejected: there is none, or it was sent, or it is over.
    """
    state = cancel_request(connection, device_id, request_id)
    if state is None:
        raise _unknown_request(device_id)
    if state is not RequestState.CANCELLED:
        raise CommandRejected(NOT_CANCELLABLE, f"the request is {state}")
    note_action(connection, f"took back request {request_id} of device {device_id}")
    return state


def show_device(row: DeviceRow) -> dict[str, Any]:
    """A device as JSON."""
    return {
        "deviceId": row.device_id,
        "knownSince": row.known_since.isoformat(),
        "managed": row.managed,
        "peerProfile": row.peer_profile,
        "push": row.push,
        "bootstraps": row.profile,
        "clientAuth": row.client_auth,
        "serverAuth": row.server_auth,
        "seenAt": None if row.seen_at is None else row.seen_at.isoformat(),
        "devInfo": row.dev_info,
    }


def device_of(connection: Connection, device_id: str) -> DeviceRow:
    """One device.

    Raises:
        CommandRejected
    """
    row = find_device(connection, device_id)
    if row is None:
        raise _unknown_device(device_id)
    return row


def _unknown_device(device_id: str) -> CommandRejected:
    return CommandRejected(UNKNOWN_DEVICE, f"{device_id} is not known", hint="dmserver devices add")


def _unknown_request(device_id: str) -> CommandRejected:
    return CommandRejected(UNKNOWN_REQUEST, "no such request of this device", hint=f"dmserver device {device_id} list")
