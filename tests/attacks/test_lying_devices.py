"""Devices that lie to the DPF: foreign trees and evidence, old challenges, receipts about something else (T4, T10).

Whole sessions with right DM credentials: what an M2ME whose software is in the attacker's hands can do (T9). Each of
these ends without a package at the device, or without a report of success, and the check that stopped it is named.
"""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dmserver.asks import Ask, AskChallenge, AskPackage, AskTicket, Outcome, PartnerDown, TellSho, TicketGiven
from dmserver.orders import OrderState
from mcim.certificates import Role
from mcim.receipt import Receipt, sign_receipt, verify_receipt
from mcim.statements import raw_signature
from mcim.vocabulary import Operation, ResultCode
from tests.support_dmserver import (
    M2ME_ID,
    TRE_ID,
    Dpf,
    StubDevice,
    alert,
    attach_alert,
    fall_back_receipt,
    pki,
    registration_alert,
    ticket_for,
)

OTHER_M2ME, OTHER_TRE = "urn:imei:356938035643809", "urn:m2m:tre:0002"
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def dpf(tmp_path: Path) -> Iterator[Dpf]:
    made = Dpf(tmp_path)
    made.add_device()
    yield made
    made.close()


def foreign_cert(role: Role, *, tre_id: str = OTHER_TRE, m2me_id: str = OTHER_M2ME) -> bytes:
    """A good certificate of the same manufacturer for another device's key."""
    return pki().platform_cert(role=role, key=OTHER_KEY.public_key(), tre_id=tre_id, m2me_id=m2me_id)


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def reports(dpf: Dpf) -> list[int]:
    return [ask.result for ask in dpf.partners.asked if isinstance(ask, TellSho)]


# --- another device's tree (T4, REQ-14) -------------------------------------------------------------------------------

OTHER_TREE: dict[str, str | bytes] = {
    "M2MEId": OTHER_M2ME,
    "TRE/Id": OTHER_TRE,
    "TRE/PlatformCert": foreign_cert(Role.PLATFORM),
    "TRE/AttestCert": pki().platform_cert(
        role=Role.ATTEST, key=pki().attest_key.public_key(), tre_id=OTHER_TRE, m2me_id=OTHER_M2ME
    ),
}
TREES: dict[str, tuple[dict[str, str | bytes], str]] = {
    "the whole tree of another device": (OTHER_TREE, "m2me-id-is-authenticated-identity"),
    "another device's tree under the own identity": (
        OTHER_TREE | {"M2MEId": M2ME_ID},
        "certificates-name-this-m2me",
    ),
    "another TRE's platform certificate": (
        {"TRE/PlatformCert": foreign_cert(Role.PLATFORM, m2me_id=M2ME_ID)},
        "platform-certificate",
    ),
    "another TRE's attestation certificate": (
        {"TRE/AttestCert": foreign_cert(Role.ATTEST, m2me_id=M2ME_ID)},
        "attest-certificate",
    ),
    "a platform certificate that names another M2ME": (
        {"TRE/PlatformCert": foreign_cert(Role.PLATFORM, tre_id=TRE_ID)},
        "certificates-name-this-m2me",
    ),
    "one key for both purposes": (
        {"TRE/PlatformCert": pki().platform_cert(key=pki().attest_key.public_key())},
        "keys-differ",
    ),
    "the attestation certificate in place of the platform certificate": (
        {"TRE/PlatformCert": pki().attest_cert()},
        "platform-certificate",
    ),
}


@pytest.mark.parametrize(("leaves", "stopped_by"), TREES.values(), ids=TREES)
async def test_t4_another_devices_tree(dpf: Dpf, leaves: dict[str, str | bytes], stopped_by: str):
    """T4, REQ-14, REQ-20, REQ-45: refused before PVA or home operator hear of a platform."""
    order_id, device = dpf.open_order(), StubDevice()
    for path, value in leaves.items():
        device.put(f"M2MMobj/{path}", value)
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.REFUSED
    assert dpf.checks(passed=False)[0] == stopped_by
    assert dpf.partners.kinds() == ["TellSho"]
    assert device.containers() == []


