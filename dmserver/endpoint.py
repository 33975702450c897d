"""The DM endpoint: octets → message → session → events → policy → octets. One HTTP request is one SyncML message."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Connection

from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from dmserver.answers import read_answers
from dmserver.bootstrap import new_account, new_nonce
from dmserver.conductor import STEP_OF_STATE, Conductor
from dmserver.policy import DeviceAlert
from dmserver.redaction import redacted_body, summary
from dmserver.sessions import LiveSession, RegistryFull, SessionRegistry
from dmserver.store.accounts import Account, find_account, set_nonce
from mo_definitions import AlertType
from syncml.accounts import DmAccount
from syncml.codec import Encoding, decode, encoding_of
from syncml.codes import AlertCode, MediaType, StatusCode
from syncml.errors import MalformedMessage, MessageTooLarge, RemoteProtocolError
from syncml.model import Alert, Message
from syncml.policy import Abort, Continue, Finish
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
)

SESSION_PARAMETER: Final = "s"
"""Query parameter of RespURI: whoever speaks in an authenticated session shows it, as SessionIDs can be guessed."""

_SESSION_ALERTS: Final = (AlertCode.SERVER_INITIATED_MGMT, AlertCode.CLIENT_INITIATED_MGMT)
_DATA_SYNC_TYPES: Final = {
    "application/vnd.syncml+xml": MediaType.DM_XML,
    "application/vnd.syncml+wbxml": MediaType.DM_WBXML,
}
"""Media types of Data Synchronization, which some devices put on DM messages; answered in kind."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to answer over HTTP. `code` is the problem code when `status` is no 200."""

    status: int = 200
    body: bytes = b""
    content_type: str = MediaType.DM_XML
    code: str = ""


@dataclass(slots=True, kw_only=True)
class _Heard:
    """What one message brought, as far as the policy cares."""

    answered: list[CommandAnswered] = field(default_factory=list)
    alerts: list[tuple[str, DeviceAlert]] = field(default_factory=list)  # CmdID, alert


