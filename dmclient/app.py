"""Putting a device together from its settings, and running it."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from actor_runtime.errors import ConfigError
from actor_runtime.http import PartnerClient
from actor_runtime.sealing import SealingKey
from actor_runtime.tls import client_context
from actor_runtime.trail import Trail
from dmclient.agent import Agent, ExitStatus, RunResult
from dmclient.behaviour import USUAL, ScriptedUser, load_behaviour
from dmclient.bootstrap_fetch import fetch_bootstrap
from dmclient.bootstrap_receiver import BootstrapReceiver, Verdict
from dmclient.calls import CallQueue, Confirm, Consent
from dmclient.config import ClientSettings
from dmclient.console import Console
from dmclient.device import Device
from dmclient.dm_account import server_ids
from dmclient.dm_device import DeviceSetup
from dmclient.http_transport import HttpTransport
from dmclient.notification_receiver import NotificationReceiver
from dmclient.objects.described import DescriptionConflict
from dmclient.objects.m2m import utc_text
from dmclient.push_listeners import http_listener, udp_listener
from dmclient.push_receiver import PushReceiver
from dmclient.store.state_file import StateFile
from dmclient.tre.base import TrustedEnvironment
from dmclient.tre.software import SoftwareTre
from dmclient.user_interaction import UserInterface
from mo_definitions import Ddf, DdfError, read_ddf_file
from syncml.bootstrap.security import BootstrapSecrets, Sec
from syncml.errors import LocalProtocolError

_PIN: Final = "1 to 128 printable ASCII characters"
_IMSI: Final = "an IMSI of 6 to 15 digits"

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


def load_secrets(settings: ClientSettings) -> BootstrapSecrets:
    """The supplier's secret, the IMSI and what a user typed; without any of them no bootstrap can be accepted.

    Raises:
        ConfigError: a file is unreadable, or what is in it is no such secret.
    """
    section = settings.bootstrap
    secrets = BootstrapSecrets(
        pin=_secret_line("bootstrap_secret_file", settings.bootstrap_secret_file),
        imsi=_secret_line("bootstrap.imsi_file", section.imsi_file),
        typed=_secret_line("bootstrap.typed_number_file", section.typed_number_file),
        imsi_text=section.imsi_text,
    )
    for name, path, kind, alone, expected in (
        ("bootstrap_secret_file", settings.bootstrap_secret_file, Sec.USERPIN, BootstrapSecrets(pin=secrets.pin), _PIN),
        ("bootstrap.imsi_file", section.imsi_file, Sec.NETWPIN, BootstrapSecrets(imsi=secrets.imsi), _IMSI),
    ):
        try:
            alone.key(kind)
        except LocalProtocolError as error:
            raise ConfigError(f"{name} {path}: not {expected}") from error
    return secrets


def _secret_line(name: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"{name} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} {path}: not printable ASCII characters") from error


def _read_card(path: Path) -> bytes | None:
    """The document on the smart card, None without a card.

    Raises:
        ConfigError: there is a card that cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"bootstrap.smart_card_file {path}: {error.strerror}") from error


async def run_device(
    settings: ClientSettings, device: Device, *, bootstrap: bytes | None = None, bootstrap_url: str | None = None
) -> RunResult:
    """Take a bootstrap (the one given or fetched, or a push when there is no account), then go on until attached or
    refused.

    Raises:
        ConfigError: a setting that a run needs is missing, or an address cannot be bound.
        FetchFailed: there is no document at the URL.
        StoreError: the device cannot save what it must not forget.
    """
    parts = _agent_parts(settings)
    async with _ears(settings, device) as ears:
        try:
            refusal = await _bootstrapped(settings, device, ears, bootstrap, bootstrap_url)
            if refusal is not None:
                return refusal
            async with parts.transport:
                agent = parts.agent(settings, device, calls=ears.calls, sleep=ears.calls.pause)
                return await agent.run(server_ids(device.tree.nodes)[0])
        finally:
            await parts.close()


async def listen_device(
    settings: ClientSettings,
    device: Device,
    *,
    stop: asyncio.Event,
    bootstrap_url: str | None = None,
    confirm: Confirm | None = None,
) -> None:
    """Wait for pushes, and run the sessions they ask for, one after the other, until `stop` is set.

    Raises:
        ConfigError: a setting is missing, or an address cannot be bound.
        FetchFailed: there is no document at the URL.
        StoreError: the device cannot save what it must not forget.
    """
    parts = _agent_parts(settings, with_network=False)
    async with _ears(settings, device) as ears:
        try:
            if bootstrap_url is not None:
                await _fetch(settings, ears, bootstrap_url)
            async with parts.transport:
                consent = Consent(
                    confirm,
                    default=settings.push.user_interaction == "accept",
                    wait_s=settings.push.ask_wait_s,
                )
                agent = parts.agent(settings, device, calls=ears.calls, sleep=asyncio.sleep, consent=consent)
                agent.prepare()
                serving = asyncio.create_task(_serve_for_ever(agent, ears.calls))
                stopping = asyncio.create_task(stop.wait())
                await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
                for task in (serving, stopping):
                    task.cancel()
                for ended in await asyncio.gather(serving, stopping, return_exceptions=True):
                    if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
                        raise ended
        finally:
            await parts.close()


async def _serve_for_ever(agent: Agent, calls: CallQueue) -> None:
    while True:
        call = await calls.wait()
        failure = await agent.serve(call)
        _log.info("call.served", server_id=call.server_id, session_id=call.session_id, failure=failure)


