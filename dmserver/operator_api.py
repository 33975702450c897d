"""The operator API: devices and their command queues over HTTP and JSON, for whoever holds the token."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog

from actor_runtime.errors import ConfigError
from actor_runtime.http import Handler, ProblemError, new_application
from actor_runtime.later import web
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from dmserver import operator_service as service
from dmserver.operator_commands import MAX_VALUE, CommandRejected, parse_request
from dmserver.operator_outcomes import show_request
from dmserver.store.accounts import list_devices

MAX_BODY: Final = 4 * MAX_VALUE  # octets of a request
MAX_KEY: Final = 128  # characters of an Idempotency-Key
MIN_TOKEN: Final = 16  # characters
PAGE: Final = 200  # devices in one answer

_STATUS: Final = {
    service.UNKNOWN_DEVICE: 404,
    service.UNKNOWN_REQUEST: 404,
    service.NOT_CANCELLABLE: 409,
    "queue-full": 429,
    "value-too-large": 413,
}

_log = structlog.get_logger(__name__)


class OperatorToken:
    """The bearer token, kept and compared as a digest: in the same time whatever is shown."""

    def __init__(self, token: str) -> None:
        self._digest = hashlib.sha256(token.encode()).digest()

    def __repr__(self) -> str:
        return "OperatorToken(…)"

    @classmethod
    def load(cls, path: Path) -> OperatorToken:
        """Read it from a file.

        Raises:
            ConfigError
        """
        try:
            token = path.read_text(encoding="ascii").strip()
        except OSError as exc:
            raise ConfigError(f"operator token {path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise ConfigError(f"operator token {path}: not ASCII") from exc
        if len(token) < MIN_TOKEN or not token.isprintable() or " " in token:
            raise ConfigError(
                f"operator token {path}: no usable token", hint=f"{MIN_TOKEN} or more printable ASCII characters"
            )
        return cls(token)

    def accepts(self, authorization: str) -> bool:
        """Whether a header `Authorization` shows it."""
        scheme, _, shown = authorization.partition(" ")
        digest = hashlib.sha256(shown.strip().encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(digest, self._digest) and scheme.lower() == "bearer"


def operator_application(
    *, store: Store, seal_key: SealingKey, token: OperatorToken, now: Callable[[], datetime]
) -> web.Application:
    """The application operators' programs talk to."""
    app = new_application(max_body=MAX_BODY)
    app.middlewares.append(_only_with(token))

    async def devices(request: web.Request) -> web.Response:
        after = request.query.get("after", "")[:255]
        rows = await store.read(lambda connection: list_devices(connection, after=after, limit=PAGE))
        following = {"next": rows[-1].device_id} if len(rows) == PAGE else {}
        return web.json_response({"devices": [service.show_device(row) for row in rows]} | following)

    async def device(request: web.Request) -> web.Response:
        row = await _read(store, lambda connection: service.device_of(connection, request.match_info["device"]))
        return web.json_response(service.show_device(row))

    async def queue(request: web.Request) -> web.Response:
        device_id, idempotency_key = request.match_info["device"], request.headers.get("Idempotency-Key", "")
        if len(idempotency_key) > MAX_KEY:
            raise ProblemError(400, "malformed-request", "the idempotency key is too long")
        document = await _json(request)
        try:
            order = parse_request(document)
            made, new = await store.write(
                lambda connection: service.queue_request(
                    connection, seal_key, device_id, order, now(), idempotency_key=idempotency_key or None
                )
            )
        except CommandRejected as exc:
            _refuse(exc)
        _log.info("operator.queued", device=device_id, request=made.request_id, new=new)
        return web.json_response(show_request(made), status=201 if new else 200)

    async def requests(request: web.Request) -> web.Response:
        rows = await _read(store, lambda connection: service.requests_of(connection, request.match_info["device"]))
        return web.json_response({"requests": rows})

    async def one(request: web.Request) -> web.Response:
        device_id, request_id = request.match_info["device"], request.match_info["request"]
        found = await _read(store, lambda connection: service.request_of(connection, seal_key, device_id, request_id))
        return web.json_response(show_request(found))

    async def cancel(request: web.Request) -> web.Response:
        device_id, request_id = request.match_info["device"], request.match_info["request"]
        try:
            state = await store.write(lambda connection: service.take_back(connection, device_id, request_id))
        except CommandRejected as exc:
            _refuse(exc)
        _log.info("operator.cancelled", device=device_id, request=request_id)
        return web.json_response({"id": request_id, "state": state.value})

    commands = "/v1/devices/{device}/commands"
    app.router.add_get("/v1/devices", devices)
    app.router.add_get("/v1/devices/{device}", device)
    app.router.add_post(commands, queue)
    app.router.add_get(commands, requests)
    app.router.add_get(commands + "/{request}", one)
    app.router.add_delete(commands + "/{request}", cancel)
    return app


def _only_with(token: OperatorToken) -> Any:  # noqa: ANN401 (aiohttp's middleware type is not public)
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/healthz" and not token.accepts(request.headers.get("Authorization", "")):
            raise ProblemError(401, "token-required", "Authorization: Bearer, with the token of the settings")
        return await handler(request)

    return middleware


async def _read(store: Store, work: service.Unit) -> Any:  # noqa: ANN401 (what the unit gives)
    try:
        return await store.read(work)
    except CommandRejected as exc:
        _refuse(exc)


async def _json(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError):
        raise ProblemError(400, "malformed-request", "the body is not JSON") from None


def _refuse(rejected: CommandRejected) -> NoReturn:
    raise ProblemError(_STATUS.get(rejected.code, 400), rejected.code, str(rejected)) from rejected
