"""REQ-64: several TREs in one device, set up by the settings and used through the command line; the TREs are real."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from actor_runtime.config import load_settings
from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.trail import Trail
from dmclient import app, cli, cli_common
from dmclient.app import open_device, open_tre
from dmclient.config import ClientSettings
from dmclient.device import Device
from dmclient.dm_account import write_account
from dmclient.tre.store import STORE_NAME
from mcim import aka
from mcim.evidence import verify_evidence
from mcim.milenage import Milenage
from mcim.receipt import verify_receipt
from mcim.vocabulary import Container, ContainerState, ResultCode
from mo_definitions import check_tree, load
from syncml.codes import Format
from syncml.model import Add, Exec, Get, Item, Meta, Replace
from syncml.values import leaf_item, node_item
from tests.support_dmclient import DPF, OTHER, bootstrap_profile
from tests.support_executor import Commands
from tests.support_tokens import missing, running_tpm, token
from tests.support_tre import M2ME_ID, MCIM_ID, NOW, OPC, SHO, K, World

CHALLENGE = Item(target="./M2MMobj2/Attestation/Challenge", meta=Meta(format="bin"), data=b"c" * 32)
FIRST, SECOND = "urn:m2m:tre:first", "urn:m2m:tre:second"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log set-up of a process is not for this one."""
    monkeypatch.setattr(cli_common, "configure_logs", lambda **_: None)


def settings_file(home: Path, second: str = 'backend = "software"', **changes: str) -> Path:
    path = home / "m2me.toml"
    values = {"tre_id": SECOND, "directory": str(home / "second")} | changes
    path.write_text(
        f"""
m2me_id = "{M2ME_ID}"
state_dir = "{home / "state"}"
seal_key_file = "{home / "seal.key"}"
tls_roots = "{home / "roots.pem"}"
network_url = "https://127.0.0.1:1"
sho_id = "{SHO}"
tre = {{ tre_id = "{FIRST}", key_type = "ec", type = "uicc" }}

[[more_tres]]
tre_id = "{values["tre_id"]}"
directory = "{values["directory"]}"
key_type = "ec"
{second}
"""
    )
    return path


def invoke(settings: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, ["--config", str(settings), *arguments])
    if isinstance(result.exception, ActorError):
        raise result.exception
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def shown(settings: Path, *arguments: str) -> Any:
    return json.loads(invoke(settings, *arguments, "--json").splitlines()[-1])


def supplied(settings: Path, directory: Path, *which: str) -> World:
    """What the supplier does for one TRE: keys, certificates, roots."""
    request = directory / "request.json"
    invoke(settings, "manufacture", "--request", str(request), *which)
    world = World.around(json.loads(request.read_text()))
    invoke(settings, "install-certificates", *certificate_files(world, directory, *world.certificates), *which)
    return world


def certificate_files(world: World, directory: Path, *certificates: Any) -> list[str]:
    options = ("--platform", "--attest", "--chain", "--sho-anchors")
    arguments = []
    for option, content in zip(options, certificates, strict=False):
        path = directory / f"{option}.pem"
        chain = [content] if isinstance(content, x509.Certificate) else content
        path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in chain))
        arguments += [option, str(path)]
    return arguments


class Place:
    """A device with two TREs and its server."""

    def __init__(self, settings: Path, directory: Path) -> None:
        self.path, self.directory = settings, directory
        self.worlds = (supplied(settings, directory), supplied(settings, directory, "--tre-id", SECOND))
        self.device = self.start()
        write_account(self.device.tree, bootstrap_profile())
        self.device.save()

    def start(self) -> Device:
        """The device after a power cycle."""
        settings = load_settings(ClientSettings, self.path)
        self.device = open_device(settings, Trail("M2ME"), now=lambda: NOW)
        for world, tre in zip(self.worlds, self.device.tres, strict=True):
            world.tre = tre
        return self.device

    def do(self, *commands: Any, server: str = DPF) -> list[int]:
        executor = Commands(self.device.tree, server)
        return [result.code for command in commands for result in executor.execute(command)]

    def get(self, uri: str) -> Any:
        (result,) = Commands(self.device.tree, DPF).execute(Get(cmd_id="1", items=(Item(target=uri),)))
        return result.item.data if result.item is not None else result.code

    def request(self, root: str) -> list[int]:
        """The server has a request opened."""
        choose = Replace(cmd_id="1", items=(leaf_item(f"{root}/Registration/SHO", SHO),))
        return self.do(choose, Exec(cmd_id="2", items=(Item(target=f"{root}/Registration/Renew"),)))

    def push(self, package: bytes, name: str) -> list[ResultCode]:
        """A package in a container, and what comes of it."""
        container = f"./M2MSIMMobj/{name}"
        added = Add(
            cmd_id="1",
            items=(
                node_item(container),
                leaf_item(f"{container}/MCIMId", str(MCIM_ID)),
                leaf_item(f"{container}/Package", package, format=Format.BIN, type=MEDIA[package[:1] == b"<"]),
            ),
        )
        assert set(self.do(added)) == {200}
        return self.device.provision_ready()


