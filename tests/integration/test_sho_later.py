"""Later answers of the SHO (REQ-26): 202 and a job, a worker that makes and delivers, approval by a person."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from actor_runtime.http import PartnerRefused, PartnerUnavailable, new_application, problem
from actor_runtime.service import background
from sho import jobs as job_work
from sho.app import partner_application
from sho.checks import Checks, RequestRefused
from sho.platform_checks import from_base64
from sho.store import jobs, prepared, repository, tables
from tests.support_operators import DPF_ID, SHO_ID, TRE_ID, Device, Pki, calling, running
from tests.support_sho import ORDER, Exchange, fill, order, serving, sho_settings, states


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki):
    return Device(pki)


class Clock:
    def __init__(self):
        self.now = datetime.now(UTC)

    def __call__(self):
        return self.now

    def advance(self, **by):
        self.now += timedelta(**by)


class Dpf:
    """The DPF's `POST /v1/packages`; `answers` are given one after the other, then it accepts."""

    def __init__(self):
        self.answers, self.bodies, self.keys = [], [], []
        self.taken = asyncio.Event()

    async def take(self, request):
        self.bodies.append(await request.json())
        self.keys.append(request.headers["Idempotency-Key"])
        self.taken.set()
        return self.answers.pop(0) if self.answers else web.json_response({"accepted": True})


@pytest.fixture
async def dpf_side(pki):
    dpf = Dpf()
    app = new_application()
    app.router.add_post("/v1/packages", dpf.take)
    async with running(app, pki.server(DPF_ID)) as url:
        dpf.url = url
        yield dpf


def later(pki, tmp_path, dpf_side, clock, **changes):
    values = {"answer": "later", "later_delay_s": 60, "dpfs": {DPF_ID: dpf_side.url}}
    return serving(sho_settings(pki, tmp_path, **values | changes), pki, now=clock)


async def refused(call):
    with pytest.raises(PartnerRefused) as caught:
        await call
    return caught.value.status, caught.value.code


async def test_a_job_now_and_the_package_when_it_is_due(pki, tmp_path, device, dpf_side):
    """REQ-26, REQ-25: the same request gets the same job, then the same package by every way."""
    clock = Clock()
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        exchange = Exchange(pki, device)
        first = await exchange.hand_over(client)
        assert set(first) == {"job", "retryAfter"}
        assert 1 <= first["retryAfter"] <= 60
        assert await exchange.hand_over(client) == first
        assert await states(sho) == ["allocated", "free"]
        assert await client.get(f"/v1/jobs/{first['job']}") == {"state": "waiting"}
        await sho.worker.work()
        assert dpf_side.bodies == []
        clock.advance(seconds=60)
        await sho.worker.work()
        (body,) = dpf_side.bodies
        answer = await exchange.hand_over(client)
        assert body == {"orderId": ORDER, "reqId": str(exchange.req_id), **answer}
        assert dpf_side.keys == [f"{exchange.req_id}:package"]
        assert exchange.open()[0].registration_nonce == exchange.nonce
        assert await client.get(f"/v1/jobs/{first['job']}") == {"state": "done", **answer}
        clock.advance(hours=1)
        await sho.worker.work()
        assert len(dpf_side.bodies) == 1
        assert await exchange.finish(client, counter=2) == "armed"


async def test_delivery_is_repeated_until_it_is_accepted(pki, tmp_path, device, dpf_side):
    """REQ-26: back-off; always the same octets under the same key."""
    clock = Clock()
    dpf_side.answers = [problem(503, "busy"), problem(429, "slow"), web.json_response({}), problem(403, "no")]
    async with later(pki, tmp_path, dpf_side, clock, later_delay_s=0, delivery_retry_s=2) as (sho, client):
        await fill(sho)
        job = (await Exchange(pki, device).hand_over(client))["job"]
        for pause in (0, 2, 4, 8, 16):
            if pause:
                clock.advance(seconds=pause - 1)
                seen = len(dpf_side.bodies)
                await sho.worker.work()
                assert len(dpf_side.bodies) == seen  # not before its time
                clock.advance(seconds=1)
            await sho.worker.work()
        assert len(dpf_side.bodies) == 5
        assert all(body == dpf_side.bodies[0] for body in dpf_side.bodies)
        assert len(set(dpf_side.keys)) == 1
        assert (await sho.store.read(lambda c: jobs.find(c, job))).state == "delivered"


