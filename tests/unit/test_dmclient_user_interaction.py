# ruff: noqa: E501  # a row of a table stays on one line
"""User interaction (alerts 1100 to 1104): options, rules per code, and what an answer does to the other commands."""

from __future__ import annotations

import asyncio
import os
import pty
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmclient.behaviour import ScriptedUser, UserAnswer
from dmclient.console import Console, TerminalLines, shown
from dmclient.executor import Surroundings
from dmclient.nodes import TreeRefusal
from dmclient.user_interaction import (
    MAX_CHOICES,
    MAX_INPUT,
    MAX_TEXT,
    Accepted,
    Cancelled,
    Chosen,
    Entered,
    NoAnswer,
    Options,
    Question,
    Rejected,
    Reply,
    interact,
)
from syncml.codes import AlertCode
from syncml.model import Add, Alert, Atomic, Get, Item, Meta, Sequence
from tests.support_dmclient import DPF, device_tree
from tests.support_executor import Commands, codes


def alert(code: int, *texts: str | bytes | None, number: str = "1") -> Alert:
    return Alert(cmd_id=number, code=code, items=tuple(Item(data=each) for each in texts))


@dataclass
class User:
    """Replies in order; None stands for somebody who has gone away."""

    replies: list[Reply | None]
    asked: list[Question] = field(default_factory=list)

    async def ask(self, question: Question) -> Reply:
        self.asked.append(question)
        reply = self.replies.pop(0)
        if reply is None:
            await asyncio.Event().wait()
        return reply


async def expired(waiting, seconds: float):
    """A wait whose time is over at once."""
    task = asyncio.ensure_future(waiting)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    raise TimeoutError


# fmt: off
OPTIONS = {
    "none": ("", Options()),
    "all": ("MINDT=10&MAXDT=30&DR=hello+you%21&MAXLEN=5&IT=N&ET=P",
            Options(min_display_s=10, max_display_s=30, default="hello you!", max_length=5, input_type="N", hidden=True)),
    "unknown ones are skipped": ("COLOUR=red&MAXDT=3&=&X", Options(max_display_s=3)),
    "numbers that are none": ("MINDT=0&MAXDT=-1&MAXLEN=many", Options()),
    "types that are none": ("IT=Z&ET=Q", Options()),
    "MAXLEN beyond our means": ("MAXLEN=999999", Options(max_length=MAX_INPUT)),
    "an escaped ampersand is data": ("DR=a%26MAXDT%3D3", Options(default="a&MAXDT=3")),
    "the first of two counts": ("MAXDT=3&MAXDT=4", Options(max_display_s=3)),
    "lower case": ("maxdt=3", Options(max_display_s=3)),
}
# fmt: on


@pytest.mark.parametrize(("text", "options"), OPTIONS.values(), ids=OPTIONS)
def test_options(text, options):
    """XC-073: URL-encoded options; unknown ones are ignored."""
    assert Options.parse(text) == options


@given(st.text(max_size=200))
def test_any_option_string_is_read(text):
    """XC-073: nothing in the option string is an error."""
    assert Options.parse(text).max_length <= MAX_INPUT


