"""Protection of a bootstrap: HMAC-SHA1 under a shared secret, in both profiles.

CP profile: OMA-WAP-TS-ProvBoot-V1_1 §5.2 (REQ-08); DM profile: OMA-TS-DM_Security-V1_2 §5.7. SHA-1 is what the
specifications fix; as a MAC it is not affected by the collisions known. The MAC covers the exact octets of the document
and travels as 40 hexadecimal digits.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from syncml.errors import LocalProtocolError

MAC_DIGITS: Final = 40
MAX_TYPED_PIN: Final = 20  # digits: a MAC of as many octets follows them in what a user types
_IMSI: Final = re.compile(r"[0-9]{6,15}")
_PIN: Final = re.compile(r"[!-~]{1,128}")
_MAC: Final = re.compile(rb"[0-9A-F]{40}")
_TYPED: Final = re.compile(rf"(?:[0-9]{{2}}){{1,{MAX_TYPED_PIN}}}")


class Sec(IntEnum):
    """Value of the content type parameter SEC in the CP profile: what the MAC key is made of."""

    NETWPIN = 0  # IMSI
    USERPIN = 1  # PIN
    USERNETWPIN = 2  # IMSI, then PIN
    USERPINMAC = 3  # PIN; the MAC is not in the message, the user types PIN and MAC as one number


class DmSec(StrEnum):
    """Value of the content type parameter SEC in the DM profile."""

    NETWORKID = "NETWORKID"  # secret of the network; for 3GPP the IMSI
    USERPIN = "USERPIN"
    USERPIN_NETWORKID = "USERPIN_NETWORKID"  # PIN ":" network secret


_PROOF: Final[dict[Sec | DmSec, frozenset[str]]] = {
    Sec.NETWPIN: frozenset({"network"}),
    Sec.USERPIN: frozenset({"typed", "pin"}),
    Sec.USERNETWPIN: frozenset({"network", "typed", "pin"}),
    Sec.USERPINMAC: frozenset({"typed"}),  # a MAC of a few digits
    DmSec.NETWORKID: frozenset({"network"}),
    DmSec.USERPIN: frozenset({"typed", "pin"}),
    DmSec.USERPIN_NETWORKID: frozenset({"network", "typed", "pin"}),
}


def sec_of(value: int | str | None) -> Sec | DmSec | None:
    """The kind that a received SEC names, None for one we do not know."""
    if isinstance(value, int):
        return Sec(value) if value in tuple(Sec) else None
    return DmSec(value) if value in tuple(DmSec) else None


def at_least(kind: Sec | DmSec, other: Sec | DmSec) -> bool:
    """Whether `kind` proves all that `other` proves: what may replace an account has to."""
    return _PROOF[other] <= _PROOF[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSecrets:
    """What sender and device share."""

    imsi: str | None = field(default=None, repr=False)  # 6 to 15 digits
    pin: str | None = field(default=None, repr=False)  # printable ASCII; a human can be asked for digits only
    typed: str | None = field(default=None, repr=False)  # the number for USERPINMAC: PIN, then as many digits of MAC
    imsi_text: bool = False  # receiver of CP: take a key made of the IMSI as text too, as some senders make it

    def key(self, sec: Sec | DmSec, *, as_text: bool = False) -> bytes | None:
        """MAC key of that kind, None when what it needs is not there. `as_text` wants the IMSI as ASCII digits.

        The specification of the DM profile is silent on the octets of a network secret that is an IMSI: alone it is
        taken as the SIM holds it, as in the CP profile; beside a PIN it is text, as the `:` suggests.

        Raises:
            LocalProtocolError: an IMSI or PIN outside its alphabet.
        """
        imsi = None if self.imsi is None else imsi_semi_octets(self.imsi)
        text = None if self.imsi is None else self.imsi.encode("ascii")
        pin = None if self.pin is None else _pin_octets(self.pin)
        network = text if as_text else imsi
        if sec in (Sec.NETWPIN, DmSec.NETWORKID):
            return network
        if sec in (Sec.USERPIN, Sec.USERPINMAC, DmSec.USERPIN):
            return pin
        if network is None or text is None or pin is None:
            return None
        return network + pin if sec is Sec.USERNETWPIN else pin + b":" + text

    def keys(self, sec: Sec | DmSec) -> tuple[bytes, ...]:
        """Keys a receiver tries for that kind, the usual one first; none when what it needs is not there."""
        forms = (False, True) if self.imsi_text or isinstance(sec, DmSec) else (False,)
        return tuple(dict.fromkeys(key for form in forms if (key := self.key(sec, as_text=form)) is not None))

    def can_verify(self, sec: Sec | DmSec) -> bool:
        """Whether there is what a document of that kind is verified with."""
        return self.typed is not None if sec is Sec.USERPINMAC else bool(self.keys(sec))

    def verify(self, sec: Sec | DmSec, body: bytes, mac: str | None) -> bool:
        """Whether a document is authentic; in constant time."""
        if sec is Sec.USERPINMAC:
            return self.typed is not None and verify_typed(self.typed, body)
        if mac is None:
            return False
        # A list and no generator: every key is tried, so the time does not tell which one fitted.
        fits = [verify_mac(key, body, mac) for key in self.keys(sec)]
        return any(fits)


def imsi_semi_octets(imsi: str) -> bytes:
    """IMSI as a SIM holds it, without the length octet (TS 31.102 §4.2.2).

    Two digits per octet, the first one in the low half; in front 9 for an odd number of digits or 1 for an even one,
    and F at the end to fill up.

    Raises:
        LocalProtocolError: not 6 to 15 digits.
    """
    if not _IMSI.fullmatch(imsi):
        raise LocalProtocolError("IMSI is not 6 to 15 digits")
    nibbles = f"9{imsi}" if len(imsi) % 2 else f"1{imsi}F"
    return bytes(int(nibbles[at + 1] + nibbles[at], 16) for at in range(0, len(nibbles), 2))


def _pin_octets(pin: str) -> bytes:
    if not _PIN.fullmatch(pin):
        raise LocalProtocolError("PIN is not 1 to 128 printable ASCII characters")
    return pin.encode("ascii")


def compute_mac(key: bytes, body: bytes) -> str:
    """MAC over the octets of a document, as 40 upper-case hexadecimal digits: some phones compare case by case."""
    return hmac.digest(key, body, "sha1").hex().upper()


def verify_mac(key: bytes, body: bytes, mac: str) -> bool:
    """Whether a received MAC is right, in constant time; lower-case digits are tolerated."""
    received = mac.upper().encode(errors="replace")
    expected = compute_mac(key, body).encode()
    return _MAC.fullmatch(received) is not None and hmac.compare_digest(received, expected)


def typed_number(pin: str, body: bytes) -> str:
    """What the user has to type for USERPINMAC: the PIN and as many digits, each an octet of the MAC modulo 10.

    Raises:
        LocalProtocolError: the PIN is not 1 to 20 digits.
    """
    if not re.fullmatch(rf"[0-9]{{1,{MAX_TYPED_PIN}}}", pin):
        raise LocalProtocolError(f"PIN to be typed is not 1 to {MAX_TYPED_PIN} digits")
    mac = hmac.digest(pin.encode("ascii"), body, "sha1")
    return pin + "".join(str(octet % 10) for octet in mac[: len(pin)])


def verify_typed(typed: str, body: bytes) -> bool:
    """Whether a number that a user typed goes with the document; in constant time."""
    if not _TYPED.fullmatch(typed):
        return False
    return hmac.compare_digest(typed_number(typed[: len(typed) // 2], body), typed)
