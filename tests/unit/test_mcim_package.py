"""The package: what comes out is what was signed, for one recipient; everything else has its result code."""

from __future__ import annotations

import base64
import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from mcim.certificates import Role, TrustAnchors
from mcim.errors import InvalidArgument, PackageRefused
from mcim.key_id import key_id_of
from mcim.package import VerifiedPackage, build_package, open_package, verify_package
from mcim.package_header import PackageHeader, peek_header
from mcim.platform_key import OaepHash, PlatformPublicKey, SoftwarePlatformKey
from mcim.vocabulary import MAX_PACKAGE_SIZE, MCIM_NAMESPACE, Container, Operation, ResultCode, Suite
from mcim.xml_package import XmlSealed
from mcim.xml_security import DS, XENC, XENC11
from tests.support_pki import DPF_ID, M2ME_ID, NOW, OTHER_SHO_ID, SHO_ID, TRE_ID, Signer, pki, rsa_key

PKI = pki()
OBJECT = bytes(range(256)) * 2
RSA_KEY = SoftwarePlatformKey(PKI.platform_key)
EC_KEY = SoftwarePlatformKey(ec.generate_private_key(ec.SECP256R1()))
M = f"{{{MCIM_NAMESPACE}}}"
D, X, X11 = f"{{{DS}}}", f"{{{XENC}}}", f"{{{XENC11}}}"

Change = Callable[[etree._Element], None]


def header(public_key: PlatformPublicKey = RSA_KEY.public_key) -> PackageHeader:
    return PackageHeader(
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


def build(
    signer: Signer = PKI.sho,
    public_key: PlatformPublicKey = RSA_KEY.public_key,
    content: bytes = OBJECT,
    container: Container = Container.XML,
) -> bytes:
    return build_package(
        header(public_key),
        content,
        recipient_public_key=public_key,
        signing_key=signer.key,
        signer_chain=signer.chain,
        container=container,
    )


@functools.cache
def rsa_package() -> bytes:
    return build()


@functools.cache
def ec_package() -> bytes:
    return build(public_key=EC_KEY.public_key)


@functools.cache
def mgf1p_package() -> bytes:
    return build(container=Container.XML_MGF1P)


def verify(package: bytes, **kwargs: Any) -> VerifiedPackage:
    return verify_package(package, **({"anchors": PKI.sho_anchors, "now": NOW, "expected_sho_id": SHO_ID} | kwargs))


def refusal(package: bytes, **kwargs: Any) -> ResultCode:
    with pytest.raises(PackageRefused) as caught:
        verify(package, **kwargs)
    return caught.value.code


def changed(change: Change, package: bytes | None = None) -> bytes:
    root = etree.fromstring(package or rsa_package())
    change(root)
    return etree.tostring(root.getroottree(), xml_declaration=True, encoding="UTF-8")


def find(root: etree._Element, path: str) -> etree._Element:
    element = root.find(path)
    assert element is not None
    return element


@pytest.mark.parametrize(
    ("key", "content"),
    [
        pytest.param(RSA_KEY, OBJECT, id="rsa"),
        pytest.param(EC_KEY, OBJECT, id="ec"),
        pytest.param(SoftwarePlatformKey(rsa_key(3072)), OBJECT, id="rsa-3072"),
        pytest.param(RSA_KEY, b"<not a=xml", id="octets-not-xml"),
        pytest.param(EC_KEY, b"\0" * 100_000, id="large"),
    ],
)
def test_round_trip(key: SoftwarePlatformKey, content: bytes) -> None:
    """REQ-29, REQ-31: encrypted for PK_D and signed by the SHO; header and object come back as they were."""
    package = build(public_key=key.public_key, content=content)
    verified = verify(package)
    assert (
        replace(verified.header, ephemeral_key=None)
        == header(key.public_key)
        == replace(peek_header(package), ephemeral_key=None)
    )
    assert (verified.header.ephemeral_key is not None) == isinstance(key.public_key, ec.EllipticCurvePublicKey)
    assert verified.signer.subject_id == SHO_ID
    assert open_package(verified, key) == content
    assert content[:64] not in package


def test_secrets_are_not_in_repr() -> None:
    """REQ-42: what is logged by accident shows neither nonce nor ciphertext."""
    verified = verify(rsa_package())
    assert "nnnn" not in repr(verified)
    assert "EncryptedData" not in repr(verified)


@pytest.mark.parametrize(
    ("package", "key"),
    [
        pytest.param(rsa_package, SoftwarePlatformKey(rsa_key(2048, 1)), id="another-rsa-key"),
        pytest.param(rsa_package, SoftwarePlatformKey(rsa_key(3072)), id="longer-rsa-key"),
        pytest.param(rsa_package, EC_KEY, id="ec-key-for-rsa"),
        pytest.param(ec_package, RSA_KEY, id="rsa-key-for-ec"),
        pytest.param(ec_package, SoftwarePlatformKey(ec.generate_private_key(ec.SECP256R1())), id="another-ec-key"),
    ],
)
def test_another_recipient(package: Callable[[], bytes], key: SoftwarePlatformKey) -> None:
    """REQ-29, REQ-60: nobody but the recipient opens it, and the failure says no more than that."""
    with pytest.raises(PackageRefused) as caught:
        open_package(verify(package()), key)
    assert caught.value.code is ResultCode.CRYPTO_FAILURE
    assert str(caught.value) == "the package does not open"


MGF1P_ONLY, BOTH = frozenset({Container.XML_MGF1P}), frozenset({Container.XML, Container.XML_MGF1P})


@pytest.mark.parametrize("accepted", [MGF1P_ONLY, BOTH], ids=["alone", "beside-xml"])
def test_mgf1p_round_trip(accepted: frozenset[Container]) -> None:
    """REQ-31: the content key under OAEP with SHA-1 and no label, for keys in tokens that do no other."""
    verified = verify(mgf1p_package(), containers=accepted)
    assert verified.container is Container.XML_MGF1P
    assert verified.header == header() == peek_header(mgf1p_package())
    asked = []

    class Token(SoftwarePlatformKey):
        def decrypt_oaep(self, ciphertext: bytes, *, hash_name: OaepHash, label: bytes | None) -> bytes:
            asked.append((hash_name, label))
            return super().decrypt_oaep(ciphertext, hash_name=hash_name, label=label)

    assert open_package(verified, Token(PKI.platform_key)) == OBJECT
    assert asked == [("sha1", None)]


@pytest.mark.parametrize(
    ("package", "accepted"),
    [
        pytest.param(mgf1p_package, frozenset({Container.XML}), id="mgf1p-for-xml"),
        pytest.param(mgf1p_package, frozenset({Container.CMS}), id="mgf1p-for-cms"),
        pytest.param(rsa_package, MGF1P_ONLY, id="xml-for-mgf1p"),
        pytest.param(ec_package, MGF1P_ONLY, id="ec-for-mgf1p"),
        pytest.param(rsa_package, frozenset(), id="nothing-accepted"),
    ],
)
def test_container_that_is_not_accepted(package: Callable[[], bytes], accepted: frozenset[Container]) -> None:
    """T16 REQ-31 REQ-39: a TRE takes what it offers; the home operator cannot be talked into anything weaker."""
    assert refusal(package(), containers=accepted) is ResultCode.UNSUPPORTED_SUITE


def test_mgf1p_is_for_rsa_keys_alone() -> None:
    """REQ-31: with an EC key there is no OAEP at all."""
    with pytest.raises(InvalidArgument):
        build(public_key=EC_KEY.public_key, container=Container.XML_MGF1P)


@pytest.mark.parametrize(
    ("package", "accepted"),
    [
        pytest.param(rsa_package, BOTH, id="xml-made-mgf1p"),
        pytest.param(mgf1p_package, BOTH, id="mgf1p-made-xml"),
    ],
)
def test_container_changed_on_the_way(package: Callable[[], bytes], accepted: frozenset[Container]) -> None:
    """T16 REQ-31: how the key is wrapped stands under the signature."""
    method = f"{D}KeyInfo/{X}EncryptedKey/{X}EncryptionMethod"
    template = mgf1p_package() if package is rsa_package else rsa_package()

    def change(root: etree._Element) -> None:
        old = find(root, f"{X}EncryptedData/{method}")
        parent = old.getparent()
        assert parent is not None
        parent.replace(old, find(etree.fromstring(template), f"{X}EncryptedData/{method}"))

    assert refusal(changed(change, package()), containers=accepted) is ResultCode.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("Algorithm", "http://www.w3.org/2001/04/xmlenc#sha256", id="digest"),
        pytest.param("Algorithm", "http://www.w3.org/2001/04/xmldsig-more#md5", id="md5"),
    ],
)
def test_mgf1p_has_one_digest(name: str, value: str) -> None:
    """REQ-39: the legacy container is one set of algorithms as well, not an open door."""
    change = _attribute(f"{X}EncryptedData/{D}KeyInfo/{X}EncryptedKey/{X}EncryptionMethod/{D}DigestMethod", name, value)
    assert refusal(changed(change, mgf1p_package()), containers=BOTH) is ResultCode.UNSUPPORTED_SUITE


