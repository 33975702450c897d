"""Attacks on packages in CMS: changed on the way by a stranger, or signed so by a home operator that signs anything."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mcim import cms_package
from mcim.certificates import Role, TrustAnchors
from mcim.errors import InvalidArgument, PackageRefused
from mcim.key_id import key_id_of
from mcim.package import VerifiedPackage, build_package, open_package, verify_package
from mcim.package_header import PackageHeader, peek_header
from mcim.platform_key import PlatformPublicKey, SoftwarePlatformKey, oaep
from mcim.vocabulary import MAX_PACKAGE_SIZE, Container, Operation, ResultCode, Suite
from tests.support_der import Node, oid, parse, sequence, set_of
from tests.support_pki import DPF_ID, M2ME_ID, NOW, OTHER_SHO_ID, SHO_ID, TRE_ID, Signer, pki, rsa_key

PKI = pki()
OBJECT = bytes(range(256)) * 2
RSA_KEY = SoftwarePlatformKey(PKI.platform_key)
EC_KEY = SoftwarePlatformKey(ec.generate_private_key(ec.SECP256R1()))
CMS_ONLY = frozenset({Container.CMS})
MALFORMED, WRONG, UNSUPPORTED = ResultCode.MALFORMED, ResultCode.SIGNATURE_INVALID, ResultCode.UNSUPPORTED_SUITE
NOT_HIS = ResultCode.SIGNER_NOT_ACCEPTABLE
odd_certificates = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

Change = Callable[[Node], None]


def header(public_key: PlatformPublicKey = RSA_KEY.public_key, **values: Any) -> PackageHeader:
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
    signer: Signer = PKI.sho,
    public_key: PlatformPublicKey = RSA_KEY.public_key,
    content: bytes | None = OBJECT,
    **values: Any,
) -> bytes:
    return build_package(
        header(public_key, **values),
        content,
        recipient_public_key=public_key,
        signing_key=signer.key,
        signer_chain=signer.chain,
        container=Container.CMS,
    )


@functools.cache
def rsa_package() -> bytes:
    return build()


@functools.cache
def ec_package() -> bytes:
    return build(public_key=EC_KEY.public_key)


@functools.cache
def command() -> bytes:
    return build(content=None, operation=Operation.DELETE)


def verify(package: bytes, **kwargs: Any) -> VerifiedPackage:
    given = {"anchors": PKI.sho_anchors, "now": NOW, "expected_sho_id": SHO_ID, "containers": CMS_ONLY}
    return verify_package(package, **(given | kwargs))


def refusal(package: bytes, **kwargs: Any) -> ResultCode:
    with pytest.raises(PackageRefused) as caught:
        verify(package, **kwargs)
    return caught.value.code


# Where things are in the tree of a package, and in that of its EnvelopedData.
SIGNED = (1, 0)
DIGESTS, ENCAPSULATED, CERTIFICATES, SIGNERS = (*SIGNED, 1), (*SIGNED, 2), (*SIGNED, 3), (*SIGNED, 4)
SIGNER = (*SIGNERS, 0)
SID, SIGNER_DIGEST, ATTRIBUTES, SIGNATURE_ALGORITHM, SIGNATURE = ((*SIGNER, index) for index in range(1, 6))
RECIPIENT, CIPHER = (1, 0), (2, 1)
HEADER_OID, DIGEST_OID, TYPE_OID = "1.3.6.1.4.1.99999.2.1", "1.2.840.113549.1.9.4", "1.2.840.113549.1.9.3"


def sign_again(root: Node, key: ec.EllipticCurvePrivateKey = PKI.sho.key) -> None:
    """Digest and signature over whatever is there now, by primitives."""
    attributes = root.at(*ATTRIBUTES)
    octets = Node(0x31, children=attributes.children).encode()
    root.at(*SIGNATURE).octets = key.sign(octets, ec.ECDSA(hashes.SHA256()))


def attribute(root: Node, kind: str) -> Node:
    return next(each for each in root.at(*ATTRIBUTES).children if each[0] == oid(kind))


def sort_attributes(root: Node) -> None:
    root.at(*ATTRIBUTES).children.sort(key=Node.encode)


def changed(change: Change, package: bytes | None = None, *, signed: bool = False) -> bytes:
    """A package in which something is different; `signed`: by the home operator itself."""
    root = parse(package or rsa_package())
    change(root)
    if signed:
        sign_again(root)
    return root.encode()


def in_envelope(change: Change) -> Change:
    """The change in EnvelopedData, with the digest over it made again."""

    def apply(root: Node) -> None:
        content = root.at(*ENCAPSULATED, 1, 0)
        enveloped = parse(content.octets)
        change(enveloped)
        content.octets = enveloped.encode()
        attribute(root, DIGEST_OID)[1][0].octets = hashlib.sha256(content.octets).digest()
        sort_attributes(root)

    return apply


def put(path: tuple[int, ...], node: Node) -> Change:
    def change(root: Node) -> None:
        root.at(*path[:-1]).children[path[-1]] = node

    return change


def append(path: tuple[int, ...], node: Node) -> Change:
    return lambda root: root.at(*path).children.append(node)


def insert(path: tuple[int, ...], index: int, node: Node) -> Change:
    return lambda root: root.at(*path).children.insert(index, node)


def drop(path: tuple[int, ...]) -> Change:
    return lambda root: root.at(*path[:-1]).children.pop(path[-1])  # type: ignore[func-returns-value,return-value]


def algorithm(dotted: str, *parameters: Node) -> Node:
    return sequence(oid(dotted), *parameters)


NULL = Node(0x05)
SHA1, SHA224, SHA512, MD5 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.4", "2.16.840.1.101.3.4.2.3", "1.2.840.113549.2.5"
SHA256 = "2.16.840.1.101.3.4.2.1"
ECDSA_SHA1, ECDSA_SHA512, ECDSA_SHA256 = "1.2.840.10045.4.1", "1.2.840.10045.4.3.4", "1.2.840.10045.4.3.2"
RSA_15, RSA_OAEP, P_SPECIFIED, MGF1 = (
    f"1.2.840.113549.1.1.{arc}" for arc in ("1", "7", "9", "8")
)  # fmt: skip
DES3, RC2 = "1.2.840.113549.3.7", "1.2.840.113549.3.2"
AES128, AES256, AES256_GCM = (f"2.16.840.1.101.3.4.1.{arc}" for arc in ("2", "42", "46"))
AES128_WRAP, AES256_WRAP = "2.16.840.1.101.3.4.1.5", "2.16.840.1.101.3.4.1.45"
SHA1_KDF, SHA256_KDF = "1.3.133.16.840.63.0.2", "1.3.132.1.11.1"
SIGNING_TIME = "1.2.840.113549.1.9.5"


def explicit(number: int, *children: Node) -> Node:
    return Node(0xA0 | number, children=list(children))


def oaep_parameters(digest: str, label: bytes) -> Node:
    return sequence(
        explicit(0, algorithm(digest)),
        explicit(1, algorithm(MGF1, algorithm(digest))),
        explicit(2, algorithm(P_SPECIFIED, Node(0x04, label))),
    )


@pytest.mark.parametrize(("package", "key"), [(rsa_package, RSA_KEY), (ec_package, EC_KEY)], ids=["rsa", "ec"])
def test_round_trip(package: Callable[[], bytes], key: SoftwarePlatformKey) -> None:
    """REQ-29, REQ-31: header and object come back as they were, and nothing of the object is in clear."""
    verified = verify(package())
    assert verified.header == header(key.public_key) == peek_header(package())
    assert (verified.container, verified.signer.subject_id) == (Container.CMS, SHO_ID)
    assert open_package(verified, key) == OBJECT
    assert OBJECT[:64] not in package()
    assert "nnnn" not in repr(verified)
    assert parse(package()).encode() == package()


@pytest.mark.parametrize("operation", [each for each in Operation if not each.carries_object])
def test_command_round_trip(operation: Operation) -> None:
    """REQ-31: a command and a release token are a signed header without anything in it."""
    new_sho = OTHER_SHO_ID if operation is Operation.RELEASE else None
    verified = verify(build(content=None, operation=operation, new_sho_id=new_sho))
    assert (verified.header.operation, verified.header.new_sho_id, verified.sealed) == (operation, new_sho, None)
    with pytest.raises(PackageRefused) as caught:
        open_package(verified, RSA_KEY)
    assert caught.value.code is ResultCode.CRYPTO_FAILURE


def _second_signer(root: Node) -> None:
    other = parse(build(PKI.other_sho))
    signers = root.at(*SIGNERS)
    signers.children = sorted([*signers.children, other.at(*SIGNER)], key=Node.encode)


def _five_certificates(root: Node) -> None:
    leaf = PKI.other_sho.chain[0].public_bytes(Encoding.DER)
    certificates = root.at(*CERTIFICATES)
    certificates.children = sorted([*certificates.children, *([parse(leaf)] * 3)], key=Node.encode)


def _strip(kind: str) -> Change:
    return lambda root: root.at(*ATTRIBUTES).children.remove(attribute(root, kind))


def _twice(kind: str) -> Change:
    def change(root: Node) -> None:
        root.at(*ATTRIBUTES).children.append(attribute(root, kind))
        sort_attributes(root)

    return change


def _another_header(root: Node) -> None:
    """A second header attribute beside the first."""
    value = parse(attribute(root, HEADER_OID).encode())
    value[1][0][2].octets = b"\x09"
    root.at(*ATTRIBUTES).children.append(value)
    sort_attributes(root)


def _two_values(kind: str) -> Change:
    def change(root: Node) -> None:
        values = attribute(root, kind)[1]
        other = parse(values[0].encode())
        leaf = other[2] if other.children else other
        leaf.octets = leaf.octets[:-1] + bytes((leaf.octets[-1] ^ 1,))
        values.children = sorted([values[0], other], key=Node.encode)
        sort_attributes(root)

    return change


def _no_value(root: Node) -> None:
    attribute(root, HEADER_OID)[1].children.clear()
    sort_attributes(root)


def _extra_attribute(root: Node) -> None:
    root.at(*ATTRIBUTES).children.append(sequence(oid(SIGNING_TIME), set_of(Node(0x17, b"260601120000Z"))))
    sort_attributes(root)


def _reordered(root: Node) -> None:
    root.at(*ATTRIBUTES).children.reverse()


def _other_content_type(root: Node) -> None:
    attribute(root, TYPE_OID)[1].children[0] = oid("1.2.840.113549.1.7.1")
    sort_attributes(root)


def _other_digest(root: Node) -> None:
    attribute(root, DIGEST_OID)[1][0].octets = bytes(32)
    sort_attributes(root)


def _clear_content(root: Node) -> None:
    """Not encrypted at all: EnvelopedData's place holds data."""
    root.at(*ENCAPSULATED).children[0] = oid("1.2.840.113549.1.7.1")
    _other_content_type(root)


