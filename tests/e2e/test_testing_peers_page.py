"""The page docs/testing-peers.md, run command by command as a reader would type it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from m2m_demo.processes import Process, Supervisor
from m2m_demo.world import environment
from tests.e2e.plain_world import ROOT, SCRIPTS, Shell, free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PAGE = (ROOT / "docs/testing-peers.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OWN_TERMINAL = "# in a terminal of its own\n"
STOP_DEVICE = "# stop dmclient\n"
READY = {"dmserver": "dmserver-ready.json", "dmclient": "dmclient-ready.json"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (Debian: curl), which the page uses")
def test_the_page_in_order(tmp_path: Path) -> None:
    """Every `sh` block is run, and every line of a `text` block is in what the block before it printed."""
    ports: dict[str, int] = {}  # in the page → chosen by the system
    running: dict[str, Process] = {}
    printed = ""
    with (
        Supervisor(tmp_path / "logs", environment=environment()) as supervisor,
        Shell(tmp_path, environment()) as shell,
    ):
        for kind, text in BLOCKS:
            if kind == "text":
                for line in text.splitlines():
                    assert line in printed, f"{line!r} is not in\n{printed}"
                continue
            for shown, chosen in ports.items():
                text = text.replace(shown, str(chosen))
            if text.startswith(OWN_TERMINAL):
                program, *arguments = text.removeprefix(OWN_TERMINAL).split()
                argv = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(tmp_path), str(SCRIPTS / program)]
                running[program] = supervisor.start(program, [*argv, *arguments])
                bound = supervisor.wait_ready(running[program], tmp_path / READY[program])
                if program == "dmserver":
                    ports |= {"8080": bound["dm"], "8081": bound["operator"]}
                    settings = tmp_path / "dmclient-plain.toml"
                    settings.write_text(settings.read_text().replace("8080", str(bound["dm"])))
                else:
                    ports["2948"] = bound["bootstrap"]
                continue
            if text.startswith(STOP_DEVICE):
                supervisor.stop(running["dmclient"])
            printed = shell.run(text)
            if "cp " in text:
                free_ports(tmp_path)


def test_the_page_fits_on_two_screens() -> None:
    assert len(PAGE.splitlines()) <= 140
    assert len(BLOCKS) == PAGE.count("\n```") // 2
