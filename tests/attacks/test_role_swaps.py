"""Certificates of one role used as another, at PVA, SHO and DPF (REQ-43, REQ-45, REQ-46).

Two families: the wrong role below the right root (a CA that issues for several purposes, or was tricked), and the right
role below a root for another purpose. In both the key is the attacker's own and every signature is true.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from actor_runtime.http import PartnerRefused, to_base64
from dmserver.asks import AskTicket, TicketGiven
from dmserver.orders import OrderState
from mcim.certificates import Role
from mcim.evidence import capabilities_digest
from mcim.key_id import key_id_of
from mcim.ticket import Ticket, issue_ticket
from mcim.vocabulary import ValidationMode
from sho.app import build, partner_application
from sho.config import ShoSettings
from sho.store import repository
from sho.subscriptions import Credential
from tests import support_dmserver as dm
from tests.support_operators import (
    DPF_ID,
    M2ME_ID,
    PVA_ID,
    SHO_ID,
    TRE_ID,
    TRE_TYPE,
    TRE_VERSION,
    Device,
    Pki,
    calling,
    der,
    ec_key,
    running,
)
from tests.support_validation import Validation, pva_settings, refused, running_pva

ORDER = "0b5f7bd2-9a04-4b53-9d3c-2f6f0a8f5a11"
PURPOSES = {"manufacturer": "manufacturer", "sho": "SHO", "pva": "PVA", "tls": "TLS"}

OFFER = {"suites": ["MCIM-EC-GCM-256"], "containers": ["xml"], "algorithms": ["milenage"]}


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
    """A DPF's connection to a home operator with an order and a subscription."""
    settings = ShoSettings(
        sho_id=SHO_ID,
        database_url=f"sqlite:///{tmp_path / 'sho.sqlite'}",
        seal_key=tmp_path / "seal.key",
        tls_cert=pki.path(f"{SHO_ID}.tls.crt"),
        tls_key=pki.path(f"{SHO_ID}.tls.key"),
        tls_ca=pki.path("tls-anchors.pem"),
        allowed_clients=frozenset({DPF_ID}),
        signing_cert=pki.path("sho-signing.crt"),
        signing_key=pki.path("sho-signing.key"),
        manufacturer_anchors=pki.path("manufacturer-anchors.pem"),
        pva_anchors=pki.path("pva-anchors.pem"),
        pva_id=PVA_ID,
    )
    made, now = build(settings), datetime.now(UTC)

    def fill(connection: Any) -> None:
        credential = Credential(imsi="001010000000001", k=b"k" * 15 + b"1", opc=b"o" * 15 + b"2")
        repository.add_subscription(connection, made.vault.seal(credential), imsi_mask="x", amf=b"\x80\0", now=now)
        repository.add_order(connection, id="own", m2me_id=M2ME_ID, dpf_url="https://d", reason="initial", now=now)
        repository.set_order_opened(connection, "own", ORDER)

    await made.store.write(fill)
    try:
        async with (
            running(partner_application(made), pki.server(SHO_ID)) as url,
            calling(url, pki.client(DPF_ID)) as dpf,
        ):
            yield dpf
    finally:
        await made.close()


