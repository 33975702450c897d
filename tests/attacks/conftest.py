"""The devices under attack: made once, and every test gets a copy of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support_attacks import Arena, make_arena


@pytest.fixture(scope="session")
def made_rsa(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return make_arena(tmp_path_factory.mktemp("rsa") / "tre")


@pytest.fixture(scope="session")
def made_ec(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return make_arena(tmp_path_factory.mktemp("ec") / "tre", key_type="ec")


@pytest.fixture
def rsa_arena(made_rsa: Arena, tmp_path: Path) -> Arena:
    return made_rsa.copied(tmp_path / "rsa")


@pytest.fixture
def arena(made_ec: Arena, tmp_path: Path) -> Arena:
    """The device most attacks take: P-256, since its keys are quick."""
    return made_ec.copied(tmp_path / "ec")
