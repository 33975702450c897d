"""Commands on the trusted environment and what is in it. Exit status 0 done, 1 error, 2 refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from actor_runtime import cli
from actor_runtime.errors import ActorError
from actor_runtime.trail import Trail
from dmclient.app import open_device, open_tre, utc_now
from dmclient.cli_common import (
    JsonOption,
    RequestOption,
    TreOption,
    certificates,
    changing_tre,
    settings_of,
    show_code,
    show_outcome,
    write_request,
)
from dmclient.config import ClientSettings
from dmclient.objects.m2m import utc_text
from dmclient.store.state_file import exclusive
from dmclient.tampering import KINDS
from dmclient.tre.base import Hints
from dmclient.tre.environment import Tre
from dmclient.tre.keys import KeyStoreError
from mcim.measurement_log import decode_log
from mcim.vocabulary import Operation

tre_app = typer.Typer(help="The trusted environment itself.", no_args_is_help=True)
mcim_app = typer.Typer(help="MCIMs in the trusted environment.", no_args_is_help=True)
McimArgument = Annotated[UUID, typer.Argument(metavar="ID", help="Id of the MCIM.")]


def mount(app: typer.Typer) -> None:
    """Add these commands to those of the device."""
    app.add_typer(tre_app, name="tre")
    app.add_typer(mcim_app, name="mcim")
    app.command()(tamper)
    app.command()(replay)


def describe_tre(tre: Tre) -> dict[str, object]:
    """What may be shown of a TRE: public facts alone."""
    facts = tre.facts()
    return {
        "manufactured": True,
        "treId": facts.tre_id,
        "treType": facts.tre_type,
        "treVersion": facts.version,
        "vendor": facts.vendor,
        "state": facts.state,
        "suites": [suite.label for suite in facts.suites],
        "containers": [str(each) for each in facts.containers],
        "algorithms": list(facts.algorithms),
        "codeFormats": list(facts.code_formats),
        "maxMcim": facts.max_mcim,
        "mcims": len(tre.mcims()),
        "maxPackage": facts.max_package,
        "freeSpace": facts.free_space,
        "platformKeyId": facts.platform_key_id.hex(),
        "certified": facts.platform_cert is not None and facts.attest_cert is not None,
        "trustAnchors": list(facts.trust_anchor_ids),
    }


@tre_app.command("info")
def tre_info(context: typer.Context, tre_id: TreOption = None, as_json: JsonOption = False) -> None:
    """Show what M2MMobj/TRE shows; also when there is no TRE yet."""
    settings = settings_of(context)
    if not settings.tre_named(tre_id).directory.exists():
        cli.show({"manufactured": False}, as_json=as_json)
        return
    cli.show(describe_tre(open_tre(settings, tre_id)), as_json=as_json)


@tre_app.command("request")
def certification_request(context: typer.Context, request: RequestOption = None, tre_id: TreOption = None) -> None:
    """Write the request of `manufacture` once more: for certificates of the keys in use."""
    try:
        text = json.dumps(open_tre(settings_of(context), tre_id).certification_request(), indent=2)
    except KeyStoreError as error:
        raise ActorError(str(error)) from error
    write_request(text, request)


@tre_app.command()
def rekey(
    context: typer.Context,
    request: RequestOption = None,
    tre_id: TreOption = None,
) -> None:
    """Make new keys beside those in use; write the request for their certificates, proved by old and new key."""
    with changing_tre(context, tre_id) as tre:
        text = json.dumps(tre.begin_rekey(), indent=2)
    write_request(text, request)


@tre_app.command("complete-rekey")
def complete_rekey(
    context: typer.Context,
    platform: Annotated[Path, typer.Option(help="Certificate of the new PK_D (PEM).")],
    attest: Annotated[Path, typer.Option(help="Certificate of the new attestation key (PEM).")],
    chain: Annotated[Path, typer.Option(help="Intermediate certificates, leaf-most first (PEM).")],
    tre_id: TreOption = None,
) -> None:
    """Put the new keys in the place of the old ones. MCIMs stay; an open request starts anew."""
    with changing_tre(context, tre_id) as tre:
        tre.complete_rekey(certificates(platform)[0], certificates(attest)[0], certificates(chain), utc_now())


@tre_app.command("supplier-command")
def supplier_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A command signed by the supplier.")],
    tre_id: TreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give the TRE a command of its supplier: other roots for home operators, or the token unlocked."""
    with changing_tre(context, tre_id) as tre:
        code = tre.supplier_command(_read(file), utc_now())
    show_code(code, {}, as_json=as_json)


