"""Orders about an MCIM that a device has: update, activate, suspend, delete, replace (flows F4 to F6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmserver import order_desk
from dmserver.asks import AskPackage, PackageGiven, PartnerDown, ReportAcknowledged, TellSho
from dmserver.delivery import MAX_PUSHES
from dmserver.orders import OrderState
from dmserver.store.orders import former_requests
from mcim.vocabulary import ResultCode
from syncml.model import Add, Exec, Get, Replace
from tests.support_dmserver import PUSH, Dpf
from tests.support_dpf_pki import M2ME_ID, SHO_ID
from tests.support_fake_partners import package_for
from tests.support_stub_device import StubDevice, attach_alert, fall_back_receipt, registration_alert

NEW_SHO = "new.example"
COMMANDS = ("activate", "suspend", "delete")
LEFT = {"activate": "40", "suspend": "50", "delete": "60", "update": "40"}
BEFORE = {"activate": "50", "suspend": "40", "delete": "40", "update": "40"}


@pytest.fixture
def dpf(tmp_path: Path) -> Iterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device(push=PUSH)
    yield made
    made.close()


async def installed(dpf: Dpf, device: StubDevice, *, number: int = 1) -> str:
    """Provision an MCIM, as far as its attach; the order that brought it."""
    order_id = dpf.open_order()
    await dpf.session(device, registration_alert(device), session_id=f"{number:X}")
    done = device.provision()
    assert done is not None
    await dpf.session(device, done, session_id=f"{number + 1:X}")
    await dpf.session(device, attach_alert(device), session_id=f"{number + 2:X}")
    assert dpf.order(order_id).state is OrderState.CLOSED
    return order_id


async def in_state(dpf: Dpf, device: StubDevice, operation: str) -> tuple[str, str]:
    """An installed MCIM in the state that `operation` begins with, and an order for it: MCIM, order."""
    brought = await installed(dpf, device)
    mcim_id = dpf.order(brought).mcim_id
    assert mcim_id is not None
    device.nodes[f"M2MSIMMobj/{mcim_id[:8]}/State"].value = BEFORE[operation]
    device.seen.clear()
    return mcim_id, dpf.open_order(operation=operation, mcim_id=mcim_id)


def written(device: StubDevice, end: str) -> list[Add | Replace | Exec]:
    """Commands that reached a leaf."""
    return [
        each
        for each in device.seen
        if isinstance(each, Add | Replace | Exec) and any((item.target or "").endswith(end) for item in each.items)
    ]


@pytest.mark.parametrize("operation", COMMANDS)
@pytest.mark.parametrize("at_once", [False, True], ids=["202 and an alert", "200"])
async def test_req70_a_command_goes_to_the_container_of_its_mcim(dpf: Dpf, operation: str, at_once: bool):
    """REQ-70, flows F5: Command, Exec with Correlator, LifecycleComplete, receipt, report."""
    device = StubDevice(at_once=at_once)
    mcim_id, order_id = await in_state(dpf, device, operation)
    await dpf.session(device, session_id="A")
    assert len(written(device, "/Command")) == 1
    (execute,) = written(device, f"/{operation.capitalize()}")
    assert isinstance(execute, Exec)
    assert execute.correlator == f"{order_id}-{operation}"
    assert device.seen.index(written(device, "/Command")[0]) < device.seen.index(execute)
    done = device.operate()
    assert (done is None) is at_once
    if done is not None:
        assert dpf.order(order_id).state is OrderState.DELIVERED
        assert done.correlator == execute.correlator
        await dpf.session(device, done, session_id="B")
    order = dpf.order(order_id)
    waits = operation == "activate"  # an MCIM in use has to prove itself
    assert (order.state, order.left_state) == (
        OrderState.REPORTED if waits else OrderState.CLOSED,
        int(LEFT[operation]),
    )
    told = dpf.partners.asked[-1]
    assert isinstance(told, TellSho)
    assert (told.order_id, told.result, told.receipt is None) == (order_id, 1200, False)
    asked = [ask for ask in dpf.partners.asked if isinstance(ask, AskPackage)][-1]
    assert (asked.operation.label, asked.mcim_id) == (operation, mcim_id)
    if waits:
        await dpf.session(device, attach_alert(device), session_id="C")
        assert dpf.order(order_id).state is OrderState.CLOSED


async def test_req70_an_update_replaces_the_package_of_its_container(dpf: Dpf):
    """REQ-70, flows F4: Renew first, the same container, the leaves that are there replaced, the package last."""
    device = StubDevice()
    mcim_id, order_id = await in_state(dpf, device, "update")
    renewals = device.renewals
    await dpf.session(device, session_id="A")
    assert device.renewals == renewals + 1
    assert device.containers() == [mcim_id[:8]]
    changed = [type(each).__name__ for each in written(device, "") if "M2MSIMMobj" in (each.items[0].target or "")]
    assert changed == ["Replace", "Replace", "Replace", "Add"]  # the package was removed after its use
    done = device.provision()
    assert done is not None
    await dpf.session(device, done, session_id="B")
    assert dpf.order(order_id).state is OrderState.REPORTED
    await dpf.session(device, attach_alert(device), session_id="C")
    assert dpf.order(order_id).state is OrderState.CLOSED
    assert dpf.checks(passed=False) == []


@pytest.mark.parametrize("operation", [*COMMANDS, "update"])
async def test_mo_design_6_4_the_container_is_found_by_its_mcim(dpf: Dpf, operation: str):
    """REQ-02, flows F4: a container that has another name than ours is the one, whatever the others are."""
    device = StubDevice()
    mcim_id, order_id = await in_state(dpf, device, operation)
    name = f"M2MSIMMobj/{mcim_id[:8]}"
    moved = {key.replace(name, "M2MSIMMobj/zebra"): node for key, node in device.nodes.items()}
    device.nodes = moved | {
        "M2MSIMMobj/ape": moved["M2MSIMMobj/zebra"],
        "M2MSIMMobj/ape/State": dataclasses.replace(moved["M2MSIMMobj/zebra/State"]),
        "M2MSIMMobj/ape/MCIMId": dataclasses.replace(moved["M2MSIMMobj/zebra/MCIMId"], value="other"),
    }
    await dpf.session(device, session_id="A")
    done = device.provision() if operation == "update" else device.operate()
    assert done is not None
    await dpf.session(device, done, session_id="B")
    order = dpf.order(order_id)
    assert order.container == "zebra"
    assert (order.result, order.left_state) == (1200, int(LEFT[operation]))


@pytest.mark.parametrize("operation", [*COMMANDS, "update"])
async def test_mo_design_6_5_a_container_that_the_device_deleted(dpf: Dpf, operation: str):
    """REQ-70: an update brings a container of its own; a command has nothing to work on, and the operator learns it."""
    device = StubDevice()
    _, order_id = await in_state(dpf, device, operation)
    device.nodes = {key: node for key, node in device.nodes.items() if not key.startswith("M2MSIMMobj/")}
    await dpf.session(device, session_id="A")
    if operation == "update":
        assert dpf.order(order_id).state is OrderState.DELIVERED
        return
    assert dpf.order(order_id).detail == "the device has no container of that MCIM"
    assert isinstance(dpf.partners.asked[-1], TellSho)
    assert written(device, "/Command") == []


async def test_exec_in_a_wrong_state_ends_the_order(dpf: Dpf):
    """flows F7, Exec in wrong state: Status 405 and Result 1405; nothing was done, the home operator is told."""
    device = StubDevice()
    mcim_id, order_id = await in_state(dpf, device, "activate")
    device.nodes[f"M2MSIMMobj/{mcim_id[:8]}/State"].value = "40"
    await dpf.session(device, session_id="A")
    order = dpf.order(order_id)
    assert (order.state, order.detail) == (
        OrderState.REFUSED,
        "the device does not activate: Status 405, result 1405",
    )
    told = dpf.partners.asked[-1]
    assert isinstance(told, TellSho)
    assert (told.receipt, told.result) == (None, 1400)


@pytest.mark.parametrize(
    ("operation", "silent_after"),
    [
        *((operation, number) for operation in ("suspend", "update") for number in range(6, 18)),
        *((operation, number) for operation in ("activate", "delete") for number in range(12, 18)),
    ],
)
async def test_req16_crash_after_any_message_ends_in_one_operation(dpf: Dpf, operation: str, silent_after: int):
    """REQ-16, flows F7, server crash after delivery: State and Receipt are asked for, nothing is done twice."""
    device, messages, done_before = StubDevice(), 0, 0
    mcim_id, order_id = await in_state(dpf, device, operation)

    def silent(_: StubDevice) -> bool:
        nonlocal messages
        messages += 1
        return messages == silent_after

    await dpf.run(device, dpf.client(device, session_id="A"), stop=silent)
    dpf.restart()
    done_before = len(device.pending)
    for number in range(4):
        done = device.provision() if operation == "update" else device.operate()
        await dpf.session(device, *([done] if done else []), session_id=f"B{number}")
    await dpf.session(device, attach_alert(device), session_id="C")
    assert dpf.order(order_id).state is OrderState.CLOSED, dpf.order(order_id).detail
    assert device.containers() == [mcim_id[:8]]
    assert done_before <= 1
    results = {ask.result for ask in dpf.partners.asked if isinstance(ask, TellSho)}
    assert results == {1200}
    assert len({ask.key for ask in dpf.partners.asked if isinstance(ask, AskPackage) and ask.order_id == order_id}) == 1


async def test_req16_an_operation_that_was_done_is_not_set_off_again(dpf: Dpf):
    """REQ-16: the answer to the Exec was lost and the TRE is done; the receipt is there, so nothing is sent."""
    device = StubDevice()
    _, order_id = await in_state(dpf, device, "suspend")
    await dpf.run(device, dpf.client(device, session_id="A"), stop=lambda d: bool(d.pending))
    assert dpf.order(order_id).state is OrderState.DELIVERING
    device.operate()
    device.seen.clear()
    dpf.restart()
    await dpf.session(device, session_id="B")
    assert dpf.order(order_id).state is OrderState.CLOSED
    assert all(isinstance(each, Get) for each in device.seen)


async def test_an_operation_that_rolled_back_is_tried_again_and_not_for_ever(dpf: Dpf):
    """REQ-56, REQ-70: TRE busy or out of storage: the same command again, a bounded number of times."""
    device = StubDevice(install=ResultCode.STORAGE_FAILURE)
    _, order_id = await in_state_with(dpf, device, "suspend")
    for number in range(2 * MAX_PUSHES):
        await dpf.session(device, session_id=f"A{number}")
        device.operate()
    order = dpf.order(order_id)
    assert (order.state, order.pushes) == (OrderState.REFUSED, MAX_PUSHES)
    assert order.detail == "device: result 1501"


async def in_state_with(dpf: Dpf, device: StubDevice, operation: str) -> tuple[str, str]:
    install, device.install = device.install, ResultCode.SUCCESS
    made = await in_state(dpf, device, operation)
    device.install = install
    return made


async def test_a_device_that_shows_its_former_receipt_for_ever_is_given_up(dpf: Dpf):
    """REQ-67, T10: the receipt of the installation says nothing of a suspension; nothing is claimed."""
    device = StubDevice()
    mcim_id, order_id = await in_state(dpf, device, "suspend")
    for number in range(3 * MAX_PUSHES):
        await dpf.session(device, session_id=f"A{number}")
        device.pending.clear()
        device.nodes[f"M2MSIMMobj/{mcim_id[:8]}/Result"].value = "1200"
    order = dpf.order(order_id)
    assert (order.state, order.detail) == (OrderState.REFUSED, f"delivery failed {MAX_PUSHES} times")
    assert [ask.result for ask in dpf.partners.asked if isinstance(ask, TellSho) and ask.order_id == order_id] == [1400]


async def test_req25_a_token_reference_and_the_form_of_the_package_are_told(dpf: Dpf):
    """REQ-31, REQ-61: the container says what form the package has, and which token the device is to think of."""
    order_id, device = dpf.open_order(), StubDevice()
    device.nodes["M2MMobj/TRE/Containers"].value = "xml-mgf1p xml"

    def give(ask: AskPackage) -> PackageGiven:
        return dataclasses.replace(package_for(ask), container="xml-mgf1p", token_ref="label-2026")

    dpf.partners.answers[AskPackage] = give  # called with what it takes
    await dpf.session(device, registration_alert(device))
    order = dpf.order(order_id)
    assert order.state is OrderState.DELIVERED, order.detail
    container = f"M2MSIMMobj/{order.container}"
    assert device.nodes[f"{container}/TokenRef"].value == "label-2026"
    assert device.nodes[f"{container}/ContentType"].value == "application/vnd.m2m.mcim+xml"


# --- change of SHO (flows F6) ----------------------------------------------------------------------------------


async def test_req70_change_of_sho_names_the_new_operator_and_keeps_the_old_mcim(dpf: Dpf):
    """REQ-70, flows F6: SHO replaced and registration renewed before it is read; a container of its own."""
    device = StubDevice()
    old = dpf.order(await installed(dpf, device)).mcim_id
    device.put("M2MMobj/Registration/SHO", SHO_ID)
    device.seen.clear()
    order_id = dpf.open_order(sho_id=NEW_SHO, operation="replace", purpose="change-of-sho")
    await dpf.session(device, session_id="A")
    sho, renew = written(device, "Registration/SHO"), written(device, "Registration/Renew")
    assert (len(sho), len(renew), device.value("Registration/SHO")) == (1, 1, NEW_SHO)
    assert old is not None
    assert old[:8] in device.containers()
    assert len(device.containers()) == 2
    done = device.provision()
    assert done is not None
    await dpf.session(device, done, session_id="B")
    new = dpf.order(order_id)
    stale = attach_alert(device, 1200, old[:8])
    await dpf.session(device, stale, session_id="C")
    assert dpf.order(order_id).state is OrderState.REPORTED
    await dpf.session(device, attach_alert(device, 1200, new.container), session_id="D")
    assert dpf.order(order_id).state is OrderState.CLOSED
    assert {ask.sho_id for ask in dpf.partners.asked if isinstance(ask, TellSho)} == {SHO_ID, NEW_SHO}


async def test_mo_design_6_6_the_former_operator_hears_that_its_mcim_is_gone(dpf: Dpf):
    """flows F6, step 8, REQ-67: the new one deleted it by the release; the old one gets the receipt, surely."""
    device = StubDevice()
    brought = await installed(dpf, device)
    mcim_id = dpf.order(brought).mcim_id
    assert mcim_id is not None
    order_id = dpf.open_order(sho_id=NEW_SHO, operation="delete", mcim_id=mcim_id, purpose="change-of-sho")
    dpf.partners.answers[TellSho] = lambda ask: (
        PartnerDown(reason="asleep") if ask.sho_id == SHO_ID else ReportAcknowledged(subscription="-")
    )
    await dpf.session(device, session_id="A")
    done = device.operate()
    assert done is not None
    await dpf.session(device, done, session_id="B")
    assert (dpf.order(order_id).state, dpf.order(order_id).report_owed) == (OrderState.CLOSED, True)
    await dpf.conductor.tidy()
    dpf.restart()
    del dpf.partners.answers[TellSho]
    await dpf.conductor.tidy()
    await dpf.conductor.tidy()
    told = [ask for ask in dpf.partners.asked if isinstance(ask, TellSho)][-3:]
    assert [ask.sho_id for ask in told] == [NEW_SHO, SHO_ID, SHO_ID]
    assert {ask.receipt for ask in told} == {dpf.order(order_id).receipt}
    assert {ask.order_id for ask in told} == {order_id}  # by its own order the former one would look for its package
    assert told[0].key != told[1].key == told[2].key
    assert not dpf.order(order_id).report_owed
    assert dpf.order(order_id).state is OrderState.CLOSED


async def test_a_registration_open_for_another_operator_is_renewed_for_a_change_alone(dpf: Dpf):
    """T14: a first installation takes no registration away from another home operator; a change of SHO says so."""
    device = StubDevice()
    device.put("M2MMobj/Registration/SHO", "other.example")
    first = dpf.open_order()
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(first).detail == "selected-sho-is-that-of-the-order"
    assert device.renewals == 0
    change = dpf.open_order(operation="replace", purpose="change-of-sho")
    await dpf.session(device, session_id="2")
    assert (dpf.order(change).state, device.renewals) == (OrderState.DELIVERED, 1)
    assert device.value("Registration/SHO") == SHO_ID


async def test_a_device_that_does_not_take_the_new_operator_is_refused(dpf: Dpf):
    """REQ-50, T14: after the renewal the registration must name the home operator of the order."""
    device = StubDevice()
    device.put("M2MMobj/Registration/SHO", "other.example")
    device.refuse["Registration/SHO"] = 405
    order_id = dpf.open_order(operation="replace", purpose="change-of-sho")
    del device.refuse["Registration/SHO"]
    device.refuse["Registration/Renew"] = 405
    device.put("M2MMobj/Registration/SHO", "other.example")
    take = device._replace
    device._replace = lambda path, item, meta: (
        200 if path.endswith("/SHO") else take(path, item, meta)
    )  # says yes and does nothing
    await dpf.session(device, session_id="1")
    assert dpf.order(order_id).detail == "selected-sho-is-that-of-the-order"
    assert "AskChallenge" not in dpf.partners.kinds()


@pytest.mark.parametrize("acknowledged_before", [True, False], ids=["reported", "report not acknowledged"])
async def test_mo_design_6_6_a_fall_back_is_reported_and_ends_the_order(dpf: Dpf, acknowledged_before: bool):
    """REQ-67, flows F6: attach failed, the TRE went back; its receipt 1426 goes to the home operator."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    done = device.provision()
    assert done is not None
    if not acknowledged_before:
        dpf.partners.answers[TellSho] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, done, session_id="2")
    failed = attach_alert(device, 15)
    await dpf.session(device, failed, session_id="3")
    order = dpf.order(order_id)
    assert order.state is (OrderState.REPORTED if acknowledged_before else OrderState.DELIVERED)
    device.put(f"M2MSIMMobj/{order.container}/Receipt", fall_back_receipt(order))
    dpf.partners.answers[TellSho] = lambda _: ReportAcknowledged(subscription="free")
    dpf.restart()
    await dpf.session(device, session_id="4")
    order = dpf.order(order_id)
    assert (order.state, order.detail) == (OrderState.REFUSED, "attach failed, device fell back")
    told = dpf.partners.asked[-1]
    assert isinstance(told, TellSho)
    assert (told.order_id, told.result) == (order_id, 1426)
    assert told.receipt == device.nodes[f"M2MSIMMobj/{order.container}/Receipt"].value


