"""The life of an MCIM at the SHO over real TLS: update, activate, suspend, delete, replace; what receipts do to it."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from actor_runtime.errors import ActorError
from actor_runtime.http import PartnerRefused, to_base64
from home_network.sessions import AttachRefused
from mcim.aka import UsimState
from mcim.certificates import Role, TrustAnchors
from mcim.content import McimContent, UpdateContent
from mcim.package import verify_package
from mcim.vocabulary import AlgorithmId, Container, McimPolicy, Operation, ResultCode
from sho.app import network_application, partner_application
from sho.auc import _armed
from sho.identity import load_identity
from sho.release import issue_release
from sho.store import handovers, repository, tables, tokens
from sho.store.tokens import TokenRow
from sho.subscriptions import Credential
from tests.support_operators import DPF_ID, M2ME_ID, SHO_ID, TRE_ID, Device, Pki, calling, der, ec_key, running
from tests.support_sho import (
    CREDENTIALS,
    OFFER,
    Exchange,
    Usim,
    credential_of,
    fill,
    order,
    plan_update,
    serving,
    sho_settings,
    states,
)

NEW = Credential(imsi="001010000009999", k=b"n" * 15 + b"k", opc=b"n" * 15 + b"o")
OLD_MCIM = "11111111-2222-4333-8444-555555555555"
TOKEN = b"printed-on-the-box-4711"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def device(pki):
    return Device(pki)


@pytest.fixture
async def world(pki, tmp_path, device):
    """An SHO with stock, the DPF's client, and one MCIM installed and armed."""
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        await fill(sho)
        yield World(sho, dpf, pki, device)


class World:
    def __init__(self, sho, dpf, pki, device):
        self.sho, self.dpf, self.pki, self.device = sho, dpf, pki, device
        self.counter, self.mcim_id = 1, None

    async def install(self):
        exchange = Exchange(self.pki, self.device)
        await exchange.hand_over(self.dpf)
        assert await self.finish(exchange) == "armed"
        self.mcim_id = exchange.answer["mcimId"]
        return exchange

    async def begin(self, operation, *, mcim_id=None, **terms):
        """A new order, handed over."""
        target = {} if operation in ("install", "replace") else {"mcim_id": mcim_id or self.mcim_id}
        order_id = await order(self.sho, str(uuid.uuid4()), operation=Operation[operation.upper()], **target, **terms)
        exchange = Exchange(self.pki, self.device, order_id=order_id, operation=operation)
        await exchange.hand_over(self.dpf, nextSequence=1)
        return exchange

    async def finish(self, exchange, result=ResultCode.SUCCESS, **changes):
        self.counter += 1
        return await exchange.finish(self.dpf, counter=self.counter, result=result, **changes)

    async def order_state(self, exchange):
        return (await self.sho.store.read(lambda c: repository.find_order(c, exchange.order_id)))["state"]

    async def plan(self, credential, *changes, **values):
        return await plan_update(self.sho, credential, *changes, **values)

    async def credential(self):
        return await credential_of(self.sho)


async def refused(call):
    with pytest.raises(PartnerRefused) as caught:
        await call
    return caught.value.status, caught.value.code


# --- commands ---------------------------------------------------------------------------------------


async def test_suspend_activate_delete(world):
    """REQ-70, flows F5: signed headers without an object; the subscription follows the receipts."""
    await world.install()
    sequence = 0
    for operation, after in (("suspend", "suspended"), ("activate", "armed"), ("delete", "closed")):
        exchange = await world.begin(operation)
        header = exchange.verify().header
        assert (header.operation.label, str(header.mcim_id)) == (operation, world.mcim_id)
        assert header.registration_nonce == exchange.nonce
        assert header.sequence > sequence
        assert exchange.answer["operation"] == operation
        sequence = header.sequence
        before = (await states(world.sho))[0]
        assert before != after  # nothing before the receipt
        assert await world.finish(exchange) == after
        assert await world.order_state(exchange) == "fulfilled"
    assert await states(world.sho) == ["closed", "free"]


async def test_a_suspended_or_deleted_subscription_may_not_attach(world, pki):
    """REQ-68, REQ-70."""
    usim = Usim((await world.install()).open()[1])
    async with (
        running(network_application(world.sho), pki.server(SHO_ID, mutual=False)) as url,
        calling(url, pki.client(None)) as network,
    ):
        await usim.attach(network)
        under_way = await network.post("/v1/attach", {"imsi": usim.imsi})
        await world.finish(await world.begin("suspend"))
        assert await refused(usim.attach(network)) == (403, "attach-refused")
        answer = {"res": to_base64(usim.judge(under_way).res)}  # a challenge made before does not help
        assert await refused(network.post(f"/v1/attach/{under_way['session']}", answer)) == (403, "attach-refused")
        await world.finish(await world.begin("activate"))
        await usim.attach(network)
        await world.finish(await world.begin("delete"))
        assert await refused(usim.attach(network)) == (403, "attach-refused")


