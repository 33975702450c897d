"""Databases for tests in one process: migrated once, and not waited for.

Nearly every test of an actor begins with an empty SQLite file. Its schema is always the same, so it is made by the real
migrations once for a process and copied from then on; and a test that ends with its process cannot tell a commit that
reached the disk from one that did not. Both hold for the actors' own migrations alone: `actor_runtime.store` itself is
tested with others, in `tests/unit/test_actor_runtime_store.py`, and real processes (`tests/e2e`) are as they are.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from actor_runtime.store import Store

ROOT = Path(__file__).parents[1]


def make_stores_quick(patch: pytest.MonkeyPatch) -> None:
    """What a test opens after this is quick, as long as `patch` lasts."""
    init, upgrade = Store.__init__, Store.upgrade
    made: dict[Path, bytes] = {}

    def template(migrations: Path) -> bytes:
        if migrations not in made:
            with tempfile.TemporaryDirectory() as directory:
                file = Path(directory) / "db.sqlite"
                store = Store(f"sqlite:///{file}", migrations)
                upgrade(store)
                store.close()  # the last connection puts the write-ahead log into the file
                made[migrations] = file.read_bytes()
        return made[migrations]

    def without_waiting(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    def quick_init(self: Store, url: str, migrations: Path) -> None:
        init(self, url, migrations)
        if migrations.is_relative_to(ROOT) and self._writer_engine.dialect.name == "sqlite":
            event.listen(self._writer_engine, "connect", without_waiting)

    def quick_upgrade(self: Store) -> None:
        url = self._writer_engine.url
        if url.get_backend_name() == "sqlite" and url.database and self._migrations.is_relative_to(ROOT):
            file = Path(url.database)
            if file.is_file() and not file.stat().st_size:
                file.write_bytes(template(self._migrations))
                return
        upgrade(self)

    patch.setattr(Store, "__init__", quick_init)
    patch.setattr(Store, "upgrade", quick_upgrade)
