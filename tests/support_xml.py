"""Packages in XML as an attacker handles them: parsed by no rule of ours, changed, and signed again."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Callable

import xmlsec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from lxml import etree

from mcim.vocabulary import MCIM_NAMESPACE
from mcim.xml_security import DS, XENC, XENC11

M, D, X, X11 = f"{{{MCIM_NAMESPACE}}}", f"{{{DS}}}", f"{{{XENC}}}", f"{{{XENC11}}}"
HEADER = f"{M}Header"
SIGNATURE = f"{D}Signature"
INFO = f"{SIGNATURE}/{D}SignedInfo"
REFERENCE = f"{INFO}/{D}Reference"
ENCRYPTED = f"{X}EncryptedData"
ENCRYPTED_KEY = f"{ENCRYPTED}/{D}KeyInfo/{X}EncryptedKey"
TRANSFORM = f"{REFERENCE}/{D}Transforms/{D}Transform"

Change = Callable[[etree._Element], object]


def parse(package: bytes) -> etree._Element:
    """As an attacker parses it: no rule of ours."""
    return etree.fromstring(package)


def octets_of(root: etree._Element) -> bytes:
    """The document, with what stands beside its root."""
    return etree.tostring(root.getroottree(), xml_declaration=True, encoding="UTF-8")


def find(root: etree._Element, path: str) -> etree._Element:
    """One element that must be there."""
    element = root.find(path)
    assert element is not None, path
    return element


def changed(package: bytes, change: Change) -> bytes:
    """The package after a change of its tree."""
    root = parse(package)
    change(root)
    return octets_of(root)


def without_signature(root: etree._Element) -> etree._Element:
    """A copy without its Signature."""
    rest = copy.deepcopy(root)
    rest.remove(find(rest, SIGNATURE))
    return rest


def element(tag: str, *children: etree._Element, text: str | None = None, **attributes: str) -> etree._Element:
    """A new element."""
    made = etree.Element(tag, attributes)
    made.text = text
    made.extend(children)
    return made


def sign_again(root: etree._Element, key: ec.EllipticCurvePrivateKey) -> bool:
    """Let the XML security library sign the document as it stands, whatever algorithms it names.

    False when the library itself cannot; then the old values stay.
    """
    octets = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(octets, xmlsec.constants.KeyDataFormatPem)
    signature = find(root, f".//{SIGNATURE}")
    kept = [(each, each.text) for each in signature.iter(f"{D}DigestValue", f"{D}SignatureValue")]
    try:
        context.sign(signature)
    except xmlsec.Error:
        for each, text in kept:
            each.text = text
        return False
    return True


def sign_by_hand(root: etree._Element, key: ec.EllipticCurvePrivateKey) -> None:
    """Digest and signature of the algorithms that a package should name, whatever it does name.

    The XML security library is no tool for the rest: some of the transforms it knows bring the process down.
    """
    rest = etree.tostring(without_signature(root), method="c14n", exclusive=True)
    digest = base64.b64encode(hashlib.sha256(rest).digest()).decode()
    for each in find(root, SIGNATURE).iter(f"{D}DigestValue"):
        each.text = digest
    octets = etree.tostring(find(root, INFO), method="c14n", exclusive=True)
    r, s = decode_dss_signature(key.sign(octets, ec.ECDSA(hashes.SHA256())))
    value = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    find(root, f"{SIGNATURE}/{D}SignatureValue").text = base64.b64encode(value).decode()


def register_ids(root: etree._Element) -> None:
    """Tell the XML security library which attributes are IDs."""
    for each in root.iter(etree.Element):
        if each.get("Id") is not None:
            xmlsec.tree.add_ids(each, ["Id"])


def library_accepts(package: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    """Whether the XML security library alone, given the right key, calls the first Signature in it good.

    This is what a receiver without rules of its own would rely on: where it says yes, only those rules are left.
    """
    octets = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    root = parse(package)
    register_ids(root)
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_memory(octets, xmlsec.constants.KeyDataFormatPem)
    try:
        context.verify(find(root, f".//{SIGNATURE}"))
    except xmlsec.Error:
        return False
    return True


# -- changes of a tree ------------------------------------------------------------------------------------------------


def set_text(path: str, value: str) -> Change:
    """Another text in one element."""

    def change(root: etree._Element) -> None:
        find(root, path).text = value

    return change


def flip(path: str) -> Change:
    """One bit in the middle of Base64 content."""

    def change(root: etree._Element) -> None:
        target = find(root, path)
        octets = bytearray(base64.b64decode(target.text or ""))
        octets[len(octets) // 2] ^= 1
        target.text = base64.b64encode(octets).decode()

    return change


def append(path: str, make: Callable[[etree._Element], etree._Element], at: int | None = None) -> Change:
    """What `make` gives for the root, put into one element: last, or at an index."""

    def change(root: etree._Element) -> None:
        parent = find(root, path)
        parent.insert(len(parent) if at is None else at, make(root))

    return change


def attribute(path: str, name: str, value: str) -> Change:
    """An attribute of one element."""
    return lambda root: find(root, path).set(name, value)


def drop(path: str) -> Change:
    """One element taken out."""

    def change(root: etree._Element) -> None:
        target = find(root, path)
        parent = target.getparent()
        assert parent is not None
        parent.remove(target)

    return change
