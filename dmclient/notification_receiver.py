"""Package 0 at the device: from octets to a call, or nowhere (OMA-TS-DM_Notification-V1_2 §5, §6).

Nothing is ever answered, and nothing of a notification is believed but who sent it and which session he wants: the
address is that of the account. What does not prove itself is counted and forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import structlog

from actor_runtime.trail import Trail
from dmclient.calls import Call, CallQueue
from dmclient.dm_account import ServerSecret, server_secret
from dmclient.management_tree import ManagementTree
from syncml.auth import SPECIAL_NONCES
from syncml.notification import MalformedNotification, ReceivedNotification, parse_notification

STEP: Final = "7"

_log = structlog.get_logger(__name__)


class NotificationVerdict(StrEnum):
    """What became of a notification."""

    CALLED = "called"
    RESYNC = "called-under-special-nonce"
    SEEN = "seen-before"
    UNKNOWN_SERVER = "unknown-server"
    WRONG_DIGEST = "wrong-digest"
    MALFORMED = "malformed"
    BUSY = "too-many-calls"


class NotificationReceiver:
    """Judges notifications and queues the calls of the good ones."""

    def __init__(
        self,
        *,
        tree: ManagementTree,
        calls: CallQueue,
        previous_nonce: Callable[[str], bytes | None],
        trail: Trail,
        save: Callable[[], None],
        resync: bool = True,
    ) -> None:
        self._tree = tree
        self._calls = calls
        self._previous_nonce = previous_nonce  # of a server: the nonce before the present one, which it may still use
        self._trail = trail
        self._save = save
        self._resync = resync  # whether the special nonce is tried

    def receive(self, octets: bytes) -> NotificationVerdict:
        """Take one notification. Whatever it is, this returns: nothing of a sender's making raises."""
        try:
            received = parse_notification(octets)
        except MalformedNotification as error:
            return self._ended(NotificationVerdict.MALFORMED, str(error))
        server_id = received.notification.server_id
        secret = server_secret(self._tree.nodes, server_id)
        if secret is None:
            return self._ended(NotificationVerdict.UNKNOWN_SERVER, "no account with credentials of that server")
        verdict = self._judge(received, secret)
        if verdict is NotificationVerdict.WRONG_DIGEST:
            return self._ended(verdict, server_id)
        call = Call(
            server_id=server_id,
            session_id=received.notification.session_id_text,
            resync=verdict is NotificationVerdict.RESYNC,
            ui_mode=received.notification.ui_mode,
        )
        if self._calls.seen(call):
            return self._ended(NotificationVerdict.SEEN, server_id)
        if self._calls.full:
            return self._ended(NotificationVerdict.BUSY, server_id)
        self._trail.message(
            step=STEP,
            direction="DPF→M2ME",
            summary=f"package 0: SessionID {call.session_id}, {call.ui_mode.name.lower().replace('_', ' ')}",
            octets=len(octets),
        )
        self._trail.check(
            "notification-digest", True, req=("REQ-09",), step=STEP, detail="special nonce" if call.resync else ""
        )
        take_back = self._calls.checkpoint()
        self._calls.add(call)
        try:
            self._save()
        except BaseException:  # a call that is not on disk could be answered twice
            take_back()
            raise
        return self._ended(verdict, server_id)

    def _judge(self, received: ReceivedNotification, secret: ServerSecret) -> NotificationVerdict:
        """The stored nonces first, the special one only when they fail (§5.2.1, OMA-TS-DM_Security-V1_2 §5.3.2.2)."""
        previous = self._previous_nonce(received.notification.server_id)
        nonces = [secret.nonce] if previous is None else [secret.nonce, previous]
        if received.is_from_any(secret.secret, nonces):
            return NotificationVerdict.CALLED
        if self._resync and received.is_from_any(secret.secret, SPECIAL_NONCES):
            return NotificationVerdict.RESYNC
        return NotificationVerdict.WRONG_DIGEST

    def _ended(self, verdict: NotificationVerdict, detail: str) -> NotificationVerdict:
        _log.info("notification", verdict=verdict.value, detail=detail)
        return verdict
