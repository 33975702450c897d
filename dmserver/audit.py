"""What the audit trail of an order holds (REQ-71): values, no secrets, no I/O.

A `step` is the number of TR 33.812 §5.1.3.7.1, as text: 7 contact, 8 registration, 9 to 11 validation, 12 hand-over and
MCIM object, 13 download, 14 provisioning and its report, 15 report to the home operator, 16 attach.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EntryKind(StrEnum):
    """Kinds of audit entries."""

    CHECK = "check"
    STATE = "state"
    NOTE = "note"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the audit trail."""

    kind: EntryKind
    step: str
    text: str  # name of the check, "OLD → NEW", or what happened
    passed: bool | None = None  # of a check
    req: tuple[str, ...] = ()  # requirement ids of a check
    detail: str = ""
    octets: int | None = None  # of a message


def check(name: str, passed: bool, *, req: tuple[str, ...], step: str, detail: str = "") -> Entry:
    """A check that was made, with its outcome."""
    return Entry(kind=EntryKind.CHECK, step=step, text=name, passed=passed, req=req, detail=detail)


def note(text: str, *, step: str, detail: str = "") -> Entry:
    """Something that happened and was no check."""
    return Entry(kind=EntryKind.NOTE, step=step, text=text, detail=detail)


def moved(old: str, new: str, *, step: str, detail: str = "") -> Entry:
    """An order moved."""
    return Entry(kind=EntryKind.STATE, step=step, text=f"{old} → {new}", detail=detail)
