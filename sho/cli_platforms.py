"""`sho platform …`, `sho prepare …`, `sho revoke`, `sho token …`: what is known of devices before they ask."""

from __future__ import annotations

import csv
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from actor_runtime import cli
from actor_runtime.errors import ActorError
from mcim.certificates import load_pem_chain
from mcim.errors import CertificateRefused
from sho.app import Sho, open_vault
from sho.cli_context import AsJson, built, opened, read_lines, read_octets, settings_of
from sho.store import prepared, tokens
from sho.store.tokens import TokenRow

TOKEN_LENGTHS = range(1, 65)  # octets of a device token
DEFAULT_SUITES = "MCIM-RSA-GCM-256,MCIM-RSA-CBC-256,MCIM-EC-GCM-256,MCIM-EC-CBC-256"

app = typer.Typer(help="Platform credentials known before their devices ask.", no_args_is_help=True)
prepare_app = typer.Typer(help="Objects in advance, in bulk.", no_args_is_help=True)
token_app = typer.Typer(help="Device tokens that users gave to this SHO.", no_args_is_help=True)

Names = Annotated[str, typer.Option(help="As the TRE lists them, parted by commas.")]


@app.command("register")
def platform_register(
    context: typer.Context,
    certificate: Annotated[
        Path | None,
        typer.Option(help="PEM: the platform certificate, then its chain."),
    ] = None,
    chain: Annotated[Path | None, typer.Option(help="PEM: the chain, when it is a file of its own.")] = None,
    directory: Annotated[
        Path | None,
        typer.Option(help="Register every *.pem and *.crt in it."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--csv", help="CSV: certificate (path), suites, containers, algorithms (parted by spaces)."),
    ] = None,
    suites: Names = DEFAULT_SUITES,
    containers: Names = "xml",
    algorithms: Names = "milenage",
) -> None:
    """Take platform credentials in: one, a directory, or a list."""
    if [certificate, directory, file].count(None) != 2:
        raise ActorError("exactly one of --certificate, --directory and --csv is needed")
    offer = {"suites": suites.split(","), "containers": containers.split(","), "algorithms": algorithms.split(",")}
    work: list[tuple[Path, dict[str, list[str]]]] = []
    if certificate is not None:
        work.append((certificate, offer))
    if directory is not None:
        work += [(path, offer) for path in sorted(directory.glob("*")) if path.suffix in (".pem", ".crt")]
    if file is not None:
        for row in csv.DictReader(read_lines(file), skipinitialspace=True):
            own = {name: (row.get(name) or "").split() or offer[name] for name in offer}
            work.append((file.parent / (row.get("certificate") or ""), own))
    added = 0
    with built(context) as sho:
        for path, own in work:
            added += _register(sho, path, chain, own)
    typer.echo(f"{added} platforms added, {len(work) - added} renewed")


@app.command("list")
def platform_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List registered platforms."""
    with opened(context) as store:
        rows = store.read_sync(
            lambda c: [
                {
                    "keyId": row.key_id.hex(),
                    "treId": row.tre_id,
                    "m2meId": row.m2me_id,
                    "suites": " ".join(row.suites),
                    "containers": " ".join(row.containers),
                    "algorithms": " ".join(row.algorithms),
                    "revoked": prepared.is_revoked(c, row.tre_id, row.key_id),
                }
                for row in prepared.all_platforms(c)
            ]
        )
    cli.show_rows(rows, as_json=as_json)


def revoke(
    context: typer.Context,
    tre: Annotated[str | None, typer.Option(help="TRE id.")] = None,
    key_id: Annotated[str | None, typer.Option(help="Key id of PK_D, 32 hexadecimal digits.")] = None,
) -> None:
    """Refuse a TRE or a platform key from now on; objects prepared for it are dropped."""
    subject = tre if tre is not None else (key_id or "").lower()
    if (tre is None) is (key_id is None) or not subject:
        raise ActorError("exactly one of --tre and --key-id is needed")
    with opened(context) as store:
        dropped = store.write_sync(lambda c: prepared.revoke(c, subject, now=datetime.now(UTC)))
    typer.echo(f"revoked; {dropped} prepared objects dropped")


@prepare_app.command("start")
def prepare_start(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="For every registered platform.")] = False,
    keys: Annotated[
        Path | None,
        typer.Option("--list", help="File with one key id (hex) a line; - is stdin."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each step.")] = False,
) -> None:
    """Prepare objects; objects of platforms that are good no more are dropped first."""
    if everything is (keys is not None):
        raise ActorError("exactly one of --all and --list is needed")
    wanted = None
    if keys is not None:
        try:
            wanted = [bytes.fromhex(line) for line in read_lines(keys) if line.strip()]
        except ValueError:
            raise ActorError(f"{keys}: a key id is 32 hexadecimal digits") from None
    with built(context) as sho:
        dropped = sho.preparation.drop_refused()
        if dropped:
            typer.echo(f"{dropped} objects of refused platforms dropped", err=True)
        job_id = sho.preparation.start(wanted)
        if not as_json:
            typer.echo(f"job {job_id}")
        _run(sho, job_id, as_json=as_json)


@prepare_app.command("resume")
def prepare_resume(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="Id of a job that was interrupted.")],
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each step.")] = False,
) -> None:
    """Go on with a job."""
    with built(context) as sho:
        _run(sho, job, as_json=as_json)


@prepare_app.command("status")
def prepare_status(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(help="Show what failed in this job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show jobs and how far they are."""
    with opened(context) as store:
        if job is None:
            rows = store.read_sync(prepared.list_jobs)
        elif store.read_sync(lambda c: prepared.job_exists(c, job)):
            rows = store.read_sync(lambda c: prepared.failures(c, job))
        else:
            raise ActorError(f"no job {job}", hint="`sho prepare status` shows all")
    cli.show_rows(rows, as_json=as_json)


@token_app.command("set")
def token_set(
    context: typer.Context,
    m2me_id: Annotated[str, typer.Option("--m2me-id", help="Device that demands it.")],
    file: Annotated[Path, typer.Option("--file", help="File with the token, one line; - is stdin.")] = Path("-"),
) -> None:
    """Store the token of a device, sealed, until a package with it succeeded."""
    token = read_octets(file).rstrip(b"\r\n")
    if len(token) not in TOKEN_LENGTHS:
        raise ActorError("a device token has 1 to 64 octets")
    with opened(context) as store:
        token_ref = str(uuid.uuid4())
        sealed = open_vault(settings_of(context), store).seal_token(token, token_ref)
        row = TokenRow(m2me_id=m2me_id, token_ref=token_ref, sealed=sealed)
        store.write_sync(lambda c: tokens.put(c, row, now=datetime.now(UTC)))
    typer.echo(f"token {token_ref} kept for {m2me_id}")


@token_app.command("list")
def token_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List which devices have a token here."""
    with opened(context) as store:
        rows = store.read_sync(tokens.list_tokens)
    cli.show_rows(rows, as_json=as_json)


@token_app.command("drop")
def token_drop(context: typer.Context, m2me_id: Annotated[str, typer.Option("--m2me-id", help="Device.")]) -> None:
    """Forget the token of a device."""
    with opened(context) as store:
        dropped = store.write_sync(lambda c: tokens.drop(c, m2me_id))
    if not dropped:
        raise ActorError(f"no token of {m2me_id} is kept", hint="`sho token list` shows all")
    typer.echo("dropped")


def _run(sho: Sho, job_id: str, *, as_json: bool) -> None:
    progress: dict[str, int] = {}
    for progress in sho.preparation.run(job_id):
        if as_json:
            typer.echo(json.dumps({"job": job_id, **progress}))
        else:
            total, waiting = sum(progress.values()), progress[prepared.WAITING]
            typer.echo(f"\r{total - waiting} of {total}, {progress[prepared.FAILED]} failed", nl=False)
    if not progress:
        progress = sho.store.read_sync(lambda c: prepared.progress(c, job_id))
        if as_json:
            typer.echo(json.dumps({"job": job_id, **progress}))
    if not as_json:
        typer.echo(
            f"\n{progress[prepared.DONE]} prepared, {progress[prepared.SKIPPED]} there already, "
            f"{progress[prepared.FAILED]} failed"
        )


def _register(sho: Sho, path: Path, chain: Path | None, offer: dict[str, list[str]]) -> bool:
    try:
        found = load_pem_chain(read_octets(path))
        if chain is not None:
            found = (*found, *load_pem_chain(read_octets(chain)))
        return sho.preparation.register([each.public_bytes(Encoding.DER) for each in found], **offer)
    except CertificateRefused as exc:
        raise ActorError(f"{path}: {exc}") from exc
