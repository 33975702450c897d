"""The command line with the real TRE: from manufacture to certificates, and exit statuses that mean what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from typer.testing import CliRunner

from actor_runtime.config import load_settings
from actor_runtime.errors import ActorError, ConfigError, StoreError
from actor_runtime.sealing import SealingKey
from actor_runtime.trail import Trail
from dmclient import cli, cli_common
from dmclient.agent import ExitStatus, RunResult
from dmclient.app import open_device, open_tre
from dmclient.config import ClientSettings
from dmclient.dm_account import write_account
from dmclient.store.state_file import exclusive
from m2m_ca.directory import CaDirectory, read_request, write_tre_certificates
from mcim.evidence import verify_evidence
from mo_definitions import check_tree, load
from syncml.model import Exec, Get, Item, Meta, Replace
from tests.support_dmclient import DEVICE_ID, DPF, Clock, bootstrap_profile, bootstrap_push
from tests.support_executor import Commands

TRE_ID = "urn:m2m:tre:imei:004999010640000"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The log set-up of a process is not for this one."""
    monkeypatch.setattr(cli_common, "configure_logs", lambda **_: None)


def settings_file(directory: Path, *lines: str) -> Path:
    path = directory / "m2me.toml"
    fixed = [
        f'm2me_id = "{DEVICE_ID}"',
        f'state_dir = "{directory / "state"}"',
        f'seal_key_file = "{directory / "seal.key"}"',
        *lines,
        '[tre]\nkey_type = "ec"',
    ]
    path.write_text("\n".join(fixed) + "\n")
    return path


def invoke(settings: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, ["--config", str(settings), *arguments])
    if isinstance(result.exception, ActorError):
        raise result.exception
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> CaDirectory:
    ca = CaDirectory(tmp_path_factory.mktemp("ca"))
    ca.init(datetime.now(UTC).replace(microsecond=0))
    return ca


def install(settings: Path, directory: Path, ca: CaDirectory) -> dict[str, Any]:
    """What the supplier does after `manufacture`, and what is shown then."""
    request = read_request(directory / "request.json")
    issued = ca.issue_tre(request, datetime.now(UTC).replace(microsecond=0))
    write_tre_certificates(issued, directory / "certificates")
    shown = invoke(
        settings,
        "install-certificates",
        "--platform", str(directory / "certificates" / "platform.crt"),
        "--attest", str(directory / "certificates" / "attest.crt"),
        "--chain", str(directory / "certificates" / "chain.pem"),
        "--sho-anchors", str(ca.path / "anchors" / "sho.pem"),
        "--json",
    )  # fmt: skip
    return dict(json.loads(shown))


def test_manufacture_and_certificates(tmp_path, certificates):
    """REQ-21, REQ-44: keys and request once, certificates and roots into the TRE; `info` shows no secret."""
    settings = settings_file(tmp_path)
    invoke(settings, "manufacture", "--request", str(tmp_path / "request.json"))
    assert json.loads((tmp_path / "request.json").read_text())["treId"] == TRE_ID
    assert (tmp_path / "seal.key").stat().st_mode & 0o077 == 0
    assert json.loads(invoke(settings, "info", "--json"))["certified"] is False
    installed = install(settings, tmp_path, certificates)
    info = json.loads(invoke(settings, "info", "--json"))
    assert (info["m2meId"], info["treId"], info["certified"]) == (DEVICE_ID, TRE_ID, True)
    assert info["suites"] == ["MCIM-EC-GCM-256", "MCIM-EC-CBC-256"]
    assert info["mcims"] == []
    assert installed == {"treId": TRE_ID, "certified": True, "trustAnchors": info["trustAnchors"]}
    assert "suites: " in invoke(settings, "info")
    with pytest.raises(ActorError, match="already"):
        invoke(settings, "manufacture")


