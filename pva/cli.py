"""Command line of the PVA."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Optional, TypeVar

import typer

from actor_runtime import cli
from actor_runtime.config import load_settings
from actor_runtime.errors import ActorError
from actor_runtime.logs import configure_logs
from actor_runtime.store import Store
from pva.app import open_store, run
from pva.config import PvaSettings
from pva.store import repository

app = typer.Typer(help="Platform validation authority: challenges, evidence, tickets.", no_args_is_help=True)
reference_app = typer.Typer(help="TRE types and versions known to be good.", no_args_is_help=True)
decision_app = typer.Typer(help="Decisions made.", no_args_is_help=True)
app.add_typer(reference_app, name="reference")
app.add_typer(decision_app, name="decision")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TreType = Annotated[str, typer.Option("--tre-type", help="As in M2MMobj/TRE/Type.")]
Version = Annotated[str, typer.Option("--version", help="As in M2MMobj/TRE/Version.")]

T = TypeVar("T")


@app.callback()
def _global(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Option("--config", "-c", help="Settings file (TOML).")] = None,  # noqa: UP045
) -> None:
    settings = load_settings(PvaSettings, config)
    configure_logs(log_format=settings.log_format, level=settings.log_level)
    context.obj = settings


@app.command()
def serve(context: typer.Context) -> None:
    """Run the PVA until it gets SIGTERM or SIGINT."""
    asyncio.run(run(_settings(context)))


@reference_app.command("add")
def reference_add(context: typer.Context, tre_type: TreType, version: Version) -> None:
    """Declare a TRE type and version good."""
    now = datetime.now(UTC)
    added = _with_store(
        context,
        lambda s: s.write_sync(lambda c: repository.add_reference(c, tre_type=tre_type, version=version, now=now)),
    )
    typer.echo(f"{tre_type} {version}: {'added' if added else 'was there already'}")


@reference_app.command("remove")
def reference_remove(context: typer.Context, tre_type: TreType, version: Version) -> None:
    """Withdraw a TRE type and version: from now on no ticket for it."""
    if not _with_store(
        context,
        lambda s: s.write_sync(lambda c: repository.remove_reference(c, tre_type=tre_type, version=version)),
    ):
        raise ActorError(f"{tre_type} {version} is not there", hint="`pva reference list` shows all")
    typer.echo(f"{tre_type} {version}: removed")


@reference_app.command("list")
def reference_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List known-good TRE types and versions."""
    cli.show_rows(_with_store(context, lambda s: s.read_sync(repository.list_references)), as_json=as_json)


@decision_app.command("list")
def decision_list(context: typer.Context, limit: int = 100, as_json: AsJson = False) -> None:
    """List decisions, newest first."""
    rows = _with_store(context, lambda s: s.read_sync(lambda c: repository.list_decisions(c, limit=limit)))
    cli.show_rows(rows, as_json=as_json)


def main() -> None:
    """Entry point of the console script."""
    cli.run(app)


def _settings(context: typer.Context) -> PvaSettings:
    settings = context.obj
    if not isinstance(settings, PvaSettings):
        raise ActorError("no settings")
    return settings


def _with_store(context: typer.Context, work: Callable[[Store], T]) -> T:
    store = open_store(_settings(context))
    try:
        return work(store)
    finally:
        store.close()
