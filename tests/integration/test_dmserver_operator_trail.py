"""What operators do to devices, queues and orders is on the audit trail (REQ-71), and no value of theirs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import select

from dmserver.operator_api import OperatorToken, operator_application
from dmserver.orders import OrderState
from dmserver.store import tables
from dmserver.store.accounts import add_device, change_device, put_account, remove_device
from dmserver.store.orders import write_order
from tests.support_dmserver import Dpf
from tests.support_dpf_pki import M2ME_ID

TOKEN = "a-token-of-an-operator"
VALUE = "a value that is nobody's business"


@pytest.fixture
def dpf(tmp_path: Path) -> Iterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


def recorded(dpf: Dpf) -> list[dict[str, Any]]:
    rows = dpf.store.read_sync(lambda c: c.execute(select(tables.trail).order_by(tables.trail.c.id)).all())
    return [json.loads(row.fields) | {"order": row.order_id} for row in rows]


def noted(dpf: Dpf) -> list[str]:
    texts = [each.get("text", "") for each in recorded(dpf)]
    return [text.removeprefix("operator: ") for text in texts if text.startswith("operator: ")]


async def test_req71_the_queue_of_a_device(dpf: Dpf):
    """REQ-71: queued once, taken back once; a repeated call does nothing and says nothing."""
    app = operator_application(store=dpf.store, seal_key=dpf.key, token=OperatorToken(TOKEN), now=dpf.clock)
    headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "once"}
    commands = [{"command": "get", "uris": ["./DevInfo"]}, {"command": "replace", "uri": "./A/b", "value": VALUE}]
    async with TestClient(TestServer(app)) as http:
        path = f"/v1/devices/{M2ME_ID}/commands"
        first = await (await http.post(path, json={"commands": commands}, headers=headers)).json()
        again = await (await http.post(path, json={"commands": commands}, headers=headers)).json()
        assert first["id"] == again["id"]
        assert (await http.post(path, json={"commands": []}, headers=headers)).status == 400
        assert (await http.delete(f"{path}/nobody", headers=headers)).status == 404
        assert (await http.delete(f"{path}/{first['id']}", headers=headers)).status == 200
    assert noted(dpf)[1:] == [
        f"queued request {first['id']} of device {M2ME_ID}: get ×1, replace ×1",
        f"took back request {first['id']} of device {M2ME_ID}",
    ]
    assert VALUE not in json.dumps(recorded(dpf))


def test_req71_devices_and_accounts(dpf: Dpf):
    """REQ-71: added, changed, given an account by hand, removed; what changes nothing is not told."""
    other = "urn:imei:004999010640000"
    account = dataclasses.replace(dpf.account(), device_id=other)
    dpf.store.write_sync(lambda c: add_device(c, dpf.key, other, b"the-secret", dpf.clock(), managed=True))
    assert dpf.store.write_sync(lambda c: change_device(c, other, managed=False, push="udp:127.0.0.1:2948"))
    assert not dpf.store.write_sync(lambda c: change_device(c, "nobody", managed=False))
    assert dpf.store.write_sync(lambda c: change_device(c, other))
    dpf.store.write_sync(lambda c: put_account(c, dpf.key, account, dpf.clock(), bootstrapped=False))
    assert dpf.store.write_sync(lambda c: remove_device(c, other))
    assert not dpf.store.write_sync(lambda c: remove_device(c, other))
    assert noted(dpf)[1:] == [
        f"added device {other}, managed, profile default",
        f"changed device {other}: managed False, push udp:127.0.0.1:2948",
        f"gave device {other} an account by hand, with {account.client_auth.value} and {account.server_auth.value}",
        f"removed device {other}",
    ]
    told = json.dumps(recorded(dpf))
    assert not any(each in told for each in ("the-secret", account.client_secret, account.server_secret))


def test_req71_an_action_that_fails_is_not_told(dpf: Dpf):
    """REQ-71: the trail and what it tells stand or fall together."""
    before = noted(dpf)

    def broken(connection: Any) -> None:
        change_device(connection, M2ME_ID, managed=True)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        dpf.store.write_sync(broken)
    assert noted(dpf) == before


def test_req71_an_order_that_gives_way(dpf: Dpf):
    """REQ-71: an order that another one supersedes, or finds expired, has that on its own trail."""
    first = dpf.open_order(lifetime_s=60)
    dpf.clock.advance(60)
    second = dpf.open_order()
    reported = dataclasses.replace(dpf.order(second), state=OrderState.REPORTED, result=1200)
    dpf.store.write_sync(lambda c: write_order(c, reported))
    dpf.open_order()
    moves = [(each["order"], each["old"], each["new"]) for each in recorded(dpf) if "subject" in each]
    assert moves == [(first, "OPEN", "EXPIRED"), (second, "REPORTED", "CLOSED")]
