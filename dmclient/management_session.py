"""One DM session from package 1 to its end: the session engine, the executor and the transport in one loop."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import structlog

from actor_runtime.traced import octets_text
from dmclient.alerts import is_foreign
from dmclient.dm_account import client_account, is_secure, store_nonce
from dmclient.dm_device import DmDevice
from dmclient.executor import Executor
from dmclient.http_transport import HttpAnswer, ServerNotAuthenticated, TransportFailed
from dmclient.message_trace import redacted, summary
from mo_definitions.standard import CLCRED, SRVCRED
from syncml.client_session import ClientSession
from syncml.codec import Encoding, decode
from syncml.codes import AlertCode, StatusCode
from syncml.errors import LocalProtocolError, MalformedMessage, RemoteProtocolError
from syncml.session import (
    CommandReceived,
    CredentialsRefused,
    NonceChanged,
    ServerAuthenticated,
    SessionAborted,
    SessionClosed,
    StatusReceived,
)

NONCE_LENGTH: Final = 16  # octets of a nonce we issue
MAX_EXCHANGES: Final = 500  # messages of one session; a server that needs more is not going to end
UNWELCOME: Final = frozenset({StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, StatusCode.UNSUPPORTED_MEDIA_TYPE_OR_FORMAT})
"""Statuses that say the server will never take such an alert; it would be sent in vain for ever."""

_log = structlog.get_logger(__name__)


class Transport(Protocol):
    """How messages travel."""

    async def post(self, url: str, body: bytes, encoding: Encoding, mac: str | None = None) -> HttpAnswer:
        """Send a message and its `x-syncml-hmac`, return the server's next; see `HttpTransport.post`."""


class SessionFailed(Exception):
    """The session broke off; what was not acknowledged is sent again in the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How the device speaks DM."""

    max_msg_size: int = 4096  # octets we accept in one message
    max_obj_size: int = 524288  # octets of one large object
    encoding: Encoding = Encoding.XML
    trace_octets: bool = False  # answers that are no message stand in the trace with what they hold


@dataclass(slots=True)
class SessionReport:
    """What a session brought, beside changes of the tree."""

    taken: list[str] = field(default_factory=list)  # types of the alerts the server took
    refused: list[tuple[str, int]] = field(default_factory=list)  # alerts (type or code) it refused, with the Status
    commands: int = 0  # commands executed
    failure: str = ""  # why the session ended other than well; empty: it did not


async def run_session(
    device: DmDevice,
    server_id: str,
    transport: Transport,
    settings: SessionSettings,
    *,
    step: str,
    start: AlertCode = AlertCode.CLIENT_INITIATED_MGMT,
    session_id: str | None = None,
    resync: bool = False,
    new_nonce: Callable[[], bytes] = lambda: secrets.token_bytes(NONCE_LENGTH),
) -> SessionReport:
    """Run one session with the server of that account; `step` is the step of the scheme for the trail.

    Args:
        session_id: that of the notification which called for the session; None: the device chooses.
        resync: the notification was made with the special nonce, so credentials are too
            (OMA-TS-DM_Security-V1_2 §5.3).

    Raises:
        ServerNotAuthenticated: TLS refused the server; nothing was sent.
        SessionFailed: no account, or one that cannot be used, the connection broke, or the server broke the protocol.
    """
    account = client_account(device.tree.nodes, server_id, tls=True)
    if account is None:
        raise SessionFailed(f"no usable account for {server_id}")
    if account.server_auth is None and not is_secure(account.server_uri):
        raise ServerNotAuthenticated("the server has neither TLS nor credentials to prove itself with")
    account = replace(account, server_nonce_before=device.previous_nonces.get(server_id, b""), resync=resync)
    session = ClientSession(
        account=account,
        device_id=device.device_id,
        session_id=session_id or device.next_session_id(),
        dev_info=device.dev_info,
        start=start,
        alerts=device.alerts.alerts(server_id),
        max_msg_size=settings.max_msg_size,
        max_obj_size=settings.max_obj_size,
        encoding=settings.encoding,
        new_nonce=new_nonce,
    )
    runner = _Runner(device, server_id, session, settings, step)
    try:
        body: bytes | None = session.start()
        for _ in range(MAX_EXCHANGES):
            if body is None:
                return runner.report
            runner.sent(body)
            if account.server_auth is None and not is_secure(session.target_uri):
                raise ServerNotAuthenticated("RespURI leads away from TLS, the only proof of who the server is")
            answer = await transport.post(session.target_uri, body, settings.encoding, session.mac_header)
            runner.tls_passed()
            if session.closed:
                return runner.report  # that was our last word
            await runner.receive(answer)
            body = session.reply()
            device.save()  # tree, nonces and alerts are on disk before the answer that depends on them leaves
    except ServerNotAuthenticated:
        device.trail.check("tls-server-authenticated", False, req=("REQ-09",), step="7")
        raise
    except TransportFailed as error:
        if session.closed:  # our last word did not arrive; why we said it counts for more
            return runner.report
        raise SessionFailed(str(error)) from error
    except RemoteProtocolError as error:
        raise SessionFailed(f"the server broke the protocol: {error}") from error
    except LocalProtocolError as error:  # a server may have written such a user name into its account, for instance
        raise SessionFailed(f"what the tree holds cannot be sent: {error}") from error
    finally:
        device.save()
    raise SessionFailed("the session does not come to an end")


