"""The DPF over HTTP: what is no DM message does no harm, orders come from their SHO alone, and it all runs."""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding as KeyEncoding
from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

from actor_runtime.http import PartnerClient
from dmserver import server
from dmserver.app import dm_application, partner_application
from dmserver.asks import (
    Ask,
    AskChallenge,
    AskPackage,
    AskTicket,
    ChallengeGiven,
    PackageGiven,
    PackageLater,
    PartnerDown,
    PartnerSaidNo,
    ReportAcknowledged,
    TellSho,
    TicketGiven,
)
from dmserver.config import DmServerSettings, Limits
from dmserver.orders import OrderState
from dmserver.partners import HttpPartners
from dmserver.store.accounts import add_device
from mcim.authority import Authority
from mcim.vocabulary import Operation, ValidationMode
from syncml.codec import Encoding, decode
from syncml.model import Status
from tests.support_dmserver import DM_URL, Dpf
from tests.support_dpf_pki import DPF_ID, M2ME_ID, NOW, SHO_ID, TRE_ID, pki
from tests.support_stub_device import StubDevice, registration_alert

XML = "application/vnd.syncml.dm+xml"
LIMIT = 64 * 1024


@pytest.fixture
async def dpf(tmp_path: Path) -> AsyncIterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


@pytest.fixture
async def http(dpf: Dpf) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = dm_application(dpf.endpoint, dm_url=lambda _: DM_URL)
    async with TestClient(TestServer(app)) as client:
        yield client


def package_1(dpf: Dpf) -> bytes:
    return dpf.client(StubDevice()).start()


BOMB = (
    b'<!DOCTYPE SyncML [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
    b"<SyncML><SyncHdr><VerDTD>&c;</VerDTD></SyncHdr></SyncML>"
)
BODIES: dict[str, tuple[bytes | Callable[[Dpf], bytes], str, int]] = {
    "empty": (b"", XML, 400),
    "no XML": (b"\x00\x01\x02", XML, 400),
    "XML that ends too early": (b"<SyncML><SyncHdr>", XML, 400),
    "another document": (b"<html/>", XML, 400),
    "no SyncHdr": (b'<SyncML xmlns="SYNCML:SYNCML1.2"><SyncBody/></SyncML>', XML, 400),
    "external entity": (b'<!DOCTYPE SyncML [<!ENTITY x SYSTEM "file:///etc/passwd">]><SyncML>&x;</SyncML>', XML, 400),
    "entity bomb": (BOMB, XML, 400),
    "deep nesting": (b"<SyncML>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</SyncML>", XML, 400),
    "10 MB": (b"<SyncML>" + b"x" * 10_000_000 + b"</SyncML>", XML, 413),
    "just over twice our MaxMsgSize": (b"<SyncML>" + b"x" * (2 * LIMIT) + b"</SyncML>", XML, 413),
    "JSON": (package_1, "application/json", 415),
    "no media type and nothing known": (b'{"a": 1}', "", 415),
    "XML under the media type of WBXML": (package_1, "application/vnd.syncml.dm+wbxml", 400),
}


@pytest.mark.parametrize(("body", "content_type", "status"), BODIES.values(), ids=BODIES)
async def test_what_is_no_message_is_refused_and_the_server_goes_on(
    dpf: Dpf, http: TestClient[web.Request, web.Application], body: object, content_type: str, status: int
):
    octets = body(dpf) if callable(body) else body
    refused = await http.post("/dm", data=io.BytesIO(octets), headers={"Content-Type": content_type})
    problem = await refused.text()
    assert refused.status == status, problem
    assert refused.content_type == "application/problem+json"
    assert "Traceback" not in problem
    answered = await http.post("/dm", data=package_1(dpf), headers={"Content-Type": XML})
    assert answered.status == 200


@pytest.mark.parametrize(
    "content_type",
    [XML, f"{XML}; charset=UTF-8", "Application/Vnd.Syncml.DM+XML", "application/vnd.syncml+xml"],
)
async def test_media_types_that_are_taken_are_answered_in_kind(
    dpf: Dpf, http: TestClient[web.Request, web.Application], content_type: str
):
    answer = await http.post("/dm", data=package_1(dpf), headers={"Content-Type": content_type})
    assert answer.status == 200
    assert answer.content_type == content_type.partition(";")[0].lower()
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert "Content-Length" in answer.headers


async def test_only_post_and_a_health_check(http: TestClient[web.Request, web.Application]):
    assert (await http.get("/dm")).status == 405
    assert (await http.get("/healthz")).status == 200
    assert (await http.get("/v1/orders")).status == 404


