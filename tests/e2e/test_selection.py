"""Who the home operator is: the subscriber's choice, or that of the order."""

from __future__ import annotations

import pytest

from m2m_demo.stage import Stage
from m2m_demo.world import SHO_ID

pytestmark = pytest.mark.e2e


def test_the_order_decides_for_a_device_that_chose_nobody(stage_of_its_own: Stage) -> None:
    """REQ-13, REQ-50. A choice of another operator leads to the attack "another-operator" of `test_attack_plays`."""
    stage = stage_of_its_own
    stage.chosen_sho = None
    stage.set_up()
    stage.start_servers()
    device = stage.start_device()
    order = stage.open_order()
    stage.wait_ready(device)
    stage.bootstrap()
    assert stage.device_result(device)[0] == 0
    assert [each["sho"] for each in stage.device_info()["mcims"]] == [SHO_ID]
    assert stage.order(order)["state"] == "CLOSED"
