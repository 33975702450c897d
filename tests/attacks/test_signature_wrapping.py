"""T2, T5, REQ-59: XML Signature wrapping and everything else a signature does not see.

The patterns XSW1 to XSW8 are those of Somorovsky et al., "On Breaking SAML" (USENIX Security 2012), with the package in
the place of the Response and its Header in the place of the Assertion. They are tried on the honest signature, whose
Reference is the whole document, and on one whose Reference is an ID, made with the SHO's own key: some other sender of
that SHO might sign so. For the latter the XML security library alone is asked as well: it takes most of them, so
what refuses them is the structure that mcim.xml_security demands.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree

from mcim.vocabulary import ResultCode
from mcim.xml_header import NSMAP
from tests.support_attacks import STRUCTURE, Arena, refused, still_provisions
from tests.support_tre import SHO
from tests.support_xml import (
    ENCRYPTED,
    ENCRYPTED_KEY,
    HEADER,
    INFO,
    REFERENCE,
    SIGNATURE,
    X11,
    D,
    M,
    X,
    changed,
    element,
    find,
    library_accepts,
    octets_of,
    parse,
    register_ids,
    sign_again,
    without_signature,
)

XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
Wrap = Callable[[etree._Element, etree._Element, etree._Element], etree._Element]


def _xsw1(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package inside the Signature of the evil one."""
    signature.append(real)
    evil.append(signature)
    return evil


