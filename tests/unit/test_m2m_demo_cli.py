"""How the demo ends when its play does not: what is said, and what is left."""

from __future__ import annotations

import errno
import json
import re
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m2m_demo import cli
from m2m_demo.attacks import ATTACKS
from m2m_demo.errors import DemoFailed, Interrupted
from m2m_demo.play import Play, Show
from m2m_demo.scenarios import SCENARIOS
from m2m_demo.stage import Stage

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
ENDS: dict[str, tuple[BaseException | None, str, bool]] = {
    "well": (None, "as it must", False),
    "not as it must": (DemoFailed("the device did not attach"), "the device did not attach", True),
    "interrupted": (Interrupted("SIGTERM"), "interrupted by SIGTERM", False),
    "full disk": (OSError(errno.ENOSPC, "No space left on device", "x/pki"), "x/pki: No space left on device", False),
    "no more processes": (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "Resource temporarily", False),
}


@pytest.mark.parametrize(("error", "reason", "kept"), ENDS.values(), ids=ENDS)
def test_every_end_has_a_reason_and_only_a_failure_leaves_something_to_look_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException | None, reason: str, kept: bool
) -> None:
    def perform(stage: Stage, show: Show) -> str:
        stage.world.make_directories()
        if error is not None:
            raise error
        return "as it must"

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "SCENARIOS", (Play(name="short", title="", perform=perform),))
    done = CliRunner().invoke(cli.app, ["--json", "--scenario", "short"])
    report = json.loads(done.stdout)
    assert done.exit_code == report["exit"]["status"] == (0 if error is None else 1)
    assert report["exit"]["reason"].startswith(reason)
    left = [str(path) for path in tmp_path.iterdir()]
    assert left == ([report["workdir"]] if kept else [])
    assert bool(report["workdir"]) is kept


def test_every_threat_has_an_attack() -> None:
    """T1 to T17: each row of the table in docs/security.md can be seen as an attack that is refused."""
    threats = re.findall(r"^\|[^|]*\| (T[0-9]+): ", SECURITY.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(threats) == 17
    assert {play.threat for play in ATTACKS} == set(threats)


def test_every_play_has_a_name_of_its_own_and_every_attack_a_check() -> None:
    """What `--list` shows and what an attack must end with."""
    plays = (*SCENARIOS, *ATTACKS)
    assert len({play.name for play in plays}) == len(plays)
    assert all(bool(play.refused_by) is not bool(play.proved_by) for play in ATTACKS)
    assert not any(play.threat or play.refused_by or play.proved_by for play in SCENARIOS)
