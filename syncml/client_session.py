"""Client side of one management session (OMA-TS-DM_Protocol-V1_2 §8, OMA-TS-DM_Security-V1_2 §5.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from syncml.auth import Credentials
from syncml.codec import Encoding, encode
from syncml.codes import AlertCode, AuthType, StatusCode
from syncml.errors import CommandOutOfPhase
from syncml.model import (
    Add,
    Alert,
    Atomic,
    Chal,
    Command,
    Copy,
    Delete,
    Exec,
    Get,
    Item,
    Message,
    Meta,
    Replace,
    Results,
    Sequence,
    Status,
    SyncHdr,
    UnknownCommand,
    walk,
)
from syncml.session import (
    MAX_CREDENTIAL_ATTEMPTS,
    MAX_MESSAGES,
    NEXT,
    CommandReceived,
    CredentialsRefused,
    Event,
    NewNonce,
    NonceChanged,
    Outbox,
    OutOfOrder,
    Phase,
    Reassembly,
    ServerAuthenticated,
    SessionAborted,
    SessionClosed,
    StatusReceived,
    check_versions,
    items_of,
)

_REFUSALS = (StatusCode.INVALID_CREDENTIALS, StatusCode.MISSING_CREDENTIALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAccount:
    """The device's view of one DM account. Nonces are raw octets; `server_auth` None: TLS alone suffices."""

    server_id: str
    server_uri: str
    client_auth: AuthType = AuthType.MD5
    client_name: str
    client_secret: str = field(repr=False)
    client_nonce: bytes = field(default=b"", repr=False)  # the one the server issued last
    server_auth: AuthType | None = AuthType.MD5
    server_name: str = ""
    server_secret: str = field(default="", repr=False)
    server_nonce: bytes = field(default=b"", repr=False)  # the one we issued last


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """Outcome of one command, one of its Items (`target`), or one child of a group (`cmd_id`)."""

    cmd_id: str
    code: int
    target: str | None = None  # as received; None: the whole command
    source: str | None = None
    item: Item | None = None  # what a Get found; its `source` is the node
    detail: tuple[Item, ...] = ()


