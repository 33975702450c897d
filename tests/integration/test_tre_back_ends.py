"""What every back-end of a TRE must do, run on each: software, a PKCS #11 token and a TPM, with RSA and EC keys."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dmclient.config import TreSection
from dmclient.tre.base import Hints, TreError
from dmclient.tre.counter import COUNTER_NAME
from dmclient.tre.counter_reference import REFERENCE_NAME
from dmclient.tre.environment import Tre
from dmclient.tre.key_stores import open_key_store
from dmclient.tre.keys import KeyBlobs, KeyStore, KeyStoreError, KeyType
from dmclient.tre.measured_start import REGISTER, measure_start
from dmclient.tre.memory import TreMemory
from dmclient.tre.profiles import PROFILES
from dmclient.tre.store import _AAD, STORE_NAME, SealedStore, StorageFailed
from mcim import aka
from mcim.data import encode_data
from mcim.key_id import key_id_of
from mcim.mcim_object import fresh_keys, seal_mcim
from mcim.measurement_log import composite_digest, decode_log, replay
from mcim.milenage import Milenage
from mcim.platform_key import PlatformPublicKey
from mcim.statements import verify_raw
from mcim.vocabulary import Container, ResultCode, Suite, Tag, ValidationMode
from tests.support_pki import rsa_key
from tests.support_tokens import RunningTpm, missing, running_tpm, settings_for
from tests.support_tre import IMSI, MCIM_ID, NOW, OPC, SEAL_KEY, SHO, K, World

BACK_ENDS = ("software", "pkcs11", "tpm")
KEY_TYPES: tuple[KeyType, ...] = ("rsa", "ec")
CHALLENGE = b"c" * 32


@dataclass(frozen=True)
class BackEnd:
    """A key store on this machine with a kind of key."""

    name: str
    key_type: KeyType
    settings: TreSection
    tpm: RunningTpm | None = None

    def open(self, directory: Path) -> KeyStore:
        """The key store for the TRE of a directory, opened as the device does it."""
        return open_key_store(self.settings, directory)

    @property
    def legacy_needed(self) -> bool:
        """SoftHSM2 knows OAEP with SHA-1 alone: with RSA it serves suite 1 and nothing else."""
        return (self.name, self.key_type) == ("pkcs11", "rsa")

    def world(self, directory: Path, **options: Any) -> World:
        """A TRE in it, with certificates and home operators."""
        options = {"profile": PROFILES[self.name], "legacy_suite": self.legacy_needed, **options}
        return World(directory, key_type=self.key_type, open_key_store=self.open, **options)


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTpm]:
    with running_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


def _back_end(request: pytest.FixtureRequest) -> BackEnd:
    name, key_type = request.param.split("-")
    if reason := missing(name):
        pytest.skip(reason)
    tpm = request.getfixturevalue("tpm") if name == "tpm" else None
    return BackEnd(name, key_type, settings_for(name, tcti=tpm.tcti if tpm else ""), tpm)


@pytest.fixture(scope="module", params=[f"{name}-{key_type}" for name in BACK_ENDS for key_type in KEY_TYPES])
def back_end(request: pytest.FixtureRequest) -> BackEnd:
    return _back_end(request)


@pytest.fixture(scope="module", params=["pkcs11-ec", "tpm-ec"])
def hardware(request: pytest.FixtureRequest) -> BackEnd:
    """Those with a counter that a file cannot turn back."""
    return _back_end(request)


@pytest.fixture(scope="module")
def made(back_end: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One TRE for the tests that leave it as it is, apart from what it has installed."""
    return back_end.world(tmp_path_factory.mktemp("tre"), max_mcim=16)


@pytest.fixture
def world(made: World) -> World:
    made.suite = made.container = None
    made.register()
    return made


def another(world: World, mcim_id: UUID | None = None) -> bytes:
    """A good package with an MCIM that is not there yet."""
    ids = {"mcim_id": mcim_id or uuid4()}
    return world.package(header=ids, content=ids)


