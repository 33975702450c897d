"""A plain DM server and plain DM devices as processes: all commands, both encodings, all kinds of credentials."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m2m_demo.processes import POLL_S, Supervisor
from m2m_demo.world import environment
from tests.e2e.plain_world import DEVICE, ROOT, SCRIPTS, SERVER, TOKEN, PlainWorld, device_id

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GADGET = "./Device/Vendor/Example/Gadget"
DDF = ROOT / "tests/vectors/ddf/csp-style-gadget.xml"
REFUSED = 2  # exit status of `dmclient session`
PATIENCE_S = 60.0  # a bound on failure: seven programs that start at once take their time on a busy machine


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainWorld]:
    """A server without TLS that runs."""
    directory = tmp_path_factory.mktemp("plain")
    with Supervisor(directory / "logs", environment=environment()) as supervisor:
        made = PlainWorld(directory, supervisor)
        made.serve()
        yield made


def own(uri: str) -> tuple[dict[str, Any], ...]:
    """A new interior node, and the rights that keep it usable for the server."""
    rights = "&".join(f"{each}={SERVER}" for each in ("Add", "Delete", "Get", "Replace"))
    return (
        {"command": "add", "uri": uri, "node": True},
        {"command": "replace", "uri": f"{uri}?prop=ACL", "value": rights},
    )


class Operator:
    """An operator's script: the API over HTTP."""

    def __init__(self, world: PlainWorld, device: str) -> None:
        self._base = f"http://127.0.0.1:{world.ports['operator']}/v1/devices/{device}/commands"

    def _call(self, path: str = "", body: object = None) -> Any:
        request = urllib.request.Request(
            self._base + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def queue(self, *commands: dict[str, Any]) -> str:
        """Id of the new request."""
        return str(self._call(body={"commands": commands})["id"])

    def shown(self, request: str) -> dict[str, Any]:
        """The request as it is now."""
        return dict(self._call(f"/{request}"))

    def states(self) -> list[str]:
        """Of all requests, newest first."""
        return [each["state"] for each in self._call()["requests"]]

    def over(self, request: str) -> dict[str, Any]:
        """The request when it is over."""
        until(lambda: self.shown(request)["state"] not in ("queued", "sent"))
        return self.shown(request)


def until(true: Any) -> None:
    """Look again and again: what another process does gives no event."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(POLL_S)


def register(world: PlainWorld, device: str, auth: str = "md5") -> Operator:
    """The device is known to the server and has an account there."""
    world.dms("devices", "add", "--m2me-id", device, "--managed", "--bootstrap-secret-file", "bootstrap.secret")
    world.dms(
        "devices", "account", device, "--client-name", "device", "--client-auth", auth, "--server-auth", auth,
        "--client-secret-file", "client.secret", "--server-secret-file", "server.secret",
    )  # fmt: skip
    return Operator(world, device)


def values(shown: dict[str, Any]) -> dict[str, str]:
    """What a request brought, by address."""
    return {each["uri"]: each.get("value", "") for command in shown["commands"] for each in command.get("results", ())}


def codes(shown: dict[str, Any]) -> list[int]:
    return [command["code"] for command in shown["commands"]]


@pytest.mark.parametrize(
    ("auth", "client_word", "encoding"), [("basic", "basic", "xml"), ("md5", "md5", "wbxml"), ("hmac", "mac", "xml")]
)
def test_credentials_and_encodings(world: PlainWorld, auth: str, client_word: str, encoding: str) -> None:
    """XI-1, XI-2, XI-3: both sides prove themselves; the operator reads and writes over HTTP."""
    name = f"auth-{auth}"
    operator = register(world, device_id(name), auth)
    config = world.device_settings(
        name,
        ('client_auth = "md5"', f'client_auth = "{client_word}"'),
        ('server_auth = "md5"', f'server_auth = "{client_word}"'),
        ('encoding = "wbxml"', f'encoding = "{encoding}"'),
    )
    request = operator.queue(
        {"command": "add", "uri": "./Scratch/Note", "value": name},
        {"command": "get", "uris": ["./Scratch/Note", "./DevInfo/DevId"]},
    )
    assert world.device(config) == {"result": "done", "reason": "done"}
    shown = operator.shown(request)
    assert (shown["state"], codes(shown)) == ("done", [200, 200])
    assert values(shown) == {"./Scratch/Note": name, "./DevInfo/DevId": device_id(name)}


def test_every_command_of_the_operator(world: PlainWorld) -> None:
    """XS-039, XC-060: get, add, replace, exec, copy, delete, alert and run at the command line; `--wait` tells all."""
    device = device_id("verbs")
    operator = register(world, device)
    config = world.device_settings("verbs")
    scripted = ("--ddf", str(DDF), "--behaviour", "behaviour.toml")
    setting_up = [
        *own("./Scratch/Box"),  # what the server may do in it from now on
        *({"command": "add", "uri": f"./Scratch/Box/{each}", "value": each} for each in ("Two", "Three")),
    ]
    (world.directory / "commands.json").write_text(json.dumps({"commands": setting_up}))
    world.dms("device", device, "run", "commands.json", "--sequence")
    world.dms("device", device, "add", "./Scratch/One", "--value", "one")
    assert world.device(config, *scripted)["result"] == "done"
    assert operator.states() == ["done", "done"]

    asked = {
        "get": ["get", "./Scratch/One", f"{GADGET}/Level"],
        "replace": ["replace", f"{GADGET}/Enabled", "--value", "true", "--format", "bool"],
        "exec": ["exec", f"{GADGET}/Reset"],
        "copy": ["copy", "./Scratch/Box/Two", "./Scratch/Box/Four"],
        "delete": ["delete", "./Scratch/Box/Three"],
        "alert": ["alert", "confirm", "Go on?"],
        "failing": ["get", "./DevDetail/HwV"],
    }
    waiting = {
        name: world.begin(f"wait-{name}", "device", device, *words, "--wait", "--wait-s", f"{PATIENCE_S:g}")
        for name, words in asked.items()
    }
    until(lambda: operator.states().count("queued") == len(asked))
    assert world.device(config, *scripted)["result"] == "done"
    told = {
        name: json.loads(world.supervisor.finish(process, expect=None if name in ("failing", "alert") else 0))
        for name, process in waiting.items()
    }
    for name in ("get", "replace", "exec", "copy", "delete"):
        assert (told[name]["state"], codes(told[name])) == ("done", [200]), told[name]
    assert values(told["get"])["./Scratch/One"] == "one"
    assert codes(told["alert"]) == [304]  # the scripted user says no
    assert (told["failing"]["state"], codes(told["failing"])) == ("failed", [405])  # the behaviour file says so
    after = operator.queue({"command": "get", "uris": [f"{GADGET}/Enabled", "./Scratch/Box/Four", "./Scratch/Box"]})
    assert world.device(config, *scripted)["result"] == "done"
    found = values(operator.shown(after))
    assert (found[f"{GADGET}/Enabled"], found["./Scratch/Box/Four"]) == ("true", "Two")
    assert sorted(found["./Scratch/Box"].split("/")) == ["Four", "Two"]


def test_pushes_reach_a_listening_device(world: PlainWorld) -> None:
    """XI-7, XI-8, XC-090: bootstrap over UDP, then notifications; the user who is not there refuses by setting."""
    device = device_id("pushed")
    world.dms("devices", "add", "--m2me-id", device, "--managed", "--bootstrap-secret-file", "bootstrap.secret")
    operator = Operator(world, device)
    config = world.device_settings("pushed", ('user_interaction = "accept"', 'user_interaction = "refuse"'))
    file = world.directory / config
    file.write_text(file.read_text().partition("[[account]]")[0])  # it has to be bootstrapped
    listener = world.supervisor.start("listen", world.argv("dmclient", config, "listen"))
    ports = world.supervisor.wait_ready(listener, world.directory / "ready-pushed.json")
    udp = ("--udp", f"127.0.0.1:{ports['bootstrap']}")
    first = operator.queue({"command": "get", "uris": ["./DevInfo/Man"]})
    world.dms("bootstrap", device, *udp)
    assert operator.over(first)["state"] == "done"
    second = operator.queue({"command": "get", "uris": ["./DevInfo/Mod"]})
    unwanted = world.dms("notify", device, *udp, "--ui-mode", "user-interaction")
    until(lambda: "call.user_interaction" in listener.log.read_text())
    assert operator.shown(second)["state"] == "queued"
    called = world.dms("notify", device, *udp)
    assert operator.over(second)["state"] == "done"
    log = listener.log.read_text()
    world.supervisor.stop(listener)
    assert f"session_id={called['sessionId']}" in log
    assert unwanted["sessionId"] != called["sessionId"]
    assert listener.exit_code() == 0
    assert "Traceback" not in listener.log.read_text()


def test_bootstraps_that_the_device_fetches_or_finds(world: PlainWorld) -> None:
    """XC-094: by URL, once; in a file under another secret it is refused, and the account stays as it was."""
    device = device_id("fetched")
    world.dms("devices", "add", "--m2me-id", device, "--managed", "--bootstrap-secret-file", "bootstrap.secret")
    config = world.device_settings("fetched")
    file = world.directory / config
    file.write_text(file.read_text().partition("[[account]]")[0])
    url = world.dms("bootstrap", device, "--pull", "--profile", "dm")["pullUrl"]
    assert world.device(config, "--bootstrap-url", url) == {"result": "done", "reason": "done"}
    world.device(config, "--bootstrap-url", url, expect=1)  # it works once; nothing but an error is printed
    world.dms("bootstrap", device, "--file", "boot.bin")
    (world.directory / "other.secret").write_text("87654321\n")
    file.write_text(file.read_text().replace("bootstrap.secret", "other.secret"))
    refused = world.device(config, "--bootstrap-file", "boot.bin", expect=REFUSED)
    assert refused == {"result": "refused", "reason": "the bootstrap was refused: wrong-mac"}


def test_tls_needs_a_certificate_and_its_key_alone(tmp_path: Path) -> None:
    """XC-066: `m2m-ca` makes them; a device without that root does not send its credentials."""
    with Supervisor(tmp_path / "logs", environment=environment()) as supervisor:
        world = PlainWorld(tmp_path / "tls", supervisor)
        settings = world.directory / "dmserver-plain.toml"
        text = settings.read_text().replace("plain_http = true ", "plain_http = false")
        settings.write_text(text.replace("# tls_", "tls_"))
        ca, tls = str(world.directory / "ca"), str(world.directory / "tls")
        supervisor.command("ca", [str(SCRIPTS / "m2m-ca"), "init", ca])
        hosts = ("--host", "localhost", "--host", "127.0.0.1")
        supervisor.command("ca", [str(SCRIPTS / "m2m-ca"), "issue", "tls", ca, "--out", tls, *hosts])
        world.serve()
        operator = register(world, DEVICE)
        port = world.ports["dm"]
        own = f"http://127.0.0.1:{port}/dm", f"https://127.0.0.1:{port}/dm"
        plain = ("allow_plain_http = true ", "allow_plain_http = false")
        root = next((world.directory / "ca" / "anchors").glob("tls.pem"))
        trusting = world.device_settings("tls", own, plain, (device_id("tls"), DEVICE), env=f'tls_roots = "{root}"\n')
        stranger = world.device_settings("new", own, plain, (device_id("new"), DEVICE))
        request = operator.queue({"command": "get", "uris": ["./DevInfo/Man"]})
        assert "not authenticated" in world.device(stranger, expect=REFUSED)["reason"]
        assert operator.shown(request)["state"] == "queued"
        assert world.device(trusting) == {"result": "done", "reason": "done"}
        assert operator.shown(request)["state"] == "done"
