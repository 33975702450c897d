"""Both session roles, wired together in memory and each against a peer that breaks the rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from time import process_time

import pytest

from syncml.client_session import ClientSession
from syncml.codec import Encoding, decode, encode
from syncml.codes import AlertCode, AuthType, Format
from syncml.errors import CommandOutOfPhase, LocalProtocolError, RemoteProtocolError
from syncml.large_object import Reassembly
from syncml.model import (
    Add,
    Alert,
    Command,
    Get,
    Item,
    Message,
    Meta,
    Replace,
    Results,
    Status,
    SyncHdr,
    UnknownCommand,
)
from syncml.policy import Abort, Continue, Finish
from syncml.server_session import ServerSession, message_for_error
from syncml.session import (
    NEXT,
    AlertReceived,
    ClientAuthenticated,
    CommandReceived,
    CredentialsRefused,
    DuplicateMessage,
    Event,
    NonceChanged,
    PackageReceived,
    Phase,
    ServerAccepted,
    SessionAborted,
    SessionClosed,
    SessionOpened,
)
from syncml.values import item_value, leaf_item
from tests.support_syncml import (
    CLIENT_ACCOUNT,
    DEV_INFO,
    DEVICE,
    NOW,
    SERVER_ACCOUNT,
    SERVER_URI,
    answer_all,
    client_session,
    get,
    pump,
    sequence,
    server_session,
)

EVENTS: dict[type[Event], Event] = {
    SessionOpened: SessionOpened(alert_code=1201, dev_info={}),
    ClientAuthenticated: ClientAuthenticated(),
    ServerAccepted: ServerAccepted(),
    PackageReceived: PackageReceived(),
    SessionAborted: SessionAborted(""),
    SessionClosed: SessionClosed(""),
    CommandReceived: CommandReceived(get("./A")),
    CredentialsRefused: CredentialsRefused(attempt=1, final=False),
}


@pytest.mark.parametrize(("phase", "kind"), list(product(Phase, EVENTS)), ids=str)
def test_every_pair_of_the_table(phase: Phase, kind: type[Event]) -> None:
    """What the table lists moves the session; what it leaves out closes it."""
    session = server_session()
    session.phase = phase
    if (phase, kind) in NEXT:
        session._move(EVENTS[kind])
        assert session.phase is NEXT[phase, kind]
    else:
        with pytest.raises(CommandOutOfPhase):
            session._move(EVENTS[kind])
        assert session.phase is Phase.CLOSED


@pytest.mark.parametrize("start", [AlertCode.CLIENT_INITIATED_MGMT, AlertCode.SERVER_INITIATED_MGMT])
def test_session_from_start_to_end(start: AlertCode) -> None:
    """XC-001, XC-002, XC-003, XS-001, XS-002: both starts, MsgIDs counted, one SessionID, an empty end."""
    run = pump(client_session(start=start), server_session(), [Continue((get("./A"),))])
    first = run.client_messages[0]
    assert isinstance(first.commands[0], Alert)
    assert first.commands[0].code == start
    assert isinstance(first.commands[1], Replace)
    assert {item.source: item.data for item in first.commands[1].items} == DEV_INFO
    assert [message.header.msg_id for message in run.client_messages] == ["1", "2"]
    assert {message.header.session_id for message in run.client_messages + run.server_messages} == {"2F"}
    assert all(message.final for message in run.client_messages + run.server_messages)
    assert [type(command) for command in run.server_messages[-1].commands] == [Status]
    assert run.answers[0].values() == {"./A": "value of ./A"}
    assert any(isinstance(event, SessionOpened) and event.dev_info == DEV_INFO for event in run.server_events)


def test_every_server_header_carries_resp_uri_and_the_client_follows_it() -> None:
    """XC-006."""
    client = client_session()
    run = pump(client, server_session(), [Continue((get("./A"),))])
    assert {message.header.resp_uri for message in run.server_messages} == {SERVER_URI + "?s=1"}
    assert client.target_uri == SERVER_URI + "?s=1"


def test_answers_come_in_order_status_before_results() -> None:
    """XC-005, XC-011."""
    run = pump(client_session(), server_session(), [Continue((get("./A", "./B"), sequence(get("./C"), get("./D"))))])
    kinds = [type(command) for command in run.client_messages[1].commands]
    assert kinds == sorted(kinds, key=[Status, Results].index)
    header = run.client_messages[1].commands[0]
    assert isinstance(header, Status)
    assert (header.cmd_ref, header.cmd) == ("0", "SyncHdr")
    assert [answer.command.name for answer in run.answers] == ["Get", "Sequence"]
    assert run.answers[0].code_of("./B") == 200
    assert set(run.answers[1].values()) == {"./C", "./D"}


def test_credentials_of_both_sides_travel_once_and_nonces_rotate() -> None:
    """XC-022, XS-008: 212, then no credentials; both peers store the new nonces."""
    run = pump(client_session(), server_session(), [Continue((get("./A"),))])
    assert [message.header.cred is not None for message in run.client_messages] == [True, False]
    assert [message.header.cred is not None for message in run.server_messages] == [True, False]
    by_server = {(e.direction, e.nonce) for e in run.server_events if isinstance(e, NonceChanged)}
    by_client = {(e.direction, e.nonce) for e in run.client_events if isinstance(e, NonceChanged)}
    assert by_server == by_client == {("client", b"n1"), ("server", b"m1")}


def test_a_session_without_commands_leaves_the_server_its_nonce() -> None:
    """OMA-TS-DM_Security-V1_2 §5.3: no message carries a new nonce to the server, so the old one stays good."""
    run = pump(client_session(), server_session(), [Finish()])
    assert len(run.client_messages) == 1
    assert not [e for e in run.client_events if isinstance(e, NonceChanged) and e.direction == "server"]


def test_stale_client_nonce_is_challenged_once_and_recovers() -> None:
    """XC-020, XS-009: 401 with a new nonce, package 1 again with MsgID 2 and the header's Status."""
    client = client_session(replace(CLIENT_ACCOUNT, client_nonce=b"old"))
    run = pump(client, server_session(), [Continue((get("./A"),))])
    refused = run.server_messages[0]
    assert [command.code for command in refused.commands if isinstance(command, Status)] == [401, 401, 401]
    assert refused.header.cred is None
    again = run.client_messages[1]
    assert (again.header.msg_id, again.header.session_id) == ("2", "2F")
    assert [command.name for command in again.commands] == ["Status", "Alert", "Replace"]
    assert run.answers