def _xsw2(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package before the Signature, detached."""
    evil.append(real)
    evil.append(signature)
    return evil


def _xsw3(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """Evil Header and EncryptedData before the signed ones, in one package."""
    for child in reversed(evil):
        real.insert(0, child)
    real.append(signature)
    return real


def _xsw4(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed Header inside the evil Header."""
    evil[0].append(real[0])
    evil.append(signature)
    return evil


def _xsw5(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package at the end, after the Signature."""
    evil.append(signature)
    evil.append(real)
    return evil


def _xsw6(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package inside the Signature, before its KeyInfo."""
    signature.insert(2, real)
    evil.append(signature)
    return evil


def _xsw7(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The evil parts in an element of extensions before the signed ones."""
    real.insert(0, element("{urn:x}Extensions", *evil))
    real.append(signature)
    return real


def _xsw8(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package in a ds:Object of the Signature."""
    signature.append(element(f"{D}Object", real))
    evil.append(signature)
    return evil


def _new_root(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The evil package first and the signed one second below a new root."""
    real.append(signature)
    return element("{urn:x}Envelope", evil, real)


def _same_root(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """A package whose only child is the signed package."""
    real.append(signature)
    outer = etree.Element(f"{M}M2MSIMPackage", {"version": "1"}, NSMAP)
    outer.append(real)
    return outer


def _in_encrypted_data(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package in the evil EncryptedData."""
    evil[1].append(real)
    evil.append(signature)
    return evil


def _in_manifest(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package beside a Manifest that says what would be signed."""
    manifest = element(f"{D}Manifest", copy.deepcopy(find(signature, f"{D}SignedInfo/{D}Reference")))
    signature.append(element(f"{D}Object", manifest, real))
    evil.append(signature)
    return evil


def _in_signature_properties(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package as a SignatureProperty."""
    prop = element(f"{D}SignatureProperty", real, Target="#x")
    signature.append(element(f"{D}Object", element(f"{D}SignatureProperties", prop)))
    evil.append(signature)
    return evil


def _in_key_info(real: etree._Element, evil: etree._Element, signature: etree._Element) -> etree._Element:
    """The signed package in KeyInfo, which may hold elements of any namespace."""
    find(signature, f"{D}KeyInfo").append(real)
    evil.append(signature)
    return evil


WRAPS: dict[str, Wrap] = {
    "XSW1": _xsw1,
    "XSW2": _xsw2,
    "XSW3": _xsw3,
    "XSW4": _xsw4,
    "XSW5": _xsw5,
    "XSW6": _xsw6,
    "XSW7": _xsw7,
    "XSW8": _xsw8,
    "new root": _new_root,
    "same root": _same_root,
    "in EncryptedData": _in_encrypted_data,
    "in a Manifest": _in_manifest,
    "in SignatureProperties": _in_signature_properties,
    "in KeyInfo": _in_key_info,
}


@pytest.fixture
def evil(arena: Arena) -> etree._Element:
    """Header and EncryptedData as the attacker likes them: a working object with a K of his own."""
    package = arena.package(content={"k": bytes(range(1, 17)), "imsi": "001010666666666"})
    return without_signature(parse(package))


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_wrapped_whole_document(arena: Arena, evil: etree._Element, wrap: Wrap) -> None:
    """T2 REQ-59: the honest Signature, Reference URI="", carried by another document."""
    real = parse(arena.good)
    signature = find(real, SIGNATURE)
    package = octets_of(wrap(without_signature(real), evil, signature))
    assert not library_accepts(package, arena.signers[SHO][0].public_key())  # such a Reference leaves nothing to wrap
    refused(arena, package, *STRUCTURE)
    still_provisions(arena)


REFERENCES = {"Id": ("Id", "#p"), "xml:id": (XML_ID, "#p"), "xpointer": (XML_ID, "#xpointer(id('p'))")}
INSIDE_THE_SIGNATURE = {"XSW1", "XSW6", "XSW8", "in a Manifest", "in SignatureProperties", "in KeyInfo"}
MOVES_PARTS = {"XSW3", "XSW4", "XSW7"}  # the Header is what the Reference names


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("name", WRAPS)
def test_wrapped_by_id(arena: Arena, evil: etree._Element, name: str, kind: str) -> None:
    """T2 REQ-59: a Signature over what has the ID "p", which is not what the TRE would read."""
    attribute, uri = REFERENCES[kind]
    key = arena.signers[SHO][0]
    root = parse(arena.good)
    signature = find(root, SIGNATURE)
    find(signature, f"{D}SignedInfo/{D}Reference").set("URI", uri)
    if name in INSIDE_THE_SIGNATURE:
        # Signed detached, for the enveloped-signature transform would take all out that is inside the Signature.
        transforms = find(signature, f"{D}SignedInfo/{D}Reference/{D}Transforms")
        transforms.remove(transforms[0])
        root.remove(signature)
        root.set(attribute, "p")
        root = element("{urn:x}Both", root, signature)
    else:
        (root[0] if name in MOVES_PARTS else root).set(attribute, "p")
    root = parse(octets_of(root))
    register_ids(root)
    assert sign_again(root, key)
    signature = find(root, f".//{SIGNATURE}")
    real = root[0] if name in INSIDE_THE_SIGNATURE else without_signature(root)
    package = octets_of(WRAPS[name](real, evil, signature))
    if name not in MOVES_PARTS | {"XSW1", "XSW6"}:  # the library knows what may be right below a Signature
        assert library_accepts(package, key.public_key()), "no attack at all"
    refused(arena, package, *STRUCTURE)
    still_provisions(arena)


@pytest.mark.parametrize("attribute", ["Id", XML_ID], ids=["Id", "xml:id"])
def test_duplicate_id(arena: Arena, evil: etree._Element, attribute: str) -> None:
    """T2 REQ-59: two elements with one ID; which of them was signed is a matter of taste."""
    root = parse(arena.good)
    for part in (*evil, *root[:2]):
        part.set(attribute, "p")
    for child in reversed(evil):
        root.insert(0, child)
    find(root, REFERENCE).set("URI", "#p")
    refused(arena, octets_of(root), *STRUCTURE)
    still_provisions(arena)


# -- what the signature does not cover, or sees otherwise than the reader --------------------------------------------


def _beside(text: bytes) -> Callable[[bytes], bytes]:
    return lambda package: package.replace(b"<M2MSIMPackage", text + b"<M2MSIMPackage", 1)


def _inside(text: bytes) -> Callable[[bytes], bytes]:
    """In the middle of the TRE id: a careless reader would read what stands before it, or leave it out."""
    return lambda package: package.replace(b"<TREId>urn:m2m", b"<TREId>urn" + text + b":m2m", 1)


XSLT = (
    '<xsl:stylesheet xmlns:xsl="http://www.w3.org/1999/XSL/Transform" version="1.0"><xsl:template match="/">'
    "<fixed/></xsl:template></xsl:stylesheet>"
)


def _tree(change: Callable[[etree._Element], object]) -> Callable[[bytes], bytes]:
    return lambda package: changed(package, change)


def _add(path: str, made: etree._Element, at: int = -1) -> Callable[[bytes], bytes]:
    def change(root: etree._Element) -> None:
        parent = find(root, path)
        parent.insert(len(parent) if at < 0 else at, copy.deepcopy(made))

    return _tree(change)


def _set(path: str, name: str, value: str) -> Callable[[bytes], bytes]:
    return _tree(lambda root: find(root, path).set(name, value))


def _cipher_reference(path: str) -> Callable[[bytes], bytes]:
    def change(root: etree._Element) -> None:
        data = find(root, path)
        data[:] = [element(f"{X}CipherReference", URI="file:///etc/hostname")]

    return _tree(change)


def _second_signature(root: etree._Element) -> None:
    root.append(copy.deepcopy(root[-1]))


def _signature_first(root: etree._Element) -> None:
    root.insert(0, root[-1])


def _foreign_namespace(root: etree._Element) -> None:
    """The element the reader looks for, in another namespace."""
    find(root, f"{HEADER}/{M}TREId").tag = "{urn:x}TREId"


def _default_namespace_again(package: bytes) -> bytes:
    """xmlns redefined on one element of the Header: the name looks the same, but it is another one."""
    return package.replace(b"<TREId>", b'<TREId xmlns="urn:x">', 1)


def _prefix_of_ds(package: bytes) -> bytes:
    """The prefix ds bound anew inside the Signature, so that a reader by prefix sees the old one."""
    return package.replace(b"<ds:SignedInfo>", b'<ds:SignedInfo xmlns:ds="urn:x">', 1)


def _comment(path: str) -> Callable[[bytes], bytes]:
    return _tree(lambda root: find(root, path).insert(0, etree.Comment("x")))


UNSEEN: dict[str, Callable[[bytes], bytes]] = {
    "comment in the package": _comment("."),
    "comment in the Header": _comment(HEADER),
    "comment in SignedInfo": _comment(INFO),
    "comment in the SignatureValue": _comment(f"{SIGNATURE}/{D}SignatureValue"),
    "comment in a CipherValue": _comment(f"{ENCRYPTED}/{X}CipherData/{X}CipherValue"),
    "second Header": _tree(lambda root: root.insert(2, copy.deepcopy(root[0]))),
    "second EncryptedData": _tree(lambda root: root.insert(2, copy.deepcopy(root[1]))),
    "element of the future": _add(".", element(f"{M}Extensions"), 2),
    "comment in a value": _inside(b"<!-- -->"),
    "comment before the root": _beside(b"<!-- -->"),
    "comment after the root": lambda package: package + b"<!-- -->",
    "processing instruction in a value": _inside(b"<?x y?>"),
    "processing instruction before the root": _beside(b"<?x y?>"),
    "processing instruction after the root": lambda package: package + b"<?x y?>",
    "DOCTYPE": _beside(b"<!DOCTYPE M2MSIMPackage>"),
    "DOCTYPE with a system id": _beside(b'<!DOCTYPE M2MSIMPackage SYSTEM "file:///etc/passwd">'),
    "DOCTYPE that gives attributes": _beside(
        b'<!DOCTYPE M2MSIMPackage [<!ATTLIST Header Id ID "p">]>',
    ),
    "internal entity": lambda package: _inside(b"&e;")(_beside(b'<!DOCTYPE M2MSIMPackage [<!ENTITY e "">]>')(package)),
    "external entity": lambda package: _inside(b"&e;")(
        _beside(b'<!DOCTYPE M2MSIMPackage [<!ENTITY e SYSTEM "file:///etc/hostname">]>')(package)
    ),
    "parameter entity": _beside(b'<!DOCTYPE M2MSIMPackage [<!ENTITY % e SYSTEM "file:///etc/passwd"> %e;]>'),
    "undeclared entity": _inside(b"&nbsp;"),
    "second Signature": _tree(_second_signature),
    "Signature first": _tree(_signature_first),
    "ds:Object": _add(SIGNATURE, element(f"{D}Object", element(f"{M}Header"))),
    "empty ds:Object": _add(SIGNATURE, element(f"{D}Object")),
    "ds:Manifest": _add(SIGNATURE, element(f"{D}Object", element(f"{D}Manifest"))),
    "second Reference": _add(INFO, element(f"{D}Reference", URI="")),
    "file: Reference": _set(REFERENCE, "URI", "file:///etc/hostname"),
    "http: Reference": _set(REFERENCE, "URI", "http://127.0.0.1:9/"),
    "relative Reference": _set(REFERENCE, "URI", "other.xml"),
    "Reference without a URI": _tree(lambda root: find(root, REFERENCE).attrib.pop("URI")),
    "Reference to the root by xpointer": _set(REFERENCE, "URI", "#xpointer(/)"),
    "Reference to nothing": _set(REFERENCE, "URI", "#"),
    "Reference with a Type": _set(REFERENCE, "Type", f"{D[1:-1]}Manifest"),
    "CipherReference of the content": _cipher_reference(f"{ENCRYPTED}/{X}CipherData"),
    "CipherReference of the key": _cipher_reference(f"{ENCRYPTED_KEY}/{X}CipherData"),
    "RetrievalMethod": _add(f"{SIGNATURE}/{D}KeyInfo", element(f"{D}RetrievalMethod", URI="#k"), 0),
    "KeyInfoReference": _add(
        f"{SIGNATURE}/{D}KeyInfo", element("{http://www.w3.org/2009/xmldsig11#}KeyInfoReference", URI="#k"), 0
    ),
    "KeyName": _add(f"{SIGNATURE}/{D}KeyInfo", element(f"{D}KeyName", text="sho1.example"), 0),
    "KeyValue": _add(f"{SIGNATURE}/{D}KeyInfo", element(f"{D}KeyValue", element(f"{D}RSAKeyValue")), 0),
    "DEREncodedKeyValue": _add(
        f"{SIGNATURE}/{D}KeyInfo", element("{http://www.w3.org/2009/xmldsig11#}DEREncodedKeyValue", text="AAAA"), 0
    ),
    "X509SubjectName": _add(f"{SIGNATURE}/{D}KeyInfo/{D}X509Data", element(f"{D}X509SubjectName", text="CN=x"), 0),
    "X509CRL": _add(f"{SIGNATURE}/{D}KeyInfo/{D}X509Data", element(f"{D}X509CRL", text="AAAA")),
    "second X509Data": _add(f"{SIGNATURE}/{D}KeyInfo", element(f"{D}X509Data")),
    "second KeyInfo": _add(SIGNATURE, element(f"{D}KeyInfo")),
    "another key's name at the content": _tree(
        lambda root: setattr(find(root, ENCRYPTED_KEY).find(f".//{D}KeyName"), "text", "0" * 32)
    ),
    "second EncryptedKey": _add(f"{ENCRYPTED}/{D}KeyInfo", element(f"{X}EncryptedKey")),
    "Type at EncryptedData": _set(ENCRYPTED, "Type", f"{X[1:-1]}Element"),
    "Encoding at EncryptedData": _set(ENCRYPTED, "Encoding", f"{D[1:-1]}base64"),
    "EncryptionProperties": _add(ENCRYPTED, element(f"{X}EncryptionProperties")),
    "text between elements": _tree(lambda root: setattr(root[0], "tail", "x")),
    "white space between elements": _tree(lambda root: setattr(root[0], "tail", "\n ")),
    "white space in the Header": _tree(lambda root: setattr(root[0], "text", "\n ")),
    "white space around a value": _tree(lambda root: setattr(find(root, f"{HEADER}/{M}TREId"), "text", " urn:m2m")),
    "white space in SignedInfo": _tree(lambda root: setattr(find(root, INFO), "text", "\n\n ")),
    "CDATA that changes a value": _inside(b"<![CDATA[x]]>"),
    "element of another namespace": _tree(_foreign_namespace),
    "default namespace redefined": _default_namespace_again,
    "prefix redefined": _prefix_of_ds,
    "attribute of the root": _set(".", "Id", "p"),
    "xml:base": _set(".", "{http://www.w3.org/XML/1998/namespace}base", "http://127.0.0.1/"),
    "xml:space": _set(f"{HEADER}", "{http://www.w3.org/XML/1998/namespace}space", "preserve"),
    "xsi:type": _set(f"{HEADER}/{M}TREId", "{http://www.w3.org/2001/XMLSchema-instance}type", "x"),
    "xsi:schemaLocation": _set(
        ".", "{http://www.w3.org/2001/XMLSchema-instance}schemaLocation", "urn:x http://127.0.0.1/"
    ),
    "XInclude": _add(HEADER, element("{http://www.w3.org/2001/XInclude}include", href="file:///etc/hostname")),
    "stylesheet": _beside(b'<?xml-stylesheet href="file:///etc/passwd"?>'),
    "transform with a stylesheet inside": _add(
        f"{REFERENCE}/{D}Transforms",
        element(f"{D}Transform", etree.fromstring(XSLT), Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"),
    ),
    "transform with an XPath inside": _add(
        f"{REFERENCE}/{D}Transforms",
        element(
            f"{D}Transform",
            element(f"{D}XPath", text="false()"),
            Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116",
        ),
        0,
    ),
    "PrefixList in the canonicalisation": _add(
        f"{INFO}/{D}CanonicalizationMethod",
        element("{http://www.w3.org/2001/10/xml-exc-c14n#}InclusiveNamespaces", PrefixList="ds"),
    ),
    "HMACOutputLength": _add(f"{INFO}/{D}SignatureMethod", element(f"{D}HMACOutputLength", text="8")),
    "KA-Nonce": _add(f"{ENCRYPTED_KEY}/{D}KeyInfo/{X}AgreementMethod", element(f"{X}KA-Nonce", text="AAAA"), 0),
    "other parties of the key derivation": _set(
        f"{ENCRYPTED_KEY}/{D}KeyInfo/{X}AgreementMethod/{X11}KeyDerivationMethod/{X11}ConcatKDFParams",
        "PartyUInfo",
        "0041",
    ),
}


@pytest.mark.parametrize("attack", UNSEEN.values(), ids=UNSEEN)
def test_beside_the_signature(arena: Arena, attack: Callable[[bytes], bytes]) -> None:
    """T2 REQ-59: on the way somebody adds what a signature might not cover; 1411 or 1410, and nothing is burnt."""
    package = attack(arena.good)
    assert package != arena.good
    refused(arena, package, *STRUCTURE, ResultCode.UNSUPPORTED_SUITE)
    still_provisions(arena)


LIBRARY_TAKES = ("comment in a value", "DOCTYPE", "ds:Object", "empty ds:Object", "ds:Manifest", "KeyName", "KeyValue")


@pytest.mark.parametrize("name", LIBRARY_TAKES)
def test_the_library_alone_would_take_it(arena: Arena, name: str) -> None:
    """REQ-59: why the structure is compared at all: with these additions the signature stays valid."""
    assert library_accepts(UNSEEN[name](arena.good), arena.signers[SHO][0].public_key())


SIGNED_OVER = [
    "second Header", "second EncryptedData", "element of the future", "comment in the package",
    "comment in the Header", "comment in a CipherValue",
    "ds:Object", "ds:Manifest", "second Reference", "Reference to the root by xpointer", "Reference with a Type",
    "KeyValue", "KeyName", "X509SubjectName", "Type at EncryptedData", "EncryptionProperties", "attribute of the root",
    "element of another namespace", "default namespace redefined", "xsi:type", "xml:base", "XInclude",
    "transform with a stylesheet inside", "transform with an XPath inside", "PrefixList in the canonicalisation",
    "white space around a value", "text between elements", "DOCTYPE", "comment in a value",
    "processing instruction in a value", "CipherReference of the content", "CipherReference of the key",
    "second EncryptedKey", "other parties of the key derivation",
]  # fmt: skip


@pytest.mark.parametrize("name", SIGNED_OVER)
def test_signed_by_the_sho_itself(arena: Arena, name: str) -> None:
    """REQ-59: not even the SHO may send them: what it signs with these the next reader could see otherwise."""
    root = parse(UNSEEN[name](arena.good))
    sign_again(root, arena.signers[SHO][0])
    refused(arena, octets_of(root), *STRUCTURE, ResultCode.UNSUPPORTED_SUITE)
    still_provisions(arena)


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "http://127.0.0.1:9/"])
def test_the_library_fetches_nothing(arena: Arena, uri: str) -> None:
    """T12 REQ-59: behind the structure stands a second wall: libxmlsec has no means left to read a file or a host."""
    root = parse(arena.good)
    reference = find(root, REFERENCE)
    reference.set("URI", uri)
    reference.remove(find(reference, f"{D}Transforms"))
    assert not sign_again(root, arena.signers[SHO][0])


def test_key_of_the_attacker_beside_the_certificate(arena: Arena) -> None:
    """T5 REQ-59: signed with a key that KeyValue, not the certificate, brings along."""
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    ns = "{http://www.w3.org/2009/xmldsig11#}"
    value = element(
        f"{D}KeyValue",
        element(
            f"{ns}ECKeyValue",
            element(f"{ns}NamedCurve", URI="urn:oid:1.2.840.10045.3.1.7"),
            element(f"{ns}PublicKey", text=base64.b64encode(point).decode()),
        ),
    )
    for at in (0, 1):
        root = parse(_add(f"{SIGNATURE}/{D}KeyInfo", value, at)(arena.good))
        assert sign_again(root, key)
        refused(arena, octets_of(root), *STRUCTURE)
    root = parse(arena.good)
    assert sign_again(root, key)  # the same without KeyValue: the certificate's key decides
    refused(arena, octets_of(root), ResultCode.SIGNATURE_INVALID)
    still_provisions(arena)


def test_signature_around_the_package(arena: Arena) -> None:
    """T2 REQ-59: enveloping, the package as ds:Object of a Signature that is the root; signed by the SHO."""
    root = parse(arena.good)
    signature = copy.deepcopy(find(root, SIGNATURE))
    signature.append(element(f"{D}Object", without_signature(root), Id="p"))
    find(signature, f"{D}SignedInfo/{D}Reference").set("URI", "#p")
    refused(arena, octets_of(signature), *STRUCTURE)
    still_provisions(arena)


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-16LE", "UTF-32", "ISO-8859-1", "UTF-7", "IBM037"])
def test_other_encodings(arena: Arena, encoding: str) -> None:
    """T2 REQ-59: the same characters in other octets are the honest package, or are refused; nothing else."""
    text = arena.good.decode().replace("UTF-8", encoding, 1)
    package = text.encode(encoding)
    outcome = arena.provision(package)
    if outcome.code is not ResultCode.SUCCESS:
        assert outcome.code in STRUCTURE
        still_provisions(arena)
