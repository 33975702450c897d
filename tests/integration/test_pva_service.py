"""The PVA over real mutual TLS: challenge, evidence, ticket; and every way to get none."""

from __future__ import annotations

import base64
import itertools
import json
import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from actor_runtime.http import PartnerRefused, PartnerUnavailable, to_base64
from mcim.certificates import Role, TrustAnchors
from mcim.ticket import verify_ticket
from mcim.vocabulary import ValidationMode
from pva.app import application, build
from pva.config import PvaSettings
from pva.references import Reference
from pva.store import repository, tables
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
    rsa_key,
    running,
)

COUNTER = itertools.count(1)  # of the evidence of every TRE here


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki):
    return Device(pki)


class Clock:
    def __init__(self):
        self.ahead = timedelta()

    def __call__(self):
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def settings(pki, tmp_path):
    return PvaSettings(
        pva_id=PVA_ID,
        database_url=f"sqlite:///{tmp_path / 'pva.sqlite'}",
        trace_file=tmp_path / "trace.jsonl",
        tls_cert=pki.path("pva.example.tls.crt"),
        tls_key=pki.path("pva.example.tls.key"),
        tls_ca=pki.path("tls-anchors.pem"),
        allowed_clients=frozenset({DPF_ID}),
        signing_cert=pki.path("pva-signing.crt"),
        signing_key=pki.path("pva-signing.key"),
        manufacturer_anchors=pki.path("manufacturer-anchors.pem"),
    )


@pytest.fixture
async def pva(settings):
    clock = Clock()
    pva = build(settings, now=clock)
    now = datetime.now(UTC)
    known = Reference(tre_type=TRE_TYPE, version=TRE_VERSION)
    await pva.store.write(lambda c: repository.put_reference(c, known, now=now))
    yield pva
    await pva.close()


@pytest.fixture
async def url(pva, pki):
    async with running(application(pva), pki.server("pva.example")) as url:
        yield url


@pytest.fixture
async def dpf(url, pki):
    async with calling(url, pki.client(DPF_ID)) as client:
        yield client


class Exchange:
    """One validation, which a test may spoil at any place."""

    def __init__(self, device):
        self.device, self.req_id, self.nonce, self.challenge = device, uuid.uuid4(), os.urandom(32), b""

    async def ask(self, dpf, **changes):
        body = {"reqId": str(self.req_id), "treId": self.device.tre_id, "mode": "semi-autonomous"} | changes
        answer = await dpf.post("/v1/challenge", body, idempotency_key=f"{self.req_id}:challenge")
        self.challenge = base64.b64decode(answer["challenge"])
        return answer

    def body(self, **evidence):
        counted = {"counter": next(COUNTER)}
        evidence = counted | {"req_id": self.req_id, "nonce": self.nonce, "challenge": self.challenge} | evidence
        return {
            "reqId": str(self.req_id),
            "m2meId": self.device.m2me_id,
            "treId": self.device.tre_id,
            "platformCert": der(self.device.platform_cert),
            "attestCert": der(self.device.attest_cert),
            "chain": [],
            "evidence": to_base64(self.device.evidence(**evidence)),
            "nonce": to_base64(self.nonce),
            "challenge": to_base64(self.challenge),
            "mode": "semi-autonomous",
            "audience": [DPF_ID, SHO_ID],
        }


async def test_good_evidence_gets_a_ticket_that_names_everything(dpf, pki, device):
    """REQ-17, REQ-19: the ticket binds PVA, audience, TRE, both keys, request and nonce."""
    exchange = Exchange(device)
    answer = await exchange.ask(dpf)
    assert len(exchange.challenge) == 32
    assert datetime.now(UTC) < datetime.fromisoformat(answer["exp"])
    token = (await dpf.post("/v1/validate", exchange.body()))["ticket"]
    for audience in (DPF_ID, SHO_ID):
        ticket = verify_ticket(
            token, TrustAnchors((pki.pva.certificate,), "pva"), datetime.now(UTC), audience=audience, pva_id=PVA_ID
        )
    ticket.check_binding(
        tre_id=TRE_ID,
        req_id=str(exchange.req_id),
        nonce=exchange.nonce,
        platform_key_id=device.platform_key_id,
        mode=ValidationMode.SEMI_AUTONOMOUS,
    )
    assert ticket.m2me_id == M2ME_ID
    assert (ticket.tre_type, ticket.tre_version) == (TRE_TYPE, TRE_VERSION)


