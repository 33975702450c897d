"""Home operators that are away, or that repeat themselves wrongly: nobody else suffers (REQ-16, REQ-67, T12)."""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmserver.asks import AskPackage, PackageLater, PartnerDown, ReportAcknowledged, TellSho
from dmserver.orders import Order, OrderState
from dmserver.registration import OrderRejected, OrderRequest, register_order
from dmserver.store.orders import MAX_ROUND, open_order
from tests.support_dmserver import Dpf
from tests.support_dpf_pki import M2ME_ID, SHO_ID
from tests.support_stub_device import StubDevice, registration_alert

OTHER_DEVICE = "urn:imei:004999010640000"
OTHER_SHO = "other.example"


@pytest.fixture
def dpf(tmp_path: Path) -> Iterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


def told(dpf: Dpf) -> list[tuple[str, str]]:
    return [(ask.sho_id, ask.order_id) for ask in dpf.partners.asked if isinstance(ask, TellSho)]


def owe(dpf: Dpf, sho_id: str, number: int) -> None:
    """So many refused orders of which the home operator has not heard, older than all to come."""

    def write(connection: object) -> None:
        for _ in range(number):
            dpf.clock.advance(1)
            order = Order(
                order_id=str(uuid.uuid4()),
                device_id=M2ME_ID,
                sho_id=sho_id,
                state=OrderState.REFUSED,
                report_owed=True,
                created_at=dpf.clock(),
                updated_at=dpf.clock(),
                expires_at=dpf.clock(),
            )
            open_order(connection, order)  # a connection

    dpf.store.write_sync(write)


async def test_t12_a_home_operator_that_is_away_keeps_nobody_from_hearing(dpf: Dpf):
    """REQ-67, T12: however much is owed to it; and each round asks it once, not once for every order."""
    owe(dpf, SHO_ID, MAX_ROUND + 5)
    owe(dpf, OTHER_SHO, 3)
    dpf.partners.answers[TellSho] = lambda ask: (
        PartnerDown(reason="away") if ask.sho_id == SHO_ID else ReportAcknowledged(subscription="none")
    )
    await dpf.conductor.tidy()
    assert Counter(sho_id for sho_id, _ in told(dpf)) == {SHO_ID: 1, OTHER_SHO: 3}
    dpf.partners.answers.clear()
    dpf.partners.asked.clear()
    await dpf.conductor.tidy()
    await dpf.conductor.tidy()
    assert Counter(sho_id for sho_id, _ in told(dpf)) == {SHO_ID: MAX_ROUND + 5}


@pytest.mark.parametrize("handed_over", [True, False])
async def test_req67_an_order_that_expires_after_the_hand_over_is_told(dpf: Dpf, handed_over: bool):
    """REQ-67: whoever was asked for a package keeps a subscription; before that nobody keeps anything."""
    device, order_id = StubDevice(), dpf.open_order(lifetime_s=600)
    if handed_over:
        dpf.partners.answers[AskPackage] = lambda _: PackageLater(job="j1", retry_after_s=3600)
        await dpf.session(device, registration_alert(device))
        assert dpf.order(order_id).state is OrderState.HANDED_OVER
    dpf.clock.advance(600)
    for _ in range(2):
        await dpf.conductor.tidy()
    order = dpf.order(order_id)
    assert (order.state, order.detail, order.report_owed) == (OrderState.EXPIRED, "its time was over", False)
    assert told(dpf) == [(SHO_ID, order_id)] * handed_over


REPEATED = {
    "another device": {"device_id": OTHER_DEVICE},
    "another operation": {"operation": "replace"},
    "another purpose": {"purpose": "recovery"},
    "another target": {"operation": "suspend", "mcim_id": str(uuid.UUID(int=1))},
}


@pytest.mark.parametrize("changes", REPEATED.values(), ids=REPEATED)
def test_req13_a_key_opens_one_order(dpf: Dpf, changes: dict[str, str]):
    """REQ-13: a repeated key gives the order it made, and for anything else it gives none."""
    dpf.add_device(OTHER_DEVICE)
    wanted = OrderRequest(device_id=M2ME_ID, sho_id=SHO_ID)

    def register(request: OrderRequest) -> Order:
        return dpf.store.write_sync(
            lambda c: register_order(c, request, lifetime_s=60, now=dpf.clock(), idempotency_key="k")
        )

    made = register(wanted)
    assert register(wanted).order_id == made.order_id
    with pytest.raises(OrderRejected) as caught:
        register(dataclasses.replace(wanted, **changes))
    assert caught.value.code == "key-used-for-another-order"
