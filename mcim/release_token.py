"""Release token: the old home operator lets a named new one take a device over (change of SHO; T14)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from mcim.certificates import TrustAnchors
from mcim.errors import PackageRefused
from mcim.package import verify_package
from mcim.vocabulary import Operation, ResultCode


def verify_release(
    token: bytes,
    *,
    anchors: TrustAnchors,
    now: datetime,
    mcim_id: UUID,
    old_sho_id: str,
    tre_id: str,
    new_sho_id: str,
) -> None:
    """See that the home operator of an MCIM released it to the one that replaces it.

    Args:
        token: a signed header without an object, operation release.
        anchors: SHO roots of the TRE.
        now: UTC.

    Raises:
        PackageRefused: SIGNER_NOT_ACCEPTABLE, whatever is wrong with it.
    """
    try:
        header = verify_package(token, anchors=anchors, now=now, expected_sho_id=old_sho_id).header
    except PackageRefused as refusal:
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, f"release token: {refusal}") from refusal
    good = (
        header.operation is Operation.RELEASE
        and header.mcim_id == mcim_id
        and header.tre_id == tre_id
        and header.new_sho_id == new_sho_id
        and header.not_before <= now < header.not_after
    )
    if not good:
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "the release token is of another case or time")
