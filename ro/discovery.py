"""Discovery of the home operator (TR 33.812 §5.1.3.7.1 step 8): who decides, in what order. Pure rules."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What is known of a device's home operator, each None when nobody said so."""

    operator: str | None = None  # an operator of this RO routed the registration by hand
    subscriber: str | None = None  # the subscriber's choice, as the device tells it
    device_route: str | None = None  # of this M2ME
    supplier_route: str | None = None  # of the supplier's devices
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The home operator and who decided; `sho_id` None: nobody can, the registration stays open."""

    sho_id: str | None
    decided_by: str


def find_sho(hints: Hints, partners: Container[str]) -> Found:
    """The home operator of a device: the first hint that names a partner.

    A subscriber's choice that is no partner decides nothing and is not replaced by another operator: nobody gets a
    subscription he did not ask for. It waits for an operator, as does a device without any hint.
    """
    if hints.operator is not None:
        return Found(sho_id=hints.operator if hints.operator in partners else None, decided_by="operator")
    if hints.subscriber is not None:
        return Found(sho_id=hints.subscriber if hints.subscriber in partners else None, decided_by="subscriber")
    for name, hint in (
        ("device", hints.device_route),
        ("supplier", hints.supplier_route),
        ("default", hints.default),
    ):
        if hint is not None and hint in partners:
            return Found(sho_id=hint, decided_by=name)
    return Found(sho_id=None, decided_by="nobody")
