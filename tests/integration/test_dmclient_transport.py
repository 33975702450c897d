"""The device over real sockets: TLS that refuses strangers, limits of answers, and a run from a UDP bootstrap to the
attach."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from actor_runtime.errors import ConfigError
from actor_runtime.sealing import SealingKey
from actor_runtime.tls import client_context, server_context
from actor_runtime.trail import Trail
from dmclient.agent import ExitStatus
from dmclient.app import open_device, run_device
from dmclient.config import ClientSettings
from dmclient.http_transport import MAX_URL, HttpTransport, ServerNotAuthenticated, TransportFailed
from dmclient.listening import _write_ready
from m2m_ca.directory import CaDirectory
from syncml.codec import Encoding
from tests.integration.test_dmclient_agent import Provisioning
from tests.support_dmclient import (
    ATTACHED,
    CHALLENGE,
    DEVICE_ID,
    SECRET,
    FakeTre,
    MemoryDpf,
    bootstrap_profile,
    bootstrap_push,
)

BODY = b"<SyncML/>"
XML = "application/vnd.syncml.dm+xml"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def pki(tmp_path_factory) -> Path:
    """CAs, a certificate for 127.0.0.1 and dpf.example, one of a stranger, one that names another host."""
    path = tmp_path_factory.mktemp("pki")
    now = datetime.now(UTC).replace(microsecond=0)
    ca, stranger = CaDirectory(path / "own"), CaDirectory(path / "stranger")
    for each in (ca, stranger):
        each.init(now)
    ca.issue_tls(("127.0.0.1", "dpf.example"), path / "good", now)
    ca.issue_tls(("elsewhere.example",), path / "elsewhere", now)
    ca.issue_tls(("127.0.0.1",), path / "expired", now.replace(year=now.year - 10))
    stranger.issue_tls(("127.0.0.1",), path / "rogue", now)
    return path


def roots(pki: Path) -> Path:
    return pki / "own" / "anchors" / "tls.pem"


@asynccontextmanager
async def served(handler: Handler, tls: ssl.SSLContext | None, path: str = "/dm") -> AsyncIterator[str]:
    """A server on loopback; gives its URL."""
    application = web.Application()
    application.router.add_post(path, handler)
    server = TestServer(application, host="127.0.0.1", scheme="https" if tls else "http")
    await server.start_server(ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.port}"
    finally:
        await server.close()


def context_of(pki: Path, name: str) -> ssl.SSLContext:
    return server_context(pki / name / "tls.crt", pki / name / "tls.key")


def transport_for(pki: Path, **changes) -> HttpTransport:
    arguments = {"ssl_context": client_context(roots(pki)), "timeout_s": 5.0, "max_answer": 1000} | changes
    return HttpTransport(**arguments)


async def answering(request: web.Request) -> web.Response:
    assert await request.read() == BODY
    assert request.headers["Content-Type"] == XML
    assert request.headers["Content-Length"] == str(len(BODY))
    return web.Response(body=b"answer", content_type=XML, charset="utf-8")


async def test_exchange(pki):
    """XC-031: TLS, one POST, the body back; parameters of the media type do not matter."""
    async with served(answering, context_of(pki, "good")) as url, transport_for(pki) as transport:
        answer = await transport.post(f"{url}/dm", BODY, Encoding.XML)
    assert (answer.body, answer.encoding) == (b"answer", Encoding.XML)


async def test_name_in_the_certificate_may_be_another_than_the_host(pki):
    """`tls_server_name`: an address by number, a certificate by name."""
    async with served(answering, context_of(pki, "good")) as url:
        async with transport_for(pki, server_name="dpf.example") as transport:
            assert (await transport.post(f"{url}/dm", BODY, Encoding.XML)).body == b"answer"
        async with transport_for(pki, server_name="other.example") as transport:
            with pytest.raises(ServerNotAuthenticated):
                await transport.post(f"{url}/dm", BODY, Encoding.XML)


@pytest.mark.parametrize("name", ["rogue", "elsewhere", "expired"])
async def test_server_that_is_not_authenticated_gets_nothing(pki, name):
    """REQ-09: unknown root, wrong name, expired: refused in the handshake, no request arrives."""
    seen: list[bytes] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.Response(body=b"x", content_type=XML)

    async with served(note, context_of(pki, name)) as url, transport_for(pki) as transport:
        with pytest.raises(ServerNotAuthenticated, match=r"^[0-9.a-z]+:\d+: .*[Cc]ertificate") as caught:
            await transport.post(f"{url}/dm", BODY, Encoding.XML)
    assert seen == []
    assert "object at" not in str(caught.value)


def obsolete(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The context of a peer from long ago: that version at the most, and every cipher there is."""
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=lambda each: each.name)
async def test_no_obsolete_version_is_spoken(pki, version):
    """XS-014, XC-031: neither role agrees to TLS 1.0 or 1.1; two peers from long ago would agree with each other."""
    old_server, old_client = obsolete(context_of(pki, "good"), version), obsolete(client_context(roots(pki)), version)
    async with served(answering, old_server) as url:
        async with transport_for(pki, ssl_context=old_client) as transport:
            assert (await transport.post(f"{url}/dm", BODY, Encoding.XML)).body == b"answer"
        async with transport_for(pki) as transport:
            with pytest.raises((ServerNotAuthenticated, TransportFailed)):
                await transport.post(f"{url}/dm", BODY, Encoding.XML)
    async with (
        served(answering, context_of(pki, "good")) as url,
        transport_for(pki, ssl_context=old_client) as transport,
    ):
        with pytest.raises((ServerNotAuthenticated, TransportFailed)):
            await transport.post(f"{url}/dm", BODY, Encoding.XML)


