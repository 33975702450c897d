"""Habits of the command lines: an error a person can mend ends with a hint and exit status 1; JSON on request."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actor_runtime.config import SettingsT, load_settings
from actor_runtime.errors import ActorError
from actor_runtime.logs import configure_logs

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file (TOML).")]
EXIT_STATUSES: Final = "Exit status: 0 done, 1 refused or failed, 2 wrong usage."
MAX_WIDTH: Final = 1_000_000  # columns of a table that goes to no terminal


def actor_app(
    name: str, purpose: str, settings: type[SettingsT], run_actor: Callable[[SettingsT], Coroutine[Any, Any, None]]
) -> typer.Typer:
    """The command line of an actor: `--config`, which every command goes by, and the command `serve`."""
    app = typer.Typer(help=f"{purpose} {EXIT_STATUSES}", no_args_is_help=True)

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
    """Run a typer application as a console script. A traceback is shown without local variables: they hold secrets."""
    app.pretty_exceptions_show_locals = False
    try:
        app()
    except ActorError as exc:
        print(f"error: {plain(str(exc))}", file=sys.stderr)
        if exc.hint:
            print(f"hint: {plain(exc.hint)}", file=sys.stderr)
        sys.exit(1)


def show_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print rows as a table, or as a JSON array. A terminal folds long values, and nothing is ever cut."""
    if as_json:
        typer.echo(json.dumps([dict(row) for row in rows], ensure_ascii=False))
        return
    if not rows:
        typer.echo("nothing")
        return
    table = Table()
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(value)) for value in row.values()))  # Text: brackets of a peer are no mark-up
    console = Console()
    if not console.is_terminal:
        console.width = console.measure(table, options=console.options.update(width=MAX_WIDTH)).maximum
    console.print(table)


def show(values: Mapping[str, object], *, as_json: bool) -> None:
    """Print one thing as lines `name: value`, what is inside of a value indented, or as a JSON object."""
    if as_json:
        typer.echo(json.dumps(dict(values), ensure_ascii=False))
        return
    for line in _lines(values):
        typer.echo(line)


def plain(text: str) -> str:
    """Text of a peer for a terminal: what is not printable would move its cursor, or worse."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _lines(values: Mapping[str, object], indent: str = "") -> Iterator[str]:
    for name, value in values.items():
        parts = value if isinstance(value, list | tuple) else (value,)
        if not any(isinstance(each, Mapping) for each in parts):
            yield f"{indent}{plain(name)}: {_shown(value)}"
            continue
        yield f"{indent}{plain(name)}:"
        for number, each in enumerate(parts):
            if number:
                yield ""
            yield from _lines(each, indent + "  ") if isinstance(each, Mapping) else (f"{indent}  {_shown(each)}",)


def _shown(value: object) -> str:
    match value:
        case None | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(_shown(each) for each in value)
        case Mapping():
            return ", ".join(f"{plain(str(name))}={_shown(each)}" for name, each in value.items())
    return plain(str(value))
