"""Alerts 1100 to 1104 through both sessions: announced to the device, answered with Items, reported to the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from syncml.client_session import USER_INTERACTION, CommandResult
from syncml.codec import Encoding
from syncml.codes import AlertCode, StatusCode
from syncml.model import Alert, Atomic, Command, Item, Replace, Sequence, Status, walk
from syncml.policy import Continue
from syncml.values import leaf_item
from tests.support_syncml import Run, client_session, get, pump, server_session
from tests.unit.test_session_tolerance import ACCEPTED, codes, heard_by_client

OPTIONS = "MINDT=10&MAXDT=30&DR=2-3&X%2BY=a+b"
ASK = Alert(code=1101, items=(Item(data=OPTIONS), Item(data="Install <now>?")))
SET = Replace(items=(leaf_item("./C", "c"),))


def run_with(
    *commands: Command, execute: Callable[[Command], list[CommandResult]], encoding: Encoding = Encoding.XML
) -> Run:
    return pump(
        client_session(encoding=encoding),
        server_session(encoding=encoding),
        [Continue(commands)],
        execute,
        encoding=encoding,
    )


def with_code(code: int, *entered: str) -> Callable[[Command], list[CommandResult]]:
    """A user who answers every alert with that; all else is done."""

    def execute(command: Command) -> list[CommandResult]:
        detail = tuple(Item(data=text) for text in entered)
        return [
            CommandResult(cmd_id=each.cmd_id, code=code, detail=detail)
            if isinstance(each, Alert)
            else CommandResult(cmd_id=each.cmd_id, code=200)
            for each in walk((command,))
        ]

    return execute


@pytest.mark.parametrize("encoding", Encoding, ids=lambda each: each.name)
@pytest.mark.parametrize("code", USER_INTERACTION, ids=lambda each: each.name)
def test_alerts_reach_the_device_with_their_options_and_order(code: AlertCode, encoding: Encoding) -> None:
    """XC-071 to XC-074, XS-030: options first, then text and choices, octet for octet."""
    items = (Item(data=OPTIONS), Item(data="Pick & choose"), Item(data="Home"), Item(data=""), Item(data="Büro"))
    run = run_with(Alert(code=code, items=items), execute=with_code(200), encoding=encoding)
    (alert,) = run.received
    assert isinstance(alert, Alert)
    assert (alert.code, [item.data for item in alert.items]) == (code, [item.data for item in items])
    assert [answer.code for answer in run.answers] == [200]


@pytest.mark.parametrize("encoding", Encoding, ids=lambda each: each.name)
@pytest.mark.parametrize("entered", [("some text",), ("2",), ("1", "3"), ()], ids=["text", "one", "several", "nothing"])
def test_what_the_user_entered_comes_back_in_items(entered: tuple[str, ...], encoding: Encoding) -> None:
    """XC-073, XC-074: one Item per selection, in the Status that the policy gets."""
    run = run_with(replace(ASK, code=1104), get("./A"), execute=both(with_code(200, *entered)), encoding=encoding)
    answer = run.answers[0]
    assert [item.data for status in answer.statuses for item in status.items] == list(entered)
    assert run.answers[1].values() == {"./A": "value of ./A"}


def both(execute: Callable[[Command], list[CommandResult]]) -> Callable[[Command], list[CommandResult]]:
    """As `execute`, and a value for each Get."""

    def run(command: Command) -> list[CommandResult]:
        results = execute(command)
        target = command.items[0].target if not isinstance(command, Alert | Sequence | Atomic) else None
        found = Item(source=target, data=f"value of {target}")
        return [replace(each, item=found) for each in results] if target else results

    return run


ANSWERS = [200, 214, 304, 406, 408, 412, 415, 416, 500]


@pytest.mark.parametrize("code", ANSWERS)
def test_every_answer_of_a_user_is_reported_and_the_session_goes_on(code: int) -> None:
    """XC-070, XC-071, XC-075, XC-076: a "no" outside of groups has no effect on other commands."""
    run = run_with(ASK, SET, execute=with_code(code))
    assert [answer.code for answer in run.answers] == [code, 200]
    assert [command.name for command in run.received] == ["Alert", "Replace"]


@pytest.mark.parametrize("group", [Sequence, Atomic])
def test_alerts_inside_groups(group: type[Sequence] | type[Atomic]) -> None:
    """XC-072, XI-5: the group is announced with its alert, and each child's Status comes back."""

    def refuse(command: Command) -> list[CommandResult]:
        own, ask, change = walk((command,))
        whole = StatusCode.OK if isinstance(own, Sequence) else StatusCode.ATOMIC_FAILED
        outcome = ((own, whole), (ask, StatusCode.NOT_MODIFIED), (change, StatusCode.NOT_EXECUTED))
        return [CommandResult(cmd_id=each.cmd_id, code=code) for each, code in outcome]

    run = run_with(group(commands=(ASK, SET)), execute=refuse)
    assert [[each.name for each in walk((command,))] for command in run.received] == [
        [group.__name__, "Alert", "Replace"]
    ]
    (answer,) = run.answers
    expected = {"Sequence": [200, 304, 215], "Atomic": [507, 304, 215]}[group.__name__]
    assert [status.code for status in answer.statuses] == expected
    assert answer.code == max(expected)


@pytest.mark.parametrize("code", [1105, 1150, 1199, 1200, 1201, 1224, 1226, 1299, 0])
def test_other_alerts_of_a_server_are_not_for_the_user(code: int) -> None:
    """OMA-TS-DM_RepPro-V1_2 §8: reserved codes and those of clients are answered with 406 and announced to nobody."""
    alert = Alert(cmd_id="5", code=code, items=(Item(data=""), Item(data="?")))
    events, answer, _ = heard_by_client(ACCEPTED, alert)
    assert not any(type(event).__name__ == "CommandReceived" for event in events)
    assert answer is not None
    assert codes(answer) == [212, 406]
    assert all(isinstance(command, Status) for command in answer.commands)


def test_no_user_hears_a_server_that_proves_nothing() -> None:
    """XC-024: an alert is a command like others."""
    events, answer, _ = heard_by_client(ACCEPTED, replace(ASK, cmd_id="5"), header={"cred": None})
    assert not any(type(event).__name__ == "CommandReceived" for event in events)
    assert answer is not None
    assert codes(answer) == [407, 407]
