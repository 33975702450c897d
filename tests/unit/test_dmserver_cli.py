"""Command line and settings of the DPF: what is said, what is refused, with a hint and no traceback."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from actor_runtime.config import load_settings
from actor_runtime.errors import ConfigError
from dmserver import cli
from dmserver.config import DmServerSettings
from dmserver.server import load_rules
from syncml.bootstrap import BootstrapSecrets, accept, parse_push
from tests.support_dpf_pki import DPF_ID, M2ME_ID, SHO_ID

SETTINGS = """
server_id = "dpf.example"
public_dm_url = "https://dpf.example:8443/dm"
database_url = "sqlite:///{dir}/dpf.sqlite"
seal_key = "{dir}/seal.key"
tls_cert = "{dir}/dpf.crt"
tls_key = "{dir}/dpf.key"
tls_ca = "{dir}/tls.pem"
manufacturer_anchors = "{dir}/manufacturer.pem"
pva_anchors = "{dir}/pva.pem"
pva_url = "https://pva.example"
trace_file = "{dir}/trace.jsonl"
log_level = "error"

[shos]
"sho.example" = "https://sho.example"

[limits]
bootstraps_per_hour = 2
"""


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs `dmserver` with a settings file; gives exit status and what it printed."""
    config = tmp_path / "dmserver.toml"
    config.write_text(SETTINGS.format(dir=tmp_path))
    (tmp_path / "secret").write_text("supplier-secret\n")

    def call(*args: str, json_output: bool = True):
        options = ["--config", str(config)] + (["--json"] if json_output else [])
        monkeypatch.setattr("sys.argv", ["dmserver", *options, *args])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return call


def add_device(run, tmp_path):
    return run("devices", "add", "--m2me-id", M2ME_ID, "--bootstrap-secret-file", str(tmp_path / "secret"))


def test_from_device_to_bootstrap(run, tmp_path):
    assert add_device(run, tmp_path)[0] == 0
    assert json.loads(run("devices", "list")[1])[0]["m2meId"] == M2ME_ID
    status, out, _ = run("order", "open", M2ME_ID, "--sho", SHO_ID)
    assert status == 0
    order_id = json.loads(out)["orderId"]
    datagram = tmp_path / "bootstrap.wap"
    status, out, _ = run("bootstrap", M2ME_ID, "--file", str(datagram))
    assert (status, json.loads(out)["dmUrl"]) == (0, "https://dpf.example:8443/dm")
    assert stat.S_IMODE(datagram.stat().st_mode) == 0o600
    account = accept(parse_push(datagram.read_bytes()), BootstrapSecrets(pin="supplier-secret"))
    assert account.server_id == DPF_ID
    shown = json.loads(run("order", "show", order_id)[1])
    assert (shown["state"], shown["shoId"]) == ("OPEN", SHO_ID)
    assert [row["orderId"] for row in json.loads(run("order", "list")[1])] == [order_id]
    records = json.loads(run("audit", order_id)[1])
    assert [record["kind"] for record in records] == ["state", "check", "message"]
    assert "REQ-11" in run("audit", order_id, json_output=False)[1]
    assert account.client is not None
    assert account.client.secret not in (tmp_path / "trace.jsonl").read_text()


MCIM_ID = "00112233-4455-6677-8899-aabbccddeeff"


def test_an_order_says_what_it_is_about(run, tmp_path):
    """REQ-70: operation and target at the command line, with where and when the device is called."""
    add_device(run, tmp_path)
    run("devices", "set", M2ME_ID, "--push", "udp:127.0.0.1:2948")
    status, out, _ = run(
        "order", "open", M2ME_ID, "--sho", SHO_ID, "--operation", "activate", "--mcim", MCIM_ID.upper()
    )
    assert status == 0
    order_id = json.loads(out)["orderId"]
    shown = json.loads(run("order", "show", order_id)[1])
    assert (shown["operation"], shown["mcimId"], shown["push"]) == ("activate", MCIM_ID, "udp:127.0.0.1:2948")
    assert (shown["job"], shown["calls"], shown["reportOwed"]) == (None, 0, False)
    assert shown["nextCall"] is not None
    row = json.loads(run("order", "list")[1])[0]
    assert (row["operation"], row["mcimId"]) == ("activate", MCIM_ID)
    assert json.loads(run("devices", "show", M2ME_ID)[1])["push"] == "udp:127.0.0.1:2948"


