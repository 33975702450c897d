"""What a CA must not certify, and what nobody may accept of a certificate that means two things."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from m2m_ca.directory import CaDirectory, CaError
from mcim.certificates import Reason, Role, TrustAnchors, validate
from mcim.errors import CertificateRefused, PackageRefused
from mcim.key_id import key_id_of
from mcim.package import build_package, verify_package
from mcim.package_header import PackageHeader
from mcim.statements import raw_signature
from mcim.vocabulary import Operation, ResultCode, Suite
from tests.support_pki import DPF_ID, M2ME_ID, NOW, SHO_ID, TRE_ID, pki, rsa_key

PKI = pki()
DAY = timedelta(days=1)
LONG_TRE_ID = "urn:m2m:tre:" + "0" * 100  # longer than a common name may be


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request(
    *, m2me_id: str = M2ME_ID, tre_id: str = TRE_ID, platform: Any = None, attest: Any = None
) -> dict[str, str]:
    """A certification request with a right proof."""
    attest = attest or p256()
    members = {
        "m2meId": m2me_id,
        "treId": tre_id,
        "platformKey": _pem(platform or p256()),
        "attestKey": _pem(attest),
    }
    body = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return members | {"proof": base64.b64encode(raw_signature(attest, body)).decode()}


def _pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> CaDirectory:
    made = CaDirectory(tmp_path_factory.mktemp("ca") / "pki")
    made.init(NOW)
    return made


ONE_KEY = p256()


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(request(platform=ONE_KEY, attest=ONE_KEY), id="one-key-for-both"),
        pytest.param(request(platform=rsa_key(1024)), id="rsa-1024"),
        pytest.param(request(m2me_id=""), id="no-m2me"),
        pytest.param(request(tre_id=""), id="no-tre"),
        pytest.param(request(m2me_id="urn:imeü:1"), id="m2me-id-that-is-no-printable-string"),
        pytest.param(request(tre_id="urn:trü:1"), id="tre-id-that-is-no-uri"),
        pytest.param(request() | {"treId": "urn:m2m:tre:another"}, id="not-what-was-proved"),
        pytest.param(request() | {"platformKey": _pem(p256())}, id="key-not-proved"),
        pytest.param(request() | {"proof": ""}, id="empty-proof"),
        pytest.param({}, id="empty"),
    ],
)
def test_tre_request_refused(directory: CaDirectory, refused: dict[str, str]) -> None:
    """REQ-21, REQ-45: nothing is certified without proof, twice for one key, or under a name X.509 cannot carry."""
    with pytest.raises(CaError):
        directory.issue_tre(refused, NOW)


@pytest.mark.parametrize("tre_id", [TRE_ID, LONG_TRE_ID])
def test_tre_request_granted(directory: CaDirectory, tre_id: str) -> None:
    """REQ-21: both certificates hold below the manufacturer's root; a long TRE id stands whole in the SAN."""
    anchors = TrustAnchors((x509.load_pem_x509_certificate(_anchor(directory, "manufacturer")),), "manufacturer")
    issued = directory.issue_tre(request(tre_id=tre_id, platform=rsa_key()), NOW)
    for leaf, role in ((issued.platform, Role.PLATFORM), (issued.attest, Role.ATTEST)):
        validated = validate(leaf, issued.chain, anchors, role, NOW, identity=tre_id)
        assert validated.m2me_id == M2ME_ID


def _anchor(directory: CaDirectory, purpose: str) -> bytes:
    return (directory.path / "anchors" / f"{purpose}.pem").read_bytes()


def test_a_name_that_no_certificate_can_carry_is_told(directory: CaDirectory, tmp_path: Path) -> None:
    """REQ-21: a typed error and no files."""
    with pytest.raises(CaError):
        directory.issue_signing(Role.SHO, "shö.example", tmp_path / "sho", NOW)
    with pytest.raises(CaError):
        directory.issue_tls(["shö.example"], tmp_path / "tls", NOW)
    assert not list(tmp_path.iterdir())


def test_a_certificate_for_two_roles_is_good_for_neither() -> None:
    """REQ-45, REQ-46: no key may both attest and sign packages."""
    leaf = PKI.operator.issue(
        p256().public_key(),
        subject=PKI.sho.chain[0].subject,
        names=[x509.DNSName(SHO_ID)],
        usage=PKI.sho.chain[0].extensions.get_extension_for_class(x509.KeyUsage).value,
        ekus=[Role.SHO.eku, Role.ATTEST.eku],
        now=NOW,
        life=DAY,
    )
    with pytest.raises(CertificateRefused) as caught:
        validate(leaf, PKI.operator.intermediates, PKI.sho_anchors, Role.SHO, NOW, identity=SHO_ID)
    assert caught.value.reason == Reason.WRONG_USAGE


def test_anchors_are_typed_by_purpose() -> None:
    """REQ-43: the very root that a platform hangs below does not help when it was configured for operators."""
    anchors = TrustAnchors(PKI.manufacturer_anchors.certificates, "sho")
    with pytest.raises(CertificateRefused) as caught:
        validate(PKI.platform, PKI.tre_chain, anchors, Role.PLATFORM, NOW, identity=TRE_ID)
    assert caught.value.reason == Reason.UNKNOWN_CA


def test_a_package_of_a_revoked_sho_is_refused_as_revoked() -> None:
    """REQ-50: with a revocation list at hand the signer's certificate is looked up, and the code says so."""
    header = PackageHeader(
        transaction_id=UUID(int=1),
        sequence=1,
        registration_nonce=bytes(32),
        m2me_id=M2ME_ID,
        tre_id=TRE_ID,
        platform_key_id=key_id_of(rsa_key().public_key()),
        sho_id=SHO_ID,
        dpf_id=DPF_ID,
        operation=Operation.INSTALL,
        mcim_id=UUID(int=2),
        suite=Suite.RSA_GCM_256,
        not_before=NOW - DAY,
        not_after=NOW + DAY,
        ticket_digest="00" * 32,
    )
    package = build_package(
        header,
        b"an MCIM object",
        recipient_public_key=rsa_key().public_key(),
        signing_key=PKI.sho.key,
        signer_chain=PKI.sho.chain,
    )
    given = {"anchors": PKI.sho_anchors, "now": NOW, "expected_sho_id": SHO_ID}
    empty = PKI.operator.make_crl([], NOW)
    assert verify_package(package, **given, crls=(empty,)).header == header
    with pytest.raises(PackageRefused) as caught:
        verify_package(package, **given, crls=(PKI.operator.make_crl([PKI.sho.chain[0].serial_number], NOW),))
    assert caught.value.code is ResultCode.CERTIFICATE_REVOKED
