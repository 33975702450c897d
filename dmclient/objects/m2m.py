"""M2MMobj: the live view of the trusted environment that the DPF reads (S3-090792; docs/scheme.md).

A device with several TREs has one for each: registration, challenge and evidence are one TRE's. A server tells them by
the identifier in the Type of their roots, and which is whose by TRE/Id.

Every fact comes from the TRE at the moment of the Get; the tree keeps only what the server writes (Challenge, SHO)
and the evidence made over it. Nothing here is secret: the TRE hands out no secret.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from dmclient.management_tree import ExecRequest, Hooks, ManagementTree
from dmclient.nodes import ROOT, NodeMap, Path, TreeRefusal, Value
from dmclient.objects import description
from dmclient.tre.base import Registration, TreError, TreFacts, TrustedEnvironment
from mcim.vocabulary import ContainerState, RegistrationState, ResultCode, ValidationMode
from mo_definitions import M2M_OBJECT
from mo_definitions.m2m import M2MNode
from syncml.codes import StatusCode

M2M: Final[Path] = ("M2MMobj",)  # of the first TRE
CHALLENGE_SIZES: Final = range(16, 65)  # octets

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class M2MFacts:
    """What M2MMobj shows beside the TRE's own facts."""

    supplier: str = ""  # M2MES identifier; empty: the leaf is absent
    pcid: str = field(default="", repr=False)  # provisional connectivity identity, digits; subscriber-private
    pcid_expiry: datetime | None = None  # UTC
    mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS


