"""Sequences with a user in front of the device, and Atomics that succeed or leave no trace, over real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmclient.behaviour import ScriptedUser, UserAnswer
from dmclient.dm_device import DeviceSetup
from syncml.codec import Encoding
from syncml.model import Atomic, Sequence
from tests.support_site import add, get, own, site

ENCODINGS = pytest.mark.parametrize("encoding", Encoding, ids=lambda each: each.name)


def with_user(*answers: dict[str, Any]) -> DeviceSetup:
    user = ScriptedUser(tuple(UserAnswer(**each) for each in answers))
    return DeviceSetup(scratch_node="Scratch", user=user)


def codes(outcome: dict[str, Any]) -> list[int]:
    return [each["code"] for each in outcome["commands"]]


CONFIRM = {"command": "alert", "kind": "confirm", "text": "May I?"}

REPLIES = {
    "yes": (200, 200, "done", "new"),
    "no": (304, 215, "failed", "old"),
    "cancel": (214, 215, "failed", "old"),
    "none": (408, 215, "failed", "old"),
}


@ENCODINGS
@pytest.mark.parametrize("reply", REPLIES)
async def test_sequence_that_asks_first(tmp_path: Path, encoding: Encoding, reply: str) -> None:
    """XI-5, XC-071, XC-072, XC-075: the rest of the Sequence is done after a yes alone; the Sequence itself is 200."""
    answered, rest, state, value = REPLIES[reply]
    async with site(tmp_path, encoding, setup=with_user({"alert": 1101, "reply": reply})) as here:
        await here.ask(*own("./Scratch/n"), add("./Scratch/n/a", "old"))
        replacing = {"command": "replace", "uri": "./Scratch/n/a", "value": "new"}
        outcome = await here.ask(CONFIRM, replacing, grouping="sequence")
        assert len(here.sent("server", Sequence)) == 1
        assert (outcome["state"], codes(outcome)) == (state, [answered, rest])
        assert here.device.tree.nodes.value(("Scratch", "n", "a")) == value


@ENCODINGS
async def test_no_user_to_ask(tmp_path: Path, encoding: Encoding) -> None:
    """XC-070: 406, over the wire."""
    async with site(tmp_path, encoding) as here:
        outcome = await here.ask(CONFIRM)
        assert (outcome["state"], codes(outcome)) == ("failed", [406])


def alert(kind: str, *choices: str, **options: object) -> dict[str, Any]:
    asked: dict[str, Any] = {"command": "alert", "kind": kind, "text": "Grüße & <Fragen>", "options": options}
    return asked | ({"choices": list(choices)} if choices else {})


QUESTIONS = {
    "display": (alert("display", minDisplay=1), {"alert": 1100, "reply": "yes"}, []),
    "input": (alert("input", maxLength=20, inputType="A"), {"alert": 1102, "text": "Käse & <Brot>"}, ["Käse & <Brot>"]),
    "digits": (alert("input", inputType="N"), {"alert": 1102, "text": "42"}, ["42"]),
    "choice": (alert("choice", "tea", "milk", default="1"), {"alert": 1103, "choice": (2,)}, ["2"]),
    "several": (alert("multichoice", "tea", "milk", "rum"), {"alert": 1104, "choice": (1, 3)}, ["1", "3"]),
}


@ENCODINGS
@pytest.mark.parametrize(("asked", "reply", "expected"), QUESTIONS.values(), ids=QUESTIONS)
async def test_what_the_user_says_comes_back(
    tmp_path: Path, encoding: Encoding, asked: dict[str, Any], reply: dict[str, Any], expected: list[str]
) -> None:
    """XI-5, XC-073, XC-074: text and choices stand in the request's outcome, one value for each selection."""
    async with site(tmp_path, encoding, setup=with_user(reply)) as here:
        outcome = await here.ask(asked)
        assert (outcome["state"], codes(outcome)) == ("done", [200])
        assert [each["value"] for each in outcome["commands"][0]["results"]] == expected


