"""T7: provisional identities in the wrong hands, against a registration operator and its partners over real TLS.

A PCID and its keys are what a thief can take out of a supplier's file or a badly kept device. What he gains must be
bounded: connectivity to the registration operator, for a while, and no subscription.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
import uuid
from datetime import timedelta

import aiohttp
import pytest

from actor_runtime.http import PartnerRefused, PartnerUnavailable, to_base64
from dmserver.store.orders import list_orders
from home_network.sessions import MAX_PER_IDENTITY
from ro.gate import ASKED_PER_IDENTITY, WINDOW_S
from ro.identities import ProvisionalIdentity, new_keys
from ro.store import registration_rows, repository
from ro.store.registration_rows import State
from tests.support_operators import M2ME_ID, SHO_ID, TRE_ID, Device, Pki, calling, der
from tests.support_registration import OTHER_M2ME, UNIFORM, Usim, refusal, world


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def site(pki, tmp_path):
    async with world(pki, tmp_path) as made:
        made.add_device()
        made.add_device(OTHER_M2ME)
        yield made


async def token_of(site, identity):
    return (await Usim(identity).attach(site.network))["accessToken"]


def alarms(site):
    return site.ro.store.read_sync(repository.list_alarms)


async def test_a_pcid_that_a_device_registered_with_is_its_own(site):
    """T7, REQ-72: another M2ME with the stolen identity is refused, alarmed, and changes nothing for the owner."""
    number, identity = site.issue()
    owner = Usim(identity)
    await site.register((await owner.attach(site.network))["accessToken"])
    thief = Usim(identity)
    thief.state = owner.state  # he copied all of it
    stolen = (await thief.attach(site.network))["accessToken"]
    for _ in range(2):
        assert await refusal(site.register(stolen, m2meId=OTHER_M2ME)) == (403, "registration-refused", "")
    (alarm,) = alarms(site)
    assert (alarm["kind"], alarm["id"], alarm["m2meId"], alarm["boundTo"], alarm["count"]) == (
        "foreign-device", number, OTHER_M2ME, M2ME_ID, 2,
    )  # fmt: skip
    assert (await site.checks())["pcid-of-this-device"] is False
    assert [order.device_id for order in site.dpf_store.read_sync(list_orders)] == [M2ME_ID]
    assert site.ro.store.read_sync(lambda c: repository.get_identity(c, number)).m2me_id == M2ME_ID


async def test_with_the_gate_a_copied_pcid_gets_no_vectors_in_another_device(pki, tmp_path):
    """T7, REQ-17: the thief's own platform is a good one; the identity is another's."""
    async with world(pki, tmp_path, validation_gates_attach=True) as site:
        number, identity = site.issue()
        site.ro.store.write_sync(lambda c: repository.bind_identity(c, number, "", OTHER_M2ME, keep=True))
        device, req_id, nonce = Device(pki), uuid.uuid4(), os.urandom(32)
        body = {"imsi": identity.imsi, "treId": TRE_ID, "reqId": str(req_id)}
        asked = await site.network.post("/v1/attach", body)
        evidence = device.evidence(req_id=req_id, nonce=nonce, challenge=base64.b64decode(asked["challenge"]))
        platform = {
            "m2meId": M2ME_ID,
            "nonce": to_base64(nonce),
            "evidence": to_base64(evidence),
            "platformCert": der(device.platform_cert),
            "attestCert": der(device.attest_cert),
            "chain": [],
        }
        call = site.network.post(f"/v1/attach/{asked['session']}", {"platform": platform})
        assert await refusal(call) == UNIFORM
        assert [alarm["m2meId"] for alarm in alarms(site)] == [M2ME_ID]
        assert site.ro.store.read_sync(lambda c: repository.get_identity(c, number)).sqn == 0


async def test_an_expired_pcid_opens_nothing_also_in_the_middle_of_an_attach(site):
    """T7, REQ-72: at the challenge, at the response, and with a token that is still young."""
    _, identity = site.issue(days=1)
    usim = Usim(identity)
    token = (await usim.attach(site.network))["accessToken"]
    challenge = await site.network.post("/v1/attach", {"imsi": identity.imsi})
    site.clock.ahead = timedelta(days=1)
    assert await refusal(usim.answer(site.network, challenge)) == UNIFORM
    assert await refusal(usim.attach(site.network)) == UNIFORM
    assert (await refusal(site.register(token)))[:2] == (401, "access-token-refused")


async def test_a_young_token_of_an_identity_that_ended_opens_nothing(site):
    """T7, REQ-72: the identity's end is the token's."""
    _, identity = site.issue(days=1)
    site.clock.ahead = timedelta(days=1, seconds=-30)
    token = await token_of(site, identity)
    assert (await site.register(token))["state"] == "registered"
    site.clock.ahead = timedelta(days=1)
    assert (await refusal(site.register(token)))[:2] == (401, "access-token-refused")


async def test_an_identity_is_not_given_to_another_device_before_its_end(site):
    """T7, REQ-72: not even a withdrawn one; the first holder may still have it."""
    number, identity = site.issue(days=2)

    def reissue():
        keys, now = new_keys(), site.clock()
        again = ProvisionalIdentity(imsi=identity.imsi, keys=keys)
        done = site.ro.store.write_sync(
            lambda c: repository.reissue_identity(
                c, number, site.ro.vault.seal(again, 2), generation=2, not_after=now + timedelta(days=30),
                supplier=None, now=now,
            )
        )  # fmt: skip
        return done, again

    assert reissue()[0] is False
    site.ro.store.write_sync(lambda c: repository.withdraw_identity(c, number))
    assert reissue()[0] is False
    site.clock.ahead = timedelta(days=2)
    done, again = reissue()
    assert done is True
    assert reissue()[0] is False  # once
    assert (await Usim(again).attach(site.network))["result"] == "attached"


async def test_the_former_holder_of_a_reused_identity_is_out(site):
    """T7, REQ-72: other keys, other generation: his K, his token and his sealed keys in the row are worth nothing."""
    number, identity = site.issue(days=1)
    former = Usim(identity)
    token = (await former.attach(site.network))["accessToken"]
    await site.register(token)
    before = site.ro.store.read_sync(lambda c: repository.get_identity(c, number))
    site.clock.ahead = timedelta(days=1)
    again = ProvisionalIdentity(imsi=identity.imsi, keys=new_keys())
    sealed, now = site.ro.vault.seal(again, 2), site.clock()
    assert site.ro.store.write_sync(
        lambda c: repository.reissue_identity(
            c, number, sealed, generation=2, not_after=now + timedelta(days=30), supplier=None, now=now
        )
    )
    site.clock.ahead = timedelta(days=1, seconds=1)
    challenge = await site.network.post("/v1/attach", {"imsi": identity.imsi})
    assert type(former.judge(challenge)).__name__ == "MacFailure"
    assert (await refusal(site.register(token)))[:2] == (401, "access-token-refused")
    with pytest.raises(Exception, match="do not open"):
        site.ro.vault.open_keys(before.sealed, 2)
    heir = (await Usim(again).attach(site.network))["accessToken"]
    assert (await site.register(heir, m2meId=OTHER_M2ME))["state"] == "registered"  # the binding went with the keys


async def test_replayed_tokens_and_answers_gain_nothing(site):
    """T7: a recorded RES, a recorded token of an earlier attach, a token for another device."""
    _, identity = site.issue()
    usim = Usim(identity)
    challenge = await site.network.post("/v1/attach", {"imsi": identity.imsi})
    response = {"res": to_base64(usim.judge(challenge).res)}
    path = f"/v1/attach/{challenge['session']}"
    first = (await site.network.post(path, response))["accessToken"]
    assert await refusal(site.network.post(path, response)) == UNIFORM
    other = await site.network.post("/v1/attach", {"imsi": identity.imsi})
    assert await refusal(site.network.post(f"/v1/attach/{other['session']}", response)) == UNIFORM
    second = (await usim.attach(site.network))["accessToken"]
    assert (await refusal(site.register(first)))[:2] == (401, "access-token-refused")
    assert (await site.register(second))["state"] == "registered"
    assert await refusal(site.register(second, m2meId=OTHER_M2ME)) == (403, "registration-refused", "")


@pytest.mark.parametrize("policy", ["first-registration", "none"])
async def test_one_token_serves_one_device_whatever_the_policy(pki, tmp_path, policy):
    """T7: also where identities are not bound, one attach is one device."""
    async with world(pki, tmp_path, pcid_binding=policy) as site:
        site.add_device()
        site.add_device(OTHER_M2ME)
        _, identity = site.issue()
        usim = Usim(identity)
        token = (await usim.attach(site.network))["accessToken"]
        await site.register(token)
        assert (await refusal(site.register(token, m2meId=OTHER_M2ME)))[:2] == (403, "registration-refused")
        again = (await usim.attach(site.network))["accessToken"]
        call = site.register(again, m2meId=OTHER_M2ME)
        if policy == "none":
            assert (await call)["state"] == "registered"
        else:
            assert (await refusal(call))[:2] == (403, "registration-refused")


async def test_the_access_token_opens_the_registration_function_alone(site, pki):
    """T7: not the home operator, not the DPF; and mutual TLS does not let a device in anyway."""
    _, identity = site.issue()
    token = await token_of(site, identity)
    for url, path in ((site.urls["sho"], "/v1/registrations"), (site.urls["dpf"], "/v1/bootstraps")):
        async with calling(url, pki.client("stranger.example")) as client:
            body = {"m2meId": M2ME_ID, "push": site.push_address()}
            assert (await refusal(client.post(path, body, idempotency_key="k", bearer=token)))[0] == 403


async def test_flooding_with_attaches_is_bounded_and_the_owner_still_gets_in(pki, tmp_path):
    """T12: strangers with one PCID's digits fill no memory and keep nobody out for long."""
    async with world(pki, tmp_path, attach_sessions_max=8) as site:
        (_, victim), (_, other) = site.issue(), site.issue()
        await asyncio.gather(*(site.network.post("/v1/attach", {"imsi": victim.imsi}) for _ in range(40)))
        assert len(site.ro.sessions._sessions) <= MAX_PER_IDENTITY
        assert (await Usim(victim).attach(site.network))["result"] == "attached"
        assert (await Usim(other).attach(site.network))["result"] == "attached"


