"""The DPF looks at a package's clear header in every container, and at nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from dmserver.asks import PackageGiven
from dmserver.audit import Entry
from dmserver.orders import Order
from dmserver.reception import PackageFacts, check_package
from mcim.errors import PackageRefused
from mcim.key_id import key_id_of
from mcim.package import build_package
from mcim.package_header import PackageHeader, peek_header
from mcim.vocabulary import MAX_PACKAGE_SIZE, Container, Operation, ResultCode, Suite
from tests.support_pki import DPF_ID, M2ME_ID, NOW, SHO_ID, TRE_ID, pki

PKI = pki()
KEY_ID = key_id_of(PKI.platform_key.public_key())
HEADER = PackageHeader(
    transaction_id=UUID(int=1),
    sequence=7,
    registration_nonce=b"n" * 32,
    m2me_id=M2ME_ID,
    tre_id=TRE_ID,
    platform_key_id=KEY_ID,
    sho_id=SHO_ID,
    dpf_id=DPF_ID,
    operation=Operation.INSTALL,
    mcim_id=UUID(int=2),
    suite=Suite.RSA_GCM_256,
    not_before=NOW,
    not_after=NOW + timedelta(days=1),
    ticket_digest="0" * 64,
)


def given(container: Container, **changes: Any) -> PackageGiven:
    package = build_package(
        replace(HEADER, **changes),
        b"object",
        recipient_public_key=PKI.platform_key.public_key(),
        signing_key=PKI.sho.key,
        signer_chain=PKI.sho.chain,
        container=container,
    )
    return answered(package, container)


def answered(package: bytes, container: Container = Container.XML) -> PackageGiven:
    digest = hashlib.sha256(package).hexdigest()
    return PackageGiven(
        package=package,
        mcim_id=str(HEADER.mcim_id),
        sequence=7,
        package_hash=digest,
        container=container.value,
        operation=HEADER.operation.label,
    )


def checked(given: PackageGiven) -> dict[str, Entry]:
    order = Order(
        order_id="order-1",
        device_id=M2ME_ID,
        sho_id=SHO_ID,
        nonce=HEADER.registration_nonce,
        created_at=NOW,
        updated_at=NOW,
        expires_at=NOW + timedelta(days=1),
    )
    facts = PackageFacts(
        tre_id=TRE_ID,
        m2me_id=M2ME_ID,
        platform_key_id=KEY_ID,
        containers=tuple(Container),
        next_sequence=7,
        max_package=None,
    )
    entries = check_package(given, order, facts, dpf_id=DPF_ID, now=NOW)
    return {entry.text: entry for entry in entries}


@pytest.mark.parametrize("container", Container)
def test_good_package(container: Container) -> None:
    """REQ-24 REQ-31: the DPF reads the header whatever is around it."""
    entries = checked(given(container))
    assert {name for name, entry in entries.items() if not entry.passed} == set()
    assert "package-header" in entries


@pytest.mark.parametrize("container", Container)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tre_id", "urn:m2m:tre:0002"),
        ("sequence", 6),
        ("registration_nonce", b"m" * 32),
        ("platform_key_id", bytes(16)),
    ],
)
def test_package_for_another(container: Container, name: str, value: object) -> None:
    """REQ-25 T4: what the TRE could only refuse does not cost the device its nonce."""
    assert not checked(given(container, **{name: value}))["package-header"].passed


@pytest.mark.parametrize("container", Container)
def test_no_header_is_read_out_of_too_much(container: Container) -> None:
    """T12 REQ-32: right in everything but its size, so that nothing but the limit refuses it."""
    package = build_package(
        HEADER,
        bytes(MAX_PACKAGE_SIZE),
        recipient_public_key=PKI.platform_key.public_key(),
        signing_key=PKI.sho.key,
        signer_chain=PKI.sho.chain,
        container=container,
    )
    with pytest.raises(PackageRefused) as caught:
        peek_header(package)
    assert caught.value.code is ResultCode.MALFORMED


@pytest.mark.parametrize("octets", [b"", b"\x30", b"\x30\x80", b"<a/>", b"\x30\x03\x02\x01\x01"])
def test_no_package(octets: bytes) -> None:
    """REQ-24: octets that are none are a failed check, not an error of the server."""
    assert not checked(answered(octets))["package-header"].passed
