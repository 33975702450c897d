"""Who the home operator is: the subscriber's choice, or that of the order."""

from __future__ import annotations

import pytest

from m2m_demo.stage import Stage
from m2m_demo.world import SHO_ID

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("chosen", "status", "mcims"), [(None, 0, 1), ("other.m2m.example", 2, 0)], ids=["nobody", "another operator"]
)
def test_the_order_decides_only_for_a_device_that_chose_nobody(
    stage_of_its_own: Stage, chosen: str | None, status: int, mcims: int
) -> None:
    """REQ-13, REQ-50."""
    stage = stage_of_its_own
    stage.chosen_sho = chosen
    stage.set_up()
    stage.start_servers()
    device = stage.start_device()
    order = stage.open_order()
    stage.wait_ready(device)
    stage.bootstrap()
    assert stage.device_result(device)[0] == status
    assert [each["sho"] for each in stage.device_info()["mcims"]] == [SHO_ID] * mcims
    assert stage.order(order)["state"] == ("CLOSED" if mcims else "REFUSED")