def test_wrong_client_password_gets_one_challenge_more_and_nothing_is_executed() -> None:
    """XC-021, XS-007, XS-009: bounded; the last refusal has no challenge."""
    server = server_session()
    run = pump(client_session(replace(CLIENT_ACCOUNT, client_secret="guess")), server, [Continue((get("./A"),))])
    attempts = [e for e in run.server_events if isinstance(e, CredentialsRefused)]
    assert [(e.attempt, e.final) for e in attempts] == [(1, False), (2, True)]
    last = run.server_messages[-1].commands[0]
    assert isinstance(last, Status)
    assert (last.code, last.chal) == (401, None)
    assert server.closed
    assert not run.received
    assert not any(isinstance(event, SessionOpened) for event in run.server_events)


def test_missing_credentials_are_407() -> None:
    """XS-007."""
    server = server_session()
    header = SyncHdr(session_id="2F", msg_id="1", target=SERVER_URI, source=DEVICE)
    server.receive(Message(header=header, commands=(Alert(cmd_id="1", code=1201),), final=True), NOW)
    reply = decode(server.reply(), Encoding.XML)
    assert [command.code for command in reply.commands if isinstance(command, Status)] == [407, 407]
    status = reply.commands[0]
    assert isinstance(status, Status)
    assert status.chal is not None
    assert status.chal.next_nonce == b"n1"


