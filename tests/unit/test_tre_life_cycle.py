"""The life of an MCIM in a TRE: commands, update, replacement, fall-back, deletion (flows F4 to F6)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dmclient.tre.base import Hints, TreError
from dmclient.tre.keys import KeyStoreError
from mcim import aka
from mcim.content import AlgorithmCode, AlgorithmContent, CodeFormat
from mcim.milenage import Milenage
from mcim.network_keys import NetworkKeys
from mcim.vocabulary import AlgorithmId, BindMode, ContainerState, McimPolicy, Operation, RegistrationState, ResultCode
from tests.support_tre import IMSI, MCIM_ID, NOW, OPC, OTHER_SHO, SHO, K, World

NEW_ID = UUID(int=2)
NEW_K, NEW_OPC = bytes.fromhex("0396eb317b6d1c36f19c1c84cd6ffd16"), bytes.fromhex("53c15671c60a4b731c55b4a441c0bde2")
TUAK_DEFAULTS = bytes((1, 8, 8, 16, 16))  # iterations, then octets of MAC, RES, CK and IK
NEW_KEYS = NetworkKeys(algorithm=AlgorithmId.MILENAGE, k=NEW_K, opc=NEW_OPC)
ACTIVATE, SUSPEND, DELETE = Operation.ACTIVATE, Operation.SUSPEND, Operation.DELETE
PROVISIONED, ACTIVATED, SUSPENDED = ContainerState.PROVISIONED, ContainerState.ACTIVATED, ContainerState.SUSPENDED


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, bytes]]:
    world = World(tmp_path_factory.mktemp("tre"), key_type="ec")
    return world, world.snapshot()


@pytest.fixture
def world(made: tuple[World, dict[str, bytes]]) -> World:
    world, files = made
    world.restore(files)
    return world


def install(world: World, **content: Any) -> None:
    world.register()
    outcome = world.provision(world.package(content=content))
    assert outcome.code is ResultCode.SUCCESS, outcome.checks


def replace_package(world: World, **content: Any) -> bytes:
    """The package of a new home operator that takes over."""
    world.register(sho_id=OTHER_SHO)
    inner = {"mcim_id": NEW_ID, "sho_id": OTHER_SHO, "replaces": MCIM_ID, "imsi": "001020123456789"} | content
    return world.package(header={"mcim_id": NEW_ID, "sho_id": OTHER_SHO}, content=inner, signer=OTHER_SHO)


def states(world: World) -> dict[UUID, ContainerState]:
    return {each.mcim_id: each.state for each in world.tre.mcims()}


# -- commands ---------------------------------------------------------------------------------------------------------

BY_STATE = {
    (PROVISIONED, ACTIVATE): (ResultCode.SUCCESS, ACTIVATED),
    (PROVISIONED, SUSPEND): (ResultCode.WRONG_STATE, PROVISIONED),
    (PROVISIONED, DELETE): (ResultCode.SUCCESS, None),
    (ACTIVATED, ACTIVATE): (ResultCode.ALREADY_DONE, ACTIVATED),
    (ACTIVATED, SUSPEND): (ResultCode.SUCCESS, SUSPENDED),
    (ACTIVATED, DELETE): (ResultCode.SUCCESS, None),
    (SUSPENDED, ACTIVATE): (ResultCode.SUCCESS, ACTIVATED),
    (SUSPENDED, SUSPEND): (ResultCode.ALREADY_DONE, SUSPENDED),
    (SUSPENDED, DELETE): (ResultCode.SUCCESS, None),
    (None, ACTIVATE): (ResultCode.WRONG_STATE, None),
    (None, SUSPEND): (ResultCode.WRONG_STATE, None),
    (None, DELETE): (ResultCode.ALREADY_DONE, None),
}


def bring_to(world: World, state: ContainerState | None) -> None:
    install(world, initial_state=30 if state is PROVISIONED else 40)
    if state is SUSPENDED:
        assert world.do(SUSPEND) is ResultCode.SUCCESS
    if state is None:
        assert world.do(DELETE) is ResultCode.SUCCESS


@pytest.mark.parametrize(("before", "after"), BY_STATE.items(), ids=str)
def test_command_by_state(world: World, before: tuple[Any, Operation], after: tuple[ResultCode, Any]) -> None:
    """REQ-70, flows F5: each command in each state; nonce and sequence are used up, a receipt says so."""
    state, operation = before
    bring_to(world, state)
    request = world.register()
    command = world.command(operation)
    outcome = world.tre.command(operation, command, Hints(mcim_id=str(MCIM_ID)), NOW)
    code, now_in = after
    assert (outcome.code, states(world).get(MCIM_ID)) == (code, now_in), outcome.checks
    receipt = world.receipt_of(outcome)
    assert (receipt.operation, receipt.mcim_id, receipt.sho_id, receipt.nonce, receipt.result) == (
        operation, MCIM_ID, SHO, request.nonce, code,
    )  # fmt: skip
    assert receipt.package_hash == hashlib.sha256(command).digest()
    last = world.reopen().last_outcome()
    assert last is not None
    assert (last[0], last[1].code, last[1].receipt) == (receipt.package_hash, code, outcome.receipt)
    assert world.tre.registration(NOW).nonce == b""
    assert states(world).get(MCIM_ID) == now_in
    again = world.tre.command(operation, command, Hints(), NOW)
    assert again.code is ResultCode.REPLAY
    if code is ResultCode.SUCCESS:
        assert dict(world.tre._state.sequences)[SHO] == receipt.sequence


REFUSED_COMMANDS: dict[str, tuple[dict[str, Any], ResultCode]] = {
    "another home operator": ({"signer": OTHER_SHO}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "another one in its name": (
        {"signer": OTHER_SHO, "sho_id": SHO},
        ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
    "another TRE": ({"tre_id": "urn:m2m:tre:2"}, ResultCode.WRONG_RECIPIENT),
    "another M2ME": ({"m2me_id": "urn:imei:2"}, ResultCode.WRONG_RECIPIENT),
    "another platform key": ({"platform_key_id": bytes(16)}, ResultCode.WRONG_RECIPIENT),
    "another nonce": ({"registration_nonce": bytes(32)}, ResultCode.REPLAY),
    "used sequence": ({"sequence": 1}, ResultCode.REPLAY),
    "expired": ({"not_after": NOW}, ResultCode.OUTSIDE_VALIDITY),
    "not yet valid": ({"not_before": NOW + timedelta(seconds=1)}, ResultCode.OUTSIDE_VALIDITY),
    "another MCIM": ({"mcim_id": UUID(int=77)}, ResultCode.SIGNER_NOT_ACCEPTABLE),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED_COMMANDS.values(), ids=REFUSED_COMMANDS)
def test_a_command_passes_the_checks_of_a_package(world: World, changes: dict[str, Any], code: ResultCode) -> None:
    """REQ-70: nothing changes, the nonce is not burnt by a stranger, and the right command still works."""
    install(world)
    world.register(sho_id=None)
    refused = world.tre.command(SUSPEND, world.command(SUSPEND, **changes), Hints(), NOW)
    assert (refused.code, refused.mcim, states(world)) == (code, None, {MCIM_ID: ACTIVATED})
    assert world.do(SUSPEND, world.command(SUSPEND)) is ResultCode.SUCCESS


def test_every_bit_of_a_command_counts(world: World) -> None:
    """REQ-70: a changed command does nothing."""
    install(world)
    world.register()
    command = world.command(DELETE)
    for position in range(0, len(command), 97):
        changed = bytearray(command)
        changed[position] ^= 1
        assert world.do(DELETE, bytes(changed)) not in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE)
    assert states(world) == {MCIM_ID: ACTIVATED}
    assert world.do(DELETE, command) is ResultCode.SUCCESS


def test_the_exec_target_is_what_was_signed(world: World) -> None:
    """REQ-70: a signed Suspend is no Delete, and a package is no command, whatever the server executes."""
    install(world)
    world.register()
    for octets in (world.command(SUSPEND), world.package(header={"mcim_id": NEW_ID}, content={"mcim_id": NEW_ID})):
        outcome = world.tre.command(DELETE, octets, Hints(), NOW)
        assert outcome.code is ResultCode.CONTENT_INVALID
    assert world.do(SUSPEND, world.command(SUSPEND)) is ResultCode.SUCCESS


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (McimPolicy.SIGNED_LIFECYCLE, ResultCode.SIGNER_NOT_ACCEPTABLE),
        (McimPolicy.SIGNED_LIFECYCLE | McimPolicy.TWO_PHASE_UPDATE, ResultCode.SIGNER_NOT_ACCEPTABLE),
        (McimPolicy.NONE, ResultCode.SUCCESS),
    ],
    ids=str,
)
@pytest.mark.parametrize("operation", [SUSPEND, DELETE], ids=lambda each: each.label)
def test_without_a_signature_the_policy_decides(
    world: World, operation: Operation, policy: McimPolicy, code: ResultCode
) -> None:
    """REQ-70: with the default policy an unsigned delete or suspend of server or user is refused."""
    install(world, policy=policy)
    before = world.register()
    outcome = world.tre.local_command(operation, MCIM_ID, NOW)
    assert outcome.code is code
    assert world.receipt_of(outcome).result is code
    assert world.tre.registration(NOW) == before  # no nonce was used, so none is used up
    assert (states(world) == {MCIM_ID: ACTIVATED}) is (code is not ResultCode.SUCCESS)


def test_the_default_policy_wants_signatures(world: World) -> None:
    """REQ-70: an MCIM without the POLICY TLV."""
    install(world)
    assert world.tre.mcims()[0].policy is McimPolicy.SIGNED_LIFECYCLE


def test_a_deleted_mcim_does_not_come_back(world: World) -> None:
    """REQ-70: neither the old package nor a new one under its id; its secrets are gone from the state."""
    world.register()
    package = world.package()
    assert world.provision(package).code is ResultCode.SUCCESS
    assert world.do(DELETE) is ResultCode.SUCCESS
    stone = world.reopen()._state.tombstone(MCIM_ID)
    assert stone is not None
    assert (stone.sho_id, stone.sequence) == (SHO, 2)
    assert K not in world.tre._state.dump()
    world.register()
    assert world.provision(package).code is ResultCode.REPLAY
    outcome = world.provision(world.package(revision=2))
    assert (outcome.code, outcome.checks[-1].name) == (ResultCode.WRONG_STATE, "mcim-id")
    with pytest.raises(TreError):
        world.tre.attach_identity(MCIM_ID)


# -- installing what is there ----------------------------------------------------------------------------------------


def test_the_same_mcim_again_is_no_second_installation(world: World) -> None:
    """REQ-52, REQ-68: signed anew after a lost report: 1201, and the network's sequence numbers are not turned back."""
    install(world)
    vector = aka.generate_vector(Milenage(K, OPC), rand=bytes(16), sqn=0x1000)
    assert isinstance(world.tre.authenticate(MCIM_ID, bytes(16), vector.autn), aka.Accepted)
    world.register()
    outcome = world.provision(world.package())
    assert (outcome.code, world.receipt_of(outcome).result) == (ResultCode.ALREADY_DONE,) * 2
    assert isinstance(world.tre.authenticate(MCIM_ID, bytes(16), vector.autn), aka.SyncFailure)
    assert world.tre.mcims()[0].sequence == 2