def _command(container: Container = Container.XML) -> bytes:
    return build_package(
        replace(header(), operation=Operation.SUSPEND),
        None,
        recipient_public_key=RSA_KEY.public_key,
        signing_key=PKI.sho.key,
        signer_chain=PKI.sho.chain,
        container=container,
    )


@pytest.mark.parametrize("container", sorted(BOTH))
@pytest.mark.parametrize("accepted", [MGF1P_ONLY, BOTH, frozenset({Container.XML})], ids=["mgf1p", "both", "xml"])
def test_command_in_xml(container: Container, accepted: frozenset[Container]) -> None:
    """REQ-31: a signed header alone has nothing wrapped, so both containers in XML are the same."""
    verified = verify(_command(container), containers=accepted)
    assert verified.container in accepted
    assert verified.sealed is None
    assert refusal(_command(container), containers=frozenset({Container.CMS})) is ResultCode.UNSUPPORTED_SUITE


@pytest.mark.parametrize(
    ("operation", "content"),
    [(Operation.INSTALL, None), (Operation.DELETE, OBJECT), (Operation.RELEASE, OBJECT)],
    ids=["install-without", "delete-with", "release-with"],
)
@pytest.mark.parametrize("container", Container)
def test_object_where_none_belongs(operation: Operation, content: bytes | None, container: Container) -> None:
    """REQ-59: the operation decides whether there is an object."""
    with pytest.raises(InvalidArgument):
        build_package(
            replace(header(), operation=operation),
            content,
            recipient_public_key=RSA_KEY.public_key,
            signing_key=PKI.sho.key,
            signer_chain=PKI.sho.chain,
            container=container,
        )


def test_ephemeral_key_in_a_command() -> None:
    """REQ-59: a header has nothing that means nothing."""
    given = replace(header(), operation=Operation.SUSPEND, ephemeral_key=b"\4" * 65)
    package = build_package(
        given, None, recipient_public_key=RSA_KEY.public_key, signing_key=PKI.sho.key, signer_chain=PKI.sho.chain
    )
    assert refusal(package) is ResultCode.MALFORMED


