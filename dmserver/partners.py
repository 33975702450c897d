"""Calls to the PVA and to home operators: one `Ask` in, one `Outcome` out, never an exception of the transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import AwareDatetime, StringConstraints, ValidationError

from actor_runtime.http import Base64, Body, PartnerClient, PartnerRefused, PartnerUnavailable, to_base64
from actor_runtime.trail import Trail
from dmserver.asks import (
    Ask,
    AskChallenge,
    AskJob,
    AskPackage,
    AskTicket,
    ChallengeGiven,
    Outcome,
    PackageGiven,
    PackageLater,
    PartnerDown,
    PartnerSaidNo,
    ReportAcknowledged,
    TellSho,
    TicketGiven,
)
from mcim.vocabulary import Container, Operation

RETRY_S: Final = range(1, 3601)  # what a home operator may ask us to wait before the next question


class _Challenge(Body):
    challenge: Base64
    exp: AwareDatetime


class _Ticket(Body):
    ticket: Annotated[str, StringConstraints(max_length=64 * 1024)]  # JWS with the signer's chain inside


class PackageBody(Body):
    """A package and what its home operator says about it, as an answer or as a late delivery."""

    package: Base64
    mcim_id: Annotated[str, StringConstraints(max_length=64)]
    sequence: int
    package_hash: Annotated[str, StringConstraints(max_length=128)]
    container: Annotated[str, StringConstraints(max_length=32)] = Container.XML.value
    operation: Annotated[str, StringConstraints(max_length=32)] = Operation.INSTALL.label
    token_ref: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,64}$")] | None = None

    def given(self) -> PackageGiven:
        """As the checks take it."""
        return PackageGiven(
            package=self.package,
            mcim_id=self.mcim_id,
            sequence=self.sequence,
            package_hash=self.package_hash,
            container=self.container,
            operation=self.operation,
            token_ref=self.token_ref,
        )


class _Later(Body):
    job: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]  # stands in a path
    retry_after: int = 30  # seconds


class _Job(Body):
    state: Literal["waiting", "done", "refused"]
    code: Annotated[str, StringConstraints(max_length=64)] = "refused"
    retry_after: int = 30


class _Acknowledgement(Body):
    acknowledged: bool
    subscription: str = ""


_PARTNER_AND_STEP: Final[dict[type[Ask], tuple[str, str]]] = {
    AskChallenge: ("PVA", "9"),
    AskTicket: ("PVA", "10"),
    AskPackage: ("SHO", "12"),
    AskJob: ("SHO", "12"),
    TellSho: ("SHO", "15"),
}


class Partners(Protocol):
    """Whoever can put an `Ask` to a partner."""

    async def ask(self, ask: Ask) -> Outcome:
        """The partner's answer; `PartnerDown` when there is none that can be used."""

    async def close(self) -> None:
        """Let go of all connections."""


class NoPartners:
    """A server that provisions nobody has none; whatever waits for one goes on waiting."""

    async def ask(self, ask: Ask) -> Outcome:
        """No answer, of whomever."""
        return PartnerDown(reason=f"no partner is configured for {type(ask).__name__}")

    async def close(self) -> None:
        """Nothing to close."""


