"""A stage of real processes for the end-to-end tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from m2m_demo.processes import Supervisor
from m2m_demo.stage import Stage
from m2m_demo.world import World, environment


@pytest.fixture(scope="package", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Python is told to keep no compiled modules, the hundreds of processes keep them in a directory of the run.

    Otherwise each of them compiles all of ours anew, for a fifth of its time.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one for all workers
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(shared / "compiled"))
        yield


@pytest.fixture
def stage_of_its_own(tmp_path: Path) -> Iterator[Stage]:
    """An empty stage; its processes end with the test."""
    world = World(tmp_path / "world")
    with Supervisor(world.logs, environment=environment()) as supervisor:
        yield Stage(world, supervisor)
