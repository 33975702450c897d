"""Network attach with the downloaded MCIM: AKA between the TRE and the home network (TS 33.102 §6.3).

The device carries octets; the algorithm, the keys and the sequence numbers are in the TRE. The attach counts only
when the network accepted our RES, which proves that both sides hold the same K (REQ-69).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import quote
from uuid import UUID

from actor_runtime.http import PartnerRefused, PartnerUnavailable, to_base64
from actor_runtime.trail import Trail
from dmclient.tre.base import TreError, TrustedEnvironment
from mcim.aka import Accepted, MacFailure
from mcim.vocabulary import ResultCode

STEP: Final = "16"
_MASK: Final = re.compile(r"[0-9*]{1,15}")
MAX_CHALLENGES: Final = 2  # the first, and one after a resynchronisation


class AttachCode(IntEnum):
    """Outcome of an attach: our success code, or a cause of TS 24.301 §9.9.3.9 as the alert's data."""

    SUCCESS = ResultCode.SUCCESS
    ILLEGAL_UE = 3  # the network refused our RES or our identity
    MAC_FAILURE = 20  # the network could not prove that it knows K
    SYNC_FAILURE = 21  # out of step, and resynchronisation did not help
    NETWORK_FAILURE = 17  # no usable answer; may pass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachResult:
    """How an attach ended."""

    code: AttachCode
    detail: str = ""
    imsi_mask: str = ""

    @property
    def attached(self) -> bool:
        """Whether the network accepted us."""
        return self.code is AttachCode.SUCCESS


class Network(Protocol):
    """What an attach needs of `actor_runtime.http.PartnerClient`."""

    async def post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        """POST JSON, get JSON; raises PartnerUnavailable or PartnerRefused."""


async def attach(
    network: Network, tre: TrustedEnvironment, mcim_id: UUID, trail: Trail, *, sho_id: str = "SHO"
) -> AttachResult:
    """Attach with one MCIM, of that home operator. Every end is a result; nothing is raised."""
    post = partial(_post, network, trail, sho_id)
    try:
        imsi = tre.attach_identity(mcim_id)
        answer = await post("/v1/attach", {"imsi": imsi}, "attach request")
        for _ in range(MAX_CHALLENGES):
            session = quote(str(answer.get("session", "")), safe="")
            rand, autn = _octets(answer, "rand"), _octets(answer, "autn")
            response = tre.authenticate(mcim_id, rand, autn)
            path = f"/v1/attach/{session}"
            if isinstance(response, Accepted):
                trail.check("aka-network-authentic", True, req=("REQ-69",), step=STEP)
                answer = await post(path, {"res": to_base64(response.res)}, "RES")
                return _accepted(answer, trail)
            if isinstance(response, MacFailure):
                trail.check("aka-network-authentic", False, req=("REQ-69",), step=STEP, detail="MAC failure")
                with suppress(PartnerRefused, PartnerUnavailable):  # whatever it says to that, this is what we found
                    await post(path, {"failure": "mac"}, "MAC failure")
                return AttachResult(code=AttachCode.MAC_FAILURE, detail="the network's MAC is wrong")
            trail.note("AKA: sequence number out of range, resynchronising", step=STEP)
            answer = await post(path, {"auts": to_base64(response.auts)}, "AUTS")
        return AttachResult(code=AttachCode.SYNC_FAILURE, detail="still out of step after one resynchronisation")
    except PartnerRefused as error:
        trail.check("aka-accepted-by-network", False, req=("REQ-69",), step=STEP, detail=error.code)
        return AttachResult(code=AttachCode.ILLEGAL_UE, detail=f"the network refused: {error.code}")
    except (PartnerUnavailable, ValueError) as error:
        return AttachResult(code=AttachCode.NETWORK_FAILURE, detail=str(error))
    except TreError as error:
        return AttachResult(code=AttachCode.ILLEGAL_UE, detail=f"the TRE refused: {error.code.name.lower()}")


def _accepted(answer: dict[str, Any], trail: Trail) -> AttachResult:
    attached = answer.get("result") == "attached"
    trail.check("aka-accepted-by-network", attached, req=("REQ-69",), step=STEP)
    if not attached:
        return AttachResult(code=AttachCode.ILLEGAL_UE, detail="the network did not accept our RES")
    mask = answer.get("imsiMask")
    shown = mask if isinstance(mask, str) and _MASK.fullmatch(mask) else ""
    return AttachResult(code=AttachCode.SUCCESS, imsi_mask=shown)


async def _post(
    network: Network, trail: Trail, sho_id: str, path: str, body: dict[str, object], summary: str
) -> dict[str, Any]:
    """One exchange. The trail has no body: an IMSI or a RES does not belong there."""
    trail.message(step=STEP, direction=f"M2ME→{sho_id}", summary=summary, octets=len(json.dumps(body)))
    answer = await network.post(path, body)
    result = str(answer.get("result", "challenge"))[:64]
    trail.message(step=STEP, direction=f"{sho_id}→M2ME", summary=result, octets=len(json.dumps(answer)))
    return answer


def _octets(answer: dict[str, Any], name: str) -> bytes:
    value = answer.get(name)
    if not isinstance(value, str):
        raise ValueError(f"the network's answer has no {name}")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{name} is not Base64") from error
