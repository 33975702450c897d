"""From the DPF to the device and back, over real sockets: bootstraps, notifications, and the sessions they start."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from actor_runtime.errors import ConfigError
from actor_runtime.sealing import SealingKey
from actor_runtime.trail import Trail
from dmclient.agent import Agent
from dmclient.app import listen_device, open_device, run_device
from dmclient.bootstrap_fetch import MAX_DOCUMENT, FetchFailed, fetch_bootstrap
from dmclient.calls import Call
from dmclient.config import ClientSettings
from dmclient.dm_account import server_ids, store_nonce
from dmclient.listening import _write_ready
from dmserver.app import dm_application
from dmserver.bootstrap import BootstrapForm, Profile, prepare_bootstrap
from dmserver.bootstrap_pull import add_pull_route, offer, pull_url
from dmserver.endpoint import Request
from dmserver.notification import Call as ServerCall
from dmserver.notification import notify
from dmserver.push import HttpDestination, PushFailed, UdpDestination, send
from dmserver.store.orders import ongoing_order
from mo_definitions.standard import SRVCRED
from syncml.codec import Encoding, decode
from syncml.codes import AlertCode
from syncml.model import Alert
from syncml.notification import UiMode
from syncml.wap_push import WapPush
from tests.support_dmclient import DEVICE_ID, FakeTre
from tests.support_dmserver import Dpf
from tests.support_dpf_pki import DPF_ID
from tests.support_pki import pki

PATIENCE_S = 20


class Site:
    """A DPF on a loopback port, and what devices said to it: (SessionID, code of the session alert)."""

    def __init__(self, directory: Path) -> None:
        self.dpf = Dpf(directory)
        self.dpf.add_device(DEVICE_ID, with_account=False)
        self.dpf.open_order(DEVICE_ID)
        self.sessions: list[tuple[str, int]] = []
        handle = self.dpf.endpoint.handle

        async def watched(request: Request):
            message = decode(request.body, Encoding.XML)
            for command in message.commands:
                if isinstance(command, Alert) and command.code in (1200, 1201):
                    entry = (message.header.session_id, command.code)
                    if entry not in self.sessions[-1:]:
                        self.sessions.append(entry)
            return await handle(request)

        self.dpf.endpoint.handle = watched
        app = dm_application(self.dpf.endpoint, dm_url=lambda port: f"http://127.0.0.1:{port}/dm")
        add_pull_route(app, store=self.dpf.store, key=self.dpf.key, now=self.dpf.clock)
        self.server = TestServer(app, host="127.0.0.1")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/dm"

    def prepare(self, profile: Profile = Profile.CP):
        return self.dpf.store.write_sync(
            lambda c: prepare_bootstrap(
                c,
                self.dpf.key,
                DEVICE_ID,
                server_id=DPF_ID,
                dm_url=self.url,
                per_hour=20,
                now=self.dpf.clock(),
                form=BootstrapForm(profile=profile),
            )
        )

    def offer(self, profile: Profile) -> str:
        push = self.prepare(profile).push
        token = self.dpf.store.write_sync(
            lambda c: offer(c, self.dpf.key, DEVICE_ID, push, lifetime_s=60, now=self.dpf.clock())
        )
        return pull_url(self.url, token)

    async def notify(self, destination, **call: object):
        """Call the device; the DPF has something to ask it then, so that both sides prove themselves."""
        if self.dpf.store.read_sync(lambda c: ongoing_order(c, DEVICE_ID, self.dpf.clock())) is None:
            self.dpf.open_order(DEVICE_ID)
        return await notify(
            self.dpf.store, self.dpf.key, DEVICE_ID, destination, server_id=DPF_ID, call=ServerCall(**call)
        )


@pytest.fixture
async def site(tmp_path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    await made.server.start_server()
    yield made
    await made.server.close()
    made.dpf.close()


def settings_for(directory: Path, **changes: object) -> ClientSettings:
    from cryptography.hazmat.primitives.serialization import Encoding as PemEncoding

    (directory / "secret").write_text("supplier-secret\n")
    (directory / "roots.pem").write_bytes(pki().operator_root.certificate.public_bytes(PemEncoding.PEM))
    if not (directory / "client.key").exists():
        SealingKey.generate(directory / "client.key")
    values = {
        "m2me_id": DEVICE_ID,
        "state_dir": directory / "state",
        "seal_key_file": directory / "client.key",
        "bootstrap_secret_file": directory / "secret",
        "tls_roots": directory / "roots.pem",
        "ready_file": directory / "ready.json",
        "push": {"http": {}},
        "retry": {"first_delay_s": 0.0, "attempts": 2, "polls": 2},
        "session": {"allow_plain_http": True},
    }
    return ClientSettings(**(values | changes))


class Listening:
    """A device that listens, and the calls it has served."""

    def __init__(self, device, ports: dict[str, int]) -> None:
        self.device = device
        self.ports = ports
        self.served: asyncio.Queue[tuple[Call, str]] = asyncio.Queue()

    @property
    def udp(self) -> UdpDestination:
        return UdpDestination(host="127.0.0.1", port=self.ports["bootstrap"])

    def http(self, *, nested: bool = False) -> HttpDestination:
        return HttpDestination(url=f"http://127.0.0.1:{self.ports['push']}/wappush", nested=nested)

    async def next(self) -> tuple[Call, str]:
        return await asyncio.wait_for(self.served.get(), PATIENCE_S)


@asynccontextmanager
async def listening(settings: ClientSettings, monkeypatch, **options: object) -> AsyncIterator[Listening]:
    """`dmclient listen`, stopped at the end as SIGTERM does it."""
    up: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()

    def ready(path: Path, ports: dict[str, int]) -> None:
        _write_ready(path, ports)
        up.set_result(json.loads(path.read_text())["ports"])

    monkeypatch.setattr("dmclient.listening._write_ready", ready)
    device = open_device(settings, Trail("M2ME"), tre=FakeTre())
    stop = asyncio.Event()
    serve = Agent.serve
    holder: list[Listening] = []

    async def watched(agent: Agent, call: Call) -> str:
        failure = await serve(agent, call)
        holder[0].served.put_nowait((call, failure))
        return failure

    monkeypatch.setattr(Agent, "serve", watched)
    running = asyncio.create_task(listen_device(settings, device, stop=stop, **options))
    await asyncio.wait((running, up), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running
    holder.append(Listening(device, up.result()))
    try:
        yield holder[0]
    finally:
        stop.set()
        await asyncio.wait_for(running, PATIENCE_S)
        monkeypatch.undo()
    assert not settings.ready_file.exists()


async def bootstrapped(site: Site, ears: Listening, destination=None) -> None:
    """The device has the DPF's account and has been there once."""
    await send(site.prepare().push, destination or ears.udp)
    call, failure = await ears.next()
    assert (call, failure) == (Call(server_id=DPF_ID), "")


