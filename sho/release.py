"""Release token: this SHO lets a named other one take the place of an MCIM (change of SHO, flows F6)."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Final

from actor_runtime.errors import ActorError
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim import release_token
from mcim.release_token import Release
from sho.handover import CLOCK_SKEW
from sho.identity import ShoIdentity
from sho.store import effects, repository

STEP: Final = "12"


def issue_release(
    *,
    store: Store,
    trail: Trail,
    identity: ShoIdentity,
    mcim_id: str,
    tre_id: str,
    new_sho_id: str,
    life: timedelta,
    now: datetime,
) -> bytes:
    """A token, recorded before it exists outside.

    Raises:
        ActorError: the MCIM is not ours, or not in that TRE.
    """
    subscription = store.read_sync(lambda c: repository.find_subscription_of_mcim(c, mcim_id))
    handover = store.read_sync(lambda c: repository.find_handover_of_mcim(c, mcim_id))
    installed = (repository.ARMED, repository.SUSPENDED, repository.FELL_BACK)
    if subscription is None or handover is None or subscription.state not in installed:
        raise ActorError(f"no MCIM {mcim_id} of ours is on a device", hint="`sho subscription list` shows them")
    if subscription.tre_id != tre_id:
        raise ActorError(f"MCIM {mcim_id} is in another TRE than {tre_id}")
    if new_sho_id == identity.sho_id:
        raise ActorError("a release is for another SHO")
    not_before, not_after = (now - CLOCK_SKEW).replace(microsecond=0), (now + life).replace(microsecond=0)
    release = Release(
        mcim_id=uuid.UUID(mcim_id),
        tre_id=tre_id,
        m2me_id=handover.m2me_id,
        old_sho_id=identity.sho_id,
        new_sho_id=new_sho_id,
        not_before=not_before,
        not_after=not_after,
    )
    token = release_token.issue_release(
        release,
        token_id=uuid.uuid4(),
        signing_key=identity.signing_key,
        signer_chain=identity.chain,
        container=handover.container,  # the TRE took it before
    )
    store.write_sync(
        lambda c: effects.add_release(
            c, mcim_id=mcim_id, tre_id=tre_id, new_sho_id=new_sho_id, not_after=not_after, now=now
        )
    )
    trail.note(f"MCIM {mcim_id} is released to {new_sho_id}", step=STEP, order=handover.order_id)
    return token
