"""How the process of a command begins."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Inside, a program imports itself, undisturbed by the garbage collector.

    Imports make some hundred thousand objects that all stay; looking through them again and again takes a sixth of the
    time until a command does anything. What is there at the end is never looked at again (`gc.freeze`).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