def outstanding(site):
    """Challenges that the PVA has given and nobody used."""
    with sqlite3.connect(site.directory / "pva.sqlite") as database:
        return database.execute("SELECT count(*) FROM challenge WHERE used_by IS NULL").fetchone()[0]


async def flood(site, identity, times):
    """A stranger with the digits of a PCID; which answers he gets."""
    calls = [
        site.network.post("/v1/attach", {"imsi": identity.imsi, "treId": f"tre-{each}", "reqId": str(uuid.uuid4())})
        for each in range(times)
    ]
    return [
        "busy" if isinstance(answer, PartnerUnavailable) else answer["result"]
        for answer in await asyncio.gather(*calls, return_exceptions=True)
    ]


async def test_flooding_the_gate_is_bounded_before_the_pva_is_asked(pki, tmp_path):
    """T12, REQ-17: one PCID gets so many challenges a minute, other PCIDs theirs, and its device soon again."""
    async with world(pki, tmp_path, validation_gates_attach=True) as site:
        moment = [0.0]
        site.ro.gate._clock = lambda: moment[0]
        (_, victim), (_, other) = site.issue(), site.issue()
        answers = await flood(site, victim, 20)
        assert (answers.count("validate"), answers.count("busy")) == (ASKED_PER_IDENTITY, 16)
        assert outstanding(site) == ASKED_PER_IDENTITY
        assert await flood(site, other, 1) == ["validate"]
        moment[0] = WINDOW_S
        assert await flood(site, victim, 1) == ["validate"]
        moment[0] = 2 * WINDOW_S
        await flood(site, other, 1)
        assert set(site.ro.gate._recent_of) == {other.imsi}  # who asks no more is forgotten
        assert len(site.ro.gate._waiting) == 1


