"""Containers at the TRE: it opens what it offers, and nobody can talk a home operator's package into a weaker one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from dmclient.tre.profiles import PROFILES
from dmclient.tre.software import SoftwareKeyStore
from mcim.package import build_package
from mcim.vocabulary import Container, ResultCode
from tests import support_tre
from tests.support_tre import NOW, SHO, World

MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    """A TRE whose key store opens all containers that its keys can; what it takes is its profile's matter."""

    class KeyStore(SoftwareKeyStore):
        def containers(self, key_type: str) -> tuple[Container, ...]:
            return tuple(each for each in Container if key_type == "rsa" or each is not Container.XML_MGF1P)

    monkeypatch.setattr(support_tre, "SoftwareKeyStore", KeyStore)

    def make(profile: str, key_type: Literal["rsa", "ec"] = "rsa") -> World:
        world = World(tmp_path, key_type=key_type, profile=PROFILES[profile])
        world.register(sho_id=SHO)
        return world

    return make


@pytest.fixture
def sent_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Container], None]:
    """Packages of the operators come in this container from now on."""

    def choose(container: Container) -> None:
        monkeypatch.setattr(support_tre, "build_package", functools.partial(build_package, container=container))

    return choose


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
def test_installs_what_it_offers(
    make_world: MakeWorld,
    sent_in: Callable[[Container], None],
    profile: str,
    key_type: Literal["rsa", "ec"],
    container: Container,
) -> None:
    """REQ-31 REQ-47: the same MCIM in every container, below the size of its kind of TRE."""
    world = make_world(profile, key_type)
    sent_in(container)
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
    make_world: MakeWorld,
    sent_in: Callable[[Container], None],
    profile: str,
    key_type: Literal["rsa", "ec"],
    container: Container,
) -> None:
    """T16 REQ-31: another container is refused by its name, and the nonce is still good for the right one."""
    world = make_world(profile, key_type)
    nonce = world.tre.registration(NOW).nonce
    sent_in(container)
    assert world.provision(world.package()).code is ResultCode.UNSUPPORTED_SUITE
    assert world.tre.registration(NOW).nonce == nonce
    sent_in(PROFILES[profile].containers[0])
    assert world.provision(world.package()).code is ResultCode.SUCCESS


def test_mgf1p_is_no_fallback_of_xml(
    make_world: MakeWorld, sent_in: Callable[[Container], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T16 REQ-39: a TRE that can do better does not take SHA-1 OAEP, even from the right home operator."""
    monkeypatch.setattr(
        support_tre.SoftwareKeyStore, "containers", lambda self, key_type: (Container.XML,), raising=True
    )
    world = make_world("software")
    assert world.tre.facts().containers == (Container.XML,)
    sent_in(Container.XML_MGF1P)
    assert world.provision(world.package()).code is ResultCode.UNSUPPORTED_SUITE
