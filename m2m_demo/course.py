"""The course of a provisioning: what every scenario and attack has in common."""

from __future__ import annotations

from pathlib import Path

from m2m_demo.errors import DemoFailed
from m2m_demo.play import Show
from m2m_demo.processes import Process
from m2m_demo.report import ATTACHED
from m2m_demo.stage import Stage


def provision(stage: Stage, show: Show) -> str:
    """From an empty directory to an attached device."""
    set_up(stage, show)
    return go_on(stage, show)


def go_on(stage: Stage, show: Show) -> str:
    """From a stage that is set up to an attached device."""
    device = start(stage, show)
    with show.part("provisioning", "Provisioning"):
        stage.bootstrap()
        attached(stage, show, device)
    return ATTACHED


def set_up(stage: Stage, show: Show, *, subscriptions: Path | None = None) -> None:
    """Everything there is before an actor runs."""
    with show.part("setUp", "Making keys, certificates, a device and a subscription"):
        stage.set_up(subscriptions=subscriptions)


def start(stage: Stage, show: Show) -> Process:
    """All actors running, the order open, the device waiting for its bootstrap."""
    with show.part("start", "Starting PVA, SHO, DPF and M2ME"):
        stage.start_servers()
        device = stage.start_device()
        stage.open_order()
        stage.wait_ready(device)
    note_processes(stage, show)
    return device


def note_processes(stage: Stage, show: Show) -> None:
    """Who runs, and where, for the report."""
    show.report.addresses = stage.addresses()
    show.report.processes = [{"name": each.name, "pid": each.pid} for each in stage.supervisor.processes()]


def attached(stage: Stage, show: Show, device: Process) -> None:
    """The device's run must end with an attach that both ends saw.

    Raises:
        DemoFailed: it does not.
    """
    code, reason = show.until_ended(stage, device)
    if code != 0:
        raise DemoFailed(f"the device ended with status {code}: {reason}")
    seen_by_both(stage, show)


def seen_by_both(stage: Stage, show: Show) -> None:
    """The device has its MCIM, and both ends saw the attach.

    Raises:
        DemoFailed: they did not.
    """
    show.report.mcim_id = next((each["mcimId"] for each in stage.device_info()["mcims"]), None)
    if not show.report.attached:
        raise DemoFailed(f"the attach was seen by {', '.join(sorted(show.report.seen_by())) or 'nobody'} alone")
