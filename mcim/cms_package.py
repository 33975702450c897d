"""The package in CMS (RFC 5652): SignedData of the SHO over EnvelopedData for PK_D over the MCIM object.

Key transport is RSAES-OAEP with SHA-256 and a label of its own; key agreement is dhSinglePass-stdDH with the X9.63
derivation over SHA-256 and AES-256 key wrap (RFC 5753). Neither can be mistaken for the wraps of the MCIM object or of
the XML container: other label, other derivation. The header is a signed attribute, whether there is an object or not:
so one place has it, and the content of SignedData is EnvelopedData or empty. Content encryption is AES-256-CBC, which
does not protect itself: the signature is verified before anything is decrypted, and the MCIM object has its own MAC.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mcim.cms_header import encode_header, read_header
from mcim.cms_structure import IV_LENGTH, MAX_CHAIN, CmsPackage, Enveloped, certificate_id, parse_cms
from mcim.cms_syntax import (
    AES256_CBC,
    CMS_VERSIONS,
    CONTENT_TYPE,
    DATA,
    EC_PUBLIC_KEY,
    ECDH_AES256,
    ECDSA_SHA256,
    ENVELOPED_DATA,
    LABEL,
    MESSAGE_DIGEST,
    OAEP_SHA256,
    PACKAGE_HEADER,
    SHA256,
    SHARED_INFO,
    SIGNED_DATA,
    Attribute,
    ContentInfo,
    EncapsulatedContent,
    EncryptedContent,
    EnvelopedData,
    IssuerAndSerial,
    KeyAgreement,
    KeyTransport,
    OriginatorKey,
    RecipientEncryptedKey,
    RecipientKeyId,
    SignedData,
    SignerInfo,
    WithOctets,
    octets,
    tlv,
)
from mcim.errors import InvalidArgument, PackageRefused
from mcim.header_fields import PackageHeader
from mcim.platform_key import PlatformKey, PlatformPublicKey, oaep
from mcim.verified_package import SignerRules, VerifiedPackage
from mcim.vocabulary import Container, ResultCode

CONTENT_KEY: Final = 32  # octets
POINT: Final = 65  # octets, uncompressed P-256


@dataclass(frozen=True, slots=True)
class CmsSealed:
    """EnvelopedData that was signed."""

    enveloped: Enveloped = field(repr=False)

    def open(self, key: PlatformKey) -> bytes:
        """See `mcim.verified_package.Sealed`."""
        try:
            if not hmac.compare_digest(self.enveloped.recipient_key_id, _subject_key_id(key.public_key)):
                raise ValueError("for another key")
            content_key = self._unwrap(key)
            if len(content_key) != CONTENT_KEY:
                raise ValueError("content key length")
            decryptor = Cipher(algorithms.AES(content_key), modes.CBC(self.enveloped.iv)).decryptor()
            unpadder = padding.PKCS7(algorithms.AES.block_size).unpadder()
            padded = decryptor.update(self.enveloped.ciphertext) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except (ValueError, TypeError, InvalidUnwrap) as exc:
            raise PackageRefused(ResultCode.CRYPTO_FAILURE, "the package does not open") from exc

    def _unwrap(self, key: PlatformKey) -> bytes:
        point = self.enveloped.ephemeral_key
        if point is None:
            return key.decrypt_oaep(self.enveloped.encrypted_key, hash_name="sha256", label=LABEL)
        if len(point) != POINT:
            raise ValueError("not an uncompressed point")
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)  # checks that it is on the curve
        return aes_key_unwrap(_key_encryption_key(key.agree(peer)), self.enveloped.encrypted_key)


def build(
    header: PackageHeader,
    mcim_object: bytes | None,
    *,
    recipient: PlatformPublicKey,
    signing_key: ec.EllipticCurvePrivateKey,
    chain: Sequence[x509.Certificate],
) -> bytes:
    """See `mcim.package.build_package`.

    Raises:
        InvalidArgument: as `sign`.
    """
    enveloped = None if mcim_object is None else envelope(mcim_object, recipient)
    return sign(header, enveloped, signing_key=signing_key, chain=chain)


def sign(
    header: PackageHeader,
    enveloped: bytes | None,
    *,
    signing_key: ec.EllipticCurvePrivateKey,
    chain: Sequence[x509.Certificate],
) -> bytes:
    """The package with this EnvelopedData, in DER; None: a signed header alone.

    Raises:
        InvalidArgument: a header value that does not fit, or more certificates than a receiver takes.
    """
    if len(chain) > MAX_CHAIN:
        raise InvalidArgument(f"more than {MAX_CHAIN} certificates")
    content_type, content = (DATA, b"") if enveloped is None else (ENVELOPED_DATA, enveloped)
    attributes = asn1.SetOf(
        [
            _attribute(CONTENT_TYPE, octets(content_type)),
            _attribute(MESSAGE_DIGEST, octets(hashlib.sha256(content).digest())),
            _attribute(PACKAGE_HEADER, encode_header(header)),
        ]
    )
    leaf = chain[0]
    signer = SignerInfo(
        version=CMS_VERSIONS["SignerInfo"],
        sid=IssuerAndSerial(issuer=_tlv(leaf.issuer.public_bytes()), serial=leaf.serial_number),
        digest_algorithm=SHA256,
        signed_attributes=attributes,
        signature_algorithm=ECDSA_SHA256,
        signature=signing_key.sign(octets(attributes), ec.ECDSA(hashes.SHA256())),
        unsigned_attributes=None,
    )
    signed = SignedData(
        version=CMS_VERSIONS["SignedData"],
        digest_algorithms=asn1.SetOf([SHA256]),
        encapsulated=EncapsulatedContent(content_type=content_type, content=content),
        certificates=asn1.SetOf([_tlv(each.public_bytes(Encoding.DER)) for each in chain]),
        crls=None,
        signer_infos=asn1.SetOf([signer]),
    )
    return octets(ContentInfo(content_type=SIGNED_DATA, content=signed))


def verify(package: bytes, rules: SignerRules) -> VerifiedPackage:
    """See `mcim.package.verify_package`."""
    # 1, 2 size and structure; 3 algorithms
    parts = parse_cms(package)
    header = read_header(parts)
    # 4 the signer
    signer = rules.require(_leaf_first(parts), header)
    # 5 the signature over the attributes, the digest in them over the content
    public_key = signer.public_key
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "SHO keys are EC")
    try:
        public_key.verify(parts.signature, parts.signed_attributes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as exc:
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the signature is wrong") from exc
    if not hmac.compare_digest(hashlib.sha256(parts.content).digest(), parts.message_digest):
        raise PackageRefused(ResultCode.SIGNATURE_INVALID, "the content is not what was signed")
    # Header and content are those octets: DER has one form, so what was read is what was signed.
    sealed = None if parts.enveloped is None else CmsSealed(parts.enveloped)
    return VerifiedPackage(header=header, container=Container.CMS, signer=signer, sealed=sealed)


def envelope(content: bytes, recipient: PlatformPublicKey) -> bytes:
    """DER of an EnvelopedData over `content` for the holder of PK_D."""
    content_key, iv = _fresh(CONTENT_KEY), _fresh(IV_LENGTH)
    padder = padding.PKCS7(algorithms.AES.block_size).padder()
    encryptor = Cipher(algorithms.AES(content_key), modes.CBC(iv)).encryptor()
    padded = padder.update(content) + padder.finalize()
    encrypted = EncryptedContent(
        content_type=DATA,
        algorithm=tlv(WithOctets(algorithm=AES256_CBC, parameters=iv)),
        content=encryptor.update(padded) + encryptor.finalize(),
    )
    return octets(
        EnvelopedData(
            version=CMS_VERSIONS["EnvelopedData"],
            originator_info=None,
            recipient_infos=asn1.SetOf([_recipient_info(content_key, recipient)]),
            encrypted=encrypted,
            unprotected_attributes=None,
        )
    )


def _recipient_info(content_key: bytes, recipient: PlatformPublicKey) -> KeyTransport | KeyAgreement:
    if isinstance(recipient, rsa.RSAPublicKey):
        return KeyTransport(
            version=CMS_VERSIONS["KeyTransport"],
            rid=_subject_key_id(recipient),
            algorithm=OAEP_SHA256,
            encrypted_key=recipient.encrypt(content_key, oaep("sha256", LABEL)),
        )
    ephemeral = ec.generate_private_key(ec.SECP256R1())
    point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    wrapped = aes_key_wrap(_key_encryption_key(ephemeral.exchange(ec.ECDH(), recipient)), content_key)
    key_id = RecipientKeyId(subject_key_id=_subject_key_id(recipient))
    return KeyAgreement(
        version=CMS_VERSIONS["KeyAgreement"],
        originator=OriginatorKey(algorithm=EC_PUBLIC_KEY, public_key=asn1.BitString(point, 0)),
        user_key_material=None,
        algorithm=ECDH_AES256,
        encrypted_keys=[RecipientEncryptedKey(rid=key_id, encrypted_key=wrapped)],
    )


def _key_encryption_key(secret: bytes) -> bytes:
    """X9.63 derivation as RFC 5753 §7.2 wants it for AES-256 key wrap."""
    return X963KDF(algorithm=hashes.SHA256(), length=32, sharedinfo=SHARED_INFO).derive(secret)


def _subject_key_id(public_key: PlatformPublicKey) -> bytes:
    """As it stands in certificates of our profile: method 1 of RFC 5280 §4.2.1.2, a name and no protection."""
    return x509.SubjectKeyIdentifier.from_public_key(public_key).digest


def _leaf_first(parts: CmsPackage) -> list[bytes]:
    """The certificates, that of the signer in front: the one with the issuer and serial number that it names."""
    signer = (parts.issuer, parts.serial)
    found = [each for each in parts.certificates if certificate_id(each) == signer]
    if len(found) != 1:
        raise PackageRefused(ResultCode.SIGNER_NOT_ACCEPTABLE, "the signer's certificate is not there once")
    return [*found, *(each for each in parts.certificates if each is not found[0])]


def _attribute(kind: x509.ObjectIdentifier, value: bytes) -> asn1.TLV:
    return tlv(Attribute(kind=kind, values=asn1.SetOf([_tlv(value)])))


def _tlv(der: bytes) -> asn1.TLV:
    return asn1.decode_der(asn1.TLV, der)


def _fresh(length: int) -> bytes:
    """Octets of the OS generator, by the way of `cryptography`, like the ephemeral key."""
    return AESGCM.generate_key(bit_length=length * 8)
