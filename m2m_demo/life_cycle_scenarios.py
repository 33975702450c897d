"""What becomes of an MCIM once a device has it: suspended, updated, deleted, replaced, and the keys of its TRE.

The device waits with `dmclient listen`; the DPF calls it with package 0 when a home operator has an order for it.
"""

from __future__ import annotations

import json
import secrets
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from m2m_demo.course import attached, start
from m2m_demo.errors import DemoFailed
from m2m_demo.play import Play, Show
from m2m_demo.processes import Process
from m2m_demo.stage import M2ME_ID, Stage
from m2m_demo.world import HOST, SHO2_ID, TomlValue
from mcim.vocabulary import ResultCode

SECOND: Final = "sho2"
REFUSED: Final = 2  # exit status of `dmclient attach`
NOWHERE: Final = 9  # port of an access listener that is down
OVER: Final = frozenset({"CLOSED", "REFUSED", "EXPIRED"})


class Life:
    """A device with its first MCIM, and what is asked of it and of those who speak of it."""

    def __init__(self, stage: Stage, show: Show) -> None:
        self.stage = stage
        self.show = show
        self.ended: dict[str, str] = {}  # order → the state it ended in
        self.device: Process | None = None
        self.mcim = ""

    # --- what happens -------------------------------------------------------------------------------------------------

    def begin(self, *, two_operators: bool = False, second_network: bool = True) -> None:
        """Provision an MCIM with keys that are known to us, then let the device wait for calls."""
        stage, show = self.stage, self.show
        with show.part("setUp", "Making keys, certificates, a device and a subscription"):
            stage.set_up(subscriptions=self.write_keys("first.csv"))
            if two_operators:
                self._add_operator(self.write_keys("other.csv", imsi="001020000000002"))
                if not second_network:
                    stage.ports[SECOND]["network"] = NOWHERE
        device = start(stage, show)
        with show.part("provisioning", "Provisioning"):
            stage.bootstrap()
            attached(stage, show, device)
        self.mcim = str(show.report.mcim_id)
        self.listen()

    def _add_operator(self, subscriptions: Path) -> None:
        """A second home operator with keys, settings and a database of its own; it runs from here on."""
        stage, world, supervisor = self.stage, self.stage.world, self.stage.supervisor
        pki = world.pki / SECOND
        argv = [sys.executable, "-m", "m2m_ca", "issue"]
        hosts = ("--host", SHO2_ID, "--host", "localhost", "--host", HOST)
        supervisor.command("ca-tls", [*argv, "tls", str(world.pki), "--out", str(pki), *hosts])
        supervisor.command("ca-sho", [*argv, "sho", str(world.pki), "--out", str(pki), "--identity", SHO2_ID])
        settings = tomllib.loads(world.settings("sho").read_text(encoding="utf-8"))
        own: dict[str, TomlValue] = {
            "sho_id": SHO2_ID,
            "ready_file": world.ready(SECOND),
            "trace_file": world.trace(SECOND),
            "database_url": f"sqlite:///{world.home(SECOND) / 'data.sqlite'}",
            "seal_key": world.home(SECOND) / "seal.key",
            "tls_cert": pki / "tls.crt",
            "tls_key": pki / "tls.key",
            "signing_cert": pki / "signing.crt",
            "signing_key": pki / "signing.key",
        }
        world.write_settings(SECOND, settings | own)
        supervisor.command("import", world.command(SECOND, "subscription", "import", str(subscriptions)))
        stage.operators[SECOND] = SHO2_ID
        stage.wait_ready(stage.start(SECOND))

    def release(self) -> Path:
        """The first home operator lets the second one take the place of its MCIM."""
        token = self.stage.world.root / "release.token"
        argv = ("release", "--mcim", self.mcim, "--tre", self.stage.device_info()["treId"], "--to", SHO2_ID)
        self.stage.supervisor.command("release", self.stage.world.command("sho", *argv, "--out", str(token)))
        return token

    def replace(self, token: Path, *, until: str = "CLOSED") -> str:
        """The second home operator orders its MCIM in the place of the first; the order."""
        terms = ("--operation", "replace", "--replaces", self.mcim, "--release-token", str(token))
        return self.order("replace", *terms, sho=SECOND, until=until)

    def write_keys(self, name: str, *, imsi: str = "001010000000001") -> Path:
        """Keys of a subscription, for the home operator and for a card that has them, too."""
        path = self.stage.world.root / name
        path.write_text(f"imsi,k,opc\n{imsi},{secrets.token_hex(16)},{secrets.token_hex(16)}\n", encoding="ascii")
        path.chmod(0o600)
        return path

    def listen(self) -> None:
        """The device waits for calls."""
        self.device = self.stage.listen()

    def rest(self) -> None:
        """The device sleeps, so that commands at its terminal have its memory to themselves."""
        if self.device is not None:
            self.stage.supervisor.stop(self.device)
            self.device = None
        self.show.rest(self.stage)

    def order(self, what: str, *terms: str, sho: str = "sho", until: str = "CLOSED") -> str:
        """A home operator orders something; the DPF calls the device, and the order must end as said.

        Raises:
            DemoFailed: it does not.
        """
        stage = self.stage
        with self.show.part(what, f"{sho.upper()}: {what.replace('-', ' ')}"):
            order_id = stage.open_order(*terms, sho=sho)
            stage.follow(self.show.tell, until=lambda: self._seen(order_id) in OVER | {until})
        found = stage.order(order_id)
        require(found["state"] == until, f"the order for {what} is {found['state']}: {found['detail']}")
        return order_id

    def command(self, operation: str, *, until: str = "CLOSED", sho: str = "sho", mcim: str = "") -> str:
        """An order about an MCIM that is there."""
        return self.order(operation, "--operation", operation, "--mcim", mcim or self.mcim, sho=sho, until=until)

    def passed(self, actor: str, name: str) -> bool:
        """Whether a check of an actor was passed."""
        return any((r.actor, r.name, r.passed) == (actor, name, True) for r in self.show.report.records)

    def _seen(self, order_id: str) -> str:
        """State that the DPF's trail told last."""
        records = self.show.report.records
        states = (r.new for r in reversed(records) if (r.kind, r.subject, r.order) == ("state", "order", order_id))
        return next(states, "")

    # --- what is asked ------------------------------------------------------------------------------------------------

    def mcims(self) -> dict[str, str]:
        """The device's MCIMs → their states."""
        return {each["mcimId"]: each["state"] for each in self._rows("m2me", "mcim", "list")}

    def subscription(self, mcim: str = "", sho: str = "sho") -> str | None:
        """State of the subscription behind an MCIM, as its operator tells."""
        rows = self._rows(sho, "subscription", "list")
        return next((row["state"] for row in rows if row["mcimId"] == (mcim or self.mcim)), None)

    def _rows(self, actor: str, *command: str) -> list[dict[str, Any]]:
        """Rows that a command of an actor lists."""
        output = self.stage.supervisor.command("-".join(command), self.stage.world.command(actor, *command, "--json"))
        return list(json.loads(output))

    def attach(self, *, accepted: bool = True) -> None:
        """The device attaches with what it has in use; it must be let in or not."""
        argv = self.stage.world.command("m2me", "attach", "--json")
        told = json.loads(self.stage.supervisor.command("attach", argv, expect=0 if accepted else REFUSED))
        self.show.rest(self.stage)
        require((told["result"] == "attached") is accepted, f"the device's attach ended: {told['reason']}")

    def card(self, keys: Path, *, accepted: bool) -> None:
        """A card that has these keys attaches; it must be let in or not."""
        stage = self.stage
        argv = [
            sys.executable, "-m", "m2m_demo.card", "--subscription", str(keys),
            "--network", stage.url("sho", "network"),
            "--ca", str(stage.world.anchors("tls")),
        ]  # fmt: skip
        result = json.loads(stage.supervisor.command("card", argv))["result"]
        self.show.rest(stage)
        require((result == "attached") is accepted, f"a card with {keys.stem} keys was told: {result}")

    def dpf_deletes(self, uri: str) -> int:
        """Status that the device gives to a Delete of the DPF's operator, without any order."""
        return int(self._by_hand("delete", uri)["code"])

    def dpf_reads(self, uri: str) -> str:
        """A value of the device's tree, as the DPF's operator sees it."""
        return str(self._by_hand("get", uri)["results"][0]["value"])

    def _by_hand(self, command: str, uri: str) -> dict[str, Any]:
        """Queue a command of the DPF's operator, call the device, wait for what came of it."""
        stage, world = self.stage, self.stage.world
        stage.supervisor.command("managed", world.command("dpf", "devices", "set", M2ME_ID, "--managed"))
        queued = stage.supervisor.command("queue", world.json_command("dpf", "device", M2ME_ID, command, uri))
        request = str(json.loads(queued)["id"])
        port = stage.ports["m2me"]["bootstrap"]
        stage.supervisor.command("notify", world.command("dpf", "notify", M2ME_ID, "--udp", f"{HOST}:{port}"))
        shown = world.json_command("dpf", "device", M2ME_ID, "show", request, "--wait", "--wait-s", "20")
        answer = json.loads(stage.supervisor.command("by-hand", shown, expect=None))
        self.show.rest(stage)
        return dict(answer["commands"][0])

    def refusal(self, actor: str, name: str) -> None:
        """An actor must have refused by that check, last of all it refused."""
        refused = [(each.actor, each.name) for each in self.show.report.refusals()]
        require(refused[-1:] == [(actor, name)], f"the last refusal is {refused[-1:]}, not {actor}: {name}")


def require(seen: bool, otherwise: str) -> None:
    """What a scenario shows must have been seen.

    Raises:
        DemoFailed: it was not.
    """
    if not seen:
        raise DemoFailed(otherwise)


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
    """The new home operator's network does not answer: the device goes back to its former MCIM (mo-design §6.6)."""
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
