"""Registrations by a registration operator (TR 33.812 §5.1.3.7.1 step 8): its DRF names a device, we open the order."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from actor_runtime.http import Body, Name, PartnerClient
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from sho.checks import RequestRefused
from sho.orders import open_order
from sho.store import repository

KEY: Final = re.compile("[!-~]{1,128}")  # an Idempotency-Key
_KEYS: Final = uuid.UUID("0d5e8e0a-2f5c-4c1e-9a52-9b0c0b7f6a51")  # namespace of our order ids made of registrars' keys


class RegistrationBody(Body):
    """`POST /v1/registrations`."""

    m2me_id: Name
    reason: Literal["initial", "change-of-sho", "update", "recovery"] = "initial"


class DpfUnavailable(Exception):
    """Nobody knows whether the DPF opened the order; the same registration may be made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationDesk:
    """Opens an order at the DPF for each device that a registrar names."""

    store: Store
    trail: Trail
    dpf: PartnerClient
    dpf_url: str
    sho_id: str
    order_lifetime_s: int

    async def register(self, body: RegistrationBody, *, registrar: str, key: str, now: datetime) -> str:
        """The DPF's id of the order for that device.

        The same key of the same registrar is the same order, also after a crash between our record and the DPF's
        answer; a device that has an order keeps it.

        Raises:
            RequestRefused: no key, or the DPF refuses the order.
            DpfUnavailable
        """
        if KEY.fullmatch(key) is None:
            raise RequestRefused("malformed-request", "an idempotency key is needed", status=400)
        own_id = str(uuid.uuid5(_KEYS, f"{registrar}\0{key}"))

        def record(connection: Connection) -> dict[str, object]:
            known = repository.find_order(connection, own_id)
            if known is not None:
                return known
            since = now - timedelta(seconds=self.order_lifetime_s)
            ongoing = repository.ongoing_order(connection, body.m2me_id, since=since)
            if ongoing is not None:
                return ongoing
            repository.add_order(
                connection, id=own_id, m2me_id=body.m2me_id, dpf_url=self.dpf_url, reason=body.reason, now=now
            )
            return {"id": own_id, "m2meId": body.m2me_id, "state": "requested", "orderId": None, "reason": body.reason}

        order = await self.store.write(record)
        if order["m2meId"] != body.m2me_id:
            raise RequestRefused("key-used-for-another-device", "the idempotency key was used", status=409)
        if order["state"] == "requested":
            return await self._open(order, now)
        if order["orderId"] is None:
            raise RequestRefused("order-refused", "the DPF refused the order", status=409)
        return str(order["orderId"])

    async def _open(self, order: dict[str, object], now: datetime) -> str:
        own_id = str(order["id"])
        try:
            opened = await open_order(
                store=self.store,
                trail=self.trail,
                partner=self.dpf,
                sho_id=self.sho_id,
                m2me_id=str(order["m2meId"]),
                dpf_url=self.dpf_url,
                reason=str(order["reason"]),
                expires_in_s=self.order_lifetime_s,
                now=now,
                own_id=own_id,
            )
        except ActorError as exc:
            known = await self.store.read(lambda connection: repository.find_order(connection, own_id))
            if known is not None and known["state"] == "refused":
                raise RequestRefused("order-refused", str(exc), status=409) from exc
            raise DpfUnavailable(str(exc)) from exc
        return str(opened["orderId"])
