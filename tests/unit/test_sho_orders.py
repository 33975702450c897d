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
from sho.checks import RequestRefused
from sho.orders import open_order
from sho.registrations import RegistrationBody, RegistrationDesk
from sho.store import repository

STRANGE = "the id of another order"
ANSWERS = {
    "opened": (lambda: web.json_response({"orderId": "o-1"}, status=201), "open", None),
    "refused": (lambda: problem(404, "device-unknown"), "refused", "device-unknown"),
    "no order named": (lambda: web.json_response({}, status=201), "requested", "names no order"),
    "an empty name": (lambda: web.json_response({"orderId": ""}, status=201), "requested", "names no order"),
    "a name too long": (lambda: web.json_response({"orderId": "o" * 65}, status=201), "requested", "names no order"),
    "another order named": (lambda: web.json_response({"orderId": STRANGE}), "requested", "is another one"),
    "down": (lambda: problem(503, "busy"), "requested", "does not answer"),
}


@pytest.mark.parametrize(("answer", "state", "error"), ANSWERS.values(), ids=ANSWERS)
async def test_open_order(tmp_path, answer, state, error):
    store = Store(f"sqlite:///{tmp_path / 'sho.sqlite'}", MIGRATIONS)
    store.upgrade()
    seen = []

    def another(connection):
        before = datetime(2026, 1, 1, tzinfo=UTC)
        repository.add_order(connection, id=STRANGE, m2me_id="m2", dpf_url="https://d", reason="initial", now=before)

    await store.write(another)

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


@pytest.mark.parametrize("state", ["handed-over", "fulfilled"])
def test_an_answer_that_comes_twice_moves_no_order_back(tmp_path, state):
    """REQ-13: two requests at once for one order, and the device was quick."""
    store = Store(f"sqlite:///{tmp_path / 'sho.sqlite'}", MIGRATIONS)
    store.upgrade()

    def work(connection):
        now = datetime(2026, 1, 1, tzinfo=UTC)
        repository.add_order(connection, id="own", m2me_id="m", dpf_url="https://d", reason="initial", now=now)
        assert repository.set_order_opened(connection, "own", "o-1")
        repository.set_order_state(connection, "o-1", state)
        assert repository.set_order_opened(connection, "own", "o-1")
        repository.set_order_refused(connection, "own")
        return repository.find_order(connection, "own")["state"]

    assert store.write_sync(work) == state
    store.close()


@pytest.mark.parametrize("key", ["", "k" * 129, "a key", "\udcff", "schl\u00fcssel"], ids=ascii)
async def test_a_registration_needs_a_key_that_can_be_written_down(key):
    """REQ-13: 400, and nothing is recorded; a header may hold what no text can."""
    desk = RegistrationDesk(
        store=None, trail=Trail("SHO"), dpf=None, dpf_url="https://d", sho_id="sho.example", order_lifetime_s=60
    )
    body = RegistrationBody(m2me_id="urn:imei:1")
    with pytest.raises(RequestRefused) as caught:
        await desk.register(body, registrar="ro.example", key=key, now=datetime.now(UTC))
    assert (caught.value.status, caught.value.code) == (400, "malformed-request")
