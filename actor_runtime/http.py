"""HTTP habits of all actors: problem documents, limits, request ids, who the peer is, start and stop, partner calls."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
import re
import signal
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StringConstraints, ValidationError

from actor_runtime.config import ListenAddress
from actor_runtime.errors import ConfigError
from actor_runtime.later import aiohttp, web

MAX_BODY: Final = 512 * 1024  # octets of a request between back-ends
MAX_ANSWER: Final = 1024 * 1024  # octets of an answer we read
PROBLEM_TYPE: Final = "application/problem+json"  # RFC 9457
GRACE_S: Final = 5.0  # seconds for requests under way when we stop
BODY_TIMEOUT_S: Final = 30.0  # from the end of a request's header to the end of its body
IDLE_TIMEOUT_S: Final = 75.0  # a connection without a request, or with half a header
MAX_DETAIL: Final = 255  # characters that we take of a partner's `detail`

_CODE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")  # of a problem document
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = structlog.get_logger(__name__)

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


# --- what goes out --------------------------------------------------------------------------------


class ProblemError(Exception):
    """Raise it in a handler to answer with a problem document. `detail` goes to the peer: nothing secret in it."""

    def __init__(self, status: int, code: str, detail: str = "", *, retry_after_s: int | None = None) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail, self.retry_after_s = status, code, detail, retry_after_s


def problem(status: int, code: str, detail: str = "", *, retry_after_s: int | None = None) -> web.Response:
    """An RFC 9457 problem document with our member `code`, which programs read; and Retry-After where it helps."""
    document = {"type": "about:blank", "title": code.replace("-", " "), "status": status, "code": code}
    if detail:
        document["detail"] = detail
    response = web.Response(status=status, body=json.dumps(document).encode(), content_type=PROBLEM_TYPE)
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


class _BodyTooSlow(TimeoutError):
    """A peer lets us wait for the body of its request."""


def _expire(request: web.Request) -> None:
    if not request.content.is_eof():
        request.content.set_exception(_BodyTooSlow())


async def request_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outermost middleware: request id, errors as problem documents, the one `except Exception`, and an end to bodies
    that come too slowly (T12)."""
    deadline = asyncio.get_running_loop().call_later(BODY_TIMEOUT_S, _expire, request)
    given = request.headers.get("X-Request-Id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        try:
            response = await handler(request)
        except ProblemError as exc:
            _log.info("http.refused", path=request.path, status=exc.status, code=exc.code, detail=exc.detail)
            response = problem(exc.status, exc.code, exc.detail, retry_after_s=exc.retry_after_s)
        except web.HTTPException as exc:
            response = problem(exc.status, exc.reason.lower().replace(" ", "-"))
            if "Allow" in exc.headers:
                response.headers["Allow"] = exc.headers["Allow"]
        except _BodyTooSlow:
            response = problem(408, "request-timeout")
        except Exception:
            _log.exception("http.failed", path=request.path)
            response = problem(500, "internal-error")
        finally:
            deadline.cancel()
    response.headers["X-Request-Id"] = request_id
    return response


def new_application(*, max_body: int = MAX_BODY) -> web.Application:
    """An application with our middleware, a body limit in octets, and `GET /healthz`."""
    app = web.Application(middlewares=[web.middleware(request_middleware)], client_max_size=max_body)
    app.router.add_get("/healthz", _healthz)
    return app


async def _healthz(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


# --- what comes in --------------------------------------------------------------------------------


def to_base64(octets: bytes) -> str:
    """Octets as they stand in a JSON body."""
    return base64.b64encode(octets).decode("ascii")


def _from_base64(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("not a string")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as exc:
        raise ValueError("not Base64") from exc


Base64 = Annotated[bytes, BeforeValidator(_from_base64), PlainSerializer(to_base64, when_used="json")]
"""Octets in a JSON body, as standard Base64."""


Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]
"""An identifier in a JSON body: URN, FQDN, order id. Printable ASCII without spaces."""


OrderId = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
"""Id of an order at the DPF: opaque, a UUID as a rule."""


def _camel_case(name: str) -> str:
    """m2me_id → m2meId; pydantic's own generator also capitalises after a digit."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Body(BaseModel):
    """A JSON request body: snake_case here, camelCase on the wire. Members we do not know are passed over."""

    model_config = ConfigDict(
        frozen=True, alias_generator=_camel_case, populate_by_name=True, hide_input_in_errors=True
    )


BodyT = TypeVar("BodyT", bound=Body)


async def read_body(request: web.Request, model: type[BodyT]) -> BodyT:
    """Read and validate a JSON body.

    Raises:
        ProblemError: 400 `malformed-request`; the detail names the members at fault, never their values.
    """
    try:
        return model.model_validate(json.loads(await request.read()))
    except ValidationError as exc:
        at_fault = sorted({".".join(map(str, error["loc"])) or "body" for error in exc.errors(include_input=False)})
        raise ProblemError(400, "malformed-request", "members: " + ", ".join(at_fault)) from None
    except (ValueError, RecursionError):
        raise ProblemError(400, "malformed-request", "the body is not JSON") from None


def peer_identities(request: web.Request) -> frozenset[str]:
    """DNS names in the SAN of the client certificate that TLS verified; none without a certificate."""
    certificate = request.get_extra_info("peercert")
    names = certificate.get("subjectAltName", ()) if certificate else ()
    return frozenset(name for kind, name in names if kind == "DNS")


def peer_identity(request: web.Request) -> str | None:
    """First DNS name in the SAN of the client certificate that TLS verified; None without one."""
    certificate = request.get_extra_info("peercert")
    names = certificate.get("subjectAltName", ()) if certificate else ()
    return next((name for kind, name in names if kind == "DNS"), None)


def allow_clients(names: frozenset[str], *, of_path: Mapping[str, frozenset[str]] | None = None) -> Any:  # noqa: ANN401 (aiohttp's middleware type is not public)
    """Middleware: only clients whose certificate carries one of these DNS names; `/healthz` is open to every peer.

    A path in `of_path` has a list of its own, and the other list does not count there.
    """
    own = dict(of_path or {})

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/healthz" and not peer_identities(request) & own.get(request.path, names):
            raise ProblemError(403, "client-not-allowed", "the client certificate is not on this actor's list")
        return await handler(request)

    return middleware


# --- start and stop -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One application on one address."""

    name: str  # key in the ready file
    app: web.Application
    host: str
    port: int  # 0: the system chooses
    ssl_context: ssl.SSLContext | None = None

    @classmethod
    def at(cls, address: ListenAddress, name: str, app: web.Application, ssl_context: ssl.SSLContext | None) -> Self:
        """A listener at an address of the settings."""
        return cls(name=name, app=app, host=address.host, port=address.port, ssl_context=ssl_context)


async def serve(
    listeners: Sequence[Listener],
    *,
    ready_file: Path | None = None,
    on_stop: Callable[[], Awaitable[None]] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run until SIGTERM, SIGINT or `stop`, then end requests under way, call `on_stop` and return.

    The ready file appears at once and complete when every listener is up, and is removed at the end by who made it:
    a second process that finds the address taken leaves that of the first alone.

    Raises:
        ConfigError: an address cannot be bound, or the ready file not written.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runners: list[web.AppRunner] = []
    ready: Path | None = None
    try:
        ports: dict[str, int] = {}
        for listener in listeners:
            runner = web.AppRunner(
                listener.app, access_log=None, shutdown_timeout=GRACE_S, keepalive_timeout=IDLE_TIMEOUT_S
            )
            runners.append(runner)
            await runner.setup()
            site = web.TCPSite(runner, listener.host, listener.port, ssl_context=listener.ssl_context)
            try:
                await site.start()
            except OSError as exc:
                raise ConfigError(f"{listener.name}: {listener.host}:{listener.port}: {exc.strerror}") from exc
            ports[listener.name] = runner.addresses[0][1]
            if listener.ssl_context is None:
                _log.warning("http.plain", listener=listener.name, reason="no TLS on this listener")
            _log.info("http.listening", listener=listener.name, host=listener.host, port=ports[listener.name])
        if ready_file is not None:
            _write_ready(ready_file, ports)
            ready = ready_file
        await stop.wait()
    finally:
        if ready is not None:
            with contextlib.suppress(OSError):  # whatever is wrong there, what follows must be done
                await asyncio.to_thread(ready.unlink, missing_ok=True)
        for runner in reversed(runners):
            await runner.cleanup()
        if on_stop is not None:
            await on_stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _write_ready(path: Path, ports: Mapping[str, int]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"ports": dict(ports), "pid": os.getpid()}) + "\n", encoding="ascii")
        temporary.replace(path)
    except OSError as exc:
        raise ConfigError(f"ready file {path}: {exc.strerror}") from exc


# --- calls to partners ----------------------------------------------------------------------------


class PartnerUnavailable(Exception):
    """No usable answer: unreachable, too slow, 5xx, or not JSON. The same call may be made again later."""


class PartnerRefused(Exception):
    """The partner answered with a problem document (4xx); `code` is a word or "unknown", `detail` is its text."""

    def __init__(self, status: int, code: str, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail, self.retry_after_s = status, code, detail, retry_after_s


class PartnerClient:
    """JSON calls to one partner. Retrying is the caller's business: the idempotency key makes it safe."""

    def __init__(self, base_url: str, ssl_context: ssl.SSLContext | None, timeout_s: float = 10.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._ssl_context = ssl_context
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self,
        path: str,
        body: Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        bearer: str | None = None,
    ) -> dict[str, Any]:
        """POST a JSON object and return the JSON object answered; `bearer` is an access token (RFC 6750).

        Raises:
            PartnerUnavailable, PartnerRefused.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        return await self._call("POST", path, json.dumps(body).encode(), headers)

    async def get(self, path: str) -> dict[str, Any]:
        """GET a JSON object.

        Raises:
            PartnerUnavailable, PartnerRefused.
        """
        return await self._call("GET", path, None, {})

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        if self._session is None:
            # No proxy from the environment, no cookies, and no decompression: limits are of octets received.
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        if body is not None:
            headers = headers | {"Content-Type": "application/json"}
        try:
            async with self._session.request(
                method,
                self._base_url + path,
                data=body,
                headers=headers,
                ssl=self._ssl_context if self._ssl_context is not None else True,
                allow_redirects=False,
            ) as response:
                status = response.status
                answer = await _read_answer(response)
                hint = response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise PartnerUnavailable(f"{self._base_url}: {type(exc).__name__}: {exc}") from exc
        if 400 <= status < 500:
            wait = int(hint) if hint.isascii() and hint.isdecimal() and len(hint) < 8 else None  # seconds, or a date
            raise PartnerRefused(status, _code(answer), _detail(answer), retry_after_s=wait)
        if not 200 <= status < 300:
            raise PartnerUnavailable(f"{self._base_url}{path}: HTTP {status}")
        return answer


def _code(answer: Mapping[str, object]) -> str:
    """The member `code`; it is compared, logged and kept, so that a hostile one is none."""
    code = answer.get("code")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "unknown"


def _detail(answer: Mapping[str, object]) -> str:
    detail = answer.get("detail")
    return detail[:MAX_DETAIL] if isinstance(detail, str) else ""


async def _read_answer(response: aiohttp.ClientResponse) -> dict[str, Any]:
    octets = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        octets += chunk
        if len(octets) > MAX_ANSWER:
            raise aiohttp.ClientPayloadError("answer too long")
    try:
        answer = json.loads(octets)
        json.dumps(answer, ensure_ascii=False).encode()  # half a surrogate pair is no text that could be kept
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        return answer
    if response.status >= 400:
        return {}
    raise aiohttp.ClientPayloadError("answer is not a JSON object")
