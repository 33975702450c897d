"""An SHO under test: its settings and stock, one exchange as DPF and device see it, a USIM that attaches."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from actor_runtime.http import to_base64
from mcim.aka import Accepted, SyncFailure, UsimState
from mcim.certificates import TrustAnchors
from mcim.content import parse_content
from mcim.data import decode_data
from mcim.evidence import capabilities_digest
from mcim.key_id import key_id_of
from mcim.mcim_object import open_mcim
from mcim.package import open_package, verify_package
from mcim.platform_key import SoftwarePlatformKey
from mcim.ticket import Ticket, issue_ticket
from mcim.vocabulary import Container, Operation, ResultCode, Suite, ValidationMode
from sho.app import build, partner_application
from sho.config import ShoSettings
from sho.store import repository, updates
from sho.store.repository import Terms
from sho.store.updates import NewValues
from sho.subscriptions import Credential
from tests.support_operators import (
    DPF_ID,
    M2ME_ID,
    PVA_ID,
    SHO_ID,
    TRE_TYPE,
    TRE_VERSION,
    calling,
    der,
    running,
)

CREDENTIALS = [
    Credential(imsi=f"00101000000{number:04}", k=bytes([number]) * 15 + b"k", opc=bytes([number]) * 15 + b"o")
    for number in (1, 2)
]
ORDER = "0b5f7bd2-9a04-4b53-9d3c-2f6f0a8f5a11"
SUITES = ["MCIM-LEGACY-1", "X-NEW", "MCIM-EC-GCM-256", "MCIM-RSA-GCM-256", "MCIM-RSA-CBC-256"]
OFFER = {"suites": SUITES, "containers": ["xml"], "algorithms": ["milenage"]}


def sho_settings(pki, directory, **changes):
    return ShoSettings(
        **{
            "sho_id": SHO_ID,
            "database_url": f"sqlite:///{directory / 'sho.sqlite'}",
            "seal_key": directory / "seal.key",
            "trace_file": directory / "trace.jsonl",
            "tls_cert": pki.path(f"{SHO_ID}.tls.crt"),
            "tls_key": pki.path(f"{SHO_ID}.tls.key"),
            "tls_ca": pki.path("tls-anchors.pem"),
            "allowed_clients": frozenset({DPF_ID}),
            "signing_cert": pki.path("sho-signing.crt"),
            "signing_key": pki.path("sho-signing.key"),
            "manufacturer_anchors": pki.path("manufacturer-anchors.pem"),
            "pva_anchors": pki.path("pva-anchors.pem"),
            "pva_id": PVA_ID,
        }
        | changes
    )


async def fill(sho, credentials=CREDENTIALS):
    now = datetime.now(UTC)

    def add(connection):
        for credential in credentials:
            assert repository.add_subscription(
                connection, sho.vault.seal(credential), imsi_mask=credential.imsi_mask, amf=b"\x80\x00", now=now
            )

    await sho.store.write(add)
    await order(sho)


async def order(sho, order_id=ORDER, *, m2me_id=M2ME_ID, dpf_url="https://d", **terms):
    """An order of this SHO, open at the DPF under `order_id`."""
    own = "own" if order_id == ORDER else f"own-{order_id}"[:36]

    def add(connection):
        repository.add_order(
            connection, id=own, m2me_id=m2me_id, dpf_url=dpf_url, reason="initial", now=datetime.now(UTC),
            terms=Terms(**terms),
        )  # fmt: skip
        repository.set_order_opened(connection, own, order_id)

    await sho.store.write(add)
    return order_id


@asynccontextmanager
async def serving(settings, pki, **options):
    """An SHO and the DPF's client of it."""
    sho = build(settings, **options)
    try:
        async with (
            running(partner_application(sho), pki.server(SHO_ID)) as url,
            calling(url, pki.client(DPF_ID)) as client,
        ):
            yield sho, client
    finally:
        await sho.close()


async def states(sho):
    rows = await sho.store.read(lambda c: repository.list_subscriptions(c, state=None, limit=100))
    return [row["state"] for row in rows]


