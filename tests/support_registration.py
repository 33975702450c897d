"""A registration operator with its partners around it: PVA, SHO and the DPF's partner listener, over real TLS."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from actor_runtime.http import PartnerClient, PartnerRefused, to_base64
from actor_runtime.sealing import SealingKey
from actor_runtime.store import Store
from actor_runtime.trail import Trail, TrailRecord
from dmserver.app import partner_application as dpf_partners
from dmserver.bootstrap_requests import BootstrapRequests, add_bootstrap_route
from dmserver.conductor import Conductor
from dmserver.config import DmServerSettings, Limits
from dmserver.partners import NoPartners
from dmserver.store import MIGRATIONS
from dmserver.store.accounts import add_device
from mcim.aka import Accepted, SyncFailure, UsimState
from mcim.network_keys import AuthenticationFunctions
from pva.app import application as pva_application
from pva.app import build as build_pva
from pva.config import PvaSettings
from pva.references import Reference
from pva.store.repository import put_reference
from ro.app import Ro, network_application
from ro.app import build as build_ro
from ro.config import RoSettings
from ro.identities import ProvisionalIdentity, new_identity
from ro.store import repository
from sho.app import Sho
from sho.app import build as build_sho
from sho.app import partner_application as sho_partners
from sho.config import ShoSettings
from tests.support_operators import (
    DPF_ID,
    M2ME_ID,
    PVA_ID,
    SHO_ID,
    TRE_ID,
    TRE_TYPE,
    TRE_VERSION,
    Pki,
    calling,
    ec_key,
    pem_key,
    running,
)

RO_ID = "ro.example"
OTHER_M2ME = "urn:imei:004999010640018"
UNIFORM = (403, "attach-refused", "")


class Clock:
    """The real time, and what a test puts on top of it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Usim:
    """The device's side of AKA with a PCID."""

    def __init__(self, identity: ProvisionalIdentity) -> None:
        self.imsi = identity.imsi
        self.functions: AuthenticationFunctions = identity.keys.functions()
        self.state = UsimState.initial(0)

    def judge(self, challenge: dict[str, Any]) -> Any:
        rand, autn = base64.b64decode(challenge["rand"]), base64.b64decode(challenge["autn"])
        self.state, result = self.state.verify(self.functions, rand=rand, autn=autn)
        return result

    async def answer(self, network: PartnerClient, challenge: dict[str, Any]) -> dict[str, Any]:
        while True:
            result, path = self.judge(challenge), f"/v1/attach/{challenge['session']}"
            if isinstance(result, Accepted):
                return await network.post(path, {"res": to_base64(result.res)})
            assert isinstance(result, SyncFailure)
            challenge = await network.post(path, {"auts": to_base64(result.auts)})

    async def attach(self, network: PartnerClient, **members: object) -> dict[str, Any]:
        challenge = await network.post("/v1/attach", {"imsi": self.imsi, "vno": "26201"} | members)
        return await self.answer(network, challenge)


async def refusal(call: Any) -> tuple[int, str, str]:
    """How a call is refused."""
    try:
        answer = await call
    except PartnerRefused as exc:
        return exc.status, exc.code, exc.detail
    raise AssertionError(f"not refused: {answer}")


@dataclass
class World:
    """Everything that runs."""

    pki: Pki
    directory: Path
    clock: Clock
    dpf_store: Store
    dpf_key: SealingKey
    sho: Sho
    ro: Ro
    network: PartnerClient  # the RO's, as a device sees it
    urls: dict[str, str]
    dpf_records: list[TrailRecord] = field(default_factory=list)
    phone: socket.socket | None = None

    def issue(self, *, days: int = 30, supplier: str | None = None) -> tuple[int, ProvisionalIdentity]:
        """A PCID from the CCIF."""
        identity, now = new_identity("00101"), self.clock()
        sealed = self.ro.vault.seal(identity, 1)
        number = self.ro.store.write_sync(
            lambda c: repository.add_identity(
                c, sealed, mask=identity.mask, not_after=now + timedelta(days=days), supplier=supplier, now=now
            )
        )
        assert number is not None
        return number, identity

    def push_address(self) -> str:
        """A UDP port of the device."""
        if self.phone is None:
            self.phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.phone.bind(("127.0.0.1", 0))
            self.phone.settimeout(10)
        return f"udp:127.0.0.1:{self.phone.getsockname()[1]}"

    def datagrams(self) -> list[bytes]:
        """What has arrived there."""
        found = []
        assert self.phone is not None
        self.phone.setblocking(False)
        while True:
            try:
                found.append(self.phone.recv(65536))
            except BlockingIOError:
                return found

    async def register(self, token: str, **members: object) -> dict[str, Any]:
        body = {"m2meId": M2ME_ID, "treId": TRE_ID, "push": self.push_address()} | members
        return await self.network.post("/v1/register", body, bearer=token)

    def add_device(self, m2me_id: str = M2ME_ID) -> None:
        """Make a device known to the DPF."""
        self.dpf_store.write_sync(lambda c: add_device(c, self.dpf_key, m2me_id, b"supplier-secret", datetime.now(UTC)))

    async def checks(self) -> dict[str, bool]:
        """Checks in the RO's trail by name; the last one of a name counts."""
        return {each["name"]: each["passed"] for each in await self.records() if each["kind"] == "check"}

    async def records(self) -> list[dict[str, Any]]:
        """The RO's trail, oldest first."""
        await self.ro.store.write(lambda _: None)
        return [json.loads(line) for line in (self.directory / "ro.jsonl").read_text().splitlines()]


