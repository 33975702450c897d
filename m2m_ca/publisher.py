"""Publishes revocation lists and CA certificates over HTTP (RFC 5280 §4.2.1.13, RFC 2585), and keeps the lists fresh.

Plain HTTP: everything published is signed. There is a fixed list of names, and nothing else of the directory is served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from actor_runtime.http import Listener, serve
from actor_runtime.later import web
from m2m_ca.directory import CAS, CaDirectory
from m2m_ca.files import CaError
from m2m_ca.revocation_lists import list_path, refresh_list
from mcim.authority import CRL_LIFE

CRL_TYPE: Final = "application/pkix-crl"  # RFC 2585 §4.2
CERTIFICATE_TYPE: Final = "application/pkix-cert"  # RFC 2585 §4.1
CHECK_S: Final = 2.0  # between looks for revocations and for lists that grow old

_log = structlog.get_logger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def application(directory: CaDirectory) -> web.Application:
    """`/crl/NAME.crl` and `/ca/NAME.crt` for each CA of the directory, GET and HEAD.

    Raises:
        CaError: there are no CAs.
    """
    app = web.Application(client_max_size=1024)
    for ca in CAS:
        certificate = directory.certificate(ca).public_bytes(Encoding.DER)
        app.router.add_get(f"/ca/{ca}.crt", partial(_certificate, certificate))
        app.router.add_get(f"/crl/{ca}.crl", partial(_revocation_list, list_path(directory, ca)))
    return app


async def publish(
    directory: CaDirectory,
    *,
    host: str,
    port: int,
    ready_file: Path | None = None,
    life: timedelta = CRL_LIFE,
    check_s: float = CHECK_S,
    stop: asyncio.Event | None = None,
    now: Callable[[], datetime] = _utc_now,
) -> None:
    """Serve until told to stop.

    Raises:
        CaError, ConfigError: no CAs, a broken list, or an address that cannot be used.
    """
    app = application(directory)
    for ca in CAS:
        refresh_list(directory, ca, now(), life=life)
    task = asyncio.create_task(_keep_fresh(directory, life, check_s, now))

    async def close() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    listener = Listener(name="crl", app=app, host=host, port=port, ssl_context=None)
    await serve([listener], ready_file=ready_file, on_stop=close, stop=stop)


async def _keep_fresh(directory: CaDirectory, life: timedelta, check_s: float, now: Callable[[], datetime]) -> None:
    told: dict[str, str] = {}
    while True:
        await asyncio.sleep(check_s)
        for ca in CAS:
            try:
                if await asyncio.to_thread(refresh_list, directory, ca, now(), life=life):
                    _log.info("crl.made", ca=ca)
                told.pop(ca, None)
            except (CaError, OSError) as exc:  # a person may put it right while the list at hand is still good
                if told.get(ca) != str(exc):
                    told[ca] = str(exc)
                    _log.error("crl.not_made", ca=ca, reason=str(exc))


async def _certificate(octets: bytes, request: web.Request) -> web.Response:
    return web.Response(body=octets, content_type=CERTIFICATE_TYPE)


async def _revocation_list(path: Path, request: web.Request) -> web.Response:
    try:
        octets = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError as exc:  # of a root whose key is kept elsewhere and whose list nobody brought here
        raise web.HTTPNotFound from exc
    return web.Response(body=octets, content_type=CRL_TYPE, headers={"Cache-Control": "no-cache"})
