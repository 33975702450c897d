"""`sho subscription …`: the inventory. Keys are read from files or standard input, never from arguments."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from actor_runtime import cli
from actor_runtime.errors import ActorError
from mcim.vocabulary import McimPolicy
from sho import subscription_csv
from sho.app import mcim_policy, open_trail, open_vault
from sho.cli_context import AsJson, opened, read_lines, settings_of
from sho.store import repository, updates
from sho.store.repository import SubscriptionRow
from sho.store.updates import NewValues
from sho.subscription_csv import Line
from sho.subscriptions import Vault, generate

app = typer.Typer(help="Subscriptions in the inventory.", no_args_is_help=True)

STEP = "16"  # barring is about attaches
Name = Annotated[str, typer.Argument(help="Id in the list, or MCIM id.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit trail.")]


@app.command("generate")
def generate_command(
    context: typer.Context,
    count: Annotated[int, typer.Option(min=1, max=1_000_000)] = 1,
    plmn: Annotated[str, typer.Option(help="MCC and MNC, 5 or 6 digits.")] = "00101",
    algorithm: Annotated[str, typer.Option(help="milenage, tuak128 or tuak256.")] = "milenage",
) -> None:
    """Make random subscriptions."""
    lines = (Line(credential=credential) for credential in generate(count, plmn, algorithm))
    _take_in(context, lines, skip_known=True)


@app.command("import")
def import_command(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with imsi, k; opc, op, topc or top; algorithm, constants, tuak, amf if wanted. - is stdin."
        ),
    ],
) -> None:
    """Take in subscriptions from CSV. An IMSI that is there already refuses the whole file."""
    _take_in(context, subscription_csv.read_csv(read_lines(file)))


@app.command("add")
def add_command(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", help="File with one line: imsi,k,opc; - is stdin.")] = Path("-"),
) -> None:
    """Take in one subscription, from a file or standard input: keys do not belong on a command line."""
    if str(file) == "-" and sys.stdin.isatty():
        typer.echo("imsi,k,opc (then Ctrl-D):", err=True)
    _take_in(context, subscription_csv.read_csv(["imsi,k,opc", *read_lines(file)]))


@app.command("update")
def update_command(
    context: typer.Context,
    subscription: Name,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="CSV, a header and one line, with the columns that change; - is stdin."),
    ] = None,
    new_keys: Annotated[bool, typer.Option("--new-keys", help="Random new K and OPc or TOPc.")] = False,
    policy: Annotated[
        str | None,
        typer.Option(help="Flags parted by commas: signed-lifecycle, release-required, two-phase-update."),
    ] = None,
) -> None:
    """Plan new values. On a device they count from the TRE's receipt of an update on; else at once.

    New constants alone (column constants or tuak) leave K, OPc or TOPc and the sequence numbers as they are.
    """
    values = _one_line(read_lines(file)) if file is not None else {}
    flags = mcim_policy(name for name in policy.split(",") if name) if policy is not None else None
    with opened(context) as store:
        vault = open_vault(settings_of(context), store)
        row = store.read_sync(lambda c: _find(c, subscription))
        new = _new_values(vault, row, values, new_keys=new_keys, policy=flags)

        def plan(connection: Connection) -> str:
            try:
                return updates.plan(connection, _find(connection, subscription), new, now=datetime.now(UTC))
            except LookupError as exc:
                raise ActorError(str(exc)) from exc

        state = store.write_sync(plan)
    hint = "; order its update with `sho order open --operation update`" if state == updates.PENDING else ""
    typer.echo(f"{state}: {', '.join(sorted(new.changes))}{hint}")


@app.command("bar")
def bar_command(context: typer.Context, subscription: Name, reason: Reason = "") -> None:
    """Let nobody attach with a subscription from now on, whatever its device does.

    Attaches already begun fail, its packages are held back and its device gets no other subscription. What the TRE
    reports still counts, and it can still be suspended and deleted on the device.
    """
    _set_barred(context, subscription, True, reason)


@app.command("unbar")
def unbar_command(context: typer.Context, subscription: Name, reason: Reason = "") -> None:
    """Let a barred subscription be used again, in the state it is in by now."""
    _set_barred(context, subscription, False, reason)


@app.command("list")
def list_command(
    context: typer.Context,
    state: Annotated[
        str | None,
        typer.Option(help="free, prepared, allocated, armed, suspended, fell-back or closed."),
    ] = None,
    limit: int = 100,
    as_json: AsJson = False,
) -> None:
    """List subscriptions, identities masked."""
    with opened(context) as store:
        rows = store.read_sync(lambda c: repository.list_subscriptions(c, state=state, limit=limit))
    cli.show_rows(rows, as_json=as_json)


def _find(connection: Connection, name: str) -> SubscriptionRow:
    row = repository.find_subscription_of_mcim(connection, name)
    if row is None and name.isascii() and name.isdigit():
        row = repository.find_subscription_by_id(connection, int(name))
    if row is None:
        raise ActorError(f"no subscription {name}", hint="`sho subscription list` shows all")
    return row


def _set_barred(context: typer.Context, subscription: str, barred: bool, reason: str) -> None:
    said = "barred" if barred else "not barred"
    with opened(context) as store:

        def change(connection: Connection) -> tuple[SubscriptionRow, str | None]:
            row = _find(connection, subscription)
            if not repository.set_barred(connection, row.id, datetime.now(UTC) if barred else None):
                raise ActorError(f"subscription {row.id} is {said} already")
            handover = repository.find_handover_of_mcim(connection, row.mcim_id) if row.mcim_id else None
            return row, handover.order_id if handover is not None else None

        row, order = store.write_sync(change)
        trail = open_trail(settings_of(context), store)
        try:
            detail = f"subscription {row.id}, {row.state}" + (f": {reason}" if reason else "")
            before = "not barred" if barred else "barred"
            trail.state("barring", before, said, step=STEP, order=order, detail=detail[:255])
        finally:
            trail.close()
    typer.echo(f"{row.id}: {said}")


def _one_line(lines: list[str]) -> dict[str, str]:
    try:
        rows = list(csv.DictReader(lines, skipinitialspace=True))
    except csv.Error as exc:
        raise ActorError("not CSV") from exc
    if len(rows) != 1:
        raise ActorError("a header and exactly one line are needed")
    return {(name or "").strip().lower(): v.strip() for name, v in rows[0].items() if isinstance(v, str) and v.strip()}


def _new_values(
    vault: Vault, row: SubscriptionRow, values: dict[str, str], *, new_keys: bool, policy: McimPolicy | None
) -> NewValues:
    before = vault.open(row.sealed)
    after = subscription_csv.changed_credential(before, values, new_keys=new_keys)
    amf = subscription_csv.amf_of(values) if "amf" in values else row.amf
    policy = policy if policy is not None else row.policy
    new_key = (after.algorithm, after.k, after.opc) != (before.algorithm, before.k, before.opc)
    changes = {
        "imsi": after.imsi != before.imsi,
        updates.KEYS: new_key,
        updates.CONSTANTS: not new_key and after.keys.explicit_constants != before.keys.explicit_constants,
        "amf": amf != row.amf,
        "policy": policy != row.policy,
    }
    changed = frozenset(name for name, differs in changes.items() if differs)
    if not changed:
        columns = "imsi, k with opc or topc, constants or tuak, amf"
        raise ActorError("nothing changes", hint=f"columns: {columns}; or --new-keys, --policy")
    if updates.CONSTANTS in changed and len(changed) > 1:
        raise ActorError("new constants under the same K are an update of their own", hint="or change K as well")
    return NewValues(sealed=vault.seal(after), imsi_mask=after.imsi_mask, amf=amf, policy=policy, changes=changed)


def _take_in(context: typer.Context, found: Iterable[Line], *, skip_known: bool = False) -> None:
    with opened(context) as store:
        vault = open_vault(settings_of(context), store)
        now = datetime.now(UTC)
        sealed = [(vault.seal(line.credential), line.credential.imsi_mask, line.amf) for line in found]

        def add(connection: Connection) -> int:
            added = 0
            for credential, mask, amf in sealed:
                new = repository.add_subscription(connection, credential, imsi_mask=mask, amf=amf, now=now)
                if not new and not skip_known:
                    raise ActorError(f"{mask} is there already", hint="nothing of this file was taken in")
                added += new
            return added

        typer.echo(f"{store.write_sync(add)} subscriptions added")
