"""Packages, messages and who may speak: what goes wrong in the middle of a session, and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncml.accounts import ClientAccount, DmAccount
from syncml.auth import Credentials
from syncml.client_session import ClientSession, CommandResult
from syncml.codec import Encoding, decode
from syncml.codes import AuthType, Format
from syncml.errors import OutOfOrder, RemoteProtocolError
from syncml.model import Add, Alert, Atomic, Command, Exec, Get, Item, Message, Meta, Replace, Results, Sequence, Status
from syncml.peer_profile import PeerProfile
from syncml.policy import Continue, Decision, Finish
from syncml.server_session import ServerSession
from syncml.session import (
    ClientAuthenticated,
    CommandReceived,
    CredentialsRefused,
    DuplicateMessage,
    Event,
    NonceChanged,
    ServerAuthenticated,
    SessionAborted,
    SessionClosed,
    SessionOpened,
)
from syncml.values import leaf_item
from tests.support_strategies import messages
from tests.support_syncml import (
    CLIENT_ACCOUNT,
    DEVICE,
    NOW,
    SERVER_ACCOUNT,
    answer_all,
    client_session,
    get,
    pump,
    sequence,
    server_session,
)
from tests.unit.test_session_tolerance import OK, Device, answers, codes, found, names, said


class Line:
    """Both roles on a line that a test may cut or bend, one message at a time."""

    def __init__(
        self, client: ClientAccount = CLIENT_ACCOUNT, server: DmAccount = SERVER_ACCOUNT, **limits: int
    ) -> None:
        self.client: ClientSession = client_session(client, **limits)
        self.server: ServerSession = server_session(server)
        self.body: bytes = self.client.start()
        self.reply: bytes = b""
        self.server_events: list[Event] = []
        self.client_events: list[Event] = []

    def up(
        self, decision: Decision | None = None, *, mac: str | None = None, message: Message | None = None
    ) -> Message:
        """Bring the client's message to the server; its answer."""
        events = self.server.receive(
            message or decode(self.body, Encoding.XML), NOW, raw=self.body, mac=mac or self.client.mac_header
        )
        self.server_events = events
        self.reply = self.server.reply(decision if self.server.needs_decision else None)
        return decode(self.reply, Encoding.XML)

    def down(self, *, mac: str | None = None, message: Message | None = None) -> Message | None:
        """Bring the server's answer to the client; its next message."""
        events = self.client.receive(
            message or decode(self.reply, Encoding.XML), NOW, raw=self.reply, mac=mac or self.server.mac_header
        )
        self.client_events = events
        for event in events:
            if isinstance(event, CommandReceived):
                self.client.answer(event.command, answer_all(event.command))
        body = self.client.reply()
        if body is None:
            return None
        self.body = body
        return decode(body, Encoding.XML)

    def refused(self) -> bool:
        return any(isinstance(e, CredentialsRefused) for e in chain(self.server_events, self.client_events))


def mac_line(client: AuthType = AuthType.MAC, server: AuthType = AuthType.MAC) -> Line:
    changes = {"client_auth": client, "server_auth": server}
    return Line(replace(CLIENT_ACCOUNT, **changes), replace(SERVER_ACCOUNT, **changes))


def without_nonces(message: Message) -> Message:
    return replace(
        message, commands=tuple(replace(c, chal=None) if isinstance(c, Status) else c for c in message.commands)
    )


FORGED = 'algorithm=MD5, username="device", mac=AAAAAAAAAAAAAAAAAAAAAA=='

# -- credentials in the middle of a session ---------------------------------------------------------------------------


def test_a_client_message_with_a_bad_mac_counts_for_nothing_and_comes_again() -> None:
    """XS-010, XC-028: Statuses only, Results among what they answer; the repeated message completes the package."""
    line = mac_line()
    line.up(Continue((get("./A"),)))
    line.down()
    answer = line.up(mac=FORGED)
    assert codes(answer) == [401, 401]
    assert [c.cmd for c in answer.commands if isinstance(c, Status)] == ["SyncHdr", "Results"]
    assert not any(isinstance(e, ClientAuthenticated | SessionOpened) for e in line.server_events)
    assert line.server.mac_header is None
    again = line.down()
    assert again is not None
    assert names(again) == ["Status", "Status", "Results"]
    first = again.commands[0]
    assert isinstance(first, Status)
    assert first.chal is not None  # the nonce for the server was in the message that did not count
    line.up(Finish())
    assert [each.code for each in answers(line.server_events)] == [200]
    assert line.down() is None