async def test_the_gate_leaves_places_at_the_pva_to_others(pki, tmp_path):
    """T12, REQ-17: many PCIDs, as out of a supplier's file; a place is free when its challenge ended or was used."""
    async with world(pki, tmp_path, validation_gates_attach=True, gate_challenges_max=3) as site:
        moment = [0.0]
        site.ro.gate._clock = lambda: moment[0]
        stolen = [site.issue()[1] for _ in range(5)]
        answers = [(await flood(site, each, 1))[0] for each in stolen]
        assert answers == ["validate"] * 3 + ["busy"] * 2
        assert outstanding(site) == 3
        session = next(iter(site.ro.gate._waiting))
        junk = dict.fromkeys(("nonce", "evidence", "platformCert", "attestCert"), "AAAA") | {"m2meId": "m", "chain": []}
        assert await refusal(site.network.post(f"/v1/attach/{session}", {"platform": junk})) == UNIFORM
        assert outstanding(site) == 2
        assert await flood(site, stolen[3], 1) == ["validate"]
        moment[0] = 299.0  # the challenges of this PVA live for 300 s
        assert await flood(site, stolen[4], 1) == ["busy"]
        moment[0] = 300.0
        assert await flood(site, stolen[4], 1) == ["validate"]


async def test_names_of_visited_networks_are_bounded(pki, tmp_path):
    """T12: counters by visited network are a table that strangers write into."""
    async with world(pki, tmp_path, visited_networks_max=3) as site:
        for number in range(10):
            await refusal(site.network.post("/v1/attach", {"imsi": "001010000000000", "vno": f"2620{number}"}))
        await site.ro.store.write(lambda _: None)
        visits = site.ro.store.read_sync(repository.list_visits)
        assert {row["vno"]: row["count"] for row in visits} == {"26200": 1, "26201": 1, "26202": 1, "other": 7}


