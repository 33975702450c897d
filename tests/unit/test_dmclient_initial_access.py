"""Initial access: every answer of a registration operator ends in a result; patience is bounded; PCIDs are dropped."""

from __future__ import annotations

from datetime import timedelta

import pytest

from actor_runtime.http import PartnerRefused, PartnerUnavailable, to_base64
from dmclient.access_settings import initial_access, usable
from dmclient.app import describe
from dmclient.called_sessions import RetryPolicy
from dmclient.config import ClientSettings
from dmclient.initial_access import AccessState, InitialAccess, Visited
from mcim.aka import Accepted, MacFailure, SyncFailure
from mo_definitions.m2m import M2MNode
from tests.support_dmclient import NOW, PCID, FakeTre, make_device

CHALLENGE = {"session": "s1", "rand": to_base64(bytes(16)), "autn": to_base64(bytes(16))}
ATTACHED = {"result": "attached", "imsiMask": "00101********77", "accessToken": "token-1"}
REGISTERED = {"state": "registered", "registration": "r", "sho": "sho.example"}
PENDING = {"state": "pending", "registration": "r"}
VALIDATE = {"result": "validate", "session": "v", "challenge": to_base64(b"c" * 32), "mode": "semi-autonomous"}
DOWN, NO = PartnerUnavailable("down"), PartnerRefused(403, "attach-refused", "", retry_after_s=7)
OK = Accepted(res=b"\x11" * 8, ck=b"", ik=b"")
SYNC = SyncFailure(auts=b"\x22" * 14)


class FakeOperator:
    """Answers in turn; remembers what it was asked."""

    def __init__(self, answers):
        self.answers, self.asked = list(answers), []

    async def post(self, path, body, *, bearer=None):
        self.asked.append((path, dict(body), bearer))
        answer = self.answers.pop(0) if self.answers else DOWN
        if isinstance(answer, Exception):
            raise answer
        return answer


def access(tmp_path, *answers, aka=(), attempts=1, expiry=NOW + timedelta(days=1), drf=None):
    tre = FakeTre(aka=list(aka), pcid_expiry=expiry)
    device, trail = make_device(tmp_path, tre=tre)
    operators = [FakeOperator(each) for each in answers]
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    made = InitialAccess(
        device=device,
        networks=[Visited(vno=f"2620{number}", icf=each) for number, each in enumerate(operators, 1)],
        drf=lambda url: drf if url else None,
        push="udp::2948",
        policy=RetryPolicy(attempts=attempts, first_delay_s=1, max_delay_s=60),
        sleep=sleep,
    )
    return made, device, operators, pauses, trail


CASES = {
    "registered": ([CHALLENGE, ATTACHED, REGISTERED], [OK], AccessState.REGISTERED),
    "pending": ([CHALLENGE, ATTACHED, PENDING], [OK], AccessState.PENDING),
    "REQ-69 resynchronised": ([CHALLENGE, CHALLENGE, ATTACHED, REGISTERED], [SYNC, OK], AccessState.REGISTERED),
    "REQ-69 never in step": ([CHALLENGE] * 9, [SYNC] * 9, AccessState.REFUSED),
    "REQ-69 wrong network": ([CHALLENGE, NO], [MacFailure()], AccessState.REFUSED),
    "REQ-17 evidence first": ([VALIDATE, CHALLENGE, ATTACHED, REGISTERED], [OK], AccessState.REGISTERED),
    "REQ-17 evidence for ever": ([VALIDATE] * 9, [], AccessState.REFUSED),
    "evidence of an unknown kind": ([VALIDATE | {"mode": "x"}], [], AccessState.REFUSED),
    "no challenge": ([VALIDATE | {"challenge": 7}], [], AccessState.REFUSED),
    "PCID refused": ([NO], [], AccessState.REFUSED),
    "registration refused": ([CHALLENGE, ATTACHED, NO], [OK], AccessState.REFUSED),
    "no RAND": ([{"session": "s", "autn": "AA=="}], [], AccessState.REFUSED),
    "AUTN is not Base64": ([CHALLENGE | {"autn": "*"}], [], AccessState.REFUSED),
    "a session that is no text": ([CHALLENGE | {"session": "\ud800"}], [OK], AccessState.REFUSED),
    "a home operator that is no text": (
        [CHALLENGE, ATTACHED, REGISTERED | {"sho": "\ud800"}],
        [OK],
        AccessState.REGISTERED,
    ),
    "no token": ([CHALLENGE, {"result": "attached"}], [OK], AccessState.REFUSED),
    "token with a line end": ([CHALLENGE, ATTACHED | {"accessToken": "a\r\nX: y"}], [OK], AccessState.REFUSED),
    "down": ([DOWN], [], AccessState.UNREACHABLE),
}


@pytest.mark.parametrize(("answers", "aka", "state"), CASES.values(), ids=CASES)
async def test_every_end_is_a_result(tmp_path, answers, aka, state):
    """TR 33.812 §5.1.3.7.1 steps 1 to 8: what the operator says, what the TRE says, how it ends."""
    made, _, _, _, trail = access(tmp_path, answers, aka=aka)
    result = await made.run("initial")
    assert (result.state, result.waits_for_bootstrap) == (
        state,
        state in (AccessState.REGISTERED, AccessState.PENDING),
    )
    told = "".join(record.to_json() for record in trail)
    assert PCID not in told
    assert "token-1" not in told


