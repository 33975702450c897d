"""M2MSIMPackage: the package in XML Encryption 1.1 and XML Signature; containers `xml` and `xml-mgf1p`.

Private keys are asked for operations only; xmlsec gets the content key, never PK_D (REQ-42). Whatever the container, a
package is used through `mcim.package`.

xml-mgf1p differs in one point: the content key is wrapped with RSAES-OAEP over SHA-1, without a label. Tokens such as
SoftHSM2 do no other OAEP and refuse labels, libxmlsec 1.2 knows no other, and OAEP does not rest on the collision
resistance of its hash. Without labels this use and that of suite 1 differ by what they wrap: 32 octets here, 36 inside.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from lxml import etree
from xmlsec import constants

from mcim.certificates import ValidatedCertificate
from mcim.errors import InvalidArgument, PackageRefused
from mcim.header_fields import PackageHeader
from mcim.platform_key import PlatformKey, PlatformPublicKey
from mcim.verified_package import SignerRules, VerifiedPackage
from mcim.vocabulary import OBJECT_MEDIA_TYPE, Container, ResultCode
from mcim.xml_header import NSMAP, ROOT, header_element, parse_package, read_header
from mcim.xml_security import (
    CONCAT_KDF,
    CONCAT_PARAMS,
    DS,
    ECDH_ES,
    KW_AES256,
    MGF1_SHA256,
    RSA_OAEP,
    RSA_OAEP_MGF1P,
    SHA1,
    SHA256,
    XENC,
    XENC11,
    require_encrypted_data,
    require_signature,
    wraps_with_mgf1p,
)

LABEL: Final = b"M2M-XENC/1|PK_D"  # OAEP label of the outer layer: never that of the inner one
CONTENT_KEY: Final = 32  # octets
EPHEMERAL_NAME: Final = "EPH"


@dataclass(frozen=True, slots=True)
class XmlSealed:
    """EncryptedData out of the octets that were signed."""

    encrypted_data: etree._Element = field(repr=False)
    container: Container
    ephemeral_key: bytes | None  # of the signed header

    def open(self, key: PlatformKey) -> bytes:
        """See `mcim.verified_package.Sealed`."""
        try:
            element = copy.deepcopy(self.encrypted_data)
            key_info = element.find(f"{{{DS}}}KeyInfo")
            encrypted_key = element.find(f"{{{DS}}}KeyInfo/{{{XENC}}}EncryptedKey")
            if key_info is None or encrypted_key is None:
                raise ValueError("no EncryptedKey")
            content_key = self._unwrap(encrypted_key, key)
            if len(content_key) != CONTENT_KEY:
                raise ValueError("content key length")
            element.remove(key_info)
            context = xmlsec.EncryptionContext()
            context.key = xmlsec.Key.from_binary_data(constants.KeyDataAes, content_key)
            content: Any = context.decrypt(element)  # octets: there is no Type attribute; the stubs know elements only
            return bytes(content)
        except (ValueError, TypeError, InvalidUnwrap, xmlsec.Error) as exc:
            raise PackageRefused(ResultCode.CRYPTO_FAILURE, "the package does not open") from exc

    def _unwrap(self, encrypted_key: etree._Element, key: PlatformKey) -> bytes:
        wrapped = _base64(encrypted_key.findtext(f"{{{XENC}}}CipherData/{{{XENC}}}CipherValue"))
        if self.ephemeral_key is not None:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.ephemeral_key)
            return aes_key_unwrap(_key_encryption_key(key.agree(peer)), wrapped)
        if self.container is Container.XML_MGF1P:
            return key.decrypt_oaep(wrapped, hash_name="sha1", label=None)
        if _base64(encrypted_key.findtext(f"{{{XENC}}}EncryptionMethod/{{{XENC}}}OAEPparams")) != LABEL:
            raise ValueError("OAEP label")
        return key.decrypt_oaep(wrapped, hash_name="sha256", label=LABEL)


def build(
    header: PackageHeader,
    mcim_object: bytes | None,
    *,
    recipient: PlatformPublicKey,
    signing_key: ec.EllipticCurvePrivateKey,
    chain: Sequence[x509.Certificate],
    container: Container,
) -> bytes:
    """See `mcim.package.build_package`.

    Raises:
        InvalidArgument: xml-mgf1p for a key that is not RSA.
    """
    no_rsa = mcim_object is not None and not isinstance(recipient, rsa.RSAPublicKey)
    if container is Container.XML_MGF1P and no_rsa:
        raise InvalidArgument("xml-mgf1p is for RSA keys alone")
    ephemeral = None
    if mcim_object is not None and isinstance(recipient, ec.EllipticCurvePublicKey):
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        header = replace(header, ephemeral_key=_point(ephemeral.public_key()))
    root = etree.Element(ROOT, nsmap=NSMAP, version="1")
    root.append(header_element(header))
    if mcim_object is not None:
        key_name = header.platform_key_id.hex()
        root.append(_encrypt(mcim_object, recipient, ephemeral, key_name, container))
    _sign(root, signing_key, chain)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def verify(package: bytes, rules: SignerRules, containers: frozenset[Container]) -> VerifiedPackage:
    """See `mcim.package.verify_package`."""
    # 1, 2 size and structure; 3 algorithms
    root = parse_package(package)
    header = read_header(root)
    parts = 3 if header.operation.carries_object else 2
    if len(root) != parts or any((child.tail or "").strip() for child in root) or (root.text or "").strip():
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "not exactly Header, EncryptedData, Signature")
    container = _container(root, header, containers)
    if header.operation.carries_object:
        require_encrypted_data(root[1], container, ec=header.ephemeral_key is not None)
    elif header.ephemeral_key is not None:
        raise PackageRefused(ResultCode.MALFORMED, "an ephemeral key without anything encrypted")
    require_signature(root[-1])
    # 4 the signer
    certificates = root[-1].iter(f"{{{DS}}}X509Certificate")
    signer = rules.require((_base64(element.text) for element in certificates), header)
    # 5 the signature, with exactly the validated key
    _verify_signature(root, signer)
    # Only what was signed: read again from the canonical octets without the Signature.
    signed = copy.deepcopy(root)
    signed.remove(signed[-1])
    again = parse_package(etree.tostring(signed, method="c14n", exclusive=True, with_comments=False))
    header = read_header(again)
    sealed = XmlSealed(again[1], container, header.ephemeral_key) if header.operation.carries_object else None
    return VerifiedPackage(header=header, container=container, signer=signer, sealed=sealed)


def _container(root: etree._Element, header: PackageHeader, accepted: frozenset[Container]) -> Container:
    """Which of the two containers in XML it is; a signed header alone is the same in both."""
    if header.operation.carries_object:
        legacy = wraps_with_mgf1p(root[1])
        candidates = [Container.XML_MGF1P if legacy else Container.XML]
    else:
        candidates = [Container.XML, Container.XML_MGF1P]
    for container in candidates:
        if container in accepted:
            return container
    raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, "the container is not accepted")


def _base64(text: str | None) -> bytes:
    return base64.b64decode("".join((text or "").split()), validate=True)


def _point(public_key: ec.EllipticCurvePublicKey) -> bytes:
    return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _key_encryption_key(secret: bytes) -> bytes:
    """ConcatKDF of XML Encryption 1.1 §5.4.1 with the parameters of `CONCAT_PARAMS` (padding octet taken off)."""
    other = b"".join(bytes.fromhex(CONCAT_PARAMS[name])[1:] for name in ("AlgorithmID", "PartyUInfo", "PartyVInfo"))
    return ConcatKDFHash(algorithm=hashes.SHA256(), length=32, otherinfo=other).derive(secret)


def _encrypt(
    content: bytes,
    recipient: PlatformPublicKey,
    ephemeral: ec.EllipticCurvePrivateKey | None,
    key_name: str,
    container: Container,
) -> etree._Element:
    """EncryptedData; xmlsec makes the content key and encrypts, the key is wrapped for PK_D beside it."""
    session = xmlsec.Key.generate(constants.KeyDataAes, CONTENT_KEY * 8, constants.KeyDataTypeSession)
    template = xmlsec.template.encrypted_data_create(
        etree.Element("scratch"), constants.TransformAes256Gcm, ns="xenc", mime_type=OBJECT_MEDIA_TYPE
    )
    xmlsec.template.encrypted_data_ensure_cipher_value(template)
    if isinstance(recipient, rsa.RSAPublicKey):
        key_info = xmlsec.template.encrypted_data_ensure_key_info(template, ns="ds")
        key_info.append(_rsa_key(key_name, container))
        manager = xmlsec.KeysManager()
        pem = recipient.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        public = xmlsec.Key.from_memory(pem, constants.KeyDataFormatPem)
        public.name = key_name
        manager.add_key(public)
        context = xmlsec.EncryptionContext(manager)
        context.key = session
        return context.encrypt_binary(template, content)
    if ephemeral is None:
        raise InvalidArgument("an EC recipient needs an ephemeral key")
    # python-xmlsec cannot wrap for an EC key it did not get as a private one, so the wrap (ConcatKDF, AES-KW) is done
    # with the same primitives here; the content is encrypted by xmlsec as with RSA.
    content_key = AESGCM.generate_key(bit_length=CONTENT_KEY * 8)
    context = xmlsec.EncryptionContext()
    context.key = xmlsec.Key.from_binary_data(constants.KeyDataAes, content_key)
    result = context.encrypt_binary(template, content)
    kek = _key_encryption_key(ephemeral.exchange(ec.ECDH(), recipient))
    wrapped = base64.b64encode(aes_key_wrap(kek, content_key)).decode()
    result.insert(1, _xenc("KeyInfo", _ec_key(key_name, wrapped), ns=DS))  # after EncryptionMethod
    return result


def _xenc(
    name: str, *children: etree._Element, text: str | None = None, ns: str = XENC, **attributes: str
) -> etree._Element:
    element = etree.Element(f"{{{ns}}}{name}", attributes, {"xenc": XENC, "xenc11": XENC11, "ds": DS})
    element.text = text
    for child in children:
        element.append(child)
    return element


def _rsa_key(key_name: str, container: Container) -> etree._Element:
    if container is Container.XML_MGF1P:
        method = _xenc("EncryptionMethod", _xenc("DigestMethod", ns=DS, Algorithm=SHA1), Algorithm=RSA_OAEP_MGF1P)
    else:
        method = _xenc(
            "EncryptionMethod",
            _xenc("OAEPparams", text=base64.b64encode(LABEL).decode()),
            _xenc("DigestMethod", ns=DS, Algorithm=SHA256),
            _xenc("MGF", ns=XENC11, Algorithm=MGF1_SHA256),
            Algorithm=RSA_OAEP,
        )
    return _xenc(
        "EncryptedKey",
        method,
        _xenc("KeyInfo", _xenc("KeyName", ns=DS, text=key_name), ns=DS),
        _xenc("CipherData", _xenc("CipherValue")),
    )


def _ec_key(key_name: str, wrapped: str) -> etree._Element:
    parameters = _xenc("ConcatKDFParams", _xenc("DigestMethod", ns=DS, Algorithm=SHA256), ns=XENC11, **CONCAT_PARAMS)
    agreement = _xenc(
        "AgreementMethod",
        _xenc("KeyDerivationMethod", parameters, ns=XENC11, Algorithm=CONCAT_KDF),
        _xenc("OriginatorKeyInfo", _xenc("KeyName", ns=DS, text=EPHEMERAL_NAME)),
        _xenc("RecipientKeyInfo", _xenc("KeyName", ns=DS, text=key_name)),
        Algorithm=ECDH_ES,
    )
    return _xenc(
        "EncryptedKey",
        _xenc("EncryptionMethod", Algorithm=KW_AES256),
        _xenc("KeyInfo", agreement, ns=DS),
        _xenc("CipherData", _xenc("CipherValue", text=wrapped)),
    )


def _sign(root: etree._Element, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> None:
    signature = xmlsec.template.create(root, constants.TransformExclC14N, constants.TransformEcdsaSha256, ns="ds")
    root.append(signature)
    reference = xmlsec.template.add_reference(signature, constants.TransformSha256, uri="")
    xmlsec.template.add_transform(reference, constants.TransformEnveloped)
    xmlsec.template.add_transform(reference, constants.TransformExclC14N)
    key_info = xmlsec.template.ensure_key_info(signature)
    data = etree.SubElement(key_info, f"{{{DS}}}X509Data")
    for certificate in chain:
        octets = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
        etree.SubElement(data, f"{{{DS}}}X509Certificate").text = octets
    context = xmlsec.SignatureContext()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    context.key = xmlsec.Key.from_memory(pem, constants.KeyDataFormatPem)
    context.sign(signature)


def _verify_signature(root: etree._Element, signer: ValidatedCertificate) -> None:
    checked = copy.deepcopy(root)
    context = xmlsec.SignatureContext()
    for transform in (constants.TransformExclC14N, constants.TransformEcdsaSha256):
        context.enable_signature_transform(transform)
    for transform in (constants.TransformEnveloped, constants.TransformExclC14N, constants.TransformSha256):
        context.enable_reference_transform(transform)
    pem = signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    context.key = xmlsec.Key.from_memory(pem, constants.KeyDataFormatPem)
    try:
        context.verify(checked[-1])
    except xmlsec.Error as exc:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the signature is wrong") from exc