async def test_req67_the_report_of_a_fall_back_is_repeated_until_acknowledged(dpf: Dpf):
    """REQ-67: it is in the database before it leaves, and no other order takes its place meanwhile."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    done = device.provision()
    assert done is not None
    await dpf.session(device, done, session_id="2")
    order = dpf.order(order_id)
    device.put(f"M2MSIMMobj/{order.container}/Receipt", fall_back_receipt(order))
    dpf.partners.answers[TellSho] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, attach_alert(device, 15), session_id="3")
    assert (dpf.order(order_id).state, dpf.order(order_id).result) == (OrderState.REPORTED, 1426)
    with pytest.raises(Exception, match="ongoing order"):
        dpf.open_order(operation="replace")
    del dpf.partners.answers[TellSho]
    dpf.restart()
    await dpf.conductor.tidy()
    assert dpf.order(order_id).state is OrderState.REFUSED
    reports = [ask for ask in dpf.partners.asked if isinstance(ask, TellSho) and ask.result == 1426]
    assert len(reports) >= 2
    assert len({ask.key for ask in reports}) == 1


async def test_mo_design_6_6_a_fall_back_after_an_activation_is_about_what_brought_the_mcim(dpf: Dpf):
    """REQ-67, flows F6: the receipt names the package, so the report is about the order of that package."""
    device = StubDevice()
    mcim_id, order_id = await in_state(dpf, device, "activate")
    await dpf.session(device, session_id="A")
    done = device.operate()
    assert done is not None
    await dpf.session(device, done, session_id="B")
    activation = dpf.order(order_id)
    assert activation.brought_by is not None
    brought = dpf.order(activation.brought_by)
    device.put(f"M2MSIMMobj/{mcim_id[:8]}/Receipt", fall_back_receipt(brought))
    await dpf.session(device, attach_alert(device, 15), session_id="C")
    assert dpf.order(order_id).detail == "attach failed, device fell back"
    told = dpf.partners.asked[-1]
    assert isinstance(told, TellSho)
    assert (told.order_id, told.req_id, told.result) == (brought.order_id, brought.req_id, 1426)


async def test_a_failed_attach_without_a_fall_back_waits_for_the_next(dpf: Dpf):
    """REQ-69: an attach may fail and then succeed; nothing is concluded from the first."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    await dpf.session(device, session_id="2")
    await dpf.session(device, attach_alert(device, 15), session_id="3")
    assert dpf.order(order_id).state is OrderState.REPORTED
    await dpf.session(device, attach_alert(device), session_id="4")
    assert dpf.order(order_id).state is OrderState.CLOSED


