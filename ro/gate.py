"""The gate: no authentication vectors before the PVA vouches for the platform (REQ-17, TR 33.812 §5.1.3.7.1 step 3).

An option. The order is that of claim 1 of US 9 826 335: the platform is validated before it gets any connectivity.
The RO asks the PVA for a challenge, the TRE signs evidence over it, the PVA's ticket names this RO as its audience.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from cryptography import x509
from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from actor_runtime.http import (
    Base64,
    Body,
    Name,
    PartnerClient,
    PartnerRefused,
    PartnerUnavailable,
    to_base64,
)
from actor_runtime.trail import Trail
from home_network.sessions import AttachBusy, AttachRefused
from mcim.certificates import TrustAnchors, load_der
from mcim.errors import MCIMError
from mcim.key_id import key_id_of
from mcim.ticket import verify_ticket
from mcim.vocabulary import ValidationMode

MAX_CHAIN: Final = 8  # certificates
ASKED_PER_IDENTITY: Final = 4  # challenges of the PVA for one PCID within a window
WINDOW_S: Final = 60.0  # after it a device is served again, whatever strangers did with its PCID
LONGEST_LIFE_S: Final = 3600.0  # of a challenge, whatever the PVA says
_REQ: Final = ("REQ-17",)
_STEP: Final = "3"


class PlatformBody(Body):
    """Member `platform` of `POST /v1/attach/{session}`: evidence over the challenge, and the certificates it needs."""

    m2me_id: Name
    nonce: Base64
    evidence: Base64
    platform_cert: Base64
    attest_cert: Base64
    chain: Annotated[list[Base64], Field(max_length=MAX_CHAIN)]
    log: Base64 = b""  # measurement log, in remote mode


class _Challenge(Body):
    challenge: Base64
    exp: AwareDatetime


class _Ticket(Body):
    ticket: Annotated[str, StringConstraints(max_length=64 * 1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """Whose tickets open the gate."""

    ro_id: str  # audience
    anchors: TrustAnchors
    pva_id: str | None
    mode: ValidationMode
    session_ttl_s: float
    max_challenges: int  # outstanding at the PVA, which others ask as well
    crls: Callable[[], Sequence[x509.CertificateRevocationList]]  # those at hand when it is called
    crl_required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An attach that waits for evidence."""

    imsi: str = field(repr=False)
    vno: str
    tre_id: str
    req_id: UUID
    challenge: bytes
    expires: float  # monotonic seconds


