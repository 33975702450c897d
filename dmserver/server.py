"""Puts the DPF together from its settings and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import structlog

from actor_runtime import service
from actor_runtime.crl_source import CrlSource
from actor_runtime.http import Listener, PartnerClient, serve
from actor_runtime.pem_files import read_chain
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.tls import client_context, server_context
from actor_runtime.trail import Trail
from dmserver.admission import Admission
from dmserver.app import dm_application, partner_application
from dmserver.bootstrap_pull import add_pull_route
from dmserver.bootstrap_requests import BootstrapRequests, add_bootstrap_route
from dmserver.callback import CallBack
from dmserver.conductor import Conductor
from dmserver.config import DmServerSettings, ProvisioningSettings
from dmserver.conversation import Conversation
from dmserver.endpoint import Announced, DmEndpoint
from dmserver.operator_api import OperatorToken, operator_application
from dmserver.partners import HttpPartners, NoPartners, Partners
from dmserver.policy import Rules
from dmserver.sessions import SessionRegistry
from dmserver.store import MIGRATIONS, tables
from dmserver.store.accounts import bootstrap_secret, list_devices
from dmserver.unreadable import UnreadableTrace
from mcim.certificates import TrustAnchors
from mo_definitions import load

_log = structlog.get_logger(__name__)


def open_store(settings: DmServerSettings) -> Store:
    """The database, at its newest schema."""
    return service.open_store(settings.database_url, MIGRATIONS)


def open_seal_key(settings: DmServerSettings, store: Store) -> SealingKey:
    """The sealing key; made when it is missing and nothing is sealed yet.

    Raises:
        ConfigError: it is missing or another one and the database has sealed secrets, or it cannot be read or made.
    """

    def sample(key: SealingKey) -> object:
        return store.read_sync(lambda connection: bootstrap_secret(connection, key, first[0].device_id))

    first = store.read_sync(lambda connection: list_devices(connection, limit=1))
    return service.open_seal_key(settings.seal_key, "secrets", sample if first else None)


def open_trail(settings: DmServerSettings, store: Store) -> Trail:
    """The audit trail: into the database, and into the trace file if there is one."""
    return service.open_trail("DPF", store, tables.trail, settings.trace_file)


def load_crls(settings: DmServerSettings) -> CrlSource | None:
    """Where revocation lists come from; None for a server that provisions nobody.

    Raises:
        ConfigError: a setting is missing, or an anchor or CRL file is missing or broken.
    """
    provisioning = settings.provisioning()
    if provisioning is None:
        return None
    anchors = [provisioning.manufacturer_anchors, provisioning.pva_anchors]
    return CrlSource(
        settings,
        anchors=[certificate for path in anchors for certificate in read_chain(path, "anchors")],
        ssl_context=client_context(provisioning.tls_ca),
    )


def load_rules(settings: DmServerSettings, crls: CrlSource | None) -> Rules | None:
    """What is trusted and demanded of devices that are provisioned; None when none are.

    Raises:
        ConfigError: a setting is missing, or an anchor file is missing or broken.
    """
    provisioning = settings.provisioning()
    if provisioning is None:
        return None
    return Rules(
        server_id=settings.server_id,
        mode=settings.validation_mode,
        manufacturers=_anchors(provisioning.manufacturer_anchors, "manufacturer"),
        pvas=_anchors(provisioning.pva_anchors, "pva"),
        pva_id=settings.pva_id,
        crls=tuple if crls is None else crls.current,
        crl_required=settings.crl_required,
        ddf=load("M2MMobj"),
        ticket_margin=timedelta(seconds=settings.limits.ticket_margin_s),
    )


async def run(settings: DmServerSettings, *, stop: asyncio.Event | None = None) -> None:
    """Serve until told to stop.

    Raises:
        ActorError: a setting, file or address cannot be used.
    """
    provisioning, crls = settings.provisioning(), load_crls(settings)
    rules = load_rules(settings, crls)
    token = OperatorToken.load(settings.operator.token_file) if settings.operator.token_file is not None else None
    dm_tls = None if settings.dm.plain_http else server_context(*settings.tls_files())
    outward_tls, partner_tls = (None, None) if provisioning is None else _partner_tls(provisioning)
    if token is not None:
        _operator_tls(settings)  # so that a missing file is told before anything is opened
    limits = settings.limits
    store = open_store(settings)
    seal_key = open_seal_key(settings, store)
    trail = open_trail(settings, store)
    partners: Partners = NoPartners()
    if provisioning is not None and outward_tls is not None:
        partners = HttpPartners(
            pva=PartnerClient(provisioning.pva_url, outward_tls, limits.partner_timeout_s),
            shos={
                sho_id: PartnerClient(url, outward_tls, limits.partner_timeout_s)
                for sho_id, url in settings.shos.items()
            },
            trail=trail,
        )
    call_back = CallBack(
        store=store,
        seal_key=seal_key,
        trail=trail,
        server_id=settings.server_id,
        per_hour=limits.notifications_per_hour,
    )
    conductor = Conductor(
        store=store,
        trail=trail,
        partners=partners,
        rules=rules,
        call_back=call_back,
        silence=timedelta(seconds=limits.missing_after_s),
    )
    registry = SessionRegistry(
        max_sessions=limits.max_sessions, idle_s=limits.session_idle_s, dead_s=limits.session_dead_s
    )
    conversation = Conversation(
        registry=registry,
        admission=Admission(conductor=conductor, store=store, seal_key=seal_key),
        store=store,
        seal_key=seal_key,
        trail=trail,
        alerts=settings.alerts.rules(),
    )
    endpoint = DmEndpoint(
        announced=Announced(
            server_id=settings.server_id,
            max_message=limits.max_message_octets,
            max_object=limits.max_object_octets,
        ),
        registry=registry,
        conversation=conversation,
        store=store,
        seal_key=seal_key,
        unreadable=UnreadableTrace(trail, octets=settings.trace_octets),
    )
    if settings.trace_octets:
        _log.warning("trace.octets", reason="trace_octets: the trace file may hold credentials")
    dm_app = dm_application(endpoint, dm_url=settings.dm_url)
    add_pull_route(dm_app, store=store, key=seal_key, now=lambda: datetime.now(UTC))
    tidying = asyncio.create_task(conductor.tidy_for_ever(limits.report_retry_s))

    async def close() -> None:
        if crls is not None:
            await crls.stop()
        tidying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tidying
        await partners.close()
        trail.close()
        store.close()

    listeners = [
        Listener(name="dm", app=dm_app, host=settings.dm.host, port=settings.dm.port, ssl_context=dm_tls),
    ]
    if partner_tls is None:
        _log.info("provisioning.off", reason="no pva_url: devices are managed, orders cannot be opened")
    else:
        listener = _partner_listener(settings, partner_tls, store, trail, conductor)
        if settings.allowed_registrars:
            add_bootstrap_route(listener.app, BootstrapRequests(settings, store, seal_key, trail))
        listeners.append(listener)
    if token is not None:
        listeners.append(operator_listener(settings, store, seal_key, token))
    if crls is not None:
        await crls.start(lambda text: trail.note(text, step="9"))
    await serve(
        listeners,
        ready_file=settings.ready_file,
        on_stop=close,
        stop=stop,
    )


def _partner_tls(provisioning: ProvisioningSettings) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Towards PVA and home operators, and for home operators that come to us: mutual in both directions."""
    cert, key, ca = provisioning.tls_cert, provisioning.tls_key, provisioning.tls_ca
    return client_context(ca, cert=cert, key=key), server_context(cert, key, client_ca=ca)