async def test_req67_an_attach_heard_before_the_report_was_acknowledged_is_not_forgotten(dpf: Dpf):
    """REQ-67, REQ-69, flows F7: the device says it once; the order closes with the acknowledgement."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    device.provision()
    dpf.partners.answers[TellSho] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, attach_alert(device), session_id="2")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    del dpf.partners.answers[TellSho]
    dpf.restart()
    await dpf.conductor.tidy()
    assert dpf.order(order_id).state is OrderState.CLOSED


async def test_req67_a_later_receipt_replaces_nothing_that_is_settled(dpf: Dpf):
    """REQ-67: after the acknowledgement the device may show what it likes; the order and the reports stay."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    await dpf.session(device, session_id="2")
    before = dpf.order(order_id)
    assert before.state is OrderState.REPORTED
    receipt = fall_back_receipt(before, result=ResultCode.CRYPTO_FAILURE)
    device.put(f"M2MSIMMobj/{before.container}/Receipt", receipt)
    await dpf.session(device, attach_alert(device, 15), session_id="3")
    after = dpf.order(order_id)
    assert (after.state, after.receipt, after.result) == (OrderState.REPORTED, before.receipt, 1200)
    assert len([ask for ask in dpf.partners.asked if isinstance(ask, TellSho)]) == 1


