"""From the factory to the bootstrap: `ro pcid issue`, `dmclient manufacture`, and a real device against real partners.

The chain is ICF attach → DRF → order of the SHO at the DPF → bootstrap over UDP, accepted by the device. What follows
is DM and has tests of its own; the DPF's DM listener is not there, so that every run ends after the bootstrap.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from actor_runtime import cli as actor_cli
from actor_runtime.trail import Trail
from dmclient import cli as device_cli
from dmclient import cli_common
from dmclient.agent import ExitStatus, RunResult
from dmclient.app import open_device, open_tre, run_device
from dmclient.config import ClientSettings
from dmclient.dm_account import server_ids
from dmserver.store.orders import list_orders
from mcim.certificates import Role
from ro import cli as ro_cli
from ro.store import registration_rows, repository
from ro.store.registration_rows import State
from tests.support_operators import DPF_ID, M2ME_ID, SHO_ID, TRE_ID, Pki
from tests.support_registration import ro_settings, world


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def command(monkeypatch, module, name, *arguments):
    """Run a console script in this process."""
    monkeypatch.setattr(cli_common if module is device_cli else actor_cli, "configure_logs", lambda **_: None)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert not ended.value.code


def issue(monkeypatch, pki, directory, *options):
    """`ro pcid issue` on the database that the RO will serve."""
    settings = ro_settings(pki, directory)
    config, out = directory / "ro.toml", directory / "pcid.json"
    paths = {name: str(getattr(settings, name)) for name in ("tls_cert", "tls_key", "tls_ca", "seal_key")}
    values = {"ro_id": settings.ro_id, "database_url": settings.database_url, **paths}
    config.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))
    command(monkeypatch, ro_cli, "ro", "--config", config, "pcid", "issue", "--out", out, *options)
    assert out.stat().st_mode & 0o777 == 0o600
    return out


def settings_of(site, directory, **access):
    secret = directory / "secret"
    secret.write_text("supplier-secret\n")
    return ClientSettings(
        m2me_id=M2ME_ID,
        state_dir=directory / "device",
        seal_key_file=directory / "device.key",
        bootstrap_secret_file=secret,
        tls_roots=site.pki.path("tls-anchors.pem"),
        network_url="https://127.0.0.1:9",
        trace_file=directory / "device.jsonl",
        tre={"tre_id": TRE_ID, "key_type": "ec"},
        initial_access={"icf_url": site.urls["ro"], "vno": "26201"} | access,
        bootstrap={"wait_s": 20},
        retry={"attempts": 1},
    )


def manufacture(monkeypatch, site, settings, pcid_file, number):
    """TRE with PCID, certified by the manufacturer."""
    config, request = site.directory / "device.toml", site.directory / "request.json"
    config.write_text(
        f'm2me_id = "{settings.m2me_id}"\nstate_dir = "{settings.state_dir}"\n'
        f'seal_key_file = "{settings.seal_key_file}"\n[tre]\ntre_id = "{TRE_ID}"\nkey_type = "ec"\n'
    )
    command(
        monkeypatch, device_cli, "dmclient", "--config", config, "manufacture", "--request", request,
        "--pcid-file", pcid_file, "--pcid-number", number,
    )  # fmt: skip
    asked = json.loads(request.read_text())

    def certify(name, role):
        key = load_pem_public_key(asked[name].encode())
        holder = SimpleNamespace(public_key=lambda: key)
        return site.pki.manufacturer.issue_role(holder, role, TRE_ID, serial=M2ME_ID)

    open_tre(settings).install_certificates(
        certify("platformKey", Role.PLATFORM), certify("attestKey", Role.ATTEST), [], [site.pki.sho.certificate]
    )


CHAINS = {
    "attach first": (False, "milenage"),
    "attach first, TUAK with 128 bits": (False, "tuak128"),
    "validation gates the attach": (True, "milenage"),
    "validation gates the attach, TUAK with 256 bits": (True, "tuak256"),
}


@pytest.mark.parametrize(("gate", "algorithm"), CHAINS.values(), ids=CHAINS)
async def test_from_the_factory_to_the_bootstrap(monkeypatch, pki, tmp_path, gate, algorithm):
    """TR 33.812 §5.1.3.7.1 steps 1 to 8, REQ-07, REQ-11, REQ-13, REQ-69, REQ-72."""
    async with world(pki, tmp_path, validation_gates_attach=gate) as site:
        site.add_device()
        pcids = issue(monkeypatch, pki, tmp_path, "--count", 3, "--supplier", "maker", "--algorithm", algorithm)
        settings = settings_of(site, tmp_path)
        manufacture(monkeypatch, site, settings, pcids, 1)
        trail = Trail("M2ME", trace_file=settings.trace_file)
        device = open_device(settings, trail)
        result = await run_device(settings, device)
        trail.close()

        assert result.status is ExitStatus.UNREACHABLE  # the DM listener is not there
        assert server_ids(device.tree.nodes) == (DPF_ID,)
        (order,) = site.dpf_store.read_sync(list_orders)
        assert (order.device_id, order.sho_id) == (M2ME_ID, SHO_ID)
        (row,) = site.ro.store.read_sync(lambda c: registration_rows.list_registrations(c, states=(), limit=9))
        assert (row.state, row.supplier, row.order_id) == (State.BOOTSTRAPPED, "maker", order.order_id)
        identity = site.ro.store.read_sync(lambda c: repository.get_identity(c, 2))
        assert identity.m2me_id == M2ME_ID

        told = [json.loads(line) for line in settings.trace_file.read_text().splitlines()]
        assert {"1", "5", "6", "7", "8"} <= {record["step"] for record in told}
        assert ("3" in {record["step"] for record in told}) is gate
        secret = json.loads(pcids.read_text())["identities"][1]
        files = [settings.trace_file, tmp_path / "ro.jsonl", settings.state_file, tmp_path / "ro.sqlite"]
        for file in files:
            assert not any(secret[name].encode() in file.read_bytes() for name in ("pcid", "k", "opc"))
        node = device.tree.current(device.tree.nodes, ("M2MMobj", "PCID"))
        assert node.value == secret["pcid"]


async def test_a_device_that_has_an_account_does_not_attach_again(monkeypatch, pki, tmp_path):
    """Restart: what was reached stays; the registration operator hears nothing."""
    async with world(pki, tmp_path) as site:
        site.add_device()
        settings = settings_of(site, tmp_path)
        manufacture(monkeypatch, site, settings, issue(monkeypatch, pki, tmp_path), 0)
        for _ in range(2):
            await run_device(settings, open_device(settings, Trail("M2ME")))
        visits = site.ro.store.read_sync(repository.list_visits)
        assert [(row["vno"], row["outcome"], row["count"]) for row in visits] == [("26201", "attached", 1)]


async def test_a_network_that_is_down_is_passed_over(monkeypatch, pki, tmp_path):
    """TR 33.812 §5.1.3.7.1 step 1: retry over another visited network."""
    async with world(pki, tmp_path) as site:
        site.add_device()
        others = [{"icf_url": site.urls["ro"], "vno": "26202"}]
        settings = settings_of(site, tmp_path, icf_url="https://127.0.0.1:1", others=others)
        manufacture(monkeypatch, site, settings, issue(monkeypatch, pki, tmp_path), 0)
        device = open_device(settings, Trail("M2ME"))
        await run_device(settings, device)
        assert server_ids(device.tree.nodes) == (DPF_ID,)
        assert [row["vno"] for row in site.ro.store.read_sync(repository.list_visits)] == ["26202"]


async def test_a_withdrawn_identity_ends_the_run(monkeypatch, pki, tmp_path):
    """REQ-72: exit status 2, nothing is registered."""
    async with world(pki, tmp_path) as site:
        site.add_device()
        settings = settings_of(site, tmp_path)
        manufacture(monkeypatch, site, settings, issue(monkeypatch, pki, tmp_path), 0)
        site.ro.store.write_sync(lambda c: repository.withdraw_identity(c, 1))
        result = await run_device(settings, open_device(settings, Trail("M2ME")))
        assert (result.status, result.reason) == (ExitStatus.REFUSED, "initial access refused: 26201: attach-refused")
        assert site.dpf_store.read_sync(list_orders) == []


async def test_the_provisional_identity_is_the_way_back_when_the_network_refuses_for_good(monkeypatch, pki, tmp_path):
    """REQ-72, TR 33.812 §5.1.3.7.1 step 16: registered again for recovery, a new order, a new bootstrap."""
    async with world(pki, tmp_path) as site:
        site.add_device()
        settings = settings_of(site, tmp_path)
        manufacture(monkeypatch, site, settings, issue(monkeypatch, pki, tmp_path), 0)
        device = open_device(settings, Trail("M2ME"))
        runs = []

        class RefusedOnce:
            """An agent whose network refuses the MCIM the first time."""

            attach_refused = True

            async def run(self, server_id):
                runs.append(server_id)
                if len(runs) == 1:
                    return RunResult(status=ExitStatus.REFUSED, reason="the network refused")
                return RunResult(status=ExitStatus.ATTACHED, reason="attached")

        monkeypatch.setattr("dmclient.app._AgentParts.agent", lambda *_, **__: RefusedOnce())
        assert (await run_device(settings, device)).status is ExitStatus.ATTACHED
        assert runs == [DPF_ID, DPF_ID]
        reasons = site.ro.store.read_sync(lambda c: registration_rows.list_registrations(c, states=(), limit=9))
        assert {(row.reason, row.state) for row in reasons} == {
            ("initial", State.SUPERSEDED),
            ("recovery", State.BOOTSTRAPPED),
        }
        assert device.tre.registration(device.now()).state.name == "REQUESTED"


async def test_without_a_way_back_a_refusal_stays_one(monkeypatch, pki, tmp_path):
    """REQ-72: a PCID that was dropped is no way back."""
    async with world(pki, tmp_path) as site:
        site.add_device()
        settings = settings_of(site, tmp_path)
        manufacture(monkeypatch, site, settings, issue(monkeypatch, pki, tmp_path), 0)
        device = open_device(settings, Trail("M2ME"))
        refused = RunResult(status=ExitStatus.REFUSED, reason="the network refused")

        class Refused:
            attach_refused = True

            async def run(self, server_id):
                device.m2m.pcid_dropped = True
                return refused

        monkeypatch.setattr("dmclient.app._AgentParts.agent", lambda *_, **__: Refused())
        assert await run_device(settings, device) == refused
        assert len(site.ro.store.read_sync(repository.list_visits)) == 1