def _partner_listener(
    settings: DmServerSettings, tls: ssl.SSLContext, store: Store, trail: Trail, conductor: Conductor
) -> Listener:
    """Where home operators open orders and deliver packages, and registration operators ask for bootstraps."""
    return Listener(
        name="partner",
        app=partner_application(
            store=store,
            trail=trail,
            conductor=conductor,
            shos=settings.shos,
            limits=settings.limits,
        ),
        host=settings.partner.host,
        port=settings.partner.port,
        ssl_context=tls,
    )


def _operator_tls(settings: DmServerSettings) -> ssl.SSLContext | None:
    """Plain HTTP on loopback, where the token cannot be overheard, TLS on any other address."""
    host = settings.operator.host
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    return None if loopback else server_context(*settings.tls_files())


def operator_listener(settings: DmServerSettings, store: Store, seal_key: SealingKey, token: OperatorToken) -> Listener:
    """The operator API."""
    return Listener(
        name="operator",
        app=operator_application(store=store, seal_key=seal_key, token=token, now=lambda: datetime.now(UTC)),
        host=settings.operator.host,
        port=settings.operator.port,
        ssl_context=_operator_tls(settings),
    )


def _anchors(path: Path, purpose: str) -> TrustAnchors:
    return TrustAnchors(certificates=read_chain(path, f"{purpose} anchors"), purpose=purpose)
