"""Command line of the DPF. The commands work on the database directly, beside a server that runs or not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from actor_runtime import cli as habits
from actor_runtime.errors import ActorError
from actor_runtime.trail_store import newest_records, records_of
from dmserver.bootstrap import BootstrapForm, MacKey, PreparedBootstrap, Profile, prepare_bootstrap
from dmserver.bootstrap_pull import LIFETIME_S, MAX_LIFETIME_S, offer, pull_url
from dmserver.cli_context import Json, as_json
from dmserver.cli_context import open_database as _database
from dmserver.cli_context import open_sealed_database as _sealed_database
from dmserver.cli_context import settings_of as _settings
from dmserver.cli_devices import devices_app
from dmserver.cli_operator import device_app
from dmserver.cli_orders import order_app
from dmserver.notification import Call
from dmserver.notification import notify as call_device
from dmserver.push import destination_of, send
from dmserver.push_options import AuthName, InitiatorName, UiModeName, read_imsi, session_number
from dmserver.server import open_trail, run
from dmserver.store import tables
from dmserver.store.accounts import learn_push, note_notification
from dmserver.store.orders import find_order
from syncml.errors import LocalProtocolError

MAX_RECORDS = 10_000  # of the trail in one listing

app = typer.Typer(
    help="DPF: OMA DM server that provisions M2M devices, or a plain DM server (without `pva_url`). "
    f"{habits.EXIT_STATUSES}",
    epilog="Example: `dmserver --config dmserver.toml serve`",
    no_args_is_help=True,
)
app.add_typer(devices_app, name="devices")
app.add_typer(device_app, name="device")
app.add_typer(order_app, name="order")


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings file (TOML); the environment (DMSERVER_…) wins.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON; also after the command.")] = False,
) -> None:
    """Options of all commands."""
    context.obj = (config, json)


@app.command()
def serve(context: typer.Context) -> None:
    """Run the DPF until SIGTERM or SIGINT."""
    asyncio.run(run(_settings(context)))


@app.command(epilog="Example: `dmserver -c dmserver.toml bootstrap urn:imei:004999010640000 --udp 127.0.0.1:2948`")
def bootstrap(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Argument(help="The device.")],
    udp: Annotated[str | None, typer.Option(help="HOST:PORT of the device's WAP push port.")] = None,
    http: Annotated[str | None, typer.Option(help="URL of a listener for pushes over HTTP.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="File to write the datagram to; made new, for its owner alone.")
    ] = None,
    pull: Annotated[bool, typer.Option("--pull", help="Keep it for the device to fetch; prints the URL.")] = False,
    pull_lifetime_s: Annotated[
        int, typer.Option(min=1, max=MAX_LIFETIME_S, help="With --pull: seconds it waits.")
    ] = LIFETIME_S,
    profile: Annotated[Profile, typer.Option(help="Bootstrap profile.")] = Profile.CP,
    sec: Annotated[MacKey, typer.Option(help="What the MAC key is made of.")] = MacKey.USERPIN,
    imsi_file: Annotated[Path | None, typer.Option(help="File with the IMSI, for netwpin and usernetwpin.")] = None,
    imsi_text: Annotated[bool, typer.Option("--imsi-text", help="Key of the IMSI's digits as text.")] = False,
    as_xml: Annotated[bool, typer.Option("--xml", help="CP: the document as XML text.")] = False,
    nested: Annotated[bool, typer.Option("--nested", help="With --http: a response inside the request.")] = False,
    client_auth: Annotated[AuthName, typer.Option(help="How the device proves itself.")] = AuthName.MD5,
    server_auth: Annotated[AuthName, typer.Option(help="How the server proves itself.")] = AuthName.MD5,
    json: Json = False,
) -> None:
    """Make a new DM account for a device and send it, write it to a file, or keep it to be fetched."""
    if not pull and (udp, http, file) == (None, None, None):
        raise ActorError("say where it goes", hint="--udp HOST:PORT, --http URL, --file PATH or --pull")
    if pull and (udp, http, file) != (None, None, None):
        raise ActorError("say where the bootstrap goes", hint="--pull, or one of --udp, --http, --file")
    destination = None if pull else destination_of(udp=udp, http=http, file=file, nested=nested)
    settings = _settings(context)
    dm_url = settings.announced_dm_url()
    form = BootstrapForm(
        profile=profile,
        mac_key=sec,
        imsi=None if imsi_file is None else read_imsi(imsi_file),
        imsi_text=imsi_text,
        as_xml=as_xml,
        client_auth=client_auth.auth_type,
        server_auth=server_auth.auth_type,
    )
    shown: dict[str, object] = {"m2meId": m2me_id, "dmUrl": dm_url}
    with _sealed_database(settings) as (store, key):

        def prepare(connection: Connection) -> PreparedBootstrap:
            now = datetime.now(UTC)
            made = prepare_bootstrap(
                connection,
                key,
                m2me_id,
                server_id=settings.server_id,
                dm_url=dm_url,
                per_hour=settings.limits.bootstraps_per_hour,
                now=now,
                form=form,
            )
            if udp is not None:
                learn_push(connection, m2me_id, f"udp:{udp}")
            if pull:
                token = offer(connection, key, m2me_id, made.push, lifetime_s=pull_lifetime_s, now=now)
                shown["pullUrl"] = pull_url(dm_url, token)
            return made

        try:
            made = store.write_sync(prepare)
            octets = len(made.push.body) if destination is None else asyncio.run(send(made.push, destination))
        except LocalProtocolError as exc:
            raise ActorError(f"no bootstrap can be made: {exc}", hint="server_id, public_dm_url, --imsi-file") from exc
        trail = open_trail(settings, store)
        if made.order_id is not None:
            trail.check("bootstrap-allowed", True, req=("REQ-11",), step="7", order=made.order_id)
        trail.message(step="7", direction="DPF→M2ME", summary=made.summary, octets=octets, order=made.order_id)
        trail.close()
    shown["octets"] = octets
    if made.typed is not None:
        shown["typedNumber"] = made.typed
    habits.show(shown, as_json=as_json(context))


@app.command(epilog="Example: `dmserver -c dmserver.toml notify urn:imei:004999010640000 --udp 127.0.0.1:2948`")
def notify(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Argument(help="The device.")],
    udp: Annotated[str | None, typer.Option(help="HOST:PORT of the device's WAP push port.")] = None,
    http: Annotated[str | None, typer.Option(help="URL of a listener for pushes over HTTP.")] = None,
    file: Annotated[Path | None, typer.Option(help="File to write the datagram to.")] = None,
    nested: Annotated[bool, typer.Option("--nested", help="With --http: a response inside the request.")] = False,
    ui_mode: Annotated[UiModeName, typer.Option(help="How the user is involved.")] = UiModeName.BACKGROUND,
    initiator: Annotated[InitiatorName, typer.Option(help="Whose wish the session is.")] = InitiatorName.SERVER,
    session_id: Annotated[
        str | None, typer.Option(help="SessionID, hexadecimal, 1 to FFFF; default: the next one.")
    ] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="The last SessionID once more.")] = False,
    resync: Annotated[bool, typer.Option("--resync", help="Under the special nonce 0x00000000.")] = False,
    json: Json = False,
) -> None:
    """Call a device to a session (package 0)."""
    destination = destination_of(udp=udp, http=http, file=file, nested=nested)
    settings = _settings(context)
    call = Call(
        ui_mode=ui_mode.mode,
        initiator=initiator.initiator,
        session_id=session_number(session_id),
        repeat=repeat,
        resync=resync,
    )
    with _sealed_database(settings) as (store, key):
        try:
            made = asyncio.run(call_device(store, key, m2me_id, destination, server_id=settings.server_id, call=call))
        except LocalProtocolError as exc:
            raise ActorError(f"no notification can be made: {exc}", hint="--session-id, server_id") from exc
        store.write_sync(lambda c: note_notification(c, m2me_id, datetime.now(UTC)))
        trail = open_trail(settings, store)
        trail.message(
            step="7",
            direction="DPF→M2ME",
            summary=f"package 0: SessionID {made.session_id:X}{', special nonce' if resync else ''}",
            octets=len(made.octets),
        )
        trail.close()
    habits.show(
        {"m2meId": m2me_id, "sessionId": f"{made.session_id:X}", "octets": len(made.octets)}, as_json=as_json(context)
    )


@app.command()
def audit(
    context: typer.Context,
    order_id: Annotated[str | None, typer.Argument(help="The order.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The newest records, whatever they belong to.")] = False,
    without_order: Annotated[
        bool, typer.Option("--without-order", help="The newest of no order, such as what operators did.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=MAX_RECORDS, help="How many of the newest.")] = 200,
    json: Json = False,
) -> None:
    """Show everything that was recorded for an order: messages, checks, changes of state (REQ-71)."""
    if (order_id is not None) + everything + without_order != 1:
        raise ActorError("which records?", hint="an order, or --all, or --without-order")
    with _database(_settings(context)) as store:
        if order_id is None:
            records = store.read_sync(
                lambda c: newest_records(c, tables.trail, limit=limit, without_order=without_order)
            )
        elif store.read_sync(lambda c: find_order(c, order_id)) is None:
            raise ActorError(f"no order {order_id}", hint="dmserver order list")
        else:
            records = store.read_sync(lambda c: records_of(c, tables.trail, order_id))
    if as_json(context):
        habits.show_rows(records, as_json=True)
        return
    for record in records:
        order = f"  {record['order']}" if everything and record["order"] is not None else ""
        typer.echo(habits.plain(_line(record) + order))


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
