"""Discovery and registration function (DRF): an attached device is registered at its home operator (step 8).

The durable thing is the registration. Every state is committed before the call that depends on it leaves; the
partners' answers are committed before the device hears of them; calls carry keys made of what is committed, so that
whoever is asked twice answers the same.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from weakref import WeakValueDictionary

import structlog
from pydantic import StringConstraints
from sqlalchemy import Connection

from actor_runtime.http import Body, Name, PartnerClient, PartnerRefused, PartnerUnavailable
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from ro.discovery import Hints, find_sho
from ro.initial_attach import alarm, token_digest
from ro.store import registration_rows, repository
from ro.store.registration_rows import Registration, State
from ro.store.repository import TokenRow

STEP: Final = "8"
MAX_TRIES: Final = 3  # home operators asked for one registration, when the DPF knows nothing of their order
MAX_USES: Final = 20  # calls with one access token
AT_ONCE: Final = 8  # registrations of one round that may wait for a partner
NO_ORDER: Final = frozenset({"no-ongoing-order"})  # codes of the DPF by which the order is gone

_ORDER_ID: Final = re.compile(r"[\x21-\x7e]{1,64}")

_log = structlog.get_logger(__name__)


class RegisterBody(Body):
    """`POST /v1/register`. The PCID is not told again: the access token stands for it."""

    m2me_id: Name
    tre_id: Name
    reason: Literal["initial", "recovery"] = "initial"
    sho: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    supplier: Name | None = None
    push: Annotated[str, StringConstraints(max_length=255, pattern=r"^udp:[A-Za-z0-9.:\[\]-]*:[0-9]{1,5}$")]


class RegistrationDenied(Exception):
    """The device may not register so; `code` is what it hears."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True, kw_only=True)
class DrfRules:
    """What the DRF goes by."""

    partners: frozenset[str]  # SHO ids
    default_sho: str | None
    bind: bool  # an identity belongs to the first device that registers with it
    push_to_peer_only: bool
    lifetime: timedelta


