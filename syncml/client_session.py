"""Client side of one management session (OMA-TS-DM_Protocol-V1_2 §8, OMA-TS-DM_Security-V1_2 §5.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from syncml.accounts import ClientAccount
from syncml.auth import Credentials
from syncml.codec import Encoding, encode
from syncml.codes import AlertCode, AuthType, Format, MediaType, StatusCode
from syncml.errors import CommandOutOfPhase, LocalProtocolError, OutOfOrder, PeerLimitTooSmall
from syncml.large_object import Reassembly
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
from syncml.outbox import Ending, Outbox
from syncml.session import (
    MAX_CREDENTIAL_ATTEMPTS,
    MAX_MESSAGES,
    ClientAuthenticated,
    CommandReceived,
    CredentialsRefused,
    DuplicateMessage,
    Event,
    NewNonce,
    NonceChanged,
    Phase,
    ServerAuthenticated,
    SessionAborted,
    SessionClosed,
    StatusReceived,
    check_versions,
    next_phase,
)

_REFUSALS = (StatusCode.INVALID_CREDENTIALS, StatusCode.MISSING_CREDENTIALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """Outcome of one command, one of its Items (`target`), or one child of a group (`cmd_id`)."""

    cmd_id: str
    code: int
    target: str | None = None  # as received; None: the whole command
    source: str | None = None
    item: Item | None = None  # what a Get found; its `source` is the node
    more_items: tuple[Item, ...] = ()  # the rest of it, when `?list=` found several nodes
    detail: tuple[Item, ...] = ()


@dataclass(slots=True)
class _Answer:
    """A command of the server, and its outcome once that is known."""

    command: Command
    results: list[CommandResult] | None


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
        self._duplicate = False
        self._cached: bytes | None = None  # our last message
        self._sent_alerts: dict[str, Alert] = {}  # CmdID in our last message → alert
        self._held: list[StatusReceived] = []  # what an unauthenticated server said of our alerts
        self._outbox = Outbox(encoding)
        self._incoming = Reassembly(limit=max_obj_size)
        self._header: SyncHdr | None = None
        self._header_status: tuple[int, Chal | None] = (StatusCode.OK, None)
        self._answers: list[_Answer] = []  # in the order of the server's commands
        self._resend_package_1 = False
        self._ask_for_more = False
        self._aborting = False

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self.phase is Phase.CLOSED

    def start(self) -> bytes:
        """Package 1: credentials as far as known, the alert, DevInfo, and the alerts given."""
        self._outbox.put(*self._package_1())
        return self._send(Ending.FINAL)

    def _package_1(self) -> list[Command]:
        info = tuple(Item(source=uri, data=value) for uri, value in self.dev_info.items())
        meta = Meta(format=Format.CHR, type=MediaType.TEXT)
        return [Alert(code=self.start_alert), Replace(meta=meta, items=info), *self.alerts]

    # -- receiving -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, now: datetime, *, raw: bytes = b"") -> list[Event]:
        """Take one decoded message of the server; say what happened, in document order.

        Commands come as `CommandReceived` only from an authenticated server. The caller executes each and gives the
        outcome to `answer`.

        Raises:
            OutOfOrder: another session.
            CommandOutOfPhase: the session is closed, or too long.
            PeerLimitTooSmall: no message of ours can keep to the server's MaxMsgSize; the session is closed.
                Any other exception out of here is a bug in this package.
        """
        header = message.header
        if header.session_id != self.session_id:
            raise OutOfOrder("a message of another session")
        if header.msg_id == self._peer_msg_id:
            self._duplicate = True
            return [DuplicateMessage()]
        if self.closed or self._msg_id >= MAX_MESSAGES:
            self.phase = Phase.CLOSED
            raise CommandOutOfPhase("the session is over")
        try:
            self._outbox.learn(header.meta)
        except PeerLimitTooSmall:
            self.phase = Phase.CLOSED
            raise
        self._duplicate = False
        self._peer_msg_id = header.msg_id
        self._header = header
        self._answers = []
        self._resend_package_1 = self._ask_for_more = False
        if header.resp_uri:
            self.target_uri = header.resp_uri
        if (unsupported := check_versions(header)) is not None:
            return [self._move(SessionAborted(f"the server speaks another version: {unsupported}"))]
        events: list[Event] = []
        if not self._judged_by_server(message, events):
            return events
        if not self._judge_server(message, events):
            return events
        held, self._held = self._held, []
        for heard in held:
            self._hear(heard, events)
        for command in message.commands:
            if self.closed:
                break
            self._take(command, events)
        if self.closed:
            return events
        chunk = any(each.code == StatusCode.CHUNK_ACCEPTED for a in self._answers for each in a.results or ())
        final = message.final and not chunk  # MoreData says more than a Final beside it
        if final:
            if self._incoming.open:
                self._say_no_end_of_data()
            self._incoming.end_package()
        # "Next message" of the server asks for the rest of our package; any other message without Final is not all.
        asked = any(isinstance(c, Alert) and c.code == AlertCode.NEXT_MESSAGE for c in message.commands)
        self._ask_for_more = not final and not asked
        owes = self._answers or not self._outbox.empty or self._ask_for_more
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
            self.phase = next_phase(self.phase, event)
        except CommandOutOfPhase:
            self.phase = Phase.CLOSED
            raise
        return event

    def _judged_by_server(self, message: Message, events: list[Event]) -> bool:
        """The Status of our header: accepted, or a challenge."""
        for status in message.commands:
            if not isinstance(status, Status) or status.cmd_ref != "0":
                continue
            nonce = status.chal.next_nonce if status.chal is not None else None
            if status.code in _REFUSALS:
                return self._challenged(status.chal, events)
            if status.code >= 300:
                events.append(self._move(SessionClosed(f"the server answers {status.code}")))
                return False
            if status.code == StatusCode.AUTHENTICATION_ACCEPTED and not self._known_to_server:
                self._known_to_server = True
                events.append(self._move(ClientAuthenticated()))
            if nonce is not None:
                self._client = replace(self._client, nonce=nonce)
                self._stored_nonce = nonce
        return True

    def _challenged(self, chal: Chal | None, events: list[Event]) -> bool:
        """Package 1 again, if the challenge is one we can meet; always False: nothing else of the message counts."""
        self._attempts += 1
        nonce = (chal.next_nonce if chal is not None else None) or b""
        again = nonce == self._client.nonce  # these very credentials were refused
        final = chal is None or again or self._attempts >= MAX_CREDENTIAL_ATTEMPTS
        events.append(self._move(CredentialsRefused(attempt=self._attempts, final=final)))
        if chal is None or final or chal.type.lower() != self._client.type.lower():
            # Another type, or a weaker one, ends the session too.
            events.append(self._move(SessionClosed("the server does not accept our credentials")))
            return False
        # The nonce of a peer not authenticated yet serves this answer and is not stored.
        self._client = replace(self._client, nonce=nonce)
        self._known_to_server = False
        self._resend_package_1 = True
        self._header_status = (StatusCode.OK, None)
        return False

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
        # What it says of our alerts it will not say again: believed once it is authenticated.
        self._held += [heard for command in message.commands if (heard := self._heard(command)) is not None]
        code = StatusCode.MISSING_CREDENTIALS if missing else StatusCode.INVALID_CREDENTIALS
        self._server = replace(self._server, nonce=self._new_nonce())
        self._header_status = (code, self._server.challenge())
        self._answers = [
            _Answer(command, [CommandResult(cmd_id=command.cmd_id, code=code)]) for command in walk(tuple(commands))
        ]
        return False

    def _take(self, command: Command, events: list[Event]) -> None:
        if not isinstance(command, Status) and not self._is_named(command):
            self._done(command, StatusCode.BAD_REQUEST)  # CmdID is mandatory and unique in a message
            return
        match command:
            case Status():
                self._take_status(command, events)
            case Alert(code=AlertCode.NEXT_MESSAGE):
                self._done(command, StatusCode.OK)
            case Alert(code=AlertCode.NO_END_OF_DATA):
                self._outbox.abandon_object()
                self._done(command, StatusCode.OK)
            case Alert(code=AlertCode.SESSION_ABORT):
                events.append(self._move(SessionAborted("the server aborted the session")))
            case Alert(code=None):
                self._done(command, StatusCode.INCOMPLETE_COMMAND)
            case Alert() | UnknownCommand() | Results():
                self._done(command, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)
            case Atomic() | Sequence():
                self._interrupt(command, ())
                self._announce(command, events)
            case Add() | Replace() | Delete() | Get() | Copy() | Exec():
                self._take_items(command, events)

    def _is_named(self, command: Command) -> bool:
        taken = {each.cmd_id for answer in self._answers for each in walk((answer.command,))}
        own = [each.cmd_id for each in walk((command,))]
        return all(own) and len(set(own)) == len(own) and taken.isdisjoint(own)

    def _take_status(self, status: Status, events: list[Event]) -> None:
        if status.cmd == Results.__name__ and status.code >= 300:
            self._outbox.abandon_object()
        if (heard := self._heard(status)) is not None:
            self._hear(heard, events)

    def _heard(self, command: Command) -> StatusReceived | None:
        """What a Status says of an alert in our last message."""
        if not isinstance(command, Status) or (alert := self._sent_alerts.get(command.cmd_ref)) is None:
            return None
        return StatusReceived(alert=alert, code=command.code)

    def _hear(self, heard: StatusReceived, events: list[Event]) -> None:
        events.append(heard)
        if heard.alert.code == self.start_alert and heard.code >= 300:
            events.append(self._move(SessionClosed(f"the server refuses the session: {heard.code}")))

    def _take_items(self, command: Add | Replace | Delete | Get | Copy | Exec, events: list[Event]) -> None:
        self._interrupt(command, command.items)
        items: list[Item] = []
        for item in command.items:
            if command.meta is not None and item.more_data:
                item = replace(item, meta=command.meta.inherited_by(item.meta))
            whole = self._incoming.take(command.name, item)
            if not isinstance(whole, Item):
                self._done(command, whole, target=item.target)
                return
            items.append(whole)
        if not items:
            self._done(command, StatusCode.INCOMPLETE_COMMAND)
            return
        self._announce(replace(command, items=tuple(items)), events)

    def _interrupt(self, command: Command, items: tuple[Item, ...]) -> None:
        """Something else before the last chunk: say so and forget the object."""
        if self._incoming.interrupted_by(command.name, items):
            self._say_no_end_of_data()

    def _say_no_end_of_data(self) -> None:
        uri = self._incoming.interrupt()
        self._outbox.put(Alert(code=AlertCode.NO_END_OF_DATA, items=(Item(target=uri),)))

    def _announce(self, command: Command, events: list[Event]) -> None:
        self._answers.append(_Answer(command, None))
        events.append(self._move(CommandReceived(command)))

    def _done(self, command: Command, code: int, *, target: str | None = None) -> None:
        self._answers.append(_Answer(command, [CommandResult(cmd_id=command.cmd_id, code=code, target=target)]))

    # -- answering -----------------------------------------------------------------------------------------------

    def answer(self, command: Command, results: Iterable[CommandResult]) -> None:
        """Give the outcome of a command that `receive` announced: one result for the whole, or one for each Item;
        for a group, that of the group and those of its children.

        Raises:
            LocalProtocolError: `receive` announced no such command.
        """
        for answer in self._answers:
            if answer.command is command:
                answer.results = list(results)
                return
        raise LocalProtocolError(f"{command.name} {command.cmd_id} waits for no answer")

    def announce(self, *alerts: Alert) -> None:
        """Send alerts of our own with the next message, for instance the end of an Exec of this session."""
        self._outbox.put(*alerts)

    def abort(self) -> None:
        """End the session with the next message: Alert 1223 and `Final` (OMA-TS-DM_Protocol-V1_2 §8.1.2)."""
        self._aborting = True

    def reply(self) -> bytes | None:
        """The encoded next message; None when the session is over and nothing may be sent.

        Raises:
            LocalProtocolError: a command that `receive` announced has no answer.
        """
        if self._duplicate and not self.closed:
            return self._cached
        if self.closed:
            return None
        if self._resend_package_1:
            self._outbox.clear()
            self._outbox.put(*self._package_1())
            return self._send(Ending.FINAL)
        for answer in self._answers:
            self._outcome(answer)
        self._answers = []
        if self._aborting:
            self._outbox.clear()
            self._outbox.put(Alert(code=AlertCode.SESSION_ABORT))
            body = self._send(Ending.FINAL)
            self.phase = Phase.CLOSED
            return body
        return self._send(Ending.ASK if self._ask_for_more else Ending.FINAL)

    def _outcome(self, answer: _Answer) -> None:
        """Queue the Statuses and Results of one command."""
        if answer.results is None:
            raise LocalProtocolError(f"{answer.command.name} {answer.command.cmd_id} has no answer")
        msg_ref = self._header.msg_id if self._header is not None else ""
        named = {child.cmd_id: child for child in walk((answer.command,))}
        for result in answer.results:
            answered = named[result.cmd_id]
            code = result.code
            items = () if result.item is None else (result.item, *result.more_items)
            if not all(map(self._outbox.takes, items)):
                code, items = StatusCode.REQUEST_ENTITY_TOO_LARGE, ()
            self._outbox.owed.append(
                Status(
                    msg_ref=msg_ref,
                    cmd_ref=result.cmd_id,
                    cmd=answered.name,
                    code=code,
                    target_refs=() if result.target is None else (result.target,),
                    source_refs=() if result.source is None else (result.source,),
                    items=result.detail,
                )
            )
            if items and isinstance(answered, Get):
                self._outbox.put(Results(msg_ref=msg_ref, cmd_ref=result.cmd_id, items=items))

    def _send(self, ending: Ending) -> bytes:
        self._msg_id += 1
        filled = self._outbox.fill(self._reply_header(), self._status_of_header(), ending)
        self._sent_alerts = {on_wire.cmd_id: origin for on_wire, origin in filled.carried if isinstance(origin, Alert)}
        self._cached = encode(filled.message, self._outbox.encoding)
        return self._cached

    def _status_of_header(self) -> Status | None:
        if self._header is None:
            return None
        code, chal = self._header_status
        return Status(
            msg_ref=self._header.msg_id,
            cmd_ref="0",
            cmd="SyncHdr",
            code=code,
            chal=chal,
            target_refs=(self._header.target,),
            source_refs=(self._header.source,),
        )

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