async def test_t4_the_tree_changes_between_two_sessions(dpf: Dpf):
    """T4, REQ-14, T17: validated with the own platform, it shows another one when the package is about to come."""
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskPackage] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, registration_alert(device), session_id="1")
    del dpf.partners.answers[AskPackage]
    device.put("M2MMobj/TRE/PlatformCert", foreign_cert(Role.PLATFORM, tre_id=TRE_ID, m2me_id=M2ME_ID))
    await dpf.session(device, registration_alert(device), session_id="2")
    tickets = [ask for ask in dpf.partners.asked if isinstance(ask, AskTicket)]
    assert len(tickets) == 2  # the ticket spoke of another key, so the PVA is asked about this one
    assert tickets[1].platform_cert == device.value("TRE/PlatformCert")
    assert dpf.order(order_id).detail == "sho: package-header"  # the home operator here knows the first key alone
    assert device.containers() == []


# --- stale challenges and foreign evidence (T4, T6, T17) --------------------------------------------------------------


async def test_t17_evidence_for_a_challenge_that_is_over(dpf: Dpf):
    """T17, REQ-18: evidence announced after the end of its challenge is not shown to the PVA; there is a new one."""
    dpf.open_order()
    device = StubDevice(generate_code=202)
    await dpf.session(device, registration_alert(device), session_id="1")
    device.put("M2MMobj/Attestation/Evidence", b"evidence of yesterday")
    dpf.clock.advance(301)
    device.generate_code = 500
    await dpf.session(device, alert("AttestationReady", "200", "./M2MMobj/Attestation"), session_id="2")
    challenges = [ask for ask in dpf.partners.asked if isinstance(ask, AskChallenge)]
    assert len({ask.key for ask in challenges}) == 2
    assert "AskPackage" not in dpf.partners.kinds()[: dpf.partners.kinds().index("AskTicket")]


async def test_t17_a_challenge_that_came_too_late_is_not_used(dpf: Dpf):
    """T17, REQ-18: a challenge that is over when it arrives would make evidence nobody may believe."""
    order_id, device = dpf.open_order(), StubDevice()
    fresh = dpf.partners.answer

    def late(ask: Ask) -> Outcome:
        del dpf.partners.answers[AskChallenge]
        given = fresh(ask)
        dpf.partners.answers[AskChallenge] = late
        return dataclasses.replace(given, expires_at=dpf.clock())  # a challenge

    dpf.partners.answers[AskChallenge] = late
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).state is OrderState.TREE_READ
    assert "pva-challenge-usable" in dpf.checks(passed=False)
    assert "M2MMobj/Attestation/Evidence" not in device.nodes


FOREIGN: dict[str, dict[str, object]] = {
    "of another TRE": {"tre_id": OTHER_TRE},
    "of another TRE's keys": {"platform_key_id": b"\x01" * 16, "attest_key_id": b"\x02" * 16},
    "for another registration": {"nonce": b"\x03" * 32},
    "for another request": {"req_id": str(uuid.UUID(int=7))},
    "of another M2ME": {"m2me_id": OTHER_M2ME},
}


@pytest.mark.parametrize("changes", FOREIGN.values(), ids=FOREIGN)
async def test_t4_evidence_of_somebody_else(dpf: Dpf, changes: dict[str, object]):
    """T4, T6, REQ-18, REQ-19: a PVA that judges the evidence shown says whose it is; that is not this platform."""
    order_id, device = dpf.open_order(), StubDevice()
    dpf.partners.answers[AskTicket] = lambda ask: _ticket(ask, dpf, changes)
    await dpf.session(device, registration_alert(device))
    assert dpf.order(order_id).detail == "pva: the ticket is not acceptable"
    assert dpf.checks(passed=False)[0] == "pva-ticket"
    assert device.containers() == []


def _ticket(ask: Ask, dpf: Dpf, changes: dict[str, object]) -> Outcome:
    assert isinstance(ask, AskTicket)
    return TicketGiven(ticket=ticket_for(ask, dpf.clock(), **changes))


async def test_t17_the_ticket_of_an_earlier_request(dpf: Dpf):
    """T17, REQ-19: a registration renewed by the device makes its former validation worthless."""
    order_id, device = dpf.open_order(), StubDevice()
    kept: list[str] = []

    def first(ask: Ask) -> Outcome:
        assert isinstance(ask, AskTicket)
        kept.append(kept[0] if kept else ticket_for(ask, dpf.clock()))
        return TicketGiven(ticket=kept[0])

    dpf.partners.answers[AskTicket] = first
    dpf.partners.answers[AskPackage] = lambda _: PartnerDown(reason="asleep")
    await dpf.session(device, registration_alert(device), session_id="1")
    assert dpf.order(order_id).state is OrderState.HANDED_OVER
    device.new_request()
    await dpf.session(device, registration_alert(device), session_id="2")
    assert dpf.order(order_id).detail == "pva: the ticket is not acceptable"


