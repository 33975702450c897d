"""Is this platform to be trusted? Challenges, the checks of evidence against them, and the ticket (REQ-17 to REQ-23).

TR 33.812 §5.1.3.7.1 steps 9 to 11. RFC 9334 calls this party the verifier; the TRE is the attester, DPF and SHO are the
relying parties, and the ticket is the attestation result. The three modes of TR 33.812:

autonomous       no evidence: the certificates say which TRE it is, and a TRE of that type and version would not speak
                 if its own check at start had failed
semi-autonomous  signed evidence over the PVA's challenge: the TRE says what its own check came to
remote           the measurements themselves, bound by the evidence, and compared here one by one
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import StringConstraints

from actor_runtime.http import Base64, Body, Name
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.certificates import Role, TrustAnchors, ValidatedCertificate, load_der, validate
from mcim.errors import CertificateRefused, StatementInvalid
from mcim.evidence import Evidence, verify_evidence
from mcim.ticket import Ticket, issue_ticket
from mcim.vocabulary import ValidationMode
from pva.measurements import check_log
from pva.references import MAX_FACT, Reference
from pva.store import repository
from pva.store.counters import REFUSED as COUNTER_REFUSED
from pva.store.counters import ShownCounter, add_counted_decision
from pva.store.repository import ChallengeRow, Decision

STEP_CHECK: Final = "10"
STEP_DECISION: Final = "11"
CHALLENGE_LENGTH: Final = 32  # octets
MAX_CHAIN: Final = 8  # certificates
STATE_OK: Final = "ok"


Fact = Annotated[str, StringConstraints(max_length=MAX_FACT)]


class ChallengeBody(Body):
    """`POST /v1/challenge`."""

    req_id: uuid.UUID
    tre_id: Name
    mode: ValidationMode


class ValidateBody(Body):
    """`POST /v1/validate`. In autonomous mode `evidence` and `challenge` are empty, and type and version decide."""

    req_id: uuid.UUID
    m2me_id: Name
    tre_id: Name
    platform_cert: Base64
    attest_cert: Base64
    chain: list[Base64]
    evidence: Base64
    nonce: Base64
    challenge: Base64
    mode: ValidationMode
    audience: list[Name]
    log: Base64 | None = None  # remote mode: `measurement_log.encode_log`
    tre_type: Fact = ""  # as M2MMobj has it; counts by itself in autonomous mode alone
    tre_version: Fact = ""


class ModeNotOffered(Exception):
    """This PVA does not validate in the mode asked for, or the mode has no challenge."""


class TooManyChallenges(Exception):
    """The limit of outstanding challenges is reached."""


class NotTrusted(Exception):
    """The platform is not to be trusted. `reason` is the name of the check that failed, `detail` what it found."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Who signs tickets, and what counts as evidence."""

    pva_id: str
    signing_key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]  # leaf first
    manufacturers: TrustAnchors
    crls: Callable[[], tuple[x509.CertificateRevocationList, ...]]  # those at hand when it is called
    crl_required: bool
    modes: frozenset[ValidationMode]
    challenge_ttl: timedelta
    max_challenges: int
    ticket_ttl: timedelta


