"""The device's memory between runs: one sealed file, replaced as a whole.

It holds the management tree with the DM accounts and their secrets, hence the seal. The TRE has a store of its own;
no MCIM secret ever comes here.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from actor_runtime.errors import StoreError
from actor_runtime.sealing import SealingKey

FORMAT: Final = 1
AAD: Final = b"dmclient|state"


class StateFile:
    """Loads and saves JSON data. A save that fails leaves what was there before."""

    def __init__(self, path: Path, seal_key: SealingKey) -> None:
        self._path = path
        self._seal_key = seal_key

    def load(self) -> dict[str, Any] | None:
        """What was saved last, None when nothing was yet.

        Raises:
            StoreError: the file cannot be read, or is of another version.
            UnsealError: it was changed, or sealed with another key.
        """
        try:
            sealed = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"device state {self._path}: {error.strerror}") from error
        data = json.loads(self._seal_key.open(sealed, AAD))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise StoreError(f"device state {self._path}: unknown format", hint="was it written by another version?")
        return data

    def save(self, data: dict[str, Any]) -> None:
        """Replace the file: temporary, fsync, rename, fsync of the directory.

        Raises:
            StoreError: it cannot be written.
        """
        sealed = self._seal_key.seal(json.dumps({"format": FORMAT, **data}).encode(), AAD)
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise StoreError(f"device state {self._path}: {error.strerror}") from error


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keep other processes from the state file at `path`: each would write over what the other must not forget.

    The lock goes with the process, however it ends; the empty file beside the state stays.

    Raises:
        StoreError: another process has it, or the lock cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"device state {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(
                f"device state {path}: another process works with it", hint="end it, or use another state_dir"
            ) from error
        yield
    finally:
        os.close(descriptor)
