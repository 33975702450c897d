"""The DM endpoint: octets → message → session → events → policy → octets. One HTTP request is one SyncML message."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final

import structlog

from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from dmserver.bootstrap import new_account, new_nonce
from dmserver.conversation import SESSION_ALERTS, Conversation, Heard
from dmserver.media import media_of
from dmserver.sessions import LiveSession, RegistryFull, SessionRegistry
from dmserver.store.accounts import Account, find_account
from dmserver.unreadable import UnreadableTrace
from syncml.accounts import DmAccount
from syncml.codec import Encoding, decode
from syncml.codes import MediaType, StatusCode
from syncml.errors import MalformedMessage, MessageTooLarge
from syncml.model import Alert, Message
from syncml.server_session import ServerSession, message_for_error

SESSION_PARAMETER: Final = "s"
"""Query parameter of RespURI: whoever speaks in an authenticated session shows it, as SessionIDs can be guessed."""

GENEROSITY: Final = 2
"""Some devices overshoot our MaxMsgSize a little: a body is refused only above so many times of it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a device."""

    body: bytes = field(repr=False)
    content_type: str
    server_uri: str  # where devices reach us
    token: str = field(default="", repr=False)  # session parameter of the request
    mac: str | None = field(default=None, repr=False)  # header x-syncml-hmac


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to answer over HTTP. `code` is the problem code when `status` is no 200."""

    status: int = 200
    body: bytes = b""
    content_type: str = MediaType.DM_XML
    mac: str | None = field(default=None, repr=False)  # header x-syncml-hmac
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What every session tells of us."""

    server_id: str
    max_message: int  # octets
    max_object: int  # octets

    @property
    def hard_limit(self) -> int:
        """Octets of a body above which it is refused."""
        return GENEROSITY * self.max_message


class DmEndpoint:
    """All DM sessions of one process."""

    def __init__(
        self,
        *,
        announced: Announced,
        registry: SessionRegistry,
        conversation: Conversation,
        store: Store,
        seal_key: SealingKey,
        unreadable: UnreadableTrace,
    ) -> None:
        self.announced = announced
        self._unreadable = unreadable
        self._registry = registry
        self._conversation = conversation
        self._store = store
        self._seal_key = seal_key

    async def handle(self, request: Request) -> Answer:
        """Answer one request, in the encoding it came in."""
        media = media_of(request.content_type, request.body)
        if media is None:
            self._unreadable.note(request.body, request.content_type, "no media type of DM")
            return Answer(status=415, code="unsupported-media-type")
        try:
            message = decode(request.body, media.encoding, max_size=self.announced.hard_limit)
        except MessageTooLarge as exc:
            self._unreadable.note(request.body, request.content_type, f"MessageTooLarge: {exc}")
            return Answer(status=413, code="message-too-large")
        except MalformedMessage as exc:
            self._unreadable.note(request.body, request.content_type, f"{type(exc).__name__}: {exc}")
            return Answer(status=400, code="malformed-message")
        digest = hashlib.sha256(request.body).digest()
        session = self._registry.route(
            message.header.source,
            message.header.session_id,
            msg_id=message.header.msg_id,
            token=request.token,
            digest=digest,
            opens=_opens_session(message),
        )
        if session is not None and session.encoding is not media.encoding:
            session = None  # a session keeps to the encoding it began in, and an answer to that of its request
        if session is None:
            if not _opens_session(message):
                body = _no_session(message, media.encoding, request.server_uri)
                return Answer(body=body, content_type=media.answer_type)
            session = await self._new_session(message, digest, media.encoding, request.server_uri)
            if session is None:
                return Answer(status=503, code="too-many-sessions")
        heard = Heard(message=message, body=request.body, mac=request.mac)
        with structlog.contextvars.bound_contextvars(session_id=message.header.session_id):
            async with session.lock:
                reply = await self._conversation.answer(session, heard)
                session.last_digest, session.last_msg_id = digest, message.header.msg_id
        return Answer(body=reply.body, content_type=media.answer_type, mac=reply.mac)

    async def _new_session(
        self, message: Message, digest: bytes, encoding: Encoding, server_uri: str
    ) -> LiveSession | None:
        header = message.header
        account = await self._store.read(lambda connection: find_account(connection, self._seal_key, header.source))
        token = secrets.token_urlsafe(12)
        server_id = self.announced.server_id
        engine = ServerSession(
            # A stranger gets a session like everybody else, with credentials that nobody has: no oracle.
            account=dm_account(account or new_account(header.source, server_id, 0), server_id),
            server_uri=server_uri,
            resp_uri=f"{server_uri}?{SESSION_PARAMETER}={token}",
            session_id=header.session_id,
            encoding=encoding,
            max_msg_size=self.announced.max_message,
            max_obj_size=self.announced.max_object,
            new_nonce=new_nonce,
        )
        session = LiveSession(
            device_id=header.source,
            session_id=header.session_id,
            engine=engine,
            encoding=encoding,
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


def _opens_session(message: Message) -> bool:
    return any(isinstance(command, Alert) and command.code in SESSION_ALERTS for command in message.commands)


def dm_account(account: Account, server_id: str) -> DmAccount:
    """The account as the session engine takes it."""
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


def _no_session(message: Message, encoding: Encoding, server_uri: str) -> bytes:
    """The session is over, was never there, or is somebody else's: the device may start a new one."""
    header = message.header
    return message_for_error(
        session_id=header.session_id,
        msg_id=header.msg_id,
        device_id=header.source,
        server_uri=server_uri,
        msg_ref=header.msg_id,
        code=StatusCode.REQUEST_TIMEOUT,
        encoding=encoding,
    )
