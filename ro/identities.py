"""Provisional connectivity identities (PCID): what is secret in them, how they rest, what a supplier gets of them.

The CCIF of TR 33.812 §5.1.3.4 issues them. A PCID looks like an IMSI and authenticates like one; it is valid for a
time, and after that it may be given to another device with other keys (REQ-72).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from actor_runtime.errors import ActorError, UnsealError
from actor_runtime.http import to_base64
from actor_runtime.sealing import SealingKey
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import AlgorithmId

DIGITS: Final = 15  # of a PCID
FILE_FORMAT: Final = "m2m-pcid/1"

_PLMN: Final = re.compile(r"(?:[2-79][0-9]{2}|001)[0-9]{2,3}")  # ITU-T E.212; 001 is the test network


class Algorithm(StrEnum):
    """What a PCID authenticates with, by the names that TREs list; the constants are the defaults."""

    MILENAGE = "milenage"
    TUAK128 = "tuak128"
    TUAK256 = "tuak256"


_KEYS: Final = {
    Algorithm.MILENAGE: (AlgorithmId.MILENAGE, 16, 16),
    Algorithm.TUAK128: (AlgorithmId.TUAK, 16, 32),
    Algorithm.TUAK256: (AlgorithmId.TUAK, 32, 32),
}
"""Octets of K and of OPc or TOPc."""


class IdentityError(ActorError):
    """An identity cannot be issued. The text never repeats a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionalIdentity:
    """One PCID with its keys. Nothing of it is in the repr."""

    imsi: str = field(repr=False)
    keys: NetworkKeys = field(repr=False)

    @property
    def mask(self) -> str:
        """The PCID as lists may show it: network code and last two digits."""
        return self.imsi[:5] + "*" * (len(self.imsi) - 7) + self.imsi[-2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedIdentity:
    """A PCID as the database has it."""

    imsi_index: bytes
    imsi_sealed: bytes
    keys_sealed: bytes


class Vault:
    """Seals and opens identities. The index lets one be found without any PCID in the database."""

    def __init__(self, key: SealingKey) -> None:
        self._key = key
        self._index_key = key.derive(b"ro|pcid-index")

    def index(self, imsi: str) -> bytes:
        """Keyed index of a PCID, 32 octets."""
        return hmac.new(self._index_key, imsi.encode(), hashlib.sha256).digest()

    def seal(self, identity: ProvisionalIdentity, generation: int) -> SealedIdentity:
        """Seal one identity; the keys are bound to their generation."""
        index = self.index(identity.imsi)
        keys = {
            "algorithm": int(identity.keys.algorithm),
            "k": identity.keys.k.hex(),
            "opc": identity.keys.opc.hex(),
        }
        return SealedIdentity(
            imsi_index=index,
            imsi_sealed=self._key.seal(identity.imsi.encode(), b"ro|pcid|imsi|" + index),
            keys_sealed=self._key.seal(json.dumps(keys).encode(), _keys_place(index, generation)),
        )

    def open_imsi(self, sealed: SealedIdentity) -> str:
        """The PCID in clear, to give it out again.

        Raises:
            UnsealError: another key, or values changed or moved between rows.
        """
        return self._key.open(sealed.imsi_sealed, b"ro|pcid|imsi|" + sealed.imsi_index).decode()

    def open_keys(self, sealed: SealedIdentity, generation: int) -> NetworkKeys:
        """The keys of a generation.

        Raises:
            UnsealError: as `open_imsi`, or keys of another generation.
        """
        entry = json.loads(self._key.open(sealed.keys_sealed, _keys_place(sealed.imsi_index, generation)))
        try:
            return NetworkKeys(
                algorithm=AlgorithmId(entry["algorithm"]),
                k=bytes.fromhex(entry["k"]),
                opc=bytes.fromhex(entry["opc"]),
            )
        except (KeyError, TypeError, ValueError):
            raise UnsealError("sealed keys have an unknown format") from None


def new_identity(plmn: str, algorithm: Algorithm = Algorithm.MILENAGE) -> ProvisionalIdentity:
    """A random PCID in the network `plmn` (MCC and MNC of the RO, by which visited networks find it).

    Raises:
        IdentityError: `plmn` is not a network code.
    """
    if not _PLMN.fullmatch(plmn):
        raise IdentityError("the network code is 5 or 6 digits, such as 00101")
    digits = DIGITS - len(plmn)
    return ProvisionalIdentity(imsi=plmn + f"{secrets.randbelow(10**digits):0{digits}}", keys=new_keys(algorithm))


def new_keys(algorithm: Algorithm = Algorithm.MILENAGE) -> NetworkKeys:
    """Random keys."""
    number, k_length, opc_length = _KEYS[algorithm]
    return NetworkKeys(algorithm=number, k=secrets.token_bytes(k_length), opc=secrets.token_bytes(opc_length))


def supplier_document(issued: Iterable[tuple[ProvisionalIdentity, datetime]]) -> bytes:
    """What a supplier puts into its devices, as JSON; it holds K and OPc (TOPc with TUAK) and belongs into no log."""
    return json.dumps(
        {
            "format": FILE_FORMAT,
            "identities": [
                {
                    "pcid": identity.imsi,
                    "algorithm": identity.keys.algorithm.name.lower(),  # the length of K says which TUAK
                    "k": to_base64(identity.keys.k),
                    "opc": to_base64(identity.keys.opc),
                    "notAfter": f"{not_after:%Y-%m-%dT%H:%M:%SZ}",
                }
                for identity, not_after in issued
            ],
        },
        indent=2,
    ).encode()


def _keys_place(index: bytes, generation: int) -> bytes:
    return b"ro|pcid|keys|%d|" % generation + index
