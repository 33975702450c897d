"""M2MSIMMobj: containers that bring MCIMs to the TRE (S3-090792; docs/scheme.md).

All state of a container is in its nodes, so it rolls back with a transaction and survives a restart with the tree.
The device reacts on presence (REQ-63): a complete Package makes a container RECEIVED, and after the DM session the
agent takes every container that is ready through `begin` and `finish`. States of one container:
0 empty, 20 received, 25 provisioning, 30 provisioned, 40 activated, 50 suspended, 60 deleted, 70 failed. State 10
(receiving) never shows: the session engine reassembles chunks and the tree sees a Package whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from dmclient.management_tree import WILDCARD, ExecRequest, Hooks, ManagementTree
from dmclient.nodes import NodeMap, Path, TreeRefusal, Value
from dmclient.objects import description
from dmclient.objects.m2m import utc_text
from dmclient.tre.base import Hints, McimInfo, Outcome
from mcim.vocabulary import ContainerState, ResultCode
from syncml.codes import StatusCode

M2MSIM: Final[Path] = ("M2MSIMMobj",)
MAX_CONTAINERS: Final = 16  # a bound of this device; the TRE has its own for MCIMs
OPERATIONS: Final = ("Provision", "Activate", "Suspend", "Delete", "Abort")
ACCEPTS_PACKAGE: Final = frozenset(
    {ContainerState.EMPTY, ContainerState.RECEIVING, ContainerState.RECEIVED, ContainerState.FAILED}
)
HOLDS_MCIM: Final = frozenset({ContainerState.PROVISIONED, ContainerState.ACTIVATED, ContainerState.SUSPENDED})
RETRYABLE: Final = frozenset({ResultCode.STORAGE_FAILURE, ResultCode.TRE_BUSY, ResultCode.INTERNAL_ERROR})
"""Results after which the Package stays: nothing was wrong with it, and nothing was consumed."""

LEGAL_STATES: Final = {
    "Activate": frozenset({ContainerState.PROVISIONED, ContainerState.SUSPENDED}),
    "Suspend": frozenset({ContainerState.ACTIVATED}),
    "Delete": HOLDS_MCIM,
    "Abort": frozenset({ContainerState.RECEIVING, ContainerState.RECEIVED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A package on its way into the TRE."""

    container: str  # node name below M2MSIMMobj
    package: bytes = field(repr=False)
    hints: Hints
    correlator: str | None  # of the Exec that asked for it, to be echoed in the alert


