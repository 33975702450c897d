"""Connectionless WSP push as a UDP datagram (WAP-230-WSP §8.2.4.1, §8.4; OMA-TS-DM_Notification-V1_2 §6).

`transaction id | 06 | length of the headers | content type | other headers | body`. A datagram carries what a short
message carries after its user data header. The same frame holds a bootstrap document and a package 0 notification.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

from syncml.codes import MediaType
from syncml.errors import LocalProtocolError, RemoteProtocolError

WAP_PUSH_PORT: Final = 2948  # connectionless, not secured (IANA wap-push)
APPLICATION_SYNCML_DM: Final = 0x07
"""X-Wap-Application-Id of the DM user agent (OMNA)."""
APPLICATION_SYNCML_DM_NAME: Final = "x-wap-application:syncml.dm"
"""The same as text."""
MAX_DATAGRAM: Final = 65_507  # octets, largest UDP payload over IPv4
MAX_HEADERS: Final = 4096  # octets; ours

_PUSH: Final = 0x06
_APPLICATION_ID: Final = 0x2F
_SEC: Final = 0x11
_MAC: Final = 0x12
_LENGTH_QUOTE: Final = 31
_MEDIA_CODES: Final[dict[str, int]] = {
    MediaType.CONNECTIVITY_WBXML: 0x36,
    MediaType.DM_WBXML: 0x42,
    MediaType.NOTIFICATION: 0x44,
}  # OMNA WSP content types
_MEDIA_TYPES: Final = {code: media_type for media_type, code in _MEDIA_CODES.items()}
_TOKEN: Final = re.compile(r"[!-~]+")


_Parameters = dict[str, int | str | None]


class MalformedPush(RemoteProtocolError):
    """A datagram that is no WSP push; nobody answers it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WapPush:
    """A push message. Headers other than those named here are passed over."""

    content_type: str  # e.g. application/vnd.wap.connectivity-wbxml, lower case; `wsp/0x..` for an unknown code
    body: bytes = field(repr=False)  # exactly the octets that a MAC covers
    transaction_id: int = 0  # 0 to 255
    sec: int | str | None = None  # parameter SEC, a number (CP) or a word in capitals (DM); may be one we do not know
    mac: str | None = None  # parameter MAC as received
    application_id: int | str | None = None  # X-Wap-Application-Id, by number or as text


def build_push(push: WapPush) -> bytes:
    """The datagram for a push.

    Raises:
        LocalProtocolError: a number out of range, text that cannot stand in a header, or more than a datagram holds.
    """
    if not 0 <= push.transaction_id <= 0xFF:
        raise LocalProtocolError("transaction id is one octet")
    headers = _content_type(push)
    if push.application_id is not None:
        headers += bytes((_APPLICATION_ID | 0x80,)) + _integer_or_text(push.application_id)
    datagram = bytes((push.transaction_id, _PUSH)) + _uintvar(len(headers)) + headers + push.body
    if len(headers) > MAX_HEADERS or len(datagram) > MAX_DATAGRAM:
        raise LocalProtocolError(f"push of {len(datagram)} octets")
    return datagram


def _content_type(push: WapPush) -> bytes:
    code = _MEDIA_CODES.get(push.content_type)
    media = _text(push.content_type) if code is None else bytes((code | 0x80,))
    parameters = b""
    if push.sec is not None:
        parameters += bytes((_SEC | 0x80,)) + _integer_or_text(push.sec)
    if push.mac is not None:
        parameters += bytes((_MAC | 0x80,)) + _text(push.mac)
    if not parameters:
        return media  # constrained form
    length = len(media) + len(parameters)
    prefix = bytes((length,)) if length < _LENGTH_QUOTE else bytes((_LENGTH_QUOTE,)) + _uintvar(length)
    return prefix + media + parameters


def _uintvar(value: int) -> bytes:
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(value & 0x7F | 0x80)
    return bytes(reversed(octets))


def _text(text: str) -> bytes:
    if not _TOKEN.fullmatch(text):
        raise LocalProtocolError("header text is not printable ASCII")
    return text.encode("ascii") + b"\0"


def _integer_or_text(value: int | str) -> bytes:
    if isinstance(value, str):
        return _text(value)
    if not 0 <= value <= 0x7F:
        raise LocalProtocolError("number does not fit a short integer")
    return bytes((value | 0x80,))


def parse_push(datagram: bytes) -> WapPush:
    """Read a received push.

    Tolerated: textual content types, with parameters as text too; parameters and headers we do not know; numbers in
    their long form; a quote in front of text.

    Raises:
        MalformedPush: truncated, not a push, a length that leaves its frame, SEC or MAC twice.
    """
    if len(datagram) > MAX_DATAGRAM:
        raise MalformedPush(f"datagram of {len(datagram)} octets")
    frame = _Cursor(datagram)
    transaction_id = frame.octet()
    if frame.octet() != _PUSH:
        raise MalformedPush("not a push PDU")
    headers_length = frame.uintvar()
    if headers_length > MAX_HEADERS:
        raise MalformedPush(f"headers of {headers_length} octets")
    headers = _Cursor(frame.take(headers_length))
    content_type, parameters = _read_content_type(headers)
    return _with_parameters(
        WapPush(
            transaction_id=transaction_id,
            content_type=content_type,
            application_id=_read_application_id(headers),
            body=frame.rest(),
        ),
        parameters,
    )


