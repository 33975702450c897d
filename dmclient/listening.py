"""A device that can be reached from outside: its listeners, what they bring, and the loop that serves calls.

It is the same for every kind of device: the M2ME and the plain DM device differ in who has the sessions.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from actor_runtime.errors import ConfigError
from actor_runtime.tls import client_context
from dmclient.bootstrap_fetch import fetch_bootstrap
from dmclient.bootstrap_receiver import BootstrapReceiver, Verdict
from dmclient.calls import Call, CallQueue, Confirm, Consent
from dmclient.config import ClientSettings
from dmclient.dm_device import DmDevice
from dmclient.notification_receiver import NotificationReceiver
from dmclient.push_listeners import http_listener, udp_listener
from dmclient.push_receiver import PushReceiver
from syncml.bootstrap.security import BootstrapSecrets, Sec
from syncml.errors import LocalProtocolError

_PIN: Final = "1 to 128 printable ASCII characters"
_IMSI: Final = "an IMSI of 6 to 15 digits"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ears:
    """What listens while the device runs."""

    bootstraps: BootstrapReceiver
    pushes: PushReceiver
    calls: CallQueue
    udp_port: int = 0  # where WAP pushes arrive; 0: not yet bound


def push_receivers(settings: ClientSettings, device: DmDevice) -> Ears:
    """What judges pushes, without any listener; a smart card is taken at once.

    Raises:
        ConfigError: a secret or the card is unreadable, or is none.
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
    return Ears(bootstraps, PushReceiver(bootstraps=bootstraps, notifications=notifications), calls)


@asynccontextmanager
async def listening(settings: ClientSettings, device: DmDevice) -> AsyncIterator[Ears]:
    """Listeners for pushes, and the ready file that tells their ports.

    Raises:
        ConfigError: see `push_receivers`; or an address cannot be bound.
    """
    receivers = push_receivers(settings, device)
    udp, http = settings.bootstrap.listen, settings.push.http
    async with AsyncExitStack() as stack:
        ports = {"bootstrap": await stack.enter_async_context(udp_listener(receivers.pushes, udp.host, udp.port))}
        if http is not None:
            ports["push"] = await stack.enter_async_context(http_listener(receivers.pushes, http.host, http.port))
        if settings.ready_file is not None:
            _write_ready(settings.ready_file, ports)
        _log.info("push.ready", **ports)
        try:
            yield replace(receivers, udp_port=ports["bootstrap"])
        finally:
            _log.info("push.counts", **receivers.pushes.counts)
            if settings.ready_file is not None:
                settings.ready_file.unlink(missing_ok=True)


async def take_bootstrap(
    settings: ClientSettings, ears: Ears, message: bytes | None = None, url: str | None = None
) -> Verdict | None:
    """Take the bootstrap that the command line gave, as octets or by its address; None when it gave none.

    Raises:
        FetchFailed: there is no document at the address.
    """
    if message is not None:
        return ears.bootstraps.receive(message)
    if url is None:
        return None
    push = await fetch_bootstrap(
        url,
        ssl_context=None if settings.tls_roots is None else client_context(settings.tls_roots),
        server_name=settings.tls_server_name,
        allow_plain_http=settings.session.allow_plain_http,
        timeout_s=settings.session.timeout_s,
    )
    return ears.bootstraps.take(push)


def refusal_of(verdict: Verdict | None, ears: Ears) -> str:
    """Why the bootstrap that the command line gave was not taken; empty when it was, or when there was none."""
    if verdict in (None, Verdict.APPLIED, Verdict.UNCHANGED):
        return ""
    return f"the bootstrap was refused: {ears.bootstraps.detail if verdict is Verdict.REFUSED else verdict}"


def consent_of(settings: ClientSettings, confirm: Confirm | None) -> Consent:
    """Who decides whether a session may start: whoever answers `confirm`, or a setting."""
    return Consent(confirm, default=settings.push.user_interaction == "accept", wait_s=settings.push.ask_wait_s)


class ServesCalls(Protocol):
    """Who has the session that a call asks for."""

    async def serve(self, call: Call) -> str:
        """Have it, and settle the call in its queue. Returns why it failed; empty when it did not."""


async def serve_until(stop: asyncio.Event, server: ServesCalls, calls: CallQueue) -> None:
    """Serve calls, one after the other, until `stop` is set.

    Raises:
        StoreError: the device cannot save what it must not forget.
    """
    serving = asyncio.create_task(_serve_for_ever(server, calls))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (serving, stopping):
        task.cancel()
    for ended in await asyncio.gather(serving, stopping, return_exceptions=True):
        if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
            raise ended


async def _serve_for_ever(server: ServesCalls, calls: CallQueue) -> None:
    while True:
        call = await calls.wait()
        failure = await server.serve(call)
        _log.info("call.served", server_id=call.server_id, session_id=call.session_id, failure=failure)


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


def _write_ready(path: Path, ports: dict[str, int]) -> None:
    """Tell who waits for us which ports the system chose; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"ports": ports, "pid": os.getpid()}) + "\n", encoding="ascii")
    temporary.replace(path)
