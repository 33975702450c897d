"""A push carried by HTTP for testing: an HTTP response inside an HTTP request.

SCTS and Funambol POST `application/http` to `/wappush` with `X-Wap-Push-OTA-Version: 1.0`; the body is a complete HTTP
response whose content is the notification (after WAP-235-PushOTA §6, OTA-HTTP).
"""

from __future__ import annotations

import re
from typing import Final

from syncml.wap_push import (
    APPLICATION_SYNCML_DM_NAME,
    MAX_DATAGRAM,
    MAX_HEADERS,
    MalformedPush,
    WapPush,
    http_content_type,
    push_over_http,
)

NESTED: Final = "application/http"
"""Media type of a body that is an HTTP message itself."""
OTA_VERSION: Final = ("X-Wap-Push-OTA-Version", "1.0")

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] 2[0-9]{2}(?: [^\r\n]*)?")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([^\r\n]*)")


def build_nested(push: WapPush) -> bytes:
    """The nested response for a push."""
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {http_content_type(push)}", f"Content-Length: {len(push.body)}"]
    if push.application_id is not None:
        lines.append(f"X-Wap-Application-Id: {APPLICATION_SYNCML_DM_NAME}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + push.body


def parse_nested(octets: bytes) -> WapPush:
    """The push inside a nested response. Lines may end with a bare line feed; headers we do not know are passed over.

    Raises:
        MalformedPush: too long, no response of success, no end of the headers, no or a repeated Content-Type, a
            Content-Length that does not fit.
    """
    if len(octets) > MAX_HEADERS + MAX_DATAGRAM:
        raise MalformedPush(f"nested response of {len(octets)} octets")
    separator = re.compile(rb"\r?\n\r?\n").search(octets, 0, MAX_HEADERS)
    if separator is None:
        raise MalformedPush("nested response without an end of its headers")
    status, *lines = re.split(rb"\r?\n", octets[: separator.start()])
    if not _STATUS_LINE.fullmatch(status):
        raise MalformedPush("nested message is no response of success")
    headers: dict[bytes, str] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise MalformedPush("nested response with a line that is no header")
        name = header[1].lower()
        if name in headers and name in (b"content-type", b"content-length"):
            raise MalformedPush("nested response with a header twice")
        headers[name] = header[2].strip().decode("latin-1")
    if b"content-type" not in headers:
        raise MalformedPush("nested response without Content-Type")
    body = octets[separator.end() :]
    length = headers.get(b"content-length")
    if length is not None:
        if not re.fullmatch(r"[0-9]{1,6}", length) or int(length) > len(body):
            raise MalformedPush("nested response with a Content-Length that does not fit")
        body = body[: int(length)]
    return push_over_http(headers[b"content-type"], body, application_id=headers.get(b"x-wap-application-id"))
