"""Habits of real peers, each taken by the session engine, and none of them a way around credentials."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from syncml.auth import Credentials, md5_data
from syncml.client_session import CommandResult
from syncml.codec import Encoding, decode
from syncml.codes import AlertCode, AuthType, Format
from syncml.model import (
    Add,
    Alert,
    Chal,
    Command,
    Cred,
    Exec,
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
from syncml.policy import Continue, Decision, Finish
from syncml.server_session import ServerSession
from syncml.session import (
    AlertReceived,
    ClientAuthenticated,
    CommandAnswered,
    CommandReceived,
    CredentialsRefused,
    Event,
    PackageReceived,
    ServerAuthenticated,
    SessionClosed,
    SessionOpened,
    StatusReceived,
)
from syncml.values import leaf_item
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

GOOD = Cred(type=AuthType.MD5, data=md5_data("device", "client-secret", b"client-nonce"))
START = Alert(cmd_id="1", code=1201)
INFO = Replace(cmd_id="2", items=tuple(Item(source=uri, data=value) for uri, value in DEV_INFO.items()))
HEADER = SyncHdr(session_id="2F", msg_id="", target=SERVER_URI, source=DEVICE)
OK = Status(cmd_id="90", msg_ref="1", cmd_ref="0", cmd="SyncHdr", code=212)


@dataclass
class Device:
    """A device that says exactly what it is told to."""

    session: ServerSession = field(default_factory=server_session)
    msg_id: int = 0
    header: SyncHdr = HEADER
    mac: str | None = None

    def say(
        self, *commands: Command, final: bool = True, decision: Decision | None = None, cred: Cred | None = None
    ) -> tuple[list[Event], Message]:
        """Send a message; the events and the server's answer."""
        self.msg_id += 1
        header = replace(self.header, msg_id=str(self.msg_id), cred=cred)
        events = self.session.receive(Message(header=header, commands=commands, final=final), NOW, mac=self.mac)
        reply = self.session.reply(decision if self.session.needs_decision else None)
        return events, decode(reply, Encoding.XML)

    def open(self, *commands: Command) -> Message:
        """A session with these commands in package 2."""
        _, answer = self.say(START, INFO, cred=GOOD, decision=Continue(commands))
        return answer


def answers(events: list[Event]) -> list[CommandAnswered]:
    return [event for event in events if isinstance(event, CommandAnswered)]


def codes(message: Message) -> list[int]:
    return [command.code for command in message.commands if isinstance(command, Status)]


def names(message: Message) -> list[str]:
    return [f"Alert {c.code}" if isinstance(c, Alert) else c.name for c in message.commands]


# -- headers and package 1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("session_id", ["1", "0", "2F", "af", "0x2F", "0001", "65535", "an id, überlong"])
def test_session_id_is_echoed_and_never_read(session_id: str) -> None:
    """Interop: decimal, hexadecimal, zeros in front, any text: what the device said comes back."""
    run = pump(client_session(session_id=session_id), server_session(session_id=session_id), [Continue((get("./A"),))])
    assert {message.header.session_id for message in run.server_messages} == {session_id}
    assert run.answers[0].code == 200


HEADERS = {
    "no LocName": {"source_name": None},
    "LocName is another name": {"source_name": "Somebody"},
    "no Meta": {"meta": None},
    "empty Target": {"target": ""},
    "another Target": {"target": "http://elsewhere/dm"},
    "versions in lower case": {"ver_proto": "dm/1.2"},
    "Cred type in another case": {"cred": replace(GOOD, type="SYNCML:AUTH-MD5")},
    "Cred data with white space": {"cred": replace(GOOD, data=f"\n  {GOOD.data}\n")},
    "Cred without Format": {"cred": replace(GOOD, format=None)},
}


@pytest.mark.parametrize("changes", HEADERS.values(), ids=HEADERS)
def test_headers_as_devices_write_them(changes: dict[str, object]) -> None:
    """XS-025, interop: the name is that of the account, limits that are absent do not exist."""
    server = server_session()
    header = replace(SyncHdr(session_id="2F", msg_id="1", target=SERVER_URI, source=DEVICE, cred=GOOD), **changes)
    events = server.receive(Message(header=header, commands=(START, INFO), final=True), NOW)
    assert any(isinstance(event, SessionOpened) for event in events)
    reply = decode(server.reply(Finish()), Encoding.XML)
    assert codes(reply) == [212, 200, 200]
    first = reply.commands[0]
    assert isinstance(first, Status)
    assert first.target_refs == ((header.target,) if header.target else ())


