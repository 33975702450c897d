"""The operator API over HTTP, and the command line on the same database."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from actor_runtime.errors import ConfigError
from dmserver import server
from dmserver.operator_api import MAX_BODY, OperatorToken, operator_application
from dmserver.store import tables
from tests.integration.test_dmserver_http import settings_in, until
from tests.support_dmserver import Dpf
from tests.support_dpf_pki import M2ME_ID
from tests.support_stub_device import StubDevice

TOKEN = "operator-token-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
COMMANDS = f"/v1/devices/{M2ME_ID}/commands"
GET = {"commands": [{"command": "get", "uris": ["./Test/a"]}]}

Http = TestClient[web.Request, web.Application]


@pytest.fixture
async def dpf(tmp_path: Path) -> AsyncIterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


@pytest.fixture
async def http(dpf: Dpf) -> AsyncIterator[Http]:
    app = operator_application(store=dpf.store, seal_key=dpf.key, token=OperatorToken(TOKEN), now=dpf.clock)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_from_request_to_result(dpf: Dpf, http: Http):
    device = StubDevice()
    device.put("Test/a", "one")
    queued = await http.post(COMMANDS, json=GET, headers=BEARER)
    assert queued.status == 201
    made = await queued.json()
    assert (made["state"], made["commands"][0]["items"]) == ("queued", [{"uri": "./Test/a"}])
    await dpf.session(device)
    shown = await (await http.get(f"{COMMANDS}/{made['id']}", headers=BEARER)).json()
    assert (shown["state"], shown["code"], shown["commands"][0]["results"][0]["value"]) == ("done", 200, "one")
    listed = (await (await http.get(COMMANDS, headers=BEARER)).json())["requests"]
    assert [(each["id"], each["state"], "commands" in each) for each in listed] == [(made["id"], "done", False)]
    about = await (await http.get(f"/v1/devices/{M2ME_ID}", headers=BEARER)).json()
    assert (about["deviceId"], about["managed"], about["clientAuth"]) == (M2ME_ID, False, "syncml:auth-md5")
    assert about["devInfo"]["./DevInfo/DevId"] == M2ME_ID
    devices = (await (await http.get("/v1/devices", headers=BEARER)).json())["devices"]
    assert [each["deviceId"] for each in devices] == [M2ME_ID]
    account = dpf.account()
    for secret in (account.client_secret, account.server_secret, "supplier-secret"):
        assert secret not in json.dumps([about, devices, shown])


async def test_a_repeated_request_is_queued_once(http: Http):
    headers = BEARER | {"Idempotency-Key": "k1"}
    first = await http.post(COMMANDS, json=GET, headers=headers)
    again = await http.post(COMMANDS, json=GET, headers=headers)
    other = await http.post(COMMANDS, json=GET, headers=headers | {"Idempotency-Key": "k2"})
    assert (first.status, again.status, other.status) == (201, 200, 201)
    ids = [(await each.json())["id"] for each in (first, again, other)]
    assert (ids[0] == ids[1], ids[0] != ids[2]) == (True, True)


async def test_cancelling(dpf: Dpf, http: Http):
    made = await (await http.post(COMMANDS, json=GET, headers=BEARER)).json()
    cancelled = await http.delete(f"{COMMANDS}/{made['id']}", headers=BEARER)
    assert (cancelled.status, (await cancelled.json())["state"]) == (200, "cancelled")
    done = await (await http.post(COMMANDS, json=GET, headers=BEARER)).json()
    await dpf.session(StubDevice())
    late = await http.delete(f"{COMMANDS}/{done['id']}", headers=BEARER)
    assert (late.status, (await late.json())["code"]) == (409, "not-cancellable")


async def test_devices_come_in_pages(dpf: Dpf, http: Http, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dmserver.operator_api.PAGE", 2)
    for number in range(3):
        dpf.add_device(f"urn:imei:{number}", with_account=False)
    seen, after = [], ""
    while True:
        page = await (await http.get("/v1/devices", params={"after": after}, headers=BEARER)).json()
        seen += [each["deviceId"] for each in page["devices"]]
        if "next" not in page:
            break
        after = page["next"]
    assert seen == ["urn:imei:0", "urn:imei:1", "urn:imei:2", M2ME_ID]


UNAUTHORISED = {
    "none": {},
    "wrong": {"Authorization": "Bearer wrong"},
    "another scheme": {"Authorization": f"Basic {TOKEN}"},
    "a part of it": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "no scheme": {"Authorization": TOKEN},
    "not ASCII": {"Authorization": "Bearer é"},
}


@pytest.mark.parametrize("headers", UNAUTHORISED.values(), ids=UNAUTHORISED)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/devices"), ("POST", COMMANDS), ("DELETE", f"{COMMANDS}/x"), ("GET", "/nowhere")],
)
async def test_nothing_without_the_token(http: Http, headers: dict[str, str], method: str, path: str):
    answer = await http.request(method, path, headers=headers)
    assert (answer.status, answer.content_type) == (401, "application/problem+json")
    assert TOKEN not in await answer.text()


REFUSED = {
    "unknown device": ("POST", "/v1/devices/urn:x/commands", GET, 404, "device-unknown"),
    "list of an unknown device": ("GET", "/v1/devices/urn:x/commands", None, 404, "device-unknown"),
    "about an unknown device": ("GET", "/v1/devices/urn:x", None, 404, "device-unknown"),
    "unknown request": ("GET", f"{COMMANDS}/x", None, 404, "request-unknown"),
    "cancel an unknown request": ("DELETE", f"{COMMANDS}/x", None, 404, "request-unknown"),
    "no request": ("POST", COMMANDS, {"commands": []}, 400, "malformed-request"),
    "not an object": ("POST", COMMANDS, [1], 400, "malformed-request"),
    "no life": ("POST", COMMANDS, GET | {"expiresIn": 0}, 400, "lifetime-out-of-range"),
    "another method": ("PUT", COMMANDS, GET, 405, "method-not-allowed"),
}


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_mistakes_are_problem_documents(http: Http, method: str, path: str, body: object, status: int, code: str):
    answer = await http.request(method, path, json=body, headers=BEARER)
    assert (answer.status, (await answer.json(content_type=None))["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b" " * (MAX_BODY + 1), 413)]
)
async def test_bodies_that_are_no_json(http: Http, body: bytes, status: int):
    assert (await http.post(COMMANDS, data=io.BytesIO(body), headers=BEARER)).status == status


async def test_a_request_belongs_to_its_device(dpf: Dpf, http: Http):
    dpf.add_device("urn:imei:1", with_account=False)
    made = await (await http.post(COMMANDS, json=GET, headers=BEARER)).json()
    assert (await http.get(f"/v1/devices/urn:imei:1/commands/{made['id']}", headers=BEARER)).status == 404
    assert (await http.delete(f"/v1/devices/urn:imei:1/commands/{made['id']}", headers=BEARER)).status == 404


@pytest.mark.parametrize("content", ["short", "", "with a blank in it", "é" * 20])
def test_a_token_that_can_be_guessed_is_not_taken(tmp_path: Path, content: str):
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError):
        OperatorToken.load(tmp_path / "token")
    with pytest.raises(ConfigError):
        OperatorToken.load(tmp_path / "none")
    assert TOKEN not in repr(OperatorToken(TOKEN))


@pytest.mark.parametrize("with_token", [True, False])
async def test_the_listener_is_there_only_with_a_token(tmp_path: Path, with_token: bool):
    settings, _, _ = settings_in(tmp_path)
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    operator = settings.operator.model_copy(update={"token_file": token_file if with_token else None})
    stop = asyncio.Event()
    running = asyncio.create_task(server.run(settings.model_copy(update={"operator": operator}), stop=stop))
    assert settings.ready_file is not None
    await until(settings.ready_file.exists, running)
    try:
        ports = json.loads(settings.ready_file.read_text())["ports"]
        assert ("operator" in ports) is with_token
        if with_token:
            async with aiohttp.ClientSession() as http:
                url = f"http://127.0.0.1:{ports['operator']}/v1/devices"
                async with http.get(url, headers=BEARER) as answer:
                    assert (answer.status, await answer.json()) == (200, {"devices": []})
    finally:
        stop.set()
        await running


@pytest.mark.parametrize(
    ("host", "tls"), [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True)]
)
def test_off_this_machine_the_token_travels_over_tls_alone(dpf: Dpf, tmp_path: Path, host: str, tls: bool):
    settings, _, _ = settings_in(tmp_path)
    operator = settings.operator.model_copy(update={"host": host})
    listener = server.operator_listener(
        settings.model_copy(update={"operator": operator}), dpf.store, dpf.key, OperatorToken(TOKEN)
    )
    assert (listener.ssl_context is not None) is tls


def test_migrations_make_what_the_tables_say(dpf: Dpf):
    differences = dpf.store.read_sync(lambda c: compare_metadata(MigrationContext.configure(c), tables.metadata))
    assert differences == []
