"""A CA publishes, an actor fetches, a certificate is revoked in the middle of an order: no phase 2 then (REQ-21).

PVA, SHO and DPF each find out by themselves; the other two are not there, or know of nothing.
"""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from actor_runtime.crl_source import CrlSource, RevocationSettings
from actor_runtime.http import PartnerRefused, to_base64
from actor_runtime.tls import client_context, server_context
from dmserver.asks import AskPackage, AskTicket, PartnerDown
from dmserver.orders import OrderState
from m2m_ca.directory import CaDirectory
from m2m_ca.publisher import application as publisher_application
from m2m_ca.records import RevocationReason
from m2m_ca.revocation_lists import make_lists
from mcim.certificates import TrustAnchors, load_pem_chain
from mcim.evidence import capabilities_digest
from mcim.key_id import key_id_of
from mcim.receipt import Receipt, sign_receipt
from mcim.statements import raw_signature
from mcim.ticket import Ticket, issue_ticket
from mcim.vocabulary import Operation, ResultCode, ValidationMode
from pva.app import application as pva_application
from pva.app import build as build_pva
from pva.config import PvaSettings
from pva.references import Reference
from pva.store import repository as pva_store
from sho.app import build as build_sho
from sho.app import partner_application as sho_application
from sho.config import ShoSettings
from sho.store import repository as sho_store
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
    calling,
    der,
    ec_key,
    rsa_key,
    running,
)
from tests.support_validation import Validation, refused

OFFER = {"suites": ["MCIM-RSA-GCM-256"], "containers": ["xml"], "algorithms": ["milenage"]}
ORDER = "0b5f7bd2-9a04-4b53-9d3c-2f6f0a8f5a11"
GONE = RevocationReason.KEY_COMPROMISE


class Authority:
    """A CA directory, its publisher, and how a test has it revoke."""

    def __init__(self, path: Path, now: datetime) -> None:
        self.ca, self.now = CaDirectory(path), now
        hosts = ["localhost", "127.0.0.1"]
        self.ca.demo_pki(hosts=hosts, sho_id=SHO_ID, dpf_id=DPF_ID, pva_id=PVA_ID, now=now)
        make_lists(self.ca, now)
        self.url = ""

    def path(self, name: str) -> Path:
        return self.ca.path / name

    def lists(self, directory: Path, *names: str) -> dict[str, Any]:
        """Settings of an actor that wants lists of these CAs."""
        return {
            "crl_urls": tuple(f"{self.url}crl/{name}.crl" for name in names),
            "crl_issuers": self.path("anchors/crl-issuers.pem"),
            "crl_cache_dir": directory / "crls",
            "crl_required": True,
        }

    def tls(self, actor: str) -> dict[str, Any]:
        return {
            "tls_cert": self.path(f"{actor}/tls.crt"),
            "tls_key": self.path(f"{actor}/tls.key"),
            "tls_ca": self.path("anchors/tls.pem"),
        }

    async def revoke(self, certificate: x509.Certificate, actor: CrlSource) -> None:
        """Revoke and publish, and let that one actor fetch."""
        assert self.ca.revoke_certificate(certificate, GONE, self.now)
        make_lists(self.ca, self.now)
        await actor.refresh()

    def certify(self, platform_key: Any, attest_key: Any, m2me_id: str, tre_id: str) -> Any:
        keys = {"platformKey": platform_key.public_key(), "attestKey": attest_key.public_key()}
        pem = {
            name: key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            for name, key in keys.items()
        }
        body = {"m2meId": m2me_id, "treId": tre_id} | pem
        octets = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        proof = base64.b64encode(raw_signature(attest_key, octets)).decode()
        return self.ca.issue_tre(body | {"proof": proof}, self.now)


@asynccontextmanager
async def publishing(authority: Authority) -> AsyncIterator[Authority]:
    server = TestServer(publisher_application(authority.ca))
    await server.start_server()
    authority.url = str(server.make_url("/"))
    try:
        yield authority
    finally:
        await server.close()


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Authority]:
    async with publishing(Authority(tmp_path / "pki", datetime.now(UTC).replace(microsecond=0))) as made:
        yield made


