"""The RO over real TLS: attach with a PCID, registration at the home operator, bootstrap by the DPF, and refusals."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from sqlalchemy import select, text

from actor_runtime.http import PartnerRefused, PartnerUnavailable, new_application, to_base64
from dmserver.store.orders import list_orders
from mcim.aka import UsimState
from mcim.key_id import key_id_of
from mcim.ticket import Ticket, issue_ticket
from mcim.vocabulary import ValidationMode
from ro.app import build, run
from ro.identities import ProvisionalIdentity, new_keys
from ro.registrations import MAX_USES
from ro.store import registration_rows, repository, tables
from ro.store.registration_rows import State
from sho.store import repository as sho_rows
from syncml.wap_push import parse_push
from tests.support_operators import DPF_ID, M2ME_ID, PVA_ID, SHO_ID, TRE_ID, Device, Pki, calling, der, running
from tests.support_registration import OTHER_M2ME, RO_ID, UNIFORM, Usim, refusal, world


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def site(pki, tmp_path):
    async with world(pki, tmp_path) as made:
        yield made


# --- ICF: first attach ----------------------------------------------------------------------------------


async def test_attach_with_a_pcid_gives_access_to_the_registration_function(site):
    """REQ-72: TR 33.812 §5.1.3.7.1 steps 2 to 6; identity, key and token are in no record."""
    number, identity = site.issue()
    answer = await Usim(identity).attach(site.network)
    assert (answer["result"], answer["imsiMask"], answer["expiresIn"]) == ("attached", identity.mask, 600)
    assert "drfUrl" not in answer
    row = site.ro.store.read_sync(lambda c: repository.get_identity(c, number))
    assert row.attached_at is not None
    records = await site.records()
    assert {record["step"] for record in records} == {"2", "3", "4", "5", "6"}
    assert await site.checks() == {"pcid-valid": True, "aka-response": True}
    dumps = b"".join(path.read_bytes() for path in site.directory.glob("ro.*"))
    for secret in (identity.imsi, answer["accessToken"], identity.keys.k.hex(), to_base64(identity.keys.k)):
        assert secret.encode() not in dumps
    assert identity.keys.k not in dumps


async def test_a_device_that_is_ahead_resynchronises_once(site):
    """REQ-69: the AuC of provisional identities follows the same rules as the home operator's."""
    _, identity = site.issue()
    usim = Usim(identity)
    usim.state = UsimState.initial(2**20)
    assert (await usim.attach(site.network))["result"] == "attached"
    assert (await usim.attach(site.network))["result"] == "attached"


async def test_refusals_look_the_same_are_counted_by_network_and_say_when_to_come_again(site):
    """REQ-72, T12: unknown, withdrawn, expired, wrong RES, used session, no such session."""
    good, expired, withdrawn = (site.issue(days=days) for days in (30, 1, 30))
    site.ro.store.write_sync(lambda c: repository.withdraw_identity(c, withdrawn[0]))
    site.clock.ahead = timedelta(days=2)
    post = site.network.post
    challenge = await post("/v1/attach", {"imsi": good[1].imsi, "vno": "26202"})
    path = f"/v1/attach/{challenge['session']}"
    calls = [
        ("/v1/attach", {"imsi": "001019999999999", "vno": "26201"}),
        ("/v1/attach", {"imsi": withdrawn[1].imsi, "vno": "26201"}),
        ("/v1/attach", {"imsi": expired[1].imsi, "vno": "26201"}),
        (path, {"res": to_base64(bytes(8))}),
        (path, {"res": to_base64(bytes(8))}),
        ("/v1/attach/nothing", {"failure": "mac"}),
        ("/v1/attach", {"imsi": "x" * 100, "vno": "<script>"}),
        ("/v1/attach/nothing", {"platform": {
            "m2meId": "urn:m", "nonce": "", "evidence": "", "platformCert": "", "attestCert": "", "chain": []}}),
    ]  # fmt: skip
    for where, body in calls:
        with pytest.raises(PartnerRefused) as caught:
            await post(where, body)
        assert (caught.value.status, caught.value.code, caught.value.detail) == UNIFORM
        assert caught.value.retry_after_s == 7
    visits = site.ro.store.read_sync(repository.list_visits)
    assert {(row["vno"], row["count"]) for row in visits} == {("26201", 3), ("26202", 1), ("unknown", 4)}
    with pytest.raises(PartnerRefused) as caught:
        await post(path, {"res": "", "auts": ""})
    assert (caught.value.status, caught.value.code) == (400, "malformed-request")


