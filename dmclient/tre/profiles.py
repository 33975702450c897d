"""Kinds of TRE (S3-090792: "Java or STIP or Native", "embedded UICC"): what differs between them, as data.

The home operator's code is the same for all (REQ-47): it sees container, algorithm and suite names. What a kind is
called is for DM and the PVA alone (REQ-49).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcim.vocabulary import Container

ALGORITHMS: Final = ("milenage", "tuak128", "tuak256")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreProfile:
    """What M2MMobj/TRE says of a kind of TRE, apart from its keys."""

    tre_type: str
    containers: tuple[Container, ...]  # those it takes, in order; what its key store cannot open falls away
    max_package: int  # octets
    code_formats: tuple[str, ...] = ()  # of downloadable algorithm code; empty: code is refused
    algorithms: tuple[str, ...] = ALGORITHMS


_XML: Final = (Container.XML, Container.XML_MGF1P)

PROFILES: Final = {
    profile.tre_type: profile
    for profile in (
        TreProfile(tre_type="software", containers=_XML, max_package=64 * 1024),
        TreProfile(tre_type="uicc", containers=(Container.CMS,), max_package=16 * 1024, algorithms=("milenage",)),
        TreProfile(tre_type="java", containers=_XML, max_package=32 * 1024, code_formats=("java",)),
        TreProfile(tre_type="stip", containers=_XML, max_package=32 * 1024, code_formats=("stip",)),
        TreProfile(tre_type="native", containers=(*_XML, Container.CMS), max_package=64 * 1024),
        TreProfile(tre_type="pkcs11", containers=(*_XML, Container.CMS), max_package=64 * 1024),
        TreProfile(tre_type="tpm", containers=(*_XML, Container.CMS), max_package=64 * 1024),
    )
}
