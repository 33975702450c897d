"""Command line of the PVA."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sized
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar, cast

import typer
from sqlalchemy import Connection

from actor_runtime import cli
from actor_runtime.cli import AsJson
from actor_runtime.errors import ActorError
from actor_runtime.store import Store
from actor_runtime.trail import TrailRecord
from actor_runtime.trail_store import append_record
from mcim.vocabulary import ValidationMode
from pva.app import open_store, run
from pva.config import PvaSettings
from pva.references import make_reference, parse_pairs, read_measurements
from pva.store import counters, repository
from pva.store.tables import trail
from pva.validation import STEP_CHECK

app = cli.actor_app("PVA", "Platform validation authority: challenges, evidence, tickets.", PvaSettings, run)
reference_app = typer.Typer(help="TRE types and versions known to be good.", no_args_is_help=True)
decision_app = typer.Typer(help="Decisions made.", no_args_is_help=True)
counter_app = typer.Typer(help="How far the evidence of each TRE has counted.", no_args_is_help=True)
app.add_typer(reference_app, name="reference")
app.add_typer(decision_app, name="decision")
app.add_typer(counter_app, name="counter")

TreType = Annotated[str, typer.Option("--tre-type", help="As in M2MMobj/TRE/Type.")]
Version = Annotated[str, typer.Option("--version", help="As in M2MMobj/TRE/Version.")]

T = TypeVar("T")


@reference_app.command("add")
def reference_add(
    context: typer.Context,
    tre_type: TreType,
    version: Version,
    minimum_mode: Annotated[
        ValidationMode, typer.Option("--minimum-mode", help="The least that must be shown.")
    ] = ValidationMode.SEMI_AUTONOMOUS,
    requires_quote: Annotated[bool, typer.Option("--requires-quote", help="Evidence must be a TPM's quote.")] = False,
    measurement: Annotated[
        list[str] | None, typer.Option(metavar="NAME=HEX", help="A component that must be in the log.")
    ] = None,
    measurements: Annotated[Path | None, typer.Option(help="JSON file: an object of such names and digests.")] = None,
    optional_measurement: Annotated[
        list[str] | None, typer.Option(metavar="NAME=HEX", help="A component that may be in the log.")
    ] = None,
) -> None:
    """Declare a TRE type and version good, and how it must show that it is; again with other options changes it."""
    required = {} if measurements is None else read_measurements(measurements)
    typed = parse_pairs(measurement or ())
    twice = sorted(set(required) & set(typed))
    if twice:
        raise ActorError(f"in the file and on the command line: {', '.join(twice)}")
    reference = make_reference(
        tre_type=tre_type,
        version=version,
        minimum_mode=minimum_mode,
        requires_quote=requires_quote,
        required=required | typed,
        optional=parse_pairs(optional_measurement or ()),
    )
    now = datetime.now(UTC)
    outcome = _with_store(context, lambda s: s.write_sync(lambda c: repository.put_reference(c, reference, now=now)))
    typer.echo(f"{tre_type} {version}: {outcome}")


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
    rows = _with_store(context, lambda s: s.read_sync(repository.list_references))
    if not as_json:
        for row in rows:
            for name in ("measurements", "optionalMeasurements"):
                row[name] = len(cast(Sized, row[name]))
    cli.show_rows(rows, as_json=as_json)


@decision_app.command("list")
def decision_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1)] = 100,
    tre: Annotated[str | None, typer.Option(help="Of this TRE alone.")] = None,
    trusted: Annotated[
        bool | None,
        typer.Option("--trusted/--refused", help="Positive or negative ones alone."),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"], help="From then on, UTC."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List decisions, newest first."""
    moment = None if since is None else since.replace(tzinfo=UTC)
    rows = _with_store(
        context,
        lambda s: s.read_sync(
            lambda c: repository.list_decisions(c, limit=limit, tre_id=tre, trusted=trusted, since=moment)
        ),
    )
    cli.show_rows(rows, as_json=as_json)


@decision_app.command("show")
def decision_show(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="ID", help="As `pva decision list` shows it.")],
) -> None:
    """Show one decision with all checks on its request, as JSON."""
    found = _with_store(context, lambda s: s.read_sync(lambda c: repository.show_decision(c, number)))
    if found is None:
        raise ActorError(f"no decision {number}", hint="`pva decision list` shows all")
    cli.show(found, as_json=True)


@counter_app.command("list")
def counter_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1)] = 100,
    tre: Annotated[str | None, typer.Option(help="Of this TRE alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the counters of TREs with a ticket, newest first."""
    rows = _with_store(context, lambda s: s.read_sync(lambda c: counters.list_counters(c, limit=limit, tre_id=tre)))
    cli.show_rows(rows, as_json=as_json)


@counter_app.command("reset")
def counter_reset(
    context: typer.Context,
    tre_id: Annotated[str, typer.Argument(metavar="TRE", help="As `pva counter list` shows it.")],
) -> None:
    """Accept whatever counter the next evidence of a TRE has: for one that was made anew and kept its identity.

    Do it when it is known why it counts from a lower number. An old copy of its memory does that as well.
    """
    now = datetime.now(UTC)

    def reset(connection: Connection) -> int | None:
        before = counters.forget_counter(connection, tre_id)
        if before is not None:
            text = f"an operator reset the counter of {tre_id}, which was {before}"
            append_record(
                connection,
                trail,
                TrailRecord(
                    ts=now, seq=1, actor="PVA", kind="note", step=STEP_CHECK, order=None, fields={"text": text}
                ),
            )
        return before

    before = _with_store(context, lambda s: s.write_sync(reset))
    if before is None:
        raise ActorError(f"no counter of {tre_id} is known", hint="`pva counter list` shows all")
    typer.echo(f"{tre_id}: reset, was {before}")


def main() -> None:
    """Entry point of the console script."""
    cli.run(app)


def _settings(context: typer.Context) -> PvaSettings:
    return cli.settings_of(context, PvaSettings)


def _with_store(context: typer.Context, work: Callable[[Store], T]) -> T:
    with contextlib.closing(open_store(_settings(context))) as store:
        return work(store)