async def test_attaches_of_one_identity_are_limited_and_strangers_do_not_use_them_up(site):
    """T7, T12: four successful attaches an hour here; attempts without the key do not count."""
    _, identity = site.issue()
    usim = Usim(identity)
    for _ in range(10):
        await site.network.post("/v1/attach", {"imsi": identity.imsi})
    for _ in range(4):
        await usim.attach(site.network)
    assert await refusal(usim.attach(site.network)) == UNIFORM
    site.clock.ahead = timedelta(hours=1)
    assert (await usim.attach(site.network))["result"] == "attached"


async def test_an_attach_begun_by_the_former_holder_gives_no_access_to_the_next_ones_identity(site):
    """T7, REQ-72: given out again between challenge and response, it is not the one that was challenged."""
    number, identity = site.issue(days=1)
    site.clock.ahead = timedelta(days=1, seconds=-5)
    challenge = await site.network.post("/v1/attach", {"imsi": identity.imsi})
    res = Usim(identity).judge(challenge).res
    site.clock.ahead = timedelta(days=1)
    again, now = ProvisionalIdentity(imsi=identity.imsi, keys=new_keys()), site.clock()
    assert site.ro.store.write_sync(
        lambda c: repository.reissue_identity(
            c, number, site.ro.vault.seal(again, 2), generation=2, not_after=now + timedelta(days=30), supplier=None,
            now=now,
        )
    )  # fmt: skip
    call = site.network.post(f"/v1/attach/{challenge['session']}", {"res": to_base64(res)})
    assert await refusal(call) == UNIFORM
    assert site.ro.store.read_sync(lambda c: c.execute(select(tables.tokens)).all()) == []

    def counted() -> int:
        return site.ro.store.read_sync(lambda c: repository.attaches_since(c, number, now - repository.WINDOW))

    assert counted() == 0  # nor is it one of the new holder's attaches
    assert (await Usim(again).attach(site.network))["result"] == "attached"
    assert counted() == 1


async def test_responses_at_once_do_not_get_past_the_limit(pki, tmp_path):
    """T12: challenges taken before the limit was reached give no access after it."""
    async with world(pki, tmp_path, attaches_per_hour=2) as site:
        _, identity = site.issue()
        usim = Usim(identity)
        challenges = [await site.network.post("/v1/attach", {"imsi": identity.imsi}) for _ in range(4)]
        responses = [to_base64(usim.judge(each).res) for each in challenges]
        calls = (
            site.network.post(f"/v1/attach/{each['session']}", {"res": res})
            for each, res in zip(challenges, responses, strict=True)
        )
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(each, PartnerRefused) for each in answers) == 2


async def test_sequence_numbers_of_a_provisional_identity(site):
    """REQ-69: SQN_HE goes on where it is when the device takes that, and ends in a refusal when it is used up."""
    number, identity = site.issue()
    usim, sqn = Usim(identity), lambda: site.ro.store.read_sync(lambda c: repository.get_identity(c, number)).sqn
    challenge = await site.network.post("/v1/attach", {"imsi": identity.imsi})
    usim.judge(challenge)
    for _ in range(3):  # vectors for others under way
        await site.network.post("/v1/attach", {"imsi": identity.imsi})
    auts = usim.judge(challenge).auts  # the first one again: it is used
    await site.network.post(f"/v1/attach/{challenge['session']}", {"auts": to_base64(auts)})
    assert sqn() == 5 * 33  # not begun anew behind what was given out
    site.ro.store.write_sync(lambda c: repository.set_sqn(c, number, 2**48 - 1))
    assert await refusal(usim.attach(site.network)) == UNIFORM


# --- DRF: registration ----------------------------------------------------------------------------------


async def registered(site, **members):
    _, identity = site.issue()
    token = (await Usim(identity).attach(site.network))["accessToken"]
    return token, await site.register(token, **members)


def rows(site):
    return site.ro.store.read_sync(lambda c: registration_rows.list_registrations(c, states=(), limit=10))


async def test_a_registered_device_has_an_order_and_gets_its_bootstrap(site):
    """TR 33.812 §5.1.3.7.1 steps 7 and 8, REQ-11, REQ-13: DRF → SHO → order at the DPF → bootstrap on UDP."""
    site.add_device()
    _, answer = await registered(site)
    assert (answer["state"], answer["sho"]) == ("registered", SHO_ID)
    (order,) = site.dpf_store.read_sync(list_orders)
    assert (order.device_id, order.sho_id, order.purpose) == (M2ME_ID, SHO_ID, "initial")
    (own,) = await site.sho.store.read(sho_rows.list_orders)
    assert (own["orderId"], own["state"]) == (order.order_id, "open")
    (datagram,) = site.datagrams()
    assert parse_push(datagram).sec is not None
    (row,) = rows(site)
    assert (row.state, row.order_id, row.tries, row.bootstraps) == (State.BOOTSTRAPPED, order.order_id, 1, 1)
    records = await site.records()
    moves = [(each["old"], each["new"]) for each in records if each["kind"] == "state" and each["order"] == row.id]
    assert moves == [("", "pending"), ("pending", "routed"), ("routed", "at-sho"), ("at-sho", "bootstrapped")]


