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

from actor_runtime.http import PartnerRefused, PartnerUnavailable, to_base64
from mcim.aka import Accepted, SyncFailure, UsimState
from mcim.certificates import Role, TrustAnchors
from mcim.content import parse_content
from mcim.data import decode_data
from mcim.key_id import key_id_of
from mcim.mcim_object import open_mcim
from mcim.milenage import Milenage
from mcim.package import open_package, verify_package
from mcim.platform_key import SoftwarePlatformKey
from mcim.ticket import Ticket, issue_ticket, ticket_digest
from mcim.vocabulary import ResultCode, Suite, ValidationMode
from sho.app import build, network_application, partner_application
from sho.config import ShoSettings
from sho.store import repository
from sho.subscriptions import Credential
from tests.support_operators import (
    DPF_ID,
    M2ME_ID,
    PVA_ID,
    SHO_ID,
    TRE_ID,
    TRE_TYPE,
    TRE_VERSION,
    Device,
    Pki,
    calling,
    der,
    ec_key,
    running,
)

CREDENTIALS = [
    Credential(imsi=f"00101000000{number:04}", k=bytes([number]) * 15 + b"k", opc=bytes([number]) * 15 + b"o")
    for number in (1, 2)
]
ORDER = "0b5f7bd2-9a04-4b53-9d3c-2f6f0a8f5a11"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki):
    return Device(pki)


@pytest.fixture
def settings(pki, tmp_path):
    return ShoSettings(
        sho_id=SHO_ID,
        database_url=f"sqlite:///{tmp_path / 'sho.sqlite'}",
        seal_key=tmp_path / "seal.key",
        trace_file=tmp_path / "trace.jsonl",
        tls_cert=pki.path(f"{SHO_ID}.tls.crt"),
        tls_key=pki.path(f"{SHO_ID}.tls.key"),
        tls_ca=pki.path("tls-anchors.pem"),
        allowed_clients=frozenset({DPF_ID}),
        signing_cert=pki.path("sho-signing.crt"),
        signing_key=pki.path("sho-signing.key"),
        manufacturer_anchors=pki.path("manufacturer-anchors.pem"),
        pva_anchors=pki.path("pva-anchors.pem"),
        pva_id=PVA_ID,
    )


async def fill(sho):
    now = datetime.now(UTC)

    def add(connection):
        for credential in CREDENTIALS:
            repository.add_subscription(
                connection, sho.vault.seal(credential), imsi_mask=credential.imsi_mask, amf=b"\x80\x00", now=now
            )
        repository.add_order(connection, id="own", m2me_id=M2ME_ID, dpf_url="https://d", reason="initial", now=now)
        repository.set_order_opened(connection, "own", ORDER)

    await sho.store.write(add)


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


async def states(sho):
    rows = await sho.store.read(lambda c: repository.list_subscriptions(c, state=None, limit=10))
    return [row["state"] for row in rows]


