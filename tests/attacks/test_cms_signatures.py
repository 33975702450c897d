"""Packages in CMS: the home operator selected signed this header over this content."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from mcim import cms_package
from mcim.certificates import Role, TrustAnchors
from mcim.errors import PackageRefused
from mcim.package import open_package
from mcim.package_header import peek_header
from mcim.platform_key import SoftwarePlatformKey
from mcim.vocabulary import Container, Operation, ResultCode, Suite
from tests.support_cms import (
    ATTRIBUTES,
    CERTIFICATES,
    ENCAPSULATED,
    HEADER_OID,
    NULL,
    SID,
    SIGNATURE,
    SIGNED,
    SIGNER,
    SIGNERS,
    Change,
    attribute,
    build,
    changed,
    command,
    put,
    refusal,
    rsa_package,
    sign_again,
    sort_attributes,
    verify,
)
from tests.support_der import Node, oid, parse, sequence
from tests.support_package import (
    MALFORMED,
    NOT_HIS,
    PKI,
    UNSUPPORTED,
    WRONG,
    certified,
    header,
)
from tests.support_pki import NOW, OTHER_SHO_ID, Signer


def _wrong_tag(root: Node) -> None:
    """Signed as the attributes stand in the message, not as a SET (RFC 5652 §5.4)."""
    octets = root.at(*ATTRIBUTES).encode()
    root.at(*SIGNATURE).octets = PKI.sho.key.sign(octets, ec.ECDSA(hashes.SHA256()))


def _signed_content(root: Node) -> None:
    """Signed the content itself, as if there were no attributes."""
    octets = root.at(*ENCAPSULATED, 1, 0).octets
    root.at(*SIGNATURE).octets = PKI.sho.key.sign(octets, ec.ECDSA(hashes.SHA256()))


def _foreign_envelope(root: Node) -> None:
    root.at(*ENCAPSULATED).children[1] = parse(build(content=b"other")).at(*ENCAPSULATED, 1)


def _foreign_header(root: Node) -> None:
    other = parse(build(sequence=8))
    root.at(*ATTRIBUTES).children = [
        attribute(other, HEADER_OID) if each[0] == oid(HEADER_OID) else each for each in root.at(*ATTRIBUTES).children
    ]
    sort_attributes(root)


def _foreign_attributes(root: Node) -> None:
    """Attributes and signature of one package over the content of another: a real signature, of the same signer."""
    other = parse(build(content=b"other"))
    root.at(*SIGNERS).children = [other.at(*SIGNER)]


def _stranger(root: Node) -> None:
    sign_again(root, PKI.other_sho.key)


def _stranger_with_his_name(root: Node) -> None:
    """Another operator's signature, name and chain under the header of the one selected."""
    other = parse(build(signer=PKI.other_sho))
    root.at(*SIGNER).children[1] = other.at(*SID)
    root.at(*SIGNED).children[3] = other.at(*CERTIFICATES)
    sign_again(root, PKI.other_sho.key)


def _names_another(root: Node) -> None:
    """The chain has both leaves; the signer is said to be the other one."""
    other = parse(build(signer=PKI.other_sho))
    root.at(*SIGNER).children[1] = other.at(*SID)
    certificates = root.at(*CERTIFICATES)
    certificates.children = sorted(
        [*certificates.children, parse(PKI.other_sho.chain[0].public_bytes(Encoding.DER))], key=Node.encode
    )


def _leaf_missing(root: Node) -> None:
    leaf = parse(PKI.sho.chain[0].public_bytes(Encoding.DER))
    root.at(*CERTIFICATES).children.remove(leaf)


def _leaf_twice(root: Node) -> None:
    certificates = root.at(*CERTIFICATES)
    leaf = parse(PKI.sho.chain[0].public_bytes(Encoding.DER))
    certificates.children = sorted([*certificates.children, leaf], key=Node.encode)


def _not_a_certificate(root: Node) -> None:
    certificates = root.at(*CERTIFICATES)
    certificates.children = sorted([*certificates.children, sequence(NULL)], key=Node.encode)


def _unreadable_name(root: Node) -> None:
    """The issuer's name in a certificate is a bit string, which the library reads in one kind of attribute alone."""
    certificates = root.at(*CERTIFICATES)
    for certificate in certificates.children:
        certificate.at(0, 3, 0, 0, 1).tag = 0x03
        certificate.at(0, 3, 0, 0, 1).octets = b"\0name"
    certificates.children.sort(key=Node.encode)


def _unreadable_name_of_the_signer(root: Node) -> None:
    _unreadable_name(root)
    name = root.at(*SID, 0, 0, 0, 1)
    name.tag, name.octets = 0x03, b"\0name"