async def test_a_device_that_asks_again_goes_on_with_its_registration(site):
    """REQ-11, REQ-15: one registration, one order; each bootstrap is a new one, and the DPF limits them."""
    site.add_device()
    token, first = await registered(site)
    again = await site.register(token)
    assert again == first
    assert len(site.datagrams()) == 2
    assert len(site.dpf_store.read_sync(list_orders)) == 1
    await site.register(token)
    limited = await site.register(token)  # the fourth within the hour
    assert limited["state"] == "pending"
    assert len(site.datagrams()) == 1
    assert rows(site)[0].state is State.AT_SHO


async def test_where_the_request_comes_from_is_where_the_bootstrap_goes(site):
    """T12: an empty host stands for the peer; a stranger's address is refused, for we would send to him."""
    site.add_device()
    port = site.push_address().rpartition(":")[2]
    token, _ = await registered(site, push=f"udp::{port}")
    assert rows(site)[0].push == f"udp:127.0.0.1:{port}"
    for push in ("udp:192.0.2.1:2948", "udp:victim.example:2948", "udp:127.0.0.1:0", "udp:127.0.0.1:70000"):
        assert await refusal(site.register(token, push=push)) == (400, "push-address-refused", "")
    for push in ("http://127.0.0.1/", "udp:127.0.0.1", "udp:a b:1"):
        assert (await refusal(site.register(token, push=push)))[:2] == (400, "malformed-request")


ROUTED = {
    "the subscriber's choice": ({"sho": SHO_ID}, {}, None, (SHO_ID, "subscriber")),
    "a choice that is no partner waits": ({"sho": "sho9.example"}, {("m2me", M2ME_ID): SHO_ID}, SHO_ID, None),
    "route of the device": ({}, {("m2me", M2ME_ID): SHO_ID, ("supplier", "s"): "x"}, None, (SHO_ID, "device")),
    "route of the supplier": ({"supplier": "s"}, {("supplier", "s"): SHO_ID}, None, (SHO_ID, "supplier")),
    "a route to nobody is passed over": ({}, {("m2me", M2ME_ID): "gone.example"}, SHO_ID, (SHO_ID, "default")),
    "default": ({}, {}, SHO_ID, (SHO_ID, "default")),
    "nobody knows": ({}, {}, None, None),
}


@pytest.mark.parametrize(("members", "routes", "default", "found"), ROUTED.values(), ids=ROUTED)
async def test_discovery(pki, tmp_path, members, routes, default, found):
    """TR 33.812 §5.1.3.7.1 step 8: who decides on the home operator; without one the registration stays open."""
    async with world(pki, tmp_path, default_sho=default) as site:
        site.add_device()

        def add(connection):
            for (kind, value), sho in routes.items():
                registration_rows.put_route(connection, kind, value, sho)

        site.ro.store.write_sync(add)
        token, answer = await registered(site, **members)
        if found is not None:
            assert (answer["state"], answer["sho"]) == ("registered", found[0])
            detail = [each["detail"] for each in await site.records() if each.get("name") == "home-operator-found"]
            assert detail == [f"{found[0]}, decided by {found[1]}"]
            return
        assert (answer["state"], site.datagrams()) == ("pending", [])
        for _ in range(2):
            await site.ro.desk.advance_waiting()
        told = [each for each in await site.records() if each.get("name") == "home-operator-found"]
        assert [each["passed"] for each in told] == [False]  # reported once, not in every round
        (row,) = rows(site)

        def route(connection):  # what `ro registration route` does
            registration_rows.put_registration(
                connection, registration_rows.dataclasses.replace(row, state=State.ROUTED, sho_id=SHO_ID, tries=1)
            )

        site.ro.store.write_sync(route)
        await site.ro.desk.advance_waiting()
        assert len(site.datagrams()) == 1
        assert (await site.register(token, **members))["state"] == "registered"


async def test_an_unknown_device_is_refused_by_the_dpf_and_hears_so(site):
    """REQ-13: the DPF opens no order for a device it does not know, the SHO refuses, the registration ends."""
    _, identity = site.issue()
    token = (await Usim(identity).attach(site.network))["accessToken"]
    assert (await refusal(site.register(token)))[:2] == (403, "registration-refused")
    (row,) = rows(site)
    assert (row.state, row.detail) == (State.REFUSED, "home operator: order-refused")


