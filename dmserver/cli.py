"""Command line of the DPF. The commands work on the database directly, beside a server that runs or not."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from actor_runtime import cli as habits
from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.trail_store import records_of
from dmserver.bootstrap import prepare_bootstrap
from dmserver.cli_context import open_database as _database
from dmserver.cli_context import open_sealed_database as _sealed_database
from dmserver.cli_context import settings_of as _settings
from dmserver.cli_devices import devices_app
from dmserver.cli_operator import device_app
from dmserver.orders import Order
from dmserver.registration import register_order
from dmserver.server import open_trail, run
from dmserver.store import tables
from dmserver.store.orders import find_order, list_orders
from syncml.errors import LocalProtocolError

app = typer.Typer(help="DPF: OMA DM server that provisions M2M devices.", no_args_is_help=True)
order_app = typer.Typer(help="Provisioning orders.", no_args_is_help=True)
app.add_typer(devices_app, name="devices")
app.add_typer(device_app, name="device")
app.add_typer(order_app, name="order")


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print data as JSON.")] = False,
) -> None:
    """Options of all commands."""
    context.obj = (config, json)


@app.command()
def serve(context: typer.Context) -> None:
    """Run the DPF until SIGTERM or SIGINT."""
    asyncio.run(run(_settings(context)))


@order_app.command("open")
def order_open(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Argument(help="The device.")],
    sho: Annotated[str, typer.Option(help="Id of the home operator.")],
    reason: Annotated[str, typer.Option(help="initial, change-of-sho, update or recovery.")] = "initial",
    expires_in_s: Annotated[int | None, typer.Option(help="Life of the order in seconds.")] = None,
) -> None:
    """Open an order by hand; usually the home operator does it."""
    settings = _settings(context)
    if sho not in settings.shos:
        raise ConfigError(f"{sho} is no partner", hint="add its URL to [shos] in the settings")
    with _database(settings) as store:
        order = store.write_sync(
            lambda c: register_order(
                c,
                device_id=m2me_id,
                sho_id=sho,
                purpose=reason,
                lifetime_s=expires_in_s if expires_in_s is not None else settings.limits.order_lifetime_s,
                now=datetime.now(UTC),
            )
        )
        trail = open_trail(settings, store)
        trail.state("order", "", order.state, step="8", order=order.order_id, detail=f"for {order.device_id}")
        trail.close()
    habits.show({"orderId": order.order_id}, as_json=context.obj[1])


@order_app.command("list")
def order_list(context: typer.Context) -> None:
    """Show all orders, oldest first."""
    with _database(_settings(context)) as store:
        orders = store.read_sync(list_orders)
    habits.show_rows([_order_row(order) for order in orders], as_json=context.obj[1])


@order_app.command("show")
def order_show(context: typer.Context, order_id: Annotated[str, typer.Argument(help="The order.")]) -> None:
    """Show one order."""
    with _database(_settings(context)) as store:
        order = store.read_sync(lambda c: find_order(c, order_id))
    if order is None:
        raise ActorError(f"no order {order_id}", hint="dmserver order list")
    habits.show(
        _order_row(order)
        | {
            "reqId": order.req_id,
            "treId": order.tre_id,
            "mcimId": order.mcim_id,
            "sequence": order.sequence,
            "packageHash": order.package_hash,
            "pushes": order.pushes,
            "result": order.result,
            "expiresAt": order.expires_at.isoformat(),
        },
        as_json=context.obj[1],
    )


def _order_row(order: Order) -> dict[str, object]:
    return {
        "orderId": order.order_id,
        "m2meId": order.device_id,
        "shoId": order.sho_id,
        "reason": order.purpose,
        "state": order.state.value,
        "detail": order.detail,
        "updatedAt": order.updated_at.isoformat(),
    }


@app.command()
def bootstrap(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Argument(help="The device.")],
    udp: Annotated[str | None, typer.Option(help="HOST:PORT of the device's WAP push port.")] = None,
    file: Annotated[Path | None, typer.Option(help="File to write the datagram to.")] = None,
) -> None:
    """Make a new DM account for a device and send it as a WAP push, or write it to a file."""
    if (udp is None) == (file is None):
        raise ActorError("say where the bootstrap goes", hint="either --udp HOST:PORT or --file PATH")
    settings = _settings(context)
    address = _address(udp) if udp is not None else None
    dm_url = settings.announced_dm_url()
    with _sealed_database(settings) as (store, key):
        try:
            order_id, datagram = store.write_sync(
                lambda c: prepare_bootstrap(
                    c,
                    key,
                    m2me_id,
                    server_id=settings.server_id,
                    dm_url=dm_url,
                    per_hour=settings.limits.bootstraps_per_hour,
                    now=datetime.now(UTC),
                )
            )
        except LocalProtocolError as exc:
            raise ActorError(f"no bootstrap can be made: {exc}", hint="server_id, public_dm_url") from exc
        if address is not None:
            _send(address, datagram)
        elif file is not None:
            _write(file, datagram)
        trail = open_trail(settings, store)
        trail.check("bootstrap-allowed", True, req=("REQ-11",), step="7", order=order_id)
        trail.message(
            step="7",
            direction="DPF→M2ME",
            summary="WAP push: CP bootstrap, SEC USERPIN, HMAC-SHA1",
            octets=len(datagram),
            order=order_id,
        )
        trail.close()
    habits.show({"m2meId": m2me_id, "octets": len(datagram), "dmUrl": dm_url}, as_json=context.obj[1])


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ActorError("--udp is no address", hint="HOST:PORT, such as 127.0.0.1:2948")
    return host.strip("[]"), int(port)


def _send(address: tuple[str, int], datagram: bytes) -> None:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sender:
            sender.sendto(datagram, place)
    except OSError as exc:
        raise ActorError(f"the bootstrap could not be sent: {exc.strerror}") from exc


def _write(path: Path, datagram: bytes) -> None:
    """The file holds credentials: for its owner alone."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(datagram)
    except OSError as exc:
        raise ActorError(f"{path}: {exc.strerror}") from exc


@app.command()
def audit(context: typer.Context, order_id: Annotated[str, typer.Argument(help="The order.")]) -> None:
    """Show everything that was recorded for an order: messages, checks, changes of state (REQ-71)."""
    with _database(_settings(context)) as store:
        if store.read_sync(lambda c: find_order(c, order_id)) is None:
            raise ActorError(f"no order {order_id}", hint="dmserver order list")
        records = store.read_sync(lambda c: records_of(c, tables.trail, order_id))
    if context.obj[1]:
        habits.show_rows(records, as_json=True)
        return
    for record in records:
        typer.echo(_line(record))


def _line(record: object) -> str:
    if not isinstance(record, dict):
        return str(record)
    start = f"{record['ts']}  step {record['step']:>2}  {record['kind']:<8}"
    match record["kind"]:
        case "check":
            verdict = "pass" if record["passed"] else "FAIL"
            told = f"{verdict}  {record['name']}  [{', '.join(record['req'])}]  {record['detail']}"
        case "state":
            told = f"{record['subject']} {record['old']} → {record['new']}  {record['detail']}"
        case "message":
            told = f"{record['direction']}  {record['summary']}  ({record['octets']} octets)"
        case _:
            told = str(record.get("text", ""))
    return f"{start} {told}".rstrip()


def main() -> None:
    """Console script."""
    habits.run(app)
