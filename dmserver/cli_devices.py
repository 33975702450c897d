"""`dmserver devices`: the register of devices and their DM accounts."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from actor_runtime import cli as habits
from actor_runtime.errors import ActorError
from dmserver.bootstrap import new_nonce
from dmserver.cli_context import Json, as_json, open_database, open_sealed_database, read_secret, settings_of
from dmserver.operator_service import device_of, show_device
from dmserver.push import push_address
from dmserver.store.accounts import (
    Account,
    DeviceExists,
    DeviceHasOrders,
    add_device,
    change_device,
    is_known,
    list_devices,
    profile_of,
    put_account,
    remove_device,
)
from syncml.codes import AuthType
from syncml.errors import LocalProtocolError
from syncml.peer_profile import DEFAULT_PROFILE, profile_named

devices_app = typer.Typer(help="Devices: the register, and accounts made by hand.", no_args_is_help=True)

MAX_NONCE = 64  # octets


class Auth(StrEnum):
    """Authentication types at the command line."""

    BASIC = "basic"
    MD5 = "md5"
    HMAC = "hmac"


_TYPES = {Auth.BASIC: AuthType.BASIC, Auth.MD5: AuthType.MD5, Auth.HMAC: AuthType.MAC}

Device = Annotated[str, typer.Argument(help="Identity of the device, as it stands in Source of its messages.")]
Push = Annotated[str | None, typer.Option(help="Where package 0 goes when the device is called: udp:HOST:PORT.")]
Profile = Annotated[str | None, typer.Option(help="Habits this kind of device needs: default, windows, small, …")]


@devices_app.command("add")
def add(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Option(help="Identity of the device, a URN.")],
    bootstrap_secret_file: Annotated[
        Path | None, typer.Option(help="File with the secret the supplier shares with us; - for standard input.")
    ] = None,
    managed: Annotated[
        bool, typer.Option("--managed/--no-managed", help="It may have sessions without a provisioning order.")
    ] = False,
    peer_profile: Profile = None,
    push: Push = None,
    json: Json = False,
) -> None:
    """Make a device known."""
    if push is not None:
        push_address(push)
    if not 1 <= len(m2me_id) <= 255 or not m2me_id.isascii() or not m2me_id.isprintable() or " " in m2me_id:
        raise ActorError("--m2me-id is no identity", hint="a URN such as urn:imei:490154203237518")
    if bootstrap_secret_file is None and not managed:
        raise ActorError(
            "a device that is provisioned needs its bootstrap secret", hint="--bootstrap-secret-file, or --managed"
        )
    secret = read_secret(bootstrap_secret_file).encode("ascii") if bootstrap_secret_file is not None else None
    profile = _profile(peer_profile) or DEFAULT_PROFILE.name
    with open_sealed_database(settings_of(context)) as (store, key):
        try:
            store.write_sync(
                lambda c: add_device(
                    c, key, m2me_id, secret, datetime.now(UTC), managed=managed, peer_profile=profile, push=push
                )
            )
        except DeviceExists as exc:
            raise ActorError(f"{m2me_id} is known already", hint=f"dmserver devices show {m2me_id}") from exc
    habits.show({"m2meId": m2me_id}, as_json=as_json(context))


@devices_app.command("list")
def show_all(context: typer.Context, json: Json = False) -> None:
    """Show all devices."""
    with open_database(settings_of(context)) as store:
        rows = store.read_sync(list_devices)
    habits.show_rows(
        [
            {
                "m2meId": row.device_id,
                "knownSince": row.known_since.isoformat(),
                "bootstraps": row.profile,
                "managed": row.managed,
                "peerProfile": row.peer_profile,
                "seenAt": None if row.seen_at is None else row.seen_at.isoformat(),
            }
            for row in rows
        ],
        as_json=as_json(context),
    )


@devices_app.command("show")
def show(context: typer.Context, device: Device, json: Json = False) -> None:
    """Show one device: account types, when it was seen, what it said of itself. Secrets are never shown."""
    with open_database(settings_of(context)) as store:
        row = store.read_sync(lambda c: device_of(c, device))
    habits.show(show_device(row), as_json=as_json(context))


@devices_app.command("set")
def change(
    context: typer.Context,
    device: Device,
    managed: Annotated[
        bool | None, typer.Option("--managed/--no-managed", help="Whether it may have sessions without an order.")
    ] = None,
    peer_profile: Profile = None,
    push: Push = None,
    json: Json = False,
) -> None:
    """Change what a device may do, how we speak to it from the next session on, and where it is called."""
    if managed is None and peer_profile is None and push is None:
        raise ActorError("nothing to change", hint="--managed, --no-managed, --peer-profile NAME, --push ADDRESS")
    if push is not None:
        push_address(push)
    profile = _profile(peer_profile)
    with open_database(settings_of(context)) as store:
        found = store.write_sync(lambda c: change_device(c, device, managed=managed, peer_profile=profile, push=push))
    if not found:
        raise _unknown(device)
    habits.show({"m2meId": device}, as_json=as_json(context))


@devices_app.command("remove")
def remove(context: typer.Context, device: Device, json: Json = False) -> None:
    """Forget a device, its account and its queue. One that ever had an order stays, as its orders do."""
    with open_database(settings_of(context)) as store:
        try:
            found = store.write_sync(lambda c: remove_device(c, device))
        except DeviceHasOrders as exc:
            raise ActorError(
                f"{device} has orders, which are kept", hint=f"dmserver devices set {device} --no-managed"
            ) from exc
    if not found:
        raise _unknown(device)
    habits.show({"m2meId": device}, as_json=as_json(context))


@devices_app.command("account")
def account(
    context: typer.Context,
    device: Device,
    client_name: Annotated[str, typer.Option(help="User name of the device (AAuthName).")],
    client_secret_file: Annotated[Path, typer.Option(help="File with its secret; - for standard input.")],
    server_secret_file: Annotated[Path, typer.Option(help="File with ours, for the device to check.")],
    client_auth: Annotated[Auth, typer.Option(help="How the device is to prove itself.")] = Auth.MD5,
    client_nonce: Annotated[str | None, typer.Option(help="Its first nonce, Base64; none: it is challenged.")] = None,
    server_auth: Annotated[Auth, typer.Option(help="How we prove ourselves to the device.")] = Auth.MD5,
    server_name: Annotated[str | None, typer.Option(help="Our user name; the server id without it.")] = None,
    server_nonce: Annotated[str | None, typer.Option(help="Our first nonce, Base64; none: it challenges us.")] = None,
    per_message: Annotated[
        bool, typer.Option("--per-message", help="Every message of the device is to carry credentials.")
    ] = False,
    json: Json = False,
) -> None:
    """Set the DM account of a device by hand, in the place of a bootstrap. Both secrets are to differ."""
    settings = settings_of(context)
    if not 1 <= len(client_name) <= 64 or not 1 <= len(server_name or settings.server_id) <= 255:
        raise ActorError("a name is too long or empty", hint="64 characters for the device, 255 for us")
    if client_auth is Auth.BASIC and ":" in client_name:
        raise ActorError("a colon ends the name in basic credentials", hint="--client-name without it")
    client_secret, server_secret = read_secret(client_secret_file), read_secret(server_secret_file)
    if client_secret == server_secret:
        raise ActorError(
            "the two secrets are the same", hint="whoever hears one of them could then play the other side"
        )
    first_client, first_server = _nonce(client_nonce, "--client-nonce"), _nonce(server_nonce, "--server-nonce")
    with open_sealed_database(settings) as (store, key):
        known = store.read_sync(lambda c: is_known(c, device))
        if not known:
            raise _unknown(device)
        made = Account(
            device_id=device,
            profile=store.read_sync(lambda c: profile_of(c, device)),
            client_name=client_name,
            client_secret=client_secret,
            client_nonce=first_client or new_nonce(),
            client_auth=_TYPES[client_auth],
            per_message=per_message,
            server_name=server_name or settings.server_id,
            server_secret=server_secret,
            server_nonce=first_server or b"",
            server_auth=_TYPES[server_auth],
        )
        store.write_sync(lambda c: put_account(c, key, made, datetime.now(UTC), bootstrapped=False))
    habits.show(
        {"m2meId": device, "clientAuth": client_auth.value, "serverAuth": server_auth.value}, as_json=as_json(context)
    )


def _profile(name: str | None) -> str | None:
    try:
        return None if name is None else profile_named(name).name
    except LocalProtocolError as exc:
        raise ActorError(str(exc)) from exc


def _nonce(text: str | None, option: str) -> bytes | None:
    if text is None:
        return None
    try:
        nonce = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ActorError(f"{option} is no Base64") from exc
    if not 1 <= len(nonce) <= MAX_NONCE:
        raise ActorError(f"{option} has {len(nonce)} octets", hint=f"1 to {MAX_NONCE}")
    return nonce


def _unknown(device: str) -> ActorError:
    return ActorError(f"{device} is not known", hint="dmserver devices list")