class DmEndpoint:
    """All DM sessions of one process."""

    def __init__(
        self,
        *,
        server_id: str,
        max_message: int,
        max_object: int,
        registry: SessionRegistry,
        conductor: Conductor,
        store: Store,
        seal_key: SealingKey,
        trail: Trail,
    ) -> None:
        self._server_id = server_id
        self._max_message = max_message  # octets
        self._max_object = max_object  # octets
        self._registry = registry
        self._conductor = conductor
        self._store = store
        self._seal_key = seal_key
        self._trail = trail

    async def handle(self, body: bytes, content_type: str, *, server_uri: str, token: str) -> Answer:
        """Answer one request. `server_uri` is where devices reach us, `token` the session parameter of the request."""
        bare = content_type.partition(";")[0].strip().lower()
        encoding = encoding_of(_DATA_SYNC_TYPES.get(bare, bare))
        if encoding is None:
            return Answer(status=415, code="unsupported-media-type")
        try:
            message = decode(body, encoding, max_size=self._max_message)
        except MessageTooLarge:
            return Answer(status=413, code="message-too-large")
        except MalformedMessage as exc:
            _log.info("dm.malformed", reason=str(exc), octets=len(body))
            return Answer(status=400, code="malformed-message")
        digest = hashlib.sha256(body).digest()
        session = self._registry.find(message.header.source, message.header.session_id)
        if session is None or (
            _opens_session(message) and digest != session.first_digest and self._registry.is_dead(session)
        ):
            if not _opens_session(message):
                return self._no_session(message, encoding, server_uri, bare)
            session = await self._new_session(message, digest, encoding, server_uri)
            if session is None:
                return Answer(status=503, code="too-many-sessions")
        elif session.authenticated and digest != session.first_digest and not hmac.compare_digest(token, session.token):
            _log.info("dm.foreign_message", session_id=session.session_id)
            return self._no_session(message, encoding, server_uri, bare)
        with structlog.contextvars.bound_contextvars(session_id=message.header.session_id):
            async with session.lock:
                reply = await self._converse(session, message, body, encoding, server_uri)
        return Answer(body=reply, content_type=bare)

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def _new_session(
        self, message: Message, digest: bytes, encoding: Encoding, server_uri: str
    ) -> LiveSession | None:
        header = message.header
        account = await self._store.read(lambda connection: find_account(connection, self._seal_key, header.source))
        token = secrets.token_urlsafe(12)
        engine = ServerSession(
            # A stranger gets a session like everybody else, with credentials that nobody has: no oracle.
            account=_dm_account(account or new_account(header.source, self._server_id, 0), self._server_id),
            server_uri=server_uri,
            resp_uri=f"{server_uri}?{SESSION_PARAMETER}={token}",
            session_id=header.session_id,
            encoding=encoding,
            max_msg_size=self._max_message,
            max_obj_size=self._max_object,
            new_nonce=new_nonce,
        )
        session = LiveSession(
            device_id=header.source,
            session_id=header.session_id,
            engine=engine,
            known=account is not None,
            recorded=account is not None,
            first_digest=digest,
            token=token,
        )
        try:
            self._registry.put(session)
        except RegistryFull:
            _log.warning("dm.full", sessions=len(self._registry))
            return None
        return session

    def _no_session(self, message: Message, encoding: Encoding, server_uri: str, content_type: str) -> Answer:
        """The session is over, was never there, or is somebody else's: the device may start a new one."""
        return Answer(body=_error(message, StatusCode.REQUEST_TIMEOUT, encoding, server_uri), content_type=content_type)

    # --- one message --------------------------------------------------------------------------------------------------

    async def _converse(
        self, session: LiveSession, message: Message, body: bytes, encoding: Encoding, server_uri: str
    ) -> bytes:
        self._registry.touch(session)
        engine = session.engine
        if session.replaced:
            return _error(message, StatusCode.CONFLICT, encoding, server_uri)
        try:
            events = engine.receive(message, self._conductor.now(), raw=body)
        except RemoteProtocolError as exc:
            _log.info("dm.protocol_error", reason=str(exc))
            return _error(message, exc.code, encoding, server_uri)
        if any(isinstance(event, DuplicateMessage) for event in events):
            _log.info("dm.duplicate", msg_id=message.header.msg_id)
            return engine.reply()
        first = engine.needs_decision and session.policy is None
        if first:
            session.policy = await self._conductor.policy_for(session.device_id)
        if any(isinstance(event, CredentialsRefused) for event in events) and not session.authenticated:
            session.recorded = session.known and self._registry.note_failure(session.device_id)
        self._record(session, message, len(body), "M2ME→DPF")
        heard = await self._hear(session, events)
        decision = await self._decide(session, message, heard) if engine.needs_decision else None
        reply = engine.reply(decision)
        self._record(session, decode(reply, encoding, max_size=len(reply)), len(reply), "DPF→M2ME")
        return reply

    async def _hear(self, session: LiveSession, events: list[Event]) -> _Heard:
        """Take note of events; nonces are in the database before the reply that announces them leaves."""
        heard = _Heard()
        for event in events:
            match event:
                case ClientAuthenticated():
                    session.authenticated = session.recorded = True
                    self._registry.note_success(session.device_id)
                    self._check_credentials(session, True, session.device_id)
                    self._registry.supersede(session)
                case CredentialsRefused(attempt=attempt, final=final) if not session.authenticated:
                    last = ", the last" if final else ""
                    self._check_credentials(session, False, f"{session.device_id}, attempt {attempt}{last}")
                case CredentialsRefused(attempt=attempt):
                    _log.info("dm.server_credentials_challenged", attempt=attempt)
                case NonceChanged(direction=direction, nonce=nonce) if session.known:
                    await self._store.write(_nonce_writer(session.device_id, direction, nonce))
                case AlertReceived(alert=alert):
                    heard.alerts.extend((alert.cmd_id, each) for each in _device_alerts(alert))
                case CommandAnswered():
                    heard.answered.append(event)
                case SessionAborted(reason=reason):
                    _log.info("dm.aborted", reason=reason)
        for _, news in heard.alerts:
            self._trail.note(
                f"alert {news.type.rpartition(':')[2][-64:]}: {news.data[:64]}",
                step=_step(session),
                order=_order_id(session),
            )
        return heard

    def _check_credentials(self, session: LiveSession, passed: bool, detail: str) -> None:
        if session.recorded:
            self._trail.check(
                "dm-credentials",
                passed,
                req=("REQ-13", "REQ-14"),
                step="7",
                detail=detail,
                order=_order_id(session),
            )
        else:  # anybody can do this without end: it goes to the log, which rotates, and not to the database
            _log.info("dm.credentials_refused", detail=detail)

    async def _decide(self, session: LiveSession, message: Message, heard: _Heard) -> Continue | Finish | Abort:
        alerts = tuple(alert for _, alert in heard.alerts)
        if session.policy is None:
            self._refuse_session(session, message, heard)
            return Finish()
        if not session.begun:
            session.begun = True
            session.policy, decision = await self._conductor.begin(session.policy, alerts)
            return decision
        return await self._conductor.go_on(session.policy, read_answers(heard.answered), alerts)

    def _refuse_session(self, session: LiveSession, message: Message, heard: _Heard) -> None:
        """No ongoing order (REQ-13): 403 to the session alert, nothing is sent; other news of the device are taken."""
        self._trail.check("ongoing-order", False, req=("REQ-13",), step="7", detail=session.device_id)
        refused = {each.cmd_id for each in message.commands if isinstance(each, Alert) and each.code in _SESSION_ALERTS}
        refused |= {cmd_id for cmd_id, alert in heard.alerts if alert.type == AlertType.REGISTRATION_REQUEST}
        for cmd_id in refused:
            session.engine.answer(cmd_id, StatusCode.FORBIDDEN)

    def _record(self, session: LiveSession, message: Message, octets: int, direction: str) -> None:
        if session.recorded:
            self._trail.message(
                step=_step(session),
                direction=direction,
                summary=summary(message),
                octets=octets,
                body=redacted_body(message),
                order=_order_id(session),
            )