def info(*items: Item, meta: Meta | None = None) -> Replace:
    return Replace(cmd_id="2", items=items, meta=meta)


SHORT = {"./DevInfo/DevId": DEVICE, "./DevInfo/Man": "Acme"}
DEV_INFOS = {
    "Items without Meta": (info(*(Item(source=uri, data=value) for uri, value in SHORT.items())), SHORT),
    "Target instead of Source": (info(*(Item(target=uri, data=value) for uri, value in SHORT.items())), SHORT),
    "no ./ in front": (info(*(Item(source=uri[2:], data=value) for uri, value in SHORT.items())), SHORT),
    "reversed": (info(*(Item(source=uri, data=value) for uri, value in reversed(SHORT.items()))), SHORT),
    "interior node in between": (
        info(
            Item(source="./DevInfo", meta=Meta(format=Format.NODE), data="DevId/Man"),
            Item(source="./DevInfo/DevId", data=DEVICE),
            Item(source="./DevInfo/Ext", meta=Meta(format=Format.NODE)),
            Item(source="./DevInfo/Man", data="Acme"),
        ),
        SHORT,
    ),
    "node format for the command, leaf format for the Item": (
        info(
            Item(source="./DevInfo/Ext"),
            Item(source="./DevInfo/Man", meta=Meta(format="chr"), data="Acme"),
            meta=Meta(format="node"),
        ),
        SHORT,
    ),
    "no DevId": (info(Item(source="./DevInfo/Man", data="Acme")), SHORT),
    "a node without address": (info(Item(data="?"), Item(source="./DevInfo/Man", data="Acme")), SHORT),
    "DevId differs from Source": (
        info(Item(source="./DevInfo/DevId", data="guid")),
        {"./DevInfo/DevId": "guid"},
    ),
    "nothing": (info(), {"./DevInfo/DevId": DEVICE}),
}


@pytest.mark.parametrize(("command", "expected"), DEV_INFOS.values(), ids=DEV_INFOS)
def test_dev_info_in_every_form(command: Replace, expected: dict[str, str]) -> None:
    """XS-025, XS-026, interop: missing nodes are missing, a missing DevId is the Source of the message."""
    events, answer = Device().say(START, command, cred=GOOD, decision=Finish())
    (opened,) = [event for event in events if isinstance(event, SessionOpened)]
    assert opened.dev_info == expected
    assert codes(answer) == [212, 200, 200]


def test_dev_info_over_several_messages() -> None:
    """XS-026, XS-003: a split package 1; the server asks for the next message and decides after the last."""
    device = Device()
    items = INFO.items
    events, answer = device.say(START, info(*items[:2]), cred=GOOD, final=False)
    assert not any(isinstance(event, SessionOpened | PackageReceived) for event in events)
    assert (names(answer), answer.final) == (["Status", "Status", "Status", "Alert 1222"], False)
    events, answer = device.say(replace(OK, code=200), info(*items[2:]), decision=Finish())
    (opened,) = [event for event in events if isinstance(event, SessionOpened)]
    assert opened.dev_info == DEV_INFO
    assert answer.final


def test_dev_info_has_bounds() -> None:
    """XS-026: no device fills our memory; 413, and the session goes on."""
    many = info(*(Item(source=f"./DevInfo/Ext/{number}", data="x") for number in range(300)))
    events, answer = Device().say(START, many, cred=GOOD, decision=Finish())
    assert codes(answer) == [212, 200, 413]
    long = info(Item(source="./DevInfo/Ext/long", data="x" * 5000))
    _, answer = Device().say(START, long, cred=GOOD, decision=Finish())
    assert codes(answer) == [212, 200, 413]
    assert any(isinstance(event, SessionOpened) for event in events)


def proof_for(answer: Message) -> Cred:
    """What a device that knows the secret answers a challenge with."""
    status = answer.commands[0]
    assert isinstance(status, Status)
    assert status.chal is not None
    assert status.chal.next_nonce is not None
    return Cred(type=AuthType.MD5, data=md5_data("device", "client-secret", status.chal.next_nonce))


