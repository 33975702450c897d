"""Root of the errors that end a command line with exit status 1 and a hint, not a traceback."""

from __future__ import annotations


class ActorError(Exception):
    """What the person at the command line can put right; `hint` says how."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(ActorError):
    """A setting is missing, unknown or unusable; the text names file and key."""


class UnsealError(ActorError):
    """Sealed octets do not open: changed, moved to another place, or sealed with another key."""


class StoreError(ActorError):
    """The database cannot be opened, or a commit failed."""