def _set(path: str, value: str) -> Callable[[etree._Element], None]:
    def change(element: etree._Element) -> None:
        find(element, path).text = value

    return change


def _flip(path: str) -> Callable[[etree._Element], None]:
    def change(element: etree._Element) -> None:
        target = find(element, path)
        octets = bytearray(base64.b64decode(target.text or ""))
        octets[len(octets) // 2] ^= 1
        target.text = base64.b64encode(octets).decode()

    return change


OUTER = f"{X}CipherData/{X}CipherValue"
WRAPPED = f"{D}KeyInfo/{X}EncryptedKey/{X}CipherData/{X}CipherValue"
LABEL = f"{D}KeyInfo/{X}EncryptedKey/{X}EncryptionMethod/{X}OAEPparams"


@pytest.mark.parametrize(
    ("package", "key", "change"),
    [
        pytest.param(rsa_package, RSA_KEY, _flip(OUTER), id="content"),
        pytest.param(rsa_package, RSA_KEY, _flip(WRAPPED), id="rsa-wrapped-key"),
        pytest.param(ec_package, EC_KEY, _flip(WRAPPED), id="ec-wrapped-key"),
        pytest.param(rsa_package, RSA_KEY, _flip(LABEL), id="label"),
        pytest.param(rsa_package, RSA_KEY, _set(LABEL, ""), id="no-label"),
        pytest.param(rsa_package, RSA_KEY, _set(OUTER, ""), id="no-content"),
        pytest.param(rsa_package, RSA_KEY, _set(OUTER, "AAAA"), id="content-shorter-than-a-tag"),
        pytest.param(rsa_package, RSA_KEY, _set(WRAPPED, "?"), id="no-base64"),
        pytest.param(rsa_package, RSA_KEY, _set(WRAPPED, "\u00e9"), id="no-ascii"),
        pytest.param(ec_package, EC_KEY, _set(WRAPPED, "AAAA"), id="wrapped-key-too-short"),
        pytest.param(rsa_package, RSA_KEY, lambda e: e.remove(find(e, f"{D}KeyInfo")), id="no-key"),
    ],
)
def test_one_error_for_whatever_does_not_open(
    package: Callable[[], bytes], key: SoftwarePlatformKey, change: Change
) -> None:
    """REQ-60: one uniform refusal, even where the SHO itself signed what does not open."""
    verified = verify(package())
    assert isinstance(verified.sealed, XmlSealed)
    element = copy.deepcopy(verified.sealed.encrypted_data)
    change(element)
    with pytest.raises(PackageRefused) as caught:
        open_package(replace(verified, sealed=replace(verified.sealed, encrypted_data=element)), key)
    assert (caught.value.code, str(caught.value)) == (ResultCode.CRYPTO_FAILURE, "the package does not open")


@pytest.mark.parametrize(
    "point", [b"", b"\x04" + b"\1" * 64, b"\x02" + b"\1" * 32, b"\0"], ids=["none", "off-curve", "short", "infinity"]
)
def test_ephemeral_point_that_is_none(point: bytes) -> None:
    """REQ-60: a point off the curve tells nothing of the private key."""
    verified = verify(ec_package())
    assert isinstance(verified.sealed, XmlSealed)
    with pytest.raises(PackageRefused) as caught:
        open_package(replace(verified, sealed=replace(verified.sealed, ephemeral_key=point)), EC_KEY)
    assert caught.value.code is ResultCode.CRYPTO_FAILURE


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
    package = changed(_set(f"{M}Header/{M}{name}", value))
    assert peek_header(package) != header()
    assert refusal(package) is ResultCode.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("TransactionId", "F" * 32, ResultCode.MALFORMED),
        ("TransactionId", "f" * 31, ResultCode.MALFORMED),
        ("SequenceNumber", "-1", ResultCode.MALFORMED),
        ("SequenceNumber", "", ResultCode.MALFORMED),
        ("SequenceNumber", "1" * 20, ResultCode.MALFORMED),
        ("SequenceNumber", "\u0661", ResultCode.MALFORMED),
        ("RegistrationNonce", "?", ResultCode.MALFORMED),
        ("RegistrationNonce", "\u00e9", ResultCode.MALFORMED),
        ("M2MEId", "", ResultCode.MALFORMED),
        ("TREId", "a b", ResultCode.MALFORMED),
        ("TREId", "x" * 256, ResultCode.MALFORMED),
        ("TREId", f"{TRE_ID}\n", ResultCode.MALFORMED),
        ("PlatformKeyId", "0" * 30, ResultCode.MALFORMED),
        ("Operation", "INSTALL", ResultCode.MALFORMED),
        ("Operation", "format-disk", ResultCode.MALFORMED),
        ("MCIMId", "-" * 36, ResultCode.MALFORMED),
        ("NotBefore", "2026-06-01", ResultCode.MALFORMED),
        ("NotAfter", "2026-13-01T00:00:00Z", ResultCode.MALFORMED),
        ("TicketDigest", "", ResultCode.MALFORMED),
        ("AuthMode", "password", ResultCode.MALFORMED),
        ("Suite", "MCIM-NULL-0", ResultCode.UNSUPPORTED_SUITE),
        ("SHOId", OTHER_SHO_ID, ResultCode.SIGNER_NOT_ACCEPTABLE),
    ],
)
def test_header_value_out_of_range(name: str, value: str, code: ResultCode) -> None:
    """REQ-59: a value has one spelling."""
    assert refusal(changed(_set(f"{M}Header/{M}{name}", value))) is code


