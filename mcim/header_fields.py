"""Values of a package's clear, signed header, whatever form carries them: who sends what to whom."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from mcim.vocabulary import Operation, Suite

MAX_NONCE: Final = 64  # octets
MAX_SEQUENCE: Final = 10**19 - 1  # what 19 decimal digits hold; below 2**64
NAME: Final = "[!-~]{1,255}"  # of a device, TRE or operator: printable ASCII without white space


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageHeader:
    """Values of the header; times are UTC, whole seconds."""

    transaction_id: UUID
    sequence: int
    registration_nonce: bytes = field(repr=False)
    m2me_id: str
    tre_id: str
    platform_key_id: bytes
    sho_id: str
    dpf_id: str
    operation: Operation
    mcim_id: UUID
    suite: Suite
    not_before: datetime
    not_after: datetime
    ticket_digest: str  # SHA-256 of the PVA ticket, hex
    auth_mode: str = "none"  # none | token
    ephemeral_key: bytes | None = None  # uncompressed P-256 point, EC recipients only
    new_sho_id: str | None = None  # who may take the MCIM's place, in a release token only


def matched(pattern: str, value: str) -> str:
    """`value`, if all of it matches.

    Raises:
        ValueError: it does not.
    """
    if re.fullmatch(pattern, value) is None:
        raise ValueError("does not match")
    return value