async def bar(sho, barred=True, number=1):
    moment = datetime.now(UTC) if barred else None
    assert await sho.store.write(lambda c: repository.set_barred(c, number, moment))


async def test_a_barred_subscription_gets_no_vectors_from_that_commit_on(world, pki):
    """REQ-68, T17: the operator's emergency needs no device: not a new attach, and not one that had begun."""
    usim = Usim((await world.install()).open()[1])
    async with (
        running(network_application(world.sho), pki.server(SHO_ID, mutual=False)) as url,
        calling(url, pki.client(None)) as network,
    ):
        await usim.attach(network)
        respond, resynchronise = [await network.post("/v1/attach", {"imsi": usim.imsi}) for _ in range(2)]
        result = usim.judge(respond)
        usim.state = UsimState.initial(2**40)
        auts = usim.judge(resynchronise).auts
        before = (await world.sho.store.read(lambda c: repository.get_subscription(c, 1))).sqn
        await bar(world.sho)
        calls = (
            network.post("/v1/attach", {"imsi": usim.imsi}),
            network.post(f"/v1/attach/{respond['session']}", {"res": to_base64(result.res)}),
            network.post(f"/v1/attach/{resynchronise['session']}", {"auts": to_base64(auts)}),
        )
        for call in calls:
            assert await refused(call) == (403, "attach-refused")
        assert (await world.sho.store.read(lambda c: repository.get_subscription(c, 1))).sqn == before
        await bar(world.sho, False)
        assert (await usim.attach(network))[0]["result"] == "attached"


async def test_barring_is_apart_from_the_life_cycle_and_reports_settle(world):
    """REQ-70: what was under way is told as it ended; what takes away can still be ordered, what gives cannot."""
    await world.install()
    under_way = await world.begin("suspend")
    await bar(world.sho)
    assert await world.finish(under_way) == "suspended"
    for operation in ("activate", "update"):
        assert await refused(world.begin(operation)) == (409, "subscription-barred")
    assert await refused(world.begin("install")) == (409, "subscription-barred")  # nor another one for its device
    await world.plan(NEW, "keys")
    assert await refused(world.begin("update")) == (409, "subscription-barred")
    assert await world.finish(await world.begin("delete")) == "closed"
    await bar(world.sho, False)
    assert await states(world.sho) == ["closed", "free"]
    assert "package" in (await world.begin("install")).answer


