"""HTTP habits: problem documents, limits, start and stop, partner calls."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from actor_runtime import http
from actor_runtime.errors import ConfigError
from actor_runtime.http import (
    Base64,
    Body,
    Listener,
    PartnerClient,
    PartnerRefused,
    PartnerUnavailable,
    ProblemError,
    allow_clients,
    new_application,
    read_body,
    serve,
    to_base64,
)


class Greeting(Body):
    req_id: str
    nonce: Base64


async def greet(request):
    body = await read_body(request, Greeting)
    return web.json_response({"reqId": body.req_id, "nonce": to_base64(body.nonce)})


async def refuse(_request):
    raise ProblemError(409, "already-done", "twice")


async def fail(_request):
    raise RuntimeError("the secret is 42")


async def not_json(_request):
    return web.Response(text="hello")


def application():
    app = new_application(max_body=200)
    app.router.add_post("/greet", greet)
    app.router.add_post("/refuse", refuse)
    app.router.add_post("/fail", fail)
    app.router.add_post("/text", not_json)
    return app


@pytest.fixture
async def client():
    async with TestClient(TestServer(application())) as client:
        yield client


ANSWERS = {
    "good": ("/greet", b'{"reqId": "r", "nonce": "AAE=", "later": 1}', 200, None),
    "not JSON": ("/greet", b"{", 400, "malformed-request"),
    "deeply nested": ("/greet", b"[" * 150, 400, "malformed-request"),
    "not an object": ("/greet", b"[]", 400, "malformed-request"),
    "not UTF-8": ("/greet", b'{"reqId": "\xff"}', 400, "malformed-request"),
    "member missing": ("/greet", b'{"reqId": "r"}', 400, "malformed-request"),
    "not Base64": ("/greet", b'{"reqId": "r", "nonce": "A*E="}', 400, "malformed-request"),
    "a number for octets": ("/greet", b'{"reqId": "r", "nonce": 7}', 400, "malformed-request"),
    "too long": ("/greet", b" " * 201, 413, "request-entity-too-large"),
    "our refusal": ("/refuse", b"", 409, "already-done"),
    "a bug": ("/fail", b"", 500, "internal-error"),
    "no such path": ("/none", b"", 404, "not-found"),
}


@pytest.mark.parametrize(("path", "body", "status", "code"), ANSWERS.values(), ids=ANSWERS)
async def test_answers(client, path, body, status, code):
    response = await client.post(path, data=body)
    text = await response.text()
    assert response.status == status
    assert response.headers["X-Request-Id"]
    assert "42" not in text
    if code is not None:
        assert response.content_type == "application/problem+json"
        document = json.loads(text)
        assert (document["code"], document["status"]) == (code, status)


def test_member_names_are_camel_case():
    class Example(Body):
        m2me_id: str

    assert Example.model_validate({"m2meId": "x"}).m2me_id == "x"


async def test_detail_names_members_and_never_values(client):
    response = await client.post("/greet", data=b'{"nonce": "top*secret"}')
    assert (await response.json(content_type=None))["detail"] == "members: nonce, reqId"


async def test_request_id_is_kept_when_it_is_harmless(client):
    good = await client.post("/refuse", headers={"X-Request-Id": "abc-1"})
    bad = await client.post("/refuse", headers={"X-Request-Id": "a b"})
    assert good.headers["X-Request-Id"] == "abc-1"
    assert bad.headers["X-Request-Id"] != "a b"


async def test_wrong_method_and_health(client):
    wrong = await client.get("/greet")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert (await client.get("/healthz")).status == 200


async def test_a_client_without_certificate_is_on_no_list():
    app = application()
    app.middlewares.append(allow_clients(frozenset({"dpf.example"})))
    async with TestClient(TestServer(app)) as client:
        response = await client.post("/greet", data=b"{}")
        assert (response.status, (await response.json(content_type=None))["code"]) == (403, "client-not-allowed")
        assert (await client.get("/healthz")).status == 200


@pytest.mark.parametrize(
    ("peer", "path", "status"),
    [
        ("dpf.example", "/greet", 400),
        ("ro.example", "/greet", 403),
        ("ro.example", "/refuse", 409),
        ("dpf.example", "/refuse", 403),
        ("", "/refuse", 403),
        ("ro.example", "/refuse/", 403),
        ("dpf.example", "/%72efuse", 403),
    ],
)
async def test_a_path_with_a_list_of_its_own_is_for_that_list_alone(monkeypatch, peer, path, status):
    """REQ-24: neither list opens what the other one does, however the path is written."""
    monkeypatch.setattr("actor_runtime.http.peer_identities", lambda _request: frozenset({peer} - {""}))
    app = application()
    app.middlewares.append(allow_clients(frozenset({"dpf.example"}), of_path={"/refuse": frozenset({"ro.example"})}))
    async with TestClient(TestServer(app)) as client:
        assert (await client.post(path, data=b"{")).status == status


HINTS = {
    "seconds": ("7", 7),
    "a date": ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    "none": (None, None),
    "huge": ("9" * 40, None),
}


@pytest.mark.parametrize(("hint", "seconds"), HINTS.values(), ids=HINTS)
async def test_when_to_come_again(hint, seconds):
    """Retry-After (RFC 9110 §10.2.3) in seconds reaches the caller; what is no such number does no harm."""

    async def later(_request):
        return web.json_response({"code": "x"}, status=403, headers={} if hint is None else {"Retry-After": hint})

    app = new_application()
    app.router.add_post("/later", later)
    async with TestServer(app) as server:
        partner = PartnerClient(str(server.make_url("/")), None)
        with pytest.raises(PartnerRefused) as refused:
            await partner.post("/later", {})
        assert refused.value.retry_after_s == seconds
        await partner.close()


async def test_a_problem_says_when_to_come_again():
    async def refuse_for_a_while(_request):
        raise ProblemError(403, "attach-refused", retry_after_s=60)

    app = new_application()
    app.router.add_get("/x", refuse_for_a_while)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/x")).headers["Retry-After"] == "60"


async def test_an_access_token_goes_into_its_header():
    """RFC 6750 §2.1"""

    async def tell(request):
        return web.json_response({"got": request.headers.get("Authorization", "")})

    app = new_application()
    app.router.add_post("/x", tell)
    async with TestServer(app) as server:
        partner = PartnerClient(str(server.make_url("/")), None)
        assert await partner.post("/x", {}, bearer="t0") == {"got": "Bearer t0"}
        assert await partner.post("/x", {}) == {"got": ""}
        await partner.close()


# --- peers that are slow or send too much -----------------------------------------------------------------


async def raw(url, octets):
    """What comes back for these octets, until the other side closes."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(octets)
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 100", b'{"reqId"'),
        (b"Transfer-Encoding: chunked", b"5\r\n{"),
        (b"Transfer-Encoding: chunked", b""),
    ],
)
async def test_a_body_that_does_not_come_ends_the_request(monkeypatch, head, body):
    """T12: neither a handler nor a connection waits for ever."""
    monkeypatch.setattr(http, "BODY_TIMEOUT_S", 0.05)
    async with TestServer(application(), lingering_time=0.05) as server:
        answer = await raw(server.make_url("/"), b"POST /greet HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request-timeout"' in answer


@pytest.mark.parametrize("octets", [b"", b"GET /healthz HTTP/1.1\r\nHost: "])
async def test_a_connection_without_a_request_is_closed(monkeypatch, tmp_path, octets):
    """T12"""
    monkeypatch.setattr(http, "IDLE_TIMEOUT_S", 0.05)
    ready, stop = tmp_path / "ready.json", asyncio.Event()
    listener = Listener(name="one", app=application(), host="127.0.0.1", port=0)
    task = asyncio.create_task(serve([listener], ready_file=ready, stop=stop))
    while not ready.exists():
        assert not task.done()
        await asyncio.sleep(0.001)
    port = json.loads(ready.read_text())["ports"]["one"]
    assert await raw(URL(f"http://127.0.0.1:{port}"), octets) == b""
    stop.set()
    await task


SIZES = {
    "header": (b"A: " + b"a" * 20_000, b"", b"HTTP/1.0 400 "),
    "many headers": (b"\r\n".join(b"A%d: b" % number for number in range(1000)), b"", b"HTTP/1.0 400 "),
    "chunks": (b"Transfer-Encoding: chunked", (b"10\r\n" + b" " * 16 + b"\r\n") * 20, b"HTTP/1.1 413 "),
    "two lengths": (b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", b"HTTP/1.0 400 "),
    "compressed": (
        b"Content-Encoding: gzip\r\nContent-Length: %d" % len(BOMB := gzip.compress(bytes(10_000_000))), BOMB,
        b"HTTP/1.1 413 ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("head", "body", "status"), SIZES.values(), ids=SIZES)
async def test_requests_are_bounded(head, body, status):
    """T12: what is counted is what a handler would have to hold."""
    async with TestServer(application(), lingering_time=0.05) as server:
        request = b"POST /greet HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head + b"\r\n\r\n" + body
        assert (await raw(server.make_url("/"), request)).startswith(status)


# --- partner calls ----------------------------------------------------------------------------------


async def test_partner_client():
    async with TestServer(application()) as server:
        partner = PartnerClient(str(server.make_url("/")), None, timeout_s=5)
        try:
            assert await partner.get("/healthz") == {"status": "ok"}
            answer = await partner.post("/greet", {"reqId": "r", "nonce": "AAE="}, idempotency_key="r:greet")
            assert answer == {"reqId": "r", "nonce": "AAE="}
            with pytest.raises(PartnerRefused) as refused:
                await partner.post("/refuse", {})
            assert (refused.value.status, refused.value.code, refused.value.detail) == (409, "already-done", "twice")
            for path in ("/fail", "/text"):
                with pytest.raises(PartnerUnavailable):
                    await partner.post(path, {})
        finally:
            await partner.close()


HOSTILE = {
    "a code that is text": (403, b'{"code": "a\\nb", "detail": "d"}', (403, "unknown", "d")),
    "a code that is none": (403, b'{"code": {"a": 1}, "detail": ["d"]}', (403, "unknown", "")),
    "long": (403, b'{"code": "' + b"a" * 65 + b'", "detail": "' + b"d" * 300 + b'"}', (403, "unknown", "d" * 255)),
    "half a surrogate pair": (403, b'{"code": "c", "detail": "\\ud800"}', (403, "unknown", "")),
    "half a surrogate pair in an answer": (200, b'{"orderId": "\\ud800"}', None),
    "deep": (403, b"[" * 100_000, (403, "unknown", "")),
    "deep answer": (200, b'{"a":' * 100_000, None),
    "too long": (403, b" " * (http.MAX_ANSWER + 1), None),
    "compressed": (200, gzip.compress(b'{"a": 1}'), None),
}


@pytest.mark.parametrize(("status", "body", "refused"), HOSTILE.values(), ids=HOSTILE)
async def test_hostile_answers(status, body, refused):
    """T12: a partner's answer is bounded, and what is taken of it can be compared, logged and kept."""

    async def answer(request):
        asked.append(request.headers.get("Cookie"))
        coding = {"Content-Encoding": "gzip"} if body.startswith(b"\x1f\x8b") else {}
        return web.Response(status=status, body=body, headers={"Set-Cookie": "a=b; Path=/", **coding})

    asked: list[str | None] = []
    app = web.Application()
    app.router.add_post("/x", answer)
    async with TestServer(app) as server:
        partner = PartnerClient(str(server.make_url("/")).replace("127.0.0.1", "localhost"), None)
        for _ in range(2):
            with pytest.raises(PartnerUnavailable if refused is None else PartnerRefused) as caught:
                await partner.post("/x", {})
        if refused is not None:
            assert (caught.value.status, caught.value.code, caught.value.detail) == refused
        await partner.close()
    assert asked == [None, None]


async def test_redirects_and_proxies_are_not_followed(monkeypatch):
    """T5: a partner is where the settings say, whatever the environment or an answer says."""

    async def elsewhere(request):
        reached.append(request.path)
        return web.Response(status=307, headers={"Location": "/other"})

    reached: list[str] = []
    app = web.Application()
    app.router.add_post("/{path}", elsewhere)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with TestServer(app) as server:
        partner = PartnerClient(str(server.make_url("/")), None)
        with pytest.raises(PartnerUnavailable):
            await partner.post("/x", {})
        await partner.close()
    assert reached == ["/x"]


async def test_a_partner_that_is_down_is_unavailable(unused_port_url):
    partner = PartnerClient(unused_port_url, None, timeout_s=2)
    with pytest.raises(PartnerUnavailable):
        await partner.get("/healthz")
    await partner.close()


@pytest.fixture
async def unused_port_url():
    server = TestServer(application())
    await server.start_server()
    url = str(server.make_url("/"))
    await server.close()
    return url


# --- start and stop ---------------------------------------------------------------------------------


async def test_serve_tells_its_ports_and_stops_cleanly(tmp_path):
    ready, stop, stopped = tmp_path / "run" / "ready.json", asyncio.Event(), []

    async def on_stop():
        stopped.append(True)

    listeners = [
        Listener(name=name, app=application(), host="127.0.0.1", port=0, ssl_context=None) for name in ("one", "two")
    ]
    task = asyncio.create_task(serve(listeners, ready_file=ready, on_stop=on_stop, stop=stop))
    while not ready.exists():
        assert not task.done()
        await asyncio.sleep(0.001)
    ports = json.loads(ready.read_text())["ports"]
    for name in ("one", "two"):
        partner = PartnerClient(f"http://127.0.0.1:{ports[name]}", None)
        assert await partner.get("/healthz") == {"status": "ok"}
        await partner.close()

    taken = Listener(name="taken", app=application(), host="127.0.0.1", port=ports["one"])
    with pytest.raises(ConfigError, match="taken"):
        await serve([taken], ready_file=tmp_path / "other")
    assert not (tmp_path / "other").exists()

    stop.set()
    await task
    assert stopped == [True]
    assert not ready.exists()