class M2MObject:
    """Mounts M2MMobj and answers for its nodes."""

    def __init__(
        self,
        tree: ManagementTree,
        tre: TrustedEnvironment,
        facts: M2MFacts,
        *,
        package_waiting: Callable[[], bool],
        path: Path = M2M,
    ) -> None:
        self.path = path
        self._tree = tree
        self._tre = tre
        self._facts = facts
        self._package_waiting = package_waiting
        self._pcid_dropped = False
        self._build()

    @property
    def pcid_dropped(self) -> bool:
        """Whether the device attached with an operational identity and needs the PCID no more (REQ-72)."""
        return self._pcid_dropped

    @pcid_dropped.setter
    def pcid_dropped(self, dropped: bool) -> None:
        """The TRE's PCID goes with it; should that fail, it goes at the next start, when this is restored."""
        self._pcid_dropped = dropped
        if dropped:
            self._drop_provisional()

    def _build(self) -> None:
        tree = self._tree
        tree.mount(self.path, description("M2MMobj"))
        tree.built_in(self.path)
        for group in (M2MNode.TRE, M2MNode.REGISTRATION, M2MNode.ATTESTATION, M2MNode.STATUS, M2MNode.TRE_CERT_CHAIN):
            tree.built_in(self._at(group))
        for node, read in self._readers().items():
            value = read()
            tree.built_in(self._at(node), tree.described(self._at(node)).value if value is None else value)
            tree.hook(self._at(node), Hooks(read=read))
        for index, certificate in enumerate(self._tre.facts().cert_chain):
            tree.built_in((*self._at(M2MNode.TRE_CERT_CHAIN), str(index)), certificate)
        tree.built_in(self._at(M2MNode.REGISTRATION_SHO), self._registration().sho_id or "", stored=True)
        tree.built_in(self._at(M2MNode.REGISTRATION_RENEW))
        tree.hook(self._at(M2MNode.REGISTRATION_RENEW), Hooks(execute=self._renew))
        tree.built_in(self._at(M2MNode.ATTESTATION_MODE), self._facts.mode.value)
        tree.built_in(self._at(M2MNode.ATTESTATION_CHALLENGE), b"", stored=True)
        tree.hook(self._at(M2MNode.ATTESTATION_CHALLENGE), Hooks(replaced=self._challenge_replaced))
        tree.built_in(self._at(M2MNode.ATTESTATION_GENERATE))
        tree.hook(self._at(M2MNode.ATTESTATION_GENERATE), Hooks(execute=self._generate))
        tree.built_in(self._at(M2MNode.STATUS_RESULT), str(int(ResultCode.INITIAL)), stored=True)

    def _readers(self) -> dict[M2MNode, Callable[[], Value | None]]:
        def fact(take: Callable[[TreFacts], Value | None]) -> Callable[[], Value | None]:
            return lambda: take(self._tre.facts())

        def registration(take: Callable[[Registration], Value | None]) -> Callable[[], Value | None]:
            return lambda: take(self._registration())

        return {
            M2MNode.M2ME_ID: fact(lambda facts: facts.m2me_id),
            M2MNode.M2MES: lambda: self._facts.supplier or None,
            M2MNode.PCID: self._pcid,
            M2MNode.PCID_EXPIRY: lambda: utc_text(self._pcid_expiry()) if self._pcid() else None,
            M2MNode.TRE_ID: fact(lambda facts: facts.tre_id),
            M2MNode.TRE_TYPE: fact(lambda facts: facts.tre_type),
            M2MNode.TRE_VERSION: fact(lambda facts: facts.version),
            M2MNode.TRE_VENDOR: fact(lambda facts: facts.vendor or None),
            M2MNode.TRE_STATE: fact(lambda facts: facts.state),
            M2MNode.TRE_FREE_SPACE: fact(lambda facts: str(facts.free_space)),
            M2MNode.TRE_MAX_MCIM: fact(lambda facts: str(facts.max_mcim)),
            M2MNode.TRE_MAX_PACKAGE: fact(lambda facts: str(facts.max_package)),
            M2MNode.TRE_SUITES: fact(lambda facts: " ".join(suite.label for suite in facts.suites)),
            M2MNode.TRE_CONTAINERS: fact(lambda facts: " ".join(facts.containers)),
            M2MNode.TRE_ALGORITHMS: fact(lambda facts: " ".join(facts.algorithms)),
            M2MNode.TRE_CODE_FORMATS: fact(lambda facts: " ".join(facts.code_formats)),
            M2MNode.TRE_TRUST_ANCHORS: fact(lambda facts: " ".join(facts.trust_anchor_ids)),
            M2MNode.TRE_PLATFORM_CERT: fact(lambda facts: facts.platform_cert),
            M2MNode.TRE_ATTEST_CERT: fact(lambda facts: facts.attest_cert),
            M2MNode.REGISTRATION_STATE: self._registration_state,
            M2MNode.REGISTRATION_REQ_ID: registration(lambda now: now.req_id),
            M2MNode.REGISTRATION_NONCE: registration(lambda now: now.nonce),
            M2MNode.REGISTRATION_NONCE_EXPIRY: registration(
                lambda now: utc_text(now.nonce_expiry) if now.nonce else None
            ),
            M2MNode.REGISTRATION_REASON: registration(lambda now: now.reason),
            M2MNode.REGISTRATION_NEXT_SEQUENCE: registration(lambda now: str(now.next_sequence)),
            M2MNode.ATTESTATION_LOG: self._measurement_log,
            M2MNode.STATUS_MCIM_COUNT: self._mcim_count,
            M2MNode.STATUS_ACTIVE: self._active,
            M2MNode.STATUS_RECEIPT: self._tre.receipt,
        }

    def _registration(self) -> Registration:
        return self._tre.registration(self._tree.now())

    def _registration_state(self) -> str:
        state = self._registration().state
        if state is RegistrationState.REQUESTED and self._package_waiting():
            state = RegistrationState.PACKAGE_RECEIVED
        return str(state.value)

    def _pcid(self) -> str | None:
        """The TRE's provisional identity; without one, that of the settings. None once it is dropped or over."""
        expiry = self._pcid_expiry()
        if self.pcid_dropped or (expiry is not None and self._tree.now() >= expiry):
            self._drop_provisional()
            return None
        if self._tre.provisional_expiry() is None:
            return self._facts.pcid or None
        try:
            return self._tre.attach_identity(None)
        except TreError:
            return None

    def _pcid_expiry(self) -> datetime | None:
        return self._tre.provisional_expiry() or self._facts.pcid_expiry

    def _drop_provisional(self) -> None:
        try:
            self._tre.drop_provisional()
        except TreError as error:
            _log.warning("pcid.not_dropped", code=error.code.name.lower())

    def _mcim_count(self) -> str:
        return str(sum(each.state is not ContainerState.DELETED for each in self._tre.mcims()))

    def _active(self) -> str | None:
        return next((str(each.mcim_id) for each in self._tre.mcims() if each.state is ContainerState.ACTIVATED), None)

    def _renew(self, nodes: NodeMap, request: ExecRequest) -> int:
        """Registration/Renew: a new request and nonce, unless a package that uses the old ones is waiting."""
        if self._package_waiting():
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "a package is being consumed")
        sho_id = nodes.text(self._at(M2MNode.REGISTRATION_SHO)) or None
        try:
            self._tre.renew_registration(
                reason=reason_for(self._tre, sho_id, self._tree.now()), sho_id=sho_id, now=self._tree.now()
            )
        except TreError as error:
            raise TreeRefusal(error.code.sync_status, "the TRE refused") from error
        return StatusCode.OK

    def _measurement_log(self) -> bytes | None:
        """Attestation/Log: there in remote mode only; the evidence is bound to it (TR 33.812 §5.1.2)."""
        if self._facts.mode is not ValidationMode.REMOTE:
            return None
        return self._tre.measurement_log() or None

    def _challenge_replaced(self, nodes: NodeMap, path: Path) -> None:
        """A new challenge makes older evidence worthless; the leaf goes."""
        challenge = nodes.value(path)
        if not isinstance(challenge, bytes) or len(challenge) not in CHALLENGE_SIZES:
            raise TreeRefusal(StatusCode.COMMAND_FAILED, "a challenge has 16 to 64 octets")
        nodes.remove(self._at(M2MNode.ATTESTATION_EVIDENCE))

    def _generate(self, nodes: NodeMap, request: ExecRequest) -> int:
        """Attestation/Generate: evidence over the present challenge, made by the TRE at once (REQ-18)."""
        challenge = nodes.value(self._at(M2MNode.ATTESTATION_CHALLENGE))
        if not isinstance(challenge, bytes) or not challenge:
            raise TreeRefusal(StatusCode.COMMAND_NOT_ALLOWED, "there is no challenge")
        try:
            evidence = self._tre.generate_evidence(challenge, self._facts.mode, self._tree.now())
        except TreError as error:
            raise TreeRefusal(error.code.sync_status, "the TRE refused") from error
        self._own(nodes, M2MNode.ATTESTATION_EVIDENCE, evidence)
        return StatusCode.OK

    def show_sho(self, sho_id: str | None) -> None:
        """Registration/SHO after the device opened a request on its own."""
        self._own(self._tree.nodes, M2MNode.REGISTRATION_SHO, sho_id or "")

    def note_result(self, code: ResultCode) -> None:
        """Status/Result and Status/Time after a provisioning action."""
        self._own(self._tree.nodes, M2MNode.STATUS_RESULT, str(int(code)))
        self._own(self._tree.nodes, M2MNode.STATUS_TIME, utc_text(self._tree.now()) or "")

    def _at(self, node: M2MNode) -> Path:
        return (*self.path, *node.segments)

    def _own(self, nodes: NodeMap, node: M2MNode, value: Value) -> None:
        """Write a leaf that the device keeps in the tree."""
        nodes.put(self._at(node), value, like=self._tree.described(self._at(node)))


