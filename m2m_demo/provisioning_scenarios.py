"""Scenarios in which something of the provisioning goes another way than in the first one."""

from __future__ import annotations

import json
from typing import Any, Final

from m2m_demo.cast import Cast
from m2m_demo.course import attached, go_on, note_processes, provision, seen_by_both, set_up
from m2m_demo.errors import DemoFailed
from m2m_demo.play import Play, Show
from m2m_demo.report import ATTACHED
from m2m_demo.stage import M2ME_ID, TOKEN_FILE, Stage
from m2m_demo.trace import Record
from mcim.vocabulary import ValidationMode

LATER_S: Final = 1.5  # seconds that the home operator takes for a package, in the scenario that shows it


def require(condition: bool, what: str) -> None:
    """What a scenario is there to show must have been seen.

    Raises:
        DemoFailed: it was not.
    """
    if not condition:
        raise DemoFailed(f"it was not seen that {what}")


def checks(show: Show, actor: str, name: str) -> list[Record]:
    """Checks of that name which passed."""
    return [
        each
        for each in show.report.records
        if each.kind == "check" and each.passed and (each.actor, each.name) == (actor, name)
    ]


def states(show: Show, actor: str, subject: str) -> list[str]:
    """States of something, from the first to the last."""
    found = [each for each in show.report.records if (each.kind, each.actor, each.subject) == ("state", actor, subject)]
    return [each.old for each in found[:1]] + [each.new for each in found]


def messages(show: Show, direction: str, part: str) -> list[Record]:
    """Messages with these words."""
    return [
        each
        for each in show.report.records
        if each.kind == "message" and each.direction == direction and part in each.summary
    ]


def asked(stage: Stage, actor: str, *arguments: str) -> Any:  # noqa: ANN401 (JSON of a command)
    """What a command of an actor prints as JSON."""
    command = stage.world.json_command if actor == "dpf" else stage.world.command
    return json.loads(stage.supervisor.command("-".join((actor, *arguments[:2])), command(actor, *arguments)))


# --- how the platform is validated ------------------------------------------------------------------------------------


def _remote_validation(stage: Stage, show: Show) -> str:
    """What the device measured is in its log; the TPM's quote says that nothing was left out."""
    provision(stage, show)
    decision = _decision(stage, "remote")
    names = {each["name"] for each in decision["checks"] if each["passed"]}
    bound = {"quote-present", "log-replay"} if stage.cast.tre == "tpm" else {"log-digest"}
    expected = bound | {"measurements-known", "measurement-values", "measurements-complete"}
    require(expected <= names, f"the PVA checked {', '.join(sorted(expected - names))}")
    return ATTACHED


def _autonomous_validation(stage: Stage, show: Show) -> str:
    """The TRE validated itself at its start; its certificates are all the PVA goes by."""
    provision(stage, show)
    decision = _decision(stage, "autonomous")
    names = {each["name"] for each in decision["checks"] if each["passed"]}
    require("no-evidence-without-challenge" in names, "the PVA was shown no evidence")
    return ATTACHED


def _decision(stage: Stage, mode: str) -> dict[str, Any]:
    """The PVA's decision on the device, with its checks."""
    rows = asked(stage, "pva", "decision", "list", "--trusted", "--json")
    found = [each["id"] for each in rows if each["mode"] == mode]
    require(len(found) == 1, f"the PVA trusts the platform in {mode} mode")
    return dict(asked(stage, "pva", "decision", "show", str(found[0])))


# --- when the package is made -----------------------------------------------------------------------------------------


def _prepared(stage: Stage, show: Show) -> str:
    """The home operator encrypts the MCIM for the TRE before the device was ever switched on."""
    set_up(stage, show)
    certificates = stage.world.home("m2me") / "certificates"
    with show.part("preparation", "The home operator prepares an object for a device that nobody has seen yet"):
        register = [
            "platform", "register",
            "--certificate", str(certificates / "platform.crt"), "--chain", str(certificates / "chain.pem"),
        ]  # fmt: skip
        stage.supervisor.command("platform-register", stage.world.command("sho", *register))
        lines = stage.supervisor.command(
            "prepare-start", stage.world.command("sho", "prepare", "start", "--all", "--json")
        ).splitlines()
        require(json.loads(lines[-1])["prepared"] == 1, "an object was prepared")
    go_on(stage, show)
    require(bool(messages(show, "SHO→DPF", "object prepared before")), "the prepared object was used")
    require("prepared" in states(show, "SHO", "subscription"), "the subscription was the prepared one")
    return ATTACHED


def _two_phase(stage: Stage, show: Show) -> str:
    """The home operator takes its time; the device sleeps, and is called when the package is there."""
    stage.extra["sho"] = {"answer": "later", "later_delay_s": LATER_S}
    set_up(stage, show)
    with show.part("start", "Starting PVA, SHO, DPF and M2ME"):
        stage.start_servers()
        device = stage.listen()
        order = stage.open_order()
    note_processes(stage, show)
    with show.part("provisioning", "Provisioning"):
        stage.bootstrap()
        stage.follow(show.tell, until=lambda: "CLOSED" in states(show, "DPF", "order"))
    stage.supervisor.stop(device)
    require(device.exit_code() == 0, "the device ended as it was told to")
    require(stage.order(order)["state"] == "CLOSED", "the order came to its end")
    seen_by_both(stage, show)
    calls = messages(show, "DPF→M2ME", "package 0")
    late = checks(show, "DPF", "late-package")
    delivery = messages(show, "M2ME→DPF", "#1 Alert 1200")
    require(bool(late), "the package came to the DPF in a call of its own")
    require(any(late[0].ts <= call.ts for call in calls), "the DPF called the device after that")
    require(any(call.ts <= first.ts for call in calls for first in delivery), "the device came because it was called")
    return ATTACHED