async def test_plain_http_needs_to_be_allowed(pki):
    """REQ-09: no TLS, no data, unless an interoperability test asks for it."""
    async with served(answering, None) as url:
        async with transport_for(pki) as transport:
            with pytest.raises(ServerNotAuthenticated):
                await transport.post(f"{url}/dm", BODY, Encoding.XML)
        async with transport_for(pki, allow_plain_http=True) as transport:
            assert (await transport.post(f"{url}/dm", BODY, Encoding.XML)).body == b"answer"


@pytest.mark.parametrize("url", ["ftp://h/x", "https://", "https://[::1", "not a url", "https://h/" + "x" * MAX_URL])
async def test_addresses_we_do_not_go_to(pki, url):
    """A RespURI of a server may be anything."""
    async with transport_for(pki, allow_plain_http=True) as transport:
        with pytest.raises((ServerNotAuthenticated, TransportFailed)):
            await transport.post(url, BODY, Encoding.XML)


ANSWERS = {
    "status 500": web.Response(status=500, body=b"x", content_type=XML),
    "redirect": web.Response(status=302, headers={"Location": "/elsewhere"}),
    "HTML": web.Response(body=b"<html/>", content_type="text/html"),
    "too long": web.Response(body=b"x" * 1001, content_type=XML),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_that_are_none(pki, name):
    """Status, media type and size are checked before anything is parsed; redirects are not followed."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return ANSWERS[name]

    async with served(answer, context_of(pki, "good")) as url, transport_for(pki) as transport:
        with pytest.raises(TransportFailed):
            await transport.post(f"{url}/dm", BODY, Encoding.XML)


async def test_server_that_is_slow_or_away(pki):
    """Timeout and refused connection may pass: try again later."""
    stop = asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    async with served(wait, context_of(pki, "good")) as url:
        async with transport_for(pki, timeout_s=0.2) as transport:
            with pytest.raises(TransportFailed, match="TimeoutError: no answer in time"):
                await transport.post(f"{url}/dm", BODY, Encoding.XML)
        stop.set()
    async with transport_for(pki) as transport:
        with pytest.raises(TransportFailed, match=r":\d+: .*refused"):
            await transport.post(f"{url}/dm", BODY, Encoding.XML)
    with pytest.raises(RuntimeError):
        await transport.post(f"{url}/dm", BODY, Encoding.XML)


# -- a whole run over sockets ------------------------------------------------------------------------------------


def network() -> Handler:
    """The home network's access listener, with AKA left out."""
    answers = [CHALLENGE, ATTACHED]

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(answers.pop(0))

    return handle


def dm_endpoint(dpf: MemoryDpf) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        answer = await dpf.post(str(request.url), await request.read(), Encoding.XML)
        return web.Response(body=answer.body, content_type=XML)

    return handle


def settings_for(directory: Path, pki: Path, network_url: str, **changes) -> ClientSettings:
    secret = directory / "secret"
    secret.write_text(SECRET + "\n")
    seal_key = directory / "seal.key"
    if not seal_key.exists():
        SealingKey.generate(seal_key)
    values = {
        "m2me_id": DEVICE_ID,
        "state_dir": directory / "state",
        "seal_key_file": seal_key,
        "bootstrap_secret_file": secret,
        "tls_roots": roots(pki),
        "network_url": network_url,
        "ready_file": directory / "ready.json",
        "retry": {"first_delay_s": 0.0, "attempts": 2, "polls": 2},
        "session": {"max_msg_size": 4096},
    }
    return ClientSettings(**(values | changes))


async def send(port: int, *datagrams: bytes) -> None:
    loop = asyncio.get_running_loop()
    sender, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port))
    for datagram in datagrams:
        sender.sendto(datagram)
    sender.close()


