"""Errors of the SyncML library: whose fault it is, and which Status answers it."""

from __future__ import annotations

from typing import ClassVar

from syncml.codes import StatusCode


class SyncMLError(Exception):
    """Root of all errors of this package; never raised itself."""


class LocalProtocolError(SyncMLError):
    """Our own caller asked for what the specification forbids: fix the caller."""


class RemoteProtocolError(SyncMLError):
    """The peer broke the protocol; Status `code` to its command `cmd_ref` answers it.

    The text is for our log and never goes to the peer.
    """

    code: ClassVar[int] = StatusCode.BAD_REQUEST

    def __init__(self, reason: str, *, cmd_ref: str = "0") -> None:
        super().__init__(reason)
        self.cmd_ref = cmd_ref


class MalformedMessage(RemoteProtocolError):
    """Octets that are no SyncML message: not well-formed, a DTD or entity, over a limit, or a missing element."""


class MalformedHmac(RemoteProtocolError):
    """A transport header `x-syncml-hmac` outside of its grammar; it proves nothing and counts as a wrong one."""

    code = StatusCode.INVALID_CREDENTIALS


class MessageTooLarge(MalformedMessage):
    """A message or value over our announced limit (octets)."""

    code = StatusCode.REQUEST_ENTITY_TOO_LARGE


class PeerLimitTooSmall(RemoteProtocolError):
    """A `MaxMsgSize` that no answer of ours can keep to (octets)."""

    code = StatusCode.REQUEST_ENTITY_TOO_LARGE


class OutOfOrder(RemoteProtocolError):
    """A message of another session or device, or an old one; the session it does not belong to goes on."""


class CommandOutOfPhase(RemoteProtocolError):
    """A known command that is not legal now."""

    code = StatusCode.COMMAND_NOT_ALLOWED


class MalformedUri(RemoteProtocolError):
    """A node URI that breaks OMA-TS-DM_TND-V1_2 §6: empty segment, `..`, leading or trailing slash."""

    code = StatusCode.NOT_FOUND


class MalformedAcl(RemoteProtocolError):
    """An ACL value outside the grammar of OMA-TS-DM_TND-V1_2 §7.7.1."""
