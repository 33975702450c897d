"""A PVA with all its modes, what a DPF sends it, and a TPM made by hand: for tests of validation and its attacks."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import struct
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from actor_runtime.http import PartnerClient, PartnerRefused, to_base64
from mcim.certificates import TrustAnchors
from mcim.evidence import Evidence, capabilities_digest, quote_evidence, sign_evidence
from mcim.measurement_log import Measurement, composite_digest, encode_log, replay
from mcim.ticket import Ticket, verify_ticket
from mcim.tpm_quote import GENERATED
from mcim.vocabulary import ValidationMode
from pva.app import Pva, application, build
from pva.config import PvaSettings
from pva.references import Reference, ReferenceMeasurement
from pva.store import repository
from tests.support_operators import DPF_ID, PVA_ID, SHO_ID, TRE_VERSION, Device, Pki, calling, der, running

COUNTER = itertools.count(1)  # of the evidence of every TRE here, as if each had made all of it
OTHER_DPF = "stranger.example"  # has a TLS certificate in the test's PKI
CAPABILITIES = capabilities_digest(suites=["MCIM-RSA-GCM-256"], containers=["xml"], algorithms=["milenage"])


def digest_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


LOG = tuple(
    Measurement(register, name, digest_of(name))
    for register, name in ((11, "bootloader"), (11, "kernel"), (12, "tre"), (11, "dm-client"))
)
MEASURED = tuple(ReferenceMeasurement(each.name, each.digest) for each in LOG)
OPTIONAL = ReferenceMeasurement("debug-symbols", digest_of("debug-symbols"), required=False)
REFERENCES = {
    "semi": Reference(tre_type="software", version=TRE_VERSION),
    "autonomous": Reference(tre_type="uicc", version="1", minimum_mode=ValidationMode.AUTONOMOUS),
    "remote": Reference(
        tre_type="pkcs11", version="1", minimum_mode=ValidationMode.REMOTE, measurements=(*MEASURED, OPTIONAL)
    ),
    "tpm": Reference(
        tre_type="tpm",
        version="1",
        minimum_mode=ValidationMode.REMOTE,
        requires_quote=True,
        measurements=(*MEASURED, OPTIONAL),
    ),
    "tpm-semi": Reference(tre_type="tpm", version="2", requires_quote=True),
    "without measurements": Reference(tre_type="pkcs11", version="2", minimum_mode=ValidationMode.SEMI_AUTONOMOUS),
}


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def pva_settings(pki: Pki, directory: Path, **changes: Any) -> PvaSettings:
    values: dict[str, Any] = {
        "pva_id": PVA_ID,
        "database_url": f"sqlite:///{directory / 'pva.sqlite'}",
        "trace_file": directory / "pva.jsonl",
        "tls_cert": pki.path("pva.example.tls.crt"),
        "tls_key": pki.path("pva.example.tls.key"),
        "tls_ca": pki.path("tls-anchors.pem"),
        "allowed_clients": frozenset({DPF_ID, OTHER_DPF}),
        "signing_cert": pki.path("pva-signing.crt"),
        "signing_key": pki.path("pva-signing.key"),
        "manufacturer_anchors": pki.path("manufacturer-anchors.pem"),
        "modes": frozenset(ValidationMode),
    }
    return PvaSettings(**(values | changes))


@asynccontextmanager
async def running_pva(settings: PvaSettings, pki: Pki) -> Any:
    """The PVA with its reference values, behind TLS, and a DPF's connection to it."""
    pva = build(settings, now=Clock())
    for reference in REFERENCES.values():
        await pva.store.write(lambda c, one=reference: repository.put_reference(c, one, now=datetime.now(UTC)))
    await pva.start()
    try:
        async with (
            running(application(pva), pki.server("pva.example")) as url,
            calling(url, pki.client(DPF_ID)) as dpf,
        ):
            yield pva, dpf, url
    finally:
        await pva.close()


