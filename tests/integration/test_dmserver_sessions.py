"""The DPF's endpoint with a device, octets in and out: whole provisionings, restarts, refusals."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError
from structlog.testing import capture_logs

from actor_runtime.trail_store import records_of
from dmserver import unreadable
from dmserver.asks import AskChallenge, AskPackage, AskTicket, PartnerDown, PartnerSaidNo, TellSho, TicketGiven
from dmserver.endpoint import Request
from dmserver.orders import OrderState
from dmserver.sessions import MAX_RECORDED_FAILURES
from dmserver.store import tables
from dmserver.store.orders import find_package, former_requests
from mcim.vocabulary import Operation, RegistrationState, ResultCode, ValidationMode
from syncml.codec import Encoding, decode
from syncml.model import Exec, Status
from syncml.session import CommandReceived, StatusReceived
from tests.support_dmserver import DM_URL, Dpf
from tests.support_dpf_pki import DPF_ID, M2ME_ID, NOW, SHO_ID, pki, rules
from tests.support_fake_partners import package_for, ticket_for
from tests.support_stub_device import StubDevice, alert, attach_alert, registration_alert


@pytest.fixture
def dpf(tmp_path: Path) -> Iterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


async def test_req13_to_req69_three_sessions_close_an_order(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(order_id).state is OrderState.DELIVERED, dpf.order(order_id).detail
    done = device.provision()
    assert done is not None
    await dpf.session(device, done, session_id="2")
    assert dpf.order(order_id).state is OrderState.REPORTED
    await dpf.session(device, attach_alert(device), session_id="3")
    assert dpf.order(order_id).state is OrderState.CLOSED
    assert dpf.partners.kinds() == ["AskChallenge", "AskTicket", "AskPackage", "TellSho"]
    assert dpf.checks(passed=False) == []


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


async def provision_whole(dpf: Dpf, device: StubDevice, first_session: int = 1) -> None:
    """Sessions as a device makes them, until nothing more happens."""
    await dpf.session(device, registration_alert(device), session_id=f"{first_session:X}")
    done = device.provision()
    await dpf.session(device, *([done] if done else []), session_id=f"{first_session + 1:X}")
    done = device.provision()
    await dpf.session(device, *([done] if done else []), session_id=f"{first_session + 2:X}")
    await dpf.session(device, attach_alert(device), session_id=f"{first_session + 3:X}")


@pytest.mark.parametrize("silent_after", range(1, 24))
@pytest.mark.parametrize("sessions_before", [0, 1], ids=["in the first session", "in the second session"])
async def test_req16_crash_after_any_message_ends_in_one_delivery(dpf: Dpf, silent_after: int, sessions_before: int):
    """The device falls silent and the DPF dies after the n-th message; later sessions finish the same order."""
    order_id, device = dpf.open_order(), StubDevice()
    alerts = [registration_alert(device)]
    if sessions_before:
        await dpf.session(device, *alerts, session_id="A")
        done = device.provision()
        assert done is not None
        alerts = [done]
    messages = 0

    def silent(_: StubDevice) -> bool:
        nonlocal messages
        messages += 1
        return messages == silent_after

    await dpf.run(device, dpf.client(device, *alerts, session_id="B", max_msg_size=3000), stop=silent)
    dpf.restart()
    await provision_whole(dpf, device, 0x10)
    assert dpf.order(order_id).state is OrderState.CLOSED, dpf.order(order_id).detail
    assert len(device.containers()) == 1
    installs = [each for each in dpf.partners.asked if isinstance(each, TellSho)]
    assert {each.result for each in installs} == {1200}


async def test_req16_a_package_half_received_is_dropped_and_pushed_again(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    device.refuse["/Package"] = 424
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(order_id).state is OrderState.REFUSED
    assert dpf.order(order_id).detail == "delivery failed 4 times"
    assert device.containers() == []


async def test_req32_package_arrives_unchanged_through_small_messages(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    device.install = None
    dpf.partners.answers[AskPackage] = lambda ask: package_for(ask, filling=20_000)
    await dpf.session(device, registration_alert(device), max_msg_size=2048)
    order = dpf.order(order_id)
    assert order.state is OrderState.DELIVERED
    package = device.nodes[f"M2MSIMMobj/{order.container}/Package"].value
    assert isinstance(package, bytes)
    assert hashlib.sha256(package).hexdigest() == order.package_hash


@pytest.mark.parametrize("code", [405, 413, 416, 420])
async def test_a_device_that_cannot_take_the_package_ends_the_order(dpf: Dpf, code: int):
    order_id, device = dpf.open_order(), StubDevice()
    device.refuse["/Package"] = code
    await dpf.session(device, registration_alert(device))
    order = dpf.order(order_id)
    assert (order.state, order.detail) == (
        OrderState.REFUSED,
        f"the device does not take the package: Status {code}",
    )


async def test_req02_objects_are_found_wherever_they_are(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice(m2m="Vendor/Facts", sim="Vendor/Deep/Carrier")
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.DELIVERED, dpf.order(order_id).detail


async def test_req12_missing_node_ends_the_session_and_leaves_the_order_open(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    del device.nodes["M2MMobj/TRE/AttestCert"]
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(order_id).state is OrderState.CONTACTED
    assert "TRE/AttestCert" in dpf.order(order_id).detail
    device.put("M2MMobj/TRE/AttestCert", pki().attest_cert())
    await dpf.session(device, registration_alert(device), session_id="2")
    assert dpf.order(order_id).state is OrderState.DELIVERED


async def test_req15_a_new_request_closes_the_first(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskPackage] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, registration_alert(device), session_id="1")
    first = dpf.order(order_id).req_id
    assert dpf.order(order_id).state is OrderState.HANDED_OVER
    device.new_request()
    del dpf.partners.answers[AskPackage]
    await dpf.session(device, registration_alert(device), session_id="2")
    order = dpf.order(order_id)
    assert order.state is OrderState.DELIVERED
    assert order.req_id == device.value("Registration/ReqId") != first
    assert dpf.store.read_sync(lambda c: former_requests(c, order_id)) == {first}
    # and the closed one does not come back
    device.put("M2MMobj/Registration/ReqId", str(first))
    device.nodes = {k: v for k, v in device.nodes.items() if not k.startswith("M2MSIMMobj/")}
    await dpf.session(device, registration_alert(device), session_id="3")
    assert "request-not-closed-earlier" in dpf.order(order_id).detail


async def test_req17_pva_down_means_wait_and_the_order_goes_on_when_it_is_back(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    for ask in (AskChallenge, AskTicket):
        dpf.partners.answers[ask] = lambda _: PartnerDown(reason="no route")
        await dpf.session(device, registration_alert(device), session_id=ask.__name__[:4])
        assert dpf.order(order_id).state in (OrderState.TREE_READ, OrderState.CHALLENGED)
        assert device.containers() == []
        del dpf.partners.answers[ask]
    await dpf.session(device, registration_alert(device), session_id="9")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert "pva-available" in dpf.checks(passed=False)


@pytest.mark.parametrize("ask", [AskChallenge, AskTicket, AskPackage], ids=lambda ask: ask.__name__)
async def test_req23_a_no_of_a_partner_ends_the_order_and_leaves_the_device_alone(dpf: Dpf, ask: type):
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[ask] = lambda _: PartnerSaidNo(code="platform-not-trusted")
    await dpf.session(device, registration_alert(device))
    order = dpf.order(order_id)
    assert order.state is OrderState.REFUSED
    assert order.detail.endswith("platform-not-trusted")
    assert device.containers() == []
    told = dpf.partners.asked[-1]
    assert isinstance(told, TellSho)
    assert (told.receipt, told.result) == (None, 1400)


TICKETS = {
    "another platform key": {"platform_key_id": b"\x00" * 16},
    "another attestation key": {"attest_key_id": b"\x00" * 16},
    "another TRE": {"tre_id": "urn:m2m:tre:other"},
    "another M2ME": {"m2me_id": "urn:imei:other"},
    "another request": {"req_id": "3f0c2a52-5d0c-4d43-8c0b-000000000001"},
    "another nonce": {"nonce": b"\x00" * 32},
    "not for us": {"audience": ("other.example", SHO_ID)},
    "not for the home operator": {"audience": (DPF_ID, "other.example")},
    "another mode": {"mode": ValidationMode.AUTONOMOUS},
    "expired": {"issued_at": NOW - timedelta(hours=2), "expires_at": NOW - timedelta(hours=1, minutes=30)},
}


@pytest.mark.parametrize("changes", TICKETS.values(), ids=TICKETS)
async def test_req19_a_ticket_that_is_not_exactly_right_is_refused(dpf: Dpf, changes: dict[str, object]):
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskTicket] = lambda ask: TicketGiven(ticket=ticket_for(ask, NOW, **changes))
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.REFUSED
    assert dpf.checks(passed=False) == ["pva-ticket"]
    assert "AskPackage" not in dpf.partners.kinds()


async def test_req19_a_ticket_signed_by_another_authority_is_refused(tmp_path: Path):
    dpf = Dpf(tmp_path, rules=rules(pvas=pki().manufacturers))
    dpf.add_device()
    order_id = dpf.open_order()
    device = StubDevice()
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).detail == "pva: the ticket is not acceptable"
    dpf.close()


async def test_req22_an_expired_ticket_means_validation_again(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskPackage] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, registration_alert(device), session_id="1")
    del dpf.partners.answers[AskPackage]
    dpf.clock.advance(3600)
    await dpf.session(device, registration_alert(device), session_id="2")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert dpf.partners.kinds().count("AskTicket") == 2
    keys = [ask.key for ask in dpf.partners.asked if isinstance(ask, AskChallenge)]
    assert len(set(keys)) == 2  # a challenge is used once; the second is another question
    assert len({ask.key for ask in dpf.partners.asked if isinstance(ask, AskPackage)}) == 1  # the same hand-over


PACKAGES = {
    "for another TRE": {"tre_id": "urn:m2m:tre:other"},
    "for another M2ME": {"m2me_id": "urn:imei:other"},
    "of another operator": {"sho_id": "other.example"},
    "for another DPF": {"dpf_id": "other.example"},
    "for another key": {"platform_key_id": b"\x00" * 16},
    "with another nonce": {"registration_nonce": b"\x00" * 32},
    "with an old sequence": {"sequence": 0},
    "that updates": {"operation": Operation.UPDATE},
    "that is over": {"not_after": NOW - timedelta(seconds=1)},
}


@pytest.mark.parametrize("changes", PACKAGES.values(), ids=PACKAGES)
async def test_req24_a_package_the_tre_would_refuse_is_not_delivered(dpf: Dpf, changes: dict[str, object]):
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskPackage] = lambda ask: package_for(ask, **changes)
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).detail == "sho: package-header"
    assert device.containers() == []


@pytest.mark.parametrize(
    ("given", "check"),
    [
        ({"package_hash": "00" * 32}, "package-hash"),
        ({"package_hash": "é" * 64}, "package-hash"),
        ({"container": "cms"}, "package-container"),
        ({"container": "raw"}, "package-container"),
        ({"operation": "update"}, "package-header"),
        ({"package": b"", "package_hash": hashlib.sha256(b"").hexdigest()}, "package-size"),
        ({"package": b"<a/>", "package_hash": hashlib.sha256(b"<a/>").hexdigest()}, "package-header"),
    ],
    ids=["hash", "hash no ASCII", "form not listed", "no form", "other operation", "empty", "not a package"],
)
async def test_req32_what_the_home_operator_sends_must_be_a_package(dpf: Dpf, given: dict[str, object], check: str):
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskPackage] = lambda ask: dataclasses.replace(package_for(ask), **given)
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).detail == f"sho: {check}"


@pytest.mark.parametrize("mode", list(ValidationMode))
async def test_validation_modes(tmp_path: Path, mode: ValidationMode):
    dpf = Dpf(tmp_path, rules=rules(mode))
    dpf.add_device()
    order_id, device = dpf.open_order(), StubDevice(log=b"log" if mode is ValidationMode.REMOTE else b"")
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.DELIVERED
    asked = next(ask for ask in dpf.partners.asked if isinstance(ask, AskTicket))
    assert bool(asked.evidence) is bool(asked.challenge) is (mode is not ValidationMode.AUTONOMOUS)
    assert (asked.log, asked.tre_type, asked.tre_version) == (device.log, "software", "1.0")
    dpf.close()


async def test_evidence_that_takes_time_is_fetched_when_the_device_announces_it(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    device.generate_code = 202
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(order_id).state is OrderState.CHALLENGED
    device.put("M2MMobj/Attestation/Evidence", b"late evidence")
    ready = alert("AttestationReady", "200", "./M2MMobj/Attestation")
    await dpf.session(device, ready, session_id="2")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert dpf.partners.kinds().count("AskChallenge") == 1


@pytest.mark.parametrize("state", [RegistrationState.IDLE, RegistrationState.FAILED, RegistrationState.EXPIRED])
async def test_a_registration_that_is_over_is_renewed_first(dpf: Dpf, state: RegistrationState):
    order_id, device = dpf.open_order(), StubDevice()
    device.put("M2MMobj/Registration/State", str(int(state)), "int")
    device.put("M2MMobj/Registration/Nonce", b"")
    await dpf.session(device)
    assert (dpf.order(order_id).state, device.renewals) == (OrderState.DELIVERED, 1)


REFUSING = {
    "registration in use": ("Registration/State", "2", "registration-open (state 2)"),
    "provisioned already": ("Registration/State", "3", "registration-open (state 3)"),
    "TRE tampered with": ("TRE/State", "tampered", "tre-state-ok (tampered)"),
    "another home operator selected": ("Registration/SHO", "other.example", "selected-sho-is-that-of-the-order"),
    "tree of another device": ("M2MEId", "urn:imei:other", "m2me-id-is-authenticated-identity"),
}


@pytest.mark.parametrize(("path", "value", "reason"), REFUSING.values(), ids=REFUSING)
async def test_req13_req14_a_device_that_does_not_fit_the_order_is_refused(
    dpf: Dpf, path: str, value: str, reason: str
):
    order_id, device = dpf.open_order(), StubDevice()
    device.nodes[f"M2MMobj/{path}"].value = value
    await dpf.session(device, registration_alert(device))
    order = dpf.order(order_id)
    assert (order.state, order.detail) == (OrderState.REFUSED, reason)
    (told,) = dpf.partners.asked  # neither PVA nor a hand-over, but its home operator learns of it (REQ-23)
    assert isinstance(told, TellSho)
    assert (told.receipt, told.result, told.req_id) == (None, 1400, device.value("Registration/ReqId"))


async def test_req67_failure_receipt_is_reported_and_ends_the_order(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    device.install = ResultCode.CRYPTO_FAILURE
    await dpf.session(device, registration_alert(device), session_id="1")
    failed = device.provision()
    assert failed is not None
    await dpf.session(device, failed, session_id="2")
    order = dpf.order(order_id)
    assert (order.state, order.detail) == (OrderState.REFUSED, "device: result 1414")
    told = dpf.partners.asked[-1]
    assert isinstance(told, TellSho)
    assert (told.result, bool(told.receipt)) == (1414, True)


RECEIPTS = {
    "another package": {"package_hash": b"\x00" * 32},
    "another MCIM": {"mcim_id": uuid.UUID(int=1)},
    "another operator": {"sho_id": "other.example"},
    "another nonce": {"nonce": b"\x00" * 32},
    "another sequence": {"sequence": 99},
    "another TRE": {"tre_id": "urn:m2m:tre:other"},
    "another result": {"result": ResultCode.ALREADY_DONE},
    "another operation": {"operation": Operation.UPDATE},
}


@pytest.mark.parametrize("changes", RECEIPTS.values(), ids=RECEIPTS)
async def test_req67_a_receipt_about_something_else_is_not_reported(dpf: Dpf, changes: dict[str, object]):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    done = device.provision(**changes)
    assert done is not None
    await dpf.session(device, done, session_id="2")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert "receipt-binding" in dpf.checks(passed=False)
    assert "TellSho" not in dpf.partners.kinds()


async def test_req67_a_forged_receipt_is_not_reported(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    done = device.provision()
    assert done is not None
    leaf = device.nodes[f"M2MSIMMobj/{device.containers()[0]}/Receipt"]
    assert isinstance(leaf.value, bytes)
    leaf.value = leaf.value[:-1] + bytes((leaf.value[-1] ^ 1,))
    await dpf.session(device, done, session_id="2")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert "receipt-signature" in dpf.checks(passed=False)
    assert "TellSho" not in dpf.partners.kinds()


async def test_step15_a_report_is_repeated_until_acknowledged(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[TellSho] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, registration_alert(device), session_id="1")
    done = device.provision()
    assert done is not None
    await dpf.session(device, done, session_id="2")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    await dpf.conductor.tidy()
    assert dpf.order(order_id).state is OrderState.DELIVERED
    del dpf.partners.answers[TellSho]
    dpf.restart()
    await dpf.conductor.tidy()
    assert dpf.order(order_id).state is OrderState.REPORTED
    assert len({ask.key for ask in dpf.partners.asked if isinstance(ask, TellSho)}) == 1


async def test_a_transient_failure_is_tried_again_with_the_same_package(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    device.install = ResultCode.STORAGE_FAILURE
    await dpf.session(device, registration_alert(device), session_id="1")
    failed = device.provision()
    assert failed is not None
    device.install = ResultCode.SUCCESS
    await dpf.session(device, failed, session_id="2")
    order = dpf.order(order_id)
    assert (order.state, order.pushes) == (OrderState.DELIVERED, 2)
    assert dpf.partners.kinds().count("AskPackage") == 1


async def test_a_device_that_does_not_react_is_nudged(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    await dpf.session(device, session_id="2")
    assert dpf.order(order_id).state is OrderState.REPORTED
    assert any(isinstance(each, Exec) for each in device.seen)


async def test_an_attach_that_failed_does_not_close_the_order(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    await dpf.session(device, session_id="2")
    await dpf.session(device, attach_alert(device, 1414), session_id="3")
    assert dpf.order(order_id).state is OrderState.REPORTED
    await dpf.session(device, attach_alert(device), session_id="4")
    assert dpf.order(order_id).state is OrderState.CLOSED


# --- who may speak ---------------------------------------------------------------------------------------------------


async def test_req13_no_order_means_403_and_nothing_is_sent(dpf: Dpf):
    device = StubDevice()
    events = await dpf.session(device, registration_alert(device), attach_alert(device))
    codes = [event.code for event in events if isinstance(event, StatusReceived)]
    assert 403 in codes
    assert device.seen == []
    assert "ongoing-order" in dpf.checks(passed=False)


async def test_req13_an_expired_order_is_none(dpf: Dpf):
    order_id, device = dpf.open_order(lifetime_s=60), StubDevice()
    dpf.clock.advance(61)
    await dpf.session(device, registration_alert(device))
    assert device.seen == []
    await dpf.conductor.tidy()
    assert dpf.order(order_id).state is OrderState.EXPIRED


@pytest.mark.parametrize("known", [True, False], ids=["known device", "unknown device"])
async def test_wrong_credentials_look_the_same_for_known_and_unknown_devices(dpf: Dpf, known: bool):
    dpf.open_order()
    device_id = M2ME_ID if known else "urn:imei:000000000000000"
    device, statuses = StubDevice(), []
    client = dpf.client(device, device_id=device_id, client_secret="wrong")
    body: bytes | None = client.start()
    while body is not None:
        status, answer = await dpf.post(client, body)
        assert status == 200
        message = decode(answer, Encoding.XML)
        first = message.commands[0]
        assert isinstance(first, Status)
        statuses.append((first.code, first.chal is not None, message.header.cred is not None, len(message.commands)))
        client.receive(message, NOW)
        body = client.reply()
    assert statuses == [(401, True, False, 3), (401, False, False, 3)]
    assert device.seen == []


async def test_a_device_with_a_stale_nonce_gets_in_at_the_second_try(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), client_nonce=b"stale", session_id="1")
    assert dpf.order(order_id).state is OrderState.DELIVERED


async def test_nonces_of_both_directions_are_used_once(dpf: Dpf):
    dpf.open_order()
    device, before = StubDevice(), dpf.account()
    await dpf.session(device, registration_alert(device))
    after = dpf.account()
    assert before.client_nonce != after.client_nonce
    assert before.server_nonce != after.server_nonce
    assert after.client_nonce.decode("ascii").isalnum()


async def test_a_repeated_message_gets_the_same_octets_and_moves_nothing(dpf: Dpf):
    dpf.open_order()
    client = dpf.client(StubDevice())
    body = client.start()
    first, version = await dpf.post(client, body), len(dpf.records)
    second = await dpf.post(client, body)
    assert first == second
    assert len(dpf.records) == version


async def test_a_message_of_somebody_else_in_an_authenticated_session_is_refused(dpf: Dpf):
    """SessionIDs can be guessed; what our RespURI carried cannot."""
    dpf.open_order()
    device = StubDevice()
    client = dpf.client(device)
    _, answer = await dpf.post(client, client.start())
    for event in client.receive(decode(answer, Encoding.XML), NOW):
        if isinstance(event, CommandReceived):
            client.answer(event.command, device.execute(event.command))
    body = client.reply()
    assert body is not None
    guess = Request(body=body, content_type="application/vnd.syncml.dm+xml", server_uri=DM_URL, token="guess")
    stranger = await dpf.endpoint.handle(guess)
    header = decode(stranger.body, Encoding.XML).commands[0]
    assert isinstance(header, Status)
    assert header.code == 408
    assert decode((await dpf.post(client, body))[1], Encoding.XML).commands[0].code == 200


async def test_req15_the_newer_of_two_sessions_wins(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    old = dpf.client(device, session_id="1")
    _, answer = await dpf.post(old, old.start())
    for event in old.receive(decode(answer, Encoding.XML), NOW):
        if isinstance(event, CommandReceived):
            old.answer(event.command, device.execute(event.command))
    await dpf.session(device, registration_alert(device), session_id="2")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    body = old.reply()
    assert body is not None
    header = decode((await dpf.post(old, body))[1], Encoding.XML).commands[0]
    assert isinstance(header, Status)
    assert header.code == 408


async def test_req15_two_sessions_at_once_one_wins(dpf: Dpf):
    """Both wait for the PVA at the same time; the order is moved by one of them alone."""
    order_id = dpf.open_order()
    devices = [StubDevice(), StubDevice()]
    for device in devices[1:]:
        device.nodes = {**devices[0].nodes}
    sessions = [dpf.client(device, session_id=str(number)) for number, device in enumerate(devices)]
    await asyncio.gather(*(dpf.run(device, each) for device, each in zip(devices, sessions, strict=True)))
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert sum(len(device.containers()) for device in devices) == 1


async def test_a_dead_session_gives_way_to_a_new_package_1_with_its_name(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.run(device, dpf.client(device, session_id="7"), stop=lambda _: True)
    dpf.clock.advance(11)
    await dpf.session(device, registration_alert(device), session_id="7")
    assert dpf.order(order_id).state is OrderState.DELIVERED


async def test_a_live_session_does_not_give_way_to_a_stranger_with_its_name(dpf: Dpf):
    """XS-036: a package 1 with the SessionID of a live session begins another one and takes nothing from it."""
    order_id, device = dpf.open_order(), StubDevice()
    client = dpf.client(device, session_id="7")
    _, answer = await dpf.post(client, client.start())
    for _ in range(10):
        forged = dpf.client(device, session_id="7", client_secret="wrong")
        _, challenge = await dpf.post(forged, forged.start())
        header = decode(challenge, Encoding.XML).commands[0]
        assert isinstance(header, Status)
        assert header.code == 401
    for event in client.receive(decode(answer, Encoding.XML), NOW):
        if isinstance(event, CommandReceived):
            client.answer(event.command, device.execute(event.command))
    body = client.reply()
    assert body is not None
    assert decode((await dpf.post(client, body))[1], Encoding.XML).commands[0].code == 200
    assert dpf.order(order_id).state is OrderState.CONTACTED


async def test_the_device_itself_may_begin_anew_with_the_same_session_id(dpf: Dpf):
    """Interop: SessionID always "1", MsgID 1 again: the newcomer takes over as soon as he has authenticated."""
    order_id, device = dpf.open_order(), StubDevice()
    old = dpf.client(device, session_id="1")
    _, answer = await dpf.post(old, old.start())
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    for event in old.receive(decode(answer, Encoding.XML), NOW):
        if isinstance(event, CommandReceived):
            old.answer(event.command, device.execute(event.command))
    body = old.reply()
    assert body is not None
    assert decode((await dpf.post(old, body))[1], Encoding.XML).commands[0].code == 408


async def test_sessions_are_bounded(tmp_path: Path):
    dpf = Dpf(tmp_path, max_sessions=3)
    dpf.add_device()
    dpf.open_order()
    owner = dpf.client(StubDevice(), session_id="1")
    await dpf.post(owner, owner.start())
    for number in range(20):
        stranger = dpf.client(StubDevice(), device_id=f"urn:imei:{number:015}", session_id="1")
        status, _ = await dpf.post(stranger, stranger.start())
        assert status == 200
    assert len(dpf.registry) == 3
    assert dpf.registry.find(M2ME_ID, "1") is not None
    dpf.close()


async def test_strangers_do_not_fill_the_audit_trail(dpf: Dpf):
    stranger = dpf.client(StubDevice(), device_id="urn:imei:000000000000000")
    await dpf.post(stranger, stranger.start())
    assert dpf.records == []


async def test_neither_does_somebody_who_knows_the_name_of_a_device(dpf: Dpf):
    for number in range(30):
        client = dpf.client(StubDevice(), session_id=f"{number:X}", client_secret="wrong")
        await dpf.post(client, client.start())
    assert dpf.checks(passed=False).count("dm-credentials") == MAX_RECORDED_FAILURES
    dpf.clock.advance(3601)
    client = dpf.client(StubDevice(), session_id="FF", client_secret="wrong")
    await dpf.post(client, client.start())
    assert dpf.checks(passed=False).count("dm-credentials") == MAX_RECORDED_FAILURES + 1


@pytest.mark.parametrize("known", [True, False], ids=["a device", "strangers"])
async def test_refused_credentials_are_in_the_log_and_do_not_fill_it(dpf: Dpf, known: bool):
    """REQ-14, T12: who, what kind, which attempt, and no secret; all strangers together are one."""
    for number in range(30):
        device_id = M2ME_ID if known else f"urn:imei:{number:015}"
        client = dpf.client(StubDevice(), device_id=device_id, session_id=f"{number:X}", client_secret="wrong-secret")
        with capture_logs() as logs:
            answer = (await dpf.post(client, client.start()))[1]
            client.receive(decode(answer, Encoding.XML), NOW)
            if (again := client.reply()) is not None:
                await dpf.post(client, again)
        lines = [each for each in logs if each["event"] == "dm.credentials_refused"]
        if number >= MAX_RECORDED_FAILURES:
            assert lines == []
        elif number == 0:
            assert [(each["device"], each["known"], each["attempt"]) for each in lines] == [
                (device_id, known, attempt) for attempt in (1, 2)
            ]
            assert {each["sent"] for each in lines} == {each["expected"] for each in lines} == {"syncml:auth-md5"}
        assert "wrong-secret" not in json.dumps(logs)


MALFORMED = {
    "no XML": (b"<SyncML><Cred><Data>hidden</Data>", "application/vnd.syncml.dm+xml", 400, "MalformedXml: line 1"),
    "no WBXML": (b"\x02\xa4\x01\x6ahidden", "application/vnd.syncml.dm+wbxml", 400, "MalformedWbxml: "),
    "another type": (b"hidden", "text/html", 415, "no media type of DM"),
    "too long": (b"hidden " * 40_000, "application/vnd.syncml.dm+xml", 413, "MessageTooLarge: "),
}


@pytest.mark.parametrize("octets", [False, True], ids=["by default", "trace_octets"])
@pytest.mark.parametrize(("body", "kind", "status", "why"), MALFORMED.values(), ids=MALFORMED)
async def test_a_body_that_is_no_message_is_traced(tmp_path, monkeypatch, body, kind, status, why, octets):
    """REQ-28, T12: size, type and what is wrong; its octets only where a setting says so, and never in the database."""
    monkeypatch.setattr(unreadable, "MAX_TRACED", 5)
    dpf = Dpf(tmp_path, trace_file=tmp_path / "trace.jsonl", trace_octets=octets)
    for _ in range(8):
        answer = await dpf.endpoint.handle(Request(body=body, content_type=kind, server_uri=DM_URL))
    assert answer.status == status
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert (lines[0]["octets"], lines[0]["contentType"]) == (len(body), kind)
    assert lines[0]["summary"].startswith(why)
    told = lines[0].get("received", "")
    assert ("hidden" in told or "68 69 64 64 65 6e" in told) is octets
    assert len(told) < 16_000
    assert dpf.records == []
    dpf.clock.advance(3601)
    await dpf.endpoint.handle(Request(body=body, content_type=kind, server_uri=DM_URL))
    assert len((tmp_path / "trace.jsonl").read_text().splitlines()) == 6
    dpf.close()


async def test_a_message_that_is_read_and_would_not_be_written_is_traced(dpf: Dpf):
    """A test lab needs just that one: a command without CmdID, for instance; credentials are blanked in it."""
    client = dpf.client(StubDevice())
    body = client.start().replace(b"<CmdID>1</CmdID>", b"", 1)
    await dpf.post(client, body)
    (shown,) = [each.fields["body"] for each in dpf.records if each.fields.get("direction") == "M2ME→DPF"]
    assert str(shown).startswith("[not to be written as XML: ")
    assert '"code":1201' in str(shown)
    assert '"data":"[redacted]"' in str(shown)


@pytest.mark.parametrize("authenticated", [True, False])
async def test_a_message_that_the_engine_refuses_is_traced(dpf: Dpf, authenticated: bool):
    """T12: the trail has it with the reason; of a sender who has not proved himself, no more than of his failures."""
    dpf.open_order()
    client = dpf.client(StubDevice(), **({} if authenticated else {"client_secret": "wrong"}))
    first = client.start()
    header = decode((await dpf.post(client, first))[1], Encoding.XML).header
    before = len(dpf.records)
    small = re.sub(rb"(<MaxMsgSize[^>]*>)\d+", rb"\g<1>100", first)  # no answer fits; after it the session is over
    for number in range(2, 32):
        await dpf.endpoint.handle(
            Request(
                body=small.replace(b"<MsgID>1<", b"<MsgID>%d<" % number),
                content_type="application/vnd.syncml.dm+xml",
                server_uri=DM_URL,
                token=(header.resp_uri or "").partition("=")[2],
            )
        )
    told = [each.fields for each in dpf.records[before:]]
    assert [each["kind"] for each in (json.loads(record.to_json()) for record in dpf.records[before:])][:2] == [
        "message", "note"
    ]  # fmt: skip
    assert str(told[1]["text"]).startswith("refused with 413: PeerLimitTooSmall: MaxMsgSize 100")
    assert str(told[3]["text"]).startswith("refused with 405: CommandOutOfPhase")
    assert len(told) == 2 * (30 if authenticated else MAX_RECORDED_FAILURES - 1)


# --- records ---------------------------------------------------------------------------------------------------------


async def test_req71_every_check_of_an_order_is_on_record_and_stays(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await provision_whole(dpf, device)
    records = dpf.store.read_sync(lambda c: records_of(c, tables.trail, order_id))
    states = [record["new"] for record in records if record["kind"] == "state"]
    assert states == [state.value for state in OrderState][1:11]
    requirements = {req for record in records if record["kind"] == "check" for req in record["req"]}
    assert {
        f"REQ-{n:02}" for n in (2, 6, 12, 13, 14, 15, 17, 18, 19, 20, 24, 25, 32, 43, 45, 46, 67, 69)
    } <= requirements
    assert {record["direction"] for record in records if record["kind"] == "message"} >= {"M2ME→DPF", "DPF→M2ME"}
    with pytest.raises(DatabaseError):
        dpf.store.write_sync(lambda c: c.execute(tables.trail.delete()))


async def test_req28_no_secret_in_database_or_trail(dpf: Dpf, tmp_path: Path):
    order_id, device = dpf.open_order(), StubDevice()
    account = dpf.account()
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.DELIVERED
    nonce = device.value("Registration/Nonce")
    assert isinstance(nonce, bytes)
    dpf.store.write_sync(lambda _: None)  # the trail is posted: this waits for it
    stored = everything_in(tmp_path)
    shown = json.dumps([record.to_json() for record in dpf.records]).encode()
    for secret in (account.client_secret, account.server_secret, "supplier-secret"):
        assert secret.encode() not in stored
        assert secret.encode() not in shown
    pcid = b"001019876543210"
    for secret in (pcid, base64.b64encode(nonce), account.client_nonce, base64.b64encode(account.client_nonce)):
        assert secret not in shown
    assert pcid not in stored


async def test_an_ended_order_keeps_no_package(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.store.read_sync(lambda c: find_package(c, order_id)) is not None
    await dpf.session(device, session_id="2")
    await dpf.session(device, attach_alert(device), session_id="3")
    assert dpf.order(order_id).state is OrderState.CLOSED
    assert dpf.store.read_sync(lambda c: find_package(c, order_id)) is None