class ClientSession:
    """One session with one server. `start` gives package 1; then `receive` and `reply` until `reply` gives None."""

    def __init__(
        self,
        *,
        account: ClientAccount,
        device_id: str,
        session_id: str,
        dev_info: dict[str, str],
        start: AlertCode,
        max_msg_size: int,
        max_obj_size: int,
        encoding: Encoding,
        new_nonce: NewNonce,
        alerts: tuple[Alert, ...] = (),
    ) -> None:
        self.account = account
        self.device_id = device_id
        self.session_id = session_id
        self.dev_info = dev_info
        self.start_alert = start
        self.alerts = alerts
        self.max_msg_size = max_msg_size
        self.max_obj_size = max_obj_size
        self.phase = Phase.SETUP
        self.target_uri = account.server_uri
        self._new_nonce = new_nonce
        self._client = Credentials(
            type=account.client_auth, name=account.client_name, secret=account.client_secret, nonce=account.client_nonce
        )
        self._server = (
            None
            if account.server_auth is None
            else Credentials(
                type=account.server_auth,
                name=account.server_name,
                secret=account.server_secret,
                nonce=account.server_nonce,
            )
        )
        self._known_to_server = False
        self._server_known = False
        self._owes_nonce = False  # the server is authenticated, and has no nonce yet for the next session
        self._attempts = 0
        self._server_attempts = 0
        self._stored_nonce: bytes | None = None  # from a server not authenticated yet
        self._msg_id = 0
        self._peer_msg_id: str | None = None
        self._sent_alerts: dict[str, Alert] = {}
        self._outbox = Outbox(encoding)
        self._incoming = Reassembly(limit=max_obj_size)
        self._header: SyncHdr | None = None
        self._header_status: tuple[int, Chal | None] = (StatusCode.OK, None)
        self._answers: list[tuple[Command, list[CommandResult]]] = []
        self._resend_package_1 = False
        self._ask_for_more = False
        self._extra: list[Command] = []

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self.phase is Phase.CLOSED

    def start(self) -> bytes:
        """Package 1: credentials as far as known, the alert, DevInfo, and the alerts given."""
        return self._send(self._package_1(), final=True)

    def _package_1(self) -> list[Command]:
        info = tuple(Item(source=uri, data=value) for uri, value in self.dev_info.items())
        return [Alert(code=self.start_alert), Replace(items=info), *self.alerts]

    # -- receiving -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, now: datetime, *, raw: bytes = b"") -> list[Event]:
        """Take one decoded message of the server; say what happened, in document order.

        Commands come as `CommandReceived` only from an authenticated server. The caller executes each and gives the
        outcome to `answer`.

        Raises:
            OutOfOrder: another session, or a message that came before.
            CommandOutOfPhase: the session is closed, or too long.
        """
        header = message.header
        if header.session_id != self.session_id or header.msg_id == self._peer_msg_id:
            raise OutOfOrder("a message of another session, or an old one")
        if self.closed or self._msg_id >= MAX_MESSAGES:
            self.phase = Phase.CLOSED
            raise CommandOutOfPhase("the session is over")
        self._peer_msg_id = header.msg_id
        self._header = header
        self._answers, self._extra = [], []
        self._resend_package_1 = self._ask_for_more = False
        self._outbox.learn(header.meta)
        if header.resp_uri:
            self.target_uri = header.resp_uri
        if (unsupported := check_versions(header)) is not None:
            return [self._move(SessionAborted(f"the server speaks another version: {unsupported}"))]
        events: list[Event] = []
        if not self._judged_by_server(message, events):
            return events
        if not self._judge_server(message, events):
            return events
        for command in message.commands:
            self._take(command, events)
            if self.closed:
                return events
        # "Next message" of the server asks for the rest of our package; any other message without Final is not all.
        asked = any(isinstance(c, Alert) and c.code == AlertCode.NEXT_MESSAGE for c in message.commands)
        self._ask_for_more = not message.final and not asked
        announced = any(isinstance(event, CommandReceived) for event in events)
        owes = announced or self._answers or self._extra or not self._outbox.empty or self._ask_for_more
        if not owes:
            events.append(self._move(SessionClosed("done")))
        elif self._owes_nonce and self._server is not None:
            self._server = self._next_nonce(self._server, events)
        return events

    def _next_nonce(self, server: Credentials, events: list[Event]) -> Credentials:
        """A new nonce for the next session. Only when there is a message to carry it: else the server never hears of
        it, and what it proves itself with next time would be wrong."""
        self._owes_nonce = False
        server = replace(server, nonce=self._new_nonce())
        self._header_status = (StatusCode.AUTHENTICATION_ACCEPTED, server.challenge())
        events.append(NonceChanged(direction="server", nonce=server.nonce))
        return server

    def _move(self, event: Event) -> Event:
        try:
            self.phase = NEXT[self.phase, type(event)]
        except KeyError:
            name = type(event).__name__
            phase, self.phase = self.phase, Phase.CLOSED
            raise CommandOutOfPhase(f"{name} in phase {phase.name}") from None
        return event

    def _judged_by_server(self, message: Message, events: list[Event]) -> bool:
        """The Status of our header: accepted, or a challenge."""
        for status in message.commands:
            if not isinstance(status, Status) or status.cmd_ref != "0":
                continue
            nonce = status.chal.next_nonce if status.chal is not None else None
            if status.code in _REFUSALS:
                self._attempts += 1
                final = status.chal is None or self._attempts >= MAX_CREDENTIAL_ATTEMPTS
                events.append(self._move(CredentialsRefused(attempt=self._attempts, final=final)))
                wanted = status.chal.type.lower() if status.chal is not None else ""
                if final or wanted != self._client.type.lower():  # another type, or a weaker one, ends the session
                    events.append(self._move(SessionClosed("the server does not accept our credentials")))
                    return False
                # The nonce of a peer not authenticated yet serves this answer and is not stored.
                self._client = replace(self._client, nonce=nonce or b"")
                self._resend_package_1 = True
                self._header_status = (StatusCode.OK, None)
                return False
            if status.code >= 300:
                events.append(self._move(SessionClosed(f"the server answers {status.code}")))
                return False
            self._known_to_server = status.code == StatusCode.AUTHENTICATION_ACCEPTED or self._known_to_server
            if nonce is not None:
                self._client = replace(self._client, nonce=nonce)
                self._stored_nonce = nonce
        return True

    def _judge_server(self, message: Message, events: list[Event]) -> bool:
        self._header_status = (StatusCode.OK, None)
        if not self._server_known:
            cred = message.header.cred
            if self._server is not None and not self._server.accepts(cred):
                return self._refuse_server(message, cred is None, events)
            self._server_known = True
            events.append(self._move(ServerAuthenticated()))
            if self._server is not None:
                self._header_status = (StatusCode.AUTHENTICATION_ACCEPTED, None)
            self._owes_nonce = self._server is not None and self._server.type is not AuthType.BASIC
        if self._stored_nonce is not None:
            events.append(NonceChanged(direction="client", nonce=self._stored_nonce))
            self._stored_nonce = None
        return True

    def _refuse_server(self, message: Message, missing: bool, events: list[Event]) -> bool:
        """Nothing of an unauthenticated server is executed (OMA-TS-DM_Security-V1_2 §5.3)."""
        self._server_attempts += 1
        commands = [c for c in message.commands if not isinstance(c, Status)]
        final = self._server_attempts >= MAX_CREDENTIAL_ATTEMPTS
        events.append(self._move(CredentialsRefused(attempt=self._server_attempts, final=final)))
        if self._server is None or not commands or final:  # no bare challenge; no endless one
            events.append(self._move(SessionClosed("the server does not prove who it is")))
            return False
        code = StatusCode.MISSING_CREDENTIALS if missing else StatusCode.INVALID_CREDENTIALS
        self._server = replace(self._server, nonce=self._new_nonce())
        self._header_status = (code, self._server.challenge())
        self._answers = [
            (command, [CommandResult(cmd_id=command.cmd_id, code=code)]) for command in walk(tuple(commands))
        ]
        return False

    def _take(self, command: Command, events: list[Event]) -> None:
        match command:
            case Status():
                alert = self._sent_alerts.get(command.cmd_ref)
                if alert is not None and command.cmd_ref != "0":
                    events.append(StatusReceived(alert=alert, code=command.code))
                    if alert.code in (AlertCode.SERVER_INITIATED_MGMT, AlertCode.CLIENT_INITIATED_MGMT) and (
                        command.code >= 300
                    ):
                        events.append(self._move(SessionClosed(f"the server refuses the session: {command.code}")))
                return
            case Alert(code=AlertCode.NEXT_MESSAGE):
                self._done(command, StatusCode.OK)
            case Alert(code=AlertCode.SESSION_ABORT):
                events.append(self._move(SessionAborted("the server aborted the session")))
            case Alert(code=None):
                self._done(command, StatusCode.INCOMPLETE_COMMAND)
            case Alert() | UnknownCommand() | Results():
                self._done(command, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)
            case Atomic() | Sequence():
                self._interrupt(command)
                events.append(self._move(CommandReceived(command)))
            case Add() | Replace() | Delete() | Get() | Copy() | Exec():
                self._take_items(command, events)

    def _take_items(self, command: Add | Replace | Delete | Get | Copy | Exec, events: list[Event]) -> None:
        self._interrupt(command)
        items: list[Item] = []
        for item in items_of(command):
            merged = item
            if command.meta is not None and item.more_data:
                merged = replace(item, meta=command.meta.inherited_by(item.meta))
            whole = self._incoming.take(command.name, merged)
            if not isinstance(whole, Item):
                self._done(command, whole, target=item.target)
                if whole == StatusCode.CHUNK_ACCEPTED:
                    self._extra = [Alert(code=AlertCode.NEXT_MESSAGE)]
                return
            items.append(whole)
        if not items:
            self._done(command, StatusCode.INCOMPLETE_COMMAND)
            return
        events.append(self._move(CommandReceived(replace(command, items=tuple(items)))))

    def _interrupt(self, command: Command) -> None:
        """Something else before the last chunk: say so and forget the object (Alert 1225)."""
        if self._incoming.interrupted_by(command.name, items_of(command)):
            uri = self._incoming.key[1] if self._incoming.key else ""
            self._extra = [Alert(code=AlertCode.NO_END_OF_DATA, items=(Item(target=uri),))]
            self._incoming.drop()

    def _done(self, command: Command, code: int, *, target: str | None = None) -> None:
        self._answers.append((command, [CommandResult(cmd_id=command.cmd_id, code=code, target=target)]))

    # -- answering -----------------------------------------------------------------------------------------------

    def answer(self, command: Command, results: Iterable[CommandResult]) -> None:
        """Give the outcome of a command that `receive` announced: one result for the whole, or one for each Item;
        for a group, that of the group and those of its children.
        """
        self._answers.append((command, list(results)))

    def reply(self) -> bytes | None:
        """The encoded next message; None when the session is over and nothing may be sent."""
        if self.closed:
            return None
        if self._resend_package_1:
            return self._send(self._package_1(), final=True, status=True)
        statuses: list[Command] = []
        found: list[Command] = []
        for command, results in self._answers:
            self._outcome(command, results, statuses, found)
        queue = [*statuses, *found]
        complete = not self._ask_for_more
        pending = [*self._outbox.queue, *queue, *self._extra]
        if self._ask_for_more and not any(isinstance(c, Alert) for c in self._extra):
            pending.append(Alert(code=AlertCode.NEXT_MESSAGE))
        return self._send(pending, final=complete, status=True)

    def _outcome(
        self, command: Command, results: list[CommandResult], statuses: list[Command], found: list[Command]
    ) -> None:
        header = self._header
        msg_ref = header.msg_id if header is not None else ""
        names = {child.cmd_id: child for child in walk((command,))}
        for result in results:
            answered = names[result.cmd_id]
            statuses.append(
                Status(
                    msg_ref=msg_ref,
                    cmd_ref=result.cmd_id,
                    cmd=answered.name,
                    code=result.code,
                    target_refs=() if result.target is None else (result.target,),
                    source_refs=() if result.source is None else (result.source,),
                    items=result.detail,
                )
            )
            if result.item is not None and isinstance(answered, Get):
                found.append(Results(msg_ref=msg_ref, cmd_ref=result.cmd_id, items=(result.item,)))

    def _send(self, commands: list[Command], *, final: bool, status: bool = False) -> bytes:
        self._msg_id += 1
        answers: tuple[Command, ...] = ()
        if status and self._header is not None:
            code, chal = self._header_status
            answers = (
                Status(
                    msg_ref=self._header.msg_id,
                    cmd_ref="0",
                    cmd="SyncHdr",
                    code=code,
                    chal=chal,
                    target_refs=(self._header.target,),
                    source_refs=(self._header.source,),
                ),
            )
        self._outbox.queue = commands
        message, sent, refused = self._outbox.fill(self._reply_header(), answers, final=final)
        if refused:
            self._outbox.queue = [*sent, *self._outbox.queue]
            message, sent = self._replace_refused(refused, answers, final)
        carried = message.commands[-len(sent) :] if sent else ()
        self._sent_alerts = {
            on_wire.cmd_id: command
            for on_wire, command in zip(carried, sent, strict=True)
            if isinstance(command, Alert)
        }
        return encode(message, self._outbox.encoding)

    def _replace_refused(
        self, refused: list[Command], answers: tuple[Command, ...], final: bool
    ) -> tuple[Message, list[Command]]:
        """Results the server cannot take become Status 413 of their Get."""
        late: list[Command] = []
        for command in refused:
            if isinstance(command, Results):
                late.append(
                    Status(
                        msg_ref=command.msg_ref,
                        cmd_ref=command.cmd_ref,
                        cmd="Get",
                        code=StatusCode.REQUEST_ENTITY_TOO_LARGE,
                        target_refs=tuple(i.source for i in command.items if i.source is not None),
                    )
                )
        self._outbox.queue = [*late, *self._outbox.queue]
        message, sent, _ = self._outbox.fill(self._reply_header(), answers, final=final)
        return message, sent

    def _reply_header(self) -> SyncHdr:
        return SyncHdr(
            session_id=self.session_id,
            msg_id=str(self._msg_id),
            target=self.target_uri,
            source=self.device_id,
            source_name=self.account.client_name,
            cred=None if self._known_to_server else self._client.prove(),
            meta=Meta(max_msg_size=self.max_msg_size, max_obj_size=self.max_obj_size),
        )