class ValidationGate:
    """Attaches that wait for evidence live in memory, bounded in number and time, and are used once.

    Whoever knows the digits of a PCID can have the PVA asked, so that is bounded too, for each PCID and in all (T12).
    """

    def __init__(
        self, rules: GateRules, pva: PartnerClient, trail: Trail, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rules, self._pva, self._trail, self._clock = rules, pva, trail, clock
        self._waiting: OrderedDict[str, Asked] = OrderedDict()  # oldest first
        self._at_pva: OrderedDict[str, float] = OrderedDict()  # session: until when its challenge takes a place there
        self._recent: deque[tuple[float, str]] = deque()  # when and for which PCID the PVA was asked
        self._recent_of: Counter[str] = Counter()

    @property
    def mode(self) -> ValidationMode:
        """What evidence is asked for."""
        return self._rules.mode

    async def ask(self, imsi: str, *, vno: str, tre_id: str, req_id: UUID, now: datetime) -> tuple[str, bytes]:
        """Get a challenge of the PVA for a TRE; returns the session and the challenge.

        Raises:
            AttachBusy: too many were asked for, or the PVA does not answer: never trusted by default.
            AttachRefused: the PVA gives no challenge for it.
        """
        session = secrets.token_urlsafe(18)
        self._count(session, imsi)
        body = {"reqId": str(req_id), "treId": tre_id, "mode": self._rules.mode.value}
        answer = await self._post("/v1/challenge", body, key=f"{session}:challenge")
        try:
            given = _Challenge.model_validate(answer)
        except ValidationError as exc:
            raise AttachBusy from exc
        life = min((given.exp - now).total_seconds(), LONGEST_LIFE_S)
        self._at_pva[session] = self._clock() + max(life, self._rules.session_ttl_s)
        self._waiting[session] = Asked(
            imsi=imsi,
            vno=vno,
            tre_id=tre_id,
            req_id=req_id,
            challenge=given.challenge,
            expires=self._clock() + self._rules.session_ttl_s,
        )
        return session, given.challenge

    def network_of(self, session: str) -> str | None:
        """The visited network of the attach that waits under this session."""
        asked = self._waiting.get(session)
        return asked.vno if asked is not None else None

    def take(self, session: str) -> Asked:
        """The attach that waits under this session, which is used up by this.

        Raises:
            AttachRefused: there is none.
        """
        self._expire()
        asked = self._waiting.pop(session, None)
        if asked is None:
            raise AttachRefused("no such session at the gate")
        return asked

    async def judge(self, session: str, asked: Asked, body: PlatformBody, now: datetime) -> str:
        """Have the PVA decide; returns the M2ME it vouched for.

        Raises:
            AttachRefused: the platform is not to be trusted, or the ticket is not about this attach.
            AttachBusy: the PVA does not answer.
        """
        self._at_pva.pop(session, None)  # the PVA uses the challenge up, whatever comes of it
        answer = await self._post("/v1/validate", self._question(asked, body), key=f"{session}:validate")
        try:
            ticket = verify_ticket(
                _Ticket.model_validate(answer).ticket,
                self._rules.anchors,
                now,
                audience=self._rules.ro_id,
                pva_id=self._rules.pva_id,
                crls=self._rules.crls(),
                require_crl=self._rules.crl_required,
            )
            ticket.check_binding(
                tre_id=asked.tre_id,
                req_id=str(asked.req_id),
                nonce=body.nonce,
                platform_key_id=key_id_of(load_der(body.platform_cert).public_key()),
                attest_key_id=key_id_of(load_der(body.attest_cert).public_key()),
                mode=self._rules.mode,
            )
        except (ValidationError, MCIMError) as exc:
            raise self._refused(f"ticket: {exc}" if isinstance(exc, MCIMError) else "no ticket") from exc
        if ticket.m2me_id != body.m2me_id:
            raise self._refused("the ticket names another M2ME")
        self._trail.check("platform-validated-before-vectors", True, req=_REQ, step=_STEP, detail=ticket.m2me_id)
        return ticket.m2me_id

    def _question(self, asked: Asked, body: PlatformBody) -> dict[str, object]:
        question: dict[str, object] = {
            "reqId": str(asked.req_id),
            "m2meId": body.m2me_id,
            "treId": asked.tre_id,
            "platformCert": to_base64(body.platform_cert),
            "attestCert": to_base64(body.attest_cert),
            "chain": [to_base64(each) for each in body.chain],
            "evidence": to_base64(body.evidence),
            "nonce": to_base64(body.nonce),
            "challenge": to_base64(asked.challenge),
            "mode": self._rules.mode.value,
            "audience": [self._rules.ro_id],
        }
        return question | ({"log": to_base64(body.log)} if body.log else {})

    async def _post(self, path: str, body: Mapping[str, object], *, key: str) -> dict[str, Any]:
        try:
            return await self._pva.post(path, body, idempotency_key=key)
        except PartnerUnavailable as exc:
            self._trail.note("the PVA does not answer: no vectors", step=_STEP)
            raise AttachBusy from exc
        except PartnerRefused as exc:
            if exc.status in (408, 425, 429):
                raise AttachBusy from exc
            raise self._refused(f"{exc.code} {exc.detail}".rstrip()) from exc

    def _refused(self, reason: str) -> AttachRefused:
        self._trail.check("platform-validated-before-vectors", False, req=_REQ, step=_STEP, detail=reason[:255])
        return AttachRefused(f"platform: {reason}")

    def _count(self, session: str, imsi: str) -> None:
        """Take a place at the PVA before it is asked.

        Raises:
            AttachBusy: there is none.
        """
        self._expire()
        now = self._clock()
        while self._recent and self._recent[0][0] <= now - WINDOW_S:
            _, former = self._recent.popleft()
            self._recent_of[former] -= 1
            if not self._recent_of[former]:
                del self._recent_of[former]
        for name in [name for name, until in self._at_pva.items() if until <= now]:
            del self._at_pva[name]
        if self._recent_of[imsi] >= ASKED_PER_IDENTITY or len(self._at_pva) >= self._rules.max_challenges:
            raise AttachBusy
        self._recent.append((now, imsi))
        self._recent_of[imsi] += 1
        self._at_pva[session] = now + WINDOW_S  # until it says itself

    def _expire(self) -> None:
        now = self._clock()
        while self._waiting:
            session, asked = next(iter(self._waiting.items()))
            if asked.expires > now:
                return
            del self._waiting[session]