async def test_what_was_allocated_is_held_back_when_it_is_barred(world, pki, device):
    """REQ-68, T17: the same request again, and the next; success that was on its way arms nothing for the AuC."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(world.dpf)
    await bar(world.sho)
    assert await refused(exchange.hand_over(world.dpf)) == (409, "subscription-barred")
    assert await refused(Exchange(pki, device).hand_over(world.dpf)) == (409, "subscription-barred")
    assert await world.finish(exchange) == "armed"
    index = world.sho.vault.index(exchange.open()[1].imsi)
    with pytest.raises(AttachRefused, match="is barred"):
        await world.sho.store.read(lambda c: _armed(c, index))


async def test_a_barred_subscription_of_nobody_is_passed_over(world, pki, device):
    """REQ-30: in the inventory, also for the device that failed to install it."""
    exchange = Exchange(pki, device)
    await exchange.hand_over(world.dpf)
    assert await world.finish(exchange, ResultCode.STORAGE_FAILURE) == "free"
    await bar(world.sho)
    again = Exchange(pki, device)
    await again.hand_over(world.dpf)
    assert await states(world.sho) == ["free", "allocated"]
    await bar(world.sho, False)


async def test_a_barred_subscription_is_not_given_to_anybody(world, pki, device):
    """REQ-30: not the first that is free, but the first that is free and not barred."""
    await bar(world.sho)
    await Exchange(pki, device).hand_over(world.dpf)
    assert await states(world.sho) == ["free", "allocated"]


async def test_keys_of_a_deleted_mcim_serve_no_other_device(world, pki):
    """REQ-70, T4: only a new K opens a closed subscription again."""
    await world.install()
    await world.finish(await world.begin("delete"))
    await world.sho.store.write(lambda c: c.execute(text("DELETE FROM subscription WHERE id = 2")))
    other = Device(pki, m2me_id="urn:imei:2", tre_id="urn:m2m:tre:0002")
    another = await order(world.sho, "o-2", m2me_id=other.m2me_id)
    assert await refused(Exchange(pki, other, order_id=another).hand_over(world.dpf)) == (409, "no-subscription")
    with pytest.raises(LookupError, match="only new ones"):
        await world.plan(CREDENTIALS[0], "amf", amf=b"\x00\x00")
    fresh = Credential(imsi=CREDENTIALS[0].imsi, k=NEW.k, opc=NEW.opc)
    assert await world.plan(fresh, "keys") == "applied"
    again = Exchange(pki, other, order_id=another)
    await again.hand_over(world.dpf)
    assert again.open()[1].k == NEW.k


async def test_a_failed_command_changes_nothing(world):
    """REQ-70: the TRE refused."""
    await world.install()
    exchange = await world.begin("suspend")
    assert await world.finish(exchange, ResultCode.WRONG_STATE) == "armed"
    assert await world.order_state(exchange) == "failed"


NOT_POSSIBLE = {
    "another operator's MCIM": (lambda w: {"mcim_id": OLD_MCIM}, "activate", "mcim-unknown"),
    "delete without a release": (lambda w: {"mcim_id": OLD_MCIM}, "delete", "mcim-unknown"),
    "no update planned": (lambda w: {}, "update", "no-update"),
}


@pytest.mark.parametrize(("terms", "operation", "code"), NOT_POSSIBLE.values(), ids=NOT_POSSIBLE)
async def test_an_operation_needs_its_mcim(world, terms, operation, code):
    """REQ-70."""
    await world.install()
    assert await refused(world.begin(operation, **terms(world))) == (409, code)
    assert await states(world.sho) == ["armed", "free"]


async def test_an_operation_is_for_the_device_and_tre_that_have_the_mcim(world, pki, device):
    """REQ-70, T4: also when the order names another device, or the device has another TRE."""
    await world.install()
    terms = {"operation": Operation.DELETE, "mcim_id": world.mcim_id}
    stranger = Device(pki, m2me_id="urn:imei:2", tre_id="urn:m2m:tre:0002")
    sister = Device(pki, tre_id="urn:m2m:tre:0003")
    for number, other in enumerate((stranger, sister)):
        order_id = await order(world.sho, f"o-{number}", m2me_id=other.m2me_id, **terms)
        exchange = Exchange(pki, other, order_id=order_id, operation="delete")
        assert await refused(exchange.hand_over(world.dpf)) == (409, "mcim-elsewhere")


async def test_suspending_what_is_deleted_is_refused(world):
    """REQ-70: state of the subscription."""
    await world.install()
    await world.finish(await world.begin("delete"))
    for operation in ("suspend", "activate", "update", "delete"):
        assert await refused(world.begin(operation)) == (409, "mcim-state")


async def test_the_same_checks_for_every_operation(world, pki):
    """REQ-70: certificate, ticket, root as for an install."""
    await world.install()
    order_id = await order(world.sho, "o-2", operation=Operation.SUSPEND, mcim_id=world.mcim_id)
    exchange = Exchange(pki, world.device, order_id=order_id, operation="suspend")
    revoked = pki.sho.issue_role(world.device.platform_key, Role.PLATFORM, TRE_ID, serial=M2ME_ID)
    spoilt = {
        "ticket-refused": {"ticket": exchange.make_ticket(nonce=bytes(32))},
        "platform-certificate-refused": {"platformCert": der(revoked)},
        "no-common-trust-anchor": {"trustAnchors": ["00" * 20]},
        "operation-not-ordered": {"operation": "delete"},
        "malformed-request": {"nonce": "AAAA"},
    }
    for code, changes in spoilt.items():
        assert (await refused(exchange.hand_over(world.dpf, **changes)))[1] == code
    await exchange.hand_over(world.dpf)


@pytest.mark.parametrize(
    "forged",
    [
        {"operation": Operation.ACTIVATE},
        {"mcim_id": uuid.UUID(int=1)},
        {"nonce": bytes(32)},
        {"sequence": 4711},
        {"package_hash": bytes(32)},
        {"sho_id": "sho2.example"},
    ],
    ids=lambda each: next(iter(each)),
)
async def test_a_receipt_is_bound_to_its_operation(world, forged):
    """REQ-67, T10: the receipt of another command does not suspend."""
    await world.install()
    exchange = await world.begin("suspend")
    assert await refused(world.finish(exchange, **forged)) == (403, "receipt-refused")
    assert (await states(world.sho))[0] == "armed"


# --- fall-back, replays -----------------------------------------------------------------------------


async def test_a_device_that_fell_back_is_let_in_no_more_until_activated(world):
    """flows F6, REQ-68: result 1426 after a success."""
    exchange = await world.install()
    good = exchange.receipt(counter=world.counter)
    assert await world.finish(exchange, ResultCode.FELL_BACK) == "fell-back"
    assert await world.order_state(exchange) == "fell-back"
    for _ in range(2):  # the success again, after the news that it did not hold
        assert (await exchange.report(world.dpf, good))["subscription"] == "fell-back"
    assert await world.finish(await world.begin("activate")) == "armed"


async def test_a_fall_back_whose_success_never_arrived_keeps_the_subscription_for_the_device(world, pki):
    """REQ-68: the device has the MCIM, so nobody else gets the keys."""
    exchange = Exchange(pki, world.device)
    await exchange.hand_over(world.dpf)
    late = exchange.receipt(counter=2)
    world.counter = 2
    assert await world.finish(exchange, ResultCode.FELL_BACK) == "fell-back"
    assert (await exchange.report(world.dpf, late))["subscription"] == "fell-back"
    assert await states(world.sho) == ["fell-back", "free"]


async def test_a_fall_back_is_bound_and_fresh(world):
    """REQ-67, T10: a forged or replayed 1426 disarms nobody."""
    exchange = await world.install()
    replayed = exchange.receipt(counter=1, result=ResultCode.FELL_BACK)
    assert await refused(exchange.report(world.dpf, replayed, result=1426)) == (403, "receipt-refused")
    for forged in ({"sequence": None}, {"nonce": bytes(32)}, {"package_hash": bytes(32)}, {"mcim_id": None}):
        assert await refused(world.finish(exchange, ResultCode.FELL_BACK, **forged)) == (403, "receipt-refused")
    assert (await states(world.sho))[0] == "armed"


async def test_a_report_is_taken_from_the_dpf_of_its_order(pki, tmp_path, device):
    """T10 REQ-67: another partner with a true receipt in its hands arms nothing; whom it concerns still can."""
    partners = frozenset({DPF_ID, "stranger.example"})
    async with serving(sho_settings(pki, tmp_path, allowed_clients=partners), pki) as (sho, dpf):
        await fill(sho)
        exchange = Exchange(pki, device)
        await exchange.hand_over(dpf)
        receipt = exchange.receipt()
        async with (
            running(partner_application(sho), pki.server(SHO_ID)) as url,
            calling(url, pki.client("stranger.example")) as other,
        ):
            assert await refused(exchange.report(other, receipt)) == (404, "handover-unknown")
        assert "armed" not in await states(sho)
        assert (await exchange.report(dpf, receipt))["subscription"] == "armed"


async def test_old_receipts_move_nothing(world):
    """REQ-68: repeats of a suspend after the activate that followed it."""
    await world.install()
    suspend = await world.begin("suspend")
    first = suspend.receipt(counter=world.counter + 1)
    await world.finish(suspend)
    await world.finish(await world.begin("activate"))
    assert (await suspend.report(world.dpf, first))["subscription"] == "armed"
    other = suspend.receipt(counter=world.counter + 5, result=ResultCode.ALREADY_DONE)
    assert (await suspend.report(world.dpf, other, result=1201))["subscription"] == "armed"


# --- update -----------------------------------------------------------------------------------------


async def test_an_update_gives_the_auc_the_new_keys_with_the_receipt(world, pki):
    """flows F4, REQ-36: old keys until then; revision and sequence rise; new K comes with a new SQN."""
    before = await world.install()
    old = Usim(before.open()[1])
    assert await world.plan(NEW, "imsi", "keys") == "pending"
    exchange = await world.begin("update")
    header, content = exchange.open()
    assert isinstance(content, UpdateContent)
    assert (content.imsi, content.keys) == (NEW.imsi, NEW.keys)
    assert content.sqn_init >= 32 << 5
    assert (content.amf, content.policy) == (None, None)
    assert header.sequence == content.sequence > before.answer["sequence"]
    row = await world.sho.store.read(lambda c: repository.find_handover_of_mcim(c, world.mcim_id))
    assert row.revision == 2
    async with (
        running(network_application(world.sho), pki.server(SHO_ID, mutual=False)) as url,
        calling(url, pki.client(None)) as network,
    ):
        await old.attach(network)
        assert await world.finish(exchange) == "armed"
        assert await refused(old.attach(network)) == (403, "attach-refused")
        fresh = Usim(McimContent(**{**fields(before.open()[1]), "imsi": NEW.imsi, "k": NEW.k, "opc": NEW.opc}))
        await fresh.attach(network)
        # The device could not attach with the new ones after all, and says so:
        assert await world.finish(exchange, ResultCode.FELL_BACK) == "armed"
        assert await world.order_state(exchange) == "fell-back"
        await old.attach(network)
        assert await refused(fresh.attach(network)) == (403, "attach-refused")


def fields(content):
    return {name: getattr(content, name) for name in content.__dataclass_fields__}


@pytest.mark.parametrize("result", [ResultCode.CRYPTO_FAILURE, ResultCode.FELL_BACK, ResultCode.REVISION_TOO_LOW])
async def test_after_a_failed_update_the_old_keys_stay(world, result):
    """REQ-68, REQ-70; and the next try has a higher revision."""
    await world.install()
    await world.plan(Credential(imsi=CREDENTIALS[0].imsi, k=NEW.k, opc=NEW.opc), "keys")
    exchange = await world.begin("update")
    assert await world.finish(exchange, result) == "armed"
    assert await world.credential() == CREDENTIALS[0]
    if result is not ResultCode.FELL_BACK:
        again = await world.begin("update")
        row = await world.sho.store.read(lambda c: repository.find_handover_of_mcim(c, world.mcim_id))
        assert row.revision == 3
        await world.finish(again)
        assert (await world.credential()).k == NEW.k


async def test_an_update_changes_nothing_that_came_after_it_was_planned(world):
    """REQ-68: a late success of the update before it; the AuC has what the device has, whatever the plan began with."""
    await world.install()
    await world.plan(Credential(imsi=CREDENTIALS[0].imsi, k=NEW.k, opc=NEW.opc), "keys")
    keys = await world.begin("update")
    await world.finish(keys, ResultCode.TRE_BUSY)
    await world.plan(CREDENTIALS[0], "amf", amf=b"\x90\x00")  # with the K that it is to have kept
    await world.finish(keys)  # the TRE took the same package on another try
    assert (await world.credential()).k == NEW.k
    await world.finish(await world.begin("update"))
    row = await world.sho.store.read(lambda c: repository.get_subscription(c, 1))
    assert ((await world.credential()).k, row.amf) == (NEW.k, b"\x90\x00")


@pytest.mark.parametrize("result", [ResultCode.SUCCESS, ResultCode.FELL_BACK])
async def test_an_update_of_an_mcim_that_is_gone_moves_no_keys(world, result):
    """T4, T10, REQ-68: a TRE cannot give the AuC keys that it knows for a subscription that left it."""
    await world.install()
    await world.plan(Credential(imsi=CREDENTIALS[0].imsi, k=NEW.k, opc=NEW.opc), "keys")
    update = await world.begin("update")
    await world.finish(update, ResultCode.SUCCESS if result is ResultCode.FELL_BACK else ResultCode.TRE_BUSY)
    await world.finish(await world.begin("delete"))
    fresh = Credential(imsi=CREDENTIALS[0].imsi, k=b"f" * 15 + b"k", opc=b"f" * 15 + b"o")
    await world.plan(fresh, "keys")
    with contextlib.suppress(PartnerRefused):
        await world.finish(update, result)
    assert await world.credential() == fresh


async def test_a_subscription_with_new_values_is_not_armed_with_the_old_ones(world):
    """REQ-68: the TRE installed on another try what the operator had given up; it is told, and nothing is armed."""
    exchange = Exchange(world.pki, world.device)
    await exchange.hand_over(world.dpf)
    await world.finish(exchange, ResultCode.TRE_BUSY)
    assert await world.plan(Credential(imsi=CREDENTIALS[0].imsi, k=NEW.k, opc=NEW.opc), "keys") == "applied"
    assert await refused(world.finish(exchange)) == (409, "subscription-reassigned")
    assert await states(world.sho) == ["free", "free"]


async def test_an_update_of_policy_and_amf_alone(world):
    """REQ-36, flows F4: what does not change is not sent."""
    await world.install()
    flags = McimPolicy.SIGNED_LIFECYCLE | McimPolicy.RELEASE_REQUIRED
    await world.plan(CREDENTIALS[0], "amf", "policy", amf=b"\x90\x00", policy=flags)
    exchange = await world.begin("update")
    content = exchange.open()[1]
    assert (content.imsi, content.keys, content.sqn_init) == (None, None, None)
    assert (content.amf, content.policy) == (b"\x90\x00", flags)
    await world.finish(exchange)
    row = await world.sho.store.read(lambda c: repository.get_subscription(c, 1))
    assert (row.amf, row.policy) == (b"\x90\x00", flags)


async def test_an_update_to_an_algorithm_that_the_tre_has_not(world):
    """REQ-30: 422, and nothing is recorded."""
    await world.install()
    tuak = Credential(imsi=CREDENTIALS[0].imsi, k=b"t" * 31 + b"k", opc=b"t" * 32, algorithm=AlgorithmId.TUAK)
    await world.plan(tuak, "keys")
    assert await refused(world.begin("update")) == (422, "algorithm-not-acceptable")


async def test_no_update_is_planned_over_a_package_under_way(world, pki):
    """REQ-70."""
    await world.install()
    await world.plan(Credential(imsi=CREDENTIALS[0].imsi, k=NEW.k, opc=NEW.opc), "keys")
    await world.begin("update")
    with pytest.raises(LookupError, match="under way"):
        await world.plan(NEW, "imsi", "keys")
    with pytest.raises(LookupError, match="another subscription"):
        await world.plan(CREDENTIALS[1], "imsi", "keys")


# --- change of SHO ----------------------------------------------------------------------------------


async def test_a_replace_names_the_old_mcim_and_brings_its_release(world):
    """flows F6, T14: the old MCIM and the old SHO's token are inside, from the order."""
    exchange = await world.begin("replace", replaces=OLD_MCIM, release_token=b"signed by the old SHO")
    header, content = exchange.open()
    assert header.operation is content.operation is Operation.REPLACE
    assert (str(content.replaces), content.release_token) == (OLD_MCIM, b"signed by the old SHO")
    assert content.policy is McimPolicy.SIGNED_LIFECYCLE
    assert await world.finish(exchange) == "armed"
    deletion = await world.begin("delete", mcim_id=OLD_MCIM)  # the release says that we may
    header = deletion.verify().header
    assert (str(header.mcim_id), header.sho_id) == (OLD_MCIM, SHO_ID)
    assert await world.finish(deletion) == "armed"  # our own stays
    assert await world.order_state(deletion) == "fulfilled"


