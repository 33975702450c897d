"""The queue of operator commands: through real sessions, over crashes and restarts, beside provisioning."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmserver import operator_commands
from dmserver.operator_commands import CommandRejected, OperatorRequest, RequestState, parse_request
from dmserver.operator_outcomes import alert_values, settle, show_request
from dmserver.operator_policy import OperatorQueue
from dmserver.operator_service import queue_request, request_of, take_back
from dmserver.orders import OrderState
from dmserver.redaction import redacted_body
from dmserver.session_policy import InTurn, Place
from dmserver.store.accounts import change_device, find_device
from dmserver.store.operator_commands import (
    MAX_ATTEMPTS,
    MAX_WAITING,
    RequestConflict,
    mark_sent,
    next_request,
    settle_request,
    take_alert,
)
from syncml.codec import Encoding, decode
from syncml.codes import AlertCode
from syncml.model import Add, Alert, Command, Exec, Get, Item, Message, Meta, Replace, Results, Status, SyncHdr
from syncml.policy import Abort, Continue, Decision, Finish
from syncml.session import CommandAnswered, CommandReceived, StatusReceived
from tests.support_dmserver import Dpf
from tests.support_dpf_pki import M2ME_ID
from tests.support_stub_device import StubDevice, registration_alert

SECRET = "a-secret-nobody-may-read"


@pytest.fixture
def dpf(tmp_path: Path) -> Iterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


@pytest.fixture
def device() -> StubDevice:
    made = StubDevice()
    made.put("Test/a", "one")
    made.put("Test/b", "two")
    return made


def queue(dpf: Dpf, *commands: dict[str, object], **options: object) -> str:
    order = parse_request({"commands": list(commands)} | options)
    return dpf.store.write_sync(lambda c: queue_request(c, dpf.key, M2ME_ID, order, dpf.clock()))[0].request_id


def find(dpf: Dpf, request_id: str) -> OperatorRequest:
    return dpf.store.read_sync(lambda c: request_of(c, dpf.key, M2ME_ID, request_id))


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def state(dpf: Dpf, request_id: str) -> tuple[str, int | None]:
    found = find(dpf, request_id)
    return found.state.value, found.code


def get(uri: str) -> dict[str, object]:
    return {"command": "get", "uris": [uri]}


def replace(uri: str, value: str) -> dict[str, object]:
    return {"command": "replace", "uri": uri, "value": value}


def async_alert(*, correlator: str | None = None, source: str = "./Job/x", data: str = "200") -> Alert:
    item = Item(
        source=source, meta=Meta(format="int", type="org.openmobilealliance.dm.firmwareupdate.update"), data=data
    )
    return Alert(code=AlertCode.GENERIC_ALERT, items=(item,), correlator=correlator)


def session_code(events: list[object]) -> set[int]:
    return {
        event.code
        for event in events
        if isinstance(event, StatusReceived) and event.alert.code == AlertCode.CLIENT_INITIATED_MGMT
    }


async def test_requests_are_sent_in_order_one_at_a_time(dpf: Dpf, device: StubDevice):
    """A device without an order is let in for what is queued; each request has its Statuses and values."""
    first = queue(dpf, get("./Test/a"), get("./Test/none"))
    second = queue(dpf, replace("./Test/a", "changed"), get("./Test/a"))
    third = queue(dpf, {"command": "get", "uris": ["./Test/a", "./Test/b"]})
    events = await dpf.session(device)
    assert 403 not in session_code(events)
    assert [each.items[0].target for each in device.seen] == [
        "./Test/a", "./Test/none", "./Test/a", "./Test/a", "./Test/a",
    ]  # fmt: skip
    assert state(dpf, first) == ("failed", 404)
    assert state(dpf, second) == ("done", 200)
    shown = show_request(find(dpf, third))["commands"][0]
    assert [(each["uri"], each["value"]) for each in shown["results"]] == [("./Test/a", "changed"), ("./Test/b", "two")]
    assert [each["code"] for each in shown["statuses"]] == [200, 200]


@pytest.mark.parametrize("code", [404, 405, 406, 418, 425, 500])
async def test_one_bad_command_does_not_block_the_queue(dpf: Dpf, device: StubDevice, code: int):
    """XS-028: Status 404, 405, 406, 418, 425 and 500 are reported, and the session goes on."""
    device.refuse["Test/a"] = code
    bad, good = queue(dpf, replace("./Test/a", "x")), queue(dpf, get("./Test/b"))
    await dpf.session(device)
    assert (state(dpf, bad), state(dpf, good)) == (("failed", code), ("done", 200))


async def test_what_xml_cannot_carry_fails_alone_and_is_not_sent(
    dpf: Dpf, device: StubDevice, monkeypatch: pytest.MonkeyPatch
):
    """Such a value is not queued any more; one that an earlier version took does not block the queue."""
    with monkeypatch.context() as earlier:
        earlier.setattr(operator_commands, "is_xml_text", lambda _: True)
        bad = queue(dpf, replace("./Test/a", "bell\x07"))
    good = queue(dpf, get("./Test/b"))
    await dpf.session(device)
    assert (state(dpf, bad), state(dpf, good)) == (("failed", 400), ("done", 200))
    assert len(device.seen) == 1


async def test_what_the_device_has_no_room_for_fails_with_413(dpf: Dpf, device: StubDevice):
    """XS-017: an object above the MaxObjSize of the device is not sent."""
    bad, good = queue(dpf, replace("./Test/a", "x" * 300_000)), queue(dpf, get("./Test/b"))
    await dpf.session(device)
    assert (state(dpf, bad), state(dpf, good)) == (("failed", 413), ("done", 200))


async def test_a_large_value_goes_out_in_pieces(dpf: Dpf, device: StubDevice):
    """XS-016: a value above MaxMsgSize arrives whole."""
    made = queue(dpf, replace("./Test/a", "y" * 50_000), get("./Test/a"))
    await dpf.session(device, max_msg_size=4096)
    assert state(dpf, made) == ("done", 200)
    assert device.nodes["Test/a"].value == "y" * 50_000
    assert find(dpf, made).commands[1].outcome.results[0].value == "y" * 50_000


async def test_a_sequence_is_one_command(dpf: Dpf, device: StubDevice):
    """XS-029: a Sequence goes out whole, and each child has its own Status."""
    made = queue(dpf, replace("./Test/a", "x"), get("./Test/none"), get("./Test/a"), grouping="sequence")
    await dpf.session(device)
    assert [type(each).__name__ for each in device.seen] == ["Sequence", "Replace", "Get", "Get"]
    found = find(dpf, made)
    assert [record.outcome.code for record in found.commands if record.outcome] == [200, 404, 200]
    assert (found.state, found.code) == (RequestState.FAILED, 404)


async def test_provisioning_comes_first_and_the_queue_follows_in_the_same_session(dpf: Dpf, device: StubDevice):
    order_id, made = dpf.open_order(), queue(dpf, get("./Test/a"))
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert state(dpf, made) == ("done", 200)
    assert device.seen[-1].items[0].target == "./Test/a"


async def test_who_is_let_in(dpf: Dpf, device: StubDevice):
    """XS-002: a managed device gets Statuses and Final, when nothing waits; another one without an order gets 403."""
    assert session_code(await dpf.session(device, session_id="1")) == {403}
    dpf.store.write_sync(lambda c: change_device(c, M2ME_ID, managed=True))
    assert session_code(await dpf.session(device, session_id="2")) == {200}
    dpf.store.write_sync(lambda c: change_device(c, M2ME_ID, managed=False))
    made = queue(dpf, get("./Test/a"))
    assert session_code(await dpf.session(device, session_id="3")) == {200}
    assert state(dpf, made) == ("done", 200)
    assert session_code(await dpf.session(device, session_id="4")) == {403}


# --- crashes ----------------------------------------------------------------------------------------------------------


async def crash_before_the_answer(dpf: Dpf, device: StubDevice, session_id: str) -> None:
    """The device gets the commands, and then neither of the two says anything any more."""
    seen = len(device.seen)
    await dpf.run(device, dpf.client(device, session_id=session_id), stop=lambda each: len(each.seen) > seen)
    dpf.restart()


async def test_reading_is_repeated_after_a_crash(dpf: Dpf, device: StubDevice):
    made = queue(dpf, get("./Test/a"))
    await crash_before_the_answer(dpf, device, "1")
    assert state(dpf, made) == ("sent", None)
    await dpf.session(device, session_id="2")
    assert (state(dpf, made), find(dpf, made).attempt) == (("done", 200), 2)


async def test_what_changes_something_is_reported_and_not_done_twice(dpf: Dpf, device: StubDevice):
    made, after = queue(dpf, replace("./Test/a", "x")), queue(dpf, get("./Test/b"))
    await crash_before_the_answer(dpf, device, "1")
    await dpf.session(device, session_id="2")
    found = find(dpf, made)
    assert (found.state, found.code, found.attempt) == (RequestState.FAILED, None, 1)
    assert found.detail.startswith("unknown outcome")
    assert sum(type(each).__name__ == "Replace" for each in device.seen) == 1
    assert state(dpf, after) == ("done", 200)


async def test_the_operator_may_say_that_twice_does_no_harm(dpf: Dpf, device: StubDevice):
    made = queue(dpf, replace("./Test/a", "x"), idempotent=True)
    await crash_before_the_answer(dpf, device, "1")
    await dpf.session(device, session_id="2")
    assert state(dpf, made) == ("done", 200)


async def test_what_is_never_answered_ends_after_some_attempts(dpf: Dpf, device: StubDevice):
    made, after = queue(dpf, get("./Test/a")), queue(dpf, get("./Test/b"))
    for number in range(MAX_ATTEMPTS):
        await crash_before_the_answer(dpf, device, f"{number:X}")
    await dpf.session(device, session_id="F")
    assert (find(dpf, made).detail.partition(":")[0], state(dpf, after)) == ("unknown outcome", ("done", 200))


async def test_a_session_that_was_overtaken_settles_nothing(dpf: Dpf, device: StubDevice):
    """Two sessions of a device, two workers: the outcome is written by the one that holds the attempt."""
    made = queue(dpf, get("./Test/a"))
    waiting = dpf.store.read_sync(lambda c: next_request(c, dpf.key, M2ME_ID, dpf.clock()))
    assert waiting is not None
    sent = dpf.store.write_sync(lambda c: mark_sent(c, waiting))
    with pytest.raises(RequestConflict):
        dpf.store.write_sync(lambda c: mark_sent(c, waiting))
    await dpf.session(device)
    assert state(dpf, made) == ("done", 200)
    with pytest.raises(RequestConflict):
        dpf.store.write_sync(lambda c: settle_request(c, dpf.key, settle(sent, [])))
    assert state(dpf, made) == ("done", 200)


# --- results that come later ------------------------------------------------------------------------------------------


class AsyncDevice(StubDevice):
    """Says 202 to an Exec."""

    def _exec(self, path: str) -> int:
        return 202


@pytest.mark.parametrize("correlator", ["job-17", None], ids=["with Correlator", "by its node"])
@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
async def test_an_exec_answered_with_202_is_done_when_its_alert_comes(dpf: Dpf, correlator: str | None, restart: bool):
    """XS-020, XI-11: 202, then Alert 1226 in a later session; Windows knows no Correlator and names the node."""
    device = AsyncDevice()
    entry = {"command": "exec", "uri": "./Job/x/Update"} | ({"correlator": correlator} if correlator else {})
    made, after = queue(dpf, entry), queue(dpf, get("./M2MMobj/M2MEId"))
    await dpf.session(device, session_id="1")
    assert (state(dpf, made), state(dpf, after)) == (("waiting", None), ("done", 200))
    executed = next(each for each in device.seen if isinstance(each, Exec))
    assert executed.correlator == correlator
    if restart:
        dpf.restart()
    await dpf.session(device, async_alert(correlator="other", source="./Other"), session_id="2")
    assert find(dpf, made).state is RequestState.WAITING
    await dpf.session(device, async_alert(correlator=correlator, data="201"), session_id="3")
    assert find(dpf, made).state is RequestState.DONE
    assert show_request(find(dpf, made))["commands"][0]["alertItems"][0]["value"] == "201"


@pytest.mark.parametrize("early", [True, False])
async def test_an_alert_before_the_status_of_its_exec_counts(dpf: Dpf, early: bool):
    """Interop: Alert 1226 before the Status of its Exec."""
    made = queue(dpf, {"command": "exec", "uri": "./Job/x", "correlator": "job"})
    policy = OperatorQueue(M2ME_ID, store=dpf.store, seal_key=dpf.key, encoding=Encoding.XML, now=dpf.clock)
    decision = await policy.begin(())
    assert isinstance(decision, Continue)
    alert = alert_values(async_alert(correlator="job").items)
    if early:
        dpf.store.write_sync(lambda c: take_alert(c, dpf.key, M2ME_ID, "job", alert))
    assert find(dpf, made).state is RequestState.SENT
    assert await policy.answered([CommandAnswered(command=decision.commands[0], code=202)], ()) == Finish()
    assert find(dpf, made).state is (RequestState.DONE if early else RequestState.WAITING)
    assert find(dpf, made).commands[0].alert == (alert if early else ())


# --- the operator -----------------------------------------------------------------------------------------------------


async def test_cancelled_and_expired_requests_are_not_sent(dpf: Dpf, device: StubDevice):
    cancelled, expired = queue(dpf, get("./Test/a")), queue(dpf, get("./Test/a"), expiresIn=60)
    assert dpf.store.write_sync(lambda c: take_back(c, M2ME_ID, cancelled)) is RequestState.CANCELLED
    dpf.clock.advance(61)
    dpf.store.write_sync(lambda c: change_device(c, M2ME_ID, managed=True))
    await dpf.session(device)
    assert device.seen == []
    await dpf.conductor.tidy()
    assert (state(dpf, cancelled)[0], state(dpf, expired)[0]) == ("cancelled", "expired")
    with pytest.raises(CommandRejected, match="the request is expired"):
        dpf.store.write_sync(lambda c: take_back(c, M2ME_ID, expired))


async def test_a_request_on_its_way_for_ever_ends_with_its_time(dpf: Dpf, device: StubDevice):
    made = queue(dpf, get("./Test/a"), expiresIn=60)
    await crash_before_the_answer(dpf, device, "1")
    dpf.clock.advance(61 + 3600)
    await dpf.conductor.tidy()
    assert find(dpf, made).detail.startswith("unknown outcome")


def test_the_queue_of_a_device_is_bounded(dpf: Dpf, monkeypatch: pytest.MonkeyPatch):
    assert MAX_WAITING >= 100
    monkeypatch.setattr("dmserver.store.operator_commands.MAX_WAITING", 2)
    for _ in range(2):
        queue(dpf, get("./Test/a"))
    with pytest.raises(CommandRejected) as caught:
        queue(dpf, get("./Test/a"))
    assert caught.value.code == "queue-full"


async def test_values_are_sealed_at_rest_and_binary_survives(dpf: Dpf, device: StubDevice, tmp_path: Path):
    octets = bytes(range(256))
    device.put("Test/blob", octets)
    device.put("Acc/AAuthSecret", "x")
    made = queue(dpf, get("./Test/blob"), replace("./Acc/AAuthSecret", SECRET), get("./Acc/AAuthSecret"))
    await dpf.session(device)
    found = find(dpf, made)
    assert found.state is RequestState.DONE
    assert found.commands[0].outcome is not None
    assert found.commands[0].outcome.results[0].value == octets
    assert device.nodes["Acc/AAuthSecret"].value == SECRET
    dpf.store.write_sync(lambda _: None)  # the trail is posted: this waits for it
    stored = everything_in(tmp_path)
    assert SECRET.encode() not in stored
    assert octets not in stored
    assert SECRET not in json.dumps([record.to_json() for record in dpf.records])
    assert SECRET not in json.dumps(show_request(found))


async def test_what_a_device_says_of_itself_is_kept(dpf: Dpf, device: StubDevice):
    await dpf.session(device)
    row = dpf.store.read_sync(lambda c: find_device(c, M2ME_ID))
    assert row is not None
    assert (row.seen_at, row.dev_info["./DevInfo/DevId"]) == (dpf.clock(), M2ME_ID)


async def test_dev_info_of_a_challenged_package_1_is_remembered(dpf: Dpf, device: StubDevice):
    """Interop: DevInfo not resent after 401."""
    client = dpf.client(device, client_nonce=b"stale")
    body = client.start()
    _, answer = await dpf.post(client, body)
    for event in client.receive(decode(answer, Encoding.XML), dpf.clock()):
        assert not isinstance(event, CommandReceived)
    again = client.reply()
    assert again is not None
    assert b"DevInfo/DmV" in again
    await dpf.post(client, re.sub(b"<Replace>.*</Replace>", b"", again))
    row = dpf.store.read_sync(lambda c: find_device(c, M2ME_ID))
    assert row is not None
    assert row.dev_info["./DevInfo/DmV"] == "1.2"


# --- the trail --------------------------------------------------------------------------------------------------------

TNDS = "<MgmtTree><Node><NodeName>AAuthSecret</NodeName><Value>a-secret-nobody-may-read</Value></Node></MgmtTree>"
RECORDED = {
    "a password a user typed": Status(msg_ref="1", cmd_ref="2", cmd="Alert", code=200, items=(Item(data=SECRET),)),
    "an account of DM 1.1": Replace(items=(Item(target="./SyncML/DMAcc/x/ClientPW", data=SECRET),)),
    "a property of a secret": Results(items=(Item(source="./DMAcc/x/AAuthSecret?prop=Title", data=SECRET),)),
    "a short sub-tree with a secret": Add(
        items=(Item(target="./DMAcc/x", meta=Meta(type="application/vnd.syncml.dmtnds+xml"), data=TNDS),)
    ),
}


@pytest.mark.parametrize("command", RECORDED.values(), ids=RECORDED)
def test_secrets_of_operator_commands_stay_out_of_the_trail(command: Command):
    header = SyncHdr(session_id="1", msg_id="1", target="d", source="s")
    numbered = dataclasses.replace(command, cmd_id="1")
    shown = redacted_body(Message(header=header, commands=(numbered,), final=True))
    assert "<Cmd" in shown
    assert SECRET not in shown


# --- turns ------------------------------------------------------------------------------------------------------------


class Scripted:
    """A policy that says what it is told."""

    def __init__(self, name: str, *decisions: Decision) -> None:
        self.place = Place(name)
        self._decisions = list(decisions)
        self.heard: list[str] = []

    async def begin(self, alerts: object) -> Decision:
        self.heard.append("begin")
        return self._decisions.pop(0)

    async def answered(self, answered: object, alerts: object) -> Decision:
        self.heard.append("answered")
        return self._decisions.pop(0)


ASK = Continue((Get(items=(Item(target="./A"),)),))
TURNS = {
    "one after the other": ([[ASK, Finish()], [ASK, Finish()]], [ASK, ASK, Finish()], ["1", "2", "2"]),
    "the first wants nothing": ([[Finish()], [ASK, Finish()]], [ASK, Finish()], ["2", "2"]),
    "a package without commands is an end": ([[Continue(())], [ASK, Finish()]], [ASK, Finish()], ["2", "2"]),
    "nobody wants anything": ([[Finish()], [Finish()]], [Finish()], ["1"]),
    "the second wants nothing": ([[ASK, Finish()], [Finish()]], [ASK, Finish()], ["1", "1"]),
    "an abort ends them all": ([[ASK, Abort("x")], [ASK]], [ASK, Abort("x")], ["1", "1"]),
}


@pytest.mark.parametrize(("scripts", "decisions", "places"), TURNS.values(), ids=TURNS)
async def test_policies_take_turns(scripts: list[list[Decision]], decisions: list[Decision], places: list[str]):
    policies = [Scripted(str(number), *script) for number, script in enumerate(scripts, 1)]
    turn = InTurn(policies)
    made, seen = [await turn.begin(())], [turn.place.step]
    while len(made) < len(decisions):
        made.append(await turn.answered((), ()))
        seen.append(turn.place.step)
    assert (made, seen) == (decisions, places)
    assert all(policy.heard[:1] in ([], ["begin"]) for policy in policies)
