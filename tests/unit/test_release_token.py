"""Release tokens: the old home operator alone, for one MCIM in one TRE, to one successor, for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcim.certificates import Role
from mcim.errors import PackageRefused
from mcim.package import build_package
from mcim.package_header import PackageHeader, peek_header
from mcim.release_token import Release, issue_release, verify_release
from mcim.vocabulary import Container, Operation, ResultCode, Suite
from tests.support_pki import M2ME_ID, NOW, OTHER_SHO_ID, SHO_ID, TRE_ID, Signer, pki

PKI = pki()
MCIM_ID = UUID(int=2)
ALL = frozenset(Container)
RELEASE = Release(
    mcim_id=MCIM_ID,
    tre_id=TRE_ID,
    m2me_id=M2ME_ID,
    old_sho_id=SHO_ID,
    new_sho_id=OTHER_SHO_ID,
    not_before=NOW,
    not_after=NOW + timedelta(days=7),
)


def issue(release: Release = RELEASE, signer: Signer = PKI.sho, container: Container = Container.XML) -> bytes:
    return issue_release(
        release, token_id=UUID(int=5), signing_key=signer.key, signer_chain=signer.chain, container=container
    )


def verify(token: bytes, **kwargs: Any) -> Release:
    given = {
        "anchors": PKI.sho_anchors, "now": NOW, "mcim_id": MCIM_ID, "old_sho_id": SHO_ID, "tre_id": TRE_ID,
        "new_sho_id": OTHER_SHO_ID, "containers": ALL,
    }  # fmt: skip
    return verify_release(token, **(given | kwargs))


@pytest.mark.parametrize("container", Container)
def test_round_trip(container: Container) -> None:
    """REQ-70 T14: in every container; what was released comes back."""
    token = issue(container=container)
    assert verify(token) == RELEASE
    header = peek_header(token)
    assert (header.operation, header.transaction_id, header.new_sho_id) == (
        Operation.RELEASE,
        UUID(int=5),
        OTHER_SHO_ID,
    )


def _another_operation() -> bytes:
    header = PackageHeader(
        transaction_id=UUID(int=5), sequence=0, registration_nonce=b"", m2me_id=M2ME_ID, tre_id=TRE_ID,
        platform_key_id=bytes(16), sho_id=SHO_ID, dpf_id="-", operation=Operation.DELETE, mcim_id=MCIM_ID,
        suite=Suite.RSA_GCM_256, not_before=NOW, not_after=NOW + timedelta(days=7), ticket_digest="0" * 64,
    )  # fmt: skip
    key = PKI.sho.key
    return build_package(
        header, None, recipient_public_key=key.public_key(), signing_key=key, signer_chain=PKI.sho.chain
    )


def _by_a_device() -> bytes:
    return issue(signer=Signer(PKI.attest_key, (PKI.attest, *PKI.tre_chain)))


def _by_a_dpf_of_that_name() -> bytes:
    signer = PKI.signer(PKI.operator, Role.DPF, SHO_ID)
    return issue(signer=signer)


def test_a_command_is_no_token() -> None:
    """T14 REQ-70: the operation says what a signed header is for."""
    with pytest.raises(PackageRefused, match="release token: another operation"):
        verify(_another_operation())


REFUSED: dict[str, tuple[Callable[[], bytes], dict[str, Any]]] = {
    "for another MCIM": (issue, {"mcim_id": UUID(int=3)}),
    "for another TRE": (issue, {"tre_id": "urn:m2m:tre:0002"}),
    "for another successor": (issue, {"new_sho_id": "sho3.example"}),
    "by the successor itself": (lambda: issue(signer=PKI.other_sho), {}),
    "by the successor in its own name": (
        lambda: issue(replace(RELEASE, old_sho_id=OTHER_SHO_ID), PKI.other_sho),
        {},
    ),
    "of another old operator": (issue, {"old_sho_id": OTHER_SHO_ID}),
    "by a device": (_by_a_device, {}),
    "by a DPF of that name": (_by_a_dpf_of_that_name, {}),
    "too early": (issue, {"now": NOW - timedelta(seconds=1)}),
    "too late": (issue, {"now": NOW + timedelta(days=7)}),
    "revoked": (issue, {"crls": (PKI.operator.make_crl([PKI.sho.chain[0].serial_number], NOW),)}),
    "container not accepted": (issue, {"containers": frozenset({Container.CMS})}),
    "another operation": (_another_operation, {}),
    "changed": (lambda: issue().replace(OTHER_SHO_ID.encode(), b"sho3.example"), {"new_sho_id": "sho3.example"}),
    "nothing": (lambda: b"", {}),
    "not a package": (lambda: b"<a/>", {}),
}


@pytest.mark.parametrize(("token", "kwargs"), REFUSED.values(), ids=REFUSED)
def test_refused(token: Callable[[], bytes], kwargs: dict[str, Any]) -> None:
    """T14 REQ-70: whatever is wrong with a token, the new home operator is not the one that may do this."""
    with pytest.raises(PackageRefused, match="release token: ") as caught:
        verify(token(), **kwargs)
    assert caught.value.code is ResultCode.SIGNER_NOT_ACCEPTABLE


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda octets: b"\x30" + octets))
def test_any_octets(octets: bytes) -> None:
    """T14 REQ-59: a token from outside ends in a refusal and nothing else."""
    with pytest.raises(PackageRefused):
        verify(octets)