def test_request_on_the_output(tmp_path):
    """Without --request it is printed."""
    assert json.loads(invoke(settings_file(tmp_path), "manufacture"))["m2meId"] == DEVICE_ID


def test_live_tree_of_the_real_tre(tmp_path, certificates):
    """REQ-02, 06, 18, 45: M2MMobj follows its DDF, the evidence verifies with the certificate in the tree."""
    settings_path = settings_file(tmp_path)
    invoke(settings_path, "manufacture", "--request", str(tmp_path / "request.json"))
    install(settings_path, tmp_path, certificates)
    settings = load_settings(ClientSettings, settings_path)
    clock = Clock(datetime.now(UTC))
    device = open_device(settings, Trail("M2ME"), now=clock)
    device.register()
    assert check_tree(load("M2MMobj"), device.tree.facts(("M2MMobj",))) == []
    assert device.dev_info["./DevInfo/DevId"] == DEVICE_ID
    write_account(device.tree, bootstrap_profile())
    executor = Commands(device.tree, DPF)
    challenge = Item(target="./M2MMobj/Attestation/Challenge", meta=Meta(format="bin"), data=b"c" * 32)
    assert executor.execute(Replace(cmd_id="1", items=(challenge,)))[0].code == 200
    generate = Exec(cmd_id="2", items=(Item(target="./M2MMobj/Attestation/Generate"),))
    assert executor.execute(generate)[0].code == 200
    uris = ("Attestation/Evidence", "TRE/AttestCert", "Registration/Nonce")
    results = executor.execute(Get(cmd_id="3", items=tuple(Item(target=f"./M2MMobj/{uri}") for uri in uris)))
    evidence, attest, nonce = (result.item.data for result in results)
    key = x509.load_der_x509_certificate(attest).public_key()
    statement = verify_evidence(evidence, key)
    assert (statement.challenge, statement.nonce, statement.m2me_id) == (b"c" * 32, nonce, DEVICE_ID)


WRONG = {
    "unknown key": ('colour = "red"', "unknown key"),
    "no identity": ('pcid = "12"', "pcid"),
    "broken TOML": ("=", "not TOML"),
}


@pytest.mark.parametrize(("line", "text"), WRONG.values(), ids=WRONG)
def test_settings_that_are_wrong_are_named(tmp_path, line, text):
    """File and key, never a traceback."""
    with pytest.raises(ConfigError, match=text):
        invoke(settings_file(tmp_path, line), "info")


def test_environment_wins(tmp_path, monkeypatch):
    """DMCLIENT_…, with __ between levels."""
    monkeypatch.setenv("DMCLIENT_TRE__VERSION", "9.9")
    monkeypatch.setenv("DMCLIENT_SUPPLIER", "maker")
    settings = load_settings(ClientSettings, settings_file(tmp_path))
    assert (settings.tre.version, settings.profile().m2m.supplier) == ("9.9", "maker")


def test_what_is_missing_is_said(tmp_path, certificates):
    """No TRE, no files, no certificates, a token that is none, a store of another key."""
    settings = settings_file(tmp_path)
    with pytest.raises(ConfigError, match=r"seal\.key"):
        invoke(settings, "mcim", "list")
    SealingKey.generate(tmp_path / "seal.key")
    with pytest.raises(ConfigError, match="TRE"):
        invoke(settings, "mcim", "list")
    for content in (b"", b"x" * 65):
        (tmp_path / "token").write_bytes(content)
        tokened = tmp_path / "tokened.toml"
        tokened.write_text(settings.read_text() + f'device_token_file = "{tmp_path / "token"}"\n')
        with pytest.raises(ConfigError, match="token"):
            invoke(tokened, "manufacture")
    invoke(settings, "manufacture", "--request", str(tmp_path / "request.json"))
    with pytest.raises(ConfigError, match="nowhere"):
        invoke(settings, "run", "--bootstrap-file", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="tls_roots"):
        invoke(settings, "run")
    with pytest.raises(ConfigError, match="tls_roots"):
        invoke(settings, "attach")
    files = ["--platform", "--attest", "--chain", "--sho-anchors"]
    arguments = [each for name in files for each in (name, str(tmp_path / "request.json"))]
    with pytest.raises(ConfigError, match="no PEM"):
        invoke(settings, "install-certificates", *arguments)
    roots = str(certificates.path / "anchors" / "sho.pem")
    arguments = [each for name in files for each in (name, roots)]
    with pytest.raises(ActorError, match="other keys"):
        invoke(settings, "install-certificates", *arguments)


