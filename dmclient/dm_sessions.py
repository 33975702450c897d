"""Management sessions of a plain DM device, one after the other: what testers of other servers need."""

from __future__ import annotations

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
from dmclient.config import AccountSection, ClientSettings
from dmclient.dm_account import account_path, server_ids, write_account
from dmclient.dm_device import DmDevice
from dmclient.http_transport import ServerNotAuthenticated
from dmclient.management_session import SessionFailed, SessionSettings, Transport, run_session
from dmclient.objects.described import DescriptionConflict
from dmclient.store.state_file import StateFile
from syncml.bootstrap.profile import DmBootstrap, DmCredentials
from syncml.codes import AuthType
from syncml.errors import LocalProtocolError

_AUTH_TYPES: Final = {"basic": AuthType.BASIC, "md5": AuthType.MD5, "mac": AuthType.MAC}
MAX_SESSIONS: Final = 10  # with one server, while alerts wait

_log = structlog.get_logger(__name__)


class SessionStatus(IntEnum):
    """Exit status of `dmclient session`; of several servers the worst counts."""

    DONE = 0
    UNREACHABLE = 1  # no answer, or one against the protocol
    REFUSED = 2  # one side does not accept the other


def open_dm_device(settings: ClientSettings, trail: Trail, *, now: Callable[[], datetime] = utc_now) -> DmDevice:
    """The plain device with what it remembers, and the accounts of the settings that it does not have yet.

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
            setup=device_setup(settings),
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
        report = await run_session(device, server_id, transport, settings, step="7")
    except ServerNotAuthenticated as error:
        return SessionStatus.REFUSED, f"the server is not authenticated: {error}"
    except SessionFailed as error:
        return SessionStatus.UNREACHABLE, str(error)
    _log.info("session.done", server=server_id, commands=report.commands, failure=report.failure)
    return (SessionStatus.REFUSED, report.failure) if report.failure else (SessionStatus.DONE, "done")


async def sessions_over_http(
    settings: ClientSettings, device: DmDevice, server_id: str | None
) -> tuple[SessionStatus, str]:
    """Sessions with the server given, or with all that have an account.

    Raises:
        ConfigError: there is no such account.
    """
    servers = server_ids(device.tree.nodes)
    if server_id is not None:
        servers = tuple(each for each in servers if each == server_id)
    if not servers:
        raise ConfigError(f"no account for {server_id or 'any server'}", hint="[[account]] in the settings")
    # Without roots of their own, servers are trusted as the system trusts them: they belong to somebody else.
    roots = settings.tls_roots
    context = client_context(roots) if roots is not None else ssl.create_default_context()
    async with http_transport(settings, context) as transport:
        return await run_sessions(device, servers, transport, settings.session_settings())