# --- from the factory -------------------------------------------------------------------------------------------------


def _initial_access(stage: Stage, show: Show) -> str:
    """Nobody knows where the device is until it attaches with its provisional identity and registers."""
    stage.registrar = True
    set_up(stage, show)
    require(_provisional(stage) is not None, "the device has a provisional identity from the factory")
    with show.part("start", "Starting PVA, SHO, DPF, RO and M2ME"):
        stage.start_servers()
        device = stage.start_device()
    note_processes(stage, show)
    with show.part("provisioning", "First attach, registration and provisioning"):
        attached(stage, show, device)
    orders = asked(stage, "dpf", "order", "list")
    require([each["state"] for each in orders] == ["CLOSED"], "one order was opened, and came to its end")
    (registration,) = asked(stage, "ro", "registration", "list", "--json")
    require(registration["order"] == orders[0]["orderId"], "the order came from the device's own registration")
    require(registration["state"] == "bootstrapped", "the registration operator asked for the bootstrap")
    require(bool(checks(show, "M2ME", "pcid-network-authentic")), "the first network proved itself to the device")
    require(_provisional(stage) is None, "the provisional identity is destroyed after the operational attach")
    return ATTACHED


def _gated_access(stage: Stage, show: Show) -> str:
    """The registration operator gives no authentication vector before the PVA vouches for the platform."""
    stage.extra["ro"] = {"validation_gates_attach": True}
    _initial_access(stage, show)
    gate = checks(show, "RO", "platform-validated-before-vectors")
    vectors = messages(show, "RO→VNO", "authentication vector")
    require(bool(gate and vectors) and gate[0].seq < vectors[0].seq, "validation came before the first vector")
    return ATTACHED


def _provisional(stage: Stage) -> str | None:
    """Until when the device's provisional identity is good; None: it has none."""
    until = stage.device_info()["provisionalUntil"]
    return None if until is None else str(until)


# --- what the device is and what it gets ------------------------------------------------------------------------------


def _uicc(stage: Stage, show: Show) -> str:
    """A card takes CMS and no XML; it is made by the same code of the home operator."""
    provision(stage, show)
    (order,) = asked(stage, "dpf", "order", "list")
    require(stage.order(order["orderId"])["packaging"] == "cms", "the package is CMS")
    require([each.detail for each in checks(show, "SHO", "container")] == ["cms"], "the home operator chose CMS")
    return ATTACHED


def _tuak(stage: Stage, show: Show) -> str:
    """Another algorithm for the network's authentication, and the scheme stays as it is."""
    provision(stage, show)
    (subscription,) = asked(stage, "sho", "subscription", "list", "--json")
    require(subscription["algorithm"] == stage.cast.algorithm, f"the subscription is {stage.cast.algorithm}")
    return ATTACHED


def _device_token(stage: Stage, show: Show) -> str:
    """The subscriber read the token off the label and gave it to the home operator of his choice."""
    stage.extra["m2me"] = {"tre": {"device_token_file": stage.world.home("m2me") / TOKEN_FILE}}
    set_up(stage, show)
    with show.part("token", "The subscriber gives the device's token to the home operator"):
        file = stage.world.home("sho") / TOKEN_FILE
        give = stage.world.command("sho", "token", "set", "--m2me-id", M2ME_ID, "--file", str(file))
        stage.supervisor.command("token-set", give)
    go_on(stage, show)
    (package,) = asked(stage, "sho", "package", "list", "--json")
    made = asked(stage, "sho", "package", "show", str(package["id"]), "--json")
    require(made["tokenRef"] is not None, "the token is in the package")
    require(bool(checks(show, "M2ME", "device-token")), "the TRE found its token in the package")
    tokens = asked(stage, "sho", "token", "list", "--json")
    require(tokens == [], "the home operator keeps the token no longer than it is needed")
    return ATTACHED


PROVISIONING: Final[tuple[Play, ...]] = (
    Play(
        name="remote-validation",
        title="The PVA compares what the device measured at its start, and a TPM's quote proves the log.",
        perform=_remote_validation,
        cast=Cast(tre="tpm", validation=ValidationMode.REMOTE),
    ),
    Play(
        name="autonomous-validation",
        title="The TRE validates itself, and its certificates are all that the PVA goes by.",
        perform=_autonomous_validation,
        cast=Cast(validation=ValidationMode.AUTONOMOUS),
    ),
    Play(
        name="prepared",
        title="The home operator encrypted the MCIM for the device before the device was switched on.",
        perform=_prepared,
    ),
    Play(
        name="two-phase",
        title="The home operator answers later; the device is called back when its package is there.",
        perform=_two_phase,
    ),
    Play(
        name="initial-access",
        title="The device leaves the factory with a PCID, attaches, registers, and is provisioned.",
        perform=_initial_access,
    ),
    Play(
        name="gated-access",
        title="The same, and the PVA has to vouch for the platform before the first attach.",
        perform=_gated_access,
    ),
    Play(
        name="uicc",
        title="The TRE is a card: the MCIM comes as CMS instead of XML.",
        perform=_uicc,
        cast=Cast(tre_type="uicc"),
    ),
    Play(
        name="tuak",
        title="The subscription authenticates with TUAK instead of MILENAGE.",
        perform=_tuak,
        cast=Cast(algorithm="tuak256"),
    ),
    Play(
        name="device-token",
        title="The TRE takes only packages with the token that stands on the device's label.",
        perform=_device_token,
    ),
)
