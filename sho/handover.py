"""Hand-over: PK_D and the PVA's ticket come in, a signed package for that TRE goes out (REQ-24 to REQ-31, REQ-70).

Here are the order of the checks and the allocation; what is checked of a platform is in `platform_checks`, what both
sides can do in `negotiation`, what goes into a package in `packaging`.
"""

from __future__ import annotations

import asyncio
import hmac
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from weakref import WeakValueDictionary

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from actor_runtime.http import Base64, Body, Name, OrderId, to_base64
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.certificates import Reason, ValidatedCertificate
from mcim.errors import CertificateRefused
from mcim.ticket import Ticket, ticket_digest
from mcim.vocabulary import Container, Operation, Suite
from sho import platform_checks
from sho.checks import Checks, RequestRefused
from sho.identity import ShoIdentity
from sho.negotiation import acceptable_suites, choose_container, known_algorithms
from sho.packaging import STEP, Delivery, PackageMaker
from sho.platform_checks import PlatformChecks, PlatformClaim, platform_key
from sho.store import handovers, jobs, prepared, repository
from sho.store.handovers import NewHandover, NotPossible
from sho.store.jobs import JobRow
from sho.store.repository import HandoverRow, Terms
from sho.subscriptions import KEY_LENGTHS

CLOCK_SKEW: Final = timedelta(minutes=5)  # a TRE's clock may be that far behind ours
MAX_CHAIN: Final = 8  # certificates above the platform certificate
MAX_OFFER: Final = 32  # suites, containers or algorithms of one TRE
_OPERATIONS: Final = {each.label: each for each in Operation if each is not Operation.RELEASE}


