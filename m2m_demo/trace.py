"""Records of the actors' trace files: one JSON object per line, one file per actor, merged by time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from m2m_demo.errors import BadRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of one actor's trail; which of the later fields are filled depends on `kind`."""

    ts: datetime  # UTC
    seq: int  # of that actor
    actor: str  # M2ME, DPF, SHO, SHO2, PVA, RO
    kind: str  # message, check, state, note
    step: str  # of TR 33.812 §5.1.3.7.1
    order: str | None = None
    direction: str = ""  # message: "M2ME→DPF"
    summary: str = ""
    octets: int = 0
    body: str | None = None  # redacted by the actor
    name: str = ""  # check
    passed: bool = False
    req: tuple[str, ...] = ()
    subject: str = ""  # state
    old: str = ""
    new: str = ""
    text: str = ""  # note
    detail: str = ""

    def renamed(self, names: Mapping[str, str]) -> Record:
        """The same with other names (old → new) for who tells it, and for the ends of a message."""
        ends = "→".join(names.get(end, end) for end in self.direction.split("→")) if self.direction else ""
        return replace(self, actor=names.get(self.actor, self.actor), direction=ends)

    @property
    def sender(self) -> str:
        """Who sent the message."""
        return self.direction.partition("→")[0]

    @property
    def receiver(self) -> str:
        """Who was to get the message."""
        return self.direction.partition("→")[2]


def parse_record(line: str) -> Record:
    """A line of a trace file; fields we do not know are passed over.

    Raises:
        BadRecord: it is not such a line.
    """
    try:
        values = json.loads(line)
        known: dict[str, Any] = {name: values[name] for name in Record.__dataclass_fields__ if name in values}
        known["ts"] = datetime.fromisoformat(known["ts"])
        known["req"] = tuple(known.get("req", ()))
        return Record(**known)
    except (KeyError, TypeError, ValueError) as exc:
        raise BadRecord(f"not a trace record: {exc!r}") from exc


@dataclass(slots=True)
class _Tail:
    path: Path
    offset: int = 0
    rest: bytes = b""  # an unfinished last line

    def lines(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                new = file.read()
        except FileNotFoundError:  # the actor has not begun yet
            return []
        self.offset += len(new)
        *whole, self.rest = (self.rest + new).split(b"\n")
        return [line.decode("utf-8") for line in whole if line]


@dataclass(slots=True)
class TraceReader:
    """Follows several trace files."""

    paths: tuple[Path, ...]
    names: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)  # file → names to change in its records
    _tails: list[_Tail] = field(init=False)
    _held: list[Record] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._tails = [_Tail(path) for path in self.paths]

    def read(self, until: datetime | None = None) -> list[Record]:
        """New records up to the time `until` (None: all there are), in order of time.

        Records are written as they are made, so with `until` a moment in the past no earlier one can follow.
        """
        for tail in self._tails:
            names = self.names.get(tail.path, {})
            self._held += [parse_record(line).renamed(names) for line in tail.lines()]
        self._held.sort(key=lambda record: record.ts)  # stable: an actor's own order stays
        ready = [record for record in self._held if until is None or record.ts <= until]
        self._held = self._held[len(ready) :]
        return ready


class Exchange:
    """Tells the first record of a message from that of its other end: both ends, or only one, may record it."""

    def __init__(self) -> None:
        self._unmatched: Counter[tuple[str, int, str]] = Counter()

    def is_new(self, record: Record) -> bool:
        """Whether no record of this message came before. Its ends agree on direction and size, not on words."""
        other = record.receiver if record.actor == record.sender else record.sender
        if self._unmatched[record.direction, record.octets, other] > 0:
            self._unmatched[record.direction, record.octets, other] -= 1
            return False
        self._unmatched[record.direction, record.octets, record.actor] += 1
        return True