def _content_type(dotted: str) -> Change:
    def change(root: Node) -> None:
        root.at(*ENCAPSULATED).children[0] = oid(dotted)
        attribute(root, TYPE_OID)[1].children[0] = oid(dotted)
        sort_attributes(root)

    return change


def _by_key_id(root: Node) -> None:
    root.at(*SIGNER).children[1] = Node(0x80, b"k" * 20)


UNSIGNED = Node(0xA1, children=[sequence(oid(SIGNING_TIME), set_of(Node(0x17, b"260601120000Z")))])

STRUCTURE: dict[str, tuple[Change, ResultCode]] = {
    "second signer": (_second_signer, WRONG),
    "no signer": (drop(SIGNER), WRONG),
    "revocation list": (insert(SIGNED, 4, explicit(1, sequence())), WRONG),
    "no revocation list in their place": (insert(SIGNED, 4, explicit(1)), WRONG),
    "unsigned attribute": (append(SIGNER, UNSIGNED), WRONG),
    "no unsigned attribute in their place": (append(SIGNER, Node(0xA1)), WRONG),
    "no certificates": (drop(CERTIFICATES), WRONG),
    "no certificate among them": (lambda root: root.at(*CERTIFICATES).children.clear(), WRONG),
    "five certificates": (_five_certificates, WRONG),
    "detached content": (drop((*ENCAPSULATED, 1)), WRONG),
    "content in clear": (_clear_content, WRONG),
    "content is signed data": (_content_type("1.2.840.113549.1.7.2"), MALFORMED),
    "signer named by key id": (_by_key_id, WRONG),
    "serial number of zero": (lambda root: setattr(root.at(*SID, 1), "octets", b"\0"), WRONG),
    "serial number below zero": (lambda root: setattr(root.at(*SID, 1), "octets", b"\x80"), WRONG),
    "serial number of 21 octets": (lambda root: setattr(root.at(*SID, 1), "octets", b"\1" * 21), WRONG),
    "no signed attributes": (drop(ATTRIBUTES), WRONG),
    "an empty set of them": (lambda root: root.at(*ATTRIBUTES).children.clear(), WRONG),
    "header stripped": (_strip(HEADER_OID), WRONG),
    "digest stripped": (_strip(DIGEST_OID), WRONG),
    "content type stripped": (_strip(TYPE_OID), WRONG),
    "header twice": (_twice(HEADER_OID), WRONG),
    "digest twice": (_twice(DIGEST_OID), WRONG),
    "two headers": (_another_header, WRONG),
    "header with two values": (_two_values(HEADER_OID), WRONG),
    "digest with two values": (_two_values(DIGEST_OID), WRONG),
    "header without a value": (_no_value, WRONG),
    "extra attribute": (_extra_attribute, WRONG),
    "attributes out of order": (_reordered, MALFORMED),
    "signed for another content type": (_other_content_type, WRONG),
    "signed for another content": (_other_digest, WRONG),
    "message type": (put((0,), oid("1.2.840.113549.1.7.3")), MALFORMED),
    "version of SignedData": (put((*SIGNED, 0), Node(0x02, b"\1")), MALFORMED),
    "version of SignerInfo": (put((*SIGNER, 0), Node(0x02, b"\3")), MALFORMED),
    "trailing value": (append((), NULL), MALFORMED),
    "trailing value in SignedData": (append(SIGNED, NULL), MALFORMED),
    "second digest algorithm": (append(DIGESTS, algorithm(SHA512)), WRONG),
    "no digest algorithm": (lambda root: root.at(*DIGESTS).children.clear(), WRONG),
    "sha-1 for SignedData": (put((*DIGESTS, 0), algorithm(SHA1)), UNSUPPORTED),
    "sha-1 for the signer": (put(SIGNER_DIGEST, algorithm(SHA1)), UNSUPPORTED),
    "md5 for the signer": (put(SIGNER_DIGEST, algorithm(MD5, NULL)), UNSUPPORTED),
    "sha-512 for the signer": (put(SIGNER_DIGEST, algorithm(SHA512)), UNSUPPORTED),
    "sha-256 with parameters": (put(SIGNER_DIGEST, algorithm(SHA256, NULL)), UNSUPPORTED),
    "ecdsa with sha-1": (put(SIGNATURE_ALGORITHM, algorithm(ECDSA_SHA1)), UNSUPPORTED),
    "ecdsa with sha-512": (put(SIGNATURE_ALGORITHM, algorithm(ECDSA_SHA512)), UNSUPPORTED),
    "rsa": (put(SIGNATURE_ALGORITHM, algorithm(RSA_15, NULL)), UNSUPPORTED),
    "ecdsa with parameters": (put(SIGNATURE_ALGORITHM, algorithm(ECDSA_SHA256, NULL)), UNSUPPORTED),
}