def test_suspend_resume_and_cancel_are_on_the_trail(run, tmp_path):
    """REQ-71, flows F9: what an operator does to an order, and what he cannot do any more."""
    add_device(run, tmp_path)
    order_id = json.loads(run("order", "open", M2ME_ID, "--sho", SHO_ID)[1])["orderId"]
    moves = [("suspend", "SUSPENDED"), ("resume", "OPEN"), ("suspend", "SUSPENDED"), ("cancel", "REFUSED")]
    for command, state in moves:
        status, out, _ = run("order", command, order_id)
        assert (status, json.loads(out)["state"]) == (0, state)
    status, _, err = run("order", "resume", order_id)
    assert (status, "the order is REFUSED" in err, "Traceback" in err) == (1, True, False)
    shown = json.loads(run("order", "show", order_id)[1])
    assert (shown["detail"], shown["reportOwed"]) == ("cancelled by an operator", True)
    records = json.loads(run("audit", order_id)[1])
    assert [(record["old"], record["new"]) for record in records[1:]] == [
        ("OPEN", "SUSPENDED"),
        ("SUSPENDED", "OPEN"),
        ("OPEN", "SUSPENDED"),
        ("SUSPENDED", "REFUSED"),
    ]


def test_a_bootstrap_tells_where_the_device_is_called(run, tmp_path):
    """REQ-25: the address of the first push is kept for package 0, unless another one was given."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{device.getsockname()[1]}"
        add_device(run, tmp_path)
        run("order", "open", M2ME_ID, "--sho", SHO_ID)
        run("bootstrap", M2ME_ID, "--udp", address)
        assert json.loads(run("devices", "show", M2ME_ID)[1])["push"] == f"udp:{address}"
        run("devices", "set", M2ME_ID, "--push", "udp:[::1]:2948")
        run("bootstrap", M2ME_ID, "--udp", address)
        assert json.loads(run("devices", "show", M2ME_ID)[1])["push"] == "udp:[::1]:2948"


def test_bootstrap_over_udp(run, tmp_path):
    add_device(run, tmp_path)
    run("order", "open", M2ME_ID, "--sho", SHO_ID)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind(("127.0.0.1", 0))
        device.settimeout(5)
        assert run("bootstrap", M2ME_ID, "--udp", f"127.0.0.1:{device.getsockname()[1]}")[0] == 0
        datagram = device.recv(65536)
    assert accept(parse_push(datagram), BootstrapSecrets(pin="supplier-secret")).server_id == DPF_ID


def test_req11_no_bootstrap_without_order_and_not_too_many(run, tmp_path):
    datagram = str(tmp_path / "b")
    status, _, err = run("bootstrap", M2ME_ID, "--file", datagram)
    assert (status, "is not known" in err) == (1, True)
    add_device(run, tmp_path)
    status, _, err = run("bootstrap", M2ME_ID, "--file", datagram)
    assert (status, "no ongoing order" in err, "hint:" in err) == (1, True, True)
    run("order", "open", M2ME_ID, "--sho", SHO_ID)
    codes = [run("bootstrap", M2ME_ID, "--file", datagram)[0] for _ in range(3)]
    assert codes == [0, 0, 1]


REFUSED = {
    "known already": (
        ("devices", "add", "--m2me-id", M2ME_ID, "--bootstrap-secret-file", "{dir}/secret"),
        "known already",
    ),
    "no secret file": (
        ("devices", "add", "--m2me-id", "urn:x", "--bootstrap-secret-file", "{dir}/none"),
        "No such file",
    ),
    "secret too short": (
        ("devices", "add", "--m2me-id", "urn:x", "--bootstrap-secret-file", "{dir}/short"),
        "no usable",
    ),
    "no identity": (("devices", "add", "--m2me-id", "a b", "--bootstrap-secret-file", "{dir}/secret"), "no identity"),
    "push address without its kind": (("devices", "set", M2ME_ID, "--push", "127.0.0.1:1"), "no push address"),
    "push address without a port": (("devices", "set", M2ME_ID, "--push", "udp:127.0.0.1"), "no push address"),
    "push address over HTTP": (("devices", "set", M2ME_ID, "--push", "http://x/"), "no push address"),
    "push port too high": (("devices", "set", M2ME_ID, "--push", "udp:127.0.0.1:65536"), "no push address"),
    "unknown operation": (("order", "open", M2ME_ID, "--sho", SHO_ID, "--operation", "release"), "operation is none"),
    "no target": (("order", "open", M2ME_ID, "--sho", SHO_ID, "--operation", "delete"), "needs the id of the MCIM"),
    "target of nothing": (("order", "open", M2ME_ID, "--sho", SHO_ID, "--mcim", MCIM_ID), "is about none"),
    "suspend of an unknown order": (("order", "suspend", "x"), "no order x"),
    "not a partner": (("order", "open", M2ME_ID, "--sho", "evil.example"), "is no partner"),
    "unknown device": (("order", "open", "urn:x", "--sho", SHO_ID), "is not known"),
    "unknown order": (("order", "show", "x"), "no order x"),
    "audit of an unknown order": (("audit", "x"), "no order x"),
    "audit of nothing": (("audit",), "which records?"),
    "audit of two things": (("audit", "x", "--all"), "which records?"),
    "no destination": (("bootstrap", M2ME_ID), "say where it goes"),
    "bad address": (("bootstrap", M2ME_ID, "--udp", "nowhere"), "no address"),
}


def test_req71_audit_of_what_belongs_to_no_order(run, tmp_path):
    """What operators did has no order; a listing of it is bounded and ends with the newest."""
    add_device(run, tmp_path)
    order_id = json.loads(run("order", "open", M2ME_ID, "--sho", SHO_ID)[1])["orderId"]
    run("devices", "set", M2ME_ID, "--managed")
    everything = json.loads(run("audit", "--all")[1])
    assert [record["order"] for record in everything] == [None, order_id, None]
    without = json.loads(run("audit", "--without-order")[1])
    assert [record["text"].split()[1] for record in without] == ["added", "changed"]
    assert json.loads(run("audit", "--all", "--limit", "1")[1]) == everything[-1:]
    told = run("audit", "--all", json_output=False)[1]
    assert order_id in told
    assert "operator: added device" in told


@pytest.mark.parametrize(("args", "told"), REFUSED.values(), ids=REFUSED)
def test_mistakes_end_with_a_sentence(run, tmp_path, args, told):
    (tmp_path / "short").write_text("short")
    add_device(run, tmp_path)
    status, _, err = run(*(arg.replace("{dir}", str(tmp_path)) for arg in args))
    assert status == 1
    assert told in err
    assert "Traceback" not in err


def test_without_its_sealing_key_the_database_is_not_opened_with_a_new_one(run, tmp_path):
    add_device(run, tmp_path)
    (tmp_path / "seal.key").unlink()
    status, _, err = run("devices", "add", "--m2me-id", "urn:x", "--bootstrap-secret-file", str(tmp_path / "secret"))
    assert (status, "is missing" in err) == (1, True)
    assert not (tmp_path / "seal.key").exists()


# --- settings ---------------------------------------------------------------------------------------------------------


def settings(tmp_path: Path, text: str = "", **changes: object) -> DmServerSettings:
    file = tmp_path / "s.toml"
    file.write_text(text + SETTINGS.format(dir=tmp_path))
    return load_settings(DmServerSettings, file).model_copy(update=changes)


def test_an_unknown_key_is_named(tmp_path):
    with pytest.raises(ConfigError, match="servr_id: unknown key"):
        settings(tmp_path, 'servr_id = "x"\n')


def test_the_environment_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("DMSERVER_DM__PORT", "8443")
    monkeypatch.setenv("DMSERVER_SHOS", '{"other.example": "https://other"}')
    made = settings(tmp_path)
    assert (made.dm.port, dict(made.shos)["other.example"]) == (8443, "https://other")


@pytest.mark.parametrize(
    ("changes", "port", "url"),
    [
        ({}, 9, "https://dpf.example:8443/dm"),
        ({"public_dm_url": ""}, 9, "https://127.0.0.1:9/dm"),
    ],
)
def test_the_url_devices_are_told(tmp_path, changes, port, url):
    assert settings(tmp_path, **changes).dm_url(port) == url


def test_the_url_for_a_bootstrap_comes_from_the_running_server(tmp_path):
    ready = tmp_path / "ready.json"
    made = settings(tmp_path, public_dm_url="", ready_file=ready)
    with pytest.raises(ConfigError, match="not known"):
        made.announced_dm_url()
    ready.write_text(json.dumps({"ports": {"dm": 4711, "partner": 1}, "pid": 1}))
    assert made.announced_dm_url() == "https://127.0.0.1:4711/dm"


def test_missing_anchors_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"manufacturer\.pem"):
        load_rules(settings(tmp_path), None)
