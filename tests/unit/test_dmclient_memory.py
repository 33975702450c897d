"""What the device keeps between runs: the sealed file, the alert queue, registration and recovery."""

from __future__ import annotations

import dataclasses

import pytest

from actor_runtime.errors import StoreError, UnsealError
from actor_runtime.sealing import SealingKey
from dmclient.alerts import (
    MAX_PENDING,
    AlertQueue,
    PendingAlert,
    network_attach,
    provisioning_complete,
    registration_request,
)
from dmclient.objects.m2msim import M2MSIM, M2MSimObject
from dmclient.store.state_file import AAD, StateFile
from dmclient.tre.base import Hints
from mcim.vocabulary import ContainerState, RegistrationState, ResultCode
from mo_definitions import AlertType
from syncml.model import Alert, Item, Meta
from tests.support_dmclient import DPF, MCIM_ID, NOW, OTHER, Clock, FakeTre, device_tree, installed, make_device

KEY = SealingKey(b"k" * 32)


def test_state_file_round_trip(tmp_path):
    """What was saved comes back; before that there is nothing."""
    file = StateFile(tmp_path / "below" / "device.state", KEY)
    assert file.load() is None
    file.save({"sessions": 3})
    assert file.load() == {"format": 1, "sessions": 3}
    assert (tmp_path / "below" / "device.state").stat().st_mode & 0o077 == 0


