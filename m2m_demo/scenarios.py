"""The scenarios: provisioning as it is meant to go, in all its forms."""

from __future__ import annotations

from typing import Final

from m2m_demo.cast import BACKENDS, Cast
from m2m_demo.errors import DemoFailed
from m2m_demo.play import Play, Show
from m2m_demo.processes import Process
from m2m_demo.report import ATTACHED
from m2m_demo.stage import Stage
from mcim.vocabulary import Suite


def provision(stage: Stage, show: Show) -> str:
    """From an empty directory to an attached device."""
    with show.part("setUp", "Making keys, certificates, a device and a subscription"):
        stage.set_up()
    device = start(stage, show)
    with show.part("provisioning", "Provisioning"):
        stage.bootstrap()
        attached(stage, show, device)
    return ATTACHED


def start(stage: Stage, show: Show) -> Process:
    """All actors running, the order open, the device waiting for its bootstrap."""
    with show.part("start", "Starting PVA, SHO, DPF and M2ME"):
        stage.start_servers()
        device = stage.start_device()
        stage.open_order()
        stage.wait_ready(device)
    show.report.addresses = stage.addresses()
    show.report.processes = [{"name": each.name, "pid": each.pid} for each in stage.supervisor.processes()]
    return device


def attached(stage: Stage, show: Show, device: Process) -> None:
    """The device's run must end with an attach that both ends saw.

    Raises:
        DemoFailed: it does not.
    """
    code, reason = show.until_ended(stage, device)
    if code != 0:
        raise DemoFailed(f"the device ended with status {code}: {reason}")
    show.report.mcim_id = next((each["mcimId"] for each in stage.device_info()["mcims"]), None)
    if not show.report.attached:
        raise DemoFailed(f"the attach was seen by {', '.join(sorted(show.report.seen_by())) or 'nobody'} alone")


FIRST: Final = Play(name="first-provisioning", title="An empty device gets its MCIM and attaches.", perform=provision)

SCENARIOS: Final[tuple[Play, ...]] = (
    FIRST,
    *(
        Play(
            name=f"suite-{int(suite)}",
            title=f"The home operator allows {suite.label} alone.",
            perform=provision,
            cast=Cast(suite=suite),
        )
        for suite in Suite
    ),
    *(
        Play(
            name=f"tre-{backend}",
            title=f"The TRE keeps its keys in {where}.",
            perform=provision,
            cast=Cast(tre=backend),
        )
        for backend, where in zip(BACKENDS, ("software", "a PKCS #11 token", "a TPM"), strict=True)
    ),
)