def test_a_refusal_that_the_device_refuses_brings_no_command_again() -> None:
    """XS-012, XC-028: our refusal has no MAC; a strict device challenges that, and executes nothing a second time."""
    line = mac_line()
    line.up(Continue((get("./A"),)))
    message = line.down()
    assert message is not None
    line.up(mac=FORGED)
    again = line.down()
    assert again is not None
    header, *rest = again.commands
    assert isinstance(header, Status)
    assert header.chal is not None
    strict = replace(again, commands=(replace(header, code=401), *rest))
    answer = line.up(Finish(), message=strict)
    assert [each.code for each in answers(line.server_events)] == [200]
    assert not any(isinstance(c, Get) for c in answer.commands)


def test_a_server_message_with_a_bad_mac_is_not_executed_and_comes_again() -> None:
    """XC-028, XS-012: in the middle of a session as at its beginning."""
    line = mac_line()
    line.up(Continue((get("./A"),)))
    line.down()
    line.up(Continue((get("./B"), get("./C"))))
    refusal = line.down(mac=FORGED.replace("device", "dpf.example"))
    assert refusal is not None
    assert codes(refusal) == [401, 401, 401]
    assert not any(isinstance(e, CommandReceived) for e in line.client_events)
    again = line.up()
    assert names(again) == ["Status", "Get", "Get"]
    line.down()
    line.up(Finish())
    assert [each.code for each in answers(line.server_events)] == [200, 200]
    assert line.down() is None


def test_a_message_without_credentials_where_every_message_needs_them() -> None:
    """XC-023: 407 in the middle of the session; the client sends the same again and nothing is lost."""
    line = Line(server=replace(SERVER_ACCOUNT, per_message=True))
    line.up(Continue((get("./A"),)))
    message = line.down()
    assert message is not None
    answer = line.up(message=replace(message, header=replace(message.header, cred=None)))
    assert codes(answer) == [407, 407]
    again = line.down()
    assert again is not None
    assert again.header.cred is not None
    assert names(again) == names(message)
    line.up(Finish())
    assert [each.code for each in answers(line.server_events)] == [200]


def test_a_server_that_gets_no_next_nonce_aborts() -> None:
    """XC-027: 1223 with Final, and the reason in the log."""
    line = mac_line(client=AuthType.MD5)
    line.up(Continue((get("./A"),)))
    message = line.down()
    assert message is not None
    answer = line.up(message=without_nonces(message))
    assert [e.reason for e in line.server_events if isinstance(e, SessionAborted)] == [
        "the device sent no next nonce for auth-MAC"
    ]
    assert (names(answer)[-1], answer.final) == ("Alert 1223", True)
    assert line.server.closed


def test_a_client_that_gets_no_next_nonce_ends_without_executing() -> None:
    """XC-027: missing NextNonce ends the session; no command is run whose outcome could not be told."""
    line = mac_line(server=AuthType.MD5)
    line.up(Continue((get("./A"),)))
    assert line.down(message=without_nonces(decode(line.reply, Encoding.XML))) is None
    assert not any(isinstance(e, CommandReceived) for e in line.client_events)
    assert any(isinstance(e, SessionClosed) and "nonce" in e.reason for e in line.client_events)


def test_repeated_messages_bring_the_same_octets_and_the_same_mac() -> None:
    """XS-036: answers from the cache, in both roles; with HMAC only for the message that was there before."""
    line = mac_line()
    line.up(Continue((get("./A"),)))
    cached = (line.reply, line.server.mac_header)
    first, first_mac = line.body, line.client.mac_header
    line.up()
    assert line.server_events == [DuplicateMessage()]
    assert (line.reply, line.server.mac_header) == cached
    with pytest.raises(OutOfOrder):
        line.up(mac=FORGED)
    line.down()
    sent = (line.body, line.client.mac_header)
    line.down()
    assert line.client_events == [DuplicateMessage()]
    assert (line.body, line.client.mac_header) == sent
    with pytest.raises(OutOfOrder):
        line.down(mac=FORGED)
    assert (first, first_mac) != sent
    line.up(Finish())
    assert [each.code for each in answers(line.server_events)] == [200]


def challenge_with(line: Line, secret: str) -> Message:
    """The server's refusal of package 1, with credentials of its own in the header."""
    refusal = line.up()
    cred = Credentials(type=AuthType.MD5, name="dpf.example", secret=secret, nonce=b"server-nonce").prove()
    return replace(refusal, header=replace(refusal.header, cred=cred))


