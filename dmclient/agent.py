"""The life of the device: registered, known to the DPF, provisioned, attached (TR 33.812 §5.1.3.7.1 steps 7 to 16).

One loop that looks at what is there and does the next thing. Everything it decides on is on disk, so a device that
stops anywhere goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final
from uuid import UUID

import structlog

from dmclient.called_sessions import CalledSessions, RetryPolicy
from dmclient.calls import Call, CallQueue, Consent
from dmclient.device import Device
from dmclient.http_transport import ServerNotAuthenticated
from dmclient.management_session import SessionFailed, SessionSettings, Transport
from dmclient.network import AttachCode, AttachResult, Network, attach
from dmclient.tre.base import McimInfo, TreError, TrustedEnvironment
from mcim.vocabulary import ContainerState, ResultCode
from mo_definitions import AlertType
from syncml.codes import StatusCode

_log = structlog.get_logger(__name__)
SUCCESSFUL: Final = frozenset({ResultCode.SUCCESS, ResultCode.ALREADY_DONE})


class ExitStatus(IntEnum):
    """Exit status of `dmclient run`."""

    ATTACHED = 0
    UNREACHABLE = 1  # nobody said no; nobody answered either
    REFUSED = 2  # somebody said no: the server, the TRE, the network, or we to an unauthenticated server


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended."""

    status: ExitStatus
    reason: str
    imsi_mask: str = ""