SIGNATURES: dict[str, tuple[Change, ResultCode]] = {
    "attributes signed under another tag": (_wrong_tag, WRONG),
    "content signed without attributes": (_signed_content, WRONG),
    "envelope of another package": (_foreign_envelope, WRONG),
    "header of another package": (_foreign_header, WRONG),
    "attributes and signature of another package": (_foreign_attributes, WRONG),
    "signed by a stranger": (_stranger, WRONG),
    "signed by another operator in his own name": (_stranger_with_his_name, NOT_HIS),
    "said to be signed by another": (_names_another, NOT_HIS),
    "the signer's certificate missing": (_leaf_missing, NOT_HIS),
    "the signer's certificate twice": (_leaf_twice, NOT_HIS),
    "something else among the certificates": (_not_a_certificate, NOT_HIS),
    "names that cannot be read": (_unreadable_name, NOT_HIS),
    "a signer's name that cannot be read": (_unreadable_name_of_the_signer, NOT_HIS),
    "issuer of another name": (
        lambda root: setattr(root.at(*SID, 0, 0, 0, 1), "octets", b"Operator CB"), NOT_HIS,
    ),
    "another serial number": (lambda root: setattr(root.at(*SID, 1), "octets", b"\x11" * 20), NOT_HIS),
    "signature that is none": (lambda root: setattr(root.at(*SIGNATURE), "octets", b"none"), WRONG),
    "no signature": (lambda root: setattr(root.at(*SIGNATURE), "octets", b""), WRONG),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code"), SIGNATURES.values(), ids=SIGNATURES)
def test_signature(change: Change, code: ResultCode) -> None:
    """T2 T5 REQ-50 REQ-57 REQ-59: the home operator selected signed this header over this content."""
    assert refusal(changed(change)) is code


def test_signature_by_other_primitives() -> None:
    """REQ-31: what the tests above make is right but for what they change."""
    package = changed(_foreign_header, signed=True)
    assert verify(package).header.sequence == 8


SIGNERS_REFUSED: dict[str, tuple[Callable[[], bytes], dict[str, Any], ResultCode]] = {
    "another operator": (lambda: build(signer=PKI.other_sho), {}, NOT_HIS),
    "another selected": (rsa_package, {"expected_sho_id": OTHER_SHO_ID}, NOT_HIS),
    "header names another": (lambda: build(signer=PKI.other_sho), {"expected_sho_id": OTHER_SHO_ID}, NOT_HIS),
    "DPF of that name": (lambda: build(signer=certified(Role.DPF)), {}, NOT_HIS),
    "device": (lambda: build(signer=Signer(PKI.attest_key, (PKI.attest, *PKI.tre_chain))), {}, NOT_HIS),
    "CA": (lambda: build(signer=Signer(PKI.operator.key, PKI.operator.intermediates)), {}, NOT_HIS),
    "below a manufacturer": (lambda: build(signer=certified(Role.SHO, authority=PKI.manufacturer)), {}, NOT_HIS),
    "intermediate missing": (lambda: build(signer=Signer(PKI.sho.key, PKI.sho.chain[:1])), {}, NOT_HIS),
    "expired": (rsa_package, {"now": NOW + timedelta(days=731)}, NOT_HIS),
    "no anchors": (rsa_package, {"anchors": TrustAnchors((), "sho")}, NOT_HIS),
    "revoked": (
        rsa_package,
        {"crls": (PKI.operator.make_crl([PKI.sho.chain[0].serial_number], NOW),)},
        ResultCode.CERTIFICATE_REVOKED,
    ),
    "container not accepted": (rsa_package, {"containers": frozenset({Container.XML})}, UNSUPPORTED),
    "nothing accepted": (command, {"containers": frozenset()}, UNSUPPORTED),
}


@pytest.mark.parametrize(("package", "kwargs", "code"), SIGNERS_REFUSED.values(), ids=SIGNERS_REFUSED)
def test_signer(package: Callable[[], bytes], kwargs: dict[str, Any], code: ResultCode) -> None:
    """T5 T16 REQ-46 REQ-50: as with the other containers."""
    assert refusal(package(), **kwargs) is code


def _header_value(index: int, node: Node) -> Change:
    def change(root: Node) -> None:
        attribute(root, HEADER_OID)[1][0].children[index] = node
        sort_attributes(root)

    return change


def _header_without(index: int) -> Change:
    def change(root: Node) -> None:
        attribute(root, HEADER_OID)[1][0].children.pop(index)
        sort_attributes(root)

    return change


HEADERS: dict[str, tuple[bytes | None, Change, ResultCode]] = {
    "version": (None, _header_value(0, Node(0x02, b"\2")), MALFORMED),
    "short transaction": (None, _header_value(1, Node(0x04, bytes(15))), MALFORMED),
    "negative sequence": (None, _header_value(2, Node(0x02, b"\xff")), MALFORMED),
    "sequence beyond 19 digits": (None, _header_value(2, Node(0x02, b"\0" + b"\xff" * 8)), MALFORMED),
    "sequence of 5000 octets": (None, _header_value(2, Node(0x02, b"\1" * 5000)), MALFORMED),
    "sequence in more octets than needed": (None, _header_value(2, Node(0x02, b"\0\7")), MALFORMED),
    "nonce of 65 octets": (None, _header_value(3, Node(0x04, bytes(65))), MALFORMED),
    "empty name": (None, _header_value(4, Node(0x16)), MALFORMED),
    "name with white space": (None, _header_value(5, Node(0x16, b"a b")), MALFORMED),
    "name with a line end": (None, _header_value(5, Node(0x16, b"ab\n")), MALFORMED),
    "name beyond ascii": (None, _header_value(5, Node(0x16, b"\xe9")), MALFORMED),
    "name of another type": (None, _header_value(5, Node(0x0C, b"ab")), MALFORMED),
    "name of 256": (None, _header_value(5, Node(0x16, b"x" * 256)), MALFORMED),
    "short key id": (None, _header_value(6, Node(0x04, bytes(15))), MALFORMED),
    "another operator": (None, _header_value(7, Node(0x16, OTHER_SHO_ID.encode())), NOT_HIS),
    "unknown operation": (None, _header_value(9, Node(0x02, b"\x08")), MALFORMED),
    "operation without an object": (None, _header_value(9, Node(0x02, b"\x05")), WRONG),
    "operation with an object": (b"command", _header_value(9, Node(0x02, b"\x01")), WRONG),
    "short MCIM id": (None, _header_value(10, Node(0x04, bytes(15))), MALFORMED),
    "unknown suite": (None, _header_value(11, Node(0x02, b"\x09")), UNSUPPORTED),
    "utc time": (None, _header_value(12, Node(0x17, b"260601120000Z")), MALFORMED),
    "time zone": (None, _header_value(12, Node(0x18, b"20260601120000+0100")), MALFORMED),
    "fraction of a second": (None, _header_value(12, Node(0x18, b"20260601120000.5Z")), MALFORMED),
    "month 13": (None, _header_value(13, Node(0x18, b"20261301120000Z")), MALFORMED),
    "short digest": (None, _header_value(14, Node(0x04, bytes(31))), MALFORMED),
    "boolean of one": (None, _header_value(15, Node(0x01, b"\1")), MALFORMED),
    "new operator in an install": (
        None,
        lambda root: attribute(root, HEADER_OID)[1][0].children.append(Node(0x80, b"sho2.example")),
        MALFORMED,
    ),
    "release without a new operator": (b"command", _header_value(9, Node(0x02, b"\x07")), MALFORMED),
    "value missing": (None, _header_without(15), MALFORMED),
    "value too many": (
        None, lambda root: attribute(root, HEADER_OID)[1][0].children.append(Node(0x04, b"x")), MALFORMED
    ),
    "no sequence at all": (None, lambda root: put((1, 0), NULL)(attribute(root, HEADER_OID)), MALFORMED),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "code"), HEADERS.values(), ids=HEADERS)
