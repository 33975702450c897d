"""Command line of the RO. Lists show masks; keys go to files for suppliers and nowhere else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer
from sqlalchemy import Connection

from actor_runtime import cli
from actor_runtime.cli import AsJson
from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.store import Store
from actor_runtime.trail_store import records_of
from ro.app import open_store, open_trail, open_vault, run
from ro.config import RoSettings
from ro.identities import Algorithm, IdentityError, ProvisionalIdentity, new_identity, new_keys, supplier_document
from ro.store import registration_rows, repository, tables
from ro.store.registration_rows import WAITING, Registration, State
from ro.store.repository import IdentityRow

app = cli.actor_app("RO", "Registration operator: PCIDs, first attach, registration.", RoSettings, run)
pcid_app = typer.Typer(help="Provisional identities (CCIF).", no_args_is_help=True)
route_app = typer.Typer(help="Which home operator devices belong to (DRF).", no_args_is_help=True)
registration_app = typer.Typer(help="Registrations of devices (DRF).", no_args_is_help=True)
for _name, _group in (("pcid", pcid_app), ("route", route_app), ("registration", registration_app)):
    app.add_typer(_group, name=_name)

Number = Annotated[int, typer.Argument(help="Number of the identity, from `ro pcid list`.")]
ValidDays = Annotated[int, typer.Option(min=1, max=3650, help="How long devices may use it.")]
Supplier = Annotated[str | None, typer.Option(help="Supplier it is given to; routes go by it.")]
Out = Annotated[Path, typer.Option("--out", help="File for the supplier (JSON); made new, for its owner alone.")]
MAX_ISSUE: Final = 100_000

T = TypeVar("T")


@app.command()
def audit(
    context: typer.Context,
    registration: Annotated[str, typer.Argument(help="Registration id.")],
    as_json: AsJson = False,
) -> None:
    """Show the audit trail of a registration."""

    def read(connection: Connection) -> list[Mapping[str, object]]:
        records = records_of(connection, tables.trail, registration)
        if not records and registration_rows.get_registration(connection, registration) is None:
            raise _no_registration(registration)
        return records

    cli.show_rows(_with_store(context, lambda s: s.read_sync(read)), as_json=as_json)


@app.command()
def visits(context: typer.Context, as_json: AsJson = False) -> None:
    """Count attaches and refusals by visited network."""
    cli.show_rows(_with_store(context, lambda s: s.read_sync(repository.list_visits)), as_json=as_json)


@app.command()
def alarms(context: typer.Context, as_json: AsJson = False) -> None:
    """Show identities that were in the hands of another device."""
    cli.show_rows(_with_store(context, lambda s: s.read_sync(repository.list_alarms)), as_json=as_json)


# --- identities ---------------------------------------------------------------------------------------


@pcid_app.command("issue")
def pcid_issue(
    context: typer.Context,
    out: Out,
    count: Annotated[int, typer.Option(min=1, max=MAX_ISSUE)] = 1,
    plmn: Annotated[str, typer.Option(help="MCC and MNC of this operator, 5 or 6 digits.")] = "00101",
    valid_days: ValidDays = 90,
    supplier: Supplier = None,
    algorithm: Annotated[Algorithm, typer.Option(help="What they authenticate with.")] = Algorithm.MILENAGE,
) -> None:
    """Make new identities and write them, with their keys, for the supplier."""
    now = _now()
    not_after = now + timedelta(days=valid_days)
    issued: list[ProvisionalIdentity] = []

    def work(store: Store) -> None:
        vault = open_vault(_settings(context), store)

        def add(connection: Connection) -> None:
            misses = 0
            while len(issued) < count:
                identity = new_identity(plmn, algorithm)
                made = repository.add_identity(
                    connection, vault.seal(identity, 1), mask=identity.mask, not_after=not_after, supplier=supplier,
                    now=now,
                )  # fmt: skip
                if made is not None:
                    issued.append(identity)
                    continue
                misses += 1
                if misses > count + 1000:
                    raise IdentityError("the network has hardly any free identities", hint="ro pcid reissue")
            write(supplier_document((identity, not_after) for identity in issued))

        store.write_sync(add)

    with _for_supplier(out) as write:
        _with_store(context, work)
    typer.echo(f"{count} identities issued, valid until {not_after.isoformat()}")


@pcid_app.command("list")
def pcid_list(context: typer.Context, limit: int = 100, as_json: AsJson = False) -> None:
    """List identities, masked."""
    rows = _with_store(context, lambda s: s.read_sync(lambda c: repository.list_identities(c, limit=limit)))
    cli.show_rows([_shown(row) for row in rows], as_json=as_json)


@pcid_app.command("show")
def pcid_show(context: typer.Context, number: Number, as_json: AsJson = False) -> None:
    """Show one identity, masked."""
    row = _with_store(context, lambda s: s.read_sync(lambda c: repository.get_identity(c, number)))
    cli.show(_shown(_known(row, number)), as_json=as_json)


@pcid_app.command("withdraw")
def pcid_withdraw(context: typer.Context, number: Number) -> None:
    """Let nobody attach with an identity any more, and end the registrations that wait with it.

    It is given out again after its validity, not before. A device that was bootstrapped is its home operator's.
    """
    now = _now()

    def withdraw(connection: Connection) -> list[Registration]:
        if not repository.withdraw_identity(connection, number):
            _known(None, number)
        return registration_rows.end_registrations(connection, number, "identity withdrawn", now)

    ended = _with_store(context, lambda s: _told(context, s, State.REFUSED, s.write_sync(withdraw), "withdrawn"))
    typer.echo(f"{number}: withdrawn, {len(ended)} registrations ended")


@pcid_app.command("reissue")
def pcid_reissue(
    context: typer.Context,
    number: Number,
    out: Out,
    valid_days: ValidDays = 90,
    supplier: Supplier = None,
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="What it authenticates with from now on; as before without it.")
    ] = None,
) -> None:
    """Give an expired identity out again, with other keys and for another device (REQ-72)."""
    now = _now()
    not_after = now + timedelta(days=valid_days)

    def work(store: Store) -> None:
        vault = open_vault(_settings(context), store)
        row = _known(store.read_sync(lambda c: repository.get_identity(c, number)), number)
        kept = Algorithm(vault.open_keys(row.sealed, row.generation).label)
        again = ProvisionalIdentity(imsi=vault.open_imsi(row.sealed), keys=new_keys(algorithm or kept))
        sealed, generation = vault.seal(again, row.generation + 1), row.generation + 1

        def reissue(connection: Connection) -> bool:
            done = repository.reissue_identity(
                connection, number, sealed, generation=generation, not_after=not_after, supplier=supplier, now=now
            )
            if done:
                write(supplier_document([(again, not_after)]))
            return done

        if not store.write_sync(reissue):
            raise IdentityError(
                f"{row.mask} is valid until {row.not_after.isoformat()}",
                hint="the device it was given to may still hold it; nobody else gets it before",
            )

    with _for_supplier(out) as write:
        _with_store(context, work)
    typer.echo(f"{number}: issued again, valid until {not_after.isoformat()}")


# --- routes and registrations -------------------------------------------------------------------------


M2ME = Annotated[str | None, typer.Option("--m2me-id", help="Device, such as urn:imei:…")]
OfSupplier = Annotated[str | None, typer.Option("--supplier", help="All devices of a supplier.")]


@route_app.command("add")
def route_add(
    context: typer.Context,
    sho: Annotated[str, typer.Option(help="Id of the home operator.")],
    m2me_id: M2ME = None,
    supplier: OfSupplier = None,
) -> None:
    """Say which home operator a device or a supplier's devices belong to."""
    kind, value = _route_of(m2me_id, supplier)
    _partner(context, sho)
    _with_store(context, lambda s: s.write_sync(lambda c: registration_rows.put_route(c, kind, value, sho)))
    typer.echo(f"{kind} {value}: {sho}")