@pytest.mark.parametrize("status", [404, 409, 410])
async def test_a_dpf_that_does_not_wait_any_more_ends_the_job(pki, tmp_path, device, dpf_side, status):
    """REQ-26: 409 order-not-waiting."""
    clock = Clock()
    dpf_side.answers = [problem(status, "order-not-waiting")]
    async with later(pki, tmp_path, dpf_side, clock, later_delay_s=0) as (sho, client):
        await fill(sho)
        job = (await Exchange(pki, device).hand_over(client))["job"]
        for _ in range(2):
            await sho.worker.work()
            clock.advance(hours=1)
        assert len(dpf_side.bodies) == 1
        assert await client.get(f"/v1/jobs/{job}") == {"state": "refused", "code": "order-not-waiting"}


@pytest.mark.parametrize("when", ["before it is made", "before it is delivered"])
async def test_a_job_is_over_with_its_order(pki, tmp_path, device, dpf_side, when):
    """REQ-23, REQ-26: the DPF said that the order ended."""
    clock = Clock()
    made = when == "before it is delivered"
    dpf_side.answers = [problem(503, "busy")]
    async with later(pki, tmp_path, dpf_side, clock, later_delay_s=0 if made else 60) as (sho, client):
        await fill(sho)
        exchange = Exchange(pki, device)
        job = (await exchange.hand_over(client))["job"]
        if made:
            await sho.worker.work()
        await exchange.report(client, b"", result=1400)
        clock.advance(hours=1)
        await sho.worker.work()
        assert len(dpf_side.bodies) == made
        assert (await client.get(f"/v1/jobs/{job}"))["state"] == "refused"


async def test_a_newer_request_takes_the_place_of_a_job(pki, tmp_path, device, dpf_side):
    """REQ-25: the nonce was renewed while the package was awaited."""
    clock = Clock()
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        old, new = Exchange(pki, device), Exchange(pki, device)
        old_job = (await old.hand_over(client))["job"]
        await new.hand_over(client)
        clock.advance(hours=1)
        await sho.worker.work()
        assert [body["reqId"] for body in dpf_side.bodies] == [str(new.req_id)]
        assert (await client.get(f"/v1/jobs/{old_job}"))["state"] == "refused"
        assert await states(sho) == ["allocated", "free"]


async def test_jobs_survive_a_restart(pki, tmp_path, device, dpf_side):
    """REQ-16, REQ-26: before the package is made, and after it was made and not delivered."""
    clock = Clock()
    dpf_side.answers = [problem(503, "busy")]
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        exchange = Exchange(pki, device)
        first = await exchange.hand_over(client)
    clock.advance(minutes=2)
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await sho.worker.work()
    clock.advance(minutes=2)
    async with later(pki, tmp_path, dpf_side, clock, answer="at-once") as (sho, client):
        await sho.worker.work()
        answer = await exchange.hand_over(client)
        assert (await client.get(f"/v1/jobs/{first['job']}"))["state"] == "done"
    assert [body["package"] for body in dpf_side.bodies] == [answer["package"]] * 2


async def test_a_job_is_told_to_its_dpf_alone(pki, tmp_path, device, dpf_side):
    """REQ-24: another partner learns nothing, not even that there is such a job."""
    clock = Clock()
    stranger = {"allowed_clients": frozenset({DPF_ID, "stranger.example"})}
    async with later(pki, tmp_path, dpf_side, clock, **stranger) as (sho, client):
        await fill(sho)
        job = (await Exchange(pki, device).hand_over(client))["job"]
        async with (
            running(partner_application(sho), pki.server(SHO_ID)) as url,
            calling(url, pki.client("stranger.example")) as other,
        ):
            assert await refused(other.get(f"/v1/jobs/{job}")) == (404, "job-unknown")
        assert await refused(client.get("/v1/jobs/none")) == (404, "job-unknown")


