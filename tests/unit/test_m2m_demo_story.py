"""The demo's story and report, on synthetic records."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from m2m_demo.errors import BadRecord
from m2m_demo.report import ATTACHED, Report
from m2m_demo.story import STEPS, WIDTH, Story, pretty_body
from m2m_demo.trace import Exchange, Record, TraceReader, parse_record

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def line(
    actor: str = "DPF", kind: str = "note", *, seq: int = 1, after_ms: int = 0, step: str = "7", **fields: Any
) -> str:
    ts = (START + timedelta(milliseconds=after_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"ts": ts, "seq": seq, "actor": actor, "kind": kind, "step": step} | fields, ensure_ascii=False)


def record(*arguments: Any, **fields: Any) -> Record:
    return parse_record(line(*arguments, **fields))


def told(*records: Record, verbose: bool = False, encoding: str = "utf-8", **options: Any) -> str:
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding, newline="\n", write_through=True)
    story = Story(
        Console(file=file, width=WIDTH, highlight=False, markup=False, emoji=False, **options), verbose=verbose
    )
    for each in records:
        story.tell(each)
    return buffer.getvalue().decode(encoding)


MESSAGE = {"direction": "M2ME→DPF", "summary": "package 1: Alert 1201, Replace DevInfo", "octets": 1234}
SENT = record("M2ME", "message", **MESSAGE)
RECEIVED = record("DPF", "message", after_ms=1, **MESSAGE)
PASSED = record("DPF", "check", name="pva-ticket", passed=True, req=["REQ-19", "REQ-24"], detail="", step="11")
FAILED = record("M2ME", "check", name="package-signature", passed=False, req=["REQ-50"], detail="1411", step="14")
STATE = record("DPF", "state", subject="order", old="OPEN", new="CONTACTED", detail="why", step="7")

SHOWN = {
    "message": (SENT, ["M2ME → DPF", "package 1: Alert 1201, Replace DevInfo", "1234 octets"]),
    "passed check": (PASSED, ["✓ DPF: pva ticket", "REQ-19 REQ-24", STEPS["11"]]),
    "failed check": (FAILED, ["✗ M2ME: package signature", "REQ-50", "1411"]),
    "state": (STATE, ["DPF: order OPEN → CONTACTED"]),
    "note": (record(text="all [bold]well[/bold]"), ["DPF: all [bold]well[/bold]"]),
    "step of no name": (record(step="99", text="x"), ["Step 99"]),
}


@pytest.mark.parametrize(("each", "words"), SHOWN.values(), ids=SHOWN)
def test_a_record_is_shown(each: Record, words: list[str]) -> None:
    """REQ-71: each check with pass or fail."""
    text = told(each)
    for word in words:
        assert word in text


ONE_ENDED = record("M2ME", "message", direction="SHO→M2ME", summary="challenge", octets=9, step="16")
ORDERS = {
    "sender first": ([SENT, RECEIVED], 1),
    "receiver first": ([RECEIVED, SENT], 1),
    "receiver alone": ([ONE_ENDED], 1),
    "the same twice": ([SENT, RECEIVED, SENT, RECEIVED], 2),
    "one end, twice": ([ONE_ENDED, ONE_ENDED], 2),
}


@pytest.mark.parametrize(("records", "messages"), ORDERS.values(), ids=ORDERS)
def test_a_message_counts_once_whoever_recorded_it(records: list[Record], messages: int) -> None:
    exchange = Exchange()
    assert sum(exchange.is_new(each) for each in records) == messages


def test_a_message_is_told_once_and_a_heading_stands_once_per_step() -> None:
    text = told(SENT, RECEIVED, STATE, PASSED)
    assert text.count("package 1") == 1
    assert text.count("Step 7") == 1
    assert text.count("Step 11") == 1


def test_lines_have_80_columns_and_no_control_characters() -> None:
    long = record("DPF", "check", name="x-" * 60, passed=True, req=["REQ-19"] * 20, detail="ö" * 300)
    text = told(SENT, long, record(text="word " * 60), verbose=True)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text
    assert "\r" not in text


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = told(FAILED, force_terminal=True)
    assert "31m" not in text


def test_an_ascii_terminal_gets_ascii_marks() -> None:
    assert "FAILED" in told(FAILED, encoding="ascii")


def test_bodies_are_shown_only_with_verbose() -> None:
    message = record("M2ME", "message", **MESSAGE, body="<SyncML><SyncHdr><VerDTD>1.2</VerDTD></SyncHdr></SyncML>")
    assert "VerDTD" not in told(message)
    assert "<VerDTD>1.2</VerDTD>" in told(message, verbose=True)


BODIES = {
    "XML is indented": ("<a><b>1</b></a>", ["<a>", "  <b>1</b>", "</a>"]),
    "other text stays": ("not <xml", ["not <xml"]),
    "an entity is not expanded": ('<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>', None),
    "a long one is cut": ("x\n" * 500, None),
}


@pytest.mark.parametrize(("body", "lines"), BODIES.values(), ids=BODIES)
def test_pretty_body(body: str, lines: list[str] | None) -> None:
    result = pretty_body(body)
    assert len(result) <= 121
    if lines is not None:
        assert result == lines


def test_traces_are_merged_by_time_and_an_unfinished_line_waits(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    reader = TraceReader((one, two, tmp_path / "never made"))
    assert reader.read() == []
    one.write_text(line(seq=1, after_ms=10, text="b") + "\n" + line(seq=2, after_ms=30, text="d") + "\n")
    late = line("SHO", seq=1, after_ms=20, text="c")
    two.write_text(line("SHO", after_ms=5, text="a") + "\n" + late[:10])
    assert [each.text for each in reader.read(until=START + timedelta(milliseconds=15))] == ["a", "b"]
    with two.open("a") as file:
        file.write(late[10:] + "\n")
    assert [each.text for each in reader.read()] == ["c", "d"]
    assert reader.read() == []


def test_two_of_a_kind_have_names_of_their_own(tmp_path: Path) -> None:
    """Who tells a record is renamed by file, the ends of its message by identity."""
    one, two = tmp_path / "sho", tmp_path / "sho2"
    for path in (one, two):
        path.write_text(line("SHO", "message", direction="SHO→DPF", summary="package", octets=1) + "\n")
    records = TraceReader((one, two), {two: {"SHO": "SHO2"}}).read()
    assert [(each.actor, each.direction) for each in records] == [("SHO", "SHO→DPF"), ("SHO2", "SHO2→DPF")]
    attach = record("M2ME", "message", direction="M2ME→sho2.example", summary="RES", octets=1)
    assert attach.renamed({"sho2.example": "SHO2"}).direction == "M2ME→SHO2"
    assert record(text="a note").renamed({"": "nobody"}).direction == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"ts": 1}', line(kind="note").replace("2026", "year")])
def test_what_is_no_record_is_a_reason(text: str) -> None:
    with pytest.raises(BadRecord):
        parse_record(text)


SEEN_BY_DEVICE = record("M2ME", "check", name="aka-accepted-by-network", passed=True, req=["REQ-69"], step="16")
SEEN_BY_HOME = record("SHO", "check", name="aka-response", passed=True, req=["REQ-69"], step="16")
REFUSED_AT_HOME = record("SHO", "check", name="aka-response", passed=False, req=["REQ-69"], step="16")

VERDICTS = {
    "both": ([SEEN_BY_DEVICE, SEEN_BY_HOME], "", 0),
    "the device alone": ([SEEN_BY_DEVICE], "", 1),
    "the home operator alone": ([SEEN_BY_HOME], "", 1),
    "wrong RES": ([SEEN_BY_DEVICE, REFUSED_AT_HOME], "", 1),
    "both, but something else failed": ([SEEN_BY_DEVICE, SEEN_BY_HOME], "interrupted", 1),
    "nothing": ([], "", 1),
}


@pytest.mark.parametrize(("records", "reason", "status"), VERDICTS.values(), ids=VERDICTS)
def test_the_report_is_good_only_after_both_ends_saw_the_attach(
    records: list[Record], reason: str, status: int
) -> None:
    """REQ-69: the proof is the attach, not a status."""
    document = Report(device_id="urn:x", records=list(records), outcome=ATTACHED, reason=reason).to_json()
    assert document["exit"]["status"] == status
    assert document["exit"]["reason"]
    assert json.dumps(document)


def test_the_report_lists_checks_and_messages() -> None:
    document = Report(device_id="urn:x", records=[SENT, RECEIVED, PASSED]).to_json()
    assert document["checks"] == [
        {"name": "pva-ticket", "req": ["REQ-19", "REQ-24"], "step": "11", "actor": "DPF", "passed": True, "detail": ""}
    ]
    assert [message["octets"] for message in document["messages"]] == [1234]


GATED = [
    record("M2ME", step="1"), record("RO", step="2"), record("PVA", step="10"), record("RO", step="3"),
    record("PVA", step="11"), record("RO", step="4"), record("M2ME", step="7"), record("DPF", step="8"),
    record("DPF", step="7"), record("DPF", step="9"), record("PVA", step="10"), record("PVA", step="11"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "headings"),
    [(GATED, "1 2 3 4 7 8 9 10 11"), ([record("SHO", step=each) for each in ("8", "7", "8", "9", "7")], "8 7 9")],
    ids=["registered by the device, the gate asks the PVA", "called by its home operator"],
)
def test_every_step_has_one_heading(records: list[Record], headings: str) -> None:
    """TR 33.812 §5.1.3.7.1: 7 and 8 come in either order; what the PVA does for the gate belongs to step 3."""
    shown = [line.split()[1] for line in told(*records).splitlines() if line.startswith("Step ")]
    assert shown == headings.split()
