"""Server side of one management session (OMA-TS-DM_Protocol-V1_2 §8, OMA-TS-DM_Security-V1_2 §5.3)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from syncml.accounts import DmAccount
from syncml.auth import Credentials
from syncml.authentication import REFUSALS, Authenticator, HeaderAnswer, NewNonce, Proof, Prover
from syncml.codec import Encoding, encode
from syncml.codes import AlertCode, AuthType, StatusCode
from syncml.errors import CommandOutOfPhase, LocalProtocolError, OutOfOrder, PeerLimitTooSmall
from syncml.large_object import Reassembly
from syncml.model import Alert, Chal, Command, Item, Message, Meta, Replace, Results, Status, SyncHdr, UnknownCommand
from syncml.outbox import Ending, Outbox
from syncml.outstanding import OutstandingPackage
from syncml.policy import Abort, Continue, Decision
from syncml.session import (
    MAX_MESSAGES,
    AlertReceived,
    ClientAuthenticated,
    CredentialsRefused,
    DuplicateMessage,
    Event,
    NonceChanged,
    PackageReceived,
    Phase,
    ServerAccepted,
    SessionAborted,
    SessionOpened,
    check_versions,
    next_phase,
)
from syncml.setup_package import SetupPackage
from syncml.statuses import refusal, refusals, status_of, status_of_header

_NO_NONCE: Final = "the device sent no next nonce for auth-MAC"


class ServerSession:
    """One session with one device. `receive` takes a message, `reply` gives the octets to answer with.

    `mac_header` is the value of the transport header `x-syncml-hmac` that has to travel with them, None for none.
    """

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
        self.mac_header: str | None = None
        self._client = Authenticator(
            Credentials(
                type=account.client_auth,
                name=account.client_name,
                secret=account.client_secret,
                nonce=account.client_nonce,
            ),
            new_nonce,
            nonce_before=account.client_nonce_before,
            resync=account.resync,
            per_message=account.per_message,
        )
        self._server = Prover(
            Credentials(
                type=account.server_auth,
                name=account.server_name,
                secret=account.server_secret,
                nonce=account.server_nonce,
            ),
            preemptive=account.preemptive,
        )
        self._client_announced = False
        self._server_announced = False
        self._msg_id = 0
        self._peer_msg_id: str | None = None
        self._peer_proof = Proof()  # of the last message
        self._seen: set[str] = set()  # MsgIDs of the device
        self._named: set[str] = set()  # CmdIDs of the message being answered
        self._duplicate = False
        self._cached: bytes | None = None  # answer to the last message; None: it is still being made
        self._header: SyncHdr | None = None  # of the message being answered
        self._header_status: tuple[int, Chal | None] = (StatusCode.OK, None)
        self._refusing: list[Status] | None = None  # Statuses for a message whose sender is not the device
        self._has_refused = False  # our last message was of those, and had no commands of its own
        self._setup, self._unproved_setup = SetupPackage(), SetupPackage()
        self._outbox = Outbox(encoding, account.peer)
        self._package = OutstandingPackage()
        self._package_sent = True  # with its Final
        self._incoming = Reassembly(limit=max_obj_size)
        self._interrupted: list[str] = []  # URIs of objects the device did not finish
        self._aborted: str | None = None
        self._ending = False

    @property
    def closed(self) -> bool:
        """Whether nothing more may come."""
        return self.phase is Phase.CLOSED

    @property
    def dev_info(self) -> dict[str, str]:
        """DevInfo as far as it has come: node URI → value."""
        return self._setup.dev_info

    # -- receiving -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, now: datetime, *, raw: bytes = b"", mac: str | None = None) -> list[Event]:
        """Take one decoded message; say what happened, in document order.

        Args:
            message: as decoded.
            now: UTC; kept for policies that age sessions.
            raw: the octets received, for credentials that cover them.
            mac: value of the transport header `x-syncml-hmac`, None when there was none.

        Raises:
            OutOfOrder: another session or device, or a message older than the last; the session goes on.
            CommandOutOfPhase: the session is closed, or too long.
            PeerLimitTooSmall: no answer can keep to the MaxMsgSize of the device; the session is closed.
                Any other exception out of here is a bug in this package.
        """
        header = message.header
        if header.session_id != self.session_id or header.source != self.account.device_id:
            raise OutOfOrder("a message of another session")
        proof = Proof(cred=header.cred, mac=mac, body=raw)
        if header.msg_id == self._peer_msg_id and self._cached is not None:
            if self._client.per_message and proof != self._peer_proof:
                raise OutOfOrder("not the message that had this MsgID")
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
        self._has_refused = self._refusing is not None
        self._duplicate, self._cached, self._refusing = False, None, None
        self._peer_msg_id, self._peer_proof = header.msg_id, proof
        self._seen.add(header.msg_id)
        self._named = set()
        self._header = header
        if (unsupported := check_versions(header)) is not None:
            return self._refuse_version(message, unsupported)
        events: list[Event] = []
        if not self._authenticate(message, proof, events):
            return events
        refused = self._read_header_status(message, events)
        news: list[Event] = []
        for command in message.commands:
            if refused is not None and isinstance(command, Status) and _refuses(command, refused):
                continue  # the device refused us, not the command, which goes out again
            self._take(command, news)
        if self.phase is Phase.SETUP and message.final and self._aborted is None:
            self._setup.complete_from(self._unproved_setup, header.source)
            if self._setup.alert_code is None:
                self._aborted = "package 1 without Alert 1200 or 1201"
                news = []
        events += news
        if self._aborted is not None:
            self._outbox.clear()
            if self._aborted == _NO_NONCE:
                self._outbox.put(Alert(code=AlertCode.SESSION_ABORT))
            self._ending = True
            events.append(self._move(SessionAborted(self._aborted)))
        elif not self._ending and (refused is None or self.phase is Phase.SETUP):
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
        self._refusing = refusals(message, code)
        self._ending = True
        return [self._move(SessionAborted("another version of the protocol"))]

    def _authenticate(self, message: Message, proof: Proof, events: list[Event]) -> bool:
        """Step one for every message: nothing else of it counts before its sender is known."""
        verdict = self._client.judge(proof)
        if not verdict.accepted:
            final = verdict.chal is None
            self._header_status = (verdict.code, verdict.chal)
            self._refusing = refusals(message, verdict.code)
            events.append(self._move(CredentialsRefused(attempt=self._client.refusals, final=final)))
            if self._client.uses_nonces and not final:
                # The device may hang up and use this nonce in its next session.
                events.append(NonceChanged(direction="client", nonce=self._client.nonce))
            if self.phase is Phase.SETUP and self.account.client_auth is not AuthType.MAC:
                self._unproved_setup.read(message)
            self._ending = final
            return False
        chal = self._client.issue() if verdict.checked and self._client.uses_nonces else None
        self._header_status = (verdict.code, chal)
        if not self._client_announced:
            self._client_announced = True
            events.append(self._move(ClientAuthenticated()))
        if chal is not None:
            events.append(NonceChanged(direction="client", nonce=self._client.nonce))
        if self._client.resynchronised is not None:
            self._server.use(self._client.resynchronised)
            self._client.resynchronised = None
        return True

    def _read_header_status(self, message: Message, events: list[Event]) -> str | None:
        """What the client says of our last header: accepted, or a challenge; the MsgID of the message refused."""
        refused = None
        for status in message.commands if self._msg_id else ():
            if not isinstance(status, Status) or status.cmd_ref != "0":
                continue
            answer = self._server.hear(status)
            if status.code in REFUSALS:
                again = not self._has_refused or _refuses_commands(message)
                refused = status.msg_ref if again else None
                self._challenged(answer, status.chal, events, again=again)
            elif status.code >= StatusCode.BAD_REQUEST:
                self._aborted = f"the device answers our header with {status.code}"
            if self._aborted is None and status.chal is not None and status.chal.next_nonce is not None:
                events.append(NonceChanged(direction="server", nonce=self._server.nonce))
        if self._server.accepted and not self._server_announced and self.phase is Phase.MANAGEMENT:
            self._server_announced = True
            events.append(self._move(ServerAccepted()))
        if self._server.starved and self._aborted is None:
            # Every message needs a nonce of its own, so there is none that could prove our next one.
            self._aborted = _NO_NONCE
        return refused

    def _challenged(self, answer: HeaderAnswer, chal: Chal | None, events: list[Event], *, again: bool) -> None:
        """The client wants our credentials, or others: with them, the commands of the last message go out `again`."""
        final = answer is not HeaderAnswer.CHALLENGED
        events.append(self._move(CredentialsRefused(attempt=self._server.challenges, final=final)))
        if answer is HeaderAnswer.CHALLENGED:
            if again:
                self._outbox.take_back()
        elif answer is HeaderAnswer.UNSUPPORTED and chal is not None:
            self._header_status = (StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED, None)
            self._aborted = f"the device asks for {chal.type} instead of what is agreed"
        else:
            self._aborted = "the device does not accept our credentials"

    def _take(self, command: Command, events: list[Event]) -> None:
        if not isinstance(command, Status | Results) and not self._is_named(command):
            self._note(command, StatusCode.BAD_REQUEST)  # CmdID is mandatory and unique in a message
            return
        match command:
            case Status():
                if command.cmd_ref != "0" and self._package.hear_status(command):
                    self._outbox.abandon_object()  # the device gave it up
            case Results():
                self._take_results(command)
            case Alert():
                self._take_alert(command, events)
            case Replace() if self.phase is Phase.SETUP:
                self._note(command, self._setup.take_dev_info(command))
            case UnknownCommand():
                self._note(command, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)
            case _:  # a client sends nothing else (OMA-TS-DM_RepPro-V1_2 §6.6)
                self._note(command, StatusCode.COMMAND_NOT_ALLOWED)

    def _is_named(self, command: Command) -> bool:
        taken = command.cmd_id in self._named
        self._named.add(command.cmd_id)
        return bool(command.cmd_id) and not taken

    def _note(self, command: Command, code: int) -> None:
        if self._header is not None:
            self._outbox.owed.append(status_of(self._header, command, code))

    def _take_alert(self, alert: Alert, events: list[Event]) -> None:
        match alert.code:
            case AlertCode.SERVER_INITIATED_MGMT | AlertCode.CLIENT_INITIATED_MGMT if self.phase is Phase.SETUP:
                self._setup.alert_code = alert.code
                self._note(alert, StatusCode.OK)
            case AlertCode.NEXT_MESSAGE:
                self._note(alert, StatusCode.OK)
            case AlertCode.SESSION_ABORT:
                self._aborted = "the device aborted the session"
                self._note(alert, StatusCode.OK)
            case AlertCode.NO_END_OF_DATA:
                self._outbox.abandon_object()
                if (again := self._package.restart(alert)) is not None:
                    self._outbox.put_first(again)
                self._note(alert, StatusCode.OK)
            case AlertCode.CLIENT_EVENT | AlertCode.GENERIC_ALERT:
                self._take_news(alert, events)
            case None:
                self._note(alert, StatusCode.INCOMPLETE_COMMAND)
            case _:  # user interaction is the server's to ask for; other codes nobody defined
                self._note(alert, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)

    def _take_news(self, alert: Alert, events: list[Event]) -> None:
        """A client event or generic alert; the data of one may be a large object."""
        items: list[Item] = []
        chunks: list[int] = []
        for item in alert.items:
            if item.more_data and self._incoming.interrupted_by(alert.name, (item,)):
                self._interrupted.append(self._incoming.interrupt())
            whole = self._incoming.take(alert.name, item)
            if isinstance(whole, Item):
                items.append(whole)
            else:
                chunks.append(whole)
        if items or not chunks:
            self._note(alert, StatusCode.OK if items else StatusCode.INCOMPLETE_COMMAND)
        for code in chunks:
            self._note(alert, code)
        if items:
            events.append(AlertReceived(replace(alert, items=tuple(items))))

    def _take_results(self, results: Results) -> None:
        if self._package.asker(results) is None:
            return
        items: list[Item] = []
        for item in results.items:
            if self._incoming.interrupted_by(results.name, (item,)):
                self._interrupted.append(self._incoming.interrupt())
            if results.meta is not None and item.more_data:
                item = replace(item, meta=results.meta.inherited_by(item.meta))
            whole = self._incoming.take(results.name, item)
            if isinstance(whole, Item):
                items.append(whole)
            else:
                self._note(results, whole)  # 200 of Results is never said, everything else is
        if not self._package.hear_results(results, tuple(items)):
            self._note(results, StatusCode.REQUEST_ENTITY_TOO_LARGE)

    def _settle(self, message: Message, events: list[Event]) -> None:
        """After all commands: is the device's package complete, and is it our turn?"""
        chunk = any(status.code == StatusCode.CHUNK_ACCEPTED for status in self._outbox.owed)
        final = message.final and not chunk  # MoreData says more than a Final beside it
        if final:
            if self._incoming.open:
                self._interrupted.append(self._incoming.interrupt())
            self._incoming.end_package()
        if self.phase is Phase.SETUP:
            if final and self._setup.alert_code is not None:
                opened = SessionOpened(alert_code=self._setup.alert_code, dev_info=dict(self.dev_info))
                events += [self._move(opened), self._move(PackageReceived())]
                self.needs_decision = True
            return
        # The device cannot end its package before ours has ended; its 1222 then says that it has nothing more.
        asked = any(isinstance(each, Alert) and each.code == AlertCode.NEXT_MESSAGE for each in message.commands)
        if self._outbox.queue or not (final or (asked and not self._package_sent)):
            return
        if step := self._package.next_step():
            self._outbox.put(*step)
            return
        events += [self._move(answered) for answered in self._package.answers()]
        self._package = OutstandingPackage()
        events.append(self._move(PackageReceived()))
        self.needs_decision = True

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
        """The encoded answer to the message just received; `mac_header` is what travels beside it.

        Raises:
            LocalProtocolError: a decision is due and none is given, or one is given and none is due.
        """
        if self._duplicate and self._cached is not None:
            return self._cached
        if self.needs_decision != (decision is not None) or self._header is None:
            raise LocalProtocolError("a decision is needed exactly when the device's package is complete")
        self._msg_id += 1
        header_status = status_of_header(self._header, *self._header_status)
        if self._refusing is not None:
            message = refusal(self._outbox, self._reply_header(silent=True), header_status, self._refusing)
        else:
            message = self._fill(header_status, self._ending_of_reply(decision))
        if self._ending and (message.final or self._refusing is not None):
            self.phase = Phase.CLOSED
        self._cached = encode(message, self._outbox.encoding)
        self.mac_header = self._server.mac(self._cached)
        return self._cached

    def _fill(self, header_status: Status, ending: Ending) -> Message:
        filled = self._outbox.fill(self._reply_header(), header_status, ending)
        message = filled.message
        if filled.refused and not filled.carried and not self._ending:
            # An empty package would end the session before the policy hears what could not be sent.
            message = replace(message, final=False)
        self._package.refused(filled.refused)
        self._package.sent(str(self._msg_id), filled.carried)
        if ending is Ending.FINAL:
            self._package_sent = message.final
        return message

    def _ending_of_reply(self, decision: Decision | None) -> Ending:
        match decision:
            case None if self._ending or self._outbox.queue:
                return Ending.FINAL
            case None:
                return Ending.ASK  # the device is not done, or its Results come in chunks
            case Continue(commands) if commands:
                # Only now: a "next message" answer has no command beside Alert 1222.
                for uri in self._interrupted:
                    self._outbox.put(Alert(code=AlertCode.NO_END_OF_DATA, items=(Item(source=uri),)))
                self._package.plan(commands, sequences=self.account.peer.sequences)
                self._outbox.put(*self._package.next_step())
            case Abort():
                self._outbox.put(Alert(code=AlertCode.SESSION_ABORT))
                self._ending = True
            case _:
                self._ending = True
        self._interrupted = []
        self.needs_decision = False
        return Ending.FINAL

    def _reply_header(self, *, silent: bool = False) -> SyncHdr:
        """The header of the next message; `silent`: without our credentials, for a peer that has not proved itself."""
        peer = self.account.peer
        meta = Meta(max_msg_size=self.max_msg_size, max_obj_size=self.max_obj_size)
        return SyncHdr(
            session_id=self.session_id,
            msg_id=str(self._msg_id),
            target=self.account.device_id,
            source=self.server_uri,
            source_name=self.account.server_name,
            resp_uri=self.resp_uri if peer.resp_uri else None,
            cred=self._server.cred(silent=silent),
            meta=meta if peer.announce_sizes else None,
        )


def _refuses(status: Status, msg_id: str) -> bool:
    return status.msg_ref == msg_id or status.code in REFUSALS


def _refuses_commands(message: Message) -> bool:
    """Whether the device says of commands, and not of the header alone, that they lacked credentials."""
    return any(isinstance(c, Status) and c.cmd_ref != "0" and c.code in REFUSALS for c in message.commands)


def message_for_error(
    *, session_id: str, msg_id: str, device_id: str, server_uri: str, msg_ref: str, code: int, encoding: Encoding
) -> bytes:
    """An answer outside any session: one Status on the SyncHdr, and `Final`."""
    status = Status(cmd_id="1", msg_ref=msg_ref, cmd_ref="0", cmd="SyncHdr", code=code)
    header = SyncHdr(session_id=session_id, msg_id=msg_id, target=device_id, source=server_uri, resp_uri=server_uri)
    return encode(Message(header=header, commands=(status,), final=True), encoding)
