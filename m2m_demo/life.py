"""A device that lives with its MCIM, and what is asked of it and of those who speak of it.

The device waits with `dmclient listen`; the DPF calls it with package 0 when a home operator has an order for it.
"""

from __future__ import annotations

import json
import secrets
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from m2m_demo.course import attached, start
from m2m_demo.errors import DemoFailed
from m2m_demo.play import Show
from m2m_demo.processes import Process
from m2m_demo.stage import M2ME_ID, Stage
from m2m_demo.world import HOST, SHO2_ID, TomlValue

SECOND: Final = "sho2"
REFUSED: Final = 2  # exit status of `dmclient attach`
NOWHERE: Final = 9  # port of an access listener that is down
OVER: Final = frozenset({"CLOSED", "REFUSED", "EXPIRED"})


class Life:
    """A device with its first MCIM, and what is asked of it and of those who speak of it."""

    def __init__(self, stage: Stage, show: Show) -> None:
        self.stage = stage
        self.show = show
        self.device: Process | None = None
        self.mcim = ""

    # --- what happens -------------------------------------------------------------------------------------------------

    def begin(
        self,
        *,
        two_operators: bool = False,
        second_network: bool = True,
        arrange: Callable[[], None] = lambda: None,
    ) -> None:
        """Provision an MCIM with keys that are known to us, then let the device wait for calls.

        Args:
            two_operators: there is a second home operator.
            second_network: its network answers.
            arrange: called when everything runs and the device waits for its bootstrap.
        """
        stage, show = self.stage, self.show
        with show.part("setUp", "Making keys, certificates, a device and a subscription"):
            stage.set_up(subscriptions=self.write_keys("first.csv"))
            if two_operators:
                self._add_operator(self.write_keys("other.csv", imsi="001020000000002"))
                if not second_network:
                    stage.ports[SECOND]["network"] = NOWHERE
        device = start(stage, show)
        arrange()
        with show.part("provisioning", "Provisioning"):
            stage.bootstrap()
            attached(stage, show, device)
        self.mcim = str(show.report.mcim_id)
        self.listen()

    def _add_operator(self, subscriptions: Path) -> None:
        """A second home operator with keys, settings and a database of its own; it runs from here on."""
        stage, world, supervisor = self.stage, self.stage.world, self.stage.supervisor
        pki = world.pki / SECOND
        hosts = ("--host", SHO2_ID, "--host", "localhost", "--host", HOST)
        stage.authority("issue", "tls", str(world.pki), "--out", str(pki), *hosts)
        stage.authority("issue", "sho", str(world.pki), "--out", str(pki), "--identity", SHO2_ID)
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

    def order(
        self,
        what: str,
        *terms: str,
        sho: str = "sho",
        until: str = "CLOSED",
        reach: Callable[[], None] = lambda: None,
    ) -> str:
        """A home operator orders something; the DPF calls the device, and the order must end as said.

        Args:
            what: for the reader.
            terms: options of `sho order open`.
            sho: the home operator.
            until: the state of the order at its end.
            reach: how the device hears of it, where the DPF does not call it by itself: for a first MCIM.

        Raises:
            DemoFailed: the order ends in another state.
        """
        stage = self.stage
        with self.show.part(what, f"{sho.upper()}: {what.replace('-', ' ')}"):
            order_id = stage.open_order(*terms, sho=sho)
            reach()
            stage.follow(self.show.tell, until=lambda: self._seen(order_id) in OVER | {until})
        state = self._seen(order_id)
        require(state == until, f"the order for {what} is {state}")
        return order_id

    def command(self, operation: str, *, until: str = "CLOSED", sho: str = "sho", mcim: str = "") -> str:
        """An order about an MCIM that is there."""
        return self.order(operation, "--operation", operation, "--mcim", mcim or self.mcim, sho=sho, until=until)

    def passed(self, actor: str, name: str) -> bool:
        """Whether a check of an actor was passed."""
        return any((r.actor, r.name, r.passed) == (actor, name, True) for r in self.show.report.records)

    def _seen(self, order_id: str) -> str:
        """State that the DPF's trail told last."""
        told, of = self.show.report.records, ("DPF", "state", "order", order_id)
        return next((r.new for r in reversed(told) if (r.actor, r.kind, r.subject, r.order) == of), "")

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
        told = self.device_command("attach", refused=not accepted)
        require((told["result"] == "attached") is accepted, f"the device's attach ended: {told['reason']}")

    def card(self, keys: Path, *, accepted: bool) -> None:
        """A card that has these keys attaches; it must be let in or not."""
        result = self.stage.card("sho", "--subscription", str(keys))
        self.show.rest(self.stage)
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
        stage.notify()
        shown = world.json_command("dpf", "device", M2ME_ID, "show", request, "--wait", "--wait-s", "20")
        answer = json.loads(stage.supervisor.command("by-hand", shown, expect=None))
        self.show.rest(stage)
        return dict(answer["commands"][0])

    def device_command(self, *arguments: str, refused: bool = False) -> dict[str, Any]:
        """What a command at the device's terminal says as JSON; it must be carried out, or refused."""
        stage, name = self.stage, "-".join(arguments[:2])
        argv = stage.world.command("m2me", *arguments, "--json")
        said = json.loads(stage.supervisor.command(name, argv, expect=REFUSED if refused else 0))
        self.show.rest(stage)
        return dict(said)

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
