"""The demo as a user runs it: `python -m m2m_demo`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

DEMO = [sys.executable, "-m", "m2m_demo"]
TIMEOUT_S = 90
SHOWN = {
    *("REQ-02", "REQ-06", "REQ-08", "REQ-09", "REQ-11", "REQ-12", "REQ-13", "REQ-14", "REQ-15"),
    *("REQ-17", "REQ-18", "REQ-19", "REQ-20", "REQ-24", "REQ-25", "REQ-27", "REQ-29", "REQ-30"),
    *("REQ-32", "REQ-39", "REQ-40", "REQ-43", "REQ-45", "REQ-46", "REQ-50", "REQ-51", "REQ-52"),
    *("REQ-53", "REQ-56", "REQ-57", "REQ-58", "REQ-59", "REQ-67", "REQ-68", "REQ-69"),
}
"""Requirements with a check that the story of a good run must show."""


def living(pids: list[int]) -> list[int]:
    """Those of the processes that still run."""

    def runs(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    return [pid for pid in pids if runs(pid)]


def children_of(pid: int) -> list[int]:
    """Its child processes."""
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 15
    while living(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert living(pids) == []


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running demo; it is killed at the end if it is still there."""
    process = subprocess.Popen(
        [*DEMO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Report of a demo that ran to its end and left the servers running; Ctrl-C then ends everything with status 0."""
    workdir = tmp_path_factory.mktemp("demo")
    with demo("--json", "--keep", "--workdir", str(workdir)) as process:
        assert process.stdout is not None
        lines = list(takewhile(lambda line: line != "}\n", process.stdout))
        report: dict[str, Any] = json.loads("".join([*lines, "}\n"]))
        yield report
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert living([each["pid"] for each in report["processes"]]) == []


def test_the_device_is_provisioned_and_attaches(report: dict[str, Any]) -> None:
    """REQ-69: seen by the device and by the home operator."""
    assert report["exit"] == {"status": 0, "reason": "attached"}
    assert report["attach"] == {"attached": True, "seenBy": ["M2ME", "SHO"]}
    assert uuid.UUID(report["mcimId"]).version == 4


def test_all_checks_are_named_and_passed(report: dict[str, Any]) -> None:
    """REQ-71: every check with pass or fail, and the requirement it is for."""
    assert [check for check in report["checks"] if not check["passed"]] == []
    assert {check["actor"] for check in report["checks"]} == {"M2ME", "DPF", "SHO", "PVA"}
    missing = SHOWN - {req for check in report["checks"] for req in check["req"]}
    assert missing == set()


def test_messages_flow_between_all_parties(report: dict[str, Any]) -> None:
    directions = {message["direction"] for message in report["messages"]}
    assert directions == {
        *("DPF→M2ME", "M2ME→DPF", "DPF→PVA", "PVA→DPF", "DPF→SHO", "SHO→DPF", "M2ME→SHO", "SHO→M2ME"),
    }
    assert all(message["octets"] > 0 for message in report["messages"])


def test_the_same_in_wbxml(report: dict[str, Any]) -> None:
    """XS-027: the whole scheme in the other encoding: the same checks, in messages of about half the size."""
    done = subprocess.run([*DEMO, "--json", "--wbxml"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    other: dict[str, Any] = json.loads(done.stdout)
    assert other["exit"] == {"status": 0, "reason": "attached"}
    assert (report["encoding"], other["encoding"]) == ("xml", "wbxml")

    def passed(of: dict[str, Any]) -> set[tuple[str, str]]:
        return {(check["actor"], check["name"]) for check in of["checks"] if check["passed"]}

    def first_message(of: dict[str, Any]) -> int:
        return next(int(each["octets"]) for each in of["messages"] if each["summary"].startswith("#1 Alert 1201"))

    assert passed(other) == passed(report)
    assert first_message(other) < 0.7 * first_message(report)


def test_the_servers_go_on_with_keep(report: dict[str, Any]) -> None:
    servers = [each["pid"] for each in report["processes"] if each["name"] != "m2me"]
    assert len(servers) == 3
    assert living(servers) == servers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_demo_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    with demo("--json", "--workdir", str(tmp_path / "world")) as process:
        deadline = time.monotonic() + TIMEOUT_S
        while not (children := children_of(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert children
        process.send_signal(number)
        output, _ = process.communicate(timeout=TIMEOUT_S)
    if number is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 1
        assert json.loads(output)["exit"] == {"status": 1, "reason": f"interrupted by {number.name}"}
    wait_until_gone(children)


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = subprocess.run(
        [*DEMO, "--json", "--workdir", str(tmp_path)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["exit"] == {"status": 1, "reason": f"{tmp_path} is not empty"}
    assert list(tmp_path.iterdir()) == [tmp_path / "precious"]


def test_the_story_has_80_columns_and_no_cursor_tricks(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--verbose"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "Attached: " in done.stdout
    assert "<SyncML" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    steps = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("Step ")]
    assert steps == ["8", "7", "9", "10", "11", "12", "13", "14", "15", "16"]
