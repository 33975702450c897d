"""Routes of the DPF: the DM listener for devices, the partner listener for home operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from aiohttp import web

from actor_runtime.http import Body, ProblemError, new_application, peer_identity, problem, read_body
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from dmserver.config import DM_PATH
from dmserver.endpoint import SESSION_PARAMETER, DmEndpoint, Request
from dmserver.media import coding_refused
from dmserver.registration import OrderRejected, register_order

_STATUS = {"device-unknown": 404, "order-ongoing": 409, "reason-unknown": 400, "lifetime-out-of-range": 400}
MAX_KEY = 128  # characters of an Idempotency-Key
HMAC_HEADER: Final = "x-syncml-hmac"  # OMA-TS-DM_Security-V1_2 §5.3.3


class OrderBody(Body):
    """`POST /v1/orders`."""

    m2me_id: str
    sho_id: str
    reason: str = "initial"
    expires_in: int | None = None  # seconds


def dm_application(endpoint: DmEndpoint, *, dm_url: Callable[[int], str]) -> web.Application:
    """The application devices talk to. `dm_url` gives our URL when the listener is bound to that port.

    Query parameters and headers that mean nothing here are passed over: real devices send many.
    """
    app = new_application(max_body=endpoint.announced.hard_limit)

    async def dm(request: web.Request) -> web.Response:
        if coding_refused(request.headers.get("Content-Encoding", "")):
            return problem(415, "unsupported-content-encoding")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return problem(413, "message-too-large")
        except web.RequestPayloadError:
            return problem(400, "malformed-body")
        address = request.get_extra_info("sockname")
        answer = await endpoint.handle(
            Request(
                body=body,
                content_type=request.headers.get("Content-Type", ""),
                server_uri=dm_url(address[1] if address else 0),
                token=request.query.get(SESSION_PARAMETER, ""),
                mac=request.headers.get(HMAC_HEADER),
            )
        )
        if answer.status != 200:
            return problem(answer.status, answer.code)
        # A body of known length, never in chunks and never compressed: several clients read nothing else.
        headers = {"Cache-Control": "private, no-store"} | ({HMAC_HEADER: answer.mac} if answer.mac else {})
        return web.Response(body=answer.body, content_type=answer.content_type, headers=headers)

    app.router.add_post(DM_PATH, dm)
    return app


def partner_application(
    *, store: Store, trail: Trail, shos: Mapping[str, str], order_lifetime_s: int, now: Callable[[], datetime]
) -> web.Application:
    """The application home operators talk to, over mutual TLS."""
    app = new_application()

    async def open_order(request: web.Request) -> web.Response:
        body = await read_body(request, OrderBody)
        allowed = peer_identity(request) == body.sho_id and body.sho_id in shos
        if not allowed:
            trail.check("order-from-its-sho", False, req=("REQ-13",), step="8", detail=body.sho_id)
            raise ProblemError(403, "not-your-order", "an order is opened by the SHO it names, if it is a partner")
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > MAX_KEY:
            raise ProblemError(400, "malformed-request", "the idempotency key is too long")
        try:
            order = await store.write(
                lambda connection: register_order(
                    connection,
                    device_id=body.m2me_id,
                    sho_id=body.sho_id,
                    purpose=body.reason,
                    lifetime_s=body.expires_in if body.expires_in is not None else order_lifetime_s,
                    now=now(),
                    idempotency_key=key or None,
                )
            )
        except OrderRejected as exc:
            raise ProblemError(_STATUS[exc.code], exc.code, str(exc)) from exc
        trail.check("order-from-its-sho", True, req=("REQ-13",), step="8", detail=body.sho_id, order=order.order_id)
        trail.state("order", "", order.state, step="8", order=order.order_id, detail=f"for {order.device_id}")
        return web.json_response({"orderId": order.order_id}, status=201)

    app.router.add_post("/v1/orders", open_order)
    return app