WAYS = ["udp", "http", "nested http"]


def way(ears: Listening, name: str):
    return ears.udp if name == "udp" else ears.http(nested=name.startswith("nested"))


@pytest.mark.parametrize("name", WAYS)
async def test_notification_starts_a_session(site, tmp_path, monkeypatch, name):
    """XI-7, XC-090, XC-002, XS-032: Alert 1200 with the SessionID of the trigger; again under the nonce that the
    session before brought; the same trigger once more starts nothing."""
    async with listening(settings_for(tmp_path), monkeypatch) as ears:
        await bootstrapped(site, ears)
        nonce = site.dpf.account(DEVICE_ID).server_nonce
        await site.notify(way(ears, name), session_id=0xAF)
        call, failure = await ears.next()
        assert (call.session_id, call.resync, failure) == ("AF", False, "")
        assert site.sessions[-1] == ("AF", AlertCode.SERVER_INITIATED_MGMT)
        assert site.dpf.account(DEVICE_ID).server_nonce != nonce
        made = await site.notify(way(ears, name))
        call, failure = await ears.next()
        assert (call.session_id, failure) == ("B0", "")
        sessions = list(site.sessions)
        await send(made.push, way(ears, name))  # the very octets, which the nonce has left behind
        await site.notify(way(ears, name), repeat=True)
        await site.notify(way(ears, name))
        call, _ = await ears.next()
        assert call.session_id == "B1"
        assert site.sessions == [*sessions, ("B1", AlertCode.SERVER_INITIATED_MGMT)]


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("name", WAYS)
async def test_bootstrap_starts_a_session(site, tmp_path, monkeypatch, profile, name):
    """XI-8, XC-094, XC-095, XS-035: account, no answer, then a client-initiated session with those credentials."""
    async with listening(settings_for(tmp_path), monkeypatch) as ears:
        await send(site.prepare(profile).push, way(ears, name))
        call, failure = await ears.next()
        assert (call, failure) == (Call(server_id=DPF_ID), "")
        assert server_ids(ears.device.tree.nodes) == (DPF_ID,)
        assert [code for _, code in site.sessions] == [AlertCode.CLIENT_INITIATED_MGMT] * len(site.sessions)
        assert site.sessions
        assert "dm-credentials" in site.dpf.checks(passed=True)