def sealed(world: World, recipient: PlatformPublicKey) -> bytes:
    """An MCIM object for somebody; what is in it does not matter where it does not open."""
    suite = world.tre.facts().suites[0]
    data = encode_data(Tag.MCIM, bytes(64), 1)
    return seal_mcim(data, suite=suite, recipient=recipient, keys=fresh_keys(suite, os.urandom))


# -- manufacture and certificates -----------------------------------------------------------------------------------


def test_certification_request_proves_both_keys(world: World) -> None:
    """REQ-21, REQ-42, REQ-45: two different keys; the proof is the attestation key's, over all the rest."""
    request = world.tre.certification_request()
    proof = base64.b64decode(request.pop("proof"))
    signed = json.dumps(request, sort_keys=True, separators=(",", ":")).encode()
    assert isinstance(world.attest_key, ec.EllipticCurvePublicKey)
    verify_raw(world.attest_key, proof, signed)
    assert request["platformKey"] != request["attestKey"]
    assert "PRIVATE" not in json.dumps(request)


def test_facts(back_end: BackEnd, world: World) -> None:
    """REQ-48: what the back-end can is what the TRE offers; nobody else's names."""
    facts = world.tre.facts()
    suites = {
        "rsa": (Suite.RSA_GCM_256, Suite.RSA_CBC_256),
        "ec": (Suite.EC_GCM_256, Suite.EC_CBC_256),
    }[back_end.key_type]
    assert facts.suites == ((Suite.LEGACY_1,) if back_end.legacy_needed else suites)
    expected = {
        "software-rsa": ("xml",),
        "software-ec": ("xml",),
        "pkcs11-rsa": ("xml-mgf1p",),
        "pkcs11-ec": ("xml", "cms"),
        "tpm-rsa": ("xml", "cms"),
        "tpm-ec": ("xml", "cms"),
    }
    assert facts.containers == expected[f"{back_end.name}-{back_end.key_type}"]
    assert facts.platform_cert is not None
    assert facts.attest_cert is not None


# -- evidence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ValidationMode)
def test_evidence(back_end: BackEnd, world: World, mode: ValidationMode) -> None:
    """REQ-18: bound to challenge, nonce and PK_D; from a TPM it is a quote."""
    nonce = world.tre.registration(NOW).nonce
    evidence = world.evidence_of(world.tre.generate_evidence(CHALLENGE, mode, NOW))
    assert (evidence.mode, evidence.challenge, evidence.nonce) == (mode, CHALLENGE, nonce)
    assert evidence.platform_key_id == world.tre.facts().platform_key_id
    assert evidence.tre_type == back_end.name
    assert (evidence.quote is not None) == (back_end.name == "tpm")
    again = world.evidence_of(world.tre.generate_evidence(CHALLENGE, mode, NOW))
    assert again.counter > evidence.counter


def test_measured_start(back_end: BackEnd, world: World) -> None:
    """REQ-18: the log is bound by the evidence, and the registers of a TPM by its quote."""
    measured = measure_start(TreSection())
    world.reopen().take_measurements(measured)
    world.register()
    evidence = world.evidence_of(world.tre.generate_evidence(CHALLENGE, ValidationMode.REMOTE, NOW))
    log = world.tre.measurement_log()
    assert decode_log(log) == measured
    assert evidence.log_digest == hashlib.sha256(log).digest()
    if evidence.quote is not None:
        assert evidence.quote.registers == (REGISTER,)
        assert evidence.quote.pcr_digest == composite_digest(replay(measured))


# -- packages -------------------------------------------------------------------------------------------------------


def _offered(world: World) -> list[tuple[Suite, Container]]:
    facts = world.tre.facts()
    return [(suite, Container(container)) for suite in facts.suites for container in facts.containers]


def test_installs_packages_of_every_suite_and_container_offered(world: World) -> None:
    """REQ-29, REQ-31, REQ-39, REQ-47, REQ-67: the same MCIM for every TRE; the receipt verifies and says so."""
    for suite, container in _offered(world):
        world.register()
        world.suite, world.container = suite, container
        mcim_id = uuid4()
        package = another(world, mcim_id)
        outcome = world.provision(package)
        assert outcome.code is ResultCode.SUCCESS, (suite, container, outcome.checks)
        receipt = world.receipt_of(outcome)
        assert (receipt.result, receipt.mcim_id) == (ResultCode.SUCCESS, mcim_id)
        assert receipt.package_hash == hashlib.sha256(package).digest()
        assert world.tre.attach_identity(mcim_id) == IMSI