class Handover:
    """A hand-over in which everything is right that is not given."""

    def __init__(self, pki: Pki, device: Device) -> None:
        self.pki, self.device, self.req_id, self.nonce = pki, device, uuid.uuid4(), os.urandom(32)
        now = datetime.now(UTC).replace(microsecond=0)
        self.ticket = Ticket(
            issuer=PVA_ID,
            audience=(DPF_ID, SHO_ID),
            tre_id=TRE_ID,
            m2me_id=M2ME_ID,
            req_id=str(self.req_id),
            nonce=self.nonce,
            platform_key_id=device.platform_key_id,
            attest_key_id=key_id_of(device.attest_key.public_key()),
            mode=ValidationMode.SEMI_AUTONOMOUS,
            tre_type=TRE_TYPE,
            tre_version=TRE_VERSION,
            issued_at=now,
            expires_at=now + timedelta(hours=1),
            ticket_id="1",
            capabilities=capabilities_digest(**OFFER),
        )

    async def send(self, dpf: Any, *, token: str = "", platform: x509.Certificate | None = None) -> dict[str, Any]:
        body = {
            "reqId": str(self.req_id),
            "orderId": ORDER,
            "m2meId": M2ME_ID,
            "treId": TRE_ID,
            "treType": TRE_TYPE,
            "treVersion": TRE_VERSION,
            **OFFER,
            "trustAnchors": [self.pki.sho.key_id],
            "platformCert": der(platform or self.device.platform_cert),
            "chain": [],
            "nonce": to_base64(self.nonce),
            "nextSequence": 1,
            "ticket": token or issue_ticket(self.ticket, self.pki.pva_key, [self.pki.pva_cert]),
            "dpfId": DPF_ID,
        }
        return await dpf.post("/v1/handover", body)


async def refusal_code(call: Any) -> str:
    with pytest.raises(PartnerRefused) as caught:
        await call
    return caught.value.code


async def test_the_right_certificates_at_the_sho(sho: Any, pki: Pki, device: Device) -> None:
    """REQ-24: what the swaps below start from is accepted."""
    assert (await Handover(pki, device).send(sho))["package"]


@pytest.mark.parametrize(("ca", "role"), swaps(Role.PLATFORM, "manufacturer"))
async def test_platform_at_the_sho(sho: Any, pki: Pki, device: Device, ca: str, role: Role | None) -> None:
    """REQ-27, REQ-46: the SHO sees it by itself; a ticket that names that very key does not help."""
    made = certificate(pki, ca, role, device.platform_key, TRE_ID)
    assert await refusal_code(Handover(pki, device).send(sho, platform=made)) == "platform-certificate-refused"


@pytest.mark.parametrize(("ca", "role"), swaps(Role.PVA, "pva"))
async def test_ticket_signer_at_the_sho(sho: Any, pki: Pki, device: Device, ca: str, role: Role | None) -> None:
    """REQ-19, REQ-46: SHO, DPF, attestation or TLS certificate as PVA, with the PVA's name in it."""
    handover, key = Handover(pki, device), ec_key()
    token = issue_ticket(handover.ticket, key, [certificate(pki, ca, role, key, PVA_ID)])
    assert await refusal_code(handover.send(sho, token=token)) == "ticket-refused"


@pytest.mark.parametrize(("ca", "role"), swaps(Role.ATTEST, "manufacturer"))
async def test_receipt_signer_at_the_sho(sho: Any, pki: Pki, device: Device, ca: str, role: Role | None) -> None:
    """REQ-67, REQ-46: a receipt is signed by an attestation key, certified as one."""
    handover = Handover(pki, device)
    answer = await handover.send(sho)
    receipt = device.receipt(
        mcim_id=uuid.UUID(answer["mcimId"]),
        sequence=answer["sequence"],
        nonce=handover.nonce,
        package_hash=bytes.fromhex(answer["packageHash"]),
    )
    report = {
        "orderId": ORDER,
        "reqId": str(handover.req_id),
        "receipt": to_base64(receipt),
        "attestCert": der(certificate(pki, ca, role, device.attest_key, TRE_ID)),
        "chain": [],
        "result": 1200,
    }
    assert await refusal_code(sho.post("/v1/report", report)) == "attest-certificate-refused"
    assert await sho.post("/v1/report", report | {"attestCert": der(device.attest_cert)})


@pytest.mark.parametrize("name", [SHO_ID, "pva.example", "stranger.example"])
async def test_partner_certificates_as_those_of_the_dpf(pki: Pki, device: Device, sho: Any, name: str) -> None:
    """REQ-24: good TLS certificates of others open nothing at the SHO: the name decides."""
    url = sho._base_url
    async with calling(url, pki.client(name)) as other:
        assert await refusal_code(Handover(pki, device).send(other)) == "client-not-allowed"


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