def test_alert_and_dev_info_that_do_not_come_again_after_a_challenge() -> None:
    """Interop: those of the refused package 1 count, once the same session has proved itself."""
    device = Device()
    _, answer = device.say(START, INFO)
    events, _ = device.say(replace(OK, code=200), cred=proof_for(answer), decision=Finish())
    (opened,) = [event for event in events if isinstance(event, SessionOpened)]
    assert (opened.alert_code, opened.dev_info) == (1201, DEV_INFO)


def test_dev_info_of_the_refused_message_gives_way_to_what_is_proved() -> None:
    """XS-007: a stranger's DevInfo does not mix with that of the device."""
    device = Device()
    _, answer = device.say(START, info(Item(source="./DevInfo/Man", data="forged"), Item(source="./X", data="forged")))
    events, _ = device.say(replace(START, code=1200), INFO, cred=proof_for(answer), decision=Finish())
    (opened,) = [event for event in events if isinstance(event, SessionOpened)]
    assert (opened.alert_code, opened.dev_info) == (1200, DEV_INFO)


# -- answers to commands ----------------------------------------------------------------------------------------------

ITEM_A, ITEM_B = Item(source="./A", data="a"), Item(source="./B", data="b")


def said(cmd_ref: str, code: int, cmd: str = "Get", msg_ref: str = "1", **more: object) -> Status:
    return Status(cmd_id="91", msg_ref=msg_ref, cmd_ref=cmd_ref, cmd=cmd, code=code, **more)


def found(*items: Item, cmd_ref: str = "4", msg_ref: str = "1") -> Results:
    return Results(cmd_id="92", msg_ref=msg_ref, cmd_ref=cmd_ref, items=items)


SET_OK = said("5", 200, "Replace")
# what the device says of Get(./A, ./B) = CmdID 4 and Replace(./C) = CmdID 5 → codes of both, values of the Get
BOTH = {"./A": "a", "./B": "b"}
FORMS: dict[str, tuple[list[Command], list[int], dict[str, str]]] = {
    "one Status for several Items": ([said("4", 200), found(ITEM_A, ITEM_B), SET_OK], [200, 200], BOTH),
    "one Status per Item": (
        [said("4", 200, target_refs=("./A",)), said("4", 404, target_refs=("./B",)), SET_OK, found(ITEM_A)],
        [404, 200],
        {"./A": "a"},
    ),
    "several TargetRefs in one Status": (
        [said("4", 200, target_refs=("./A", "./B")), SET_OK, found(ITEM_A), found(ITEM_B)],
        [200, 200],
        BOTH,
    ),
    "Status after Results": ([found(ITEM_A, ITEM_B), SET_OK, said("4", 200)], [200, 200], BOTH),
    "Results without Status": ([SET_OK, found(ITEM_A, ITEM_B)], [200, 200], BOTH),
    "Results twice, the last counts": (
        [said("4", 200), SET_OK, found(replace(ITEM_A, data="?"), ITEM_B), found(ITEM_A)],
        [200, 200],
        BOTH,
    ),
    "no Status at all": ([SET_OK], [500, 200], {}),
    "MsgRef of another message": (
        [said("4", 200, msg_ref="7"), said("5", 200, "Replace", msg_ref="0"), found(ITEM_A, ITEM_B, msg_ref="9")],
        [200, 200],
        BOTH,
    ),
    "no MsgRef": (
        [said("4", 200, msg_ref=""), said("5", 425, "Replace", msg_ref=""), found(ITEM_A)],
        [200, 425],
        {"./A": "a"},
    ),
    "no CmdRef": ([said("", 200), said("", 404, "Replace"), found(ITEM_A, cmd_ref="1")], [200, 404], {"./A": "a"}),
    "CmdRef of the wrong command": (
        [said("5", 200, target_refs=("./A",)), said("4", 405, "Replace", target_refs=("./C",)), found(ITEM_A)],
        [200, 405],
        {"./A": "a"},
    ),
    "no Cmd": ([said("4", 200, ""), said("5", 418, ""), found(ITEM_A)], [200, 418], {"./A": "a"}),
    "Status code 0": ([said("4", 0), said("5", 0, "Replace")], [0, 0], {}),
    "a code nobody knows": ([said("4", 299), said("5", 599, "Replace")], [299, 599], {}),
    "Target in Results": ([said("4", 200), SET_OK, found(Item(target="./A", data="a"))], [200, 200], {"./A": "a"}),
    "a Status for a command we did not send": ([said("77", 500, "Delete"), said("4", 200), SET_OK], [200, 200], {}),
}