@pytest.mark.parametrize("profile", Profile)
async def test_bootstrap_that_is_fetched(site, tmp_path, monkeypatch, profile):
    """XI-8, XC-094, XC-095: `--bootstrap-url`, the document with its SEC and MAC in the Content-Type, once."""
    url = site.offer(profile)
    async with listening(settings_for(tmp_path), monkeypatch, bootstrap_url=url) as ears:
        call, failure = await ears.next()
        assert (call, failure) == (Call(server_id=DPF_ID), "")
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        assert response.status == 404
    with pytest.raises(FetchFailed, match="404"):
        await fetch_bootstrap(url, ssl_context=None, allow_plain_http=True)


async def test_resynchronisation(site, tmp_path, monkeypatch):
    """XC-092, XS-033: the device lost the server's nonce and hears only a trigger under the special one; after its
    session both have fresh nonces, and the special one opens nothing any more."""
    async with listening(settings_for(tmp_path), monkeypatch) as ears:
        await bootstrapped(site, ears)
        device = ears.device
        store_nonce(device.tree.nodes, DPF_ID, SRVCRED, b"lost")
        device.previous_nonces.clear()
        sessions = list(site.sessions)
        await site.notify(ears.udp)  # under the nonce that the device has not: dropped
        await site.notify(ears.udp, resync=True)
        assert site.dpf.account(DEVICE_ID).resync
        call, failure = await ears.next()
        assert (call.resync, failure) == (True, "")
        assert site.sessions == [*sessions, (call.session_id, AlertCode.SERVER_INITIATED_MGMT)]
        assert not site.dpf.account(DEVICE_ID).resync
        await site.notify(ears.udp)
        call, failure = await ears.next()
        assert (call.resync, failure) == (False, "")


async def test_a_call_that_comes_while_a_session_runs(site, tmp_path, monkeypatch):
    """XC-090: it starts a session afterwards, in its turn."""
    async with listening(settings_for(tmp_path), monkeypatch) as ears:
        await bootstrapped(site, ears)
        await site.notify(ears.http())
        await site.notify(ears.http())
        assert [(await ears.next())[0].session_id for _ in range(2)] == ["1", "2"]
        assert [each for each in site.sessions if each[1] == 1200] == [("1", 1200), ("2", 1200)]


async def test_user_who_does_not_want(site, tmp_path, monkeypatch):
    """XC-090: asked when the trigger wants it; no session, and the next trigger is heard."""
    asked: list[str] = []

    async def confirm(question: str) -> bool:
        asked.append(question)
        return False

    async with listening(settings_for(tmp_path), monkeypatch, confirm=confirm) as ears:
        await bootstrapped(site, ears)
        sessions = list(site.sessions)
        await site.notify(ears.udp, ui_mode=UiMode.USER_INTERACTION)
        assert (await ears.next())[1] == ""
        assert site.sessions == sessions
        await site.notify(ears.udp)
        await ears.next()
        assert site.sessions[-1] == ("2", 1200)
    assert len(asked) == 1
    assert DPF_ID in asked[0]


