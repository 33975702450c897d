"""The order table: every pair of state and event, and what must hold for the table as a whole (REQ-15, REQ-16)."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from dmserver.orders import ENDED, EXPIRABLE, NEXT, ONGOING, IllegalTransition, Order, OrderEvent, OrderState, advance

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def order_in(state: OrderState) -> Order:
    return Order(
        order_id="3f0c2a52-5d0c-4d43-8c0b-000000000001",
        device_id="urn:imei:490154203237518",
        sho_id="sho.example",
        state=state,
        created_at=NOW,
        updated_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )


@pytest.mark.parametrize("pair", list(product(OrderState, OrderEvent)), ids=lambda p: f"{p[0]}-{p[1]}")
def test_req16_every_pair_is_an_arrow_or_refused(pair):
    state, event = pair
    later = NOW + timedelta(seconds=1)
    if pair in NEXT:
        after = advance(order_in(state), event, later, detail="why")
        assert (after.state, after.detail, after.updated_at) == (NEXT[pair], "why", later)
    else:
        with pytest.raises(IllegalTransition):
            advance(order_in(state), event, later)


def test_nothing_leaves_an_ended_order():
    assert not [pair for pair in NEXT if pair[0] in ENDED]


def test_every_state_can_be_reached_and_the_happy_path_is_the_documented_one():
    state, seen = OrderState.OPEN, [OrderState.OPEN]
    for event in (
        OrderEvent.CONTACT,
        OrderEvent.TREE_ACCEPTED,
        OrderEvent.CHALLENGE_ISSUED,
        OrderEvent.TICKET_VERIFIED,
        OrderEvent.HAND_OVER,
        OrderEvent.PACKAGE_KEPT,
        OrderEvent.PUSH,
        OrderEvent.PUSHED,
        OrderEvent.REPORT_ACKNOWLEDGED,
        OrderEvent.ATTACHED,
    ):
        state = NEXT[state, event]
        seen.append(state)
    assert seen == list(OrderState)[:11]
    assert set(NEXT.values()) | {OrderState.OPEN} == set(OrderState)


def test_req16_a_package_is_pushed_only_from_package_ready():
    assert [state for state, event in NEXT if event is OrderEvent.PUSH] == [OrderState.PACKAGE_READY]


def test_an_order_that_may_be_at_the_device_does_not_expire():
    assert not EXPIRABLE & {OrderState.DELIVERING, OrderState.DELIVERED, OrderState.MISSING, OrderState.REPORTED}


def test_ongoing_ended_and_suspended_are_a_partition():
    assert ONGOING | ENDED | {OrderState.SUSPENDED} == set(OrderState)
    assert not ONGOING & ENDED


def test_no_secret_or_nonce_in_the_repr():
    order = dataclasses.replace(order_in(OrderState.OPEN), nonce=b"N" * 32, challenge=b"C" * 32, ticket="head.body.sig")
    assert "NNNN" not in repr(order)
    assert "CCCC" not in repr(order)
    assert "head.body" not in repr(order)