@pytest.mark.parametrize(("commands", "expected", "values"), FORMS.values(), ids=FORMS)
def test_answers_in_every_form(commands: list[Command], expected: list[int], values: dict[str, str]) -> None:
    """XS-028, interop: references lead to the command, and where they contradict each other, name and node do."""
    device = Device()
    sent = device.open(get("./A", "./B"), Replace(items=(leaf_item("./C", "c"),)))
    assert [c.cmd_id for c in sent.commands] == ["1", "2", "3", "4", "5"]
    events, _ = device.say(OK, *commands, decision=Finish())
    assert [answer.code for answer in answers(events)] == expected
    assert answers(events)[0].values() == values


def test_code_0_is_no_success() -> None:
    """Interop: neither of a command nor of our credentials."""
    device = Device()
    device.open(get("./A"))
    events, answer = device.say(replace(OK, code=0), said("4", 0), decision=Continue((get("./B"),)))
    assert answer.header.cred is not None  # not accepted: shown again
    assert [each.code for each in answers(events)] == [0]


GROUPS = {
    "Sequence first": ([said("4", 200, "Sequence"), said("5", 200), said("6", 404)], 404),
    "Sequence after its children": ([said("5", 200), said("6", 200), said("4", 200, "Sequence")], 200),
    "no Status for the Sequence": ([said("5", 200), said("6", 200)], 200),
    "no Status for the children": ([said("4", 200, "Sequence")], 200),
    "child skipped": ([said("4", 200, "Sequence"), said("5", 200), said("6", 215)], 215),
    "child rolled back": ([said("4", 507, "Sequence"), said("5", 216), said("6", 404)], 507),
    "children refused by the user": ([said("4", 200, "Sequence"), said("5", 304), said("6", 215)], 304),
}


@pytest.mark.parametrize(("commands", "code"), GROUPS.values(), ids=GROUPS)
def test_groups_whose_statuses_come_in_any_order(commands: list[Command], code: int) -> None:
    """XS-028, interop: one outcome for the group, each child's Status with it."""
    device = Device()
    device.open(sequence(get("./A"), get("./B")))
    events, _ = device.say(OK, *commands, decision=Finish())
    (answer,) = answers(events)
    assert (answer.code, len(answer.statuses)) == (code, len(commands))


def test_alert_before_the_status_of_its_exec() -> None:
    """XS-020, interop: the device reports the end of a job before it says that the job began."""
    device = Device()
    device.open(Exec(items=(Item(target="./F/Update"),), correlator="job"))
    report = Alert(
        cmd_id="7", code=1226, correlator="job", items=(Item(source="./F", meta=Meta(type="x"), data="200"),)
    )
    events, answer = device.say(OK, report, said("4", 202, "Exec"), decision=Finish())
    assert [e.alert.correlator for e in events if isinstance(e, AlertReceived)] == ["job"]
    assert [each.code for each in answers(events)] == [202]
    assert codes(answer) == [200, 200]


# -- packages ---------------------------------------------------------------------------------------------------------

ASK = Alert(cmd_id="80", code=AlertCode.NEXT_MESSAGE)
NEXT_MESSAGES = {
    "with 1222": (OK, said("4", 200), ASK),
    "1222 with Items": (OK, said("4", 200), replace(ASK, items=(Item(target="./A", source="./B"),))),
    "without 1222": (OK, said("4", 200)),
    "nothing but the header's Status": (OK,),
}


@pytest.mark.parametrize("commands", NEXT_MESSAGES.values(), ids=NEXT_MESSAGES)
def test_a_message_without_final_is_answered_with_1222_and_nothing_else(commands: tuple[Command, ...]) -> None:
    """XS-003, XS-004, interop: Status of the header, Statuses owed, Alert 1222, no Final, no command."""
    device = Device()
    device.open(get("./A"), get("./B"))
    for _ in range(2):
        events, answer = device.say(*commands, final=False)
        assert not any(isinstance(event, PackageReceived) for event in events)
        assert names(answer) == ["Status"] * (2 if len(commands) > 2 else 1) + ["Alert 1222"]
        assert not answer.final
    events, answer = device.say(said("5", 200), decision=Continue((get("./C"),)))
    assert any(isinstance(event, PackageReceived) for event in events)
    assert names(answer) == ["Status", "Get"]
    assert answer.final


