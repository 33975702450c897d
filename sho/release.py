"""Release token: this SHO lets a named other one take the place of an MCIM (change of SHO, mo-design §6.6)."""

from __future__ import annotations

import os
import uuid
from datetime import datetime, timedelta
from typing import Final

from actor_runtime.errors import ActorError
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from mcim.package import build_package
from mcim.package_header import PackageHeader
from mcim.vocabulary import Operation
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
    """A signed header of operation release. It is recorded before it exists outside.

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
    header = PackageHeader(
        transaction_id=uuid.uuid4(),
        sequence=handover.sequence,
        registration_nonce=os.urandom(32),  # of no registration: the token lies inside a package that has one
        m2me_id=handover.m2me_id,
        tre_id=tre_id,
        platform_key_id=handover.platform_key_id,
        sho_id=identity.sho_id,
        dpf_id=handover.dpf_id,
        operation=Operation.RELEASE,
        mcim_id=uuid.UUID(mcim_id),
        suite=handover.suite,
        not_before=not_before,
        not_after=not_after,
        ticket_digest=handover.ticket_digest,
        new_sho_id=new_sho_id,
    )
    token = build_package(
        header,
        None,
        recipient_public_key=identity.signing_key.public_key(),  # nothing is encrypted
        signing_key=identity.signing_key,
        signer_chain=identity.chain,
    )
    store.write_sync(
        lambda c: effects.add_release(
            c, mcim_id=mcim_id, tre_id=tre_id, new_sho_id=new_sho_id, not_after=not_after, now=now
        )
    )
    trail.note(f"MCIM {mcim_id} is released to {new_sho_id}", step=STEP, order=handover.order_id)
    return token
