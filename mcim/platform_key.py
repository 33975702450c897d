"""The private half of PK_D as two operations. The key itself is never asked for (REQ-42)."""

from __future__ import annotations

from typing import Literal, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mcim.errors import InvalidArgument
from mcim.key_id import key_id_of

PlatformPublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
OaepHash = Literal["sha1", "sha256"]


def oaep(name: OaepHash, label: bytes | None) -> padding.OAEP:
    """RSAES-OAEP (RFC 8017 §7.1) with the same hash in MGF1."""
    # SHA-1 only where the seed's legacy suite asks for it; OAEP does not rest on its collision resistance.
    algorithm = hashes.SHA1() if name == "sha1" else hashes.SHA256()  # noqa: S303 (see above)
    return padding.OAEP(mgf=padding.MGF1(algorithm), algorithm=algorithm, label=label)


class PlatformKey(Protocol):
    """What a TRE back-end (software, token, TPM) does with PK_D's private key."""

    @property
    def public_key(self) -> PlatformPublicKey:
        """PK_D."""

    @property
    def key_id(self) -> bytes:
        """Key id of PK_D, 16 octets."""

    def decrypt_oaep(self, ciphertext: bytes, *, hash_name: OaepHash, label: bytes | None) -> bytes:
        """RSAES-OAEP decryption.

        Raises:
            ValueError: the ciphertext does not decrypt, or the key is not RSA.
        """

    def agree(self, peer: ec.EllipticCurvePublicKey) -> bytes:
        """ECDH on P-256: the x coordinate, 32 octets.

        Raises:
            ValueError: the key is not EC.
        """


class SoftwarePlatformKey:
    """PK_D in this process's memory, for the software TRE and for tests."""

    def __init__(self, private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
        if isinstance(private_key, ec.EllipticCurvePrivateKey) and not isinstance(private_key.curve, ec.SECP256R1):
            raise InvalidArgument("EC platform keys are on P-256")
        self._private_key = private_key
        self._key_id = key_id_of(private_key.public_key())

    def __repr__(self) -> str:
        return f"SoftwarePlatformKey(key_id={self._key_id.hex()})"

    @property
    def public_key(self) -> PlatformPublicKey:
        """PK_D."""
        return self._private_key.public_key()

    @property
    def key_id(self) -> bytes:
        """Key id of PK_D, 16 octets."""
        return self._key_id

    def decrypt_oaep(self, ciphertext: bytes, *, hash_name: OaepHash, label: bytes | None) -> bytes:
        """RSAES-OAEP decryption; ValueError when it fails."""
        if not isinstance(self._private_key, rsa.RSAPrivateKey):
            raise ValueError("not an RSA key")
        return self._private_key.decrypt(ciphertext, oaep(hash_name, label))

    def agree(self, peer: ec.EllipticCurvePublicKey) -> bytes:
        """ECDH; ValueError when the key is not EC."""
        if not isinstance(self._private_key, ec.EllipticCurvePrivateKey):
            raise ValueError("not an EC key")
        return self._private_key.exchange(ec.ECDH(), peer)
