"""Two phases for real: the home operator takes its time, the device is called back, what aged is renewed (REQ-26)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import ec

from actor_runtime.http import PartnerClient
from dmserver.app import partner_application
from dmserver.asks import (
    Ask,
    AskChallenge,
    AskJob,
    AskPackage,
    AskTicket,
    Outcome,
    PackageGiven,
    PackageLater,
    PartnerDown,
    PartnerSaidNo,
    TellSho,
    TicketGiven,
)
from dmserver.config import Limits
from dmserver.orders import Order, OrderState
from dmserver.partners import HttpPartners
from dmserver.push import UdpDestination
from dmserver.store.accounts import change_device
from dmserver.store.orders import find_package
from mcim.vocabulary import Operation, ValidationMode
from tests.support_dmserver import PUSH, Dpf
from tests.support_dpf_pki import M2ME_ID, NOW, SHO_ID, pki, rules
from tests.support_fake_partners import package_for, ticket_for
from tests.support_stub_device import StubDevice, attach_alert, registration_alert

Http = TestClient[web.Request, web.Application]
OTHER_SHO = "sho2.example"


@pytest.fixture
async def dpf(tmp_path: Path) -> AsyncIterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device(push=PUSH)
    made.partners.answers[AskPackage] = lambda _: PackageLater(job="job-1", retry_after_s=3600)
    yield made
    made.close()


@pytest.fixture
async def http(dpf: Dpf, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Http]:
    monkeypatch.setattr("dmserver.app.peer_identity", lambda request: request.headers.get("X-Test-Peer"))
    app = partner_application(
        store=dpf.store,
        trail=dpf.trail,
        conductor=dpf.conductor,
        shos={SHO_ID: "https://sho.example", OTHER_SHO: "https://sho2.example"},
        limits=Limits(),
    )
    async with TestClient(TestServer(app)) as client:
        yield client


def asked(dpf: Dpf) -> AskPackage:
    return [ask for ask in dpf.partners.asked if isinstance(ask, AskPackage)][-1]


def body_of(order_id: str, ask: AskPackage, given: PackageGiven) -> dict[str, Any]:
    return {
        "orderId": order_id,
        "reqId": ask.req_id,
        "package": base64.b64encode(given.package).decode(),
        "mcimId": given.mcim_id,
        "sequence": given.sequence,
        "packageHash": given.package_hash,
        "container": given.container,
        "operation": given.operation,
    }


async def deliver(http: Http, body: dict[str, Any], peer: str = SHO_ID) -> tuple[int, dict[str, Any]]:
    answer = await http.post("/v1/packages", json=body, headers={"X-Test-Peer": peer})
    return answer.status, await answer.json()


async def handed_over(dpf: Dpf, device: StubDevice) -> str:
    order_id = dpf.open_order()
    await dpf.session(device, registration_alert(device), session_id="1")
    order = dpf.order(order_id)
    assert (order.state, order.job) == (OrderState.HANDED_OVER, "job-1")
    return order_id


async def finish(dpf: Dpf, device: StubDevice, order_id: str, session: int = 0xA0) -> None:
    """The sessions that end the order."""
    await dpf.session(device, session_id=f"{session:X}")
    done = device.provision()
    await dpf.session(device, *([done] if done else []), session_id=f"{session + 1:X}")
    await dpf.session(device, attach_alert(device), session_id=f"{session + 2:X}")
    assert dpf.order(order_id).state is OrderState.CLOSED, dpf.order(order_id).detail
    assert len(device.containers()) == 1


async def test_req26_a_late_package_calls_the_device_back(dpf: Dpf, http: Http):
    """REQ-25, REQ-26: 202, the session ends; the package comes; package 0; the push, and no second issue."""
    device = StubDevice()
    order_id = await handed_over(dpf, device)
    assert device.containers() == []
    body = body_of(order_id, asked(dpf), package_for(asked(dpf)))
    assert await deliver(http, body) == (200, {"accepted": True})
    assert dpf.order(order_id).state is OrderState.PACKAGE_READY
    await dpf.conductor.tidy()
    ((push, destination),) = dpf.pushed
    assert destination == UdpDestination(host="127.0.0.1", port=2948)
    assert push.application_id is not None
    await finish(dpf, device, order_id)
    assert dpf.order(order_id).package_hash == body["packageHash"]
    assert dpf.partners.kinds().count("AskPackage") == 1
    assert "AskJob" not in dpf.partners.kinds()


async def test_req26_a_repeated_delivery_gets_the_same_answer_at_every_later_time(dpf: Dpf, http: Http):
    """REQ-26: idempotent: before the push, after it, and when the order is closed."""
    device = StubDevice()
    order_id = await handed_over(dpf, device)
    body = body_of(order_id, asked(dpf), package_for(asked(dpf)))
    for _ in range(3):
        assert await deliver(http, body) == (200, {"accepted": True})
    version = dpf.order(order_id).version
    assert await deliver(http, body) == (200, {"accepted": True})
    assert dpf.order(order_id).version == version
    other = body_of(order_id, asked(dpf), package_for(asked(dpf)))
    assert (await deliver(http, other))[1]["code"] == "order-not-waiting"
    await finish(dpf, device, order_id)
    assert await deliver(http, body) == (200, {"accepted": True})
    assert (await deliver(http, other))[0] == 409


WRONG: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "for another TRE": ({"tre_id": "urn:m2m:tre:other"}, {}, "package-header"),
    "for another M2ME": ({"m2me_id": "urn:imei:other"}, {}, "package-header"),
    "of another operator": ({"sho_id": OTHER_SHO}, {}, "package-header"),
    "for another DPF": ({"dpf_id": "other.example"}, {}, "package-header"),
    "for another key": ({"platform_key_id": b"\x00" * 16}, {}, "package-header"),
    "with another nonce": ({"registration_nonce": b"\x00" * 32}, {}, "package-header"),
    "with an old sequence": ({"sequence": 0}, {}, "package-header"),
    "that is over": ({"not_after": NOW - timedelta(seconds=1)}, {}, "package-header"),
    "for another operation": ({"operation": Operation.REPLACE}, {"operation": "replace"}, "package-header"),
    "too large": ({"filling": 60_000}, {}, "package-size"),
    "with another hash": ({}, {"packageHash": "00" * 32}, "package-hash"),
    "in a form the TRE does not list": ({}, {"container": "cms"}, "package-container"),
}


@pytest.mark.parametrize(("header", "members", "failed"), WRONG.values(), ids=WRONG)
async def test_req24_a_late_package_is_checked_like_any_other(
    dpf: Dpf, http: Http, header: dict[str, Any], members: dict[str, object], failed: str
):
    """REQ-24, REQ-25: from what was kept of the device; one that the TRE would refuse ends the order."""
    device = StubDevice()
    device.put("M2MMobj/TRE/MaxPackage", "40000", "int")
    order_id = await handed_over(dpf, device)
    body = body_of(order_id, asked(dpf), package_for(asked(dpf), **header)) | members
    status, problem = await deliver(http, body)
    assert (status, problem["code"], problem["detail"]) == (400, "package-refused", failed)
    order = dpf.order(order_id)
    assert (order.state, order.detail, order.report_owed) == (OrderState.REFUSED, f"sho: {failed}", True)
    assert dpf.store.read_sync(lambda c: find_package(c, order_id)) is None
    await dpf.conductor.tidy()
    assert (dpf.pushed, dpf.order(order_id).report_owed) == ([], False)


async def test_t5_a_package_is_taken_from_its_own_operator_alone(dpf: Dpf, http: Http):
    """T5, REQ-26: another operator, known or not, learns not even that there is such an order."""
    device = StubDevice()
    order_id = await handed_over(dpf, device)
    body = body_of(order_id, asked(dpf), package_for(asked(dpf)))
    for peer in (OTHER_SHO, "evil.example", ""):
        status, problem = await deliver(http, body, peer)
        assert (status, problem["code"]) == (404, "order-unknown")
    assert (await deliver(http, body | {"orderId": "none"}))[1]["code"] == "order-unknown"
    assert dpf.order(order_id).state is OrderState.HANDED_OVER


async def test_a_package_for_an_order_that_does_not_wait(dpf: Dpf, http: Http):
    """REQ-26: 409 order-not-waiting for an order that is open, over, or served under a newer registration."""
    device = StubDevice()
    order_id = await handed_over(dpf, device)
    body = body_of(order_id, asked(dpf), package_for(asked(dpf)))
    device.new_request()
    await dpf.session(device, registration_alert(device), session_id="2")
    assert (await deliver(http, body))[1]["code"] == "order-not-waiting"
    assert dpf.order(order_id).state is OrderState.HANDED_OVER
    now = body_of(order_id, asked(dpf), package_for(asked(dpf)))
    dpf.clock.advance(86400)
    assert (await deliver(http, now))[1]["code"] == "order-not-waiting"
    await dpf.conductor.tidy()
    assert dpf.order(order_id).state is OrderState.EXPIRED
    assert (await deliver(http, now))[1]["code"] == "order-not-waiting"


MALFORMED: dict[str, object] = {
    "no object": [],
    "no package": {"orderId": "o", "reqId": "r"},
    "package no Base64": {"package": "!"},
    "token reference of 65 characters": {"tokenRef": "x" * 65},
    "token reference with a blank": {"tokenRef": "a b"},
    "sequence no number": {"sequence": "many"},
}


@pytest.mark.parametrize("members", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_deliveries_are_told_so(dpf: Dpf, http: Http, members: object):
    """REQ-26: bad input is answered with 400 and changes nothing."""
    device = StubDevice()
    order_id = await handed_over(dpf, device)
    good = body_of(order_id, asked(dpf), package_for(asked(dpf)))
    whole = isinstance(members, dict) and "orderId" not in members
    status, problem = await deliver(http, good | members if whole else members)  # what does not fit is the point
    assert (status, problem["code"]) == (400, "malformed-request")
    assert dpf.order(order_id).state is OrderState.HANDED_OVER


# --- jobs ------------------------------------------------------------------------------------------------------------


async def test_req26_a_job_is_asked_for_when_its_delivery_does_not_come(dpf: Dpf):
    """REQ-26: not before its time, again after "waiting" and after no answer, and the package is then taken."""
    device = StubDevice()
    order_id = await handed_over(dpf, device)
    ask = asked(dpf)
    await dpf.conductor.tidy()
    assert "AskJob" not in dpf.partners.kinds()
    dpf.clock.advance(3601)
    await dpf.conductor.tidy()
    dpf.partners.answers[AskJob] = lambda _: PartnerDown(reason="asleep")
    dpf.clock.advance(31)
    await dpf.conductor.tidy()
    assert dpf.partners.kinds().count("AskJob") == 2
    dpf.partners.answers[AskJob] = lambda _: package_for(ask, dpf.clock())
    dpf.clock.advance(61)
    dpf.restart()
    await dpf.conductor.tidy()
    order = dpf.order(order_id)
    assert (order.state, order.job, order.calls) == (OrderState.PACKAGE_READY, None, 1)
    assert len(dpf.pushed) == 1
    await finish(dpf, device, order_id)


async def test_req26_a_refused_job_ends_the_order_and_is_reported(dpf: Dpf):
    """REQ-23, REQ-26: the home operator decided against it after all."""
    device = StubDevice()
    order_id = await handed_over(dpf, device)
    dpf.partners.answers[AskJob] = lambda _: PartnerSaidNo(code="no-subscription")
    dpf.clock.advance(3601)
    await dpf.conductor.tidy()
    order = dpf.order(order_id)
    assert (order.state, order.detail, order.report_owed) == (OrderState.REFUSED, "sho: no-subscription", False)
    assert isinstance(dpf.partners.asked[-1], TellSho)
    assert device.containers() == []


async def test_req26_a_device_that_comes_while_the_operator_works_changes_nothing(dpf: Dpf):
    """REQ-26: the same question under the same key, the same job; when it is done meanwhile, the package at once."""
    device = StubDevice()
    order_id = await handed_over(dpf, device)
    await dpf.session(device, registration_alert(device), session_id="2")
    assert dpf.order(order_id).job == "job-1"
    del dpf.partners.answers[AskPackage]
    await finish(dpf, device, order_id)
    assert len({ask.key for ask in dpf.partners.asked if isinstance(ask, AskPackage)}) == 1


JOBS: dict[str, tuple[int, object, Outcome | type]] = {
    "waiting": (200, {"state": "waiting"}, PackageLater(job="j", retry_after_s=30)),
    "refused": (200, {"state": "refused", "code": "no"}, PartnerSaidNo(code="no")),
    "done": (
        200,
        {"state": "done", "package": "UEs=", "mcimId": "m", "sequence": 7, "packageHash": "00"},
        PackageGiven(package=b"PK", mcim_id="m", sequence=7, package_hash="00"),
    ),
    "done without a package": (200, {"state": "done"}, PartnerDown),
    "no state": (200, {}, PartnerDown),
    "unknown": (404, {"code": "job-unknown"}, PartnerSaidNo(code="job-unknown")),
    "busy": (429, {"code": "busy"}, PartnerDown),
}


@pytest.mark.parametrize(("status", "body", "outcome"), JOBS.values(), ids=JOBS)
async def test_what_is_said_of_a_job(dpf: Dpf, status: int, body: object, outcome: Outcome | type):
    """REQ-26: answers of GET /v1/jobs/{job}."""

    async def answer(request: web.Request) -> web.Response:
        assert request.match_info["job"] == "j"
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/v1/jobs/{job}", answer)
    async with TestServer(app) as partner:
        client = PartnerClient(str(partner.make_url("")), None)
        partners = HttpPartners(pva=client, shos={SHO_ID: client}, trail=dpf.trail)
        got = await partners.ask(AskJob(sho_id=SHO_ID, order_id="o", job="j"))
        await partners.close()
    assert isinstance(got, outcome) if isinstance(outcome, type) else got == outcome


# --- call-back -------------------------------------------------------------------------------------------------------


async def ready(dpf: Dpf, http: Http, device: StubDevice) -> str:
    order_id = await handed_over(dpf, device)
    status, _ = await deliver(http, body_of(order_id, asked(dpf), package_for(asked(dpf))))
    assert status == 200
    return order_id


async def test_req25_a_device_is_called_again_with_growing_pauses_until_it_comes(dpf: Dpf, http: Http):
    """REQ-25: 1, 2, 4 … minutes; counted, kept over a restart, and over when the device is here."""
    device = StubDevice()
    order_id = await ready(dpf, http, device)
    for calls, pause in enumerate((60, 120, 240, 480), 1):
        await dpf.conductor.tidy()
        await dpf.conductor.tidy()
        order = dpf.order(order_id)
        assert (order.calls, len(dpf.pushed)) == (calls, calls)
        assert order.call_at == dpf.clock.now + timedelta(seconds=pause)
        dpf.clock.advance(pause)
        dpf.restart()
    await dpf.session(device, session_id="2")
    assert (dpf.order(order_id).calls, dpf.order(order_id).call_at) == (0, None)
    dpf.clock.advance(86400)
    await dpf.conductor.tidy()
    assert len(dpf.pushed) == 4
    ids = {push.body for push, _ in dpf.pushed}
    assert len(ids) == 4  # each call asks for a session of its own


async def test_req25_an_order_that_expires_is_called_for_no_more(dpf: Dpf, http: Http):
    """REQ-25: until the order expires."""
    order_id = await ready(dpf, http, StubDevice())
    await dpf.conductor.tidy()
    dpf.clock.advance(86400)
    await dpf.conductor.tidy()
    assert (dpf.order(order_id).state, len(dpf.pushed)) == (OrderState.EXPIRED, 1)


async def test_t12_notifications_of_a_device_are_bounded(tmp_path: Path):
    """T12: so many package 0 an hour for one device, however many orders it has."""
    dpf = Dpf(tmp_path, notifications_per_hour=2)
    dpf.add_device(push=PUSH)
    mcim_id = "00112233-4455-6677-8899-aabbccddeeff"
    order_id = dpf.open_order(operation="suspend", mcim_id=mcim_id)
    for _ in range(20):
        await dpf.conductor.tidy()
        dpf.clock.advance(120)
    assert len(dpf.pushed) == 2
    dpf.clock.advance(3600)
    await dpf.conductor.tidy()
    assert len(dpf.pushed) == 3
    assert dpf.order(order_id).calls == 3
    dpf.close()


async def test_a_push_that_cannot_be_sent_is_tried_again(dpf: Dpf, http: Http):
    """REQ-25: no route is no answer; it counts as a call and the next one comes."""
    order_id = await ready(dpf, http, StubDevice())
    dpf.push_fails = True
    await dpf.conductor.tidy()
    assert (dpf.pushed, dpf.order(order_id).calls) == ([], 1)
    dpf.push_fails = False
    dpf.clock.advance(60)
    await dpf.conductor.tidy()
    assert len(dpf.pushed) == 1


async def test_a_device_without_a_push_address_is_called_when_it_has_one(tmp_path: Path):
    """REQ-25: until then it polls; what waits for it waits."""
    dpf = Dpf(tmp_path)
    dpf.add_device()
    dpf.open_order(operation="replace")
    await dpf.conductor.tidy()
    assert dpf.pushed == []
    dpf.store.write_sync(lambda c: change_device(c, M2ME_ID, push=PUSH))
    await dpf.conductor.tidy()
    assert len(dpf.pushed) == 1
    dpf.close()


async def test_a_device_without_an_account_is_not_called(tmp_path: Path):
    """REQ-11: package 0 is proved with the secret of an account; before there is one, the bootstrap is the call."""
    dpf = Dpf(tmp_path)
    dpf.add_device(with_account=False, push=PUSH)
    order_id = dpf.open_order(operation="replace")
    await dpf.conductor.tidy()
    assert dpf.pushed == []
    assert dpf.order(order_id).call_at == dpf.clock.now + timedelta(minutes=1)
    dpf.close()


async def test_a_first_installation_calls_nobody_and_an_order_for_a_device_in_use_does(dpf: Dpf):
    """REQ-25, flows F5: a device that is provisioned learns from package 0 that there is something to do."""
    first = dpf.open_order()
    await dpf.conductor.tidy()
    assert (dpf.pushed, dpf.order(first).call_at) == ([], None)


async def test_a_device_that_came_in_vain_is_called_when_the_pva_may_be_back(dpf: Dpf):
    """REQ-17, REQ-25: the order waits, and nobody waits for ever."""
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskChallenge] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, registration_alert(device), session_id="1")
    await dpf.conductor.tidy()
    assert dpf.pushed == []
    dpf.clock.advance(60)
    await dpf.conductor.tidy()
    assert (len(dpf.pushed), dpf.order(order_id).state) == (1, OrderState.TREE_READ)


# --- freshness -------------------------------------------------------------------------------------------------------


async def test_t17_an_aged_ticket_is_renewed_without_another_hand_over(dpf: Dpf, http: Http):
    """T17, REQ-22: nonce unchanged, ticket over: a new challenge, a new ticket, the kept package, no second issue."""
    device = StubDevice()
    order_id = await ready(dpf, http, device)
    before = dpf.order(order_id)
    dpf.clock.advance(3600)
    await finish(dpf, device, order_id)
    after = dpf.order(order_id)
    assert (after.package_hash, after.sequence) == (before.package_hash, before.sequence)
    assert after.ticket != before.ticket
    kinds = dpf.partners.kinds()
    assert (kinds.count("AskChallenge"), kinds.count("AskTicket"), kinds.count("AskPackage")) == (2, 2, 1)
    challenges = {ask.key for ask in dpf.partners.asked if isinstance(ask, AskChallenge)}
    assert len(challenges) == 2


@pytest.mark.parametrize(("margin", "validations"), [(30, 1), (600, 2)], ids=["outside", "inside"])
async def test_t17_a_ticket_that_ends_within_the_margin_counts_as_aged(tmp_path: Path, margin: int, validations: int):
    """T17: `limits.ticket_margin_s`; the ticket ends five minutes after the device comes."""
    dpf = Dpf(tmp_path, rules=rules(ticket_margin=timedelta(seconds=margin)))
    dpf.add_device()
    dpf.partners.answers[AskPackage] = lambda _: PartnerDown(reason="asleep")
    dpf.open_order()
    device = StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    del dpf.partners.answers[AskPackage]
    dpf.clock.advance(25 * 60)
    await dpf.session(device, session_id="2")
    assert dpf.partners.kinds().count("AskTicket") == validations
    dpf.close()


async def test_t17_a_ticket_that_ages_while_the_package_is_made_is_renewed_before_the_push(dpf: Dpf):
    """T17: within one session, and once: a platform is never pushed to on the word of yesterday."""
    order_id, device = dpf.open_order(), StubDevice()

    def slow(ask: Ask) -> Outcome:
        assert isinstance(ask, AskPackage)
        dpf.clock.now += timedelta(seconds=1795)  # time of the day; the session itself is not idle for so long
        return package_for(ask, dpf.clock())

    dpf.partners.answers[AskPackage] = slow
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    kinds = dpf.partners.kinds()
    assert kinds == ["AskChallenge", "AskTicket", "AskPackage", "AskChallenge", "AskTicket"]


async def test_t17_a_platform_that_is_not_trusted_any_more_gets_nothing_of_a_kept_package(dpf: Dpf, http: Http):
    """T17, REQ-22, REQ-23: good at the first check, bad at the second: nothing is pushed."""
    device = StubDevice()
    order_id = await ready(dpf, http, device)
    dpf.clock.advance(3600)
    dpf.partners.answers[AskTicket] = lambda _: PartnerSaidNo(code="platform-not-trusted")
    await dpf.session(device, session_id="2")
    assert dpf.order(order_id).detail == "pva: platform-not-trusted"
    assert device.containers() == []
    assert dpf.store.read_sync(lambda c: find_package(c, order_id)) is None


async def test_t4_a_kept_ticket_is_about_one_platform_key(dpf: Dpf, http: Http):
    """T4, T17: request and nonce as before and another platform key: the ticket of before says nothing about it."""
    device = StubDevice()
    await ready(dpf, http, device)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    device.put("M2MMobj/TRE/PlatformCert", pki().platform_cert(key=other))
    await dpf.session(device, session_id="2")
    assert dpf.partners.kinds().count("AskTicket") == 2


async def test_req25_a_renewed_nonce_asks_for_another_signature(dpf: Dpf, http: Http):
    """REQ-25, flows F7, nonce changed: validated again, handed over again, under another key."""
    device = StubDevice()
    order_id = await ready(dpf, http, device)
    first = dpf.order(order_id).package_hash
    device.new_request()
    del dpf.partners.answers[AskPackage]
    await finish(dpf, device, order_id)
    assert dpf.order(order_id).package_hash != first
    asks = [ask for ask in dpf.partners.asked if isinstance(ask, AskPackage)]
    assert len({ask.key for ask in asks}) == len({ask.nonce for ask in asks}) == 2


async def test_a_kept_package_that_was_changed_in_the_database_is_not_pushed(dpf: Dpf, http: Http):
    """REQ-32: what is pushed is what was checked, octet for octet."""
    device = StubDevice()
    order_id = await ready(dpf, http, device)
    other = package_for(asked(dpf)).package
    dpf.store.write_sync(
        lambda c: c.exec_driver_sql("UPDATE packages SET package = ? WHERE order_id = ?", (other, order_id))
    )
    await dpf.session(device, session_id="2")
    assert dpf.order(order_id).detail == "sho: package-hash"
    assert device.containers() == []


@pytest.mark.parametrize(
    ("silent_after", "aged"),
    [*((number, False) for number in range(1, 16)), *((number, True) for number in range(2, 24, 2))],
    ids=lambda each: str(each) if not isinstance(each, bool) else ("ticket aged" if each else "ticket in time"),
)
async def test_req16_a_crash_at_any_point_of_phase_two_issues_nothing_twice(
    dpf: Dpf, http: Http, silent_after: int, aged: bool
):
    """REQ-16, REQ-26: killed after any message of the second phase, the store opened anew: one package, one order."""
    device, messages = StubDevice(), 0
    order_id = await ready(dpf, http, device)
    before = dpf.order(order_id)
    if aged:
        dpf.clock.advance(3600)

    def silent(_: StubDevice) -> bool:
        nonlocal messages
        messages += 1
        return messages == silent_after

    await dpf.run(device, dpf.client(device, session_id="2", max_msg_size=3000), stop=silent)
    dpf.restart()
    await finish(dpf, device, order_id)
    after = dpf.order(order_id)
    assert (after.package_hash, after.mcim_id) == (before.package_hash, before.mcim_id)
    assert dpf.partners.kinds().count("AskPackage") == 1


class Killed(Exception):
    """The process dies here."""


STEPS: dict[str, Callable[[Dpf], None]] = {
    "the answer 202 is lost": lambda dpf: dpf.partners.answers.update({AskPackage: _die}),
    "the ticket is lost": lambda dpf: dpf.partners.answers.update({AskTicket: _die}),
    "the challenge is lost": lambda dpf: dpf.partners.answers.update({AskChallenge: _die}),
}


def _die(ask: Ask) -> Outcome:
    raise Killed


@pytest.mark.parametrize("prepare", STEPS.values(), ids=STEPS)
async def test_req16_killed_while_a_partner_answers(dpf: Dpf, http: Http, prepare: Callable[[Dpf], None]):
    """REQ-16: the question was asked and its answer is gone: the same question again, and a late package is taken."""
    later = dpf.partners.answers[AskPackage]
    order_id, device = dpf.open_order(), StubDevice()
    prepare(dpf)
    with pytest.raises(Killed):
        await dpf.session(device, registration_alert(device), session_id="1")
    dpf.restart()
    dpf.partners.answers = {AskPackage: later}
    await dpf.session(device, registration_alert(device), session_id="2")
    assert dpf.order(order_id).state is OrderState.HANDED_OVER
    assert len({ask.key for ask in dpf.partners.asked if isinstance(ask, AskPackage)}) == 1
    dpf.partners.answers[AskJob] = lambda _: package_for(asked(dpf), dpf.clock())
    dpf.clock.advance(1799)
    dpf.clock.advance(3601)
    await dpf.conductor.tidy()
    await finish(dpf, device, order_id)
    assert len({ask.result for ask in dpf.partners.asked if isinstance(ask, TellSho)}) == 1


# --- the log of remote mode -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("log", "state"), [(b"log", OrderState.DELIVERED), (b"", OrderState.CHALLENGED)])
async def test_req18_remote_validation_needs_the_measurement_log(tmp_path: Path, log: bytes, state: OrderState):
    """REQ-18, flows F2: read beside the evidence; without it nothing is put to the PVA."""
    dpf = Dpf(tmp_path, rules=rules(ValidationMode.REMOTE))
    dpf.add_device()
    order_id, device = dpf.open_order(), StubDevice(log=log)
    await dpf.session(device, registration_alert(device))
    order: Order = dpf.order(order_id)
    assert order.state is state
    assert ("AskTicket" in dpf.partners.kinds()) is bool(log)
    dpf.close()


async def test_req22_a_ticket_shorter_than_the_margin_is_good_for_the_session_it_was_made_in(dpf: Dpf):
    """REQ-22: a PVA with very short tickets does not keep anybody from provisioning."""
    order_id, device = dpf.open_order(), StubDevice()
    del dpf.partners.answers[AskPackage]

    def short(ask: Ask) -> Outcome:
        assert isinstance(ask, AskTicket)
        return TicketGiven(ticket=ticket_for(ask, dpf.clock(), expires_at=dpf.clock() + timedelta(seconds=10)))

    dpf.partners.answers[AskTicket] = short
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert dpf.partners.kinds().count("AskTicket") == 2  # once more before the push, and then it is good enough