def tls_for(pki: Pki, name: str) -> None:
    """A TLS certificate of that name beside the others."""
    key = ec_key()
    pki.file(f"{name}.tls.crt", pki.tls.issue_tls(key, name).public_bytes(Encoding.PEM))
    pki.file(f"{name}.tls.key", pem_key(key))


def tls_settings(pki: Pki, name: str) -> dict[str, Path]:
    return {
        "tls_cert": pki.path(f"{name}.tls.crt"),
        "tls_key": pki.path(f"{name}.tls.key"),
        "tls_ca": pki.path("tls-anchors.pem"),
    }


def ro_settings(pki: Pki, directory: Path, **changes: Any) -> RoSettings:
    values: dict[str, Any] = {
        "ro_id": RO_ID,
        "database_url": f"sqlite:///{directory / 'ro.sqlite'}",
        "seal_key": directory / "ro-seal.key",
        "trace_file": directory / "ro.jsonl",
        "attaches_per_hour": 4,
        "refused_retry_s": 7,
        "retry_s": 0.05,
        **tls_settings(pki, RO_ID),
    }
    return RoSettings(**values | changes)


@asynccontextmanager
async def world(pki: Pki, directory: Path, **changes: Any) -> AsyncIterator[World]:
    """All of them, each behind TLS of its own; `changes` are settings of the RO."""
    for name in (RO_ID, "sho2.example"):
        if not pki.path(f"{name}.tls.crt").exists():
            tls_for(pki, name)
    clock = Clock()
    async with AsyncExitStack() as stack:
        dpf_url, dpf_store, dpf_key, dpf_records = await _dpf(stack, pki, directory)
        sho = build_sho(
            ShoSettings(
                sho_id=SHO_ID,
                database_url=f"sqlite:///{directory / 'sho.sqlite'}",
                seal_key=directory / "sho-seal.key",
                allowed_clients=frozenset({DPF_ID}),
                allowed_registrars=frozenset({RO_ID}),
                dpf_url=dpf_url,
                signing_cert=pki.path("sho-signing.crt"),
                signing_key=pki.path("sho-signing.key"),
                manufacturer_anchors=pki.path("manufacturer-anchors.pem"),
                pva_anchors=pki.path("pva-anchors.pem"),
                **tls_settings(pki, SHO_ID),
            )
        )
        stack.push_async_callback(sho.close)
        sho_url = await stack.enter_async_context(running(sho_partners(sho), pki.server(SHO_ID)))
        pva_url = await _pva(stack, pki, directory, clock)
        settings = ro_settings(
            pki,
            directory,
            **{"shos": {SHO_ID: sho_url}, "default_sho": SHO_ID, "dpf_url": dpf_url, "pva_url": pva_url}
            | {"pva_anchors": pki.path("pva-anchors.pem"), "pva_id": PVA_ID}
            | changes,
        )
        ro = build_ro(settings, now=clock)
        stack.push_async_callback(ro.close)
        ro_url = await stack.enter_async_context(running(network_application(ro), pki.server(RO_ID, mutual=False)))
        network = await stack.enter_async_context(calling(ro_url, pki.client(None)))
        urls = {"dpf": dpf_url, "sho": sho_url, "pva": pva_url, "ro": ro_url}
        made = World(pki, directory, clock, dpf_store, dpf_key, sho, ro, network, urls, dpf_records)
        try:
            yield made
        finally:
            if made.phone is not None:
                made.phone.close()


async def _dpf(stack: AsyncExitStack, pki: Pki, directory: Path) -> tuple[str, Store, SealingKey, list[TrailRecord]]:
    store = Store(f"sqlite:///{directory / 'dpf.sqlite'}", MIGRATIONS)
    store.upgrade()
    stack.callback(store.close)
    key, records = SealingKey(bytes(32)), list[TrailRecord]()
    trail = Trail("DPF", sink=records.append)
    settings = DmServerSettings(
        server_id=DPF_ID,
        public_dm_url="https://127.0.0.1:9/dm",
        pva_url="https://127.0.0.1:9",
        manufacturer_anchors=pki.path("manufacturer-anchors.pem"),
        pva_anchors=pki.path("pva-anchors.pem"),
        shos={SHO_ID: "https://127.0.0.1:9"},
        allowed_registrars=frozenset({RO_ID}),
        limits={"bootstraps_per_hour": 3},
        **tls_settings(pki, DPF_ID),
    )
    conductor = Conductor(store=store, trail=trail, partners=NoPartners(), rules=None)
    limits = Limits(order_lifetime_s=600)
    app = dpf_partners(store=store, trail=trail, conductor=conductor, shos=settings.shos, limits=limits)
    add_bootstrap_route(app, BootstrapRequests(settings, store, key, trail))
    url = await stack.enter_async_context(running(app, pki.server(DPF_ID)))
    return url, store, key, records


async def _pva(stack: AsyncExitStack, pki: Pki, directory: Path, clock: Clock) -> str:
    pva = build_pva(
        PvaSettings(
            pva_id=PVA_ID,
            database_url=f"sqlite:///{directory / 'pva.sqlite'}",
            allowed_clients=frozenset({RO_ID}),
            signing_cert=pki.path("pva-signing.crt"),
            signing_key=pki.path("pva-signing.key"),
            manufacturer_anchors=pki.path("manufacturer-anchors.pem"),
            **tls_settings(pki, "pva.example"),
        ),
        now=clock,
    )
    stack.push_async_callback(pva.close)
    known = Reference(tre_type=TRE_TYPE, version=TRE_VERSION)
    await pva.store.write(lambda c: put_reference(c, known, now=datetime.now(UTC)))
    return await stack.enter_async_context(running(pva_application(pva), pki.server("pva.example")))