def _signed_by(role: Role = Role.SHO, **kwargs: Any) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    arguments: dict[str, Any] = {"identity": SHO_ID, "now": NOW} | kwargs
    authority = arguments.pop("authority", PKI.operator)
    leaf = authority.issue_role(role, key.public_key(), **arguments)
    return build(Signer(key, (leaf, *authority.intermediates)))


def _claims_chain_of(real: Signer) -> bytes:
    return build(Signer(PKI.other_sho.key, real.chain))


@pytest.mark.parametrize(
    ("package", "kwargs", "code"),
    [
        pytest.param(lambda: build(PKI.other_sho), {}, ResultCode.SIGNER_NOT_ACCEPTABLE, id="another-sho"),
        pytest.param(
            rsa_package, {"expected_sho_id": OTHER_SHO_ID}, ResultCode.SIGNER_NOT_ACCEPTABLE, id="another-sho-selected"
        ),
        pytest.param(
            lambda: build(PKI.other_sho),
            {"expected_sho_id": OTHER_SHO_ID},
            ResultCode.SIGNER_NOT_ACCEPTABLE,
            id="header-names-another-than-the-selected-signer",
        ),
        pytest.param(lambda: _claims_chain_of(PKI.sho), {}, ResultCode.SIGNATURE_INVALID, id="chain-of-another-key"),
        pytest.param(lambda: _signed_by(Role.DPF), {}, ResultCode.SIGNER_NOT_ACCEPTABLE, id="dpf-of-that-name"),
        pytest.param(lambda: _signed_by(Role.PVA), {}, ResultCode.SIGNER_NOT_ACCEPTABLE, id="pva"),
        pytest.param(
            lambda: build(Signer(PKI.attest_key, (PKI.attest, *PKI.tre_chain))),
            {},
            ResultCode.SIGNER_NOT_ACCEPTABLE,
            id="a-device",
        ),
        pytest.param(
            lambda: build(Signer(PKI.operator.key, PKI.operator.intermediates)),
            {},
            ResultCode.SIGNER_NOT_ACCEPTABLE,
            id="the-ca-itself",
        ),
        pytest.param(
            lambda: _signed_by(authority=PKI.manufacturer), {}, ResultCode.SIGNER_NOT_ACCEPTABLE, id="made-by-a-maker"
        ),
        pytest.param(
            lambda: build(Signer(PKI.sho.key, PKI.sho.chain[:1])),
            {},
            ResultCode.SIGNER_NOT_ACCEPTABLE,
            id="intermediate-missing",
        ),
        pytest.param(
            rsa_package, {"now": NOW + timedelta(days=731)}, ResultCode.SIGNER_NOT_ACCEPTABLE, id="expired-signer"
        ),
        pytest.param(
            rsa_package, {"now": NOW - timedelta(days=1)}, ResultCode.SIGNER_NOT_ACCEPTABLE, id="not-yet-valid-signer"
        ),
        pytest.param(
            rsa_package,
            {"crls": (PKI.operator.make_crl([PKI.sho.chain[0].serial_number], NOW),)},
            ResultCode.CERTIFICATE_REVOKED,
            id="revoked-signer",
        ),
        pytest.param(
            rsa_package, {"anchors": TrustAnchors((), "sho")}, ResultCode.SIGNER_NOT_ACCEPTABLE, id="no-anchors"
        ),
        pytest.param(
            rsa_package,
            {"anchors": TrustAnchors((PKI.manufacturer_root.certificate,), "sho")},
            ResultCode.SIGNER_NOT_ACCEPTABLE,
            id="another-root",
        ),
    ],
)
def test_signer(package: Callable[[], bytes], kwargs: dict[str, Any], code: ResultCode) -> None:
    """REQ-46, REQ-50: the SHO selected, by a certificate of its role, and its own key."""
    assert refusal(package(), **kwargs) is code


def _raw(old: bytes, new: bytes) -> bytes:
    package = rsa_package()
    assert old in package
    return package.replace(old, new, 1)


