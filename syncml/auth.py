"""Credentials of OMA DM 1.2 (OMA-TS-DM_Security-V1_2 §5.3): formulas, and checking without telling time.

A nonce is raw octets here; Base64 is the matter of the codec. `H` is MD5 because the specification says so; what
protects a session today is TLS around it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from syncml.codes import AuthType
from syncml.errors import LocalProtocolError, MalformedHmac
from syncml.hmac_header import build_hmac_header, parse_hmac_header
from syncml.model import Chal, Cred
from syncml.nonces import nonce_forms

STRENGTH: Final = {AuthType.BASIC: 0, AuthType.MD5: 1, AuthType.MAC: 2}
"""Order of the types: the password itself, a digest of it, a digest that covers the message too."""

SPECIAL_NONCES: Final = (bytes(4), b"0x00000000")
"""Forms of the nonce 0x00000000 of a resynchronisation (OMA-TS-DM_Security-V1_2 §5.3): most devices take four zero
octets, intel libdmclient the ten characters."""


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
    """One direction of an account: who proves himself, how, and with which nonce."""

    type: AuthType
    name: str
    secret: str = field(repr=False)
    nonce: bytes = field(default=b"", repr=False)  # raw octets; unused by basic

    def prove(self) -> Cred:
        """The credential for a SyncHdr.

        Raises:
            LocalProtocolError: auth-MAC, which covers a whole body and travels beside it.
        """
        if self.type is AuthType.MAC:
            raise LocalProtocolError("auth-MAC travels in a transport header and is no credential of the SyncHdr")
        return Cred(type=self.type, data=self._data(self.nonce))

    def prove_body(self, body: bytes) -> str:
        """Value of the transport header `x-syncml-hmac` that covers `body`, the octets as they travel."""
        return build_hmac_header(self.name, hmac_value(self.name, self.secret, self.nonce, body))

    def accepts(self, cred: Cred | None) -> bool:
        """Whether a received credential is of this type and right.

        Every form of the nonce is compared, each in constant time: all are made from the one fresh nonce, so none of
        them is easier to guess or to replay. The name is that of the account; LocName may be absent.
        """
        if cred is None or self.type is AuthType.MAC or cred.type.strip().lower() != self.type.lower():
            return False
        shown = cred.data.strip().encode()
        forms = (b"",) if self.type is AuthType.BASIC else nonce_forms(self.nonce)
        return True in [hmac.compare_digest(self._data(form).encode(), shown) for form in forms]

    def accepts_body(self, header: str | None, body: bytes) -> bool:
        """Whether a received `x-syncml-hmac` names this account and its MAC is that of `body`, as received."""
        if header is None or self.type is not AuthType.MAC:
            return False
        try:
            shown = parse_hmac_header(header)
        except MalformedHmac:
            return False
        macs = [base64.b64decode(hmac_value(self.name, self.secret, form, body)) for form in nonce_forms(self.nonce)]
        right = True in [hmac.compare_digest(mac, shown.mac) for mac in macs]
        return hmac.compare_digest(shown.username.encode(), self.name.encode()) and right

    def challenge(self) -> Chal:
        """The challenge that asks for this credential."""
        return Chal(type=self.type, next_nonce=None if self.type is AuthType.BASIC else self.nonce)

    def _data(self, nonce: bytes) -> str:
        if self.type is AuthType.BASIC:
            return basic_data(self.name, self.secret)
        return md5_data(self.name, self.secret, nonce)


def type_named(name: str) -> AuthType | None:
    """The type that a challenge names, case ignored; None when it is none of ours."""
    return next((known for known in AuthType if known.lower() == name.strip().lower()), None)