class ValidationDesk:
    """Gives challenges and decides. Equal requests get the decision made first."""

    def __init__(self, *, store: Store, trail: Trail, verifier: Verifier) -> None:
        self._store, self._trail, self._verifier = store, trail, verifier

    async def challenge(self, body: ChallengeBody, *, client: str, now: datetime) -> ChallengeRow:
        """A fresh challenge bound to TRE, request and mode; stored before it leaves.

        Raises:
            ModeNotOffered, TooManyChallenges.
        """
        if body.mode not in self._verifier.modes or body.mode is ValidationMode.AUTONOMOUS:
            raise ModeNotOffered(body.mode)
        row = ChallengeRow(
            challenge=secrets.token_bytes(CHALLENGE_LENGTH),
            req_id=str(body.req_id),
            tre_id=body.tre_id,
            mode=body.mode,
            client=client,
            expires_at=(now + self._verifier.challenge_ttl).replace(microsecond=0),
        )
        limit = self._verifier.max_challenges
        if not await self._store.write(lambda c: repository.add_challenge(c, row, now=now, limit=limit)):
            raise TooManyChallenges
        self._trail.note(f"challenge for {body.tre_id}, {body.mode}", step=STEP_CHECK, order=row.req_id)
        return row

    async def validate(self, body: ValidateBody, *, client: str, now: datetime, key: str = "") -> str:
        """Decide on a platform; a positive decision is a signed ticket. Either is on record before it leaves.

        `key` is the idempotency key. Without a challenge, in autonomous mode, it alone tells a repeated call from a new
        validation of the same platform when the ticket has aged.

        Raises:
            NotTrusted: and why, for the log; the platform learns nothing of it.
        """
        once = key if body.mode is ValidationMode.AUTONOMOUS else ""
        digest = hashlib.sha256(f"{client}\0{once}\0{body.model_dump_json()}".encode()).digest()
        known = await self._store.read(lambda c: repository.find_decision(c, digest))
        if known is None:
            known = await self._decide(body, digest, client, now)
        else:
            self._trail.note("same request again: the same decision", step=STEP_DECISION, order=str(body.req_id))
        if known.ticket is None:
            raise NotTrusted(known.reason, known.detail)
        return known.ticket

    async def _decide(self, body: ValidateBody, digest: bytes, client: str, now: datetime) -> Decision:
        req_id, ticket, shown, reason, detail = str(body.req_id), None, None, "", ""
        try:
            ticket, shown = await self._judge(body, digest, client, now)
        except NotTrusted as exc:
            reason, detail = exc.reason, exc.detail
        decision = Decision(
            request_digest=digest,
            req_id=req_id,
            m2me_id=body.m2me_id,
            tre_id=body.tre_id,
            mode=body.mode,
            client=client,
            trusted=ticket is not None,
            reason=reason,
            detail=detail,
            ticket=ticket,
            decided_at=now,
        )
        if shown is None:
            self._record_decision(body, decision)
            return await self._store.write(lambda c: repository.add_decision(c, decision))
        # The counter rises with the ticket or not at all, so a call repeated after a crash is not its own replay.
        made = await self._store.write(lambda c: add_counted_decision(c, decision, shown))
        risen = made.reason != COUNTER_REFUSED
        self._record(body, COUNTER_REFUSED, risen, ("REQ-18",), made.detail or str(shown.counter))
        self._record_decision(body, made)
        return made

    async def _judge(
        self, body: ValidateBody, digest: bytes, client: str, now: datetime
    ) -> tuple[str, ShownCounter | None]:
        """The ticket, if nobody was faster, and the counter that the evidence shows; autonomous mode has none."""
        self._check(body, "mode-offered", body.mode in self._verifier.modes, ("REQ-18",), body.mode.value)
        if body.mode is not ValidationMode.AUTONOMOUS:
            # The challenge goes first and is used up whatever follows: evidence gets one try (REQ-18).
            await self._use_challenge(body, digest, client, now)
        self._check(body, "audience-named", 1 <= len(body.audience) <= 4, ("REQ-19",))
        platform = self._certificate(body, body.platform_cert, Role.PLATFORM, "platform-certificate", now)
        attest = self._certificate(body, body.attest_cert, Role.ATTEST, "attest-certificate", now)
        self._check(body, "two-keys-for-two-purposes", platform.key_id != attest.key_id, ("REQ-45",))
        evidence = None
        if body.mode is ValidationMode.AUTONOMOUS:
            self._check(body, "no-evidence-without-challenge", not (body.evidence or body.challenge), ("REQ-18",))
        else:
            evidence = self._evidence(body, platform, attest)
        tre_type, version = _facts(body, evidence)
        reference = await self._store.read(lambda c: repository.find_reference(c, tre_type, version))
        if reference is None:
            raise self._failed(body, "reference-value", ("REQ-17",), f"{tre_type} {version}")
        self._check(body, "reference-value", True, ("REQ-17",), f"{tre_type} {version}")
        self._check_against(reference, body, evidence)
        ticket = Ticket(
            issuer=self._verifier.pva_id,
            audience=tuple(body.audience),
            tre_id=body.tre_id,
            m2me_id=body.m2me_id,
            req_id=str(body.req_id),
            nonce=body.nonce,
            platform_key_id=platform.key_id,
            attest_key_id=attest.key_id,
            mode=body.mode,
            tre_type=tre_type,
            tre_version=version,
            issued_at=now.replace(microsecond=0),
            expires_at=(now + self._verifier.ticket_ttl).replace(microsecond=0),
            ticket_id=str(uuid.uuid4()),
            capabilities=b"" if evidence is None else evidence.capabilities,
        )
        shown = None
        if evidence is not None:
            shown = ShownCounter(tre_id=body.tre_id, counter=evidence.counter, attest_key_id=attest.key_id)
        return issue_ticket(ticket, self._verifier.signing_key, self._verifier.chain), shown

    async def _use_challenge(self, body: ValidateBody, digest: bytes, client: str, now: datetime) -> None:
        row = await self._store.write(lambda c: repository.use_challenge(c, body.challenge, digest))
        if row is None:
            raise self._failed(body, "challenge-known-and-unused", ("REQ-18",))
        self._check(body, "challenge-known-and-unused", True, ("REQ-18",))
        self._check(body, "challenge-fresh", now < row.expires_at, ("REQ-18",))
        bound = (row.req_id, row.tre_id, row.mode, row.client) == (str(body.req_id), body.tre_id, body.mode, client)
        self._check(body, "challenge-binding", bound, ("REQ-18",))

    def _check_against(self, reference: Reference, body: ValidateBody, evidence: Evidence | None) -> None:
        """What this type and version must show: the mode is the PVA's demand, whatever the DPF asked for (T16)."""
        enough = reference.allows(body.mode)
        self._check(
            body, "mode-sufficient", enough, ("REQ-17",), f"{body.mode.value}, at least {reference.minimum_mode.value}"
        )
        if reference.requires_quote:  # T6: a program that says it is a TPM has no TPM to quote for it
            self._check(body, "quote-present", evidence is not None and evidence.quote is not None, ("REQ-17",))
        if body.mode is not ValidationMode.REMOTE or evidence is None:
            return
        findings = check_log(body.log, evidence, reference)
        for finding in findings:
            self._record(body, finding.name, not finding.fault, ("REQ-17", "REQ-18"), finding.fault)
        failed = [finding for finding in findings if finding.fault]
        if failed:
            raise NotTrusted(failed[0].name, "; ".join(f"{each.name}: {each.fault}" for each in failed))

    def _certificate(
        self, body: ValidateBody, octets: bytes, role: Role, name: str, now: datetime
    ) -> ValidatedCertificate:
        requirements = ("REQ-20", "REQ-46")
        try:
            if len(body.chain) > MAX_CHAIN:
                raise CertificateRefused("malformed", "chain too long")
            found = validate(
                load_der(octets),
                [load_der(other) for other in body.chain],
                self._verifier.manufacturers,
                role,
                now,
                identity=body.tre_id,
                crls=self._verifier.crls(),
                require_crl=self._verifier.crl_required,
            )
        except CertificateRefused as exc:
            raise self._failed(body, name, requirements, str(exc)) from exc
        self._check(body, name, found.m2me_id == body.m2me_id, requirements, f"key {found.key_id.hex()}")
        return found

    def _evidence(self, body: ValidateBody, platform: ValidatedCertificate, attest: ValidatedCertificate) -> Evidence:
        try:
            if not isinstance(attest.public_key, ec.EllipticCurvePublicKey):
                raise StatementInvalid("attestation keys are EC")
            evidence = verify_evidence(body.evidence, attest.public_key)
        except StatementInvalid as exc:
            raise self._failed(body, "evidence-signature", ("REQ-18",), str(exc)) from exc
        told = (body.tre_type or evidence.tre_type, body.tre_version or evidence.tre_version)
        for name, holds in (
            ("evidence-signature", True),
            ("evidence-challenge", hmac.compare_digest(evidence.challenge, body.challenge)),
            ("evidence-nonce", hmac.compare_digest(evidence.nonce, body.nonce)),
            ("evidence-request", evidence.req_id == body.req_id),
            ("evidence-mode", evidence.mode == body.mode),
            ("evidence-platform-key", evidence.platform_key_id == platform.key_id),
            ("evidence-identities", (evidence.m2me_id, evidence.tre_id) == (body.m2me_id, body.tre_id)),
            ("evidence-tre-facts", (evidence.tre_type, evidence.tre_version) == told),
        ):
            self._check(body, name, holds, ("REQ-18",))
        self._check(body, "tre-state", evidence.tre_state == STATE_OK, ("REQ-17",), evidence.tre_state)
        return evidence

    def _record_decision(self, body: ValidateBody, decision: Decision) -> None:
        self._trail.check("platform-trusted", decision.trusted, req=("REQ-17", "REQ-23"), step=STEP_DECISION,
                          order=str(body.req_id), detail=decision.reason)  # fmt: skip

    def _check(
        self, body: ValidateBody, name: str, passed: bool, requirements: tuple[str, ...], detail: str = ""
    ) -> None:
        self._record(body, name, passed, requirements, detail)
        if not passed:
            raise NotTrusted(name, detail)

    def _failed(self, body: ValidateBody, name: str, requirements: tuple[str, ...], detail: str = "") -> NotTrusted:
        self._record(body, name, False, requirements, detail)
        return NotTrusted(name, detail)

    def _record(self, body: ValidateBody, name: str, passed: bool, requirements: tuple[str, ...], detail: str) -> None:
        self._trail.check(name, passed, req=requirements, step=STEP_CHECK, detail=detail, order=str(body.req_id))


def _facts(body: ValidateBody, evidence: Evidence | None) -> tuple[str, str]:
    """Type and version: what the TRE signed; in autonomous mode what the DPF read."""
    return (body.tre_type, body.tre_version) if evidence is None else (evidence.tre_type, evidence.tre_version)
