"""HTTP of the RO: devices (TLS) attach with their PCID and register; everything else is calls to partners."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from actor_runtime import service
from actor_runtime.crl_source import CrlSource
from actor_runtime.errors import ConfigError
from actor_runtime.http import (
    Listener,
    Name,
    PartnerClient,
    ProblemError,
    new_application,
    read_body,
    to_base64,
)
from actor_runtime.later import web
from actor_runtime.pem_files import read_chain
from actor_runtime.service import utc_now
from actor_runtime.store import Store
from actor_runtime.tls import client_context, server_context
from actor_runtime.trail import Trail
from home_network.http import AttachAnswerBody, AttachBody, answer_challenge, challenge_document, refusal
from home_network.sessions import AttachBusy, Attached, AttachRefused, AttachSessions
from mcim.certificates import TrustAnchors
from mcim.vocabulary import ValidationMode
from ro.config import RoSettings
from ro.gate import GateRules, PlatformBody, ValidationGate
from ro.identities import Vault
from ro.initial_attach import InitialAttach, ProvisionalIdentities, alarm, network_name
from ro.registrations import DrfRules, RegisterBody, RegistrationDenied, RegistrationDesk
from ro.store import repository, tables
from ro.store.registration_rows import State

STEP_CRL: Final = "3"  # the gate rests on the lists
MIGRATIONS: Final = Path(__file__).parent / "store" / "migrations"
MAX_BODY: Final = 64 * 1024  # octets; certificates, evidence and a measurement log; this listener is open to everybody

_BEARER: Final = re.compile(r"Bearer ([A-Za-z0-9_-]{43})")


class InitialAttachBody(AttachBody):
    """`POST /v1/attach`: an attach with a PCID."""

    vno: str | None = None  # visited network, MCC and MNC
    tre_id: Name | None = None  # needed where the platform is validated first
    req_id: UUID | None = None


class InitialAnswerBody(AttachAnswerBody):
    """`POST /v1/attach/{session}`: the answer to a challenge of AKA, or of the PVA."""

    platform: PlatformBody | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ro:
    """The parts of a running RO."""

    settings: RoSettings
    store: Store
    trail: Trail
    vault: Vault
    identities: ProvisionalIdentities
    sessions: AttachSessions
    attaches: InitialAttach
    gate: ValidationGate | None
    desk: RegistrationDesk
    partners: tuple[PartnerClient, ...]
    crls: CrlSource | None = None  # of the gate
    now: Callable[[], datetime] = utc_now

    async def start(self) -> None:
        """Begin what goes on in the background."""
        if self.crls is not None:
            await self.crls.start(lambda text: self.trail.note(text, step=STEP_CRL))

    async def close(self) -> None:
        """Write what is still to be written and let go."""
        if self.crls is not None:
            await self.crls.stop()
        await asyncio.gather(*(partner.close() for partner in self.partners))
        self.store.close()
        self.trail.close()


def open_store(settings: RoSettings) -> Store:
    """The database, migrated."""
    return service.open_store(settings.database_url, MIGRATIONS)


def open_vault(settings: RoSettings, store: Store) -> Vault:
    """The sealing key; made anew only while nothing is sealed with another.

    Raises:
        ConfigError: the file is broken, or the database has identities and the key is missing or another one.
    """
    first = store.read_sync(lambda connection: repository.list_identities(connection, limit=1))
    sample = (lambda key: Vault(key).open_imsi(first[0].sealed)) if first else None
    return Vault(service.open_seal_key(settings.seal_key, "identities", sample))


def open_trail(settings: RoSettings, store: Store) -> Trail:
    """The audit trail: in the database, and in the trace file where one is set."""
    return service.open_trail("RO", store, tables.trail, settings.trace_file)


def build(settings: RoSettings, *, now: Callable[[], datetime] = utc_now) -> Ro:
    """Load everything and check it, before anything listens.

    Raises:
        ConfigError, StoreError.
    """
    outward = client_context(settings.tls_ca, cert=settings.tls_cert, key=settings.tls_key)
    if settings.default_sho is not None and settings.default_sho not in settings.shos:
        raise ConfigError("default_sho is no partner", hint="add its URL to [shos] in the settings")
    guarded = _gate_rules(settings, now)
    rules, crls = guarded if guarded is not None else (None, None)
    store = open_store(settings)
    try:
        vault = open_vault(settings, store)
        trail = open_trail(settings, store)
    except BaseException:
        store.close()
        raise
    pva = _partner(settings.pva_url, outward, settings) if rules is not None else None
    dpf = _partner(settings.dpf_url, outward, settings)
    shos = {sho_id: PartnerClient(url, outward, settings.partner_timeout_s) for sho_id, url in settings.shos.items()}
    identities = ProvisionalIdentities(store, vault, per_hour=settings.attaches_per_hour, now=now)
    sessions = AttachSessions(
        identities, trail, session_ttl_s=settings.attach_session_ttl_s, max_sessions=settings.attach_sessions_max
    )
    return Ro(
        settings=settings,
        store=store,
        trail=trail,
        vault=vault,
        identities=identities,
        sessions=sessions,
        attaches=InitialAttach(
            store=store,
            trail=trail,
            identities=identities,
            sessions=sessions,
            token_ttl_s=settings.access_token_s,
            max_networks=settings.visited_networks_max,
        ),
        crls=crls,
        gate=ValidationGate(rules, pva, trail) if rules is not None and pva is not None else None,
        desk=RegistrationDesk(
            store=store,
            trail=trail,
            rules=DrfRules(
                partners=frozenset(settings.shos),
                default_sho=settings.default_sho,
                bind=settings.pcid_binding == "first-registration",
                push_to_peer_only=settings.push_to_peer_only,
                lifetime=timedelta(seconds=settings.registration_lifetime_s),
            ),
            shos=shos,
            dpf=dpf,
            now=now,
        ),
        partners=tuple(each for each in (pva, dpf, *shos.values()) if each is not None),
        now=now,
    )


def network_application(ro: Ro) -> web.Application:
    """What devices may call: the ICF, and with the token it gives, the DRF."""
    app = new_application(max_body=MAX_BODY)
    app.router.add_post("/v1/attach", partial(_attach, ro))
    app.router.add_post("/v1/attach/{session}", partial(_attach_answer, ro))
    app.router.add_post("/v1/register", partial(_register, ro))
    return app


async def run(settings: RoSettings, *, stop: asyncio.Event | None = None) -> None:
    """Serve until told to stop, and go on with the registrations that wait."""
    network_tls = server_context(settings.tls_cert, settings.tls_key)
    ro = build(settings)
    await service.run_service(
        ro,
        [Listener.at(settings.network, "network", network_application(ro), network_tls)],
        work=ro.desk.advance_for_ever(settings.retry_s),
        ready_file=settings.ready_file,
        stop=stop,
    )


async def _attach(ro: Ro, request: web.Request) -> web.Response:
    body = await read_body(request, InitialAttachBody)
    vno = network_name(body.vno)
    ro.trail.message(
        step="2", direction="VNO→RO", summary=f"attach with a PCID in network {vno}", octets=len(body.imsi)
    )
    try:
        if ro.gate is not None:
            return await _ask_for_evidence(ro, ro.gate, body, vno)
        return web.json_response(challenge_document(await ro.attaches.challenge(body.imsi, vno=vno)))
    except AttachRefused as exc:
        raise await _not_attached(ro, exc, vno) from exc
    except AttachBusy as exc:
        raise _busy(ro) from exc


async def _ask_for_evidence(ro: Ro, gate: ValidationGate, body: InitialAttachBody, vno: str) -> web.Response:
    await ro.identities.check(ro.identities.index(body.imsi))  # the PVA is not asked for strangers
    if body.tre_id is None or body.req_id is None:
        raise AttachRefused("the platform is validated first, and the request names none")
    session, challenge = await gate.ask(body.imsi, vno=vno, tre_id=body.tre_id, req_id=body.req_id, now=ro.now())
    return web.json_response(
        {"result": "validate", "session": session, "challenge": to_base64(challenge), "mode": gate.mode.value}
    )


async def _attach_answer(ro: Ro, request: web.Request) -> web.Response:
    body = await read_body(request, InitialAnswerBody)
    session = request.match_info["session"]
    vno = ro.sessions.context_of(session).get("vno") or (ro.gate.network_of(session) if ro.gate is not None else None)

    async def admitted(attached: Attached) -> dict[str, Any]:
        access = await ro.attaches.admit(attached, ro.now())
        answer = {
            "result": "attached",
            "imsiMask": access.imsi_mask,
            "accessToken": access.token,
            "expiresIn": access.expires_in_s,
        }
        return answer | ({"drfUrl": ro.settings.public_url} if ro.settings.public_url else {})

    try:
        if body.platform is not None:
            return await _past_the_gate(ro, session, body.platform)
        return web.json_response(await answer_challenge(ro.sessions, session, body, ro.now(), on_attached=admitted))
    except AttachRefused as exc:
        raise await _not_attached(ro, exc, network_name(vno)) from exc
    except AttachBusy as exc:
        raise _busy(ro) from exc


async def _past_the_gate(ro: Ro, session: str, platform: PlatformBody) -> web.Response:
    if ro.gate is None:
        raise AttachRefused("evidence, and there is no gate")
    asked, now = ro.gate.take(session), ro.now()
    m2me_id = await ro.gate.judge(session, asked, platform, now)
    identity = await ro.identities.check(ro.identities.index(asked.imsi))
    if ro.settings.pcid_binding != "none" and identity.m2me_id not in (None, m2me_id):
        await ro.store.write(lambda c: alarm(c, ro.trail, identity, m2me_id, step="3", now=now))
        raise AttachRefused(f"{identity.mask} belongs to another device")
    challenge = await ro.attaches.challenge(asked.imsi, vno=asked.vno, m2me_id=m2me_id)
    return web.json_response(challenge_document(challenge, result="challenge"))


async def _register(ro: Ro, request: web.Request) -> web.Response:
    bearer = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if bearer is None:
        raise ProblemError(401, "access-token-refused")
    body = await read_body(request, RegisterBody)
    ro.trail.message(
        step="7", direction="M2ME→RO", summary=f"registration of {body.m2me_id}", octets=request.content_length or 0
    )
    try:
        registration = await ro.desk.register(bearer[1], body, peer=request.remote or "")
    except RegistrationDenied as exc:
        await _settle(ro)
        raise ProblemError(exc.status, exc.code, retry_after_s=ro.settings.refused_retry_s) from exc
    await _settle(ro)
    if registration.state is State.BOOTSTRAPPED:
        return web.json_response({"state": "registered", "registration": registration.id, "sho": registration.sho_id})
    if registration.state in (State.REFUSED, State.DENIED, State.SUPERSEDED):
        raise ProblemError(403, "registration-refused", retry_after_s=ro.settings.refused_retry_s)
    answer = {"state": "pending", "registration": registration.id, "retryAfter": round(ro.settings.retry_s)}
    return web.json_response(answer, status=202)


async def _not_attached(ro: Ro, reason: AttachRefused, vno: str) -> ProblemError:
    ro.attaches.count_refusal(vno, ro.now())
    await _settle(ro)
    return refusal(reason, retry_after_s=ro.settings.refused_retry_s)


def _busy(ro: Ro) -> ProblemError:
    return ProblemError(503, "busy", retry_after_s=ro.settings.refused_retry_s)


async def _settle(ro: Ro) -> None:
    """The trail of what was decided is on disk before the answer leaves: units are committed in their order."""
    await ro.store.write(lambda _connection: None)


def _gate_rules(settings: RoSettings, now: Callable[[], datetime]) -> tuple[GateRules, CrlSource] | None:
    if not settings.validation_gates_attach:
        return None
    if settings.pva_url is None or settings.pva_anchors is None:
        missing = "pva_url" if settings.pva_url is None else "pva_anchors"
        raise ConfigError(f"{missing} is missing", hint="validation_gates_attach needs a PVA and the roots it has")
    if settings.validation_mode is ValidationMode.AUTONOMOUS:
        raise ConfigError(
            "validation_mode: autonomous is no gate",
            hint="certificates are public: what asks for nothing else opens to whoever copies them",
        )
    anchors = read_chain(settings.pva_anchors, "pva anchors")
    crls = CrlSource(settings, anchors=anchors, ssl_context=client_context(settings.tls_ca), now=now)
    rules = GateRules(
        ro_id=settings.ro_id,
        anchors=TrustAnchors(anchors, "pva"),
        pva_id=settings.pva_id,
        mode=settings.validation_mode,
        session_ttl_s=settings.attach_session_ttl_s,
        max_challenges=settings.gate_challenges_max,
        crls=crls.current,
        crl_required=settings.crl_required,
    )
    return rules, crls


def _partner(url: str | None, context: ssl.SSLContext, settings: RoSettings) -> PartnerClient | None:
    return PartnerClient(url, context, settings.partner_timeout_s) if url is not None else None
