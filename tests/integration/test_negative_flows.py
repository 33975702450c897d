"""Negative flows of provisioning with a real device over HTTP (flows F7): its tree, its alerts, its sessions.

The TRE of this device does no cryptography beyond its receipts; what a TRE refuses is proved where TREs are tested.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from dmclient.management_session import SessionFailed
from dmclient.tre.base import Hints, Outcome, TreFacts
from dmserver.asks import AskPackage, AskTicket, PartnerDown, PartnerSaidNo, TellSho
from dmserver.orders import OrderState
from dmserver.store.orders import write_order
from mcim.certificates import Role
from mcim.package_header import peek_header
from mcim.receipt import Receipt, sign_receipt
from mcim.statements import raw_signature
from mcim.vocabulary import ContainerState, ResultCode
from mo_definitions import AlertType
from syncml.codec import Encoding
from syncml.model import Add, Alert, Get, Message, Status
from tests.support_dmclient import DEVICE_ID, FakeTre, installed
from tests.support_dpf_pki import NOW, SHO_ID, pki
from tests.support_fake_partners import package_for
from tests.support_site import Site, site

TRE_ID = "urn:m2m:tre:1"
BOTH = pytest.mark.parametrize("encoding", list(Encoding), ids=lambda each: each.name)


@dataclass
class CertifiedTre(FakeTre):
    """With certificates that a DPF accepts, and receipts that it can verify."""

    result: ResultCode = ResultCode.SUCCESS
    platform_cert: bytes = pki().platform_cert(tre_id=TRE_ID, m2me_id=DEVICE_ID)
    counter: int = 0

    def facts(self) -> TreFacts:
        attest = pki().platform_cert(
            role=Role.ATTEST, key=pki().attest_key.public_key(), tre_id=TRE_ID, m2me_id=DEVICE_ID
        )
        return replace(
            super().facts(), platform_cert=self.platform_cert, attest_cert=attest, cert_chain=(pki().chain[0],)
        )

    def provision(self, package: bytes, hints: Hints, now: datetime) -> Outcome:
        self.provisioned.append((package, hints))
        header = peek_header(package)
        self.counter += 1
        receipt = Receipt(
            tre_id=TRE_ID,
            operation=header.operation,
            mcim_id=header.mcim_id,
            sho_id=header.sho_id,
            sequence=header.sequence,
            nonce=header.registration_nonce,
            revision=1,
            package_hash=hashlib.sha256(package).digest(),
            result=self.result,
            counter=self.counter,
            time=NOW,
        )
        self.last_receipt = sign_receipt(receipt, functools.partial(raw_signature, pki().attest_key))
        mcim = None
        if self.result is ResultCode.SUCCESS:
            mcim = replace(installed(ContainerState.ACTIVATED), mcim_id=header.mcim_id, sequence=header.sequence)
            self.installed.append(mcim)
        return Outcome(code=self.result, receipt=self.last_receipt, mcim=mcim, checks=())


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, tre=CertifiedTre()) as made:
        made.device.register()
        yield made


def tre_of(place: Site) -> CertifiedTre:
    tre = place.device.tre
    assert isinstance(tre, CertifiedTre)
    return tre


def reports(place: Site) -> list[int]:
    return [ask.result for ask in place.dpf.partners.asked if isinstance(ask, TellSho)]


@BOTH
async def test_the_straight_way_with_this_device(tmp_path: Path, encoding: Encoding):
    """flows F2, F3: what the others deviate from."""
    async with site(tmp_path, encoding, tre=CertifiedTre()) as place:
        order_id = place.dpf.open_order(DEVICE_ID)
        place.device.register()
        assert (await place.session()).failure == ""
        assert place.dpf.order(order_id).state is OrderState.DELIVERED, place.dpf.order(order_id).detail
        assert place.device.provision_ready() == [ResultCode.SUCCESS]
        await place.session()
        assert place.dpf.order(order_id).state is OrderState.REPORTED
        assert reports(place) == [1200]


async def test_no_open_order(place: Site):
    """REQ-13, flows F7: Status 403 on the alert, Final, and nothing is asked of the device."""
    report = await place.session()
    assert ("1201", 403) in report.refused
    assert report.commands == 0
    assert place.sent("server", Get) == place.sent("server", Add) == []
    assert "ongoing-order" in place.dpf.checks(passed=False)


async def test_wrong_dm_credentials(place: Site):
    """REQ-13, flows F7: challenged, then refused for good; the order has not heard of it."""
    order_id = place.dpf.open_order(DEVICE_ID)
    place.change_account(client_secret="another secret")
    report = await place.session()
    assert report.failure
    codes = place.header_codes("server")
    assert set(codes) == {401}
    assert 1 < len(codes) <= 3
    assert (place.dpf.order(order_id).state, report.commands) == (OrderState.OPEN, 0)


async def test_a_required_leaf_is_missing(place: Site):
    """REQ-12, flows F7: the session ends, the order is incomplete and goes on when the leaf is there."""
    order_id = place.dpf.open_order(DEVICE_ID)
    tre = tre_of(place)
    good, tre.platform_cert = tre.platform_cert, b""
    await place.session()
    order = place.dpf.order(order_id)
    assert (order.state, order.detail) == (
        OrderState.CONTACTED,
        "incomplete: M2MMobj/TRE/PlatformCert is missing or unusable",
    )
    tre.platform_cert = good
    await place.session()
    assert place.dpf.order(order_id).state is OrderState.DELIVERED


@pytest.mark.parametrize("why", ["certificate", "pva"])
async def test_certificate_or_pva_failure(place: Site, why: str):
    """REQ-20, REQ-23, flows F7: Final, nothing pushed, REFUSED with its reason to the home operator."""
    order_id = place.dpf.open_order(DEVICE_ID)
    if why == "certificate":
        tre_of(place).platform_cert = pki().platform_cert(tre_id="urn:m2m:tre:2", m2me_id=DEVICE_ID)
    else:
        place.dpf.partners.answers[AskTicket] = lambda _: PartnerSaidNo(code="platform-not-trusted")
    await place.session()
    order = place.dpf.order(order_id)
    assert order.state is OrderState.REFUSED
    assert order.detail.startswith("platform-certificate" if why == "certificate" else "pva: platform-not-trusted")
    assert place.sent("server", Add) == []
    assert reports(place) == [1400]


async def test_the_nonce_changed_between_the_phases(place: Site):
    """REQ-25, flows F7: back to the home operator, which signs for the new nonce."""
    order_id = place.dpf.open_order(DEVICE_ID)
    place.dpf.partners.answers[AskPackage] = lambda _: PartnerDown(reason="asleep")
    await place.session()
    del place.dpf.partners.answers[AskPackage]
    tre_of(place).renew_registration(reason="initial", sho_id=SHO_ID, now=NOW)
    await place.session()
    asks = [ask for ask in place.dpf.partners.asked if isinstance(ask, AskPackage)]
    assert len({ask.nonce for ask in asks}) == len({ask.key for ask in asks}) == 2
    assert place.dpf.order(order_id).state is OrderState.DELIVERED
    place.device.provision_ready()
    assert peek_header(tre_of(place).provisioned[0][0]).registration_nonce == asks[-1].nonce


@pytest.mark.parametrize("lost_chunk", [1, 2, 3])
async def test_a_session_that_breaks_between_two_chunks(place: Site, lost_chunk: int):
    """REQ-32, flows F3: the device has no half package; the next session pushes it from the start."""
    order_id = place.dpf.open_order(DEVICE_ID)
    place.dpf.partners.answers[AskPackage] = lambda ask: package_for(ask, filling=9000)  # that ask
    chunks = 0

    def is_lost(message: Message) -> bool:
        nonlocal chunks
        adds = [item for each in message.commands if isinstance(each, Add) for item in each.items]
        chunks += any((item.target or "").endswith("/Package") for item in adds)
        return chunks == lost_chunk

    place.loses_answer = is_lost
    with pytest.raises(SessionFailed):
        await place.session()
    place.loses_answer = lambda _: False
    place.dpf.restart()
    await place.session()
    order = place.dpf.order(order_id)
    assert (order.state, order.pushes) == (OrderState.DELIVERED, 2), order.detail
    assert place.device.provision_ready() == [ResultCode.SUCCESS]
    assert hashlib.sha256(tre_of(place).provisioned[0][0]).hexdigest() == order.package_hash


async def test_a_package_above_max_obj_size(place: Site):
    """REQ-32, flows F7: the device cannot take it, so the order ends, and nothing of it is at the device."""
    order_id = place.dpf.open_order(DEVICE_ID)
    place.object_size = 4096
    place.dpf.partners.answers[AskPackage] = lambda ask: package_for(ask, filling=9000)  # that ask
    await place.session()
    order = place.dpf.order(order_id)
    assert order.state is OrderState.REFUSED
    assert order.detail.startswith("the device does not take the package: Status 4")
    assert reports(place) == [1400]
    assert place.device.provision_ready() == []


async def test_a_replayed_package(place: Site):
    """REQ-52, REQ-67, flows F7: the TRE says 1409; the home operator is told, with the receipt."""
    order_id = place.dpf.open_order(DEVICE_ID)
    tre_of(place).result = ResultCode.REPLAY
    await place.session()
    assert place.device.provision_ready() == [ResultCode.REPLAY]
    await place.session()
    order = place.dpf.order(order_id)
    assert (order.state, order.detail) == (OrderState.REFUSED, "device: result 1409")
    told = place.dpf.partners.asked[-1]
    assert isinstance(told, TellSho)
    assert (told.result, told.receipt) == (1409, tre_of(place).last_receipt)


async def test_an_alert_whose_answer_was_lost(place: Site):
    """REQ-67, flows F7: re-sent in the next session; the report is the same one, and counts once."""
    order_id = place.dpf.open_order(DEVICE_ID)
    await place.session()
    place.device.provision_ready()
    place.loses.add(place.exchanges + 1)
    with pytest.raises(SessionFailed):
        await place.session()
    await place.session()
    alerts = [
        item.data
        for each in place.sent("device", Alert)
        for item in each.items
        if item.meta is not None and item.meta.type == AlertType.PROVISIONING_COMPLETE
    ]
    assert alerts == ["1200", "1200"]
    assert place.dpf.order(order_id).state is OrderState.REPORTED
    assert reports(place) == [1200]


async def test_a_server_that_dies_after_the_delivery(place: Site):
    """REQ-16, flows F7: State and Receipt first; a package that is there is not pushed again."""
    order_id = place.dpf.open_order(DEVICE_ID)
    await place.session()
    place.device.provision_ready()
    order = place.dpf.order(order_id)
    lost = replace(order, state=OrderState.DELIVERING)  # as if it had died before it heard of the last chunk
    place.dpf.store.write_sync(lambda c: write_order(c, lost))
    place.dpf.restart()
    adds = len(place.sent("server", Add))
    await place.session()
    assert len(place.sent("server", Add)) == adds
    assert (place.dpf.order(order_id).state, reports(place)) == (OrderState.REPORTED, [1200])
    assert len(tre_of(place).provisioned) == 1
    assert [each.code for each in place.sent("device", Status) if each.code >= 500] == []