@pytest.mark.parametrize(
    ("old", "new", "code"), [(b"<VerDTD>1.2<", b"<VerDTD>1.1<", 505), (b"<VerProto>DM/1.2<", b"<VerProto>DM/9<", 513)]
)
async def test_other_versions_are_answered_in_the_protocol(
    dpf: Dpf, http: TestClient[web.Request, web.Application], old: bytes, new: bytes, code: int
):
    answer = await http.post("/dm", data=package_1(dpf).replace(old, new), headers={"Content-Type": XML})
    header = decode(await answer.read(), Encoding.XML).commands[0]
    assert isinstance(header, Status)
    assert header.code == code


async def test_a_message_out_of_the_blue_ends_that_session_only(
    dpf: Dpf, http: TestClient[web.Request, web.Application]
):
    blue = package_1(dpf).replace(b"<Data>1201</Data>", b"<Data>1226</Data>")
    answer = await http.post("/dm", data=blue, headers={"Content-Type": XML})
    header = decode(await answer.read(), Encoding.XML).commands[0]
    assert isinstance(header, Status)
    assert header.code == 408


async def test_a_whole_session_over_http(dpf: Dpf, http: TestClient[web.Request, web.Application]):
    order_id, device = dpf.open_order(), StubDevice()

    async def post(session, body):
        path = "/dm" + session.target_uri.removeprefix(DM_URL)
        answer = await http.post(path, data=body, headers={"Content-Type": XML})
        return answer.status, await answer.read()

    dpf.post = post  # the same device, over HTTP
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.DELIVERED


# --- orders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def partner(dpf: Dpf, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    monkeypatch.setattr("dmserver.app.peer_identity", lambda request: request.headers.get("X-Test-Peer"))
    app = partner_application(
        store=dpf.store,
        trail=dpf.trail,
        conductor=dpf.conductor,
        shos={SHO_ID: "https://sho.example", "sho2.example": "https://sho2.example"},
        limits=Limits(order_lifetime_s=60, orders_per_day=2),
    )
    async with TestClient(TestServer(app)) as client:
        yield client


MCIM_ID = "00112233-4455-6677-8899-aabbccddeeff"
ORDER = {"m2meId": M2ME_ID, "shoId": SHO_ID, "reason": "initial"}
REFUSED_ORDERS = {
    "another SHO's": (ORDER, "sho2.example", 403, "not-your-order"),
    "no certificate": (ORDER, "", 403, "not-your-order"),
    "not a partner": (ORDER | {"shoId": "evil.example"}, "evil.example", 403, "not-your-order"),
    "unknown device": (ORDER | {"m2meId": "urn:imei:0"}, SHO_ID, 404, "device-unknown"),
    "unknown reason": (ORDER | {"reason": "fun"}, SHO_ID, 400, "reason-unknown"),
    "no lifetime": (ORDER | {"expiresIn": 0}, SHO_ID, 400, "lifetime-out-of-range"),
    "unknown operation": (ORDER | {"operation": "release"}, SHO_ID, 400, "operation-unknown"),
    "no target": (ORDER | {"operation": "delete"}, SHO_ID, 400, "target-missing"),
    "a target for an installation": (ORDER | {"mcimId": MCIM_ID}, SHO_ID, 400, "target-not-wanted"),
    "member missing": ({"shoId": SHO_ID}, SHO_ID, 400, "malformed-request"),
    "not an object": ([1, 2], SHO_ID, 400, "malformed-request"),
}


@pytest.mark.parametrize(("body", "peer", "status", "code"), REFUSED_ORDERS.values(), ids=REFUSED_ORDERS)
async def test_req13_orders_that_are_not_opened(
    partner: TestClient[web.Request, web.Application], body: object, peer: str, status: int, code: str
):
    answer = await partner.post("/v1/orders", json=body, headers={"X-Test-Peer": peer})
    assert (answer.status, (await answer.json())["code"]) == (status, code)


async def test_req13_an_order_is_opened_once(dpf: Dpf, partner: TestClient[web.Request, web.Application]):
    headers = {"X-Test-Peer": SHO_ID, "Idempotency-Key": "abc"}
    first = await partner.post("/v1/orders", json=ORDER, headers=headers)
    dpf.clock.advance(1)
    again = await partner.post("/v1/orders", json=ORDER, headers=headers)
    other = await partner.post("/v1/orders", json=ORDER, headers=headers | {"Idempotency-Key": "def"})
    assert (first.status, again.status, other.status) == (201, 201, 409)
    order_id = (await first.json())["orderId"]
    assert (await again.json())["orderId"] == order_id
    assert dpf.order(order_id).state is OrderState.OPEN
    assert [record.order for record in dpf.records if record.kind == "state"] == [order_id]  # told once (REQ-71)
    assert (dpf.order(order_id).expires_at - NOW).total_seconds() == 60


# --- calls to partners -----------------------------------------------------------------------------------------------

