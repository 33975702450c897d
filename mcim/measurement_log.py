"""Measurement log: what a platform loaded, and into which register it was extended (RFC 9334 §4.2, remote validation).

Registers work like the PCRs of a TPM (SHA-256 bank): they start as zeroes and `extend` is SHA-256(old | digest), so a
log can be replayed and compared with signed register values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mcim import tlv
from mcim.errors import StatementInvalid

PREFIX: Final = b"M2M-MLOG/1\0"
MAX_LOG: Final = 64 * 1024  # octets
MAX_ENTRIES: Final = 512
DIGEST: Final = 32  # octets, SHA-256
REGISTERS: Final = range(24)
_ENTRY: Final = 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """One component as it was loaded."""

    register: int
    name: str  # of the component, printable ASCII
    digest: bytes  # SHA-256 of it


def encode_log(measurements: Iterable[Measurement]) -> bytes:
    """The log as octets, in the order of loading."""
    entries = [(_ENTRY, bytes((each.register,)) + each.digest + each.name.encode("ascii")) for each in measurements]
    return PREFIX + tlv.encode(entries, repeatable=frozenset({_ENTRY}))


def decode_log(octets: bytes) -> tuple[Measurement, ...]:
    """Reverse of `encode_log`. Nothing in a log is true before its replay equals signed values.

    Raises:
        StatementInvalid: too large, another form, or an entry out of range.
    """
    if len(octets) > MAX_LOG or not octets.startswith(PREFIX):
        raise StatementInvalid("not a measurement log")
    try:
        entries = tlv.decode(octets[len(PREFIX) :], repeatable=frozenset({_ENTRY}))
    except tlv.TlvError as exc:
        raise StatementInvalid("the measurement log is broken") from exc
    if len(entries) > MAX_ENTRIES:
        raise StatementInvalid("too many measurements")
    return tuple(_measurement(kind, value) for kind, value in entries)


def _measurement(kind: int, value: bytes) -> Measurement:
    name = value[1 + DIGEST :]
    usable = kind == _ENTRY and name and name.isascii() and name.decode("ascii").isprintable()
    if not usable or value[0] not in REGISTERS:
        raise StatementInvalid("a measurement is broken")
    return Measurement(value[0], name.decode("ascii"), value[1 : 1 + DIGEST])


def replay(measurements: Iterable[Measurement]) -> dict[int, bytes]:
    """Values of the registers that the log extends, 32 octets each."""
    values: dict[int, bytes] = {}
    for each in measurements:
        before = values.get(each.register, bytes(DIGEST))
        values[each.register] = hashlib.sha256(before + each.digest).digest()
    return values


def composite_digest(values: Mapping[int, bytes]) -> bytes:
    """SHA-256 over the values in ascending order of their registers, as a TPM quotes them (TPM 2.0 part 2)."""
    return hashlib.sha256(b"".join(values[register] for register in sorted(values))).digest()
