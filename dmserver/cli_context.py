"""What all commands of the command line begin with: settings, database, sealing key, and secrets out of files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from actor_runtime.config import load_settings
from actor_runtime.errors import ConfigError
from actor_runtime.logs import configure_logs
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from dmserver.config import DmServerSettings
from dmserver.server import open_seal_key, open_store

MIN_SECRET = 8  # characters; a shorter one can be found from a recorded MAC or digest
STDIN = Path("-")

Json = Annotated[bool, typer.Option("--json", help="Print JSON; also before the command.")]


def settings_of(context: typer.Context) -> DmServerSettings:
    """The settings the command was called with; logs are set up on the way."""
    settings = load_settings(DmServerSettings, context.obj[0])
    configure_logs(log_format=settings.log_format, level=settings.log_level)
    return settings


def as_json(context: typer.Context) -> bool:
    """Whether data is to be printed as JSON."""
    return bool(context.obj[1] or context.params.get("json"))


@contextmanager
def open_database(settings: DmServerSettings) -> Iterator[Store]:
    """The database, at its newest schema."""
    store = open_store(settings)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def open_sealed_database(settings: DmServerSettings) -> Iterator[tuple[Store, SealingKey]]:
    """The database and the key its secrets are sealed with."""
    with open_database(settings) as store:
        yield store, open_seal_key(settings, store)


def read_octets(path: Path, *, limit: int) -> bytes:
    """A file, or standard input for "-".

    Raises:
        ConfigError
    """
    try:
        if path == STDIN:
            octets = sys.stdin.buffer.read(limit + 1)
        else:
            with path.open("rb") as file:
                octets = file.read(limit + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if len(octets) > limit:
        raise ConfigError(f"{path}: more than {limit} octets")
    return octets


def read_secret(path: Path) -> str:
    """A secret out of a file or standard input: one line of printable ASCII, the line end does not belong to it.

    Raises:
        ConfigError
    """
    try:
        secret = read_octets(path, limit=1024).decode("ascii").strip()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not ASCII") from exc
    if len(secret) < MIN_SECRET or not secret.isprintable() or " " in secret:
        raise ConfigError(f"{path}: no usable secret", hint=f"{MIN_SECRET} or more printable ASCII characters")
    return secret