def test_final_is_the_word_of_the_device() -> None:
    """Interop: intel libdmclient writes Final always, beside 1222 too; what it leaves unanswered has failed."""
    device = Device()
    device.open(get("./A"), get("./B"))
    events, answer = device.say(OK, said("4", 200), found(ITEM_A), ASK, decision=Finish())
    assert [each.code for each in answers(events)] == [200, 500]
    assert (names(answer), answer.final) == (["Status", "Status"], True)


@pytest.mark.parametrize("cred", [GOOD, replace(GOOD, data="d3Jvbmc="), None], ids=["right", "wrong", "none"])
def test_credentials_in_every_message(cred: Cred | None) -> None:
    """Interop: after 212 nobody reads them; a wrong one loses nothing and gains nothing."""
    device = Device()
    device.open(get("./A"))
    events, answer = device.say(OK, said("4", 200), found(ITEM_A), cred=cred, decision=Continue((get("./B"),)))
    assert not any(isinstance(event, CredentialsRefused | ClientAuthenticated) for event in events)
    assert [each.code for each in answers(events)] == [200]
    assert codes(answer) == [200]


def test_user_interaction_of_a_client_is_ignored() -> None:
    """XS-023: 406, and no policy hears of it."""
    device = Device()
    device.open(get("./A"))
    alerts = [Alert(cmd_id=str(code), code=code, items=(Item(data=""), Item(data="?"))) for code in range(1100, 1105)]
    events, answer = device.say(OK, said("4", 200), *alerts, decision=Continue((get("./B"),)))
    assert not any(isinstance(event, AlertReceived) for event in events)
    assert codes(answer) == [200] + [406] * 5


# -- no tolerance is a way in -----------------------------------------------------------------------------------------

STRANGERS = {
    "no Cred": None,
    "empty Data": replace(GOOD, data=""),
    "white space for Data": replace(GOOD, data=" \n"),
    "basic with empty Data": Cred(type=AuthType.BASIC, data=""),
    "basic with the right password": Cred(type=AuthType.BASIC, data="ZGV2aWNlOmNsaWVudC1zZWNyZXQ="),
    "digest with an empty nonce": replace(GOOD, data=md5_data("device", "client-secret", b"")),
    "digest with the special nonce": replace(GOOD, data=md5_data("device", "client-secret", bytes(4))),
    "digest with an empty secret": replace(GOOD, data=md5_data("device", "", b"client-nonce")),
    "digest with another name": replace(GOOD, data=md5_data("Device", "client-secret", b"client-nonce")),
    "nobody's type": replace(GOOD, type="syncml:auth-none"),
    "type empty": replace(GOOD, type=""),
    "MAC in a Cred": replace(GOOD, type=AuthType.MAC),
}
TOLERATED = {
    "plain": {},
    **{name: changes for name, changes in HEADERS.items() if "cred" not in changes},
    "session id 0": {"session_id": "0"},
}


@pytest.mark.parametrize("changes", TOLERATED.values(), ids=TOLERATED)
@pytest.mark.parametrize("cred", STRANGERS.values(), ids=STRANGERS)
def test_no_tolerance_weakens_authentication(cred: Cred | None, changes: dict[str, object]) -> None:
    """XS-007: whatever form the message has, without the right credentials it opens nothing and gets Statuses only."""
    server = server_session(session_id=str(changes.get("session_id", "2F")))
    header = replace(SyncHdr(session_id="2F", msg_id="1", target=SERVER_URI, source=DEVICE, cred=cred), **changes)
    commands = (START, INFO, *FORMS["one Status for several Items"][0])
    for msg_id in ("1", "2", "3"):
        events = server.receive(
            Message(header=replace(header, msg_id=msg_id), commands=commands, final=True), NOW, mac="username=device"
        )
        assert not any(
            isinstance(event, SessionOpened | ClientAuthenticated | PackageReceived | CommandAnswered)
            for event in events
        )
        reply = decode(server.reply(), Encoding.XML)
        assert {type(command) for command in reply.commands} == {Status}
        assert set(codes(reply)) <= {401, 407}
        assert reply.header.cred is None
        if server.closed:
            break
    assert server.closed


# -- the client and its servers ---------------------------------------------------------------------------------------


