"""What the equipment supplier may change in a TRE after manufacture: roots for home operators, token tries (REQ-44)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from dmclient.tre.state import TreState
from mcim.certificates import TrustAnchors
from mcim.errors import PackageRefused
from mcim.supplier_command import verify_supplier_command
from mcim.vocabulary import ResultCode


def obeyed(state: TreState, octets: bytes, now: datetime) -> TreState:
    """The state after a supplier's command. Its counter is used up in the same write, so it is good once.

    Raises:
        PackageRefused: see `verify_supplier_command`; also TRE_STATE_NOT_OK, and SIGNER_NOT_ACCEPTABLE when the TRE
            got no roots for suppliers at manufacture.
    """
    if state.condition != "ok":
        raise PackageRefused(ResultCode.TRE_STATE_NOT_OK, f"TRE is {state.condition}")
    if not state.supplier_anchors:
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "no roots for suppliers are installed")
    anchors = tuple(x509.load_der_x509_certificate(each) for each in state.supplier_anchors)
    try:
        command = verify_supplier_command(
            octets,
            anchors=TrustAnchors(anchors, "manufacturer"),
            now=now,
            tre_id=state.tre_id,
            last_counter=state.supplier_counter,
        ).command
    except UnsupportedAlgorithm as exc:  # a chain with a key of a type or curve the library does not know
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "a key of an unknown type") from exc
    unlocked = command.reset_token_counter and state.token is not None
    return replace(
        state,
        supplier_counter=command.counter,
        sho_anchors=command.sho_roots or state.sho_anchors,
        token=state.token.restored() if unlocked and state.token is not None else state.token,
    )