OTHER_MCIMS: dict[str, tuple[dict[str, Any], dict[str, Any], ResultCode]] = {
    "other keys": ({"content": {"k": NEW_K, "opc": NEW_OPC}}, {}, ResultCode.WRONG_STATE),
    "another IMSI": ({"content": {"imsi": "001010999999999"}}, {}, ResultCode.WRONG_STATE),
    "higher revision": ({"revision": 2}, {}, ResultCode.WRONG_STATE),
    "another home operator": (
        {"content": {"sho_id": OTHER_SHO}, "header": {"sho_id": OTHER_SHO}, "signer": OTHER_SHO},
        {"sho_id": OTHER_SHO},
        ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
}


@pytest.mark.parametrize(("package", "request_", "code"), OTHER_MCIMS.values(), ids=OTHER_MCIMS)
def test_another_mcim_under_the_same_id(
    world: World, package: dict[str, Any], request_: dict[str, Any], code: ResultCode
) -> None:
    """REQ-70: an install changes nothing that is installed."""
    install(world)
    before = world.tre._state.mcims
    world.register(**request_)
    outcome = world.provision(world.package(**package))
    assert (outcome.code, outcome.checks[-1].name) == (code, "mcim-id")
    assert world.tre._state.mcims == before


def test_prepared_object(world: World) -> None:
    """REQ-65: made before there was a nonce; the signed header brings it, and it is good once."""
    world.register()
    package = world.package(
        content={"bind_mode": BindMode.PREPARED, "registration_nonce": None, "transaction_id": None}
    )
    assert world.provision(package).code is ResultCode.SUCCESS
    world.register()
    assert world.provision(package).code is ResultCode.REPLAY


# -- update -----------------------------------------------------------------------------------------------------------


def test_update_changes_what_it_names_and_nothing_else(world: World) -> None:
    """flows F4, REQ-36: one field, a higher revision; all the rest stays, the network's sequence numbers too."""
    install(world)
    (before,) = world.tre._state.mcims
    world.register(sho_id=None)
    package = world.update(imsi="001010999999999")
    outcome = world.provision(package)
    assert outcome.code is ResultCode.SUCCESS, outcome.checks
    (after,) = world.reopen()._state.mcims
    assert after == replace(before, imsi="001010999999999", revision=2, sequence=2, origin=after.origin)
    assert (after.origin.operation, after.origin.package_hash) == (Operation.UPDATE, hashlib.sha256(package).digest())
    receipt = world.receipt_of(outcome)
    assert (receipt.operation, receipt.revision, receipt.sequence) == (Operation.UPDATE, 2, 2)
    assert world.tre.registration(NOW).state is RegistrationState.PROVISIONED


def test_update_of_the_keys(world: World) -> None:
    """flows F4: K and OPc change together and with a new sequence number."""
    install(world)
    world.register()
    assert world.provision(world.update(keys=NEW_KEYS, sqn_init=0x20)).code is ResultCode.SUCCESS
    old = aka.generate_vector(Milenage(K, OPC), rand=bytes(16), sqn=0x10000)
    new = aka.generate_vector(Milenage(NEW_K, NEW_OPC), rand=bytes(16), sqn=0x41)
    assert isinstance(world.tre.authenticate(MCIM_ID, bytes(16), old.autn), aka.MacFailure)
    assert isinstance(world.tre.authenticate(MCIM_ID, bytes(16), new.autn), aka.Accepted)


UPDATES: dict[str, tuple[dict[str, Any], ResultCode, str]] = {
    "the same revision with other values": (
        {"revision": 1, "imsi": "001010999999999"}, ResultCode.REVISION_TOO_LOW, "revision",
    ),
    "an MCIM that is not there": ({"mcim_id": NEW_ID}, ResultCode.WRONG_STATE, "mcim-id"),
    "a lower sequence number under the same key": ({"sqn_init": 0x20}, ResultCode.CONTENT_INVALID, "sequence-reset"),
    "another home operator": ({"sho_id": OTHER_SHO}, ResultCode.SIGNER_NOT_ACCEPTABLE, "signer-certificate"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "code", "check"), UPDATES.values(), ids=UPDATES)
def test_refused_update(world: World, changes: dict[str, Any], code: ResultCode, check: str) -> None:
    """REQ-36, REQ-53, REQ-70: roll-back of revision or sequence number, or an update by somebody else."""
    install(world)
    before = world.tre._state.mcims
    world.register()
    outcome = world.provision(world.update(**changes))
    assert (outcome.code, outcome.checks[-1].name) == (code, check)
    assert world.tre._state.mcims == before


TUAK = NetworkKeys(algorithm=AlgorithmId.TUAK, k=NEW_K, opc=NEW_OPC * 2)


def test_an_algorithm_that_the_tre_does_not_have(world: World) -> None:
    """REQ-47, 1421: neither an install nor an update puts in what could not be used."""
    install(world)
    world.tre._memory.state = replace(world.tre._state, algorithms=("milenage",))
    other = {"mcim_id": NEW_ID, "algorithm": TUAK.algorithm, "k": TUAK.k, "opc": TUAK.opc}
    for make in (
        lambda: world.package(header={"mcim_id": NEW_ID}, content=other),
        lambda: world.update(keys=TUAK, sqn_init=0x20),
    ):
        world.register()
        outcome = world.provision(make())
        assert (outcome.code, outcome.checks[-1].name) == (ResultCode.ALGORITHM_UNSUPPORTED, "algorithm")
    assert states(world) == {MCIM_ID: ACTIVATED}


def test_algorithm_constants_are_an_update(world: World) -> None:
    """Tag 02: other constants for the MCIM; its keys and sequence numbers stay."""
    install(world)
    (before,) = world.tre._state.mcims
    constants = bytes((8, 72, 40, 104, 24)) + b"".join(bytes(15) + bytes((1 << bit,)) for bit in (7, 0, 1, 2, 3))
    world.register()
    package = world.update(kind=AlgorithmContent, algorithm=AlgorithmId.MILENAGE, constants=constants)
    outcome = world.provision(package)
    assert outcome.code is ResultCode.SUCCESS, outcome.checks
    (after,) = world.tre._state.mcims
    assert after.keys == replace(before.keys, constants=constants)
    assert (after.usim, after.revision) == (before.usim, 2)
    world.register()
    foreign = world.update(revision=3, kind=AlgorithmContent, algorithm=AlgorithmId.TUAK, constants=TUAK_DEFAULTS)
    assert world.provision(foreign).code is ResultCode.CONTENT_INVALID


def test_algorithm_code_is_refused(world: World) -> None:
    """T15: code of whoever it is runs nowhere; the nonce is used up, the MCIM as before."""
    install(world)
    before = world.tre._state.mcims
    world.register()
    code = AlgorithmCode(format=CodeFormat.JAVA, octets=b"code")
    outcome = world.provision(world.update(kind=AlgorithmContent, algorithm=AlgorithmId.CODE, code=code))
    assert (outcome.code, outcome.checks[-1].name) == (ResultCode.ALGORITHM_UNSUPPORTED, "algorithm")
    assert world.tre._state.mcims == before
    assert world.tre.registration(NOW).state is RegistrationState.FAILED


def test_update_again_is_idempotent(world: World) -> None:
    """REQ-68: the same update signed anew after a lost report."""
    install(world)
    for code in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE):
        world.register()
        assert world.provision(world.update(imsi="001010999999999")).code is code


