"""The store: group commit, savepoints, durability of what was acknowledged, migrations (docs/adr/0004)."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from actor_runtime.errors import StoreError
from actor_runtime.store import Store

ENV = "from actor_runtime.migrations import run\nfrom sqlalchemy import MetaData\nrun(MetaData())\n"
FIRST = """
import sqlalchemy as sa
from alembic import op
revision = "0001"
down_revision = None
def upgrade():
    op.create_table("item", sa.Column("name", sa.String, primary_key=True))
    key = sa.ForeignKey("item.name", deferrable=True, initially="DEFERRED")
    op.create_table("part", sa.Column("item", sa.String, key))
"""


@pytest.fixture
def migrations(tmp_path):
    directory = tmp_path / "migra%tions"  # a per cent sign in a path is nobody's business
    (directory / "versions").mkdir(parents=True)
    (directory / "env.py").write_text(ENV)
    (directory / "versions" / "v0001.py").write_text(FIRST)
    return directory


@pytest.fixture
def store(tmp_path, migrations):
    store = Store(f"sqlite:///{tmp_path / 'deep' / 'db.sqlite'}", migrations)
    store.upgrade()
    store.upgrade()  # nothing left to do is fine
    yield store
    store.close()


def add(name):
    return lambda connection: connection.execute(text("INSERT INTO item VALUES (:name)"), {"name": name})


def names(connection):
    return set(connection.execute(text("SELECT name FROM item")).scalars())


async def test_acknowledged_units_survive_and_a_failing_one_is_rolled_back_alone(store):
    def half_done(connection):
        add("half")(connection)
        raise LookupError("changed my mind")

    units = [add("a"), half_done, add("b"), add("a"), add("c")]
    results = await asyncio.gather(*map(store.write, units), return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, True, False, True, False]
    assert isinstance(results[1], LookupError)
    assert await store.read(names) == {"a", "b", "c"}


async def test_waiting_units_share_one_transaction(store):
    """Units handed over while one runs are committed together: a reader sees all of them or none."""
    entered, go_on = threading.Event(), threading.Event()

    def slow(connection):
        entered.set()
        assert go_on.wait(10)

    first = asyncio.create_task(store.write(slow))
    await asyncio.to_thread(entered.wait, 10)
    seen = []
    rest = [asyncio.create_task(store.write(add(str(number)))) for number in range(20)]
    last = asyncio.create_task(store.write(lambda connection: seen.append(store.read_sync(names))))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, *rest, last)
    assert seen == [set()]  # inside the group nothing of it was committed yet
    assert len(await store.read(names)) == 20


async def test_posted_units_come_before_later_ones_and_close_finishes_them(tmp_path, migrations):
    url = f"sqlite:///{tmp_path / 'db.sqlite'}"
    store = Store(url, migrations)
    store.upgrade()
    store.post(add("posted"))
    assert await store.write(names) == {"posted"}
    store.post(add("late"))
    store.close()
    with pytest.raises(StoreError):
        store.write_sync(names)
    again = Store(url, migrations)
    assert again.read_sync(names) == {"posted", "late"}
    again.close()


def test_sqlite_is_durable_and_private(store, tmp_path):
    pragmas = store.write_sync(
        lambda c: [c.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous", "foreign_keys")]
    )
    assert pragmas == ["wal", 2, 1]
    assert stat.S_IMODE((tmp_path / "deep" / "db.sqlite").stat().st_mode) == 0o600


def test_a_database_that_cannot_be_made_is_a_typed_error(tmp_path, migrations):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        Store(f"sqlite:///{tmp_path / 'file' / 'db.sqlite'}", migrations)


@pytest.mark.parametrize("url", ["no url: pass-word", "nobase://u:pass-word@x/y", "sqlite+none:///x", "http://[::1"])
def test_a_url_that_is_none_is_a_typed_error_without_it(migrations, url):
    """T1: it may hold a password."""
    with pytest.raises(StoreError, match="database_url") as caught:
        Store(url, migrations)
    assert "pass-word" not in str(caught.value)


def test_a_failed_commit_is_told_to_every_unit(tmp_path, migrations):
    store = Store(f"sqlite:///{tmp_path / 'db.sqlite'}", migrations)
    store.upgrade()

    def break_rule_seen_at_commit(connection):
        connection.execute(text("INSERT INTO part VALUES ('of nothing')"))

    with pytest.raises(StoreError, match="commit failed"):
        store.write_sync(break_rule_seen_at_commit)
    store.write_sync(add("after"))
    assert store.read_sync(names) == {"after"}
    store.close()


def test_store_module_has_no_sqlite_outside_the_engine_setup():
    """The same code is meant for PostgreSQL: only the engine set-up and the file's mode know SQLite."""
    source = Path(__import__("actor_runtime.store", fromlist=["x"]).__file__).read_text()
    assert source.count("PRAGMA") == 1


