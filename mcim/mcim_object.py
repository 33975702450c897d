"""The MCIM object: `PK_D(PIK|PCK) | Protected_data` (S3-090792), with a 24-octet header or bare.

The object hides and protects; it does **not** authenticate its sender, for PK_D is public and PIK the sender's own
choice. Origin rests on the signature of the package around it and on the identities inside (REQ-57).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mcim import suites
from mcim.errors import InvalidArgument, PackageRefused
from mcim.key_id import key_id_of
from mcim.platform_key import PlatformKey, PlatformPublicKey, oaep
from mcim.suites import PARAMETERS, SuiteParameters
from mcim.vocabulary import ResultCode, Suite

MAGIC: Final = b"MCO1"
HEADER_LENGTH: Final = 24  # octets: magic, suite, flags, key id, length of the wrapped keys
EC_POINT: Final = 65  # octets, uncompressed P-256
EC_WRAPPED: Final = EC_POINT + 72  # point and AES-KW of 64 octets

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKeys:
    """PIK, PCK and IV of one object. They are made anew for each object; tests with known answers pass them in."""

    pik: bytes = field(repr=False)
    pck: bytes = field(repr=False)
    iv: bytes = field(repr=False)


def fresh_keys(suite: Suite, random: Random) -> SessionKeys:
    """New keys for one object; `random` gives octets of the OS generator (REQ-37)."""
    row = PARAMETERS[suite]
    return SessionKeys(pik=random(row.pik_length), pck=random(row.pck_length), iv=random(row.iv_length))


def seal_mcim(
    data: bytes,
    *,
    suite: Suite,
    recipient: PlatformPublicKey,
    keys: SessionKeys,
    ephemeral: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Protect `data` for the holder of PK_D.

    Args:
        data: what `mcim.data.encode_data` made.
        suite: must fit the type of `recipient`.
        recipient: PK_D.
        keys: from `fresh_keys`.
        ephemeral: one-time key of the EC suites; None makes one.

    Raises:
        InvalidArgument: suite and key do not fit together.
    """
    row = PARAMETERS[suite]
    key_id = key_id_of(recipient)
    wrapped = _wrap(row, suite, recipient, key_id, keys.pik + keys.pck, ephemeral)
    header = MAGIC + bytes((suite, 0)) + key_id + len(wrapped).to_bytes(2, "big")
    return header + wrapped + _protect(row, keys, data, header)


def seal_bare(data: bytes, *, recipient: rsa.RSAPublicKey, keys: SessionKeys) -> bytes:
    """The seed's literal form of suite 1: no header; the first part is as long as the modulus."""
    row = PARAMETERS[Suite.LEGACY_1]
    wrapped = recipient.encrypt(keys.pik + keys.pck, oaep(row.oaep_hash, None))
    return wrapped + _protect(row, keys, data, b"")


def open_mcim(octets: bytes, key: PlatformKey, *, accepted: frozenset[Suite], random: Random) -> bytes:
    """Open an MCIM object and return its `data`.

    The MAC is compared before anything is decrypted. When unwrapping fails the work goes on with random keys, so
    that a wrong key and a wrong MAC take the same path and time (REQ-40, REQ-60).

    Raises:
        PackageRefused: MALFORMED (header), UNSUPPORTED_SUITE (not in `accepted`), WRONG_RECIPIENT (key id of another
            key), CRYPTO_FAILURE for every other cause.
    """
    header = octets[:HEADER_LENGTH]
    if len(header) < HEADER_LENGTH or header[:4] != MAGIC or header[5] != 0:
        raise PackageRefused(ResultCode.MALFORMED, "no MCIM object header")
    if header[4] not in accepted:
        raise PackageRefused(ResultCode.UNSUPPORTED_SUITE, f"suite {header[4]} is not accepted")
    suite = Suite(header[4])
    if not hmac.compare_digest(header[6:22], key.key_id):
        raise PackageRefused(ResultCode.WRONG_RECIPIENT, "wrapped for another key")
    wrapped_length = int.from_bytes(header[22:24], "big")
    wrapped = octets[HEADER_LENGTH : HEADER_LENGTH + wrapped_length]
    return _open(suite, key, header, wrapped, octets[HEADER_LENGTH + wrapped_length :], random)