async def test_a_reported_order_gives_way_to_another(dpf: Dpf):
    """REQ-13: a device that never attaches does not keep its home operator from suspending what it has."""
    first, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    await dpf.session(device, session_id="2")
    assert dpf.order(first).state is OrderState.REPORTED
    mcim_id = dpf.order(first).mcim_id
    assert mcim_id is not None
    second = dpf.open_order(operation="suspend", mcim_id=mcim_id)
    assert (dpf.order(first).state, dpf.order(second).brought_by) == (OrderState.CLOSED, first)


# --- operators -------------------------------------------------------------------------------------------------------


async def test_a_suspended_order_turns_its_device_away_and_goes_on_later(dpf: Dpf):
    """flows F9, SUSPENDED: stopped before anything was delivered; resumed, it needs no second issue."""
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskPackage] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, registration_alert(device), session_id="1")
    moved = dpf.store.write_sync(lambda c: order_desk.suspend(c, order_id, dpf.clock()))
    assert (moved.before, moved.order.state) == (OrderState.HANDED_OVER, OrderState.SUSPENDED)
    device.seen.clear()
    await dpf.session(device, registration_alert(device), session_id="2")
    assert device.seen == []
    del dpf.partners.answers[AskPackage]
    dpf.store.write_sync(lambda c: order_desk.resume(c, order_id, dpf.clock()))
    await dpf.session(device, registration_alert(device), session_id="3")
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert len({ask.key for ask in dpf.partners.asked if isinstance(ask, AskPackage)}) == 1
    assert dpf.store.read_sync(lambda c: former_requests(c, order_id)) == frozenset()