async def test_what_was_under_way_goes_on_after_a_restart(site, pki, tmp_path):
    """Crash safety: every state is on disk before the next call, and calls repeated after a kill change nothing."""
    site.add_device()
    await registered(site)
    (row,) = rows(site)
    for state in (State.PENDING, State.ROUTED, State.AT_SHO):  # as a kill -9 leaves it
        back = {"sho_id": None, "tries": 0} if state is State.PENDING else {}
        lost = registration_rows.dataclasses.replace(
            row, state=state, bootstraps=1 if state is State.AT_SHO else 0, order_id=None, **back
        )
        site.ro.store.write_sync(lambda c, lost=lost: registration_rows.put_registration(c, lost))
        again = build(site.ro.settings)
        try:
            await again.desk.advance_waiting()
        finally:
            await again.close()
        (now,) = rows(site)
        assert (now.state, now.tries, now.bootstraps) == (State.BOOTSTRAPPED, 1, 1)
    assert len(site.dpf_store.read_sync(list_orders)) == 1
    profiles = await asyncio.to_thread(
        site.dpf_store.read_sync, lambda c: c.execute(text("SELECT profile FROM accounts")).scalars().all()
    )
    assert profiles == [1]  # one account was made; its document was sent again
    assert len(set(site.datagrams())) == 1


async def test_partners_that_do_not_answer_are_asked_again(pki, tmp_path):
    """REQ-16: a home operator that is down keeps the registration open, and the next round finds it."""
    async with world(pki, tmp_path, shos={SHO_ID: "https://127.0.0.1:1"}) as site:
        site.add_device()
        token, answer = await registered(site)
        assert answer["state"] == "pending"
        await site.ro.desk.advance_waiting()
        assert rows(site)[0].state is State.ROUTED
        again = build(site.ro.settings.model_copy(update={"shos": {SHO_ID: site.urls["sho"]}}))
        try:
            await again.desk.advance_waiting()
            assert rows(site)[0].state is State.BOOTSTRAPPED
        finally:
            await again.close()
        assert (await site.register(token))["state"] == "registered"


@pytest.mark.parametrize("order_id", ["", "a b", "a\nb", "\u00e9", "x" * 65, 7, None])
async def test_an_order_id_that_is_none_leaves_the_registration_waiting(pki, tmp_path, order_id):
    """T12: what a home operator answers goes into trail, log and calls to the DPF; a strange one is no answer."""

    async def answer(_request):
        return web.json_response({"orderId": order_id}, status=201)

    app = web.Application()
    app.router.add_post("/v1/registrations", answer)
    async with running(app, pki.server(SHO_ID)) as url, world(pki, tmp_path, shos={SHO_ID: url}) as site:
        assert (await registered(site))[1]["state"] == "pending"
        assert (rows(site)[0].state, rows(site)[0].order_id) == (State.ROUTED, None)


async def test_a_registration_that_fails_does_not_stand_in_the_way_of_others(site, monkeypatch):
    """T12: a round is for all of them."""
    site.add_device()
    await registered(site)
    (row,) = rows(site)
    for number, name in enumerate(("poisoned", row.id)):
        waiting = registration_rows.dataclasses.replace(
            row, id=name, state=State.PENDING, sho_id=None, updated_at=row.updated_at + timedelta(seconds=number)
        )
        site.ro.store.write_sync(lambda c, waiting=waiting: registration_rows.put_registration(c, waiting))
    advance = site.ro.desk.advance

    async def poisoned(registration_id):
        if registration_id == "poisoned":
            raise ValueError
        return await advance(registration_id)

    monkeypatch.setattr(site.ro.desk, "advance", poisoned)
    await site.ro.desk.advance_waiting()
    assert {each.id: each.state for each in rows(site)} == {"poisoned": State.PENDING, row.id: State.BOOTSTRAPPED}


async def test_an_order_that_ended_meanwhile_is_opened_anew(site):
    """REQ-13: the DPF says there is no order any more; the home operator is asked for a new one, a few times."""
    site.add_device()
    token, _ = await registered(site)
    site.dpf_store.write_sync(lambda c: c.execute(text("UPDATE orders SET state = 'REFUSED'")))
    await site.sho.store.write(lambda c: c.execute(text("UPDATE sho_order SET state = 'refused'")))
    assert (await site.register(token))["state"] == "registered"
    assert [order.state.value for order in site.dpf_store.read_sync(list_orders)] == ["REFUSED", "OPEN"]
    assert rows(site)[0].tries == 2


