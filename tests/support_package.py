"""Packages as the tests of their formats make them: one header, one home operator, two recipients (RSA and P-256)."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mcim.certificates import Role
from mcim.errors import PackageRefused
from mcim.key_id import key_id_of
from mcim.package import VerifiedPackage, build_package, verify_package
from mcim.package_header import PackageHeader
from mcim.platform_key import PlatformPublicKey, SoftwarePlatformKey
from mcim.vocabulary import Container, Operation, ResultCode, Suite
from tests.support_pki import DPF_ID, M2ME_ID, NOW, SHO_ID, TRE_ID, Signer, pki

PKI = pki()
OBJECT = bytes(range(256)) * 2
RSA_KEY = SoftwarePlatformKey(PKI.platform_key)
EC_KEY = SoftwarePlatformKey(ec.generate_private_key(ec.SECP256R1()))

MALFORMED, WRONG, UNSUPPORTED = ResultCode.MALFORMED, ResultCode.SIGNATURE_INVALID, ResultCode.UNSUPPORTED_SUITE
NOT_HIS = ResultCode.SIGNER_NOT_ACCEPTABLE

odd_certificates = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
"""For tests that damage certificates: the library warns of some before it refuses others."""


def header(public_key: PlatformPublicKey = RSA_KEY.public_key, **values: Any) -> PackageHeader:
    """A header in which everything is right, but for `values`."""
    given = PackageHeader(
        transaction_id=UUID(int=1),
        sequence=7,
        registration_nonce=b"n" * 32,
        m2me_id=M2ME_ID,
        tre_id=TRE_ID,
        platform_key_id=key_id_of(public_key),
        sho_id=SHO_ID,
        dpf_id=DPF_ID,
        operation=Operation.INSTALL,
        mcim_id=UUID(int=2),
        suite=Suite.RSA_GCM_256,
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        ticket_digest="0a" * 32,
        auth_mode="token",
    )
    return replace(given, **values)


def build(
    container: Container,
    *,
    signer: Signer = PKI.sho,
    public_key: PlatformPublicKey = RSA_KEY.public_key,
    content: bytes | None = OBJECT,
    **values: Any,
) -> bytes:
    """A package for `public_key`, by default the honest one; `values` go into its header."""
    return build_package(
        header(public_key, **values),
        content,
        recipient_public_key=public_key,
        signing_key=signer.key,
        signer_chain=signer.chain,
        container=container,
    )


def certified(role: Role = Role.SHO, **kwargs: Any) -> Signer:
    """A new key with a certificate of `role`, in the home operator's name and by its CA unless told otherwise."""
    key = ec.generate_private_key(ec.SECP256R1())
    arguments: dict[str, Any] = {"identity": SHO_ID, "now": NOW} | kwargs
    authority = arguments.pop("authority", PKI.operator)
    leaf = authority.issue_role(role, key.public_key(), **arguments)
    return Signer(key, (leaf, *authority.intermediates))


def verify(package: bytes, **kwargs: Any) -> VerifiedPackage:
    """As the device does that has selected the home operator of `header`."""
    return verify_package(package, **({"anchors": PKI.sho_anchors, "now": NOW, "expected_sho_id": SHO_ID} | kwargs))


def refusal(package: bytes, **kwargs: Any) -> ResultCode:
    """Why it is refused, as it must be."""
    with pytest.raises(PackageRefused) as caught:
        verify(package, **kwargs)
    return caught.value.code


@functools.cache
def rsa_package() -> bytes:
    """The honest package in XML."""
    return build(Container.XML)


@functools.cache
def ec_package() -> bytes:
    """The same for the recipient with P-256."""
    return build(Container.XML, public_key=EC_KEY.public_key)
