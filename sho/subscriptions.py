"""Subscriptions: what is secret in them, how it rests in the database, where new ones come from."""

from __future__ import annotations

import csv
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from actor_runtime.errors import ActorError
from actor_runtime.sealing import SealingKey
from mcim.aka import EPS_AMF
from mcim.milenage import Milenage, opc_from_op

KEY_LENGTH: Final = 16  # octets of K and OPc with MILENAGE
IMSI_LENGTH: Final = 15  # digits of the ones generated here
NETWORK_CODE_LENGTH: Final = 5  # digits of MCC and MNC shown in a mask

_IMSI: Final = re.compile(r"(?:[2-79]|001)[0-9]{5,14}")  # ITU-T E.212; 001 is the test network
_IMSI_MAX: Final = 15


class SubscriptionError(ActorError):
    """A subscription that cannot be taken in. The text never repeats what was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Identity and keys of one subscription. Nothing of it is in the repr.

    Raises:
        SubscriptionError: no plausible IMSI, or K and OPc are not 16 octets, trivial, or equal.
    """

    imsi: str = field(repr=False)
    k: bytes = field(repr=False)
    opc: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _IMSI.fullmatch(self.imsi) or not 6 <= len(self.imsi) <= _IMSI_MAX:
            raise SubscriptionError("IMSI: 6 to 15 digits with a plausible country code are needed")
        for name, value in (("K", self.k), ("OPc", self.opc)):
            if len(value) != KEY_LENGTH or not value.strip(b"\x00") or not value.strip(b"\xff"):
                raise SubscriptionError(f"{name}: 16 octets that are not all zero or all one are needed")
        if self.k == self.opc:
            raise SubscriptionError("K and OPc are the same")

    @property
    def imsi_mask(self) -> str:
        """The IMSI as lists may show it: network code and last two digits."""
        return mask_imsi(self.imsi)

    def functions(self) -> Milenage:
        """The authentication functions of this subscription."""
        return Milenage(self.k, self.opc)


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
        index = self.index(credential.imsi)
        return SealedCredential(
            imsi_index=index,
            imsi_sealed=self._key.seal(credential.imsi.encode(), _place("imsi", index)),
            k_sealed=self._key.seal(credential.k, _place("k", index)),
            opc_sealed=self._key.seal(credential.opc, _place("opc", index)),
        )

    def open(self, sealed: SealedCredential) -> Credential:
        """Open one credential.

        Raises:
            UnsealError: another key, or values changed or moved between rows.
        """
        index = sealed.imsi_index
        return Credential(
            imsi=self._key.open(sealed.imsi_sealed, _place("imsi", index)).decode(),
            k=self._key.open(sealed.k_sealed, _place("k", index)),
            opc=self._key.open(sealed.opc_sealed, _place("opc", index)),
        )

    def seal_package(self, package: bytes, mcim_id: str) -> bytes:
        """Seal a package kept for identical retries. It is ciphertext already; this hides whose it is."""
        return self._key.seal(package, f"sho|package|{mcim_id}".encode())

    def open_package(self, sealed: bytes, mcim_id: str) -> bytes:
        """Open a package kept for retries.

        Raises:
            UnsealError: as `open`.
        """
        return self._key.open(sealed, f"sho|package|{mcim_id}".encode())


def generate(count: int, plmn: str) -> Iterator[Credential]:
    """New random credentials in the network `plmn` (MCC and MNC, 5 or 6 digits).

    Raises:
        SubscriptionError: `plmn` is not a network code.
    """
    if not re.fullmatch(r"[0-9]{5,6}", plmn):
        raise SubscriptionError("the network code is 5 or 6 digits, such as 00101")
    digits = IMSI_LENGTH - len(plmn)
    seen: set[str] = set()
    while len(seen) < count:
        imsi = plmn + f"{secrets.randbelow(10**digits):0{digits}}"
        if imsi not in seen:
            seen.add(imsi)
            yield Credential(imsi=imsi, k=secrets.token_bytes(KEY_LENGTH), opc=secrets.token_bytes(KEY_LENGTH))


def read_csv(lines: Iterable[str]) -> list[tuple[Credential, bytes]]:
    """Credentials with their AMF out of CSV with a header: `imsi`, `k`, and `opc` or `op`; `amf` is optional; hex.

    Raises:
        SubscriptionError: names line and column at fault, never the value.
    """
    reader = csv.DictReader(lines, skipinitialspace=True)
    names = {name.strip().lower() for name in reader.fieldnames or ()}
    if not {"imsi", "k"} <= names or not names & {"opc", "op"}:
        raise SubscriptionError("the first line must name the columns imsi, k, and opc or op")
    found = []
    for row in reader:
        values = {(name or "").strip().lower(): (value or "") for name, value in row.items() if isinstance(value, str)}
        try:
            found.append(_from_row(values))
        except SubscriptionError as exc:
            raise SubscriptionError(f"line {reader.line_num}: {exc}") from None
    return found


def _from_row(row: Mapping[str, str]) -> tuple[Credential, bytes]:
    k = _hex(row, "k")
    opc = _hex(row, "opc") if row.get("opc") else b""
    if not opc:
        op = _hex(row, "op")
        if len(k) != KEY_LENGTH or len(op) != KEY_LENGTH:
            raise SubscriptionError("k and op: 16 octets in hexadecimal are needed")
        opc = opc_from_op(k, op)
    amf = _hex(row, "amf") if row.get("amf") else EPS_AMF
    if len(amf) != 2:
        raise SubscriptionError("amf: 2 octets in hexadecimal are needed")
    return Credential(imsi=row.get("imsi", "").strip(), k=k, opc=opc), amf


def _hex(row: Mapping[str, str], name: str) -> bytes:
    try:
        return bytes.fromhex(row.get(name, ""))
    except ValueError:
        raise SubscriptionError(f"{name}: not hexadecimal") from None


def _place(column: str, index: bytes) -> bytes:
    return f"sho|subscription|{column}|".encode() + index