def test_both_directions_fail_at_once() -> None:
    """XC-025, OMA-TS-DM_Security-V1_2 §5.3: package 1 again with credentials, and 401 with a challenge in it."""
    line = Line(replace(CLIENT_ACCOUNT, client_nonce=b"old"))
    answer = line.down(message=challenge_with(line, "guess"))
    assert answer is not None
    assert names(answer) == ["Status", "Alert 1201", "Replace"]
    status = answer.commands[0]
    assert isinstance(status, Status)
    assert (status.code, status.chal is not None, answer.header.cred is not None) == (401, True, True)
    line.up(Continue((get("./A"),)))
    assert any(isinstance(e, SessionOpened) for e in line.server_events)
    line.down()
    assert any(isinstance(e, CommandReceived) for e in line.client_events)


def test_a_server_may_prove_itself_with_its_challenge() -> None:
    """OMA-TS-DM_Security-V1_2 §5.3: right credentials beside a challenge count, and bring the next nonce."""
    line = Line(replace(CLIENT_ACCOUNT, client_nonce=b"old"))
    answer = line.down(message=challenge_with(line, "server-secret"))
    assert answer is not None
    assert any(isinstance(e, ServerAuthenticated) for e in line.client_events)
    assert [e.direction for e in line.client_events if isinstance(e, NonceChanged)] == ["server"]
    status = answer.commands[0]
    assert isinstance(status, Status)
    assert (status.code, status.chal is not None) == (212, True)


def test_nonces_of_a_server_that_proves_nothing_are_not_stored() -> None:
    """XC-030: the challenge serves the answer, the acceptance waits until the server has proved itself."""
    line = Line(replace(CLIENT_ACCOUNT, client_nonce=b"old"), replace(SERVER_ACCOUNT, server_nonce=b"old"))
    line.up()
    line.down()
    assert not any(isinstance(e, NonceChanged) for e in line.client_events)
    line.up(Continue((get("./A"),)))
    line.down()
    assert not any(isinstance(e, NonceChanged) for e in line.client_events)
    line.up()
    line.down()
    assert [e.direction for e in line.client_events if isinstance(e, NonceChanged)] == ["client", "server"]


# -- large objects that break off -------------------------------------------------------------------------------------

BIG = "0123456789" * 500
ADD_BIG = Add(items=(leaf_item("./P", BIG),))


def device_with_big_object(*more: Command) -> tuple[Device, Message]:
    device = Device(session=server_session())
    device.header = replace(device.header, meta=Meta(max_msg_size=3000))
    return device, device.open(ADD_BIG, *more)


def chunk_of(message: Message) -> Item:
    (add,) = [command for command in message.commands if isinstance(command, Add)]
    return add.items[0]


def test_200_where_213_is_due_stops_the_object_and_is_no_success() -> None:
    """Interop: the device has a part of the value and says it has all; no further chunk, 424 for the command."""
    device, answer = device_with_big_object(get("./A"))
    assert chunk_of(answer).more_data
    events, answer = device.say(OK, said("4", 200, "Add"), Alert(cmd_id="8", code=1222), final=False)
    assert not any(isinstance(c, Add) for c in answer.commands)
    assert "Get" in names(answer)
    get_id = next(c.cmd_id for c in answer.commands if isinstance(c, Get))
    events, _ = device.say(OK, said(get_id, 200, msg_ref="2"), decision=Finish())
    assert [each.code for each in answers(events)] == [424, 200]


@pytest.mark.parametrize("code", [413, 420, 500, 0])
def test_an_object_that_the_device_refuses_half_way(code: int) -> None:
    """XS-016, XS-028: the rest of the object is not sent, the session goes on."""
    device, _ = device_with_big_object(get("./A"))
    _, answer = device.say(OK, said("4", code, "Add"), Alert(cmd_id="8", code=1222), final=False)
    assert not any(isinstance(c, Add) for c in answer.commands)
    events, _ = device.say(OK, decision=Finish())
    assert answers(events)[0].code == (code or 424)


