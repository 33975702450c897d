"""M2MSIMMobj: containers that bring MCIMs to the TRE (S3-090792; docs/scheme.md).

All state of a container is in its nodes, so it rolls back with a transaction and survives a restart with the tree.
The device reacts on presence (REQ-63): a complete Package makes a container RECEIVED, and after the DM session the
agent takes every container that is ready through `begin` and `finish`. States of one container:
0 empty, 20 received, 25 provisioning, 30 provisioned, 40 activated, 50 suspended, 60 deleted, 70 failed. State 10
(receiving) never shows: the session engine reassembles chunks and the tree sees a Package whole or not at all.
An update comes as a Package into the container of its MCIM, which keeps its state meanwhile; what the MCIM is in the
end the TRE says. Activate, Suspend and Delete are answered with 202 and done after the session, too (REQ-70).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from dmclient.management_tree import WILDCARD, ExecRequest, Hooks, ManagementTree
from dmclient.nodes import NodeMap, Path, TreeRefusal, Value
from dmclient.objects import description
from dmclient.objects.m2m import utc_text
from dmclient.tre.base import Hints, McimInfo, Outcome, unsigned_command
from mcim.vocabulary import ContainerState, Operation, ResultCode
from syncml.codes import StatusCode

M2MSIM: Final[Path] = ("M2MSIMMobj",)
MAX_CONTAINERS: Final = 16  # a bound of this device; the TRE has its own for MCIMs
OPERATIONS: Final = ("Provision", "Activate", "Suspend", "Delete", "Abort")
HOLDS_MCIM: Final = frozenset({ContainerState.PROVISIONED, ContainerState.ACTIVATED, ContainerState.SUSPENDED})
ACCEPTS_PACKAGE: Final = HOLDS_MCIM | {
    ContainerState.EMPTY,
    ContainerState.RECEIVING,
    ContainerState.RECEIVED,
    ContainerState.FAILED,
}
ACCEPTS_COMMAND: Final = HOLDS_MCIM | {ContainerState.DELETED}  # a repeated Delete is answered, not refused
RETRYABLE: Final = frozenset({ResultCode.STORAGE_FAILURE, ResultCode.TRE_BUSY, ResultCode.INTERNAL_ERROR})
"""Results after which Package or Command stays: nothing was wrong with it, and nothing was consumed."""

LIFE_CYCLE: Final = {"Activate": Operation.ACTIVATE, "Suspend": Operation.SUSPEND, "Delete": Operation.DELETE}
LEGAL_STATES: Final = {
    "Provision": HOLDS_MCIM | {ContainerState.RECEIVED, ContainerState.FAILED},
    "Activate": frozenset({ContainerState.PROVISIONED, ContainerState.SUSPENDED}),
    "Suspend": frozenset({ContainerState.ACTIVATED}),
    "Delete": HOLDS_MCIM,
    "Abort": frozenset({ContainerState.RECEIVING, ContainerState.RECEIVED}),
}
RESULTING_STATE: Final = {
    "Activate": ContainerState.ACTIVATED,
    "Suspend": ContainerState.SUSPENDED,
    "Delete": ContainerState.DELETED,
}
"""A new signed command for what is so already is idempotent; the TRE answers 1201."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An Exec that was accepted and is not done yet."""

    operation: str  # name of the Exec target
    correlator: str | None
    begun: bool = False  # the TRE may have done it already


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A package or command on its way into the TRE."""

    container: str  # node name below M2MSIMMobj
    operation: str  # Provision, Activate, Suspend or Delete
    octets: bytes = field(repr=False)  # empty: a command without signature
    hints: Hints
    correlator: str | None  # of the Exec that asked for it, to be echoed in the alert


class M2MSimObject:
    """Mounts M2MSIMMobj and moves its containers through their states."""

    def __init__(self, tree: ManagementTree, *, max_package: Callable[[], int]) -> None:
        self._tree = tree
        self._max_package = max_package
        self.requests: dict[str, Request] = {}  # by container
        tree.mount(M2MSIM, description("M2MSIMMobj"))
        tree.built_in(M2MSIM)
        container: Path = (*M2MSIM, WILDCARD)
        tree.hook(container, Hooks(added=self._container_added, deleting=self._container_deleting))
        tree.hook((*container, "Package"), Hooks(added=self._package_arrived, replaced=self._package_arrived))
        tree.hook((*container, "Command"), Hooks(added=self._command_arrived, replaced=self._command_arrived))
        for name in OPERATIONS:
            tree.hook((*container, "Operations", name), Hooks(execute=self._operate))

    # -- what the tree calls ----------------------------------------------------------------------------------------

    def _container_added(self, nodes: NodeMap, path: Path) -> None:
        if len(nodes.children(M2MSIM)) > MAX_CONTAINERS:
            raise TreeRefusal(StatusCode.DEVICE_FULL, "too many containers")
        self._own(nodes, (*path, "Operations"), "")
        for name in OPERATIONS:
            self._own(nodes, (*path, "Operations", name), "")
        self._own(nodes, (*path, "State"), str(int(ContainerState.EMPTY)))
        self._own(nodes, (*path, "Result"), str(int(ResultCode.INITIAL)))

    def _container_deleting(self, nodes: NodeMap, path: Path) -> None:
        """A container with an MCIM goes only by the signed Delete operation (REQ-70)."""
        state = state_of(nodes, path)
        if state in HOLDS_MCIM or state is ContainerState.PROVISIONING:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, f"not in state {state.value}")
        if path[-1] in self.requests:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "what was asked for is not done yet")

    def _package_arrived(self, nodes: NodeMap, path: Path) -> None:
        container = path[:-1]
        state = self._require_quiet(nodes, container)
        if state not in ACCEPTS_PACKAGE:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, f"no package in state {state.value}")
        package = self._sized(nodes, path)
        self._own(nodes, (*container, "PackageHash"), hashlib.sha256(package).digest())
        after = state if state in HOLDS_MCIM else ContainerState.RECEIVED
        self._set_state(nodes, container, after, ResultCode.INITIAL)

    def _command_arrived(self, nodes: NodeMap, path: Path) -> None:
        state = self._require_quiet(nodes, path[:-1])
        if state not in ACCEPTS_COMMAND:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, f"no command in state {state.value}")
        self._sized(nodes, path)

    def _require_quiet(self, nodes: NodeMap, container: Path) -> ContainerState:
        state = state_of(nodes, container)
        request = self.requests.get(container[-1])
        if state is ContainerState.PROVISIONING or (request is not None and request.operation in LIFE_CYCLE):
            raise TreeRefusal(StatusCode.CONFLICT, "what came before is being done")
        return state

    def _sized(self, nodes: NodeMap, path: Path) -> bytes:
        value = nodes.value(path)
        if not isinstance(value, bytes) or len(value) > self._max_package():
            raise TreeRefusal(StatusCode.REQUEST_ENTITY_TOO_LARGE, "larger than TRE/MaxPackage")
        return value

    def _operate(self, nodes: NodeMap, request: ExecRequest) -> int:
        container, operation = request.path[:-2], request.path[-1]
        state = state_of(nodes, container)
        if not self._legal(nodes, container, operation, state):
            self._own(nodes, (*container, "Result"), str(int(ResultCode.WRONG_STATE)))
            return StatusCode.COMMAND_NOT_ALLOWED
        if operation == "Abort":
            nodes.remove((*container, "Package"))
            nodes.remove((*container, "PackageHash"))
            self.requests.pop(container[-1], None)
            self._set_state(nodes, container, ContainerState.EMPTY, ResultCode.ABORTED)
            return StatusCode.OK
        if self.requests.get(container[-1]) is not None and operation in LIFE_CYCLE:
            self._own(nodes, (*container, "Result"), str(int(ResultCode.TRE_BUSY)))
            return StatusCode.CONFLICT
        self.requests[container[-1]] = Request(operation=operation, correlator=request.correlator)
        received = operation == "Provision" and state not in HOLDS_MCIM
        self._set_state(nodes, container, ContainerState.RECEIVED if received else state, ResultCode.RUNNING)
        return StatusCode.ACCEPTED_FOR_PROCESSING

    def _legal(self, nodes: NodeMap, container: Path, operation: str, state: ContainerState) -> bool:
        if operation == "Provision" and (*container, "Package") not in nodes:
            return False
        repeated = RESULTING_STATE.get(operation) is state and (*container, "Command") in nodes
        return repeated or state in LEGAL_STATES[operation]

    # -- what the agent calls ---------------------------------------------------------------------------------------

    def ready(self) -> list[str]:
        """Containers with a complete package that is to be provisioned now, oldest first."""
        nodes = self._tree.nodes
        return [name for name in nodes.children(M2MSIM) if self._package_ready(nodes, (*M2MSIM, name))]

    def _package_ready(self, nodes: NodeMap, container: Path) -> bool:
        wanted = self._asked(container[-1]) or nodes.text((*container, "AutoProvision")) != "false"
        received = state_of(nodes, container) is ContainerState.RECEIVED
        return wanted and (received or self._holds_update(nodes, container))

    def _holds_update(self, nodes: NodeMap, container: Path) -> bool:
        """A Package that stayed after a fault of the TRE does not count: it waits for an Exec, as in state 70."""
        if state_of(nodes, container) not in HOLDS_MCIM or (*container, "Package") not in nodes:
            return False
        return self._asked(container[-1]) or nodes.text((*container, "Result")) == str(int(ResultCode.INITIAL))

    def _asked(self, name: str) -> bool:
        request = self.requests.get(name)
        return request is not None and request.operation == "Provision"

    def commanded(self) -> list[str]:
        """Containers with a life-cycle operation to be done now."""
        return [name for name, each in self._requests_here().items() if each.operation in LIFE_CYCLE]

    def _requests_here(self) -> dict[str, Request]:
        """Those whose container is still there under its name."""
        return {name: each for name, each in self.requests.items() if (*M2MSIM, name) in self._tree.nodes}

    def waiting(self) -> bool:
        """Whether any container holds a package or command that the TRE has not finished with."""
        nodes = self._tree.nodes
        busy = (ContainerState.RECEIVED, ContainerState.PROVISIONING)
        containers = [(*M2MSIM, name) for name in nodes.children(M2MSIM)]
        held = any(state_of(nodes, each) in busy or self._holds_update(nodes, each) for each in containers)
        return held or bool(self.commanded())

    def begin(self, name: str) -> Job:
        """Take a package or command to the TRE; the caller saves the tree before it goes on."""
        nodes = self._tree.nodes
        container = (*M2MSIM, name)
        request = self.requests.get(name)
        if request is not None:
            self.requests[name] = replace(request, begun=True)
        if request is not None and request.operation in LIFE_CYCLE:
            # What the clear leaves say of home operator and request is of the package, not of a later command.
            hints = Hints(mcim_id=nodes.text((*container, "MCIMId")) or None)
            octets = _octets(nodes, (*container, "Command"))
            return Job(
                container=name,
                operation=request.operation,
                octets=octets,
                hints=hints,
                correlator=request.correlator,
            )
        self._set_state(nodes, container, ContainerState.PROVISIONING, ResultCode.RUNNING)
        return Job(
            container=name,
            operation="Provision",
            octets=_octets(nodes, (*container, "Package")),
            hints=Hints(
                mcim_id=nodes.text((*container, "MCIMId")) or None,
                sho_id=nodes.text((*container, "SHOId")) or None,
                req_id=nodes.text((*container, "ReqId")) or None,
                nonce=_octets(nodes, (*container, "NonceEcho")) or None,
                content_type=nodes.text((*container, "ContentType")) or None,
            ),
            correlator=None if request is None else request.correlator,
        )

    def finish(self, name: str, operation: str, outcome: Outcome) -> None:
        """Note what the TRE said. Package or Command goes, unless the fault was not its own.

        States of MCIMs are taken over with `show_states`; a container without one is deleted or has failed.
        """
        nodes = self._tree.nodes
        container = (*M2MSIM, name)
        self.requests.pop(name, None)
        if operation == "Provision":
            self._set_state(nodes, container, ContainerState.FAILED, outcome.code)
            leaf = "Package"
        else:
            done = outcome.code in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE)
            gone = operation == "Delete" and done
            state = ContainerState.DELETED if gone else state_of(nodes, container)
            self._set_state(nodes, container, state, outcome.code)
            leaf = "Command"
        if outcome.mcim is not None:
            self._set_state(nodes, container, outcome.mcim.state, outcome.code)
            self._show_mcim(nodes, container, outcome.mcim)
        if outcome.receipt:
            self._own(nodes, (*container, "Receipt"), outcome.receipt)
        if outcome.code not in RETRYABLE:
            nodes.remove((*container, leaf))

    def show_states(self, mcims: tuple[McimInfo, ...]) -> None:
        """What one package or command changes may be the state of other MCIMs as well."""
        nodes = self._tree.nodes
        held = {str(each.mcim_id): each for each in mcims}
        for name in nodes.children(M2MSIM):
            container = (*M2MSIM, name)
            mcim = held.get(nodes.text((*container, "MCIMId")).lower())
            state = state_of(nodes, container)
            # A container in state 70 shows an MCIM only when that came in it: after an update that was refused.
            shown = state in HOLDS_MCIM or (state is ContainerState.FAILED and (*container, "Revision") in nodes)
            if mcim is not None and shown:
                self._own(nodes, (*container, "State"), str(int(mcim.state)))
                self._show_mcim(nodes, container, mcim)

    def show_deleted(self, mcim_id: UUID) -> None:
        """The MCIM of a container was deleted by the user."""
        nodes = self._tree.nodes
        for name in nodes.children(M2MSIM):
            container = (*M2MSIM, name)
            same = nodes.text((*container, "MCIMId")).lower() == str(mcim_id)
            if same and state_of(nodes, container) in HOLDS_MCIM:
                self._set_state(nodes, container, ContainerState.DELETED, ResultCode.SUCCESS)

    def fell_back(self, outcome: Outcome, digest: bytes) -> str | None:
        """Note in the container of a package that the network did not take its MCIM; its name, None: it is gone."""
        nodes = self._tree.nodes
        for name in nodes.children(M2MSIM):
            container = (*M2MSIM, name)
            code = str(int(outcome.code))
            if _octets(nodes, (*container, "PackageHash")) == digest and nodes.text((*container, "Result")) != code:
                self._own(nodes, (*container, "Result"), code)
                self._own(nodes, (*container, "Receipt"), outcome.receipt)
                return name
        return None

    def recover(self, lasts: Sequence[tuple[bytes, Outcome]]) -> list[tuple[str, str, ResultCode, str | None]]:
        """After a start: containers that were being worked on when the power went (REQ-56).

        The TRE's memory decides: `lasts` is its last action, one for each TRE, with the SHA-256 of what it was about.
        If that is this package or command, the work was done and only our note of it was lost; if not, the TRE rolled
        back, no nonce is consumed and it may be tried again. Returns what to report: container, operation, result and
        correlator.
        """
        nodes = self._tree.nodes
        found: list[tuple[str, str, ResultCode, str | None]] = []
        for name in nodes.children(M2MSIM):
            container = (*M2MSIM, name)
            request = self.requests.get(name)
            if state_of(nodes, container) is ContainerState.PROVISIONING:
                operation, leaf = "Provision", "Package"
            elif request is not None and request.begun:
                operation, leaf = request.operation, "Command"
            else:
                continue
            octets = _octets(nodes, (*container, leaf))
            digest = hashlib.sha256(octets or self._unsigned(nodes, container, operation)).digest()
            nothing = Outcome(code=ResultCode.STORAGE_FAILURE, receipt=b"", mcim=None, checks=())
            outcome = next((each for what, each in lasts if what == digest), nothing)
            self.finish(name, operation, outcome)
            found.append((name, operation, outcome.code, None if request is None else request.correlator))
        return found

    def _unsigned(self, nodes: NodeMap, container: Path, operation: str) -> bytes:
        kind = LIFE_CYCLE.get(operation)
        return b"" if kind is None else unsigned_command(kind, nodes.text((*container, "MCIMId")).lower())

    def _show_mcim(self, nodes: NodeMap, container: Path, mcim: McimInfo) -> None:
        self._own(nodes, (*container, "Revision"), str(mcim.revision))
        self._own(nodes, (*container, "Sequence"), str(mcim.sequence))
        self._own(nodes, (*container, "IMSIMask"), mcim.imsi_mask)
        self._own(nodes, (*container, "NotAfter"), utc_text(mcim.not_after) or "")

    def _set_state(self, nodes: NodeMap, container: Path, state: ContainerState, result: ResultCode) -> None:
        self._own(nodes, (*container, "State"), str(int(state)))
        self._own(nodes, (*container, "Result"), str(int(result)))

    def _own(self, nodes: NodeMap, path: Path, value: Value) -> None:
        """Write a leaf that only the device writes."""
        nodes.put(path, value, like=self._tree.described(path))

    def dump_requests(self) -> dict[str, Any]:
        """Exec requests not done yet, for the state file."""
        return {name: asdict(each) for name, each in self._requests_here().items()}

    def restore_requests(self, data: dict[str, Any]) -> None:
        """What `dump_requests` gave."""
        self.requests = {str(name): _restored(each) for name, each in data.items()}


def _restored(data: object) -> Request:
    if not isinstance(data, dict):  # the first version knew Provision alone, and kept its correlator
        return Request(operation="Provision", correlator=None if data is None else str(data))
    correlator = data["correlator"]
    return Request(
        operation=str(data["operation"]),
        correlator=None if correlator is None else str(correlator),
        begun=bool(data["begun"]),
    )


def _octets(nodes: NodeMap, path: Path) -> bytes:
    value = nodes.value(path)
    return value if isinstance(value, bytes) else b""


def state_of(nodes: NodeMap, container: Path) -> ContainerState:
    """State of a container; EMPTY when it has none yet."""
    text = nodes.text((*container, "State"))
    return ContainerState(int(text)) if text else ContainerState.EMPTY