class SoftTpm:
    """Registers, and quotes over them as a TPM signs them (TPMS_ATTEST), by the device's attestation key."""

    def __init__(self, log: tuple[Measurement, ...] = LOG, registers: tuple[int, ...] = (11, 12)) -> None:
        self.registers = registers
        extended = replay(log)
        self.values = {register: extended.get(register, bytes(32)) for register in registers}

    def attest(self, data: bytes) -> bytes:
        selection = sum(1 << register for register in self.registers).to_bytes(3, "little")
        name, digest = b"\x00\x0b" + bytes(32), composite_digest(self.values)
        return b"".join(
            (
                GENERATED,
                struct.pack(">H", 0x8018),
                struct.pack(">H", len(name)) + name,
                struct.pack(">H", len(data)) + data,
                struct.pack(">QIIBQ", 5000, 1, 0, 1, 1),
                struct.pack(">IHB", 1, 0x000B, len(selection)) + selection,
                struct.pack(">H", len(digest)) + digest,
            )
        )


class Validation:
    """One validation as DPF and device see it; a test may spoil it at any place. `tpm`: evidence is a quote by it."""

    def __init__(
        self,
        device: Device,
        known: Reference = REFERENCES["semi"],
        *,
        mode: ValidationMode = ValidationMode.SEMI_AUTONOMOUS,
        tpm: SoftTpm | None = None,
        log: tuple[Measurement, ...] | None = None,
    ) -> None:
        self.device, self.known, self.mode, self.tpm = device, known, mode, tpm
        self.log = None if log is None else encode_log(log)
        self.req_id, self.nonce, self.challenge = uuid.uuid4(), os.urandom(32), b""

    async def ask(self, dpf: PartnerClient) -> Validation:
        body = {"reqId": str(self.req_id), "treId": self.device.tre_id, "mode": self.mode.value}
        answer = await dpf.post("/v1/challenge", body, idempotency_key=f"{self.req_id}:challenge")
        self.challenge = base64.b64decode(answer["challenge"])
        return self

    def evidence(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "mode": self.mode,
            "m2me_id": self.device.m2me_id,
            "tre_id": self.device.tre_id,
            "tre_type": self.known.tre_type,
            "tre_version": self.known.version,
            "tre_state": "ok",
            "platform_key_id": self.device.platform_key_id,
            "challenge": self.challenge,
            "nonce": self.nonce,
            "req_id": self.req_id,
            "counter": next(COUNTER),
            "capabilities": CAPABILITIES,
            "log_digest": b"" if self.log is None or self.tpm else hashlib.sha256(self.log).digest(),
        }
        made = Evidence(**(values | changes))
        if self.tpm is None:
            return sign_evidence(made, self.device.sign)
        tpm = self.tpm

        def quote(data: bytes) -> tuple[bytes, bytes]:
            octets = tpm.attest(data)
            return octets, self.device.sign(octets)

        return quote_evidence(made, quote)

    def body(self, **changes: Any) -> dict[str, Any]:
        autonomous = self.mode is ValidationMode.AUTONOMOUS
        members = {
            "reqId": str(self.req_id),
            "m2meId": self.device.m2me_id,
            "treId": self.device.tre_id,
            "platformCert": der(self.device.platform_cert),
            "attestCert": der(self.device.attest_cert),
            "chain": [],
            "evidence": "" if autonomous else to_base64(self.evidence()),
            "nonce": to_base64(self.nonce),
            "challenge": "" if autonomous else to_base64(self.challenge),
            "mode": self.mode.value,
            "audience": [DPF_ID, SHO_ID],
            "treType": self.known.tre_type,
            "treVersion": self.known.version,
        }
        if self.log is not None:
            members["log"] = to_base64(self.log)
        return members | changes

    async def validate(self, dpf: PartnerClient, *, key: str = "", **changes: Any) -> str:
        answer = await dpf.post("/v1/validate", self.body(**changes), idempotency_key=key or f"{self.req_id}:1")
        return str(answer["ticket"])


async def refused(call: Any) -> str:
    """The name of the check by which the PVA refused a platform."""
    with pytest.raises(PartnerRefused) as caught:
        await call
    assert (caught.value.status, caught.value.code) == (403, "platform-not-trusted")
    return caught.value.detail


async def last_decision(pva: Pva) -> dict[str, object]:
    return (await pva.store.read(lambda c: repository.list_decisions(c, limit=1)))[0]


def read_ticket(token: str, pki: Pki, audience: str = DPF_ID, now: datetime | None = None) -> Ticket:
    anchors = TrustAnchors((pki.pva.certificate,), "pva")
    return verify_ticket(token, anchors, now or datetime.now(UTC), audience=audience, pva_id=PVA_ID)
