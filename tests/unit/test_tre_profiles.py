"""Kinds of TRE as data: what each kind offers, and what the home operator sees of it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from dmclient.config import TreSection
from dmclient.tre.base import TreError
from dmclient.tre.environment import Tre
from dmclient.tre.keys import KeyType
from dmclient.tre.profiles import PROFILES
from dmclient.tre.software import SoftwareKeyStore
from mcim.vocabulary import MAX_PACKAGE_SIZE, Container, ResultCode, Suite
from tests.support_tre import M2ME_ID, SEAL_KEY, TRE_ID

XML, MGF1P, CMS = Container.XML, Container.XML_MGF1P, Container.CMS
ALL = ("milenage", "tuak128", "tuak256")

# kind: containers with an RSA key (the weaker one if it is asked for), with an EC key, octets, code formats, algorithms
KINDS: dict[str, tuple[tuple[Container, ...], tuple[Container, ...], int, tuple[str, ...], tuple[str, ...]]] = {
    "software": ((XML, MGF1P), (XML,), 65536, (), ALL),
    "uicc": ((CMS,), (CMS,), 16384, (), ("milenage",)),
    "java": ((XML, MGF1P), (XML,), 32768, ("java",), ALL),
    "stip": ((XML, MGF1P), (XML,), 32768, ("stip",), ALL),
    "native": ((XML, MGF1P, CMS), (XML, CMS), 65536, (), ALL),
    "pkcs11": ((XML, MGF1P, CMS), (XML, CMS), 65536, (), ALL),
    "tpm": ((XML, MGF1P, CMS), (XML, CMS), 65536, (), ALL),
}


class Mgf1pStore(SoftwareKeyStore):
    """Keys in something that knows OAEP with SHA-1 alone."""

    def containers(self, key_type: KeyType) -> tuple[Container, ...]:
        return (Container.XML_MGF1P,)


def manufacture(
    directory: Path, kind: str, key_type: KeyType = "ec", *, legacy: bool = False, store: type = SoftwareKeyStore
) -> Tre:
    return Tre.manufacture(
        directory,
        seal_key=SEAL_KEY,
        key_store=store(directory),
        m2me_id=M2ME_ID,
        tre_id=TRE_ID,
        profile=PROFILES[kind],
        key_type=key_type,
        legacy_suite=legacy,
        legacy_container=legacy,
    )


def test_every_kind_of_the_settings_has_a_profile() -> None:
    """REQ-48: and no other has one; without a kind it is that of the key store."""
    kinds = [each for each in get_args(TreSection.model_fields["type"].annotation) if each]
    assert sorted(kinds) == sorted(PROFILES) == sorted(KINDS)
    for backend in get_args(TreSection.model_fields["backend"].annotation):
        assert TreSection(backend=backend).effective_type in PROFILES


@pytest.mark.parametrize("key_type", ["rsa", "ec"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_offers(kind: str, key_type: KeyType, tmp_path: Path) -> None:
    """REQ-48, REQ-49: container, size and code formats differ, by this table."""
    with_rsa, with_ec, octets, code_formats, algorithms = KINDS[kind]
    facts = manufacture(tmp_path, kind, key_type).facts()
    assert facts.tre_type == kind
    assert facts.containers == (tuple(each for each in with_rsa if each is not MGF1P) if key_type == "rsa" else with_ec)
    asked = manufacture(tmp_path / "legacy", kind, key_type, legacy=True).facts()
    assert asked.containers == (with_rsa if key_type == "rsa" else with_ec)
    assert (facts.max_package, facts.code_formats, facts.algorithms) == (octets, code_formats, algorithms)
    assert facts.max_package <= MAX_PACKAGE_SIZE


@pytest.mark.parametrize("key_type", ["rsa", "ec"])
def test_the_home_operator_sees_the_same_names_for_all_kinds(key_type: KeyType, tmp_path: Path) -> None:
    """REQ-47: suites come from the key, containers and algorithms from one vocabulary; the kind is in none of them."""
    suites = set()
    for kind in KINDS:
        facts = manufacture(tmp_path / kind, kind, key_type, legacy=key_type == "rsa").facts()
        suites.add(facts.suites)
        assert {Container(each) for each in facts.containers} <= set(Container)
        assert set(facts.algorithms) <= set(ALL)
        assert all(Suite.from_label(suite.label) is suite for suite in facts.suites)
        offered = {*facts.containers, *facts.algorithms, *(suite.label for suite in facts.suites)}
        assert not offered & set(KINDS)
    assert len(suites) == 1


@pytest.mark.parametrize(("kind", "offered"), [("java", ("xml-mgf1p",)), ("native", ("xml-mgf1p",)), ("uicc", None)])
def test_what_the_key_store_cannot_open_falls_away(kind: str, offered: tuple[str, ...] | None, tmp_path: Path) -> None:
    """REQ-48, T16: never offered; and when nothing is left there is no such TRE."""
    if offered is None:
        with pytest.raises(TreError) as caught:
            manufacture(tmp_path, kind, "rsa", store=Mgf1pStore)
        assert caught.value.code is ResultCode.UNSUPPORTED_SUITE
    else:
        assert manufacture(tmp_path, kind, "rsa", store=Mgf1pStore).facts().containers == offered


def test_a_key_store_without_a_suite_makes_no_tre(tmp_path: Path) -> None:
    """REQ-39: SoftHSM2 with RSA serves suite 1 alone, and that is off unless somebody asks for it."""

    class NoSuite(SoftwareKeyStore):
        def suites(self, key_type: KeyType, *, legacy: bool) -> tuple[Suite, ...]:
            return (Suite.LEGACY_1,) if legacy else ()

    with pytest.raises(TreError, match="no suite") as caught:
        manufacture(tmp_path, "software", "rsa", store=NoSuite)
    assert caught.value.code is ResultCode.UNSUPPORTED_SUITE
    assert manufacture(tmp_path, "software", "rsa", legacy=True, store=NoSuite).facts().suites == (Suite.LEGACY_1,)
