"""The provisioning policy as tables: answers and outcomes in, commands and order states out. No I/O, no session."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta

import pytest

from dmserver import commands
from dmserver.answers import Answers, NodeValue, node_key
from dmserver.asks import PartnerDown, PartnerSaidNo, ReportAcknowledged, TellSho
from dmserver.delivery import MAX_PUSHES
from dmserver.orders import ONGOING, Order, OrderState
from dmserver.policy import DeviceAlert, Step
from dmserver.provisioning import Provisioning
from dmserver.settlement import settle_report
from mcim.vocabulary import ContainerState
from mo_definitions import M2M_OBJECT, M2MSIM_OBJECT, AlertType
from syncml.codes import Format
from syncml.model import Add, Delete, Exec, Get, Sequence
from syncml.policy import Continue, Finish
from tests.support_dpf_pki import M2ME_ID, NOW, SHO_ID, TRE_ID, pki, rules

CONTAINER = "./M2MSIMMobj/00112233"
ORDER = Order(
    order_id="3f0c2a52-5d0c-4d43-8c0b-000000000001",
    device_id=M2ME_ID,
    sho_id=SHO_ID,
    created_at=NOW,
    updated_at=NOW,
    expires_at=NOW + timedelta(days=1),
    req_id="3f0c2a52-5d0c-4d43-8c0b-000000000002",
    nonce=b"n" * 32,
    tre_id=TRE_ID,
    attest_cert=pki().attest_cert(),
    mcim_id="00112233-4455-6677-8899-aabbccddeeff",
    sequence=1,
    package_hash="00" * 32,
    pushes=1,
)


def order_in(state: OrderState, **changes: object) -> Order:
    return dataclasses.replace(ORDER, state=state, **changes)


def policy_in(state: OrderState, **changes: object) -> Provisioning:
    return Provisioning(rules(), order_in(state, **changes), package=b"package", former_requests=frozenset())


def listing(*names: str) -> NodeValue:
    return NodeValue(value="/".join(names), format="node")


def discover(policy: Provisioning):
    """Through the two rounds of discovery; the move after it."""
    policy.begin((), NOW)
    policy.answered(Answers(nodes={".": listing("DevInfo", "M2MMobj", "M2MSIMMobj")}), (), NOW)
    types = {"./DevInfo": "urn:x", "./M2MMobj": M2M_OBJECT, "./M2MSIMMobj": M2MSIM_OBJECT}
    nodes = {node_key(f"{uri}?prop=Type"): NodeValue(value=value) for uri, value in types.items()}
    return policy.answered(Answers(nodes=nodes), (), NOW)


def targets(then: object) -> list[str]:
    assert isinstance(then, Continue)
    return [item.target for command in then.commands for item in getattr(command, "items", ())]


@pytest.mark.parametrize("state", sorted(ONGOING - {OrderState.REPORTED}))
def test_req02_every_session_begins_with_discovery(state):
    move = policy_in(state).begin((), NOW)
    assert targets(move.then) == ["."]
    assert move.order.state is (OrderState.CONTACTED if state is OrderState.OPEN else state)


AFTER_DISCOVERY = {
    OrderState.OPEN: "./M2MMobj",
    OrderState.CONTACTED: "./M2MMobj",
    OrderState.TREE_READ: "./M2MMobj",
    OrderState.CHALLENGED: "./M2MMobj",
    OrderState.VALIDATED: "./M2MMobj",
    OrderState.HANDED_OVER: "./M2MMobj",
    OrderState.PACKAGE_READY: "./M2MMobj",
    OrderState.DELIVERING: f"{CONTAINER}/State",
    OrderState.DELIVERED: f"{CONTAINER}/State",
}


@pytest.mark.parametrize(("state", "first"), AFTER_DISCOVERY.items())
def test_req16_what_may_be_at_the_device_is_asked_for_before_anything_else(state, first):
    move = discover(policy_in(state))
    assert targets(move.then)[0] == first
    assert not any(isinstance(command, Add | Exec | Sequence) for command in move.then.commands)


def outcome_answers(state: int | None, result: int = 0, receipt: bytes | None = None, code: int = 200) -> Answers:
    nodes = {}
    if state is not None:
        nodes[node_key(f"{CONTAINER}/State")] = NodeValue(value=str(state), format="int")
        nodes[node_key(f"{CONTAINER}/Result")] = NodeValue(value=str(result), format="int")
    if receipt is not None:
        nodes[node_key(f"{CONTAINER}/Receipt")] = NodeValue(value=receipt, format="bin")
    return Answers(codes={node_key(f"{CONTAINER}/State"): code}, nodes=nodes)


S = ContainerState
OUTCOMES = {
    "gone": (outcome_answers(None, code=404), OrderState.PACKAGE_READY, Get),
    "empty": (outcome_answers(S.EMPTY), OrderState.DELIVERING, Delete),
    "receiving": (outcome_answers(S.RECEIVING), OrderState.DELIVERING, Delete),
    "received": (outcome_answers(S.RECEIVED), OrderState.DELIVERED, Exec),
    "provisioning": (outcome_answers(S.PROVISIONING), OrderState.DELIVERED, None),
    "provisioned, no receipt": (outcome_answers(S.PROVISIONED, 1200), OrderState.DELIVERED, None),
    "activated, bad receipt": (outcome_answers(S.ACTIVATED, 1200, b"?"), OrderState.DELIVERED, None),
    "failed for good, no receipt": (outcome_answers(S.FAILED, 1414), OrderState.DELIVERED, None),
    "failed in storage": (outcome_answers(S.FAILED, 1501), OrderState.DELIVERING, Delete),
    "busy": (outcome_answers(S.FAILED, 1424), OrderState.DELIVERING, Delete),
    "a state nobody defined": (outcome_answers(77), OrderState.DELIVERING, None),
    "no state": (outcome_answers(None), OrderState.DELIVERING, None),
}


@pytest.mark.parametrize(("answers", "state", "command"), OUTCOMES.values(), ids=OUTCOMES)
def test_req16_what_follows_from_the_state_of_the_container(answers, state, command):
    policy = policy_in(OrderState.DELIVERING)
    discover(policy)
    move = policy.answered(answers, (), NOW)
    assert move.order.state is state
    if command is None:
        assert isinstance(move.then, Finish)
        assert move.order.detail
    else:
        assert isinstance(move.then, Continue)
        assert isinstance(move.then.commands[0], command)


def test_a_package_is_not_pushed_for_ever():
    policy = policy_in(OrderState.DELIVERING, pushes=MAX_PUSHES)
    discover(policy)
    move = policy.answered(outcome_answers(S.FAILED, 1501), (), NOW)
    assert isinstance(move.then, Finish)  # without a receipt, there is nothing to report either


def test_a_container_that_does_not_go_ends_the_session():
    policy = policy_in(OrderState.DELIVERING)
    discover(policy)
    policy.answered(outcome_answers(S.RECEIVING), (), NOW)
    move = policy.answered(Answers(codes={node_key(CONTAINER): 405}), (), NOW)
    assert (move.order.state, type(move.then)) == (OrderState.DELIVERING, Finish)


ATTACHES = {
    "attached": (("1200",), OrderState.CLOSED),
    "failed, which the device is asked about": (("1414",), OrderState.REPORTED),
    "failed, then attached": (("1414", "1200"), OrderState.CLOSED),
    "nothing said": ((), OrderState.REPORTED),
    "nonsense": (("hello",), OrderState.REPORTED),
    "no number of ours": (("\u0661\u0662",), OrderState.REPORTED),
}


@pytest.mark.parametrize(("said", "state"), ATTACHES.values(), ids=ATTACHES)
def test_req69_only_an_attach_closes_an_order(said, state):
    alerts = tuple(DeviceAlert(type=AlertType.NETWORK_ATTACH, source=None, data=each) for each in said)
    move = policy_in(OrderState.REPORTED).begin(alerts, NOW)
    assert move.order.state is state
    assert type(move.then) is (Continue if said == ("1414",) else Finish)


def test_req69_an_attach_with_another_mcim_closes_nothing():
    """REQ-69, flows F6: while the old MCIM is in use, its attach proves nothing of the new one."""
    other = DeviceAlert(type=AlertType.NETWORK_ATTACH, source="./M2MSIMMobj/ffeeddcc", data="1200")
    ours = DeviceAlert(type=AlertType.NETWORK_ATTACH, source="M2MSIMMobj/00112233", data="1200")
    assert policy_in(OrderState.REPORTED).begin((other,), NOW).order.state is OrderState.REPORTED
    assert policy_in(OrderState.REPORTED).begin((ours,), NOW).order.state is OrderState.CLOSED


REPORTS = {
    "success acknowledged": (1200, ReportAcknowledged(subscription="armed"), OrderState.REPORTED, ""),
    "repeat acknowledged": (1201, ReportAcknowledged(subscription="armed"), OrderState.REPORTED, ""),
    "failure acknowledged": (1414, ReportAcknowledged(subscription="free"), OrderState.REFUSED, "device: result 1414"),
    "success refused": (1200, PartnerSaidNo(code="receipt-refused"), OrderState.REFUSED, "sho: receipt-refused"),
    "failure refused": (1409, PartnerSaidNo(code="x"), OrderState.REFUSED, "device: result 1409; sho: x"),
    "no answer": (
        1200,
        PartnerDown(reason="asleep"),
        OrderState.DELIVERED,
        "the home operator gives no answer to the report; it is repeated",
    ),
}


@pytest.mark.parametrize(("result", "outcome", "state", "detail"), REPORTS.values(), ids=REPORTS)
def test_req67_what_follows_from_a_report(result, outcome, state, detail):
    after, entries = settle_report(order_in(OrderState.DELIVERED, receipt=b"r", result=result), outcome, NOW)
    assert (after.state, after.detail) == (state, detail)
    assert entries


def test_step15_an_unacknowledged_report_comes_first_in_the_next_session():
    move = policy_in(OrderState.DELIVERED, receipt=b"r", result=1200).begin((), NOW)
    assert isinstance(move.then, TellSho)
    assert (move.then.receipt, move.then.result) == (b"r", 1200)


def test_req15_a_registration_renewed_while_evidence_is_made_ends_the_session():
    policy = policy_in(OrderState.CHALLENGED)
    discover(policy)
    policy._step = Step.EVIDENCE
    renewed = DeviceAlert(type=AlertType.NONCE_RENEWED, source=None, data="x")
    move = policy.answered(Answers(), (renewed,), NOW)
    assert (move.order.state, type(move.then)) == (OrderState.CHALLENGED, Finish)


# --- commands --------------------------------------------------------------------------------------------------------


def test_req63_the_package_is_the_last_thing_pushed_and_alone_in_its_command():
    given = commands.Delivered(mcim_id="m", sho_id="s", req_id="r", nonce=b"n", package=b"p" * 5000)
    pushed = commands.push_package(CONTAINER, given)
    last = pushed[-1]
    assert isinstance(last, Add)
    assert [item.target for item in last.items] == [f"{CONTAINER}/Package"]
    assert last.items[0].data == b"p" * 5000
    assert [item.target for command in pushed for item in command.items][:2] == [
        CONTAINER,
        f"{CONTAINER}/MCIMId",
    ]  # Adds
    assert all(isinstance(command, Add) for command in pushed)


def test_req18_challenge_and_generate_are_in_sequence_and_the_evidence_follows():
    challenge = os.urandom(32)
    sent = commands.make_evidence("./M", challenge)
    assert isinstance(sent[0], Sequence)
    replace, generate = sent[0].commands
    assert replace.items[0].data == challenge  # a Replace
    assert generate.items[0].target == "./M/Attestation/Generate"  # an Exec
    assert isinstance(sent[1], Get)


def test_req50_a_home_operator_is_named_together_with_the_renewal_that_takes_it_in():
    (sequence,) = commands.renew_registration("./M", "sho.example")
    assert isinstance(sequence, Sequence)
    select, renew = sequence.commands
    assert select.items[0].meta.format == Format.CHR  # a Replace with Meta
    assert renew.items[0].target == "./M/Registration/Renew"  # an Exec
    assert commands.renew_registration("./M", None) == (renew,)