class Exchange:
    """One provisioning as the DPF and the device see it; a test may spoil it at any place."""

    def __init__(self, pki, device, *, order_id=ORDER, operation="install", offer=OFFER, **ticket):
        self.pki, self.device = pki, device
        self.order_id, self.operation, self.offer = order_id, operation, dict(offer)
        self.req_id, self.nonce = uuid.uuid4(), os.urandom(32)
        self.ticket = self.make_ticket(**ticket)

    def make_ticket(self, *, key=None, chain=None, **changes):
        now = datetime.now(UTC).replace(microsecond=0)
        values = {
            "issuer": PVA_ID,
            "audience": (DPF_ID, SHO_ID),
            "tre_id": self.device.tre_id,
            "m2me_id": self.device.m2me_id,
            "req_id": str(self.req_id),
            "nonce": self.nonce,
            "platform_key_id": self.device.platform_key_id,
            "attest_key_id": self.attest_key_id,
            "mode": ValidationMode.SEMI_AUTONOMOUS,
            "tre_type": TRE_TYPE,
            "tre_version": TRE_VERSION,
            "issued_at": now,
            "expires_at": now + timedelta(hours=1),
            "ticket_id": "1",
            "capabilities": capabilities_digest(**self.offer),
        }
        return issue_ticket(Ticket(**values | changes), key or self.pki.pva_key, chain or [self.pki.pva_cert])

    @property
    def attest_key_id(self):
        return key_id_of(self.device.attest_key.public_key())

    def body(self, **changes):
        return {
            "reqId": str(self.req_id),
            "orderId": self.order_id,
            "m2meId": self.device.m2me_id,
            "treId": self.device.tre_id,
            "treType": TRE_TYPE,
            **self.offer,
            "operation": self.operation,
            "trustAnchors": [self.pki.sho.key_id],
            "platformCert": der(self.device.platform_cert),
            "chain": [],
            "nonce": to_base64(self.nonce),
            "nextSequence": 5,
            "ticket": self.ticket,
            "dpfId": DPF_ID,
        } | changes

    async def hand_over(self, dpf, **changes):
        body = self.body(**changes)
        answer = await dpf.post("/v1/handover", body, idempotency_key=f"{self.req_id}:handover")
        self.answer = answer
        if "package" in answer:
            self.package = base64.b64decode(answer["package"])
        return answer

    def verify(self):
        """What the TRE does before it opens anything."""
        anchors = TrustAnchors((self.pki.sho.certificate,), "sho")
        return verify_package(
            self.package,
            anchors=anchors,
            now=datetime.now(UTC),
            expected_sho_id=SHO_ID,
            containers=frozenset(Container),
        )

    def open(self):
        """What the TRE does: verify, open, parse."""
        verified = self.verify()
        key = SoftwarePlatformKey(self.device.platform_key)
        self.mcim_object = open_package(verified, key)
        opened = open_mcim(self.mcim_object, key, accepted=frozenset(Suite), random=os.urandom)
        data = decode_data(opened)
        return verified.header, parse_content(data.tag, data.payload)

    def receipt(self, **changes):
        values = {
            "operation": Operation[self.operation.upper()],
            "mcim_id": uuid.UUID(self.answer["mcimId"]),
            "sequence": self.answer["sequence"],
            "nonce": self.nonce,
            "package_hash": hashlib.sha256(self.package).digest(),
        }
        return self.device.receipt(**values | changes)

    async def report(self, dpf, octets, result=1200, **changes):
        return await dpf.post(
            "/v1/report",
            {
                "orderId": self.order_id,
                "reqId": str(self.req_id),
                "receipt": to_base64(octets),
                "attestCert": der(self.device.attest_cert),
                "chain": [],
                "result": result,
            }
            | changes,
        )

    async def finish(self, dpf, *, counter, result=ResultCode.SUCCESS, **changes):
        """Report a receipt with this result; returns the subscription's state."""
        octets = self.receipt(counter=counter, result=result, **changes)
        return (await self.report(dpf, octets, result=int(result)))["subscription"]


class Usim:
    """The device's side of AKA, with what came in the package."""

    def __init__(self, content):
        self.imsi, self.functions = content.imsi, content.keys.functions()
        self.state = UsimState.initial(content.sqn_init)

    def judge(self, challenge):
        rand, autn = base64.b64decode(challenge["rand"]), base64.b64decode(challenge["autn"])
        self.state, result = self.state.verify(self.functions, rand=rand, autn=autn)
        return result

    async def attach(self, network):
        """Attach; returns the final answer and the number of resynchronisations."""
        challenge, resyncs = await network.post("/v1/attach", {"imsi": self.imsi}), 0
        while True:
            result, path = self.judge(challenge), f"/v1/attach/{challenge['session']}"
            if isinstance(result, Accepted):
                return await network.post(path, {"res": to_base64(result.res)}), resyncs
            assert isinstance(result, SyncFailure)
            resyncs += 1
            challenge = await network.post(path, {"auts": to_base64(result.auts)})
            assert challenge["result"] == "challenge"


async def plan_update(sho, credential, *changes, amf=b"\x80\x00", policy=None):
    """Give the first subscription new values, as the command line does; the state of its values then."""
    values = NewValues(
        sealed=sho.vault.seal(credential), imsi_mask=credential.imsi_mask, amf=amf, policy=policy,
        changes=frozenset(changes),
    )  # fmt: skip

    def plan(connection):
        row = repository.get_subscription(connection, 1)
        return updates.plan(connection, row, values, now=datetime.now(UTC))

    return await sho.store.write(plan)


async def credential_of(sho):
    """What the first subscription has now."""
    row = await sho.store.read(lambda c: repository.get_subscription(c, 1))
    return sho.vault.open(row.sealed)
