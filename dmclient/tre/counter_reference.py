"""Which counter inside a token or TPM belongs to the TRE of a directory: a small file beside its sealed store.

The counter is read before the keys are loaded, hence the file. What it says is kept with the keys in the sealed state
as well and compared when they are loaded: who points it to another counter, or takes it away, gets no TRE.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dmclient.tre.counter import replace_durably
from dmclient.tre.keys import KeyStoreError

REFERENCE_NAME: Final = "tre.counter-reference"
MAX_AUTHORISATION: Final = 32  # octets
_NAME: Final = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterReference:
    """Name of a counter in its device, and what the device wants to hear before it touches it."""

    name: str
    authorisation: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """As octets, the same for the same counter."""
        entry = {"name": self.name, "authorisation": self.authorisation.hex()}
        return json.dumps(entry, sort_keys=True).encode("ascii")


class ReferenceFile:
    """The file."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / REFERENCE_NAME

    def read(self) -> CounterReference | None:
        """What it says; None before there is one.

        Raises:
            OSError: unreadable, or nothing of ours.
        """
        try:
            entry = json.loads(self._path.read_text(encoding="ascii"))
            reference = CounterReference(name=entry["name"], authorisation=bytes.fromhex(entry["authorisation"]))
            if not _NAME.fullmatch(reference.name) or len(reference.authorisation) > MAX_AUTHORISATION:
                raise ValueError("no name of a counter, or no authorisation")
            return reference
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise OSError(f"{self._path} names no counter") from exc

    def identity(self, read: Callable[[], object]) -> bytes:
        """The reference as octets, to be kept with the keys; `read` makes the counter when there is none.

        Raises:
            KeyStoreError: the counter cannot be read or made, or the file cannot be used.
        """
        try:
            read()
            reference = self.read()
        except OSError as exc:
            raise KeyStoreError(str(exc)) from exc
        if reference is None:
            raise KeyStoreError("the TRE's counter reference has gone")
        return reference.encode()

    def write(self, reference: CounterReference) -> None:
        """Set it, durably.

        Raises:
            OSError: it is as before.
        """
        replace_durably(self._path, reference.encode().decode("ascii"))
