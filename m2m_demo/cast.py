"""What a run of the demo is played with: encoding, kind of TRE, suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from m2m_demo.errors import DemoFailed
from mcim.vocabulary import Suite, ValidationMode

Encoding: TypeAlias = Literal["xml", "wbxml"]
Backend: TypeAlias = Literal["software", "pkcs11", "tpm"]
BACKENDS: Final[tuple[Backend, ...]] = ("software", "pkcs11", "tpm")
ELLIPTIC: Final = frozenset({Suite.EC_CBC_256, Suite.EC_GCM_256})
USUAL_KEY: Final[dict[Backend, Literal["rsa", "ec"]]] = {"software": "rsa", "pkcs11": "ec", "tpm": "rsa"}
"""SoftHSM2 knows OAEP with SHA-1 only, so that a token's TRE has an EC key unless suite 1 is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """The choices of one run."""

    encoding: Encoding = "xml"  # of the SyncML messages
    tre: Backend = "software"  # where the TRE's keys live
    tre_type: str = ""  # kind of TRE; empty: that of the back-end
    validation: ValidationMode = ValidationMode.SEMI_AUTONOMOUS
    algorithm: Literal["milenage", "tuak128", "tuak256"] = "milenage"  # of the subscription
    suite: Suite | None = None  # the only one the home operator allows; None: the TRE's first choice

    @property
    def key_type(self) -> Literal["rsa", "ec"]:
        """Of PK_D."""
        if self.suite is None:
            return USUAL_KEY[self.tre]
        return "ec" if self.suite in ELLIPTIC else "rsa"

    @property
    def measured(self) -> bool:
        """Whether the PVA compares what the device measured at its start."""
        return self.validation is ValidationMode.REMOTE

    @property
    def legacy(self) -> bool:
        """Whether the TRE has to accept suite 1, which it does not by itself."""
        return self.suite is Suite.LEGACY_1


USUAL: Final = Cast()


def suite_of(name: str) -> Suite:
    """A suite by its label or number.

    Raises:
        DemoFailed: there is none of that name.
    """
    found = next((suite for suite in Suite if name.upper() in (suite.label, str(int(suite)))), None)
    if found is None:
        raise DemoFailed(f"no suite {name}; there are {', '.join(suite.label for suite in Suite)}")
    return found
