"""What a TRE remembers, on disk: one sealed file and, apart from it, a counter that only rises (REQ-53, REQ-56, T3).

Every write raises the generation in the file, then the counter follows. At a start both are compared:
equal - fine; the file one ahead - the power went in between, the counter catches up; anything else - somebody put
an older file (or another counter) back, and the TRE is tampered with from then on.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from dmclient.tre.keys import KeyStoreError, MonotonicCounter
from dmclient.tre.state import TreState
from dmclient.tre.store import SealedStore, StorageFailed
from mcim.vocabulary import RegistrationState

COUNTER_STEP: Final = 16  # statements that may be signed before the store must be written again
TAMPERED: Final = "tampered"

log = structlog.get_logger(__name__)


class TreMemory:
    """The state of one TRE: `state` is what is on the disk, `commit` makes another one so."""

    def __init__(self, directory: Path, store: SealedStore, counter: MonotonicCounter, state: TreState) -> None:
        self._directory = directory
        self._store = store
        self._counter = counter
        self.state = state
        self.lock = threading.RLock()  # whoever reads the state and commits another one holds it
        self._holding = False  # whether this process keeps the others out now
        self.broken = False  # the file may hold a state that was never reported: only a new start can tell
        # Statements up to the limit may have been signed before the last stop: gaps do no harm, repetitions would.
        self._statements = state.counter_limit

    @classmethod
    def create(cls, directory: Path, store: SealedStore, counter: MonotonicCounter, state: TreState) -> TreMemory:
        """Store the first state.

        Raises:
            StorageFailed: it is not stored.
            OSError: the counter cannot be read.
        """
        memory = cls(directory, store, counter, replace(state, generation=counter.read()))
        memory.commit(memory.state)
        return memory

    @classmethod
    def open(cls, directory: Path, store: SealedStore, counter: MonotonicCounter) -> TreMemory:
        """Read the state and compare its age with the counter.

        Raises:
            OSError: file or counter cannot be read, or the counter cannot catch up.
            actor_runtime.errors.UnsealError: changed, or sealed with another key.
            ValueError: the store is another version's.
        """
        with _alone(directory):
            memory = cls(directory, store, counter, TreState.load(store.read()))
            value = counter.read()
            if memory.state.generation == value + 1:
                counter.increment()
            elif memory.state.generation != value:
                log.error("tre.rolled-back", generation=memory.state.generation, counter=value)
                memory._tampered(value)
        return memory

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other thread or process reads or writes meanwhile. May be nested.

        Raises:
            OSError: the directory cannot be opened.
        """
        with self.lock:
            if self._holding:
                yield
                return
            with _alone(self._directory):
                self._holding = True
                try:
                    yield
                finally:
                    self._holding = False

    def require_present(self) -> None:
        """See that what is known here is what is on the disk; to be asked while `alone`.

        Raises:
            StorageFailed: another process wrote, or nobody knows what is on the disk.
            OSError, KeyStoreError: the counter cannot be read.
        """
        if self.broken:
            raise StorageFailed(broken=True)
        if self._counter.read() != self.state.generation:
            raise StorageFailed(broken=True)

    def commit(self, state: TreState) -> None:
        """Write a state and make it the present one, in this order.

        Raises:
            StorageFailed: it is not the present one; `broken` when not even the state on disk is sure.
        """
        try:
            with self.alone():
                self._commit(state)
        except (OSError, KeyStoreError) as exc:
            raise StorageFailed(broken=False) from exc
        except StorageFailed as exc:
            self.broken = exc.broken
            raise

    def next_statement(self) -> int:
        """A number no statement of this TRE has had: it is below the stored limit, or the limit is raised first.

        Raises:
            StorageFailed: the limit cannot be raised.
        """
        if self._statements >= self.state.counter_limit:
            self.commit(self.state)
        self._statements += 1
        return self._statements

    def expire(self, now: datetime) -> None:
        """Close a request whose nonce ran out."""
        record = self.state.registration
        if record.is_open and now >= record.nonce_expiry:
            expired = replace(self.state, registration=record.closed(RegistrationState.EXPIRED))
            try:
                self.commit(expired)
            except StorageFailed:
                self.state = expired  # the stored expiry says the same after a restart

    def _commit(self, state: TreState) -> None:
        self.require_present()
        after = replace(state, generation=self.state.generation + 1, counter_limit=self._statements + COUNTER_STEP)
        self._store.write(after.dump())
        try:
            raised = self._counter.increment()
        except (OSError, KeyStoreError) as exc:
            raise StorageFailed(broken=True) from exc
        if raised != after.generation:
            raise StorageFailed(broken=True)
        self.state = after

    def _tampered(self, value: int) -> None:
        """Note it for good.

        A write adds at most `COUNTER_STEP` statements, so by the newer of state and counter the limit is above all ever
        signed: the state may be the old one, and so may the counter.
        """
        self._statements = max(COUNTER_STEP * (value + 2), self.state.counter_limit)
        self.state = replace(self.state, condition=TAMPERED, generation=value, counter_limit=self._statements)
        try:
            self._commit(self.state)
        except (OSError, KeyStoreError, StorageFailed):
            self.broken = True  # it is found again at the next start


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process at a time between file and counter, or a reader could take a write for a roll-back."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