def heard_by_client(
    *commands: Command,
    header: dict[str, object] | None = None,
    final: bool = True,
    tls: bool = False,
    alert: Alert | None = None,
) -> tuple[list[Event], Message | None, object]:
    """What a client makes of a server's first message."""
    account = replace(CLIENT_ACCOUNT, server_auth=None) if tls else CLIENT_ACCOUNT
    client = client_session(account, alerts=() if alert is None else (alert,))
    client.start()
    proof = Credentials(type=AuthType.MD5, name="dpf.example", secret="server-secret", nonce=b"server-nonce").prove()
    full = SyncHdr(session_id="2F", msg_id="1", target=DEVICE, source=SERVER_URI, cred=None if tls else proof)
    full = replace(full, **(header or {}))
    events = client.receive(Message(header=full, commands=commands, final=final), NOW)
    for event in events:
        if isinstance(event, CommandReceived):
            client.answer(event.command, answer_all(event.command))
    body = client.reply()
    return events, None if body is None else decode(body, Encoding.XML), client


ACCEPTED = Status(
    cmd_id="1", msg_ref="1", cmd_ref="0", cmd="SyncHdr", code=212, chal=Chal(type=AuthType.MD5, next_nonce=b"n")
)
READ = replace(get("./A"), cmd_id="5")
SERVER_HEADERS = {
    "RespURI missing": {"resp_uri": None},
    "RespURI empty": {"resp_uri": ""},
    "empty Target": {"target": ""},
    "no Meta": {"meta": None},
    "LocName missing": {"source_name": None},
}


@pytest.mark.parametrize("header", SERVER_HEADERS.values(), ids=SERVER_HEADERS)
def test_headers_as_servers_write_them(header: dict[str, object]) -> None:
    """XC-006, interop: without RespURI the session stays where it began."""
    events, answer, client = heard_by_client(ACCEPTED, READ, header=header)
    assert any(isinstance(event, CommandReceived) for event in events)
    assert answer is not None
    assert client.target_uri == SERVER_URI


def test_server_without_credentials_but_with_tls() -> None:
    """Interop, OMA-TS-DM_Security-V1_2 §5.3: an account without server credentials leaves the proof to TLS."""
    events, answer, _ = heard_by_client(ACCEPTED, READ, tls=True)
    assert any(isinstance(event, ServerAuthenticated) for event in events)
    assert answer is not None
    assert codes(answer) == [200, 200]


def test_server_without_credentials_where_the_account_demands_them() -> None:
    """XC-024: TLS alone does not stand for credentials that the account has."""
    events, answer, _ = heard_by_client(ACCEPTED, READ, header={"cred": None})
    assert not any(isinstance(event, CommandReceived | ServerAuthenticated) for event in events)
    assert answer is not None
    assert codes(answer) == [407, 407]


def test_several_target_refs_in_one_status() -> None:
    """Interop: a server's Status for our alert may name what it likes."""
    alert = Alert(code=1226, items=(Item(source="./A", data="1"), Item(source="./B", data="2")))
    ok = Status(
        cmd_id="2", msg_ref="1", cmd_ref="3", cmd="Alert", code=200, target_refs=("./A", "./B"), source_refs=("x",)
    )
    events, _, _ = heard_by_client(ACCEPTED, ok, alert=alert)
    assert [(e.alert, e.code) for e in events if isinstance(e, StatusReceived)] == [(alert, 200)]


def test_server_status_0_is_no_acceptance() -> None:
    """Interop: a header Status of 0 says nothing; the credentials go out again."""
    events, answer, _ = heard_by_client(replace(ACCEPTED, code=0), READ)
    assert not any(isinstance(event, ClientAuthenticated) for event in events)
    assert answer is not None
    assert answer.header.cred is not None


SERVER_END = {
    "commands and no Final": ((ACCEPTED, READ), False, ["Status", "Status", "Results", "Alert 1222"], False),
    "Statuses and no Final": ((ACCEPTED,), False, ["Status", "Alert 1222"], False),
    "commands and Final": ((ACCEPTED, READ), True, ["Status", "Status", "Results"], True),
    "1222 and no Final": ((ACCEPTED, replace(ASK, cmd_id="5")), False, ["Status", "Status"], True),
}


@pytest.mark.parametrize(("commands", "final", "expected", "last"), SERVER_END.values(), ids=SERVER_END)
def test_server_packages_with_and_without_final(
    commands: tuple[Command, ...], final: bool, expected: list[str], last: bool
) -> None:
    """XC-007, XC-008, interop: without Final the client says what it has, asks for more, and has no Final."""
    _, answer, _ = heard_by_client(*commands, final=final)
    assert answer is not None
    assert (names(answer), answer.final) == (expected, last)
    assert not (answer.final and "Alert 1222" in names(answer))


