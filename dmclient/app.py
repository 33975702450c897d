"""Putting a device together from its settings, and running it."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from actor_runtime.errors import ConfigError
from actor_runtime.http import PartnerClient
from actor_runtime.sealing import SealingKey
from actor_runtime.tls import client_context
from actor_runtime.trail import Trail
from dmclient.agent import Agent, ExitStatus, RunResult
from dmclient.behaviour import USUAL, ScriptedUser, load_behaviour
from dmclient.bootstrap_receiver import BootstrapReceiver, Verdict, listen
from dmclient.config import ClientSettings
from dmclient.console import Console
from dmclient.device import Device
from dmclient.dm_account import server_ids
from dmclient.dm_device import DeviceSetup
from dmclient.http_transport import HttpTransport
from dmclient.objects.described import DescriptionConflict
from dmclient.objects.m2m import utc_text
from dmclient.store.state_file import StateFile
from dmclient.tre.base import TrustedEnvironment
from dmclient.tre.software import SoftwareTre
from dmclient.user_interaction import UserInterface
from mo_definitions import Ddf, DdfError, read_ddf_file
from syncml.bootstrap.security import BootstrapSecrets, Sec
from syncml.errors import LocalProtocolError

_log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The device's clock."""
    return datetime.now(UTC)


def open_tre(settings: ClientSettings) -> SoftwareTre:
    """The TRE that `manufacture` made.

    Raises:
        ConfigError: there is none.
        UnsealError: its store does not open.
    """
    seal_key = SealingKey.load(settings.seal_key_file)
    try:
        return SoftwareTre.open(settings.tre_dir, seal_key)
    except OSError as error:
        raise ConfigError(
            f"TRE {settings.tre_dir}: {error.strerror}", hint="run `dmclient manufacture` first"
        ) from error
    except ValueError as error:
        raise ConfigError(f"TRE {settings.tre_dir}: {error}") from error


