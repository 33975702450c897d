"""Every scenario and attack of the demo as real processes: it ends as it must, or it is refused as it says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from m2m_demo.attacks import ATTACKS
from m2m_demo.cast import Backend
from m2m_demo.hardware import missing
from m2m_demo.play import Play
from m2m_demo.scenarios import FIRST, SCENARIOS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(250)]  # some plays have many processes and several sessions

TIMEOUT_S = 240


def played(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "m2m_demo", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == report["exit"]["status"]
    return report


def skip_without(tre: Backend) -> None:
    if reason := missing(tre):
        pytest.skip(reason)


@pytest.mark.parametrize("play", [play for play in SCENARIOS if play is not FIRST], ids=lambda play: play.name)
def test_scenario(play: Play) -> None:
    """REQ-39, REQ-47, REQ-48, REQ-69, REQ-70: each form of provisioning ends as it is meant to."""
    skip_without(play.cast.tre)
    report = played("--scenario", play.name)
    assert report["exit"]["status"] == 0, report["exit"]["reason"]


@pytest.mark.parametrize(("tre", "suite"), [("pkcs11", "1"), ("pkcs11", "4"), ("tpm", "2"), ("tpm", "5")])
def test_every_place_for_keys_with_other_suites(tre: Backend, suite: str) -> None:
    """REQ-39, REQ-47, REQ-48: where the keys live does not matter to the home operator, whatever it allows."""
    skip_without(tre)
    report = played("--tre", tre, "--suite", suite)
    assert report["exit"] == {"status": 0, "reason": "attached"}
    assert {each["detail"] for each in report["checks"] if (each["actor"], each["name"]) == ("SHO", "suite")} == {
        report["suite"]
    }


@pytest.mark.parametrize("play", ATTACKS, ids=lambda play: f"{play.threat}-{play.name}")
def test_attack(play: Play) -> None:
    """T1 to T6, T8 to T12, T14, T16, T17: each attack is refused, and by the check that is there for it."""
    report = played("--attack", play.name)
    assert report["exit"]["status"] == 0, report["exit"]["reason"]
    proof, passed = (play.proved_by, True) if play.proved_by else (play.refused_by, False)
    assert proof in {f"{each['actor']} {each['name']}" for each in report["checks"] if each["passed"] is passed}


def test_the_list_names_every_play() -> None:
    listed = subprocess.run([sys.executable, "-m", "m2m_demo", "--list", "--json"], capture_output=True, check=True)
    assert [each["name"] for each in json.loads(listed.stdout)] == [play.name for play in (*SCENARIOS, *ATTACKS)]


@pytest.mark.parametrize(
    "arguments",
    [("--scenario", "nothing"), ("--attack", "nothing"), ("--tre", "nothing"), ("--suite", "9"),
     ("--tre", "pkcs11", "--suite", "3"), ("--scenario", "suite-1", "--attack", "forged-bootstrap")],
    ids=" ".join,
)  # fmt: skip
def test_what_there_is_not_is_refused(arguments: tuple[str, ...]) -> None:
    report = played(*arguments)
    assert report["exit"]["status"] == 1
    assert report["checks"] == []