async def test_without_a_release_the_old_mcim_is_not_ours_to_delete(world):
    """T14."""
    exchange = await world.begin("replace", replaces=OLD_MCIM)
    assert exchange.open()[1].release_token is None
    assert await refused(world.begin("delete", mcim_id=OLD_MCIM)) == (409, "mcim-unknown")
    await world.finish(exchange)
    assert await refused(world.begin("delete", mcim_id=OLD_MCIM)) == (409, "mcim-unknown")


def release(world, **changes):
    settings = world.pki
    identity = load_identity(SHO_ID, settings.path("sho-signing.crt"), settings.path("sho-signing.key"))
    values = {"mcim_id": world.mcim_id, "tre_id": TRE_ID, "new_sho_id": "sho2.example", "life": timedelta(days=1)}
    return issue_release(
        store=world.sho.store, trail=world.sho.trail, identity=identity, now=datetime.now(UTC), **values | changes
    )


async def test_a_released_mcim_is_closed_when_the_new_sho_deleted_it(world, pki):
    """flows F6, step 8: a TRE's receipt of a delete signed by the SHO that we released it to."""
    exchange = await world.install()
    token = release(world)
    verified = verify_package(
        token, anchors=TrustAnchors((pki.sho.certificate,), "sho"), now=datetime.now(UTC), expected_sho_id=SHO_ID
    )
    assert (verified.header.operation, verified.header.new_sho_id) == (Operation.RELEASE, "sho2.example")
    assert (str(verified.header.mcim_id), verified.header.tre_id) == (world.mcim_id, TRE_ID)
    deleted = {"operation": Operation.DELETE, "sho_id": "sho2.example", "sequence": 1, "nonce": bytes(32)}
    foreign = {"orderId": "of-the-new-sho", "reqId": str(uuid.uuid4())}
    stranger = exchange.receipt(counter=50, **deleted | {"sho_id": "sho3.example"})
    assert await refused(exchange.report(world.dpf, stranger, **foreign)) == (403, "receipt-refused")
    forger = Exchange(pki, Device(pki))
    forger.answer, forger.package = exchange.answer, exchange.package
    assert (await refused(forger.report(world.dpf, forger.receipt(counter=50, **deleted), **foreign)))[0] == 403
    assert (await states(world.sho))[0] == "armed"
    octets = exchange.receipt(counter=50, **deleted)
    for _ in range(2):
        assert (await exchange.report(world.dpf, octets, **foreign))["subscription"] == "closed"
    assert (await states(world.sho))[0] == "closed"