async def test_repeating_a_request_repeats_the_decision_and_nothing_else_uses_the_challenge(dpf, pva, device):
    """REQ-18: a challenge serves one request; a lost answer can be fetched again."""
    exchange = Exchange(device)
    await exchange.ask(dpf)
    body = exchange.body()
    first = await dpf.post("/v1/validate", body)
    assert await dpf.post("/v1/validate", body) == first
    with pytest.raises(PartnerRefused) as refused:
        await dpf.post("/v1/validate", exchange.body())
    assert refused.value.detail == "challenge-known-and-unused"
    decisions = await pva.store.read(lambda c: repository.list_decisions(c, limit=10))
    assert [decision["trusted"] for decision in decisions] == [False, True]


SPOILED_EVIDENCE = {
    "another challenge": ({"challenge": bytes(32)}, "evidence-challenge"),
    "another nonce": ({"nonce": bytes(32)}, "evidence-nonce"),
    "another request": ({"req_id": uuid.UUID(int=1)}, "evidence-request"),
    "another PK_D": ({"platform_key_id": bytes(16)}, "evidence-platform-key"),
    "another TRE": ({"tre_id": "urn:m2m:tre:0002"}, "evidence-identities"),
    "another device": ({"m2me_id": "urn:imei:1"}, "evidence-identities"),
    "another mode": ({"mode": ValidationMode.REMOTE}, "evidence-mode"),
    "tampered TRE": ({"tre_state": "tampered"}, "tre-state"),
    "unknown version": ({"tre_version": "0.9"}, "reference-value"),
    "unknown type": ({"tre_type": "toy"}, "reference-value"),
}


@pytest.mark.parametrize(("spoiled", "reason"), SPOILED_EVIDENCE.values(), ids=SPOILED_EVIDENCE)
async def test_evidence_of_something_else_is_not_trusted(dpf, pva, settings, device, spoiled, reason):
    """REQ-18, REQ-23: a negative decision is a problem, is on record, and names the check."""
    exchange = Exchange(device)
    await exchange.ask(dpf)
    with pytest.raises(PartnerRefused) as refused:
        await dpf.post("/v1/validate", exchange.body(**spoiled))
    assert (refused.value.status, refused.value.code) == (403, "platform-not-trusted")
    assert refused.value.detail == reason
    decision = (await pva.store.read(lambda c: repository.list_decisions(c, limit=1)))[0]
    assert (decision["trusted"], decision["reason"]) == (False, reason)
    records = [json.loads(line) for line in settings.trace_file.read_text().splitlines()]
    failed = [r["name"] for r in records if r["kind"] == "check" and not r["passed"]]
    assert failed == [reason, "platform-trusted"]
    stored = await pva.store.read(lambda c: c.execute(select(tables.trail)).all())
    assert len(stored) == len(records)


def with_member(**members):
    return lambda exchange, pki: exchange.body() | members


def other_attest_key(exchange, pki):
    body = exchange.body()
    exchange.device = Device(pki, platform_key=exchange.device.platform_key)  # same names, another key signs
    return body | {"evidence": exchange.body()["evidence"]}


def certificate(member, make):
    return lambda exchange, pki: exchange.body() | {member: der(make(exchange.device, pki))}