async def test_an_identity_of_another_reason_replaces_the_registration(site):
    """REQ-72: recovery after a failed attach is a registration of its own."""
    site.add_device()
    token, first = await registered(site)
    second = await site.register(token, reason="recovery")
    assert second["registration"] != first["registration"]
    assert {row.state for row in rows(site)} == {State.SUPERSEDED, State.BOOTSTRAPPED}


async def test_a_device_that_an_operator_refused_stays_out_with_that_identity(pki, tmp_path):
    """REQ-72: it is not taken anew by asking again, for another reason either; with another identity it may try."""
    async with world(pki, tmp_path, shos={}, default_sho=None) as site:
        site.add_device()
        _, identity = site.issue()
        usim = Usim(identity)
        token = (await usim.attach(site.network))["accessToken"]
        assert (await site.register(token))["state"] == "pending"
        (row,) = rows(site)
        denied = dataclasses.replace(row, state=State.DENIED)
        site.ro.store.write_sync(lambda c: registration_rows.put_registration(c, denied))
        for reason in ("initial", "recovery"):
            assert await refusal(site.register(token, reason=reason)) == (403, "registration-refused", "")
        assert rows(site) == [denied]
        await site.ro.desk.advance_waiting()
        assert rows(site) == [denied]
        other = (await Usim(site.issue()[1]).attach(site.network))["accessToken"]
        assert (await site.register(other))["state"] == "pending"


async def test_what_nobody_takes_ends(site):
    """T12: an open registration is not asked about for ever."""
    await registered(site, sho="sho9.example")
    site.clock.ahead = timedelta(days=7)
    await site.ro.desk.advance_waiting()
    assert (rows(site)[0].state, rows(site)[0].detail) == (State.REFUSED, "nobody took it in time")


async def test_the_process_serves_devices_and_goes_on_with_what_waits(site, pki, tmp_path):
    """Start after a kill: a registration on disk is carried on without any device asking."""
    site.add_device()
    await registered(site)
    (row,) = rows(site)
    lost = registration_rows.dataclasses.replace(row, state=State.ROUTED, order_id=None, bootstraps=0)
    site.ro.store.write_sync(lambda c: registration_rows.put_registration(c, lost))
    stop, ready = asyncio.Event(), tmp_path / "ready.json"
    changes = {"ready_file": ready, "retry_s": 60.0, "trace_file": None}
    serving = asyncio.create_task(run(site.ro.settings.model_copy(update=changes), stop=stop))
    async with asyncio.timeout(20):
        while not ready.exists() or rows(site)[0].state is not State.BOOTSTRAPPED:
            assert not serving.done()
            await asyncio.sleep(0.01)
    port = json.loads(ready.read_text())["ports"]["network"]
    async with calling(f"https://127.0.0.1:{port}", pki.client(None)) as device:
        assert await device.get("/healthz") == {"status": "ok"}
    stop.set()
    await serving
    assert not ready.exists()


# --- access tokens --------------------------------------------------------------------------------------


async def test_a_token_opens_the_registration_function_for_its_time_and_nothing_longer(site):
    """REQ-72, T7: no token, another's, an expired one, one of an earlier attach, one of a withdrawn identity."""
    site.add_device()
    number, identity = site.issue()
    usim = Usim(identity)
    first = (await usim.attach(site.network))["accessToken"]
    second = (await usim.attach(site.network))["accessToken"]
    refused = (401, "access-token-refused", "")
    body = {"m2meId": M2ME_ID, "treId": TRE_ID, "push": site.push_address()}
    assert await refusal(site.network.post("/v1/register", body)) == refused
    assert await refusal(site.register("A" * 43)) == refused
    assert await refusal(site.register("short")) == refused
    assert await refusal(site.register(first)) == refused
    assert (await site.register(second))["state"] == "registered"
    site.clock.ahead = timedelta(seconds=600)
    assert await refusal(site.register(second)) == refused
    site.clock.ahead = timedelta()
    third = (await usim.attach(site.network))["accessToken"]
    site.ro.store.write_sync(lambda c: repository.withdraw_identity(c, number))
    assert await refusal(site.register(third)) == refused


async def test_calls_with_one_token_are_bounded(site):
    """T12"""
    token, _ = await registered(site, sho="sho9.example")
    for _ in range(MAX_USES - 1):
        await site.register(token, sho="sho9.example")
    assert (await refusal(site.register(token)))[:2] == (429, "too-many-requests")


# --- the gate -------------------------------------------------------------------------------------------


