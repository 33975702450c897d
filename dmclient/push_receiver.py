"""What reaches the device outside of a session: bootstraps and notifications, by WAP push or HTTP, told apart here.

The content type decides (OMA-TS-DM_Notification-V1_2 §6.2, ProvBoot 1.1 §5). A device that is no WAP device looks at
port 2948 all the same, and leaves what is for other applications alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import structlog

from dmclient.bootstrap_receiver import BootstrapReceiver, Verdict
from dmclient.notification_receiver import NotificationReceiver, NotificationVerdict
from syncml.codes import MediaType
from syncml.http_push import NESTED, parse_nested
from syncml.wap_push import (
    APPLICATION_SYNCML_DM,
    APPLICATION_SYNCML_DM_NAME,
    MalformedPush,
    WapPush,
    parse_push,
    push_over_http,
)

_OURS: Final = (None, APPLICATION_SYNCML_DM, APPLICATION_SYNCML_DM_NAME)
_BOOTSTRAP_TYPES: Final = (MediaType.CONNECTIVITY_WBXML, MediaType.CONNECTIVITY_XML, MediaType.DM_WBXML)
NOT_OURS: Final = "not-ours"
MALFORMED: Final = "malformed-push"

_log = structlog.get_logger(__name__)


class PushReceiver:
    """One entrance for all pushes. `counts` says how often each verdict was given."""

    def __init__(self, *, bootstraps: BootstrapReceiver, notifications: NotificationReceiver) -> None:
        self._bootstraps = bootstraps
        self._notifications = notifications
        self.counts: Counter[str] = Counter()

    def datagram(self, octets: bytes) -> str:
        """Take a WAP push datagram; returns the verdict. Nothing of a sender's making raises."""
        try:
            return self.push(parse_push(octets))
        except MalformedPush as error:
            return self._counted(MALFORMED, str(error))

    def http(self, content_type: str, body: bytes, application_id: str | None = None) -> str:
        """Take the body of an HTTP push, or the response inside it."""
        try:
            if content_type.partition(";")[0].strip().lower() == NESTED:
                return self.push(parse_nested(body))
            return self.push(push_over_http(content_type, body, application_id=application_id))
        except MalformedPush as error:
            return self._counted(MALFORMED, str(error))

    def push(self, push: WapPush) -> str:
        """Route a push. A bootstrap needs no application id, a notification may have none but ours."""
        application = push.application_id
        if isinstance(application, str):
            application = application.strip().lower()
        verdict: Verdict | NotificationVerdict
        if application not in _OURS:
            return self._counted(NOT_OURS, f"application {application}")
        if push.content_type == MediaType.NOTIFICATION:
            verdict = self._notifications.receive(push.body)
        elif push.content_type in _BOOTSTRAP_TYPES:
            verdict = self._bootstraps.take(push)
        else:
            return self._counted(NOT_OURS, f"content type {push.content_type}")
        self.counts[verdict.value] += 1
        return verdict.value

    def _counted(self, verdict: str, detail: str) -> str:
        self.counts[verdict] += 1
        _log.info("push", verdict=verdict, detail=detail[:200])
        return verdict