class RegistrationDesk:
    """Takes registrations and carries them to home operator and DPF."""

    def __init__(
        self,
        *,
        store: Store,
        trail: Trail,
        rules: DrfRules,
        shos: Mapping[str, PartnerClient],
        dpf: PartnerClient | None,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._trail, self._rules = store, trail, rules
        self._shos, self._dpf, self._now = shos, dpf, now
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- what a device asks -----------------------------------------------------------------------------------------

    async def register(self, token: str, body: RegisterBody, *, peer: str) -> Registration:
        """Take a device's registration and carry it as far as it goes now.

        Raises:
            RegistrationDenied: no such access, another device's identity, or an address that is not its own.
        """
        push = self._push_address(body.push, peer)
        digest, now = token_digest(token), self._now()
        taken = await self._store.write(lambda connection: self._take(connection, digest, body, push, now))
        if isinstance(taken, RegistrationDenied):  # not raised inside: the alarm would be rolled back
            raise taken
        self._trail.state("registration", "", taken.state, step="7", order=taken.id, detail=f"{body.m2me_id}, {push}")
        return await self.advance(taken.id)

    def _take(
        self, connection: Connection, digest: str, body: RegisterBody, push: str, now: datetime
    ) -> Registration | RegistrationDenied:
        access = repository.find_token(connection, digest, now)
        self._trail.check("access-token", access is not None, req=("REQ-72",), step="7")
        if access is None:
            return RegistrationDenied(401, "access-token-refused")
        if not repository.use_token(connection, digest, limit=MAX_USES):
            return RegistrationDenied(429, "too-many-requests")
        identity = access.identity
        own = access.m2me_id in (None, body.m2me_id) and (
            not self._rules.bind or identity.m2me_id in (None, body.m2me_id)
        )
        if not own:
            alarm(connection, self._trail, identity, body.m2me_id, step="7", now=now)
            return RegistrationDenied(403, "registration-refused")
        repository.bind_identity(connection, identity.id, digest, body.m2me_id, keep=self._rules.bind)
        self._trail.check("pcid-of-this-device", True, req=("REQ-72",), step="7", detail=identity.mask)
        return self._renewed(connection, access, body, push, now)

    def _renewed(
        self, connection: Connection, access: TokenRow, body: RegisterBody, push: str, now: datetime
    ) -> Registration:
        """The registration that goes on, or a new one in the place of those before."""
        identity = access.identity
        current = registration_rows.current_registrations(connection, body.m2me_id)
        for before in current:
            if before.state is State.DENIED and (before.pcid_id, before.generation) == (
                identity.id,
                identity.generation,
            ):
                return before
        for before in current:
            same = (before.pcid_id, before.generation, before.reason) == (
                identity.id,
                identity.generation,
                body.reason,
            )
            if same and before.state is not State.REFUSED and now - before.created_at < self._rules.lifetime:
                again = replace(before, push=push, updated_at=now)
                moved = before.state is State.AT_SHO and before.push != push
                if moved or before.state is State.BOOTSTRAPPED:  # it asks again: the bootstrap did not reach it
                    again = replace(again, state=State.AT_SHO, bootstraps=before.bootstraps + 1)
                registration_rows.put_registration(connection, again)
                return again
            registration_rows.put_registration(connection, replace(before, state=State.SUPERSEDED, updated_at=now))
        made = Registration(
            id=str(uuid.uuid4()),
            m2me_id=body.m2me_id,
            tre_id=body.tre_id,
            pcid_id=identity.id,
            generation=identity.generation,
            supplier=identity.supplier or body.supplier,  # what the CCIF wrote down counts more than what devices say
            wanted_sho=body.sho,
            reason=body.reason,
            push=push,
            created_at=now,
            updated_at=now,
        )
        registration_rows.put_registration(connection, made)
        return made

    def _push_address(self, push: str, peer: str) -> str:
        """Where bootstraps go. An empty host is where the request comes from; another one only if that is allowed:
        who names a stranger's address would have us send to him (T12)."""
        host, _, port = push.removeprefix("udp:").rpartition(":")
        named = host.strip("[]") or peer
        if not 0 < int(port) < 65536 or (self._rules.push_to_peer_only and not _same_address(named, peer)):
            raise RegistrationDenied(400, "push-address-refused")
        return f"udp:[{named}]:{port}" if ":" in named else f"udp:{named}:{port}"

    # -- what follows from it ---------------------------------------------------------------------------------------

    async def advance(self, registration_id: str) -> Registration:
        """Carry a registration as far as it goes now; the partners that do not answer are asked again later."""
        lock = self._locks.setdefault(registration_id, asyncio.Lock())
        async with lock:
            while True:
                row = await self._store.read(lambda c: registration_rows.get_registration(c, registration_id))
                if row is None:
                    raise LookupError("the registration is gone")
                moved = await self._step(row)
                if moved is None:
                    return row

    async def advance_waiting(self) -> None:
        """One round over everything that waits: after a start, and from time to time."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(registration_id: str) -> None:
            async with places:
                try:
                    await self.advance(registration_id)
                except Exception:  # the others go on, and this one has the next round
                    _log.exception("ro.registration_failed", registration=registration_id)

        await asyncio.gather(*map(one, await self._store.read(registration_rows.waiting_registrations)))

    async def advance_for_ever(self, pause_s: float) -> None:
        """Rounds until cancelled."""
        while True:
            try:
                await self.advance_waiting()
            except Exception:  # a round that fails must not be the last one
                _log.exception("ro.round_failed")
            await asyncio.sleep(pause_s)

    async def _step(self, row: Registration) -> Registration | None:
        """One arrow; None when nothing can be done now."""
        if row.state in registration_rows.WAITING and self._now() - row.created_at >= self._rules.lifetime:
            return await self._move(row, State.REFUSED, detail="nobody took it in time")
        if row.state is State.PENDING:
            return await self._route(row)
        if row.state is State.ROUTED:
            return await self._tell_sho(row)
        if row.state is State.AT_SHO:
            return await self._tell_dpf(row)
        return None

    async def _route(self, row: Registration) -> Registration | None:
        def hints(connection: Connection) -> Hints:
            return Hints(
                operator=row.sho_id,
                subscriber=row.wanted_sho,
                device_route=registration_rows.find_route(connection, "m2me", row.m2me_id),
                supplier_route=registration_rows.find_route(connection, "supplier", row.supplier),
                default=self._rules.default_sho,
            )

        found = find_sho(await self._store.read(hints), self._rules.partners)
        if found.sho_id is None:
            detail = f"no home operator: decided by {found.decided_by}"
            if row.detail != detail:  # told once
                self._trail.check("home-operator-found", False, req=("REQ-13",), step=STEP, order=row.id, detail=detail)
                await self._write(row, replace(row, detail=detail))
            return None
        self._trail.check(
            "home-operator-found", True, req=("REQ-13",), step=STEP, order=row.id,
            detail=f"{found.sho_id}, decided by {found.decided_by}",
        )  # fmt: skip
        return await self._move(row, State.ROUTED, sho_id=found.sho_id, tries=row.tries + 1)

    async def _tell_sho(self, row: Registration) -> Registration | None:
        sho = self._shos.get(row.sho_id or "")
        if sho is None:  # it was a partner when the registration was routed
            return await self._move(row, State.PENDING, sho_id=None)
        self._trail.message(step=STEP, direction="RO→SHO", summary="registration", octets=0, order=row.id)
        answer = await self._ask(
            row, sho, "/v1/registrations", {"m2meId": row.m2me_id, "reason": row.reason}, f"{row.id}:sho:{row.tries}"
        )
        if isinstance(answer, PartnerRefused):
            return await self._move(row, State.REFUSED, detail=f"home operator: {answer.code}")
        order_id = answer.get("orderId") if answer is not None else None
        if not isinstance(order_id, str) or not _ORDER_ID.fullmatch(order_id):
            return None
        return await self._move(row, State.AT_SHO, order_id=order_id, bootstraps=row.bootstraps + 1)

    async def _tell_dpf(self, row: Registration) -> Registration | None:
        if self._dpf is None:
            return None
        self._trail.message(step=STEP, direction="RO→DPF", summary="bootstrap wanted", octets=0, order=row.id)
        answer = await self._ask(
            row, self._dpf, "/v1/bootstraps", {"m2meId": row.m2me_id, "push": row.push},
            f"{row.id}:bootstrap:{row.bootstraps}",
        )  # fmt: skip
        if isinstance(answer, PartnerRefused):
            if answer.code in NO_ORDER and row.tries < MAX_TRIES:  # the order ended meanwhile: a new one is needed
                return await self._move(row, State.ROUTED, order_id=None, tries=row.tries + 1)
            return await self._move(row, State.REFUSED, detail=f"DPF: {answer.code}")
        if answer is None:
            return None
        return await self._move(row, State.BOOTSTRAPPED, detail="")

    async def _ask(
        self, row: Registration, partner: PartnerClient, path: str, body: dict[str, object], key: str
    ) -> dict[str, Any] | PartnerRefused | None:
        """The partner's answer; None when there is none now."""
        try:
            return await partner.post(path, body, idempotency_key=key)
        except PartnerRefused as exc:
            if exc.status in (408, 425, 429):  # not a decision: the same call may succeed later
                self._trail.note(f"{path}: not now: {exc.code}", step=STEP, order=row.id)
                return None
            return exc
        except PartnerUnavailable as exc:
            self._trail.note(f"{path}: no answer", step=STEP, order=row.id)
            _log.warning("ro.partner_down", path=path, reason=str(exc))
            return None

    async def _move(self, row: Registration, state: State, **changes: Any) -> Registration:  # noqa: ANN401 (of the row)
        moved = replace(row, state=state, **changes)
        if await self._write(row, moved):
            self._trail.state("registration", row.state, state, step=STEP, order=row.id, detail=moved.detail)
        return moved

    async def _write(self, before: Registration, after: Registration) -> bool:
        """Write it unless somebody else did since it was read (the device, an operator): then that is gone on with."""
        after = replace(after, detail=after.detail[:255], updated_at=self._now())

        def write(connection: Connection) -> bool:
            if registration_rows.get_registration(connection, before.id, for_update=True) != before:
                return False
            registration_rows.put_registration(connection, after)
            return True

        return await self._store.write(write)


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one) == ipaddress.ip_address(other)
    except ValueError:
        return False