def test_weaker_credentials_than_demanded_are_challenged() -> None:
    """XS-011: basic where md5 is demanded; the client may become stronger than agreed."""
    client = client_session(replace(CLIENT_ACCOUNT, client_auth=AuthType.BASIC))
    run = pump(client, server_session())
    refused = run.server_messages[0]
    assert [command.code for command in refused.commands if isinstance(command, Status)] == [401, 401, 401]
    assert isinstance(refused.commands[0], Status)
    assert refused.commands[0].chal is not None
    assert refused.commands[0].chal.type == AuthType.MD5
    second = run.client_messages[1].header.cred
    assert second is not None
    assert second.type == AuthType.MD5
    assert any(isinstance(event, SessionOpened) for event in run.server_events)


def test_basic_in_both_directions() -> None:
    """OMA-TS-DM_Security-V1_2 §5.3: basic, no nonces."""
    run = pump(
        client_session(replace(CLIENT_ACCOUNT, client_auth=AuthType.BASIC, server_auth=AuthType.BASIC)),
        server_session(replace(SERVER_ACCOUNT, client_auth=AuthType.BASIC, server_auth=AuthType.BASIC)),
        [Continue((get("./A"),))],
    )
    assert run.answers
    assert not [event for event in run.client_events if isinstance(event, NonceChanged)]


def test_stale_server_nonce_is_challenged_and_the_commands_come_again() -> None:
    """XC-025, XS-012: 401 and a challenge; nothing runs before the server proves itself."""
    server = server_session(replace(SERVER_ACCOUNT, server_nonce=b"old"))
    run = pump(client_session(), server, [Continue((get("./A"), get("./B")))])
    refusal = run.client_messages[1]
    assert [command.code for command in refusal.commands if isinstance(command, Status)] == [401, 401, 401]
    assert [answer.code for answer in run.answers] == [200, 200]
    assert len(run.received) == 2


def test_wrong_server_password_executes_nothing_and_ends() -> None:
    """XC-024, XC-025: bounded tries, no Results, no command executed."""
    client = client_session()
    run = pump(client, server_session(replace(SERVER_ACCOUNT, server_secret="guess")), [Continue((get("./A"),))])
    assert not run.received
    assert client.closed
    assert len(run.server_messages) <= 4


def test_bare_statuses_of_an_unproved_server_are_not_challenged() -> None:
    """XC-026."""
    client = client_session()
    run = pump(client, server_session(replace(SERVER_ACCOUNT, server_secret="guess")), [Finish()])
    assert client.closed
    assert len(run.client_messages) == 1


def test_tls_alone_suffices_where_the_account_says_so() -> None:
    account = replace(CLIENT_ACCOUNT, server_auth=None)
    run = pump(
        client_session(account), server_session(replace(SERVER_ACCOUNT, server_secret="x")), [Continue((get("./A"),))]
    )
    assert run.answers[0].code == 200


