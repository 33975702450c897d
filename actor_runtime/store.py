"""An actor's database: SQLAlchemy Core, one writer thread with group commit, a small pool of readers.

A unit of work is a function of a connection. The writer runs all units that wait in one transaction, each in a
savepoint of its own, commits once, and only then wakes the callers: "done" means on disk. A unit that fails is rolled
back alone.
A unit must be short and must not wait for anything outside the database.
"""

from __future__ import annotations

import asyncio
import os
import queue
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from actor_runtime.errors import StoreError

MAX_GROUP: Final = 256  # units in one transaction
READERS: Final = 4
BUSY_TIMEOUT_MS: Final = 10_000  # another process (a command line) may hold the write lock for a moment

NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""How indexes and constraints are named in the tables of an actor, so that migrations can name them too."""

_REVISION: Final = re.compile(r'^revision = "(\w+)"$', re.MULTILINE)
_DOWN_REVISION: Final = re.compile(r'^down_revision = (?:None|"(\w+)")$', re.MULTILINE)

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class _Unit(Generic[T]):
    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.future: Future[T] = Future()


class Store:
    """One database. `migrations` is the Alembic script directory of the actor that owns it.

    Raises:
        StoreError: the URL is none, or the file cannot be made.
    """

    def __init__(self, url: str, migrations: Path) -> None:
        self._migrations = migrations
        try:
            self._writer_engine = _engine(url, begin="BEGIN IMMEDIATE", pool_size=1)
            self._reader_engine = _engine(url, begin="BEGIN", pool_size=READERS)
            self._prepare_file(url)
        except (ArgumentError, ImportError, ValueError) as exc:  # not the URL itself: it may hold a password
            raise StoreError(
                f"database_url: {type(exc).__name__}", hint="sqlite:///FILE or postgresql+psycopg://…"
            ) from None
        self._queue: queue.SimpleQueue[_Unit[Any] | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._closed = False
        self._writer = threading.Thread(target=self._write_groups, name="store-write", daemon=True)
        self._writer.start()

    def upgrade(self) -> None:
        """Bring the schema to the newest migration; two processes may do so at once.

        Raises:
            StoreError: the database cannot be opened or migrated, or was migrated by a newer program.
        """
        if self._is_newest():
            return
        # Imported here: it takes longer than most commands do, and hardly any finds a database that is not the newest.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(self._migrations).replace("%", "%%"))
        try:
            with self._writer_engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (SQLAlchemyError, CommandError) as exc:
            raise StoreError(f"database {self._reader_engine.url!r}: {exc}") from exc

    def _is_newest(self) -> bool:
        """Whether Alembic has nothing to do; False whenever that is not plain."""
        newest = _newest_revision(self._migrations)
        if newest is None:
            return False
        try:
            found = self.read_sync(
                lambda connection: connection.scalars(text("SELECT version_num FROM alembic_version")).all()
            )
        except SQLAlchemyError:  # a new database has no such table; whatever else is wrong, the migration meets it too
            return False
        return found == [newest]

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a unit on the writer thread; return after its commit, or raise what it raised, rolled back."""
        return await asyncio.wrap_future(self._submit(work))

    def write_sync(self, work: Callable[[Connection], T]) -> T:
        """`write` for a command line."""
        return self._submit(work).result()

    def post(self, work: Callable[[Connection], object]) -> None:
        """Hand over a unit without waiting. It is committed before or with every unit handed over later."""
        self._submit(work).add_done_callback(_log_failure)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a reading unit in the pool, on what is committed."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_sync, work)

    def read_sync(self, work: Callable[[Connection], T]) -> T:
        """`read` for a command line."""
        with self._reader_engine.connect() as connection:
            return work(connection)

    def close(self) -> None:
        """Finish what was handed over, then let go of everything."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._writer.join()
        self._readers.shutdown()
        self._writer_engine.dispose()
        self._reader_engine.dispose()

    def _submit(self, work: Callable[[Connection], T]) -> Future[T]:
        if self._closed:
            raise StoreError("the store is closed")
        unit = _Unit(work)
        self._queue.put(unit)
        return unit.future

    @staticmethod
    def _prepare_file(url: str) -> None:
        """A new SQLite file belongs to its owner alone."""
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
            return
        path = Path(parsed.database)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as exc:
            raise StoreError(f"database {path}: {exc.strerror}") from exc

    def _write_groups(self) -> None:
        ending = False
        while not ending:
            units: list[_Unit[Any]] = []
            item = self._queue.get()
            while True:
                if item is None:
                    ending = True
                    break
                units.append(item)
                if len(units) == MAX_GROUP:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if units:
                self._write_group([unit for unit in units if unit.future.set_running_or_notify_cancel()])

    def _write_group(self, units: list[_Unit[Any]]) -> None:
        done: list[tuple[_Unit[Any], Any]] = []
        failed: list[tuple[_Unit[Any], Exception]] = []
        try:
            with self._writer_engine.begin() as connection:
                for unit in units:
                    savepoint = connection.begin_nested()
                    try:
                        result = unit.work(connection)
                        savepoint.commit()
                    except Exception as exc:  # goes to the unit's caller; the other units go on
                        savepoint.rollback()
                        failed.append((unit, exc))
                    else:
                        done.append((unit, result))
        except Exception as exc:  # the group did not reach the disk: nobody may believe it did
            for unit in units:
                lost = StoreError(f"commit failed: {exc}")
                lost.__cause__ = exc
                unit.future.set_exception(lost)
            return
        for unit, error in failed:
            unit.future.set_exception(error)
        for unit, result in done:
            unit.future.set_result(result)


def _newest_revision(migrations: Path) -> str | None:
    """The one revision that no other follows, read from the scripts without running them; None: that is for Alembic."""
    followed: dict[str, str | None] = {}
    for script in (migrations / "versions").glob("*.py"):
        if script.name == "__init__.py":
            continue
        source = script.read_text(encoding="utf-8")
        own, before = _REVISION.findall(source), _DOWN_REVISION.findall(source)
        if len(own) != 1 or len(before) != 1:
            return None
        followed[own[0]] = before[0] or None
    newest = followed.keys() - followed.values()
    return newest.pop() if len(newest) == 1 else None


def _engine(url: str, *, begin: str, pool_size: int) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, pool_pre_ping=False, hide_parameters=True)
    if engine.dialect.name != "sqlite":
        return engine

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 (the driver's own type)
        # The driver would begin transactions by itself and too late, and break savepoints; we say BEGIN ourselves.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",  # a commit survives loss of power
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _log_failure(future: Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("store.unit_failed", error=str(error))