# fmt: off
ANSWERS = {
    "XC-071 yes": (alert(1101, "", "Go on?"), [Accepted()], 200, ()),
    "XC-071 no": (alert(1101, "", "Go on?"), [Rejected()], 304, ()),
    "XC-071 cancel": (alert(1101, "", "Go on?"), [Cancelled()], 214, ()),
    "display": (alert(1100, "MINDT=10", "Hello"), [Accepted()], 200, ()),
    "options as octets": (alert(1100, b"MINDT=10", b"Hello"), [Accepted()], 200, ()),
    "XC-073 text": (alert(1102, "IT=A", "Name?"), [Entered("Joe")], 200, ("Joe",)),
    "XC-074 single choice": (alert(1103, "", "Which?", "a", "b"), [Chosen((2,))], 200, ("2",)),
    "XC-074 several": (alert(1104, "", "Which?", "a", "b", "c"), [Chosen((1, 3))], 200, ("1", "3")),
    "XC-074 none of them": (alert(1104, "", "Which?", "a"), [Chosen(())], 200, ()),
    "XC-075 nobody answers": (alert(1101, "MAXDT=1", "?"), [None], 408, ()),
    "XC-075 default yes": (alert(1101, "MAXDT=1&DR=1", "?"), [None], 200, ()),
    "XC-075 default no": (alert(1101, "MAXDT=1&DR=0", "?"), [None], 304, ()),
    "XC-075 default that is none": (alert(1101, "MAXDT=1&DR=maybe", "?"), [None], 408, ()),
    "XC-075 default text": (alert(1102, "MAXDT=1&DR=Joe", "?"), [None], 200, ("Joe",)),
    "XC-075 default text too long": (alert(1102, "MAXDT=1&DR=Joe&MAXLEN=2", "?"), [None], 408, ()),
    "XC-075 default text that no message can carry": (alert(1102, "MAXDT=1&DR=a%01", "?"), [None], 408, ()),
    "XC-075 default choice": (alert(1103, "MAXDT=1&DR=2", "?", "a", "b"), [None], 200, ("2",)),
    "XC-075 default out of range": (alert(1103, "MAXDT=1&DR=3", "?", "a", "b"), [None], 408, ()),
    "XC-075 default choices": (alert(1104, "MAXDT=1&DR=2-1", "?", "a", "b"), [None], 200, ("2", "1")),
    "XC-075 a display just ends": (alert(1100, "MAXDT=1", "?"), [None], 200, ()),
    "XC-076 no Items": (alert(1101), [], 412, ()),
    "XC-076 one Item": (alert(1101, ""), [], 412, ()),
    "XC-076 no choice": (alert(1103, "", "Which?"), [], 412, ()),
    "XC-076 no text": (alert(1101, "", ""), [], 412, ()),
    "too many Items": (alert(1101, "", "Go on?", "x"), [], 412, ()),
    "too many choices": (alert(1103, "", "?", *["c"] * (MAX_CHOICES + 1)), [], 416, ()),
    "a choice too long": (alert(1103, "", "?", "c" * (MAX_TEXT + 1)), [], 416, ()),
    "no UTF-8": (alert(1100, "", b"\xff"), [], 415, ()),
    "a reply of another kind": (alert(1101, "", "?"), [Entered("yes")], 500, ()),
    "no user interaction": (alert(1105, "", "?"), [], 406, ()),
}
# fmt: on


@pytest.mark.parametrize(("command", "replies", "code", "data"), ANSWERS.values(), ids=ANSWERS)
async def test_rules_of_each_alert(command, replies, code, data):
    """XC-071, XC-073 to XC-076: Status and Items of the answer."""
    asking = interact(User(replies), command, wait=expired)
    if code >= 400 and code != 408:
        with pytest.raises(TreeRefusal) as caught:
            await asking
        assert caught.value.code == code
        return
    answer = await asking
    assert (answer.code, tuple(item.data for item in answer.items)) == (code, data)


@pytest.mark.parametrize("code", range(1100, 1105))
def test_without_a_user_nobody_is_asked(code):
    """XC-070: 1100 to 1104 without user interface."""
    results = Commands(device_tree().tree, DPF).execute(alert(code, "", "text", "a", "b"))
    assert codes(results) == [("1", 406)]


async def test_the_order_of_the_choices_is_kept():
    """XC-074: Items are shown in the order received."""
    user = User([Chosen((1,))])
    await interact(user, alert(1103, "DR=2", "Which?", "b", "a", "c"))
    assert (user.asked[0].text, user.asked[0].choices) == ("Which?", ("b", "a", "c"))


async def test_maxdt_bounds_the_wait():
    """XC-075: the seconds of MAXDT are what is waited, up to a bound of ours."""
    waits = []

    async def wait(waiting, seconds):
        waits.append(seconds)
        return await waiting

    for seconds in (7, 999999999):
        await interact(User([Accepted()]), alert(1101, f"MAXDT={seconds}", "?"), wait=wait)
    assert waits == [7, 3600]