@tre_app.command()
def measurements(context: typer.Context, tre_id: TreOption = None, as_json: JsonOption = False) -> None:
    """Show what was measured at this start."""
    log = open_tre(settings_of(context), tre_id).measurement_log()
    rows = [
        {"register": each.register, "name": each.name, "sha256": each.digest.hex()}
        for each in (decode_log(log) if log else ())
    ]
    cli.show_rows(rows, as_json=as_json)


@mcim_app.command("list")
def mcim_list(context: typer.Context, tre_id: TreOption = None, as_json: JsonOption = False) -> None:
    """Show the MCIMs of a TRE without their secrets."""
    rows = [
        {
            "mcimId": str(each.mcim_id),
            "sho": each.sho_id,
            "state": each.state.name.lower(),
            "revision": each.revision,
            "sequence": each.sequence,
            "notAfter": utc_text(each.not_after),
            "imsiMask": each.imsi_mask,
            "policy": [str(flag.name).lower().replace("_", "-") for flag in each.policy],
            "confirmed": each.confirmed,
        }
        for each in open_tre(settings_of(context), tre_id).mcims()
    ]
    cli.show_rows(rows, as_json=as_json)


@mcim_app.command()
def activate(
    context: typer.Context, mcim_id: McimArgument, tre_id: TreOption = None, as_json: JsonOption = False
) -> None:
    """Use this MCIM for network access. Refused when its home operator has to sign that."""
    _local(settings_of(context), Operation.ACTIVATE, mcim_id, tre_id, as_json)


@mcim_app.command()
def suspend(
    context: typer.Context, mcim_id: McimArgument, tre_id: TreOption = None, as_json: JsonOption = False
) -> None:
    """Stop using this MCIM and keep it. Refused when its home operator has to sign that."""
    _local(settings_of(context), Operation.SUSPEND, mcim_id, tre_id, as_json)


@mcim_app.command()
def delete(
    context: typer.Context, mcim_id: McimArgument, tre_id: TreOption = None, as_json: JsonOption = False
) -> None:
    """Destroy this MCIM. Refused when its home operator has to sign that."""
    _local(settings_of(context), Operation.DELETE, mcim_id, tre_id, as_json)


def _local(settings: ClientSettings, operation: Operation, mcim_id: UUID, tre_id: str | None, as_json: bool) -> None:
    named = None if tre_id is None else settings.tre_named(tre_id).tre_id
    trail = Trail("M2ME", trace_file=settings.trace_file)
    try:
        with exclusive(settings.state_file):
            device = open_device(settings, trail)
            tre = None if named is None else device.tre_named(named)
            outcome = device.local_command(operation, mcim_id, tre=tre)
    finally:
        trail.close()
    show_outcome(outcome, as_json=as_json)


def tamper(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS))],
    as_json: JsonOption = False,
) -> None:
    """For tests, with keep_packages: change what an attacker could change, so that the next step shows the refusal."""
    settings = _test_settings(context)
    if kind not in KINDS:
        raise ActorError(f"there is no {kind}", hint=f"one of {', '.join(KINDS)}")
    with exclusive(settings.state_file):
        changed = KINDS[kind](settings, partial(open_device, settings, Trail("M2ME")))
    cli.show({"tampered": kind, "changed": changed}, as_json=as_json)


def replay(context: typer.Context, as_json: JsonOption = False) -> None:
    """For tests, with keep_packages: give the last package to the TRE once more. Exit status 2 when it is refused."""
    settings = _test_settings(context)
    package = _read(settings.kept_package_file)
    with exclusive(settings.state_file):
        device = open_device(settings, Trail("M2ME"))
        outcome = device.tre_for(package).provision(package, Hints(), utc_now())
    show_outcome(outcome, as_json=as_json)


def _test_settings(context: typer.Context) -> ClientSettings:
    settings = settings_of(context)
    if not settings.keep_packages:
        raise ActorError("this device is not set up for such tests", hint="keep_packages = true")
    return settings


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ActorError(f"{path}: {error.strerror}") from error
