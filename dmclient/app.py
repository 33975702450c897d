"""Putting a device together from its settings, and running it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog

from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.http import PartnerClient
from actor_runtime.sealing import SealingKey
from actor_runtime.tls import client_context
from actor_runtime.trail import Trail
from dmclient.access_settings import initial_access
from dmclient.agent import Agent, ExitStatus, RunResult
from dmclient.behaviour import USUAL, ScriptedUser, load_behaviour
from dmclient.calls import CallQueue, Confirm, Consent
from dmclient.config import ClientSettings
from dmclient.console import Console
from dmclient.device import Device
from dmclient.dm_account import server_ids
from dmclient.dm_device import DeviceSetup
from dmclient.http_transport import HttpTransport
from dmclient.initial_access import AccessState, InitialAccess
from dmclient.listening import Ears, consent_of, listening, refusal_of, serve_until, take_bootstrap
from dmclient.objects.described import DescriptionConflict
from dmclient.objects.m2m import utc_text
from dmclient.store.state_file import StateFile
from dmclient.tre.base import TrustedEnvironment
from dmclient.tre.environment import Tre
from dmclient.tre.key_stores import open_key_store
from dmclient.tre.keys import KeyStore, KeyStoreError
from dmclient.tre.measured_start import measure_start
from dmclient.user_interaction import UserInterface
from mo_definitions import Ddf, DdfError, read_ddf_file

_log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The device's clock."""
    return datetime.now(UTC)


def open_tre(settings: ClientSettings, tre_id: str | None = None) -> Tre:
    """A TRE that `manufacture` made, with what was loaded measured. None: the first.

    Raises:
        ConfigError: there is none, it is another one, or its start cannot be measured.
        UnsealError: its store does not open.
    """
    place = settings.tre_named(tre_id)
    seal_key = SealingKey.load(settings.seal_key_file)
    key_store: KeyStore | None = None
    try:
        key_store = open_key_store(place.section, place.directory)
        tre = Tre.open(place.directory, seal_key, key_store)
        tre.take_measurements(measure_start(place.section))
        if place != settings.tres[0] and tre.facts().tre_id != place.tre_id:
            raise KeyStoreError(f"this is {tre.facts().tre_id}, not {place.tre_id}")
    except (ActorError, OSError, ValueError, KeyStoreError) as error:
        if key_store is not None:
            key_store.close()
        if isinstance(error, ActorError):
            raise
        if isinstance(error, FileNotFoundError):
            hint = "run `dmclient manufacture` first"
            raise ConfigError(f"TRE {place.directory}: {error.strerror}", hint=hint) from error
        raise ConfigError(f"TRE {place.directory}: {getattr(error, 'strerror', None) or error}") from error
    return tre


def open_device(
    settings: ClientSettings,
    trail: Trail,
    *,
    tre: TrustedEnvironment | None = None,
    now: Callable[[], datetime] = utc_now,
    console: Console | None = None,
) -> Device:
    """The device with its TREs and what it remembers. `console` is where somebody sits, None when that is not known.

    Raises:
        ConfigError, UnsealError, StoreError: something of it is missing or damaged.
    """
    tres = (
        tre if tre is not None else open_tre(settings),
        *(open_tre(settings, each.tre_id) for each in settings.more_tres),
    )
    if any(each.facts().m2me_id != settings.m2me_id for each in tres):
        raise ConfigError("m2me_id is not the identity that the TRE was made for")
    if settings.pcid_expiry is not None and settings.pcid_expiry.tzinfo is None:
        raise ConfigError("pcid_expiry needs a time zone, e.g. 2027-01-01T00:00:00Z")
    state_file = StateFile(settings.state_file, SealingKey.load(settings.seal_key_file))
    profile, setup = settings.profile(), device_setup(settings, console)
    try:
        return Device(
            profile=profile,
            tre=tres[0],
            more_tres=tres[1:],
            state_file=state_file,
            trail=trail,
            now=now,
            setup=setup,
        )
    except DescriptionConflict as error:
        raise ConfigError(f"ddf_files: {error}") from error


def device_setup(settings: ClientSettings, console: Console | None = None) -> DeviceSetup:
    """Behaviour and described objects that the settings name. There is one console: two would read the same lines."""
    behaviour = USUAL if settings.behaviour_file is None else load_behaviour(settings.behaviour_file)
    asked = (console or Console()) if behaviour.asks_operator else None
    users: dict[str, UserInterface | None] = {
        "none": None,
        "scripted": ScriptedUser(behaviour.answer),
        "console": asked,
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
        operator=asked,
    )


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
    async with (
        listening(settings, device) as ears,
        initial_access(settings, device, udp_port=ears.udp_port) as access,
    ):
        try:
            refusal = await _bootstrapped(settings, device, ears, bootstrap, bootstrap_url, access)
            if refusal is not None:
                return refusal
            async with parts.transport:
                agent = parts.agent(settings, device, calls=ears.calls, sleep=ears.calls.pause)
                result = await agent.run(server_ids(device.tree.nodes)[0])
                if access is None or not agent.attach_refused:
                    return result
                return await _recovered(settings, device, ears, access, parts, result)
        finally:
            await parts.close()


