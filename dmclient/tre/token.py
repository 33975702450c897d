"""The device token of the supplier's label: kept as a salted hash, with few tries (REQ-61)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVerifier:
    """scrypt (RFC 7914; N = 2^14, r = 8, p = 1) of the token, 32 octets."""

    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    tries_left: int = TRIES

    @classmethod
    def of(cls, token: bytes, random: Callable[[int], bytes]) -> TokenVerifier:
        """Verifier of a new token."""
        salt = random(16)
        return cls(salt=salt, digest=_hash(token, salt))

    def restored(self) -> TokenVerifier:
        """All tries again, after a token that matched."""
        return replace(self, tries_left=TRIES)

    def matches(self, token: bytes) -> bool:
        """Constant-time comparison; the caller has counted the try already."""
        return hmac.compare_digest(_hash(token, self.salt), self.digest)


def _hash(token: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(token, salt=salt, n=2**14, r=8, p=1, dklen=32)
