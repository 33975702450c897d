"""What a CA has issued and revoked, as JSON lines that only grow; and the numbers of its revocation lists."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from m2m_ca.files import CaError, append_line, write_public
from mcim.authority import Revocation
from mcim.key_id import key_id_of

_RESTORE: Final = "restore it: revocation lists are made from it"


class RevocationReason(StrEnum):
    """Reasons of RFC 5280 §5.3.1 for a certificate that is gone for good; nothing here is only on hold."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One certificate. Members that lines of older versions lack are empty."""

    serial: int
    kind: str
    subject: str
    not_after: str
    ca: str = ""
    key_id: str = ""  # hex
    public_key: str = ""  # of a TRE: Base64 of the SubjectPublicKeyInfo, to judge requests for new keys by
    tre_id: str = ""  # platform and attest
    m2me_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """One revocation."""

    ca: str
    serial: int
    reason: RevocationReason
    at: datetime  # UTC

    def entry(self) -> Revocation:
        """As the revocation list has it."""
        return Revocation(serial=self.serial, at=self.at, reason=x509.ReasonFlags(self.reason.value))


class Records:
    """The records of one CA directory. Who changes them holds `files.locked`."""

    def __init__(self, path: Path) -> None:
        self._issued, self._revoked = path / "issued.jsonl", path / "revoked.jsonl"
        self._numbers = path / "ca" / "crl-numbers.json"

    def note(self, certificate: x509.Certificate, kind: str, ca: str, *, tre_id: str = "", m2me_id: str = "") -> None:
        """Note a certificate, so that it can be found when it is to be revoked."""
        line = {
            "serial": f"{certificate.serial_number:x}",
            "kind": kind,
            "subject": certificate.subject.rfc4514_string(),
            "notAfter": certificate.not_valid_after_utc.isoformat(),
            "ca": ca,
            "keyId": key_id_of(certificate.public_key()).hex(),
        }
        if tre_id:
            spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            line |= {"treId": tre_id, "m2meId": m2me_id, "publicKey": base64.b64encode(spki).decode()}
        append_line(self._issued, json.dumps(line))

    def issued(self) -> list[Issued]:
        """All certificates noted, oldest first."""
        return [
            Issued(
                serial=int(str(line["serial"]), 16),
                kind=str(line["kind"]),
                subject=str(line["subject"]),
                not_after=str(line["notAfter"]),
                ca=str(line.get("ca", "")),
                key_id=str(line.get("keyId", "")),
                public_key=str(line.get("publicKey", "")),
                tre_id=str(line.get("treId", "")),
                m2me_id=str(line.get("m2meId", "")),
            )
            for line in _lines(self._issued)
        ]

    def revoked(self, ca: str | None = None) -> list[Revoked]:
        """All revocations, or those of one CA, oldest first."""
        try:
            found = [
                Revoked(
                    ca=str(line["ca"]),
                    serial=int(str(line["serial"]), 16),
                    reason=RevocationReason(line["reason"]),
                    at=datetime.fromisoformat(str(line["at"])).astimezone(UTC),
                )
                for line in _lines(self._revoked)
            ]
        except (ValueError, KeyError) as exc:
            raise CaError(f"{self._revoked}: a line is broken", hint=_RESTORE) from exc
        return [each for each in found if ca in (None, each.ca)]

    def revoke(self, ca: str, serial: int, reason: RevocationReason, now: datetime) -> bool:
        """Note a revocation, for good; False when it is noted already, with whatever reason."""
        if any(each.serial == serial for each in self.revoked(ca)):
            return False
        line = {"ca": ca, "serial": f"{serial:x}", "reason": reason.value, "at": now.astimezone(UTC).isoformat()}
        append_line(self._revoked, json.dumps(line))
        return True

    def next_number(self, ca: str, at_least: int) -> int:
        """Number of the CA's next list: never one used before, whatever happened to the list itself."""
        numbers: dict[str, int] = {}
        if self._numbers.exists():
            try:
                numbers = {str(name): int(number) for name, number in json.loads(self._numbers.read_text()).items()}
            except (ValueError, AttributeError, TypeError) as exc:
                raise CaError(
                    f"{self._numbers} is broken", hint="restore it: numbers of lists must not repeat"
                ) from exc
        number = max(numbers.get(ca, 0) + 1, at_least)
        write_public(self._numbers, json.dumps(numbers | {ca: number}).encode())
        return number


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a record file. A line that a crash cut short was never acknowledged and is passed over.

    Raises:
        CaError: a whole line is broken; a revocation must not vanish without a word.
    """
    octets = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(octets.splitlines(), start=1):
        if not line.endswith(b"}"):
            continue
        try:
            value = json.loads(line)
            int(str(value["serial"]), 16)
        except (ValueError, TypeError, KeyError) as exc:
            raise CaError(f"{path}: line {number} is broken", hint=_RESTORE) from exc
        yield value