async def listen_device(
    settings: ClientSettings,
    device: Device,
    *,
    stop: asyncio.Event,
    bootstrap: bytes | None = None,
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
    async with listening(settings, device) as ears:
        try:
            await take_bootstrap(settings, ears, bootstrap, bootstrap_url)
            async with parts.transport:
                consent = consent_of(settings, confirm)
                agent = parts.agent(settings, device, calls=ears.calls, sleep=asyncio.sleep, consent=consent)
                agent.prepare()
                await serve_until(stop, agent, ears.calls)
        finally:
            await parts.close()


async def attach_device(
    settings: ClientSettings, device: Device, mcim_id: UUID | None = None, *, tre_id: str | None = None
) -> RunResult:
    """Attach with the MCIM that is in use, or see that a certain one is it; `tre_id`: with those of one TRE."""
    parts = _agent_parts(settings)
    try:
        tre = None if tre_id is None else device.tre_named(tre_id)
        return await parts.agent(settings, device, sleep=asyncio.sleep).attach(mcim_id, tre)
    finally:
        await parts.close()


async def _recovered(
    settings: ClientSettings,
    device: Device,
    ears: Ears,
    access: InitialAccess,
    parts: _AgentParts,
    refused: RunResult,
) -> RunResult:
    """The network does not take the MCIM: the provisional identity is the way back, once (REQ-72, step 16)."""
    ears.bootstraps.applied.clear()
    way_back = await access.run("recovery")
    if not way_back.waits_for_bootstrap:
        return refused
    try:
        await asyncio.wait_for(ears.bootstraps.applied.wait(), settings.bootstrap.wait_s)
    except TimeoutError:
        return refused
    agent = parts.agent(settings, device, calls=ears.calls, sleep=ears.calls.pause)
    return await agent.run(server_ids(device.tree.nodes)[0])


async def _bootstrapped(
    settings: ClientSettings,
    device: Device,
    ears: Ears,
    bootstrap: bytes | None,
    url: str | None,
    access: InitialAccess | None = None,
) -> RunResult | None:
    """Wait until there is an account; a result says why there will be none.

    A device without account and MCIM attaches with its provisional identity first, where a registration operator is
    set.
    """
    refusal = refusal_of(await take_bootstrap(settings, ears, bootstrap, url), ears)
    if refusal:
        return RunResult(status=ExitStatus.REFUSED, reason=refusal)
    if server_ids(device.tree.nodes):
        return None
    if access is not None and device.usable_mcim() is None:
        reached = await access.run("initial")
        if reached.state is AccessState.REFUSED:
            return RunResult(status=ExitStatus.REFUSED, reason=f"initial access refused: {reached.detail}")
        if reached.state is AccessState.UNREACHABLE:
            return RunResult(status=ExitStatus.UNREACHABLE, reason=f"initial access: {reached.detail}")
    try:
        await asyncio.wait_for(ears.bootstraps.applied.wait(), settings.bootstrap.wait_s)
    except TimeoutError:
        return RunResult(status=ExitStatus.UNREACHABLE, reason="no acceptable bootstrap came")
    return None


@dataclass(frozen=True, slots=True)
class _AgentParts:
    """How an agent reaches servers and the network."""

    transport: HttpTransport
    network: PartnerClient | None
    networks: dict[str, PartnerClient] = field(default_factory=dict)  # by home operator, where they are named

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
            networks=self.networks,
            settings=settings.session_settings(),
            policy=settings.retry_policy(),
            sleep=sleep,
            calls=calls,
            consent=consent,
        )

    async def close(self) -> None:
        """Close the connections to the networks."""
        for network in (self.network, *self.networks.values()):
            if network is not None:
                await network.close()


def _agent_parts(settings: ClientSettings, *, with_network: bool = True) -> _AgentParts:
    if settings.tls_roots is None:
        raise ConfigError("tls_roots is missing", hint="the PEM file with the roots that servers are trusted by")
    if settings.network_url is None and not settings.networks and with_network:
        raise ConfigError("network_url is missing", hint="the base URL of the home network's access listener")
    if settings.session.allow_plain_http:
        _log.warning("http.plain", reason="session.allow_plain_http: credentials may travel unprotected")
    ssl_context = client_context(settings.tls_roots)
    transport = http_transport(settings, ssl_context)
    urls = {} if settings.network_url is None else {"": settings.network_url}
    clients = {
        name: PartnerClient(url, ssl_context, settings.session.timeout_s)
        for name, url in (urls | settings.networks).items()
    }
    return _AgentParts(transport, clients.pop("", None), clients)


def http_transport(settings: ClientSettings, ssl_context: ssl.SSLContext) -> HttpTransport:
    """How messages travel, as the settings say."""
    return HttpTransport(
        ssl_context=ssl_context,
        timeout_s=settings.session.timeout_s,
        max_answer=settings.session.max_msg_size,
        server_name=settings.tls_server_name,
        allow_plain_http=settings.session.allow_plain_http,
    )


def describe(device: Device) -> dict[str, Any]:
    """What may be shown of a device: no secret, no IMSI, no nonce, no PCID."""
    provisional = device.tre.provisional_expiry()
    return {
        "m2meId": device.tre.facts().m2me_id,
        **_describe_tre(device, device.tre),
        "servers": list(server_ids(device.tree.nodes)),
        "connectivity": device.bootstrap.connectivity,
        "provisionalUntil": None if provisional is None else utc_text(provisional),
        "moreTres": [_describe_tre(device, each) for each in device.tres[1:]],
        "alertsWaiting": len(device.alerts),
    }


def _describe_tre(device: Device, tre: TrustedEnvironment) -> dict[str, Any]:
    facts, registration = tre.facts(), tre.registration(device.now())
    return {
        "treId": facts.tre_id,
        "treType": facts.tre_type,
        "treVersion": facts.version,
        "treState": facts.state,
        "suites": [suite.label for suite in facts.suites],
        "platformKeyId": facts.platform_key_id.hex(),
        "certified": facts.platform_cert is not None and facts.attest_cert is not None,
        "trustAnchors": list(facts.trust_anchor_ids),
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
                "confirmed": each.confirmed,
                "attachAnnounced": str(each.mcim_id) in device.announced,
            }
            for each in tre.mcims()
        ],
    }
