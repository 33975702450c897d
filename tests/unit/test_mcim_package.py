"""The package: for one recipient, in a container it takes, and with one answer for whatever does not open."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree

from mcim.errors import InvalidArgument, PackageRefused
from mcim.package import open_package
from mcim.package_header import peek_header
from mcim.platform_key import OaepHash, SoftwarePlatformKey
from mcim.vocabulary import Container, Operation, ResultCode
from mcim.xml_package import XmlSealed
from tests.support_package import (
    EC_KEY,
    OBJECT,
    PKI,
    RSA_KEY,
    build,
    ec_package,
    header,
    refusal,
    rsa_package,
    verify,
)
from tests.support_pki import SHO_ID, Signer, rsa_key
from tests.support_xml import (
    ENCRYPTED,
    Change,
    D,
    X,
    attribute,
    changed,
    find,
    flip,
    set_text,
)


@functools.cache
def mgf1p_package() -> bytes:
    return build(Container.XML_MGF1P)


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
    package = build(Container.XML, public_key=key.public_key, content=content)
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
        build(Container.XML_MGF1P, public_key=EC_KEY.public_key)


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
        old = find(root, f"{ENCRYPTED}/{method}")
        parent = old.getparent()
        assert parent is not None
        parent.replace(old, find(etree.fromstring(template), f"{ENCRYPTED}/{method}"))

    assert refusal(changed(package(), change), containers=accepted) is ResultCode.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("Algorithm", "http://www.w3.org/2001/04/xmlenc#sha256", id="digest"),
        pytest.param("Algorithm", "http://www.w3.org/2001/04/xmldsig-more#md5", id="md5"),
    ],
)
def test_mgf1p_has_one_digest(name: str, value: str) -> None:
    """REQ-39: the legacy container is one set of algorithms as well, not an open door."""
    change = attribute(f"{ENCRYPTED}/{D}KeyInfo/{X}EncryptedKey/{X}EncryptionMethod/{D}DigestMethod", name, value)
    assert refusal(changed(mgf1p_package(), change), containers=BOTH) is ResultCode.UNSUPPORTED_SUITE


def _command(container: Container = Container.XML) -> bytes:
    return build(container, content=None, operation=Operation.SUSPEND)


@pytest.mark.parametrize("container", sorted(BOTH))
@pytest.mark.parametrize(
    "accepted", [MGF1P_ONLY, BOTH, frozenset({Container.XML})], ids=lambda each: "+".join(sorted(each))
)
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
        build(container, content=content, operation=operation)


def test_ephemeral_key_in_a_command() -> None:
    """REQ-59: a header has nothing that means nothing."""
    package = build(Container.XML, content=None, operation=Operation.SUSPEND, ephemeral_key=b"\4" * 65)
    assert refusal(package) is ResultCode.MALFORMED


OUTER = f"{X}CipherData/{X}CipherValue"
WRAPPED = f"{D}KeyInfo/{X}EncryptedKey/{X}CipherData/{X}CipherValue"
LABEL = f"{D}KeyInfo/{X}EncryptedKey/{X}EncryptionMethod/{X}OAEPparams"


@pytest.mark.parametrize(
    ("package", "key", "change"),
    [
        pytest.param(rsa_package, RSA_KEY, flip(OUTER), id="content"),
        pytest.param(rsa_package, RSA_KEY, flip(WRAPPED), id="rsa-wrapped-key"),
        pytest.param(ec_package, EC_KEY, flip(WRAPPED), id="ec-wrapped-key"),
        pytest.param(rsa_package, RSA_KEY, flip(LABEL), id="label"),
        pytest.param(rsa_package, RSA_KEY, set_text(LABEL, ""), id="no-label"),
        pytest.param(rsa_package, RSA_KEY, set_text(OUTER, ""), id="no-content"),
        pytest.param(rsa_package, RSA_KEY, set_text(OUTER, "AAAA"), id="content-shorter-than-a-tag"),
        pytest.param(rsa_package, RSA_KEY, set_text(WRAPPED, "?"), id="no-base64"),
        pytest.param(rsa_package, RSA_KEY, set_text(WRAPPED, "\u00e9"), id="no-ascii"),
        pytest.param(ec_package, EC_KEY, set_text(WRAPPED, "AAAA"), id="wrapped-key-too-short"),
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


def test_builder_refuses_what_nobody_could_verify() -> None:
    """REQ-50: no package without the signer's certificate."""
    with pytest.raises(InvalidArgument):
        build(Container.XML, signer=Signer(PKI.sho.key, ()))
