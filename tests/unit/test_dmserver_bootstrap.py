"""Bootstrap of a DM account: what is in it, who gets one, what is at rest (REQ-07, REQ-08, REQ-11)."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from actor_runtime.errors import UnsealError
from dmserver import order_desk
from dmserver.bootstrap import BootstrapNotAllowed, bootstrap_push, new_account, new_nonce, prepare_bootstrap
from dmserver.registration import OrderRejected, OrderRequest, register_order
from dmserver.store.accounts import add_device, bootstrap_secret, find_account, list_devices, set_nonce
from dmserver.store.orders import OrderConflict, find_order, open_order, write_order
from dmserver.store.tables import accounts, devices
from syncml.bootstrap import BootstrapRefused, BootstrapSecrets, accept, parse_push
from syncml.codes import AuthType
from tests.support_dmserver import DM_URL, Dpf
from tests.support_dpf_pki import DPF_ID, M2ME_ID, NOW, SHO_ID

MCIM_ID = "00112233-4455-6677-8899-aabbccddeeff"
SECRETS = BootstrapSecrets(pin="supplier-secret")


@pytest.fixture
def dpf(tmp_path):
    made = Dpf(tmp_path)
    yield made
    made.close()


def prepare(dpf: Dpf, *, now=NOW, per_hour=3):
    return dpf.store.write_sync(
        lambda c: prepare_bootstrap(c, dpf.key, M2ME_ID, server_id=DPF_ID, dm_url=DM_URL, per_hour=per_hour, now=now)
    )


def test_req07_the_device_reads_the_account_that_is_kept(dpf):
    dpf.add_device(with_account=False)
    order_id = dpf.open_order()
    prepared = prepare(dpf)
    assert prepared.order_id == order_id
    account, bootstrap = dpf.account(), accept(parse_push(prepared.datagram), SECRETS)
    assert (bootstrap.server_id, bootstrap.server_url, bootstrap.connect_now) == (DPF_ID, DM_URL, True)
    assert bootstrap.client is not None
    assert bootstrap.server is not None
    assert (bootstrap.client.name, bootstrap.client.secret, bootstrap.client.nonce) == (
        account.client_name,
        account.client_secret,
        account.client_nonce,
    )
    assert (bootstrap.server.name, bootstrap.server.secret, bootstrap.server.nonce) == (
        account.server_name,
        account.server_secret,
        account.server_nonce,
    )
    assert bootstrap.client.auth_type is bootstrap.server.auth_type is AuthType.MD5


def test_req08_without_the_suppliers_secret_it_is_nothing(dpf):
    push = bootstrap_push(new_account(M2ME_ID, DPF_ID, 1), dm_url=DM_URL, server_id=DPF_ID, secret="supplier-secret")
    with pytest.raises(BootstrapRefused):
        accept(push, BootstrapSecrets(pin="another-secret"))


def test_credentials_are_fresh_and_differ_by_direction():
    first, second = new_account(M2ME_ID, DPF_ID, 1), new_account(M2ME_ID, DPF_ID, 2)
    values = [
        *(first.client_secret, first.server_secret, first.client_nonce, first.server_nonce, first.client_name),
        *(second.client_secret, second.server_secret, second.client_nonce, second.server_nonce, second.client_name),
    ]
    assert len(set(values)) == len(values)
    assert new_nonce().decode("ascii").isalnum()
    assert first.client_secret not in repr(first)


def test_req11_unknown_device_no_order_or_too_often(dpf):
    with pytest.raises(BootstrapNotAllowed, match="not known"):
        prepare(dpf)
    dpf.add_device(with_account=False)
    with pytest.raises(BootstrapNotAllowed, match="no ongoing order"):
        prepare(dpf)
    dpf.open_order()
    for _ in range(3):
        prepare(dpf)
    kept = dpf.account()
    with pytest.raises(BootstrapNotAllowed, match="3 times"):
        prepare(dpf)
    assert dpf.account() == kept
    prepare(dpf, now=NOW + timedelta(hours=1, seconds=1))
    assert dpf.account().profile == 4


def test_secrets_are_sealed_to_their_row(dpf):
    dpf.add_device()
    dpf.add_device("urn:imei:2")
    one = dpf.store.read_sync(
        lambda c: c.execute(select(accounts.c.client_secret).where(accounts.c.device_id == M2ME_ID)).scalar_one()
    )
    assert dpf.account().client_secret.encode() not in one
    other = update(accounts).where(accounts.c.device_id == "urn:imei:2").values(client_secret=one)
    dpf.store.write_sync(lambda c: c.execute(other))
    with pytest.raises(UnsealError):
        dpf.store.read_sync(lambda c: find_account(c, dpf.key, "urn:imei:2"))
    assert dpf.store.read_sync(lambda c: bootstrap_secret(c, dpf.key, M2ME_ID)) == b"supplier-secret"
    sealed = dpf.store.read_sync(lambda c: c.execute(select(devices.c.bootstrap_secret)).scalars().all())
    assert all(b"supplier" not in each for each in sealed)


def test_nonces_are_kept_by_direction(dpf):
    dpf.add_device()
    before = dpf.account()
    dpf.store.write_sync(lambda c: set_nonce(c, M2ME_ID, "client", b"c"))
    dpf.store.write_sync(lambda c: set_nonce(c, M2ME_ID, "server", b"s"))
    assert dpf.account() == dataclasses.replace(
        before, client_nonce=b"c", client_nonce_before=before.client_nonce, server_nonce=b"s"
    )


def test_list_of_devices(dpf):
    dpf.store.write_sync(lambda c: add_device(c, dpf.key, "urn:imei:1", b"secret-1", NOW))
    dpf.add_device("urn:imei:2")
    rows = dpf.store.read_sync(list_devices)
    assert [(row.device_id, row.profile, row.known_since) for row in rows] == [
        ("urn:imei:1", 0, NOW),
        ("urn:imei:2", 1, NOW),
    ]


# --- orders in the database -------------------------------------------------------------------------------------------


def test_req13_one_order_for_a_device_at_a_time(dpf):
    dpf.add_device()
    first = dpf.open_order(lifetime_s=60)
    with pytest.raises(OrderRejected, match=first) as caught:
        dpf.open_order()
    assert caught.value.code == "order-ongoing"
    dpf.clock.advance(61)
    assert dpf.open_order() != first
    assert dpf.order(first).state == "EXPIRED"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"device_id": "urn:imei:unknown"}, "device-unknown"),
        ({"purpose": "fun"}, "reason-unknown"),
        ({"lifetime_s": 0}, "lifetime-out-of-range"),
        ({"lifetime_s": 10**9}, "lifetime-out-of-range"),
        ({"operation": "release"}, "operation-unknown"),
        ({"operation": "fun"}, "operation-unknown"),
        ({"operation": "activate"}, "target-missing"),
        ({"operation": "update", "mcim_id": "x"}, "target-missing"),
        ({"operation": "install", "mcim_id": MCIM_ID}, "target-not-wanted"),
        ({"operation": "replace", "mcim_id": MCIM_ID}, "target-not-wanted"),
    ],
)
def test_orders_that_are_not_opened(dpf, changes, code):
    """REQ-13, REQ-70: an operation needs its target, and one that makes an MCIM has none."""
    dpf.add_device()
    values = {"device_id": M2ME_ID, "sho_id": SHO_ID, "lifetime_s": 60} | changes
    lifetime_s = values.pop("lifetime_s")
    with pytest.raises(OrderRejected) as caught:
        dpf.store.write_sync(lambda c: register_order(c, OrderRequest(**values), lifetime_s=lifetime_s, now=NOW))
    assert caught.value.code == code


def test_t12_orders_of_a_device_are_bounded(dpf):
    """T12: so many orders a day for one device; another day, others."""
    dpf.add_device()
    wanted = OrderRequest(device_id=M2ME_ID, sho_id=SHO_ID)

    def open_at(now):
        order = dpf.store.write_sync(lambda c: register_order(c, wanted, lifetime_s=60, now=now, per_day=3))
        dpf.store.write_sync(lambda c: order_desk.cancel(c, order.order_id, now))

    for number in range(3):
        open_at(NOW + timedelta(minutes=number))
    with pytest.raises(OrderRejected) as caught:
        open_at(NOW + timedelta(hours=1))
    assert caught.value.code == "too-many-orders"
    open_at(NOW + timedelta(days=1, minutes=1))


def test_an_idempotency_key_gives_the_same_order(dpf):
    dpf.add_device()
    wanted = OrderRequest(device_id=M2ME_ID, sho_id=SHO_ID)
    orders = [
        dpf.store.write_sync(lambda c: register_order(c, wanted, lifetime_s=60, now=NOW, idempotency_key="k"))
        for _ in range(2)
    ]
    assert orders[0] == orders[1]


def test_req16_an_order_comes_back_as_it_was_written(dpf):
    dpf.add_device()
    order = dataclasses.replace(
        dpf.order(dpf.open_order()),
        req_id="3f0c2a52-5d0c-4d43-8c0b-000000000001",
        nonce=b"n" * 32,
        cert_chain=(b"a", b"b"),
        challenge=b"c",
        challenge_exp=NOW,
        ticket="t",
        ticket_exp=NOW + timedelta(seconds=1),
        sequence=2**62,
        receipt=b"r",
        result=1200,
    )
    written = dpf.store.write_sync(lambda c: write_order(c, order))
    assert written == dataclasses.replace(order, version=order.version + 1)
    assert dpf.order(order.order_id) == written


def test_req15_a_write_from_an_older_version_fails(dpf):
    dpf.add_device()
    order = dpf.order(dpf.open_order())
    dpf.store.write_sync(lambda c: write_order(c, order))
    with pytest.raises(OrderConflict):
        dpf.store.write_sync(lambda c: write_order(c, order))


def test_a_lost_order_is_none(dpf):
    assert dpf.store.read_sync(lambda c: find_order(c, "no such order")) is None


def test_open_order_needs_a_known_device(dpf):
    dpf.add_device()
    stranger = dataclasses.replace(dpf.order(dpf.open_order()), order_id="x", device_id="urn:imei:unknown")
    with pytest.raises(IntegrityError):
        dpf.store.write_sync(lambda c: open_order(c, stranger))
