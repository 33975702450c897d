"""The M2ME between sessions: a DM device with a trusted environment (TRE) and the objects that show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from actor_runtime.trail import Trail
from dmclient.alerts import (
    PendingAlert,
    lifecycle_complete,
    network_attach,
    nonce_renewed,
    provisioning_complete,
    registration_request,
    tamper_detected,
)
from dmclient.dm_device import DeviceSetup, DmDevice
from dmclient.executor import uri_of
from dmclient.objects.device import DeviceFacts
from dmclient.objects.m2m import M2MFacts, M2MObject, path_of, reason_for
from dmclient.objects.m2msim import LIFE_CYCLE, M2MSIM, Job, M2MSimObject
from dmclient.store.state_file import StateFile
from dmclient.tre.base import McimInfo, Outcome, Registration, TrustedEnvironment
from mcim.errors import PackageRefused
from mcim.package_header import peek_header
from mcim.vocabulary import ContainerState, Operation, RegistrationState, ResultCode

STEP: Final = "14"
_DOING: Final = {
    "Provision": "provisioning",
    "Activate": "activating",
    "Suspend": "suspending",
    "Delete": "deleting",
}
DONE: Final = frozenset({ResultCode.SUCCESS, ResultCode.ALREADY_DONE})
OPEN: Final = frozenset({RegistrationState.REQUESTED, RegistrationState.PACKAGE_RECEIVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What the factory and the subscriber decided for this device."""

    facts: DeviceFacts
    m2m: M2MFacts = field(default_factory=M2MFacts)
    sho_id: str | None = None  # the subscriber's choice; None: whoever the order names
    drop_pcid_after_attach: bool = True  # REQ-72
    keep_package: Path | None = None  # where tests want the last package


