"""What a good package does to the TRE's state: install, replace (make before break) and update an MCIM.

Pure on the state; the caller writes the result together with the used-up nonce and the receipt (REQ-56).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cryptography import x509

from dmclient.tre.action import CheckList
from dmclient.tre.life_cycle import Changed, activated
from dmclient.tre.provisioning import Examined
from dmclient.tre.state import Origin, StoredMcim, TreState
from mcim.aka import UsimState
from mcim.certificates import TrustAnchors
from mcim.content import AlgorithmContent, McimContent, UpdateContent
from mcim.errors import InvalidArgument, PackageRefused
from mcim.network_keys import NetworkKeys
from mcim.release_token import verify_release
from mcim.vocabulary import ContainerState, McimPolicy, ResultCode


def take_in(state: TreState, examined: Examined, origin: Origin, *, now: datetime, checks: CheckList) -> Changed:
    """Carry out an examined package.

    Args:
        origin: what the MCIM keeps of the package.
        checks: gets a record of every check made.

    Raises:
        PackageRefused: with the code of the check that failed.
    """
    content = examined.content
    if isinstance(content, McimContent):
        return _install(state, content, examined.revision, origin, now, checks)
    return _update(state, content, examined.revision, origin, checks)


def _install(
    state: TreState, content: McimContent, revision: int, origin: Origin, now: datetime, checks: CheckList
) -> Changed:
    with checks.check("algorithm-runs", "REQ-30", "REQ-47"):
        _require_running(content.keys)
    there = state.mcim(content.mcim_id)
    with checks.check("revision", "REQ-36"):
        if there is not None and revision < there.revision:
            raise PackageRefused(ResultCode.REVISION_TOO_LOW, "a higher revision is installed")
    with checks.check("mcim-id", "REQ-52", "REQ-70"):
        if state.tombstone(content.mcim_id) is not None:
            raise PackageRefused(ResultCode.WRONG_STATE, "this MCIM was deleted")
        if there is not None:
            return _again(state, there, content, revision)
    mcim = StoredMcim(
        mcim_id=content.mcim_id,
        sho_id=content.sho_id,
        state=ContainerState.PROVISIONED,
        revision=revision,
        sequence=content.sequence,
        not_after=content.not_after,
        imsi=content.imsi,
        keys=content.keys,
        usim=UsimState.initial(content.sqn_init),
        amf=content.amf,
        policy=content.policy,
        origin=origin,
    )
    if content.replaces is not None:
        with checks.check("release", "REQ-70"):
            state = _released(state, content, now)
    with checks.check("activation", "REQ-70"):
        in_use = ContainerState(content.initial_state) is ContainerState.ACTIVATED
        state = activated(state, mcim) if in_use else state.with_mcim(mcim)
    return Changed(state=state, code=ResultCode.SUCCESS, mcim=state.mcim(mcim.mcim_id))


def _again(state: TreState, there: StoredMcim, content: McimContent, revision: int) -> Changed:
    """The same MCIM signed once more, because its report got lost: it is there. Another one under its id is refused."""
    if there.sho_id != content.sho_id:
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "the MCIM of another home operator")
    if (there.revision, there.imsi, there.keys) != (revision, content.imsi, content.keys):
        raise PackageRefused(ResultCode.WRONG_STATE, "it is installed; changes come as an update")
    there = replace(there, sequence=content.sequence)
    return Changed(state=state.with_mcim(there), code=ResultCode.ALREADY_DONE, mcim=there)


def _released(state: TreState, content: McimContent, now: datetime) -> TreState:
    """The MCIM given up must be there, and its home operator may have the last word (T14).

    A token that is there is verified even when nobody asks for one: it is what the new home operator may delete by.
    """
    old = None if content.replaces is None else state.mcim(content.replaces)
    if old is None:
        raise PackageRefused(ResultCode.WRONG_STATE, "there is no MCIM to replace")
    if content.release_token is None:
        if McimPolicy.RELEASE_REQUIRED in old.policy and old.sho_id != content.sho_id:
            raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "its home operator has to release it first")
        return state
    verify_release(
        content.release_token,
        anchors=TrustAnchors(tuple(x509.load_der_x509_certificate(each) for each in state.sho_anchors), "sho"),
        now=now,
        mcim_id=old.mcim_id,
        old_sho_id=old.sho_id,
        tre_id=state.tre_id,
        new_sho_id=content.sho_id,
        containers=frozenset(state.containers),
    )
    return state.with_mcim(replace(old, released_to=content.sho_id))


def _update(
    state: TreState, content: UpdateContent | AlgorithmContent, revision: int, origin: Origin, checks: CheckList
) -> Changed:
    """Change what the package names and nothing else (docs/scheme.md, "Update")."""
    with checks.check("mcim-id", "REQ-70"):
        mcim = _present(state, content)
    with checks.check("algorithm-runs", "REQ-30", "REQ-47"):
        changed = _changed(mcim, content)
        _require_running(changed.keys)
    changed = replace(changed, revision=revision, sequence=content.sequence, not_after=content.not_after, origin=origin)
    with checks.check("revision", "REQ-36"):
        if revision == mcim.revision and _values(changed) == _values(mcim):
            again = replace(mcim, sequence=content.sequence)
            return Changed(state=state.with_mcim(again), code=ResultCode.ALREADY_DONE, mcim=again)
        if revision <= mcim.revision:
            raise PackageRefused(ResultCode.REVISION_TOO_LOW, f"revision {mcim.revision} is installed")
    with checks.check("sequence-reset", "REQ-53"):
        # Under the same key a lower SQN would make challenges good again that were used before (T3).
        if changed.keys == mcim.keys and max(changed.usim.seq) < max(mcim.usim.seq):
            raise PackageRefused(ResultCode.CONTENT_INVALID, "a lower sequence number under the same key")
    if McimPolicy.TWO_PHASE_UPDATE in mcim.policy:
        changed = replace(changed, previous=mcim.previous or replace(mcim, fall_back_to=None))
    return Changed(state=state.with_mcim(changed), code=ResultCode.SUCCESS, mcim=changed)


def _changed(mcim: StoredMcim, content: UpdateContent | AlgorithmContent) -> StoredMcim:
    if isinstance(content, AlgorithmContent):
        return replace(mcim, keys=content.applied_to(mcim.keys))
    return replace(
        mcim,
        imsi=mcim.imsi if content.imsi is None else content.imsi,
        keys=mcim.keys if content.keys is None else content.keys,
        usim=mcim.usim if content.sqn_init is None else UsimState.initial(content.sqn_init),
        amf=mcim.amf if content.amf is None else content.amf,
        policy=mcim.policy if content.policy is None else content.policy,
    )


def _present(state: TreState, content: UpdateContent | AlgorithmContent) -> StoredMcim:
    mcim = state.mcim(content.mcim_id)
    if mcim is None:
        raise PackageRefused(ResultCode.WRONG_STATE, "there is no MCIM to update")
    return mcim


def _values(mcim: StoredMcim) -> tuple[object, ...]:
    return mcim.imsi, mcim.keys, mcim.amf, mcim.policy


def _require_running(keys: NetworkKeys) -> None:
    """An MCIM that could not be used here is refused before it takes the place of one that can."""
    try:
        keys.functions()
    except InvalidArgument as exc:
        raise PackageRefused(ResultCode.ALGORITHM_UNSUPPORTED, "constants that this TRE cannot run") from exc
