"""The DPF's endpoint with a device over octets: whole provisionings, restarts, refusals. No network, one database file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dmserver.orders import OrderState
from tests.support_dmserver import Dpf, StubDevice, attach_alert, registration_alert


@pytest.fixture
def dpf(tmp_path: Path) -> Iterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


async def test_req13_to_req69_three_sessions_close_an_order(dpf: Dpf):
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(order_id).state is OrderState.DELIVERED, dpf.order(order_id).detail
    done = device.provision()
    assert done is not None
    await dpf.session(device, done, session_id="2")
    assert dpf.order(order_id).state is OrderState.REPORTED
    await dpf.session(device, attach_alert(), session_id="3")
    assert dpf.order(order_id).state is OrderState.CLOSED
    assert dpf.partners.kinds() == ["AskChallenge", "AskTicket", "AskPackage", "TellSho"]
    assert dpf.checks(passed=False) == []