class Platform:
    """A device at the gate; a test may spoil its answer."""

    def __init__(self, pki, **changes):
        self.device, self.req_id, self.nonce = Device(pki), uuid.uuid4(), os.urandom(32)
        self.changes = changes

    async def ask(self, site, imsi, **members):
        body = {"imsi": imsi, "vno": "26201", "treId": TRE_ID, "reqId": str(self.req_id)} | members
        return await site.network.post("/v1/attach", body)

    def answer(self, asked, **evidence):
        values = {"req_id": self.req_id, "nonce": self.nonce, "challenge": base64.b64decode(asked["challenge"])}
        made = self.device.evidence(**values | evidence)
        return {
            "m2meId": M2ME_ID,
            "nonce": to_base64(self.nonce),
            "evidence": to_base64(made),
            "platformCert": der(self.device.platform_cert),
            "attestCert": der(self.device.attest_cert),
            "chain": [],
        } | self.changes


@pytest.fixture
async def gated(pki, tmp_path):
    async with world(pki, tmp_path, validation_gates_attach=True) as made:
        yield made


async def test_with_the_gate_vectors_come_after_validation(gated, pki):
    """REQ-17, REQ-18 (US 9 826 335 claim 1): evidence first, then AKA; the token is this device's alone."""
    gated.add_device()
    _, identity = gated.issue()
    platform = Platform(pki)
    asked = await platform.ask(gated, identity.imsi)
    assert (asked["result"], asked["mode"]) == ("validate", "semi-autonomous")
    assert "rand" not in asked
    path = f"/v1/attach/{asked['session']}"
    challenge = await gated.network.post(path, {"platform": platform.answer(asked)})
    assert challenge["result"] == "challenge"
    token = (await Usim(identity).answer(gated.network, challenge))["accessToken"]
    assert (await gated.checks())["platform-validated-before-vectors"] is True
    assert await refusal(gated.register(token, m2meId=OTHER_M2ME)) == (403, "registration-refused", "")
    assert (await gated.register(token))["state"] == "registered"
    replay = gated.network.post(path, {"platform": platform.answer(asked)})
    assert await refusal(replay) == UNIFORM  # the session is used up


AT_THE_GATE = {
    "no evidence": ({}, {"evidence": ""}),
    "stale challenge": ({"challenge": bytes(32)}, {}),
    "evidence of another device": ({"m2me_id": OTHER_M2ME}, {}),
    "unknown version": ({"tre_version": "9.9"}, {}),
    "TRE is not in order": ({"tre_state": "tampered"}, {}),
    "another name": ({}, {"m2meId": OTHER_M2ME}),
    "another nonce": ({}, {"nonce": to_base64(bytes(32))}),
    "no certificate": ({}, {"platformCert": "AAAA"}),
}


@pytest.mark.parametrize(("evidence", "members"), AT_THE_GATE.values(), ids=AT_THE_GATE)
async def test_without_validation_no_vectors(gated, pki, evidence, members):
    """REQ-17, REQ-18: every way to fail looks the same and gives no RAND."""
    number, identity = gated.issue()
    platform = Platform(pki, **members)
    asked = await platform.ask(gated, identity.imsi)
    call = gated.network.post(f"/v1/attach/{asked['session']}", {"platform": platform.answer(asked, **evidence)})
    assert await refusal(call) == UNIFORM
    assert (await gated.checks())["platform-validated-before-vectors"] is False
    assert gated.ro.store.read_sync(lambda c: repository.get_identity(c, number)).sqn == 0


@pytest.mark.parametrize("revoked", [True, False], ids=["revoked", "on no list"])
async def test_a_revoked_pva_opens_no_gate(pki, tmp_path, revoked):
    """REQ-19, REQ-20: whoever signed the ticket must not be on the list of its CA."""
    listed = pki.file(f"pva-{revoked}.crl", pki.pva.crl(*([pki.pva_cert] if revoked else [])))
    lists = {"crl_files": (listed,), "crl_required": True}
    async with world(pki, tmp_path, validation_gates_attach=True, **lists) as made:
        made.add_device()
        _, identity = made.issue()
        platform = Platform(pki)
        asked = await platform.ask(made, identity.imsi)
        call = made.network.post(f"/v1/attach/{asked['session']}", {"platform": platform.answer(asked)})
        if revoked:
            assert await refusal(call) == UNIFORM
        else:
            assert (await call)["result"] == "challenge"
        assert (await made.checks())["platform-validated-before-vectors"] is not revoked