@pytest.mark.parametrize("items", [(Item(target="./P"),), (Item(source="P"),), ()], ids=["Target", "Source", "no Item"])
def test_no_end_of_data_brings_the_object_again_once(items: tuple[Item, ...]) -> None:
    """XS-019: from its first chunk, in front of all others; a second 1225 fails the operation."""
    device, answer = device_with_big_object(get("./A"))
    first = chunk_of(answer)
    _, answer = device.say(OK, Alert(cmd_id="8", code=1225, items=items), Alert(cmd_id="9", code=1222), final=False)
    again = chunk_of(answer)
    assert BIG.startswith(str(again.data))
    assert (again.more_data, again.meta) == (True, first.meta)
    _, answer = device.say(OK, Alert(cmd_id="8", code=1225, items=items), Alert(cmd_id="9", code=1222), final=False)
    assert not any(isinstance(c, Add) for c in answer.commands)
    assert "Get" in names(answer)
    events, _ = device.say(OK, decision=Finish())
    assert answers(events)[0].code == 424


def test_an_object_that_arrives_at_the_second_attempt() -> None:
    """XS-019: what was said of the first attempt does not count."""
    device, _ = device_with_big_object()
    _, answer = device.say(OK, said("4", 213, "Add"), Alert(cmd_id="9", code=1222), final=False)
    while chunk_of(answer).more_data:
        ref = next(c.cmd_id for c in answer.commands if isinstance(c, Add))
        status = said(ref, 213, "Add", msg_ref=answer.header.msg_id)
        _, answer = device.say(OK, status, Alert(cmd_id="9", code=1222), final=False)
    ref = next(c.cmd_id for c in answer.commands if isinstance(c, Add))
    failed = said(ref, 424, "Add", msg_ref=answer.header.msg_id)
    _, answer = device.say(OK, failed, Alert(cmd_id="8", code=1225, items=(Item(target="./P"),)), final=False)
    data = ""
    for _ in range(9):
        item = chunk_of(answer)
        data += str(item.data)
        ref = next(c.cmd_id for c in answer.commands if isinstance(c, Add))
        if not item.more_data:
            break
        status = said(ref, 213, "Add", msg_ref=answer.header.msg_id)
        _, answer = device.say(OK, status, Alert(cmd_id="9", code=1222), final=False)
    assert data == BIG
    events, _ = device.say(OK, said(ref, 200, "Add", msg_ref=answer.header.msg_id), decision=Finish())
    assert [each.code for each in answers(events)] == [200]


def test_results_that_break_off_are_reported_when_it_is_our_turn() -> None:
    """XS-018, XS-003: 1225 waits until the device's package is complete; a "next message" answer has no command."""
    device = Device()
    device.open(get("./A"), get("./B"))
    part = found(Item(source="./A", data="abc", meta=Meta(size=6), more_data=True))
    _, answer = device.say(OK, said("4", 200), part, final=False)
    assert names(answer) == ["Status", "Status", "Alert 1222"]
    assert codes(answer) == [200, 213]
    other = found(Item(source="./B", data="b"), cmd_ref="5")
    _, answer = device.say(said("5", 200), other, final=False)
    assert names(answer) == ["Status", "Alert 1222"]
    events, answer = device.say(OK, decision=Continue((get("./C"),)))
    assert [each.values() for each in answers(events)] == [{}, {"./B": "b"}]
    alerts = [c for c in answer.commands if isinstance(c, Alert)]
    assert [(alert.code, alert.items[0].source) for alert in alerts] == [(1225, "./A")]


def test_results_larger_than_we_take() -> None:
    """XS-018: 413 as soon as the size is known, and no value."""
    device = Device(session=server_session(max_obj_size=4096))
    device.open(get("./A"))
    part = found(Item(source="./A", data="abc", meta=Meta(size=5000), more_data=True))
    events, answer = device.say(OK, said("4", 200), part, decision=Finish())
    assert codes(answer) == [200, 413]
    assert answers(events)[0].values() == {}


# -- atomic -----------------------------------------------------------------------------------------------------------


def atomic_of(count: int) -> Atomic:
    return Atomic(
        commands=tuple(Replace(items=(leaf_item(f"./N/{'n' * 40}{number}", "x"),)) for number in range(count))
    )


