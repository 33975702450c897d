"""The SHO over real TLS: hand-over, report, attach; and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from actor_runtime.http import PartnerRefused, PartnerUnavailable, to_base64
from mcim.aka import UsimState
from mcim.certificates import Role
from mcim.ticket import ticket_digest
from mcim.vocabulary import ResultCode, Suite
from sho.app import build, network_application, partner_application
from sho.store import handovers, repository
from tests.support_operators import (
    DPF_ID,
    M2ME_ID,
    SHO_ID,
    TRE_ID,
    Device,
    Pki,
    calling,
    der,
    ec_key,
    running,
)
from tests.support_sho import CREDENTIALS, OFFER, ORDER, Exchange, Usim, fill, serving, sho_settings, states


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki):
    return Device(pki)


@pytest.fixture
def settings(pki, tmp_path):
    return sho_settings(pki, tmp_path)


@pytest.fixture
async def sho(settings):
    sho = build(settings)
    await fill(sho)
    yield sho
    await sho.close()


@pytest.fixture
async def dpf(sho, pki):
    async with (
        running(partner_application(sho), pki.server(SHO_ID)) as url,
        calling(url, pki.client(DPF_ID)) as client,
    ):
        yield client


@pytest.fixture
async def network(sho, pki):
    async with (
        running(network_application(sho), pki.server(SHO_ID, mutual=False)) as url,
        calling(url, pki.client(None)) as client,
    ):
        yield client


# --- hand-over --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "suite"), [(None, Suite.RSA_GCM_256), ("ec", Suite.EC_GCM_256)], ids=["RSA", "EC"])
async def test_a_package_that_the_tre_can_open_and_nobody_else(sho, dpf, pki, key, suite):
    """REQ-24, REQ-29, REQ-30, REQ-31, REQ-57: first acceptable suite of the TRE, identities inside and outside."""
    exchange = Exchange(pki, Device(pki, platform_key=ec_key() if key else None))
    answer = await exchange.hand_over(dpf)
    assert answer["packageHash"] == hashlib.sha256(exchange.package).hexdigest()
    assert answer["sequence"] == 5
    header, content = exchange.open()
    assert header.suite is suite
    assert header.registration_nonce == content.registration_nonce == exchange.nonce
    assert (header.tre_id, header.m2me_id, header.sho_id, header.dpf_id) == (TRE_ID, M2ME_ID, SHO_ID, DPF_ID)
    assert (content.tre_id, content.sho_id, content.sequence) == (TRE_ID, SHO_ID, 5)
    assert str(header.mcim_id) == str(content.mcim_id) == answer["mcimId"]
    assert header.transaction_id == content.transaction_id
    assert header.ticket_digest == ticket_digest(exchange.ticket)
    assert (content.imsi, content.k, content.opc) == (CREDENTIALS[0].imsi, CREDENTIALS[0].k, CREDENTIALS[0].opc)
    assert content.sqn_init == 32 << 5
    assert await states(sho) == ["allocated", "free"]


async def test_a_retry_gets_the_same_package_octet_for_octet(sho, settings, dpf, pki, device):
    """One (ReqId, nonce), one signature: also for retries at the same time, and after a restart."""
    exchange = Exchange(pki, device)
    answers = await asyncio.gather(*(exchange.hand_over(dpf) for _ in range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert await states(sho) == ["allocated", "free"]
    again = build(settings)
    try:
        async with (
            running(partner_application(again), pki.server(SHO_ID)) as url,
            calling(url, pki.client(DPF_ID)) as client,
        ):
            assert await exchange.hand_over(client, ticket=exchange.make_ticket(ticket_id="2")) == answers[0]
    finally:
        await again.close()
    nonce = os.urandom(32)
    renewed = {"nonce": to_base64(nonce), "ticket": exchange.make_ticket(nonce=nonce)}
    with pytest.raises(PartnerRefused) as refused:
        await exchange.hand_over(dpf, **renewed)
    assert (refused.value.status, refused.value.code) == (409, "request-already-served")


async def test_a_new_request_of_the_same_tre_keeps_the_subscription_and_raises_the_sequence(sho, dpf, pki, device):
    """REQ-25, REQ-53: the nonce was renewed before delivery."""
    first, second = Exchange(pki, device), Exchange(pki, device)
    await first.hand_over(dpf)
    await second.hand_over(dpf)
    assert second.answer["sequence"] == first.answer["sequence"] + 1
    assert second.open()[1].imsi == first.open()[1].imsi
    assert await states(sho) == ["allocated", "free"]
    with pytest.raises(PartnerRefused) as refused:
        await first.hand_over(dpf)
    assert refused.value.code == "request-already-served"


OTHER_PVA = "urn:m2m:pva:other"
PAST = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


def other_pva(exchange, pki):
    key = ec_key()
    certificate = pki.pva.issue_role(key, Role.PVA, OTHER_PVA)
    return {"ticket": exchange.make_ticket(issuer=OTHER_PVA, key=key, chain=[certificate])}


def sho_as_pva(exchange, pki):
    return {"ticket": exchange.make_ticket(issuer=SHO_ID, key=pki.sho_key, chain=[pki.sho_cert])}


def another_platform_key(exchange, pki):
    """A DPF that swaps PK_D, with a good certificate on the other key (REQ-24)."""
    return {"platformCert": der(Device(pki, platform_key=ec_key()).platform_cert)}


def ticket(**changes):
    return lambda exchange, pki: {"ticket": exchange.make_ticket(**changes)}


def member(**changes):
    return lambda exchange, pki: changes


def offer(**changes):
    """Another offer, attested by the TRE."""

    def spoil(exchange, pki):
        exchange.offer |= changes
        return {"ticket": exchange.make_ticket()}

    return spoil


def platform(make):
    return lambda exchange, pki: {"platformCert": der(make(pki, exchange.device))}


REFUSED = {
    "ticket for another audience": (ticket(audience=(DPF_ID, "sho2.example")), "ticket-refused"),
    "ticket of another TRE": (ticket(tre_id="urn:m2m:tre:0002"), "ticket-refused"),
    "ticket of another device": (ticket(m2me_id="urn:imei:1"), "ticket-refused"),
    "ticket of another request": (ticket(req_id=str(uuid.UUID(int=1))), "ticket-refused"),
    "ticket with another nonce": (ticket(nonce=bytes(32)), "ticket-refused"),
    "ticket on another PK_D": (ticket(platform_key_id=bytes(16)), "ticket-refused"),
    "stale ticket": (ticket(issued_at=PAST, expires_at=PAST + timedelta(hours=1)), "ticket-refused"),
    "ticket of another PVA": (other_pva, "ticket-refused"),
    "ticket signed by the SHO": (sho_as_pva, "ticket-refused"),
    "no ticket": (member(ticket="x"), "ticket-refused"),
    "ticket made for another DPF": (ticket(audience=("dpf2.example", SHO_ID)), "ticket-refused"),
    "PK_D swapped": (another_platform_key, "ticket-refused"),
    "platform certificate by another root": (
        platform(lambda p, d: p.sho.issue_role(d.platform_key, Role.PLATFORM, TRE_ID, serial=M2ME_ID)),
        "platform-certificate-refused",
    ),
    "attestation certificate as platform certificate": (
        platform(lambda p, d: d.attest_cert), "platform-certificate-refused"
    ),
    "expired platform certificate": (
        platform(lambda p, d: p.manufacturer.issue_role(
            d.platform_key, Role.PLATFORM, TRE_ID, serial=M2ME_ID, until=PAST)),
        "platform-certificate-refused",
    ),
    "certificate of another device": (
        platform(lambda p, d: p.manufacturer.issue_role(d.platform_key, Role.PLATFORM, TRE_ID, serial="x")),
        "platform-certificate-refused",
    ),
    "no certificate": (member(platformCert="AAAA"), "platform-certificate-refused"),
    "unknown order": (member(orderId="other"), "order-unknown"),
    "our own id of the order": (member(orderId="own"), "order-unknown"),
    "order of another device": (member(m2meId="urn:imei:1"), "order-unknown"),
    "another DPF's id": (member(dpfId="dpf2.example"), "client-not-allowed"),
    "no suite in common": (offer(suites=["MCIM-LEGACY-1", "X"]), "suite-not-acceptable"),
    "suites for another type of key": (offer(suites=["MCIM-EC-GCM-256"]), "suite-not-acceptable"),
    "no container in common": (offer(containers=["raw", "X"]), "container-not-acceptable"),
    "no algorithm in common": (offer(algorithms=["tuak128"]), "algorithm-not-acceptable"),
    "no algorithm of ours": (offer(algorithms=["xor"]), "algorithm-not-acceptable"),
    "offer without the better suites": (member(suites=["MCIM-RSA-CBC-256"]), "offer-altered"),
    "offer with another container": (member(containers=["xml-mgf1p"]), "offer-altered"),
    "offer in another order": (member(suites=[*reversed(OFFER["suites"])]), "offer-altered"),
    "offer with two suites glued": (
        member(suites=[" ".join(OFFER["suites"][:-1]), OFFER["suites"][-1]]), "malformed-request"
    ),  # the digest that the TRE attested is the same (T16)
    "offer with a list cut elsewhere": (
        member(suites=OFFER["suites"][:-1], containers=[f"{OFFER['suites'][-1]}\nxml"]), "malformed-request"
    ),
    "offer that nobody attested": (ticket(capabilities=b""), "ticket-refused"),
    "operation that nobody ordered": (member(operation="delete"), "operation-not-ordered"),
    "operation that is none": (member(operation="release"), "malformed-request"),
    "offer without end": (offer(suites=["X"] * 33), "malformed-request"),
    "TRE does not know our root": (member(trustAnchors=["00" * 20]), "no-common-trust-anchor"),
    "short nonce": (member(nonce="AAAA"), "malformed-request"),
    "request id is no UUID": (member(reqId="r"), "malformed-request"),
    "sequence out of range": (member(nextSequence=2**63), "malformed-request"),
    "sequence that would use up the TRE's": (member(nextSequence=2**63 - 1), "sequence-out-of-range"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_does_not_hold_together_gets_nothing(sho, dpf, pki, device, spoil, code):
    """REQ-19, REQ-20, REQ-24, REQ-27, REQ-39, REQ-43, REQ-46, T16: and nothing is allocated."""
    exchange = Exchange(pki, device)
    with pytest.raises(PartnerRefused) as refused:
        await exchange.hand_over(dpf, **spoil(exchange, pki))
    assert refused.value.code == code
    assert await states(sho) == ["free", "free"]


async def test_an_empty_inventory_is_a_typed_refusal(settings, pki, device):
    sho = build(settings.model_copy(update={"require_order": False}))
    try:
        async with (
            running(partner_application(sho), pki.server(SHO_ID)) as url,
            calling(url, pki.client(DPF_ID)) as dpf,
        ):
            with pytest.raises(PartnerRefused) as refused:
                await Exchange(pki, device).hand_over(dpf)
            assert (refused.value.status, refused.value.code) == (409, "no-subscription")
    finally:
        await sho.close()


async def test_only_partners_on_the_list_get_in(sho, pki, device):
    """REQ-24: mutual TLS."""
    async with running(partner_application(sho), pki.server(SHO_ID)) as url:
        async with calling(url, pki.client("stranger.example")) as stranger:
            with pytest.raises(PartnerRefused) as refused:
                await Exchange(pki, device).hand_over(stranger)
            assert refused.value.code == "client-not-allowed"
        async with calling(url, pki.client(None)) as nobody:
            with pytest.raises(PartnerUnavailable):
                await nobody.get("/healthz")


# --- report -----------------------------------------------------------------------------------------


async def test_a_receipt_arms_the_subscription_and_repeats_change_nothing(sho, dpf, pki, device):
    """REQ-67, REQ-68."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(dpf)
    for _ in range(2):
        assert await exchange.report(dpf, exchange.receipt()) == {"acknowledged": True, "subscription": "armed"}
    late = exchange.receipt(result=ResultCode.REPLAY, counter=3)  # what a second try on the device would say
    assert (await exchange.report(dpf, late, result=1409))["subscription"] == "armed"
    assert await states(sho) == ["armed", "free"]
    order = await sho.store.read(lambda c: repository.find_order(c, ORDER))
    assert order["state"] == "fulfilled"


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_refusal_before_the_tre_had_anything_ends_the_order_and_arms_nothing(
    sho, dpf, pki, device, handed_over
):
    """REQ-23, REQ-68: the home operator is told; without a receipt nothing changes that decides who may attach."""
    exchange = Exchange(pki, device)
    if handed_over:
        await exchange.hand_over(dpf)
    before = await states(sho)
    for _ in range(2):
        assert await exchange.report(dpf, b"", result=1400) == {"acknowledged": True, "subscription": "none"}
    assert await states(sho) == before
    order = await sho.store.read(lambda c: repository.find_order(c, ORDER))
    assert order["state"] == "refused"
    with pytest.raises(PartnerRefused, match="order-unknown"):
        await exchange.report(dpf, b"", result=1400, orderId="other")


