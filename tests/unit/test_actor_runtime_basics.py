"""Settings, logs, trail and sealing of the actors."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic_settings import SettingsConfigDict
from rich.console import Console
from sqlalchemy import MetaData, create_engine

from actor_runtime import cli, logs
from actor_runtime.config import ActorSettings, ListenAddress, load_settings
from actor_runtime.errors import ActorError, ConfigError, UnsealError
from actor_runtime.sealing import SealingKey
from actor_runtime.traced import MAX_OCTETS, MAX_TEXT, loose_text, octets_text
from actor_runtime.trail import Trail
from actor_runtime.trail_store import append_record, records_of, trail_table
from syncml.model import Add, Item, Sequence


class Settings(ActorSettings):
    model_config = SettingsConfigDict(env_prefix="XYZ_")

    name: str
    partner: ListenAddress = ListenAddress()
    limit_s: float = 1.0


# --- settings ---------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file_key_by_key(tmp_path, monkeypatch):
    path = tmp_path / "x.toml"
    path.write_text('name = "file"\nlimit_s = 2.5\n[partner]\nhost = "::1"\nport = 1\n')
    monkeypatch.setenv("XYZ_PARTNER__PORT", "2")
    monkeypatch.setenv("XYZ_SERVICE_HOST", "set by an orchestrator")
    settings = load_settings(Settings, path)
    assert (settings.name, settings.limit_s) == ("file", 2.5)
    assert settings.partner == ListenAddress(host="::1", port=2)
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "other"


BAD_FILES = {
    "unknown key": ('name = "x"\nnmae = "y"\n', "nmae: unknown key"),
    "unknown nested key": ('name = "x"\n[partner]\nprt = 1\n', "partner.prt: unknown key"),
    "missing key": ("limit_s = 1\n", "name: "),
    "value out of range": ('name = "x"\n[partner]\nport = 70000\n', "partner.port: "),
    "not TOML": ("name = ", "not TOML"),
}


@pytest.mark.parametrize(("content", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named_with_its_key_and_without_values(tmp_path, content, expected):
    path = tmp_path / "bad.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(Settings, path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    assert "70000" not in str(caught.value)


@pytest.mark.parametrize("value", ["{", "top-secret", "[1, 2"])
def test_an_environment_value_that_is_no_json_is_named_and_not_repeated(monkeypatch, value):
    """T1: tables and lists are JSON there; a slip is an error with a hint, and what was typed may be a secret."""
    monkeypatch.setenv("XYZ_NAME", "x")
    monkeypatch.setenv("XYZ_PARTNER", value)
    with pytest.raises(ConfigError, match="partner") as caught:
        load_settings(Settings, None)
    assert value not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_file_is_a_typed_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_settings(Settings, tmp_path / "none.toml")


# --- logs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_logs_redact_and_take_in_library_events(monkeypatch, log_format):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.configure_logs(log_format=log_format, level="info")
        structlog.get_logger("x").info("made", imsi="001010123456789", body={"K": "00ff"}, mask="00101********89")
        logging.getLogger("library").warning("careful")
    finally:
        root.handlers[:], _ = before, root.setLevel(level)
        structlog.reset_defaults()
    text = stream.getvalue()
    assert "001010123456789" not in text
    assert "00ff" not in text
    assert "00101********89" in text
    assert "careful" in text
    if log_format == "json":
        assert [json.loads(line)["event"] for line in text.splitlines()] == ["made", "careful"]


def test_nothing_from_outside_makes_a_line_or_moves_the_cursor(monkeypatch):
    """T12: peers' text in a console log stays where it is; with JSON the format itself sees to it."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    hostile = "a\x1b[2J\u2028b\x85\u202ec\rd"
    try:
        logs.configure_logs(log_format="console", level="info")
        log = structlog.get_logger("x")
        log.info("refused", path=hostile, deep={"a": [hostile]})
        logging.getLogger("library").warning("line\nforged %s", hostile)
        try:
            raise ValueError(hostile)
        except ValueError:
            log.exception("failed")
    finally:
        root.handlers[:], _ = before, root.setLevel(level)
        structlog.reset_defaults()
    text = stream.getvalue()
    assert "a\\x1b[2J\\u2028b\\x85\\u202ec\\x0dd" in text
    assert not any(character in text for character in "\x1b\u2028\x85\u202e\r")
    assert "line\\x0aforged" in text
    assert "\nTraceback" in text  # a traceback is still one


# --- trail ------------------------------------------------------------------------------------------


