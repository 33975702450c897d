"""A firmware update object over real HTTP: a package larger than a message, an Exec that ends later, lost answers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from dmclient.behaviour import AlertRule, Behaviour, Rule
from dmclient.dm_account import client_account
from dmclient.dm_device import DeviceSetup
from dmclient.management_session import SessionFailed
from mo_definitions.vendor_ddf import read_ddf_file
from syncml.codec import Encoding
from syncml.codes import Format
from syncml.model import Alert, Exec
from tests.support_dmclient import OTHER, make_device
from tests.support_dpf_pki import DPF_ID
from tests.support_site import MESSAGE_SIZE, add, get, own, site

ENCODINGS = pytest.mark.parametrize("encoding", Encoding, ids=lambda each: each.name)
VECTORS = Path(__file__).parents[1] / "vectors" / "ddf"
UPDATE_ENDED = "org.openmobilealliance.dm.firmwareupdate.update"
PACKAGE = bytes(range(256)) * 100


def updatable(when: str = "now") -> DeviceSetup:
    alert = AlertRule(when=when, type=UPDATE_ENDED, format=Format.INT, data="200")
    rule = Rule(uri="./FUMO/Update", command=("Exec",), exec="async", alert=alert)
    ddfs = tuple(read_ddf_file(VECTORS / "fumo-style-firmware.xml"))
    return DeviceSetup(ddfs=ddfs, behaviour=Behaviour(rule=(rule,)), scratch_node="Scratch")


def package(format_: str) -> dict[str, Any]:
    return {
        "command": "replace",
        "uri": "./FUMO/Update/PkgData",
        "valueBase64": base64.b64encode(PACKAGE).decode(),
        "format": format_,
        "type": "application/octet-stream",
    }


@ENCODINGS
@pytest.mark.parametrize("format_", ["bin", "b64"])
@pytest.mark.parametrize("when", ["now", "later"])
async def test_firmware_update(tmp_path: Path, encoding: Encoding, format_: str, when: str) -> None:
    """XI-11, XC-060, XC-061, XC-080: 202, then Alert 1226 with the Correlator, in this session or after a restart."""
    async with site(tmp_path, encoding, setup=updatable(when)) as here:
        update = here.queue(
            package(format_),
            {"command": "exec", "uri": "./FUMO/Update", "correlator": "auto"},
            get("./FUMO/State"),
        )
        assert (await here.session()).failure == ""
        assert here.device.tree.nodes.value(("FUMO", "Update", "PkgData")) == PACKAGE
        assert max(len(each.octets) for each in here.wire) <= MESSAGE_SIZE
        outcome = here.outcome(update)
        assert [each["code"] for each in outcome["commands"]] == [200, 202, 200]
        if when == "later":
            assert outcome["state"] == "waiting"
            assert here.device.alerts.alerts(OTHER) == ()  # no other server hears of it
            here.device, _ = make_device(tmp_path, setup=updatable(when))  # restarted: only its file is left
            assert (await here.session()).failure == ""
            outcome = here.outcome(update)
        assert (outcome["state"], outcome["detail"]) == ("done", "")
        ended = outcome["commands"][1]
        assert [(each["type"], each["value"]) for each in ended["alertItems"]] == [(UPDATE_ENDED, "200")]
        (told,) = [each for each in here.sent("device", Alert) if each.code == 1226]
        assert told.correlator == ended["correlator"]
        here.wire.clear()
        assert (await here.session()).failure == ""
        assert [each.code for each in here.sent("device", Alert)] == [1201]  # nothing is told twice
        assert len(here.device.alerts) == 0


@ENCODINGS
@pytest.mark.parametrize("lost", range(1, 10))
async def test_connection_lost_in_the_middle(tmp_path: Path, encoding: Encoding, lost: int) -> None:
    """XI-12, REQ-67: whichever answer gets lost, the next session works; the Exec runs once, or not at all."""
    async with site(tmp_path, encoding, setup=updatable()) as here:
        here.loses.add(lost)
        update = here.queue(package("bin"), {"command": "exec", "uri": "./FUMO/Update", "correlator": "auto"})
        reading = here.queue(get("./FUMO/State"))
        with pytest.raises(SessionFailed):
            await here.session()
        for _ in range(2):
            assert (await here.session()).failure == ""
        assert here.outcome(update)["state"] in ("done", "failed")
        assert here.outcome(reading)["state"] == "done"
        received = [each for each in here.sent("server", Exec) if each.items[0].target == "./FUMO/Update"]
        assert len(received) <= 1
        assert len(here.device.alerts) == 0


@ENCODINGS
async def test_what_the_server_does_not_know_is_not_done_twice(tmp_path: Path, encoding: Encoding) -> None:
    """XI-12: the answer after the device's Statuses is lost; done requests stay done and a Get is repeated."""
    async with site(tmp_path, encoding) as here:
        made = here.queue(*own("./Scratch/n"), add("./Scratch/n/a", "1"))
        here.loses.add(1)  # the device never sees the commands
        with pytest.raises(SessionFailed):
            await here.session()
        assert here.outcome(made)["state"] == "sent"
        assert (await here.session()).failure == ""
        assert here.outcome(made)["state"] == "failed"  # nobody knows whether it was done, so it is not repeated
        assert ("Scratch", "n") not in here.device.tree.nodes
        again = here.queue(*own("./Scratch/n"), add("./Scratch/n/a", "1"))
        reading = here.queue(get("./Scratch/n/a"))
        here.loses.add(here.exchanges + 2)  # the server has heard that it is done; what it asks next gets lost
        with pytest.raises(SessionFailed):
            await here.session()
        assert here.outcome(again)["state"] == "done"
        assert here.outcome(reading)["state"] == "sent"
        assert (await here.session()).failure == ""
        assert here.outcome(reading)["state"] == "done"
        assert here.outcome(reading)["attempts"] == 2


@ENCODINGS
async def test_a_server_changes_its_own_account(tmp_path: Path, encoding: Encoding) -> None:
    """XC-066: new address and secret count from the next session on; the one that brings them goes on as it began."""
    async with site(tmp_path, encoding) as here:
        account = "./DMAcc/1"
        auth = f"{account}/AppAuth/1"
        before = client_account(here.device.tree.nodes, DPF_ID, tls=False)
        assert before is not None
        moved = before.server_uri + "?moved"
        change = here.queue(
            {"command": "replace", "uri": f"{auth}/AAuthSecret", "value": "a new secret"},
            {"command": "replace", "uri": f"{account}/AppAddr/1/Addr", "value": moved},
        )
        after = here.queue(get("./DevDetail/SwV"))  # in the same session, under the old account
        assert (await here.session()).failure == ""
        assert here.outcome(change)["state"] == here.outcome(after)["state"] == "done"
        assert "a new secret" not in str(here.outcome(change))
        assert all(each.message.header.target != moved for each in here.wire if each.sender == "device")
        changed = client_account(here.device.tree.nodes, DPF_ID, tls=False)
        assert changed is not None
        assert (changed.server_uri, changed.client_secret) == (moved, "a new secret")
        assert (await here.session()).failure != ""  # the server itself still knows the old secret
        here.change_account(client_secret="a new secret")
        here.wire.clear()
        assert (await here.session()).failure == ""
        assert here.wire[0].message.header.target == moved
