"""Authentication centre: the subscriptions of this operator as a home network sees them (REQ-68, REQ-69)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from actor_runtime.store import Store
from actor_runtime.trail import Trail
from home_network.sessions import AttachRefused, AttachSessions, Subscriber
from mcim.aka import next_sqn, sqn_after_resynchronisation
from mcim.errors import InvalidArgument
from mcim.network_keys import AuthenticationFunctions
from sho.store import repository
from sho.subscriptions import Vault

STEP: Final = "16"


class Subscriptions:
    """A `SubscriberStore`: armed subscriptions that nobody barred may attach, no others."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store, self._vault = store, vault

    @property
    def step(self) -> str:
        """See `SubscriberStore.step`."""
        return STEP

    @property
    def eligible(self) -> tuple[str, str, str]:
        """See `SubscriberStore.eligible`."""
        return "subscription-armed", "REQ-68", STEP

    def index(self, imsi: str) -> bytes:
        """See `SubscriberStore.index`."""
        return self._vault.index(imsi)

    async def use_next_sqn(self, index: bytes, *, after: int | None) -> Subscriber:
        """See `SubscriberStore.use_next_sqn`."""

        def use(connection: Connection) -> tuple[repository.SubscriptionRow, int, str | None]:
            row = _armed(connection, index, for_update=True)
            try:
                sqn = next_sqn(row.sqn) if after is None else sqn_after_resynchronisation(row.sqn, after)
            except InvalidArgument as exc:
                raise AttachRefused("the sequence numbers of this subscription are used up") from exc
            repository.set_sqn(connection, row.id, sqn)
            handover = repository.find_handover_of_mcim(connection, row.mcim_id) if row.mcim_id else None
            return row, sqn, handover.order_id if handover else None

        row, sqn, order = await self._store.write(use)
        return Subscriber(functions=self._vault.open(row.sealed).functions(), amf=row.amf, sqn=sqn, order=order)

    async def functions(self, index: bytes) -> AuthenticationFunctions:
        """See `SubscriberStore.functions`."""
        row = await self._store.read(lambda connection: _armed(connection, index))
        return self._vault.open(row.sealed).functions()

    async def mark_attached(self, index: bytes, now: datetime) -> str:
        """See `SubscriberStore.mark_attached`."""

        def attach(connection: Connection) -> str:
            row = _armed(connection, index, for_update=True)
            repository.set_attached(connection, row.id, now)
            return row.imsi_mask

        return await self._store.write(attach)


class AuthenticationCentre(AttachSessions):
    """The attach sessions of this operator's subscribers."""

    def __init__(
        self,
        *,
        store: Store,
        vault: Vault,
        trail: Trail,
        session_ttl_s: float,
        max_sessions: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            Subscriptions(store, vault), trail, session_ttl_s=session_ttl_s, max_sessions=max_sessions, clock=clock
        )


def _armed(connection: Connection, index: bytes, *, for_update: bool = False) -> repository.SubscriptionRow:
    row = repository.find_subscription(connection, index, for_update=for_update)
    if row is None or row.state != repository.ARMED:
        raise AttachRefused("no armed subscription with this identity")
    if row.barred_at is not None:
        raise AttachRefused(f"{row.imsi_mask} is barred")
    return row
