"""Routes of the DPF: the DM listener for devices, the partner listener for home operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final

from pydantic import StringConstraints

from actor_runtime.http import Body, OrderId, ProblemError, new_application, peer_identity, problem, read_body
from actor_runtime.later import web
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from dmserver.conductor import Conductor
from dmserver.config import DM_PATH, Limits
from dmserver.endpoint import SESSION_PARAMETER, DmEndpoint, Request
from dmserver.late_packages import LatePackage, PackageNotTaken
from dmserver.media import coding_refused
from dmserver.partners import PackageBody
from dmserver.registration import OrderRejected, OrderRequest, register_order
from mcim.vocabulary import Operation

_STATUS: Final = {
    "device-unknown": 404,
    "order-ongoing": 409,
    "key-used-for-another-order": 409,
    "too-many-orders": 429,
    "order-unknown": 404,
    "order-not-waiting": 409,
}
MAX_KEY = 128  # characters of an Idempotency-Key
HMAC_HEADER: Final = "x-syncml-hmac"  # OMA-TS-DM_Security-V1_2 §5.3.3


class OrderBody(Body):
    """`POST /v1/orders`."""

    m2me_id: str
    sho_id: str
    reason: str = "initial"
    operation: str = Operation.INSTALL.label
    mcim_id: str | None = None  # the MCIM that the operation is about
    expires_in: int | None = None  # seconds


class LatePackageBody(PackageBody):
    """`POST /v1/packages`."""

    order_id: OrderId
    req_id: Annotated[str, StringConstraints(max_length=64)]


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
    *, store: Store, trail: Trail, conductor: Conductor, shos: Mapping[str, str], limits: Limits
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
        now = conductor.now()
        try:
            order = await store.write(
                lambda connection: register_order(
                    connection,
                    OrderRequest(
                        device_id=body.m2me_id,
                        sho_id=body.sho_id,
                        purpose=body.reason,
                        operation=body.operation,
                        mcim_id=body.mcim_id,
                    ),
                    lifetime_s=body.expires_in if body.expires_in is not None else limits.order_lifetime_s,
                    now=now,
                    idempotency_key=key or None,
                    per_day=limits.orders_per_day,
                )
            )
        except OrderRejected as exc:
            raise ProblemError(_STATUS.get(exc.code, 400), exc.code, str(exc)) from exc
        trail.check("order-from-its-sho", True, req=("REQ-13",), step="8", detail=body.sho_id, order=order.order_id)
        if order.created_at == now:  # else the answer to the call that opened it got lost
            trail.state("order", "", order.state, step="8", order=order.order_id, detail=f"for {order.device_id}")
        conductor.wake()
        return web.json_response({"orderId": order.order_id}, status=201)

    async def take_package(request: web.Request) -> web.Response:
        body = await read_body(request, LatePackageBody)
        sho_id = peer_identity(request) or ""
        try:
            if sho_id not in shos:
                raise PackageNotTaken("order-unknown")
            order = await conductor.take_late_package(
                LatePackage(order_id=body.order_id, req_id=body.req_id, sho_id=sho_id, given=body.given())
            )
        except PackageNotTaken as exc:
            order_id = None if exc.order is None else exc.order.order_id
            trail.check("late-package", False, req=("REQ-25", "REQ-26"), step="12", detail=exc.code, order=order_id)
            raise ProblemError(_STATUS.get(exc.code, 400), exc.code, exc.detail) from exc
        trail.check("late-package", True, req=("REQ-25", "REQ-26"), step="12", order=order.order_id)
        return web.json_response({"accepted": True})

    app.router.add_post("/v1/orders", open_order)
    app.router.add_post("/v1/packages", take_package)
    return app