async def test_what_is_not_ours_is_not_released(world):
    """T14."""
    await world.install()
    for changes in ({"mcim_id": OLD_MCIM}, {"tre_id": "urn:m2m:tre:9"}, {"new_sho_id": SHO_ID}):
        with pytest.raises(ActorError):
            release(world, **changes)


# --- algorithms, containers, tokens -----------------------------------------------------------------

TUAK = {
    "tuak128": Credential(imsi="001010000000128", k=b"t" * 15 + b"k", opc=b"T" * 32, algorithm=AlgorithmId.TUAK),
    "tuak256": Credential(
        imsi="001010000000256", k=b"t" * 31 + b"k", opc=b"U" * 32, algorithm=AlgorithmId.TUAK,
        constants=bytes((2, 16, 16, 32, 32)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("algorithm", TUAK)
async def test_a_tre_gets_a_subscription_with_an_algorithm_that_it_lists(pki, tmp_path, device, algorithm):
    """REQ-30, REQ-69: TUAK from the inventory to the attach, with its own lengths."""
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        await fill(sho, [CREDENTIALS[0], *TUAK.values()])
        exchange = Exchange(pki, device, offer=OFFER | {"algorithms": ["xor", algorithm]})
        await exchange.hand_over(dpf)
        content = exchange.open()[1]
        assert content.keys == TUAK[algorithm].keys
        await exchange.finish(dpf, counter=2)
        async with (
            running(network_application(sho), pki.server(SHO_ID, mutual=False)) as url,
            calling(url, pki.client(None)) as network,
        ):
            assert (await Usim(content).attach(network))[0]["result"] == "attached"


async def test_no_subscription_with_an_algorithm_of_the_tre(pki, tmp_path, device):
    """REQ-30: 422 tells the DPF that waiting does not help."""
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        await fill(sho, [TUAK["tuak256"]])
        for algorithms in (["milenage"], ["tuak128"]):
            exchange = Exchange(pki, device, offer=OFFER | {"algorithms": algorithms})
            assert await refused(exchange.hand_over(dpf)) == (422, "algorithm-not-acceptable")
        assert await states(sho) == ["free"]


async def put_token(sho, token=TOKEN, ref="ref-1"):
    row = TokenRow(m2me_id=M2ME_ID, token_ref=ref, sealed=sho.vault.seal_token(token, ref))
    await sho.store.write(lambda c: tokens.put(c, row, now=datetime.now(UTC)))


async def test_a_device_token_goes_into_the_blob_and_is_forgotten_after_success(world, pki):
    """REQ-61, REQ-62: kept after a failure, erased after the success, named in the answer by reference alone."""
    await put_token(world.sho)
    exchange = Exchange(pki, world.device)
    answer = await exchange.hand_over(world.dpf)
    header, content = exchange.open()
    assert (header.auth_mode, content.auth_token, answer["tokenRef"]) == ("token", TOKEN, "ref-1")
    await world.finish(exchange, ResultCode.TOKEN_WRONG)
    assert await world.sho.store.read(lambda c: tokens.find(c, M2ME_ID)) is not None
    await put_token(world.sho, b"the-right-one", "ref-2")
    again = Exchange(pki, world.device)
    await again.hand_over(world.dpf)
    assert again.open()[1].auth_token == b"the-right-one"
    await world.finish(again)
    assert await world.sho.store.read(lambda c: tokens.find(c, M2ME_ID)) is None


async def test_a_token_given_after_the_package_was_made_is_not_erased_by_its_receipt(world, pki):
    """REQ-62."""
    exchange = Exchange(pki, world.device)
    assert "tokenRef" not in await exchange.hand_over(world.dpf)
    await put_token(world.sho)
    await world.finish(exchange)
    assert await world.sho.store.read(lambda c: tokens.find(c, M2ME_ID)) is not None


async def test_no_secret_of_any_operation_is_in_database_or_trace_in_clear(world, pki, tmp_path):
    """REQ-28, REQ-62, REQ-71: new and old K, OPc, IMSI, token."""
    await put_token(world.sho)
    await world.install()
    await world.plan(NEW, "imsi", "keys")
    await put_token(world.sho)
    await world.finish(await world.begin("update"))
    await world.finish(await world.begin("delete"))
    await world.sho.store.write(lambda c: c.execute(text("SELECT 1")))
    files = [path for path in tmp_path.iterdir() if path.name != "seal.key"]
    assert {"sho.sqlite", "trace.jsonl"} <= {path.name for path in files}
    dumps = b"".join(path.read_bytes() for path in files)
    for secret in (TOKEN, *(value for each in (*CREDENTIALS, NEW) for value in (each.k, each.opc))):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert form not in dumps
    for each in (*CREDENTIALS, NEW):
        assert each.imsi.encode() not in dumps
    for line in (tmp_path / "trace.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["kind"] != "check" or record["passed"]


async def test_the_older_request_of_an_operation_is_superseded(world):
    """REQ-25: the nonce was renewed, so the command is signed anew with a higher sequence."""
    await world.install()
    first = await world.begin("suspend")
    second = Exchange(world.pki, world.device, order_id=first.order_id, operation="suspend")
    await second.hand_over(world.dpf)
    assert second.answer["sequence"] > first.answer["sequence"]
    assert await refused(first.hand_over(world.dpf)) == (409, "request-already-served")
    rows = await world.sho.store.read(lambda c: c.execute(tables.handovers.select()).all())
    assert [row.state for row in rows] == ["confirmed", "superseded", "packaged"]


def test_every_operation_has_its_states():
    """REQ-70: install and replace have no target; release is no operation of a package."""
    with_target = set(Operation) - {Operation.INSTALL, Operation.REPLACE, Operation.RELEASE}
    assert set(handovers.STATES_FOR) == with_target


@pytest.mark.parametrize(
    ("offered", "key", "made"),
    [(["cms", "xml"], "rsa", "cms"), (["cms"], "ec", "cms"), (["xml-mgf1p", "raw"], "rsa", "xml-mgf1p")],
)
async def test_packages_and_commands_come_in_the_container_of_the_tre(pki, tmp_path, offered, key, made):
    """REQ-31, REQ-47, REQ-49: an install and a command after it."""
    device = Device(pki, platform_key=ec_key() if key == "ec" else None)
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        await fill(sho)
        exchange = Exchange(pki, device, offer=OFFER | {"containers": offered})
        answer = await exchange.hand_over(dpf)
        assert answer["container"] == made
        assert exchange.verify().container is Container(made)
        assert exchange.open()[1].imsi == CREDENTIALS[0].imsi
        await exchange.finish(dpf, counter=2)
        order_id = await order(sho, "o-2", operation=Operation.SUSPEND, mcim_id=answer["mcimId"])
        command = Exchange(pki, device, order_id=order_id, operation="suspend", offer=OFFER | {"containers": offered})
        await command.hand_over(dpf)
        # Nothing is encrypted, so the two forms of XML are one.
        assert command.verify().container.media_type == Container(made).media_type
        assert command.verify().header.operation is Operation.SUSPEND


@pytest.mark.parametrize("kind", ["software", "uicc", "java", "stip", "native", "a kind of tomorrow"])
async def test_the_kind_of_a_tre_changes_nothing(pki, tmp_path, device, kind):
    """REQ-47, REQ-49: package and MCIM follow from the names offered; what the TRE calls itself is not among them."""
    async with serving(sho_settings(pki, tmp_path), pki) as (sho, dpf):
        await fill(sho)
        exchange = Exchange(pki, device, tre_type=kind)
        answer = await exchange.hand_over(dpf, treType=kind)
        header, content = exchange.verify().header, exchange.open()[1]
        assert (answer["container"], answer["operation"]) == ("xml", "install")
        assert header.suite.label == "MCIM-RSA-GCM-256"
        assert (content.imsi, content.k, content.opc) == (CREDENTIALS[0].imsi, CREDENTIALS[0].k, CREDENTIALS[0].opc)
        assert (content.algorithm, content.constants) == (AlgorithmId.MILENAGE, b"")
        assert (content.initial_state, content.policy) == (40, McimPolicy.SIGNED_LIFECYCLE)


async def test_a_container_that_this_sho_does_not_make(pki, tmp_path, device):
    """REQ-31: the setting decides what is made here."""
    only_xml = sho_settings(pki, tmp_path, containers=frozenset({Container.XML}))
    async with serving(only_xml, pki) as (sho, dpf):
        await fill(sho)
        exchange = Exchange(pki, device, offer=OFFER | {"containers": ["cms"]})
        assert await refused(exchange.hand_over(dpf)) == (422, "container-not-acceptable")
