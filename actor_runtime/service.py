"""How every actor starts and stops: what is opened before anything listens, and the way back, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy import Table

from actor_runtime.errors import ConfigError, UnsealError
from actor_runtime.http import Listener, serve
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail, TrailRecord
from actor_runtime.trail_store import append_record


def utc_now() -> datetime:
    """The clock of an actor."""
    return datetime.now(UTC)


def open_store(url: str, migrations: Path) -> Store:
    """The database, at its newest schema.

    Raises:
        StoreError: it cannot be opened or migrated.
    """
    store = Store(url, migrations)
    try:
        store.upgrade()
    except BaseException:
        store.close()
        raise
    return store


def open_seal_key(path: Path, what: str, sample: Callable[[SealingKey], object] | None) -> SealingKey:
    """The sealing key; made anew only while nothing is sealed with another.

    `what` is sealed with it, and `sample` opens one of these; None: there is none yet.

    Raises:
        ConfigError: the file is broken, or something was sealed and the key is missing or another one.
    """
    if not path.exists():
        if sample is None:
            return SealingKey.generate(path)
        raise ConfigError(
            f"sealing key {path} is missing",
            hint=f"the {what} in the database are sealed with it: restore it, or start with a new database",
        )
    key = SealingKey.load(path)
    if sample is not None:
        try:
            sample(key)
        except UnsealError as exc:
            raise ConfigError(
                f"sealing key {path} is not the one that the {what} in the database are sealed with",
                hint="restore that one, or start with a new database",
            ) from exc
    return key


def open_trail(actor: str, store: Store, table: Table, trace_file: Path | None) -> Trail:
    """The audit trail: in the database, and in the trace file where one is set."""

    def sink(record: TrailRecord) -> None:
        store.post(lambda connection: append_record(connection, table, record))

    return Trail(actor, sink=sink, trace_file=trace_file)


class Service(Protocol):
    """An actor that is put together and does not listen yet."""

    async def start(self) -> None:
        """Begin what goes on in the background."""

    async def close(self) -> None:
        """Write what is still to be written and let go."""


async def run_service(
    service: Service,
    listeners: Sequence[Listener],
    *,
    work: Coroutine[object, object, None] | None = None,
    ready_file: Path | None,
    stop: asyncio.Event | None = None,
) -> None:
    """Start an actor, serve until told to stop with `work` going on beside, and close it whatever happens.

    Raises:
        ConfigError: an address cannot be bound.
    """
    try:
        async with background(work) if work is not None else contextlib.nullcontext():
            await service.start()
            await serve(listeners, ready_file=ready_file, stop=stop)
    finally:
        await service.close()


@contextlib.asynccontextmanager
async def background(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Inside, `work` goes on; at the end it is cancelled."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
