"""What becomes of an MCIM once a device has it: suspended, updated, deleted, replaced."""

from __future__ import annotations

from typing import Final

from m2m_demo.life import SECOND, Life, require
from m2m_demo.play import Play, Show
from m2m_demo.stage import Stage
from m2m_demo.world import SHO2_ID, SHO_ID
from mcim.vocabulary import ResultCode


def suspend_and_activate(stage: Stage, show: Show) -> str:
    """The home operator takes an MCIM out of use and back into it (REQ-70)."""
    life = Life(stage, show)
    life.begin()
    life.command("suspend")
    require(life.mcims() == {life.mcim: "suspended"}, "the device does not say that its MCIM is suspended")
    require(life.subscription() == "suspended", "the home operator does not say that the subscription is suspended")
    life.rest()
    show.say("The TRE attaches no more, and neither would a card with the same keys:")
    life.attach(accepted=False)
    life.card(stage.world.root / "first.csv", accepted=False)
    life.refusal("SHO", "subscription-armed")
    life.listen()
    life.command("activate")
    require(life.mcims() == {life.mcim: "activated"}, "the device does not say that its MCIM is activated")
    require(life.subscription() == "armed", "the home operator does not say that the subscription is armed")
    life.rest()
    life.attach()
    return "suspended, refused by TRE and network, activated, attached"


def update(stage: Stage, show: Show) -> str:
    """The home operator gives an MCIM new keys; the old ones are worth nothing from then on (REQ-70)."""
    life = Life(stage, show)
    life.begin()
    new = life.write_keys("second.csv")
    stage.supervisor.command(
        "update", stage.world.command("sho", "subscription", "update", life.mcim, "--file", str(new))
    )
    life.command("update")
    show.say("The network knows the new keys and no others:")
    life.card(stage.world.root / "first.csv", accepted=False)
    life.refusal("SHO", "aka-response")
    life.card(new, accepted=True)
    life.rest()
    life.attach()
    require(life.mcims() == {life.mcim: "activated"}, "the device does not say that its MCIM is activated")
    return "updated, attached with the new keys; the old ones are refused by the network"


def delete(stage: Stage, show: Show) -> str:
    """An MCIM is destroyed by its home operator's signature, and by nothing else (REQ-57, REQ-70)."""
    life = Life(stage, show)
    life.begin()
    container = f"./M2MSIMMobj/{life.mcim[:8]}"
    show.say("The DPF tries it by itself:")
    status = life.dpf_deletes(container)
    require(status == 405, f"Delete of {container} by the DPF alone has Status {status}")
    require(life.mcims() == {life.mcim: "activated"}, "the device's MCIM is not as it was")
    life.command("delete")
    require(life.mcims() == {}, "the device still has its MCIM")
    require(life.subscription() == "closed", "the home operator does not say that the subscription is closed")
    state = life.dpf_reads(f"{container}/State")
    require(state == "60", f"the container's state is {state}, not deleted")
    life.rest()
    show.say("Neither the device nor a card with the same keys is let in:")
    life.attach(accepted=False)
    life.card(stage.world.root / "first.csv", accepted=False)
    life.refusal("SHO", "subscription-armed")
    return "refused to the DPF with 405, deleted by the home operator's command; subscription closed"


def fall_back(stage: Stage, show: Show) -> str:
    """The new home operator's network does not answer: the device goes back to its former MCIM (flows F6)."""
    life = Life(stage, show)
    life.begin(two_operators=True, second_network=False)
    order = stage.order(life.replace(life.release(), until="REFUSED"))
    require(order["result"] == ResultCode.FELL_BACK, f"the order's result is {order['result']}")
    states = life.mcims()
    new = next((mcim for mcim in states if mcim != life.mcim), "")
    require(states == {life.mcim: "activated", new: "suspended"}, f"the device's MCIMs are {states}")
    require(life.subscription() == "armed", "the old home operator does not say that its subscription is armed")
    require(
        life.subscription(new, SECOND) == "fell-back", "the new home operator does not say that the device fell back"
    )
    life.rest()
    life.attach()
    return "fell back to the old MCIM with receipt 1426, attached with it; the new one is not armed"


def change_of_sho(stage: Stage, show: Show) -> str:
    """A subscriber goes to another home operator: make before break, with the old one's release (REQ-70)."""
    life = Life(stage, show)
    life.begin(two_operators=True)
    show.say(f"SHO is {SHO_ID}, SHO2 is {SHO2_ID}; it takes over:")
    life.replace(life.release())
    states = life.mcims()
    new = next((mcim for mcim in states if mcim != life.mcim), "")
    require(states == {life.mcim: "suspended", new: "activated"}, f"the device's MCIMs are {states}")
    require(life.subscription(new, SECOND) == "armed", "the new home operator does not say that its MCIM is armed")
    show.say("The device is attached at the new operator; its MCIM of the old one is destroyed now:")
    life.command("delete", sho=SECOND)
    require(life.mcims() == {new: "activated"}, "the device still has its former MCIM")
    stage.follow(show.tell, until=lambda: life.passed("SHO", "delete-by-the-released-sho"), timeout_s=20)
    require(life.subscription() == "closed", "the old home operator does not say that its subscription is closed")
    life.rest()
    life.attach()
    life.card(stage.world.root / "first.csv", accepted=False)
    life.refusal("SHO", "subscription-armed")
    return "replaced, attached at the new operator, the old MCIM deleted and its subscription closed"


LIFE_CYCLE: Final = (
    Play(
        name="suspend-and-activate",
        title="The home operator suspends an MCIM: no attach. It activates it: attached.",
        perform=suspend_and_activate,
    ),
    Play(
        name="update",
        title="The home operator gives an MCIM new keys; the old ones serve nobody any more.",
        perform=update,
    ),
    Play(
        name="delete",
        title="The DPF alone cannot delete an MCIM; its home operator's command does.",
        perform=delete,
    ),
    Play(
        name="change-of-sho",
        title="Another home operator takes over, with the old one's release; the old MCIM goes last.",
        perform=change_of_sho,
    ),
    Play(
        name="fall-back",
        title="The new operator's network does not answer; the device falls back to its old MCIM.",
        perform=fall_back,
    ),
)
