"""Where pushes arrive: the WAP push port over UDP, and a listener for pushes over HTTP, which is for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from actor_runtime.errors import ConfigError
from actor_runtime.http import new_application
from actor_runtime.later import web
from dmclient.push_receiver import PushReceiver
from syncml.wap_push import MAX_HEADERS

MAX_PUSH: Final = 64 * 1024  # octets of an HTTP push

_log = structlog.get_logger(__name__)


class _Datagrams(asyncio.DatagramProtocol):
    """Gives datagrams to the receiver. Never sends."""

    def __init__(self, receiver: PushReceiver) -> None:
        self._receiver = receiver

    def datagram_received(self, data: bytes, addr: object) -> None:
        """One datagram is one message."""
        try:
            self._receiver.datagram(data)
        except Exception:  # the only one here: the loop must go on listening whatever is wrong with our disk
            _log.exception("push.failed")


@asynccontextmanager
async def udp_listener(receiver: PushReceiver, host: str, port: int) -> AsyncIterator[int]:
    """Listen for WAP pushes; gives the port (the system's choice when 0).

    Raises:
        ConfigError: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(receiver), local_addr=(host, port))
    except OSError as error:
        raise ConfigError(f"bootstrap.listen {host}:{port}: {error.strerror}") from error
    try:
        bound = int(transport.get_extra_info("sockname")[1])
        _log.info("push.listening", over="udp", host=host, port=bound)
        yield bound
    finally:
        transport.close()


def push_application(receiver: PushReceiver) -> web.Application:
    """Takes pushes by POST on any path. The answer is 202 whatever the verdict: a sender learns nothing from it."""
    app = new_application(max_body=MAX_PUSH)

    async def push(request: web.Request) -> web.Response:
        body = await request.read()
        content_type = request.headers.get("Content-Type", "")[: MAX_HEADERS + 1]
        receiver.http(content_type, body, request.headers.get("X-Wap-Application-Id"))
        return web.Response(status=202)

    app.router.add_post("/{path:.*}", push)
    return app


@asynccontextmanager
async def http_listener(receiver: PushReceiver, host: str, port: int) -> AsyncIterator[int]:
    """Listen for pushes over HTTP; gives the port (the system's choice when 0).

    Raises:
        ConfigError: the address cannot be bound.
    """
    runner = web.AppRunner(push_application(receiver), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(f"push.http {host}:{port}: {error.strerror}") from error
        bound = int(runner.addresses[0][1])
        _log.info("push.listening", over="http", host=host, port=bound)
        yield bound
    finally:
        await runner.cleanup()
