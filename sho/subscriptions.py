"""Subscriptions: what is secret in them, how it rests in the database, where random ones come from."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from actor_runtime.errors import ActorError
from actor_runtime.sealing import SealingKey
from mcim.errors import InvalidArgument
from mcim.network_keys import AuthenticationFunctions, NetworkKeys
from mcim.vocabulary import AlgorithmId

IMSI_LENGTH: Final = 15  # digits of the ones generated here
NETWORK_CODE_LENGTH: Final = 5  # digits of MCC and MNC shown in a mask
KEY_LENGTHS: Final = {"milenage": (16, 16), "tuak128": (16, 32), "tuak256": (32, 32)}
"""Octets of K and of OPc or TOPc, by the names that TREs list."""
ALGORITHMS: Final = {
    "milenage": AlgorithmId.MILENAGE,
    "tuak128": AlgorithmId.TUAK,
    "tuak256": AlgorithmId.TUAK,
}

_IMSI: Final = re.compile(r"(?:[2-79]|001)[0-9]{5,14}")  # ITU-T E.212; 001 is the test network
_IMSI_MAX: Final = 15


class SubscriptionError(ActorError):
    """A subscription that cannot be taken in. The text never repeats what was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Identity and keys of one subscription. Nothing of it is in the repr.

    Raises:
        SubscriptionError: no plausible IMSI, or keys and constants that do not fit the algorithm, are trivial, or
            equal.
    """

    imsi: str = field(repr=False)
    k: bytes = field(repr=False)
    opc: bytes = field(repr=False)  # TOPc with TUAK
    algorithm: AlgorithmId = AlgorithmId.MILENAGE
    constants: bytes = field(default=b"", repr=False)  # value of MIL_CONST or TUAK_PARAM; empty: the defaults

    def __post_init__(self) -> None:
        if not _IMSI.fullmatch(self.imsi) or not 6 <= len(self.imsi) <= _IMSI_MAX:
            raise SubscriptionError("IMSI: 6 to 15 digits with a plausible country code are needed")
        name = self.keys.label
        lengths = KEY_LENGTHS.get(name)
        if lengths is None:
            raise SubscriptionError("K: 16 octets are needed, or 32 with TUAK")
        for what, value, length in (("K", self.k, lengths[0]), ("OPc or TOPc", self.opc, lengths[1])):
            if len(value) != length or not value.strip(b"\x00") or not value.strip(b"\xff"):
                raise SubscriptionError(f"{what}: {length} octets that are not all zero or all one are needed")
        if self.k == self.opc:
            raise SubscriptionError("K and OPc are the same")
        try:
            self.functions()
        except InvalidArgument:
            raise SubscriptionError(f"the constants do not fit {name}") from None

    @property
    def imsi_mask(self) -> str:
        """The IMSI as lists may show it: network code and last two digits."""
        return mask_imsi(self.imsi)

    @property
    def keys(self) -> NetworkKeys:
        """What the subscriber authenticates with; its `label` is the algorithm's name as TREs list it."""
        return NetworkKeys(algorithm=self.algorithm, k=self.k, opc=self.opc, constants=self.constants)

    def functions(self) -> AuthenticationFunctions:
        """The authentication functions of this subscription."""
        return self.keys.functions()


def mask_imsi(imsi: str) -> str:
    """Network code and last two digits, e.g. 00101********89."""
    return imsi[:NETWORK_CODE_LENGTH] + "*" * (len(imsi) - NETWORK_CODE_LENGTH - 2) + imsi[-2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCredential:
    """A credential as the database has it. Each value is sealed to its column and its IMSI index."""

    imsi_index: bytes
    imsi_sealed: bytes
    k_sealed: bytes
    opc_sealed: bytes
    constants_sealed: bytes | None = None
    algorithm: str = "milenage"  # as TREs list it


class Vault:
    """Seals and opens credentials. The index lets an IMSI be found without any IMSI in the database."""

    def __init__(self, key: SealingKey) -> None:
        self._key = key
        self._index_key = key.derive(b"sho|imsi-index")

    def index(self, imsi: str) -> bytes:
        """Keyed index of an IMSI, 32 octets."""
        return hmac.new(self._index_key, imsi.encode(), hashlib.sha256).digest()

    def seal(self, credential: Credential) -> SealedCredential:
        """Seal one credential."""
        index, name = self.index(credential.imsi), credential.keys.label
        constants = self._key.seal(credential.constants, _place(f"constants|{name}", index))
        return SealedCredential(
            imsi_index=index,
            imsi_sealed=self._key.seal(credential.imsi.encode(), _place("imsi", index)),
            k_sealed=self._key.seal(credential.k, _place("k", index)),
            opc_sealed=self._key.seal(credential.opc, _place("opc", index)),
            constants_sealed=constants if credential.constants else None,
            algorithm=name,
        )

    def open(self, sealed: SealedCredential) -> Credential:
        """Open one credential.

        Raises:
            UnsealError: another key, or values changed or moved between rows.
        """
        index, name = sealed.imsi_index, sealed.algorithm
        constants = b""
        if sealed.constants_sealed is not None:
            constants = self._key.open(sealed.constants_sealed, _place(f"constants|{name}", index))
        return Credential(
            imsi=self._key.open(sealed.imsi_sealed, _place("imsi", index)).decode(),
            k=self._key.open(sealed.k_sealed, _place("k", index)),
            opc=self._key.open(sealed.opc_sealed, _place("opc", index)),
            algorithm=ALGORITHMS.get(name, AlgorithmId.CODE),
            constants=constants,
        )

    def seal_token(self, token: bytes, token_ref: str) -> bytes:
        """Seal a device token (REQ-62)."""
        return self._key.seal(token, f"sho|token|{token_ref}".encode())

    def open_token(self, sealed: bytes, token_ref: str) -> bytes:
        """Open a device token.

        Raises:
            UnsealError: as `open`.
        """
        return self._key.open(sealed, f"sho|token|{token_ref}".encode())

    def seal_package(self, package: bytes, mcim_id: str) -> bytes:
        """Seal a package kept for identical retries. It is ciphertext already; this hides whose it is."""
        return self._key.seal(package, f"sho|package|{mcim_id}".encode())

    def open_package(self, sealed: bytes, mcim_id: str) -> bytes:
        """Open a package kept for retries.

        Raises:
            UnsealError: as `open`.
        """
        return self._key.open(sealed, f"sho|package|{mcim_id}".encode())


def generate(count: int, plmn: str, algorithm: str = "milenage") -> Iterator[Credential]:
    """New random credentials in the network `plmn` (MCC and MNC, 5 or 6 digits).

    Raises:
        SubscriptionError: `plmn` is not a network code, or `algorithm` has no name that TREs list.
    """
    if not re.fullmatch(r"[0-9]{5,6}", plmn):
        raise SubscriptionError("the network code is 5 or 6 digits, such as 00101")
    if algorithm not in KEY_LENGTHS:
        raise SubscriptionError("the algorithm is one of " + ", ".join(KEY_LENGTHS))
    k_length, opc_length = KEY_LENGTHS[algorithm]
    digits = IMSI_LENGTH - len(plmn)
    seen: set[str] = set()
    while len(seen) < count:
        imsi = plmn + f"{secrets.randbelow(10**digits):0{digits}}"
        if imsi not in seen:
            seen.add(imsi)
            yield Credential(
                imsi=imsi,
                k=secrets.token_bytes(k_length),
                opc=secrets.token_bytes(opc_length),
                algorithm=ALGORITHMS[algorithm],
            )


def _place(column: str, index: bytes) -> bytes:
    return f"sho|subscription|{column}|".encode() + index
