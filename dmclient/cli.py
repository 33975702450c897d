"""Command line of the device. Exit status 0 done (`run`, `attach`: attached), 1 error or no answer, 2 refused."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from actor_runtime import cli
from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.sealing import SealingKey
from actor_runtime.trail import Trail
from dmclient import cli_tre
from dmclient.agent import RunResult
from dmclient.app import attach_device, describe, listen_device, open_device, run_device
from dmclient.cli_common import (
    JsonOption,
    RequestOption,
    TreOption,
    certificates,
    changing_tre,
    settings_of,
    write_request,
)
from dmclient.config import ClientSettings
from dmclient.console import Console
from dmclient.dm_sessions import listen_plainly, open_dm_device, sessions_over_http
from dmclient.store.state_file import exclusive
from dmclient.tre.base import TreError
from dmclient.tre.environment import Tre
from dmclient.tre.key_stores import open_key_store
from dmclient.tre.keys import KeyStoreError
from dmclient.tre.profiles import PROFILES
from dmclient.tre.provisional import PcidFileError, Provisional, read_pcid
from mcim.vocabulary import ResultCode

app = typer.Typer(
    help="M2ME: an OMA DM 1.2 device with a trusted environment, or a plain DM device (`session`, `listen --plain`). "
    "Exit status: 0 done, 1 failed or nobody answered, 2 somebody refused, or wrong usage.",
    epilog="Example: `dmclient --config dmclient.toml run`",
    no_args_is_help=True,
)

cli_tre.mount(app)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file (TOML); the environment (DMCLIENT_…) wins.")
]
BootstrapFileOption = Annotated[
    Path | None, typer.Option("--bootstrap-file", help="A bootstrap message (WAP push) in a file.")
]
BootstrapUrlOption = Annotated[str | None, typer.Option("--bootstrap-url", help="URL to fetch a bootstrap from.")]
BehaviourOption = Annotated[
    Path | None, typer.Option("--behaviour", help="Scripted behaviour (TOML), instead of behaviour_file.")
]
DdfOption = Annotated[
    list[Path] | None,
    typer.Option("--ddf", help="A device description (DDF) to take objects from. Repeatable."),
]


@app.callback()
def root(context: typer.Context, config: ConfigOption = None) -> None:
    """Settings come from --config and the environment."""
    context.obj = config


def _with_tests(settings: ClientSettings, behaviour: Path | None, ddf: list[Path] | None) -> ClientSettings:
    """What the command line says on top of the settings."""
    if behaviour is not None:
        settings = settings.model_copy(update={"behaviour_file": behaviour})
    if ddf:
        settings = settings.model_copy(update={"ddf_files": (*settings.ddf_files, *ddf)})
    return settings


@app.command(epilog="Example: `dmclient -c dmclient.toml manufacture --request request.json`, then `m2m-ca issue tre`")
def manufacture(
    context: typer.Context,
    request: RequestOption = None,
    pcid_file: Annotated[
        Path | None, typer.Option(help="Provisional identities from the registration operator (`ro pcid issue`).")
    ] = None,
    pcid_number: Annotated[int, typer.Option(min=0, help="Which of the file, counted from 0.")] = 0,
    tre_id: TreOption = None,
) -> None:
    """Make a TRE and its keys, once; write the request for the manufacturer's CA."""
    settings = settings_of(context)
    place = settings.tre_named(tre_id)
    section = place.section
    provisional = _provisional(pcid_file, pcid_number)
    key_file = settings.seal_key_file
    seal_key = SealingKey.load(key_file) if key_file.exists() else SealingKey.generate(key_file)
    try:
        tre = Tre.manufacture(
            place.directory,
            seal_key=seal_key,
            key_store=open_key_store(section, place.directory),
            profile=PROFILES[section.effective_type],
            m2me_id=settings.m2me_id,
            tre_id=place.tre_id,
            key_type=section.key_type,
            version=section.version,
            vendor=section.vendor,
            legacy_suite=section.legacy_suite,
            legacy_container=section.legacy_container,
            max_mcim=section.max_mcim,
            token=_token(section.device_token_file),
            provisional=provisional,
        )
        text = json.dumps(tre.certification_request(), indent=2)
    except TreError as error:
        if error.code is ResultCode.STORAGE_FAILURE:
            raise ConfigError(f"state_dir: {error}") from error
        raise ActorError(str(error), hint="a device is manufactured once; use another state_dir") from error
    except KeyStoreError as error:
        raise ActorError(f"{section.backend}: {error}") from error
    except OSError as error:
        raise ConfigError(f"state_dir: {error.filename or place.directory}: {error.strerror}") from error
    write_request(text, request)