async def test_from_a_udp_bootstrap_to_the_attach(pki, tmp_path, monkeypatch):
    """REQ-07, 08, 09, 63, 69: a wrong and a right bootstrap, sessions over TLS with RespURI, attach over TLS."""
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def ready(path: Path, port: int) -> None:
        _write_ready(path, port)
        up.set_result(json.loads(path.read_text())["ports"]["bootstrap"])

    monkeypatch.setattr("dmclient.listening._write_ready", ready)
    policy, tls = Provisioning(b"good" * 3000), context_of(pki, "good")
    dpf = MemoryDpf(policy)
    async with served(dm_endpoint(dpf), tls) as dm_url, served(network(), tls, "/v1/{tail:.*}") as network_url:
        dpf.server_uri = f"{dm_url}/dm"
        settings = settings_for(tmp_path, pki, network_url, trace_file=tmp_path / "trace.jsonl")
        trail = Trail("M2ME", trace_file=settings.trace_file)
        device = open_device(settings, trail, tre=FakeTre())
        running = asyncio.create_task(run_device(settings, device))
        port = await asyncio.wait_for(up, 60)
        profile = bootstrap_profile(addr=f"{dm_url}/dm")
        await send(port, b"rubbish", bootstrap_push(profile, secret="guess"), bootstrap_push(profile))
        result = await asyncio.wait_for(running, 20)
        trail.close()
    assert (result.status, result.imsi_mask) == (ExitStatus.ATTACHED, "00101********89")
    assert not settings.ready_file.exists()
    records = [json.loads(line) for line in settings.trace_file.read_text().splitlines()]
    checks = [(record["name"], record["passed"]) for record in records if record["kind"] == "check"]
    assert checks[:3] == [("bootstrap-mac", False), ("bootstrap-mac", True), ("tls-server-authenticated", True)]
    assert ("aka-accepted-by-network", True) in checks
    assert all(set(record) >= {"ts", "seq", "actor", "kind", "step"} for record in records)


async def test_bootstrap_from_a_file(pki, tmp_path):
    """`--bootstrap-file`: the same message, without UDP; a wrong one ends the run with status 2."""
    tls = context_of(pki, "good")
    dpf = MemoryDpf(Provisioning())
    async with served(dm_endpoint(dpf), tls) as dm_url, served(network(), tls, "/v1/{tail:.*}") as network_url:
        dpf.server_uri = f"{dm_url}/dm"
        settings = settings_for(tmp_path, pki, network_url)
        device = open_device(settings, Trail("M2ME"), tre=FakeTre())
        profile = bootstrap_profile(addr=f"{dm_url}/dm")
        refused = await run_device(settings, device, bootstrap=bootstrap_push(profile, secret="guess"))
        assert (refused.status, "wrong-mac" in refused.reason) == (ExitStatus.REFUSED, True)
        result = await run_device(settings, device, bootstrap=bootstrap_push(profile))
    assert result.status is ExitStatus.ATTACHED


async def test_no_bootstrap_in_time(pki, tmp_path):
    """Nobody sent one: exit status 1."""
    settings = settings_for(tmp_path, pki, "https://127.0.0.1:1", bootstrap={"wait_s": 0.01})
    device = open_device(settings, Trail("M2ME"), tre=FakeTre())
    assert (await run_device(settings, device)).status is ExitStatus.UNREACHABLE


async def test_settings_a_run_needs(pki, tmp_path):
    """Missing roots, network or UDP address, another device's TRE, a secret that is none: said at once."""
    good = settings_for(tmp_path, pki, "https://127.0.0.1:1")
    device = open_device(good, Trail("M2ME"), tre=FakeTre())
    with pytest.raises(ConfigError, match="tls_roots"):
        await run_device(settings_for(tmp_path, pki, "https://n", tls_roots=None), device)
    with pytest.raises(ConfigError, match="network_url"):
        await run_device(settings_for(tmp_path, pki, None), device)
    listen = {"listen": {"host": "192.0.2.1", "port": 1}}
    unbound = settings_for(tmp_path, pki, "https://n", bootstrap=listen)
    with pytest.raises(ConfigError, match=r"bootstrap\.listen"):
        await run_device(unbound, device)
    with pytest.raises(ConfigError, match="m2me_id"):
        open_device(settings_for(tmp_path, pki, "https://n", m2me_id="urn:imei:1"), Trail("M2ME"), tre=FakeTre())
    naive = settings_for(tmp_path, pki, "https://n", pcid_expiry="2027-01-01T00:00:00")
    with pytest.raises(ConfigError, match="time zone"):
        open_device(naive, Trail("M2ME"), tre=FakeTre())
    (tmp_path / "empty").write_text("\n")
    for path in ("empty", "missing"):
        broken = settings_for(tmp_path, pki, "https://n", bootstrap_secret_file=tmp_path / path)
        with pytest.raises(ConfigError, match="bootstrap_secret_file"):
            await run_device(broken, device)
