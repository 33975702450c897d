"""What XML Signature and XML Encryption may look like in a package, and nothing else (REQ-59).

libxmlsec refuses none of MD5, SHA-1, RSA-1.5, RSA-1024, XSLT, XPath or file references by itself. So the structure is
compared with the one allowed, element by element and URI by URI, before libxmlsec sees anything.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import xmlsec
from lxml import etree

from mcim.errors import PackageRefused
from mcim.vocabulary import OBJECT_MEDIA_TYPE, Container, ResultCode

# Once for the process: libxmlsec's own I/O callbacks would read file: references.
xmlsec.cleanup_callbacks()

DS: Final = "http://www.w3.org/2000/09/xmldsig#"
XENC: Final = "http://www.w3.org/2001/04/xmlenc#"
XENC11: Final = "http://www.w3.org/2009/xmlenc11#"
SHA256: Final = "http://www.w3.org/2001/04/xmlenc#sha256"
EXC_C14N: Final = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
ECDSA_SHA256: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
AES256_GCM: Final = "http://www.w3.org/2009/xmlenc11#aes256-gcm"
RSA_OAEP: Final = "http://www.w3.org/2009/xmlenc11#rsa-oaep"
RSA_OAEP_MGF1P: Final = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p"
SHA1: Final = "http://www.w3.org/2000/09/xmldsig#sha1"  # in OAEP of the container xml-mgf1p, and nowhere else
MGF1_SHA256: Final = "http://www.w3.org/2009/xmlenc11#mgf1sha256"
KW_AES256: Final = "http://www.w3.org/2001/04/xmlenc#kw-aes256"
ECDH_ES: Final = "http://www.w3.org/2009/xmlenc11#ECDH-ES"
CONCAT_KDF: Final = "http://www.w3.org/2009/xmlenc11#ConcatKDF"

MAX_CHAIN: Final = 4  # certificates in KeyInfo

# A shape is (tag, attributes, children); "*" as children means text only.
Shape: TypeAlias = "tuple[str, dict[str, str], tuple[Shape, ...] | Literal['*']]"


def _q(namespace: str, name: str) -> str:
    return f"{{{namespace}}}{name}"


def _signature_shape(certificates: int) -> Shape:
    x509_data: tuple[Shape, ...] = tuple((_q(DS, "X509Certificate"), {}, "*") for _ in range(certificates))
    return (_q(DS, "Signature"), {}, (
        (_q(DS, "SignedInfo"), {}, (
            (_q(DS, "CanonicalizationMethod"), {"Algorithm": EXC_C14N}, ()),
            (_q(DS, "SignatureMethod"), {"Algorithm": ECDSA_SHA256}, ()),
            (_q(DS, "Reference"), {"URI": ""}, (
                (_q(DS, "Transforms"), {}, (
                    (_q(DS, "Transform"), {"Algorithm": ENVELOPED}, ()),
                    (_q(DS, "Transform"), {"Algorithm": EXC_C14N}, ()),
                )),
                (_q(DS, "DigestMethod"), {"Algorithm": SHA256}, ()),
                (_q(DS, "DigestValue"), {}, "*"),
            )),
        )),
        (_q(DS, "SignatureValue"), {}, "*"),
        (_q(DS, "KeyInfo"), {}, ((_q(DS, "X509Data"), {}, x509_data),)),
    ))  # fmt: skip


def _encrypted_shape(container: Container, *, ec: bool) -> Shape:
    if ec:
        kdf: Shape = (_q(XENC11, "KeyDerivationMethod"), {"Algorithm": CONCAT_KDF}, (
            (_q(XENC11, "ConcatKDFParams"), dict(CONCAT_PARAMS), (
                (_q(DS, "DigestMethod"), {"Algorithm": SHA256}, ()),
            )),
        ))  # fmt: skip
        method: Shape = (_q(XENC, "EncryptionMethod"), {"Algorithm": KW_AES256}, ())
        agreement: Shape = (_q(XENC, "AgreementMethod"), {"Algorithm": ECDH_ES}, (
            kdf,
            (_q(XENC, "OriginatorKeyInfo"), {}, ((_q(DS, "KeyName"), {}, "*"),)),
            (_q(XENC, "RecipientKeyInfo"), {}, ((_q(DS, "KeyName"), {}, "*"),)),
        ))  # fmt: skip
        key_info: Shape = (_q(DS, "KeyInfo"), {}, (agreement,))
    elif container is Container.XML_MGF1P:
        method = (_q(XENC, "EncryptionMethod"), {"Algorithm": RSA_OAEP_MGF1P}, (
            (_q(DS, "DigestMethod"), {"Algorithm": SHA1}, ()),
        ))  # fmt: skip
        key_info = (_q(DS, "KeyInfo"), {}, ((_q(DS, "KeyName"), {}, "*"),))
    else:
        method = (_q(XENC, "EncryptionMethod"), {"Algorithm": RSA_OAEP}, (
            (_q(XENC, "OAEPparams"), {}, "*"),
            (_q(DS, "DigestMethod"), {"Algorithm": SHA256}, ()),
            (_q(XENC11, "MGF"), {"Algorithm": MGF1_SHA256}, ()),
        ))  # fmt: skip
        key_info = (_q(DS, "KeyInfo"), {}, ((_q(DS, "KeyName"), {}, "*"),))
    cipher: Shape = (_q(XENC, "CipherData"), {}, ((_q(XENC, "CipherValue"), {}, "*"),))
    encrypted_key: Shape = (_q(XENC, "EncryptedKey"), {}, (method, key_info, cipher))
    return (_q(XENC, "EncryptedData"), {"MimeType": OBJECT_MEDIA_TYPE}, (
        (_q(XENC, "EncryptionMethod"), {"Algorithm": AES256_GCM}, ()),
        (_q(DS, "KeyInfo"), {}, (encrypted_key,)),
        cipher,
    ))  # fmt: skip


# ConcatKDF of XML Encryption 1.1 §5.4.1: hex, first octet the number of padding bits; libxmlsec wants all three.
CONCAT_PARAMS: Final = {
    "AlgorithmID": "00" + b"M2M-XENC/1".hex(),
    "PartyUInfo": "00" + b"SHO".hex(),
    "PartyVInfo": "00" + b"PK_D".hex(),
}


def require_signature(element: etree._Element) -> None:
    """Refuse a Signature that is not exactly ours.

    Raises:
        PackageRefused: SIGNATURE_INVALID for another structure, UNSUPPORTED_SUITE for an algorithm outside the list.
    """
    certificates = element.findall(f"{_q(DS, 'KeyInfo')}/{_q(DS, 'X509Data')}/{_q(DS, 'X509Certificate')}")
    if not 1 <= len(certificates) <= MAX_CHAIN:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "no certificates, or too many")
    _require(element, _signature_shape(len(certificates)))


def wraps_with_mgf1p(encrypted_data: etree._Element) -> bool:
    """Whether the content key says that it is wrapped as in the container xml-mgf1p."""
    method = encrypted_data.find(f"{_q(DS, 'KeyInfo')}/{_q(XENC, 'EncryptedKey')}/{_q(XENC, 'EncryptionMethod')}")
    return method is not None and method.get("Algorithm") == RSA_OAEP_MGF1P


def require_encrypted_data(element: etree._Element, container: Container, *, ec: bool) -> None:
    """Refuse an EncryptedData that is not exactly that of the container; `ec` if the header has an ephemeral key.

    Raises:
        PackageRefused: as `require_signature`.
    """
    _require(element, _encrypted_shape(container, ec=ec))


def _require(element: etree._Element, shape: Shape) -> None:
    tag, attributes, children = shape
    name = etree.QName(tag).localname
    if element.tag != tag:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, f"{name} is not where it must be")
    found = {str(key): str(value) for key, value in element.attrib.items()}
    if found != attributes:
        if found.keys() == attributes.keys() == {"Algorithm"}:
            raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, f"{name} has an algorithm outside the list")
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, f"{name} has other attributes")
    if children == "*":
        if len(element):
            raise PackageRefused(ResultCode.SIGNATURE_INVALID, f"{name} has structure where text belongs")
        return
    if len(element) != len(children) or (element.text or "").strip():
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, f"{name} has other children")
    for child, wanted in zip(element, children, strict=True):
        if (child.tail or "").strip():
            raise PackageRefused(ResultCode.SIGNATURE_INVALID, f"{name} has text between its children")
        _require(child, wanted)
