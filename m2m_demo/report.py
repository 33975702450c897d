"""The machine-readable report: one JSON object on what was seen, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from m2m_demo.cast import Encoding
from m2m_demo.trace import Exchange, Record

ATTACHED: Final = "attached"
"""Outcome of a play whose proof is the attach: it counts only if both ends saw it (REQ-69)."""

SCHEMA: Final = "m2m-demo-report/1"

_ATTACH_CHECK: Final = {"M2ME": "aka-accepted-by-network", "SHO": "aka-response"}
"""Name of the check by which each end sees the attach."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What the demo collects while it runs."""

    device_id: str
    play: str = ""  # name of the scenario or attack
    encoding: Encoding = "xml"  # of the SyncML messages
    tre: str = "software"
    suite: str | None = None  # label; None: the TRE's first choice
    records: list[Record] = field(default_factory=list)
    durations_s: dict[str, float] = field(default_factory=dict)  # name of a part → seconds
    processes: list[dict[str, Any]] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    mcim_id: str | None = None  # UUID, as the device tells
    outcome: str = ""  # what a play that went to its end has to tell
    reason: str = ""  # why it did not succeed

    def add(self, records: Sequence[Record]) -> None:
        """More records of the trails."""
        self.records.extend(records)

    def seen_by(self) -> frozenset[str]:
        """Who saw the attach: the device that the network took it, the home operator that RES was right (REQ-69)."""
        return frozenset(
            record.actor
            for record in self.records
            if record.kind == "check" and record.passed and record.name == _ATTACH_CHECK.get(record.actor)
        )

    def refusals(self) -> list[Record]:
        """Checks that failed."""
        return [record for record in self.records if record.kind == "check" and not record.passed]

    @property
    def attached(self) -> bool:
        """Whether both ends saw the attach."""
        return self.seen_by() == frozenset(_ATTACH_CHECK)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        exchange = Exchange()
        ok = bool(self.outcome) and not self.reason and (self.outcome != ATTACHED or self.attached)
        return {
            "schema": SCHEMA,
            "deviceId": self.device_id,
            "play": self.play,
            "encoding": self.encoding,
            "tre": self.tre,
            "suite": self.suite,
            "mcimId": self.mcim_id,
            "attach": {"attached": self.attached, "seenBy": sorted(self.seen_by())},
            "checks": [
                {
                    "name": record.name,
                    "req": list(record.req),
                    "step": record.step,
                    "actor": record.actor,
                    "passed": record.passed,
                    "detail": record.detail,
                }
                for record in self.records
                if record.kind == "check"
            ],
            "messages": [
                {
                    "ts": record.ts.isoformat(),
                    "step": record.step,
                    "direction": record.direction,
                    "summary": record.summary,
                    "octets": record.octets,
                }
                for record in self.records
                if record.kind == "message" and exchange.is_new(record)
            ],
            "durationsS": {name: round(seconds, 3) for name, seconds in self.durations_s.items()},
            "processes": self.processes,
            "addresses": self.addresses,
            "workdir": self.workdir,
            "exit": {
                "status": 0 if ok else 1,
                "reason": self.outcome if ok else self.reason or "it was not played out",
            },
        }
