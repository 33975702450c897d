"""Command line of the SHO. Keys are read from files or standard input, never from arguments."""

from __future__ import annotations

from typing import Annotated

import typer

from actor_runtime import cli
from actor_runtime.errors import ActorError
from actor_runtime.trail_store import records_of
from sho import cli_orders, cli_platforms, cli_subscriptions
from sho.app import run
from sho.cli_context import AsJson, opened
from sho.config import ShoSettings
from sho.store import tables
from sho.store.repository import find_order

app = cli.actor_app("SHO", "Selected home operator: subscriptions, packages, AuC.", ShoSettings, run)
app.add_typer(cli_subscriptions.app, name="subscription")
app.add_typer(cli_orders.app, name="order")
app.add_typer(cli_orders.package_app, name="package")
app.add_typer(cli_platforms.app, name="platform")
app.add_typer(cli_platforms.prepare_app, name="prepare")
app.add_typer(cli_platforms.token_app, name="token")


@app.command()
def audit(
    context: typer.Context, order: Annotated[str, typer.Argument(help="Our id or the DPF's.")], as_json: AsJson = False
) -> None:
    """Show the audit trail of an order."""
    with opened(context) as store:
        found = store.read_sync(lambda c: find_order(c, order))
        known_as = str((found or {}).get("orderId") or order)  # the trail goes by the DPF's id
        records = store.read_sync(lambda c: records_of(c, tables.trail, known_as))
        if found is None and not records:
            raise ActorError(f"no order {order}", hint="`sho order list` shows all")
    if as_json:
        cli.show_rows(records, as_json=True)
        return
    for record in records:
        outcome = {True: "pass ", False: "FAIL "}.get(record.get("passed"), "")  # type: ignore[call-overload]  # any JSON value
        text = next((str(record[key]) for key in ("name", "summary", "text", "subject") if key in record), "")
        change = f" {record['old']} → {record['new']}" if record["kind"] == "state" else ""
        told = f"{record['ts']} step {record['step']}: {outcome}{text}{change} {record.get('detail', '')}"
        typer.echo(cli.plain(told.rstrip()))


app.command()(cli_orders.release)
app.command()(cli_platforms.revoke)


def main() -> None:
    """Entry point of the console script."""
    cli.run(app)