class M2MSimObject:
    """Mounts M2MSIMMobj and moves its containers through their states."""

    def __init__(self, tree: ManagementTree, *, max_package: Callable[[], int]) -> None:
        self._tree = tree
        self._max_package = max_package
        self.requests: dict[str, str | None] = {}  # container → correlator of an Exec Provision not done yet
        tree.mount(M2MSIM, description("M2MSIMMobj"))
        tree.built_in(M2MSIM)
        container: Path = (*M2MSIM, WILDCARD)
        tree.hook(container, Hooks(added=self._container_added, deleting=self._container_deleting))
        tree.hook((*container, "Package"), Hooks(added=self._package_arrived, replaced=self._package_arrived))
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

    def _package_arrived(self, nodes: NodeMap, path: Path) -> None:
        container = path[:-1]
        state = state_of(nodes, container)
        if state is ContainerState.PROVISIONING:
            raise TreeRefusal(StatusCode.CONFLICT, "the package before is being consumed")
        if state not in ACCEPTS_PACKAGE:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, f"no package in state {state.value}")
        package = nodes.value(path)
        if not isinstance(package, bytes) or len(package) > self._max_package():
            raise TreeRefusal(StatusCode.REQUEST_ENTITY_TOO_LARGE, "larger than TRE/MaxPackage")
        self._own(nodes, (*container, "PackageHash"), hashlib.sha256(package).digest())
        self._set_state(nodes, container, ContainerState.RECEIVED, ResultCode.INITIAL)

    def _operate(self, nodes: NodeMap, request: ExecRequest) -> int:
        container, operation = request.path[:-2], request.path[-1]
        state = state_of(nodes, container)
        legal = LEGAL_STATES.get(operation)
        if operation == "Provision":
            legal = frozenset({ContainerState.RECEIVED, ContainerState.FAILED})
            if (*container, "Package") not in nodes:
                legal = frozenset()
        if legal is None or state not in legal:
            self._own(nodes, (*container, "Result"), str(int(ResultCode.WRONG_STATE)))
            return StatusCode.COMMAND_NOT_ALLOWED
        if operation == "Provision":
            self.requests[container[-1]] = request.correlator
            self._set_state(nodes, container, ContainerState.RECEIVED, ResultCode.RUNNING)
            return StatusCode.ACCEPTED_FOR_PROCESSING
        if operation == "Abort":
            nodes.remove((*container, "Package"))
            nodes.remove((*container, "PackageHash"))
            self.requests.pop(container[-1], None)
            self._set_state(nodes, container, ContainerState.EMPTY, ResultCode.ABORTED)
            return StatusCode.OK
        # Life-cycle commands need a TRE that takes them; until then a server is told so.
        raise TreeRefusal(StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, "life-cycle operations are not supported")

    # -- what the agent calls ---------------------------------------------------------------------------------------

    def ready(self) -> list[str]:
        """Containers with a complete package that is to be provisioned now, oldest first."""
        nodes = self._tree.nodes
        return [
            name
            for name in nodes.children(M2MSIM)
            if state_of(nodes, (*M2MSIM, name)) is ContainerState.RECEIVED
            and (name in self.requests or nodes.text((*M2MSIM, name, "AutoProvision")) != "false")
        ]

    def waiting(self) -> bool:
        """Whether any container holds a package that the TRE has not finished with."""
        nodes = self._tree.nodes
        busy = (ContainerState.RECEIVED, ContainerState.PROVISIONING)
        return any(state_of(nodes, (*M2MSIM, name)) in busy for name in nodes.children(M2MSIM))

    def begin(self, name: str) -> Job:
        """Take a container into PROVISIONING; the caller saves the tree before it goes on."""
        nodes = self._tree.nodes
        container = (*M2MSIM, name)
        package = nodes.value((*container, "Package"))
        nonce = nodes.value((*container, "NonceEcho"))
        self._set_state(nodes, container, ContainerState.PROVISIONING, ResultCode.RUNNING)
        return Job(
            container=name,
            package=package if isinstance(package, bytes) else b"",
            hints=Hints(
                mcim_id=nodes.text((*container, "MCIMId")) or None,
                sho_id=nodes.text((*container, "SHOId")) or None,
                req_id=nodes.text((*container, "ReqId")) or None,
                nonce=nonce if isinstance(nonce, bytes) else None,
            ),
            correlator=self.requests.pop(name, None),
        )

    def finish(self, name: str, outcome: Outcome) -> None:
        """Note what the TRE said. The Package goes, unless the fault was not its own."""
        nodes = self._tree.nodes
        container = (*M2MSIM, name)
        if outcome.mcim is not None:
            self._show_mcim(nodes, container, outcome.mcim)
            self._set_state(nodes, container, outcome.mcim.state, outcome.code)
        else:
            self._set_state(nodes, container, ContainerState.FAILED, outcome.code)
        if outcome.receipt:
            self._own(nodes, (*container, "Receipt"), outcome.receipt)
        if outcome.code not in RETRYABLE:
            nodes.remove((*container, "Package"))

    def recover(self, mcims: tuple[McimInfo, ...], receipt: bytes | None) -> list[tuple[str, ResultCode]]:
        """After a start: containers that were being provisioned when the power went (REQ-56).

        The TRE's journal decides. If it has the MCIM, the work was done and only our note of it was lost; if not, it
        rolled back, the nonce is not consumed and the package may be tried again. Returns what to report.
        """
        nodes = self._tree.nodes
        found: list[tuple[str, ResultCode]] = []
        for name in nodes.children(M2MSIM):
            container = (*M2MSIM, name)
            if state_of(nodes, container) is not ContainerState.PROVISIONING:
                continue
            wanted = nodes.text((*container, "MCIMId")).lower()
            mcim = next((each for each in mcims if str(each.mcim_id) == wanted), None)
            code = ResultCode.STORAGE_FAILURE if mcim is None else ResultCode.SUCCESS
            self.finish(name, Outcome(code=code, receipt=receipt or b"" if mcim else b"", mcim=mcim, checks=()))
            found.append((name, code))
        return found

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

    def dump_requests(self) -> dict[str, str | None]:
        """Exec requests not done yet, for the state file."""
        return dict(self.requests)

    def restore_requests(self, data: dict[str, Any]) -> None:
        """What `dump_requests` gave."""
        self.requests = {str(name): None if each is None else str(each) for name, each in data.items()}


def state_of(nodes: NodeMap, container: Path) -> ContainerState:
    """State of a container; EMPTY when it has none yet."""
    text = nodes.text((*container, "State"))
    return ContainerState(int(text)) if text else ContainerState.EMPTY