def test_two_phase_update(world: World) -> None:
    """flows F4: with the policy the values before come back when the network refuses, and go when it does not."""
    install(world, policy=McimPolicy.TWO_PHASE_UPDATE)
    (before,) = world.tre._state.mcims
    world.register()
    package = world.update(keys=NEW_KEYS, sqn_init=0x20, imsi="001010999999999")
    assert world.provision(package).code is ResultCode.SUCCESS
    assert not world.reopen().mcims()[0].confirmed
    outcome = world.tre.fall_back(MCIM_ID, NOW)
    assert outcome is not None
    receipt = world.receipt_of(outcome)
    assert (receipt.operation, receipt.sequence, receipt.result) == (Operation.UPDATE, 2, ResultCode.FELL_BACK)
    assert receipt.package_hash == hashlib.sha256(package).digest()
    (after,) = world.reopen()._state.mcims
    assert (after.keys, after.imsi, after.revision, after.usim) == (
        before.keys, before.imsi, before.revision, before.usim,
    )  # fmt: skip
    assert (world.tre.attach_identity(MCIM_ID), world.tre.fall_back(MCIM_ID, NOW)) == (IMSI, None)
    world.register()
    assert world.provision(package).code is ResultCode.REPLAY  # what failed does not come back by itself
    assert world.provision(world.update(keys=NEW_KEYS, sqn_init=0x20)).code is ResultCode.SUCCESS
    world.tre.confirm_attach(MCIM_ID, NOW)
    assert world.reopen().fall_back(MCIM_ID, NOW) is None
    assert world.tre._state.mcims[0].keys == NEW_KEYS
    assert K not in world.tre._state.dump()


