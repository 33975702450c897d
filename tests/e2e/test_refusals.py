"""Runs that must not end in an attach: each refusal where it belongs, and nothing provisioned (docs/scheme.md)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m2m_demo.processes import Supervisor
from m2m_demo.stage import M2ME_ID, SECRET_FILE, Stage
from m2m_demo.trace import Record
from m2m_demo.world import SHO_ID, World, environment

pytestmark = pytest.mark.e2e

REFUSED = 2  # exit status of `dmclient run`
OVERRIDES = {"DMSERVER_LIMITS__BOOTSTRAPS_PER_HOUR": "100"}  # one device for all tests


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage with all servers running and a device as it leaves the factory."""
    world = World(tmp_path_factory.mktemp("refusals") / "world")
    with Supervisor(world.logs, environment=environment() | OVERRIDES) as supervisor:
        stage = Stage(world, supervisor)
        stage.set_up()
        stage.start_servers()
        shutil.copytree(world.home("m2me"), world.root / "factory")
        yield stage


@pytest.fixture
def stage(servers: Stage) -> Stage:
    """The same with the device as new, and nothing left to read in the traces."""
    home = servers.world.home("m2me")
    shutil.rmtree(home)
    shutil.copytree(servers.world.root / "factory", home)
    servers.forget_traces()
    return servers


def order_at_the_dpf(stage: Stage) -> str:
    """Id of the ongoing order; when there is none, one is opened at the DPF, and the SHO knows nothing of it."""
    ongoing = [order for order in orders(stage) if order["state"] not in ("REFUSED", "CLOSED", "EXPIRED")]
    if ongoing:
        return str(ongoing[0]["orderId"])
    opened = stage.world.json_command("dpf", "order", "open", M2ME_ID, "--sho", SHO_ID)
    return str(json.loads(stage.supervisor.command("order-at-dpf", opened))["orderId"])


def orders(stage: Stage) -> list[dict[str, Any]]:
    return list(json.loads(stage.supervisor.command("orders", stage.world.json_command("dpf", "order", "list"))))


def bootstrapped(stage: Stage) -> Path:
    """A bootstrap message for the device, in a file."""
    path = stage.world.root / "bootstrap.bin"
    stage.bootstrap(file=path)
    return path


def run_device(stage: Stage, bootstrap: Path) -> tuple[int, str, list[Record]]:
    """Exit status and reason of the device, and what all trails say."""
    device = stage.start_device("--bootstrap-file", str(bootstrap))
    code, reason = stage.device_result(device)
    return code, reason, stage.new_records(all_of_them=True)


def failed(records: list[Record]) -> set[str]:
    return {f"{record.actor} {record.name}" for record in records if record.kind == "check" and not record.passed}


def messages(records: list[Record], direction: str) -> list[Record]:
    return [record for record in records if record.kind == "message" and record.direction == direction]


def assert_nothing_provisioned(stage: Stage, records: list[Record]) -> None:
    """No package left the SHO or reached the device."""
    assert stage.device_info()["mcims"] == []
    assert not [record for record in records if record.kind == "state" and record.subject == "container"]


def test_wrong_bootstrap_mac_opens_no_session(stage: Stage) -> None:
    """REQ-08: a bootstrap of somebody who does not know the supplier's secret is discarded."""
    order_at_the_dpf(stage)
    message = bootstrapped(stage)
    (stage.world.home("m2me") / SECRET_FILE).write_text("0" * 32)
    stage.forget_traces()
    code, reason, records = run_device(stage, message)
    assert (code, reason) == (REFUSED, "the bootstrap was refused: wrong-mac")
    assert failed(records) == {"M2ME bootstrap-mac"}
    assert messages(records, "M2ME→DPF") == []
    assert stage.device_info()["servers"] == []


def test_wrong_dm_password_ends_before_anything_is_read(stage: Stage) -> None:
    """REQ-13, REQ-14: a second bootstrap voids the account of the first."""
    order = order_at_the_dpf(stage)
    before = stage.order(order)["state"]
    void = bootstrapped(stage).rename(stage.world.root / "void.bin")
    bootstrapped(stage)
    code, _, records = run_device(stage, void)
    assert code != 0
    assert "DPF dm-credentials" in failed(records)
    assert not [record for record in records if record.name == "ongoing-order"]
    assert stage.order(order)["state"] == before
    assert_nothing_provisioned(stage, records)


def test_pva_refuses_the_platform(stage_of_its_own: Stage) -> None:
    """REQ-17, REQ-23: a negative result ends the order, reaches the home operator and leaves the device untouched."""
    stage = stage_of_its_own
    stage.set_up(trusted_version="0.9")
    stage.start_servers()
    order = stage.open_order()
    code, _, records = run_device(stage, bootstrapped(stage))
    assert code == REFUSED
    assert {"PVA reference-value", "DPF pva-decision"} <= failed(records)
    assert stage.order(order)["state"] == "REFUSED"
    told = stage.supervisor.command("sho-order", stage.world.command("sho", "order", "show", order, "--json"))
    assert json.loads(told)["state"] == "refused"
    assert stage.order(order)["packageHash"] is None
    assert_nothing_provisioned(stage, records)


def test_sho_refuses_and_then_there_is_no_order(stage: Stage) -> None:
    """REQ-13, REQ-27: an order the home operator never opened gives no package; without an order all alerts get 403."""
    order = order_at_the_dpf(stage)
    message = bootstrapped(stage)
    code, reason, records = run_device(stage, message)
    assert code == REFUSED
    assert "SHO order-is-ours" in failed(records)
    assert stage.order(order)["state"] == "REFUSED"
    assert_nothing_provisioned(stage, records)
    assert "no open order" in reason  # in the session after the refusal

    code, reason, records = run_device(stage, message)
    assert code == REFUSED
    assert "403" in reason
    assert messages(records, "DPF→PVA") == messages(records, "DPF→SHO") == []
    assert_nothing_provisioned(stage, records)


def test_an_order_waits_while_the_pva_is_down(stage_of_its_own: Stage) -> None:
    """REQ-17: an unreachable PVA means "not yet", never "trusted"; when it is back the same order goes on."""
    stage = stage_of_its_own
    stage.set_up()
    stage.start_servers()
    pva = next(process for process in stage.supervisor.processes() if process.name == "pva")
    stage.supervisor.stop(pva)
    order = stage.open_order()
    code, _, records = run_device(stage, bootstrapped(stage))
    assert code == REFUSED
    assert failed(records) == {"DPF pva-available"}
    assert stage.order(order)["state"] in ("CONTACTED", "TREE_READ")
    assert messages(records, "DPF→SHO") == []
    assert_nothing_provisioned(stage, records)

    with stage.world.settings("pva").open("a") as settings:
        settings.write(f"\n[partner]\nport = {stage.ports['pva']['partner']}\n")
    stage.wait_ready(stage.start("pva"))
    assert stage.device_result(stage.start_device()) == (0, "attached")
    assert stage.order(order)["state"] == "CLOSED"