MEDIA = {True: Container.XML.media_type, False: Container.CMS.media_type}


@pytest.fixture(params=["software", "pkcs11", "tpm"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The second TRE with its keys in each kind of key store."""
    if reason := missing(request.param):
        pytest.skip(reason)
    tables = 'backend = "software"'
    if request.param == "pkcs11":
        made = token()
        tables = (
            f'backend = "pkcs11"\npkcs11 = {{ module = "{made.module}", '
            f'token_label = "{made.label}", pin_file = "{made.pin_file}" }}'
        )
    if request.param == "tpm":
        with running_tpm(tmp_path / "tpm") as tpm:
            yield Place(settings_file(tmp_path, f'backend = "tpm"\ntpm = {{ tcti = "{tpm.tcti}" }}'), tmp_path)
        return
    yield Place(settings_file(tmp_path, tables), tmp_path)


@pytest.fixture
def software(tmp_path: Path) -> Place:
    return Place(settings_file(tmp_path), tmp_path)


def test_both_are_shown_and_a_package_finds_its_own(place: Place) -> None:
    """REQ-02, REQ-06, REQ-18, REQ-64, REQ-67: an M2MMobj each; request, evidence, MCIM and receipt are one TRE's."""
    first, second = place.worlds
    assert [place.get(f"./{root}/TRE/Id") for root in ("M2MMobj", "M2MMobj2")] == [FIRST, SECOND]
    for root in ("M2MMobj", "M2MMobj2"):
        place.request(f"./{root}")
        assert check_tree(load("M2MMobj"), place.device.tree.facts((root,))) == []
    assert place.get("./M2MMobj/Registration/Nonce") != place.get("./M2MMobj2/Registration/Nonce")
    generate = Exec(cmd_id="2", items=(Item(target="./M2MMobj2/Attestation/Generate"),))
    assert place.do(Replace(cmd_id="1", items=(CHALLENGE,)), generate) == [200, 200]
    evidence = place.get("./M2MMobj2/Attestation/Evidence")
    assert verify_evidence(evidence, second.attest_key).tre_id == SECOND
    assert place.get("./M2MMobj/Attestation/Evidence") == 404

    package = second.package()
    assert place.push(package, "c1") == [ResultCode.SUCCESS]
    assert [len(tre.mcims()) for tre in place.device.tres] == [0, 1]
    receipt = place.get("./M2MSIMMobj/c1/Receipt")
    assert isinstance(second.attest_key, ec.EllipticCurvePublicKey)
    assert verify_receipt(receipt, second.attest_key).tre_id == SECOND
    assert [place.get(f"./{root}/Status/Receipt") for root in ("M2MMobj", "M2MMobj2")] == [404, receipt]
    assert [place.get(f"./{root}/Status/Result") for root in ("M2MMobj", "M2MMobj2")] == ["0", "1200"]
    assert place.get("./M2MMobj/Registration/State") == "1"  # its request is open as before

    assert place.push(first.package(), "c2") == [ResultCode.SUCCESS]
    place.start()
    assert [len(tre.mcims()) for tre in place.device.tres] == [1, 1]
    assert place.push(package, "c3") == [ResultCode.REPLAY]


def test_one_tre_at_a_time_on_the_command_line(place: Place) -> None:
    """REQ-21, REQ-64, REQ-70: `--tre-id` names the TRE; without it the first is meant."""
    second = place.worlds[1]
    place.request("./M2MMobj2")
    assert place.push(second.package(), "c1") == [ResultCode.SUCCESS]
    assert shown(place.path, "mcim", "list") == []
    assert [each["mcimId"] for each in shown(place.path, "mcim", "list", "--tre-id", SECOND)] == [str(MCIM_ID)]
    assert [shown(place.path, "tre", "info", *which)["treId"] for which in ((), ("--tre-id", SECOND))] == [
        FIRST,
        SECOND,
    ]
    info = shown(place.path, "info")
    assert (info["treId"], info["mcims"]) == (FIRST, [])
    assert [(each["treId"], len(each["mcims"])) for each in info["moreTres"]] == [(SECOND, 1)]
    wrong = ("mcim", "suspend", str(MCIM_ID), "--json", "--tre-id", FIRST)
    assert json.loads(invoke(place.path, *wrong, code=2).splitlines()[-1])["result"] == ResultCode.WRONG_STATE
    right = (*wrong[:-1], SECOND)
    assert json.loads(invoke(place.path, *right, code=2).splitlines()[-1])["check"] == "signed-command"

    keys = [tre.facts().platform_key_id for tre in place.device.tres]
    request = place.directory / "new.json"
    invoke(place.path, "tre", "rekey", "--request", str(request), "--tre-id", SECOND)
    new = second.take_over(json.loads(request.read_text()))
    files = certificate_files(second, place.directory, *new, second.certificates[2])
    with pytest.raises(ActorError, match="no new keys"):
        invoke(place.path, "tre", "complete-rekey", *files)
    invoke(place.path, "tre", "complete-rekey", *files, "--tre-id", SECOND)
    after = [tre.facts().platform_key_id for tre in place.start().tres]
    assert (after[0] == keys[0], after[1] == keys[1]) == (True, False)


def test_a_request_that_got_lost_is_written_again(software: Place) -> None:
    """REQ-21: on a full disk `manufacture` leaves a TRE without its request; the keys are the same."""
    nowhere = software.directory / "nowhere" / "request.json"
    place = settings_file(software.directory, tre_id="urn:m2m:tre:4", directory=str(software.directory / "4"))
    with pytest.raises(ConfigError, match="nowhere") as caught:
        invoke(place, "manufacture", "--request", str(nowhere), "--tre-id", "urn:m2m:tre:4")
    assert "tre request" in str(caught.value.hint)
    request = software.directory / "again.json"
    invoke(place, "tre", "request", "--request", str(request), "--tre-id", "urn:m2m:tre:4")
    again = json.loads(request.read_text())
    printed = json.loads(invoke(place, "tre", "request", "--tre-id", "urn:m2m:tre:4"))
    assert {**again, "proof": ""} == {**printed, "proof": ""}
    assert again["treId"] == "urn:m2m:tre:4"


class HomeNetwork:
    """Knows the K of one MCIM."""

    def __init__(self) -> None:
        self.vector = aka.generate_vector(Milenage(K, OPC), rand=bytes(16), sqn=0x1000)

    async def post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        if path == "/v1/attach":
            rand, autn = (base64.b64encode(each).decode() for each in (bytes(16), self.vector.autn))
            return {"session": "s", "rand": rand, "autn": autn}
        return {"result": "attached" if body["res"] == base64.b64encode(self.vector.xres).decode() else "no"}

    async def close(self) -> None:
        """Nothing is open."""


def test_attach_with_one_of_them(software: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-64, REQ-69: with the MCIM of the TRE that is named; without a name that of whichever has one."""
    software.request("./M2MMobj2")
    assert software.push(software.worlds[1].package(), "c1") == [ResultCode.SUCCESS]
    monkeypatch.setattr(app, "_agent_parts", lambda _: app._AgentParts(None, HomeNetwork()))
    assert "no activated MCIM" in invoke(software.path, "attach", "--tre-id", FIRST, code=2)
    assert "no such MCIM" in invoke(software.path, "attach", "--tre-id", FIRST, "--mcim", str(MCIM_ID), code=2)
    assert "attached" in invoke(software.path, "attach", "--tre-id", SECOND)
    with pytest.raises(ConfigError, match="no TRE urn:x"):
        invoke(software.path, "attach", "--tre-id", "urn:x")
    usable = software.start().usable_mcim()
    assert usable is not None
    assert usable.state is ContainerState.ACTIVATED


def test_the_owner_of_the_objects_owns_both(software: Place) -> None:
    """REQ-64, T8: another server reads and does nothing; so it is for a TRE that came after the bootstrap."""
    replaced = Replace(cmd_id="1", items=(CHALLENGE,))
    assert software.do(replaced, server=OTHER) == [425]
    assert software.do(replaced) == [200]
    (software.directory / "state" / "device.state").unlink()
    settings = load_settings(ClientSettings, software.path)
    alone = open_device(settings.model_copy(update={"more_tres": ()}), Trail("M2ME"), now=lambda: NOW)
    write_account(alone.tree, bootstrap_profile())
    alone.save()
    software.start()
    assert software.do(replaced, server=OTHER) == [425]
    assert software.do(replaced) == [200]


def test_a_second_that_is_tampered_with(software: Place) -> None:
    """T3, REQ-64: it is announced, once, at its own object; the first goes on."""
    stores = [software.directory / "second" / STORE_NAME, software.directory / "second.saved"]
    shutil.copyfile(*stores)
    software.request("./M2MMobj2")
    shutil.copyfile(*reversed(stores))
    for _ in range(2):
        device = software.start()
        device.recover()
        assert device.in_order()
        (alert,) = [each for each in device.alerts.dump() if each["type"].endswith("TamperDetected")]
        assert alert["source"] == "./M2MMobj2/TRE/State"
    assert [software.get(f"./{root}/TRE/State") for root in ("M2MMobj", "M2MMobj2")] == ["ok", "tampered"]
    assert software.request("./M2MMobj")[-1] == 200
    assert software.request("./M2MMobj2")[-1] != 200


def test_a_request_of_the_second_that_ran_out(software: Place) -> None:
    """REQ-64, mo-design §5: each TRE's nonce is renewed, and the alerts name the object it is read in."""
    for root in ("./M2MMobj", "./M2MMobj2"):
        software.request(root)
    before = [tre.registration(NOW).req_id for tre in software.device.tres]
    later = NOW + timedelta(days=8)
    device = open_device(load_settings(ClientSettings, software.path), Trail("M2ME"), now=lambda: later)
    device.renew_expired()
    after = [tre.registration(later).req_id for tre in device.tres]
    assert not set(before) & set(after)
    for kind in ("RegistrationRequest", "NonceRenewed"):
        told = [(each["source"], each["data"]) for each in device.alerts.dump() if each["type"].endswith(kind)]
        assert told == list(zip(("./M2MMobj/Registration", "./M2MMobj2/Registration"), after, strict=True))
    device.renew_expired()
    assert [tre.registration(later).req_id for tre in device.tres] == after


WRONG = {
    "the same identity": ({"tre_id": FIRST}, "same tre_id"),
    "the same directory": ({"directory": "{}/state/tre"}, "same directory"),
    "the same directory by another name": ({"directory": "{}/state/../state/tre"}, "same directory"),
    "no identity": ({"tre_id": ""}, "tre_id"),
}


@pytest.mark.parametrize(("changes", "why"), WRONG.values(), ids=WRONG)
def test_settings_that_cannot_be(tmp_path: Path, changes: dict[str, str], why: str) -> None:
    """REQ-64: two TREs are two."""
    path = settings_file(tmp_path, **{name: value.format(tmp_path) for name, value in changes.items()})
    with pytest.raises(ConfigError, match=why):
        load_settings(ClientSettings, path)


def test_what_is_not_there_is_said(software: Place) -> None:
    """REQ-64: an unknown identity, a TRE that was not made, and one in the place of another."""
    with pytest.raises(ConfigError, match="no TRE urn:x") as caught:
        invoke(software.path, "tre", "info", "--tre-id", "urn:x")
    assert caught.value.hint == f"one of {FIRST}, {SECOND}"
    other = settings_file(software.directory, directory=str(software.directory / "third"))
    assert shown(other, "tre", "info", "--tre-id", SECOND) == {"manufactured": False}
    with pytest.raises(ConfigError, match="third"):
        invoke(other, "mcim", "list", "--tre-id", SECOND)
    renamed = settings_file(software.directory, tre_id="urn:m2m:tre:third")
    with pytest.raises(ConfigError, match=f"this is {SECOND}"):
        open_tre(load_settings(ClientSettings, renamed), "urn:m2m:tre:third")


def test_a_run_with_two(software: Place) -> None:
    """REQ-64: at a start the first registers; the second waits until it is asked."""
    device = software.start()
    device.recover()
    device.register()
    assert [each.registration(NOW).state.name for each in device.tres] == ["REQUESTED", "IDLE"]