MALFORMED = {
    "no JSON": b"{",
    "no object": b"[]",
    "no identity": b"{}",
    "identity is a number": b'{"imsi": 7}',
    "too long": json.dumps({"imsi": "1" * 70_000}).encode(),
    "deep": b'{"imsi":' + b"[" * 20_000,
    "chain too long": json.dumps({"platform": {
        "m2meId": "m", "nonce": "", "evidence": "", "platformCert": "", "attestCert": "", "chain": [""] * 9}}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_request_is_refused_and_the_operator_goes_on(site, pki, body):
    """T12: bounds on size, depth and count; a typed answer."""
    async with aiohttp.ClientSession() as session:
        for path in ("/v1/attach", "/v1/attach/s"):
            async with session.post(site.urls["ro"].rstrip("/") + path, data=body, ssl=pki.client(None)) as answer:
                problem = await answer.json(content_type="application/problem+json")
                assert answer.status in (400, 403, 413)
                assert set(problem) <= {"type", "title", "status", "code", "detail"}
    _, identity = site.issue()
    assert (await Usim(identity).attach(site.network))["result"] == "attached"


async def test_a_thief_who_was_first_is_found_when_the_owner_comes(site):
    """T7: the binding cannot know who is the owner; the operator's list of alarms shows the clash, he withdraws."""
    number, identity = site.issue()
    await site.register(await token_of(site, identity), m2meId=OTHER_M2ME)
    owner = Usim(identity)
    token = (await owner.attach(site.network))["accessToken"]
    assert (await refusal(site.register(token)))[:2] == (403, "registration-refused")
    (alarm,) = alarms(site)
    assert (alarm["m2meId"], alarm["boundTo"]) == (M2ME_ID, OTHER_M2ME)
    site.ro.store.write_sync(lambda c: repository.withdraw_identity(c, number))
    with pytest.raises(PartnerRefused):
        await owner.attach(site.network)
    rows = site.ro.store.read_sync(lambda c: registration_rows.list_registrations(c, states=(), limit=9))
    assert [(row.m2me_id, row.state, row.sho_id) for row in rows] == [(OTHER_M2ME, State.BOOTSTRAPPED, SHO_ID)]
