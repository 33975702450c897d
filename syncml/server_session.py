"""Server side of one management session (OMA-TS-DM_Protocol-V1_2 §8, OMA-TS-DM_Security-V1_2 §5.3)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from syncml.accounts import DmAccount
from syncml.auth import Credentials
from syncml.codec import Encoding, encode
from syncml.codes import AlertCode, AuthType, StatusCode
from syncml.errors import CommandOutOfPhase, LocalProtocolError, OutOfOrder, PeerLimitTooSmall
from syncml.large_object import Reassembly
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
from syncml.outbox import Ending, Filled, Outbox
from syncml.policy import Abort, Continue, Decision
from syncml.session import (
    MAX_CREDENTIAL_ATTEMPTS,
    MAX_MESSAGES,
    AlertReceived,
    ClientAuthenticated,
    CommandAnswered,
    CredentialsRefused,
    DuplicateMessage,
    Event,
    NewNonce,
    NonceChanged,
    PackageReceived,
    Phase,
    ServerAccepted,
    SessionAborted,
    SessionOpened,
    check_versions,
    next_phase,
    worst,
)

_REFUSALS = (StatusCode.INVALID_CREDENTIALS, StatusCode.MISSING_CREDENTIALS)


@dataclass(slots=True)
class _Pending:
    """A command of ours the device has not fully answered."""

    command: Command
    statuses: list[Status] = field(default_factory=list)
    results: list[Results] = field(default_factory=list)
    refused: int | None = None  # 413 when we could not send it


def _refuses(status: Status, msg_id: str) -> bool:
    return status.msg_ref == msg_id or status.code in _REFUSALS


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
        self._server_known = False  # 212: for the session
        self._server_shown = False  # our last message had credentials
        self._server_accepted = False
        self._attempts = 0
        self._server_attempts = 0
        self._msg_id = 0
        self._peer_msg_id: str | None = None
        self._seen: set[str] = set()  # MsgIDs of the device
        self._duplicate = False
        self._cached: bytes | None = None  # answer to the last message; None: it is still being made
        self._header: SyncHdr | None = None  # of the message being answered
        self._header_status: tuple[int, Chal | None] = (StatusCode.OK, None)
        self._session_alert: int | None = None
        self._outbox = Outbox(encoding)
        self._package: list[_Pending] = []  # in the order the policy gave
        self._package_sent = True  # with its Final
        self._in_flight: dict[tuple[str, str], _Pending] = {}  # (MsgID, CmdID) as sent → command
        self._incoming = Reassembly(limit=max_obj_size)
        self._interrupted: list[str] = []  # URIs of objects the device did not finish
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
            OutOfOrder: another session or device, or a message older than the last; the session goes on.
            CommandOutOfPhase: the session is closed, or too long.
            PeerLimitTooSmall: no answer can keep to the MaxMsgSize of the device; the session is closed.
                Any other exception out of here is a bug in this package.
        """
        header = message.header
        if header.session_id != self.session_id or header.source != self.account.device_id:
            raise OutOfOrder("a message of another session")
        if header.msg_id == self._peer_msg_id and self._cached is not None:
            self._duplicate = True
            return [DuplicateMessage()]
        if header.msg_id in self._seen:
            raise OutOfOrder("an old message")
        if self.closed or self._msg_id >= MAX_MESSAGES:
            self.phase = Phase.CLOSED
            raise CommandOutOfPhase("the session is over")
        try:
            self._outbox.learn(header.meta)
        except PeerLimitTooSmall:
            self.phase = Phase.CLOSED
            raise
        self._duplicate, self._cached = False, None
        self._peer_msg_id = header.msg_id
        self._seen.add(header.msg_id)
        self._header = header
        if (unsupported := check_versions(header)) is not None:
            return self._refuse_version(message, unsupported)
        events: list[Event] = []
        if not self._authenticate(message, events):
            return events
        refused = self._read_header_status(message, events)
        news: list[Event] = []
        for command in message.commands:
            if refused is not None and isinstance(command, Status) and _refuses(command, refused):
                continue  # the device refused us, not the command, which goes out again
            self._take(command, news)
        if self.phase is Phase.SETUP and message.final and self._session_alert is None and self._aborted is None:
            self._aborted = "package 1 without Alert 1200 or 1201"
            news = []
        events += news
        if self._aborted is not None:
            self._outbox.clear()
            self._ending = True
            events.append(self._move(SessionAborted(self._aborted)))
        elif not self._ending:
            self._settle(message, events)
        return events

    def _move(self, event: Event) -> Event:
        try:
            self.phase = next_phase(self.phase, event)
        except CommandOutOfPhase:
            self.phase = Phase.CLOSED
            raise
        return event

    def _refuse_version(self, message: Message, code: StatusCode) -> list[Event]:
        self._header_status = (code, None)
        self._answer_all(message, code)
        self._ending = True
        return [self._move(SessionAborted("another version of the protocol"))]

    def _answer_all(self, message: Message, code: int) -> None:
        for command in walk(message.commands):
            if not isinstance(command, Status | Results):
                self._note(command, code)

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

    def _read_header_status(self, message: Message, events: list[Event]) -> str | None:
        """What the client says of our last header: accepted, or a challenge; the MsgID of the message refused."""
        refused = None
        for status in message.commands:
            if not isinstance(status, Status) or status.cmd_ref != "0" or not self._msg_id:
                continue
            chal = status.chal
            if status.code in _REFUSALS:
                refused = status.msg_ref
                self._challenged(chal, events)
            elif status.code >= StatusCode.BAD_REQUEST:
                self._aborted = f"the device answers our header with {status.code}"
            elif self._server_shown and not self._server_known:
                # 212: for the session. 200: for this message, so the credentials go into each.
                self._server_known = status.code == StatusCode.AUTHENTICATION_ACCEPTED
                if self.phase is Phase.MANAGEMENT and not self._server_accepted:
                    self._server_accepted = True
                    events.append(self._move(ServerAccepted()))
            if chal is not None and chal.next_nonce is not None and self._aborted is None:
                self._server = replace(self._server, nonce=chal.next_nonce)
                events.append(NonceChanged(direction="server", nonce=chal.next_nonce))
        return refused

    def _challenged(self, chal: Chal | None, events: list[Event]) -> None:
        """The client wants our credentials, or others: the commands of the last message go out again with them."""
        self._server_attempts += 1
        again = self._server_shown and chal is not None and chal.next_nonce in (None, self._server.nonce)
        final = chal is None or again or self._server_attempts >= MAX_CREDENTIAL_ATTEMPTS
        events.append(self._move(CredentialsRefused(attempt=self._server_attempts, final=final)))
        if chal is None or final:
            self._aborted = "the device does not accept our credentials"
            return
        wanted = next((kind for kind in (AuthType.MD5, AuthType.BASIC) if kind.lower() == chal.type.lower()), None)
        if wanted is None or (wanted is AuthType.BASIC and self._server.type is not AuthType.BASIC):
            self._header_status = (StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, None)
            self._aborted = f"the device asks for {chal.type} instead of what is agreed"
            return
        self._server_known = False
        self._server = replace(self._server, type=wanted)
        self._outbox.take_back()

    def _take(self, command: Command, events: list[Event]) -> None:
        if not isinstance(command, Status | Results) and not self._is_named(command):
            self._note(command, StatusCode.BAD_REQUEST)  # CmdID is mandatory and unique in a message
            return
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

    def _is_named(self, command: Command) -> bool:
        taken = {status.cmd_ref for status in self._outbox.owed if status.msg_ref == self._peer_msg_id}
        return bool(command.cmd_id) and command.cmd_id not in taken

    def _note(self, command: Command, code: int) -> None:
        header = self._header
        if header is not None:
            self._outbox.owed.append(Status(msg_ref=header.msg_id, cmd_ref=command.cmd_id, cmd=command.name, code=code))

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
                self._outbox.abandon_object()
                self._note(alert, StatusCode.OK)
            case AlertCode.CLIENT_EVENT | AlertCode.GENERIC_ALERT:
                self._take_news(alert, events)
            case None:
                self._note(alert, StatusCode.INCOMPLETE_COMMAND)
            case _:  # user interaction is the server's to ask for; other codes nobody defined
                self._note(alert, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)

    def _take_news(self, alert: Alert, events: list[Event]) -> None:
        """A client event or generic alert; the data of one may be a large object."""
        if any(item.more_data for item in alert.items) and self._incoming.interrupted_by(alert.name, alert.items):
            self._interrupted.append(self._incoming.interrupt())
        items: list[Item] = []
        for item in alert.items:
            whole = self._incoming.take(alert.name, item)
            if not isinstance(whole, Item):
                self._note(alert, whole)
                return
            items.append(whole)
        self._note(alert, StatusCode.OK if items else StatusCode.INCOMPLETE_COMMAND)
        if items:
            events.append(AlertReceived(replace(alert, items=tuple(items))))

    def _take_status(self, status: Status) -> None:
        if status.cmd_ref == "0":
            return
        pending = self._pending_for(status.msg_ref, status.cmd_ref, status.cmd)
        if pending is None:
            return
        pending.statuses.append(status)
        if status.code >= 300 and self._outbox.amid_object and self._outbox.queue[0].origin is pending.command:
            self._outbox.abandon_object()  # the device gave it up

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
        if self._incoming.interrupted_by(results.name, results.items):
            self._interrupted.append(self._incoming.interrupt())
        items: list[Item] = []
        for item in results.items:
            if results.meta is not None and item.more_data:
                item = replace(item, meta=results.meta.inherited_by(item.meta))
            whole = self._incoming.take(results.name, item)
            if isinstance(whole, Item):
                items.append(whole)
            else:
                self._note(results, whole)  # 200 of Results is never said, everything else is
        if items:
            pending.results.append(replace(results, items=tuple(items)))

    def _settle(self, message: Message, events: list[Event]) -> None:
        """After all commands: is the device's package complete, and is it our turn?"""
        chunk = any(status.code == StatusCode.CHUNK_ACCEPTED for status in self._outbox.owed)
        final = message.final and not chunk  # MoreData says more than a Final beside it
        if final:
            if self._incoming.open:
                self._interrupted.append(self._incoming.interrupt())
            self._incoming.end_package()
        if self.phase is Phase.SETUP:
            if final and self._session_alert is not None:
                opened = SessionOpened(alert_code=self._session_alert, dev_info=dict(self.dev_info))
                events += [self._move(opened), self._move(PackageReceived())]
                self.needs_decision = True
            return
        # The device cannot end its package before ours has ended; its 1222 then says that it has nothing more.
        asked = any(isinstance(each, Alert) and each.code == AlertCode.NEXT_MESSAGE for each in message.commands)
        if self._outbox.queue or not (final or (asked and not self._package_sent)):
            return
        for pending in self._package:
            events.append(self._move(self._answered(pending)))
        self._package, self._in_flight = [], {}
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
        for index, status in enumerate(self._outbox.owed):
            if status.msg_ref != self._peer_msg_id:
                continue
            if status.cmd_ref == cmd_id or (not cmd_id and status.cmd == "Alert"):
                self._outbox.owed[index] = replace(status, code=code)
                return
        raise LocalProtocolError(f"no command {cmd_id} to answer")

    def reply(self, decision: Decision | None = None) -> bytes:
        """The encoded answer to the message just received.

        Raises:
            LocalProtocolError: a decision is due and none is given, or one is given and none is due.
        """
        if self._duplicate and self._cached is not None:
            return self._cached
        if self.needs_decision != (decision is not None) or self._header is None:
            raise LocalProtocolError("a decision is needed exactly when the device's package is complete")
        self._msg_id += 1
        ending = self._ending_of_reply(decision)
        for uri in self._interrupted:
            self._outbox.put(Alert(code=AlertCode.NO_END_OF_DATA, items=(Item(source=uri),)))
        self._interrupted = []
        filled = self._outbox.fill(self._reply_header(), self._status_of_header(self._header), ending)
        if filled.refused and not filled.carried and not self._ending:
            # An empty package would end the session before the policy hears what could not be sent.
            filled = replace(filled, message=replace(filled.message, final=False))
        self._remember(filled)
        if ending is Ending.FINAL:
            self._package_sent = filled.message.final
        if self._ending and filled.message.final:
            self.phase = Phase.CLOSED
        self._cached = encode(filled.message, self._outbox.encoding)
        return self._cached

    def _ending_of_reply(self, decision: Decision | None) -> Ending:
        match decision:
            case None if self._ending or not self._client_known or self._outbox.queue:
                return Ending.FINAL
            case None:
                return Ending.ASK  # the device is not done, or its Results come in chunks
            case Continue(commands) if commands:
                self._package = [_Pending(command) for command in commands]
                self._outbox.put(*commands)
            case Abort():
                self._outbox.put(Alert(code=AlertCode.SESSION_ABORT))
                self._ending = True
            case _:
                self._ending = True
        self.needs_decision = False
        return Ending.FINAL

    def _status_of_header(self, header: SyncHdr) -> Status:
        code, chal = self._header_status
        return Status(
            msg_ref=header.msg_id,
            cmd_ref="0",
            cmd="SyncHdr",
            code=code,
            chal=chal,
            target_refs=(header.target,),
            source_refs=(header.source,),
        )

    def _reply_header(self) -> SyncHdr:
        self._server_shown = self._client_known and not self._server_known
        return SyncHdr(
            session_id=self.session_id,
            msg_id=str(self._msg_id),
            target=self.account.device_id,
            source=self.server_uri,
            source_name=self.account.server_name,
            resp_uri=self.resp_uri,
            cred=self._server.prove() if self._server_shown else None,
            meta=Meta(max_msg_size=self.max_msg_size, max_obj_size=self.max_obj_size),
        )

    def _remember(self, filled: Filled) -> None:
        by_command = {id(pending.command): pending for pending in self._package}
        for command in filled.refused:
            if (pending := by_command.get(id(command))) is not None:
                pending.refused = StatusCode.REQUEST_ENTITY_TOO_LARGE
        for on_wire, origin in filled.carried:
            if (pending := by_command.get(id(origin))) is None:
                continue  # an alert of our own
            for each in walk((on_wire,)):  # children answer for themselves, under their group
                self._in_flight[str(self._msg_id), each.cmd_id] = pending


def message_for_error(
    *, session_id: str, msg_id: str, device_id: str, server_uri: str, msg_ref: str, code: int, encoding: Encoding
) -> bytes:
    """An answer outside any session: one Status on the SyncHdr, and `Final`."""
    status = Status(cmd_id="1", msg_ref=msg_ref, cmd_ref="0", cmd="SyncHdr", code=code)
    header = SyncHdr(session_id=session_id, msg_id=msg_id, target=device_id, source=server_uri, resp_uri=server_uri)
    return encode(Message(header=header, commands=(status,), final=True), encoding)