async def test_a_platform_revoked_meanwhile_gets_nothing(pki, tmp_path, device, dpf_side):
    """REQ-20, REQ-65: checked again when the package is made; the subscription is free for others at once."""
    clock = Clock()
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        exchange = Exchange(pki, device)
        job = (await exchange.hand_over(client))["job"]
        await sho.store.write(lambda c: prepared.revoke(c, TRE_ID, now=clock.now))
        clock.advance(hours=1)
        await sho.worker.work()
        assert await client.get(f"/v1/jobs/{job}") == {"state": "refused", "code": "platform-revoked"}
        assert dpf_side.bodies == []
        assert await states(sho) == ["free", "free"]
        assert (await refused(exchange.hand_over(client)))[1] == "platform-revoked"


async def test_a_platform_revoked_before_the_dpf_took_its_package_gets_nothing(pki, tmp_path, device, dpf_side):
    """REQ-65, T17: made, not delivered; the keys may have left with an answer, so nobody else gets them."""
    clock = Clock()
    dpf_side.answers = [problem(503, "busy")]
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        job = (await Exchange(pki, device).hand_over(client))["job"]
        clock.advance(minutes=2)
        await sho.worker.work()
        await sho.store.write(lambda c: prepared.revoke(c, TRE_ID, now=clock.now))
        assert await client.get(f"/v1/jobs/{job}") == {"state": "refused", "code": "platform-revoked"}
        clock.advance(hours=1)
        await sho.worker.work()
        assert len(dpf_side.bodies) == 1
        assert await states(sho) == ["allocated", "free"]


@pytest.mark.parametrize("made", [False, True], ids=["still to be made", "made"])
async def test_a_subscription_barred_meanwhile_leaves_in_no_package(pki, tmp_path, device, dpf_side, made):
    """REQ-68, T17: neither made nor delivered; the DPF hears that it is refused."""
    clock = Clock()
    dpf_side.answers = [problem(503, "busy")]
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        job = (await Exchange(pki, device).hand_over(client))["job"]
        if made:
            clock.advance(minutes=2)
            await sho.worker.work()
        await sho.store.write(lambda c: repository.set_barred(c, 1, clock.now))
        clock.advance(hours=1)
        await sho.worker.work()
        assert await client.get(f"/v1/jobs/{job}") == {"state": "refused", "code": "subscription-barred"}
        assert len(dpf_side.bodies) == made
        assert (await states(sho))[0] == ("allocated" if made else "free")


async def test_one_job_that_cannot_be_done_holds_up_no_other(pki, tmp_path, device, dpf_side):
    """REQ-26, T12: it is tried again later."""
    clock, other = Clock(), Device(pki, m2me_id="urn:imei:2", tre_id="urn:m2m:tre:0002")
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        good = Exchange(pki, other, order_id=await order(sho, "o-2", m2me_id=other.m2me_id))
        await Exchange(pki, device).hand_over(client)
        clock.advance(seconds=1)
        await good.hand_over(client)
        broken = tables.subscriptions.update().where(tables.subscriptions.c.m2me_id == device.m2me_id)
        await sho.store.write(lambda c: c.execute(broken.values(k_sealed=b"not sealed")))
        clock.advance(hours=1)
        await sho.worker.work()
        assert [body["reqId"] for body in dpf_side.bodies] == [str(good.req_id)]
        (row,) = [each for each in await sho.store.read(lambda c: jobs.list_jobs(c, limit=9)) if each["attempts"]]
        assert (row["state"], row["orderId"]) == ("waiting", ORDER)


async def test_a_refusal_after_the_package_was_made_frees_no_keys(pki, tmp_path, device, dpf_side):
    """T4, REQ-16: the SHO was killed between package and job; a repeated hand-over got the package meanwhile."""
    clock = Clock()
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        exchange = Exchange(pki, device)
        job_id = (await exchange.hand_over(client))["job"]
        clock.advance(minutes=2)
        await sho.worker.work()
        await sho.store.write(lambda c: jobs.move(c, job_id, expected=(jobs.DELIVERED,), state=jobs.WAITING))
        await exchange.hand_over(client)
        job = await sho.store.read(lambda c: jobs.find(c, job_id))
        assert await sho.store.write(lambda c: job_work.refuse(c, job, code="refused-by-operator", now=clock.now))
        assert await states(sho) == ["allocated", "free"]
        assert await exchange.finish(client, counter=2) == "armed"  # the TRE had it all the same


