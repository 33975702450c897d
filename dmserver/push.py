"""Pushes on their way out: a WAP push datagram over UDP, an HTTP push for testing, or a file."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from actor_runtime.errors import ActorError
from actor_runtime.later import aiohttp
from syncml.http_push import NESTED, OTA_VERSION, build_nested
from syncml.wap_push import APPLICATION_SYNCML_DM_NAME, WapPush, build_push, http_content_type

TIMEOUT_S: Final = 10.0  # of one push over HTTP
MAX_URL: Final = 2048  # characters
MAX_PUSH_ADDRESS: Final = 255  # characters


class PushFailed(ActorError):
    """The push could not be handed to the next hop. It may be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpDestination:
    """The WAP push port of a device, 2948 as a rule."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpDestination:
    """A listener for pushes over HTTP. `nested` sends a response inside the request, as SCTS does."""

    url: str
    nested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDestination:
    """A file that gets the WAP push octets, for its owner alone: a bootstrap holds credentials."""

    path: Path


Destination: TypeAlias = UdpDestination | HttpDestination | FileDestination


def destination_of(*, udp: str | None, http: str | None, file: Path | None, nested: bool = False) -> Destination:
    """The destination that command line options name.

    Raises:
        ActorError: none or several of them, or one that is no address.
    """
    if sum(each is not None for each in (udp, http, file)) != 1:
        raise ActorError("say where it goes", hint="one of --udp HOST:PORT, --http URL, --file PATH")
    if udp is not None:
        destination = _udp(udp)
        if destination is None:
            raise ActorError("--udp is no address", hint="HOST:PORT, such as 127.0.0.1:2948")
        return destination
    if http is not None:
        try:
            parts = urlsplit(http)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or len(http) > MAX_URL:
            raise ActorError("--http is no address", hint="a URL such as http://127.0.0.1:8080/wappush")
        return HttpDestination(url=http, nested=nested)
    return FileDestination(path=file or Path())


def push_address(text: str) -> UdpDestination:
    """The push address of a device as it is kept, udp:HOST:PORT.

    Raises:
        ActorError: it is none.
    """
    kind, _, place = text.partition(":")
    destination = _udp(place) if kind == "udp" and len(text) <= MAX_PUSH_ADDRESS else None
    if destination is None:
        raise ActorError("no push address", hint="udp:HOST:PORT, such as udp:127.0.0.1:2948")
    return destination


def _udp(text: str) -> UdpDestination | None:
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,253}", host) or not re.fullmatch(r"[0-9]{1,5}", port):
        return None
    return UdpDestination(host=host, port=int(port)) if 0 < int(port) < 65536 else None


async def send(push: WapPush, destination: Destination) -> int:
    """Send a push; returns the octets of what was sent. Nobody acknowledges a push.

    Raises:
        PushFailed: no such host, no route, a refusal of the HTTP listener, a file that cannot be written.
        LocalProtocolError: the push cannot be carried that way.
    """
    match destination:
        case UdpDestination():
            datagram = build_push(push)
            await asyncio.to_thread(_send_datagram, datagram, destination)
            return len(datagram)
        case HttpDestination():
            return await _post(push, destination)
        case FileDestination():
            datagram = build_push(push)
            _write(datagram, destination.path)
            return len(datagram)


def _send_datagram(datagram: bytes, destination: UdpDestination) -> None:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            destination.host, destination.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as sender:
            sender.sendto(datagram, place)
    except OSError as exc:
        raise PushFailed(f"the push could not be sent: {exc.strerror}") from exc


async def _post(push: WapPush, destination: HttpDestination) -> int:
    headers = {"Cache-Control": "no-store"}
    if destination.nested:
        body = build_nested(push)
        headers |= {"Content-Type": NESTED, OTA_VERSION[0]: OTA_VERSION[1]}
    else:
        body = push.body
        headers["Content-Type"] = http_content_type(push)
        if push.application_id is not None:
            headers["X-Wap-Application-Id"] = APPLICATION_SYNCML_DM_NAME
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(destination.url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            if not 200 <= response.status < 300:
                raise PushFailed(f"the push was refused: HTTP status {response.status}")
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise PushFailed(f"the push could not be sent: {type(exc).__name__}") from exc
    return len(body)


def _write(datagram: bytes, path: Path) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(datagram)
    except OSError as exc:
        raise PushFailed(f"{path}: {exc.strerror}") from exc