class Tre:
    """A device as `support_validation` wants it, certified by the CA directory."""

    m2me_id, tre_id = M2ME_ID, TRE_ID

    def __init__(self, authority: Authority) -> None:
        self.platform_key, self.attest_key = rsa_key(), ec_key()
        issued = authority.certify(self.platform_key, self.attest_key, M2ME_ID, TRE_ID)
        self.platform_cert, self.attest_cert, self.chain = issued.platform, issued.attest, issued.chain

    @property
    def platform_key_id(self) -> bytes:
        return key_id_of(self.platform_key.public_key())

    def sign(self, octets: bytes) -> bytes:
        return raw_signature(self.attest_key, octets)


def intermediate(tre: Tre) -> x509.Certificate:
    return tre.chain[0]


REVOKED = {
    "platform": lambda tre: tre.platform_cert,
    "attestation": lambda tre: tre.attest_cert,
    "manufacturer CA": intermediate,
}


# --- PVA --------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_pva(authority: Authority, directory: Path, *lists: str) -> AsyncIterator[tuple[Any, Any]]:
    """A PVA that demands lists and fetches these, and a DPF's connection to it."""
    settings = PvaSettings(
        pva_id=PVA_ID,
        database_url=f"sqlite:///{directory / 'pva.sqlite'}",
        allowed_clients=frozenset({DPF_ID}),
        signing_cert=authority.path("pva/signing.crt"),
        signing_key=authority.path("pva/signing.key"),
        manufacturer_anchors=authority.path("anchors/manufacturer.pem"),
        **authority.tls("pva"),
        **authority.lists(directory, *lists),
    )
    pva = build_pva(settings)
    known = Reference(tre_type=TRE_TYPE, version=TRE_VERSION)
    await pva.store.write(lambda c: pva_store.put_reference(c, known, now=authority.now))
    await pva.start()
    try:
        async with dpf_at(authority, pva_application(pva), "pva") as dpf:
            yield pva, dpf
    finally:
        await pva.close()


@pytest.mark.parametrize(
    ("what", "check"), [("platform", "platform"), ("attestation", "attest"), ("manufacturer CA", "platform")]
)
async def test_the_pva_gives_no_ticket(authority: Authority, tmp_path: Path, what: str, check: str) -> None:
    """REQ-20, REQ-21, T17: revoked between challenge and evidence."""
    async with a_pva(authority, tmp_path, "manufacturer", "manufacturer-root") as (pva, dpf):
        tre = Tre(authority)
        chain = [der(each) for each in tre.chain]
        good, late = Validation(tre), Validation(tre)  # a device as tests have it
        assert await (await good.ask(dpf)).validate(dpf, chain=chain)
        await late.ask(dpf)
        await authority.revoke(REVOKED[what](tre), pva.crls)
        assert await refused(late.validate(dpf, chain=chain)) == f"{check}-certificate"


@pytest.mark.parametrize("lists", [(), ("manufacturer",), ("manufacturer-root", "pva")], ids=["none", "ca", "root"])
async def test_the_pva_demands_lists(authority: Authority, tmp_path: Path, lists: tuple[str, ...]) -> None:
    """REQ-20, REQ-21: with `crl_required`, to withhold lists is to stop validation, not to get round it."""
    async with a_pva(authority, tmp_path, *lists) as (_, dpf):
        tre = Tre(authority)
        validation = await Validation(tre).ask(dpf)  # a device as tests have it
        chain = [der(each) for each in tre.chain]
        assert await refused(validation.validate(dpf, chain=chain)) == "platform-certificate"


@asynccontextmanager
async def dpf_at(authority: Authority, app: Any, actor: str) -> AsyncIterator[Any]:
    """An actor behind TLS, and a DPF's connection to it."""
    tls = authority.tls(actor)
    server = server_context(tls["tls_cert"], tls["tls_key"], client_ca=tls["tls_ca"])
    own = authority.tls("dpf")
    client = client_context(own["tls_ca"], cert=own["tls_cert"], key=own["tls_key"])
    async with running(app, server) as url, calling(url, client) as dpf:
        yield dpf


# --- SHO --------------------------------------------------------------------------------------------------------------


