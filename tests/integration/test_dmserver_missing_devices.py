"""Devices that stay away in the middle of a delivery (REQ-16, REQ-67): who is told, and what still counts later."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dmclient.http_transport import TransportFailed
from dmserver import order_desk
from dmserver.asks import PartnerDown, TellSho
from dmserver.conductor import DEFAULT_SILENCE
from dmserver.order_desk import NotPossible
from dmserver.orders import OrderState
from dmserver.registration import OrderRejected
from mcim.vocabulary import ContainerState, ResultCode
from sho.store import repository
from syncml.model import Add, Delete
from tests.support_chain import chain
from tests.support_dmserver import PUSH, Dpf
from tests.support_dpf_pki import SHO_ID
from tests.support_operators import Pki
from tests.support_stub_device import StubDevice, attach_alert, registration_alert

SECOND = timedelta(seconds=1)


@pytest.fixture
def dpf(tmp_path: Path) -> Iterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device(push=PUSH)
    yield made
    made.close()


async def left_alone(dpf: Dpf, device: StubDevice, *, has_it: bool) -> str:
    """An order whose device fell silent when the package was on its way; whether it arrived."""
    order_id = dpf.open_order()
    if has_it:
        await dpf.session(device, registration_alert(device))
    else:
        lost = dpf.client(device, registration_alert(device))
        await dpf.run(device, lost, stop=lambda _: dpf.order(order_id).state is OrderState.DELIVERING)
        device.nodes = {key: node for key, node in device.nodes.items() if not key.startswith("M2MSIMMobj/")}
    assert dpf.order(order_id).state is (OrderState.DELIVERED if has_it else OrderState.DELIVERING)
    return order_id


def told(dpf: Dpf) -> list[tuple[int, bool]]:
    """Reports to the home operator: result, and whether there was a receipt."""
    return [(ask.result, ask.receipt is not None) for ask in dpf.partners.asked if isinstance(ask, TellSho)]


def after(dpf: Dpf, silence: timedelta) -> None:
    dpf.clock.advance(silence.total_seconds())


@pytest.mark.parametrize("has_it", [False, True], ids=["DELIVERING", "DELIVERED"])
async def test_req67_the_home_operator_is_told_in_time_and_not_before(dpf: Dpf, has_it: bool):
    """REQ-67: an order whose device stays away has a name and a reason, and nobody waits for it for ever."""
    order_id = await left_alone(dpf, StubDevice(), has_it=has_it)
    seen = f"{dpf.order(order_id).updated_at:%Y-%m-%dT%H:%M:%SZ}"
    after(dpf, DEFAULT_SILENCE - SECOND)
    await dpf.conductor.tidy()
    assert (dpf.order(order_id).state, told(dpf)) == (
        OrderState.DELIVERED if has_it else OrderState.DELIVERING,
        [],
    )
    after(dpf, SECOND)
    await dpf.conductor.tidy()
    await dpf.conductor.tidy()
    order = dpf.order(order_id)
    assert (order.state, order.detail) == (OrderState.MISSING, f"the device has not come since {seen}")
    assert (told(dpf), order.report_owed) == ([(ResultCode.REFUSED, False)], False)
    moved = [each.fields for each in dpf.records if each.kind == "state"][-1]
    assert (moved["new"], moved["detail"]) == ("MISSING", order.detail)


async def test_a_device_that_comes_is_not_missing(dpf: Dpf):
    """REQ-67: it is here, whatever it has to say of the order."""
    device = StubDevice(install=None)
    order_id = await left_alone(dpf, device, has_it=True)
    for number in range(4):
        after(dpf, DEFAULT_SILENCE - SECOND)
        await dpf.run(device, dpf.client(device, session_id=f"A{number}"), stop=lambda _: True)
        await dpf.conductor.tidy()
    assert (dpf.order(order_id).state, told(dpf)) == (OrderState.DELIVERED, [])


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_req67_a_receipt_that_comes_late_is_settled(dpf: Dpf, acknowledged: bool):
    """REQ-67: the truth is the TRE's; it is told whether or not the home operator has heard that the device is gone."""
    device = StubDevice()
    order_id = await left_alone(dpf, device, has_it=True)
    device.provision()
    if not acknowledged:
        dpf.partners.answers[TellSho] = lambda _: PartnerDown(reason="asleep")
    after(dpf, DEFAULT_SILENCE)
    await dpf.conductor.tidy()
    assert (dpf.order(order_id).state, dpf.order(order_id).report_owed) == (OrderState.MISSING, not acknowledged)
    dpf.restart()
    dpf.partners.answers.clear()
    await dpf.session(device, session_id="B")
    order = dpf.order(order_id)
    assert (order.state, order.report_owed, told(dpf)[-1]) == (OrderState.REPORTED, False, (ResultCode.SUCCESS, True))
    await dpf.session(device, attach_alert(device), session_id="C")
    await dpf.conductor.tidy()
    assert dpf.order(order_id).state is OrderState.CLOSED
    assert told(dpf).count((ResultCode.SUCCESS, True)) == 1


async def test_req16_a_device_that_has_nothing_gets_nothing(dpf: Dpf):
    """REQ-16: the home operator gave the order up, so the package is not pushed any more; the order ends."""
    device = StubDevice()
    order_id = await left_alone(dpf, device, has_it=False)
    after(dpf, DEFAULT_SILENCE)
    await dpf.conductor.tidy()
    device.seen.clear()
    await dpf.session(device, session_id="B")
    order = dpf.order(order_id)
    assert (order.state, order.detail) == (OrderState.REFUSED, "the device came back without the package")
    assert not any(isinstance(each, Add) for each in device.seen)
    assert dpf.open_order() != order_id