@pytest.mark.parametrize("status", ExitStatus)
def test_exit_status_of_run_is_real(tmp_path, monkeypatch, status):
    """0 only after the attach, 2 when refused, 1 when nobody answered; the reason is printed."""

    async def result(*_args: object, **_kwargs: object) -> RunResult:
        return RunResult(status=status, reason="why")

    monkeypatch.setattr(cli, "run_device", result)
    monkeypatch.setattr(cli, "attach_device", result)
    settings = settings_file(tmp_path)
    invoke(settings, "manufacture", "--request", str(tmp_path / "request.json"))
    for command in ("run", "attach"):
        printed = json.loads(invoke(settings, command, "--json", code=int(status)))
        assert printed == {"result": status.name.lower(), "reason": "why", "imsiMask": ""}


def test_refusal_without_mcim(tmp_path, certificates):
    """`attach` before anything was provisioned: exit status 2, nothing is sent."""
    roots = certificates.path / "anchors" / "tls.pem"
    settings = settings_file(tmp_path, f'tls_roots = "{roots}"', 'network_url = "https://127.0.0.1:1"')
    invoke(settings, "manufacture", "--request", str(tmp_path / "request.json"))
    assert "no activated MCIM" in invoke(settings, "attach", code=2)


def test_wrong_bootstrap_ends_a_run(tmp_path, certificates):
    """REQ-08 through the command line: exit status 2."""
    roots, secret = certificates.path / "anchors" / "tls.pem", tmp_path / "secret"
    secret.write_text("right\n")
    (tmp_path / "push").write_bytes(bootstrap_push(secret="wrong"))
    settings = settings_file(
        tmp_path,
        f'tls_roots = "{roots}"',
        'network_url = "https://127.0.0.1:1"',
        f'bootstrap_secret_file = "{secret}"',
    )
    invoke(settings, "manufacture", "--request", str(tmp_path / "request.json"))
    output = invoke(settings, "run", "--bootstrap-file", str(tmp_path / "push"), code=2)
    assert "wrong-mac" in output