def push_over_http(content_type: str, body: bytes, *, application_id: str | None = None) -> WapPush:
    """What HTTP delivered, as the push it stands for: the media type and its parameters are text there.

    Raises:
        MalformedPush: too long, SEC or MAC twice.
    """
    if len(content_type) > MAX_HEADERS or len(body) > MAX_DATAGRAM:
        raise MalformedPush("push over HTTP is too long")
    media_type, parameters = _split_text(content_type)
    return _with_parameters(WapPush(content_type=media_type, body=body, application_id=application_id), parameters)


def http_content_type(push: WapPush) -> str:
    """Content-Type that carries media type, SEC and MAC of a push over HTTP."""
    parameters = (("SEC", push.sec), ("MAC", push.mac))
    return "; ".join([push.content_type, *(f"{name}={value}" for name, value in parameters if value is not None)])


def _with_parameters(push: WapPush, parameters: _Parameters) -> WapPush:
    sec, mac = parameters.get("sec"), parameters.get("mac")
    if isinstance(sec, str):
        sec = int(sec) if re.fullmatch(r"[0-9]{1,3}", sec) else sec.upper()
    return replace(push, sec=sec, mac=None if mac is None else str(mac))


class _Cursor:
    """A position in octets that never leaves them."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._octets)

    def fail(self, reason: str) -> NoReturn:
        raise MalformedPush(f"{reason} at octet {self._at}")

    def take(self, count: int) -> bytes:
        taken = self._octets[self._at : self._at + count]
        if len(taken) < count:
            self.fail("push ends too early")
        self._at += count
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._octets) - self._at)

    def octet(self) -> int:
        return self.take(1)[0]

    def peek(self) -> int:
        if self.done:
            self.fail("push ends too early")
        return self._octets[self._at]

    def uintvar(self) -> int:
        """At most five octets (§8.1.2); `take` judges the value."""
        value, start = 0, self._at
        while (octet := self.octet()) & 0x80:
            if self._at - start == 5:
                self.fail("number of more than five octets")
            value = value << 7 | octet & 0x7F
        return value << 7 | octet

    def text(self) -> str:
        """Text up to NUL; a leading quote, 7F or `"`, is taken off (§8.4.2.1)."""
        end = self._octets.find(b"\0", self._at)
        if end < 0:
            self.fail("text without an end")
        raw = self.take(end - self._at)
        self._at += 1
        return raw.removeprefix(b"\x7f").removeprefix(b'"').decode("latin-1")

    def long_integer(self) -> int:
        length = self.octet()
        if length > 8:
            self.fail("number of more than 64 bits")
        return int.from_bytes(self.take(length))

    def value(self) -> int | str | None:
        """A header or parameter value of any kind (§8.4.1.2); None for an opaque of more than a number."""
        first = self.peek()
        if first & 0x80:
            return self.octet() & 0x7F
        if first > _LENGTH_QUOTE:
            return self.text()
        if first == _LENGTH_QUOTE:
            self.octet()
            self.take(self.uintvar())
            return None
        if first <= 8:
            return self.long_integer()
        self.octet()
        self.take(first)
        return None


def _read_content_type(headers: _Cursor) -> tuple[str, _Parameters]:
    """Content-type-value (§8.4.2.24): the constrained form, or length, media type and parameters."""
    first = headers.peek()
    if first & 0x80:
        return _media_name(headers.octet() & 0x7F), {}
    if first > _LENGTH_QUOTE:
        return _split_text(headers.text())
    headers.octet()
    general = _Cursor(headers.take(headers.uintvar() if first == _LENGTH_QUOTE else first))
    first = general.peek()
    parameters: _Parameters = {}
    if first & 0x80:
        media_type = _media_name(general.octet() & 0x7F)
    elif first <= _LENGTH_QUOTE:
        media_type = _media_name(general.long_integer())
    else:
        media_type, parameters = _split_text(general.text())
    while not general.done:
        if general.peek() & 0x80:
            token = general.octet() & 0x7F
            name = {_SEC: "sec", _MAC: "mac"}.get(token, f"0x{token:02x}")
        elif general.peek() > _LENGTH_QUOTE:
            name = general.text().lower()
        else:
            general.fail("no parameter name")
        _put(parameters, name, general.value())
    return media_type, parameters


def _put(parameters: _Parameters, name: str, value: int | str | None) -> None:
    if name in ("sec", "mac") and name in parameters:
        raise MalformedPush(f"{name} twice")
    parameters[name] = value


def _media_name(code: int) -> str:
    return _MEDIA_TYPES.get(code, f"wsp/0x{code:02x}")


def _split_text(text: str) -> tuple[str, _Parameters]:
    """A media type as text, where some senders put parameters as in HTTP."""
    media_type, *rest = text.split(";")
    parameters: _Parameters = {}
    for each in rest:
        name, _, value = each.partition("=")
        _put(parameters, name.strip().lower(), value.strip().strip('"'))
    return media_type.strip().lower(), parameters


def _read_application_id(headers: _Cursor) -> int | str | None:
    """X-Wap-Application-Id out of the headers after the content type; those on other code pages end the search."""
    while not headers.done:
        first = headers.peek()
        if first & 0x80:
            is_application_id = headers.octet() & 0x7F == _APPLICATION_ID
        elif _LENGTH_QUOTE < first < 0x7F:
            is_application_id = headers.text().lower() == "x-wap-application-id"
        else:
            return None
        value = headers.value()
        if is_application_id:
            return value
    return None
