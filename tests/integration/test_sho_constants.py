"""New constants of the algorithm alone (tag 02): a real SHO sends them, a real TRE takes them, both attach."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from actor_runtime.sealing import SealingKey
from actor_runtime.trail import Trail
from dmclient.network import AttachCode, attach
from dmclient.tre.environment import Tre
from dmclient.tre.software import SoftwareKeyStore
from mcim.certificates import Role
from mcim.content import AlgorithmContent
from mcim.key_id import key_id_of
from mcim.milenage import MilenageConstants
from mcim.tuak import TuakParameters
from mcim.vocabulary import AlgorithmId, McimPolicy, Operation, ResultCode
from sho.app import network_application
from sho.packaging import PackageMaker, _ingredients
from sho.store import effects, repository, tables, updates
from sho.subscriptions import Credential
from tests.support_operators import M2ME_ID, SHO_ID, TRE_ID, Pki, calling, running
from tests.support_sho import OFFER, Exchange, credential_of, fill, order, plan_update, serving, sho_settings
from tests.support_tre import NO_HINTS

OWN = MilenageConstants(rotations=(8, 72, 40, 104, 24)).encode()
MILENAGE = Credential(imsi="001010000000001", k=b"a" * 15 + b"k", opc=b"a" * 15 + b"o")
TUAK = Credential(imsi=MILENAGE.imsi, k=b"a" * 31 + b"k", opc=b"a" * 31 + b"o", algorithm=AlgorithmId.TUAK)
CASES = {
    "MILENAGE, own r and c": (MILENAGE, OWN),
    "MILENAGE, back to the defaults": (replace(MILENAGE, constants=OWN), b""),
    "TUAK, three iterations, long MAC and RES": (
        TUAK, TuakParameters(iterations=3, mac_length=16, res_length=16).encode(),
    ),
}  # fmt: skip


class TreDevice:
    """A software TRE as `Exchange` wants a device: its receipts are the TRE's own."""

    def __init__(self, pki, directory):
        self.m2me_id, self.tre_id, self.directory = M2ME_ID, TRE_ID, directory
        self.tre = Tre.manufacture(
            directory, seal_key=SealingKey(bytes(32)), key_store=SoftwareKeyStore(directory), m2me_id=M2ME_ID,
            tre_id=TRE_ID, key_type="ec",
        )  # fmt: skip
        request = self.tre.certification_request()
        platform, attest = (
            Public(load_pem_public_key(request[each].encode())) for each in ("platformKey", "attestKey")
        )
        self.platform_cert = pki.manufacturer.issue_role(platform, Role.PLATFORM, TRE_ID, serial=M2ME_ID)
        self.attest_cert = pki.manufacturer.issue_role(attest, Role.ATTEST, TRE_ID, serial=M2ME_ID)
        self.attest_key, self.platform_key_id = attest, key_id_of(platform.key)
        self.tre.install_certificates(
            self.platform_cert, self.attest_cert, [pki.manufacturer.certificate], [pki.sho.certificate]
        )


class Public:
    """The public half of a pair that stays in the TRE, where a pair is asked for."""

    def __init__(self, key):
        self.key = key

    def public_key(self):
        return self.key


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


class Play:
    """One TRE and one SHO."""

    def __init__(self, sho, dpf, pki, directory):
        self.sho, self.dpf, self.pki, self.directory = sho, dpf, pki, directory
        self.device, self.mcim_id = TreDevice(pki, directory), None

    async def begin(self, operation):
        """The package of a new order, for the registration that the TRE opened."""
        terms = {} if operation is Operation.INSTALL else {"mcim_id": self.mcim_id}
        order_id = await order(self.sho, str(uuid.uuid4()), operation=operation, **terms)
        registration = self.device.tre.renew_registration(reason="initial", sho_id=SHO_ID, now=datetime.now(UTC))
        offer = OFFER | {"suites": ["MCIM-EC-GCM-256"], "algorithms": ["milenage", "tuak256"]}
        exchange = Exchange(self.pki, self.device, order_id=order_id, operation=operation.label, offer=offer)
        exchange.req_id, exchange.nonce = uuid.UUID(registration.req_id), registration.nonce
        exchange.ticket = exchange.make_ticket()
        await exchange.hand_over(self.dpf, nextSequence=registration.next_sequence)
        return exchange

    async def report(self, exchange, outcome):
        return await exchange.report(self.dpf, outcome.receipt, result=int(outcome.code))

    async def provision(self, exchange):
        outcome = self.device.tre.provision(exchange.package, NO_HINTS, datetime.now(UTC))
        assert outcome.code is ResultCode.SUCCESS, outcome.checks
        return outcome

    async def install(self):
        exchange = await self.begin(Operation.INSTALL)
        outcome = await self.provision(exchange)
        self.mcim_id = exchange.answer["mcimId"]
        await self.report(exchange, outcome)
        self.device.tre.local_command(Operation.ACTIVATE, outcome.mcim.mcim_id, datetime.now(UTC))

    async def plan(self, credential, *changes, **values):
        return await plan_update(self.sho, credential, *changes, **values)

    async def credential(self):
        return await credential_of(self.sho)

    async def attach(self):
        """How the TRE fares in the SHO's network; a success is what its agent would confirm."""
        async with (
            running(network_application(self.sho), self.pki.server(SHO_ID, mutual=False)) as url,
            calling(url, self.pki.client(None)) as network,
        ):
            result = await attach(network, self.device.tre, uuid.UUID(self.mcim_id), Trail("M2ME"))
        return result.code


