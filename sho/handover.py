"""Hand-over: PK_D and the PVA's ticket come in, a signed package for that TRE goes out (REQ-24 to REQ-31).

The SHO takes nothing on the DPF's word: it validates the platform certificate and the ticket itself (REQ-27).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from actor_runtime.http import Base64, Body, Name, OrderId
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.certificates import Role, ValidatedCertificate, load_der, validate
from mcim.content import McimContent
from mcim.data import encode_data
from mcim.errors import CertificateRefused, StatementInvalid
from mcim.mcim_object import fresh_keys, seal_mcim
from mcim.package import build_package
from mcim.package_header import PackageHeader
from mcim.ticket import Ticket, ticket_digest, verify_ticket
from mcim.vocabulary import AlgorithmId, ContainerState, Operation, Suite, Tag
from sho.checks import Checks, RequestRefused
from sho.identity import ShoIdentity, TrustStore
from sho.store import repository
from sho.store.repository import HandoverRow, NewHandover
from sho.subscriptions import Vault

STEP: Final = "12"
CONTAINER: Final = "xml"  # XML-Enc in XML-Sig, the one container made here
ALGORITHM: Final = "milenage"
REVISION: Final = 1  # of a new MCIM
CLOCK_SKEW: Final = timedelta(minutes=5)  # a TRE's clock may be that far behind ours
MAX_SEQUENCE: Final = 2**63 - 1


class HandoverBody(Body):
    """`POST /v1/handover`."""

    req_id: uuid.UUID
    order_id: OrderId
    m2me_id: Name
    tre_id: Name
    tre_type: str = ""  # REQ-47, REQ-49: nothing here depends on it
    suites: list[str]
    containers: list[str]
    algorithms: list[str]
    trust_anchors: list[str]
    platform_cert: Base64
    chain: list[Base64]
    nonce: Base64
    next_sequence: int
    ticket: str
    dpf_id: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What the DPF gets; it cannot open the package."""

    package: bytes = field(repr=False)
    mcim_id: str
    sequence: int
    package_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverPolicy:
    """What the operator has decided."""

    suites: frozenset[Suite]
    require_order: bool
    validity: timedelta
    sqn_ahead: int  # SQN, not steps of SEQ