ROOT_TAG = b"<M2MSIMPackage "
BOMB = (
    b"<!DOCTYPE M2MSIMPackage [<!ENTITY a 'aaaaaaaaaa'>"
    + b"".join(b"<!ENTITY %c '%s'>" % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
    + b"]>"
)


@pytest.mark.parametrize(
    ("package", "code"),
    [
        pytest.param(lambda: b"", ResultCode.MALFORMED, id="nothing"),
        pytest.param(lambda: b"<a/>", ResultCode.MALFORMED, id="another-document"),
        pytest.param(lambda: rsa_package()[:-1], ResultCode.MALFORMED, id="truncated"),
        pytest.param(lambda: rsa_package() + b"x", ResultCode.MALFORMED, id="trailing"),
        pytest.param(lambda: b"<a>" * 1000, ResultCode.MALFORMED, id="deep"),
        pytest.param(lambda: _raw(b'version="1"', b'version="2"'), ResultCode.MALFORMED, id="version"),
        pytest.param(lambda: _raw(b"urn:example:m2m:mcim:1", b"urn:x"), ResultCode.MALFORMED, id="namespace"),
        pytest.param(lambda: _raw(b"UTF-8", b"x-none"), ResultCode.MALFORMED, id="encoding"),
        pytest.param(
            lambda: rsa_package() + b" " * (MAX_PACKAGE_SIZE - len(rsa_package()) + 1),
            ResultCode.MALFORMED,
            id="oversize",
        ),
        pytest.param(
            lambda: _raw(TRE_ID.encode(), b"urn:m2m:<!-- -->tre:0001"),
            ResultCode.SIGNATURE_INVALID,
            id="comment-in-text",
        ),
        pytest.param(lambda: _raw(ROOT_TAG, b"<!-- -->" + ROOT_TAG), ResultCode.SIGNATURE_INVALID, id="comment-before"),
        pytest.param(lambda: rsa_package() + b"<!-- -->", ResultCode.SIGNATURE_INVALID, id="comment-behind"),
        pytest.param(
            lambda: _raw(b"</ds:Signature>", b"<!-- --></ds:Signature>"),
            ResultCode.SIGNATURE_INVALID,
            id="comment-in-signature",
        ),
        pytest.param(lambda: _raw(b"<Header>", b"<?go?><Header>"), ResultCode.SIGNATURE_INVALID, id="pi"),
        pytest.param(lambda: _raw(ROOT_TAG, b"<?go?>" + ROOT_TAG), ResultCode.SIGNATURE_INVALID, id="pi-before"),
        pytest.param(
            lambda: _raw(ROOT_TAG, b"<!DOCTYPE M2MSIMPackage>" + ROOT_TAG), ResultCode.SIGNATURE_INVALID, id="doctype"
        ),
        pytest.param(
            lambda: _raw(ROOT_TAG, b'<!DOCTYPE M2MSIMPackage SYSTEM "file:///etc/passwd">' + ROOT_TAG),
            ResultCode.SIGNATURE_INVALID,
            id="external-doctype",
        ),
        pytest.param(
            lambda: _raw(ROOT_TAG, b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + ROOT_TAG).replace(
                TRE_ID.encode(), b"&e;"
            ),
            ResultCode.SIGNATURE_INVALID,
            id="external-entity",
        ),
        pytest.param(
            lambda: _raw(ROOT_TAG, BOMB + ROOT_TAG).replace(TRE_ID.encode(), b"&j;"),
            ResultCode.MALFORMED,
            id="entity-bomb",
        ),
    ],
)
def test_octets(package: Callable[[], bytes], code: ResultCode) -> None:
    """REQ-59: nothing that a signature would not cover, and nothing that a parser could be made to do."""
    assert refusal(package()) is code


def test_largest_size_is_not_refused_for_its_size() -> None:
    """REQ-59: the limit counts octets, the last one included."""
    package = rsa_package()
    assert verify(package + b" " * (MAX_PACKAGE_SIZE - len(package))).header == header()


def _append(path: str, make: Callable[[etree._Element], etree._Element], at: int | None = None) -> Change:
    def change(root: etree._Element) -> None:
        parent = find(root, path)
        parent.insert(len(parent) if at is None else at, make(root))

    return change


def _element(tag: str, text: str | None = None, **attributes: str) -> etree._Element:
    element = etree.Element(tag, attributes)
    element.text = text
    return element


def _object(root: etree._Element) -> etree._Element:
    element = _element(f"{D}Object")
    element.append(_element(f"{M}Header"))
    return element


def _key_value(root: etree._Element) -> etree._Element:
    value, curve = _element(f"{D}KeyValue"), _element("{http://www.w3.org/2009/xmldsig11#}ECKeyValue")
    value.append(curve)
    return value


def _attribute(path: str, name: str, value: str) -> Change:
    return lambda root: find(root, path).set(name, value)


def _drop(path: str) -> Change:
    def change(root: etree._Element) -> None:
        element = find(root, path)
        parent = element.getparent()
        assert parent is not None
        parent.remove(element)

    return change


def _swap(root: etree._Element) -> None:
    root.insert(0, root[1])


def _five_certificates(root: etree._Element) -> None:
    certificate = find(root, CERTIFICATE)
    for _ in range(3):
        certificate.addnext(copy.deepcopy(certificate))


def _cipher_reference(root: etree._Element) -> None:
    data = find(root, f"{X}EncryptedData/{X}CipherData")
    data.remove(data[0])
    data.append(_element(f"{X}CipherReference", URI="file:///etc/passwd"))


SIGNATURE = f"{D}Signature"
INFO = f"{SIGNATURE}/{D}SignedInfo"
REFERENCE = f"{INFO}/{D}Reference"
TRANSFORM = f"{REFERENCE}/{D}Transforms/{D}Transform"
KEY = f"{X}EncryptedData/{D}KeyInfo/{X}EncryptedKey"
CERTIFICATE = f"{SIGNATURE}/{D}KeyInfo/{D}X509Data/{D}X509Certificate"
XSI = "{http://www.w3.org/2001/XMLSchema-instance}type"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(_flip(f"{X}EncryptedData/{OUTER}"), ResultCode.SIGNATURE_INVALID, id="ciphertext"),
        pytest.param(_flip(f"{X}EncryptedData/{WRAPPED}"), ResultCode.SIGNATURE_INVALID, id="wrapped-key"),
        pytest.param(_set(f"{KEY}/{D}KeyInfo/{D}KeyName", "0" * 32), ResultCode.SIGNATURE_INVALID, id="key-name"),
        pytest.param(_flip(f"{REFERENCE}/{D}DigestValue"), ResultCode.SIGNATURE_INVALID, id="digest"),
        pytest.param(_flip(f"{SIGNATURE}/{D}SignatureValue"), ResultCode.SIGNATURE_INVALID, id="signature-value"),
        pytest.param(_set(f"{SIGNATURE}/{D}SignatureValue", ""), ResultCode.SIGNATURE_INVALID, id="no-signature-value"),
        pytest.param(_set(f"{SIGNATURE}/{D}SignatureValue", "\u00e9"), ResultCode.SIGNATURE_INVALID, id="no-base64"),
        pytest.param(_drop(SIGNATURE), ResultCode.SIGNATURE_INVALID, id="unsigned"),
        pytest.param(_drop(f"{X}EncryptedData"), ResultCode.SIGNATURE_INVALID, id="no-content"),
        pytest.param(_drop(f"{M}Header"), ResultCode.MALFORMED, id="no-header"),
        pytest.param(_swap, ResultCode.MALFORMED, id="other-order"),
        pytest.param(
            _append(".", lambda root: copy.deepcopy(root[2])), ResultCode.SIGNATURE_INVALID, id="second-signature"
        ),
        pytest.param(
            _append(SIGNATURE, lambda root: copy.deepcopy(root[2])), ResultCode.SIGNATURE_INVALID, id="nested-signature"
        ),
        pytest.param(_append(SIGNATURE, _object), ResultCode.SIGNATURE_INVALID, id="object"),
        pytest.param(
            _append(".", lambda root: copy.deepcopy(root[0])), ResultCode.SIGNATURE_INVALID, id="second-header"
        ),
        pytest.param(
            _append(f"{M}Header", lambda root: copy.deepcopy(root[0][4])), ResultCode.MALFORMED, id="duplicate-element"
        ),
        pytest.param(
            _append(f"{M}Header", lambda root: copy.deepcopy(root[0][4]), at=4),
            ResultCode.MALFORMED,
            id="duplicate-element-beside-the-first",
        ),
        pytest.param(
            _append(f"{M}Header", lambda root: _element(f"{M}EphemeralKey", "AAAA")),
            ResultCode.UNSUPPORTED_SUITE,
            id="ephemeral-key-with-rsa",
        ),
        pytest.param(
            _append(f"{M}Header/{M}TREId", lambda root: _element(f"{M}b")), ResultCode.MALFORMED, id="structure-in-text"
        ),
        pytest.param(_attribute(".", "Id", "x"), ResultCode.MALFORMED, id="attribute-of-the-root"),
        pytest.param(_attribute(f"{M}Header", "Id", "x"), ResultCode.MALFORMED, id="attribute-of-the-header"),
        pytest.param(_attribute(f"{M}Header/{M}TREId", XSI, "x"), ResultCode.MALFORMED, id="attribute-of-a-value"),
        pytest.param(
            _attribute(f"{X}EncryptedData", "Type", f"{XENC}Element"), ResultCode.SIGNATURE_INVALID, id="type"
        ),
        pytest.param(_attribute(f"{X}EncryptedData", XSI, "x"), ResultCode.SIGNATURE_INVALID, id="xsi-type"),
        pytest.param(_attribute(SIGNATURE, "Id", "x"), ResultCode.SIGNATURE_INVALID, id="attribute-of-the-signature"),
        pytest.param(_attribute(REFERENCE, "Type", "x"), ResultCode.SIGNATURE_INVALID, id="attribute-of-the-reference"),
        pytest.param(_attribute(REFERENCE, "URI", "file:///etc/passwd"), ResultCode.SIGNATURE_INVALID, id="file-uri"),
        pytest.param(_attribute(REFERENCE, "URI", "http://a/"), ResultCode.SIGNATURE_INVALID, id="http-uri"),
        pytest.param(_attribute(REFERENCE, "URI", "#x"), ResultCode.SIGNATURE_INVALID, id="id-uri"),
        pytest.param(_attribute(REFERENCE, "URI", "#xpointer(/)"), ResultCode.SIGNATURE_INVALID, id="xpointer-uri"),
        pytest.param(
            _append(INFO, lambda root: copy.deepcopy(find(root, REFERENCE))),
            ResultCode.SIGNATURE_INVALID,
            id="second-reference",
        ),
        pytest.param(_drop(REFERENCE), ResultCode.SIGNATURE_INVALID, id="no-reference"),
        pytest.param(_drop(TRANSFORM), ResultCode.SIGNATURE_INVALID, id="transform-less"),
        pytest.param(
            _append(
                f"{REFERENCE}/{D}Transforms",
                lambda root: _element(f"{D}Transform", Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"),
            ),
            ResultCode.SIGNATURE_INVALID,
            id="xslt-as-third-transform",
        ),
        pytest.param(
            _append(TRANSFORM, lambda root: _element(f"{D}XPath", "false()")),
            ResultCode.SIGNATURE_INVALID,
            id="xpath-inside-a-transform",
        ),
        pytest.param(_set(TRANSFORM, "x"), ResultCode.SIGNATURE_INVALID, id="text-in-a-transform"),
        pytest.param(_append(f"{SIGNATURE}/{D}KeyInfo", _key_value), ResultCode.SIGNATURE_INVALID, id="key-value"),
        pytest.param(
            _append(f"{SIGNATURE}/{D}KeyInfo", _key_value, at=0), ResultCode.SIGNATURE_INVALID, id="key-value-first"
        ),
        pytest.param(
            _append(f"{SIGNATURE}/{D}KeyInfo", lambda root: _element(f"{D}RetrievalMethod", URI="#x")),
            ResultCode.SIGNATURE_INVALID,
            id="retrieval-method",
        ),
        pytest.param(_drop(f"{SIGNATURE}/{D}KeyInfo"), ResultCode.SIGNATURE_INVALID, id="no-key-info"),
        pytest.param(_drop(f"{SIGNATURE}/{D}KeyInfo/{D}X509Data"), ResultCode.SIGNATURE_INVALID, id="no-certificates"),
        pytest.param(
            _five_certificates,
            ResultCode.SIGNATURE_INVALID,
            id="five-certificates",
        ),
        pytest.param(_set(CERTIFICATE, "?"), ResultCode.SIGNER_NOT_ACCEPTABLE, id="certificate-no-base64"),
        pytest.param(_set(CERTIFICATE, "\u00e9"), ResultCode.SIGNER_NOT_ACCEPTABLE, id="certificate-no-ascii"),
        pytest.param(_set(CERTIFICATE, "AAAA"), ResultCode.SIGNER_NOT_ACCEPTABLE, id="certificate-no-der"),
        pytest.param(_set(CERTIFICATE, ""), ResultCode.SIGNER_NOT_ACCEPTABLE, id="certificate-empty"),
        pytest.param(_cipher_reference, ResultCode.SIGNATURE_INVALID, id="cipher-reference"),
        pytest.param(
            _append(f"{X}EncryptedData", lambda root: _element(f"{X}EncryptionProperties")),
            ResultCode.SIGNATURE_INVALID,
            id="encryption-properties",
        ),
        pytest.param(
            _append(f"{X}EncryptedData/{D}KeyInfo", lambda root: copy.deepcopy(find(root, KEY))),
            ResultCode.SIGNATURE_INVALID,
            id="second-recipient",
        ),
    ],
)
def test_structure(change: Change, code: ResultCode) -> None:
    """REQ-31, REQ-59: exactly one structure; whatever is added, doubled, moved or left out is refused."""
    assert refusal(changed(change)) is code