class Handover:
    """What the DPF sends with a ticket of the CA directory's PVA."""

    def __init__(self, authority: Authority, tre: Tre) -> None:
        self.tre, self.req_id, self.nonce = tre, uuid.uuid4(), os.urandom(32)
        key = load_pem_private_key(authority.path("pva/signing.key").read_bytes(), None)
        ticket = Ticket(
            issuer=PVA_ID,
            audience=(DPF_ID, SHO_ID),
            tre_id=TRE_ID,
            m2me_id=M2ME_ID,
            req_id=str(self.req_id),
            nonce=self.nonce,
            platform_key_id=tre.platform_key_id,
            attest_key_id=key_id_of(tre.attest_key.public_key()),
            mode=ValidationMode.SEMI_AUTONOMOUS,
            tre_type=TRE_TYPE,
            tre_version=TRE_VERSION,
            issued_at=authority.now,
            expires_at=authority.now + timedelta(hours=1),
            ticket_id="1",
            capabilities=capabilities_digest(**OFFER),
        )
        chain = load_pem_chain(authority.path("pva/signing.crt").read_bytes())
        self.ticket = issue_ticket(ticket, key, chain)  # the tool makes EC keys
        root = load_pem_chain(authority.path("anchors/sho.pem").read_bytes())[0]
        anchor = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
        self.body = {
            "reqId": str(self.req_id),
            "orderId": ORDER,
            "m2meId": M2ME_ID,
            "treId": TRE_ID,
            "treType": TRE_TYPE,
            "treVersion": TRE_VERSION,
            **OFFER,
            "trustAnchors": [anchor],
            "platformCert": der(tre.platform_cert),
            "chain": [der(each) for each in tre.chain],
            "nonce": to_base64(self.nonce),
            "nextSequence": 1,
            "ticket": self.ticket,
            "dpfId": DPF_ID,
        }

    async def send(self, dpf: Any) -> dict[str, Any]:
        return await dpf.post("/v1/handover", self.body, idempotency_key=f"{self.req_id}:handover")


def signer(authority: Authority) -> x509.Certificate:
    return load_pem_chain(authority.path("pva/signing.crt").read_bytes())[0]


@asynccontextmanager
async def an_sho(authority: Authority, directory: Path, *lists: str) -> AsyncIterator[tuple[Any, Any]]:
    """An SHO with an order and a subscription that demands lists and fetches these, and a DPF's connection to it."""
    settings = ShoSettings(
        sho_id=SHO_ID,
        database_url=f"sqlite:///{directory / 'sho.sqlite'}",
        seal_key=directory / "seal.key",
        allowed_clients=frozenset({DPF_ID}),
        signing_cert=authority.path("sho/signing.crt"),
        signing_key=authority.path("sho/signing.key"),
        manufacturer_anchors=authority.path("anchors/manufacturer.pem"),
        pva_anchors=authority.path("anchors/pva.pem"),
        **authority.tls("sho"),
        **authority.lists(directory, *lists),
    )
    sho = build_sho(settings)
    credential = Credential(imsi="001010000000001", k=b"k" * 15 + b"1", opc=b"o" * 15 + b"2")

    def fill(connection: Any) -> None:
        sealed, now = sho.vault.seal(credential), authority.now
        sho_store.add_subscription(connection, sealed, imsi_mask="x", amf=b"\x80\0", now=now)
        sho_store.add_order(connection, id="own", m2me_id=M2ME_ID, dpf_url="https://d", reason="initial", now=now)
        sho_store.set_order_opened(connection, "own", ORDER)

    await sho.store.write(fill)
    await sho.start()
    try:
        async with dpf_at(authority, sho_application(sho), "sho") as dpf:
            yield sho, dpf
    finally:
        await sho.close()


ALL_OF_SHO = ("manufacturer", "manufacturer-root", "pva")


async def refusal_code(call: Any) -> str:
    with pytest.raises(PartnerRefused) as caught:
        await call
    return caught.value.code


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("platform", "platform-certificate-refused"),
        ("manufacturer CA", "platform-certificate-refused"),
        ("PVA", "ticket-refused"),
    ],
)
async def test_the_sho_makes_no_package(authority: Authority, tmp_path: Path, what: str, code: str) -> None:
    """REQ-19, REQ-20, REQ-21, T17: revoked after the ticket; a package made before is not handed out again either."""
    async with an_sho(authority, tmp_path, *ALL_OF_SHO) as (sho, dpf):
        tre = Tre(authority)
        handover = Handover(authority, tre)
        assert (await handover.send(dpf))["package"]
        await authority.revoke(signer(authority) if what == "PVA" else REVOKED[what](tre), sho.crls)
        for late in (handover, Handover(authority, tre)):
            assert await refusal_code(late.send(dpf)) == code


