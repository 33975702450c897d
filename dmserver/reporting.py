"""Last part of the provisioning policy: report (step 15), attach and fall-back (step 16; REQ-67, REQ-69)."""

from __future__ import annotations

from datetime import datetime

from dmserver import commands
from dmserver.answers import Answers, node_key
from dmserver.asks import Outcome
from dmserver.audit import check, note
from dmserver.orders import Order, OrderState
from dmserver.policy import DeviceAlert, PolicyBase, Rules, Step, Then
from dmserver.reception import check_receipt
from dmserver.settlement import settle_attach, settle_report, tell_sho
from mcim.vocabulary import ResultCode
from mo_definitions import AlertType
from mo_definitions.m2m import ContainerNode, M2MNode
from syncml.policy import Finish

AT_THE_DEVICE = frozenset({OrderState.DELIVERING, OrderState.DELIVERED, OrderState.MISSING, OrderState.REPORTED})


class Reporting(PolicyBase):
    """What follows a receipt. `brought_by` is the order that brought the MCIM which this order is about, if known."""

    def __init__(
        self,
        rules: Rules,
        order: Order,
        *,
        package: bytes | None,
        former_requests: frozenset[str],
        brought_by: Order | None = None,
    ) -> None:
        super().__init__(rules, order, package=package, former_requests=former_requests)
        self._brought_by = brought_by
        self._on_answers |= {Step.ATTACH: self._take_attach_outcome}
        self._on_outcome |= {Step.REPORT: self._take_report}

    # --- report (step 15) ---------------------------------------------------------------------------------------------

    def _report(self) -> Then:
        return self._ask_partner(Step.REPORT, tell_sho(self._order, brought_by=self._brought_by))

    def _take_report(self, outcome: Outcome, now: datetime) -> Then:
        self._order, entries = settle_report(self._order, outcome, now, brought_by=self._brought_by)
        self._entries.extend(entries)
        if self._order.state is OrderState.REPORTED and self._order.result != ResultCode.FELL_BACK:
            return self._look_for_attach(now)
        return Finish()

    # --- attach (step 16) ---------------------------------------------------------------------------------------------

    def _hear(self, alerts: tuple[DeviceAlert, ...]) -> None:
        """Keep what is said of the attach with the MCIM of this order: the device says it once (flows F8)."""
        if self._order.state not in AT_THE_DEVICE:
            return
        for alert in alerts:
            if alert.type != AlertType.NETWORK_ATTACH or not self._is_ours(alert):
                continue
            text = alert.data.strip()[:16]
            code = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None
            attached = code == ResultCode.SUCCESS
            detail = "" if attached else f"the device reports {text}"
            self._entries.append(check("network-attach", attached, req=("REQ-69",), step="16", detail=detail))
            if code is not None:
                self._set(attach=code)

    def _is_ours(self, alert: DeviceAlert) -> bool:
        """An alert about another MCIM of the device says nothing of this order."""
        if alert.source is None:
            return True
        return node_key(alert.source).rpartition("/")[2] == node_key(self._order.container or "")

    def _look_for_attach(self, now: datetime) -> Then:
        """A reported order: close it, or see whether the TRE went back to the MCIM before (flows F6)."""
        if self._order.result == ResultCode.FELL_BACK:
            return self._report()
        self._order, entries = settle_attach(self._order, now)
        self._entries.extend(entries)
        if self._order.state is OrderState.REPORTED and self._order.attach is not None:
            if self._discovery.complete:
                return self._ask_for_fall_back()
            return self._ask_device(Step.DISCOVERY, self._discovery.next(None))
        return Finish()

    def _ask_for_fall_back(self) -> Then:
        status = f"{self._m2m_root}/{M2MNode.STATUS_RECEIPT}"
        return self._ask_device(Step.ATTACH, commands.ask_outcome(self._container, beside=(status,)))

    def _take_attach_outcome(self, answers: Answers, now: datetime) -> Then:
        places = (f"{self._container}/{ContainerNode.RECEIPT}", f"{self._m2m_root}/{M2MNode.STATUS_RECEIPT}")
        for octets in filter(None, map(answers.octets, places)):
            for subject in filter(None, (self._order, self._brought_by)):
                entries, receipt = check_receipt(octets, self._order, leaf_result=None, about=subject)
                if receipt is not None and receipt.result == ResultCode.FELL_BACK:
                    self._entries.extend(entries)
                    self._set(receipt=octets, result=int(receipt.result))
                    return self._report()
        self._entries.append(note("no receipt of a fall-back; the attach may still succeed", step="16"))
        return Finish()
