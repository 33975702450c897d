"""Containers at the TRE: it opens what it offers, and nobody can talk a home operator's package into a weaker one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dmclient.tre.keys import KeyType
from dmclient.tre.profiles import PROFILES
from mcim.vocabulary import Container, ResultCode
from tests.support_tre import NOW, SHO, World

MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    """A TRE of some kind with an open registration, and packages that come in a container of choice."""

    def make(profile: str, key_type: KeyType, container: Container, *, legacy: bool = False) -> World:
        world = World(tmp_path, key_type=key_type, profile=PROFILES[profile], legacy_container=legacy)
        world.register(sho_id=SHO)
        world.container = container
        return world

    return make


@pytest.mark.parametrize(
    ("profile", "key_type", "container"),
    [
        ("uicc", "rsa", Container.CMS),
        ("uicc", "ec", Container.CMS),
        ("software", "rsa", Container.XML),
        ("software", "rsa", Container.XML_MGF1P),
        ("software", "ec", Container.XML),
        ("native", "rsa", Container.CMS),
        ("native", "rsa", Container.XML_MGF1P),
    ],
)
def test_installs_what_it_offers(make_world: MakeWorld, profile: str, key_type: KeyType, container: Container) -> None:
    """REQ-31 REQ-47: the same MCIM in every container, below the size of its kind of TRE."""
    world = make_world(profile, key_type, container, legacy=container is Container.XML_MGF1P)
    outcome = world.provision(world.package())
    assert outcome.code is ResultCode.SUCCESS
    assert world.receipt_of(outcome).result is ResultCode.SUCCESS


@pytest.mark.parametrize(
    ("profile", "key_type", "container"),
    [
        ("uicc", "rsa", Container.XML),
        ("uicc", "rsa", Container.XML_MGF1P),
        ("software", "rsa", Container.CMS),
        ("software", "ec", Container.CMS),
    ],
)
def test_refuses_what_it_does_not_offer(
    make_world: MakeWorld, profile: str, key_type: KeyType, container: Container
) -> None:
    """T16 REQ-31: another container is refused by its name, and the nonce is still good for the right one."""
    world = make_world(profile, key_type, container)
    nonce = world.tre.registration(NOW).nonce
    assert world.provision(world.package()).code is ResultCode.UNSUPPORTED_SUITE
    assert world.tre.registration(NOW).nonce == nonce
    world.container = PROFILES[profile].containers[0]
    assert world.provision(world.package()).code is ResultCode.SUCCESS


@pytest.mark.parametrize("profile", ["software", "native", "java", "tpm"])
def test_mgf1p_is_no_fallback_of_xml(make_world: MakeWorld, profile: str) -> None:
    """T16 REQ-39: a TRE that can do better does not take SHA-1 OAEP, even from the right home operator."""
    world = make_world(profile, "rsa", Container.XML_MGF1P)
    assert Container.XML_MGF1P not in world.tre.facts().containers
    assert world.provision(world.package()).code is ResultCode.UNSUPPORTED_SUITE
