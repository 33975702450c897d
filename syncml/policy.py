"""What a server does next in a session, as a value: the engine obeys and never decides."""

from __future__ import annotations

from dataclasses import dataclass

from syncml.model import Command


@dataclass(frozen=True, slots=True)
class Continue:
    """Send these commands as the next package; the device's answers come back in the same order."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more: the session ends with an empty package."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Something is wrong: the session ends with Alert 1223. The reason is for our log and not sent."""

    reason: str


Decision = Continue | Finish | Abort
