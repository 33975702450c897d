"""The package: every value of its header is signed, by the home operator selected."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree

from mcim.certificates import Role, TrustAnchors
from mcim.package_header import peek_header
from mcim.vocabulary import Container, ResultCode, Suite
from tests.support_package import (
    MALFORMED,
    NOT_HIS,
    PKI,
    UNSUPPORTED,
    WRONG,
    build,
    certified,
    header,
    refusal,
    rsa_package,
    verify,
)
from tests.support_pki import NOW, OTHER_SHO_ID, TRE_ID, Signer
from tests.support_xml import (
    HEADER,
    M,
    changed,
    find,
    octets_of,
    parse,
    set_text,
    sign_by_hand,
)

HEADER_CHANGES = {
    "TransactionId": "f" * 32,
    "SequenceNumber": "8",
    "RegistrationNonce": base64.b64encode(b"m" * 32).decode(),
    "M2MEId": "urn:imei:004999010640001",
    "TREId": "urn:m2m:tre:0002",
    "PlatformKeyId": "0" * 32,
    "DPFId": "dpf2.example",
    "Operation": "replace",
    "MCIMId": str(UUID(int=3)),
    "Suite": Suite.LEGACY_1.label,
    "NotBefore": "2026-06-01T12:00:01Z",
    "NotAfter": "2036-06-01T12:00:00Z",
    "TicketDigest": "0" * 64,
    "AuthMode": "none",
}


@pytest.mark.parametrize(("name", "value"), HEADER_CHANGES.items(), ids=HEADER_CHANGES)
def test_changed_header(name: str, value: str) -> None:
    """REQ-57, REQ-58, REQ-39: every header value is signed; another recipient or a weaker suite cannot be put in."""
    package = changed(rsa_package(), set_text(f"{HEADER}/{M}{name}", value))
    assert peek_header(package) != header()
    assert refusal(package) is WRONG


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("TransactionId", "F" * 32, MALFORMED),
        ("TransactionId", "f" * 31, MALFORMED),
        ("SequenceNumber", "-1", MALFORMED),
        ("SequenceNumber", "", MALFORMED),
        ("SequenceNumber", "1" * 20, MALFORMED),
        ("SequenceNumber", "\u0661", MALFORMED),
        ("RegistrationNonce", "?", MALFORMED),
        ("RegistrationNonce", "\u00e9", MALFORMED),
        ("M2MEId", "", MALFORMED),
        ("TREId", "a b", MALFORMED),
        ("TREId", "x" * 256, MALFORMED),
        ("TREId", f"{TRE_ID}\n", MALFORMED),
        ("PlatformKeyId", "0" * 30, MALFORMED),
        ("Operation", "INSTALL", MALFORMED),
        ("Operation", "format-disk", MALFORMED),
        ("MCIMId", "-" * 36, MALFORMED),
        ("NotBefore", "2026-06-01", MALFORMED),
        ("NotAfter", "2026-13-01T00:00:00Z", MALFORMED),
        ("TicketDigest", "", MALFORMED),
        ("AuthMode", "password", MALFORMED),
        ("Suite", "MCIM-NULL-0", UNSUPPORTED),
        ("SHOId", OTHER_SHO_ID, NOT_HIS),
    ],
)
def test_header_value_out_of_range(name: str, value: str, code: ResultCode) -> None:
    """REQ-59: a value has one spelling."""
    assert refusal(changed(rsa_package(), set_text(f"{HEADER}/{M}{name}", value))) is code


@pytest.mark.parametrize(
    ("package", "kwargs", "code"),
    [
        pytest.param(lambda: build(Container.XML, signer=PKI.other_sho), {}, NOT_HIS, id="another-sho"),
        pytest.param(rsa_package, {"expected_sho_id": OTHER_SHO_ID}, NOT_HIS, id="another-sho-selected"),
        pytest.param(
            lambda: build(Container.XML, signer=PKI.other_sho),
            {"expected_sho_id": OTHER_SHO_ID},
            NOT_HIS,
            id="header-names-another-than-the-selected-signer",
        ),
        pytest.param(
            lambda: build(Container.XML, signer=Signer(PKI.other_sho.key, PKI.sho.chain)),
            {},
            WRONG,
            id="chain-of-another-key",
        ),
        pytest.param(
            lambda: build(Container.XML, signer=certified(Role.DPF)),
            {},
            NOT_HIS,
            id="dpf-of-that-name",
        ),
        pytest.param(lambda: build(Container.XML, signer=certified(Role.PVA)), {}, NOT_HIS, id="pva"),
        pytest.param(
            lambda: build(Container.XML, signer=Signer(PKI.attest_key, (PKI.attest, *PKI.tre_chain))),
            {},
            NOT_HIS,
            id="a-device",
        ),
        pytest.param(
            lambda: build(Container.XML, signer=Signer(PKI.operator.key, PKI.operator.intermediates)),
            {},
            NOT_HIS,
            id="the-ca-itself",
        ),
        pytest.param(
            lambda: build(Container.XML, signer=certified(authority=PKI.manufacturer)),
            {},
            NOT_HIS,
            id="made-by-a-maker",
        ),
        pytest.param(
            lambda: build(Container.XML, signer=Signer(PKI.sho.key, PKI.sho.chain[:1])),
            {},
            NOT_HIS,
            id="intermediate-missing",
        ),
        pytest.param(rsa_package, {"now": NOW + timedelta(days=731)}, NOT_HIS, id="expired-signer"),
        pytest.param(rsa_package, {"now": NOW - timedelta(days=1)}, NOT_HIS, id="not-yet-valid-signer"),
        pytest.param(
            rsa_package,
            {"crls": (PKI.operator.make_crl([PKI.sho.chain[0].serial_number], NOW),)},
            ResultCode.CERTIFICATE_REVOKED,
            id="revoked-signer",
        ),
        pytest.param(rsa_package, {"anchors": TrustAnchors((), "sho")}, NOT_HIS, id="no-anchors"),
        pytest.param(
            rsa_package,
            {"anchors": TrustAnchors((PKI.manufacturer_root.certificate,), "sho")},
            NOT_HIS,
            id="another-root",
        ),
    ],
)
def test_signer(package: Callable[[], bytes], kwargs: dict[str, Any], code: ResultCode) -> None:
    """REQ-46, REQ-50: the SHO selected, by a certificate of its role, and its own key."""
    assert refusal(package(), **kwargs) is code


def test_parts_of_two_packages() -> None:
    """REQ-57, REQ-59: the blob of one package under the header of another, both signed by the same SHO."""
    other = etree.fromstring(build(Container.XML, content=b"other"))

    def change(root: etree._Element) -> None:
        root.replace(root[1], other[1])

    assert refusal(changed(rsa_package(), change)) is WRONG


def test_signature_by_other_primitives() -> None:
    """REQ-31, REQ-50: canonical form and signature are the standard's; a stranger's under that chain fails."""

    def resigned(key: ec.EllipticCurvePrivateKey) -> bytes:
        root = parse(rsa_package())
        find(root, f"{HEADER}/{M}SequenceNumber").text = "8"
        sign_by_hand(root, key)
        return octets_of(root)

    assert verify(resigned(PKI.sho.key)).header.sequence == 8
    assert refusal(resigned(PKI.other_sho.key)) is WRONG
