"""Why a bootstrap message is not accepted. Nothing of it is ever answered: a bootstrap has no reply."""

from __future__ import annotations

from enum import StrEnum

from syncml.errors import RemoteProtocolError


class BootstrapReason(StrEnum):
    """Cause, for the device's log and counters."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    MISSING = "missing"  # something an account cannot do without
    DUPLICATE = "duplicate"  # something that may be there once; which one counts would be a guess
    INVALID = "invalid"  # a value outside its range
    UNPROTECTED = "unprotected"  # no MAC, or a kind we have no secret for
    WRONG_MAC = "wrong-mac"


class BootstrapRefused(RemoteProtocolError):
    """A bootstrap message that is discarded (REQ-07, REQ-08)."""

    def __init__(self, reason: BootstrapReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