def open_device(
    settings: ClientSettings,
    trail: Trail,
    *,
    tre: TrustedEnvironment | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Device:
    """The device with its TRE and what it remembers.

    Raises:
        ConfigError, UnsealError, StoreError: something of it is missing or damaged.
    """
    tre = tre if tre is not None else open_tre(settings)
    if tre.facts().m2me_id != settings.m2me_id:
        raise ConfigError("m2me_id is not the identity that the TRE was made for")
    if settings.pcid_expiry is not None and settings.pcid_expiry.tzinfo is None:
        raise ConfigError("pcid_expiry needs a time zone, e.g. 2027-01-01T00:00:00Z")
    state_file = StateFile(settings.state_file, SealingKey.load(settings.seal_key_file))
    profile, setup = settings.profile(), device_setup(settings)
    try:
        return Device(profile=profile, tre=tre, state_file=state_file, trail=trail, now=now, setup=setup)
    except DescriptionConflict as error:
        raise ConfigError(f"ddf_files: {error}") from error


def device_setup(settings: ClientSettings) -> DeviceSetup:
    """Behaviour and described objects that the settings name."""
    behaviour = USUAL if settings.behaviour_file is None else load_behaviour(settings.behaviour_file)
    console = Console() if behaviour.asks_operator else None
    users: dict[str, UserInterface | None] = {
        "none": None,
        "scripted": ScriptedUser(behaviour.answer),
        "console": console,
    }
    ddfs: list[Ddf] = []
    for path in settings.ddf_files:
        try:
            found = read_ddf_file(path)
        except OSError as error:
            raise ConfigError(f"ddf_files {path}: {error.strerror}") from error
        except DdfError as error:
            raise ConfigError(f"ddf_files {path}: {error}") from error
        for note in found[0].tolerated:
            _log.info("ddf.tolerated", file=str(path), note=note)
        ddfs.extend(found)
    return DeviceSetup(
        ddfs=tuple(ddfs),
        behaviour=behaviour,
        user=users[behaviour.user],
        scratch_node=settings.scratch_node,
        operator=console,
    )


def load_secrets(path: Path | None) -> BootstrapSecrets:
    """The supplier's secret; without a file no bootstrap can be accepted.

    Raises:
        ConfigError: unreadable, or not 1 to 128 printable ASCII characters.
    """
    if path is None:
        return BootstrapSecrets()
    try:
        secrets = BootstrapSecrets(pin=path.read_text(encoding="ascii").strip())
        secrets.key(Sec.USERPIN)
    except OSError as error:
        raise ConfigError(f"bootstrap_secret_file {path}: {error.strerror}") from error
    except (UnicodeDecodeError, LocalProtocolError) as error:
        raise ConfigError(f"bootstrap_secret_file {path}: not 1 to 128 printable ASCII characters") from error
    return secrets


async def run_device(settings: ClientSettings, device: Device, *, bootstrap: bytes | None = None) -> RunResult:
    """Take a bootstrap (the one given, or over UDP when there is no account), then go on until attached or refused.

    Raises:
        ConfigError: a setting that a run needs is missing, or the UDP address cannot be bound.
        StoreError: the device cannot save what it must not forget.
    """
    receiver = BootstrapReceiver(
        tree=device.tree,
        memory=device.bootstrap,
        secrets=load_secrets(settings.bootstrap_secret_file),
        trail=device.trail,
        save=device.save,
        max_failures=settings.bootstrap.max_failures,
        lockout_s=settings.bootstrap.lockout_s,
    )
    transport, network = _agent_parts(settings)
    where = settings.bootstrap.listen
    try:
        udp, port = await listen(receiver, where.host, where.port)
    except OSError as error:
        raise ConfigError(f"bootstrap.listen {where.host}:{where.port}: {error.strerror}") from error
    try:
        _log.info("bootstrap.listening", host=where.host, port=port)
        if settings.ready_file is not None:
            _write_ready(settings.ready_file, port)
        refusal = await _bootstrapped(settings, device, receiver, bootstrap)
        if refusal is not None:
            return refusal
        async with transport:
            agent = Agent(
                device=device,
                transport=transport,
                network=network,
                settings=settings.session_settings(),
                policy=settings.retry_policy(),
                sleep=asyncio.sleep,
            )
            return await agent.run(server_ids(device.tree.nodes)[0])
    finally:
        udp.close()
        await network.close()
        if settings.ready_file is not None:
            settings.ready_file.unlink(missing_ok=True)


async def attach_device(settings: ClientSettings, device: Device) -> RunResult:
    """Attach with the MCIM that is there."""
    transport, network = _agent_parts(settings)
    try:
        agent = Agent(
            device=device,
            transport=transport,
            network=network,
            settings=settings.session_settings(),
            policy=settings.retry_policy(),
            sleep=asyncio.sleep,
        )
        return await agent.attach()
    finally:
        await network.close()


async def _bootstrapped(
    settings: ClientSettings, device: Device, receiver: BootstrapReceiver, bootstrap: bytes | None
) -> RunResult | None:
    """Wait until there is an account; a result says why there will be none."""
    if bootstrap is not None:
        verdict = receiver.receive(bootstrap)
        if verdict not in (Verdict.APPLIED, Verdict.UNCHANGED):
            return RunResult(status=ExitStatus.REFUSED, reason=f"the bootstrap was refused: {verdict.value}")
    if server_ids(device.tree.nodes):
        return None
    try:
        await asyncio.wait_for(receiver.applied.wait(), settings.bootstrap.wait_s)
    except TimeoutError:
        return RunResult(status=ExitStatus.UNREACHABLE, reason="no acceptable bootstrap came")
    return None


def _agent_parts(settings: ClientSettings) -> tuple[HttpTransport, PartnerClient]:
    if settings.tls_roots is None:
        raise ConfigError("tls_roots is missing", hint="the PEM file with the roots that servers are trusted by")
    if settings.network_url is None:
        raise ConfigError("network_url is missing", hint="the base URL of the home network's access listener")
    if settings.session.allow_plain_http:
        _log.warning("http.plain", reason="session.allow_plain_http: credentials may travel unprotected")
    ssl_context = client_context(settings.tls_roots)
    return http_transport(settings, ssl_context), PartnerClient(
        settings.network_url, ssl_context, settings.session.timeout_s
    )


def http_transport(settings: ClientSettings, ssl_context: ssl.SSLContext) -> HttpTransport:
    """How messages travel, as the settings say."""
    return HttpTransport(
        ssl_context=ssl_context,
        timeout_s=settings.session.timeout_s,
        max_answer=settings.session.max_msg_size,
        server_name=settings.tls_server_name,
        allow_plain_http=settings.session.allow_plain_http,
    )


def _write_ready(path: Path, port: int) -> None:
    """Tell who waits for us which port the system chose; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"ports": {"bootstrap": port}, "pid": os.getpid()}) + "\n", encoding="ascii")
    temporary.replace(path)


def describe(device: Device) -> dict[str, Any]:
    """What may be shown of a device: no secret, no IMSI, no nonce, no PCID."""
    facts = device.tre.facts()
    registration = device.tre.registration(device.now())
    return {
        "m2meId": facts.m2me_id,
        "treId": facts.tre_id,
        "treType": facts.tre_type,
        "treVersion": facts.version,
        "treState": facts.state,
        "suites": [suite.label for suite in facts.suites],
        "platformKeyId": facts.platform_key_id.hex(),
        "certified": facts.platform_cert is not None and facts.attest_cert is not None,
        "trustAnchors": list(facts.trust_anchor_ids),
        "servers": list(server_ids(device.tree.nodes)),
        "connectivity": device.bootstrap.connectivity,
        "registration": {
            "reqId": registration.req_id,
            "state": registration.state.name.lower(),
            "reason": registration.reason,
            "sho": registration.sho_id,
            "nextSequence": registration.next_sequence,
        },
        "mcims": [
            {
                "mcimId": str(each.mcim_id),
                "sho": each.sho_id,
                "state": each.state.name.lower(),
                "revision": each.revision,
                "sequence": each.sequence,
                "notAfter": utc_text(each.not_after),
                "imsiMask": each.imsi_mask,
                "attachAnnounced": str(each.mcim_id) in device.announced,
            }
            for each in device.tre.mcims()
        ],
        "alertsWaiting": len(device.alerts),
    }