@pytest.mark.parametrize(("count", "expected"), [(5, 200), (60, 517)], ids=["fits", "does not fit"])
def test_atomic_whose_statuses_are_too_many(count: int, expected: int) -> None:
    """XC-056, XC-010: 517, nothing of it announced to the executor, so that there is nothing to roll back."""
    line = Line(server=SERVER_ACCOUNT)
    line.server.max_msg_size = 4096
    line.up(Continue((atomic_of(count), get("./A"))))
    message = line.down()
    received = [e.command.name for e in line.client_events if isinstance(e, CommandReceived)]
    assert received == (["Atomic", "Get"] if expected == 200 else ["Get"])
    decision: Decision = Finish()
    while message is not None:
        assert len(line.body) <= 4096
        line.up(decision)
        if answers(line.server_events):
            break
        message = line.down()
    atomic, read = answers(line.server_events)
    assert (atomic.code, read.code) == (expected, 200)
    assert atomic.statuses[0].code == expected
    assert {status.code for status in atomic.statuses[1:]} == {200 if expected == 200 else 215}
    assert len(atomic.statuses) == count + 1


# -- profiles ---------------------------------------------------------------------------------------------------------


def profiled(**habits: object) -> DmAccount:
    return replace(SERVER_ACCOUNT, peer=PeerProfile(name="test", **habits))


def test_children_of_a_sequence_one_by_one() -> None:
    """XS-029: for a peer without Sequence, in order, each after the answer to the one before; one outcome."""
    whole = sequence(get("./B"), Replace(items=(leaf_item("./C", "c"),)), Sequence(commands=(get("./D"),)))
    run = pump(
        client_session(),
        server_session(profiled(sequences=False)),
        [Continue((get("./A"), whole, get("./E"), get("./F")))],
    )
    sent = [[c.name for c in m.commands if not isinstance(c, Status)] for m in run.server_messages]
    assert sent == [["Get"], ["Get"], ["Replace"], ["Get"], ["Get", "Get"], []]
    assert [(each.command.name, each.code) for each in run.answers] == [
        ("Get", 200),
        ("Sequence", 200),
        ("Get", 200),
        ("Get", 200),
    ]
    assert run.answers[1].command is whole
    assert set(run.answers[1].values()) == {"./B", "./D"}
    assert len(run.answers[1].statuses) == 3


@pytest.mark.parametrize(("code", "received"), [(200, 2), (304, 1), (214, 1), (408, 1)])
def test_a_sequence_taken_apart_still_asks_first(code: int, received: int) -> None:
    """XC-072, XI-5: who says no to the alert does not get the command behind it, Sequence or not."""
    ask = Alert(code=1101, items=(Item(data=""), Item(data="Go on?")))
    whole = sequence(ask, Replace(items=(leaf_item("./C", "c"),)))

    def execute(command: Command) -> list[object]:
        return [replace(each, code=code if isinstance(command, Alert) else 200) for each in answer_all(command)]

    run = pump(client_session(), server_session(profiled(sequences=False)), [Continue((whole,))], execute)
    assert len(run.received) == received
    assert [each.code for each in run.answers] == [code]


HABITS = {
    "no RespURI": ({"resp_uri": False}, lambda header: header.resp_uri is None and header.meta is not None),
    "no sizes": ({"announce_sizes": False}, lambda header: header.meta is None and header.resp_uri is not None),
    "default": ({}, lambda header: header.meta is not None and header.resp_uri is not None),
}


@pytest.mark.parametrize(("habits", "holds"), HABITS.values(), ids=HABITS)
def test_headers_of_a_profile(habits: dict[str, object], holds) -> None:
    """Interop: a profile changes what we send and nothing of what we accept."""
    run = pump(client_session(), server_session(profiled(**habits)), [Continue((get("./A"),))])
    assert all(holds(message.header) for message in run.server_messages)
    wrong = server_session(profiled(**habits))
    refused = pump(client_session(replace(CLIENT_ACCOUNT, client_secret="guess")), wrong, [Continue((get("./A"),))])
    assert not any(isinstance(e, SessionOpened) for e in refused.server_events)


def test_profile_limits_messages_and_objects() -> None:
    """XS-015, XS-017: a profile may say less than the device announces; what it cannot take is refused here."""
    run = pump(client_session(), server_session(profiled(max_msg_size=2048)), [Continue((ADD_BIG,))])
    assert max(run.sizes) <= 2048
    assert [each.code for each in run.answers] == [200]
    run = pump(
        client_session(max_msg_size=3000),
        server_session(profiled(large_objects=False)),
        [Continue((ADD_BIG, get("./A")))],
    )
    assert [(each.code, len(each.statuses)) for each in run.answers] == [(413, 0), (200, 1)]


# -- abort ------------------------------------------------------------------------------------------------------------


