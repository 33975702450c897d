"""The M2ME between sessions: a DM device with a trusted environment (TRE) and the objects that show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from actor_runtime.trail import Trail
from dmclient.alerts import nonce_renewed, provisioning_complete, registration_request
from dmclient.dm_device import DeviceSetup, DmDevice
from dmclient.executor import uri_of
from dmclient.objects.device import DeviceFacts
from dmclient.objects.m2m import M2MFacts, M2MObject
from dmclient.objects.m2msim import M2MSIM, M2MSimObject
from dmclient.store.state_file import StateFile
from dmclient.tre.base import McimInfo, Registration, TrustedEnvironment
from mcim.vocabulary import ContainerState, RegistrationState, ResultCode

STEP: Final = "14"
OPEN: Final = frozenset({RegistrationState.REQUESTED, RegistrationState.PACKAGE_RECEIVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What the factory and the subscriber decided for this device."""

    facts: DeviceFacts
    m2m: M2MFacts = field(default_factory=M2MFacts)
    sho_id: str | None = None  # the subscriber's choice; None: whoever the order names
    drop_pcid_after_attach: bool = True  # REQ-72


class Device(DmDevice):
    """One M2ME: a DM device with a trusted environment, which keeps its own store, and the objects that show it."""

    def __init__(
        self,
        *,
        profile: DeviceProfile,
        tre: TrustedEnvironment,
        state_file: StateFile,
        trail: Trail,
        now: Callable[[], datetime],
        setup: DeviceSetup | None = None,
    ) -> None:
        super().__init__(facts=profile.facts, state_file=state_file, trail=trail, now=now, setup=setup)
        self.profile = profile
        self.tre = tre
        self.announced: list[str] = []  # MCIMs whose first attach was announced
        self.m2msim = M2MSimObject(self.tree, max_package=lambda: tre.facts().max_package)
        self.m2m = M2MObject(self.tree, tre, profile.m2m, package_waiting=self.m2msim.waiting)
        self.remember()

    def dump(self) -> dict[str, Any]:
        """What must survive, as plain JSON data."""
        return {
            **super().dump(),
            "requests": self.m2msim.dump_requests(),
            "announced": self.announced,
            "pcidDropped": self.m2m.pcid_dropped,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take back what `dump` gave."""
        super().restore(saved)
        self.m2msim.restore_requests(saved["requests"])
        self.announced = [str(each) for each in saved["announced"]]
        self.m2m.pcid_dropped = bool(saved["pcidDropped"])

    # -- registration and provisioning ---------------------------------------------------------------------------------

    def register(self) -> None:
        """At a start: see to it that a request is open, unless an MCIM is there or on its way.

        Raises:
            TreError: the TRE cannot open one.
        """
        registration = self.tre.registration(self.now())
        if registration.state in OPEN or self.usable_mcim() is not None or self.m2msim.waiting():
            return
        self._open_request(registration)

    def register_again(self, reason: str) -> None:
        """See to it that a request is open although there is an MCIM: the network does not take it.

        Raises:
            TreError: the TRE cannot open one.
        """
        registration = self.tre.registration(self.now())
        if registration.state not in OPEN and not self.m2msim.waiting():
            self._open_request(replace(registration, reason=reason))

    def renew_expired(self) -> None:
        """A nonce that ran out while we waited for a package is worthless: open the request anew and say so.

        Raises:
            TreError: the TRE cannot open one.
        """
        registration = self.tre.registration(self.now())
        if registration.state is RegistrationState.EXPIRED and self.usable_mcim() is None:
            self.alerts.push(nonce_renewed(self._open_request(registration).req_id))
            self.save()

    def _open_request(self, before: Registration) -> Registration:
        opened = self.tre.renew_registration(reason=before.reason, sho_id=self.profile.sho_id, now=self.now())
        self.m2m.show_sho(self.profile.sho_id)
        self.alerts.push(registration_request(opened.req_id))
        self.trail.state(
            "registration", before.state.name.lower(), opened.state.name.lower(), step="7", detail=opened.req_id
        )
        self.save()
        return opened

    def recover(self) -> None:
        """After a start: settle what the last run left half done."""
        for name, code in self.m2msim.recover(self.tre.mcims(), self.tre.receipt()):
            self._report(name, code, None)
            self.trail.note(f"container {name}: interrupted before, now {code.name.lower()}", step=STEP)
        self.save()

    def provision_ready(self) -> list[ResultCode]:
        """Provision every container that is ready (REQ-63); the DM session is over at this point."""
        codes = []
        for name in self.m2msim.ready():
            job = self.m2msim.begin(name)
            self.save()  # State 25 is on disk before the TRE begins, or a power cut would go unnoticed
            self.trail.state("container", "received", "provisioning", step=STEP, detail=name)
            outcome = self.tre.provision(job.package, job.hints, self.now())
            for check in outcome.checks:
                self.trail.check(check.name, check.passed, req=check.req, step=STEP, detail=check.detail)
            self.m2msim.finish(name, outcome)
            self.m2m.note_result(outcome.code)
            self._report(name, outcome.code, job.correlator)
            state = "failed" if outcome.mcim is None else outcome.mcim.state.name.lower()
            self.trail.state("container", "provisioning", state, step=STEP, detail=f"{name}: {int(outcome.code)}")
            self.save()
            codes.append(outcome.code)
        return codes

    def _report(self, container: str, code: ResultCode, correlator: str | None) -> None:
        self.alerts.push(provisioning_complete(uri_of((*M2MSIM, container)), code, correlator))

    # -- what there is to attach with ----------------------------------------------------------------------------

    def usable_mcim(self) -> McimInfo | None:
        """The MCIM for network access: the activated one."""
        return next((each for each in self.tre.mcims() if each.state is ContainerState.ACTIVATED), None)

    def container_of(self, mcim: McimInfo) -> str:
        """URI of the container an MCIM came in; that of M2MSIMMobj when the container is gone."""
        nodes = self.tree.nodes
        for name in nodes.children(M2MSIM):
            if nodes.text((*M2MSIM, name, "MCIMId")).lower() == str(mcim.mcim_id):
                return uri_of((*M2MSIM, name))
        return uri_of(M2MSIM)
