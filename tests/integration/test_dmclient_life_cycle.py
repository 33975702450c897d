"""A device after its first provisioning: commands, a new home operator, the way back (flows F4 to F6)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from dmclient.agent import Agent, ExitStatus, RetryPolicy
from dmclient.calls import Call
from dmclient.device import Device
from dmclient.management_session import SessionSettings
from dmclient.objects.m2msim import M2MSIM
from mcim.aka import Accepted, MacFailure
from mcim.vocabulary import ContainerState, McimPolicy, Operation, ResultCode
from mo_definitions import AlertType
from syncml.codes import Format
from syncml.model import Add, Exec, Get, Item
from syncml.policy import Continue, Finish
from syncml.session import CommandAnswered, SessionOpened
from syncml.values import leaf_item
from tests.support_dmclient import (
    ATTACHED,
    CHALLENGE,
    DPF,
    MCIM_ID,
    NEW_MCIM_ID,
    FakeNetwork,
    FakeTre,
    MemoryDpf,
    alerts_of,
    bootstrapped_device,
    delivery,
    make_device,
)

PROVISIONED, ACTIVATED, SUSPENDED = ContainerState.PROVISIONED, ContainerState.ACTIVATED, ContainerState.SUSPENDED


class Script:
    """A DPF that does one thing per session, in order, and hears the alerts."""

    def __init__(self, *steps: Continue) -> None:
        self.steps = list(steps)
        self.alerts: list[tuple[str, str]] = []
        self.correlators: list[str | None] = []
        self.statuses: list[int] = []

    def __call__(self, session: Any, events: Any) -> Any:
        self.alerts += alerts_of(events)
        self.correlators += [event.alert.correlator for event in events if hasattr(event, "alert")]
        self.statuses += [
            status.code for event in events if isinstance(event, CommandAnswered) for status in event.statuses
        ]
        opened = any(isinstance(event, SessionOpened) for event in events)
        return self.steps.pop(0) if opened and self.steps else Finish()


def command(operation: str, octets: bytes | None = b"good command", *, name: str = "c1") -> Continue:
    """What the DPF sends for a life-cycle operation."""
    root = f"./M2MSIMMobj/{name}"
    execute = Exec(correlator="order-18", items=(Item(target=f"{root}/Operations/{operation}"),))
    if octets is None:
        return Continue((execute,))
    media_type = "application/vnd.m2m.mcim+xml"
    return Continue((Add(items=(leaf_item(f"{root}/Command", octets, format=Format.BIN, type=media_type),)), execute))


def renamed(decision: Continue, mcim_id: object) -> Continue:
    """A delivery for another MCIM."""
    commands = [
        replace(each, items=tuple(replace(item, data=str(mcim_id)) if item.data == str(MCIM_ID) else item
                                  for item in each.items))
        for each in decision.commands
    ]  # fmt: skip
    return Continue(tuple(commands))


SERVERS: WeakKeyDictionary[FakeTre, MemoryDpf] = WeakKeyDictionary()  # by TRE: a device keeps its server for life


def dpf_of(device: Device) -> MemoryDpf:
    return SERVERS.setdefault(device.tre, MemoryDpf(Script()))


def agent_for(
    device: Device,
    script: Script,
    network: FakeNetwork | None,
    networks: dict[str, FakeNetwork] | None = None,
    **policy: Any,
) -> Agent:
    dpf_of(device).script = script

    async def no_sleep(seconds: float) -> None:
        pass

    return Agent(
        device=device,
        transport=dpf_of(device),
        network=network,
        settings=SessionSettings(max_msg_size=4096),
        policy=RetryPolicy(**policy),
        sleep=no_sleep,
        networks=networks,
    )


async def provisioned(tmp_path, tre: FakeTre) -> Device:
    """A device with one MCIM, attached when it is active."""
    device, _ = bootstrapped_device(tmp_path, tre=tre)
    script = Script(delivery(b"good package"))
    assert await agent_for(device, script, FakeNetwork([CHALLENGE, ATTACHED])).serve(Call(server_id=DPF)) == ""
    assert script.alerts[0] == ("ProvisioningComplete", "1200")
    return device


def leaf(device: Device, name: str, container: str = "c1") -> object:
    return device.tree.nodes.value((*M2MSIM, container, name))


async def test_signed_activation_and_attach(tmp_path):
    """REQ-70, flows F5: 202, then LifecycleComplete with the Correlator, then the attach and its alert."""
    tre = FakeTre(initial_state=PROVISIONED)
    device = await provisioned(tmp_path, tre)
    script = Script(command("Activate"))
    assert await agent_for(device, script, FakeNetwork([CHALLENGE, ATTACHED])).serve(Call(server_id=DPF)) == ""
    assert 202 in script.statuses
    assert script.alerts == [("LifecycleComplete", "1200"), ("NetworkAttach", "1200")]
    assert script.correlators[0] == "order-18"
    assert tre.commands == [(Operation.ACTIVATE, b"good command")]
    assert (leaf(device, "State"), leaf(device, "Result"), leaf(device, "Receipt")) == ("40", "1200", b"receipt good")
    assert tre.confirmed == [MCIM_ID]


@pytest.mark.parametrize(
    ("policy", "code", "state"),
    [(McimPolicy.SIGNED_LIFECYCLE, "1412", "40"), (McimPolicy.NONE, "1200", "50")],
    ids=["signed", "unsigned"],
)
async def test_command_without_signature(tmp_path, policy, code, state):
    """REQ-70: an Exec of the DPF alone works for an MCIM whose policy allows it, and for no other."""
    device = await provisioned(tmp_path, FakeTre(policy=policy))
    script = Script(command("Suspend", None))
    await agent_for(device, script, None).serve(Call(server_id=DPF))
    assert script.alerts == [("LifecycleComplete", code)]
    assert (leaf(device, "State"), leaf(device, "Result")) == (state, code)


async def test_lifecycle_report_is_repeated_until_it_is_taken(tmp_path):
    """REQ-67: an answer that is not 200 leaves the alert in the queue, across a restart."""
    device = await provisioned(tmp_path, FakeTre())
    agent = agent_for(device, Script(command("Suspend")), None, polls=1)
    dpf_of(device).refuse = {"LifecycleComplete": 500}
    await agent.serve(Call(server_id=DPF))
    again, _ = make_device(tmp_path, tre=device.tre)
    assert again.alerts.waits(AlertType.LIFECYCLE_COMPLETE)
    dpf_of(device).refuse = {}
    script = Script()
    await agent_for(again, script, None).serve(Call(server_id=DPF))
    assert script.alerts == [("LifecycleComplete", "1200")]
    assert not again.alerts.waits(AlertType.LIFECYCLE_COMPLETE)


@pytest.mark.parametrize("operation", ["Suspend", "Delete"])
async def test_power_cut_in_a_command(tmp_path, operation):
    """REQ-56: done by the TRE, not noted by the device: after the start it is, and reported once."""
    tre = FakeTre()
    device = await provisioned(tmp_path, tre)
    await agent_for(device, Script(command(operation)), None)._sessions.called_for(Call(server_id=DPF), step="14")
    device.m2msim.begin("c1")
    device.save()
    tre.command(Operation[operation.upper()], b"good command", device.m2msim.begin("c1").hints, device.now())
    again, _ = make_device(tmp_path, tre=tre)
    again.recover()
    (alert,) = again.alerts.alerts()
    assert (alert.items[0].data, alert.correlator) == ("1200", "order-18")
    assert leaf(again, "State") == ("50" if operation == "Suspend" else "60")
    again.recover()
    assert len(again.alerts) == 1
    assert again.obey() == []


async def test_after_the_last_mcim_is_deleted_a_request_is_opened_at_the_next_start(tmp_path):
    """flows F9: at power-up without an MCIM; the reason is a recovery."""
    device = await provisioned(tmp_path, FakeTre())
    await agent_for(device, Script(command("Delete")), None).serve(Call(server_id=DPF))
    again, _ = make_device(tmp_path, tre=device.tre)
    again.register()
    assert again.tre.open_request.reason == "recovery"


@pytest.mark.parametrize("state", [PROVISIONED, SUSPENDED])
async def test_an_mcim_that_is_not_in_use_is_no_reason_for_a_request(tmp_path, state):
    """flows F9: whether it is activated is its home operator's decision."""
    device = await provisioned(tmp_path, FakeTre(initial_state=state))
    before = device.tre.open_request
    device.register()
    assert device.tre.open_request == before


