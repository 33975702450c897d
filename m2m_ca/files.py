"""Files of the CA: written atomically, keys for their owner alone; one process at a time changes the records."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from actor_runtime.errors import ActorError


class CaError(ActorError):
    """The directory or a request is not as it must be."""


def write_secret(path: Path, octets: bytes) -> None:
    """Write a file that only its owner reads."""
    _write(path, octets, 0o600)


def write_public(path: Path, octets: bytes) -> None:
    """Write a file that everybody reads."""
    _write(path, octets, 0o644)


def append_line(path: Path, line: str) -> None:
    """Add a line; on disk when this returns. What a crash left of a line before stays a line of its own."""
    with path.open("ab") as stream:
        if stream.tell() and not _ends_with_newline(path):
            line = f"\n{line}"
        stream.write(f"{line}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory: revoking, numbering and making lists exclude each other, between processes too."""
    with (directory / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"


def _write(path: Path, octets: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(octets)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
