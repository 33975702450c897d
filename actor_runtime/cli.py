"""Habits of the command lines: an error a person can mend ends with a hint and exit status 1; JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import typer
from rich.console import Console
from rich.table import Table

from actor_runtime.errors import ActorError


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
