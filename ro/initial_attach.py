"""Initial connectivity function (ICF): a device attaches with its PCID and gets connectivity to the RO alone.

TR 33.812 §5.1.3.7.1 steps 2 to 6. The visited network is not simulated: the device says which one it is in. Nor is
IP connectivity: what stands for it is an access token that opens the registration function and nothing else.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection

from actor_runtime.store import Store
from actor_runtime.trail import Trail
from home_network.sessions import Attached, AttachRefused, AttachSessions, Challenge, Subscriber
from mcim.aka import EPS_AMF, next_sqn, sqn_after_resynchronisation
from mcim.errors import InvalidArgument
from mcim.network_keys import AuthenticationFunctions
from ro.identities import Vault
from ro.store import repository
from ro.store.repository import IdentityRow

UNKNOWN_NETWORK: Final = "unknown"
ATTACHED: Final = "attached"
REFUSED: Final = "refused"
FOREIGN_DEVICE: Final = "foreign-device"  # kind of alarm: an identity in the hands of another device (T7)

_VNO: Final = re.compile(r"[0-9]{5,6}")  # MCC and MNC

_log = structlog.get_logger(__name__)


class ProvisionalIdentities:
    """A `SubscriberStore`: issued identities within their validity may attach, so often an hour."""

    def __init__(self, store: Store, vault: Vault, *, per_hour: int, now: Callable[[], datetime]) -> None:
        self._store, self._vault, self._per_hour, self._now = store, vault, per_hour, now

    @property
    def step(self) -> str:
        """See `SubscriberStore.step`."""
        return "5"

    @property
    def eligible(self) -> tuple[str, str, str]:
        """See `SubscriberStore.eligible`."""
        return "pcid-valid", "REQ-72", "3"

    def index(self, imsi: str) -> bytes:
        """See `SubscriberStore.index`."""
        return self._vault.index(imsi)

    async def use_next_sqn(self, index: bytes, *, after: int | None) -> Subscriber:
        """See `SubscriberStore.use_next_sqn`."""

        def use(connection: Connection) -> tuple[IdentityRow, int]:
            row = self.may_attach(connection, index, for_update=True)
            try:
                sqn = next_sqn(row.sqn) if after is None else sqn_after_resynchronisation(row.sqn, after)
            except InvalidArgument as exc:
                raise AttachRefused(f"the sequence numbers of {row.mask} are used up") from exc
            repository.set_sqn(connection, row.id, sqn)
            return row, sqn

        row, sqn = await self._store.write(use)
        return Subscriber(functions=self._functions(row), amf=EPS_AMF, sqn=sqn)

    async def functions(self, index: bytes) -> AuthenticationFunctions:
        """See `SubscriberStore.functions`."""
        return self._functions(await self._store.read(lambda connection: self.may_attach(connection, index)))

    async def mark_attached(self, index: bytes, now: datetime) -> str:
        """See `SubscriberStore.mark_attached`. It counts when it is admitted (`InitialAttach.admit`)."""
        return (await self.check(index)).mask

    async def check(self, index: bytes) -> IdentityRow:
        """Whether an identity may attach now.

        Raises:
            AttachRefused
        """
        return await self._store.read(lambda connection: self.may_attach(connection, index))

    def may_attach(self, connection: Connection, index: bytes, *, for_update: bool = False) -> IdentityRow:
        """The identity, if it may attach now; `for_update` keeps other writers from it until the unit ends.

        Raises:
            AttachRefused: unknown, withdrawn, expired, or too often within the last hour.
        """
        now = self._now()
        row = repository.find_identity(connection, index, for_update=for_update)
        if row is None:
            raise AttachRefused("no such PCID")
        if not row.valid(now):
            raise AttachRefused(f"{row.mask} is {row.state if row.state != repository.ISSUED else 'expired'}")
        if repository.attaches_since(connection, row.id, now - repository.WINDOW) >= self._per_hour:
            raise AttachRefused(f"{row.mask} attached {self._per_hour} times within the last hour")
        return row

    def _functions(self, row: IdentityRow) -> AuthenticationFunctions:
        return self._vault.open_keys(row.sealed, row.generation).functions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What an attached device gets: who it is to us, and what opens the registration function."""

    imsi_mask: str
    token: str
    expires_in_s: int


