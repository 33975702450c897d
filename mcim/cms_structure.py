"""Exactly this CMS message is a package, and nothing else (REQ-59): SignedData over EnvelopedData.

One signer, one recipient, three signed attributes, one set of algorithms. All of it is compared before a signature is
computed or a key is used. Nothing here opens anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from mcim.cms_syntax import (
    AES256_CBC,
    CMS_VERSIONS,
    CONTENT_TYPE,
    DATA,
    EC_PUBLIC_KEY,
    ECDH_AES256,
    ECDSA_SHA256,
    ENVELOPED_DATA,
    MESSAGE_DIGEST,
    OAEP_SHA256,
    PACKAGE_HEADER,
    SHA256,
    SIGNED_DATA,
    Attribute,
    Certificate,
    ContentInfo,
    EnvelopedData,
    IssuerAndSerial,
    KeyAgreement,
    KeyTransport,
    OriginatorKey,
    RecipientKeyId,
    SignerInfo,
    WithOctets,
    octets,
    require_algorithm,
)
from mcim.errors import PackageRefused
from mcim.vocabulary import ResultCode

MAX_CHAIN: Final = 4  # certificates
MAX_SERIAL: Final = 20  # octets (RFC 5280 §4.1.2.2)
IV_LENGTH: Final = 16  # octets

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Enveloped:
    """What an EnvelopedData says, its structure and algorithms checked."""

    recipient_key_id: bytes  # subjectKeyIdentifier of the platform certificate
    ephemeral_key: bytes | None  # P-256 point of the sender; None: the key was transported with RSA
    encrypted_key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CmsPackage:
    """What a package in CMS says, its structure and algorithms checked and nothing verified yet."""

    header: bytes = field(repr=False)  # DER of the header's value, out of the signed attributes
    enveloped: Enveloped | None  # None: a signed header alone
    content: bytes = field(repr=False)  # what the digest is over
    message_digest: bytes
    signed_attributes: bytes = field(repr=False)  # as they were signed (RFC 5652 §5.4)
    signature: bytes = field(repr=False)
    issuer: bytes  # DER of the name of whoever issued the signer's certificate
    serial: int
    certificates: tuple[bytes, ...] = field(repr=False)  # a set: whose is whose is found out later


def parse_cms(package: bytes) -> CmsPackage:
    """Take a package in CMS apart; its size has been looked at (`mcim.package_header.is_cms`).

    Raises:
        PackageRefused: MALFORMED for octets that are not DER, or another kind of message; SIGNATURE_INVALID for a
            structure other than ours, most of all for what no signature would cover; UNSUPPORTED_SUITE for an
            algorithm outside the list.
    """
    message = _decode(ContentInfo, package)
    signed, (info,) = message.content, _exactly(1, message.content.signer_infos.as_list(), "signers")
    _require(message.content_type == SIGNED_DATA, ResultCode.MALFORMED, "not SignedData")
    _version(signed.version, "SignedData")
    _version(info.version, "SignerInfo")
    _require(signed.crls is None, ResultCode.SIGNATURE_INVALID, "revocation lists are not sent in packages")
    (digest,) = _exactly(1, signed.digest_algorithms.as_list(), "digest algorithms")
    require_algorithm(digest, SHA256, "SignedData")
    _require_signer_algorithms(info)
    certificates = signed.certificates.as_list() if signed.certificates is not None else []
    _require(1 <= len(certificates) <= MAX_CHAIN, ResultCode.SIGNATURE_INVALID, "no certificates, or too many")
    if not isinstance(info.sid, IssuerAndSerial) or not 0 < info.sid.serial < 1 << (8 * MAX_SERIAL):
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the signer is not named by issuer and serial number")
    content = signed.encapsulated.content
    if content is None:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the content is detached")
    content_type = signed.encapsulated.content_type
    _require(content_type in (DATA, ENVELOPED_DATA), ResultCode.MALFORMED, "neither EnvelopedData nor nothing")
    _require(content_type != DATA or not content, ResultCode.SIGNATURE_INVALID, "content that is not encrypted")
    signed_attributes, attributes = _attributes(info)
    _require(attributes[CONTENT_TYPE] == octets(content_type), ResultCode.SIGNATURE_INVALID, "signed for other content")
    return CmsPackage(
        header=attributes[PACKAGE_HEADER],
        enveloped=parse_enveloped(content) if content_type == ENVELOPED_DATA else None,
        content=content,
        message_digest=_decode(bytes, attributes[MESSAGE_DIGEST]),
        signed_attributes=signed_attributes,
        signature=info.signature,
        issuer=octets(info.sid.issuer),
        serial=info.sid.serial,
        certificates=tuple(octets(each) for each in certificates),
    )


def parse_enveloped(der: bytes) -> Enveloped:
    """Take an EnvelopedData apart.

    Raises:
        PackageRefused: as `parse_cms`.
    """
    enveloped = _decode(EnvelopedData, der)
    _version(enveloped.version, "EnvelopedData")
    beside = enveloped.originator_info is None and enveloped.unprotected_attributes is None
    _require(beside, ResultCode.SIGNATURE_INVALID, "EnvelopedData has more parts than it may have")
    (recipient,) = _exactly(1, enveloped.recipient_infos.as_list(), "recipients")
    if isinstance(recipient, KeyTransport):
        key_id, ephemeral, encrypted_key = _transport(recipient)
    else:
        key_id, ephemeral, encrypted_key = _agreement(recipient)
    encrypted = enveloped.encrypted
    _require(encrypted.content_type == DATA, ResultCode.SIGNATURE_INVALID, "something else is encrypted")
    if encrypted.content is None:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the encrypted content is detached")
    return Enveloped(
        recipient_key_id=key_id,
        ephemeral_key=ephemeral,
        encrypted_key=encrypted_key,
        iv=_iv(encrypted.algorithm),
        ciphertext=encrypted.content,
    )


def certificate_id(der: bytes) -> tuple[bytes, int]:
    """DER of the issuer's name and the serial number, as they stand in a certificate; neither is interpreted.

    Raises:
        PackageRefused: SIGNER_NOT_ACCEPTABLE, no certificate of version 3.
    """
    try:
        body = asn1.decode_der(Certificate, der).body
    except ValueError as exc:
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "a certificate is broken") from exc
    return octets(body.issuer), body.serial


def _require_signer_algorithms(info: SignerInfo) -> None:
    require_algorithm(info.digest_algorithm, SHA256, "SignerInfo")
    require_algorithm(info.signature_algorithm, ECDSA_SHA256, "SignerInfo")
    _require(info.unsigned_attributes is None, ResultCode.SIGNATURE_INVALID, "attributes that nobody signed")


def _attributes(info: SignerInfo) -> tuple[bytes, dict[ObjectIdentifier, bytes]]:
    """The signed attributes as they were signed, and the one value of each: exactly three, each once."""
    if info.signed_attributes is None:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "no signed attributes")
    found = [_decode(Attribute, octets(each)) for each in info.signed_attributes.as_list()]
    kinds = {attribute.kind for attribute in found}
    _require(
        len(found) == 3 and kinds == {CONTENT_TYPE, MESSAGE_DIGEST, PACKAGE_HEADER},
        ResultCode.SIGNATURE_INVALID,
        "other signed attributes than content type, digest and header, each once",
    )
    values = {}
    for attribute in found:
        (value,) = _exactly(1, attribute.values.as_list(), "values of an attribute")
        values[attribute.kind] = octets(value)
    return octets(info.signed_attributes), values


def _transport(recipient: KeyTransport) -> tuple[bytes, bytes | None, bytes]:
    _version(recipient.version, "KeyTransport")
    require_algorithm(recipient.algorithm, OAEP_SHA256, "KeyTransRecipientInfo")
    if not isinstance(recipient.rid, bytes):
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the recipient is not named by its key")
    return recipient.rid, None, recipient.encrypted_key


def _agreement(recipient: KeyAgreement) -> tuple[bytes, bytes | None, bytes]:
    _version(recipient.version, "KeyAgreement")
    require_algorithm(recipient.algorithm, ECDH_AES256, "KeyAgreeRecipientInfo")
    _require(recipient.user_key_material is None, ResultCode.SIGNATURE_INVALID, "key material of the sender")
    if not isinstance(recipient.originator, OriginatorKey):
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the sender's key is not in the message")
    require_algorithm(recipient.originator.algorithm, EC_PUBLIC_KEY, "OriginatorPublicKey")
    point = recipient.originator.public_key
    _require(point.padding_bits() == 0, ResultCode.MALFORMED, "a point is whole octets")
    (key,) = _exactly(1, recipient.encrypted_keys, "recipients")
    if not isinstance(key.rid, RecipientKeyId):
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the recipient is not named by its key")
    return key.rid.subject_key_id, point.as_bytes(), key.encrypted_key


def _iv(algorithm: asn1.TLV) -> bytes:
    try:
        read = asn1.decode_der(WithOctets, octets(algorithm))
    except ValueError as exc:
        raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, "the content has an algorithm outside the list") from exc
    if read.algorithm != AES256_CBC or len(read.parameters) != IV_LENGTH:
        raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, "the content has an algorithm outside the list")
    return read.parameters


def _decode(kind: type[T], der: bytes) -> T:
    try:
        return asn1.decode_der(kind, der)
    except ValueError as exc:
        raise PackageRefused(ResultCode.MALFORMED, "not DER, or another structure") from exc


def _exactly(count: int, found: Iterable[T], what: str) -> list[T]:
    listed = list(found)
    _require(len(listed) == count, ResultCode.SIGNATURE_INVALID, f"{len(listed)} {what}")
    return listed


def _version(found: int, part: str) -> None:
    _require(found == CMS_VERSIONS[part], ResultCode.MALFORMED, f"another version of {part}")


def _require(condition: bool, code: ResultCode, reason: str) -> None:
    if not condition:
        raise PackageRefused(code, reason)
