"""The life of an installed MCIM: activate, suspend, delete, and the way back when the network does not take it.

Pure on the TRE's state, like `installation`: the caller writes what comes out, all of it or nothing (REQ-56). States:
30 provisioned, 40 activated, 50 suspended, 60 deleted; at most one MCIM is activated (REQ-70; docs/scheme.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from dmclient.tre.state import StoredMcim, TreState
from mcim.aka import UsimState
from mcim.errors import PackageRefused
from mcim.vocabulary import ContainerState, McimPolicy, Operation, ResultCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a package or command makes of the state."""

    state: TreState
    code: ResultCode  # SUCCESS, or ALREADY_DONE when there was nothing left to do
    mcim: StoredMcim | None  # as it is now; None: deleted


def carry_out(state: TreState, operation: Operation, mcim_id: UUID, *, by: str | None) -> Changed:
    """Do what a command asks for; that it may be asked for has been checked.

    Args:
        by: home operator that signed it; None: the device's own user, without a signature.

    Raises:
        PackageRefused: WRONG_STATE, or SIGNER_NOT_ACCEPTABLE when another home operator has to agree first.
    """
    mcim = state.mcim(mcim_id)
    if mcim is None:
        if operation is Operation.DELETE and state.tombstone(mcim_id) is not None:
            return Changed(state=state, code=ResultCode.ALREADY_DONE, mcim=None)
        raise PackageRefused(ResultCode.WRONG_STATE, "there is no such MCIM")
    if operation is Operation.ACTIVATE:
        if mcim.state is ContainerState.ACTIVATED:
            return Changed(state=state, code=ResultCode.ALREADY_DONE, mcim=mcim)
        return _success(activated(state, mcim), mcim_id)
    if operation is Operation.SUSPEND:
        if mcim.state is ContainerState.SUSPENDED:
            return Changed(state=state, code=ResultCode.ALREADY_DONE, mcim=mcim)
        if mcim.state is not ContainerState.ACTIVATED:
            raise PackageRefused(ResultCode.WRONG_STATE, f"not in state {mcim.state.value}")
        return _success(state.with_mcim(replace(mcim, state=ContainerState.SUSPENDED)), mcim_id)
    if operation is Operation.DELETE:
        if by not in (None, mcim.sho_id) and mcim.state is ContainerState.ACTIVATED:
            # Make before break: whoever took the device over has to be in use first.
            raise PackageRefused(ResultCode.WRONG_STATE, "another home operator may not delete the MCIM in use")
        return Changed(state=state.without_mcim(mcim), code=ResultCode.SUCCESS, mcim=None)
    raise PackageRefused(ResultCode.CONTENT_INVALID, f"{operation.label} is no command")


def activated(state: TreState, mcim: StoredMcim) -> TreState:
    """With this MCIM in use. The one before is suspended in the same write and kept to fall back to (REQ-70).

    Raises:
        PackageRefused: SIGNER_NOT_ACCEPTABLE; the one in use belongs to a home operator that did not release it (T14).
    """
    before = state.active()
    if before is None or before.mcim_id == mcim.mcim_id:
        return state.with_mcim(replace(mcim, state=ContainerState.ACTIVATED))
    bound = McimPolicy.RELEASE_REQUIRED in before.policy
    if bound and mcim.sho_id not in (before.sho_id, before.released_to):
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "the MCIM in use was not released")
    return state.with_mcim(replace(mcim, state=ContainerState.ACTIVATED, fall_back_to=before.mcim_id))


def confirmed(state: TreState, mcim_id: UUID) -> TreState:
    """After an attach with it: nothing is kept to fall back to. The same state when there was nothing."""
    mcim = state.mcim(mcim_id)
    if mcim is None or mcim.confirmed:
        return state
    return state.with_mcim(replace(mcim, previous=None, fall_back_to=None))


def fallen_back(state: TreState, mcim_id: UUID) -> Changed | None:
    """After an attach that failed: the values before an update, or the MCIM before this one, are in use again.

    Sequence numbers stay as they are, so what failed cannot be installed a second time. None: there is nothing to go
    back to.
    """
    mcim = state.mcim(mcim_id)
    if mcim is None or mcim.state is not ContainerState.ACTIVATED:
        return None
    if mcim.previous is not None:
        back = replace(
            mcim.previous, state=mcim.state, sequence=mcim.sequence, origin=mcim.origin, fall_back_to=mcim.fall_back_to
        )
        if back.keys == mcim.keys:  # challenges answered since the update must not be good again (T3)
            seq = tuple(max(pair) for pair in zip(back.usim.seq, mcim.usim.seq, strict=True))
            back = replace(back, usim=UsimState(seq=seq))
        return Changed(state=state.with_mcim(back), code=ResultCode.FELL_BACK, mcim=back)
    before = None if mcim.fall_back_to is None else state.mcim(mcim.fall_back_to)
    if before is None:
        return None
    failed = replace(mcim, state=ContainerState.SUSPENDED, fall_back_to=None)
    after = state.with_mcim(failed).with_mcim(replace(before, state=ContainerState.ACTIVATED))
    return Changed(state=after, code=ResultCode.FELL_BACK, mcim=failed)


def _success(state: TreState, mcim_id: UUID) -> Changed:
    return Changed(state=state, code=ResultCode.SUCCESS, mcim=state.mcim(mcim_id))