class Device(DmDevice):
    """One M2ME: a DM device with trusted environments, which keep their own stores, and the objects that show them.

    The device registers and attaches for the first time with the first TRE. A further one is there for servers to use:
    they ask for a request with Renew in its M2MMobj, and their packages find it by the key id (REQ-64).
    """

    def __init__(
        self,
        *,
        profile: DeviceProfile,
        tre: TrustedEnvironment,
        state_file: StateFile,
        trail: Trail,
        now: Callable[[], datetime],
        setup: DeviceSetup | None = None,
        more_tres: tuple[TrustedEnvironment, ...] = (),
    ) -> None:
        super().__init__(facts=profile.facts, state_file=state_file, trail=trail, now=now, setup=setup)
        self.profile = profile
        self.tre = tre  # the one that registers
        self.tres = (tre, *more_tres)
        self.announced: list[str] = []  # MCIMs whose first attach with their present values was announced
        self.tampering_told: list[str] = []  # ids of the TREs whose tampering was announced
        self.m2msim = M2MSimObject(self.tree, max_package=lambda: max(each.facts().max_package for each in self.tres))
        self.m2m = M2MObject(self.tree, tre, profile.m2m, package_waiting=self.m2msim.waiting)
        facts = replace(profile.m2m, pcid="", pcid_expiry=None)  # that of the settings is shown once
        further = (
            M2MObject(self.tree, each, facts, package_waiting=self.m2msim.waiting, path=path_of(number))
            for number, each in enumerate(more_tres, start=2)
        )
        self.shown = (self.m2m, *further)  # one for each TRE, in their order
        self.remember()
        for each in self.shown[1:]:  # a TRE added to a device that has its account already
            if self.tree.nodes[each.path].acl is None:
                self.tree.nodes.change(each.path, acl=self.tree.nodes[self.m2m.path].acl)

    def dump(self) -> dict[str, Any]:
        """What must survive, as plain JSON data."""
        return {
            **super().dump(),
            "requests": self.m2msim.dump_requests(),
            "announced": self.announced,
            "pcidDropped": self.m2m.pcid_dropped,
            "tamperingTold": self.tampering_told,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take back what `dump` gave."""
        super().restore(saved)
        self.m2msim.restore_requests(saved["requests"])
        self.announced = [str(each) for each in saved["announced"]]
        self._drop_pcids(bool(saved["pcidDropped"]))
        told = saved.get("tamperingTold", [])  # the first version had none, the second a word for the one TRE
        self.tampering_told = [str(each) for each in told] if isinstance(told, list) else []

    # -- registration ----------------------------------------------------------------------------------------------

    def register(self, *, step: str = "7") -> None:
        """At a start: see to it that a request is open, unless an MCIM is there or on its way.

        An MCIM that is not in use is there as well: whether it is to be activated is its home operator's decision.

        Raises:
            TreError: the TRE cannot open one.
        """
        registration = self.tre.registration(self.now())
        if registration.state in OPEN or self.mcims() or self.m2msim.waiting() or not self.in_order():
            return
        self._open_request(registration, self.tre, self.m2m, step=step)

    def register_again(self, reason: str, *, step: str = "7") -> None:
        """See to it that a request is open although there is an MCIM: the network does not take it.

        Raises:
            TreError: the TRE cannot open one.
        """
        registration = self.tre.registration(self.now())
        if registration.state not in OPEN and not self.m2msim.waiting():
            self._open_request(registration, self.tre, self.m2m, reason=reason, step=step)

    def renew_expired(self) -> None:
        """A nonce that ran out while we waited for a package is worthless: open the request anew and say so.

        Raises:
            TreError: the TRE cannot open one.
        """
        self.in_order()
        for tre, shown in zip(self.tres, self.shown, strict=True):
            registration = tre.registration(self.now())
            served = self.usable_mcim(None if tre is self.tre else tre) is not None
            if registration.state is RegistrationState.EXPIRED and not served and tre.facts().state != "tampered":
                opened = self._open_request(registration, tre, shown)
                self.alerts.push(nonce_renewed(opened.req_id, uri_of(shown.path)))
                self.save()

    def _open_request(
        self,
        before: Registration,
        tre: TrustedEnvironment,
        shown: M2MObject,
        *,
        reason: str | None = None,
        step: str = "7",
    ) -> Registration:
        """Whose MCIM a further TRE is to get, a server said; for the first the subscriber chose."""
        sho_id = self.profile.sho_id if tre is self.tre else before.sho_id
        reason = reason or reason_for(tre, sho_id, self.now())
        opened = tre.renew_registration(reason=reason, sho_id=sho_id, now=self.now())
        shown.show_sho(sho_id)
        self.alerts.push(registration_request(opened.req_id, uri_of(shown.path)))
        self.trail.state(
            "registration", before.state.name.lower(), opened.state.name.lower(), step=step, detail=opened.req_id
        )
        self.save()
        return opened

    def in_order(self) -> bool:
        """Whether the first TRE works. When one is tampered with, that is announced once (T3; flows F8)."""
        for tre, shown in zip(self.tres, self.shown, strict=True):
            facts = tre.facts()
            if facts.state == "tampered" and facts.tre_id not in self.tampering_told:
                self.alerts.push(tamper_detected(facts.state, uri_of(shown.path)))
                self.tampering_told.append(facts.tre_id)
                self.trail.state("tre", "ok", facts.state, step=STEP, detail=facts.tre_id)
                self.save()
        return self.tre.facts().state != "tampered"

    def _drop_pcids(self, dropped: bool) -> None:
        for each in self.shown:
            each.pcid_dropped = dropped

    # -- packages and commands -------------------------------------------------------------------------------------

    def recover(self) -> None:
        """After a start: settle what the last run left half done."""
        for tre in self.tres:
            last = tre.last_outcome()
            if last is not None and last[1].code is ResultCode.FELL_BACK:
                self._show_fall_back(tre, last[1], last[0], ResultCode.FELL_BACK)
        lasts = [last for tre in self.tres if (last := tre.last_outcome()) is not None]
        for name, operation, code, correlator in self.m2msim.recover(lasts):
            self._report(name, operation, code, correlator)
            self.trail.note(f"container {name}: interrupted before, now {code.name.lower()}", step=STEP)
        self.m2msim.show_states(self.mcims())
        self.in_order()
        self.save()

    def provision_ready(self) -> list[ResultCode]:
        """Provision every container that is ready (REQ-63); the DM session is over at this point."""
        return [self._work(name) for name in self.m2msim.ready()]

    def obey(self) -> list[ResultCode]:
        """Carry out every life-cycle operation that was accepted (REQ-70); the DM session is over at this point."""
        return [self._work(name) for name in self.m2msim.commanded()]

    def _work(self, name: str) -> ResultCode:
        job = self.m2msim.begin(name)
        self.save()  # what is under way is on disk before the TRE begins, or a power cut would go unnoticed
        doing = _DOING[job.operation]
        self.trail.state("container", "received" if doing == "provisioning" else "held", doing, step=STEP, detail=name)
        if self.profile.keep_package is not None and job.operation == "Provision":
            try:
                self.profile.keep_package.write_bytes(job.octets)
            except OSError as error:
                self.trail.note(f"the package is not kept: {error.strerror}", step=STEP)
        tre, outcome = self._take_to_tre(job)
        for check in outcome.checks:
            self.trail.check(check.name, check.passed, req=check.req, step=STEP, detail=check.detail)
        self.m2msim.finish(name, job.operation, outcome)
        self.m2msim.show_states(self.mcims())
        self._note_result(tre, outcome.code)
        self._report(name, job.operation, outcome.code, job.correlator)
        if outcome.code is ResultCode.SUCCESS and outcome.mcim is not None:
            # Whatever was known of attaches with it is of other values, or of a time before it was suspended.
            self.announced = [each for each in self.announced if each != str(outcome.mcim.mcim_id)]
        after = "failed" if outcome.code not in DONE else "deleted"
        state = after if outcome.mcim is None else outcome.mcim.state.name.lower()
        self.trail.state("container", doing, state, step=STEP, detail=f"{name}: {int(outcome.code)}")
        self.save()
        self.in_order()
        return outcome.code

    def _take_to_tre(self, job: Job) -> tuple[TrustedEnvironment, Outcome]:
        operation = LIFE_CYCLE.get(job.operation)
        tre = self.tre_for(job.octets)
        if operation is None:
            return tre, tre.provision(job.octets, job.hints, self.now())
        if job.octets:
            return tre, tre.command(operation, job.octets, job.hints, self.now())
        try:
            mcim_id = UUID(job.hints.mcim_id or "")
        except ValueError:
            return tre, Outcome(code=ResultCode.MALFORMED, receipt=b"", mcim=None, checks=())
        tre = self.holder_of(mcim_id)
        return tre, tre.local_command(operation, mcim_id, self.now())

    def _note_result(self, tre: TrustedEnvironment, code: ResultCode) -> None:
        """In the M2MMobj of the TRE that came to it."""
        self.shown[self.tres.index(tre)].note_result(code)

    def local_command(self, operation: Operation, mcim_id: UUID, *, tre: TrustedEnvironment | None = None) -> Outcome:
        """A life-cycle operation of the device's user; the TRE decides by the MCIM's policy (REQ-70).

        Args:
            tre: the one that is meant; None: that which has the MCIM.
        """
        outcome = (tre or self.holder_of(mcim_id)).local_command(operation, mcim_id, self.now())
        for check in outcome.checks:
            self.trail.check(check.name, check.passed, req=check.req, step=STEP, detail=check.detail)
        if outcome.code in DONE:
            self.m2msim.show_states(self.mcims())
            if operation is Operation.DELETE:
                self.m2msim.show_deleted(mcim_id)
        self.save()
        return outcome

    def tre_named(self, tre_id: str) -> TrustedEnvironment:
        """The TRE of that identity; the first when none has it, for the settings name no other."""
        return next((each for each in self.tres if each.facts().tre_id == tre_id), self.tre)

    def tre_for(self, package: bytes) -> TrustedEnvironment:
        """The TRE whose platform key a package is for (REQ-64); the first when nobody has it: it refuses with 1413."""
        try:
            key_id = peek_header(package).platform_key_id
        except PackageRefused:
            return self.tre
        return next((each for each in self.tres if each.facts().platform_key_id == key_id), self.tre)

    def holder_of(self, mcim: McimInfo | UUID) -> TrustedEnvironment:
        """The TRE that an MCIM is in; the first when it is in none.

        An id alone may be another home operator's in another TRE: whoever has the MCIM's facts gives those.
        """
        sho_id, mcim_id = (mcim.sho_id, mcim.mcim_id) if isinstance(mcim, McimInfo) else (None, mcim)
        for tre in self.tres:
            if any(each.mcim_id == mcim_id and sho_id in (None, each.sho_id) for each in tre.mcims()):
                return tre
        return self.tre

    def _report(self, container: str, operation: str, code: ResultCode, correlator: str | None) -> None:
        uri = uri_of((*M2MSIM, container))
        alert: PendingAlert
        if operation in LIFE_CYCLE:
            alert = lifecycle_complete(uri, operation, code, correlator)
        else:
            alert = provisioning_complete(uri, code, correlator)
        self.alerts.push(alert)

    # -- after an attach -------------------------------------------------------------------------------------------

    def attach_succeeded(self, mcim: McimInfo) -> None:
        """The network took an MCIM: nothing is kept to fall back to, and the DPF hears of it, once (flows F6).

        Raises:
            TreError: the TRE cannot store it.
        """
        self.holder_of(mcim).confirm_attach(mcim.mcim_id, self.now())
        if str(mcim.mcim_id) not in self.announced:
            self.alerts.push(network_attach(self.container_of(mcim), int(ResultCode.SUCCESS)))
            held = {str(each.mcim_id) for each in self.mcims()}
            self.announced = [*(each for each in self.announced if each in held), str(mcim.mcim_id)]
        if self.profile.drop_pcid_after_attach:
            self._drop_pcids(True)
        self.save()

    def attach_failed(self, mcim: McimInfo, cause: int) -> McimInfo | None:
        """The network did not take an MCIM: go back to what was in use before, if something is kept (flows F6).

        The PCID stays, as the last way back (REQ-72). Returns what is in use again, None: there is no way back.

        Raises:
            TreError: the TRE cannot store it.
        """
        tre = self.holder_of(mcim)
        outcome = tre.fall_back(mcim.mcim_id, self.now())
        if outcome is None:
            if str(mcim.mcim_id) not in self.announced:
                self.alerts.push(network_attach(self.container_of(mcim), cause))
            self.save()
            return None
        last = tre.last_outcome()
        self._show_fall_back(tre, outcome, b"" if last is None else last[0], cause, container=self.container_of(mcim))
        return self.usable_mcim(tre)

    def _show_fall_back(
        self, tre: TrustedEnvironment, outcome: Outcome, digest: bytes, cause: int, *, container: str | None = None
    ) -> None:
        name = self.m2msim.fell_back(outcome, digest)
        if name is None and container is None:
            return  # noted before
        uri = uri_of((*M2MSIM, name)) if name is not None else container or uri_of(M2MSIM)
        self.alerts.push(network_attach(uri, cause))
        self.m2msim.show_states(self.mcims())
        self._note_result(tre, outcome.code)
        self.trail.state("attach", "attaching", "fell back", step="16", detail=str(int(outcome.code)))
        self.save()

    # -- what there is to attach with ----------------------------------------------------------------------------

    def usable_mcim(self, tre: TrustedEnvironment | None = None) -> McimInfo | None:
        """The MCIM for network access: the activated one of that TRE; None: of the first that has one."""
        mcims = self.mcims() if tre is None else tre.mcims()
        return next((each for each in mcims if each.state is ContainerState.ACTIVATED), None)

    def mcims(self) -> tuple[McimInfo, ...]:
        """All MCIMs of all TREs."""
        return tuple(each for tre in self.tres for each in tre.mcims())

    def container_of(self, mcim: McimInfo) -> str:
        """URI of the container an MCIM came in; that of M2MSIMMobj when the container is gone."""
        nodes = self.tree.nodes
        for name in nodes.children(M2MSIM):
            if nodes.text((*M2MSIM, name, "MCIMId")).lower() == str(mcim.mcim_id):
                return uri_of((*M2MSIM, name))
        return uri_of(M2MSIM)
