"""Delivery part of the provisioning policy: push and outcome (steps 13 and 14; REQ-25, REQ-63, REQ-67)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from dmserver import commands
from dmserver.answers import Answers
from dmserver.audit import check, note
from dmserver.orders import Order, OrderEvent, OrderState
from dmserver.policy import Rules, Step, Then
from dmserver.reception import check_receipt
from dmserver.reporting import Reporting
from mcim.vocabulary import ContainerState, ResultCode
from mo_definitions.m2m import ContainerNode
from syncml.policy import Finish

MAX_PUSHES: Final = 4  # of one package; a device that loses it more often is broken
TRANSIENT: Final = frozenset(
    {ResultCode.ABORTED, ResultCode.TRE_BUSY, ResultCode.INTERNAL_ERROR, ResultCode.STORAGE_FAILURE}
)
"""Results after which the same package may be pushed again: the TRE rolled back and its nonce is not consumed."""
NOT_TAKEN: Final = frozenset({405, 406, 413, 415, 416, 420, 425})
"""Statuses to a package that another try would not change."""


class Delivery(Reporting):
    """What happens from the moment a package is kept: this class for packages with a container of their own."""

    def __init__(
        self,
        rules: Rules,
        order: Order,
        *,
        package: bytes | None,
        former_requests: frozenset[str],
        brought_by: Order | None = None,
    ) -> None:
        super().__init__(rules, order, package=package, former_requests=former_requests, brought_by=brought_by)
        self._nudged = False
        self._on_answers |= {
            Step.CLEAR: self._take_clearing,
            Step.PUSH: self._take_push,
            Step.NUDGE: self._take_nudge,
            Step.OUTCOME: self._take_outcome,
        }

    def _look(self) -> Then:
        """Read what is to be known of the device, whatever the order."""
        raise NotImplementedError

    # --- delivery (step 13) -------------------------------------------------------------------------------------------

    def _push(self, now: datetime) -> Then:
        order = self._order
        if order.pushes >= MAX_PUSHES:
            return self._refuse(f"delivery failed {order.pushes} times", now, step="13")
        self._set(pushes=order.pushes + 1)
        self._advance(OrderEvent.PUSH, now, step="13", detail=f"push {self._order.pushes}")
        return self._send(now)

    def _delivery(self) -> commands.Delivered:
        order, package = self._order, self._package
        if package is None or order.mcim_id is None or order.req_id is None or order.nonce is None:
            raise TypeError("nothing to push")
        return commands.Delivered(
            mcim_id=order.mcim_id,
            sho_id=order.sho_id,
            req_id=order.req_id,
            nonce=order.nonce,
            package=package,
            media_type=order.packaging.media_type,
            token_ref=order.token_ref,
        )

    def _send(self, now: datetime) -> Then:
        return self._ask_device(Step.PUSH, commands.push_package(self._container, self._delivery()))

    def _take_push(self, answers: Answers, now: datetime) -> Then:
        return self._judge_push(answers, ContainerNode.PACKAGE, now) or Finish()

    def _judge_push(self, answers: Answers, leaf: ContainerNode, now: datetime) -> Then | None:
        """What follows from the Status of the octets that were pushed; None: the device has them."""
        container = self._container
        code, taken = answers.code(f"{container}/{leaf}"), answers.ok(f"{container}/{leaf}")
        self._entries.append(
            check("package-delivered", taken, req=("REQ-25", "REQ-32"), step="13", detail=f"Status {code}")
        )
        if taken:
            if leaf is ContainerNode.PACKAGE:
                self._advance(OrderEvent.PUSHED, now, step="13")
            return None
        if code in NOT_TAKEN:
            return self._refuse(f"the device does not take the package: Status {code}", now, step="13")
        # A chunk missing, a size that differs, a container that was there: what the device has of it decides.
        return self._ask_outcome()

    # --- outcome on the device (step 14) ------------------------------------------------------------------------------

    def _ask_outcome(self) -> Then:
        return self._ask_device(Step.OUTCOME, commands.ask_outcome(self._container))

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
        return self._take_receipt(receipt, state, result, now)

    def _take_receipt(self, octets: bytes, state: int | None, result: int | None, now: datetime) -> Then:
        entries, verified = check_receipt(octets, self._order, leaf_result=result)
        self._entries.extend(entries)
        if verified is None:
            return self._hold("the receipt is not acceptable; the home operator is told nothing", now, step="14")
        self._set(receipt=octets, result=int(verified.result), left_state=state)
        return self._report()

    def _have_delivered(self, now: datetime) -> None:
        if self._order.state is OrderState.MISSING:
            self._set(report_owed=False)  # there is better news to come
        if self._order.state in (OrderState.DELIVERING, OrderState.MISSING):
            self._advance(OrderEvent.PUSHED, now, step="13", detail="the device says so")

    def _wait_for_device(self, state: int, now: datetime) -> Then:
        self._have_delivered(now)
        if state == ContainerState.RECEIVED and not self._nudged:
            self._nudged = True
            return self._ask_device(Step.NUDGE, commands.provision(self._container))
        return self._hold("the device has the package and is not done with it", now, step="14")

    def _take_nudge(self, answers: Answers, now: datetime) -> Then:
        return self._ask_outcome()

    def _clear(self) -> Then:
        return self._ask_device(Step.CLEAR, commands.drop_container(self._container))

    def _take_clearing(self, answers: Answers, now: datetime) -> Then:
        code = answers.code(self._container)
        if code not in (200, 404):
            return self._hold(f"the device does not drop its unfinished container: Status {code}", now, step="13")
        return self._push_again(now)

    def _push_again(self, now: datetime) -> Then:
        """The device has nothing of the package: see whether its registration is still the same, then push.

        Not when its home operator was told that it stays away: who gave the order up does not want it carried out.
        """
        if self._order.state is OrderState.MISSING:
            return self._refuse("the device came back without the package", now, step="13")
        self._advance(OrderEvent.PUSH_LOST, now, step="13")
        return self._look()
