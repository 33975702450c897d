"""`dmserver order`: open, show, suspend, resume and cancel orders."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlalchemy import Connection

from actor_runtime import cli as habits
from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.store import Store
from dmserver import order_desk
from dmserver.cli_context import Json, as_json, open_database, settings_of
from dmserver.orders import Order
from dmserver.registration import MAX_LIFETIME_S, OrderRequest, register_order
from dmserver.server import open_trail
from dmserver.store.accounts import push_of
from dmserver.store.orders import OrderConflict, find_order, list_orders

order_app = typer.Typer(help="Orders: what home operators want done to devices.", no_args_is_help=True)

OrderId = Annotated[str, typer.Argument(help="The order.")]


@order_app.command(
    "open", epilog="Example: `dmserver -c dmserver.toml order open urn:imei:004999010640000 --sho sho.example`"
)
def order_open(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Argument(help="The device.")],
    sho: Annotated[str, typer.Option(help="Id of the home operator.")],
    reason: Annotated[str, typer.Option(help="initial, change-of-sho, update or recovery.")] = "initial",
    operation: Annotated[str, typer.Option(help="install, replace, update, activate, suspend or delete.")] = "install",
    mcim: Annotated[
        str | None, typer.Option(help="The MCIM it is about, a UUID; install and replace have none.")
    ] = None,
    expires_in_s: Annotated[
        int | None, typer.Option(min=1, max=MAX_LIFETIME_S, help="Life of the order in seconds.")
    ] = None,
    json: Json = False,
) -> None:
    """Open an order by hand; usually the home operator does it."""
    settings = settings_of(context)
    if settings.provisioning() is None:
        raise ConfigError(
            "this server provisions no devices, so there are no orders",
            hint="pva_url and what goes with it make it a DPF; devices add --managed needs no order",
        )
    if sho not in settings.shos:
        raise ConfigError(f"{sho} is no partner", hint="add its URL to [shos] in the settings")
    wanted = OrderRequest(device_id=m2me_id, sho_id=sho, purpose=reason, operation=operation, mcim_id=mcim)
    with open_database(settings) as store:
        order = store.write_sync(
            lambda c: register_order(
                c,
                wanted,
                lifetime_s=expires_in_s if expires_in_s is not None else settings.limits.order_lifetime_s,
                now=datetime.now(UTC),
                per_day=settings.limits.orders_per_day,
            )
        )
        trail = open_trail(settings, store)
        trail.state("order", "", order.state, step="8", order=order.order_id, detail=f"for {order.device_id}")
        trail.close()
    habits.show({"orderId": order.order_id}, as_json=as_json(context))


@order_app.command("list")
def order_list(context: typer.Context, json: Json = False) -> None:
    """Show all orders, oldest first."""
    with open_database(settings_of(context)) as store:
        orders = store.read_sync(list_orders)
    habits.show_rows([_row(order) for order in orders], as_json=as_json(context))


@order_app.command("show")
def order_show(context: typer.Context, order_id: OrderId, json: Json = False) -> None:
    """Show one order."""
    with open_database(settings_of(context)) as store:
        order, push = store.read_sync(lambda c: _with_push(c, order_id))
    habits.show(
        _row(order)
        | {
            "reqId": order.req_id,
            "treId": order.tre_id,
            "sequence": order.sequence,
            "packageHash": order.package_hash,
            "packaging": order.packaging.value,
            "container": order.container,
            "pushes": order.pushes,
            "result": order.result,
            "broughtBy": order.brought_by,
            "reportOwed": order.report_owed,
            "job": order.job,
            "push": push,
            "calls": order.calls,
            "nextCall": None if order.call_at is None else order.call_at.isoformat(),
            "expiresAt": order.expires_at.isoformat(),
        },
        as_json=as_json(context),
    )


@order_app.command("suspend")
def order_suspend(context: typer.Context, order_id: OrderId, json: Json = False) -> None:
    """Stop an order of which nothing is at the device yet."""
    _move(context, order_id, order_desk.suspend)


@order_app.command("resume")
def order_resume(context: typer.Context, order_id: OrderId, json: Json = False) -> None:
    """Let a suspended order go on."""
    _move(context, order_id, order_desk.resume)


@order_app.command("cancel")
def order_cancel(context: typer.Context, order_id: OrderId, json: Json = False) -> None:
    """End an order of which nothing is at the device yet, and tell its home operator."""
    _move(context, order_id, order_desk.cancel)


def _move(context: typer.Context, order_id: str, move: Callable[[Connection, str, datetime], order_desk.Moved]) -> None:
    settings = settings_of(context)
    with open_database(settings) as store:
        moved = _moved(store, order_id, move)
        trail = open_trail(settings, store)
        trail.state(
            "order", moved.before, moved.order.state, step="8", order=order_id, detail=moved.order.detail or "resumed"
        )
        trail.close()
    habits.show({"orderId": order_id, "state": moved.order.state.value}, as_json=as_json(context))


def _moved(
    store: Store, order_id: str, move: Callable[[Connection, str, datetime], order_desk.Moved]
) -> order_desk.Moved:
    try:
        return store.write_sync(lambda connection: move(connection, order_id, datetime.now(UTC)))
    except OrderConflict as exc:
        raise ActorError("the order was moved at the same moment", hint="try again") from exc


def _with_push(connection: Connection, order_id: str) -> tuple[Order, str | None]:
    order = find_order(connection, order_id)
    if order is None:
        raise ActorError(f"no order {order_id}", hint="dmserver order list")
    return order, push_of(connection, order.device_id)


def _row(order: Order) -> dict[str, object]:
    return {
        "orderId": order.order_id,
        "m2meId": order.device_id,
        "shoId": order.sho_id,
        "operation": order.operation.label,
        "mcimId": order.mcim_id,
        "reason": order.purpose,
        "state": order.state.value,
        "detail": order.detail,
        "updatedAt": order.updated_at.isoformat(),
    }