async def test_req16_a_half_delivered_package_is_cleared_away(dpf: Dpf):
    """REQ-16: of a container that was never filled nothing stays on the device."""
    device = StubDevice()
    order_id = await left_alone(dpf, device, has_it=True)
    container = f"M2MSIMMobj/{dpf.order(order_id).container}"
    device.nodes[f"{container}/State"].value = str(int(ContainerState.RECEIVING))
    after(dpf, DEFAULT_SILENCE)
    await dpf.conductor.tidy()
    device.seen.clear()
    await dpf.session(device, session_id="B")
    assert dpf.order(order_id).state is OrderState.REFUSED
    assert any(isinstance(each, Delete) for each in device.seen)
    assert device.containers() == []


async def test_req67_a_device_that_is_not_done_is_waited_for_again(dpf: Dpf):
    """REQ-67: it has the package whole and may install it any time; if it goes again, that is told again."""
    device = StubDevice(install=None)
    order_id = await left_alone(dpf, device, has_it=True)
    for number in (1, 2):
        after(dpf, DEFAULT_SILENCE)
        await dpf.conductor.tidy()
        assert dpf.order(order_id).state is OrderState.MISSING
        assert told(dpf) == [(ResultCode.REFUSED, False)] * number
        await dpf.session(device, session_id=f"B{number}")
        assert dpf.order(order_id).state is OrderState.DELIVERED
    device.install = ResultCode.SUCCESS
    device.provision()
    await dpf.session(device, session_id="C")
    assert dpf.order(order_id).state is OrderState.REPORTED


async def test_req67_who_has_reported_is_not_missing(dpf: Dpf):
    """REQ-67: the receipt is here and its home operator does not answer; nothing is told of the device but that."""
    device = StubDevice()
    order_id = await left_alone(dpf, device, has_it=True)
    device.provision()
    dpf.partners.answers[TellSho] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, session_id="B")
    after(dpf, 2 * DEFAULT_SILENCE)
    await dpf.conductor.tidy()
    assert dpf.order(order_id).state is OrderState.DELIVERED
    assert set(told(dpf)) == {(ResultCode.SUCCESS, True)}


async def test_req16_a_kill_between_the_steps(dpf: Dpf):
    """REQ-16: the state is on disk before anybody is told, and whoever was not told is told by the next process."""
    order_id = await left_alone(dpf, StubDevice(), has_it=True)
    after(dpf, DEFAULT_SILENCE)

    def killed(_ask: object) -> None:
        raise KeyboardInterrupt

    dpf.partners.answers[TellSho] = killed  # no outcome at all
    with pytest.raises(KeyboardInterrupt):
        await dpf.conductor.tidy()
    dpf.restart()
    dpf.partners.answers.clear()
    assert (dpf.order(order_id).state, dpf.order(order_id).report_owed) == (OrderState.MISSING, True)
    await dpf.conductor.tidy()
    assert (dpf.order(order_id).state, dpf.order(order_id).report_owed) == (OrderState.MISSING, False)
    assert len({ask.key for ask in dpf.partners.asked if isinstance(ask, TellSho)}) == 1


async def test_an_operator_gives_a_missing_device_up(dpf: Dpf):
    """REQ-71: only he may, because what the device did is not known; then another order can be opened."""
    order_id = await left_alone(dpf, StubDevice(), has_it=True)
    with pytest.raises(NotPossible):
        dpf.store.write_sync(lambda c: order_desk.cancel(c, order_id, dpf.clock()))
    after(dpf, DEFAULT_SILENCE)
    await dpf.conductor.tidy()
    with pytest.raises(OrderRejected):
        dpf.open_order()
    moved = dpf.store.write_sync(lambda c: order_desk.cancel(c, order_id, dpf.clock()))
    assert (moved.before, moved.order.state) == (OrderState.MISSING, OrderState.REFUSED)
    assert dpf.open_order() != order_id


async def test_a_missing_device_is_called(dpf: Dpf):
    """REQ-25: package 0, as long as the order lives."""
    order_id = await left_alone(dpf, StubDevice(), has_it=True)
    after(dpf, DEFAULT_SILENCE)
    before = len(dpf.pushed)
    await dpf.conductor.tidy()
    assert len(dpf.pushed) == before + (dpf.order(order_id).expires_at > dpf.clock())


async def test_req67_a_real_device_that_was_given_up_attaches_in_the_end(tmp_path: Path):
    """REQ-67 to REQ-69: the SHO believes the DPF that the order is over, and the TRE that it is not."""
    async with chain(Pki(tmp_path), tmp_path) as parties:
        order_id = await parties.order("install")

        def gone(_number: int, when: str) -> None:
            if when == "before" and parties.device.mcims():
                raise TransportFailed("no network")

        parties.wire.begin(gone)
        await parties.visit()
        assert parties.dpf.order(order_id).state is OrderState.DELIVERED
        parties.clock.advance(DEFAULT_SILENCE.total_seconds())
        await parties.dpf.conductor.tidy()
        assert parties.dpf.order(order_id).state is OrderState.MISSING
        at_the_sho = await parties.shos[SHO_ID].store.read(lambda c: repository.find_order(c, order_id))
        assert at_the_sho is not None
        assert (at_the_sho["state"], await parties.subscription()) == ("refused", "allocated")
        parties.wire.begin()
        order = await parties.settle(order_id, visits=2)
        assert (order.state, await parties.subscription()) == (OrderState.CLOSED, "armed")
