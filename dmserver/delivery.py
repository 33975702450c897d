"""Second half of the provisioning policy: push, outcome, report, attach (steps 13 to 16; REQ-25, REQ-63, REQ-67)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from dmserver import commands
from dmserver.answers import Answers
from dmserver.asks import Outcome, ReportAcknowledged
from dmserver.audit import check, note
from dmserver.orders import Order, OrderEvent, OrderState
from dmserver.policy import PolicyBase, Rules, Step, Then
from dmserver.reception import check_receipt
from dmserver.settlement import settle_report, tell_sho
from mcim.vocabulary import ContainerState, ResultCode
from mo_definitions import AlertType
from mo_definitions.m2m import ContainerNode
from syncml.policy import Finish

MAX_PUSHES: Final = 4  # of one package; a device that loses it more often is broken
TRANSIENT: Final = frozenset(
    {ResultCode.ABORTED, ResultCode.TRE_BUSY, ResultCode.INTERNAL_ERROR, ResultCode.STORAGE_FAILURE}
)
"""Results after which the same package may be pushed again: the TRE rolled back and its nonce is not consumed."""


class Delivery(PolicyBase):
    """What happens from the moment a package is kept."""

    def __init__(self, rules: Rules, order: Order, *, package: bytes | None, former_requests: frozenset[str]) -> None:
        super().__init__(rules, order, package=package, former_requests=former_requests)
        self._nudged = False
        self._on_answers |= {
            Step.CLEAR: self._take_clearing,
            Step.PUSH: self._take_push,
            Step.NUDGE: self._take_nudge,
            Step.OUTCOME: self._take_outcome,
        }
        self._on_outcome |= {
            Step.REPORT: self._take_report,
            Step.REFUSAL_REPORT: self._take_refusal_report,
        }

    def _read(self) -> Then:
        raise NotImplementedError

    # --- delivery (step 13) -------------------------------------------------------------------------------------------

    def _push(self, now: datetime) -> Then:
        order, package = self._order, self._package
        if package is None or order.mcim_id is None or order.req_id is None or order.nonce is None:
            raise TypeError("nothing to push")
        if order.pushes >= MAX_PUSHES:
            return self._refuse(f"delivery failed {order.pushes} times", now, step="13")
        self._set(pushes=order.pushes + 1)
        self._advance(OrderEvent.PUSH, now, step="13", detail=f"push {self._order.pushes}")
        return self._ask_device(
            Step.PUSH,
            commands.push_package(
                self._container,
                mcim_id=order.mcim_id,
                sho_id=order.sho_id,
                req_id=order.req_id,
                nonce=order.nonce,
                package=package,
            ),
        )

    def _take_push(self, answers: Answers, now: datetime) -> Then:
        container = self._container
        code = answers.code(f"{container}/{ContainerNode.PACKAGE}")
        self._entries.append(
            check(
                "package-delivered",
                answers.ok(f"{container}/{ContainerNode.PACKAGE}"),
                req=("REQ-25", "REQ-32"),
                step="13",
                detail=f"Status {code}",
            )
        )
        if answers.ok(f"{container}/{ContainerNode.PACKAGE}"):
            self._advance(OrderEvent.PUSHED, now, step="13")
            return Finish()
        if code in (405, 406, 413, 415, 416, 420, 425):
            return self._refuse(f"the device does not take the package: Status {code}", now, step="13")
        # A chunk missing, a size that differs, a container that was there: what the device has of it decides.
        return self._ask_device(Step.OUTCOME, commands.ask_outcome(container))

    # --- outcome on the device (step 14) ------------------------------------------------------------------------------

    def _take_outcome(self, answers: Answers, now: datetime) -> Then:
        container = self._container
        if answers.code(f"{container}/{ContainerNode.STATE}") == 404:
            return self._push_again(now)
        state = answers.number(f"{container}/{ContainerNode.STATE}")
        self._entries.append(note(f"the device says: container state {state}", step="14"))
        if state in (ContainerState.EMPTY, ContainerState.RECEIVING):
            return self._clear()
        if state in (ContainerState.RECEIVED, ContainerState.PROVISIONING):
            return self._wait_for_device(state, now)
        if state not in tuple(ContainerState):
            return self._hold("incomplete: the device does not tell the state of its container", now, step="14")
        result = answers.number(f"{container}/{ContainerNode.RESULT}")
        if state == ContainerState.FAILED and result in TRANSIENT and self._order.pushes < MAX_PUSHES:
            self._entries.append(note(f"the device rolled back with {result}; the package is pushed again", step="14"))
            return self._clear()
        self._have_delivered(now)
        receipt = answers.octets(f"{container}/{ContainerNode.RECEIPT}")
        if receipt is None:
            self._entries.append(check("receipt-present", False, req=("REQ-67",), step="14"))
            return self._hold("incomplete: the device gives no receipt", now, step="14")
        entries, verified = check_receipt(receipt, self._order, leaf_result=result)
        self._entries.extend(entries)
        if verified is None:
            return self._hold("the receipt is not acceptable; the home operator is told nothing", now, step="14")
        self._set(receipt=receipt, result=int(verified.result))
        return self._report()

    def _have_delivered(self, now: datetime) -> None:
        if self._order.state is OrderState.DELIVERING:
            self._advance(OrderEvent.PUSHED, now, step="13", detail="the device says so")

    def _wait_for_device(self, state: int, now: datetime) -> Then:
        self._have_delivered(now)
        if state == ContainerState.RECEIVED and not self._nudged:
            self._nudged = True
            return self._ask_device(Step.NUDGE, commands.provision(self._container))
        return self._hold("the device has the package and is not done with it", now, step="14")

    def _take_nudge(self, answers: Answers, now: datetime) -> Then:
        return self._ask_device(Step.OUTCOME, commands.ask_outcome(self._container))

    def _clear(self) -> Then:
        return self._ask_device(Step.CLEAR, commands.drop_container(self._container))

    def _take_clearing(self, answers: Answers, now: datetime) -> Then:
        code = answers.code(self._container)
        if code not in (200, 404):
            return self._hold(f"the device does not drop its unfinished container: Status {code}", now, step="13")
        return self._push_again(now)

    def _push_again(self, now: datetime) -> Then:
        """The device has nothing of the package: see whether its registration is still the same, then push."""
        self._advance(OrderEvent.PUSH_LOST, now, step="13")
        return self._read()

    # --- report (step 15) and attach (step 16) ------------------------------------------------------------------------

    def _report(self) -> Then:
        order = self._order
        return self._ask_partner(Step.REPORT, tell_sho(order, order.receipt, order.result or ResultCode.REFUSED))

    def _take_report(self, outcome: Outcome, now: datetime) -> Then:
        self._order, entries = settle_report(self._order, outcome, now)
        self._entries.extend(entries)
        if self._order.state is OrderState.REPORTED:
            return self._look_for_attach(now)
        return Finish()

    def _take_refusal_report(self, outcome: Outcome, now: datetime) -> Then:
        told = isinstance(outcome, ReportAcknowledged)
        self._entries.append(
            note("the home operator was told" if told else "the home operator could not be told", step="15")
        )
        return Finish()

    def _look_for_attach(self, now: datetime) -> Then:
        for alert in self._alerts:
            if alert.type != AlertType.NETWORK_ATTACH:
                continue
            attached = alert.data.strip() == str(int(ResultCode.SUCCESS))
            self._entries.append(
                check(
                    "network-attach",
                    attached,
                    req=("REQ-69",),
                    step="16",
                    detail="" if attached else f"the device reports {alert.data.strip()[:16]}",
                )
            )
            if attached:
                self._advance(OrderEvent.ATTACHED, now, step="16")
                break
        return Finish()