def test_the_device_may_abort_at_any_time() -> None:
    """XS-006: 1223 and Final together; the server answers without commands and is done."""
    line = Line()
    line.up(Continue((get("./A"),)))
    line.client.abort()
    message = line.down()
    assert message is not None
    assert (names(message)[-1], message.final, line.client.closed) == ("Alert 1223", True, True)
    answer = line.up()
    assert set(names(answer)) == {"Status"}
    assert line.server.closed


def test_a_session_without_trouble_has_no_refusal() -> None:
    """The line of these tests does not refuse by itself."""
    line = mac_line()
    line.up(Continue((Exec(items=(Item(target="./X", meta=Meta(format=Format.CHR), data="1"),)),)))
    assert not line.refused()
    line.down()
    line.up(Finish())
    assert [each.code for each in answers(line.server_events)] == [200]
    assert isinstance(found(Item()), Results)


# -- anything at all --------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.lists(messages(Encoding.XML), min_size=1, max_size=4), st.booleans())
def test_any_messages_give_answers_or_typed_errors(heard: list[Message], authenticated: bool) -> None:
    """XS-036, XS-037: whatever a peer says, to either role, before or after it has proved itself."""
    line = Line(replace(CLIENT_ACCOUNT, server_auth=None))
    if authenticated:
        line.up(Continue((get("./A"), ADD_BIG)))
        line.down()
    for number, message in enumerate(heard, start=7):
        header = replace(message.header, session_id="2F", msg_id=str(number), source=DEVICE)
        for session in (line.server, line.client):
            try:
                events = session.receive(replace(message, header=header), NOW, raw=b"", mac="?")
            except RemoteProtocolError:
                continue
            if isinstance(session, ServerSession):
                assert session.reply(Continue((get("./B"),)) if session.needs_decision else None)
                continue
            for event in events:
                if isinstance(event, CommandReceived):
                    session.answer(event.command, answer_all(event.command))
            assert session.reply() is not None or session.closed
            assert not session.closed or session.reply() is None  # at most a last word


def test_a_server_that_keeps_challenging_hears_the_refusal_again() -> None:
    """XC-025: two refusals across each other; ours goes out again, and no Statuses of an older message with it."""
    line = mac_line()
    line.up(Continue((get("./A"),)))
    refusal = line.down(mac=FORGED.replace("device", "dpf.example"))
    assert refusal is not None
    answer = line.up(mac=FORGED)
    assert set(codes(answer)) == {401}
    again = line.down()
    assert again is not None
    assert codes(again) == codes(refusal) == [401, 401]
    assert names(line.up()) == ["Status", "Get"]
    line.down()
    line.up(Finish())
    assert [each.code for each in answers(line.server_events)] == [200]


@pytest.mark.parametrize("code", [404, 500, 503, 513])
def test_a_header_that_the_device_does_not_take(code: int) -> None:
    """OMA-TS-DM_RepPro-V1_2 §10: any error but 401 and 407 on our header ends the session."""
    device = Device()
    device.open(get("./A"))
    events, answer = device.say(replace(OK, code=code))
    assert [e for e in events if isinstance(e, SessionAborted)]
    assert set(names(answer)) == {"Status"}
    assert device.session.closed


def test_a_device_that_refuses_our_credentials_for_good() -> None:
    """XS-012: 401 without a challenge; no command goes out again."""
    device = Device()
    device.open(get("./A"))
    events, answer = device.say(replace(OK, code=401), said("4", 401))
    assert [e.final for e in events if isinstance(e, CredentialsRefused)] == [True]
    assert set(names(answer)) == {"Status"}
    assert device.session.closed


def test_several_items_for_one_get_and_an_alert_in_the_same_message() -> None:
    """XC-060, XC-063: what `?list=` found travels as Items of one Results; news of the device follow."""
    line = Line()
    line.up(Continue((get("./A?list=StructData"),)))
    events = line.client.receive(decode(line.reply, Encoding.XML), NOW, raw=line.reply)
    (command,) = [event.command for event in events if isinstance(event, CommandReceived)]
    first, second = Item(source="./A", data="b"), Item(source="./A/b", data="1")
    line.client.answer(command, [CommandResult(cmd_id=command.cmd_id, code=200, item=first, more_items=(second,))])
    line.client.announce(Alert(code=1226, items=(Item(source="./A", data="done"),)))
    body = line.client.reply()
    assert body is not None
    message = decode(body, Encoding.XML)
    assert names(message) == ["Status", "Status", "Results", "Alert 1226"]
    line.body = body
    line.up(Finish())
    assert answers(line.server_events)[0].values() == {"./A": "b", "./A/b": "1"}
