"""Generic alerts that wait until the server has taken them (OMA-TS-DM_Protocol-V1_2 §8.7; REQ-67).

An alert only announces; the proof is the receipt the server reads afterwards. So sending one twice does no harm,
and losing one would: an alert leaves the queue when the server has taken it, not when it was sent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from mcim.vocabulary import ResultCode
from mo_definitions import AlertType
from mo_definitions.m2m import M2MNode
from syncml.codes import AlertCode, Format
from syncml.model import UNASSIGNED, Alert, Item, Meta

DONE: Final = frozenset({ResultCode.SUCCESS, ResultCode.ALREADY_DONE})
MAX_PENDING: Final = 32  # alerts; the oldest goes first


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingAlert:
    """One alert as it will be sent."""

    type: str  # `Meta/Type`: an AlertType, or whatever the object concerned calls its alerts
    source: str  # URI of the node concerned
    format: str
    data: str
    mark: str = "informational"
    correlator: str | None = None
    server_id: str | None = None  # of the server that asked for it; None: any server may have it

    def is_for(self, server_id: str | None) -> bool:
        """Whether that server may have it; None asks for no server in particular."""
        return server_id is None or self.server_id in (None, server_id)

    def to_alert(self) -> Alert:
        """The command for package 1."""
        return Alert(
            code=AlertCode.GENERIC_ALERT,
            correlator=self.correlator,
            items=(
                Item(
                    source=self.source,
                    meta=Meta(format=self.format, type=str(self.type), mark=self.mark),
                    data=self.data,
                ),
            ),
        )


def registration_request(req_id: str, m2m_uri: str) -> PendingAlert:
    """A new request is open in the TRE whose M2MMobj has the URI `m2m_uri`."""
    return PendingAlert(
        type=AlertType.REGISTRATION_REQUEST,
        source=f"{m2m_uri}/{M2MNode.REGISTRATION}",
        format=Format.CHR.value,
        data=req_id,
    )


def nonce_renewed(req_id: str, m2m_uri: str) -> PendingAlert:
    """The request had to be opened anew, because its nonce expired."""
    return PendingAlert(
        type=AlertType.NONCE_RENEWED,
        source=f"{m2m_uri}/{M2MNode.REGISTRATION}",
        format=Format.CHR.value,
        data=req_id,
        mark="warning",
    )


def provisioning_complete(container_uri: str, code: ResultCode, correlator: str | None) -> PendingAlert:
    """A package was consumed, with that result."""
    return PendingAlert(
        type=AlertType.PROVISIONING_COMPLETE,
        source=f"{container_uri}/Operations/Provision",
        format=Format.INT.value,
        data=str(int(code)),
        mark="informational" if code in DONE else "critical",
        correlator=correlator,
    )


def lifecycle_complete(container_uri: str, operation: str, code: ResultCode, correlator: str | None) -> PendingAlert:
    """Activate, Suspend or Delete is done, with that result."""
    return PendingAlert(
        type=AlertType.LIFECYCLE_COMPLETE,
        source=f"{container_uri}/Operations/{operation}",
        format=Format.INT.value,
        data=str(int(code)),
        mark="informational" if code in DONE else "critical",
        correlator=correlator,
    )


def tamper_detected(state: str, m2m_uri: str) -> PendingAlert:
    """The TRE is not in order any more."""
    return PendingAlert(
        type=AlertType.TAMPER_DETECTED,
        source=f"{m2m_uri}/{M2MNode.TRE_STATE}",
        format=Format.CHR.value,
        data=state,
        mark="fatal",
    )


def network_attach(container_uri: str, code: int) -> PendingAlert:
    """The first AKA with a new MCIM; `code` is 1200 or a cause of TS 24.301 §9.9.3.9."""
    mark = "informational" if code == ResultCode.SUCCESS else "warning"
    return PendingAlert(
        type=AlertType.NETWORK_ATTACH, source=container_uri, format=Format.INT.value, data=str(code), mark=mark
    )


class AlertQueue:
    """Alerts not yet taken by the server, oldest first."""

    def __init__(self) -> None:
        self._pending: list[PendingAlert] = []
        self._at_once: list[PendingAlert] = []

    def __len__(self) -> int:
        return len(self._pending)

    def push(self, alert: PendingAlert, *, at_once: bool = False) -> None:
        """Queue an alert. One of the same type and Correlator for the same node is outdated by it and goes.

        `at_once` says that the session under way is to carry it, if there is one still.
        """
        self._pending = [each for each in self._pending if _subject(each) != _subject(alert)]
        self._pending = [*self._pending, alert][-MAX_PENDING:]
        if at_once:
            self._at_once.append(alert)

    def take_urgent(self) -> tuple[Alert, ...]:
        """What the session under way is to carry, each once; the alerts stay queued until they are taken."""
        urgent, self._at_once = self._at_once, []
        return tuple(each.to_alert() for each in urgent)

    def alerts(self, server_id: str | None = None) -> tuple[Alert, ...]:
        """What the next session with that server is to carry; None: all that waits."""
        self._at_once = []
        return tuple(each.to_alert() for each in self._pending if each.is_for(server_id))

    def waits(self, alert_type: str) -> bool:
        """Whether an alert of that type is not taken yet."""
        return any(each.type == alert_type for each in self._pending)

    def forget(self, alert: Alert, server_id: str | None = None) -> str | None:
        """That server took this alert, or never will. Returns its type, None when it is none of ours."""
        plain = replace(alert, cmd_id=UNASSIGNED)
        for each in self._pending:
            if each.is_for(server_id) and each.to_alert() == plain:
                self._pending.remove(each)
                return each.type
        return None

    def dump(self) -> list[dict[str, Any]]:
        """The queue as plain JSON data."""
        return [asdict(each) for each in self._pending]

    def restore(self, data: list[dict[str, Any]]) -> None:
        """What `dump` gave.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        self._pending = [_restored(each) for each in data]


def is_foreign(alert: Alert) -> bool:
    """Whether an alert is none of the scheme's own, so that nothing is proved by its being taken."""
    return all(item.meta is None or item.meta.type not in tuple(AlertType) for item in alert.items)


def _subject(alert: PendingAlert) -> tuple[str, str, str | None, str | None]:
    return alert.type, alert.source, alert.correlator, alert.server_id


def _restored(data: dict[str, Any]) -> PendingAlert:
    texts = {name: data[name] for name in ("type", "source", "format", "data", "mark")}
    correlator, server_id = data["correlator"], data.get("server_id")  # the first version had no server_id
    if not all(isinstance(each, str) for each in (*texts.values(), correlator or "", server_id or "")):
        raise TypeError("an alert consists of texts")
    return PendingAlert(**texts, correlator=correlator, server_id=server_id)
