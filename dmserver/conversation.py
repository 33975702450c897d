"""One message of a session: what its events mean, what the policy decides, what is on disk before the answer leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Connection

from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from dmserver.admission import Admission
from dmserver.news import AlertRules, device_alerts
from dmserver.operator_outcomes import alert_values
from dmserver.policy import DeviceAlert
from dmserver.redaction import redacted_body, summary
from dmserver.session_policy import Place
from dmserver.sessions import LiveSession, SessionRegistry
from dmserver.store.accounts import clear_resync, forget_nonce_before, note_sighting, set_nonce
from dmserver.store.operator_commands import take_alert
from mo_definitions import AlertType
from syncml.codec import decode
from syncml.codes import AlertCode, StatusCode
from syncml.errors import RemoteProtocolError
from syncml.model import Alert, Message
from syncml.policy import Decision, Finish
from syncml.server_session import ServerSession, message_for_error
from syncml.session import (
    AlertReceived,
    ClientAuthenticated,
    CommandAnswered,
    CredentialsRefused,
    DuplicateMessage,
    Event,
    NonceChanged,
    SessionAborted,
    SessionOpened,
)

SESSION_ALERTS: Final = (AlertCode.SERVER_INITIATED_MGMT, AlertCode.CLIENT_INITIATED_MGMT)
STRANGERS: Final = ""  # no device has that name: what all senders without an account count as
MAX_SHOWN: Final = 255  # characters of what a sender calls himself, in the log
MAX_NOTE: Final = 512  # characters
MAX_MATCHED_ALERTS: Final = 64  # of one message, against what is waited for

_NOT_OURS: Final = Place("7")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A message as it came."""

    message: Message
    body: bytes = field(repr=False)
    mac: str | None = field(default=None, repr=False)  # header x-syncml-hmac


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back."""

    body: bytes = field(repr=False)
    mac: str | None = field(default=None, repr=False)


@dataclass(slots=True, kw_only=True)
class _News:
    """What one message brought, as far as somebody beside the engine cares."""

    answered: list[CommandAnswered] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    to_keep: list[Callable[[Connection], object]] = field(default_factory=list)  # before the reply leaves

    @property
    def for_policy(self) -> tuple[DeviceAlert, ...]:
        return tuple(each for alert in self.alerts for each in device_alerts(alert))


class Conversation:
    """What all sessions share."""

    def __init__(
        self,
        *,
        registry: SessionRegistry,
        admission: Admission,
        store: Store,
        seal_key: SealingKey,
        trail: Trail,
        alerts: AlertRules,
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._store = store
        self._seal_key = seal_key
        self._trail = trail
        self._alerts = alerts

    async def answer(self, session: LiveSession, heard: Heard) -> Reply:
        """Answer one message. The caller holds the session's lock."""
        self._registry.touch(session)
        engine, message = session.engine, heard.message
        if session.replaced:
            return Reply(body=_error(session, message, StatusCode.CONFLICT))
        try:
            events = engine.receive(message, self._admission.now(), raw=heard.body, mac=heard.mac)
        except RemoteProtocolError as exc:
            _log.info("dm.protocol_error", reason=str(exc))
            self._record_refused(session, heard, exc)
            return Reply(body=_error(session, message, exc.code))
        if any(isinstance(event, DuplicateMessage) for event in events):
            _log.info("dm.duplicate", msg_id=message.header.msg_id)
            return _reply(engine, None)
        if engine.needs_decision and session.policy is None:
            session.policy = await self._admission.policy_for(session.device_id, session.encoding)
        refusal = next((event for event in events if isinstance(event, CredentialsRefused)), None)
        if refusal is not None and not session.authenticated:
            told = self._registry.note_failure(session.device_id if session.known else STRANGERS)
            session.recorded = session.known and told
            if told:
                _log_refusal(session, heard, refusal)
        self._record(session, message, len(heard.body), "M2ME→DPF")
        news = await self._hear(session, events)
        reply = _reply(engine, await self._decide(session, message, news) if engine.needs_decision else None)
        self._record(
            session, decode(reply.body, session.encoding, max_size=len(reply.body)), len(reply.body), "DPF→M2ME"
        )
        return reply

    # --- what came ----------------------------------------------------------------------------------------------------

    async def _hear(self, session: LiveSession, events: list[Event]) -> _News:
        """Take note of events; what must survive is in the database, in one unit, before the reply leaves."""
        news = _News()
        went_on, session.continued = session.authenticated and not session.continued, session.authenticated
        for event in events:
            self._note(session, event, news)
        if not session.known:
            return news
        issued = any(isinstance(event, NonceChanged) and event.direction == "client" for event in events)
        if went_on and not issued:
            news.to_keep.append(lambda connection: forget_nonce_before(connection, session.device_id))
        awaited = await self._keep(session, news)
        for alert in news.alerts:
            windows = session.engine.account.peer.name == "windows"
            code = self._alerts.code_for(alert, awaited=alert.cmd_id in awaited, windows=windows)
            if code != StatusCode.OK:
                session.engine.answer(alert.cmd_id, code)
        for each in news.for_policy:
            place = _place(session)
            text = f"alert {each.type.rpartition(':')[2][-64:]}: {each.data[:64]}"
            self._trail.note(text, step=place.step, order=place.order_id)
        return news

    def _note(self, session: LiveSession, event: Event, news: _News) -> None:
        device_id = session.device_id
        match event:
            case ClientAuthenticated():
                first, session.authenticated, session.recorded = not session.authenticated, True, True
                self._registry.note_success(device_id)
                self._registry.supersede(session)
                if first:
                    self._check_credentials(session, True, device_id)
                    if session.engine.account.resync:
                        news.to_keep.append(lambda connection: clear_resync(connection, device_id))
            case CredentialsRefused(attempt=attempt, final=final) if not session.authenticated:
                last = ", the last" if final else ""
                self._check_credentials(session, False, f"{device_id}, attempt {attempt}{last}")
            case CredentialsRefused(attempt=attempt):
                _log.info("dm.credentials_challenged_in_session", attempt=attempt)
            case NonceChanged(direction=direction, nonce=nonce):
                news.to_keep.append(lambda connection: set_nonce(connection, device_id, direction, nonce))
            case SessionOpened(dev_info=dev_info):
                now = self._admission.now()
                news.to_keep.append(lambda connection: note_sighting(connection, device_id, dev_info, now))
            case AlertReceived(alert=alert):
                news.alerts.append(alert)
            case CommandAnswered():
                news.answered.append(event)
            case SessionAborted(reason=reason):
                _log.info("dm.aborted", reason=reason)

    async def _keep(self, session: LiveSession, news: _News) -> frozenset[str]:
        """Write everything of one message at once; the CmdIDs of the alerts that an Exec was waiting for."""
        results = [
            (alert.cmd_id, alert.correlator, alert_values(alert.items))
            for alert in news.alerts[:MAX_MATCHED_ALERTS]
            if alert.code == AlertCode.GENERIC_ALERT
        ]
        if not results and not news.to_keep:
            return frozenset()

        def write(connection: Connection) -> frozenset[str]:
            for change in news.to_keep:
                change(connection)
            awaited = set()
            for cmd_id, correlator, values in results:
                if take_alert(connection, self._seal_key, session.device_id, correlator, values) is not None:
                    awaited.add(cmd_id)
            return frozenset(awaited)

        return await self._store.write(write)

    def _check_credentials(self, session: LiveSession, passed: bool, detail: str) -> None:
        if session.recorded:  # anybody can fail without end, and must not fill the database with it
            self._trail.check(
                "dm-credentials",
                passed,
                req=("REQ-13", "REQ-14"),
                step="7",
                detail=detail,
                order=_place(session).order_id,
            )

    # --- what goes out ------------------------------------------------------------------------------------------------

    async def _decide(self, session: LiveSession, message: Message, news: _News) -> Decision:
        if session.policy is None:
            self._refuse_session(session, message, news)
            return Finish()
        if not session.begun:
            session.begun = True
            return await session.policy.begin(news.for_policy)
        return await session.policy.answered(news.answered, news.for_policy)

    def _refuse_session(self, session: LiveSession, message: Message, news: _News) -> None:
        """Nothing is wanted of it (REQ-13): 403 to the session alert, nothing is sent; other news of it are taken."""
        self._trail.check("ongoing-order", False, req=("REQ-13",), step="7", detail=session.device_id)
        refused = {each.cmd_id for each in message.commands if isinstance(each, Alert) and each.code in SESSION_ALERTS}
        refused |= {
            alert.cmd_id
            for alert in news.alerts
            if any(each.type == AlertType.REGISTRATION_REQUEST for each in device_alerts(alert))
        }
        for cmd_id in refused:
            session.engine.answer(cmd_id, StatusCode.FORBIDDEN)

    def _record_refused(self, session: LiveSession, heard: Heard, error: RemoteProtocolError) -> None:
        """A message that the engine did not take; of a sender who did not prove himself as many as of his failures."""
        if session.authenticated or (session.known and self._registry.note_failure(session.device_id)):
            self._record(session, heard.message, len(heard.body), "M2ME→DPF")
            place = _place(session)
            text = f"refused with {error.code}: {type(error).__name__}: {error}"
            self._trail.note(text[:MAX_NOTE], step=place.step, order=place.order_id)

    def _record(self, session: LiveSession, message: Message, octets: int, direction: str) -> None:
        if session.recorded:
            place = _place(session)
            self._trail.message(
                step=place.step,
                direction=direction,
                summary=summary(message),
                octets=octets,
                body=redacted_body(message),
                order=place.order_id,
            )


