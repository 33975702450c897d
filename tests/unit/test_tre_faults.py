"""A TRE whose surroundings fail or lie: every end is a typed one, nothing is half done and no number comes twice."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519

from dmclient.tre.base import TreError
from dmclient.tre.counter import COUNTER_NAME
from dmclient.tre.counter_reference import REFERENCE_NAME, ReferenceFile
from dmclient.tre.environment import Tre
from dmclient.tre.keys import KeyBlobs, KeyStoreError, KeyStoreGone
from dmclient.tre.software import SoftwareKeys, SoftwareKeyStore
from mcim.vocabulary import ResultCode, ValidationMode
from tests.support_tre import M2ME_ID, NOW, SEAL_KEY, TRE_ID, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, key_type="ec")
    world.register()
    return world


def gone(*_: object, **__: object) -> Any:
    raise KeyStoreGone("token is lost")


# -- a key store that is gone for a moment ---------------------------------------------------------------------------


def test_a_good_package_outlives_a_lost_key_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-56, REQ-60: lost between signature and decryption it costs no try, and the package is not called broken."""
    package = world.package()
    with monkeypatch.context() as patch:
        patch.setattr(world.tre._keys.platform, "agree", gone)
        outcome = world.provision(package)
    assert outcome.code is ResultCode.INTERNAL_ERROR
    assert world.tre._state.registration.crypto_failures == 0
    assert world.provision(package).code is ResultCode.SUCCESS


def test_an_answer_of_the_key_store_is_no_oracle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-60: whatever else the key store says of a ciphertext is one code."""
    package = world.package()

    def refuse(*_: object) -> bytes:
        raise KeyStoreError("token refuses: DataInvalid")

    monkeypatch.setattr(world.tre._keys.platform, "agree", refuse)
    assert world.provision(package).code is ResultCode.CRYPTO_FAILURE


def test_evidence_without_the_key_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-18: who asks for evidence hears of a TRE's error, as the interface says."""
    monkeypatch.setattr(SoftwareKeys, "attest", gone)
    with pytest.raises(TreError) as caught:
        world.tre.generate_evidence(bytes(32), ValidationMode.AUTONOMOUS, NOW)
    assert caught.value.code is ResultCode.INTERNAL_ERROR


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", [b"0", b"1", b"-5"])
def test_no_number_comes_twice_after_the_counter_was_turned_back(world: World, counter: bytes) -> None:
    """T3, REQ-67: the state knows how far the numbers went, whatever the counter says."""
    last = [world.receipt_of(world.provision(b"")).counter for _ in range(60)][-1]
    (world.directory / COUNTER_NAME).write_bytes(counter)
    assert world.reopen().facts().state == "tampered"
    assert world.receipt_of(world.provision(b"")).counter > last


# -- files that say something else ------------------------------------------------------------------------------------

REFERENCES: dict[str, Any] = {
    "nothing": b"",
    "deep": b"[" * 100_000,
    "no text": b"\xff\xfe",
    "another kind": b"null",
    "a lone surrogate": json.dumps({"name": "m\ud800", "authorisation": ""}).encode(),
    "no printable name": json.dumps({"name": "a\nb", "authorisation": ""}).encode(),
    "an endless name": json.dumps({"name": "a" * 200, "authorisation": ""}).encode(),
    "an endless authorisation": json.dumps({"name": "a", "authorisation": "00" * 100}).encode(),
    "an authorisation that is none": json.dumps({"name": "a", "authorisation": 7}).encode(),
}


@pytest.mark.parametrize("octets", REFERENCES.values(), ids=REFERENCES)
def test_a_counter_reference_that_is_none(tmp_path: Path, octets: bytes) -> None:
    """T3: whoever can write the file gets a typed error, and nothing of it reaches a token or a TPM."""
    (tmp_path / REFERENCE_NAME).write_bytes(octets)
    with pytest.raises(OSError, match="names no counter"):
        ReferenceFile(tmp_path).read()


def test_nobody_else_gets_into_the_directory(tmp_path: Path) -> None:
    """T9, T12: whoever could open it could lock it, and the TRE would wait for ever."""
    (tmp_path / "tre").mkdir(mode=0o755)
    world = World(tmp_path / "tre", key_type="ec")
    assert world.directory.stat().st_mode & 0o077 == 0


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """REQ-45: manufacture on a full disk, or below a file."""
    (tmp_path / "file").write_bytes(b"")
    directory = tmp_path / "file" / "tre"
    store = SoftwareKeyStore(directory)
    with pytest.raises(TreError) as caught:
        Tre.manufacture(directory, seal_key=SEAL_KEY, key_store=store, m2me_id=M2ME_ID, tre_id=TRE_ID, key_type="ec")
    assert caught.value.code is ResultCode.STORAGE_FAILURE