class HttpPartners:
    """PVA and home operators over mutual TLS."""

    def __init__(self, *, pva: PartnerClient, shos: Mapping[str, PartnerClient], trail: Trail) -> None:
        self._pva = pva
        self._shos = shos
        self._trail = trail

    async def ask(self, ask: Ask) -> Outcome:
        """The partner's answer; `PartnerDown` when there is none that can be used."""
        try:
            return await self._ask(ask)
        except PartnerRefused as exc:
            if exc.status in (408, 425, 429):  # not a decision: the same call may succeed later
                return PartnerDown(reason=f"{exc.status} {exc.code}")
            return PartnerSaidNo(code=exc.code, detail=exc.detail)
        except PartnerUnavailable as exc:
            return PartnerDown(reason=str(exc))
        except ValidationError:
            return PartnerDown(reason="its answer lacks a member or has one of the wrong kind")

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(self._pva.close(), *(client.close() for client in self._shos.values()))

    async def _ask(self, ask: Ask) -> Outcome:
        if isinstance(ask, AskChallenge):
            return await self._challenge(ask)
        if isinstance(ask, AskTicket):
            return await self._validate(ask)
        sho = self._shos.get(ask.sho_id)
        if sho is None:
            return PartnerDown(reason=f"no address is configured for {ask.sho_id}")
        if isinstance(ask, AskPackage):
            return await self._hand_over(sho, ask)
        if isinstance(ask, AskJob):
            return await self._job(sho, ask)
        return await self._report(sho, ask)

    async def _post(
        self,
        client: PartnerClient,
        ask: AskChallenge | AskTicket | AskPackage | TellSho,
        path: str,
        body: Mapping[str, object],
    ) -> dict[str, Any]:
        partner, step = _PARTNER_AND_STEP[type(ask)]
        if isinstance(ask, AskPackage | TellSho):
            partner = ask.sho_id  # there may be several
        order = ask.order_id
        self._trail.message(
            step=step, direction=f"DPF→{partner}", summary=f"POST {path}", octets=len(json.dumps(body)), order=order
        )
        answer = await client.post(path, body, idempotency_key=ask.key)
        self._trail.message(
            step=step,
            direction=f"{partner}→DPF",
            summary=f"answer to {path}: {', '.join(sorted(answer))}",
            octets=len(json.dumps(answer)),
            order=order,
        )
        return answer

    async def _challenge(self, ask: AskChallenge) -> Outcome:
        answer = _Challenge.model_validate(
            await self._post(
                self._pva,
                ask,
                "/v1/challenge",
                {"reqId": ask.req_id, "treId": ask.tre_id, "mode": ask.mode.value},
            )
        )
        return ChallengeGiven(challenge=answer.challenge, expires_at=answer.exp)

    async def _validate(self, ask: AskTicket) -> Outcome:
        answer = _Ticket.model_validate(
            await self._post(
                self._pva,
                ask,
                "/v1/validate",
                {
                    "reqId": ask.req_id,
                    "m2meId": ask.m2me_id,
                    "treId": ask.tre_id,
                    "platformCert": to_base64(ask.platform_cert),
                    "attestCert": to_base64(ask.attest_cert),
                    "chain": [to_base64(certificate) for certificate in ask.chain],
                    "evidence": to_base64(ask.evidence),
                    "nonce": to_base64(ask.nonce),
                    "challenge": to_base64(ask.challenge),
                    "treType": ask.tre_type,
                    "treVersion": ask.tre_version,
                    **({"log": to_base64(ask.log)} if ask.log else {}),
                    "mode": ask.mode.value,
                    "audience": list(ask.audience),
                },
            )
        )
        return TicketGiven(ticket=answer.ticket)

    async def _hand_over(self, sho: PartnerClient, ask: AskPackage) -> Outcome:
        answer = await self._post(
            sho,
            ask,
            "/v1/handover",
            {
                "reqId": ask.req_id,
                "orderId": ask.order_id,
                "m2meId": ask.m2me_id,
                "treId": ask.tre_id,
                "treType": ask.tre_type,
                "treVersion": ask.tre_version,
                "operation": ask.operation.label,
                **({"mcimId": ask.mcim_id} if ask.mcim_id is not None else {}),
                "suites": list(ask.suites),
                "containers": list(ask.containers),
                "algorithms": list(ask.algorithms),
                "trustAnchors": list(ask.trust_anchors),
                "platformCert": to_base64(ask.platform_cert),
                "chain": [to_base64(certificate) for certificate in ask.chain],
                "nonce": to_base64(ask.nonce),
                "nextSequence": ask.next_sequence,
                "ticket": ask.ticket,
                "dpfId": ask.dpf_id,
            },
        )
        if "job" in answer and "package" not in answer:
            later = _Later.model_validate(answer)
            return PackageLater(job=later.job, retry_after_s=_bounded(later.retry_after))
        return PackageBody.model_validate(answer).given()

    async def _job(self, sho: PartnerClient, ask: AskJob) -> Outcome:
        path = f"/v1/jobs/{ask.job}"
        self._trail.message(
            step="12", direction=f"DPF→{ask.sho_id}", summary=f"GET {path}", octets=0, order=ask.order_id
        )
        answer = await sho.get(path)
        job = _Job.model_validate(answer)
        self._trail.message(
            step="12",
            direction=f"{ask.sho_id}→DPF",
            summary=f"answer to {path}: {job.state}",
            octets=len(json.dumps(answer)),
            order=ask.order_id,
        )
        if job.state == "waiting":
            return PackageLater(job=ask.job, retry_after_s=_bounded(job.retry_after))
        if job.state == "refused":
            return PartnerSaidNo(code=job.code)
        return PackageBody.model_validate(answer).given()

    async def _report(self, sho: PartnerClient, ask: TellSho) -> Outcome:
        body: dict[str, Any] = {
            "orderId": ask.order_id,
            "reqId": ask.req_id,
            "receipt": to_base64(ask.receipt or b""),
            "attestCert": to_base64(ask.attest_cert or b""),
            "chain": [to_base64(certificate) for certificate in ask.chain],
            "result": ask.result,
        }
        answer = _Acknowledgement.model_validate(await self._post(sho, ask, "/v1/report", body))
        if not answer.acknowledged:
            return PartnerDown(reason="it did not acknowledge the report")
        return ReportAcknowledged(subscription=answer.subscription)


def _bounded(seconds: int) -> int:
    return min(max(seconds, RETRY_S.start), RETRY_S.stop - 1)