def reason_for(tre: TrustedEnvironment, sho_id: str | None, now: datetime) -> str:
    """Registration/Reason of a request opened now: for the first MCIM, a change of it, or one to replace what is gone.

    Without an MCIM the request is a recovery when one was there before (flows F9: deleted, then asked for again).
    """
    mcims = tre.mcims()
    if mcims:
        shos = {each.sho_id for each in mcims if each.state is ContainerState.ACTIVATED} or {
            each.sho_id for each in mcims
        }
        return "update" if sho_id is None or sho_id in shos else "change-of-sho"
    before = tre.registration(now)
    had_one = before.state is RegistrationState.PROVISIONED or before.reason != "initial"
    return "recovery" if had_one else "initial"


def path_of(number: int) -> Path:
    """Root of the M2MMobj of a TRE; the first is number 1."""
    return M2M if number == 1 else (f"{M2M[0]}{number}",)


def objects_in(nodes: NodeMap) -> list[Path]:
    """Roots of all M2MMobj, that of the first TRE first."""
    return [(name,) for name in nodes.children(ROOT) if nodes[(name,)].type == M2M_OBJECT]


def utc_text(moment: datetime | None) -> str | None:
    """UTC as the objects carry it: `YYYY-MM-DDThh:mm:ssZ`."""
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
