"""M2MSIMPackage: an MCIM object, encrypted for one TRE (XML Encryption 1.1) and signed by the SHO (XML Signature).

Encrypted first, signed last: the receiver knows who sent it before its private key is used. Private keys are asked for
operations only; xmlsec gets the content key, never PK_D (REQ-42).
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
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

from mcim.certificates import Reason, Role, TrustAnchors, ValidatedCertificate, load_der, validate
from mcim.errors import CertificateRefused, InvalidArgument, PackageRefused
from mcim.package_header import NSMAP, ROOT, PackageHeader, header_element, parse_package, read_header
from mcim.platform_key import PlatformKey, PlatformPublicKey
from mcim.vocabulary import OBJECT_MEDIA_TYPE, ResultCode
from mcim.xml_security import (
    CONCAT_KDF,
    CONCAT_PARAMS,
    DS,
    ECDH_ES,
    KW_AES256,
    MGF1_SHA256,
    RSA_OAEP,
    SHA256,
    XENC,
    XENC11,
    require_encrypted_data,
    require_signature,
)

LABEL: Final = b"M2M-XENC/1|PK_D"  # OAEP label of the outer layer: never that of the inner one
CONTENT_KEY: Final = 32  # octets
EPHEMERAL_NAME: Final = "EPH"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPackage:
    """What the signature covered, and nothing else."""

    header: PackageHeader
    encrypted_data: etree._Element | None = field(repr=False)  # None: the operation carries no object
    signer: ValidatedCertificate


def build_package(
    header: PackageHeader,
    mcim_object: bytes | None,
    *,
    recipient_public_key: PlatformPublicKey,
    signing_key: ec.EllipticCurvePrivateKey,
    signer_chain: Sequence[x509.Certificate],
) -> bytes:
    """Encrypt `mcim_object` for PK_D, put the header before it, sign all.

    A life-cycle command and a release token are a signed header alone: `mcim_object` is None then.

    Raises:
        InvalidArgument: no certificate for the signer, a recipient key of a type without a scheme, or an object with
            an operation that carries none (and the reverse).
    """
    if not signer_chain:
        raise InvalidArgument("the signer's certificate is missing")
    if header.operation.carries_object is (mcim_object is None):
        raise InvalidArgument(f"{header.operation.label} with an object, or without the one it needs")
    ephemeral = None
    if mcim_object is not None and isinstance(recipient_public_key, ec.EllipticCurvePublicKey):
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        header = replace(header, ephemeral_key=_point(ephemeral.public_key()))
    root = etree.Element(ROOT, nsmap=NSMAP, version="1")
    root.append(header_element(header))
    if mcim_object is not None:
        root.append(_encrypt(mcim_object, recipient_public_key, ephemeral, header.platform_key_id.hex()))
    _sign(root, signing_key, signer_chain)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def verify_package(
    package: bytes,
    *,
    anchors: TrustAnchors,
    now: datetime,
    expected_sho_id: str,
    crls: Sequence[x509.CertificateRevocationList] = (),
) -> VerifiedPackage:
    """Steps 1 to 5 of the order of checks: structure, algorithms, signer, signature.

    Args:
        package: the octets as received.
        anchors: SHO roots of the TRE.
        now: UTC.
        expected_sho_id: the SHO selected in this registration.
        crls: revocation lists, for whoever has some.

    Raises:
        PackageRefused: MALFORMED, UNSUPPORTED_SUITE, SIGNER_NOT_ACCEPTABLE, CERTIFICATE_REVOKED or SIGNATURE_INVALID.
    """
    # 1, 2 size and structure; 3 algorithms
    root = parse_package(package)
    header = read_header(root)
    parts = 3 if header.operation.carries_object else 2
    if len(root) != parts or any((child.tail or "").strip() for child in root) or (root.text or "").strip():
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "not exactly Header, EncryptedData, Signature")
    if header.operation.carries_object:
        require_encrypted_data(root[1], ec=header.ephemeral_key is not None)
    elif header.ephemeral_key is not None:
        raise PackageRefused(ResultCode.MALFORMED, "an ephemeral key without anything encrypted")
    require_signature(root[-1])
    # 4 the signer
    signer = _signer(root[-1], anchors, now, expected_sho_id, crls)
    if header.sho_id != expected_sho_id:
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "the header names another SHO")
    # 5 the signature, with exactly the validated key
    _verify_signature(root, signer)
    # Only what was signed: read again from the canonical octets without the Signature.
    signed = copy.deepcopy(root)
    signed.remove(signed[-1])
    again = parse_package(etree.tostring(signed, method="c14n", exclusive=True, with_comments=False))
    encrypted = again[1] if header.operation.carries_object else None
    return VerifiedPackage(header=read_header(again), encrypted_data=encrypted, signer=signer)


def open_package(verified: VerifiedPackage, key: PlatformKey) -> bytes:
    """Step 9: the MCIM object out of a verified package.

    Raises:
        PackageRefused: CRYPTO_FAILURE for every cause.
    """
    if verified.encrypted_data is None:
        raise PackageRefused(ResultCode.CRYPTO_FAILURE, "there is nothing to open")
    try:
        element = copy.deepcopy(verified.encrypted_data)
        key_info = element.find(f"{{{DS}}}KeyInfo")
        encrypted_key = element.find(f"{{{DS}}}KeyInfo/{{{XENC}}}EncryptedKey")
        if key_info is None or encrypted_key is None:
            raise ValueError("no EncryptedKey")
        content_key = _unwrap(encrypted_key, verified.header.ephemeral_key, key)
        if len(content_key) != CONTENT_KEY:
            raise ValueError("content key length")
        element.remove(key_info)
        context = xmlsec.EncryptionContext()
        context.key = xmlsec.Key.from_binary_data(constants.KeyDataAes, content_key)
        content: Any = context.decrypt(element)  # octets, as there is no Type attribute; the stubs know elements only
        return bytes(content)
    except (ValueError, TypeError, InvalidUnwrap, xmlsec.Error) as exc:
        raise PackageRefused(ResultCode.CRYPTO_FAILURE, "the package does not open") from exc


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
) -> etree._Element:
    """EncryptedData; xmlsec makes the content key and encrypts, the key is wrapped for PK_D beside it."""
    session = xmlsec.Key.generate(constants.KeyDataAes, CONTENT_KEY * 8, constants.KeyDataTypeSession)
    template = xmlsec.template.encrypted_data_create(
        etree.Element("scratch"), constants.TransformAes256Gcm, ns="xenc", mime_type=OBJECT_MEDIA_TYPE
    )
    xmlsec.template.encrypted_data_ensure_cipher_value(template)
    if isinstance(recipient, rsa.RSAPublicKey):
        key_info = xmlsec.template.encrypted_data_ensure_key_info(template, ns="ds")
        key_info.append(_rsa_template(key_name))
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


def _rsa_template(key_name: str) -> etree._Element:
    return _xenc(
        "EncryptedKey",
        _xenc(
            "EncryptionMethod",
            _xenc("OAEPparams", text=base64.b64encode(LABEL).decode()),
            _xenc("DigestMethod", ns=DS, Algorithm=SHA256),
            _xenc("MGF", ns=XENC11, Algorithm=MGF1_SHA256),
            Algorithm=RSA_OAEP,
        ),
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


def _unwrap(encrypted_key: etree._Element, ephemeral_point: bytes | None, key: PlatformKey) -> bytes:
    value = encrypted_key.findtext(f"{{{XENC}}}CipherData/{{{XENC}}}CipherValue") or ""
    wrapped = base64.b64decode("".join(value.split()), validate=True)
    if ephemeral_point is None:
        label = encrypted_key.findtext(f"{{{XENC}}}EncryptionMethod/{{{XENC}}}OAEPparams") or ""
        if base64.b64decode("".join(label.split()), validate=True) != LABEL:
            raise ValueError("OAEP label")
        return key.decrypt_oaep(wrapped, hash_name="sha256", label=LABEL)
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ephemeral_point)
    return aes_key_unwrap(_key_encryption_key(key.agree(peer)), wrapped)


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


def _signer(
    signature: etree._Element,
    anchors: TrustAnchors,
    now: datetime,
    expected_sho_id: str,
    crls: Sequence[x509.CertificateRevocationList],
) -> ValidatedCertificate:
    """The chain in KeyInfo is a hint; our own path validation decides."""
    try:
        chain = [
            load_der(base64.b64decode("".join((element.text or "").split()), validate=True))
            for element in signature.iter(f"{{{DS}}}X509Certificate")
        ]
        return validate(chain[0], chain[1:], anchors, Role.SHO, now, identity=expected_sho_id, crls=crls)
    except ValueError as exc:  # no Base64, or not even ASCII
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "no certificate") from exc
    except CertificateRefused as exc:
        code = ResultCode.CERTIFICATE_REVOKED if exc.reason == Reason.REVOKED else ResultCode.SIGNER_NOT_ACCEPTABLE
        raise PackageRefused(code, str(exc)) from exc


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