def test_a_container_that_is_not_offered_is_refused(back_end: BackEnd, world: World) -> None:
    """REQ-39, T16: also when the key could open it."""
    offered = {container for _, container in _offered(world)}
    buildable = set(Container) - ({Container.XML_MGF1P} if back_end.key_type == "ec" else set())
    for container in buildable - offered:
        world.container = container
        assert world.provision(world.package()).code is ResultCode.UNSUPPORTED_SUITE, container


def test_wrong_keys_and_broken_objects(world: World) -> None:
    """REQ-40, REQ-58, REQ-60: 1413 for another recipient, 1414 for whatever does not open, as often as it comes."""
    is_rsa = isinstance(world.platform_key, rsa.RSAPublicKey)
    other = (rsa_key(2048, 1) if is_rsa else ec.generate_private_key(ec.SECP256R1())).public_key()
    good, for_other_key = sealed(world, world.platform_key), sealed(world, other)
    for_other_tre = world.package(header={"platform_key_id": key_id_of(other)})
    assert world.provision(for_other_tre).code is ResultCode.WRONG_RECIPIENT
    world.register()
    kid = good[6:22]
    spoiled = {
        "one bit of the wrapped keys": good[:40] + bytes((good[40] ^ 1,)) + good[41:],
        "one bit of the data": good[:-40] + bytes((good[-40] ^ 1,)) + good[-39:],
        "one bit of the MAC": good[:-1] + bytes((good[-1] ^ 1,)),
        "wrapped for another key, its id changed": for_other_key[:6] + kid + for_other_key[22:],
        "wrapped keys of ones": good[:24] + b"\xff" * int.from_bytes(good[22:24], "big") + good[-100:],
        "wrapped keys of zeroes": good[:24] + bytes(int.from_bytes(good[22:24], "big")) + good[-100:],
    }
    for name, octets in spoiled.items():
        outcome = world.provision(world.package(mcim_object=octets))
        assert outcome.code is ResultCode.CRYPTO_FAILURE, name
        assert world.receipt_of(outcome).result is ResultCode.CRYPTO_FAILURE
        world.register()
    # Nothing of it has hurt the key store.
    assert world.provision(another(world)).code is ResultCode.SUCCESS


def test_aka_with_what_was_installed(world: World) -> None:
    """REQ-47, REQ-55: the network's answer is the same whatever the keys live in."""
    mcim_id = uuid4()
    assert world.provision(another(world, mcim_id)).code is ResultCode.SUCCESS
    vector = aka.generate_vector(Milenage(K, OPC), rand=bytes(16), sqn=0x1000)
    accepted = world.tre.authenticate(mcim_id, bytes(16), vector.autn)
    assert isinstance(accepted, aka.Accepted)
    assert accepted.res == vector.xres


def test_new_keys(back_end: BackEnd, tmp_path: Path) -> None:
    """REQ-21: a new pair in the same device, under the same counter; packages for the old pair do not open."""
    world = back_end.world(tmp_path)
    world.register()
    old = world.package()
    request = world.tre.begin_rekey()
    again = world.reopen().begin_rekey()  # signatures differ each time
    assert {**again, "proof": "", "oldProof": ""} == {**request, "proof": "", "oldProof": ""}
    world.tre.complete_rekey(*world.take_over(request), world.certificates[2], NOW)
    world.reopen()
    world.register()
    assert world.provision(old).code is not ResultCode.SUCCESS
    assert world.provision(another(world)).code is ResultCode.SUCCESS
    assert world.reopen().facts().state == "ok"