@pytest.mark.parametrize("signed", [False, True], ids=["on-the-way", "signed-so"])
@pytest.mark.parametrize(("change", "code"), STRUCTURE.values(), ids=STRUCTURE)
def test_structure(change: Change, code: ResultCode, signed: bool) -> None:
    """T2 REQ-31 REQ-59: exactly this structure and these algorithms, whoever signs."""

    def whole(root: Node) -> None:
        change(root)
        if signed and len(root.at(*SIGNED).children) == 5 and root.at(*SIGNERS).children:
            signer = root.at(*SIGNER)
            if len(signer.children) >= 6 and signer[3].tag == 0xA0:
                sign_again(root)

    assert refusal(changed(whole)) is code


def test_command_with_something_in_clear() -> None:
    """REQ-59: a command carries nothing, not even what was signed."""

    def change(root: Node) -> None:
        root.at(*ENCAPSULATED, 1, 0).octets = b"in clear"
        attribute(root, DIGEST_OID)[1][0].octets = hashlib.sha256(b"in clear").digest()
        sort_attributes(root)

    assert refusal(changed(change, command(), signed=True)) is WRONG


def _second_recipient(root: Node) -> None:
    other = parse(cms_package.envelope(OBJECT, rsa_key(2048, 1).public_key()))
    infos = root[1]
    infos.children = sorted([*infos.children, other.at(*RECIPIENT)], key=Node.encode)