def test_state_file_of_another_key_or_version(tmp_path):
    """Neither is guessed at."""
    path = tmp_path / "device.state"
    StateFile(path, KEY).save({})
    with pytest.raises(UnsealError):
        StateFile(path, SealingKey(b"x" * 32)).load()
    path.write_bytes(KEY.seal(b'{"format": 99}', AAD))
    with pytest.raises(StoreError, match="unknown format"):
        StateFile(path, KEY).load()
    (tmp_path / "directory").mkdir()
    with pytest.raises(StoreError):
        StateFile(tmp_path / "directory", KEY).load()
    with pytest.raises(StoreError):
        StateFile(path / "below", KEY).save({})


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    """Power cut before the rename: the old state is whole."""
    file = StateFile(tmp_path / "device.state", KEY)
    file.save({"sessions": 1})

    def cut(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dmclient.store.state_file.os.fsync", cut)
    with pytest.raises(StoreError, match="No space"):
        file.save({"sessions": 2})
    assert file.load()["sessions"] == 1


def test_damaged_state_is_said(tmp_path):
    """A state of our format with other contents."""
    StateFile(tmp_path / "device.state", KEY).save({"tree": 3})
    with pytest.raises(StoreError, match="damaged"):
        make_device(tmp_path)


def test_alert_has_the_form_of_a_generic_alert():
    """XC-100: 1226, Type, Format, Mark, Source; the correlator is echoed."""
    alert = provisioning_complete("./M2MSIMMobj/c1", ResultCode.SIGNATURE_INVALID, "order-17").to_alert()
    assert alert == Alert(
        code=1226,
        correlator="order-17",
        items=(
            Item(
                source="./M2MSIMMobj/c1/Operations/Provision",
                meta=Meta(format="int", type=AlertType.PROVISIONING_COMPLETE.value, mark="critical"),
                data="1411",
            ),
        ),
    )
    assert network_attach("./M2MSIMMobj/c1", 1200).mark == "informational"


def test_an_alert_saved_without_a_server_is_for_any():
    """A state file of the first version knows no server of an alert; one of now keeps it."""
    meant = PendingAlert(type="org.example:end", source="./A", format="chr", data="x", server_id=OTHER)
    queue, old = AlertQueue(), AlertQueue()
    queue.push(meant)
    saved = queue.dump()
    queue.restore(saved)
    assert (queue.alerts(DPF), queue.alerts(OTHER)) == ((), (meant.to_alert(),))
    queue.push(dataclasses.replace(meant, server_id=DPF))  # both servers asked the same
    assert queue.forget(meant.to_alert(), DPF) == meant.type
    assert (queue.alerts(DPF), queue.alerts(OTHER)) == ((), (meant.to_alert(),))
    old.restore([{name: value for name, value in each.items() if name != "server_id"} for each in saved])
    assert old.alerts(DPF) == (meant.to_alert(),)


def test_queue_keeps_an_alert_until_it_is_taken():
    """REQ-67: sending does not remove it; a newer one of the same kind does; the length is bounded."""
    queue = AlertQueue()
    queue.push(registration_request("first", "./M2MMobj"))
    queue.push(registration_request("second", "./M2MMobj"))
    (alert,) = queue.alerts()
    assert alert.items[0].data == "second"
    assert queue.waits(AlertType.REGISTRATION_REQUEST)
    assert queue.forget(Alert(code=1226)) is None
    again = AlertQueue()
    again.restore(queue.dump())
    assert again.alerts() == queue.alerts()
    assert queue.forget(alert) is AlertType.REGISTRATION_REQUEST
    assert len(queue) == 0
    for number in range(MAX_PENDING + 5):
        queue.push(network_attach(f"./M2MSIMMobj/c{number}", 1200))
    assert len(queue) == MAX_PENDING


def test_registration_is_opened_once_and_announced(tmp_path):
    """A device without MCIM opens a request; a restart keeps it and its alert."""
    tre = FakeTre()
    device, records = make_device(tmp_path, tre=tre, sho_id="sho.example")
    device.register()
    request = tre.open_request
    assert (request.state, request.sho_id) == (RegistrationState.REQUESTED, "sho.example")
    again, _ = make_device(tmp_path, tre=tre, sho_id="sho.example")
    again.register()
    assert tre.open_request == request
    assert [alert.items[0].data for alert in again.alerts.alerts()] == [request.req_id]
    assert records[0].fields["new"] == "requested"


def test_no_registration_with_an_mcim(tmp_path):
    """A device that has its MCIM asks for nothing."""
    tre = FakeTre(installed=[installed(ContainerState.ACTIVATED)])
    device, _ = make_device(tmp_path, tre=tre)
    device.register()
    assert tre.open_request.state is RegistrationState.IDLE
    assert len(device.alerts) == 0


def test_expired_nonce_is_renewed_and_said(tmp_path):
    """NonceRenewed, and the new request as a request."""
    clock, tre = Clock(), FakeTre()
    device, _ = make_device(tmp_path, tre=tre, clock=clock)
    device.register()
    device.renew_expired()
    first = tre.open_request.req_id
    clock.advance(25 * 3600)
    device.renew_expired()
    assert tre.open_request.req_id != first
    assert {alert.items[0].data for alert in device.alerts.alerts()} == {tre.open_request.req_id}
    assert device.alerts.waits(AlertType.NONCE_RENEWED)


def container_being_provisioned(device) -> None:
    """A power cut in State 25."""
    nodes = device.tree.nodes
    container = (*M2MSIM, "c1")
    nodes.create(container, device.tree.described(container))
    device.m2msim._container_added(nodes, container)
    for name, value in {"MCIMId": str(MCIM_ID), "Package": b"good"}.items():
        nodes.put((*container, name), value, like=device.tree.described((*container, name)))
    nodes.put((*container, "State"), "25", like=device.tree.described((*container, "State")))
    device.save()


@pytest.mark.parametrize(("done", "result"), [(False, "1501"), (True, "1200")], ids=["before", "after"])
def test_power_cut_while_provisioning_is_settled_and_reported(tmp_path, done, result):
    """REQ-56, REQ-67: what the TRE did last decides; the server is told in the next session."""
    container_being_provisioned(make_device(tmp_path)[0])
    tre = FakeTre()
    if done:
        tre.provision(b"good", Hints(), NOW)
    device, _ = make_device(tmp_path, tre=tre)
    device.recover()
    (alert,) = device.alerts.alerts()
    assert (alert.items[0].meta.type, alert.items[0].data) == (AlertType.PROVISIONING_COMPLETE.value, result)


def test_session_ids_are_short_and_new(tmp_path):
    """At most four characters (OMA-TS-SyncML_RepPro-V1_2), not repeated after a restart."""
    device, _ = make_device(tmp_path)
    seen = [device.next_session_id() for _ in range(3)]
    again, _ = make_device(tmp_path)
    seen.append(again.next_session_id())
    assert len(set(seen)) == 4
    again.sessions = 0xFFFF * 3 - 2
    assert all(1 <= len(again.next_session_id()) <= 4 for _ in range(4))


def test_container_of_an_mcim(tmp_path):
    """The attach alert names the container, or the object when the container is gone."""
    device, _ = make_device(tmp_path)
    mcim = installed(ContainerState.ACTIVATED)
    assert device.container_of(mcim) == "./M2MSIMMobj"
    container_being_provisioned(device)
    assert device.container_of(mcim) == "./M2MSIMMobj/c1"


def test_pcid_goes_when_it_expires_or_is_dropped():
    """REQ-72: the leaf is absent after expiry and after the operational attach."""
    made = device_tree()
    assert made.tree.current(made.tree.nodes, ("M2MMobj", "PCID")).value == "001019999999999"
    made.m2m.pcid_dropped = True
    assert made.tree.current(made.tree.nodes, ("M2MMobj", "PCID")) is None


def test_only_described_places_can_be_owned():
    """A mistake in this package, found at once."""
    made = device_tree()
    with pytest.raises(KeyError):
        M2MSimObject._own(made.m2msim, made.tree.nodes, ("M2MSIMMobj", "c", "Nonsense"), "x")
