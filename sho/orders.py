"""Opening an order for a device at the DPF: step 8 of TR 33.812 §5.1.3.7.1, from the operator's side."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final

from actor_runtime.errors import ActorError
from actor_runtime.http import PartnerClient, PartnerRefused, PartnerUnavailable
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from sho.store import repository

STEP: Final = "8"


async def open_order(
    *,
    store: Store,
    trail: Trail,
    partner: PartnerClient,
    sho_id: str,
    m2me_id: str,
    dpf_url: str,
    reason: str,
    expires_in_s: int | None,
    now: datetime,
    own_id: str | None = None,
) -> dict[str, object]:
    """Record the order, ask the DPF to open it, record its id there.

    `own_id` is an order that is recorded already: nobody knows whether the DPF opened it, and it is asked again.

    Raises:
        ActorError: the DPF refuses, cannot be reached, or does not name an order. In the two latter cases the order
            stays "requested": nobody knows whether the DPF opened it.
    """
    if own_id is None:
        new_id = own_id = str(uuid.uuid4())
        await store.write(
            lambda c: repository.add_order(c, id=new_id, m2me_id=m2me_id, dpf_url=dpf_url, reason=reason, now=now)
        )
    body: dict[str, object] = {"m2meId": m2me_id, "shoId": sho_id, "reason": reason}
    if expires_in_s is not None:
        body["expiresIn"] = expires_in_s
    try:
        answer = await partner.post("/v1/orders", body, idempotency_key=f"{own_id}:order")
    except PartnerRefused as exc:
        await store.write(lambda c: repository.set_order_refused(c, own_id))
        trail.state("order", "requested", "refused", step=STEP, detail=exc.code)
        raise ActorError(f"the DPF refuses the order: {exc.code} {exc.detail}".rstrip()) from exc
    except PartnerUnavailable as exc:
        raise ActorError(f"the DPF does not answer: {exc}", hint="is it running, and does the URL name it?") from exc
    order_id = answer.get("orderId")
    if not isinstance(order_id, str) or not 1 <= len(order_id) <= 64:
        raise ActorError("the DPF's answer names no order")
    await store.write(lambda c: repository.set_order_opened(c, own_id, order_id))
    trail.state("order", "requested", "open", step=STEP, order=order_id, detail=f"for {m2me_id}")
    return {"id": own_id, "orderId": order_id, "m2meId": m2me_id, "state": "open"}