async def test_two_processes_serve_one_database(settings, pki, device):
    """REQ-16, REQ-25, REQ-52: a request at once at both is one package; two requests are one subscription."""
    async with serving(settings, pki) as (sho, one), serving(settings, pki) as (_, two):
        await fill(sho)
        exchange, newer, newest = (Exchange(pki, device) for _ in range(3))
        answers = await asyncio.gather(*(exchange.hand_over(dpf) for dpf in (one, two, one, two)))
        assert all(answer == answers[0] for answer in answers)
        await asyncio.gather(newer.hand_over(one), newest.hand_over(two))
        assert len({each.answer["sequence"] for each in (exchange, newer, newest)}) == 3
        assert await states(sho) == ["allocated", "free"]
        receipt = newer.receipt(counter=2)
        taken = await asyncio.gather(*(newer.report(dpf, receipt) for dpf in (one, two, one)))
        assert [each["subscription"] for each in taken] == ["armed"] * 3
        assert await states(sho) == ["armed", "free"]


async def test_who_is_second_with_a_request_finds_the_first(sho, dpf, pki, device, monkeypatch):
    """REQ-16, REQ-25: on a database with several writers the same request may come in between; nobody hears of it."""
    allocate, calls = handovers.allocate, []

    def overtaken(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise IntegrityError("INSERT", {}, Exception("uq_handover_request"))
        return allocate(*arguments, **options)

    monkeypatch.setattr(handovers, "allocate", overtaken)
    assert "package" in await Exchange(pki, device).hand_over(dpf)
    assert await states(sho) == ["allocated", "free"]


async def test_an_order_is_ended_by_the_dpf_that_handed_it_over(settings, pki, device):
    """T10, REQ-23: another partner that learnt the order's id ends nothing."""
    partners = frozenset({DPF_ID, "stranger.example"})
    async with serving(settings.model_copy(update={"allowed_clients": partners}), pki) as (sho, dpf):
        await fill(sho)
        exchange = Exchange(pki, device)
        await exchange.hand_over(dpf)
        async with (
            running(partner_application(sho), pki.server(SHO_ID)) as url,
            calling(url, pki.client("stranger.example")) as other,
        ):
            with pytest.raises(PartnerRefused, match="order-unknown"):
                await exchange.report(other, b"", result=1400)
        order = await sho.store.read(lambda c: repository.find_order(c, ORDER))
        assert order["state"] == "handed-over"


@pytest.mark.parametrize("fulfilled", [True, False], ids=["fulfilled", "refused"])
async def test_an_order_gives_one_mcim(sho, dpf, pki, device, fulfilled):
    """REQ-13, T8: a DPF cannot draw a second subscription from an order that is over."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(dpf)
    await (exchange.finish(dpf, counter=2) if fulfilled else exchange.report(dpf, b"", result=1400))
    before = await states(sho)
    with pytest.raises(PartnerRefused) as caught:
        await Exchange(pki, device).hand_over(dpf)
    assert (caught.value.status, caught.value.code) == (409, "order-over")
    assert await states(sho) == before


FORGED = {
    "another result": ({}, {"result": 1416}, "receipt-refused"),
    "another package": ({"package_hash": bytes(32)}, {}, "receipt-refused"),
    "another nonce": ({"nonce": bytes(32)}, {}, "receipt-refused"),
    "no nonce": ({"nonce": None}, {}, "receipt-refused"),
    "another sequence": ({"sequence": 4}, {}, "receipt-refused"),
    "another MCIM": ({"mcim_id": uuid.UUID(int=1)}, {}, "receipt-refused"),
    "another SHO": ({"sho_id": "sho2.example"}, {}, "receipt-refused"),
    "another TRE": ({"tre_id": "urn:m2m:tre:0002"}, {}, "receipt-refused"),
    "no receipt": ({}, {"receipt": ""}, "receipt-refused"),
    "unknown request": ({}, {"reqId": str(uuid.UUID(int=1))}, "handover-unknown"),
    "unknown order": ({}, {"orderId": "other"}, "handover-unknown"),
    "no certificate": ({}, {"attestCert": "AAAA"}, "attest-certificate-refused"),
}


@pytest.mark.parametrize(("fields", "members", "code"), FORGED.values(), ids=FORGED)
async def test_a_forged_receipt_arms_nothing(sho, dpf, pki, device, fields, members, code):
    """REQ-67: T10, a false report of success."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(dpf)
    with pytest.raises(PartnerRefused) as refused:
        await exchange.report(dpf, exchange.receipt(**fields), **members)
    assert refused.value.code == code
    assert await states(sho) == ["allocated", "free"]


async def test_a_receipt_by_another_key_with_the_same_names_arms_nothing(sho, dpf, pki, device):
    """REQ-67: the attestation key is the one in the PVA's ticket, not any the manufacturer certified."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(dpf)
    exchange.device = Device(pki, platform_key=device.platform_key)
    with pytest.raises(PartnerRefused) as refused:
        await exchange.report(dpf, exchange.receipt())
    assert (refused.value.status, refused.value.code) == (403, "attest-certificate-refused")
    good = exchange.receipt()
    exchange.device = device
    with pytest.raises(PartnerRefused) as refused:
        await exchange.report(dpf, good)
    assert (refused.value.status, refused.value.code) == (403, "receipt-refused")
    assert await states(sho) == ["allocated", "free"]


async def test_a_package_broken_on_the_way_is_reported_with_its_own_hash(sho, dpf, pki, device):
    """REQ-32, REQ-67: the header could be read, the signature was wrong."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(dpf)
    failure = exchange.receipt(result=ResultCode.SIGNATURE_INVALID, package_hash=bytes(32))
    assert (await exchange.report(dpf, failure, result=1411))["subscription"] == "free"
    # Sent again, it installs: the TRE had not used up its nonce.
    assert (await exchange.report(dpf, exchange.receipt(counter=3)))["subscription"] == "armed"


async def test_a_failure_frees_the_subscription_for_the_same_device_first(sho, dpf, pki, device):
    """REQ-68: no AuC change; the same package may still be installed on a later try, so others have to wait."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(dpf)
    failure = exchange.receipt(
        result=ResultCode.SIGNATURE_INVALID, package_hash=bytes(32), mcim_id=None, sho_id=None, sequence=None,
        nonce=None, operation=None, revision=None,
    )  # fmt: skip
    for _ in range(2):
        assert (await exchange.report(dpf, failure, result=1411))["subscription"] == "free"
    retried = Exchange(pki, device)
    await retried.hand_over(dpf)
    assert retried.open()[1].imsi == CREDENTIALS[0].imsi
    assert await states(sho) == ["allocated", "free"]
    with pytest.raises(PartnerRefused) as refused:  # the old failure, replayed about the new request
        await retried.report(dpf, failure, result=1411)
    assert refused.value.code == "receipt-refused"
    assert (await retried.report(dpf, retried.receipt(counter=3)))["subscription"] == "armed"


# --- attach -----------------------------------------------------------------------------------------


@pytest.fixture
async def armed(dpf, pki, device):
    exchange = Exchange(pki, device)
    await exchange.hand_over(dpf)
    await exchange.report(dpf, exchange.receipt())
    return Usim(exchange.open()[1])


async def test_the_first_attach_resynchronises_and_the_next_does_not(sho, network, armed):
    """REQ-69: the MCIM starts ahead of the AuC."""
    assert await armed.attach(network) == ({"result": "attached", "imsiMask": "00101********01"}, 1)
    assert (await armed.attach(network))[1] == 0
    rows = await sho.store.read(lambda c: repository.list_subscriptions(c, state="armed", limit=2))
    assert rows[0]["attached"]


async def test_sqn_is_stored_before_a_vector_leaves_and_survives_a_restart(sho, settings, pki, network, armed):
    """REQ-69: no vector is made twice with one SQN."""
    await armed.attach(network)
    index = sho.vault.index(armed.imsi)
    before = (await sho.store.read(lambda c: repository.find_subscription(c, index))).sqn
    await network.post("/v1/attach", {"imsi": armed.imsi})  # and never answered
    assert (await sho.store.read(lambda c: repository.find_subscription(c, index))).sqn > before
    again = build(settings)
    try:
        async with (
            running(network_application(again), pki.server(SHO_ID, mutual=False)) as url,
            calling(url, pki.client(None)) as client,
        ):
            assert (await armed.attach(client))[1] == 0
    finally:
        await again.close()


async def refusal(call):
    with pytest.raises(PartnerRefused) as refused:
        await call
    return refused.value.status, refused.value.code, refused.value.detail


async def test_every_refusal_looks_the_same(sho, network, dpf, pki, armed):
    """REQ-68, REQ-69: unknown, not armed, wrong RES, wrong AUTS, MAC failure, used session."""
    uniform = (403, "attach-refused", "")

    async def challenged():
        return f"/v1/attach/{(await network.post('/v1/attach', {'imsi': armed.imsi}))['session']}"

    assert await refusal(network.post("/v1/attach", {"imsi": "001019999999999"})) == uniform
    assert await refusal(network.post("/v1/attach", {"imsi": CREDENTIALS[1].imsi})) == uniform
    path = await challenged()
    assert await refusal(network.post(path, {"res": to_base64(bytes(8))})) == uniform
    assert await refusal(network.post(path, {"res": to_base64(bytes(8))})) == uniform  # the session is used up
    assert await refusal(network.post(await challenged(), {"res": ""})) == uniform
    assert await refusal(network.post(await challenged(), {"auts": to_base64(bytes(14))})) == uniform
    assert await refusal(network.post(await challenged(), {"failure": "mac"})) == uniform
    status, code, _ = await refusal(network.post(await challenged(), {"res": "", "auts": ""}))
    assert (status, code) == (400, "malformed-request")


async def test_one_resynchronisation_and_no_more(network, armed):
    """REQ-69: the second AUTS in a row ends the attach."""
    challenge = await network.post("/v1/attach", {"imsi": armed.imsi})
    result = armed.judge(challenge)
    challenge = await network.post(f"/v1/attach/{challenge['session']}", {"auts": to_base64(result.auts)})
    armed.state = UsimState.initial(2**40)  # the device jumps ahead again
    result = armed.judge(challenge)
    path = f"/v1/attach/{challenge['session']}"
    assert await refusal(network.post(path, {"auts": to_base64(result.auts)})) == (403, "attach-refused", "")


async def test_an_auc_that_lost_its_sqn_catches_up(sho, network, armed):
    """REQ-69: resynchronisation in the other direction than the first attach."""
    await armed.attach(network)
    index = sho.vault.index(armed.imsi)
    row = await sho.store.read(lambda c: repository.find_subscription(c, index))
    await sho.store.write(lambda c: repository.set_sqn(c, row.id, 0))
    assert (await armed.attach(network))[1] == 1
    await sho.store.write(lambda c: repository.set_sqn(c, row.id, 2**46))  # beyond the jump a USIM accepts
    assert (await armed.attach(network))[1] == 1


async def test_used_up_sequence_numbers_are_a_refusal(sho, network, armed):
    """REQ-69: 48 bits, and no vector with an SQN that was there before."""
    index = sho.vault.index(armed.imsi)
    row = await sho.store.read(lambda c: repository.find_subscription(c, index))
    await sho.store.write(lambda c: repository.set_sqn(c, row.id, 2**48 - 1))
    assert await refusal(network.post("/v1/attach", {"imsi": armed.imsi})) == (403, "attach-refused", "")


async def test_an_imsi_that_is_no_text_is_a_malformed_request(network):
    """REQ-69: a lone surrogate, which JSON can spell and UTF-8 cannot."""
    with pytest.raises(PartnerRefused) as caught:
        await network.post("/v1/attach", {"imsi": "\ud800"})
    assert (caught.value.status, caught.value.code) == (400, "malformed-request")


# --- secrets and trail ------------------------------------------------------------------------------


async def test_no_secret_is_in_database_or_trace_in_clear(sho, settings, network, armed):
    """REQ-71: K, OPc, IMSI neither as octets nor in hex or Base64; the trail names requirements and steps."""
    await armed.attach(network)
    await sho.store.write(lambda c: c.execute(text("SELECT 1")))
    directory = settings.trace_file.parent
    dumps = b"".join(path.read_bytes() for path in directory.iterdir() if path != settings.seal_key)
    for credential in CREDENTIALS:
        for secret in (credential.k, credential.opc):
            for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
                assert form not in dumps
        assert credential.imsi.encode() not in dumps
    records = [json.loads(line) for line in settings.trace_file.read_text().splitlines()]
    checks = {record["name"]: record for record in records if record["kind"] == "check"}
    assert all(record["passed"] and record["req"] and record["order"] == ORDER for record in checks.values())
    assert {"platform-certificate", "pva-ticket", "pva-ticket-binding", "suite"} <= {
        name for name, record in checks.items() if record["step"] == "12"
    }
    assert {"attest-certificate", "receipt-signature", "receipt-binding"} <= {
        name for name, record in checks.items() if record["step"] == "15"
    }
    assert {"subscription-armed", "aka-resynchronisation", "aka-response"} <= {
        name for name, record in checks.items() if record["step"] == "16"
    }
    changes = [(r["old"], r["new"]) for r in records if r["kind"] == "state" and r["subject"] == "subscription"]
    assert changes == [("free", "allocated"), ("allocated", "armed")]
