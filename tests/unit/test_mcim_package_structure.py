"""The package: one document of one structure with one set of algorithms; everything else has its result code."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from mcim.errors import PackageRefused
from mcim.package import open_package
from mcim.package_header import peek_header
from mcim.vocabulary import MAX_PACKAGE_SIZE, ResultCode
from mcim.xml_security import DS, XENC, XENC11
from tests.support_package import (
    MALFORMED,
    NOT_HIS,
    OBJECT,
    RSA_KEY,
    UNSUPPORTED,
    WRONG,
    ec_package,
    header,
    odd_certificates,
    refusal,
    rsa_package,
    verify,
)
from tests.support_pki import TRE_ID
from tests.support_xml import (
    ENCRYPTED,
    ENCRYPTED_KEY,
    HEADER,
    INFO,
    REFERENCE,
    SIGNATURE,
    TRANSFORM,
    X11,
    Change,
    D,
    M,
    X,
    append,
    attribute,
    changed,
    drop,
    element,
    find,
    flip,
    set_text,
)


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
        pytest.param(lambda: b"", MALFORMED, id="nothing"),
        pytest.param(lambda: b"<a/>", MALFORMED, id="another-document"),
        pytest.param(lambda: rsa_package()[:-1], MALFORMED, id="truncated"),
        pytest.param(lambda: rsa_package() + b"x", MALFORMED, id="trailing"),
        pytest.param(lambda: b"<a>" * 1000, MALFORMED, id="deep"),
        pytest.param(lambda: _raw(b'version="1"', b'version="2"'), MALFORMED, id="version"),
        pytest.param(lambda: _raw(b"urn:example:m2m:mcim:1", b"urn:x"), MALFORMED, id="namespace"),
        pytest.param(lambda: _raw(b"UTF-8", b"x-none"), MALFORMED, id="encoding"),
        pytest.param(
            lambda: rsa_package() + b" " * (MAX_PACKAGE_SIZE - len(rsa_package()) + 1),
            MALFORMED,
            id="oversize",
        ),
        pytest.param(
            lambda: _raw(TRE_ID.encode(), b"urn:m2m:<!-- -->tre:0001"),
            WRONG,
            id="comment-in-text",
        ),
        pytest.param(lambda: _raw(ROOT_TAG, b"<!-- -->" + ROOT_TAG), WRONG, id="comment-before"),
        pytest.param(lambda: rsa_package() + b"<!-- -->", WRONG, id="comment-behind"),
        pytest.param(
            lambda: _raw(b"</ds:Signature>", b"<!-- --></ds:Signature>"),
            WRONG,
            id="comment-in-signature",
        ),
        pytest.param(lambda: _raw(b"<Header>", b"<?go?><Header>"), WRONG, id="pi"),
        pytest.param(lambda: _raw(ROOT_TAG, b"<?go?>" + ROOT_TAG), WRONG, id="pi-before"),
        pytest.param(lambda: _raw(ROOT_TAG, b"<!DOCTYPE M2MSIMPackage>" + ROOT_TAG), WRONG, id="doctype"),
        pytest.param(
            lambda: _raw(ROOT_TAG, b'<!DOCTYPE M2MSIMPackage SYSTEM "file:///etc/passwd">' + ROOT_TAG),
            WRONG,
            id="external-doctype",
        ),
        pytest.param(
            lambda: _raw(ROOT_TAG, b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + ROOT_TAG).replace(
                TRE_ID.encode(), b"&e;"
            ),
            WRONG,
            id="external-entity",
        ),
        pytest.param(
            lambda: _raw(ROOT_TAG, BOMB + ROOT_TAG).replace(TRE_ID.encode(), b"&j;"),
            MALFORMED,
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


def _object(root: etree._Element) -> etree._Element:
    return element(f"{D}Object", element(HEADER))


def _key_value(root: etree._Element) -> etree._Element:
    value, curve = element(f"{D}KeyValue"), element("{http://www.w3.org/2009/xmldsig11#}ECKeyValue")
    value.append(curve)
    return value


def _swap(root: etree._Element) -> None:
    root.insert(0, root[1])


def _five_certificates(root: etree._Element) -> None:
    certificate = find(root, CERTIFICATE)
    for _ in range(3):
        certificate.addnext(copy.deepcopy(certificate))


def _cipher_reference(root: etree._Element) -> None:
    data = find(root, f"{ENCRYPTED}/{X}CipherData")
    data.remove(data[0])
    data.append(element(f"{X}CipherReference", URI="file:///etc/passwd"))


OUTER = f"{X}CipherData/{X}CipherValue"
WRAPPED = f"{D}KeyInfo/{X}EncryptedKey/{X}CipherData/{X}CipherValue"


CERTIFICATE = f"{SIGNATURE}/{D}KeyInfo/{D}X509Data/{D}X509Certificate"
XSI = "{http://www.w3.org/2001/XMLSchema-instance}type"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(flip(f"{ENCRYPTED}/{OUTER}"), WRONG, id="ciphertext"),
        pytest.param(flip(f"{ENCRYPTED}/{WRAPPED}"), WRONG, id="wrapped-key"),
        pytest.param(set_text(f"{ENCRYPTED_KEY}/{D}KeyInfo/{D}KeyName", "0" * 32), WRONG, id="key-name"),
        pytest.param(flip(f"{REFERENCE}/{D}DigestValue"), WRONG, id="digest"),
        pytest.param(flip(f"{SIGNATURE}/{D}SignatureValue"), WRONG, id="signature-value"),
        pytest.param(set_text(f"{SIGNATURE}/{D}SignatureValue", ""), WRONG, id="no-signature-value"),
        pytest.param(set_text(f"{SIGNATURE}/{D}SignatureValue", "\u00e9"), WRONG, id="no-base64"),
        pytest.param(drop(SIGNATURE), WRONG, id="unsigned"),
        pytest.param(drop(ENCRYPTED), WRONG, id="no-content"),
        pytest.param(drop(HEADER), MALFORMED, id="no-header"),
        pytest.param(_swap, MALFORMED, id="other-order"),
        pytest.param(append(".", lambda root: copy.deepcopy(root[2])), WRONG, id="second-signature"),
        pytest.param(append(SIGNATURE, lambda root: copy.deepcopy(root[2])), WRONG, id="nested-signature"),
        pytest.param(append(SIGNATURE, _object), WRONG, id="object"),
        pytest.param(append(".", lambda root: copy.deepcopy(root[0])), WRONG, id="second-header"),
        pytest.param(append(HEADER, lambda root: copy.deepcopy(root[0][4])), MALFORMED, id="duplicate-element"),
        pytest.param(
            append(HEADER, lambda root: copy.deepcopy(root[0][4]), at=4),
            MALFORMED,
            id="duplicate-element-beside-the-first",
        ),
        pytest.param(
            append(HEADER, lambda root: element(f"{M}EphemeralKey", text="AAAA")),
            UNSUPPORTED,
            id="ephemeral-key-with-rsa",
        ),
        pytest.param(append(f"{HEADER}/{M}TREId", lambda root: element(f"{M}b")), MALFORMED, id="structure-in-text"),
        pytest.param(attribute(".", "Id", "x"), MALFORMED, id="attribute-of-the-root"),
        pytest.param(attribute(HEADER, "Id", "x"), MALFORMED, id="attribute-of-the-header"),
        pytest.param(attribute(f"{HEADER}/{M}TREId", XSI, "x"), MALFORMED, id="attribute-of-a-value"),
        pytest.param(attribute(ENCRYPTED, "Type", f"{XENC}Element"), WRONG, id="type"),
        pytest.param(attribute(ENCRYPTED, XSI, "x"), WRONG, id="xsi-type"),
        pytest.param(attribute(SIGNATURE, "Id", "x"), WRONG, id="attribute-of-the-signature"),
        pytest.param(attribute(REFERENCE, "Type", "x"), WRONG, id="attribute-of-the-reference"),
        pytest.param(attribute(REFERENCE, "URI", "file:///etc/passwd"), WRONG, id="file-uri"),
        pytest.param(attribute(REFERENCE, "URI", "http://a/"), WRONG, id="http-uri"),
        pytest.param(attribute(REFERENCE, "URI", "#x"), WRONG, id="id-uri"),
        pytest.param(attribute(REFERENCE, "URI", "#xpointer(/)"), WRONG, id="xpointer-uri"),
        pytest.param(
            append(INFO, lambda root: copy.deepcopy(find(root, REFERENCE))),
            WRONG,
            id="second-reference",
        ),
        pytest.param(drop(REFERENCE), WRONG, id="no-reference"),
        pytest.param(drop(TRANSFORM), WRONG, id="transform-less"),
        pytest.param(
            append(
                f"{REFERENCE}/{D}Transforms",
                lambda root: element(f"{D}Transform", Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"),
            ),
            WRONG,
            id="xslt-as-third-transform",
        ),
        pytest.param(
            append(TRANSFORM, lambda root: element(f"{D}XPath", text="false()")),
            WRONG,
            id="xpath-inside-a-transform",
        ),
        pytest.param(set_text(TRANSFORM, "x"), WRONG, id="text-in-a-transform"),
        pytest.param(append(f"{SIGNATURE}/{D}KeyInfo", _key_value), WRONG, id="key-value"),
        pytest.param(append(f"{SIGNATURE}/{D}KeyInfo", _key_value, at=0), WRONG, id="key-value-first"),
        pytest.param(
            append(f"{SIGNATURE}/{D}KeyInfo", lambda root: element(f"{D}RetrievalMethod", URI="#x")),
            WRONG,
            id="retrieval-method",
        ),
        pytest.param(drop(f"{SIGNATURE}/{D}KeyInfo"), WRONG, id="no-key-info"),
        pytest.param(drop(f"{SIGNATURE}/{D}KeyInfo/{D}X509Data"), WRONG, id="no-certificates"),
        pytest.param(
            _five_certificates,
            WRONG,
            id="five-certificates",
        ),
        pytest.param(set_text(CERTIFICATE, "?"), NOT_HIS, id="certificate-no-base64"),
        pytest.param(set_text(CERTIFICATE, "\u00e9"), NOT_HIS, id="certificate-no-ascii"),
        pytest.param(set_text(CERTIFICATE, "AAAA"), NOT_HIS, id="certificate-no-der"),
        pytest.param(set_text(CERTIFICATE, ""), NOT_HIS, id="certificate-empty"),
        pytest.param(_cipher_reference, WRONG, id="cipher-reference"),
        pytest.param(
            append(ENCRYPTED, lambda root: element(f"{X}EncryptionProperties")),
            WRONG,
            id="encryption-properties",
        ),
        pytest.param(
            append(f"{ENCRYPTED}/{D}KeyInfo", lambda root: copy.deepcopy(find(root, ENCRYPTED_KEY))),
            WRONG,
            id="second-recipient",
        ),
    ],
)
def test_structure(change: Change, code: ResultCode) -> None:
    """REQ-31, REQ-59: exactly one structure; whatever is added, doubled, moved or left out is refused."""
    assert refusal(changed(rsa_package(), change)) is code


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
    "key-rsa-1_5": (f"{ENCRYPTED_KEY}/{X}EncryptionMethod", f"{XENC}rsa-1_5"),
    "key-oaep-mgf1p": (f"{ENCRYPTED_KEY}/{X}EncryptionMethod", f"{XENC}rsa-oaep-mgf1p"),
    "key-digest-sha1": (f"{ENCRYPTED_KEY}/{X}EncryptionMethod/{D}DigestMethod", f"{DS}sha1"),
    "key-mgf-sha1": (f"{ENCRYPTED_KEY}/{X}EncryptionMethod/{X11}MGF", f"{XENC11}mgf1sha1"),
    "content-aes-cbc": (f"{ENCRYPTED}/{X}EncryptionMethod", f"{XENC}aes256-cbc"),
    "content-aes128-gcm": (f"{ENCRYPTED}/{X}EncryptionMethod", f"{XENC11}aes128-gcm"),
    "content-3des": (f"{ENCRYPTED}/{X}EncryptionMethod", f"{XENC}tripledes-cbc"),
    "unknown": (DIGEST, ""),
}
EC_METHOD = f"{ENCRYPTED_KEY}/{D}KeyInfo/{X}AgreementMethod"
EC_ALGORITHMS = {
    "wrap-aes128": (f"{ENCRYPTED_KEY}/{X}EncryptionMethod", f"{XENC}kw-aes128"),
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
    assert refusal(changed(package(), attribute(path, "Algorithm", algorithm))) is UNSUPPORTED


def test_parameters_of_the_key_derivation_are_fixed() -> None:
    """REQ-39: other parties in the key derivation, other structure."""
    path = f"{EC_METHOD}/{X11}KeyDerivationMethod/{X11}ConcatKDFParams"
    package = changed(ec_package(), attribute(path, "PartyUInfo", "0041"))
    assert refusal(package) is WRONG


def _evil(root: etree._Element) -> etree._Element:
    """The same package with another recipient; its own signature does not fit any more."""
    evil = copy.deepcopy(root)
    find(evil, f"{HEADER}/{M}TREId").text = "urn:m2m:tre:0666"
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
    outer = element("{urn:x}Envelope")
    outer.append(root)
    return outer


def _wrapped_by_the_same_root(root: etree._Element) -> etree._Element:
    outer = element(root.tag, version="1")
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
    assert refusal(package) in (WRONG, MALFORMED)


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