def test_trail_records_are_lines_of_json_and_rows_in_the_database(tmp_path):
    """REQ-71: every check with pass or fail."""
    path, sunk = tmp_path / "trace" / "sho.jsonl", []
    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    trail = Trail("SHO", sink=sunk.append, trace_file=path, now=lambda: moment)
    trail.message(step="12", direction="DPF→SHO", summary="handover", octets=5, body="<a/>", order="o1")
    trail.check("pva-ticket", False, req=("REQ-24", "REQ-27"), step="12", detail="expired", order="o1")
    trail.state("subscription", "allocated", "armed", step="15", order="o2")
    trail.note("hello", step="8")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]  # before close: flushed
    trail.close()
    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    assert lines[1] == {
        "ts": "2026-01-02T03:04:05.678Z", "seq": 2, "actor": "SHO", "kind": "check", "step": "12", "order": "o1",
        "name": "pva-ticket", "passed": False, "req": ["REQ-24", "REQ-27"], "detail": "expired",
    }  # fmt: skip
    assert "order" not in lines[3]

    metadata = MetaData()
    table = trail_table(metadata)
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        for record in sunk:
            append_record(connection, table, record)
        stored = records_of(connection, table, "o1")
    engine.dispose()
    assert [{k: v for k, v in line.items() if k != "seq"} for line in lines[:2]] == stored


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_under_the_trace_file_loses_no_record_and_stops_nothing():
    """REQ-71: the database is the record."""
    sunk = []
    trail = Trail("SHO", sink=sunk.append, trace_file=Path("/dev/full"))
    trail.note("one", step="1")
    trail.note("two", step="1")
    trail.close()
    assert [record.fields["text"] for record in sunk] == ["one", "two"]


def test_a_trace_file_is_for_its_owner(tmp_path):
    """T13: it names devices."""
    path = tmp_path / "trace.jsonl"
    Trail("RO", trace_file=path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- sealing ----------------------------------------------------------------------------------------

KEY = SealingKey(bytes(range(32)))


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_what_is_sealed_opens(plaintext, aad):
    sealed = KEY.seal(plaintext, aad)
    assert KEY.open(sealed, aad) == plaintext
    assert sealed != KEY.seal(plaintext, aad)


@given(st.binary(max_size=80))
def test_any_octets_open_or_are_a_typed_error(octets):
    with pytest.raises(UnsealError):
        KEY.open(octets, b"")


def test_another_place_key_or_bit_does_not_open():
    sealed = KEY.seal(b"k", b"row 1")
    for octets, aad, key in (
        (sealed, b"row 2", KEY),
        (sealed, b"row 1", SealingKey(bytes(32))),
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), b"row 1", KEY),
        (b"\x02" + sealed[1:], b"row 1", KEY),
    ):
        with pytest.raises(UnsealError):
            key.open(octets, aad)


def test_key_file(tmp_path):
    path = tmp_path / "keys" / "seal.key"
    key = SealingKey.generate(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SealingKey.load(path).open(key.seal(b"x", b""), b"") == b"x"
    assert key.derive(b"index") != key.derive(b"other")
    assert "seal" not in repr(key).lower().replace("sealingkey", "")
    with pytest.raises(ConfigError):
        SealingKey.generate(path)  # would make everything sealed unreadable
    for content in (b"***", b"QUJD", b""):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"seal\.key"):
            SealingKey.load(path)
    with pytest.raises(ConfigError):
        SealingKey.load(tmp_path / "none")


def test_a_key_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch):
    """Half a key in the file would keep the actor from ever making a whole one."""

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space"):
        SealingKey.generate(tmp_path / "seal.key")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_key_that_others_may_read_is_told(tmp_path, mode, told):
    """T9"""
    path = tmp_path / "seal.key"
    SealingKey.generate(path)
    path.chmod(mode)
    with structlog.testing.capture_logs() as events:
        SealingKey.load(path)
    assert [each["event"] for each in events] == ["key.exposed"] * told


# --- command line -----------------------------------------------------------------------------------


def test_an_error_that_can_be_mended_is_a_hint_and_status_1(capsys):
    def app():
        raise ActorError("no such thing", hint="make one")

    with pytest.raises(SystemExit) as caught:
        cli.run(app)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: no such thing\nhint: make one\n"


def test_help_of_a_command_needs_no_settings_and_serve_reads_them_once(tmp_path, monkeypatch, capsys):
    ran = []

    async def run_actor(settings):
        ran.append(settings.name)

    monkeypatch.setattr(cli, "configure_logs", lambda **_: None)
    config = tmp_path / "x.toml"
    config.write_text('name = "one"\n')
    for arguments, code, told in (
        (["serve", "--help"], 0, "Run the X until"),
        (["serve"], 1, "name: "),
        (["--config", str(config), "serve"], 0, ""),
    ):
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.run(cli.actor_app("X", "An actor.", Settings, run_actor))
        assert (caught.value.code or 0) == code
        assert told in "".join(capsys.readouterr())
    assert ran == ["one"]


