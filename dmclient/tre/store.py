"""The sealed file of the software TRE: either the state before or the state after, never one between (REQ-56)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from actor_runtime.sealing import SealingKey

STORE_NAME: Final = "tre.sealed"
_AAD: Final = b"m2m-software-tre-store/1"


class StorageFailed(Exception):
    """Writing failed and the previous state is in place; `broken` means that not even that is sure."""

    def __init__(self, *, broken: bool) -> None:
        super().__init__("the sealed store could not be written")
        self.broken = broken


class SealedStore:
    """One file, AES-256-GCM, replaced as a whole."""

    def __init__(self, directory: Path, seal_key: SealingKey) -> None:
        self._path = directory / STORE_NAME
        self._seal_key = seal_key

    def exists(self) -> bool:
        """Whether a TRE was made here."""
        return self._path.exists()

    def read(self) -> bytes:
        """The plaintext of the file.

        Raises:
            OSError: the file cannot be read.
            actor_runtime.sealing.UnsealError: changed, or sealed with another key.
        """
        return self._seal_key.open(self._path.read_bytes(), _AAD)

    def write(self, plaintext: bytes) -> None:
        """Replace the content durably.

        Raises:
            StorageFailed: the previous content is still there.
        """
        previous = self._path.read_bytes() if self._path.exists() else None
        try:
            self._replace(self._seal_key.seal(plaintext, _AAD))
        except OSError as exc:
            broken = False
            if previous is not None and self._changed(previous):
                # The name already points to the new file, but nobody promised that it will after a power cut.
                try:
                    self._replace(previous)
                except OSError:
                    broken = self._changed(previous)
            raise StorageFailed(broken=broken) from exc

    def _changed(self, previous: bytes) -> bool:
        try:
            return self._path.read_bytes() != previous
        except OSError:
            return True

    def _replace(self, octets: bytes) -> None:
        temporary = self._path.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(octets)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
