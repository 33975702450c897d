"""What a TRE offers and this SHO is willing to make: suite, container, algorithm (REQ-30, REQ-31, REQ-39, REQ-47).

The TRE's order is its preference; the SHO's policy says what is allowed at all.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric import ec

from mcim.platform_key import PlatformPublicKey
from mcim.vocabulary import Container, Suite
from sho.subscriptions import KEY_LENGTHS

_ELLIPTIC = frozenset((Suite.EC_CBC_256, Suite.EC_GCM_256))


def acceptable_suites(offered: Iterable[str], allowed: frozenset[Suite], key: PlatformPublicKey) -> list[Suite]:
    """Suites that the TRE offers, the policy allows and PK_D can do, the TRE's favourite first."""
    elliptic = isinstance(key, ec.EllipticCurvePublicKey)
    known = (Suite.from_label(label) for label in offered)
    return [suite for suite in known if suite in allowed and (suite in _ELLIPTIC) is elliptic]


def choose_container(offered: Iterable[str], allowed: frozenset[Container], key: PlatformPublicKey) -> Container | None:
    """The container that the TRE likes best among those made here. The one with SHA-1 in its OAEP comes last, and is
    for RSA alone.
    """
    found = [Container(label) for label in offered if label in allowed]
    if isinstance(key, ec.EllipticCurvePublicKey):
        found = [each for each in found if each is not Container.XML_MGF1P]
    return next((each for each in found if each is not Container.XML_MGF1P), found[0] if found else None)


def known_algorithms(offered: Iterable[str]) -> tuple[str, ...]:
    """Algorithms of the TRE that subscriptions here can have."""
    return tuple(label for label in offered if label in KEY_LENGTHS)