async def test_a_package_whose_job_is_refused_while_it_is_made_stays_here(pki, tmp_path, device, dpf_side):
    """T4, REQ-26: its subscription is free for others already."""
    clock = Clock()
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        job_id = (await Exchange(pki, device).hand_over(client))["job"]
        job = await sho.store.read(lambda c: jobs.find(c, job_id))
        row = await sho.store.read(lambda c: repository.get_handover(c, job.handover_id))
        await sho.store.write(lambda c: job_work.refuse(c, job, code="refused-by-operator", now=clock.now))
        platform = sho.worker._platforms.validate(
            from_base64(job.certificates), tre_id=row.tre_id, m2me_id=row.m2me_id, now=clock.now
        )
        with pytest.raises(RequestRefused) as caught:
            await sho.worker._packages.package(row, platform, Checks(sho.trail, step="12", order=row.order_id))
        assert (caught.value.status, caught.value.code) == (409, "refused")


async def test_a_certificate_that_ended_meanwhile(pki, tmp_path, dpf_side):
    """REQ-20: a package is never made for it."""
    clock = Clock()
    device = Device(pki)
    async with later(pki, tmp_path, dpf_side, clock) as (sho, client):
        await fill(sho)
        job = (await Exchange(pki, device).hand_over(client))["job"]
        clock.advance(days=2 * 366)
        await sho.worker.work()
        assert (await client.get(f"/v1/jobs/{job}"))["code"] == "platform-certificate-refused"
        assert dpf_side.bodies == []


async def test_a_person_approves_or_refuses(pki, tmp_path, device, dpf_side):
    """REQ-26: nothing is made before."""
    clock = Clock()
    async with later(pki, tmp_path, dpf_side, clock, answer="approved") as (sho, client):
        await fill(sho)
        exchange = Exchange(pki, device)
        job = (await exchange.hand_over(client))["job"]
        clock.advance(minutes=30)
        await sho.worker.work()
        assert dpf_side.bodies == []
        found = await sho.store.read(lambda c: jobs.find(c, job))
        assert await sho.store.write(lambda c: job_work.refuse(c, found, code="refused-by-operator", now=clock.now))
        assert await client.get(f"/v1/jobs/{job}") == {"state": "refused", "code": "refused-by-operator"}
        assert await states(sho) == ["free", "free"]
        found_order = await sho.store.read(lambda c: repository.find_order(c, ORDER))
        assert found_order["state"] == "refused"
        second = Exchange(pki, device, order_id=await order(sho, "o-2"))
        job = (await second.hand_over(client))["job"]
        assert await sho.store.write(lambda c: jobs.move(c, job, expected=(jobs.APPROVAL,), state=jobs.WAITING))
        await sho.worker.work()
        assert base64.b64decode(dpf_side.bodies[0]["package"])
        assert not await sho.store.write(lambda c: job_work.refuse(c, found, code="x", now=clock.now))


async def test_the_worker_runs_beside_the_listeners(pki, tmp_path, device, dpf_side):
    """REQ-26: it outlives what goes wrong in one round, and the DPF's address may come from the order."""
    async with serving(sho_settings(pki, tmp_path, answer="later"), pki) as (sho, client):
        await fill(sho)
        order_id = await order(sho, "o-2", dpf_url=dpf_side.url)
        rounds, work = [], sho.worker.work

        async def breaking():
            rounds.append(1)
            if len(rounds) == 1:
                raise PartnerUnavailable("out of order")
            await work()
            return 0.01

        sho.worker.work = breaking
        async with background(sho.worker.run()):
            await Exchange(pki, device, order_id=order_id).hand_over(client)
            await asyncio.wait_for(dpf_side.taken.wait(), 20)
        assert dpf_side.bodies[0]["orderId"] == order_id
