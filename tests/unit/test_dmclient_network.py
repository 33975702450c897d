"""Network attach: success only when the network accepted our RES, one resynchronisation, every end a result."""

from __future__ import annotations

import pytest

from actor_runtime.http import PartnerRefused, PartnerUnavailable
from actor_runtime.trail import Trail, TrailRecord
from dmclient.network import AttachCode, attach
from mcim.aka import Accepted, MacFailure, SyncFailure
from mcim.vocabulary import ContainerState
from tests.support_dmclient import ATTACHED, CHALLENGE, IMSI, MCIM_ID, FakeNetwork, FakeTre, installed

ACCEPTED = Accepted(res=b"\x11" * 8, ck=b"", ik=b"")
SYNC = SyncFailure(auts=b"\x22" * 14)
DOWN, NO = PartnerUnavailable("down"), PartnerRefused(403, "authentication-failed", "")

CASES = {
    "REQ-69 accepted": ([CHALLENGE, ATTACHED], [ACCEPTED], AttachCode.SUCCESS),
    "REQ-69 RES refused": ([CHALLENGE, NO], [ACCEPTED], AttachCode.ILLEGAL_UE),
    "REQ-69 answer without attached": ([CHALLENGE, {"result": "maybe"}], [ACCEPTED], AttachCode.ILLEGAL_UE),
    "unknown IMSI": ([NO], [], AttachCode.ILLEGAL_UE),
    "REQ-69 resynchronised": ([CHALLENGE, CHALLENGE, ATTACHED], [SYNC, ACCEPTED], AttachCode.SUCCESS),
    "REQ-69 still out of step": ([CHALLENGE, CHALLENGE, CHALLENGE], [SYNC, SYNC], AttachCode.SYNC_FAILURE),
    "REQ-69 wrong network": ([CHALLENGE, {}], [MacFailure()], AttachCode.MAC_FAILURE),
    "REQ-69 wrong network that refuses our failure": ([CHALLENGE, NO], [MacFailure()], AttachCode.MAC_FAILURE),
    "REQ-69 wrong network that is gone": ([CHALLENGE, DOWN], [MacFailure()], AttachCode.MAC_FAILURE),
    "network down": ([DOWN], [], AttachCode.NETWORK_FAILURE),
    "network goes down": ([CHALLENGE, DOWN], [ACCEPTED], AttachCode.NETWORK_FAILURE),
    "no RAND": ([{"session": "s", "autn": "AA=="}], [], AttachCode.NETWORK_FAILURE),
    "AUTN is not Base64": ([CHALLENGE | {"autn": "*"}], [], AttachCode.NETWORK_FAILURE),
    "a session that is no text": ([CHALLENGE | {"session": "\ud800"}], [], AttachCode.NETWORK_FAILURE),
}


@pytest.mark.parametrize(("answers", "aka", "code"), CASES.values(), ids=CASES)
async def test_attach(answers, aka, code):
    """Each row: what the network says, what the TRE says, how it ends."""
    records: list[TrailRecord] = []
    tre = FakeTre(aka=list(aka), installed=[installed(ContainerState.ACTIVATED)])
    result = await attach(FakeNetwork(list(answers)), tre, MCIM_ID, Trail("M2ME", sink=records.append))
    assert (result.code, result.attached) == (code, code is AttachCode.SUCCESS)
    told = "".join(record.to_json() for record in records)
    assert IMSI not in told
    assert "EREREREREQ" not in told  # RES
    if code is AttachCode.SUCCESS:
        assert result.imsi_mask == "00101********89"


async def test_what_the_network_gets():
    """IMSI once; RES or AUTS afterwards; the session name is no path."""
    tre = FakeTre(aka=[SYNC, ACCEPTED], installed=[installed(ContainerState.ACTIVATED)])
    network = FakeNetwork([CHALLENGE | {"session": "../x"}, CHALLENGE, ATTACHED])
    await attach(network, tre, MCIM_ID, Trail("M2ME"))
    assert network.posts == [
        ("/v1/attach", {"imsi": IMSI}),
        ("/v1/attach/..%2Fx", {"auts": "IiIiIiIiIiIiIiIiIiI="}),
        ("/v1/attach/s1", {"res": "ERERERERERE="}),
    ]


async def test_mcim_that_is_not_activated_does_not_attach():
    """The TRE gives no identity away; the network hears nothing."""
    network = FakeNetwork([])
    tre = FakeTre(installed=[installed(ContainerState.PROVISIONED)])
    result = await attach(network, tre, MCIM_ID, Trail("M2ME"))
    assert result.code is AttachCode.ILLEGAL_UE
    assert network.posts == []


@pytest.mark.parametrize("mask", ["\x1b[2J", "0" * 1000, 7, "00101*\n"])
async def test_what_the_network_calls_us_is_a_mask_or_nothing(mask):
    """T12: it ends on the user's terminal, so it has digits and stars alone."""
    tre = FakeTre(aka=[ACCEPTED], installed=[installed(ContainerState.ACTIVATED)])
    result = await attach(FakeNetwork([CHALLENGE, ATTACHED | {"imsiMask": mask}]), tre, MCIM_ID, Trail("M2ME"))
    assert (result.code, result.imsi_mask) == (AttachCode.SUCCESS, "")