@app.command(
    "install-certificates",
    epilog="Example: `dmclient -c dmclient.toml install-certificates --platform platform.crt --attest attest.crt "
    "--chain chain.pem --sho-anchors sho.pem`",
)
def install_certificates(
    context: typer.Context,
    platform: Annotated[Path, typer.Option(help="Certificate of PK_D (PEM).")],
    attest: Annotated[Path, typer.Option(help="Certificate of the attestation key (PEM).")],
    chain: Annotated[Path, typer.Option(help="Intermediate certificates, leaf-most first (PEM).")],
    sho_anchors: Annotated[Path, typer.Option(help="Roots for home operators (PEM).")],
    supplier_anchors: Annotated[
        Path | None, typer.Option(help="Roots below which the supplier's own commands are signed (PEM).")
    ] = None,
    tre_id: TreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the certificates of the TRE's keys and the roots for home operators into the TRE."""
    with changing_tre(context, tre_id) as tre:
        tre.install_certificates(
            certificates(platform)[0],
            certificates(attest)[0],
            certificates(chain),
            certificates(sho_anchors),
            () if supplier_anchors is None else certificates(supplier_anchors),
        )
    facts = tre.facts()
    shown = {"treId": facts.tre_id, "certified": True, "trustAnchors": list(facts.trust_anchor_ids)}
    cli.show(shown, as_json=as_json)


@app.command()
def run(
    context: typer.Context,
    bootstrap_file: Annotated[
        Path | None, typer.Option(help="A bootstrap message (WAP push) instead of waiting on UDP.")
    ] = None,
    bootstrap_url: BootstrapUrlOption = None,
    behaviour: BehaviourOption = None,
    ddf: DdfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait for a bootstrap if there was none, be provisioned, attach. Exit status 0 only after the attach."""
    settings = _with_tests(settings_of(context), behaviour, ddf)
    trail = Trail("M2ME", trace_file=settings.trace_file)
    try:
        bootstrap = _bootstrap(bootstrap_file, bootstrap_url)
        with exclusive(settings.state_file):
            device = open_device(settings, trail)
            ended = asyncio.run(run_device(settings, device, bootstrap=bootstrap, bootstrap_url=bootstrap_url))
        _end(ended, as_json=as_json)
    finally:
        trail.close()


@app.command()
def listen(
    context: typer.Context,
    plain: Annotated[
        bool | None,
        typer.Option(
            "--plain/--m2me",
            help="As a plain DM device (like `session`), or as the M2ME with its trusted environment. "
            "Default: the M2ME if one was manufactured in state_dir, else plain.",
        ),
    ] = None,
    bootstrap_file: BootstrapFileOption = None,
    bootstrap_url: BootstrapUrlOption = None,
    behaviour: BehaviourOption = None,
    ddf: DdfOption = None,
) -> None:
    """Wait for bootstraps and notifications, and run the sessions they ask for, until SIGTERM or SIGINT.

    When a server wants the user asked, whoever sits at the terminal is; else push.user_interaction decides.
    """
    settings = _with_tests(settings_of(context), behaviour, ddf)
    bootstrap = _bootstrap(bootstrap_file, bootstrap_url)
    trail = Trail("M2ME", trace_file=settings.trace_file)
    console = Console() if sys.stdin.isatty() else None
    confirm = None if console is None else console.confirm
    stop = asyncio.Event()
    listening: Coroutine[None, None, None]
    try:
        with ExitStack() as held:
            if plain if plain is not None else not settings.tre_dir.exists():
                held.enter_context(exclusive(settings.dm_state_file))
                listening = listen_plainly(
                    settings,
                    open_dm_device(settings, trail, console=console),
                    stop=stop,
                    bootstrap=bootstrap,
                    bootstrap_url=bootstrap_url,
                    confirm=confirm,
                )
            else:
                held.enter_context(exclusive(settings.state_file))
                listening = listen_device(
                    settings,
                    open_device(settings, trail, console=console),
                    stop=stop,
                    bootstrap=bootstrap,
                    bootstrap_url=bootstrap_url,
                    confirm=confirm,
                )
            asyncio.run(_until_signalled(listening, stop))
    finally:
        trail.close()


async def _until_signalled(listening: Coroutine[None, None, None], stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await listening
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@app.command()
def session(
    context: typer.Context,
    server: Annotated[str | None, typer.Option(help="Server id of the account; default: every account.")] = None,
    bootstrap_file: BootstrapFileOption = None,
    bootstrap_url: BootstrapUrlOption = None,
    behaviour: BehaviourOption = None,
    ddf: DdfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run DM sessions as a plain DM device, without trusted environment. Exit status 0 only when all went well.

    Every message, credentials blanked, is in `trace_file` where that is set.
    """
    settings = _with_tests(settings_of(context), behaviour, ddf)
    bootstrap = _bootstrap(bootstrap_file, bootstrap_url)
    trail = Trail("M2ME", trace_file=settings.trace_file)
    try:
        with exclusive(settings.dm_state_file):
            device = open_dm_device(settings, trail)
            status, reason = asyncio.run(
                sessions_over_http(settings, device, server, bootstrap=bootstrap, bootstrap_url=bootstrap_url)
            )
    finally:
        trail.close()
    cli.show({"result": status.name.lower(), "reason": reason}, as_json=as_json)
    if status:
        sys.exit(int(status))


def _bootstrap(file: Path | None, url: str | None) -> bytes | None:
    """The bootstrap message in a file.

    Raises:
        ActorError: there is a URL, too, or the file cannot be read.
    """
    if file is None:
        return None
    if url is not None:
        raise ActorError("one bootstrap at a time", hint="--bootstrap-file or --bootstrap-url")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


@app.command()
def attach(
    context: typer.Context,
    mcim: Annotated[UUID | None, typer.Option(help="Id of the MCIM; it must be the activated one.")] = None,
    tre_id: TreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attach to the network with the activated MCIM."""
    settings = settings_of(context)
    tre = None if tre_id is None else settings.tre_named(tre_id).tre_id
    trail = Trail("M2ME", trace_file=settings.trace_file)
    try:
        with exclusive(settings.state_file):
            ended = asyncio.run(attach_device(settings, open_device(settings, trail), mcim, tre_id=tre))
        _end(ended, as_json=as_json)
    finally:
        trail.close()


@app.command()
def info(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what may be shown: identities, registration, MCIMs without their secrets. Works without a TRE."""
    settings = settings_of(context)
    if not settings.tre_dir.exists():
        cli.show({"m2meId": settings.m2me_id, "manufactured": False}, as_json=as_json)
        return
    cli.show(describe(open_device(settings, Trail("M2ME"))), as_json=as_json)


def _end(result: RunResult, *, as_json: bool) -> None:
    cli.show(
        {"result": result.status.name.lower(), "reason": result.reason, "imsiMask": result.imsi_mask}, as_json=as_json
    )
    if result.status:
        sys.exit(int(result.status))


def _token(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"tre.device_token_file {path}: {error.strerror}") from error
    if not 1 <= len(token) <= 64:
        raise ConfigError(f"tre.device_token_file {path}: a token has 1 to 64 octets")
    return token


def _provisional(path: Path | None, number: int) -> Provisional | None:
    if path is None:
        return None
    try:
        return read_pcid(path.read_bytes(), number)
    except OSError as error:
        raise ConfigError(f"--pcid-file {path}: {error.strerror}") from error
    except PcidFileError as error:
        raise ConfigError(f"--pcid-file {path}: {error}", hint="`ro pcid issue --out` makes one") from error


def main() -> None:
    """Entry point of the console script."""
    cli.run(app)