# -- another home operator --------------------------------------------------------------------------------------------


def new_package() -> Continue:
    return renamed(delivery(b"good new package", name="c2"), NEW_MCIM_ID)


async def test_change_of_sho(tmp_path):
    """flows F6: the new one in use, the old one suspended; the attach makes it final."""
    tre = FakeTre()
    device = await provisioned(tmp_path, tre)
    script = Script(new_package())
    await agent_for(device, script, FakeNetwork([CHALLENGE, ATTACHED])).serve(Call(server_id=DPF))
    assert script.alerts == [("ProvisioningComplete", "1200"), ("NetworkAttach", "1200")]
    assert (leaf(device, "State"), leaf(device, "State", "c2")) == ("50", "40")
    assert tre.confirmed[-1] == NEW_MCIM_ID
    assert tre.fall_back(NEW_MCIM_ID, device.now()) is None


async def test_fall_back(tmp_path):
    """flows F6, REQ-72: the network refuses the new one: the old one is in use, and the DPF reads why."""
    tre = FakeTre()
    device = await provisioned(tmp_path, tre)
    tre.aka = [MacFailure(), Accepted(res=b"r" * 8, ck=b"c" * 16, ik=b"i" * 16)]
    network = FakeNetwork([CHALLENGE, {}, CHALLENGE, ATTACHED])
    script = Script(new_package())
    await agent_for(device, script, network).serve(Call(server_id=DPF))
    assert script.alerts == [("ProvisioningComplete", "1200"), ("NetworkAttach", "20")]
    assert (leaf(device, "State"), leaf(device, "State", "c2")) == ("40", "50")
    assert (leaf(device, "Result", "c2"), leaf(device, "Receipt", "c2")) == ("1426", b"receipt good")
    assert device.usable_mcim().mcim_id == MCIM_ID
    assert network.answers == []
    assert tre.confirmed == [MCIM_ID, MCIM_ID]


