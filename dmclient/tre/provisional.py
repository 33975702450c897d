"""The provisional connectivity identity (PCID) a TRE is made with: for the first attach, and as the way back.

The supplier gets it from a registration operator and puts it into the TRE at manufacture. It has its own keys and
sequence numbers, and an end: after that the identity may be another device's (REQ-72).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from mcim.aka import Accepted, MacFailure, SyncFailure, UsimState
from mcim.errors import InvalidArgument
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import AlgorithmId

FILE_FORMAT: Final = "m2m-pcid/1"
MAX_FILE: Final = 64 * 1024 * 1024  # octets
_NAMES: Final = {"milenage": AlgorithmId.MILENAGE, "tuak": AlgorithmId.TUAK}
_PCID: Final = re.compile(r"[0-9]{6,15}")
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


class PcidFileError(Exception):
    """Not a file of provisional identities; the text repeats nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisional:
    """A PCID with its secrets. Only the expiry may be shown."""

    imsi: str = field(repr=False)
    keys: NetworkKeys = field(repr=False)
    usim: UsimState = field(repr=False)
    expiry: datetime

    def authenticate(self, rand: bytes, autn: bytes) -> tuple[Provisional, Accepted | SyncFailure | MacFailure]:
        """Judge one challenge; what is returned first is stored before RES leaves."""
        usim, result = self.usim.verify(self.keys.functions(), rand=rand, autn=autn)
        return (self if usim == self.usim else replace(self, usim=usim)), result

    def dump(self) -> dict[str, Any]:
        """As JSON data; only a seal may take it."""
        return {
            "imsi": self.imsi,
            "algorithm": int(self.keys.algorithm),
            "k": base64.b64encode(self.keys.k).decode("ascii"),
            "opc": base64.b64encode(self.keys.opc).decode("ascii"),
            "seq": list(self.usim.seq),
            "expiry": int(self.expiry.timestamp()),
        }

    @classmethod
    def load(cls, entry: dict[str, Any]) -> Provisional:
        """Reverse of `dump`.

        Raises:
            KeyError, TypeError, ValueError: not what `dump` writes.
        """
        return cls(
            imsi=entry["imsi"],
            keys=NetworkKeys(
                algorithm=AlgorithmId(entry["algorithm"]),
                k=base64.b64decode(entry["k"], validate=True),
                opc=base64.b64decode(entry["opc"], validate=True),
            ),
            usim=UsimState(seq=tuple(entry["seq"])),
            expiry=datetime.fromtimestamp(entry["expiry"], UTC),
        )


def read_pcid(octets: bytes, number: int) -> Provisional:
    """One identity out of a file that the registration operator made for the supplier.

    Raises:
        PcidFileError: no such file, no identity of that number, or one that cannot be used.
    """
    try:
        document = json.loads(octets) if len(octets) <= MAX_FILE else None
        if document["format"] != FILE_FORMAT:  # type: ignore[index]  # whatever JSON it is
            raise PcidFileError("not a file of provisional identities")
        entries = document["identities"]  # type: ignore[index]  # as above
        if not 0 <= number < len(entries):
            raise PcidFileError(f"the file has {len(entries)} identities, counted from 0")
        return _identity(entries[number])
    except (KeyError, TypeError, ValueError, RecursionError, InvalidArgument):
        # Not the text of the cause: it could quote the file.
        raise PcidFileError("not a file of provisional identities, or one that is broken") from None


def _identity(entry: dict[str, Any]) -> Provisional:
    if not _PCID.fullmatch(entry["pcid"]):
        raise ValueError("pcid")
    keys = NetworkKeys(algorithm=_NAMES[entry["algorithm"]], k=_octets(entry["k"]), opc=_octets(entry["opc"]))
    keys.functions()  # lengths fit the algorithm, and there is code for it
    return Provisional(
        imsi=entry["pcid"],
        keys=keys,
        usim=UsimState.initial(0),
        expiry=datetime.strptime(entry["notAfter"], _TIME).replace(tzinfo=UTC),
    )


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("Base64") from error