@route_app.command("remove")
def route_remove(context: typer.Context, m2me_id: M2ME = None, supplier: OfSupplier = None) -> None:
    """Forget a route."""
    kind, value = _route_of(m2me_id, supplier)
    if not _with_store(context, lambda s: s.write_sync(lambda c: registration_rows.remove_route(c, kind, value))):
        raise ActorError(f"no route for {kind} {value}", hint="`ro route list` shows all")
    typer.echo(f"{kind} {value}: removed")


@route_app.command("list")
def route_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List routes."""
    cli.show_rows(_with_store(context, lambda s: s.read_sync(registration_rows.list_routes)), as_json=as_json)


@registration_app.command("list")
def registration_list(
    context: typer.Context,
    state: Annotated[list[State] | None, typer.Option(help="Repeatable.")] = None,
    limit: int = 100,
    as_json: AsJson = False,
) -> None:
    """List registrations, newest first; `pending` ones wait for a home operator."""
    rows = _with_store(
        context,
        lambda s: s.read_sync(lambda c: registration_rows.list_registrations(c, states=state or (), limit=limit)),
    )
    cli.show_rows([_shown_registration(row) for row in rows], as_json=as_json)


@registration_app.command("route")
def registration_route(
    context: typer.Context,
    registration: Annotated[str, typer.Argument(help="Id of the registration.")],
    sho: Annotated[str, typer.Option(help="Id of the home operator.")],
) -> None:
    """Send a registration that waits, or was refused, to a home operator; a server that runs goes on with it."""
    _partner(context, sho)
    now = _now()

    def route(connection: Connection) -> Registration:
        row = _registration_in(
            connection,
            registration,
            (State.PENDING, State.REFUSED, State.DENIED),
            "pending, refused and denied ones are routed",
        )
        routed = replace(
            row, state=State.ROUTED, sho_id=sho, order_id=None, detail="", tries=row.tries + 1, updated_at=now
        )
        registration_rows.put_registration(connection, routed)
        return row

    detail = f"{sho}, decided by operator"
    _with_store(context, lambda s: _told(context, s, State.ROUTED, [s.write_sync(route)], detail))
    typer.echo(f"{registration}: {sho}")


@registration_app.command("refuse")
def registration_refuse(
    context: typer.Context,
    registration: Annotated[str, typer.Argument(help="Id of the registration.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
) -> None:
    """Refuse a device for as long as it comes with this identity; one that is waiting goes no further.

    `ro registration route` lets it in after all, and with `ro pcid withdraw` it cannot even attach.
    """
    now = _now()
    detail = f"refused by operator{': ' if reason else ''}{reason}"[:255]

    def refuse(connection: Connection) -> Registration:
        row = _registration_in(
            connection, registration, (*WAITING, State.REFUSED), "waiting and refused ones are denied"
        )
        denied = replace(row, state=State.DENIED, detail=detail, updated_at=now)
        registration_rows.put_registration(connection, denied)
        return row

    _with_store(context, lambda s: _told(context, s, State.DENIED, [s.write_sync(refuse)], detail))
    typer.echo(f"{registration}: denied")


def main() -> None:
    """Entry point of the console script."""
    cli.run(app)


# --- inside -------------------------------------------------------------------------------------------


class _for_supplier:
    """A new file for the owner alone. It is written inside the unit that issues: keys that nobody gets are no
    identity's, and when the unit fails the file goes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Callable[[bytes], None]:
        try:
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except OSError as exc:
            raise ConfigError(f"{self._path}: {exc.strerror}", hint="a new file in a directory that is there") from exc
        return self._write

    def _write(self, document: bytes) -> None:
        try:
            self._file.write(document + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as exc:
            raise ConfigError(f"{self._path}: {exc.strerror}") from exc

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written is told already
            self._file.close()
        if kind is not None:
            self._path.unlink(missing_ok=True)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _settings(context: typer.Context) -> RoSettings:
    return cli.settings_of(context, RoSettings)


def _with_store(context: typer.Context, work: Callable[[Store], T]) -> T:
    with contextlib.closing(open_store(_settings(context))) as store:
        return work(store)


def _partner(context: typer.Context, sho: str) -> None:
    if sho not in _settings(context).shos:
        raise ConfigError(f"{sho} is no partner", hint="add its URL to [shos] in the settings")


def _route_of(m2me_id: str | None, supplier: str | None) -> tuple[registration_rows.RouteKind, str]:
    if m2me_id is not None and supplier is None and 1 <= len(m2me_id) <= 255:
        return "m2me", m2me_id
    if supplier is not None and m2me_id is None and 1 <= len(supplier) <= 255:
        return "supplier", supplier
    raise ActorError("whose route?", hint="one of --m2me-id and --supplier")


def _registration_in(
    connection: Connection, registration_id: str, states: tuple[State, ...], hint: str
) -> Registration:
    row = registration_rows.get_registration(connection, registration_id, for_update=True)
    if row is None:
        raise _no_registration(registration_id)
    if row.state not in states:
        raise ActorError(f"the registration is {row.state.value}", hint=hint)
    return row


def _told(
    context: typer.Context, store: Store, state: State, before: list[Registration], detail: str
) -> list[Registration]:
    """Put on the trail what an operator moved."""
    trail = open_trail(_settings(context), store)
    try:
        for row in before:
            trail.state("registration", row.state, state, step="8", order=row.id, detail=detail)
    finally:
        trail.close()
    return before


def _no_registration(registration: str) -> ActorError:
    return ActorError(f"no registration {registration}", hint="`ro registration list` shows all")


def _known(row: IdentityRow | None, number: int) -> IdentityRow:
    if row is None:
        raise ActorError(f"no identity {number}", hint="`ro pcid list` shows all")
    return row


def _shown(row: IdentityRow) -> dict[str, object]:
    expired = row.state == repository.ISSUED and not row.valid(_now())
    return {
        "id": row.id,
        "pcid": row.mask,
        "state": "expired" if expired else row.state,
        "generation": row.generation,
        "notAfter": row.not_after.isoformat(),
        "supplier": row.supplier,
        "m2meId": row.m2me_id,
        "attached": row.attached_at.isoformat() if row.attached_at is not None else None,
    }


def _shown_registration(row: Registration) -> dict[str, object]:
    return {
        "id": row.id,
        "m2meId": row.m2me_id,
        "state": row.state.value,
        "sho": row.sho_id,
        "order": row.order_id,
        "reason": row.reason,
        "detail": row.detail,
        "updated": row.updated_at.isoformat(),
    }
