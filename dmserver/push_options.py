"""Words and files of the command line for bootstraps and notifications."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from actor_runtime.errors import ActorError, ConfigError
from syncml.codes import AuthType
from syncml.notification import Initiator, UiMode


class AuthName(StrEnum):
    """Authentication types by their short names."""

    BASIC = "basic"
    MD5 = "md5"
    HMAC = "hmac"

    @property
    def auth_type(self) -> AuthType:
        """The type."""
        return {AuthName.BASIC: AuthType.BASIC, AuthName.MD5: AuthType.MD5, AuthName.HMAC: AuthType.MAC}[self]


class UiModeName(StrEnum):
    """Modes of user interaction."""

    NOT_SPECIFIED = "not-specified"
    BACKGROUND = "background"
    INFORMATIVE = "informative"
    USER_INTERACTION = "user-interaction"

    @property
    def mode(self) -> UiMode:
        """The value in the notification."""
        return UiMode[self.name]


class InitiatorName(StrEnum):
    """Who wants the session."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def initiator(self) -> Initiator:
        """The value in the notification."""
        return Initiator[self.name]


def session_number(text: str | None) -> int | None:
    """A SessionID as it stands in messages.

    Raises:
        ActorError: it is not 1 to FFFF.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[0-9A-Fa-f]{1,4}", text) or int(text, 16) == 0:
        raise ActorError("--session-id is no SessionID", hint="hexadecimal, 1 to FFFF")
    return int(text, 16)


def read_imsi(path: Path) -> str:
    """The IMSI in a file, which is not kept.

    Raises:
        ConfigError: unreadable, or no IMSI in it.
    """
    try:
        imsi = path.read_text(encoding="ascii").strip()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not ASCII") from exc
    if not re.fullmatch(r"[0-9]{6,15}", imsi):
        raise ConfigError(f"{path}: no IMSI", hint="6 to 15 digits")
    return imsi