@pytest.mark.parametrize(
    ("lists", "code"),
    [
        ((), "platform-certificate-refused"),
        (("manufacturer", "pva"), "platform-certificate-refused"),
        (("manufacturer", "manufacturer-root"), "ticket-refused"),
    ],
    ids=["none", "not-the-root's", "not-the-PVA's"],
)
async def test_the_sho_demands_lists(authority: Authority, tmp_path: Path, lists: tuple[str, ...], code: str) -> None:
    """REQ-19, REQ-20, REQ-21: with `crl_required` nothing is made where revocation cannot be seen."""
    async with an_sho(authority, tmp_path, *lists) as (_, dpf):
        assert await refusal_code(Handover(authority, Tre(authority)).send(dpf)) == code


@pytest.mark.parametrize("why", ["revoked", "no list"])
async def test_the_sho_takes_no_receipt(authority: Authority, tmp_path: Path, why: str) -> None:
    """REQ-21, REQ-67, REQ-68: who holds a revoked attestation key cannot have a subscription armed."""
    async with an_sho(authority, tmp_path, *ALL_OF_SHO) as (sho, dpf):
        tre = Tre(authority)
        handover = Handover(authority, tre)
        answer = await handover.send(dpf)
        receipt = Receipt(
            tre_id=TRE_ID,
            operation=Operation.INSTALL,
            mcim_id=uuid.UUID(answer["mcimId"]),
            sho_id=SHO_ID,
            sequence=answer["sequence"],
            nonce=handover.nonce,
            revision=1,
            package_hash=bytes.fromhex(answer["packageHash"]),
            result=ResultCode.SUCCESS,
            counter=2,
            time=authority.now,
        )
        report = {
            "orderId": ORDER,
            "reqId": str(handover.req_id),
            "receipt": to_base64(sign_receipt(receipt, tre.sign)),
            "attestCert": der(tre.attest_cert),
            "chain": [der(each) for each in tre.chain],
            "result": 1200,
        }
        if why == "revoked":
            assert await dpf.post("/v1/report", report)  # good until then, and a repeat is judged again
            await authority.revoke(tre.attest_cert, sho.crls)
        else:
            sho.crls._current = ()
        assert await refusal_code(dpf.post("/v1/report", report)) == "attest-certificate-refused"


# --- DPF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["platform", "attestation", "manufacturer CA"])
@pytest.mark.parametrize("where", ["before the hand-over", "before the push is repeated"])
async def test_the_dpf_pushes_nothing(tmp_path: Path, what: str, where: str) -> None:
    """REQ-20, REQ-21, REQ-23, T17: revoked between two sessions of an order; the device gets no package."""
    async with publishing(Authority(tmp_path / "pki", dm.NOW - timedelta(hours=1))) as authority:
        authority.now = dm.NOW
        issued, device = certified(authority)
        lists, dpf = a_dpf(authority, tmp_path)
        await lists.start(lambda text: None)
        try:
            order_id = dpf.open_order()
            if where == "before the hand-over":
                dpf.partners.answers[AskPackage] = lambda ask: PartnerDown(reason="maintenance")
                await dpf.session(device, dm.registration_alert(device), session_id="1")
                assert dpf.order(order_id).state is OrderState.HANDED_OVER, dpf.order(order_id).detail
                dpf.partners.answers.clear()
            else:
                session = dpf.client(device, dm.registration_alert(device), session_id="1")
                await dpf.run(device, session, stop=lambda one: bool(one.containers()))  # falls silent in the push
                assert dpf.order(order_id).state is OrderState.DELIVERING, dpf.order(order_id).detail
                device.nodes = {k: v for k, v in device.nodes.items() if not k.startswith(f"{device.sim}/")}
                dpf.clock.advance(60)
            await authority.revoke(REVOKED[what](_Issued(issued)), lists)
            await dpf.session(device, session_id="2")
            order = dpf.order(order_id)
            assert order.state is OrderState.REFUSED
            assert order.detail == ("attest" if what == "attestation" else "platform") + "-certificate (revoked)"
            assert device.containers() == []
        finally:
            await lists.stop()
            dpf.close()


