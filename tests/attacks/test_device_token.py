"""T4, T7, T11, REQ-61: guessing the device token, with and without pulling the plug."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dmclient.tre import token as token_module
from dmclient.tre.store import SealedStore, StorageFailed
from dmclient.tre.token import TRIES, TokenVerifier
from mcim.vocabulary import ResultCode
from tests.support_attacks import Arena, make_arena
from tests.support_tre import K

TOKEN = b"label-2026"


class PowerCut(BaseException):
    """The process ends here; nothing behind it runs. No handler of the code under test may catch it."""


@pytest.fixture(scope="module")
def made_locked(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return make_arena(tmp_path_factory.mktemp("token") / "tre", key_type="ec", token=TOKEN)


@pytest.fixture
def device(made_locked: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arena:
    """A device whose label says TOKEN; scrypt is made quick, for it is the counter that is attacked here."""
    arena = made_locked.copied(tmp_path / "tre")
    monkeypatch.setattr(token_module, "_hash", lambda token, salt: hashlib.sha256(salt + token).digest())
    verifier = TokenVerifier.of(TOKEN, os.urandom)
    arena.tre._memory.commit(dataclasses.replace(arena.tre._state, token=verifier))
    return arena


def attempt(arena: Arena, token: bytes | None) -> ResultCode:
    """A new registration and a package right in everything but, perhaps, the token."""
    arena.register()
    return arena.provision(arena.package(content={"auth_token": token})).code


GUESSES: list[bytes | None] = [
    b"label-2025", b"label-202", b"label-2026 ", b"LABEL-2026", b"\0", b"label-2026\0", b"x" * 64, TOKEN[::-1],
]  # fmt: skip


@pytest.mark.parametrize("guess", GUESSES, ids=repr)
def test_near_misses(device: Arena, guess: bytes) -> None:
    """T11 REQ-61: all octets count, and nothing is installed (1417)."""
    assert attempt(device, guess) is ResultCode.TOKEN_WRONG
    assert device.tre.mcims() == ()


def test_no_token_is_no_guess_and_no_way_round(device: Arena) -> None:
    """T11 REQ-61: without a token 1417 for ever, and the tries are still there for the owner."""
    assert {attempt(device, None) for _ in range(TRIES + 3)} == {ResultCode.TOKEN_WRONG}
    assert attempt(device, TOKEN) is ResultCode.SUCCESS


def test_locked_after_five(device: Arena) -> None:
    """T11 REQ-61: the sixth try is refused even when it is right, after Renew and after a restart as well (1418)."""
    assert [attempt(device, b"%d" % number) for number in range(TRIES)] == [ResultCode.TOKEN_WRONG] * TRIES
    assert attempt(device, TOKEN) is ResultCode.TOKEN_LOCKED
    device.reopen()
    assert [attempt(device, TOKEN) for _ in range(3)] == [ResultCode.TOKEN_LOCKED] * 3
    assert device.tre.mcims() == ()


def test_one_registration_one_guess(device: Arena) -> None:
    """T11 REQ-61 REQ-52: a wrong token ends the registration: many guesses need the SHO's signature as many times."""
    device.register()
    packages = [device.package(content={"auth_token": b"%d" % number}) for number in range(3)]
    codes = [device.provision(package).code for package in packages]
    assert codes == [ResultCode.TOKEN_WRONG, ResultCode.REPLAY, ResultCode.REPLAY]


def test_right_token_after_four_guesses(device: Arena) -> None:
    """REQ-61: the owner comes in time, and all tries are there again."""
    for _ in range(2):
        assert [attempt(device, b"guess") for _ in range(TRIES - 1)] == [ResultCode.TOKEN_WRONG] * (TRIES - 1)
        assert attempt(device, TOKEN) in (ResultCode.SUCCESS, ResultCode.ALREADY_DONE)


def _cut_at_comparison(patch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> bool:
        raise PowerCut

    patch.setattr(TokenVerifier, "matches", cut)


def _cut_after_comparison(patch: pytest.MonkeyPatch) -> None:
    """The guess was compared; the plug is pulled before the refusal is written."""
    real = SealedStore.write
    written = 0

    def cut(self: SealedStore, plaintext: bytes) -> None:
        nonlocal written
        written += 1
        if written == 2:  # first the counted try, then the outcome
            raise PowerCut
        real(self, plaintext)

    patch.setattr(SealedStore, "write", cut)


def _cut_when_refusing(patch: pytest.MonkeyPatch) -> None:
    def cut(*_: object, **__: object) -> None:
        raise PowerCut

    patch.setattr("dmclient.tre.reception.sign_receipt", cut)


CUTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "at the comparison": _cut_at_comparison,
    "after the comparison": _cut_after_comparison,
    "when the refusal is signed": _cut_when_refusing,
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_power_cut_between_guesses(device: Arena, cut: Callable[[pytest.MonkeyPatch], None]) -> None:
    """T11 REQ-61: the plug pulled at every guess: the try was counted before, so there are five and no more."""
    for number in range(TRIES):
        device.register()
        package = device.package(content={"auth_token": b"%d" % number})
        with pytest.MonkeyPatch.context() as patch:
            cut(patch)
            with pytest.raises(PowerCut):
                device.provision(package)
        device.reopen()
    assert attempt(device, TOKEN) is ResultCode.TOKEN_LOCKED


def test_a_try_that_cannot_be_counted_is_none(device: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """T11 REQ-61: with a full disk nothing is compared: 1501 for a right and a wrong token alike."""
    device.register()
    packages = [device.package(content={"auth_token": token}) for token in (b"guess", TOKEN)]
    compared: list[bytes] = []
    monkeypatch.setattr(TokenVerifier, "matches", lambda self, token: bool(compared.append(token)))

    def full(self: SealedStore, plaintext: bytes) -> None:
        raise StorageFailed(broken=False)

    monkeypatch.setattr(SealedStore, "write", full)
    assert [device.provision(package).code for package in packages] == [ResultCode.STORAGE_FAILURE] * 2
    assert compared == []


def test_token_is_not_in_the_clear(device: Arena, made_locked: Arena) -> None:
    """T1 REQ-61: the token travels inside the object alone, and the store keeps a salted hash, sealed."""
    device.register()
    package = device.package(content={"auth_token": TOKEN})
    assert TOKEN not in package
    assert TOKEN not in made_locked.tre._state.dump()
    assert repr(TOKEN)[2:-1] not in repr(made_locked.tre._state.token)
    for file in device.directory.rglob("*"):
        if file.is_file():
            octets = file.read_bytes()
            assert TOKEN not in octets
            assert K not in octets