async def test_a_server_that_is_away(site, tmp_path, monkeypatch):
    """XC-012: no session came about, so the repeated trigger is heard again."""
    async with listening(settings_for(tmp_path), monkeypatch) as ears:
        await bootstrapped(site, ears)
        handle = site.dpf.endpoint.handle

        async def away(*_: object, **__: object):
            raise OSError("away")

        site.dpf.endpoint.handle = away
        await site.notify(ears.udp)
        call, failure = await ears.next()
        assert "HTTP status 500" in failure
        site.dpf.endpoint.handle = handle
        await site.notify(ears.udp, repeat=True)
        assert await ears.next() == (call, "")


async def test_call_of_a_device_that_was_off(site, tmp_path, monkeypatch):
    """XC-090: a call taken before a restart is answered after it."""
    settings = settings_for(tmp_path)
    async with listening(settings, monkeypatch) as ears:
        await bootstrapped(site, ears)
    device = open_device(settings, Trail("M2ME"), tre=FakeTre())
    device.calls.waiting.append(Call(server_id=DPF_ID, session_id="77"))
    device.save()
    async with listening(settings, monkeypatch) as ears:
        assert (await ears.next())[0].session_id == "77"
    assert site.sessions[-1] == ("77", 1200)


async def test_http_listener_tells_a_sender_nothing(site, tmp_path, monkeypatch):
    """XC-091: 202 for everything that is a POST, 405 and 413 for what is none or too long; no session of any of it."""
    async with listening(settings_for(tmp_path), monkeypatch) as ears, aiohttp.ClientSession() as http:
        await bootstrapped(site, ears)
        sessions = list(site.sessions)
        url = ears.http().url
        for body, content_type in ((b"", ""), (b"x" * 40, "application/vnd.syncml.notification"), (b"x", "text/plain")):
            async with http.post(url, data=body, headers={"Content-Type": content_type}) as response:
                assert (response.status, await response.read()) == (202, b"")
        async with http.get(url) as response:
            assert response.status == 405
        async with http.post(url, data=bytes(70_000)) as response:
            assert response.status == 413
        assert site.sessions == sessions


async def test_pushes_that_cannot_be_delivered(site, tmp_path):
    """XS-032: said by the sender's side, and never with what was in it."""
    push = site.prepare().push
    with pytest.raises(PushFailed, match="HTTP status 404"):
        await send(push, HttpDestination(url=site.url.replace("/dm", "/wappush")))
    with pytest.raises(PushFailed, match="could not be sent"):
        await send(push, HttpDestination(url="http://127.0.0.1:1/"))
    with pytest.raises(PushFailed, match="could not be sent"):
        await send(dataclasses.replace(push, body=push.body), UdpDestination(host="host.invalid", port=2948))


BAD_URLS = {
    "no address": ("nowhere", "no address"),
    "other scheme": ("file:///etc/passwd", "no address"),
    "broken": ("http://[x/", "no address"),
    "no TLS": ("http://127.0.0.1/", "not https"),
    "nobody there": ("https://127.0.0.1:1/secret", "cannot be fetched"),
}


@pytest.mark.parametrize(("url", "told"), BAD_URLS.values(), ids=BAD_URLS)
async def test_documents_that_cannot_be_fetched(url, told):
    """XC-094: https unless plain HTTP is allowed; the URL is not repeated."""
    with pytest.raises(FetchFailed, match=told) as caught:
        await fetch_bootstrap(url, ssl_context=None)
    assert "secret" not in str(caught.value)


async def test_documents_that_are_none(site):
    """XC-094: bounded in size, redirects not followed."""
    from aiohttp import web

    async def huge(_: web.Request) -> web.Response:
        return web.Response(body=bytes(MAX_DOCUMENT + 1))

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("/huge")

    async def twice(_: web.Request) -> web.Response:
        return web.Response(body=b"x", headers={"Content-Type": "a/b; MAC=1; MAC=2"})

    app = web.Application()
    for path, handler in (("/huge", huge), ("/elsewhere", elsewhere), ("/twice", twice)):
        app.router.add_get(path, handler)
    async with TestServer(app, host="127.0.0.1") as server:
        for path, told in (("huge", "too long"), ("elsewhere", "302"), ("twice", "no bootstrap document")):
            with pytest.raises(FetchFailed, match=told):
                await fetch_bootstrap(f"http://127.0.0.1:{server.port}/{path}", ssl_context=None, allow_plain_http=True)