ENVELOPE: dict[str, tuple[bytes | None, Change, ResultCode]] = {
    "second recipient": (None, _second_recipient, WRONG),
    "no recipient": (None, drop(RECIPIENT), WRONG),
    "password recipient": (None, put(RECIPIENT, Node(0xA3, children=[Node(0x02, b"\0")])), MALFORMED),
    "key-encryption key of old": (None, put(RECIPIENT, Node(0xA2, children=[Node(0x02, b"\4")])), MALFORMED),
    "originator info": (None, insert((), 1, explicit(0)), WRONG),
    "unprotected attributes": (None, append((), explicit(1)), WRONG),
    "version": (None, put((0,), Node(0x02, b"\0")), MALFORMED),
    "version of the recipient": (None, put((*RECIPIENT, 0), Node(0x02, b"\0")), MALFORMED),
    "recipient by issuer": (
        None, put((*RECIPIENT, 1), sequence(sequence(), Node(0x02, b"\1"))), WRONG,
    ),
    "rsa 1.5": (None, put((*RECIPIENT, 2), algorithm(RSA_15, NULL)), UNSUPPORTED),
    "oaep by its defaults, sha-1": (None, put((*RECIPIENT, 2), algorithm(RSA_OAEP, sequence())), UNSUPPORTED),
    "oaep with sha-1": (
        None, put((*RECIPIENT, 2), algorithm(RSA_OAEP, oaep_parameters(SHA1, b"M2M-CMS/1|PK_D"))), UNSUPPORTED,
    ),
    "oaep with the label of the xml container": (
        None, put((*RECIPIENT, 2), algorithm(RSA_OAEP, oaep_parameters(SHA256, b"M2M-XENC/1|PK_D"))), UNSUPPORTED,
    ),
    "3des": (None, put(CIPHER, algorithm(DES3, Node(0x04, bytes(8)))), UNSUPPORTED),
    "rc2": (None, put(CIPHER, algorithm(RC2, sequence(Node(0x02, b"\x3a"), Node(0x04, bytes(8))))), UNSUPPORTED),
    "aes-128": (None, put(CIPHER, algorithm(AES128, Node(0x04, bytes(16)))), UNSUPPORTED),
    "aes-gcm": (None, put(CIPHER, algorithm(AES256_GCM, sequence(Node(0x04, bytes(12))))), UNSUPPORTED),
    "no iv": (None, put(CIPHER, algorithm(AES256)), UNSUPPORTED),
    "short iv": (None, put(CIPHER, algorithm(AES256, Node(0x04, bytes(8)))), UNSUPPORTED),
    "detached ciphertext": (None, drop((2, 2)), WRONG),
    "other content type": (None, put((2, 0), oid("1.2.840.113549.1.7.2")), WRONG),
    "sha-1 for derivation": (b"ec", put((*RECIPIENT, 2), algorithm(SHA1_KDF, algorithm(AES256_WRAP))), UNSUPPORTED),
    "aes-128 wrap": (b"ec", put((*RECIPIENT, 2), algorithm(SHA256_KDF, algorithm(AES128_WRAP))), UNSUPPORTED),
    "key material of the sender": (b"ec", insert(RECIPIENT, 2, explicit(1, Node(0x04, b"u"))), WRONG),
    "static key of the sender": (
        b"ec", put((*RECIPIENT, 1), explicit(0, sequence(sequence(), Node(0x02, b"\1")))), WRONG,
    ),
    "sender by key id": (b"ec", put((*RECIPIENT, 1), explicit(0, Node(0x80, b"k"))), WRONG),
    "point on another curve": (
        b"ec", put((*RECIPIENT, 1, 0, 0), algorithm("1.2.840.10045.2.1", oid("1.3.132.0.34"))), UNSUPPORTED,
    ),
    "point that is not whole octets": (b"ec", put((*RECIPIENT, 1, 0, 1), Node(0x03, b"\x04\x10")), MALFORMED),
    "two keys of one recipient": (
        b"ec",
        append((*RECIPIENT, 3), sequence(Node(0xA0, children=[Node(0x04, b"k")]), Node(0x04, b"e"))),
        WRONG,
    ),
    "no key of a recipient": (b"ec", drop((*RECIPIENT, 3, 0)), WRONG),
    "recipient of agreement by issuer": (
        b"ec", put((*RECIPIENT, 3, 0, 0), sequence(sequence(), Node(0x02, b"\1"))), WRONG,
    ),
    "version of agreement": (b"ec", put((*RECIPIENT, 0), Node(0x02, b"\2")), MALFORMED),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "code"), ENVELOPE.values(), ids=ENVELOPE)
