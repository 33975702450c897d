"""A monotonic counter in a file: stands for the protected counter of hardware where there is none (T3)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

COUNTER_NAME: Final = "tre.counter"


class FileCounter:
    """One decimal number in a file, replaced as a whole. Who can write the file can turn it back: it is simulated."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        """The value; 0 before the first increment.

        Raises:
            OSError: unreadable, or no number.
        """
        try:
            return int(self._path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except ValueError as exc:
            raise OSError(f"{self._path} holds no counter") from exc

    def increment(self) -> int:
        """Raise it by one, durably.

        Raises:
            OSError: it was not raised.
        """
        value = self.read() + 1
        replace_durably(self._path, str(value))
        return value


def replace_durably(path: Path, text: str) -> None:
    """Replace a small file as a whole; after a power cut it is the old or the new one.

    Raises:
        OSError: it was not replaced.
    """
    temporary = path.with_suffix(path.suffix + "-new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