@pytest.mark.parametrize("size", [3000, 60_000])
def test_large_object_to_the_device(size: int) -> None:
    """XC-080, XS-015, XS-016: chunks, Size in the first only, no message above MaxMsgSize, executed once."""
    value = bytes(range(256)) * (size // 256)
    add = Add(items=(leaf_item("./P", value, format=Format.BIN),))
    run = pump(client_session(max_msg_size=4096), server_session(), [Continue((get("./A"), add, get("./B")))])
    assert max(run.sizes) <= 4096
    pieces = [c for m in run.server_messages for c in m.commands if isinstance(c, Add)]
    assert len(pieces) > (1 if size > 4096 else 0)
    sizes = [piece.items[0].meta.size for piece in pieces if piece.items[0].meta is not None]
    assert sizes[1:] == [None] * (len(pieces) - 1)
    assert [piece.items[0].more_data for piece in pieces][-1] is False
    assert [c.name for c in run.received] == ["Get", "Add", "Get"]
    received = run.received[1]
    assert isinstance(received, Add)
    assert item_value(received.items[0]) == value
    assert [answer.code for answer in run.answers] == [200, 200, 200]
    not_final = [m for m in run.server_messages if any(isinstance(c, Add) and c.items[0].more_data for c in m.commands)]
    assert not any(message.final for message in not_final)


def test_object_over_max_obj_size_is_not_sent() -> None:
    """XS-017: refused here with 413, the rest goes on."""
    add = Add(items=(leaf_item("./P", "x" * 5000),))
    run = pump(client_session(max_obj_size=4096), server_session(), [Continue((add, get("./A")))])
    assert [(answer.code, len(answer.statuses)) for answer in run.answers] == [(413, 0), (200, 1)]
    assert [command.name for command in run.received] == ["Get"]


def test_a_command_that_fits_no_message_is_refused_here_and_the_session_goes_on() -> None:
    """XS-015, XS-029: a Sequence stays in one message; 413, no endless asking for the next message."""
    many = sequence(*(get(f"./{'n' * 200}/{number}") for number in range(40)))
    run = pump(client_session(max_msg_size=4096), server_session(), [Continue((many, get("./A")))], limit=12)
    assert [(answer.code, len(answer.statuses)) for answer in run.answers] == [(413, 0), (200, 1)]


def test_results_too_many_for_one_message_come_in_several() -> None:
    """XC-010, XS-003, XS-004: the client splits, the server asks for the next message and says nothing else."""
    uris = [f"./N/{number}" for number in range(60)]
    run = pump(client_session(), server_session(max_msg_size=4096), [Continue((get(*uris),))])
    assert len(run.client_messages) > 3
    assert max(run.client_sizes) <= 4096
    assert set(run.answers[0].values()) == set(uris)
    asking = run.server_messages[1]
    assert not asking.final
    assert [c.name for c in asking.commands] == ["Status", "Alert"]


def test_large_result_comes_in_chunks() -> None:
    """XC-083, XS-018."""

    def execute(command: object) -> list[object]:
        assert isinstance(command, Get)
        item = Item(source="./L", data="0123456789" * 2000)
        return [replace(answer_all(command)[0], item=item)]

    run = pump(client_session(), server_session(max_msg_size=4096), [Continue((get("./L"),))], execute)
    assert run.answers[0].values() == {"./L": "0123456789" * 2000}
    assert max(run.client_sizes) <= 4096


def test_results_that_are_whole_get_no_status() -> None:
    """XS-024: only what is no success is said of Results: each chunk 213, the whole nothing."""

    def execute(command: object) -> list[object]:
        assert isinstance(command, Get)
        found = [Item(source=item.target, data="v" * 6000 if item.target == "./L" else "v") for item in command.items]
        return [replace(each, item=item) for each, item in zip(answer_all(command), found, strict=True)]

    run = pump(client_session(), server_session(max_msg_size=4096), [Continue((get("./S"), get("./L")))], execute)
    said = [c.code for m in run.server_messages for c in m.commands if isinstance(c, Status) and c.cmd == "Results"]
    chunks = [c for m in run.client_messages for c in m.commands if isinstance(c, Results) and c.items[0].more_data]
    assert said == [213] * len(chunks) != []
    assert [sorted(answer.values()) for answer in run.answers] == [["./S"], ["./L"]]


def test_generic_alerts_reach_the_policy_and_get_its_status() -> None:
    """XS-020, XS-022: several Items, 200; a status the policy chose instead."""
    alert = Alert(code=AlertCode.GENERIC_ALERT, items=(Item(source="./A", data="1"), Item(source="./B", data="2")))
    run = pump(client_session(alerts=(alert,)), server_session())
    assert [len(received.items) for received in run.alerts] == [2]
    server, client = server_session(), client_session(alerts=(alert,))
    raw = client.start()
    events = server.receive(decode(raw, Encoding.XML), NOW, raw=raw)
    received = next(event for event in events if isinstance(event, AlertReceived))
    server.answer(received.alert.cmd_id, 415)
    server.answer("", 403)
    reply = decode(server.reply(Finish()), Encoding.XML)
    assert [c.code for c in reply.commands if isinstance(c, Status)] == [212, 403, 200, 415]
    assert any(isinstance(event, SessionClosed) for event in client.receive(reply, NOW))
    assert client.reply() is None


def authenticated() -> ServerSession:
    session = server_session()
    raw = client_session().start()
    session.receive(decode(raw, Encoding.XML), NOW, raw=raw)
    session.reply(Continue((get("./A"),)))
    return session


def message(
    *commands: Alert | Status | Results | UnknownCommand | Get, msg_id: str = "2", final: bool = True
) -> Message:
    header = SyncHdr(session_id="2F", msg_id=msg_id, target=SERVER_URI, source=DEVICE)
    return Message(header=header, commands=commands, final=final)


ODD_COMMANDS = {
    "unknown command": (UnknownCommand(cmd_id="7", element="Put"), 406),
    "a command only servers send": (Get(cmd_id="7", items=(Item(target="./A"),)), 405),
    "user interaction from a client": (Alert(cmd_id="7", code=1100), 406),
    "alert nobody defined": (Alert(cmd_id="7", code=1299), 406),
    "alert without code": (Alert(cmd_id="7", code=None), 412),
    "generic alert without Items": (Alert(cmd_id="7", code=1226), 412),
    "client event": (Alert(cmd_id="7", code=1224, items=(Item(data="x"),)), 200),
    "no end of data": (Alert(cmd_id="7", code=1225), 200),
}


@pytest.mark.parametrize(("command", "code"), ODD_COMMANDS.values(), ids=ODD_COMMANDS)
def test_odd_commands_get_their_status_and_the_session_goes_on(
    command: Alert | Get | UnknownCommand, code: int
) -> None:
    """XS-021, XS-023: the Status of each, nothing executed, no end."""
    session = authenticated()
    session.receive(message(Status(cmd_id="1", msg_ref="1", cmd_ref="4", cmd="Get", code=404), command), NOW)
    reply = decode(session.reply(Continue((get("./B"),))), Encoding.XML)
    statuses = {c.cmd_ref: c.code for c in reply.commands if isinstance(c, Status)}
    assert statuses["7"] == code
    assert not session.closed


def test_client_abort_is_answered_without_commands() -> None:
    """XS-006."""
    session = authenticated()
    events = session.receive(message(Alert(cmd_id="1", code=1223)), NOW)
    assert any(isinstance(event, SessionAborted) for event in events)
    reply = decode(session.reply(), Encoding.XML)
    assert [command.name for command in reply.commands] == ["Status", "Status"]
    assert reply.final
    assert session.closed


def test_server_abort_reaches_the_client_which_stays_silent() -> None:
    """XC-009."""
    client = client_session()
    run = pump(client, server_session(), [Abort("because")])
    assert client.closed
    assert len(run.client_messages) == 1
    assert any(isinstance(event, SessionAborted) for event in run.client_events)
    assert b"because" not in encode(run.server_messages[0], Encoding.XML)


def test_repeated_message_gets_the_cached_answer() -> None:
    """XS-036: octet for octet, nothing done twice."""
    session = server_session()
    raw = client_session().start()
    first = decode(raw, Encoding.XML)
    session.receive(first, NOW, raw=raw)
    reply = session.reply(Continue((get("./A"),)))
    assert session.receive(first, NOW, raw=raw) == [DuplicateMessage()]
    assert session.reply() == reply


@pytest.mark.parametrize(
    ("version", "code"), [({"ver_dtd": "1.1"}, 505), ({"ver_proto": "DM/1.1"}, 513)], ids=["VerDTD", "VerProto"]
)
def test_other_versions(version: dict[str, str], code: int) -> None:
    """XS-038."""
    session = server_session()
    first = decode(client_session().start(), Encoding.XML)
    session.receive(replace(first, header=replace(first.header, **version)), NOW)
    reply = decode(session.reply(), Encoding.XML)
    assert {c.code for c in reply.commands if isinstance(c, Status)} == {code}
    assert session.closed


VERSIONS = {
    "VerDTD": ({"ver_dtd": "1.1"}, (get("./A"),), 505),
    "VerProto": ({"ver_proto": "DM/1.3"}, (get("./A"), Alert(code=1101)), 513),
    "nothing to answer": ({"ver_dtd": "1.1"}, (), None),
}


@pytest.mark.parametrize(("version", "commands", "code"), VERSIONS.values(), ids=VERSIONS)
def test_a_server_of_another_version_hears_so(
    version: dict[str, str], commands: tuple[Command, ...], code: int | None
) -> None:
    """XS-038, OMA-TS-SyncML_RepPro-V1_2 §10: 505 or 513 for the header and for every command; none is executed, and
    the session is over. The server is not authenticated, so our credentials stay here."""
    client = client_session()
    client.start()
    header = SyncHdr(session_id="2F", msg_id="1", target=DEVICE, source=SERVER_URI, **version)
    numbered = tuple(replace(command, cmd_id=str(number)) for number, command in enumerate(commands, start=2))
    ok = Status(cmd_id="1", msg_ref="1", cmd_ref="0", cmd="SyncHdr", code=212)
    events = client.receive(Message(header=header, commands=(ok, *numbered), final=True), NOW)
    assert [type(event) for event in events] == [SessionAborted]
    assert client.closed
    raw = client.reply()
    if code is None:
        assert raw is None
        return
    assert raw is not None
    said = decode(raw, Encoding.XML)
    statuses = [(each.cmd_ref, each.code) for each in said.commands if isinstance(each, Status)]
    assert statuses == [("0", code), *((command.cmd_id, code) for command in numbered)]
    assert len(statuses) == len(said.commands)
    assert (said.final, said.header.cred, client.mac_header) == (True, None, None)
    assert client.reply() is None


def test_messages_of_others_and_after_the_end_are_refused() -> None:
    session = authenticated()
    foreign = message()
    with pytest.raises(RemoteProtocolError):
        session.receive(replace(foreign, header=replace(foreign.header, session_id="30")), NOW)
    with pytest.raises(RemoteProtocolError):
        session.receive(replace(foreign, header=replace(foreign.header, source="urn:uuid:other")), NOW)
    session.receive(message(Alert(cmd_id="1", code=1223)), NOW)
    session.reply()
    with pytest.raises(CommandOutOfPhase):
        session.receive(message(msg_id="9"), NOW)


def test_package_1_without_a_session_alert_is_no_session() -> None:
    session = server_session()
    first = decode(client_session().start(), Encoding.XML)
    events = session.receive(replace(first, commands=first.commands[1:]), NOW)
    assert any(isinstance(event, SessionAborted) for event in events)
    assert session.closed


def test_a_decision_is_due_exactly_when_the_package_is_complete() -> None:
    session = server_session()
    raw = client_session().start()
    session.receive(decode(raw, Encoding.XML), NOW, raw=raw)
    with pytest.raises(LocalProtocolError):
        session.reply()


CHUNK = Item(target="./P", meta=Meta(size=6), data="abc", more_data=True)
REASSEMBLY = {
    "whole": ([Item(target="./P", data="x")], "x"),
    "two chunks": ([CHUNK, Item(target="./P", data="def")], "abcdef"),
    "size differs": ([CHUNK, Item(target="./P", data="d")], 424),
    "announced too large": ([Item(target="./P", meta=Meta(size=99), data="a", more_data=True)], 413),
    "grows too large": ([CHUNK, Item(target="./P", data="x" * 20)], 413),
}


@pytest.mark.parametrize(("items", "outcome"), REASSEMBLY.values(), ids=REASSEMBLY)
def test_reassembly(items: list[Item], outcome: str | int) -> None:
    """XC-081, XC-084."""
    buffer = Reassembly(limit=16)
    *first, last = items
    for item in first:
        assert buffer.take("Add", item) == 213
    taken = buffer.take("Add", last)
    assert (taken.data if isinstance(taken, Item) else taken) == outcome


def test_interrupted_object_is_reported_and_forgotten() -> None:
    """XC-082: Alert 1225, and the new command is processed."""
    client = client_session(replace(CLIENT_ACCOUNT, server_auth=None))
    client.start()
    header = SyncHdr(session_id="2F", msg_id="1", target=DEVICE, source=SERVER_URI)
    ok = Status(cmd_id="1", msg_ref="1", cmd_ref="0", cmd="SyncHdr", code=212)
    client.receive(Message(header=header, commands=(ok, Add(cmd_id="2", items=(CHUNK,)))), NOW)
    raw = client.reply()
    assert raw is not None
    assert [c.name for c in decode(raw, Encoding.XML).commands] == ["Status", "Status", "Alert"]
    follow = Message(header=replace(header, msg_id="2"), commands=(replace(get("./A"), cmd_id="3"),), final=True)
    events = client.receive(follow, NOW)
    (received,) = [event for event in events if isinstance(event, CommandReceived)]
    client.answer(received.command, answer_all(received.command))
    raw = client.reply()
    assert raw is not None
    alerts = [c for c in decode(raw, Encoding.XML).commands if isinstance(c, Alert)]
    assert [alert.code for alert in alerts] == [1225]


BEFORE_A_CHUNK = {
    "whole, then a chunk": (("./A", "./P+"), (("./P", "def"),), [("Add", "./A"), ("Add", "./P")], [213, 200, 200]),
    "a chunk, then something whole": (("./P+", "./A"), (), [("Add", "./A")], [200, 213]),
}


@pytest.mark.parametrize(("items", "then", "executed", "expected"), BEFORE_A_CHUNK.values(), ids=BEFORE_A_CHUNK)
def test_whole_items_beside_a_chunk_are_executed(
    items: tuple[str, ...], then: tuple[tuple[str, str], ...], executed: list[tuple[str, str]], expected: list[int]
) -> None:
    """OMA-TS-DM_Protocol-V1_2 §7: the last Item of a command may be the first chunk; what is whole gets its own Status.

    An Item behind a chunk breaks the rule: Alert 1225 for the object, and the Item counts.
    """
    client = client_session(replace(CLIENT_ACCOUNT, server_auth=None))
    client.start()
    header = SyncHdr(session_id="2F", msg_id="1", target=DEVICE, source=SERVER_URI)
    ok = Status(cmd_id="1", msg_ref="1", cmd_ref="0", cmd="SyncHdr", code=212)
    first = tuple(CHUNK if each.endswith("+") else Item(target=each, data="x") for each in items)
    messages = [Message(header=header, commands=(ok, Add(cmd_id="2", items=first)))]
    rest = tuple(Item(target=uri, data=data) for uri, data in then)
    if rest:
        messages.append(
            Message(header=replace(header, msg_id="2"), commands=(Add(cmd_id="2", items=rest),), final=True)
        )
    done: list[tuple[str, str]] = []
    said: list[Command] = []
    for message_ in messages:
        for event in client.receive(message_, NOW):
            if isinstance(event, CommandReceived):
                assert isinstance(event.command, Add)
                (item,) = event.command.items
                done.append((event.command.name, str(item.target)))
                client.answer(event.command, answer_all(event.command))
        raw = client.reply()
        assert raw is not None
        said += decode(raw, Encoding.XML).commands
    assert done == executed
    statuses = [each for each in said if isinstance(each, Status) and each.cmd == "Add"]
    assert sorted(each.code for each in statuses) == sorted(expected)
    assert [each.target_refs for each in statuses if each.code == 213] == [("./P",)]
    incomplete = [each for each in said if isinstance(each, Alert) and each.code == 1225]
    assert len(incomplete) == (not rest)


def test_whole_items_of_an_alert_beside_a_chunk_reach_the_policy() -> None:
    """OMA-TS-DM_Protocol-V1_2 §7, §8.7: one generic alert may have several Items, the last of them in chunks."""
    session = authenticated()
    meta = Meta(type="org.example.log", format="chr")
    whole, chunk = Item(source="./A", meta=meta, data="a"), Item(source="./L", meta=meta, data="b", more_data=True)
    alert = Alert(cmd_id="3", code=1226, items=(whole, chunk))
    events = session.receive(message(alert, msg_id="2", final=False), NOW)
    assert [each.alert.items for each in events if isinstance(each, AlertReceived)] == [(whole,)]
    statuses = [each for each in decode(session.reply(), Encoding.XML).commands if isinstance(each, Status)]
    assert [each.code for each in statuses if each.cmd == "Alert"] == [200, 213]


@pytest.mark.parametrize("unnamed", [True, False], ids=["no CmdIDs", "CmdIDs"])
def test_many_commands_in_one_message_cost_what_they_are(unnamed: bool) -> None:
    """REQ-11: a message full of small commands is answered in time that grows with their number, in both roles."""

    def seconds(count: int, role: str) -> float:
        commands = tuple(UnknownCommand(cmd_id="" if unnamed else str(n + 10), element="Put") for n in range(count))
        session: ServerSession | ClientSession
        if role == "server":
            session, heard = authenticated(), message(*commands, msg_id="2", final=False)
        else:
            session = client_session(replace(CLIENT_ACCOUNT, server_auth=None))
            session.start()
            header = SyncHdr(session_id="2F", msg_id="1", target=DEVICE, source=SERVER_URI)
            heard = Message(header=header, commands=commands, final=False)
        began = process_time()
        session.receive(heard, NOW)
        session.reply()
        return process_time() - began

    for role in ("server", "client"):
        few = min(seconds(500, role) for _ in range(3))
        assert seconds(8000, role) < 16 * 8 * max(few, 0.002), role


def test_a_chunk_is_answered_without_final_whatever_stands_beside_it() -> None:
    """OMA-TS-DM_Protocol-V1_2 §8: no Final of ours before the server's. A server that says 1222 beside a chunk has more
    to send, and does not only ask for the rest of our package."""
    client = client_session(replace(CLIENT_ACCOUNT, server_auth=None))
    client.start()
    header = SyncHdr(session_id="2F", msg_id="1", target=DEVICE, source=SERVER_URI)
    ok = Status(cmd_id="1", msg_ref="1", cmd_ref="0", cmd="SyncHdr", code=212)
    commands = (ok, Alert(cmd_id="2", code=1222), Add(cmd_id="3", items=(CHUNK,)))
    client.receive(Message(header=header, commands=commands), NOW)
    raw = client.reply()
    assert raw is not None
    said = decode(raw, Encoding.XML)
    assert not said.final
    assert [each.code for each in said.commands if isinstance(each, Alert)] == [1222]


def test_message_for_error() -> None:
    raw = message_for_error(
        session_id="1",
        msg_id="1",
        device_id=DEVICE,
        server_uri=SERVER_URI,
        msg_ref="1",
        code=400,
        encoding=Encoding.XML,
    )
    (status,) = decode(raw, Encoding.XML).commands
    assert isinstance(status, Status)
    assert (status.code, status.cmd) == (400, "SyncHdr")