CHALLENGE = AskChallenge(key="k1", order_id="o", req_id="r", tre_id=TRE_ID, mode=ValidationMode.SEMI_AUTONOMOUS)
TICKET = AskTicket(
    key="k2", order_id="o", req_id="r", m2me_id=M2ME_ID, tre_id=TRE_ID, platform_cert=b"p", attest_cert=b"a",
    chain=(b"c",), tre_type="software", tre_version="1.0", evidence=b"e", log=b"lg", nonce=b"n",
    challenge=b"ch", mode=ValidationMode.SEMI_AUTONOMOUS,
    audience=(DPF_ID, SHO_ID),
)  # fmt: skip
PACKAGE = AskPackage(
    key="k3", sho_id=SHO_ID, req_id="r", order_id="o", m2me_id=M2ME_ID, tre_id=TRE_ID, tre_type="software",
    tre_version="1.0", operation=Operation.UPDATE, mcim_id="m", suites=("S",),
    containers=("xml",), algorithms=("milenage",), trust_anchors=("aa",), platform_cert=b"p",
    chain=(b"c",), nonce=b"n", next_sequence=1, ticket="t", dpf_id=DPF_ID,
)  # fmt: skip
REPORT = TellSho(
    key="k4", sho_id=SHO_ID, order_id="o", req_id="r", receipt=b"rc", attest_cert=b"a", chain=(), result=1200
)

ANSWERS: dict[str, tuple[Ask, int, object, object]] = {
    "challenge": (
        CHALLENGE,
        200,
        {"challenge": "YWJj", "exp": "2026-11-24T12:05:00Z"},
        ChallengeGiven(challenge=b"abc", expires_at=NOW + datetime.timedelta(minutes=5)),
    ),
    "challenge without zone": (CHALLENGE, 200, {"challenge": "YWJj", "exp": "2026-11-24T12:05:00"}, PartnerDown),
    "challenge is no Base64": (CHALLENGE, 200, {"challenge": "!", "exp": "2026-11-24T12:05:00Z"}, PartnerDown),
    "ticket": (TICKET, 200, {"ticket": "x" * 8000}, TicketGiven(ticket="x" * 8000)),
    "ticket missing": (TICKET, 200, {}, PartnerDown),
    "not trusted": (
        TICKET,
        403,
        {"code": "platform-not-trusted", "detail": "why"},
        PartnerSaidNo(code="platform-not-trusted", detail="why"),
    ),
    "too many": (CHALLENGE, 429, {"code": "too-many"}, PartnerDown),
    "broken": (CHALLENGE, 500, {"code": "internal-error"}, PartnerDown),
    "no JSON": (CHALLENGE, 200, "hello", PartnerDown),
    "package": (
        PACKAGE,
        200,
        {"package": "UEs=", "mcimId": "m", "sequence": 7, "packageHash": "00"},
        PackageGiven(package=b"PK", mcim_id="m", sequence=7, package_hash="00"),
    ),
    "package in another form": (
        PACKAGE,
        200,
        {"package": "UEs=", "mcimId": "m", "sequence": 7, "packageHash": "00"}
        | {"container": "cms", "operation": "update", "tokenRef": "label"},
        PackageGiven(
            package=b"PK",
            mcim_id="m",
            sequence=7,
            package_hash="00",
            container="cms",
            operation="update",
            token_ref="label",
        ),
    ),
    "package later": (PACKAGE, 202, {"job": "j-1", "retryAfter": 5}, PackageLater(job="j-1", retry_after_s=5)),
    "package much later": (PACKAGE, 202, {"job": "j", "retryAfter": 10**9}, PackageLater(job="j", retry_after_s=3600)),
    "a job with a path for a name": (PACKAGE, 202, {"job": "../x", "retryAfter": 5}, PartnerDown),
    "package refused": (PACKAGE, 409, {"code": "no-subscription"}, PartnerSaidNo(code="no-subscription")),
    "report": (
        REPORT,
        200,
        {"acknowledged": True, "subscription": "armed"},
        ReportAcknowledged(subscription="armed"),
    ),
    "report not acknowledged": (REPORT, 200, {"acknowledged": False}, PartnerDown),
}


