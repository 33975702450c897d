"""Client side of one management session (OMA-TS-DM_Protocol-V1_2 §8, OMA-TS-DM_Security-V1_2 §5.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from syncml.accounts import ClientAccount
from syncml.auth import SPECIAL_NONCES, Credentials
from syncml.authentication import REFUSALS, Authenticator, HeaderAnswer, NewNonce, Proof, Prover
from syncml.client_answers import ClientAnswers, CommandResult, refused_atomic, statuses_of_atomic
from syncml.codec import Encoding, encode
from syncml.codes import AlertCode, AuthType, Format, MediaType, StatusCode
from syncml.errors import CommandOutOfPhase, OutOfOrder, PeerLimitTooSmall
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
)
from syncml.outbox import Ending, Outbox
from syncml.session import (
    MAX_MESSAGES,
    ClientAuthenticated,
    CommandReceived,
    CredentialsRefused,
    DuplicateMessage,
    Event,
    NonceChanged,
    Phase,
    ServerAuthenticated,
    SessionAborted,
    SessionClosed,
    StatusReceived,
    check_versions,
    next_phase,
)
from syncml.statuses import fit_in_one_message, refusal, refusals, status_of_header

USER_INTERACTION: Final = (
    AlertCode.DISPLAY,
    AlertCode.CONFIRM_OR_REJECT,
    AlertCode.TEXT_INPUT,
    AlertCode.SINGLE_CHOICE,
    AlertCode.MULTIPLE_CHOICE,
)
"""Alerts that want a user in front of the device; the executor answers them."""

_LONGEST_CHAL: Final = Chal(type=AuthType.MD5, next_nonce=bytes(32))
"""What the Status of a header may carry when the size of an answer is estimated."""

__all__ = ["ClientSession", "CommandResult"]


class ClientSession:
    """One session with one server. `start` gives package 1; then `receive` and `reply` until `reply` gives None.

    `mac_header` is the value of the transport header `x-syncml-hmac` that has to travel with the message made last,
    None for none.
    """

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
        self.mac_header: str | None = None
        self._client = Prover(
            Credentials(
                type=account.client_auth,
                name=account.client_name,
                secret=account.client_secret,
                nonce=SPECIAL_NONCES[0] if account.resync else account.client_nonce,
            ),
            preemptive=account.preemptive,
        )
        self._server = None if account.server_auth is None else _authenticator(account, account.server_auth, new_nonce)
        self._client_announced = False
        self._server_announced = False
        self._owes_nonce = False  # the server has used its nonce up with the last message
        self._kept_nonce = account.server_nonce  # what is stored for the server's next session
        self._pending_nonce: bytes | None = None  # for us, from a server not authenticated yet
        self._msg_id = 0
        self._peer_msg_id: str | None = None
        self._peer_proof = Proof()  # of the last message
        self._duplicate = False
        self._cached: bytes | None = None  # our last message
        self._sent_alerts: dict[str, Alert] = {}  # CmdID in our last message → alert
        self._held: list[StatusReceived] = []  # what an unauthenticated server said of our alerts
        self._outbox = Outbox(encoding)
        self._incoming = Reassembly(limit=max_obj_size)
        self._header: SyncHdr | None = None
        self._header_status: tuple[int, Chal | None] = (StatusCode.OK, None)
        self._answers = ClientAnswers()
        self._news: list[Alert] = []  # announced since the last message
        self._refusing: list[Status] | None = None  # Statuses for a message whose sender is not the server
        self._in_package_1 = True  # the server has said nothing but challenges
        self._challenged = False  # our last message goes out again
        self._last_statuses: list[Status] = []  # in our last message, beside that of the header
        self._last_ending = Ending.FINAL
        self._last_refusal: list[Status] | None = None  # our last message refused the server; its Statuses
        self._ask_for_more = False
        self._aborting = False
        self._last_word = False  # the session is over for us, and the server is still to hear why

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

    def receive(self, message: Message, now: datetime, *, raw: bytes = b"", mac: str | None = None) -> list[Event]:
        """Take one decoded message of the server; say what happened, in document order.

        Commands come as `CommandReceived` only from an authenticated server. The caller executes each and gives the
        outcome to `answer`.

        Args:
            message: as decoded.
            now: UTC.
            raw: the octets received, for credentials that cover them.
            mac: value of the transport header `x-syncml-hmac`, None when there was none.

        Raises:
            OutOfOrder: another session.
            CommandOutOfPhase: the session is closed, or too long.
            PeerLimitTooSmall: no message of ours can keep to the server's MaxMsgSize; the session is closed.
                Any other exception out of here is a bug in this package.
        """
        header = message.header
        if header.session_id != self.session_id:
            raise OutOfOrder("a message of another session")
        proof = Proof(cred=header.cred, mac=mac, body=raw)
        if header.msg_id == self._peer_msg_id:
            if self._server is not None and self._server.per_message and proof != self._peer_proof:
                raise OutOfOrder("not the message that had this MsgID")
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
        self._peer_msg_id, self._peer_proof = header.msg_id, proof
        self._header = header
        self._answers = ClientAnswers()
        self._refusing = None
        self._challenged = self._ask_for_more = False
        if header.resp_uri:
            self.target_uri = header.resp_uri
        if (unsupported := check_versions(header)) is not None:
            self._header_status = (unsupported, None)
            self._refusing = refusals(message, unsupported)
            self._last_word = bool(self._refusing)  # Statuses alone want no answer, whatever their version
            return [self._move(SessionAborted(f"the server speaks another version: {unsupported}"))]
        events: list[Event] = []
        if not self._judged_by_server(message, events):
            if self._challenged:
                self._judge_challenger(proof, events)
            return events
        if not self._judge_server(message, proof, events):
            return events
        if self._client.starved and any(not isinstance(command, Status) for command in message.commands):
            # Every message needs a nonce of its own, so there is none that could prove our answer.
            events.append(self._move(SessionClosed("the server sent no next nonce for auth-MAC")))
            return events
        self._in_package_1 = False
        held, self._held = self._held, []
        for heard in held:
            self._hear(heard, events)
        for command in message.commands:
            if self.closed:
                break
            self._take(command, events)
        if not self.closed:
            self._settle(message, events)
        return events

    def _settle(self, message: Message, events: list[Event]) -> None:
        """After all commands: is there anything to answer?"""
        final = message.final and not self._answers.has_chunk  # MoreData says more than a Final beside it
        if final:
            if self._incoming.open:
                self._say_no_end_of_data()
            self._incoming.end_package()
        # "Next message" of the server asks for the rest of our package; any other message without Final is not all.
        asked = any(isinstance(c, Alert) and c.code == AlertCode.NEXT_MESSAGE for c in message.commands)
        self._ask_for_more = not final and (not asked or self._answers.has_chunk)
        if self._answers or not self._outbox.empty or self._ask_for_more:
            self._renew_nonce(events)
            return
        self._keep_accepted_nonce(events)
        events.append(self._move(SessionClosed("done", orderly=True)))

    def _renew_nonce(self, events: list[Event]) -> None:
        """A new nonce for the server that has just proved itself. Only when there is a message to carry it: else the
        server never hears of it, and what it proves itself with next time would be wrong."""
        code, chal = self._header_status
        if self._server is None or chal is not None or not self._owes_nonce:
            return
        self._owes_nonce = False
        self._header_status = (code, self._server.issue())
        self._keep(self._server.nonce, events)

    def _keep_accepted_nonce(self, events: list[Event]) -> None:
        """Without a message that carries a new nonce, the server goes on with the one it has used."""
        used = self._server.accepted_nonce if self._server is not None and self._owes_nonce else None
        if used is not None and used != self._kept_nonce and used not in SPECIAL_NONCES:
            self._keep(used, events)

    def _keep(self, nonce: bytes, events: list[Event]) -> None:
        self._kept_nonce = nonce
        events.append(NonceChanged(direction="server", nonce=nonce))

    def _move(self, event: Event) -> Event:
        try:
            self.phase = next_phase(self.phase, event)
        except CommandOutOfPhase:
            self.phase = Phase.CLOSED
            raise
        return event

    # -- who is who ----------------------------------------------------------------------------------------------

    def _judged_by_server(self, message: Message, events: list[Event]) -> bool:
        """The Status of our header: accepted (True), or a challenge, with which nothing else of the message counts."""
        for status in message.commands:
            if not isinstance(status, Status) or status.cmd_ref != "0":
                continue
            answer = self._client.hear(status)
            if status.code in REFUSALS:
                final = answer is not HeaderAnswer.CHALLENGED
                events.append(self._move(CredentialsRefused(attempt=self._client.challenges, final=final)))
                if final:
                    events.append(self._move(SessionClosed("the server does not accept our credentials")))
                self._challenged = not final
                return False
            if status.code >= 300:
                events.append(self._move(SessionClosed(f"the server answers {status.code}")))
                return False
            if answer is HeaderAnswer.ACCEPTED and not self._client_announced:
                self._client_announced = True
                events.append(self._move(ClientAuthenticated()))
            if status.chal is not None and status.chal.next_nonce is not None:
                self._pending_nonce = self._client.nonce
        return True

    def _judge_challenger(self, proof: Proof, events: list[Event]) -> None:
        """A server that challenges us need not prove itself yet. If it tries, our next message says how that went."""
        if self._header_status[1] is None:  # else the server has not heard of the nonce in the message it refused
            self._header_status = (StatusCode.OK, None)
        self._pending_nonce = None  # the nonce of a challenge serves this answer and is not stored
        if self._server is None or self._server.settled or not self._server.shows(proof):
            return
        verdict = self._server.judge(proof)
        if verdict.accepted:
            self._header_status = (verdict.code, None)
            self._announce_server(events)
            self._owes_nonce = self._server.uses_nonces
            self._renew_nonce(events)
            return
        final = verdict.chal is None
        events.append(self._move(CredentialsRefused(attempt=self._server.refusals, final=final)))
        self._header_status = (verdict.code, verdict.chal)
        if final:
            self._challenged = False
            events.append(self._move(SessionClosed("the server does not prove who it is")))

    def _judge_server(self, message: Message, proof: Proof, events: list[Event]) -> bool:
        self._owes_nonce = False
        if self._server is None:
            self._header_status = (StatusCode.OK, None)
        else:
            verdict = self._server.judge(proof)
            self._header_status = (verdict.code, verdict.chal)
            if not verdict.accepted:
                self._refuse_server(message, events)
                return False
            self._owes_nonce = verdict.checked and self._server.uses_nonces
        self._announce_server(events)
        if self._pending_nonce is not None:
            events.append(NonceChanged(direction="client", nonce=self._pending_nonce))
            self._pending_nonce = None
        return True

    def _announce_server(self, events: list[Event]) -> None:
        if not self._server_announced:
            self._server_announced = True
            events.append(self._move(ServerAuthenticated()))

    def _refuse_server(self, message: Message, events: list[Event]) -> None:
        """Nothing of an unauthenticated server is executed (OMA-TS-DM_Security-V1_2 §5.3)."""
        code, chal = self._header_status
        attempt = 0 if self._server is None else self._server.refusals
        events.append(self._move(CredentialsRefused(attempt=attempt, final=chal is None)))
        if chal is None or all(isinstance(c, Status) for c in message.commands):  # no endless challenge; no bare one
            events.append(self._move(SessionClosed("the server does not prove who it is")))
            return
        # What it says of our alerts it will not say again: believed once it is authenticated.
        self._held += [heard for command in message.commands if (heard := self._heard(command)) is not None]
        self._refusing = refusals(message, code)

    # -- commands ------------------------------------------------------------------------------------------------

    def _take(self, command: Command, events: list[Event]) -> None:
        if not isinstance(command, Status) and not self._answers.names(command):
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
            case Alert(code=code) if code in USER_INTERACTION:
                self._announce(command, events)
            case Alert() | UnknownCommand() | Results():
                self._done(command, StatusCode.OPTIONAL_FEATURE_NOT_SUPPORTED)
            case Atomic():
                self._interrupt(command, ())
                self._take_atomic(command, events)
            case Sequence():
                self._interrupt(command, ())
                self._announce(command, events)
            case Add() | Replace() | Delete() | Get() | Copy() | Exec():
                self._take_items(command, events)

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
            events.append(self._move(SessionClosed(f"the server refuses the session: {heard.code}", orderly=True)))

    def _take_atomic(self, atomic: Atomic, events: list[Event]) -> None:
        """An Atomic whose Statuses no message can hold together is not begun: 517, and nothing to roll back.

        Statuses of other commands may still push some of them into the next message. That is allowed to a device
        that is certain of the outcome, and an Atomic here is one transaction.
        """
        header = self._header
        if header is not None and not fit_in_one_message(
            self._reply_header(),
            status_of_header(header, StatusCode.OK, _LONGEST_CHAL),
            statuses_of_atomic(atomic, header),
            self._outbox.encoding,
            self._outbox.peer_size,
        ):
            self._answers.settle(atomic, *refused_atomic(atomic))
            return
        self._announce(atomic, events)

    def _take_items(self, command: Add | Replace | Delete | Get | Copy | Exec, events: list[Event]) -> None:
        if not command.items:
            self._interrupt(command, ())
            self._done(command, StatusCode.INCOMPLETE_COMMAND)
            return
        items: list[Item] = []
        chunks: list[tuple[int, str | None]] = []  # Status and Target of what is no whole value
        for item in command.items:
            self._interrupt(command, (item,))
            if command.meta is not None and item.more_data:
                item = replace(item, meta=command.meta.inherited_by(item.meta))
            whole = self._incoming.take(command.name, item)
            if isinstance(whole, Item):
                items.append(whole)
            else:
                chunks.append((whole, item.target))
        if items:
            self._announce(replace(command, items=tuple(items)), events)
        for code, target in chunks:
            self._done(command, code, target=target)

    def _interrupt(self, command: Command, items: tuple[Item, ...]) -> None:
        """Something else before the last chunk: say so and forget the object."""
        if self._incoming.interrupted_by(command.name, items):
            self._say_no_end_of_data()

    def _say_no_end_of_data(self) -> None:
        uri = self._incoming.interrupt()
        self._outbox.put(Alert(code=AlertCode.NO_END_OF_DATA, items=(Item(target=uri),)))

    def _announce(self, command: Command, events: list[Event]) -> None:
        self._answers.expect(command)
        events.append(self._move(CommandReceived(command)))

    def _done(self, command: Command, code: int, *, target: str | None = None) -> None:
        self._answers.settle(command, CommandResult(cmd_id=command.cmd_id, code=code, target=target))

    # -- answering -----------------------------------------------------------------------------------------------

    def answer(self, command: Command, results: Iterable[CommandResult]) -> None:
        """Give the outcome of a command that `receive` announced: one result for the whole, or one for each Item;
        for a group, that of the group and those of its children.

        Raises:
            LocalProtocolError: `receive` announced no such command.
        """
        self._answers.give(command, results)

    def announce(self, *alerts: Alert) -> None:
        """Send alerts of our own with the next message, for instance the end of an Exec of this session."""
        self._news += alerts

    def abort(self) -> None:
        """End the session with the next message: Alert 1223 and `Final` (OMA-TS-DM_Protocol-V1_2 §8.1.2)."""
        self._aborting = True

    def reply(self) -> bytes | None:
        """The encoded next message, `mac_header` beside it; None when the session is over and nothing may be sent.

        A session that ends because the server speaks another version has one message left: the Statuses that say so,
        to which no answer counts.

        Raises:
            LocalProtocolError: a command that `receive` announced has no answer.
        """
        if self._duplicate and not self.closed:
            return self._cached
        if self._last_word and self._refusing is not None:
            self._last_word = False
            return self._send_refusal(self._refusing, silent=True)
        if self.closed:
            return None
        if self._challenged and self._last_refusal is not None:
            return self._send_refusal(self._last_refusal)
        if self._challenged:
            return self._send(self._take_back())
        if self._refusing is not None and not self._aborting:
            return self._send_refusal(self._refusing)
        self._answers.hand_over(self._outbox, self._header)
        self._outbox.put(*self._news)
        self._news = []
        if self._aborting:
            self._outbox.clear()
            self._outbox.put(Alert(code=AlertCode.SESSION_ABORT))
            body = self._send(Ending.FINAL)
            self.phase = Phase.CLOSED
            return body
        return self._send(Ending.ASK if self._ask_for_more else Ending.FINAL)

    def _take_back(self) -> Ending:
        """What the server did not accept goes out again: package 1 as a whole, later the last message."""
        if self._in_package_1:
            self._outbox.clear()
            self._outbox.put(*self._package_1())
            return Ending.FINAL
        self._outbox.take_back()
        self._outbox.owed[:0] = self._last_statuses
        return self._last_ending

    def _send(self, ending: Ending) -> bytes:
        self._msg_id += 1
        owed = list(self._outbox.owed)
        filled = self._outbox.fill(self._reply_header(), self._status_of_header(), ending)
        self._last_statuses = owed[: len(owed) - len(self._outbox.owed)]
        self._last_ending, self._last_refusal = ending, None
        self._sent_alerts = {on_wire.cmd_id: origin for on_wire, origin in filled.carried if isinstance(origin, Alert)}
        return self._encode(filled.message)

    def _send_refusal(self, statuses: list[Status], *, silent: bool = False) -> bytes:
        self._msg_id += 1
        self._last_refusal = list(statuses)
        header = self._reply_header(silent=silent)
        return self._encode(refusal(self._outbox, header, self._status_of_header(), statuses))

    def _encode(self, message: Message) -> bytes:
        self._cached = encode(message, self._outbox.encoding)
        self.mac_header = self._client.mac(self._cached)
        return self._cached

    def _status_of_header(self) -> Status | None:
        return None if self._header is None else status_of_header(self._header, *self._header_status)

    def _reply_header(self, *, silent: bool = False) -> SyncHdr:
        """The header of the next message; `silent`: without our credentials."""
        return SyncHdr(
            session_id=self.session_id,
            msg_id=str(self._msg_id),
            target=self.target_uri,
            source=self.device_id,
            source_name=self.account.client_name,
            cred=self._client.cred(silent=silent),
            meta=Meta(max_msg_size=self.max_msg_size, max_obj_size=self.max_obj_size),
        )


def _authenticator(account: ClientAccount, auth_type: AuthType, new_nonce: NewNonce) -> Authenticator:
    return Authenticator(
        Credentials(type=auth_type, name=account.server_name, secret=account.server_secret, nonce=account.server_nonce),
        new_nonce,
        nonce_before=account.server_nonce_before,
        resync=account.resync,
    )
