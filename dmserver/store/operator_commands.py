"""The queue of operator commands in the database. Commands, outcomes and alerts are sealed: they may carry secrets.

A request moves by its present state and the number of its attempt: two sessions, or a session and an operator, never
both move it.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, update

from actor_runtime.sealing import SealingKey
from dmserver.answers import node_key
from dmserver.operator_commands import (
    OVER,
    CommandRecord,
    CommandRejected,
    Grouping,
    ItemCode,
    OperatorRequest,
    Outcome,
    RequestOrder,
    RequestState,
    ResultValue,
    dump_command,
    dump_value,
    load_command,
    load_value,
)
from dmserver.operator_outcomes import judge
from dmserver.store.accounts import aware, naive
from dmserver.store.tables import operator_commands, operator_requests
from syncml.model import Exec

MAX_WAITING: Final = 1000  # requests of one device that are not over
MAX_ATTEMPTS: Final = 3  # of a request that may be repeated
SENT_GRACE: Final = timedelta(hours=1)  # after its life, for a request on its way: no session lasts so long
UNKNOWN_OUTCOME: Final = "unknown outcome: the session ended before the device answered"

_PENDING: Final = [state.value for state in RequestState if state not in OVER]


class RequestConflict(Exception):
    """Somebody else moved the request since it was read; nothing was written."""


def add_request(
    connection: Connection,
    key: SealingKey,
    device_id: str,
    order: RequestOrder,
    now: datetime,
    *,
    idempotency_key: str | None = None,
) -> tuple[OperatorRequest, bool]:
    """Queue a request of a known device; a repeated idempotency key gives the request it made, and False.

    Raises:
        CommandRejected: the queue is full.
    """
    if idempotency_key is not None:
        row = connection.execute(
            select(operator_requests).where(
                operator_requests.c.device_id == device_id, operator_requests.c.idempotency_key == idempotency_key
            )
        ).first()
        if row is not None:
            return _request(connection, key, row), False
    pending = connection.execute(
        select(func.count())
        .select_from(operator_requests)
        .where(operator_requests.c.device_id == device_id, operator_requests.c.state.in_(_PENDING))
    ).scalar_one()
    if pending >= MAX_WAITING:
        raise CommandRejected("queue-full", f"{MAX_WAITING} requests of this device wait already")
    last = connection.execute(
        select(func.max(operator_requests.c.number)).where(operator_requests.c.device_id == device_id)
    ).scalar_one_or_none()
    request = OperatorRequest(
        request_id=str(uuid.uuid4()),
        device_id=device_id,
        number=(last or 0) + 1,
        grouping=order.grouping,
        idempotent=order.idempotent,
        created_at=now,
        expires_at=now + timedelta(seconds=order.expires_in_s),
        commands=tuple(CommandRecord(command=command) for command in order.commands),
    )
    connection.execute(
        insert(operator_requests).values(
            request_id=request.request_id,
            device_id=device_id,
            number=request.number,
            state=request.state.value,
            grouping=request.grouping.value,
            idempotent=request.idempotent,
            attempt=0,
            created_at=naive(request.created_at),
            expires_at=naive(request.expires_at),
            detail="",
            idempotency_key=idempotency_key,
        )
    )
    for position, record in enumerate(request.commands):
        connection.execute(
            insert(operator_commands).values(
                request_id=request.request_id,
                position=position,
                document=_seal(key, "document", request.request_id, position, dump_command(record.command)),
            )
        )
    return request, True


def find_request(connection: Connection, key: SealingKey, device_id: str, request_id: str) -> OperatorRequest | None:
    """One request of a device, with its commands."""
    row = connection.execute(
        select(operator_requests).where(
            operator_requests.c.request_id == request_id, operator_requests.c.device_id == device_id
        )
    ).first()
    return None if row is None else _request(connection, key, row)


def list_requests(connection: Connection, device_id: str, *, limit: int = 100) -> list[OperatorRequest]:
    """The newest requests of a device, newest first, without their commands."""
    rows = connection.execute(
        select(operator_requests)
        .where(operator_requests.c.device_id == device_id)
        .order_by(operator_requests.c.number.desc())
        .limit(limit)
    )
    return [_header(row) for row in rows]


def has_work(connection: Connection, device_id: str, now: datetime) -> bool:
    """Whether anything of the queue concerns the device still: it is let in for that."""
    found = connection.execute(
        select(operator_requests.c.request_id)
        .where(
            operator_requests.c.device_id == device_id,
            operator_requests.c.state.in_(_PENDING),
            operator_requests.c.expires_at > naive(now),
        )
        .limit(1)
    )
    return found.first() is not None


def cancel_request(connection: Connection, device_id: str, request_id: str) -> RequestState | None:
    """Take a request back that was not sent, or whose late result is waited for; the state it has now, None without it.

    One that is on its way cannot be called back: its state stays.
    """
    connection.execute(
        update(operator_requests)
        .where(
            operator_requests.c.request_id == request_id,
            operator_requests.c.device_id == device_id,
            operator_requests.c.state.in_([RequestState.QUEUED.value, RequestState.WAITING.value]),
        )
        .values(state=RequestState.CANCELLED.value, detail="cancelled by the operator")
    )
    state = connection.execute(
        select(operator_requests.c.state).where(
            operator_requests.c.request_id == request_id, operator_requests.c.device_id == device_id
        )
    ).scalar_one_or_none()
    return None if state is None else RequestState(state)


# --- sessions ---------------------------------------------------------------------------------------------------------


def recover_requests(connection: Connection, key: SealingKey, device_id: str) -> list[OperatorRequest]:
    """A new session of the device begins: settle what an earlier one sent and heard no answer to.

    What may be repeated waits again, in its old place; of all else nobody knows whether it was done, so it is not done
    twice but reported. Returns the requests as they are now.
    """
    rows = connection.execute(
        select(operator_requests).where(
            operator_requests.c.device_id == device_id, operator_requests.c.state == RequestState.SENT.value
        )
    ).all()
    recovered = []
    for row in rows:
        request = _request(connection, key, row)
        again = request.repeatable and request.attempt < MAX_ATTEMPTS
        state = RequestState.QUEUED if again else RequestState.FAILED
        detail = "" if again else UNKNOWN_OUTCOME
        if _move(connection, row.request_id, RequestState.SENT, row.attempt, {"state": state.value, "detail": detail}):
            recovered.append(dataclasses.replace(request, state=state, detail=detail))
    return recovered


def next_request(connection: Connection, key: SealingKey, device_id: str, now: datetime) -> OperatorRequest | None:
    """The first request that waits to be sent."""
    row = connection.execute(
        select(operator_requests)
        .where(
            operator_requests.c.device_id == device_id,
            operator_requests.c.state == RequestState.QUEUED.value,
            operator_requests.c.expires_at > naive(now),
        )
        .order_by(operator_requests.c.number)
        .limit(1)
    ).first()
    return None if row is None else _request(connection, key, row)


def mark_sent(connection: Connection, request: OperatorRequest) -> OperatorRequest:
    """The request is about to leave.

    Raises:
        RequestConflict: it was cancelled, or another session has taken it.
    """
    sent = dataclasses.replace(request, state=RequestState.SENT, attempt=request.attempt + 1)
    values = {"state": sent.state.value, "attempt": sent.attempt}
    if not _move(connection, request.request_id, RequestState.QUEUED, request.attempt, values):
        raise RequestConflict(request.request_id)
    return sent


def settle_request(connection: Connection, key: SealingKey, request: OperatorRequest) -> OperatorRequest:
    """The device has answered: keep what it said; a generic alert that came before the Status counts now.

    Raises:
        RequestConflict: another session of the device has begun meanwhile and settled it otherwise.
    """
    early = {
        row.position: _load_values(_open(key, "alert", request.request_id, row.position, row.alert))
        for row in connection.execute(
            select(operator_commands.c.position, operator_commands.c.alert).where(
                operator_commands.c.request_id == request.request_id, operator_commands.c.alert.is_not(None)
            )
        )
    }
    records = tuple(
        dataclasses.replace(record, alert=early.get(position, ())) for position, record in enumerate(request.commands)
    )
    settled = judge(dataclasses.replace(request, commands=records))
    values = {"state": settled.state.value, "code": settled.code, "detail": settled.detail}
    if not _move(connection, request.request_id, RequestState.SENT, request.attempt, values):
        raise RequestConflict(request.request_id)
    for position, record in enumerate(settled.commands):
        if record.outcome is not None:
            connection.execute(
                update(operator_commands)
                .where(operator_commands.c.request_id == request.request_id, operator_commands.c.position == position)
                .values(
                    code=record.outcome.code,
                    outcome=_seal(key, "outcome", request.request_id, position, _dump_outcome(record.outcome)),
                )
            )
    return settled


def refuse_request(connection: Connection, request: OperatorRequest, code: int, detail: str) -> None:
    """A queued request that cannot be sent at all.

    Raises:
        RequestConflict
    """
    values = {"state": RequestState.FAILED.value, "code": code, "detail": detail}
    if not _move(connection, request.request_id, RequestState.QUEUED, request.attempt, values):
        raise RequestConflict(request.request_id)


def take_alert(
    connection: Connection, key: SealingKey, device_id: str, correlator: str | None, items: tuple[ResultValue, ...]
) -> OperatorRequest | None:
    """A generic alert came: end the asynchronous Exec it belongs to; the request as it is now, None without one.

    It belongs to the Exec with its correlator; without one, to the oldest whose node is that of the alert, or below it.
    It may come before the Status of the Exec, in a later session, and after a restart.
    """
    rows = connection.execute(
        select(operator_requests)
        .where(
            operator_requests.c.device_id == device_id,
            operator_requests.c.state.in_([RequestState.SENT.value, RequestState.WAITING.value]),
        )
        .order_by(operator_requests.c.number)
    ).all()
    for row in rows:
        request = _request(connection, key, row)
        for position, record in enumerate(request.commands):
            if record.alert or not _belongs(record, request.state, correlator, items):
                continue
            connection.execute(
                update(operator_commands)
                .where(operator_commands.c.request_id == row.request_id, operator_commands.c.position == position)
                .values(alert=_seal(key, "alert", row.request_id, position, _dump_values(items)))
            )
            if request.state is RequestState.SENT:
                return request
            records = list(request.commands)
            records[position] = dataclasses.replace(record, alert=items)
            ended = judge(dataclasses.replace(request, commands=tuple(records)))
            values = {"state": ended.state.value, "code": ended.code, "detail": ended.detail}
            moved = _move(connection, row.request_id, RequestState.WAITING, row.attempt, values)
            return ended if moved else None  # cancelled at this very moment
    return None


def _belongs(
    record: CommandRecord, state: RequestState, correlator: str | None, items: tuple[ResultValue, ...]
) -> bool:
    command = record.command
    if not isinstance(command, Exec):
        return False
    if state is RequestState.WAITING and (record.outcome is None or record.outcome.code != 202):
        return False
    if correlator is not None:
        return command.correlator == correlator
    target = node_key(command.items[0].target or "")
    sources = [node_key(item.uri) for item in items if item.uri]
    return any(target == source or target.startswith(f"{source}/") for source in sources)


def expire_requests(connection: Connection, now: datetime) -> int:
    """End every request whose time is over; their number."""
    moved = connection.execute(
        update(operator_requests)
        .where(
            operator_requests.c.expires_at <= naive(now),
            operator_requests.c.state.in_([RequestState.QUEUED.value, RequestState.WAITING.value]),
        )
        .values(state=RequestState.EXPIRED.value, detail="its time was over")
    ).rowcount
    moved += connection.execute(
        update(operator_requests)
        .where(
            operator_requests.c.expires_at <= naive(now - SENT_GRACE),
            operator_requests.c.state == RequestState.SENT.value,
        )
        .values(state=RequestState.FAILED.value, detail=UNKNOWN_OUTCOME)
    ).rowcount
    return moved


# --- rows -------------------------------------------------------------------------------------------------------------


def _move(
    connection: Connection, request_id: str, before: RequestState, attempt: int, values: Mapping[str, object]
) -> bool:
    result = connection.execute(
        update(operator_requests)
        .where(
            operator_requests.c.request_id == request_id,
            operator_requests.c.state == before.value,
            operator_requests.c.attempt == attempt,
        )
        .values(dict(values))
    )
    return result.rowcount == 1


def _header(row: Row[Any]) -> OperatorRequest:
    return OperatorRequest(
        request_id=row.request_id,
        device_id=row.device_id,
        number=row.number,
        state=RequestState(row.state),
        grouping=Grouping(row.grouping),
        idempotent=row.idempotent,
        attempt=row.attempt,
        created_at=aware(row.created_at),
        expires_at=aware(row.expires_at),
        code=row.code,
        detail=row.detail,
        commands=(),
    )


def _request(connection: Connection, key: SealingKey, row: Row[Any]) -> OperatorRequest:
    commands = connection.execute(
        select(operator_commands)
        .where(operator_commands.c.request_id == row.request_id)
        .order_by(operator_commands.c.position)
    )
    records = tuple(_record(key, each) for each in commands)
    return dataclasses.replace(_header(row), commands=records)


def _record(key: SealingKey, row: Row[Any]) -> CommandRecord:
    place = row.request_id, row.position
    return CommandRecord(
        command=load_command(_open(key, "document", *place, row.document)),
        outcome=None if row.outcome is None else _load_outcome(_open(key, "outcome", *place, row.outcome)),
        alert=() if row.alert is None else _load_values(_open(key, "alert", *place, row.alert)),
    )


def _place(column: str, request_id: str, position: int) -> bytes:
    return f"dmserver|operator_commands|{column}|{request_id}|{position}".encode()


def _seal(key: SealingKey, column: str, request_id: str, position: int, document: object) -> bytes:
    # Text of a device may hold what UTF-8 does not: JSON spells it in ASCII.
    return key.seal(json.dumps(document).encode("ascii"), _place(column, request_id, position))


def _open(key: SealingKey, column: str, request_id: str, position: int, sealed: bytes) -> Any:  # noqa: ANN401 (JSON)
    return json.loads(key.open(sealed, _place(column, request_id, position)))


def _dump_outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "code": outcome.code,
        "items": [[item.uri, item.code] for item in outcome.items],
        "results": _dump_values(outcome.results),
    }


def _load_outcome(document: dict[str, Any]) -> Outcome:
    return Outcome(
        code=document["code"],
        items=tuple(ItemCode(uri=uri, code=code) for uri, code in document["items"]),
        results=_load_values(document["results"]),
    )


def _dump_values(values: Iterable[ResultValue]) -> list[dict[str, Any]]:
    return [
        {"uri": each.uri, "format": each.format, "type": each.type, "truncated": each.truncated}
        | dump_value(each.value)
        for each in values
    ]


def _load_values(documents: list[dict[str, Any]]) -> tuple[ResultValue, ...]:
    return tuple(
        ResultValue(
            uri=each["uri"],
            format=each["format"],
            type=each["type"],
            truncated=each["truncated"],
            value=load_value(each) or "",
        )
        for each in documents
    )