async def test_run_with_a_fetched_bootstrap_that_is_refused(site, tmp_path):
    """XC-094: `dmclient run --bootstrap-url` ends like one with a wrong file."""
    (tmp_path / "other").write_text("another-secret\n")
    settings = settings_for(tmp_path, bootstrap_secret_file=tmp_path / "other", network_url="http://127.0.0.1:1")
    device = open_device(settings, Trail("M2ME"), tre=FakeTre())
    result = await run_device(settings, device, bootstrap_url=site.offer(Profile.DM))
    assert result.reason == "the bootstrap was refused: wrong-mac"
    assert site.sessions == []


async def test_smart_card_at_switch_on(site, tmp_path, monkeypatch):
    """XC-097: the card's server is called on at start; without the card the account is gone at the next start."""
    card = tmp_path / "card"
    push = site.prepare().push
    card.write_bytes(push.body)
    settings = settings_for(tmp_path, bootstrap={"smart_card_file": card})
    async with listening(settings, monkeypatch) as ears:
        assert await ears.next() == (Call(server_id=DPF_ID), "")
        assert server_ids(ears.device.tree.nodes) == (DPF_ID,)
    card.unlink()
    async with listening(settings, monkeypatch) as ears:
        assert server_ids(ears.device.tree.nodes) == ()
    card.mkdir()
    with pytest.raises(ConfigError, match="smart_card_file"):
        await listen_device(settings, ears.device, stop=asyncio.Event())


async def test_listener_settings(site, tmp_path):
    """XC-093: an address that cannot be bound, and secrets that are none, are said at once."""
    taken = settings_for(tmp_path, push={"http": {"host": "192.0.2.1", "port": 1}})
    device = open_device(taken, Trail("M2ME"), tre=FakeTre())
    with pytest.raises(ConfigError, match=r"push\.http"):
        await listen_device(taken, device, stop=asyncio.Event())
    (tmp_path / "imsi").write_text("12345\n")
    wrong = settings_for(tmp_path, bootstrap={"imsi_file": tmp_path / "imsi"})
    with pytest.raises(ConfigError, match="IMSI of 6 to 15 digits"):
        await listen_device(wrong, device, stop=asyncio.Event())
    missing = settings_for(tmp_path, bootstrap={"typed_number_file": tmp_path / "none"})
    with pytest.raises(ConfigError, match="typed_number_file"):
        await listen_device(missing, device, stop=asyncio.Event())


async def test_a_daemon_of_its_own(tmp_path):
    """XC-093: `dmclient listen` tells its ports, takes pushes and ends with status 0 on SIGTERM."""
    settings = settings_for(tmp_path)
    config = tmp_path / "m2me.toml"
    config.write_text(
        f"""
        m2me_id = "{DEVICE_ID}"
        state_dir = "{settings.state_dir}"
        seal_key_file = "{settings.seal_key_file}"
        bootstrap_secret_file = "{settings.bootstrap_secret_file}"
        tls_roots = "{settings.tls_roots}"
        ready_file = "{settings.ready_file}"
        log_format = "json"
        push.http.port = 0
        tre.key_type = "ec"
        """
    )
    manufactured = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dmclient", "--config", config, "manufacture", stdout=asyncio.subprocess.DEVNULL
    )
    assert await asyncio.wait_for(manufactured.wait(), PATIENCE_S) == 0
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dmclient",
        "--config",
        config,
        "listen",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert daemon.stdout is not None

    async def until(text: str) -> None:
        while text not in (line := (await daemon.stdout.readline()).decode()):
            assert line, f"ended before {text}"

    async with asyncio.timeout(PATIENCE_S):
        await until('"over": "http"')
        await until("push.ready")
        ports = json.loads(settings.ready_file.read_text())["ports"]
        await send(
            WapPush(content_type="application/vnd.syncml.notification", body=b"x"),
            UdpDestination(host="127.0.0.1", port=ports["bootstrap"]),
        )
        await until("malformed")
        daemon.terminate()
        rest = (await daemon.stdout.read()).decode()
        assert await daemon.wait() == 0, rest
    assert "Traceback" not in rest
    assert not settings.ready_file.exists()
