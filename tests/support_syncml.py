"""Both session roles wired together in memory, and builders of messages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from syncml.accounts import ClientAccount, DmAccount
from syncml.client_session import ClientSession, CommandResult
from syncml.codec import Encoding, decode
from syncml.codes import AlertCode
from syncml.model import Alert, Command, Get, Item, Message, Sequence, walk
from syncml.policy import Decision, Finish
from syncml.server_session import ServerSession
from syncml.session import AlertReceived, CommandAnswered, CommandReceived, Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEVICE, SERVER_URI = "urn:uuid:device", "https://dpf.example/dm"
DEV_INFO = {
    "./DevInfo/DevId": DEVICE,
    "./DevInfo/Man": "Acme",
    "./DevInfo/Mod": "T1",
    "./DevInfo/DmV": "1.2",
    "./DevInfo/Lang": "en",
}

SERVER_ACCOUNT = DmAccount(
    device_id=DEVICE,
    server_id="dpf.example",
    client_name="device",
    client_secret="client-secret",
    client_nonce=b"client-nonce",
    server_name="dpf.example",
    server_secret="server-secret",
    server_nonce=b"server-nonce",
)
CLIENT_ACCOUNT = ClientAccount(
    server_id="dpf.example",
    server_uri=SERVER_URI,
    client_name="device",
    client_secret="client-secret",
    client_nonce=b"client-nonce",
    server_name="dpf.example",
    server_secret="server-secret",
    server_nonce=b"server-nonce",
)


def nonces(prefix: str) -> Callable[[], bytes]:
    counter = itertools.count(1)
    return lambda: f"{prefix}{next(counter)}".encode()


def server_session(
    account: DmAccount = SERVER_ACCOUNT, *, encoding: Encoding = Encoding.XML, **changes: int
) -> ServerSession:
    limits = {"max_msg_size": 16384, "max_obj_size": 262144} | changes
    return ServerSession(
        account=account,
        server_uri=SERVER_URI,
        resp_uri=SERVER_URI + "?s=1",
        session_id="2F",
        encoding=encoding,
        new_nonce=nonces("n"),
        **limits,
    )


def client_session(
    account: ClientAccount = CLIENT_ACCOUNT,
    *,
    start: AlertCode = AlertCode.CLIENT_INITIATED_MGMT,
    alerts: tuple[Alert, ...] = (),
    max_msg_size: int = 16384,
    max_obj_size: int = 262144,
    encoding: Encoding = Encoding.XML,
) -> ClientSession:
    return ClientSession(
        account=account,
        device_id=DEVICE,
        session_id="2F",
        dev_info=DEV_INFO,
        start=start,
        alerts=alerts,
        max_msg_size=max_msg_size,
        max_obj_size=max_obj_size,
        encoding=encoding,
        new_nonce=nonces("m"),
    )


def answer_all(command: Command) -> list[CommandResult]:
    """An executor that does everything: 200, and a value for each Get."""
    results = []
    for each in walk((command,)):
        if isinstance(each, Get):
            for item in each.items:
                found = Item(source=item.target, data=f"value of {item.target}")
                results.append(CommandResult(cmd_id=each.cmd_id, code=200, target=item.target, item=found))
        else:
            results.append(CommandResult(cmd_id=each.cmd_id, code=200))
    return results


@dataclass
class Run:
    """What happened in a session pumped to its end."""

    client_messages: list[Message] = field(default_factory=list)
    server_messages: list[Message] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # octets of the server's messages
    client_sizes: list[int] = field(default_factory=list)
    server_events: list[Event] = field(default_factory=list)
    client_events: list[Event] = field(default_factory=list)

    @property
    def answers(self) -> list[CommandAnswered]:
        return [event for event in self.server_events if isinstance(event, CommandAnswered)]

    @property
    def received(self) -> list[Command]:
        return [event.command for event in self.client_events if isinstance(event, CommandReceived)]

    @property
    def alerts(self) -> list[Alert]:
        return [event.alert for event in self.server_events if isinstance(event, AlertReceived)]


def encoding_in_use(body: bytes) -> Encoding:
    return Encoding.XML if body.startswith(b"<") else Encoding.WBXML


def pump(
    client: ClientSession,
    server: ServerSession,
    policy: Iterable[Decision] = (),
    execute: Callable[[Command], list[CommandResult]] = answer_all,
    limit: int = 200,
) -> Run:
    """Run both sessions until one has nothing to say; `limit` messages at most."""
    run = Run()
    decisions = iter(policy)
    body: bytes | None = client.start()
    for _ in range(limit):
        if body is None:
            return run
        message = decode(body, encoding_in_use(body))
        run.client_messages.append(message)
        run.client_sizes.append(len(body))
        run.server_events += server.receive(message, NOW, raw=body)
        reply = server.reply(next(decisions, Finish()) if server.needs_decision else None)
        run.sizes.append(len(reply))
        answer = decode(reply, encoding_in_use(body))
        run.server_messages.append(answer)
        if client.closed:
            return run
        events = client.receive(answer, NOW, raw=reply)
        run.client_events += events
        for event in events:
            if isinstance(event, CommandReceived):
                client.answer(event.command, execute(event.command))
        body = client.reply()
    raise AssertionError("the session does not end")


def get(*uris: str) -> Get:
    return Get(items=tuple(Item(target=uri) for uri in uris))


def sequence(*commands: Command) -> Sequence:
    return Sequence(commands=commands)
