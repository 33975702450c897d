"""A play: what happens on the stage in one run of the demo, and how it must end.

A scenario shows how something goes; an attack tries to break it, and is played well when it is refused by the check
that is there for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from m2m_demo.cast import USUAL, Cast
from m2m_demo.errors import DemoFailed
from m2m_demo.processes import Process
from m2m_demo.report import Report
from m2m_demo.stage import Stage
from m2m_demo.story import Story
from m2m_demo.trace import Record


class Part(Protocol):
    """Measures a part of a run and shows that something happens."""

    def __call__(self, name: str, title: str) -> AbstractContextManager[None]:
        """`name` for the report, `title` for the reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """What a play is told through."""

    story: Story
    report: Report
    part: Part

    def say(self, text: str) -> None:
        """A line between the records."""
        self.story.say(text, style="bold")

    def tell(self, records: list[Record]) -> None:
        """Records of the trails: kept for the report, told to the reader."""
        self.report.add(records)
        for record in records:
            self.story.tell(record)

    def saw(self, actor: str, name: str, *, passed: bool, req: Sequence[str] = (), detail: str = "") -> None:
        """A check that is on no trail: a command told of it, or it was made on the stage itself."""
        self.tell(
            [
                Record(
                    ts=datetime.now(UTC),
                    seq=0,
                    actor=actor,
                    kind="check",
                    step="",
                    name=name,
                    passed=passed,
                    req=tuple(req),
                    detail=detail,
                )
            ]
        )

    def until_ended(self, stage: Stage, device: Process) -> tuple[int, str]:
        """Tell what happens until the device's run ends; its exit status and reason."""
        stage.follow(self.tell, until=lambda: device.exit_code() is not None)
        return stage.device_result(device)

    def rest(self, stage: Stage) -> None:
        """Tell what the trails still have."""
        self.tell(stage.new_records(all_of_them=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One scenario or attack."""

    name: str
    title: str  # a sentence for --list
    perform: Callable[[Stage, Show], str]  # returns what to say at the end
    cast: Cast = USUAL
    threat: str = ""  # of docs/security.md; empty: a scenario
    refused_by: str = ""  # "ACTOR check-name" that must have failed, for an attack
    proved_by: str = ""  # "ACTOR check-name" that must have passed, for an attack that nobody notices

    def run(self, stage: Stage, show: Show) -> str:
        """Perform it and see that it ended as it must.

        Raises:
            DemoFailed: it did not.
        """
        outcome = self.perform(stage, show)
        show.rest(stage)
        if self.proved_by:
            return self._proof(show.report)
        if not self.refused_by:
            return outcome
        refusals = {f"{record.actor} {record.name}": record for record in show.report.refusals()}
        record = refusals.get(self.refused_by)
        if record is None:
            found = ", ".join(sorted(refusals)) or "nothing"
            raise DemoFailed(f"the attack was to be refused by {self.refused_by}; what refused was {found}")
        detail = f" ({record.detail})" if record.detail else ""
        return f"refused by {record.actor}: {record.name.replace('-', ' ')}{detail} {' '.join(record.req)}".rstrip()

    def _proof(self, report: Report) -> str:
        record = next(
            (each for each in reversed(report.records) if f"{each.actor} {each.name}" == self.proved_by), None
        )
        if record is None or not record.passed:
            raise DemoFailed(f"the attack was to end with {self.proved_by}; it did not")
        return f"in vain: {record.name.replace('-', ' ')} ({record.detail}) {' '.join(record.req)}".rstrip()
