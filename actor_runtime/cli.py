"""Habits of the command lines: an error a person can mend ends with a hint and exit status 1; JSON on request."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from actor_runtime.config import SettingsT, load_settings
from actor_runtime.errors import ActorError
from actor_runtime.logs import configure_logs

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file (TOML).")]


def actor_app(
    name: str, purpose: str, settings: type[SettingsT], run_actor: Callable[[SettingsT], Coroutine[Any, Any, None]]
) -> typer.Typer:
    """The command line of an actor: `--config`, which every command goes by, and the command `serve`."""
    app = typer.Typer(help=purpose, no_args_is_help=True)

    @app.callback()
    def _global(context: typer.Context, config: ConfigFile = None) -> None:
        context.obj = config

    @app.command(help=f"Run the {name} until it gets SIGTERM or SIGINT.")
    def serve(context: typer.Context) -> None:
        asyncio.run(run_actor(settings_of(context, settings)))

    return app


def settings_of(context: typer.Context, settings: type[SettingsT]) -> SettingsT:
    """The settings the command was called with, read when first asked for; logs are set up on the way.

    Raises:
        ConfigError: as `load_settings`.
    """
    if not isinstance(context.obj, settings):
        context.obj = load_settings(settings, context.obj)
        configure_logs(log_format=context.obj.log_format, level=context.obj.log_level)
    return context.obj


def run(app: typer.Typer) -> None:
    """Run a typer application as a console script."""
    try:
        app()
    except ActorError as exc:
        print(f"error: {exc}", file=sys.stderr)
        if exc.hint:
            print(f"hint: {exc.hint}", file=sys.stderr)
        sys.exit(1)


def show_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print rows as a table, or as a JSON array."""
    if as_json:
        typer.echo(json.dumps([dict(row) for row in rows], ensure_ascii=False))
        return
    if not rows:
        typer.echo("nothing")
        return
    table = Table()
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)


def show(values: Mapping[str, object], *, as_json: bool) -> None:
    """Print one thing as lines `name: value`, or as a JSON object."""
    if as_json:
        typer.echo(json.dumps(dict(values), ensure_ascii=False))
        return
    for name, value in values.items():
        typer.echo(f"{name}: {value}")
