"""Server side of one management session (OMA-TS-DM_Protocol-V1_2 §8, OMA-TS-DM_Security-V1_2 §5.3)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from syncml.auth import Credentials
from syncml.codec import Encoding, encode
from syncml.codes import AlertCode, AuthType, StatusCode
from syncml.errors import CommandOutOfPhase, LocalProtocolError
from syncml.model import (
    Alert,
    Chal,
    Command,
    Item,
    Message,
    Meta,
    Replace,
    Results,
    Status,
    SyncHdr,
    UnknownCommand,
    walk,
)
from syncml.policy import Abort, Continue, Decision
from syncml.session import (
    MAX_CREDENTIAL_ATTEMPTS,
    MAX_MESSAGES,
    NEXT,
    AlertReceived,
    ClientAuthenticated,
    CommandAnswered,
    CredentialsRefused,
    DuplicateMessage,
    Event,
    NewNonce,
    NonceChanged,
    Outbox,
    OutOfOrder,
    PackageReceived,
    Phase,
    Reassembly,
    ServerAccepted,
    SessionAborted,
    SessionOpened,
    check_versions,
    worst,
)

_REFUSALS = (StatusCode.INVALID_CREDENTIALS, StatusCode.MISSING_CREDENTIALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DmAccount:
    """The server's view of one device's DM account. Nonces are raw octets."""

    device_id: str  # Source/LocURI of the device
    server_id: str  # our ServerID (PROVIDER-ID)
    client_auth: AuthType = AuthType.MD5  # what we demand of the client
    client_name: str
    client_secret: str = field(repr=False)
    client_nonce: bytes = field(default=b"", repr=False)  # the one we issued last
    server_auth: AuthType = AuthType.MD5  # what we prove ourselves with
    server_name: str
    server_secret: str = field(repr=False)
    server_nonce: bytes = field(default=b"", repr=False)  # the one the device issued last


@dataclass(slots=True)
class _Pending:
    """A command of ours the device has not fully answered."""

    command: Command
    statuses: list[Status] = field(default_factory=list)
    results: list[Results] = field(default_factory=list)
    refused: int | None = None  # 413 when we could not send it


class ServerSession:
    """One session with one device. `receive` takes a message, `reply` gives the octets to answer with."""

    def __init__(
        self,
        *,
        account: DmAccount,
        server_uri: str,
        resp_uri: str,
        session_id: str,
        encoding: Encoding,
        max_msg_size: int,
        max_obj_size: int,
        new_nonce: NewNonce,
    ) -> None:
        self.account = account
        self.server_uri = server_uri
        self.resp_uri = resp_uri
        self.session_id = session_id
        self.max_msg_size = max_msg_size
        self.max_obj_size = max_obj_size
        self.phase = Phase.SETUP
        self.needs_decision = False
        self.dev_info: dict[str, str] = {}
        self._new_nonce = new_nonce
        self._client = Credentials(
            type=account.client_auth, name=account.client_name, secret=account.client_secret, nonce=account.client_nonce
        )
        self._server = Credentials(
            type=account.server_auth, name=account.server_name, secret=account.server_secret, nonce=account.server_nonce
        )
        self._client_known = False
        self._server_known = False
        self._attempts = 0
        self._server_attempts = 0
        self._msg_id = 0
        self._peer_msg_id: str | None = None
        self._duplicate = False
        self._cached = b""
        self._header: SyncHdr | None = None  # of the message being answered
        self._header_status: tuple[int, Chal | None] = (StatusCode.OK, None)
        self._to_answer: dict[str, tuple[str, int, tuple[str, ...]]] = {}  # CmdID → name, code, TargetRefs
        self._client_final = False
        self._session_alert: int | None = None
        self._outbox = Outbox(encoding)
        self._package: list[_Pending] = []  # in the order the policy gave
        self._in_flight: dict[tuple[str, str], _Pending] = {}  # (MsgID, CmdID) as sent → command
        self._incoming = Reassembly(limit=max_obj_size)
        self._aborted: str | None = None
        self._ending = False

    @property
    def closed(self) -> bool:
        """Whether nothing more may come."""
        return self.phase is Phase.CLOSED

    # -- receiving -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, now: datetime, *, raw: bytes = b"") -> list[Event]:
        """Take one decoded message; say what happened, in document order.

        Args:
            message: as decoded.
            now: UTC; kept for policies that age sessions.
            raw: the octets received, for credentials that cover them.

        Raises:
            OutOfOrder: another session or device.
            CommandOutOfPhase: the session is closed, or too long.
                Any other exception out of here is a bug in this package.
        """
        header = message.header
        if header.session_id != self.session_id or header.source != self.account.device_id:
            raise OutOfOrder("a message of another session")
        if header.msg_id == self._peer_msg_id:
            self._duplicate = True
            return [DuplicateMessage()]
        if self.closed or self._msg_id >= MAX_MESSAGES:
            self.phase = Phase.CLOSED
            raise CommandOutOfPhase("the session is over")
        self._duplicate = False
        self._peer_msg_id = header.msg_id
        self._header = header
        self._to_answer = {}
        self._client_final = message.final
        self._outbox.learn(header.meta)
        if (unsupported := check_versions(header)) is not None:
            return self._refuse_version(message, unsupported)
        events: list[Event] = []
        if not self._authenticate(message, events):
            return events
        self._read_header_status(message, events)
        for command in message.commands:
            self._take(command, events)
        if self._aborted is not None:
            events.append(self._move(SessionAborted(self._aborted)))
            return events
        self._settle(message, events)
        return events

    def _move(self, event: Event) -> Event:
        try:
            self.phase = NEXT[self.phase, type(event)]
        except KeyError:
            name = type(event).__name__
            phase, self.phase = self.phase, Phase.CLOSED
            raise CommandOutOfPhase(f"{name} in phase {phase.name}") from None
        return event

    def _refuse_version(self, message: Message, code: StatusCode) -> list[Event]:
        self._header_status = (code, None)
        self._answer_all(message, code)
        self._ending = True
        return [self._move(SessionAborted("another version of the protocol"))]

    def _answer_all(self, message: Message, code: int) -> None:
        for command in walk(message.commands):
            if not isinstance(command, Status | Results):
                self._to_answer[command.cmd_id] = (command.name, code, ())

    def _authenticate(self, message: Message, events: list[Event]) -> bool:
        """Step one for every message: nothing else of it counts before its sender is known."""
        if self._client_known:
            self._header_status = (StatusCode.OK, None)
            return True
        cred = message.header.cred
        ok = self._client.accepts(cred)
        with_nonce = self._client.type is not AuthType.BASIC
        if with_nonce:
            self._client = replace(self._client, nonce=self._new_nonce())
        if ok:
            self._client_known = True
            chal = self._client.challenge() if with_nonce else None
            self._header_status = (StatusCode.AUTHENTICATION_ACCEPTED, chal)
            events.append(self._move(ClientAuthenticated()))
            if with_nonce:
                events.append(NonceChanged(direction="client", nonce=self._client.nonce))
            return True
        self._attempts += 1
        final = self._attempts >= MAX_CREDENTIAL_ATTEMPTS
        code = StatusCode.MISSING_CREDENTIALS if cred is None and not final else StatusCode.INVALID_CREDENTIALS
        self._header_status = (code, None if final else self._client.challenge())
        self._answer_all(message, code)
        events.append(self._move(CredentialsRefused(attempt=self._attempts, final=final)))
        if with_nonce and not final:
            # The device may hang up and use this nonce in its next session.
            events.append(NonceChanged(direction="client", nonce=self._client.nonce))
        self._ending = final
        return False

    def _read_header_status(self, message: Message, events: list[Event]) -> None:
        """What the client says of our last header: accepted, or a challenge for us."""
        for status in message.commands:
            if not isinstance(status, Status) or status.cmd_ref != "0":
                continue
            chal = status.chal
            if chal is not None and chal.next_nonce is not None:
                self._server = replace(self._server, nonce=chal.next_nonce)
                events.append(NonceChanged(direction="server", nonce=chal.next_nonce))
            if status.code in _REFUSALS and self._msg_id:
                self._challenged(chal, events)
            elif status.code == StatusCode.AUTHENTICATION_ACCEPTED and not self._server_known:
                self._server_known = True
                if self.phase is Phase.MANAGEMENT:
                    events.append(self._move(ServerAccepted()))

    def _challenged(self, chal: Chal | None, events: list[Event]) -> None:
        self._server_attempts += 1
        final = chal is None or self._server_attempts >= MAX_CREDENTIAL_ATTEMPTS
        events.append(CredentialsRefused(attempt=self._server_attempts, final=final))
        if final:
            self._aborted = "the device does not accept our credentials"
            return
        if chal is not None and chal.type.lower() in (AuthType.BASIC.lower(), AuthType.MD5.lower()):
            wanted = AuthType.BASIC if chal.type.lower() == AuthType.BASIC.lower() else AuthType.MD5
            if wanted is AuthType.BASIC and self._server.type is AuthType.MD5:
                self._aborted = "the device asks for weaker credentials than agreed"
                return
            self._server = replace(self._server, type=wanted)
        unanswered = [p for p in self._package if not p.statuses and any(p is q for q in self._in_flight.values())]
        resent = [pending.command for pending in unanswered]
        self._in_flight = {}
        self._outbox.queue[:0] = resent
        self._outbox.chunks = None

    def _take(self, command: Command, events: list[Event]) -> None:
        match command:
            case Status():
                self._take_status(command)
            case Results():
                self._take_results(command)
            case Alert():
                self._take_alert(command, events)
            case Replace() if self.phase is Phase.SETUP:
                self._take_dev_info(command)
            case UnknownCommand():
                self._note(command, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)
            case _:  # a client sends nothing else (OMA-TS-DM_RepPro-V1_2 §6.6)
                self._note(command, StatusCode.COMMAND_NOT_ALLOWED)

    def _note(self, command: Command, code: int) -> None:
        self._to_answer[command.cmd_id] = (command.name, code, ())

    def _take_dev_info(self, command: Replace) -> None:
        for item in command.items:
            uri = item.source or item.target
            if uri is not None and isinstance(item.data, str):
                self.dev_info["./" + uri.removeprefix("./")] = item.data
        self._note(command, StatusCode.OK)

    def _take_alert(self, alert: Alert, events: list[Event]) -> None:
        match alert.code:
            case AlertCode.SERVER_INITIATED_MGMT | AlertCode.CLIENT_INITIATED_MGMT if self.phase is Phase.SETUP:
                self._session_alert = alert.code
                self._note(alert, StatusCode.OK)
            case AlertCode.NEXT_MESSAGE:
                self._note(alert, StatusCode.OK)
            case AlertCode.SESSION_ABORT:
                self._aborted = "the device aborted the session"
                self._note(alert, StatusCode.OK)
            case AlertCode.NO_END_OF_DATA:
                self._outbox.chunks = None
                self._note(alert, StatusCode.OK)
            case AlertCode.CLIENT_EVENT | AlertCode.GENERIC_ALERT:
                code = StatusCode.OK if alert.items else StatusCode.INCOMPLETE_COMMAND
                self._note(alert, code)
                if alert.items:
                    events.append(AlertReceived(alert))
            case None:
                self._note(alert, StatusCode.INCOMPLETE_COMMAND)
            case _:  # user interaction is the server's to ask for; other codes nobody defined
                self._note(alert, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)

    def _take_status(self, status: Status) -> None:
        if status.cmd_ref == "0":
            return
        pending = self._pending_for(status.msg_ref, status.cmd_ref, status.cmd)
        if pending is None:
            return
        pending.statuses.append(status)
        if status.code not in (StatusCode.CHUNK_ACCEPTED, StatusCode.OK, StatusCode.AUTHENTICATION_ACCEPTED):
            chunks = self._outbox.chunks
            if chunks is not None and chunks.command is pending.command and status.code >= 300:
                self._outbox.chunks = None  # the device gave the object up

    def _pending_for(self, msg_ref: str, cmd_ref: str, name: str) -> _Pending | None:
        """The command answered: by both references, else (peers get MsgRef wrong) by CmdRef in our last messages."""
        exact = self._in_flight.get((msg_ref, cmd_ref))
        if exact is not None:
            return exact
        loose = [p for (_, cmd_id), p in self._in_flight.items() if cmd_id == cmd_ref and p.command.name == name]
        return loose[-1] if loose else None

    def _take_results(self, results: Results) -> None:
        pending = self._pending_for(results.msg_ref, results.cmd_ref, "Get")
        if pending is None:
            return
        items: list[Item] = []
        for item in results.items:
            whole = self._incoming.take("Results", item)
            if isinstance(whole, Item):
                items.append(whole)
            else:
                self._to_answer[results.cmd_id] = ("Results", whole, ())
        if items:
            pending.results.append(replace(results, items=tuple(items)))

    def _settle(self, message: Message, events: list[Event]) -> None:
        """After all commands: is the device's package complete, and is it our turn?"""
        if self.phase is Phase.SETUP:
            if not message.final:
                return
            if self._session_alert is None:
                self._aborted = "package 1 without Alert 1200 or 1201"
                events.append(self._move(SessionAborted(self._aborted)))
                return
            events.append(self._move(SessionOpened(alert_code=self._session_alert, dev_info=dict(self.dev_info))))
            events.extend([self._move(PackageReceived())])
            self.needs_decision = True
            return
        answered_chunk = self._outbox.chunks is not None
        if not self._outbox.empty or answered_chunk or not message.final:
            return
        for pending in self._package:
            events.append(self._move(self._answered(pending)))
        self._package, self._in_flight = [], {}
        self._incoming.drop()
        events.append(self._move(PackageReceived()))
        self.needs_decision = True

    @staticmethod
    def _answered(pending: _Pending) -> CommandAnswered:
        statuses = [status for status in pending.statuses if status.code != StatusCode.CHUNK_ACCEPTED]
        if pending.refused is not None:
            code = pending.refused
        elif statuses:
            code = worst([status.code for status in statuses])
        else:
            code = int(StatusCode.OK) if pending.results else int(StatusCode.COMMAND_FAILED)
        return CommandAnswered(
            command=pending.command, code=code, statuses=tuple(statuses), results=tuple(pending.results)
        )

    # -- answering -----------------------------------------------------------------------------------------------

    def answer(self, cmd_id: str, code: int) -> None:
        """Say what the Status of an Alert of this message shall be instead of 200; "" is the session alert."""
        if not cmd_id:
            cmd_id = next((k for k, v in self._to_answer.items() if v[0] == "Alert"), "")
        if cmd_id not in self._to_answer:
            raise LocalProtocolError(f"no command {cmd_id} to answer")
        name, _, refs = self._to_answer[cmd_id]
        self._to_answer[cmd_id] = (name, code, refs)

    def reply(self, decision: Decision | None = None) -> bytes:
        """The encoded answer to the message just received.

        Raises:
            LocalProtocolError: a decision is due and none is given, or one is given and none is due.
        """
        if self._duplicate:
            return self._cached
        if self.needs_decision != (decision is not None) or self._header is None:
            raise LocalProtocolError("a decision is needed exactly when the device's package is complete")
        self._msg_id += 1
        answers = self._statuses()
        final = True
        if decision is not None:
            self.needs_decision = False
            answers, final = self._decide(decision, answers)
        elif self._client_known and not self.closed and self._outbox.empty:
            final = False  # the device is not done, or its Results come in chunks
            answers.append(Alert(code=AlertCode.NEXT_MESSAGE))
        message, sent, refused = self._outbox.fill(self._reply_header(), tuple(answers), final=final)
        self._remember(message, sent, refused)
        if self._ending:
            self.phase = Phase.CLOSED
        self._cached = encode(message, self._outbox.encoding)
        return self._cached

    def _decide(self, decision: Decision, answers: list[Command]) -> tuple[list[Command], bool]:
        match decision:
            case Continue(commands) if commands:
                self._package = [_Pending(command) for command in commands]
                self._outbox.queue = list(commands)
            case Abort():
                answers.append(Alert(code=AlertCode.SESSION_ABORT))
                self._ending = True
            case _:
                self._ending = True
        return answers, True

    def _statuses(self) -> list[Command]:
        header = self._header
        if header is None:
            raise LocalProtocolError("nothing to answer yet")
        code, chal = self._header_status
        statuses: list[Command] = [
            Status(
                msg_ref=header.msg_id,
                cmd_ref="0",
                cmd="SyncHdr",
                code=code,
                chal=chal,
                target_refs=(header.target,),
                source_refs=(header.source,),
            )
        ]
        statuses.extend(
            Status(msg_ref=header.msg_id, cmd_ref=cmd_id, cmd=name, code=code, target_refs=refs)
            for cmd_id, (name, code, refs) in self._to_answer.items()
        )
        return statuses

    def _reply_header(self) -> SyncHdr:
        prove = self._client_known and not self._server_known
        return SyncHdr(
            session_id=self.session_id,
            msg_id=str(self._msg_id),
            target=self.account.device_id,
            source=self.server_uri,
            source_name=self.account.server_name,
            resp_uri=self.resp_uri,
            cred=self._server.prove() if prove else None,
            meta=Meta(max_msg_size=self.max_msg_size, max_obj_size=self.max_obj_size),
        )

    def _remember(self, message: Message, sent: list[Command], refused: list[Command]) -> None:
        by_command = {id(pending.command): pending for pending in self._package}
        for command in refused:
            by_command[id(command)].refused = StatusCode.REQUEST_ENTITY_TOO_LARGE
        if not sent:
            return
        carried = message.commands[-len(sent) :]
        for on_wire, command in zip(carried, sent, strict=True):
            for each in walk((on_wire,)):  # children answer for themselves, under their group
                self._in_flight[str(self._msg_id), each.cmd_id] = by_command[id(command)]


def message_for_error(
    *, session_id: str, msg_id: str, device_id: str, server_uri: str, msg_ref: str, code: int, encoding: Encoding
) -> bytes:
    """An answer outside any session: one Status on the SyncHdr, and `Final`."""
    status = Status(cmd_id="1", msg_ref=msg_ref, cmd_ref="0", cmd="SyncHdr", code=code)
    header = SyncHdr(session_id=session_id, msg_id=msg_id, target=device_id, source=server_uri, resp_uri=server_uri)
    return encode(Message(header=header, commands=(status,), final=True), encoding)
