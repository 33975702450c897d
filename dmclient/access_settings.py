"""Initial access as the settings want it: whom to call, over TLS, and where pushes reach the device."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from actor_runtime.errors import ConfigError
from actor_runtime.http import PartnerClient
from actor_runtime.tls import client_context
from dmclient.config import ClientSettings
from dmclient.device import Device
from dmclient.initial_access import InitialAccess, Visited


@asynccontextmanager
async def initial_access(
    settings: ClientSettings,
    device: Device,
    *,
    udp_port: int,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[InitialAccess | None]:
    """The device's way to a registration operator; None when the settings name none.

    Raises:
        ConfigError: an address is no https URL, or there are no roots to trust it by.
    """
    section = settings.initial_access
    if not section.networks:
        yield None
        return
    if settings.tls_roots is None:
        raise ConfigError("tls_roots is missing", hint="the PEM file with the roots that servers are trusted by")
    context = client_context(settings.tls_roots)
    clients: list[PartnerClient] = []

    def client(url: str) -> PartnerClient:
        made = PartnerClient(url, context, settings.session.timeout_s)
        clients.append(made)
        return made

    plain = settings.session.allow_plain_http
    for name, url in (("drf_url", section.drf_url), *(("icf_url", each.icf_url) for each in section.networks)):
        if url is not None and not usable(url, plain=plain):
            raise ConfigError(f"initial_access.{name}: not an https URL")

    def drf(told: str) -> PartnerClient | None:
        if section.drf_url is not None:
            return client(section.drf_url)
        return client(told) if usable(told, plain=plain) else None

    try:
        yield InitialAccess(
            device=device,
            networks=tuple(Visited(vno=each.vno, icf=client(each.icf_url)) for each in section.networks),
            drf=drf,
            push=section.push or f"udp::{udp_port}",
            policy=settings.retry_policy(),
            sleep=sleep,
        )
    finally:
        await asyncio.gather(*(each.close() for each in clients))


def usable(url: str, *, plain: bool) -> bool:
    """Whether secrets may go there: https with a host, or http where the tests allow it."""
    try:
        parts = urlsplit(url)
        return parts.scheme in (("https", "http") if plain else ("https",)) and bool(parts.hostname)
    except ValueError:
        return False