DIGEST = f"{REFERENCE}/{D}DigestMethod"
ALGORITHMS = {
    "signature-rsa-sha1": (f"{INFO}/{D}SignatureMethod", f"{DS}rsa-sha1"),
    "signature-ecdsa-sha1": (f"{INFO}/{D}SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha1"),
    "signature-hmac": (f"{INFO}/{D}SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"),
    "signature-md5": (f"{INFO}/{D}SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#rsa-md5"),
    "digest-sha1": (DIGEST, f"{DS}sha1"),
    "digest-md5": (DIGEST, "http://www.w3.org/2001/04/xmldsig-more#md5"),
    "c14n-1.0": (f"{INFO}/{D}CanonicalizationMethod", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"),
    "c14n-with-comments": (f"{INFO}/{D}CanonicalizationMethod", "http://www.w3.org/2001/10/xml-exc-c14n#WithComments"),
    "transform-xslt": (TRANSFORM, "http://www.w3.org/TR/1999/REC-xslt-19991116"),
    "transform-xpath": (TRANSFORM, "http://www.w3.org/TR/1999/REC-xpath-19991116"),
    "transform-xpath-filter": (TRANSFORM, "http://www.w3.org/2002/06/xmldsig-filter2"),
    "transform-base64": (TRANSFORM, f"{DS}base64"),
    "key-rsa-1_5": (f"{KEY}/{X}EncryptionMethod", f"{XENC}rsa-1_5"),
    "key-oaep-mgf1p": (f"{KEY}/{X}EncryptionMethod", f"{XENC}rsa-oaep-mgf1p"),
    "key-digest-sha1": (f"{KEY}/{X}EncryptionMethod/{D}DigestMethod", f"{DS}sha1"),
    "key-mgf-sha1": (f"{KEY}/{X}EncryptionMethod/{X11}MGF", f"{XENC11}mgf1sha1"),
    "content-aes-cbc": (f"{X}EncryptedData/{X}EncryptionMethod", f"{XENC}aes256-cbc"),
    "content-aes128-gcm": (f"{X}EncryptedData/{X}EncryptionMethod", f"{XENC11}aes128-gcm"),
    "content-3des": (f"{X}EncryptedData/{X}EncryptionMethod", f"{XENC}tripledes-cbc"),
    "unknown": (DIGEST, ""),
}
EC_METHOD = f"{KEY}/{D}KeyInfo/{X}AgreementMethod"
EC_ALGORITHMS = {
    "wrap-aes128": (f"{KEY}/{X}EncryptionMethod", f"{XENC}kw-aes128"),
    "agreement-dh": (EC_METHOD, f"{XENC}dh"),
    "derivation-pbkdf2": (f"{EC_METHOD}/{X11}KeyDerivationMethod", f"{XENC11}pbkdf2"),
    "derivation-sha1": (f"{EC_METHOD}/{X11}KeyDerivationMethod/{X11}ConcatKDFParams/{D}DigestMethod", f"{DS}sha1"),
}


@pytest.mark.parametrize(
    ("package", "path", "algorithm"),
    [pytest.param(rsa_package, *case, id=name) for name, case in ALGORITHMS.items()]
    + [pytest.param(ec_package, *case, id=name) for name, case in EC_ALGORITHMS.items()],
)
def test_algorithm_substitution(package: Callable[[], bytes], path: str, algorithm: str) -> None:
    """REQ-39, REQ-59: an algorithm outside the list is refused before the XML security library sees it."""
    assert refusal(changed(_attribute(path, "Algorithm", algorithm), package())) is ResultCode.UNSUPPORTED_SUITE


def test_parameters_of_the_key_derivation_are_fixed() -> None:
    """REQ-39: other parties in the key derivation, other structure."""
    path = f"{EC_METHOD}/{X11}KeyDerivationMethod/{X11}ConcatKDFParams"
    package = changed(_attribute(path, "PartyUInfo", "0041"), ec_package())
    assert refusal(package) is ResultCode.SIGNATURE_INVALID


def _evil(root: etree._Element) -> etree._Element:
    """The same package with another recipient; its own signature does not fit any more."""
    evil = copy.deepcopy(root)
    find(evil, f"{M}Header/{M}TREId").text = "urn:m2m:tre:0666"
    return evil


def _wrapped_as_child(root: etree._Element) -> etree._Element:
    evil = _evil(root)
    evil.append(root)
    return evil


def _wrapped_in_object(root: etree._Element) -> etree._Element:
    evil = _evil(root)
    signature = find(evil, SIGNATURE)
    holder = etree.SubElement(signature, f"{D}Object")
    holder.append(root)
    return evil


def _wrapped_in_header(root: etree._Element) -> etree._Element:
    evil = _evil(root)
    evil[0].append(root)
    return evil


def _wrapped_with_the_real_signature_outside(root: etree._Element) -> etree._Element:
    evil = _evil(root)
    evil.replace(evil[2], copy.deepcopy(root[2]))
    evil.insert(2, root)
    return evil


def _wrapped_by_a_new_root(root: etree._Element) -> etree._Element:
    outer = _element("{urn:x}Envelope")
    outer.append(root)
    return outer


def _wrapped_by_the_same_root(root: etree._Element) -> etree._Element:
    outer = _element(root.tag, version="1")
    outer.append(root)
    return outer


@pytest.mark.parametrize(
    "wrap",
    [
        _wrapped_as_child,
        _wrapped_in_object,
        _wrapped_in_header,
        _wrapped_with_the_real_signature_outside,
        _wrapped_by_a_new_root,
        _wrapped_by_the_same_root,
    ],
)
def test_signature_wrapping(wrap: Callable[[etree._Element], etree._Element]) -> None:
    """REQ-59: the real signed package inside another one does not vouch for the other one."""
    package = etree.tostring(wrap(etree.fromstring(rsa_package())))
    assert refusal(package) in (ResultCode.SIGNATURE_INVALID, ResultCode.MALFORMED)


def test_parts_of_two_packages() -> None:
    """REQ-57, REQ-59: the blob of one package under the header of another, both signed by the same SHO."""
    other = etree.fromstring(build(content=b"other"))

    def change(root: etree._Element) -> None:
        root.replace(root[1], other[1])

    assert refusal(changed(change)) is ResultCode.SIGNATURE_INVALID


def _resigned(package: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Digest and signature made again, by primitives: what a stranger could do to a package."""
    root = etree.fromstring(package)
    signature = root[2]
    rest = copy.deepcopy(root)
    rest.remove(rest[2])
    digest = hashes.Hash(hashes.SHA256())
    digest.update(etree.tostring(rest, method="c14n", exclusive=True))
    find(root, f"{REFERENCE}/{D}DigestValue").text = base64.b64encode(digest.finalize()).decode()
    octets = etree.tostring(signature[0], method="c14n", exclusive=True)
    r, s = decode_dss_signature(key.sign(octets, ec.ECDSA(hashes.SHA256())))
    find(root, f"{SIGNATURE}/{D}SignatureValue").text = base64.b64encode(
        r.to_bytes(32, "big") + s.to_bytes(32, "big")
    ).decode()
    return etree.tostring(root)


def test_signature_by_other_primitives() -> None:
    """REQ-31, REQ-50: canonical form and signature are the standard's; a stranger's under that chain fails."""
    package = changed(_set(f"{M}Header/{M}SequenceNumber", "8"))
    assert verify(_resigned(package, PKI.sho.key)).header.sequence == 8
    assert refusal(_resigned(package, PKI.other_sho.key)) is ResultCode.SIGNATURE_INVALID


def test_builder_refuses_what_nobody_could_verify() -> None:
    """REQ-50: no package without the signer's certificate."""
    with pytest.raises(InvalidArgument):
        build(Signer(PKI.sho.key, ()))


def _refused_or_same(octets: bytes) -> None:
    try:
        verified = verify(octets)
    except PackageRefused:
        return
    # A change that no signed octet knows of: white space in the Base64 of the signature, quotes of the declaration.
    assert verified.header == header()
    assert open_package(verified, RSA_KEY) == OBJECT


def _peek(octets: bytes) -> None:
    try:
        peek_header(octets)
    except PackageRefused:
        return


odd_certificates = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


@given(st.binary(max_size=300) | st.text(alphabet="<>/?!&;=\"' aM[]-", max_size=60).map(str.encode))
def test_any_octets(octets: bytes) -> None:
    """REQ-59: arbitrary octets end in a refusal and nothing else."""
    for read in (peek_header, verify):
        with pytest.raises(PackageRefused):
            read(octets)


@odd_certificates
@given(position=st.integers(0, 6000), value=st.integers(0, 255))
def test_any_octet_changed(position: int, value: int) -> None:
    """REQ-59: a changed octet is refused, or means nothing and changes nothing."""
    package = rsa_package()
    position %= len(package)
    octets = package[:position] + bytes((value,)) + package[position + 1 :]
    _peek(octets)
    _refused_or_same(octets)


@odd_certificates
@given(start=st.integers(0, 6000), length=st.integers(0, 40), inserted=st.binary(max_size=8))
def test_any_octets_replaced(start: int, length: int, inserted: bytes) -> None:
    """REQ-59: the same with octets cut out and put in."""
    package = rsa_package()
    start %= len(package)
    octets = package[:start] + inserted + package[start + length :]
    _peek(octets)
    _refused_or_same(octets)