SECOND = """
import sqlalchemy as sa
from alembic import op
revision = "0002"
down_revision = "0001"
def upgrade():
    op.create_table("later", sa.Column("name", sa.String))
"""
FORK = [SECOND, SECOND.replace('"0002"', '"0003"')]
UNUSUAL = SECOND.replace('"0002"', "'0002'")  # Alembic can read it, the short cut cannot


def upgraded(path, migrations):
    store = Store(f"sqlite:///{path}", migrations)
    try:
        store.upgrade()
    finally:
        store.close()


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


@pytest.mark.parametrize(
    ("before", "scripts", "with_alembic"),
    [
        pytest.param([], [FIRST], True, id="fresh"),
        pytest.param([FIRST], [FIRST], False, id="newest"),
        pytest.param([FIRST], [FIRST, SECOND], True, id="old"),
        pytest.param([FIRST], [FIRST, UNUSUAL], True, id="old, and not plain from the scripts"),
        pytest.param([FIRST, SECOND], [FIRST, SECOND], False, id="newest of two"),
    ],
)
def test_alembic_is_loaded_for_a_database_that_is_not_the_newest(
    tmp_path, migrations, monkeypatch, before, scripts, with_alembic
):
    """A command must not wait for what it has no use for, and the schema is the newest after it in any case."""
    path = tmp_path / "db.sqlite"
    versions = migrations / "versions"
    (versions / "__init__.py").touch()
    for number, script in enumerate(before, 1):
        (versions / f"v{number:04}.py").write_text(script)
        upgraded(path, migrations)
    for number, script in enumerate(scripts, 1):
        (versions / f"v{number:04}.py").write_text(script)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "alembic", None)  # its import fails
        if with_alembic:
            with pytest.raises(ImportError):
                upgraded(path, migrations)
        else:
            upgraded(path, migrations)
    upgraded(path, migrations)
    assert ("later" in tables(path)) == (len(scripts) == 2)
    assert "item" in tables(path)


@pytest.mark.parametrize(
    ("change", "scripts"),
    [
        pytest.param("UPDATE alembic_version SET version_num = '0009'", [], id="newer than the program"),
        pytest.param("DELETE FROM alembic_version", [], id="half migrated: the tables without their version"),
        pytest.param("INSERT INTO alembic_version VALUES ('0009')", [], id="two versions"),
        pytest.param("SELECT 1", FORK, id="two scripts follow one"),
        pytest.param("UPDATE alembic_version SET version_num = '0002'", FORK, id="one way of a fork"),
        pytest.param("UPDATE alembic_version SET version_num = '0003'", FORK, id="the other way"),
    ],
)
def test_a_database_that_cannot_be_brought_to_the_newest_schema_is_a_typed_error(tmp_path, migrations, change, scripts):
    path = tmp_path / "db.sqlite"
    upgraded(path, migrations)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    for number, script in enumerate(scripts):
        (migrations / "versions" / f"more{number}.py").write_text(script)
    with pytest.raises(StoreError, match="database"):
        upgraded(path, migrations)
    assert "later" not in tables(path)