async def test_each_mcim_attaches_at_the_network_of_its_operator(tmp_path):
    """flows F6: the operator's own address where there is one, the usual one for all others."""
    device, _ = bootstrapped_device(tmp_path, tre=FakeTre())
    own, other = FakeNetwork([CHALLENGE, ATTACHED]), FakeNetwork([])
    script = Script(delivery(b"good package"))
    networks = {"another.example": other, "sho.example": own}
    assert await agent_for(device, script, other, networks).serve(Call(server_id=DPF)) == ""
    assert script.alerts == [("ProvisioningComplete", "1200"), ("NetworkAttach", "1200")]
    assert own.answers == []


async def test_run_ends_attached_after_a_fall_back(tmp_path):
    """flows F6: the run says that it fell back; the alert is taken before it ends."""
    tre = FakeTre()
    device = await provisioned(tmp_path, tre)
    sessions = agent_for(device, Script(new_package()), None)
    await sessions._sessions.called_for(Call(server_id=DPF), step="14")
    tre.aka = [MacFailure(), Accepted(res=b"r" * 8, ck=b"c" * 16, ik=b"i" * 16)]
    script = Script()
    result = await agent_for(device, script, FakeNetwork([CHALLENGE, {}, CHALLENGE, ATTACHED])).run(DPF)
    assert (result.status, "fell back" in result.reason) == (ExitStatus.ATTACHED, True)
    assert script.alerts == [("ProvisioningComplete", "1200"), ("NetworkAttach", "20")]


