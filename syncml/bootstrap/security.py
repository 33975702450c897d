"""Protection of a CP bootstrap: HMAC-SHA1 under a shared secret (OMA-WAP-TS-ProvBoot-V1_1 §5.2; REQ-08).

SHA-1 is what the specification fixes; as a MAC it is not affected by the collisions known. The MAC covers the exact
octets after the WSP headers and travels as 40 hexadecimal digits.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from syncml.errors import LocalProtocolError

MAC_DIGITS: Final = 40
_IMSI: Final = re.compile(r"[0-9]{6,15}")
_PIN: Final = re.compile(r"[!-~]{1,128}")
_MAC: Final = re.compile(rb"[0-9A-F]{40}")


class Sec(IntEnum):
    """Value of the content type parameter SEC: what the MAC key is made of."""

    NETWPIN = 0  # IMSI
    USERPIN = 1  # PIN
    USERNETWPIN = 2  # IMSI, then PIN
    USERPINMAC = 3  # PIN, MAC typed in by the user: known, not supported, since an M2M device has no user


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSecrets:
    """What sender and device share."""

    imsi: str | None = field(default=None, repr=False)  # 6 to 15 digits
    pin: str | None = field(default=None, repr=False)  # printable ASCII; a human can be asked for digits only

    def key(self, sec: Sec) -> bytes | None:
        """MAC key of that kind, None when what it needs is not there.

        Raises:
            LocalProtocolError: an IMSI or PIN outside its alphabet.
        """
        imsi = None if self.imsi is None else imsi_semi_octets(self.imsi)
        pin = None if self.pin is None else _pin_octets(self.pin)
        if sec is Sec.NETWPIN:
            return imsi
        if sec is Sec.USERPIN:
            return pin
        if sec is Sec.USERNETWPIN and imsi is not None and pin is not None:
            return imsi + pin
        return None


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
    """MAC over the octets of a document, as 40 upper-case hexadecimal digits."""
    return hmac.digest(key, body, "sha1").hex().upper()


def verify_mac(key: bytes, body: bytes, mac: str) -> bool:
    """Whether a received MAC is right, in constant time; lower-case digits are tolerated."""
    received = mac.upper().encode(errors="replace")
    expected = compute_mac(key, body).encode()
    return _MAC.fullmatch(received) is not None and hmac.compare_digest(received, expected)