async def test_the_gate_cannot_be_walked_around(gated, pki):
    """REQ-17: no treId, no reqId, RES at the gate's session; the PVA is not asked for strangers (T12)."""
    _, identity = gated.issue()
    platform = Platform(pki)
    assert await refusal(gated.network.post("/v1/attach", {"imsi": identity.imsi})) == UNIFORM
    assert await refusal(platform.ask(gated, "001019999999999")) == UNIFORM
    asked = await platform.ask(gated, identity.imsi)
    assert await refusal(gated.network.post(f"/v1/attach/{asked['session']}", {"res": "AAAA"})) == UNIFORM


async def test_a_pva_that_does_not_answer_is_no_yes(pki, tmp_path):
    """REQ-17: never trusted by default."""
    async with world(pki, tmp_path, validation_gates_attach=True, pva_url="https://127.0.0.1:1") as site:
        _, identity = site.issue()
        with pytest.raises(PartnerUnavailable):
            await Platform(pki).ask(site, identity.imsi)


async def test_a_ticket_for_another_audience_opens_no_gate(pki, tmp_path):
    """REQ-19: the PVA's answer must be about this RO; here it comes from a partner that signs for somebody else."""
    async with world(pki, tmp_path, validation_gates_attach=True, ro_id="other-ro.example") as site:
        site.ro.gate._question = lambda asked, body, ask=site.ro.gate._question: (
            ask(asked, body) | {"audience": [RO_ID]}
        )
        _, identity = site.issue()
        platform = Platform(pki)
        asked = await platform.ask(site, identity.imsi)
        call = site.network.post(f"/v1/attach/{asked['session']}", {"platform": platform.answer(asked)})
        assert await refusal(call) == UNIFORM


LIES = {
    "good": ({}, None),
    "another TRE": ({"tre_id": "urn:m2m:tre:0002"}, UNIFORM),
    "another request": ({"req_id": str(uuid.UUID(int=1))}, UNIFORM),
    "another nonce": ({"nonce": bytes(32)}, UNIFORM),
    "another platform key": ({"platform_key_id": bytes(16)}, UNIFORM),
    "another attestation key": ({"attest_key_id": bytes(16)}, UNIFORM),
    "another mode": ({"mode": ValidationMode.REMOTE}, UNIFORM),
    "another M2ME": ({"m2me_id": OTHER_M2ME}, UNIFORM),
    "another PVA": ({"issuer": "urn:m2m:pva:other"}, UNIFORM),
    "no ticket": (None, UNIFORM),
}


@pytest.mark.parametrize(("changes", "refused"), LIES.values(), ids=LIES)
async def test_a_ticket_opens_the_gate_for_what_it_is_about_alone(pki, tmp_path, changes, refused):
    """REQ-17, REQ-19: a PVA, or whoever answers in its place, with a ticket about something else."""
    platform = Platform(pki)

    async def challenge(_request):
        return web.json_response({"challenge": to_base64(bytes(32)), "exp": "2026-01-01T00:00:00Z"})

    async def validate(_request):
        if changes is None:
            return web.json_response({})
        now = datetime.now(UTC).replace(microsecond=0)
        values = {
            "issuer": PVA_ID,
            "audience": (RO_ID,),
            "tre_id": TRE_ID,
            "m2me_id": M2ME_ID,
            "req_id": str(platform.req_id),
            "nonce": platform.nonce,
            "platform_key_id": platform.device.platform_key_id,
            "attest_key_id": key_id_of(platform.device.attest_key.public_key()),
            "mode": ValidationMode.SEMI_AUTONOMOUS,
            "tre_type": "software",
            "tre_version": "1.0",
            "issued_at": now,
            "expires_at": now + timedelta(minutes=5),
            "ticket_id": "1",
        }
        return web.json_response({"ticket": issue_ticket(Ticket(**values | changes), pki.pva_key, [pki.pva_cert])})

    app = new_application()
    app.router.add_post("/v1/challenge", challenge)
    app.router.add_post("/v1/validate", validate)
    async with (
        running(app, pki.server("pva.example")) as url,
        world(pki, tmp_path, validation_gates_attach=True, pva_url=url) as site,
    ):
        _, identity = site.issue()
        asked = await platform.ask(site, identity.imsi)
        call = site.network.post(f"/v1/attach/{asked['session']}", {"platform": platform.answer(asked)})
        if refused is None:
            assert (await call)["result"] == "challenge"
        else:
            assert await refusal(call) == refused


# --- the partners' side ---------------------------------------------------------------------------------