def test_header(kind: bytes | None, change: Change, code: ResultCode) -> None:
    """REQ-58 REQ-59: a value of the header has one spelling, and the operation decides what else there is."""

    def whole(root: Node) -> None:
        change(root)
        sort_attributes(root)

    assert refusal(changed(whole, command() if kind else None, signed=True)) is code


@pytest.mark.parametrize("index", range(1, 16))
def test_changed_header(index: int) -> None:
    """T2 T4 REQ-57 REQ-58: every value of the header is signed."""
    other = header(
        transaction_id=UUID(int=9), sequence=8, registration_nonce=b"m" * 32, m2me_id="urn:imei:1", tre_id="urn:x",
        platform_key_id=bytes(16), dpf_id="dpf2.example", operation=Operation.REPLACE, mcim_id=UUID(int=3),
        suite=Suite.LEGACY_1, not_before=NOW + timedelta(1), not_after=NOW + timedelta(2), ticket_digest="00" * 32,
        auth_mode="none",
    )  # fmt: skip
    values = parse(cms_package.sign(other, b"", signing_key=PKI.sho.key, chain=PKI.sho.chain))
    node = attribute(values, HEADER_OID)[1][0][index]
    if index == 7:  # the SHO id: the signer's certificate gives it away before the signature does
        node = Node(0x16, OTHER_SHO_ID.encode())
    package = changed(_header_value(index, node))
    assert peek_header(package) != header()
    assert refusal(package) is (NOT_HIS if index == 7 else WRONG)


def test_nothing_is_decrypted_before_the_signature_is_verified() -> None:
    """REQ-60: a stranger cannot make the key work at all; opening takes what verifying gave."""

    class Watched(SoftwarePlatformKey):
        def decrypt_oaep(self, *args: Any, **kwargs: Any) -> bytes:
            raise AssertionError("the key was used")

    key = Watched(PKI.platform_key)
    for change in (_stranger, _foreign_envelope):
        with pytest.raises(PackageRefused):
            open_package(verify(changed(change)), key)