def held(back_end: BackEnd, world: World) -> int:
    """Key objects in the back-end's device, whoever made them; none where keys are in the sealed file alone."""
    store: Any = world.tre._key_store
    if back_end.name == "pkcs11":
        from pkcs11 import Attribute, ObjectClass

        def count(session: Any) -> int:
            classes = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
            return sum(len(list(session.get_objects({Attribute.CLASS: each}))) for each in classes)

        return int(store._session.run(count))
    if back_end.name == "tpm":
        from tpm2_pytss.constants import TPM2_CAP, TPM2_HC

        def handles(esapi: Any) -> int:
            found = 0
            for kind in (TPM2_HC.TRANSIENT_FIRST, TPM2_HC.PERSISTENT_FIRST):
                _, data = esapi.get_capability(TPM2_CAP.HANDLES, kind, 16)
                found += len(list(data.data.handles))
            return found

        return int(store._device.run(handles))
    return 0


def blobs_of(tre: Tre) -> KeyBlobs:
    """The keys in use."""
    return KeyBlobs(platform=tre._state.platform_key, attest=tre._state.attest_key)


def require_gone(back_end: BackEnd, world: World, old: KeyBlobs) -> None:
    """Nothing on the disk or in the device is left of replaced keys."""
    opened = b"".join(SEAL_KEY.open(path.read_bytes(), _AAD) for path in world.directory.glob("tre.sealed*"))
    for blob in (old.platform, old.attest):
        assert base64.b64encode(blob) not in opened
    if back_end.name == "pkcs11":
        with pytest.raises(KeyStoreError, match="not in this token"):
            world.tre._key_store.load(old)
    if back_end.name == "tpm":  # a saved context is a way to load a key without its blob
        kept = world.tre._key_store._device._contexts
        assert {each.public for each in kept} <= {_tpm_public(blob) for blob in _blobs(blobs_of(world.tre))}


def _blobs(keys: KeyBlobs) -> tuple[bytes, bytes]:
    return keys.platform, keys.attest


def _tpm_public(blob: bytes) -> bytes:
    from dmclient.tre.tpm_device import WrappedKey

    return WrappedKey.decode(blob).public


def test_replaced_keys_are_destroyed(back_end: BackEnd, tmp_path: Path) -> None:
    """REQ-21, REQ-42, T11: with the certificates of the new ones; whatever another TRE has there stays."""
    other = back_end.world(tmp_path / "other")
    world = back_end.world(tmp_path / "tre")
    before = held(back_end, world)
    for _ in range(2):
        old = blobs_of(world.tre)
        world.tre.complete_rekey(*world.take_over(world.tre.begin_rekey()), world.certificates[2], NOW)
        assert held(back_end, world) == before
        require_gone(back_end, world, old)
    for each in (world, other):
        each.reopen().renew_registration(reason="initial", sho_id=SHO, now=NOW)
        assert each.provision(another(each)).code is ResultCode.SUCCESS


class PowerCut(BaseException):
    """Nothing after it runs, no handler either: only a new start."""


CUTS = {  # where the power goes, and whether the new keys are in use after the next start
    "the new keys are made": ("begin", "commit", "before"),
    "the new keys are noted": ("begin", "commit", "after"),
    "their certificates are there": ("complete", "commit", "before"),
    "the state names the new keys": ("complete", "commit", "after"),
    "the file is written, the counter is not": ("complete", "_commit", "half"),
}


@pytest.mark.parametrize(("call", "name", "when"), CUTS.values(), ids=CUTS)
def test_a_power_cut_while_keys_are_replaced(
    back_end: BackEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str, when: str
) -> None:
    """REQ-21, REQ-56: the TRE has one pair or the other, nothing of it is lost, and the next start clears the rest."""
    world = back_end.world(tmp_path)
    before, old = held(back_end, world), blobs_of(world.tre)
    step: Callable[[], object] = world.tre.begin_rekey
    if call == "complete":
        step = partial(world.tre.complete_rekey, *world.take_over(world.tre.begin_rekey()), world.certificates[2], NOW)
    done = getattr(TreMemory, name)

    def cut(memory: TreMemory, state: Any) -> None:
        if when == "after":
            done(memory, state)
        if when == "half":
            memory._counter = Stuck(memory._counter)
            done(memory, state)
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(TreMemory, name, cut)
        with pytest.raises(PowerCut):
            step()
    world.reopen()
    replaced = call == "complete" and when != "before"
    noted = when == "after" if call == "begin" else when == "before"
    assert (blobs_of(world.tre) == old) is not replaced
    assert (world.tre._state.next_keys is not None) is noted
    assert held(back_end, world) - before == (4 if noted and back_end.name == "pkcs11" else 0)
    if replaced:
        require_gone(back_end, world, old)
    else:
        world.tre.complete_rekey(*world.take_over(world.tre.begin_rekey()), world.certificates[2], NOW)
    assert held(back_end, world) == before
    world.register()
    assert world.provision(another(world)).code is ResultCode.SUCCESS


