"""Orders about an MCIM that the device has: update, activate, suspend, delete (flows F4, F5; REQ-70).

They go to the container of that MCIM, whatever its name is. An update is a package put into it; the others are a
signed command, put there first and then set off by an Exec, so that nothing is set off that is not there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from dmserver import commands
from dmserver.answers import Answers
from dmserver.audit import note
from dmserver.delivery import MAX_PUSHES, TRANSIENT, Delivery
from dmserver.orders import Order, OrderEvent
from dmserver.policy import Rules, Step, Then
from dmserver.reception import read_receipt
from dmserver.settlement import is_about
from mcim.vocabulary import ContainerState, Operation, RegistrationState, ResultCode
from mo_definitions import M2MSIM_OBJECT
from mo_definitions.m2m import ContainerNode, M2MNode

MAX_CONTAINERS: Final = 32  # of a device that are looked at
MAX_NAME: Final = 255  # characters of a node's name, as it stands in a URI
EXEC_NODE: Final = {
    Operation.ACTIVATE: ContainerNode.ACTIVATE,
    Operation.SUSPEND: ContainerNode.SUSPEND,
    Operation.DELETE: ContainerNode.DELETE,
}


class LifeCycle(Delivery):
    """Delivery into a container that exists."""

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
        self._candidates: tuple[str, ...] = ()  # names of containers that were asked for
        self._leaves: tuple[str, ...] | None = None  # of the target's container; None: there is none, or not looked
        self._located = False
        self._sent_now = False  # something was put into the container in this session
        self._exec_code = 0  # Status of the Exec of this session
        self._on_answers |= {Step.LOCATE: self._take_containers, Step.OPERATE: self._take_operation}

    def _read(self) -> Then:
        """Read M2MMobj; `Provisioning` says how."""
        raise NotImplementedError

    # --- finding the container ----------------------------------------------------------------------------------------

    def _look(self) -> Then:
        if not self._order.has_target:
            return self._read()
        self._candidates, self._located = (), False
        return self._ask_device(Step.LOCATE, commands.get_nodes((self._sim_root,)))

    def _take_containers(self, answers: Answers, now: datetime) -> Then:
        if not self._candidates and not self._located:
            self._located = True
            names = answers.children(self._sim_root) or ()
            self._candidates = tuple(name for name in names if "?" not in name and len(name) <= MAX_NAME)[
                :MAX_CONTAINERS
            ]
            if self._candidates:
                return self._ask_device(Step.LOCATE, commands.list_containers(self._sim_root, self._candidates))
        return self._choose_container(answers, now)

    def _choose_container(self, answers: Answers, now: datetime) -> Then:
        order = self._order
        for name in self._candidates:
            mcim_id = answers.text(f"{self._sim_root}/{name}/{ContainerNode.MCIM_ID}") or ""
            if mcim_id.lower() == order.mcim_id:
                self._leaves = answers.children(f"{self._sim_root}/{name}") or ()
                self._set(node=name)
                return self._read()
        if order.is_command:
            return self._refuse("the device has no container of that MCIM", now, step="13")
        self._leaves = None
        own = (order.mcim_id or "")[:8]
        self._set(node=order.mcim_id if own in self._candidates else None)
        self._entries.append(note("the device has no container of that MCIM any more; it gets a new one", step="13"))
        return self._read()

    @property
    def _sim_root(self) -> str:
        return self._discovery.found[M2MSIM_OBJECT]

    # --- delivery -----------------------------------------------------------------------------------------------------

    def _send(self, now: datetime) -> Then:
        if not self._order.has_target:
            return super()._send(now)
        self._sent_now, self._exec_code = True, 0
        if self._order.is_command:
            there = ContainerNode.COMMAND in (self._leaves or ())
            sent = commands.put_command(self._container, self._delivery(), there=there)
            return self._ask_device(Step.PUSH, sent)
        if self._leaves is None:
            return super()._send(now)
        return self._ask_device(
            Step.PUSH, commands.replace_package(self._container, self._delivery(), there=frozenset(self._leaves))
        )

    def _take_push(self, answers: Answers, now: datetime) -> Then:
        if not self._order.is_command:
            return super()._take_push(answers, now)
        otherwise = self._judge_push(answers, ContainerNode.COMMAND, now)
        if otherwise is not None:
            return otherwise
        order = self._order
        correlator = f"{order.order_id}-{order.operation.label}"
        return self._ask_device(
            Step.OPERATE, commands.operate(f"{self._container}/{EXEC_NODE[order.operation]}", correlator)
        )

    def _take_operation(self, answers: Answers, now: datetime) -> Then:
        self._exec_code = answers.code(f"{self._container}/{EXEC_NODE[self._order.operation]}")
        self._entries.append(note(f"{self._order.operation.label}: Status {self._exec_code}", step="14"))
        if self._exec_code in (200, 202):
            self._advance(OrderEvent.PUSHED, now, step="13", detail=f"Status {self._exec_code}")
        # Whatever it said, its receipt decides: it may have done it before and have nothing left to do.
        return self._ask_outcome()

    # --- outcome ------------------------------------------------------------------------------------------------------

    def _ask_outcome(self) -> Then:
        """For a target the state of the registration as well: it alone says that an update waits in the container."""
        beside = (self._registration_state,) if self._order.has_target else ()
        return self._ask_device(Step.OUTCOME, commands.ask_outcome(self._container, beside=beside))

    @property
    def _registration_state(self) -> str:
        return f"{self._m2m_root}/{M2MNode.REGISTRATION_STATE}"

    def _take_outcome(self, answers: Answers, now: datetime) -> Then:
        """Containers of a target hold receipts of earlier actions, so their state alone says nothing of this one."""
        order, container = self._order, self._container
        if not order.has_target:
            return super()._take_outcome(answers, now)
        if answers.code(f"{container}/{ContainerNode.STATE}") == 404:
            return self._push_again(now)
        state = answers.number(f"{container}/{ContainerNode.STATE}")
        result = answers.number(f"{container}/{ContainerNode.RESULT}")
        self._entries.append(note(f"the device says: container state {state}, result {result}", step="14"))
        octets = answers.octets(f"{container}/{ContainerNode.RECEIPT}")
        receipt = None if octets is None else read_receipt(octets, order)
        if octets is not None and receipt is not None and is_about(receipt, order):
            self._have_delivered(now)
            if receipt.result in TRANSIENT and order.pushes < MAX_PUSHES:
                self._entries.append(note(f"the device rolled back with {receipt.result}; once more", step="14"))
                return self._push_again(now)
            return self._take_receipt(octets, state, None, now)
        if octets is not None and receipt is None:
            return self._take_receipt(octets, state, None, now)  # is refused, and said to be
        waits = answers.number(self._registration_state) == RegistrationState.PACKAGE_RECEIVED
        return self._not_done(ContainerState.RECEIVED if waits else state, result, now)

    def _not_done(self, state: int | None, result: int | None, now: datetime) -> Then:
        """No receipt is about this order. `state` is RECEIVED when the device holds something whole for its TRE."""
        if self._exec_code >= 400:
            why = f"the device does not {self._order.operation.label}: Status {self._exec_code}, result {result}"
            return self._refuse(why, now, step="14")
        if not self._order.is_command and state in (ContainerState.RECEIVED, ContainerState.PROVISIONING):
            return self._wait_for_device(state, now)
        if result == ResultCode.RUNNING or state == ContainerState.RECEIVED or self._sent_now:
            return self._hold_and_call("the device is not done with it", now, step="14")
        return self._push_again(now)
