"""The parts of CMS (RFC 5652, 5753) that a package consists of, in strict DER, and the algorithms allowed in them.

DER is read and written by `cryptography.hazmat.asn1`: definite lengths in their shortest form, sets in order, nothing
behind the end, and no deeper than the types below. What a package must not have but CMS knows (unsigned attributes,
revocation lists…) is declared all the same, so that it is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Final

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from mcim.errors import PackageRefused
from mcim.vocabulary import ResultCode

LABEL: Final = b"M2M-CMS/1|PK_D"  # pSource of OAEP: neither that of the MCIM object nor that of the XML container

DATA: Final = ObjectIdentifier("1.2.840.113549.1.7.1")
SIGNED_DATA: Final = ObjectIdentifier("1.2.840.113549.1.7.2")
ENVELOPED_DATA: Final = ObjectIdentifier("1.2.840.113549.1.7.3")
CONTENT_TYPE: Final = ObjectIdentifier("1.2.840.113549.1.9.3")
MESSAGE_DIGEST: Final = ObjectIdentifier("1.2.840.113549.1.9.4")
PACKAGE_HEADER: Final = ObjectIdentifier("1.3.6.1.4.1.99999.2.1")  # placeholder: registered by nobody
AES256_CBC: Final = ObjectIdentifier("2.16.840.1.101.3.4.1.42")
_SHA256: Final = ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_ECDSA_SHA256: Final = ObjectIdentifier("1.2.840.10045.4.3.2")
_EC_PUBLIC_KEY: Final = ObjectIdentifier("1.2.840.10045.2.1")
_RSAES_OAEP: Final = ObjectIdentifier("1.2.840.113549.1.1.7")
_MGF1: Final = ObjectIdentifier("1.2.840.113549.1.1.8")
_P_SPECIFIED: Final = ObjectIdentifier("1.2.840.113549.1.1.9")
_ECDH_SHA256_KDF: Final = ObjectIdentifier("1.3.132.1.11.1")  # dhSinglePass-stdDH-sha256kdf-scheme
_AES256_WRAP: Final = ObjectIdentifier("2.16.840.1.101.3.4.1.45")

CMS_VERSIONS: Final = {"SignedData": 3, "SignerInfo": 1, "EnvelopedData": 2, "KeyTransport": 2, "KeyAgreement": 3}
"""RFC 5652 §5.1, §5.3, §6.1, §6.2: fixed by what a package consists of."""


@asn1.sequence
class Bare:
    """AlgorithmIdentifier without parameters, as RFC 5754, RFC 5758 and RFC 3565 want it for what is used here."""

    algorithm: ObjectIdentifier


@asn1.sequence
class WithAlgorithm:
    """AlgorithmIdentifier whose parameter is another one: MGF1 and its hash, key agreement and its key wrap."""

    algorithm: ObjectIdentifier
    parameters: Bare


@asn1.sequence
class WithOctets:
    """AlgorithmIdentifier whose parameter is an octet string: a label, an initialisation vector."""

    algorithm: ObjectIdentifier
    parameters: bytes


@asn1.sequence
class OaepParameters:
    """RSAES-OAEP-params (RFC 4055 §4.1)."""

    hash: Annotated[Bare, asn1.Explicit(0)]
    mask: Annotated[WithAlgorithm, asn1.Explicit(1)]
    source: Annotated[WithOctets, asn1.Explicit(2)]


@asn1.sequence
class Oaep:
    """AlgorithmIdentifier of RSAES-OAEP."""

    algorithm: ObjectIdentifier
    parameters: OaepParameters


@asn1.sequence
class IssuerAndSerial:
    """RFC 5652 §10.2.4."""

    issuer: asn1.TLV
    serial: int


@asn1.sequence
class CertificateBody:
    """TBSCertificate of version 3 (RFC 5280 §4.1), as far as names and numbers of signers need it."""

    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    algorithm: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    public_key: asn1.TLV
    extensions: Annotated[asn1.TLV, asn1.Explicit(3)]


@asn1.sequence
class Certificate:
    """RFC 5280 §4.1; whether it is any good is found out by `mcim.certificates`."""

    body: CertificateBody
    algorithm: asn1.TLV
    signature: asn1.BitString


@asn1.sequence
class Attribute:
    """RFC 5652 §5.3."""

    kind: ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class SignerInfo:
    """RFC 5652 §5.3."""

    version: int
    sid: IssuerAndSerial | Annotated[bytes, asn1.Implicit(0)]
    digest_algorithm: asn1.TLV
    signed_attributes: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    signature_algorithm: asn1.TLV
    signature: bytes
    unsigned_attributes: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]


@asn1.sequence
class EncapsulatedContent:
    """RFC 5652 §5.2; without the content a signature is detached."""

    content_type: ObjectIdentifier
    content: Annotated[bytes | None, asn1.Explicit(0)]


@asn1.sequence
class SignedData:
    """RFC 5652 §5.1."""

    version: int
    digest_algorithms: asn1.SetOf[asn1.TLV]
    encapsulated: EncapsulatedContent
    certificates: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    crls: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]
    signer_infos: asn1.SetOf[SignerInfo]


@asn1.sequence
class ContentInfo:
    """RFC 5652 §3, with the only content that a package has at its top."""

    content_type: ObjectIdentifier
    content: Annotated[SignedData, asn1.Explicit(0)]


@asn1.sequence
class KeyTransport:
    """KeyTransRecipientInfo (RFC 5652 §6.2.1)."""

    version: int
    rid: IssuerAndSerial | Annotated[bytes, asn1.Implicit(0)]
    algorithm: asn1.TLV
    encrypted_key: bytes


@asn1.sequence
class OriginatorKey:
    """OriginatorPublicKey (RFC 5652 §6.2.2)."""

    algorithm: asn1.TLV
    public_key: asn1.BitString


@asn1.sequence
class RecipientKeyId:
    """RecipientKeyIdentifier (RFC 5652 §6.2.2), without date and other attributes."""

    subject_key_id: bytes


@asn1.sequence
class RecipientEncryptedKey:
    """RFC 5652 §6.2.2."""

    rid: IssuerAndSerial | Annotated[RecipientKeyId, asn1.Implicit(0)]
    encrypted_key: bytes


@asn1.sequence
class KeyAgreement:
    """KeyAgreeRecipientInfo (RFC 5652 §6.2.2, RFC 5753 §3.1.1)."""

    version: int
    originator: Annotated[
        IssuerAndSerial | Annotated[bytes, asn1.Implicit(0)] | Annotated[OriginatorKey, asn1.Implicit(1)],
        asn1.Explicit(0),
    ]
    user_key_material: Annotated[bytes | None, asn1.Explicit(1)]
    algorithm: asn1.TLV
    encrypted_keys: list[RecipientEncryptedKey]


@asn1.sequence
class EncryptedContent:
    """EncryptedContentInfo (RFC 5652 §6.1)."""

    content_type: ObjectIdentifier
    algorithm: asn1.TLV
    content: Annotated[bytes | None, asn1.Implicit(0)]


@asn1.sequence
class EnvelopedData:
    """RFC 5652 §6.1; originatorInfo is what only certificates of senders need, so it is never read."""

    version: int
    originator_info: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    recipient_infos: asn1.SetOf[KeyTransport | Annotated[KeyAgreement, asn1.Implicit(1)]]
    encrypted: EncryptedContent
    unprotected_attributes: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]


@asn1.sequence
class SharedInfo:
    """ECC-CMS-SharedInfo (RFC 5753 §7.2), without key material of the sender: goes into the key derivation."""

    key_info: Bare
    key_bits: Annotated[bytes, asn1.Explicit(2)]


def _oaep() -> Oaep:
    sha256 = Bare(algorithm=_SHA256)
    parameters = OaepParameters(
        hash=sha256,
        mask=WithAlgorithm(algorithm=_MGF1, parameters=sha256),
        source=WithOctets(algorithm=_P_SPECIFIED, parameters=LABEL),
    )
    return Oaep(algorithm=_RSAES_OAEP, parameters=parameters)


def tlv(value: object) -> asn1.TLV:
    """One of the types above as a value of any type."""
    return asn1.decode_der(asn1.TLV, asn1.encode_der(value))


SHA256: Final = tlv(Bare(algorithm=_SHA256))
ECDSA_SHA256: Final = tlv(Bare(algorithm=_ECDSA_SHA256))
EC_PUBLIC_KEY: Final = tlv(Bare(algorithm=_EC_PUBLIC_KEY))
OAEP_SHA256: Final = tlv(_oaep())
ECDH_AES256: Final = tlv(WithAlgorithm(algorithm=_ECDH_SHA256_KDF, parameters=Bare(algorithm=_AES256_WRAP)))
SHARED_INFO: Final = asn1.encode_der(
    SharedInfo(key_info=Bare(algorithm=_AES256_WRAP), key_bits=(256).to_bytes(4, "big"))
)


def octets(value: object) -> bytes:
    """DER of a value; of one that was read: the octets it was read from, for DER has one form alone."""
    return asn1.encode_der(value)


def require_algorithm(found: asn1.TLV, allowed: asn1.TLV, what: str) -> None:
    """Compare an AlgorithmIdentifier, parameters and all, with the one allowed (REQ-39).

    Raises:
        PackageRefused: UNSUPPORTED_SUITE.
    """
    if octets(found) != octets(allowed):
        raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, f"{what} has an algorithm outside the list")
