"""The life of an MCIM among real parties, DPF, PVA, two SHOs and a device with a TRE, broken at every place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from dmclient.http_transport import TransportFailed
from dmserver.asks import Ask, AskChallenge, AskPackage, AskTicket, TellSho
from dmserver.orders import Order, OrderState
from mcim.vocabulary import ContainerState
from sho.store import repository, updates
from sho.store.updates import NewValues
from sho.subscriptions import Credential
from tests.support_chain import OTHER_SHO, Chain, PowerCut, chain
from tests.support_dpf_pki import SHO_ID
from tests.support_operators import Pki

NEW = Credential(imsi="001010000000009", k=b"a-newer-key-of-1", opc=b"a-newer-opc-of-1")


class Stage(NamedTuple):
    """One order of the life, and what is true after it."""

    operation: str
    sho_id: str
    first: ContainerState | None  # state of the first MCIM in the TRE
    second: ContainerState | None  # of the one that replaces it
    subscriptions: tuple[str, str]  # at the first and the second home operator


LIFE = (
    Stage("install", SHO_ID, ContainerState.ACTIVATED, None, ("armed", "free")),
    Stage("update", SHO_ID, ContainerState.ACTIVATED, None, ("armed", "free")),
    Stage("suspend", SHO_ID, ContainerState.SUSPENDED, None, ("suspended", "free")),
    Stage("activate", SHO_ID, ContainerState.ACTIVATED, None, ("armed", "free")),
    Stage("replace", OTHER_SHO, ContainerState.SUSPENDED, ContainerState.ACTIVATED, ("armed", "armed")),
    Stage("delete", SHO_ID, None, ContainerState.ACTIVATED, ("closed", "armed")),
)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def parties(pki: Pki, tmp_path: Path) -> AsyncIterator[Chain]:
    async with chain(pki, tmp_path) as made:
        yield made


Hook = Callable[[int, str], None]


def nothing(_parties: Chain) -> Hook:
    return lambda _number, _when: None


async def live(parties: Chain, breaks: Callable[[Chain], Hook] = nothing) -> list[Order]:
    """All stages one after the other, each broken anew; the orders as they ended."""
    orders: list[Order] = []
    for stage in LIFE:
        first = orders[0].mcim_id if orders else None
        if stage.operation == "update":
            await plan_new_keys(parties)
        terms = {"replaces": first} if stage.operation == "replace" else {}
        target = first if stage.operation in ("update", "suspend", "activate", "delete") else None
        order_id = await parties.order(stage.operation, stage.sho_id, mcim_id=target, **terms)
        parties.wire.begin(breaks(parties))
        order = await settle(parties, order_id)
        told = f"{stage.operation}: {order.state} {order.detail}"
        assert order.state is OrderState.CLOSED, told
        assert parties.wire.set_off() == 1, told
        orders.append(order)
        second = orders[4].mcim_id if len(orders) > 4 else None
        assert (parties.mcim(orders[0].mcim_id), parties.mcim(second)) == (stage.first, stage.second), told
        at_the_shos = tuple([await parties.subscription(sho_id) for sho_id in (SHO_ID, OTHER_SHO)])
        assert at_the_shos == stage.subscriptions, told
    return orders


async def settle(parties: Chain, order_id: str) -> Order:
    """The device comes, or starts again and comes, until the order is over."""
    for _ in range(8):
        try:
            order = await parties.settle(order_id, visits=1)
        except PowerCut:
            parties.power_up()
            await parties.dpf.conductor.tidy()
            order = parties.dpf.order(order_id)
        if order.state in (OrderState.CLOSED, OrderState.REFUSED):
            return order
    return parties.dpf.order(order_id)


async def plan_new_keys(parties: Chain) -> None:
    sho = parties.shos[SHO_ID]
    values = NewValues(
        sealed=sho.vault.seal(NEW),
        imsi_mask=NEW.imsi_mask,
        amf=b"\x80\x00",
        policy=None,
        changes=frozenset({"keys", "imsi"}),
    )
    await sho.store.write(lambda c: updates.plan(c, repository.get_subscription(c, 1), values, now=parties.clock()))


async def test_req70_the_whole_life_without_a_break(parties: Chain):
    """REQ-16, REQ-67 to REQ-70: install, update, suspend, activate, replace, delete; each is done once and proved."""
    orders = await live(parties)
    assert parties.dpf.checks(passed=False) == []
    reports = [ask for ask in parties.partners.asked if isinstance(ask, TellSho)]
    assert [ask.order_id for ask in reports] == [order.order_id for order in orders]
    assert {ask.result for ask in reports} == {1200}


# --- breaks ---------------------------------------------------------------------------------------------------------


def once(number: int, when: str, what: Callable[[Chain], None]) -> Callable[[Chain], Hook]:
    """`what` at one exchange of every order."""

    def breaks(parties: Chain) -> Hook:
        done = False

        def hook(exchange: int, moment: str) -> None:
            nonlocal done
            if (exchange, moment) == (number, when) and not done:
                done = True
                what(parties)

        return hook

    return breaks


def lose(_parties: Chain) -> None:
    raise TransportFailed("the answer got lost")


def restart(parties: Chain) -> None:
    parties.dpf.restart()


def cut(parties: Chain) -> None:
    parties.dpf.restart()
    raise PowerCut


BREAKS = {
    "the answer is lost": ("after", lose),
    "the DPF starts again": ("before", restart),
    "the power is cut everywhere": ("after", cut),
}


EXCHANGES = range(1, 14)  # of the device, until an order is done without a break
PLACES = [
    (kind, number)
    for number in EXCHANGES
    for turn, kind in enumerate(BREAKS)
    if (number + turn) % 3 == 0 or number == 10
]  # each exchange with one kind; in the tenth an update is whole on the device, and the device does not know it


@pytest.mark.parametrize(("kind", "number"), PLACES)
async def test_req16_a_break_at_every_exchange(parties: Chain, kind: str, number: int):
    """REQ-16, flows F7: whatever breaks at that exchange of every order, each is carried out once and closed."""
    await live(parties, once(number, *BREAKS[kind]))


@pytest.mark.parametrize("kind", [AskChallenge, AskTicket, AskPackage, TellSho], ids=lambda each: each.__name__)
async def test_req16_a_partner_is_asked_again(parties: Chain, kind: type[Ask]):
    """REQ-16, REQ-67: the partner acted and its answer got lost; asked again, or told twice, it does nothing twice."""
    lost: set[str] = set()

    def loses(ask: Ask) -> bool:
        order_id = ask.order_id
        if not isinstance(ask, kind) or order_id in lost:
            return False
        lost.add(order_id)
        return True

    parties.partners.loses = loses
    orders = await live(parties)
    assert lost == {order.order_id for order in orders}
