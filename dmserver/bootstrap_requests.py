"""Bootstraps that a registration operator asks for: its DRF has a device that waits (TR 33.812 §5.1.3.7.1 step 7).

Only for devices we know and with an ongoing order, so often an hour (REQ-11). The account is committed before the
push leaves; the same key makes no second account, and sends the same one again while it is in force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import structlog
from pydantic import StringConstraints
from sqlalchemy import Connection, Row, insert, select, update

from actor_runtime.errors import ActorError, ConfigError
from actor_runtime.http import Body, Name, ProblemError, peer_identities, read_body
from actor_runtime.later import web
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from dmserver.bootstrap import (
    BootstrapNotAllowed,
    PreparedBootstrap,
    bootstrap_push,
    prepare_bootstrap,
)
from dmserver.config import DmServerSettings
from dmserver.push import PushFailed, destination_of, send
from dmserver.store.accounts import bootstrap_secret, bootstraps_since, find_account, is_known, naive
from dmserver.store.orders import ongoing_order
from dmserver.store.tables import bootstrap_requests, devices

PATH: Final = "/v1/bootstraps"
STEP: Final = "7"
MAX_KEY: Final = 128  # characters of an Idempotency-Key

_log = structlog.get_logger(__name__)


class BootstrapBody(Body):
    """`POST /v1/bootstraps`."""

    m2me_id: Name
    push: Annotated[str, StringConstraints(max_length=255, pattern=r"^udp:[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$")]


@dataclass(frozen=True, slots=True)
class BootstrapRequests:
    """What the answer to a request is made with."""

    settings: DmServerSettings
    store: Store
    seal_key: SealingKey = field(repr=False)
    trail: Trail
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def bootstrap(self, body: BootstrapBody, *, registrar: str, key: str) -> None:
        """Make an account for the device and send it, or send again what this key made.

        Raises:
            ProblemError: unknown device, no ongoing order, too often, or the push does not leave.
        """
        try:
            destination = destination_of(udp=body.push.removeprefix("udp:"), http=None, file=None)
        except ActorError as exc:
            raise ProblemError(400, "malformed-request", "members: push") from exc
        try:
            dm_url = self.settings.announced_dm_url()
        except ConfigError as exc:
            _log.error("bootstrap.no_address", reason=str(exc), hint=exc.hint)
            raise ProblemError(503, "no-address-to-announce") from exc
        digest = hashlib.sha256(f"{registrar}\0{key}".encode()).hexdigest()
        made = await self.store.write(lambda connection: self._prepare(connection, body, digest, dm_url))
        if isinstance(made, ProblemError):  # not raised inside: the check belongs into the trail
            self.trail.check("bootstrap-allowed", False, req=("REQ-11",), step=STEP, detail=made.code)
            raise made
        if made is None:
            self.trail.note("a later bootstrap is in force, nothing is sent", step=STEP)
            return
        self.trail.check("bootstrap-allowed", True, req=("REQ-11",), step=STEP, order=made.order_id)
        try:
            octets = await send(made.push, destination)
        except PushFailed as exc:
            raise ProblemError(503, "push-failed") from exc
        self.trail.message(step=STEP, direction="DPF→M2ME", summary=made.summary, octets=octets, order=made.order_id)

    def _prepare(
        self, connection: Connection, body: BootstrapBody, digest: str, dm_url: str
    ) -> PreparedBootstrap | ProblemError | None:
        now, per_hour = self.now(), self.settings.limits.bootstraps_per_hour
        known = connection.execute(
            select(bootstrap_requests).where(bootstrap_requests.c.key_digest == digest)
        ).one_or_none()
        if known is not None:
            return self._again(connection, body, known, dm_url, now)
        if not is_known(connection, body.m2me_id):
            return ProblemError(404, "device-unknown")
        if ongoing_order(connection, body.m2me_id, now) is None:
            return ProblemError(409, "no-ongoing-order")
        if bootstraps_since(connection, body.m2me_id, now - timedelta(hours=1)) >= per_hour:
            return ProblemError(429, "too-many-bootstraps")
        try:
            made = prepare_bootstrap(
                connection,
                self.seal_key,
                body.m2me_id,
                server_id=self.settings.server_id,
                dm_url=dm_url,
                per_hour=per_hour,
                now=now,
            )
        except BootstrapNotAllowed:
            return ProblemError(409, "bootstrap-refused")
        self._keep(connection, body, digest, now)
        return made

    def _again(
        self, connection: Connection, body: BootstrapBody, known: Row[tuple[object, ...]], dm_url: str, now: datetime
    ) -> PreparedBootstrap | ProblemError | None:
        """What this key made, if it is still in force; the answer to it, or its datagram, may have been lost."""
        if (known.device_id, known.push) != (body.m2me_id, body.push):
            return ProblemError(409, "key-used-for-another-bootstrap")
        account = find_account(connection, self.seal_key, body.m2me_id)
        secret = bootstrap_secret(connection, self.seal_key, body.m2me_id)
        if account is None or secret is None or account.profile != known.profile:
            return None
        order = ongoing_order(connection, body.m2me_id, now)
        push = bootstrap_push(account, dm_url=dm_url, server_id=self.settings.server_id, secret=secret.decode("ascii"))
        return PreparedBootstrap(order_id=None if order is None else order.order_id, push=push)

    def _keep(self, connection: Connection, body: BootstrapBody, digest: str, now: datetime) -> None:
        """The key, and where the device can be reached."""
        account = find_account(connection, self.seal_key, body.m2me_id)
        connection.execute(
            insert(bootstrap_requests).values(
                key_digest=digest,
                device_id=body.m2me_id,
                profile=0 if account is None else account.profile,
                push=body.push,
                created_at=naive(now),
            )
        )
        connection.execute(update(devices).where(devices.c.device_id == body.m2me_id).values(push=body.push))


def add_bootstrap_route(app: web.Application, requests: BootstrapRequests) -> None:
    """Let registration operators ask; only those on the list, by the names in their certificates."""
    allowed = requests.settings.allowed_registrars

    async def bootstrap(request: web.Request) -> web.Response:
        names = peer_identities(request) & allowed
        if not names:
            requests.trail.check("bootstrap-by-registrar", False, req=("REQ-11",), step=STEP)
            raise ProblemError(403, "client-not-allowed", "the client certificate is not on this actor's list")
        body = await read_body(request, BootstrapBody)
        key = request.headers.get("Idempotency-Key", "")
        if not 1 <= len(key) <= MAX_KEY:
            raise ProblemError(400, "malformed-request", "an idempotency key is needed")
        requests.trail.message(
            step=STEP, direction="RO→DPF", summary=f"bootstrap wanted for {body.m2me_id}",
            octets=request.content_length or 0,
        )  # fmt: skip
        await requests.bootstrap(body, registrar=min(names), key=key)
        return web.json_response({"sent": True})

    app.router.add_post(PATH, bootstrap)
