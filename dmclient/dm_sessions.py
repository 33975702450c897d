"""A plain DM device, without trusted environment: its sessions, one after the other or whenever a server calls.

It is what testers of other servers need.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Final

import structlog

from actor_runtime.errors import ConfigError
from actor_runtime.sealing import SealingKey
from actor_runtime.tls import client_context
from actor_runtime.trail import Trail
from dmclient.app import device_setup, http_transport, utc_now
from dmclient.called_sessions import CalledSessions
from dmclient.calls import Call, Confirm
from dmclient.config import AccountSection, ClientSettings
from dmclient.console import Console
from dmclient.dm_account import account_path, server_ids, write_account
from dmclient.dm_device import DmDevice
from dmclient.http_transport import HttpTransport, ServerNotAuthenticated
from dmclient.listening import Ears, consent_of, listening, push_receivers, refusal_of, serve_until, take_bootstrap
from dmclient.management_session import SessionFailed, SessionSettings, Transport, run_session
from dmclient.objects.described import DescriptionConflict
from dmclient.store.state_file import StateFile
from syncml.bootstrap.profile import DmBootstrap, DmCredentials
from syncml.codes import AuthType
from syncml.errors import LocalProtocolError

_AUTH_TYPES: Final = {"basic": AuthType.BASIC, "md5": AuthType.MD5, "mac": AuthType.MAC}
MAX_SESSIONS: Final = 10  # with one server, while alerts wait
STEP: Final = "7"  # of the scheme: what a plain device does is what comes before everything else

_log = structlog.get_logger(__name__)


class SessionStatus(IntEnum):
    """Exit status of `dmclient session`; of several servers the worst counts."""

    DONE = 0
    UNREACHABLE = 1  # no answer, or one against the protocol
    REFUSED = 2  # one side does not accept the other


def open_dm_device(
    settings: ClientSettings,
    trail: Trail,
    *,
    now: Callable[[], datetime] = utc_now,
    console: Console | None = None,
) -> DmDevice:
    """The plain device with what it remembers, and the accounts of the settings that it does not have yet.

    `console` is where somebody sits, None when that is not known.

    Raises:
        ConfigError, UnsealError, StoreError: something of it is missing or damaged.
    """
    key_file = settings.seal_key_file
    seal_key = SealingKey.load(key_file) if key_file.exists() else SealingKey.generate(key_file)
    try:
        device = DmDevice(
            facts=settings.device_facts(),
            state_file=StateFile(settings.dm_state_file, seal_key),
            trail=trail,
            now=now,
            setup=device_setup(settings, console),
        )
        device.remember()
    except DescriptionConflict as error:
        raise ConfigError(f"ddf_files: {error}") from error
    for section in settings.account:
        if account_path(device.tree.nodes, section.server_id) is None:
            write_account(device.tree, _profile(section))
    return device


def _profile(section: AccountSection) -> DmBootstrap:
    server = None
    if section.server_auth != "none":
        if section.server_secret_file is None:
            raise ConfigError(
                f"account {section.server_id}: server_secret_file is missing", hint='or server_auth = "none"'
            )
        server = DmCredentials(
            auth_type=_AUTH_TYPES[section.server_auth],
            name=section.server_name or section.server_id,
            secret=_secret(section.server_secret_file),
            nonce=section.server_nonce,
        )
    try:
        client = DmCredentials(
            auth_type=_AUTH_TYPES[section.client_auth],
            name=section.client_name,
            secret=_secret(section.client_secret_file),
            nonce=section.client_nonce,
        )
        return DmBootstrap(server_id=section.server_id, addr=section.url, client=client, server=server)
    except LocalProtocolError as error:
        raise ConfigError(f"account {section.server_id}: {error}") from error


def _secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"account secret {path}: cannot be read") from error
    if not secret:
        raise ConfigError(f"account secret {path}: empty")
    return secret


async def run_sessions(
    device: DmDevice, servers: tuple[str, ...], transport: Transport, settings: SessionSettings
) -> tuple[SessionStatus, str]:
    """One session with each server, more while alerts wait to be told; the worst outcome and its reason."""
    worst, reason = SessionStatus.DONE, "done"
    for server_id in servers:
        for _ in range(MAX_SESSIONS):
            status, why = await _one(device, server_id, transport, settings)
            if status > worst:
                worst, reason = status, f"{server_id}: {why}"
            if status is not SessionStatus.DONE or not len(device.alerts):
                break
    return worst, reason


async def _one(
    device: DmDevice, server_id: str, transport: Transport, settings: SessionSettings
) -> tuple[SessionStatus, str]:
    try:
        report = await run_session(device, server_id, transport, settings, step=STEP)
    except ServerNotAuthenticated as error:
        return SessionStatus.REFUSED, f"the server is not authenticated: {error}"
    except SessionFailed as error:
        return SessionStatus.UNREACHABLE, str(error)
    _log.info("session.done", server=server_id, commands=report.commands, failure=report.failure)
    return (SessionStatus.REFUSED, report.failure) if report.failure else (SessionStatus.DONE, "done")


async def sessions_over_http(
    settings: ClientSettings,
    device: DmDevice,
    server_id: str | None,
    *,
    bootstrap: bytes | None = None,
    bootstrap_url: str | None = None,
) -> tuple[SessionStatus, str]:
    """Sessions with the server given, or with all that have an account; first the bootstrap, if there is one.

    Raises:
        ConfigError: there is no such account, or a setting is missing.
        FetchFailed: there is no document at the URL.
        StoreError: the device cannot save what it must not forget.
    """
    if bootstrap is not None or bootstrap_url is not None:
        ears = push_receivers(settings, device)
        refusal = await _bootstrapped(settings, ears, bootstrap, bootstrap_url)
        if refusal:
            return SessionStatus.REFUSED, refusal
    servers = server_ids(device.tree.nodes)
    if server_id is not None:
        servers = tuple(each for each in servers if each == server_id)
    if not servers:
        raise ConfigError(
            f"no account for {server_id or 'any server'}",
            hint="[[account]] in the settings, --bootstrap-url or --bootstrap-file",
        )
    async with _transport(settings) as transport:
        ended = await run_sessions(device, servers, transport, settings.session_settings())
    if bootstrap is not None or bootstrap_url is not None:
        for each in servers:  # the session that a new account asks for took place just now
            ears.calls.done(Call(server_id=each))
    return ended


async def listen_plainly(
    settings: ClientSettings,
    device: DmDevice,
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
    async with listening(settings, device) as ears, _transport(settings) as transport:
        refusal = await _bootstrapped(settings, ears, bootstrap, bootstrap_url)
        if refusal:
            raise ConfigError(refusal)
        service = PlainService(
            device,
            transport,
            settings.session_settings(),
            CalledSessions(
                device=device,
                transport=transport,
                settings=settings.session_settings(),
                policy=settings.retry_policy(),
                sleep=asyncio.sleep,
                calls=ears.calls,
                consent=consent_of(settings, confirm),
            ),
        )
        await serve_until(stop, service, ears.calls)


class PlainService:
    """Serves calls with sessions and nothing else (`dmclient.listening.ServesCalls`)."""

    def __init__(
        self, device: DmDevice, transport: Transport, settings: SessionSettings, sessions: CalledSessions
    ) -> None:
        self._device = device
        self._transport = transport
        self._settings = settings
        self._sessions = sessions

    async def serve(self, call: Call) -> str:
        """The session of the call, and more with its server while alerts wait to be told."""
        if not await self._sessions.wanted(call):
            return ""
        try:
            await self._sessions.called_for(call, step=STEP)
        except (ServerNotAuthenticated, SessionFailed) as error:
            return str(error)
        if not len(self._device.alerts):
            return ""
        status, reason = await run_sessions(self._device, (call.server_id,), self._transport, self._settings)
        return reason if status else ""


async def _bootstrapped(settings: ClientSettings, ears: Ears, message: bytes | None, url: str | None) -> str:
    """Take the bootstrap there may be; why it was refused, or nothing."""
    return refusal_of(await take_bootstrap(settings, ears, message, url), ears)


def _transport(settings: ClientSettings) -> HttpTransport:
    """Servers belong to somebody else: without roots of their own they are trusted as the system trusts them."""
    roots = settings.tls_roots
    if settings.session.allow_plain_http:
        _log.warning("http.plain", reason="session.allow_plain_http: credentials may travel unprotected")
    return http_transport(settings, client_context(roots) if roots is not None else ssl.create_default_context())