def test_rows_as_table_and_as_json(capsys):
    rows = [{"id": "a", "note": None}]
    cli.show_rows(rows, as_json=True)
    assert json.loads(capsys.readouterr().out) == rows
    cli.show_rows(rows, as_json=False)
    assert "note" in capsys.readouterr().out
    cli.show_rows([], as_json=False)
    assert "nothing" in capsys.readouterr().out


LONG = "urn:imei:004999010640000/" + "0123456789abcdef" * 20


@pytest.mark.parametrize("columns", [40, None], ids=["terminal", "no terminal"])
def test_no_value_of_a_table_is_cut(capsys, monkeypatch, columns):
    """An id can be copied: a terminal folds it, a file or pipe has each row on one line. Brackets are no mark-up."""
    if columns is not None:
        monkeypatch.setattr(cli, "Console", lambda: Console(force_terminal=True, width=columns, no_color=True))
    cli.show_rows([{"id": LONG, "detail": "[/red] [bold]x", "more": "\x1b[2J"}], as_json=False)
    told = capsys.readouterr().out
    assert "…" not in told
    assert all(part in told for part in ("[bold]x", "\\x1b[2J")) or columns
    cells = [line.split("│")[1].strip() for line in told.splitlines() if line.startswith("│")]
    assert "".join(cells) == LONG
    assert len(cells) == 1 or columns


def test_one_thing_is_shown_for_people(capsys):
    """None, truth values and lists as a person writes them; what is inside of a value indented; JSON as it is."""
    values = {
        "a": None, "b": False, "c": True, "d": ["x", "y"], "e": [], "f": {"g": None, "h": [1]},
        "i": [{"j": 1}, {"j": "two\nlines"}], "k": "",
    }  # fmt: skip
    cli.show(values, as_json=False)
    assert capsys.readouterr().out == (
        "a: -\nb: no\nc: yes\nd: x, y\ne: -\nf:\n  g: -\n  h: 1\ni:\n  j: 1\n\n  j: two\\nlines\nk: \n"
    )
    cli.show(values, as_json=True)
    assert json.loads(capsys.readouterr().out) == values
    cli.show_rows([values], as_json=False)
    assert "g=-, h=1" in capsys.readouterr().out


def test_a_traceback_has_no_local_variables(monkeypatch):
    """Locals of a traceback hold secrets; no application may ask for them."""
    app = typer.Typer(pretty_exceptions_show_locals=True)

    @app.command()
    def fail() -> None:
        raise ActorError("no")

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit):
        cli.run(app)
    assert app.pretty_exceptions_show_locals is False


OCTETS = {
    "text": (b'<SyncML xmlns="SYNCML:SYNCML1.2">\xc3\xa4</Sync', '<SyncML xmlns="SYNCML:SYNCML1.2">ä</Sync'),
    "a terminal's orders": (b"<SyncML>plain text, \x1b[2J\n and more", "<SyncML>plain text, \\x1b[2J\\n and more"),
    "no UTF-8": (b"<SyncML>Fran\xe7ais</SyncML>", "<SyncML>Fran\\xe7ais</SyncML>"),
    "WBXML": (b"\x02\xa4\x01\x6a\x00", "02 a4 01 6a 00"),
    "nothing": (b"", ""),
    "too long": (b"x" * (MAX_OCTETS + 7), "x" * MAX_OCTETS + "… 7 octets more"),
    "too long, binary": (b"\0" * (MAX_OCTETS + 7), "00 " * (MAX_OCTETS - 1) + "00… 7 octets more"),
}


@pytest.mark.parametrize(("body", "told"), OCTETS.values(), ids=OCTETS)
def test_octets_that_are_no_message_as_a_person_reads_them(body, told):
    assert octets_text(body) == told


def test_loose_text_is_bounded_and_can_be_encoded():
    """Characters that neither XML nor UTF-8 has are spelled out; the rest of a long message is counted."""
    text = loose_text(Sequence(cmd_id="1", commands=(Add(items=(Item(data="\ud800" * MAX_TEXT),)),)), why="it is long")
    assert text.encode()
    assert text.startswith('[not to be written as XML: it is long] {"Sequence":{"cmd_id":"1","commands":[{"Add":')
    assert "characters more" in text[-40:]
    assert len(text) < MAX_TEXT + 100


def test_unreadable_bodies_are_in_the_trace_file_alone(tmp_path):
    """REQ-28: they may hold secrets, and anybody may send them: the database gets none."""
    records = []
    trail = Trail("DPF", sink=records.append, trace_file=tmp_path / "t")
    trail.unreadable(step="7", direction="a", summary="s", octets=3, content_type="t", received="abc")
    trail.unreadable(step="7", direction="a", summary="s", octets=3, content_type="t", received=None)
    trail.close()
    first, second = (json.loads(line) for line in (tmp_path / "t").read_text().splitlines())
    assert (first["kind"], first["received"], first["contentType"]) == ("message", "abc", "t")
    assert "received" not in second
    assert records == []