# --- receipts (T10, REQ-67) -------------------------------------------------------------------------------------------

Forge = Callable[[Receipt], bytes]


def with_changes(**changes: object) -> Forge:
    """Signed by the right key: the TRE is sound, the device shows the wrong one of its receipts."""
    return lambda receipt: signed(dataclasses.replace(receipt, **changes))  # its fields


def signed(receipt: Receipt, key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    return sign_receipt(receipt, functools.partial(raw_signature, key or pki().attest_key))


def bit_flipped(receipt: Receipt) -> bytes:
    octets = bytearray(signed(receipt))
    octets[len(octets) // 2] ^= 1
    return bytes(octets)


RECEIPTS: dict[str, tuple[Forge, str]] = {
    "of another order": (
        with_changes(package_hash=b"\x05" * 32, mcim_id=uuid.UUID(int=5), sequence=5, nonce=b"\x05" * 32),
        "receipt-binding",
    ),
    "for another package": (with_changes(package_hash=b"\x06" * 32), "receipt-binding"),
    "for another registration": (with_changes(nonce=b"\x07" * 32), "receipt-binding"),
    "without a nonce": (with_changes(nonce=None), "receipt-binding"),
    "of an earlier sequence": (with_changes(sequence=0), "receipt-binding"),
    "about another MCIM": (with_changes(mcim_id=uuid.UUID(int=9)), "receipt-binding"),
    "of another home operator": (with_changes(sho_id="other.example"), "receipt-binding"),
    "of another operation": (with_changes(operation=Operation.UPDATE), "receipt-binding"),
    "of another TRE": (with_changes(tre_id=OTHER_TRE), "receipt-binding"),
    "of a failure, beside a leaf of success": (with_changes(result=ResultCode.CRYPTO_FAILURE), "receipt-binding"),
    "signed by another TRE": (lambda receipt: signed(receipt, OTHER_KEY), "receipt-signature"),
    "with one bit changed": (bit_flipped, "receipt-signature"),
    "cut short": (lambda receipt: signed(receipt)[:-10], "receipt-signature"),
    "no receipt at all": (lambda _: b"success, honestly", "receipt-signature"),
}


@pytest.mark.parametrize(("forge", "stopped_by"), RECEIPTS.values(), ids=RECEIPTS)
async def test_t10_a_receipt_about_something_else(dpf: Dpf, forge: Forge, stopped_by: str):
    """T10, REQ-67: the home operator is told nothing, and the order stays where it is until a right receipt comes."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    done = device.provision()
    leaf = device.nodes[f"M2MSIMMobj/{device.containers()[0]}/Receipt"]
    assert done is not None
    assert isinstance(leaf.value, bytes)
    right, leaf.value = leaf.value, forge(verify_receipt(leaf.value, pki().attest_key.public_key()))
    await dpf.session(device, done, session_id="2")
    assert (dpf.order(order_id).state, reports(dpf)) == (OrderState.DELIVERED, [])
    assert dpf.checks(passed=False) == [stopped_by]
    leaf.value = right
    await dpf.session(device, session_id="3")
    assert (dpf.order(order_id).state, reports(dpf)) == (OrderState.REPORTED, [1200])


COMMAND_RECEIPTS: dict[str, Forge] = {
    "of the installation": lambda receipt: signed(dataclasses.replace(receipt, operation=Operation.INSTALL)),
    "for another command": with_changes(package_hash=b"\x06" * 32),
    "of another home operator": with_changes(sho_id="other.example"),
    "about another MCIM": with_changes(mcim_id=uuid.UUID(int=9)),
    "signed by another TRE": lambda receipt: signed(receipt, OTHER_KEY),
}


@pytest.mark.parametrize("forge", COMMAND_RECEIPTS.values(), ids=COMMAND_RECEIPTS)
async def test_t10_a_command_that_was_not_carried_out(dpf: Dpf, forge: Forge):
    """T10, REQ-67, REQ-70: "deleted, honestly", with the receipt of something else: no success is reported."""
    installed, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    await dpf.session(device, session_id="2")
    await dpf.session(device, attach_alert(device), session_id="3")
    mcim_id = dpf.order(installed).mcim_id
    assert mcim_id is not None
    order_id = dpf.open_order(operation="delete", mcim_id=mcim_id)
    await dpf.session(device, session_id="4")
    done = device.operate()
    leaf = device.nodes[f"M2MSIMMobj/{device.containers()[0]}/Receipt"]
    assert done is not None
    assert isinstance(leaf.value, bytes)
    forged = forge(verify_receipt(leaf.value, pki().attest_key.public_key()))
    for number in range(12):
        leaf = device.nodes[f"M2MSIMMobj/{device.containers()[0]}/Receipt"]
        leaf.value = forged
        await dpf.session(device, done, session_id=f"A{number}")
    assert dpf.order(order_id).state in (OrderState.DELIVERED, OrderState.REFUSED)
    assert 1200 not in [
        ask.result for ask in dpf.partners.asked if isinstance(ask, TellSho) and ask.order_id == order_id
    ]


FALL_BACKS: dict[str, dict[str, object]] = {
    "of another package": {"package_hash": b"\x06" * 32},
    "of another home operator": {"sho_id": "other.example"},
    "of another registration": {"nonce": b"\x06" * 32},
    "of another MCIM": {"mcim_id": uuid.UUID(int=9)},
    "of another operation": {"operation": Operation.UPDATE},
    "of another TRE": {"tre_id": OTHER_TRE},
}


@pytest.mark.parametrize("changes", FALL_BACKS.values(), ids=FALL_BACKS)
async def test_t10_a_fall_back_that_was_none(dpf: Dpf, changes: dict[str, object]):
    """T10, REQ-67: a subscription is not taken out of use by an alert and the receipt of something else."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    await dpf.session(device, session_id="2")
    order = dpf.order(order_id)
    device.put(f"M2MSIMMobj/{order.container}/Receipt", fall_back_receipt(order, **changes))
    await dpf.session(device, attach_alert(device, 15), session_id="3")
    assert (dpf.order(order_id).state, reports(dpf)) == (OrderState.REPORTED, [1200])


async def test_t10_an_alert_of_success_is_no_success(dpf: Dpf):
    """T10, REQ-67: the alert announces, the receipt proves; without one nothing is reported."""
    order_id, device = dpf.open_order(), StubDevice(install=None)
    await dpf.session(device, registration_alert(device), session_id="1")
    container = device.containers()[0]
    device.nodes[f"M2MSIMMobj/{container}/State"].value = "40"
    device.nodes[f"M2MSIMMobj/{container}/Result"].value = "1200"
    done = alert("ProvisioningComplete", "1200", f"./M2MSIMMobj/{container}/Operations/Provision")
    await dpf.session(device, done, attach_alert(device), session_id="2")
    assert (dpf.order(order_id).state, reports(dpf)) == (OrderState.DELIVERED, [])
    assert dpf.checks(passed=False) == ["receipt-present"]


# --- bounds (T12) -----------------------------------------------------------------------------------------------------


async def test_t12_a_device_with_endless_containers_is_looked_at_so_far(dpf: Dpf):
    """T12: of the containers a device lists, a bounded number is asked for."""
    device = StubDevice()
    for number in range(500):
        device.put(f"M2MSIMMobj/c{number}/MCIMId", str(uuid.UUID(int=number)))
    order_id = dpf.open_order(operation="delete", mcim_id=str(uuid.UUID(int=499)))
    await dpf.session(device, session_id="1")
    assert dpf.order(order_id).detail == "the device has no container of that MCIM"
    asked = [item.target for each in device.seen for item in getattr(each, "items", ()) if "MCIMId" in item.target]
    assert len(asked) == 32


async def test_t13_no_identity_of_a_subscriber_is_asked_for_or_kept(dpf: Dpf, tmp_path: Path):
    """T13: PCID and IMSI are in the device's tree; the DPF neither reads them nor has them anywhere."""
    order_id, device = dpf.open_order(), StubDevice()
    await dpf.session(device, registration_alert(device), session_id="1")
    device.provision()
    device.put(f"M2MSIMMobj/{device.containers()[0]}/IMSIMask", "00101********89")
    await dpf.session(device, session_id="2")
    await dpf.session(device, attach_alert(device), session_id="3")
    mcim_id = dpf.order(order_id).mcim_id
    assert mcim_id is not None
    dpf.open_order(operation="suspend", mcim_id=mcim_id)
    await dpf.session(device, session_id="4")
    asked = {item.target for each in device.seen for item in getattr(each, "items", ())}
    assert not [uri for uri in asked if uri.endswith(("/PCID", "/PCIDExpiry", "/IMSIMask"))]
    dpf.store.write_sync(lambda _: None)  # the trail is posted: this waits for it
    stored = everything_in(tmp_path)
    shown = "".join(record.to_json() for record in dpf.records).encode()
    for identity in (b"001019876543210", b"00101********89"):
        assert identity not in stored + shown
