"""HTTP of the PVA: DPFs (mutual TLS) ask for challenges and decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from actor_runtime import service
from actor_runtime.crl_source import CrlSource
from actor_runtime.http import (
    Listener,
    ProblemError,
    allow_clients,
    new_application,
    peer_identities,
    read_body,
    to_base64,
)
from actor_runtime.later import web
from actor_runtime.pem_files import read_chain, read_signing_key
from actor_runtime.service import utc_now
from actor_runtime.store import Store
from actor_runtime.tls import client_context, server_context
from actor_runtime.trail import Trail
from mcim.certificates import TrustAnchors
from pva.config import PvaSettings
from pva.store import tables
from pva.validation import (
    STEP_CHECK,
    ChallengeBody,
    ModeNotOffered,
    NotTrusted,
    TooManyChallenges,
    ValidateBody,
    ValidationDesk,
    Verifier,
)

MIGRATIONS: Final = Path(__file__).parent / "store" / "migrations"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pva:
    """The parts of a running PVA."""

    store: Store
    trail: Trail
    desk: ValidationDesk
    crls: CrlSource
    allowed_clients: frozenset[str]
    now: Callable[[], datetime] = utc_now

    async def start(self) -> None:
        """Begin what goes on in the background."""
        await self.crls.start(lambda text: self.trail.note(text, step=STEP_CHECK))

    async def close(self) -> None:
        """Write what is still to be written and let go."""
        await self.crls.stop()
        self.store.close()
        self.trail.close()


def open_store(settings: PvaSettings) -> Store:
    """The database, migrated."""
    return service.open_store(settings.database_url, MIGRATIONS)


def build(settings: PvaSettings, *, now: Callable[[], datetime] = utc_now) -> Pva:
    """Load everything and check it, before anything listens.

    Raises:
        ConfigError, StoreError.
    """
    chain = read_chain(settings.signing_cert, "signing certificate")
    manufacturers = read_chain(settings.manufacturer_anchors, "manufacturer anchors")
    crls = CrlSource(settings, anchors=manufacturers, ssl_context=client_context(settings.tls_ca), now=now)
    verifier = Verifier(
        pva_id=settings.pva_id,
        signing_key=read_signing_key(settings.signing_key, chain[0]),
        chain=chain,
        manufacturers=TrustAnchors(manufacturers, "manufacturer"),
        crls=crls.current,
        crl_required=settings.crl_required,
        modes=settings.modes,
        challenge_ttl=timedelta(seconds=settings.challenge_ttl_s),
        max_challenges=settings.max_challenges,
        ticket_ttl=timedelta(seconds=settings.ticket_ttl_s),
    )
    store = open_store(settings)
    trail = service.open_trail("PVA", store, tables.trail, settings.trace_file)
    return Pva(
        store=store,
        trail=trail,
        desk=ValidationDesk(store=store, trail=trail, verifier=verifier),
        crls=crls,
        allowed_clients=settings.allowed_clients,
        now=now,
    )


def application(pva: Pva) -> web.Application:
    """What DPFs may call."""
    app = new_application()
    app.middlewares.append(allow_clients(pva.allowed_clients))
    app.router.add_post("/v1/challenge", partial(_challenge, pva))
    app.router.add_post("/v1/validate", partial(_validate, pva))
    return app


async def run(settings: PvaSettings) -> None:
    """Serve until told to stop."""
    context = server_context(settings.tls_cert, settings.tls_key, client_ca=settings.tls_ca)
    pva = build(settings)
    listener = Listener.at(settings.partner, "partner", application(pva), context)
    await service.run_service(pva, [listener], ready_file=settings.ready_file)


async def _challenge(pva: Pva, request: web.Request) -> web.Response:
    body = await read_body(request, ChallengeBody)
    try:
        row = await pva.desk.challenge(body, client=_client(pva, request), now=pva.now())
    except ModeNotOffered as exc:
        raise ProblemError(422, "mode-not-offered") from exc
    except TooManyChallenges as exc:
        raise ProblemError(503, "busy") from exc
    return web.json_response(
        {"challenge": to_base64(row.challenge), "exp": row.expires_at.isoformat().replace("+00:00", "Z")}
    )


async def _validate(pva: Pva, request: web.Request) -> web.Response:
    body, client = await read_body(request, ValidateBody), _client(pva, request)
    pva.trail.message(
        step="10",
        direction=f"{client}→PVA",  # a DPF, or an RO that asks before the first attach
        summary=f"evidence of {body.tre_id}, {body.mode}",
        octets=request.content_length or 0,
        order=str(body.req_id),
    )
    try:
        ticket = await pva.desk.validate(
            body, client=client, now=pva.now(), key=request.headers.get("Idempotency-Key", "")
        )
    except NotTrusted as exc:
        _log.warning("pva.not_trusted", tre_id=body.tre_id, reason=exc.reason, detail=exc.detail)
        raise ProblemError(403, "platform-not-trusted", exc.reason) from exc
    pva.trail.message(
        step="11", direction=f"PVA→{client}", summary="signed ticket", octets=len(ticket), order=str(body.req_id)
    )
    return web.json_response({"ticket": ticket})


def _client(pva: Pva, request: web.Request) -> str:
    """The name by which this DPF is on our list."""
    return min(peer_identities(request) & pva.allowed_clients)
