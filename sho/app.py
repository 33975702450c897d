"""HTTP of the SHO: partners (mutual TLS) hand over and report, devices (TLS) attach."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import structlog
from sqlalchemy import Connection

from actor_runtime import service
from actor_runtime.crl_source import CrlSource
from actor_runtime.errors import ConfigError
from actor_runtime.http import (
    Listener,
    PartnerClient,
    ProblemError,
    allow_clients,
    new_application,
    peer_identities,
    read_body,
)
from actor_runtime.later import web
from actor_runtime.pem_files import read_chain
from actor_runtime.service import utc_now
from actor_runtime.store import Store
from actor_runtime.tls import client_context, server_context
from actor_runtime.trail import Trail
from home_network.http import (
    MAX_ATTACH_BODY,
    answer_challenge,
    challenge_document,
    read_answer,
    read_attach,
    refusal,
)
from home_network.sessions import AttachBusy, Attached, AttachRefused
from mcim.aka import IND_BITS
from mcim.certificates import TrustAnchors
from mcim.vocabulary import McimPolicy, Suite
from sho.auc import AuthenticationCentre
from sho.checks import RequestRefused
from sho.config import ShoSettings
from sho.handover import Deferred, HandoverBody, HandoverDesk, HandoverPolicy, package_members
from sho.identity import TrustStore, load_identity
from sho.jobs import JobDesk, JobWorker
from sho.packaging import PackageMaker
from sho.platform_checks import PlatformChecks
from sho.preparation import Preparation
from sho.registrations import DpfUnavailable, RegistrationBody, RegistrationDesk
from sho.report import ReportBody, ReportDesk
from sho.store import repository, tables
from sho.subscriptions import SealedCredential, Vault

MIGRATIONS: Final = Path(__file__).parent / "store" / "migrations"
STEP_CRL: Final = "9"  # platform validation rests on the lists
REGISTRATIONS: Final = "/v1/registrations"

_log = structlog.get_logger(__name__)


class DpfClients:
    """Clients of DPFs by URL, made when first asked for."""

    def __init__(self, settings: ShoSettings) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None
        self._clients: dict[str, PartnerClient] = {}

    def __call__(self, url: str) -> PartnerClient:
        """The client for that URL."""
        settings = self._settings
        if self._context is None:
            self._context = client_context(settings.tls_ca, cert=settings.tls_cert, key=settings.tls_key)
        if url not in self._clients:
            self._clients[url] = PartnerClient(url, self._context, settings.partner_timeout_s)
        return self._clients[url]

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sho:
    """The parts of a running SHO."""

    store: Store
    trail: Trail
    vault: Vault
    handovers: HandoverDesk
    reports: ReportDesk
    jobs: JobDesk
    worker: JobWorker
    preparation: Preparation
    dpfs: DpfClients
    auc: AuthenticationCentre
    crls: CrlSource
    allowed_clients: frozenset[str]
    registrations: RegistrationDesk | None = None
    allowed_registrars: frozenset[str] = frozenset()
    now: Callable[[], datetime] = utc_now

    async def start(self) -> None:
        """Begin what goes on in the background."""
        await self.crls.start(lambda text: self.trail.note(text, step=STEP_CRL))

    async def close(self) -> None:
        """Write what is still to be written and let go."""
        await self.crls.stop()
        if self.registrations is not None:
            await self.registrations.dpf.close()
        await self.dpfs.close()
        self.store.close()
        self.trail.close()


def open_store(settings: ShoSettings) -> Store:
    """The database, migrated."""
    return service.open_store(settings.database_url, MIGRATIONS)


def open_vault(settings: ShoSettings, store: Store) -> Vault:
    """The sealing key; made anew only while nothing is sealed with another.

    Raises:
        ConfigError: the file is broken, or the database has subscriptions and the key is missing or another one.
    """

    def first(connection: Connection) -> SealedCredential | None:
        listed = repository.list_subscriptions(connection, state=None, limit=1)
        return repository.get_subscription(connection, cast(int, listed[0]["id"])).sealed if listed else None

    sealed = store.read_sync(first)
    sample = (lambda key: Vault(key).open(sealed)) if sealed is not None else None
    return Vault(service.open_seal_key(settings.seal_key, "subscriptions", sample))


def open_trail(settings: ShoSettings, store: Store) -> Trail:
    """The audit trail: in the database, and in the trace file where one is set."""
    return service.open_trail("SHO", store, tables.trail, settings.trace_file)


def build(settings: ShoSettings, *, now: Callable[[], datetime] = utc_now) -> Sho:
    """Load everything and check it, before anything listens.

    Raises:
        ConfigError, StoreError.
    """
    identity = load_identity(settings.sho_id, settings.signing_cert, settings.signing_key)
    manufacturers = read_chain(settings.manufacturer_anchors, "manufacturer anchors")
    pvas = read_chain(settings.pva_anchors, "pva anchors")
    crls = CrlSource(settings, anchors=(*manufacturers, *pvas), ssl_context=client_context(settings.tls_ca), now=now)
    trust = TrustStore(
        manufacturers=TrustAnchors(manufacturers, "manufacturer"),
        pvas=TrustAnchors(pvas, "pva"),
        pva_id=settings.pva_id,
        crl_source=crls.current,
        crl_required=settings.crl_required,
    )
    policy = handover_policy(settings)
    store = open_store(settings)
    try:
        vault = open_vault(settings, store)
        trail = open_trail(settings, store)
        registrations = _registrations(settings, store, trail)
    except BaseException:
        store.close()
        raise
    dpfs = DpfClients(settings)
    platforms = PlatformChecks(identity, trust)
    packages = PackageMaker(
        store=store, vault=vault, trail=trail, identity=identity, mcim_policy=mcim_policy(settings.mcim_policy)
    )
    return Sho(
        store=store,
        trail=trail,
        vault=vault,
        handovers=HandoverDesk(
            store=store, trail=trail, identity=identity, platforms=platforms, packages=packages, policy=policy
        ),
        reports=ReportDesk(
            store=store,
            vault=vault,
            trail=trail,
            sho_id=settings.sho_id,
            trust=trust,
            quarantine=timedelta(seconds=settings.failed_quarantine_s),
        ),
        jobs=JobDesk(store=store, packages=packages),
        worker=JobWorker(
            store=store,
            trail=trail,
            platforms=platforms,
            packages=packages,
            dpf=dpfs,
            dpfs=settings.dpfs,
            first_pause=timedelta(seconds=settings.delivery_retry_s),
            now=now,
        ),
        preparation=Preparation(
            store=store, trail=trail, platforms=platforms, packages=packages, policy=policy, now=now
        ),
        dpfs=dpfs,
        auc=AuthenticationCentre(
            store=store,
            vault=vault,
            trail=trail,
            session_ttl_s=settings.attach_session_ttl_s,
            max_sessions=settings.attach_sessions_max,
        ),
        crls=crls,
        allowed_clients=settings.allowed_clients,
        registrations=registrations,
        allowed_registrars=settings.allowed_registrars,
        now=now,
    )


def _registrations(settings: ShoSettings, store: Store, trail: Trail) -> RegistrationDesk | None:
    """Where registration operators register devices; None without any on the list."""
    if not settings.allowed_registrars:
        return None
    if settings.dpf_url is None:
        raise ConfigError("dpf_url is missing", hint="registrations open their orders at a DPF")
    context = client_context(settings.tls_ca, cert=settings.tls_cert, key=settings.tls_key)
    return RegistrationDesk(
        store=store,
        trail=trail,
        dpf=PartnerClient(settings.dpf_url, context, settings.partner_timeout_s),
        dpf_url=settings.dpf_url,
        sho_id=settings.sho_id,
        order_lifetime_s=settings.registration_order_s,
    )


def handover_policy(settings: ShoSettings) -> HandoverPolicy:
    """What the settings say about packages.

    Raises:
        ConfigError: a suite that nobody knows.
    """
    return HandoverPolicy(
        suites=_suites(settings.suites),
        containers=settings.containers,
        require_order=settings.require_order,
        validity=timedelta(days=settings.mcim_validity_days),
        sqn_ahead=settings.sqn_init_ahead << IND_BITS,
        use_prepared=settings.preparation == "prefer",
        answer=settings.answer,
        later_delay=timedelta(seconds=settings.later_delay_s),
    )


def mcim_policy(names: Iterable[str]) -> McimPolicy:
    """Policy flags by their names, as settings and command line have them.

    Raises:
        ConfigError: a name that nobody knows.
    """
    policy = McimPolicy.NONE
    for name in names:
        flag = McimPolicy.__members__.get(name.upper().replace("-", "_"))
        if flag is None:
            raise ConfigError("policy: not one of signed-lifecycle, release-required, two-phase-update")
        policy |= flag
    return policy


def partner_application(sho: Sho) -> web.Application:
    """What DPFs may call, and the one path that registration operators may."""
    app = new_application()
    app.middlewares.append(allow_clients(sho.allowed_clients, of_path={REGISTRATIONS: sho.allowed_registrars}))
    if sho.registrations is not None:
        app.router.add_post(REGISTRATIONS, partial(_register, sho, sho.registrations))
    app.router.add_post("/v1/handover", partial(_hand_over, sho))
    app.router.add_get("/v1/jobs/{job}", partial(_job, sho))
    app.router.add_post("/v1/report", partial(_report, sho))
    return app


def network_application(sho: Sho) -> web.Application:
    """What devices may call: the network they attach to."""
    app = new_application(max_body=MAX_ATTACH_BODY)
    app.router.add_post("/v1/attach", partial(_attach, sho))
    app.router.add_post("/v1/attach/{session}", partial(_attach_answer, sho))
    return app


async def run(settings: ShoSettings) -> None:
    """Serve until told to stop."""
    partner_tls = server_context(settings.tls_cert, settings.tls_key, client_ca=settings.tls_ca)
    network_tls = server_context(settings.tls_cert, settings.tls_key)
    sho = build(settings)
    await service.run_service(
        sho,
        [
            Listener.at(settings.partner, "partner", partner_application(sho), partner_tls),
            Listener.at(settings.network, "network", network_application(sho), network_tls),
        ],
        work=sho.worker.run(),
        ready_file=settings.ready_file,
    )


async def _hand_over(sho: Sho, request: web.Request) -> web.Response:
    body = await read_body(request, HandoverBody)
    sho.trail.message(
        step="12",
        direction="DPF→SHO",
        summary=f"hand-over of {body.tre_id}, request {body.req_id}",
        octets=request.content_length or 0,
        order=body.order_id,
    )
    try:
        answer = await sho.handovers.hand_over(body, client_names=peer_identities(request), now=sho.now())
    except RequestRefused as exc:
        raise await _refuse(sho, exc) from exc
    if isinstance(answer, Deferred):
        return web.json_response({"job": answer.job_id, "retryAfter": answer.retry_after_s}, status=202)
    return web.json_response(package_members(answer))


async def _job(sho: Sho, request: web.Request) -> web.Response:
    try:
        members = await sho.jobs.find(request.match_info["job"], client_names=peer_identities(request))
    except RequestRefused as exc:
        raise await _refuse(sho, exc) from exc
    return web.json_response(members)


async def _report(sho: Sho, request: web.Request) -> web.Response:
    body = await read_body(request, ReportBody)
    sho.trail.message(
        step="15",
        direction="DPF→SHO",
        summary=f"report on request {body.req_id}: {body.result}",
        octets=request.content_length or 0,
        order=body.order_id,
    )
    try:
        state = await sho.reports.report(body, client_names=peer_identities(request), now=sho.now())
    except RequestRefused as exc:
        raise await _refuse(sho, exc) from exc
    await _settle(sho)
    return web.json_response({"acknowledged": True, "subscription": state})


async def _register(sho: Sho, desk: RegistrationDesk, request: web.Request) -> web.Response:
    body = await read_body(request, RegistrationBody)
    registrar = min(peer_identities(request) & sho.allowed_registrars)
    sho.trail.message(
        step="8", direction="RO→SHO", summary=f"registration of {body.m2me_id}", octets=request.content_length or 0
    )
    try:
        order_id = await desk.register(
            body, registrar=registrar, key=request.headers.get("Idempotency-Key", ""), now=sho.now()
        )
    except RequestRefused as exc:
        raise await _refuse(sho, exc) from exc
    except DpfUnavailable as exc:
        raise ProblemError(503, "dpf-unavailable") from exc
    await _settle(sho)
    return web.json_response({"orderId": order_id}, status=201)


async def _attach(sho: Sho, request: web.Request) -> web.Response:
    body = await read_attach(request)
    try:
        return web.json_response(challenge_document(await sho.auc.start(body.imsi)))
    except AttachRefused as exc:
        raise await _not_attached(sho, exc) from exc
    except AttachBusy as exc:
        raise ProblemError(503, "busy") from exc


async def _attach_answer(sho: Sho, request: web.Request) -> web.Response:
    async def attached(who: Attached) -> dict[str, Any]:
        await _settle(sho)
        return {"result": "attached", "imsiMask": who.imsi_mask}

    body, session = await read_answer(request), request.match_info["session"]
    try:
        return web.json_response(await answer_challenge(sho.auc, session, body, sho.now(), on_attached=attached))
    except AttachRefused as exc:
        raise await _not_attached(sho, exc) from exc


async def _refuse(sho: Sho, refusal: RequestRefused) -> ProblemError:
    _log.warning("sho.refused", code=refusal.code, reason=str(refusal))
    await _settle(sho)
    return ProblemError(refusal.status, refusal.code)


async def _not_attached(sho: Sho, reason: AttachRefused) -> ProblemError:
    await _settle(sho)
    return refusal(reason)


async def _settle(sho: Sho) -> None:
    """The trail of what was decided is on disk before the answer leaves: units are committed in their order."""
    await sho.store.write(lambda _connection: None)


def _suites(labels: frozenset[str]) -> frozenset[Suite]:
    found = {label: Suite.from_label(label) for label in labels}
    unknown = sorted(label for label, suite in found.items() if suite is None)
    if unknown:
        raise ConfigError(f"suites: unknown: {', '.join(unknown)}", hint="known: " + ", ".join(s.label for s in Suite))
    return frozenset(suite for suite in found.values() if suite is not None)
