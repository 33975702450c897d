"""Certificates of one role used as another, at PVA, SHO and DPF (REQ-43, REQ-45, REQ-46).

Two families: the wrong role below the right root (a CA that issues for several purposes, or was tricked), and the right
role below a root for another purpose. In both the key is the attacker's own and every signature is true.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from actor_runtime.http import PartnerRefused
from dmserver.asks import AskTicket, TicketGiven
from dmserver.orders import OrderState
from mcim.certificates import Role
from mcim.key_id import key_id_of
from mcim.ticket import Ticket, issue_ticket
from tests import support_dmserver as dm
from tests.support_operators import (
    M2ME_ID,
    PVA_ID,
    SHO_ID,
    TRE_ID,
    Device,
    Pki,
    calling,
    der,
    ec_key,
)
from tests.support_sho import Exchange, fill, serving, sho_settings
from tests.support_validation import Validation, pva_settings, refused, running_pva

PURPOSES = {"manufacturer": "manufacturer", "sho": "SHO", "pva": "PVA", "tls": "TLS"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki: Pki) -> Device:
    return Device(pki, platform_key=ec_key())


def swaps(wanted: Role, own: str) -> list[Any]:
    """(CA, role): every wrong role below the right root, the right role below every wrong one, a TLS certificate."""
    wrong = [pytest.param(own, role, id=f"{role.name}-below-{own}") for role in Role if role is not wanted]
    roots = [pytest.param(ca, wanted, id=f"{wanted.name}-below-{ca}") for ca in PURPOSES if ca != own]
    return [*wrong, *roots, pytest.param(own, None, id=f"TLS-below-{own}")]


def certificate(
    pki: Pki, ca: str, role: Role | None, key: ec.EllipticCurvePrivateKey, identity: str
) -> x509.Certificate:
    issuer = getattr(pki, ca)
    if role is None:
        return issuer.issue_tls(key, identity)
    return issuer.issue_role(key, role, identity, serial=M2ME_ID)


# --- PVA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ca", "role"), swaps(Role.PLATFORM, "manufacturer"))
async def test_platform_at_the_pva(pki: Pki, device: Device, tmp_path: Path, ca: str, role: Role | None) -> None:
    """REQ-20, REQ-46: a key certified for anything else is no PK_D."""
    made = certificate(pki, ca, role, device.platform_key, TRE_ID)
    async with running_pva(pva_settings(pki, tmp_path), pki) as (_, dpf, _):
        validation = await Validation(device).ask(dpf)
        assert await refused(validation.validate(dpf, platformCert=der(made))) == "platform-certificate"


@pytest.mark.parametrize(("ca", "role"), swaps(Role.ATTEST, "manufacturer"))
async def test_attestation_at_the_pva(pki: Pki, device: Device, tmp_path: Path, ca: str, role: Role | None) -> None:
    """REQ-45, REQ-46: no other key speaks for a TRE, even one that really signed the evidence."""
    made = certificate(pki, ca, role, device.attest_key, TRE_ID)
    async with running_pva(pva_settings(pki, tmp_path), pki) as (_, dpf, _):
        validation = await Validation(device).ask(dpf)
        assert await refused(validation.validate(dpf, attestCert=der(made))) == "attest-certificate"


# --- SHO --------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def sho(pki: Pki, tmp_path: Path) -> AsyncIterator[Any]:
    """A DPF's connection to a home operator with an order and subscriptions."""
    async with serving(sho_settings(pki, tmp_path), pki) as (made, dpf):
        await fill(made)
        yield dpf


async def refusal_code(call: Any) -> str:
    with pytest.raises(PartnerRefused) as caught:
        await call
    return caught.value.code


async def test_the_right_certificates_at_the_sho(sho: Any, pki: Pki, device: Device) -> None:
    """REQ-24: what the swaps below start from is accepted."""
    assert (await Exchange(pki, device).hand_over(sho))["package"]


@pytest.mark.parametrize(("ca", "role"), swaps(Role.PLATFORM, "manufacturer"))
async def test_platform_at_the_sho(sho: Any, pki: Pki, device: Device, ca: str, role: Role | None) -> None:
    """REQ-27, REQ-46: the SHO sees it by itself; a ticket that names that very key does not help."""
    swapped = der(certificate(pki, ca, role, device.platform_key, TRE_ID))
    refusal = await refusal_code(Exchange(pki, device).hand_over(sho, platformCert=swapped))
    assert refusal == "platform-certificate-refused"


@pytest.mark.parametrize(("ca", "role"), swaps(Role.PVA, "pva"))
async def test_ticket_signer_at_the_sho(sho: Any, pki: Pki, device: Device, ca: str, role: Role | None) -> None:
    """REQ-19, REQ-46: SHO, DPF, attestation or TLS certificate as PVA, with the PVA's name in it."""
    key = ec_key()
    exchange = Exchange(pki, device, key=key, chain=[certificate(pki, ca, role, key, PVA_ID)])
    assert await refusal_code(exchange.hand_over(sho)) == "ticket-refused"


