"""What the groups of commands have in common: settings, certificates in files, what a refusal exits with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from cryptography import x509

from actor_runtime import cli
from actor_runtime.config import load_settings
from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.logs import configure_logs
from dmclient.app import open_tre
from dmclient.config import ClientSettings
from dmclient.store.state_file import exclusive
from dmclient.tre.base import Outcome, TreError
from dmclient.tre.environment import Tre
from dmclient.tre.keys import KeyStoreError
from mcim.vocabulary import ResultCode

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TreOption = Annotated[
    str | None, typer.Option("--tre-id", metavar="URN", help="Which TRE (tre.tre_id, more_tres); default: the first.")
]
RequestOption = Annotated[Path | None, typer.Option(help="Where the certification request goes; default: output.")]
REFUSED: Final = 2  # exit status: somebody said no


def settings_of(context: typer.Context) -> ClientSettings:
    """Settings from --config and the environment; the log is set up with them."""
    settings = load_settings(ClientSettings, context.find_root().obj)
    configure_logs(log_format=settings.log_format, level=settings.log_level)
    return settings


@contextmanager
def changing_tre(context: typer.Context, tre_id: str | None) -> Iterator[Tre]:
    """A TRE for a command that changes it. No other process has the device meanwhile.

    Raises:
        StoreError: another process works with the device.
        ActorError: the TRE refuses, or its keys are out of reach; as `open_tre`.
    """
    settings = settings_of(context)
    with exclusive(settings.state_file):
        tre = open_tre(settings, tre_id)
        try:
            yield tre
        except (TreError, KeyStoreError) as error:
            raise ActorError(str(error)) from error


def certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file.

    Raises:
        ConfigError: there are none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: no PEM certificates") from error


def write_request(text: str, path: Path | None) -> None:
    """Write a certification request to a file, or to the output.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        typer.echo(text)
        return
    try:
        path.write_text(text + "\n", encoding="ascii")
    except OSError as error:
        hint = "the keys are made: `dmclient tre request`, or `tre rekey` for new ones, writes it again"
        raise ConfigError(f"{path}: {error.strerror}", hint=hint) from error
    typer.echo(f"request: {path}")


def show_code(code: ResultCode, more: dict[str, object], *, as_json: bool) -> None:
    """Print a result code with its name, and exit with 2 unless it is a success."""
    cli.show({"result": int(code), "meaning": code.name.lower(), **more}, as_json=as_json)
    if code not in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE):
        sys.exit(REFUSED)


def show_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Print what a TRE did, and the check that ended it if one did; exit with 2 unless it is a success."""
    failed = next((each for each in outcome.checks if not each.passed), None)
    more: dict[str, object] = {
        "state": None if outcome.mcim is None else outcome.mcim.state.name.lower(),
        "check": None if failed is None else failed.name,
        "requirements": [] if failed is None else list(failed.req),
        "detail": "" if failed is None else failed.detail,
        "receipt": outcome.receipt.hex(),
    }
    show_code(outcome.code, more, as_json=as_json)