class Stuck:
    """A counter at which the power goes."""

    def __init__(self, counter: Any) -> None:
        self.read = counter.read

    def increment(self) -> int:
        raise PowerCut


def test_unfinished_re_keying_does_not_pile_up(
    back_end: BackEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-21, T12: begun again and again on a full disk, or with a device that fails after the first key."""
    world = back_end.world(tmp_path)
    before = held(back_end, world)
    with monkeypatch.context() as patch:
        patch.setattr(SealedStore, "write", _full)
        for _ in range(3):
            with pytest.raises(TreError):
                world.tre.begin_rekey()
            assert held(back_end, world) == before
    for _ in range(3):
        world.tre.begin_rekey()
        world.reopen()
    assert held(back_end, world) - before == (4 if back_end.name == "pkcs11" else 0)


def _full(*_: object) -> None:
    raise StorageFailed(broken=False)


def test_manufacture_that_failed_leaves_no_keys(
    back_end: BackEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-45, T12: on a full disk; what the last try made is destroyed before the next makes its own."""
    with monkeypatch.context() as patch:
        patch.setattr(SealedStore, "write", _full)
        for _ in range(3):
            with pytest.raises(TreError):
                back_end.world(tmp_path)
    first = back_end.world(tmp_path / "another")
    before = held(back_end, first)
    world = back_end.world(tmp_path)  # two keys in the place of those that the last try left
    assert held(back_end, world) == before


def test_another_process_keeps_its_hands_off_new_keys(back_end: BackEnd, tmp_path: Path) -> None:
    """REQ-21, REQ-56: a process that knows an older state destroys nothing of what another one made since."""
    world = back_end.world(tmp_path)
    stale = world.tre
    request = world.reopen().begin_rekey()
    stale._clear_key_store()
    with pytest.raises(TreError):
        stale.begin_rekey()
    world.reopen().complete_rekey(*world.take_over(request), world.certificates[2], NOW)
    stale._clear_key_store()
    world.register()
    assert world.provision(another(world)).code is ResultCode.SUCCESS


def test_an_old_store_destroys_no_keys(back_end: BackEnd, tmp_path: Path) -> None:
    """T3, REQ-21: what a state that was put back does not name may be in use."""
    world = back_end.world(tmp_path)
    before = (tmp_path / STORE_NAME).read_bytes()
    world.tre.begin_rekey()
    keys = held(back_end, world)
    (tmp_path / STORE_NAME).write_bytes(before)
    assert world.reopen().facts().state == "tampered"
    assert held(back_end, world) == keys


def test_a_device_that_does_not_destroy_keeps_nobody_from_the_new_keys(
    back_end: BackEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQ-21: they are in use all the same, and the next start tries again."""
    world = back_end.world(tmp_path)
    before = held(back_end, world)

    def refuse(*_: object) -> None:
        raise KeyStoreError("token is lost")

    request = world.tre.begin_rekey()
    with monkeypatch.context() as patch:
        patch.setattr(type(world.tre._key_store), "keep_only", refuse)
        world.tre.complete_rekey(*world.take_over(request), world.certificates[2], NOW)
        world.reopen().renew_registration(reason="initial", sho_id=SHO, now=NOW)
        assert world.provision(another(world)).code is ResultCode.SUCCESS
    world.reopen()
    assert held(back_end, world) == before


class Failing:
    """A session or connection that fails once, at a certain call of it."""

    def __init__(self, inner: Any, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return found if not callable(found) else partial(self._faults.call, found)


class Faults:
    """Makes the device fail at call number `place`, counted from 0."""

    def __init__(self, place: int, error: Exception) -> None:
        self.calls, self._place, self._error = 0, place, error

    def call(self, method: Any, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self._place + 1:
            raise self._error
        return method(*arguments, **named)

    @property
    def met(self) -> bool:
        """Whether it came so far."""
        return self.calls > self._place


def _errors(back_end: BackEnd) -> list[Exception]:
    """One of a device that is gone, one of a device that does not want."""
    if back_end.name == "pkcs11":
        from pkcs11.exceptions import DeviceRemoved, GeneralError

        return [DeviceRemoved(), GeneralError()]
    from tpm2_pytss import TSS2_Exception

    return [TSS2_Exception(0x000A000A), TSS2_Exception(0x101)]


STEPS: dict[str, Callable[[World], object]] = {
    "a request": lambda world: world.register(),
    "evidence": lambda world: world.tre.generate_evidence(CHALLENGE, ValidationMode.SEMI_AUTONOMOUS, NOW),
    "a package": lambda world: world.provision(another(world)),
    "new keys": lambda world: world.tre.complete_rekey(
        *world.take_over(world.tre.begin_rekey()), world.certificates[2], NOW
    ),
    "a start": lambda world: world.reopen(),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("kind", [0, 1], ids=["gone", "refuses"])
def test_a_device_that_fails_at_every_step(
    hardware: BackEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[World], object], kind: int
) -> None:
    """REQ-48, REQ-56: each end is typed; after the next start the TRE is in order, works, and nothing piles up."""
    owner, name = _entrance(hardware)
    enter = getattr(owner, name)
    world = hardware.world(tmp_path, max_mcim=250)
    before = held(hardware, world)
    for place in range(200):
        world.register()
        faults = Faults(place, _errors(hardware)[kind])
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, lambda device, faults=faults: Failing(enter(device), faults))
            with suppress(TreError, KeyStoreError, OSError):
                step(world)
        tre = world.reopen()
        world.take_over(tre.certification_request())
        assert tre.facts().state == "ok", place
        if tre._state.next_keys is not None:
            certificates = world.take_over(tre.begin_rekey())
            tre.complete_rekey(*certificates, world.certificates[2], NOW)
        if hardware.name == "pkcs11":  # what a broken connection leaves loaded in a TPM goes when its place is needed
            assert held(hardware, world) == before, place
        if not faults.met:
            break
    assert place > 0
    world.register()
    assert world.provision(another(world)).code is ResultCode.SUCCESS


def _entrance(back_end: BackEnd) -> tuple[Any, str]:
    if back_end.name == "pkcs11":
        from dmclient.tre.pkcs11_session import TokenSession

        return TokenSession, "_alive"
    from dmclient.tre.tpm_device import TpmDevice

    return TpmDevice, "_connected"


# -- counter, restart, roll-back -------------------------------------------------------------------------------------


def test_counter_rises_and_survives(back_end: BackEnd, tmp_path: Path) -> None:
    """T3: by one at each increment, and never back, also when two users look at it."""
    store = back_end.open(tmp_path)
    first = store.counter.read()
    assert [store.counter.increment(), store.counter.read()] == [first + 1, first + 1]
    store.close()
    again = back_end.open(tmp_path)
    assert again.counter.read() == first + 1
    assert [again.counter.increment(), again.counter.increment()] == [first + 2, first + 3]
    again.close()


def test_everything_is_there_after_a_restart(back_end: BackEnd, tmp_path: Path) -> None:
    """REQ-42, REQ-48: in another process, which has nothing but files and device."""
    world = back_end.world(tmp_path)
    world.register()
    package = world.package()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        code = pool.apply(_provision_elsewhere, (back_end.settings, tmp_path, package))
    assert code == ResultCode.SUCCESS
    assert world.reopen().attach_identity(MCIM_ID) == IMSI


def _provision_elsewhere(settings: TreSection, directory: Path, package: bytes) -> int:
    tre = Tre.open(directory, SEAL_KEY, open_key_store(settings, directory))
    return int(tre.provision(package, Hints(), NOW).code)


def test_an_old_store_put_back_is_found_out(back_end: BackEnd, tmp_path: Path) -> None:
    """T3: the counter of the device went on."""
    world = back_end.world(tmp_path)
    world.register()
    before = (tmp_path / STORE_NAME).read_bytes()
    package = world.package()
    assert world.provision(package).code is ResultCode.SUCCESS
    (tmp_path / STORE_NAME).write_bytes(before)
    assert world.reopen().facts().state == "tampered"
    assert world.provision(package).code is ResultCode.TRE_STATE_NOT_OK


def test_another_counter_is_found_out(hardware: BackEnd, tmp_path: Path) -> None:
    """T3: who takes the reference to the counter away, or gives another one, gets no TRE."""
    world = hardware.world(tmp_path / "one")
    other = hardware.open(tmp_path / "two")
    other.counter.read()
    reference = tmp_path / "one" / REFERENCE_NAME
    own = reference.read_bytes()
    reference.write_bytes((tmp_path / "two" / REFERENCE_NAME).read_bytes())
    with pytest.raises(KeyStoreError, match="counter"):
        world.reopen()
    reference.unlink()
    with pytest.raises(KeyStoreError, match="counter"):
        world.reopen()
    reference.write_bytes(b"no reference")
    with pytest.raises(OSError, match="names no counter"):
        world.reopen()
    reference.write_bytes(own)
    other.close()


def test_two_tres_in_one_device_do_not_disturb_each_other(back_end: BackEnd, tmp_path: Path) -> None:
    """REQ-64: keys and counters are apart; the keys of one do not load as those of another kind of store."""
    first, second = back_end.world(tmp_path / "one"), back_end.world(tmp_path / "two")
    for world in (first, second, first):
        world.register()
        assert world.provision(another(world)).code is ResultCode.SUCCESS
    assert first.tre.facts().platform_key_id != second.tre.facts().platform_key_id
    foreign = second.package()
    assert first.provision(foreign).code in (ResultCode.WRONG_RECIPIENT, ResultCode.SIGNER_NOT_ACCEPTABLE)
    for world in (second, first):
        assert world.reopen().facts().state == "ok"


def test_calls_from_several_threads(world: World) -> None:
    """REQ-48: one device, many callers."""
    with ThreadPoolExecutor(4) as pool:
        octets = list(
            pool.map(lambda _: world.tre.generate_evidence(CHALLENGE, ValidationMode.AUTONOMOUS, NOW), range(24))
        )
    assert len({world.evidence_of(each).counter for each in octets}) == 24


# -- what must not be possible ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        lambda blobs: KeyBlobs(platform=b"", attest=blobs.attest),
        lambda blobs: KeyBlobs(platform=blobs.platform, attest=b"{}"),
        lambda blobs: KeyBlobs(platform=b"\xff" * 40, attest=blobs.attest),
        lambda blobs: KeyBlobs(platform=blobs.platform[:-7], attest=blobs.attest),
        lambda blobs: KeyBlobs(platform=blobs.attest, attest=blobs.platform),
    ],
    ids=["nothing", "empty", "random", "truncated", "swapped"],
)
def test_keys_that_are_none(back_end: BackEnd, tmp_path: Path, spoil: Any) -> None:
    """REQ-45: a typed error; the keys are not interchangeable either."""
    store = back_end.open(tmp_path)
    try:
        blobs = store.generate(back_end.key_type)
        if back_end.name == "software" and back_end.key_type == "ec" and spoil(blobs).platform == blobs.attest:
            return  # both are P-256 in files, and nothing but the seal says which is which
        with pytest.raises(KeyStoreError):
            store.load(spoil(blobs))
    finally:
        store.close()


def test_nothing_secret_is_shown(world: World) -> None:
    """REQ-42: representations name no key."""
    assert "platform=" not in repr(KeyBlobs(platform=b"secret", attest=b"secret"))
    assert "secret" not in repr(KeyBlobs(platform=b"secret", attest=b"secret"))


def test_counter_files_hold_no_keys(back_end: BackEnd, made: World) -> None:
    """REQ-42: beside the sealed file there is nothing but a number, or the name of a counter."""
    names = {path.name for path in made.directory.iterdir()}
    assert names == {STORE_NAME, COUNTER_NAME if back_end.name == "software" else REFERENCE_NAME}
