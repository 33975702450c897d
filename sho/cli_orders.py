"""`sho order …`, `sho package …`, `sho release`: what devices are to get, and what was made for them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from actor_runtime import cli
from actor_runtime.errors import ActorError
from actor_runtime.http import PartnerClient
from actor_runtime.store import Store
from actor_runtime.tls import client_context
from sho import jobs as job_work
from sho.app import open_trail
from sho.cli_context import AsJson, opened, read_octets, settings_of
from sho.identity import load_identity
from sho.orders import make_terms, open_order
from sho.release import issue_release
from sho.store import jobs, repository

MAX_RELEASE_TOKEN = 0xFFFF  # octets of a TLV
app = typer.Typer(help="Orders for devices.", no_args_is_help=True)
package_app = typer.Typer(help="Packages made, and those still to be made.", no_args_is_help=True)


@app.command("open")
def order_open(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Option("--m2me-id", help="Device, such as urn:imei:…")],
    dpf: Annotated[str, typer.Option(help="URL of the DPF's partner listener.")],
    operation: Annotated[str, typer.Option(help="install, update, activate, suspend, delete or replace.")] = "install",
    mcim: Annotated[str | None, typer.Option(help="Target of all but install and replace.")] = None,
    replaces: Annotated[str | None, typer.Option(help="MCIM that a replace gives up.")] = None,
    release_token: Annotated[
        Path | None,
        typer.Option(help="Of the SHO of that MCIM, a file; - is stdin."),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="initial, change-of-sho, update or recovery; the operation says which when it is left out."),
    ] = None,
    expires_in: Annotated[int | None, typer.Option(help="Seconds.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Open an order for a device at the DPF."""
    settings = settings_of(context)
    token = read_octets(release_token) if release_token is not None else None
    if token is not None and not 1 <= len(token) <= MAX_RELEASE_TOKEN:
        raise ActorError(f"{release_token}: a release token has up to {MAX_RELEASE_TOKEN} octets")
    terms = make_terms(operation, mcim_id=mcim, replaces=replaces, release_token=token)
    reasons = {"install": "initial", "replace": "change-of-sho"}
    said = reason or reasons.get(operation, "update")

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
                reason=said, expires_in_s=expires_in, now=datetime.now(UTC), terms=terms,
            )  # fmt: skip
        finally:
            await partner.close()
            trail.close()

    with opened(context) as store:
        order = asyncio.run(work(store))
    cli.show(order, as_json=as_json)


@app.command("list")
def order_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List orders."""
    with opened(context) as store:
        rows = store.read_sync(repository.list_orders)
    cli.show_rows(rows, as_json=as_json)


@app.command("show")
def order_show(
    context: typer.Context,
    order: Annotated[str, typer.Argument(help="Our id or the DPF's.")],
    as_json: AsJson = False,
) -> None:
    """Show one order."""
    with opened(context) as store:
        found = store.read_sync(lambda c: repository.find_order(c, order))
    if found is None:
        raise ActorError(f"no order {order}", hint="`sho order list` shows all")
    cli.show(found, as_json=as_json)


@package_app.command("list")
def package_list(context: typer.Context, limit: int = 100, as_json: AsJson = False) -> None:
    """List packages, newest first."""
    with opened(context) as store:
        rows = store.read_sync(lambda c: repository.list_handovers(c, limit=limit))
    cli.show_rows(rows, as_json=as_json)


@package_app.command("show")
def package_show(
    context: typer.Context, package: Annotated[int, typer.Argument(help="Id in the list.")], as_json: AsJson = False
) -> None:
    """Show one package: everything but its octets."""

    def find(connection: Connection) -> dict[str, object] | None:
        rows = repository.list_handovers(connection, limit=1, handover_id=package)
        if not rows:
            return None
        row, job = repository.get_handover(connection, package), jobs.find_for_handover(connection, package)
        return rows[0] | {
            "dpfId": row.dpf_id,
            "treId": row.tre_id,
            "platformKeyId": row.platform_key_id.hex(),
            "reqId": row.req_id,
            "revision": row.revision,
            "notBefore": row.not_before.isoformat(),
            "notAfter": row.not_after.isoformat(),
            "packageHash": row.package_hash.hex() if row.package_hash is not None else None,
            "tokenRef": row.token_ref,
            "job": job.id if job is not None else None,
            "jobState": job.state if job is not None else None,
        }

    with opened(context) as store:
        found = store.read_sync(find)
    if found is None:
        raise ActorError(f"no package {package}", hint="`sho package list` shows all")
    cli.show(found, as_json=as_json)


@package_app.command("jobs")
def package_jobs(context: typer.Context, limit: int = 100, as_json: AsJson = False) -> None:
    """List the jobs of packages that come later."""
    with opened(context) as store:
        rows = store.read_sync(lambda c: jobs.list_jobs(c, limit=limit))
    cli.show_rows(rows, as_json=as_json)


@package_app.command("approve")
def package_approve(context: typer.Context, job: Annotated[str, typer.Argument(help="Job id.")]) -> None:
    """Let the package of a job be made; the running SHO does so."""
    with opened(context) as store:
        moved = store.write_sync(lambda c: jobs.move(c, job, expected=(jobs.APPROVAL,), state=jobs.WAITING))
    if not moved:
        raise ActorError(f"no job {job} waits for approval", hint="`sho package jobs` shows all")
    typer.echo("approved")


@package_app.command("refuse")
def package_refuse(context: typer.Context, job: Annotated[str, typer.Argument(help="Job id.")]) -> None:
    """Refuse the package of a job that is not made yet."""

    def refuse(connection: Connection) -> bool:
        found = jobs.find(connection, job)
        return found is not None and job_work.refuse(
            connection, found, code="refused-by-operator", now=datetime.now(UTC)
        )

    with opened(context) as store:
        refused = store.write_sync(refuse)
    if not refused:
        raise ActorError(f"no job {job} is still to be made", hint="`sho package jobs` shows all")
    typer.echo("refused")


def release(
    context: typer.Context,
    mcim: Annotated[str, typer.Option(help="MCIM of ours.")],
    tre: Annotated[str, typer.Option(help="TRE that it is in.")],
    to: Annotated[str, typer.Option(help="Id of the SHO that may take its place.")],
    out: Annotated[Path, typer.Option(help="File for the token.")],
    days: Annotated[int, typer.Option(help="Life of the token.", min=1, max=365)] = 30,
) -> None:
    """Let another SHO take the place of an MCIM: issue a release token."""
    settings = settings_of(context)
    identity = load_identity(settings.sho_id, settings.signing_cert, settings.signing_key)
    with opened(context) as store:
        trail = open_trail(settings, store)
        try:
            token = issue_release(
                store=store, trail=trail, identity=identity, mcim_id=mcim, tre_id=tre, new_sho_id=to,
                life=timedelta(days=days), now=datetime.now(UTC),
            )  # fmt: skip
        finally:
            trail.close()
    try:
        out.write_bytes(token)
    except OSError as exc:
        raise ActorError(f"{out}: {exc.strerror}") from exc
    typer.echo(f"released to {to}: {out}")