async def test_only_a_registrar_registers_at_the_home_operator_and_nothing_else(site, pki):
    """REQ-24: each list opens its own paths: the DPF may not register, the RO may not hand over."""
    body = {"m2meId": M2ME_ID, "reason": "initial"}
    for name, path in (
        (DPF_ID, "/v1/registrations"),
        ("stranger.example", "/v1/registrations"),
        (RO_ID, "/v1/handover"),
    ):
        async with calling(site.urls["sho"], pki.client(name)) as client:
            assert (await refusal(client.post(path, body, idempotency_key="k")))[:2] == (403, "client-not-allowed")


async def test_registrations_at_the_home_operator_are_idempotent(site, pki):
    """REQ-15, REQ-16: a repeated key is the same order; a device with an order keeps it; no key, no order."""
    site.add_device()
    async with calling(site.urls["sho"], pki.client(RO_ID)) as client:
        body = {"m2meId": M2ME_ID, "reason": "initial"}
        answers = await asyncio.gather(
            *(client.post("/v1/registrations", body, idempotency_key="k1") for _ in range(4)),
            client.post("/v1/registrations", body, idempotency_key="k2"),
        )
        assert len({answer["orderId"] for answer in answers}) == 1
        other = client.post("/v1/registrations", body | {"m2meId": OTHER_M2ME}, idempotency_key="k1")
        assert (await refusal(other))[:2] == (409, "key-used-for-another-device")
        assert (await refusal(client.post("/v1/registrations", body)))[:2] == (400, "malformed-request")
    assert len(site.dpf_store.read_sync(list_orders)) == 1


async def test_an_order_that_the_dpf_left_open_is_asked_for_again(site, pki):
    """REQ-16: killed between the record and the DPF's answer."""
    site.add_device()
    async with calling(site.urls["sho"], pki.client(RO_ID)) as client:
        body = {"m2meId": M2ME_ID, "reason": "initial"}
        first = await client.post("/v1/registrations", body, idempotency_key="k1")
        await site.sho.store.write(
            lambda c: c.execute(text("UPDATE sho_order SET state = 'requested', order_id = NULL"))
        )
        assert await client.post("/v1/registrations", body, idempotency_key="k1") == first


BOOTSTRAPS = {
    "not on the list": ("stranger.example", {}, "k", (403, "client-not-allowed")),
    "a home operator": (SHO_ID, {}, "k", (403, "client-not-allowed")),
    "unknown device": (RO_ID, {"m2meId": OTHER_M2ME}, "k", (404, "device-unknown")),
    "no order": (RO_ID, {}, "k", (409, "no-ongoing-order")),
    "no key": (RO_ID, {}, "", (400, "malformed-request")),
    "no address": (RO_ID, {"push": "udp::1"}, "k", (400, "malformed-request")),
    "no port": (RO_ID, {"push": "udp:127.0.0.1:99999"}, "k", (400, "malformed-request")),
    "file": (RO_ID, {"push": "file:/etc/passwd"}, "k", (400, "malformed-request")),
}


@pytest.mark.parametrize(("client", "members", "key", "refused"), BOOTSTRAPS.values(), ids=BOOTSTRAPS)
async def test_bootstraps_that_are_not_sent(site, pki, client, members, key, refused):
    """REQ-11: known devices with an order only, asked for by registrars only."""
    site.add_device()
    body = {"m2meId": M2ME_ID, "push": site.push_address()} | members
    async with calling(site.urls["dpf"], pki.client(client)) as caller:
        assert (await refusal(caller.post("/v1/bootstraps", body, idempotency_key=key)))[:2] == refused
    assert site.datagrams() == []


async def test_bootstraps_are_limited_by_the_dpf(site, pki):
    """REQ-11: three an hour here; a repeated key is no new one."""
    site.add_device()
    async with (
        calling(site.urls["sho"], pki.client(RO_ID)) as sho,
        calling(site.urls["dpf"], pki.client(RO_ID)) as dpf,
    ):
        await sho.post("/v1/registrations", {"m2meId": M2ME_ID, "reason": "initial"}, idempotency_key="k")
        body = {"m2meId": M2ME_ID, "push": site.push_address()}
        for key in ("1", "2", "3", "3"):
            assert await dpf.post("/v1/bootstraps", body, idempotency_key=key) == {"sent": True}
        sent = site.datagrams()
        assert (len(sent), len(set(sent))) == (4, 3)
        assert (await refusal(dpf.post("/v1/bootstraps", body, idempotency_key="4")))[:2] == (
            429,
            "too-many-bootstraps",
        )
        assert await dpf.post("/v1/bootstraps", body, idempotency_key="1") == {"sent": True}  # void: nothing goes out
        assert site.datagrams() == []
        other = body | {"m2meId": OTHER_M2ME}
        assert (await refusal(dpf.post("/v1/bootstraps", other, idempotency_key="3")))[0] == 409
