"""The software TRE: what it installs, what it refuses with which code, and what is left behind each time."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dmclient.tre import reception
from dmclient.tre.base import Hints, Outcome, TreError
from dmclient.tre.environment import Tre
from dmclient.tre.provisioning import MAX_CRYPTO_FAILURES
from dmclient.tre.software import SoftwareKeyStore
from dmclient.tre.store import STORE_NAME
from mcim import aka
from mcim.milenage import Milenage
from mcim.vocabulary import (
    ContainerState,
    Operation,
    RegistrationState,
    ResultCode,
    Suite,
    Tag,
    ValidationMode,
)
from tests.support_tre import IMSI, M2ME_ID, MCIM_ID, NOW, OPC, OTHER_SHO, SEAL_KEY, SHO, TRE_ID, K, World

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, bytes]]:
    """One manufactured TRE; making RSA keys is slow, so each test starts from a copy of its files."""
    world = World(tmp_path_factory.mktemp("tre"))
    return world, world.snapshot()


@pytest.fixture
def world(made: tuple[World, dict[str, bytes]]) -> World:
    world, files = made
    world.restore(files)
    world.register()
    return world


@contextmanager
def full_disk(*functions: str) -> Iterator[None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        for function in functions or ("fsync",):
            patch.setattr(os, function, fail)
        yield


def failed_check(outcome: Outcome) -> str:
    assert [record.passed for record in outcome.checks].count(False) == 1
    assert not outcome.checks[-1].passed
    return outcome.checks[-1].name


# -- success --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_type", ["rsa", "ec"])
def test_installs_a_good_package(world: World, key_type: str, tmp_path: Path) -> None:
    """REQ-51, REQ-52, REQ-53, REQ-55, REQ-67: installed, nonce consumed, sequence raised, receipt bound to it all."""
    if key_type == "ec":
        world = World(tmp_path, key_type="ec")
        world.register()
    nonce = world.tre.registration(NOW).nonce
    package = world.package()
    hints = Hints(mcim_id=str(MCIM_ID), sho_id=SHO, req_id=world.tre.registration(NOW).req_id, nonce=nonce)
    outcome = world.provision(package, hints)
    assert outcome.code is ResultCode.SUCCESS, outcome.checks
    assert all(record.passed for record in outcome.checks)
    assert outcome.mcim is not None
    assert (outcome.mcim.state, outcome.mcim.imsi_mask) == (ContainerState.ACTIVATED, "00101********89")
    receipt = world.receipt_of(outcome)
    assert receipt.result is ResultCode.SUCCESS
    assert receipt.package_hash == hashlib.sha256(package).digest()
    assert (receipt.mcim_id, receipt.sho_id, receipt.sequence, receipt.nonce) == (MCIM_ID, SHO, 1, nonce)
    tre = world.reopen()
    registration = tre.registration(NOW)
    assert (registration.state, registration.nonce) == (RegistrationState.PROVISIONED, b"")
    assert registration.next_sequence == 2
    assert tre.mcims() == (outcome.mcim,)
    assert tre.receipt() == outcome.receipt
    assert tre.attach_identity(MCIM_ID) == IMSI


def test_a_provisioned_mcim_is_not_yet_used(world: World) -> None:
    """Initial state 30: installed, but there is no network access with it."""
    outcome = world.provision(world.package(content={"initial_state": 30}))
    assert outcome.mcim is not None
    assert outcome.mcim.state is ContainerState.PROVISIONED
    with pytest.raises(TreError):
        world.tre.attach_identity(MCIM_ID)
    with pytest.raises(TreError):
        world.tre.authenticate(MCIM_ID, bytes(16), bytes(16))


# -- refusals -------------------------------------------------------------------------------------------------------

Make = Callable[[World], bytes]
LATER = NOW + DAY

REFUSALS: dict[str, tuple[Make, ResultCode, str]] = {
    "REQ-31 too large": (lambda w: bytes(64 * 1024 + 1), ResultCode.MALFORMED, "package-size"),
    "REQ-59 no package": (lambda w: b"no XML", ResultCode.MALFORMED, "package-structure"),
    "REQ-39 suite below the minimum": (
        lambda w: w.package(header={"suite": Suite.LEGACY_1}),
        ResultCode.UNSUPPORTED_SUITE,
        "suite-minimum",
    ),
    "REQ-50 another legitimate SHO signs for the selected one": (
        lambda w: w.package(signer=OTHER_SHO),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
        "signer-certificate",
    ),
    "REQ-50 another legitimate SHO in its own name": (
        lambda w: w.package(signer=OTHER_SHO, header={"sho_id": OTHER_SHO}, content={"sho_id": OTHER_SHO}),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
        "signer-certificate",
    ),
    "REQ-58 addressed to another TRE": (
        lambda w: w.package(header={"tre_id": "urn:m2m:tre:0002"}),
        ResultCode.WRONG_RECIPIENT,
        "recipient",
    ),
    "REQ-58 addressed to another M2ME": (
        lambda w: w.package(header={"m2me_id": "urn:imei:2"}),
        ResultCode.WRONG_RECIPIENT,
        "recipient",
    ),
    "REQ-64 for another platform key": (
        lambda w: w.package(header={"platform_key_id": bytes(16)}),
        ResultCode.WRONG_RECIPIENT,
        "recipient",
    ),
    "REQ-52 another nonce": (
        lambda w: w.package(header={"registration_nonce": bytes(32)}),
        ResultCode.REPLAY,
        "registration-nonce",
    ),
    "REQ-53 lower sequence": (
        lambda w: w.package(header={"sequence": 0}),
        ResultCode.REPLAY,
        "sequence-number",
    ),
    "REQ-54 expired": (
        lambda w: w.package(header={"not_after": NOW - timedelta(seconds=1)}),
        ResultCode.OUTSIDE_VALIDITY,
        "package-validity",
    ),
    "REQ-54 not yet valid": (
        lambda w: w.package(header={"not_before": NOW + timedelta(seconds=1)}),
        ResultCode.OUTSIDE_VALIDITY,
        "package-validity",
    ),
    "REQ-29 object that is none": (
        lambda w: w.package(mcim_object=b"\x00" * 700),
        ResultCode.CRYPTO_FAILURE,
        "decryption-and-integrity",
    ),
    "REQ-39 inner suite other than the signed one": (
        lambda w: w.package(header={"suite": w.tre.facts().suites[1]}),
        ResultCode.CRYPTO_FAILURE,
        "decryption-and-integrity",
    ),
    "REQ-33 broken frame behind a right MAC": (
        lambda w: w.package(frame=bytes(64)),
        ResultCode.MALFORMED,
        "data-frame",
    ),
}
"""What does not cost the device its nonce: a stranger, or a mishap on the way, could have caused it."""

FINAL_REFUSALS: dict[str, tuple[Make, ResultCode, str]] = {
    "REQ-34 tag of another operation": (
        lambda w: w.package(tag=Tag.COMMAND),
        ResultCode.CONTENT_INVALID,
        "content-rules",
    ),
    "REQ-30 no TLVs": (lambda w: w.package(payload=b"\x80"), ResultCode.CONTENT_INVALID, "content-rules"),
    "REQ-57 object of another SHO signed again": (
        lambda w: w.package(content={"sho_id": OTHER_SHO}),
        ResultCode.SIGNER_NOT_ACCEPTABLE,
        "inner-identities",
    ),
    "REQ-57 object for another TRE": (
        lambda w: w.package(content={"tre_id": "urn:m2m:tre:0002"}),
        ResultCode.WRONG_RECIPIENT,
        "inner-identities",
    ),
    "REQ-57 another MCIM inside": (
        lambda w: w.package(content={"mcim_id": UUID(int=5)}),
        ResultCode.CONTENT_INVALID,
        "inner-identities",
    ),
    "REQ-57 another sequence inside": (
        lambda w: w.package(content={"sequence": 9}),
        ResultCode.CONTENT_INVALID,
        "inner-identities",
    ),
    "REQ-61 a token inside that the header does not announce": (
        lambda w: w.package(header={"auth_mode": "none"}, content={"auth_token": b"label"}),
        ResultCode.CONTENT_INVALID,
        "inner-identities",
    ),
    "REQ-61 a token announced and not there": (
        lambda w: w.package(header={"auth_mode": "token"}),
        ResultCode.CONTENT_INVALID,
        "inner-identities",
    ),
    "REQ-70 nothing there to replace": (
        lambda w: w.package(content={"replaces": UUID(int=5)}),
        ResultCode.WRONG_STATE,
        "release",
    ),
    "REQ-57 another nonce inside": (
        lambda w: w.package(content={"registration_nonce": bytes(32)}),
        ResultCode.CONTENT_INVALID,
        "inner-identities",
    ),
    "REQ-54 MCIM expired": (
        lambda w: w.package(content={"not_after": NOW - timedelta(seconds=1)}),
        ResultCode.OUTSIDE_VALIDITY,
        "mcim-validity",
    ),
}


@pytest.mark.parametrize(("make", "code", "check"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_leaves_the_registration_open(world: World, make: Make, code: ResultCode, check: str) -> None:
    """Nothing is installed, the receipt says so, and the right package is still welcome (REQ-52, REQ-56, REQ-67)."""
    before = world.tre.registration(NOW)
    package = make(world)
    outcome = world.provision(package)
    assert (outcome.code, failed_check(outcome), outcome.mcim) == (code, check, None)
    receipt = world.receipt_of(outcome)
    assert (receipt.result, receipt.package_hash) == (code, hashlib.sha256(package).digest())
    assert world.reopen().registration(NOW) == before
    assert world.tre.mcims() == ()
    assert world.tre.receipt() == outcome.receipt
    assert world.provision(world.package()).code is ResultCode.SUCCESS


@pytest.mark.parametrize(("make", "code", "check"), FINAL_REFUSALS.values(), ids=FINAL_REFUSALS)
def test_final_refusal_consumes_the_nonce(world: World, make: Make, code: ResultCode, check: str) -> None:
    """Behind signature and MAC only the SHO itself can have failed: the same package can never come back."""
    package = make(world)
    outcome = world.provision(package)
    assert (outcome.code, failed_check(outcome), outcome.mcim) == (code, check, None)
    assert world.receipt_of(outcome).result is code
    registration = world.reopen().registration(NOW)
    assert (registration.state, registration.nonce) == (RegistrationState.FAILED, b"")
    assert world.tre.mcims() == ()
    assert world.provision(package).code is ResultCode.REPLAY
    world.register()
    assert world.provision(world.package()).code is ResultCode.SUCCESS


def test_replayed_package(world: World) -> None:
    """REQ-52: the same octets a second time, before and after a new registration and a restart."""
    package = world.package()
    first = world.provision(package)
    assert first.code is ResultCode.SUCCESS
    installed = world.tre.mcims()
    assert world.provision(package).code is ResultCode.REPLAY
    world.reopen()
    assert world.provision(package).code is ResultCode.REPLAY
    world.register()
    assert world.provision(package).code is ResultCode.REPLAY
    assert world.tre.mcims() == installed


def test_sequence_survives_even_a_new_nonce(world: World) -> None:
    """REQ-53: a package signed anew for the present nonce, but with a used sequence number."""
    assert world.provision(world.package(header={"sequence": 5}, content={"sequence": 5})).code is ResultCode.SUCCESS
    world.reopen()
    assert world.register().next_sequence == 6
    for sequence in (1, 5):
        changes = {"sequence": sequence}
        assert world.provision(world.package(header=changes, content=changes)).code is ResultCode.REPLAY
    assert world.provision(world.package()).code is ResultCode.ALREADY_DONE  # the same MCIM, signed once more


def test_no_bit_of_a_package_can_be_flipped(world: World) -> None:
    """REQ-32, REQ-59: wherever it falls, nothing is installed and the nonce is not burnt."""
    package = world.package()
    generator = random.Random(7)
    codes = set()
    for _ in range(40):
        position = generator.randrange(len(package))
        changed = bytearray(package)
        changed[position] ^= 1 << generator.randrange(7)
        outcome = world.provision(bytes(changed))
        codes.add(outcome.code)
        assert world.tre.mcims() == ()
    assert codes <= {
        ResultCode.MALFORMED,
        ResultCode.SIGNATURE_INVALID,
        ResultCode.SIGNER_NOT_ACCEPTABLE,
        ResultCode.UNSUPPORTED_SUITE,
    }
    assert world.provision(package).code is ResultCode.SUCCESS


def test_signer_with_a_key_of_an_unknown_type(world: World) -> None:
    """REQ-50: what no library knows is not acceptable, and no internal error."""
    _, (leaf, *_) = world.signers[SHO]
    der = leaf.public_bytes(Encoding.DER)
    odd = der.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0209"))
    package = world.package().replace(base64.b64encode(der), base64.b64encode(odd))
    outcome = world.provision(package)
    assert (outcome.code, failed_check(outcome)) == (ResultCode.SIGNER_NOT_ACCEPTABLE, "signer-certificate")


HINTS = {
    "another form": (Hints(content_type="application/pkcs7-mime"), ResultCode.MALFORMED),
    "another MCIM": (Hints(mcim_id=str(UUID(int=5))), ResultCode.MALFORMED),
    "another SHO": (Hints(sho_id=OTHER_SHO), ResultCode.MALFORMED),
    "another nonce": (Hints(nonce=bytes(32)), ResultCode.MALFORMED),
    "another request": (Hints(req_id=str(UUID(int=5))), ResultCode.NO_REGISTRATION),
}


@pytest.mark.parametrize(("hints", "code"), HINTS.values(), ids=HINTS)
def test_hints_only_ever_refuse(world: World, hints: Hints, code: ResultCode) -> None:
    """REQ-57: clear leaves that disagree with the signed header."""
    outcome = world.provision(world.package(), hints)
    assert (outcome.code, failed_check(outcome)) == (code, "container-hints")
    assert world.provision(world.package()).code is ResultCode.SUCCESS


def test_without_a_registration_or_a_selected_sho_nothing_is_accepted(
    made: tuple[World, dict[str, bytes]], world: World
) -> None:
    """REQ-50, REQ-52."""
    package = world.package()
    world.restore(made[1])
    assert world.tre.registration(NOW).state is RegistrationState.IDLE
    assert world.provision(package).code is ResultCode.NO_REGISTRATION
    with pytest.raises(TreError):
        world.tre.generate_evidence(bytes(32), ValidationMode.SEMI_AUTONOMOUS, NOW)
    world.register(sho_id=None)
    assert world.provision(world.package()).code is ResultCode.SIGNER_NOT_ACCEPTABLE


def test_nonce_expires(world: World) -> None:
    """REQ-52: after 24 hours the nonce is worthless, and stays so."""
    package = world.package(header={"not_after": NOW + 2 * DAY})
    assert world.provision(package, now=LATER).code is ResultCode.REPLAY
    assert world.reopen().registration(NOW).state is RegistrationState.EXPIRED
    renewed = world.register(LATER)
    assert renewed.state is RegistrationState.REQUESTED
    assert len(renewed.nonce) == 32


def test_every_registration_has_a_new_nonce(world: World) -> None:
    seen = {world.register().nonce for _ in range(5)}
    assert len(seen) == 5


COMMANDS = (Operation.ACTIVATE, Operation.SUSPEND, Operation.DELETE, Operation.RELEASE)


@pytest.mark.parametrize("operation", COMMANDS, ids=lambda each: each.label)
def test_a_command_is_no_package(world: World, operation: Operation) -> None:
    """REQ-70: what is signed for another purpose is not taken as a package, and costs no nonce."""
    made_of = world.release() if operation is Operation.RELEASE else world.command(operation)
    outcome = world.provision(made_of)
    assert (outcome.code, failed_check(outcome)) == (ResultCode.CONTENT_INVALID, "operation")
    assert world.provision(world.package()).code is ResultCode.SUCCESS


def test_a_tre_out_of_order_refuses(world: World) -> None:
    """1423: packages, commands, requests and challenges of a TRE that is not in order."""
    package = world.package()
    assert world.provision(package).code is ResultCode.SUCCESS
    world.tre._memory.state = replace(world.tre._state, condition="tampered")
    assert world.provision(world.package()).code is ResultCode.TRE_STATE_NOT_OK
    for outcome in (
        world.tre.command(Operation.SUSPEND, world.command(Operation.SUSPEND), Hints(), NOW),
        world.tre.local_command(Operation.SUSPEND, MCIM_ID, NOW),
    ):
        assert outcome.code is ResultCode.TRE_STATE_NOT_OK
    for refused in (
        lambda: world.tre.generate_evidence(bytes(32), ValidationMode.SEMI_AUTONOMOUS, NOW),
        lambda: world.tre.authenticate(MCIM_ID, bytes(16), bytes(16)),
        lambda: world.register(),
    ):
        with pytest.raises(TreError):
            refused()


def test_a_full_tre_refuses(world: World) -> None:
    """1420 for one more; what it holds is still told apart."""
    world.tre._memory.state = replace(world.tre._state, max_mcim=1)
    assert world.provision(world.package(revision=3)).code is ResultCode.SUCCESS
    world.register()
    other = {"mcim_id": UUID(int=5)}
    assert world.provision(world.package(header=other, content=other)).code is ResultCode.TRE_FULL
    assert world.provision(world.package(revision=3)).code is ResultCode.ALREADY_DONE
    world.register()
    assert world.provision(world.package(revision=2)).code is ResultCode.REVISION_TOO_LOW
    assert [each.revision for each in world.tre.mcims()] == [3]


def test_guessing_at_ciphertexts_ends_the_registration(world: World) -> None:
    """REQ-60: ten packages that do not open, and a new registration is needed; no check says more than 1414."""
    package = world.package(mcim_object=bytes(700))
    for _ in range(MAX_CRYPTO_FAILURES):
        outcome = world.provision(package)
        assert outcome.code is ResultCode.CRYPTO_FAILURE
        assert outcome.checks[-1].detail == ""
    assert world.reopen().registration(NOW).state is RegistrationState.FAILED
    assert world.provision(package).code is ResultCode.REPLAY


# -- storage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("functions", [("fsync",), ("replace",), ("fsync", "replace")], ids="-".join)
def test_a_failed_write_keeps_the_previous_state(world: World, functions: tuple[str, ...]) -> None:
    """REQ-56: disk full in the one write of the installation: 1501, nothing changed, and a retry succeeds."""
    before = (world.directory / STORE_NAME).read_bytes()
    registration = world.tre.registration(NOW)
    package = world.package()
    with full_disk(*functions):
        outcome = world.provision(package)
    assert (outcome.code, failed_check(outcome), outcome.mcim) == (
        ResultCode.STORAGE_FAILURE,
        "sealed-store-written",
        None,
    )
    assert world.receipt_of(outcome).result is ResultCode.STORAGE_FAILURE
    assert (world.directory / STORE_NAME).read_bytes() == before
    assert (world.tre.registration(NOW), world.tre.mcims()) == (registration, ())
    assert (world.reopen().registration(NOW), world.tre.mcims()) == (registration, ())
    assert world.provision(package).code is ResultCode.SUCCESS


def test_power_cut_at_the_write(world: World) -> None:
    """REQ-56: stopped at the write, the TRE comes back in the state before, and the same package installs."""
    package = world.package()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", _cut)
        with pytest.raises(KeyboardInterrupt):
            world.provision(package)
    assert world.reopen().mcims() == ()
    assert world.provision(package).code is ResultCode.SUCCESS


def _cut(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_store_that_cannot_go_back_locks_the_tre(world: World) -> None:
    """REQ-56: file replaced, not proven durable, no way back: nothing goes on until a restart."""
    real, calls = os.fsync, iter(range(1, 100))
    package = world.package()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: real(descriptor) if next(calls) == 1 else _full())
        assert world.provision(package).code is ResultCode.STORAGE_FAILURE
    assert world.tre.facts().state == "locked"
    assert world.provision(package).code is ResultCode.STORAGE_FAILURE
    assert world.reopen().facts().state == "ok"
    assert len(world.tre.mcims()) == 1


def _full() -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_counters_never_repeat(world: World) -> None:
    """REQ-67: receipts and evidence count up through refusals, restarts and a disk that takes nothing."""
    counters = [world.receipt_of(world.provision(b"")).counter for _ in range(3)]
    with full_disk():
        counters += [world.receipt_of(world.provision(b"")).counter for _ in range(5)]
    world.reopen()
    counters += [world.receipt_of(world.provision(b"")).counter for _ in range(2)]
    assert counters == sorted(set(counters))
    with full_disk():
        blobs = [world.provision(b"").receipt for _ in range(40)]
    assert blobs[0]
    assert blobs[-1] == b""  # rather none than one with a number that could come again


def test_what_cannot_be_stored_is_not_shown(world: World) -> None:
    """A nonce is stored before it is shown."""
    before = world.tre.registration(NOW)
    with full_disk(), pytest.raises(TreError) as caught:
        world.register()
    assert caught.value.code is ResultCode.STORAGE_FAILURE
    assert world.tre.registration(NOW) == before


def test_an_unforeseen_error_is_an_outcome(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-60: 1500 outside, the type of the error in the log, and no text of it anywhere."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(K.hex())

    with monkeypatch.context() as patch:
        patch.setattr(reception, "examine", broken)
        outcome = world.provision(world.package())
    assert outcome.code is ResultCode.INTERNAL_ERROR
    assert K.hex() not in repr(outcome)
    assert world.provision(world.package()).code is ResultCode.SUCCESS


# -- token ----------------------------------------------------------------------------------------------------------


def test_device_token(tmp_path: Path) -> None:
    """REQ-61: missing or wrong 1417, locked after five tries 1418, right resets the counter."""
    world = World(tmp_path, key_type="ec", token=b"label-2026")

    def attempt(token: bytes | None) -> ResultCode:
        world.register()
        return world.provision(world.package(content={"auth_token": token})).code

    assert attempt(None) is ResultCode.TOKEN_WRONG
    assert [attempt(b"guess") for _ in range(4)] == [ResultCode.TOKEN_WRONG] * 4
    assert attempt(b"label-2026") is ResultCode.SUCCESS
    assert [attempt(b"label-2026") for _ in range(6)] == [ResultCode.ALREADY_DONE] * 6
    assert [attempt(b"guess") for _ in range(5)] == [ResultCode.TOKEN_WRONG] * 5
    world.reopen()
    assert attempt(b"label-2026") is ResultCode.TOKEN_LOCKED


# -- evidence, keys, certificates ----------------------------------------------------------------------------------


def test_evidence_is_bound_to_challenge_registration_and_platform_key(world: World) -> None:
    """REQ-18."""
    registration = world.tre.registration(NOW)
    evidence = world.evidence_of(world.tre.generate_evidence(b"c" * 32, ValidationMode.SEMI_AUTONOMOUS, NOW))
    assert (evidence.challenge, evidence.nonce) == (b"c" * 32, registration.nonce)
    assert str(evidence.req_id) == registration.req_id
    assert evidence.platform_key_id == world.tre.facts().platform_key_id
    assert (evidence.tre_id, evidence.m2me_id) == (TRE_ID, M2ME_ID)
    for challenge in (bytes(15), bytes(65)):
        with pytest.raises(TreError):
            world.tre.generate_evidence(challenge, ValidationMode.SEMI_AUTONOMOUS, NOW)


def test_no_way_to_a_private_key(world: World) -> None:
    """REQ-42, REQ-45: the interface has no export, what it returns has no secret, the file is sealed, keys differ."""
    assert world.provision(world.package()).code is ResultCode.SUCCESS
    tre = world.tre
    public = {name for name in dir(tre) if not name.startswith("_")}
    assert public == {
        "attach_identity", "authenticate", "begin_rekey", "certification_request", "command", "complete_rekey",
        "confirm_attach", "facts", "fall_back", "generate_evidence", "install_certificates", "last_outcome",
        "local_command", "manufacture", "mcims", "measurement_log", "open", "provision", "receipt", "registration",
        "renew_registration", "supplier_command", "take_measurements",
    }  # fmt: skip
    said = repr((tre, tre.facts(), tre.registration(NOW), tre.mcims(), tre.certification_request(), tre._state))
    sealed = (world.directory / STORE_NAME).read_bytes()
    for secret in (K, OPC, tre._state.platform_key, tre._state.attest_key, IMSI.encode()):
        assert repr(secret)[2:-1] not in said
        assert secret.hex() not in said
        assert secret not in sealed
    request = tre.certification_request()
    assert request["platformKey"] != request["attestKey"]
    assert "PRIVATE" not in "".join(request.values())


def test_roots_are_set_once(world: World, tmp_path: Path) -> None:
    """REQ-44: no second set of roots, and only certificates of the own keys."""
    platform, attest, chain, roots = world.certificates
    world.tre.install_certificates(platform, attest, chain, roots)  # the same again is harmless
    with pytest.raises(TreError):
        world.tre.install_certificates(platform, attest, chain, [*roots, platform])
    with pytest.raises(TreError):
        world.tre.install_certificates(attest, platform, chain, roots)
    with pytest.raises(TreError):
        Tre.manufacture(
            world.directory,
            seal_key=SEAL_KEY,
            key_store=SoftwareKeyStore(world.directory),
            m2me_id="x",
            tre_id="y",
        )
    facts = world.tre.facts()
    assert len(facts.trust_anchor_ids) == len(roots)
    assert facts.platform_cert is not None
    assert facts.free_space > 0


# -- network access -------------------------------------------------------------------------------------------------


def test_authenticates_with_one_resynchronisation(world: World) -> None:
    """REQ-69: the device is ahead, the AuC follows; a challenge is good once, across a restart too."""
    assert world.provision(world.package()).code is ResultCode.SUCCESS
    functions = Milenage(K, OPC)
    rand = bytes(range(16))
    behind = aka.generate_vector(functions, rand=rand, sqn=0x21)
    failure = world.tre.authenticate(MCIM_ID, rand, behind.autn)
    assert isinstance(failure, aka.SyncFailure)
    sqn_ms = aka.resynchronise(functions, rand=rand, auts=failure.auts)
    assert sqn_ms == 0x400
    fresh = aka.generate_vector(functions, rand=bytes(16), sqn=aka.next_sqn(sqn_ms))
    accepted = world.tre.authenticate(MCIM_ID, bytes(16), fresh.autn)
    assert isinstance(accepted, aka.Accepted)
    assert accepted.res == fresh.xres
    assert isinstance(world.reopen().authenticate(MCIM_ID, bytes(16), fresh.autn), aka.SyncFailure)
    assert isinstance(world.tre.authenticate(MCIM_ID, rand, bytes(16)), aka.MacFailure)


def test_no_response_without_a_stored_sequence_number(world: World) -> None:
    """REQ-69: RES leaves only when the SQN is on the disk."""
    assert world.provision(world.package()).code is ResultCode.SUCCESS
    vector = aka.generate_vector(Milenage(K, OPC), rand=bytes(16), sqn=0x1000)
    with full_disk(), pytest.raises(TreError) as caught:
        world.tre.authenticate(MCIM_ID, bytes(16), vector.autn)
    assert caught.value.code is ResultCode.STORAGE_FAILURE
    assert isinstance(world.tre.authenticate(MCIM_ID, bytes(16), vector.autn), aka.Accepted)


def test_unknown_mcim(world: World) -> None:
    with pytest.raises(TreError):
        world.tre.attach_identity(UUID(int=5))