def test_an_empty_server_message_ends_the_session() -> None:
    """XC-004: nothing is sent that would hold the header's Status alone."""
    events, answer, client = heard_by_client(ACCEPTED)
    assert answer is None
    assert client.closed
    assert any(isinstance(event, SessionClosed) for event in events)


ITEMLESS = {"Add": Add(cmd_id="5"), "Get": Get(cmd_id="5"), "Replace": Replace(cmd_id="5"), "Exec": Exec(cmd_id="5")}


@pytest.mark.parametrize("command", ITEMLESS.values(), ids=ITEMLESS)
def test_commands_without_items(command: Command) -> None:
    """OMA-TS-DM_RepPro-V1_2 §10: 412, nothing executed, the session goes on."""
    events, answer, _ = heard_by_client(ACCEPTED, command)
    assert not any(isinstance(event, CommandReceived) for event in events)
    assert answer is not None
    assert codes(answer)[-1] == 412


def test_account_of_the_tests_is_the_one_the_credentials_are_for() -> None:
    """The good credential above is good, or the table of strangers would prove nothing."""
    account = Credentials(
        type=SERVER_ACCOUNT.client_auth,
        name=SERVER_ACCOUNT.client_name,
        secret=SERVER_ACCOUNT.client_secret,
        nonce=SERVER_ACCOUNT.client_nonce,
    )
    assert account.accepts(GOOD)


def test_what_a_device_says_of_one_package_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-11: a device may repeat Results (interop) and never end its package; what is kept of that does not grow.
    Beyond it Results get 413, and the command has failed."""
    monkeypatch.setattr("syncml.outstanding.MAX_HEARD", 4096)
    device = Device()
    sent = device.open(get("./A"), get("./B"))
    first, second = (command.cmd_id for command in sent.commands if isinstance(command, Get))
    value = "v" * 1000
    accepted = []
    for number in range(10):
        ref = first if number < 2 else second
        found = Results(cmd_id="9", msg_ref="1", cmd_ref=ref, items=(Item(source="./A", data=value),))
        _, answer = device.say(replace(OK, cmd_id="8"), found, final=False)
        accepted.append([each.code for each in answer.commands if isinstance(each, Status) and each.cmd == "Results"])
    assert accepted == [[], [], []] + 7 * [[413]]
    many = tuple(
        Status(cmd_id=str(number), msg_ref="1", cmd_ref=first, cmd="Get", code=200) for number in range(10, 500)
    )
    events, _ = device.say(*many, decision=Finish())
    one, two = answers(events)
    assert (one.code, len(one.results), two.code) == (200, 2, 413)
    assert len(one.statuses) < 16


@pytest.mark.parametrize("proved", [True, False], ids=["the device", "a stranger"])
def test_our_answer_to_very_many_commands_can_be_read(proved: bool) -> None:
    """REQ-11, XS-007: every command gets its Status, as many to a message as a reader like ours takes."""
    device = Device()
    many = tuple(UnknownCommand(cmd_id=str(number), element="Put") for number in range(10, 8010))
    if proved:
        device.open(get("./A"))
        _, answer = device.say(*many, final=False)  # `say` decodes it
        assert not answer.final
    else:
        _, answer = device.say(START, *many)
    assert set(codes(answer)) == ({200, 406} if proved else {407})
    assert len(answer.commands) > 1000


def test_a_list_of_very_many_nodes_goes_out_in_several_results() -> None:
    """XC-063, interop: one Results with an Item for each node would be more elements than a reader takes."""
    meta = Meta(format="int", type="text/plain")
    found = tuple(Item(source=f"./A/n{number}", meta=meta, data="1") for number in range(3000))

    def execute(command: Command) -> list[CommandResult]:
        (uri,) = (item.target for item in command.items) if isinstance(command, Get) else (None,)
        return [CommandResult(cmd_id=command.cmd_id, code=200, target=uri, item=found[0], more_items=found[1:])]

    run = pump(client_session(), server_session(max_msg_size=600_000), [Continue((get("./A?list=Struct"),))], execute)
    (answer,) = run.answers
    assert len(answer.values()) == 3000