@dataclass(frozen=True, slots=True)
class _Ears:
    """What listens while the device runs."""

    bootstraps: BootstrapReceiver
    pushes: PushReceiver
    calls: CallQueue


@asynccontextmanager
async def _ears(settings: ClientSettings, device: Device) -> AsyncIterator[_Ears]:
    """Listeners for pushes, and the ready file that tells their ports.

    Raises:
        ConfigError: an address cannot be bound.
    """
    calls = CallQueue(device.calls, device.save)
    bootstraps = BootstrapReceiver(
        tree=device.tree,
        memory=device.bootstrap,
        secrets=load_secrets(settings),
        trail=device.trail,
        save=device.save,
        calls=calls,
        max_failures=settings.bootstrap.max_failures,
        lockout_s=settings.bootstrap.lockout_s,
    )
    if settings.bootstrap.smart_card_file is not None:
        bootstraps.card(_read_card(settings.bootstrap.smart_card_file))
    notifications = NotificationReceiver(
        tree=device.tree,
        calls=calls,
        previous_nonce=device.previous_nonces.get,
        trail=device.trail,
        save=device.save,
        resync=settings.push.resync,
    )
    pushes = PushReceiver(bootstraps=bootstraps, notifications=notifications)
    udp, http = settings.bootstrap.listen, settings.push.http
    async with AsyncExitStack() as stack:
        ports = {"bootstrap": await stack.enter_async_context(udp_listener(pushes, udp.host, udp.port))}
        if http is not None:
            ports["push"] = await stack.enter_async_context(http_listener(pushes, http.host, http.port))
        if settings.ready_file is not None:
            _write_ready(settings.ready_file, ports)
        _log.info("push.ready", **ports)
        try:
            yield _Ears(bootstraps, pushes, calls)
        finally:
            _log.info("push.counts", **pushes.counts)
            if settings.ready_file is not None:
                settings.ready_file.unlink(missing_ok=True)


async def attach_device(settings: ClientSettings, device: Device) -> RunResult:
    """Attach with the MCIM that is there."""
    parts = _agent_parts(settings)
    try:
        return await parts.agent(settings, device, sleep=asyncio.sleep).attach()
    finally:
        await parts.close()


async def _bootstrapped(
    settings: ClientSettings, device: Device, ears: _Ears, bootstrap: bytes | None, url: str | None
) -> RunResult | None:
    """Wait until there is an account; a result says why there will be none."""
    verdict = None
    if bootstrap is not None:
        verdict = ears.bootstraps.receive(bootstrap)
    elif url is not None:
        verdict = await _fetch(settings, ears, url)
    if verdict not in (None, Verdict.APPLIED, Verdict.UNCHANGED):
        return RunResult(status=ExitStatus.REFUSED, reason=f"the bootstrap was refused: {verdict}")
    if server_ids(device.tree.nodes):
        return None
    try:
        await asyncio.wait_for(ears.bootstraps.applied.wait(), settings.bootstrap.wait_s)
    except TimeoutError:
        return RunResult(status=ExitStatus.UNREACHABLE, reason="no acceptable bootstrap came")
    return None


async def _fetch(settings: ClientSettings, ears: _Ears, url: str) -> Verdict:
    push = await fetch_bootstrap(
        url,
        ssl_context=None if settings.tls_roots is None else client_context(settings.tls_roots),
        server_name=settings.tls_server_name,
        allow_plain_http=settings.session.allow_plain_http,
        timeout_s=settings.session.timeout_s,
    )
    return ears.bootstraps.take(push)


@dataclass(frozen=True, slots=True)
class _AgentParts:
    """How an agent reaches servers and the network."""

    transport: HttpTransport
    network: PartnerClient | None

    def agent(
        self,
        settings: ClientSettings,
        device: Device,
        *,
        sleep: Callable[[float], Awaitable[None]],
        calls: CallQueue | None = None,
        consent: Consent | None = None,
    ) -> Agent:
        """An agent that does so."""
        return Agent(
            device=device,
            transport=self.transport,
            network=self.network,
            settings=settings.session_settings(),
            policy=settings.retry_policy(),
            sleep=sleep,
            calls=calls,
            consent=consent,
        )

    async def close(self) -> None:
        """Close the connections to the network."""
        if self.network is not None:
            await self.network.close()


def _agent_parts(settings: ClientSettings, *, with_network: bool = True) -> _AgentParts:
    if settings.tls_roots is None:
        raise ConfigError("tls_roots is missing", hint="the PEM file with the roots that servers are trusted by")
    if settings.network_url is None and with_network:
        raise ConfigError("network_url is missing", hint="the base URL of the home network's access listener")
    if settings.session.allow_plain_http:
        _log.warning("http.plain", reason="session.allow_plain_http: credentials may travel unprotected")
    ssl_context = client_context(settings.tls_roots)
    transport = http_transport(settings, ssl_context)
    if settings.network_url is None:
        return _AgentParts(transport, None)
    return _AgentParts(transport, PartnerClient(settings.network_url, ssl_context, settings.session.timeout_s))


def http_transport(settings: ClientSettings, ssl_context: ssl.SSLContext) -> HttpTransport:
    """How messages travel, as the settings say."""
    return HttpTransport(
        ssl_context=ssl_context,
        timeout_s=settings.session.timeout_s,
        max_answer=settings.session.max_msg_size,
        server_name=settings.tls_server_name,
        allow_plain_http=settings.session.allow_plain_http,
    )


def _write_ready(path: Path, ports: dict[str, int]) -> None:
    """Tell who waits for us which ports the system chose; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"ports": ports, "pid": os.getpid()}) + "\n", encoding="ascii")
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