def open_bare(octets: bytes, key: PlatformKey, *, random: Random) -> bytes:
    """Open the bare form of suite 1.

    Raises:
        PackageRefused: CRYPTO_FAILURE.
    """
    public = key.public_key
    length = public.key_size // 8 if isinstance(public, rsa.RSAPublicKey) else 0
    return _open(Suite.LEGACY_1, key, b"", octets[:length], octets[length:], random)


def _protect(row: SuiteParameters, keys: SessionKeys, data: bytes, header: bytes) -> bytes:
    if row.mode == "cbc" and len(data) % 16:
        raise InvalidArgument("data must be whole blocks")
    ciphertext = suites.encrypt(row, keys.pck, keys.iv, data, header)
    return ciphertext + suites.mac(row, keys.pik, header, ciphertext)


def _open(suite: Suite, key: PlatformKey, header: bytes, wrapped: bytes, protected: bytes, random: Random) -> bytes:
    row = PARAMETERS[suite]
    failed = False
    length = row.pik_length + row.pck_length
    substitute = random(length)
    try:
        keys = _unwrap(row, suite, key, wrapped)
    except (ValueError, InvalidUnwrap):
        keys = b""
    if len(keys) != length:
        keys, failed = substitute, True
    pik, pck = keys[: row.pik_length], keys[row.pik_length :]
    ciphertext, received = protected[: -row.mac_length], protected[-row.mac_length :]
    if not hmac.compare_digest(suites.mac(row, pik, header, ciphertext), received) or failed:
        raise PackageRefused(ResultCode.CRYPTO_FAILURE, "the MCIM object does not open")
    try:
        return suites.decrypt(row, pck, ciphertext, header)
    except ValueError as exc:
        raise PackageRefused(ResultCode.CRYPTO_FAILURE, "the MCIM object does not open") from exc


def _label(suite: Suite, key_id: bytes) -> bytes:
    return b"M2M-MCIM-OBJ/1|PK_D|" + bytes((suite,)) + key_id


def _wrap(
    row: SuiteParameters,
    suite: Suite,
    recipient: PlatformPublicKey,
    key_id: bytes,
    keys: bytes,
    ephemeral: ec.EllipticCurvePrivateKey | None,
) -> bytes:
    if row.wrap == "rsa" and isinstance(recipient, rsa.RSAPublicKey):
        return recipient.encrypt(keys, oaep(row.oaep_hash, _label(suite, key_id) if row.labelled else None))
    if row.wrap == "ec" and isinstance(recipient, ec.EllipticCurvePublicKey):
        own = ephemeral or ec.generate_private_key(ec.SECP256R1())
        point = _point(own.public_key())
        secret = own.exchange(ec.ECDH(), recipient)
        return point + aes_key_wrap(_kek(secret, suite, key_id, point, _point(recipient)), keys)
    raise InvalidArgument(f"suite {suite.label} does not fit this type of key")


def _unwrap(row: SuiteParameters, suite: Suite, key: PlatformKey, wrapped: bytes) -> bytes:
    if row.wrap == "rsa":
        label = _label(suite, key.key_id) if row.labelled else None
        return key.decrypt_oaep(wrapped, hash_name=row.oaep_hash, label=label)
    public = key.public_key
    if len(wrapped) != EC_WRAPPED or not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("not an EC wrap")
    point = wrapped[:EC_POINT]
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)  # checks that it is on the curve
    return aes_key_unwrap(_kek(key.agree(peer), suite, key.key_id, point, _point(public)), wrapped[EC_POINT:])


def _point(public_key: ec.EllipticCurvePublicKey) -> bytes:
    return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _kek(secret: bytes, suite: Suite, key_id: bytes, ephemeral: bytes, recipient: bytes) -> bytes:
    info = _label(suite, key_id) + ephemeral + recipient
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)