def certified(authority: Authority) -> tuple[Any, dm.StubDevice]:
    """The stub device with certificates of the CA directory in its tree."""
    issued = authority.certify(dm.pki().platform_key, dm.pki().attest_key, dm.M2ME_ID, dm.TRE_ID)
    device = dm.StubDevice()
    device.put("M2MMobj/TRE/PlatformCert", dm.der(issued.platform))
    device.put("M2MMobj/TRE/AttestCert", dm.der(issued.attest))
    device.put("M2MMobj/TRE/CertChain/0", dm.der(issued.chain[0]))
    return issued, device


@pytest.mark.parametrize("why", ["revoked", "no list"])
async def test_the_dpf_takes_no_ticket_of_a_pva_that_may_be_revoked(tmp_path: Path, why: str) -> None:
    """REQ-19, REQ-21: the signer of the ticket is looked up like everybody else, and its list demanded."""
    async with publishing(Authority(tmp_path / "pki", dm.NOW - timedelta(hours=1))) as authority:
        authority.now = dm.NOW
        _, device = certified(authority)
        lists, dpf = a_dpf(authority, tmp_path, pva_list=why == "revoked")
        await lists.start(lambda text: None)
        try:
            order_id = dpf.open_order()
            dpf.partners.answers[AskTicket] = lambda ask: PartnerDown(reason="maintenance")
            await dpf.session(device, dm.registration_alert(device), session_id="1")
            dpf.partners.answers.clear()
            if why == "revoked":
                gone = dm.pki().pva_root.make_crl([dm.pki().pva_cert.serial_number], dm.NOW, number=2)
                (tmp_path / "pva.crl").write_bytes(gone.public_bytes(Encoding.DER))
                await lists.refresh()
            await dpf.session(device, session_id="2")
            assert dpf.order(order_id).detail == "pva: the ticket is not acceptable"
            assert dpf.checks(passed=False)[-1] == "pva-ticket"
        finally:
            await lists.stop()
            dpf.close()


async def test_the_dpf_demands_lists(tmp_path: Path) -> None:
    """REQ-20, REQ-21: a platform whose revocation cannot be seen is not taken on trust."""
    async with publishing(Authority(tmp_path / "pki", dm.NOW - timedelta(hours=1))) as authority:
        authority.now = dm.NOW
        _, device = certified(authority)
        lists, dpf = a_dpf(authority, tmp_path)  # nothing is fetched: the network is down
        try:
            order_id = dpf.open_order()
            await dpf.session(device, dm.registration_alert(device), session_id="1")
            assert dpf.order(order_id).detail == "platform-certificate (revocation-unknown)"
            assert lists.current()
        finally:
            dpf.close()


class _Issued:
    """The certificates of a TRE under the names that `REVOKED` has."""

    def __init__(self, issued: Any) -> None:
        self.platform_cert, self.attest_cert, self.chain = issued.platform, issued.attest, issued.chain


def a_dpf(authority: Authority, directory: Path, *, pva_list: bool = True) -> tuple[CrlSource, dm.Dpf]:
    """A DPF that demands lists: the manufacturers' over HTTP, the PVA's from a file."""
    (directory / "dpf").mkdir()
    clear = dm.pki().pva_root.make_crl([], dm.NOW - timedelta(hours=1))
    (directory / "pva.crl").write_bytes(clear.public_bytes(Encoding.DER))
    manufacturers = load_pem_chain(authority.path("anchors/manufacturer.pem").read_bytes())
    settings = RevocationSettings(
        crl_files=(directory / "pva.crl",) if pva_list else (),
        **authority.lists(directory, "manufacturer", "manufacturer-root"),
    )
    lists = CrlSource(settings, anchors=manufacturers, now=lambda: dm.NOW)
    rules = dm.rules(manufacturers=TrustAnchors(manufacturers, "manufacturer"), crls=lists.current, crl_required=True)
    dpf = dm.Dpf(directory / "dpf", rules=rules)
    dpf.add_device()
    return lists, dpf