def test_envelope(kind: bytes | None, change: Change, code: ResultCode) -> None:
    """T2 T16 REQ-39 REQ-59: of EnvelopedData as well there is one form, even when the home operator signs another."""
    package = ec_package() if kind else rsa_package()
    assert refusal(changed(in_envelope(change), package, signed=True)) is code


def _raw(old: bytes, new: bytes) -> bytes:
    assert rsa_package().count(old) >= 1
    return rsa_package().replace(old, new, 1)


def _indefinite() -> bytes:
    """BER: the length of the whole is not told; an end-of-contents follows instead."""
    package = rsa_package()
    return b"\x30\x80" + package[4:] + b"\0\0"


def _indefinite_inside() -> bytes:
    signed = parse(rsa_package()).at(*SIGNED).encode()
    inner = b"\xa0\x80" + signed + b"\0\0"
    body = parse(rsa_package())[0].encode() + inner
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def _constructed_octets(root: Node) -> None:
    content = root.at(*ENCAPSULATED, 1)
    octets = content[0].octets
    content.children = [Node(0x24, children=[Node(0x04, octets[:100]), Node(0x04, octets[100:])])]


OCTETS: dict[str, tuple[Callable[[], bytes], ResultCode]] = {
    "truncated": (lambda: rsa_package()[:-1], MALFORMED),
    "trailing": (lambda: rsa_package() + b"\0", MALFORMED),
    "two messages": (lambda: rsa_package() * 2, MALFORMED),
    "indefinite length": (_indefinite, MALFORMED),
    "indefinite length inside": (_indefinite_inside, MALFORMED),
    "octet string in pieces": (lambda: changed(_constructed_octets), MALFORMED),
    "length in more octets than needed": (
        lambda: b"\x30\x83\0" + rsa_package()[2:4] + rsa_package()[4:], MALFORMED
    ),
    "huge length": (lambda: b"\x30\x84\xff\xff\xff\xff" + rsa_package()[4:], MALFORMED),
    "length of 126 octets": (lambda: b"\x30\xfe" + b"\xff" * 126, MALFORMED),
    "nothing but the tag": (lambda: b"\x30", MALFORMED),
    "nested": (lambda: functools.reduce(lambda inner, _: b"\x30\x80" + inner, range(20000), b""), MALFORMED),
    "nested in DER": (lambda: _nested(4000).encode(), MALFORMED),
    "set of 60000": (
        lambda: changed(lambda root: root.at(*DIGESTS).children.extend([NULL] * 60000)), MALFORMED
    ),
    "oversize": (lambda: rsa_package() + bytes(MAX_PACKAGE_SIZE), MALFORMED),
    "base64": (lambda: base64.b64encode(rsa_package()), MALFORMED),
    "pem": (lambda: b"-----BEGIN CMS-----\n" + base64.b64encode(rsa_package()), MALFORMED),
    "tag in two octets": (lambda: b"\x3f\x10" + rsa_package()[1:], MALFORMED),
}  # fmt: skip


