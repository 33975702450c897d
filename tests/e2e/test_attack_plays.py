"""Every attack of the demo as real processes: it is refused as it says.

A file of their own, so that scenarios and attacks are played beside each other (`--dist loadfile`).
"""

from __future__ import annotations

import pytest

from m2m_demo.attacks import ATTACKS
from m2m_demo.play import Play
from tests.e2e.playing import played

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(250)]  # some plays have many processes and several sessions


@pytest.mark.parametrize("play", ATTACKS, ids=lambda play: f"{play.threat}-{play.name}")
def test_attack(play: Play) -> None:
    """T1 to T17: each attack is refused, and by the check that is there for it."""
    report = played("--attack", play.name)
    assert report["exit"]["status"] == 0, report["exit"]["reason"]
    proof, passed = (play.proved_by, True) if play.proved_by else (play.refused_by, False)
    assert proof in {f"{each['actor']} {each['name']}" for each in report["checks"] if each["passed"] is passed}
