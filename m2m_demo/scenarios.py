"""The scenarios: provisioning as it is meant to go, in all its forms."""

from __future__ import annotations

from typing import Final

from m2m_demo.cast import BACKENDS, Cast
from m2m_demo.course import provision
from m2m_demo.life_cycle_scenarios import LIFE_CYCLE
from m2m_demo.play import Play
from m2m_demo.provisioning_scenarios import PROVISIONING
from m2m_demo.tre_scenarios import TRE_SCENARIOS
from mcim.vocabulary import Suite

FIRST: Final = Play(name="first-provisioning", title="An empty device gets its MCIM and attaches.", perform=provision)

SCENARIOS: Final[tuple[Play, ...]] = (
    FIRST,
    *(
        Play(
            name=f"suite-{int(suite)}",
            title=f"The home operator allows {suite.label} alone.",
            perform=provision,
            cast=Cast(suite=suite),
        )
        for suite in Suite
    ),
    *(
        Play(
            name=f"tre-{backend}",
            title=f"The TRE keeps its keys in {where}.",
            perform=provision,
            cast=Cast(tre=backend),
        )
        for backend, where in zip(BACKENDS, ("software", "a PKCS #11 token", "a TPM"), strict=True)
    ),
    *PROVISIONING,
    *LIFE_CYCLE,
    *TRE_SCENARIOS,
)
