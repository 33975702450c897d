"""T3, T6 at the verifier: an old copy of a TRE, or a second one with its attestation key, is found by the counter."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from datetime import UTC, datetime
from typing import Any

import pytest

from actor_runtime.http import to_base64
from mcim import evidence as evidence_format
from mcim import statements
from mcim.evidence import Evidence
from mcim.statements import MAX_NUMBER
from pva.store import counters, repository
from tests.support_chain import chain
from tests.support_operators import M2ME_ID, TRE_ID, Device, Pki, ec_key
from tests.support_validation import Validation, last_decision, pva_settings, refused, running_pva


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki: Pki) -> Device:
    return Device(pki)


@pytest.fixture
async def service(pki, tmp_path):
    async with running_pva(pva_settings(pki, tmp_path), pki) as parts:
        yield parts


async def counted(dpf: Any, device: Device, counter: int) -> str:
    """A validation with evidence of that counter."""
    validation = await Validation(device).ask(dpf)
    return await validation.validate(dpf, evidence=to_base64(validation.evidence(counter=counter)))


@pytest.mark.parametrize("second", [6, 7], ids=["lower", "the same"])
async def test_t3_evidence_that_does_not_rise_is_refused(service, device, second):
    """T3, REQ-18: everything else is in order, the challenge is fresh; the decision says what was counted before."""
    pva, dpf, _ = service
    assert await counted(dpf, device, 7)
    assert await refused(counted(dpf, device, second)) == "evidence-counter"
    decision = await last_decision(pva)
    assert (decision["trusted"], decision["detail"]) == (False, f"{second}, after 7 was accepted")
    assert await counted(dpf, device, 8)


async def test_t3_counters_of_two_tres_are_their_own(service, pki, device):
    """REQ-18: a TRE is held to what it showed itself."""
    _, dpf, _ = service
    other = Device(pki, platform_key=ec_key(), m2me_id="urn:imei:004999010640001", tre_id="urn:m2m:tre:0002")
    assert await counted(dpf, device, MAX_NUMBER)
    assert await counted(dpf, other, 1)


async def test_t3_new_keys_in_the_same_tre_go_on_counting(service, pki, device):
    """T3, REQ-21: evidence by the old key is old; a new pair of keys is no way around what was counted."""
    _, dpf, _ = service
    renewed = Device(pki, platform_key=ec_key())
    assert await counted(dpf, device, 5)
    assert await counted(dpf, renewed, 6)
    assert await refused(counted(dpf, device, 6)) == "evidence-counter"
    assert await refused(counted(dpf, renewed, 6)) == "evidence-counter"


async def test_t3_evidence_that_earns_no_ticket_moves_no_counter(service, device):
    """T12: what is refused for another reason cannot lock a TRE out."""
    _, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    spoiled = validation.evidence(counter=MAX_NUMBER, tre_state="tampered")
    assert await refused(validation.validate(dpf, evidence=to_base64(spoiled))) == "tre-state"
    assert await counted(dpf, device, 1)


@pytest.mark.parametrize("counter", [(2**64).to_bytes(9, "big"), (2**63).to_bytes(8, "big"), b"\x01"])
async def test_t12_a_counter_no_database_holds_is_refused(service, device, counter):
    """T12, REQ-18: signed or not, what is out of range or of another width is no evidence, and nothing breaks."""
    _, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    fields = dict(evidence_format._fields(decoded(validation))) | {11: counter}
    octets = statements.sign(evidence_format.PREFIX, sorted(fields.items()), device.sign)
    assert await refused(validation.validate(dpf, evidence=to_base64(octets))) == "evidence-signature"


def decoded(validation: Validation) -> Evidence:
    key = validation.device.attest_key.public_key()
    return evidence_format.verify_evidence(validation.evidence(), key)


async def test_req18_the_same_request_again_gets_the_same_ticket(service, device):
    """REQ-18: an answer that got lost is fetched again, whatever was validated meanwhile."""
    _, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    body = validation.body(evidence=to_base64(validation.evidence(counter=3)))
    first = await dpf.post("/v1/validate", body)
    assert await counted(dpf, device, 4)
    assert await dpf.post("/v1/validate", body) == first


async def test_req18_two_equal_requests_at_once_are_one(service, device):
    """REQ-18: neither is taken for the replay of the other."""
    _, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    body = validation.body(evidence=to_base64(validation.evidence(counter=3)))
    answers = await asyncio.gather(*(dpf.post("/v1/validate", body) for _ in range(4)))
    assert len({answer["ticket"] for answer in answers}) == 1


async def test_req18_a_crash_before_the_decision_costs_nothing(service, device):
    """REQ-18: challenge used, nothing decided: the same request is decided when it comes again."""
    pva, dpf, _ = service
    validation = await Validation(device).ask(dpf)
    body = validation.body(evidence=to_base64(validation.evidence(counter=3)))
    write = pva.store.write

    async def crash(work: Any) -> Any:
        if work.__code__.co_names and "add_counted_decision" in work.__code__.co_names:
            raise RuntimeError("killed")
        return await write(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pva.store), "write", lambda _self, work: crash(work))
        with pytest.raises(Exception, match=r"500|internal"):
            await dpf.post("/v1/validate", body)
    assert (await dpf.post("/v1/validate", body))["ticket"]


async def test_t3_the_decision_stands_or_falls_with_the_counter(service):
    """T3: one unit of work; a decision that cannot be stored has not moved the counter."""
    pva, _, _ = service
    now = datetime.now(UTC)
    good = repository.Decision(
        request_digest=bytes(32), req_id="r", m2me_id=M2ME_ID, tre_id=TRE_ID, mode="remote", client="dpf.example",
        trusted=True, reason="", detail="", ticket="t", decided_at=now,
    )  # fmt: skip
    shown = counters.ShownCounter(tre_id=TRE_ID, counter=1, attest_key_id=bytes(16))
    broken = dataclasses.replace(good, reason=None)  # the database refuses it
    with pytest.raises(Exception, match="NOT NULL"):
        await pva.store.write(lambda c: counters.add_counted_decision(c, broken, shown))
    assert await pva.store.read(lambda c: counters.list_counters(c, limit=1)) == []
    assert (await pva.store.write(lambda c: counters.add_counted_decision(c, good, shown))).trusted


async def test_t3_a_restored_tre_gets_no_ticket(pki, tmp_path):
    """T3: state and counter of a TRE are put back together, which it cannot see itself; the PVA does."""
    async with chain(pki, tmp_path) as parties:
        tre = tmp_path / "tre"
        order_id = await parties.order("install")
        shutil.copytree(tre, tmp_path / "copy")
        await parties.settle(order_id, visits=1)
        parties.power_up()  # whatever it signs now is above all that it could sign before
        mcim_id = parties.dpf.order(order_id).mcim_id
        await parties.settle(await parties.order("suspend", mcim_id=mcim_id), visits=1)
        shutil.rmtree(tre)
        shutil.copytree(tmp_path / "copy", tre)
        parties.power_up()
        late = await parties.order("activate", mcim_id=mcim_id)
        order = await parties.settle(late, visits=1)
        assert (order.state, order.detail) == ("REFUSED", "pva: platform-not-trusted")
        said = [
            record.fields["detail"] for record in parties.dpf.records if record.fields.get("name") == "pva-decision"
        ]
        assert said[-1] == "platform-not-trusted: evidence-counter"
        assert parties.device.tre.facts().state == "ok"