# -- keys of kinds that nobody knows ---------------------------------------------------------------------------------


def test_certificates_of_a_key_of_another_kind(world: World) -> None:
    """REQ-21: other keys, whatever kind they are of."""
    key: Any = ed25519.Ed25519PrivateKey.generate().public_key()

    class Odd:
        def __init__(self, answer: Callable[[], Any]) -> None:
            self.public_key = answer

    def unknown() -> Any:
        raise UnsupportedAlgorithm("curve")

    for odd in (Odd(lambda: key), Odd(unknown)):
        with pytest.raises(TreError) as caught:
            world.tre.install_certificates(odd, odd, [], [])
        assert caught.value.code is ResultCode.WRONG_RECIPIENT


def test_a_supplier_with_a_key_of_another_kind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-44: a chain that the library does not understand is no signer's."""

    def unknown(*_: object, **__: object) -> Any:
        raise UnsupportedAlgorithm("curve")

    monkeypatch.setattr("dmclient.tre.supplier.verify_supplier_command", unknown)
    assert world.tre.supplier_command(world.supplier(), NOW) is ResultCode.SIGNER_NOT_ACCEPTABLE


def test_key_blobs_of_a_kind_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-45: a typed error."""

    def unknown(*_: object, **__: object) -> Any:
        raise UnsupportedAlgorithm("curve")

    monkeypatch.setattr("dmclient.tre.software.load_der_private_key", unknown)
    with pytest.raises(KeyStoreError):
        SoftwareKeyStore(tmp_path).load(KeyBlobs(platform=b"x", attest=b"x"))


# -- several callers --------------------------------------------------------------------------------------------------


def test_a_package_that_waited_for_new_keys_is_receipted_by_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQ-21, REQ-67: called while the keys are replaced, signed with those whose certificate the TRE shows."""
    certificates = world.take_over(world.tre.begin_rekey())
    outcomes: list[Any] = []
    caller = threading.Thread(target=lambda: outcomes.append(world.provision(b"")))
    commit = world.tre._memory.commit
    lock = world.tre._memory.lock
    waiting = threading.Event()

    class Watched:
        """The lock, which tells that somebody came to it."""

        def __enter__(self) -> None:
            if threading.current_thread() is caller:
                waiting.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    def slow(state: Any) -> None:
        if not caller.ident:
            caller.start()
            assert waiting.wait(10)
        commit(state)

    with monkeypatch.context() as patch:
        patch.setattr(world.tre._memory, "lock", Watched())
        patch.setattr(world.tre, "_lock", Watched())
        patch.setattr(world.tre._memory, "commit", slow)
        world.tre.complete_rekey(*certificates, world.certificates[2], NOW)
        caller.join(10)
    assert world.receipt_of(outcomes[0]).result is ResultCode.MALFORMED


# -- a full disk at every write ---------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[World], object]] = {
    "a request": lambda world: world.register(),
    "a package": lambda world: world.provision(world.package()),
    "new keys": lambda world: world.tre.begin_rekey(),
    "a supplier's command": lambda world: world.tre.supplier_command(world.supplier(), NOW),
    "evidence": lambda world: [
        world.tre.generate_evidence(bytes(32), ValidationMode.AUTONOMOUS, NOW) for _ in range(40)
    ],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("place", range(6))
def test_a_full_disk_at_every_write(
    world: World, monkeypatch: pytest.MonkeyPatch, call: Callable[[World], object], place: int
) -> None:
    """REQ-56: open, write, sync, rename or directory: a typed error, and after a start the state before or after."""
    before = world.tre._state
    steps = iter(range(1000))
    real = {name: getattr(os, name) for name in ("fsync", "replace")}

    def failing(name: str) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            if next(steps) == place:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real[name](*arguments)

        return step

    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(os, name, failing(name))
        with suppress(TreError):  # and nothing else
            call(world)
    tre = world.reopen()
    assert tre.facts().state == "ok"
    assert tre._state.generation >= before.generation
    assert tre._state.platform_key == before.platform_key
    world.register()
    assert world.provision(world.package()).code in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE)