@pytest.mark.parametrize("changes", [{"imsi": "001010999999999"}, {"sqn_init": 0x2000}], ids=["imsi", "sqn"])
def test_falling_back_makes_no_challenge_good_again(world: World, changes: dict[str, Any]) -> None:
    """T3, REQ-53: the key stayed the same, so what the network asked under the update is not asked a second time."""
    install(world, policy=McimPolicy.TWO_PHASE_UPDATE)
    world.register()
    assert world.provision(world.update(**changes)).code is ResultCode.SUCCESS
    vector = aka.generate_vector(Milenage(K, OPC), rand=bytes(16), sqn=0x2025)
    assert isinstance(world.tre.authenticate(MCIM_ID, bytes(16), vector.autn), aka.Accepted)
    assert world.tre.fall_back(MCIM_ID, NOW) is not None
    assert world.reopen().attach_identity(MCIM_ID) == IMSI
    assert isinstance(world.tre.authenticate(MCIM_ID, bytes(16), vector.autn), aka.SyncFailure)
    later = aka.generate_vector(Milenage(K, OPC), rand=bytes(16), sqn=0x2045)
    assert isinstance(world.tre.authenticate(MCIM_ID, bytes(16), later.autn), aka.Accepted)


def test_update_without_the_policy_keeps_nothing(world: World) -> None:
    """flows F4: the old keys are gone with the write."""
    install(world)
    world.register()
    assert world.provision(world.update(keys=NEW_KEYS, sqn_init=0x20)).code is ResultCode.SUCCESS
    assert K not in world.tre._state.dump()
    assert world.tre.fall_back(MCIM_ID, NOW) is None


