"""Fetching a bootstrap document, for tests and for devices that cannot be pushed to. Its MAC is judged elsewhere."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

from actor_runtime.errors import ActorError
from actor_runtime.later import aiohttp
from syncml.wap_push import MalformedPush, WapPush, push_over_http

MAX_DOCUMENT: Final = 64 * 1024  # octets
MAX_URL: Final = 2048  # characters


class FetchFailed(ActorError):
    """There is no usable document. The text never holds the path of the URL, which is a secret as long as it works."""


async def fetch_bootstrap(
    url: str,
    *,
    ssl_context: ssl.SSLContext | None,
    server_name: str | None = None,
    allow_plain_http: bool = False,
    timeout_s: float = 30.0,
) -> WapPush:
    """The document at an address, with the SEC and MAC of its Content-Type. Redirects are not followed.

    Raises:
        FetchFailed: no such address, no TLS where it has to be, no document, or one that is too long.
    """
    secure = _is_secure(url, allow_plain_http)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.get(
                url,
                ssl=(ssl_context or True) if secure else True,
                server_hostname=server_name if secure else None,
                allow_redirects=False,
            ) as response,
        ):
            if response.status != 200:
                raise FetchFailed(f"no bootstrap document: HTTP status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_chunked(16384):
                body += chunk
                if len(body) > MAX_DOCUMENT:
                    raise FetchFailed("the bootstrap document is too long")
            return push_over_http(response.headers.get("Content-Type", ""), bytes(body))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise FetchFailed(f"the bootstrap document cannot be fetched: {type(error).__name__}") from error
    except MalformedPush as error:
        raise FetchFailed("what is there is no bootstrap document") from error


def _is_secure(url: str, allow_plain_http: bool) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or len(url) > MAX_URL or parts.scheme not in ("http", "https"):
        raise FetchFailed("--bootstrap-url is no address")
    if parts.scheme == "http" and not allow_plain_http:
        raise FetchFailed("the address of the bootstrap is not https", hint="session.allow_plain_http for tests")
    return parts.scheme == "https"
