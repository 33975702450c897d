"""Operator commands as values: what operators may write, what goes on the wire, what is made of a device's answers."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmserver.operator_commands import (
    MAX_COMMANDS,
    MAX_URI,
    MAX_VALUE,
    CommandRecord,
    CommandRejected,
    Grouping,
    OperatorRequest,
    RequestState,
    dump_command,
    load_command,
    parse_command,
    parse_request,
    to_wire,
)
from dmserver.operator_outcomes import MAX_KEPT_VALUE, WITHHELD, settle, show_request
from syncml.codec import Encoding, encode
from syncml.codes import AlertCode
from syncml.model import (
    Add,
    Alert,
    Atomic,
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
)
from syncml.session import CommandAnswered, worst

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TNDS = "application/vnd.syncml.dmtnds+xml"


def chr_item(uri: str, value: str) -> Item:
    return Item(target=uri, meta=Meta(format="chr", type="text/plain"), data=value)


GOOD = {
    "get": (
        {"command": "get", "uris": ["./A", "./B?prop=ACL"]},
        Get(items=(Item(target="./A"), Item(target="./B?prop=ACL"))),
    ),
    "delete": ({"command": "delete", "uris": ["./A"]}, Delete(items=(Item(target="./A"),))),
    "add text": ({"command": "add", "uri": "./A", "value": "x"}, Add(items=(chr_item("./A", "x"),))),
    "add number": (
        {"command": "add", "uri": "./A", "value": 7, "format": "int"},
        Add(items=(Item(target="./A", meta=Meta(format="int", type="text/plain"), data="7"),)),
    ),
    "add octets": (
        {"command": "add", "uri": "./A", "valueBase64": "AAE="},
        Add(items=(Item(target="./A", meta=Meta(format="bin", type="application/octet-stream"), data=b"\0\1"),)),
    ),
    "add node": (
        {"command": "add", "uri": "./A", "node": True, "type": "urn:oma:mo:x:1.0"},
        Add(items=(Item(target="./A", meta=Meta(format="node", type="urn:oma:mo:x:1.0")),)),
    ),
    "add null": (
        {"command": "add", "uri": "./A"},
        Add(items=(Item(target="./A", meta=Meta(format="null", type="text/plain")),)),
    ),
    "replace sub-tree": (
        {"command": "replace", "uri": "./A", "value": "<MgmtTree/>", "format": "xml", "type": TNDS},
        Replace(items=(Item(target="./A", meta=Meta(format="xml", type=TNDS), data="<MgmtTree/>"),)),
    ),
    "exec": ({"command": "exec", "uri": "./A"}, Exec(items=(Item(target="./A"),))),
    "exec with argument": (
        {"command": "exec", "uri": "./A", "value": "go", "correlator": "job-17"},
        Exec(items=(chr_item("./A", "go"),), correlator="job-17"),
    ),
    "copy": ({"command": "copy", "source": "./A", "target": "./B"}, Copy(items=(Item(target="./B", source="./A"),))),
    "display": (
        {"command": "alert", "kind": "display", "text": "Hello"},
        Alert(code=AlertCode.DISPLAY, items=(Item(data=""), Item(data="Hello"))),
    ),
    "choice": (
        {
            "command": "alert",
            "kind": "choice",
            "text": "Pick",
            "choices": ["Home", "Office"],
            "options": {"minDisplay": 10, "default": "a b&c"},
        },
        Alert(
            code=AlertCode.SINGLE_CHOICE,
            items=(Item(data="MINDT=10&DR=a+b%26c"), Item(data="Pick"), Item(data="Home"), Item(data="Office")),
        ),
    ),
}


@pytest.mark.parametrize(("entry", "command"), GOOD.values(), ids=GOOD)
def test_what_operators_write_becomes_a_command_and_survives_the_queue(entry, command):
    """XS-030: options are URL-encoded in the first Item, the text follows, and the options Item is always there."""
    assert parse_command(entry, "commands.0") == command
    assert load_command(json.loads(json.dumps(dump_command(command)))) == command


BAD = {
    "no object": (7, "malformed-request"),
    "nothing": ({}, "malformed-request"),
    "unknown verb": ({"command": "put"}, "malformed-request"),
    "unknown member": ({"command": "get", "uris": ["./A"], "uri": "./A"}, "malformed-request"),
    "no uris": ({"command": "get", "uris": []}, "malformed-request"),
    "uri is no text": ({"command": "get", "uris": [None]}, "malformed-request"),
    "uri with a control character": ({"command": "get", "uris": ["./A\n"]}, "malformed-request"),
    "uri too long": ({"command": "get", "uris": ["x" * (MAX_URI + 1)]}, "malformed-request"),
    "two values": ({"command": "add", "uri": "./A", "value": "", "valueBase64": ""}, "malformed-request"),
    "value is a list": ({"command": "add", "uri": "./A", "value": []}, "malformed-request"),
    "no Base64": ({"command": "add", "uri": "./A", "valueBase64": "!"}, "malformed-request"),
    "Base64 is a number": ({"command": "add", "uri": "./A", "valueBase64": 3}, "malformed-request"),
    "lone surrogate": ({"command": "add", "uri": "./A", "value": "\ud800"}, "malformed-request"),
    "control that XML lacks": ({"command": "add", "uri": "./A", "value": "a\x01"}, "malformed-request"),
    "no character": ({"command": "replace", "uri": "./A", "value": "\ufffe"}, "malformed-request"),
    "control for an Exec": ({"command": "exec", "uri": "./A", "value": "\x00"}, "malformed-request"),
    "control as octets": ({"command": "add", "uri": "./A", "value": "\x01", "format": "bin"}, "malformed-request"),
    "control for a user": ({"command": "alert", "kind": "display", "text": "a\x07"}, "malformed-request"),
    "control in a choice": (
        {"command": "alert", "kind": "choice", "text": "a", "choices": ["\x1b[2J"]},
        "malformed-request",
    ),
    "control in an option": (
        {"command": "alert", "kind": "confirm", "text": "a", "options": {"default": "\x01"}},
        "malformed-request",
    ),
    "value too large": ({"command": "add", "uri": "./A", "value": "x" * (MAX_VALUE + 1)}, "value-too-large"),
    "octets too large": (
        {"command": "add", "uri": "./A", "valueBase64": base64.b64encode(bytes(MAX_VALUE + 1)).decode()},
        "value-too-large",
    ),
    "unknown format": ({"command": "add", "uri": "./A", "value": "x", "format": "blob"}, "malformed-request"),
    "node with a value": ({"command": "add", "uri": "./A", "node": True, "value": "x"}, "malformed-request"),
    "copy without target": ({"command": "copy", "source": "./A"}, "malformed-request"),
    "correlator with a line end": ({"command": "exec", "uri": "./A", "correlator": "a\n"}, "malformed-request"),
    "unknown kind": ({"command": "alert", "kind": "shout", "text": "x"}, "malformed-request"),
    "kind is a list": ({"command": "alert", "kind": [], "text": "x"}, "malformed-request"),
    "no text": ({"command": "alert", "kind": "display"}, "malformed-request"),
    "choice without choices": ({"command": "alert", "kind": "choice", "text": "x"}, "malformed-request"),
    "choices for display": (
        {"command": "alert", "kind": "display", "text": "x", "choices": ["a"]},
        "malformed-request",
    ),
    "unknown option": (
        {"command": "alert", "kind": "display", "text": "x", "options": {"colour": "red"}},
        "malformed-request",
    ),
    "option is a list": (
        {"command": "alert", "kind": "display", "text": "x", "options": {"default": []}},
        "malformed-request",
    ),
}


@pytest.mark.parametrize(("entry", "code"), BAD.values(), ids=BAD)
def test_what_cannot_be_a_command_is_refused_with_its_place(entry, code):
    with pytest.raises(CommandRejected) as caught:
        parse_command(entry, "commands.3")
    assert caught.value.code == code
    assert str(caught.value).startswith("commands.3")


@pytest.mark.parametrize("encoding", Encoding)
def test_what_is_queued_can_be_sent(encoding):
    """Line ends and tabs are text in either encoding, and any octets are as Base64."""
    entries = ({"value": "a\tb\r\nc"}, {"valueBase64": "AAEb"}, {"value": "\U0001f600"})
    for entry in entries:
        command = parse_command({"command": "add", "uri": "./A", **entry}, "x")
        header = SyncHdr(session_id="1", msg_id="1", target="urn:imei:1", source="https://dms.example/dm")
        assert encode(Message(header=header, commands=(dataclasses.replace(command, cmd_id="1"),)), encoding)


BAD_REQUESTS = {
    "a list": [],
    "no commands": {},
    "too many commands": {"commands": [{"command": "get", "uris": ["./A"]}] * (MAX_COMMANDS + 1)},
    "unknown grouping": {"commands": [{"command": "get", "uris": ["./A"]}], "grouping": "heap"},
    "idempotent is text": {"commands": [{"command": "get", "uris": ["./A"]}], "idempotent": "yes"},
    "no life": {"commands": [{"command": "get", "uris": ["./A"]}], "expiresIn": 0},
    "life is a boolean": {"commands": [{"command": "get", "uris": ["./A"]}], "expiresIn": True},
    "unknown member": {"commands": [{"command": "get", "uris": ["./A"]}], "priority": 1},
}


@pytest.mark.parametrize("document", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_cannot_be_a_request_is_refused(document):
    with pytest.raises(CommandRejected):
        parse_request(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    ["command", "uris", "uri", "value", "valueBase64", "format", "type", "node", "kind", "text", "choices", "options"]
)
VERBS = st.sampled_from(["get", "add", "replace", "delete", "exec", "copy", "alert", "put"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(MEMBERS, JSON, max_size=6), VERBS)
def test_any_json_gives_a_command_or_a_typed_error(entry, verb):
    try:
        command = parse_command({**entry, "command": verb}, "commands.0")
    except CommandRejected:
        return
    assert load_command(json.loads(json.dumps(dump_command(command)))) == command


def test_a_correlator_is_made_on_request():
    made = [parse_command({"command": "exec", "uri": "./A", "correlator": "auto"}, "") for _ in range(2)]
    assert all(isinstance(each, Exec) and len(each.correlator or "") > 16 for each in made)
    assert made[0] != made[1]


# --- answers ----------------------------------------------------------------------------------------------------------


def request(*commands, grouping=Grouping.NONE) -> OperatorRequest:
    return OperatorRequest(
        request_id="r",
        device_id="d",
        state=RequestState.SENT,
        grouping=grouping,
        created_at=NOW,
        expires_at=NOW + timedelta(days=1),
        commands=tuple(CommandRecord(command=command) for command in commands),
    )


def status(code: int, cmd: str, *targets: str, ref: str = "2", msg: str = "1", items=()) -> Status:
    return Status(msg_ref=msg, cmd_ref=ref, cmd=cmd, code=code, target_refs=targets, items=items)


def results(uri: str, value: str | bytes, *, ref: str = "2", format: str = "chr") -> Results:
    return Results(cmd_ref=ref, items=(Item(source=uri, meta=Meta(format=format), data=value),))


def answered(command, *answers) -> CommandAnswered:
    statuses = tuple(each for each in answers if isinstance(each, Status))
    code = worst([each.code for each in statuses]) if statuses else 500
    return CommandAnswered(
        command=command,
        code=code,
        statuses=statuses,
        results=tuple(each for each in answers if isinstance(each, Results)),
    )


GET_TWO = Get(items=(Item(target="./A"), Item(target="./B")))
ONE_COMMAND = {
    "one Status for the whole": ((status(200, "Get"),), 200, [200, 200]),
    "one Status per Item": ((status(200, "Get", "./A"), status(404, "Get", "./B")), 404, [200, 404]),
    "one Status with two TargetRefs": ((status(200, "Get", "./A", "./B"),), 200, [200, 200]),
    "TargetRef without ./": ((status(200, "Get", "A"), status(405, "Get", "B")), 405, [200, 405]),
    "TargetRef percent-encoded": ((status(404, "Get", "./%41"),), 404, [404, 404]),
    "split into two commands without TargetRef": (
        (status(200, "Get", ref="2"), status(406, "Get", ref="3")),
        406,
        [200, 406],
    ),
    "Status 0": ((status(0, "Get"),), 0, [0, 0]),
}


@pytest.mark.parametrize(("answers", "code", "codes"), ONE_COMMAND.values(), ids=ONE_COMMAND)
def test_statuses_are_found_for_each_item(answers, code, codes):
    """Interop: one Status per Item or one for all, TargetRef or none: both forms are read."""
    settled = settle(request(GET_TWO), [answered(GET_TWO, *answers)])
    outcome = settled.commands[0].outcome
    assert outcome is not None
    assert (outcome.code, [item.code for item in outcome.items]) == (code, codes)


@pytest.mark.parametrize("code", [404, 405, 406, 418, 425, 500, 501, 599, 413, 214, 215, 216, 0])
def test_a_command_that_was_not_done_fails_its_request(code):
    """XS-028: Status 404, 405, 406, 418, 425, 500 are reported."""
    command = Replace(items=(chr_item("./A", "x"),))
    settled = settle(request(command), [answered(command, status(code, "Replace"))])
    assert (settled.state, settled.code) == (RequestState.FAILED, code)


def test_answers_a_device_did_not_give_are_failures():
    command = Delete(items=(Item(target="./A"),))
    assert settle(request(command), []).state is RequestState.FAILED
    assert settle(request(command, grouping=Grouping.ATOMIC), []).state is RequestState.FAILED


def test_our_own_refusal_to_send_is_reported():
    command = Replace(items=(chr_item("./A", "x" * 100),))
    settled = settle(request(command), [CommandAnswered(command=command, code=413)])
    assert (settled.state, settled.code) == (RequestState.FAILED, 413)


def test_user_interaction():
    """Interop: "No" (304) is an answer; what a user typed is in the Items of the Status."""
    command = Alert(code=AlertCode.TEXT_INPUT, items=(Item(data=""), Item(data="Name?")))
    settled = settle(request(command), [answered(command, status(200, "Alert", items=(Item(data="Ann"),)))])
    assert show_request(settled)["commands"][0]["results"][0]["value"] == "Ann"
    asked = Alert(code=AlertCode.CONFIRM_OR_REJECT, items=(Item(data=""), Item(data="Now?")))
    settled = settle(request(asked), [answered(asked, status(304, "Alert"))])
    assert (settled.state, settled.code) == (RequestState.DONE, 304)


ADD, REPLACE, GET = (
    Add(items=(chr_item("./A/x", "1"),)),
    Replace(items=(chr_item("./A/y", "2"),)),
    Get(items=(Item(target="./A/z"),)),
)
GROUPS = {
    "Atomic failed, with its Status": (
        Grouping.ATOMIC,
        (
            status(507, "Atomic", ref="5"),
            status(216, "Add", "./A/x", ref="6"),
            status(404, "Replace", "./A/y", ref="7"),
            status(215, "Get", "./A/z", ref="8"),
        ),
        507,
        [216, 404, 215],
    ),
    "no Status of the Atomic": (
        Grouping.ATOMIC,
        (status(216, "Add", ref="6"), status(404, "Replace", ref="7"), status(215, "Get", ref="8")),
        404,
        [216, 404, 215],
    ),
    "Atomic not supported, children silent": (Grouping.ATOMIC, (status(406, "Atomic", ref="5"),), 406, [406] * 3),
    "Status of the Sequence after its children": (
        Grouping.SEQUENCE,
        (
            status(200, "Add", ref="6"),
            status(405, "Replace", ref="7"),
            status(200, "Get", ref="8"),
            status(200, "Sequence", ref="5"),
        ),
        405,
        [200, 405, 200],
    ),
    "children that went out one by one": (
        Grouping.SEQUENCE,
        (status(200, "Add", ref="2"), status(500, "Replace", ref="2", msg="2"), status(200, "Get", ref="2", msg="3")),
        500,
        [200, 500, 200],
    ),
    "references that tell nothing": (
        Grouping.SEQUENCE,
        (status(200, "Get", "./A/z", ref="1"), status(418, "Add", ref="1")),
        418,
        [418, 418, 200],
    ),
    "a child skipped by the user": (
        Grouping.SEQUENCE,
        (status(200, "Sequence", ref="5"), status(200, "Add", ref="6"), status(215, "Replace", ref="7")),
        215,
        [200, 215, 215],
    ),
}


@pytest.mark.parametrize(("grouping", "answers", "code", "codes"), GROUPS.values(), ids=GROUPS)
def test_statuses_of_a_group_are_spread_over_its_children(grouping, answers, code, codes):
    """XS-029, interop: with or without a Status of the group, before or after those of its children."""
    made = request(ADD, REPLACE, GET, grouping=grouping)
    (group,) = to_wire(made)
    assert isinstance(group, Atomic if grouping is Grouping.ATOMIC else Sequence)
    settled = settle(made, [answered(group, *answers)])
    assert (settled.state, settled.code) == (RequestState.FAILED, code)
    assert [record.outcome and record.outcome.code for record in settled.commands] == codes


def test_a_group_that_is_done():
    made = request(ADD, GET, grouping=Grouping.SEQUENCE)
    (group,) = to_wire(made)
    answers = (status(200, "Sequence", ref="2"), status(200, "Add", ref="3"), status(200, "Get", ref="4"))
    settled = settle(made, [answered(group, *answers, results("./A/z", "v", ref="4"))])
    assert settled.state is RequestState.DONE
    shown = show_request(settled)["commands"]
    assert (shown[0]["results"], shown[1]["results"][0]["value"]) == ([], "v")


def test_results_are_kept_once_the_last_word_wins_and_within_bounds():
    """Interop: Results repeated for the same Get."""
    command = Get(items=(Item(target="./A"),))
    long = results("./B", b"x" * (MAX_KEPT_VALUE + 5), format="bin")
    answers = (status(200, "Get"), results("./A", "old"), results("A", "other"), results("./A", "new"), long)
    settled = settle(request(command), [answered(command, *answers)])
    shown = {each["uri"]: each for each in show_request(settled)["commands"][0]["results"]}
    assert (shown["./A"]["value"], shown["./B"]["truncated"]) == ("new", True)
    assert len(base64.b64decode(shown["./B"]["valueBase64"])) == MAX_KEPT_VALUE


def test_base64_that_is_none_is_shown_as_it_came():
    command = Get(items=(Item(target="./A"),))
    settled = settle(request(command), [answered(command, status(200, "Get"), results("./A", "!", format="b64"))])
    assert show_request(settled)["commands"][0]["results"][0]["value"] == "!"


SECRETS = {
    "a secret of an account": ("./DMAcc/x/AppAuth/y/AAuthSecret", "chr", "text/plain"),
    "of an account in the form of DM 1.1": ("./SyncML/DMAcc/x/ClientPW", "chr", "text/plain"),
    "a property of one": ("./DMAcc/x/AppAuth/y/AAuthSecret?prop=Name", "chr", "text/plain"),
    "in a sub-tree": ("./DMAcc", "xml", TNDS),
    "in a sub-tree by its URI": ("./DMAcc?list=StructData", "chr", "text/plain"),
}


@pytest.mark.parametrize(("uri", "format_", "kind"), SECRETS.values(), ids=SECRETS)
def test_secrets_are_never_shown(uri, format_, kind):
    value = "<NodeName>AAuthSecret</NodeName><Value>topsecret</Value>"
    item = Item(target=uri, meta=Meta(format=format_, type=kind), data=value)
    command = Replace(items=(item,))
    made = request(command)
    result = Results(items=(Item(source=uri, meta=item.meta, data=value),))
    settled = settle(made, [answered(command, status(200, "Replace"), result)])
    for shown in (show_request(made), show_request(settled)):
        assert "topsecret" not in json.dumps(shown)
        assert WITHHELD in json.dumps(shown)
    assert "topsecret" not in repr(settled)


def test_what_a_user_types_without_echo_is_not_shown():
    command = parse_command(
        {"command": "alert", "kind": "input", "text": "PIN?", "options": {"echo": "P"}}, "commands.0"
    )
    settled = settle(request(command), [answered(command, status(200, "Alert", items=(Item(data="1234"),)))])
    assert "1234" not in json.dumps(show_request(settled))
    assert dataclasses.replace(settled).state is RequestState.DONE
