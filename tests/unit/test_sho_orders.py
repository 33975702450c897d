"""Opening an order at the DPF: recorded before the call, and what becomes of it (TR 33.812 step 8)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from actor_runtime.errors import ActorError
from actor_runtime.http import PartnerClient, new_application, problem
from actor_runtime.store import Store
from actor_runtime.trail import Trail
from sho.app import MIGRATIONS
from sho.orders import open_order
from sho.store import repository

ANSWERS = {
    "opened": (lambda: web.json_response({"orderId": "o-1"}, status=201), "open", None),
    "refused": (lambda: problem(404, "device-unknown"), "refused", "device-unknown"),
    "no order named": (lambda: web.json_response({}, status=201), "requested", "names no order"),
    "down": (lambda: problem(503, "busy"), "requested", "does not answer"),
}


@pytest.mark.parametrize(("answer", "state", "error"), ANSWERS.values(), ids=ANSWERS)
async def test_open_order(tmp_path, answer, state, error):
    store = Store(f"sqlite:///{tmp_path / 'sho.sqlite'}", MIGRATIONS)
    store.upgrade()
    seen = []

    async def orders(request):
        known = await store.read(repository.list_orders)
        seen.append((await request.json(), request.headers["Idempotency-Key"], known[0]))
        return answer()

    app = new_application()
    app.router.add_post("/v1/orders", orders)
    async with TestServer(app) as server:
        partner = PartnerClient(str(server.make_url("/")), None)

        async def call():
            return await open_order(
                store=store, trail=Trail("SHO"), partner=partner, sho_id="sho.example", m2me_id="urn:imei:1",
                dpf_url="https://d", reason="initial", expires_in_s=60, now=datetime.now(UTC),
            )  # fmt: skip

        if error is None:
            assert (await call())["orderId"] == "o-1"
        else:
            with pytest.raises(ActorError, match=error):
                await call()
        await partner.close()
    body, key, recorded = seen[0]
    assert body == {
        "m2meId": "urn:imei:1", "shoId": "sho.example", "reason": "initial", "operation": "install", "expiresIn": 60,
    }  # fmt: skip
    assert key == f"{recorded['id']}:order"
    assert recorded["state"] == "requested"
    assert (await store.read(repository.list_orders))[0]["state"] == state
    store.close()