def _opens_session(message: Message) -> bool:
    return any(isinstance(command, Alert) and command.code in _SESSION_ALERTS for command in message.commands)


def _step(session: LiveSession) -> str:
    return STEP_OF_STATE.get(session.policy.order.state, "9") if session.policy is not None else "7"


def _order_id(session: LiveSession) -> str | None:
    return session.policy.order.order_id if session.policy is not None else None


def _device_alerts(alert: Alert) -> list[DeviceAlert]:
    """Items of a generic alert; other alerts mean nothing to provisioning."""
    if alert.code != AlertCode.GENERIC_ALERT:
        return []
    return [
        DeviceAlert(
            type=(item.meta.type or "").strip() if item.meta is not None else "",
            source=item.source,
            data=item.data if isinstance(item.data, str) else "",
        )
        for item in alert.items
    ]


def _nonce_writer(device_id: str, direction: str, nonce: bytes) -> Callable[[Connection], None]:
    return lambda connection: set_nonce(connection, device_id, "client" if direction == "client" else "server", nonce)


def _dm_account(account: Account, server_id: str) -> DmAccount:
    return DmAccount(
        device_id=account.device_id,
        server_id=server_id,
        client_auth=account.client_auth,
        client_name=account.client_name,
        client_secret=account.client_secret,
        client_nonce=account.client_nonce,
        client_nonce_before=account.client_nonce_before,
        per_message=account.per_message,
        server_auth=account.server_auth,
        server_name=account.server_name,
        server_secret=account.server_secret,
        server_nonce=account.server_nonce,
        resync=account.resync,
        peer=account.peer,
    )


def _error(message: Message, code: int, encoding: Encoding, server_uri: str) -> bytes:
    """One Status on the SyncHdr, outside of what the session counts."""
    header = message.header
    return message_for_error(
        session_id=header.session_id,
        msg_id=header.msg_id,
        device_id=header.source,
        server_uri=server_uri,
        msg_ref=header.msg_id,
        code=code,
        encoding=encoding,
    )
