"""Store and command line of the PVA."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import select

from actor_runtime import cli as actor_cli
from actor_runtime.errors import ActorError
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from actor_runtime.trail_store import append_record
from pva import cli
from pva.app import MIGRATIONS
from pva.references import Reference, read_measurements
from pva.store import counters, repository, tables


def test_migrations_make_what_the_tables_say(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'pva.sqlite'}", MIGRATIONS)
    store.upgrade()
    differences = store.read_sync(lambda c: compare_metadata(MigrationContext.configure(c), tables.metadata))
    store.close()
    assert differences == []


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    config = tmp_path / "pva.toml"
    keys = ("tls_cert", "tls_key", "tls_ca", "signing_cert", "signing_key", "manufacturer_anchors")
    paths = "".join(f'{key} = "/nowhere/{key}"\n' for key in keys)
    config.write_text(
        f'pva_id = "urn:m2m:pva:x"\nallowed_clients = ["dpf.example"]\n'
        f'database_url = "sqlite:///{tmp_path}/pva.sqlite"\n{paths}'
    )

    def run(*arguments):
        monkeypatch.setattr(actor_cli, "configure_logs", lambda **_: None)
        monkeypatch.setattr(sys, "argv", ["pva", "--config", str(config), *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run


def test_reference_values_by_command_line(run):
    value = ("--tre-type", "software", "--version", "1.0")
    assert run("reference", "add", *value)[:2] == (0, "software 1.0: added\n")
    assert run("reference", "add", *value)[:2] == (0, "software 1.0: was there already\n")
    rows = json.loads(run("reference", "list", "--json")[1])
    assert [(row["treType"], row["version"]) for row in rows] == [("software", "1.0")]
    assert run("reference", "remove", *value)[0] == 0
    code, _, err = run("reference", "remove", *value)
    assert (code, "is not there" in err) == (1, True)
    assert json.loads(run("decision", "list", "--json")[1]) == []


DIGEST = "ab" * 32
VALUE = ("--tre-type", "tpm", "--version", "1")


def test_measurements_by_command_line(run, tmp_path):
    """REQ-17: minimum mode, quote and measurements are part of the entry; another `add` replaces it as a whole."""
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"bootloader": DIGEST}))
    full = (*VALUE, "--minimum-mode", "remote", "--requires-quote", "--measurements", str(file))
    typed = ("--measurement", "a=b=" + "CD" * 32, "--optional-measurement", f"debug={DIGEST}")
    assert run("reference", "add", *full, *typed)[:2] == (0, "tpm 1: added\n")
    assert run("reference", "add", *full, *typed)[:2] == (0, "tpm 1: was there already\n")
    (row,) = json.loads(run("reference", "list", "--json")[1])
    assert (row["minimumMode"], row["requiresQuote"]) == ("remote", True)
    assert row["measurements"] == {"bootloader": DIGEST, "a=b": "cd" * 32}
    assert row["optionalMeasurements"] == {"debug": DIGEST}
    assert run("reference", "list")[0] == 0
    assert run("reference", "add", *full)[:2] == (0, "tpm 1: changed\n")
    assert json.loads(run("reference", "list", "--json")[1])[0]["measurements"] == {"bootloader": DIGEST}
    assert run("reference", "remove", *VALUE)[0] == 0
    assert run("reference", "add", *VALUE)[:2] == (0, "tpm 1: added\n")
    (row,) = json.loads(run("reference", "list", "--json")[1])
    assert (row["minimumMode"], row["requiresQuote"], row["measurements"]) == ("semi-autonomous", False, {})


BAD_REFERENCES = {
    "digest too short": ("--measurement", "a=abcd"),
    "digest not hexadecimal": ("--measurement", "a=" + "xy" * 32),
    "no name": ("--measurement", f"={DIGEST}"),
    "a name no log can have": ("--measurement", f"kernél={DIGEST}"),
    "no digest": ("--measurement", "a"),
    "a name twice": ("--measurement", f"a={DIGEST}", "--measurement", f"a={DIGEST}"),
    "required and optional": ("--measurement", f"a={DIGEST}", "--optional-measurement", f"a={DIGEST}"),
    "remote without measurements": ("--minimum-mode", "remote"),
    "autonomous with a quote": ("--minimum-mode", "autonomous", "--requires-quote"),
    "no file": ("--measurements", "/nowhere/m.json"),
    "in file and on the command line": ("--measurements", "{file}", "--measurement", f"bootloader={DIGEST}"),
    "version too long": ("--version", "1" * 65),
}


@pytest.mark.parametrize("options", BAD_REFERENCES.values(), ids=BAD_REFERENCES)
def test_an_entry_that_cannot_be_meant(run, tmp_path, options):
    """REQ-17: told, and nothing is stored."""
    (tmp_path / "m.json").write_text(json.dumps({"bootloader": DIGEST}))
    filled = [each.replace("{file}", str(tmp_path / "m.json")) for each in options]
    code, _, err = run("reference", "add", *VALUE, *filled)
    assert (code, err.startswith("error: ")) == (1, True)
    assert json.loads(run("reference", "list", "--json")[1]) == []


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"a": 1}', '{"a": "x", "a": "y"}', "[" * 5000, '{"a": "' + "0" * 300_000 + '"}'],
    ids=["list", "half", "number", "twice", "deep", "long"],
)  # fmt: skip
def test_a_file_that_is_no_measurements(tmp_path, text):
    """REQ-17: a typed error for any file."""
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ActorError):
        read_measurements(path)


def test_entries_from_before_keep_their_demands(tmp_path):
    """REQ-17: an upgraded database asks of known types what it asked before."""
    store = Store(f"sqlite:///{tmp_path / 'pva.sqlite'}", MIGRATIONS)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))

    def old(connection):
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO reference_value VALUES ('software', '1.0', '2026-01-01 00:00:00')")

    with store._writer_engine.begin() as connection:
        old(connection)
    store.upgrade()
    assert store.read_sync(lambda c: repository.find_reference(c, "software", "1.0")) == Reference(
        tre_type="software", version="1.0"
    )
    store.close()


DAY = timedelta(days=1)
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def decision(number, *, tre_id="urn:tre:1", trusted=True):
    return repository.Decision(
        request_digest=bytes([number]) * 32,
        req_id=f"req-{number}",
        m2me_id="urn:m2me:1",
        tre_id=tre_id,
        mode="remote",
        client="dpf.example",
        trusted=trusted,
        reason="" if trusted else "measurements-known",
        detail="" if trusted else "measurements-known: rootkit",
        ticket="secret.ticket" if trusted else None,
        decided_at=NOW + number * DAY,
    )


def test_decisions_by_command_line(run, tmp_path):
    """REQ-71: filtered, newest first, and in full with the checks; tickets are not handed out."""
    store = Store(f"sqlite:///{tmp_path}/pva.sqlite", MIGRATIONS)
    store.upgrade()
    for each in (decision(1), decision(2, trusted=False), decision(3, tre_id="urn:tre:2")):
        store.write_sync(lambda c, one=each: repository.add_decision(c, one))
    trail = Trail("PVA", sink=lambda record: store.post(lambda c: append_record(c, tables.trail, record)))
    trail.check("measurements-known", False, req=("REQ-17",), step="10", detail="rootkit", order="req-2")
    store.close()
    for options, expected in {
        (): [3, 2, 1],
        ("--limit", "1"): [3],
        ("--tre", "urn:tre:1"): [2, 1],
        ("--trusted",): [3, 1],
        ("--refused",): [2],
        ("--since", "2026-06-03T12:00:00Z"): [3, 2],
        ("--since", "2026-06-03T12:00:01Z"): [3],
        ("--tre", "urn:tre:1", "--trusted", "--since", "2026-06-01"): [1],
    }.items():
        rows = json.loads(run("decision", "list", "--json", *options)[1])
        assert [row["id"] for row in rows] == expected, options
    code, out, _ = run("decision", "show", "2")
    shown = json.loads(out)
    assert (code, shown["detail"], shown["ticketDigest"]) == (0, "measurements-known: rootkit", None)
    assert [(check["name"], check["passed"]) for check in shown["checks"]] == [("measurements-known", False)]
    out = run("decision", "show", "1")[1]
    assert len(json.loads(out)["ticketDigest"]) == 64
    assert "secret.ticket" not in out
    assert run("decision", "show", "9")[0] == 1


def test_counters_by_command_line(run, tmp_path):
    """T3, REQ-71: how far TREs have counted; one that was made anew is let begin again, and the trail says by whom."""
    store = Store(f"sqlite:///{tmp_path}/pva.sqlite", MIGRATIONS)
    store.upgrade()
    for number, tre_id in ((1, "urn:tre:1"), (2, "urn:tre:2")):
        shown = counters.ShownCounter(tre_id=tre_id, counter=2**63 + number, attest_key_id=b"k" * 16)
        store.write_sync(
            lambda c, n=number, one=shown: counters.add_counted_decision(c, decision(n, tre_id=one.tre_id), one)
        )
    rows = json.loads(run("counter", "list", "--json")[1])
    assert [(row["treId"], row["counter"]) for row in rows] == [("urn:tre:2", 2**63 + 2), ("urn:tre:1", 2**63 + 1)]
    assert (rows[0]["attestKeyId"], rows[0]["accepted"]) == ("6b" * 16, "2026-06-03T12:00:00Z")
    assert len(json.loads(run("counter", "list", "--json", "--tre", "urn:tre:1")[1])) == 1
    assert run("counter", "reset", "urn:tre:1")[:2] == (0, f"urn:tre:1: reset, was {2**63 + 1}\n")
    code, _, err = run("counter", "reset", "urn:tre:1")
    assert (code, "no counter of urn:tre:1" in err) == (1, True)
    (record,) = store.read_sync(lambda c: c.execute(select(tables.trail)).all())
    assert json.loads(record.fields) == {"text": f"an operator reset the counter of urn:tre:1, which was {2**63 + 1}"}
    shown = counters.ShownCounter(tre_id="urn:tre:1", counter=1, attest_key_id=b"k" * 16)
    assert store.write_sync(lambda c: counters.add_counted_decision(c, decision(3), shown)).trusted
    store.close()


def test_serve_without_certificates_is_an_error_with_the_file_named(run):
    code, _, err = run("serve")
    assert (code, "/nowhere/tls_cert" in err) == (1, True)
