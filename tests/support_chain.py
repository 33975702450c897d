"""DPF, PVA, two home operators and a device with a software TRE in one process, nothing of them played by a stub.

Partners speak over TLS on loopback. Messages of the device go to the DPF in memory, where a test loses them at will.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding as CertEncoding
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from actor_runtime.http import PartnerClient
from actor_runtime.sealing import SealingKey
from actor_runtime.trail import Trail
from dmclient.agent import Agent
from dmclient.called_sessions import RetryPolicy
from dmclient.calls import Call
from dmclient.device import Device, DeviceProfile
from dmclient.dm_account import write_account
from dmclient.http_transport import HttpAnswer, TransportFailed
from dmclient.management_session import SessionSettings
from dmclient.objects.device import DeviceFacts
from dmclient.store.state_file import StateFile
from dmclient.tre.environment import Tre
from dmclient.tre.software import SoftwareKeyStore
from dmserver.asks import Ask, Outcome, PartnerDown
from dmserver.endpoint import Request
from dmserver.orders import ENDED, Order
from dmserver.partners import HttpPartners
from mcim.certificates import Role, TrustAnchors
from mcim.vocabulary import ContainerState, Operation
from pva.app import application as pva_application
from pva.app import build as build_pva
from pva.store.repository import put_reference
from sho.app import Sho, network_application
from sho.app import build as build_sho
from sho.app import partner_application as sho_partners
from sho.store import repository
from sho.subscriptions import Credential
from syncml.bootstrap import DmBootstrap, DmCredentials
from syncml.codec import Encoding, decode
from syncml.codes import AuthType
from syncml.model import Add, Command, Exec, Replace, walk
from tests import support_sho
from tests.support_dmserver import DM_URL, Clock, Dpf
from tests.support_dpf_pki import rules
from tests.support_fake_partners import FakePartners
from tests.support_operators import DPF_ID, M2ME_ID, PVA_ID, SHO_ID, TRE_ID, Pki, calling, ec_key, pem_key, running
from tests.support_registration import tls_for
from tests.support_validation import REFERENCES, pva_settings

OTHER_SHO = "sho2.example"
SEAL_KEY = SealingKey(bytes(range(32)))
POLICY = RetryPolicy(attempts=1, polls=6, attach_attempts=1)  # a session that breaks off is over: the test comes again
STOCK = {
    SHO_ID: Credential(imsi="001010000000001", k=b"first-operator-k", opc=b"first-operator-o"),
    OTHER_SHO: Credential(imsi="001010000000002", k=b"other-operator-k", opc=b"other-operator-o"),
}
STATE_AT_THE_SHO = {ContainerState.ACTIVATED: "armed", ContainerState.SUSPENDED: "suspended"}


class PowerCut(Exception):
    """The device is gone in mid-session."""


@dataclass
class RealPartners(FakePartners):
    """PVA and SHOs as the DPF knows them. `loses` says whether the answer to an ask gets lost, once it was given."""

    partners: HttpPartners | None = None
    loses: Callable[[Ask], bool] = lambda _: False

    async def ask(self, ask: Ask) -> Outcome:
        assert self.partners is not None
        self.asked.append(ask)
        outcome = await self.partners.ask(ask)
        return PartnerDown(reason="the answer got lost") if self.loses(ask) else outcome


@dataclass
class Wire:
    """What is between device and DPF. Exchanges are counted from 1 since `begin`."""

    chain: Chain
    exchanges: int = 0
    delivered: list[Command] = field(default_factory=list)  # commands that reached the device
    hook: Callable[[int, str], None] = lambda _number, _when: None  # called "before" the DPF hears, and "after"

    def begin(self, hook: Callable[[int, str], None] = lambda _number, _when: None) -> None:
        self.exchanges, self.hook = 0, hook
        self.delivered.clear()

    async def post(self, url: str, body: bytes, encoding: Encoding, mac: str | None = None) -> HttpAnswer:
        self.exchanges += 1
        number = self.exchanges
        self.hook(number, "before")
        answer = await self.chain.dpf.endpoint.handle(
            Request(
                body=body,
                content_type="application/vnd.syncml.dm+xml",
                server_uri=DM_URL,
                token=url.partition("?s=")[2],
                mac=mac,
            )
        )
        self.hook(number, "after")
        if answer.status != 200:
            raise TransportFailed(f"status {answer.status}")
        self.delivered += walk(decode(answer.body, encoding).commands)
        return HttpAnswer(body=answer.body, encoding=encoding, mac=answer.mac)

    def set_off(self) -> int:
        """How often something for the TRE reached the device: a whole package, or the Exec of a command."""
        packages = [
            item
            for command in self.delivered
            if isinstance(command, Add | Replace)
            for item in command.items
            if (item.target or "").endswith("/Package") and not item.more_data
        ]
        ends = ("/Activate", "/Suspend", "/Delete")
        execs = [each for each in self.delivered if isinstance(each, Exec) and each.items[0].target.endswith(ends)]
        return len(packages) + len(execs)


@dataclass
class Chain:
    """Everything that runs."""

    directory: Path
    clock: Clock
    dpf: Dpf
    shos: dict[str, Sho]
    networks: dict[str, PartnerClient]
    partners: RealPartners
    device: Device = field(init=False)
    wire: Wire = field(init=False)

    def __post_init__(self) -> None:
        self.wire = Wire(self)

    # -- the device

    def power_up(self) -> None:
        """The device starts from what is on its disk."""
        tre_directory = self.directory / "tre"
        tre = Tre.open(tre_directory, SEAL_KEY, SoftwareKeyStore(tre_directory))
        self.device = Device(
            profile=DeviceProfile(facts=DeviceFacts(device_id=M2ME_ID)),
            tre=tre,
            state_file=StateFile(self.directory / "device.state", SEAL_KEY),
            trail=Trail("M2ME", sink=lambda _: None, now=self.clock),
            now=self.clock,
        )

    async def visit(self) -> str:
        """The device comes once, and does what follows from it; why it failed, empty when it did not."""
        self.clock.advance(1)
        agent = Agent(
            device=self.device,
            transport=self.wire,
            network=None,
            networks=self.networks,
            settings=SessionSettings(max_msg_size=8192),
            policy=POLICY,
            sleep=asyncio.sleep,
        )
        agent.prepare()
        return await agent.serve(Call(server_id=DPF_ID))

    def mcim(self, mcim_id: str | None) -> ContainerState | None:
        """State of an MCIM in the TRE, None: it is not there."""
        return next((each.state for each in self.device.mcims() if str(each.mcim_id) == mcim_id), None)

    # -- orders

    async def order(self, operation: str, sho_id: str = SHO_ID, *, mcim_id: str | None = None, **terms: Any) -> str:
        """A home operator orders something."""
        target = {} if mcim_id is None else {"mcim_id": mcim_id}
        purpose = {"purpose": "change-of-sho"} if operation == "replace" else {}
        order_id = self.dpf.open_order(M2ME_ID, sho_id=sho_id, operation=operation, **target, **purpose)
        await support_sho.order(self.shos[sho_id], order_id, operation=Operation[operation.upper()], **target, **terms)
        return order_id

    async def settle(self, order_id: str, *, visits: int = 12) -> Order:
        """The device comes until the order is over; between its sessions the DPF tidies."""
        for _ in range(visits):
            if self.dpf.order(order_id).state not in ENDED:
                await self.visit()
            await self.dpf.conductor.tidy()
        return self.dpf.order(order_id)

    async def subscription(self, sho_id: str = SHO_ID) -> str:
        """State of the one subscription of a home operator."""
        (row,) = await self.shos[sho_id].store.read(lambda c: repository.list_subscriptions(c, state=None, limit=10))
        return str(row["state"])


@asynccontextmanager
async def chain(pki: Pki, directory: Path) -> AsyncIterator[Chain]:
    """All of them, a device with an account at the DPF, and one subscription at each home operator."""
    clock = Clock(now=datetime.now(UTC).replace(microsecond=0))
    async with AsyncExitStack() as stack:
        shos, urls, networks = {}, {}, {}
        for sho_id, credential in STOCK.items():
            home = directory / sho_id
            home.mkdir()
            sho = build_sho(support_sho.sho_settings(pki, home, sho_id=sho_id, **_identity(pki, sho_id)), now=clock)
            stack.push_async_callback(sho.close)
            sealed = sho.vault.seal(credential)
            await sho.store.write(
                lambda c, sealed=sealed, mask=credential.imsi_mask: repository.add_subscription(
                    c, sealed, imsi_mask=mask, amf=b"\x80\x00", now=clock()
                )
            )
            urls[sho_id] = await stack.enter_async_context(running(sho_partners(sho), pki.server(sho_id)))
            access = await stack.enter_async_context(
                running(network_application(sho), pki.server(sho_id, mutual=False))
            )
            networks[sho_id] = await stack.enter_async_context(calling(access, pki.client(None)))
            shos[sho_id] = sho
        pva = build_pva(pva_settings(pki, directory), now=clock)
        stack.push_async_callback(pva.close)
        await pva.store.write(lambda c: put_reference(c, REFERENCES["semi"], now=clock()))
        pva_url = await stack.enter_async_context(running(pva_application(pva), pki.server("pva.example")))
        partners = RealPartners()
        dpf = Dpf(
            directory,
            partners=partners,
            clock=clock,
            rules=rules(
                manufacturers=TrustAnchors((pki.manufacturer.certificate,), "manufacturer"),
                pvas=TrustAnchors((pki.pva.certificate,), "pva"),
                pva_id=PVA_ID,
            ),
        )
        stack.callback(lambda: dpf.close())
        partners.partners = HttpPartners(
            pva=await stack.enter_async_context(calling(pva_url, pki.client(DPF_ID))),
            shos={
                sho_id: await stack.enter_async_context(calling(url, pki.client(DPF_ID)))
                for sho_id, url in urls.items()
            },
            trail=Trail("DPF", sink=lambda _: None, now=clock),
        )
        dpf.add_device(M2ME_ID)
        _manufacture(pki, directory / "tre")
        made = Chain(directory, clock, dpf, shos, networks, partners)
        made.power_up()
        _give_account(made)
        yield made


def _identity(pki: Pki, sho_id: str) -> dict[str, Path]:
    """Certificates of the second home operator; the first has its own."""
    if sho_id == SHO_ID:
        return {}
    if not pki.path(f"{sho_id}.tls.crt").exists():
        tls_for(pki, sho_id)
        key = ec_key()
        certificate = pki.sho.issue_role(key, Role.SHO, sho_id)
        pki.file(f"{sho_id}-signing.crt", certificate.public_bytes(CertEncoding.PEM))
        pki.file(f"{sho_id}-signing.key", pem_key(key))
    return {
        "tls_cert": pki.path(f"{sho_id}.tls.crt"),
        "tls_key": pki.path(f"{sho_id}.tls.key"),
        "signing_cert": pki.path(f"{sho_id}-signing.crt"),
        "signing_key": pki.path(f"{sho_id}-signing.key"),
    }


def _manufacture(pki: Pki, directory: Path) -> None:
    """A TRE with certificates, which trusts the root of the home operators."""
    directory.mkdir()
    tre = Tre.manufacture(
        directory,
        seal_key=SEAL_KEY,
        key_store=SoftwareKeyStore(directory),
        m2me_id=M2ME_ID,
        tre_id=TRE_ID,
        key_type="ec",
    )
    request = tre.certification_request()
    platform, attest = (
        pki.manufacturer.issue_role(load_pem_public_key_pair(request[name]), role, TRE_ID, serial=M2ME_ID)
        for name, role in (("platformKey", Role.PLATFORM), ("attestKey", Role.ATTEST))
    )
    tre.install_certificates(platform, attest, [], [pki.sho.certificate])


class load_pem_public_key_pair:
    """A public key where `issue_role` takes a pair."""

    def __init__(self, pem: str) -> None:
        self._key = load_pem_public_key(pem.encode())

    def public_key(self) -> Any:
        return self._key


def _give_account(made: Chain) -> None:
    """What a bootstrap would have brought."""
    held = made.dpf.account(M2ME_ID)
    write_account(
        made.device.tree,
        DmBootstrap(
            server_id=DPF_ID,
            addr=DM_URL,
            client=DmCredentials(
                auth_type=AuthType.MD5, name=held.client_name, secret=held.client_secret, nonce=held.client_nonce
            ),
            server=DmCredentials(
                auth_type=AuthType.MD5, name=held.server_name, secret=held.server_secret, nonce=held.server_nonce
            ),
        ),
    )
    made.device.save()
