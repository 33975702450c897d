"""Start and stop of an actor: what was opened is closed, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from sqlalchemy import MetaData

from actor_runtime import service
from actor_runtime.config import ListenAddress
from actor_runtime.errors import ConfigError, StoreError
from actor_runtime.http import Listener, new_application
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail_store import trail_table


class Actor:
    """Notes what is asked of it."""

    def __init__(self, broken: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.broken = broken

    async def start(self) -> None:
        self.calls.append("start")
        if self.broken is not None:
            raise self.broken

    async def close(self) -> None:
        self.calls.append("close")

    async def work(self) -> None:
        self.calls.append("work")
        try:
            await asyncio.Event().wait()
        finally:
            self.calls.append("work ends")


def listener(port: int = 0) -> Listener:
    return Listener.at(ListenAddress(port=port), "partner", new_application(), None)


async def test_an_actor_serves_until_it_is_told_to_stop_and_closes_last(tmp_path):
    actor, ready, stop = Actor(), tmp_path / "ready.json", asyncio.Event()
    running = asyncio.create_task(
        service.run_service(actor, [listener()], work=actor.work(), ready_file=ready, stop=stop)
    )
    while not ready.exists():
        assert not running.done()
        await asyncio.sleep(0)
    port = json.loads(ready.read_text())["ports"]["partner"]
    other = Actor()
    with pytest.raises(ConfigError, match="partner"):  # the address is taken
        await service.run_service(other, [listener(port)], work=other.work(), ready_file=ready)
    assert ready.exists()  # the one that runs is still ready
    assert other.calls == ["start", "work", "work ends", "close"]
    stop.set()
    await running
    assert actor.calls == ["start", "work", "work ends", "close"]
    assert not ready.exists()


async def test_an_actor_that_cannot_start_is_closed():
    actor = Actor(StoreError("the disk is full"))
    with pytest.raises(StoreError):
        await service.run_service(actor, [listener()], ready_file=None)
    assert actor.calls == ["start", "close"]


def test_a_sealing_key_is_made_only_while_nothing_is_sealed(tmp_path):
    path = tmp_path / "seal.key"
    sealed = SealingKey(bytes(32)).seal(b"x", b"")
    with pytest.raises(ConfigError, match="missing") as caught:
        service.open_seal_key(path, "identities", lambda key: key.open(sealed, b""))
    assert "identities" in caught.value.hint
    assert not path.exists()
    made = service.open_seal_key(path, "identities", None)
    with pytest.raises(ConfigError, match="not the one that the identities") as caught:
        service.open_seal_key(path, "identities", lambda key: key.open(sealed, b""))
    sealed = made.seal(b"x", b"")
    again = service.open_seal_key(path, "identities", lambda key: key.open(sealed, b""))
    assert again.open(sealed, b"") == b"x"


def test_a_database_that_cannot_be_migrated_leaves_no_thread_behind(tmp_path):
    before = threading.active_count()
    (tmp_path / "not.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StoreError):
        service.open_store(f"sqlite:///{tmp_path}/not.sqlite", tmp_path)
    assert threading.active_count() == before


@pytest.mark.parametrize("place", ["ready_file", "trace_file"])
async def test_a_file_that_cannot_be_written_is_a_typed_error(tmp_path, place):
    (tmp_path / "file").write_text("")
    unwritable = tmp_path / "file" / "below"
    if place == "ready_file":
        actor = Actor()
        with pytest.raises(ConfigError, match="below"):
            await service.run_service(actor, [listener()], ready_file=unwritable)
        assert actor.calls == ["start", "close"]
        return
    store = Store(f"sqlite:///{tmp_path}/db.sqlite", tmp_path)
    try:
        with pytest.raises(ConfigError, match="below"):
            service.open_trail("RO", store, trail_table(MetaData()), unwritable)
    finally:
        store.close()
