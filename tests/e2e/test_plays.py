"""Every scenario of the demo as real processes: it ends as it must. The attacks are in `test_attack_plays`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from m2m_demo.attacks import ATTACKS
from m2m_demo.cast import Backend
from m2m_demo.hardware import missing
from m2m_demo.play import Play
from m2m_demo.scenarios import FIRST, SCENARIOS
from mcim.vocabulary import Suite
from tests.e2e.playing import played

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(250)]  # some plays have many processes and several sessions

PLACES: dict[Suite, Backend] = {
    Suite.LEGACY_1: "pkcs11",
    Suite.RSA_CBC_256: "tpm",
    Suite.RSA_GCM_256: "software",
    Suite.EC_CBC_256: "pkcs11",
    Suite.EC_GCM_256: "tpm",
}
"""Where the keys are while a suite is played: both kinds of key in each place, and no suite played twice."""


def is_first(play: Play) -> bool:
    """Whether it is what the first scenario is, which `test_demo` plays, under another name."""
    return (play.perform, play.cast) == (FIRST.perform, FIRST.cast)


@pytest.mark.parametrize("play", [play for play in SCENARIOS if not is_first(play)], ids=lambda play: play.name)
def test_scenario(play: Play) -> None:
    """REQ-21, REQ-39, REQ-44, REQ-47, REQ-48, REQ-61, REQ-69, REQ-70: each scenario ends as it is meant to.

    Where the keys live does not matter to the home operator, whatever suite it allows.
    """
    tre = play.cast.tre if play.cast.suite is None else PLACES[play.cast.suite]
    if reason := missing(tre):
        pytest.skip(reason)
    report = played("--scenario", play.name, "--tre", tre)
    assert report["exit"]["status"] == 0, report["exit"]["reason"]
    assert report["tre"] == tre
    if play.cast.suite is not None:
        chosen = {each["detail"] for each in report["checks"] if (each["actor"], each["name"]) == ("SHO", "suite")}
        assert chosen == {play.cast.suite.label}


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