async def test_a_cancelled_order_is_reported_until_acknowledged(dpf: Dpf):
    """REQ-23, REQ-67: its home operator is told, also when it does not answer at first."""
    order_id = dpf.open_order()
    dpf.store.write_sync(lambda c: order_desk.cancel(c, order_id, dpf.clock()))
    dpf.partners.answers[TellSho] = lambda _: PartnerDown(reason="asleep")
    await dpf.conductor.tidy()
    dpf.restart()
    assert dpf.order(order_id).report_owed
    del dpf.partners.answers[TellSho]
    await dpf.conductor.tidy()
    await dpf.conductor.tidy()
    assert not dpf.order(order_id).report_owed
    told = [ask for ask in dpf.partners.asked if isinstance(ask, TellSho)]
    assert [ask.req_id for ask in told] == ["00000000-0000-0000-0000-000000000000"] * 2


@pytest.mark.parametrize("move", [order_desk.suspend, order_desk.cancel, order_desk.resume])
async def test_what_may_be_at_a_device_is_not_moved_by_an_operator(dpf: Dpf, move: object):
    """REQ-16: once a delivery has begun its outcome is settled with the device."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    with pytest.raises(order_desk.NotPossible, match="DELIVERED"):
        dpf.store.write_sync(lambda c: move(c, order_id, dpf.clock()))  # one of three
    assert dpf.order(order_id).state is OrderState.DELIVERED


async def test_req23_a_refusal_is_reported_until_acknowledged(dpf: Dpf):
    """REQ-23, REQ-67: the PVA refused and the home operator was away; it is told later, once, under one key."""
    order_id, device = dpf.open_order(), StubDevice()
    device.nodes["M2MMobj/TRE/State"].value = "tampered"
    dpf.partners.answers[TellSho] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, registration_alert(device))
    assert (dpf.order(order_id).state, dpf.order(order_id).report_owed) == (OrderState.REFUSED, True)
    dpf.restart()
    await dpf.conductor.tidy()
    assert dpf.order(order_id).report_owed
    assert dpf.order(order_id).detail == "tre-state-ok (tampered)"
    del dpf.partners.answers[TellSho]
    await dpf.conductor.tidy()
    await dpf.conductor.tidy()
    told = [ask for ask in dpf.partners.asked if isinstance(ask, TellSho)]
    assert len(told) == 3
    assert len({ask.key for ask in told}) == 1
    assert {ask.sho_id for ask in told} == {SHO_ID}
    assert not dpf.order(order_id).report_owed
    assert dpf.order(order_id).device_id == M2ME_ID