def _nested(depth: int) -> Node:
    class Flat(Node):
        def encode(self) -> bytes:
            octets = b""
            for _ in range(depth):
                octets = Node(0x04, octets).encode()
                octets = b"\x30" + octets[1:]
            return octets

    return Flat(0x30)


@pytest.mark.parametrize(("package", "code"), OCTETS.values(), ids=OCTETS)
def test_octets(package: Callable[[], bytes], code: ResultCode) -> None:
    """T2 T12 REQ-59: one encoding, of bounded size and depth."""
    # Without XML among the containers, what does not begin as DER is refused for its container when it is XML at all.
    assert refusal(package()) is code


def _refused_or_same(octets: bytes, package: Callable[[], bytes], key: SoftwarePlatformKey) -> bool:
    """Whether it is refused; otherwise the change is in a certificate's own encoding, and nothing that was signed."""
    try:
        verified = verify(octets)
    except PackageRefused:
        return True
    original = verify(package())
    assert verified == replace(original, signer=verified.signer)
    assert verified.signer.public_key == original.signer.public_key
    if verified.sealed is not None:
        assert open_package(verified, key) == OBJECT
    changed_tree, tree = parse(octets), parse(package())
    changed_tree.at(*SIGNED).children[3] = tree.at(*CERTIFICATES)
    assert changed_tree == tree
    return False


@odd_certificates
@pytest.mark.parametrize(
    ("package", "key"),
    [(rsa_package, RSA_KEY), (ec_package, EC_KEY), (command, RSA_KEY)],
    ids=["rsa", "ec", "command"],
)
def test_every_octet_flipped(package: Callable[[], bytes], key: SoftwarePlatformKey) -> None:
    """T2 REQ-31 REQ-59: a bit of every octet; all that is signed, and what says by whom, has one form alone.

    The number of unused bits of a certificate's signature is not looked at by `cryptography` when they are zero.
    """
    original = package()
    accepted = 0
    for position in range(len(original)):
        octets = bytearray(original)
        octets[position] ^= 1 << position % 8
        accepted += not _refused_or_same(bytes(octets), package, key)
    assert accepted <= 2  # one for each certificate


@odd_certificates
@given(position=st.integers(0, 3000), length=st.integers(0, 40), inserted=st.binary(max_size=12))
def test_any_octets_replaced(position: int, length: int, inserted: bytes) -> None:
    """T2 REQ-59: cut out, put in, overwritten: refused, or the package itself."""
    original = rsa_package()
    position %= len(original)
    octets = original[:position] + inserted + original[position + length :]
    with suppress(PackageRefused):
        peek_header(octets)
    _refused_or_same(octets, rsa_package, RSA_KEY)