async def test_power_cut_after_the_fall_back(tmp_path):
    """REQ-56, REQ-67: the TRE fell back and the device did not get to note it: it does at the next start, once."""
    tre = FakeTre()
    device = await provisioned(tmp_path, tre)
    sessions = agent_for(device, Script(new_package(), Continue((Get(items=(Item(target="./M2MSIMMobj"),)),))), None)
    await sessions.serve(Call(server_id=DPF))
    assert tre.fall_back(NEW_MCIM_ID, device.now()) is not None
    again, _ = make_device(tmp_path, tre=tre)
    again.recover()
    (alert,) = again.alerts.alerts()
    assert (alert.items[0].meta.type, alert.items[0].source) == (AlertType.NETWORK_ATTACH.value, "./M2MSIMMobj/c2")
    assert (leaf(again, "State"), leaf(again, "State", "c2"), leaf(again, "Result", "c2")) == ("40", "50", "1426")
    again.alerts.forget(alert)
    again.recover()
    assert len(again.alerts) == 0


class Silence:
    """A network that never answers."""

    async def post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError


async def test_the_decision_takes_bounded_time(tmp_path):
    """flows F6: no answer within T is a failure; the old one comes back."""
    tre = FakeTre()
    device = await provisioned(tmp_path, tre)
    agent = agent_for(device, Script(new_package()), Silence(), attach_decision_s=0.01)
    await agent.serve(Call(server_id=DPF))
    assert device.usable_mcim().mcim_id == MCIM_ID
    assert leaf(device, "Result", "c2") == "1426"


async def test_update_is_attached_with_anew(tmp_path):
    """flows F4: after an update the device proves the new values, and says so."""
    tre = FakeTre()
    device = await provisioned(tmp_path, tre)
    package = leaf_item(
        "./M2MSIMMobj/c1/Package", b"good update", format=Format.BIN, type="application/vnd.m2m.mcim+xml"
    )
    script = Script(Continue((Add(items=(package,)),)))
    await agent_for(device, script, FakeNetwork([CHALLENGE, ATTACHED])).serve(Call(server_id=DPF))
    assert script.alerts == [("ProvisioningComplete", "1200"), ("NetworkAttach", "1200")]
    assert tre.confirmed == [MCIM_ID, MCIM_ID]


# -- a TRE out of order -----------------------------------------------------------------------------------------------


async def test_tampering_is_announced_once(tmp_path):
    """T3, flows F8: TamperDetected until it is taken; the state is in M2MMobj; the run ends refused."""
    device, _ = bootstrapped_device(tmp_path, tre=FakeTre(condition="tampered"))
    script = Script(Continue((Get(items=(Item(target="./M2MMobj/TRE/State"),)),)))
    result = await agent_for(device, script, FakeNetwork([])).run(DPF)
    assert (result.status, result.reason) == (ExitStatus.REFUSED, "the TRE is tampered with")
    assert script.alerts == [("TamperDetected", "tampered")]
    assert device.tre.open_request.req_id == ""
    again, _ = make_device(tmp_path, tre=device.tre)
    again.recover()
    assert len(again.alerts) == 0


# -- several TREs -----------------------------------------------------------------------------------------------------


async def test_the_key_id_selects_the_tre(tmp_path, monkeypatch):
    """REQ-64: of two TREs the one with the platform key gets package and command; nobody's goes to the first."""
    first, second = FakeTre(), FakeTre(platform_key_id=b"\x02" * 16)
    device, _ = bootstrapped_device(tmp_path, tre=first, more_tres=(second,))

    class Header:
        def __init__(self, package: bytes) -> None:
            self.platform_key_id = package[-16:]

    monkeypatch.setattr("dmclient.device.peek_header", Header)
    script = Script(delivery(b"good package" + b"\x02" * 16), command("Suspend", b"good command" + b"\x02" * 16))
    agent = agent_for(device, script, None, polls=2)
    await agent.serve(Call(server_id=DPF))
    assert (len(first.provisioned), len(second.provisioned)) == (0, 1)
    assert device.usable_mcim() is None or device.holder_of(MCIM_ID) is second
    assert second.commands == [(Operation.SUSPEND, b"good command" + b"\x02" * 16)]
    assert leaf(device, "State") == "50"
    assert device.tre_for(b"nobody's package" + b"\x09" * 16) is first
    assert device.local_command(Operation.ACTIVATE, MCIM_ID).code is ResultCode.SIGNER_NOT_ACCEPTABLE
    assert second.commands[-1] == (Operation.ACTIVATE, b"")
