"""Name of a public key: the first 16 octets of SHA-256 over its DER SubjectPublicKeyInfo."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEY_ID_LENGTH = 16  # octets


def key_id_of(public_key: PublicKeyTypes) -> bytes:
    """Key id (kid) of a public key, 16 octets."""
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()[:KEY_ID_LENGTH]