async def test_hidden_input_is_not_shown(tmp_path: Path) -> None:
    """XC-073: what was entered with echo off is known to have come, and is shown to nobody."""
    async with site(tmp_path, setup=with_user({"text": "secret pin"})) as here:
        outcome = await here.ask(alert("input", echo="P"))
        assert codes(outcome) == [200]
        assert "secret pin" not in str(outcome)


ATOMICS: dict[str, tuple[list[dict[str, Any]], int, list[int]]] = {
    "all good": (
        [add("./Scratch/n/b", "2"), {"command": "replace", "uri": "./Scratch/n/a", "value": "3"}],
        200,
        [200, 200],
    ),
    "the second fails": (
        [
            {"command": "replace", "uri": "./Scratch/n/a", "value": "3"},
            add("./Scratch/n/a", "again"),
            {"command": "delete", "uris": ["./Scratch/n/a"]},
        ],
        507,
        [216, 418, 215],
    ),
    "a Get inside": ([add("./Scratch/n/b", "2"), get("./Scratch/n/a")], 507, [216, 500]),
    "a copy, undone": (
        [
            {"command": "copy", "source": "./Scratch/n/a", "target": "./Scratch/n/c"},
            {"command": "delete", "uris": ["./Scratch/n/a"]},
            {"command": "delete", "uris": ["./DevInfo"]},
        ],
        507,
        [216, 216, 405],
    ),
}


@ENCODINGS
@pytest.mark.parametrize(("commands", "whole", "expected"), ATOMICS.values(), ids=ATOMICS)
async def test_atomic(
    tmp_path: Path, encoding: Encoding, commands: list[dict[str, Any]], whole: int, expected: list[int]
) -> None:
    """XI-6, XC-056, XC-057, XS-029: all or nothing; codes of the parts, and the tree as it was before."""
    async with site(tmp_path, encoding) as here:
        await here.ask(*own("./Scratch/n"), add("./Scratch/n/a", "1"))
        area = ("Scratch", "n")
        before = {path: here.device.tree.nodes[path] for path in here.device.tree.nodes.subtree(area)}
        outcome = await here.ask(*commands, grouping="atomic")
        after = {path: here.device.tree.nodes[path] for path in here.device.tree.nodes.subtree(area)}
        assert len(here.sent("server", Atomic)) == 1
        assert (outcome["code"], codes(outcome)) == (whole, expected)
        assert (after == before) is (whole != 200)
        assert outcome["state"] == ("done" if whole == 200 else "failed")


@ENCODINGS
async def test_atomic_whose_answer_has_no_room(tmp_path: Path, encoding: Encoding) -> None:
    """XI-6, XC-056: 517 from a device whose Statuses no message can hold; nothing was done, and the session goes on."""
    async with site(tmp_path, encoding) as here:
        here.message_size = 16 * 1024  # the device takes the Atomic whole, and may answer with 4096 octets
        commands = [add(f"./Scratch/{number:040}", "x") for number in range(60)]
        atomic = here.queue(*commands, grouping="atomic")
        after = here.queue(get("./Scratch"))
        assert (await here.session()).failure == ""
        outcome = here.outcome(atomic)
        assert (outcome["state"], outcome["code"]) == ("failed", 517)
        assert set(codes(outcome)) == {215}
        assert here.device.tree.nodes.children(("Scratch",)) == []
        assert here.outcome(after)["state"] == "done"


@ENCODINGS
async def test_a_no_inside_an_atomic_undoes_it(tmp_path: Path, encoding: Encoding) -> None:
    """XI-5, XI-6, XC-072: the user refuses, and what was done before the question is taken back."""
    async with site(tmp_path, encoding, setup=with_user({"alert": 1101, "reply": "no"})) as here:
        outcome = await here.ask(add("./Scratch/a", "1"), CONFIRM, add("./Scratch/b", "2"), grouping="atomic")
        assert (outcome["code"], codes(outcome)) == (507, [216, 304, 215])
        assert here.device.tree.nodes.children(("Scratch",)) == []
