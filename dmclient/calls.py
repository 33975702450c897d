"""Sessions that somebody outside asked for: by a notification, or by a bootstrap that brought a new server.

They wait while another session runs, and survive a restart. A trigger seen once starts one session, however often it
comes; one whose session failed counts as not seen, so that the server's repetition finds us (OMA-TS-DM_Notification
§5.2.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import structlog

from syncml.notification import UiMode

MAX_WAITING: Final = 16  # calls; more are dropped, and their servers may call again
MAX_SEEN: Final = 256  # triggers remembered, newest last

_log = structlog.get_logger(__name__)

Confirm: TypeAlias = Callable[[str], Awaitable[bool | None]]
"""Asks the user a question; None: no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One session to be."""

    server_id: str
    session_id: str | None = None  # of the trigger, as it goes into messages; None: client-initiated, after a bootstrap
    resync: bool = False  # the trigger was under the special nonce
    ui_mode: UiMode = UiMode.NOT_SPECIFIED

    @property
    def key(self) -> str:
        """What makes a trigger the same again."""
        return f"{self.session_id or ''} {self.server_id}"


@dataclass(slots=True)
class CallMemory:
    """What must survive a restart."""

    seen: list[str] = field(default_factory=list)
    waiting: list[Call] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "seen": list(self.seen),
            "waiting": [
                {
                    "server": each.server_id,
                    "session": each.session_id,
                    "resync": each.resync,
                    "uiMode": int(each.ui_mode),
                }
                for each in self.waiting
            ],
        }

    @classmethod
    def load(cls, data: dict[str, Any]) -> CallMemory:
        """What `dump` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        return cls(
            seen=[str(each) for each in data["seen"]],
            waiting=[
                Call(
                    server_id=str(each["server"]),
                    session_id=None if each["session"] is None else str(each["session"]),
                    resync=bool(each["resync"]),
                    ui_mode=UiMode(each["uiMode"]),
                )
                for each in data["waiting"]
            ],
        )


class CallQueue:
    """Calls that wait, oldest first. The caller saves after `add`; the queue saves what it does itself."""

    def __init__(self, memory: CallMemory, save: Callable[[], None]) -> None:
        self._memory = memory
        self._save = save
        self._arrived = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether no more calls are taken."""
        return len(self._memory.waiting) >= MAX_WAITING

    def seen(self, call: Call) -> bool:
        """Whether this trigger came before."""
        return call.session_id is not None and call.key in self._memory.seen

    def add(self, call: Call) -> None:
        """Take a call. One that is to be client-initiated waits once for each server."""
        if call in self._memory.waiting:
            return
        if call.session_id is not None:
            self._memory.seen = [*self._memory.seen, call.key][-MAX_SEEN:]
        self._memory.waiting.append(call)
        self._arrived.set()

    def forget_server(self, server_id: str) -> None:
        """The account was replaced: triggers of the old one cannot come again, and their calls are void."""
        self._memory.seen = [each for each in self._memory.seen if each.partition(" ")[2] != server_id]
        self._memory.waiting = [each for each in self._memory.waiting if each.server_id != server_id]

    def checkpoint(self) -> Callable[[], None]:
        """What takes back everything that happens to the queue from here on, should it not be saved."""
        seen, waiting = list(self._memory.seen), list(self._memory.waiting)

        def restore() -> None:
            self._memory.seen, self._memory.waiting = seen, waiting

        return restore

    def first(self, server_id: str | None = None) -> Call | None:
        """The call that waits longest, of that server or of any."""
        return next((each for each in self._memory.waiting if server_id in (None, each.server_id)), None)

    def done(self, call: Call) -> None:
        """The session took place, or the user did not want it."""
        self._drop(call)

    def failed(self, call: Call) -> None:
        """The session did not take place: the same trigger is welcome again."""
        self._memory.seen = [each for each in self._memory.seen if each != call.key]
        self._drop(call)

    def _drop(self, call: Call) -> None:
        if call in self._memory.waiting:
            self._memory.waiting.remove(call)
        self._save()

    async def wait(self) -> Call:
        """The call that waits longest, as soon as there is one; it stays in the queue until `done` or `failed`."""
        while (call := self.first()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return call

    async def pause(self, seconds: float) -> None:
        """Sleep, but not while somebody calls."""
        if self.first() is not None:
            return
        self._arrived.clear()
        try:
            await asyncio.wait_for(self._arrived.wait(), seconds)
        except TimeoutError:
            return


class Consent:
    """Whether a session may start: the user decides when the server asks for it, a setting when there is no user."""

    def __init__(self, confirm: Confirm | None = None, *, default: bool = True, wait_s: float = 60.0) -> None:
        self._confirm = confirm
        self._default = default
        self._wait_s = wait_s

    async def given(self, call: Call) -> bool:
        """Ask, inform, or neither, as the trigger recommends (OMA-TS-DM_Notification-V1_2 §5.2.3)."""
        if call.ui_mode is UiMode.INFORMATIVE:
            _log.info("call.inform_user", server_id=call.server_id)
        if call.ui_mode is not UiMode.USER_INTERACTION:
            return True
        answer: bool | None = None
        if self._confirm is not None:
            try:
                question = f"{call.server_id} wants to manage this device. Allow it?"
                answer = await asyncio.wait_for(self._confirm(question), self._wait_s)
            except TimeoutError:
                answer = None
        allowed = self._default if answer is None else answer
        _log.info("call.user_interaction", server_id=call.server_id, asked=self._confirm is not None, allowed=allowed)
        return allowed