class _Runner:
    """Turns the events of one session into changes of the device."""

    def __init__(
        self, device: DmDevice, server_id: str, session: ClientSession, settings: SessionSettings, step: str
    ) -> None:
        self.report = SessionReport()
        self._device = device
        self._server_id = server_id
        self._session = session
        self._settings = settings
        self._step = step
        self._executor = Executor(device.tree, server_id, device.surroundings(settings.encoding))
        self._tls_noted = False
        self._authenticated = False
        self._credentials_refused = False

    def tls_passed(self) -> None:
        """An answer came over a connection whose certificate was checked."""
        if not self._tls_noted and is_secure(self._session.target_uri):
            self._device.trail.check("tls-server-authenticated", True, req=("REQ-09",), step="7")
        self._tls_noted = True

    def sent(self, body: bytes) -> None:
        """Note a message of ours."""
        message = decode(body, self._settings.encoding, max_size=len(body))
        self._device.trail.message(
            step=self._step,
            direction="M2ME→DPF",
            summary=summary(message),
            octets=len(body),
            body=redacted(message),
        )

    async def receive(self, answer: HttpAnswer) -> None:
        """Take a message of the server and do what it asks."""
        try:
            message = decode(answer.body, answer.encoding, max_size=self._settings.max_msg_size)
        except MalformedMessage as error:
            self._device.trail.unreadable(
                step=self._step,
                direction="DPF→M2ME",
                summary=f"{type(error).__name__}: {error}",
                octets=len(answer.body),
                content_type=answer.encoding.media_type,
                received=octets_text(answer.body) if self._settings.trace_octets else None,
            )
            raise
        self._device.trail.message(
            step=self._step,
            direction="DPF→M2ME",
            summary=summary(message),
            octets=len(answer.body),
            body=redacted(message),
        )
        self._executor.begin_message()
        for event in self._session.receive(message, self._device.now(), raw=answer.body, mac=answer.mac):
            match event:
                case CommandReceived():
                    self.report.commands += 1
                    self._session.answer(event.command, await self._executor.execute(event.command))
                    self._session.announce(*self._device.alerts.take_urgent())
                case ServerAuthenticated():
                    self._authenticated = True
                    self._device.trail.check("dm-server-authenticated", True, req=("REQ-09",), step="7")
                case NonceChanged(direction="client"):
                    store_nonce(self._device.tree.nodes, self._server_id, CLCRED, event.nonce)
                case NonceChanged():
                    self._keep_server_nonce(event.nonce)
                case StatusReceived():
                    self._alert_answered(event)
                case CredentialsRefused():
                    self._device.trail.note(f"DM credentials refused, attempt {event.attempt}", step="7")
                    self._credentials_refused = True
                case SessionAborted():
                    self.report.failure = event.reason
                case SessionClosed():
                    self._closed(event)

    def _closed(self, event: SessionClosed) -> None:
        """A session has failed that ends before both sides are authenticated, or because the server broke it off."""
        _log.debug("session.closed", reason=event.reason)
        if self._authenticated and event.orderly:
            return
        self.report.failure = event.reason
        if self._credentials_refused and not self._authenticated:
            self._device.trail.check("dm-mutual-authentication", False, req=("REQ-09",), step="7", detail=event.reason)

    def _keep_server_nonce(self, nonce: bytes) -> None:
        """A nonce that the next message brings to the server. That message may get lost, so the one before is kept."""
        nodes = self._device.tree.nodes
        account = client_account(nodes, self._server_id, tls=True)
        if account is not None:
            self._device.previous_nonces[self._server_id] = account.server_nonce
            store_nonce(nodes, self._server_id, SRVCRED, nonce)

    def _alert_answered(self, event: StatusReceived) -> None:
        """REQ-67: an alert stays until the server took it: with 200, and what is no report of ours with 202 as well."""
        taken = event.code == StatusCode.OK or (
            event.code == StatusCode.ACCEPTED_FOR_PROCESSING and is_foreign(event.alert)
        )
        if taken or event.code in UNWELCOME:
            forgotten = self._device.alerts.forget(event.alert, self._server_id)
            if forgotten is not None and taken:
                self.report.taken.append(forgotten)
        elif event.code >= StatusCode.BAD_REQUEST and event.code not in (
            StatusCode.INVALID_CREDENTIALS,
            StatusCode.MISSING_CREDENTIALS,
        ):
            types = [item.meta.type for item in event.alert.items if item.meta is not None and item.meta.type]
            name = types[0].rsplit(":", 1)[-1] if types else str(event.alert.code)
            self.report.refused.append((name, event.code))