# -- change of SHO ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initial_state", [30, 40])
def test_change_of_sho(world: World, initial_state: int) -> None:
    """flows F6, REQ-70: the new one active and the old one suspended in one write; the old one is still there."""
    install(world)
    assert world.provision(replace_package(world, initial_state=initial_state)).code is ResultCode.SUCCESS
    if initial_state == 30:
        assert states(world) == {MCIM_ID: ACTIVATED, NEW_ID: PROVISIONED}
        assert world.do(ACTIVATE, mcim_id=NEW_ID, signer=OTHER_SHO) is ResultCode.SUCCESS
    assert states(world) == {MCIM_ID: SUSPENDED, NEW_ID: ACTIVATED}
    world.tre.confirm_attach(NEW_ID, NOW)
    assert world.do(DELETE, signer=OTHER_SHO) is ResultCode.SIGNER_NOT_ACCEPTABLE  # it was not released to the new one
    assert world.do(DELETE) is ResultCode.SUCCESS
    assert states(world) == {NEW_ID: ACTIVATED}


@pytest.mark.parametrize("initial_state", [30, 40])
def test_fall_back_to_the_old_sho(world: World, initial_state: int) -> None:
    """flows F6: the attach failed: the old MCIM is active again; the receipt is the package's, with 1426."""
    install(world)
    package = replace_package(world, initial_state=initial_state)
    assert world.provision(package).code is ResultCode.SUCCESS
    if initial_state == 30:
        assert world.tre.fall_back(NEW_ID, NOW) is None  # it is not in use
        assert world.do(ACTIVATE, mcim_id=NEW_ID, signer=OTHER_SHO) is ResultCode.SUCCESS
    outcome = world.reopen().fall_back(NEW_ID, NOW)
    assert outcome is not None
    assert states(world) == {MCIM_ID: ACTIVATED, NEW_ID: SUSPENDED}
    receipt = world.receipt_of(outcome)
    assert (receipt.result, receipt.operation, receipt.mcim_id, receipt.sho_id) == (
        ResultCode.FELL_BACK, Operation.REPLACE, NEW_ID, OTHER_SHO,
    )  # fmt: skip
    assert receipt.package_hash == hashlib.sha256(package).digest()
    last = world.reopen().last_outcome()
    assert last is not None
    assert (last[0], last[1].code) == (receipt.package_hash, ResultCode.FELL_BACK)
    assert world.tre.fall_back(MCIM_ID, NOW) is None


