"""The queue of operator commands as a session policy: one request at a time, in order, each settled before the next.

"Sent" is on disk before a request leaves, and its outcome before the next one does. A request that cannot be sent, that
the device refuses or that it never answers ends alone; the queue goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import Connection

from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from dmserver.operator_commands import OperatorRequest, to_wire
from dmserver.operator_outcomes import settle
from dmserver.policy import DeviceAlert
from dmserver.session_policy import Place
from dmserver.store.operator_commands import (
    RequestConflict,
    mark_sent,
    next_request,
    recover_requests,
    refuse_request,
    settle_request,
)
from syncml.codec import Encoding, encode
from syncml.codes import StatusCode
from syncml.errors import LocalProtocolError
from syncml.model import Atomic, Command, Message, SyncHdr
from syncml.model import Sequence as SequenceCommand
from syncml.policy import Abort, Continue, Decision, Finish
from syncml.session import CommandAnswered

MAX_REQUESTS: Final = 250  # in one session; the rest waits for the next
OPERATOR_STEP: Final = "-"  # of the trail: no step of TR 33.812

_log = structlog.get_logger(__name__)


class OperatorQueue:
    """Policy of one session for the queue of one device."""

    def __init__(
        self, device_id: str, *, store: Store, seal_key: SealingKey, encoding: Encoding, now: Callable[[], datetime]
    ) -> None:
        self._device_id = device_id
        self._store = store
        self._seal_key = seal_key
        self._encoding = encoding
        self._now = now
        self._request: OperatorRequest | None = None  # on its way
        self._begun = 0

    @property
    def place(self) -> Place:
        """No step and no order."""
        return Place(OPERATOR_STEP)

    async def begin(self, alerts: tuple[DeviceAlert, ...]) -> Decision:
        """Settle what an earlier session left open, then send the first request."""

        def recover(connection: Connection) -> list[OperatorRequest]:
            return recover_requests(connection, self._seal_key, self._device_id)

        for request in await self._store.write(recover):
            _log.info("operator.recovered", request=request.request_id, state=request.state)
        return await self._next()

    async def answered(self, answered: Sequence[CommandAnswered], alerts: tuple[DeviceAlert, ...]) -> Decision:
        """Keep the outcome of the request on its way, then send the next."""
        if self._request is not None:
            heard, self._request = settle(self._request, answered), None

            def write(connection: Connection) -> OperatorRequest:
                return settle_request(connection, self._seal_key, heard)

            try:
                settled = await self._store.write(write)
            except RequestConflict:
                return Abort(reason="another session of the device has begun and settled the request")
            _log.info("operator.answered", request=settled.request_id, state=settled.state, code=settled.code)
        return await self._next()

    async def _next(self) -> Decision:
        while self._begun < MAX_REQUESTS:
            waiting = await self._store.read(
                lambda connection: next_request(connection, self._seal_key, self._device_id, self._now())
            )
            if waiting is None:
                break
            self._begun += 1
            try:
                if self._encodable(waiting):
                    self._request = await self._send(waiting)
                    return Continue(to_wire(self._request))
                await self._refuse(waiting)
            except RequestConflict:
                continue  # cancelled a moment ago, or taken by another session: look again
        return Finish()

    async def _send(self, request: OperatorRequest) -> OperatorRequest:
        return await self._store.write(lambda connection: mark_sent(connection, request))

    async def _refuse(self, request: OperatorRequest) -> None:
        code, detail = int(StatusCode.BAD_REQUEST), f"cannot be written in {self._encoding.name}; not sent"
        _log.info("operator.not_encodable", request=request.request_id)
        await self._store.write(lambda connection: refuse_request(connection, request, code, detail))

    def _encodable(self, request: OperatorRequest) -> bool:
        """Whether the codec can carry it: XML has no control characters, for example."""
        header = SyncHdr(session_id="1", msg_id="1", target=self._device_id, source="-")
        try:
            encode(Message(header=header, commands=_numbered(to_wire(request)), final=True), self._encoding)
        except LocalProtocolError:
            return False
        return True


def _numbered(commands: tuple[Command, ...]) -> tuple[Command, ...]:
    """With some CmdID each, as a strict writer wants them; which does not matter here."""
    numbered: list[Command] = []
    for command in commands:
        if isinstance(command, Atomic | SequenceCommand):
            command = dataclasses.replace(command, commands=_numbered(command.commands))
        numbered.append(dataclasses.replace(command, cmd_id="1"))
    return tuple(numbered)