@pytest.mark.parametrize(("ask", "status", "body", "outcome"), ANSWERS.values(), ids=ANSWERS)
async def test_what_partners_answer(dpf: Dpf, ask: Ask, status: int, body: object, outcome: object):
    seen: list[tuple[str, str | None, dict[str, object]]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Idempotency-Key"), await request.json()))
        return web.Response(
            status=status, text=body if isinstance(body, str) else json.dumps(body), content_type="application/json"
        )

    app = web.Application()
    app.router.add_post("/v1/{what}", answer)
    async with TestServer(app) as partner:
        client = PartnerClient(str(partner.make_url("")), None)
        partners = HttpPartners(pva=client, shos={SHO_ID: client}, trail=dpf.trail)
        got = await partners.ask(ask)
        await partners.close()
    if isinstance(outcome, type):
        assert isinstance(got, outcome)
    else:
        assert got == outcome
    path, key, sent = seen[0]
    assert (path, key) == (
        {"AskChallenge": "/v1/challenge", "AskTicket": "/v1/validate", "AskPackage": "/v1/handover"}.get(
            type(ask).__name__, "/v1/report"
        ),
        ask.key,
    )
    assert sent["reqId"] == "r"


async def test_req17_a_partner_that_is_not_there_is_down(dpf: Dpf, unused_tcp_port: int):
    client = PartnerClient(f"http://127.0.0.1:{unused_tcp_port}", None, timeout_s=2)
    partners = HttpPartners(pva=client, shos={}, trail=dpf.trail)
    assert isinstance(await partners.ask(CHALLENGE), PartnerDown)
    assert isinstance(await partners.ask(PACKAGE), PartnerDown)  # no address is configured for it
    await partners.close()


# --- the process -----------------------------------------------------------------------------------------------------


def write_tls(directory: Path, authority: Authority, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = authority.issue_tls(key.public_key(), hosts=[name, "127.0.0.1"], now=now)
    cert_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(KeyEncoding.PEM))
    key_file.write_bytes(key.private_bytes(KeyEncoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_file, key_file


def settings_in(directory: Path) -> tuple[DmServerSettings, Path, Path]:
    authority = Authority.create_root("TLS root", datetime.datetime.now(datetime.UTC))
    (directory / "tls.pem").write_bytes(authority.certificate.public_bytes(KeyEncoding.PEM))
    for name, certificate in (
        ("manufacturer.pem", pki().manufacturer_root.certificate),
        ("pva.pem", pki().pva_root.certificate),
    ):
        (directory / name).write_bytes(certificate.public_bytes(KeyEncoding.PEM))
    cert, key = write_tls(directory, authority, DPF_ID)
    sho_cert, sho_key = write_tls(directory, authority, SHO_ID)
    settings = DmServerSettings(
        server_id=DPF_ID,
        database_url=f"sqlite:///{directory / 'dpf.sqlite'}",
        seal_key=directory / "seal.key",
        tls_cert=cert,
        tls_key=key,
        tls_ca=directory / "tls.pem",
        manufacturer_anchors=directory / "manufacturer.pem",
        pva_anchors=directory / "pva.pem",
        pva_url="https://127.0.0.1:9",
        shos={SHO_ID: "https://127.0.0.1:9"},
        ready_file=directory / "ready.json",
        trace_file=directory / "trace.jsonl",
    )
    return settings, sho_cert, sho_key


async def until(ready: Callable[[], bool], running: asyncio.Task[None]) -> None:
    while not ready() and not running.done():  # noqa: ASYNC110  # a file appears: there is no event to wait for
        await asyncio.sleep(0.01)


async def test_the_process_serves_both_listeners_over_tls_and_stops(tmp_path: Path):
    settings, sho_cert, sho_key = settings_in(tmp_path)
    store = server.open_store(settings)
    key = server.open_seal_key(settings, store)
    store.write_sync(lambda c: add_device(c, key, M2ME_ID, b"supplier-secret", NOW))
    store.close()
    stop = asyncio.Event()
    running = asyncio.create_task(server.run(settings, stop=stop))
    assert settings.ready_file is not None
    await until(settings.ready_file.exists, running)
    try:
        ports = json.loads(settings.ready_file.read_text())["ports"]
        device_tls = ssl.create_default_context(cafile=str(tmp_path / "tls.pem"))
        sho_tls = ssl.create_default_context(cafile=str(tmp_path / "tls.pem"))
        sho_tls.load_cert_chain(sho_cert, sho_key)
        async with aiohttp.ClientSession() as http:
            orders = f"https://127.0.0.1:{ports['partner']}/v1/orders"
            async with http.post(orders, json=ORDER, ssl=sho_tls) as answer:
                assert answer.status == 201, await answer.text()
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                async with http.post(orders, json=ORDER, ssl=device_tls):
                    pass
            dm = f"https://127.0.0.1:{ports['dm']}"
            async with http.get(f"{dm}/healthz", ssl=device_tls) as answer:
                assert answer.status == 200
            async with http.post(f"{dm}/dm", data=b"", headers={"Content-Type": XML}, ssl=device_tls) as answer:
                assert answer.status == 400
        assert settings.announced_dm_url() == f"{dm}/dm"
    finally:
        stop.set()
        await running
    assert not settings.ready_file.exists()
    assert '"OPEN"' in (settings.trace_file or Path()).read_text()
