"""What an SHO makes of a TRE's offer, and what a person may order."""

from __future__ import annotations

import pytest

from actor_runtime.errors import ActorError, ConfigError
from mcim.vocabulary import Container, McimPolicy, Operation, Suite
from sho.app import mcim_policy
from sho.negotiation import acceptable_suites, choose_container, known_algorithms
from sho.orders import make_terms
from sho.store.repository import Terms
from tests.support_operators import ec_key, rsa_key

ALL, MODERN = frozenset(Suite), frozenset(Suite) - {Suite.LEGACY_1}
OFFER = ["X", "MCIM-LEGACY-1", "MCIM-EC-CBC-256", "MCIM-RSA-CBC-256", "MCIM-EC-GCM-256", "MCIM-RSA-GCM-256"]
SUITES = {
    "RSA, in the TRE's order": ("rsa", OFFER, MODERN, [Suite.RSA_CBC_256, Suite.RSA_GCM_256]),
    "EC, in the TRE's order": ("ec", OFFER, MODERN, [Suite.EC_CBC_256, Suite.EC_GCM_256]),
    "the legacy suite where it is allowed": ("rsa", OFFER[:2], ALL, [Suite.LEGACY_1]),
    "the legacy suite where it is not": ("rsa", OFFER[:2], MODERN, []),
    "nothing offered": ("rsa", [], ALL, []),
}


@pytest.mark.parametrize(("key", "offered", "allowed", "found"), SUITES.values(), ids=SUITES)
def test_suites(key, offered, allowed, found):
    """REQ-39, T16."""
    public = (rsa_key() if key == "rsa" else ec_key()).public_key()
    assert acceptable_suites(offered, allowed, public) == found


CONTAINERS = {
    "the TRE's favourite": (["cms", "xml"], Container.CMS),
    "the other way round": (["xml", "cms"], Container.XML),
    "SHA-1 last, whatever the TRE likes": (["xml-mgf1p", "xml"], Container.XML),
    "SHA-1 when there is nothing else": (["X", "xml-mgf1p"], Container.XML_MGF1P),
    "nothing known": (["X"], None),
}


@pytest.mark.parametrize(("offered", "found"), CONTAINERS.values(), ids=CONTAINERS)
def test_containers(offered, found):
    """REQ-31, REQ-49."""
    assert choose_container(offered, frozenset(Container), rsa_key().public_key()) is found
    assert choose_container(offered, frozenset(), rsa_key().public_key()) is None


def test_an_elliptic_key_has_no_use_for_oaep():
    """REQ-31."""
    key = ec_key().public_key()
    assert choose_container(["xml-mgf1p"], frozenset(Container), key) is None
    assert choose_container(["xml-mgf1p", "cms"], frozenset(Container), key) is Container.CMS


def test_algorithms():
    """REQ-30: in the TRE's order."""
    assert known_algorithms(["tuak256", "xor", "milenage"]) == ("tuak256", "milenage")


def test_policy_names():
    """REQ-70."""
    assert mcim_policy([]) is McimPolicy.NONE
    flags = McimPolicy.SIGNED_LIFECYCLE | McimPolicy.TWO_PHASE_UPDATE
    assert mcim_policy(["signed-lifecycle", "two-phase-update"]) == flags
    with pytest.raises(ConfigError):
        mcim_policy(["none-of-these"])


MCIM = "11111111-2222-4333-8444-555555555555"
NOTHING = {"mcim_id": None, "replaces": None, "release_token": None}
GOOD = {
    "install": ({}, Terms()),
    "update": ({"mcim_id": MCIM}, Terms(operation=Operation.UPDATE, mcim_id=MCIM)),
    "delete": ({"mcim_id": MCIM}, Terms(operation=Operation.DELETE, mcim_id=MCIM)),
    "replace": (
        {"replaces": MCIM, "release_token": b"t"},
        Terms(operation=Operation.REPLACE, replaces=MCIM, release_token=b"t"),
    ),
}


@pytest.mark.parametrize(("operation", "given", "terms"), [(name, *case) for name, case in GOOD.items()], ids=GOOD)
def test_terms_of_an_order(operation, given, terms):
    """REQ-70."""
    assert make_terms(operation, **NOTHING | given) == terms


BAD = {
    "no operation": ("explode", {}),
    "release is none for an order": ("release", {"mcim_id": MCIM}),
    "install with a target": ("install", {"mcim_id": MCIM}),
    "suspend without a target": ("suspend", {}),
    "replace of nothing": ("replace", {}),
    "install that replaces": ("install", {"replaces": MCIM}),
    "release token without a replace": ("delete", {"mcim_id": MCIM, "release_token": b"t"}),
    "no UUID": ("suspend", {"mcim_id": "x"}),
    "a UUID in another form": ("suspend", {"mcim_id": MCIM.replace("-", "")}),
}


@pytest.mark.parametrize(("operation", "given"), BAD.values(), ids=BAD)
def test_bad_terms_are_refused(operation, given):
    """REQ-70."""
    with pytest.raises(ActorError):
        make_terms(operation, **NOTHING | given)
