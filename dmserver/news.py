"""Client events (1224) and generic alerts (1226): which ones mean something here, and what the others are told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dmserver.policy import DeviceAlert
from mo_definitions import AlertType
from syncml.codes import AlertCode, StatusCode
from syncml.model import Alert

_PREFIXES: Final = ("reversed-domain-name:", "content-type:")

WINDOWS_TYPES: Final = frozenset(
    {
        "com.microsoft/mdm/loginstatus",
        "com.microsoft/mdm/aadusertoken",
        "com.microsoft/mdm/devicepresync",
        "com.microsoft/mdm/deviceprepsync",
        "com.microsoft/mdm/synctype",
        "com.microsoft:mdm.unenrollment.userrequest",
        "com.microsoft.mdm.win32csp_install",
        "com.microsoft.mdm.declaredconfigurationdocuments",
    }
)
"""What a Windows client tells in package 1 and later (MS-MDM, captures)."""


class UnknownTypes(StrEnum):
    """What a generic alert of a Type that nobody here knows is answered."""

    ACCEPT = "accept"  # 200: friendlier, and it is in the trail
    REFUSE = "refuse"  # 415, the letter of OMA-TS-DM_Protocol-V1_2 §8.7


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRules:
    """Which alerts mean something to this DPF."""

    types: frozenset[str] = frozenset()  # of others than ours, as `plain_type` gives them
    unknown: UnknownTypes = UnknownTypes.ACCEPT

    def code_for(self, alert: Alert, *, awaited: bool, windows: bool) -> StatusCode:
        """Status of a client event or generic alert. `awaited`: it ended an asynchronous Exec."""
        if not alert.items:
            return StatusCode.INCOMPLETE_COMMAND
        known = all(
            plain_type(item.meta.type if item.meta is not None else None) in self._known(windows)
            for item in alert.items
        )
        if known or awaited:
            return StatusCode.OK
        if alert.code == AlertCode.CLIENT_EVENT:
            return StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED
        refused = self.unknown is UnknownTypes.REFUSE
        return StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT if refused else StatusCode.OK

    def _known(self, windows: bool) -> frozenset[str]:
        return _OURS | self.types | (WINDOWS_TYPES if windows else frozenset())


def plain_type(kind: str | None) -> str:
    """A Type without the prefix that most devices leave out, in lower case."""
    text = (kind or "").strip().lower()
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix).strip()
    return text


_OURS: Final = frozenset(plain_type(kind) for kind in AlertType)


def device_alerts(alert: Alert) -> list[DeviceAlert]:
    """Items of a generic alert; other alerts mean nothing to a policy."""
    if alert.code != AlertCode.GENERIC_ALERT:
        return []
    return [
        DeviceAlert(
            type=(item.meta.type or "").strip() if item.meta is not None else "",
            source=item.source,
            data=item.data if isinstance(item.data, str) else "",
            correlator=alert.correlator,
        )
        for item in alert.items
    ]