@pytest.mark.parametrize(("ca", "role"), swaps(Role.ATTEST, "manufacturer"))
async def test_receipt_signer_at_the_sho(sho: Any, pki: Pki, device: Device, ca: str, role: Role | None) -> None:
    """REQ-67, REQ-46: a receipt is signed by an attestation key, certified as one."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(sho)
    receipt, swapped = exchange.receipt(), der(certificate(pki, ca, role, device.attest_key, TRE_ID))
    assert await refusal_code(exchange.report(sho, receipt, attestCert=swapped)) == "attest-certificate-refused"
    assert await exchange.report(sho, receipt)


@pytest.mark.parametrize("name", [SHO_ID, "pva.example", "stranger.example"])
async def test_partner_certificates_as_those_of_the_dpf(pki: Pki, device: Device, sho: Any, name: str) -> None:
    """REQ-24: good TLS certificates of others open nothing at the SHO: the name decides."""
    url = sho._base_url
    async with calling(url, pki.client(name)) as other:
        assert await refusal_code(Exchange(pki, device).hand_over(other)) == "client-not-allowed"


# --- DPF --------------------------------------------------------------------------------------------------------------


def below(ca: str) -> Any:
    """An authority of the DPF tests' PKI: the manufacturer's, or the PVA's standing for every other purpose."""
    return dm.pki().manufacturer if ca == "manufacturer" else dm.pki().pva_root


def for_tre(ca: str, role: Role | None, key: Any) -> bytes:
    if role is None:
        return dm.der(below(ca).issue_tls(key, hosts=["dpf.example"], now=dm.NOW - timedelta(days=1)))
    return dm.pki().platform_cert(ca=below(ca), role=role, key=key)


@pytest.mark.parametrize("leaf", ["PlatformCert", "AttestCert"])
@pytest.mark.parametrize("role", [*Role, None], ids=lambda role: "TLS" if role is None else role.name)
@pytest.mark.parametrize("ca", ["manufacturer", "pva"])
async def test_certificates_in_the_tree_at_the_dpf(tmp_path: Path, leaf: str, role: Role | None, ca: str) -> None:
    """REQ-20, REQ-43, REQ-46: one role fits each leaf, below the manufacturers' roots; nobody else is asked then."""
    wanted = Role.PLATFORM if leaf == "PlatformCert" else Role.ATTEST
    key = dm.pki().platform_key if leaf == "PlatformCert" and role in (Role.PLATFORM,) else dm.pki().attest_key
    device = dm.StubDevice()
    device.put(f"M2MMobj/TRE/{leaf}", for_tre(ca, role, key.public_key()))
    dpf = dm.Dpf(tmp_path)
    try:
        dpf.add_device()
        order_id = dpf.open_order()
        await dpf.session(device, dm.registration_alert(device))
        order = dpf.order(order_id)
        if role is wanted and ca == "manufacturer":
            assert order.state is OrderState.DELIVERED
            return
        assert order.state is OrderState.REFUSED
        assert order.detail.startswith("platform-certificate (" if leaf == "PlatformCert" else "attest-certificate (")
        assert dpf.partners.kinds() == ["TellSho"]  # nobody is asked anything; the refusal is told (REQ-23)
    finally:
        dpf.close()


@pytest.mark.parametrize("role", [*Role, None], ids=lambda role: "TLS" if role is None else role.name)
@pytest.mark.parametrize("ca", ["manufacturer", "pva"])
async def test_ticket_signer_at_the_dpf(tmp_path: Path, role: Role | None, ca: str) -> None:
    """REQ-19, REQ-43, REQ-46: of all signers only a PVA below the PVAs' roots; nothing is handed over otherwise."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, issued = key.public_key(), dm.NOW - timedelta(days=1)
    if role is None:
        signer = below(ca).issue_tls(public, hosts=["pva.example"], now=issued)
    elif role in (Role.PLATFORM, Role.ATTEST):
        signer = below(ca).issue_platform(role, public, tre_id=dm.PVA_ID, m2me_id=dm.M2ME_ID, now=issued)
    else:
        signer = below(ca).issue_role(role, public, identity=dm.PVA_ID, now=issued)
    chain = [signer, *below(ca).intermediates]
    dpf = dm.Dpf(tmp_path)
    dpf.partners.answers[AskTicket] = lambda ask: TicketGiven(ticket=issue_ticket(ticket_of(ask), key, chain))
    try:
        dpf.add_device()
        order_id, device = dpf.open_order(), dm.StubDevice()
        await dpf.session(device, dm.registration_alert(device))
        if role is Role.PVA and ca == "pva":
            assert dpf.order(order_id).state is OrderState.DELIVERED
            return
        assert dpf.order(order_id).detail == "pva: the ticket is not acceptable"
        assert "AskPackage" not in dpf.partners.kinds()
    finally:
        dpf.close()


def ticket_of(ask: AskTicket) -> Ticket:
    """What the right PVA would say."""
    return Ticket(
        issuer=dm.PVA_ID,
        audience=ask.audience,
        tre_id=ask.tre_id,
        m2me_id=ask.m2me_id,
        req_id=ask.req_id,
        nonce=ask.nonce,
        platform_key_id=key_id_of(dm.pki().platform_key.public_key()),
        attest_key_id=key_id_of(dm.pki().attest_key.public_key()),
        mode=ask.mode,
        tre_type="software",
        tre_version="1.0",
        issued_at=dm.NOW,
        expires_at=dm.NOW + timedelta(minutes=30),
        ticket_id="1",
    )
