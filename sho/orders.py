"""Opening an order for a device at the DPF: step 8 of TR 33.812 §5.1.3.7.1, from the operator's side."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from actor_runtime.errors import ActorError
from actor_runtime.http import PartnerClient, PartnerRefused, PartnerUnavailable
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.vocabulary import Operation
from sho.store import handovers, repository
from sho.store.repository import Terms

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
    terms: Terms | None = None,
) -> dict[str, object]:
    """Record the order, ask the DPF to open it, record its id there. `terms` None: install a new MCIM.

    `own_id` is an order that is recorded already: nobody knows whether the DPF opened it, and it is asked again.

    Raises:
        ActorError: the operation cannot be ordered for this device; the DPF refuses, cannot be reached, or does not
            name an order. In the two latter cases the order stays "requested": nobody knows whether the DPF opened it.
    """
    wanted = terms or Terms()
    if own_id is None:
        new_id = own_id = str(uuid.uuid4())

        def record(connection: Connection) -> None:
            _require_target(connection, m2me_id, wanted)
            repository.add_order(
                connection, id=new_id, m2me_id=m2me_id, dpf_url=dpf_url, reason=reason, now=now, terms=wanted
            )

        await store.write(record)
    body: dict[str, object] = {
        "m2meId": m2me_id, "shoId": sho_id, "reason": reason, "operation": wanted.operation.label,
    }  # fmt: skip
    if wanted.mcim_id is not None:
        body["mcimId"] = wanted.mcim_id
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
    if not await store.write(lambda c: repository.set_order_opened(c, own_id, order_id)):
        raise ActorError("the DPF names an order that is another one")
    trail.state("order", "requested", "open", step=STEP, order=order_id, detail=f"for {m2me_id}")
    return {
        "id": own_id, "orderId": order_id, "m2meId": m2me_id, "operation": wanted.operation.label, "state": "open",
    }  # fmt: skip


def make_terms(operation: str, *, mcim_id: str | None, replaces: str | None, release_token: bytes | None) -> Terms:
    """What an order is to do, from what a person said.

    Raises:
        ActorError: no such operation, or something is missing for it or does not belong to it.
    """
    known = {each.label: each for each in Operation if each is not Operation.RELEASE}
    if operation not in known:
        raise ActorError(f"no operation {operation}", hint="one of " + ", ".join(known))
    chosen = known[operation]
    if (replaces is not None) is not (chosen is Operation.REPLACE):
        raise ActorError("--replaces names the MCIM that a replace gives up, and belongs to it alone")
    if release_token is not None and chosen is not Operation.REPLACE:
        raise ActorError("a release token belongs to a replace alone")
    if (mcim_id is None) is not (chosen in (Operation.INSTALL, Operation.REPLACE)):
        raise ActorError("--mcim names the target of update, activate, suspend and delete, and belongs to them alone")
    for value in (mcim_id, replaces):
        if value is not None and not _is_uuid(value):
            raise ActorError("an MCIM id is a UUID in lower case", hint="`sho subscription list` shows them")
    return Terms(operation=chosen, mcim_id=mcim_id, replaces=replaces, release_token=release_token)


def _is_uuid(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _require_target(connection: Connection, m2me_id: str, terms: Terms) -> None:
    """A typing error is better found here than at the device; what counts is checked at the hand-over again."""
    if terms.mcim_id is None:
        return
    subscription = repository.find_subscription_of_mcim(connection, terms.mcim_id)
    if subscription is None and terms.operation is Operation.DELETE:
        return  # another operator's, released to us: the hand-over knows the TRE and decides
    if subscription is None or subscription.m2me_id != m2me_id:
        raise ActorError(f"MCIM {terms.mcim_id} is not on {m2me_id}", hint="`sho subscription list` shows them")
    if subscription.state not in handovers.STATES_FOR[terms.operation]:
        raise ActorError(f"{terms.operation.label} is not possible while the subscription is {subscription.state}")
