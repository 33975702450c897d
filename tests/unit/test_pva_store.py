"""Store and command line of the PVA."""

from __future__ import annotations

import json
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from actor_runtime.store import Store
from pva import cli
from pva.app import MIGRATIONS
from pva.store import tables


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
        monkeypatch.setattr(cli, "configure_logs", lambda **_: None)
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


def test_serve_without_certificates_is_an_error_with_the_file_named(run):
    code, _, err = run("serve")
    assert (code, "/nowhere/tls_cert" in err) == (1, True)