class HandoverDesk:
    """Answers hand-overs. Equal requests get octet for octet the same package."""

    def __init__(
        self,
        *,
        store: Store,
        vault: Vault,
        trail: Trail,
        identity: ShoIdentity,
        trust: TrustStore,
        policy: HandoverPolicy,
    ) -> None:
        self._store, self._vault, self._trail = store, vault, trail
        self._identity, self._trust, self._policy = identity, trust, policy
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def hand_over(self, body: HandoverBody, *, client_names: frozenset[str], now: datetime) -> Delivery:
        """Check everything, allocate once, and make or repeat the package.

        Raises:
            RequestRefused: a check failed; nothing was allocated.
        """
        checks = Checks(self._trail, step=STEP, order=body.order_id)
        key = (body.m2me_id, str(body.req_id))
        # One request at a time for the same key: a package is never signed twice, not even to throw one away.
        lock = self._locks.get(key) or asyncio.Lock()
        self._locks[key] = lock
        async with lock:
            return await self._hand_over(body, checks, client_names, now)

    async def _hand_over(
        self, body: HandoverBody, checks: Checks, client_names: frozenset[str], now: datetime
    ) -> Delivery:
        checks.require("dpf-identity", body.dpf_id in client_names, ("REQ-24",), code="client-not-allowed")
        checks.require(
            "request-form",
            16 <= len(body.nonce) <= 64 and 1 <= body.next_sequence <= MAX_SEQUENCE and len(body.chain) <= 8,
            ("REQ-24",),
            code="malformed-request",
            status=400,
        )
        await self._check_order(body, checks)
        platform = self._check_platform(body, checks, now)
        ticket = self._check_ticket(body, platform, checks, now)
        suite = self._choose_suite(body, platform, checks)

        new = NewHandover(
            m2me_id=body.m2me_id,
            req_id=str(body.req_id),
            order_id=body.order_id,
            dpf_id=body.dpf_id,
            tre_id=body.tre_id,
            platform_key_id=platform.key_id,
            attest_key_id=ticket.attest_key_id,
            nonce=body.nonce,
            suite=suite,
            next_sequence=body.next_sequence,
            mcim_id=str(uuid.uuid4()),
            transaction_id=str(uuid.uuid4()),
            not_before=(now - CLOCK_SKEW).replace(microsecond=0),
            not_after=(now + self._policy.validity).replace(microsecond=0),
            ticket_digest=ticket_digest(body.ticket),
        )
        row = await self._store.write(lambda c: repository.allocate(c, new, sqn_ahead=self._policy.sqn_ahead, now=now))
        if row is None:
            raise checks.failed(
                "subscription-available", ("REQ-30",), code="no-subscription", detail="none is free", status=409
            )
        if row.mcim_id == new.mcim_id:
            checks.passed("subscription-available", ("REQ-30",), f"sequence {row.sequence}")
            self._trail.state(
                "subscription", repository.FREE, repository.ALLOCATED, step=STEP, order=body.order_id,
                detail=f"MCIM {row.mcim_id}",
            )  # fmt: skip
        self._check_same_request(body, platform, row, checks)
        return await self._package(row, platform, checks)

    async def _check_order(self, body: HandoverBody, checks: Checks) -> None:
        order = await self._store.read(lambda c: repository.find_order(c, body.order_id))
        known = order is not None and order["orderId"] == body.order_id and order["m2meId"] == body.m2me_id
        if known or self._policy.require_order:
            checks.require("order-is-ours", known, ("REQ-13",), code="order-unknown")

    def _check_platform(self, body: HandoverBody, checks: Checks, now: datetime) -> ValidatedCertificate:
        try:
            leaf, chain = load_der(body.platform_cert), [load_der(octets) for octets in body.chain]
            platform = validate(
                leaf,
                chain,
                self._trust.manufacturers,
                Role.PLATFORM,
                now,
                identity=body.tre_id,
                crls=self._trust.crls,
                require_crl=self._trust.crl_required,
            )
        except CertificateRefused as exc:
            raise checks.failed(
                "platform-certificate", ("REQ-20", "REQ-24", "REQ-27"), code="platform-certificate-refused",
                detail=str(exc),
            ) from exc  # fmt: skip
        checks.passed("platform-certificate", ("REQ-20", "REQ-24", "REQ-27"), f"PK_D {platform.key_id.hex()}")
        checks.require(
            "platform-certificate-m2me", platform.m2me_id == body.m2me_id, ("REQ-14", "REQ-27"),
            code="platform-certificate-refused",
        )  # fmt: skip
        return platform

    def _check_ticket(
        self, body: HandoverBody, platform: ValidatedCertificate, checks: Checks, now: datetime
    ) -> Ticket:
        requirements = ("REQ-19", "REQ-24", "REQ-27")
        try:
            ticket = verify_ticket(
                body.ticket,
                self._trust.pvas,
                now,
                audience=self._identity.sho_id,
                pva_id=self._trust.pva_id,
                crls=self._trust.crls,
                require_crl=self._trust.crl_required,
            )
        except StatementInvalid as exc:
            raise checks.failed("pva-ticket", requirements, code="ticket-refused", detail=str(exc)) from exc
        checks.passed("pva-ticket", requirements, f"by {ticket.issuer}")
        try:
            ticket.check_binding(
                tre_id=body.tre_id,
                req_id=str(body.req_id),
                nonce=body.nonce,
                platform_key_id=platform.key_id,
            )
        except StatementInvalid as exc:
            raise checks.failed("pva-ticket-binding", requirements, code="ticket-refused", detail=str(exc)) from exc
        checks.require("pva-ticket-m2me", ticket.m2me_id == body.m2me_id, requirements, code="ticket-refused")
        checks.passed("pva-ticket-binding", requirements, "TRE, request, nonce and PK_D are those of this hand-over")
        return ticket

    def _choose_suite(self, body: HandoverBody, platform: ValidatedCertificate, checks: Checks) -> Suite:
        checks.require(
            "container", CONTAINER in body.containers, ("REQ-31",), code="container-not-acceptable", status=422
        )
        checks.require(
            "algorithm", ALGORITHM in body.algorithms, ("REQ-30",), code="algorithm-not-acceptable", status=422
        )
        anchors = {anchor.lower() for anchor in body.trust_anchors}
        checks.require(
            "tre-trusts-our-root", bool(anchors & self._identity.issuer_key_ids), ("REQ-44",),
            code="no-common-trust-anchor", status=422,
        )  # fmt: skip
        offered = [suite for label in body.suites if (suite := Suite.from_label(label)) is not None]
        suite = next((s for s in offered if s in self._policy.suites and _fits(s, platform)), None)
        if suite is None:
            raise checks.failed(
                "suite",
                ("REQ-39",),
                code="suite-not-acceptable",
                detail="none of the TRE's suites is allowed",
                status=422,
            )
        checks.passed("suite", ("REQ-39",), suite.label)
        return suite

    def _check_same_request(
        self, body: HandoverBody, platform: ValidatedCertificate, row: HandoverRow, checks: Checks
    ) -> None:
        """A second package for one request would be a second signature over one (ReqId, nonce)."""
        same = (
            hmac.compare_digest(row.nonce, body.nonce)
            and row.platform_key_id == platform.key_id
            and (row.tre_id, row.order_id, row.dpf_id) == (body.tre_id, body.order_id, body.dpf_id)
            and row.state in (repository.ALLOCATED, repository.PACKAGED)
        )
        checks.require(
            "one-package-per-request", same, ("REQ-52",), code="request-already-served", status=409,
            detail="" if same else f"state {row.state}",
        )  # fmt: skip

    async def _package(self, row: HandoverRow, platform: ValidatedCertificate, checks: Checks) -> Delivery:
        if row.package_sealed is None:
            subscription = await self._store.read(lambda c: repository.get_subscription(c, row.subscription_id))
            # RSA, AES and XML-Sig: some milliseconds that the event loop need not wait for.
            package = await asyncio.to_thread(self._make_package, row, subscription, platform)
            sealed, digest = self._vault.seal_package(package, row.mcim_id), hashlib.sha256(package).digest()
            row = await self._store.write(lambda c: repository.keep_package(c, row.id, sealed=sealed, digest=digest))
            self._trail.message(
                step=STEP, direction="SHO→DPF", order=row.order_id, octets=len(package),
                summary=f"package for {row.tre_id}, suite {row.suite.label}, sequence {row.sequence}",
            )  # fmt: skip
            checks.passed("package-made-and-kept", ("REQ-29", "REQ-37"), f"SHA-256 {digest.hex()}")
        else:
            self._trail.note("same request again: the same package", step=STEP, order=row.order_id)
        if row.package_sealed is None or row.package_hash is None:
            raise RequestRefused("internal-error", "no package is stored", status=500)
        return Delivery(
            package=self._vault.open_package(row.package_sealed, row.mcim_id),
            mcim_id=row.mcim_id,
            sequence=row.sequence,
            package_hash=row.package_hash,
        )

    def _make_package(
        self, row: HandoverRow, subscription: repository.SubscriptionRow, platform: ValidatedCertificate
    ) -> bytes:
        credential = self._vault.open(subscription.sealed)
        mcim_id, transaction_id = uuid.UUID(row.mcim_id), uuid.UUID(row.transaction_id)
        content = McimContent(
            mcim_id=mcim_id,
            sho_id=self._identity.sho_id,
            tre_id=row.tre_id,
            registration_nonce=row.nonce,
            sequence=row.sequence,
            not_before=row.not_before,
            not_after=row.not_after,
            transaction_id=transaction_id,
            operation=Operation.INSTALL,
            imsi=credential.imsi,
            k=credential.k,
            algorithm=AlgorithmId.MILENAGE,
            opc=credential.opc,
            sqn_init=row.sqn_init,
            amf=subscription.amf,
            initial_state=ContainerState.ACTIVATED,  # the AuC lets it in only after the receipt all the same (REQ-68)
        )
        mcim_object = seal_mcim(
            encode_data(Tag.MCIM, content.to_payload(), REVISION),
            suite=row.suite,
            recipient=_recipient(platform),
            keys=fresh_keys(row.suite, os.urandom),
        )
        header = PackageHeader(
            transaction_id=transaction_id,
            sequence=row.sequence,
            registration_nonce=row.nonce,
            m2me_id=row.m2me_id,
            tre_id=row.tre_id,
            platform_key_id=row.platform_key_id,
            sho_id=self._identity.sho_id,
            dpf_id=row.dpf_id,
            operation=Operation.INSTALL,
            mcim_id=mcim_id,
            suite=row.suite,
            not_before=row.not_before,
            not_after=row.not_after,
            ticket_digest=row.ticket_digest,
            auth_mode="none",
        )
        return build_package(
            header,
            mcim_object,
            recipient_public_key=_recipient(platform),
            signing_key=self._identity.signing_key,
            signer_chain=self._identity.chain,
        )


def _recipient(platform: ValidatedCertificate) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    key = platform.public_key
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise RequestRefused("platform-certificate-refused", "PK_D is neither RSA nor EC")
    return key


def _fits(suite: Suite, platform: ValidatedCertificate) -> bool:
    elliptic = suite in (Suite.EC_CBC_256, Suite.EC_GCM_256)
    return elliptic == isinstance(platform.public_key, ec.EllipticCurvePublicKey)