@pytest.fixture
async def play(pki, tmp_path):
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        yield Play(sho, dpf, pki, tmp_path / "tre")


@pytest.mark.parametrize(("before", "constants"), CASES.values(), ids=CASES)
async def test_new_constants_count_from_the_receipt_on(play, before, constants):
    """REQ-30, REQ-34, REQ-68: the TRE attaches with the new ones, with the old ones nobody does any more."""
    await fill(play.sho, [before])
    await play.install()
    assert await play.attach() is AttachCode.SUCCESS
    after = replace(before, constants=constants)
    assert await play.plan(after, updates.CONSTANTS) == updates.PENDING
    exchange = await play.begin(Operation.UPDATE)
    assert await play.attach() is AttachCode.SUCCESS  # made, not taken: the old ones count on both sides
    old_state = play.device.tre._state
    outcome = await play.provision(exchange)
    assert await play.credential() == before  # the AuC has not heard of it
    assert await play.attach() is AttachCode.MAC_FAILURE
    for _ in range(2):  # the report again changes nothing
        await play.report(exchange, outcome)
        assert (await play.credential()).keys.explicit_constants == after.keys.explicit_constants
    assert await play.attach() is AttachCode.SUCCESS
    play.device.tre._memory.state = old_state  # a TRE that still has the old ones
    assert await play.attach() is AttachCode.MAC_FAILURE


async def test_the_package_names_the_constants_and_no_key(play):
    """REQ-34, scheme, the MCIM object: tag 02, and neither K nor SQN goes over the air again."""
    await fill(play.sho, [MILENAGE])
    await play.install()
    await play.plan(replace(MILENAGE, constants=OWN), updates.CONSTANTS)
    exchange = await play.begin(Operation.UPDATE)
    row = await play.sho.store.read(lambda c: repository.find_handover_of_mcim(c, play.mcim_id))
    parts = await play.sho.store.read(lambda c: _ingredients(c, row))
    content = PackageMaker._content(play.sho.handovers._packages, row, parts)
    assert isinstance(content, AlgorithmContent)
    assert (content.algorithm, content.constants, content.code) == (AlgorithmId.MILENAGE, OWN, None)
    assert MILENAGE.k not in content.to_payload()
    again = await exchange.hand_over(play.dpf, nextSequence=exchange.answer["sequence"])
    assert again == exchange.answer  # the same request, also after a crash in between: octet for octet the same package


@pytest.mark.parametrize("policy", [McimPolicy.SIGNED_LIFECYCLE, McimPolicy.TWO_PHASE_UPDATE], ids=str)
async def test_constants_that_the_tre_refused_or_went_back_from(play, policy):
    """REQ-68, flows F4: the old ones count, on both sides, and the next try has a higher revision."""
    await fill(play.sho, [MILENAGE])
    await play.sho.store.write(lambda c: c.execute(tables.subscriptions.update().values(policy=int(policy))))
    await play.install()
    await play.plan(replace(MILENAGE, constants=OWN), updates.CONSTANTS)
    exchange = await play.begin(Operation.UPDATE)
    if policy is McimPolicy.TWO_PHASE_UPDATE:
        await play.report(exchange, await play.provision(exchange))
        assert await play.plan(MILENAGE, "amf", amf=b"\x90\x00") == updates.PENDING  # planned before the news
        back = play.device.tre.fall_back(uuid.UUID(play.mcim_id), datetime.now(UTC))
        await play.report(exchange, back)
    else:
        refused = play.device.tre.provision(exchange.package[:-1], NO_HINTS, datetime.now(UTC))
        await play.report(exchange, refused)
        await play.plan(replace(MILENAGE, constants=OWN), updates.CONSTANTS)
    assert await play.credential() == MILENAGE
    assert await play.attach() is AttachCode.SUCCESS
    again = await play.begin(Operation.UPDATE)
    await play.report(again, await play.provision(again))
    expected = MILENAGE if policy is McimPolicy.TWO_PHASE_UPDATE else replace(MILENAGE, constants=OWN)
    assert await play.credential() == expected
    assert await play.attach() is AttachCode.SUCCESS