class HandoverBody(Body):
    """`POST /v1/handover`."""

    req_id: uuid.UUID
    order_id: OrderId
    m2me_id: Name
    tre_id: Name
    tre_type: str = ""  # REQ-47, REQ-49: nothing here depends on it
    tre_version: str = ""
    suites: list[Name]  # without spaces: the digest that the TRE attested is over them joined by spaces (T16)
    containers: list[Name]
    algorithms: list[Name]
    trust_anchors: list[Name]
    platform_cert: Base64
    chain: list[Base64]
    nonce: Base64
    next_sequence: int
    ticket: str
    dpf_id: Name
    operation: str = Operation.INSTALL.label

    def claim(self) -> PlatformClaim:
        """What is to be checked of the platform."""
        return PlatformClaim(
            req_id=str(self.req_id),
            m2me_id=self.m2me_id,
            tre_id=self.tre_id,
            dpf_id=self.dpf_id,
            certificates=(self.platform_cert, *self.chain),
            nonce=self.nonce,
            ticket=self.ticket,
            suites=tuple(self.suites),
            containers=tuple(self.containers),
            algorithms=tuple(self.algorithms),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """The package comes later; the DPF may ask after the job (REQ-26)."""

    job_id: str
    retry_after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverPolicy:
    """What the operator has decided."""

    suites: frozenset[Suite]
    containers: frozenset[Container]
    require_order: bool
    validity: timedelta
    sqn_ahead: int  # SQN, not steps of SEQ
    use_prepared: bool = True
    answer: Literal["at-once", "later", "approved"] = "at-once"
    later_delay: timedelta = timedelta()


def package_members(delivery: Delivery) -> dict[str, object]:
    """A package as it stands in a JSON body."""
    row = delivery.row
    members: dict[str, object] = {
        "package": to_base64(delivery.package),
        "mcimId": row.mcim_id,
        "sequence": row.sequence,
        "packageHash": delivery.package_hash.hex(),
        "container": row.container.value,
        "operation": row.operation.label,
    }
    if row.token_ref is not None:
        members["tokenRef"] = row.token_ref
    return members


class HandoverDesk:
    """Answers hand-overs. Equal requests get octet for octet the same package."""

    def __init__(
        self,
        *,
        store: Store,
        trail: Trail,
        identity: ShoIdentity,
        platforms: PlatformChecks,
        packages: PackageMaker,
        policy: HandoverPolicy,
    ) -> None:
        self._store, self._trail, self._identity = store, trail, identity
        self._platforms, self._packages, self._policy = platforms, packages, policy
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def hand_over(
        self, body: HandoverBody, *, client_names: frozenset[str], now: datetime
    ) -> Delivery | Deferred:
        """Check everything, allocate once, and make or repeat the package, now or later as the policy says.

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
    ) -> Delivery | Deferred:
        checks.require("dpf-identity", body.dpf_id in client_names, ("REQ-24",), code="client-not-allowed")
        operation = self._check_form(body, checks)
        terms = await self._check_order(body, operation, checks)
        claim = body.claim()
        platform = await self._check_platform(claim, checks, now)
        ticket = self._platforms.check_ticket(claim, platform, checks, now)
        new = self._new_handover(body, operation, terms, platform, ticket, checks, now)
        row, job, made_now = await self._allocate(new, claim, checks, now)
        if made_now:
            checks.passed("subscription-available", ("REQ-30",), f"{operation.label}, sequence {row.sequence}")
            if new.makes_mcim:
                self._trail.state(
                    "subscription", repository.FREE if row.prepared_id is None else repository.PREPARED,
                    repository.ALLOCATED, step=STEP, order=body.order_id, detail=f"MCIM {row.mcim_id}",
                )  # fmt: skip
        self._check_same_request(body, platform, row, checks)
        if job is None or row.package_sealed is not None:
            return await self._packages.package(row, platform, checks)
        if job.state == jobs.REFUSED:
            raise checks.failed(
                "package-approved", ("REQ-26",), code=job.code or "refused", detail="the job was refused"
            )
        if made_now:
            self._trail.note(f"the package comes later: job {job.id}", step=STEP, order=body.order_id)
        return Deferred(job_id=job.id, retry_after_s=max(1, int((job.due_at - now).total_seconds())))

    @staticmethod
    def _check_form(body: HandoverBody, checks: Checks) -> Operation:
        operation = _OPERATIONS.get(body.operation)
        checks.require(
            "request-form",
            operation is not None
            and 16 <= len(body.nonce) <= 64
            and 1 <= body.next_sequence <= handovers.MAX_SEQUENCE
            and len(body.chain) <= MAX_CHAIN
            and max(map(len, (body.suites, body.containers, body.algorithms, body.trust_anchors))) <= MAX_OFFER,
            ("REQ-24",),
            code="malformed-request",
            status=400,
        )
        return operation or Operation.INSTALL

    async def _check_order(self, body: HandoverBody, operation: Operation, checks: Checks) -> Terms:
        def find(connection: Connection) -> tuple[dict[str, object] | None, Terms | None]:
            return repository.find_order(connection, body.order_id), repository.terms_of(connection, body.order_id)

        order, terms = await self._store.read(find)
        known = order is not None and order["orderId"] == body.order_id and order["m2meId"] == body.m2me_id
        if known or self._policy.require_order:
            checks.require("order-is-ours", known, ("REQ-13",), code="order-unknown")
        terms = terms if known and terms is not None else Terms()
        checks.require(
            "order-operation", operation is terms.operation, ("REQ-13", "REQ-70"), code="operation-not-ordered",
            status=409,
        )  # fmt: skip
        return terms

    async def _check_platform(self, claim: PlatformClaim, checks: Checks, now: datetime) -> ValidatedCertificate:
        try:
            platform = self._platforms.check_certificate(claim, checks, now)
        except RequestRefused as exc:
            if isinstance(exc.__cause__, CertificateRefused) and exc.__cause__.reason == Reason.REVOKED:
                await self._drop_prepared(claim)
            raise
        revoked = await self._store.read(lambda c: prepared.is_revoked(c, claim.tre_id, platform.key_id))
        checks.require("platform-not-revoked", not revoked, ("REQ-65",), code="platform-revoked")
        return platform

    async def _drop_prepared(self, claim: PlatformClaim) -> None:
        """Revoked between preparation and delivery: what was made for it in advance goes (REQ-65)."""

        def drop(connection: Connection) -> int:
            rows = prepared.ready_objects(connection)
            keys = {row.platform_key_id for row in rows if row.tre_id == claim.tre_id}
            known = [prepared.find_platform(connection, key) for key in keys]
            leaf = platform_checks.to_base64(claim.certificates[:1])
            return sum(
                prepared.drop_for_key(connection, each.key_id)
                for each in known
                if each is not None and each.certificates[:1] == leaf
            )

        dropped = await self._store.write(drop)
        if dropped:
            self._trail.note(f"{dropped} prepared object(s) of {claim.tre_id} dropped: revoked", step=STEP)

    def _new_handover(
        self,
        body: HandoverBody,
        operation: Operation,
        terms: Terms,
        platform: ValidatedCertificate,
        ticket: Ticket,
        checks: Checks,
        now: datetime,
    ) -> NewHandover:
        suites, container, algorithms = self._negotiate(body, operation, platform, checks)
        target = terms.mcim_id if terms.mcim_id is not None else str(uuid.uuid4())
        return NewHandover(
            m2me_id=body.m2me_id,
            req_id=str(body.req_id),
            order_id=body.order_id,
            dpf_id=body.dpf_id,
            tre_id=body.tre_id,
            platform_key_id=platform.key_id,
            attest_key_id=ticket.attest_key_id,
            nonce=body.nonce,
            suite=suites[0],
            next_sequence=body.next_sequence,
            mcim_id=target,
            transaction_id=str(uuid.uuid4()),
            not_before=(now - CLOCK_SKEW).replace(microsecond=0),
            not_after=(now + self._policy.validity).replace(microsecond=0),
            ticket_digest=ticket_digest(body.ticket),
            operation=operation,
            container=container,
            algorithms=algorithms,
            prepared_suites=frozenset(suites) if self._policy.use_prepared else None,
        )

    def _negotiate(
        self, body: HandoverBody, operation: Operation, platform: ValidatedCertificate, checks: Checks
    ) -> tuple[list[Suite], Container, tuple[str, ...]]:
        container = choose_container(body.containers, self._policy.containers, platform_key(platform))
        if container is None:
            raise checks.failed(
                "container", ("REQ-31",), code="container-not-acceptable", detail="none is made here", status=422
            )
        checks.passed("container", ("REQ-31",), container.value)
        algorithms = known_algorithms(body.algorithms)
        checks.require(
            "algorithm", bool(algorithms) or not operation.carries_object, ("REQ-30",),
            code="algorithm-not-acceptable", status=422,
        )  # fmt: skip
        anchors = {anchor.lower() for anchor in body.trust_anchors}
        checks.require(
            "tre-trusts-our-root", bool(anchors & self._identity.issuer_key_ids), ("REQ-44",),
            code="no-common-trust-anchor", status=422,
        )  # fmt: skip
        suites = acceptable_suites(body.suites, self._policy.suites, platform_key(platform))
        if not suites:
            raise checks.failed(
                "suite", ("REQ-39",), code="suite-not-acceptable", detail="none of the TRE's suites is allowed",
                status=422,
            )  # fmt: skip
        checks.passed("suite", ("REQ-39",), suites[0].label)
        return suites, container, algorithms

    async def _allocate(
        self, new: NewHandover, claim: PlatformClaim, checks: Checks, now: datetime
    ) -> tuple[HandoverRow, JobRow | None, bool]:
        """Subscription, sequence number and job in one transaction."""

        def allocate(connection: Connection) -> tuple[HandoverRow | None, JobRow | None, bool, bool]:
            known = repository.find_handover(connection, new.m2me_id, new.req_id)
            if known is None and repository.order_is_over(connection, new.order_id):
                raise NotPossible("order-over", "the order was fulfilled or refused")  # one order, one MCIM
            row = handovers.allocate(connection, new, sqn_ahead=self._policy.sqn_ahead, now=now)
            if row is None:
                other = repository.choose_free(connection, tuple(KEY_LENGTHS), now)
                return None, None, False, other is not None
            later = self._policy.answer == "later"
            if known is None and self._policy.answer != "at-once":
                jobs.add(
                    connection,
                    handover_id=row.id,
                    dpf_id=new.dpf_id,
                    certificates=platform_checks.to_base64(claim.certificates),
                    state=jobs.WAITING if later else jobs.APPROVAL,
                    due_at=now + self._policy.later_delay if later else now,
                    now=now,
                )
            return row, jobs.find_for_handover(connection, row.id), known is None, False

        try:
            try:
                row, job, made_now, other_algorithm = await self._store.write(allocate)
            except IntegrityError:  # another process took the same request at once; now it is found
                row, job, made_now, other_algorithm = await self._store.write(allocate)
        except NotPossible as exc:
            raise checks.failed(
                "operation-possible", ("REQ-70",), code=exc.code, detail=str(exc),
                status=422 if exc.code == "algorithm-not-acceptable" else 409,
            ) from exc  # fmt: skip
        if row is None and other_algorithm:
            raise checks.failed(
                "algorithm", ("REQ-30",), code="algorithm-not-acceptable", status=422,
                detail="every free subscription has another algorithm than the TRE lists",
            )  # fmt: skip
        if row is None:
            raise checks.failed(
                "subscription-available", ("REQ-30",), code="no-subscription", detail="none is free", status=409
            )
        return row, job, made_now

    def _check_same_request(
        self,
        body: HandoverBody,
        platform: ValidatedCertificate,
        row: HandoverRow,
        checks: Checks,
    ) -> None:
        """A second package for one request would be a second signature over one (ReqId, nonce). Of the same order it is
        for the same operation.
        """
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
