"""Audit trail: every message, check and change of state, with its step and requirement, and without secrets (REQ-71).

`step` is the number of the step in TR 33.812 §5.1.3.7.1: 7 contact and bootstrap, 8 registration at the SHO, 9 to 11
platform validation, 12 MCIM object, 13 download, 14 provisioning and report, 15 report to the SHO, 16 attach.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Literal

import structlog

from actor_runtime.errors import ConfigError

_log = structlog.get_logger(__name__)

Kind = Literal["message", "check", "state", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailRecord:
    """One line of the trail."""

    ts: datetime  # UTC
    seq: int  # from 1 in this process
    actor: str  # "DPF", "SHO", "PVA", "M2ME"
    kind: Kind
    step: str
    order: str | None  # order id, where one is known
    fields: Mapping[str, object]  # what the kind has beside these; JSON values

    def to_json(self) -> str:
        """The record as one line of JSON."""
        record: dict[str, object] = {
            "ts": self.ts.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "seq": self.seq,
            "actor": self.actor,
            "kind": self.kind,
            "step": self.step,
        }
        if self.order is not None:
            record["order"] = self.order
        return json.dumps(record | dict(self.fields), ensure_ascii=False, separators=(",", ":"))


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Trail:
    """Writes records to a trace file, line by line, and gives each to a sink (the actor's database).

    One per process; safe to call from several threads. The database is the record, the trace file a copy for whoever
    follows it: a full disk under the file is told in the log and stops nothing.

    Raises:
        ConfigError: the trace file cannot be opened.
    """

    def __init__(
        self,
        actor: str,
        *,
        sink: Callable[[TrailRecord], None] | None = None,
        trace_file: Path | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._actor = actor
        self._sink = sink
        self._now = now
        self._lock = threading.Lock()
        self._seq = 0
        self._file: FileIO | None = None
        if trace_file is not None:
            try:
                trace_file.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered: whoever follows the file sees a record as soon as it is made. For its owner alone.
                self._file = FileIO(trace_file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))
            except OSError as exc:
                raise ConfigError(f"trace file {trace_file}: {exc.strerror}") from exc

    def message(
        self, *, step: str, direction: str, summary: str, octets: int, body: str | None = None, order: str | None = None
    ) -> None:
        """A message sent or received. `direction` is like "M2ME→DPF"; `body` is redacted by the caller."""
        fields: dict[str, object] = {"direction": direction, "summary": summary, "octets": octets}
        if body is not None:
            fields["body"] = body
        self._write("message", step, order, fields)

    def unreadable(
        self, *, step: str, direction: str, summary: str, octets: int, content_type: str, received: str | None
    ) -> None:
        """A body that is no message, in the trace file alone: anybody may send such, and `received` may hold secrets.

        Args:
            summary: what is wrong with it, and where.
            received: its beginning as it came; None where that is not to be kept.
        """
        fields: dict[str, object] = {"direction": direction, "summary": summary, "octets": octets}
        fields["contentType"] = content_type
        if received is not None:
            fields["received"] = received
        self._write("message", step, None, fields, to_sink=False)

    def check(
        self, name: str, passed: bool, *, req: tuple[str, ...], step: str, detail: str = "", order: str | None = None
    ) -> None:
        """A check made and its outcome. `name` is like "pva-ticket-signature", `req` like ("REQ-24",)."""
        self._write("check", step, order, {"name": name, "passed": passed, "req": list(req), "detail": detail})

    def state(self, subject: str, old: str, new: str, *, step: str, order: str | None = None, detail: str = "") -> None:
        """A change of state of an order, container, registration or subscription."""
        self._write("state", step, order, {"subject": subject, "old": old, "new": new, "detail": detail})

    def note(self, text: str, *, step: str, order: str | None = None) -> None:
        """Anything else worth telling."""
        self._write("note", step, order, {"text": text})

    def close(self) -> None:
        """Close the trace file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(
        self, kind: Kind, step: str, order: str | None, fields: Mapping[str, object], *, to_sink: bool = True
    ) -> None:
        with self._lock:  # seq and the order of lines agree
            self._seq += 1
            record = TrailRecord(
                ts=self._now(), seq=self._seq, actor=self._actor, kind=kind, step=step, order=order, fields=fields
            )
            if self._file is not None:
                try:
                    self._file.write((record.to_json() + "\n").encode())
                except OSError as exc:
                    _log.error("trail.file_failed", reason=exc.strerror)
            if self._sink is not None and to_sink:
                self._sink(record)