class InitialAttach:
    """The ICF's attaches, with their counters and access tokens."""

    def __init__(
        self,
        *,
        store: Store,
        trail: Trail,
        identities: ProvisionalIdentities,
        sessions: AttachSessions,
        token_ttl_s: int,
        max_networks: int,
    ) -> None:
        self._store, self._trail, self._identities, self._sessions = store, trail, identities, sessions
        self._token_ttl_s, self._max_networks = token_ttl_s, max_networks

    async def challenge(self, imsi: str, *, vno: str, m2me_id: str | None = None) -> Challenge:
        """Vectors for a PCID (steps 3 and 4); `m2me_id` is the device that the PVA vouched for.

        Raises:
            AttachRefused, AttachBusy.
        """
        context = {"vno": vno} if m2me_id is None else {"vno": vno, "m2meId": m2me_id}
        index = self._identities.index(imsi)
        # Read before the vector is made: what is given out again later has another generation (REQ-72).
        before = await self._store.read(lambda connection: repository.find_identity(connection, index))
        if before is not None:
            context["generation"] = str(before.generation)
        challenge = await self._sessions.start(imsi, context)
        self._trail.message(step="4", direction="RO→VNO", summary="authentication vector", octets=32)
        return challenge

    async def admit(self, attached: Attached, now: datetime) -> Access:
        """Steps 5 and 6: AKA is done, the device may reach the RO and nobody else.

        Raises:
            AttachRefused: the identity was withdrawn, or given out again, since the challenge; or too many attaches.
        """
        token = secrets.token_urlsafe(32)
        vno = attached.context["vno"]

        def keep(connection: Connection) -> None:
            identity = self._identities.may_attach(connection, attached.index, for_update=True)
            if attached.context.get("generation") != str(identity.generation):
                raise AttachRefused(f"{identity.mask} was given out again meanwhile")
            repository.note_attach(connection, identity.id, now)
            repository.put_token(
                connection,
                identity,
                digest=token_digest(token),
                m2me_id=attached.context.get("m2meId"),
                vno=vno,
                expires_at=now + timedelta(seconds=self._token_ttl_s),
                now=now,
            )
            repository.count_visit(connection, vno, ATTACHED, now, max_networks=self._max_networks)

        await self._store.write(keep)
        self._trail.note(
            f"{attached.imsi_mask}: connectivity to the registration operator alone, {self._token_ttl_s} s", step="6"
        )
        return Access(imsi_mask=attached.imsi_mask, token=token, expires_in_s=self._token_ttl_s)

    def count_refusal(self, vno: str, now: datetime) -> None:
        """A refusal in that visited network (step 2)."""
        self._store.post(
            lambda connection: repository.count_visit(connection, vno, REFUSED, now, max_networks=self._max_networks)
        )


def network_name(vno: str | None) -> str:
    """The visited network as counters have it: what a device says is bounded, and no text of its own."""
    return vno if vno is not None and _VNO.fullmatch(vno) else UNKNOWN_NETWORK


def token_digest(token: str) -> str:
    """What is kept of an access token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def alarm(
    connection: Connection, trail: Trail, identity: IdentityRow, m2me_id: str, *, step: str, now: datetime
) -> None:
    """An identity in the hands of another device (T7): on the operator's list, in the trail and in the log."""
    repository.raise_alarm(connection, FOREIGN_DEVICE, identity.id, m2me_id, now)
    trail.check("pcid-of-this-device", False, req=("REQ-72",), step=step, detail=f"{identity.mask}: T7, {m2me_id}")
    _log.error("ro.alarm", kind=FOREIGN_DEVICE, pcid=identity.mask, m2me_id=m2me_id, bound_to=identity.m2me_id)