class Exchange:
    """One provisioning as the DPF and the device see it; a test may spoil it at any place."""

    def __init__(self, pki, device, **ticket):
        self.pki, self.device = pki, device
        self.req_id, self.nonce = uuid.uuid4(), os.urandom(32)
        self.ticket = self.make_ticket(**ticket)

    def make_ticket(self, *, key=None, chain=None, **changes):
        now = datetime.now(UTC).replace(microsecond=0)
        values = {
            "issuer": PVA_ID,
            "audience": (DPF_ID, SHO_ID),
            "tre_id": self.device.tre_id,
            "m2me_id": self.device.m2me_id,
            "req_id": str(self.req_id),
            "nonce": self.nonce,
            "platform_key_id": self.device.platform_key_id,
            "attest_key_id": self.attest_key_id,
            "mode": ValidationMode.SEMI_AUTONOMOUS,
            "tre_type": TRE_TYPE,
            "tre_version": TRE_VERSION,
            "issued_at": now,
            "expires_at": now + timedelta(hours=1),
            "ticket_id": "1",
        }
        return issue_ticket(Ticket(**values | changes), key or self.pki.pva_key, chain or [self.pki.pva_cert])

    @property
    def attest_key_id(self):
        return key_id_of(self.device.attest_key.public_key())

    def body(self, **changes):
        return {
            "reqId": str(self.req_id),
            "orderId": ORDER,
            "m2meId": self.device.m2me_id,
            "treId": self.device.tre_id,
            "treType": TRE_TYPE,
            "suites": ["MCIM-LEGACY-1", "X-NEW", "MCIM-EC-GCM-256", "MCIM-RSA-GCM-256", "MCIM-RSA-CBC-256"],
            "containers": ["xml"],
            "algorithms": ["milenage"],
            "trustAnchors": [self.pki.sho.key_id],
            "platformCert": der(self.device.platform_cert),
            "chain": [],
            "nonce": to_base64(self.nonce),
            "nextSequence": 5,
            "ticket": self.ticket,
            "dpfId": DPF_ID,
        } | changes

    async def hand_over(self, dpf, **changes):
        body = self.body(**changes)
        answer = await dpf.post("/v1/handover", body, idempotency_key=f"{self.req_id}:handover")
        self.answer = answer
        self.package = base64.b64decode(answer["package"])
        return answer

    def open(self):
        """What the TRE does: verify, open, parse."""
        anchors = TrustAnchors((self.pki.sho.certificate,), "sho")
        verified = verify_package(self.package, anchors=anchors, now=datetime.now(UTC), expected_sho_id=SHO_ID)
        key = SoftwarePlatformKey(self.device.platform_key)
        opened = open_mcim(open_package(verified, key), key, accepted=frozenset(Suite), random=os.urandom)
        data = decode_data(opened)
        return verified.header, parse_content(data.tag, data.payload)

    def receipt(self, **changes):
        values = {
            "mcim_id": uuid.UUID(self.answer["mcimId"]),
            "sequence": self.answer["sequence"],
            "nonce": self.nonce,
            "package_hash": hashlib.sha256(self.package).digest(),
        }
        return self.device.receipt(**values | changes)

    async def report(self, dpf, octets, result=1200, **changes):
        return await dpf.post(
            "/v1/report",
            {
                "orderId": ORDER,
                "reqId": str(self.req_id),
                "receipt": to_base64(octets),
                "attestCert": der(self.device.attest_cert),
                "chain": [],
                "result": result,
            }
            | changes,
        )


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
    "no suite in common": (member(suites=["MCIM-LEGACY-1", "X"]), "suite-not-acceptable"),
    "suites for another type of key": (member(suites=["MCIM-EC-GCM-256"]), "suite-not-acceptable"),
    "no container in common": (member(containers=["cms", "raw"]), "container-not-acceptable"),
    "no algorithm in common": (member(algorithms=["tuak128"]), "algorithm-not-acceptable"),
    "TRE does not know our root": (member(trustAnchors=["00" * 20]), "no-common-trust-anchor"),
    "short nonce": (member(nonce="AAAA"), "malformed-request"),
    "request id is no UUID": (member(reqId="r"), "malformed-request"),
    "sequence out of range": (member(nextSequence=2**63), "malformed-request"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_does_not_hold_together_gets_nothing(sho, dpf, pki, device, spoil, code):
    """REQ-19, REQ-20, REQ-24, REQ-27, REQ-43, REQ-46: and nothing is allocated."""
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


class Usim:
    """The device's side of AKA, with what came in the package."""

    def __init__(self, content):
        self.imsi, self.functions = content.imsi, Milenage(content.k, content.opc)
        self.state = UsimState.initial(content.sqn_init)

    def judge(self, challenge):
        rand, autn = base64.b64decode(challenge["rand"]), base64.b64decode(challenge["autn"])
        self.state, result = self.state.verify(self.functions, rand=rand, autn=autn)
        return result

    async def attach(self, network):
        """Attach; returns the final answer and the number of resynchronisations."""
        challenge, resyncs = await network.post("/v1/attach", {"imsi": self.imsi}), 0
        while True:
            result, path = self.judge(challenge), f"/v1/attach/{challenge['session']}"
            if isinstance(result, Accepted):
                return await network.post(path, {"res": to_base64(result.res)}), resyncs
            assert isinstance(result, SyncFailure)
            resyncs += 1
            challenge = await network.post(path, {"auts": to_base64(result.auts)})
            assert challenge["result"] == "challenge"


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
