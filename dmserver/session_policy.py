"""What is wanted of a device in one session, as a value: who decides what is sent next, and who comes after him."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dmserver.policy import DeviceAlert
from syncml.policy import Continue, Decision, Finish
from syncml.session import CommandAnswered


@dataclass(frozen=True, slots=True)
class Place:
    """Where the trail puts what happens now: step of TR 33.812 §5.1.3.7.1, and the order it belongs to."""

    step: str
    order_id: str | None = None


class SessionPolicy(Protocol):
    """Decides what goes out next. What a decision depends on is in the database when it is returned."""

    @property
    def place(self) -> Place:
        """Where in the trail the session is now."""
        ...

    async def begin(self, alerts: tuple[DeviceAlert, ...]) -> Decision:
        """First decision of the session; `alerts` came with package 1."""
        ...

    async def answered(self, answered: Sequence[CommandAnswered], alerts: tuple[DeviceAlert, ...]) -> Decision:
        """The device answered the commands of the last decision."""
        ...


class InTurn:
    """Several policies in one session: when one has finished, the next begins; an Abort ends them all."""

    def __init__(self, policies: Iterable[SessionPolicy]) -> None:
        self._current, *self._waiting = policies

    @property
    def place(self) -> Place:
        """That of the policy whose turn it is."""
        return self._current.place

    async def begin(self, alerts: tuple[DeviceAlert, ...]) -> Decision:
        """The first policy begins."""
        return await self._next_after(await self._current.begin(alerts), alerts)

    async def answered(self, answered: Sequence[CommandAnswered], alerts: tuple[DeviceAlert, ...]) -> Decision:
        """The policy whose turn it is hears the answers to what it sent."""
        return await self._next_after(await self._current.answered(answered, alerts), alerts)

    async def _next_after(self, decision: Decision, alerts: tuple[DeviceAlert, ...]) -> Decision:
        while self._waiting and (isinstance(decision, Finish) or decision == Continue(())):
            self._current = self._waiting.pop(0)
            decision = await self._current.begin(alerts)
        return decision