class Agent:
    """Drives one device to the network."""

    def __init__(
        self,
        *,
        device: Device,
        transport: Transport,
        network: Network | None,
        settings: SessionSettings,
        policy: RetryPolicy,
        sleep: Callable[[float], Awaitable[None]],
        calls: CallQueue | None = None,
        consent: Consent | None = None,
        networks: Mapping[str, Network] | None = None,
    ) -> None:
        self._device = device
        self._network = network
        self._networks = networks or {}  # home operator → its network; that of all others is `network`
        self._policy = policy
        self._sleep = sleep
        self._calls = calls
        self._sessions = CalledSessions(
            device=device,
            transport=transport,
            settings=settings,
            policy=policy,
            sleep=sleep,
            calls=calls,
            consent=consent,
        )
        self._failures = 0  # sessions in a row that failed
        self._polls = 0  # sessions in a row that left us nothing to do
        self._refusal: ResultCode | None = None  # why the TRE refused the last package
        self._attached: AttachResult | None = None

    async def run(self, server_id: str) -> RunResult:
        """Go on until the device is attached and the DPF knows, or somebody said no, or nobody answered.

        A notification of the DPF on the way makes the next session a server-initiated one.
        """
        device = self._device
        try:
            device.recover()
            device.register()
            while True:
                device.renew_expired()
                result = await self._act()
                if result is None:
                    result = await self._session(server_id)
                if result is not None:
                    return result
        except TreError as error:
            return _refused(f"the TRE refused: {error.code.name.lower()}")

    @property
    def attach_refused(self) -> bool:
        """Whether the network said for good that it does not take the MCIM in use."""
        result = self._attached
        return result is not None and not result.attached and result.code is not AttachCode.NETWORK_FAILURE

    def prepare(self) -> None:
        """Before the first call: settle what the last run left half done, and see to it that a request is open.

        A TRE that opens none keeps nobody from managing the device.
        """
        try:
            self._device.recover()
            self._device.register()
        except TreError as error:
            _log.warning("tre.refused", code=error.code.name.lower())

    async def _act(self) -> RunResult | None:
        """Do what needs no server; a result ends the run."""
        device = self._device
        self._work()
        if not device.in_order() and not device.alerts.waits(AlertType.TAMPER_DETECTED):
            return _refused("the TRE is tampered with")
        if self._refusal is not None and self._told():
            return _refused(f"the package was refused: {int(self._refusal)} {self._refusal.name.lower()}")
        mcim = device.usable_mcim()
        # After a session that broke, what the server has read of it is uncertain, and with that whether the home
        # operator knows the receipt: its network might refuse what it will take a moment later.
        if self._attached is None and mcim is not None and self._told() and not self._failures:
            self._attached = await self._attach(mcim)
        if self._attached is not None and not len(device.alerts):
            return _attach_result(self._attached)
        return None

    def _work(self) -> bool:
        """Take to the TRE what the sessions brought; whether there was anything."""
        device = self._device
        codes = device.provision_ready()
        for code in codes:
            self._refusal = None if code in SUCCESSFUL else code
        commanded = device.obey()
        if codes or commanded:
            self._attached = None  # another MCIM may be in use now, or the same one with other values
        return bool(codes or commanded)

    def _told(self) -> bool:
        """Whether the server knows how the last package and the last command ended."""
        waits = self._device.alerts.waits
        return not waits(AlertType.PROVISIONING_COMPLETE) and not waits(AlertType.LIFECYCLE_COMPLETE)

    async def attach(self, mcim_id: UUID | None = None, tre: TrustedEnvironment | None = None) -> RunResult:
        """Attach with the MCIM that is in use, without any DM session; the alert waits for the next one.

        Args:
            mcim_id: attach with this one; a TRE lets nobody attach with one that is not activated.
            tre: only those of this one count; None: of all.
        """
        mcim = self._device.usable_mcim(tre)
        if mcim_id is not None:
            mcims = self._device.mcims() if tre is None else tre.mcims()
            mcim = next((each for each in mcims if each.mcim_id == mcim_id), None)
        if mcim is None:
            return _refused("no activated MCIM" if mcim_id is None else "there is no such MCIM")
        if mcim.state is not ContainerState.ACTIVATED:
            return _refused(f"the MCIM is {mcim.state.name.lower()}, not activated")
        try:
            return _attach_result(await self._attach(mcim))
        except TreError as error:
            return _refused(f"the TRE refused: {error.code.name.lower()}")

    # -- sessions ---------------------------------------------------------------------------------------------------

    async def _session(self, server_id: str) -> RunResult | None:
        """One session and what follows from it; a result ends the run."""
        call = await self._next_call(server_id)
        failed = True
        try:
            report = await self._sessions.once(server_id, call, step=self._step())
            failed = bool(report.failure)
        except ServerNotAuthenticated as error:
            return _refused(f"the server is not authenticated: {error}")
        except SessionFailed as error:
            return await self._failed(str(error))
        finally:
            self._sessions.settle(call, failed=failed)
        if self._attached is None and any(code == StatusCode.FORBIDDEN for _, code in report.refused):
            names = ", ".join(name for name, code in report.refused if code == StatusCode.FORBIDDEN)
            return _refused(f"the server answered 403 to {names}: no open order for this device")
        if report.failure:
            return await self._failed(report.failure)
        self._failures = 0
        if self._can_go_on():
            self._polls = 0
            return None
        return await self._nothing_came()

    async def _next_call(self, server_id: str) -> Call | None:
        """The call of that server that the user has nothing against."""
        while self._calls is not None and (call := self._calls.first(server_id)) is not None:
            if await self._sessions.wanted(call):
                return call
        return None

    async def serve(self, call: Call) -> str:
        """The session that was asked for, and what follows from it: provisioning, attach, news of them.

        Returns why it failed; empty when it did not, also when the user did not want it.
        """
        if not await self._sessions.wanted(call):
            return ""
        try:
            self._device.renew_expired()
            await self._sessions.called_for(call, step=self._step())
            tried: set[str] = set()
            for _ in range(self._policy.polls):
                news = self._work()
                mcim = self._device.usable_mcim()
                if mcim is not None and self._network_of(mcim) is not None and self._is_new(mcim, tried):
                    tried.add(_version(mcim))
                    await self._attach(mcim)
                    news = True
                if not news:  # alerts that the server did not take wait for its next call
                    break
                await self._sessions.patiently(call.server_id, None, step=self._step())
        except TreError as error:
            return f"the TRE refused: {error.code.name.lower()}"
        except (ServerNotAuthenticated, SessionFailed) as error:
            return str(error)
        return ""

    def _is_new(self, mcim: McimInfo, tried: set[str]) -> bool:
        """Whether an MCIM is to be attached with: it never was, and the server knows that it is there."""
        return self._told() and str(mcim.mcim_id) not in self._device.announced and _version(mcim) not in tried

    def _step(self) -> str:
        if self._attached is not None:
            return "16"
        return "7" if self._told() else "14"

    def _can_go_on(self) -> bool:
        """Whether `_act` has something to do now."""
        device = self._device
        if bool(device.m2msim.ready() or device.m2msim.commanded()):
            return True
        if self._attached is not None:
            return not len(device.alerts)
        if not device.in_order():
            return not device.alerts.waits(AlertType.TAMPER_DETECTED)
        return self._told() and (self._refusal is not None or device.usable_mcim() is not None)

    async def _nothing_came(self) -> RunResult | None:
        """The session was fine and left nothing to do: the SHO may need time. Ask again, a few times."""
        self._polls += 1
        if self._polls < self._policy.polls:
            await self._sleep(self._policy.delay_s(self._polls))
            return None
        if self._attached is not None:  # the DPF will hear of it in some later session: the alert stays queued
            return _attach_result(self._attached)
        if self._device.mcims():
            return _refused("an MCIM is installed, but not activated")
        return _refused("the server ended its sessions without a package")

    async def _failed(self, reason: str) -> RunResult | None:
        self._failures += 1
        _log.warning("session.failed", attempt=self._failures, reason=reason)
        if self._failures < self._policy.attempts:
            await self._sleep(self._policy.delay_s(self._failures))
            return None
        if self._attached is not None:
            return _attach_result(self._attached)
        return RunResult(status=ExitStatus.UNREACHABLE, reason=reason)

    # -- attach -----------------------------------------------------------------------------------------------------

    async def _attach(self, mcim: McimInfo) -> AttachResult:
        """Attach, and make up our mind: the network took the MCIM, or what was in use before is in use again.

        The DPF hears of the first attach with new values, of its failure, and of a fall-back (flows F6).

        Raises:
            TreError: the TRE cannot store what it came to.
        """
        device = self._device
        result = await self._patient_attach(mcim)
        device.trail.state("attach", "detached", "attached" if result.attached else "refused", step="16")
        if result.attached:
            device.attach_succeeded(mcim)
            return result
        before = None if self._network_of(mcim) is None else device.attach_failed(mcim, int(result.code))
        if before is None:
            return result
        again = await self._attach(before)
        return replace(again, detail=f"fell back after: {result.detail}") if again.attached else again

    def _network_of(self, mcim: McimInfo) -> Network | None:
        """The access of an MCIM's home network."""
        return self._networks.get(mcim.sho_id, self._network)

    async def _patient_attach(self, mcim: McimInfo) -> AttachResult:
        """Attach, again when the network gave no answer, in bounded time."""
        result = AttachResult(code=AttachCode.NETWORK_FAILURE, detail="no network is configured")
        network = self._network_of(mcim)
        if network is None:
            return result
        device = self._device
        tre = device.holder_of(mcim)
        try:
            async with asyncio.timeout(self._policy.attach_decision_s):
                for attempt in range(1, self._policy.attach_attempts + 1):
                    result = await attach(network, tre, mcim.mcim_id, device.trail, sho_id=mcim.sho_id)
                    if result.code is not AttachCode.NETWORK_FAILURE or attempt == self._policy.attach_attempts:
                        return result
                    await self._sleep(self._policy.delay_s(attempt))
        except TimeoutError:
            device.trail.note("attach: no decision in time", step="16")
            return replace(result, code=AttachCode.NETWORK_FAILURE, detail="no decision of the network in time")
        return result


def _version(mcim: McimInfo) -> str:
    return f"{mcim.mcim_id}/{mcim.revision}/{mcim.sequence}"


def _refused(reason: str) -> RunResult:
    return RunResult(status=ExitStatus.REFUSED, reason=reason)


def _attach_result(result: AttachResult) -> RunResult:
    if result.attached:
        return RunResult(status=ExitStatus.ATTACHED, reason=result.detail or "attached", imsi_mask=result.imsi_mask)
    status = ExitStatus.UNREACHABLE if result.code is AttachCode.NETWORK_FAILURE else ExitStatus.REFUSED
    return RunResult(status=status, reason=result.detail)
