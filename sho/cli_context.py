"""What the commands of the SHO share: settings, an open store, input that is not an argument."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from actor_runtime import cli
from actor_runtime.cli import AsJson as AsJson
from actor_runtime.errors import ActorError
from actor_runtime.store import Store
from sho.app import Sho, build, open_store
from sho.config import ShoSettings

MAX_INPUT = 64 * 1024 * 1024  # octets of a file or of standard input


def settings_of(context: typer.Context) -> ShoSettings:
    """The settings that the callback loaded."""
    return cli.settings_of(context, ShoSettings)


@contextlib.contextmanager
def opened(context: typer.Context) -> Iterator[Store]:
    """The store, closed at the end."""
    with contextlib.closing(open_store(settings_of(context))) as store:
        yield store


@contextlib.contextmanager
def built(context: typer.Context) -> Iterator[Sho]:
    """The whole SHO without its listeners: keys and anchors are needed."""
    sho = build(settings_of(context))
    try:
        yield sho
    finally:
        asyncio.run(sho.close())


def read_octets(file: Path) -> bytes:
    """A file, or standard input for "-".

    Raises:
        ActorError: unreadable or too long.
    """
    try:
        octets = sys.stdin.buffer.read(MAX_INPUT + 1) if str(file) == "-" else file.read_bytes()
    except OSError as exc:
        raise ActorError(f"{file}: cannot be read") from exc
    if len(octets) > MAX_INPUT:
        raise ActorError(f"{file}: more than {MAX_INPUT} octets")
    return octets


def read_lines(file: Path) -> list[str]:
    """Lines of a text file or of standard input.

    Raises:
        ActorError: unreadable, or not UTF-8.
    """
    try:
        return (sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")).splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ActorError(f"{file}: cannot be read") from exc
