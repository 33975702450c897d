"""Release token: the old home operator's signed word that a new one may take an MCIM's place (REQ-70, T14).

It is a package of operation `release`: a signed header alone, in a container that the TRE takes. It travels inside the
new operator's MCIM object (TLV 8052). Fields of the header that only a delivery has are empty or zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mcim.certificates import TrustAnchors
from mcim.errors import PackageRefused
from mcim.package import XML_ONLY, build_package, verify_package
from mcim.package_header import PackageHeader
from mcim.vocabulary import Container, Operation, ResultCode, Suite

_NOBODY: Final = "-"  # the header wants a name where a token has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is released, by whom and to whom; times are UTC, whole seconds."""

    mcim_id: UUID
    tre_id: str
    m2me_id: str
    old_sho_id: str
    new_sho_id: str
    not_before: datetime
    not_after: datetime


def issue_release(
    release: Release,
    *,
    token_id: UUID,
    signing_key: ec.EllipticCurvePrivateKey,
    signer_chain: Sequence[x509.Certificate],
    container: Container = Container.XML,
) -> bytes:
    """Sign a token as the old home operator.

    Args:
        release: what is released.
        token_id: a name for the issuer's own records.
        signing_key: of the old home operator.
        signer_chain: its certificate first.
        container: one that the TRE takes.

    Raises:
        InvalidArgument: as `build_package`.
    """
    header = PackageHeader(
        transaction_id=token_id,
        sequence=0,
        registration_nonce=b"",
        m2me_id=release.m2me_id,
        tre_id=release.tre_id,
        platform_key_id=bytes(16),
        sho_id=release.old_sho_id,
        dpf_id=_NOBODY,
        operation=Operation.RELEASE,
        mcim_id=release.mcim_id,
        suite=Suite.RSA_GCM_256,
        not_before=release.not_before,
        not_after=release.not_after,
        ticket_digest="0" * 64,
        new_sho_id=release.new_sho_id,
    )
    return build_package(
        header,
        None,
        recipient_public_key=signing_key.public_key(),  # of no use: nothing is encrypted
        signing_key=signing_key,
        signer_chain=signer_chain,
        container=container,
    )


def verify_release(
    token: bytes,
    *,
    anchors: TrustAnchors,
    now: datetime,
    mcim_id: UUID,
    old_sho_id: str,
    tre_id: str,
    new_sho_id: str,
    containers: frozenset[Container] = XML_ONLY,
    crls: Sequence[x509.CertificateRevocationList] = (),
) -> Release:
    """Whether the old home operator lets this new one replace this MCIM in this TRE, now.

    Raises:
        PackageRefused: SIGNER_NOT_ACCEPTABLE for every cause, which the text tells: without a good token the new
            home operator is simply not the one that may do this.
    """
    try:
        verified = verify_package(
            token, anchors=anchors, now=now, expected_sho_id=old_sho_id, crls=crls, containers=containers
        )
    except PackageRefused as exc:
        raise _refused(f"{exc} ({int(exc.code)})") from exc
    header = verified.header
    if header.operation is not Operation.RELEASE or header.new_sho_id is None:
        raise _refused("another operation")
    if (header.tre_id, header.mcim_id) != (tre_id, mcim_id):
        raise _refused("for another TRE or MCIM")
    if header.new_sho_id != new_sho_id:
        raise _refused("for another home operator")
    if not header.not_before <= now < header.not_after:
        raise _refused("not valid now")
    return Release(
        mcim_id=header.mcim_id,
        tre_id=header.tre_id,
        m2me_id=header.m2me_id,
        old_sho_id=header.sho_id,
        new_sho_id=header.new_sho_id,
        not_before=header.not_before,
        not_after=header.not_after,
    )


def _refused(reason: str) -> PackageRefused:
    return PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, f"release token: {reason}")
