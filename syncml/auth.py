"""Credentials of OMA DM 1.2 (OMA-TS-DM_Security-V1_2 §5.3): formulas, and checking without telling time.

A nonce is raw octets here; Base64 is the matter of the codec. `H` is MD5 because the specification says so; what
protects a session today is TLS around it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from syncml.codes import AuthType
from syncml.errors import LocalProtocolError
from syncml.model import Chal, Cred


def _h(octets: bytes) -> bytes:
    return hashlib.md5(octets, usedforsecurity=False).digest()


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def inner_digest(name: str, secret: str) -> str:
    """`B64(H(name ":" secret))`, all that a verifier of md5 needs to keep."""
    return _b64(_h(f"{name}:{secret}".encode()))


def basic_data(name: str, secret: str) -> str:
    """`Cred/Data` of auth-basic."""
    return _b64(f"{name}:{secret}".encode())


def md5_data(name: str, secret: str, nonce: bytes) -> str:
    """`Cred/Data` of auth-md5."""
    return _b64(_h(inner_digest(name, secret).encode() + b":" + nonce))


def hmac_value(name: str, secret: str, nonce: bytes, body: bytes) -> str:
    """`mac` of the transport header `x-syncml-hmac`; despite its name it is nested MD5, not RFC 2104."""
    return _b64(_h(b":".join((inner_digest(name, secret).encode(), nonce, _b64(_h(body)).encode()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One direction of an account: who proves himself, how, and with which nonce.

    Raises:
        LocalProtocolError: auth-MAC, which covers a whole body and travels beside it.
    """

    type: AuthType
    name: str
    secret: str = field(repr=False)
    nonce: bytes = field(default=b"", repr=False)  # raw octets; unused by basic

    def __post_init__(self) -> None:
        if self.type is AuthType.MAC:
            raise LocalProtocolError("auth-MAC travels in a transport header and is no credential of the SyncHdr")

    def prove(self) -> Cred:
        """The credential for a SyncHdr."""
        if self.type is AuthType.BASIC:
            return Cred(type=self.type, data=basic_data(self.name, self.secret))
        return Cred(type=self.type, data=md5_data(self.name, self.secret, self.nonce))

    def accepts(self, cred: Cred | None) -> bool:
        """Whether a received credential is of this type and right; compared in constant time."""
        if cred is None or cred.type.lower() != self.type.lower():
            return False
        return hmac.compare_digest(self.prove().data.encode(), cred.data.strip().encode())

    def challenge(self) -> Chal:
        """The challenge that asks for this credential."""
        return Chal(type=self.type, next_nonce=None if self.type is AuthType.BASIC else self.nonce)
