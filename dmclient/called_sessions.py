"""Sessions that a call asks for: who starts them, how patiently they are tried, what becomes of the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from dmclient.calls import Call, CallQueue, Consent
from dmclient.dm_device import DmDevice
from dmclient.http_transport import ServerNotAuthenticated
from dmclient.management_session import SessionFailed, SessionReport, SessionSettings, Transport, run_session
from syncml.codes import AlertCode

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently. Every number is a bound: no run goes on for ever."""

    attempts: int = 5  # sessions in a row that may fail
    polls: int = 5  # sessions in a row that may bring nothing
    attach_attempts: int = 3
    attach_decision_s: float = 300.0  # after so long without an answer an attach has failed, and the device falls back
    first_delay_s: float = 1.0
    max_delay_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row: doubled each time, up to the bound."""
        return float(min(self.first_delay_s * 2 ** max(failures - 1, 0), self.max_delay_s))


class CalledSessions:
    """The sessions of one device, whatever else it does."""

    def __init__(
        self,
        *,
        device: DmDevice,
        transport: Transport,
        settings: SessionSettings,
        policy: RetryPolicy,
        sleep: Callable[[float], Awaitable[None]],
        calls: CallQueue | None = None,
        consent: Consent | None = None,
    ) -> None:
        self._device = device
        self._transport = transport
        self._settings = settings
        self._policy = policy
        self._sleep = sleep
        self._calls = calls
        self._consent = consent or Consent()

    async def once(self, server_id: str, call: Call | None, *, step: str) -> SessionReport:
        """One session: Alert 1200 and the SessionID of the notification, or Alert 1201 (OMA-TS-DM_Protocol-V1_2 §8.4).

        Raises:
            ServerNotAuthenticated, SessionFailed: see `run_session`.
        """
        session_id = None if call is None else call.session_id
        return await run_session(
            self._device,
            server_id,
            self._transport,
            self._settings,
            step=step,
            start=AlertCode.CLIENT_INITIATED_MGMT if session_id is None else AlertCode.SERVER_INITIATED_MGMT,
            session_id=session_id,
            resync=call is not None and call.resync,
        )

    async def patiently(self, server_id: str, call: Call | None, *, step: str) -> None:
        """One session, tried again when it breaks.

        Raises:
            ServerNotAuthenticated: not tried again.
            SessionFailed: the last attempt did, too.
        """
        failure = ""
        for attempt in range(1, self._policy.attempts + 1):
            try:
                report = await self.once(server_id, call, step=step)
            except SessionFailed as error:
                failure = str(error)
            else:
                failure = report.failure
            if not failure:
                return
            _log.warning("session.failed", attempt=attempt, reason=failure)
            if attempt < self._policy.attempts:
                await self._sleep(self._policy.delay_s(attempt))
        raise SessionFailed(failure)

    async def wanted(self, call: Call) -> bool:
        """Whether the user has nothing against it; a call that is not wanted is done with."""
        if await self._consent.given(call):
            return True
        self.settle(call, failed=False)
        return False

    async def called_for(self, call: Call, *, step: str) -> None:
        """The session of a call, patiently; the call is settled, however it ends.

        Raises:
            ServerNotAuthenticated, SessionFailed: see `patiently`.
        """
        try:
            await self.patiently(call.server_id, call, step=step)
        except (ServerNotAuthenticated, SessionFailed):
            self.settle(call, failed=True)
            raise
        self.settle(call, failed=False)

    def settle(self, call: Call | None, *, failed: bool) -> None:
        """After the session of a call: it is done with, or the server may make it again."""
        if call is not None and self._calls is not None:
            (self._calls.failed if failed else self._calls.done)(call)
