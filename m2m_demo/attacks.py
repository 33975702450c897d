"""The attacks: each tries one thing that must not work, and names the check that refuses it."""

from __future__ import annotations

from typing import Final

from m2m_demo.errors import DemoFailed
from m2m_demo.play import Play, Show
from m2m_demo.scenarios import start
from m2m_demo.stage import SECRET_FILE, Stage

REFUSED: Final = 2  # exit status of `dmclient run`


def refused(stage: Stage, show: Show) -> str:
    """Play on to the end of the device's run, which must be a refusal with nothing provisioned.

    Raises:
        DemoFailed: the device attached, or has an MCIM.
    """
    device = start(stage, show)
    with show.part("attack", "The attack"):
        stage.bootstrap()
        code, reason = show.until_ended(stage, device)
    if code == 0 or show.report.attached:
        raise DemoFailed("the device attached all the same")
    if stage.device_info()["mcims"]:
        raise DemoFailed("an MCIM was installed all the same")
    return reason


def _untrusted_platform(stage: Stage, show: Show) -> str:
    stage.set_up(trusted_version="0.9")
    return refused(stage, show)


def _forged_bootstrap(stage: Stage, show: Show) -> str:
    stage.set_up()
    (stage.world.home("m2me") / SECRET_FILE).write_text("0" * 32 + "\n")
    with show.part("start", "Starting PVA, SHO, DPF and M2ME"):
        stage.start_servers()
        stage.open_order()
        stage.bootstrap(file=stage.world.root / "bootstrap.bin")
        device = stage.start_device("--bootstrap-file", str(stage.world.root / "bootstrap.bin"))
    code, reason = show.until_ended(stage, device)
    if code != REFUSED:
        raise DemoFailed(f"the device ended with status {code}: {reason}")
    return reason


def _another_operator(stage: Stage, show: Show) -> str:
    stage.chosen_sho = "other.m2m.example"
    stage.set_up()
    return refused(stage, show)


ATTACKS: Final[tuple[Play, ...]] = (
    Play(
        name="forged-bootstrap",
        title="Somebody who does not know the supplier's secret bootstraps the device.",
        perform=_forged_bootstrap,
        threat="T5",
        refused_by="M2ME bootstrap-mac",
    ),
    Play(
        name="untrusted-platform",
        title="A TRE whose version is not among the reference values asks for a subscription.",
        perform=_untrusted_platform,
        threat="T6",
        refused_by="PVA reference-value",
    ),
    Play(
        name="another-operator",
        title="A home operator that the subscriber did not choose has an order for the device.",
        perform=_another_operator,
        threat="T14",
        refused_by="DPF selected-sho-is-that-of-the-order",
    ),
)