async def test_what_the_operator_gets(tmp_path):
    """The PCID once, at the attach; evidence with certificates when asked; the token as bearer, never in a body."""
    made, device, (icf,), _, trail = access(
        tmp_path, [VALIDATE | {"session": "../x"}, CHALLENGE, ATTACHED, REGISTERED], aka=[OK]
    )
    await made.run("initial")
    registration = device.tre.registration(NOW)
    facts = device.tre.facts()
    assert icf.asked == [
        ("/v1/attach", {"imsi": PCID, "treId": facts.tre_id, "vno": "26201", "reqId": registration.req_id}, None),
        ("/v1/attach/..%2Fx", {"platform": {
            "m2meId": facts.m2me_id, "nonce": to_base64(registration.nonce),
            "evidence": to_base64(b"evidence over " + b"c" * 32), "platformCert": to_base64(b"platform"),
            "attestCert": to_base64(b"attest"), "chain": [to_base64(b"intermediate")]}}, None),
        ("/v1/attach/s1", {"res": "ERERERERERE="}, None),
        ("/v1/register", {
            "m2meId": facts.m2me_id, "treId": facts.tre_id, "reason": "initial", "push": "udp::2948"} | (
            {"sho": device.profile.sho_id} if device.profile.sho_id else {}), "token-1"),
    ]  # fmt: skip
    steps = [record.step for record in trail if record.kind != "state" or record.fields["subject"] == "initial-access"]
    assert sorted(set(steps)) == ["1", "3", "5", "6", "7", "8"]


async def test_the_registration_function_may_be_elsewhere(tmp_path):
    """drfUrl of the ICF: the token goes there and nowhere else."""
    elsewhere = FakeOperator([REGISTERED])
    made, _, (icf,), _, _ = access(tmp_path, [CHALLENGE, ATTACHED | {"drfUrl": "https://drf"}], aka=[OK], drf=elsewhere)
    assert (await made.run("initial")).state is AccessState.REGISTERED
    assert [path for path, _, _ in icf.asked] == ["/v1/attach", "/v1/attach/s1"]
    assert elsewhere.asked[0][2] == "token-1"


async def test_other_networks_then_patience_then_an_end(tmp_path):
    """TR 33.812 §5.1.3.7.1 step 1: retry other networks, back off, heed the hint, give up in the end."""
    made, _, (first, second), pauses, _ = access(tmp_path, [NO, NO, NO, NO], [DOWN, NO, DOWN, DOWN], attempts=4)
    assert (await made.run("initial")).state is AccessState.UNREACHABLE
    assert pauses == [7, 7, 7]  # the hint is longer than the own delays 1, 2 and 4
    assert (len(first.asked), len(second.asked)) == (4, 4)


async def test_a_pcid_that_is_over_is_destroyed_and_not_used(tmp_path):
    """REQ-72, T7"""
    made, device, (icf,), _, _ = access(tmp_path, [CHALLENGE])
    device.tre.pcid_expiry = NOW  # the time has come
    assert (await made.run("initial")).state is AccessState.NO_IDENTITY
    assert device.tre.provisional_expiry() is None
    assert icf.asked == []


async def test_a_tre_that_is_not_in_order_gives_no_evidence(tmp_path):
    """REQ-17"""
    made, device, (icf,), _, _ = access(tmp_path, [VALIDATE])
    device.tre.condition = "tampered"
    assert (await made.run("initial")).state is AccessState.REFUSED
    assert len(icf.asked) == 1


async def test_recovery_opens_a_request_although_there_is_an_mcim(tmp_path):
    """M2MMobj, Reason: the way back after a failed attach."""
    made, device, (icf,), _, _ = access(tmp_path, [CHALLENGE, ATTACHED, REGISTERED], aka=[OK])
    device.tre.provision(b"good", None, NOW)
    assert device.usable_mcim() is not None
    assert (await made.run("recovery")).state is AccessState.REGISTERED
    assert device.tre.registration(NOW).reason == "recovery"
    assert icf.asked[-1][1]["reason"] == "recovery"


def test_m2mmobj_shows_the_pcid_of_the_tre_until_it_is_over_or_dropped(tmp_path):
    """REQ-72, M2MMobj, PCID, PCIDExpiry."""
    tre = FakeTre(pcid_expiry=NOW + timedelta(days=1))
    device, _ = make_device(tmp_path, tre=tre)
    node = ("M2MMobj", *M2MNode.PCID.segments)
    expiry = ("M2MMobj", *M2MNode.PCID_EXPIRY.segments)

    def shown():
        found = (device.tree.current(device.tree.nodes, each) for each in (node, expiry))
        return tuple(None if each is None else each.value for each in found)

    assert shown() == (PCID, f"{NOW + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}")
    assert describe(device)["provisionalUntil"] == shown()[1]
    assert PCID not in str(describe(device))
    device.m2m.pcid_dropped = True
    assert tre.pcid_expiry is None
    assert describe(device)["provisionalUntil"] is None
    assert shown() == (None, None)
    tre.pcid_expiry = NOW  # it ran out
    device.m2m.pcid_dropped = False
    assert shown() == (None, None)
    assert tre.pcid_expiry is None


@pytest.mark.parametrize(
    ("url", "plain", "good"),
    [
        ("https://ro.example", False, True),
        ("http://ro.example", False, False),
        ("http://ro.example", True, True),
        ("ftp://ro.example", True, False),
        ("https://", False, False),
        ("https://[", False, False),
        ("", True, False),
    ],
)
def test_secrets_go_over_tls(url, plain, good):
    """REQ-09"""
    assert usable(url, plain=plain) is good


async def test_without_a_registration_operator_there_is_no_initial_access(tmp_path):
    """Steps 1 to 6 are an option: a device may start with IP connectivity."""
    settings = ClientSettings(m2me_id="urn:x:1", state_dir=tmp_path, seal_key_file=tmp_path / "k")
    async with initial_access(settings, None, udp_port=1) as none:
        assert none is None