@given(st.binary(max_size=300).map(lambda octets: b"\x30" + octets))
def test_any_octets(octets: bytes) -> None:
    """REQ-59: arbitrary octets end in a refusal and nothing else."""
    for read in (peek_header, verify):
        with pytest.raises(PackageRefused):
            read(octets)


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
    other = parse(build(PKI.other_sho))
    root.at(*SIGNER).children[1] = other.at(*SID)
    root.at(*SIGNED).children[3] = other.at(*CERTIFICATES)
    sign_again(root, PKI.other_sho.key)


def _names_another(root: Node) -> None:
    """The chain has both leaves; the signer is said to be the other one."""
    other = parse(build(PKI.other_sho))
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


def _signed_by(role: Role, **kwargs: Any) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    arguments: dict[str, Any] = {"identity": SHO_ID, "now": NOW} | kwargs
    authority = arguments.pop("authority", PKI.operator)
    leaf = authority.issue_role(role, key.public_key(), **arguments)
    return build(Signer(key, (leaf, *authority.intermediates)))


SIGNERS_REFUSED: dict[str, tuple[Callable[[], bytes], dict[str, Any], ResultCode]] = {
    "another operator": (lambda: build(PKI.other_sho), {}, NOT_HIS),
    "another selected": (rsa_package, {"expected_sho_id": OTHER_SHO_ID}, NOT_HIS),
    "header names another": (lambda: build(PKI.other_sho), {"expected_sho_id": OTHER_SHO_ID}, NOT_HIS),
    "DPF of that name": (lambda: _signed_by(Role.DPF), {}, NOT_HIS),
    "device": (lambda: build(Signer(PKI.attest_key, (PKI.attest, *PKI.tre_chain))), {}, NOT_HIS),
    "CA": (lambda: build(Signer(PKI.operator.key, PKI.operator.intermediates)), {}, NOT_HIS),
    "below a manufacturer": (lambda: _signed_by(Role.SHO, authority=PKI.manufacturer), {}, NOT_HIS),
    "intermediate missing": (lambda: build(Signer(PKI.sho.key, PKI.sho.chain[:1])), {}, NOT_HIS),
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


def _key(change: Callable[[bytes], bytes]) -> Change:
    return lambda root: setattr(root.at(*RECIPIENT, 3), "octets", change(root.at(*RECIPIENT, 3).octets))


def _ec_key(change: Callable[[bytes], bytes]) -> Change:
    def apply(root: Node) -> None:
        leaf = root.at(*RECIPIENT, 3, 0, 1)
        leaf.octets = change(leaf.octets)

    return apply


def _point(octets: bytes) -> Change:
    return lambda root: setattr(root.at(*RECIPIENT, 1, 0, 1), "octets", b"\0" + octets)


def _compressed(root: Node) -> None:
    """The right point in its other spelling."""
    node = root.at(*RECIPIENT, 1, 0, 1)
    node.octets = b"\0" + bytes((2 + node.octets[-1] % 2,)) + node.octets[2:34]


def _ciphertext(change: Callable[[bytes], bytes]) -> Change:
    return lambda root: setattr(root.at(2, 2), "octets", change(root.at(2, 2).octets))


def _flip(octets: bytes) -> bytes:
    return octets[:40] + bytes((octets[40] ^ 1,)) + octets[41:] if len(octets) > 41 else octets[:-1]


def _wrapped(key: bytes, label: bytes = b"M2M-CMS/1|PK_D") -> Callable[[bytes], bytes]:
    return lambda _: PKI.platform_key.public_key().encrypt(key, oaep("sha256", label))


def _under_aes_128(root: Node) -> None:
    """A shorter content key than the algorithm's name says, and everything right but for that."""
    key = bytes(16)
    _key(_wrapped(key))(root)
    encryptor = Cipher(algorithms.AES(key), modes.CBC(root.at(*CIPHER, 1).octets)).encryptor()
    root.at(2, 2).octets = encryptor.update(b"\x10" * 32) + encryptor.finalize()


UNOPENED: dict[str, tuple[Callable[[], bytes], SoftwarePlatformKey, Change]] = {
    "another rsa key": (rsa_package, SoftwarePlatformKey(rsa_key(2048, 1)), lambda _: None),
    "ec key for rsa": (rsa_package, EC_KEY, lambda _: None),
    "rsa key for ec": (ec_package, RSA_KEY, lambda _: None),
    "another ec key": (ec_package, SoftwarePlatformKey(ec.generate_private_key(ec.SECP256R1())), lambda _: None),
    "recipient named wrong": (
        rsa_package, RSA_KEY, lambda root: setattr(root.at(*RECIPIENT, 1), "octets", b"k" * 20),
    ),
    "wrapped key flipped": (rsa_package, RSA_KEY, _key(_flip)),
    "wrapped key empty": (rsa_package, RSA_KEY, _key(lambda _: b"")),
    "wrapped key of 16 octets": (rsa_package, RSA_KEY, _under_aes_128),
    "wrapped key of 33 octets": (rsa_package, RSA_KEY, _key(_wrapped(bytes(33)))),
    "label of the xml container": (rsa_package, RSA_KEY, _key(_wrapped(bytes(32), b"M2M-XENC/1|PK_D"))),
    "agreed key flipped": (ec_package, EC_KEY, _ec_key(_flip)),
    "agreed key empty": (ec_package, EC_KEY, _ec_key(lambda _: b"")),
    "agreed key of another wrap": (ec_package, EC_KEY, _ec_key(lambda _: aes_key_wrap(bytes(32), bytes(32)))),
    "point off the curve": (ec_package, EC_KEY, _point(b"\4" + b"\1" * 64)),
    "point at infinity": (ec_package, EC_KEY, _point(b"\0")),
    "compressed point": (ec_package, EC_KEY, _compressed),
    "no point": (ec_package, EC_KEY, _point(b"")),
    "no ciphertext": (rsa_package, RSA_KEY, _ciphertext(lambda _: b"")),
    "half a block": (rsa_package, RSA_KEY, _ciphertext(lambda octets: octets[:-8])),
    "padding cut off": (rsa_package, RSA_KEY, _ciphertext(lambda octets: octets[:-16])),
    "last block flipped": (rsa_package, RSA_KEY, _ciphertext(lambda octets: octets[:-17] + b"\xff" + octets[-16:])),
}  # fmt: skip


@pytest.mark.parametrize(("package", "key", "change"), UNOPENED.values(), ids=UNOPENED)
def test_one_error_for_whatever_does_not_open(
    package: Callable[[], bytes], key: SoftwarePlatformKey, change: Change
) -> None:
    """REQ-29 REQ-60: one refusal with one text, even where the home operator itself signed what does not open."""
    verified = verify(changed(in_envelope(change), package(), signed=True))
    with pytest.raises(PackageRefused) as caught:
        open_package(verified, key)
    assert (caught.value.code, str(caught.value)) == (ResultCode.CRYPTO_FAILURE, "the package does not open")


def test_nothing_is_decrypted_before_the_signature_is_verified() -> None:
    """REQ-60: a stranger cannot make the key work at all; opening takes what verifying gave."""

    class Watched(SoftwarePlatformKey):
        def decrypt_oaep(self, *args: Any, **kwargs: Any) -> bytes:
            raise AssertionError("the key was used")

    key = Watched(PKI.platform_key)
    for change in (_stranger, _foreign_envelope):
        with pytest.raises(PackageRefused):
            open_package(verify(changed(change)), key)


@pytest.mark.parametrize(
    "values",
    [
        {"transaction_id": UUID(int=1), "registration_nonce": b"n" * 65},
        {"ephemeral_key": b"\4" * 65},
        {"ticket_digest": "zz"},
        {"auth_mode": "password"},
        {"platform_key_id": b"short"},
        {"m2me_id": "é"},
    ],
    ids=["nonce", "ephemeral-key", "digest", "auth-mode", "key-id", "name"],
)
def test_builder_refuses_what_nobody_could_read(values: dict[str, Any]) -> None:
    """REQ-59: our own caller is told when a header does not fit."""
    with pytest.raises(InvalidArgument):
        build(**values)


def test_builder_refuses_a_long_chain() -> None:
    """REQ-59: a receiver takes four certificates."""
    with pytest.raises(InvalidArgument):
        build(Signer(PKI.sho.key, PKI.sho.chain * 3))


def test_asn1_layer_reads_der_alone() -> None:
    """REQ-59: what the reader of `cryptography` promises and this container rests on."""
    for octets in ("3080020101 0000", "308103020101", "3003020101 00", "30040202 0001", "3003010101"):
        with pytest.raises(ValueError, match="error parsing"):
            asn1.decode_der(_OneNumber, bytes.fromhex(octets))


@asn1.sequence
class _OneNumber:
    number: int