REKEYED = replace(MILENAGE, k=b"b" * 15 + b"k", opc=b"b" * 15 + b"o")
TWICE_REKEYED = replace(MILENAGE, k=b"c" * 15 + b"k", opc=b"c" * 15 + b"o")
TWO_UPDATES = {
    "K, then constants": ((REKEYED, updates.KEYS), (replace(REKEYED, constants=OWN), updates.CONSTANTS)),
    "constants, then K": (
        (replace(MILENAGE, constants=OWN), updates.CONSTANTS), (replace(REKEYED, constants=OWN), updates.KEYS),
    ),
    "K twice": ((REKEYED, updates.KEYS), (TWICE_REKEYED, updates.KEYS)),
    "three times": (
        (REKEYED, updates.KEYS), (replace(REKEYED, constants=OWN), updates.CONSTANTS), (TWICE_REKEYED, updates.KEYS),
    ),
}  # fmt: skip


async def two_phase(play):
    await fill(play.sho, [MILENAGE])
    policy = int(McimPolicy.TWO_PHASE_UPDATE)
    await play.sho.store.write(lambda c: c.execute(tables.subscriptions.update().values(policy=policy)))
    await play.install()


async def update(play, credential, change):
    await play.plan(credential, change, policy=McimPolicy.TWO_PHASE_UPDATE)
    exchange = await play.begin(Operation.UPDATE)
    await play.report(exchange, await play.provision(exchange))
    assert await play.credential() == credential
    return exchange


async def fall_back(play, exchange):
    return await play.report(exchange, play.device.tre.fall_back(uuid.UUID(play.mcim_id), datetime.now(UTC)))


@pytest.mark.parametrize("planned", TWO_UPDATES.values(), ids=TWO_UPDATES)
async def test_a_tre_that_goes_back_past_several_updates_finds_the_auc_there(play, planned):
    """REQ-68, mo-design §6.4: it keeps the values of its last attach; the receipt says which revision that was."""
    await two_phase(play)
    assert await play.attach() is AttachCode.SUCCESS
    for credential, change in planned:
        exchange = await update(play, credential, change)
    await fall_back(play, exchange)
    assert await play.credential() == MILENAGE
    assert await play.attach() is AttachCode.SUCCESS
    await update(play, *planned[0])  # and goes on from there
    assert await play.attach() is AttachCode.SUCCESS


@pytest.mark.parametrize("kept", [True, False], ids=["confirmed", "the attach was forgotten"])
async def test_a_tre_goes_back_to_its_last_attach_and_the_auc_with_it(play, kept):
    """REQ-68: also when the network saw an attach that the TRE lost with the power before it wrote it down."""
    await two_phase(play)
    await update(play, REKEYED, updates.KEYS)
    assert await play.attach() is AttachCode.SUCCESS
    if kept:
        play.device.tre.confirm_attach(uuid.UUID(play.mcim_id), datetime.now(UTC))
    exchange = await update(play, TWICE_REKEYED, updates.KEYS)
    await fall_back(play, exchange)
    assert await play.credential() == (REKEYED if kept else MILENAGE)
    assert await play.attach() is AttachCode.SUCCESS


async def test_a_fall_back_without_a_revision_takes_back_the_last_update(play):
    """REQ-68: the receipt may leave it out; then it is what it was about."""
    await two_phase(play)
    handover = None
    for credential, change in TWO_UPDATES["K twice"]:
        await update(play, credential, change)
        handover = await play.sho.store.read(lambda c: repository.find_handover_of_mcim(c, play.mcim_id))
    await play.sho.store.write(lambda c: effects.fall_back(c, play.sho.vault, handover, revision=None))
    assert await play.credential() == REKEYED
