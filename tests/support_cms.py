"""Packages in CMS as an attacker handles them: trees of DER, changed and signed again."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mcim.package import VerifiedPackage
from mcim.vocabulary import Container, Operation, ResultCode
from tests import support_package
from tests.support_der import Node, oid, parse, sequence
from tests.support_package import EC_KEY, PKI

CMS_ONLY = frozenset({Container.CMS})
Change = Callable[[Node], None]


def build(**values: Any) -> bytes:
    """`support_package.build` in CMS."""
    return support_package.build(Container.CMS, **values)


@functools.cache
def rsa_package() -> bytes:
    """The honest package."""
    return build()


@functools.cache
def ec_package() -> bytes:
    """The same for the recipient with P-256."""
    return build(public_key=EC_KEY.public_key)


@functools.cache
def command() -> bytes:
    """A signed header without anything in it."""
    return build(content=None, operation=Operation.DELETE)


def verify(package: bytes, **kwargs: Any) -> VerifiedPackage:
    """As a device that takes nothing but CMS."""
    return support_package.verify(package, **({"containers": CMS_ONLY} | kwargs))


def refusal(package: bytes, **kwargs: Any) -> ResultCode:
    """Why such a device refuses it, as it must."""
    return support_package.refusal(package, **({"containers": CMS_ONLY} | kwargs))


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
    root.at(*SIGNERS).children.sort(key=Node.encode)


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
    return lambda root: root.at(*path[:-1]).children.pop(path[-1])


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