def _reply(engine: ServerSession, decision: Decision | None) -> Reply:
    return Reply(body=engine.reply(decision), mac=engine.mac_header)


def _log_refusal(session: LiveSession, heard: Heard, refusal: CredentialsRefused) -> None:
    """A line for whoever wonders why a device does not come in. What it sent as a secret or digest is not told."""
    cred = heard.message.header.cred
    sent = "syncml:auth-MAC" if heard.mac is not None else "nothing" if cred is None else cred.type
    log = _log.warning if refusal.final else _log.info
    log(
        "dm.credentials_refused",
        device=session.device_id[:MAX_SHOWN],
        known=session.known,
        sent=(sent or "no type")[:MAX_SHOWN],
        expected=session.engine.account.client_auth,
        attempt=refusal.attempt,
        final=refusal.final,
    )


def _place(session: LiveSession) -> Place:
    return session.policy.place if session.policy is not None else _NOT_OURS


def _error(session: LiveSession, message: Message, code: int) -> bytes:
    """One Status on the SyncHdr, outside of what the session counts."""
    header = message.header
    return message_for_error(
        session_id=header.session_id,
        msg_id=header.msg_id,
        device_id=header.source,
        server_uri=session.engine.server_uri,
        msg_ref=header.msg_id,
        code=code,
        encoding=session.encoding,
    )
