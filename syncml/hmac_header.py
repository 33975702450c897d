"""The transport header `x-syncml-hmac` of auth-MAC (OMA-TS-DM_Security-V1_2 §5.3; `#rule` of RFC 2616 §2.1).

    x-syncml-hmac: algorithm=MD5, username="Bruce2", mac=6AZk96DG6F0jSIaEpbK4Ng==

We write this form. Peers write other ones, so the reader takes any order, case and white space, values with and without
quotes, and a MAC without padding or in hexadecimal. Each of them names the same sixteen octets.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

from syncml.errors import LocalProtocolError, MalformedHmac

HMAC_HEADER: Final = "x-syncml-hmac"
MAX_HMAC_HEADER: Final = 1024  # characters of the value
MAC_LENGTH: Final = 16  # octets of an MD5 digest

_PARAMETER: Final = re.compile(r'\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",]*))\s*(?:,|$)')
_EMPTY: Final = re.compile(r"\s*(?:,|$)")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HmacHeader:
    """A received header, read."""

    username: str
    mac: bytes = field(repr=False)  # raw octets, not base64


def build_hmac_header(username: str, mac: str) -> str:
    """The value of the header; `mac` is Base64 text.

    Raises:
        LocalProtocolError: a user name that a header line cannot carry, or that makes it too long.
    """
    if not username.isprintable():
        raise LocalProtocolError("a user name with control characters cannot travel in x-syncml-hmac")
    quoted = username.replace("\\", r"\\").replace('"', r"\"")
    value = f'algorithm=MD5, username="{quoted}", mac={mac}'
    if len(value) > MAX_HMAC_HEADER:
        raise LocalProtocolError(f"x-syncml-hmac has at most {MAX_HMAC_HEADER} characters")
    return value


def parse_hmac_header(value: str) -> HmacHeader:
    """Read a received value.

    Raises:
        MalformedHmac: too long, outside of the grammar, a parameter twice, no user name, no MAC of sixteen octets, or
            another algorithm than MD5.
    """
    if len(value) > MAX_HMAC_HEADER:
        raise MalformedHmac("x-syncml-hmac is too long")
    found: dict[str, str] = {}
    position = 0
    while position < len(value):
        if (empty := _EMPTY.match(value, position)) is not None:
            position = empty.end()
            continue
        parameter = _PARAMETER.match(value, position)
        if parameter is None or parameter[1].lower() in found:
            raise MalformedHmac("x-syncml-hmac is no list of parameters")
        quoted, plain = parameter[2], parameter[3]
        found[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain.strip()
        position = parameter.end()
    if found.get("algorithm", "MD5").strip().upper() != "MD5":
        raise MalformedHmac("x-syncml-hmac with another algorithm than MD5")
    if not found.get("username"):
        raise MalformedHmac("x-syncml-hmac without a user name")
    try:
        username = found["username"]
        username.encode()
    except UnicodeEncodeError as exc:
        raise MalformedHmac("a user name that is no text") from exc
    return HmacHeader(username=username, mac=_mac(found.get("mac", "")))


def _mac(text: str) -> bytes:
    if _HEX.fullmatch(text.strip()):
        return bytes.fromhex(text.strip())
    bare = text.strip().rstrip("=")
    try:
        mac = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedHmac("a MAC that is no Base64") from exc
    if _HEX.fullmatch(mac.decode("latin-1")):  # as in the example of the specification: Base64 of hexadecimal text
        return bytes.fromhex(mac.decode("latin-1"))
    if len(mac) != MAC_LENGTH:
        raise MalformedHmac("a MAC that is no MD5 digest")
    return mac
