"""Command line of the SHO. Keys are read from files or standard input, never from arguments."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Optional

import typer
from sqlalchemy import Connection

from actor_runtime import cli
from actor_runtime.config import load_settings
from actor_runtime.errors import ActorError
from actor_runtime.http import PartnerClient
from actor_runtime.logs import configure_logs
from actor_runtime.store import Store
from actor_runtime.tls import client_context
from actor_runtime.trail_store import records_of
from mcim.aka import EPS_AMF
from sho import subscriptions
from sho.app import open_store, open_trail, open_vault, run
from sho.config import ShoSettings
from sho.orders import open_order
from sho.store import repository, tables

app = typer.Typer(help="Selected home operator: subscriptions, packages, AuC.", no_args_is_help=True)
subscription_app = typer.Typer(help="Subscriptions in the inventory.", no_args_is_help=True)
order_app = typer.Typer(help="Orders for devices.", no_args_is_help=True)
app.add_typer(subscription_app, name="subscription")
app.add_typer(order_app, name="order")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _global(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Option("--config", "-c", help="Settings file (TOML).")] = None,  # noqa: UP045
) -> None:
    settings = load_settings(ShoSettings, config)
    configure_logs(log_format=settings.log_format, level=settings.log_level)
    context.obj = settings


@app.command()
def serve(context: typer.Context) -> None:
    """Run the SHO until it gets SIGTERM or SIGINT."""
    asyncio.run(run(_settings(context)))


@app.command()
def audit(
    context: typer.Context, order: Annotated[str, typer.Argument(help="Order id.")], as_json: AsJson = False
) -> None:
    """Show the audit trail of an order."""
    store = open_store(_settings(context))
    try:
        records = store.read_sync(lambda c: records_of(c, tables.trail, order))
    finally:
        store.close()
    if as_json:
        cli.show_rows(records, as_json=True)
        return
    for record in records:
        outcome = {True: "pass ", False: "FAIL "}.get(record.get("passed"), "")  # type: ignore[call-overload]  # any JSON value
        text = next((str(record[key]) for key in ("name", "summary", "text", "subject") if key in record), "")
        change = f" {record['old']} → {record['new']}" if record["kind"] == "state" else ""
        typer.echo(f"{record['ts']} step {record['step']}: {outcome}{text}{change} {record.get('detail', '')}".rstrip())


@subscription_app.command("generate")
def subscription_generate(
    context: typer.Context,
    count: Annotated[int, typer.Option(min=1, max=1_000_000)] = 1,
    plmn: Annotated[str, typer.Option(help="MCC and MNC, 5 or 6 digits.")] = "00101",
) -> None:
    """Make random subscriptions."""
    _take_in(context, ((credential, EPS_AMF) for credential in subscriptions.generate(count, plmn)), skip_known=True)


@subscription_app.command("import")
def subscription_import(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with columns imsi, k, opc or op, amf (optional); - is stdin.")],
) -> None:
    """Take in subscriptions from CSV. An IMSI that is there already refuses the whole file."""
    _take_in(context, subscriptions.read_csv(_lines(file)))


@subscription_app.command("add")
def subscription_add(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", help="File with one line: imsi,k,opc; - is stdin.")] = Path("-"),
) -> None:
    """Take in one subscription, from a file or standard input: keys do not belong on a command line."""
    if str(file) == "-" and sys.stdin.isatty():
        typer.echo("imsi,k,opc (then Ctrl-D):", err=True)
    _take_in(context, subscriptions.read_csv(["imsi,k,opc", *_lines(file)]))


@subscription_app.command("list")
def subscription_list(
    context: typer.Context,
    state: Annotated[Optional[str], typer.Option(help="free, allocated or armed.")] = None,  # noqa: UP045
    limit: int = 100,
    as_json: AsJson = False,
) -> None:
    """List subscriptions, identities masked."""
    store = open_store(_settings(context))
    try:
        rows = store.read_sync(lambda c: repository.list_subscriptions(c, state=state, limit=limit))
    finally:
        store.close()
    cli.show_rows(rows, as_json=as_json)


@order_app.command("open")
def order_open(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Option("--m2me-id", help="Device, such as urn:imei:…")],
    dpf: Annotated[str, typer.Option(help="URL of the DPF's partner listener.")],
    reason: str = "initial",
    expires_in: Annotated[Optional[int], typer.Option(help="Seconds.", min=1)] = None,  # noqa: UP045
    as_json: AsJson = False,
) -> None:
    """Open a provisioning order for a device at the DPF."""
    settings = _settings(context)

    async def work(store: Store) -> dict[str, object]:
        trail = open_trail(settings, store)
        partner = PartnerClient(
            dpf,
            client_context(settings.tls_ca, cert=settings.tls_cert, key=settings.tls_key),
            settings.partner_timeout_s,
        )
        try:
            return await open_order(
                store=store, trail=trail, partner=partner, sho_id=settings.sho_id, m2me_id=m2me_id, dpf_url=dpf,
                reason=reason, expires_in_s=expires_in, now=datetime.now(UTC),
            )  # fmt: skip
        finally:
            await partner.close()
            trail.close()

    store = open_store(settings)
    try:
        order = asyncio.run(work(store))
    finally:
        store.close()
    cli.show(order, as_json=as_json)


@order_app.command("list")
def order_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List orders."""
    store = open_store(_settings(context))
    try:
        rows = store.read_sync(repository.list_orders)
    finally:
        store.close()
    cli.show_rows(rows, as_json=as_json)


@order_app.command("show")
def order_show(
    context: typer.Context,
    order: Annotated[str, typer.Argument(help="Our id or the DPF's.")],
    as_json: AsJson = False,
) -> None:
    """Show one order."""
    store = open_store(_settings(context))
    try:
        found = store.read_sync(lambda c: repository.find_order(c, order))
    finally:
        store.close()
    if found is None:
        raise ActorError(f"no order {order}", hint="`sho order list` shows all")
    cli.show(found, as_json=as_json)


def main() -> None:
    """Entry point of the console script."""
    cli.run(app)


def _settings(context: typer.Context) -> ShoSettings:
    settings = context.obj
    if not isinstance(settings, ShoSettings):
        raise ActorError("no settings")
    return settings


def _lines(file: Path) -> list[str]:
    try:
        return (sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")).splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ActorError(f"{file}: cannot be read") from exc


def _take_in(
    context: typer.Context, found: Iterable[tuple[subscriptions.Credential, bytes]], *, skip_known: bool = False
) -> None:
    settings = _settings(context)
    store = open_store(settings)
    try:
        vault = open_vault(settings, store)
        now = datetime.now(UTC)
        sealed = [(vault.seal(credential), credential.imsi_mask, amf) for credential, amf in found]

        def add(connection: Connection) -> int:
            added = 0
            for credential, mask, amf in sealed:
                new = repository.add_subscription(connection, credential, imsi_mask=mask, amf=amf, now=now)
                if not new and not skip_known:
                    raise ActorError(f"{mask} is there already", hint="nothing of this file was taken in")
                added += new
            return added

        typer.echo(f"{store.write_sync(add)} subscriptions added")
    finally:
        store.close()
