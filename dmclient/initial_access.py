"""The steps before DM: attach with the provisional identity and register (TR 33.812 §5.1.3.7.1 steps 1 to 8).

The device attaches with its PCID at the registration operator's ICF, over one visited network or another, proves its
platform when that is asked first, and tells the DRF who it is and where a bootstrap reaches it. The visited network
and IP connectivity are not simulated: an access token stands for the connectivity that reaches the operator alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

import structlog

from actor_runtime.http import PartnerRefused, PartnerUnavailable, to_base64
from dmclient.called_sessions import RetryPolicy
from dmclient.device import Device
from dmclient.tre.base import TreError
from mcim.aka import Accepted, MacFailure
from mcim.vocabulary import ValidationMode

MAX_ROUNDS: Final = 4  # answers of the ICF in one attach: evidence, challenge, one resynchronisation, success
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}")  # RFC 6750 §2.1

_log = structlog.get_logger(__name__)

Reason = Literal["initial", "recovery"]


class Operator(Protocol):
    """What a call to the registration operator needs of `actor_runtime.http.PartnerClient`."""

    async def post(self, path: str, body: Mapping[str, object], *, bearer: str | None = None) -> dict[str, Any]:
        """POST JSON, get JSON; raises PartnerUnavailable or PartnerRefused."""


class AccessState(StrEnum):
    """How far the device got."""

    REGISTERED = "registered"  # the DPF was asked for a bootstrap
    PENDING = "pending"  # the registration is open; a bootstrap comes when a home operator is found
    NO_IDENTITY = "no-identity"  # there is no PCID, or it is over
    REFUSED = "refused"  # every network and every try said no
    UNREACHABLE = "unreachable"  # nobody answered


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessResult:
    """How an initial access ended."""

    state: AccessState
    detail: str = ""

    @property
    def waits_for_bootstrap(self) -> bool:
        """Whether a bootstrap will come."""
        return self.state in (AccessState.REGISTERED, AccessState.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visited:
    """One way to the registration operator."""

    vno: str  # MCC and MNC; empty: the device does not say
    icf: Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    token: str = field(repr=False)
    drf_url: str


class _AttachFailed(Exception):
    """The network could not prove itself, or its answer is none. The text is for the log."""


class InitialAccess:
    """Attach and register, with patience."""

    def __init__(
        self,
        *,
        device: Device,
        networks: Sequence[Visited],
        drf: Callable[[str], Operator | None],
        push: str,
        policy: RetryPolicy,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """
        Args:
            drf: the registration function at the address that an ICF told (empty: it told none); None: such an
                address is not used, and the one where the device attached serves.
            push: where bootstraps reach the device: `udp:HOST:PORT`, without a host whence the calls come.
        """
        self._device, self._networks, self._drf = device, networks, drf
        self._push, self._policy, self._sleep = push, policy, sleep

    async def run(self, reason: Reason) -> AccessResult:
        """Go on until the device is registered, or every network refused it so often. Every end is a result."""
        device = self._device
        failure = AccessResult(state=AccessState.NO_IDENTITY, detail="no provisional identity")
        for attempt in range(1, self._policy.attempts + 1):
            hint = 0.0
            for network in self._networks:
                if not self._has_identity():
                    return AccessResult(state=AccessState.NO_IDENTITY, detail="no provisional identity")
                try:
                    self._open_request(reason)
                    access = await self._attach(network)
                    return await self._register(network, access, reason)
                except PartnerRefused as error:
                    failure = AccessResult(
                        state=AccessState.REFUSED, detail=f"{network.vno or 'network'}: {error.code}"
                    )
                    hint = max(hint, float(error.retry_after_s or 0))
                except (_AttachFailed, TreError) as error:
                    failure = AccessResult(state=AccessState.REFUSED, detail=str(error))
                except PartnerUnavailable as error:
                    failure = AccessResult(state=AccessState.UNREACHABLE, detail=str(error))
                _log.warning("initial_access.failed", attempt=attempt, vno=network.vno, reason=failure.detail)
            if attempt < self._policy.attempts:
                await self._sleep(min(max(self._policy.delay_s(attempt), hint), self._policy.max_delay_s))
        device.trail.state("initial-access", "", failure.state, step="8", detail=failure.detail)
        return failure

    def _open_request(self, reason: Reason) -> None:
        """Evidence is bound to an open request. On the way back there may be an MCIM, which is none to stay with."""
        if reason == "recovery":
            self._device.register_again(reason, step="1")
        else:
            self._device.register(step="1")

    def _has_identity(self) -> bool:
        """Whether there is a PCID that is not over; one that is over is destroyed (REQ-72)."""
        tre = self._device.tre
        expiry = tre.provisional_expiry()
        if expiry is None:
            return False
        if self._device.now() < expiry:
            return True
        try:
            tre.drop_provisional()
        except TreError as error:
            _log.warning("pcid.not_dropped", code=error.code.name.lower())
        self._device.trail.note("the provisional identity is over and dropped", step="1")
        return False

    # -- steps 1 to 6 -----------------------------------------------------------------------------------------------

    async def _attach(self, network: Visited) -> _Access:
        device = self._device
        facts, registration = device.tre.facts(), device.tre.registration(device.now())
        body: dict[str, object] = {"imsi": device.tre.attach_identity(None), "treId": facts.tre_id}
        if network.vno:
            body["vno"] = network.vno
        if registration.req_id:
            body["reqId"] = registration.req_id
        direction = f"M2ME→VNO {network.vno}".rstrip()
        answer = await self._post(network.icf, "/v1/attach", body, "1", direction, "attach with the PCID")
        for _ in range(MAX_ROUNDS):
            path = f"/v1/attach/{_session(answer)}"
            if answer.get("result") == "attached":
                return self._attached(answer)
            if answer.get("result") == "validate":
                platform = {"platform": self._platform(answer)}
                answer = await self._post(network.icf, path, platform, "3", "M2ME→RO", "evidence")
                continue
            rand, autn = _octets(answer, "rand"), _octets(answer, "autn")
            response = device.tre.authenticate(None, rand, autn)
            authentic = not isinstance(response, MacFailure)
            device.trail.check("pcid-network-authentic", authentic, req=("REQ-69",), step="5")
            if isinstance(response, MacFailure):
                await self._post(network.icf, path, {"failure": "mac"}, "5", "M2ME→VNO", "MAC failure")
                raise _AttachFailed("the network's MAC is wrong")
            told = (
                {"res": to_base64(response.res)}
                if isinstance(response, Accepted)
                else {"auts": to_base64(response.auts)}
            )
            summary = "RES" if isinstance(response, Accepted) else "AUTS"
            answer = await self._post(network.icf, path, told, "5", "M2ME→VNO", summary)
        raise _AttachFailed("the attach comes to no end")

    def _attached(self, answer: dict[str, Any]) -> _Access:
        token, url = answer.get("accessToken"), answer.get("drfUrl", "")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise _AttachFailed("attached, and no access token")
        self._device.trail.note("connectivity to the registration operator alone", step="6")
        return _Access(token=token, drf_url=url if isinstance(url, str) else "")

    def _platform(self, answer: dict[str, Any]) -> dict[str, object]:
        """What the PVA needs to vouch for the platform before there are vectors (step 3)."""
        device = self._device
        facts, now = device.tre.facts(), device.now()
        if facts.platform_cert is None or facts.attest_cert is None:
            raise _AttachFailed("evidence is asked for, and the TRE is not certified")
        try:
            mode = ValidationMode(str(answer.get("mode")))
        except ValueError as error:
            raise _AttachFailed("evidence of an unknown kind is asked for") from error
        evidence = device.tre.generate_evidence(_octets(answer, "challenge"), mode, now)
        return {
            "m2meId": facts.m2me_id,
            "nonce": to_base64(device.tre.registration(now).nonce),
            "evidence": to_base64(evidence),
            **({"log": to_base64(device.tre.measurement_log())} if mode is ValidationMode.REMOTE else {}),
            "platformCert": to_base64(facts.platform_cert),
            "attestCert": to_base64(facts.attest_cert),
            "chain": [to_base64(each) for each in facts.cert_chain],
        }

    # -- steps 7 and 8 ----------------------------------------------------------------------------------------------

    async def _register(self, network: Visited, access: _Access, reason: Reason) -> AccessResult:
        device = self._device
        facts = device.tre.facts()
        body: dict[str, object] = {
            "m2meId": facts.m2me_id,
            "treId": facts.tre_id,
            "reason": reason,
            "push": self._push,
        }
        if device.profile.sho_id is not None:
            body["sho"] = device.profile.sho_id
        if device.profile.m2m.supplier:
            body["supplier"] = device.profile.m2m.supplier
        drf = self._drf(access.drf_url) or network.icf
        answer = await self._post(drf, "/v1/register", body, "7", "M2ME→RO", "registration", bearer=access.token)
        registered = answer.get("state") == "registered"
        state = AccessState.REGISTERED if registered else AccessState.PENDING
        detail = f"at {answer.get('sho')}" if registered else "no home operator yet"
        device.trail.state("initial-access", "", state, step="8", detail=detail[:255])
        return AccessResult(state=state, detail=detail)

    async def _post(
        self,
        operator: Operator,
        path: str,
        body: Mapping[str, object],
        step: str,
        direction: str,
        summary: str,
        *,
        bearer: str | None = None,
    ) -> dict[str, Any]:
        """One exchange. The trail has no body: a PCID, a RES or a token does not belong there."""
        trail = self._device.trail
        trail.message(step=step, direction=direction, summary=summary, octets=len(json.dumps(dict(body))))
        try:
            answer = await operator.post(path, body, bearer=bearer)
        except PartnerRefused as error:
            trail.check("taken-by-registration-operator", False, req=("REQ-72",), step=step, detail=error.code)
            raise
        result = str(answer.get("result", answer.get("state", "challenge")))[:64]
        trail.message(step=step, direction="RO→M2ME", summary=result, octets=len(json.dumps(answer)))
        return answer


def _session(answer: dict[str, Any]) -> str:
    try:
        return quote(str(answer.get("session", "")), safe="")
    except UnicodeEncodeError as error:
        raise _AttachFailed("the answer names no session") from error


def _octets(answer: dict[str, Any], name: str) -> bytes:
    value = answer.get(name)
    if not isinstance(value, str):
        raise _AttachFailed(f"the answer has no {name}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _AttachFailed(f"{name} is not Base64") from error
