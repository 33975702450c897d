"""A stage of real processes for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from m2m_demo.processes import Supervisor
from m2m_demo.stage import Stage
from m2m_demo.world import World, environment


@pytest.fixture
def stage_of_its_own(tmp_path: Path) -> Iterator[Stage]:
    """An empty stage; its processes end with the test."""
    world = World(tmp_path / "world")
    with Supervisor(world.logs, environment=environment()) as supervisor:
        yield Stage(world, supervisor)
