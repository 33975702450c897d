"""Later answers (REQ-26): a worker makes packages when they are due and takes them to the DPF until it has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection

from actor_runtime.http import PartnerRefused, PartnerUnavailable
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.errors import CertificateRefused
from sho.checks import Checks, RequestRefused
from sho.handover import package_members
from sho.packaging import STEP, PackageMaker
from sho.platform_checks import PlatformChecks, from_base64
from sho.store import effects, handovers, jobs, prepared, repository
from sho.store.jobs import JobRow
from sho.store.repository import HandoverRow

LONGEST_PAUSE: Final = timedelta(minutes=5)  # between two tries to deliver
POLL_S: Final = 1.0  # jobs that a command line approved are seen so soon
ORDER_OVER: Final = frozenset((404, 409, 410))  # statuses by which a DPF says that it does not wait any more

_log = structlog.get_logger(__name__)


class DpfClient(Protocol):
    """What the worker needs of a partner client."""

    async def post(self, path: str, body: Mapping[str, object], *, idempotency_key: str) -> dict[str, object]:
        """As `PartnerClient.post`."""


def refuse(connection: Connection, job: JobRow, *, code: str, now: datetime) -> bool:
    """End a job that is not made yet; its subscription is free again. False when it is made, or over.

    A package may be there all the same, after a crash in between: then it may have left, as the answer to a repeated
    hand-over, and the subscription stays with the device.
    """
    if not jobs.move(connection, job.id, expected=(jobs.APPROVAL, jobs.WAITING), state=jobs.REFUSED, code=code):
        return False
    row = repository.get_handover(connection, job.handover_id)
    if row.package_sealed is None:
        effects.release(connection, row, available_from=now)
    handovers.set_state(connection, row.id, repository.FAILED)
    repository.set_order_state(connection, row.order_id, "refused")
    return True


def _withdrawn(connection: Connection, row: HandoverRow) -> str | None:
    """Why a package leaves no more, though it was promised; the code for the DPF."""
    if prepared.is_revoked(connection, row.tre_id, row.platform_key_id):
        return "platform-revoked"
    return "subscription-barred" if handovers.is_barred(connection, row) else None


class JobDesk:
    """Tells a DPF about its jobs."""

    def __init__(self, *, store: Store, packages: PackageMaker) -> None:
        self._store, self._packages = store, packages

    async def find(self, job_id: str, *, client_names: frozenset[str]) -> dict[str, object]:
        """State of a job, with the package once it is made.

        Raises:
            RequestRefused: no such job of this DPF.
        """
        job = await self._store.read(lambda c: jobs.find(c, job_id))
        if job is None or job.dpf_id not in client_names:
            raise RequestRefused("job-unknown", "no such job of this DPF", status=404)
        if job.state in (jobs.APPROVAL, jobs.WAITING):
            return {"state": "waiting"}
        if job.state in (jobs.REFUSED, jobs.OVER):
            return {"state": "refused", "code": job.code or "order-over"}
        row = await self._store.read(lambda c: repository.get_handover(c, job.handover_id))
        if withdrawn := await self._store.read(lambda c: _withdrawn(c, row)):
            return {"state": "refused", "code": withdrawn}
        return {"state": "done", **package_members(self._packages.kept(row))}


class JobWorker:
    """Makes and delivers. Everything it needs to go on after a crash is in the database."""

    def __init__(
        self,
        *,
        store: Store,
        trail: Trail,
        platforms: PlatformChecks,
        packages: PackageMaker,
        dpf: Callable[[str], DpfClient],
        dpfs: Mapping[str, str],
        first_pause: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._trail = store, trail
        self._platforms, self._packages = platforms, packages
        self._dpf, self._dpfs = dpf, dpfs  # by URL; URL by id
        self._first_pause, self._now = first_pause, now

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                pause = await self.work()
            except Exception:
                _log.exception("sho.job_worker_failed")
                pause = POLL_S
            await asyncio.sleep(pause)

    async def work(self) -> float:
        """Do what is due; returns the seconds until it is worth looking again."""
        now = self._now()
        due = await self._store.read(lambda c: jobs.due(c, now))
        # All at once: a DPF that does not answer holds up its own jobs alone.
        async with asyncio.TaskGroup() as group:
            for job in due:
                group.create_task(self._do(job, now))
        following = await self._store.read(jobs.next_due)
        if following is None:
            return POLL_S
        return min(POLL_S, max(0.0, (following - self._now()).total_seconds()))

    async def _do(self, job: JobRow, now: datetime) -> None:
        try:
            await (self._make(job, now) if job.state == jobs.WAITING else self._deliver(job, now))
        except Exception:  # one job that cannot be done must not keep the others from being done
            _log.exception("sho.job_failed", job=job.id)
            await self._postpone(job, now)

    async def _postpone(self, job: JobRow, now: datetime) -> int:
        attempts = job.attempts + 1
        pause = min(LONGEST_PAUSE, self._first_pause * 2 ** min(job.attempts, 16))
        await self._store.write(lambda c: jobs.postpone(c, job.id, due_at=now + pause, attempts=attempts))
        return attempts

    async def _make(self, job: JobRow, now: datetime) -> None:
        row = await self._store.read(lambda c: repository.get_handover(c, job.handover_id))
        checks = Checks(self._trail, step=STEP, order=row.order_id)
        if await self._is_over(job, row):
            return
        try:
            certificates = from_base64(job.certificates)
            platform = self._platforms.validate(certificates, tre_id=row.tre_id, m2me_id=row.m2me_id, now=now)
            withdrawn = await self._store.read(lambda c: _withdrawn(c, row))
            checks.require(
                "package-still-wanted", withdrawn is None, ("REQ-65", "REQ-68"), code=withdrawn or "",
                detail=withdrawn or "",
            )  # fmt: skip
            await self._packages.package(row, platform, checks)
        except CertificateRefused as exc:
            checks.failed("platform-certificate", ("REQ-20",), code="platform-certificate-refused", detail=str(exc))
            await self._refuse(job, row, "platform-certificate-refused", now)
        except RequestRefused as exc:
            await self._refuse(job, row, exc.code, now)
        else:
            await self._store.write(lambda c: jobs.move(c, job.id, expected=(jobs.WAITING,), state=jobs.MADE))
            made = await self._store.read(lambda c: jobs.find(c, job.id))
            if made is not None:
                await self._deliver(made, now)

    async def _deliver(self, job: JobRow, now: datetime) -> None:
        row = await self._store.read(lambda c: repository.get_handover(c, job.handover_id))
        if await self._is_over(job, row):
            return
        if withdrawn := await self._store.read(lambda c: _withdrawn(c, row)):
            await self._end(job, row, jobs.REFUSED, f"meanwhile: {withdrawn}", code=withdrawn)
            return
        url = await self._url(job, row)
        try:
            if url is None:
                raise PartnerUnavailable(f"no address for {job.dpf_id}")
            body = {
                "orderId": row.order_id,
                "reqId": row.req_id,
                **package_members(self._packages.kept(row)),
            }
            answer = await self._dpf(url).post("/v1/packages", body, idempotency_key=f"{row.req_id}:package")
            if answer.get("accepted") is not True:
                raise PartnerUnavailable("it did not accept the package")
        except PartnerRefused as exc:
            if exc.status in ORDER_OVER:
                await self._end(job, row, jobs.OVER, f"the DPF says {exc.code}", code=exc.code)
                return
            reason = f"{exc.status} {exc.code}"
        except PartnerUnavailable as exc:
            reason = str(exc)
        else:
            await self._end(job, row, jobs.DELIVERED, "the DPF has the package")
            return
        attempts = await self._postpone(job, now)
        self._trail.note(
            f"the DPF has not got the package yet, try {attempts}: {reason}", step=STEP, order=row.order_id
        )

    async def _is_over(self, job: JobRow, row: HandoverRow) -> bool:
        order = await self._store.read(lambda c: repository.find_order(c, row.order_id))
        live = row.state in (repository.ALLOCATED, repository.PACKAGED)
        if live and (order is None or order["state"] in repository.GOING_ON):
            return False
        await self._end(job, row, jobs.OVER, f"the request is {row.state}, its order {order and order['state']}")
        return True

    async def _url(self, job: JobRow, row: HandoverRow) -> str | None:
        order = await self._store.read(lambda c: repository.find_order(c, row.order_id))
        of_order = str(order["dpf"]) if order is not None else None
        return self._dpfs.get(job.dpf_id, of_order)

    async def _refuse(self, job: JobRow, row: HandoverRow, code: str, now: datetime) -> None:
        await self._store.write(lambda c: refuse(c, job, code=code, now=now))
        self._trail.note(f"the package is refused: {code}", step=STEP, order=row.order_id)

    async def _end(self, job: JobRow, row: HandoverRow, state: str, text: str, *, code: str | None = None) -> None:
        expected = (jobs.WAITING, jobs.MADE)
        await self._store.write(lambda c: jobs.move(c, job.id, expected=expected, state=state, code=code))
        self._trail.note(f"job {job.id} {state}: {text}", step=STEP, order=row.order_id)
