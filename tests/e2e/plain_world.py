"""A plain DM server and a plain DM device as processes, out of the example settings, in a directory of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from m2m_demo.processes import Process, Supervisor

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SCRIPTS = Path(sys.executable).parent  # where the console scripts of this environment are
DEVICE = "urn:imei:004999010640000"
SERVER = "dms.example"
TOKEN = "a-token-of-yours"


class PlainWorld:
    """One directory, one server, devices as they are asked for."""

    def __init__(self, directory: Path, supervisor: Supervisor) -> None:
        self.directory = directory
        self.supervisor = supervisor
        self.ports: dict[str, int] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in (("client", "device"), ("server", "server")):
            (directory / f"{name}.secret").write_text(f"secret-of-the-{text}\n")
        (directory / "bootstrap.secret").write_text("12345678\n")
        (directory / "operator.token").write_text(TOKEN + "\n")
        for each in EXAMPLES.glob("*.toml"):
            shutil.copy(each, directory)
        free_ports(directory)

    def argv(self, program: str, config: str, *arguments: str) -> list[str]:
        """A command line that runs in the directory: the settings name their files without a path."""
        inside = 'cd "$1" && shift && exec "$@"'
        return ["sh", "-c", inside, "sh", str(self.directory), str(SCRIPTS / program), "--config", config, *arguments]

    def serve(self, name: str = "server", config: str = "dmserver-plain.toml") -> Process:
        """`dmserver serve`, and its ports when it listens."""
        process = self.supervisor.start(name, self.argv("dmserver", config, "serve"))
        self.ports = self.supervisor.wait_ready(process, self.directory / "dmserver-ready.json")
        return process

    def begin(self, name: str, *arguments: str) -> Process:
        """A command of the server that another one will let end."""
        return self.supervisor.begin(name, self.argv("dmserver", "dmserver-plain.toml", "--json", *arguments))

    def dms(self, *arguments: str, expect: int | None = 0) -> Any:
        """A command of the server, and what it printed as JSON; None when that is no JSON."""
        printed = self.supervisor.finish(self.begin("dms", *arguments), expect=expect)
        try:
            return json.loads(printed)
        except ValueError:
            return None

    def device(self, config: str, *arguments: str, expect: int | None = 0) -> dict[str, Any]:
        """`dmclient session`."""
        argv = self.argv("dmclient", config, "session", "--json", *arguments)
        return dict(json.loads(self.supervisor.command("device", argv, expect=expect) or "{}"))

    def device_settings(self, name: str, *changes: tuple[str, str], env: str = "") -> str:
        """Settings of a device: the example under another identity and state, with changes."""
        text = (self.directory / "dmclient-plain.toml").read_text()
        own = (
            ('"device"  ', f'"state-{name}"  '),
            (DEVICE, device_id(name)),
            ("device-seal.key", f"seal-{name}.key"),
            ("dmclient-ready.json", f"ready-{name}.json"),
            ("http://127.0.0.1:8080/dm", f"http://127.0.0.1:{self.ports['dm']}/dm"),
        )
        for before, after in (*own, *changes):
            assert before in text, before
            text = text.replace(before, after)
        config = f"device-{name}.toml"
        (self.directory / config).write_text(env + text)
        return config


def device_id(name: str) -> str:
    """Identity of a device of the tests."""
    return f"urn:test:{name}"


def free_ports(directory: Path) -> None:
    """Let the system choose all ports of the example settings, except in the address of the server."""
    for name, port in (
        ("dmserver-plain.toml", "8080"),
        ("dmserver-plain.toml", "8081"),
        ("dmclient-plain.toml", "2948"),
    ):
        file = directory / name
        text = file.read_text()
        assert f"port = {port}" in text
        file.write_text(text.replace(f"port = {port}", "port = 0"))


class Shell:
    """One terminal: blocks of commands in one bash, which ends at the first that fails."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env=environment | {"PATH": f"{SCRIPTS}{os.pathsep}{environment['PATH']}", "REPO": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self.run("set -eu -o pipefail")

    def run(self, block: str) -> str:
        """What the block printed."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = "--- end of block ---"
        self._bash.stdin.write(f"{block}\nprintf '\\n%s\\n' '{mark}'\n")  # output may end without a line end
        self._bash.stdin.flush()
        printed = []
        while (line := self._bash.stdout.readline()) != mark + "\n":
            printed.append(line)
            assert line, f"a command failed:\n{block}\n{''.join(printed)}"
        return "".join(printed)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and what it may be waiting for."""
        if self._bash.poll() is None:
            os.killpg(self._bash.pid, signal.SIGTERM)
        with self._bash:
            pass
