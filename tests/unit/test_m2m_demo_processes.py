"""The demo's supervisor, with small programs in place of actors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from m2m_demo.errors import DemoFailed, Interrupted
from m2m_demo.processes import Supervisor, interruptible
from m2m_demo.world import World, environment, toml

SERVER = """
import json, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
path.with_suffix(".new").write_text(json.dumps({"ports": {"dm": 4711}, "pid": 1}))
path.with_suffix(".new").rename(path)
time.sleep(60)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-S", "-c", code, *arguments]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "logs", environment=environment()) as supervisor:
        yield supervisor


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_server_is_ready_when_its_file_is_there_and_gone_with_the_supervisor(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs", environment=environment()) as supervisor:
        process = supervisor.start("dpf", python(SERVER, str(tmp_path / "ready.json")))
        assert supervisor.wait_ready(process, tmp_path / "ready.json") == {"dm": 4711}
        assert is_alive(process.pid)
    assert process.exit_code() == -signal.SIGTERM
    assert not is_alive(process.pid)


def test_a_server_that_dies_at_its_start_is_a_reason_with_its_last_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    process = supervisor.start("sho", python("import sys; sys.exit('no such key')"))
    with pytest.raises(DemoFailed, match=r"(?s)sho ended with status 1 at its start.*no such key"):
        supervisor.wait_ready(process, tmp_path / "ready.json")


def test_a_server_that_is_never_ready_is_a_reason(supervisor: Supervisor, tmp_path: Path) -> None:
    process = supervisor.start("sho", python("import time; time.sleep(60)"))
    with pytest.raises(DemoFailed, match="sho is not ready"):
        supervisor.wait_ready(process, tmp_path / "ready.json", timeout_s=0.1)


def test_commands(supervisor: Supervisor) -> None:
    assert supervisor.command("list", python("print('é', end='')")) == "é"
    assert supervisor.command("refused", python("raise SystemExit(2)"), expect=2) == ""
    with pytest.raises(DemoFailed, match=r"(?s)add ended with status 3"):
        supervisor.command("add", python("raise SystemExit(3)"))
    with pytest.raises(DemoFailed, match="does not end"):
        supervisor.command("slow", python("import time; time.sleep(60)"), timeout_s=0.1)


def test_one_that_ignores_sigterm_is_killed(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2m_demo.processes.STOP_TIMEOUT_S", 0.2)
    process = supervisor.start("pva", python(STUBBORN))
    while process.log.read_text() != "up\n":
        time.sleep(0.01)
    supervisor.stop(process)
    assert process.exit_code() == -signal.SIGKILL
    assert supervisor.processes() == ()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_processes_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
import pathlib, sys, time
from m2m_demo.processes import Supervisor
supervisor = Supervisor(pathlib.Path({str(tmp_path)!r}), environment={{}})
print(supervisor.start("actor", [sys.executable, "-S", "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.wait()
    while is_alive(pid):  # a child left behind lives longer than a test may take
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_interrupt_and_a_second_one_does_not_break_the_cleaning_up(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), number)
            cleaned.append("all of it")

    with interruptible(), pytest.raises(Interrupted, match=number.name):
        work()
    assert cleaned
    assert signal.getsignal(number) is before


def test_settings_are_toml(tmp_path: Path) -> None:
    values = {
        "plain": 'quotes " and \\ and é',
        "number": 3,
        "flag": True,
        "list": ["a", "b"],
        "path": Path("/tmp/x"),
        "shos": {"sho.m2m.example": "https://localhost:1"},
        "outer": {"key": 1, "inner": {"key": 2}},
    }
    assert tomllib.loads(toml(values)) == values | {"path": "/tmp/x"}


def test_the_environment_of_actors_has_no_settings_of_other_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMSERVER_SERVER_ID", "other")
    assert "DMSERVER_SERVER_ID" not in environment()


def test_a_shared_secret_is_the_same_on_both_sides_and_private(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.make_directories()
    world.shared_secret("bootstrap.secret", "dpf", "m2me")
    paths = [world.home(actor) / "bootstrap.secret" for actor in ("dpf", "m2me")]
    assert len({path.read_text() for path in paths}) == 1
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