PAST = datetime.now(UTC) - timedelta(days=1)
SPOILED_REQUESTS = {
    "evidence signed by another key": (other_attest_key, "evidence-signature"),
    "no evidence": (with_member(evidence=""), "evidence-signature"),
    "a challenge nobody gave": (with_member(challenge=to_base64(bytes(32))), "challenge-known-and-unused"),
    "challenge for another request": (with_member(reqId=str(uuid.UUID(int=7))), "challenge-binding"),
    "challenge for another TRE": (with_member(treId="urn:m2m:tre:0002"), "challenge-binding"),
    "another mode than the challenge is for": (with_member(mode="autonomous"), "mode-offered"),
    "another version than the evidence says": (with_member(treVersion="2.0"), "evidence-tre-facts"),
    "for nobody": (with_member(audience=[]), "audience-named"),
    "platform certificate by another CA": (
        certificate(
            "platformCert", lambda d, p: p.sho.issue_role(d.platform_key, Role.PLATFORM, TRE_ID, serial=M2ME_ID)
        ),
        "platform-certificate",
    ),
    "platform certificate of another device": (
        certificate(
            "platformCert", lambda d, p: p.manufacturer.issue_role(d.platform_key, Role.PLATFORM, TRE_ID, serial="x")
        ),
        "platform-certificate",
    ),
    "expired platform certificate": (
        certificate(
            "platformCert",
            lambda d, p: p.manufacturer.issue_role(d.platform_key, Role.PLATFORM, TRE_ID, serial=M2ME_ID, until=PAST),
        ),
        "platform-certificate",
    ),
    "RSA-1024": (
        certificate(
            "platformCert",
            lambda d, p: p.manufacturer.issue_role(rsa_key(1024), Role.PLATFORM, TRE_ID, serial=M2ME_ID),
        ),
        "platform-certificate",
    ),
    "attestation certificate as platform certificate": (
        certificate("platformCert", lambda d, p: d.attest_cert), "platform-certificate"
    ),
    "platform certificate as attestation certificate": (
        certificate("attestCert", lambda d, p: d.platform_cert), "attest-certificate"
    ),
    "no certificate": (with_member(platformCert=to_base64(b"no")), "platform-certificate"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "reason"), SPOILED_REQUESTS.values(), ids=SPOILED_REQUESTS)
async def test_a_request_that_does_not_hold_together_is_not_trusted(dpf, pki, device, spoil, reason):
    """REQ-18, REQ-20, REQ-43, REQ-46."""
    exchange = Exchange(device)
    await exchange.ask(dpf)
    with pytest.raises(PartnerRefused) as refused:
        await dpf.post("/v1/validate", spoil(exchange, pki))
    assert (refused.value.code, refused.value.detail) == ("platform-not-trusted", reason)


async def test_a_challenge_has_an_end(dpf, pva, device):
    """REQ-18: time to live."""
    exchange = Exchange(device)
    await exchange.ask(dpf)
    pva.now.ahead = timedelta(seconds=301)
    with pytest.raises(PartnerRefused) as refused:
        await dpf.post("/v1/validate", exchange.body())
    assert refused.value.detail == "challenge-fresh"


async def test_a_revoked_certificate_is_not_trusted(settings, pki, device):
    """REQ-20, REQ-21."""
    crl = pki.file("manufacturer.crl", pki.manufacturer.crl(device.platform_cert))
    pva = build(settings.model_copy(update={"crl_files": (crl,)}))
    try:
        async with (
            running(application(pva), pki.server("pva.example")) as url,
            calling(url, pki.client(DPF_ID)) as dpf,
        ):
            exchange = Exchange(device)
            await exchange.ask(dpf)
            with pytest.raises(PartnerRefused) as refused:
                await dpf.post("/v1/validate", exchange.body())
            assert refused.value.detail == "platform-certificate"
    finally:
        await pva.close()


async def test_only_partners_on_the_list_get_in(url, pki, device):
    """REQ-24: mutual TLS, and the name in the certificate must be on the list."""
    async with calling(url, pki.client("stranger.example")) as stranger:
        with pytest.raises(PartnerRefused) as refused:
            await Exchange(device).ask(stranger)
        assert (refused.value.status, refused.value.code) == (403, "client-not-allowed")
    async with calling(url, pki.client(None)) as nobody:
        with pytest.raises(PartnerUnavailable):
            await nobody.get("/healthz")


async def test_a_mode_not_offered_and_too_many_challenges(dpf, pva, device):
    with pytest.raises(PartnerRefused) as refused:
        await Exchange(device).ask(dpf, mode="remote")
    assert refused.value.code == "mode-not-offered"
    with pytest.raises(PartnerRefused) as refused:
        await Exchange(device).ask(dpf, mode="autonomous")  # which has no challenge
    assert refused.value.code == "mode-not-offered"
    object.__setattr__(pva.desk._verifier, "max_challenges", 1)
    await Exchange(device).ask(dpf)
    with pytest.raises(PartnerUnavailable):
        await Exchange(device).ask(dpf)
    pva.now.ahead = timedelta(seconds=301)  # expired ones make room
    await Exchange(device).ask(dpf)


async def test_an_elliptic_platform_key_is_as_good(dpf, pki):
    exchange = Exchange(Device(pki, platform_key=ec_key()))
    await exchange.ask(dpf)
    assert (await dpf.post("/v1/validate", exchange.body()))["ticket"]