INPUTS = {
    "A": (["anything, really"], []),
    "N": (["12", "-3.5", "+.5"], ["twelve", "1.2.3", ""]),
    "D": (["31122026"], ["32122026", "20261231"]),
    "T": (["235959"], ["240000", "12:00:00"]),
    "P": (["+491701234", "0800p12w3"], ["0800-1", "++1"]),
    "I": (["192.168.0.1", "255.255.255.255"], ["256.1.1.1", "1.2.3", "1.2.3.4.5", "1.2.3.4."]),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_input_types(kind):
    """XC-073: what IT lets a user enter."""
    question = Question(code=AlertCode.TEXT_INPUT, text="?", options=Options(input_type=kind))
    good, bad = INPUTS[kind]
    assert [each for each in good if question.fault(each) is not None] == []
    assert [each for each in bad if question.fault(each) is None] == []


# -- what the answer does to other commands ------------------------------------------------------------------------

TEXT = Meta(format="chr", type="text/plain")


def add(number: int, name: str) -> Add:
    return Add(cmd_id=str(number), items=(Item(target=f"./Test/{name}", meta=TEXT, data="v"),))


ASK = alert(1101, "", "Go on?", number="2")
# fmt: off
GROUPS = {
    "XI-5 XC-072 yes in a Sequence": (Sequence, Accepted(), [200, 200, 200, 200], {"a", "b"}),
    "XI-5 XC-072 no in a Sequence": (Sequence, Rejected(), [200, 200, 304, 215], {"a"}),
    "XI-5 XC-072 cancel in a Sequence": (Sequence, Cancelled(), [200, 200, 214, 215], {"a"}),
    "XC-072 silence in a Sequence": (Sequence, NoAnswer(), [200, 200, 408, 215], {"a"}),
    "XC-072 yes in an Atomic": (Atomic, Accepted(), [200, 200, 200, 200], {"a", "b"}),
    "XC-072 no in an Atomic": (Atomic, Rejected(), [507, 216, 304, 215], set()),
    "XC-072 cancel in an Atomic": (Atomic, Cancelled(), [507, 216, 214, 215], set()),
}
# fmt: on


@pytest.mark.parametrize(("group", "reply", "expected", "there"), GROUPS.values(), ids=GROUPS)
def test_answer_inside_a_group(group, reply, expected, there):
    """XC-072: the rest of a Sequence is not executed, an Atomic rolls back."""
    device = device_tree()
    executor = Commands(device.tree, DPF, Surroundings(user=User([reply])))
    results = executor.execute(group(cmd_id="9", commands=(add(1, "a"), ASK, add(3, "b"))))
    assert [each.code for each in results] == expected
    assert [each.cmd_id for each in results] == ["9", "1", "2", "3"]
    assert set(device.tree.nodes.children(("Test",))) == there


def test_a_refused_sequence_does_not_stop_the_one_around_it():
    """XC-072: only the Sequence of the alert is cut short; what it holds is all 215."""
    device = device_tree()
    executor = Commands(device.tree, DPF, Surroundings(user=User([Rejected()])))
    inner = Sequence(cmd_id="5", commands=(ASK, Atomic(cmd_id="6", commands=(add(7, "x"),))))
    results = executor.execute(Sequence(cmd_id="4", commands=(inner, add(8, "y"))))
    assert codes(results) == [("4", 200), ("5", 200), ("2", 304), ("6", 215), ("7", 215), ("8", 200)]


def test_cancel_directly_in_the_body_stops_the_message():
    """XC-071: after a cancel the commands that follow in that message are 215; "no" stops nothing."""
    device = device_tree()
    executor = Commands(device.tree, DPF, Surroundings(user=User([Rejected(), Cancelled()])))
    executor.begin_message()
    assert codes(executor.execute(ASK)) == [("2", 304)]
    assert codes(executor.execute(add(3, "a"))) == [("3", 200)]
    assert codes(executor.execute(ASK)) == [("2", 214)]
    get = Get(cmd_id="4", items=(Item(target="./Test/a"),))
    assert codes(executor.execute(get)) == [("4", 215)]
    assert codes(executor.execute(Sequence(cmd_id="5", commands=(get,)))) == [("5", 215), ("4", 215)]
    executor.begin_message()
    assert codes(executor.execute(get)) == [("4", 200)]


def test_the_tree_may_change_while_a_user_is_asked():
    """XC-056: an Atomic that waited for a user does not undo what the device did meanwhile, but is rolled back."""
    device = device_tree()

    class Busy:
        async def ask(self, question: Question) -> Reply:
            device.tree.nodes.change(("Test",), title="changed by the device")
            return Accepted()

    executor = Commands(device.tree, DPF, Surroundings(user=Busy()))
    results = executor.execute(Atomic(cmd_id="9", commands=(add(1, "a"), ASK, add(3, "b"))))
    assert codes(results) == [("9", 507), ("1", 216), ("2", 216), ("3", 216)]
    assert device.tree.nodes[("Test",)].title == "changed by the device"
    assert codes(executor.execute(add(1, "a"))) == [("1", 200)]


def test_the_scripted_user():
    """XC-071: answers serve once and for their alert; a display needs none."""
    user = ScriptedUser((UserAnswer(alert=1102, text="Joe"), UserAnswer(reply="no"), UserAnswer(choice=(2,))))
    executor = Commands(device_tree().tree, DPF, Surroundings(user=user))
    assert executor.execute(alert(1101, "", "?"))[0].code == 304
    assert executor.execute(alert(1102, "", "?"))[0].detail == (Item(data="Joe"),)
    assert executor.execute(alert(1103, "", "?", "a", "b"))[0].detail == (Item(data="2"),)
    assert executor.execute(alert(1100, "", "?"))[0].code == 200
    assert executor.execute(alert(1101, "", "?"))[0].code == 408


# -- the terminal ----------------------------------------------------------------------------------------------------


@dataclass
class Typed:
    """Lines typed before the test began."""

    lines: list[str | None]
    hidden: list[bool] = field(default_factory=list)

    async def read(self, *, hidden: bool = False) -> str | None:
        self.hidden.append(hidden)
        return self.lines.pop(0)


# fmt: off
CONSOLE = {
    "yes": (alert(1101, "", "?"), ["Y"], 200, ()),
    "no": (alert(1101, "", "?"), ["perhaps", "no"], 304, ()),
    "cancel": (alert(1101, "", "?"), ["!"], 214, ()),
    "end of the input": (alert(1101, "", "?"), [None], 214, ()),
    "a text that does not fit, then one that does": (alert(1102, "IT=N&MAXLEN=2", "?"), ["x", "123", "12"], 200, ("12",)),
    "the text offered": (alert(1102, "DR=Joe", "?"), [""], 200, ("Joe",)),
    "one choice": (alert(1103, "", "?", "a", "b"), ["3", "1 2", "2"], 200, ("2",)),
    "choices": (alert(1104, "", "?", "a", "b"), ["x", "2,1"], 200, ("2", "1")),
    "display": (alert(1100, "", "?"), [], 200, ()),
}
# fmt: on


@pytest.mark.parametrize(("command", "lines", "code", "data"), CONSOLE.values(), ids=CONSOLE)
async def test_console(command, lines, code, data):
    """XC-071, XC-073, XC-074 at the terminal: asked again until the answer is one."""
    typed = Typed(list(lines))
    answer = await interact(Console(typed, write=lambda _: None), command)
    assert (answer.code, tuple(item.data for item in answer.items)) == (code, data)
    assert typed.lines == []


async def test_a_password_is_not_echoed():
    """XC-073: ET=P asks the terminal for silence."""
    typed = Typed(["secret"])
    answer = await interact(Console(typed, write=lambda _: None), alert(1102, "ET=P", "PIN?"))
    assert typed.hidden == [True]
    assert "secret" not in repr(answer)


async def test_the_terminal_does_not_obey_a_server():
    """Control characters and changes of the writing direction do not reach the terminal."""
    out = []
    await Console(Typed([]), write=out.append).ask(Question(code=AlertCode.DISPLAY, text="a\x1b[2Jb\x9b\u202ec\nd"))
    assert out == ["[server] a�[2Jb��c\nd"]
    assert shown("plain ü") == "plain ü"


async def test_manual_status():
    """The tester's Status: three digits from 200 to 599, or nothing."""
    assert await Console(Typed(["7", "404"]), write=lambda _: None).status_for("Get", "./A") == 404
    assert await Console(Typed([""]), write=lambda _: None).status_for("Get", "./A") is None
    assert await Console(Typed([None]), write=lambda _: None).status_for("Get", "./A") is None


async def test_lines_of_a_terminal():
    """A real terminal: lines come one by one, a hidden one is not echoed, the end stays the end."""
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)

    def echoed() -> bytes:
        try:
            return os.read(leader, 100)
        except BlockingIOError:
            return b""

    with os.fdopen(follower, encoding="utf-8") as stream:
        lines = TerminalLines(stream)
        os.write(leader, b"first\n")
        assert await lines.read() == "first"
        assert b"first" in echoed()
        waiting = asyncio.ensure_future(lines.read(hidden=True))
        await asyncio.sleep(0)
        os.write(leader, b"quiet\n")
        assert await waiting == "quiet"
        assert b"quiet" not in echoed()
        os.write(leader, b"\x04")
        assert await lines.read() is None
        assert await lines.read() is None
    os.close(leader)
