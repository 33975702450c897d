"""Packages in CMS: one structure and one set of algorithms, changed on the way or signed so by the home operator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mcim import cms_package
from mcim.errors import PackageRefused
from mcim.package import open_package
from mcim.package_header import peek_header
from mcim.platform_key import SoftwarePlatformKey
from mcim.vocabulary import Container, Operation, ResultCode
from tests.support_cms import (
    AES128,
    AES128_WRAP,
    AES256,
    AES256_GCM,
    AES256_WRAP,
    ATTRIBUTES,
    CERTIFICATES,
    CIPHER,
    DES3,
    DIGEST_OID,
    DIGESTS,
    ECDSA_SHA1,
    ECDSA_SHA256,
    ECDSA_SHA512,
    ENCAPSULATED,
    HEADER_OID,
    MD5,
    NULL,
    RC2,
    RECIPIENT,
    RSA_15,
    RSA_OAEP,
    SHA1,
    SHA1_KDF,
    SHA256,
    SHA256_KDF,
    SHA512,
    SID,
    SIGNATURE_ALGORITHM,
    SIGNED,
    SIGNER,
    SIGNER_DIGEST,
    SIGNERS,
    SIGNING_TIME,
    TYPE_OID,
    Change,
    algorithm,
    append,
    attribute,
    build,
    changed,
    command,
    drop,
    ec_package,
    explicit,
    in_envelope,
    insert,
    oaep_parameters,
    put,
    refusal,
    rsa_package,
    sign_again,
    sort_attributes,
    verify,
)
from tests.support_der import Node, oid, parse, sequence, set_of
from tests.support_package import (
    EC_KEY,
    MALFORMED,
    OBJECT,
    PKI,
    RSA_KEY,
    UNSUPPORTED,
    WRONG,
    header,
)
from tests.support_pki import OTHER_SHO_ID, SHO_ID, rsa_key


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
    other = parse(build(signer=PKI.other_sho))
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
    root.at(*SIGNED, 0).octets = b"\1"
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


def test_version_of_a_command() -> None:
    """REQ-59: with content of type data the version is another one (RFC 5652 §5.1), and only that one."""
    assert refusal(changed(put((*SIGNED, 0), Node(0x02, b"\3")), command(), signed=True)) is MALFORMED


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