def test_after_a_success_there_is_no_way_back(world: World) -> None:
    """flows F6: an attach that failed later does not bring the old MCIM back."""
    install(world)
    assert world.provision(replace_package(world)).code is ResultCode.SUCCESS
    world.tre.confirm_attach(NEW_ID, NOW)
    assert world.reopen().fall_back(NEW_ID, NOW) is None
    assert states(world) == {MCIM_ID: SUSPENDED, NEW_ID: ACTIVATED}


BOUND = McimPolicy.SIGNED_LIFECYCLE | McimPolicy.RELEASE_REQUIRED
TOKENS: dict[str, tuple[dict[str, Any] | None, ResultCode]] = {
    "none": (None, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "right": ({}, ResultCode.SUCCESS),
    "for another new home operator": ({"new_sho_id": "sho3.example"}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "signed by the new one": ({"signer": OTHER_SHO}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "signed by the new one in the old one's name": (
        {"signer": OTHER_SHO, "sho_id": SHO}, ResultCode.SIGNER_NOT_ACCEPTABLE,
    ),
    "of another MCIM": ({"mcim_id": UUID(int=77)}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "of another TRE": ({"tre_id": "urn:m2m:tre:2"}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "too late": ({"not_after": NOW}, ResultCode.SIGNER_NOT_ACCEPTABLE),
    "too early": ({"not_before": NOW + timedelta(seconds=1)}, ResultCode.SIGNER_NOT_ACCEPTABLE),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "code"), TOKENS.values(), ids=TOKENS)
def test_release_token(world: World, changes: dict[str, Any] | None, code: ResultCode) -> None:
    """T14, REQ-70: who wants a release gets one, or nobody takes the device over."""
    install(world, policy=BOUND)
    token = None if changes is None else world.release(**changes)
    outcome = world.provision(replace_package(world, release_token=token))
    assert outcome.code is code
    if code is not ResultCode.SUCCESS:
        assert outcome.checks[-1].name == "release"
        assert states(world) == {MCIM_ID: ACTIVATED}
        return
    assert states(world) == {MCIM_ID: SUSPENDED, NEW_ID: ACTIVATED}
    # The new home operator may delete the old MCIM now, and nobody else's.
    assert world.do(DELETE, signer=OTHER_SHO) is ResultCode.SUCCESS
    assert states(world) == {NEW_ID: ACTIVATED}
    assert world.do(DELETE, signer=OTHER_SHO) is ResultCode.ALREADY_DONE


def test_a_release_is_for_deleting_alone_and_not_while_it_is_in_use(world: World) -> None:
    """T14: make before break: the old MCIM goes when the new one is in use, and only goes."""
    install(world, policy=BOUND)
    token = world.release()
    assert world.provision(replace_package(world, release_token=token, initial_state=30)).code is ResultCode.SUCCESS
    assert world.do(SUSPEND, signer=OTHER_SHO) is ResultCode.SIGNER_NOT_ACCEPTABLE
    assert world.do(DELETE, signer=OTHER_SHO) is ResultCode.WRONG_STATE
    assert states(world)[MCIM_ID] is ACTIVATED


@pytest.mark.parametrize("initial_state", [30, 40])
def test_a_plain_install_is_no_way_around_the_release(world: World, initial_state: int) -> None:
    """T14: what another home operator did not release is not suspended by an install or an Activate either."""
    install(world, policy=BOUND)
    world.register(sho_id=OTHER_SHO)
    inner = {"mcim_id": NEW_ID, "sho_id": OTHER_SHO, "initial_state": initial_state}
    package = world.package(header={"mcim_id": NEW_ID, "sho_id": OTHER_SHO}, content=inner, signer=OTHER_SHO)
    code = world.provision(package).code
    if initial_state == 30:
        assert code is ResultCode.SUCCESS
        code = world.do(ACTIVATE, mcim_id=NEW_ID, signer=OTHER_SHO)
    assert code is ResultCode.SIGNER_NOT_ACCEPTABLE
    assert states(world)[MCIM_ID] is ACTIVATED


def test_update_of_the_replaced_one_stays_with_its_own_sho(world: World, tmp_path: Path) -> None:
    """REQ-70: the home operator now selected has no say over the MCIM of another one."""
    install(world)
    assert world.provision(replace_package(world)).code is ResultCode.SUCCESS
    world.register(sho_id=OTHER_SHO)
    assert world.provision(world.update(sho_id=OTHER_SHO, imsi="001010999999999")).code is (
        ResultCode.SIGNER_NOT_ACCEPTABLE
    )
    assert world.provision(world.update(imsi="001010999999999")).code is ResultCode.SUCCESS


def test_a_key_store_that_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-56: a token that was pulled out: an outcome without receipt, nothing changed, and later it works."""
    world.register()
    package = world.package()

    def gone(octets: bytes) -> bytes:
        raise KeyStoreError("no token")

    with monkeypatch.context() as patch:
        patch.setattr(world.tre._keys, "sign", gone)
        outcome = world.provision(package)
    assert (outcome.code, outcome.receipt, outcome.mcim) == (ResultCode.INTERNAL_ERROR, b"", None)
    assert world.tre.mcims() == ()
    assert world.provision(package).code is ResultCode.SUCCESS
