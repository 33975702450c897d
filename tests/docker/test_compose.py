"""The actors as containers, tested from outside. `docker/test.sh` brings them up and says how to reach them."""

from __future__ import annotations

import json
import os
import shlex
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from lxml import etree

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(300),
    pytest.mark.skipif("M2M_COMPOSE" not in os.environ, reason="needs the containers: make test-docker"),
]

PROVISIONED = "urn:uuid:6f1d7c1e-3b0a-4c5d-9a63-0f2d1b7c9e10"
OUTDATED = "urn:uuid:0b7f3c55-8d1e-4f7b-9f0e-5c6a7d8e9f01"
DM_XML = "application/vnd.syncml.dm+xml"
WAIT_S = 120


def run(*command: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def compose(*arguments: str) -> str:
    return run(*shlex.split(os.environ["M2M_COMPOSE"]), *arguments)


def container(service: str) -> str:
    return compose("--profile", "outdated", "ps", "-q", service).strip()


def state_of(service: str) -> dict[str, object]:
    state = json.loads(run("docker", "inspect", "-f", "{{json .State}}", container(service)))
    assert isinstance(state, dict)
    return state


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.5)  # another host's processes: there is nothing to wait on


def exit_code(service: str) -> int:
    wait_until(f"the end of {service}", lambda: state_of(service)["Status"] == "exited")
    code = state_of(service)["ExitCode"]
    assert isinstance(code, int)
    return code


def order_states(m2me_id: str) -> list[str]:
    listed = compose("exec", "-T", "dpf", "dmserver", "--config", "/etc/m2m/dpf.toml", "--json", "order", "list")
    return [str(row["state"]).upper() for row in json.loads(listed) if row["m2meId"] == m2me_id]


def ro(*command: str) -> list[dict[str, object]]:
    rows = json.loads(compose("exec", "-T", "ro", "ro", "--config", "/etc/m2m/ro.toml", *command, "--json"))
    assert isinstance(rows, list)
    return rows


def test_the_device_is_provisioned_and_attached() -> None:
    """REQ-11, REQ-68, REQ-69, REQ-72: attach with the PCID, registration, provisioning, attach with the MCIM.

    The m2me container exits 0, its order is closed, and the provisional identity is its own.
    """
    assert exit_code("m2me") == 0
    assert order_states(PROVISIONED) == ["CLOSED"]
    (identity,), (registration,), (visit,) = ro("pcid", "list"), ro("registration", "list"), ro("visits")
    assert (identity["state"], identity["m2meId"]) == ("issued", PROVISIONED)
    assert (registration["m2meId"], registration["state"], registration["sho"]) == (
        PROVISIONED,
        "bootstrapped",
        "sho.m2m.example",
    )
    assert (visit["vno"], visit["outcome"], visit["count"]) == ("26201", "attached", 1)


def test_a_device_the_pva_does_not_trust_is_refused_and_then_has_no_order() -> None:
    """REQ-13, REQ-17, REQ-23: its TRE's version has no reference value: the order is refused, the device ends with 2.

    Started again it has an account and no order: 403 to its registration request, status 2.
    """
    compose("--profile", "outdated", "up", "-d", "--no-deps", "outdated")

    def healthy() -> bool:
        health = state_of("outdated").get("Health")
        return isinstance(health, dict) and health["Status"] == "healthy"

    wait_until("the device", healthy)
    compose("run", "--rm", "--no-deps", "operator", "/opt/m2m/docker/provision.sh", OUTDATED, "outdated")
    assert exit_code("outdated") == 2
    assert order_states(OUTDATED) == ["REFUSED"]
    again = subprocess.run(
        [
            *shlex.split(os.environ["M2M_COMPOSE"]),
            "--profile",
            "outdated",
            "run",
            "--rm",
            "--no-deps",
            "-T",
            "outdated",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert again.returncode == 2, again.stdout + again.stderr
    assert "no open order" in again.stdout
    assert order_states(OUTDATED) == ["REFUSED"]


def post(body: bytes, content_type: str = DM_XML) -> tuple[int, bytes]:
    """POST to the DM endpoint with nothing but the standard library, TLS verified."""
    address = compose("port", "dpf", "8443").strip()
    anchors = compose("exec", "-T", "dpf", "cat", "/var/lib/m2m/dpf/pki/anchors/tls.pem")
    context = ssl.create_default_context(cadata=anchors)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(
        f"https://{address}/dm", data=body, headers={"Content-Type": content_type}, method="POST"
    )
    try:
        with opener.open(request, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith(DM_XML)
            assert answer.headers["Content-Length"]
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


PACKAGE_1 = b"""<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>
<SessionID>7</SessionID><MsgID>1</MsgID><Target><LocURI>https://dpf/dm</LocURI></Target>
<Source><LocURI>urn:uuid:plain-client</LocURI></Source></SyncHdr><SyncBody>
<Alert><CmdID>1</CmdID><Data>1201</Data></Alert>
<Replace><CmdID>2</CmdID><Item><Source><LocURI>./DevInfo/DevId</LocURI></Source><Data>urn:uuid:plain-client</Data>
</Item></Replace><Final/></SyncBody></SyncML>"""


def test_a_plain_http_client_is_challenged() -> None:
    """XS-007: a DM session over HTTPS: 407 with a challenge for the header and each command, RespURI, no commands."""
    status, body = post(PACKAGE_1)
    assert status == 200
    message = etree.fromstring(body)
    names = {"s": "SYNCML:SYNCML1.2", "m": "syncml:metinf"}
    assert message.xpath("//s:Status/s:Data/text()", namespaces=names) == ["407", "407", "407"]
    assert message.xpath("//s:Chal/s:Meta/m:Type/text()", namespaces=names) == ["syncml:auth-md5"]
    assert message.xpath("//s:SyncHdr/s:RespURI/text()", namespaces=names)
    assert not message.xpath("//s:Get|//s:Add|//s:Exec", namespaces=names)


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"<not xml", DM_XML), (PACKAGE_1, "text/html")], ids=["malformed", "another type"]
)
def test_bad_requests_are_answered_and_the_server_goes_on(body: bytes, content_type: str) -> None:
    """XS-037."""
    status, answer = post(body, content_type)
    assert 400 <= status < 500 or b"<Data>400</Data>" in answer
    assert b"Traceback" not in answer
    assert post(PACKAGE_1)[0] == 200