def test_a_process_of_its_own(tmp_path):
    """`python -m dmclient`: an error ends with status 1 and a hint on standard error, not a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "dmclient", "--config", str(tmp_path / "missing.toml"), "info"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_tre_of_another_version_is_said(tmp_path, monkeypatch):
    """A store that opens and is not ours."""

    def other(*_args: object, **_kwargs: object) -> None:
        raise ValueError("the TRE store has an unknown format")

    settings_path = settings_file(tmp_path)
    invoke(settings_path, "manufacture", "--request", str(tmp_path / "request.json"))
    monkeypatch.setattr("dmclient.app.Tre.open", other)
    with pytest.raises(ConfigError, match="unknown format"):
        open_tre(load_settings(ClientSettings, settings_path))


# -- the trusted environment ------------------------------------------------------------------------------------------


def shown(settings: Path, *arguments: str, code: int = 0) -> Any:
    """The JSON in the output; whatever log this test process was left with may be around it."""
    for line in invoke(settings, *arguments, "--json", code=code).splitlines():
        with suppress(json.JSONDecodeError):
            found = json.loads(line)
            if isinstance(found, list) or "event" not in found:
                return found
    raise AssertionError("no JSON")


def refusal(settings: Path, *arguments: str) -> Any:
    return shown(settings, *arguments, code=2)


@pytest.fixture
def equipped(tmp_path, certificates) -> Path:
    """Settings of a certified device, set up for tests."""
    settings = settings_file(tmp_path, "keep_packages = true")
    invoke(settings, "manufacture", "--request", str(tmp_path / "request.json"))
    install(settings, tmp_path, certificates)
    return settings


def test_info_without_a_tre(tmp_path):
    """Both say that there is none, and make nothing."""
    settings = settings_file(tmp_path)
    assert json.loads(invoke(settings, "tre", "info", "--json")) == {"manufactured": False}
    assert json.loads(invoke(settings, "info", "--json"))["manufactured"] is False
    assert not (tmp_path / "seal.key").exists()


def test_tre_info(equipped):
    """Facts of M2MMobj/TRE; nothing is measured in a process that only looks."""
    info = shown(equipped, "tre", "info")
    assert (info["treId"], info["state"], info["certified"], info["mcims"]) == (TRE_ID, "ok", True, 0)
    assert info["algorithms"] == ["milenage", "tuak128", "tuak256"]
    assert isinstance(shown(equipped, "tre", "measurements"), list)
    assert shown(equipped, "mcim", "list") == []


def test_rekey_and_complete(equipped, tmp_path, certificates):
    """REQ-21: new keys are asked for, certified and put in use."""
    before = shown(equipped, "tre", "info")["platformKeyId"]
    with pytest.raises(ActorError, match="no new keys"):
        invoke(equipped, "tre", "complete-rekey", *certificate_options(tmp_path))
    invoke(equipped, "tre", "rekey", "--request", str(tmp_path / "new.json"))
    assert "oldProof" in json.loads((tmp_path / "new.json").read_text())
    with pytest.raises(ActorError, match="other keys"):
        invoke(equipped, "tre", "complete-rekey", *certificate_options(tmp_path))
    issued = certificates.issue_tre(read_request(tmp_path / "new.json"), datetime.now(UTC).replace(microsecond=0))
    write_tre_certificates(issued, tmp_path / "new-certificates")
    invoke(equipped, "tre", "complete-rekey", *certificate_options(tmp_path, "new-certificates"))
    after = shown(equipped, "tre", "info")
    assert (after["platformKeyId"] != before, after["certified"]) == (True, True)


def certificate_options(directory: Path, name: str = "certificates") -> tuple[str, ...]:
    files = directory / name
    return (
        "--platform", str(files / "platform.crt"), "--attest", str(files / "attest.crt"),
        "--chain", str(files / "chain.pem"),
    )  # fmt: skip


def test_supplier_command_that_is_none(equipped, tmp_path):
    """REQ-44: refused with its code, exit status 2."""
    (tmp_path / "command").write_bytes(b"anything")
    assert refusal(equipped, "tre", "supplier-command", str(tmp_path / "command"))["result"] in (1410, 1412)
    with pytest.raises(ActorError):
        invoke(equipped, "tre", "supplier-command", str(tmp_path / "nothing"))


@pytest.mark.parametrize("operation", ["activate", "suspend", "delete"])
def test_command_on_an_mcim_that_is_not_there(equipped, operation):
    """REQ-70: 1405, exit status 2."""
    said = refusal(equipped, "mcim", operation, "00112233-4455-6677-8899-aabbccddeeff")
    assert (said["result"], said["check"]) == (1405, "life-cycle-state")


def test_attach_with_an_mcim_that_is_not_there(equipped, tmp_path):
    """`attach --mcim`."""
    lines = equipped.read_text().replace(
        "keep_packages", f'network_url = "https://127.0.0.1:9"\ntls_roots = "{tls_roots(tmp_path)}"\nkeep_packages'
    )
    equipped.write_text(lines)
    assert (
        shown(equipped, "attach", "--mcim", "00112233-4455-6677-8899-aabbccddeeff", code=2)["reason"]
        == "there is no such MCIM"
    )


def tls_roots(directory: Path) -> Path:
    path = directory / "tls.pem"
    path.write_bytes((directory / "certificates" / "chain.pem").read_bytes())
    return path


def test_old_store(equipped):
    """T3: a store that was saved before and put back: the TRE is tampered with, and everything is refused."""
    invoke(equipped, "tamper", "save-store")
    invoke(equipped, "tre", "rekey")
    invoke(equipped, "tamper", "old-store")
    assert shown(equipped, "tre", "info")["state"] == "tampered"
    assert refusal(equipped, "mcim", "suspend", "00112233-4455-6677-8899-aabbccddeeff")["result"] == 1423


def test_counter_turned_back(equipped):
    """T3: the counter alone."""
    invoke(equipped, "tamper", "counter")
    assert shown(equipped, "tre", "info")["state"] == "tampered"


@pytest.mark.parametrize(("kind", "command"), [("store-bit", "tre"), ("state", "device")])
def test_a_bit_of_a_sealed_file(equipped, kind, command):
    """REQ-42: what is sealed does not open when it was changed."""
    open_device(load_settings(ClientSettings, equipped), Trail("M2ME")).save()
    invoke(equipped, "tamper", kind)
    with pytest.raises(ActorError):
        invoke(equipped, *(("tre", "info") if command == "tre" else ("info",)))


def test_replay_of_a_kept_package(equipped, tmp_path):
    """T3, REQ-52: nothing was kept, then something that is no package: refused with exit status 2."""
    with pytest.raises(ActorError):
        invoke(equipped, "replay")
    (tmp_path / "state" / "last-package").write_bytes(b"no package at all")
    assert refusal(equipped, "replay")["result"] == 1410
    assert "last-package" in invoke(equipped, "tamper", "package-bit")


CHANGES = {
    "run": ("run",),
    "listen": ("listen",),
    "attach": ("attach",),
    "install-certificates": ("install-certificates", *(f"--{name}={{}}" for name in (
        "platform", "attest", "chain", "sho-anchors"))),
    "tre rekey": ("tre", "rekey"),
    "tre complete-rekey": ("tre", "complete-rekey", *(f"--{name}={{}}" for name in ("platform", "attest", "chain"))),
    "tre supplier-command": ("tre", "supplier-command", "{}"),
    **{f"mcim {name}": ("mcim", name, str(UUID(int=1))) for name in ("activate", "suspend", "delete")},
    "tamper": ("tamper", "hint"),
    "replay": ("replay",),
}  # fmt: skip


@pytest.mark.parametrize("command", CHANGES.values(), ids=CHANGES)
def test_one_process_at_a_time_changes_the_device(equipped, tmp_path, command):
    """REQ-10: two would write over what the other must not forget. The second is refused at once; who only looks
    is not."""
    (tmp_path / "state" / "last-package").write_bytes(b"no package at all")
    with exclusive(tmp_path / "state" / "device.state"):
        with pytest.raises(StoreError, match="another process"):
            invoke(equipped, *(each.format(tmp_path / "request.json") for each in command))
        for looks in (("info",), ("tre", "info"), ("mcim", "list")):
            shown(equipped, *looks)


def test_tests_are_for_devices_set_up_for_them(tmp_path, equipped):
    """`tamper` and `replay` need keep_packages; an unknown kind and a hint without a package are named."""
    for arguments in (("tamper", "unheard-of"), ("tamper", "hint")):
        with pytest.raises(ActorError):
            invoke(equipped, *arguments)
    equipped.write_text(equipped.read_text().replace("keep_packages = true", "keep_packages = false"))
    for arguments in (("tamper", "counter"), ("replay",)):
        with pytest.raises(ActorError, match="not set up"):
            invoke(equipped, *arguments)


def test_a_state_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "state").write_text("a file is in the way")
    with pytest.raises(ConfigError, match="state_dir"):
        invoke(settings_file(tmp_path), "manufacture")
