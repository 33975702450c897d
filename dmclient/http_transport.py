"""SyncML over HTTP, the client's side: one POST per message (OMA-TS-SyncML_HTTPBinding-V1_2 §5).

Beside a message travels the header `x-syncml-hmac` where the account has HMAC, in both directions.

TLS with the configured roots authenticates the server before any octet of ours leaves (REQ-09). Redirects are not
followed: the next address of a session is what the server says in RespURI, inside the authenticated message.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from actor_runtime.later import aiohttp
from syncml.codec import Encoding, encoding_of
from syncml.codes import MediaType
from syncml.hmac_header import HMAC_HEADER

MAX_URL: Final = 2048  # characters
MAX_TYPE: Final = 128  # characters of a media type that is told
DATA_SYNC_TYPES: Final = {
    "application/vnd.syncml+xml": MediaType.DM_XML,
    "application/vnd.syncml+wbxml": MediaType.DM_WBXML,
}
"""Media types of Data Synchronization, which some servers put on DM messages."""


class TransportFailed(Exception):
    """No usable answer: unreachable, too slow, a status other than 200, or not SyncML. May pass; try again later."""


class ServerNotAuthenticated(Exception):
    """TLS could not authenticate the server, or the address has no TLS. Nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """Body of an answer, as received."""

    body: bytes = field(repr=False)
    encoding: Encoding  # its own, which may be another than was asked for
    mac: str | None = field(default=None, repr=False)  # value of `x-syncml-hmac`


class HttpTransport:
    """Posts messages of one session after the other. Use as an async context manager."""

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext,
        timeout_s: float,
        max_answer: int,
        server_name: str | None = None,
        allow_plain_http: bool = False,
    ) -> None:
        self._ssl_context = ssl_context
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._max_answer = max_answer  # octets
        self._server_name = server_name  # name the certificate must have, when it is not the host of the address
        self._allow_plain_http = allow_plain_http  # for interoperability tests with servers that have no TLS
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpTransport:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, body: bytes, encoding: Encoding, mac: str | None = None) -> HttpAnswer:
        """Send a message, with `mac` as `x-syncml-hmac` beside it, and return the server's next one.

        Raises:
            ServerNotAuthenticated: TLS refused the server, or `url` is not https.
            TransportFailed: everything else that is no SyncML answer.
        """
        if self._session is None:
            raise RuntimeError("use HttpTransport as a context manager")
        secure = self._require_acceptable(url)
        headers = {
            "Content-Type": encoding.media_type,
            "Accept": encoding.media_type,
            "Cache-Control": "no-store",
            "User-Agent": "m2m-dm",
        }
        if mac is not None:
            headers[HMAC_HEADER] = mac
        try:
            async with self._session.post(
                url,
                data=body,
                headers=headers,
                ssl=self._ssl_context if secure else True,
                server_hostname=self._server_name if secure else None,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise TransportFailed(f"HTTP status {response.status}")
                bare = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
                received = encoding_of(DATA_SYNC_TYPES.get(bare, bare))
                if received is None:
                    raise TransportFailed(f"the answer is not SyncML but {bare[:MAX_TYPE] or 'of no type'}")
                answered = response.headers.getall(HMAC_HEADER, [])
                return HttpAnswer(
                    body=await self._read(response),
                    encoding=received,
                    mac=", ".join(answered) if answered else None,  # a list may stand on several lines (RFC 2616 §4.2)
                )
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise ServerNotAuthenticated(_told(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportFailed(f"{type(error).__name__}: {_told(error)}") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        octets = bytearray()
        async for chunk in response.content.iter_chunked(65536):
            octets += chunk
            if len(octets) > self._max_answer:
                raise TransportFailed("the answer is too long")
        return bytes(octets)

    def _require_acceptable(self, url: str) -> bool:
        """Whether the address has TLS; refuses what we do not go to at all."""
        if len(url) > MAX_URL:
            raise TransportFailed("address too long")
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise TransportFailed("malformed address") from error
        if parts.scheme.lower() == "https" and parts.hostname:
            return True
        if parts.scheme.lower() == "http" and parts.hostname and self._allow_plain_http:
            return False
        raise ServerNotAuthenticated("the server's address is not https")


def _told(error: Exception) -> str:
    """What a person can use of it: aiohttp's own text has an object and its address in memory."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{error.host}:{error.port}: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        text = cause.strerror or str(cause)
        if isinstance(cause, ConnectionError) and cause.errno is not None:
            text = os.strerror(cause.errno)  # asyncio's own has the address once more
        return f"{error.host}:{error.port}: {text}"
    return str(error) or "no answer in time" if isinstance(error, TimeoutError) else str(error)
